/*
 * generate.c - instances of every instruction form that user mode may run
 *
 * The table of forms is made by walking all opcodes of all maps and encodings (legacy, VEX, EVEX)
 * with their mandatory prefixes, and asking the decoder what each is. An instance takes
 * a form and fills its register, memory and immediate fields at random; what the decoder
 * then says decides how registers must be set so that memory operands land in the data pages.
 *
 * Left out: control transfers beyond a short forward Jcc, system instructions, and those
 * whose result belongs to the machine (time, identity, randomness).
 */
#include "instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/bits.h"

enum encoding { LEGACY, VEX, EVEX };

struct form {
    uint8_t encoding;
    uint8_t prefix; /* LEGACY: 0, 0x66, 0xf2, 0xf3; else pp 0-3 */
    uint8_t map;    /* LEGACY: 0 one byte, 1 0f, 2 0f38, 3 0f3a; else mmmmm */
    uint8_t opcode;
    uint8_t w, length, broadcast; /* REX.W or VEX.W; VEX.L or EVEX.L'L; EVEX.b */
    bool modrm, memory;
    bool reg_fixed, rm_fixed;
    uint8_t reg, rm;
    ZydisMnemonic mnemonic;
    uint64_t shape; /* operand kinds and sizes */
};

#define MAX_FORMS 40000
static struct form *forms;
static unsigned form_count;
static unsigned *form_runs;

/* ---- random numbers ---- */

static uint64_t random_state;

static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static unsigned below(unsigned n)
{
    return (unsigned)((next_random() >> 32) * n >> 32);
}
static bool one_in(unsigned n)
{
    return below(n) == 0;
}

/* ---- which instructions are tested ---- */

static bool category_is_tested(ZydisInstructionCategory category)
{
    switch (category) {
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_SGX:
    case ZYDIS_CATEGORY_CET:
    case ZYDIS_CATEGORY_PKU:
    case ZYDIS_CATEGORY_SMAP:
    case ZYDIS_CATEGORY_MPX:
    case ZYDIS_CATEGORY_PADLOCK:
    case ZYDIS_CATEGORY_WAITPKG:
    case ZYDIS_CATEGORY_AMX_TILE:
    case ZYDIS_CATEGORY_UINTR:
    case ZYDIS_CATEGORY_XOP:
    case ZYDIS_CATEGORY_FMA4:
    case ZYDIS_CATEGORY_TBM:
    case ZYDIS_CATEGORY_AMD3DNOW:
        return false;
    default:
        return true;
    }
}

