/*
 * decode.c - bytes to struct insn
 *
 * A thin wrapper over Zydis that fixes which processor the bytes are decoded for: one
 * without MPX, CET, WBNOINVD and CLDEMOTE (their encodings are then the reserved NOPs,
 * BOUND-prefixed branches and WBINVD that such a processor executes), with LZCNT and TZCNT, and
 * with Intel's treatment of operand-size prefixes on near branches. Whether the CPU
 * model has the instruction at all is the engine's question, by info.meta.isa_ext.
 *
 * Left out: no check of privilege, mode (beyond what the encoding means in that
 * mode) or features.
 */
#include "x86/decode.h"

#include <assert.h>
#include <string.h>

#include <Zydis/Zydis.h>

/* Instruction and stack width of each code size; real mode decodes fewer encodings. */
static const struct {
    ZydisMachineMode machine_mode;
    ZydisStackWidth stack_width;
} code_sizes[X86_CODE_SIZE_COUNT] = {
    [X86_CODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
    [X86_CODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
    [X86_CODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
};

static const ZydisDecoderMode extensions_off[] = {
    ZYDIS_DECODER_MODE_MPX,
    ZYDIS_DECODER_MODE_CET,
    ZYDIS_DECODER_MODE_CLDEMOTE,
};

/* A few stores: cheaper than sharing initialised decoders between threads is worth. */
static void decoder_init(ZydisDecoder *decoder, enum x86_code_size size, bool real_mode)
{
    ZydisMachineMode mode = code_sizes[size].machine_mode;

    if (real_mode && size == X86_CODE_16)
        mode = ZYDIS_MACHINE_MODE_REAL_16;
    ZydisDecoderInit(decoder, mode, code_sizes[size].stack_width);
    for (size_t i = 0; i < sizeof(extensions_off) / sizeof(extensions_off[0]); i++)
        ZydisDecoderEnableMode(decoder, extensions_off[i], ZYAN_FALSE);
}

static enum decode_result result_of(ZyanStatus status)
{
    if (ZYAN_SUCCESS(status))
        return DECODE_OK;
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return DECODE_MORE;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;
    return DECODE_INVALID; /* undefined opcode, LOCK where it may not be, bad register, ... */
}

/* VEX, EVEX and XOP do not exist in real and virtual-8086 mode (SDM vol. 2, 2.3.1). */
static bool needs_protected_mode(const ZydisDecodedInstruction *info)
{
    return info->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
           info->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
           info->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP;
}

/* Knights Corner has encodings of its own, which every other processor refuses. */
static bool is_knights_corner(const ZydisDecodedInstruction *info)
{
    return info->meta.isa_ext == ZYDIS_ISA_EXT_KNC || info->meta.isa_ext == ZYDIS_ISA_EXT_KNCE ||
           info->meta.isa_ext == ZYDIS_ISA_EXT_KNCV;
}

/*
 * A SIB byte with base 101b and mod 00b has a displacement and no base, whatever REX.B says
 * (SDM vol. 2, table 2-3); with 32-bit addresses the library takes it for R13D without one.
 */
static void mend_sib(const ZydisDecodedInstruction *info, ZydisDecodedOperand *operands)
{
    if (!(info->attributes & ZYDIS_ATTRIB_HAS_SIB) || info->raw.modrm.mod != 0 ||
        info->raw.sib.base != 5 || info->address_width == 16)
        return;
    for (unsigned n = 0; n < info->operand_count; n++) {
        ZydisDecodedOperand *o = &operands[n];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY ||
            o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        o->mem.base = ZYDIS_REGISTER_NONE;
        o->mem.disp.has_displacement = ZYAN_TRUE;
        o->mem.disp.value = info->raw.disp.value;
    }
}

/* As x86_decode, in the library's words. */
static enum decode_result decode(enum x86_code_size size, bool real_mode, const uint8_t *bytes,
                                 size_t available, ZydisDecodedInstruction *info,
                                 ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT])
{
    ZydisDecoder decoder;
    enum decode_result result;

    if (available == 0)
        return DECODE_MORE;
    if (available > X86_MAX_INSN_BYTES)
        available = X86_MAX_INSN_BYTES;
    decoder_init(&decoder, size, real_mode);
    result = result_of(ZydisDecoderDecodeFull(&decoder, bytes, available, info, operands));
    if (result != DECODE_OK)
        return result;
    if (is_knights_corner(info) || (real_mode && needs_protected_mode(info)))
        return DECODE_INVALID;
    mend_sib(info, operands);
    return DECODE_OK;
}

/* ---- the library's instruction in our words ---- */

static void take_raw(struct insn_raw *to, const ZydisDecodedInstruction *from)
{
    const ZydisDecodedInstructionRaw *raw = &from->raw;

    to->prefix_count = raw->prefix_count;
    for (unsigned n = 0; n < raw->prefix_count; n++)
        if (raw->prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            to->mandatory_prefix = raw->prefixes[n].value;
    switch (from->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        to->rex.W = raw->rex.W;
        to->rex.R = raw->rex.R;
        to->rex.X = raw->rex.X;
        to->rex.B = raw->rex.B;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        to->vex.R = raw->vex.R;
        to->vex.X = raw->vex.X;
        to->vex.B = raw->vex.B;
        to->vex.m_mmmm = raw->vex.m_mmmm;
        to->vex.W = raw->vex.W;
        to->vex.vvvv = raw->vex.vvvv;
        to->vex.L = raw->vex.L;
        to->vex.pp = raw->vex.pp;
        to->vex.offset = raw->vex.offset;
        to->vex.size = raw->vex.size;
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        to->evex.R = raw->evex.R;
        to->evex.X = raw->evex.X;
        to->evex.B = raw->evex.B;
        to->evex.vvvv = raw->evex.vvvv;
        to->evex.offset = raw->evex.offset;
        break;
    default:
        break;
    }
    to->modrm.mod = raw->modrm.mod;
    to->modrm.reg = raw->modrm.reg;
    to->modrm.rm = raw->modrm.rm;
    to->modrm.offset = raw->modrm.offset;
    to->sib.scale = raw->sib.scale;
    to->sib.index = raw->sib.index;
    to->sib.base = raw->sib.base;
    to->sib.offset = raw->sib.offset;
    to->disp.value = raw->disp.value;
    to->disp.size = raw->disp.size;
    to->disp.offset = raw->disp.offset;
    for (unsigned n = 0; n < 2; n++) {
        to->imm[n].value.u = raw->imm[n].value.u;
        to->imm[n].is_signed = raw->imm[n].is_signed;
        to->imm[n].is_relative = raw->imm[n].is_relative;
        to->imm[n].size = raw->imm[n].size;
        to->imm[n].offset = raw->imm[n].offset;
    }
}

static_assert(ZYDIS_CATEGORY_MAX_VALUE < 256 && ZYDIS_ISA_SET_MAX_VALUE < 256 &&
                  ZYDIS_ISA_EXT_MAX_VALUE < 256 && ZYDIS_EXCEPTION_CLASS_MAX_VALUE < 256 &&
                  ZYDIS_OPERAND_ENCODING_MAX_VALUE < 256,
              "they are kept in bytes");

static void take_info(struct insn_info *to, const ZydisDecodedInstruction *from)
{
    memset(to, 0, sizeof(*to));
    to->attributes = from->attributes;
    to->cpu_flags = from->cpu_flags;
    to->mnemonic = (uint16_t)from->mnemonic;
    to->machine_mode = (uint8_t)from->machine_mode;
    to->encoding = (uint8_t)from->encoding;
    to->opcode_map = (uint8_t)from->opcode_map;
    to->opcode = from->opcode;
    to->length = from->length;
    to->operand_width = from->operand_width;
    to->address_width = from->address_width;
    to->operand_count = from->operand_count;
    to->operand_count_visible = from->operand_count_visible;
    to->meta.category = (uint8_t)from->meta.category;
    to->meta.isa_set = (uint8_t)from->meta.isa_set;
    to->meta.isa_ext = (uint8_t)from->meta.isa_ext;
    to->meta.branch_type = (uint8_t)from->meta.branch_type;
    to->meta.exception_class = (uint8_t)from->meta.exception_class;
    to->avx.vector_length = from->avx.vector_length;
    to->avx.mask.reg = (uint16_t)from->avx.mask.reg;
    to->avx.broadcast.mode = (uint8_t)from->avx.broadcast.mode;
    take_raw(&to->raw, from);
}

static void take_operand(struct insn_operand *to, const ZydisDecodedOperand *from)
{
    memset(to, 0, sizeof(*to));
    to->type = (uint8_t)from->type;
    to->visibility = (uint8_t)from->visibility;
    to->actions = from->actions;
    to->encoding = (uint8_t)from->encoding;
    to->attributes = from->attributes;
    to->size = from->size;
    to->element_size = from->element_size;
    to->element_count = from->element_count;
    switch (from->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        to->reg.value = (uint16_t)from->reg.value;
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        to->mem.type = (uint8_t)from->mem.type;
        to->mem.scale = from->mem.scale;
        to->mem.segment = (uint16_t)from->mem.segment;
        to->mem.base = (uint16_t)from->mem.base;
        to->mem.index = (uint16_t)from->mem.index;
        to->mem.disp.value = from->mem.disp.value;
        break;
    case ZYDIS_OPERAND_TYPE_POINTER:
        to->ptr.segment = from->ptr.segment;
        to->ptr.offset = from->ptr.offset;
        break;
    default:
        to->imm.is_signed = from->imm.is_signed;
        to->imm.is_relative = from->imm.is_relative;
        to->imm.value.u = from->imm.value.u;
    }
}

enum decode_result x86_decode(enum x86_code_size size, bool real_mode, const uint8_t *bytes,
                              size_t available, struct insn *out)
{
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    enum decode_result result = decode(size, real_mode, bytes, available, &info, operands);

    if (result != DECODE_OK)
        return result;
    take_info(&out->info, &info);
    for (unsigned n = 0; n < info.operand_count; n++)
        take_operand(&out->operands[n], &operands[n]);
    memset(out->bytes, 0, sizeof(out->bytes));
    memcpy(out->bytes, bytes, info.length);
    return DECODE_OK;
}

size_t x86_disassemble(enum x86_code_size size, const uint8_t *bytes, size_t available,
                       uint64_t rip, char *text, size_t text_size)
{
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter formatter;

    if (decode(size, false, bytes, available, &info, operands) != DECODE_OK)
        return 0;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    if (ZYAN_FAILED(ZydisFormatterFormatInstruction(&formatter, &info, operands,
                                                    info.operand_count_visible, text, text_size,
                                                    rip, ZYAN_NULL)))
        return 0;
    return info.length;
}
