/*
 * xsave.c - FXSAVE, FXRSTOR and the XSAVE family
 *
 * Between s.fpu and linear memory, after SDM vol. 1, 10.5 and chapter 13: legacy region, header,
 * standard and compacted format, the initial-state optimisation, header checks. The
 * modified optimisation is not done (it is never required). Supervisor components do not
 * exist, so XSAVES and XRSTORS move the user components of XCR0.
 *
 * A component whose registers hold their initial values is not in use (XINUSE): the check
 * looks at the registers, so it never says "in use" without need. Outside 64-bit mode only
 * registers 0-7 take part, and the upper 16 ZMM registers do not exist (13.5).
 *
 * Faults: stores are probed before the first byte is written, loads that may fault go into a copy
 * which becomes the state at the end, so that an instruction that faults has changed nothing.
 */
#include <stddef.h>
#include <string.h>

#include "base/guest_ram.h"
#include "x86/control.h"
#include "x86/features.h"

#define FX_ALIGNMENT    16u
#define FX_SIZE         512u
#define XSAVE_ALIGNMENT 64u
#define HEADER          512u
#define EXTENDED        576u
#define COMPACTED       (1ull << 63)
#define PAGE_BYTES      0x1000u

#define FX_CONTROL      0u
#define FX_FIP          8u
#define FX_FDP          16u
#define FX_MXCSR        24u
#define FX_ST           32u
#define FX_XMM          160u

enum component {
    COMPONENT_X87 = 0,
    COMPONENT_SSE = 1,
    COMPONENT_AVX = 2,
    COMPONENT_OPMASK = 5,
    COMPONENT_ZMM_HI256 = 6,
    COMPONENT_HI16_ZMM = 7,
    COMPONENT_PKRU = 9,
};

const struct x86_xsave_component x86_xsave_components[X86_XSAVE_COMPONENT_COUNT] = {
    [COMPONENT_AVX] = {576, 256},        [COMPONENT_OPMASK] = {1088, 64},
    [COMPONENT_ZMM_HI256] = {1152, 512}, [COMPONENT_HI16_ZMM] = {1664, 1024},
    [COMPONENT_PKRU] = {2688, 8},
};

/* An area in linear memory; it is smaller than a page. */
struct area {
    struct x86_cpu *cpu;
    uint64_t linear;
    uint8_t *pages[2];       /* host memory of the page it begins in and of the next one, or NULL */
    unsigned register_count; /* vector registers that the mode can reach: 8 or 16 */
    bool wide;               /* 64-bit instruction and data pointers */
};

static struct area area_at(struct x86_cpu *cpu, uint64_t linear, bool wide)
{
    bool long_code = x86_in_64bit_mode(cpu);

    return (struct area){.cpu = cpu,
                         .linear = linear,
                         .register_count = long_code ? 16 : 8,
                         .wide = wide && long_code};
}

static uint64_t linear_at(const struct area *a, uint32_t offset)
{
    uint64_t linear = a->linear + offset;

    return x86_in_long_mode(a->cpu) ? linear : (uint32_t)linear;
}

/* Look up the pages for one kind of access. */
static void find_pages(struct area *a, unsigned access)
{
    const struct x86_cpu_ops *ops = a->cpu->ops;

    for (uint32_t n = 0; n < 2 && ops->page; n++)
        a->pages[n] = ops->page(a->cpu, linear_at(a, n * PAGE_BYTES), access);
}

/* Host memory, or NULL. What is accessed at once crosses no page: it is aligned to its size. */
static uint8_t *host_at(const struct area *a, uint32_t offset)
{
    uint64_t from_page = (a->linear & (PAGE_BYTES - 1)) + offset;
    uint8_t *page = a->pages[from_page / PAGE_BYTES];

    return page ? page + from_page % PAGE_BYTES : NULL;
}

static uint64_t get8(const struct area *a, uint32_t offset)
{
    const uint8_t *host = host_at(a, offset);

    return host ? ram_load64(host)
                : a->cpu->ops->read(a->cpu, linear_at(a, offset), 8, X86_ACCESS_READ);
}

