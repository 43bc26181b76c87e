/*
 * test_host_stub.c - vector and x87 instructions: stubs against the same bytes run directly
 *
 * Guest memory is a few pages whose linear addresses are their host addresses, so that
 * an instruction of 64-bit code can be run twice from the same state: as it is, by a thunk
 * that loads and stores all registers, and through host_stub_build(). Everything the guest can see
 * is compared, faults included. The instructions are random over the opcode space.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/mman.h>

#include "engine/interpreter/host_stub.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* ---- guest memory: some pages with nothing around them ---- */

#define GUARD_PAGES 4u /* as far as a displacement reaches */
#define GUEST_PAGES 4u
#define GUEST_BYTES (GUEST_PAGES * 4096u)
#define ARENA_BYTES (GUEST_BYTES + 2 * GUARD_PAGES * 4096u)
static uint8_t *arena; /* with the guards */
static uint8_t *guest;

static struct icpu *cpu;
static struct cpu_model model;
static bool tlb_hits; /* fill the TLB, so that handlers find operands by themselves */
static int raised;    /* vector, or -1 */

static bool is_mapped(uint64_t linear)
{
    return linear - (uintptr_t)guest < GUEST_BYTES;
}

static void fill_tlb(uint64_t linear)
{
    struct tlb_entry *e = tlb_slot(cpu, linear);

    if (tlb_hits) {
        e->read = e->write = linear & ~0xfffull;
        e->addend = 0;
    }
}

noreturn void interp_raise(struct icpu *c, const struct op *i, uint8_t vector)
{
    (void)i;
    raised = vector;
    longjmp(c->unwind, 1);
}

noreturn void interp_raise_code(struct icpu *c, const struct op *i, uint8_t vector, uint32_t code)
{
    (void)code;
    interp_raise(c, i, vector);
}

static void access_bytes(struct icpu *c, const struct op *i, uint64_t linear, size_t size)
{
    for (size_t n = 0; n < size; n++)
        if (!is_mapped(linear + n))
            interp_raise(c, i, X86_PF);
    fill_tlb(linear);
}

void interp_load_bytes(struct icpu *c, const struct op *i, uint64_t linear, void *out, size_t size)
{
    access_bytes(c, i, linear, size);
    memcpy(out, (const void *)linear, size);
}

void interp_store_bytes(struct icpu *c, const struct op *i, uint64_t linear, const void *data,
                        size_t size)
{
    access_bytes(c, i, linear, size);
    memcpy((void *)linear, data, size);
}

void interp_probe_write(struct icpu *c, const struct op *i, uint64_t linear, size_t size)
{
    access_bytes(c, i, linear, size);
}

uint64_t interp_load_slow(struct icpu *c, const struct op *i, uint64_t linear, unsigned size)
{
    uint64_t value = 0;

    interp_load_bytes(c, i, linear, &value, size);
    return value;
}

void interp_store_slow(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                       unsigned size)
{
    interp_store_bytes(c, i, linear, &value, size);
}

uint64_t interp_ea_limited(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    (void)size;
    (void)access;
    return (uint32_t)ea_raw(c, i);
}

void flags_materialize(struct icpu *c)
{
    c->cc_kind = CC_RFLAGS;
}

/* ---- random numbers and interesting operands ---- */

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned n)
{
    return (unsigned)((random64() >> 32) % n);
}

static const uint64_t interesting[] = {
    0,
    0x8000000000000000ull, /* -0.0 */
    0x3ff0000000000000ull, /* 1.0 */
    0x3f8000003f800000ull, /* 1.0f twice */
    0x7ff0000000000000ull, /* infinity */
    0x7ff8000000000000ull, /* quiet NaN */
    0x7ff0000000000001ull, /* signalling NaN */
    0x0000000000000001ull, /* denormal */
    0x0010000000000000ull, /* smallest normal */
    0x7fefffffffffffffull, /* largest */
    0x7f7fffff00800000ull,
    0x7fc000007f800001ull,
    0x000000010040000full,
    0xffffffffffffffffull,
    0x41dfffffffc00000ull, /* 2^31 - 1 */
    0x43e0000000000000ull, /* 2^63 */
    0x3c003c007c00fc01ull, /* half precision */
    0x0102030405060708ull,
};

static uint64_t random_operand(void)
{
    switch (below(4)) {
    case 0:
        return interesting[below(sizeof(interesting) / sizeof(interesting[0]))];
    case 1:
        return 0x3ff0000000000000ull | random64() >> 12;
    case 2: {
        uint32_t low = 0x3f000000u | (uint32_t)(random64() >> 40);
        uint32_t high = 0xbf000000u | (uint32_t)(random64() >> 40);

        return low | (uint64_t)high << 32;
    }
    default:
        return random64();
    }
}

static void fill_random(void *to, size_t size)
{
    for (size_t n = 0; n < size; n += 8) {
        uint64_t value = random_operand();

        memcpy((uint8_t *)to + n, &value, size - n < 8 ? size - n : 8);
    }
}

/* ---- running an instruction as it is ---- */

struct registers {
    uint8_t zmm[32][64];
    uint64_t k[8];
    uint64_t gpr[16];
    uint64_t rflags;
    uint8_t fx[512] __attribute__((aligned(64)));
};

struct thunk {
    struct host_code code;
    uint8_t *at;
};
static struct thunk thunk;
static jmp_buf thunk_unwind;
static int thunk_trap;
static bool has_avx, has_avx512;

static void t8(unsigned byte)
{
    *thunk.at++ = (uint8_t)byte;
}

static void t32(size_t value)
{
    uint32_t v = (uint32_t)value;

    memcpy(thunk.at, &v, 4);
    thunk.at += 4;
}

/* ModRM of [r15 + offset]. */
static void t_field(unsigned reg, size_t offset)
{
    t8(0x87 | (reg & 7) << 3);
    t32(offset);
}

static void t_gpr(bool load, unsigned n)
{
    t8(0x49 | (n >> 3) << 2);
    t8(load ? 0x8b : 0x89);
    t_field(n, offsetof(struct registers, gpr) + 8 * n);
}

