/*
 * pages.c - pages of code, and which of them are current in which address space
 */
#include "engine/translator/cache.h"

#include <stdatomic.h>

static struct tr_page **page_slot(struct translator *t, uint64_t rip)
{
    return &t->page_hash[hash_bits(rip >> 12, TR_PAGE_HASH)];
}

/* ---- which are current ---- */

/* Of those that are mapped globally, or of the others. */
static void forget_listed(struct translator *t, unsigned global, bool global_too)
{
    struct tr_page *next;

    for (struct tr_page *page = t->maybe_current[global]; page; page = next) {
        next = page->current_next[global];
        page->listed &= (uint8_t) ~(1u << global);
        if (global_too || !page->global)
            t->current[page->id] = 0;
    }
    t->maybe_current[global] = NULL;
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
    for (struct tr_page *page = *page_slot(t, linear); page; page = page->hash_next)
        if (((page->rip ^ linear) & GUEST_PAGE_MASK) == 0)
            t->current[page->id] = 0;
}

static void make_current(struct translator *t, struct tr_page *page, bool global)
{
    t->current[page->id] = ~page->rip;
    page->global = global;
    if (page->listed >> global & 1)
        return;
    page->listed |= (uint8_t)(1u << global);
    page->current_next[global] = t->maybe_current[global];
    t->maybe_current[global] = page;
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
    for (struct tr_page *page = t->maybe_current[0]; page; page = page->current_next[0])
        if (t->current[page->id] && !page->global && space->count < TR_SPACE_PAGES)
            space->pages[space->count++] = page;
}

void translator_bring_back(struct translator *t, uint16_t pcid, bool keep)
{
    struct tr_space *space = find_space(t, pcid);

    if (!space)
        return;
    for (unsigned n = 0; keep && n < space->count; n++)
        make_current(t, space->pages[n], false);
    space->is_set = false;
}

void translator_forget_spaces(struct translator *t)
{
    for (unsigned n = 0; n < TR_SPACES; n++)
        t->spaces[n].is_set = false;
}

/* ---- all of them ---- */

static void enter_page(struct translator *t, struct tr_page *page)
{
    struct tr_page **slot = page_slot(t, page->rip), **code = code_slot(t, page->page);

    page->hash_next = *slot;
    page->code_next = *code;
    *slot = *code = page;
}

void recycle_pages(struct translator *t)
{
    memset(t->page_hash, 0, sizeof(t->page_hash));
    memset(t->code_hash, 0, sizeof(t->code_hash));
    t->maybe_current[0] = t->maybe_current[1] = t->free_pages = NULL;
    t->pages_left = TR_PAGE_IDS;
    translator_forget_spaces(t);
    for (unsigned n = t->page_count; n-- > 0;) {
        struct tr_page *page = &t->pages[n];

        page->listed = 0;
        if (!page->uses) {
            t->current[page->id] = 0;
            page->hash_next = t->free_pages;
            t->free_pages = page;
            continue;
        }
        t->pages_left--;
        enter_page(t, page);
        if (t->current[page->id])
            make_current(t, page, page->global);
    }
}

static struct tr_page *page_new(struct translator *t, const struct fetch_entry *f, uint64_t rip)
{
    struct tr_page *page = t->free_pages;

    if (page)
        t->free_pages = page->hash_next;
    else
        page = &t->pages[t->page_count++];
    assert(t->page_count <= TR_PAGE_IDS);
    t->pages_left--;
    *page = (struct tr_page){.rip = rip,
                             .gpa = f->gpa,
                             .page = f->page,
                             .generation = atomic_load(&f->page->generation),
                             .id = (uint32_t)(page - t->pages),
                             .kind = t->c->tlb_kind,
                             .mode = current_mode(t->c),
                             .built = t->built};
    enter_page(t, page);
    return page;
}

struct tr_page *translator_page(struct translator *t, const struct fetch_entry *f, uint64_t rip)
{
    struct tr_page *page = *page_slot(t, rip);

    while (page && !(page->rip == rip && page->gpa == f->gpa && page->page == f->page &&
                     page->mode == current_mode(t->c) && page->built == t->built))
        page = page->hash_next;
    if (!page)
        page = page_new(t, f, rip);
    make_current(t, page, f->global);
    return page;
}
