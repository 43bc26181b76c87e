/*
 * run.c - the translator engine: pages, blocks, links, and the way into generated code
 *
 * A block is found by its page and RIP. When code is written, the blocks that come from the same
 * 64 bytes are dropped: unlinked from everything that leads to them. Their code and data stay
 * until everything is flushed, so a block that is being left may be dropped.
 */
#include "engine/translator/translator.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <Zydis/Zydis.h>

#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"
#include "engine/translator/builder.h"
#include "trapeze/machine.h"

#define NO_RIP     (1ull << 63) /* not canonical */
#define JUMP_BYTES (TR_JUMP_SIZE * sizeof(uint8_t *))

/* ---- flags: generated code's word and EFLAGS ---- */

static void flags_from_word(struct icpu *c, unsigned word)
{
    uint64_t flags = (word >> 8 & 0xd5) | (word & 1 ? X86_FLAG_OF : 0);

    c->cpu.s.rflags = (c->cpu.s.rflags & ~(uint64_t)X86_FLAGS_STATUS) | flags;
    c->cc_kind = CC_RFLAGS;
}

static uint16_t flags_to_word(struct icpu *c)
{
    flags_materialize(c);
    return (uint16_t)((c->cpu.s.rflags & 0xd5) << 8 | 0x200 | !!(c->cpu.s.rflags & X86_FLAG_OF));
}

static uint8_t simd_blocked(const struct icpu *c)
{
    return c->fpu_blocked & FPU_ALL_SIMD;
}

static bool smap(const struct icpu *c)
{
    return c->cpu.s.cr4 & X86_CR4_SMAP;
}

/* ---- steps ---- */

static unsigned current_mode(const struct icpu *c)
{
    return tr_mode(c->tlb_kind, c->code_size == X86_CODE_32);
}

/* Rings 1 and 2 have ring 0's TLB, but not its rights. */
bool translator_can_run(const struct icpu *c)
{
    const unsigned flat = MODE_FLAT | MODE_FLAT_DATA;

    return (c->mode_key & flat) == flat && (c->cpu.cpl == 0 || c->cpu.cpl == 3) &&
           !c->breakpoints && !c->debug;
}

/*
 * Without a look at events, which attend() takes? An interrupt that could not be taken when it was
 * announced does not ask for attention again: IRET, POPF and the like have to be followed by one.
 */
static bool may_go_on(const struct icpu *c)
{
    return !atomic_load_explicit(&c->attention, memory_order_relaxed) && !interp_needs_step(c) &&
           !atomic_load_explicit(&c->vcpu->events, memory_order_relaxed) &&
           !c->cpu.s.pending.nmi_pending && c->cpu.s.activity == X86_ACTIVE &&
           translator_can_run(c);
}

int translator_step(struct icpu *c, const struct tr_op *op)
{
    struct translator *t = c->translator;
    const struct op *i = &op->op;
    const struct tlb_entry *tlb = c->tlb;
    uint32_t epoch = c->tlb_epoch;

    meter_to(c, op->is_fallback ? METER_STEPS : METER_SLOW);
    (op->is_fallback ? t->stats.fallbacks : t->stats.slow)[op->mnemonic]++;
    flags_from_word(c, t->flags);
    c->page_rip = op->page_rip;
    c->inner_shadow = INNER_SHADOW_NONE;
    c->charged_op = i;
    c->charged = op->charged;
    do
        i = i->run(c, i);
    while (i && i != tr_op_end(op));
    c->insn = NULL;
    if (!i) {
        interp_refund_from(c, tr_op_end(op)); /* if the op did not */
        return 1;
    }
    if (atomic_load_explicit(&c->attention, memory_order_relaxed) || c->tlb != tlb ||
        simd_blocked(c) != t->run_blocked || c->tlb_epoch != epoch) {
        c->cpu.s.rip = op->next_rip;
        interp_refund_from(c, i);
        if (c->inner_shadow) { /* what asks for attention waits for one more instruction */
            c->shadow = true;
            c->cpu.s.pending.shadow_is_mov_ss = c->inner_shadow == INNER_SHADOW_MOV_SS;
        }
        return 1;
    }
    c->charged = 0;
    t->flags = flags_to_word(c);
    meter_to(c, METER_GENERATED);
    return 0;
}

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

static unsigned hash_bits(uint64_t value, unsigned size)
{
    return (unsigned)(value * 0x9e3779b97f4a7c15ull >> 40) & (size - 1);
}

static struct tr_page **page_slot(struct translator *t, uint64_t rip)
{
    return &t->page_hash[hash_bits(rip >> 12, TR_PAGE_HASH)];
}

static struct tr_page **code_slot(struct translator *t, const struct code_page *page)
{
    return &t->code_hash[hash_bits((uintptr_t)page, TR_PAGE_HASH)];
}

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

