/*
 * fpu.c - x87 and MXCSR state of the guest in the host's registers
 *
 * While a vCPU runs, the host's MXCSR holds the guest's rounding, denormal and sticky bits
 * with all exceptions masked. The guest's x87 (and MMX) registers are put into the host's by the
 * first instruction that uses them and taken out when run() ends or somebody needs s.fpu;
 * our own code is compiled to leave x87 alone. s.fpu.fcw is always up to date.
 *
 * Environments, FNSAVE areas and their pointers (SDM vol. 1, 8.1.8 and 8.1.10) are made from
 * s.fpu: what the host recorded as the last x87 instruction would be a stub.
 *
 * CR0.NE = 0 asks for FERR# and interrupt 13; exceptions come as #MF all the same.
 */
#include "engine/interpreter/host_stub.h"

#include <assert.h>

#define FCW_INIT  0x37fu
#define FCW_VALID 0x1f3fu
#define FCW_ONE   0x40u /* reads as one */
#define FSW_IE    0x01u
#define FSW_OE    0x08u
#define FSW_UE    0x10u
#define FSW_ES    0x80u
#define FSW_B     0x8000u
#define ST_BYTES  10u

/* ---- the host's registers ---- */

/* FXSAVE64 (SDM vol. 1, table 10-2). */
struct fx_image {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t rest[96];
} __attribute__((aligned(16)));
static_assert(sizeof(struct fx_image) == 512, "FXSAVE image");

static uint32_t get_mxcsr(void)
{
    uint32_t value;

    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}

static void set_mxcsr(uint32_t value)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(value));
}

static uint16_t get_fsw(void)
{
    uint16_t value;

    __asm__ volatile("fnstsw %0" : "=a"(value));
    return value;
}

/* FSW as it is with the control word: ES and B say whether an unmasked exception is pending. */
static uint16_t summarised(const struct x86_fpu *fpu)
{
    uint16_t fsw = fpu->fsw & (uint16_t) ~(FSW_ES | FSW_B);

    return fsw & ~fpu->fcw & FCW_MASKS ? fsw | FSW_ES | FSW_B : fsw;
}

