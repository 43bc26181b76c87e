/*
 * blocks.c - blocks, the links between them, and the memory they are in
 *
 * A block is found by its page and RIP. When code is written, the blocks that come from the same
 * 64 bytes are dropped: unlinked from everything that leads to them. Their code and data stay
 * until their part of the cache is needed, so a block that is being left, or that another vCPU is
 * in, may be dropped.
 *
 * The cache is a ring of TR_REGIONS regions, each with room for code and for what belongs to it.
 * When one is full, the next one is emptied: its blocks are dropped, and once every vCPU has been
 * outside nothing knows of them any more. Pages are not in it: they are freed when no block comes
 * from them.
 *
 * Who has the cache's lock may wait for a vCPU that is inside to come out; so that one does not
 * wait for the lock inside (cache_lock), nor for anything that needs it.
 */
#include "engine/translator/cache.h"

#include <sched.h>
#include <stdatomic.h>

#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"

/* ---- in and out ---- */

/* What was known of blocks may be of no value. */
static void forget_blocks(struct translator *t)
{
    memset(t->recent, 0, sizeof(t->recent));
    translator_forget_ops(t);
    t->link = 0;
    t->site = 0;
    forget_pages(t);
    t->evictions = atomic_load(&t->cache->evictions);
}

void cache_enter(struct translator *t)
{
    if (t->cache->is_shared)
        atomic_fetch_add(&t->inside, 1); /* before evictions is read: see wait_for_others() */
    if (unlikely(atomic_load(&t->cache->evictions) != t->evictions))
        forget_blocks(t);
}

void cache_leave(struct translator *t)
{
    if (t->cache->is_shared)
        atomic_fetch_add(&t->inside, 1);
}

void cache_lock(struct translator *t)
{
    if (!t->cache->is_shared)
        return;
    if (!host_mutex_try_lock(&t->cache->lock)) {
        t->stats.waits++;
        cache_leave(t);
        code_pages_leave(t->c);
        host_mutex_lock(&t->cache->lock);
        code_pages_enter(t->c);
        cache_enter(t);
    }
    t->has_lock = true;
}

void cache_unlock(struct translator *t)
{
    if (!t->cache->is_shared)
        return;
    t->has_lock = false;
    host_mutex_unlock(&t->cache->lock);
}

void translator_unwound(struct icpu *c)
{
    struct translator *t = c->translator;

    if (t->has_lock)
        cache_unlock(t);
    if (t->inside & 1)
        cache_leave(t);
}

/* Until each of them has been outside, so that it has forgotten blocks before it uses one. */
static void wait_for_others(struct translator *t)
{
    const struct tr_cache *cache = t->cache;

    for (unsigned n = 0; n < cache->vcpu_count; n++) {
        struct translator *other = cache->vcpus[n];
        uint32_t inside = atomic_load(&other->inside);

        if (other == t || !(inside & 1))
            continue;
        atomic_store(&other->c->attention, ATTENTION_EVENT);
        for (unsigned spins = 0; atomic_load(&other->inside) == inside; spins++) {
            code_pages_answer(t->c); /* it may wait for that */
            if (spins > 1000)
                sched_yield();
        }
    }
}

/* ---- memory for blocks ---- */

/* The region's code, write view, and data; those of TR_REGIONS are the ends. */
static uint8_t *region_code(const struct tr_cache *cache, unsigned region)
{
    size_t bytes = cache->code.size_bytes - (size_t)(cache->first_block - cache->code.write);

    return cache->first_block + bytes / TR_REGIONS * region;
}

static uint8_t *region_data(const struct tr_cache *cache, unsigned region)
{
    return cache->data + (cache->data_bytes / TR_REGIONS & ~(size_t)7) * region;
}

void *translator_data(struct tr_cache *cache, size_t bytes)
{
    void *data = cache->data_at;

    cache->data_at += (bytes + 7) & ~(size_t)7;
    assert(cache->data_at <= region_data(cache, cache->region + 1));
    return data;
}

