/*
 * translate.c - one block of guest code to host code
 *
 * Steps: decode up to the first instruction that ends a block, the end of the page or
 * TR_MAX_INSNS; find which flags are alive where; emit the entries, the instructions one after the
 * other, and behind them what is rarely executed (struct cold). A conditional branch does not
 * end a block: the way that is not taken goes on in it.
 */
#include "engine/translator/builder.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/guest_ram.h"
#include "engine/interpreter/build.h"

/* ---- leaving a block ---- */

void emit_branch(struct tr_builder *b, int condition, uint64_t rip)
{
    unsigned refund = condition >= 0 && b->charged ? b->charged - 1 : 0;
    struct cold *cold;
    uint8_t *rel32;

    if (condition >= 0)
        flags_to_host(b);
    rel32 = condition < 0 ? emit_jmp(b->e) : emit_jcc(b->e, (unsigned)condition);
    if (rip == b->block->rip && !b->plain && !refund) { /* a plain one goes back to the other */
        emit_aim(b->e, rel32, b->block->entries[b->flags_saved][TR_CHECKED]);
        return;
    }
    cold = cold_new(b, COLD_LINK, rel32);
    cold->rip = rip;
    cold->refund = refund;
}

void emit_indirect(struct tr_builder *b, struct tr_insn *ti)
{
    const uint8_t **table = b->t->jumps[b->flags_saved][b->page->kind];

    emit_constant(b->e, TR_S2, (uintptr_t)insn_op(b, ti));
    emit_rr(b->e, false, 0x0fb7, TR_S1, TR_S0); /* movzx r12d, r11w */
    assert((uintptr_t)table <= INT32_MAX);
    emit_rm(b->e, false, 0xff, 4, mem_index(NO_REG, TR_S1, 3, (int32_t)(uintptr_t)table));
}

/* ---- entries ---- */

/* The instruction's second page is still the one it was decoded from. */
static void check_second_page(struct tr_builder *b)
{
    if (!b->second)
        return;
    guard_flags(b, &b->insns[0]);
    emit_cmp_field(b->e, &b->t->fetch[tr_fetch_slot(b->second->rip, b->page->kind)], b->second->id);
    cold_new(b, COLD_EXIT, emit_jcc(b->e, CC_NE))->rip = b->block->rip;
}

static void emit_attention(struct tr_builder *b)
{
    emit_cmp_field(b->e, (const void *)&b->t->c->attention, 0);
    cold_new(b, COLD_EXIT, emit_jcc(b->e, CC_NE))->rip = b->block->rip;
}

