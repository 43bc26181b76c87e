/*
 * decode_cache.c - decoded instructions by all their bytes but displacement and immediates
 *
 * Theory of operation. Prefixes, opcode, ModRM and SIB (the head) decide what an instruction is,
 * how long it is and where displacement and immediates are; these are only numbers. An
 * entry is what the decoder made of a head; a hit copies it and puts the new numbers in. To find
 * the end of a head it has to be known which opcodes have a ModRM byte. What the decoder says is
 * compared before an entry is made, so a wrong bit in the tables here costs time only.
 *
 * Left out, so never in the cache: heads of more than 7 bytes, EVEX (it scales displacements), XOP,
 * 3DNow! (its opcode is where an immediate would be), far pointers, a register in an immediate.
 */
#include "x86/decode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BITS   13
#define MAX_OPERANDS 6u
#define MAX_HEAD     7u
#define NONE         0xff

struct entry {
    uint64_t key; /* the head, and what its length and mode are: key_of(); 0: empty */
    uint8_t disp; /* operand with the displacement, or NONE */
    uint8_t imm[2];
    struct decoded {
        ZydisDecodedInstruction info; /* as struct insn begins */
        ZydisDecodedOperand operands[MAX_OPERANDS];
    } decoded;
};

static_assert(offsetof(struct decoded, operands) == offsetof(struct insn, operands), "");

struct decode_cache {
    struct entry entries[1u << CACHE_BITS];
};

struct decode_cache *decode_cache_new(void)
{
    return calloc(1, sizeof(struct decode_cache));
}

void decode_cache_free(struct decode_cache *cache)
{
    free(cache);
}

/* ---- heads ---- */

/* Opcodes 8 to a byte, lowest bit first: have a ModRM byte (SDM vol. 2, appendix A). */
static const uint8_t modrm_1[32] = {
    0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, /* 00 */
    0x00, 0x00, 0x00, 0x00, 0x08, 0x0a, 0x00, 0x00, /* 40 */
    0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 80 */
    0xf3, 0x00, 0x0f, 0xff, 0x00, 0x00, 0xc0, 0xc0, /* c0 */
};
static const uint8_t modrm_0f[32] = {
    0x0f, 0x20, 0xff, 0xff, 0x0f, 0xff, 0x00, 0x00, /* 00 */
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, /* 40 */
    0x00, 0x00, 0xff, 0xff, 0x38, 0xf8, 0xff, 0xff, /* 80 */
    0xff, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, /* c0 */
};

static bool bit(const uint8_t map[32], unsigned n)
{
    return map[n / 8] >> (n % 8) & 1;
}

