/*
 * gdb_registers.c - a processor's registers as GDB numbers and describes them
 *
 * The order of the table is the numbering of the protocol. The features
 * i386.core, .sse, .avx and .segments are GDB's own (appendix G.5.5, i386 features), where names,
 * order and sizes are fixed; the system registers are in a feature of ours, which GDB shows in
 * "info registers" behind its own.
 *
 * The tag word of the x87 is computed in full from the abridged one (SDM vol. 1, 8.1.7).
 * Left out: AVX-512 registers.
 */
#include "control/gdb_registers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trapeze/engine.h"
#include "x86/bits.h"
#include "x86/features.h"

enum feature { FEATURE_CORE, FEATURE_SSE, FEATURE_AVX, FEATURE_SEGMENTS, FEATURE_SYSTEM };

static const char *const feature_names[] = {
    [FEATURE_CORE] = "org.gnu.gdb.i386.core",    [FEATURE_SSE] = "org.gnu.gdb.i386.sse",
    [FEATURE_AVX] = "org.gnu.gdb.i386.avx",      [FEATURE_SEGMENTS] = "org.gnu.gdb.i386.segments",
    [FEATURE_SYSTEM] = "org.trapeze.x86.system",
};

/* How a register is read and written; index is its number within its kind. */
enum kind {
    KIND_FIELD,     /* uint64_t at offset, freely writable */
    KIND_FIXED,     /* uint64_t at offset, read only */
    KIND_CANONICAL, /* uint64_t at offset, an address */
    KIND_FLAGS,
    KIND_SELECTOR,        /* index: enum x86_segment_index */
    KIND_BASE,            /* of segment index */
    KIND_SYSTEM_SELECTOR, /* struct x86_segment at offset */
    KIND_SYSTEM_BASE,
    KIND_LIMIT, /* struct x86_table at offset */
    KIND_ST,
    KIND_X87, /* index: enum x87_part */
    KIND_XMM,
    KIND_YMM_HIGH,
    KIND_MXCSR,
    KIND_CR3,
    KIND_CR8,
};

enum x87_part { X87_CTRL, X87_STAT, X87_TAG, X87_ISEG, X87_IOFF, X87_OSEG, X87_OOFF, X87_OP };

struct reg {
    const char *name;
    uint8_t bits;
    uint8_t feature; /* enum feature */
    uint8_t kind;    /* enum kind */
    uint8_t index;
    uint16_t offset; /* in struct x86_state */
    const char *type;
    const char *group; /* NULL: general */
};

#define AT(field) .offset = offsetof(struct x86_state, field)
#define GPR(n, i, t)                                                                               \
    {                                                                                              \
        n, 64, FEATURE_CORE, KIND_FIELD, .type = t, AT(gpr[i])                                     \
    }
#define SELECTOR(n, i)                                                                             \
    {                                                                                              \
        n, 32, FEATURE_CORE, KIND_SELECTOR, i, .type = "int32"                                     \
    }
#define ST(n, i)                                                                                   \
    {                                                                                              \
        n, 80, FEATURE_CORE, KIND_ST, i, .type = "i387_ext", .group = "float"                      \
    }
#define X87(n, i)                                                                                  \
    {                                                                                              \
        n, 32, FEATURE_CORE, KIND_X87, i, .type = "int", .group = "float"                          \
    }
#define XMM(n, i)                                                                                  \
    {                                                                                              \
        n, 128, FEATURE_SSE, KIND_XMM, i, .type = "vec128", .group = "vector"                      \
    }
#define YMMH(n, i)                                                                                 \
    {                                                                                              \
        n, 128, FEATURE_AVX, KIND_YMM_HIGH, i, .type = "uint128", .group = "vector"                \
    }
#define SYSTEM(n, k, t, field)                                                                     \
    {                                                                                              \
        n, 64, FEATURE_SYSTEM, k, .type = t, .group = "system", AT(field)                          \
    }
