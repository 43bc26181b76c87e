/*
 * interpreter.h - what the parts of the interpreter share
 *
 * Theory of operation. Guest code is decoded once into blocks: arrays of struct op,
 * each with a pointer to the function that executes it. A block ends at a branch,
 * at the end of the page, or at an instruction that may change how code is fetched.
 * Blocks are private to a vCPU, keyed by guest-physical address and code mode, and
 * dropped when the page's generation changes (blocks.c).
 *
 * Handlers are direct-threaded: each ends in NEXT(c, i), a tail call of the next
 * op's handler. Without optimisation, or under a sanitizer, NEXT returns the next
 * op to a small loop instead; the handlers are the same source either way.
 *
 * RIP is not kept up to date: an op knows its offset in the page, and
 * c->page_rip is the RIP of the page's first byte. cpu.s.rip is computed when
 * somebody needs it (interp_sync). Arithmetic flags are lazy (flags.h).
 *
 * Faults: memory helpers and interp_raise() do not return; they longjmp to the run
 * loop. So a handler does everything that can fault before it changes state.
 */
#ifndef ENGINE_INTERPRETER_INTERPRETER_H
#define ENGINE_INTERPRETER_INTERPRETER_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <string.h>

#include "host/host.h"
#include "trapeze/engine.h"
#include "x86/cpu.h"
#include "x86/decode.h"
#include "x86/paging.h"

struct block;
struct icpu;
struct interpreter;
struct op;

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Executes one op; returns the op to go on with, or NULL to return to the run loop. */
typedef const struct op *op_fn(struct icpu *c, const struct op *i);

/* How an op's effective address is computed. */
enum ea_kind {
    EA_BASE,    /* 64-bit flat: [base + disp] */
    EA_INDEX,   /* 64-bit flat: [base + index << scale + disp] */
    EA_SEGMENT, /* 64-bit with FS or GS base, or 32-bit addressing in 64-bit mode */
    EA_LIMITED, /* 16- and 32-bit code: base and limit of the segment, wrap-around */
    EA_KIND_COUNT,
};

/*
 * One decoded instruction. Register operands are byte offsets into struct icpu,
 * so that AH is RAX's offset + 1 and "no register" is the offset of zero.
 */
struct op {
    op_fn *run;
    union {
        int64_t imm;
        const void *aux; /* handler-specific data (host stubs) */
    };
    const struct op *link; /* branches: first op of the target block, once known */
    int64_t disp;
    uint16_t dst, src;     /* register operands */
    uint16_t base, index;  /* of the memory operand */
    uint16_t page_offset;  /* of the instruction's first byte */
    uint8_t length;        /* bytes */
    uint8_t scale;         /* 0-3: shift of the index */
    uint8_t seg;           /* enum x86_segment_index of the memory operand */
    uint8_t ea;            /* enum ea_kind */
    uint8_t address_size;  /* 2, 4 or 8 bytes */
    uint8_t extra;         /* handler-specific */
};

/* Software TLB: one entry per hashed page and privilege kind. */
struct tlb_entry {
    uint64_t read;    /* page's linear address if readable without asking, else TLB_NEVER of its slot */
    uint64_t write;
    uintptr_t addend; /* host address - linear address */
    uint64_t gpa;     /* page's guest-physical address; low bits: TLB_GLOBAL */
};

#define TLB_BITS 10
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_GLOBAL 1u

/* Which privilege an access has; each has its own TLB. */
enum tlb_kind { TLB_KERNEL, TLB_USER, TLB_KERNEL_SMAP_OPEN, TLB_SLOW, TLB_KIND_COUNT };

enum cc_kind {
    CC_RFLAGS, /* the status flags are in s.rflags */
    CC_ADD,    /* ADD, ADC: from cc_result, cc_a, cc_b */
    CC_SUB,    /* SUB, SBB, CMP, NEG */
    CC_LOGIC,  /* AND, OR, XOR, TEST: CF = OF = AF = 0 */
    CC_INC,    /* as ADD with b = 1, but CF is in cc_carry */
    CC_DEC,
    CC_SHIFT,  /* ZF SF PF from cc_result, CF and OF as bits in cc_a, AF = 0 */
};

