/* test_far_transfer.c - far JMP and CALL: every check in order, and the state after */
#include "fake_far.h"

#define CALL_GATE(selector, offset, attributes, count)                                             \
    GATE(selector, offset, A_SYSTEM(12) | (attributes), count)

static const uint16_t ring0 = CODE32(0);

/* ---- JMP and CALL ---- */

enum far_op { JUMP = 1, CALL = 2, BOTH = JUMP | CALL };

struct far_case {
    const char *name;
    enum far_op op;
    enum fake_mode mode;
    unsigned cpl;
    uint16_t selector;
    uint64_t offset;
    unsigned size;
    uint64_t slots[3]; /* descriptors at S0, S1, S2; 0: absent */
    int vector, code;
    uint16_t cs; /* afterwards */
    uint64_t rip;
};

static const struct far_case fars[] = {
    /* direct, 32-bit */
    {"null", BOTH, P32, 0, 0, 0x100, 4, {0}, X86_GP, 0, 0, 0},
    {"beyond the GDT", BOTH, P32, 0, BEYOND_GDT | 1, 0, 4, {0}, X86_GP, BEYOND_GDT, 0, 0},
    {"same level", BOTH, P32, 0, CODE32(0), 0x12345678, 4, {0}, OK, 0, CODE32(0), 0x12345678},
    {"16-bit offset", BOTH, P32, 0, CODE32(0), 0x12345678, 2, {0}, OK, 0, CODE32(0), 0x5678},
    {"CS gets CPL as RPL", BOTH, P32, 3, S0, 1, 4, {FLAT(A_CODE | A_DPL(3))}, OK, 0, S0 | 3, 1},
    {"data", BOTH, P32, 0, S0, 0, 4, {FLAT(A_DATA)}, X86_GP, S0, 0, 0},
    {"outer level", BOTH, P32, 0, CODE32(3) & ~3, 0, 4, {0}, X86_GP, CODE32(3) & ~3, 0, 0},
    {"inner level", BOTH, P32, 3, CODE32(0), 0, 4, {0}, X86_GP, CODE32(0), 0, 0},
    {"RPL > CPL", BOTH, P32, 0, S0 | 1, 0, 4, {FLAT(A_CODE)}, X86_GP, S0, 0, 0},
    {"absent", BOTH, P32, 0, S0, 0, 4, {FLAT(A_CODE - A_NOT_PRESENT)}, X86_NP, S0, 0, 0},
    {"DPL before absent", BOTH, P32, 3, S0, 0, 4, {FLAT(A_CODE - A_NOT_PRESENT)}, X86_GP, S0, 0, 0},
    {"conforming, inner", BOTH, P32, 3, S0 | 3, 5, 4, {FLAT(A_CODE_CONFORMING)}, OK, 0, S0 | 3, 5},
    {"conforming, same level", BOTH, P32, 0, S0, 5, 4, {FLAT(A_CODE_CONFORMING)}, OK, 0, S0, 5},
    {"conforming, RPL > CPL",
     BOTH,
     P32,
     1,
     S0 | 3,
     5,
     4,
     {FLAT(A_CODE_CONFORMING)},
     OK,
     0,
     S0 | 1,
     5},
    {"conforming, outer",
     BOTH,
     P32,
     0,
     S0,
     5,
     4,
     {FLAT(A_CODE_CONFORMING | A_DPL(1))},
     X86_GP,
     S0,
     0,
     0},
    {"at the limit", BOTH, P32, 0, S0, 0xff, 4, {DESC(0ull, 0xffull, A_CODE)}, OK, 0, S0, 0xff},
    {"beyond the limit",
     BOTH,
     P32,
     0,
     S0,
     0x100,
     4,
     {DESC(0ull, 0xffull, A_CODE)},
     X86_GP,
     0,
     0,
     0},
    {"L and D outside long mode", BOTH, P32, 0, S0, 1, 4, {FLAT(A_CODE | A_L)}, OK, 0, S0, 1},
    /* direct, long mode */
    {"64 to 64",
     BOTH,
     LONG,
     3,
     CODE64(3),
     0x7fff12345678,
     8,
     {0},
     OK,
     0,
     CODE64(3),
     0x7fff12345678},
    {"64 to 64, 32-bit offset",
     BOTH,
     LONG,
     0,
     CODE64(0),
     0x7fff87654321,
     4,
     {0},
     OK,
     0,
     CODE64(0),
     0x87654321},
    {"64 to 64, not canonical", BOTH, LONG, 0, CODE64(0), 0x800000000000, 8, {0}, X86_GP, 0, 0, 0},
    {"64 to 32", BOTH, LONG, 0, CODE32(0), 0xffffffff, 8, {0}, OK, 0, CODE32(0), 0xffffffff},
    {"64 to 32, beyond the limit", BOTH, LONG, 0, CODE32(0), 0x100000000, 8, {0}, X86_GP, 0, 0, 0},
    {"32 to 64", BOTH, COMPAT, 0, CODE64(0), 0xffffffff, 4, {0}, OK, 0, CODE64(0), 0xffffffff},
    {"L and D", BOTH, LONG, 0, S0, 0, 8, {FLAT(A_CODE | A_L)}, X86_GP, S0, 0, 0},
    {"L and D before DPL",
     BOTH,
     COMPAT,
     0,
     S0,
     0,
     4,
     {FLAT((A_CODE | A_L | A_DPL(3)) - A_NOT_PRESENT)},
     X86_GP,
     S0,
     0,
     0},
    {"task gate in long mode",
     BOTH,
     LONG,
     0,
     S0,
     0,
     8,
     {GATE(TSS_B_SELECTOR, 0ull, A_SYSTEM(5), 0)},
     X86_GP,
     S0,
     0,
     0},
    {"TSS in long mode", BOTH, LONG, 0, TSS_B_SELECTOR, 0, 8, {0}, X86_GP, TSS_B_SELECTOR, 0, 0},
    {"16-bit gate in long mode",
     BOTH,
     LONG,
     0,
     S0,
     0,
     8,
     {GATE(CODE64(0), 0ull, A_SYSTEM(4), 0)},
     X86_GP,
     S0,
     0,
     0},
    /* system types that are no target */
    {"LDT", BOTH, P32, 0, LDT_SELECTOR, 0, 4, {0}, X86_GP, LDT_SELECTOR, 0, 0},
    {"interrupt gate",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(0x10, 0ull, A_SYSTEM(14), 0)},
     X86_GP,
     S0,
     0,
     0},
    {"busy TSS", BOTH, P32, 0, TSS_SELECTOR, 0, 4, {0}, X86_GP, TSS_SELECTOR, 0, 0},
    {"TSS, DPL < CPL", BOTH, P32, 3, TSS_B_SELECTOR, 0, 4, {0}, X86_GP, TSS_B_SELECTOR, 0, 0},
    {"TSS, DPL < RPL", BOTH, P32, 0, TSS_B_SELECTOR | 1, 0, 4, {0}, X86_GP, TSS_B_SELECTOR, 0, 0},
    {"TSS, absent",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {DESC(0x5000ull, 0x67ull, A_SYSTEM(9) - A_NOT_PRESENT)},
     X86_NP,
     S0,
     0,
     0},
    {"TSS, short",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {DESC(0x5000ull, 0x66ull, A_SYSTEM(9))},
     X86_TS,
     S0,
     0,
     0},
    {"task gate, DPL < CPL",
     BOTH,
     P32,
     1,
     S0,
     0,
     4,
     {GATE(TSS_B_SELECTOR, 0ull, A_SYSTEM(5), 0)},
     X86_GP,
     S0,
     0,
     0},
    {"task gate, absent",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(TSS_B_SELECTOR, 0ull, A_SYSTEM(5) - A_NOT_PRESENT, 0)},
     X86_NP,
     S0,
     0,
     0},
    {"task gate, TSS in LDT",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(0x0c, 0ull, A_SYSTEM(5), 0)},
     X86_GP,
     0x0c,
     0,
     0},
    {"task gate, TSS busy",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(TSS_SELECTOR, 0ull, A_SYSTEM(5), 0)},
     X86_GP,
     TSS_SELECTOR,
     0,
     0},
    {"task gate, TSS beyond",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(BEYOND_GDT, 0ull, A_SYSTEM(5), 0)},
     X86_GP,
     BEYOND_GDT,
     0,
     0},
    /* call gates without a change of level */
    {"gate",
     BOTH,
     P32,
     3,
     S0 | 3,
     0,
     4,
     {CALL_GATE(CODE32(3), 0x12345678ull, A_DPL(3), 0)},
     OK,
     0,
     CODE32(3),
     0x12345678},
    {"16-bit gate",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(0x10, 0x12345678ull, A_SYSTEM(4), 0)},
     OK,
     0,
     0x10,
     0x5678},
    {"gate's RPL is ignored",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {CALL_GATE(CODE32(0) | 3, 9ull, 0, 0)},
     OK,
     0,
     CODE32(0),
     9},
    {"gate to conforming code",
     BOTH,
     P32,
     3,
     S0 | 3,
     0,
     4,
     {CALL_GATE(S1, 9ull, A_DPL(3), 0), FLAT(A_CODE_CONFORMING)},
     OK,
     0,
     S1 | 3,
     9},
    {"gate, DPL < CPL",
     BOTH,
     P32,
     3,
     S0,
     0,
     4,
     {CALL_GATE(0x2b, 9ull, A_DPL(2), 0)},
     X86_GP,
     S0,
     0,
     0},
    {"gate, DPL < RPL",
     BOTH,
     P32,
     0,
     S0 | 1,
     0,
     4,
     {CALL_GATE(0x10, 9ull, 0, 0)},
     X86_GP,
     S0,
     0,
     0},
    {"gate, absent",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {GATE(0, 9ull, A_SYSTEM(12) - A_NOT_PRESENT, 0)},
     X86_NP,
     S0,
     0,
     0},
    {"gate, null", BOTH, P32, 0, S0, 0, 4, {CALL_GATE(0, 9ull, 0, 0)}, X86_GP, 0, 0, 0},
    {"gate, beyond",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {CALL_GATE(BEYOND_GDT, 9ull, 0, 0)},
     X86_GP,
     BEYOND_GDT,
     0,
     0},
    {"gate to data",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {CALL_GATE(DATA(0), 9ull, 0, 0)},
     X86_GP,
     DATA(0),
     0,
     0},
    {"gate to outer code",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {CALL_GATE(CODE32(1), 9ull, 0, 0)},
     X86_GP,
     CODE32(1) & ~3,
     0,
     0},
    {"gate to absent code",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {CALL_GATE(S1, 9ull, 0, 0), FLAT(A_CODE - A_NOT_PRESENT)},
     X86_NP,
     S1,
     0,
     0},
    {"gate beyond the limit",
     BOTH,
     P32,
     0,
     S0,
     0,
     4,
     {CALL_GATE(S1, 0x100ull, 0, 0), DESC(0ull, 0xffull, A_CODE)},
     X86_GP,
     0,
     0,
     0},
    {"JMP to inner code",
     JUMP,
     P32,
     3,
     S0 | 3,
     0,
     4,
     {CALL_GATE(CODE32(0), 9ull, A_DPL(3), 0)},
     X86_GP,
     CODE32(0),
     0,
     0},
    /* 64-bit call gates */
    {"64-bit gate",
     BOTH,
     LONG,
     3,
     S0 | 3,
     0,
     8,
     {CALL_GATE(CODE64(3), 0x12345678ull, A_DPL(3), 0), 0x7fff},
     OK,
     0,
     CODE64(3),
     0x7fff12345678},
    {"64-bit gate from 32",
     BOTH,
     COMPAT,
     0,
     S0,
     0,
     4,
     {CALL_GATE(CODE64(0), 0x12345678ull, 0, 0), 0xffff8000},
     OK,
     0,
     CODE64(0),
     0xffff800012345678},
    {"64-bit gate, bad upper half",
     BOTH,
     LONG,
     0,
     S0,
     0,
     8,
     {CALL_GATE(CODE64(0), 9ull, 0, 0), FLAT(1u)},
     X86_GP,
     S0,
     0,
     0},
    {"64-bit gate, half beyond", BOTH, LONG, 0, 0x1f8, 0, 8, {0}, X86_GP, 0x1f8, 0, 0},
    {"64-bit gate to 32-bit code",
     BOTH,
     LONG,
     0,
     S0,
     0,
     8,
     {CALL_GATE(CODE32(0), 9ull, 0, 0)},
     X86_GP,
     CODE32(0),
     0,
     0},
    {"64-bit gate, L and D",
     BOTH,
     LONG,
     0,
     S0,
     0,
     8,
     {CALL_GATE(S2, 9ull, 0, 0), 0, FLAT(A_CODE | A_L)},
     X86_GP,
     S2,
     0,
     0},
    {"64-bit gate, not canonical",
     BOTH,
     LONG,
     0,
     S0,
     0,
     8,
     {CALL_GATE(CODE64(0), 9ull, 0, 0), 0x8000},
     X86_GP,
     0,
     0,
     0},
};

