/* test_exceptions.c - delivery through IDT and IVT: checks in order, frames, double faults, V86 */
#include "fake_cpu.h"

#define S0    FAKE_SLOT
#define S1    (FAKE_SLOT + 8)
#define V     0x40 /* vector of most tests */
#define VCODE (V * 8 + 2)
#define NEXT  (FAKE_RIP + 2)
#define INTERRUPT(selector, offset, attributes)                                                    \
    GATE(selector, offset, A_SYSTEM(14) | (attributes), 0)
#define TRAP(selector, offset, attributes) GATE(selector, offset, A_SYSTEM(15) | (attributes), 0)
#define IST(n)                             ((uint64_t)(n) << 32)

static void set_idt(uint8_t vector, uint64_t low, uint64_t high)
{
    if (fake.cpu.s.msr.efer & X86_EFER_LMA) {
        poke(FAKE_IDT + vector * 16, low, 8);
        poke(FAKE_IDT + vector * 16 + 8, high, 8);
    } else {
        poke(FAKE_IDT + vector * 8, low, 8);
    }
}

static void run_deliver(const void *arg)
{
    x86_deliver(&fake.cpu, arg);
}

static struct x86_event event_of(enum x86_event_kind kind, uint8_t vector)
{
    return (struct x86_event){
        .vector = vector,
        .kind = kind,
        .return_rip = kind == X86_EVENT_SOFTWARE || kind == X86_EVENT_INT3 ? NEXT : FAKE_RIP,
    };
}

/* ---- the checks, in order ---- */

struct gate_case {
    const char *name;
    enum fake_mode mode;
    unsigned cpl;
    enum x86_event_kind kind;
    uint64_t low, high; /* the gate */
    uint64_t slots[2];  /* S0, S1 */
    int vector, code;
};

#define EXT  X86_EVENT_EXTERNAL
#define SOFT X86_EVENT_SOFTWARE

