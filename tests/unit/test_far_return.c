/* test_far_return.c - far RET: every check in order, and the state after */
#include "fake_far.h"

struct return_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl, size;
    uint16_t pop_bytes;
    uint64_t rip;
    uint16_t cs;
    uint64_t rsp;
    uint16_t ss;
    uint64_t slots[2]; /* S0, S1 */
    int vector, code;
    uint64_t rsp_after;
};

static const struct return_case returns[] = {
    {"same level", P32, 0, 4, 8, 0x12345678, CODE32(0), 0, 0, {0}, OK, 0, FAKE_RSP + 16},
    {"same level, 16-bit", P32, 3, 2, 0, 0x5678, CODE32(3), 0, 0, {0}, OK, 0, FAKE_RSP + 4},
    {"same level, 64-bit",
     LONG,
     0,
     8,
     0x10,
     0x7fff12345678,
     CODE64(0),
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 32},
    {"64 to 32", LONG, 0, 8, 0, 0x12345678, CODE32(0), 0, 0, {0}, OK, 0, FAKE_RSP + 16},
    {"32 to 64", COMPAT, 0, 4, 0, 0x12345678, CODE64(0), 0, 0, {0}, OK, 0, FAKE_RSP + 8},
    {"null CS", P32, 0, 4, 0, 0, 0, 0, 0, {0}, X86_GP, 0, 0},
    {"CS beyond", P32, 0, 4, 0, 0, BEYOND_GDT, 0, 0, {0}, X86_GP, BEYOND_GDT, 0},
    {"data", P32, 0, 4, 0, 0, DATA(0), 0, 0, {0}, X86_GP, DATA(0), 0},
    {"RPL < CPL", P32, 3, 4, 0, 0, CODE32(0), 0, 0, {0}, X86_GP, CODE32(0), 0},
    {"DPL != RPL", P32, 0, 4, 0, 0, S0 | 3, 0, 0, {FLAT(A_CODE)}, X86_GP, S0, 0},
    {"conforming, DPL > RPL",
     P32,
     0,
     4,
     0,
     0,
     S0,
     0,
     0,
     {FLAT(A_CODE_CONFORMING | A_DPL(1))},
     X86_GP,
     S0,
     0},
    {"conforming, same level",
     P32,
     0,
     4,
     0,
     5,
     S0,
     0,
     0,
     {FLAT(A_CODE_CONFORMING)},
     OK,
     0,
     FAKE_RSP + 8},
    {"conforming", P32, 1, 4, 0, 5, S0 | 1, 0, 0, {FLAT(A_CODE_CONFORMING)}, OK, 0, FAKE_RSP + 8},
    {"absent", P32, 0, 4, 0, 0, S0, 0, 0, {FLAT(A_CODE - A_NOT_PRESENT)}, X86_NP, S0, 0},
    {"beyond the limit",
     P32,
     0,
     4,
     0,
     0x100,
     S0,
     0,
     0,
     {DESC(0ull, 0xffull, A_CODE)},
     X86_GP,
     0,
     0},
    {"L and D", LONG, 0, 8, 0, 0, S0, 0, 0, {FLAT(A_CODE | A_L)}, X86_GP, S0, 0},
    {"not canonical", LONG, 0, 8, 0, 0x800000000000, CODE64(0), 0, 0, {0}, X86_GP, 0, 0},
    /* to an outer level */
    {"0 to 3", P32, 0, 4, 8, 0x1234, CODE32(3), 0xe000, DATA(3), {0}, OK, 0, 0xe008},
    {"1 to 2, 16-bit", P32, 1, 2, 2, 0x1234, CODE32(2), 0xe000, DATA(2), {0}, OK, 0, 0xe002},
    {"to a 16-bit stack",
     P32,
     0,
     4,
     8,
     0x1234,
     CODE32(3),
     0x1fffc,
     S0 | 3,
     {DESC(0ull, 0xffffull, A_DATA | A_DPL(3))},
     OK,
     0,
     0x4},
    {"64-bit to 3",
     LONG,
     0,
     8,
     8,
     0x1234,
     CODE64(3),
     0x7fff0000e000,
     DATA(3),
     {0},
     OK,
     0,
     0x7fff0000e008},
    {"to conforming code",
     P32,
     0,
     4,
     0,
     0x1234,
     S0 | 2,
     0xe000,
     DATA(2),
     {FLAT(A_CODE_CONFORMING)},
     OK,
     0,
     0xe000},
    {"SS null", P32, 0, 4, 0, 0x1234, CODE32(3), 0xe000, 3, {0}, X86_GP, 0, 0},
    {"SS null to 64-bit level 3", LONG, 0, 8, 0, 0x1234, CODE64(3), 0xe000, 3, {0}, X86_GP, 0, 0},
    {"SS null to 64-bit level 1", LONG, 0, 8, 0, 0x1234, CODE64(1), 0xe000, 1, {0}, OK, 0, 0xe000},
    {"SS null to 64-bit level 1, RPL 0",
     LONG,
     0,
     8,
     0,
     0x1234,
     CODE64(1),
     0xe000,
     0,
     {0},
     X86_GP,
     0,
     0},
    {"SS null to 32-bit level 1", LONG, 0, 8, 0, 0x1234, CODE32(1), 0xe000, 1, {0}, X86_GP, 0, 0},
    {"SS beyond",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0xe000,
     BEYOND_GDT | 3,
     {0},
     X86_GP,
     BEYOND_GDT,
     0},
    {"SS RPL",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0xe000,
     S0 | 2,
     {FLAT(A_DATA | A_DPL(3))},
     X86_GP,
     S0,
     0},
    {"SS DPL",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0xe000,
     S0 | 3,
     {FLAT(A_DATA | A_DPL(2))},
     X86_GP,
     S0,
     0},
    {"SS read-only",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0xe000,
     S0 | 3,
     {FLAT(A_DATA_RO | A_DPL(3))},
     X86_GP,
     S0,
     0},
    {"SS absent",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0xe000,
     S0 | 3,
     {FLAT((A_DATA | A_DPL(3)) - A_NOT_PRESENT)},
     X86_SS_FAULT,
     S0,
     0},
    {"SS before the target",
     P32,
     0,
     4,
     0,
     0x100,
     S0 | 3,
     0xe000,
     3,
     {DESC(0ull, 0xffull, A_CODE | A_DPL(3))},
     X86_GP,
     0,
     0},
};

