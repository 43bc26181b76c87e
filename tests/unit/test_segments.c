/* test_segments.c - segment loads, LLDT, LTR, LAR, LSL, VERR, VERW, ports, SYSCALL and SYSENTER */
#include "fake_cpu.h"

#define S0   FAKE_SLOT
#define LDT1 0x0c /* second entry of the LDT */

/* ---- MOV to segment registers ---- */

struct load_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl;
    enum x86_segment_index seg;
    uint16_t selector;
    uint64_t descriptor; /* at selector, unless 0 */
    int vector, code;
};

static const struct load_case loads[] = {
    {"ds: null", P32, 3, X86_DS, 0, 0, OK, 0},
    {"ds: null with RPL", P32, 3, X86_DS, 3, 0, OK, 0},
    {"ds: data", P32, 0, X86_DS, S0, FLAT(A_DATA), OK, 0},
    {"ds: read-only data", P32, 0, X86_DS, S0, FLAT(A_DATA_RO), OK, 0},
    {"ds: readable code", P32, 0, X86_DS, S0, FLAT(A_CODE), OK, 0},
    {"ds: execute-only code", P32, 0, X86_DS, S0, FLAT(A_CODE_EXECUTE_ONLY), X86_GP, S0},
    {"ds: system descriptor", P32, 0, X86_DS, S0, FLAT(A_SYSTEM(2)), X86_GP, S0},
    {"ds: type before present", P32, 0, X86_DS, S0, FLAT(A_SYSTEM(2) - A_NOT_PRESENT), X86_GP, S0},
    {"ds: not present", P32, 0, X86_DS, S0 | 1, FLAT((A_DATA | A_DPL(3)) - A_NOT_PRESENT), X86_NP,
     S0},
    {"ds: beyond the GDT", P32, 0, X86_DS, BEYOND_GDT | 3, 0, X86_GP, BEYOND_GDT},
    {"ds: last entry of the GDT", P32, 0, X86_DS, 0x1f8, FLAT(A_DATA), OK, 0},
    {"ds: CPL > DPL", P32, 3, X86_DS, S0, FLAT(A_DATA), X86_GP, S0},
    {"ds: RPL > DPL", P32, 0, X86_DS, S0 | 3, FLAT(A_DATA), X86_GP, S0},
    {"ds: DPL before present", P32, 3, X86_DS, S0, FLAT(A_DATA - A_NOT_PRESENT), X86_GP, S0},
    {"ds: RPL and CPL below DPL", P32, 1, X86_DS, S0 | 2, FLAT(A_DATA | A_DPL(3)), OK, 0},
    {"ds: conforming code of any level", P32, 3, X86_DS, S0 | 3, FLAT(A_CODE_CONFORMING), OK, 0},
    {"ds: conforming execute-only code", P32, 3, X86_DS, S0 | 3, FLAT(0x009cu), X86_GP, S0},
    {"gs: 64-bit mode checks, too", LONG, 3, X86_GS, S0, FLAT(A_DATA), X86_GP, S0},
    {"gs: null in 64-bit mode", LONG, 3, X86_GS, 0, 0, OK, 0},
    {"es: from the LDT", P32, 0, X86_ES, LDT1, 0, OK, 0},
    {"es: last entry of the LDT", P32, 0, X86_ES, 0x3c, FLAT(A_DATA), OK, 0},
    {"es: beyond the LDT", P32, 0, X86_ES, 0x44, FLAT(A_DATA), X86_GP, 0x44},
    {"ss: null", P32, 0, X86_SS, 0, 0, X86_GP, 0},
    {"ss: null in compatibility mode", COMPAT, 0, X86_SS, 0, 0, X86_GP, 0},
    {"ss: null in 64-bit mode", LONG, 0, X86_SS, 0, 0, OK, 0},
    {"ss: null at level 2", LONG, 2, X86_SS, 2, 0, OK, 0},
    {"ss: null with other RPL", LONG, 1, X86_SS, 0, 0, X86_GP, 0},
    {"ss: null at level 3", LONG, 3, X86_SS, 3, 0, X86_GP, 0},
    {"ss: writable data", P32, 1, X86_SS, S0 | 1, FLAT(A_DATA | A_DPL(1)), OK, 0},
    {"ss: expand-down", P32, 0, X86_SS, S0, FLAT(A_DATA_DOWN), OK, 0},
    {"ss: beyond the GDT", P32, 0, X86_SS, BEYOND_GDT, 0, X86_GP, BEYOND_GDT},
    {"ss: RPL != CPL", P32, 0, X86_SS, S0 | 1, FLAT(A_DATA), X86_GP, S0},
    {"ss: DPL != CPL", P32, 0, X86_SS, S0, FLAT(A_DATA | A_DPL(1)), X86_GP, S0},
    {"ss: read-only data", P32, 0, X86_SS, S0, FLAT(A_DATA_RO), X86_GP, S0},
    {"ss: code", P32, 0, X86_SS, S0, FLAT(A_CODE), X86_GP, S0},
    {"ss: not present", P32, 0, X86_SS, S0, FLAT(A_DATA - A_NOT_PRESENT), X86_SS_FAULT, S0},
    {"ss: 64-bit mode checks, too", LONG, 0, X86_SS, S0, FLAT(A_DATA - A_NOT_PRESENT), X86_SS_FAULT,
     S0},
};