static void run_jump(const void *arg)
{
    const struct far_case *c = arg;

    x86_far_jump(&fake.cpu, c->selector, c->offset, c->size, NEXT);
}
static void run_call(const void *arg)
{
    const struct far_case *c = arg;

    x86_far_call(&fake.cpu, c->selector, c->offset, c->size, NEXT);
}

static void setup_far(const struct far_case *c)
{
    fake_setup(c->mode, c->cpl);
    for (unsigned i = 0; i < 3; i++)
        if (c->slots[i])
            set_gdt((uint16_t)(S0 + 8 * i), c->slots[i]);
    if (c->selector == 0x1f8)
        set_gdt(0x1f8, CALL_GATE(CODE64(0), 9ull, 0, 0));
}

static unsigned pushed_size(const struct far_case *c)
{
    unsigned type = get_gdt(c->selector) >> 40 & 0x1f;

    if (type != 12 && type != 4)
        return c->size;
    return c->mode >= COMPAT ? 8 : type == 12 ? 4 : 2;
}

static void test_jump(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(fars); i++) {
        const struct far_case *c = &fars[i];

        if (!(c->op & JUMP))
            continue;
        setup_far(c);
        fake_expect(c->name, run_jump, c, c->vector, c->code);
        if (c->vector != OK)
            continue;
        check_code(c->name, c->cs, c->rip, c->cpl);
        CHECK(c->name, fake.cpu.s.gpr[X86_RSP], FAKE_RSP);
    }
}

