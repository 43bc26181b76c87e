/*
 * guest_fuzz.h - a guest of one MiB in any mode, for targets that run code
 *
 * Tables, handlers and registers at the start follow from a mode and the input. `pristine` is the
 * memory as it is before a run. Handlers of exceptions drop the error code, step over one byte
 * and return.
 */
#ifndef FUZZ_GUEST_FUZZ_H
#define FUZZ_GUEST_FUZZ_H

#include "base/log.h"
#include "fuzz_device.h"
#include "x86/bits.h"
#include "x86/features.h"

#define RAM_BYTES  MACHINE_MIN_RAM_BYTES
#define PAGES      (RAM_BYTES / GUEST_PAGE_SIZE)
#define CODE_BYTES 512u

/* Guest-physical, and linear as far as it is mapped. */
#define GDT        0x1000u
#define IDT32      0x2000u
#define IDT64      0x3000u
#define TSS32      0x5000u
#define TSS64      0x6000u
#define HANDLERS   0x7000u /* 16-, 32- and 64-bit, 16 bytes a vector */
#define STACK0     0x12000u
#define STACK3     0x14000u
#define CODE       0x20ff0u /* near the end of a page */
#define DATA       0x30000u
#define READ_ONLY  0x38u /* pages */
#define ABSENT     0x39u
#define NO_EXECUTE 0x3au
#define TABLES     0xf0000u /* not mapped, so that code in the guest does not change them */
#define NOWHERE    0x8000000u

enum selector {
    CODE64 = 0x08,
    DATA0 = 0x10,
    CODE32 = 0x18,
    CODE16 = 0x20,
    DATA16 = 0x28,
    USER32 = 0x33,
    USER_DATA = 0x3b,
    USER64 = 0x43,
    TASK = 0x48,
    GATE = 0x58,
};

enum mode { REAL, FLAT32, PAGED32, USER_32, FLAT16, V86, LONG0, LONG3, COMPATIBILITY, MODE_COUNT };

/* A machine with one engine; its memory is put back from `pristine` before each run. */
struct guest {
    struct loop *loop;
    struct machine *machine;
    struct memory *memory;
    struct region region;
    struct vcpu *vcpu;
    const struct engine_ops *engine;
    uint8_t *ram;
    uint8_t dirty[PAGES / 8]; /* of the last run */
};

static uint8_t pristine[RAM_BYTES];

/* ---- the guest's tables ---- */

static inline void put(uint32_t gpa, uint64_t value, unsigned bytes)
{
    memcpy(pristine + gpa, &value, bytes);
}

static inline bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

/* Drop the error code, step over one byte, return. */
static inline void build_handlers(void)
{
    for (unsigned v = 0; v < 32; v++) {
        uint8_t *p = pristine + HANDLERS + 16 * v;

        memcpy(p, "\x55\x89\xe5\xff\x46\x02\x5d\xcf", 8); /* 16 bits; no error codes there */
        p += 32 * 16;
        if (has_error_code(v))
            memcpy(p, "\x83\xc4\x04", 3);
        memcpy(p + 3 * has_error_code(v), "\x83\x04\x24\x01\xcf", 5);
        p += 32 * 16;
        if (has_error_code(v))
            memcpy(p, "\x48\x83\xc4\x08", 4);
        memcpy(p + 4 * has_error_code(v), "\x48\x83\x04\x24\x01\x48\xcf", 7);
    }
}

static inline uint32_t handler(unsigned vector, unsigned kind)
{
    return HANDLERS + (kind * 32 + vector % 32) * 16;
}

static inline void build_tables(void)
{
    for (unsigned v = 0; v < 256; v++) {
        put(4 * v, handler(v, 0), 4); /* below 64 KiB: segment 0 */
        put(IDT32 + 8 * v, handler(v, 1) | (uint64_t)CODE32 << 16 | 0xee00ull << 32, 8);
        put(IDT64 + 16 * v, handler(v, 2) | (uint64_t)CODE64 << 16 | 0xee00ull << 32, 8);
    }
    put(GDT + CODE64, 0x00af9b000000ffff, 8);
    put(GDT + DATA0, 0x00cf93000000ffff, 8);
    put(GDT + CODE32, 0x00cf9b000000ffff, 8);
    put(GDT + CODE16, 0x00009b000000ffff, 8);
    put(GDT + DATA16, 0x000093000000ffff, 8);
    put(GDT + USER32 - 3, 0x00cffb000000ffff, 8);
    put(GDT + USER_DATA - 3, 0x00cff3000000ffff, 8);
    put(GDT + USER64 - 3, 0x00affb000000ffff, 8);
    put(GDT + TASK, 0x00008b0000000067ull | (uint64_t)TSS32 << 16, 8);
    put(GDT + GATE, handler(3, 1) | (uint64_t)CODE32 << 16 | 0xec00ull << 32, 8);
    put(TSS32 + 4, STACK0, 4);
    put(TSS32 + 8, DATA0, 4);
    put(TSS32 + 0x66, 0x68, 2);
    put(TSS64 + 4, STACK0, 8);
    put(TSS64 + 0x66, 0x68, 2);
}

