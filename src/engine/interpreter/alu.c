/*
 * alu.c - ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT, XADD, CMPXCHG
 *
 * Each operation is written once, as a macro over a width, and instantiated for its operand
 * forms: register or memory destination, register or immediate source, three kinds of
 * effective address, with and without computing flags. A locked form is a compare-and-swap
 * loop on host memory. Naming: op_add_rm32_1 is "ADD r32, m32" with address kind EA_INDEX.
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/operands.h"

/* ---- operations: a, b -> r, and the flags of it. S is the signed type of the width. ---- */

#define DO_ADD(r)       (r = a + b)
#define CC_OF_ADD(S, r) cc_set(c, CC_ADD, (S)(r), (S)a, (S)b)
#define DO_ADC(r)       (r = a + b + carry)
#define CC_OF_ADC(S, r) cc_set(c, CC_ADD, (S)(r), (S)a, (S)b)
#define DO_SUB(r)       (r = a - b)
#define CC_OF_SUB(S, r) cc_set(c, CC_SUB, (S)(r), (S)a, (S)b)
#define DO_SBB(r)       (r = a - b - carry)
#define CC_OF_SBB(S, r) cc_set(c, CC_SUB, (S)(r), (S)a, (S)b)
#define DO_AND(r)       (r = a & b)
#define CC_OF_AND(S, r) cc_set_logic(c, (S)(r))
#define DO_OR(r)        (r = a | b)
#define CC_OF_OR(S, r)  cc_set_logic(c, (S)(r))
#define DO_XOR(r)       (r = a ^ b)
#define CC_OF_XOR(S, r) cc_set_logic(c, (S)(r))

#define CARRY_ADD
#define CARRY_SUB
#define CARRY_AND
#define CARRY_OR
#define CARRY_XOR
#define CARRY_ADC         const unsigned carry = flag_cf(c);
#define CARRY_SBB         const unsigned carry = flag_cf(c);

#define FLAGS_1(OP, S, r) CC_OF_##OP(S, r)
#define FLAGS_0(OP, S, r) ((void)0)

/* F: 1 with flags, 0 ("quiet") without */
#define RR(OP, name, B, F)                                                                         \
    static const struct op *op_##name##_rr##B##_##F(struct icpu *c, const struct op *i)            \
    {                                                                                              \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t), b = REG(c, i->src, uint##B##_t);        \
        CARRY_##OP uint##B##_t r;                                                                  \
        DO_##OP(r);                                                                                \
        FLAGS_##F(OP, int##B##_t, r);                                                              \
        SET_REG##B(i->dst, r);                                                                     \
        NEXT(c, i);                                                                                \
    }
#define RI(OP, name, B, F)                                                                         \
    static const struct op *op_##name##_ri##B##_##F(struct icpu *c, const struct op *i)            \
    {                                                                                              \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t), b = (uint##B##_t)i->imm;                \
        CARRY_##OP uint##B##_t r;                                                                  \
        DO_##OP(r);                                                                                \
        FLAGS_##F(OP, int##B##_t, r);                                                              \
        SET_REG##B(i->dst, r);                                                                     \
        NEXT(c, i);                                                                                \
    }
#define RM(OP, name, B, F, E)                                                                      \
    static const struct op *op_##name##_rm##B##_##F##E(struct icpu *c, const struct op *i)         \
    {                                                                                              \
        const uint##B##_t b = load##B(c, i, EA_##E(B / 8, X86_ACCESS_READ));                       \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t);                                         \
        CARRY_##OP uint##B##_t r;                                                                  \
        DO_##OP(r);                                                                                \
        FLAGS_##F(OP, int##B##_t, r);                                                              \
        SET_REG##B(i->dst, r);                                                                     \
        NEXT(c, i);                                                                                \
    }