/* In the vCPU's view. */
static const uint8_t *jump_miss(const struct translator *t, bool saved)
{
    return (saved ? t->cache->exit_indirect_saved : t->cache->exit_indirect) + t->distance;
}

/* ---- finding and dropping ---- */

static unsigned block_index(const struct tr_page *page, uint64_t rip)
{
    return hash_bits((uint64_t)page->id << 12 | (rip & 0xfff), TR_BLOCK_HASH);
}

static tr_ref *block_slot(struct tr_cache *cache, const struct tr_page *page, uint64_t rip)
{
    return &cache->block_hash[block_index(page, rip)];
}

static bool get_bit(const uint64_t *bits, unsigned index)
{
    return bits[index / 64] >> (index % 64) & 1;
}

static void set_bit(uint64_t *bits, unsigned index)
{
    bits[index / 64] |= 1ull << (index % 64);
}

bool translator_may_follow(const struct tr_cache *cache, const struct tr_page *page, uint64_t rip)
{
    return !get_bit(cache->tame, block_index(page, rip));
}

/* It may have been taken out before. */
static void take_out(struct tr_cache *cache, struct tr_block *b)
{
    tr_ref *slot = block_slot(cache, b->page, b->rip), ref = tr_ref_to(cache, b);

    while (*slot && *slot != ref)
        slot = &tr_block_at(cache, *slot)->hash_next;
    if (*slot)
        *slot = b->hash_next;
}

static struct tr_page *part_page(const struct tr_cache *cache, const struct tr_part *part)
{
    return &cache->pages[part->page_id];
}

static struct tr_part *part_at(const struct tr_cache *cache, tr_ref ref)
{
    return tr_at(cache, ref);
}

static void add_parts(struct tr_cache *cache, struct tr_block *b)
{
    for (unsigned n = 0; n < b->part_count; n++) {
        struct tr_part *part = &b->parts[n];
        struct tr_page *page = part_page(cache, part);

        part->block = tr_ref_to(cache, b);
        part->next = page->parts;
        part->previous = 0;
        page->parts = tr_ref_to(cache, part);
        if (part->next)
            part_at(cache, part->next)->previous = page->parts;
    }
}

static void remove_parts(struct tr_cache *cache, struct tr_block *b)
{
    for (unsigned n = 0; n < b->part_count; n++) {
        struct tr_part *part = &b->parts[n];

        if (part->previous)
            part_at(cache, part->previous)->next = part->next;
        else
            part_page(cache, part)->parts = part->next;
        if (part->next)
            part_at(cache, part->next)->previous = part->previous;
    }
}

static uint8_t *branch_of(const struct tr_cache *cache, const struct tr_link *link)
{
    return cache->code.write + link->rel32;
}

static const uint8_t *code_at(uint32_t address)
{
    return (const uint8_t *)(uintptr_t)address;
}

/* What follows a block's or a link's first member, which ref leads to. */
static tr_ref *next_link(const struct tr_cache *cache, tr_ref ref)
{
    return tr_at(cache, ref);
}

static struct tr_link *link_at(const struct tr_cache *cache, tr_ref ref)
{
    return tr_at(cache, ref);
}

/*
 * Let the branch lead there. Other vCPUs may be running it: with several of them its displacement
 * is within eight aligned bytes (emit_align_branch), so they see the old one or the new one.
 */
static void aim_link(struct tr_cache *cache, const struct tr_link *link, uint32_t target)
{
    uint8_t *rel32 = branch_of(cache, link);
    uintptr_t start = (uintptr_t)rel32 & ~(uintptr_t)7;
    unsigned shift = 8 * (unsigned)((uintptr_t)rel32 - start);
    _Atomic uint64_t *word = (_Atomic uint64_t *)start;
    uint64_t old, mask = 0xffffffffull << shift;
    int32_t disp;

    if (!cache->is_shared) {
        emit_aim(&cache->emit, rel32, code_at(target));
        return;
    }
    disp = (int32_t)(target - (uintptr_t)(rel32 + 4 + cache->emit.execute));
    old = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, (old & ~mask) | (uint64_t)(uint32_t)disp << shift,
                          memory_order_release); /* behind the code that it leads to */
}

