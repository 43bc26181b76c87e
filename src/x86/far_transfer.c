/*
 * far_transfer.c - far JMP, CALL, RET and IRET
 *
 * SDM vol. 2 (the operation sections of JMP, CALL, RET, IRET) and vol. 3, chapters 5.8, 6.12
 * and 20.2; where AMD and Intel differ, as Intel does: IRET unblocks NMIs even if it
 * faults later, and 64-bit code pops SS:RSP always.
 *
 * Theory of operation. Everything that can fault comes first: descriptors, stack limits,
 * target, then accessed bits in memory, then pushes (below the stack pointer, where they
 * do no harm if a later one faults). Then registers change, all at once.
 *
 * Left out: shadow stacks and indirect branch tracking.
 */
#include "base/guest_ram.h"
#include "x86/descriptor.h"
#include "x86/segments.h"

#define IRET_FLAGS16 (X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT)
#define IRET_FLAGS32 (X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

static uint64_t truncate_to(uint64_t value, unsigned size_bytes)
{
    return size_bytes >= 8 ? value : value & ((UINT64_C(1) << size_bytes * 8) - 1);
}

noreturn static void fault(struct x86_cpu *cpu, uint8_t vector, uint16_t selector)
{
    x86_raise_code(cpu, vector, x86_selector_code(selector, 0));
}

static bool is_64bit_code(const struct x86_cpu *cpu, const struct x86_descriptor *d)
{
    return x86_in_long_mode(cpu) && (x86_descriptor_attributes(d) & X86_SEG_L);
}

/* L and D together are reserved in long mode. */
static bool is_reserved_code(const struct x86_cpu *cpu, const struct x86_descriptor *d)
{
    const uint16_t both = X86_SEG_L | X86_SEG_DB;

    return x86_in_long_mode(cpu) && (x86_descriptor_attributes(d) & both) == both;
}

static void check_target(struct x86_cpu *cpu, const struct x86_descriptor *d, uint64_t rip)
{
    x86_check_target(cpu, x86_descriptor_attributes(d), x86_descriptor_limit(d), rip, 0);
}

/* CS:RIP and CPL. The caller reports the change. */
static void set_code(struct x86_cpu *cpu, uint16_t selector, const struct x86_descriptor *d,
                     unsigned cpl, uint64_t rip)
{
    cpu->s.seg[X86_CS] = x86_segment_from((uint16_t)((selector & 0xfffcu) | cpl), d);
    cpu->s.rip = rip;
    cpu->cpl = (uint8_t)cpl;
}

/* ---- real and virtual-8086 mode ---- */

static bool in_real_or_v86(const struct x86_cpu *cpu)
{
    return !x86_in_protected_mode(cpu) || x86_in_v86_mode(cpu);
}

static void check_real_target(struct x86_cpu *cpu, uint64_t rip)
{
    if (rip > (x86_in_v86_mode(cpu) ? 0xffffu : cpu->s.seg[X86_CS].limit))
        x86_raise_code(cpu, X86_GP, 0);
}

static void set_real_code(struct x86_cpu *cpu, uint16_t selector, uint64_t rip)
{
    cpu->s.seg[X86_CS] = x86_real_segment(cpu, selector, &cpu->s.seg[X86_CS]);
    cpu->s.rip = rip;
}

static void real_jump(struct x86_cpu *cpu, uint16_t selector, uint64_t rip)
{
    check_real_target(cpu, rip);
    set_real_code(cpu, selector, rip);
    cpu->ops->changed(cpu, X86_CHANGED_CODE);
}

static void real_call(struct x86_cpu *cpu, uint16_t selector, uint64_t rip, unsigned size,
                      uint64_t next_rip)
{
    struct x86_stack stack;

    x86_stack_current(cpu, 0, &stack);
    x86_stack_need(cpu, &stack, 2, size);
    check_real_target(cpu, rip);
    x86_stack_push(cpu, &stack, cpu->s.seg[X86_CS].selector, size);
    x86_stack_push(cpu, &stack, next_rip, size);
    x86_stack_commit(cpu, &stack);
    set_real_code(cpu, selector, rip);
    cpu->ops->changed(cpu, X86_CHANGED_CODE);
}

