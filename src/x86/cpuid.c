/*
 * cpuid.c - the CPUID instruction
 *
 * Leaves after SDM vol. 2, CPUID: identity, features, caches, topology (one thread a core, one
 * package), XSAVE layout, clocks, address sizes; and the hypervisor range with a frequency
 * leaf. Feature bits come from the model (features.def); what depends on registers is patched in.
 * Leaves without meaning here (serial number, MONITOR, performance counters, ...) are
 * zero. A leaf beyond the last one answers as the last basic leaf does.
 *
 * Clocks: the crystal is the APIC timer's clock, 1 GHz, and leaf 15H relates the TSC to it, so
 * that a guest needs no calibration.
 */
#include <string.h>

#include "trapeze/clock.h"
#include "x86/control.h"
#include "x86/features.h"

#define CRYSTAL_HZ           1000000000u
#define HYPERVISOR_FIRST     0x40000000u
#define HYPERVISOR_CLOCKS    0x40000010u
#define EXTENDED_FIRST       0x80000000u
#define CACHE_LINE_BYTES     64u
#define STRUCTURED_LAST      2u

#define LIMIT_CPUID_MAX_LEAF 2u /* with IA32_MISC_ENABLE[22] */

/* ---- identity and features ---- */

static uint32_t text4(const char *text)
{
    uint32_t value;

    memcpy(&value, text, sizeof(value));
    return value;
}

static uint32_t bits(const struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf,
                     enum x86_cpuid_register reg)
{
    return cpu_model_bits(cpu->model, leaf, subleaf, reg);
}

static uint32_t with_bit(uint32_t mask, unsigned bit, bool on)
{
    return on ? mask | 1u << bit : mask & ~(1u << bit);
}

static void leaf_vendor(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    bool limited = cpu->s.msr.misc_enable & X86_MISC_ENABLE_LIMIT_CPUID;

    (void)subleaf;
    out->eax = limited ? LIMIT_CPUID_MAX_LEAF : cpu->model->max_leaf;
    out->ebx = text4(cpu->model->vendor);
    out->edx = text4(cpu->model->vendor + 4);
    out->ecx = text4(cpu->model->vendor + 8);
}

static bool apic_is_enabled(const struct x86_cpu *cpu)
{
    const struct vcpu *vcpu = cpu->vcpu;

    return vcpu->apic_ops && (vcpu->apic_ops->base(vcpu->apic) & X86_APIC_BASE_ENABLE);
}

/* Bits that number the cores of the package. */
static unsigned core_bits(const struct x86_cpu *cpu)
{
    unsigned shift = 0;

    while ((1u << shift) < cpu->model->vcpu_count)
        shift++;
    return shift;
}

static void leaf_features(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    uint32_t count = 1u << core_bits(cpu);

    (void)subleaf;
    out->eax = cpu->model->signature;
    out->ebx = CACHE_LINE_BYTES / 8 << 8 | (count & 0xff) << 16 | (cpu->vcpu->apic_id & 0xff) << 24;
    out->ecx = with_bit(bits(cpu, 1, 0, X86_CPUID_ECX), 27, cpu->s.cr4 & X86_CR4_OSXSAVE);
    out->edx = bits(cpu, 1, 0, X86_CPUID_EDX);
    if (!apic_is_enabled(cpu))
        out->edx = with_bit(out->edx, 9, false);
}

/* Descriptors: 64-entry TLBs, 1536-entry second level, 64-byte prefetch, caches in leaf 4. */
static void leaf_descriptors(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)cpu, (void)subleaf;
    out->eax = 0x76036301;
    out->ebx = 0x00f0b5ff;
    out->edx = 0x00c30000;
}

/* Leaf 7. Subleaf 0 says in EAX which subleaf is the last one. */
static void leaf_structured_features(const struct x86_cpu *cpu, uint32_t subleaf,
                                     struct x86_cpuid *out)
{
    if (subleaf > STRUCTURED_LAST)
        return;
    out->eax = subleaf ? bits(cpu, 7, subleaf, X86_CPUID_EAX) : STRUCTURED_LAST;
    out->ebx = bits(cpu, 7, subleaf, X86_CPUID_EBX);
    out->ecx = bits(cpu, 7, subleaf, X86_CPUID_ECX);
    out->edx = bits(cpu, 7, subleaf, X86_CPUID_EDX);
    if (subleaf == 0)
        out->ecx = with_bit(out->ecx, 4, cpu->s.cr4 & X86_CR4_PKE);
}