static void put8(const struct area *a, uint32_t offset, uint64_t value)
{
    uint8_t *host = host_at(a, offset);

    if (host)
        ram_store64(host, value);
    else
        a->cpu->ops->write(a->cpu, linear_at(a, offset), value, 8, X86_ACCESS_WRITE);
}

/* size_bytes is 16, 32 or 64. */
static void get_bytes(const struct area *a, uint32_t offset, void *out, size_t size_bytes)
{
    const uint8_t *host = host_at(a, offset);

    if (host) {
        ram_copy(out, host, size_bytes);
        return;
    }
    for (size_t i = 0; i < size_bytes; i += 8) {
        uint64_t value = get8(a, offset + (uint32_t)i);

        memcpy((uint8_t *)out + i, &value, 8);
    }
}

static void put_bytes(const struct area *a, uint32_t offset, const void *data, size_t size_bytes)
{
    uint8_t *host = host_at(a, offset);

    if (host) {
        ram_copy(host, data, size_bytes);
        return;
    }
    for (size_t i = 0; i < size_bytes; i += 8) {
        uint64_t value;

        memcpy(&value, (const uint8_t *)data + i, 8);
        put8(a, offset + (uint32_t)i, value);
    }
}

/* ---- sizes ---- */

uint32_t x86_xsave_size(uint64_t mask, bool compacted)
{
    uint32_t size = EXTENDED;

    for (unsigned i = 2; i < X86_XSAVE_COMPONENT_COUNT; i++) {
        const struct x86_xsave_component *c = &x86_xsave_components[i];

        if (mask >> i & 1)
            size = compacted ? size + c->size_bytes : (uint32_t)c->offset + c->size_bytes;
    }
    return size;
}

/* Where component i is; present: all components of a compacted area, or 0 for the standard one. */
static uint32_t component_offset(unsigned i, uint64_t present)
{
    if (!present)
        return x86_xsave_components[i].offset;
    return x86_xsave_size(present & ((1ull << i) - 1), true);
}

/* ---- XINUSE ---- */

static bool is_zero(const void *data, size_t size_bytes)
{
    const uint64_t *p = data;
    uint64_t any = 0;

    for (size_t i = 0; i < size_bytes / 8; i++)
        any |= p[i];
    return !any;
}

/* Are bytes [from, to) of vector registers [first, last) zero? */
static bool vectors_are_zero(const struct x86_fpu *fpu, unsigned first, unsigned last,
                             unsigned from, unsigned to)
{
    for (unsigned i = first; i < last; i++)
        if (!is_zero(fpu->zmm[i] + from, to - from))
            return false;
    return true;
}

static bool x87_is_initial(const struct x86_fpu *fpu)
{
    if (fpu->fcw != 0x37f || fpu->fsw || fpu->ftw || fpu->fop || fpu->fip || fpu->fdp || fpu->fcs ||
        fpu->fds)
        return false;
    for (unsigned i = 0; i < 8; i++)
        for (unsigned byte = 0; byte < 10; byte++)
            if (fpu->st[i][byte])
                return false;
    return true;
}

/* Of the components in mask, those in use. */
static uint64_t in_use(const struct x86_fpu *fpu, unsigned register_count, uint64_t mask)
{
    uint64_t used = 0;

    if ((mask & X86_XCR0_X87) && !x87_is_initial(fpu))
        used |= X86_XCR0_X87;
    if ((mask & X86_XCR0_SSE) && !vectors_are_zero(fpu, 0, register_count, 0, 16))
        used |= X86_XCR0_SSE;
    if ((mask & X86_XCR0_AVX) && !vectors_are_zero(fpu, 0, register_count, 16, 32))
        used |= X86_XCR0_AVX;
    if ((mask & X86_XCR0_OPMASK) && !is_zero(fpu->k, sizeof(fpu->k)))
        used |= X86_XCR0_OPMASK;
    if ((mask & X86_XCR0_ZMM_HI256) && !vectors_are_zero(fpu, 0, register_count, 32, 64))
        used |= X86_XCR0_ZMM_HI256;
    if ((mask & X86_XCR0_HI16_ZMM) && register_count == 16 && !vectors_are_zero(fpu, 16, 32, 0, 64))
        used |= X86_XCR0_HI16_ZMM;
    if ((mask & X86_XCR0_PKRU) && fpu->pkru)
        used |= X86_XCR0_PKRU;
    return used;
}