static void real_return(struct x86_cpu *cpu, unsigned size, uint16_t pop_bytes)
{
    struct x86_stack stack;
    uint64_t rip;
    uint16_t selector;

    x86_stack_current(cpu, 0, &stack);
    x86_stack_have(cpu, &stack, 2, size);
    rip = x86_stack_pop(cpu, &stack, size);
    selector = (uint16_t)x86_stack_pop(cpu, &stack, size);
    check_real_target(cpu, rip);
    x86_stack_skip(&stack, pop_bytes);
    x86_stack_commit(cpu, &stack);
    set_real_code(cpu, selector, rip);
    cpu->ops->changed(cpu, X86_CHANGED_CODE);
}

/* ---- JMP and CALL: code segments and gates ---- */

/* Target of a direct far JMP or CALL. */
static void check_direct_code(struct x86_cpu *cpu, uint16_t selector,
                              const struct x86_descriptor *d)
{
    unsigned dpl = x86_descriptor_dpl(d);

    if (is_reserved_code(cpu, d))
        fault(cpu, X86_GP, selector);
    if (x86_is_conforming(x86_descriptor_attributes(d))
            ? dpl > cpu->cpl
            : x86_rpl(selector) > cpu->cpl || dpl != cpu->cpl)
        fault(cpu, X86_GP, selector);
    if (!x86_descriptor_present(d))
        fault(cpu, X86_NP, selector);
}

/* Any gate or TSS must be at most as privileged as CPL and RPL, and present. */
static void check_system_target(struct x86_cpu *cpu, uint16_t selector,
                                const struct x86_descriptor *d)
{
    unsigned dpl = x86_descriptor_dpl(d);

    if (dpl < cpu->cpl || dpl < x86_rpl(selector))
        fault(cpu, X86_GP, selector);
    if (!x86_descriptor_present(d))
        fault(cpu, X86_NP, selector);
}

struct gate_target {
    uint16_t selector;
    unsigned size_bytes; /* of what is pushed: 2, 4 or 8 */
    uint64_t rip;
    struct x86_descriptor code;
    bool inner; /* non-conforming and more privileged */
};

/* Read and check the code segment behind a call gate; JMP may not change privilege. */
static void read_call_gate(struct x86_cpu *cpu, const struct x86_descriptor *gate, bool jump,
                           struct gate_target *out)
{
    unsigned size = x86_descriptor_system_type(gate) == X86_TYPE_CALL_GATE16 ? 2 : 4;
    uint16_t selector = x86_gate_selector(gate);
    uint16_t attributes;
    unsigned dpl;

    if (x86_selector_is_null(selector))
        x86_raise_code(cpu, X86_GP, 0);
    x86_descriptor_get(cpu, selector, X86_GP, 0, &out->code);
    attributes = x86_descriptor_attributes(&out->code);
    dpl = x86_descriptor_dpl(&out->code);
    if (!x86_is_code(attributes) || dpl > cpu->cpl)
        fault(cpu, X86_GP, selector);
    out->inner = !x86_is_conforming(attributes) && dpl < cpu->cpl;
    if (jump && out->inner)
        fault(cpu, X86_GP, selector);
    if (x86_in_long_mode(cpu) &&
        (!is_64bit_code(cpu, &out->code) || is_reserved_code(cpu, &out->code)))
        fault(cpu, X86_GP, selector);
    if (!x86_descriptor_present(&out->code))
        fault(cpu, X86_NP, selector);
    out->selector = selector;
    out->size_bytes = x86_in_long_mode(cpu) ? 8 : size;
    out->rip = truncate_to(x86_gate_offset(gate), out->size_bytes);
}

static void task_gate(struct x86_cpu *cpu, const struct x86_descriptor *gate,
                      enum x86_task_cause cause, uint64_t next_rip)
{
    x86_task_switch(cpu, x86_gate_selector(gate), cause, next_rip, NULL);
}