static void run_return(const void *arg)
{
    const struct return_case *c = arg;

    x86_far_return(&fake.cpu, c->size, c->pop_bytes);
}

static void test_return(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(returns); i++) {
        const struct return_case *c = &returns[i];

        fake_setup(c->mode, c->cpl);
        install_slots(c->slots);
        poke_stack(c->size, 2, c->rip, (uint64_t)c->cs);
        poke(FAKE_RSP + 2 * c->size + c->pop_bytes, c->rsp, c->size);
        poke(FAKE_RSP + 3 * c->size + c->pop_bytes, c->ss, c->size);
        fake_expect(c->name, run_return, c, c->vector, c->code);
        if (c->vector != OK)
            continue;
        check_code(c->name, c->cs, c->rip, c->cs & 3);
        CHECK(c->name, fake.cpu.s.gpr[X86_RSP], c->rsp_after);
        if ((c->cs & 3u) != c->cpl)
            check_ss(c->name, c->ss, c->cs & 3);
    }
}

static void test_return_limits(void **state)
{
    static const struct return_case c = {.size = 4}, wide = {.size = 8};

    (void)state;
    fake_setup(P32, 0);
    poke_stack(4, 4, 0x1234ull, (uint64_t)CODE32(3), 0xe000ull, (uint64_t)DATA(3));
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 6;
    fake_expect("CS", run_return, &c, X86_SS_FAULT, 0);
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 14;
    fake_expect("SS", run_return, &c, X86_SS_FAULT, 0);
    fake_setup(P32, 0);
    fake.cpu.s.gpr[X86_RSP] = 0xd000 - 8;
    poke(0xd000 - 8, 0x1234 | (uint64_t)CODE32(3) << 32, 8);
    fake.cpu.s.seg[X86_SS].limit = 0xd000 + 6;
    fake.absent[0xd] = true;
    fake_expect("SS before #PF", run_return, &c, X86_SS_FAULT, 0);
    fake_setup(P32, 0);
    poke_stack(4, 4, 0x1234ull, (uint64_t)CODE32(3), 0xe000ull, (uint64_t)DATA(3));
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 15;
    fake_expect("fits", run_return, &c, OK, 0);
    fake_setup(LONG, 0);
    fake.cpu.s.gpr[X86_RSP] = 0x7ffffffffff8;
    fake_expect("not canonical", run_return, &wide, X86_SS_FAULT, 0);
}

