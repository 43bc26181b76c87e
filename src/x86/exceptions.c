/*
 * exceptions.c - raising exceptions and delivering events
 *
 * SDM vol. 3, chapter 6 (gates, stack switch, error codes, double faults), 20.1.4 (real
 * mode), 20.2 and 20.3 (virtual-8086 mode, VME redirection), vol. 2 INT n.
 *
 * Theory of operation. An event is delivered in the order of the INT n pseudo-code: IDT limit,
 * gate type, gate DPL (INT n, INT3 and INTO only), gate present, code segment, stack, target;
 * then accessed bits and pushes; registers change last. A fault anywhere before unwinds
 * through ops->raise with the registers as they were; the engine calls x86_deliver()
 * again, and cpu->first decides by table 6-5 whether the fault replaces the event,
 * becomes #DF, or shuts the processor down.
 *
 * Task gates are different: a fault after the commit point of the task switch finds the
 * registers of the new task (task.c).
 *
 * Left out: shadow stacks, user interrupts.
 */
#include <stddef.h>

#include "base/guest_ram.h"
#include "x86/descriptor.h"
#include "x86/segments.h"

#define IVT_ENTRY_BYTES 4u

/* ---- raising ---- */

static void raise_event(struct x86_cpu *cpu, const struct x86_event *event)
    __attribute__((__noreturn__));

static void raise_event(struct x86_cpu *cpu, const struct x86_event *event)
{
    cpu->event = *event;
    cpu->ops->raise(cpu);
}

void x86_raise(struct x86_cpu *cpu, uint8_t vector)
{
    raise_event(cpu, &(struct x86_event){
                         .vector = vector,
                         .kind = X86_EVENT_EXCEPTION,
                         .return_rip = cpu->s.rip,
                     });
}

void x86_raise_code(struct x86_cpu *cpu, uint8_t vector, uint32_t error_code)
{
    raise_event(cpu, &(struct x86_event){
                         .vector = vector,
                         .kind = X86_EVENT_EXCEPTION,
                         .has_error_code = true,
                         .error_code = error_code,
                         .return_rip = cpu->s.rip,
                     });
}

/* ---- combining ---- */

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum fault_class class_of(const struct x86_event *event)
{
    static const uint8_t classes[32] = {
        [X86_DE] = CONTRIBUTORY, [X86_TS] = CONTRIBUTORY,       [X86_NP] = CONTRIBUTORY,
        [X86_GP] = CONTRIBUTORY, [X86_SS_FAULT] = CONTRIBUTORY, [X86_PF] = PAGE_FAULT,
        [X86_DF] = DOUBLE_FAULT,
    };

    if (event->kind != X86_EVENT_EXCEPTION)
        return BENIGN;
    return (enum fault_class)classes[event->vector & 31];
}

enum combination { SERIAL, TO_DOUBLE_FAULT, TO_SHUTDOWN };

/* Table 6-5: first (row) was being delivered when second (column) happened. */
static const uint8_t combinations[4][4] = {
    [CONTRIBUTORY] = {[CONTRIBUTORY] = TO_DOUBLE_FAULT},
    [PAGE_FAULT] = {[CONTRIBUTORY] = TO_DOUBLE_FAULT, [PAGE_FAULT] = TO_DOUBLE_FAULT},
    [DOUBLE_FAULT] = {[CONTRIBUTORY] = TO_SHUTDOWN, [PAGE_FAULT] = TO_SHUTDOWN},
};

/* Turn event into what is to be delivered after cpu->first failed; false: shutdown. */
static bool combine(struct x86_cpu *cpu, struct x86_event *event)
{
    switch ((enum combination)combinations[class_of(&cpu->first)][class_of(event)]) {
    case TO_SHUTDOWN:
        return false;
    case TO_DOUBLE_FAULT:
        *event = (struct x86_event){
            .vector = X86_DF,
            .kind = X86_EVENT_EXCEPTION,
            .has_error_code = true,
            .return_rip = cpu->s.rip,
        };
        return true;
    case SERIAL:
        break;
    }
    return true;
}

