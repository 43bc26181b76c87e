/* test_task.c - hardware task switches by JMP, CALL, IRET and task gates */
#include "fake_cpu.h"

#define S0      FAKE_SLOT
#define NEXT    (FAKE_RIP + 7)
#define V       0x40
#define VCODE   (V * 8 + 2)
#define NEW_RIP 0x12340000u
#define NEW_RSP 0xe000u
#define NEW_CR3 0x55000u

enum offset32 {
    O_LINK = 0,
    O_CR3 = 0x1c,
    O_EIP = 0x20,
    O_EFLAGS = 0x24,
    O_GPR = 0x28,
    O_SEG = 0x48,
    O_LDT = 0x60,
    O_TRAP = 0x64
};

/* The new task, as in a TSS. */
struct new_task {
    uint32_t flags;
    uint16_t segments[X86_SEGMENT_COUNT]; /* in encoding order: ES CS SS DS FS GS */
    uint16_t ldt;
    bool trap;
};

static const struct new_task ordinary = {
    .flags = X86_FLAG_CF | X86_FLAG_RF,
    .segments = {DATA(0), CODE32(0), DATA(0), DATA(3), 0, CODE32(0)},
    .ldt = LDT_SELECTOR,
};

static void write_tss(uint64_t base, const struct new_task *t)
{
    poke(base + O_CR3, NEW_CR3, 4);
    poke(base + O_EIP, NEW_RIP, 4);
    poke(base + O_EFLAGS, t->flags, 4);
    for (unsigned i = 0; i < 8; i++)
        poke(base + O_GPR + 4 * i, i == X86_RSP ? NEW_RSP : 0x11111111u * (i + 1), 4);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        poke(base + O_SEG + 4 * i, 0xffff0000u | t->segments[i], 4);
    poke(base + O_LDT, t->ldt, 4);
    poke(base + O_TRAP, t->trap, 2);
}

static void write_tss16(uint64_t base, const struct new_task *t)
{
    poke(base + 0x0e, 0x4567, 2);
    poke(base + 0x10, t->flags, 2);
    for (unsigned i = 0; i < 8; i++)
        poke(base + 0x12 + 2 * i, i == X86_RSP ? NEW_RSP : 0x1111u * (i + 1), 2);
    for (unsigned i = 0; i < 4; i++)
        poke(base + 0x22 + 2 * i, t->segments[i], 2);
    poke(base + 0x2a, t->ldt, 2);
}

static void setup_task(unsigned cpl, const struct new_task *t)
{
    struct x86_state *s = &fake.cpu.s;

    fake_setup(P32, cpl);
    write_tss(FAKE_TSS_B, t);
    write_tss16(FAKE_TSS16, t);
    for (unsigned i = 0; i < 8; i++)
        if (i != X86_RSP)
            s->gpr[i] = 0xabcd0000u + i;
    s->rflags |= X86_FLAG_OF;
    s->dr7 = X86_DR7_FIXED | 0x3ff;
    set_gdt(TSS_B_SELECTOR, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(9) | A_DPL(3)));
    set_gdt(TSS16_SELECTOR, DESC(FAKE_TSS16, 0x2bull, A_SYSTEM(1) | A_DPL(3)));
}

static void run_jump(const void *arg)
{
    x86_far_jump(&fake.cpu, *(const uint16_t *)arg, 0, 4, NEXT);
}
static void run_call(const void *arg)
{
    x86_far_call(&fake.cpu, *(const uint16_t *)arg, 0, 4, NEXT);
}
static void run_iret(const void *arg)
{
    x86_iret(&fake.cpu, 4, NEXT);
}
static void run_deliver(const void *arg)
{
    x86_deliver(&fake.cpu, arg);
}

static const uint16_t task_b = TSS_B_SELECTOR, task_16 = TSS16_SELECTOR, slot = S0;

static bool is_busy(uint16_t selector)
{
    return get_gdt(selector) >> 41 & 1;
}

/* The old task's state in its 32-bit TSS. */
static void check_saved(const char *name, uint64_t rip, uint64_t flags, unsigned cpl)
{
    CHECK(name, peek(FAKE_TSS + O_EIP, 4), rip);
    CHECK(name, peek(FAKE_TSS + O_EFLAGS, 4), flags);
    for (unsigned i = 0; i < 8; i++)
        CHECK(name, peek(FAKE_TSS + O_GPR + 4 * i, 4), i == X86_RSP ? FAKE_RSP : 0xabcd0000u + i);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        CHECK(name, peek(FAKE_TSS + O_SEG + 4 * i, 2), i == X86_CS ? CODE32(cpl) : DATA(cpl));
}

