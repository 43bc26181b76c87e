/*
 * vector_moves.c - plain loads and stores of vector registers
 *
 * The most frequent vector instructions are copies between memory and a register,
 * for which a stub would be a detour: MOVAPS, MOVUPS, MOVDQA, MOVDQU, LDDQU, MOVD, MOVQ,
 * MOVSS, MOVSD, non-temporal ones, and their VEX and unmasked EVEX forms.
 * A load fills the register with zeroes up to 128 bits (SSE) or to its full width.
 */
#include "engine/interpreter/host_stub.h"

#include <immintrin.h>

/* Called last: its caller then needs no stack frame. */
#define COLD __attribute__((noinline, cold))

/* In these ops dst is the register, src the address bits that must be clear, extra the class. */

static COLD const struct op *blocked(struct icpu *c, const struct op *i)
{
    host_stub_check(c, i, i->extra, false);
    host_stub_refresh(c); /* it was enabled meanwhile: none of these needs masked exceptions */
    GOTO(c, i);
}

/* ---- slow: not in one page that the TLB knows ---- */

static void check_alignment(struct icpu *c, const struct op *i, uint64_t linear)
{
    if (linear & i->src)
        interp_raise_code(c, i, X86_GP, 0);
}

static COLD const struct op *load_slow(struct icpu *c, const struct op *i, uint64_t linear,
                                       unsigned bytes, unsigned width)
{
    uint8_t *to = &REG(c, i->dst, uint8_t);

    check_alignment(c, i, linear);
    if (bytes <= 8) {
        uint64_t value = interp_load_slow(c, i, linear, bytes);

        memcpy(to, &value, 8);
        memset(to + 8, 0, width - 8);
    } else {
        interp_load_bytes(c, i, linear, c->stub_buffer, bytes);
        memcpy(to, c->stub_buffer, bytes);
        memset(to + bytes, 0, width - bytes);
    }
    NEXT(c, i);
}

static COLD const struct op *store_slow(struct icpu *c, const struct op *i, uint64_t linear,
                                        unsigned bytes)
{
    const uint8_t *from = &REG(c, i->dst, const uint8_t);
    uint64_t value;

    check_alignment(c, i, linear);
    if (bytes <= 8) {
        memcpy(&value, from, 8);
        interp_store_slow(c, i, linear, bytes == 4 ? (uint32_t)value : value, bytes);
    } else {
        interp_store_bytes(c, i, linear, from, bytes);
    }
    NEXT(c, i);
}

/* ---- fast ---- */

/*
 * A register is written with one store of the width that stubs read it with: a load
 * that needs the bytes of several stores would have to wait for all of them.
 */
#define FILL_16(to, value)    _mm_storeu_si128((void *)(to), value)
#define FILL_32(to, value)    _mm256_storeu_si256((void *)(to), _mm256_zextsi128_si256(value))
#define FILL_32_32(to, value) _mm256_storeu_si256((void *)(to), value)
#define FILL_64(to, value)    _mm512_storeu_si512((void *)(to), _mm512_zextsi128_si512(value))
#define FILL_64_32(to, value) _mm512_storeu_si512((void *)(to), _mm512_zextsi256_si512(value))
#define FILL_64_64(to, value) _mm512_storeu_si512((void *)(to), value)

#define TARGET_16
#define TARGET_32 __attribute__((target("avx")))
#define TARGET_64 __attribute__((target("avx512f")))

/* Registers and guest RAM alike. */
GUEST_RAM_ACCESS __m128i get_4(const void *from)
{
    return _mm_cvtsi32_si128((int32_t)ram_load32(from));
}
GUEST_RAM_ACCESS __m128i get_8(const void *from)
{
    return _mm_loadl_epi64(from);
}
GUEST_RAM_ACCESS __m128i get_16(const void *from)
{
    return _mm_loadu_si128(from);
}
TARGET_32 GUEST_RAM_ACCESS __m256i get_32(const void *from)
{
    return _mm256_loadu_si256(from);
}
TARGET_64 GUEST_RAM_ACCESS __m512i get_64(const void *from)
{
    return _mm512_loadu_si512(from);
}
GUEST_RAM_ACCESS void put_4(void *to, __m128i value)
{
    ram_store32(to, (uint32_t)_mm_cvtsi128_si32(value));
}
GUEST_RAM_ACCESS void put_8(void *to, __m128i value)
{
    _mm_storel_epi64(to, value);
}
GUEST_RAM_ACCESS void put_16(void *to, __m128i value)
{
    _mm_storeu_si128(to, value);
}
TARGET_32 GUEST_RAM_ACCESS void put_32(void *to, __m256i value)
{
    _mm256_storeu_si256(to, value);
}
TARGET_64 GUEST_RAM_ACCESS void put_64(void *to, __m512i value)
{
    _mm512_storeu_si512(to, value);
}

