/*
 * cpu.h - one processor as the shared x86 code sees it
 *
 * segments.c, exceptions.c, control.c and the rest work on struct x86_cpu: the
 * canonical registers plus the few things only an engine can do (reach linear
 * memory through its TLB, unwind to its run loop, refresh its caches). Engines
 * embed it as the first member of their own CPU structure.
 *
 * Conventions. All functions run on the vCPU's thread without the machine lock.
 * Before a call the engine has put rip (of the current instruction), rflags and
 * the segments into s; afterwards it takes them from there. A function that
 * raises an exception does not return: it ends in x86_raise(), which unwinds
 * to the engine with the registers as they were, so every function reads and checks
 * first and changes state last.
 */
#ifndef X86_CPU_H
#define X86_CPU_H

#include <stdbool.h>
#include <stdint.h>
#include <stdnoreturn.h>

#include "trapeze/engine.h"
#include "trapeze/x86_state.h"
#include "x86/bits.h"

struct x86_cpu;
struct x86_walk_memory;
struct cpu_model;

enum x86_vector {
    X86_DE = 0,
    X86_DB = 1,
    X86_NMI = 2,
    X86_BP = 3,
    X86_OF = 4,
    X86_BR = 5,
    X86_UD = 6,
    X86_NM = 7,
    X86_DF = 8,
    X86_TS = 10,
    X86_NP = 11,
    X86_SS_FAULT = 12,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC = 17,
    X86_MC = 18,
    X86_XM = 19,
};

/* Access to linear memory: kind, and with which privilege. */
enum x86_access {
    X86_ACCESS_READ = 0,
    X86_ACCESS_WRITE = 1,
    X86_ACCESS_EXECUTE = 2,
    X86_ACCESS_KIND = 3,
    /* As CPL 0 whatever CPL is: descriptor tables, TSS, stack of a more privileged level. */
    X86_ACCESS_SUPERVISOR = 4,
};

enum x86_changed {
    X86_CHANGED_CR3 = 1 << 0,      /* drop non-global translations (of this PCID) */
    X86_CHANGED_PAGING = 1 << 1,   /* CR0.PG/WP, CR4 or EFER bits: drop all translations */
    X86_CHANGED_CODE = 1 << 2,     /* CS, CPL, mode or RIP changed other than by falling through */
    X86_CHANGED_SEGMENTS = 1 << 3, /* a data segment, SS included */
    X86_CHANGED_FLAGS = 1 << 4,    /* s.rflags was written */
    X86_CHANGED_DEBUG = 1 << 5,    /* DR0-DR3 or DR7 */
    X86_CHANGED_KEEP = 1 << 7, /* with CR3: bit 63 was set, translations of the new PCID may stay */
    X86_CHANGED_FPU = 1 << 6,  /* CR0.TS/EM/MP, CR4.OSFXSR/OSXSAVE, XCR0 or s.fpu was written */
};

struct x86_cpu_ops {
    /* size is 1, 2, 4 or 8; may cross a page; raises #PF, #GP/#SS for non-canonical is the
     * caller's. */
    uint64_t (*read)(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access);
    void (*write)(struct x86_cpu *cpu, uint64_t linear, uint64_t value, unsigned size,
                  unsigned access);
    /* Raise what a write of size_bytes would raise, and write nothing. */
    void (*probe_write)(struct x86_cpu *cpu, uint64_t linear, unsigned size_bytes, unsigned access);
    /*
     * Atomically OR bits into the byte at linear; returns the byte as it was. Raises what a write
     * raises. NULL: a read and a write are good enough (one processor).
     */
    uint8_t (*set_bits)(struct x86_cpu *cpu, uint64_t linear, uint8_t bits, unsigned access);
    /*
     * Host memory of linear's page (its first byte), if accesses of this kind need nothing but
     * that; else NULL. Good until the instruction ends. NULL: there never is.
     */
    uint8_t *(*page)(struct x86_cpu *cpu, uint64_t linear, unsigned access);
    /* Unwind to the engine, which will deliver the exception with x86_deliver(). */
    void (*raise)(struct x86_cpu *cpu) __attribute__((__noreturn__));
    /*
     * Caches that depend on these must be refreshed before the next read, write or instruction
     * (a task switch changes CR3 and CPL and goes on reading). Called after s was changed.
     */
    void (*changed)(struct x86_cpu *cpu, unsigned what);
    /* INVLPG, INVPCID: gva, or all of a PCID, or everything. */
    void (*flush_page)(struct x86_cpu *cpu, uint64_t linear);
};

