/*
 * test_xsave.c - FXSAVE and the XSAVE family: layout, optimisations, checks, and the host's opinion
 */
#include "fake_system.h"

#define AREA           0x20000u
#define FILL           0xa5
#define ALL_COMPONENTS 0x2e7u
#define HEADER         (AREA + 512)

enum kind { FXSAVE, FXRSTOR, XSAVE, XSAVEC, XSAVEOPT, XSAVES, XRSTOR, XRSTORS };

struct call {
    enum kind kind;
    uint64_t linear;
    bool wide;
};

static void perform(const void *arg)
{
    static const enum x86_xsave_kind kinds[] = {[XSAVE] = X86_XSAVE,
                                                [XSAVEC] = X86_XSAVEC,
                                                [XSAVEOPT] = X86_XSAVEOPT,
                                                [XSAVES] = X86_XSAVES};
    const struct call *c = arg;

    switch (c->kind) {
    case FXSAVE:
        x86_fxsave(&fake.cpu, c->linear, c->wide);
        break;
    case FXRSTOR:
        x86_fxrstor(&fake.cpu, c->linear, c->wide);
        break;
    case XRSTOR:
    case XRSTORS:
        x86_xrstor(&fake.cpu, c->linear, c->wide, c->kind == XRSTORS);
        break;
    default:
        x86_xsave(&fake.cpu, c->linear, c->wide, kinds[c->kind]);
        break;
    }
}

static void expect(const char *name, enum kind kind, uint64_t linear, int vector)
{
    fake_expect(name, perform, &(struct call){kind, linear, true}, vector,
                vector == X86_GP ? 0 : -1);
}

static void run(enum kind kind, bool wide)
{
    fake_expect("no fault", perform, &(struct call){kind, AREA, wide}, OK, -1);
}

static void ask(uint64_t mask)
{
    fake.cpu.s.gpr[X86_RAX] =
        0xffffffff00000000 | (uint32_t)mask; /* the upper half is not looked at */
    fake.cpu.s.gpr[X86_RDX] = 0xffffffff00000000 | mask >> 32;
}

static uint8_t pattern(unsigned a, unsigned b)
{
    return (uint8_t)(a * 37 + b * 11 + 1);
}

/* Everything in use, every byte different from its neighbours. */
static void fill_fpu(struct x86_fpu *f)
{
    *f = (struct x86_fpu){.fcw = 0x27f,
                          .fsw = 0x3800,
                          .ftw = 0x81,
                          .fop = 0x5d9,
                          .fip = 0x123456789abc,
                          .fdp = 0x7edcba987654,
                          .fcs = 0x33,
                          .fds = 0x2b,
                          .mxcsr = 0x9fc0,
                          .pkru = 0x55555554};
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned j = 0; j < 10; j++)
            f->st[i][j] = pattern(i, j);
        f->k[i] = 0x0101010101010101 * (i + 1);
    }
    for (unsigned i = 0; i < 32; i++)
        for (unsigned j = 0; j < 64; j++)
            f->zmm[i][j] = pattern(i + 8, j);
}

static void setup(enum fake_mode mode)
{
    fake_system(mode, 0);
    fake.cpu.s.cr4 |= X86_CR4_OSXSAVE | X86_CR4_OSFXSR;
    fake.cpu.s.xcr0 = ALL_COMPONENTS;
    fill_fpu(&fake.cpu.s.fpu);
    memset(fake.memory + AREA, FILL, 0x3000);
    memset(fake.memory + HEADER, 0, 64);
    ask(ALL_COMPONENTS);
}

static void assert_filled(uint32_t from, uint32_t to)
{
    for (uint32_t at = from; at < to; at++)
        if (fake.memory[AREA + at] != FILL)
            fail_msg("byte %u was written", at);
}

static void assert_vectors(uint32_t at, unsigned first, unsigned last, unsigned from, unsigned to)
{
    for (unsigned i = first; i < last; i++, at += to - from)
        assert_memory_equal(fake.memory + AREA + at, fake.cpu.s.fpu.zmm[i] + from, to - from);
}

static void fxsave_layout_64(void **state)
{
    (void)state;
    setup(LONG);
    run(FXSAVE, true);
    assert_int_equal(peek(AREA, 8), 0x05d900813800027f);
    assert_int_equal(peek(AREA + 8, 8), 0x123456789abc);
    assert_int_equal(peek(AREA + 16, 8), 0x7edcba987654);
    assert_int_equal(peek(AREA + 24, 8), 0x0000ffff00009fc0);
    assert_memory_equal(fake.memory + AREA + 32 + 16 * 7, fake.cpu.s.fpu.st[7], 10);
    assert_int_equal(peek(AREA + 32 + 10, 6), 0);
    assert_vectors(160, 0, 16, 0, 16);
    assert_filled(416, 512);
}