/* Another vCPU may have done it. */
static void link_to(struct translator *t, struct tr_link *link, struct tr_block *b)
{
    struct tr_cache *cache = t->cache;
    const struct tr_block *from = tr_block_at(cache, link->block);
    enum tr_entry entry = from->page != b->page ? TR_CROSS
                          : b->rip <= from->rip ? TR_CHECKED
                                                : TR_DIRECT;

    atomic_store_explicit(&cache->links_made,
                          atomic_load_explicit(&cache->links_made, memory_order_relaxed) + 1,
                          memory_order_release);
    aim_link(cache, link, b->entries[link->saved][entry]);
    link->next = b->incoming;
    link->before = tr_ref_to(cache, b);
    b->incoming = tr_ref_to(cache, link);
    if (link->next)
        link_at(cache, link->next)->before = b->incoming;
    t->stats.links++;
}

/* It leads to its stub again. */
static void unlink_from_target(struct tr_cache *cache, struct tr_link *link)
{
    if (!link->before)
        return;
    aim_link(cache, link, link->stub);
    *next_link(cache, link->before) = link->next;
    if (link->next)
        link_at(cache, link->next)->before = link->before;
    link->before = 0;
}

/* Its place in a vCPU's jump tables, and what may be there. */
static const uint8_t *_Atomic *jump_slot_of(struct translator *t, bool saved,
                                            const struct tr_block *b)
{
    return &t->jumps[saved][b->page->mode][b->rip & (TR_JUMP_SIZE - 1)];
}

static const uint8_t *jump_to_block(const struct translator *t, bool saved,
                                    const struct tr_block *b)
{
    return code_at(b->entries[saved][TR_INDIRECT]) + t->distance;
}

static void clear_jump(struct translator *t, bool saved, const struct tr_block *b)
{
    const uint8_t *_Atomic *slot = jump_slot_of(t, saved, b);

    if (atomic_load_explicit(slot, memory_order_relaxed) == jump_to_block(t, saved, b))
        atomic_store_explicit(slot, jump_miss(t, saved), memory_order_relaxed);
}

/* Nothing leads to the block any more. It can still be found if it has a source. */
static void drop_block(struct tr_cache *cache, struct tr_block *b)
{
    if (b->dropped)
        return;
    atomic_store(&b->dropped, true); /* before jumps are read: see remember_jump() */
    if (!b->source)
        take_out(cache, b);
    remove_parts(cache, b);
    while (b->incoming)
        unlink_from_target(cache, link_at(cache, b->incoming));
    for (unsigned n = 0; n < cache->vcpu_count; n++)
        for (unsigned saved = 0; saved < 2; saved++)
            clear_jump(cache->vcpus[n], saved, b);
}

/* ---- filling and emptying ---- */

static void fill(struct tr_cache *cache, unsigned region)
{
    cache->region = region;
    cache->emit.at = region_code(cache, region);
    cache->data_at = region_data(cache, region) + 8; /* no ref is 0 */
}

/* What is known of hot blocks is of one turn. */
static void fill_first(struct tr_cache *cache)
{
    fill(cache, 0);
    memset(cache->hot, 0, sizeof(cache->hot));
    memset(cache->tame, 0, sizeof(cache->tame));
}

void start_filling(struct tr_cache *cache)
{
    cache->first_block = cache->emit.at;
    cache->page_end = 1;
    fill_first(cache);
    recycle_pages(cache);
}

/* Only vCPUs that are inside know of the region's blocks. */
static void empty(struct tr_cache *cache, struct tr_region *region)
{
    for (tr_ref ref = region->blocks; ref; ref = tr_block_at(cache, ref)->region_next) {
        struct tr_block *b = tr_at(cache, ref);

        drop_block(cache, b);
        take_out(cache, b);
        for (unsigned n = 0; n < b->link_count; n++)
            unlink_from_target(cache, link_at(cache, b->links) + n);
        for (unsigned n = 0; n < b->part_count; n++)
            part_page(cache, &b->parts[n])->uses--;
    }
    *region = (struct tr_region){0};
}