static void take_changes(struct translator *t)
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

/* ---- pages ---- */

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
    t->current[page->id] = 1;
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

static struct tr_page *page_new(struct translator *t, const struct fetch_entry *f, uint64_t rip)
{
    struct tr_page *page = translator_data(t, sizeof(*page));
    struct tr_page **slot = page_slot(t, rip), **code = code_slot(t, f->page);

    *page = (struct tr_page){.hash_next = *slot,
                             .all_next = t->pages,
                             .rip = rip,
                             .gpa = f->gpa,
                             .page = f->page,
                             .generation = atomic_load(&f->page->generation),
                             .id = t->next_id++,
                             .kind = t->c->tlb_kind,
                             .mode = current_mode(t->c)};
    page->code_next = *code;
    *code = page;
    *slot = page;
    t->pages = page;
    return page;
}

struct tr_page *translator_page(struct translator *t, const struct fetch_entry *f, uint64_t rip)
{
    struct tr_page *page = *page_slot(t, rip);

    while (page && !(page->rip == rip && page->gpa == f->gpa && page->page == f->page &&
                     page->mode == current_mode(t->c)))
        page = page->hash_next;
    if (!page)
        page = page_new(t, f, rip);
    make_current(t, page, f->global);
    return page;
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
static struct tr_block *find_block(struct translator *t, enum tr_style style)
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

/* ---- the way in and out ---- */

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

/* The target of an indirect branch is not canonical: as if the branch had not been executed. */
static void undo_branch(struct translator *t)
{
    struct icpu *c = t->c;
    const struct tr_op *op = t->site;

    t->site = NULL;
    c->cpu.s.gpr[X86_RSP] += (uint64_t)(int64_t)op->undo_rsp;
    c->page_rip = op->page_rip;
    c->charged_op = &op->op;
    c->charged = op->charged;
    op->op.run(c, &op->op); /* raises #GP(0) */
}

/* Where generated code left off: what leads here may lead here directly the next time. */
static void remember_way(struct translator *t, struct tr_block *b)
{
    if (t->link && warm_up(t, (struct tr_link *)t->link))
        link_to(t, (struct tr_link *)t->link, b);
    for (unsigned saved = 0; t->site && saved < 2; saved++)
        t->jumps[saved][b->page->mode][b->rip & (TR_JUMP_SIZE - 1)] =
            b->entries[saved][TR_INDIRECT];
    t->link = NULL;
    t->site = NULL;
}

static void refresh(struct translator *t)
{
    struct icpu *c = t->c;

    if (unlikely(simd_blocked(c) != t->built_blocked) || unlikely(smap(c) != t->built_smap)) {
        translator_flush(t);
        t->built_blocked = simd_blocked(c);
        t->built_smap = smap(c);
    }
    if (unlikely(atomic_exchange(&t->stale, 0)))
        take_changes(t);
    t->run_blocked = simd_blocked(c);
}

void translator_run(struct icpu *c)
{
    struct translator *t = c->translator;

    c->stepping = true;
    c->block = NULL;
    t->link = NULL;
    t->site = NULL;
    do {
        struct tr_block *b;
        bool left; /* at a branch, not by a step */

        if (unlikely(c->budget < TR_MAX_INSNS)) {
            c->must_step = true;
            break;
        }
        refresh(t);
        b = find_block(t, t->styled_rip == c->cpu.s.rip ? t->style : TR_QUICK);
        if (unlikely(!b)) {
            c->must_step = true;
            break;
        }
        remember_way(t, b);
        t->flags = flags_to_word(c);
        t->stats.enters++;
        meter_to(c, METER_GENERATED);
        left = t->enter(b->entries[0][TR_DIRECT]) == 0;
        meter_to(c, METER_LOOP);
        if (left) {
            flags_from_word(c, t->flags);
            t->style = t->link ? t->link->to : TR_QUICK;
            t->styled_rip = t->style != TR_QUICK ? c->cpu.s.rip : NO_RIP;
            if (unlikely(t->site && !x86_is_canonical(c->cpu.s.rip)))
                undo_branch(t);
        } else {
            t->link = NULL;
            t->site = NULL;
        }
    } while (may_go_on(c));
    c->stepping = false;
}

/* ---- statistics ---- */

void translator_note_interpreted(struct icpu *c)
{
    struct tr_stats *s = &c->translator->stats;

    s->interpreted[s->reason] += s->budget - c->budget;
    s->budget = c->budget;
    s->reason = interp_reason(c);
}

#define STATS_SHOWN 24 /* instructions of each kind */

/* The most frequent instructions of a table, as "prefix NAME". */
static void put_mnemonics(const uint64_t counts[ZYDIS_MNEMONIC_MAX_VALUE + 1], const char *prefix,
                          void (*put)(void *opaque, const char *name, uint64_t count), void *opaque)
{
    uint64_t below = UINT64_MAX;
    unsigned shown = 0;

    while (shown < STATS_SHOWN) {
        uint64_t most = 0;

        for (unsigned n = 0; n <= ZYDIS_MNEMONIC_MAX_VALUE; n++)
            if (counts[n] < below && counts[n] > most)
                most = counts[n];
        if (!most)
            return;
        for (unsigned n = 0; n <= ZYDIS_MNEMONIC_MAX_VALUE; n++)
            if (counts[n] == most && shown < STATS_SHOWN) {
                char name[64];

                snprintf(name, sizeof(name), "%s %s", prefix,
                         ZydisMnemonicGetString((ZydisMnemonic)n));
                put(opaque, name, most);
                shown++;
            }
        below = most;
    }
}

void translator_stats(struct translator *t,
                      void (*put)(void *opaque, const char *name, uint64_t count), void *opaque)
{
    const struct tr_stats *s = &t->stats;
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"blocks translated", s->blocks},
        {"instructions translated", s->instructions},
        {"instructions left to the interpreter", s->fallback_instructions},
        {"changes of code", s->pages_changed},
        {"blocks brought back as their code was", s->revived},
        {"blocks that check their code", s->self_checking},
        {"flushes of the code cache", s->flushes},
        {"entries into generated code", s->enters},
        {"branches linked", s->links},
        {"bytes of code", (uint64_t)(t->emit.at - t->code.write)},
        {"bytes of data", t->data_used},
        {"instructions interpreted: real or virtual-8086 mode", s->interpreted[INTERP_REAL_MODE]},
        {"instructions interpreted: 16-bit code", s->interpreted[INTERP_16BIT]},
        {"instructions interpreted: segments that are not flat", s->interpreted[INTERP_NOT_FLAT]},
        {"instructions interpreted: one at a time", s->interpreted[INTERP_ALONE]},
        {"instructions interpreted: other reasons", s->interpreted[INTERP_OTHER]},
    };

    for (unsigned n = 0; n < sizeof(counts) / sizeof(counts[0]); n++)
        put(opaque, counts[n].name, counts[n].count);
    put_mnemonics(s->fallbacks, "interpreted", put, opaque);
    put_mnemonics(s->slow, "slow access by", put, opaque);
}