/* ---- what an event is ---- */

static bool is_requested(const struct x86_event *event)
{
    return event->kind == X86_EVENT_SOFTWARE || event->kind == X86_EVENT_INT3;
}

unsigned x86_event_ext(const struct x86_event *event)
{
    return is_requested(event) ? 0 : 1;
}

/* Faults set RF so that the instruction can be restarted past its breakpoint (17.3.1.1). */
uint64_t x86_event_flags(const struct x86_cpu *cpu, const struct x86_event *event)
{
    bool restarts = event->kind == X86_EVENT_EXCEPTION && event->vector != X86_DB &&
                    event->return_rip == cpu->s.rip;

    return cpu->s.rflags | (restarts ? X86_FLAG_RF : 0);
}

/* Error code that points into the IDT. */
static uint32_t vector_code(const struct x86_event *event)
{
    return event->vector * 8u + 2u + x86_event_ext(event);
}

/* ---- real mode and redirection to the 8086 program ---- */

static void clear_flags(struct x86_cpu *cpu, uint64_t flags)
{
    cpu->s.rflags &= ~flags;
}

/* Push FLAGS, CS, IP and go to the IVT's entry. */
static void enter_ivt(struct x86_cpu *cpu, const struct x86_event *event, uint32_t entry,
                      uint64_t flags, uint64_t cleared)
{
    struct x86_stack stack;
    uint64_t rip = entry & 0xffffu;

    x86_stack_current(cpu, 0, &stack);
    x86_stack_need(cpu, &stack, 3, 2);
    if (!x86_in_v86_mode(cpu) && rip > cpu->s.seg[X86_CS].limit)
        x86_raise_code(cpu, X86_GP, 0);
    x86_stack_push(cpu, &stack, flags, 2);
    x86_stack_push(cpu, &stack, cpu->s.seg[X86_CS].selector, 2);
    x86_stack_push(cpu, &stack, event->return_rip, 2);
    x86_stack_commit(cpu, &stack);
    cpu->s.seg[X86_CS] = x86_real_segment(cpu, (uint16_t)(entry >> 16), &cpu->s.seg[X86_CS]);
    cpu->s.rip = rip;
    clear_flags(cpu, cleared);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_FLAGS);
}

static void deliver_real(struct x86_cpu *cpu, const struct x86_event *event)
{
    uint32_t offset = event->vector * IVT_ENTRY_BYTES;

    if (offset + IVT_ENTRY_BYTES - 1 > cpu->s.idtr.limit)
        x86_raise_code(cpu, X86_GP, vector_code(event));
    enter_ivt(cpu, event, (uint32_t)x86_read_system(cpu, cpu->s.idtr.base + offset, 4),
              cpu->s.rflags, X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_AC | X86_FLAG_RF);
}

#define REDIRECTION_BYTES 32u /* right below the I/O permission map */

/* The vector's bit in the TSS' software interrupt redirection map. */
static bool redirection_bit(struct x86_cpu *cpu, uint8_t vector)
{
    const struct x86_segment *tr = &cpu->s.tr;
    uint32_t offset;

    if (!(tr->attributes & X86_SEG_P) || !(tr->attributes & 8) || tr->limit < 103)
        x86_raise_code(cpu, X86_GP, 0);
    offset = (uint32_t)x86_read_system(cpu, tr->base + 102, 2) - REDIRECTION_BYTES + vector / 8u;
    if (offset > tr->limit) /* a base below 32 wraps and is refused here, too */
        x86_raise_code(cpu, X86_GP, 0);
    return x86_read_system(cpu, tr->base + offset, 1) >> (vector & 7) & 1;
}

