/*
 * blocks.c - blocks, the links between them, and the memory they are in
 *
 * A block is found by its page and RIP. When code is written, the blocks that come from the same
 * 64 bytes are dropped: unlinked from everything that leads to them. Their code and data stay
 * until everything is flushed, so a block that is being left may be dropped.
 */
#include "engine/translator/cache.h"

#include <stdatomic.h>

#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"

/* ---- memory for blocks ---- */

void *translator_data(struct translator *t, size_t bytes)
{
    void *data = t->data + t->data_used;

    t->data_used += (bytes + 15) & ~(size_t)15;
    assert(t->data_used <= t->data_bytes);
    return data;
}

static const uint8_t *jump_miss(const struct translator *t, bool saved)
{
    return saved ? t->exit_indirect_saved : t->exit_indirect;
}

static void clear_jumps(struct translator *t, bool saved, unsigned mode)
{
    for (unsigned n = 0; n < TR_JUMP_SIZE; n++)
        t->jumps[saved][mode][n] = jump_miss(t, saved);
}

void translator_flush(struct translator *t)
{
    t->emit.at = t->first_block;
    t->data_used = 0;
    t->next_id = 0;
    t->pages = t->maybe_current[0] = t->maybe_current[1] = NULL;
    memset(t->current, 0, sizeof(t->current));
    translator_forget_spaces(t);
    memset(t->page_hash, 0, sizeof(t->page_hash));
    memset(t->code_hash, 0, sizeof(t->code_hash));
    memset(t->recent, 0, sizeof(t->recent));
    memset(t->block_hash, 0, sizeof(t->block_hash));
    memset(t->hot, 0, sizeof(t->hot));
    memset(t->tame, 0, sizeof(t->tame));
    t->link = NULL;
    t->site = NULL;
    for (unsigned n = 0; n < 2 * TR_MODE_COUNT; n++)
        if (t->jumps[n & 1][n / 2])
            clear_jumps(t, n & 1, n / 2);
    t->stats.flushes++;
}

static bool has_room(const struct translator *t)
{
    return (size_t)(t->emit.at - t->code.write) + TR_MAX_BLOCK_CODE <= t->code.size_bytes &&
           t->data_used + TR_MAX_BLOCK_DATA <= t->data_bytes &&
           t->next_id + TR_MAX_PARTS < TR_PAGE_IDS;
}

/* ---- finding and dropping ---- */

static unsigned block_index(const struct tr_page *page, uint64_t rip)
{
    return hash_bits((uint64_t)page->id << 12 | (rip & 0xfff), TR_BLOCK_HASH);
}

static struct tr_block **block_slot(struct translator *t, const struct tr_page *page, uint64_t rip)
{
    return &t->block_hash[block_index(page, rip)];
}

static bool get_bit(const uint64_t *bits, unsigned index)
{
    return bits[index / 64] >> (index % 64) & 1;
}

static void set_bit(uint64_t *bits, unsigned index)
{
    bits[index / 64] |= 1ull << (index % 64);
}

bool translator_may_follow(const struct translator *t, const struct tr_page *page, uint64_t rip)
{
    return !get_bit(t->tame, block_index(page, rip));
}

static void take_out(struct translator *t, struct tr_block *b)
{
    struct tr_block **slot = block_slot(t, b->page, b->rip);

    while (*slot != b)
        slot = &(*slot)->hash_next;
    *slot = b->hash_next;
}

/* Nothing leads to the block any more. It can still be found if it has a source. */
static void drop_block(struct translator *t, struct tr_block *b)
{
    if (b->dropped)
        return;
    b->dropped = true;
    if (!b->source)
        take_out(t, b);
    for (struct tr_link *link = b->incoming; link; link = link->next)
        emit_aim(&t->emit, link->rel32, link->stub);
    b->incoming = NULL;
    for (unsigned saved = 0; saved < 2; saved++) {
        const uint8_t **jump = &t->jumps[saved][b->page->mode][b->rip & (TR_JUMP_SIZE - 1)];

        if (*jump == b->entries[saved][TR_INDIRECT])
            *jump = jump_miss(t, saved);
    }
}

/* ---- changes of code ---- */