static void check_new(const char *name, const struct new_task *t, uint64_t flags)
{
    const struct x86_state *s = &fake.cpu.s;

    CHECK(name, s->rip, NEW_RIP);
    CHECK(name, s->rflags, flags | X86_FLAG_FIXED);
    for (unsigned i = 0; i < 8; i++)
        CHECK(name, s->gpr[i], i == X86_RSP ? NEW_RSP : 0x11111111u * (i + 1));
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        if (t->segments[i])
            CHECK(name, get_gdt(t->segments[i]) >> 40 & 1, 1); /* accessed */
        CHECK(name, s->seg[i].selector, t->segments[i]);
        CHECK(name, !!(s->seg[i].attributes & X86_SEG_P), t->segments[i] != 0);
    }
    CHECK(name, s->ldtr.selector, t->ldt);
    CHECK(name, s->ldtr.base, FAKE_LDT);
    CHECK(name, s->tr.selector, TSS_B_SELECTOR);
    CHECK(name, s->tr.base, FAKE_TSS_B);
    CHECK(name, s->tr.attributes & 0xff, A_SYSTEM(11) | A_DPL(3));
    CHECK(name, s->cr0 & X86_CR0_TS, X86_CR0_TS);
    CHECK(name, s->dr7, X86_DR7_FIXED | 0x2aa);
    CHECK(name, fake.cpu.cpl, t->segments[X86_CS] & 3);
    x86_refresh_cpl(&fake.cpu);
    CHECK(name, fake.cpu.cpl, t->segments[X86_CS] & 3);
    CHECK(name, fake.changed & (X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS),
          X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);
}

#define OLD_FLAGS (X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_OF)

static void test_jump(void **state)
{
    (void)state;
    setup_task(0, &ordinary);
    fake_expect("jump", run_jump, &task_b, OK, 0);
    check_saved("jump", NEXT, OLD_FLAGS, 0);
    check_new("jump", &ordinary, ordinary.flags);
    assert_false(is_busy(TSS_SELECTOR));
    assert_true(is_busy(TSS_B_SELECTOR));
    assert_int_equal(peek(FAKE_TSS_B + O_LINK, 2), 0);
    assert_int_equal(fake.cpu.s.cr3, 0); /* no paging */
    assert_int_equal(fake.changed & X86_CHANGED_CR3, 0);

    setup_task(3, &ordinary);
    set_gdt(S0, GATE(TSS_B_SELECTOR, 0ull, A_SYSTEM(5) | A_DPL(3), 0));
    fake_expect("task gate", run_jump, &slot, OK, 0);
    check_saved("task gate", NEXT, OLD_FLAGS, 3);
    check_new("task gate", &ordinary, ordinary.flags);
}

static void test_call(void **state)
{
    (void)state;
    setup_task(3, &ordinary);
    fake_expect("call", run_call, &task_b, OK, 0);
    check_saved("call", NEXT, OLD_FLAGS, 3);
    check_new("call", &ordinary, ordinary.flags | X86_FLAG_NT);
    assert_true(is_busy(TSS_SELECTOR));
    assert_true(is_busy(TSS_B_SELECTOR));
    assert_int_equal(peek(FAKE_TSS_B + O_LINK, 2), TSS_SELECTOR);
}

static void setup_iret(void)
{
    setup_task(0, &ordinary);
    fake.cpu.s.rflags |= X86_FLAG_NT;
    poke(FAKE_TSS + O_LINK, TSS_B_SELECTOR, 2);
    set_gdt(TSS_B_SELECTOR, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(11) | A_DPL(3)));
}

