/*
 * paging.c - the page walk
 *
 * Models linear-address translation of SDM vol. 3, chapter 4: no paging, 32-bit paging with
 * 4 KiB and 4 MiB pages (PSE-36 included), PAE paging, and 4-level paging with 4 KiB, 2 MiB and
 * 1 GiB pages; U/S, R/W, XD, CR0.WP, SMEP, SMAP, protection keys for user pages, reserved bits,
 * the error code, and the accessed and dirty flags. Left out: 5-level paging, supervisor
 * protection keys, shadow stacks, memory types (PAT and MTRRs change nothing here).
 *
 * Theory of operation. Every level is: load the entry, not present -> fault, reserved bit ->
 * fault, set A, go on. The rights of all levels are ANDed and looked at only at the leaf, whose
 * A and D are set last and together, so a walk that faults never sets D, and A only in the
 * entries it went through (4.8). A flag is set by compare-and-swap; when another
 * processor changed the entry meanwhile, the whole walk starts again. Of 4-level tables the entries
 * that lead to page tables may be remembered (struct x86_walk_cache), with the rights of the way to
 * them; their A is set.
 */
#include "x86/paging.h"

#include <stddef.h>

#include "base/guest_ram.h"
#include "x86/features.h"

#define ENTRY_P           0x001u
#define ENTRY_W           0x002u
#define ENTRY_U           0x004u
#define ENTRY_A           0x020u
#define ENTRY_D           0x040u
#define ENTRY_PS          0x080u
#define ENTRY_G           0x100u
#define ENTRY_XD          (1ull << 63)
#define ENTRY_ADDRESS     0x000ffffffffff000ull
#define ENTRY_KEY_SHIFT   59

#define LARGE_2M_RESERVED 0x001fe000ull
#define LARGE_1G_RESERVED 0x3fffe000ull
#define PDPTE_RESERVED    0x1e6ull /* PAE: bits 1, 2, 5-8 */
#define PAE_IGNORED_ABOVE 0x7ff0000000000000ull

#define SIZE_4K           0x1000ull
#define SIZE_2M           0x200000ull
#define SIZE_4M           0x400000ull
#define SIZE_1G           0x40000000ull

/* Another processor changed an entry under the walk. Never leaves this file. */
#define WALK_AGAIN        0x40000000u

/* One walk on its way down. */
struct descent {
    const struct x86_paging *paging;
    const struct x86_walk_memory *memory;
    uint64_t reserved; /* in every entry of 8 bytes */
    uint64_t xd_mask;  /* ENTRY_XD if EFER.NXE, else 0 */
    uint64_t rights;   /* AND of the entries: ENTRY_U, ENTRY_W */
    uint64_t forbid;   /* OR of the entries: ENTRY_XD */
    uint32_t base;     /* error code of a not-present fault: W, U and I */
    uint8_t kind;      /* X86_ACCESS_READ, _WRITE, _EXECUTE */
    bool user, implicit, probe;
};

/* The entry that is looked at: where it is and what it said. */
struct entry {
    void *host; /* NULL: not RAM */
    uint64_t gpa;
    uint64_t value;
};

void x86_paging_from(struct x86_paging *paging, const struct x86_cpu *cpu)
{
    const struct x86_state *s = &cpu->s;

    paging->cr0 = s->cr0;
    paging->cr3 = s->cr3;
    paging->cr4 = s->cr4;
    paging->efer = s->msr.efer;
    paging->rflags = s->rflags;
    for (unsigned i = 0; i < 4; i++)
        paging->pdpte[i] = s->pdpte[i];
    paging->pkru = s->fpu.pkru;
    paging->pkrs = (uint32_t)s->msr.pkrs;
    paging->physical_bits = cpu->model->physical_bits;
    paging->gigabyte_pages = cpu_model_has(cpu->model, X86_FEATURE_PDPE1GB);
}

