/*
 * system.c - flag instructions, segment, control and debug registers, MSRs, CPUID, TSC, TLB and
 * cache control, HLT, XSAVE, and what else only the operating system uses
 *
 * Semantics that other engines share are in src/x86; here is what belongs to the interpreter:
 * checking CPL, bringing RIP and flags up to date before, and leaving the block after anything
 * that changes how code is fetched.
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/operands.h"

#include <stdatomic.h>

#include "engine/translator/translator.h"
#include "trapeze/machine.h"
#include "x86/control.h"
#include "x86/features.h"
#include "x86/segments.h"

#define BYTES     (i->extra & 15u)
#define IN_MEMORY 0x10u

static void require_cpl0(struct icpu *c, const struct op *i)
{
    if (unlikely(c->cpu.cpl != 0))
        interp_raise_code(c, i, X86_GP, 0);
}
static void require_protected(struct icpu *c, const struct op *i)
{
    if (unlikely(!x86_in_protected_mode(&c->cpu) || x86_in_v86_mode(&c->cpu)))
        interp_raise(c, i, X86_UD);
}
/* SGDT, SIDT, SLDT, SMSW, STR (SDM vol. 3, 2.5) */
static void require_no_umip(struct icpu *c, const struct op *i)
{
    if (unlikely((c->cpu.s.cr4 & X86_CR4_UMIP) && c->cpu.cpl != 0))
        interp_raise_code(c, i, X86_GP, 0);
}

/* A 16-bit operand from register or memory. */
static uint16_t source16(struct icpu *c, const struct op *i)
{
    return i->extra & IN_MEMORY ? load16(c, i, ea(c, i, 2, X86_ACCESS_READ))
                                : REG(c, i->src, uint16_t);
}
/* A result of 16 bits in memory, or of the operand size in a register. */
static void store_selector(struct icpu *c, const struct op *i, uint64_t value)
{
    if (i->extra & IN_MEMORY)
        store16(c, i, ea(c, i, 2, X86_ACCESS_WRITE), (uint16_t)value);
    else
        reg_set(c, i->dst, value, BYTES);
}

/* ---- flags ---- */

const struct op *interp_flags_written(struct icpu *c, const struct op *i, uint64_t old)
{
    struct x86_state *s = &c->cpu.s;

    c->cc_kind = CC_RFLAGS;
    if (unlikely((old ^ s->rflags) & (X86_FLAG_AC | X86_FLAG_VM)))
        interp_changed(c, X86_CHANGED_FLAGS);
    if (unlikely((s->rflags & X86_FLAG_TF) ||
                 ((s->rflags & X86_FLAG_IF) &&
                  (atomic_load_explicit(&c->vcpu->events, memory_order_relaxed) &
                   VCPU_EVENT_INTERRUPT))))
        return interp_leave_after(c, i);
    NEXT(c, i);
}

const struct op *interp_shadow(struct icpu *c, const struct op *i, bool mov_ss)
{
    if (likely(!(i->extra & OP_IS_LAST) && !block_is_cut(i))) {
        /* The next instruction is in this block: nothing comes between, unless this one runs alone.
         */
        c->inner_shadow = mov_ss ? INNER_SHADOW_MOV_SS : INNER_SHADOW_STI;
        NEXT(c, i);
    }
    c->shadow = true;
    c->cpu.s.pending.shadow_is_mov_ss = mov_ss;
    return interp_leave_after(c, i);
}

const struct op *interp_segment_loaded(struct icpu *c, const struct op *i, unsigned seg,
                                       unsigned mode_key)
{
    if (likely(c->mode_key == mode_key)) {
        if (seg == X86_SS)
            return interp_shadow(c, i, true);
        NEXT(c, i);
    }
    if (seg == X86_SS) {
        c->shadow = true;
        c->cpu.s.pending.shadow_is_mov_ss = true;
    }
    return interp_leave_after(c, i);
}

static const struct op *op_clc(struct icpu *c, const struct op *i)
{
    flags_replace(c, X86_FLAG_CF, 0);
    NEXT(c, i);
}
static const struct op *op_stc(struct icpu *c, const struct op *i)
{
    flags_replace(c, X86_FLAG_CF, X86_FLAG_CF);
    NEXT(c, i);
}
static const struct op *op_cmc(struct icpu *c, const struct op *i)
{
    flags_materialize(c);
    c->cpu.s.rflags ^= X86_FLAG_CF;
    NEXT(c, i);
}
static const struct op *op_cld(struct icpu *c, const struct op *i)
{
    c->cpu.s.rflags &= ~(uint64_t)X86_FLAG_DF;
    NEXT(c, i);
}
static const struct op *op_std(struct icpu *c, const struct op *i)
{
    c->cpu.s.rflags |= X86_FLAG_DF;
    NEXT(c, i);
}
static const struct op *op_lahf(struct icpu *c, const struct op *i)
{
    flags_materialize(c);
    REG(c, REG_OFFSET(X86_RAX) + 1, uint8_t) = (uint8_t)c->cpu.s.rflags;
    NEXT(c, i);
}
static const struct op *op_sahf(struct icpu *c, const struct op *i)
{
    flags_replace(c, X86_FLAGS_STATUS & ~X86_FLAG_OF, REG(c, REG_OFFSET(X86_RAX) + 1, uint8_t));
    NEXT(c, i);
}
static const struct op *op_salc(struct icpu *c, const struct op *i)
{
    SET_REG8(REG_OFFSET(X86_RAX), flag_cf(c) ? 0xff : 0);
    NEXT(c, i);
}

