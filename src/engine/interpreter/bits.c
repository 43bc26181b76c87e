/*
 * bits.c - BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, BMI1, BMI2, ADX, CRC32, RDRAND, decimal
 * adjust
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/operands.h"
#include "x86/features.h"

/* Operand bytes in the low bits of extra, and whether the source is memory. */
#define BYTES     (i->extra & 15u)
#define BITS      (BYTES * 8)
#define IN_MEMORY 0x10u

static uint64_t source(struct icpu *c, const struct op *i)
{
    return i->extra & IN_MEMORY ? load_sized(c, i, ea(c, i, BYTES, X86_ACCESS_READ), BYTES)
                                : reg_get(c, i->src, BYTES);
}

static int64_t sign_extend(uint64_t value, unsigned bits)
{
    return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

/* SF and ZF from the result, CF as given, the others 0. */
static void set_result_flags(struct icpu *c, uint64_t result, unsigned bits, bool carry)
{
    c->cc_kind = CC_SHIFT;
    c->cc_result = (uint64_t)sign_extend(result, bits);
    c->cc_a = carry ? X86_FLAG_CF : 0;
}

/* ---- BT, BTS, BTR, BTC ---- */

enum bit_test { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

static uint64_t bit_changed(enum bit_test kind, uint64_t value, uint64_t mask)
{
    switch (kind) {
    case BIT_SET:
        return value | mask;
    case BIT_RESET:
        return value & ~mask;
    case BIT_COMPLEMENT:
        return value ^ mask;
    default:
        return value;
    }
}

/* imm: bits 0-7 the bit number if bit 8 is set; bits 9-10 enum bit_test; bit 11 LOCK */
#define BIT_KIND     ((enum bit_test)(i->imm >> 9 & 3))
#define BIT_FROM_IMM (i->imm & 0x100)

static const struct op *op_bit_reg(struct icpu *c, const struct op *i)
{
    uint64_t n = (BIT_FROM_IMM ? (uint64_t)i->imm : reg_get(c, i->src, BYTES)) & (BITS - 1);
    uint64_t value = reg_get(c, i->dst, BYTES);

    flags_replace(c, X86_FLAG_CF, value >> n & 1 ? X86_FLAG_CF : 0);
    if (BIT_KIND != BIT_TEST)
        reg_set(c, i->dst, bit_changed(BIT_KIND, value, 1ull << n), BYTES);
    NEXT(c, i);
}

/* A bit number in a register reaches beyond the operand, in both directions (SDM vol. 2, BT). */
static uint64_t bit_address(struct icpu *c, const struct op *i, uint64_t *out_n, unsigned access)
{
    int64_t n;

    if (BIT_FROM_IMM) {
        *out_n = (uint64_t)i->imm & (BITS - 1);
        return ea(c, i, BYTES, access);
    }
    n = sign_extend(reg_get(c, i->src, BYTES), BITS);
    *out_n = (uint64_t)n & (BITS - 1);
    n = (n >> (BYTES == 8 ? 6 : BYTES == 4 ? 5 : 4)) * (int)BYTES;
    if (i->ea == EA_BASE || i->ea == EA_INDEX)
        return ea_raw(c, i) + (uint64_t)n;
    return interp_ea_offset(c, i, ea_raw(c, i) + (uint64_t)n, BYTES, access);
}

static const struct op *op_bit_test_mem(struct icpu *c, const struct op *i)
{
    uint64_t n, linear = bit_address(c, i, &n, X86_ACCESS_READ);
    uint64_t value = load_sized(c, i, linear, BYTES);

    flags_replace(c, X86_FLAG_CF, value >> n & 1 ? X86_FLAG_CF : 0);
    NEXT(c, i);
}

/* One compare-and-swap loop serves LOCK and plain forms. */
static uint64_t update_memory(struct icpu *c, const struct op *i, uint64_t linear, uint64_t mask)
{
    void *p = rmw_pointer(c, linear, BYTES);
    uint64_t old;

#define SWAP(B)                                                                                    \
    do {                                                                                           \
        uint##B##_t seen = ram_atomic_load##B(p);                                                  \
        while (!ram_atomic_swap##B(p, &seen, (uint##B##_t)bit_changed(BIT_KIND, seen, mask)))      \
            ;                                                                                      \
        return seen;                                                                               \
    } while (0)
    if (likely(p)) {
        switch (BYTES) {
        case 2:
            SWAP(16);
        case 4:
            SWAP(32);
        default:
            SWAP(64);
        }
    }
#undef SWAP
    do
        old = interp_load_for_write(c, i, linear, BYTES);
    while (!interp_compare_exchange(c, i, linear, old, bit_changed(BIT_KIND, old, mask), BYTES));
    return old;
}

static const struct op *op_bit_mem(struct icpu *c, const struct op *i)
{
    uint64_t n, linear = bit_address(c, i, &n, X86_ACCESS_WRITE);
    uint64_t old = update_memory(c, i, linear, 1ull << n);

    flags_replace(c, X86_FLAG_CF, old >> n & 1 ? X86_FLAG_CF : 0);
    NEXT(c, i);
}

static bool build_bit(struct builder *w, const struct insn *insn, struct op *op, enum bit_test kind)
{
    op->extra = (uint8_t)(operand(insn, 0)->size / 8);
    op->imm = kind << 9;
    if (is_imm(insn, 1))
        op->imm |= 0x100 | (operand(insn, 1)->imm.value.u & 0xff);
    else
        op->src = reg_offset(operand(insn, 1)->reg.value);
    if (build_memory_any(w, insn, op)) {
        op->run = kind == BIT_TEST ? op_bit_test_mem : op_bit_mem;
        return true;
    }
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->run = op_bit_reg;
    w->notes->cannot_fault = true;
    return true;
}

/* ---- scans and counts ---- */

/* A source of 0 sets ZF and leaves the destination alone, as processors do. */
static const struct op *op_bsf(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);

    flags_replace(c, X86_FLAG_ZF, value ? 0 : X86_FLAG_ZF);
    if (value)
        reg_set(c, i->dst, (uint64_t)__builtin_ctzll(value), BYTES);
    NEXT(c, i);
}
static const struct op *op_bsr(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);

    flags_replace(c, X86_FLAG_ZF, value ? 0 : X86_FLAG_ZF);
    if (value)
        reg_set(c, i->dst, 63 - (uint64_t)__builtin_clzll(value), BYTES);
    NEXT(c, i);
}
static const struct op *op_tzcnt(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i), n = value ? (uint64_t)__builtin_ctzll(value) : BITS;

    flags_replace(c, X86_FLAG_CF | X86_FLAG_ZF, (value ? 0 : X86_FLAG_CF) | (n ? 0 : X86_FLAG_ZF));
    reg_set(c, i->dst, n, BYTES);
    NEXT(c, i);
}
static const struct op *op_lzcnt(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);
    uint64_t n = value ? (uint64_t)__builtin_clzll(value) - (64 - BITS) : BITS;

    flags_replace(c, X86_FLAG_CF | X86_FLAG_ZF, (value ? 0 : X86_FLAG_CF) | (n ? 0 : X86_FLAG_ZF));
    reg_set(c, i->dst, n, BYTES);
    NEXT(c, i);
}
static const struct op *op_popcnt(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);

    flags_replace(c, X86_FLAGS_STATUS, value ? 0 : X86_FLAG_ZF);
    reg_set(c, i->dst, (uint64_t)__builtin_popcountll(value), BYTES);
    NEXT(c, i);
}

