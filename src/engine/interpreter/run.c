/*
 * run.c - the interpreter engine: the run loop, events, modes
 *
 * Theory of operation. interp_run alternates between attend(), which looks at everything
 * that can happen between two instructions in the order of SDM vol. 3, table 6-2, and
 * running blocks until a handler returns NULL. Other threads make that happen by
 * setting c->attention, which every block header reads.
 *
 * Stepping: with EFLAGS.TF, an interrupt shadow that ends a block, a debugger's
 * step, or a budget smaller than the next block, one instruction at a time is decoded
 * and run (blocks_single).
 *
 * Faults longjmp to the top of the loop, where the event that x86_raise left in
 * cpu.event is delivered; a fault during delivery comes back to the same place.
 */
#include "engine/interpreter/interpreter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/log.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"
#include "engine/translator/translator.h"
#include "trapeze/clock.h"
#include "trapeze/machine.h"
#include "x86/features.h"
#include "x86/segments.h"

/* ---- position and count ---- */

/* What was taken from the budget for op i of the current block and what is behind it. */
static uint64_t charged_from(const struct icpu *c, const struct op *i)
{
    const struct block *b = c->block;

    if (b)
        return i > b->ops && i < b->ops + b->op_count ? b->count - block_instructions_before(b, i)
                                                      : 0;
    return c->charged ? c->charged - (i != c->charged_op) : 0;
}

void interp_refund_from(struct icpu *c, const struct op *i)
{
    c->budget += charged_from(c, i);
    c->block = NULL;
    c->charged = 0;
}

void interp_sync(struct icpu *c, const struct op *i)
{
    c->insn = i;
    c->cpu.s.rip = op_rip(c, i);
    flags_materialize(c);
}

uint64_t interp_instructions(const struct icpu *c, const struct op *i)
{
    uint64_t taken = c->budget_start - c->budget;

    return c->cpu.s.instructions + taken - (i ? charged_from(c, i) : 0);
}

/* Ways into setjmp() of interp_run(). */
enum unwind { UNWIND_FAULT = 1, UNWIND_STEP };

void interp_sync_clock(struct icpu *c, const struct op *i)
{
    const struct op *at = i ? i : c->insn; /* NULL: an event is being delivered */

    if (likely(!c->counted))
        return;
    if (at && !c->alone) {
        interp_sync(c, at);
        longjmp(c->unwind, UNWIND_STEP);
    }
    clocks_set_counted_ns(machine_clocks(c->interpreter->machine), interp_instructions(c, i));
    /* A device may arm an earlier timer: let the vCPU's thread compute a new budget. */
    c->new_budget = true;
    atomic_store_explicit(&c->attention, ATTENTION_EVENT, memory_order_relaxed);
}

noreturn void interp_raise(struct icpu *c, const struct op *i, uint8_t vector)
{
    interp_sync(c, i);
    x86_raise(&c->cpu, vector);
}

noreturn void interp_raise_code(struct icpu *c, const struct op *i, uint8_t vector, uint32_t code)
{
    interp_sync(c, i);
    x86_raise_code(&c->cpu, vector, code);
}

const struct op *interp_leave_at(struct icpu *c, const struct op *i)
{
    c->cpu.s.rip = op_rip(c, i);
    interp_refund_from(c, i);
    c->insn = NULL;
    return NULL;
}

const struct op *interp_leave_after(struct icpu *c, const struct op *i)
{
    c->cpu.s.rip = op_next_rip(c, i);
    interp_refund_from(c, i + 1);
    c->insn = NULL;
    return NULL;
}

const struct op *interp_resume(struct icpu *c)
{
    c->block = NULL;
    c->insn = NULL;
    return NULL;
}

/* ---- what is derived from registers ---- */

/* Below which offset may everything be read and written? */
static uint64_t reach_of(const struct x86_segment *seg)
{
    const unsigned mask = X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_DOWN | X86_SEG_WRITABLE;

    return (seg->attributes & mask) == (X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE)
               ? (uint64_t)seg->limit + 1
               : 0;
}

/* May every 32-bit offset be read and written, without adding a base? */
static bool is_flat_data(const struct x86_segment *seg)
{
    return seg->base == 0 && reach_of(seg) == FLAT32_END;
}

/* The base of CS counts in 32 and 16-bit code. */
static void set_cs_base(struct icpu *c, uint64_t base)
{
    if (base == c->cs_base)
        return;
    c->cs_base = base;
    interp_flush_jumps(c);
}