/* INT n to the 8086 program's own handler; with IOPL < 3, VIF stands for IF. */
static void redirect(struct x86_cpu *cpu, const struct x86_event *event, bool virtual_if)
{
    uint64_t flags = cpu->s.rflags;
    uint32_t entry =
        (uint32_t)cpu->ops->read(cpu, event->vector * IVT_ENTRY_BYTES, 4, X86_ACCESS_READ);

    if (virtual_if) {
        flags |= X86_FLAG_IOPL | X86_FLAG_IF;
        if (!(flags & X86_FLAG_VIF))
            flags &= ~(uint64_t)X86_FLAG_IF;
    }
    enter_ivt(cpu, event, entry, flags,
              X86_FLAG_TF | X86_FLAG_RF | (virtual_if ? X86_FLAG_VIF : X86_FLAG_IF));
}

/* INT n in virtual-8086 mode (table 20-2); false: the IDT's handler is to be used. */
static bool deliver_v86_software(struct x86_cpu *cpu, const struct x86_event *event)
{
    bool iopl3 = (cpu->s.rflags & X86_FLAG_IOPL) == X86_FLAG_IOPL;

    if ((cpu->s.cr4 & X86_CR4_VME) && !redirection_bit(cpu, event->vector)) {
        redirect(cpu, event, !iopl3);
        return true;
    }
    if (!iopl3)
        x86_raise_code(cpu, X86_GP, 0);
    return false;
}

void x86_check_virtual_interrupt(struct x86_cpu *cpu)
{
    const uint64_t both = X86_FLAG_VIF | X86_FLAG_VIP;

    if ((cpu->s.cr4 & X86_CR4_VME) && (cpu->s.rflags & both) == both)
        x86_raise_code(cpu, X86_GP, 0);
}

/* ---- protected and long mode ---- */

/* One delivery through an interrupt or trap gate. */
struct entry {
    const struct x86_event *event;
    unsigned ext;
    unsigned size_bytes; /* of each value pushed: 2, 4 or 8 */
    bool disable;        /* interrupt gate: clears IF */
    bool from_v86;
    bool switches; /* to an inner level: SS changes */
    unsigned ist;
    uint16_t selector;
    uint64_t rip;
    unsigned cpl; /* of the handler */
    struct x86_descriptor code;
    struct x86_stack stack;
};

/* Read and check the IDT's entry. */
static void read_gate(struct x86_cpu *cpu, const struct x86_event *event,
                      struct x86_descriptor *out)
{
    static const uint16_t types[2] = {
        1u << X86_TYPE_TASK_GATE | 1u << X86_TYPE_INTERRUPT_GATE16 | 1u << X86_TYPE_TRAP_GATE16 |
            1u << X86_TYPE_INTERRUPT_GATE | 1u << X86_TYPE_TRAP_GATE,
        1u << X86_TYPE_INTERRUPT_GATE | 1u << X86_TYPE_TRAP_GATE,
    };
    const bool wide = x86_in_long_mode(cpu);
    const uint32_t size = wide ? 16 : 8, offset = event->vector * size;

    if (offset + size - 1 > cpu->s.idtr.limit)
        x86_raise_code(cpu, X86_GP, vector_code(event));
    out->linear = cpu->s.idtr.base + offset;
    out->low = x86_read_system(cpu, out->linear, 8);
    out->high = wide ? (uint32_t)x86_read_system(cpu, out->linear + 8, 8) : 0;
    if (!(types[wide] >> x86_descriptor_system_type(out) & 1))
        x86_raise_code(cpu, X86_GP, vector_code(event));
    if (is_requested(event) && x86_descriptor_dpl(out) < cpu->cpl)
        x86_raise_code(cpu, X86_GP, vector_code(event));
    if (!x86_descriptor_present(out))
        x86_raise_code(cpu, X86_NP, vector_code(event));
}

noreturn static void bad_handler(struct x86_cpu *cpu, const struct entry *e, uint8_t vector)
{
    x86_raise_code(cpu, vector, x86_selector_code(e->selector, e->ext));
}