static void test_iret(void **state)
{
    (void)state;
    setup_iret();
    fake_expect("iret", run_iret, NULL, OK, 0);
    check_saved("iret", NEXT, OLD_FLAGS, 0); /* without NT */
    check_new("iret", &ordinary, ordinary.flags);
    assert_false(is_busy(TSS_SELECTOR));
    assert_true(is_busy(TSS_B_SELECTOR));

    setup_iret();
    set_gdt(TSS_B_SELECTOR, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(9)));
    fake_expect("not busy", run_iret, NULL, X86_TS, TSS_B_SELECTOR);
    setup_iret();
    set_gdt(TSS_B_SELECTOR, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(11) - A_NOT_PRESENT));
    fake_expect("absent", run_iret, NULL, X86_NP, TSS_B_SELECTOR);
    setup_iret();
    set_gdt(TSS_B_SELECTOR, DESC(FAKE_TSS_B, 0x66ull, A_SYSTEM(11)));
    fake_expect("short", run_iret, NULL, X86_TS, TSS_B_SELECTOR);
    setup_iret();
    poke(FAKE_TSS + O_LINK, 0x0c, 2);
    poke(FAKE_LDT + 8, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(11)), 8);
    fake_expect("LDT", run_iret, NULL, X86_TS, 0x0c);
    setup_iret();
    poke(FAKE_TSS + O_LINK, BEYOND_GDT, 2);
    fake_expect("beyond", run_iret, NULL, X86_TS, BEYOND_GDT);
    setup_iret();
    poke(FAKE_TSS + O_LINK, 0, 2);
    set_gdt(0, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(11)));
    fake_expect("null", run_iret, NULL, X86_TS, 0);
}

/* ---- through the IDT ---- */

static void setup_event(unsigned cpl, const struct new_task *t)
{
    setup_task(cpl, t);
    poke(FAKE_IDT + V * 8, GATE(TSS_B_SELECTOR, 0ull, A_SYSTEM(5), 0), 8);
}

static void test_event(void **state)
{
    struct x86_event event = {V, X86_EVENT_EXCEPTION, true, 0xabc, FAKE_RIP};
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_event(3, &ordinary);
    fake_expect("fault", run_deliver, &event, OK, 0);
    check_saved("fault", FAKE_RIP, OLD_FLAGS | X86_FLAG_RF, 3);
    assert_int_equal(s->gpr[X86_RSP], NEW_RSP - 4);
    assert_int_equal(peek(NEW_RSP - 4, 4), 0xabc);
    assert_int_equal(peek(FAKE_TSS_B + O_LINK, 2), TSS_SELECTOR);
    assert_int_equal(s->rflags, ordinary.flags | X86_FLAG_NT | X86_FLAG_FIXED);
    s->gpr[X86_RSP] = NEW_RSP;
    check_new("fault", &ordinary, ordinary.flags | X86_FLAG_NT);
    assert_false(fake.cpu.delivering);

    event = (struct x86_event){V, X86_EVENT_EXTERNAL, false, 0, FAKE_RIP};
    setup_event(3, &ordinary);
    fake_expect("interrupt", run_deliver, &event, OK, 0);
    check_saved("interrupt", FAKE_RIP, OLD_FLAGS, 3);
    check_new("interrupt", &ordinary, ordinary.flags | X86_FLAG_NT);

    event = (struct x86_event){V, X86_EVENT_SOFTWARE, false, 0, NEXT};
    setup_event(3, &ordinary);
    fake_expect("INT n checks the task gate's DPL", run_deliver, &event, X86_GP, VCODE);
    setup_event(0, &ordinary);
    fake_expect("INT n", run_deliver, &event, OK, 0);
    check_saved("INT n", NEXT, OLD_FLAGS, 0);
}

/* A double fault by a task gate works whatever the old stack was: what task gates are for. */
static void test_double_fault_task(void **state)
{
    const struct x86_event event = {X86_GP, X86_EVENT_EXCEPTION, true, 0, FAKE_RIP};
    uint8_t vectors[8];

    (void)state;
    setup_task(0, &ordinary);
    poke(FAKE_IDT + X86_DF * 8, GATE(TSS_B_SELECTOR, 0ull, A_SYSTEM(5), 0), 8);
    poke(FAKE_IDT + X86_GP * 8, GATE(CODE32(0), 0ull, A_SYSTEM(14), 0), 8);
    poke(FAKE_IDT + X86_SS_FAULT * 8, GATE(CODE32(0), 0ull, A_SYSTEM(14), 0), 8);
    fake.cpu.s.seg[X86_SS].limit = 8;
    assert_int_equal(fake_deliver(&event, vectors), 2);
    assert_int_equal(vectors[1], X86_SS_FAULT);
    assert_int_equal(fake.cpu.s.rip, NEW_RIP);
    assert_int_equal(fake.cpu.s.tr.selector, TSS_B_SELECTOR);
    assert_int_equal(peek(NEW_RSP - 4, 4), 0);
}

