/*
 * translate.c - one block of guest code to host code
 *
 * Steps: decode the instructions (decode.c); find which flags are alive where; emit the entries,
 * the instructions one after the other, and behind them what is rarely executed (struct cold). A
 * conditional branch does not end a block: the way that is not taken goes on in it, and the other
 * may come back to it further on.
 */
#include "engine/translator/builder.h"

#include <stdlib.h>

/* Where what is emitted next runs: below 2 GiB. */
static uint32_t emit_place(const struct emit *e)
{
    return (uint32_t)(uintptr_t)emit_address(e);
}

static const uint8_t *entry_of(const struct tr_builder *b, bool saved, enum tr_entry entry)
{
    return (const uint8_t *)(uintptr_t)b->block->entries[saved][entry];
}

/* ---- leaving a block ---- */

void emit_branch(struct tr_builder *b, int condition, uint64_t rip)
{
    settle_rsp(b);
    if (condition >= 0)
        flags_to_host(b);
    aim_branch(b, condition < 0 ? emit_link_jmp(b->e) : emit_link_jcc(b->e, (unsigned)condition),
               condition >= 0, rip);
}

void aim_branch(struct tr_builder *b, uint8_t *rel32, bool conditional, uint64_t rip)
{
    unsigned refund = conditional && b->charged ? b->charged - 1 : 0;
    struct cold *cold;

    if (rip == b->block->rip && is_main(b) && !refund) { /* the others go back to it */
        emit_aim(b->e, rel32, entry_of(b, b->flags_saved, TR_CHECKED));
        return;
    }
    cold = cold_new(b, COLD_LINK, rel32);
    cold->rip = rip;
    cold->refund = refund;
    cold->could_follow = !conditional && b->style == TR_QUICK && !b->crosses && b->may_follow &&
                         !b->checks_itself && b->insns[b->count - 1].kind >= TR_JMP;
}

void emit_thunk(struct tr_builder *b, const uint8_t *thunk, const uint8_t *back)
{
    uint8_t *rel32 = emit_lea_code(b->e, TR_S1);

    emit_store(b->e, mem_field(&b->t->back), TR_S1);
    emit_jmp_to(b->e, thunk);
    emit_aim(b->e, rel32, back ? back : emit_address(b->e));
}

void emit_step(struct tr_builder *b, const struct tr_site *site, bool flags_saved,
               const uint8_t *back)
{
    uint8_t *rel32;

    emit_constant(b->e, TR_S2, tr_ref_to(b->cache, site));
    rel32 = emit_lea_code(b->e, TR_S0);
    emit_jmp_to(b->e, flags_saved ? b->cache->step_saved : b->cache->step);
    emit_aim(b->e, rel32, back ? back : emit_address(b->e));
}

/* JMP through the jump table: TR_S0 = RIP, TR_S2 = site. */
static void emit_table(struct tr_builder *b, unsigned mode)
{
    int32_t table = vcpu_address(b->e, b->t->jumps[b->flags_saved][mode]);

    emit_rr(b->e, false, 0x0fb7, TR_S1, TR_S0); /* movzx: 16 bits */
    emit_rm(b->e, false, 0xff, 4, mem_by_gs(NO_REG, TR_S1, 3, table));
}

void emit_indirect_mode(struct tr_builder *b, struct tr_insn *ti, unsigned mode)
{
    settle_rsp(b);
    emit_constant(b->e, TR_S2, tr_ref_to(b->cache, insn_site(b, ti)));
    emit_table(b, mode);
}

void emit_indirect(struct tr_builder *b, struct tr_insn *ti)
{
    emit_indirect_mode(b, ti, b->page->mode);
}

/* ---- comparisons that leave the flags alone: what they lead to may read them ---- */

static uint8_t *emit_jrcxz(struct emit *e)
{
    put_bytes(e, "\xe3", 2);
    return e->at;
}

/* A branch of one byte that ends before from leads here. */
static void aim_short(struct emit *e, uint8_t *from)
{
    assert(e->at - from <= INT8_MAX);
    from[-1] = (uint8_t)(e->at - from);
}

