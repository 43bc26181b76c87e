/*
 * state.c - the table of a processor's registers, and their values after reset
 *
 * Reset values after SDM vol. 3, table 10-1. What a stream may hold is limited twice: each
 * field by its range in the table, and combinations by after_load, so that no engine
 * ever sees a processor that could not have got there by itself (paging without protection,
 * long mode without PAE, reserved bits that the host's own units would fault on).
 * What depends on the CPU model is not known here; engines mask with the model.
 */
#include <errno.h>
#include <string.h>

#include "trapeze/x86_state.h"
#include "x86/bits.h"
#include "x86/control.h"
#include "x86/features.h"

#define RESET_PAT         0x0007040600070406ull
#define RESET_MISC_ENABLE 0x1801ull /* fast strings; no branch trace, no event sampling */
#define RESET_SMBASE      0x30000ull
#define RESET_MXCSR       0x1f80u
#define RESET_FCW         0x0040u

#define FLAGS_KNOWN       0x003f7fd7u
#define CR0_KNOWN         0xe005003fu
#define CR4_KNOWN         0x00770fffu
#define EFER_KNOWN        0x0d01u
#define ATTRIBUTES_KNOWN  0xf0ffu
#define PDPTE_RESERVED    0xfff00000000001e6ull

/* ---- reset ---- */

static const struct x86_segment reset_data = {
    .limit = 0xffff,
    .attributes = X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED,
};
static const struct x86_segment reset_code = {
    .selector = 0xf000,
    .base = 0xffff0000,
    .limit = 0xffff,
    .attributes = X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_READABLE | X86_SEG_ACCESSED,
};
static const struct x86_segment reset_ldtr = {.limit = 0xffff, .attributes = X86_SEG_P | 2};
static const struct x86_segment reset_tr = {.limit = 0xffff, .attributes = X86_SEG_P | 11};

static void reset_msrs(struct x86_msrs *msr)
{
    *msr = (struct x86_msrs){
        .pat = RESET_PAT,
        .misc_enable = RESET_MISC_ENABLE,
        .feature_control = 1, /* locked: nothing can be enabled */
        .smbase = RESET_SMBASE,
        .mcg_ctl = UINT64_MAX,
    };
}

static void reset_fpu(struct x86_fpu *fpu)
{
    memset(fpu, 0, sizeof(*fpu));
    fpu->fcw = RESET_FCW;
    fpu->ftw = 0xff; /* all hold +0.0 */
    fpu->mxcsr = RESET_MXCSR;
}

/* What power-on and INIT have in common. */
static void reset_common(struct x86_state *s)
{
    memset(s->gpr, 0, sizeof(s->gpr));
    s->gpr[X86_RDX] = CPU_MODEL_SIGNATURE;
    s->rip = 0xfff0;
    s->rflags = X86_FLAG_FIXED;
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        s->seg[i] = i == X86_CS ? reset_code : reset_data;
    s->ldtr = reset_ldtr;
    s->tr = reset_tr;
    s->gdtr = s->idtr = (struct x86_table){.limit = 0xffff};
    s->cr2 = s->cr3 = s->cr4 = 0;
    memset(s->dr, 0, sizeof(s->dr));
    s->dr6 = X86_DR6_FIXED;
    s->dr7 = X86_DR7_FIXED;
    memset(s->pdpte, 0, sizeof(s->pdpte));
    s->activity = X86_ACTIVE;
    memset(&s->pending, 0, sizeof(s->pending));
    memset(&s->smm, 0, sizeof(s->smm));
}

void x86_state_reset(struct x86_state *state, bool init)
{
    reset_common(state);
    if (init) {
        state->cr0 = X86_CR0_ET | (state->cr0 & (X86_CR0_CD | X86_CR0_NW));
        state->msr.efer = 0;
        return;
    }
    state->cr0 = X86_CR0_ET | X86_CR0_CD | X86_CR0_NW;
    state->xcr0 = X86_XCR0_X87;
    reset_msrs(&state->msr);
    reset_fpu(&state->fpu);
    state->instructions = 0;
}

/* ---- what a stream may not hold ---- */

static bool check_flags(const struct x86_state *s)
{
    bool v86_ok = (s->cr0 & X86_CR0_PE) && !(s->msr.efer & X86_EFER_LMA);

    return !(s->rflags & ~(uint64_t)FLAGS_KNOWN) && (s->rflags & X86_FLAG_FIXED) &&
           (v86_ok || !(s->rflags & X86_FLAG_VM));
}