/* The handler's code segment; decides its privilege level. */
static void check_handler(struct x86_cpu *cpu, struct entry *e)
{
    uint16_t attributes;
    unsigned dpl;

    if (x86_selector_is_null(e->selector))
        x86_raise_code(cpu, X86_GP, e->ext);
    x86_descriptor_get(cpu, e->selector, X86_GP, e->ext, &e->code);
    attributes = x86_descriptor_attributes(&e->code);
    dpl = x86_descriptor_dpl(&e->code);
    if (!x86_is_code(attributes) || dpl > cpu->cpl)
        bad_handler(cpu, e, X86_GP);
    if (x86_in_long_mode(cpu) && (attributes & (X86_SEG_L | X86_SEG_DB)) != X86_SEG_L)
        bad_handler(cpu, e, X86_GP);
    if (!x86_descriptor_present(&e->code))
        bad_handler(cpu, e, X86_NP);
    e->cpl = x86_is_conforming(attributes) ? cpu->cpl : dpl;
    e->switches = e->cpl < cpu->cpl;
    if (e->from_v86 && e->cpl != 0) /* conforming handlers included */
        bad_handler(cpu, e, X86_GP);
}

static void choose_stack(struct x86_cpu *cpu, struct entry *e)
{
    if (e->switches || e->ist)
        x86_stack_from_tss(cpu, e->cpl, e->ist, e->ext, &e->stack);
    else
        x86_stack_current(cpu, e->ext, &e->stack);
    if (e->size_bytes == 8) {
        e->stack.flat = true;
        e->stack.sp &= ~UINT64_C(15);
    }
}

static unsigned frame_count(const struct entry *e)
{
    unsigned count = 3; /* FLAGS, CS, IP */

    if (e->switches || e->size_bytes == 8)
        count += 2; /* SS, SP */
    if (e->from_v86)
        count += 4; /* GS, FS, DS, ES */
    return count + e->event->has_error_code;
}

static void push(struct x86_cpu *cpu, struct entry *e, uint64_t value)
{
    x86_stack_push(cpu, &e->stack, value, e->size_bytes);
}