static void run_load(const void *arg)
{
    const struct load_case *c = arg;

    x86_load_segment(&fake.cpu, c->seg, c->selector);
}

static uint64_t table_of(uint16_t selector)
{
    return selector & 4 ? FAKE_LDT : FAKE_GDT;
}

static void test_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(loads); i++) {
        const struct load_case *c = &loads[i];
        const struct x86_segment *seg = &fake.cpu.s.seg[c->seg];
        bool null = (c->selector & 0xfffc) == 0;

        fake_setup(c->mode, c->cpl);
        poke(FAKE_LDT + (LDT1 & ~7), FLAT(A_DATA), 8);
        set_gdt(0, FLAT(A_DATA | A_DPL(c->cpl)));
        if (c->descriptor)
            poke(table_of(c->selector) + (c->selector & 0xfff8u), c->descriptor, 8);
        fake_expect(c->name, run_load, c, c->vector, c->code);
        if (c->vector != OK) {
            continue;
        }
        CHECK(c->name, seg->selector, c->selector);
        CHECK(c->name, !!(seg->attributes & X86_SEG_P), !null);
        CHECK(c->name, !!(seg->attributes & X86_SEG_ACCESSED), !null);
        if (c->descriptor)
            CHECK(c->name, peek(table_of(c->selector) + (c->selector & 0xfff8u), 8),
                  c->descriptor | 1ull << 40);
        CHECK(c->name, fake.changed & X86_CHANGED_SEGMENTS, X86_CHANGED_SEGMENTS);
        CHECK(c->name, fake.cpu.s.rip, FAKE_RIP);
        x86_refresh_cpl(&fake.cpu);
        CHECK(c->name, fake.cpu.cpl, c->cpl);
    }
}

static void test_load_hidden_part(void **state)
{
    const struct x86_segment *es = &fake.cpu.s.seg[X86_ES];

    (void)state;
    fake_setup(P32, 0);
    set_gdt(S0, DESC(0x12345678ull, 0xabcdeull, A_DATA));
    x86_load_segment(&fake.cpu, X86_ES, S0);
    assert_int_equal(es->base, 0x12345678);
    assert_int_equal(es->limit, 0xabcde);
    assert_int_equal(es->attributes, A_DATA | 1);
    set_gdt(S0, DESC(0xff000000ull, 0xabcdeull, A_DATA | A_G | A_D | 0x1000u));
    x86_load_segment(&fake.cpu, X86_ES, S0);
    assert_int_equal(es->base, 0xff000000);
    assert_int_equal(es->limit, 0xabcdefff);
    assert_int_equal(es->attributes, A_DATA | A_G | A_D | 0x1001u);
}

static void test_load_real(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    fake_setup(REAL, 0);
    s->seg[X86_DS] = (struct x86_segment){0x100, 0xffffffff, 0x10, 0xc093};
    x86_load_segment(&fake.cpu, X86_DS, 0xf123);
    assert_int_equal(s->seg[X86_DS].base, 0xf1230);
    assert_int_equal(s->seg[X86_DS].limit, 0xffffffff); /* big real mode */
    assert_int_equal(s->seg[X86_DS].attributes, 0xc093);
    s->seg[X86_ES] = (struct x86_segment){0}; /* was null in protected mode */
    x86_load_segment(&fake.cpu, X86_ES, 1);
    assert_int_equal(s->seg[X86_ES].base, 0x10);
    assert_int_equal(s->seg[X86_ES].limit, 0xffff);
    assert_int_equal(s->seg[X86_ES].attributes, 0x93);

    fake_setup(V86, 3);
    x86_load_segment(&fake.cpu, X86_SS, 0xffff);
    assert_int_equal(s->seg[X86_SS].base, 0xffff0);
    assert_int_equal(s->seg[X86_SS].limit, 0xffff);
    assert_int_equal(s->seg[X86_SS].attributes, 0xf3);
}

