/*
 * emit_x86_64.h - write x86-64 host instructions
 *
 * Code is written through one view of the code cache and runs in another; addresses in it are those
 * of the execute view. A register number is the one of its encoding, 0-15. Nothing here checks
 * for room: the caller keeps enough for the largest block.
 */
#ifndef ENGINE_TRANSLATOR_EMIT_X86_64_H
#define ENGINE_TRANSLATOR_EMIT_X86_64_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum host_reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/*
 * Each vCPU runs the code in a view of its own, which is as far from the first vCPU's as the vCPU
 * is from that one. So what is RIP-relative leads to the vCPU that runs. Where RIP cannot be the
 * base, GS has that distance as its base.
 */
struct emit {
    uint8_t *at;        /* in the write view */
    intptr_t execute;   /* the first vCPU's execute view - write view */
    bool is_shared;     /* by several vCPUs */
    uintptr_t distance; /* of the vCPU whose fields are named from the first one */
};

/* A memory operand: [base + index << scale + disp], or a field of the vCPU, which RIP reaches. */
#define NO_REG (-1)
struct host_mem {
    int base, index;
    unsigned scale;
    int32_t disp;
    const void *field;        /* or NULL */
    bool by_gs;               /* base, index and disp lead to something of the vCPU's */
    unsigned immediate_bytes; /* that follow in the same instruction */
};

static inline struct host_mem mem_field(const void *address)
{
    return (struct host_mem){.field = address};
}
static inline struct host_mem mem_base(int base, int32_t disp)
{
    return (struct host_mem){.base = base, .index = NO_REG, .disp = disp};
}
static inline struct host_mem mem_index(int base, int index, unsigned scale, int32_t disp)
{
    return (struct host_mem){.base = base, .index = index, .scale = scale, .disp = disp};
}

/* Something of the vCPU's, to which vcpu_address() is a part of the way. */
static inline struct host_mem mem_by_gs(int base, int index, unsigned scale, int32_t disp)
{
    struct host_mem m = mem_index(base, index, scale, disp);

    m.by_gs = true;
    return m;
}
static inline int32_t vcpu_address(const struct emit *e, const void *address)
{
    uintptr_t first = (uintptr_t)address - e->distance;

    assert(first <= INT32_MAX);
    return (int32_t)first;
}

static inline void put8(struct emit *e, unsigned byte)
{
    *e->at++ = (uint8_t)byte;
}
static inline void put32(struct emit *e, uint32_t value)
{
    memcpy(e->at, &value, 4);
    e->at += 4;
}
static inline void put64(struct emit *e, uint64_t value)
{
    memcpy(e->at, &value, 8);
    e->at += 8;
}
static inline void put_bytes(struct emit *e, const void *bytes, size_t size)
{
    memcpy(e->at, bytes, size);
    e->at += size;
}
static inline const uint8_t *emit_address(const struct emit *e)
{
    return e->at + e->execute;
}

/* ModRM, SIB and displacement. */
static inline void put_modrm_mem(struct emit *e, unsigned reg, const struct host_mem *m)
{
    unsigned r = (reg & 7) << 3, mod;

    if (m->field) {
        intptr_t end, disp;

        put8(e, r | 5);
        end = (intptr_t)emit_address(e) + 4 + m->immediate_bytes;
        disp = (intptr_t)((uintptr_t)m->field - e->distance) - end;
        assert(disp == (int32_t)disp);
        put32(e, (uint32_t)disp);
        return;
    }
    if (m->base == NO_REG) { /* [index << scale + disp32] */
        put8(e, r | 4);
        put8(e, m->scale << 6 | (m->index == NO_REG ? 4u : (unsigned)m->index & 7) << 3 | 5);
        put32(e, (uint32_t)m->disp);
        return;
    }
    mod = m->disp == 0 && (m->base & 7) != RBP ? 0 : m->disp == (int8_t)m->disp ? 1 : 2;
    if (m->index != NO_REG || (m->base & 7) == RSP) {
        put8(e, mod << 6 | r | 4);
        put8(e, m->scale << 6 | (m->index == NO_REG ? 4u : (unsigned)m->index & 7) << 3 |
                    ((unsigned)m->base & 7));
    } else {
        put8(e, mod << 6 | r | ((unsigned)m->base & 7));
    }
    if (mod == 1)
        put8(e, (uint8_t)m->disp);
    else if (mod == 2)
        put32(e, (uint32_t)m->disp);
}