/* What a far JMP or CALL reaches if it is no code segment. */
static unsigned system_target(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *d)
{
    static const uint16_t types[2] = {
        1u << X86_TYPE_TSS16 | 1u << X86_TYPE_TSS | 1u << X86_TYPE_TASK_GATE |
            1u << X86_TYPE_CALL_GATE16 | 1u << X86_TYPE_CALL_GATE,
        1u << X86_TYPE_CALL_GATE, /* long mode */
    };
    unsigned type = x86_descriptor_system_type(d);

    if (!(types[x86_in_long_mode(cpu)] >> type & 1) || !x86_descriptor_extend(cpu, selector, d))
        fault(cpu, X86_GP, selector);
    check_system_target(cpu, selector, d);
    return type;
}

/* ---- JMP ---- */

static void jump_to(struct x86_cpu *cpu, uint16_t selector, const struct x86_descriptor *d,
                    uint64_t rip)
{
    check_target(cpu, d, rip);
    x86_descriptor_touch(cpu, d);
    set_code(cpu, selector, d, cpu->cpl, rip);
    cpu->ops->changed(cpu, X86_CHANGED_CODE);
}

static void jump_system(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *d,
                        uint64_t next_rip)
{
    struct gate_target target;

    switch (system_target(cpu, selector, d)) {
    case X86_TYPE_CALL_GATE16:
    case X86_TYPE_CALL_GATE:
        read_call_gate(cpu, d, true, &target);
        jump_to(cpu, target.selector, &target.code, target.rip);
        break;
    case X86_TYPE_TASK_GATE:
        task_gate(cpu, d, X86_TASK_JUMP, next_rip);
        break;
    default:
        x86_task_switch(cpu, selector, X86_TASK_JUMP, next_rip, NULL);
        break;
    }
}

void x86_far_jump(struct x86_cpu *cpu, uint16_t selector, uint64_t offset, unsigned operand_size,
                  uint64_t next_rip)
{
    struct x86_descriptor d;

    offset = truncate_to(offset, operand_size);
    if (in_real_or_v86(cpu)) {
        real_jump(cpu, selector, offset);
        return;
    }
    if (x86_selector_is_null(selector))
        x86_raise_code(cpu, X86_GP, 0);
    x86_descriptor_get(cpu, selector, X86_GP, 0, &d);
    if (!x86_is_code(x86_descriptor_attributes(&d))) {
        jump_system(cpu, selector, &d, next_rip);
        return;
    }
    check_direct_code(cpu, selector, &d);
    jump_to(cpu, selector, &d, offset);
}

/* ---- CALL ---- */

/* Same privilege: the return address goes on the stack in use (flat behind a 64-bit gate). */
static void call_same(struct x86_cpu *cpu, uint16_t selector, const struct x86_descriptor *d,
                      uint64_t rip, unsigned size, bool flat, uint64_t next_rip)
{
    struct x86_stack stack;

    x86_stack_current(cpu, 0, &stack);
    stack.flat |= flat;
    x86_stack_need(cpu, &stack, 2, size);
    check_target(cpu, d, rip);
    x86_descriptor_touch(cpu, d);
    x86_stack_push(cpu, &stack, cpu->s.seg[X86_CS].selector, size);
    x86_stack_push(cpu, &stack, next_rip, size);
    x86_stack_commit(cpu, &stack);
    set_code(cpu, selector, d, cpu->cpl, rip);
    cpu->ops->changed(cpu, X86_CHANGED_CODE);
}

static void call_inner(struct x86_cpu *cpu, const struct gate_target *target, unsigned count,
                       uint64_t next_rip)
{
    const unsigned size = target->size_bytes;
    const unsigned cpl = x86_descriptor_dpl(&target->code);
    struct x86_stack old, stack;
    uint64_t parameters[31];

    x86_stack_current(cpu, 0, &old);
    x86_stack_from_tss(cpu, cpl, 0, 0, &stack);
    x86_stack_need(cpu, &stack, 4 + count, size);
    check_target(cpu, &target->code, target->rip);
    for (unsigned i = 0; i < count; i++)
        parameters[i] = x86_stack_peek(cpu, &old, i * size, size);
    x86_descriptor_touch(cpu, &target->code);
    if (stack.descriptor.low)
        x86_descriptor_touch(cpu, &stack.descriptor);
    x86_stack_push(cpu, &stack, cpu->s.seg[X86_SS].selector, size);
    x86_stack_push(cpu, &stack, cpu->s.gpr[X86_RSP], size);
    while (count--)
        x86_stack_push(cpu, &stack, parameters[count], size);
    x86_stack_push(cpu, &stack, cpu->s.seg[X86_CS].selector, size);
    x86_stack_push(cpu, &stack, next_rip, size);
    cpu->s.seg[X86_SS] = stack.ss;
    x86_stack_commit(cpu, &stack);
    set_code(cpu, target->selector, &target->code, cpl, target->rip);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS);
}