/* ---- 16-bit ---- */

static void test_to_16bit(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_task(0, &ordinary);
    fake_expect("to 16-bit", run_call, &task_16, OK, 0);
    check_saved("to 16-bit", NEXT, OLD_FLAGS, 0);
    assert_int_equal(s->rip, 0x4567);
    assert_int_equal(s->rflags, X86_FLAG_CF | X86_FLAG_NT | X86_FLAG_FIXED);
    assert_int_equal(s->gpr[X86_RAX] & 0xffff, 0x1111);
    assert_int_equal(s->gpr[X86_RDI] & 0xffff, 0x8888);
    assert_int_equal(s->seg[X86_DS].selector, DATA(3));
    assert_int_equal(s->seg[X86_FS].selector, 0);
    assert_int_equal(s->seg[X86_GS].selector, 0);
    assert_int_equal(s->tr.attributes & 0xff, A_SYSTEM(3) | A_DPL(3));
    assert_int_equal(peek(FAKE_TSS16, 2), TSS_SELECTOR);
    assert_int_equal(s->pending.debug_traps, 0);

    /* and back, from a 16-bit TSS */
    s->gpr[X86_RBX] = 0xdeadbeef;
    fake_expect("back", run_iret, NULL, OK, 0);
    assert_int_equal(s->rip, NEXT);
    assert_int_equal(s->gpr[X86_RBX], 0xabcd0003);
    assert_int_equal(s->seg[X86_CS].selector, CODE32(0));
    assert_int_equal(peek(FAKE_TSS16 + 0x0e, 2), NEXT);
    assert_int_equal(peek(FAKE_TSS16 + 0x18, 2), 0xbeef);
    assert_int_equal(peek(FAKE_TSS16 + 0x10, 2), X86_FLAG_CF | X86_FLAG_FIXED);
    assert_int_equal(peek(FAKE_TSS16 + 0x24, 2), CODE32(0));
    assert_int_equal(s->tr.selector, TSS_SELECTOR);
    assert_false(is_busy(TSS16_SELECTOR));

    setup_task(0, &ordinary);
    set_gdt(TSS16_SELECTOR, DESC(FAKE_TSS16, 0x2aull, A_SYSTEM(1)));
    fake_expect("16-bit, short", run_jump, &task_16, X86_TS, TSS16_SELECTOR);
}

static void test_error_code_16bit(void **state)
{
    const struct x86_event event = {V, X86_EVENT_EXCEPTION, true, 0x12345678, FAKE_RIP};
    struct new_task t = ordinary;

    (void)state;
    t.segments[X86_SS] = S0;
    setup_task(0, &t);
    set_gdt(S0, DESC(0ull, 0xffffull, A_DATA)); /* 16-bit stack */
    poke(FAKE_IDT + V * 8, GATE(TSS16_SELECTOR, 0ull, A_SYSTEM(5), 0), 8);
    fake_expect("16-bit", run_deliver, &event, OK, 0);
    assert_int_equal(fake.cpu.s.gpr[X86_RSP] & 0xffff, NEW_RSP - 2);
    assert_int_equal(peek(NEW_RSP - 2, 2), 0x5678);
}

/* ---- before the commit point: the old task sees the fault, and nothing was written ---- */

static void expect_untouched(const char *name, void (*operation)(const void *arg), const void *arg,
                             int vector, int code)
{
    static uint8_t memory[FAKE_BYTES];

    memcpy(memory, fake.memory, sizeof(memory));
    fake_expect(name, operation, arg, vector, code);
    assert_memory_equal(memory, fake.memory, sizeof(memory));
}