void fpu_load_x87(struct icpu *c)
{
    const struct x86_fpu *fpu = &c->cpu.s.fpu;
    struct fx_image image = {.fcw = fpu->fcw, .fsw = summarised(fpu), .ftw = fpu->ftw};

    if (c->x87_loaded)
        return;
    image.mxcsr = get_mxcsr();
    memcpy(image.st, fpu->st, sizeof(image.st));
    __asm__ volatile("fxrstor64 %0"
                     :
                     : "m"(image)
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    __asm__ volatile("fnstcw %0" : "=m"(c->cpu.s.fpu.fcw));
    c->x87_loaded = true;
    host_stub_refresh(c);
}

static void drop_x87(struct icpu *c)
{
    __asm__ volatile("fninit");
    c->x87_loaded = false;
    c->fpu_blocked |= FPU_X87;
}

static void save_x87(struct icpu *c)
{
    struct x86_fpu *fpu = &c->cpu.s.fpu;
    struct fx_image image;

    __asm__ volatile("fxsave64 %0" : "=m"(image));
    fpu->fcw = image.fcw;
    fpu->fsw = image.fsw;
    fpu->ftw = image.ftw;
    memset(fpu->st, 0, sizeof(fpu->st));
    for (unsigned n = 0; n < 8; n++)
        memcpy(fpu->st[n], image.st[n], ST_BYTES);
    drop_x87(c);
}

/* ---- moving state ---- */

void fpu_mask_mxcsr(struct icpu *c)
{
    c->cpu.s.fpu.mxcsr |= get_mxcsr() & MXCSR_FLAGS;
    set_mxcsr((c->cpu.s.fpu.mxcsr & MXCSR_VALID) | MXCSR_MASKS);
}

void fpu_unmask_mxcsr(struct icpu *c)
{
    c->cpu.s.fpu.mxcsr |= get_mxcsr() & MXCSR_FLAGS;
    set_mxcsr(c->cpu.s.fpu.mxcsr & MXCSR_VALID);
}

static void set_guest_mxcsr(struct icpu *c)
{
    set_mxcsr((c->cpu.s.fpu.mxcsr & MXCSR_VALID) | MXCSR_MASKS);
}

void host_fpu_enter(struct icpu *c)
{
    c->stubs->host_mxcsr = get_mxcsr();
    c->stubs->in_run = true;
    set_guest_mxcsr(c);
    host_stub_refresh(c);
}

void host_fpu_leave(struct icpu *c)
{
    host_fpu_to_state(c);
    set_mxcsr(c->stubs->host_mxcsr);
    c->stubs->in_run = false;
}

void host_fpu_to_state(struct icpu *c)
{
    if (!c->stubs->in_run)
        return;
    c->cpu.s.fpu.mxcsr |= get_mxcsr() & MXCSR_FLAGS;
    if (c->x87_loaded)
        save_x87(c);
}

void host_fpu_from_state(struct icpu *c)
{
    if (!c->stubs->in_run)
        return;
    if (c->x87_loaded)
        drop_x87(c);
    set_guest_mxcsr(c);
    host_stub_refresh(c);
}

/* ---- x87 exceptions and pointers ---- */

void fpu_check_pending(struct icpu *c, const struct op *i)
{
    if (get_fsw() & FSW_ES)
        interp_raise(c, i, X86_MF);
}

/* SDM vol. 1, 8.5: unmasked #IA, #IS, #O and #U keep a result from being stored. None was pending.
 */
bool fpu_store_suppressed(const struct icpu *c)
{
    return get_fsw() & ~c->cpu.s.fpu.fcw & (FSW_IE | FSW_OE | FSW_UE);
}

static void begin(struct icpu *c, const struct op *i, bool wait)
{
    host_stub_check(c, i, FPU_X87, false);
    fpu_load_x87(c);
    if (wait)
        fpu_check_pending(c, i);
}

/* ---- control instructions ---- */

static const struct op *run_fwait(struct icpu *c, const struct op *i)
{
    const uint64_t both = X86_CR0_MP | X86_CR0_TS;

    if (likely(!(c->fpu_blocked & FPU_X87)))
        NEXT(c, i);
    if ((c->cpu.s.cr0 & both) == both)
        interp_raise(c, i, X86_NM);
    fpu_load_x87(c);
    fpu_check_pending(c, i);
    NEXT(c, i);
}

static void clear_pointers(struct x86_fpu *fpu)
{
    fpu->fip = fpu->fdp = 0;
    fpu->fcs = fpu->fds = fpu->fop = 0;
}

static void initialise(struct icpu *c)
{
    __asm__ volatile("fninit");
    c->cpu.s.fpu.fcw = FCW_INIT;
    clear_pointers(&c->cpu.s.fpu);
    host_stub_refresh(c);
}

static const struct op *run_fninit(struct icpu *c, const struct op *i)
{
    begin(c, i, false);
    initialise(c);
    NEXT(c, i);
}

static const struct op *run_fldcw(struct icpu *c, const struct op *i)
{
    uint16_t value;

    begin(c, i, true);
    value = load16(c, i, ea(c, i, 2, X86_ACCESS_READ));
    __asm__ volatile("fldcw %1; fnstcw %0" : "=m"(c->cpu.s.fpu.fcw) : "m"(value));
    host_stub_refresh(c);
    NEXT(c, i);
}

/* ---- environments (SDM vol. 1, figures 8-9 to 8-12) ---- */

#define ENV_MAX_BYTES  28u
#define SAVE_MAX_BYTES (ENV_MAX_BYTES + 8 * ST_BYTES)

enum tag { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static enum tag tag_of(const uint8_t *st)
{
    uint64_t significand;
    uint16_t exponent;

    memcpy(&significand, st, sizeof(significand));
    memcpy(&exponent, st + 8, sizeof(exponent));
    exponent &= 0x7fff;
    if (!exponent && !significand)
        return TAG_ZERO;
    if (exponent == 0 || exponent == 0x7fff || !(significand >> 63))
        return TAG_SPECIAL;
    return TAG_VALID;
}

static unsigned top_of(const struct x86_fpu *fpu)
{
    return fpu->fsw >> 11 & 7;
}

static uint16_t full_tags(const struct x86_fpu *fpu)
{
    unsigned tags = 0;

    for (unsigned r = 0; r < 8; r++)
        tags |= (unsigned)(fpu->ftw >> r & 1 ? tag_of(fpu->st[(r - top_of(fpu)) & 7]) : TAG_EMPTY)
                << (2 * r);
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
    unsigned present = 0;

    for (unsigned r = 0; r < 8; r++)
        present |= (unsigned)((tags >> (2 * r) & 3) != TAG_EMPTY) << r;
    return (uint8_t)present;
}

/* Real and virtual-8086 mode have linear addresses there, and the opcode (not in FLDENV: lost). */
static bool has_linear_pointers(const struct icpu *c)
{
    return !x86_in_protected_mode(&c->cpu) || x86_in_v86_mode(&c->cpu);
}

static void put16(uint8_t *at, unsigned n, unsigned value)
{
    at[2 * n] = (uint8_t)value;
    at[2 * n + 1] = (uint8_t)(value >> 8);
}

static unsigned get16(const uint8_t *at, unsigned n)
{
    return at[2 * n] | (unsigned)at[2 * n + 1] << 8;
}

static void put_env_16(const struct icpu *c, uint8_t *env)
{
    const struct x86_fpu *fpu = &c->cpu.s.fpu;
    bool linear = has_linear_pointers(c);
    uint32_t ip = (uint32_t)fpu->fip + (linear ? (uint32_t)fpu->fcs << 4 : 0);
    uint32_t dp = (uint32_t)fpu->fdp + (linear ? (uint32_t)fpu->fds << 4 : 0);

    put16(env, 0, fpu->fcw);
    put16(env, 1, fpu->fsw);
    put16(env, 2, full_tags(fpu));
    put16(env, 3, ip);
    put16(env, 4, linear ? (ip >> 4 & 0xf000) | (fpu->fop & 0x7ff) : fpu->fcs);
    put16(env, 5, dp);
    put16(env, 6, linear ? dp >> 4 & 0xf000 : fpu->fds);
}

static void put_env_32(const struct icpu *c, uint8_t *env)
{
    const struct x86_fpu *fpu = &c->cpu.s.fpu;
    bool linear = has_linear_pointers(c);
    uint32_t ip = (uint32_t)fpu->fip + (linear ? (uint32_t)fpu->fcs << 4 : 0);
    uint32_t dp = (uint32_t)fpu->fdp + (linear ? (uint32_t)fpu->fds << 4 : 0);

    memset(env, 0xff, ENV_MAX_BYTES); /* reserved halves */
    put16(env, 0, fpu->fcw);
    put16(env, 2, fpu->fsw);
    put16(env, 4, full_tags(fpu));
    put16(env, 6, ip);
    put16(env, 10, dp);
    if (linear) {
        put16(env, 8, (ip >> 4 & 0xf000) | (fpu->fop & 0x7ff));
        put16(env, 9, ip >> 20);
        put16(env, 12, dp >> 4 & 0xf000);
        put16(env, 13, dp >> 20);
        return;
    }
    put16(env, 7, ip >> 16);
    put16(env, 8, fpu->fcs);
    put16(env, 9, fpu->fop & 0x7ff);
    put16(env, 11, dp >> 16);
    put16(env, 12, fpu->fds);
}

static void take_linear_pointers(struct x86_fpu *fpu, uint32_t ip, uint32_t dp, unsigned opcode)
{
    fpu->fip = ip;
    fpu->fdp = dp;
    fpu->fcs = fpu->fds = 0;
    fpu->fop = opcode & 0x7ff;
}

static void take_env_16(struct icpu *c, const uint8_t *env)
{
    struct x86_fpu *fpu = &c->cpu.s.fpu;

    fpu->fcw = (uint16_t)get16(env, 0);
    fpu->fsw = (uint16_t)get16(env, 1);
    fpu->ftw = abridged_tags((uint16_t)get16(env, 2));
    if (has_linear_pointers(c)) {
        take_linear_pointers(fpu, get16(env, 3) | (get16(env, 4) & 0xf000) << 4,
                             get16(env, 5) | (get16(env, 6) & 0xf000) << 4, get16(env, 4));
        return;
    }
    fpu->fip = get16(env, 3);
    fpu->fcs = (uint16_t)get16(env, 4);
    fpu->fdp = get16(env, 5);
    fpu->fds = (uint16_t)get16(env, 6);
}

static void take_env_32(struct icpu *c, const uint8_t *env)
{
    struct x86_fpu *fpu = &c->cpu.s.fpu;

    fpu->fcw = (uint16_t)get16(env, 0);
    fpu->fsw = (uint16_t)get16(env, 2);
    fpu->ftw = abridged_tags((uint16_t)get16(env, 4));
    if (has_linear_pointers(c)) {
        take_linear_pointers(
            fpu, get16(env, 6) | (get16(env, 8) & 0xf000) << 4 | get16(env, 9) << 20,
            get16(env, 10) | (get16(env, 12) & 0xf000) << 4 | get16(env, 13) << 20, get16(env, 8));
        return;
    }
    fpu->fip = get16(env, 6) | get16(env, 7) << 16;
    fpu->fcs = (uint16_t)get16(env, 8);
    fpu->fop = get16(env, 9) & 0x7ff;
    fpu->fdp = get16(env, 10) | get16(env, 11) << 16;
    fpu->fds = (uint16_t)get16(env, 12);
}

static unsigned put_env(const struct icpu *c, const struct op *i, uint8_t *env)
{
    if (i->extra == ENV_MAX_BYTES)
        put_env_32(c, env);
    else
        put_env_16(c, env);
    return i->extra;
}

static unsigned take_env(struct icpu *c, const struct op *i, const uint8_t *env)
{
    if (i->extra == ENV_MAX_BYTES)
        take_env_32(c, env);
    else
        take_env_16(c, env);
    c->cpu.s.fpu.fcw = (c->cpu.s.fpu.fcw & FCW_VALID) | FCW_ONE;
    c->cpu.s.fpu.fsw = summarised(&c->cpu.s.fpu);
    return i->extra;
}

static const struct op *run_fnstenv(struct icpu *c, const struct op *i)
{
    uint8_t env[ENV_MAX_BYTES];
    uint64_t linear;

    begin(c, i, false);
    linear = ea(c, i, i->extra, X86_ACCESS_WRITE);
    host_fpu_to_state(c);
    interp_store_bytes(c, i, linear, env, put_env(c, i, env));
    c->cpu.s.fpu.fcw |= FCW_MASKS;
    c->cpu.s.fpu.fsw = summarised(&c->cpu.s.fpu);
    host_fpu_from_state(c);
    NEXT(c, i);
}

/* The registers stay where they are while TOP moves by some: st[] is relative to it. */
static void rotate_stack(struct x86_fpu *fpu, unsigned by)
{
    uint8_t st[8][16];

    memcpy(st, fpu->st, sizeof(st));
    for (unsigned n = 0; n < 8; n++)
        memcpy(fpu->st[n], st[(n + by) & 7], sizeof(st[n]));
}

static const struct op *run_fldenv(struct icpu *c, const struct op *i)
{
    struct x86_fpu *fpu = &c->cpu.s.fpu;
    uint8_t env[ENV_MAX_BYTES];
    unsigned old_top;

    begin(c, i, true);
    interp_load_bytes(c, i, ea(c, i, i->extra, X86_ACCESS_READ), env, i->extra);
    host_fpu_to_state(c);
    old_top = top_of(fpu);
    take_env(c, i, env);
    rotate_stack(fpu, top_of(fpu) - old_top);
    host_fpu_from_state(c);
    NEXT(c, i);
}

static const struct op *run_fnsave(struct icpu *c, const struct op *i)
{
    uint8_t area[SAVE_MAX_BYTES];
    uint64_t linear;
    unsigned size;

    begin(c, i, false);
    linear = ea(c, i, i->extra + 8 * ST_BYTES, X86_ACCESS_WRITE);
    host_fpu_to_state(c);
    size = put_env(c, i, area);
    for (unsigned n = 0; n < 8; n++)
        memcpy(area + size + n * ST_BYTES, c->cpu.s.fpu.st[n], ST_BYTES);
    interp_store_bytes(c, i, linear, area, size + 8 * ST_BYTES);
    fpu_load_x87(c);
    initialise(c);
    NEXT(c, i);
}

static const struct op *run_frstor(struct icpu *c, const struct op *i)
{
    uint8_t area[SAVE_MAX_BYTES];
    unsigned size = i->extra;

    begin(c, i, true);
    interp_load_bytes(c, i, ea(c, i, size + 8 * ST_BYTES, X86_ACCESS_READ), area,
                      size + 8 * ST_BYTES);
    host_fpu_to_state(c);
    take_env(c, i, area);
    memset(c->cpu.s.fpu.st, 0, sizeof(c->cpu.s.fpu.st));
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->cpu.s.fpu.st[n], area + size + n * ST_BYTES, ST_BYTES);
    host_fpu_from_state(c);
    NEXT(c, i);
}

/* ---- MXCSR ---- */

static const struct op *run_ldmxcsr(struct icpu *c, const struct op *i)
{
    uint32_t value;

    if (unlikely(c->fpu_blocked & i->extra))
        host_stub_check(c, i, i->extra, false);
    value = load32(c, i, ea(c, i, 4, X86_ACCESS_READ));
    if (value & ~MXCSR_VALID)
        interp_raise_code(c, i, X86_GP, 0);
    c->cpu.s.fpu.mxcsr = value;
    set_guest_mxcsr(c);
    host_stub_refresh(c);
    NEXT(c, i);
}

static const struct op *run_stmxcsr(struct icpu *c, const struct op *i)
{
    if (unlikely(c->fpu_blocked & i->extra))
        host_stub_check(c, i, i->extra, false);
    c->cpu.s.fpu.mxcsr |= get_mxcsr() & MXCSR_FLAGS;
    store32(c, i, ea(c, i, 4, X86_ACCESS_WRITE), c->cpu.s.fpu.mxcsr);
    NEXT(c, i);
}

/* ---- building ---- */

static const struct {
    ZydisMnemonic mnemonic;
    op_fn *run;
} instructions[] = {
    {ZYDIS_MNEMONIC_FWAIT, run_fwait},      {ZYDIS_MNEMONIC_FNINIT, run_fninit},
    {ZYDIS_MNEMONIC_FLDCW, run_fldcw},      {ZYDIS_MNEMONIC_FNSTENV, run_fnstenv},
    {ZYDIS_MNEMONIC_FLDENV, run_fldenv},    {ZYDIS_MNEMONIC_FNSAVE, run_fnsave},
    {ZYDIS_MNEMONIC_FRSTOR, run_frstor},    {ZYDIS_MNEMONIC_LDMXCSR, run_ldmxcsr},
    {ZYDIS_MNEMONIC_VLDMXCSR, run_ldmxcsr}, {ZYDIS_MNEMONIC_STMXCSR, run_stmxcsr},
    {ZYDIS_MNEMONIC_VSTMXCSR, run_stmxcsr},
};

/* Bytes of the environment that an operand has, alone or before the registers. */
static uint8_t env_bytes(const struct insn *insn)
{
    unsigned bytes = insn->operands[0].size / 8u;

    return (uint8_t)(bytes > ENV_MAX_BYTES ? bytes - 8 * ST_BYTES : bytes);
}

bool fpu_build(struct icpu *c, const struct insn *insn, struct op *op)
{
    for (size_t n = 0; n < sizeof(instructions) / sizeof(instructions[0]); n++) {
        uint8_t needs;
        bool is_mmx;

        if (instructions[n].mnemonic != insn->info.mnemonic)
            continue;
        if (!host_stub_isa(c->cpu.model, insn, &needs, &is_mmx))
            return false;
        op->run = instructions[n].run;
        op->extra = needs == FPU_X87 ? env_bytes(insn) : needs;
        return true;
    }
    return false;
}