static void fxsave_with_selectors(void **state)
{
    (void)state;
    setup(LONG);
    run(FXSAVE, false);
    assert_int_equal(peek(AREA + 8, 8), 0x0000003356789abc);
    assert_int_equal(peek(AREA + 16, 8), 0x0000002bba987654);
    assert_vectors(160, 0, 16, 0, 16);
    setup(P32);
    run(FXSAVE, true); /* REX.W does not exist here */
    assert_int_equal(peek(AREA + 8, 8), 0x0000003356789abc);
    assert_vectors(160, 0, 8, 0, 16);
    assert_filled(160 + 8 * 16, 512);
    setup(LONG);
    fake.cpu.s.cr4 &= ~(uint64_t)X86_CR4_OSFXSR;
    run(FXSAVE, true);
    assert_filled(160, 512);
}

static void fxrstor_takes_back_what_fxsave_wrote(void **state)
{
    static struct x86_fpu saved;

    (void)state;
    setup(LONG);
    run(FXSAVE, true);
    saved = fake.cpu.s.fpu;
    memset(&fake.cpu.s.fpu, 0x77, sizeof(fake.cpu.s.fpu));
    fake.changed = 0;
    run(FXRSTOR, true);
    assert_true(fake.changed & X86_CHANGED_FPU);
    assert_int_equal(fake.cpu.s.fpu.fip, saved.fip);
    assert_int_equal(fake.cpu.s.fpu.fop, saved.fop);
    assert_int_equal(fake.cpu.s.fpu.mxcsr, saved.mxcsr);
    assert_memory_equal(fake.cpu.s.fpu.st, saved.st, sizeof(saved.st));
    assert_memory_equal(fake.cpu.s.fpu.zmm[15], saved.zmm[15], 16);
    assert_int_equal(fake.cpu.s.fpu.zmm[15][16], 0x77); /* the rest of ZMM stays */
    poke(AREA + 24, 0x10000, 4);
    expect("reserved bit of MXCSR", FXRSTOR, AREA, X86_GP);
}

static void checks_come_in_order(void **state)
{
    (void)state;
    setup(LONG);
    expect("FXSAVE needs 16", FXSAVE, AREA + 8, X86_GP);
    expect("XSAVE needs 64", XSAVE, AREA + 16, X86_GP);
    expect("XRSTOR needs 64", XRSTOR, AREA + 32, X86_GP);
    fake.cpu.s.cr0 |= X86_CR0_EM;
    expect("EM", FXRSTOR, AREA + 8, X86_NM);
    expect("EM does not matter", XSAVE, AREA, OK);
    fake.cpu.s.cr0 ^= X86_CR0_EM | X86_CR0_TS;
    expect("TS", FXSAVE, AREA + 8, X86_NM);
    expect("TS", XSAVEC, AREA + 8, X86_NM);
    fake.cpu.s.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    expect("OSXSAVE", XSAVE, AREA + 8, X86_UD);
    expect("OSXSAVE", XRSTORS, AREA + 8, X86_UD);
    setup(LONG);
    fake.cpu.cpl = 3;
    expect("XSAVES at level 3", XSAVES, AREA, X86_GP);
    expect("XRSTORS at level 3", XRSTORS, AREA, X86_GP);
    fake_clear_feature(X86_FEATURE_XSAVEC);
    expect("no XSAVEC", XSAVEC, AREA, X86_UD);
}

static void a_page_fault_writes_nothing(void **state)
{
    (void)state;
    setup(LONG);
    memset(fake.memory + AREA - 0x1000, FILL, 0x1000);
    fake.absent[AREA >> 12] = true;
    fake_expect("second page", perform, &(struct call){XSAVE, AREA - 0x400, true}, X86_PF,
                X86_PF_W);
    fake_expect("second page", perform, &(struct call){XSAVEC, AREA - 0x400, true}, X86_PF,
                X86_PF_W);
    fake_expect("second page", perform, &(struct call){FXSAVE, AREA - 0x100, true}, X86_PF,
                X86_PF_W);
    for (unsigned i = 0; i < 0x1000; i++)
        assert_int_equal(fake.memory[AREA - 0x1000 + i], FILL);
    memset(fake.memory + AREA - 0x1000, 0, 0x1000);
    poke(AREA - 0x400 + 512, ALL_COMPONENTS, 8);
    fake_expect("second page", perform, &(struct call){XRSTOR, AREA - 0x400, true}, X86_PF, 0);
}

