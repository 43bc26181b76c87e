/*
 * host_stub_rig.c - an instruction run as it is, and as the guest's
 */
#include "host_stub_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/mman.h>

#pragma GCC diagnostic ignored "-Wmissing-prototypes" /* stand-ins of the library's functions */

/* ---- guest memory: some pages with nothing around them ---- */

#define GUARD_PAGES 4u /* as far as a displacement reaches */
#define ARENA_BYTES (RIG_BYTES + 2 * GUARD_PAGES * 4096u)
struct rig rig;
static uint8_t *arena; /* with the guards */

static int raised; /* vector, or -1 */

static bool is_mapped(uint64_t linear)
{
    return linear - (uintptr_t)rig.guest < RIG_BYTES;
}

void rig_fill_tlb(uint64_t linear)
{
    struct tlb_entry *e = tlb_slot(rig.cpu, linear);

    if (rig.tlb_hits) {
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
    rig_fill_tlb(linear);
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

static uint64_t seed = 0x9e3779b97f4a7c15ull; /* HOST_STUB_SEED adds to it */

uint64_t rig_random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull;
}

unsigned rig_below(unsigned n)
{
    return (unsigned)((rig_random64() >> 32) % n);
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
    switch (rig_below(4)) {
    case 0:
        return interesting[rig_below(sizeof(interesting) / sizeof(interesting[0]))];
    case 1:
        return 0x3ff0000000000000ull | rig_random64() >> 12;
    case 2: {
        uint32_t low = 0x3f000000u | (uint32_t)(rig_random64() >> 40);
        uint32_t high = 0xbf000000u | (uint32_t)(rig_random64() >> 40);

        return low | (uint64_t)high << 32;
    }
    default:
        return rig_random64();
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

    if (rig.has_avx512) {
        t8(0x62);
        t8(0x41 | not_r << 7 | not_r2 << 4);
        t8(0x7c);
        t8(0x48);
    } else if (n < 16 && rig.has_avx) {
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
    for (unsigned n = 0; rig.has_avx512 && n < 8; n++)
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
    if (rig.has_avx)
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

const struct op *rig_stop(struct icpu *c, const struct op *i)
{
    (void)c;
    (void)i;
    return NULL;
}

void rig_reset_tlb(void)
{
    for (unsigned n = 0; n < TLB_SIZE; n++)
        rig.cpu->tlb[n].read = rig.cpu->tlb[n].write = ~0ull;
}

uint16_t rig_gpr_offset(ZydisRegister reg)
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
        const struct insn_operand *o = &insn->operands[n];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        op->base = rig_gpr_offset(o->mem.base);
        op->index = rig_gpr_offset(o->mem.index);
        op->scale = o->mem.scale ? (uint8_t)__builtin_ctz(o->mem.scale) : 0;
        op->disp = o->mem.disp.value;
        op->ea = insn->info.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 ? EA_LIMITED
                 : o->mem.index == ZYDIS_REGISTER_NONE                 ? EA_BASE
                                                                       : EA_INDEX;
        op->seg = X86_DS;
    }
}

bool rig_build(const struct insn *insn)
{
    bool flush = false;

    memset(rig.ops, 0, sizeof(rig.ops));
    rig.ops[0].length = insn->info.length;
    rig.ops[1].run = rig_stop;
    fill_memory_operand(insn, &rig.ops[0]);
    if (!host_stub_build(rig.cpu, insn, &rig.ops[0], &flush))
        return false;
    return true;
}

/* Runs ops[0]; returns the vector raised or -1. */
int rig_run_guest(void)
{
    raised = -1;
    host_fpu_enter(rig.cpu);
    if (!setjmp(rig.cpu->unwind))
        for (const struct op *i = rig.ops; i; i = i->run(rig.cpu, i))
            ;
    host_fpu_leave(rig.cpu);
    return raised;
}

/* ---- state ---- */

void rig_put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void random_x87(struct x86_fpu *fpu, bool masked)
{
    fpu->fcw = (uint16_t)(0x340 | (masked ? 0x3f : rig_below(64)) | rig_below(4) << 10);
    if (rig_below(4) == 0)
        fpu->fcw &= (uint16_t)~0x100; /* another precision */
    fpu->fsw = (uint16_t)(rig_below(8) << 11 | (rig_below(16) & 7) << 8);
    if (!masked && rig_below(4) == 0)
        fpu->fsw |= (uint16_t)rig_below(64);
    if (fpu->fsw & ~fpu->fcw & 0x3f)
        fpu->fsw |= 0x8080; /* ES, B */
    fpu->ftw = (uint8_t)(rig_below(4) ? 0xff : rig_random64());
    for (unsigned n = 0; n < 8; n++) {
        uint64_t significand = rig_below(3) ? rig_random64() | 1ull << 63 : random_operand();
        unsigned exponent = rig_below(3) ? 0x3fff - 40 + rig_below(80) : (unsigned)rig_random64();

        memset(fpu->st[n], 0, 16);
        memcpy(fpu->st[n], &significand, 8);
        rig_put16(fpu->st[n] + 8, (exponent & 0x7fff) | (rig_below(2) << 15));
    }
}

void rig_random_state(bool masked)
{
    struct x86_state *s = &rig.cpu->cpu.s;
    unsigned width = rig.has_avx512 ? 64 : rig.has_avx ? 32 : 16;

    memset(s->fpu.zmm, 0, sizeof(s->fpu.zmm));
    for (unsigned n = 0; n < (rig.has_avx512 ? 32 : 16); n++)
        fill_random(s->fpu.zmm[n], width);
    for (unsigned n = 0; n < 8; n++)
        s->fpu.k[n] = !rig.has_avx512 ? 0
                      : rig_below(2)  ? rig_random64()
                                      : rig_random64() & rig_random64() & rig_random64();
    for (unsigned n = 0; n < 16; n++)
        s->gpr[n] = random_operand();
    s->gpr[X86_RSP] = s->gpr[X86_R15] = 0;
    s->rflags = X86_FLAG_FIXED | X86_FLAG_IF | (rig_random64() & X86_FLAGS_STATUS);
    random_x87(&s->fpu, masked);
    s->fpu.mxcsr = (masked ? 0x1f80 : rig_below(64) << 7) | rig_below(4) << 13 |
                   (rig_below(4) == 0) << 6 | (rig_below(4) == 0 ? 0x8000u : 0);
    fill_random(rig.guest, RIG_BYTES);
}

static void to_registers(struct registers *r)
{
    const struct x86_state *s = &rig.cpu->cpu.s;

    memset(r, 0, sizeof(*r));
    memcpy(r->zmm, s->fpu.zmm, sizeof(r->zmm));
    memcpy(r->k, s->fpu.k, sizeof(r->k));
    memcpy(r->gpr, s->gpr, sizeof(r->gpr));
    r->rflags = s->rflags;
    rig_put16(r->fx, s->fpu.fcw);
    rig_put16(r->fx + 2, s->fpu.fsw);
    r->fx[4] = s->fpu.ftw;
    memcpy(r->fx + 24, &s->fpu.mxcsr, 4);
    memcpy(r->fx + 32, s->fpu.st, sizeof(s->fpu.st));
    memcpy(r->fx + 160, s->fpu.zmm, 0);
}

void rig_fail_insn(const struct insn *insn, const char *what, unsigned n)
{
    char bytes[64] = "";

    for (unsigned k = 0; k < insn->info.length; k++)
        snprintf(bytes + 3 * k, 4, "%02x ", insn->bytes[k]);
    x86_disassemble(X86_CODE_64, insn->bytes, insn->info.length, 0, rig.text, sizeof(rig.text));
    fail_msg("%s%s: %s %u differs", bytes, rig.text, what, n);
}

static void compare_x87(const struct insn *insn, const struct registers *r)
{
    const struct x86_fpu *fpu = &rig.cpu->cpu.s.fpu;
    uint16_t fcw, fsw;

    memcpy(&fcw, r->fx, 2);
    memcpy(&fsw, r->fx + 2, 2);
    if (fcw != fpu->fcw)
        rig_fail_insn(insn, "FCW", fcw);
    if (fsw != fpu->fsw)
        rig_fail_insn(insn, "FSW", fsw);
    if (r->fx[4] != fpu->ftw)
        rig_fail_insn(insn, "FTW", r->fx[4]);
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(r->fx + 32 + 16 * n, fpu->st[n], 10))
            rig_fail_insn(insn, "st", n);
}

static void compare(const struct insn *insn, const struct registers *r)
{
    const struct x86_state *s = &rig.cpu->cpu.s;
    uint32_t mxcsr;

    for (unsigned n = 0; n < 32; n++)
        if (memcmp(r->zmm[n], s->fpu.zmm[n], 64))
            rig_fail_insn(insn, "zmm", n);
    for (unsigned n = 0; n < 8; n++)
        if (r->k[n] != s->fpu.k[n])
            rig_fail_insn(insn, "k", n);
    for (unsigned n = 0; n < 15; n++)
        if (n != X86_RSP && r->gpr[n] != s->gpr[n])
            rig_fail_insn(insn, "gpr", n);
    if ((r->rflags ^ s->rflags) & X86_FLAGS_STATUS)
        rig_fail_insn(insn, "flags", (unsigned)r->rflags);
    memcpy(&mxcsr, r->fx + 24, 4);
    if (mxcsr != s->fpu.mxcsr)
        rig_fail_insn(insn, "mxcsr", mxcsr);
    compare_x87(insn, r);
}

/* ---- one instance, both ways ---- */

static uint8_t guest_before[RIG_BYTES], guest_direct[RIG_BYTES];

static int trap_of_vector(int vector)
{
    switch (vector) {
    case X86_UD:
        return HOST_TRAP_UNDEFINED;
    case X86_XM:
        return HOST_TRAP_SIMD;
    case X86_MF:
        return HOST_TRAP_X87;
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
    if (linear - (uintptr_t)rig.guest + 28 <= RIG_BYTES)
        memset(memory + (linear - (uintptr_t)rig.guest) + 12, 0, 16);
}

/* direct: bytes of 64-bit code that mean the same as insn. */
void rig_run_both(const struct insn *insn, const uint8_t *direct, size_t direct_length)
{
    static struct registers r;
    uint64_t operand;
    bool completed, is_foreign;
    int vector;

    memcpy(guest_before, rig.guest, RIG_BYTES);
    to_registers(&r);
    completed = run_thunk(&r, direct, direct_length);
    is_foreign = ea_raw(rig.cpu, &rig.ops[0]) - (uintptr_t)arena >= ARENA_BYTES;
    operand = (uint32_t)ea_raw(rig.cpu, &rig.ops[0]);
    memcpy(guest_direct, rig.guest, RIG_BYTES);
    memcpy(rig.guest, guest_before, RIG_BYTES);
    vector = rig_run_guest();
    if (completed && vector == X86_GP && insn->info.meta.isa_set == ZYDIS_ISA_SET_SHA)
        return; /* AMD's do not need the alignment that SDM vol. 2, 2.4.4 asks for */
    if (completed && vector == X86_PF && is_foreign)
        return; /* something of this process is there, such as a sanitizer's shadow */
    if (completed != (vector < 0))
        rig_fail_insn(insn, completed ? "raised" : "not raised", (unsigned)vector);
    if (!completed) {
        if (trap_of_vector(vector) != thunk_trap)
            rig_fail_insn(insn, "exception", (unsigned)vector);
        return;
    }
    compare(insn, &r);
    if (is_environment(insn->info.mnemonic)) {
        clear_pointers(guest_direct, operand);
        clear_pointers(rig.guest, operand);
    }
    if (memcmp(guest_direct, rig.guest, RIG_BYTES))
        rig_fail_insn(insn, "memory", 0);
}

/* cmocka puts its own handlers in the way for each test. */
static const int signals[] = {SIGILL, SIGFPE, SIGSEGV, SIGBUS};
static struct sigaction trap_actions[4];

void rig_move_signals(bool save)
{
    for (unsigned n = 0; n < 4; n++)
        sigaction(signals[n], save ? NULL : &trap_actions[n], save ? &trap_actions[n] : NULL);
}

/* ---- set-up ---- */

int rig_set_up(void **state)
{
    const char *text = getenv("HOST_STUB_SEED");
    struct error err = {0};

    (void)state;
    if (text)
        seed += strtoull(text, NULL, 0) << 1;
    arena = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    rig.guest = arena + GUARD_PAGES * 4096;
    mprotect(rig.guest, RIG_BYTES, PROT_READ | PROT_WRITE);
    rig.cpu = aligned_alloc(64, (sizeof(*rig.cpu) + 63) / 64 * 64);
    memset(rig.cpu, 0, sizeof(*rig.cpu));
    if (cpu_model_parse("max", 1, &rig.model, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    rig.has_avx = rig.model.xcr0 & X86_XCR0_AVX;
    rig.has_avx512 = rig.model.xcr0 & X86_XCR0_ZMM_HI256;
    rig.cpu->cpu.model = &rig.model;
    rig.cpu->cpu.s.cr0 = X86_CR0_PE | X86_CR0_NE;
    rig.cpu->cpu.s.cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    rig.cpu->cpu.s.xcr0 = rig.model.xcr0 & ~(uint64_t)X86_XCR0_PKRU;
    rig.cpu->code_size = X86_CODE_64;
    rig.cpu->tlb = rig.cpu->tlbs[TLB_USER];
    if (host_code_new(&thunk.code, 65536, NULL, &err) < 0 ||
        host_code_guard(&thunk.code, on_thunk_trap, &err) < 0 ||
        host_stubs_new(rig.cpu, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    rig_move_signals(true);
    return 0;
}

int rig_tear_down(void **state)
{
    (void)state;
    host_stubs_free(rig.cpu);
    host_code_unguard(&thunk.code);
    host_code_free(&thunk.code);
    free(rig.cpu);
    munmap(arena, ARENA_BYTES);
    return 0;
}