/* Registers with segments that the outer level may not use become null; MSR bases stay. */
static void test_return_drops_segments(void **state)
{
    static const struct return_case c = {.size = 4}, wide = {.size = 8};
    struct x86_segment *seg = fake.cpu.s.seg;

    (void)state;
    fake_setup(P32, 0);
    poke_stack(4, 4, 0x1234ull, (uint64_t)CODE32(2), 0xe000ull, (uint64_t)DATA(2));
    seg[X86_ES] = fake_flat(DATA(3), A_DATA | A_DPL(3));
    seg[X86_FS] = fake_flat(S0, A_CODE_CONFORMING);
    seg[X86_GS] = fake_flat(S0, A_CODE | A_DPL(1));
    fake_expect("drop", run_return, &c, OK, 0);
    assert_int_equal(seg[X86_DS].selector, 0);
    assert_int_equal(seg[X86_DS].attributes & X86_SEG_P, 0);
    assert_int_equal(seg[X86_ES].selector, DATA(3));
    assert_int_equal(seg[X86_FS].selector, S0);
    assert_int_equal(seg[X86_GS].selector, 0);

    fake_setup(P32, 0);
    poke_stack(4, 4, 0x1234ull, (uint64_t)CODE32(2), 0xe000ull, (uint64_t)DATA(2));
    seg[X86_ES] = fake_flat(DATA(2), A_DATA | A_DPL(2));
    fake_expect("DPL = new CPL", run_return, &c, OK, 0);
    assert_int_equal(seg[X86_ES].selector, DATA(2));

    fake_setup(LONG, 0);
    poke_stack(8, 4, 0x1234ull, (uint64_t)CODE64(3), 0xe000ull, (uint64_t)DATA(3));
    seg[X86_FS] = (struct x86_segment){.base = 0x7f0012345678};
    fake_expect("base", run_return, &wide, OK, 0);
    assert_true(seg[X86_FS].base == 0x7f0012345678);
}

static void test_real(void **state)
{
    static const struct return_case ret = {.size = 2, .pop_bytes = 6}, ret32 = {.size = 4};
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    for (int mode = REAL; mode <= V86; mode++) {
        fake_setup((enum fake_mode)mode, 3);
        s->gpr[X86_RSP] = 0xfffc;
        poke(0xfffc, 0x1234abcd, 4);
        fake_expect("return", run_return, &ret, OK, 0);
        assert_int_equal(s->rip, 0xabcd);
        assert_int_equal(s->seg[X86_CS].selector, 0x1234);
        assert_int_equal(s->gpr[X86_RSP], 6);
        s->gpr[X86_RSP] = 0xfffd;
        fake.absent[0xf] = true;
        fake_expect("stack limit before #PF", run_return, &ret, X86_SS_FAULT, 0);
        fake.absent[0xf] = false;
        s->gpr[X86_RSP] = FAKE_RSP;
        poke(FAKE_RSP, 0x10000, 4);
        fake_expect("beyond", run_return, &ret32, X86_GP, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_return),
        cmocka_unit_test(test_return_limits),
        cmocka_unit_test(test_return_drops_segments),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