/* RCX = TR_S0 - rip; TR_S1 keeps RCX. */
static void emit_difference(struct emit *e, uint64_t rip)
{
    bool is_near = (int64_t)-rip == (int32_t)-rip;

    emit_mov(e, TR_S1, RCX);
    if (!is_near)
        emit_constant(e, RCX, -rip);
    emit_lea(e, true, RCX, is_near ? mem_base(TR_S0, (int32_t)-rip) : mem_index(RCX, TR_S0, 0, 0));
}

/* RCX is not 0 if the page is current. */
static void emit_load_current(struct tr_builder *b, const struct tr_page *page)
{
    emit_load(b->e, RCX, mem_field(&b->t->current[page->id]));
}

/* CMP: equal if the page is not current. */
static void emit_compare_current(struct tr_builder *b, const struct tr_page *page)
{
    struct host_mem current = mem_field(&b->t->current[page->id]);

    current.immediate_bytes = 1;
    emit_rm(b->e, true, 0x83, ALU_CMP, current);
    put8(b->e, 0);
}

/* rel32 leads to where TR_S0 says: ti was the last instruction of the block that ran. */
static void returns_elsewhere(struct tr_builder *b, struct tr_insn *ti, uint8_t *rel32)
{
    struct cold *cold = cold_new(b, COLD_MISS, rel32);

    cold->site = insn_site(b, ti);
    cold->refund = b->charged ? b->charged - 1 : 0;
}

void emit_matched_return(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    uint8_t *matches;

    if (b->flags_saved && (int64_t)ti->leads == (int32_t)ti->leads) {
        emit_alu_imm(e, true, ALU_CMP, TR_S0, (int32_t)ti->leads);
        returns_elsewhere(b, ti, emit_jcc(e, CC_NE));
        all_scratch_lost(b);
        return;
    }
    emit_difference(e, ti->leads);
    matches = emit_jrcxz(e);
    emit_mov(e, RCX, TR_S1);
    returns_elsewhere(b, ti, emit_jmp(e));
    aim_short(e, matches);
    emit_mov(e, RCX, TR_S1);
    all_scratch_lost(b);
}

void emit_page_check(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    uint8_t *is_another, *is_current;
    struct cold *cold;

    if (!ti->enters)
        return;
    if (b->flags_saved) {
        emit_compare_current(b, ti->enters);
        cold = cold_new(b, COLD_EXIT, emit_jcc(e, CC_E));
        cold->rip = ti->rip;
        cold->refund = b->charged;
        return;
    }
    emit_mov(e, TR_S1, RCX);
    emit_load_current(b, ti->enters);
    is_another = emit_jrcxz(e);
    emit_mov(e, RCX, TR_S1);
    put_bytes(e, "\xeb", 2); /* jmp */
    is_current = e->at;
    aim_short(e, is_another);
    emit_mov(e, RCX, TR_S1);
    cold = cold_new(b, COLD_EXIT, emit_jmp(e));
    cold->rip = ti->rip;
    cold->refund = b->charged;
    aim_short(e, is_current);
    scratch_lost(b, TR_S1);
}

/* ---- entries ---- */

void emit_exit_if(struct tr_builder *b, unsigned condition, uint64_t rip)
{
    cold_new(b, COLD_EXIT, emit_jcc(b->e, condition))->rip = rip;
}

static void emit_attention(struct tr_builder *b)
{
    emit_cmp_field(b->e, (const void *)&b->t->c->attention, 0);
    emit_exit_if(b, CC_NE, b->block->rip);
}

/* Counted mode: take the whole block from the budget, or leave it to be stepped through. */
static void emit_charge(struct tr_builder *b)
{
    struct host_mem budget = mem_field(&b->t->c->budget);

    if (!b->t->c->counted)
        return;
    budget.immediate_bytes = 4;
    guard_flags(b, &b->insns[0]);
    emit_rm(b->e, true, 0x81, ALU_CMP, budget);
    put32(b->e, b->count);
    emit_exit_if(b, CC_B, b->block->rip);
    emit_rm(b->e, true, 0x81, ALU_SUB, budget);
    put32(b->e, b->count);
}

static void emit_refund(struct tr_builder *b, unsigned count)
{
    struct host_mem budget = mem_field(&b->t->c->budget);

    if (!count)
        return;
    emit_load(b->e, TR_S1, budget);
    emit_lea(b->e, true, TR_S1, mem_base(TR_S1, (int32_t)count));
    emit_store(b->e, budget, TR_S1);
}

