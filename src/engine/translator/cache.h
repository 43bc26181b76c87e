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
static inline struct tr_page **code_slot(struct tr_cache *cache, const struct code_page *page)
{
    return &cache->code_hash[hash_bits((uintptr_t)page, TR_PAGE_HASH)];
}

/* ---- blocks.c ---- */

/*
 * The vCPU goes inside, where what it knows of blocks stays where it is; what was known before may
 * be forgotten. Nobody may make it wait there for who has the cache's lock.
 */
void cache_enter(struct translator *t);
void cache_leave(struct translator *t);
/* From inside. Blocks may be forgotten, as if it had been outside. */
void cache_lock(struct translator *t);
void cache_unlock(struct translator *t);
/*
 * The block at RIP; where generated code left off, it may lead here the next time. NULL if the
 * interpreter has to run the instruction there.
 */
struct tr_block *find_block(struct translator *t, enum tr_style style);
/* Where the first block will be: once, behind the thunks. */
void start_filling(struct tr_cache *cache);
/*
 * What blocks are made for has changed. A system's start changes it a few times, and leaves what
 * it does not run again: the first times the cache of a single vCPU is emptied.
 */
void blocks_start_again(struct translator *t);
/* Code and data of all regions. */
struct tr_region memory_used(const struct tr_cache *cache);
/* Drop the blocks whose code was written. */
void take_changes(struct translator *t);

/* ---- pages.c ---- */

/* All that the vCPU knows of pages. */
void forget_pages(struct translator *t);
/* Pages that no block comes from are free for others. */
void recycle_pages(struct tr_cache *cache);

#endif
