/*
 * paging.h - the page walk
 *
 * All formats: none, 32-bit, PSE (36-bit), PAE, 4-level, with 2 MiB, 4 MiB and 1 GiB pages, NX, WP,
 * SMEP, SMAP, protection keys, reserved bits, A and D bits (SDM vol. 3, chapter 4). Used by every
 * software engine and by the debugger.
 */
#ifndef X86_PAGING_H
#define X86_PAGING_H

#include "x86/cpu.h"

/*
 * Page directory entries that led walks of 4-level tables on, by linear address and low bits of CR3
 * (SDM vol. 3, 4.10.3: what a processor may remember of them, and for how long).
 */
#define X86_WALK_CACHE_SIZE 64u
struct x86_walk_cache {
    uint64_t age; /* of valid tags, in their upper bits; begins with 0, when there are none */
    uint64_t tags[X86_WALK_CACHE_SIZE];
    uint64_t tables[X86_WALK_CACHE_SIZE];
};
#define X86_WALK_CACHE_AGE 39 /* below it: 12 bits of CR3, 27 of the linear address */
static inline void x86_walk_cache_forget(struct x86_walk_cache *cache)
{
    cache->age += 1ull << X86_WALK_CACHE_AGE;
    if (__builtin_expect(!cache->age, 0))
        *cache = (struct x86_walk_cache){.age = 1ull << X86_WALK_CACHE_AGE};
}

/* The registers that decide about a walk, copied so that the debugger can walk too. */
struct x86_paging {
    uint64_t cr0, cr3, cr4, efer, rflags;
    uint64_t pdpte[4];
    uint32_t pkru, pkrs;
    uint8_t physical_bits;
    bool gigabyte_pages;          /* the CPU model has them */
    struct x86_walk_cache *cache; /* or NULL; x86_paging_from() leaves it alone */
};
void x86_paging_from(struct x86_paging *paging, const struct x86_cpu *cpu);

struct x86_walk {
    uint64_t gpa;       /* of the byte at the linear address, A20 not applied */
    uint64_t page_size; /* of the mapping: 4 KiB ... 1 GiB; 4 KiB without paging */
    bool user, writable, executable, global; /* combined rights of all levels (U/S, R/W, NX) */
    bool dirty;                              /* D is set in the leaf (true without paging) */
    uint8_t key;                             /* protection key, 0 if none */
    /* Rights that result for this access' privilege, so that a TLB entry can be filled: */
    bool can_read, can_write,
        can_execute; /* can_write is false while D is clear and access was not a write */
};

/* How a walk reads and updates page tables in guest-physical memory. */
struct x86_walk_memory {
    /* Bytes at gpa as host memory (aligned 8), or NULL: not RAM; then reads give all ones. */
    void *(*entry)(void *opaque, uint64_t gpa);
    /* An entry at gpa was changed (A or D set): mark dirty, invalidate code. May be NULL. */
    void (*updated)(void *opaque, uint64_t gpa);
    void *opaque;
};

/*
 * Walk for an access of kind (enum x86_access) with user privilege or not. Sets A and D
 * bits with atomic compare-and-swap unless probe. Returns 0, or the page-fault error code |
 * X86_WALK_FAULT and leaves *out alone.
 */
#define X86_WALK_FAULT 0x80000000u
uint32_t x86_walk(const struct x86_paging *paging, const struct x86_walk_memory *memory,
                  uint64_t linear, unsigned access, bool user, bool probe, struct x86_walk *out);

/* PAE: read and check the four PDPTEs at CR3 (SDM vol. 3, 4.4.1). false: reserved bits, #GP. */
bool x86_load_pdptes(const struct x86_walk_memory *memory, uint64_t cr3, uint8_t physical_bits,
                     uint64_t out_pdpte[4]);

#endif