void emit_page_exit(struct tr_builder *b, uint64_t rip)
{
    emit_compare_current(b, b->page);
    emit_exit_if(b, CC_E, rip);
}

/* Does the first instruction read the flags before anything else changes the host's? */
static bool begins_with_flags(const struct tr_builder *b)
{
    const struct tr_insn *first = &b->insns[0];

    for (unsigned n = 0; n < b->group_count; n++)
        if (b->groups[n].place == 0)
            return false;
    return !b->checks_itself && first->flags_used && !first->access_count && !first->raise &&
           first->kind != TR_FALLBACK;
}

/*
 * The entries that may find that another block is meant, one which may care for the flags although
 * this one does not. The indirect one's two questions are one: current[] + 1 + RIP - offset is 0 if
 * the page is current and this is the block's RIP, and never if it is not current, because
 * the low bits of RIP are right.
 */

/* reg += TR_S0 + 1 - the block's offset in its page */
static void emit_add_rip(struct tr_builder *b, int reg)
{
    emit_lea(b->e, true, (unsigned)reg,
             mem_index(reg, TR_S0, 0, 1 - (int32_t)(b->block->rip & 0xfff)));
}

/* The flags are saved. Returns the jumps to what comes behind these entries. */
static void emit_page_entries_saved(struct tr_builder *b, uint8_t *to_next[2])
{
    uint32_t *entries = b->block->entries[1];
    struct emit *e = b->e;

    b->flags_saved = true;
    entries[TR_INDIRECT] = emit_place(e);
    emit_load(e, TR_S1, mem_field(&b->t->current[b->page->id]));
    emit_add_rip(b, TR_S1);
    emit_rr(e, true, 0x85, TR_S1, TR_S1); /* test */
    to_next[0] = emit_jcc(e, CC_E);
    emit_jmp_to(e, b->cache->exit_indirect_saved);
    entries[TR_CROSS] = emit_place(e);
    emit_compare_current(b, b->page);
    emit_exit_if(b, CC_E, b->block->rip);
    to_next[1] = emit_jmp(e);
}

/* They are in the host's, and are kept. Goes on behind these entries. */
static void emit_page_entries(struct tr_builder *b)
{
    uint32_t *entries = b->block->entries[0];
    struct emit *e = b->e;
    uint8_t *is_this, *is_another, *another;

    b->flags_saved = false;
    entries[TR_INDIRECT] = emit_place(e);
    emit_mov(e, TR_S1, RCX);
    emit_load_current(b, b->page);
    emit_add_rip(b, RCX);
    is_this = emit_jrcxz(e);
    emit_mov(e, RCX, TR_S1);
    emit_jmp_to(e, b->cache->exit_indirect);
    another = e->at;
    emit_mov(e, RCX, TR_S1);
    cold_new(b, COLD_EXIT, emit_jmp(e))->rip = b->block->rip;
    entries[TR_CROSS] = emit_place(e);
    emit_mov(e, TR_S1, RCX);
    emit_load_current(b, b->page);
    is_another = emit_jrcxz(e);
    is_another[-1] = (uint8_t)(another - is_another);
    aim_short(e, is_this);
    emit_mov(e, RCX, TR_S1);
}

/* Each entry goes on in the next. */
static void emit_entries(struct tr_builder *b)
{
    uint32_t(*entries)[TR_ENTRY_COUNT] = b->block->entries;
    bool live = b->insns[0].flags_live;
    struct emit *e = b->e;
    uint8_t *to_next, *to_checked[2];

    emit_page_entries_saved(b, to_checked);
    emit_page_entries(b);
    entries[0][TR_CHECKED] = emit_place(e);
    if (live)
        emit_save_flags(b->t, e);
    entries[1][TR_CHECKED] = emit_place(e);
    emit_aim(e, to_checked[0], entry_of(b, true, TR_CHECKED));
    emit_aim(e, to_checked[1], entry_of(b, true, TR_CHECKED));
    b->flags_saved = live;
    emit_attention(b);
    entries[0][TR_DIRECT] = entries[1][TR_DIRECT] = emit_place(e);
    if (!live)
        return;
    if (begins_with_flags(b)) {
        flags_to_host(b);
        entries[0][TR_DIRECT] = emit_place(e);
        return;
    }
    to_next = emit_jmp(e);
    entries[0][TR_DIRECT] = emit_place(e);
    emit_save_flags(b->t, e);
    emit_aim(e, to_next, emit_address(e));
    entries[1][TR_DIRECT] = emit_place(e);
}

