/*
 * muldiv.c - MUL, IMUL, DIV, IDIV, MULX
 *
 * After a multiplication SF, ZF, AF and PF are undefined; CF and OF say whether the
 * upper half is significant (SDM vol. 2).
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/operands.h"
#include "x86/features.h"

typedef unsigned __int128 uint128;
typedef __int128 int128;

#define RAX REG_OFFSET(X86_RAX)
#define RDX REG_OFFSET(X86_RDX)

static void multiply_flags(struct icpu *c, int64_t low, bool significant)
{
    c->cc_kind = CC_SHIFT;
    c->cc_result = (uint64_t)low;
    c->cc_a = significant ? X86_FLAG_CF | X86_FLAG_OF : 0;
}

/* ---- IMUL with two or three operands ---- */

#define IMUL(B, W)                                                                                 \
    static void imul##B(struct icpu *c, const struct op *i, uint##B##_t a, uint##B##_t b)          \
    {                                                                                              \
        const W wide = (W)(int##B##_t)a * (int##B##_t)b;                                           \
        SET_REG##B(i->dst, (uint##B##_t)wide);                                                     \
        multiply_flags(c, (int##B##_t)wide, wide != (int##B##_t)wide);                             \
    }                                                                                              \
    static const struct op *op_imul_rr##B(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        imul##B(c, i, REG(c, i->dst, uint##B##_t), REG(c, i->src, uint##B##_t));                   \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_imul_rr_quiet##B(struct icpu *c, const struct op *i)                \
    {                                                                                              \
        SET_REG##B(i->dst, (uint##B##_t)((uint64_t)REG(c, i->dst, uint##B##_t) *                   \
                                         REG(c, i->src, uint##B##_t)));                            \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_imul_rm##B(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        imul##B(c, i, load##B(c, i, ea(c, i, B / 8, X86_ACCESS_READ)),                             \
                REG(c, i->dst, uint##B##_t));                                                      \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_imul_rri##B(struct icpu *c, const struct op *i)                     \
    {                                                                                              \
        imul##B(c, i, REG(c, i->src, uint##B##_t), (uint##B##_t)i->imm);                           \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_imul_rri_quiet##B(struct icpu *c, const struct op *i)               \
    {                                                                                              \
        SET_REG##B(i->dst,                                                                         \
                   (uint##B##_t)((uint64_t)REG(c, i->src, uint##B##_t) * (uint64_t)i->imm));       \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_imul_rmi##B(struct icpu *c, const struct op *i)                     \
    {                                                                                              \
        imul##B(c, i, load##B(c, i, ea(c, i, B / 8, X86_ACCESS_READ)), (uint##B##_t)i->imm);       \
        NEXT(c, i);                                                                                \
    }
IMUL(16, int32_t)
IMUL(32, int64_t)
IMUL(64, int128)
#define IMUL_TABLE(name)                                                                           \
    {                                                                                              \
        NULL, name##16, name##32, name##64                                                         \
    }
static op_fn *const imul_rr[4] = IMUL_TABLE(op_imul_rr), *const imul_rm[4] = IMUL_TABLE(op_imul_rm),
                    *const imul_rri[4] = IMUL_TABLE(op_imul_rri),
                    *const imul_rmi[4] = IMUL_TABLE(op_imul_rmi),
                    *const imul_rr_quiet[4] = IMUL_TABLE(op_imul_rr_quiet),
                    *const imul_rri_quiet[4] = IMUL_TABLE(op_imul_rri_quiet);

/* ---- one operand: the accumulator pair ---- */

/* The operand: a register, or memory if extra says so. */
#define SOURCE(B)                                                                                  \
    (i->extra ? load##B(c, i, ea(c, i, B / 8, X86_ACCESS_READ)) : REG(c, i->src, uint##B##_t))

/* Result halves: AX for bytes, else rAX and rDX. */
#define SET_PAIR8(lo, hi)  SET_REG16(RAX, (uint8_t)(lo) | (uint8_t)(hi) << 8)
#define SET_PAIR16(lo, hi) (SET_REG16(RAX, lo), SET_REG16(RDX, hi))
#define SET_PAIR32(lo, hi) (SET_REG32(RAX, lo), SET_REG32(RDX, hi))
#define SET_PAIR64(lo, hi) (SET_REG64(RAX, lo), SET_REG64(RDX, hi))
#define PAIR8              ((uint16_t)c->cpu.s.gpr[X86_RAX])
#define PAIR16             ((uint32_t)(uint16_t)c->cpu.s.gpr[X86_RDX] << 16 | (uint16_t)c->cpu.s.gpr[X86_RAX])
#define PAIR32             ((uint64_t)(uint32_t)c->cpu.s.gpr[X86_RDX] << 32 | (uint32_t)c->cpu.s.gpr[X86_RAX])
#define PAIR64             ((uint128)c->cpu.s.gpr[X86_RDX] << 64 | c->cpu.s.gpr[X86_RAX])

#define ONE_OPERAND(B, UW, SW)                                                                     \
    static const struct op *op_mul##B(struct icpu *c, const struct op *i)                          \
    {                                                                                              \
        const UW wide = (UW)SOURCE(B) * REG(c, RAX, uint##B##_t);                                  \
        SET_PAIR##B((uint##B##_t)wide, (uint##B##_t)(wide >> B));                                  \
        multiply_flags(c, (int##B##_t)wide, wide >> B != 0);                                       \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_imul##B(struct icpu *c, const struct op *i)                         \
    {                                                                                              \
        const SW wide = (SW)(int##B##_t)SOURCE(B) * (int##B##_t)REG(c, RAX, uint##B##_t);          \
        SET_PAIR##B((uint##B##_t)wide, (uint##B##_t)((UW)wide >> B));                              \
        multiply_flags(c, (int##B##_t)wide, wide != (int##B##_t)wide);                             \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_div##B(struct icpu *c, const struct op *i)                          \
    {                                                                                              \
        const uint##B##_t divisor = SOURCE(B);                                                     \
        const UW dividend = PAIR##B;                                                               \
        if (unlikely((uint##B##_t)(dividend >> B) >= divisor)) /* 0 included */                    \
            interp_raise(c, i, X86_DE);                                                            \
        SET_PAIR##B((uint##B##_t)(dividend / divisor), (uint##B##_t)(dividend % divisor));         \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_idiv##B(struct icpu *c, const struct op *i)                         \
    {                                                                                              \
        const int##B##_t divisor = (int##B##_t)SOURCE(B);                                          \
        const SW dividend = (SW)PAIR##B;                                                           \
        SW quotient;                                                                               \
        if (unlikely(divisor == 0 || (divisor == -1 && dividend == (SW)((UW)1 << (2 * B - 1)))))   \
            interp_raise(c, i, X86_DE);                                                            \
        quotient = dividend / divisor;                                                             \
        if (unlikely(quotient != (int##B##_t)quotient))                                            \
            interp_raise(c, i, X86_DE);                                                            \
        SET_PAIR##B((uint##B##_t)quotient, (uint##B##_t)(dividend % divisor));                     \
        NEXT(c, i);                                                                                \
    }
ONE_OPERAND(8, uint16_t, int16_t)
ONE_OPERAND(16, uint32_t, int32_t)
ONE_OPERAND(32, uint64_t, int64_t)
ONE_OPERAND(64, uint128, int128)
static op_fn *const mul[4] = BY_SIZE(op_mul), *const imul[4] = BY_SIZE(op_imul),
                    *const div_[4] = BY_SIZE(op_div), *const idiv[4] = BY_SIZE(op_idiv);

/* MULX: no flags; if both destinations are the same register, the upper half is what stays. */
static const struct op *op_mulx32(struct icpu *c, const struct op *i)
{
    const uint64_t wide = (uint64_t)SOURCE(32) * (uint32_t)c->cpu.s.gpr[X86_RDX];

    SET_REG32((uint16_t)i->imm, wide);
    SET_REG32(i->dst, wide >> 32);
    NEXT(c, i);
}
static const struct op *op_mulx64(struct icpu *c, const struct op *i)
{
    const uint128 wide = (uint128)SOURCE(64) * c->cpu.s.gpr[X86_RDX];

    SET_REG64((uint16_t)i->imm, (uint64_t)wide);
    SET_REG64(i->dst, (uint64_t)(wide >> 64));
    NEXT(c, i);
}

/* ---- building ---- */

static bool build_one_operand(struct builder *w, const struct insn *insn, struct op *op,
                              op_fn *const table[4])
{
    if (build_memory_any(w, insn, op))
        op->extra = 1;
    else
        op->src = reg_offset(operand(insn, 0)->reg.value);
    op->run = table[size_index(operand(insn, 0)->size)];
    return true;
}

static bool build_imul(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned size = size_index(operand(insn, 0)->size);
    bool three = insn->info.operand_count_visible == 3;

    if (insn->info.operand_count_visible == 1)
        return build_one_operand(w, insn, op, imul);
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    w->notes->flags_killed = X86_FLAGS_STATUS;
    w->notes->flags_used = 0;
    if (three)
        op->imm = operand(insn, 2)->imm.value.s;
    if (build_memory_any(w, insn, op)) {
        op->run = three ? imul_rmi[size] : imul_rm[size];
        return true;
    }
    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->run = three ? imul_rri[size] : imul_rr[size];
    w->notes->quiet = three ? imul_rri_quiet[size] : imul_rr_quiet[size];
    w->notes->cannot_fault = true;
    return true;
}

static bool build_mulx(struct builder *w, const struct insn *insn, struct op *op)
{
    if (!cpu_model_has(w->c->cpu.model, X86_FEATURE_BMI2))
        return false;
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->imm = reg_offset(operand(insn, 1)->reg.value);
    if (build_memory_any(w, insn, op))
        op->extra = 1;
    else
        op->src = reg_offset(operand(insn, 2)->reg.value);
    op->run = operand(insn, 0)->size == 64 ? op_mulx64 : op_mulx32;
    return true;
}

bool build_muldiv(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_MUL:
        return build_one_operand(w, insn, op, mul);
    case ZYDIS_MNEMONIC_IMUL:
        return build_imul(w, insn, op);
    case ZYDIS_MNEMONIC_DIV:
        return build_one_operand(w, insn, op, div_);
    case ZYDIS_MNEMONIC_IDIV:
        return build_one_operand(w, insn, op, idiv);
    case ZYDIS_MNEMONIC_MULX:
        return build_mulx(w, insn, op);
    default:
        return false;
    }
}
