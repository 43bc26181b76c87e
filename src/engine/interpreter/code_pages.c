/*
 * code_pages.c - which pages hold decoded code, and who must hear of writes to them
 *
 * Theory of operation. Blocks are private to a vCPU, but any vCPU or device may
 * write the bytes they were decoded from. Each page has a generation; a block remembers
 * it and is stale when it differs (checked at the block's header). A page with a
 * decoded chunk is closed: it is in no TLB for fast writing, so every write to it comes
 * through code_page_written, which advances the generation if a chunk is hit.
 *
 * When an open page gets its first chunk, other vCPUs may still have it in their TLB. The
 * claiming vCPU asks each of them to drop its write tags and waits for the answer, which
 * comes at the next block header, or at once from one that is outside run() or in a
 * device access (in_run is 0 then, and it drops the tags before it goes on). A
 * waiting vCPU answers requests itself, so two claims cannot wait for each other. Who claims
 * a chunk while the page is still closing waits too.
 *
 * Such a wait may last as long as the host lets another thread stand still, so a page whose code
 * was overwritten stays closed for PATIENCE more writes: code that is changed here and there
 * waits once. If that many come and nothing is decoded in between, the page is being filled
 * with something else: it loses all its code and is opened.
 *
 * An invalidation advances the generation before it clears the chunks, and a claim cannot come
 * between (code_lock): whenever a block is fresh and was claimed, its chunks are set.
 */
#include "engine/interpreter/interpreter.h"

#include <sched.h>
#include <stdatomic.h>

#include "engine/translator/translator.h"

#define PATIENCE 16u
#define DROP_ALL UINTPTR_MAX /* icpu.drop_writes */

struct code_page *code_page_at(const struct interpreter *t, const struct flat_range *range,
                               uint64_t gpa)
{
    uint64_t page;

    if (!range || !range->region->hva)
        return NULL;
    page = (range->region->ram_offset + range->offset + (gpa - range->gpa)) / GUEST_PAGE_SIZE;
    return page < t->code_page_count ? &t->code_pages[page] : NULL;
}

/* Translated blocks do not look at generations: all vCPUs are told. code_lock is held. */
static void announce(struct interpreter *t, struct code_page *page, uint64_t chunks)
{
    unsigned count = atomic_load(&t->cpu_count);

    translator_page_changed(t->cache, page, chunks);
    for (unsigned n = 0; n < count; n++)
        atomic_store(&t->cpus[n]->attention, ATTENTION_EVENT);
}

/* Translated blocks of other chunks stay. code_lock is held. */
static void drop_chunks(struct interpreter *t, struct code_page *page, uint64_t chunks)
{
    page->generation++;
    page->chunks &= t->translates ? ~chunks : 0;
    if (t->cache)
        announce(t, page, chunks);
}

/* One more write since code of the page was overwritten. code_lock is held. */
static void lose_patience(struct interpreter *t, struct code_page *page)
{
    if (page->guard != GUARD_CLOSED || !page->patience || --page->patience)
        return;
    if (page->chunks)
        drop_chunks(t, page, ~0ull);
    page->guard = GUARD_OPEN;
}

static void invalidate(struct interpreter *t, struct code_page *page, unsigned offset, size_t size)
{
    uint64_t mask = chunk_mask(offset, size);

    if (likely(!(atomic_load(&page->chunks) & mask)) && likely(!atomic_load(&page->patience)))
        return;
    host_mutex_lock(&t->code_lock);
    if (page->chunks & mask) {
        drop_chunks(t, page, mask);
        if (!page->patience)
            page->patience = PATIENCE;
    }
    lose_patience(t, page);
    host_mutex_unlock(&t->code_lock);
}

static bool is_stale(const struct block *b)
{
    return atomic_load(&b->page->generation) != b->generation ||
           (b->second_page && atomic_load(&b->second_page->generation) != b->second_generation);
}

void code_page_written(struct icpu *c, struct code_page *page, unsigned offset, size_t size)
{
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the bit set in code_page_claim */
    invalidate(c->interpreter, page, offset, size);
    /*
     * Our own block may be the one that was changed: nothing of it runs after this op. Also if
     * another vCPU has made it stale before, because its chunks are not set any more then.
     */
    if (c->insn && c->block && block_is_from(c->block, page) && is_stale(c->block))
        block_cut(c, c->insn);
}