static void xsave_writes_the_standard_format(void **state)
{
    (void)state;
    setup(LONG);
    poke(HEADER, 1ull << 40, 8); /* a bit that is not asked for stays */
    memset(fake.memory + HEADER + 8, 0xee, 56);
    run(XSAVE, true);
    assert_int_equal(peek(HEADER, 8), ALL_COMPONENTS | 1ull << 40);
    assert_int_equal(peek(HEADER + 8, 8), 0xeeeeeeeeeeeeeeee);
    assert_vectors(160, 0, 16, 0, 16);
    assert_vectors(576, 0, 16, 16, 32);
    assert_memory_equal(fake.memory + AREA + 1088, fake.cpu.s.fpu.k, 64);
    assert_vectors(1152, 0, 16, 32, 64);
    assert_vectors(1664, 16, 32, 0, 64);
    assert_int_equal(peek(AREA + 2688, 8), 0x55555554);
    assert_filled(832, 1088);
    assert_filled(2696, 3072);
}

static void only_what_is_asked_for_is_saved(void **state)
{
    (void)state;
    setup(LONG);
    ask(X86_XCR0_AVX);
    poke(HEADER, X86_XCR0_SSE, 8);
    run(XSAVE, true);
    assert_int_equal(peek(HEADER, 8), X86_XCR0_AVX | X86_XCR0_SSE);
    assert_filled(0, 24);
    assert_int_equal(peek(AREA + 24, 4), 0x9fc0); /* MXCSR goes with AVX as well */
    assert_filled(32, 512);
    assert_vectors(576, 0, 16, 16, 32);
    assert_filled(832, 2696);
    setup(LONG);
    fake.cpu.s.xcr0 = X86_XCR0_X87;
    run(XSAVE, true);
    assert_int_equal(peek(HEADER, 8), X86_XCR0_X87);
    assert_filled(24, 32);
    assert_filled(160, 512);
}

static void initial_components_are_left_out(void **state)
{
    (void)state;
    setup(LONG);
    for (unsigned i = 0; i < 32; i++)
        memset(fake.cpu.s.fpu.zmm[i] + 16, 0, 48);
    for (unsigned i = 16; i < 32; i++)
        memset(fake.cpu.s.fpu.zmm[i], 0, 16);
    run(XSAVEOPT, true);
    assert_int_equal(peek(HEADER, 8),
                     X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_OPMASK | X86_XCR0_PKRU);
    assert_filled(576, 1088);
    assert_filled(1152, 2688);
    setup(LONG);
    memset(fake.cpu.s.fpu.zmm, 0, sizeof(fake.cpu.s.fpu.zmm));
    run(XSAVE, true); /* writes them all the same, but says that they are initial */
    assert_int_equal(peek(HEADER, 8), X86_XCR0_X87 | X86_XCR0_OPMASK | X86_XCR0_PKRU);
    assert_int_equal(peek(AREA + 160, 8), 0);
    assert_int_equal(peek(AREA + 1664, 8), 0);
    assert_int_equal(x86_xinuse(&fake.cpu), X86_XCR0_X87 | X86_XCR0_OPMASK | X86_XCR0_PKRU);
}

static void compacted_components_move_up(void **state)
{
    (void)state;
    setup(LONG);
    ask(X86_XCR0_SSE | X86_XCR0_OPMASK | X86_XCR0_HI16_ZMM | X86_XCR0_PKRU);
    memset(fake.memory + HEADER, 0xee, 64);
    memset(fake.cpu.s.fpu.k, 0, sizeof(fake.cpu.s.fpu.k));
    run(XSAVEC, true);
    assert_int_equal(peek(HEADER, 8), X86_XCR0_SSE | X86_XCR0_HI16_ZMM | X86_XCR0_PKRU);
    assert_int_equal(peek(HEADER + 8, 8), 1ull << 63 | 0x2a2);
    assert_int_equal(peek(HEADER + 16, 8), 0xeeeeeeeeeeeeeeee);
    assert_filled(0, 24);
    assert_int_equal(peek(AREA + 24, 4), 0x9fc0);
    assert_vectors(160, 0, 16, 0, 16);
    assert_filled(576, 640); /* room for the opmasks, which are initial */
    assert_vectors(640, 16, 32, 0, 64);
    assert_int_equal(peek(AREA + 1664, 8), 0x55555554);
    assert_filled(1672, 3072);
}