static inline __attribute__((always_inline)) void load_entry8(const struct descent *d, uint64_t gpa,
                                                              struct entry *e)
{
    e->gpa = gpa;
    e->host = d->memory->entry(d->memory->opaque, gpa);
    e->value = e->host ? ram_atomic_load64(e->host) : UINT64_MAX;
}

static inline __attribute__((always_inline)) void load_entry4(const struct descent *d, uint64_t gpa,
                                                              struct entry *e)
{
    uint8_t *host = d->memory->entry(d->memory->opaque, gpa & ~7ull);

    e->gpa = gpa;
    e->host = host ? host + (gpa & 4) : NULL;
    e->value = e->host ? ram_atomic_load32(e->host) : UINT32_MAX;
}

/* Set A or D. false: the entry is not what was read any more. */
static bool set_flags(const struct descent *d, struct entry *e, uint64_t flags, bool wide)
{
    uint64_t value8 = e->value;
    uint32_t value4 = (uint32_t)e->value;
    bool done;

    if (wide)
        done = ram_atomic_swap64(e->host, &value8, value8 | flags);
    else
        done = ram_atomic_swap32(e->host, &value4, value4 | (uint32_t)flags);
    if (!done)
        return false;
    e->value |= flags;
    if (d->memory->updated)
        d->memory->updated(d->memory->opaque, e->gpa);
    return true;
}

/* An entry that is not RAM reads as ones, so nothing is ever missing in it. */
static inline bool mark(const struct descent *d, struct entry *e, uint64_t flags, bool wide)
{
    if (__builtin_expect((e->value & flags) == flags || d->probe, 1))
        return true;
    return set_flags(d, e, flags, wide);
}

static uint32_t not_present(const struct descent *d)
{
    return X86_WALK_FAULT | d->base;
}

static uint32_t reserved_bit(const struct descent *d)
{
    return X86_WALK_FAULT | d->base | X86_PF_P | X86_PF_RSVD;
}

/* Protection keys exist in 4-level paging, switched on for user and supervisor pages apart. */
static bool has_key(const struct descent *d, bool user_page)
{
    return (d->paging->cr4 & (user_page ? X86_CR4_PKE : X86_CR4_PKS)) &&
           (d->paging->efer & X86_EFER_LMA);
}

/* What the protection key of a page takes away (SDM vol. 3, 4.6.2): a mask of 1 << kind. */
static uint32_t key_denies(const struct descent *d, bool user_page, uint8_t key)
{
    uint32_t rights = (user_page ? d->paging->pkru : d->paging->pkrs) >> (2 * key) & 3;
    bool bound = d->user || (d->paging->cr0 & X86_CR0_WP);

    if (rights & 1)
        return 1u << X86_ACCESS_READ | 1u << X86_ACCESS_WRITE;
    return (rights & 2) && bound ? 1u << X86_ACCESS_WRITE : 0;
}

/* May a supervisor-mode data access touch user pages (SDM vol. 3, 4.6.1)? */
static bool smap_open(const struct descent *d)
{
    return !(d->paging->cr4 & X86_CR4_SMAP) || ((d->paging->rflags & X86_FLAG_AC) && !d->implicit);
}

/* Kinds of access that U/S, R/W and XD allow at this privilege: a mask of 1 << kind. */
static uint32_t rights_allow(const struct descent *d, bool user_page, bool writable,
                             bool executable)
{
    uint64_t cr0 = d->paging->cr0, cr4 = d->paging->cr4;
    bool data = d->user ? user_page : !user_page || smap_open(d);
    bool fetch = d->user ? user_page : !user_page || !(cr4 & X86_CR4_SMEP);
    bool write = writable || (!d->user && !(cr0 & X86_CR0_WP));

    return (uint32_t)data << X86_ACCESS_READ | (uint32_t)(data && write) << X86_ACCESS_WRITE |
           (uint32_t)(fetch && executable) << X86_ACCESS_EXECUTE;
}

