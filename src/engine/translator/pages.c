/*
 * pages.c - pages of code, and which of them are current in which address space
 *
 * Pages belong to the cache, and which are current to a vCPU: that is in arrays of its own by the
 * numbers of pages, where it can look and change without the cache's lock.
 */
#include "engine/translator/cache.h"

#include <stdatomic.h>

static unsigned linear_hash(uint64_t linear)
{
    return hash_bits(linear >> 12, TR_PAGE_HASH);
}

/* ---- which are current ---- */

/* Of those that are mapped globally, or of the others. */
static void forget_listed(struct translator *t, unsigned global, bool global_too)
{
    uint32_t next;

    for (uint32_t id = t->maybe_current[global]; id; id = next) {
        struct tr_seen *seen = &t->seen[id];

        next = seen->current_next[global];
        seen->listed &= (uint8_t) ~(1u << global);
        if (global_too || !seen->global)
            t->current[id] = 0;
    }
    t->maybe_current[global] = 0;
}

void translator_forget_mappings(struct translator *t, bool global_too)
{
    forget_listed(t, 0, global_too);
    if (global_too) {
        forget_listed(t, 1, true);
        translator_forget_spaces(t);
    }
}

void translator_forget_page(struct translator *t, uint64_t linear)
{
    for (uint32_t id = t->seen_hash[linear_hash(linear)]; id; id = t->seen[id].hash_next)
        if (t->current[id] == ~(linear & GUEST_PAGE_MASK))
            t->current[id] = 0;
}

void translator_forget_gigabyte(struct translator *t, uint64_t linear)
{
    for (unsigned global = 0; global < 2; global++)
        for (uint32_t id = t->maybe_current[global]; id; id = t->seen[id].current_next[global])
            if (in_same_gigabyte(~t->current[id], linear))
                t->current[id] = 0;
}

void forget_pages(struct translator *t)
{
    uint32_t next;

    translator_forget_mappings(t, true);
    for (unsigned n = 0; n < TR_PAGE_HASH; n++) {
        for (uint32_t id = t->seen_hash[n]; id; id = next) {
            next = t->seen[id].hash_next;
            t->seen[id].listed = 0;
        }
        t->seen_hash[n] = 0;
    }
}

static void make_current(struct translator *t, uint32_t id, uint64_t rip, bool global)
{
    struct tr_seen *seen = &t->seen[id];
    uint32_t *slot = &t->seen_hash[linear_hash(rip)];

    t->current[id] = ~rip;
    seen->global = global;
    if (!(seen->listed & TR_IN_HASH)) {
        seen->listed |= TR_IN_HASH;
        seen->hash_next = *slot;
        *slot = id;
    }
    if (seen->listed >> global & 1)
        return;
    seen->listed |= (uint8_t)(1u << global);
    seen->current_next[global] = t->maybe_current[global];
    t->maybe_current[global] = id;
}

static struct tr_space *find_space(struct translator *t, uint16_t pcid)
{
    for (unsigned n = 0; n < TR_SPACES; n++)
        if (t->spaces[n].is_set && t->spaces[n].pcid == pcid)
            return &t->spaces[n];
    return NULL;
}

void translator_set_aside(struct translator *t, uint16_t pcid)
{
    struct tr_space *space = find_space(t, pcid);

    if (!space)
        space = &t->spaces[t->next_space++ % TR_SPACES];
    space->is_set = true;
    space->pcid = pcid;
    space->count = 0;
    for (uint32_t id = t->maybe_current[0]; id; id = t->seen[id].current_next[0])
        if (t->current[id] && !t->seen[id].global && space->count < TR_SPACE_PAGES) {
            space->pages[space->count].id = id;
            space->pages[space->count++].rip = ~t->current[id];
        }
}

void translator_bring_back(struct translator *t, uint16_t pcid, bool keep)
{
    struct tr_space *space = find_space(t, pcid);

    if (!space)
        return;
    for (unsigned n = 0; keep && n < space->count; n++)
        make_current(t, space->pages[n].id, space->pages[n].rip, false);
    space->is_set = false;
}

void translator_forget_spaces(struct translator *t)
{
    for (unsigned n = 0; n < TR_SPACES; n++)
        t->spaces[n].is_set = false;
}

/* ---- all of them ---- */

static struct tr_page **page_slot(struct tr_cache *cache, uint64_t rip)
{
    return &cache->page_hash[linear_hash(rip)];
}

static void enter_page(struct tr_cache *cache, struct tr_page *page)
{
    struct tr_page **slot = page_slot(cache, page->rip), **code = code_slot(cache, page->page);

    page->hash_next = *slot;
    page->code_next = *code;
    *slot = *code = page;
}

void recycle_pages(struct tr_cache *cache)
{
    memset(cache->page_hash, 0, sizeof(cache->page_hash));
    memset(cache->code_hash, 0, sizeof(cache->code_hash));
    cache->free_pages = NULL;
    cache->pages_left = TR_PAGE_IDS - 1;
    for (unsigned n = cache->page_end; n-- > 1;) {
        struct tr_page *page = &cache->pages[n];

        if (!page->uses) {
            page->hash_next = cache->free_pages;
            cache->free_pages = page;
            continue;
        }
        cache->pages_left--;
        enter_page(cache, page);
    }
}

static struct tr_page *page_new(struct translator *t, const struct fetch_entry *f, uint64_t rip)
{
    struct tr_cache *cache = t->cache;
    struct tr_page *page = cache->free_pages;

    if (page)
        cache->free_pages = page->hash_next;
    else
        page = &cache->pages[cache->page_end++];
    assert(cache->page_end <= TR_PAGE_IDS);
    cache->pages_left--;
    *page = (struct tr_page){.rip = rip,
                             .gpa = f->gpa,
                             .page = f->page,
                             .generation = atomic_load(&f->page->generation),
                             .id = (uint32_t)(page - cache->pages),
                             .kind = t->c->tlb_kind,
                             .mode = current_mode(t->c),
                             .built = t->built};
    enter_page(cache, page);
    return page;
}

struct tr_page *translator_page(struct translator *t, const struct fetch_entry *f, uint64_t rip)
{
    struct tr_page *page = *page_slot(t->cache, rip);

    while (page && !(page->rip == rip && page->gpa == f->gpa && page->page == f->page &&
                     page->mode == current_mode(t->c) && page->built == t->built))
        page = page->hash_next;
    if (!page)
        page = page_new(t, f, rip);
    make_current(t, page->id, page->rip, f->global);
    return page;
}