static void mxcsr_keeps_sse_in_compacted_areas(void **state)
{
    (void)state;
    setup(LONG);
    memset(fake.cpu.s.fpu.zmm, 0, sizeof(fake.cpu.s.fpu.zmm));
    ask(X86_XCR0_SSE);
    run(XSAVES, true);
    assert_int_equal(peek(HEADER, 8), X86_XCR0_SSE);
    assert_int_equal(peek(AREA + 160, 8), 0);
    fake.cpu.s.fpu.mxcsr = X86_MXCSR_INITIAL;
    run(XSAVES, true);
    assert_int_equal(peek(HEADER, 8), 0);
}

static void round_trips(void **state)
{
    static const enum kind pairs[][2] = {
        {XSAVE, XRSTOR}, {XSAVEOPT, XRSTOR}, {XSAVEC, XRSTOR}, {XSAVES, XRSTORS}};
    static struct x86_fpu saved;

    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++) {
        for (unsigned round = 0; round < 64; round++) {
            uint64_t mask = (uint64_t)round * 0x9e3779b1 & ALL_COMPONENTS;

            setup(LONG);
            fake.cpu.s.fpu.fcs = fake.cpu.s.fpu.fds = 0; /* the 64-bit form does not keep them */
            saved = fake.cpu.s.fpu;
            ask(mask);
            run(pairs[i][0], true);
            memset(&fake.cpu.s.fpu, 0x77, sizeof(fake.cpu.s.fpu));
            fake.cpu.s.fpu.fcs = fake.cpu.s.fpu.fds = 0;
            fake.cpu.s.fpu.mxcsr = 0x1f00;
            run(pairs[i][1], true);
            ask(ALL_COMPONENTS);
            if (mask & X86_XCR0_X87)
                assert_memory_equal(fake.cpu.s.fpu.st, saved.st, sizeof(saved.st));
            else
                assert_int_equal(fake.cpu.s.fpu.fcw, 0x7777);
            if (mask & X86_XCR0_SSE)
                assert_memory_equal(fake.cpu.s.fpu.zmm[9], saved.zmm[9], 16);
            else
                assert_int_equal(fake.cpu.s.fpu.zmm[9][15], 0x77);
            if (mask & X86_XCR0_AVX)
                assert_memory_equal(fake.cpu.s.fpu.zmm[9] + 16, saved.zmm[9] + 16, 16);
            else
                assert_int_equal(fake.cpu.s.fpu.zmm[9][16], 0x77);
            if (mask & X86_XCR0_HI16_ZMM)
                assert_memory_equal(fake.cpu.s.fpu.zmm[31], saved.zmm[31], 64);
            else
                assert_int_equal(fake.cpu.s.fpu.zmm[31][63], 0x77);
            assert_int_equal(fake.cpu.s.fpu.pkru, mask & X86_XCR0_PKRU ? saved.pkru : 0x77777777);
            assert_int_equal(fake.cpu.s.fpu.k[7],
                             mask & X86_XCR0_OPMASK ? saved.k[7] : 0x7777777777777777);
        }
    }
}

static void an_area_may_cross_a_page(void **state)
{
    static const enum kind pairs[][2] = {
        {FXSAVE, FXRSTOR}, {XSAVE, XRSTOR}, {XSAVEC, XRSTOR}, {XSAVES, XRSTORS}};
    static struct x86_fpu saved;
    static uint8_t image[0x1000];

    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++) {
        setup(LONG);
        fake.cpu.s.fpu.fcs = fake.cpu.s.fpu.fds = 0;
        run(pairs[i][0], true);
        memcpy(image, fake.memory + AREA, sizeof(image));
        for (uint32_t at = 0x400; at < 0x1000; at += 64) {
            setup(LONG);
            fake.cpu.s.fpu.fcs = fake.cpu.s.fpu.fds = 0;
            saved = fake.cpu.s.fpu;
            memset(fake.memory + HEADER, FILL, 64);
            memset(fake.memory + HEADER + at, 0, 64);
            expect("saved", pairs[i][0], AREA + at, OK);
            assert_memory_equal(fake.memory + AREA + at, image, sizeof(image));
            assert_filled(0, at);
            memset(fake.cpu.s.fpu.zmm, 0x77, sizeof(saved.zmm));
            memset(fake.cpu.s.fpu.st, 0x77, sizeof(saved.st));
            memset(fake.cpu.s.fpu.k, 0x77, sizeof(saved.k));
            expect("loaded", pairs[i][1], AREA + at, OK);
            assert_memory_equal(fake.cpu.s.fpu.st, saved.st, sizeof(saved.st));
            assert_memory_equal(fake.cpu.s.fpu.zmm[15], saved.zmm[15], 16);
            if (i == 0)
                continue;
            assert_memory_equal(fake.cpu.s.fpu.zmm, saved.zmm, sizeof(saved.zmm));
            assert_memory_equal(fake.cpu.s.fpu.k, saved.k, sizeof(saved.k));
        }
    }
}

