/* test_decode.c - what x86_decode accepts, refuses and calls incomplete */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "x86/decode.h"

#include <Zydis/Zydis.h>

struct decode_case {
    const char *name;
    enum x86_code_size size;
    bool real_mode;
    enum decode_result result;
    unsigned length; /* 0: not looked at */
    ZydisMnemonic mnemonic;
    unsigned available;
    uint8_t bytes[16];
};

#define OK(name, size, mnemonic, length, ...)                                                      \
    {                                                                                              \
        name, size, false, DECODE_OK, length, mnemonic, sizeof((uint8_t[]){__VA_ARGS__}),          \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define NOT(name, size, real, result, ...)                                                         \
    {                                                                                              \
        name, size, real, result, 0, ZYDIS_MNEMONIC_INVALID, sizeof((uint8_t[]){__VA_ARGS__}),     \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const struct decode_case cases[] = {
    OK("nop", X86_CODE_64, ZYDIS_MNEMONIC_NOP, 1, 0x90, 0xcc),
    OK("add rax, rbx", X86_CODE_64, ZYDIS_MNEMONIC_ADD, 3, 0x48, 0x01, 0xd8),
    OK("inc eax is a REX prefix in 64-bit code only", X86_CODE_32, ZYDIS_MNEMONIC_INC, 1, 0x40),
    OK("16-bit immediate", X86_CODE_16, ZYDIS_MNEMONIC_MOV, 3, 0xb8, 1, 2, 3, 4),
    OK("32-bit immediate", X86_CODE_32, ZYDIS_MNEMONIC_MOV, 5, 0xb8, 1, 2, 3, 4),
    OK("64-bit immediate", X86_CODE_64, ZYDIS_MNEMONIC_MOV, 10, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8),
    OK("66 is ignored on near branches", X86_CODE_64, ZYDIS_MNEMONIC_JMP, 6, 0x66, 0xe9, 0, 0, 0,
       0),
    OK("endbr64 is a nop", X86_CODE_64, ZYDIS_MNEMONIC_NOP, 4, 0xf3, 0x0f, 0x1e, 0xfa),
    OK("rdsspq is a nop", X86_CODE_64, ZYDIS_MNEMONIC_NOP, 5, 0xf3, 0x48, 0x0f, 0x1e, 0xc8),
    OK("bndmk is a nop", X86_CODE_64, ZYDIS_MNEMONIC_NOP, 4, 0xf3, 0x0f, 0x1b, 0x00),
    OK("bnd ret", X86_CODE_64, ZYDIS_MNEMONIC_RET, 2, 0xf2, 0xc3),
    OK("cldemote is a nop", X86_CODE_64, ZYDIS_MNEMONIC_NOP, 3, 0x0f, 0x1c, 0x00),
    OK("wbnoinvd is wbinvd", X86_CODE_64, ZYDIS_MNEMONIC_WBINVD, 3, 0xf3, 0x0f, 0x09),
    OK("lzcnt", X86_CODE_64, ZYDIS_MNEMONIC_LZCNT, 4, 0xf3, 0x0f, 0xbd, 0xc1),
    OK("tzcnt", X86_CODE_64, ZYDIS_MNEMONIC_TZCNT, 4, 0xf3, 0x0f, 0xbc, 0xc1),
    OK("mov cr8 through REX", X86_CODE_64, ZYDIS_MNEMONIC_MOV, 4, 0x44, 0x0f, 0x20, 0xc0),
    OK("lock on memory", X86_CODE_64, ZYDIS_MNEMONIC_ADD, 3, 0xf0, 0x01, 0x00),
    OK("15 bytes", X86_CODE_64, ZYDIS_MNEMONIC_NOP, 15, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
       0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90),
    OK("vex in protected mode", X86_CODE_16, ZYDIS_MNEMONIC_VZEROUPPER, 3, 0xc5, 0xf8, 0x77),
    OK("arpl", X86_CODE_16, ZYDIS_MNEMONIC_ARPL, 2, 0x63, 0xc0),

    NOT("lock on a register", X86_CODE_64, false, DECODE_INVALID, 0xf0, 0x01, 0xc0),
    NOT("lock on mov", X86_CODE_64, false, DECODE_INVALID, 0xf0, 0x89, 0x00),
    NOT("push es in 64-bit code", X86_CODE_64, false, DECODE_INVALID, 0x06),
    NOT("far call with pointer in 64-bit code", X86_CODE_64, false, DECODE_INVALID, 0x9a, 0, 0, 0,
        0, 0, 0, 0, 0),
    NOT("mov to cs", X86_CODE_32, false, DECODE_INVALID, 0x8e, 0xc8),
    NOT("cr1", X86_CODE_32, false, DECODE_INVALID, 0x0f, 0x20, 0xc8),
    NOT("lea of a register", X86_CODE_32, false, DECODE_INVALID, 0x8d, 0xc0),
    NOT("rex before vex", X86_CODE_64, false, DECODE_INVALID, 0x48, 0xc5, 0xf8, 0x77),
    NOT("arpl in real mode", X86_CODE_16, true, DECODE_INVALID, 0x63, 0xc0),
    NOT("lldt in real mode", X86_CODE_16, true, DECODE_INVALID, 0x0f, 0x00, 0xd0),
    NOT("vex in V86 mode", X86_CODE_16, true, DECODE_INVALID, 0xc5, 0xf8, 0x77),
    NOT("vex in real mode with 32-bit code", X86_CODE_32, true, DECODE_INVALID, 0xc5, 0xf8, 0x77),
    NOT("16 bytes", X86_CODE_64, false, DECODE_TOO_LONG, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
        0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90),
    NOT("15 prefixes", X86_CODE_16, true, DECODE_TOO_LONG, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
        0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66),
    NOT("opcode map only", X86_CODE_64, false, DECODE_MORE, 0x0f),
    NOT("14 prefixes", X86_CODE_64, false, DECODE_MORE, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
        0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66),
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct decode_case *c = &cases[i];
        struct insn insn;
        enum decode_result result =
            x86_decode(c->size, c->real_mode, c->bytes, c->available, &insn);

        if (result != c->result)
            fail_msg("%s: result %d, expected %d", c->name, result, c->result);
        if (result != DECODE_OK)
            continue;
        if (insn.info.length != c->length || insn.info.mnemonic != c->mnemonic)
            fail_msg("%s: %s, %u bytes", c->name, ZydisMnemonicGetString(insn.info.mnemonic),
                     insn.info.length);
        assert_memory_equal(insn.bytes, c->bytes, c->length);
    }
}

/* Every proper prefix of an instruction asks for more, and asking never reads past the end. */
static void test_truncated(void **state)
{
    static const uint8_t movabs[] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t evex[] = {0x62, 0xf1, 0x7c, 0x48, 0x10, 0x84, 0x88, 1, 2, 3, 4};
    static const uint8_t lock[] = {0xf0, 0x48, 0x81, 0x84, 0x88, 1, 2, 3, 4, 5, 6, 7, 8};
    static const struct {
        const uint8_t *bytes;
        size_t size;
    } insns[] = {{movabs, sizeof(movabs)}, {evex, sizeof(evex)}, {lock, sizeof(lock)}};
    struct insn insn;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t n = 0; n < insns[i].size; n++)
            assert_int_equal(x86_decode(X86_CODE_64, false, insns[i].bytes, n, &insn), DECODE_MORE);
        assert_int_equal(x86_decode(X86_CODE_64, false, insns[i].bytes, insns[i].size, &insn),
                         DECODE_OK);
        assert_int_equal(insn.info.length, insns[i].size);
    }
}