/* The descriptor tables are read as a supervisor, and the accessed bit can fault. */
static void test_load_memory(void **state)
{
    static const struct load_case user = {"", P32, 3, X86_DS, S0 | 3, 0, OK, 0};

    (void)state;
    fake_setup(P32, 3);
    set_gdt(S0, FLAT(A_DATA | A_DPL(3)));
    fake.supervisor[FAKE_GDT >> 12] = true;
    fake_expect("supervisor GDT", run_load, &user, OK, 0);
    fake.readonly[FAKE_GDT >> 12] = true;
    fake_expect("read-only GDT, accessed already", run_load, &user, OK, 0);
    set_gdt(S0, FLAT(A_DATA | A_DPL(3)));
    fake_expect("read-only GDT", run_load, &user, X86_PF, X86_PF_W);
    assert_int_equal(fake.cpu.s.cr2, FAKE_GDT + S0 + 5);
    fake.absent[FAKE_GDT >> 12] = true;
    fake_expect("absent GDT", run_load, &user, X86_PF, 0);
    fake_setup(LONG, 0);
    fake.cpu.s.gdtr.base = 0x7ffffffffff0;
    fake_expect("GDT reaches a non-canonical address", run_load, &user, X86_GP, 0);
    fake_setup(P32, 3);
    fake.cpu.s.gdtr.base = 0xffffff00;
    poke(FAKE_SLOT - 0x100, FLAT(A_DATA | A_DPL(3)), 8);
    fake_expect("GDT wraps at 4 GiB", run_load, &user, OK, 0);
}

/* ---- LLDT, LTR ---- */

struct system_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl;
    uint16_t selector;
    uint64_t low, high;
    int vector, code;
};

static void install(uint16_t selector, uint64_t low, uint64_t high)
{
    if (low) {
        set_gdt(selector, low);
        set_gdt((uint16_t)(selector + 8), high);
    }
}

#define LDT_D(attributes) DESC(0x3100ull, 0x1full, attributes)
#define TSS_D(attributes) DESC(0x4100ull, 0x67ull, attributes)

static const struct system_case lldts[] = {
    {"null", P32, 0, 0, 0, 0, OK, 0},
    {"null with RPL", P32, 0, 3, 0, 0, OK, 0},
    {"LDT", P32, 0, S0, LDT_D(A_SYSTEM(2)), 0, OK, 0},
    {"RPL is ignored", P32, 0, S0 | 3, LDT_D(A_SYSTEM(2)), 0, OK, 0},
    {"real mode", REAL, 0, S0, 0, 0, X86_UD, -1},
    {"V86 mode", V86, 3, S0, 0, 0, X86_UD, -1},
    {"CPL 1", P32, 1, S0, LDT_D(A_SYSTEM(2)), 0, X86_GP, 0},
    {"from the LDT", P32, 0, LDT1, 0, 0, X86_GP, LDT1},
    {"beyond", P32, 0, BEYOND_GDT | 2, 0, 0, X86_GP, BEYOND_GDT},
    {"TSS", P32, 0, S0, LDT_D(A_SYSTEM(9)), 0, X86_GP, S0},
    {"data", P32, 0, S0, LDT_D(A_DATA), 0, X86_GP, S0},
    {"not present", P32, 0, S0, LDT_D(A_SYSTEM(2) - A_NOT_PRESENT), 0, X86_NP, S0},
    {"long", LONG, 0, S0, LDT_D(A_SYSTEM(2)), 0xffff8000, OK, 0},
    {"long, compatibility", COMPAT, 0, S0, LDT_D(A_SYSTEM(2)), 0xffff8000, OK, 0},
    {"long, half beyond", LONG, 0, 0x1f8, LDT_D(A_SYSTEM(2)), 0, X86_GP, 0x1f8},
    {"long, bad upper half", LONG, 0, S0, LDT_D(A_SYSTEM(2)), FLAT(0x02u), X86_GP, S0},
    {"long, not canonical", LONG, 0, S0, LDT_D(A_SYSTEM(2)), 0x8000, X86_GP, S0},
};