/*
 * CLI and STI act on IF if CPL <= IOPL, else on VIF where VME or PVI allow it (SDM vol. 2, CLI;
 * vol. 3, 20.3). Returns the flag to change.
 */
static uint64_t interrupt_flag(struct icpu *c, const struct op *i)
{
    const struct x86_state *s = &c->cpu.s;
    unsigned iopl = (unsigned)(s->rflags & X86_FLAG_IOPL) >> 12;

    if (likely(c->cpu.cpl <= iopl)) /* in V86 mode CPL is 3 */
        return X86_FLAG_IF;
    if (x86_in_v86_mode(&c->cpu) ? s->cr4 & X86_CR4_VME : c->cpu.cpl == 3 && (s->cr4 & X86_CR4_PVI))
        return X86_FLAG_VIF;
    interp_raise_code(c, i, X86_GP, 0);
}
static const struct op *op_cli(struct icpu *c, const struct op *i)
{
    c->cpu.s.rflags &= ~interrupt_flag(c, i);
    NEXT(c, i);
}
static const struct op *op_sti(struct icpu *c, const struct op *i)
{
    uint64_t flag = interrupt_flag(c, i);
    bool was_set = c->cpu.s.rflags & flag;

    if (flag == X86_FLAG_VIF && (c->cpu.s.rflags & X86_FLAG_VIP))
        interp_raise_code(c, i, X86_GP, 0);
    c->cpu.s.rflags |= flag;
    if (was_set || flag == X86_FLAG_VIF)
        NEXT(c, i);
    if (unlikely(atomic_load_explicit(&c->vcpu->events, memory_order_relaxed))) {
        /* Something is pending: it comes after the next instruction, which is stepped. */
        c->shadow = true;
        c->cpu.s.pending.shadow_is_mov_ss = false;
        return interp_leave_after(c, i);
    }
    return interp_shadow(c, i, false);
}

/* SDM vol. 2, CLAC and STAC: #UD, not #GP, above ring 0. */
static const struct op *set_ac(struct icpu *c, const struct op *i, uint64_t ac)
{
    if (unlikely(c->cpu.cpl != 0))
        interp_raise(c, i, X86_UD);
    c->cpu.s.rflags = (c->cpu.s.rflags & ~(uint64_t)X86_FLAG_AC) | ac;
    c->tlb_kind = (c->cpu.s.cr4 & X86_CR4_SMAP) && ac ? TLB_KERNEL_SMAP_OPEN : TLB_KERNEL;
    c->tlb = c->tlbs[c->tlb_kind];
    NEXT(c, i);
}
static const struct op *op_clac(struct icpu *c, const struct op *i)
{
    return set_ac(c, i, 0);
}
static const struct op *op_stac(struct icpu *c, const struct op *i)
{
    return set_ac(c, i, X86_FLAG_AC);
}

/* ---- segment registers ---- */

static const struct op *op_mov_from_seg(struct icpu *c, const struct op *i)
{
    store_selector(c, i, c->cpu.s.seg[i->imm].selector);
    NEXT(c, i);
}
static const struct op *load_segment(struct icpu *c, const struct op *i, unsigned seg,
                                     uint16_t selector)
{
    unsigned mode_key = c->mode_key;

    interp_sync(c, i);
    x86_load_segment(&c->cpu, (enum x86_segment_index)seg, selector);
    return interp_segment_loaded(c, i, seg, mode_key);
}
static const struct op *op_mov_to_seg(struct icpu *c, const struct op *i)
{
    return load_segment(c, i, (unsigned)i->imm, source16(c, i));
}
/* LDS, LES, LFS, LGS, LSS */
static const struct op *op_load_far(struct icpu *c, const struct op *i)
{
    uint64_t linear = ea(c, i, BYTES + 2, X86_ACCESS_READ);
    uint64_t offset = load_sized(c, i, linear, BYTES);
    uint16_t selector = load16(c, i, linear + BYTES);
    unsigned mode_key = c->mode_key;

    interp_sync(c, i);
    x86_load_segment(&c->cpu, (enum x86_segment_index)i->imm, selector);
    reg_set(c, i->dst, offset, BYTES);
    /* LSS loads the pointer in one, so it holds nothing back (SDM vol. 3, 6.8.3). */
    return interp_segment_loaded(c, i, i->imm == X86_SS ? X86_DS : (unsigned)i->imm, mode_key);
}

