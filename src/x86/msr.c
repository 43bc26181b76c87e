/*
 * msr.c - model-specific registers
 *
 * The architectural MSRs of SDM vol. 4, table 2-2, that a system without performance counters,
 * power management, VMX and SMM has. One table lists them all with the feature they need, what
 * is writable, and how a value is checked; an MSR that is not in it is #GP. IA32_APIC_BASE,
 * IA32_TSC_DEADLINE and the x2APIC registers are the local APIC's. MTRRs and PAT are kept and
 * checked but change nothing: all memory is coherent here. Machine-check banks exist
 * and never report. IA32_SMBASE is readable in SMM only, so always #GP.
 *
 * IA32_ARCH_CAPABILITIES says that this processor has none of the speculation flaws, which is so
 * as far as the guest can tell: software engines do not speculate on the guest's behalf. Kernels
 * that do not know a flaw's bit there (Linux 6.1 and BHI_NO) find a control that costs nothing.
 */
#include <stddef.h>

#include "base/log.h"
#include "x86/control.h"
#include "x86/features.h"

#define NO_FEATURE              (-1)
#define ALL_BITS                UINT64_MAX

#define MTRR_CAP                (X86_MTRR_VARIABLE_COUNT | 1u << 8 | 1u << 10) /* fixed ranges, WC */
#define MCG_CAP                 (X86_MC_BANK_COUNT | 1u << 8) /* IA32_MCG_CTL exists */
#define MICROCODE_REVISION      (1ull << 32)
#define PRED_CMD_IBPB           1u
#define SPEC_CTRL_IBRS          1u
#define SPEC_CTRL_STIBP         2u
#define SPEC_CTRL_SSBD          4u
#define SPEC_CTRL_BHI_DIS_S     0x400u

/* IA32_ARCH_CAPABILITIES (SDM vol. 4, table 2-2; ITS_NO is given by hypervisors only). */
#define ARCH_RDCL_NO            (1ull << 0)
#define ARCH_IBRS_ALL           (1ull << 1)
#define ARCH_SKIP_L1DFL_VMENTRY (1ull << 3)
#define ARCH_SSB_NO             (1ull << 4)
#define ARCH_MDS_NO             (1ull << 5)
#define ARCH_PSCHANGE_MC_NO     (1ull << 6)
#define ARCH_TAA_NO             (1ull << 8)
#define ARCH_SBDR_SSDP_NO       (1ull << 13)
#define ARCH_FBSDP_NO           (1ull << 14)
#define ARCH_PSDP_NO            (1ull << 15)
#define ARCH_BHI_NO             (1ull << 20)
#define ARCH_PBRSB_NO           (1ull << 24)
#define ARCH_GDS_NO             (1ull << 26)
#define ARCH_RFDS_NO            (1ull << 27)
#define ARCH_ITS_NO             (1ull << 62)
#define ARCH_CAPABILITIES                                                                          \
    (ARCH_RDCL_NO | ARCH_IBRS_ALL | ARCH_SKIP_L1DFL_VMENTRY | ARCH_SSB_NO | ARCH_MDS_NO |          \
     ARCH_PSCHANGE_MC_NO | ARCH_TAA_NO | ARCH_SBDR_SSDP_NO | ARCH_FBSDP_NO | ARCH_PSDP_NO |        \
     ARCH_BHI_NO | ARCH_PBRSB_NO | ARCH_GDS_NO | ARCH_RFDS_NO | ARCH_ITS_NO)

/*
 * One MSR or a run of them. Without read and write, the value is the field at offset (of struct
 * x86_msrs, 8 bytes for each MSR of the run), and valid (if any) decides about a new one. A bit
 * outside writable is #GP. What changed is reported to the engine after a write.
 */
struct msr {
    uint32_t first;
    uint16_t count;
    uint16_t offset;
    uint16_t changed; /* X86_CHANGED_* */
    int16_t feature;  /* enum x86_feature or NO_FEATURE */
    uint64_t writable;
    bool (*valid)(const struct x86_cpu *cpu, unsigned index, uint64_t value);
    bool (*read)(struct x86_cpu *cpu, unsigned index, uint64_t *out_value);
    bool (*write)(struct x86_cpu *cpu, unsigned index, uint64_t value);
};

/* ---- what values are valid ---- */

static bool is_memory_type(uint64_t type)
{
    return type <= 6 && type != 2 && type != 3; /* UC, WC, WT, WP, WB */
}