static const struct system_case ltrs[] = {
    {"32-bit", P32, 0, S0, TSS_D(A_SYSTEM(9)), 0, OK, 0},
    {"16-bit", P32, 0, S0, TSS_D(A_SYSTEM(1)), 0, OK, 0},
    {"64-bit", LONG, 0, S0, TSS_D(A_SYSTEM(9)), 0xffff8000, OK, 0},
    {"real mode", REAL, 0, S0, 0, 0, X86_UD, -1},
    {"V86 mode", V86, 3, S0, 0, 0, X86_UD, -1},
    {"CPL 3", P32, 3, S0, TSS_D(A_SYSTEM(9)), 0, X86_GP, 0},
    {"null", P32, 0, 2, 0, 0, X86_GP, 0},
    {"from the LDT", P32, 0, LDT1, 0, 0, X86_GP, LDT1},
    {"beyond", P32, 0, BEYOND_GDT, 0, 0, X86_GP, BEYOND_GDT},
    {"busy", P32, 0, S0, TSS_D(A_SYSTEM(11)), 0, X86_GP, S0},
    {"16-bit busy", P32, 0, S0, TSS_D(A_SYSTEM(3)), 0, X86_GP, S0},
    {"LDT", P32, 0, S0, TSS_D(A_SYSTEM(2)), 0, X86_GP, S0},
    {"not present", P32, 0, S0, TSS_D(A_SYSTEM(9) - A_NOT_PRESENT), 0, X86_NP, S0},
    {"busy before not present", P32, 0, S0, TSS_D(A_SYSTEM(11) - A_NOT_PRESENT), 0, X86_GP, S0},
    {"16-bit in long mode", LONG, 0, S0, TSS_D(A_SYSTEM(1)), 0, X86_GP, S0},
    {"long, half beyond", LONG, 0, 0x1f8, TSS_D(A_SYSTEM(9)), 0, X86_GP, 0x1f8},
    {"long, bad upper half", LONG, 0, S0, TSS_D(A_SYSTEM(9)), FLAT(0x10u), X86_GP, S0},
    {"long, not canonical", LONG, 0, S0, TSS_D(A_SYSTEM(9)), 0xffff, X86_GP, S0},
};

static void run_lldt(const void *arg)
{
    x86_lldt(&fake.cpu, ((const struct system_case *)arg)->selector);
}
static void run_ltr(const void *arg)
{
    x86_ltr(&fake.cpu, ((const struct system_case *)arg)->selector);
}

static void test_lldt(void **state)
{
    const struct x86_segment *ldtr = &fake.cpu.s.ldtr;

    (void)state;
    for (size_t i = 0; i < COUNT(lldts); i++) {
        const struct system_case *c = &lldts[i];

        fake_setup(c->mode, c->cpl);
        poke(FAKE_LDT + (LDT1 & ~7), LDT_D(A_SYSTEM(2)), 8);
        install(c->selector, c->low, c->high);
        fake_expect(c->name, run_lldt, c, c->vector, c->code);
        if (c->vector != OK)
            continue;
        CHECK(c->name, ldtr->selector, c->selector);
        CHECK(c->name, !!(ldtr->attributes & X86_SEG_P), c->low != 0);
        if (c->low) {
            CHECK(c->name, ldtr->base, 0x3100 | c->high << 32);
            CHECK(c->name, ldtr->limit, 0x1f);
        }
    }
}

static void test_null_ldt_holds_nothing(void **state)
{
    static const struct load_case c = {"", P32, 0, X86_DS, 0x04, 0, OK, 0};

    (void)state;
    fake_setup(P32, 0);
    x86_lldt(&fake.cpu, 0);
    fake_expect("null LDT", run_load, &c, X86_GP, 4);
    fake.cpu.s.ldtr.limit = 0xffff;
    fake_expect("null LDT whatever its limit", run_load, &c, X86_GP, 4);
}

static void test_ltr(void **state)
{
    const struct x86_segment *tr = &fake.cpu.s.tr;

    (void)state;
    for (size_t i = 0; i < COUNT(ltrs); i++) {
        const struct system_case *c = &ltrs[i];

        fake_setup(c->mode, c->cpl);
        poke(FAKE_LDT + (LDT1 & ~7), TSS_D(A_SYSTEM(9)), 8);
        install(c->selector, c->low, c->high);
        fake_expect(c->name, run_ltr, c, c->vector, c->code);
        if (c->low)
            CHECK(c->name, get_gdt(c->selector), c->low | (c->vector == OK ? 2ull << 40 : 0));
        if (c->vector != OK)
            continue;
        CHECK(c->name, tr->selector, c->selector);
        CHECK(c->name, tr->base, 0x4100 | c->high << 32);
        CHECK(c->name, tr->limit, 0x67);
        CHECK(c->name, tr->attributes, (c->low >> 40 & 0xff) | 2);
    }
}

/* Another processor sets the busy bit between our look and our write. */
static uint8_t busy_already(struct x86_cpu *cpu, uint64_t linear, uint8_t bits, unsigned access)
{
    return 0x8b;
}

static void test_ltr_race(void **state)
{
    static const struct system_case c = {"", P32, 0, S0, TSS_D(A_SYSTEM(9)), 0, OK, 0};
    struct x86_cpu_ops ops = fake_ops;

    (void)state;
    fake_setup(P32, 0);
    install(S0, c.low, 0);
    ops.set_bits = busy_already;
    fake.cpu.ops = &ops;
    fake_expect("race", run_ltr, &c, X86_GP, S0);
}

/* ---- LAR, LSL, VERR, VERW ---- */

struct ask_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl;
    uint16_t selector;
    uint64_t low, high;
    bool lar, lsl, verr, verw; /* ZF afterwards */
};