static void test_call(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(fars); i++) {
        const struct far_case *c = &fars[i];
        uint64_t old_cs;

        if (!(c->op & CALL))
            continue;
        setup_far(c);
        old_cs = fake.cpu.s.seg[X86_CS].selector;
        fake_expect(c->name, run_call, c, c->vector, c->code);
        if (c->vector != OK)
            continue;
        check_code(c->name, c->cs, c->rip, c->cpl);
        CHECK(c->name, fake.cpu.s.gpr[X86_RSP], FAKE_RSP - 2 * pushed_size(c));
        check_stack(c->name, pushed_size(c), 2, (uint64_t)NEXT, old_cs);
    }
}

/* ---- CALL to an inner level ---- */

static const struct far_case inner_call = {.selector = S0 | 3, .size = 4};

static void setup_inner(enum fake_mode mode, uint64_t gate, uint64_t upper)
{
    fake_setup(mode, 3);
    set_gdt(S0, gate);
    set_gdt(S1, upper);
    for (unsigned i = 0; i < 31; i++)
        poke(FAKE_RSP + 4 * i, 0xa0000000u + i, 4);
}

static void test_call_inner(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_inner(P32, CALL_GATE(CODE32(1), 0x1234ull, A_DPL(3), 3), 0);
    fake.supervisor[FAKE_TSS >> 12] = fake.supervisor[(FAKE_RSP_LEVEL(1) - 1) >> 12] = true;
    fake_expect("to level 1", run_call, &inner_call, OK, 0);
    check_code("to level 1", CODE32(1), 0x1234, 1);
    assert_int_equal(s->seg[X86_SS].selector, DATA(1));
    assert_int_equal(get_gdt(DATA(1)) >> 40 & 1, 1);
    assert_int_equal(s->gpr[X86_RSP], FAKE_RSP_LEVEL(1) - 7 * 4);
    check_stack("to level 1", 4, 7, (uint64_t)NEXT, (uint64_t)CODE32(3), 0xa0000000ull,
                0xa0000001ull, 0xa0000002ull, (uint64_t)FAKE_RSP, (uint64_t)DATA(3));
    assert_int_equal(s->seg[X86_DS].selector, DATA(3));

    setup_inner(P32, GATE(CODE32(0), 0x51234ull, A_SYSTEM(4) | A_DPL(3), 2), 0);
    fake_expect("16-bit gate", run_call, &inner_call, OK, 0);
    check_code("16-bit gate", CODE32(0), 0x1234, 0);
    assert_int_equal(s->gpr[X86_RSP], FAKE_RSP_LEVEL(0) - 6 * 2);
    check_stack("16-bit gate", 2, 6, (uint64_t)NEXT, (uint64_t)CODE32(3), 0ull, 0xa000ull,
                (uint64_t)FAKE_RSP, (uint64_t)DATA(3));

    setup_inner(P32, CALL_GATE(CODE32(2), 0x1234ull, A_DPL(3), 31), 0);
    fake_expect("31 parameters", run_call, &inner_call, OK, 0);
    assert_int_equal(s->gpr[X86_RSP], FAKE_RSP_LEVEL(2) - 35 * 4);
    check_stack("31 parameters", 4, 4, (uint64_t)NEXT, (uint64_t)CODE32(3), 0xa0000000ull,
                0xa0000001ull);
}

