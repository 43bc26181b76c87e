/*
 * decode_cache.c - decoded instructions, found by as few of their bytes as decide what they are
 *
 * Theory of operation. Prefixes, opcode, ModRM and SIB (the head) decide what an instruction is,
 * how long it is and where displacement and immediates are; these are only numbers. Of most opcodes
 * ModRM and SIB only name registers, or one of the 24 forms of an address: such an instruction is
 * found by its shape, which is prefixes, REX.W, opcode, whether ModRM names memory, and its reg
 * field where that is a part of the opcode. Other heads are looked for whole.
 *
 * An entry is what the decoder made of an instruction of that shape or head; a hit copies it and
 * puts the new registers, address and numbers in. Nothing is entered that this would not give the
 * same instruction back for which it was made. To find the end of a head it has to be known
 * which opcodes have a ModRM byte; what the decoder says is compared, so a wrong bit there costs
 * time only. A wrong bit in by_register or by_group would give wrong instructions: the unit
 * test compares all of them with the decoder.
 *
 * Left out, so never in the cache: heads of more than 7 bytes, EVEX (it scales displacements), XOP,
 * 3DNow! (its opcode is where an immediate would be), far pointers, a register in an immediate.
 */
#include "x86/decode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BITS   12
#define MAX_OPERANDS 6u
#define FEW_OPERANDS 3u /* as most instructions have */
#define MAX_HEAD     7u
#define NONE         0xff

enum register_kind { OTHER_REGISTER, BYTE_REGISTER, EXTENDED_REGISTER, MMX_REGISTER };

struct entry {
    uint64_t key; /* of a shape or a head; 0: empty */
    uint8_t disp; /* operand with the displacement, or NONE */
    uint8_t imm[2];
    uint8_t reg, rm; /* of a shape: operands that these fields of ModRM decide about, or NONE */
    uint8_t reg_kind, rm_kind;
    uint16_t reg_first, rm_first; /* registers of number 0 */
    struct insn_info info;
    struct insn_operand operands[MAX_OPERANDS];
};

/* Of an opcode. */
enum { HAS_MODRM = 1, BY_REGISTER = 2, BY_GROUP = 4 };

struct decode_cache {
    uint8_t opcodes[2][256]; /* of the first map and of 0F */
    struct entry entries[1u << CACHE_BITS];
};

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

/* All that ModRM says is a register and a register or memory. */
static const uint8_t by_register_1[32] = {
    0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, 0x0f, /* 00: ALU */
    0x00, 0x00, 0x00, 0x00, 0x08, 0x0a, 0x00, 0x00, /* 40: MOVSXD, IMUL */
    0xf0, 0x2f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 80: TEST, XCHG, MOV, LEA */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* c0 */
};
static const uint8_t by_register_0f[32] = {
    0x00, 0x00, 0xff, 0x80, 0x00, 0xff, 0x00, 0x00, /* 00: SSE moves, NOP */
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x71, 0xf0, /* 40: CMOV, SSE */
    0x00, 0x00, 0x00, 0x00, 0x38, 0xb8, 0xcb, 0xf8, /* 80: BT, SHLD, IMUL, CMPXCHG, MOVZX, BSF */
    0x7f, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, /* c0: XADD, MOVNTI, SSE */
};
/* The same, but that the reg field is a part of the opcode, or means nothing. */
static const uint8_t by_group_1[32] = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 00 */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 40 */
    0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* 80: ALU */
    0xc3, 0x00, 0x0f, 0x00, 0x00, 0x00, 0xc0, 0xc0, /* c0: shifts, MOV, NEG, INC */
};
static const uint8_t by_group_0f[32] = {
    0x00, 0x20, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, /* 00: prefetches */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0e, 0x00, /* 40: SSE shifts */
    0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x04, /* 80: SETcc, BT */
    0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* c0: CMPXCHG8B */
};

static bool bit(const uint8_t map[32], unsigned n)
{
    return map[n / 8] >> (n % 8) & 1;
}

static uint8_t opcode_flags(unsigned n, const uint8_t *modrm, const uint8_t *reg,
                            const uint8_t *group)
{
    return (bit(modrm, n) ? HAS_MODRM : 0) | (bit(reg, n) ? BY_REGISTER : 0) |
           (bit(group, n) ? BY_GROUP : 0);
}