#define SIZED(attributes) DESC(0x12345678ull, 0xabcdeull, attributes)

static const struct ask_case asks[] = {
    {"null", P32, 0, 3, 0, 0, 0, 0, 0, 0},
    {"beyond", P32, 0, BEYOND_GDT, 0, 0, 0, 0, 0, 0},
    {"data", P32, 0, S0, SIZED(A_DATA), 0, 1, 1, 1, 1},
    {"absent data", P32, 0, S0, SIZED(A_DATA - A_NOT_PRESENT), 0, 1, 1, 1, 1},
    {"read-only data", P32, 0, S0, SIZED(A_DATA_RO), 0, 1, 1, 1, 0},
    {"code", P32, 0, S0, SIZED(A_CODE | A_G), 0, 1, 1, 1, 0},
    {"execute-only code", P32, 0, S0, SIZED(A_CODE_EXECUTE_ONLY), 0, 1, 1, 0, 0},
    {"CPL > DPL", P32, 3, S0, SIZED(A_DATA), 0, 0, 0, 0, 0},
    {"RPL > DPL", P32, 0, S0 | 3, SIZED(A_DATA), 0, 0, 0, 0, 0},
    {"conforming", P32, 3, S0 | 3, SIZED(A_CODE_CONFORMING), 0, 1, 1, 1, 0},
    {"type 0", P32, 0, S0, SIZED(A_SYSTEM(0)), 0, 0, 0, 0, 0},
    {"16-bit TSS", P32, 0, S0, SIZED(A_SYSTEM(1)), 0, 1, 1, 0, 0},
    {"LDT", P32, 0, S0, SIZED(A_SYSTEM(2)), 0, 1, 1, 0, 0},
    {"16-bit busy TSS", P32, 0, S0, SIZED(A_SYSTEM(3)), 0, 1, 1, 0, 0},
    {"16-bit call gate", P32, 0, S0, SIZED(A_SYSTEM(4)), 0, 1, 0, 0, 0},
    {"task gate", P32, 0, S0, SIZED(A_SYSTEM(5)), 0, 1, 0, 0, 0},
    {"16-bit interrupt gate", P32, 0, S0, SIZED(A_SYSTEM(6)), 0, 0, 0, 0, 0},
    {"16-bit trap gate", P32, 0, S0, SIZED(A_SYSTEM(7)), 0, 0, 0, 0, 0},
    {"type 8", P32, 0, S0, SIZED(A_SYSTEM(8)), 0, 0, 0, 0, 0},
    {"TSS", P32, 0, S0, SIZED(A_SYSTEM(9)), 0, 1, 1, 0, 0},
    {"TSS, CPL > DPL", P32, 1, S0, SIZED(A_SYSTEM(9)), 0, 0, 0, 0, 0},
    {"type 10", P32, 0, S0, SIZED(A_SYSTEM(10)), 0, 0, 0, 0, 0},
    {"busy TSS", P32, 0, S0, SIZED(A_SYSTEM(11)), 0, 1, 1, 0, 0},
    {"call gate", P32, 0, S0, SIZED(A_SYSTEM(12)), 0, 1, 0, 0, 0},
    {"type 13", P32, 0, S0, SIZED(A_SYSTEM(13)), 0, 0, 0, 0, 0},
    {"interrupt gate", P32, 0, S0, SIZED(A_SYSTEM(14)), 0, 0, 0, 0, 0},
    {"trap gate", P32, 0, S0, SIZED(A_SYSTEM(15)), 0, 0, 0, 0, 0},
    {"long: data", LONG, 0, S0, SIZED(A_DATA), 0, 1, 1, 1, 1},
    {"long: 16-bit TSS", LONG, 0, S0, SIZED(A_SYSTEM(1)), 0, 0, 0, 0, 0},
    {"long: LDT", LONG, 0, S0, SIZED(A_SYSTEM(2)), 0, 1, 1, 0, 0},
    {"long: LDT with bad upper half", LONG, 0, S0, SIZED(A_SYSTEM(2)), FLAT(2u), 0, 0, 0, 0},
    {"long: LDT half beyond", LONG, 0, 0x1f8, SIZED(A_SYSTEM(2)), 0, 0, 0, 0, 0},
    {"long: 16-bit call gate", LONG, 0, S0, SIZED(A_SYSTEM(4)), 0, 0, 0, 0, 0},
    {"long: task gate", LONG, 0, S0, SIZED(A_SYSTEM(5)), 0, 0, 0, 0, 0},
    {"long: TSS", LONG, 0, S0, SIZED(A_SYSTEM(9)), 0, 1, 1, 0, 0},
    {"long: busy TSS", COMPAT, 0, S0, SIZED(A_SYSTEM(11)), 0, 1, 1, 0, 0},
    {"long: call gate", LONG, 0, S0, SIZED(A_SYSTEM(12)), 0, 1, 0, 0, 0},
};