/* The leaf: check the rights of the whole path, set A and D, fill *out. */
static inline __attribute__((always_inline)) uint32_t leaf(struct descent *d, struct entry *e,
                                                           uint64_t page_size, uint64_t page,
                                                           uint64_t linear, bool wide,
                                                           struct x86_walk *out)
{
    uint64_t rights = d->rights & e->value;
    bool user_page = rights & ENTRY_U, writable = rights & ENTRY_W;
    bool executable = !wide || !((d->forbid | e->value) & d->xd_mask);
    bool keyed = wide && has_key(d, user_page);
    uint8_t key = keyed ? e->value >> ENTRY_KEY_SHIFT & 15 : 0;
    uint32_t denied = keyed ? key_denies(d, user_page, key) : 0;
    uint32_t allowed = rights_allow(d, user_page, writable, executable) & ~denied;

    if (__builtin_expect(!(allowed >> d->kind & 1), 0))
        return X86_WALK_FAULT | d->base | X86_PF_P | (denied >> d->kind & 1 ? X86_PF_PK : 0);
    if (!mark(d, e, d->kind == X86_ACCESS_WRITE ? ENTRY_A | ENTRY_D : ENTRY_A, wide))
        return WALK_AGAIN;

    out->gpa = page + (linear & (page_size - 1));
    out->page_size = page_size;
    out->user = user_page;
    out->writable = writable;
    out->executable = executable;
    out->global = (e->value & ENTRY_G) && (d->paging->cr4 & X86_CR4_PGE);
    out->dirty = e->value & ENTRY_D;
    out->key = key;
    out->can_read = allowed >> X86_ACCESS_READ & 1;
    out->can_write = (allowed >> X86_ACCESS_WRITE & 1) && out->dirty;
    out->can_execute = allowed >> X86_ACCESS_EXECUTE & 1;
    return 0;
}

/*
 * Load the entry of one level. Evaluates to 0, a fault or WALK_AGAIN; large says whether
 * the level may map a page itself, in which case the caller looks at PS and marks A later.
 */
static inline __attribute__((always_inline)) uint32_t level8(struct descent *d, uint64_t table,
                                                             uint64_t index, uint64_t reserved,
                                                             bool large, struct entry *e)
{
    load_entry8(d, table + (index & 511) * 8, e);
    if (__builtin_expect(!(e->value & ENTRY_P), 0))
        return not_present(d);
    if (__builtin_expect(e->value & (d->reserved | reserved), 0))
        return reserved_bit(d);
    if (large && (e->value & ENTRY_PS))
        return 0;
    d->rights &= e->value;
    d->forbid |= e->value;
    return mark(d, e, ENTRY_A, true) ? 0 : WALK_AGAIN;
}

/* A large page of PAE or 4-level paging. */
static uint32_t large_page(struct descent *d, struct entry *e, uint64_t reserved,
                           uint64_t page_size, uint64_t linear, struct x86_walk *out)
{
    if (e->value & reserved)
        return reserved_bit(d);
    return leaf(d, e, page_size, e->value & ENTRY_ADDRESS & ~(page_size - 1), linear, true, out);
}

static inline uint32_t page_table_entry(struct descent *d, uint64_t table, uint64_t linear,
                                        struct x86_walk *out)
{
    struct entry e;

    load_entry8(d, (table & ENTRY_ADDRESS) + (linear >> 12 & 511) * 8, &e);
    if (__builtin_expect(!(e.value & ENTRY_P), 0))
        return not_present(d);
    if (__builtin_expect(e.value & d->reserved, 0))
        return reserved_bit(d);
    return leaf(d, &e, SIZE_4K, e.value & ENTRY_ADDRESS, linear, true, out);
}

/* ---- what is remembered of walks ---- */

static uint64_t cache_tag(const struct x86_paging *paging, uint64_t linear)
{
    return paging->cache->age | (paging->cr3 & 0xfff) << 27 | (linear >> 21 & 0x7ffffff);
}

