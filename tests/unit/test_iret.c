/* test_iret.c - IRET in all modes: every check in order, and the state after */
#include "fake_far.h"

#define FLAGS_ALL  0x3f7fd7ull
#define STATUS_ETC (X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT)
#define WIDE_FLAGS (X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

struct iret_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl, size;
    uint64_t old_flags; /* besides bit 1 */
    uint64_t rip;
    uint16_t cs;
    uint64_t flags, rsp;
    uint16_t ss;
    uint64_t slots[2];
    int vector, code;
    uint64_t rsp_after, flags_after;
};

static const struct iret_case irets[] = {
    /* real and V86 mode */
    {"real, 16-bit",
     REAL,
     0,
     2,
     X86_FLAG_AC,
     0x1234,
     0x5678,
     FLAGS_ALL,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 6,
     X86_FLAG_AC | 0x7fd7},
    {"real, 32-bit",
     REAL,
     0,
     4,
     0,
     0x1234,
     0x5678,
     FLAGS_ALL,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     0x257fd7},
    {"real, 32-bit, VIF stays",
     REAL,
     0,
     4,
     X86_FLAG_VIF,
     0x1234,
     0x5678,
     0,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     X86_FLAG_VIF | 2},
    {"real, at the limit", REAL, 0, 4, 0, 0xffff, 0, 0, 0, 0, {0}, OK, 0, FAKE_RSP + 12, 2},
    {"real, beyond", REAL, 0, 4, 0, 0x10000, 0, 0, 0, 0, {0}, X86_GP, 0, 0, 0},
    {"V86, IOPL 3",
     V86,
     3,
     2,
     X86_FLAG_VM | X86_FLAG_IOPL,
     0x1234,
     0x5678,
     0x4fd7,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 6,
     X86_FLAG_VM | X86_FLAG_IOPL | 0x4fd7},
    {"V86, IOPL 3, 32-bit",
     V86,
     3,
     4,
     X86_FLAG_VM | X86_FLAG_IOPL,
     0x1234,
     0x5678,
     FLAGS_ALL,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     X86_FLAG_VM | 0x257fd7},
    {"V86, IOPL stays",
     V86,
     3,
     4,
     X86_FLAG_VM | X86_FLAG_IOPL | X86_FLAG_VIP,
     0x1234,
     0x5678,
     0,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     X86_FLAG_VM | X86_FLAG_IOPL | X86_FLAG_VIP | 2},
    {"V86, IOPL 2", V86, 3, 2, X86_FLAG_VM | 0x2000, 0, 0, 0, 0, 0, {0}, X86_GP, 0, 0, 0},
    {"V86, beyond",
     V86,
     3,
     4,
     X86_FLAG_VM | X86_FLAG_IOPL,
     0x10000,
     0,
     0,
     0,
     0,
     {0},
     X86_GP,
     0,
     0,
     0},
    /* same level */
    {"level 0",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(0),
     FLAGS_ALL & ~X86_FLAG_VM,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     FLAGS_ALL & ~X86_FLAG_VM},
    {"level 0, 16-bit",
     P32,
     0,
     2,
     X86_FLAG_AC | X86_FLAG_RF,
     0x1234,
     CODE32(0),
     FLAGS_ALL,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 6,
     X86_FLAG_AC | 0x7fd7},
    {"level 0, 16-bit, VIF and VIP stay",
     P32,
     0,
     2,
     X86_FLAG_VIF | X86_FLAG_VIP,
     0x1234,
     CODE32(0),
     0,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 6,
     X86_FLAG_VIF | X86_FLAG_VIP | 2},
    {"level 1, IOPL 1",
     P32,
     1,
     4,
     0x1000,
     0x1234,
     CODE32(1),
     FLAGS_ALL,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     0x1000 | STATUS_ETC | WIDE_FLAGS | X86_FLAG_IF | 2},
    {"level 3, IOPL 0",
     P32,
     3,
     4,
     0,
     0x1234,
     CODE32(3),
     FLAGS_ALL,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     STATUS_ETC | WIDE_FLAGS | 2},
    {"level 3, IF stays",
     P32,
     3,
     4,
     X86_FLAG_IF,
     0x1234,
     CODE32(3),
     0,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     X86_FLAG_IF | 2},
    {"null CS", P32, 0, 4, 0, 0, 0, 0, 0, 0, {0}, X86_GP, 0, 0, 0},
    {"CS beyond", P32, 0, 4, 0, 0, BEYOND_GDT, 0, 0, 0, {0}, X86_GP, BEYOND_GDT, 0, 0},
    {"inner level", P32, 3, 4, 0, 0, CODE32(0), 0, 0, 0, {0}, X86_GP, CODE32(0), 0, 0},
    {"absent CS", P32, 0, 4, 0, 0, S0, 0, 0, 0, {FLAT(A_CODE - A_NOT_PRESENT)}, X86_NP, S0, 0, 0},
    {"beyond the limit",
     P32,
     0,
     4,
     0,
     0x100,
     S0,
     0,
     0,
     0,
     {DESC(0ull, 0xffull, A_CODE)},
     X86_GP,
     0,
     0,
     0},
    {"VM outside level 0",
     P32,
     1,
     4,
     0,
     0x1234,
     CODE32(1),
     X86_FLAG_VM,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     2},
    {"compatibility mode, same level",
     COMPAT,
     0,
     4,
     0,
     0x1234,
     CODE32(0),
     0,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     2},
    {"VM in long mode",
     COMPAT,
     0,
     4,
     0,
     0x1234,
     CODE32(0),
     X86_FLAG_VM,
     0,
     0,
     {0},
     OK,
     0,
     FAKE_RSP + 12,
     2},
    /* outer level */
    {"0 to 3", P32, 0, 4, 0, 0x1234, CODE32(3), 0x200, 0xe000, DATA(3), {0}, OK, 0, 0xe000, 0x202},
    {"1 to 3, IOPL 0",
     P32,
     1,
     4,
     0,
     0x1234,
     CODE32(3),
     0x3200,
     0xe000,
     DATA(3),
     {0},
     OK,
     0,
     0xe000,
     2},
    {"0 to 3, 16-bit stack",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0,
     0x12345678,
     S0 | 3,
     {DESC(0ull, 0xffffull, A_DATA | A_DPL(3))},
     OK,
     0,
     0x5678,
     2},
    {"SS null", P32, 0, 4, 0, 0x1234, CODE32(3), 0, 0xe000, 0, {0}, X86_GP, 0, 0, 0},
    {"SS DPL",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0,
     0xe000,
     S0 | 3,
     {FLAT(A_DATA)},
     X86_GP,
     S0,
     0,
     0},
    {"SS absent",
     P32,
     0,
     4,
     0,
     0x1234,
     CODE32(3),
     0,
     0xe000,
     S0 | 3,
     {FLAT((A_DATA | A_DPL(3)) - A_NOT_PRESENT)},
     X86_SS_FAULT,
     S0,
     0,
     0},
    /* 64-bit mode */
    {"64-bit, same level pops SS:RSP",
     LONG,
     0,
     8,
     0,
     0xffffffff81000000,
     CODE64(0),
     0x200,
     0xffff800000001000,
     DATA(0),
     {0},
     OK,
     0,
     0xffff800000001000,
     0x202},
    {"64-bit, null SS",
     LONG,
     0,
     8,
     0,
     0x1234,
     CODE64(0),
     0x200,
     0xe000,
     0,
     {0},
     OK,
     0,
     0xe000,
     0x202},
    {"64-bit, null SS with other RPL",
     LONG,
     0,
     8,
     0,
     0x1234,
     CODE64(0),
     0x200,
     0xe000,
     1,
     {0},
     X86_GP,
     0,
     0,
     0},
    {"64-bit, null SS to level 3",
     LONG,
     0,
     8,
     0,
     0x1234,
     CODE64(3),
     0,
     0xe000,
     3,
     {0},
     X86_GP,
     0,
     0,
     0},
    {"64-bit, null SS to 32-bit code",
     LONG,
     0,
     8,
     0,
     0x1234,
     CODE32(0),
     0,
     0xe000,
     0,
     {0},
     X86_GP,
     0,
     0,
     0},
    {"64-bit to 3",
     LONG,
     0,
     8,
     0,
     0x7fff12345678,
     CODE64(3),
     FLAGS_ALL,
     0x7ffffffff000,
     DATA(3),
     {0},
     OK,
     0,
     0x7ffffffff000,
     FLAGS_ALL & ~X86_FLAG_VM},
    {"64-bit to compatibility 3",
     LONG,
     0,
     8,
     0,
     0x12345678,
     CODE32(3),
     0x202,
     0xffff1234e000,
     DATA(3),
     {0},
     OK,
     0,
     0x1234e000,
     0x202},
    {"64-bit to a 16-bit stack",
     LONG,
     0,
     8,
     0,
     0x12345678,
     CODE32(3),
     0x202,
     0xffff1234e000,
     S0 | 3,
     {DESC(0ull, 0xffffull, A_DATA | A_DPL(3))},
     OK,
     0,
     0xe000,
     0x202},
    {"64-bit, iretd",
     LONG,
     0,
     4,
     0,
     0x12345678,
     CODE64(3),
     0x202,
     0xf234e000,
     DATA(3),
     {0},
     OK,
     0,
     0xf234e000,
     0x202},
    {"64-bit, iretw",
     LONG,
     0,
     2,
     0,
     0x5678,
     CODE64(3),
     0x202,
     0xe000,
     DATA(3),
     {0},
     OK,
     0,
     0xe000,
     0x202},
    {"64-bit, not canonical",
     LONG,
     0,
     8,
     0,
     0x800000000000,
     CODE64(3),
     0,
     0xe000,
     DATA(3),
     {0},
     X86_GP,
     0,
     0,
     0},
    {"64-bit, not canonical before CS",
     LONG,
     0,
     8,
     0,
     0x800000000000,
     S0,
     0,
     0xe000,
     DATA(3),
     {FLAT64(A_CODE - A_NOT_PRESENT)},
     X86_GP,
     0,
     0,
     0},
    {"64-bit, beyond the limit of 32-bit code",
     LONG,
     0,
     8,
     0,
     0x100000000,
     CODE32(3),
     0,
     0xe000,
     DATA(3),
     {0},
     X86_GP,
     0,
     0,
     0},
    {"64-bit, NT", LONG, 0, 8, X86_FLAG_NT, 0x1234, CODE64(0), 0, 0xe000, 0, {0}, X86_GP, 0, 0, 0},
    {"64-bit, L and D",
     LONG,
     0,
     8,
     0,
     0x1234,
     S0,
     0,
     0xe000,
     0,
     {FLAT(A_CODE | A_L)},
     X86_GP,
     S0,
     0,
     0},
};

