/*
 * vector_moves.c - plain loads and stores of vector registers
 *
 * The most frequent vector instructions are copies between memory and a register,
 * for which a stub would be a detour: MOVAPS, MOVUPS, MOVDQA, MOVDQU, LDDQU, MOVD, MOVQ,
 * MOVSS, MOVSD, non-temporal ones, and their VEX and unmasked EVEX forms.
 * A load fills the register with zeroes up to 128 bits (SSE) or to its full width.
 */
#include "engine/interpreter/host_stub.h"

/* In these ops dst is the register, src the address bits that must be clear, extra the class. */

static const struct op *blocked(struct icpu *c, const struct op *i)
{
    host_stub_check(c, i, i->extra, false);
    host_stub_refresh(c); /* it was enabled meanwhile: none of these needs masked exceptions */
    GOTO(c, i);
}

static inline void check_alignment(struct icpu *c, const struct op *i, uint64_t linear)
{
    if (unlikely(linear & i->src))
        interp_raise_code(c, i, X86_GP, 0);
}

static inline void load_vector(struct icpu *c, const struct op *i, unsigned bytes, unsigned width)
{
    uint8_t *to = &REG(c, i->dst, uint8_t);
    uint64_t linear = ea(c, i, bytes, X86_ACCESS_READ);
    const struct tlb_entry *e = tlb_slot(c, linear);

    check_alignment(c, i, linear);
    if (likely((linear ^ e->read) <= 0x1000u - bytes)) {
        memcpy(to, (const void *)(linear + e->addend), bytes);
    } else if (bytes <= 8) {
        uint64_t value = interp_load_slow(c, i, linear, bytes);

        memcpy(to, &value, bytes);
    } else {
        interp_load_bytes(c, i, linear, c->stub_buffer, bytes);
        memcpy(to, c->stub_buffer, bytes);
    }
    memset(to + bytes, 0, width - bytes);
}

static inline void store_vector(struct icpu *c, const struct op *i, unsigned bytes)
{
    const uint8_t *from = &REG(c, i->dst, const uint8_t);
    uint64_t linear = ea(c, i, bytes, X86_ACCESS_WRITE);
    const struct tlb_entry *e = tlb_slot(c, linear);

    check_alignment(c, i, linear);
    if (likely((linear ^ e->write) <= 0x1000u - bytes)) {
        memcpy((void *)(linear + e->addend), from, bytes);
    } else if (bytes <= 8) {
        uint64_t value = 0;

        memcpy(&value, from, bytes);
        interp_store_slow(c, i, linear, value, bytes);
    } else {
        interp_store_bytes(c, i, linear, from, bytes);
    }
}

#define DEFINE_LOAD(bytes, width)                                                                  \
    static const struct op *load_##bytes##_##width(struct icpu *c, const struct op *i)             \
    {                                                                                              \
        if (unlikely(c->fpu_blocked & i->extra))                                                   \
            return blocked(c, i);                                                                  \
        load_vector(c, i, bytes, width);                                                           \
        NEXT(c, i);                                                                                \
    }
#define DEFINE_LOADS(width)                                                                        \
    DEFINE_LOAD(4, width)                                                                          \
    DEFINE_LOAD(8, width)                                                                          \
    DEFINE_LOAD(16, width)
DEFINE_LOADS(16)
DEFINE_LOADS(32)
DEFINE_LOADS(64)
DEFINE_LOAD(32, 32)
DEFINE_LOAD(32, 64)
DEFINE_LOAD(64, 64)

#define DEFINE_STORE(bytes)                                                                        \
    static const struct op *store_##bytes(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        if (unlikely(c->fpu_blocked & i->extra))                                                   \
            return blocked(c, i);                                                                  \
        store_vector(c, i, bytes);                                                                 \
        NEXT(c, i);                                                                                \
    }
DEFINE_STORE(4)
DEFINE_STORE(8)
DEFINE_STORE(16)
DEFINE_STORE(32)
DEFINE_STORE(64)

/* By log2 of the bytes less 2, and by log2 of the width less 4. */
static op_fn *const loads[5][3] = {
    {load_4_16, load_4_32, load_4_64},
    {load_8_16, load_8_32, load_8_64},
    {load_16_16, load_16_32, load_16_64},
    {NULL, load_32_32, load_32_64},
    {NULL, NULL, load_64_64},
};
static op_fn *const stores[5] = {store_4, store_8, store_16, store_32, store_64};

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

static op_fn *handler(const struct icpu *c, const struct insn *insn, bool is_store, unsigned bytes)
{
    if (is_store)
        return stores[log2_of(bytes) - 2];
    if (insn->info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return loads[log2_of(bytes) - 2][0];
    return loads[log2_of(bytes) - 2][log2_of(c->vector_bytes) - 4];
}

/* One memory operand, one vector register and at most k0: their indices. */
static bool is_simple(const struct insn *insn, unsigned *out_memory, unsigned *out_vector)
{
    unsigned memories = 0, vectors = 0;

    for (unsigned n = 0; n < insn->info.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &insn->operands[n];

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
    op->run = handler(c, insn, is_store, bytes);
    return op->run != NULL;
}