static const struct gate_case gates[] = {
    {"no gate", P32, 0, EXT, 0, 0, {0}, X86_GP, VCODE | 1},
    {"no gate, INT n", P32, 0, SOFT, 0, 0, {0}, X86_GP, VCODE},
    {"no gate, INT3", P32, 0, X86_EVENT_INT3, 0, 0, {0}, X86_GP, VCODE},
    {"no gate, INT1", P32, 0, X86_EVENT_INT1, 0, 0, {0}, X86_GP, VCODE | 1},
    {"no gate, NMI", P32, 0, X86_EVENT_NMI, 0, 0, {0}, X86_GP, VCODE | 1},
    {"no gate, exception", P32, 0, X86_EVENT_EXCEPTION, 0, 0, {0}, X86_GP, VCODE | 1},
    {"call gate", P32, 0, EXT, GATE(0x10, 0ull, A_SYSTEM(12), 0), 0, {0}, X86_GP, VCODE | 1},
    {"code segment as gate", P32, 0, EXT, FLAT(0x9eu), 0, {0}, X86_GP, VCODE | 1},
    {"INT n, gate DPL < CPL", P32, 3, SOFT, INTERRUPT(0x10, 1ull, A_DPL(2)), 0, {0}, X86_GP, VCODE},
    {"INT3, gate DPL < CPL",
     P32,
     3,
     X86_EVENT_INT3,
     INTERRUPT(0x10, 1ull, 0),
     0,
     {0},
     X86_GP,
     VCODE},
    {"INT n, gate DPL = CPL", P32, 3, SOFT, INTERRUPT(0x10, 1ull, A_DPL(3)), 0, {0}, OK, 0},
    {"INT1 ignores gate DPL", P32, 3, X86_EVENT_INT1, INTERRUPT(0x10, 1ull, 0), 0, {0}, OK, 0},
    {"exception ignores gate DPL",
     P32,
     3,
     X86_EVENT_EXCEPTION,
     INTERRUPT(0x10, 1ull, 0),
     0,
     {0},
     OK,
     0},
    {"interrupt ignores gate DPL", P32, 3, EXT, INTERRUPT(0x10, 1ull, 0), 0, {0}, OK, 0},
    {"DPL before absent", P32, 3, SOFT, GATE(0x10, 1ull, 14, 0), 0, {0}, X86_GP, VCODE},
    {"absent", P32, 3, EXT, GATE(0x10, 1ull, 14, 0), 0, {0}, X86_NP, VCODE | 1},
    {"absent, INT n", P32, 0, SOFT, GATE(0x10, 1ull, 14, 0), 0, {0}, X86_NP, VCODE},
    {"CS null", P32, 0, EXT, INTERRUPT(0, 1ull, 0), 0, {0}, X86_GP, 1},
    {"CS null, INT n", P32, 0, SOFT, INTERRUPT(0, 1ull, 0), 0, {0}, X86_GP, 0},
    {"CS beyond", P32, 0, EXT, INTERRUPT(BEYOND_GDT, 1ull, 0), 0, {0}, X86_GP, BEYOND_GDT | 1},
    {"CS is data", P32, 0, EXT, INTERRUPT(DATA(0), 1ull, 0), 0, {0}, X86_GP, DATA(0) | 1},
    {"CS of an outer level",
     P32,
     0,
     EXT,
     INTERRUPT(CODE32(1), 1ull, 0),
     0,
     {0},
     X86_GP,
     (CODE32(1) & ~3) | 1},
    {"CS absent",
     P32,
     0,
     EXT,
     INTERRUPT(S0, 1ull, 0),
     0,
     {FLAT(A_CODE - A_NOT_PRESENT)},
     X86_NP,
     S0 | 1},
    {"CS absent, INT n",
     P32,
     0,
     SOFT,
     INTERRUPT(S0, 1ull, 0),
     0,
     {FLAT(A_CODE - A_NOT_PRESENT)},
     X86_NP,
     S0},
    {"beyond the limit",
     P32,
     0,
     EXT,
     INTERRUPT(S0, 0x100ull, 0),
     0,
     {DESC(0ull, 0xffull, A_CODE)},
     X86_GP,
     1},
    {"beyond the limit, INT n",
     P32,
     3,
     SOFT,
     INTERRUPT(S0, 0x100ull, A_DPL(3)),
     0,
     {DESC(0ull, 0xffull, A_CODE)},
     X86_GP,
     0},
    {"16-bit gate ignores the high half",
     P32,
     0,
     EXT,
     GATE(S0, 0xabcd00ffull, A_SYSTEM(6), 0),
     0,
     {DESC(0ull, 0xffull, A_CODE)},
     OK,
     0},
    {"task gate, TSS in LDT",
     P32,
     0,
     EXT,
     GATE(0x0c, 0ull, A_SYSTEM(5), 0),
     0,
     {0},
     X86_GP,
     0x0c | 1},
    {"task gate, TSS busy",
     P32,
     0,
     SOFT,
     GATE(TSS_SELECTOR, 0ull, A_SYSTEM(5), 0),
     0,
     {0},
     X86_GP,
     TSS_SELECTOR},
    {"task gate, TSS absent",
     P32,
     0,
     EXT,
     GATE(S0, 0ull, A_SYSTEM(5), 0),
     0,
     {DESC(0x5000ull, 0x67ull, A_SYSTEM(9) - A_NOT_PRESENT)},
     X86_NP,
     S0 | 1},
    {"task gate, TSS short",
     P32,
     0,
     EXT,
     GATE(S0, 0ull, A_SYSTEM(5), 0),
     0,
     {DESC(0x5000ull, 0x66ull, A_SYSTEM(9))},
     X86_TS,
     S0 | 1},
    /* long mode */
    {"64-bit", LONG, 0, EXT, INTERRUPT(CODE64(0), 1ull, 0), 0xffff8000, {0}, OK, 0},
    {"64-bit, 16-bit gate",
     LONG,
     0,
     EXT,
     GATE(CODE64(0), 1ull, A_SYSTEM(6), 0),
     0,
     {0},
     X86_GP,
     VCODE | 1},
    {"64-bit, task gate",
     LONG,
     0,
     EXT,
     GATE(TSS_B_SELECTOR, 1ull, A_SYSTEM(5), 0),
     0,
     {0},
     X86_GP,
     VCODE | 1},
    {"64-bit, DPL", LONG, 3, SOFT, INTERRUPT(CODE64(0), 1ull, 0), 0, {0}, X86_GP, VCODE},
    {"64-bit, 32-bit CS",
     LONG,
     0,
     EXT,
     INTERRUPT(CODE32(0), 1ull, 0),
     0,
     {0},
     X86_GP,
     CODE32(0) | 1},
    {"64-bit, L and D",
     COMPAT,
     0,
     EXT,
     INTERRUPT(S0, 1ull, 0),
     0,
     {FLAT(A_CODE | A_L)},
     X86_GP,
     S0 | 1},
    {"64-bit, mode before absent",
     LONG,
     0,
     EXT,
     INTERRUPT(S0, 1ull, 0),
     0,
     {FLAT(A_CODE - A_NOT_PRESENT)},
     X86_GP,
     S0 | 1},
    {"64-bit, not canonical", LONG, 0, EXT, INTERRUPT(CODE64(0), 1ull, 0), 0x8000, {0}, X86_GP, 1},
    /* virtual-8086 mode */
    {"V86", V86, 3, EXT, INTERRUPT(CODE32(0), 1ull, 0), 0, {0}, OK, 0},
    {"V86 to level 1",
     V86,
     3,
     EXT,
     INTERRUPT(CODE32(1), 1ull, 0),
     0,
     {0},
     X86_GP,
     (CODE32(1) & ~3) | 1},
    {"V86 to conforming code",
     V86,
     3,
     EXT,
     INTERRUPT(S0, 1ull, 0),
     0,
     {FLAT(A_CODE_CONFORMING)},
     X86_GP,
     S0 | 1},
    {"V86 to level 3",
     V86,
     3,
     EXT,
     INTERRUPT(CODE32(3), 1ull, 0),
     0,
     {0},
     X86_GP,
     (CODE32(3) & ~3) | 1},
    {"V86, INT n, IOPL 0", V86, 3, SOFT, INTERRUPT(CODE32(0), 1ull, A_DPL(3)), 0, {0}, X86_GP, 0},
    {"V86, INT3, IOPL 0",
     V86,
     3,
     X86_EVENT_INT3,
     INTERRUPT(CODE32(0), 1ull, A_DPL(3)),
     0,
     {0},
     OK,
     0},
    {"V86, INT3, gate DPL",
     V86,
     3,
     X86_EVENT_INT3,
     INTERRUPT(CODE32(0), 1ull, A_DPL(2)),
     0,
     {0},
     X86_GP,
     VCODE},
};

static void setup_gate(const struct gate_case *c)
{
    fake_setup(c->mode, c->cpl);
    set_idt(V, c->low, c->high);
    for (unsigned i = 0; i < 2; i++)
        if (c->slots[i])
            set_gdt((uint16_t)(S0 + 8 * i), c->slots[i]);
}