static inline void put_opcode(struct emit *e, unsigned opcode)
{
    if (opcode > 0xff)
        put8(e, opcode >> 8);
    put8(e, opcode);
}

static inline unsigned mem_rex(const struct host_mem *m)
{
    if (m->field)
        return 0;
    return (unsigned)(m->base != NO_REG && m->base >= 8) |
           (unsigned)(m->index != NO_REG && m->index >= 8) << 1;
}

/* opcode (0x0fxx for the second map) with a register and a memory operand. wide: REX.W. */
static inline void emit_rm(struct emit *e, bool wide, unsigned opcode, unsigned reg,
                           struct host_mem m)
{
    unsigned rex = (unsigned)wide << 3 | (reg >> 3 & 1) << 2 | mem_rex(&m);

    if (m.by_gs && e->is_shared)
        put8(e, 0x65);
    if (rex)
        put8(e, 0x40 | rex);
    put_opcode(e, opcode);
    put_modrm_mem(e, reg, &m);
}
static inline void emit_rr(struct emit *e, bool wide, unsigned opcode, unsigned reg, unsigned rm)
{
    unsigned rex = (unsigned)wide << 3 | (reg >> 3 & 1) << 2 | (rm >> 3 & 1);

    if (rex)
        put8(e, 0x40 | rex);
    put_opcode(e, opcode);
    put8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* ---- named instructions; none but those of emit_alu change flags ---- */

static inline void emit_mov(struct emit *e, unsigned to, unsigned from)
{
    if (to != from)
        emit_rr(e, true, 0x8b, to, from);
}
static inline void emit_load(struct emit *e, unsigned to, struct host_mem m)
{
    emit_rm(e, true, 0x8b, to, m);
}
static inline void emit_store(struct emit *e, struct host_mem m, unsigned from)
{
    emit_rm(e, true, 0x89, from, m);
}
static inline void emit_lea(struct emit *e, bool wide, unsigned to, struct host_mem m)
{
    emit_rm(e, wide, 0x8d, to, m);
}
/* RORX r64, r64, imm8; it leaves the flags alone. */
static inline void emit_rorx(struct emit *e, unsigned to, unsigned from, unsigned count)
{
    put8(e, 0xc4);
    put8(e, 0x43 | (~to & 8) << 4 | (~from & 8) << 2);
    put_bytes(e, "\xfb\xf0", 2);
    put8(e, 0xc0 | (to & 7) << 3 | (from & 7));
    put8(e, count);
}
/* MOV m64, imm32: zero-extended, for values below 2 GiB. */
static inline void emit_store_imm(struct emit *e, const void *field, uint32_t value)
{
    struct host_mem m = mem_field(field);

    m.immediate_bytes = 4;
    assert(value <= INT32_MAX);
    emit_rm(e, true, 0xc7, 0, m);
    put32(e, value);
}
/* The shortest way to load a constant. */
static inline void emit_constant(struct emit *e, unsigned to, uint64_t value)
{
    if (value <= UINT32_MAX) {
        if (to >= 8)
            put8(e, 0x41);
        put8(e, 0xb8 | (to & 7));
        put32(e, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        put8(e, to >= 8 ? 0x49 : 0x48);
        put8(e, 0xc7);
        put8(e, 0xc0 | (to & 7));
        put32(e, (uint32_t)value);
    } else {
        put8(e, to >= 8 ? 0x49 : 0x48);
        put8(e, 0xb8 | (to & 7));
        put64(e, value);
    }
}
/* ADD 0, OR 1, AND 4, SUB 5, XOR 6, CMP 7 with a 32-bit immediate. */
enum emit_alu { ALU_ADD, ALU_OR, ALU_AND = 4, ALU_SUB, ALU_XOR, ALU_CMP };
static inline void emit_alu_imm(struct emit *e, bool wide, enum emit_alu op, unsigned reg,
                                int32_t value)
{
    bool small = value == (int8_t)value;

    emit_rr(e, wide, small ? 0x83 : 0x81, op, reg);
    if (small)
        put8(e, (uint8_t)value);
    else
        put32(e, (uint32_t)value);
}
/* ANDN r32: to = ~not & with. */
static inline void emit_andn(struct emit *e, unsigned to, unsigned not, unsigned with)
{
    put8(e, 0xc4);
    put8(e, 0x42 | (~to & 8) << 4 | (~with & 8) << 2);
    put8(e, (~not &15) << 3);
    put8(e, 0xf2);
    put8(e, 0xc0 | (to & 7) << 3 | (with & 7));
}
/* CMP m32, imm32. */
static inline void emit_cmp_field(struct emit *e, const void *field, uint32_t value)
{
    struct host_mem m = mem_field(field);
    bool small = (int32_t)value == (int8_t)value;

    m.immediate_bytes = small ? 1 : 4;
    emit_rm(e, false, small ? 0x83 : 0x81, ALU_CMP, m);
    if (small)
        put8(e, value);
    else
        put32(e, value);
}
/* Jumps return where their 32-bit displacement is. */
enum condition { CC_B = 2, CC_AE, CC_E, CC_NE, CC_BE, CC_A };
static inline uint8_t *emit_jcc(struct emit *e, unsigned condition)
{
    put8(e, 0x0f);
    put8(e, 0x80 | condition);
    put32(e, 0);
    return e->at - 4;
}
static inline uint8_t *emit_jmp(struct emit *e)
{
    put8(e, 0xe9);
    put32(e, 0);
    return e->at - 4;
}
static inline void emit_call(struct emit *e, const uint8_t *target)
{
    put8(e, 0xe8);
    put32(e, (uint32_t)(target - (emit_address(e) + 4)));
}
/*
 * Before a JMP or Jcc, whose opcode has so many bytes, that will be aimed again while other vCPUs
 * run it: a store of eight aligned bytes changes all of its displacement. The prefix does nothing.
 */
static inline void emit_align_branch(struct emit *e, unsigned opcode_bytes)
{
    while (e->is_shared && ((uintptr_t)e->at + opcode_bytes) % 8 > 4)
        put8(e, 0x2e);
}
static inline uint8_t *emit_link_jcc(struct emit *e, unsigned condition)
{
    emit_align_branch(e, 2);
    return emit_jcc(e, condition);
}
static inline uint8_t *emit_link_jmp(struct emit *e)
{
    emit_align_branch(e, 1);
    return emit_jmp(e);
}
/* Let the displacement at rel32 (write view) lead to target (execute view). */
static inline void emit_aim(const struct emit *e, uint8_t *rel32, const uint8_t *target)
{
    int32_t disp = (int32_t)(target - (rel32 + 4 + e->execute));

    memcpy(rel32, &disp, 4);
}
/* The address, in the view that runs, of what is aimed at; returns its displacement. */
static inline uint8_t *emit_lea_code(struct emit *e, unsigned to)
{
    put8(e, 0x48 | (to >> 3 & 1) << 2);
    put8(e, 0x8d);
    put8(e, (to & 7) << 3 | 5);
    put32(e, 0);
    return e->at - 4;
}
static inline void emit_jmp_to(struct emit *e, const uint8_t *target)
{
    emit_aim(e, emit_jmp(e), target);
}

#endif
