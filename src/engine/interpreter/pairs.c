/*
 * pairs.c - two instructions in one dispatch
 *
 * Most of an interpreter's time goes into getting from one handler to the next, and into the
 * branch predictor's misses there. Frequent operations that compute no flags are joined in
 * pairs after a block was built: the first op's handler does both and goes on behind the
 * second, which stays where it is, so that positions, counts and faults are as before. A
 * store is only ever the second: it may overwrite what follows it.
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/operands.h"
#include "engine/interpreter/stack.h"

/* What each kind does; at is its op. Operands are explicit, so that two fit into one function. */
#define D(at)         (at)->dst
#define R32(o)        REG(c, o, uint32_t)
#define R64(o)        REG(c, o, uint64_t)
#define EA0(at)       (R64((at)->base) + (uint64_t)(at)->disp)
#define EA1(at)       ea_raw(c, at)

#define DO_MOV32(at)  SET_REG32(D(at), R32((at)->src))
#define DO_MOV64(at)  SET_REG64(D(at), R64((at)->src))
#define DO_MOVI32(at) SET_REG32(D(at), (uint32_t)(at)->imm)
#define DO_ADD32(at)  SET_REG32(D(at), R32(D(at)) + R32((at)->src))
#define DO_ADD64(at)  SET_REG64(D(at), R64(D(at)) + R64((at)->src))
#define DO_ADDI32(at) SET_REG32(D(at), R32(D(at)) + (uint32_t)(at)->imm)
#define DO_ADDI64(at) SET_REG64(D(at), R64(D(at)) + (uint64_t)(at)->imm)
#define DO_SUB32(at)  SET_REG32(D(at), R32(D(at)) - R32((at)->src))
#define DO_SUB64(at)  SET_REG64(D(at), R64(D(at)) - R64((at)->src))
#define DO_AND32(at)  SET_REG32(D(at), R32(D(at)) & R32((at)->src))
#define DO_AND64(at)  SET_REG64(D(at), R64(D(at)) & R64((at)->src))
#define DO_ANDI32(at) SET_REG32(D(at), R32(D(at)) & (uint32_t)(at)->imm)
#define DO_OR32(at)   SET_REG32(D(at), R32(D(at)) | R32((at)->src))
#define DO_XOR32(at)  SET_REG32(D(at), R32(D(at)) ^ R32((at)->src))
#define DO_XOR64(at)  SET_REG64(D(at), R64(D(at)) ^ R64((at)->src))
#define DO_SHL32(at)  SET_REG32(D(at), R32(D(at)) << ((at)->imm & 31))
#define DO_SHL64(at)  SET_REG64(D(at), R64(D(at)) << ((at)->imm & 63))
#define DO_SHR32(at)  SET_REG32(D(at), R32(D(at)) >> ((at)->imm & 31))
#define DO_SHR64(at)  SET_REG64(D(at), R64(D(at)) >> ((at)->imm & 63))
#define DO_ROR32(at)                                                                               \
    SET_REG32(D(at), R32(D(at)) >> ((at)->imm & 31) | R32(D(at)) << (-(at)->imm & 31))
#define DO_LEA64(at)   SET_REG64(D(at), EA0(at))
#define DO_LEAX64(at)  SET_REG64(D(at), EA1(at))
#define DO_LOAD32(at)  SET_REG32(D(at), load32(c, at, EA0(at)))
#define DO_LOAD64(at)  SET_REG64(D(at), load64(c, at, EA0(at)))
#define DO_LOADX32(at) SET_REG32(D(at), load32(c, at, EA1(at)))
#define DO_LOADX64(at) SET_REG64(D(at), load64(c, at, EA1(at)))
#define DO_STORE64(at) store64(c, at, EA0(at), R64((at)->src))
#define DO_PUSH64(at)                                                                              \
    do {                                                                                           \
        store64(c, at, *stack_pointer(c) - 8, R64((at)->src));                                     \
        *stack_pointer(c) -= 8;                                                                    \
    } while (0)
#define DO_POP64(at)                                                                               \
    do {                                                                                           \
        const uint64_t value_ = load64(c, at, *stack_pointer(c));                                  \
        *stack_pointer(c) += 8;                                                                    \
        SET_REG64(D(at), value_);                                                                  \
    } while (0)

#define PAIR(A, B)                                                                                 \
    static const struct op *op_pair_##A##_##B(struct icpu *c, const struct op *i)                  \
    {                                                                                              \
        DO_##A(i);                                                                                 \
        DO_##B(i + 1);                                                                             \
        GOTO(c, i + 2);                                                                            \
    }

#include "engine/interpreter/pairs_table.h"

void join_pairs(struct block *b, const struct op_notes *notes)
{
    for (unsigned n = 1; n + 2 < b->op_count; n++) {
        op_fn *joined = pair_table[notes[n].pair][notes[n + 1].pair];

        if (!joined || (notes[n].quiet && b->ops[n].run != notes[n].quiet) ||
            (notes[n + 1].quiet && b->ops[n + 1].run != notes[n + 1].quiet))
            continue;
        b->ops[n].run = joined;
        n++;
    }
}
