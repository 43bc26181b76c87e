/*
 * control.c - control and debug registers, XCR0, the time stamp counter
 *
 * Models MOV CR, LMSW, CLTS (SDM vol. 3, 2.5 and 4.1; vol. 2, MOV), entering and leaving long mode
 * through CR0.PG (vol. 3, 9.8.5), the PAE page-directory-pointer registers (4.4.1), PCIDs
 * (4.10.1), MOV DR (17.2), XSETBV and XGETBV (vol. 1, 13.3), and the TSC. Left out: CR4 bits
 * of VMX, SMX, CET, 5-level paging and user interrupts, which are reserved here.
 *
 * Every function checks everything first and changes registers last, because a fault does not
 * return.
 */
#include "x86/control.h"

#include "trapeze/clock.h"
#include "trapeze/machine.h"
#include "x86/features.h"
#include "x86/paging.h"

#define CR0_WRITABLE                                                                               \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM |    \
     X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
#define CR3_NO_FLUSH     (1ull << 63)

/* Registers whose change loads the PAE page-directory pointers again (SDM vol. 3, 4.4.1). */
#define CR0_LOADS_PDPTES (X86_CR0_CD | X86_CR0_NW | X86_CR0_PG)
#define CR4_LOADS_PDPTES (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)

static noreturn void general_protection(struct x86_cpu *cpu)
{
    x86_raise_code(cpu, X86_GP, 0);
}

static void check_privilege(struct x86_cpu *cpu)
{
    if (cpu->cpl != 0)
        general_protection(cpu);
}

/* What of a set of changed bits an engine must hear about. */
struct consequence {
    uint32_t bits;
    unsigned what; /* X86_CHANGED_* */
};

static unsigned consequences(const struct consequence *table, uint64_t changed)
{
    unsigned what = 0;

    for (; table->bits; table++)
        if (changed & table->bits)
            what |= table->what;
    return what;
}

/* ---- PAE ---- */

/* The four registers that PAE paging would use; #GP if memory holds no valid ones. */
static void read_pdptes(struct x86_cpu *cpu, uint64_t cr3, uint64_t out_pdpte[4])
{
    if (!x86_load_pdptes(cpu->walk_memory, cr3, cpu->model->physical_bits, out_pdpte))
        general_protection(cpu);
}

static void store_pdptes(struct x86_cpu *cpu, const uint64_t pdpte[4])
{
    for (unsigned i = 0; i < 4; i++)
        cpu->s.pdpte[i] = pdpte[i];
}

static bool is_pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & X86_EFER_LME);
}

/* ---- CR0 ---- */

static const struct consequence cr0_consequences[] = {
    {X86_CR0_PG | X86_CR0_WP, X86_CHANGED_PAGING},
    {X86_CR0_PE | X86_CR0_PG | X86_CR0_AM, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS},
    {X86_CR0_TS | X86_CR0_EM | X86_CR0_MP | X86_CR0_NE, X86_CHANGED_FPU},
    {0, 0},
};

static bool tss_is_16bit(const struct x86_segment *tr)
{
    return !(tr->attributes & X86_SEG_CODE);
}

static void check_paging_on(struct x86_cpu *cpu)
{
    const struct x86_state *s = &cpu->s;

    if (!(s->msr.efer & X86_EFER_LME))
        return;
    if (!(s->cr4 & X86_CR4_PAE) || (s->seg[X86_CS].attributes & X86_SEG_L) || tss_is_16bit(&s->tr))
        general_protection(cpu);
}

static void check_paging_off(struct x86_cpu *cpu)
{
    if (x86_in_64bit_mode(cpu) || (cpu->s.cr4 & X86_CR4_PCIDE))
        general_protection(cpu);
}

