/*
 * host_stub.h - what the files that execute x87, MMX, SSE and AVX share
 *
 * Theory of operation. The guest's vector instruction is executed by the host's own:
 * a stub is a few host instructions that load the registers the guest's
 * instruction reads from struct icpu, the guest's instruction itself with its memory operand
 * rewritten to [rdx] (or [rcx]) and its general register to rax, and stores of what it writes.
 * A stub ends by jumping to the next op's handler, so a stub without memory operand is
 * a handler itself; for one with a memory operand a handler in C finds the operand in host memory
 * (or copies it to c->stub_buffer) and then jumps to the stub.
 *
 * Whether an instruction may run at all (CR0.TS, CR4.OSFXSR, XCR0, ...) is one test of
 * c->fpu_blocked against the classes that the stub needs. A set bit only says that
 * host_stub_blocked() has to look: it raises what is to be raised, loads the x87 registers, or runs
 * the stub with floating-point exceptions unmasked.
 *
 * An exception that a stub's instruction raises on the host (an unmasked SIMD exception, or an
 * encoding that this host refuses) comes back as host_stub_trap() with the same c and i.
 */
#ifndef ENGINE_INTERPRETER_HOST_STUB_H
#define ENGINE_INTERPRETER_HOST_STUB_H

#include "engine/interpreter/interpreter.h"
#include "x86/features.h"

/* Classes of instructions; the bits of c->fpu_blocked and of what a stub needs. */
enum fpu_class {
    FPU_X87 = 1u << 0,    /* x87 and MMX: CR0.EM, CR0.TS, state loaded, exceptions masked */
    FPU_SSE = 1u << 1,    /* legacy SSE: CR0.EM, CR0.TS, CR4.OSFXSR */
    FPU_SSE_FP = 1u << 2, /* the same, and SIMD floating-point exceptions are masked */
    FPU_AVX = 1u << 3,    /* VEX: CR0.TS, CR4.OSXSAVE, XCR0 */
    FPU_AVX_FP = 1u << 4,
    FPU_AVX512 = 1u << 5, /* EVEX and opmask: more of XCR0 */
    FPU_AVX512_FP = 1u << 6,
};
#define FPU_ALL      0x7fu
#define FPU_ALL_SIMD (FPU_ALL & ~FPU_X87)

/* Executes and goes on behind i. memory: the operand in host memory. */
typedef const struct op *stub_fn(struct icpu *c, const struct op *i, void *memory);

enum operand_mask { MASK_NONE, MASK_K, MASK_VECTOR, MASK_COMPRESSED };

#define STUB_NO_GPR 0xffu

/*
 * Everything that decides what a stub's code is and how its operand is treated. Compared
 * and hashed as bytes, so it is built from all zeroes.
 */
struct stub_plan {
    uint32_t vector_read, vector_write; /* bit n: vector register n */
    uint8_t bytes[X86_MAX_INSN_BYTES];  /* the rewritten instruction */
    uint8_t length;
    uint8_t k_read, k_write;         /* bit n: opmask n */
    bool legacy;                     /* SSE encoding: the upper part of registers stays */
    uint8_t load_bytes, store_bytes; /* of a vector register: 16, 32 or 64 */
    uint8_t gpr;                     /* guest register that rax stands for, or STUB_NO_GPR */
    bool gpr_read, gpr_write;
    uint8_t implicit_read, implicit_write; /* bit n: RAX, RCX or RDX as such */
    bool implicit_word;                    /* only AX is written */
    bool flags_read, flags_write;

    uint8_t needs;      /* enum fpu_class */
    bool is_mmx;        /* CR0.EM means #UD */
    bool no_wait;       /* x87: runs although an exception is pending */
    bool sets_pointers; /* x87: FIP, FOP, FDP remember this instruction */
    uint16_t fop;

    uint8_t memory_bytes; /* 0: no memory operand */
    bool is_store;
    uint8_t align_mask; /* address bits that must be clear, else #GP(0) */
    uint8_t mask;       /* enum operand_mask: which elements are accessed */
    bool faults_whole;  /* a store that faults for elements that it does not write, too */
    uint8_t mask_register;
    uint8_t element_bytes;
    uint8_t mask_count; /* bits of the mask that matter; element n belongs to bits n + k * count of
                           elements */
};

struct host_stub {
    stub_fn *body;          /* behind the check; also for stubs with memory operand */
    op_fn *entry;           /* NULL if there is a memory operand */
    struct host_stub *next; /* in the hash chain */
    struct stub_plan plan;
};

#define STUB_HASH_SIZE  4096u
#define STUB_MAX        16384u
#define STUB_AREA_BYTES (3u << 20)

struct host_stubs {
    struct host_code code;
    size_t used_bytes;
    struct host_stub *stubs; /* STUB_MAX of them */
    unsigned count;
    struct host_stub *hash[STUB_HASH_SIZE];

    bool in_run; /* between host_fpu_enter and host_fpu_leave */
    uint32_t host_mxcsr;
    const struct op *slow;   /* the op for which return_ops runs a body */
    struct op return_ops[2]; /* a body that is run "for" the first one returns to C */
};

/* ---- host_stub_isa.c ---- */