static void check_answer(const struct ask_case *c, bool answer, bool expected)
{
    CHECK(c->name, answer, expected);
    CHECK(c->name, !!(fake.cpu.s.rflags & X86_FLAG_ZF), expected);
    CHECK(c->name, fake.cpu.s.rflags | X86_FLAG_ZF, X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_ZF);
}

static void test_ask(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(asks); i++) {
        const struct ask_case *c = &asks[i];
        uint32_t rights = 0xdead, limit = 0xdead;

        fake_setup(c->mode, c->cpl);
        install(c->selector, c->low, c->high);
        check_answer(c, x86_lar(&fake.cpu, c->selector, &rights), c->lar);
        CHECK(c->name, rights, c->lar ? (c->low >> 32 & 0xffff00) : 0xdead);
        check_answer(c, x86_lsl(&fake.cpu, c->selector, &limit), c->lsl);
        CHECK(c->name, limit, !c->lsl ? 0xdead : c->low >> 55 & 1 ? 0xabcdefff : 0xabcde);
        check_answer(c, x86_verify(&fake.cpu, c->selector, false), c->verr);
        check_answer(c, x86_verify(&fake.cpu, c->selector, true), c->verw);
        if (c->low)
            CHECK(c->name, get_gdt(c->selector), c->low); /* not accessed */
    }
}

static void run_lar(const void *arg)
{
    uint32_t value;

    x86_lar(&fake.cpu, S0, &value);
}
static void run_lsl(const void *arg)
{
    uint32_t value;

    x86_lsl(&fake.cpu, S0, &value);
}
static void run_verr(const void *arg)
{
    x86_verify(&fake.cpu, S0, false);
}

static void test_ask_needs_protected_mode(void **state)
{
    (void)state;
    for (int mode = REAL; mode <= V86; mode++) {
        fake_setup((enum fake_mode)mode, mode == V86 ? 3 : 0);
        fake_expect("lar", run_lar, NULL, X86_UD, -1);
        fake_expect("lsl", run_lsl, NULL, X86_UD, -1);
        fake_expect("verr", run_verr, NULL, X86_UD, -1);
    }
}

/* ---- I/O permission ---- */

struct port_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl, iopl, type, limit, map_base;
    uint16_t port;
    unsigned size;
    bool allowed;
};

/* The map allows ports 0-7 and 0x10-0x1e, 0xfff8 on is beyond limit 0x2068. */
static const struct port_case ports[] = {
    {"real mode", REAL, 0, 0, 11, 0, 0, 0x60, 1, true},
    {"CPL = IOPL", P32, 3, 3, 11, 0, 0, 0x60, 1, true},
    {"CPL < IOPL", P32, 0, 0, 11, 0, 0, 0x60, 1, true},
    {"refused by the map", P32, 3, 0, 11, 0x2068, 0x68, 8, 1, false},
    {"allowed by the map", P32, 3, 2, 11, 0x2068, 0x68, 7, 1, true},
    {"word over the edge", P32, 3, 0, 11, 0x2068, 0x68, 7, 2, false},
    {"four ports", P32, 3, 0, 11, 0x2068, 0x68, 4, 4, true},
    {"four ports over a byte's edge", P32, 3, 0, 11, 0x2068, 0x68, 0x16, 4, true},
    {"the last of four is refused", P32, 3, 0, 11, 0x2068, 0x68, 0x1c, 4, false},
    {"V86 whatever IOPL", V86, 3, 3, 11, 0x2068, 0x68, 8, 1, false},
    {"V86 by the map", V86, 3, 0, 11, 0x2068, 0x68, 0, 1, true},
    {"64-bit", LONG, 3, 0, 11, 0x2068, 0x68, 0, 1, true},
    {"second byte beyond the limit", P32, 3, 0, 11, 0x68, 0x68, 0, 1, false},
    {"second byte is the limit", P32, 3, 0, 11, 0x69, 0x68, 0, 1, true},
    {"base beyond the limit", P32, 3, 0, 11, 0x67, 0xffff, 0, 1, false},
    {"TSS without a map base", P32, 3, 0, 11, 0x66, 0x68, 0, 1, false},
    {"TSS ends with the map base", P32, 3, 0, 11, 0x67, 0x50, 0, 1, true},
    {"16-bit TSS", P32, 3, 0, 3, 0x2068, 0x68, 0, 1, false},
};

static void run_port(const void *arg)
{
    const struct port_case *c = arg;

    x86_check_port(&fake.cpu, c->port, c->size);
}

