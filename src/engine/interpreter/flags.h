/*
 * flags.h - lazy arithmetic flags
 *
 * An ALU operation stores its operands and result, sign-extended to 64 bits, and
 * its kind; a flag is computed when somebody reads it. Because of the sign extension
 * the operand size need not be stored: the sign is bit 63, carry and overflow come
 * from the carry chain's last bit, which sign extension repeats up to bit 63.
 */
#ifndef ENGINE_INTERPRETER_FLAGS_H
#define ENGINE_INTERPRETER_FLAGS_H

#include "engine/interpreter/interpreter.h"

static inline void cc_set(struct icpu *c, enum cc_kind kind, int64_t result, int64_t a, int64_t b)
{
    c->cc_kind = kind;
    c->cc_result = (uint64_t)result;
    c->cc_a = (uint64_t)a;
    c->cc_b = (uint64_t)b;
}

static inline void cc_set_logic(struct icpu *c, int64_t result)
{
    c->cc_kind = CC_LOGIC;
    c->cc_result = (uint64_t)result;
}

/* Carries out of each bit of a + b (+ carry) = r, and borrows of a - b (- borrow) = r. */
static inline uint64_t carries(uint64_t a, uint64_t b, uint64_t r)
{
    return (a & b) | ((a | b) & ~r);
}
static inline uint64_t borrows(uint64_t a, uint64_t b, uint64_t r)
{
    return (~a & b) | ((~a | b) & r);
}

static inline bool flag_cf(const struct icpu *c)
{
    switch ((enum cc_kind)c->cc_kind) {
    case CC_ADD:
        return carries(c->cc_a, c->cc_b, c->cc_result) >> 63;
    case CC_SUB:
        return borrows(c->cc_a, c->cc_b, c->cc_result) >> 63;
    case CC_LOGIC:
        return false;
    case CC_INC:
    case CC_DEC:
        return c->cc_carry;
    case CC_SHIFT:
        return c->cc_a & X86_FLAG_CF;
    case CC_RFLAGS:
        break;
    }
    return c->cpu.s.rflags & X86_FLAG_CF;
}

static inline bool flag_of(const struct icpu *c)
{
    switch ((enum cc_kind)c->cc_kind) {
    case CC_ADD:
    case CC_INC:
        return ((c->cc_result ^ c->cc_a) & (c->cc_result ^ c->cc_b)) >> 63;
    case CC_SUB:
    case CC_DEC:
        return ((c->cc_a ^ c->cc_b) & (c->cc_a ^ c->cc_result)) >> 63;
    case CC_LOGIC:
        return false;
    case CC_SHIFT:
        return c->cc_a & X86_FLAG_OF;
    case CC_RFLAGS:
        break;
    }
    return c->cpu.s.rflags & X86_FLAG_OF;
}

static inline bool flag_af(const struct icpu *c)
{
    switch ((enum cc_kind)c->cc_kind) {
    case CC_ADD:
    case CC_SUB:
    case CC_INC:
    case CC_DEC:
        return (c->cc_a ^ c->cc_b ^ c->cc_result) & 0x10;
    case CC_LOGIC:
    case CC_SHIFT:
        return false;
    case CC_RFLAGS:
        break;
    }
    return c->cpu.s.rflags & X86_FLAG_AF;
}

static inline bool flag_zf(const struct icpu *c)
{
    return c->cc_kind == CC_RFLAGS ? !!(c->cpu.s.rflags & X86_FLAG_ZF) : c->cc_result == 0;
}
static inline bool flag_sf(const struct icpu *c)
{
    return c->cc_kind == CC_RFLAGS ? !!(c->cpu.s.rflags & X86_FLAG_SF) : c->cc_result >> 63;
}
static inline bool parity_even(uint8_t value)
{
    return !(0x6996 >> ((value ^ value >> 4) & 15) & 1);
}
static inline bool flag_pf(const struct icpu *c)
{
    return c->cc_kind == CC_RFLAGS ? !!(c->cpu.s.rflags & X86_FLAG_PF)
                                   : parity_even((uint8_t)c->cc_result);
}

/* Condition codes in encoding order: O B Z BE S P L LE, odd ones negated (SDM vol. 1, table B-1).
 */
static inline bool condition(const struct icpu *c, unsigned code)
{
    bool holds;

    switch (code >> 1) {
    case 0:
        holds = flag_of(c);
        break;
    case 1:
        holds = flag_cf(c);
        break;
    case 2:
        holds = flag_zf(c);
        break;
    case 3:
        holds = flag_cf(c) || flag_zf(c);
        break;
    case 4:
        holds = flag_sf(c);
        break;
    case 5:
        holds = flag_pf(c);
        break;
    case 6:
        holds = flag_sf(c) != flag_of(c);
        break;
    default:
        holds = flag_zf(c) || flag_sf(c) != flag_of(c);
        break;
    }
    return holds != (bool)(code & 1);
}

/* Replace the flags in mask; the others keep their values. */
static inline void flags_replace(struct icpu *c, uint64_t mask, uint64_t value)
{
    flags_materialize(c);
    c->cpu.s.rflags = (c->cpu.s.rflags & ~mask) | (value & mask);
}

#endif