static void push_frame(struct x86_cpu *cpu, struct entry *e)
{
    static const uint8_t v86[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    const struct x86_state *s = &cpu->s;

    if (e->from_v86)
        for (unsigned i = 0; i < sizeof(v86); i++)
            push(cpu, e, s->seg[v86[i]].selector);
    if (e->switches || e->size_bytes == 8) {
        push(cpu, e, s->seg[X86_SS].selector);
        push(cpu, e, s->gpr[X86_RSP]);
    }
    push(cpu, e, x86_event_flags(cpu, e->event));
    push(cpu, e, s->seg[X86_CS].selector);
    push(cpu, e, e->event->return_rip);
    if (e->event->has_error_code)
        push(cpu, e, e->event->error_code);
}

static void enter_handler(struct x86_cpu *cpu, const struct entry *e)
{
    static const uint8_t v86[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    struct x86_state *s = &cpu->s;

    if (e->from_v86)
        for (unsigned i = 0; i < sizeof(v86); i++)
            s->seg[v86[i]] = x86_null_segment(0, 0);
    if (e->switches)
        s->seg[X86_SS] = e->stack.ss;
    x86_stack_commit(cpu, &e->stack);
    s->seg[X86_CS] = x86_segment_from((uint16_t)((e->selector & 0xfffcu) | e->cpl), &e->code);
    s->rip = e->rip;
    cpu->cpl = (uint8_t)e->cpl;
    clear_flags(cpu, X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM |
                         (e->disable ? X86_FLAG_IF : 0));
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_FLAGS |
                               (e->switches ? X86_CHANGED_SEGMENTS : 0));
}

static void deliver_gate(struct x86_cpu *cpu, const struct x86_event *event,
                         const struct x86_descriptor *gate)
{
    const unsigned type = x86_descriptor_system_type(gate);
    const bool wide = x86_in_long_mode(cpu);
    struct entry e = {
        .event = event,
        .ext = x86_event_ext(event),
        .size_bytes = wide ? 8 : (type & 8 ? 4 : 2),
        .disable = !(type & 1),
        .from_v86 = x86_in_v86_mode(cpu),
        .ist = wide ? x86_gate_ist(gate) : 0,
        .selector = x86_gate_selector(gate),
        .rip = x86_gate_offset(gate),
    };

    if (e.size_bytes == 2)
        e.rip &= 0xffff;
    check_handler(cpu, &e);
    choose_stack(cpu, &e);
    x86_stack_need(cpu, &e.stack, frame_count(&e), e.size_bytes);
    x86_check_target(cpu, x86_descriptor_attributes(&e.code), x86_descriptor_limit(&e.code), e.rip,
                     e.ext);
    x86_descriptor_touch(cpu, &e.code);
    if (e.stack.descriptor.low)
        x86_descriptor_touch(cpu, &e.stack.descriptor);
    push_frame(cpu, &e);
    enter_handler(cpu, &e);
}

/* What a gate of the IDT in long mode says that leads to 64-bit code at ring 0. */
struct plain_gate {
    uint64_t rip;
    uint16_t selector;
    bool disable; /* interrupts */
    uint8_t ist;
    struct x86_descriptor code;
};

/* False: it is no such gate, or the event may not use it. */
static bool read_plain_gate(struct x86_cpu *cpu, const struct x86_event *event,
                            struct plain_gate *out)
{
    const uint32_t offset = event->vector * 16u;
    struct x86_descriptor gate = {0};
    const uint8_t *host;
    unsigned type;

    if (offset + 15 > cpu->s.idtr.limit)
        return false;
    host = x86_host_at(cpu, cpu->s.idtr.base + offset, 16, X86_ACCESS_READ | X86_ACCESS_SUPERVISOR);
    if (!host)
        return false;
    gate.low = ram_load64(host);
    gate.high = (uint32_t)ram_load64(host + 8);
    type = x86_descriptor_system_type(&gate);
    out->disable = !(type & 1);
    out->ist = (uint8_t)x86_gate_ist(&gate);
    out->selector = x86_gate_selector(&gate);
    out->rip = x86_gate_offset(&gate);
    return x86_descriptor_present(&gate) &&
           (!is_requested(event) || x86_descriptor_dpl(&gate) >= cpu->cpl) &&
           (type == X86_TYPE_INTERRUPT_GATE || type == X86_TYPE_TRAP_GATE) &&
           x86_is_canonical(out->rip) &&
           x86_plain_descriptor(cpu, out->selector, 0, X86_PLAIN_CODE_MASK, X86_PLAIN_CODE,
                                &out->code);
}

/* Where the frame of so many words goes: *out_sp; NULL if it is not at hand. */
static uint8_t *plain_frame(struct x86_cpu *cpu, unsigned ist, unsigned words, uint64_t *out_sp)
{
    unsigned access = X86_ACCESS_WRITE;
    uint64_t sp = cpu->s.gpr[X86_RSP];

    if (cpu->cpl != 0 || ist) {
        const struct x86_segment *tr = &cpu->s.tr;
        uint32_t offset = ist ? ist * 8 + 28 : 4;
        const uint8_t *host;

        if (!(tr->attributes & X86_SEG_P) || offset + 7 > tr->limit)
            return NULL;
        host = x86_host_at(cpu, tr->base + offset, 8, X86_ACCESS_READ | X86_ACCESS_SUPERVISOR);
        if (!host)
            return NULL;
        sp = ram_load64(host);
        access |= X86_ACCESS_SUPERVISOR;
    }
    *out_sp = (sp & ~UINT64_C(15)) - 8 * words;
    return x86_host_at(cpu, *out_sp, 8 * words, access);
}

static void enter_plain(struct x86_cpu *cpu, const struct plain_gate *gate, uint64_t sp)
{
    struct x86_state *s = &cpu->s;

    if (cpu->cpl != 0)
        s->seg[X86_SS] = x86_null_segment(0, 0);
    s->gpr[X86_RSP] = sp;
    s->seg[X86_CS] = x86_segment_from(gate->selector & 0xfffcu, &gate->code);
    s->rip = gate->rip;
    cpu->cpl = 0;
    clear_flags(cpu, X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | (gate->disable ? X86_FLAG_IF : 0));
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_FLAGS | X86_CHANGED_SEGMENTS);
}

