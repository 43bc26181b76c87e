/*
 * rewrite.c - the guest's instruction with other registers and another memory operand
 *
 * What is copied byte by byte: prefixes that mean something to the operation, the opcode and
 * immediates. What is made new: the register fields of general registers, the memory operand
 * ([base + index + disp]), and the bits of REX, VEX and EVEX that extend them (SDM vol. 2, 2.1
 * to 2.7). Opcodes that 64-bit code has not are replaced by those that mean the same.
 */
#include "engine/translator/builder.h"

struct fields {
    unsigned reg, rm, vvvv; /* 4 bits each; rm also stands for the register in the opcode */
    unsigned x;             /* fourth bit of the index; in EVEX the fifth of a vector register */
    unsigned opcode;
    bool has_modrm, w_is_ignored; /* W of VEX and EVEX */
};

static bool is_64bit(const struct insn *insn)
{
    return insn->info.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
}

static bool is_address_prefix(unsigned byte)
{
    return byte == 0x67 || byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e ||
           byte == 0x64 || byte == 0x65;
}

static bool has_high_byte(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && is_high_byte(o->reg.value))
            return true;
    }
    return false;
}

/* [base + index + disp]. EVEX scales a displacement of 8 bits, so it gets one of 32. */
static void put_memory(struct emit *e, unsigned reg, const struct rewrite *r, bool is_evex)
{
    struct host_mem m = mem_index(r->base, r->index, 0, r->disp);

    if (is_evex) {
        put8(e, 0x84 | (reg & 7) << 3);
        put8(e, (r->index == NO_REG ? 4u : (unsigned)r->index & 7) << 3 | ((unsigned)r->base & 7));
        put32(e, (uint32_t)r->disp);
    } else {
        put_modrm_mem(e, reg, &m);
    }
}