static bool mnemonic_is_tested(ZydisMnemonic mnemonic)
{
    static const ZydisMnemonic left_out[] = {
        ZYDIS_MNEMONIC_CPUID,
        ZYDIS_MNEMONIC_RDTSC,
        ZYDIS_MNEMONIC_RDTSCP,
        ZYDIS_MNEMONIC_RDPMC,
        ZYDIS_MNEMONIC_RDPID,
        ZYDIS_MNEMONIC_XGETBV,
        ZYDIS_MNEMONIC_SMSW,
        ZYDIS_MNEMONIC_SGDT,
        ZYDIS_MNEMONIC_SIDT,
        ZYDIS_MNEMONIC_SLDT,
        ZYDIS_MNEMONIC_STR,
        ZYDIS_MNEMONIC_LAR,
        ZYDIS_MNEMONIC_LSL,
        ZYDIS_MNEMONIC_VERR,
        ZYDIS_MNEMONIC_VERW,
        ZYDIS_MNEMONIC_MOVDIRI,
        ZYDIS_MNEMONIC_MOVDIR64B,
        ZYDIS_MNEMONIC_ENQCMD,
        ZYDIS_MNEMONIC_ENQCMDS,
        ZYDIS_MNEMONIC_PTWRITE,
        ZYDIS_MNEMONIC_CLZERO,
        ZYDIS_MNEMONIC_RDPRU,
        ZYDIS_MNEMONIC_MONITORX,
        ZYDIS_MNEMONIC_MWAITX,
        ZYDIS_MNEMONIC_MCOMMIT,
        ZYDIS_MNEMONIC_XABORT,
        ZYDIS_MNEMONIC_XBEGIN,
        ZYDIS_MNEMONIC_XEND,
        ZYDIS_MNEMONIC_XTEST,
        ZYDIS_MNEMONIC_INT3,
        ZYDIS_MNEMONIC_INT1,
        ZYDIS_MNEMONIC_SERIALIZE,
        ZYDIS_MNEMONIC_FXSAVE,
        ZYDIS_MNEMONIC_FXSAVE64,
        ZYDIS_MNEMONIC_FXRSTOR,
        ZYDIS_MNEMONIC_FXRSTOR64,
        ZYDIS_MNEMONIC_POPF,
        ZYDIS_MNEMONIC_POPFD,
        ZYDIS_MNEMONIC_POPFQ,
        ZYDIS_MNEMONIC_EXTRQ,
        ZYDIS_MNEMONIC_INSERTQ,
        ZYDIS_MNEMONIC_MOVNTSS,
        ZYDIS_MNEMONIC_MOVNTSD,
        ZYDIS_MNEMONIC_CLWB,
        ZYDIS_MNEMONIC_PUSHF,
        ZYDIS_MNEMONIC_PUSHFD,
        ZYDIS_MNEMONIC_PUSHFQ,
        ZYDIS_MNEMONIC_VP2INTERSECTD,
        ZYDIS_MNEMONIC_VP2INTERSECTQ,
        /* their images hold the instruction's address as the host knows it */
        ZYDIS_MNEMONIC_FNSTENV,
        ZYDIS_MNEMONIC_FNSAVE,
        ZYDIS_MNEMONIC_FLDENV,
        ZYDIS_MNEMONIC_FRSTOR,
    };

    for (unsigned n = 0; n < sizeof(left_out) / sizeof(left_out[0]); n++)
        if (left_out[n] == mnemonic)
            return false;
    return true;
}