static void fill_next(struct translator *t)
{
    struct tr_cache *cache = t->cache;
    struct tr_region *full = &cache->regions[cache->region], *next;

    full->code_bytes = (size_t)(cache->emit.at - region_code(cache, cache->region));
    full->data_bytes = (size_t)(cache->data_at - region_data(cache, cache->region));
    if (cache->region + 1 < TR_REGIONS)
        fill(cache, cache->region + 1);
    else
        fill_first(cache);
    next = &cache->regions[cache->region];
    t->stats.evictions += next->blocks != 0;
    empty(cache, next);
    atomic_fetch_add(&cache->evictions, 1);
    wait_for_others(t);
    forget_blocks(t);
    recycle_pages(cache);
}

void blocks_start_again(struct translator *t)
{
    struct tr_cache *cache = t->cache;

    if (cache->is_shared || cache->starts == TR_STARTS)
        return;
    cache->starts++;
    for (unsigned n = 0; n < TR_REGIONS; n++)
        empty(cache, &cache->regions[n]);
    fill_first(cache);
    atomic_fetch_add(&cache->evictions, 1);
    forget_blocks(t);
    recycle_pages(cache);
}

static bool has_room(const struct tr_cache *cache)
{
    return cache->emit.at + TR_MAX_BLOCK_CODE <= region_code(cache, cache->region + 1) &&
           cache->data_at + TR_MAX_BLOCK_DATA <= region_data(cache, cache->region + 1) &&
           cache->pages_left > TR_MAX_PARTS;
}

struct tr_region memory_used(const struct tr_cache *cache)
{
    struct tr_region used = {
        .code_bytes = (size_t)(cache->emit.at - region_code(cache, cache->region)),
        .data_bytes = (size_t)(cache->data_at - region_data(cache, cache->region))};

    for (unsigned n = 0; n < TR_REGIONS; n++) {
        used.code_bytes += cache->regions[n].code_bytes;
        used.data_bytes += cache->regions[n].data_bytes;
    }
    return used;
}

/* ---- changes of code ---- */

void translator_page_changed(struct tr_cache *cache, struct code_page *page, uint64_t chunks)
{
    if (cache->change_count < TR_CHANGES) {
        cache->changes[cache->change_count].page = page;
        cache->changes[cache->change_count].chunks = chunks;
    }
    cache->change_count++;
    atomic_store(&cache->is_stale, 1);
}

/* Drop the blocks that come from these chunks. */
static void drop_blocks(struct translator *t, struct tr_page *page, uint64_t chunks)
{
    struct tr_cache *cache = t->cache;
    tr_ref next;

    for (tr_ref ref = page->parts; ref; ref = next) {
        const struct tr_part *part = part_at(cache, ref);
        struct tr_block *b = tr_at(cache, part->block);

        next = part->next;
        if (!(part->chunks & chunks))
            continue;
        if (b->follows)
            set_bit(cache->tame, block_index(b->page, b->rip));
        drop_block(cache, b);
    }
    t->stats.pages_changed++;
}

static void take_change(struct translator *t, struct code_page *changed, uint64_t chunks)
{
    for (struct tr_page *page = *code_slot(t->cache, changed); page; page = page->code_next)
        if (page->page == changed) {
            drop_blocks(t, page, chunks);
            page->generation = atomic_load(&changed->generation);
        }
}

static void take_all_changes(struct translator *t)
{
    struct tr_cache *cache = t->cache;

    for (struct tr_page *page = &cache->pages[1]; page < &cache->pages[cache->page_end]; page++)
        if (atomic_load(&page->page->generation) != page->generation) {
            drop_blocks(t, page, ~0ull);
            page->generation = atomic_load(&page->page->generation);
        }
}