/* What is being delivered through the IDT. */
struct x86_event {
    uint8_t vector;
    enum x86_event_kind {
        X86_EVENT_EXTERNAL, /* maskable interrupt */
        X86_EVENT_NMI,
        X86_EVENT_EXCEPTION, /* fault or trap of an instruction */
        X86_EVENT_SOFTWARE,  /* INT n: DPL of the gate is checked */
        X86_EVENT_INT3,      /* INT3, INTO: DPL is checked, EXT is 0 */
        X86_EVENT_INT1,      /* ICEBP */
    } kind;
    bool has_error_code;
    uint32_t error_code;
    uint64_t
        return_rip; /* what is pushed: this instruction for faults, the next for traps and INT n */
};

struct x86_cpu {
    struct x86_state s; /* first, so that handlers reach registers at small offsets */

    struct vcpu *vcpu;
    const struct cpu_model *model;
    const struct x86_cpu_ops *ops;
    const struct x86_walk_memory *walk_memory; /* page tables in guest-physical memory (paging.h) */

    uint8_t cpl; /* current privilege level; equals SS.DPL in protected mode, 3 in V86, 0 in real */
    struct x86_event event; /* filled in by x86_raise() before ops->raise */
    bool delivering;        /* inside x86_deliver: a fault now combines with first */
    struct x86_event first;
};

/* ---- exceptions.c ---- */

/*
 * Raise a fault of the current instruction (return_rip = s.rip). Does not return.
 * The variants with an error code push it; for #PF set s.cr2 first.
 */
noreturn void x86_raise(struct x86_cpu *cpu, uint8_t vector);
noreturn void x86_raise_code(struct x86_cpu *cpu, uint8_t vector, uint32_t error_code);

/*
 * Deliver an event through the IVT or IDT: gate, privilege and stack checks, IST,
 * interrupt and trap gates, task gates, virtual-8086 and VME redirection, real mode
 * (SDM vol. 3, chapter 6; vol. 1, 20.1). A fault during delivery makes a double
 * fault by the rules of table 6-5, a fault while delivering that one X86_SHUTDOWN
 * in s.activity. Needs ops->raise only internally: it returns when the
 * handler's first instruction is next. Reports X86_CHANGED_*.
 *
 * The image of RFLAGS that is saved has RF set for faults other than #DB; an engine that
 * interrupts a repeated string instruction sets it in s.rflags before. Delivering an NMI sets
 * s.pending.nmi_blocked; leaving HLT and the interrupt shadow are the engine's.
 *
 * Nesting: a fault raised by a memory access inside delivery unwinds to the engine,
 * which calls x86_deliver again with the new event. cpu->delivering is still set then,
 * and cpu->first holds the event that was being delivered: x86_deliver combines the two.
 */
void x86_deliver(struct x86_cpu *cpu, const struct x86_event *event);

/* True in protected mode with EFER.LMA and CS.L; compatibility mode is not included. */
static inline bool x86_in_64bit_mode(const struct x86_cpu *cpu)
{
    return (cpu->s.msr.efer & X86_EFER_LMA) && (cpu->s.seg[X86_CS].attributes & X86_SEG_L);
}
static inline bool x86_in_long_mode(const struct x86_cpu *cpu)
{
    return cpu->s.msr.efer & X86_EFER_LMA;
}
static inline bool x86_in_protected_mode(const struct x86_cpu *cpu)
{
    return cpu->s.cr0 & X86_CR0_PE;
}
static inline bool x86_in_v86_mode(const struct x86_cpu *cpu)
{
    return x86_in_protected_mode(cpu) && (cpu->s.rflags & X86_FLAG_VM);
}
static inline bool x86_is_canonical(uint64_t gva)
{
    return (uint64_t)((int64_t)(gva << 16) >> 16) == gva; /* 48-bit linear addresses */
}

#endif