static void absent_components_become_initial(void **state)
{
    (void)state;
    setup(LONG);
    run(XSAVE, true);
    poke(HEADER, 0, 8);
    fake.changed = 0;
    run(XRSTOR, true);
    assert_int_equal(x86_xinuse(&fake.cpu), 0);
    assert_int_equal(fake.cpu.s.fpu.fcw, 0x37f);
    assert_int_equal(fake.cpu.s.fpu.mxcsr, 0x9fc0); /* standard: from memory nevertheless */
    assert_true(fake.changed & X86_CHANGED_PAGING); /* PKRU changed */
    setup(LONG);
    run(XSAVEC, true);
    poke(HEADER, 0, 8);
    run(XRSTOR, true);
    assert_int_equal(x86_xinuse(&fake.cpu), 0);
    assert_int_equal(fake.cpu.s.fpu.mxcsr, X86_MXCSR_INITIAL);
}

static void outside_64_bit_mode_eight_registers(void **state)
{
    (void)state;
    setup(P32);
    run(XSAVE, true);
    assert_vectors(160, 0, 8, 0, 16);
    assert_filled(288, 512);
    assert_vectors(576, 0, 8, 16, 32);
    assert_filled(704, 1088);
    assert_filled(1664, 2688);
    assert_int_equal(peek(HEADER, 8), ALL_COMPONENTS & ~X86_XCR0_HI16_ZMM);
    poke(HEADER, 0, 8);
    run(XRSTOR, true);
    assert_int_equal(fake.cpu.s.fpu.zmm[7][0] | fake.cpu.s.fpu.zmm[7][63], 0);
    assert_int_equal(fake.cpu.s.fpu.zmm[8][0], pattern(16, 0));
    assert_int_equal(fake.cpu.s.fpu.zmm[20][5], pattern(28, 5));
}

static void bad_headers(void **state)
{
    static const struct {
        const char *name;
        unsigned offset;
        uint64_t value;
        bool compacted;
    } cases[] = {
        {"XSTATE_BV beyond XCR0", 0, 1u << 3, false},
        {"XCOMP_BV without bit 63", 8, 1, false},
        {"bytes 16-23", 16, 1, false},
        {"compacted: XSTATE_BV beyond XCOMP_BV", 0, 1u << 3, true},
        {"compacted: XCOMP_BV beyond XCR0", 8, 1ull << 63 | ALL_COMPONENTS | 1u << 3, true},
        {"compacted: bytes 16-23", 16, 1, true},
        {"compacted: bytes 56-63", 56, 1ull << 63, true},
        {"compacted: XSTATE_BV bit 63", 0, 1ull << 63, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        setup(LONG);
        run(cases[i].compacted ? XSAVEC : XSAVE, true);
        poke(HEADER + cases[i].offset, cases[i].value, 8);
        expect(cases[i].name, XRSTOR, AREA, X86_GP);
        if (cases[i].compacted)
            expect(cases[i].name, XRSTORS, AREA, X86_GP);
    }
    setup(LONG);
    run(XSAVE, true);
    poke(HEADER + 24, 1, 8);
    expect("bytes 24-63 do not matter in the standard format", XRSTOR, AREA, OK);
    expect("XRSTORS wants the compacted format", XRSTORS, AREA, X86_GP);
    poke(AREA + 24, 0xffff0000, 4);
    expect("MXCSR", XRSTOR, AREA, X86_GP);
    ask(X86_XCR0_X87);
    expect("MXCSR is not asked for", XRSTOR, AREA, OK);
    setup(LONG);
    run(XSAVEC, true);
    fake_clear_feature(X86_FEATURE_XSAVEC);
    expect("compacted without the feature", XRSTOR, AREA, X86_GP);
}

/* ---- the host's own XRSTOR and XSAVEC ---- */

#if defined(__x86_64__)
static bool host_agrees_on_layout(uint64_t mask)
{
    unsigned a, b, c, d;

    for (unsigned i = 2; i < 8; i++) {
        if (!(mask >> i & 1))
            continue;
        __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0xd), "c"(i));
        if (a != x86_xsave_components[i].size_bytes || (c & 2))
            return false;
    }
    return true;
}