static void test_checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(gates); i++) {
        const struct gate_case *c = &gates[i];
        struct x86_event event = event_of(c->kind, V);

        setup_gate(c);
        fake_expect(c->name, run_deliver, &event, c->vector, c->code);
        CHECK(c->name, fake.cpu.delivering, c->vector != OK);
    }
}

static void test_idt_limit(void **state)
{
    struct x86_event event = event_of(EXT, V);

    (void)state;
    fake_setup(P32, 0);
    set_idt(V, INTERRUPT(CODE32(0), 1ull, 0), 0);
    fake.cpu.s.idtr.limit = V * 8 + 6;
    fake_expect("32-bit", run_deliver, &event, X86_GP, VCODE | 1);
    fake_setup(P32, 0);
    set_idt(V, INTERRUPT(CODE32(0), 1ull, 0), 0);
    fake.cpu.s.idtr.limit = V * 8 + 7;
    fake_expect("32-bit", run_deliver, &event, OK, 0);
    fake_setup(LONG, 0);
    set_idt(V, INTERRUPT(CODE64(0), 1ull, 0), 0);
    fake.cpu.s.idtr.limit = V * 16 + 14;
    fake_expect("64-bit", run_deliver, &event, X86_GP, VCODE | 1);
    fake_setup(REAL, 0);
    fake.cpu.s.idtr.limit = V * 4 + 2;
    fake_expect("real", run_deliver, &event, X86_GP, VCODE | 1);
    fake_setup(REAL, 0);
    fake.cpu.s.idtr.limit = V * 4 + 3;
    fake_expect("real", run_deliver, &event, OK, 0);
}

/* ---- frames ---- */

static void check_words(const char *name, unsigned size, unsigned count, ...)
{
    uint64_t mask = size == 8 ? ~0ull : (1ull << size * 8) - 1;
    va_list values;

    va_start(values, count);
    for (unsigned i = 0; i < count; i++) {
        uint64_t expected = va_arg(values, uint64_t) & mask;
        uint64_t actual = peek(fake.cpu.s.gpr[X86_RSP] + i * size, size);

        if (actual != expected)
            fail_msg("%s: stack[%u] is 0x%llx, expected 0x%llx", name, i,
                     (unsigned long long)actual, (unsigned long long)expected);
    }
    va_end(values);
}

static void check_handler(const char *name, uint16_t cs, uint64_t rip, uint64_t rsp)
{
    const struct x86_state *s = &fake.cpu.s;

    CHECK(name, s->seg[X86_CS].selector, cs);
    CHECK(name, s->rip, rip);
    CHECK(name, s->gpr[X86_RSP], rsp);
    CHECK(name, fake.cpu.cpl, cs & 3);
    CHECK(name, s->rflags & (X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM), 0);
    CHECK(name, get_gdt(cs) >> 40 & 1, 1);
    x86_refresh_cpl(&fake.cpu);
    CHECK(name, fake.cpu.cpl, cs & 3);
}

#define BUSY_FLAGS                                                                                 \
    (X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_CF | X86_FLAG_AC)

static void deliver_with_code(enum fake_mode mode, unsigned cpl, uint64_t low, uint64_t high)
{
    struct x86_event event = event_of(X86_EVENT_EXCEPTION, V);

    fake_setup(mode, cpl);
    set_idt(V, low, high);
    fake.cpu.s.rflags |= BUSY_FLAGS;
    event.has_error_code = true;
    event.error_code = 0x1234abcd;
    fake_expect("deliver", run_deliver, &event, OK, 0);
}

static void test_same_level(void **state)
{
    const uint64_t image = BUSY_FLAGS | X86_FLAG_RF;
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    deliver_with_code(P32, 0, INTERRUPT(CODE32(0) | 3, 0x12345678ull, 0), 0);
    check_handler("32-bit", CODE32(0), 0x12345678, FAKE_RSP - 16);
    check_words("32-bit", 4, 4, 0x1234abcdull, (uint64_t)FAKE_RIP, (uint64_t)CODE32(0), image);
    assert_int_equal(s->rflags, X86_FLAG_FIXED | X86_FLAG_CF | X86_FLAG_AC);
    assert_int_equal(fake.changed, X86_CHANGED_CODE | X86_CHANGED_FLAGS);

    deliver_with_code(P32, 0, TRAP(CODE32(0), 0x12345678ull, 0), 0);
    assert_int_equal(s->rflags, X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_CF | X86_FLAG_AC);

    deliver_with_code(P32, 0, GATE(CODE32(0), 0x12345678ull, A_SYSTEM(6), 0), 0);
    check_handler("16-bit", CODE32(0), 0x5678, FAKE_RSP - 8);
    check_words("16-bit", 2, 4, 0x1234abcdull, (uint64_t)FAKE_RIP, (uint64_t)CODE32(0), image);

    deliver_with_code(P32, 3, INTERRUPT(CODE32(3), 0x1234ull, 0), 0);
    check_handler("level 3", CODE32(3), 0x1234, FAKE_RSP - 16);

    deliver_with_code(LONG, 0, INTERRUPT(CODE64(0), 0x12345678ull, 0), 0xffffffff);
    check_handler("64-bit", CODE64(0), 0xffffffff12345678, FAKE_RSP - 48);
    check_words("64-bit", 8, 6, 0x1234abcdull, (uint64_t)FAKE_RIP, (uint64_t)CODE64(0), image,
                (uint64_t)FAKE_RSP, (uint64_t)DATA(0));
    assert_int_equal(s->seg[X86_SS].selector, DATA(0));

    deliver_with_code(COMPAT, 0, INTERRUPT(CODE64(0), 0x12345678ull, 0), 0);
    check_handler("compatibility", CODE64(0), 0x12345678, FAKE_RSP - 48);
}