/* Eight bytes, each a memory type or, for the PAT, also UC-. */
static bool are_memory_types(uint64_t value, bool uc_minus)
{
    for (unsigned i = 0; i < 8; i++) {
        uint8_t type = (uint8_t)(value >> (8 * i));

        if (!is_memory_type(type) && !(uc_minus && type == 7))
            return false;
    }
    return true;
}

bool x86_pat_is_valid(uint64_t pat)
{
    return are_memory_types(pat, true);
}

bool x86_mtrr_fixed_is_valid(uint64_t value)
{
    return are_memory_types(value, false);
}

bool x86_mtrr_def_type_is_valid(uint64_t value)
{
    return !(value & ~0xcffull) && is_memory_type(value & 0xff);
}

bool x86_mtrr_base_is_valid(uint64_t value, unsigned bits)
{
    return !(value >> bits) && !(value & 0xf00) && is_memory_type(value & 0xff);
}

bool x86_mtrr_mask_is_valid(uint64_t value, unsigned bits)
{
    return !(value >> bits) && !(value & 0x7ff);
}

static bool valid_address(const struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index;
    return x86_is_canonical(value);
}

static bool valid_pat(const struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index;
    return x86_pat_is_valid(value);
}

static bool valid_mtrr_fixed(const struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index;
    return x86_mtrr_fixed_is_valid(value);
}

static bool valid_mtrr_def_type(const struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index;
    return x86_mtrr_def_type_is_valid(value);
}

static bool valid_spec_ctrl(const struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)index;
    return (!(value & SPEC_CTRL_STIBP) || cpu_model_has(cpu->model, X86_FEATURE_STIBP)) &&
           (!(value & SPEC_CTRL_SSBD) || cpu_model_has(cpu->model, X86_FEATURE_SSBD)) &&
           (!(value & SPEC_CTRL_BHI_DIS_S) || cpu_model_has(cpu->model, X86_FEATURE_BHI_CTRL));
}

/* ---- constants ---- */

static bool read_zero(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)cpu, (void)index;
    *out_value = 0;
    return true;
}

static bool write_ignored(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return true;
}

static bool write_refused(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return false;
}

static bool read_refused(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)cpu, (void)index, (void)out_value;
    return false;
}

/* Writing anything but 0 is #GP. */
static bool write_zero(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index;
    return value == 0;
}

static bool read_microcode(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)cpu, (void)index;
    *out_value = MICROCODE_REVISION;
    return true;
}

static bool read_arch_capabilities(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)cpu, (void)index;
    *out_value = ARCH_CAPABILITIES;
    return true;
}

static bool read_mtrr_cap(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)cpu, (void)index;
    *out_value = MTRR_CAP;
    return true;
}

static bool read_mcg_cap(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)cpu, (void)index;
    *out_value = MCG_CAP;
    return true;
}

/* The ratio of the TSC to 100 MHz. */
static uint64_t clock_ratio(const struct x86_cpu *cpu)
{
    return x86_tsc_hz(cpu->model) / 100000000 & 0xff;
}

static bool read_platform_info(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)index;
    *out_value = clock_ratio(cpu) << 8 | clock_ratio(cpu) << 40;
    return true;
}

static bool read_perf_status(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)index;
    *out_value = clock_ratio(cpu) << 8;
    return true;
}

/* ---- time stamp counter ---- */

/* The APIC's TSC deadline moves with the counter. */
static void shift_tsc(struct x86_cpu *cpu, uint64_t delta)
{
    struct vcpu *vcpu = cpu->vcpu;

    cpu->s.msr.tsc_offset += delta;
    cpu->s.msr.tsc_adjust += delta;
    atomic_store(&vcpu->tsc_offset, cpu->s.msr.tsc_offset);
    if (vcpu->apic_ops && vcpu->apic_ops->tsc_changed)
        vcpu->apic_ops->tsc_changed(vcpu->apic);
}

static bool read_tsc(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    (void)index;
    *out_value = x86_read_tsc(cpu);
    return true;
}

static bool write_tsc(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)index;
    shift_tsc(cpu, value - x86_read_tsc(cpu));
    return true;
}

static bool write_tsc_adjust(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)index;
    shift_tsc(cpu, value - cpu->s.msr.tsc_adjust);
    return true;
}

/* ---- EFER and segment bases ---- */

