/*
 * cache.h - what run.c, blocks.c and pages.c share
 */
#ifndef ENGINE_TRANSLATOR_CACHE_H
#define ENGINE_TRANSLATOR_CACHE_H

#include "engine/translator/translator.h"

static inline unsigned current_mode(const struct icpu *c)
{
    return tr_mode(c->tlb_kind, c->code_size == X86_CODE_32);
}

static inline unsigned hash_bits(uint64_t value, unsigned size)
{
    return (unsigned)(value * 0x9e3779b97f4a7c15ull >> 40) & (size - 1);
}

/* The list by code_next that the pages of this code page are in. */
static inline struct tr_page **code_slot(struct translator *t, const struct code_page *page)
{
    return &t->code_hash[hash_bits((uintptr_t)page, TR_PAGE_HASH)];
}

/* ---- blocks.c ---- */

#define JUMP_BYTES (TR_JUMP_SIZE * sizeof(uint8_t *))

/* The block at RIP; NULL if the interpreter has to run the instruction there. */
struct tr_block *find_block(struct translator *t, enum tr_style style);
/* Where the first block will be: once, behind the thunks. */
void start_filling(struct translator *t);
/* Code and data of all regions. */
struct tr_region memory_used(const struct translator *t);
/* Where generated code left off: what leads here may lead here directly the next time. */
void remember_way(struct translator *t, struct tr_block *b);
/* Drop the blocks whose code was written. */
void take_changes(struct translator *t);

/* ---- pages.c ---- */

/* Pages that no block comes from are free for others; those that spaces name are forgotten. */
void recycle_pages(struct translator *t);

#endif