static bool is_tested(const struct insn *insn)
{
    if (!category_is_tested(insn->info.meta.category) || !mnemonic_is_tested(insn->info.mnemonic))
        return false;
    /* Another data segment would stay in the native child. */
    if ((insn->info.mnemonic == ZYDIS_MNEMONIC_MOV || insn->info.mnemonic == ZYDIS_MNEMONIC_POP) &&
        insn->operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(insn->operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
        return false;
    /* 32-bit PUSH of a segment register writes 16 bits (Intel) or 32 (AMD; SDM vol. 2, PUSH). */
    if (code_size == X86_CODE_32 && insn->info.mnemonic == ZYDIS_MNEMONIC_PUSH &&
        insn->operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        ZydisRegisterGetClass(insn->operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
        return false;
    /* 0F 0D with a register: a NOP for one vendor, #UD for the other. */
    if (insn->info.opcode_map == ZYDIS_OPCODE_MAP_0F && insn->info.opcode == 0x0d &&
        insn->info.raw.modrm.mod == 3)
        return false;
    return !(insn->info.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED);
}

static uint64_t shape_of(const struct insn *insn)
{
    uint64_t shape = insn->info.operand_count_visible;

    for (unsigned n = 0; n < insn->info.operand_count_visible; n++) {
        const struct insn_operand *o = &insn->operands[n];

        shape = shape * 31 + o->type;
        shape = shape * 1031 + o->size;
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
            shape = shape * 61 + (unsigned)o->encoding;
    }
    return shape;
}

/* ---- assembling ---- */

struct fields {
    bool rex;
    uint8_t r, x, b, r2, v, v2; /* register extension bits, not inverted; vvvv */
    uint8_t mask;               /* EVEX.aaa */
    bool zero;                  /* EVEX.z */
    bool address32, lock;
    uint8_t segment;
    uint8_t mod, reg, rm, sib;
    int32_t disp;
    uint8_t immediate[8];
};

#define GS_PREFIX 0x65

static unsigned put_prefixes(const struct form *f, const struct fields *d, uint8_t *out)
{
    unsigned n = 0;

    if (d->address32)
        out[n++] = 0x67;
    if (d->segment)
        out[n++] = d->segment;
    if (d->lock)
        out[n++] = 0xf0;
    if (f->encoding == LEGACY) {
        if (f->prefix)
            out[n++] = f->prefix;
        if (f->w || d->rex || d->r || d->x || d->b)
            out[n++] = (uint8_t)(0x40 | f->w << 3 | d->r << 2 | d->x << 1 | d->b);
        if (f->map >= 1)
            out[n++] = 0x0f;
        if (f->map >= 2)
            out[n++] = f->map == 2 ? 0x38 : 0x3a;
    } else if (f->encoding == VEX) {
        out[n++] = 0xc4;
        out[n++] = (uint8_t)(!d->r << 7 | !d->x << 6 | !d->b << 5 | f->map);
        out[n++] = (uint8_t)(f->w << 7 | (~d->v & 15) << 3 | f->length << 2 | f->prefix);
    } else {
        out[n++] = 0x62;
        out[n++] = (uint8_t)(!d->r << 7 | !d->x << 6 | !d->b << 5 | !d->r2 << 4 | f->map);
        out[n++] = (uint8_t)(f->w << 7 | (~d->v & 15) << 3 | 4 | f->prefix);
        out[n++] =
            (uint8_t)(d->zero << 7 | f->length << 5 | f->broadcast << 4 | !d->v2 << 3 | d->mask);
    }
    return n;
}

static unsigned assemble(const struct form *f, const struct fields *d, uint8_t *out)
{
    unsigned n = put_prefixes(f, d, out);

    out[n++] = f->opcode;
    if (f->modrm) {
        out[n++] = (uint8_t)(d->mod << 6 | d->reg << 3 | d->rm);
        if (d->mod != 3 && d->rm == 4)
            out[n++] = d->sib;
        if (d->mod == 1) {
            out[n++] = (uint8_t)d->disp;
        } else if (d->mod == 2 ||
                   (d->mod == 0 && (d->rm == 5 || (d->rm == 4 && (d->sib & 7) == 5)))) {
            memcpy(out + n, &d->disp, 4);
            n += 4;
        }
    }
    memcpy(out + n, d->immediate, 8);
    return n + 8; /* more than enough; the decoder says how much counts */
}

static bool decode_fields(const struct form *f, const struct fields *d, uint8_t *bytes,
                          struct insn *insn)
{
    unsigned size = assemble(f, d, bytes);

    return x86_decode(code_size, false, bytes, size < 15 ? size : 15, insn) == DECODE_OK;
}

/* ---- table of forms ---- */

static bool known(const struct form *f)
{
    for (unsigned n = form_count; n-- > 0 && form_count - n < 4000;)
        if (forms[n].encoding == f->encoding && forms[n].map == f->map &&
            forms[n].opcode == f->opcode && forms[n].mnemonic == f->mnemonic &&
            forms[n].shape == f->shape && forms[n].prefix == f->prefix &&
            forms[n].memory == f->memory)
            return true;
    return false;
}

static const char *wanted;

static void try_form(struct form f, unsigned reg, unsigned rm)
{
    struct fields d = {.mod = f.memory ? 0 : 3, .reg = (uint8_t)reg, .rm = (uint8_t)rm};
    struct insn insn;
    uint8_t bytes[32];

    if (f.encoding == EVEX)
        d.mask = 1;
    if (!decode_fields(&f, &d, bytes, &insn)) {
        d.mask = 0;
        if (f.encoding == EVEX && f.memory) { /* VSIB needs a SIB byte */
            d.mask = 1;
            d.rm = 4;
            d.sib = 0x00;
        } else if (f.encoding == VEX && f.memory) {
            d.rm = 4;
            d.r = code_size == X86_CODE_64;
            d.v = 3;
        }
        if (!decode_fields(&f, &d, bytes, &insn))
            return;
    }
    f.modrm = insn.info.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (!f.modrm && (reg || rm || f.memory))
        return;
    if (!is_tested(&insn))
        return;
    if (wanted && strcmp(wanted, ZydisMnemonicGetString(insn.info.mnemonic)) != 0)
        return;
    f.mnemonic = insn.info.mnemonic;
    f.shape = shape_of(&insn);
    f.reg = (uint8_t)reg;
    f.rm = (uint8_t)rm;
    if (form_count < MAX_FORMS && !known(&f))
        forms[form_count++] = f;
}

/* In the one-byte map: prefixes, escapes and REX are no opcodes. */
static bool is_prefix(unsigned byte)
{
    static const uint8_t list[] = {0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x62, 0x64, 0x65,
                                   0x66, 0x67, 0xc4, 0xc5, 0xf0, 0xf2, 0xf3};

    return (code_size == X86_CODE_64 && (byte & 0xf0) == 0x40) ||
           memchr(list, (int)byte, sizeof(list));
}

static void try_opcode(struct form f)
{
    if (f.encoding == LEGACY && f.map == 0 && is_prefix(f.opcode))
        return;
    if (f.encoding == LEGACY && f.map == 1 && (f.opcode == 0x38 || f.opcode == 0x3a))
        return;
    f.modrm = true;
    for (unsigned memory = 0; memory < 2; memory++) {
        f.memory = memory;
        for (unsigned reg = 0; reg < 8; reg++)
            for (unsigned rm = 0; rm < (memory ? 1 : 8); rm++)
                try_form(f, reg, rm);
    }
}

/* A field is free if changing it gives the same instruction. */
static void find_free_fields(struct form *f)
{
    struct fields d = {.mod = f->memory ? 0 : 3, .reg = f->reg, .rm = f->rm};
    struct insn insn;
    uint8_t bytes[32];

    for (unsigned n = 0; n < 8 && f->modrm; n++) {
        d.reg = (uint8_t)n;
        d.mask = f->encoding == EVEX;
        if (decode_fields(f, &d, bytes, &insn) && insn.info.mnemonic != f->mnemonic)
            f->reg_fixed = true;
        d.reg = f->reg;
        if (!f->memory) {
            d.rm = (uint8_t)n;
            if (decode_fields(f, &d, bytes, &insn) && insn.info.mnemonic != f->mnemonic)
                f->rm_fixed = true;
            d.rm = f->rm;
        }
    }
}

unsigned generate_init(const char *only_mnemonic)
{
    static const uint8_t prefixes[4] = {0, 0x66, 0xf3, 0xf2};

    wanted = only_mnemonic;
    forms = calloc(MAX_FORMS, sizeof(*forms));
    form_runs = calloc(MAX_FORMS, sizeof(*form_runs));
    if (!forms || !form_runs)
        return 0;
    for (unsigned map = 0; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned p = 0; p < 4; p++)
                for (unsigned w = 0; w < (code_size == X86_CODE_64 ? 2 : 1); w++)
                    try_opcode((struct form){.encoding = LEGACY,
                                             .prefix = prefixes[p],
                                             .map = (uint8_t)map,
                                             .opcode = (uint8_t)opcode,
                                             .w = (uint8_t)w});
    for (unsigned map = 1; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned p = 0; p < 4; p++)
                for (unsigned wl = 0; wl < 4; wl++)
                    try_opcode((struct form){.encoding = VEX,
                                             .prefix = (uint8_t)p,
                                             .map = (uint8_t)map,
                                             .opcode = (uint8_t)opcode,
                                             .w = wl & 1,
                                             .length = (uint8_t)(wl >> 1)});
    for (unsigned map = 1; map < 4 && host_has_opmask; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned p = 0; p < 4; p++)
                for (unsigned wlb = 0; wlb < 16; wlb++)
                    if ((wlb >> 1 & 3) != 3)
                        try_opcode((struct form){.encoding = EVEX,
                                                 .prefix = (uint8_t)p,
                                                 .map = (uint8_t)map,
                                                 .opcode = (uint8_t)opcode,
                                                 .w = wlb & 1,
                                                 .length = wlb >> 1 & 3,
                                                 .broadcast = (uint8_t)(wlb >> 3)});
    for (unsigned n = 0; n < form_count; n++)
        find_free_fields(&forms[n]);
    return form_count;
}

const char *generate_form_name(unsigned form)
{
    return ZydisMnemonicGetString(forms[form].mnemonic);
}

/* ---- values ---- */

static uint64_t interesting(void)
{
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      0xffffffffffffffff,
                                      0xfffffffffffffffe,
                                      0xffffffff80000000};

    switch (below(4)) {
    case 0:
        return values[below(sizeof(values) / sizeof(values[0]))];
    case 1:
        return (uint64_t)(int64_t)(int8_t)next_random();
    default:
        return next_random() >> below(64);
    }
}

static uint32_t interesting_float(void)
{
    static const uint32_t values[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                      0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x807fffff,
                                      0x7f7fffff, 0x00800000, 0x4f000000, 0xcf000000, 0x3f000000};

    return one_in(2) ? values[below(15)] : (uint32_t)next_random();
}
static uint64_t interesting_double(void)
{
    static const uint64_t values[] = {0,
                                      0x8000000000000000,
                                      0x3ff0000000000000,
                                      0xbff0000000000000,
                                      0x7ff0000000000000,
                                      0xfff0000000000000,
                                      0x7ff8000000000000,
                                      0x7ff0000000000001,
                                      1,
                                      0x800fffffffffffff,
                                      0x7fefffffffffffff,
                                      0x0010000000000000,
                                      0x41e0000000000000,
                                      0xc3e0000000000000,
                                      0x3fe0000000000000};

    return one_in(2) ? values[below(15)] : next_random();
}

static void fill_bytes(uint8_t *out, size_t size)
{
    unsigned kind = below(4);

    for (size_t n = 0; n + 8 <= size; n += 8) {
        uint64_t value = kind == 0   ? next_random()
                         : kind == 1 ? (uint64_t)interesting_float() << 32 | interesting_float()
                         : kind == 2 ? interesting_double()
                                     : interesting();

        memcpy(out + n, &value, 8);
    }
}

static void fill_st(uint8_t out[16])
{
    static const uint16_t exponents[] = {0,      0x3fff, 0xbfff, 0x7fff, 0xffff,
                                         0x4000, 1,      0x7ffe, 0x403e, 0x8000};
    uint64_t mantissa =
        one_in(3) ? 0x8000000000000000 : next_random() | (one_in(8) ? 0 : 1ull << 63);
    uint16_t exponent = one_in(2) ? exponents[below(10)] : (uint16_t)(0x3fff + below(80) - 40);

    if (exponent == 0 && one_in(2))
        mantissa = 0;
    memset(out, 0, 16);
    memcpy(out, &mantissa, 8);
    memcpy(out + 8, &exponent, 2);
}

static void fill_registers(struct registers *r, bool unmasked)
{
    for (unsigned n = 0; n < 16; n++)
        r->gpr[n] = interesting();
    r->rflags = 0x202 | (next_random() & X86_FLAGS_STATUS) | (one_in(8) ? X86_FLAG_DF : 0);
    r->mxcsr =
        0x1f80 | below(64) | below(4) << 13 | (one_in(4) ? 0x8000 : 0) | (one_in(4) ? 0x40 : 0);
    r->fcw = (uint16_t)(0x7f | below(4) << 10 | (one_in(2) ? 3 : below(4)) << 8);
    if (unmasked) {
        r->mxcsr = (r->mxcsr & ~0x3fu) & ~(below(64) << 7);
        r->fcw &= (uint16_t)~below(64);
    }
    r->fsw = (uint16_t)(below(8) << 11 | (next_random() & 0x4700));
    r->ftw = one_in(2) ? 0xff : (uint8_t)next_random();
    for (unsigned n = 0; n < 8; n++) {
        fill_st(r->st[n]);
        r->k[n] = one_in(3) ? ~0ull : next_random();
    }
    for (unsigned n = 0; n < 32; n++)
        fill_bytes(r->zmm[n], 64);
    if (!host_has_opmask)
        memset(r->k, 0, sizeof(r->k));
    for (unsigned n = 0; n < 32 && host_vector_bytes < 64; n++) {
        memset(r->zmm[n] + host_vector_bytes, 0, 64 - host_vector_bytes);
        if (n >= 16)
            memset(r->zmm[n], 0, 64);
    }
}

/* ---- memory operands ---- */

/* An address for size bytes: inside a window, across the two pages, or running off the end. */
static uint64_t pick_address(unsigned size)
{
    unsigned at;

    switch (below(8)) {
    case 0: /* across the page boundary */
        at = 0x1000 - below(size + 1);
        break;
    case 1: /* the end: sometimes beyond */
        at = DATA_SIZE - below(2 * size + 1);
        break;
    case 2:
        at = WINDOW_B + below(WINDOW_SIZE - size);
        break;
    default:
        at = WINDOW_A + 64 + below(WINDOW_SIZE - 128 - size);
        break;
    }
    if (one_in(2) && size)
        at &= ~(size - 1); /* aligned, for sizes that are powers of two */
    return DATA_BASE + at;
}

static int gpr_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return reg - ZYDIS_REGISTER_RAX;
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return reg - ZYDIS_REGISTER_EAX;
    return -1;
}

static bool is_vector(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_ZMM31;
}

/* Gathers: small indices, so that most elements are mapped. */
static void set_vector_index(struct registers *r, ZydisRegister reg, unsigned element_size)
{
    unsigned n = (unsigned)(reg - ZYDIS_REGISTER_XMM0) % 32;

    for (unsigned at = 0; at < host_vector_bytes; at += element_size) {
        int64_t index = (int)below(48) - 8;

        memcpy(r->zmm[n] + at, &index, element_size);
    }
}

/* An absolute or RIP-relative operand: its displacement is changed to hit the target. */
static void aim_displacement(struct insn *insn, const struct insn_operand *o, uint64_t target,
                             uint64_t rip)
{
    int64_t disp = (int64_t)target;

    if (insn->info.raw.disp.size != 32)
        return; /* MOV to or from a 64-bit offset */
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
        disp -= (int64_t)(rip + insn->info.length);
    memcpy(insn->bytes + insn->info.raw.disp.offset, &disp, 4);
}

/* Choose registers so that the operand lies at a picked address. */
static void aim(struct registers *r, struct insn *insn, const struct insn_operand *o, uint64_t rip)
{
    unsigned size = o->size / 8 ? o->size / 8 : 1;
    uint64_t target = pick_address(size > 64 ? 64 : size);
    int base = gpr_number(o->mem.base), index = gpr_number(o->mem.index);
    uint64_t disp = (uint64_t)o->mem.disp.value;
    bool in_gs = o->mem.segment == ZYDIS_REGISTER_GS;

    if (is_vector(o->mem.index)) {
        set_vector_index(r, o->mem.index, one_in(2) ? 4 : 8);
        index = -1;
        target = DATA_BASE + WINDOW_A + 192;
    }
    if (in_gs)
        target -= DATA_BASE;
    if (base < 0 && index < 0) {
        aim_displacement(insn, o, target, rip);
    } else if (base < 0) {
        r->gpr[index] = (target - disp) / o->mem.scale;
    } else if (index == base) {
        r->gpr[base] = (target - disp) / (1u + o->mem.scale);
    } else {
        if (index >= 0)
            r->gpr[index] = one_in(4) ? interesting() : below(64);
        r->gpr[base] = target - disp - (index >= 0 ? r->gpr[index] * o->mem.scale : 0);
    }
}

/* What an instruction needs in particular registers. */
static void prepare_registers(struct registers *r, struct insn *insn, uint64_t rip)
{
    uint64_t attributes = insn->info.attributes;

    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (insn->info.mnemonic == ZYDIS_MNEMONIC_XLAT) {
            r->gpr[3] = pick_address(1);
            r->gpr[0] &= ~0xc0ull;
            continue;
        }
        aim(r, insn, o, rip);
    }
    if (attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        r->gpr[1] = below(24) | (one_in(8) ? 0xffffffff00000000 : 0);
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (insn->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            insn->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int reg = (int)(insn->operands[1].reg.value - ZYDIS_REGISTER_AX) % 16;

            if (reg != gpr_number(insn->operands[0].mem.base))
                r->gpr[reg] = (uint64_t)(int64_t)((int)below(1024) - 512);
        }
        break;
    default:
        break;
    }
}

/* ---- instances ---- */

static bool reads_undefined(const struct insn *insn, uint32_t undefined)
{
    return insn->info.cpu_flags && (insn->info.cpu_flags->tested & undefined);
}

static uint64_t operand_address(const struct insn *insn, const struct registers *r)
{
    const struct insn_operand *o = &insn->operands[1];
    int base = gpr_number(o->mem.base), index = gpr_number(o->mem.index);
    uint64_t address = (uint64_t)o->mem.disp.value;

    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP ||
        insn->info.address_width == 16)
        return 1; /* not worth the trouble: counts as unaligned */
    return address + (base < 0 ? 0 : r->gpr[base]) + (index < 0 ? 0 : r->gpr[index] * o->mem.scale);
}

