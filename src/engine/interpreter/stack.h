/*
 * stack.h - push and pop for all stack and operand sizes
 *
 * rSP is changed last, so that a fault leaves it as it was.
 */
#ifndef ENGINE_INTERPRETER_STACK_H
#define ENGINE_INTERPRETER_STACK_H

#include "engine/interpreter/operands.h"

static inline uint64_t *stack_pointer(struct icpu *c)
{
    return &c->cpu.s.gpr[X86_RSP];
}

/* rSP + delta as the stack size wraps it, and written back with the upper bits kept. */
static inline uint64_t stack_at(struct icpu *c, int64_t delta)
{
    return (*stack_pointer(c) + (uint64_t)delta) & c->stack_mask;
}
static inline void stack_move(struct icpu *c, int64_t delta)
{
    uint64_t *rsp = stack_pointer(c), moved = *rsp + (uint64_t)delta;

    *rsp = c->stack_mask == 0xffffffff ? (uint32_t)moved
                                       : (*rsp & ~c->stack_mask) | (moved & c->stack_mask);
}

static inline uint64_t stack_linear(struct icpu *c, const struct op *i, uint64_t offset,
                                    unsigned bytes, unsigned access)
{
    if (likely(c->code_size == X86_CODE_64) ||
        (likely(c->mode_key & MODE_FLAT_DATA) && likely(offset <= FLAT32_END - bytes)))
        return offset;
    return interp_segment_linear(c, i, X86_SS, offset, bytes, access);
}

static inline void stack_push(struct icpu *c, const struct op *i, uint64_t value, unsigned bytes)
{
    uint64_t linear = stack_linear(c, i, stack_at(c, -(int64_t)bytes), bytes, X86_ACCESS_WRITE);

    store_sized(c, i, linear, value, bytes);
    stack_move(c, -(int64_t)bytes);
}

/* The value at rSP + skip; the caller moves rSP when nothing can fault any more. */
static inline uint64_t stack_peek(struct icpu *c, const struct op *i, int64_t skip, unsigned bytes)
{
    return load_sized(c, i, stack_linear(c, i, stack_at(c, skip), bytes, X86_ACCESS_READ), bytes);
}

#endif