static void run_iret(const void *arg)
{
    const struct iret_case *c = arg;

    x86_iret(&fake.cpu, c->size, NEXT);
}

static void test_iret(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    for (size_t i = 0; i < COUNT(irets); i++) {
        const struct iret_case *c = &irets[i];
        bool real = c->mode == REAL || c->mode == V86;

        fake_setup(c->mode, c->cpl);
        install_slots(c->slots);
        s->rflags = c->old_flags | X86_FLAG_FIXED;
        poke_stack(c->size, 5, c->rip, (uint64_t)c->cs, c->flags, c->rsp, (uint64_t)c->ss);
        fake_expect(c->name, run_iret, c, c->vector, c->code);
        if (c->vector != OK)
            continue;
        CHECK(c->name, s->gpr[X86_RSP], c->rsp_after);
        CHECK(c->name, s->rflags, c->flags_after);
        CHECK(c->name, fake.changed & X86_CHANGED_FLAGS, X86_CHANGED_FLAGS);
        if (real) {
            CHECK(c->name, s->rip, c->rip);
            CHECK(c->name, s->seg[X86_CS].base, (uint64_t)c->cs << 4);
            continue;
        }
        check_code(c->name, c->cs, c->rip, c->cs & 3);
        if (c->mode == LONG || (c->cs & 3u) != c->cpl)
            check_ss(c->name, c->ss, c->cs & 3);
    }
}