void translator_page_changed(struct icpu *c, struct code_page *page, uint64_t chunks)
{
    struct translator *t = c->translator;

    if (t->change_count < TR_CHANGES) {
        t->changes[t->change_count].page = page;
        t->changes[t->change_count].chunks = chunks;
    }
    t->change_count++;
    atomic_store(&t->stale, 1);
    atomic_store(&c->attention, ATTENTION_EVENT);
}
/* Drop the blocks that come from these chunks. */
static void drop_blocks(struct translator *t, struct tr_page *page, uint64_t chunks)
{
    struct tr_part **link = &page->parts;

    while (*link) {
        struct tr_part *part = *link;

        if (part->chunks & chunks) {
            if (part->block->follows)
                set_bit(t->tame, block_index(part->block->page, part->block->rip));
            drop_block(t, part->block);
        }
        if (part->block->dropped)
            *link = part->next;
        else
            link = &part->next;
    }
    t->stats.pages_changed++;
}

static void take_change(struct translator *t, struct code_page *changed, uint64_t chunks)
{
    for (struct tr_page *page = *code_slot(t, changed); page; page = page->code_next)
        if (page->page == changed) {
            drop_blocks(t, page, chunks);
            page->generation = atomic_load(&changed->generation);
        }
}

static void take_all_changes(struct translator *t)
{
    for (struct tr_page *page = t->pages; page; page = page->all_next)
        if (atomic_load(&page->page->generation) != page->generation) {
            drop_blocks(t, page, ~0ull);
            page->generation = atomic_load(&page->page->generation);
        }
}

void take_changes(struct translator *t)
{
    struct interpreter *interpreter = t->c->interpreter;

    host_mutex_lock(&interpreter->code_lock); /* no generation advances meanwhile */
    if (t->change_count > TR_CHANGES)
        take_all_changes(t);
    else
        for (unsigned n = 0; n < t->change_count; n++)
            take_change(t, t->changes[n].page, t->changes[n].chunks);
    t->change_count = 0;
    host_mutex_unlock(&interpreter->code_lock);
}

/* ---- blocks ---- */

static void add_parts(struct tr_block *b)
{
    for (unsigned n = 0; n < b->part_count; n++) {
        b->parts[n].block = b;
        b->parts[n].next = b->parts[n].page->parts;
        b->parts[n].page->parts = &b->parts[n];
    }
}

static struct tr_block *block_new(struct translator *t, struct tr_page *page,
                                  const struct fetch_entry *f, uint64_t rip, enum tr_style style,
                                  const struct tr_source *before)
{
    struct tr_block **slot = block_slot(t, page, rip);
    enum meter_part part;
    struct tr_block *b;

    if (style == TR_QUICK && get_bit(t->hot, block_index(page, rip)) &&
        translator_may_follow(t, page, rip))
        style = TR_FOLLOWING;
    part = meter_to(t->c, METER_TRANSLATING);
    b = translate_block(t, page, f, rip, style, before);
    meter_to(t->c, part);
    if (!b)
        return NULL;
    b->hash_next = *slot;
    *slot = b;
    add_parts(b);
    return b;
}

/*
 * A block whose bytes were written. They are the same again, so it is brought back; but not if that
 * goes on and on, so that it should check itself. Its page is watched before they are compared.
 */
static bool revive(struct translator *t, const struct fetch_entry *f, struct tr_block *b)
{
    const uint8_t *host = f->host + (b->rip & 0xfff);

    if (b->checks_itself || !source_is_at(b->source, host, false) ||
        (b->source->patches == TR_PATCHES - 1 && !t->c->counted))
        return false;
    code_page_claim(t->c, b->page->page, b->parts[0].chunks);
    if (!source_is_at(b->source, host, false) ||
        atomic_load(&b->page->page->generation) != b->page->generation)
        return false;
    if (b->source->patches < TR_PATCHES - 1)
        b->source->patches++;
    b->dropped = false;
    add_parts(b);
    t->stats.revived++;
    return true;
}

/* Is the block, which was found by its RIP, what is there now? */
static bool is_current(struct translator *t, const struct fetch_entry *f, struct tr_block *b)
{
    if (b->checks_itself && !source_is_at(b->source, f->host + (b->rip & 0xfff), true))
        drop_block(t, b);
    return !b->dropped || revive(t, f, b);
}