/*
 * An event in long mode where everything is at hand and as usual: does what
 * deliver_gate() does, or nothing.
 */
static bool deliver_plain(struct x86_cpu *cpu, const struct x86_event *event)
{
    const struct x86_state *s = &cpu->s;
    struct plain_gate gate;
    uint8_t *frame;
    uint64_t sp;

    if (!x86_in_long_mode(cpu) || x86_in_v86_mode(cpu) || !read_plain_gate(cpu, event, &gate))
        return false;
    frame = plain_frame(cpu, gate.ist, 5 + event->has_error_code, &sp);
    if (!frame)
        return false;
    if (event->has_error_code) {
        ram_store64(frame, event->error_code);
        frame += 8;
    }
    ram_store64(frame, event->return_rip);
    ram_store64(frame + 8, s->seg[X86_CS].selector);
    ram_store64(frame + 16, x86_event_flags(cpu, event));
    ram_store64(frame + 24, s->gpr[X86_RSP]);
    ram_store64(frame + 32, s->seg[X86_SS].selector);
    enter_plain(cpu, &gate, sp);
    return true;
}

static void deliver_protected(struct x86_cpu *cpu, const struct x86_event *event)
{
    struct x86_descriptor gate;

    if (deliver_plain(cpu, event))
        return;
    read_gate(cpu, event, &gate);
    if (x86_descriptor_system_type(&gate) == X86_TYPE_TASK_GATE)
        x86_task_switch(cpu, x86_gate_selector(&gate), X86_TASK_EVENT, event->return_rip,
                        event->has_error_code ? &event->error_code : NULL);
    else
        deliver_gate(cpu, event, &gate);
}

/* ---- delivery ---- */

#define DEBUGCTL_LBR_BTF UINT64_C(3)

/* A debug handler starts without general detect, branch recording and branch stepping (17.2.4). */
static void enter_debug_handler(struct x86_cpu *cpu)
{
    cpu->s.msr.debugctl &= ~DEBUGCTL_LBR_BTF;
    if (!(cpu->s.dr7 & X86_DR7_GD))
        return;
    cpu->s.dr7 &= ~(uint64_t)X86_DR7_GD;
    cpu->ops->changed(cpu, X86_CHANGED_DEBUG);
}

static bool is_debug_exception(const struct x86_event *event)
{
    return event->vector == X86_DB &&
           (event->kind == X86_EVENT_EXCEPTION || event->kind == X86_EVENT_INT1);
}

static void deliver_by_mode(struct x86_cpu *cpu, const struct x86_event *event)
{
    if (!x86_in_protected_mode(cpu))
        deliver_real(cpu, event);
    else if (!x86_in_v86_mode(cpu) || event->kind != X86_EVENT_SOFTWARE ||
             !deliver_v86_software(cpu, event))
        deliver_protected(cpu, event);
}

void x86_deliver(struct x86_cpu *cpu, const struct x86_event *event)
{
    struct x86_event now = *event;

    if (cpu->delivering && !combine(cpu, &now)) {
        cpu->delivering = false;
        cpu->s.activity = X86_SHUTDOWN;
        return;
    }
    cpu->first = now;
    cpu->delivering = true;
    if (now.kind == X86_EVENT_NMI)
        cpu->s.pending.nmi_blocked = true;
    deliver_by_mode(cpu, &cpu->first);
    cpu->delivering = false;
    if (is_debug_exception(&cpu->first))
        enter_debug_handler(cpu);
}
