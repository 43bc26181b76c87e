/*
 * vectors.c - vector instructions, and when vector registers are loaded
 *
 * A vector instruction is copied: it works on the host's registers of the same numbers. Whether
 * they are loaded is known while generated code runs (translator.vector_level); a block looks once
 * before its first vector instruction, and again behind an instruction that is the interpreter's.
 */
#include "engine/translator/builder.h"

/* ---- levels ---- */

static enum vector_level level_of(const struct tr_insn *ti)
{
    if (ti->kind != TR_VECTOR)
        return VECTORS_NONE;
    if (ti->plan.needs & (FPU_AVX512 | FPU_AVX512_FP))
        return VECTORS_AVX512;
    return ti->plan.needs & (FPU_AVX | FPU_AVX_FP) ? VECTORS_AVX : VECTORS_SSE;
}

/* Up from instruction n, but not to before first: where the flags are dead, or n. */
static unsigned place_level(const struct tr_builder *b, unsigned first, unsigned n)
{
    for (unsigned place = n; place >= first; place--) {
        if (!b->insns[place].flags_live)
            return place;
        if (!place || b->insns[place].joined_from != NO_INSN)
            break;
    }
    return n;
}

void plan_vector_levels(struct tr_builder *b)
{
    unsigned first = 0; /* no step that is always made from here on */

    for (unsigned n = 0; n < b->count; n++)
        b->insns[n].raise = VECTORS_NONE;
    while (first < b->count) {
        enum vector_level most = VECTORS_NONE;
        unsigned user = b->count, n = first;

        for (; n < b->count && b->insns[n].kind != TR_FALLBACK; n++) {
            enum vector_level level = level_of(&b->insns[n]);

            if (level && user == b->count)
                user = n;
            if (level > most)
                most = level;
        }
        if (most)
            b->insns[place_level(b, first, user)].raise = most;
        first = n + 1;
    }
}

void emit_vector_level(struct tr_builder *b, struct tr_insn *ti)
{
    enum vector_level level = ti->raise ? ti->raise : level_of(ti);
    struct cold *cold;

    if (b->level >= level)
        return;
    guard_flags(b, ti);
    emit_cmp_field(b->e, &b->t->vector_level, level);
    cold = cold_new(b, COLD_RAISE, emit_jcc(b->e, CC_B));
    b->level = level;
    finish_cold(b, cold);
}

/* ---- vector instructions ---- */

/* General register operands; false if there are more than the scratch registers can hold. */
static bool place_registers(struct tr_builder *b, const struct tr_insn *ti, struct rewrite *r,
                            int *out_spilled)
{
    *out_spilled = NO_REG;
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const ZydisDecodedOperand *o = &ti->insn.operands[n];
        int guest, host;

        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || (guest = gpr_of(o->reg.value)) == NO_REG)
            continue;
        if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG &&
            o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue; /* implicit ones are in their places (analyse.c) */
        host = (int)guest_value(b, guest, TR_S1);
        if (is_spilled(guest)) {
            if (*out_spilled != NO_REG)
                return false;
            if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
                *out_spilled = guest;
        }
        if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            r->reg = host;
        else
            r->rm = host;
    }
    return true;
}

bool emit_vector(struct tr_builder *b, struct tr_insn *ti)
{
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    struct place place = {0};
    int spilled;

    if (ti->memory) {
        place = emit_access(b, ti, &ti->access[0]);
        rewrite_at(&r, &place);
    }
    flags_for(b, ti);
    if (!place_registers(b, ti, &r, &spilled) || !rewrite_insn(b->e, &ti->insn, &r))
        return false;
    if (spilled != NO_REG)
        emit_store(b->e, guest_slot(b, spilled), TR_S1);
    finish_access(b, &place);
    return true;
}

/* ---- x87: its registers are in the host's while the interpreter's loop runs, once loaded ---- */

static void store_u16(struct tr_builder *b, const uint16_t *field, unsigned value)
{
    struct host_mem m = mem_field(field);

    m.immediate_bytes = 2;
    put8(b->e, 0x66);
    emit_rm(b->e, false, 0xc7, 0, m);
    put8(b->e, value);
    put8(b->e, value >> 8);
}

static void copy_selector(struct tr_builder *b, uint16_t *field, unsigned segment)
{
    emit_rm(b->e, false, 0x0fb7, TR_S1, mem_field(&b->t->c->cpu.s.seg[segment].selector));
    put8(b->e, 0x66);
    emit_rm(b->e, false, 0x89, TR_S1, mem_field(field));
}

/* What FSTENV and FSAVE show of the last instruction. TR_S0 is the address of the operand. */
static void remember_x87(struct tr_builder *b, struct tr_insn *ti)
{
    struct x86_fpu *fpu = &b->t->c->cpu.s.fpu;

    if (!ti->plan.sets_pointers)
        return;
    emit_constant(b->e, TR_S1, ti->rip);
    emit_store(b->e, mem_field(&fpu->fip), TR_S1);
    store_u16(b, &fpu->fop, ti->plan.fop);
    copy_selector(b, &fpu->fcs, X86_CS);
    if (!ti->memory)
        return;
    emit_store(b->e, mem_field(&fpu->fdp), TR_S0);
    copy_selector(b, &fpu->fds, ti->built.seg);
}

bool emit_x87(struct tr_builder *b, struct tr_insn *ti)
{
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    const ZydisDecodedOperand *m = ti->memory;
    struct host_mem blocked = mem_field(&b->t->c->fpu_blocked);
    struct place place = {0};
    struct cold *cold;

    /* FS and GS: the pointer is the offset in the segment, and TR_S0 is not. */
    if (m && (m->mem.segment == ZYDIS_REGISTER_FS || m->mem.segment == ZYDIS_REGISTER_GS))
        return false;
    if (ti->flags_live)
        flags_save(b);
    blocked.immediate_bytes = 1;
    emit_rm(b->e, false, 0xf6, 0, blocked); /* test byte [fpu_blocked], FPU_X87 */
    put8(b->e, FPU_X87);
    cold = cold_new(b, COLD_STEP, emit_jcc(b->e, CC_NE));
    cold->op = insn_op(b, ti);
    if (m) {
        place = emit_access(b, ti, &ti->access[0]);
        if (!place.cold)
            emit_address_of(b, ti, &ti->access[0]);
        rewrite_at(&r, &place);
    }
    flags_for(b, ti);
    remember_x87(b, ti);
    if (!rewrite_insn(b->e, &ti->insn, &r))
        return false;
    finish_access(b, &place);
    finish_cold(b, cold);
    return true;
}
