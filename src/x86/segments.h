/*
 * segments.h - descriptors, far transfers, privilege changes, task switch
 *
 * Semantics of the instructions that load segments or change privilege, for all
 * modes (real, V86, protected, compatibility, 64-bit). Faults do not return. Far transfers
 * do the whole instruction except decoding: on return s.rip is the next instruction's;
 * after IRET, SYSRET and task switches RFLAGS.RF is what that instruction shall see. next_rip is
 * where execution would go on without the transfer. The others (loads, LLDT, LTR, LAR, LSL, VERR,
 * VERW, ports) leave s.rip alone.
 * operand_size is 2, 4 or 8 bytes. Debug traps that a transfer causes (the T bit of a TSS) are
 * left in s.pending.debug_traps.
 */
#ifndef X86_SEGMENTS_H
#define X86_SEGMENTS_H

#include "x86/cpu.h"

/* MOV/POP to ES, SS, DS, FS, GS, and LDS & co. (SDM vol. 3, 5.4, 3.4; vol. 2 MOV). Not CS. */
void x86_load_segment(struct x86_cpu *cpu, enum x86_segment_index seg, uint16_t selector);

/* next_rip: what a task switch saves as the old task's EIP. */
void x86_far_jump(struct x86_cpu *cpu, uint16_t selector, uint64_t offset, unsigned operand_size,
                  uint64_t next_rip);
void x86_far_call(struct x86_cpu *cpu, uint16_t selector, uint64_t offset, unsigned operand_size,
                  uint64_t next_rip);
void x86_far_return(struct x86_cpu *cpu, unsigned operand_size, uint16_t pop_bytes);
void x86_iret(struct x86_cpu *cpu, unsigned operand_size, uint64_t next_rip);

void x86_syscall(struct x86_cpu *cpu, uint64_t next_rip);
void x86_sysret(struct x86_cpu *cpu, unsigned operand_size); /* 8 with REX.W, else 4 */
void x86_sysenter(struct x86_cpu *cpu);
void x86_sysexit(struct x86_cpu *cpu, unsigned operand_size);

void x86_lldt(struct x86_cpu *cpu, uint16_t selector);
void x86_ltr(struct x86_cpu *cpu, uint16_t selector);
/*
 * Set or clear ZF in s.rflags; *out_value (32 bits, the caller truncates) is only written when ZF
 * is set. #UD in real and virtual-8086 mode, as LLDT and LTR.
 */
bool x86_lar(struct x86_cpu *cpu, uint16_t selector, uint32_t *out_value);
bool x86_lsl(struct x86_cpu *cpu, uint16_t selector, uint32_t *out_value);
bool x86_verify(struct x86_cpu *cpu, uint16_t selector, bool write);

enum x86_task_cause { X86_TASK_JUMP, X86_TASK_CALL, X86_TASK_IRET, X86_TASK_EVENT };
/*
 * Hardware task switch (SDM vol. 3, chapter 7), 32- and 16-bit TSS. The DPL of the TSS
 * or task gate has been checked. next_rip is saved in the old TSS; event_error (may be NULL) is
 * pushed on the new task's stack. A fault after the commit point finds the new task's registers.
 */
void x86_task_switch(struct x86_cpu *cpu, uint16_t tss_selector, enum x86_task_cause cause,
                     uint64_t next_rip, const uint32_t *event_error);

/*
 * I/O permission: CPL <= IOPL or the TSS bitmap (SDM vol. 1, 19.5). Raises #GP(0) when
 * refused; returns when allowed.
 */
void x86_check_port(struct x86_cpu *cpu, uint16_t port, unsigned size_bytes);

/* Refresh cpu->cpl from CR0.PE, RFLAGS.VM and SS.DPL. */
void x86_refresh_cpl(struct x86_cpu *cpu);

#endif