static bool check_cr0(const struct x86_state *s)
{
    return !(s->cr0 & ~(uint64_t)CR0_KNOWN) && (s->cr0 & X86_CR0_ET) &&
           ((s->cr0 & X86_CR0_PE) || !(s->cr0 & X86_CR0_PG)) &&
           ((s->cr0 & X86_CR0_CD) || !(s->cr0 & X86_CR0_NW));
}

static bool check_efer(const struct x86_state *s)
{
    uint64_t efer = s->msr.efer;
    bool active = (efer & X86_EFER_LME) && (s->cr0 & X86_CR0_PG);

    return !(efer & ~(uint64_t)EFER_KNOWN) && active == !!(efer & X86_EFER_LMA) &&
           (!active || (s->cr4 & X86_CR4_PAE));
}

static bool check_cr3_cr4(const struct x86_state *s)
{
    return !(s->cr3 >> 52) && !(s->cr4 & ~(uint64_t)CR4_KNOWN) &&
           ((s->msr.efer & X86_EFER_LMA) || !(s->cr4 & X86_CR4_PCIDE));
}

static bool check_pdptes(const struct x86_state *s)
{
    for (unsigned i = 0; i < 4; i++)
        if ((s->pdpte[i] & 1) && (s->pdpte[i] & PDPTE_RESERVED))
            return false;
    return true;
}

static bool check_xcr0(const struct x86_state *s)
{
    return x86_xcr0_is_valid(s->xcr0) && !s->msr.xss;
}

static bool check_debug(const struct x86_state *s)
{
    return s->dr6 == ((s->dr6 & X86_DR6_WRITABLE) | X86_DR6_FIXED) &&
           s->dr7 == ((s->dr7 & X86_DR7_WRITABLE) | X86_DR7_FIXED);
}

static bool segment_is_sane(const struct x86_segment *seg)
{
    return x86_is_canonical(seg->base) && !(seg->attributes & ~ATTRIBUTES_KNOWN);
}

static bool check_segments(const struct x86_state *s)
{
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        const struct x86_segment *seg = &s->seg[i];

        if (!segment_is_sane(seg) ||
            ((seg->attributes & X86_SEG_P) && !(seg->attributes & X86_SEG_S)))
            return false;
    }
    return segment_is_sane(&s->ldtr) && segment_is_sane(&s->tr) &&
           !(s->tr.attributes & X86_SEG_S) && !(s->ldtr.attributes & X86_SEG_S) &&
           x86_is_canonical(s->gdtr.base) && x86_is_canonical(s->idtr.base);
}

/* CS and SS must agree on one privilege level (SDM vol. 3, 5.5 and 26.3.1.2). */
static bool check_code_segment(const struct x86_state *s)
{
    const uint16_t cs = s->seg[X86_CS].attributes, ss = s->seg[X86_SS].attributes;
    bool protected_mode = (s->cr0 & X86_CR0_PE) && !(s->rflags & X86_FLAG_VM);
    bool wide = (s->msr.efer & X86_EFER_LMA) && (cs & X86_SEG_L);

    if (!(cs & X86_SEG_P) || (wide && (cs & X86_SEG_DB)))
        return false;
    if (!protected_mode)
        return true;
    if ((cs & X86_SEG_CODE) && (cs & X86_SEG_CONFORMING))
        return (cs & X86_SEG_DPL) <= (ss & X86_SEG_DPL);
    return (cs & X86_SEG_DPL) == (ss & X86_SEG_DPL);
}

/* One past the last canonical address is where an instruction at the end of the low half leads. */
static bool check_rip(const struct x86_state *s)
{
    if ((s->msr.efer & X86_EFER_LMA) && (s->seg[X86_CS].attributes & X86_SEG_L))
        return x86_is_canonical(s->rip) || s->rip == 1ull << 47;
    return s->rip <= UINT32_MAX;
}

static bool check_msr_addresses(const struct x86_state *s)
{
    const struct x86_msrs *m = &s->msr;

    return x86_is_canonical(m->lstar) && x86_is_canonical(m->cstar) &&
           x86_is_canonical(m->kernel_gs_base) && x86_is_canonical(m->sysenter_esp) &&
           x86_is_canonical(m->sysenter_eip) && !(m->tsc_aux >> 32) && !(m->smbase >> 32);
}

static bool check_memory_types(const struct x86_state *s)
{
    const struct x86_msrs *m = &s->msr;

    if (!x86_pat_is_valid(m->pat) || !x86_mtrr_def_type_is_valid(m->mtrr_def_type))
        return false;
    for (unsigned i = 0; i < X86_MTRR_FIXED_COUNT; i++)
        if (!x86_mtrr_fixed_is_valid(m->mtrr_fixed[i]))
            return false;
    for (unsigned i = 0; i < X86_MTRR_VARIABLE_COUNT; i++)
        if (!x86_mtrr_base_is_valid(m->mtrr_base[i], 52) ||
            !x86_mtrr_mask_is_valid(m->mtrr_mask[i], 52))
            return false;
    return true;
}