static void test_operands(void **state)
{
    static const uint8_t bytes[] = {0x65, 0x48, 0x8b,
                                    0x44, 0x8b, 0xf0}; /* mov rax, gs:[rbx+rcx*4-16] */
    struct insn insn;

    (void)state;
    assert_int_equal(x86_decode(X86_CODE_64, false, bytes, sizeof(bytes), &insn), DECODE_OK);
    assert_int_equal(insn.operands[0].type, ZYDIS_OPERAND_TYPE_REGISTER);
    assert_int_equal(insn.operands[0].reg.value, ZYDIS_REGISTER_RAX);
    assert_int_equal(insn.operands[1].type, ZYDIS_OPERAND_TYPE_MEMORY);
    assert_int_equal(insn.operands[1].mem.segment, ZYDIS_REGISTER_GS);
    assert_int_equal(insn.operands[1].mem.base, ZYDIS_REGISTER_RBX);
    assert_int_equal(insn.operands[1].mem.index, ZYDIS_REGISTER_RCX);
    assert_int_equal(insn.operands[1].mem.scale, 4);
    assert_int_equal(insn.operands[1].mem.disp.value, -16);
}

static void test_disassemble(void **state)
{
    static const uint8_t jump[] = {0xeb, 0xfe};
    char text[96];

    (void)state;
    assert_int_equal(x86_disassemble(X86_CODE_64, jump, 2, 0x1000, text, sizeof(text)), 2);
    assert_string_equal(text, "jmp 0x0000000000001000");
    assert_int_equal(x86_disassemble(X86_CODE_64, jump, 1, 0x1000, text, sizeof(text)), 0);
    assert_int_equal(x86_disassemble(X86_CODE_64, jump, 2, 0x1000, text, 4), 0);
}

/* ---- the cache ---- */

static uint64_t random_state = 1;

static uint8_t random_byte(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(random_state >> 56);
}

