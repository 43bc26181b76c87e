/*
 * shift.c - SHL SHR SAR ROL ROR RCL RCR, SHLD SHRD, RORX SARX SHLX SHRX
 *
 * Counts are masked to 5 bits (6 for 64-bit operands); a masked count of 0 changes no flag. OF is
 * defined for a count of 1 only; for others it is what the same formula gives (SDM vol. 2).
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/operands.h"
#include "x86/features.h"

#define COUNT_MASK(B) (B == 64 ? 63u : 31u)

/* Result and flags of a shift or rotate by n, 1 <= n <= COUNT_MASK. F: compute flags. */
#define SHIFT_FLAGS(S, r, carry, overflow)                                                         \
    do {                                                                                           \
        c->cc_kind = CC_SHIFT;                                                                     \
        c->cc_result = (uint64_t)(int64_t)(S)(r);                                                  \
        c->cc_a = ((carry) ? X86_FLAG_CF : 0) | ((overflow) ? X86_FLAG_OF : 0);                    \
    } while (0)
#define ROTATE_FLAGS(carry, overflow)                                                              \
    flags_replace(c, X86_FLAG_CF | X86_FLAG_OF,                                                    \
                  ((carry) ? X86_FLAG_CF : 0) | ((overflow) ? X86_FLAG_OF : 0))