static const struct op *op_lar_lsl(struct icpu *c, const struct op *i)
{
    uint16_t selector = source16(c, i);
    uint32_t value = 0;
    bool valid;

    require_protected(c, i);
    interp_sync(c, i);
    valid = i->imm ? x86_lsl(&c->cpu, selector, &value) : x86_lar(&c->cpu, selector, &value);
    if (valid)
        reg_set(c, i->dst, value, BYTES);
    NEXT(c, i);
}
static const struct op *op_verify(struct icpu *c, const struct op *i)
{
    uint16_t selector = source16(c, i);

    require_protected(c, i);
    interp_sync(c, i);
    x86_verify(&c->cpu, selector, i->imm);
    NEXT(c, i);
}
static const struct op *op_arpl(struct icpu *c, const struct op *i)
{
    uint64_t linear = 0;
    uint16_t a, b = REG(c, i->src, uint16_t);
    bool raise;

    require_protected(c, i);
    if (i->extra & IN_MEMORY) {
        linear = ea(c, i, 2, X86_ACCESS_WRITE);
        interp_probe_write(c, i, linear, 2);
        a = load16(c, i, linear);
    } else {
        a = REG(c, i->dst, uint16_t);
    }
    raise = (a & 3) < (b & 3);
    if (raise)
        a = (uint16_t)((a & ~3u) | (b & 3));
    if (raise && (i->extra & IN_MEMORY))
        store16(c, i, linear, a);
    else if (raise)
        SET_REG16(i->dst, a);
    flags_replace(c, X86_FLAG_ZF, raise ? X86_FLAG_ZF : 0);
    NEXT(c, i);
}
static const struct op *op_bound(struct icpu *c, const struct op *i)
{
    uint64_t linear = ea(c, i, 2 * BYTES, X86_ACCESS_READ);
    unsigned shift = 64 - 8 * BYTES;
    int64_t low = (int64_t)(load_sized(c, i, linear, BYTES) << shift);
    int64_t high = (int64_t)(load_sized(c, i, linear + BYTES, BYTES) << shift);
    int64_t n = (int64_t)(reg_get(c, i->dst, BYTES) << shift);

    if (n < low || n > high)
        interp_raise(c, i, X86_BR);
    NEXT(c, i);
}

/* FS and GS base: CR4.FSGSBASE; 64-bit mode only */
static const struct op *op_fsgsbase(struct icpu *c, const struct op *i)
{
    struct x86_segment *seg = &c->cpu.s.seg[i->imm & 7];
    uint64_t value = reg_get(c, i->src, BYTES);

    if (!(c->cpu.s.cr4 & X86_CR4_FSGSBASE))
        interp_raise(c, i, X86_UD);
    if (!(i->imm & 8)) {
        reg_set(c, i->src, seg->base, BYTES);
        NEXT(c, i);
    }
    if (!x86_is_canonical(value))
        interp_raise_code(c, i, X86_GP, 0);
    seg->base = value;
    NEXT(c, i);
}
static const struct op *op_swapgs(struct icpu *c, const struct op *i)
{
    struct x86_state *s = &c->cpu.s;
    uint64_t base = s->seg[X86_GS].base;

    require_cpl0(c, i);
    s->seg[X86_GS].base = s->msr.kernel_gs_base;
    s->msr.kernel_gs_base = base;
    NEXT(c, i);
}

/* ---- descriptor tables ---- */

static const struct op *op_store_table(struct icpu *c, const struct op *i)
{
    const struct x86_table *table = i->imm ? &c->cpu.s.idtr : &c->cpu.s.gdtr;
    unsigned bytes = c->code_size == X86_CODE_64 ? 8 : 4;
    uint64_t linear = ea(c, i, 2 + bytes, X86_ACCESS_WRITE);
    uint8_t image[10];

    require_no_umip(c, i);
    memcpy(image, &table->limit, 2);
    memcpy(image + 2, &table->base, 8);
    interp_store_bytes(c, i, linear, image, 2 + bytes);
    NEXT(c, i);
}
static const struct op *op_load_table(struct icpu *c, const struct op *i)
{
    struct x86_table *table = i->imm ? &c->cpu.s.idtr : &c->cpu.s.gdtr;
    unsigned bytes = c->code_size == X86_CODE_64 ? 8 : 4;
    uint64_t linear, base;
    uint16_t limit;

    require_cpl0(c, i);
    linear = ea(c, i, 2 + bytes, X86_ACCESS_READ);
    limit = load16(c, i, linear);
    base = load_sized(c, i, linear + 2, bytes);
    if (bytes == 8 && !x86_is_canonical(base))
        interp_raise_code(c, i, X86_GP, 0);
    if (BYTES == 2 && bytes == 4)
        base &= 0xffffff;
    table->limit = limit;
    table->base = base;
    NEXT(c, i);
}
/* SLDT, STR: the selector zero-extended to the operand size, 16 bits in memory */
static const struct op *op_store_system_selector(struct icpu *c, const struct op *i)
{
    require_protected(c, i);
    require_no_umip(c, i);
    store_selector(c, i, i->imm ? c->cpu.s.tr.selector : c->cpu.s.ldtr.selector);
    NEXT(c, i);
}
static const struct op *op_load_system_selector(struct icpu *c, const struct op *i)
{
    uint16_t selector;

    require_protected(c, i);
    require_cpl0(c, i);
    selector = source16(c, i);
    interp_sync(c, i);
    if (i->imm)
        x86_ltr(&c->cpu, selector);
    else
        x86_lldt(&c->cpu, selector);
    NEXT(c, i);
}

/* ---- control, debug, model-specific registers ---- */