static void test_before_commit(void **state)
{
    (void)state;
    setup_task(0, &ordinary);
    fake.absent[FAKE_TSS_B >> 12] = true;
    expect_untouched("new TSS absent", run_jump, &task_b, X86_PF, 0);
    setup_task(0, &ordinary);
    fake.readonly[FAKE_TSS_B >> 12] = true;
    expect_untouched("back link not writable", run_call, &task_b, X86_PF, X86_PF_W);
    setup_task(0, &ordinary);
    fake.readonly[FAKE_TSS_B >> 12] = true;
    fake_expect("JMP writes no back link", run_jump, &task_b, OK, 0);
    setup_task(0, &ordinary);
    fake.readonly[FAKE_TSS >> 12] = true;
    expect_untouched("old TSS not writable", run_jump, &task_b, X86_PF, X86_PF_W);
    setup_task(0, &ordinary);
    fake.readonly[FAKE_GDT >> 12] = true;
    expect_untouched("GDT not writable", run_jump, &task_b, X86_PF, X86_PF_W);
    setup_task(0, &ordinary);
    fake.readonly[FAKE_GDT >> 12] = true;
    expect_untouched("GDT not writable", run_call, &task_b, X86_PF, X86_PF_W);
    setup_iret();
    fake.readonly[FAKE_GDT >> 12] = true;
    expect_untouched("GDT not writable", run_iret, NULL, X86_PF, X86_PF_W);
    setup_task(0, &ordinary);
    fake.cpu.s.tr.base = 0x8000 - 0x30; /* the old TSS begins on a good page */
    fake.readonly[8] = true;
    expect_untouched("old TSS half writable", run_jump, &task_b, X86_PF, X86_PF_W);
    setup_task(0, &ordinary);
    fake.cpu.s.tr.limit = 0x5e;
    expect_untouched("old TSS short", run_jump, &task_b, X86_TS, TSS_SELECTOR);
    setup_task(3, &ordinary);
    fake.supervisor[FAKE_TSS >> 12] = fake.supervisor[FAKE_TSS_B >> 12] = true;
    fake.supervisor[FAKE_GDT >> 12] = true;
    fake_expect("tables are a supervisor's", run_jump, &task_b, OK, 0);
}

/* ---- after it: the new task sees the fault ---- */

struct late_case {
    const char *name;
    uint32_t flags;
    uint16_t segments[X86_SEGMENT_COUNT];
    uint16_t ldt;
    uint64_t slot; /* S0 */
    int vector, code;
};

#define SEGMENTS(es, cs, ss, ds)                                                                   \
    {                                                                                              \
        es, cs, ss, ds, 0, 0                                                                       \
    }

static const struct late_case lates[] = {
    {"LDT in LDT", 0, SEGMENTS(0, CODE32(0), DATA(0), 0), 0x0c, 0, X86_TS, 0x0c},
    {"LDT beyond", 0, SEGMENTS(0, CODE32(0), DATA(0), 0), BEYOND_GDT, 0, X86_TS, BEYOND_GDT},
    {"LDT is a TSS", 0, SEGMENTS(0, CODE32(0), DATA(0), 0), TSS_SELECTOR, 0, X86_TS, TSS_SELECTOR},
    {"LDT absent", 0, SEGMENTS(0, CODE32(0), DATA(0), 0), S0,
     DESC(FAKE_LDT, 0x3full, A_SYSTEM(2) - A_NOT_PRESENT), X86_TS, S0},
    {"CS null", 0, SEGMENTS(0, 0, DATA(0), 0), 0, 0, X86_TS, 0},
    {"CS beyond", 0, SEGMENTS(0, BEYOND_GDT, DATA(0), 0), 0, 0, X86_TS, BEYOND_GDT},
    {"CS in a null LDT", 0, SEGMENTS(0, 0x0c, DATA(0), 0), 0, 0, X86_TS, 0x0c},
    {"CS is data", 0, SEGMENTS(0, DATA(0), DATA(0), 0), 0, 0, X86_TS, DATA(0)},
    {"CS, DPL != RPL", 0, SEGMENTS(0, CODE32(0) | 3, DATA(3), 0), 0, 0, X86_TS, CODE32(0)},
    {"CS conforming, DPL > RPL", 0, SEGMENTS(0, S0, DATA(0), 0), 0,
     FLAT(A_CODE_CONFORMING | A_DPL(1)), X86_TS, S0},
    {"CS conforming", 0, SEGMENTS(0, S0 | 3, DATA(3), 0), 0, FLAT(A_CODE_CONFORMING), OK, 0},
    {"CS conforming, same level", 0, SEGMENTS(0, S0, DATA(0), 0), 0, FLAT(A_CODE_CONFORMING), OK,
     0},
    {"CS absent", 0, SEGMENTS(0, S0, DATA(0), 0), 0, FLAT(A_CODE - A_NOT_PRESENT), X86_NP, S0},
    {"SS null", 0, SEGMENTS(0, CODE32(0), 0, 0), 0, 0, X86_TS, 0},
    {"SS beyond", 0, SEGMENTS(0, CODE32(0), BEYOND_GDT, 0), 0, 0, X86_TS, BEYOND_GDT},
    {"SS RPL", 0, SEGMENTS(0, CODE32(3), S0, 0), 0, FLAT(A_DATA | A_DPL(3)), X86_TS, S0},
    {"SS DPL", 0, SEGMENTS(0, CODE32(3), S0 | 3, 0), 0, FLAT(A_DATA), X86_TS, S0},
    {"SS absent", 0, SEGMENTS(0, CODE32(0), S0, 0), 0, FLAT(A_DATA - A_NOT_PRESENT), X86_SS_FAULT,
     S0},
    {"DS beyond", 0, SEGMENTS(0, CODE32(0), DATA(0), BEYOND_GDT), 0, 0, X86_TS, BEYOND_GDT},
    {"DS execute-only", 0, SEGMENTS(0, CODE32(0), DATA(0), S0), 0, FLAT(A_CODE_EXECUTE_ONLY),
     X86_TS, S0},
    {"DS, DPL < CPL", 0, SEGMENTS(0, CODE32(3), DATA(3), S0), 0, FLAT(A_DATA), X86_TS, S0},
    {"ES absent", 0, SEGMENTS(S0, CODE32(0), DATA(0), 0), 0, FLAT(A_DATA - A_NOT_PRESENT), X86_NP,
     S0},
    {"EIP beyond the limit", 0, SEGMENTS(0, S0, DATA(0), 0), 0, DESC(0ull, 0xffffull, A_CODE),
     X86_GP, 0},
    {"V86, EIP beyond", X86_FLAG_VM, SEGMENTS(1, 2, 3, 4), 0, 0, X86_GP, 0},
    {"V86, LDT first", X86_FLAG_VM, SEGMENTS(1, 2, 3, 4), BEYOND_GDT, 0, X86_TS, BEYOND_GDT},
};