uint64_t x86_xinuse(const struct x86_cpu *cpu)
{
    return in_use(&cpu->s.fpu, x86_in_64bit_mode(cpu) ? 16 : 8, UINT64_MAX);
}

/* ---- saving components ---- */

static uint64_t pointer_image(const struct area *a, uint64_t offset, uint16_t selector)
{
    return a->wide ? offset : (uint32_t)offset | (uint64_t)selector << 32;
}

static void save_x87(const struct area *a)
{
    const struct x86_fpu *f = &a->cpu->s.fpu;

    put8(a, FX_CONTROL,
         f->fcw | (uint64_t)f->fsw << 16 | (uint64_t)f->ftw << 32 | (uint64_t)f->fop << 48);
    put8(a, FX_FIP, pointer_image(a, f->fip, f->fcs));
    put8(a, FX_FDP, pointer_image(a, f->fdp, f->fds));
    for (unsigned i = 0; i < 8; i++) {
        uint8_t image[16] = {0};

        memcpy(image, f->st[i], 10);
        put_bytes(a, FX_ST + 16 * i, image, sizeof(image));
    }
}

static void save_mxcsr(const struct area *a)
{
    put8(a, FX_MXCSR, a->cpu->s.fpu.mxcsr | (uint64_t)X86_MXCSR_MASK << 32);
}

/* Bytes [from, to) of registers [first, last), one register after the other. */
static void save_vectors(const struct area *a, uint32_t offset, unsigned first, unsigned last,
                         unsigned from, unsigned to)
{
    for (unsigned i = first; i < last; i++)
        put_bytes(a, offset + (i - first) * (to - from), a->cpu->s.fpu.zmm[i] + from, to - from);
}

static void save_extended(const struct area *a, unsigned i, uint32_t offset)
{
    const struct x86_fpu *f = &a->cpu->s.fpu;

    switch (i) {
    case COMPONENT_AVX:
        save_vectors(a, offset, 0, a->register_count, 16, 32);
        break;
    case COMPONENT_OPMASK:
        put_bytes(a, offset, f->k, sizeof(f->k));
        break;
    case COMPONENT_ZMM_HI256:
        save_vectors(a, offset, 0, a->register_count, 32, 64);
        break;
    case COMPONENT_HI16_ZMM:
        if (a->register_count == 16)
            save_vectors(a, offset, 16, 32, 0, 64);
        break;
    case COMPONENT_PKRU:
        put8(a, offset, f->pkru);
        break;
    default:
        break;
    }
}

/* mask: what to write; present as in component_offset. */
static void save_components(const struct area *a, uint64_t mask, uint64_t present)
{
    if (mask & X86_XCR0_X87)
        save_x87(a);
    if (mask & X86_XCR0_SSE)
        save_vectors(a, FX_XMM, 0, a->register_count, 0, 16);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENT_COUNT; i++)
        if (mask >> i & 1)
            save_extended(a, i, component_offset(i, present));
}

/* ---- loading components, into a copy of the state ---- */

static void load_x87(const struct area *a, struct x86_fpu *f)
{
    uint64_t control = get8(a, FX_CONTROL), fip = get8(a, FX_FIP), fdp = get8(a, FX_FDP);

    f->fcw = (uint16_t)control;
    f->fsw = (uint16_t)(control >> 16);
    f->ftw = (uint8_t)(control >> 32);
    f->fop = control >> 48 & 0x7ff;
    f->fip = a->wide ? fip : (uint32_t)fip;
    f->fdp = a->wide ? fdp : (uint32_t)fdp;
    f->fcs = a->wide ? 0 : (uint16_t)(fip >> 32);
    f->fds = a->wide ? 0 : (uint16_t)(fdp >> 32);
    for (unsigned i = 0; i < 8; i++) {
        get_bytes(a, FX_ST + 16 * i, f->st[i], 16);
        memset(f->st[i] + 10, 0, 6);
    }
}