static const struct op *op_mov_from_cr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    reg_set(c, i->dst, x86_read_cr(&c->cpu, (unsigned)i->imm), BYTES);
    NEXT(c, i);
}
static const struct op *op_mov_to_cr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_write_cr(&c->cpu, (unsigned)i->imm, reg_get(c, i->src, BYTES));
    return interp_leave_after(c, i);
}
static const struct op *op_mov_from_dr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    reg_set(c, i->dst, x86_read_dr(&c->cpu, (unsigned)i->imm), BYTES);
    NEXT(c, i);
}
static const struct op *op_mov_to_dr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_write_dr(&c->cpu, (unsigned)i->imm, reg_get(c, i->src, BYTES));
    return interp_leave_after(c, i);
}
static const struct op *op_smsw(struct icpu *c, const struct op *i)
{
    require_no_umip(c, i);
    store_selector(c, i, c->cpu.s.cr0);
    NEXT(c, i);
}
static const struct op *op_lmsw(struct icpu *c, const struct op *i)
{
    uint16_t value;

    require_cpl0(c, i);
    value = source16(c, i);
    interp_sync(c, i);
    x86_lmsw(&c->cpu, value);
    return interp_leave_after(c, i);
}
static const struct op *op_clts(struct icpu *c, const struct op *i)
{
    require_cpl0(c, i);
    interp_sync(c, i);
    x86_clts(&c->cpu);
    NEXT(c, i);
}

static void set_edx_eax(struct icpu *c, uint64_t value)
{
    c->cpu.s.gpr[X86_RAX] = (uint32_t)value;
    c->cpu.s.gpr[X86_RDX] = value >> 32;
}
static uint64_t edx_eax(const struct icpu *c)
{
    return c->cpu.s.gpr[X86_RDX] << 32 | (uint32_t)c->cpu.s.gpr[X86_RAX];
}

static const struct op *op_rdmsr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    interp_sync_clock(c, i);
    set_edx_eax(c, x86_read_msr(&c->cpu, (uint32_t)c->cpu.s.gpr[X86_RCX]));
    NEXT(c, i);
}
static const struct op *op_wrmsr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    interp_sync_clock(c, i);
    x86_write_msr(&c->cpu, (uint32_t)c->cpu.s.gpr[X86_RCX], edx_eax(c));
    return interp_leave_after(c, i);
}
static const struct op *op_rdtsc(struct icpu *c, const struct op *i)
{
    if ((c->cpu.s.cr4 & X86_CR4_TSD) && c->cpu.cpl != 0)
        interp_raise_code(c, i, X86_GP, 0);
    interp_sync_clock(c, i);
    set_edx_eax(c, x86_read_tsc(&c->cpu));
    if (i->imm)
        c->cpu.s.gpr[X86_RCX] = (uint32_t)c->cpu.s.msr.tsc_aux;
    NEXT(c, i);
}
/* There are no performance counters: every number is out of range. */
static const struct op *op_rdpmc(struct icpu *c, const struct op *i)
{
    interp_raise_code(c, i, X86_GP, 0);
}
static const struct op *op_rdpid(struct icpu *c, const struct op *i)
{
    reg_set(c, i->dst, (uint32_t)c->cpu.s.msr.tsc_aux, c->code_size == X86_CODE_64 ? 8 : 4);
    NEXT(c, i);
}
static const struct op *op_cpuid(struct icpu *c, const struct op *i)
{
    uint64_t *gpr = c->cpu.s.gpr;
    struct x86_cpuid id;

    interp_sync(c, i);
    id = x86_cpuid(&c->cpu, (uint32_t)gpr[X86_RAX], (uint32_t)gpr[X86_RCX]);
    gpr[X86_RAX] = id.eax;
    gpr[X86_RBX] = id.ebx;
    gpr[X86_RCX] = id.ecx;
    gpr[X86_RDX] = id.edx;
    NEXT(c, i);
}

/* ---- TLB and caches ---- */

/* The address is not accessed; one that is not canonical does nothing. */
static const struct op *op_invlpg(struct icpu *c, const struct op *i)
{
    uint64_t linear;

    require_cpl0(c, i);
    linear = ea_raw(c, i);
    if (i->ea > EA_INDEX) {
        linear = i->address_size == 4   ? (uint32_t)linear
                 : i->address_size == 2 ? (uint16_t)linear
                                        : linear;
        if (c->code_size != X86_CODE_64 || i->seg >= X86_FS)
            linear += c->cpu.s.seg[i->seg].base;
        if (c->code_size != X86_CODE_64)
            linear = (uint32_t)linear;
    }
    interp_flush_tlb_page(c, linear);
    return interp_leave_after(c, i);
}

/* SDM vol. 2, INVPCID. Nothing but the current PCID is kept in the TLB, but for mappings of code.
 */
static const struct op *op_invpcid(struct icpu *c, const struct op *i)
{
    uint64_t type = reg_get(c, i->dst, c->code_size == X86_CODE_64 ? 8 : 4), linear, pcid, address;

    require_cpl0(c, i);
    linear = ea(c, i, 16, X86_ACCESS_READ);
    pcid = load64(c, i, linear);
    address = load64(c, i, linear + 8);
    if (type > 3 || pcid >> 12 || (type == 0 && !x86_is_canonical(address)) ||
        (type < 2 && pcid && !(c->cpu.s.cr4 & X86_CR4_PCIDE)))
        interp_raise_code(c, i, X86_GP, 0);
    if (type == 0)
        interp_flush_tlb_page(c, address);
    else
        interp_flush_tlb(c, type == 2);
    if (c->translator)
        translator_forget_spaces(c->translator);
    return interp_leave_after(c, i);
}
static const struct op *op_wbinvd(struct icpu *c, const struct op *i)
{
    require_cpl0(c, i); /* caches are coherent: nothing to write back */
    NEXT(c, i);
}
/* CLFLUSH, CLFLUSHOPT, CLWB fault as a byte load would. */
static const struct op *op_clflush(struct icpu *c, const struct op *i)
{
    load8(c, i, ea(c, i, 1, X86_ACCESS_READ));
    NEXT(c, i);
}
static const struct op *op_fence(struct icpu *c, const struct op *i)
{
    atomic_thread_fence(memory_order_seq_cst);
    NEXT(c, i);
}
static const struct op *op_nothing(struct icpu *c, const struct op *i)
{
    NEXT(c, i);
}