static void t_vector(bool load, unsigned n)
{
    unsigned not_r = !(n >> 3 & 1), not_r2 = !(n >> 4);

    if (has_avx512) {
        t8(0x62);
        t8(0x41 | not_r << 7 | not_r2 << 4);
        t8(0x7c);
        t8(0x48);
    } else if (n < 16 && has_avx) {
        t8(0xc4);
        t8(0x41 | not_r << 7);
        t8(0x7c);
    } else if (n < 16) {
        t8(0x41 | !not_r << 2);
        t8(0x0f);
    } else {
        return;
    }
    t8(load ? 0x10 : 0x11);
    t_field(n, offsetof(struct registers, zmm) + 64 * n);
}

static void t_mask(bool load, unsigned n)
{
    t8(0xc4);
    t8(0xc1);
    t8(0xf8);
    t8(load ? 0x90 : 0x91);
    t_field(n, offsetof(struct registers, k) + 8 * n);
}

static void t_registers(bool load)
{
    for (unsigned n = 0; n < 32; n++)
        t_vector(load, n);
    for (unsigned n = 0; has_avx512 && n < 8; n++)
        t_mask(load, n);
}

static void t_fx(unsigned op)
{
    t8(0x49); /* REX.W B: fxsave64/fxrstor64 [r15 + ...] */
    t8(0x0f);
    t8(0xae);
    t_field(op, offsetof(struct registers, fx));
}

static const uint8_t pushes[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
static const uint8_t pops[] = {0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b};

static void t_bytes(const void *bytes, size_t size)
{
    memcpy(thunk.at, bytes, size);
    thunk.at += size;
}

/* void thunk(struct registers *r): r15 stays the pointer, rsp the stack. */
static void make_thunk(const uint8_t *bytes, size_t length)
{
    thunk.at = thunk.code.write;
    t_bytes(pushes, sizeof(pushes));
    t_bytes("\x49\x89\xff", 3); /* mov r15, rdi */
    t_fx(1);
    t_registers(true);
    t8(0x41); /* push [r15 + rflags]; popfq */
    t8(0xff);
    t8(0xb7);
    t32(offsetof(struct registers, rflags));
    t8(0x9d);
    for (unsigned n = 0; n < 15; n++)
        if (n != X86_RSP)
            t_gpr(true, n);
    t_bytes(bytes, length);
    for (unsigned n = 0; n < 15; n++)
        if (n != X86_RSP)
            t_gpr(false, n);
    t8(0x9c); /* pushfq; pop [r15 + rflags] */
    t8(0x41);
    t8(0x8f);
    t8(0x87);
    t32(offsetof(struct registers, rflags));
    t_registers(false);
    t_fx(0);
    if (has_avx)
        t_bytes("\xc5\xf8\x77", 3); /* vzeroupper */
    t_bytes(pops, sizeof(pops));
    t8(0xc3);
}

static void on_thunk_trap(void *first, void *second, enum host_trap trap)
{
    (void)first;
    (void)second;
    thunk_trap = (int)trap;
    longjmp(thunk_unwind, 1);
}

static void clean_fpu(void)
{
    uint32_t mxcsr = 0x1f80;

    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
}

/* Returns false if the instruction trapped; then r is as it was. */
static bool run_thunk(struct registers *r, const uint8_t *bytes, size_t length)
{
    make_thunk(bytes, length);
    thunk_trap = -1;
    if (!setjmp(thunk_unwind))
        ((void (*)(struct registers *))(uintptr_t)thunk.code.execute)(r);
    clean_fpu();
    return thunk_trap < 0;
}

/* ---- running it as the guest's ---- */

static const struct op *stop(struct icpu *c, const struct op *i)
{
    (void)c;
    (void)i;
    return NULL;
}

static struct op ops[2];

static void reset_tlb(void)
{
    for (unsigned n = 0; n < TLB_SIZE; n++)
        cpu->tlb[n].read = cpu->tlb[n].write = ~0ull;
}

static uint16_t gpr_offset(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return REG_OFFSET(reg - ZYDIS_REGISTER_RAX);
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return REG_OFFSET(reg - ZYDIS_REGISTER_EAX);
    return offsetof(struct icpu, zero);
}

static void fill_memory_operand(const struct insn *insn, struct op *op)
{
    op->base = op->index = offsetof(struct icpu, zero);
    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const ZydisDecodedOperand *o = &insn->operands[n];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        op->base = gpr_offset(o->mem.base);
        op->index = gpr_offset(o->mem.index);
        op->scale = o->mem.scale ? (uint8_t)__builtin_ctz(o->mem.scale) : 0;
        op->disp = o->mem.disp.value;
        op->ea = insn->info.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 ? EA_LIMITED
                 : o->mem.index == ZYDIS_REGISTER_NONE                 ? EA_BASE
                                                                       : EA_INDEX;
        op->seg = X86_DS;
    }
}

static bool build(const struct insn *insn)
{
    bool flush = false;

    memset(ops, 0, sizeof(ops));
    ops[0].length = insn->info.length;
    ops[1].run = stop;
    fill_memory_operand(insn, &ops[0]);
    if (!host_stub_build(cpu, insn, &ops[0], &flush))
        return false;
    return true;
}

/* Runs ops[0]; returns the vector raised or -1. */
static int run_guest(void)
{
    raised = -1;
    host_fpu_enter(cpu);
    if (!setjmp(cpu->unwind))
        for (const struct op *i = ops; i; i = i->run(cpu, i))
            ;
    host_fpu_leave(cpu);
    return raised;
}

/* ---- state ---- */

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void random_x87(struct x86_fpu *fpu, bool masked)
{
    fpu->fcw = (uint16_t)(0x340 | (masked ? 0x3f : below(64)) | below(4) << 10);
    if (below(4) == 0)
        fpu->fcw &= (uint16_t)~0x100; /* another precision */
    fpu->fsw = (uint16_t)(below(8) << 11 | (below(16) & 7) << 8);
    if (!masked && below(4) == 0)
        fpu->fsw |= (uint16_t)below(64);
    if (fpu->fsw & ~fpu->fcw & 0x3f)
        fpu->fsw |= 0x8080; /* ES, B */
    fpu->ftw = (uint8_t)(below(4) ? 0xff : random64());
    for (unsigned n = 0; n < 8; n++) {
        uint64_t significand = below(3) ? random64() | 1ull << 63 : random_operand();
        unsigned exponent = below(3) ? 0x3fff - 40 + below(80) : (unsigned)random64();

        memset(fpu->st[n], 0, 16);
        memcpy(fpu->st[n], &significand, 8);
        put16(fpu->st[n] + 8, (exponent & 0x7fff) | (below(2) << 15));
    }
}

