/*
 * fake_cpu.h - a struct x86_cpu over a flat byte array, for tests of src/x86
 *
 * One mebibyte of memory, seen at linear address 0 and again at the bottom of the upper half.
 * Pages can be absent, read-only or for supervisors only; everything else is #PF. Faults
 * longjmp to fake_faults(). The GDT holds flat code, data and 64-bit code segments of every
 * privilege level, the LDT and TSSs; slots from FAKE_SLOT on are a test's own.
 */
#ifndef TESTS_UNIT_FAKE_CPU_H
#define TESTS_UNIT_FAKE_CPU_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "x86/cpu.h"
#include "x86/features.h"
#include "x86/paging.h"
#include "x86/segments.h"

#define FAKE_BYTES          0x100000u
#define FAKE_HIGH           UINT64_C(0xffff800000000000)

#define FAKE_GDT            0x1000u
#define FAKE_GDT_LIMIT      0x1ffu
#define FAKE_IDT            0x2000u
#define FAKE_LDT            0x3000u
#define FAKE_LDT_LIMIT      0x3fu
#define FAKE_TSS            0x4000u
#define FAKE_TSS_B          0x5000u
#define FAKE_TSS16          0x6000u
#define FAKE_RIP            0x7000u
#define FAKE_RSP            0xc000u
#define FAKE_RSP_LEVEL(n)   (0x9000u + 0x1000u * (n)) /* 0-2 */
#define FAKE_RSP_IST        0xd000u

#define CODE32(dpl)         (uint16_t)(0x10 + 8 * (dpl) + (dpl))
#define DATA(dpl)           (uint16_t)(0x30 + 8 * (dpl) + (dpl))
#define CODE64(dpl)         (uint16_t)(0x50 + 8 * (dpl) + (dpl))
#define TSS_SELECTOR        0x70
#define LDT_SELECTOR        0x80
#define TSS_B_SELECTOR      0x90
#define TSS16_SELECTOR      0xa0
#define FAKE_SLOT           0x100
#define BEYOND_GDT          0x200

/* Descriptor attributes (byte 5 in the low byte, G D L AVL in the top nibble). */
#define A_CODE              0x009au
#define A_CODE_CONFORMING   0x009eu
#define A_CODE_EXECUTE_ONLY 0x0098u
#define A_DATA              0x0092u
#define A_DATA_RO           0x0090u
#define A_DATA_DOWN         0x0096u
#define A_DPL(n)            ((n) << 5)
#define A_NOT_PRESENT       0x0080u /* to be subtracted */
#define A_G                 0x8000u
#define A_D                 0x4000u
#define A_L                 0x2000u
#define A_SYSTEM(type)      (0x0080u | (type))

#define DESC(base, limit, attributes)                                                              \
    (((limit)&0xffffull) | ((base)&0xffffffull) << 16 | ((attributes)&0xffull) << 40 |             \
     ((limit) >> 16 & 0xfull) << 48 | ((attributes) >> 12 & 0xfull) << 52 |                        \
     ((base) >> 24 & 0xffull) << 56)
#define FLAT(attributes)   DESC(0ull, 0xfffffull, (attributes) | A_G | A_D)
#define FLAT64(attributes) DESC(0ull, 0xfffffull, (attributes) | A_G | A_L)
#define GATE(selector, offset, attributes, count)                                                  \
    (((offset)&0xffffull) | (uint64_t)(selector) << 16 | (uint64_t)(count) << 32 |                 \
     ((attributes)&0xffull) << 40 | ((offset) >> 16 & 0xffffull) << 48)

enum fake_mode { REAL, V86, P32, COMPAT, LONG };

struct fake {
    struct x86_cpu cpu; /* first */
    struct cpu_model model;
    jmp_buf unwind;
    unsigned changed; /* all bits reported so far */
    bool absent[FAKE_BYTES >> 12], readonly[FAKE_BYTES >> 12], supervisor[FAKE_BYTES >> 12];
    uint8_t memory[FAKE_BYTES];
};

static struct fake fake;
static unsigned fake_direct; /* bit 0: even pages may be reached directly, bit 1: odd ones */

/* ---- memory ---- */

static uint8_t *fake_byte(uint64_t linear)
{
    if (linear >= FAKE_HIGH)
        linear -= FAKE_HIGH;
    return linear < FAKE_BYTES ? &fake.memory[linear] : NULL;
}

static void fake_page_fault(uint64_t linear, unsigned access, bool user)
{
    fake.cpu.s.cr2 = linear;
    x86_raise_code(&fake.cpu, X86_PF, (access & 1 ? X86_PF_W : 0) | (user ? X86_PF_U : 0));
}

static uint8_t *fake_access(uint64_t linear, unsigned access)
{
    bool user = fake.cpu.cpl == 3 && !(access & X86_ACCESS_SUPERVISOR);
    uint8_t *byte = fake_byte(linear);
    size_t page;

    if (!byte)
        fake_page_fault(linear, access, user);
    page = (size_t)(byte - fake.memory) >> 12;
    if (fake.absent[page] || ((access & 1) && fake.readonly[page]) ||
        (user && fake.supervisor[page]))
        fake_page_fault(linear, access, user);
    return byte;
}