/* A page directory entry led to a page table. */
static void remember(const struct descent *d, uint64_t linear, uint64_t table)
{
    struct x86_walk_cache *cache = d->paging->cache;
    unsigned slot = linear >> 21 & (X86_WALK_CACHE_SIZE - 1);

    if (!cache || d->probe || !(d->paging->efer & X86_EFER_LMA))
        return;
    cache->tags[slot] = cache_tag(d->paging, linear);
    cache->tables[slot] = (table & ENTRY_ADDRESS) | d->rights | (d->forbid & ENTRY_XD);
}

/* The table that the entry led to, with what the way to it takes away; 0 if it is not known. */
static uint64_t remembered(struct descent *d, uint64_t linear)
{
    const struct x86_walk_cache *cache = d->paging->cache;
    unsigned slot = linear >> 21 & (X86_WALK_CACHE_SIZE - 1);

    if (!cache || d->probe || cache->tags[slot] != cache_tag(d->paging, linear))
        return 0;
    return cache->tables[slot];
}

/* ---- the formats ---- */

/* The page directory and below, which PAE and 4-level paging share. */
static inline uint32_t page_directory(struct descent *d, uint64_t table, uint64_t linear,
                                      struct x86_walk *out)
{
    struct entry e;
    uint32_t result = level8(d, table & ENTRY_ADDRESS, linear >> 21, 0, true, &e);

    if (__builtin_expect(result, 0))
        return result;
    if (e.value & ENTRY_PS)
        return large_page(d, &e, LARGE_2M_RESERVED, SIZE_2M, linear, out);
    remember(d, linear, e.value);
    return page_table_entry(d, e.value, linear, out);
}

/* SDM vol. 3, 4.5 */
static uint32_t walk_4level(struct descent *d, uint64_t linear, struct x86_walk *out)
{
    bool gigabyte = d->paging->gigabyte_pages;
    uint64_t table = remembered(d, linear);
    struct entry e;
    uint32_t result;

    if (table) {
        d->rights &= table;
        d->forbid |= table;
        return page_table_entry(d, table, linear, out);
    }
    result = level8(d, d->paging->cr3 & ENTRY_ADDRESS, linear >> 39, ENTRY_PS, false, &e);

    if (__builtin_expect(result, 0))
        return result;
    result =
        level8(d, e.value & ENTRY_ADDRESS, linear >> 30, gigabyte ? 0 : ENTRY_PS, gigabyte, &e);
    if (__builtin_expect(result, 0))
        return result;
    if (e.value & ENTRY_PS)
        return large_page(d, &e, LARGE_1G_RESERVED, SIZE_1G, linear, out);
    return page_directory(d, e.value, linear, out);
}

/* SDM vol. 3, 4.4. The PDPTEs are registers: no rights, no A, checked when loaded. */
static uint32_t walk_pae(struct descent *d, uint64_t linear, struct x86_walk *out)
{
    uint64_t pdpte = d->paging->pdpte[linear >> 30 & 3];

    if (!(pdpte & ENTRY_P))
        return not_present(d);
    d->reserved |= PAE_IGNORED_ABOVE;
    return page_directory(d, pdpte, linear, out);
}

/* A 4 MiB page: address bits 32-39 are in bits 13-20 (PSE-36; SDM vol. 3, 4.3). */
static uint32_t large_page_4m(struct descent *d, struct entry *e, uint64_t linear,
                              struct x86_walk *out)
{
    unsigned bits = d->paging->physical_bits < 40 ? d->paging->physical_bits : 40;
    uint64_t high = e->value >> 13 & 0xff;
    uint64_t reserved = 0x3fe000 & ~((1ull << (bits - 19)) - 1);

    if (e->value & reserved)
        return reserved_bit(d);
    return leaf(d, e, SIZE_4M, high << 32 | (e->value & 0xffc00000), linear, false, out);
}