static void random_state(bool masked)
{
    struct x86_state *s = &cpu->cpu.s;
    unsigned width = has_avx512 ? 64 : has_avx ? 32 : 16;

    memset(s->fpu.zmm, 0, sizeof(s->fpu.zmm));
    for (unsigned n = 0; n < (has_avx512 ? 32 : 16); n++)
        fill_random(s->fpu.zmm[n], width);
    for (unsigned n = 0; n < 8; n++)
        s->fpu.k[n] = !has_avx512 ? 0
                      : below(2)  ? random64()
                                  : random64() & random64() & random64();
    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = random_operand();
    s->gpr[X86_RSP] = s->gpr[X86_R15] = 0;
    s->rflags = X86_FLAG_FIXED | X86_FLAG_IF | (random64() & X86_FLAGS_STATUS);
    random_x87(&s->fpu, masked);
    s->fpu.mxcsr = (masked ? 0x1f80 : below(64) << 7) | below(4) << 13 | (below(4) == 0) << 6 |
                   (below(4) == 0 ? 0x8000u : 0);
    fill_random(guest, GUEST_BYTES);
}

static void to_registers(struct registers *r)
{
    const struct x86_state *s = &cpu->cpu.s;

    memset(r, 0, sizeof(*r));
    memcpy(r->zmm, s->fpu.zmm, sizeof(r->zmm));
    memcpy(r->k, s->fpu.k, sizeof(r->k));
    memcpy(r->gpr, s->gpr, sizeof(r->gpr));
    r->rflags = s->rflags;
    put16(r->fx, s->fpu.fcw);
    put16(r->fx + 2, s->fpu.fsw);
    r->fx[4] = s->fpu.ftw;
    memcpy(r->fx + 24, &s->fpu.mxcsr, 4);
    memcpy(r->fx + 32, s->fpu.st, sizeof(s->fpu.st));
    memcpy(r->fx + 160, s->fpu.zmm, 0);
}

static char insn_text[128];

static void fail_insn(const struct insn *insn, const char *what, unsigned n)
{
    char bytes[64] = "";

    for (unsigned k = 0; k < insn->info.length; k++)
        snprintf(bytes + 3 * k, 4, "%02x ", insn->bytes[k]);
    x86_disassemble(X86_CODE_64, insn->bytes, insn->info.length, 0, insn_text, sizeof(insn_text));
    fail_msg("%s%s: %s %u differs", bytes, insn_text, what, n);
}

static void compare_x87(const struct insn *insn, const struct registers *r)
{
    const struct x86_fpu *fpu = &cpu->cpu.s.fpu;
    uint16_t fcw, fsw;

    memcpy(&fcw, r->fx, 2);
    memcpy(&fsw, r->fx + 2, 2);
    if (fcw != fpu->fcw)
        fail_insn(insn, "FCW", fcw);
    if (fsw != fpu->fsw)
        fail_insn(insn, "FSW", fsw);
    if (r->fx[4] != fpu->ftw)
        fail_insn(insn, "FTW", r->fx[4]);
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(r->fx + 32 + 16 * n, fpu->st[n], 10))
            fail_insn(insn, "st", n);
}

static void compare(const struct insn *insn, const struct registers *r)
{
    const struct x86_state *s = &cpu->cpu.s;
    uint32_t mxcsr;

    for (unsigned n = 0; n < 32; n++)
        if (memcmp(r->zmm[n], s->fpu.zmm[n], 64))
            fail_insn(insn, "zmm", n);
    for (unsigned n = 0; n < 8; n++)
        if (r->k[n] != s->fpu.k[n])
            fail_insn(insn, "k", n);
    for (unsigned n = 0; n < 15; n++)
        if (n != X86_RSP && r->gpr[n] != s->gpr[n])
            fail_insn(insn, "gpr", n);
    if ((r->rflags ^ s->rflags) & X86_FLAGS_STATUS)
        fail_insn(insn, "flags", (unsigned)r->rflags);
    memcpy(&mxcsr, r->fx + 24, 4);
    if (mxcsr != s->fpu.mxcsr)
        fail_insn(insn, "mxcsr", mxcsr);
    compare_x87(insn, r);
}

/* ---- one instance, both ways ---- */

static uint8_t guest_before[GUEST_BYTES], guest_direct[GUEST_BYTES];

static int trap_of_vector(int vector)
{
    switch (vector) {
    case X86_UD:
        return HOST_TRAP_UNDEFINED;
    case X86_XM:
    case X86_MF:
        return HOST_TRAP_FLOAT;
    default:
        return HOST_TRAP_PROTECTION;
    }
}

static bool is_environment(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_FNSTENV || m == ZYDIS_MNEMONIC_FNSAVE;
}

/* FNSTENV, FNSAVE: the pointers of the last instruction are of the thunk. */
static void clear_pointers(uint8_t *memory, uint64_t linear)
{
    if (linear - (uintptr_t)guest + 28 <= GUEST_BYTES)
        memset(memory + (linear - (uintptr_t)guest) + 12, 0, 16);
}

/* direct: bytes of 64-bit code that mean the same as insn. */
static void run_both(const struct insn *insn, const uint8_t *direct, size_t direct_length)
{
    static struct registers r;
    uint64_t operand;
    bool completed;
    int vector;

    memcpy(guest_before, guest, GUEST_BYTES);
    to_registers(&r);
    completed = run_thunk(&r, direct, direct_length);
    operand = (uint32_t)ea_raw(cpu, &ops[0]);
    memcpy(guest_direct, guest, GUEST_BYTES);
    memcpy(guest, guest_before, GUEST_BYTES);
    vector = run_guest();
    if (completed && vector == X86_GP && insn->info.meta.isa_set == ZYDIS_ISA_SET_SHA)
        return; /* AMD's do not need the alignment that SDM vol. 2, 2.4.4 asks for */
    if (completed != (vector < 0))
        fail_insn(insn, completed ? "raised" : "not raised", (unsigned)vector);
    if (!completed) {
        if (trap_of_vector(vector) != thunk_trap)
            fail_insn(insn, "exception", (unsigned)vector);
        return;
    }
    compare(insn, &r);
    if (is_environment(insn->info.mnemonic)) {
        clear_pointers(guest_direct, operand);
        clear_pointers(guest, operand);
    }
    if (memcmp(guest_direct, guest, GUEST_BYTES))
        fail_insn(insn, "memory", 0);
}