static uint64_t fake_read(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access)
{
    uint64_t value = 0;

    assert_ptr_equal(cpu, &fake.cpu);
    assert_int_equal(access & X86_ACCESS_KIND, X86_ACCESS_READ);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)*fake_access(linear + i, access) << 8 * i;
    return value;
}

static void fake_probe_write(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access)
{
    assert_int_equal(access & X86_ACCESS_KIND, X86_ACCESS_WRITE);
    for (unsigned i = 0; i < size; i++)
        fake_access(linear + i, access);
}

static void fake_write(struct x86_cpu *cpu, uint64_t linear, uint64_t value, unsigned size,
                       unsigned access)
{
    fake_probe_write(cpu, linear, size, access);
    for (unsigned i = 0; i < size; i++)
        *fake_access(linear + i, access) = (uint8_t)(value >> 8 * i);
}

static uint8_t *fake_page(struct x86_cpu *cpu, uint64_t linear, unsigned access)
{
    uint8_t *byte = fake_byte(linear);
    size_t page = byte ? (size_t)(byte - fake.memory) >> 12 : 0;

    assert_ptr_equal(cpu, &fake.cpu);
    if (!byte || fake.absent[page] || ((access & 1) && fake.readonly[page]) ||
        (cpu->cpl == 3 && fake.supervisor[page]) || !(fake_direct >> (page & 1) & 1))
        return NULL;
    return fake.memory + (page << 12);
}

static void fake_raise(struct x86_cpu *cpu) __attribute__((__noreturn__));
static void fake_raise(struct x86_cpu *cpu)
{
    longjmp(fake.unwind, 1);
}

static void fake_changed(struct x86_cpu *cpu, unsigned what)
{
    fake.changed |= what;
}

static const struct x86_cpu_ops fake_ops = {
    .read = fake_read,
    .write = fake_write,
    .probe_write = fake_probe_write,
    .page = fake_page,
    .raise = fake_raise,
    .changed = fake_changed,
};

/* Untyped peeks and pokes for tests. */
static inline void poke(uint64_t linear, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        *fake_byte(linear + i) = (uint8_t)(value >> 8 * i);
}
static inline uint64_t peek(uint64_t linear, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)*fake_byte(linear + i) << 8 * i;
    return value;
}
static inline void set_gdt(uint16_t selector, uint64_t descriptor)
{
    poke(FAKE_GDT + (selector & 0xfff8u), descriptor, 8);
}
static inline uint64_t get_gdt(uint16_t selector)
{
    return peek(FAKE_GDT + (selector & 0xfff8u), 8);
}

/* ---- set-up ---- */

static void fake_gdt(enum fake_mode mode)
{
    bool wide = mode == COMPAT || mode == LONG;

    set_gdt(0, FLAT(A_CODE)); /* a null selector names nothing, whatever is there */
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        set_gdt(CODE32(dpl), FLAT(A_CODE | A_DPL(dpl)));
        set_gdt(DATA(dpl), FLAT(A_DATA | A_DPL(dpl)));
        set_gdt(CODE64(dpl), FLAT64(A_CODE | A_DPL(dpl)));
    }
    set_gdt(TSS_SELECTOR, DESC(FAKE_TSS, 0x2ffull, A_SYSTEM(11)));
    set_gdt(LDT_SELECTOR, DESC(FAKE_LDT, (uint64_t)FAKE_LDT_LIMIT, A_SYSTEM(2)));
    set_gdt(TSS_B_SELECTOR, DESC(FAKE_TSS_B, 0x67ull, A_SYSTEM(9)));
    if (!wide)
        set_gdt(TSS16_SELECTOR, DESC(FAKE_TSS16, 0x2bull, A_SYSTEM(1)));
    if (wide)
        for (unsigned n = 0; n < 3; n++)
            poke(FAKE_TSS + 4 + 8 * n, FAKE_RSP_LEVEL(n), 8);
    else
        for (unsigned n = 0; n < 3; n++)
            poke(FAKE_TSS + 4 + 8 * n, FAKE_RSP_LEVEL(n) | (uint64_t)DATA(n) << 32, 8);
    if (wide)
        for (unsigned n = 1; n < 8; n++)
            poke(FAKE_TSS + 28 + 8 * n, FAKE_RSP_IST, 8);
}

static struct x86_segment fake_flat(uint16_t selector, unsigned attributes)
{
    return (struct x86_segment){
        .limit = 0xffffffff,
        .selector = selector,
        .attributes = (uint16_t)(attributes | A_G | 1),
    };
}

static void fake_segments(enum fake_mode mode, unsigned cpl)
{
    struct x86_state *s = &fake.cpu.s;

    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        if (mode == V86 || mode == REAL)
            s->seg[i] =
                (struct x86_segment){.limit = 0xffff, .attributes = mode == V86 ? 0xf3 : 0x93};
        else
            s->seg[i] = fake_flat(DATA(cpl), A_DATA | A_D | A_DPL(cpl));
    }
    if (mode == LONG)
        s->seg[X86_CS] = fake_flat(CODE64(cpl), A_CODE | A_L | A_DPL(cpl));
    else if (mode == P32 || mode == COMPAT)
        s->seg[X86_CS] = fake_flat(CODE32(cpl), A_CODE | A_D | A_DPL(cpl));
}

