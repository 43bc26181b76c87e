/*
 * host_stub_run.c - executing stubs: memory operands, what may not run, exceptions
 *
 * Order of checks as on the processor: #UD, #NM, pending #MF, then the memory
 * operand (#GP, #SS, #PF, #AC), then what the operation itself raises (#XM).
 */
#include "engine/interpreter/host_stub.h"

/* ---- may the instruction run? (SDM vol. 2, 2.4 to 2.8; vol. 3, 2.5 and 13.1) ---- */

static bool avx_enabled(const struct x86_cpu *cpu, uint64_t components)
{
    return (cpu->s.cr4 & X86_CR4_OSXSAVE) && (cpu->s.xcr0 & components) == components &&
           x86_in_protected_mode(cpu) && !x86_in_v86_mode(cpu);
}

#define XCR0_AVX    (X86_XCR0_SSE | X86_XCR0_AVX)
#define XCR0_AVX512 (XCR0_AVX | X86_XCR0_OPMASK | X86_XCR0_ZMM_HI256 | X86_XCR0_HI16_ZMM)

static bool sse_enabled(const struct x86_cpu *cpu)
{
    return !(cpu->s.cr0 & X86_CR0_EM) && (cpu->s.cr4 & X86_CR4_OSFXSR);
}

#define MXCSR_MASKS 0x1f80u
#define FCW_MASKS   0x3fu

void host_stub_refresh(struct icpu *c)
{
    const struct x86_cpu *cpu = &c->cpu;
    unsigned run = 0;

    if (!(cpu->s.cr0 & X86_CR0_TS)) {
        if (!(cpu->s.cr0 & X86_CR0_EM) && c->x87_loaded &&
            (cpu->s.fpu.fcw & FCW_MASKS) == FCW_MASKS)
            run |= FPU_X87;
        if (sse_enabled(cpu))
            run |= FPU_SSE | FPU_SSE_FP;
        if (avx_enabled(cpu, XCR0_AVX))
            run |= FPU_AVX | FPU_AVX_FP;
        if (avx_enabled(cpu, XCR0_AVX512))
            run |= FPU_AVX512 | FPU_AVX512_FP;
        if ((cpu->s.fpu.mxcsr & MXCSR_MASKS) != MXCSR_MASKS)
            run &= ~(unsigned)(FPU_SSE_FP | FPU_AVX_FP | FPU_AVX512_FP);
    }
    c->fpu_blocked = (uint8_t)(FPU_ALL & ~run);
}

void host_stub_check(struct icpu *c, const struct op *i, uint8_t needs, bool is_mmx)
{
    const struct x86_cpu *cpu = &c->cpu;
    bool emulated = cpu->s.cr0 & X86_CR0_EM, x87 = needs == FPU_X87 && !is_mmx;

    if ((needs & (FPU_SSE | FPU_SSE_FP)) && !sse_enabled(cpu))
        interp_raise(c, i, X86_UD);
    if ((needs & (FPU_AVX | FPU_AVX_FP)) && !avx_enabled(cpu, XCR0_AVX))
        interp_raise(c, i, X86_UD);
    if ((needs & (FPU_AVX512 | FPU_AVX512_FP)) && !avx_enabled(cpu, XCR0_AVX512))
        interp_raise(c, i, X86_UD);
    if (is_mmx && emulated)
        interp_raise(c, i, X86_UD);
    if ((cpu->s.cr0 & X86_CR0_TS) || (x87 && emulated))
        interp_raise(c, i, X86_NM);
}

/* ---- running a body ---- */

static void call(struct icpu *c, const struct op *i, const struct host_stub *stub, void *memory)
{
    struct host_stubs *s = c->stubs;

    s->slow = i;
    s->return_ops[0] = *i; /* the body looks at page_offset */
    stub->body(c, s->return_ops, memory);
}

void host_stub_call(struct icpu *c, const struct op *i, void *memory)
{
    const struct host_stub *stub = i->aux;

    if (!(stub->plan.needs & (FPU_SSE_FP | FPU_AVX_FP | FPU_AVX512_FP)) ||
        (c->cpu.s.fpu.mxcsr & MXCSR_MASKS) == MXCSR_MASKS) {
        call(c, i, stub, memory);
        return;
    }
    fpu_unmask_mxcsr(c);
    call(c, i, stub, memory);
    fpu_mask_mxcsr(c);
}

