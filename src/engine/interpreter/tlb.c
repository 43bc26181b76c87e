/*
 * tlb.c - entries of the software TLB become invalid, and with them what code was found through
 * them
 *
 * Theory of operation. Slots that are in use stand in lists (tlb_filled), those of global pages and
 * of others apart, so that emptying costs what was filled. A vCPU flushes its own TLB only: others
 * are told by interrupts, as on a PC, or between two blocks (run.c).
 */
#include "engine/interpreter/tlb.h"

#include <assert.h>

#include "engine/interpreter/meter.h"
#include "engine/translator/translator.h"
#include "x86/control.h"

static void clear_tags(struct tlb_entry *e, unsigned slot)
{
    e->read = e->write = tlb_never(slot);
    e->ram &= TLB_IN_LIST | TLB_IN_LIST << 1;
}

/* Entries become invalid. */
static void note_invalid(struct icpu *c)
{
    c->tlb_epoch++;
    for (unsigned n = 0; n < NEAR_PAGES && c->near_used; n++)
        c->near[n].read = c->near[n].write = c->no_page;
    c->near_used = 0;
}

/*
 * Any address is compared with a near page. So what answers nothing is a secret, and not canonical,
 * nor is what it leads to: who guesses these 49 bits ends the machine.
 */
static void choose_no_page(struct icpu *c)
{
    host_random(&c->no_page, sizeof(c->no_page));
    c->no_page = (c->no_page & ((1ull << 61) - GUEST_PAGE_SIZE)) | 1ull << 62;
    c->near_used = 1;
    note_invalid(c);
}

static bool bitmap_test(const uint64_t *map, unsigned n)
{
    return map[n / 64] >> (n % 64) & 1;
}

static bool may_be_in_large_page(const struct icpu *c, uint64_t linear)
{
    return bitmap_test(c->large_pages.of_1g, tlb_hash_1g(linear)) ||
           bitmap_test(c->large_pages.of_2m, tlb_hash_2m(linear));
}

static void flush_jumps(struct icpu *c)
{
    for (unsigned n = 0; c->jumps_filled && n < JUMP_SIZE; n++)
        c->jumps[n].key = ~0ull; /* no canonical RIP and mode give this: see mode_bits */
    c->jumps_filled = false;
}

static void flush_fetches(struct icpu *c)
{
    for (unsigned n = 0; n < FETCH_SIZE; n++)
        c->fetches[n].key = FETCH_NONE;
}

void interp_flush_jumps(struct icpu *c)
{
    flush_jumps(c);
    flush_fetches(c);
    if (c->translator)
        translator_forget_mappings(c->translator, true);
}

/* Code that is mapped globally stays where it is. */
static void flush_local_jumps(struct icpu *c)
{
    flush_jumps(c);
    for (unsigned word = 0; word < FETCH_SIZE / 64; word++) {
        for (uint64_t bits = c->local_fetches[word]; bits; bits &= bits - 1)
            c->fetches[64 * word + (unsigned)__builtin_ctzll(bits)].key = FETCH_NONE;
        c->local_fetches[word] = 0;
    }
    if (c->translator)
        translator_forget_mappings(c->translator, false);
}

static void flush_page_jumps(struct icpu *c, uint64_t linear)
{
    flush_jumps(c);
    c->fetches[(linear >> 12) & (FETCH_SIZE - 1)].key = FETCH_NONE;
    if (c->translator)
        translator_forget_page(c->translator, linear);
}

static void flush_gigabyte_jumps(struct icpu *c, uint64_t linear)
{
    flush_jumps(c);
    flush_fetches(c);
    if (c->translator)
        translator_forget_gigabyte(c->translator, linear);
}

void interp_empty_tlb(struct icpu *c)
{
    choose_no_page(c);
    for (unsigned kind = 0; kind < TLB_KIND_COUNT; kind++) {
        for (unsigned slot = 0; slot < TLB_SIZE; slot++) {
            c->tlbs[kind][slot].ram = 0;
            assert(tlb_index(tlb_never(slot)) != slot);
            clear_tags(&c->tlbs[kind][slot], slot);
        }
        c->tlb_filled[0][kind].count = c->tlb_filled[1][kind].count = 0;
    }
    c->jumps_filled = true; /* none of them is valid yet */
    interp_flush_jumps(c);
}