/* ---- protection keys, XSAVE ---- */

static const struct op *op_rdpkru(struct icpu *c, const struct op *i)
{
    if (!(c->cpu.s.cr4 & X86_CR4_PKE))
        interp_raise(c, i, X86_UD);
    if ((uint32_t)c->cpu.s.gpr[X86_RCX])
        interp_raise_code(c, i, X86_GP, 0);
    set_edx_eax(c, c->cpu.s.fpu.pkru);
    NEXT(c, i);
}
static const struct op *op_wrpkru(struct icpu *c, const struct op *i)
{
    uint32_t before;

    if (!(c->cpu.s.cr4 & X86_CR4_PKE))
        interp_raise(c, i, X86_UD);
    if ((uint32_t)c->cpu.s.gpr[X86_RCX] || (uint32_t)c->cpu.s.gpr[X86_RDX])
        interp_raise_code(c, i, X86_GP, 0);
    before = c->cpu.s.fpu.pkru;
    c->cpu.s.fpu.pkru = (uint32_t)c->cpu.s.gpr[X86_RAX];
    interp_pkru_changed(c, before);
    NEXT(c, i);
}
static const struct op *op_xgetbv(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    set_edx_eax(c, x86_xgetbv(&c->cpu, (uint32_t)c->cpu.s.gpr[X86_RCX]));
    NEXT(c, i);
}
static const struct op *op_xsetbv(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_xsetbv(&c->cpu, (uint32_t)c->cpu.s.gpr[X86_RCX], edx_eax(c));
    return interp_leave_after(c, i);
}

/* imm: which; bit 8: REX.W */
enum save_kind {
    SAVE_FXSAVE,
    SAVE_FXRSTOR,
    SAVE_XSAVE,
    SAVE_XSAVEC,
    SAVE_XSAVEOPT,
    SAVE_XSAVES,
    SAVE_XRSTOR,
    SAVE_XRSTORS,
};
static const struct op *op_save(struct icpu *c, const struct op *i)
{
    bool wide = i->imm & 0x100;
    uint32_t pkru = c->cpu.s.fpu.pkru;
    uint64_t linear = ea(c, i, 1, X86_ACCESS_READ);

    interp_sync(c, i);
    host_fpu_to_state(c);
    switch ((enum save_kind)(i->imm & 0xff)) {
    case SAVE_FXSAVE:
        x86_fxsave(&c->cpu, linear, wide);
        NEXT(c, i);
    case SAVE_FXRSTOR:
        x86_fxrstor(&c->cpu, linear, wide);
        break;
    case SAVE_XSAVE:
        x86_xsave(&c->cpu, linear, wide, X86_XSAVE);
        NEXT(c, i);
    case SAVE_XSAVEC:
        x86_xsave(&c->cpu, linear, wide, X86_XSAVEC);
        NEXT(c, i);
    case SAVE_XSAVEOPT:
        x86_xsave(&c->cpu, linear, wide, X86_XSAVEOPT);
        NEXT(c, i);
    case SAVE_XSAVES:
        x86_xsave(&c->cpu, linear, wide, X86_XSAVES);
        NEXT(c, i);
    case SAVE_XRSTOR:
        x86_xrstor(&c->cpu, linear, wide, false);
        break;
    case SAVE_XRSTORS:
        x86_xrstor(&c->cpu, linear, wide, true);
        break;
    }
    host_fpu_from_state(c);
    interp_pkru_changed(c, pkru);
    NEXT(c, i);
}

/* ---- halting and what never exists ---- */

static const struct op *op_hlt(struct icpu *c, const struct op *i)
{
    require_cpl0(c, i);
    c->cpu.s.activity = X86_HALTED;
    return interp_leave_after(c, i);
}
/* The machine does the rest while all processors are parked (src/machine/smm.c). */
static const struct op *op_rsm(struct icpu *c, const struct op *i)
{
    if (!c->cpu.s.smm.active)
        interp_raise(c, i, X86_UD);
    c->cpu.s.activity = X86_RESUMING;
    machine_request_smm(c->interpreter->machine);
    return interp_leave_after(c, i);
}
static const struct op *op_ud(struct icpu *c, const struct op *i)
{
    interp_raise(c, i, X86_UD);
}

/* ---- building ---- */

static bool ending(struct builder *w, struct op *op, op_fn *run)
{
    w->ends = true;
    op->run = run;
    return true;
}
static bool plain(struct op *op, op_fn *run)
{
    op->run = run;
    return true;
}
static bool harmless(struct builder *w, struct op *op, op_fn *run)
{
    w->notes->cannot_fault = true;
    op->run = run;
    return true;
}
static bool if_has(struct builder *w, enum x86_feature feature, struct op *op, op_fn *run)
{
    return cpu_model_has(w->c->cpu.model, feature) && plain(op, run);
}

static int segment_index(ZydisRegister reg)
{
    static const ZydisRegister order[X86_SEGMENT_COUNT] = {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS,
                                                           ZYDIS_REGISTER_SS, ZYDIS_REGISTER_DS,
                                                           ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS};

    for (int n = 0; n < X86_SEGMENT_COUNT; n++)
        if (order[n] == reg)
            return n;
    return -1;
}