/* An opcode with its prefixes, mostly as compilers and kernels write them, and any bytes behind. */
static void random_insn(uint8_t bytes[24], enum x86_code_size size)
{
    static const uint8_t prefixes[] = {0x66, 0xf3, 0xf2, 0xf0, 0x64, 0x67, 0x2e, 0x3e};
    unsigned n = 0, map = random_byte() % 8;

    while (random_byte() < 50)
        bytes[n++ & 3] = prefixes[random_byte() % 8];
    n &= 3;
    if (size == X86_CODE_64 && random_byte() & 1)
        bytes[n++] = 0x40 | (random_byte() & 15);
    if (map >= 5)
        bytes[n++] = map == 5 ? 0x0f : map == 6 ? 0xc5 : 0xc4;
    if (map == 4) {
        bytes[n++] = 0x0f;
        bytes[n++] = random_byte() & 1 ? 0x38 : 0x3a;
    }
    while (n < 24)
        bytes[n++] = random_byte();
}

static void compare_cached(struct decode_cache *cache, enum x86_code_size size, bool real_mode,
                           const uint8_t *bytes, unsigned available)
{
    struct insn plain, cached;
    enum decode_result result = x86_decode(size, real_mode, bytes, available, &plain);

    assert_int_equal(x86_decode_cached(cache, size, real_mode, bytes, available, &cached), result);
    if (result != DECODE_OK)
        return;
    assert_memory_equal(&cached.info, &plain.info, sizeof(plain.info));
    assert_memory_equal(cached.operands, plain.operands,
                        plain.info.operand_count * sizeof(plain.operands[0]));
    assert_memory_equal(cached.bytes, plain.bytes, sizeof(plain.bytes));
}

/* What comes from the cache is what the decoder says, with other numbers behind the same opcode. */
static void test_cache(void **state)
{
    struct decode_cache *cache = decode_cache_new();

    (void)state;
    assert_non_null(cache);
    for (unsigned n = 0; n < 200000; n++) {
        enum x86_code_size size =
            random_byte() & 1 ? X86_CODE_64 : (enum x86_code_size)(random_byte() % 3);
        bool real_mode = size != X86_CODE_64 && random_byte() & 1;
        uint8_t bytes[24];

        random_insn(bytes, size);
        for (unsigned turn = 0; turn < 3; turn++) {
            compare_cached(cache, size, real_mode, bytes, turn == 2 ? 1 + random_byte() % 15 : 24);
            for (unsigned k = 3 + random_byte() % 8; k < 24; k++)
                bytes[k] = random_byte();
        }
    }
    decode_cache_free(cache);
}

/* SIB: with and without index, base 5 */
static const uint8_t sibs[] = {0x24, 0x65, 0xa5};

static void compare_forms(struct decode_cache *cache, enum x86_code_size size, const uint8_t *head,
                          unsigned count)
{
    uint8_t bytes[24];

    for (unsigned modrm = 0; modrm < 256; modrm++)
        for (unsigned k = 0; k < (modrm < 0xc0 && (modrm & 7) == 4 ? sizeof(sibs) : 1); k++) {
            for (unsigned n = 0; n < sizeof(bytes); n++)
                bytes[n] = (uint8_t)(0x81 + 7 * n + modrm);
            memcpy(bytes, head, count);
            bytes[count] = (uint8_t)modrm;
            if (modrm < 0xc0 && (modrm & 7) == 4)
                bytes[count + 1] = sibs[k];
            compare_cached(cache, size, false, bytes, sizeof(bytes));
        }
}

/*
 * All opcodes of the first two maps with all values of ModRM: what one instruction left in the
 * cache serves the next ones of the same shape, and is not mistaken for another's.
 */
static void test_shapes(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2, 0x67, 0x64};
    static const uint8_t rexes[] = {0, 0x40, 0x48, 0x45, 0x4a, 0x4f};
    struct decode_cache *cache = decode_cache_new();

    (void)state;
    assert_non_null(cache);
    for (unsigned p = 0; p < sizeof(prefixes); p++)
        for (unsigned r = 0; r <= sizeof(rexes); r++)
            for (unsigned opcode = 0; opcode < 512; opcode++) {
                bool is_64 = r < sizeof(rexes);
                uint8_t head[4];
                unsigned n = 0;

                if (prefixes[p])
                    head[n++] = prefixes[p];
                if (is_64 && rexes[r])
                    head[n++] = rexes[r];
                if (opcode >= 256)
                    head[n++] = 0x0f;
                head[n++] = (uint8_t)opcode;
                compare_forms(cache, is_64 ? X86_CODE_64 : X86_CODE_32, head, n);
            }
    decode_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),    cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_operands), cmocka_unit_test(test_disassemble),
        cmocka_unit_test(test_cache),    cmocka_unit_test(test_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