static void check_cr0(struct x86_cpu *cpu, uint64_t value)
{
    bool was_paging = cpu->s.cr0 & X86_CR0_PG, will_page = value & X86_CR0_PG;

    if (value >> 32)
        general_protection(cpu);
    if (will_page && !(value & X86_CR0_PE))
        general_protection(cpu);
    if ((value & X86_CR0_NW) && !(value & X86_CR0_CD))
        general_protection(cpu);
    if (will_page && !was_paging)
        check_paging_on(cpu);
    if (was_paging && !will_page)
        check_paging_off(cpu);
}

/* LMA is LME while paging is on. */
static uint64_t efer_with_paging(uint64_t efer, bool paging)
{
    return paging && (efer & X86_EFER_LME) ? efer | X86_EFER_LMA : efer & ~(uint64_t)X86_EFER_LMA;
}

static void set_cr0(struct x86_cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->s;
    uint64_t pdpte[4], changed, next;
    bool loads;

    check_cr0(cpu, value);
    next = (value & CR0_WRITABLE) | X86_CR0_ET;
    changed = s->cr0 ^ next;
    loads = (changed & CR0_LOADS_PDPTES) && is_pae_paging(next, s->cr4, s->msr.efer);
    if (loads)
        read_pdptes(cpu, s->cr3, pdpte);

    if (loads)
        store_pdptes(cpu, pdpte);
    s->cr0 = next;
    s->msr.efer = efer_with_paging(s->msr.efer, next & X86_CR0_PG);
    cpu->ops->changed(cpu,
                      consequences(cr0_consequences, changed) | (loads ? X86_CHANGED_PAGING : 0));
}

/* ---- CR3 ---- */

static void set_cr3(struct x86_cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->s;
    bool keep = (s->cr4 & X86_CR4_PCIDE) && (value & CR3_NO_FLUSH);
    uint64_t next = keep ? value & ~CR3_NO_FLUSH : value;
    uint64_t pdpte[4];

    if (next >> cpu->model->physical_bits)
        general_protection(cpu);
    if (is_pae_paging(s->cr0, s->cr4, s->msr.efer)) {
        read_pdptes(cpu, next, pdpte);
        store_pdptes(cpu, pdpte);
    }
    s->cr3 = next;
    cpu->ops->changed(cpu, X86_CHANGED_CR3 | (keep ? X86_CHANGED_KEEP : 0));
}

/* ---- CR4 ---- */

static const struct {
    uint32_t bits;
    enum x86_feature feature;
} cr4_features[] = {
    {X86_CR4_VME | X86_CR4_PVI, X86_FEATURE_VME},
    {X86_CR4_TSD, X86_FEATURE_TSC},
    {X86_CR4_DE, X86_FEATURE_DE},
    {X86_CR4_PSE, X86_FEATURE_PSE},
    {X86_CR4_PAE, X86_FEATURE_PAE},
    {X86_CR4_MCE, X86_FEATURE_MCE},
    {X86_CR4_PGE, X86_FEATURE_PGE},
    {X86_CR4_PCE, X86_FEATURE_MSR},
    {X86_CR4_OSFXSR, X86_FEATURE_FXSR},
    {X86_CR4_OSXMMEXCPT, X86_FEATURE_SSE},
    {X86_CR4_UMIP, X86_FEATURE_UMIP},
    {X86_CR4_FSGSBASE, X86_FEATURE_FSGSBASE},
    {X86_CR4_PCIDE, X86_FEATURE_PCID},
    {X86_CR4_OSXSAVE, X86_FEATURE_XSAVE},
    {X86_CR4_SMEP, X86_FEATURE_SMEP},
    {X86_CR4_SMAP, X86_FEATURE_SMAP},
    {X86_CR4_PKE, X86_FEATURE_PKU},
    {X86_CR4_PKS, X86_FEATURE_PKS},
};

static const struct consequence cr4_consequences[] = {
    {X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP |
         X86_CR4_PKE | X86_CR4_PKS,
     X86_CHANGED_PAGING},
    {X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_PCE | X86_CR4_UMIP | X86_CR4_FSGSBASE |
         X86_CR4_OSFXSR | X86_CR4_OSXSAVE,
     X86_CHANGED_CODE},
    {X86_CR4_DE, X86_CHANGED_DEBUG},
    {X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE, X86_CHANGED_FPU},
    {0, 0},
};