static void test_conforming(void **state)
{
    struct x86_event event = event_of(EXT, V);

    (void)state;
    fake_setup(P32, 3);
    set_gdt(S0, FLAT(A_CODE_CONFORMING));
    set_idt(V, INTERRUPT(S0, 0x1234ull, 0), 0);
    fake_expect("conforming", run_deliver, &event, OK, 0);
    check_handler("conforming", S0 | 3, 0x1234, FAKE_RSP - 12);
}

static void test_inner_level(void **state)
{
    const uint64_t image = BUSY_FLAGS | X86_FLAG_RF;
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    deliver_with_code(P32, 3, INTERRUPT(CODE32(0), 0x12345678ull, 0), 0);
    check_handler("32-bit", CODE32(0), 0x12345678, FAKE_RSP_LEVEL(0) - 24);
    check_words("32-bit", 4, 6, 0x1234abcdull, (uint64_t)FAKE_RIP, (uint64_t)CODE32(3), image,
                (uint64_t)FAKE_RSP, (uint64_t)DATA(3));
    assert_int_equal(s->seg[X86_SS].selector, DATA(0));
    assert_int_equal(s->seg[X86_DS].selector, DATA(3));
    assert_int_equal(fake.changed, X86_CHANGED_CODE | X86_CHANGED_FLAGS | X86_CHANGED_SEGMENTS);
    assert_int_equal(get_gdt(DATA(0)) >> 40 & 1, 1);

    deliver_with_code(P32, 3, GATE(CODE32(1), 0x12345678ull, A_SYSTEM(7), 0), 0);
    check_handler("16-bit, level 1", CODE32(1), 0x5678, FAKE_RSP_LEVEL(1) - 12);
    check_words("16-bit", 2, 6, 0x1234abcdull, (uint64_t)FAKE_RIP, (uint64_t)CODE32(3), image,
                (uint64_t)FAKE_RSP, (uint64_t)DATA(3));

    deliver_with_code(LONG, 3, INTERRUPT(CODE64(0), 0x12345678ull, 0), 0x7fff);
    check_handler("64-bit", CODE64(0), 0x7fff12345678, FAKE_RSP_LEVEL(0) - 48);
    check_words("64-bit", 8, 6, 0x1234abcdull, (uint64_t)FAKE_RIP, (uint64_t)CODE64(3), image,
                (uint64_t)FAKE_RSP, (uint64_t)DATA(3));
    assert_int_equal(s->seg[X86_SS].selector, 0);
    assert_int_equal(s->seg[X86_SS].attributes, 0);

    deliver_with_code(COMPAT, 3, INTERRUPT(CODE64(2), 0x12345678ull, 0), 0);
    check_handler("from compatibility mode to 2", CODE64(2), 0x12345678, FAKE_RSP_LEVEL(2) - 48);
    assert_int_equal(s->seg[X86_SS].selector, 2);
    assert_int_equal(s->seg[X86_SS].attributes, A_DPL(2));
}

/* IST: always switches; SS becomes null only with the level. The stack is aligned. */
static void test_ist(void **state)
{
    struct x86_event event = event_of(EXT, V);
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    deliver_with_code(LONG, 0, INTERRUPT(CODE64(0), 0x1234ull, 0) | IST(7), 0);
    check_handler("same level", CODE64(0), 0x1234, FAKE_RSP_IST - 48);
    assert_int_equal(s->seg[X86_SS].selector, DATA(0));
    deliver_with_code(LONG, 3, INTERRUPT(CODE64(0), 0x1234ull, 0) | IST(1), 0);
    check_handler("inner level", CODE64(0), 0x1234, FAKE_RSP_IST - 48);
    assert_int_equal(s->seg[X86_SS].selector, 0);

    fake_setup(LONG, 0);
    set_idt(V, INTERRUPT(CODE64(0), 0x1234ull, 0) | IST(2), 0);
    poke(FAKE_TSS + 28 + 16, FAKE_HIGH + 0xe00f, 8);
    fake_expect("aligned", run_deliver, &event, OK, 0);
    assert_true(s->gpr[X86_RSP] == FAKE_HIGH + 0xe000 - 40);

    fake_setup(LONG, 0);
    set_idt(V, INTERRUPT(CODE64(0), 0x1234ull, 0), 0);
    s->gpr[X86_RSP] = FAKE_RSP + 9;
    fake_expect("current stack aligned", run_deliver, &event, OK, 0);
    assert_int_equal(s->gpr[X86_RSP], FAKE_RSP - 40);
    assert_int_equal(peek(FAKE_RSP - 16, 8), FAKE_RSP + 9);

    fake_setup(LONG, 0);
    set_idt(V, INTERRUPT(CODE64(0), 0x1234ull, 0) | IST(2), 0);
    s->tr.limit = 28 + 16 + 6;
    fake_expect("TSS too short", run_deliver, &event, X86_TS, TSS_SELECTOR | 1);
    fake_setup(LONG, 0);
    set_idt(V, INTERRUPT(CODE64(0), 0x1234ull, 0) | IST(2), 0);
    poke(FAKE_TSS + 28 + 16, 0x800000000040, 8);
    fake_expect("not canonical", run_deliver, &event, X86_SS_FAULT, 1);
    fake_setup(LONG, 0);
    set_idt(V, INTERRUPT(CODE64(0), 0x1234ull, 0), 0);
    s->gpr[X86_RSP] = 0xffff800000000028; /* the last of five pushes is too much */
    event = event_of(SOFT, V);
    fake_expect("current not canonical", run_deliver, &event, X86_SS_FAULT, 0);
}

/* ---- the inner stack ---- */

