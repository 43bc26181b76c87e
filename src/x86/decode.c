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
static void mend_sib(struct insn *insn)
{
    const ZydisDecodedInstruction *info = &insn->info;

    if (!(info->attributes & ZYDIS_ATTRIB_HAS_SIB) || info->raw.modrm.mod != 0 ||
        info->raw.sib.base != 5 || info->address_width == 16)
        return;
    for (unsigned n = 0; n < info->operand_count; n++) {
        ZydisDecodedOperand *o = &insn->operands[n];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY ||
            o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            continue;
        o->mem.base = ZYDIS_REGISTER_NONE;
        o->mem.disp.has_displacement = ZYAN_TRUE;
        o->mem.disp.value = info->raw.disp.value;
    }
}

enum decode_result x86_decode(enum x86_code_size size, bool real_mode, const uint8_t *bytes,
                              size_t available, struct insn *out)
{
    ZydisDecoder decoder;
    enum decode_result result;

    if (available == 0)
        return DECODE_MORE;
    if (available > X86_MAX_INSN_BYTES)
        available = X86_MAX_INSN_BYTES;
    decoder_init(&decoder, size, real_mode);
    result =
        result_of(ZydisDecoderDecodeFull(&decoder, bytes, available, &out->info, out->operands));
    if (result != DECODE_OK)
        return result;
    if (is_knights_corner(&out->info) || (real_mode && needs_protected_mode(&out->info)))
        return DECODE_INVALID;
    mend_sib(out);
    memset(out->bytes, 0, sizeof(out->bytes));
    memcpy(out->bytes, bytes, out->info.length);
    return DECODE_OK;
}

size_t x86_disassemble(enum x86_code_size size, const uint8_t *bytes, size_t available,
                       uint64_t rip, char *text, size_t text_size)
{
    struct insn insn;
    ZydisFormatter formatter;

    if (x86_decode(size, false, bytes, available, &insn) != DECODE_OK)
        return 0;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    if (ZYAN_FAILED(ZydisFormatterFormatInstruction(&formatter, &insn.info, insn.operands,
                                                    insn.info.operand_count_visible, text,
                                                    text_size, rip, ZYAN_NULL)))
        return 0;
    return insn.info.length;
}