static void test_ports(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ports); i++) {
        const struct port_case *c = &ports[i];

        fake_setup(c->mode, c->cpl);
        fake.cpu.s.rflags |= c->iopl << 12;
        fake.cpu.s.tr =
            (struct x86_segment){0x20000, c->limit, TSS_SELECTOR, (uint16_t)A_SYSTEM(c->type)};
        memset(&fake.memory[0x20000], 0xff, 0x3000);
        fake.supervisor[0x20000 >> 12] = true;
        poke(0x20000 + 0x50, 0, 2);
        poke(0x20000 + 102, c->map_base, 2);
        poke(0x20000 + 0x68, 0xff8000ff00ull, 5); /* bytes: 00 ff 00 80 ff */
        fake_expect(c->name, run_port, c, c->allowed ? OK : X86_GP, 0);
    }
}

/* ---- SYSCALL, SYSRET, SYSENTER, SYSEXIT ---- */

static void run_syscall(const void *arg)
{
    x86_syscall(&fake.cpu, FAKE_RIP + 2);
}
static void run_sysret(const void *arg)
{
    x86_sysret(&fake.cpu, *(const unsigned *)arg);
}
static void run_sysenter(const void *arg)
{
    x86_sysenter(&fake.cpu);
}
static void run_sysexit(const void *arg)
{
    x86_sysexit(&fake.cpu, *(const unsigned *)arg);
}

static const unsigned four = 4, eight = 8;

static void setup_syscall(enum fake_mode mode, unsigned cpl)
{
    struct x86_msrs *msr = &fake.cpu.s.msr;

    fake_setup(mode, cpl);
    msr->star = 0x0023001000000000ull;
    msr->lstar = 0xffffffff81000000ull;
    msr->sfmask = 0xffffffff00047700ull;
    msr->sysenter_cs = 0xabcd00000013ull;
    msr->sysenter_esp = 0xffff800000001000ull;
    msr->sysenter_eip = 0xffffffff82000000ull;
}

static void check_flat(unsigned index, uint16_t selector, uint16_t attributes)
{
    const struct x86_segment *seg = &fake.cpu.s.seg[index];

    assert_int_equal(seg->selector, selector);
    assert_int_equal(seg->attributes, attributes);
    assert_int_equal(seg->limit, 0xffffffff);
    assert_int_equal(seg->base, 0);
}

static void test_syscall(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_syscall(LONG, 3);
    s->rflags = 0x47702 | X86_FLAG_CF | X86_FLAG_RF;
    fake_expect("syscall", run_syscall, NULL, OK, 0);
    assert_int_equal(s->gpr[X86_RCX], FAKE_RIP + 2);
    assert_int_equal(s->gpr[X86_R11], 0x47703);
    assert_int_equal(s->rflags, 0x3);
    assert_true(s->rip == 0xffffffff81000000ull);
    check_flat(X86_CS, 0x10, 0xa09b);
    check_flat(X86_SS, 0x18, 0xc093);
    assert_int_equal(fake.cpu.cpl, 0);
    assert_int_equal(fake.changed, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);

    setup_syscall(COMPAT, 3);
    fake_expect("compatibility mode", run_syscall, NULL, X86_UD, -1);
    setup_syscall(P32, 0);
    fake_expect("legacy mode", run_syscall, NULL, X86_UD, -1);
    setup_syscall(LONG, 3);
    s->msr.efer &= ~(uint64_t)X86_EFER_SCE;
    fake_expect("not enabled", run_syscall, NULL, X86_UD, -1);
}

static void test_sysret(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_syscall(LONG, 0);
    s->gpr[X86_RCX] = 0x7fffffffffffull;
    s->gpr[X86_R11] = ~0ull;
    fake_expect("sysretq", run_sysret, &eight, OK, 0);
    assert_true(s->rip == 0x7fffffffffffull);
    assert_int_equal(s->rflags, 0x3c7fd7);
    check_flat(X86_CS, 0x33, 0xa0fb);
    check_flat(X86_SS, 0x2b, 0xc0f3);
    assert_int_equal(fake.cpu.cpl, 3);

    setup_syscall(LONG, 0);
    s->gpr[X86_RCX] = 0xffff123487654321ull;
    fake_expect("sysretl", run_sysret, &four, OK, 0);
    assert_int_equal(s->rip, 0x87654321);
    assert_int_equal(s->rflags, 2);
    check_flat(X86_CS, 0x23, 0xc0fb);
    check_flat(X86_SS, 0x2b, 0xc0f3);

    setup_syscall(LONG, 0);
    s->gpr[X86_RCX] = 0x800000000000ull;
    fake_expect("not canonical", run_sysret, &eight, X86_GP, 0);
    setup_syscall(LONG, 3);
    fake_expect("CPL 3", run_sysret, &eight, X86_GP, 0);
    setup_syscall(COMPAT, 0);
    fake_expect("compatibility mode", run_sysret, &four, X86_UD, -1);
    setup_syscall(LONG, 3);
    s->msr.efer &= ~(uint64_t)X86_EFER_SCE;
    fake_expect("#UD before #GP", run_sysret, &eight, X86_UD, -1);
}