static void set_mode_key(struct icpu *c, unsigned key)
{
    c->mode_key = key | (c->cpu.cpl == 3 ? MODE_USER : 0);
    c->jump_tag = (uint64_t)c->mode_key << MODE_SHIFT;
}

static void refresh_code(struct icpu *c)
{
    const struct x86_cpu *cpu = &c->cpu;
    const struct x86_segment *cs = &cpu->s.seg[X86_CS], *ss = &cpu->s.seg[X86_SS];
    bool real = !x86_in_protected_mode(cpu) || x86_in_v86_mode(cpu);
    uint64_t base = cs->base;
    bool flat, flat_data;

    if (likely(x86_in_64bit_mode(cpu))) {
        c->code_size = X86_CODE_64;
        c->rip_mask = c->stack_mask = ~0ull;
        set_cs_base(c, 0);
        set_mode_key(c, X86_CODE_64 | MODE_FLAT | MODE_FLAT_DATA);
        return;
    }
    /* In real mode CS keeps its D bit from protected mode ("unreal" code): it counts there too. */
    c->code_size = (cs->attributes & X86_SEG_DB) && (!real || !x86_in_protected_mode(cpu))
                       ? X86_CODE_32
                       : X86_CODE_16;
    flat = c->code_size == X86_CODE_32 && base == 0 && cs->limit == 0xffffffff;
    flat_data = !real && is_flat_data(&cpu->s.seg[X86_DS]) && is_flat_data(&cpu->s.seg[X86_ES]) &&
                is_flat_data(ss) && (ss->attributes & X86_SEG_DB);
    set_cs_base(c, base);
    c->fs_reach = reach_of(&cpu->s.seg[X86_FS]);
    c->gs_reach = reach_of(&cpu->s.seg[X86_GS]);
    c->rip_mask = 0xffffffff;
    c->stack_mask = ss->attributes & X86_SEG_DB ? 0xffffffff : 0xffff;
    set_mode_key(c, c->code_size | (real ? MODE_REAL : 0) | (flat ? MODE_FLAT : 0) |
                        (flat_data ? MODE_FLAT_DATA : 0));
}

static void refresh_tlb_kind(struct icpu *c)
{
    const struct x86_state *s = &c->cpu.s;
    enum tlb_kind kind = TLB_KERNEL;

    if (c->cpu.cpl == 3)
        kind = (s->cr0 & X86_CR0_AM) && (s->rflags & X86_FLAG_AC) ? TLB_SLOW : TLB_USER;
    else if ((s->cr4 & X86_CR4_SMAP) && (s->rflags & X86_FLAG_AC))
        kind = TLB_KERNEL_SMAP_OPEN;
    c->tlb_kind = kind;
    c->tlb = c->tlbs[kind];
}

static void refresh_watching(struct icpu *c)
{
    const struct x86_state *s = &c->cpu.s;
    bool watching = false;

    for (unsigned n = 0; n < 4; n++)
        watching |= (s->dr7 >> (2 * n) & 3) && (s->dr7 >> (16 + 4 * n) & 1);
    for (unsigned n = 0; c->debug && n < c->debug->point_count; n++)
        watching |= c->debug->points[n].kind != DEBUG_BREAKPOINT;
    c->watching = watching;
    c->breakpoints = false;
    for (unsigned n = 0; c->debug && n < c->debug->point_count; n++)
        c->breakpoints |= c->debug->points[n].kind == DEBUG_BREAKPOINT;
    for (unsigned n = 0; n < 4; n++)
        c->breakpoints |= (s->dr7 >> (2 * n) & 3) && (s->dr7 >> (16 + 4 * n) & 3) == 0;
}

/*
 * CR3 was written; c->paging is as it was. The translator keeps mappings of code by PCID, as a
 * processor may; a counted run is the same without it, whatever is wrong with the guest.
 */
static void switch_space(struct icpu *c, bool keep)
{
    bool by_pcid = c->translator && !c->counted && (c->cpu.s.cr4 & X86_CR4_PCIDE);

    if (by_pcid)
        translator_set_aside(c->translator, c->paging.cr3 & X86_CR3_PCID);
    c->paging.cr3 = c->cpu.s.cr3;
    memcpy(c->paging.pdpte, c->cpu.s.pdpte, sizeof(c->paging.pdpte));
    if (by_pcid && keep)
        interp_leave_space(c);
    else
        interp_flush_tlb(c, false);
    if (by_pcid)
        translator_bring_back(c->translator, c->cpu.s.cr3 & X86_CR3_PCID, keep);
}

