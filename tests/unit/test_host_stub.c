/*
 * test_host_stub.c - particular cases of vector and x87 instructions (test_host_stub_random.c has
 * the others)
 */
#include "host_stub_rig.h"

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

/* Decode and build one instruction, with a known state. */
static void build_bytes(enum x86_code_size size, const uint8_t *bytes, size_t length)
{
    static struct insn insn;
    uint8_t padded[X86_MAX_INSN_BYTES] = {0};

    memcpy(padded, bytes, length);
    assert_int_equal(x86_decode(size, false, padded, sizeof(padded), &insn), DECODE_OK);
    assert_int_equal(insn.info.length, length);
    rig_random_state(true);
    rig.cpu->code_size = size;
    rig.cpu->cpu.s.gpr[X86_RBX] = (uintptr_t)rig.guest;
    rig.tlb_hits = false;
    rig_reset_tlb();
    assert_true(rig_build(&insn));
}

static const struct {
    const char *name;
    const uint8_t *bytes;
    size_t length;
    uint64_t cr0_set, cr4_clear, xcr0_clear;
    int vector; /* -1: runs */
} enabling[] = {
    {"addps", BYTES("\x0f\x58\xc1"), 0, 0, 0, -1},
    {"addps, EM", BYTES("\x0f\x58\xc1"), X86_CR0_EM, 0, 0, X86_UD},
    {"addps, TS", BYTES("\x0f\x58\xc1"), X86_CR0_TS, 0, 0, X86_NM},
    {"addps, EM and TS", BYTES("\x0f\x58\xc1"), X86_CR0_EM | X86_CR0_TS, 0, 0, X86_UD},
    {"addps, no OSFXSR", BYTES("\x0f\x58\xc1"), 0, X86_CR4_OSFXSR, 0, X86_UD},
    {"addps, no OSXSAVE", BYTES("\x0f\x58\xc1"), 0, X86_CR4_OSXSAVE, 0, -1},
    {"movups load", BYTES("\x0f\x10\x03"), 0, 0, 0, -1},
    {"movups load, TS", BYTES("\x0f\x10\x03"), X86_CR0_TS, 0, 0, X86_NM},
    {"movups store, no OSFXSR", BYTES("\x0f\x11\x03"), 0, X86_CR4_OSFXSR, 0, X86_UD},
    {"addps load, TS", BYTES("\x0f\x58\x03"), X86_CR0_TS, 0, 0, X86_NM},
    {"ldmxcsr, EM", BYTES("\x0f\xae\x13"), X86_CR0_EM, 0, 0, X86_UD},
    {"stmxcsr, TS", BYTES("\x0f\xae\x1b"), X86_CR0_TS, 0, 0, X86_NM},
    {"paddb mm", BYTES("\x0f\xfc\xc1"), 0, X86_CR4_OSFXSR, 0, -1},
    {"paddb mm, EM", BYTES("\x0f\xfc\xc1"), X86_CR0_EM, 0, 0, X86_UD},
    {"paddb mm, TS", BYTES("\x0f\xfc\xc1"), X86_CR0_TS, 0, 0, X86_NM},
    {"maskmovq, EM", BYTES("\x0f\xf7\xc1"), X86_CR0_EM, 0, 0, X86_UD},
    {"fadd", BYTES("\xd8\xc1"), 0, X86_CR4_OSFXSR, 0, -1},
    {"fadd, EM", BYTES("\xd8\xc1"), X86_CR0_EM, 0, 0, X86_NM},
    {"fadd, TS", BYTES("\xd8\xc1"), X86_CR0_TS, 0, 0, X86_NM},
    {"fninit, TS", BYTES("\xdb\xe3"), X86_CR0_TS, 0, 0, X86_NM},
    {"fldcw, EM", BYTES("\xd9\x2b"), X86_CR0_EM, 0, 0, X86_NM},
    {"fwait, TS", BYTES("\x9b"), X86_CR0_TS, 0, 0, -1},
    {"fwait, MP", BYTES("\x9b"), X86_CR0_MP, 0, 0, -1},
    {"fwait, MP and TS", BYTES("\x9b"), X86_CR0_MP | X86_CR0_TS, 0, 0, X86_NM},
    {"vaddps", BYTES("\xc5\xf4\x58\xc2"), X86_CR0_EM, X86_CR4_OSFXSR, 0xe0, -1},
    {"vaddps, TS", BYTES("\xc5\xf4\x58\xc2"), X86_CR0_TS, 0, 0, X86_NM},
    {"vaddps, no OSXSAVE", BYTES("\xc5\xf4\x58\xc2"), 0, X86_CR4_OSXSAVE, 0, X86_UD},
    {"vaddps, no AVX state", BYTES("\xc5\xf4\x58\xc2"), X86_CR0_TS, 0, 4, X86_UD},
    {"vmovups load, no AVX state", BYTES("\xc5\xfc\x10\x03"), 0, 0, 4, X86_UD},
    {"vzeroupper, TS", BYTES("\xc5\xf8\x77"), X86_CR0_TS, 0, 0, X86_NM},
    {"vpaddd zmm", BYTES("\x62\xf1\x75\x48\xfe\xc2"), X86_CR0_EM, 0, 0, -1},
    {"vpaddd zmm, no opmask state", BYTES("\x62\xf1\x75\x48\xfe\xc2"), 0, 0, 0x20, X86_UD},
    {"vpaddd zmm, TS", BYTES("\x62\xf1\x75\x48\xfe\xc2"), X86_CR0_TS, 0, 0, X86_NM},
    {"kmovw, no ZMM state", BYTES("\xc5\xf8\x90\xc1"), 0, 0, 0x40, X86_UD},
};

