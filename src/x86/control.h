/*
 * control.h - control, debug and model-specific registers, CPUID, XSAVE
 *
 * Faults do not return (see cpu.h).
 */
#ifndef X86_CONTROL_H
#define X86_CONTROL_H

#include "x86/cpu.h"

/* MOV CRn (n = 0, 2, 3, 4, 8), with all #GP rules; CPL and #UD for other n are checked here too. */
uint64_t x86_read_cr(struct x86_cpu *cpu, unsigned n);
void x86_write_cr(struct x86_cpu *cpu, unsigned n, uint64_t value);
void x86_lmsw(struct x86_cpu *cpu, uint16_t value);
void x86_clts(struct x86_cpu *cpu);

/* MOV DRn with CR4.DE aliasing and DR7.GD (SDM vol. 3, 17.2). */
uint64_t x86_read_dr(struct x86_cpu *cpu, unsigned n);
void x86_write_dr(struct x86_cpu *cpu, unsigned n, uint64_t value);

/* RDMSR, WRMSR: #GP(0) for unknown MSRs, reserved bits, CPL. Values in and out whole. */
uint64_t x86_read_msr(struct x86_cpu *cpu, uint32_t msr);
void x86_write_msr(struct x86_cpu *cpu, uint32_t msr, uint64_t value);
/* The same without CPU side effects or faults, for debuggers; false if unknown. */
bool x86_peek_msr(struct x86_cpu *cpu, uint32_t msr, uint64_t *out_value);

/* Guest time stamp counter now: virtual nanoseconds * frequency + tsc_offset. */
uint64_t x86_read_tsc(struct x86_cpu *cpu);
uint64_t x86_tsc_hz(const struct cpu_model *model);

struct x86_cpuid {
    uint32_t eax, ebx, ecx, edx;
};
/* CPUID as the guest sees it now (OSXSAVE, XSAVE size, APIC id are dynamic). */
struct x86_cpuid x86_cpuid(struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf);

/* Values that these registers can hold; bits: width of a physical address. */
bool x86_xcr0_is_valid(uint64_t xcr0);
bool x86_pat_is_valid(uint64_t pat);
bool x86_mtrr_def_type_is_valid(uint64_t value);
bool x86_mtrr_fixed_is_valid(uint64_t value);
bool x86_mtrr_base_is_valid(uint64_t value, unsigned bits);
bool x86_mtrr_mask_is_valid(uint64_t value, unsigned bits);

/* XSAVE components (SDM vol. 1, 13.5): place in the standard format; size 0: no such component. */
struct x86_xsave_component {
    uint16_t offset, size_bytes;
};
#define X86_XSAVE_COMPONENT_COUNT 10
extern const struct x86_xsave_component x86_xsave_components[X86_XSAVE_COMPONENT_COUNT];
/* Bytes of an area that holds the components of mask. */
uint32_t x86_xsave_size(uint64_t mask, bool compacted);
/* Components that are not in their initial state (XGETBV with ECX = 1), not masked by XCR0. */
uint64_t x86_xinuse(const struct x86_cpu *cpu);

void x86_xsetbv(struct x86_cpu *cpu, uint32_t index, uint64_t value);
uint64_t x86_xgetbv(struct x86_cpu *cpu, uint32_t index);

/*
 * FXSAVE, FXRSTOR, XSAVE, XSAVEC, XSAVEOPT, XSAVES, XRSTOR, XRSTORS between s.fpu and
 * linear memory (SDM vol. 1, chapters 10.5 and 13). The engine has put the FPU into s.fpu
 * before and takes it from there afterwards (X86_CHANGED_FPU). Alignment, #NM, #UD checked here.
 * linear is the operand's linear address; wide: REX.W form.
 */
enum x86_xsave_kind { X86_XSAVE, X86_XSAVEC, X86_XSAVEOPT, X86_XSAVES };
void x86_fxsave(struct x86_cpu *cpu, uint64_t linear, bool wide);
void x86_fxrstor(struct x86_cpu *cpu, uint64_t linear, bool wide);
void x86_xsave(struct x86_cpu *cpu, uint64_t linear, bool wide, enum x86_xsave_kind kind);
void x86_xrstor(struct x86_cpu *cpu, uint64_t linear, bool wide, bool supervisor);

#endif