static uint64_t cr4_allowed(const struct cpu_model *model)
{
    uint64_t allowed = 0;

    for (unsigned i = 0; i < sizeof(cr4_features) / sizeof(cr4_features[0]); i++)
        if (cpu_model_has(model, cr4_features[i].feature))
            allowed |= cr4_features[i].bits;
    return allowed;
}

static void check_cr4(struct x86_cpu *cpu, uint64_t value)
{
    const struct x86_state *s = &cpu->s;
    bool long_mode = s->msr.efer & X86_EFER_LMA;

    if (value & ~cr4_allowed(cpu->model))
        general_protection(cpu);
    if (long_mode && !(value & X86_CR4_PAE))
        general_protection(cpu);
    if ((value & ~s->cr4 & X86_CR4_PCIDE) && (!long_mode || (s->cr3 & 0xfff)))
        general_protection(cpu);
}

static void set_cr4(struct x86_cpu *cpu, uint64_t value)
{
    struct x86_state *s = &cpu->s;
    uint64_t changed = s->cr4 ^ value, pdpte[4];
    bool loads;

    check_cr4(cpu, value);
    loads = (changed & CR4_LOADS_PDPTES) && is_pae_paging(s->cr0, value, s->msr.efer);
    if (loads)
        read_pdptes(cpu, s->cr3, pdpte);

    if (loads)
        store_pdptes(cpu, pdpte);
    s->cr4 = value;
    cpu->ops->changed(cpu, consequences(cr4_consequences, changed));
}

/* ---- CR8 and the instructions ---- */

static uint64_t read_cr8(struct x86_cpu *cpu)
{
    const struct vcpu *vcpu = cpu->vcpu;

    return vcpu->apic_ops ? vcpu->apic_ops->cr8(vcpu->apic) : 0;
}

static void set_cr8(struct x86_cpu *cpu, uint64_t value)
{
    const struct vcpu *vcpu = cpu->vcpu;

    if (value > 15)
        general_protection(cpu);
    if (vcpu->apic_ops)
        vcpu->apic_ops->set_cr8(vcpu->apic, (uint8_t)value);
}

static void check_cr_number(struct x86_cpu *cpu, unsigned n)
{
    if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
        x86_raise(cpu, X86_UD);
}

uint64_t x86_read_cr(struct x86_cpu *cpu, unsigned n)
{
    const struct x86_state *s = &cpu->s;

    check_cr_number(cpu, n);
    check_privilege(cpu);
    switch (n) {
    case 0:
        return s->cr0;
    case 2:
        return s->cr2;
    case 3:
        return s->cr3;
    case 4:
        return s->cr4;
    default:
        return read_cr8(cpu);
    }
}

void x86_write_cr(struct x86_cpu *cpu, unsigned n, uint64_t value)
{
    check_cr_number(cpu, n);
    check_privilege(cpu);
    switch (n) {
    case 0:
        set_cr0(cpu, value);
        break;
    case 2:
        cpu->s.cr2 = value;
        break;
    case 3:
        set_cr3(cpu, value);
        break;
    case 4:
        set_cr4(cpu, value);
        break;
    default:
        set_cr8(cpu, value);
        break;
    }
}

/* PE, MP, EM and TS; PE can be set but not cleared. */
void x86_lmsw(struct x86_cpu *cpu, uint16_t value)
{
    const uint32_t cleared = X86_CR0_MP | X86_CR0_EM | X86_CR0_TS;

    check_privilege(cpu);
    set_cr0(cpu, (cpu->s.cr0 & ~(uint64_t)cleared) | (value & (cleared | X86_CR0_PE)));
}

void x86_clts(struct x86_cpu *cpu)
{
    check_privilege(cpu);
    cpu->s.cr0 &= ~(uint64_t)X86_CR0_TS;
    cpu->ops->changed(cpu, X86_CHANGED_FPU);
}