static void test_enabling(void **state)
{
    struct x86_state *s = &rig.cpu->cpu.s;
    uint64_t cr0 = s->cr0, cr4 = s->cr4, xcr0 = s->xcr0;

    (void)state;
    rig_move_signals(false);
    for (size_t n = 0; n < sizeof(enabling) / sizeof(enabling[0]); n++) {
        uint8_t first = enabling[n].bytes[0];
        int vector;

        if ((first == 0xc5 && !rig.has_avx) || (first == 0x62 && !rig.has_avx512) ||
            (first == 0xc5 && enabling[n].bytes[2] == 0x90 && !rig.has_avx512)) /* KMOVW */
            continue;
        build_bytes(X86_CODE_64, enabling[n].bytes, enabling[n].length);
        memset(rig.guest, 0, 64);
        s->cr0 = cr0 | enabling[n].cr0_set;
        s->cr4 = cr4 & ~enabling[n].cr4_clear;
        s->xcr0 = xcr0 & ~enabling[n].xcr0_clear;
        host_stub_refresh(rig.cpu);
        vector = rig_run_guest();
        s->cr0 = cr0;
        s->cr4 = cr4;
        s->xcr0 = xcr0;
        if (vector != enabling[n].vector)
            fail_msg("%s: vector %d, not %d", enabling[n].name, vector, enabling[n].vector);
    }
}

/* DIVPS by zero with #Z unmasked: nothing but the flag changes; the vector depends on OSXMMEXCPT.
 */
static void test_simd_exception(void **state)
{
    static const float one[4] = {1, 1, 1, 1};
    struct x86_state *s = &rig.cpu->cpu.s;
    uint8_t before[16];

    (void)state;
    rig_move_signals(false);
    for (unsigned n = 0; n < 2; n++) {
        build_bytes(X86_CODE_64, BYTES("\x0f\x5e\xc1"));
        memcpy(s->fpu.zmm[0], one, 16);
        memset(s->fpu.zmm[1], 0, 16);
        memcpy(before, s->fpu.zmm[0], 16);
        s->fpu.mxcsr = 0x1f80 & ~0x200u;
        if (n)
            s->cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
        assert_int_equal(rig_run_guest(), n ? X86_UD : X86_XM);
        s->cr4 |= X86_CR4_OSXMMEXCPT;
        assert_memory_equal(before, s->fpu.zmm[0], 16);
        assert_int_equal(s->fpu.mxcsr, (0x1f80 & ~0x200u) | 4);
    }
}

/*
 * CVTPI2PS from memory raises #XM, not #MF, while an x87 exception is pending, on processors that
 * do not ask for one there: AMD's.
 */
static void test_exceptions_of_both(void **state)
{
    static const int32_t values[2] = {0x1000001, 1}; /* the first one needs 25 bits */
    struct x86_fpu *fpu = &rig.cpu->cpu.s.fpu;

    (void)state;
    rig_move_signals(false);
    build_bytes(X86_CODE_64, BYTES("\x0f\x2a\x03"));
    memcpy(rig.guest, values, sizeof(values));
    fpu->fcw = 0x37e;
    fpu->fsw = 0x8081;
    fpu->mxcsr = 0x1f80 & ~0x1000u;
    assert_int_equal(rig_run_guest(), __builtin_cpu_is("amd") ? X86_XM : X86_MF);
    fpu->fsw = 0;
    fpu->mxcsr = 0x1f80;
}