struct stack_case {
    const char *name;
    unsigned limit; /* of the TSS */
    uint16_t ss;
    uint32_t esp;
    uint64_t slot; /* S0 */
    int vector, code;
};

static const struct stack_case stacks[] = {
    {"fits", 9, S0, 20, FLAT(A_DATA), OK, 0},
    {"TSS too short", 8, S0, 20, FLAT(A_DATA), X86_TS, TSS_SELECTOR | 1},
    {"SS null", 9, 0, 20, 0, X86_TS, 1},
    {"SS beyond", 9, BEYOND_GDT, 20, 0, X86_TS, BEYOND_GDT | 1},
    {"SS RPL", 9, S0 | 1, 20, FLAT(A_DATA), X86_TS, S0 | 1},
    {"SS DPL", 9, S0, 20, FLAT(A_DATA | A_DPL(1)), X86_TS, S0 | 1},
    {"SS read-only", 9, S0, 20, FLAT(A_DATA_RO), X86_TS, S0 | 1},
    {"SS absent", 9, S0, 20, FLAT(A_DATA - A_NOT_PRESENT), X86_SS_FAULT, S0 | 1},
    {"no room", 9, S0, 19, FLAT(A_DATA), X86_SS_FAULT, S0 | 1},
    {"small stack", 9, S0, 0x200, DESC(0ull, 0xffull, A_DATA | A_D), X86_SS_FAULT, S0 | 1},
};

static void test_inner_stack(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(stacks); i++) {
        const struct stack_case *c = &stacks[i];
        struct x86_event event = event_of(EXT, V);

        fake_setup(P32, 3);
        set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
        set_gdt(0, FLAT(A_DATA));
        if (c->slot)
            set_gdt(S0, c->slot);
        fake.cpu.s.tr.limit = c->limit;
        poke(FAKE_TSS + 4, c->esp | (uint64_t)c->ss << 32, 8);
        fake_expect(c->name, run_deliver, &event, c->vector, c->code);
    }
}

static void test_same_stack(void **state)
{
    struct x86_event event = event_of(SOFT, V);

    (void)state;
    fake_setup(P32, 0);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    fake.cpu.s.gpr[X86_RSP] = 11;
    fake_expect("no room", run_deliver, &event, X86_SS_FAULT, 0);
    fake_setup(P32, 0);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    fake.cpu.s.seg[X86_SS] = (struct x86_segment){0x10000, 0xffff, DATA(0), 0x93};
    fake.cpu.s.gpr[X86_RSP] = 0xabcd0004;
    fake_expect("16-bit stack wraps", run_deliver, &event, OK, 0);
    assert_int_equal(fake.cpu.s.gpr[X86_RSP], 0xabcdfff8);
    assert_int_equal(peek(0x1fff8, 4), NEXT);
}

/* Pages: tables and inner stacks as a supervisor, nothing changed if a push faults. */
static void test_pages(void **state)
{
    struct x86_event event = event_of(EXT, V);

    (void)state;
    fake_setup(P32, 3);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    fake.supervisor[FAKE_IDT >> 12] = fake.supervisor[FAKE_GDT >> 12] = true;
    fake.supervisor[FAKE_TSS >> 12] = fake.supervisor[(FAKE_RSP_LEVEL(0) - 1) >> 12] = true;
    fake_expect("supervisor", run_deliver, &event, OK, 0);
    fake_setup(P32, 3);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    poke(FAKE_TSS + 4, 0xa008, 4);
    fake.absent[9] = true;
    fake_expect("stack half absent", run_deliver, &event, X86_PF, X86_PF_W);
    assert_int_equal(fake.cpu.s.cr2, 0x9ffc);
    fake_setup(P32, 3);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    fake.absent[FAKE_IDT >> 12] = true;
    fake_expect("IDT absent", run_deliver, &event, X86_PF, 0);
}

/* ---- RF, NMI, debug ---- */