#define DEFINE_SHIFTS(B)                                                                           \
    static inline uint##B##_t shl##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        const uint##B##_t r = (uint##B##_t)(B < 32 && n >= B ? 0 : (uint64_t)a << n);              \
        if (flags) {                                                                               \
            const bool cf = n <= B && (a >> (B - n) & 1);                                          \
            SHIFT_FLAGS(int##B##_t, r, cf, (r >> (B - 1)) != cf);                                  \
        }                                                                                          \
        return r;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t shr##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        const uint##B##_t r = (uint##B##_t)((uint64_t)a >> n);                                     \
        if (flags)                                                                                 \
            SHIFT_FLAGS(int##B##_t, r, (uint64_t)a >> (n - 1) & 1, a >> (B - 1));                  \
        return r;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t sar##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        const int64_t wide = (int##B##_t)a;                                                        \
        const uint##B##_t r = (uint##B##_t)(wide >> n);                                            \
        if (flags)                                                                                 \
            SHIFT_FLAGS(int##B##_t, r, wide >> (n - 1) & 1, 0);                                    \
        return r;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t rol##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        const unsigned m = n & (B - 1);                                                            \
        const uint##B##_t r = (uint##B##_t)(a << m | (uint64_t)a >> ((B - m) & (B - 1)));          \
        if (flags)                                                                                 \
            ROTATE_FLAGS(r & 1, (r >> (B - 1)) != (r & 1));                                        \
        return r;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t ror##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        const unsigned m = n & (B - 1);                                                            \
        const uint##B##_t r =                                                                      \
            (uint##B##_t)((uint64_t)a >> m | (uint64_t)a << ((B - m) & (B - 1)));                  \
        if (flags)                                                                                 \
            ROTATE_FLAGS(r >> (B - 1), (r >> (B - 1)) != (r >> (B - 2) & 1));                      \
        return r;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t rcl##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        bool cf = flag_cf(c);                                                                      \
        (void)flags;                                                                               \
        for (n = B < 32 ? n % (B + 1) : n; n; n--) {                                               \
            const bool out = a >> (B - 1);                                                         \
            a = (uint##B##_t)(a << 1 | cf);                                                        \
            cf = out;                                                                              \
        }                                                                                          \
        ROTATE_FLAGS(cf, (a >> (B - 1)) != cf);                                                    \
        return a;                                                                                  \
    }                                                                                              \
    static inline uint##B##_t rcr##B(struct icpu *c, uint##B##_t a, unsigned n, bool flags)        \
    {                                                                                              \
        bool cf = flag_cf(c);                                                                      \
        (void)flags;                                                                               \
        for (n = B < 32 ? n % (B + 1) : n; n; n--) {                                               \
            const bool out = a & 1;                                                                \
            a = (uint##B##_t)(a >> 1 | (uint64_t)cf << (B - 1));                                   \
            cf = out;                                                                              \
        }                                                                                          \
        ROTATE_FLAGS(cf, (a >> (B - 1)) != (a >> (B - 2) & 1));                                    \
        return a;                                                                                  \
    }
DEFINE_SHIFTS(8)
DEFINE_SHIFTS(16)
DEFINE_SHIFTS(32)
DEFINE_SHIFTS(64)

/* Register by immediate (count not 0), with and without flags; register by CL; memory by either. */
#define SHIFT_FORMS(name, B)                                                                       \
    static const struct op *op_##name##_ri##B##_1(struct icpu *c, const struct op *i)              \
    {                                                                                              \
        SET_REG##B(i->dst, name##B(c, REG(c, i->dst, uint##B##_t), (unsigned)i->imm, true));       \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_##name##_ri##B##_0(struct icpu *c, const struct op *i)              \
    {                                                                                              \
        SET_REG##B(i->dst, name##B(c, REG(c, i->dst, uint##B##_t), (unsigned)i->imm, false));      \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_##name##_rc##B(struct icpu *c, const struct op *i)                  \
    {                                                                                              \
        const unsigned n = c->cpu.s.gpr[X86_RCX] & COUNT_MASK(B);                                  \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t);                                         \
        SET_REG##B(i->dst, n ? name##B(c, a, n, true) : a);                                        \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_##name##_m##B(struct icpu *c, const struct op *i)                   \
    {                                                                                              \
        const uint64_t linear = ea(c, i, B / 8, X86_ACCESS_WRITE);                                 \
        const unsigned n =                                                                         \
            (unsigned)(i->extra & 1 ? c->cpu.s.gpr[X86_RCX] : (uint64_t)i->imm) & COUNT_MASK(B);   \
        void *p = rmw_pointer(c, linear, B / 8);                                                   \
        uint##B##_t a;                                                                             \
        if (likely(p)) {                                                                           \
            a = ram_load##B(p);                                                                    \
            ram_store##B(p, n ? name##B(c, a, n, true) : a);                                       \
        } else {                                                                                   \
            a = (uint##B##_t)slow_load_for_write(c, i, linear, B / 8);                             \
            slow_store(c, i, linear, n ? name##B(c, a, n, true) : a, B / 8);                       \
        }                                                                                          \
        NEXT(c, i);                                                                                \
    }
#define SHIFT(name)                                                                                \
    SHIFT_FORMS(name, 8) SHIFT_FORMS(name, 16) SHIFT_FORMS(name, 32) SHIFT_FORMS(name, 64)
/* clang-format off */
SHIFT(shl) SHIFT(shr) SHIFT(sar) SHIFT(rol) SHIFT(ror) SHIFT(rcl) SHIFT(rcr)
    /* clang-format on */

    struct shift_row {
    op_fn *ri[2], *rc, *m;
};
#define SHIFT_ROW(name, B)                                                                         \
    {                                                                                              \
        {op_##name##_ri##B##_0, op_##name##_ri##B##_1}, op_##name##_rc##B, op_##name##_m##B        \
    }
#define SHIFT_ROWS(name)                                                                           \
    {                                                                                              \
        SHIFT_ROW(name, 8), SHIFT_ROW(name, 16), SHIFT_ROW(name, 32), SHIFT_ROW(name, 64)          \
    }
enum shift { SHIFT_SHL, SHIFT_SHR, SHIFT_SAR, SHIFT_ROL, SHIFT_ROR, SHIFT_RCL, SHIFT_RCR };
static const struct shift_row shift_rows[7][4] = {SHIFT_ROWS(shl), SHIFT_ROWS(shr), SHIFT_ROWS(sar),
                                                  SHIFT_ROWS(rol), SHIFT_ROWS(ror), SHIFT_ROWS(rcl),
                                                  SHIFT_ROWS(rcr)};

static const struct op *op_shift_none(struct icpu *c, const struct op *i)
{
    if (i->extra == 4) /* a 32-bit register is written, and so zero-extended, all the same */
        SET_REG32(i->dst, REG(c, i->dst, uint32_t));
    NEXT(c, i);
}

static bool build_one_shift(struct builder *w, const struct insn *insn, struct op *op,
                            enum shift kind)
{
    unsigned bits = operand(insn, 0)->size;
    const struct shift_row *row = &shift_rows[kind][size_index(bits)];
    bool by_cl = is_reg(insn, 1);

    if (is_imm(insn, 1))
        op->imm = operand(insn, 1)->imm.value.u & (bits == 64 ? 63 : 31);
    if (build_memory_any(w, insn, op)) {
        op->extra = by_cl;
        op->run = row->m;
        return true;
    }
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    w->notes->cannot_fault = true;
    if (by_cl) {
        op->run = row->rc;
    } else if (op->imm == 0) {
        op->extra = (uint8_t)(bits / 8);
        op->run = op_shift_none;
    } else {
        op->run = row->ri[1];
        if (kind >= SHIFT_RCL)
            return true;
        w->notes->quiet = row->ri[0];
        if (bits == 32 && kind == SHIFT_ROR)
            w->notes->pair = PAIR_ROR32;
        else if (bits >= 32 && kind <= SHIFT_SHR)
            w->notes->pair = kind == SHIFT_SHL ? (bits == 64 ? PAIR_SHL64 : PAIR_SHL32)
                                               : (bits == 64 ? PAIR_SHR64 : PAIR_SHR32);
        w->notes->flags_killed = kind >= SHIFT_ROL ? X86_FLAG_CF | X86_FLAG_OF : X86_FLAGS_STATUS;
        w->notes->flags_used = kind >= SHIFT_ROL ? X86_FLAGS_STATUS : 0;
    }
    return true;
}

/* ---- SHLD, SHRD ---- */

/* 16-bit operands by more than 16: undefined; as if the source followed the destination twice. */
static uint64_t double_shift(struct icpu *c, uint64_t a, uint64_t b, unsigned n, unsigned bits,
                             bool left)
{
    uint64_t mask = bits == 64 ? ~0ull : (1ull << bits) - 1, r;
    bool cf;

    if (bits == 16) {
        uint64_t chain = a << 32 | b << 16 | a;

        if (left) {
            r = chain >> (32 - n);
            cf = chain >> (48 - n) & 1;
        } else {
            r = chain >> n;
            cf = chain >> (n - 1) & 1;
        }
    } else if (left) {
        r = a << n | b >> (bits - n);
        cf = a >> (bits - n) & 1;
    } else {
        r = a >> n | b << (bits - n);
        cf = a >> (n - 1) & 1;
    }
    r &= mask;
    c->cc_kind = CC_SHIFT;
    c->cc_result = r << (64 - bits);
    c->cc_result = (uint64_t)((int64_t)c->cc_result >> (64 - bits));
    c->cc_a = (cf ? X86_FLAG_CF : 0) | (((r ^ a) >> (bits - 1) & 1) ? X86_FLAG_OF : 0);
    return r;
}

/* extra: bit 0 count in CL, bit 1 left, bit 2 memory; imm: count, and the width in bits 8-15 */
static const struct op *op_double_shift(struct icpu *c, const struct op *i)
{
    unsigned bits = (unsigned)i->imm >> 8, bytes = bits / 8;
    unsigned n = (unsigned)(i->extra & 1 ? c->cpu.s.gpr[X86_RCX] : (uint64_t)i->imm) &
                 (bits == 64 ? 63 : 31);
    bool left = i->extra & 2, memory = i->extra & 4;
    uint64_t linear = 0, a;

    if (memory) {
        linear = ea(c, i, bytes, X86_ACCESS_WRITE);
        interp_probe_write(c, i, linear, bytes);
        a = load_sized(c, i, linear, bytes);
    } else {
        a = reg_get(c, i->dst, bytes);
    }
    if (n)
        a = double_shift(c, a, reg_get(c, i->src, bytes), n, bits, left);
    if (memory)
        store_sized(c, i, linear, a, bytes);
    else
        reg_set(c, i->dst, a, bytes);
    NEXT(c, i);
}

static bool build_double(struct builder *w, const struct insn *insn, struct op *op, bool left)
{
    unsigned bits = operand(insn, 0)->size;

    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->imm = bits << 8 | (is_imm(insn, 2) ? operand(insn, 2)->imm.value.u & 0xff : 0);
    op->extra = (is_reg(insn, 2) ? 1 : 0) | (left ? 2 : 0);
    if (build_memory_any(w, insn, op))
        op->extra |= 4;
    else
        op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->run = op_double_shift;
    return true;
}

/* ---- BMI2: no flags, count from a register or immediate ---- */

enum flagless { FLAGLESS_SARX, FLAGLESS_SHLX, FLAGLESS_SHRX, FLAGLESS_RORX };

static uint64_t flagless_shift(enum flagless kind, uint64_t a, unsigned n, unsigned bits)
{
    n &= bits - 1;
    switch (kind) {
    case FLAGLESS_SARX:
        return bits == 64 ? (uint64_t)((int64_t)a >> n) : (uint64_t)((int32_t)a >> n);
    case FLAGLESS_SHLX:
        return a << n;
    case FLAGLESS_SHRX:
        return a >> n;
    default:
        return n == 0 ? a : a >> n | a << (bits - n);
    }
}

/* extra: bits 0-1 kind, bit 2 memory source, bit 3 64 bits, bit 4 count in imm, else its register
 */
static const struct op *op_flagless(struct icpu *c, const struct op *i)
{
    unsigned bytes = i->extra & 8 ? 8 : 4;
    uint64_t a = i->extra & 4 ? load_sized(c, i, ea(c, i, bytes, X86_ACCESS_READ), bytes)
                              : reg_get(c, i->src, bytes);
    unsigned n = (unsigned)(i->extra & 16 ? (uint64_t)i->imm : reg_get(c, (uint16_t)i->imm, bytes));

    reg_set(c, i->dst, flagless_shift((enum flagless)(i->extra & 3), a, n, bytes * 8), bytes);
    NEXT(c, i);
}

static bool build_flagless(struct builder *w, const struct insn *insn, struct op *op,
                           enum flagless kind)
{
    if (!cpu_model_has(w->c->cpu.model, X86_FEATURE_BMI2))
        return false;
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->extra = (uint8_t)(kind | (operand(insn, 0)->size == 64 ? 8 : 0));
    if (is_imm(insn, 2)) {
        op->extra |= 16;
        op->imm = operand(insn, 2)->imm.value.s;
    } else {
        op->imm = reg_offset(operand(insn, 2)->reg.value);
    }
    w->notes->flags_used = 0;
    if (build_memory_any(w, insn, op)) {
        op->extra |= 4;
    } else {
        op->src = reg_offset(operand(insn, 1)->reg.value);
        w->notes->cannot_fault = true;
    }
    op->run = op_flagless;
    return true;
}

bool build_shift(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
        return build_one_shift(w, insn, op, SHIFT_SHL);
    case ZYDIS_MNEMONIC_SHR:
        return build_one_shift(w, insn, op, SHIFT_SHR);
    case ZYDIS_MNEMONIC_SAR:
        return build_one_shift(w, insn, op, SHIFT_SAR);
    case ZYDIS_MNEMONIC_ROL:
        return build_one_shift(w, insn, op, SHIFT_ROL);
    case ZYDIS_MNEMONIC_ROR:
        return build_one_shift(w, insn, op, SHIFT_ROR);
    case ZYDIS_MNEMONIC_RCL:
        return build_one_shift(w, insn, op, SHIFT_RCL);
    case ZYDIS_MNEMONIC_RCR:
        return build_one_shift(w, insn, op, SHIFT_RCR);
    case ZYDIS_MNEMONIC_SHLD:
        return build_double(w, insn, op, true);
    case ZYDIS_MNEMONIC_SHRD:
        return build_double(w, insn, op, false);
    case ZYDIS_MNEMONIC_SARX:
        return build_flagless(w, insn, op, FLAGLESS_SARX);
    case ZYDIS_MNEMONIC_SHLX:
        return build_flagless(w, insn, op, FLAGLESS_SHLX);
    case ZYDIS_MNEMONIC_SHRX:
        return build_flagless(w, insn, op, FLAGLESS_SHRX);
    case ZYDIS_MNEMONIC_RORX:
        return build_flagless(w, insn, op, FLAGLESS_RORX);
    default:
        return false;
    }
}