struct icpu {
    struct x86_cpu cpu; /* first; cpu.s.gpr at offset 0 */

    uint64_t zero; /* the register of a missing base or index: always 0 */

    /* Lazy flags; operands and result sign-extended to 64 bits from the operand size. */
    uint64_t cc_result, cc_a, cc_b;
    uint32_t cc_kind, cc_carry;

    /* Where we are: RIP and linear address of the first byte of the current code page. */
    uint64_t page_rip, page_linear;
    const struct block *block;

    struct tlb_entry *tlb; /* of the current privilege: tlbs[tlb_kind] */
    uint64_t budget;       /* instructions that may still be retired in this run() */
    uint64_t budget_start;
    _Atomic uint32_t attention; /* something to look at before the next block */

    const struct op *insn; /* the op that is executing, for whoever has to find RIP */
    jmp_buf unwind;        /* faults longjmp here */

    struct interpreter *interpreter;
    struct vcpu *vcpu;
    struct host_stubs *stubs; /* host_stub.c */
    uint8_t *stub_buffer;     /* 64-byte aligned operand buffer of host stubs, 128 bytes */
    bool x87_loaded;          /* the guest's x87 state is in the host's FPU (host_stub.c) */
    uint64_t vector_index;    /* element of VSIB's index: the op's index register (vector_memory.c) */
    uint8_t fpu_blocked;      /* classes of instructions that cannot just run (host_stub.h) */
    uint8_t vector_bytes;     /* width of the vector registers of this CPU model: 16, 32 or 64 */

    enum x86_code_size code_size;
    enum tlb_kind tlb_kind;
    unsigned mode_key; /* what, besides the address, decides how bytes decode */
    struct block_cache *blocks;
    struct tlb_entry tlbs[TLB_KIND_COUNT][TLB_SIZE];
};

#define REG_OFFSET(n) ((uint16_t)(offsetof(struct icpu, cpu.s.gpr) + 8u * (n)))
#define REG(c, offset, type) (*(type *)((char *)(c) + (offset)))

static inline struct icpu *icpu_of(struct x86_cpu *cpu)
{
    return (struct icpu *)cpu;
}

/* ---- threading ---- */

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(INTERPRETER_NO_TAIL_CALLS)
#define INTERPRETER_TAIL_CALLS
#define GOTO(c, next)                     \
    do {                                  \
        const struct op *next_ = (next);  \
        return next_->run((c), next_);    \
    } while (0)
#else
#define GOTO(c, next) return (next)
#endif
#define NEXT(c, i) GOTO(c, (i) + 1)

/* ---- faults ---- */

/* Bring s.rip to op i and s.rflags up to date: for everything in x86/ that looks at them. */
void interp_sync(struct icpu *c, const struct op *i);
/* Raise a fault of op i. */
noreturn void interp_raise(struct icpu *c, const struct op *i, uint8_t vector);
noreturn void interp_raise_code(struct icpu *c, const struct op *i, uint8_t vector, uint32_t code);

/* RIP of op i and of the instruction after it. */
static inline uint64_t op_rip(const struct icpu *c, const struct op *i)
{
    return c->page_rip + i->page_offset;
}

/* ---- memory (memory.c) ---- */

/* Linear address of op i's memory operand of size bytes; checks segment limits and rights. */
uint64_t interp_ea_limited(struct icpu *c, const struct op *i, unsigned size, unsigned access);

static inline uint64_t ea_raw(const struct icpu *c, const struct op *i)
{
    return REG(c, i->base, const uint64_t) + (REG(c, i->index, const uint64_t) << i->scale) +
           (uint64_t)i->disp;
}

/* access is X86_ACCESS_READ or _WRITE. Non-canonical addresses fault when they are used. */
static inline uint64_t ea(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    switch ((enum ea_kind)i->ea) {
    case EA_BASE:
        return REG(c, i->base, uint64_t) + (uint64_t)i->disp;
    case EA_INDEX:
        return ea_raw(c, i);
    default:
        return interp_ea_limited(c, i, size, access);
    }
}