static void leaf_power(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    out->eax = bits(cpu, 6, 0, X86_CPUID_EAX);
}

/* ---- caches and topology ---- */

static const struct cache {
    uint8_t type; /* 1 data, 2 code, 3 both */
    uint8_t level;
    uint8_t ways;
    uint16_t sets;
    bool shared; /* by the cores of the package */
} caches[] = {
    {1, 1, 8, 64, false},    /* 32 KiB */
    {2, 1, 8, 64, false},    /* 32 KiB */
    {3, 2, 16, 1024, false}, /* 1 MiB */
    {3, 3, 16, 16384, true}, /* 16 MiB */
};

#define CACHE_COUNT (sizeof(caches) / sizeof(caches[0]))

static void leaf_caches(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    uint32_t cores = 1u << core_bits(cpu);
    const struct cache *cache;

    if (subleaf >= CACHE_COUNT)
        return;
    cache = &caches[subleaf];
    out->eax = cache->type | (uint32_t)cache->level << 5 | 1u << 8 |
               (cache->shared ? cores - 1 : 0) << 14 | ((cores - 1) & 0x3f) << 26;
    out->ebx = (CACHE_LINE_BYTES - 1) | (uint32_t)(cache->ways - 1) << 22;
    out->ecx = cache->sets - 1u;
}

/* Subleaf 0: threads of a core; 1: cores of the package. */
static void leaf_topology(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    out->ecx = subleaf & 0xff;
    out->edx = cpu->vcpu->apic_id;
    if (subleaf > 1)
        return;
    out->eax = subleaf ? core_bits(cpu) : 0;
    out->ebx = subleaf ? cpu->model->vcpu_count : 1;
    out->ecx |= (subleaf + 1) << 8;
}

/* ---- XSAVE ---- */

static void xsave_component(const struct x86_cpu *cpu, uint32_t i, struct x86_cpuid *out)
{
    if (i >= X86_XSAVE_COMPONENT_COUNT || !(cpu->model->xcr0 >> i & 1))
        return;
    out->eax = x86_xsave_components[i].size_bytes;
    out->ebx = x86_xsave_components[i].offset;
}

static void leaf_xsave(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    if (!cpu_model_has(cpu->model, X86_FEATURE_XSAVE))
        return;
    if (subleaf > 1) {
        xsave_component(cpu, subleaf, out);
        return;
    }
    if (subleaf == 0) {
        out->eax = (uint32_t)cpu->model->xcr0;
        out->edx = (uint32_t)(cpu->model->xcr0 >> 32);
        out->ebx = x86_xsave_size(cpu->s.xcr0, false);
        out->ecx = x86_xsave_size(cpu->model->xcr0, false);
        return;
    }
    out->eax = bits(cpu, 0xd, 1, X86_CPUID_EAX);
    if (cpu_model_has(cpu->model, X86_FEATURE_XSAVEC))
        out->ebx = x86_xsave_size(cpu->s.xcr0 | cpu->s.msr.xss, true);
}

/* ---- clocks ---- */

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* TSC frequency = crystal * ebx / eax; no answer if that takes more than 32 bits. */
static void leaf_tsc(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    uint64_t tsc_hz = x86_tsc_hz(cpu->model);
    uint64_t divisor = greatest_common_divisor(tsc_hz, CRYSTAL_HZ);

    (void)subleaf;
    if (tsc_hz / divisor > UINT32_MAX)
        return;
    out->eax = (uint32_t)(CRYSTAL_HZ / divisor);
    out->ebx = (uint32_t)(tsc_hz / divisor);
    out->ecx = CRYSTAL_HZ;
}

static void leaf_frequency(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    out->eax = out->ebx = (uint32_t)(x86_tsc_hz(cpu->model) / 1000000) & 0xffff;
    out->ecx = CRYSTAL_HZ / 1000000;
}

/* ---- hypervisor range ---- */

static void leaf_hypervisor(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    static const char name[13] = "TrapezeTrpz";

    (void)cpu, (void)subleaf;
    out->eax = HYPERVISOR_CLOCKS;
    out->ebx = text4(name);
    out->ecx = text4(name + 4);
    out->edx = text4(name + 8);
}