/* Memory destination; SOURCE is the second operand. */
#define MODIFY(OP, fn, B, E, SOURCE)                                                               \
    static const struct op *fn(struct icpu *c, const struct op *i)                                 \
    {                                                                                              \
        const uint64_t linear = EA_##E(B / 8, X86_ACCESS_WRITE);                                   \
        void *p = rmw_pointer(c, linear, B / 8);                                                   \
        const uint##B##_t b = SOURCE;                                                              \
        CARRY_##OP uint##B##_t a, r;                                                               \
        if (likely(p)) {                                                                           \
            a = ram_load##B(p);                                                                    \
            DO_##OP(r);                                                                            \
            ram_store##B(p, r);                                                                    \
        } else {                                                                                   \
            a = (uint##B##_t)slow_load_for_write(c, i, linear, B / 8);                             \
            DO_##OP(r);                                                                            \
            slow_store(c, i, linear, r, B / 8);                                                    \
        }                                                                                          \
        CC_OF_##OP(int##B##_t, r);                                                                 \
        NEXT(c, i);                                                                                \
    }
/* LOCK: atomic on host memory. Page-crossing and device accesses take a lock of the machine. */
#define LOCKED(OP, fn, B, SOURCE)                                                                  \
    static const struct op *fn(struct icpu *c, const struct op *i)                                 \
    {                                                                                              \
        const uint64_t linear = ea(c, i, B / 8, X86_ACCESS_WRITE);                                 \
        void *p = rmw_pointer(c, linear, B / 8);                                                   \
        const uint##B##_t b = SOURCE;                                                              \
        CARRY_##OP uint##B##_t a, r;                                                               \
        if (likely(p)) {                                                                           \
            a = ram_atomic_load##B(p);                                                             \
            do {                                                                                   \
                DO_##OP(r);                                                                        \
            } while (!ram_atomic_swap##B(p, &a, r));                                               \
        } else {                                                                                   \
            do {                                                                                   \
                a = (uint##B##_t)slow_load_for_write(c, i, linear, B / 8);                         \
                DO_##OP(r);                                                                        \
            } while (!interp_compare_exchange(c, i, linear, a, r, B / 8));                         \
        }                                                                                          \
        CC_OF_##OP(int##B##_t, r);                                                                 \
        NEXT(c, i);                                                                                \
    }

/* clang-format off */
#define ALL_FORMS_B(OP, name, B)                                                                   \
    RR(OP, name, B, 1)                                                                             \
    RR(OP, name, B, 0)                                                                             \
    RI(OP, name, B, 1)                                                                             \
    RI(OP, name, B, 0)                                                                             \
    RM(OP, name, B, 1, 0) RM(OP, name, B, 1, 1) RM(OP, name, B, 1, 2) RM(OP, name, B, 0, 0)        \
        RM(OP, name, B, 0, 1) RM(OP, name, B, 0, 2)                                                \
            MODIFY(OP, op_##name##_mr##B##_0, B, 0, REG(c, i->src, uint##B##_t))                   \
                MODIFY(OP, op_##name##_mr##B##_1, B, 1, REG(c, i->src, uint##B##_t))               \
                    MODIFY(OP, op_##name##_mr##B##_2, B, 2, REG(c, i->src, uint##B##_t))           \
                        MODIFY(OP, op_##name##_mi##B##_0, B, 0, (uint##B##_t)i->imm)               \
                            MODIFY(OP, op_##name##_mi##B##_1, B, 1, (uint##B##_t)i->imm)           \
                                MODIFY(OP, op_##name##_mi##B##_2, B, 2, (uint##B##_t)i->imm)       \
                                    LOCKED(OP, op_##name##_lr##B, B, REG(c, i->src, uint##B##_t))  \
                                        LOCKED(OP, op_##name##_li##B, B, (uint##B##_t)i->imm)
#define ALL_FORMS(OP, name)                                                                        \
    ALL_FORMS_B(OP, name, 8)                                                                       \
    ALL_FORMS_B(OP, name, 16) ALL_FORMS_B(OP, name, 32) ALL_FORMS_B(OP, name, 64)

ALL_FORMS(ADD, add)
ALL_FORMS(ADC, adc)
ALL_FORMS(SUB, sub)
ALL_FORMS(SBB, sbb)
ALL_FORMS(AND, and)
ALL_FORMS(OR, or)
ALL_FORMS(XOR, xor)
/* clang-format on */

/* CMP and TEST write nothing. */
#define COMPARE_FORM(OP, fn, B, A, SOURCE)                                                         \
    static const struct op *fn(struct icpu *c, const struct op *i)                                 \
    {                                                                                              \
        const uint##B##_t a = A, b = SOURCE;                                                       \
        uint##B##_t r;                                                                             \
        DO_##OP(r);                                                                                \
        CC_OF_##OP(int##B##_t, r);                                                                 \
        NEXT(c, i);                                                                                \
    }
#define COMPARE_B(OP, name, B)                                                                     \
    COMPARE_FORM(OP, op_##name##_rr##B, B, REG(c, i->dst, uint##B##_t),                            \
                 REG(c, i->src, uint##B##_t))                                                      \
    COMPARE_FORM(OP, op_##name##_ri##B, B, REG(c, i->dst, uint##B##_t), (uint##B##_t)i->imm)       \
    COMPARE_MEMORY(OP, name, B, 0) COMPARE_MEMORY(OP, name, B, 1) COMPARE_MEMORY(OP, name, B, 2)
#define COMPARE_MEMORY(OP, name, B, E)                                                             \
    COMPARE_FORM(OP, op_##name##_rm##B##_##E, B, REG(c, i->dst, uint##B##_t),                      \
                 load##B(c, i, EA_##E(B / 8, X86_ACCESS_READ)))                                    \
    COMPARE_FORM(OP, op_##name##_mr##B##_##E, B, load##B(c, i, EA_##E(B / 8, X86_ACCESS_READ)),    \
                 REG(c, i->src, uint##B##_t))                                                      \
    COMPARE_FORM(OP, op_##name##_mi##B##_##E, B, load##B(c, i, EA_##E(B / 8, X86_ACCESS_READ)),    \
                 (uint##B##_t)i->imm)
#define COMPARE(OP, name)                                                                          \
    COMPARE_B(OP, name, 8) COMPARE_B(OP, name, 16) COMPARE_B(OP, name, 32) COMPARE_B(OP, name, 64)

COMPARE(SUB, cmp)
COMPARE(AND, test)

/* ---- CMP or TEST and the Jcc behind it in one op ---- */

/* cc in encoding order, computed from the operands without lazy flags. */
#define CMP_B   a < b
#define CMP_AE  a >= b
#define CMP_E   a == b
#define CMP_NE  a != b
#define CMP_BE  a <= b
#define CMP_A   a > b
#define CMP_S   r < 0
#define CMP_NS  r >= 0
#define CMP_L   sa < sb
#define CMP_GE  sa >= sb
#define CMP_LE  sa <= sb
#define CMP_G   sa > sb
#define TEST_E  r == 0
#define TEST_NE r != 0
#define TEST_S  r < 0
#define TEST_NS r >= 0
#define TEST_LE r <= 0
#define TEST_G  r > 0

#define FUSED(fn, OP, B, A, SOURCE, TAKEN)                                                         \
    static const struct op *fn(struct icpu *c, const struct op *i)                                 \
    {                                                                                              \
        const uint##B##_t a = A, b = SOURCE;                                                       \
        const int##B##_t sa = (int##B##_t)a, sb = (int##B##_t)b;                                   \
        int##B##_t r;                                                                              \
        (void)sa, (void)sb;                                                                        \
        DO_##OP(r);                                                                                \
        CC_OF_##OP(int##B##_t, r);                                                                 \
        if (TAKEN) {                                                                               \
            c->budget += (uint64_t)i[1].imm;                                                       \
            if (likely(i[1].link))                                                                 \
                GOTO(c, i[1].link);                                                                \
            return interp_branch(c, i + 1);                                                        \
        }                                                                                          \
        GOTO(c, i + 2);                                                                            \
    }
#define FUSED_FORMS(OP, name, B, cc, TAKEN)                                                        \
    FUSED(op_##name##_j##cc##_rr##B, OP, B, REG(c, i->dst, uint##B##_t),                           \
          REG(c, i->src, uint##B##_t), TAKEN)                                                      \
    FUSED(op_##name##_j##cc##_ri##B, OP, B, REG(c, i->dst, uint##B##_t), (uint##B##_t)i->imm,      \
          TAKEN)                                                                                   \
    FUSED(op_##name##_j##cc##_mr##B, OP, B, load##B(c, i, ea(c, i, B / 8, X86_ACCESS_READ)),       \
          REG(c, i->src, uint##B##_t), TAKEN)                                                      \
    FUSED(op_##name##_j##cc##_mi##B, OP, B, load##B(c, i, ea(c, i, B / 8, X86_ACCESS_READ)),       \
          (uint##B##_t)i->imm, TAKEN)
/* clang-format off */
#define FUSED_CMP(B)                                                                               \
    FUSED_FORMS(SUB, cmp, B, o, flag_of(c))                                                        \
    FUSED_FORMS(SUB, cmp, B, no, !flag_of(c))                                                      \
    FUSED_FORMS(SUB, cmp, B, b, CMP_B)                                                             \
    FUSED_FORMS(SUB, cmp, B, ae, CMP_AE)                                                           \
    FUSED_FORMS(SUB, cmp, B, e, CMP_E) FUSED_FORMS(SUB, cmp, B, ne, CMP_NE)                        \
        FUSED_FORMS(SUB, cmp, B, be, CMP_BE) FUSED_FORMS(SUB, cmp, B, a, CMP_A)                    \
            FUSED_FORMS(SUB, cmp, B, s, CMP_S) FUSED_FORMS(SUB, cmp, B, ns, CMP_NS)                \
                FUSED_FORMS(SUB, cmp, B, p, parity_even((uint8_t)r))                               \
                    FUSED_FORMS(SUB, cmp, B, np, !parity_even((uint8_t)r))                         \
                        FUSED_FORMS(SUB, cmp, B, l, CMP_L) FUSED_FORMS(SUB, cmp, B, ge, CMP_GE)    \
                            FUSED_FORMS(SUB, cmp, B, le, CMP_LE)                                   \
                                FUSED_FORMS(SUB, cmp, B, g, CMP_G)
/* After TEST: CF = OF = 0, so B never, AE always, BE is E, A is NE, L is S, GE is NS. */
#define FUSED_TEST(B)                                                                              \
    FUSED_FORMS(AND, test, B, e, TEST_E)                                                           \
    FUSED_FORMS(AND, test, B, ne, TEST_NE)                                                         \
    FUSED_FORMS(AND, test, B, s, TEST_S)                                                           \
    FUSED_FORMS(AND, test, B, ns, TEST_NS)                                                         \
    FUSED_FORMS(AND, test, B, p, parity_even((uint8_t)r))                                          \
        FUSED_FORMS(AND, test, B, np, !parity_even((uint8_t)r))                                    \
            FUSED_FORMS(AND, test, B, le, TEST_LE) FUSED_FORMS(AND, test, B, g, TEST_G)            \
                FUSED_FORMS(AND, test, B, never, false) FUSED_FORMS(AND, test, B, always, true)

FUSED_CMP(8)
FUSED_CMP(16)
FUSED_CMP(32)
FUSED_CMP(64)
FUSED_TEST(8) FUSED_TEST(16) FUSED_TEST(32) FUSED_TEST(64)
/* clang-format on */

#define FUSED_CMP_ROW(form)                                                                        \
    {                                                                                              \
        op_cmp_jo_##form, op_cmp_jno_##form, op_cmp_jb_##form, op_cmp_jae_##form,                  \
            op_cmp_je_##form, op_cmp_jne_##form, op_cmp_jbe_##form, op_cmp_ja_##form,              \
            op_cmp_js_##form, op_cmp_jns_##form, op_cmp_jp_##form, op_cmp_jnp_##form,              \
            op_cmp_jl_##form, op_cmp_jge_##form, op_cmp_jle_##form, op_cmp_jg_##form               \
    }
#define FUSED_TEST_ROW(form)                                                                       \
    {                                                                                              \
        op_test_jnever_##form, op_test_jalways_##form, op_test_jnever_##form,                      \
            op_test_jalways_##form, op_test_je_##form, op_test_jne_##form, op_test_je_##form,      \
            op_test_jne_##form, op_test_js_##form, op_test_jns_##form, op_test_jp_##form,          \
            op_test_jnp_##form, op_test_js_##form, op_test_jns_##form, op_test_jle_##form,         \
            op_test_jg_##form                                                                      \
    }
#define FUSED_TABLE(row, B)                                                                        \
    {                                                                                              \
        row(rr##B), row(ri##B), row(mr##B), row(mi##B)                                             \
    }

    enum fused_form {
        FUSED_RR,
        FUSED_RI,
        FUSED_MR,
        FUSED_MI,
        FUSED_FORM_COUNT
    };

static op_fn *const fused_cmp[4][FUSED_FORM_COUNT][16] = {
    FUSED_TABLE(FUSED_CMP_ROW, 8), FUSED_TABLE(FUSED_CMP_ROW, 16), FUSED_TABLE(FUSED_CMP_ROW, 32),
    FUSED_TABLE(FUSED_CMP_ROW, 64)};
static op_fn *const fused_test[4][FUSED_FORM_COUNT][16] = {
    FUSED_TABLE(FUSED_TEST_ROW, 8), FUSED_TABLE(FUSED_TEST_ROW, 16),
    FUSED_TABLE(FUSED_TEST_ROW, 32), FUSED_TABLE(FUSED_TEST_ROW, 64)};

/* ---- one operand: INC, DEC, NEG, NOT ---- */

#define DO_INC(r)       (r = a + 1)
#define CC_OF_INC(S, r) (c->cc_carry = carry, cc_set(c, CC_INC, (S)(r), (S)a, 1))
#define DO_DEC(r)       (r = a - 1)
#define CC_OF_DEC(S, r) (c->cc_carry = carry, cc_set(c, CC_DEC, (S)(r), (S)a, 1))
#define DO_NEG(r)       (r = -a)
#define CC_OF_NEG(S, r) cc_set(c, CC_SUB, (S)(r), 0, (S)a)
#define DO_NOT(r)       (r = ~a)
#define CC_OF_NOT(S, r) ((void)0)
#define CARRY_INC       const bool carry = flag_cf(c);
#define CARRY_DEC       const bool carry = flag_cf(c);
#define CARRY_NEG
#define CARRY_NOT

#define UNARY_REG(OP, name, B)                                                                     \
    static const struct op *op_##name##_r##B##_1(struct icpu *c, const struct op *i)               \
    {                                                                                              \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t);                                         \
        CARRY_##OP uint##B##_t r;                                                                  \
        DO_##OP(r);                                                                                \
        CC_OF_##OP(int##B##_t, r);                                                                 \
        SET_REG##B(i->dst, r);                                                                     \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_##name##_r##B##_0(struct icpu *c, const struct op *i)               \
    {                                                                                              \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t);                                         \
        uint##B##_t r;                                                                             \
        DO_##OP(r);                                                                                \
        SET_REG##B(i->dst, r);                                                                     \
        NEXT(c, i);                                                                                \
    }
#define UNARY_B(OP, name, B)                                                                       \
    UNARY_REG(OP, name, B)                                                                         \
    MODIFY(OP, op_##name##_m##B, B, 2, 0; (void)b)                                                 \
    LOCKED(OP, op_##name##_l##B, B, 0; (void)b)
#define UNARY(OP, name)                                                                            \
    UNARY_B(OP, name, 8) UNARY_B(OP, name, 16) UNARY_B(OP, name, 32) UNARY_B(OP, name, 64)

UNARY(INC, inc)
UNARY(DEC, dec)
UNARY(NEG, neg)
UNARY(NOT, not )

/* ---- XADD, CMPXCHG ---- */

#define XADD(B)                                                                                    \
    static const struct op *op_xadd_rr##B(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t), b = REG(c, i->src, uint##B##_t);        \
        const uint##B##_t r = (uint##B##_t)(a + b);                                                \
        SET_REG##B(i->src, a);                                                                     \
        SET_REG##B(i->dst, r);                                                                     \
        CC_OF_ADD(int##B##_t, r);                                                                  \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_xadd_mr##B(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        const uint64_t linear = ea(c, i, B / 8, X86_ACCESS_WRITE);                                 \
        void *p = rmw_pointer(c, linear, B / 8);                                                   \
        const uint##B##_t b = REG(c, i->src, uint##B##_t);                                         \
        uint##B##_t a, r;                                                                          \
        if (likely(p)) {                                                                           \
            a = ram_atomic_add##B(p, b);                                                           \
            r = (uint##B##_t)(a + b);                                                              \
        } else {                                                                                   \
            do {                                                                                   \
                a = (uint##B##_t)slow_load_for_write(c, i, linear, B / 8);                         \
                r = (uint##B##_t)(a + b);                                                          \
            } while (!interp_compare_exchange(c, i, linear, a, r, B / 8));                         \
        }                                                                                          \
        SET_REG##B(i->src, a);                                                                     \
        CC_OF_ADD(int##B##_t, r);                                                                  \
        NEXT(c, i);                                                                                \
    }
XADD(8)
XADD(16)
XADD(32)
XADD(64)

/*
 * The destination is always written, with its old value if it differs from the accumulator
 * (SDM vol. 2, CMPXCHG), so memory must be writable either way.
 */
#define CMPXCHG(B)                                                                                 \
    static const struct op *op_cmpxchg_rr##B(struct icpu *c, const struct op *i)                   \
    {                                                                                              \
        const uint##B##_t a = REG(c, REG_OFFSET(X86_RAX), uint##B##_t);                            \
        const uint##B##_t b = REG(c, i->dst, uint##B##_t);                                         \
        const uint##B##_t r = (uint##B##_t)(a - b);                                                \
        if (r == 0)                                                                                \
            SET_REG##B(i->dst, REG(c, i->src, uint##B##_t));                                       \
        else                                                                                       \
            SET_REG##B(REG_OFFSET(X86_RAX), b);                                                    \
        CC_OF_SUB(int##B##_t, r);                                                                  \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_cmpxchg_mr##B(struct icpu *c, const struct op *i)                   \
    {                                                                                              \
        const uint64_t linear = ea(c, i, B / 8, X86_ACCESS_WRITE);                                 \
        void *p = rmw_pointer(c, linear, B / 8);                                                   \
        const uint##B##_t a = REG(c, REG_OFFSET(X86_RAX), uint##B##_t);                            \
        const uint##B##_t value = REG(c, i->src, uint##B##_t);                                     \
        uint##B##_t b = a;                                                                         \
        if (likely(p)) {                                                                           \
            ram_atomic_swap##B(p, &b, value);                                                      \
        } else {                                                                                   \
            do {                                                                                   \
                b = (uint##B##_t)slow_load_for_write(c, i, linear, B / 8);                         \
            } while (!interp_compare_exchange(c, i, linear, b, b == a ? value : b, B / 8));        \
        }                                                                                          \
        const uint##B##_t r = (uint##B##_t)(a - b);                                                \
        if (r != 0)                                                                                \
            SET_REG##B(REG_OFFSET(X86_RAX), b);                                                    \
        CC_OF_SUB(int##B##_t, r);                                                                  \
        NEXT(c, i);                                                                                \
    }
CMPXCHG(8)
CMPXCHG(16)
CMPXCHG(32)
CMPXCHG(64)

static const struct op *op_cmpxchg8b(struct icpu *c, const struct op *i)
{
    const uint64_t linear = ea(c, i, 8, X86_ACCESS_WRITE);
    void *p = rmw_pointer(c, linear, 8);
    uint64_t *gpr = c->cpu.s.gpr;
    const uint64_t expected = gpr[X86_RDX] << 32 | (uint32_t)gpr[X86_RAX];
    const uint64_t value = gpr[X86_RCX] << 32 | (uint32_t)gpr[X86_RBX];
    uint64_t old = expected;

    if (likely(p)) {
        ram_atomic_swap64(p, &old, value);
    } else {
        do {
            old = slow_load_for_write(c, i, linear, 8);
        } while (!interp_compare_exchange(c, i, linear, old, old == expected ? value : old, 8));
    }
    flags_replace(c, X86_FLAG_ZF, old == expected ? X86_FLAG_ZF : 0);
    if (old != expected) {
        gpr[X86_RAX] = (uint32_t)old;
        gpr[X86_RDX] = old >> 32;
    }
    NEXT(c, i);
}

static bool host_cmpxchg16(void *p, const uint64_t expected[2], const uint64_t value[2],
                           uint64_t out_old[2])
{
    bool equal;

    out_old[0] = expected[0];
    out_old[1] = expected[1];
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(*(char(*)[16])p), "+a"(out_old[0]), "+d"(out_old[1])
                     : "b"(value[0]), "c"(value[1])
                     : "memory");
    return equal;
}

static const struct op *op_cmpxchg16b(struct icpu *c, const struct op *i)
{
    const uint64_t linear = ea(c, i, 16, X86_ACCESS_WRITE);
    uint64_t *gpr = c->cpu.s.gpr, old[2];
    const uint64_t expected[2] = {gpr[X86_RAX], gpr[X86_RDX]};
    const uint64_t value[2] = {gpr[X86_RBX], gpr[X86_RCX]};
    bool equal;
    void *p;

    if (linear & 15)
        interp_raise_code(c, i, X86_GP, 0);
    p = rmw_pointer(c, linear, 16);
    if (unlikely(!p)) {
        interp_probe_write(c, i, linear, 16);
        p = rmw_pointer(c, linear, 16);
    }
    if (likely(p)) {
        equal = host_cmpxchg16(p, expected, value, old);
    } else {
        interp_load_bytes(c, i, linear, old, 16);
        equal = old[0] == expected[0] && old[1] == expected[1];
        interp_store_bytes(c, i, linear, equal ? value : old, 16);
    }
    flags_replace(c, X86_FLAG_ZF, equal ? X86_FLAG_ZF : 0);
    if (!equal) {
        gpr[X86_RAX] = old[0];
        gpr[X86_RDX] = old[1];
    }
    NEXT(c, i);
}

/* ---- tables ---- */

struct alu_row {
    op_fn *rr[2], *ri[2]; /* [with flags] */
    op_fn *rm[2][3];      /* [with flags][address kind] */
    op_fn *mr[3], *mi[3], *lr, *li;
};
#define ALU_ROW(name, B)                                                                           \
    {                                                                                              \
        {op_##name##_rr##B##_0, op_##name##_rr##B##_1},                                            \
            {op_##name##_ri##B##_0, op_##name##_ri##B##_1},                                        \
            {{op_##name##_rm##B##_00, op_##name##_rm##B##_01, op_##name##_rm##B##_02},             \
             {op_##name##_rm##B##_10, op_##name##_rm##B##_11, op_##name##_rm##B##_12}},            \
            {op_##name##_mr##B##_0, op_##name##_mr##B##_1, op_##name##_mr##B##_2},                 \
            {op_##name##_mi##B##_0, op_##name##_mi##B##_1, op_##name##_mi##B##_2},                 \
            op_##name##_lr##B, op_##name##_li##B                                                   \
    }
#define ALU_ROWS(name)                                                                             \
    {                                                                                              \
        ALU_ROW(name, 8), ALU_ROW(name, 16), ALU_ROW(name, 32), ALU_ROW(name, 64)                  \
    }

enum alu { ALU_ADD, ALU_ADC, ALU_SUB, ALU_SBB, ALU_AND, ALU_OR, ALU_XOR, ALU_COUNT };
static const struct alu_row alu_rows[ALU_COUNT][4] = {ALU_ROWS(add), ALU_ROWS(adc), ALU_ROWS(sub),
                                                      ALU_ROWS(sbb), ALU_ROWS(and), ALU_ROWS(or),
                                                      ALU_ROWS(xor)};

struct compare_row {
    op_fn *rr, *ri, *rm[3], *mr[3], *mi[3];
};
#define COMPARE_ROW(name, B)                                                                       \
    {                                                                                              \
        op_##name##_rr##B, op_##name##_ri##B,                                                      \
            {op_##name##_rm##B##_0, op_##name##_rm##B##_1, op_##name##_rm##B##_2},                 \
            {op_##name##_mr##B##_0, op_##name##_mr##B##_1, op_##name##_mr##B##_2},                 \
        {                                                                                          \
            op_##name##_mi##B##_0, op_##name##_mi##B##_1, op_##name##_mi##B##_2                    \
        }                                                                                          \
    }
#define COMPARE_ROWS(name)                                                                         \
    {                                                                                              \
        COMPARE_ROW(name, 8), COMPARE_ROW(name, 16), COMPARE_ROW(name, 32), COMPARE_ROW(name, 64)  \
    }
static const struct compare_row compare_rows[2][4] = {COMPARE_ROWS(cmp), COMPARE_ROWS(test)};

struct unary_row {
    op_fn *r[2], *m, *l;
};
#define UNARY_ROW(name, B)                                                                         \
    {                                                                                              \
        {op_##name##_r##B##_0, op_##name##_r##B##_1}, op_##name##_m##B, op_##name##_l##B           \
    }
#define UNARY_ROWS(name)                                                                           \
    {                                                                                              \
        UNARY_ROW(name, 8), UNARY_ROW(name, 16), UNARY_ROW(name, 32), UNARY_ROW(name, 64)          \
    }
enum unary { UNARY_INC, UNARY_DEC, UNARY_NEG, UNARY_NOT };
static const struct unary_row unary_rows[4][4] = {UNARY_ROWS(inc), UNARY_ROWS(dec), UNARY_ROWS(neg),
                                                  UNARY_ROWS(not )};

static op_fn *const xadd_rr[4] = BY_SIZE(op_xadd_rr), *const xadd_mr[4] = BY_SIZE(op_xadd_mr);
static op_fn *const cmpxchg_rr[4] = BY_SIZE(op_cmpxchg_rr), *const cmpxchg_mr[4] =
                                                                BY_SIZE(op_cmpxchg_mr);

/* ---- building ---- */

static void set_operands(struct builder *w, const struct insn *insn, struct op *op)
{
    if (is_reg(insn, 0))
        op->dst = reg_offset(operand(insn, 0)->reg.value);
    if (is_reg(insn, 1))
        op->src = reg_offset(operand(insn, 1)->reg.value);
    if (is_imm(insn, 1))
        op->imm = operand(insn, 1)->imm.value.s;
    build_memory_any(w, insn, op);
}

/* [operation][64 bits][immediate] */
static const uint8_t pair_kinds[ALU_COUNT][2][2] = {
    [ALU_ADD] = {{PAIR_ADD32, PAIR_ADDI32}, {PAIR_ADD64, PAIR_ADDI64}},
    [ALU_SUB] = {{PAIR_SUB32}, {PAIR_SUB64}},
    [ALU_AND] = {{PAIR_AND32, PAIR_ANDI32}, {PAIR_AND64}},
    [ALU_OR] = {{PAIR_OR32}},
    [ALU_XOR] = {{PAIR_XOR32}, {PAIR_XOR64}},
};

static bool build_binary(struct builder *w, const struct insn *insn, struct op *op, enum alu alu)
{
    const struct alu_row *row = &alu_rows[alu][size_index(operand(insn, 0)->size)];
    bool reads_carry = alu == ALU_ADC || alu == ALU_SBB;

    set_operands(w, insn, op);
    w->notes->flags_killed = X86_FLAGS_STATUS;
    w->notes->flags_used = reads_carry ? X86_FLAG_CF : 0;
    if (is_mem(insn, 0)) {
        if (has_lock(insn))
            op->run = is_reg(insn, 1) ? row->lr : row->li;
        else
            op->run = is_reg(insn, 1) ? row->mr[ea_index(op)] : row->mi[ea_index(op)];
    } else if (is_mem(insn, 1)) {
        op->run = row->rm[1][ea_index(op)];
        w->notes->quiet = row->rm[0][ea_index(op)];
    } else {
        op->run = is_reg(insn, 1) ? row->rr[1] : row->ri[1];
        w->notes->quiet = is_reg(insn, 1) ? row->rr[0] : row->ri[0];
        w->notes->pair = pair_kinds[alu][operand(insn, 0)->size == 64][is_imm(insn, 1)];
        if (operand(insn, 0)->size < 32)
            w->notes->pair = PAIR_NONE;
        w->notes->cannot_fault = true;
    }
    return true;
}

static bool build_compare(struct builder *w, const struct insn *insn, struct op *op, bool test)
{
    unsigned size = size_index(operand(insn, 0)->size);
    const struct compare_row *row = &compare_rows[test][size];
    op_fn *const(*fused)[16] = test ? fused_test[size] : fused_cmp[size];

    set_operands(w, insn, op);
    w->notes->flags_killed = X86_FLAGS_STATUS;
    w->notes->flags_used = 0;
    if (is_mem(insn, 0)) {
        op->run = is_reg(insn, 1) ? row->mr[ea_index(op)] : row->mi[ea_index(op)];
        w->notes->fused = is_reg(insn, 1) ? fused[FUSED_MR] : fused[FUSED_MI];
    } else if (is_mem(insn, 1)) {
        op->run = row->rm[ea_index(op)];
    } else {
        op->run = is_reg(insn, 1) ? row->rr : row->ri;
        w->notes->cannot_fault = true;
        w->notes->fused = is_reg(insn, 1) ? fused[FUSED_RR] : fused[FUSED_RI];
    }
    return true;
}

static bool build_unary(struct builder *w, const struct insn *insn, struct op *op, enum unary kind)
{
    const struct unary_row *row = &unary_rows[kind][size_index(operand(insn, 0)->size)];

    set_operands(w, insn, op);
    if (is_mem(insn, 0)) {
        op->run = has_lock(insn) ? row->l : row->m;
        return true;
    }
    op->run = row->r[1];
    w->notes->cannot_fault = true;
    w->notes->flags_used = kind == UNARY_INC || kind == UNARY_DEC ? X86_FLAG_CF : 0;
    if (kind == UNARY_NOT)
        return true;
    w->notes->flags_killed = kind == UNARY_NEG ? X86_FLAGS_STATUS : X86_FLAGS_STATUS & ~X86_FLAG_CF;
    w->notes->quiet = row->r[0];
    return true;
}

static bool build_exchange(struct builder *w, const struct insn *insn, struct op *op,
                           op_fn *const rr[4], op_fn *const mr[4])
{
    unsigned size = size_index(operand(insn, 0)->size);

    set_operands(w, insn, op);
    op->run = is_mem(insn, 0) ? mr[size] : rr[size];
    return true;
}

bool build_alu(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        return build_binary(w, insn, op, ALU_ADD);
    case ZYDIS_MNEMONIC_ADC:
        return build_binary(w, insn, op, ALU_ADC);
    case ZYDIS_MNEMONIC_SUB:
        return build_binary(w, insn, op, ALU_SUB);
    case ZYDIS_MNEMONIC_SBB:
        return build_binary(w, insn, op, ALU_SBB);
    case ZYDIS_MNEMONIC_AND:
        return build_binary(w, insn, op, ALU_AND);
    case ZYDIS_MNEMONIC_OR:
        return build_binary(w, insn, op, ALU_OR);
    case ZYDIS_MNEMONIC_XOR:
        return build_binary(w, insn, op, ALU_XOR);
    case ZYDIS_MNEMONIC_CMP:
        return build_compare(w, insn, op, false);
    case ZYDIS_MNEMONIC_TEST:
        return build_compare(w, insn, op, true);
    case ZYDIS_MNEMONIC_INC:
        return build_unary(w, insn, op, UNARY_INC);
    case ZYDIS_MNEMONIC_DEC:
        return build_unary(w, insn, op, UNARY_DEC);
    case ZYDIS_MNEMONIC_NEG:
        return build_unary(w, insn, op, UNARY_NEG);
    case ZYDIS_MNEMONIC_NOT:
        return build_unary(w, insn, op, UNARY_NOT);
    case ZYDIS_MNEMONIC_XADD:
        return build_exchange(w, insn, op, xadd_rr, xadd_mr);
    case ZYDIS_MNEMONIC_CMPXCHG:
        return build_exchange(w, insn, op, cmpxchg_rr, cmpxchg_mr);
    case ZYDIS_MNEMONIC_CMPXCHG8B:
        build_memory_any(w, insn, op);
        op->run = op_cmpxchg8b;
        return true;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        build_memory_any(w, insn, op);
        op->run = op_cmpxchg16b;
        return true;
    default:
        return false;
    }
}