static inline struct tlb_entry *tlb_slot(struct icpu *c, uint64_t linear)
{
    return &c->tlb[(linear >> 12) & (TLB_SIZE - 1)];
}

/* Miss, page crossing, MMIO, watchpoint, alignment check. Values are zero-extended. */
uint64_t interp_load_slow(struct icpu *c, const struct op *i, uint64_t linear, unsigned size);
void interp_store_slow(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                       unsigned size);

#define DEFINE_LOAD_STORE(bits)                                                                 \
    static inline uint##bits##_t load##bits(struct icpu *c, const struct op *i, uint64_t linear) \
    {                                                                                           \
        const struct tlb_entry *e = tlb_slot(c, linear);                                        \
        if (likely((linear ^ e->read) <= 0x1000u - bits / 8)) {                                 \
            uint##bits##_t value;                                                               \
            memcpy(&value, (const void *)(linear + e->addend), sizeof(value));                  \
            return value;                                                                       \
        }                                                                                       \
        return (uint##bits##_t)interp_load_slow(c, i, linear, bits / 8);                        \
    }                                                                                           \
    static inline void store##bits(struct icpu *c, const struct op *i, uint64_t linear,         \
                                   uint##bits##_t value)                                        \
    {                                                                                           \
        const struct tlb_entry *e = tlb_slot(c, linear);                                        \
        if (likely((linear ^ e->write) <= 0x1000u - bits / 8))                                  \
            memcpy((void *)(linear + e->addend), &value, sizeof(value));                        \
        else                                                                                    \
            interp_store_slow(c, i, linear, value, bits / 8);                                   \
    }
DEFINE_LOAD_STORE(8)
DEFINE_LOAD_STORE(16)
DEFINE_LOAD_STORE(32)
DEFINE_LOAD_STORE(64)

/*
 * Any number of bytes (operands of SIMD instructions, XSAVE areas). A store that
 * would fault anywhere faults before the first byte is written.
 */
void interp_load_bytes(struct icpu *c, const struct op *i, uint64_t linear, void *out, size_t size);
void interp_store_bytes(struct icpu *c, const struct op *i, uint64_t linear, const void *data,
                        size_t size);
/* Raise what a write would raise. */
void interp_probe_write(struct icpu *c, const struct op *i, uint64_t linear, size_t size);

/* ---- flags (flags.c) ---- */

/* Compute the status flags into s.rflags and set CC_RFLAGS. */
void flags_materialize(struct icpu *c);

/* ---- host stubs (host_stub.c): x87, MMX, SSE, AVX, AVX-512, AES, SHA, ... ---- */

/* Sets c->stubs, c->stub_buffer and the rest of what is private to stubs; c->cpu.model is set. */
int host_stubs_new(struct icpu *c, struct error *err);
void host_stubs_free(struct icpu *c); /* a half-built c is fine */
/*
 * Complete op (run, aux, ...) for a SIMD or x87 instruction. The caller has filled in the memory
 * operand (base, index, scale, disp, seg, ea), page_offset and length. Returns false if the
 * instruction is not one that stubs execute (or not in the CPU model): the caller makes it #UD.
 * *out_flush is set when the stub area was full and had to be emptied: every
 * decoded block with stubs must be dropped.
 */
bool host_stub_build(struct icpu *c, const struct insn *insn, struct op *op, bool *out_flush);
/* X86_CHANGED_FPU: CR0, CR4, XCR0 or s.fpu may have changed. Calls nothing that faults. */
void host_stub_refresh(struct icpu *c);
/* run() begins and ends: guest MXCSR in the host's register in between; x87 moved lazily. */
void host_fpu_enter(struct icpu *c);
void host_fpu_leave(struct icpu *c);
/*
 * Before and after code in x86/ (XSAVE, FXRSTOR, get_state) that works on s.fpu. to_state leaves
 * s.fpu complete; from_state is needed only if s.fpu was changed. Both also work outside run().
 */
void host_fpu_to_state(struct icpu *c);
void host_fpu_from_state(struct icpu *c);

#endif