static void initialise_x87(struct x86_fpu *f)
{
    f->fcw = 0x37f;
    f->fsw = f->fop = f->fcs = f->fds = 0;
    f->ftw = 0;
    f->fip = f->fdp = 0;
    memset(f->st, 0, sizeof(f->st));
}

/* #GP(0) for bits that MXCSR does not have. */
static uint32_t load_mxcsr(const struct area *a)
{
    uint32_t mxcsr = (uint32_t)get8(a, FX_MXCSR);

    if (mxcsr & ~X86_MXCSR_MASK)
        x86_raise_code(a->cpu, X86_GP, 0);
    return mxcsr;
}

/* load false: initial values instead of memory. */
static void load_vectors(const struct area *a, struct x86_fpu *f, bool load, uint32_t offset,
                         unsigned first, unsigned last, unsigned from, unsigned to)
{
    for (unsigned i = first; i < last; i++) {
        if (load)
            get_bytes(a, offset + (i - first) * (to - from), f->zmm[i] + from, to - from);
        else
            memset(f->zmm[i] + from, 0, to - from);
    }
}

static void load_extended(const struct area *a, struct x86_fpu *f, unsigned i, bool load,
                          uint32_t offset)
{
    switch (i) {
    case COMPONENT_AVX:
        load_vectors(a, f, load, offset, 0, a->register_count, 16, 32);
        break;
    case COMPONENT_OPMASK:
        memset(f->k, 0, sizeof(f->k));
        if (load)
            get_bytes(a, offset, f->k, sizeof(f->k));
        break;
    case COMPONENT_ZMM_HI256:
        load_vectors(a, f, load, offset, 0, a->register_count, 32, 64);
        break;
    case COMPONENT_HI16_ZMM:
        if (a->register_count == 16)
            load_vectors(a, f, load, offset, 16, 32, 0, 64);
        break;
    case COMPONENT_PKRU:
        f->pkru = load ? (uint32_t)get8(a, offset) : 0;
        break;
    default:
        break;
    }
}

/* requested: what the instruction asks for; stored: which of it memory holds, the rest is initial.
 */
static void load_components(const struct area *a, struct x86_fpu *f, uint64_t requested,
                            uint64_t stored, uint64_t present)
{
    if (requested & stored & X86_XCR0_X87)
        load_x87(a, f);
    else if (requested & X86_XCR0_X87)
        initialise_x87(f);
    if (requested & X86_XCR0_SSE)
        load_vectors(a, f, stored & X86_XCR0_SSE, FX_XMM, 0, a->register_count, 0, 16);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENT_COUNT; i++)
        if (requested >> i & 1)
            load_extended(a, f, i, stored >> i & 1, component_offset(i, present));
}

/* Is all of the largest area in host memory, so that loads do not fault? */
static bool is_at_hand(const struct area *a)
{
    const struct x86_xsave_component *last = &x86_xsave_components[COMPONENT_PKRU];

    return a->pages[0] &&
           (a->pages[1] ||
            (a->linear & (PAGE_BYTES - 1)) + last->offset + last->size_bytes <= PAGE_BYTES);
}

/* What was loaded becomes the state, if it is not. A new PKRU changes what pages allow. */
static void commit(struct x86_cpu *cpu, const struct x86_fpu *f, uint32_t pkru_before)
{
    bool keys_changed = f->pkru != pkru_before;

    if (f != &cpu->s.fpu)
        cpu->s.fpu = *f;
    cpu->ops->changed(cpu, X86_CHANGED_FPU | (keys_changed ? X86_CHANGED_PAGING : 0));
}

/* ---- FXSAVE, FXRSTOR ---- */