void interp_changed(struct icpu *c, unsigned what)
{
    if (what & X86_CHANGED_FLAGS)
        c->cc_kind = CC_RFLAGS;
    if (what & (X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_PAGING | X86_CHANGED_FLAGS)) {
        x86_refresh_cpl(&c->cpu);
        refresh_code(c);
        refresh_tlb_kind(c);
    }
    if (what & X86_CHANGED_PAGING) {
        x86_paging_from(&c->paging, &c->cpu);
        interp_flush_tlb(c, true);
    } else if (what & X86_CHANGED_CR3) {
        switch_space(c, what & X86_CHANGED_KEEP);
    }
    if (what & X86_CHANGED_DEBUG) {
        bool had_breakpoints = c->breakpoints;

        refresh_watching(c);
        interp_flush_tlb(c, true);
        if (had_breakpoints || c->breakpoints)
            c->flush_all = true; /* breakpoints are built into blocks, data breakpoints are not */
        atomic_store(&c->attention, ATTENTION_EVENT);
    }
    if (what & X86_CHANGED_FPU)
        host_stub_refresh(c);
}

static void ops_changed(struct x86_cpu *cpu, unsigned what)
{
    interp_changed(icpu_of(cpu), what);
}

static void ops_flush_page(struct x86_cpu *cpu, uint64_t linear)
{
    interp_flush_tlb_page(icpu_of(cpu), linear);
}

__attribute__((__noreturn__)) static void ops_raise(struct x86_cpu *cpu)
{
    longjmp(icpu_of(cpu)->unwind, UNWIND_FAULT);
}

static const struct x86_cpu_ops cpu_ops = {
    .read = interp_ops_read,
    .write = interp_ops_write,
    .probe_write = interp_ops_probe_write,
    .set_bits = interp_ops_set_bits,
    .page = interp_ops_page,
    .raise = ops_raise,
    .changed = ops_changed,
    .flush_page = ops_flush_page,
};

/* ---- events between instructions ---- */

/*
 * Traps that MOV SS held back are reported with a #DB of the next instruction, not after it. INT 1
 * is no #DB but calls the same handler (SDM vol. 2, INT n): the traps follow at its first
 * instruction.
 */
void interp_merge_debug_traps(struct icpu *c, const struct x86_event *event)
{
    struct x86_state *s = &c->cpu.s;

    if (event->vector != X86_DB || event->kind == X86_EVENT_SOFTWARE)
        return;
    s->dr6 |= s->pending.debug_traps;
    s->pending.debug_traps = 0;
}

static void deliver(struct icpu *c, const struct x86_event *event)
{
    struct x86_event copy = *event;

    interp_merge_debug_traps(c, &copy);
    trace(CPU_EVENT, copy.vector, copy.error_code, c->cpu.s.rip, c->cpu.s.cr2);
    flags_materialize(c);
    c->insn = NULL;
    c->block = NULL;
    x86_deliver(&c->cpu, &copy);
}

/* A fault unwound to us: undo the count of what did not run, and deliver it. */
static void deliver_fault(struct icpu *c)
{
    if (c->insn)
        interp_refund_from(c, c->insn);
    c->stepping = c->alone = false;
    c->shadow = false;
    deliver(c, &c->cpu.event);
}

/* An instruction in the middle of a block wants to run alone: do that before anything comes. */
static void restart_alone(struct icpu *c)
{
    interp_refund_from(c, c->insn);
    c->insn = NULL;
    c->stepping = false;
    c->cpu.delivering = false; /* INT n with its stack in a device */
    c->shadow = true;
    c->cpu.s.pending.shadow_is_mov_ss = false;
}

static void deliver_interrupt(struct icpu *c, enum x86_event_kind kind, uint8_t vector)
{
    struct x86_event event = {.vector = vector, .kind = kind, .return_rip = c->cpu.s.rip};

    meter_count(c, METER_INTERRUPTS);
    c->cpu.s.activity = X86_ACTIVE;
    deliver(c, &event);
}

static void take_init(struct icpu *c)
{
    struct x86_state *s = &c->cpu.s;
    bool bsp = c->vcpu->index == 0;

    host_fpu_to_state(c);
    x86_state_reset(s, true);
    s->gpr[X86_RDX] = c->vcpu->model->signature;
    s->activity = bsp ? X86_ACTIVE : X86_WAIT_FOR_SIPI;
    host_fpu_from_state(c);
    interp_changed(c, ~0u);
}