/* Load image into the host's registers, store them to out, put everything back. */
static void through_host(const uint8_t *image, uint8_t *out, uint64_t mask)
{
    static uint8_t own[8192] __attribute__((aligned(64)));

    memset(own, 0, sizeof(own));
    __asm__ volatile("xsave64 %2\n\txrstor64 %1\n\txsavec64 %0\n\txrstor64 %2"
                     : "+m"(*(uint8_t(*)[4096])out)
                     : "m"(*(const uint8_t(*)[4096])image), "m"(own), "a"((uint32_t)mask),
                       "d"((uint32_t)(mask >> 32))
                     : "memory");
}

static void the_host_reads_and_writes_the_same_bytes(void **state)
{
    static uint8_t image[4096] __attribute__((aligned(64))), out[4096] __attribute__((aligned(64)));
    static struct x86_fpu saved;
    uint64_t mask;
    unsigned a, d;

    (void)state;
    if (!x86_host_has(X86_FEATURE_XSAVEC))
        skip();
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    mask = a & (ALL_COMPONENTS & ~X86_XCR0_PKRU);
    if (!host_agrees_on_layout(mask))
        skip();
    setup(LONG);
    fake.cpu.s.fpu.fcs = fake.cpu.s.fpu.fds = 0;
    fake.cpu.s.fpu.fop = 0; /* not kept by every processor while no exception is pending */
    fake.cpu.s.fpu.fip = fake.cpu.s.fpu.fdp = 0;
    saved = fake.cpu.s.fpu;
    fake.cpu.s.xcr0 = mask;
    run(XSAVEC, true);
    memcpy(image, fake.memory + AREA, sizeof(image));
    memset(out, 0, sizeof(out));
    through_host(image, out, mask);
    assert_memory_equal(out + 512, image + 512, 16); /* XSTATE_BV, XCOMP_BV */
    for (unsigned at = 576; at < x86_xsave_size(mask, true); at++)
        if (out[at] != image[at])
            fail_msg("byte %u: 0x%x, the host has 0x%x", at, image[at], out[at]);
    memcpy(fake.memory + AREA, out, sizeof(out));
    memset(&fake.cpu.s.fpu, 0, sizeof(fake.cpu.s.fpu));
    run(XRSTOR, true);
    assert_memory_equal(fake.cpu.s.fpu.st, saved.st, sizeof(saved.st));
    assert_memory_equal(fake.cpu.s.fpu.zmm[0], saved.zmm[0], 16);
    assert_int_equal(fake.cpu.s.fpu.ftw, saved.ftw);
    assert_int_equal(fake.cpu.s.fpu.fsw, saved.fsw);
    assert_int_equal(fake.cpu.s.fpu.mxcsr, saved.mxcsr);
    if (mask & X86_XCR0_HI16_ZMM)
        assert_memory_equal(fake.cpu.s.fpu.zmm, saved.zmm, sizeof(saved.zmm));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fxsave_layout_64),
        cmocka_unit_test(fxsave_with_selectors),
        cmocka_unit_test(fxrstor_takes_back_what_fxsave_wrote),
        cmocka_unit_test(checks_come_in_order),
        cmocka_unit_test(a_page_fault_writes_nothing),
        cmocka_unit_test(xsave_writes_the_standard_format),
        cmocka_unit_test(only_what_is_asked_for_is_saved),
        cmocka_unit_test(initial_components_are_left_out),
        cmocka_unit_test(compacted_components_move_up),
        cmocka_unit_test(mxcsr_keeps_sse_in_compacted_areas),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(an_area_may_cross_a_page),
        cmocka_unit_test(absent_components_become_initial),
        cmocka_unit_test(outside_64_bit_mode_eight_registers),
        cmocka_unit_test(bad_headers),
#if defined(__x86_64__)
        cmocka_unit_test(the_host_reads_and_writes_the_same_bytes),
#endif
    };

    int failed = 0;

    for (fake_direct = 0; fake_direct < 4; fake_direct++)
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