/* SDM vol. 3, 4.3 */
static uint32_t walk_32bit(struct descent *d, uint64_t linear, struct x86_walk *out)
{
    struct entry e;

    load_entry4(d, (d->paging->cr3 & 0xfffff000) + (linear >> 22) * 4, &e);
    if (!(e.value & ENTRY_P))
        return not_present(d);
    if ((e.value & ENTRY_PS) && (d->paging->cr4 & X86_CR4_PSE))
        return large_page_4m(d, &e, linear, out);
    d->rights &= e.value;
    if (!mark(d, &e, ENTRY_A, false))
        return WALK_AGAIN;
    load_entry4(d, (e.value & 0xfffff000) + (linear >> 12 & 1023) * 4, &e);
    if (!(e.value & ENTRY_P))
        return not_present(d);
    return leaf(d, &e, SIZE_4K, e.value & 0xfffff000, linear, false, out);
}

static uint32_t walk_identity(uint64_t linear, struct x86_walk *out)
{
    *out = (struct x86_walk){
        .gpa = (uint32_t)linear,
        .page_size = SIZE_4K,
        .user = true,
        .writable = true,
        .executable = true,
        .dirty = true,
        .can_read = true,
        .can_write = true,
        .can_execute = true,
    };
    return 0;
}

/* The error code's W, U and I bits (SDM vol. 3, 4.7). */
static uint32_t error_base(const struct x86_paging *paging, unsigned kind, bool user)
{
    bool tells_fetch = (paging->cr4 & X86_CR4_SMEP) ||
                       ((paging->cr4 & X86_CR4_PAE) && (paging->efer & X86_EFER_NXE));

    return (kind == X86_ACCESS_WRITE ? X86_PF_W : 0) | (user ? X86_PF_U : 0) |
           (kind == X86_ACCESS_EXECUTE && tells_fetch ? X86_PF_I : 0);
}

static uint32_t walk_once(struct descent *d, uint64_t linear, struct x86_walk *out)
{
    const struct x86_paging *paging = d->paging;

    d->rights = ENTRY_U | ENTRY_W;
    d->forbid = 0;
    if (!(paging->cr4 & X86_CR4_PAE))
        return walk_32bit(d, (uint32_t)linear, out);
    d->xd_mask = paging->efer & X86_EFER_NXE ? ENTRY_XD : 0;
    d->reserved =
        (ENTRY_ADDRESS & ~((1ull << paging->physical_bits) - 1)) | (d->xd_mask ^ ENTRY_XD);
    if (paging->efer & X86_EFER_LMA)
        return walk_4level(d, linear, out);
    return walk_pae(d, (uint32_t)linear, out);
}

uint32_t x86_walk(const struct x86_paging *paging, const struct x86_walk_memory *memory,
                  uint64_t linear, unsigned access, bool user, bool probe, struct x86_walk *out)
{
    struct descent d = {.paging = paging, .memory = memory, .probe = probe};
    uint32_t result;

    if (!(paging->cr0 & X86_CR0_PG))
        return walk_identity(linear, out);
    d.kind = access & X86_ACCESS_KIND;
    d.implicit = access & X86_ACCESS_SUPERVISOR;
    d.user = user && !d.implicit;
    d.base = error_base(paging, d.kind, d.user);
    do {
        result = walk_once(&d, linear, out);
    } while (__builtin_expect(result == WALK_AGAIN, 0));
    return result;
}

bool x86_load_pdptes(const struct x86_walk_memory *memory, uint64_t cr3, uint8_t physical_bits,
                     uint64_t out_pdpte[4])
{
    uint64_t reserved = PDPTE_RESERVED | ~((1ull << physical_bits) - 1);
    struct descent d = {.memory = memory};
    uint64_t loaded[4];
    struct entry e;

    for (unsigned i = 0; i < 4; i++) {
        load_entry8(&d, (cr3 & 0xffffffe0) + i * 8, &e);
        if ((e.value & ENTRY_P) && (e.value & reserved))
            return false;
        loaded[i] = e.value;
    }
    for (unsigned i = 0; i < 4; i++)
        out_pdpte[i] = loaded[i];
    return true;
}