/* ---- out of line ---- */

static void make_link(struct tr_builder *b, struct cold *cold)
{
    struct translator *t = b->t;
    struct tr_link *link = translator_data(t->cache, sizeof(*link));

    assert(!b->e->is_shared || (uintptr_t)cold->rel32 % 8 <= 4); /* see emit_align_branch() */
    if (!b->block->link_count++)
        b->block->links = tr_ref_to(t->cache, link);
    assert(link == (struct tr_link *)tr_at(t->cache, b->block->links) + b->block->link_count - 1);
    *link = (struct tr_link){.block = tr_ref_to(t->cache, b->block),
                             .rel32 = (uint32_t)(cold->rel32 - t->cache->code.write),
                             .stub = emit_place(b->e),
                             .to = cold->to,
                             .saved = cold->flags_saved,
                             .heat = cold->could_follow ? TR_HEAT : 0};
    emit_aim(b->e, cold->rel32, emit_address(b->e));
    emit_constant(b->e, TR_S1, tr_ref_to(t->cache, link));
    emit_constant(b->e, TR_S0, cold->rip);
    emit_jmp_to(b->e, cold->flags_saved ? t->cache->exit_link_saved : t->cache->exit_link);
}

/* Before anything of the block has run. */
static bool leaves_at_entry(const struct tr_builder *b, const struct cold *cold)
{
    return cold->kind == COLD_EXIT && cold->rip == b->block->rip && !cold->refund &&
           !cold->rsp_ahead;
}

static void emit_cold(struct tr_builder *b, struct cold *cold)
{
    struct emit *e = b->e;
    struct translator *t = b->t;
    const uint8_t *back;

    b->flags_saved = cold->flags_saved;
    if (leaves_at_entry(b, cold)) {
        if (b->entry_exits[cold->flags_saved]) {
            emit_aim(e, cold->rel32, b->entry_exits[cold->flags_saved]);
            return;
        }
        b->entry_exits[cold->flags_saved] = emit_address(e);
    }
    if (cold->kind == COLD_LINK && !cold->refund) {
        make_link(b, cold);
        return;
    }
    emit_aim(e, cold->rel32, emit_address(e));
    if (cold->hit)
        emit_find_near(b, cold);
    emit_refund(b, cold->refund);
    b->rsp_ahead = cold->rsp_ahead;
    if (cold->kind != COLD_RAISE)
        settle_rsp(b);
    switch (cold->kind) {
    case COLD_STEP:
        back = cold->resume_rsp_ahead ? NULL : cold->resume;
        emit_step(b, cold->site, true, cold->level ? NULL : back);
        if (cold->level)
            emit_thunk(b, t->cache->load_vectors[cold->level], back);
        if (back)
            break;
        emit_lea_word(b, RSP, mem_base(RSP, -cold->resume_rsp_ahead));
        emit_jmp_to(e, cold->resume);
        break;
    case COLD_EXIT:
        emit_constant(e, TR_S0, cold->rip);
        emit_jmp_to(e, cold->flags_saved ? t->cache->exit_saved : t->cache->exit);
        break;
    case COLD_MISS:
        emit_constant(e, TR_S2, tr_ref_to(t->cache, cold->site));
        emit_table(b, b->page->mode);
        break;
    case COLD_GROUP:
        cold->to = b->unrolled ? TR_TAIL : TR_PLAIN;
        cold->rel32 = emit_link_jmp(e);
        make_link(b, cold);
        break;
    case COLD_LINK:
        cold->rel32 = emit_link_jmp(e);
        make_link(b, cold);
        break;
    default:
        emit_thunk(b, t->cache->raise_vectors[cold->level], cold->resume);
        break;
    }
}

/* ---- the block ---- */