/* SDM vol. 3, 9.4.4: real mode at vector * 4 KiB */
static void take_sipi(struct icpu *c)
{
    struct x86_state *s = &c->cpu.s;
    uint32_t vector = atomic_load(&c->vcpu->sipi_vector) & 0xff;

    if (s->activity != X86_WAIT_FOR_SIPI)
        return;
    s->seg[X86_CS].selector = (uint16_t)(vector << 8);
    s->seg[X86_CS].base = vector << 12;
    s->rip = 0;
    s->activity = X86_ACTIVE;
    interp_changed(c, X86_CHANGED_CODE);
}

/* Single-step and data breakpoints: traps after the instruction (SDM vol. 3, 17.3). */
static bool take_debug_trap(struct icpu *c)
{
    struct x86_state *s = &c->cpu.s;
    struct x86_event event = {.vector = X86_DB, .kind = X86_EVENT_EXCEPTION, .return_rip = s->rip};

    if (!s->pending.debug_traps || (c->shadow && s->pending.shadow_is_mov_ss))
        return false;
    s->dr6 = (s->dr6 & ~0xfull) | s->pending.debug_traps;
    s->pending.debug_traps = 0;
    s->dr7 &= ~(uint64_t)X86_DR7_GD;
    s->activity = X86_ACTIVE; /* also behind HLT: SDM vol. 2, HLT */
    deliver(c, &event);
    return true;
}

/* Instruction breakpoints of the guest: faults before the instruction (17.3.1.1). */
static bool take_breakpoint_fault(struct icpu *c)
{
    struct x86_state *s = &c->cpu.s;
    uint64_t linear = c->code_size == X86_CODE_64 ? s->rip : (uint32_t)(c->cs_base + s->rip);
    struct x86_event event = {.vector = X86_DB, .kind = X86_EVENT_EXCEPTION, .return_rip = s->rip};
    unsigned hit = 0;

    for (unsigned n = 0; n < 4; n++)
        if ((s->dr7 >> (2 * n) & 3) && (s->dr7 >> (16 + 4 * n) & 3) == 0 && s->dr[n] == linear)
            hit |= 1u << n;
    if (!hit || (s->rflags & X86_FLAG_RF))
        return false;
    s->dr6 = (s->dr6 & ~0xfull) | hit;
    s->dr7 &= ~(uint64_t)X86_DR7_GD;
    deliver(c, &event);
    return true;
}

static bool debugger_breakpoint(struct icpu *c)
{
    uint64_t linear =
        c->code_size == X86_CODE_64 ? c->cpu.s.rip : (uint32_t)(c->cs_base + c->cpu.s.rip);

    for (unsigned n = 0; c->debug && n < c->debug->point_count; n++)
        if (c->debug->points[n].kind == DEBUG_BREAKPOINT && c->debug->points[n].gva == linear)
            return true;
    return false;
}

/*
 * One NMI can wait while NMIs are blocked. If they are not, the first is taken at once and another
 * can wait for its IRET (SDM vol. 3, 6.7.1): then that one stays an event.
 */
static void latch_nmi(struct icpu *c, uint32_t events)
{
    struct x86_pending *pending = &c->cpu.s.pending;
    uint32_t nmis = events & (VCPU_EVENT_NMI | VCPU_EVENT_NMI_AGAIN);

    if (nmis && !pending->nmi_pending) {
        uint32_t one = nmis & -nmis;

        vcpu_take(c->vcpu, one);
        pending->nmi_pending = true;
        nmis &= ~one;
    }
    if (nmis && pending->nmi_blocked)
        vcpu_take(c->vcpu, nmis);
}

/* Interrupts and resets. True if something was delivered: look again. */
static bool take_event(struct icpu *c, uint32_t events)
{
    struct x86_state *s = &c->cpu.s;

    if (s->smm.active) /* INIT and SMI wait for RSM */
        events &= ~(uint32_t)(VCPU_EVENT_INIT | VCPU_EVENT_SMI);
    if (events & VCPU_EVENT_INIT) {
        vcpu_take(c->vcpu, VCPU_EVENT_INIT);
        take_init(c);
        return true;
    }
    if (events & VCPU_EVENT_SIPI) {
        vcpu_take(c->vcpu, VCPU_EVENT_SIPI);
        take_sipi(c);
        return true;
    }
    if (s->activity != X86_ACTIVE && s->activity != X86_HALTED)
        return false;
    if (events & VCPU_EVENT_SMI) { /* before the next instruction: this leaves run() */
        if (machine_request_smm(c->interpreter->machine))
            return true;
        vcpu_take(c->vcpu, VCPU_EVENT_SMI);
    }
    latch_nmi(c, events);
    if (c->shadow)
        return false;
    if (s->pending.nmi_pending && !s->pending.nmi_blocked) {
        s->pending.nmi_pending = false;
        s->pending.nmi_blocked = true;
        deliver_interrupt(c, X86_EVENT_NMI, X86_NMI);
        return true;
    }
    if ((events & VCPU_EVENT_INTERRUPT) && (s->rflags & X86_FLAG_IF)) {
        int vector = c->vcpu->apic_ops ? c->vcpu->apic_ops->acknowledge(c->vcpu->apic)
                                       : machine_pic_acknowledge(c->interpreter->machine);

        if (vector >= 0) {
            deliver_interrupt(c, X86_EVENT_EXTERNAL, (uint8_t)vector);
            return true;
        }
    }
    return false;
}

