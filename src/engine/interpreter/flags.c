/*
 * flags.c - from lazy flags to EFLAGS
 */
#include "engine/interpreter/flags.h"

void flags_materialize(struct icpu *c)
{
    uint64_t flags = 0;

    if (c->cc_kind == CC_RFLAGS)
        return;
    flags |= flag_cf(c) ? X86_FLAG_CF : 0;
    flags |= flag_pf(c) ? X86_FLAG_PF : 0;
    flags |= flag_af(c) ? X86_FLAG_AF : 0;
    flags |= flag_zf(c) ? X86_FLAG_ZF : 0;
    flags |= flag_sf(c) ? X86_FLAG_SF : 0;
    flags |= flag_of(c) ? X86_FLAG_OF : 0;
    c->cpu.s.rflags = (c->cpu.s.rflags & ~(uint64_t)X86_FLAGS_STATUS) | flags;
    c->cc_kind = CC_RFLAGS;
}