static inline uint64_t ea_base(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    (void)size;
    (void)access;
    return REG(c, i->base, uint64_t) + (uint64_t)i->disp;
}
static inline uint64_t ea_index(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    (void)size;
    (void)access;
    return ea_raw(c, i);
}
#define ea_any ea

#define DEFINE_LOAD(bytes, width, fill, kind)                                                      \
    TARGET_##width static const struct op *load_##bytes##_##width##_##kind(struct icpu *c,         \
                                                                           const struct op *i)     \
    {                                                                                              \
        const struct tlb_entry *e;                                                                 \
        uint64_t linear;                                                                           \
                                                                                                   \
        if (unlikely(c->fpu_blocked & i->extra))                                                   \
            return blocked(c, i);                                                                  \
        linear = ea_##kind(c, i, bytes, X86_ACCESS_READ);                                          \
        e = tlb_slot(c, linear);                                                                   \
        if (unlikely((linear ^ e->read) > 0x1000u - bytes) || unlikely(linear & i->src))           \
            return load_slow(c, i, linear, bytes, width);                                          \
        fill(&REG(c, i->dst, uint8_t), get_##bytes((const void *)(linear + e->addend)));           \
        NEXT(c, i);                                                                                \
    }
#define DEFINE_LOADS(kind)                                                                         \
    DEFINE_LOAD(4, 16, FILL_16, kind)                                                              \
    DEFINE_LOAD(8, 16, FILL_16, kind)                                                              \
    DEFINE_LOAD(16, 16, FILL_16, kind)                                                             \
    DEFINE_LOAD(4, 32, FILL_32, kind)                                                              \
    DEFINE_LOAD(8, 32, FILL_32, kind)                                                              \
    DEFINE_LOAD(16, 32, FILL_32, kind)                                                             \
    DEFINE_LOAD(32, 32, FILL_32_32, kind)                                                          \
    DEFINE_LOAD(4, 64, FILL_64, kind)                                                              \
    DEFINE_LOAD(8, 64, FILL_64, kind)                                                              \
    DEFINE_LOAD(16, 64, FILL_64, kind)                                                             \
    DEFINE_LOAD(32, 64, FILL_64_32, kind)                                                          \
    DEFINE_LOAD(64, 64, FILL_64_64, kind)
DEFINE_LOADS(base)
DEFINE_LOADS(index)
DEFINE_LOADS(any)

#define DEFINE_STORE(bytes, target, kind)                                                          \
    target static const struct op *store_##bytes##_##kind(struct icpu *c, const struct op *i)      \
    {                                                                                              \
        const struct tlb_entry *e;                                                                 \
        uint64_t linear;                                                                           \
                                                                                                   \
        if (unlikely(c->fpu_blocked & i->extra))                                                   \
            return blocked(c, i);                                                                  \
        linear = ea_##kind(c, i, bytes, X86_ACCESS_WRITE);                                         \
        e = tlb_slot(c, linear);                                                                   \
        if (unlikely((linear ^ e->write) > 0x1000u - bytes) || unlikely(linear & i->src))          \
            return store_slow(c, i, linear, bytes);                                                \
        put_##bytes((void *)(linear + e->addend), get_##bytes(&REG(c, i->dst, const uint8_t)));    \
        NEXT(c, i);                                                                                \
    }
#define DEFINE_STORES(kind)                                                                        \
    DEFINE_STORE(4, TARGET_16, kind)                                                               \
    DEFINE_STORE(8, TARGET_16, kind)                                                               \
    DEFINE_STORE(16, TARGET_16, kind)                                                              \
    DEFINE_STORE(32, TARGET_32, kind)                                                              \
    DEFINE_STORE(64, TARGET_64, kind)
DEFINE_STORES(base)
DEFINE_STORES(index)
DEFINE_STORES(any)

/* Indexed by the kind of address (host_stub_ea), log2(bytes) - 2 and log2(width) - 4. */
#define LOADS_OF(kind)                                                                             \
    {                                                                                              \
        {load_4_16_##kind, load_4_32_##kind, load_4_64_##kind},                                    \
            {load_8_16_##kind, load_8_32_##kind, load_8_64_##kind},                                \
            {load_16_16_##kind, load_16_32_##kind, load_16_64_##kind},                             \
            {NULL, load_32_32_##kind, load_32_64_##kind}, {NULL, NULL, load_64_64_##kind},         \
    }
static op_fn *const loads[3][5][3] = {LOADS_OF(base), LOADS_OF(index), LOADS_OF(any)};
#define STORES_OF(kind)                                                                            \
    {                                                                                              \
        store_4_##kind, store_8_##kind, store_16_##kind, store_32_##kind, store_64_##kind,         \
    }
static op_fn *const stores[3][5] = {STORES_OF(base), STORES_OF(index), STORES_OF(any)};

static bool is_plain_move(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVLPS:
    case ZYDIS_MNEMONIC_MOVLPD:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VMOVDQU8:
    case ZYDIS_MNEMONIC_VMOVDQU16:
    case ZYDIS_MNEMONIC_VMOVDQU32:
    case ZYDIS_MNEMONIC_VMOVDQU64:
    case ZYDIS_MNEMONIC_VLDDQU:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VMOVQ:
    case ZYDIS_MNEMONIC_VMOVSS:
    case ZYDIS_MNEMONIC_VMOVSD:
    case ZYDIS_MNEMONIC_VMOVLPS:
    case ZYDIS_MNEMONIC_VMOVLPD:
        return true;
    default:
        return false;
    }
}

/* These keep the upper half of the register when they load. */
static bool keeps_upper_half(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_MOVLPS || mnemonic == ZYDIS_MNEMONIC_MOVLPD ||
           mnemonic == ZYDIS_MNEMONIC_VMOVLPS || mnemonic == ZYDIS_MNEMONIC_VMOVLPD;
}

static unsigned log2_of(unsigned power)
{
    return (unsigned)__builtin_ctz(power);
}

static op_fn *handler(const struct icpu *c, const struct insn *insn, const struct op *op,
                      bool is_store, unsigned bytes)
{
    unsigned kind = host_stub_ea(op), size = log2_of(bytes) - 2;

    if (is_store)
        return stores[kind][size];
    if (insn->info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return loads[kind][size][0];
    return loads[kind][size][log2_of(c->vector_bytes) - 4];
}

/* One memory operand, one vector register and at most k0: their indices. */
static bool is_simple(const struct insn *insn, unsigned *out_memory, unsigned *out_vector)
{
    unsigned memories = 0, vectors = 0;

    for (unsigned n = 0; n < insn->info.operand_count_visible; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            *out_memory = n;
            memories++;
        } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && vector_number(o->reg.value) >= 0) {
            *out_vector = n;
            vectors++;
        } else if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || mask_number(o->reg.value) != 0) {
            return false;
        }
    }
    return memories == 1 && vectors == 1;
}

bool vector_move_build(struct icpu *c, const struct insn *insn, struct op *op)
{
    unsigned memory = 0, vector = 0, bytes;
    bool is_store, is_mmx;

    if (!is_plain_move(insn->info.mnemonic) || !is_simple(insn, &memory, &vector))
        return false;
    is_store = memory == 0;
    if (!is_store && keeps_upper_half(insn->info.mnemonic))
        return false;
    if (!host_stub_isa(c->cpu.model, insn, &op->extra, &is_mmx))
        return false;
    bytes = insn->operands[memory].size / 8u;
    op->dst = ZMM_OFFSET((unsigned)vector_number(insn->operands[vector].reg.value));
    op->src = (uint16_t)(host_stub_needs_alignment(insn, bytes) ? bytes - 1 : 0);
    op->run = handler(c, insn, op, is_store, bytes);
    return op->run != NULL;
}
