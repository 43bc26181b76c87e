/*
 * move.c - MOV, MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, CBW and friends, XLAT, MOVNTI
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/operands.h"

#include <sched.h>

#include "trapeze/machine.h"
#include "x86/features.h"

/* ---- MOV ---- */

#define MOV_EA(B, E)                                                                               \
    static const struct op *op_load##B##_##E(struct icpu *c, const struct op *i)                   \
    {                                                                                              \
        SET_REG##B(i->dst, load##B(c, i, EA_##E(B / 8, X86_ACCESS_READ)));                         \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_store##B##_##E(struct icpu *c, const struct op *i)                  \
    {                                                                                              \
        store##B(c, i, EA_##E(B / 8, X86_ACCESS_WRITE), REG(c, i->src, uint##B##_t));              \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_storei##B##_##E(struct icpu *c, const struct op *i)                 \
    {                                                                                              \
        store##B(c, i, EA_##E(B / 8, X86_ACCESS_WRITE), (uint##B##_t)i->imm);                      \
        NEXT(c, i);                                                                                \
    }
#define MOV(B)                                                                                     \
    MOV_EA(B, 0)                                                                                   \
    MOV_EA(B, 1)                                                                                   \
    MOV_EA(B, 2) static const struct op *op_mov_rr##B(struct icpu *c, const struct op *i)          \
    {                                                                                              \
        SET_REG##B(i->dst, REG(c, i->src, uint##B##_t));                                           \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_mov_ri##B(struct icpu *c, const struct op *i)                       \
    {                                                                                              \
        SET_REG##B(i->dst, (uint##B##_t)i->imm);                                                   \
        NEXT(c, i);                                                                                \
    }
MOV(8)
MOV(16)
MOV(32)
MOV(64)

#define ROW_EA(name)                                                                               \
    {                                                                                              \
        BY_EA(name##8), BY_EA(name##16), BY_EA(name##32), BY_EA(name##64)                          \
    }
static op_fn *const loads[4][3] = ROW_EA(op_load), *const stores[4][3] = ROW_EA(op_store),
                    *const storeis[4][3] = ROW_EA(op_storei);
static op_fn *const mov_rr[4] = BY_SIZE(op_mov_rr), *const mov_ri[4] = BY_SIZE(op_mov_ri);

static const uint8_t load_pairs[2][3] = {{PAIR_LOAD32, PAIR_LOADX32, PAIR_NONE},
                                         {PAIR_LOAD64, PAIR_LOADX64, PAIR_NONE}};

static bool build_mov(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned size = size_index(operand(insn, 0)->size);

    build_memory_any(w, insn, op);
    if (is_reg(insn, 0))
        op->dst = reg_offset(operand(insn, 0)->reg.value);
    if (is_reg(insn, 1))
        op->src = reg_offset(operand(insn, 1)->reg.value);
    if (is_imm(insn, 1))
        op->imm = (int64_t)operand(insn, 1)->imm.value.u;
    w->notes->flags_used = 0;
    if (is_mem(insn, 0)) {
        op->run = is_imm(insn, 1) ? storeis[size][ea_index(op)] : stores[size][ea_index(op)];
        if (op->run == op_store64_0)
            w->notes->pair = PAIR_STORE64;
    } else if (is_mem(insn, 1)) {
        op->run = loads[size][ea_index(op)];
        if (size >= 2)
            w->notes->pair = load_pairs[size - 2][ea_index(op)];
    } else {
        op->run = is_imm(insn, 1) ? mov_ri[size] : mov_rr[size];
        w->notes->cannot_fault = true;
        if (size >= 2)
            w->notes->pair = is_imm(insn, 1) ? (size == 2 ? PAIR_MOVI32 : PAIR_NONE)
                                             : (size == 2 ? PAIR_MOV32 : PAIR_MOV64);
    }
    return true;
}

/* ---- MOVZX, MOVSX, MOVSXD ---- */

/* name: z or s; FROM, TO in bits; T is the type that extends as wanted. */
#define EXTEND(name, T, FROM, TO)                                                                  \
    static const struct op *op_mov##name##_rr_##FROM##_##TO(struct icpu *c, const struct op *i)    \
    {                                                                                              \
        SET_REG##TO(i->dst, (uint##TO##_t)(T)REG(c, i->src, uint##FROM##_t));                      \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    EXTEND_M(name, T, FROM, TO, 0) EXTEND_M(name, T, FROM, TO, 1) EXTEND_M(name, T, FROM, TO, 2)
#define EXTEND_M(name, T, FROM, TO, E)                                                             \
    static const struct op *op_mov##name##_rm_##FROM##_##TO##_##E(struct icpu *c,                  \
                                                                  const struct op *i)              \
    {                                                                                              \
        SET_REG##TO(i->dst, (uint##TO##_t)(T)load##FROM(c, i, EA_##E(FROM / 8, X86_ACCESS_READ))); \
        NEXT(c, i);                                                                                \
    }
#define EXTEND_ROW(name, FROM, TO)                                                                 \
    {                                                                                              \
        op_mov##name##_rr_##FROM##_##TO, BY_EA(op_mov##name##_rm_##FROM##_##TO)                    \
    }

struct extend_row {
    op_fn *rr, *rm[3];
};
EXTEND(z, uint8_t, 8, 16)
EXTEND(z, uint8_t, 8, 32)
EXTEND(z, uint8_t, 8, 64)
EXTEND(z, uint16_t, 16, 16)
EXTEND(z, uint16_t, 16, 32)
EXTEND(z, uint16_t, 16, 64)
EXTEND(s, int8_t, 8, 16)
EXTEND(s, int8_t, 8, 32)
EXTEND(s, int8_t, 8, 64)
EXTEND(s, int16_t, 16, 16)
EXTEND(s, int16_t, 16, 32)
EXTEND(s, int16_t, 16, 64)
EXTEND(s, int32_t, 32, 32)
EXTEND(s, int32_t, 32, 64)
EXTEND(s, int32_t, 32, 16)

static const struct extend_row zero_extend[3][4] = {
    {{0}, EXTEND_ROW(z, 8, 16), EXTEND_ROW(z, 8, 32), EXTEND_ROW(z, 8, 64)},
    {{0}, EXTEND_ROW(z, 16, 16), EXTEND_ROW(z, 16, 32), EXTEND_ROW(z, 16, 64)},
};
static const struct extend_row sign_extend[3][4] = {
    {{0}, EXTEND_ROW(s, 8, 16), EXTEND_ROW(s, 8, 32), EXTEND_ROW(s, 8, 64)},
    {{0}, EXTEND_ROW(s, 16, 16), EXTEND_ROW(s, 16, 32), EXTEND_ROW(s, 16, 64)},
    {{0}, EXTEND_ROW(s, 32, 16), EXTEND_ROW(s, 32, 32), EXTEND_ROW(s, 32, 64)},
};

static bool build_extend(struct builder *w, const struct insn *insn, struct op *op,
                         const struct extend_row table[3][4])
{
    const struct extend_row *row =
        &table[size_index(operand(insn, 1)->size)][size_index(operand(insn, 0)->size)];

    build_memory_any(w, insn, op);
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    w->notes->flags_used = 0;
    if (is_mem(insn, 1)) {
        op->run = row->rm[ea_index(op)];
        return op->run != NULL;
    }
    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->run = row->rr;
    w->notes->cannot_fault = true;
    return op->run != NULL;
}

/* ---- LEA ---- */

static const struct op *op_lea64_0(struct icpu *c, const struct op *i)
{
    REG(c, i->dst, uint64_t) = REG(c, i->base, uint64_t) + (uint64_t)i->disp;
    NEXT(c, i);
}
static const struct op *op_lea64_1(struct icpu *c, const struct op *i)
{
    REG(c, i->dst, uint64_t) = ea_raw(c, i);
    NEXT(c, i);
}
static const struct op *op_lea32(struct icpu *c, const struct op *i)
{
    SET_REG32(i->dst, ea_raw(c, i));
    NEXT(c, i);
}
/* Address or operand size of 16 bits, or 32-bit addresses to a 64-bit register. */
static const struct op *op_lea_any(struct icpu *c, const struct op *i)
{
    uint64_t address = ea_raw(c, i);

    if (i->address_size == 2)
        address = (uint16_t)address;
    else if (i->address_size == 4)
        address = (uint32_t)address;
    reg_set(c, i->dst, address, i->extra & 15);
    NEXT(c, i);
}

static bool build_lea(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned size = operand(insn, 0)->size / 8;

    build_memory(w, insn, operand(insn, 1), op);
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->extra = (uint8_t)size;
    w->notes->flags_used = 0;
    w->notes->cannot_fault = true;
    if (size == 4 && op->address_size >= 4)
        op->run = op_lea32;
    else if (size != 8 || op->address_size != 8)
        op->run = op_lea_any;
    else
        op->run = op->index == offsetof(struct icpu, zero) ? op_lea64_0 : op_lea64_1;
    if (op->run == op_lea64_0 || op->run == op_lea64_1)
        w->notes->pair = op->run == op_lea64_0 ? PAIR_LEA64 : PAIR_LEAX64;
    return true;
}

/* ---- XCHG ---- */

#define XCHG(B)                                                                                    \
    static const struct op *op_xchg_rr##B(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        const uint##B##_t a = REG(c, i->dst, uint##B##_t);                                         \
        SET_REG##B(i->dst, REG(c, i->src, uint##B##_t));                                           \
        SET_REG##B(i->src, a);                                                                     \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_xchg_mr##B(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        const uint64_t linear = ea(c, i, B / 8, X86_ACCESS_WRITE);                                 \
        void *p = rmw_pointer(c, linear, B / 8);                                                   \
        const uint##B##_t value = REG(c, i->src, uint##B##_t);                                     \
        uint##B##_t old;                                                                           \
        if (likely(p))                                                                             \
            old = ram_atomic_exchange##B(p, value);                                                \
        else                                                                                       \
            do                                                                                     \
                old = (uint##B##_t)interp_load_for_write(c, i, linear, B / 8);                     \
            while (!interp_compare_exchange(c, i, linear, old, value, B / 8));                     \
        SET_REG##B(i->src, old);                                                                   \
        NEXT(c, i);                                                                                \
    }
XCHG(8)
XCHG(16)
XCHG(32)
XCHG(64)
static op_fn *const xchg_rr[4] = BY_SIZE(op_xchg_rr), *const xchg_mr[4] = BY_SIZE(op_xchg_mr);

static bool build_xchg(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned size = size_index(operand(insn, 0)->size);
    unsigned mem = is_mem(insn, 1) ? 1 : 0;

    build_memory_any(w, insn, op);
    w->notes->flags_used = 0;
    if (is_mem(insn, mem)) {
        op->src = reg_offset(operand(insn, 1 - mem)->reg.value);
        op->run = xchg_mr[size];
        return true;
    }
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->run = xchg_rr[size];
    w->notes->cannot_fault = true;
    return true;
}

static bool build_xchg_r8(struct builder *w, const struct insn *insn, struct op *op)
{
    bool word = insn->info.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE;

    op->dst = REG_OFFSET(X86_R8);
    op->src = REG_OFFSET(X86_RAX);
    op->run = xchg_rr[insn->info.raw.rex.W ? 3 : word ? 1 : 2];
    w->notes->flags_used = 0;
    w->notes->cannot_fault = true;
    return true;
}

/* ---- CMOVcc, SETcc ---- */

/* One handler per condition, so that condition() folds to a single test. */
#define PER_CONDITION(M)                                                                           \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define CONDITION_TABLE(name)                                                                      \
    {                                                                                              \
        name##0, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9,  \
            name##10, name##11, name##12, name##13, name##14, name##15                             \
    }

/* The source is read and a 32-bit destination zero-extended whatever the condition. */
#define CMOV(cc)                                                                                   \
    static const struct op *op_cmov32_##cc(struct icpu *c, const struct op *i)                     \
    {                                                                                              \
        SET_REG32(i->dst, condition(c, cc) ? REG(c, i->src, uint32_t) : REG(c, i->dst, uint32_t)); \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_cmov64_##cc(struct icpu *c, const struct op *i)                     \
    {                                                                                              \
        if (condition(c, cc))                                                                      \
            REG(c, i->dst, uint64_t) = REG(c, i->src, uint64_t);                                   \
        NEXT(c, i);                                                                                \
    }                                                                                              \
    static const struct op *op_setcc_r_##cc(struct icpu *c, const struct op *i)                    \
    {                                                                                              \
        REG(c, i->dst, uint8_t) = condition(c, cc);                                                \
        NEXT(c, i);                                                                                \
    }
PER_CONDITION(CMOV)
static op_fn *const cmov32[16] = CONDITION_TABLE(op_cmov32_),
                    *const cmov64[16] = CONDITION_TABLE(op_cmov64_),
                    *const setcc_r[16] = CONDITION_TABLE(op_setcc_r_);

static const struct op *op_cmov_any(struct icpu *c, const struct op *i)
{
    unsigned bytes = (unsigned)i->imm >> 8;
    uint64_t value = i->extra & 1 ? load_sized(c, i, ea(c, i, bytes, X86_ACCESS_READ), bytes)
                                  : reg_get(c, i->src, bytes);

    if (condition(c, (unsigned)i->imm & 15))
        reg_set(c, i->dst, value, bytes);
    else if (bytes == 4)
        SET_REG32(i->dst, REG(c, i->dst, uint32_t));
    NEXT(c, i);
}

static const struct op *op_setcc_m(struct icpu *c, const struct op *i)
{
    store8(c, i, ea(c, i, 1, X86_ACCESS_WRITE), condition(c, (unsigned)i->imm));
    NEXT(c, i);
}

static bool build_cmov(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned bytes = operand(insn, 0)->size / 8, cc = insn->info.opcode & 15;

    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->imm = cc | bytes << 8;
    if (build_memory_any(w, insn, op)) {
        op->run = op_cmov_any;
        op->extra = 1;
        return true;
    }
    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->run = bytes == 8 ? cmov64[cc] : bytes == 4 ? cmov32[cc] : op_cmov_any;
    w->notes->cannot_fault = true;
    return true;
}

static bool build_setcc(struct builder *w, const struct insn *insn, struct op *op)
{
    op->imm = insn->info.opcode & 15;
    if (build_memory_any(w, insn, op)) {
        op->run = op_setcc_m;
        return true;
    }
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->run = setcc_r[op->imm];
    w->notes->cannot_fault = true;
    return true;
}

/* ---- the rest ---- */

static const struct op *op_bswap32(struct icpu *c, const struct op *i)
{
    SET_REG32(i->dst, __builtin_bswap32(REG(c, i->dst, uint32_t)));
    NEXT(c, i);
}
static const struct op *op_bswap64(struct icpu *c, const struct op *i)
{
    REG(c, i->dst, uint64_t) = __builtin_bswap64(REG(c, i->dst, uint64_t));
    NEXT(c, i);
}
/* BSWAP of a 16-bit register is undefined; processors clear it. */
static const struct op *op_bswap16(struct icpu *c, const struct op *i)
{
    SET_REG16(i->dst, 0);
    NEXT(c, i);
}

static uint64_t swap_bytes(uint64_t value, unsigned bytes)
{
    return __builtin_bswap64(value) >> (64 - 8 * bytes);
}
static const struct op *op_movbe_load(struct icpu *c, const struct op *i)
{
    unsigned bytes = i->extra & 15;

    reg_set(c, i->dst, swap_bytes(load_sized(c, i, ea(c, i, bytes, X86_ACCESS_READ), bytes), bytes),
            bytes);
    NEXT(c, i);
}
static const struct op *op_movbe_store(struct icpu *c, const struct op *i)
{
    unsigned bytes = i->extra & 15;

    store_sized(c, i, ea(c, i, bytes, X86_ACCESS_WRITE),
                swap_bytes(reg_get(c, i->src, bytes), bytes), bytes);
    NEXT(c, i);
}

static const struct op *op_cbw(struct icpu *c, const struct op *i)
{
    SET_REG16(REG_OFFSET(X86_RAX), (int8_t)c->cpu.s.gpr[X86_RAX]);
    NEXT(c, i);
}
static const struct op *op_cwde(struct icpu *c, const struct op *i)
{
    SET_REG32(REG_OFFSET(X86_RAX), (int16_t)c->cpu.s.gpr[X86_RAX]);
    NEXT(c, i);
}
static const struct op *op_cdqe(struct icpu *c, const struct op *i)
{
    c->cpu.s.gpr[X86_RAX] = (uint64_t)(int32_t)c->cpu.s.gpr[X86_RAX];
    NEXT(c, i);
}
static const struct op *op_cwd(struct icpu *c, const struct op *i)
{
    SET_REG16(REG_OFFSET(X86_RDX), (int16_t)c->cpu.s.gpr[X86_RAX] >> 15);
    NEXT(c, i);
}
static const struct op *op_cdq(struct icpu *c, const struct op *i)
{
    SET_REG32(REG_OFFSET(X86_RDX), (int32_t)c->cpu.s.gpr[X86_RAX] >> 31);
    NEXT(c, i);
}
static const struct op *op_cqo(struct icpu *c, const struct op *i)
{
    c->cpu.s.gpr[X86_RDX] = (uint64_t)((int64_t)c->cpu.s.gpr[X86_RAX] >> 63);
    NEXT(c, i);
}

/* The base is rBX; AL is added without sign (build_move drops it as an index). */
static const struct op *op_xlat(struct icpu *c, const struct op *i)
{
    uint64_t offset = ea_raw(c, i) + (uint8_t)c->cpu.s.gpr[X86_RAX];

    SET_REG8(REG_OFFSET(X86_RAX), load8(c, i, interp_ea_offset(c, i, offset, 1, X86_ACCESS_READ)));
    NEXT(c, i);
}

/* A vCPU that spins may be waiting for one that the host does not run meanwhile. */
static const struct op *op_pause(struct icpu *c, const struct op *i)
{
    if (c->pauses_left) {
        c->pauses_left--;
    } else {
        c->pauses_left = PAUSES_TO_YIELD;
        sched_yield();
    }
    NEXT(c, i);
}

static const struct op *op_nop(struct icpu *c, const struct op *i)
{
    NEXT(c, i);
}

static bool build_simple(struct builder *w, struct op *op, op_fn *run)
{
    op->run = run;
    w->notes->cannot_fault = true;
    w->notes->flags_used = 0;
    return true;
}

static bool build_movbe(struct builder *w, const struct insn *insn, struct op *op)
{
    if (!cpu_model_has(w->c->cpu.model, X86_FEATURE_MOVBE))
        return false;
    build_memory_any(w, insn, op);
    op->extra = (uint8_t)(operand(insn, 0)->size / 8);
    op->dst = reg_offset(operand(insn, 0)->reg.value);
    op->src = reg_offset(operand(insn, 1)->reg.value);
    op->run = is_mem(insn, 1) ? op_movbe_load : op_movbe_store;
    return true;
}

static bool build_bswap(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned bits = operand(insn, 0)->size;

    op->dst = reg_offset(operand(insn, 0)->reg.value);
    return build_simple(w, op, bits == 64 ? op_bswap64 : bits == 32 ? op_bswap32 : op_bswap16);
}

static bool is_general(const struct insn *insn, unsigned n)
{
    return !is_reg(insn, n) ||
           reg_offset(operand(insn, n)->reg.value) != offsetof(struct icpu, zero);
}

bool build_move(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        /* Segment, control and debug registers are system.c's. */
        return is_general(insn, 0) && is_general(insn, 1) && build_mov(w, insn, op);
    case ZYDIS_MNEMONIC_MOVNTI:
        return build_mov(w, insn, op);
    case ZYDIS_MNEMONIC_MOVZX:
        return build_extend(w, insn, op, zero_extend);
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        return build_extend(w, insn, op, sign_extend);
    case ZYDIS_MNEMONIC_LEA:
        return build_lea(w, insn, op);
    case ZYDIS_MNEMONIC_XCHG:
        return build_xchg(w, insn, op);
    case ZYDIS_MNEMONIC_BSWAP:
        return build_bswap(w, insn, op);
    case ZYDIS_MNEMONIC_MOVBE:
        return build_movbe(w, insn, op);
    case ZYDIS_MNEMONIC_CBW:
        return build_simple(w, op, op_cbw);
    case ZYDIS_MNEMONIC_CWDE:
        return build_simple(w, op, op_cwde);
    case ZYDIS_MNEMONIC_CDQE:
        return build_simple(w, op, op_cdqe);
    case ZYDIS_MNEMONIC_CWD:
        return build_simple(w, op, op_cwd);
    case ZYDIS_MNEMONIC_CDQ:
        return build_simple(w, op, op_cdq);
    case ZYDIS_MNEMONIC_CQO:
        return build_simple(w, op, op_cqo);
    case ZYDIS_MNEMONIC_XLAT:
        build_memory(w, insn, operand(insn, is_mem(insn, 0) ? 0 : 1), op); /* implicit */
        op->index = offsetof(struct icpu, zero);
        op->run = op_xlat;
        return true;
    case ZYDIS_MNEMONIC_PAUSE:
        /* With REX.B the F3 prefix means nothing: XCHG r8, rAX (the decoder overlooks that). */
        if (insn->info.raw.rex.B)
            return build_xchg_r8(w, insn, op);
        return build_simple(w, op,
                            machine_vcpu_count(w->c->interpreter->machine) > 1 ? op_pause : op_nop);
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
        return build_simple(w, op, op_nop);
    default:
        break;
    }
    if (insn->info.meta.category == ZYDIS_CATEGORY_CMOV)
        return build_cmov(w, insn, op);
    if (insn->info.meta.category == ZYDIS_CATEGORY_SETCC)
        return build_setcc(w, insn, op);
    return false;
}