noreturn void host_stub_trap(void *cpu, void *op, enum host_trap trap)
{
    struct icpu *c = cpu;
    const struct op *i = op;

    if (i == c->stubs->return_ops)
        i = c->stubs->slow;
    fpu_mask_mxcsr(c);
    switch (trap) {
    case HOST_TRAP_X87: /* only if fpu_check_pending was not asked */
        interp_raise(c, i, X86_MF);
    case HOST_TRAP_SIMD:
        interp_raise(c, i, c->cpu.s.cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
    case HOST_TRAP_PROTECTION:
        interp_raise_code(c, i, X86_GP, 0);
    case HOST_TRAP_UNDEFINED:
    default:
        interp_raise(c, i, X86_UD);
    }
}

/* ---- memory operands ---- */

void host_stub_check_alignment(struct icpu *c, const struct op *i, uint64_t linear)
{
    const struct stub_plan *plan = &((const struct host_stub *)i->aux)->plan;
    unsigned mask = plan->memory_bytes <= 8 ? plan->memory_bytes - 1u : 7;

    if (linear & plan->align_mask)
        interp_raise_code(c, i, X86_GP, 0);
    if (plan->memory_bytes <= 10 && (linear & mask) && c->cpu.cpl == 3 &&
        (c->cpu.s.cr0 & X86_CR0_AM) && (c->cpu.s.rflags & X86_FLAG_AC))
        interp_raise_code(c, i, X86_AC, 0);
}

/* Not in one page that the TLB knows: by way of the buffer. */
static __attribute__((noinline, cold)) const struct op *
run_in_buffer(struct icpu *c, const struct op *i, uint64_t linear)
{
    const struct stub_plan *plan = &((const struct host_stub *)i->aux)->plan;

    if (plan->mask != MASK_NONE)
        return vector_masked_operand(c, i, linear);
    host_stub_check_alignment(c, i, linear);
    if (plan->is_store)
        interp_probe_write(c, i, linear, plan->memory_bytes);
    else
        interp_load_bytes(c, i, linear, c->stub_buffer, plan->memory_bytes);
    if (plan->sets_pointers)
        fpu_set_data_pointer(c, i, linear);
    host_stub_call(c, i, c->stub_buffer);
    if (plan->is_store && !(plan->sets_pointers && fpu_store_suppressed(c)))
        interp_store_bytes(c, i, linear, c->stub_buffer, plan->memory_bytes);
    NEXT(c, i);
}

/* In ops with a stub, extra is what it needs; dst is 0x1000 - bytes, src what must be clear. */

static inline uint64_t ea_base(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    (void)size;
    (void)access;
    return REG(c, i->base, uint64_t) + (uint64_t)i->disp;
}
static inline uint64_t ea_index(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    (void)size;
    (void)access;
    return ea_raw(c, i);
}
#define ea_any                    ea

#define NO_POINTERS(c, i, linear) ((void)0)

#define DEFINE_RUN(name, tag, access, set_pointers, kind)                                          \
    static const struct op *run_##name##_##kind(struct icpu *c, const struct op *i)                \
    {                                                                                              \
        const struct host_stub *stub = i->aux;                                                     \
        const struct tlb_entry *e;                                                                 \
        uint64_t linear;                                                                           \
                                                                                                   \
        if (unlikely(c->fpu_blocked & i->extra))                                                   \
            return host_stub_blocked(c, i);                                                        \
        linear = ea_##kind(c, i, 0x1000u - i->dst, access);                                        \
        e = tlb_slot(c, linear);                                                                   \
        if (unlikely((linear ^ e->tag) > i->dst) || unlikely(linear & i->src))                     \
            return run_in_buffer(c, i, linear);                                                    \
        set_pointers(c, i, linear);                                                                \
        return stub->body(c, i, (void *)(linear + e->addend));                                     \
    }
#define DEFINE_RUNS(kind)                                                                          \
    DEFINE_RUN(load, read, X86_ACCESS_READ, NO_POINTERS, kind)                                     \
    DEFINE_RUN(store, write, X86_ACCESS_WRITE, NO_POINTERS, kind)                                  \
    DEFINE_RUN(x87_load, read, X86_ACCESS_READ, fpu_set_data_pointer, kind)                        \
    DEFINE_RUN(x87_store, write, X86_ACCESS_WRITE, fpu_set_data_pointer, kind)
DEFINE_RUNS(base)
DEFINE_RUNS(index)
DEFINE_RUNS(any)

/* Indexed by x87 or not, load or store, and kind of address. */
static op_fn *const runs[2][2][3] = {
    {{run_load_base, run_load_index, run_load_any},
     {run_store_base, run_store_index, run_store_any}},
    {{run_x87_load_base, run_x87_load_index, run_x87_load_any},
     {run_x87_store_base, run_x87_store_index, run_x87_store_any}},
};

/* FCMOVcc: the body takes the flags from s.rflags. */
static const struct op *run_with_flags(struct icpu *c, const struct op *i)
{
    const struct host_stub *stub = i->aux;

    if (unlikely(c->fpu_blocked & i->extra))
        return host_stub_blocked(c, i);
    flags_materialize(c);
    return stub->body(c, i, NULL);
}

void host_stub_fill_op(const struct host_stub *stub, struct op *op)
{
    const struct stub_plan *plan = &stub->plan;

    op->aux = stub;
    op->extra = plan->needs;
    op->dst = (uint16_t)(0x1000u - plan->memory_bytes);
    op->src = plan->align_mask;
    if (plan->memory_bytes)
        op->run = runs[plan->sets_pointers][plan->is_store][host_stub_ea(op)];
    else
        op->run = plan->flags_read ? run_with_flags : stub->entry;
}

/* ---- blocked ---- */

const struct op *host_stub_blocked(struct icpu *c, const struct op *i)
{
    const struct stub_plan *plan = &((const struct host_stub *)i->aux)->plan;

    host_stub_check(c, i, plan->needs, plan->is_mmx);
    if (plan->needs & FPU_X87) {
        fpu_load_x87(c);
        if (!plan->no_wait)
            fpu_check_pending(c, i);
    }
    if (!(c->fpu_blocked & plan->needs)) /* all it took was loading the x87 registers */
        GOTO(c, i);
    if (plan->memory_bytes)
        return run_in_buffer(
            c, i,
            ea(c, i, plan->memory_bytes, plan->is_store ? X86_ACCESS_WRITE : X86_ACCESS_READ));
    if (plan->flags_read)
        flags_materialize(c);
    host_stub_call(c, i, NULL);
    NEXT(c, i);
}