static void refresh_view(struct icpu *c)
{
    struct memory *memory = c->interpreter->memory;

    memory_view_put(memory, c->view);
    c->view = memory_view_get(memory);
    c->last_range = NULL;
    interp_flush_tlb(c, true);
}

static bool leave(struct vcpu_exit *exit, enum exit_reason reason)
{
    exit->reason = reason;
    return true;
}

/* Everything between two instructions. True: leave run() with *exit. */
static bool attend(struct icpu *c, struct vcpu_exit *exit)
{
    struct x86_state *s = &c->cpu.s;
    uint32_t events;

    do {
        if (atomic_load(&c->attention))
            atomic_store(&c->attention, 0); /* before the events are read: see interp_kick */
        code_pages_answer(c);
        if (unlikely(atomic_load(&c->new_view)) && atomic_exchange(&c->new_view, 0))
            refresh_view(c);
        if (unlikely(c->flush_all)) {
            c->flush_all = false;
            blocks_flush(c);
        }
        if (unlikely(s->activity == X86_SHUTDOWN))
            return leave(exit, EXIT_SHUTDOWN);
        if (unlikely(c->debug_hit)) {
            c->debug_hit = false;
            *exit = c->debug_exit;
            return true;
        }
        events = atomic_load(&c->vcpu->events);
        if (unlikely(events & VCPU_EVENT_KICK))
            return leave(exit, EXIT_KICKED);
    } while (take_debug_trap(c) || ((events || s->pending.nmi_pending) && take_event(c, events)) ||
             c->flush_all);
    if (s->activity != X86_ACTIVE)
        return leave(exit, EXIT_HALT);
    if (c->new_budget || c->budget == 0) {
        c->new_budget = false;
        return leave(exit, EXIT_BUDGET);
    }
    return false;
}

/* ---- running ---- */

static void step(struct icpu *c)
{
    struct x86_state *s = &c->cpu.s;
    bool trap = s->rflags & X86_FLAG_TF;
    uint32_t none = 0; /* an event that came since attend() stays */
    const struct op *i;

    atomic_compare_exchange_strong(&c->attention, &none, ATTENTION_STEP);
    c->shadow = false;
    c->keep_rf = false;
    c->stepping = c->alone = true;
    c->must_step = false;
    c->trap_needs_tf = false;
    i = blocks_single(c, s->rip);
    while (i)
        i = i->run(c, i);
    c->stepping = c->alone = false;
    s->rflags &= ~(uint64_t)X86_FLAG_RF | (c->keep_rf ? X86_FLAG_RF : 0);
    c->keep_rf = false;
    s->pending.shadow_is_mov_ss = c->shadow && s->pending.shadow_is_mov_ss;
    /* A load of SS drops the single-step trap behind it; data breakpoints only wait. */
    if (trap && (!c->trap_needs_tf || (s->rflags & X86_FLAG_TF)) && !s->pending.shadow_is_mov_ss)
        s->pending.debug_traps |= X86_DR6_BS;
}

static void run_blocks(struct icpu *c)
{
    const struct op *i = jump_to(c, c->cpu.s.rip);

    while (i)
        i = i->run(c, i);
}

bool interp_needs_step(const struct icpu *c)
{
    return (c->cpu.s.rflags & (X86_FLAG_TF | X86_FLAG_RF)) || c->shadow || c->must_step ||
           (c->debug && c->debug->step);
}