/* ---- random instructions ---- */

#define BASE_REGISTER 3u /* rbx; rsi is the index */

static unsigned random_modrm(uint8_t *bytes)
{
    unsigned reg = below(8), n = 0;

    switch (below(5)) {
    case 0: /* [rbx] */
        bytes[n++] = (uint8_t)(reg << 3 | BASE_REGISTER);
        break;
    case 1: /* [rbx + disp8] */
        bytes[n++] = (uint8_t)(0x40 | reg << 3 | BASE_REGISTER);
        bytes[n++] = (uint8_t)random64();
        break;
    case 2: /* [rbx + rsi * scale + disp32] */
        bytes[n++] = (uint8_t)(0x80 | reg << 3 | 4);
        bytes[n++] = (uint8_t)(below(4) << 6 | 6 << 3 | BASE_REGISTER);
        bytes[n++] = (uint8_t)random64();
        bytes[n++] = 0;
        bytes[n++] = 0;
        bytes[n++] = 0;
        break;
    default:
        bytes[n++] = (uint8_t)(0xc0 | reg << 3 | below(8));
        break;
    }
    return n;
}

static unsigned random_legacy(uint8_t *bytes)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    uint8_t prefix = prefixes[below(4)];
    unsigned n = 0, map = below(6);

    if (prefix)
        bytes[n++] = prefix;
    if (below(2))
        bytes[n++] = (uint8_t)(0x40 | below(8) << 1 | 0) & ~2; /* no X, B: rbx stays the base */
    bytes[n++] = 0x0f;
    if (map >= 4)
        bytes[n++] = map == 4 ? 0x38 : 0x3a;
    bytes[n++] = (uint8_t)random64();
    return n;
}

static unsigned random_vex(uint8_t *bytes)
{
    bytes[0] = 0xc4;
    bytes[1] = (uint8_t)(below(2) << 7 | 0x60 | (1 + below(3)));
    bytes[2] = (uint8_t)random64();
    if (below(2))
        bytes[2] |= 0x78;
    bytes[3] = (uint8_t)random64();
    return 4;
}

static unsigned random_evex(uint8_t *bytes)
{
    bytes[0] = 0x62;
    bytes[1] = (uint8_t)(below(2) << 7 | 0x60 | below(2) << 4 | (1 + below(3)));
    bytes[2] = (uint8_t)random64() | 4;
    bytes[3] = (uint8_t)random64();
    if (below(2))
        bytes[2] |= 0x78, bytes[3] |= 8;
    if (below(3) == 0)
        bytes[3] &= 0x68;
    bytes[4] = (uint8_t)random64();
    return 5;
}

static unsigned random_vex_gather(uint8_t *bytes)
{
    random_vex(bytes);
    bytes[1] = (bytes[1] & 0xe0) | 2;
    bytes[2] = (bytes[2] & ~3) | 1;
    bytes[3] = (uint8_t)(0x90 + below(4));
    return 4;
}

static unsigned random_evex_gather(uint8_t *bytes)
{
    random_evex(bytes);
    bytes[1] = (bytes[1] & 0xf0) | 2;
    bytes[2] = (bytes[2] & 0x80) | 0x7d;
    bytes[3] &= 0x6f; /* neither z nor b */
    bytes[4] = (uint8_t)((below(2) ? 0x90 : 0xa0) + below(4));
    return 5;
}

static unsigned random_x87_opcode(uint8_t *bytes)
{
    bytes[0] = (uint8_t)(0xd8 + below(8));
    return 1;
}

typedef unsigned generator(uint8_t *bytes);

static bool wants(const struct insn *insn)
{
    uint8_t needs;
    bool is_mmx;

    if (insn->info.mnemonic == ZYDIS_MNEMONIC_CRC32 || insn->info.mnemonic == ZYDIS_MNEMONIC_MOVNTI)
        return false;                                         /* no vector operand: not for stubs */
    for (unsigned n = 0; n < insn->info.operand_count; n++) { /* r15, rsp: the thunk's own */
        const ZydisDecodedOperand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base != ZYDIS_REGISTER_RBX &&
            o->mem.base != ZYDIS_REGISTER_RDI)
            return false;
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (gpr_offset(insn->operands[n].reg.value) == REG_OFFSET(X86_RSP) ||
             gpr_offset(insn->operands[n].reg.value) == REG_OFFSET(X86_R15)))
            return false;
    }
    return host_stub_isa(cpu->cpu.model, insn, &needs, &is_mmx);
}

/* Where the operand is: mostly inside, sometimes over a page's end, sometimes not there. */
static void place_operand(void)
{
    uint64_t at = (uintptr_t)guest + 512;

    switch (below(4)) {
    case 0:
        at = (uintptr_t)guest + 4096;
        break;
    case 1:
        at = (uintptr_t)guest + GUEST_BYTES - below(256);
        break;
    default:
        at += below(64) * 64;
        break;
    }
    if (below(2))
        at += below(64);
    cpu->cpu.s.gpr[X86_RBX] = at;
    cpu->cpu.s.gpr[X86_RSI] = below(16);
    cpu->cpu.s.gpr[X86_RDI] = (uintptr_t)guest + below(GUEST_BYTES - 16);
}

/* Lanes of the index register (6, or 22 with V' clear) that stay near the base, mostly. */
static void fill_indices(const struct insn *insn)
{
    bool quad;

    if (x86_disassemble(X86_CODE_64, insn->bytes, insn->info.length, 0, insn_text,
                        sizeof(insn_text)) == 0)
        return;
    quad = strstr(insn_text, "gatherq") || strstr(insn_text, "scatterq");
    for (unsigned n = 6; n < 32; n += 16)
        for (unsigned lane = 0; lane < 16; lane++) {
            int32_t index = (int32_t)below(600) - 300;
            int32_t high = quad && index < 0 ? -1 : 0;

            memcpy(cpu->cpu.s.fpu.zmm[n] + 4 * lane, quad && lane % 2 ? &high : &index, 4);
            if (quad && lane % 2 == 0) {
                high = index < 0 ? -1 : 0;
                memcpy(cpu->cpu.s.fpu.zmm[n] + 4 * ++lane, &high, 4);
            }
        }
    if (!has_avx512)
        memset(cpu->cpu.s.fpu.zmm[6] + 32, 0, 32);
}