static void test_call_inner_16bit_tss(void **state)
{
    (void)state;
    setup_inner(P32, CALL_GATE(CODE32(0), 0x1234ull, A_DPL(3), 0), 0);
    fake.cpu.s.tr = (struct x86_segment){FAKE_TSS16, 0x2b, TSS16_SELECTOR, A_SYSTEM(3)};
    poke(FAKE_TSS16 + 2, 0x9800u | (uint64_t)DATA(0) << 16, 4);
    fake_expect("16-bit TSS", run_call, &inner_call, OK, 0);
    assert_int_equal(fake.cpu.s.gpr[X86_RSP], 0x9800 - 16);
    fake_setup(P32, 3);
    set_gdt(S0, CALL_GATE(CODE32(0), 0x1234ull, A_DPL(3), 0));
    fake.cpu.s.tr = (struct x86_segment){FAKE_TSS16, 4, TSS16_SELECTOR, A_SYSTEM(3)};
    fake_expect("16-bit TSS, too short", run_call, &inner_call, X86_TS, TSS16_SELECTOR);
}

static void test_call_inner_64(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    for (int mode = COMPAT; mode <= LONG; mode++) {
        uint64_t old_cs;

        setup_inner((enum fake_mode)mode, CALL_GATE(CODE64(0), 0x12345678ull, A_DPL(3), 5),
                    0xffff8000);
        old_cs = s->seg[X86_CS].selector;
        poke(FAKE_TSS + 4, FAKE_HIGH + 0x9008, 8);
        fake_expect("64-bit gate", run_call, &inner_call, OK, 0);
        check_code("64-bit gate", CODE64(0), 0xffff800012345678, 0);
        assert_int_equal(s->seg[X86_SS].selector, 0);
        assert_int_equal(s->seg[X86_SS].attributes & X86_SEG_P, 0);
        assert_true(s->gpr[X86_RSP] == FAKE_HIGH + 0x9008 - 32); /* not aligned */
        check_stack("64-bit gate", 8, 4, (uint64_t)NEXT, old_cs, (uint64_t)FAKE_RSP,
                    (uint64_t)DATA(3));
    }
    setup_inner(LONG, CALL_GATE(CODE64(2), 9ull, A_DPL(3), 0), 0);
    fake_expect("64-bit gate to level 2", run_call, &inner_call, OK, 0);
    assert_int_equal(s->seg[X86_SS].selector, 2);
    assert_int_equal(s->gpr[X86_RSP], FAKE_RSP_LEVEL(2) - 32);

    setup_inner(LONG, CALL_GATE(CODE64(0), 9ull, A_DPL(3), 0), 0);
    poke(FAKE_TSS + 4, 0x800000000010, 8);
    fake_expect("64-bit gate, stack not canonical", run_call, &inner_call, X86_SS_FAULT, 0);
    s->tr.limit = 10;
    fake_expect("64-bit gate, TSS too short", run_call, &inner_call, X86_TS, TSS_SELECTOR);
}