static void test_sysenter(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_syscall(P32, 3);
    s->rflags |= X86_FLAG_IOPL | X86_FLAG_CF;
    fake_expect("32-bit", run_sysenter, NULL, OK, 0);
    assert_int_equal(s->rip, 0x82000000);
    assert_int_equal(s->gpr[X86_RSP], 0x1000);
    assert_int_equal(s->rflags, X86_FLAG_IOPL | X86_FLAG_CF | X86_FLAG_FIXED);
    check_flat(X86_CS, 0x10, 0xc09b);
    check_flat(X86_SS, 0x18, 0xc093);
    assert_int_equal(fake.cpu.cpl, 0);

    setup_syscall(V86, 3);
    fake_expect("from V86", run_sysenter, NULL, OK, 0);
    assert_int_equal(s->rflags, X86_FLAG_FIXED);
    x86_refresh_cpl(&fake.cpu);
    assert_int_equal(fake.cpu.cpl, 0);

    for (int mode = COMPAT; mode <= LONG; mode++) {
        setup_syscall((enum fake_mode)mode, 3);
        fake_expect("64-bit", run_sysenter, NULL, OK, 0);
        assert_true(s->rip == 0xffffffff82000000ull);
        assert_true(s->gpr[X86_RSP] == 0xffff800000001000ull);
        check_flat(X86_CS, 0x10, 0xa09b);
    }

    setup_syscall(REAL, 0);
    fake_expect("real mode", run_sysenter, NULL, X86_GP, 0);
    setup_syscall(P32, 3);
    s->msr.sysenter_cs = 0x10003;
    fake_expect("no CS", run_sysenter, NULL, X86_GP, 0);
}

static void test_sysexit(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_syscall(P32, 0);
    s->gpr[X86_RCX] = 0x12345678;
    s->gpr[X86_RDX] = 0x87654321;
    fake_expect("32-bit", run_sysexit, &four, OK, 0);
    assert_int_equal(s->rip, 0x87654321);
    assert_int_equal(s->gpr[X86_RSP], 0x12345678);
    assert_int_equal(s->rflags, X86_FLAG_IF | X86_FLAG_FIXED);
    check_flat(X86_CS, 0x23, 0xc0fb);
    check_flat(X86_SS, 0x2b, 0xc0f3);
    assert_int_equal(fake.cpu.cpl, 3);

    setup_syscall(LONG, 0);
    s->gpr[X86_RCX] = 0x7fff12345678ull;
    s->gpr[X86_RDX] = 0x7fff87654321ull;
    fake_expect("64-bit", run_sysexit, &eight, OK, 0);
    assert_true(s->rip == 0x7fff87654321ull);
    assert_true(s->gpr[X86_RSP] == 0x7fff12345678ull);
    check_flat(X86_CS, 0x33, 0xa0fb);
    check_flat(X86_SS, 0x3b, 0xc0f3);

    setup_syscall(LONG, 0);
    s->gpr[X86_RCX] = 0x800000000000ull;
    fake_expect("RCX not canonical", run_sysexit, &eight, X86_GP, 0);
    s->gpr[X86_RCX] = 0;
    s->gpr[X86_RDX] = 0x800000000000ull;
    fake_expect("RDX not canonical", run_sysexit, &eight, X86_GP, 0);
    fake_expect("32-bit takes the low halves", run_sysexit, &four, OK, 0);
    setup_syscall(P32, 3);
    fake_expect("CPL 3", run_sysexit, &four, X86_GP, 0);
    setup_syscall(REAL, 0);
    fake_expect("real mode", run_sysexit, &four, X86_GP, 0);
    setup_syscall(P32, 0);
    s->msr.sysenter_cs = 3;
    fake_expect("no CS", run_sysexit, &four, X86_GP, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),      cmocka_unit_test(test_load_hidden_part),
        cmocka_unit_test(test_load_real), cmocka_unit_test(test_load_memory),
        cmocka_unit_test(test_lldt),      cmocka_unit_test(test_null_ldt_holds_nothing),
        cmocka_unit_test(test_ltr),       cmocka_unit_test(test_ltr_race),
        cmocka_unit_test(test_ask),       cmocka_unit_test(test_ask_needs_protected_mode),
        cmocka_unit_test(test_ports),     cmocka_unit_test(test_syscall),
        cmocka_unit_test(test_sysret),    cmocka_unit_test(test_sysenter),
        cmocka_unit_test(test_sysexit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
