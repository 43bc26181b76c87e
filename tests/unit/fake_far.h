/*
 * fake_far.h - fake_cpu.h plus what the tests of far transfers share: their stacks, and what CS and
 * SS are afterwards
 */
#ifndef TESTS_UNIT_FAKE_FAR_H
#define TESTS_UNIT_FAKE_FAR_H

#include "fake_cpu.h"

#define S0   FAKE_SLOT
#define S1   (FAKE_SLOT + 8)
#define S2   (FAKE_SLOT + 0x10)
#define NEXT (FAKE_RIP + 7)

static inline void check_code(const char *name, uint16_t cs, uint64_t rip, unsigned cpl)
{
    const struct x86_segment *seg = &fake.cpu.s.seg[X86_CS];

    CHECK(name, seg->selector, cs);
    CHECK(name, fake.cpu.s.rip, rip);
    CHECK(name, fake.cpu.cpl, cpl);
    CHECK(name, seg->attributes, (get_gdt(cs) >> 40 & 0xf0ff) | 1);
    CHECK(name, get_gdt(cs) >> 40 & 1, 1);
    CHECK(name, fake.changed & X86_CHANGED_CODE, X86_CHANGED_CODE);
    x86_refresh_cpl(&fake.cpu);
    CHECK(name, fake.cpu.cpl, cpl);
}

/* Values of size bytes from RSP on. */
static inline void check_stack(const char *name, unsigned size, unsigned count, ...)
{
    uint64_t mask = size == 8 ? ~0ull : (1ull << size * 8) - 1;
    va_list values;

    va_start(values, count);
    for (unsigned i = 0; i < count; i++) {
        uint64_t expected = va_arg(values, uint64_t) & mask;

        CHECK(name, peek(fake.cpu.s.gpr[X86_RSP] + i * size, size), expected);
    }
    va_end(values);
}

static inline void poke_stack(unsigned size, unsigned count, ...)
{
    va_list values;

    va_start(values, count);
    for (unsigned i = 0; i < count; i++)
        poke(FAKE_RSP + i * size, va_arg(values, uint64_t), size);
    va_end(values);
}

static inline void install_slots(const uint64_t slots[2])
{
    for (unsigned i = 0; i < 2; i++)
        if (slots[i])
            set_gdt((uint16_t)(S0 + 8 * i), slots[i]);
}

static inline void check_ss(const char *name, uint16_t ss, unsigned cpl)
{
    const struct x86_segment *seg = &fake.cpu.s.seg[X86_SS];

    CHECK(name, seg->selector, ss);
    if (ss & ~3)
        CHECK(name, seg->attributes, get_gdt(ss) >> 40 & 0xf0ff); /* accessed in memory, too */
    else
        CHECK(name, seg->attributes, cpl << 5);
}

#endif