/* ---- debug registers ---- */

/* The register that n names: 4 and 5 are 6 and 7 unless CR4.DE. */
static unsigned debug_register(struct x86_cpu *cpu, unsigned n)
{
    if (n > 7 || ((n == 4 || n == 5) && (cpu->s.cr4 & X86_CR4_DE)))
        x86_raise(cpu, X86_UD);
    check_privilege(cpu);
    if (cpu->s.dr7 & X86_DR7_GD) {
        cpu->s.dr6 |= X86_DR6_BD; /* part of the exception; GD is cleared by its delivery */
        x86_raise(cpu, X86_DB);
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

uint64_t x86_read_dr(struct x86_cpu *cpu, unsigned n)
{
    n = debug_register(cpu, n);
    if (n < 4)
        return cpu->s.dr[n];
    return n == 6 ? cpu->s.dr6 : cpu->s.dr7;
}

void x86_write_dr(struct x86_cpu *cpu, unsigned n, uint64_t value)
{
    n = debug_register(cpu, n);
    if (n >= 6 && value >> 32)
        general_protection(cpu);
    if (n < 4)
        cpu->s.dr[n] = value;
    else if (n == 6)
        cpu->s.dr6 = (value & X86_DR6_WRITABLE) | X86_DR6_FIXED;
    else
        cpu->s.dr7 = (value & X86_DR7_WRITABLE) | X86_DR7_FIXED;
    if (n != 6)
        cpu->ops->changed(cpu, X86_CHANGED_DEBUG);
}

/* ---- XCR0 ---- */

bool x86_xcr0_is_valid(uint64_t xcr0)
{
    const uint64_t known =
        X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512 | X86_XCR0_PKRU;
    uint64_t avx512 = xcr0 & X86_XCR0_AVX512;

    if ((xcr0 & ~known) || !(xcr0 & X86_XCR0_X87))
        return false;
    if ((xcr0 & X86_XCR0_AVX) && !(xcr0 & X86_XCR0_SSE))
        return false;
    return !avx512 || (avx512 == X86_XCR0_AVX512 && (xcr0 & X86_XCR0_AVX));
}

static void check_osxsave(struct x86_cpu *cpu)
{
    if (!(cpu->s.cr4 & X86_CR4_OSXSAVE))
        x86_raise(cpu, X86_UD);
}

void x86_xsetbv(struct x86_cpu *cpu, uint32_t index, uint64_t value)
{
    check_osxsave(cpu);
    check_privilege(cpu);
    if (index != 0 || (value & ~cpu->model->xcr0) || !x86_xcr0_is_valid(value))
        general_protection(cpu);
    cpu->s.xcr0 = value;
    cpu->ops->changed(cpu, X86_CHANGED_FPU | X86_CHANGED_CODE);
}

uint64_t x86_xgetbv(struct x86_cpu *cpu, uint32_t index)
{
    check_osxsave(cpu);
    if (index == 0)
        return cpu->s.xcr0;
    if (index != 1 || !cpu_model_has(cpu->model, X86_FEATURE_XGETBV1))
        general_protection(cpu);
    return x86_xinuse(cpu) & cpu->s.xcr0;
}

/* ---- time stamp counter ---- */

uint64_t x86_tsc_hz(const struct cpu_model *model)
{
    return model->tsc_hz;
}

uint64_t x86_read_tsc(struct x86_cpu *cpu)
{
    uint64_t now_ns = clock_now_ns(machine_clocks(cpu->vcpu->machine), CLOCK_ID_VIRTUAL);
    uint64_t hz = cpu->model->tsc_hz;

    if (hz != NANOSECONDS_PER_SECOND)
        now_ns = (uint64_t)((unsigned __int128)now_ns * hz / NANOSECONDS_PER_SECOND);
    return now_ns + cpu->s.msr.tsc_offset;
}