static bool is_gather(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count_visible; n++)
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            insn->operands[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            return true;
    return false;
}

/* cmocka puts its own handlers in the way for each test. */
static const int signals[] = {SIGILL, SIGFPE, SIGSEGV, SIGBUS};
static struct sigaction trap_actions[4];

static void move_signals(bool save)
{
    for (unsigned n = 0; n < 4; n++)
        sigaction(signals[n], save ? NULL : &trap_actions[n], save ? &trap_actions[n] : NULL);
}

static bool same_operands(const struct insn *a, const struct insn *b)
{
    if (a->info.mnemonic != b->info.mnemonic || a->info.length != b->info.length ||
        a->info.operand_count != b->info.operand_count)
        return false;
    for (unsigned n = 0; n < a->info.operand_count; n++) {
        const ZydisDecodedOperand *x = &a->operands[n], *y = &b->operands[n];

        if (x->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            gpr_offset(x->reg.value) == offsetof(struct icpu, zero))
            continue; /* flags and the like are named after the code size */

        if (x->type != y->type || x->size != y->size)
            return false;
        if (x->type == ZYDIS_OPERAND_TYPE_REGISTER && x->reg.value != y->reg.value)
            return false;
        if (x->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (gpr_offset(x->mem.base) != gpr_offset(y->mem.base) ||
             gpr_offset(x->mem.index) != gpr_offset(y->mem.index) ||
             x->mem.disp.value != y->mem.disp.value))
            return false;
    }
    return true;
}

/*
 * Decode bytes as code of a size, and find what means the same in 64-bit code: the same bytes, or
 * with W clear and high bits of vvvv set, which only 64-bit code looks at.
 */
static bool decode_both(enum x86_code_size size, const uint8_t *bytes, struct insn *out,
                        struct insn *out_direct)
{
    uint8_t copy[X86_MAX_INSN_BYTES];

    if (x86_decode(size, false, bytes, X86_MAX_INSN_BYTES, out) != DECODE_OK)
        return false;
    if (x86_decode(X86_CODE_64, false, bytes, X86_MAX_INSN_BYTES, out_direct) == DECODE_OK &&
        same_operands(out, out_direct))
        return true;
    memcpy(copy, bytes, sizeof(copy));
    if (copy[0] != 0xc4 && copy[0] != 0x62)
        return false;
    copy[2] |= 0x40;
    if (x86_decode(X86_CODE_64, false, copy, X86_MAX_INSN_BYTES, out_direct) == DECODE_OK &&
        same_operands(out, out_direct))
        return true;
    copy[2] &= 0x7f;
    return x86_decode(X86_CODE_64, false, copy, X86_MAX_INSN_BYTES, out_direct) == DECODE_OK &&
           same_operands(out, out_direct);
}

static bool is_usable(enum x86_code_size size, const struct insn *insn)
{
    if (!wants(insn))
        return false;
    if (size != X86_CODE_64 && insn->info.meta.category == ZYDIS_CATEGORY_AVX &&
        insn->info.opcode == 0x77)
        return false; /* VZEROALL, VZEROUPPER: of eight registers there */
    /* Addresses are another matter in 16-bit code. */
    return size != X86_CODE_16 || !insn->info.operand_count ||
           (insn->info.raw.modrm.mod == 3 && insn->info.mnemonic != ZYDIS_MNEMONIC_MASKMOVQ &&
            insn->info.mnemonic != ZYDIS_MNEMONIC_MASKMOVDQU &&
            insn->info.mnemonic != ZYDIS_MNEMONIC_VMASKMOVDQU);
}

static void prepare(enum x86_code_size size, const struct insn *insn, bool masked)
{
    random_state(masked);
    place_operand();
    if (is_gather(insn))
        fill_indices(insn);
    for (unsigned n = 0; size != X86_CODE_64 && n < 16; n++)
        cpu->cpu.s.gpr[n] = (uint32_t)cpu->cpu.s.gpr[n];
    cpu->code_size = size;
    tlb_hits = below(2);
    reset_tlb();
    if (tlb_hits) {
        fill_tlb((uintptr_t)guest);
        fill_tlb((uintptr_t)guest + 4096);
    }
}

/* Exercise so many random instances of a generator. */
static void run_random(generator *generate, enum x86_code_size size, unsigned count, bool masked)
{
    unsigned done = 0;

    move_signals(false);
    for (unsigned attempt = 0; done < count; attempt++) {
        uint8_t bytes[16];
        struct insn insn, direct;
        unsigned n = generate(bytes);

        assert_true(attempt < count * 400);
        n += random_modrm(bytes + n);
        while (n < sizeof(bytes))
            bytes[n++] = (uint8_t)random64();
        if (!decode_both(size, bytes, &insn, &direct) || !is_usable(size, &insn))
            continue;
        prepare(size, &insn, masked);
        if (!build(&insn))
            fail_insn(&insn, "not built", 0);
        run_both(&insn, direct.bytes, direct.info.length);
        done++;
    }
}

static unsigned instances =
    20000; /* or from the environment: HOST_STUB_INSTANCES, HOST_STUB_SEED */

static void test_legacy(void **state)
{
    (void)state;
    run_random(random_legacy, X86_CODE_64, instances, true);
}

static void test_vex(void **state)
{
    (void)state;
    if (!has_avx)
        skip();
    run_random(random_vex, X86_CODE_64, instances, true);
}

static void test_evex(void **state)
{
    (void)state;
    if (!has_avx512)
        skip();
    run_random(random_evex, X86_CODE_64, 2 * instances, true);
}

static void test_gathers(void **state)
{
    (void)state;
    if (has_avx)
        run_random(random_vex_gather, X86_CODE_64, instances / 4, true);
    if (has_avx512)
        run_random(random_evex_gather, X86_CODE_64, instances / 2, true);
    if (!has_avx)
        skip();
}

static void test_x87(void **state)
{
    (void)state;
    run_random(random_x87_opcode, X86_CODE_64, instances, true);
}