#define BASE(n, f, i)                                                                              \
    {                                                                                              \
        n, 64, f, KIND_BASE, i, .type = "int64", .group = "system"                                 \
    }

static const struct reg regs[] = {
    GPR("rax", X86_RAX, "int64"),
    GPR("rbx", X86_RBX, "int64"),
    GPR("rcx", X86_RCX, "int64"),
    GPR("rdx", X86_RDX, "int64"),
    GPR("rsi", X86_RSI, "int64"),
    GPR("rdi", X86_RDI, "int64"),
    GPR("rbp", X86_RBP, "data_ptr"),
    GPR("rsp", X86_RSP, "data_ptr"),
    GPR("r8", X86_R8, "int64"),
    GPR("r9", X86_R9, "int64"),
    GPR("r10", X86_R10, "int64"),
    GPR("r11", X86_R11, "int64"),
    GPR("r12", X86_R12, "int64"),
    GPR("r13", X86_R13, "int64"),
    GPR("r14", X86_R14, "int64"),
    GPR("r15", X86_R15, "int64"),
    {"rip", 64, FEATURE_CORE, KIND_CANONICAL, .type = "code_ptr", AT(rip)},
    {"eflags", 32, FEATURE_CORE, KIND_FLAGS, .type = "i386_eflags"},
    SELECTOR("cs", X86_CS),
    SELECTOR("ss", X86_SS),
    SELECTOR("ds", X86_DS),
    SELECTOR("es", X86_ES),
    SELECTOR("fs", X86_FS),
    SELECTOR("gs", X86_GS),
    ST("st0", 0),
    ST("st1", 1),
    ST("st2", 2),
    ST("st3", 3),
    ST("st4", 4),
    ST("st5", 5),
    ST("st6", 6),
    ST("st7", 7),
    X87("fctrl", X87_CTRL),
    X87("fstat", X87_STAT),
    X87("ftag", X87_TAG),
    X87("fiseg", X87_ISEG),
    X87("fioff", X87_IOFF),
    X87("foseg", X87_OSEG),
    X87("fooff", X87_OOFF),
    X87("fop", X87_OP),

    XMM("xmm0", 0),
    XMM("xmm1", 1),
    XMM("xmm2", 2),
    XMM("xmm3", 3),
    XMM("xmm4", 4),
    XMM("xmm5", 5),
    XMM("xmm6", 6),
    XMM("xmm7", 7),
    XMM("xmm8", 8),
    XMM("xmm9", 9),
    XMM("xmm10", 10),
    XMM("xmm11", 11),
    XMM("xmm12", 12),
    XMM("xmm13", 13),
    XMM("xmm14", 14),
    XMM("xmm15", 15),
    {"mxcsr", 32, FEATURE_SSE, KIND_MXCSR, .type = "i386_mxcsr", .group = "vector"},

    YMMH("ymm0h", 0),
    YMMH("ymm1h", 1),
    YMMH("ymm2h", 2),
    YMMH("ymm3h", 3),
    YMMH("ymm4h", 4),
    YMMH("ymm5h", 5),
    YMMH("ymm6h", 6),
    YMMH("ymm7h", 7),
    YMMH("ymm8h", 8),
    YMMH("ymm9h", 9),
    YMMH("ymm10h", 10),
    YMMH("ymm11h", 11),
    YMMH("ymm12h", 12),
    YMMH("ymm13h", 13),
    YMMH("ymm14h", 14),
    YMMH("ymm15h", 15),

    BASE("fs_base", FEATURE_SEGMENTS, X86_FS),
    BASE("gs_base", FEATURE_SEGMENTS, X86_GS),

    SYSTEM("k_gs_base", KIND_CANONICAL, "int64", msr.kernel_gs_base),
    SYSTEM("cr0", KIND_FIXED, "x86_cr0", cr0),
    SYSTEM("cr2", KIND_FIELD, "int64", cr2),
    SYSTEM("cr3", KIND_CR3, "int64", cr3),
    SYSTEM("cr4", KIND_FIXED, "x86_cr4", cr4),
    {"cr8", 64, FEATURE_SYSTEM, KIND_CR8, .type = "int64", .group = "system"},
    SYSTEM("efer", KIND_FIXED, "x86_efer", msr.efer),
    SYSTEM("xcr0", KIND_FIXED, "int64", xcr0),
    SYSTEM("dr0", KIND_FIXED, "int64", dr[0]),
    SYSTEM("dr1", KIND_FIXED, "int64", dr[1]),
    SYSTEM("dr2", KIND_FIXED, "int64", dr[2]),
    SYSTEM("dr3", KIND_FIXED, "int64", dr[3]),
    SYSTEM("dr6", KIND_FIXED, "int64", dr6),
    SYSTEM("dr7", KIND_FIXED, "int64", dr7),
    BASE("cs_base", FEATURE_SYSTEM, X86_CS),
    BASE("ss_base", FEATURE_SYSTEM, X86_SS),
    BASE("ds_base", FEATURE_SYSTEM, X86_DS),
    BASE("es_base", FEATURE_SYSTEM, X86_ES),
    SYSTEM("gdtr_base", KIND_CANONICAL, "int64", gdtr.base),
    SYSTEM("gdtr_limit", KIND_LIMIT, "int64", gdtr),
    SYSTEM("idtr_base", KIND_CANONICAL, "int64", idtr.base),
    SYSTEM("idtr_limit", KIND_LIMIT, "int64", idtr),
    SYSTEM("ldtr", KIND_SYSTEM_SELECTOR, "int64", ldtr),
    SYSTEM("ldtr_base", KIND_SYSTEM_BASE, "int64", ldtr),
    SYSTEM("tr", KIND_SYSTEM_SELECTOR, "int64", tr),
    SYSTEM("tr_base", KIND_SYSTEM_BASE, "int64", tr),
    SYSTEM("star", KIND_FIELD, "int64", msr.star),
    SYSTEM("lstar", KIND_CANONICAL, "int64", msr.lstar),
    SYSTEM("sfmask", KIND_FIELD, "int64", msr.sfmask),
};