/* What RSM brings back, and its own moment. */
static bool check_smm(const struct x86_state *s)
{
    return (s->smm.active || s->activity != X86_RESUMING) &&
           (!s->smm.shadow_is_mov_ss || s->smm.interrupt_shadow) &&
           !(s->smm.debug_traps & ~X86_DR6_WRITABLE);
}

static bool check_pending(const struct x86_state *s)
{
    const struct x86_pending *p = &s->pending;

    return (!p->exception || p->vector < 32) && (!p->shadow_is_mov_ss || p->interrupt_shadow) &&
           !(p->debug_traps & ~X86_DR6_WRITABLE) && check_smm(s);
}

/* The host's own units fault on reserved bits of MXCSR. */
static bool check_fpu(const struct x86_state *s)
{
    return !(s->fpu.mxcsr & ~X86_MXCSR_MASK);
}

static const struct {
    bool (*check)(const struct x86_state *state);
    const char *what;
} checks[] = {
    {check_flags, "RFLAGS"},
    {check_cr0, "CR0"},
    {check_efer, "EFER does not agree with CR0 and CR4"},
    {check_cr3_cr4, "CR3 or CR4"},
    {check_pdptes, "PAE page-directory pointers"},
    {check_xcr0, "XCR0 or IA32_XSS"},
    {check_debug, "DR6 or DR7"},
    {check_segments, "segment registers"},
    {check_code_segment, "CS and SS do not agree"},
    {check_rip, "RIP"},
    {check_msr_addresses, "addresses in model-specific registers"},
    {check_memory_types, "PAT or MTRRs"},
    {check_pending, "pending events"},
    {check_fpu, "MXCSR"},
};

int x86_state_check(const struct x86_state *s, struct error *err)
{
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (!checks[i].check(s))
            return error_set(err, EINVAL, "no processor can be in this state: %s", checks[i].what);
    return 0;
}

static int x86_state_after_load(void *object, struct error *err)
{
    return x86_state_check(object, err);
}

/* ---- the table ---- */

static const struct state_field segment_fields[] = {
    STATE_U64(struct x86_segment, base),
    STATE_U32(struct x86_segment, limit),
    STATE_U16(struct x86_segment, selector),
    STATE_U16(struct x86_segment, attributes),
    STATE_END,
};

static const struct state_field table_fields[] = {
    STATE_U64(struct x86_table, base),
    STATE_U16(struct x86_table, limit),
    STATE_END,
};

static const struct state_field mc_bank_fields[] = {
    STATE_U64(struct x86_mc_bank, ctl),
    STATE_U64(struct x86_mc_bank, status),
    STATE_U64(struct x86_mc_bank, addr),
    STATE_U64(struct x86_mc_bank, misc),
    STATE_END,
};

static const struct state_field msr_fields[] = {
    STATE_U64_MAX(struct x86_msrs, efer, EFER_KNOWN),
    STATE_U64(struct x86_msrs, star),
    STATE_U64(struct x86_msrs, lstar),
    STATE_U64(struct x86_msrs, cstar),
    STATE_U64(struct x86_msrs, sfmask),
    STATE_U64(struct x86_msrs, kernel_gs_base),
    STATE_U64(struct x86_msrs, sysenter_cs),
    STATE_U64(struct x86_msrs, sysenter_esp),
    STATE_U64(struct x86_msrs, sysenter_eip),
    STATE_U64(struct x86_msrs, pat),
    STATE_U64(struct x86_msrs, tsc_offset),
    STATE_U64(struct x86_msrs, tsc_adjust),
    STATE_U64_MAX(struct x86_msrs, tsc_aux, UINT32_MAX),
    STATE_U64(struct x86_msrs, misc_enable),
    STATE_U64_MAX(struct x86_msrs, spec_ctrl, 0x407),
    STATE_U64_MAX(struct x86_msrs, debugctl, 3),
    STATE_U64_MAX(struct x86_msrs, xss, 0),
    STATE_U64_MAX(struct x86_msrs, pkrs, UINT32_MAX),
    STATE_U64_MAX(struct x86_msrs, feature_control, 1),
    STATE_U64_MAX(struct x86_msrs, smbase, UINT32_MAX),
    STATE_U64(struct x86_msrs, mcg_status),
    STATE_U64(struct x86_msrs, mcg_ctl),
    STATE_STRUCTS(struct x86_msrs, mc, mc_bank_fields),
    STATE_U64(struct x86_msrs, mtrr_def_type),
    STATE_U64S(struct x86_msrs, mtrr_fixed),
    STATE_U64S(struct x86_msrs, mtrr_base),
    STATE_U64S(struct x86_msrs, mtrr_mask),
    STATE_END,
};

