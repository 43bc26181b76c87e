/*
 * host_stub_emit.c - the machine code of one stub
 *
 * On entry and while the guest's instruction runs: rdi = struct icpu, rsi = struct op; rdx = the
 * memory operand. rax, rcx, rdx, the vector and opmask registers and the flags are free. The stack
 * is as at a function's entry when the guest's instruction runs, so that a host exception can go on
 * in a function (host_stub_trap).
 *
 *   entry:  test byte [rdi + fpu_blocked], needs      (only without memory operand)
 *           jnz blocked
 *   body:   loads; the instruction; stores
 *           add rsi, sizeof(struct op); jmp [rsi]     (or: lea rax, [rsi + sizeof(struct op)]; ret)
 *   blocked: jump to host_stub_blocked
 */
#include <assert.h>

#include "engine/interpreter/host_stub.h"

enum host_register { RAX, RCX, RDX, RDI = 7 };

struct code {
    uint8_t *at;
};

static void put8(struct code *o, unsigned byte)
{
    *o->at++ = (uint8_t)byte;
}

static void put32(struct code *o, uint32_t value)
{
    memcpy(o->at, &value, sizeof(value));
    o->at += sizeof(value);
}

static void put_bytes(struct code *o, const void *bytes, size_t size)
{
    memcpy(o->at, bytes, size);
    o->at += size;
}

#define PUT(o, ...)                                                                                \
    do {                                                                                           \
        static const uint8_t bytes_[] = {__VA_ARGS__};                                             \
        put_bytes((o), bytes_, sizeof(bytes_));                                                    \
    } while (0)

/* ModRM of [rdi + offset]. */
static void put_field(struct code *o, unsigned reg, size_t offset)
{
    put8(o, 0x80 | (reg & 7) << 3 | RDI);
    put32(o, (uint32_t)offset);
}

/* ---- transfers ---- */

enum direction { LOAD, STORE };

static void move_gpr(struct code *o, enum direction direction, unsigned host, unsigned guest)
{
    put8(o, 0x48);
    put8(o, direction == LOAD ? 0x8b : 0x89);
    put_field(o, host, REG_OFFSET(guest));
}

/* MOVUPS or VMOVUPS of a whole register. */
static void move_vector(struct code *o, enum direction direction, bool legacy, unsigned bytes,
                        unsigned n)
{
    unsigned r = n >> 3 & 1, r2 = n >> 4;

    if (legacy) {
        if (r)
            put8(o, 0x44);
        put8(o, 0x0f);
    } else if (bytes == 64 || r2) {
        put8(o, 0x62);
        put8(o, 0x61 | !r << 7 | !r2 << 4);
        put8(o, 0x7c);
        put8(o, 0x48);
    } else {
        put8(o, 0xc5);
        put8(o, 0x78u | !r << 7 | (bytes == 32) << 2);
    }
    put8(o, direction == LOAD ? 0x10 : 0x11);
    put_field(o, n, ZMM_OFFSET(n));
}

/* KMOVQ, or KMOVW on a host that has no more than AVX512F. */
static void move_mask(struct code *o, enum direction direction, unsigned n)
{
    if (__builtin_cpu_supports("avx512bw"))
        PUT(o, 0xc4, 0xe1, 0xf8);
    else
        PUT(o, 0xc5, 0xf8);
    put8(o, direction == LOAD ? 0x90 : 0x91);
    put_field(o, n, offsetof(struct icpu, cpu.s.fpu.k) + 8u * n);
}

static void move_vectors(struct code *o, enum direction direction, const struct stub_plan *plan)
{
    uint32_t set = direction == LOAD ? plan->vector_read : plan->vector_write;

    for (unsigned n = 0; n < 32; n++)
        if (set >> n & 1)
            move_vector(o, direction, plan->legacy,
                        direction == LOAD ? plan->load_bytes : plan->store_bytes, n);
    set = direction == LOAD ? plan->k_read : plan->k_write;
    for (unsigned n = 0; n < 8; n++)
        if (set >> n & 1)
            move_mask(o, direction, n);
}

static void load_registers(struct code *o, const struct stub_plan *plan)
{
    if (plan->implicit_read & 1u << X86_RDX && plan->memory_bytes)
        PUT(o, 0x48, 0x89, 0xd1); /* mov rcx, rdx */
    for (unsigned n = X86_RAX; n <= X86_RDX; n++)
        if (plan->implicit_read >> n & 1)
            move_gpr(o, LOAD, n, n);
    if (plan->gpr_read)
        move_gpr(o, LOAD, RAX, plan->gpr);
    move_vectors(o, LOAD, plan);
}

static void store_registers(struct code *o, const struct stub_plan *plan)
{
    move_vectors(o, STORE, plan);
    for (unsigned n = X86_RAX; n <= X86_RDX; n++)
        if (plan->implicit_write >> n & 1) {
            if (plan->implicit_word) { /* mov [rdi + ...], ax */
                PUT(o, 0x66, 0x89);
                put_field(o, n, REG_OFFSET(n));
            } else {
                move_gpr(o, STORE, n, n);
            }
        }
    if (plan->gpr_write)
        move_gpr(o, STORE, RAX, plan->gpr);
}