void take_changes(struct translator *t)
{
    struct interpreter *interpreter = t->c->interpreter;
    struct tr_cache *cache = t->cache;

    cache_lock(t);
    host_mutex_lock(&interpreter->code_lock); /* no generation advances meanwhile */
    if (cache->change_count > TR_CHANGES)
        take_all_changes(t);
    else
        for (unsigned n = 0; n < cache->change_count; n++)
            take_change(t, cache->changes[n].page, cache->changes[n].chunks);
    cache->change_count = 0;
    atomic_store(&cache->is_stale, 0);
    host_mutex_unlock(&interpreter->code_lock);
    cache_unlock(t);
}

/* ---- blocks ---- */

static struct tr_block *block_new(struct translator *t, struct tr_page *page,
                                  const struct fetch_entry *f, uint64_t rip, enum tr_style style,
                                  const struct tr_source *before)
{
    struct tr_cache *cache = t->cache;
    tr_ref *slot = block_slot(cache, page, rip);
    struct tr_region *region = &cache->regions[cache->region];
    enum meter_part part;
    struct tr_block *b;

    if (style == TR_QUICK && get_bit(cache->hot, block_index(page, rip)) &&
        translator_may_follow(cache, page, rip))
        style = TR_FOLLOWING;
    part = meter_to(t->c, METER_TRANSLATING);
    b = translate_block(t, page, f, rip, style, before);
    meter_to(t->c, part);
    if (!b)
        return NULL;
    b->hash_next = *slot;
    b->region_next = region->blocks;
    *slot = region->blocks = tr_ref_to(cache, b);
    add_parts(cache, b);
    for (unsigned n = 0; n < b->part_count; n++)
        part_page(cache, &b->parts[n])->uses++;
    return b;
}

/*
 * A block whose bytes were written. They are the same again, so it is brought back; but not if that
 * goes on and on, so that it should check itself. Its page is watched before they are compared.
 */
static bool revive(struct translator *t, const struct fetch_entry *f, struct tr_block *b)
{
    const uint8_t *host = f->host + (b->rip & 0xfff);
    struct tr_cache *cache = t->cache;
    struct tr_source *source = tr_at(cache, b->source);

    if (b->checks_itself || !source_is_at(source, host, false) ||
        (source->patches == TR_PATCHES - 1 && !t->c->counted))
        return false;
    code_page_claim(t->c, b->page->page, b->parts[0].chunks);
    if (!source_is_at(source, host, false) ||
        atomic_load(&b->page->page->generation) != b->page->generation)
        return false;
    if (source->patches < TR_PATCHES - 1)
        source->patches++;
    atomic_store(&b->dropped, false);
    add_parts(cache, b);
    t->stats.revived++;
    return true;
}

/* Is the block, which was found by its RIP, what is there now? */
static bool is_current(struct translator *t, const struct fetch_entry *f, struct tr_block *b)
{
    const struct tr_source *source = tr_at(t->cache, b->source);

    if (b->checks_itself && !source_is_at(source, f->host + (b->rip & 0xfff), true))
        drop_block(t->cache, b);
    return !b->dropped || revive(t, f, b);
}

void translator_make_jumps(struct tr_cache *cache, unsigned mode)
{
    if (cache->has_jumps[mode])
        return;
    cache->has_jumps[mode] = true;
    for (unsigned vcpu = 0; vcpu < cache->vcpu_count; vcpu++) {
        struct translator *t = cache->vcpus[vcpu];

        for (unsigned saved = 0; saved < 2; saved++)
            for (unsigned n = 0; n < TR_JUMP_SIZE; n++)
                atomic_init(&t->jumps[saved][mode][n], jump_miss(t, saved));
    }
}

/* Is the page that the block's instruction runs into where it was? Raises #PF if there is none. */
static bool second_is_there(struct translator *t, const struct tr_block *b)
{
    struct tr_page *second = part_page(t->cache, &b->parts[1]);
    const struct fetch_entry *f = interp_fetch(t->c, second->rip);

    return f->page && translator_page(t, f, second->rip) == second;
}

/* The block at RIP that was found there lately, if it is the one that would be found now. */
static struct tr_block *recent_block(const struct translator *t, uint64_t rip)
{
    struct tr_block *b = t->recent[hash_bits(rip, TR_RECENT)];