static void check_fx(struct x86_cpu *cpu, uint64_t linear)
{
    if (cpu->s.cr0 & (X86_CR0_EM | X86_CR0_TS))
        x86_raise(cpu, X86_NM);
    if (linear & (FX_ALIGNMENT - 1))
        x86_raise_code(cpu, X86_GP, 0);
}

void x86_fxsave(struct x86_cpu *cpu, uint64_t linear, bool wide)
{
    struct area a = area_at(cpu, linear, wide);

    check_fx(cpu, linear);
    cpu->ops->probe_write(cpu, linear, FX_SIZE, X86_ACCESS_WRITE);
    find_pages(&a, X86_ACCESS_WRITE);
    save_x87(&a);
    save_mxcsr(&a);
    if (cpu->s.cr4 & X86_CR4_OSFXSR)
        save_vectors(&a, FX_XMM, 0, a.register_count, 0, 16);
}

void x86_fxrstor(struct x86_cpu *cpu, uint64_t linear, bool wide)
{
    struct area a = area_at(cpu, linear, wide);
    struct x86_fpu next;

    check_fx(cpu, linear);
    find_pages(&a, X86_ACCESS_READ);
    next = cpu->s.fpu;
    load_x87(&a, &next);
    if (cpu->s.cr4 & X86_CR4_OSFXSR) {
        next.mxcsr = load_mxcsr(&a);
        load_vectors(&a, &next, true, FX_XMM, 0, a.register_count, 0, 16);
    }
    commit(cpu, &next, next.pkru);
}

/* ---- XSAVE family ---- */

static void check_xsave(struct x86_cpu *cpu, uint64_t linear, enum x86_feature feature,
                        bool supervisor)
{
    if (!(cpu->s.cr4 & X86_CR4_OSXSAVE) || !cpu_model_has(cpu->model, feature))
        x86_raise(cpu, X86_UD);
    if (cpu->s.cr0 & X86_CR0_TS)
        x86_raise(cpu, X86_NM);
    if ((supervisor && cpu->cpl != 0) || (linear & (XSAVE_ALIGNMENT - 1)))
        x86_raise_code(cpu, X86_GP, 0);
}

/* The components that EDX:EAX asks for, of those that are enabled. */
static uint64_t requested_components(const struct x86_cpu *cpu, bool supervisor)
{
    uint64_t enabled = cpu->s.xcr0 | (supervisor ? cpu->s.msr.xss : 0);

    return enabled & ((uint32_t)cpu->s.gpr[X86_RAX] | cpu->s.gpr[X86_RDX] << 32);
}

/* XSAVE and XSAVEOPT (13.7, 13.9): other bits of XSTATE_BV stay, XCOMP_BV is not touched. */
static void save_standard(struct area *a, uint64_t requested, uint64_t used, bool optimise)
{
    uint64_t saved = optimise ? requested & used : requested;
    uint64_t state_bv = get8(a, HEADER);

    a->cpu->ops->probe_write(a->cpu, a->linear, x86_xsave_size(saved, false), X86_ACCESS_WRITE);
    find_pages(a, X86_ACCESS_WRITE);
    save_components(a, saved, 0);
    if (requested & (X86_XCR0_SSE | X86_XCR0_AVX))
        save_mxcsr(a);
    put8(a, HEADER, (state_bv & ~requested) | (requested & used));
}

/* XSAVEC and XSAVES (13.10, 13.11): here MXCSR belongs to the SSE component. */
static void save_compacted(struct area *a, uint64_t requested, uint64_t used)
{
    uint64_t saved = requested & used, present = requested | COMPACTED;

    if ((requested & X86_XCR0_SSE) && a->cpu->s.fpu.mxcsr != X86_MXCSR_INITIAL)
        saved |= X86_XCR0_SSE;
    a->cpu->ops->probe_write(a->cpu, a->linear, x86_xsave_size(requested, true), X86_ACCESS_WRITE);
    find_pages(a, X86_ACCESS_WRITE);
    save_components(a, saved, present);
    if (saved & X86_XCR0_SSE)
        save_mxcsr(a);
    put8(a, HEADER, saved);
    put8(a, HEADER + 8, present);
}