static void test_unmasked(void **state)
{
    (void)state;
    run_random(random_legacy, X86_CODE_64, instances / 10, false);
    run_random(random_x87_opcode, X86_CODE_64, instances / 5, false);
    if (has_avx)
        run_random(random_vex, X86_CODE_64, instances / 10, false);
    if (has_avx512)
        run_random(random_evex, X86_CODE_64, instances / 10, false);
}

static void test_16_and_32_bit_code(void **state)
{
    (void)state;
    for (unsigned size = X86_CODE_16; size <= X86_CODE_32; size++) {
        run_random(random_legacy, size, instances / 4, true);
        run_random(random_x87_opcode, size, instances / 8, true);
        if (has_avx)
            run_random(random_vex, size, instances / 4, true);
        if (has_avx512)
            run_random(random_evex, size, instances / 4, true);
    }
}

/* ---- particular cases ---- */

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1

/* Decode and build one instruction, with a known state. */
static void build_bytes(enum x86_code_size size, const uint8_t *bytes, size_t length)
{
    static struct insn insn;
    uint8_t padded[X86_MAX_INSN_BYTES] = {0};

    memcpy(padded, bytes, length);
    assert_int_equal(x86_decode(size, false, padded, sizeof(padded), &insn), DECODE_OK);
    assert_int_equal(insn.info.length, length);
    random_state(true);
    cpu->code_size = size;
    cpu->cpu.s.gpr[X86_RBX] = (uintptr_t)guest;
    tlb_hits = false;
    reset_tlb();
    assert_true(build(&insn));
}

static const struct {
    const char *name;
    const uint8_t *bytes;
    size_t length;
    uint64_t cr0_set, cr4_clear, xcr0_clear;
    int vector; /* -1: runs */
} enabling[] = {
    {"addps", BYTES("\x0f\x58\xc1"), 0, 0, 0, -1},
    {"addps, EM", BYTES("\x0f\x58\xc1"), X86_CR0_EM, 0, 0, X86_UD},
    {"addps, TS", BYTES("\x0f\x58\xc1"), X86_CR0_TS, 0, 0, X86_NM},
    {"addps, EM and TS", BYTES("\x0f\x58\xc1"), X86_CR0_EM | X86_CR0_TS, 0, 0, X86_UD},
    {"addps, no OSFXSR", BYTES("\x0f\x58\xc1"), 0, X86_CR4_OSFXSR, 0, X86_UD},
    {"addps, no OSXSAVE", BYTES("\x0f\x58\xc1"), 0, X86_CR4_OSXSAVE, 0, -1},
    {"movups load", BYTES("\x0f\x10\x03"), 0, 0, 0, -1},
    {"movups load, TS", BYTES("\x0f\x10\x03"), X86_CR0_TS, 0, 0, X86_NM},
    {"movups store, no OSFXSR", BYTES("\x0f\x11\x03"), 0, X86_CR4_OSFXSR, 0, X86_UD},
    {"addps load, TS", BYTES("\x0f\x58\x03"), X86_CR0_TS, 0, 0, X86_NM},
    {"ldmxcsr, EM", BYTES("\x0f\xae\x13"), X86_CR0_EM, 0, 0, X86_UD},
    {"stmxcsr, TS", BYTES("\x0f\xae\x1b"), X86_CR0_TS, 0, 0, X86_NM},
    {"paddb mm", BYTES("\x0f\xfc\xc1"), 0, X86_CR4_OSFXSR, 0, -1},
    {"paddb mm, EM", BYTES("\x0f\xfc\xc1"), X86_CR0_EM, 0, 0, X86_UD},
    {"paddb mm, TS", BYTES("\x0f\xfc\xc1"), X86_CR0_TS, 0, 0, X86_NM},
    {"maskmovq, EM", BYTES("\x0f\xf7\xc1"), X86_CR0_EM, 0, 0, X86_UD},
    {"fadd", BYTES("\xd8\xc1"), 0, X86_CR4_OSFXSR, 0, -1},
    {"fadd, EM", BYTES("\xd8\xc1"), X86_CR0_EM, 0, 0, X86_NM},
    {"fadd, TS", BYTES("\xd8\xc1"), X86_CR0_TS, 0, 0, X86_NM},
    {"fninit, TS", BYTES("\xdb\xe3"), X86_CR0_TS, 0, 0, X86_NM},
    {"fldcw, EM", BYTES("\xd9\x2b"), X86_CR0_EM, 0, 0, X86_NM},
    {"fwait, TS", BYTES("\x9b"), X86_CR0_TS, 0, 0, -1},
    {"fwait, MP", BYTES("\x9b"), X86_CR0_MP, 0, 0, -1},
    {"fwait, MP and TS", BYTES("\x9b"), X86_CR0_MP | X86_CR0_TS, 0, 0, X86_NM},
    {"vaddps", BYTES("\xc5\xf4\x58\xc2"), X86_CR0_EM, X86_CR4_OSFXSR, 0xe0, -1},
    {"vaddps, TS", BYTES("\xc5\xf4\x58\xc2"), X86_CR0_TS, 0, 0, X86_NM},
    {"vaddps, no OSXSAVE", BYTES("\xc5\xf4\x58\xc2"), 0, X86_CR4_OSXSAVE, 0, X86_UD},
    {"vaddps, no AVX state", BYTES("\xc5\xf4\x58\xc2"), X86_CR0_TS, 0, 4, X86_UD},
    {"vmovups load, no AVX state", BYTES("\xc5\xfc\x10\x03"), 0, 0, 4, X86_UD},
    {"vzeroupper, TS", BYTES("\xc5\xf8\x77"), X86_CR0_TS, 0, 0, X86_NM},
    {"vpaddd zmm", BYTES("\x62\xf1\x75\x48\xfe\xc2"), X86_CR0_EM, 0, 0, -1},
    {"vpaddd zmm, no opmask state", BYTES("\x62\xf1\x75\x48\xfe\xc2"), 0, 0, 0x20, X86_UD},
    {"vpaddd zmm, TS", BYTES("\x62\xf1\x75\x48\xfe\xc2"), X86_CR0_TS, 0, 0, X86_NM},
    {"kmovw, no ZMM state", BYTES("\xc5\xf8\x90\xc1"), 0, 0, 0x40, X86_UD},
};

