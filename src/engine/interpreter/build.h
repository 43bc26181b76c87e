/*
 * build.h - from decoded instructions to ops
 *
 * blocks.c decodes; the build_* functions, one per instruction group, each fill in the
 * op of an instruction they know. What they leave at its default is safe: an instruction may
 * fault, reads and keeps all flags, and the block goes on behind it.
 */
#ifndef ENGINE_INTERPRETER_BUILD_H
#define ENGINE_INTERPRETER_BUILD_H

#include "engine/interpreter/interpreter.h"

#define BLOCK_MAX_INSTRUCTIONS BLOCK_STEP_BUDGET

/* Operations that can share a handler with their neighbour (pairs.c). */
enum pair_kind {
    PAIR_NONE,
#define PAIR_KIND(name) PAIR_##name,
#include "engine/interpreter/pairs.def"
#undef PAIR_KIND
    PAIR_KIND_COUNT
};

/* What the passes over a block (dead flags, fusing) need to know of each op. */
struct op_notes {
    op_fn *quiet;          /* the same without computing flags; NULL: there is none */
    op_fn *const *fused;   /* by condition: does this op and the Jcc behind it */
    uint8_t condition;     /* of a Jcc; valid if is_jcc */
    uint16_t flags_killed; /* status flags that are always overwritten */
    uint16_t flags_used;
    uint8_t pair; /* enum pair_kind; of the quiet handler if there is one */
    bool is_jcc;
    bool cannot_fault;
    bool leaves; /* may leave the block here */
};

struct builder {
    struct icpu *c;
    enum x86_code_size code_size;
    bool user, real, flat, flat_data;
    unsigned page_offset; /* of the instruction being built */
    bool ends;            /* set by a group: nothing may follow in this block */
    bool not_last;        /* set by a group (STI, MOV SS): the next instruction must follow here */
    bool flush_stubs;     /* every block with host stubs must go first; then try again */
    struct op_notes *notes;
};

/* ---- operands ---- */

static inline const struct insn_operand *operand(const struct insn *insn, unsigned n)
{
    return &insn->operands[n];
}
static inline bool is_reg(const struct insn *insn, unsigned n)
{
    return n < insn->info.operand_count && insn->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER;
}
static inline bool is_mem(const struct insn *insn, unsigned n)
{
    return n < insn->info.operand_count && insn->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY;
}
static inline bool is_imm(const struct insn *insn, unsigned n)
{
    return n < insn->info.operand_count && insn->operands[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}
/* 0 for 8, 1 for 16, 2 for 32, 3 for 64 bits. */
static inline unsigned size_index(unsigned bits)
{
    return bits == 8 ? 0 : bits == 16 ? 1 : bits == 32 ? 2 : 3;
}
static inline bool has_lock(const struct insn *insn)
{
    return insn->info.attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

/* Offset in struct icpu of a general register (AH-BH included); of zero for none. */
uint16_t reg_offset(ZydisRegister reg);
/* Fill in the memory operand: base, index, scale, disp, seg, ea. */
void build_memory(struct builder *w, const struct insn *insn, const struct insn_operand *mem,
                  struct op *op);
/* The first explicit memory operand, filled in; false if there is none. */
bool build_memory_any(struct builder *w, const struct insn *insn, struct op *op);

/* 0: flat with base only, 1: flat with index, 2: everything else. Index of handler tables. */
static inline unsigned ea_index(const struct op *op)
{
    return op->ea == EA_BASE ? 0 : op->ea == EA_INDEX ? 1 : 2;
}

/* ---- instruction groups: true if the instruction was one of theirs ---- */

typedef bool build_fn(struct builder *w, const struct insn *insn, struct op *op);
build_fn build_alu;    /* alu.c: ADD ... CMP, TEST, INC, DEC, NEG, NOT, XADD, CMPXCHG */
build_fn build_move;   /* move.c: MOV, MOVZX, LEA, XCHG, CMOVcc, SETcc, BSWAP, ... */
build_fn build_stack;  /* stack.c: PUSH, POP, PUSHF, ENTER, LEAVE, PUSHA */
build_fn build_branch; /* branch.c: Jcc, JMP, CALL, RET, LOOP, far transfers, INT, SYSCALL */
build_fn build_shift;  /* shift.c: shifts, rotates, SHLD, BMI2 shifts */
build_fn build_muldiv; /* muldiv.c */
build_fn build_bits;   /* bits.c: BT.., BSF.., BMI, CRC32, ADX, decimal adjust */
build_fn build_string; /* string.c: MOVS, STOS, CMPS, SCAS, LODS, INS, OUTS, IN, OUT */
build_fn build_system; /* system.c: flags, control registers, MSRs, segments, HLT, ... */

/* The pass that joins pairs; after dead flags were dropped and branches fused. */
void join_pairs(struct block *b, const struct op_notes *notes);

/* #UD, always. */
void build_undefined(struct builder *w, struct op *op);

#endif