static uint64_t efer_allowed(const struct x86_cpu *cpu)
{
    bool nx = cpu_model_has(cpu->model, X86_FEATURE_NX) &&
              !(cpu->s.msr.misc_enable & X86_MISC_ENABLE_XD_DISABLE);

    return (cpu_model_has(cpu->model, X86_FEATURE_SYSCALL) ? X86_EFER_SCE : 0) |
           (cpu_model_has(cpu->model, X86_FEATURE_LM) ? X86_EFER_LME | X86_EFER_LMA : 0) |
           (nx ? X86_EFER_NXE : 0);
}

/* LMA is read-only; LME cannot change while paging is on (SDM vol. 3, 9.8.5). */
static bool write_efer(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    uint64_t old = cpu->s.msr.efer;

    (void)index;
    if (value & ~efer_allowed(cpu))
        return false;
    if (((value ^ old) & X86_EFER_LME) && (cpu->s.cr0 & X86_CR0_PG))
        return false;
    cpu->s.msr.efer = (value & ~(uint64_t)X86_EFER_LMA) | (old & X86_EFER_LMA);
    return true;
}

static const uint8_t base_segments[] = {X86_FS, X86_GS};

static bool read_segment_base(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    *out_value = cpu->s.seg[base_segments[index]].base;
    return true;
}

static bool write_segment_base(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    if (!x86_is_canonical(value))
        return false;
    cpu->s.seg[base_segments[index]].base = value;
    return true;
}

/* ---- prediction, MTRRs, machine check ---- */

static bool write_pred_cmd(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu, (void)index;
    return !(value & ~(uint64_t)PRED_CMD_IBPB);
}

/* Bases and masks alternate. */
static uint64_t *variable_mtrr(struct x86_cpu *cpu, unsigned index)
{
    struct x86_msrs *m = &cpu->s.msr;

    return index & 1 ? &m->mtrr_mask[index / 2] : &m->mtrr_base[index / 2];
}

static bool read_variable_mtrr(struct x86_cpu *cpu, unsigned index, uint64_t *out_value)
{
    *out_value = *variable_mtrr(cpu, index);
    return true;
}

static bool write_variable_mtrr(struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    unsigned bits = cpu->model->physical_bits;

    if (index & 1 ? !x86_mtrr_mask_is_valid(value, bits) : !x86_mtrr_base_is_valid(value, bits))
        return false;
    *variable_mtrr(cpu, index) = value;
    return true;
}

/* CTL takes all zeros or all ones, STATUS only zero, which clears it (vol. 3, 15.3.2). */
static bool valid_mc_bank(const struct x86_cpu *cpu, unsigned index, uint64_t value)
{
    (void)cpu;
    if (index % 4 > 1)
        return true;
    return value == 0 || (index % 4 == 0 && value == UINT64_MAX);
}

/* ---- the table ---- */

#define FIELD(name)      .offset = offsetof(struct x86_msrs, name)
#define FEATURE(id)      .feature = X86_FEATURE_##id
#define ALWAYS           .feature = NO_FEATURE
#define CONSTANT(reader) .read = (reader), .write = write_refused