struct inner_case {
    const char *name;
    uint16_t ss; /* in the TSS, for level 0 */
    uint32_t esp;
    uint64_t slot; /* descriptor at S2 */
    uint32_t tss_limit;
    unsigned count;
    int vector, code;
};

static const struct inner_case inners[] = {
    {"fits", S2, 20, FLAT(A_DATA), 9, 1, OK, 0},
    {"TSS too short", S2, 0x100, FLAT(A_DATA), 8, 0, X86_TS, TSS_SELECTOR},
    {"SS null", 0, 0x100, 0, 0x67, 0, X86_TS, 0},
    {"SS beyond", BEYOND_GDT, 0x100, 0, 0x67, 0, X86_TS, BEYOND_GDT},
    {"SS: RPL", S2 | 1, 0x100, FLAT(A_DATA), 0x67, 0, X86_TS, S2},
    {"SS: DPL", S2, 0x100, FLAT(A_DATA | A_DPL(1)), 0x67, 0, X86_TS, S2},
    {"SS: code", S2, 0x100, FLAT(A_CODE), 0x67, 0, X86_TS, S2},
    {"SS: read-only", S2, 0x100, FLAT(A_DATA_RO), 0x67, 0, X86_TS, S2},
    {"SS: type before present", S2, 0x100, FLAT(A_DATA_RO - A_NOT_PRESENT), 0x67, 0, X86_TS, S2},
    {"SS: absent", S2, 0x100, FLAT(A_DATA - A_NOT_PRESENT), 0x67, 0, X86_SS_FAULT, S2},
    {"no room", S2, 19, FLAT(A_DATA), 0x67, 1, X86_SS_FAULT, S2},
    {"no room below expand-down", S2, 0x110, DESC(0ull, 0x100ull, A_DATA_DOWN | A_D), 0x67, 0,
     X86_SS_FAULT, S2},
    {"room in expand-down", S2, 0x111, DESC(0ull, 0x100ull, A_DATA_DOWN | A_D), 0x67, 0, OK, 0},
    {"16-bit stack wraps", S2, 8, DESC(0ull, 0xffffull, A_DATA), 0x67, 0, OK, 0},
    {"beyond a small stack", S2, 0x104, DESC(0ull, 0xffull, A_DATA), 0x67, 0, X86_SS_FAULT, S2},
};