/* ---- life ---- */

#if defined(__x86_64__)
#include <cpuid.h>

#define CPUID_80000001_ECX_LZCNT (1u << 5)

/* What is copied must mean the same here: older processors execute LZCNT as BSR. */
static bool host_is_v3(void)
{
    unsigned eax, ebx, ecx, edx;

    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) &&
           (ecx & CPUID_80000001_ECX_LZCNT);
}
#else
static bool host_is_v3(void)
{
    return false;
}
#endif

int translator_probe(struct error *err)
{
    if (host_is_v3())
        return 0;
    return error_set(err, ENOTSUP, "the translator makes code for x86-64-v3 processors");
}

int translator_new(struct icpu *c, struct error *err)
{
    struct translator *t = host_low_memory_new(sizeof(*t), err);
    size_t code_bytes = TR_CODE_ALL / machine_vcpu_count(c->interpreter->machine);

    if (!t)
        return -ENOMEM;
    if (code_bytes > TR_CODE_MOST)
        code_bytes = TR_CODE_MOST;
    c->translator = t;
    t->c = c;
    t->host_has_adx = x86_host_has(X86_FEATURE_ADX);
    t->builder = translator_builder_new(t);
    t->data_bytes = 2 * code_bytes;
    t->data = mmap(NULL, t->data_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->data == MAP_FAILED)
        t->data = NULL;
    else
        madvise(t->data, t->data_bytes, MADV_HUGEPAGE);
    if (!t->builder || !t->data || host_code_new(&t->code, code_bytes, true, err)) {
        translator_free(c);
        return error_set(err, ENOMEM, "no memory for the translator of a virtual CPU");
    }
    if (listing_open(t, err)) {
        translator_free(c);
        return -EIO;
    }
    t->emit = (struct emit){.at = t->code.write, .execute = t->code.execute - t->code.write};
    translator_make_thunks(t);
    t->first_block = t->emit.at;
    return 0;
}

void translator_free(struct icpu *c)
{
    struct translator *t = c->translator;

    if (!t)
        return;
    for (unsigned n = 0; n < 2 * TR_MODE_COUNT; n++)
        host_low_memory_free(t->jumps[n & 1][n / 2], JUMP_BYTES);
    listing_close(t);
    translator_builder_free(t->builder);
    host_code_free(&t->code);
    if (t->data)
        munmap(t->data, t->data_bytes);
    host_low_memory_free(t, sizeof(*t));
    c->translator = NULL;
}