/* One operand of 16 bits or the operand size, register or memory; it is src and dst. */
static bool build_rm(struct builder *w, const struct insn *insn, struct op *op, unsigned n,
                     op_fn *run, int64_t imm)
{
    op->extra = (uint8_t)(insn->info.operand_width / 8);
    op->imm = imm;
    op->run = run;
    if (build_memory_any(w, insn, op)) {
        op->extra |= IN_MEMORY;
        return true;
    }
    op->src = op->dst = reg_offset(operand(insn, n)->reg.value);
    op->extra = (uint8_t)(operand(insn, n)->size / 8);
    return true;
}

static bool build_mov_seg(struct builder *w, const struct insn *insn, struct op *op)
{
    int to = is_reg(insn, 0) ? segment_index(operand(insn, 0)->reg.value) : -1;
    int from = is_reg(insn, 1) ? segment_index(operand(insn, 1)->reg.value) : -1;

    if (to >= 0) {
        if (to == X86_CS)
            return ending(w, op, op_ud);
        if (to == X86_SS)
            w->not_last = true;
        return build_rm(w, insn, op, 1, op_mov_to_seg, to);
    }
    return from >= 0 && build_rm(w, insn, op, 0, op_mov_from_seg, from);
}

/* MOV CRn, DRn: operands are as wide as the mode; the register form is the only one. */
static bool build_mov_control(struct builder *w, const struct insn *insn, struct op *op)
{
    ZydisRegister to = is_reg(insn, 0) ? operand(insn, 0)->reg.value : ZYDIS_REGISTER_NONE;
    ZydisRegister from = is_reg(insn, 1) ? operand(insn, 1)->reg.value : ZYDIS_REGISTER_NONE;

    op->extra = w->code_size == X86_CODE_64 ? 8 : 4;
    op->dst = reg_offset(to);
    op->src = reg_offset(from);
    if (to >= ZYDIS_REGISTER_CR0 && to <= ZYDIS_REGISTER_CR15) {
        op->imm = to - ZYDIS_REGISTER_CR0;
        return ending(w, op, op_mov_to_cr);
    }
    if (to >= ZYDIS_REGISTER_DR0 && to <= ZYDIS_REGISTER_DR15) {
        op->imm = to - ZYDIS_REGISTER_DR0;
        return ending(w, op, op_mov_to_dr);
    }
    if (from >= ZYDIS_REGISTER_CR0 && from <= ZYDIS_REGISTER_CR15) {
        op->imm = from - ZYDIS_REGISTER_CR0;
        return plain(op, op_mov_from_cr);
    }
    if (from >= ZYDIS_REGISTER_DR0 && from <= ZYDIS_REGISTER_DR15) {
        op->imm = from - ZYDIS_REGISTER_DR0;
        return plain(op, op_mov_from_dr);
    }
    return false;
}

static bool build_load_far(struct builder *w, const struct insn *insn, struct op *op, int seg)
{
    op->imm = seg;
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->extra = (uint8_t)(operand(insn, 0)->size / 8);
    build_memory_any(w, insn, op);
    return plain(op, op_load_far);
}

/* Destination register and a 16-bit source: LAR, LSL */
static bool build_lar_lsl(struct builder *w, const struct insn *insn, struct op *op, int64_t lsl)
{
    op->imm = lsl;
    op->extra = (uint8_t)(operand(insn, 0)->size / 8);
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    if (build_memory_any(w, insn, op))
        op->extra |= IN_MEMORY;
    else
        op->src = reg_offset(operand(insn, 1)->reg.value);
    return plain(op, op_lar_lsl);
}

static bool build_arpl(struct builder *w, const struct insn *insn, struct op *op)
{
    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->extra = 2;
    if (build_memory_any(w, insn, op))
        op->extra |= IN_MEMORY;
    else
        op->dst = reg_offset(operand(insn, 0)->reg.value);
    return plain(op, op_arpl);
}

static bool build_table(struct builder *w, const struct insn *insn, struct op *op, op_fn *run,
                        int64_t idt)
{
    build_memory_any(w, insn, op);
    op->imm = idt;
    op->extra = (uint8_t)(insn->info.operand_width / 8);
    return plain(op, run);
}

static bool build_fsgsbase(struct builder *w, const struct insn *insn, struct op *op, int64_t imm)
{
    op->imm = imm;
    op->src = reg_offset(operand(insn, 0)->reg.value);
    op->extra = (uint8_t)(operand(insn, 0)->size / 8);
    return if_has(w, X86_FEATURE_FSGSBASE, op, op_fsgsbase);
}

static bool build_save(struct builder *w, const struct insn *insn, struct op *op,
                       enum save_kind kind, enum x86_feature feature, bool wide)
{
    build_memory_any(w, insn, op);
    op->imm = kind | (wide ? 0x100 : 0);
    return if_has(w, feature, op, op_save);
}

static bool build_memory_op(struct builder *w, const struct insn *insn, struct op *op,
                            enum x86_feature feature, op_fn *run)
{
    build_memory_any(w, insn, op);
    return if_has(w, feature, op, run);
}