/* Sorted by number: looked up by bisection. */
static const struct msr msrs[] = {
    /* P5_MC_ADDR, P5_MC_TYPE */
    {0x000, 2, ALWAYS, .read = read_zero, .write = write_ignored, .writable = ALL_BITS},
    /* TIME_STAMP_COUNTER */
    {0x010, 1, FEATURE(TSC), .read = read_tsc, .write = write_tsc, .writable = ALL_BITS},
    /* PLATFORM_ID */
    {0x017, 1, ALWAYS, CONSTANT(read_zero)},
    /* EBL_CR_POWERON */
    {0x02a, 1, ALWAYS, CONSTANT(read_zero)},
    /* SMI_COUNT */
    {0x034, 1, ALWAYS, CONSTANT(read_zero)},
    /* FEATURE_CONTROL: locked */
    {0x03a, 1, ALWAYS, FIELD(feature_control), .write = write_refused},
    {0x03b, 1, FEATURE(TSC_ADJUST), FIELD(tsc_adjust), .write = write_tsc_adjust,
     .writable = ALL_BITS},
    {0x048, 1, FEATURE(SPEC_CTRL), FIELD(spec_ctrl), .valid = valid_spec_ctrl,
     .writable = SPEC_CTRL_IBRS | SPEC_CTRL_STIBP | SPEC_CTRL_SSBD | SPEC_CTRL_BHI_DIS_S},
    /* PRED_CMD */
    {0x049, 1, FEATURE(SPEC_CTRL), .read = read_refused, .write = write_pred_cmd,
     .writable = ALL_BITS},
    /* BIOS_UPDT_TRIG: no update is taken */
    {0x079, 1, ALWAYS, .read = read_refused, .write = write_ignored, .writable = ALL_BITS},
    /* BIOS_SIGN_ID: CPUID.1 stores the revision, which never changes */
    {0x08b, 1, ALWAYS, .read = read_microcode, .write = write_ignored, .writable = ALL_BITS},
    /* PLATFORM_INFO */
    {0x0ce, 1, ALWAYS, CONSTANT(read_platform_info)},
    {0x0fe, 1, FEATURE(MTRR), CONSTANT(read_mtrr_cap)},
    {0x10a, 1, FEATURE(ARCH_CAPABILITIES), CONSTANT(read_arch_capabilities)},
    {0x174, 1, FEATURE(SEP), FIELD(sysenter_cs), .writable = UINT32_MAX},
    {0x175, 2, FEATURE(SEP), FIELD(sysenter_esp), .valid = valid_address, .writable = ALL_BITS},
    {0x179, 1, FEATURE(MCA), CONSTANT(read_mcg_cap)},
    {0x17a, 1, FEATURE(MCA), FIELD(mcg_status), .write = write_zero, .writable = ALL_BITS},
    {0x17b, 1, FEATURE(MCA), FIELD(mcg_ctl), .writable = ALL_BITS},
    /* PERF_STATUS */
    {0x198, 1, ALWAYS, .read = read_perf_status, .write = write_ignored, .writable = ALL_BITS},
    {0x1a0, 1, ALWAYS, FIELD(misc_enable), .changed = X86_CHANGED_CODE, .writable = 0x400c51889ull},
    /* DEBUGCTL: LBR, BTF */
    {0x1d9, 1, ALWAYS, FIELD(debugctl), .changed = X86_CHANGED_DEBUG, .writable = 3},
    {0x200, 2 * X86_MTRR_VARIABLE_COUNT, FEATURE(MTRR), .read = read_variable_mtrr,
     .write = write_variable_mtrr, .writable = ALL_BITS},
    /* 64 KiB ranges */
    {0x250, 1, FEATURE(MTRR), FIELD(mtrr_fixed[0]), .valid = valid_mtrr_fixed,
     .writable = ALL_BITS},
    /* 16 KiB ranges */
    {0x258, 2, FEATURE(MTRR), FIELD(mtrr_fixed[1]), .valid = valid_mtrr_fixed,
     .writable = ALL_BITS},
    /* 4 KiB ranges */
    {0x268, 8, FEATURE(MTRR), FIELD(mtrr_fixed[3]), .valid = valid_mtrr_fixed,
     .writable = ALL_BITS},
    {0x277, 1, FEATURE(PAT), FIELD(pat), .valid = valid_pat, .writable = ALL_BITS},
    {0x2ff, 1, FEATURE(MTRR), FIELD(mtrr_def_type), .valid = valid_mtrr_def_type,
     .writable = ALL_BITS},
    {0x400, 4 * X86_MC_BANK_COUNT, FEATURE(MCA), FIELD(mc), .valid = valid_mc_bank,
     .writable = ALL_BITS},
    /* PKRS */
    {0x6e1, 1, FEATURE(PKS), FIELD(pkrs), .writable = UINT32_MAX, .changed = X86_CHANGED_PAGING},
    /* XSS: no supervisor state */
    {0xda0, 1, FEATURE(XSAVES), FIELD(xss), .writable = 0},
    {0xc0000080, 1, FEATURE(LM), FIELD(efer), .write = write_efer, .writable = ALL_BITS,
     .changed = X86_CHANGED_PAGING | X86_CHANGED_CODE},
    {0xc0000081, 1, FEATURE(LM), FIELD(star), .writable = ALL_BITS},
    {0xc0000082, 2, FEATURE(LM), FIELD(lstar), .valid = valid_address, .writable = ALL_BITS},
    {0xc0000084, 1, FEATURE(LM), FIELD(sfmask), .writable = UINT32_MAX},
    {0xc0000100, 2, FEATURE(LM), .read = read_segment_base, .write = write_segment_base,
     .writable = ALL_BITS, .changed = X86_CHANGED_SEGMENTS},
    {0xc0000102, 1, FEATURE(LM), FIELD(kernel_gs_base), .valid = valid_address,
     .writable = ALL_BITS},
    {0xc0000103, 1, FEATURE(RDTSCP), FIELD(tsc_aux), .writable = UINT32_MAX},
};