static void test_enabling(void **state)
{
    struct x86_state *s = &cpu->cpu.s;
    uint64_t cr0 = s->cr0, cr4 = s->cr4, xcr0 = s->xcr0;

    (void)state;
    move_signals(false);
    for (size_t n = 0; n < sizeof(enabling) / sizeof(enabling[0]); n++) {
        uint8_t first = enabling[n].bytes[0];
        int vector;

        if ((first == 0xc5 && !has_avx) || (first == 0x62 && !has_avx512) ||
            (first == 0xc5 && enabling[n].bytes[2] == 0x90 && !has_avx512)) /* KMOVW */
            continue;
        build_bytes(X86_CODE_64, enabling[n].bytes, enabling[n].length);
        memset(guest, 0, 64);
        s->cr0 = cr0 | enabling[n].cr0_set;
        s->cr4 = cr4 & ~enabling[n].cr4_clear;
        s->xcr0 = xcr0 & ~enabling[n].xcr0_clear;
        host_stub_refresh(cpu);
        vector = run_guest();
        s->cr0 = cr0;
        s->cr4 = cr4;
        s->xcr0 = xcr0;
        if (vector != enabling[n].vector)
            fail_msg("%s: vector %d, not %d", enabling[n].name, vector, enabling[n].vector);
    }
}

/* DIVPS by zero with #Z unmasked: nothing but the flag changes; the vector depends on OSXMMEXCPT.
 */
static void test_simd_exception(void **state)
{
    static const float one[4] = {1, 1, 1, 1};
    struct x86_state *s = &cpu->cpu.s;
    uint8_t before[16];

    (void)state;
    move_signals(false);
    for (unsigned n = 0; n < 2; n++) {
        build_bytes(X86_CODE_64, BYTES("\x0f\x5e\xc1"));
        memcpy(s->fpu.zmm[0], one, 16);
        memset(s->fpu.zmm[1], 0, 16);
        memcpy(before, s->fpu.zmm[0], 16);
        s->fpu.mxcsr = 0x1f80 & ~0x200u;
        if (n)
            s->cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
        assert_int_equal(run_guest(), n ? X86_UD : X86_XM);
        s->cr4 |= X86_CR4_OSXMMEXCPT;
        assert_memory_equal(before, s->fpu.zmm[0], 16);
        assert_int_equal(s->fpu.mxcsr, (0x1f80 & ~0x200u) | 4);
    }
}

/* FLD m32: address, opcode and selectors of the instruction and its operand are remembered. */
static void test_x87_pointers(void **state)
{
    struct x86_fpu *fpu = &cpu->cpu.s.fpu;

    (void)state;
    move_signals(false);
    build_bytes(X86_CODE_64, BYTES("\xd9\x43\x04"));
    fpu->ftw = 0;
    cpu->page_rip = 0x123456789000ull;
    ops[0].page_offset = 0x321;
    cpu->cpu.s.seg[X86_CS].selector = 0x33;
    cpu->cpu.s.seg[X86_DS].selector = 0x2b;
    assert_int_equal(run_guest(), -1);
    assert_int_equal(fpu->fip, 0x123456789321ull);
    assert_int_equal(fpu->fdp, (uintptr_t)guest + 4);
    assert_int_equal(fpu->fop, 0x143);
    assert_int_equal(fpu->fcs, 0x33);
    assert_int_equal(fpu->fds, 0x2b);
    /* Control instructions do not count. */
    build_bytes(X86_CODE_64, BYTES("\xd9\x7b\x08"));
    fpu->fop = 0x111;
    assert_int_equal(run_guest(), -1);
    assert_int_equal(fpu->fop, 0x111);
    assert_int_equal(fpu->fip, 0x123456789321ull);
    cpu->page_rip = 0;
}

static unsigned word(unsigned n)
{
    return guest[2 * n] | (unsigned)guest[2 * n + 1] << 8;
}

static void known_environment(void)
{
    struct x86_fpu *fpu = &cpu->cpu.s.fpu;

    memset(guest, 0, 64);
    fpu->fcw = 0x37f;
    fpu->fsw = 0x0800; /* TOP = 1 */
    fpu->ftw = 0x06;   /* ST(0) and ST(1) */
    memset(fpu->st, 0, sizeof(fpu->st));
    fpu->st[1][7] = 0x80; /* 1.0 */
    put16(fpu->st[1] + 8, 0x3fff);
    fpu->fip = 0x123456;
    fpu->fcs = 0x1000;
    fpu->fdp = 0x00abcd;
    fpu->fds = 0x2000;
    fpu->fop = 0x5aa;
}

/* SDM vol. 1, figures 8-9 to 8-12. */
static void test_environments(void **state)
{
    static const struct {
        bool wide, protected;
        uint16_t words[14];
    } expected[] = {
        {true,
         true,
         {0x37f, 0xffff, 0x800, 0xffff, 0xffc7, 0xffff, 0x3456, 0x12, 0x1000, 0x5aa, 0xabcd, 0,
          0x2000, 0xffff}},
        {true,
         false,
         {0x37f, 0xffff, 0x800, 0xffff, 0xffc7, 0xffff, 0x3456, 0xffff, 0x35aa, 1, 0xabcd, 0xffff,
          0x2000, 0}},
        {false, true, {0x37f, 0x800, 0xffc7, 0x3456, 0x1000, 0xabcd, 0x2000}},
        {false, false, {0x37f, 0x800, 0xffc7, 0x3456, 0x35aa, 0xabcd, 0x2000}},
    };
    struct x86_fpu *fpu = &cpu->cpu.s.fpu;

    (void)state;
    move_signals(false);
    for (size_t n = 0; n < sizeof(expected) / sizeof(expected[0]); n++) {
        enum x86_code_size size = expected[n].wide ? X86_CODE_32 : X86_CODE_16;
        struct x86_fpu before;

        build_bytes(size,
                    size == X86_CODE_32 ? (const uint8_t *)"\xd9\x33"
                                        : (const uint8_t *)"\x67\xd9\x33",
                    size == X86_CODE_32 ? 2 : 3);
        known_environment();
        before = *fpu;
        if (!expected[n].protected)
            cpu->cpu.s.cr0 &= ~(uint64_t)X86_CR0_PE;
        assert_int_equal(run_guest(), -1);
        for (unsigned k = 0; k < (expected[n].wide ? 14u : 7u); k++)
            if (word(k) != expected[n].words[k])
                fail_msg("format %zu, word %u: 0x%x, not 0x%x", n, k, word(k),
                         expected[n].words[k]);
        /* And back. */
        build_bytes(size,
                    size == X86_CODE_32 ? (const uint8_t *)"\xd9\x23"
                                        : (const uint8_t *)"\x67\xd9\x23",
                    size == X86_CODE_32 ? 2 : 3);
        known_environment();
        for (unsigned k = 0; k < 14; k++)
            put16(guest + 2 * k, expected[n].words[k]);
        fpu->fcw = 0x27f;
        fpu->ftw = 0;
        fpu->fip = fpu->fdp = 0;
        assert_int_equal(run_guest(), -1);
        cpu->cpu.s.cr0 |= X86_CR0_PE;
        assert_int_equal(fpu->fcw, before.fcw);
        assert_int_equal(fpu->fsw, before.fsw);
        assert_int_equal(fpu->ftw, before.ftw);
        if (expected[n].protected) {
            assert_int_equal(fpu->fip, expected[n].wide ? 0x123456 : 0x3456);
            assert_int_equal(fpu->fcs, 0x1000);
            assert_int_equal(fpu->fds, 0x2000);
        } else {
            assert_int_equal(fpu->fip, expected[n].wide ? 0x133456 : 0x33456); /* 20 bits */
            assert_int_equal(fpu->fdp, 0x2abcd);
            assert_int_equal(fpu->fop, 0x5aa);
        }
    }
}