struct decode_cache *decode_cache_new(void)
{
    struct decode_cache *cache = calloc(1, sizeof(struct decode_cache));

    for (unsigned n = 0; cache && n < 256; n++) {
        cache->opcodes[0][n] = opcode_flags(n, modrm_1, by_register_1, by_group_1);
        cache->opcodes[1][n] = opcode_flags(n, modrm_0f, by_register_0f, by_group_0f);
    }
    return cache;
}

void decode_cache_free(struct decode_cache *cache)
{
    free(cache);
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

struct head {
    uint64_t key;
    unsigned length; /* bytes; 0: not one for the cache */
    unsigned rex, modrm, sib;
    bool has_shape, has_sib;
};

/* What is behind the prefixes in a shape's key. */
#define SHAPE_SIZE   32
#define SHAPE_REAL   34
#define SHAPE_MAP    35
#define SHAPE_OPCODE 36
#define SHAPE_MEMORY 44
#define SHAPE_GROUP  45           /* the reg field and 8, if it is a part of the opcode */
#define SHAPE        (1ull << 63) /* no other key has it */

/*
 * The instruction has a shape: its opcode has one of the flags, at most 3 prefixes and REX come
 * before it, addresses are not of 16 bits. ModRM is at p.
 */
static void read_shape(struct head *h, uint64_t key, const uint8_t *bytes, unsigned prefixes,
                       const uint8_t *p, unsigned flags)
{
    uint32_t before;
    bool memory;

    h->modrm = p[0];
    memory = h->modrm < 0xc0;
    h->has_shape = true;
    h->has_sib = memory && (h->modrm & 7) == 4;
    h->sib = h->has_sib ? p[1] : 0;
    h->length = (unsigned)(p - bytes) + 1 + h->has_sib;
    memcpy(&before, bytes, 4);
    before &= (1u << (8 * prefixes)) - 1;
    before |= (h->rex ? 0x40u | (h->rex & 8) : 0) << 24;
    h->key = key | before | (uint64_t)memory << SHAPE_MEMORY |
             (flags & BY_GROUP ? (uint64_t)((h->modrm >> 3 & 7) | 8) << SHAPE_GROUP : 0) | SHAPE;
}

/* Behind an opcode without a shape, which begins at p. Returns where, or NULL to give up. */
static const uint8_t *skip_head(const struct decode_cache *cache, bool is_64, bool narrow,
                                const uint8_t *p)
{
    unsigned opcode = *p++;
    bool modrm = true;

    if (is_64 && (opcode == 0xc4 || opcode == 0xc5)) { /* VEX */
        p += opcode == 0xc4 ? 2 : 1;
        modrm = *p++ != 0x77; /* VZEROUPPER */
    } else if (opcode == 0x62 || opcode == 0xc4 || opcode == 0xc5 || opcode == 0x8f) {
        return NULL;
    } else if (opcode != 0x0f) {
        modrm = cache->opcodes[0][opcode] & HAS_MODRM;
    } else {
        opcode = *p++;
        if (opcode == 0x38 || opcode == 0x3a)
            p++;
        else if (opcode == 0x0f)
            return NULL;
        else
            modrm = cache->opcodes[1][opcode] & HAS_MODRM;
    }
    if (modrm) {
        unsigned byte = *p++;

        if (byte < 0xc0 && (byte & 7) == 4 && !narrow)
            p++; /* SIB */
    }
    return p;
}

/*
 * The head at bytes[0..15]. If it is longer than the bytes that are there, so is the instruction,
 * and the decoder has not accepted it.
 */
static void read_head(const struct decode_cache *cache, struct head *h, enum x86_code_size size,
                      bool real_mode, const uint8_t bytes[16])
{
    const uint8_t *p = bytes, *opcode;
    bool address_prefix = false, is_64 = size == X86_CODE_64, is_rex, map, narrow;
    unsigned prefixes, flags;
    uint64_t key;

    h->length = 0;
    h->has_shape = h->has_sib = false;
    while (is_prefix(*p)) {
        address_prefix |= *p++ == 0x67;
        if (p == bytes + MAX_HEAD)
            return;
    }
    prefixes = (unsigned)(p - bytes);
    is_rex = is_64 && (*p & 0xf0) == 0x40;
    h->rex = is_rex ? *p : 0;
    p += is_rex;
    opcode = p;
    map = *p == 0x0f;
    p += map;
    flags = cache->opcodes[map][*p];
    narrow = size == X86_CODE_16 ? !address_prefix : size == X86_CODE_32 && address_prefix;
    if (flags & (BY_REGISTER | BY_GROUP) && prefixes <= 3 && !narrow) {
        key = (uint64_t)size << SHAPE_SIZE | (uint64_t)real_mode << SHAPE_REAL |
              (uint64_t)map << SHAPE_MAP | (uint64_t)*p << SHAPE_OPCODE;
        read_shape(h, key, bytes, prefixes, p + 1, flags);
        return;
    }
    p = skip_head(cache, is_64, narrow, opcode);
    if (!p || p > bytes + MAX_HEAD)
        return;
    h->length = (unsigned)(p - bytes);
    memcpy(&key, bytes, 8);
    h->key = (key & ((1ull << (8 * h->length)) - 1)) |
             (uint64_t)(h->length << 3 | (unsigned)size << 1 | real_mode) << 56;
}

static struct entry *slot_of(struct decode_cache *cache, uint64_t key)
{
    return &cache->entries[key * 0x9e3779b97f4a7c15ull >> (64 - CACHE_BITS)];
}

/* ---- from an entry to an instruction ---- */

static uint64_t number_at(const uint8_t *p, unsigned bits, bool is_signed)
{
    uint64_t value;
    unsigned unused = 64 - bits;

    memcpy(&value, p, 8);
    value <<= unused;
    return is_signed ? (uint64_t)((int64_t)value >> unused) : value >> unused;
}

static uint16_t register_of(unsigned kind, unsigned first, unsigned number, bool rex)
{
    if (kind == BYTE_REGISTER && rex && number >= 4) /* SPL, not AH, and so on */
        number += ZYDIS_REGISTER_SPL - ZYDIS_REGISTER_AH;
    else if (kind == MMX_REGISTER)
        number &= 7;
    return (uint16_t)(first + number);
}

/* The address that ModRM and SIB name (SDM vol. 2, tables 2-2 and 2-3), of 32 or 64 bits. */
static void put_address(const struct entry *e, const struct head *h, struct insn *out)
{
    struct insn_info *info = &out->info;
    struct insn_raw *raw = &info->raw;
    struct insn_operand *o = &out->operands[e->rm];
    bool wide = info->address_width == 64;
    unsigned first = wide ? ZYDIS_REGISTER_RAX : ZYDIS_REGISTER_EAX, mod = h->modrm >> 6;
    unsigned base = h->has_sib ? h->sib & 7 : h->modrm & 7, extended = h->rex & 1 ? base | 8 : base;
    bool no_base = mod == 0 && base == 5;

    raw->sib.scale = (uint8_t)(h->sib >> 6);
    raw->sib.index = h->sib >> 3 & 7;
    raw->sib.base = h->sib & 7;
    raw->sib.offset = h->has_sib ? raw->modrm.offset + 1 : 0;
    raw->disp.size = no_base || mod == 2 ? 32 : mod == 1 ? 8 : 0;
    raw->disp.offset = raw->disp.size ? (uint8_t)h->length : 0;
    info->attributes &= ~(ZYDIS_ATTRIB_HAS_SIB | ZYDIS_ATTRIB_IS_RELATIVE);
    info->attributes |= h->has_sib ? ZYDIS_ATTRIB_HAS_SIB : 0;
    o->mem.base = (uint16_t)(first + extended);
    if (no_base) {
        o->mem.base = ZYDIS_REGISTER_NONE;
        if (!h->has_sib && info->machine_mode == ZYDIS_MACHINE_MODE_LONG_64) {
            o->mem.base = wide ? ZYDIS_REGISTER_RIP : ZYDIS_REGISTER_EIP;
            info->attributes |= ZYDIS_ATTRIB_IS_RELATIVE;
        }
    }
    o->mem.index = ZYDIS_REGISTER_NONE;
    o->mem.scale = 0;
    if (h->has_sib) {
        unsigned index = (h->sib >> 3 & 7) | (h->rex & 2) << 2;

        if (index != 4) {
            o->mem.index = (uint16_t)(first + index);
            o->mem.scale = (uint8_t)(1u << (h->sib >> 6));
        }
    }
    if (!(info->attributes & ZYDIS_ATTRIB_HAS_SEGMENT))
        o->mem.segment =
            !no_base && (extended == 4 || extended == 5) ? ZYDIS_REGISTER_SS : ZYDIS_REGISTER_DS;
    o->mem.disp.value = 0;
}

/* SIB and displacement. */
static unsigned address_bytes(const struct insn_raw *raw)
{
    return (raw->sib.offset != 0) + raw->disp.size / 8u;
}

static void put_registers(const struct entry *e, const struct head *h, struct insn *out)
{
    struct insn_raw *raw = &out->info.raw;
    unsigned before = address_bytes(raw), longer;

    raw->rex.R = h->rex >> 2 & 1;
    raw->rex.X = h->rex >> 1 & 1;
    raw->rex.B = h->rex & 1;
    raw->modrm.mod = (uint8_t)(h->modrm >> 6);
    raw->modrm.reg = h->modrm >> 3 & 7;
    raw->modrm.rm = h->modrm & 7;
    if (e->reg != NONE)
        out->operands[e->reg].reg.value =
            register_of(e->reg_kind, e->reg_first, (h->modrm >> 3 & 7) | (h->rex & 4) << 1, h->rex);
    if (h->modrm >= 0xc0) {
        out->operands[e->rm].reg.value =
            register_of(e->rm_kind, e->rm_first, (h->modrm & 7) | (h->rex & 1) << 3, h->rex);
        return;
    }
    put_address(e, h, out);
    longer = address_bytes(raw) - before;
    out->info.length = (uint8_t)(out->info.length + longer);
    for (unsigned n = 0; n < 2; n++)
        if (raw->imm[n].size)
            raw->imm[n].offset = (uint8_t)(raw->imm[n].offset + longer);
}

/* The first bytes[0..length - 1], and zeros. */
static void put_first_bytes(const uint8_t bytes[X86_DECODE_BYTES], struct insn *out)
{
    unsigned length = out->info.length;
    uint64_t low, high;

    memcpy(&low, bytes, 8);
    memcpy(&high, bytes + 8, 8);
    low &= length < 8 ? (1ull << (8 * length)) - 1 : ~0ull;
    high &= length <= 8 ? 0 : (1ull << (8 * (length - 8))) - 1;
    memcpy(out->bytes, &low, 8);
    memcpy(out->bytes + 8, &high, sizeof(out->bytes) - 8);
}

/* A number is read as 8 bytes: bytes[0..23] are there. */
static void make_insn(const struct entry *e, const struct head *h,
                      const uint8_t bytes[X86_DECODE_BYTES], struct insn *out)
{
    struct insn_raw *raw = &out->info.raw;

    out->info = e->info;
    memcpy(out->operands, e->operands, FEW_OPERANDS * sizeof(e->operands[0]));
    for (unsigned n = FEW_OPERANDS; n < e->info.operand_count; n++)
        out->operands[n] = e->operands[n];
    if (h->has_shape)
        put_registers(e, h, out);
    raw->disp.value = 0;
    if (raw->disp.size) {
        raw->disp.value = (int64_t)number_at(bytes + raw->disp.offset, raw->disp.size, true);
        out->operands[e->disp].mem.disp.value = raw->disp.value;
    }
    for (unsigned n = 0; n < 2 && e->imm[n] != NONE; n++) {
        raw->imm[n].value.u =
            number_at(bytes + raw->imm[n].offset, raw->imm[n].size, raw->imm[n].is_signed);
        out->operands[e->imm[n]].imm.value.u = raw->imm[n].value.u;
    }
    put_first_bytes(bytes, out);
}

/* ---- from an instruction to an entry ---- */

/* Is what follows the head numbers only? Says which operands they belong to. */
static bool is_regular(const struct insn *insn, unsigned head, struct entry *e)
{
    const struct insn_info *info = &insn->info;
    const struct insn_raw *raw = &info->raw;
    unsigned imms = 0;

    if (info->operand_count > MAX_OPERANDS ||
        info->length != head + (raw->disp.size + raw->imm[0].size + raw->imm[1].size) / 8u)
        return false;
    e->disp = e->imm[0] = e->imm[1] = NONE;
    for (unsigned n = 0; n < info->operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_POINTER || o->encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->encoding != ZYDIS_OPERAND_ENCODING_NONE &&
            raw->disp.size) {
            if (e->disp != NONE || o->mem.disp.value != raw->disp.value)
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

static enum register_kind kind_of(unsigned reg, uint16_t *first)
{
    static const struct {
        uint16_t first, last;
        enum register_kind kind;
    } kinds[] = {
        {ZYDIS_REGISTER_AL, ZYDIS_REGISTER_R15B, BYTE_REGISTER},
        {ZYDIS_REGISTER_AX, ZYDIS_REGISTER_R15W, EXTENDED_REGISTER},
        {ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D, EXTENDED_REGISTER},
        {ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15, EXTENDED_REGISTER},
        {ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7, MMX_REGISTER},
        {ZYDIS_REGISTER_XMM0, ZYDIS_REGISTER_XMM15, EXTENDED_REGISTER},
    };

    for (unsigned n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
        if (reg >= kinds[n].first && reg <= kinds[n].last) {
            *first = kinds[n].first;
            return kinds[n].kind;
        }
    return OTHER_REGISTER;
}

/* Do the fields of ModRM name operands, in the way that put_registers does it? */
static bool has_shape(const struct insn *insn, struct entry *e, bool memory, bool group)
{
    e->reg = e->rm = NONE;
    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
            e->reg = (uint8_t)n;
            e->reg_kind = (uint8_t)kind_of(o->reg.value, &e->reg_first);
        } else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
            e->rm = (uint8_t)n;
            e->rm_kind = (uint8_t)kind_of(o->reg.value, &e->rm_first);
        }
    }
    if (e->rm == NONE || (e->reg == NONE) != group ||
        memory != (insn->operands[e->rm].type == ZYDIS_OPERAND_TYPE_MEMORY))
        return false;
    if (memory)
        e->disp = e->rm;
    return (group || e->reg_kind != OTHER_REGISTER) && (memory || e->rm_kind != OTHER_REGISTER);
}

static bool gives_back(const struct entry *e, const struct head *h,
                       const uint8_t bytes[X86_DECODE_BYTES], const struct insn *insn)
{
    struct insn again;

    make_insn(e, h, bytes, &again);
    return !memcmp(&again.info, &insn->info, sizeof(again.info)) &&
           !memcmp(again.operands, insn->operands,
                   insn->info.operand_count * sizeof(again.operands[0]));
}

static void enter(struct entry *e, const struct head *h, const uint8_t bytes[X86_DECODE_BYTES],
                  const struct insn *insn)
{
    bool memory = h->modrm < 0xc0, group = h->key >> SHAPE_GROUP & 8;

    e->key = 0;
    if (!is_regular(insn, h->length, e) || (h->has_shape && !has_shape(insn, e, memory, group)))
        return;
    e->info = insn->info;
    memcpy(e->operands, insn->operands, insn->info.operand_count * sizeof(e->operands[0]));
    if (gives_back(e, h, bytes, insn))
        e->key = h->key;
}

enum decode_result x86_decode_cached(struct decode_cache *cache, enum x86_code_size size,
                                     bool real_mode, const uint8_t *bytes, size_t available,
                                     struct insn *out)
{
    uint8_t padded[X86_DECODE_BYTES] = {0};
    enum decode_result result;
    struct entry *e = NULL;
    struct head head;

    if (available < sizeof(padded)) {
        memcpy(padded, bytes, available);
        bytes = padded;
    }
    read_head(cache, &head, size, real_mode, bytes);
    if (head.length) {
        e = slot_of(cache, head.key);
        if (e->key == head.key) {
            make_insn(e, &head, bytes, out);
            return out->info.length <= available ? DECODE_OK : DECODE_MORE;
        }
    }
    result = x86_decode(size, real_mode, bytes, available, out);
    if (head.length && result == DECODE_OK)
        enter(e, &head, bytes, out);
    return result;
}