static bool is_prefix(unsigned byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

/* The opcode at p, and whether a ModRM byte follows it. Returns its end, or NULL to give up. */
static const uint8_t *skip_opcode(const uint8_t *p, bool is_64, bool *modrm)
{
    unsigned opcode = *p++;

    *modrm = true;
    if (is_64 && (opcode == 0xc4 || opcode == 0xc5)) { /* VEX */
        p += opcode == 0xc4 ? 2 : 1;
        *modrm = *p++ != 0x77; /* VZEROUPPER */
        return p;
    }
    if (opcode == 0x62 || opcode == 0xc4 || opcode == 0xc5 || opcode == 0x8f)
        return NULL;
    if (opcode != 0x0f) {
        *modrm = bit(modrm_1, opcode);
        return p;
    }
    opcode = *p++;
    if (opcode == 0x38 || opcode == 0x3a)
        return p + 1;
    *modrm = bit(modrm_0f, opcode);
    return opcode == 0x0f ? NULL : p;
}

/*
 * How many bytes the head at bytes[0..15] has; 0: not one for the cache. If it is longer than
 * the bytes that are there, so is the instruction, and the decoder has not accepted it.
 */
static unsigned head_length(enum x86_code_size size, const uint8_t bytes[16])
{
    const uint8_t *p = bytes, *end = bytes + MAX_HEAD;
    bool address_prefix = false, modrm;

    while (is_prefix(*p)) {
        address_prefix |= *p++ == 0x67;
        if (p == end)
            return 0;
    }
    if (size == X86_CODE_64 && (*p & 0xf0) == 0x40)
        p++;
    p = skip_opcode(p, size == X86_CODE_64, &modrm);
    if (!p)
        return 0;
    if (modrm) {
        bool narrow = size == X86_CODE_16 ? !address_prefix : size == X86_CODE_32 && address_prefix;
        unsigned byte = *p++;

        if (byte < 0xc0 && (byte & 7) == 4 && !narrow)
            p++; /* SIB */
    }
    return p <= end ? (unsigned)(p - bytes) : 0;
}

static uint64_t key_of(const uint8_t bytes[16], unsigned head, enum x86_code_size size,
                       bool real_mode)
{
    uint64_t key;

    memcpy(&key, bytes, 8);
    key &= (1ull << (8 * head)) - 1;
    return key | (uint64_t)(head << 3 | (unsigned)size << 1 | real_mode) << 56;
}

static struct entry *slot_of(struct decode_cache *cache, uint64_t key)
{
    return &cache->entries[key * 0x9e3779b97f4a7c15ull >> (64 - CACHE_BITS)];
}

/* ---- entries ---- */

/* Is what follows the head numbers only? Says which operands they belong to. */
static bool is_regular(const struct insn *insn, unsigned head, struct entry *e)
{
    const ZydisDecodedInstruction *info = &insn->info;
    const ZydisDecodedInstructionRaw *raw = &info->raw;
    unsigned imms = 0;

    if (info->operand_count > MAX_OPERANDS ||
        info->length != head + (raw->disp.size + raw->imm[0].size + raw->imm[1].size) / 8)
        return false;
    e->disp = e->imm[0] = e->imm[1] = NONE;
    for (unsigned n = 0; n < info->operand_count; n++) {
        const ZydisDecodedOperand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_POINTER || o->encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.disp.has_displacement) {
            if (e->disp != NONE || !raw->disp.size || o->mem.disp.value != raw->disp.value)
                return false;
            e->disp = (uint8_t)n;
        }
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->encoding != ZYDIS_OPERAND_ENCODING_NONE) {
            if (imms == 2 || !raw->imm[imms].size || o->imm.value.u != raw->imm[imms].value.u ||
                o->imm.is_signed != raw->imm[imms].is_signed)
                return false;
            e->imm[imms++] = (uint8_t)n;
        }
    }
    return (e->disp != NONE) == (raw->disp.size != 0) && (imms > 0) == (raw->imm[0].size != 0) &&
           (imms > 1) == (raw->imm[1].size != 0);
}

static size_t decoded_bytes(const ZydisDecodedInstruction *info)
{
    return sizeof(*info) + info->operand_count * sizeof(ZydisDecodedOperand);
}

static uint64_t number_at(const uint8_t *p, unsigned bits, bool is_signed)
{
    uint64_t value;
    unsigned unused = 64 - bits;

    memcpy(&value, p, 8);
    value <<= unused;
    return is_signed ? (uint64_t)((int64_t)value >> unused) : value >> unused;
}

/* A number is read as 8 bytes: bytes[0..23] are there. */
static void copy_out(const struct entry *e, const uint8_t bytes[24], struct insn *out)
{
    ZydisDecodedInstructionRaw *raw = &out->info.raw;

    memcpy(out, &e->decoded, decoded_bytes(&e->decoded.info));
    if (e->disp != NONE) {
        raw->disp.value = (int64_t)number_at(bytes + raw->disp.offset, raw->disp.size, true);
        out->operands[e->disp].mem.disp.value = raw->disp.value;
    }
    for (unsigned n = 0; n < 2 && e->imm[n] != NONE; n++) {
        raw->imm[n].value.u =
            number_at(bytes + raw->imm[n].offset, raw->imm[n].size, raw->imm[n].is_signed);
        out->operands[e->imm[n]].imm.value.u = raw->imm[n].value.u;
    }
    memset(out->bytes, 0, sizeof(out->bytes));
    memcpy(out->bytes, bytes, out->info.length);
}

enum decode_result x86_decode_cached(struct decode_cache *cache, enum x86_code_size size,
                                     bool real_mode, const uint8_t *bytes, size_t available,
                                     struct insn *out)
{
    uint8_t padded[24] = {0};
    enum decode_result result;
    struct entry *e = NULL;
    unsigned head;
    uint64_t key;

    if (available < sizeof(padded)) {
        memcpy(padded, bytes, available);
        bytes = padded;
    }
    head = head_length(size, bytes);
    key = key_of(bytes, head, size, real_mode);
    if (head) {
        e = slot_of(cache, key);
        if (e->key == key) {
            if (e->decoded.info.length > available)
                return DECODE_MORE;
            copy_out(e, bytes, out);
            return DECODE_OK;
        }
    }
    result = x86_decode(size, real_mode, bytes, available, out);
    if (head && result == DECODE_OK) {
        e->key = 0;
        if (is_regular(out, head, e)) {
            e->key = key;
            memcpy(&e->decoded, out, decoded_bytes(&out->info));
        }
    }
    return result;
}