/* kHz of the TSC and of the APIC timer, where other hypervisors have them too. */
static void leaf_hypervisor_clocks(const struct x86_cpu *cpu, uint32_t subleaf,
                                   struct x86_cpuid *out)
{
    (void)subleaf;
    out->eax = (uint32_t)(x86_tsc_hz(cpu->model) / 1000);
    out->ebx = CRYSTAL_HZ / 1000;
}

/* ---- extended range ---- */

static void leaf_extended(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    out->eax = cpu->model->max_extended_leaf;
}

/* SYSCALL shows in 64-bit mode only, as it works there only; XD follows IA32_MISC_ENABLE[34]. */
static void leaf_extended_features(const struct x86_cpu *cpu, uint32_t subleaf,
                                   struct x86_cpuid *out)
{
    (void)subleaf;
    out->ecx = bits(cpu, 0x80000001u, 0, X86_CPUID_ECX);
    out->edx = bits(cpu, 0x80000001u, 0, X86_CPUID_EDX);
    if (!x86_in_64bit_mode(cpu))
        out->edx = with_bit(out->edx, 11, false);
    if (cpu->s.msr.misc_enable & X86_MISC_ENABLE_XD_DISABLE)
        out->edx = with_bit(out->edx, 20, false);
}

static void brand(const struct x86_cpu *cpu, unsigned part, struct x86_cpuid *out)
{
    char text[48] = {0};

    strncpy(text, cpu->model->brand, sizeof(text) - 1);
    memcpy(out, text + part * sizeof(*out), sizeof(*out));
}

static void leaf_brand0(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    brand(cpu, 0, out);
}

static void leaf_brand1(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    brand(cpu, 1, out);
}

static void leaf_brand2(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    brand(cpu, 2, out);
}

/* 1 MiB, 16 ways, 64-byte lines: as leaf 4 says. */
static void leaf_level2_cache(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)cpu, (void)subleaf;
    out->ecx = 1024u << 16 | 8u << 12 | CACHE_LINE_BYTES;
}

static void leaf_invariant_tsc(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    out->edx = bits(cpu, 0x80000007u, 0, X86_CPUID_EDX);
}

static void leaf_addresses(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out)
{
    (void)subleaf;
    out->eax = cpu->model->physical_bits | (uint32_t)cpu->model->linear_bits << 8;
    out->ebx = bits(cpu, 0x80000008u, 0, X86_CPUID_EBX);
}

/* ---- dispatch ---- */

static const struct leaf {
    uint32_t number;
    void (*fill)(const struct x86_cpu *cpu, uint32_t subleaf, struct x86_cpuid *out);
} leaves[] = {
    {0, leaf_vendor},
    {1, leaf_features},
    {2, leaf_descriptors},
    {4, leaf_caches},
    {6, leaf_power},
    {7, leaf_structured_features},
    {0xb, leaf_topology},
    {0xd, leaf_xsave},
    {0x15, leaf_tsc},
    {0x16, leaf_frequency},
    {0x1f, leaf_topology},
    {HYPERVISOR_FIRST, leaf_hypervisor},
    {HYPERVISOR_CLOCKS, leaf_hypervisor_clocks},
    {EXTENDED_FIRST, leaf_extended},
    {0x80000001u, leaf_extended_features},
    {0x80000002u, leaf_brand0},
    {0x80000003u, leaf_brand1},
    {0x80000004u, leaf_brand2},
    {0x80000006u, leaf_level2_cache},
    {0x80000007u, leaf_invariant_tsc},
    {0x80000008u, leaf_addresses},
};

static bool leaf_exists(const struct x86_cpu *cpu, uint32_t leaf)
{
    if (leaf >= EXTENDED_FIRST)
        return leaf <= cpu->model->max_extended_leaf;
    if (leaf >= HYPERVISOR_FIRST && leaf <= HYPERVISOR_CLOCKS)
        return cpu_model_has(cpu->model, X86_FEATURE_HYPERVISOR);
    return leaf <= cpu->model->max_leaf;
}

struct x86_cpuid x86_cpuid(struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    struct x86_cpuid out = {0};

    if (!leaf_exists(cpu, leaf))
        leaf = cpu->model->max_leaf;
    for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++)
        if (leaves[i].number == leaf)
            leaves[i].fill(cpu, subleaf, &out);
    return out;
}