static void test_call_inner_stack(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(inners); i++) {
        const struct inner_case *c = &inners[i];

        setup_inner(P32, CALL_GATE(CODE32(0), 0x1234ull, A_DPL(3), c->count), 0);
        set_gdt(0, FLAT(A_DATA));
        if (c->slot)
            set_gdt(S2, c->slot);
        fake.cpu.s.tr.limit = c->tss_limit;
        poke(FAKE_TSS + 4, c->esp | (uint64_t)c->ss << 32, 8);
        fake_expect(c->name, run_call, &inner_call, c->vector, c->code);
    }
}

/* #SS comes before the target's #GP, and the caller's stack is read with its own limit. */
static void test_call_order(void **state)
{
    (void)state;
    setup_inner(P32, CALL_GATE(S1, 0x1234ull, A_DPL(3), 1), DESC(0ull, 0xffull, A_CODE));
    fake_expect("target limit", run_call, &inner_call, X86_GP, 0);
    set_gdt(S2, DESC(0ull, 0xffull, A_DATA | A_D));
    poke(FAKE_TSS + 4, 0x200 | (uint64_t)S2 << 32, 8);
    fake_expect("stack before target", run_call, &inner_call, X86_SS_FAULT, S2);
    setup_inner(P32, CALL_GATE(CODE32(0), 0x1234ull, A_DPL(3), 1), 0);
    fake.cpu.s.seg[X86_SS].limit = FAKE_RSP + 2;
    fake_expect("parameters beyond the caller's stack", run_call, &inner_call, X86_SS_FAULT, 0);
    setup_inner(P32, CALL_GATE(CODE32(0), 0x1234ull, A_DPL(3), 1), 0);
    fake.absent[(FAKE_RSP_LEVEL(0) - 1) >> 12] = true;
    fake_expect("inner stack absent", run_call, &inner_call, X86_PF, X86_PF_W);
    setup_inner(P32, CALL_GATE(CODE32(0), 0x1234ull, A_DPL(3), 1), 0);
    fake.supervisor[FAKE_RSP >> 12] = true;
    fake_expect("parameters are read as the caller", run_call, &inner_call, X86_PF, X86_PF_U);
}