static bool build_flag(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_CLC:
        return harmless(w, op, op_clc);
    case ZYDIS_MNEMONIC_STC:
        return harmless(w, op, op_stc);
    case ZYDIS_MNEMONIC_CMC:
        return harmless(w, op, op_cmc);
    case ZYDIS_MNEMONIC_CLD:
        return harmless(w, op, op_cld);
    case ZYDIS_MNEMONIC_STD:
        return harmless(w, op, op_std);
    case ZYDIS_MNEMONIC_LAHF:
        return harmless(w, op, op_lahf);
    case ZYDIS_MNEMONIC_SAHF:
        return harmless(w, op, op_sahf);
    case ZYDIS_MNEMONIC_SALC:
        return harmless(w, op, op_salc);
    case ZYDIS_MNEMONIC_CLI:
        return plain(op, op_cli);
    case ZYDIS_MNEMONIC_STI:
        w->not_last = true;
        return plain(op, op_sti);
    case ZYDIS_MNEMONIC_CLAC:
        return if_has(w, X86_FEATURE_SMAP, op, op_clac);
    case ZYDIS_MNEMONIC_STAC:
        return if_has(w, X86_FEATURE_SMAP, op, op_stac);
    default:
        return false;
    }
}

/*
 * Serializing instructions (SDM vol. 3, 8.3) end the block: what follows them is looked up again,
 * so that code which another processor changed before is seen (8.1.3).
 */
static bool build_segment(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return build_mov_seg(w, insn, op) || build_mov_control(w, insn, op);
    case ZYDIS_MNEMONIC_LDS:
        return build_load_far(w, insn, op, X86_DS);
    case ZYDIS_MNEMONIC_LES:
        return build_load_far(w, insn, op, X86_ES);
    case ZYDIS_MNEMONIC_LFS:
        return build_load_far(w, insn, op, X86_FS);
    case ZYDIS_MNEMONIC_LGS:
        return build_load_far(w, insn, op, X86_GS);
    case ZYDIS_MNEMONIC_LSS:
        return build_load_far(w, insn, op, X86_SS);
    case ZYDIS_MNEMONIC_LAR:
        return build_lar_lsl(w, insn, op, 0);
    case ZYDIS_MNEMONIC_LSL:
        return build_lar_lsl(w, insn, op, 1);
    case ZYDIS_MNEMONIC_VERR:
        return build_rm(w, insn, op, 0, op_verify, 0);
    case ZYDIS_MNEMONIC_VERW:
        return build_rm(w, insn, op, 0, op_verify, 1);
    case ZYDIS_MNEMONIC_ARPL:
        return build_arpl(w, insn, op);
    case ZYDIS_MNEMONIC_BOUND:
        op->dst = reg_offset(operand(insn, 0)->reg.value);
        op->extra = (uint8_t)(operand(insn, 0)->size / 8);
        build_memory_any(w, insn, op);
        return plain(op, op_bound);
    case ZYDIS_MNEMONIC_RDFSBASE:
        return build_fsgsbase(w, insn, op, X86_FS);
    case ZYDIS_MNEMONIC_RDGSBASE:
        return build_fsgsbase(w, insn, op, X86_GS);
    case ZYDIS_MNEMONIC_WRFSBASE:
        return build_fsgsbase(w, insn, op, X86_FS | 8);
    case ZYDIS_MNEMONIC_WRGSBASE:
        return build_fsgsbase(w, insn, op, X86_GS | 8);
    case ZYDIS_MNEMONIC_SWAPGS:
        return plain(op, op_swapgs);
    case ZYDIS_MNEMONIC_SGDT:
        return build_table(w, insn, op, op_store_table, 0);
    case ZYDIS_MNEMONIC_SIDT:
        return build_table(w, insn, op, op_store_table, 1);
    case ZYDIS_MNEMONIC_LGDT:
        w->ends = true;
        return build_table(w, insn, op, op_load_table, 0);
    case ZYDIS_MNEMONIC_LIDT:
        w->ends = true;
        return build_table(w, insn, op, op_load_table, 1);
    case ZYDIS_MNEMONIC_SLDT:
        return build_rm(w, insn, op, 0, op_store_system_selector, 0);
    case ZYDIS_MNEMONIC_STR:
        return build_rm(w, insn, op, 0, op_store_system_selector, 1);
    case ZYDIS_MNEMONIC_LLDT:
        w->ends = true;
        return build_rm(w, insn, op, 0, op_load_system_selector, 0);
    case ZYDIS_MNEMONIC_LTR:
        w->ends = true;
        return build_rm(w, insn, op, 0, op_load_system_selector, 1);
    default:
        return false;
    }
}