static bool at_breakpoint(struct icpu *c, struct vcpu_exit *exit, bool *out_leave)
{
    if (c->debug && c->skip_breakpoint_rip != c->cpu.s.rip && debugger_breakpoint(c)) {
        c->skip_breakpoint_rip = c->cpu.s.rip; /* run() again goes over it */
        *exit = (struct vcpu_exit){.reason = EXIT_DEBUG,
                                   .debug = {.cause = DEBUG_BREAKPOINT, .gva = c->cpu.s.rip}};
        *out_leave = true;
        return true;
    }
    if (take_breakpoint_fault(c))
        return true;
    if (blocks_has_breakpoint(c, (c->cs_base + c->cpu.s.rip) & (GUEST_PAGE_SIZE - 1)))
        c->must_step = true; /* over the block whose header stops here */
    c->skip_breakpoint_rip = ~0ull;
    return false;
}

enum interp_reason interp_reason(const struct icpu *c)
{
    if (c->mode_key & MODE_REAL)
        return INTERP_REAL_MODE;
    if (c->code_size == X86_CODE_16)
        return INTERP_16BIT;
    if (!c->translator)
        return INTERP_OTHER;
    if (~c->mode_key & (MODE_FLAT | MODE_FLAT_DATA))
        return INTERP_NOT_FLAT;
    return translator_can_run(c) ? INTERP_ALONE : INTERP_OTHER;
}

/* The interpreter executes what comes. */
static void meter_interpreted(struct icpu *c)
{
    if (unlikely(c->meter))
        meter_to(c, METER_INTERPRETED + interp_reason(c));
}

static void run_loop(struct icpu *c, struct vcpu_exit *exit)
{
    bool stop = false;

    while (!attend(c, exit)) {
        meter_to(c, METER_LOOP);
        if (unlikely(c->breakpoints) && at_breakpoint(c, exit, &stop)) {
            if (stop)
                return;
            continue;
        }
        if (c->translator)
            translator_note_interpreted(c);
        if (unlikely(interp_needs_step(c))) {
            bool debugger = c->debug && c->debug->step;

            meter_interpreted(c);
            step(c);
            if (debugger) {
                *exit = (struct vcpu_exit){.reason = EXIT_DEBUG, .debug = {.cause = DEBUG_STEP}};
                return;
            }
        } else if (c->translator && translator_can_run(c)) {
            translator_run(c);
        } else {
            meter_interpreted(c);
            run_blocks(c);
            if (c->budget < BLOCK_STEP_BUDGET)
                c->must_step = true;
        }
    }
}

static void run_begin(struct icpu *c, uint64_t budget)
{
    c->view = memory_view_get(c->interpreter->memory);
    if (c->view != c->seen_view || atomic_exchange(&c->new_view, 0)) {
        c->seen_view = c->view;
        c->last_range = NULL;
        interp_flush_tlb(c, true);
    }
    code_pages_enter(c);
    c->budget = c->budget_start = budget;
    if (c->translator) {
        translator_enter_thread(c);
        c->translator->stats.budget = budget;
    }
    c->new_budget = false;
    host_fpu_enter(c);
}

static void run_end(struct icpu *c)
{
    flags_materialize(c);
    if (c->translator)
        translator_note_interpreted(c);
    c->cpu.s.instructions += c->budget_start - c->budget;
    c->budget_start = c->budget;
    host_fpu_leave(c);
    if (c->counted)
        clocks_set_counted_ns(machine_clocks(c->interpreter->machine), c->cpu.s.instructions);
    c->cpu.s.pending.interrupt_shadow = c->shadow;
    code_pages_leave(c);
    c->last_range = NULL;
    c->seen_view = c->view;
    memory_view_put(c->interpreter->memory, c->view);
    c->view = NULL;
}

static void unwound(struct icpu *c)
{
    meter_to(c, METER_LOOP);
    if (c->translator)
        translator_unwound(c);
}

static void interp_run(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct icpu *c = vcpu->engine;
    volatile bool stepped = false;

    meter_to(c, METER_LOOP);
    run_begin(c, budget);
    switch (setjmp(c->unwind)) {
    case UNWIND_FAULT:
        unwound(c);
        meter_count(c, METER_FAULTS);
        deliver_fault(c);
        stepped = c->debug && c->debug->step; /* to the handler's first instruction */
        break;
    case UNWIND_STEP:
        unwound(c);
        restart_alone(c);
        break;
    default:
        break;
    }
    if (stepped)
        *exit = (struct vcpu_exit){.reason = EXIT_DEBUG, .debug = {.cause = DEBUG_STEP}};
    else
        run_loop(c, exit);
    run_end(c);
    meter_count(c, METER_EXITS + exit->reason);
    meter_to(c, exit->reason == EXIT_HALT ? METER_HALTED : METER_OUTSIDE);
}

