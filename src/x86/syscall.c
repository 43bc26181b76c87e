/*
 * syscall.c - SYSCALL, SYSRET, SYSENTER, SYSEXIT
 *
 * As Intel's processors do them (SDM vol. 2): SYSCALL and SYSRET exist in 64-bit mode
 * only, SYSENTER in every protected mode, and SYSRET to a non-canonical address faults at
 * CPL 0. Flat segments come from constants, not from the descriptor tables.
 */
#include "x86/descriptor.h"
#include "x86/segments.h"

#define FLAT_LIMIT   0xffffffffu
#define SYSRET_FLAGS 0x3c7fd7u /* bits of R11 that SYSRET loads */

static void set_flat_segments(struct x86_cpu *cpu, uint16_t cs, uint16_t ss, unsigned dpl,
                              bool wide)
{
    const uint16_t common =
        (uint16_t)(X86_SEG_P | X86_SEG_S | X86_SEG_G | X86_SEG_ACCESSED | dpl << X86_SEG_DPL_SHIFT);

    cpu->s.seg[X86_CS] = (struct x86_segment){
        .limit = FLAT_LIMIT,
        .selector = cs,
        .attributes = common | X86_SEG_CODE | X86_SEG_READABLE | (wide ? X86_SEG_L : X86_SEG_DB),
    };
    cpu->s.seg[X86_SS] = (struct x86_segment){
        .limit = FLAT_LIMIT,
        .selector = ss,
        .attributes = common | X86_SEG_WRITABLE | X86_SEG_DB,
    };
    cpu->cpl = (uint8_t)dpl;
}

static void need_syscall(struct x86_cpu *cpu)
{
    if (!x86_in_64bit_mode(cpu) || !(cpu->s.msr.efer & X86_EFER_SCE))
        x86_raise(cpu, X86_UD);
}

void x86_syscall(struct x86_cpu *cpu, uint64_t next_rip)
{
    struct x86_state *s = &cpu->s;
    uint16_t selector = (uint16_t)(s->msr.star >> 32);

    need_syscall(cpu);
    s->gpr[X86_RCX] = next_rip;
    s->gpr[X86_R11] = s->rflags & ~(uint64_t)X86_FLAG_RF;
    s->rflags = (s->gpr[X86_R11] & ~(s->msr.sfmask & 0xffffffffu)) | X86_FLAG_FIXED;
    s->rip = s->msr.lstar;
    set_flat_segments(cpu, selector & 0xfffcu, (uint16_t)(selector + 8), 0, true);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);
}

void x86_sysret(struct x86_cpu *cpu, unsigned operand_size)
{
    struct x86_state *s = &cpu->s;
    uint16_t selector = (uint16_t)(s->msr.star >> 48);
    bool wide = operand_size == 8;
    uint64_t rip = wide ? s->gpr[X86_RCX] : (uint32_t)s->gpr[X86_RCX];

    need_syscall(cpu);
    if (cpu->cpl != 0 || !x86_is_canonical(rip))
        x86_raise_code(cpu, X86_GP, 0);
    s->rip = rip;
    s->rflags = (s->gpr[X86_R11] & SYSRET_FLAGS) | X86_FLAG_FIXED;
    set_flat_segments(cpu, (uint16_t)(selector + (wide ? 16 : 0)) | 3u,
                      (uint16_t)(selector + 8) | 3u, 3, wide);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);
}

void x86_sysenter(struct x86_cpu *cpu)
{
    struct x86_state *s = &cpu->s;
    uint16_t selector = (uint16_t)s->msr.sysenter_cs & 0xfffcu;
    bool wide = x86_in_long_mode(cpu);

    if (!x86_in_protected_mode(cpu) || selector == 0)
        x86_raise_code(cpu, X86_GP, 0);
    s->rflags &= ~(uint64_t)(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
    s->gpr[X86_RSP] = wide ? s->msr.sysenter_esp : (uint32_t)s->msr.sysenter_esp;
    s->rip = wide ? s->msr.sysenter_eip : (uint32_t)s->msr.sysenter_eip;
    set_flat_segments(cpu, selector, (uint16_t)(selector + 8), 0, wide);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS);
}

void x86_sysexit(struct x86_cpu *cpu, unsigned operand_size)
{
    struct x86_state *s = &cpu->s;
    uint16_t selector = (uint16_t)s->msr.sysenter_cs & 0xfffcu;
    bool wide = operand_size == 8;
    uint64_t rsp = s->gpr[X86_RCX], rip = s->gpr[X86_RDX];

    if (!x86_in_protected_mode(cpu) || selector == 0 || cpu->cpl != 0)
        x86_raise_code(cpu, X86_GP, 0);
    if (wide && (!x86_is_canonical(rsp) || !x86_is_canonical(rip)))
        x86_raise_code(cpu, X86_GP, 0);
    selector = (uint16_t)(s->msr.sysenter_cs + (wide ? 32 : 16)) | 3u;
    s->gpr[X86_RSP] = wide ? rsp : (uint32_t)rsp;
    s->rip = wide ? rip : (uint32_t)rip;
    set_flat_segments(cpu, selector, (uint16_t)(selector + 8), 3, wide);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS);
}