static void call_gate(struct x86_cpu *cpu, const struct x86_descriptor *gate, uint64_t next_rip)
{
    struct gate_target target;
    bool wide = x86_in_long_mode(cpu);

    read_call_gate(cpu, gate, false, &target);
    if (target.inner)
        call_inner(cpu, &target, wide ? 0 : x86_gate_count(gate), next_rip);
    else
        call_same(cpu, target.selector, &target.code, target.rip, target.size_bytes, wide,
                  next_rip);
}

static void call_system(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *d,
                        uint64_t next_rip)
{
    switch (system_target(cpu, selector, d)) {
    case X86_TYPE_CALL_GATE16:
    case X86_TYPE_CALL_GATE:
        call_gate(cpu, d, next_rip);
        break;
    case X86_TYPE_TASK_GATE:
        task_gate(cpu, d, X86_TASK_CALL, next_rip);
        break;
    default:
        x86_task_switch(cpu, selector, X86_TASK_CALL, next_rip, NULL);
        break;
    }
}

void x86_far_call(struct x86_cpu *cpu, uint16_t selector, uint64_t offset, unsigned operand_size,
                  uint64_t next_rip)
{
    struct x86_descriptor d;

    offset = truncate_to(offset, operand_size);
    if (in_real_or_v86(cpu)) {
        real_call(cpu, selector, offset, operand_size, next_rip);
        return;
    }
    if (x86_selector_is_null(selector))
        x86_raise_code(cpu, X86_GP, 0);
    x86_descriptor_get(cpu, selector, X86_GP, 0, &d);
    if (!x86_is_code(x86_descriptor_attributes(&d))) {
        call_system(cpu, selector, &d, next_rip);
        return;
    }
    check_direct_code(cpu, selector, &d);
    call_same(cpu, selector, &d, offset, operand_size, false, next_rip);
}

/* ---- RET and IRET: the way back ---- */

/* What a far return found on the stack, checked. */
struct way_back {
    uint16_t cs, ss;
    uint64_t rip, rsp;
    struct x86_descriptor code, data; /* data.low is 0 for a null SS */
    bool outer;                       /* to a less privileged level */
    bool has_stack;                   /* SS:RSP were on the stack as well */
};

/* The code segment to return to. */
static void check_return_code(struct x86_cpu *cpu, struct way_back *back)
{
    uint16_t selector = back->cs, attributes;
    unsigned rpl = x86_rpl(selector), dpl;

    if (x86_selector_is_null(selector))
        x86_raise_code(cpu, X86_GP, 0);
    x86_descriptor_get(cpu, selector, X86_GP, 0, &back->code);
    attributes = x86_descriptor_attributes(&back->code);
    dpl = x86_descriptor_dpl(&back->code);
    if (!x86_is_code(attributes) || rpl < cpu->cpl || is_reserved_code(cpu, &back->code))
        fault(cpu, X86_GP, selector);
    if (x86_is_conforming(attributes) ? dpl > rpl : dpl != rpl)
        fault(cpu, X86_GP, selector);
    if (!x86_descriptor_present(&back->code))
        fault(cpu, X86_NP, selector);
    back->outer = rpl > cpu->cpl;
}