static void interp_kick(struct vcpu *vcpu)
{
    struct icpu *c = vcpu->engine;

    if (c)
        atomic_store(&c->attention, ATTENTION_EVENT); /* after vcpu->events: pairs with attend() */
}

/* ---- state, life and debugger ---- */

static void interp_get_state(struct vcpu *vcpu)
{
    struct icpu *c = vcpu->engine;

    flags_materialize(c);
    host_fpu_to_state(c);
    vcpu->state = c->cpu.s;
}

static void interp_set_state(struct vcpu *vcpu)
{
    struct icpu *c = vcpu->engine;

    c->cpu.s = vcpu->state;
    atomic_store(&vcpu->tsc_offset, vcpu->state.msr.tsc_offset);
    if (vcpu->apic_ops)
        vcpu->apic_ops->tsc_changed(vcpu->apic);
    c->cc_kind = CC_RFLAGS;
    c->shadow = c->cpu.s.pending.interrupt_shadow;
    c->block = NULL;
    c->insn = NULL;
    c->cpu.delivering = false;
    host_fpu_from_state(c);
    interp_changed(c, ~0u);
}

static int interp_probe(struct error *err)
{
#if defined(__x86_64__)
    (void)err;
    return 0;
#else
    return error_set(
        err, ENOTSUP,
        "the interpreter runs x87 and SIMD instructions on the host's own CPU and needs "
        "an x86-64 host");
#endif
}

static void interp_destroy(void *engine)
{
    struct interpreter *t = engine;

    if (!t)
        return;
    translator_cache_free(t->cache);
    host_mutex_done(&t->split_lock);
    host_mutex_done(&t->code_lock);
    free(t->code_pages);
    free(t);
}

static int create(struct machine *machine, bool translates, void **out_engine, struct error *err)
{
    struct interpreter *t = calloc(1, sizeof(*t));
    struct memory *memory = machine_memory(machine);

    if (!t)
        return error_set(err, ENOMEM, "no memory for the interpreter");
    host_mutex_init(&t->split_lock);
    host_mutex_init(&t->code_lock);
    t->translates = translates;
    t->machine = machine;
    t->memory = memory;
    t->ram_bytes = memory_ram_size_bytes(memory);
    /* RAM and up to 64 MiB of ROM images behind it */
    t->code_page_count = (memory_ram_size_bytes(memory) + (64u << 20)) / GUEST_PAGE_SIZE;
    t->code_pages = calloc(t->code_page_count, sizeof(*t->code_pages));
    t->cpu_bytes = translates ? TR_CODE_PLACE : sizeof(struct icpu);
    t->cpu_code_bytes = translates ? translator_code_bytes(machine) : 0;
    if (!t->code_pages) {
        interp_destroy(t);
        return error_set(err, ENOMEM, "no memory for the interpreter's page table of code");
    }
    *out_engine = t;
    return 0;
}

static int interp_create(struct machine *machine, void **out_engine, struct error *err)
{
    return create(machine, false, out_engine, err);
}

static void interp_vcpu_destroy(struct vcpu *vcpu)
{
    struct icpu *c = vcpu->engine;

    if (!c)
        return;
    translator_free(c);
    free(c->meter);
    host_stubs_free(c);
    blocks_free(c->blocks);
    decode_cache_free(c->decode_cache);
    host_private_memory_free(c, c->interpreter->cpu_bytes, c->interpreter->cpu_code_bytes);
    vcpu->engine = NULL;
}

static int interp_vcpu_create(void *engine, struct vcpu *vcpu, struct error *err)
{
    struct interpreter *t = engine;
    bool low = t->translates && !vcpu->index;
    struct icpu *c = host_private_memory_new(t->cpu_bytes, t->cpu_code_bytes, low, err);

    if (!c) {
        error_prefix(err, "vCPU %u: ", vcpu->index);
        return -ENOMEM;
    }
    vcpu->engine = c;
    c->interpreter = t;
    c->vcpu = c->cpu.vcpu = vcpu;
    c->cpu.model = vcpu->model;
    c->cpu.ops = &cpu_ops;
    c->walk_memory = interp_walk_memory;
    c->walk_memory.opaque = c;
    c->cpu.walk_memory = &c->walk_memory;
    c->a20 = machine_a20_gate(t->machine);
    c->counted = machine_config(t->machine)->counted;
    if (!c->counted)
        c->paging.cache = &c->walk_cache;
    c->skip_breakpoint_rip = ~0ull;
    c->pauses_left = PAUSES_TO_YIELD;
    for (unsigned kind = 0; kind < TLB_KIND_COUNT; kind++)
        c->tlb_of[kind] = c->tlbs[kind];
    interp_empty_tlb(c);
    c->decode_cache = decode_cache_new();
    if (machine_config(t->machine)->stats)
        c->meter = meter_new();
    c->blocks = blocks_new(err);
    if (!c->decode_cache || !c->blocks || host_stubs_new(c, err) ||
        (t->translates && translator_new(c, err))) {
        interp_vcpu_destroy(vcpu);
        return error_set(err, ENOMEM, "no memory for vCPU %u", vcpu->index);
    }
    interp_set_state(vcpu);
    t->cpus[vcpu->index] = c;
    atomic_store(&t->cpu_count, vcpu->index + 1);
    return 0;
}