/* ---- BMI: the operand that is always a register is in imm ---- */

#define OTHER reg_get(c, (uint16_t)i->imm, BYTES)

static const struct op *finish_bmi(struct icpu *c, const struct op *i, uint64_t result, bool carry)
{
    set_result_flags(c, result, BITS, carry);
    reg_set(c, i->dst, result, BYTES);
    NEXT(c, i);
}

static const struct op *op_andn(struct icpu *c, const struct op *i)
{
    return finish_bmi(c, i, ~OTHER & source(c, i), false);
}
static const struct op *op_blsi(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);

    return finish_bmi(c, i, value & -value, value != 0);
}
static const struct op *op_blsr(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);

    return finish_bmi(c, i, value & (value - 1), value == 0);
}
static const struct op *op_blsmsk(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);

    return finish_bmi(c, i, value ^ (value - 1), value == 0);
}
static const struct op *op_bextr(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i), control = OTHER;
    unsigned start = control & 0xff, length = control >> 8 & 0xff;

    value = start < BITS ? value >> start : 0;
    if (length < BITS)
        value &= (1ull << length) - 1;
    return finish_bmi(c, i, value, false);
}
static const struct op *op_bzhi(struct icpu *c, const struct op *i)
{
    uint64_t value = source(c, i);
    unsigned n = OTHER & 0xff;

    return finish_bmi(c, i, n < BITS ? value & ((1ull << n) - 1) : value, n >= BITS);
}
/* PDEP, PEXT: the mask is the third operand, which may be memory. */
static const struct op *op_pdep(struct icpu *c, const struct op *i)
{
    uint64_t mask = source(c, i), value = OTHER, result = 0;

    for (; mask; mask &= mask - 1, value >>= 1)
        if (value & 1)
            result |= mask & -mask;
    reg_set(c, i->dst, result, BYTES);
    NEXT(c, i);
}
static const struct op *op_pext(struct icpu *c, const struct op *i)
{
    uint64_t mask = source(c, i), value = OTHER, result = 0;

    for (unsigned n = 0; mask; mask &= mask - 1, n++)
        if (value & mask & -mask)
            result |= 1ull << n;
    reg_set(c, i->dst, result, BYTES);
    NEXT(c, i);
}