static void test_call_same_stack(void **state)
{
    static const struct far_case call = {.selector = CODE32(0), .size = 4};
    static const struct far_case beyond = {.selector = S0, .offset = 0x1000, .size = 4};

    (void)state;
    fake_setup(P32, 0);
    fake.cpu.s.gpr[X86_RSP] = 7;
    fake_expect("no room", run_call, &call, X86_SS_FAULT, 0);
    set_gdt(S0, DESC(0ull, 0xfffull, A_CODE));
    fake_expect("stack before target", run_call, &beyond, X86_SS_FAULT, 0);
    fake_setup(LONG, 0);
    fake.cpu.s.gpr[X86_RSP] = 0xffff800000000004;
    fake_expect("not canonical", run_call, &call, X86_SS_FAULT, 0);
    fake.cpu.s.gpr[X86_RSP] = 0x800000000002;
    fake_expect("not canonical at its end", run_call, &call, X86_SS_FAULT, 0);
    fake_setup(P32, 0);
    fake.cpu.s.seg[X86_SS].attributes &= ~X86_SEG_DB;
    fake.cpu.s.gpr[X86_RSP] = 0x55550004;
    fake_expect("16-bit stack", run_call, &call, OK, 0);
    assert_int_equal(fake.cpu.s.gpr[X86_RSP], 0x5555fffc);
    assert_int_equal(peek(0xfffc, 4), NEXT);
    assert_int_equal(peek(0, 4), ring0);
}

/* ---- real mode ---- */

static void test_real(void **state)
{
    static const struct far_case jump = {.selector = 0xf000, .offset = 0x8fff0, .size = 2};
    static const struct far_case wide = {.selector = 0xf000, .offset = 0x10000, .size = 4};
    static const struct far_case call = {.selector = 0x1000, .offset = 0x10, .size = 4};
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    for (int mode = REAL; mode <= V86; mode++) {
        fake_setup((enum fake_mode)mode, 3);
        fake_expect("jump", run_jump, &jump, OK, 0);
        assert_int_equal(s->seg[X86_CS].base, 0xf0000);
        assert_int_equal(s->rip, 0xfff0);
        fake_expect("jump beyond", run_jump, &wide, X86_GP, 0);
        fake_setup((enum fake_mode)mode, 3);
        s->seg[X86_CS].selector = 0x4321;
        fake_expect("call", run_call, &call, OK, 0);
        assert_int_equal(s->gpr[X86_RSP], FAKE_RSP - 8);
        assert_int_equal(peek(FAKE_RSP - 4, 4), 0x4321);
        assert_int_equal(peek(FAKE_RSP - 8, 4), NEXT);
        assert_int_equal(s->seg[X86_CS].base, 0x10000);
        s->gpr[X86_RSP] = 0x100;
        fake_expect("call beyond", run_call, &wide, X86_GP, 0);
        s->gpr[X86_RSP] = 1;
        fake_expect("call, no room", run_call, &wide, X86_SS_FAULT, 0);
    }
    fake_setup(REAL, 0);
    s->seg[X86_CS] = (struct x86_segment){0, 0xffffffff, 0, 0xc09b};
    fake_expect("big real mode", run_jump, &wide, OK, 0);
    assert_int_equal(s->rip, 0x10000);
    assert_int_equal(s->seg[X86_CS].attributes, 0xc093);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jump),          cmocka_unit_test(test_call),
        cmocka_unit_test(test_call_inner),    cmocka_unit_test(test_call_inner_16bit_tss),
        cmocka_unit_test(test_call_inner_64), cmocka_unit_test(test_call_inner_stack),
        cmocka_unit_test(test_call_order),    cmocka_unit_test(test_call_same_stack),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