static void for_each_cpu(struct interpreter *t, void (*fn)(struct icpu *c))
{
    unsigned count = atomic_load(&t->cpu_count);

    for (unsigned n = 0; n < count; n++)
        fn(t->cpus[n]);
}

static void view_is_new(struct icpu *c)
{
    atomic_store(&c->new_view, 1);
    atomic_store(&c->attention, ATTENTION_EVENT);
}

static void interp_memory_changed(void *engine)
{
    for_each_cpu(engine, view_is_new);
}

static void interp_memory_written(void *engine, uint64_t ram_offset, uint64_t size)
{
    code_pages_memory_written(engine, ram_offset, size);
}

static void interp_dirty_tracking(void *engine, bool on)
{
    struct interpreter *t = engine;

    atomic_store(&t->dirty_tracking, on);
    for_each_cpu(t, interp_drop_write_tags);
}

static void interp_watch_again(void *engine)
{
    code_pages_ask_all(engine);
}

static bool interp_watch_settled(void *engine)
{
    return code_pages_all_answered(engine);
}

static int interp_debug(struct vcpu *vcpu, const struct debug_request *request, struct error *err)
{
    struct icpu *c = vcpu->engine;

    (void)err;
    c->debug = request;
    interp_changed(c, X86_CHANGED_DEBUG);
    return 0;
}

static bool interp_debug_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *out_gpa)
{
    struct icpu *c = vcpu->engine;
    bool mapped;

    c->view = memory_view_get(c->interpreter->memory);
    c->last_range = NULL;
    mapped = interp_translate(c, gva, out_gpa);
    c->last_range = NULL;
    memory_view_put(c->interpreter->memory, c->view);
    c->view = NULL;
    return mapped;
}

static int translator_create(struct machine *machine, void **out_engine, struct error *err)
{
    return create(machine, true, out_engine, err);
}

static void translator_engine_stats(struct vcpu *vcpu,
                                    void (*put)(void *opaque, const char *name, uint64_t count),
                                    void *opaque)
{
    struct icpu *c = vcpu->engine;

    meter_stats(c, put, opaque);
    translator_stats(c->translator, put, opaque);
}

static void interp_stats(struct vcpu *vcpu,
                         void (*put)(void *opaque, const char *name, uint64_t count), void *opaque)
{
    meter_stats(vcpu->engine, put, opaque);
}

/* What the two engines have in common: the vCPU and all that happens to it between blocks. */
#define SHARED_OPS                                                                                 \
    .runs_on_vcpu_thread = true, .destroy = interp_destroy, .vcpu_create = interp_vcpu_create,     \
    .vcpu_destroy = interp_vcpu_destroy, .run = interp_run, .kick = interp_kick,                   \
    .get_state = interp_get_state, .set_state = interp_set_state,                                  \
    .memory_changed = interp_memory_changed, .memory_written = interp_memory_written,              \
    .dirty_tracking = interp_dirty_tracking, .watch_again = interp_watch_again,                    \
    .watch_settled = interp_watch_settled, .debug = interp_debug,                                  \
    .translate = interp_debug_translate

const struct engine_ops translator_engine = {
    SHARED_OPS,
    .name = "translator",
    .summary = "translates 64 and 32-bit guest code to host code; the interpreter does the rest",
    .counts_instructions = true,
    .probe = translator_probe,
    .create = translator_create,
    .stats = translator_engine_stats,
};

const struct engine_ops interpreter_engine = {
    SHARED_OPS,
    .name = "interpreter",
    .summary =
        "executes decoded guest code one instruction at a time; the reference for the others",
    .counts_instructions = true,
    .probe = interp_probe,
    .create = interp_create,
    .stats = interp_stats,
};