/* Results that the manuals leave open and processors differ in. */
static bool result_is_open(const struct insn *insn, const struct registers *r, bool alone)
{
    ZydisMnemonic m = insn->info.mnemonic;

    if (!alone && (m == ZYDIS_MNEMONIC_SHLD || m == ZYDIS_MNEMONIC_SHRD ||
                   insn->info.meta.isa_set == ZYDIS_ISA_SET_SHA))
        return true; /* CL or the address may be changed by the others */
    /* SHA with an unaligned operand: #GP in the SDM and on Intel, no fault on AMD. */
    if (insn->info.meta.isa_set == ZYDIS_ISA_SET_SHA &&
        insn->operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY)
        return operand_address(insn, r) & 15;

    if ((m == ZYDIS_MNEMONIC_SHLD || m == ZYDIS_MNEMONIC_SHRD) && insn->operands[0].size == 16) {
        unsigned count = (unsigned)(insn->operands[2].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
                                        ? insn->operands[2].imm.value.u
                                        : r->gpr[1]) &
                         31;

        return count > 15;
    }
    return false;
}

/* A variable count of 0 keeps the flags: undefined ones are those of a count above 1 only. */
static uint32_t undefined_flags(const struct insn *insn)
{
    return insn->info.cpu_flags ? insn->info.cpu_flags->undefined : 0;
}