bool translator_make_jumps(struct translator *t, unsigned mode)
{
    for (unsigned saved = 0; saved < 2; saved++) {
        if (t->jumps[saved][mode])
            continue;
        t->jumps[saved][mode] = host_low_memory_new(JUMP_BYTES, NULL);
        if (!t->jumps[saved][mode])
            return false;
        clear_jumps(t, saved, mode);
    }
    return true;
}

/* Is the page that the block's instruction runs into where it was? Raises #PF if there is none. */
static bool second_is_there(struct translator *t, const struct tr_block *b)
{
    struct tr_page *second = b->parts[1].page;
    const struct fetch_entry *f = interp_fetch(t->c, second->rip);

    return f->page && translator_page(t, f, second->rip) == second;
}

/* A block that was found lately, with its RIP: is it the one that would be found now? */
static bool is_usable(const struct translator *t, const struct tr_block *b)
{
    return !b->dropped && b->style == TR_QUICK && !b->crosses && !b->checks_itself &&
           b->page->mode == current_mode(t->c) && t->current[b->page->id];
}

/* The block at RIP; NULL if the interpreter has to run the instruction there. */
struct tr_block *find_block(struct translator *t, enum tr_style style)
{
    struct icpu *c = t->c;
    uint64_t rip = c->cpu.s.rip, page_rip = rip & GUEST_PAGE_MASK;
    struct tr_block **recent = &t->recent[hash_bits(rip, TR_RECENT)], *b = *recent;
    const struct tr_source *before = NULL;
    const struct fetch_entry *f;
    struct tr_page *page;

    if (likely(b && b->rip == rip && style == TR_QUICK) && is_usable(t, b))
        return b;
    if (unlikely(!x86_is_canonical(rip))) {
        flags_materialize(c);
        x86_raise_code(&c->cpu, X86_GP, 0);
    }
    f = interp_fetch(c, rip);
    if (unlikely(!f->page) || unlikely(!translator_make_jumps(t, current_mode(c))))
        return NULL;
    if (unlikely(!has_room(t)))
        translator_flush(t);
    page = translator_page(t, f, page_rip);
    for (b = *block_slot(t, page, rip); b; b = b->hash_next)
        if (b->page == page && b->rip == rip && b->style == style &&
            (!b->crosses || second_is_there(t, b)))
            break;
    if (b && unlikely(b->dropped || b->checks_itself) && !is_current(t, f, b)) {
        before = b->source;
        take_out(t, b);
        b = NULL;
    }
    if (!b)
        b = block_new(t, page, f, rip, style, before);
    *recent = b;
    return b;
}

/* ---- links ---- */

static void link_to(struct translator *t, struct tr_link *link, struct tr_block *b)
{
    enum tr_entry entry = link->block->page != b->page ? TR_CROSS
                          : b->rip <= link->block->rip ? TR_CHECKED
                                                       : TR_DIRECT;

    emit_aim(&t->emit, link->rel32, b->entries[link->saved][entry]);
    link->next = b->incoming;
    b->incoming = link;
    t->stats.links++;
}

/*
 * A block that ends with a branch which could be followed is made again when the branch was taken
 * often enough. True: link it.
 */
static bool warm_up(struct translator *t, struct tr_link *link)
{
    unsigned index = block_index(link->block->page, link->block->rip);

    if (!link->heat)
        return true;
    if (--link->heat)
        return false;
    set_bit(t->hot, index);
    if (!link->block->dropped) {
        drop_block(t, link->block);
        if (link->block->source)
            take_out(t, link->block);
    }
    return false;
}

/* Where generated code left off: what leads here may lead here directly the next time. */
void remember_way(struct translator *t, struct tr_block *b)
{
    if (t->link && warm_up(t, (struct tr_link *)t->link))
        link_to(t, (struct tr_link *)t->link, b);
    for (unsigned saved = 0; t->site && saved < 2; saved++)
        t->jumps[saved][b->page->mode][b->rip & (TR_JUMP_SIZE - 1)] =
            b->entries[saved][TR_INDIRECT];
    t->link = NULL;
    t->site = NULL;
}