static const enum x86_feature kind_features[] = {
    [X86_XSAVE] = X86_FEATURE_XSAVE,
    [X86_XSAVEC] = X86_FEATURE_XSAVEC,
    [X86_XSAVEOPT] = X86_FEATURE_XSAVEOPT,
    [X86_XSAVES] = X86_FEATURE_XSAVES,
};

void x86_xsave(struct x86_cpu *cpu, uint64_t linear, bool wide, enum x86_xsave_kind kind)
{
    struct area a = area_at(cpu, linear, wide);
    uint64_t requested, used;

    check_xsave(cpu, linear, kind_features[kind], kind == X86_XSAVES);
    requested = requested_components(cpu, kind == X86_XSAVES);
    used = in_use(&cpu->s.fpu, a.register_count, requested);
    if (kind == X86_XSAVEC || kind == X86_XSAVES)
        save_compacted(&a, requested, used);
    else
        save_standard(&a, requested, used, kind == X86_XSAVEOPT);
}

/* Header of an XRSTOR or XRSTORS area (13.8.1, 13.12): #GP(0) unless it is consistent. */
struct header {
    uint64_t state_bv, comp_bv, reserved[6];
};

static bool header_is_standard(const struct header *h, uint64_t enabled)
{
    return !(h->state_bv & ~enabled) && !h->comp_bv && !h->reserved[0];
}

static bool header_is_compacted(const struct header *h, uint64_t enabled)
{
    return !(h->comp_bv & ~COMPACTED & ~enabled) && !(h->state_bv & ~h->comp_bv) &&
           !(h->state_bv & COMPACTED) && is_zero(h->reserved, sizeof(h->reserved));
}

static void read_header(const struct area *a, bool supervisor, struct header *h)
{
    struct x86_cpu *cpu = a->cpu;
    uint64_t enabled = cpu->s.xcr0 | (supervisor ? cpu->s.msr.xss : 0);
    bool ok;

    get_bytes(a, HEADER, h, sizeof(*h));
    if (!(h->comp_bv & COMPACTED))
        ok = !supervisor && header_is_standard(h, enabled);
    else
        ok = cpu_model_has(cpu->model, X86_FEATURE_XSAVEC) && header_is_compacted(h, enabled);
    if (!ok)
        x86_raise_code(cpu, X86_GP, 0);
}

/* In the standard format MXCSR comes from memory for SSE or AVX, whatever XSTATE_BV says (13.8.1).
 */
static uint32_t next_mxcsr(const struct area *a, uint64_t requested, const struct header *h)
{
    if (!(h->comp_bv & COMPACTED))
        return requested & (X86_XCR0_SSE | X86_XCR0_AVX) ? load_mxcsr(a) : a->cpu->s.fpu.mxcsr;
    if (!(requested & X86_XCR0_SSE))
        return a->cpu->s.fpu.mxcsr;
    return h->state_bv & X86_XCR0_SSE ? load_mxcsr(a) : X86_MXCSR_INITIAL;
}

void x86_xrstor(struct x86_cpu *cpu, uint64_t linear, bool wide, bool supervisor)
{
    struct area a = area_at(cpu, linear, wide);
    struct x86_fpu copy, *next = &cpu->s.fpu;
    uint32_t mxcsr, pkru = cpu->s.fpu.pkru;
    struct header h;
    uint64_t requested;

    check_xsave(cpu, linear, supervisor ? X86_FEATURE_XSAVES : X86_FEATURE_XSAVE, supervisor);
    find_pages(&a, X86_ACCESS_READ);
    read_header(&a, supervisor, &h);
    requested = requested_components(cpu, supervisor);
    mxcsr = next_mxcsr(&a, requested, &h);
    if (!is_at_hand(&a)) {
        copy = cpu->s.fpu;
        next = &copy;
    }
    next->mxcsr = mxcsr;
    load_components(&a, next, requested, h.state_bv, h.comp_bv);
    commit(cpu, next, pkru);
}
