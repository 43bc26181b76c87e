/*
 * blocks.c - blocks, the links between them, and the memory they are in
 *
 * A block is found by its page and RIP. When code is written, the blocks that come from the same
 * 64 bytes are dropped: unlinked from everything that leads to them. Their code and data stay
 * until their part of the cache is needed, so a block that is being left may be dropped.
 *
 * The cache is a ring of TR_REGIONS regions, each with room for code and for what belongs to it.
 * When one is full, the next one is emptied: its blocks are dropped, and nothing knows of them any
 * more. Pages are not in it: they are freed when no block comes from them.
 */
#include "engine/translator/cache.h"

#include <stdatomic.h>

#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"

/* ---- memory for blocks ---- */

/* The region's code, write view, and data; those of TR_REGIONS are the ends. */
static uint8_t *region_code(const struct translator *t, unsigned region)
{
    size_t bytes = t->code.size_bytes - (size_t)(t->first_block - t->code.write);

    return t->first_block + bytes / TR_REGIONS * region;
}

static uint8_t *region_data(const struct translator *t, unsigned region)
{
    return t->data + (t->data_bytes / TR_REGIONS & ~(size_t)7) * region;
}

void *translator_data(struct translator *t, size_t bytes)
{
    void *data = t->data_at;

    t->data_at += (bytes + 7) & ~(size_t)7;
    assert(t->data_at <= region_data(t, t->region + 1));
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

/* ---- finding and dropping ---- */

static unsigned block_index(const struct tr_page *page, uint64_t rip)
{
    return hash_bits((uint64_t)page->id << 12 | (rip & 0xfff), TR_BLOCK_HASH);
}

static tr_ref *block_slot(struct translator *t, const struct tr_page *page, uint64_t rip)
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

/* It may have been taken out before. */
static void take_out(struct translator *t, struct tr_block *b)
{
    tr_ref *slot = block_slot(t, b->page, b->rip), ref = tr_ref_to(t, b);

    while (*slot && *slot != ref)
        slot = &tr_block_at(t, *slot)->hash_next;
    if (*slot)
        *slot = b->hash_next;
}

static struct tr_page *part_page(const struct translator *t, const struct tr_part *part)
{
    return &t->pages[part->page_id];
}

static struct tr_part *part_at(const struct translator *t, tr_ref ref)
{
    return tr_at(t, ref);
}

static void add_parts(struct translator *t, struct tr_block *b)
{
    for (unsigned n = 0; n < b->part_count; n++) {
        struct tr_part *part = &b->parts[n];
        struct tr_page *page = part_page(t, part);

        part->block = tr_ref_to(t, b);
        part->next = page->parts;
        part->previous = 0;
        page->parts = tr_ref_to(t, part);
        if (part->next)
            part_at(t, part->next)->previous = page->parts;
    }
}

static void remove_parts(struct translator *t, struct tr_block *b)
{
    for (unsigned n = 0; n < b->part_count; n++) {
        struct tr_part *part = &b->parts[n];

        if (part->previous)
            part_at(t, part->previous)->next = part->next;
        else
            part_page(t, part)->parts = part->next;
        if (part->next)
            part_at(t, part->next)->previous = part->previous;
    }
}

static uint8_t *branch_of(const struct translator *t, const struct tr_link *link)
{
    return t->code.write + link->rel32;
}

static const uint8_t *code_at(uint32_t address)
{
    return (const uint8_t *)(uintptr_t)address;
}

/* What follows a block's or a link's first member, which ref leads to. */
static tr_ref *next_link(const struct translator *t, tr_ref ref)
{
    return tr_at(t, ref);
}

static struct tr_link *link_at(const struct translator *t, tr_ref ref)
{
    return tr_at(t, ref);
}

static void link_to(struct translator *t, struct tr_link *link, struct tr_block *b)
{
    const struct tr_block *from = tr_block_at(t, link->block);
    enum tr_entry entry = from->page != b->page ? TR_CROSS
                          : b->rip <= from->rip ? TR_CHECKED
                                                : TR_DIRECT;

    emit_aim(&t->emit, branch_of(t, link), code_at(b->entries[link->saved][entry]));
    link->next = b->incoming;
    link->before = tr_ref_to(t, b);
    b->incoming = tr_ref_to(t, link);
    if (link->next)
        link_at(t, link->next)->before = b->incoming;
    t->stats.links++;
}

/* It leads to its stub again. */
static void unlink_from_target(struct translator *t, struct tr_link *link)
{
    if (!link->before)
        return;
    emit_aim(&t->emit, branch_of(t, link), code_at(link->stub));
    *next_link(t, link->before) = link->next;
    if (link->next)
        link_at(t, link->next)->before = link->before;
    link->before = 0;
}

/* Nothing leads to the block any more. It can still be found if it has a source. */
static void drop_block(struct translator *t, struct tr_block *b)
{
    if (b->dropped)
        return;
    b->dropped = true;
    if (!b->source)
        take_out(t, b);
    remove_parts(t, b);
    while (b->incoming)
        unlink_from_target(t, link_at(t, b->incoming));
    for (unsigned saved = 0; saved < 2; saved++) {
        const uint8_t **jump = &t->jumps[saved][b->page->mode][b->rip & (TR_JUMP_SIZE - 1)];

        if (*jump == code_at(b->entries[saved][TR_INDIRECT]))
            *jump = jump_miss(t, saved);
    }
}

/* ---- filling and emptying ---- */

static void fill(struct translator *t, unsigned region)
{
    t->region = region;
    t->emit.at = region_code(t, region);
    t->data_at = region_data(t, region) + 8; /* no ref is 0 */
}

/* What is known of hot blocks is of one turn. */
static void fill_first(struct translator *t)
{
    fill(t, 0);
    memset(t->hot, 0, sizeof(t->hot));
    memset(t->tame, 0, sizeof(t->tame));
}

void start_filling(struct translator *t)
{
    t->first_block = t->emit.at;
    fill_first(t);
    recycle_pages(t);
}

/* Nothing knows of the region's blocks any more, but t->recent and how generated code was left. */
static void empty(struct translator *t, struct tr_region *region)
{
    for (tr_ref ref = region->blocks; ref; ref = tr_block_at(t, ref)->region_next) {
        struct tr_block *b = tr_at(t, ref);

        drop_block(t, b);
        take_out(t, b);
        for (unsigned n = 0; n < b->link_count; n++)
            unlink_from_target(t, link_at(t, b->links) + n);
        for (unsigned n = 0; n < b->part_count; n++)
            part_page(t, &b->parts[n])->uses--;
    }
    *region = (struct tr_region){0};
}

static void emptied(struct translator *t)
{
    memset(t->recent, 0, sizeof(t->recent));
    translator_forget_ops(t);
    t->link = 0;
    t->site = 0;
    recycle_pages(t);
}

static void fill_next(struct translator *t)
{
    struct tr_region *full = &t->regions[t->region], *next;

    full->code_bytes = (size_t)(t->emit.at - region_code(t, t->region));
    full->data_bytes = (size_t)(t->data_at - region_data(t, t->region));
    if (t->region + 1 < TR_REGIONS)
        fill(t, t->region + 1);
    else
        fill_first(t);
    next = &t->regions[t->region];
    t->stats.evictions += next->blocks != 0;
    empty(t, next);
    emptied(t);
}

static bool has_room(const struct translator *t)
{
    return t->emit.at + TR_MAX_BLOCK_CODE <= region_code(t, t->region + 1) &&
           t->data_at + TR_MAX_BLOCK_DATA <= region_data(t, t->region + 1) &&
           t->pages_left > TR_MAX_PARTS;
}

struct tr_region memory_used(const struct translator *t)
{
    struct tr_region used = {.code_bytes = (size_t)(t->emit.at - region_code(t, t->region)),
                             .data_bytes = (size_t)(t->data_at - region_data(t, t->region))};

    for (unsigned n = 0; n < TR_REGIONS; n++) {
        used.code_bytes += t->regions[n].code_bytes;
        used.data_bytes += t->regions[n].data_bytes;
    }
    return used;
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
    tr_ref next;

    for (tr_ref ref = page->parts; ref; ref = next) {
        const struct tr_part *part = part_at(t, ref);
        struct tr_block *b = tr_at(t, part->block);

        next = part->next;
        if (!(part->chunks & chunks))
            continue;
        if (b->follows)
            set_bit(t->tame, block_index(b->page, b->rip));
        drop_block(t, b);
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
    for (struct tr_page *page = t->pages; page < t->pages + t->page_count; page++)
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

static struct tr_block *block_new(struct translator *t, struct tr_page *page,
                                  const struct fetch_entry *f, uint64_t rip, enum tr_style style,
                                  const struct tr_source *before)
{
    tr_ref *slot = block_slot(t, page, rip);
    struct tr_region *region = &t->regions[t->region];
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
    b->region_next = region->blocks;
    *slot = region->blocks = tr_ref_to(t, b);
    add_parts(t, b);
    for (unsigned n = 0; n < b->part_count; n++)
        part_page(t, &b->parts[n])->uses++;
    return b;
}

/*
 * A block whose bytes were written. They are the same again, so it is brought back; but not if that
 * goes on and on, so that it should check itself. Its page is watched before they are compared.
 */
static bool revive(struct translator *t, const struct fetch_entry *f, struct tr_block *b)
{
    const uint8_t *host = f->host + (b->rip & 0xfff);
    struct tr_source *source = tr_at(t, b->source);

    if (b->checks_itself || !source_is_at(source, host, false) ||
        (source->patches == TR_PATCHES - 1 && !t->c->counted))
        return false;
    code_page_claim(t->c, b->page->page, b->parts[0].chunks);
    if (!source_is_at(source, host, false) ||
        atomic_load(&b->page->page->generation) != b->page->generation)
        return false;
    if (source->patches < TR_PATCHES - 1)
        source->patches++;
    b->dropped = false;
    add_parts(t, b);
    t->stats.revived++;
    return true;
}

/* Is the block, which was found by its RIP, what is there now? */
static bool is_current(struct translator *t, const struct fetch_entry *f, struct tr_block *b)
{
    if (b->checks_itself && !source_is_at(tr_at(t, b->source), f->host + (b->rip & 0xfff), true))
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
    struct tr_page *second = part_page(t, &b->parts[1]);
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
    while (unlikely(!has_room(t)))
        fill_next(t);
    page = translator_page(t, f, page_rip);
    for (b = tr_block_at(t, *block_slot(t, page, rip)); b; b = tr_block_at(t, b->hash_next))
        if (b->page == page && b->rip == rip && b->style == style &&
            (!b->crosses || second_is_there(t, b)))
            break;
    if (b && unlikely(b->dropped || b->checks_itself) && !is_current(t, f, b)) {
        before = b->source ? tr_at(t, b->source) : NULL;
        take_out(t, b);
        b = NULL;
    }
    if (!b)
        b = block_new(t, page, f, rip, style, before);
    *recent = b;
    return b;
}

/* ---- links ---- */

/*
 * A block that ends with a branch which could be followed is made again when the branch was taken
 * often enough. True: link it.
 */
static bool warm_up(struct translator *t, struct tr_link *link)
{
    struct tr_block *from = tr_at(t, link->block);
    unsigned index = block_index(from->page, from->rip);

    if (!link->heat)
        return true;
    if (--link->heat)
        return false;
    set_bit(t->hot, index);
    if (!from->dropped) {
        drop_block(t, from);
        if (from->source)
            take_out(t, from);
    }
    return false;
}

/* Where generated code left off: what leads here may lead here directly the next time. */
void remember_way(struct translator *t, struct tr_block *b)
{
    if (t->link && warm_up(t, link_at(t, t->link)))
        link_to(t, link_at(t, t->link), b);
    for (unsigned saved = 0; t->site && saved < 2; saved++)
        t->jumps[saved][b->page->mode][b->rip & (TR_JUMP_SIZE - 1)] =
            code_at(b->entries[saved][TR_INDIRECT]);
    t->link = 0;
    t->site = 0;
}