static void test_iret_unblocks_nmi(void **state)
{
    static const struct iret_case c = {.size = 4};

    (void)state;
    fake_setup(P32, 0);
    poke_stack(4, 3, 0x1234ull, (uint64_t)CODE32(0), 2ull);
    fake.cpu.s.pending.nmi_blocked = true;
    assert_false(fake_faults(run_iret, &c));
    assert_false(fake.cpu.s.pending.nmi_blocked);
    fake_setup(P32, 0);
    fake.cpu.s.pending.nmi_blocked = true;
    assert_true(fake_faults(run_iret, &c));
    assert_false(fake.cpu.s.pending.nmi_blocked);
}

static void test_iret_limits(void **state)
{
    static const struct iret_case c = {.size = 4}, wide = {.size = 8};

    (void)state;
    fake_setup(P32, 0);
    poke_stack(4, 5, 0x1234ull, (uint64_t)CODE32(3), 0ull, 0xe000ull, (uint64_t)DATA(3));
    fake.absent[FAKE_RSP >> 12] = true;
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 10;
    fake_expect("#SS before #PF", run_iret, &c, X86_SS_FAULT, 0);
    fake.absent[FAKE_RSP >> 12] = false;
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 18;
    fake_expect("SS", run_iret, &c, X86_SS_FAULT, 0);
    fake_setup(P32, 0);
    fake.cpu.s.gpr[X86_RSP] = 0xd000 - 12;
    poke(0xd000 - 12, 0x1234 | (uint64_t)CODE32(3) << 32, 8);
    fake.cpu.s.seg[X86_SS].limit = 0xd000 + 6;
    fake.absent[0xd] = true;
    fake_expect("SS before #PF", run_iret, &c, X86_SS_FAULT, 0);
    fake_setup(P32, 0);
    poke_stack(4, 5, 0x1234ull, (uint64_t)CODE32(3), 0ull, 0xe000ull, (uint64_t)DATA(3));
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 19;
    fake_expect("fits", run_iret, &c, OK, 0);
    fake_setup(LONG, 0);
    fake.cpu.s.gpr[X86_RSP] = 0x7ffffffffff0;
    fake_expect("not canonical", run_iret, &wide, X86_SS_FAULT, 0);
}