static void flush_filled(struct icpu *c, unsigned global, unsigned kind, bool global_too)
{
    struct tlb_filled *filled = &c->tlb_filled[global][kind];

    for (unsigned n = 0; n < filled->count; n++) {
        unsigned slot = filled->slots[n];
        struct tlb_entry *e = &c->tlbs[kind][slot];

        e->ram &= ~((uint64_t)TLB_IN_LIST << global);
        if (global_too || !(e->ram & TLB_GLOBAL))
            clear_tags(e, slot);
    }
    filled->count = 0;
}

static void flush_mappings(struct icpu *c, bool global_too)
{
    meter_count(c, global_too ? METER_TLB_FLUSHES : METER_TLB_LOCAL_FLUSHES);
    note_invalid(c);
    for (unsigned global = 0; global <= global_too; global++)
        for (unsigned kind = 0; kind < TLB_KIND_COUNT; kind++)
            flush_filled(c, global, kind, global_too);
    if (global_too) {
        c->large_pages = (struct large_pages){0};
        c->tlb_keys = 0;
    }
    if (global_too)
        interp_flush_jumps(c);
    else
        flush_local_jumps(c);
}

void interp_flush_tlb(struct icpu *c, bool global_too)
{
    x86_walk_cache_forget(&c->walk_cache);
    flush_mappings(c, global_too);
}

void interp_leave_space(struct icpu *c)
{
    flush_mappings(c, false);
}

/* Calls visit for each slot in use, some of them twice. */
static void for_each_filled(struct icpu *c,
                            void (*visit)(struct tlb_entry *e, unsigned slot, uint64_t which),
                            uint64_t which)
{
    for (unsigned n = 0; n < 2 * TLB_KIND_COUNT; n++) {
        const struct tlb_filled *filled = &c->tlb_filled[n & 1][n / 2];

        for (unsigned k = 0; k < filled->count; k++)
            visit(&c->tlbs[n / 2][filled->slots[k]], filled->slots[k], which);
    }
}

/* Keys are folded into the entries. */
void interp_pkru_changed(struct icpu *c, uint32_t before)
{
    for (unsigned key = 0; key < 16; key++)
        if (c->tlb_keys >> key & 1 && (c->cpu.s.fpu.pkru ^ before) >> (2 * key) & 3) {
            interp_flush_tlb(c, true);
            return;
        }
}

/* Entries without a tag need not be found. */
static void clear_large_near(struct tlb_entry *e, unsigned slot, uint64_t linear)
{
    if ((e->ram & TLB_LARGE) &&
        (in_same_gigabyte(e->read, linear) || in_same_gigabyte(e->write, linear)))
        clear_tags(e, slot);
}

static void clear_write_tag(struct tlb_entry *e, unsigned slot, uint64_t ram)
{
    if (((e->ram ^ ram) & GUEST_PAGE_MASK) == 0)
        e->write = tlb_never(slot);
}

static void clear_any_write_tag(struct tlb_entry *e, unsigned slot, uint64_t unused)
{
    (void)unused;
    e->write = tlb_never(slot);
}

/*
 * A large page is in the TLB as many entries of 4 KiB, and INVLPG invalidates all of them (SDM vol.
 * 3, 4.10.4.1). Which ones belong together is not kept: all parts of large pages in the same GiB
 * are dropped.
 */
void interp_flush_tlb_page(struct icpu *c, uint64_t linear)
{
    unsigned slot = tlb_index(linear);

    meter_count(c, METER_TLB_PAGE_FLUSHES);
    x86_walk_cache_forget(&c->walk_cache);
    note_invalid(c);
    for (unsigned kind = 0; kind < TLB_KIND_COUNT; kind++)
        clear_tags(&c->tlbs[kind][slot], slot);
    if (unlikely(may_be_in_large_page(c, linear))) {
        for_each_filled(c, clear_large_near, linear);
        flush_gigabyte_jumps(c, linear);
    } else {
        flush_page_jumps(c, linear);
    }
}

void interp_drop_write_tags_of(struct icpu *c, const struct code_page *page)
{
    meter_count(c, METER_WRITE_TAGS_DROPPED);
    note_invalid(c);
    for_each_filled(c, clear_write_tag, tlb_ram(c, page));
}

void interp_drop_write_tags(struct icpu *c)
{
    note_invalid(c);
    for_each_filled(c, clear_any_write_tag, 0);
}