static const struct op *add_with(struct icpu *c, const struct op *i, uint64_t flag, bool carry)
{
    uint64_t a = reg_get(c, i->dst, BYTES), b = source(c, i), result = a + b + carry;
    bool out = BYTES == 8 ? carries(a, b, result) >> 63 : result >> 32;

    reg_set(c, i->dst, result, BYTES);
    flags_replace(c, flag, out ? flag : 0);
    NEXT(c, i);
}
static const struct op *op_adcx(struct icpu *c, const struct op *i)
{
    return add_with(c, i, X86_FLAG_CF, flag_cf(c));
}
static const struct op *op_adox(struct icpu *c, const struct op *i)
{
    return add_with(c, i, X86_FLAG_OF, flag_of(c));
}

/* Polynomial 0x11edc6f41, reflected (SDM vol. 2, CRC32); four bits at a time. */
static uint32_t crc32c(uint32_t crc, uint64_t value, unsigned bytes)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                       0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

    for (unsigned n = 0; n < bytes; n++) {
        crc ^= (uint8_t)(value >> (8 * n));
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}
static const struct op *op_crc32(struct icpu *c, const struct op *i)
{
    uint32_t crc = crc32c((uint32_t)reg_get(c, i->dst, 4), source(c, i), BYTES);

    SET_REG32(i->dst, crc);
    NEXT(c, i);
}

/* Counted mode: from the instruction count, so that runs repeat (splitmix64). */
static uint64_t random_value(struct icpu *c, const struct op *i)
{
    uint64_t value;

    if (!c->counted) {
        host_random(&value, sizeof(value));
        return value;
    }
    value = interp_instructions(c, i) * 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}
static const struct op *op_random(struct icpu *c, const struct op *i)
{
    reg_set(c, i->dst, random_value(c, i), BYTES);
    flags_replace(c, X86_FLAGS_STATUS, X86_FLAG_CF);
    NEXT(c, i);
}

/* ---- decimal adjust (SDM vol. 2); flags documented as undefined are left alone ---- */