/*
 * On Zen 4 an EVEX conversion from RSP right after PUSH or POP takes its old value (seen as
 * VCVTSI2SD after POP), so that pair says nothing about us.
 */
static bool reads_rsp(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++)
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (insn->operands[n].reg.value == ZYDIS_REGISTER_RSP ||
             insn->operands[n].reg.value == ZYDIS_REGISTER_ESP))
            return true;
    return false;
}

static void random_fields(const struct form *f, struct fields *d)
{
    *d = (struct fields){.reg = f->reg_fixed ? f->reg : (uint8_t)below(8),
                         .rm = f->rm_fixed ? f->rm : (uint8_t)below(8),
                         .mod = f->memory ? (uint8_t)below(3) : 3};
    d->rex = one_in(4);
    d->r = one_in(2);
    d->x = one_in(2);
    d->b = one_in(2);
    d->v = (uint8_t)below(16);
    d->sib = (uint8_t)next_random();
    d->disp = (int32_t)next_random() >> below(25);
    d->address32 = one_in(20);
    d->segment = one_in(24) ? (uint8_t[]){0x2e, 0x36, 0x3e, 0x26}[below(4)] : 0;
    for (unsigned n = 0; n < 8; n++)
        d->immediate[n] = (uint8_t)(one_in(3) ? below(9) : next_random());
    if (f->encoding == EVEX) {
        d->r2 = one_in(2);
        d->v2 = one_in(2);
        d->mask = (uint8_t)below(8);
        d->zero = d->mask && one_in(3);
    }
    if (f->encoding == LEGACY && f->memory && one_in(16))
        d->lock = true;
    if (code_size == X86_CODE_32) { /* eight registers */
        d->rex = false;
        d->r = d->x = d->b = d->r2 = d->v2 = 0;
        d->v &= 7;
        if (host_has_ldt && one_in(12))
            d->segment = GS_PREFIX;
    }
}