/* ---- IRET to and in virtual-8086 mode ---- */

static void setup_to_v86(uint64_t rip, uint64_t flags)
{
    fake_setup(P32, 0);
    poke_stack(4, 9, rip, 0x1111ull, flags, 0x1234e000ull, 0x2222ull, 0x3333ull, 0x4444ull,
               0x5555ull, 0x6666ull);
}

static void test_iret_to_v86(void **state)
{
    static const struct iret_case c = {.size = 4};
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_to_v86(0x1234, X86_FLAG_VM | 0x3202 | X86_FLAG_VIF);
    fake_expect("to V86", run_iret, &c, OK, 0);
    assert_int_equal(s->rip, 0x1234);
    assert_int_equal(s->gpr[X86_RSP], 0x1234e000);
    assert_int_equal(s->rflags, X86_FLAG_VM | 0x3202 | X86_FLAG_VIF);
    assert_int_equal(fake.cpu.cpl, 3);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        static const uint16_t expected[] = {0x3333, 0x1111, 0x2222, 0x4444, 0x5555, 0x6666};

        assert_int_equal(s->seg[i].selector, expected[i]);
        assert_int_equal(s->seg[i].base, expected[i] * 16);
        assert_int_equal(s->seg[i].limit, 0xffff);
        assert_int_equal(s->seg[i].attributes, 0xf3);
    }
    assert_int_equal(fake.changed, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);

    setup_to_v86(0xffff, X86_FLAG_VM);
    fake_expect("at the limit", run_iret, &c, OK, 0);
    setup_to_v86(0x10000, X86_FLAG_VM);
    fake_expect("beyond", run_iret, &c, X86_GP, 0);
    setup_to_v86(0x1234, X86_FLAG_VM);
    s->seg[X86_SS].limit = FAKE_RSP + 34;
    fake_expect("frame beyond the limit", run_iret, &c, X86_SS_FAULT, 0);
    setup_to_v86(0x1234, X86_FLAG_VM);
    s->gpr[X86_RSP] = 0xd000 - 12;
    memmove(&fake.memory[0xd000 - 12], &fake.memory[FAKE_RSP], 36);
    s->seg[X86_SS].limit = 0xd000 + 22;
    fake.absent[0xd] = true;
    fake_expect("#SS before #PF", run_iret, &c, X86_SS_FAULT, 0);
    setup_to_v86(0x1234, X86_FLAG_VM | X86_FLAG_VIF | X86_FLAG_VIP);
    fake_expect("VIF and VIP without VME", run_iret, &c, OK, 0);
    setup_to_v86(0x1234, X86_FLAG_VM | X86_FLAG_VIF | X86_FLAG_VIP);
    s->cr4 |= X86_CR4_VME;
    assert_true(fake_faults(run_iret, &c)); /* a fault of the first V86 instruction */
    assert_int_equal(fake.cpu.event.vector, X86_GP);
    assert_int_equal(fake.cpu.event.return_rip, 0x1234);
    assert_int_equal(fake.cpu.cpl, 3);
}