/* The stack segment to return to; null is allowed for 64-bit code outside CPL 3. */
static void check_return_ss(struct x86_cpu *cpu, struct way_back *back)
{
    unsigned rpl = x86_rpl(back->cs);

    if (!x86_selector_is_null(back->ss)) {
        x86_check_ss(cpu, back->ss, rpl, X86_GP, 0, &back->data);
        return;
    }
    back->data = (struct x86_descriptor){0};
    if (!is_64bit_code(cpu, &back->code) || rpl == 3 || x86_rpl(back->ss) != rpl)
        x86_raise_code(cpu, X86_GP, 0);
}

/* RSP after loading value into a stack of the new SS' width. */
static uint64_t new_sp(struct x86_cpu *cpu, const struct way_back *back)
{
    if (is_64bit_code(cpu, &back->code))
        return back->rsp;
    if (x86_descriptor_attributes(&back->data) & X86_SEG_DB)
        return (uint32_t)back->rsp;
    return (cpu->s.gpr[X86_RSP] & 0xffff0000u) | (back->rsp & 0xffffu);
}

/* The last steps that can fault: the target and accessed bits. */
static void finish_checks(struct x86_cpu *cpu, const struct way_back *back)
{
    check_target(cpu, &back->code, back->rip);
    x86_descriptor_touch(cpu, &back->code);
    if (back->has_stack && back->data.low)
        x86_descriptor_touch(cpu, &back->data);
}

static void go_back(struct x86_cpu *cpu, const struct way_back *back)
{
    unsigned rpl = x86_rpl(back->cs);

    if (back->has_stack) {
        cpu->s.gpr[X86_RSP] = new_sp(cpu, back);
        cpu->s.seg[X86_SS] = back->data.low ? x86_segment_from(back->ss, &back->data)
                                            : x86_null_segment(back->ss, rpl);
    }
    set_code(cpu, back->cs, &back->code, rpl, back->rip);
    if (back->outer)
        x86_drop_inner_segments(cpu);
}

void x86_far_return(struct x86_cpu *cpu, unsigned operand_size, uint16_t pop_bytes)
{
    struct way_back back = {0};
    struct x86_stack stack;

    if (in_real_or_v86(cpu)) {
        real_return(cpu, operand_size, pop_bytes);
        return;
    }
    x86_stack_current(cpu, 0, &stack);
    x86_stack_have(cpu, &stack, 2, operand_size);
    back.rip = x86_stack_pop(cpu, &stack, operand_size);
    back.cs = (uint16_t)x86_stack_pop(cpu, &stack, operand_size);
    check_return_code(cpu, &back);
    x86_stack_skip(&stack, pop_bytes);
    if (back.outer) {
        x86_stack_have(cpu, &stack, 2, operand_size);
        back.rsp = x86_stack_pop(cpu, &stack, operand_size);
        back.ss = (uint16_t)x86_stack_pop(cpu, &stack, operand_size);
        back.has_stack = true;
        check_return_ss(cpu, &back);
    }
    finish_checks(cpu, &back);
    x86_stack_commit(cpu, &stack);
    go_back(cpu, &back);
    if (back.outer) { /* parameters are dropped from the caller's stack, too */
        x86_stack_current(cpu, 0, &stack);
        x86_stack_skip(&stack, pop_bytes);
        x86_stack_commit(cpu, &stack);
    }
    cpu->ops->changed(cpu, X86_CHANGED_CODE | (back.outer ? X86_CHANGED_SEGMENTS : 0));
}

/* ---- IRET ---- */

static void load_flags(struct x86_cpu *cpu, uint64_t flags, uint64_t mask)
{
    mask |= X86_FLAG_RF;       /* cleared by every instruction unless loaded */
    if (!(mask & X86_FLAG_AC)) /* a 16-bit image has no RF */
        flags &= ~(uint64_t)X86_FLAG_RF;
    cpu->s.rflags = (cpu->s.rflags & ~mask) | (flags & mask) | X86_FLAG_FIXED;
}

/* Flags that IRET of this operand size loads whatever the privilege. */
static uint64_t iret_flags(unsigned operand_size)
{
    return IRET_FLAGS16 | (operand_size > 2 ? IRET_FLAGS32 : 0u);
}

static unsigned iopl(const struct x86_cpu *cpu)
{
    return (cpu->s.rflags & X86_FLAG_IOPL) >> 12;
}

