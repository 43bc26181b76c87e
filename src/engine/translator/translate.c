/*
 * translate.c - one block of guest code to host code
 *
 * Steps: decode up to the first instruction that ends a block, the end of the page or
 * MAX_DECODED; find which flags are alive where; emit the entries, the instructions one after the
 * other, and behind them what is rarely executed (struct cold). A conditional branch does not
 * end a block: the way that is not taken goes on in it, and the other may come back to it further
 * on.
 */
#include "engine/translator/builder.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/guest_ram.h"
#include "engine/interpreter/build.h"

/* ---- leaving a block ---- */

/* Is it the block that comes first, not one for where a check of it failed? */
static bool is_main(const struct tr_builder *b)
{
    return b->style == TR_QUICK || b->style == TR_FOLLOWING;
}

void emit_branch(struct tr_builder *b, int condition, uint64_t rip)
{
    unsigned refund = condition >= 0 && b->charged ? b->charged - 1 : 0;
    struct cold *cold;
    uint8_t *rel32;

    if (condition >= 0)
        flags_to_host(b);
    rel32 = condition < 0 ? emit_jmp(b->e) : emit_jcc(b->e, (unsigned)condition);
    if (rip == b->block->rip && is_main(b) && !refund) { /* the others go back to it */
        emit_aim(b->e, rel32, b->block->entries[b->flags_saved][TR_CHECKED]);
        return;
    }
    cold = cold_new(b, COLD_LINK, rel32);
    cold->rip = rip;
    cold->refund = refund;
    cold->could_follow = condition < 0 && b->style == TR_QUICK && !b->crosses &&
                         !b->t->c->counted && b->insns[b->count - 1].kind >= TR_JMP;
}

/* JMP through the jump table: R11 = RIP, R13 = op. */
static void emit_table(struct tr_builder *b)
{
    const uint8_t **table = b->t->jumps[b->flags_saved][b->page->mode];

    emit_rr(b->e, false, 0x0fb7, TR_S1, TR_S0); /* movzx r12d, r11w */
    assert((uintptr_t)table <= INT32_MAX);
    emit_rm(b->e, false, 0xff, 4, mem_index(NO_REG, TR_S1, 3, (int32_t)(uintptr_t)table));
}

void emit_indirect(struct tr_builder *b, struct tr_insn *ti)
{
    emit_constant(b->e, TR_S2, (uintptr_t)insn_op(b, ti));
    emit_table(b);
}

/* The comparison is one that leaves the flags alone: the other target may want them. */
void emit_matched_return(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    uint64_t difference = -ti->leads;
    bool is_near = (int64_t)difference == (int32_t)difference;
    uint8_t *matches;

    emit_mov(e, TR_S1, RCX);
    if (!is_near)
        emit_constant(e, RCX, difference);
    emit_lea(e, true, RCX,
             is_near ? mem_base(TR_S0, (int32_t)difference) : mem_index(RCX, TR_S0, 0, 0));
    put_bytes(e, "\xe3", 2); /* jrcxz */
    matches = e->at;
    emit_mov(e, RCX, TR_S1);
    cold_new(b, COLD_MISS, emit_jmp(e))->op = insn_op(b, ti);
    matches[-1] = (uint8_t)(e->at - matches);
    emit_mov(e, RCX, TR_S1);
    all_scratch_lost(b);
}

/* ---- entries ---- */