#define AL (REG(c, REG_OFFSET(X86_RAX), uint8_t))
#define AX (REG(c, REG_OFFSET(X86_RAX), uint16_t))

static uint64_t result_bits(uint8_t al)
{
    return (al ? 0 : X86_FLAG_ZF) | (al & 0x80 ? X86_FLAG_SF : 0) |
           (parity_even(al) ? X86_FLAG_PF : 0);
}

/* imm: 0 DAA, 1 DAS */
static const struct op *op_daa_das(struct icpu *c, const struct op *i)
{
    uint8_t old = AL, al = old;
    bool cf = flag_cf(c), af = flag_af(c), out_cf = false;

    if ((old & 15) > 9 || af) {
        out_cf = cf || (i->imm ? al < 6 : al > 0xf9);
        al = (uint8_t)(i->imm ? al - 6 : al + 6);
        af = true;
    }
    if (old > 0x99 || cf) {
        al = (uint8_t)(i->imm ? al - 0x60 : al + 0x60);
        out_cf = true;
    }
    AL = al;
    flags_replace(c, X86_FLAGS_STATUS & ~X86_FLAG_OF,
                  result_bits(al) | (out_cf ? X86_FLAG_CF : 0) | (af ? X86_FLAG_AF : 0));
    NEXT(c, i);
}
/* imm: 0 AAA, 1 AAS */
static const struct op *op_aaa_aas(struct icpu *c, const struct op *i)
{
    bool adjust = (AL & 15) > 9 || flag_af(c);

    if (adjust)
        AX = (uint16_t)(i->imm ? AX - 0x106 : AX + 0x106);
    AL &= 15;
    flags_replace(c, X86_FLAG_CF | X86_FLAG_AF, adjust ? X86_FLAG_CF | X86_FLAG_AF : 0);
    NEXT(c, i);
}
static const struct op *op_aam(struct icpu *c, const struct op *i)
{
    uint8_t base = (uint8_t)i->imm, al = AL;

    if (base == 0)
        interp_raise(c, i, X86_DE);
    AX = (uint16_t)(al / base << 8 | al % base);
    flags_replace(c, X86_FLAGS_STATUS, result_bits(AL));
    NEXT(c, i);
}
static const struct op *op_aad(struct icpu *c, const struct op *i)
{
    AX = (uint8_t)(AL + (AX >> 8) * (uint8_t)i->imm);
    flags_replace(c, X86_FLAGS_STATUS, result_bits(AL));
    NEXT(c, i);
}

/* ---- building ---- */

/* dst, source (register or memory) in operand n, operand bytes. */
static bool build_source(struct builder *w, const struct insn *insn, struct op *op, unsigned n,
                         op_fn *run)
{
    op->extra = (uint8_t)(operand(insn, n)->size / 8);
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    if (build_memory_any(w, insn, op))
        op->extra |= IN_MEMORY;
    else
        op->src = reg_offset(operand(insn, n)->reg.value);
    op->run = run;
    return true;
}

static bool build_if(struct builder *w, const struct insn *insn, struct op *op, unsigned n,
                     op_fn *run, enum x86_feature feature)
{
    return cpu_model_has(w->c->cpu.model, feature) && build_source(w, insn, op, n, run);
}

/* Three operands: the source in operand n, the register in operand 3 - n. */
static bool build_bmi(struct builder *w, const struct insn *insn, struct op *op, unsigned n,
                      op_fn *run, enum x86_feature feature)
{
    if (!build_if(w, insn, op, n, run, feature))
        return false;
    op->imm = reg_offset(operand(insn, 3 - n)->reg.value);
    return true;
}

static bool build_decimal(struct insn const *insn, struct op *op, op_fn *run, int64_t imm)
{
    op->run = run;
    op->imm = is_imm(insn, 0) ? (int64_t)operand(insn, 0)->imm.value.u : imm;
    return true;
}