/* Counted mode: take the whole block from the budget, or leave it to be stepped through. */
static void emit_charge(struct tr_builder *b)
{
    struct host_mem budget = mem_field(&b->t->c->budget);

    if (!b->t->c->counted)
        return;
    budget.immediate_bytes = 1;
    guard_flags(b, &b->insns[0]);
    emit_rm(b->e, true, 0x83, ALU_CMP, budget);
    put8(b->e, b->count);
    cold_new(b, COLD_EXIT, emit_jcc(b->e, CC_B))->rip = b->block->rip;
    emit_rm(b->e, true, 0x83, ALU_SUB, budget);
    put8(b->e, b->count);
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

static void compare_rip(struct tr_builder *b)
{
    uint64_t rip = b->block->rip;

    if ((int64_t)rip == (int32_t)rip) {
        emit_alu_imm(b->e, true, ALU_CMP, TR_S0, (int32_t)rip);
    } else {
        emit_constant(b->e, TR_S1, rip);
        emit_rr(b->e, true, 0x3b, TR_S0, TR_S1);
    }
    emit_aim(b->e, emit_jcc(b->e, CC_NE),
             b->flags_saved ? b->t->exit_indirect_saved : b->t->exit_indirect);
}

static void check_page(struct tr_builder *b)
{
    emit_cmp_field(b->e, &b->t->fetch[tr_fetch_slot(b->block->rip, b->page->kind)], b->page->id);
    cold_new(b, COLD_EXIT, emit_jcc(b->e, CC_NE))->rip = b->block->rip;
}

/* Does the first instruction read the flags before anything else changes the host's? */
static bool begins_with_flags(const struct tr_builder *b)
{
    const struct tr_insn *first = &b->insns[0];

    for (unsigned n = 0; n < b->group_count; n++)
        if (b->groups[n].place == 0)
            return false;
    return first->flags_used && !first->access_count && !first->raise && !b->second &&
           first->kind != TR_FALLBACK;
}

static void (*const entry_checks[])(struct tr_builder *b) = {
    [TR_INDIRECT] = compare_rip,
    [TR_CROSS] = check_page,
    [TR_CHECKED] = emit_attention,
};

/* Each entry goes on in the next. The block does not care for the flags. */
static void emit_entries_dead(struct tr_builder *b)
{
    for (unsigned n = 0; n < TR_ENTRY_COUNT; n++) {
        b->block->entries[0][n] = b->block->entries[1][n] = emit_address(b->e);
        if (n != TR_DIRECT)
            entry_checks[n](b);
    }
}

/* Where the flags are alive, checks are made with the flags saved. */
static void emit_entries_live(struct tr_builder *b)
{
    struct emit *e = b->e;
    uint8_t *to_next = NULL;

    for (unsigned n = 0; n < TR_DIRECT; n++) {
        b->block->entries[0][n] = emit_address(e);
        emit_save_flags(b->t, e);
        if (to_next)
            emit_aim(e, to_next, emit_address(e));
        b->block->entries[1][n] = emit_address(e);
        b->flags_saved = true;
        entry_checks[n](b);
        to_next = n == TR_CHECKED ? NULL : emit_jmp(e);
    }
    if (begins_with_flags(b)) {
        b->block->entries[1][TR_DIRECT] = emit_address(e);
        flags_to_host(b);
        b->block->entries[0][TR_DIRECT] = emit_address(e);
        return;
    }
    to_next = emit_jmp(e);
    b->block->entries[0][TR_DIRECT] = emit_address(e);
    emit_save_flags(b->t, e);
    emit_aim(e, to_next, emit_address(e));
    b->block->entries[1][TR_DIRECT] = emit_address(e);
}

/* ---- out of line ---- */

static void make_link(struct tr_builder *b, struct cold *cold)
{
    struct translator *t = b->t;
    struct tr_link *link = translator_data(t, sizeof(*link));

    *link = (struct tr_link){.page = b->page,
                             .rel32 = cold->rel32,
                             .stub = emit_address(b->e),
                             .from_rip = b->block->rip,
                             .to_plain = cold->to_plain,
                             .saved = cold->flags_saved};
    emit_aim(b->e, cold->rel32, link->stub);
    emit_constant(b->e, TR_S1, (uintptr_t)link);
    emit_store(b->e, mem_field(&t->link), TR_S1);
    emit_constant(b->e, TR_S0, cold->rip);
    emit_jmp_to(b->e, cold->flags_saved ? t->exit_saved : t->exit);
}

static void emit_cold(struct tr_builder *b, struct cold *cold)
{
    struct emit *e = b->e;
    struct translator *t = b->t;

    if (cold->kind == COLD_LINK && !cold->refund) {
        make_link(b, cold);
        return;
    }
    emit_aim(e, cold->rel32, emit_address(e));
    emit_refund(b, cold->refund);
    switch (cold->kind) {
    case COLD_STEP:
        emit_constant(e, TR_S2, (uintptr_t)cold->op);
        emit_call(e, t->step_saved);
        if (cold->level)
            emit_call(e, t->load_vectors[cold->level]);
        emit_jmp_to(e, cold->resume);
        break;
    case COLD_EXIT:
        emit_constant(e, TR_S0, cold->rip);
        emit_jmp_to(e, cold->flags_saved ? t->exit_saved : t->exit);
        break;
    case COLD_PLAIN:
    case COLD_LINK:
        cold->to_plain = cold->kind == COLD_PLAIN;
        cold->rel32 = emit_jmp(e);
        make_link(b, cold);
        break;
    default:
        emit_call(e, t->raise_vectors[cold->level]);
        emit_jmp_to(e, cold->resume);
        break;
    }
}

/* ---- the block ---- */

static void emit_block(struct tr_builder *b)
{
    const uint8_t *start = b->e->at, *cold;
    const struct tr_insn *last = &b->insns[b->count - 1];

    b->cold_count = 0;
    b->flags_saved = false;
    all_scratch_lost(b);
    b->level = VECTORS_NONE;
    if (b->insns[0].flags_live)
        emit_entries_live(b);
    else
        emit_entries_dead(b);
    check_second_page(b);
    emit_charge(b);
    for (unsigned n = 0; n < b->count; n++)
        emit_insn(b, &b->insns[n]);
    if (last->kind < TR_JMP)
        emit_branch(b, -1, b->end_rip);
    cold = b->e->at;
    for (unsigned n = 0; n < b->cold_count; n++)
        emit_cold(b, &b->cold[n]);
    if (b->t->listing)
        listing_block(b, start, cold);
}

/* Where the bytes of a block come from: one page, or an instruction that runs into a second one. */
struct source {
    uint8_t bytes[TR_MAX_INSNS * X86_MAX_INSN_BYTES];
    const uint8_t *first, *second;
    unsigned available, first_bytes;
};

static bool is_unchanged(const struct source *s, unsigned used)
{
    unsigned here = used < s->first_bytes ? used : s->first_bytes;

    return ram_equals(s->first, s->bytes, here) &&
           ram_equals(s->second, s->bytes + here, used - here);
}

/* The first instruction needs bytes of the next page. False if there is no such code page. */
static bool open_second_page(struct tr_builder *b, struct source *s, uint64_t rip)
{
    uint64_t next = (rip & GUEST_PAGE_MASK) + 0x1000;
    const struct fetch_entry *f = interp_fetch(b->t->c, next); /* its #PF is the instruction's */

    if (!f->page)
        return false;
    b->second = translator_page(b->t, f, next);
    s->second = f->host;
    ram_copy(s->bytes + s->first_bytes, f->host, X86_MAX_INSN_BYTES);
    s->available = s->first_bytes + X86_MAX_INSN_BYTES;
    return true;
}

/* Sets the block's chunks. */
static void claim(struct tr_builder *b, const struct source *s, struct tr_block *block,
                  unsigned used)
{
    unsigned here = used < s->first_bytes ? used : s->first_bytes;

    block->chunks = chunk_mask(block->rip & 0xfff, here);
    code_page_claim(b->t->c, b->page->page, block->chunks);
    if (!b->second)
        return;
    block->second_chunks = chunk_mask(0, used - here);
    code_page_claim(b->t->c, b->second->page, block->second_chunks);
}

static bool is_current(const struct tr_page *page)
{
    return !page || atomic_load(&page->page->generation) == page->generation;
}

#define MAX_TURNS 8u

static bool accesses_memory(const struct tr_builder *b)
{
    for (unsigned n = 0; n < b->count; n++)
        if (b->insns[n].memory && (b->insns[n].kind == TR_COPY || b->insns[n].kind == TR_VECTOR))
            return true;
    return false;
}

/*
 * The block is a loop: its last instruction is a Jcc to its first. Several turns in a row
 * share look-ups (groups.c); all but the last turn's Jcc leave where the loop ends.
 */
static void unroll(struct tr_builder *b)
{
    unsigned body = b->count, turns = TR_MAX_INSNS / body;

    if (turns > MAX_TURNS)
        turns = MAX_TURNS;
    for (unsigned k = 1; k < turns; k++) {
        struct tr_insn *last = &b->insns[k * body - 1];

        memcpy(&b->insns[k * body], &b->insns[(k - 1) * body], body * sizeof(b->insns[0]));
        last->inverted = true;
        last->target = last->rip + last->insn.info.length;
    }
    b->count = turns * body;
}

/* Decode the block's instructions. Returns how many bytes they have; 0 to give up. */
static unsigned decode_block(struct tr_builder *b, struct source *s, uint64_t rip)
{
    unsigned used = 0;
    bool not_last = false;

    b->count = 0;
    while (b->count < TR_MAX_INSNS && used < s->available) {
        struct tr_insn *ti = &b->insns[b->count];
        enum decode_result result;

        result = x86_decode(X86_CODE_64, false, s->bytes + used, s->available - used, &ti->insn);
        if (result == DECODE_MORE && !used && open_second_page(b, s, rip))
            result = x86_decode(X86_CODE_64, false, s->bytes, s->available, &ti->insn);
        if (result != DECODE_OK)
            break;
        ti->rip = rip + used;
        ti->op = NULL;
        if (!blocks_build_op(b->t->c, &ti->insn, ti->rip & 0xfff, &ti->built, &ti->ends, &not_last))
            return 0;
        analyse_insn(b, ti);
        used += ti->insn.info.length;
        b->count++;
        if (ti->ends || b->second)
            break;
        if (ti->kind == TR_JCC && ti->target == rip && !b->plain && accesses_memory(b)) {
            unroll(b);
            break;
        }
    }
    if (not_last && b->count)
        b->insns[b->count - 1].built.extra |= OP_IS_LAST;
    b->end_rip = rip + used;
    return used;
}

struct tr_block *translate_block(struct translator *t, struct tr_page *page,
                                 const struct fetch_entry *f, uint64_t rip, bool plain)
{
    struct tr_builder *b = t->builder;
    unsigned offset = rip & 0xfff, used;
    struct tr_block block;
    const uint8_t *start;
    struct source s = {.first = f->host + offset, .first_bytes = 0x1000 - offset};

    if (s.first_bytes > sizeof(s.bytes))
        s.first_bytes = sizeof(s.bytes);
    s.available = s.first_bytes;
    s.second = s.first; /* not looked at */
    ram_copy(s.bytes, s.first, s.first_bytes);
    b->page = page;
    b->plain = plain;
    b->second = NULL;
    b->e = &t->emit;
    used = decode_block(b, &s, rip);
    if (!used)
        return NULL;
    block = (struct tr_block){.page = page, .second = b->second, .rip = rip, .plain = plain};
    claim(b, &s, &block, used);
    if (!is_unchanged(&s, used) || !is_current(page) || !is_current(b->second))
        return NULL;
    b->block = translator_data(t, sizeof(*b->block));
    *b->block = block;
    analyse_flags(b);
    find_groups(b);
    plan_vector_levels(b);
    start = t->emit.at;
    emit_block(b);
    assert((size_t)(t->emit.at - start) <= TR_MAX_BLOCK_CODE);
    t->stats.blocks++;
    t->stats.instructions += b->count;
    return b->block;
}

struct tr_builder *translator_builder_new(struct translator *t)
{
    struct tr_builder *b = calloc(1, sizeof(*b));

    if (b)
        b->t = t;
    return b;
}

void translator_builder_free(struct tr_builder *b)
{
    free(b);
}