static bool random_instruction(const struct form *f, uint8_t *bytes, struct insn *insn)
{
    struct fields d;

    for (unsigned attempt = 0; attempt < 24; attempt++) {
        random_fields(f, &d);
        if (attempt > 12)
            d.v = 0, d.lock = false, d.v2 = 0, d.zero = false;
        if (attempt > 18)
            d.mask = f->encoding == EVEX, d.r = d.x = d.b = d.r2 = 0;
        if (decode_fields(f, &d, bytes, insn) && insn->info.mnemonic == f->mnemonic)
            return true;
    }
    return false;
}

static void take_form(struct instance *t, unsigned form, unsigned wanted_insns)
{
    struct insn insn;
    uint8_t bytes[32];

    if (!random_instruction(&forms[form], bytes, &insn))
        return;
    if (reads_undefined(&insn, t->undefined_flags))
        return;
    if (t->insn_count && insn.info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && reads_rsp(&insn))
        return;
    if (t->code_size + insn.info.length > MAX_CODE - 4)
        return;
    prepare_registers(&t->before, &insn, t->code_rip + t->code_size);
    memcpy(bytes, insn.bytes, insn.info.length); /* its displacement may be another */
    x86_decode(code_size, false, bytes, insn.info.length, &insn);
    if (result_is_open(&insn, &t->before, wanted_insns == 1))
        return;
    memcpy(t->code + t->code_size, insn.bytes, insn.info.length);
    t->code_size += insn.info.length;
    t->undefined_flags |= undefined_flags(&insn);
    t->insn_count++;
    form_runs[form]++;
}