bool build_bits(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
        return build_bit(w, insn, op, BIT_TEST);
    case ZYDIS_MNEMONIC_BTS:
        return build_bit(w, insn, op, BIT_SET);
    case ZYDIS_MNEMONIC_BTR:
        return build_bit(w, insn, op, BIT_RESET);
    case ZYDIS_MNEMONIC_BTC:
        return build_bit(w, insn, op, BIT_COMPLEMENT);
    case ZYDIS_MNEMONIC_BSF:
        return build_source(w, insn, op, 1, op_bsf);
    case ZYDIS_MNEMONIC_BSR:
        return build_source(w, insn, op, 1, op_bsr);
    case ZYDIS_MNEMONIC_TZCNT: /* without BMI1 the prefix is ignored: BSF */
        return build_source(w, insn, op, 1,
                            cpu_model_has(w->c->cpu.model, X86_FEATURE_BMI1) ? op_tzcnt : op_bsf);
    case ZYDIS_MNEMONIC_LZCNT:
        return build_source(w, insn, op, 1,
                            cpu_model_has(w->c->cpu.model, X86_FEATURE_LZCNT) ? op_lzcnt : op_bsr);
    case ZYDIS_MNEMONIC_POPCNT:
        return build_if(w, insn, op, 1, op_popcnt, X86_FEATURE_POPCNT);
    case ZYDIS_MNEMONIC_ANDN:
        return build_bmi(w, insn, op, 2, op_andn, X86_FEATURE_BMI1);
    case ZYDIS_MNEMONIC_BLSI:
        return build_if(w, insn, op, 1, op_blsi, X86_FEATURE_BMI1);
    case ZYDIS_MNEMONIC_BLSR:
        return build_if(w, insn, op, 1, op_blsr, X86_FEATURE_BMI1);
    case ZYDIS_MNEMONIC_BLSMSK:
        return build_if(w, insn, op, 1, op_blsmsk, X86_FEATURE_BMI1);
    case ZYDIS_MNEMONIC_BEXTR:
        return build_bmi(w, insn, op, 1, op_bextr, X86_FEATURE_BMI1);
    case ZYDIS_MNEMONIC_BZHI:
        return build_bmi(w, insn, op, 1, op_bzhi, X86_FEATURE_BMI2);
    case ZYDIS_MNEMONIC_PDEP:
        return build_bmi(w, insn, op, 2, op_pdep, X86_FEATURE_BMI2);
    case ZYDIS_MNEMONIC_PEXT:
        return build_bmi(w, insn, op, 2, op_pext, X86_FEATURE_BMI2);
    case ZYDIS_MNEMONIC_ADCX:
        return build_if(w, insn, op, 1, op_adcx, X86_FEATURE_ADX);
    case ZYDIS_MNEMONIC_ADOX:
        return build_if(w, insn, op, 1, op_adox, X86_FEATURE_ADX);
    case ZYDIS_MNEMONIC_CRC32:
        return build_if(w, insn, op, 1, op_crc32, X86_FEATURE_SSE4_2);
    case ZYDIS_MNEMONIC_RDRAND:
        return build_if(w, insn, op, 0, op_random, X86_FEATURE_RDRAND);
    case ZYDIS_MNEMONIC_RDSEED:
        return build_if(w, insn, op, 0, op_random, X86_FEATURE_RDSEED);
    case ZYDIS_MNEMONIC_DAA:
        return build_decimal(insn, op, op_daa_das, 0);
    case ZYDIS_MNEMONIC_DAS:
        return build_decimal(insn, op, op_daa_das, 1);
    case ZYDIS_MNEMONIC_AAA:
        return build_decimal(insn, op, op_aaa_aas, 0);
    case ZYDIS_MNEMONIC_AAS:
        return build_decimal(insn, op, op_aaa_aas, 1);
    case ZYDIS_MNEMONIC_AAM:
        return build_decimal(insn, op, op_aam, 10);
    case ZYDIS_MNEMONIC_AAD:
        return build_decimal(insn, op, op_aad, 10);
    default:
        return false;
    }
}
