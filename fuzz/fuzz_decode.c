/*
 * fuzz_decode.c - the decoder on any bytes, with Capstone as a second opinion on lengths
 *
 * Input: a byte that chooses code size and real mode, then the bytes. Checked:
 * - a result does not depend on bytes after the instruction, and DECODE_MORE only on fewer than 15;
 * - the cache of decoded instructions says the same, also of what it has seen before;
 * - a decoded instruction decodes alike alone, and every proper prefix of it asks for more;
 * - Capstone, where it knows the instruction too, finds the same length;
 * - the text of a listing fits and has the same length.
 */
#include <capstone/capstone.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/decode.h"

#include <Zydis/Zydis.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok, const char *what, const uint8_t *bytes, size_t size)
{
    if (ok)
        return;
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; i < size; i++)
        fprintf(stderr, " %02x", bytes[i]);
    fprintf(stderr, "\n");
    abort();
}

static csh capstone_for(enum x86_code_size size)
{
    static const cs_mode modes[X86_CODE_SIZE_COUNT] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
    static csh handles[X86_CODE_SIZE_COUNT];

    if (!handles[size] && cs_open(CS_ARCH_X86, modes[size], &handles[size]) != CS_ERR_OK)
        abort();
    return handles[size];
}

/*
 * Where Capstone 4.0.2 follows AMD or is wrong:
 * - UD0 and UD1 without their ModRM byte (either way it is #UD);
 * - 66 on near branches in 64-bit code makes the offset 16 bits, as on AMD's processors;
 * - several of 66, 67, REPx and REX.W on an instruction with an immediate;
 * - EXTRQ and INSERTQ (SSE4A, in no CPU model) are taken for VMREAD and VMWRITE, and those with 67
 *   and REX.W the other way round;
 * - EVEX with rounding in registers or redundant prefixes: displacement bytes that are not there.
 */
static bool capstone_differs(enum x86_code_size size, const struct insn *insn)
{
    const struct insn_info *info = &insn->info;
    bool size_prefix = false;
    unsigned prefixes = 0;

    for (unsigned i = 0; i < info->raw.prefix_count; i++) {
        uint8_t value = insn->bytes[i];

        size_prefix |= value == 0x66;
        prefixes += value == 0x66 || value == 0x67 || value == 0xf2 || value == 0xf3 ||
                    (size == X86_CODE_64 && (value & 0xf8) == 0x48);
    }
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_EXTRQ:
    case ZYDIS_MNEMONIC_INSERTQ:
    case ZYDIS_MNEMONIC_VMREAD:
    case ZYDIS_MNEMONIC_VMWRITE:
        return true;
    default:
        break;
    }
    if (info->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return true;
    if (info->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR && size == X86_CODE_64 && size_prefix)
        return true;
    return prefixes > 1 && info->raw.imm[0].size;
}

static void compare(enum x86_code_size size, const uint8_t *bytes, size_t available,
                    const struct insn *insn)
{
    cs_insn *other;
    size_t count = cs_disasm(capstone_for(size), bytes, available, 0, 1, &other);

    if (count == 0)
        return;
    if (other->size != insn->info.length && !capstone_differs(size, insn)) {
        fprintf(stderr, "%s %s: %u bytes; ours %s: %u\n", other->mnemonic, other->op_str,
                other->size, ZydisMnemonicGetString(insn->info.mnemonic), insn->info.length);
        check(false, "lengths differ", bytes, available);
    }
    cs_free(other, count);
}

static void check_decoded(enum x86_code_size size, bool real_mode, const uint8_t *bytes,
                          size_t available, const struct insn *insn)
{
    size_t length = insn->info.length;
    struct insn again;
    char text[96];

    check(length > 0 && length <= available && length <= X86_MAX_INSN_BYTES, "length", bytes,
          available);
    check(memcmp(insn->bytes, bytes, length) == 0, "bytes", bytes, available);
    check(x86_decode(size, real_mode, bytes, length, &again) == DECODE_OK &&
              again.info.length == length && again.info.mnemonic == insn->info.mnemonic,
          "depends on later bytes", bytes, available);
    for (size_t n = 0; n < length; n++)
        check(x86_decode(size, real_mode, bytes, n, &again) == DECODE_MORE, "prefix", bytes,
              available);
    if (!real_mode) {
        check(x86_disassemble(size, bytes, available, 0, text, sizeof(text)) == length, "listing",
              bytes, available);
        check(strlen(text) < sizeof(text), "text", bytes, available);
        compare(size, bytes, available, insn);
    }
}

static void check_cached(enum x86_code_size size, bool real_mode, const uint8_t *bytes,
                         size_t available, enum decode_result result, const struct insn *insn)
{
    static struct decode_cache *cache;
    struct insn cached;

    if (!cache)
        cache = decode_cache_new();
    for (unsigned turn = 0; cache && turn < 2; turn++) {
        check(x86_decode_cached(cache, size, real_mode, bytes, available, &cached) == result,
              "result from the cache", bytes, available);
        check(result != DECODE_OK ||
                  (!memcmp(&cached.info, &insn->info, sizeof(cached.info)) &&
                   !memcmp(cached.operands, insn->operands,
                           insn->info.operand_count * sizeof(insn->operands[0]))),
              "from the cache", bytes, available);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum x86_code_size code_size;
    bool real_mode;
    struct insn insn;
    enum decode_result result;

    if (size < 2)
        return -1;
    code_size = (enum x86_code_size)(data[0] % X86_CODE_SIZE_COUNT);
    real_mode = code_size != X86_CODE_64 && (data[0] & 0x80);
    data++;
    size--;
    result = x86_decode(code_size, real_mode, data, size, &insn);
    check_cached(code_size, real_mode, data, size, result, &insn);
    if (result == DECODE_OK)
        check_decoded(code_size, real_mode, data, size, &insn);
    else if (result == DECODE_MORE)
        check(size < X86_MAX_INSN_BYTES, "more than 15 bytes asked for", data, size);
    return 0;
}