void generate_instance(struct instance *t, uint64_t seed)
{
    unsigned wanted_insns;

    memset(t, 0, sizeof(*t));
    t->seed = seed;
    random_state = seed * 0x2545f4914f6cdd1dull + 1;
    t->exceptions_unmasked = one_in(16);
    fill_registers(&t->before, t->exceptions_unmasked);
    t->before.gpr[4] = DATA_BASE + WINDOW_A + 128 + below(128);
    t->before.gpr[5] = DATA_BASE + WINDOW_A + 128 + below(128);
    t->before.gpr[6] = pick_address(8);
    t->before.gpr[7] = pick_address(8);
    fill_bytes(t->window_a, WINDOW_SIZE);
    fill_bytes(t->window_b, WINDOW_SIZE);
    /* Somewhere in the first page, often across the boundary to the second. */
    t->code_rip = t->before.rip = CODE_BASE + (one_in(8) ? 0x1000 - below(24) : below(0xf00));
    wanted_insns = one_in(4) ? 1 + below(MAX_INSNS) : 1;
    for (unsigned tries = 0; t->insn_count < wanted_insns && tries < 40; tries++)
        take_form(t, below(form_count), wanted_insns);
    t->code[t->code_size++] = 0xcc;
}

void generate_report(void)
{
    unsigned never = 0;

    for (unsigned n = 0; n < form_count; n++)
        if (!form_runs[n]) {
            if (never++ < 20)
                printf("  never run: %s (encoding %u map %u opcode %02x)\n", generate_form_name(n),
                       forms[n].encoding, forms[n].map, forms[n].opcode);
        }
    printf("%u forms, %u of them not run\n", form_count, never);
}