/* What linear page n shows: itself, but for a few. */
static inline uint64_t page_entry(unsigned n)
{
    uint64_t entry = (n << 12) | 0x67; /* accessed and dirty already */

    if (n < 0x10)
        entry &= ~4ull; /* supervisor */
    if (n == READ_ONLY)
        entry &= ~2ull;
    if (n == ABSENT)
        entry = 0;
    if (n == NO_EXECUTE)
        entry |= 1ull << 63;
    if (n >= TABLES >> 12)
        entry = NOWHERE | 0x67;
    return entry;
}

/* Linear 0 and 2 MiB show the first MiB, 4 MiB a large page where nothing is. */
static inline void build_paging(void)
{
    const uint32_t pml4 = TABLES, pdpt = TABLES + 0x1000, pd = TABLES + 0x2000;
    const uint32_t pt = TABLES + 0x3000, pd32 = TABLES + 0x4000, pt32 = TABLES + 0x5000;

    put(pml4, pdpt | 0x67, 8);
    put(pdpt, pd | 0x67, 8);
    put(pd, pt | 0x67, 8);
    put(pd + 8, pt | 0x67, 8);
    put(pd + 16, NOWHERE | 0xe7, 8);
    put(pd32, pt32 | 0x67, 4);
    put(pd32 + 4, NOWHERE | 0xe7, 4);
    for (unsigned n = 0; n < PAGES; n++) {
        put(pt + 8 * n, page_entry(n), 8);
        put(pt32 + 4 * n, (uint32_t)page_entry(n), 4);
    }
}

/* ---- registers at the start ---- */

static inline void set_segment(struct x86_segment *s, uint16_t selector, uint16_t attributes,
                               uint32_t limit)
{
    *s = (struct x86_segment){.selector = selector, .attributes = attributes, .limit = limit};
}

static inline void set_segments(struct x86_state *s, uint16_t code, uint16_t code_attributes,
                                uint16_t data, uint16_t data_attributes, uint32_t limit)
{
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        set_segment(&s->seg[i], data, data_attributes, limit);
    set_segment(&s->seg[X86_CS], code, code_attributes, limit);
}

static inline void set_mode_segments(struct x86_state *s, enum mode mode)
{
    switch (mode) {
    case REAL:
        set_segments(s, 0, 0x009b, 0, 0x0093, 0xffff);
        break;
    case V86:
        set_segments(s, 0, 0x00f3, 0, 0x00f3, 0xffff);
        break;
    case FLAT32:
    case PAGED32:
        set_segments(s, CODE32, 0xc09b, DATA0, 0xc093, 0xffffffff);
        break;
    case FLAT16:
        set_segments(s, CODE16, 0x009b, DATA16, 0x0093, 0xffff);
        break;
    case USER_32:
    case COMPATIBILITY:
        set_segments(s, USER32, 0xc0fb, USER_DATA, 0xc0f3, 0xffffffff);
        break;
    case LONG0:
        set_segments(s, CODE64, 0xa09b, DATA0, 0xc093, 0xffffffff);
        break;
    default:
        set_segments(s, USER64, 0xa0fb, USER_DATA, 0xc0f3, 0xffffffff);
        break;
    }
}

static inline uint64_t allowed_cr4(const struct cpu_model *model)
{
    uint64_t bits = X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_MCE |
                    X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;

    if (cpu_model_has(model, X86_FEATURE_UMIP))
        bits |= X86_CR4_UMIP;
    if (cpu_model_has(model, X86_FEATURE_SMEP))
        bits |= X86_CR4_SMEP;
    if (cpu_model_has(model, X86_FEATURE_SMAP))
        bits |= X86_CR4_SMAP;
    if (cpu_model_has(model, X86_FEATURE_FSGSBASE))
        bits |= X86_CR4_FSGSBASE;
    if (cpu_model_has(model, X86_FEATURE_XSAVE))
        bits |= X86_CR4_OSXSAVE;
    return bits;
}