void emit_page_check(struct tr_builder *b, struct tr_insn *ti)
{
    const struct tr_page *page = ti->enters;
    struct cold *cold;

    if (!page)
        return;
    guard_flags(b, ti);
    emit_cmp_field(b->e, &b->t->fetch[tr_fetch_slot(page->rip, page->kind)], page->id);
    cold = cold_new(b, COLD_EXIT, emit_jcc(b->e, CC_NE));
    cold->rip = ti->rip;
    cold->refund = b->charged;
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
    budget.immediate_bytes = 4;
    guard_flags(b, &b->insns[0]);
    emit_rm(b->e, true, 0x81, ALU_CMP, budget);
    put32(b->e, b->count);
    cold_new(b, COLD_EXIT, emit_jcc(b->e, CC_B))->rip = b->block->rip;
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

static void compare_rip(struct tr_builder *b)
{
    uint64_t rip = b->block->rip;

    if (b->is_32bit || (int64_t)rip == (int32_t)rip) {
        emit_alu_imm(b->e, !b->is_32bit, ALU_CMP, TR_S0, (int32_t)rip);
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
    return first->flags_used && !first->access_count && !first->raise && !first->enters &&
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

    *link = (struct tr_link){.block = b->block,
                             .rel32 = cold->rel32,
                             .stub = emit_address(b->e),
                             .to = cold->to,
                             .saved = cold->flags_saved,
                             .heat = cold->could_follow ? TR_HEAT : 0};
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

    b->flags_saved = cold->flags_saved;
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
    case COLD_MISS:
        emit_constant(e, TR_S2, (uintptr_t)cold->op);
        emit_table(b);
        break;
    case COLD_GROUP:
        cold->to = b->unrolled ? TR_TAIL : TR_PLAIN;
        cold->rel32 = emit_jmp(e);
        make_link(b, cold);
        break;
    case COLD_LINK:
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

/* The branches to instruction n lead here; only what all ways have in common is known. */
static void emit_join(struct tr_builder *b, unsigned n)
{
    const struct tr_insn *ti = &b->insns[n];

    if (ti->joined_from == NO_INSN)
        return;
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
        for (unsigned scratch = TR_S0; scratch <= TR_S2; scratch++)
            if (from->held[scratch - TR_S0] != b->held[scratch - TR_S0])
                scratch_lost(b, scratch);
    }
}

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
    emit_charge(b);
    for (unsigned n = 0; n < b->count; n++) {
        emit_join(b, n);
        emit_insn(b, &b->insns[n]);
    }
    if (last->kind < TR_JMP || last->followed)
        emit_branch(b, -1, b->end_rip);
    cold = b->e->at;
    for (unsigned n = 0; n < b->cold_count; n++)
        emit_cold(b, &b->cold[n]);
    if (b->t->listing)
        listing_block(b, start, cold);
}

/* ---- where the instructions come from ---- */

/* The block comes from this page, too. False: there is no such code, or no more room. */
static bool add_part(struct tr_builder *b, const struct fetch_entry *f, uint64_t page_rip)
{
    if (!f || !f->page || b->part_count == TR_MAX_PARTS)
        return false;
    b->parts[b->part_count].page = translator_page(b->t, f, page_rip);
    b->parts[b->part_count].host = f->host;
    b->parts[b->part_count++].chunks = 0;
    return true;
}

/* Which part rip is in; part_count if in none. */
static unsigned part_at(const struct tr_builder *b, uint64_t rip)
{
    unsigned n = 0;

    while (n < b->part_count && (rip ^ b->parts[n].page->rip) & GUEST_PAGE_MASK)
        n++;
    return n;
}

/* How many bytes of an instruction are in the page it begins in. */
static unsigned bytes_here(const struct tr_insn *ti)
{
    unsigned here = 0x1000 - (ti->rip & 0xfff);

    return here < ti->insn.info.length ? here : ti->insn.info.length;
}

/* Note the chunks of all parts, and let no write to them go unseen from here on. */
static void claim(struct tr_builder *b)
{
    for (unsigned n = 0; n < b->count; n++) {
        const struct tr_insn *ti = &b->insns[n];
        unsigned here = bytes_here(ti);

        b->parts[part_at(b, ti->rip)].chunks |= chunk_mask(ti->rip & 0xfff, here);
        if (b->crosses)
            b->parts[1].chunks |= chunk_mask(0, ti->insn.info.length - here);
    }
    for (unsigned n = 0; n < b->part_count; n++)
        code_page_claim(b->t->c, b->parts[n].page->page, b->parts[n].chunks);
}

static bool is_unchanged(const struct tr_builder *b)
{
    for (unsigned n = 0; n < b->count; n++) {
        const struct tr_insn *ti = &b->insns[n];
        unsigned here = bytes_here(ti), beyond = ti->insn.info.length - here;

        if (!ram_equals(b->parts[part_at(b, ti->rip)].host + (ti->rip & 0xfff), ti->insn.bytes,
                        here) ||
            (beyond && !ram_equals(b->parts[1].host, ti->insn.bytes + here, beyond)))
            return false;
    }
    for (unsigned n = 0; n < b->part_count; n++)
        if (atomic_load(&b->parts[n].page->page->generation) != b->parts[n].page->generation)
            return false;
    return true;
}

static enum decode_result decode_at(struct tr_builder *b, uint64_t rip, struct insn *out)
{
    enum x86_code_size size = b->is_32bit ? X86_CODE_32 : X86_CODE_64;
    uint8_t bytes[2 * X86_MAX_INSN_BYTES];
    unsigned here = 0x1000 - (rip & 0xfff);
    uint64_t beyond;
    enum decode_result result;

    if (here > X86_MAX_INSN_BYTES)
        here = X86_MAX_INSN_BYTES;
    ram_copy(bytes, b->parts[part_at(b, rip)].host + (rip & 0xfff), here);
    result = x86_decode_cached(b->t->c->decode_cache, size, false, bytes, here, out);
    /* An instruction that runs into the next page is a block of its own. A #PF there is its own. */
    beyond = word_of(b, rip + here); /* not behind the end of the segment */
    if (result != DECODE_MORE || b->count || beyond < rip ||
        !add_part(b, interp_fetch(b->t->c, beyond), beyond))
        return result;
    b->crosses = true;
    b->insns[0].enters = b->parts[1].page;
    ram_copy(bytes + here, b->parts[1].host, X86_MAX_INSN_BYTES);
    return x86_decode(size, false, bytes, here + X86_MAX_INSN_BYTES, out);
}

/* ---- following branches ---- */

#define MAX_FOLLOWED 8u
#define MAX_DECODED  64u /* instructions, before a loop is unrolled */

static bool is_in_block(const struct tr_builder *b, uint64_t rip)
{
    for (unsigned n = 0; n < b->count; n++)
        if (b->insns[n].rip == rip)
            return true;
    return false;
}

/* Make rip's page a part, if its fetch[] slot can speak for it beside those of the others. */
static bool reach(struct tr_builder *b, uint64_t rip)
{
    uint64_t page_rip = rip & GUEST_PAGE_MASK;

    if (part_at(b, rip) < b->part_count)
        return true;
    if (!x86_is_canonical(rip))
        return false;
    for (unsigned n = 0; n < b->part_count; n++)
        if (tr_fetch_slot(page_rip, b->page->kind) ==
            tr_fetch_slot(b->parts[n].page->rip, b->page->kind))
            return false;
    return add_part(b, interp_fetch_if_there(b->t->c, page_rip), page_rip);
}

/*
 * The block ends with ti, unless it is a JMP or CALL to where code is, or the RET of such a CALL:
 * then the block goes on there, at *next.
 */
static bool follow_branch(struct tr_builder *b, struct tr_insn *ti, uint64_t *next)
{
    unsigned parts = b->part_count;

    if (b->style != TR_FOLLOWING || b->t->c->counted || b->crosses ||
        b->followed_count == MAX_FOLLOWED || b->count == MAX_DECODED)
        return false;
    switch (ti->kind) {
    case TR_JMP:
        if (is_in_block(b, ti->target) || !reach(b, ti->target))
            return false;
        *next = ti->target;
        break;
    case TR_CALL:
        if (b->depth == TR_MAX_DEPTH || !reach(b, ti->target))
            return false;
        b->returns[b->depth++] = *next;
        *next = ti->target;
        break;
    case TR_RET:
        if (!b->depth || !reach(b, b->returns[b->depth - 1]))
            return false;
        ti->leads = *next = b->returns[--b->depth];
        break;
    default:
        return false;
    }
    b->followed_count++;
    ti->followed = true;
    if (b->part_count > parts)
        b->insns[b->count].enters = b->parts[parts].page;
    return true;
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
 * The block is a loop: its last instruction is a Jcc, or was a JMP, to its first. Several turns in
 * a row share look-ups (groups.c); all but the last turn's Jcc leave where the loop ends.
 */
static void unroll(struct tr_builder *b)
{
    unsigned body = b->count, turns = TR_MAX_INSNS / body;

    if (turns > MAX_TURNS)
        turns = MAX_TURNS;
    for (unsigned k = 1; k < turns; k++) {
        struct tr_insn *last = &b->insns[k * body - 1];

        memcpy(&b->insns[k * body], &b->insns[(k - 1) * body], body * sizeof(b->insns[0]));
        for (unsigned n = k * body; n < (k + 1) * body; n++) {
            if (b->insns[n].join != NO_INSN)
                b->insns[n].join += body;
            if (b->insns[n].joined_from != NO_INSN)
                b->insns[n].joined_from += body;
        }
        if (last->kind != TR_JCC)
            continue;
        last->inverted = true;
        last->target = next_rip(b, last);
    }
    b->count = turns * body;
    b->unrolled = turns > 1;
}

/* Decode the block's instructions. False to give up. */
static bool decode_block(struct tr_builder *b, uint64_t rip)
{
    uint64_t next = rip;
    bool not_last = false, is_loop = false;

    b->count = 0;
    b->unrolled = false;
    b->insns[0].enters = NULL;
    while (b->count < MAX_DECODED) {
        struct tr_insn *ti = &b->insns[b->count];

        if (decode_at(b, next, &ti->insn) != DECODE_OK)
            break;
        ti->rip = next;
        ti->op = NULL;
        ti->followed = false;
        if (!blocks_build_op(b->t->c, &ti->insn, ti->rip & 0xfff, &ti->built, &ti->ends, &not_last))
            return false;
        analyse_insn(b, ti);
        next = next_rip(b, ti);
        if (++b->count < TR_MAX_INSNS)
            b->insns[b->count].enters = NULL;
        is_loop = (ti->kind == TR_JCC || ti->kind == TR_JMP) && ti->target == rip && is_main(b) &&
                  accesses_memory(b);
        if (is_loop && ti->kind == TR_JMP) {
            ti->kind = TR_NOTHING;
            next = rip;
        }
        if (is_loop)
            break;
        if (ti->ends ? !follow_branch(b, ti, &next) : (next ^ ti->rip) & GUEST_PAGE_MASK)
            break;
    }
    find_joins(b);
    if (is_loop)
        unroll(b);
    if (not_last && b->count)
        b->insns[b->count - 1].built.extra |= OP_IS_LAST;
    b->end_rip = next;
    return b->count;
}

static struct tr_block *new_block(struct tr_builder *b, uint64_t rip)
{
    struct tr_block *block = translator_data(b->t, sizeof(*block));

    *block = (struct tr_block){.page = b->page,
                               .part_count = b->part_count,
                               .crosses = b->crosses,
                               .rip = rip,
                               .style = is_main(b) ? TR_QUICK : b->style};
    for (unsigned n = 0; n < b->part_count; n++) {
        block->parts[n].page = b->parts[n].page;
        block->parts[n].chunks = b->parts[n].chunks;
    }
    return block;
}

struct tr_block *translate_block(struct translator *t, struct tr_page *page,
                                 const struct fetch_entry *f, uint64_t rip, enum tr_style style)
{
    struct tr_builder *b = t->builder;
    const uint8_t *start;

    b->page = page;
    b->is_32bit = page->mode == tr_mode(page->kind, true);
    b->word = b->is_32bit ? 4 : 8;
    b->style = style;
    b->crosses = false;
    b->part_count = b->depth = b->followed_count = 0;
    b->e = &t->emit;
    add_part(b, f, rip & GUEST_PAGE_MASK);
    if (!decode_block(b, rip))
        return NULL;
    claim(b);
    if (!is_unchanged(b))
        return NULL;
    b->block = new_block(b, rip);
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