#define MSR_COUNT (sizeof(msrs) / sizeof(msrs[0]))

/* ---- access ---- */

static bool belongs_to_apic(uint32_t number)
{
    return number - 0x800 < 0x100 || number == X86_MSR_TSC_DEADLINE || number == X86_MSR_APIC_BASE;
}

static const struct msr *find(const struct x86_cpu *cpu, uint32_t number)
{
    size_t low = 0, high = MSR_COUNT;

    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct msr *m = &msrs[middle];

        if (number < m->first)
            high = middle;
        else if (number - m->first >= m->count)
            low = middle + 1;
        else
            return m->feature == NO_FEATURE || cpu_model_has(cpu->model, (unsigned)m->feature)
                       ? m
                       : NULL;
    }
    return NULL;
}

static uint64_t *field(struct x86_cpu *cpu, const struct msr *m, unsigned index)
{
    return (uint64_t *)((char *)&cpu->s.msr + m->offset) + index;
}

static bool apic_read(struct x86_cpu *cpu, uint32_t number, uint64_t *out_value)
{
    const struct vcpu *vcpu = cpu->vcpu;

    if (number == X86_MSR_TSC_DEADLINE && !cpu_model_has(cpu->model, X86_FEATURE_TSC_DEADLINE))
        return false;
    return vcpu->apic_ops && vcpu->apic_ops->msr_read(vcpu->apic, number, out_value);
}

static bool apic_write(struct x86_cpu *cpu, uint32_t number, uint64_t value)
{
    const struct vcpu *vcpu = cpu->vcpu;

    if (number == X86_MSR_TSC_DEADLINE && !cpu_model_has(cpu->model, X86_FEATURE_TSC_DEADLINE))
        return false;
    return vcpu->apic_ops && vcpu->apic_ops->msr_write(vcpu->apic, number, value);
}

static bool read_any(struct x86_cpu *cpu, uint32_t number, uint64_t *out_value)
{
    const struct msr *m;

    if (belongs_to_apic(number))
        return apic_read(cpu, number, out_value);
    m = find(cpu, number);
    if (!m)
        return false;
    if (m->read)
        return m->read(cpu, number - m->first, out_value);
    *out_value = *field(cpu, m, number - m->first);
    return true;
}

static bool write_any(struct x86_cpu *cpu, uint32_t number, uint64_t value)
{
    const struct msr *m;
    unsigned index;

    if (belongs_to_apic(number))
        return apic_write(cpu, number, value);
    m = find(cpu, number);
    if (!m || (value & ~m->writable))
        return false;
    index = number - m->first;
    if (m->valid && !m->valid(cpu, index, value))
        return false;
    if (!m->write)
        *field(cpu, m, index) = value;
    else if (!m->write(cpu, index, value))
        return false;
    if (m->changed)
        cpu->ops->changed(cpu, m->changed);
    return true;
}

uint64_t x86_read_msr(struct x86_cpu *cpu, uint32_t msr)
{
    uint64_t value;

    if (cpu->cpl != 0)
        x86_raise_code(cpu, X86_GP, 0);
    if (!read_any(cpu, msr, &value)) {
        log_guest("vCPU %u reads MSR 0x%x, which it does not have", cpu->vcpu->index, msr);
        x86_raise_code(cpu, X86_GP, 0);
    }
    return value;
}

void x86_write_msr(struct x86_cpu *cpu, uint32_t msr, uint64_t value)
{
    if (cpu->cpl != 0)
        x86_raise_code(cpu, X86_GP, 0);
    if (!write_any(cpu, msr, value)) {
        log_guest("vCPU %u may not write 0x%" PRIx64 " to MSR 0x%x", cpu->vcpu->index, value, msr);
        x86_raise_code(cpu, X86_GP, 0);
    }
}

bool x86_peek_msr(struct x86_cpu *cpu, uint32_t msr, uint64_t *out_value)
{
    return read_any(cpu, msr, out_value);
}