#define REG_COUNT (sizeof(regs) / sizeof(regs[0]))

unsigned gdb_register_count(void)
{
    return REG_COUNT;
}

const char *gdb_register_name(unsigned number)
{
    return regs[number].name;
}

size_t gdb_register_size(unsigned number)
{
    return regs[number].bits / 8u;
}

/* ---- x87 ---- */

/* Tag of a register that is not empty: 0 valid, 1 zero, 2 special. */
static unsigned tag_of(const uint8_t *st)
{
    uint64_t mantissa;
    uint16_t exponent;

    memcpy(&mantissa, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (exponent == 0 && mantissa == 0)
        return 1;
    return exponent == 0 || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

static uint32_t full_tag_word(const struct x86_fpu *fpu)
{
    unsigned top = fpu->fsw >> 11 & 7;
    uint32_t word = 0;

    for (unsigned physical = 0; physical < 8; physical++) {
        unsigned tag = fpu->ftw >> physical & 1 ? tag_of(fpu->st[(physical - top) & 7]) : 3;

        word |= tag << (2 * physical);
    }
    return word;
}

static uint8_t abridged_tag_word(uint64_t word)
{
    uint8_t tags = 0;

    for (unsigned physical = 0; physical < 8; physical++)
        if ((word >> (2 * physical) & 3) != 3)
            tags |= (uint8_t)(1u << physical);
    return tags;
}

static uint32_t read_x87(const struct x86_fpu *fpu, enum x87_part part)
{
    switch (part) {
    case X87_CTRL:
        return fpu->fcw;
    case X87_STAT:
        return fpu->fsw;
    case X87_TAG:
        return full_tag_word(fpu);
    case X87_ISEG:
        return fpu->fip >> 32 ? (uint32_t)(fpu->fip >> 32) : fpu->fcs;
    case X87_IOFF:
        return (uint32_t)fpu->fip;
    case X87_OSEG:
        return fpu->fdp >> 32 ? (uint32_t)(fpu->fdp >> 32) : fpu->fds;
    case X87_OOFF:
        return (uint32_t)fpu->fdp;
    case X87_OP:
        return fpu->fop;
    }
    return 0;
}

static bool write_x87(struct x86_fpu *fpu, enum x87_part part, uint64_t value)
{
    switch (part) {
    case X87_CTRL:
        fpu->fcw = (uint16_t)((value & 0x1f3f) | 0x40);
        return true;
    case X87_STAT:
        fpu->fsw = (uint16_t)value;
        return true;
    case X87_TAG:
        fpu->ftw = abridged_tag_word(value);
        return true;
    case X87_IOFF:
        fpu->fip = (fpu->fip & ~0xffffffffull) | value;
        return true;
    case X87_OOFF:
        fpu->fdp = (fpu->fdp & ~0xffffffffull) | value;
        return true;
    case X87_OP:
        fpu->fop = value & 0x7ff;
        return true;
    default:
        return false;
    }
}

/* ---- reading ---- */

static const void *member(const struct x86_state *state, const struct reg *reg)
{
    return (const char *)state + reg->offset;
}

static uint64_t read_cr8(const struct vcpu *vcpu)
{
    return vcpu->apic && vcpu->apic_ops->cr8 ? vcpu->apic_ops->cr8(vcpu->apic) : 0;
}

static uint64_t read_integer(const struct vcpu *vcpu, const struct reg *reg)
{
    const struct x86_state *state = &vcpu->state;

    switch ((enum kind)reg->kind) {
    case KIND_FLAGS:
        return state->rflags;
    case KIND_SELECTOR:
        return state->seg[reg->index].selector;
    case KIND_BASE:
        return state->seg[reg->index].base;
    case KIND_SYSTEM_SELECTOR:
        return ((const struct x86_segment *)member(state, reg))->selector;
    case KIND_SYSTEM_BASE:
        return ((const struct x86_segment *)member(state, reg))->base;
    case KIND_LIMIT:
        return ((const struct x86_table *)member(state, reg))->limit;
    case KIND_X87:
        return read_x87(&state->fpu, reg->index);
    case KIND_MXCSR:
        return state->fpu.mxcsr;
    case KIND_CR8:
        return read_cr8(vcpu);
    default:
        return *(const uint64_t *)member(state, reg);
    }
}

/* Registers wider than 64 bits; NULL for the others. */
static const uint8_t *wide_register(const struct x86_state *state, const struct reg *reg)
{
    switch ((enum kind)reg->kind) {
    case KIND_ST:
        return state->fpu.st[reg->index];
    case KIND_XMM:
        return state->fpu.zmm[reg->index];
    case KIND_YMM_HIGH:
        return state->fpu.zmm[reg->index] + 16;
    default:
        return NULL;
    }
}

void gdb_register_read(const struct vcpu *vcpu, unsigned number, uint8_t *out)
{
    const struct reg *reg = &regs[number];
    const uint8_t *wide = wide_register(&vcpu->state, reg);
    uint64_t value;

    if (wide) {
        memcpy(out, wide, reg->bits / 8u);
        return;
    }
    value = read_integer(vcpu, reg);
    for (unsigned i = 0; i < reg->bits / 8u; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* ---- writing ---- */

static bool is_canonical(uint64_t gva)
{
    return (uint64_t)((int64_t)(gva << 16) >> 16) == gva;
}

static bool in_real_mode(const struct x86_state *state)
{
    return !(state->cr0 & X86_CR0_PE) || state->rflags & X86_FLAG_VM;
}

static bool write_selector(struct x86_state *state, unsigned index, uint64_t value)
{
    if (!in_real_mode(state) || value > UINT16_MAX)
        return false;
    state->seg[index].selector = (uint16_t)value;
    state->seg[index].base = value << 4;
    return true;
}

static bool write_flags(struct x86_state *state, uint64_t value)
{
    const uint64_t writable = X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF |
                              X86_FLAG_IOPL | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_AC |
                              X86_FLAG_VIF | X86_FLAG_VIP | X86_FLAG_ID;

    state->rflags = (state->rflags & ~writable) | (value & writable);
    return true;
}

static bool write_cr3(const struct vcpu *vcpu, uint64_t *cr3, uint64_t value)
{
    if (vcpu->model && value >> vcpu->model->physical_bits)
        return false;
    *cr3 = value;
    return true;
}

static bool write_cr8(struct vcpu *vcpu, uint64_t value)
{
    if (value > 15 || !vcpu->apic || !vcpu->apic_ops->set_cr8)
        return false;
    vcpu->apic_ops->set_cr8(vcpu->apic, (uint8_t)value);
    return true;
}

static bool write_integer(struct vcpu *vcpu, const struct reg *reg, uint64_t value)
{
    struct x86_state *state = &vcpu->state;
    uint64_t *field = (uint64_t *)((char *)state + reg->offset);

    switch ((enum kind)reg->kind) {
    case KIND_FIELD:
        *field = value;
        return true;
    case KIND_CANONICAL:
        if (!is_canonical(value))
            return false;
        *field = value;
        return true;
    case KIND_FLAGS:
        return write_flags(state, value);
    case KIND_SELECTOR:
        return write_selector(state, reg->index, value);
    case KIND_BASE:
        if (!is_canonical(value) || (reg->index != X86_FS && reg->index != X86_GS))
            return false;
        state->seg[reg->index].base = value;
        return true;
    case KIND_X87:
        return write_x87(&state->fpu, reg->index, value);
    case KIND_MXCSR:
        state->fpu.mxcsr = value & 0xffff;
        return true;
    case KIND_CR3:
        return write_cr3(vcpu, field, value);
    case KIND_CR8:
        return write_cr8(vcpu, value);
    default:
        return false;
    }
}

bool gdb_register_write(struct vcpu *vcpu, unsigned number, const uint8_t *value)
{
    const struct reg *reg = &regs[number];
    uint8_t *wide = (uint8_t *)wide_register(&vcpu->state, reg);
    uint8_t old[GDB_MAX_REGISTER_BYTES];
    uint64_t integer = 0;

    gdb_register_read(vcpu, number, old);
    if (memcmp(old, value, reg->bits / 8u) == 0)
        return true;
    if (wide) {
        memcpy(wide, value, reg->bits / 8u);
        return true;
    }
    for (unsigned i = 0; i < reg->bits / 8u; i++)
        integer |= (uint64_t)value[i] << (8 * i);
    return write_integer(vcpu, reg, integer);
}

/* ---- target description ---- */

struct flag {
    const char *name;
    uint8_t bit;
};
static const struct flag eflags_bits[] = {
    {"CF", 0},  {"PF", 2},   {"AF", 4},   {"ZF", 6},  {"SF", 7},  {"TF", 8},
    {"IF", 9},  {"DF", 10},  {"OF", 11},  {"NT", 14}, {"RF", 16}, {"VM", 17},
    {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}, {NULL}};
static const struct flag mxcsr_bits[] = {{"IE", 0},  {"DE", 1},  {"ZE", 2},  {"OE", 3},  {"UE", 4},
                                         {"PE", 5},  {"DAZ", 6}, {"IM", 7},  {"DM", 8},  {"ZM", 9},
                                         {"OM", 10}, {"UM", 11}, {"PM", 12}, {"FZ", 15}, {NULL}};
static const struct flag cr0_bits[] = {{"PE", 0},  {"MP", 1},  {"EM", 2},  {"TS", 3},
                                       {"ET", 4},  {"NE", 5},  {"WP", 16}, {"AM", 18},
                                       {"NW", 29}, {"CD", 30}, {"PG", 31}, {NULL}};
static const struct flag cr4_bits[] = {
    {"VME", 0},         {"PVI", 1},    {"TSD", 2},      {"DE", 3},    {"PSE", 4},
    {"PAE", 5},         {"MCE", 6},    {"PGE", 7},      {"PCE", 8},   {"OSFXSR", 9},
    {"OSXMMEXCPT", 10}, {"UMIP", 11},  {"LA57", 12},    {"VMXE", 13}, {"SMXE", 14},
    {"FSGSBASE", 16},   {"PCIDE", 17}, {"OSXSAVE", 18}, {"SMEP", 20}, {"SMAP", 21},
    {"PKE", 22},        {"PKS", 24},   {NULL}};
static const struct flag efer_bits[] = {{"SCE", 0}, {"LME", 8}, {"LMA", 10}, {"NXE", 11}, {NULL}};

static void put_flags(FILE *out, const char *id, unsigned size_bytes, const struct flag *flags)
{
    fprintf(out, "<flags id=\"%s\" size=\"%u\">", id, size_bytes);
    for (; flags->name; flags++)
        fprintf(out, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", flags->name, flags->bit,
                flags->bit);
    fprintf(out, "</flags>\n");
}

static void put_vector_types(FILE *out)
{
    static const struct {
        const char *id, *type, *field;
        unsigned count;
    } vectors[] = {
        {"v4f", "ieee_single", "v4_float", 4}, {"v2d", "ieee_double", "v2_double", 2},
        {"v16i8", "int8", "v16_int8", 16},     {"v8i16", "int16", "v8_int16", 8},
        {"v4i32", "int32", "v4_int32", 4},     {"v2i64", "int64", "v2_int64", 2},
    };
    const size_t count = sizeof(vectors) / sizeof(vectors[0]);

    for (size_t i = 0; i < count; i++)
        fprintf(out, "<vector id=\"%s\" type=\"%s\" count=\"%u\"/>\n", vectors[i].id,
                vectors[i].type, vectors[i].count);
    fprintf(out, "<union id=\"vec128\">");
    for (size_t i = 0; i < count; i++)
        fprintf(out, "<field name=\"%s\" type=\"%s\"/>", vectors[i].field, vectors[i].id);
    fprintf(out, "<field name=\"uint128\" type=\"uint128\"/></union>\n");
}

static void put_types(FILE *out, enum feature feature)
{
    if (feature == FEATURE_CORE)
        put_flags(out, "i386_eflags", 4, eflags_bits);
    if (feature == FEATURE_SSE) {
        put_vector_types(out);
        put_flags(out, "i386_mxcsr", 4, mxcsr_bits);
    }
    if (feature == FEATURE_SYSTEM) {
        put_flags(out, "x86_cr0", 8, cr0_bits);
        put_flags(out, "x86_cr4", 8, cr4_bits);
        put_flags(out, "x86_efer", 8, efer_bits);
    }
}

static void put_register(FILE *out, const struct reg *reg, unsigned number)
{
    fprintf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"", reg->name, reg->bits,
            reg->type, number);
    if (reg->group)
        fprintf(out, " group=\"%s\"", reg->group);
    fprintf(out, "/>\n");
}

static void put_target(FILE *out)
{
    fprintf(out, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
                 "<target>\n<architecture>i386:x86-64</architecture>\n");
    for (unsigned i = 0; i < REG_COUNT; i++) {
        if (i == 0 || regs[i].feature != regs[i - 1].feature) {
            fprintf(out, "%s<feature name=\"%s\">\n", i ? "</feature>\n" : "",
                    feature_names[regs[i].feature]);
            put_types(out, regs[i].feature);
        }
        put_register(out, &regs[i], i);
    }
    fprintf(out, "</feature>\n</target>\n");
}

const char *gdb_target_xml(void)
{
    static char *text;
    size_t size;
    FILE *out;

    if (text)
        return text;
    out = open_memstream(&text, &size);
    if (!out)
        return "";
    put_target(out);
    fclose(out);
    return text ? text : "";
}