struct real_frame {
    struct x86_stack stack; /* after the pops */
    uint64_t rip, flags;
    uint16_t cs;
};

static void pop_frame(struct x86_cpu *cpu, unsigned size, struct real_frame *out)
{
    x86_stack_current(cpu, 0, &out->stack);
    x86_stack_have(cpu, &out->stack, 3, size);
    out->rip = x86_stack_pop(cpu, &out->stack, size);
    out->cs = (uint16_t)x86_stack_pop(cpu, &out->stack, size);
    out->flags = x86_stack_pop(cpu, &out->stack, size);
}

static void finish_real_iret(struct x86_cpu *cpu, const struct real_frame *frame, uint64_t mask)
{
    x86_stack_commit(cpu, &frame->stack);
    set_real_code(cpu, frame->cs, frame->rip);
    load_flags(cpu, frame->flags, mask);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_FLAGS);
}

/* CR4.VME with IOPL < 3: IF stands for VIF, and a pending interrupt or TF goes to the monitor. */
static void iret_vme(struct x86_cpu *cpu)
{
    struct real_frame frame;

    pop_frame(cpu, 2, &frame);
    if ((frame.flags & X86_FLAG_TF) ||
        ((frame.flags & X86_FLAG_IF) && (cpu->s.rflags & X86_FLAG_VIP)))
        x86_raise_code(cpu, X86_GP, 0);
    if (frame.flags & X86_FLAG_IF)
        frame.flags |= X86_FLAG_VIF;
    finish_real_iret(cpu, &frame, IRET_FLAGS16 | X86_FLAG_VIF);
}

static void iret_from_v86(struct x86_cpu *cpu, unsigned operand_size)
{
    struct real_frame frame;

    if (iopl(cpu) < 3) {
        if (!(cpu->s.cr4 & X86_CR4_VME) || operand_size != 2)
            x86_raise_code(cpu, X86_GP, 0);
        iret_vme(cpu);
        return;
    }
    pop_frame(cpu, operand_size, &frame);
    check_real_target(cpu, frame.rip);
    finish_real_iret(cpu, &frame, iret_flags(operand_size) | X86_FLAG_IF);
}

static void iret_real(struct x86_cpu *cpu, unsigned operand_size)
{
    struct real_frame frame;

    pop_frame(cpu, operand_size, &frame);
    check_real_target(cpu, frame.rip);
    finish_real_iret(cpu, &frame, iret_flags(operand_size) | X86_FLAG_IF | X86_FLAG_IOPL);
}

/* A nested task returns to the one that the back link names (SDM vol. 3, 7.4). */
static void iret_task(struct x86_cpu *cpu, uint64_t next_rip)
{
    if (x86_in_long_mode(cpu))
        x86_raise_code(cpu, X86_GP, 0);
    x86_task_switch(cpu, (uint16_t)x86_read_system(cpu, cpu->s.tr.base, 2), X86_TASK_IRET, next_rip,
                    NULL);
}

/* Stack after EIP, CS, EFLAGS: ESP, SS, ES, DS, FS, GS (SDM vol. 3, 20.2.3). */
static void iret_to_v86(struct x86_cpu *cpu, const struct real_frame *frame)
{
    static const uint8_t order[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
    struct x86_stack stack = frame->stack;
    uint16_t selectors[X86_SEGMENT_COUNT];
    uint64_t esp;

    x86_stack_have(cpu, &stack, 6, 4);
    esp = x86_stack_pop(cpu, &stack, 4);
    for (unsigned i = 0; i < sizeof(order); i++)
        selectors[order[i]] = (uint16_t)x86_stack_pop(cpu, &stack, 4);
    selectors[X86_CS] = frame->cs;
    if (frame->rip > 0xffff)
        x86_raise_code(cpu, X86_GP, 0);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        cpu->s.seg[i] = x86_v86_segment(selectors[i]);
    cpu->s.gpr[X86_RSP] = esp;
    cpu->s.rip = frame->rip;
    cpu->cpl = 3;
    load_flags(cpu, frame->flags,
               IRET_FLAGS16 | IRET_FLAGS32 | X86_FLAG_IF | X86_FLAG_IOPL | X86_FLAG_VM |
                   X86_FLAG_VIF | X86_FLAG_VIP);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);
    x86_check_virtual_interrupt(cpu);
}