void code_pages_memory_written(struct interpreter *t, uint64_t ram_offset, uint64_t size)
{
    atomic_thread_fence(memory_order_seq_cst); /* as in code_page_written */
    while (size) {
        uint64_t page = ram_offset / GUEST_PAGE_SIZE, offset = ram_offset % GUEST_PAGE_SIZE;
        uint64_t part = GUEST_PAGE_SIZE - offset;

        part = part < size ? part : size;
        if (page < t->code_page_count)
            invalidate(t, &t->code_pages[page], (unsigned)offset, part);
        ram_offset += part;
        size -= part;
    }
}

void code_pages_answer(struct icpu *c)
{
    uintptr_t wanted = atomic_load(&c->drop_writes);

    while (unlikely(wanted)) {
        if (wanted == DROP_ALL)
            interp_drop_write_tags(c);
        else
            interp_drop_write_tags_of(c, (const struct code_page *)wanted);
        /* If another one asked meanwhile, wanted is read anew. */
        if (atomic_compare_exchange_strong(&c->drop_writes, &wanted, 0))
            break;
    }
}

void code_pages_enter(struct icpu *c)
{
    atomic_store(&c->in_run, 1); /* pairs with the load of in_run in wait_for */
    code_pages_answer(c);
}

void code_pages_leave(struct icpu *c)
{
    atomic_store(&c->in_run, 0);
}

static void wait_for(struct icpu *me, struct icpu *other, struct code_page *page)
{
    uintptr_t none = 0;

    if (!atomic_compare_exchange_strong(&other->drop_writes, &none, (uintptr_t)page) &&
        none != (uintptr_t)page)
        atomic_store(&other->drop_writes, DROP_ALL);
    atomic_store(&other->attention, ATTENTION_EVENT);
    for (unsigned spins = 0; atomic_load(&other->drop_writes) && atomic_load(&other->in_run);
         spins++) {
        code_pages_answer(me);
        if (spins > 1000)
            sched_yield();
    }
}

void code_page_claim(struct icpu *c, struct code_page *page, uint64_t chunks)
{
    struct interpreter *t = c->interpreter;
    unsigned count = atomic_load(&t->cpu_count);
    uint32_t generation;
    bool closed;

    host_mutex_lock(&t->code_lock);
    page->chunks |= chunks;
    page->patience = 0;
    generation = page->generation;
    closed = page->guard == GUARD_CLOSED;
    if (page->guard == GUARD_OPEN)
        page->guard = GUARD_CLOSING;
    host_mutex_unlock(&t->code_lock);
    if (likely(closed))
        return;
    atomic_thread_fence(memory_order_seq_cst); /* guard, then may_be_written: see may_write() */
    if (atomic_load(&page->may_be_written)) {
        interp_drop_write_tags_of(c, page);
        for (unsigned n = 0; n < count; n++)
            if (t->cpus[n] != c)
                wait_for(c, t->cpus[n], page);
    }
    host_mutex_lock(&t->code_lock);
    /* In another generation the page may have been opened meanwhile, and be closing again. */
    if (page->guard == GUARD_CLOSING && page->generation == generation)
        page->guard = GUARD_CLOSED;
    host_mutex_unlock(&t->code_lock);
}

void code_pages_ask_all(struct interpreter *t)
{
    unsigned count = atomic_load(&t->cpu_count);

    for (unsigned n = 0; n < count; n++) {
        atomic_store(&t->cpus[n]->drop_writes, DROP_ALL);
        atomic_store(&t->cpus[n]->attention, ATTENTION_EVENT);
    }
}

bool code_pages_all_answered(const struct interpreter *t)
{
    unsigned count = atomic_load(&t->cpu_count);

    for (unsigned n = 0; n < count; n++)
        if (atomic_load(&t->cpus[n]->drop_writes) && atomic_load(&t->cpus[n]->in_run))
            return false;
    return true;
}