static bool build_control(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_SMSW:
        return build_rm(w, insn, op, 0, op_smsw, 0);
    case ZYDIS_MNEMONIC_LMSW:
        w->ends = true;
        return build_rm(w, insn, op, 0, op_lmsw, 0);
    case ZYDIS_MNEMONIC_CLTS:
        return plain(op, op_clts);
    case ZYDIS_MNEMONIC_RDMSR:
        return plain(op, op_rdmsr);
    case ZYDIS_MNEMONIC_WRMSR:
        return ending(w, op, op_wrmsr);
    case ZYDIS_MNEMONIC_RDTSC:
        return plain(op, op_rdtsc);
    case ZYDIS_MNEMONIC_RDTSCP:
        op->imm = 1;
        return if_has(w, X86_FEATURE_RDTSCP, op, op_rdtsc);
    case ZYDIS_MNEMONIC_RDPMC:
        return plain(op, op_rdpmc);
    case ZYDIS_MNEMONIC_RDPID:
        op->dst = reg_offset(operand(insn, 0)->reg.value);
        return if_has(w, X86_FEATURE_RDPID, op, op_rdpid);
    case ZYDIS_MNEMONIC_CPUID:
        return ending(w, op, op_cpuid);
    case ZYDIS_MNEMONIC_INVLPG:
        build_memory_any(w, insn, op);
        return ending(w, op, op_invlpg);
    case ZYDIS_MNEMONIC_INVPCID:
        op->dst = reg_offset(operand(insn, 0)->reg.value);
        w->ends = true;
        return build_memory_op(w, insn, op, X86_FEATURE_INVPCID, op_invpcid);
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
        return ending(w, op, op_wbinvd);
    case ZYDIS_MNEMONIC_CLFLUSH:
        return build_memory_op(w, insn, op, X86_FEATURE_CLFLUSH, op_clflush);
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
        return build_memory_op(w, insn, op, X86_FEATURE_CLFLUSHOPT, op_clflush);
    case ZYDIS_MNEMONIC_CLWB:
        return build_memory_op(w, insn, op, X86_FEATURE_CLWB, op_clflush);
    case ZYDIS_MNEMONIC_CLDEMOTE:
        return harmless(w, op, op_nothing);
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
        return harmless(w, op, op_fence);
    case ZYDIS_MNEMONIC_RDPKRU:
        return if_has(w, X86_FEATURE_PKU, op, op_rdpkru);
    case ZYDIS_MNEMONIC_WRPKRU:
        return if_has(w, X86_FEATURE_PKU, op, op_wrpkru);
    case ZYDIS_MNEMONIC_HLT:
        return ending(w, op, op_hlt);
    case ZYDIS_MNEMONIC_RSM:
        return ending(w, op, op_rsm);
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return ending(w, op, op_ud);
    default:
        return false;
    }
}

struct save_row {
    ZydisMnemonic mnemonic;
    enum save_kind kind;
    enum x86_feature feature;
    bool wide;
};
static const struct save_row save_rows[] = {
    {ZYDIS_MNEMONIC_FXSAVE, SAVE_FXSAVE, X86_FEATURE_FXSR, false},
    {ZYDIS_MNEMONIC_FXSAVE64, SAVE_FXSAVE, X86_FEATURE_FXSR, true},
    {ZYDIS_MNEMONIC_FXRSTOR, SAVE_FXRSTOR, X86_FEATURE_FXSR, false},
    {ZYDIS_MNEMONIC_FXRSTOR64, SAVE_FXRSTOR, X86_FEATURE_FXSR, true},
    {ZYDIS_MNEMONIC_XSAVE, SAVE_XSAVE, X86_FEATURE_XSAVE, false},
    {ZYDIS_MNEMONIC_XSAVE64, SAVE_XSAVE, X86_FEATURE_XSAVE, true},
    {ZYDIS_MNEMONIC_XSAVEC, SAVE_XSAVEC, X86_FEATURE_XSAVEC, false},
    {ZYDIS_MNEMONIC_XSAVEC64, SAVE_XSAVEC, X86_FEATURE_XSAVEC, true},
    {ZYDIS_MNEMONIC_XSAVEOPT, SAVE_XSAVEOPT, X86_FEATURE_XSAVEOPT, false},
    {ZYDIS_MNEMONIC_XSAVEOPT64, SAVE_XSAVEOPT, X86_FEATURE_XSAVEOPT, true},
    {ZYDIS_MNEMONIC_XSAVES, SAVE_XSAVES, X86_FEATURE_XSAVES, false},
    {ZYDIS_MNEMONIC_XSAVES64, SAVE_XSAVES, X86_FEATURE_XSAVES, true},
    {ZYDIS_MNEMONIC_XRSTOR, SAVE_XRSTOR, X86_FEATURE_XSAVE, false},
    {ZYDIS_MNEMONIC_XRSTOR64, SAVE_XRSTOR, X86_FEATURE_XSAVE, true},
    {ZYDIS_MNEMONIC_XRSTORS, SAVE_XRSTORS, X86_FEATURE_XSAVES, false},
    {ZYDIS_MNEMONIC_XRSTORS64, SAVE_XRSTORS, X86_FEATURE_XSAVES, true},
};

bool build_system(struct builder *w, const struct insn *insn, struct op *op)
{
    if (build_flag(w, insn, op) || build_segment(w, insn, op) || build_control(w, insn, op))
        return true;
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_XGETBV)
        return if_has(w, X86_FEATURE_XSAVE, op, op_xgetbv);
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_XSETBV)
        return cpu_model_has(w->c->cpu.model, X86_FEATURE_XSAVE) && ending(w, op, op_xsetbv);
    for (unsigned n = 0; n < sizeof(save_rows) / sizeof(save_rows[0]); n++)
        if (save_rows[n].mnemonic == insn->info.mnemonic)
            return build_save(w, insn, op, save_rows[n].kind, save_rows[n].feature,
                              save_rows[n].wide);
    if (insn->info.meta.category == ZYDIS_CATEGORY_PREFETCH ||
        insn->info.meta.category == ZYDIS_CATEGORY_PREFETCHWT1 ||
        insn->info.meta.category == ZYDIS_CATEGORY_WIDENOP)
        return harmless(w, op, op_nothing);
    return false;
}