    if (b && b->rip == rip && !atomic_load_explicit(&b->dropped, memory_order_relaxed) &&
        b->style == TR_QUICK && !b->crosses && !b->checks_itself &&
        b->page->mode == current_mode(t->c) && t->current[b->page->id])
        return b;
    return NULL;
}

/* f says where RIP is. NULL if the interpreter has to run the instruction there. */
static struct tr_block *find_or_make(struct translator *t, const struct fetch_entry *f,
                                     uint64_t rip, enum tr_style style)
{
    const struct tr_source *before = NULL;
    struct tr_cache *cache = t->cache;
    struct tr_block *b;
    struct tr_page *page;

    translator_make_jumps(cache, current_mode(t->c));
    while (unlikely(!has_room(cache)))
        fill_next(t);
    page = translator_page(t, f, rip & GUEST_PAGE_MASK);
    for (b = tr_block_at(cache, *block_slot(cache, page, rip)); b;
         b = tr_block_at(cache, b->hash_next))
        if (b->page == page && b->rip == rip && b->style == style &&
            (!b->crosses || second_is_there(t, b)))
            break;
    if (b && unlikely(b->dropped || b->checks_itself) && !is_current(t, f, b)) {
        before = b->source ? tr_at(cache, b->source) : NULL;
        take_out(cache, b);
        b = NULL;
    }
    return b ? b : block_new(t, page, f, rip, style, before);
}

/* ---- links ---- */

/*
 * A block that ends with a branch which could be followed is made again when the branch was taken
 * often enough. True: link it.
 */
static bool warm_up(struct translator *t, struct tr_link *link)
{
    struct tr_cache *cache = t->cache;
    struct tr_block *from = tr_at(cache, link->block);
    unsigned index = block_index(from->page, from->rip);

    if (!link->heat)
        return true;
    if (--link->heat)
        return false;
    set_bit(cache->hot, index);
    if (!from->dropped) {
        drop_block(cache, from);
        if (from->source)
            take_out(cache, from);
    }
    return false;
}

/* Where generated code left off at a direct branch: it may lead here the next time. */
static void remember_link(struct translator *t, struct tr_block *b)
{
    struct tr_link *link = link_at(t->cache, t->link);

    if (t->link && !link->before && warm_up(t, link)) /* else another vCPU was here first */
        link_to(t, link, b);
    t->link = 0;
}

/*
 * The same of an indirect branch. The cache is not locked: another vCPU may be dropping the block.
 * It says so before it looks at the jump table, and here that is asked behind what is put there.
 */
static void remember_jump(struct translator *t, struct tr_block *b)
{
    for (unsigned saved = 0; saved < 2; saved++)
        atomic_store_explicit(jump_slot_of(t, saved, b), jump_to_block(t, saved, b),
                              memory_order_relaxed);
    if (t->cache->is_shared) {
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load(&b->dropped)) {
            clear_jump(t, false, b);
            clear_jump(t, true, b);
        }
    }
    t->site = 0;
}

struct tr_block *find_block(struct translator *t, enum tr_style style)
{
    struct icpu *c = t->c;
    uint64_t rip = c->cpu.s.rip;
    struct tr_block *b = likely(style == TR_QUICK) ? recent_block(t, rip) : NULL;
    const struct fetch_entry *f;

    if (!b || t->link) {
        if (unlikely(!x86_is_canonical(rip))) {
            flags_materialize(c);
            x86_raise_code(&c->cpu, X86_GP, 0);
        }
        f = interp_fetch(c, rip);
        if (unlikely(!f->page))
            return NULL;
        cache_lock(t);
        b = likely(style == TR_QUICK) ? recent_block(t, rip) : NULL;
        if (!b)
            b = find_or_make(t, f, rip, style);
        if (b)
            remember_link(t, b);
        cache_unlock(t);
        if (!b)
            return NULL;
        t->recent[hash_bits(rip, TR_RECENT)] = b;
    }
    if (t->site)
        remember_jump(t, b);
    return b;
}
