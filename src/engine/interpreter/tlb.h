/*
 * tlb.h - what an entry of the software TLB says, for those that fill it (memory.c) and empty it
 * (tlb.c)
 */
#ifndef ENGINE_INTERPRETER_TLB_H
#define ENGINE_INTERPRETER_TLB_H

#include "engine/interpreter/interpreter.h"

/* What an entry's ram has above its flags; code may be NULL. */
static inline uint64_t tlb_ram(const struct icpu *c, const struct code_page *code)
{
    return code ? (uint64_t)(code - c->interpreter->code_pages) << 12 : GUEST_PAGE_MASK;
}

static inline uint64_t tlb_never(unsigned slot)
{
    uint64_t neighbour = slot ^ 1;

    return (neighbour ^ neighbour >> 12) << 12; /* an address with that tlb_index() */
}

/* The low bits of the page's number, and which half of the address space it is in. */
static inline unsigned tlb_hash_large(uint64_t linear, unsigned page_bits, unsigned bits)
{
    return (unsigned)((linear >> page_bits & ((1u << (bits - 1)) - 1)) |
                      linear >> 63 << (bits - 1));
}

static inline unsigned tlb_hash_2m(uint64_t linear)
{
    return tlb_hash_large(linear, 21, LARGE_2M_BITS);
}

static inline unsigned tlb_hash_1g(uint64_t linear)
{
    return tlb_hash_large(linear, 30, LARGE_1G_BITS);
}

static inline void bitmap_set(uint64_t *map, unsigned n)
{
    map[n / 64] |= 1ull << (n % 64);
}

/* An entry for a part of a large page is made. */
static inline void tlb_note_large_page(struct icpu *c, uint64_t linear, uint64_t page_size)
{
    uint64_t start = linear & ~(page_size - 1);

    if (page_size == 1u << 30)
        bitmap_set(c->large_pages.of_1g, tlb_hash_1g(start));
    else
        for (uint64_t part = 0; part < page_size; part += 2u << 20)
            bitmap_set(c->large_pages.of_2m, tlb_hash_2m(start + part));
}

#endif