static void setup_late(const struct late_case *c)
{
    struct new_task t = {.flags = c->flags, .ldt = c->ldt};

    memcpy(t.segments, c->segments, sizeof(t.segments));
    setup_event(0, &t);
    if (c->segments[X86_SS] == 0)
        set_gdt(0, FLAT(A_DATA));
    if (c->slot)
        set_gdt(S0, c->slot);
}

/* By JMP with EXT 0, and by an interrupt with EXT 1. */
static void check_late(const struct late_case *c, bool faulted, unsigned ext)
{
    const struct x86_event *event = &fake.cpu.event;
    const struct x86_state *s = &fake.cpu.s;

    CHECK(c->name, faulted, c->vector != OK);
    CHECK(c->name, s->tr.selector, TSS_B_SELECTOR);
    CHECK(c->name, s->rip, NEW_RIP);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        CHECK(c->name, s->seg[i].selector, c->segments[i]);
    CHECK(c->name, s->ldtr.selector, c->ldt);
    if (!faulted)
        return;
    CHECK(c->name, event->vector, (unsigned)c->vector);
    CHECK(c->name, event->error_code, (unsigned)c->code | ext);
    CHECK(c->name, event->return_rip, NEW_RIP);
    CHECK(c->name, fake.cpu.cpl, c->flags ? 3u : c->segments[X86_CS] & 3u);
    CHECK(c->name, peek(FAKE_TSS + O_EIP, 4), ext ? FAKE_RIP : NEXT);
}

static void test_after_commit(void **state)
{
    const struct x86_event event = {V, X86_EVENT_EXTERNAL, false, 0, FAKE_RIP};

    (void)state;
    for (size_t i = 0; i < COUNT(lates); i++) {
        setup_late(&lates[i]);
        check_late(&lates[i], fake_faults(run_jump, &task_b), 0);
        setup_late(&lates[i]);
        check_late(&lates[i], fake_faults(run_deliver, &event), 1);
    }
}

static void test_error_code_room(void **state)
{
    const struct x86_event event = {V, X86_EVENT_EXCEPTION, true, 1, FAKE_RIP};
    struct new_task t = ordinary;

    (void)state;
    t.segments[X86_SS] = S0;
    setup_event(0, &t);
    set_gdt(S0, DESC(0ull, 0xffull, A_DATA | A_D));
    assert_true(fake_faults(run_deliver, &event));
    assert_int_equal(fake.cpu.event.vector, X86_SS_FAULT);
    assert_int_equal(fake.cpu.event.error_code, 1);
    assert_int_equal(fake.cpu.s.gpr[X86_RSP], NEW_RSP);
}