static inline void set_control(struct x86_state *s, enum mode mode, const struct cpu_model *model,
                               struct fuzz_input *in)
{
    bool paged = mode == PAGED32 || mode == USER_32 || mode >= LONG0;
    uint64_t toggles = fuzz_take(in, 2);

    s->cr0 = X86_CR0_ET | X86_CR0_NE | (mode != REAL ? X86_CR0_PE : 0) | (paged ? X86_CR0_PG : 0);
    s->cr0 ^= (toggles & 1 ? X86_CR0_MP : 0) | (toggles & 2 ? X86_CR0_EM : 0) |
              (toggles & 4 ? X86_CR0_TS : 0) | (toggles & 8 ? X86_CR0_NE : 0) |
              (toggles & 16 ? X86_CR0_WP : 0) | (toggles & 32 ? X86_CR0_AM : 0);
    s->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_PSE;
    s->cr4 ^= fuzz_take(in, 3);
    s->cr4 = (s->cr4 & allowed_cr4(model)) | X86_CR4_PSE | (mode >= LONG0 ? X86_CR4_PAE : 0);
    s->cr3 = mode >= LONG0 ? TABLES : paged ? TABLES + 0x4000 : 0;
    s->msr.efer = X86_EFER_SCE | X86_EFER_NXE | (mode >= LONG0 ? X86_EFER_LME | X86_EFER_LMA : 0);
    s->msr.star = (uint64_t)CODE64 << 32 | (uint64_t)USER32 << 48;
    s->msr.lstar = s->msr.cstar = handler(3, 2);
    s->msr.sysenter_cs = CODE64;
    s->msr.sysenter_esp = STACK0;
    s->msr.sysenter_eip = handler(3, 2);
    s->xcr0 = model->xcr0;
}

/* Small numbers, borders, and addresses of what is there. */
static inline uint64_t take_register(struct fuzz_input *in)
{
    static const uint64_t bases[] = {
        0,
        DATA,
        CODE,
        STACK0 - 0x800,
        0x38ff8,
        0x3aff8,
        0x200000 + CODE,
        0x80000000,
        GDT,
        0x7fffffff,
        0,
        ~0ull,
        1ull << 47,
        ~0ull << 47,
        TSS32,
        0x123456789ab,
    };
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    if (what == 0xff)
        return fuzz_take(in, 8);
    return bases[what & 15] + (what >> 4);
}

static inline void set_fpu(struct x86_fpu *fpu, const struct cpu_model *model,
                           struct fuzz_input *in)
{
    uint64_t seed = fuzz_take(in, 2);

    fpu->fcw = (uint16_t)(0x37f ^ (seed & 0xf3f));
    fpu->mxcsr = 0x1f80 ^ (uint32_t)(seed & 0xfff0 ? fuzz_take(in, 2) : 0);
    fpu->ftw = (uint8_t)(seed >> 8);
    for (unsigned r = 0; r < 8; r++)
        for (unsigned i = 0; i < 10; i++)
            fpu->st[r][i] = (uint8_t)((seed >> (r & 7)) * (i + 1));
    for (unsigned r = 0; r < 16; r++)
        for (unsigned i = 0; i < 64; i++)
            fpu->zmm[r][i] = (uint8_t)((seed >> (r & 3)) * (i / 4 + r));
    if (!(model->xcr0 & X86_XCR0_ZMM_HI256))
        for (unsigned r = 0; r < 16; r++)
            memset(fpu->zmm[r] + 32, 0, 32);
}

static inline void build_state(struct x86_state *s, enum mode mode, const struct cpu_model *model,
                               struct fuzz_input *in)
{
    bool user = mode == USER_32 || mode == V86 || mode == LONG3 || mode == COMPATIBILITY;

