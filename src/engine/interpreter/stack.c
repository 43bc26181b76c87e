/*
 * stack.c - PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE
 *
 * Ops of the stack have seg = SS, so that a bad address is a stack fault. Operand bytes
 * are in extra.
 */
#include "engine/interpreter/stack.h"

#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "x86/segments.h"

#define BYTES (i->extra & 15u)

/* ---- 64-bit operands on a 64-bit stack: the hot ones ---- */

static const struct op *op_push64(struct icpu *c, const struct op *i)
{
    uint64_t *rsp = stack_pointer(c);

    store64(c, i, *rsp - 8, REG(c, i->src, uint64_t));
    *rsp -= 8;
    NEXT(c, i);
}
static const struct op *op_pushi64(struct icpu *c, const struct op *i)
{
    uint64_t *rsp = stack_pointer(c);

    store64(c, i, *rsp - 8, (uint64_t)i->imm);
    *rsp -= 8;
    NEXT(c, i);
}
static const struct op *op_pop64(struct icpu *c, const struct op *i)
{
    uint64_t *rsp = stack_pointer(c), value = load64(c, i, *rsp);

    *rsp += 8;
    REG(c, i->dst, uint64_t) = value; /* POP RSP: the value wins */
    NEXT(c, i);
}
static const struct op *op_leave64(struct icpu *c, const struct op *i)
{
    uint64_t *gpr = c->cpu.s.gpr, value = load64(c, i, gpr[X86_RBP]);

    gpr[X86_RSP] = gpr[X86_RBP] + 8;
    gpr[X86_RBP] = value;
    NEXT(c, i);
}

/* ---- all sizes ---- */

static const struct op *op_push(struct icpu *c, const struct op *i)
{
    stack_push(c, i, reg_get(c, i->src, BYTES), BYTES);
    NEXT(c, i);
}
static const struct op *op_pushi(struct icpu *c, const struct op *i)
{
    stack_push(c, i, (uint64_t)i->imm, BYTES);
    NEXT(c, i);
}
/* seg is the memory operand's: a bad stack address is a stack fault all the same. */
static void check_stack(struct icpu *c, const struct op *i, uint64_t offset)
{
    if (c->code_size == X86_CODE_64 && unlikely(!x86_is_canonical(offset)))
        interp_raise_code(c, i, X86_SS_FAULT, 0);
}
static const struct op *op_push_m(struct icpu *c, const struct op *i)
{
    uint64_t value = load_sized(c, i, ea(c, i, BYTES, X86_ACCESS_READ), BYTES);

    check_stack(c, i, stack_at(c, -(int64_t)BYTES));
    stack_push(c, i, value, BYTES);
    NEXT(c, i);
}
/* Only 16 bits are written, whatever the operand size (SDM vol. 2, PUSH). */
static const struct op *op_push_seg(struct icpu *c, const struct op *i)
{
    uint64_t linear = stack_linear(c, i, stack_at(c, -(int64_t)BYTES), BYTES, X86_ACCESS_WRITE);
    uint16_t selector = c->cpu.s.seg[i->imm].selector;

    if (BYTES == 8)
        store64(c, i, linear, selector);
    else
        store16(c, i, linear, selector);
    stack_move(c, -(int64_t)BYTES);
    NEXT(c, i);
}
static const struct op *op_pop(struct icpu *c, const struct op *i)
{
    uint64_t value = stack_peek(c, i, 0, BYTES);

    stack_move(c, BYTES);
    reg_set(c, i->dst, value, BYTES);
    NEXT(c, i);
}
/* If rSP is the base of the operand, it counts after the increment (SDM vol. 2, POP). */
static const struct op *op_pop_m(struct icpu *c, const struct op *i)
{
    uint64_t rsp = *stack_pointer(c), value, linear;

    check_stack(c, i, stack_at(c, 0));
    value = stack_peek(c, i, 0, BYTES);
    stack_move(c, BYTES);
    linear = ea_raw(c, i);
    *stack_pointer(c) = rsp;
    linear = i->ea == EA_BASE || i->ea == EA_INDEX
                 ? linear
                 : interp_ea_offset(c, i, linear, BYTES, X86_ACCESS_WRITE);
    store_sized(c, i, linear, value, BYTES);
    stack_move(c, BYTES);
    NEXT(c, i);
}
static const struct op *op_pop_seg(struct icpu *c, const struct op *i)
{
    uint16_t selector = (uint16_t)stack_peek(c, i, 0, BYTES == 8 ? 8 : 2);
    unsigned mode_key = c->mode_key;

    interp_sync(c, i);
    x86_load_segment(&c->cpu, (enum x86_segment_index)i->imm, selector);
    c->cpu.s.rip = op_rip(c, i);
    stack_move(c, BYTES);
    return interp_segment_loaded(c, i, (unsigned)i->imm, mode_key);
}