static inline void fake_setup(enum fake_mode mode, unsigned cpl)
{
    struct x86_state *s = &fake.cpu.s;

    memset(&fake, 0, sizeof(fake));
    fake.model.physical_bits = 40;
    fake.model.linear_bits = 48;
    fake.model.vendor = "GenuineIntel";
    fake.cpu.ops = &fake_ops;
    fake.cpu.model = &fake.model;
    s->rip = FAKE_RIP;
    s->gpr[X86_RSP] = FAKE_RSP;
    s->rflags = X86_FLAG_FIXED | X86_FLAG_IF | (mode == V86 ? X86_FLAG_VM : 0);
    s->cr0 = mode == REAL ? X86_CR0_ET : X86_CR0_ET | X86_CR0_PE;
    s->gdtr = (struct x86_table){FAKE_GDT, FAKE_GDT_LIMIT};
    s->idtr = (struct x86_table){FAKE_IDT, 0xfff};
    if (mode == REAL)
        s->idtr = (struct x86_table){0, 0x3ff};
    if (mode == COMPAT || mode == LONG) {
        s->cr0 |= X86_CR0_PG;
        s->cr4 |= X86_CR4_PAE;
        s->msr.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
    }
    fake_gdt(mode);
    fake_segments(mode, cpl);
    s->tr = (struct x86_segment){FAKE_TSS, 0x2ff, TSS_SELECTOR, A_SYSTEM(11)};
    s->ldtr = (struct x86_segment){FAKE_LDT, FAKE_LDT_LIMIT, LDT_SELECTOR, A_SYSTEM(2)};
    x86_refresh_cpl(&fake.cpu);
    assert_int_equal(fake.cpu.cpl, mode == REAL ? 0 : mode == V86 ? 3 : cpl);
}

/* ---- running ---- */

/* Run operation(arg); true if it raised (then fake.cpu.event says what). */
static inline bool fake_faults(void (*operation)(const void *arg), const void *arg)
{
    if (setjmp(fake.unwind))
        return true;
    operation(arg);
    return false;
}

#define OK (-1)

/*
 * Run the operation and compare with what is expected: vector (OK: none) and error code
 * (-1: none is pushed). After a fault all registers must be as they were (CR2 excepted), and
 * memory, too, unless it was a page fault.
 */
static inline void fake_expect(const char *name, void (*operation)(const void *arg),
                               const void *arg, int vector, int code)
{
    static struct x86_state before;
    static uint8_t memory[FAKE_BYTES];
    const struct x86_event *event = &fake.cpu.event;

    before = fake.cpu.s;
    if (vector != OK)
        memcpy(memory, fake.memory, sizeof(memory));
    if (!fake_faults(operation, arg)) {
        if (vector != OK)
            fail_msg("%s: no fault, expected vector %d", name, vector);
        return;
    }
    if (vector == OK)
        fail_msg("%s: vector %d, code 0x%x, expected no fault", name, event->vector,
                 event->error_code);
    if (event->vector != vector || (event->has_error_code ? (int)event->error_code : -1) != code)
        fail_msg("%s: vector %d, code 0x%x, expected %d, 0x%x", name, event->vector,
                 event->error_code, vector, (unsigned)code);
    assert_int_equal(event->kind, X86_EVENT_EXCEPTION);
    assert_int_equal(event->return_rip, before.rip);
    before.cr2 = fake.cpu.s.cr2;
    before.pending.nmi_blocked = fake.cpu.s.pending.nmi_blocked; /* an NMI on its way blocks */
    if (memcmp(&before, &fake.cpu.s, sizeof(before)) != 0)
        fail_msg("%s: registers changed by a fault", name);
    if (vector != X86_PF && memcmp(memory, fake.memory, sizeof(memory)) != 0)
        fail_msg("%s: memory changed by a fault", name);
}

/* Deliver an event as an engine does: again and again until it succeeds or shuts down. */
static inline unsigned fake_deliver(const struct x86_event *event, uint8_t vectors[8])
{
    static unsigned count;
    static struct x86_event next;

    count = 0;
    next = *event;
    if (setjmp(fake.unwind)) {
        next = fake.cpu.event;
        assert_true(count < 8);
    }
    vectors[count++] = next.vector;
    x86_deliver(&fake.cpu, &next);
    return count;
}

#define CHECK(name, actual, expected)                                                              \
    do {                                                                                           \
        uint64_t actual_ = (actual), expected_ = (expected);                                       \
        if (actual_ != expected_)                                                                  \
            fail_msg("%s: " #actual " is 0x%llx, expected 0x%llx", name,                           \
                     (unsigned long long)actual_, (unsigned long long)expected_);                  \
    } while (0)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