    x86_state_reset(s, false);
    set_control(s, mode, model, in);
    set_mode_segments(s, mode);
    s->rflags = X86_FLAG_FIXED |
                (fuzz_take(in, 2) & (X86_FLAGS_STATUS | X86_FLAG_DF | X86_FLAG_TF | X86_FLAG_IF)) |
                (fuzz_take(in, 1) & 1 ? X86_FLAG_AC : 0);
    if (mode == V86)
        s->rflags |= X86_FLAG_VM | (fuzz_take(in, 1) & 3) << 12;
    for (unsigned i = 0; i < X86_GPR_COUNT; i++)
        s->gpr[i] = take_register(in) & (mode < LONG0 ? 0xffffffff : ~0ull);
    s->gpr[X86_RSP] = mode == REAL || mode == V86 || mode == FLAT16 ? 0xf000
                      : user                                        ? STACK3
                                                                    : STACK0;
    s->rip = CODE;
    if (mode == REAL || mode == V86 || mode == FLAT16) {
        s->seg[X86_CS].selector = mode == FLAT16 ? CODE16 : CODE >> 4;
        s->seg[X86_CS].base = CODE & ~15u;
        s->rip = CODE & 15;
    }
    if (mode == FLAT16)
        memcpy(&pristine[GDT + CODE16 + 2], "\xf0\x0f\x02", 3); /* the same base */
    s->gdtr = (struct x86_table){.base = GDT, .limit = 0x5f};
    s->idtr = (struct x86_table){.base = mode == REAL    ? 0
                                         : mode >= LONG0 ? IDT64
                                                         : IDT32,
                                 .limit = 0xfff};
    set_segment(&s->tr, TASK, 0x008b, 0x67);
    s->tr.base = mode >= LONG0 ? TSS64 : TSS32;
    set_fpu(&s->fpu, model, in);
}

/* ---- the machine ---- */

static inline void guest_start(struct guest *g, const char *engine, bool counted)
{
    struct machine_config config = {
        .ram_bytes = RAM_BYTES, .cpu_model = "max,-rdrand,-rdseed", .counted = counted};
    struct error err = {0};

    log_threshold = LOG_ERROR;
    g->loop = config.loop = loop_new(&err);
    g->engine = config.engine = engine_find(engine);
    g->machine = machine_new(&config, &err);
    FUZZ_CLAIM(g->machine);
    g->memory = machine_memory(g->machine);
    g->ram = memory_ram_hva(g->memory);
    g->vcpu = machine_vcpu(g->machine, 0);
    g->region =
        (struct region){.name = "ram", .kind = REGION_RAM, .size_bytes = RAM_BYTES, .hva = g->ram};
    machine_lock(g->machine);
    FUZZ_CLAIM(!memory_map(g->memory, &g->region, &err));
    FUZZ_CLAIM(!memory_dirty_start(g->memory, &err));
    machine_unlock(g->machine);
}

/* Put back what an earlier run wrote; the engine hears of it. */
static inline void guest_restore(struct guest *g)
{
    for (unsigned page = 0; page < PAGES; page++) {
        uint32_t gpa = page * GUEST_PAGE_SIZE;

        if (memcmp(g->ram + gpa, pristine + gpa, GUEST_PAGE_SIZE) != 0)
            memory_load(g->memory, gpa, pristine + gpa, GUEST_PAGE_SIZE);
    }
    memory_dirty_fetch(g->memory, 0, PAGES, g->dirty);
}

static inline bool guest_is_dirty(const struct guest *g, unsigned page)
{
    return g->dirty[page / 8] >> page % 8 & 1;
}

/* After a run: what changed is in the bitmap. */
static inline void guest_check_dirty(struct guest *g)
{
    memory_dirty_fetch(g->memory, 0, PAGES, g->dirty);
    for (unsigned page = 0; page < PAGES; page++)
        FUZZ_CLAIM(guest_is_dirty(g, page) ||
                   !memcmp(g->ram + page * GUEST_PAGE_SIZE, pristine + page * GUEST_PAGE_SIZE,
                           GUEST_PAGE_SIZE));
}

/* Load the registers, so that the next run begins with them. */
static inline void guest_load(struct guest *g, const struct x86_state *state)
{
    atomic_store(&g->vcpu->events, 0);
    g->vcpu->state = *state;
    g->engine->set_state(g->vcpu);
}

static inline void guest_fetch(struct guest *g, struct x86_state *out)
{
    g->engine->get_state(g->vcpu);
    *out = g->vcpu->state;
}

/* Loaded and fetched once more, the registers are the same. */
static inline void guest_check_reload(struct guest *g)
{
    static struct x86_state before;

    guest_fetch(g, &before);
    g->engine->set_state(g->vcpu);
    g->engine->get_state(g->vcpu);
    FUZZ_CLAIM(!memcmp(&g->vcpu->state, &before, sizeof(before)));
}

#endif