static void iret_protected(struct x86_cpu *cpu, unsigned operand_size)
{
    struct way_back back = {0};
    struct real_frame frame;
    uint64_t mask = iret_flags(operand_size);

    pop_frame(cpu, operand_size, &frame);
    if ((frame.flags & X86_FLAG_VM) && cpu->cpl == 0 && !x86_in_long_mode(cpu)) {
        iret_to_v86(cpu, &frame);
        return;
    }
    back.cs = frame.cs;
    back.rip = frame.rip;
    if (x86_in_long_mode(cpu) && !x86_is_canonical(back.rip))
        x86_raise_code(cpu, X86_GP, 0);
    check_return_code(cpu, &back);
    if (back.outer || x86_in_64bit_mode(cpu)) {
        x86_stack_have(cpu, &frame.stack, 2, operand_size);
        back.rsp = x86_stack_pop(cpu, &frame.stack, operand_size);
        back.ss = (uint16_t)x86_stack_pop(cpu, &frame.stack, operand_size);
        back.has_stack = true;
        check_return_ss(cpu, &back);
    }
    finish_checks(cpu, &back);
    if (cpu->cpl <= iopl(cpu))
        mask |= X86_FLAG_IF;
    if (cpu->cpl == 0)
        mask |= X86_FLAG_IOPL | (operand_size > 2 ? X86_FLAG_VIF | X86_FLAG_VIP : 0u);
    x86_stack_commit(cpu, &frame.stack);
    go_back(cpu, &back);
    load_flags(cpu, frame.flags, mask);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_FLAGS |
                               (back.has_stack ? X86_CHANGED_SEGMENTS : 0));
}

/*
 * IRETQ of ring 0 to 64-bit code where everything is at hand and as usual: does what
 * iret_protected() does, or nothing.
 */
static bool iret_plain(struct x86_cpu *cpu)
{
    const uint64_t mask = iret_flags(8) | X86_FLAG_IF | X86_FLAG_IOPL | X86_FLAG_VIF | X86_FLAG_VIP;
    struct way_back back = {.has_stack = true};
    const uint8_t *frame;
    unsigned rpl;

    if (cpu->cpl != 0 || !x86_in_64bit_mode(cpu) || (cpu->s.rflags & X86_FLAG_NT))
        return false;
    frame = x86_host_at(cpu, cpu->s.gpr[X86_RSP], 40, X86_ACCESS_READ);
    if (!frame)
        return false;
    back.rip = ram_load64(frame);
    back.cs = (uint16_t)ram_load64(frame + 8);
    back.rsp = ram_load64(frame + 24);
    back.ss = (uint16_t)ram_load64(frame + 32);
    rpl = x86_rpl(back.cs);
    if (!x86_is_canonical(back.rip) || x86_rpl(back.ss) != rpl ||
        !x86_plain_descriptor(cpu, back.cs, rpl, X86_PLAIN_CODE_MASK, X86_PLAIN_CODE, &back.code) ||
        !x86_plain_descriptor(cpu, back.ss, rpl, X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITABLE,
                              X86_SEG_S | X86_SEG_WRITABLE, &back.data))
        return false;
    back.outer = rpl > 0;
    go_back(cpu, &back);
    load_flags(cpu, ram_load64(frame + 16), mask);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_FLAGS | X86_CHANGED_SEGMENTS);
    return true;
}

void x86_iret(struct x86_cpu *cpu, unsigned operand_size, uint64_t next_rip)
{
    cpu->s.pending.nmi_blocked = false;
    if (operand_size == 8 && iret_plain(cpu))
        return;
    if (!x86_in_protected_mode(cpu))
        iret_real(cpu, operand_size);
    else if (x86_in_v86_mode(cpu))
        iret_from_v86(cpu, operand_size);
    else if (cpu->s.rflags & X86_FLAG_NT)
        iret_task(cpu, next_rip);
    else
        iret_protected(cpu, operand_size);
}