/* FLD m32: address, opcode and selectors of the instruction and its operand are remembered. */
static void test_x87_pointers(void **state)
{
    struct x86_fpu *fpu = &rig.cpu->cpu.s.fpu;

    (void)state;
    rig_move_signals(false);
    build_bytes(X86_CODE_64, BYTES("\xd9\x43\x04"));
    fpu->ftw = 0;
    rig.cpu->page_rip = 0x123456789000ull;
    rig.ops[0].page_offset = 0x321;
    rig.cpu->cpu.s.seg[X86_CS].selector = 0x33;
    rig.cpu->cpu.s.seg[X86_DS].selector = 0x2b;
    assert_int_equal(rig_run_guest(), -1);
    assert_int_equal(fpu->fip, 0x123456789321ull);
    assert_int_equal(fpu->fdp, (uintptr_t)rig.guest + 4);
    assert_int_equal(fpu->fop, 0x143);
    assert_int_equal(fpu->fcs, 0x33);
    assert_int_equal(fpu->fds, 0x2b);
    /* Control instructions do not count. */
    build_bytes(X86_CODE_64, BYTES("\xd9\x7b\x08"));
    fpu->fop = 0x111;
    assert_int_equal(rig_run_guest(), -1);
    assert_int_equal(fpu->fop, 0x111);
    assert_int_equal(fpu->fip, 0x123456789321ull);
    rig.cpu->page_rip = 0;
}

static unsigned word(unsigned n)
{
    return rig.guest[2 * n] | (unsigned)rig.guest[2 * n + 1] << 8;
}

static void known_environment(void)
{
    struct x86_fpu *fpu = &rig.cpu->cpu.s.fpu;

    memset(rig.guest, 0, 64);
    fpu->fcw = 0x37f;
    fpu->fsw = 0x0800; /* TOP = 1 */
    fpu->ftw = 0x06;   /* ST(0) and ST(1) */
    memset(fpu->st, 0, sizeof(fpu->st));
    fpu->st[1][7] = 0x80; /* 1.0 */
    rig_put16(fpu->st[1] + 8, 0x3fff);
    fpu->fip = 0x123456;
    fpu->fcs = 0x1000;
    fpu->fdp = 0x00abcd;
    fpu->fds = 0x2000;
    fpu->fop = 0x5aa;
}

/* SDM vol. 1, figures 8-9 to 8-12. */
static void test_environments(void **state)
{
    static const struct {
        bool wide, protected;
        uint16_t words[14];
    } expected[] = {
        {true,
         true,
         {0x37f, 0xffff, 0x800, 0xffff, 0xffc7, 0xffff, 0x3456, 0x12, 0x1000, 0x5aa, 0xabcd, 0,
          0x2000, 0xffff}},
        {true,
         false,
         {0x37f, 0xffff, 0x800, 0xffff, 0xffc7, 0xffff, 0x3456, 0xffff, 0x35aa, 1, 0xabcd, 0xffff,
          0x2000, 0}},
        {false, true, {0x37f, 0x800, 0xffc7, 0x3456, 0x1000, 0xabcd, 0x2000}},
        {false, false, {0x37f, 0x800, 0xffc7, 0x3456, 0x35aa, 0xabcd, 0x2000}},
    };
    struct x86_fpu *fpu = &rig.cpu->cpu.s.fpu;

    (void)state;
    rig_move_signals(false);
    for (size_t n = 0; n < sizeof(expected) / sizeof(expected[0]); n++) {
        enum x86_code_size size = expected[n].wide ? X86_CODE_32 : X86_CODE_16;
        struct x86_fpu before;

        build_bytes(size,
                    size == X86_CODE_32 ? (const uint8_t *)"\xd9\x33"
                                        : (const uint8_t *)"\x67\xd9\x33",
                    size == X86_CODE_32 ? 2 : 3);
        known_environment();
        before = *fpu;
        if (!expected[n].protected)
            rig.cpu->cpu.s.cr0 &= ~(uint64_t)X86_CR0_PE;
        assert_int_equal(rig_run_guest(), -1);
        for (unsigned k = 0; k < (expected[n].wide ? 14u : 7u); k++)
            if (word(k) != expected[n].words[k])
                fail_msg("format %zu, word %u: 0x%x, not 0x%x", n, k, word(k),
                         expected[n].words[k]);
        /* And back. */
        build_bytes(size,
                    size == X86_CODE_32 ? (const uint8_t *)"\xd9\x23"
                                        : (const uint8_t *)"\x67\xd9\x23",
                    size == X86_CODE_32 ? 2 : 3);
        known_environment();
        for (unsigned k = 0; k < 14; k++)
            rig_put16(rig.guest + 2 * k, expected[n].words[k]);
        fpu->fcw = 0x27f;
        fpu->ftw = 0;
        fpu->fip = fpu->fdp = 0;
        assert_int_equal(rig_run_guest(), -1);
        rig.cpu->cpu.s.cr0 |= X86_CR0_PE;
        assert_int_equal(fpu->fcw, before.fcw);
        assert_int_equal(fpu->fsw, before.fsw);
        assert_int_equal(fpu->ftw, before.ftw);
        if (expected[n].protected) {
            assert_int_equal(fpu->fip, expected[n].wide ? 0x123456 : 0x3456);
            assert_int_equal(fpu->fcs, 0x1000);
            assert_int_equal(fpu->fds, 0x2000);
        } else {
            assert_int_equal(fpu->fip, expected[n].wide ? 0x133456 : 0x33456); /* 20 bits */
            assert_int_equal(fpu->fdp, 0x2abcd);
            assert_int_equal(fpu->fop, 0x5aa);
        }
    }
}