/* ---- flags: s.rflags is up to date when a stub that reads them runs ---- */

static void load_flags(struct code *o)
{
    PUT(o, 0x8b); /* mov eax, [rdi + rflags] */
    put_field(o, RAX, offsetof(struct icpu, cpu.s.rflags));
    put8(o, 0x25); /* and eax, ... */
    put32(o, X86_FLAGS_STATUS);
    PUT(o, 0x50, 0x9d); /* push rax; popfq */
}

static void store_flags(struct code *o)
{
    PUT(o, 0x9c, 0x58); /* pushfq; pop rax */
    put8(o, 0x25);      /* and eax, ... */
    put32(o, X86_FLAGS_STATUS);
    PUT(o, 0x8b); /* mov ecx, [rdi + rflags] */
    put_field(o, RCX, offsetof(struct icpu, cpu.s.rflags));
    PUT(o, 0x81, 0xe1); /* and ecx, ... */
    put32(o, ~X86_FLAGS_STATUS);
    PUT(o, 0x09, 0xc8, 0x89); /* or eax, ecx; mov [rdi + rflags], eax */
    put_field(o, RAX, offsetof(struct icpu, cpu.s.rflags));
    PUT(o, 0xc7); /* mov dword [rdi + cc_kind], CC_RFLAGS */
    put_field(o, 0, offsetof(struct icpu, cc_kind));
    put32(o, CC_RFLAGS);
}

/* ---- x87: FIP, FCS, FOP of the last instruction ---- */

static void store_pointers(struct code *o, const struct stub_plan *plan)
{
    PUT(o, 0x0f, 0xb7, 0x46, offsetof(struct op, page_offset)); /* movzx eax, word [rsi + ...] */
    PUT(o, 0x48, 0x03);                                         /* add rax, [rdi + page_rip] */
    put_field(o, RAX, offsetof(struct icpu, page_rip));
    PUT(o, 0x48, 0x89); /* mov [rdi + fip], rax */
    put_field(o, RAX, offsetof(struct icpu, cpu.s.fpu.fip));
    PUT(o, 0x0f, 0xb7); /* movzx eax, word [rdi + cs] */
    put_field(o, RAX, offsetof(struct icpu, cpu.s.seg[X86_CS].selector));
    PUT(o, 0x66, 0x89); /* mov [rdi + fcs], ax */
    put_field(o, RAX, offsetof(struct icpu, cpu.s.fpu.fcs));
    PUT(o, 0x66, 0xc7); /* mov word [rdi + fop], ... */
    put_field(o, 0, offsetof(struct icpu, cpu.s.fpu.fop));
    put8(o, plan->fop & 0xff);
    put8(o, plan->fop >> 8);
}

/* ---- the frame around it ---- */

static void go_on(struct code *o, const struct stub_plan *plan)
{
    static_assert(sizeof(struct op) < 128 && offsetof(struct op, run) == 0, "8-bit displacements");

    if (!plan->legacy)
        PUT(o, 0xc5, 0xf8, 0x77); /* vzeroupper */
#ifdef INTERPRETER_TAIL_CALLS
    PUT(o, 0x48, 0x83, 0xc6, sizeof(struct op)); /* add rsi, sizeof(struct op) */
    PUT(o, 0xff, 0x26);                          /* jmp [rsi] */
#else
    PUT(o, 0x48, 0x8d, 0x46, sizeof(struct op), 0xc3); /* lea rax, [rsi + ...]; ret */
#endif
}

/* Returns where the jump's displacement is. */
static uint8_t *check(struct code *o, const struct stub_plan *plan)
{
    PUT(o, 0xf6); /* test byte [rdi + fpu_blocked], ... */
    put_field(o, 0, offsetof(struct icpu, fpu_blocked));
    put8(o, plan->needs);
    PUT(o, 0x0f, 0x85); /* jnz */
    put32(o, 0);
    return o->at - 4;
}

static void blocked(struct code *o, uint8_t *displacement)
{
    uint32_t distance = (uint32_t)(o->at - (displacement + 4));
    uint64_t target = (uintptr_t)host_stub_blocked;

    memcpy(displacement, &distance, sizeof(distance));
    PUT(o, 0x48, 0xb8); /* mov rax, ... */
    put_bytes(o, &target, sizeof(target));
    PUT(o, 0xff, 0xe0); /* jmp rax */
}

size_t host_stub_emit(const struct stub_plan *plan, uint8_t *write, size_t *out_body_offset)
{
    struct code code = {.at = write}, *o = &code;
    uint8_t *displacement = plan->memory_bytes ? NULL : check(o, plan);

    *out_body_offset = (size_t)(o->at - write);
    if (plan->sets_pointers)
        store_pointers(o, plan);
    load_registers(o, plan);
    if (plan->flags_read)
        load_flags(o);
    put_bytes(o, plan->bytes, plan->length);
    store_registers(o, plan);
    if (plan->flags_write)
        store_flags(o);
    go_on(o, plan);
    if (displacement)
        blocked(o, displacement);
    assert((size_t)(o->at - write) <= STUB_CODE_MAX);
    return (size_t)(o->at - write);
}