/* The branches to instruction n lead here; only what all ways have in common is known. */
static void emit_join(struct tr_builder *b, unsigned n)
{
    const struct tr_insn *ti = &b->insns[n];

    if (ti->joined_from == NO_INSN)
        return;
    settle_rsp(b);
    if (ti->flags_live)
        flags_to_host(b);
    b->flags_saved = false;
    for (unsigned k = ti->joined_from; k < n; k++) {
        const struct tr_insn *from = &b->insns[k];

        if (from->join != n)
            continue;
        emit_aim(b->e, from->rel32, emit_address(b->e));
        if (from->level < b->level)
            b->level = from->level;
        for (unsigned s = 0; s < TR_SCRATCH_COUNT; s++)
            if (from->held[s] != b->held[s])
                b->held[s] = NO_GROUP;
    }
}

static void emit_block(struct tr_builder *b)
{
    const uint8_t *start = b->e->at, *cold;
    const struct tr_insn *last = &b->insns[b->count - 1];

    b->cold_count = 0;
    b->entry_exits[0] = b->entry_exits[1] = NULL;
    b->flags_saved = false;
    b->rsp_ahead = 0;
    all_scratch_lost(b);
    b->level = VECTORS_NONE;
    emit_entries(b);
    emit_charge(b);
    emit_source_check(b);
    for (unsigned n = 0; n < b->count; n++) {
        emit_join(b, n);
        emit_insn(b, &b->insns[n]);
    }
    if (last->kind < TR_JMP || last->followed)
        emit_branch(b, -1, b->end_rip);
    drop_unused_stores(b);
    cold = b->e->at;
    for (unsigned n = 0; n < b->cold_count; n++)
        emit_cold(b, &b->cold[n]);
    if (b->cache->listing)
        listing_block(b, start, cold);
}

static struct tr_block *new_block(struct tr_builder *b, uint64_t rip)
{
    struct tr_block *block =
        translator_data(b->cache, sizeof(*block) + b->part_count * sizeof(block->parts[0]));

    *block = (struct tr_block){.page = b->page,
                               .part_count = (uint8_t)b->part_count,
                               .crosses = b->crosses,
                               .follows = b->followed_count,
                               .checks_itself = b->checks_itself,
                               .source = b->source ? tr_ref_to(b->cache, b->source) : 0,
                               .rip = rip,
                               .style = is_main(b) ? TR_QUICK : b->style};
    for (unsigned n = 0; n < b->part_count; n++) {
        block->parts[n].page_id = b->parts[n].page->id;
        block->parts[n].chunks = b->parts[n].chunks;
    }
    return block;
}

struct tr_block *translate_block(struct translator *t, struct tr_page *page,
                                 const struct fetch_entry *f, uint64_t rip, enum tr_style style,
                                 const struct tr_source *before)
{
    struct tr_builder *b = t->cache->builder;
    const uint8_t *start;

    b->t = t;
    b->e = &b->cache->emit;
    b->e->distance = t->distance;
    b->page = page;
    b->is_32bit = page->mode == tr_mode(page->kind, true);
    b->word = b->is_32bit ? 4 : 8;
    b->style = style;
    b->may_follow = translator_may_follow(b->cache, page, rip);
    b->crosses = b->checks_itself = false;
    b->part_count = b->depth = b->followed_count = 0;
    add_part(b, f, rip & GUEST_PAGE_MASK);
    if (!decode_block(b, rip))
        return NULL;
    find_source(b, before);
    if (b->checks_itself) {
        if (!decode_block(b, rip))
            return NULL;
        shorten_source(b);
        t->stats.self_checking++;
    } else {
        claim_parts(b);
    }
    if (!parts_are_unchanged(b))
        return NULL;
    b->block = new_block(b, rip);
    analyse_flags(b);
    find_groups(b);
    plan_vector_levels(b);
    start = t->cache->emit.at;
    emit_block(b);
    assert((size_t)(t->cache->emit.at - start) <= TR_MAX_BLOCK_CODE);
    t->stats.blocks++;
    t->stats.instructions += b->count;
    return b->block;
}

struct tr_builder *translator_builder_new(struct tr_cache *cache)
{
    struct tr_builder *b = calloc(1, sizeof(*b));

    if (b)
        b->cache = cache;
    return b;
}

void translator_builder_free(struct tr_builder *b)
{
    free(b);
}