/*
 * Which classes (enum fpu_class) an instruction needs, and whether its state and rules
 * are those of MMX. false: not an x87 or vector instruction, or the model does not have it.
 */
bool host_stub_isa(const struct cpu_model *model, const struct insn *insn, uint8_t *out_needs,
                   bool *out_is_mmx);

/* ---- host_stub_plan.c ---- */

/* What the rewritten instruction and the transfers are. false: not one that stubs can execute. */
bool host_stub_plan(const struct icpu *c, const struct insn *insn, struct stub_plan *plan);
/* Do VEX.W and EVEX.W choose the width of a general register or of its memory form, so that they
 * count for nothing outside 64-bit mode? */
bool host_stub_w_is_width(const struct insn *insn);
/* Must a memory operand of this size be aligned to its size, else #GP(0)? */
bool host_stub_needs_alignment(const struct insn *insn, unsigned bytes);

/* ---- host_stub_emit.c ---- */

#define STUB_CODE_MAX 512u /* more than any plan needs */
/* Write the machine code of a plan; returns its size, at most STUB_CODE_MAX. */
size_t host_stub_emit(const struct stub_plan *plan, uint8_t *write, size_t *out_body_offset);

/* ---- host_stub_run.c ---- */

/* Set run, aux and the rest of an op that executes a stub. */
void host_stub_fill_op(const struct host_stub *stub, struct op *op);
/* The op's class is blocked: raises, or executes the op in another way. i->aux is a stub. */
const struct op *host_stub_blocked(struct icpu *c, const struct op *i);
/* Run the body of op i's stub on memory and come back; with the guest's SIMD exceptions unmasked.
 */
void host_stub_call(struct icpu *c, const struct op *i, void *memory);
/* Raise #GP(0) or #AC for a misaligned operand of op i's stub. */
void host_stub_check_alignment(struct icpu *c, const struct op *i, uint64_t linear);
/* Where a host exception in a stub's instruction goes on. */
noreturn void host_stub_trap(void *cpu, void *op, enum host_trap trap);
/* Raise #UD or #NM if the classes in needs are not enabled; may leave bits in c->fpu_blocked set.
 */
void host_stub_check(struct icpu *c, const struct op *i, uint8_t needs, bool is_mmx);

/* ---- fpu.c: x87 and MXCSR state, control instructions ---- */

#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_VALID 0xffffu
#define FCW_MASKS   0x3fu

/* Instructions written in C; false if insn is not one of them. */
bool fpu_build(struct icpu *c, const struct insn *insn, struct op *op);
/* Put the guest's x87 registers into the host's. */
void fpu_load_x87(struct icpu *c);
/* Raise #MF if an unmasked x87 exception is pending. x87 is loaded. */
void fpu_check_pending(struct icpu *c, const struct op *i);
/* Did the x87 instruction that just ran leave its destination in memory alone? */
bool fpu_store_suppressed(const struct icpu *c);
/* Remember op i as the last x87 instruction with a memory operand at linear. */
static inline void fpu_set_data_pointer(struct icpu *c, const struct op *i, uint64_t linear)
{
    const struct x86_segment *seg = &c->cpu.s.seg[i->seg];

    c->cpu.s.fpu.fdp = linear;
    if (c->code_size != X86_CODE_64 || i->seg >= X86_FS)
        c->cpu.s.fpu.fdp -= seg->base;
    c->cpu.s.fpu.fds = seg->selector;
}
/* The guest's MXCSR with its own masks, or with all exceptions masked, in the host's register. */
void fpu_unmask_mxcsr(struct icpu *c);
void fpu_mask_mxcsr(struct icpu *c);

/* ---- vector_moves.c: plain loads and stores without a stub ---- */

bool vector_move_build(struct icpu *c, const struct insn *insn, struct op *op);

/* ---- vector_memory.c: gathers, scatters, byte-masked stores, masked operands ---- */

bool vector_memory_build(struct icpu *c, const struct insn *insn, struct op *op);
/* The memory operand of a masked instruction where not all of it may be accessed. */
const struct op *vector_masked_operand(struct icpu *c, const struct op *i, uint64_t linear);

/* Index of handler tables: flat with base only, flat with index, everything else. */
static inline unsigned host_stub_ea(const struct op *op)
{
    return op->ea == EA_BASE ? 0 : op->ea == EA_INDEX ? 1 : 2;
}

/* Number of a vector or opmask register, or -1. */
static inline int vector_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_XMM31)
        return reg - ZYDIS_REGISTER_XMM0;
    if (reg >= ZYDIS_REGISTER_YMM0 && reg <= ZYDIS_REGISTER_YMM31)
        return reg - ZYDIS_REGISTER_YMM0;
    if (reg >= ZYDIS_REGISTER_ZMM0 && reg <= ZYDIS_REGISTER_ZMM31)
        return reg - ZYDIS_REGISTER_ZMM0;
    return -1;
}
static inline int mask_number(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_K0 && reg <= ZYDIS_REGISTER_K7 ? (int)(reg - ZYDIS_REGISTER_K0)
                                                                : -1;
}

#define ZMM_OFFSET(n) ((uint16_t)(offsetof(struct icpu, cpu.s.fpu.zmm) + 64u * (n)))

#endif