/* PSHUFD, PSHUFHW and PSHUFLW xmm, xmm, imm8: the nth of 49152 different instructions. */
static void build_nth(unsigned n, struct insn *insn, bool *out_flush)
{
    static const uint8_t prefixes[] = {0x66, 0xf3, 0xf2};
    uint8_t bytes[X86_MAX_INSN_BYTES] = {
        prefixes[n >> 14 & 3], 0x0f, 0x70, (uint8_t)(0xc0 | (n >> 8 & 63)), (uint8_t)n,
    };

    assert_int_equal(x86_decode(X86_CODE_64, false, bytes, sizeof(bytes), insn), DECODE_OK);
    memset(ops, 0, sizeof(ops));
    ops[1].run = stop;
    assert_true(host_stub_build(cpu, insn, &ops[0], out_flush));
}

/* More different instructions than there is room for: all stubs go at once, and it goes on. */
static void test_full_area(void **state)
{
    unsigned n, at_first_flush = 0;
    struct insn insn;

    (void)state;
    move_signals(false);
    random_state(true);
    cpu->code_size = X86_CODE_64;
    for (n = 0; n < 49152; n++) {
        bool flush = false;

        build_nth(n, &insn, &flush);
        if (flush && at_first_flush)
            break;
        if (flush) {
            at_first_flush = n;
            run_both(&insn, insn.bytes, insn.info.length);
        }
    }
    assert_in_range(n - at_first_flush, 8192, 49152 - 1);
    run_both(&insn, insn.bytes, insn.info.length);
}

/* Instructions that the model does not have are not built. */
static void test_model(void **state)
{
    struct cpu_model small;
    struct error err = {0};
    struct insn insn;
    bool flush;

    (void)state;
    assert_int_equal(cpu_model_parse("x86-64-v2", 1, &small, &err), 0);
    cpu->cpu.model = &small;
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\xc5\xf4\x58\xc2"), &insn), DECODE_OK);
    assert_false(host_stub_build(cpu, &insn, &ops[0], &flush));
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\xc5\xfc\x10\x03"), &insn), DECODE_OK);
    assert_false(host_stub_build(cpu, &insn, &ops[0], &flush));
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\xc5\xf8\x77"), &insn), DECODE_OK);
    assert_false(host_stub_build(cpu, &insn, &ops[0], &flush));
    assert_int_equal(x86_decode(X86_CODE_64, false, BYTES("\x66\x0f\x38\x00\xc1"), &insn),
                     DECODE_OK); /* PSHUFB */
    assert_true(host_stub_build(cpu, &insn, &ops[0], &flush));
    cpu->cpu.model = &model;
}

/* ---- set-up ---- */

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    arena = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    guest = arena + GUARD_PAGES * 4096;
    mprotect(guest, GUEST_BYTES, PROT_READ | PROT_WRITE);
    cpu = aligned_alloc(64, (sizeof(*cpu) + 63) / 64 * 64);
    memset(cpu, 0, sizeof(*cpu));
    if (cpu_model_parse("max", 1, &model, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    has_avx = model.xcr0 & X86_XCR0_AVX;
    has_avx512 = model.xcr0 & X86_XCR0_ZMM_HI256;
    cpu->cpu.model = &model;
    cpu->cpu.s.cr0 = X86_CR0_PE | X86_CR0_NE;
    cpu->cpu.s.cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    cpu->cpu.s.xcr0 = model.xcr0 & ~(uint64_t)X86_XCR0_PKRU;
    cpu->code_size = X86_CODE_64;
    cpu->tlb = cpu->tlbs[TLB_USER];
    if (host_code_new(&thunk.code, 65536, false, &err) < 0 ||
        host_code_guard(&thunk.code, on_thunk_trap, &err) < 0 || host_stubs_new(cpu, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    move_signals(true);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    host_stubs_free(cpu);
    host_code_unguard(&thunk.code);
    host_code_free(&thunk.code);
    free(cpu);
    munmap(arena, ARENA_BYTES);
    return 0;
}

int main(void)
{
    const char *text = getenv("HOST_STUB_SEED");

    if (text)
        seed += strtoull(text, NULL, 0) << 1;
    if ((text = getenv("HOST_STUB_INSTANCES")))
        instances = (unsigned)strtoul(text, NULL, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_vex),
        cmocka_unit_test(test_evex),
        cmocka_unit_test(test_gathers),
        cmocka_unit_test(test_x87),
        cmocka_unit_test(test_unmasked),
        cmocka_unit_test(test_16_and_32_bit_code),
        cmocka_unit_test(test_enabling),
        cmocka_unit_test(test_simd_exception),
        cmocka_unit_test(test_x87_pointers),
        cmocka_unit_test(test_environments),
        cmocka_unit_test(test_full_area),
        cmocka_unit_test(test_model),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
