/*
 * x86_state.h - the canonical state of one x86 processor
 *
 * The only register format that snapshots, the debugger and other engines
 * see. An engine may keep registers elsewhere while it runs, but get_state and
 * set_state speak this. Values are architectural: no lazy flags, no host pointers.
 */
#ifndef TRAPEZE_X86_STATE_H
#define TRAPEZE_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/state.h"

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15,
    X86_GPR_COUNT
};

/* Encoding order of the segment registers (SDM vol. 2, table B-8). */
enum x86_segment_index { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGMENT_COUNT };

/*
 * attributes as in bits 40-55 of a descriptor: type 0-3, S 4, DPL 5-6, P 7,
 * (limit bits 8-11 zero), AVL 12, L 13, D/B 14, G 15. limit is in bytes, already scaled.
 * A null selector that cannot be used has P clear.
 */
struct x86_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attributes;
};

#define X86_SEG_TYPE       0x000fu
#define X86_SEG_ACCESSED   0x0001u
#define X86_SEG_WRITABLE   0x0002u /* data */
#define X86_SEG_READABLE   0x0002u /* code */
#define X86_SEG_DOWN       0x0004u /* data: expand down */
#define X86_SEG_CONFORMING 0x0004u /* code */
#define X86_SEG_CODE       0x0008u
#define X86_SEG_S          0x0010u /* code or data, not a system segment */
#define X86_SEG_DPL_SHIFT  5
#define X86_SEG_DPL        0x0060u
#define X86_SEG_P          0x0080u
#define X86_SEG_AVL        0x1000u
#define X86_SEG_L          0x2000u
#define X86_SEG_DB         0x4000u
#define X86_SEG_G          0x8000u

struct x86_table {
    uint64_t base;
    uint16_t limit;
};

enum x86_activity {
    X86_ACTIVE,
    X86_HALTED,
    X86_WAIT_FOR_SIPI,
    X86_SHUTDOWN, /* triple fault; the machine resets or stops */
    X86_RESUMING, /* RSM: the machine loads what the SMI interrupted */
    X86_ACTIVITY_COUNT
};

#define X86_MTRR_VARIABLE_COUNT 8
#define X86_MTRR_FIXED_COUNT    11

/* Machine-check banks: IA32_MCi_CTL, STATUS, ADDR, MISC. */
#define X86_MC_BANK_COUNT       4
struct x86_mc_bank {
    uint64_t ctl, status, addr, misc;
};

struct x86_msrs {
    uint64_t efer;
    uint64_t star, lstar, cstar, sfmask;
    uint64_t kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat;
    uint64_t tsc_offset; /* guest TSC = scaled virtual time + tsc_offset (TSC_ADJUST included) */
    uint64_t tsc_adjust;
    uint64_t tsc_aux;
    uint64_t misc_enable;
    uint64_t spec_ctrl;
    uint64_t debugctl;
    uint64_t xss;
    uint64_t
        pkrs; /* protection keys of supervisor pages; those of user pages are in the FPU state */
    uint64_t feature_control;
    uint64_t smbase;
    uint64_t mcg_status, mcg_ctl;
    struct x86_mc_bank mc[X86_MC_BANK_COUNT];
    uint64_t mtrr_def_type;
    uint64_t mtrr_fixed[X86_MTRR_FIXED_COUNT];
    uint64_t mtrr_base[X86_MTRR_VARIABLE_COUNT], mtrr_mask[X86_MTRR_VARIABLE_COUNT];
};

/* x87, SSE, AVX, AVX-512 and PKRU. st[i] is ST(i) relative to TOP, 80 bits each. */
struct x86_fpu {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged as in FXSAVE: bit i set = physical register i is not empty */
    uint16_t fop;
    uint64_t fip, fdp;
    uint16_t fcs, fds;
    uint32_t mxcsr;
    uint8_t st[8][16];
    uint8_t zmm[32][64] __attribute__((aligned(64)));
    uint64_t k[8];
    uint32_t pkru;
};

/* What is on its way into the processor at an instruction boundary. */
struct x86_pending {
    bool interrupt_shadow; /* after STI or MOV SS: the next instruction runs first */
    bool shadow_is_mov_ss; /* then debug traps are held back as well */
    bool nmi_blocked;      /* until IRET */
    bool nmi_pending;
    /* These are vcpu->events while the vCPU runs (vcpu_events_to_state). */
    bool nmi_again; /* a second one, while NMIs are not blocked */
    bool init, sipi, smi;
    bool exception; /* an exception is recognised but not delivered */
    uint8_t vector;
    bool has_error_code;
    uint32_t error_code;
    uint32_t debug_traps; /* DR6 bits of data breakpoints and single step not yet delivered */
    uint8_t sipi_vector;
};

/* System Management Mode, and what its RSM brings back beside the area in memory (x86/smm.h). */
struct x86_smm {
    uint64_t pdpte[4];
    uint32_t debug_traps;
    bool active;
    bool was_halted;
    bool nmi_blocked;
    bool interrupt_shadow, shadow_is_mov_ss;
};

struct x86_state {
    uint64_t gpr[X86_GPR_COUNT];
    uint64_t rip;
    uint64_t rflags;
    struct x86_segment seg[X86_SEGMENT_COUNT];
    struct x86_segment ldtr, tr;
    struct x86_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t
        pdpte[4];     /* PAE: loaded by MOV CR3, not from memory at each walk (SDM vol. 3, 4.4.1) */
    uint8_t activity; /* enum x86_activity */
    struct x86_msrs msr;
    struct x86_pending pending;
    struct x86_smm smm;
    struct x86_fpu fpu;
    uint64_t instructions; /* retired since power-on; exact in counted mode */
};

/* CR8 and IA32_APIC_BASE belong to the local APIC and are in its state. */
extern const struct state_table x86_state_table;

/*
 * Power-on (init false) or INIT (true: keeps the MSRs except EFER, the FPU, XCR0, CR0.CD/NW and the
 * count of instructions). SDM vol. 3, table 10-1. The activity is X86_ACTIVE: for a
 * processor that is not the first one the caller makes it X86_WAIT_FOR_SIPI.
 */
void x86_state_reset(struct x86_state *state, bool init);

/* -EINVAL with err, which says what: no processor can be in this state. */
int x86_state_check(const struct x86_state *state, struct error *err);

#endif