/* PSHUFD, PSHUFHW and PSHUFLW xmm, xmm, imm8: the nth of 49152 different instructions. */
static void build_nth(unsigned n, struct insn *insn, bool *out_flush)
{
    static const uint8_t prefixes[] = {0x66, 0xf3, 0xf2};
    uint8_t bytes[X86_MAX_INSN_BYTES] = {
        prefixes[n >> 14 & 3], 0x0f, 0x70, (uint8_t)(0xc0 | (n >> 8 & 63)), (uint8_t)n,
    };

    assert_int_equal(x86_decode(X86_CODE_64, false, bytes, sizeof(bytes), insn), DECODE_OK);
    memset(rig.ops, 0, sizeof(rig.ops));
    rig.ops[1].run = rig_stop;
    assert_true(host_stub_build(rig.cpu, insn, &rig.ops[0], out_flush));
}

/* More different instructions than there is room for: all stubs go at once, and it goes on. */
static void test_full_area(void **state)
{
    unsigned n, at_first_flush = 0;
    struct insn insn;

    (void)state;
    rig_move_signals(false);
    rig_random_state(true);
    rig.cpu->code_size = X86_CODE_64;
    for (n = 0; n < 49152; n++) {
        bool flush = false;

        build_nth(n, &insn, &flush);
        if (flush && at_first_flush)
            break;
        if (flush) {
            at_first_flush = n;
            rig_run_both(&insn, insn.bytes, insn.info.length);
        }
    }
    assert_in_range(n - at_first_flush, 8192, 49152 - 1);
    rig_run_both(&insn, insn.bytes, insn.info.length);
}

/* Instructions that the model does not have are not built. */
static void test_model(void **state)
{
    struct cpu_model small;
    struct error err = {0};
    struct insn insn;
    bool flush;

    (void)state;
    assert_int_equal(cpu_model_parse("x86-64-v2", 1, &small, &err), 0);
    rig.cpu->cpu.model = &small;
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\xc5\xf4\x58\xc2"), &insn), DECODE_OK);
    assert_false(host_stub_build(rig.cpu, &insn, &rig.ops[0], &flush));
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\xc5\xfc\x10\x03"), &insn), DECODE_OK);
    assert_false(host_stub_build(rig.cpu, &insn, &rig.ops[0], &flush));
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\xc5\xf8\x77"), &insn), DECODE_OK);
    assert_false(host_stub_build(rig.cpu, &insn, &rig.ops[0], &flush));
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\x66\x0f\x38\x00\xc1"), &insn),
                     DECODE_OK); /* PSHUFB */
    assert_true(host_stub_build(rig.cpu, &insn, &rig.ops[0], &flush));
    rig.cpu->cpu.model = &rig.model;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enabling),
        cmocka_unit_test(test_simd_exception),
        cmocka_unit_test(test_exceptions_of_both),
        cmocka_unit_test(test_x87_pointers),
        cmocka_unit_test(test_environments),
        cmocka_unit_test(test_full_area),
        cmocka_unit_test(test_model),
    };

    return cmocka_run_group_tests(tests, rig_set_up, rig_tear_down);
}