static const struct state_field fpu_fields[] = {
    STATE_U16(struct x86_fpu, fcw),
    STATE_U16(struct x86_fpu, fsw),
    STATE_U8(struct x86_fpu, ftw),
    STATE_U16_MAX(struct x86_fpu, fop, 0x7ff),
    STATE_U64(struct x86_fpu, fip),
    STATE_U64(struct x86_fpu, fdp),
    STATE_U16(struct x86_fpu, fcs),
    STATE_U16(struct x86_fpu, fds),
    STATE_U32_MAX(struct x86_fpu, mxcsr, X86_MXCSR_MASK),
    STATE_BYTES(struct x86_fpu, st),
    STATE_BYTES(struct x86_fpu, zmm),
    STATE_U64S(struct x86_fpu, k),
    STATE_U32(struct x86_fpu, pkru),
    STATE_END,
};

static const struct state_field pending_fields[] = {
    STATE_BOOL(struct x86_pending, interrupt_shadow),
    STATE_BOOL(struct x86_pending, shadow_is_mov_ss),
    STATE_BOOL(struct x86_pending, nmi_blocked),
    STATE_BOOL(struct x86_pending, nmi_pending),
    STATE_BOOL(struct x86_pending, nmi_again),
    STATE_BOOL(struct x86_pending, init),
    STATE_BOOL(struct x86_pending, sipi),
    STATE_BOOL(struct x86_pending, smi),
    STATE_BOOL(struct x86_pending, exception),
    STATE_U8_MAX(struct x86_pending, vector, 31),
    STATE_BOOL(struct x86_pending, has_error_code),
    STATE_U32(struct x86_pending, error_code),
    STATE_U32(struct x86_pending, debug_traps),
    STATE_U8(struct x86_pending, sipi_vector),
    STATE_END,
};

static const struct state_field smm_fields[] = {
    STATE_BOOL(struct x86_smm, active),
    STATE_BOOL(struct x86_smm, was_halted),
    STATE_BOOL(struct x86_smm, nmi_blocked),
    STATE_BOOL(struct x86_smm, interrupt_shadow),
    STATE_BOOL(struct x86_smm, shadow_is_mov_ss),
    STATE_U32(struct x86_smm, debug_traps),
    STATE_U64S(struct x86_smm, pdpte),
    STATE_END,
};

static const struct state_field x86_fields[] = {
    STATE_U64S(struct x86_state, gpr),
    STATE_U64(struct x86_state, rip),
    STATE_U64_MAX(struct x86_state, rflags, FLAGS_KNOWN),
    STATE_STRUCTS(struct x86_state, seg, segment_fields),
    STATE_STRUCT(struct x86_state, ldtr, segment_fields),
    STATE_STRUCT(struct x86_state, tr, segment_fields),
    STATE_STRUCT(struct x86_state, gdtr, table_fields),
    STATE_STRUCT(struct x86_state, idtr, table_fields),
    STATE_U64_MAX(struct x86_state, cr0, CR0_KNOWN),
    STATE_U64(struct x86_state, cr2),
    STATE_U64(struct x86_state, cr3),
    STATE_U64_MAX(struct x86_state, cr4, CR4_KNOWN),
    STATE_U64(struct x86_state, xcr0),
    STATE_U64S(struct x86_state, dr),
    STATE_U64_MAX(struct x86_state, dr6, UINT32_MAX),
    STATE_U64_MAX(struct x86_state, dr7, UINT32_MAX),
    STATE_U64S(struct x86_state, pdpte),
    STATE_U8_MAX(struct x86_state, activity, X86_ACTIVITY_COUNT - 1),
    STATE_STRUCT(struct x86_state, msr, msr_fields),
    STATE_STRUCT(struct x86_state, pending, pending_fields),
    STATE_STRUCT(struct x86_state, smm, smm_fields),
    STATE_STRUCT(struct x86_state, fpu, fpu_fields),
    STATE_U64(struct x86_state, instructions),
    STATE_END,
};

const struct state_table x86_state_table = {
    .version = 1,
    .oldest = 1,
    .fields = x86_fields,
    .after_load = x86_state_after_load,
};