static const struct op *op_pusha(struct icpu *c, const struct op *i)
{
    uint64_t *gpr = c->cpu.s.gpr;
    int64_t bytes = BYTES;

    /* If the first one or the last one faults, nothing is written and ESP stays. */
    for (int n = 1; n <= 8; n += 7)
        interp_probe_write(
            c, i, stack_linear(c, i, stack_at(c, -bytes * n), (unsigned)bytes, X86_ACCESS_WRITE),
            (size_t)bytes);
    for (int n = 0; n < 8; n++)
        store_sized(
            c, i,
            stack_linear(c, i, stack_at(c, -bytes * (n + 1)), (unsigned)bytes, X86_ACCESS_WRITE),
            gpr[n], (unsigned)bytes);
    stack_move(c, -bytes * 8);
    NEXT(c, i);
}
static const struct op *op_popa(struct icpu *c, const struct op *i)
{
    uint64_t values[8];
    int64_t bytes = BYTES;

    for (int n = 0; n < 8; n++)
        values[7 - n] = stack_peek(c, i, bytes * n, (unsigned)bytes);
    stack_move(c, bytes * 8);
    for (unsigned n = 0; n < 8; n++)
        if (n != X86_RSP)
            reg_set(c, REG_OFFSET(n), values[n], (unsigned)bytes);
    NEXT(c, i);
}

/* SDM vol. 2, ENTER */
static const struct op *op_enter(struct icpu *c, const struct op *i)
{
    unsigned bytes = BYTES, level = (unsigned)i->disp & 31;
    uint64_t *gpr = c->cpu.s.gpr, frame = stack_at(c, -(int64_t)bytes), rbp = gpr[X86_RBP];
    int64_t depth = -(int64_t)bytes, below;

    /* The new top of the stack must be writable before anything is pushed for good. */
    below = depth * (level + 1) - (int64_t)(uint16_t)i->imm;
    store_sized(c, i, stack_linear(c, i, frame, bytes, X86_ACCESS_WRITE), rbp, bytes);
    for (unsigned n = 1; n < level; n++) {
        uint64_t outer = (rbp - n * bytes) & c->stack_mask;
        uint64_t value = load_sized(c, i, stack_linear(c, i, outer, bytes, X86_ACCESS_READ), bytes);

        depth -= bytes;
        store_sized(c, i, stack_linear(c, i, stack_at(c, depth), bytes, X86_ACCESS_WRITE), value,
                    bytes);
    }
    if (level) {
        depth -= bytes;
        store_sized(c, i, stack_linear(c, i, stack_at(c, depth), bytes, X86_ACCESS_WRITE), frame,
                    bytes);
    }
    interp_probe_write(c, i, stack_linear(c, i, stack_at(c, below), bytes, X86_ACCESS_WRITE), 1);
    stack_move(c, below);
    reg_set(c, REG_OFFSET(X86_RBP), frame, bytes);
    NEXT(c, i);
}
static const struct op *op_leave(struct icpu *c, const struct op *i)
{
    uint64_t *gpr = c->cpu.s.gpr, frame = gpr[X86_RBP] & c->stack_mask;
    uint64_t value = load_sized(c, i, stack_linear(c, i, frame, BYTES, X86_ACCESS_READ), BYTES);

    stack_move(c, (int64_t)(frame - stack_at(c, 0)) + BYTES);
    reg_set(c, REG_OFFSET(X86_RBP), value, BYTES);
    NEXT(c, i);
}

/* ---- flags ---- */

static bool v86_traps(const struct icpu *c)
{
    return x86_in_v86_mode(&c->cpu) && (c->cpu.s.rflags & X86_FLAG_IOPL) != X86_FLAG_IOPL;
}

/* In virtual-8086 mode with IOPL < 3: #GP, or with VME a 16-bit image with VIF for IF. */
static const struct op *op_pushf(struct icpu *c, const struct op *i)
{
    uint64_t flags;

    flags_materialize(c);
    flags = c->cpu.s.rflags & ~(uint64_t)(X86_FLAG_VM | X86_FLAG_RF);
    if (unlikely(v86_traps(c))) {
        if (!(c->cpu.s.cr4 & X86_CR4_VME) || BYTES != 2)
            interp_raise_code(c, i, X86_GP, 0);
        flags = (flags & ~(uint64_t)X86_FLAG_IF) | X86_FLAG_IOPL;
        if (c->cpu.s.rflags & X86_FLAG_VIF)
            flags |= X86_FLAG_IF;
    }
    stack_push(c, i, flags, BYTES);
    NEXT(c, i);
}

static uint64_t popf_mask(const struct icpu *c, unsigned bytes)
{
    uint64_t mask = X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT;
    unsigned iopl = (unsigned)(c->cpu.s.rflags & X86_FLAG_IOPL) >> 12;

    if (bytes > 2)
        mask |= X86_FLAG_AC | X86_FLAG_ID;
    if (x86_in_v86_mode(&c->cpu))
        return iopl == 3 ? mask | X86_FLAG_IF : mask;
    if (c->cpu.cpl == 0)
        mask |= X86_FLAG_IOPL;
    if (c->cpu.cpl <= iopl)
        mask |= X86_FLAG_IF;
    return mask;
}