static void test_iret_vme(void **state)
{
    static const struct {
        const char *name;
        uint64_t old, image, after;
        unsigned size;
        int vector;
    } cases[] = {
        {"IF to VIF", 0, 0x4ed7, X86_FLAG_VIF | 0x4cd7, 2, OK},
        {"IF clear", X86_FLAG_VIF | X86_FLAG_IF, 0, X86_FLAG_IF, 2, OK},
        {"IF with VIP", X86_FLAG_VIP, 0x200, 0, 2, X86_GP},
        {"no IF with VIP", X86_FLAG_VIP, 0, X86_FLAG_VIP, 2, OK},
        {"TF", 0, 0x100, 0, 2, X86_GP},
        {"32-bit", 0, 0, 0, 4, X86_GP},
    };
    static const struct iret_case two = {.size = 2};

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct iret_case c = {.size = cases[i].size};

        fake_setup(V86, 3);
        fake.cpu.s.cr4 |= X86_CR4_VME;
        fake.cpu.s.rflags = cases[i].old | X86_FLAG_VM | X86_FLAG_FIXED;
        poke_stack(cases[i].size, 3, 0x1234ull, 0x5678ull, cases[i].image);
        fake_expect(cases[i].name, run_iret, &c, cases[i].vector, 0);
        if (cases[i].vector == OK)
            CHECK(cases[i].name, fake.cpu.s.rflags, cases[i].after | X86_FLAG_VM | X86_FLAG_FIXED);
    }
    fake_setup(V86, 3);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 4;
    fake_expect("stack limit", run_iret, &two, X86_SS_FAULT, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iret),        cmocka_unit_test(test_iret_unblocks_nmi),
        cmocka_unit_test(test_iret_limits), cmocka_unit_test(test_iret_to_v86),
        cmocka_unit_test(test_iret_vme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