static void test_saved_rf(void **state)
{
    static const struct {
        const char *name;
        enum x86_event_kind kind;
        uint8_t vector;
        uint64_t return_rip;
        uint64_t rf; /* before */
        bool saved;
    } cases[] = {
        {"fault", X86_EVENT_EXCEPTION, X86_UD, FAKE_RIP, 0, true},
        {"double fault", X86_EVENT_EXCEPTION, X86_DF, FAKE_RIP, 0, true},
        {"instruction breakpoint", X86_EVENT_EXCEPTION, X86_DB, FAKE_RIP, 0, false},
        {"single step", X86_EVENT_EXCEPTION, X86_DB, NEXT, 0, false},
        {"interrupt", X86_EVENT_EXTERNAL, V, FAKE_RIP, 0, false},
        {"interrupt in a string instruction", X86_EVENT_EXTERNAL, V, FAKE_RIP, X86_FLAG_RF, true},
        {"INT n", X86_EVENT_SOFTWARE, V, NEXT, 0, false},
        {"INT3", X86_EVENT_INT3, X86_BP, NEXT, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct x86_event event = {cases[i].vector, cases[i].kind, false, 0, cases[i].return_rip};

        fake_setup(P32, 0);
        set_idt(cases[i].vector, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
        fake.cpu.s.rflags |= cases[i].rf;
        fake_expect(cases[i].name, run_deliver, &event, OK, 0);
        CHECK(cases[i].name, peek(FAKE_RSP - 4, 4) & X86_FLAG_RF, cases[i].saved ? X86_FLAG_RF : 0);
        CHECK(cases[i].name, peek(FAKE_RSP - 12, 4), cases[i].return_rip);
        CHECK(cases[i].name, fake.cpu.s.rflags & X86_FLAG_RF, 0);
    }
}

static void test_nmi_blocks(void **state)
{
    struct x86_event event = event_of(X86_EVENT_NMI, X86_NMI);

    (void)state;
    fake_setup(P32, 0);
    set_idt(X86_NMI, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    assert_false(fake_faults(run_deliver, &event));
    assert_true(fake.cpu.s.pending.nmi_blocked);
    event = event_of(SOFT, X86_NMI);
    fake_setup(P32, 0);
    set_idt(X86_NMI, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    assert_false(fake_faults(run_deliver, &event));
    assert_false(fake.cpu.s.pending.nmi_blocked);
}

static void test_debug_handler(void **state)
{
    static const struct {
        enum x86_event_kind kind;
        bool clears;
    } cases[] = {
        {X86_EVENT_EXCEPTION, true},
        {X86_EVENT_INT1, true},
        {X86_EVENT_SOFTWARE, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct x86_event event = event_of(cases[i].kind, X86_DB);

        fake_setup(P32, 0);
        set_idt(X86_DB, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
        fake.cpu.s.dr7 = X86_DR7_FIXED | X86_DR7_GD | 3;
        fake.cpu.s.msr.debugctl = 3;
        assert_false(fake_faults(run_deliver, &event));
        assert_int_equal(fake.cpu.s.dr7, X86_DR7_FIXED | 3 | (cases[i].clears ? 0 : X86_DR7_GD));
        assert_int_equal(fake.cpu.s.msr.debugctl, cases[i].clears ? 0 : 3);
        assert_int_equal(!!(fake.changed & X86_CHANGED_DEBUG), cases[i].clears);
    }
}

/* ---- raise ---- */

static void run_raise(const void *arg)
{
    x86_raise(&fake.cpu, X86_UD);
}
static void run_raise_code(const void *arg)
{
    x86_raise_code(&fake.cpu, X86_GP, 0x1238);
}

static void test_raise(void **state)
{
    (void)state;
    fake_setup(P32, 0);
    fake_expect("#UD", run_raise, NULL, X86_UD, -1);
    fake_expect("#GP", run_raise_code, NULL, X86_GP, 0x1238);
    assert_false(fake.cpu.delivering);
}

/* ---- virtual-8086 mode ---- */

static void setup_v86(uint64_t flags)
{
    static const uint16_t selectors[] = {0x1001, 0x1002, 0x1003, 0x1004, 0x1005, 0x1006};

    fake_setup(V86, 3);
    fake.cpu.s.rflags |= flags;
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        fake.cpu.s.seg[i].selector = selectors[i];
}

static void check_v86_frame(const char *name, unsigned size, uint64_t rip, uint64_t flags)
{
    check_words(name, size, 9, rip, 0x1002ull, flags, (uint64_t)FAKE_RSP, 0x1003ull, 0x1001ull,
                0x1004ull, 0x1005ull, 0x1006ull);
}

static void test_from_v86(void **state)
{
    struct x86_event event = event_of(EXT, V);
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_v86(X86_FLAG_TF);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    fake_expect("V86", run_deliver, &event, OK, 0);
    check_handler("V86", CODE32(0), 0x1234, FAKE_RSP_LEVEL(0) - 36);
    check_v86_frame("V86", 4, FAKE_RIP, X86_FLAG_VM | X86_FLAG_TF | X86_FLAG_IF | 2);
    assert_int_equal(s->seg[X86_SS].selector, DATA(0));
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        if (i != X86_CS && i != X86_SS) {
            assert_int_equal(s->seg[i].selector, 0);
            assert_int_equal(s->seg[i].attributes & X86_SEG_P, 0);
        }

    setup_v86(0);
    set_idt(V, GATE(CODE32(0), 0x1234ull, A_SYSTEM(6), 0), 0);
    fake_expect("V86, 16-bit gate", run_deliver, &event, OK, 0);
    check_v86_frame("V86, 16-bit gate", 2, FAKE_RIP, X86_FLAG_IF | 2);

    event = event_of(SOFT, V);
    setup_v86(X86_FLAG_IOPL);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, A_DPL(3)), 0);
    fake_expect("V86, INT n, IOPL 3", run_deliver, &event, OK, 0);
    check_v86_frame("V86, INT n", 4, NEXT, X86_FLAG_VM | X86_FLAG_IOPL | X86_FLAG_IF | 2);

    event = event_of(EXT, V);
    setup_v86(0);
    set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    poke(FAKE_TSS + 4, 35, 4);
    fake_expect("V86, no room", run_deliver, &event, X86_SS_FAULT, DATA(0) | 1);
}

/* CR4.VME: the six methods of SDM vol. 3, table 20-2. */
static void test_v86_redirection(void **state)
{
    static const struct {
        const char *name;
        uint64_t flags; /* before */
        bool bit;       /* in the redirection map: to the IDT */
        int vector;     /* OK or #GP(0) */
        bool redirected;
        uint64_t saved, after; /* flags on the stack, and left */
    } cases[] = {
        {"method 3", 0, true, X86_GP, false, 0, 0},
        {"method 4", X86_FLAG_IOPL, true, OK, false, 0, 0},
        {"method 5", X86_FLAG_IOPL | X86_FLAG_TF, false, OK, true, 0x3302,
         X86_FLAG_IOPL | X86_FLAG_VM | 2},
        {"method 6, VIF set", X86_FLAG_VIF | X86_FLAG_TF, false, OK, true, 0x3302,
         X86_FLAG_VM | X86_FLAG_IF | 2},
        {"method 6, VIF clear", 0, false, OK, true, 0x3002, X86_FLAG_VM | X86_FLAG_IF | 2},
    };
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct x86_event event = event_of(SOFT, V);

        setup_v86(cases[i].flags);
        s->cr4 |= X86_CR4_VME;
        poke(FAKE_TSS + 102, 0x88, 2); /* redirection map at 0x68 */
        memset(&fake.memory[FAKE_TSS + 0x68], 0xff, 32);
        if (!cases[i].bit)
            poke(FAKE_TSS + 0x68 + V / 8, (uint8_t) ~(1 << (V & 7)), 1);
        poke(V * 4, 0xabcd4321, 4);
        set_idt(V, INTERRUPT(CODE32(0), 0x1234ull, A_DPL(3)), 0);
        fake_expect(cases[i].name, run_deliver, &event, cases[i].vector, 0);
        if (cases[i].vector != OK)
            continue;
        CHECK(cases[i].name, !!(s->rflags & X86_FLAG_VM), cases[i].redirected);
        if (!cases[i].redirected)
            continue;
        CHECK(cases[i].name, s->seg[X86_CS].selector, 0xabcd);
        CHECK(cases[i].name, s->seg[X86_CS].base, 0xabcd0);
        CHECK(cases[i].name, s->rip, 0x4321);
        CHECK(cases[i].name, s->rflags, cases[i].after);
        CHECK(cases[i].name, s->gpr[X86_RSP], FAKE_RSP - 6);
        check_words(cases[i].name, 2, 3, (uint64_t)NEXT, 0x1002ull, cases[i].saved);
    }
}

static void test_v86_redirection_limits(void **state)
{
    struct x86_event event = event_of(SOFT, V);

    (void)state;
    setup_v86(X86_FLAG_IOPL);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    poke(FAKE_TSS + 102, 0x88, 2);
    fake.cpu.s.tr.limit = 0x68 + V / 8 - 1;
    fake_expect("map beyond the limit", run_deliver, &event, X86_GP, 0);
    fake.cpu.delivering = false;
    fake.cpu.s.tr.limit++;
    fake_expect("map at the limit", run_deliver, &event, OK, 0);
    setup_v86(X86_FLAG_IOPL);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    poke(FAKE_TSS + 102, 0x40, 2);
    fake.cpu.s.tr.limit = 103;
    fake_expect("the shortest TSS", run_deliver, &event, OK, 0);
    setup_v86(X86_FLAG_IOPL);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    poke(FAKE_TSS + 102, 0x88, 2);
    fake.cpu.s.tr.attributes = A_SYSTEM(3);
    fake_expect("16-bit TSS", run_deliver, &event, X86_GP, 0);
    setup_v86(X86_FLAG_IOPL);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    poke(FAKE_TSS + 102, 0x88, 2);
    fake.cpu.s.tr.attributes &= ~X86_SEG_P;
    fake_expect("no TSS", run_deliver, &event, X86_GP, 0);
    setup_v86(X86_FLAG_IOPL);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    poke(FAKE_TSS + 102, 8, 2);
    fake_expect("map before the TSS", run_deliver, &event, X86_GP, 0);
    setup_v86(X86_FLAG_IOPL);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    fake.cpu.s.tr.limit = 102;
    fake_expect("no map base", run_deliver, &event, X86_GP, 0);
    setup_v86(0);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    poke(FAKE_TSS + 102, 0x88, 2);
    fake.supervisor[0] = true;
    fake_expect("IVT is read as a user", run_deliver, &event, X86_PF, X86_PF_U);
}

/* ---- real mode ---- */

static void test_real(void **state)
{
    struct x86_event event = event_of(X86_EVENT_EXCEPTION, V);
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    fake_setup(REAL, 0);
    event.has_error_code = true; /* not pushed */
    s->rflags |= BUSY_FLAGS;
    s->seg[X86_CS].selector = 0x4321;
    poke(V * 4, 0xf0001234, 4);
    fake_expect("real", run_deliver, &event, OK, 0);
    assert_int_equal(s->seg[X86_CS].base, 0xf0000);
    assert_int_equal(s->seg[X86_CS].selector, 0xf000);
    assert_int_equal(s->rip, 0x1234);
    assert_int_equal(s->gpr[X86_RSP], FAKE_RSP - 6);
    check_words("real", 2, 3, (uint64_t)FAKE_RIP, 0x4321ull, (uint64_t)BUSY_FLAGS);
    assert_int_equal(s->rflags, X86_FLAG_FIXED | X86_FLAG_CF | X86_FLAG_NT);

    fake_setup(REAL, 0);
    s->gpr[X86_RSP] = 5;
    fake_expect("no room", run_deliver, &event, X86_SS_FAULT, 0);
    fake_setup(REAL, 0);
    poke(V * 4, 0x1234, 4);
    s->seg[X86_CS].limit = 0x1234;
    fake_expect("at the limit", run_deliver, &event, OK, 0);
    fake_setup(REAL, 0);
    poke(V * 4, 0x1234, 4);
    s->seg[X86_CS].limit = 0x1233;
    fake_expect("beyond the limit", run_deliver, &event, X86_GP, 0);
    fake_setup(REAL, 0);
    s->idtr.base = 0x5000;
    poke(0x5000 + V * 4, 0x00100020, 4);
    fake_expect("IVT elsewhere", run_deliver, &event, OK, 0);
    assert_int_equal(s->rip, 0x20);
}

/* ---- a fault while delivering ---- */

#define NONE 0xff

/* What first's gate is missing decides the second fault; gates that work: see setup. */
struct double_case {
    const char *name;
    enum x86_event_kind kind;
    uint8_t first, second; /* second: the fault that delivering first meets */
    uint8_t then;          /* delivered in the end, or NONE: shutdown */
};

#define EXC X86_EVENT_EXCEPTION

static const struct double_case doubles[] = {
    {"benign, contributory", EXC, X86_UD, X86_NP, X86_NP},
    {"benign, page fault", EXC, X86_UD, X86_PF, X86_PF},
    {"interrupt, contributory", EXT, V, X86_NP, X86_NP},
    {"interrupt, page fault", EXT, V, X86_PF, X86_PF},
    {"INT 13 is benign", SOFT, X86_GP, X86_NP, X86_NP},
    {"NMI, contributory", X86_EVENT_NMI, X86_NMI, X86_NP, X86_NP},
    {"#DE, #NP", EXC, X86_DE, X86_NP, X86_DF},
    {"#TS, #NP", EXC, X86_TS, X86_NP, X86_DF},
    {"#NP, #GP", EXC, X86_NP, X86_GP, X86_DF},
    {"#SS, #NP", EXC, X86_SS_FAULT, X86_NP, X86_DF},
    {"#GP, #NP", EXC, X86_GP, X86_NP, X86_DF},
    {"#GP, #PF", EXC, X86_GP, X86_PF, X86_PF},
    {"#PF, #NP", EXC, X86_PF, X86_NP, X86_DF},
    {"#PF, #PF", EXC, X86_PF, X86_PF, X86_DF},
    {"#DF, #NP", EXC, X86_DF, X86_NP, NONE},
    {"#DF, #PF", EXC, X86_DF, X86_PF, NONE},
};

/* Every gate works, but first's is broken so that it gives second. */
static void setup_double(const struct double_case *c)
{
    const uint64_t works = INTERRUPT(CODE32(0), 0x1234ull, 0);

    fake_setup(P32, 0);
    for (unsigned i = 0; i <= V; i++)
        set_idt((uint8_t)i, works, 0);
    switch (c->second) {
    case X86_NP:
        set_idt(c->first, works & ~(1ull << 47), 0);
        break;
    case X86_GP:
        set_idt(c->first, 0, 0);
        break;
    default: /* the gate's code segment is in an LDT that is not mapped */
        set_idt(c->first, INTERRUPT(4, 0x1234ull, 0), 0);
        fake.absent[FAKE_LDT >> 12] = true;
        break;
    }
}

static void test_double_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(doubles); i++) {
        const struct double_case *c = &doubles[i];
        struct x86_event event = event_of(c->kind, c->first);
        uint8_t vectors[8];
        unsigned count;

        setup_double(c);
        count = fake_deliver(&event, vectors);
        CHECK(c->name, count, 2);
        CHECK(c->name, vectors[0], c->first);
        CHECK(c->name, vectors[1], c->second);
        CHECK(c->name, fake.cpu.delivering, false);
        CHECK(c->name, fake.cpu.s.activity, c->then == NONE ? X86_SHUTDOWN : X86_ACTIVE);
        if (c->then == NONE)
            continue;
        CHECK(c->name, fake.cpu.first.vector, c->then);
        CHECK(c->name, fake.cpu.s.rip, 0x1234);
        if (c->then == X86_DF)
            check_words(c->name, 4, 3, 0ull, (uint64_t)FAKE_RIP, (uint64_t)CODE32(0));
    }
}

/* An empty IDT: anything ends in shutdown; #GP, then #DF, then neither. */
static void test_triple_fault(void **state)
{
    for (int mode = REAL; mode <= LONG; mode++) {
        struct x86_event event = event_of(EXT, V);
        uint8_t vectors[8];

        (void)state;
        fake_setup((enum fake_mode)mode, 0);
        fake.cpu.s.idtr.limit = 0;
        assert_int_equal(fake_deliver(&event, vectors), 4);
        for (unsigned i = 1; i < 4; i++)
            assert_int_equal(vectors[i], X86_GP);
        assert_int_equal(fake.cpu.s.activity, X86_SHUTDOWN);
        assert_int_equal(fake.cpu.s.rip, FAKE_RIP);
    }
}

/* A contributory fault, then a page fault, then another: the chain is judged pair by pair. */
static void test_chain(void **state)
{
    struct x86_event event = event_of(EXC, X86_GP);
    uint8_t vectors[8];

    (void)state;
    fake_setup(P32, 0);
    set_idt(X86_DF, INTERRUPT(CODE32(0), 0x1234ull, 0), 0);
    set_idt(X86_GP, INTERRUPT(4, 0x1234ull, 0), 0);
    set_idt(X86_PF, INTERRUPT(4, 0x1234ull, 0), 0);
    fake.absent[FAKE_LDT >> 12] = true;
    assert_int_equal(fake_deliver(&event, vectors), 3);
    assert_int_equal(vectors[1], X86_PF);
    assert_int_equal(vectors[2], X86_PF);
    assert_int_equal(fake.cpu.first.vector, X86_DF);
    assert_int_equal(fake.cpu.s.rip, 0x1234);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_idt_limit),
        cmocka_unit_test(test_same_level),
        cmocka_unit_test(test_conforming),
        cmocka_unit_test(test_inner_level),
        cmocka_unit_test(test_ist),
        cmocka_unit_test(test_inner_stack),
        cmocka_unit_test(test_same_stack),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_saved_rf),
        cmocka_unit_test(test_nmi_blocks),
        cmocka_unit_test(test_debug_handler),
        cmocka_unit_test(test_raise),
        cmocka_unit_test(test_from_v86),
        cmocka_unit_test(test_v86_redirection),
        cmocka_unit_test(test_v86_redirection_limits),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_double_faults),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