static const struct op *op_popf(struct icpu *c, const struct op *i)
{
    struct x86_state *s = &c->cpu.s;
    uint64_t mask = popf_mask(c, BYTES), value, old;

    interp_sync(c, i);
    value = stack_peek(c, i, 0, BYTES);
    if (unlikely(v86_traps(c))) {
        if (!(s->cr4 & X86_CR4_VME) || BYTES != 2 || (value & X86_FLAG_TF) ||
            ((value & X86_FLAG_IF) && (s->rflags & X86_FLAG_VIP)))
            interp_raise_code(c, i, X86_GP, 0);
        s->rflags &= ~(uint64_t)X86_FLAG_VIF;
        s->rflags |= value & X86_FLAG_IF ? X86_FLAG_VIF : 0;
    }
    old = s->rflags;
    stack_move(c, BYTES);
    s->rflags = (old & ~mask & ~(uint64_t)X86_FLAG_RF) | (value & mask);
    return interp_flags_written(c, i, old);
}

/* ---- building ---- */

static unsigned segment_register(const struct insn *insn)
{
    switch (operand(insn, 0)->reg.value) {
    case ZYDIS_REGISTER_ES:
        return X86_ES;
    case ZYDIS_REGISTER_CS:
        return X86_CS;
    case ZYDIS_REGISTER_SS:
        return X86_SS;
    case ZYDIS_REGISTER_DS:
        return X86_DS;
    case ZYDIS_REGISTER_FS:
        return X86_FS;
    case ZYDIS_REGISTER_GS:
        return X86_GS;
    default:
        return X86_SEGMENT_COUNT;
    }
}

/* PUSH and POP have operand size 64 in 64-bit mode (16 with 66h); Zydis gives it as the width. */
static unsigned stack_bytes(const struct insn *insn)
{
    return insn->info.operand_width / 8;
}

static bool build_push(struct builder *w, const struct insn *insn, struct op *op)
{
    bool hot = w->code_size == X86_CODE_64 && stack_bytes(insn) == 8;

    op->extra = (uint8_t)stack_bytes(insn);
    if (is_mem(insn, 0)) {
        build_memory(w, insn, operand(insn, 0), op);
        op->run = op_push_m;
    } else if (is_imm(insn, 0)) {
        op->seg = X86_SS;
        op->imm = operand(insn, 0)->imm.value.s;
        op->run = hot ? op_pushi64 : op_pushi;
    } else if (segment_register(insn) != X86_SEGMENT_COUNT) {
        op->seg = X86_SS;
        op->imm = segment_register(insn);
        op->run = op_push_seg;
    } else {
        op->seg = X86_SS;
        op->src = reg_offset(operand(insn, 0)->reg.value);
        op->run = hot ? op_push64 : op_push;
        w->notes->pair = hot ? PAIR_PUSH64 : PAIR_NONE;
    }
    return true;
}

static bool build_pop(struct builder *w, const struct insn *insn, struct op *op)
{
    bool hot = w->code_size == X86_CODE_64 && stack_bytes(insn) == 8;

    op->extra = (uint8_t)stack_bytes(insn);
    if (is_mem(insn, 0)) {
        build_memory(w, insn, operand(insn, 0), op);
        op->run = op_pop_m;
    } else if (segment_register(insn) != X86_SEGMENT_COUNT) {
        op->seg = X86_SS;
        op->imm = segment_register(insn);
        op->run = op_pop_seg;
        if (op->imm == X86_SS)
            w->not_last = true;
        /* DS and ES decide nothing about decoding; SS may change the stack size: handlers ask. */
    } else {
        op->seg = X86_SS;
        op->dst = reg_offset(operand(insn, 0)->reg.value);
        op->run = hot ? op_pop64 : op_pop;
        w->notes->pair = hot ? PAIR_POP64 : PAIR_NONE;
    }
    return true;
}

static bool build_sized(struct builder *w, const struct insn *insn, struct op *op, op_fn *run)
{
    (void)w;
    op->seg = X86_SS;
    op->extra = (uint8_t)stack_bytes(insn);
    op->run = run;
    return true;
}

bool build_stack(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return build_push(w, insn, op);
    case ZYDIS_MNEMONIC_POP:
        return build_pop(w, insn, op);
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        return build_sized(w, insn, op, op_pusha);
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        return build_sized(w, insn, op, op_popa);
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        return build_sized(w, insn, op, op_pushf);
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        w->ends = true; /* IF, TF, AC and so on: go on through the run loop if they changed */
        return build_sized(w, insn, op, op_popf);
    case ZYDIS_MNEMONIC_ENTER:
        op->imm = (int64_t)operand(insn, 0)->imm.value.u;
        op->disp = (int64_t)operand(insn, 1)->imm.value.u;
        return build_sized(w, insn, op, op_enter);
    case ZYDIS_MNEMONIC_LEAVE:
        return build_sized(w, insn, op,
                           w->code_size == X86_CODE_64 && stack_bytes(insn) == 8 ? op_leave64
                                                                                 : op_leave);
    default:
        return false;
    }
}
