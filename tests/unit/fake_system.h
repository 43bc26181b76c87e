/*
 * fake_system.h - fake_cpu.h plus what control registers, MSRs and CPUID reach beyond the registers
 *
 * A CPU model with every feature, a vCPU with an APIC that remembers what it was told, page tables
 * in the fake memory, and the machine's clocks in counted mode, so that a test sets the time.
 */
#ifndef TESTS_UNIT_FAKE_SYSTEM_H
#define TESTS_UNIT_FAKE_SYSTEM_H

#include "fake_cpu.h"

#include "trapeze/clock.h"
#include "trapeze/machine.h"
#include "x86/control.h"

static struct fake_apic {
    uint64_t base, msr_value;
    uint32_t msr;
    uint8_t cr8;
    bool refuses;
    unsigned tsc_changes;
} fake_apic;

static struct vcpu fake_vcpu;
static struct clocks *fake_clocks;

/* In place of the machine's. */
struct clocks *machine_clocks(struct machine *machine)
{
    (void)machine;
    return fake_clocks;
}

static uint64_t fake_apic_base(void *apic)
{
    return ((struct fake_apic *)apic)->base;
}

static bool fake_apic_msr_read(void *apic, uint32_t msr, uint64_t *out_value)
{
    struct fake_apic *a = apic;

    a->msr = msr;
    *out_value = a->msr_value;
    return !a->refuses;
}

static bool fake_apic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    struct fake_apic *a = apic;

    a->msr = msr;
    a->msr_value = value;
    return !a->refuses;
}

static uint8_t fake_apic_cr8(void *apic)
{
    return ((struct fake_apic *)apic)->cr8;
}

static void fake_apic_set_cr8(void *apic, uint8_t value)
{
    ((struct fake_apic *)apic)->cr8 = value;
}

static void fake_apic_tsc_changed(void *apic)
{
    ((struct fake_apic *)apic)->tsc_changes++;
}

static const struct vcpu_apic_ops fake_apic_ops = {
    .base = fake_apic_base,
    .msr_read = fake_apic_msr_read,
    .msr_write = fake_apic_msr_write,
    .cr8 = fake_apic_cr8,
    .set_cr8 = fake_apic_set_cr8,
    .tsc_changed = fake_apic_tsc_changed,
};

static void *fake_page_table_entry(void *opaque, uint64_t gpa)
{
    (void)opaque;
    return gpa <= FAKE_BYTES - 8 ? fake.memory + gpa : NULL;
}

static const struct x86_walk_memory fake_walk_memory = {.entry = fake_page_table_entry};

static inline void fake_clear_feature(enum x86_feature feature)
{
    fake.model.features[feature / 8] &= (uint8_t) ~(1u << (feature % 8));
}

static inline void fake_system(enum fake_mode mode, unsigned cpl)
{
    fake_setup(mode, cpl);
    memset(fake.model.features, 0xff, sizeof(fake.model.features));
    fake.model.name = "test";
    fake.model.brand = "Test CPU";
    fake.model.signature = CPU_MODEL_SIGNATURE;
    fake.model.max_leaf = 0x1f;
    fake.model.max_extended_leaf = 0x80000008u;
    fake.model.tsc_hz = 1000000000;
    fake.model.xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512 | X86_XCR0_PKRU;
    fake.model.vcpu_count = 4;
    fake_apic = (struct fake_apic){.base = 0xfee00900};
    memset(&fake_vcpu, 0, sizeof(fake_vcpu));
    fake_vcpu.apic = &fake_apic;
    fake_vcpu.apic_ops = &fake_apic_ops;
    fake_vcpu.apic_id = 3;
    fake.cpu.vcpu = &fake_vcpu;
    fake.cpu.walk_memory = &fake_walk_memory;
    fake.cpu.s.xcr0 = X86_XCR0_X87;
    fake.cpu.s.dr6 = X86_DR6_FIXED;
    fake.cpu.s.dr7 = X86_DR7_FIXED;
    fake.cpu.s.fpu.mxcsr = X86_MXCSR_INITIAL;
    fake.cpu.s.fpu.fcw = 0x37f;
    clocks_free(fake_clocks);
    fake_clocks = clocks_new(&(struct clocks_config){.counted = true, .wall_start_ns = 1});
    assert_non_null(fake_clocks);
    clocks_resume(fake_clocks);
}

#endif