static void put_modrm(struct emit *e, const struct insn *insn, const struct rewrite *r,
                      const struct fields *f)
{
    if (!f->has_modrm)
        return;
    if (r->memory)
        put_memory(e, f->reg, r, insn->info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX);
    else
        put8(e, 0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
}

static void put_immediates(struct emit *e, const struct insn *insn)
{
    unsigned first = insn->info.raw.imm[0].offset;

    if (!insn->info.raw.imm[0].size)
        return;
    put_bytes(e, insn->bytes + first, insn->info.length - first);
    for (unsigned n = 0; !is_64bit(insn) && n < insn->info.operand_count; n++)
        if (insn->operands[n].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            e->at[-1] &= 0x7f; /* bits 7-4 are the register */
}

static bool put_legacy(struct emit *e, const struct insn *insn, const struct rewrite *r,
                       const struct fields *f)
{
    const struct insn_info *info = &insn->info;
    unsigned rex = (unsigned)info->raw.rex.W << 3 | (f->reg >> 3 & 1) << 2 | (f->x & 1) << 1 |
                   (f->rm >> 3 & 1);

    for (unsigned n = 0; n < info->raw.prefix_count; n++) {
        unsigned byte = insn->bytes[n];

        if (!is_address_prefix(byte) && (byte & 0xf0) != 0x40)
            put8(e, byte);
    }
    if (rex || (info->attributes & ZYDIS_ATTRIB_HAS_REX)) {
        if (!r->no_high_byte && has_high_byte(insn))
            return false;
        put8(e, 0x40 | rex);
    }
    if (info->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        put8(e, 0x0f);
    if (info->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        put8(e, 0x38);
    else if (info->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        put8(e, 0x3a);
    else if (info->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT &&
             info->opcode_map != ZYDIS_OPCODE_MAP_0F)
        return false;
    put8(e, !f->has_modrm && r->rm != NO_REG ? (f->opcode & ~7u) | (f->rm & 7) : f->opcode);
    return true;
}

static void put_vex(struct emit *e, const struct insn *insn, const struct fields *f)
{
    const struct insn_raw *raw = &insn->info.raw;

    put8(e, 0xc4);
    put8(e, (~f->reg & 8) << 4 | (~f->x & 1) << 6 | (~f->rm & 8) << 2 | raw->vex.m_mmmm);
    put8(e, (unsigned)(raw->vex.W && !f->w_is_ignored) << 7 | (~f->vvvv & 15) << 3 |
                (unsigned)raw->vex.L << 2 | raw->vex.pp);
}

static void put_evex(struct emit *e, const struct insn *insn, const struct fields *f)
{
    const uint8_t *bytes = insn->bytes + insn->info.raw.evex.offset;
    bool high = is_64bit(insn); /* outside 64-bit code the fifth bits count for nothing */

    put8(e, 0x62);
    put8(e, (~f->reg & 8) << 4 | (~f->x & 1) << 6 | (~f->rm & 8) << 2 | (bytes[1] & 0x1f) |
                (high ? 0 : 0x10));
    put8(e, (bytes[2] & (f->w_is_ignored ? 7u : 0x87u)) | (~f->vvvv & 15) << 3);
    put8(e, bytes[3] | (high ? 0 : 0x08));
}

static void replace_opcode(const struct insn *insn, struct fields *f)
{
    unsigned opcode = insn->info.opcode;

    if (is_moffs(insn)) {
        f->opcode = 0x88 | (~opcode & 2) | (opcode & 1);
        f->reg = RAX; /* whatever REX.R says */
        f->has_modrm = true;
    } else if (!is_64bit(insn) && insn->info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
        if ((opcode & 0xf0) == 0x40) { /* INC, DEC of a register: FF /0, /1 */
            f->opcode = 0xff;
            f->reg = opcode >> 3 & 1;
            f->has_modrm = true;
        } else if (opcode == 0x82) { /* the same as 80 */
            f->opcode = 0x80;
        }
    }
}

/* SDM vol. 2, 2.3.5 and 2.7.1: no high registers, W says nothing about general registers. */
static void limit_fields(const struct insn *insn, struct fields *f)
{
    f->reg &= 7;
    f->rm &= 7;
    f->vvvv &= 7;
    f->x = 0;
    f->w_is_ignored =
        host_stub_w_is_width(insn) || (insn->operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                                       gpr_of(insn->operands[0].reg.value) != NO_REG);
}

/* The fields as the guest's instruction has them. */
static void guest_fields(const struct insn *insn, struct fields *f)
{
    const struct insn_raw *raw = &insn->info.raw;

    *f = (struct fields){.reg = raw->modrm.reg,
                         .rm = raw->modrm.rm,
                         .opcode = insn->info.opcode,
                         .has_modrm = insn->info.attributes & ZYDIS_ATTRIB_HAS_MODRM};
    switch (insn->info.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        /* Zydis has these bits as they stand, inverted; a two-byte prefix has only R. */
        f->reg |= raw->vex.R ? 0 : 8u;
        f->rm |= raw->vex.size == 3 && !raw->vex.B ? 8u : 0;
        f->vvvv = ~(unsigned)raw->vex.vvvv & 15;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        f->reg |= raw->evex.R ? 0 : 8u;
        f->rm |= raw->evex.B ? 0 : 8u;
        f->x = raw->evex.X ? 0 : 1u;
        f->vvvv = ~(unsigned)raw->evex.vvvv & 15;
        break;
    default:
        f->reg |= raw->rex.R ? 8u : 0;
        f->rm |= raw->rex.B ? 8u : 0;
        replace_opcode(insn, f);
    }
    if (!is_64bit(insn))
        limit_fields(insn, f);
}

bool rewrite_insn(struct emit *e, const struct insn *insn, const struct rewrite *r)
{
    struct fields f;

    guest_fields(insn, &f);
    if (r->reg != NO_REG)
        f.reg = (unsigned)r->reg;
    if (r->vvvv != NO_REG)
        f.vvvv = (unsigned)r->vvvv;
    if (r->rm != NO_REG)
        f.rm = (unsigned)r->rm;
    if (r->memory) {
        f.rm = (unsigned)r->base;
        f.x = r->index == NO_REG ? 0 : (unsigned)r->index >> 3;
    }
    switch (insn->info.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        if (!put_legacy(e, insn, r, &f))
            return false;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        put_vex(e, insn, &f);
        put8(e, insn->info.opcode);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        put_evex(e, insn, &f);
        put8(e, insn->info.opcode);
        break;
    default:
        return false;
    }
    put_modrm(e, insn, r, &f);
    put_immediates(e, insn);
    return true;
}