/* ---- V86, paging, T bit ---- */

static void test_to_v86(void **state)
{
    const struct new_task t = {.flags = X86_FLAG_VM | X86_FLAG_IF, .segments = {1, 2, 3, 4, 5, 6}};
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_task(0, &t);
    poke(FAKE_TSS_B + O_EIP, 0x1234, 4);
    fake_expect("V86", run_jump, &task_b, OK, 0);
    assert_int_equal(s->rip, 0x1234);
    assert_int_equal(fake.cpu.cpl, 3);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        assert_int_equal(s->seg[i].base, t.segments[i] * 16);
        assert_int_equal(s->seg[i].attributes, 0xf3);
    }
}

static void test_to_v86_with_pending_interrupt(void **state)
{
    const struct new_task t = {.flags = X86_FLAG_VM | X86_FLAG_VIF | X86_FLAG_VIP,
                               .segments = {1, 2, 3, 4, 5, 6}};

    (void)state;
    setup_task(0, &t);
    poke(FAKE_TSS_B + O_EIP, 0x1234, 4);
    fake.cpu.s.cr4 |= X86_CR4_VME;
    assert_true(fake_faults(run_jump, &task_b));
    assert_int_equal(fake.cpu.event.vector, X86_GP);
    assert_int_equal(fake.cpu.event.return_rip, 0x1234);
}

/* Guest-physical memory of the PAE page-directory-pointer table. */
static uint64_t pdpt[4];
static void *pdpt_entry(void *opaque, uint64_t gpa)
{
    return gpa >= NEW_CR3 && gpa < NEW_CR3 + sizeof(pdpt) ? (char *)pdpt + (gpa - NEW_CR3) : NULL;
}
static const struct x86_walk_memory pdpt_memory = {.entry = pdpt_entry};

static void test_paging(void **state)
{
    struct x86_state *s = &fake.cpu.s;

    (void)state;
    setup_task(0, &ordinary);
    s->cr0 |= X86_CR0_PG;
    fake_expect("CR3", run_jump, &task_b, OK, 0);
    assert_int_equal(s->cr3, NEW_CR3);
    assert_int_equal(fake.changed & X86_CHANGED_CR3, X86_CHANGED_CR3);

    setup_task(0, &ordinary);
    s->cr0 |= X86_CR0_PG;
    fake_expect("a 16-bit TSS has no CR3", run_jump, &task_16, OK, 0);
    assert_int_equal(s->cr3, 0);

    setup_task(0, &ordinary);
    s->cr0 |= X86_CR0_PG;
    s->cr4 |= X86_CR4_PAE;
    fake.cpu.walk_memory = &pdpt_memory;
    pdpt[0] = 0x1001;
    pdpt[3] = 0x4001;
    fake_expect("PAE", run_jump, &task_b, OK, 0);
    assert_int_equal(s->pdpte[0], 0x1001);
    assert_int_equal(s->pdpte[3], 0x4001);

    setup_task(0, &ordinary);
    s->cr0 |= X86_CR0_PG;
    s->cr4 |= X86_CR4_PAE;
    fake.cpu.walk_memory = &pdpt_memory;
    pdpt[1] = 0x1003; /* reserved bit */
    expect_untouched("PAE, reserved bit", run_jump, &task_b, X86_GP, 0);
}

static void test_debug_trap(void **state)
{
    struct new_task t = ordinary;

    (void)state;
    t.trap = true;
    setup_task(0, &t);
    fake_expect("T", run_jump, &task_b, OK, 0);
    assert_int_equal(fake.cpu.s.pending.debug_traps, X86_DR6_BT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jump),
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_iret),
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_double_fault_task),
        cmocka_unit_test(test_to_16bit),
        cmocka_unit_test(test_error_code_16bit),
        cmocka_unit_test(test_before_commit),
        cmocka_unit_test(test_after_commit),
        cmocka_unit_test(test_error_code_room),
        cmocka_unit_test(test_to_v86),
        cmocka_unit_test(test_to_v86_with_pending_interrupt),
        cmocka_unit_test(test_paging),
        cmocka_unit_test(test_debug_trap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
