/*
 * decode.c - which instructions a block has
 *
 * They are decoded from rip up to the first one that ends a block, the end of the page or
 * MAX_DECODED. A hot block follows branches (follow_branch), also into other pages: each page is a
 * part of the block. A block that is a loop is unrolled.
 */
#include "engine/translator/builder.h"

#include <stdatomic.h>

#include "base/guest_ram.h"
#include "engine/interpreter/build.h"

/* ---- where they come from ---- */

bool add_part(struct tr_builder *b, const struct fetch_entry *f, uint64_t page_rip)
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

void claim_parts(struct tr_builder *b)
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

bool parts_are_unchanged(const struct tr_builder *b)
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
    uint8_t bytes[X86_DECODE_BYTES + X86_MAX_INSN_BYTES];
    unsigned here = 0x1000 - (rip & 0xfff);
    uint64_t beyond;
    enum decode_result result;

    if (here > X86_DECODE_BYTES)
        here = X86_DECODE_BYTES;
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

/* Make rip's page a part. */
static bool reach(struct tr_builder *b, uint64_t rip)
{
    uint64_t page_rip = rip & GUEST_PAGE_MASK;

    if (part_at(b, rip) < b->part_count)
        return true;
    if (!x86_is_canonical(rip))
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

    if (b->style != TR_FOLLOWING || b->crosses || b->followed_count == MAX_FOLLOWED ||
        b->count == MAX_DECODED)
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

/* May what is behind ti have been written by it? */
static bool may_write(const struct tr_insn *ti)
{
    switch (ti->kind) {
    case TR_COPY:
    case TR_VECTOR:
    case TR_X87:
    case TR_BITS:
        return ti->memory && ti->memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    case TR_NOTHING:
    case TR_LEA:
    case TR_POP:
    case TR_LEAVE:
    case TR_DIV:
    case TR_JCC:
        return false;
    default:
        return true;
    }
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

bool decode_block(struct tr_builder *b, uint64_t rip)
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
        ti->site = NULL;
        ti->followed = false;
        ti->is_last = not_last = false;
        if (!is_plain_insn(&ti->insn, &ti->ends))
            blocks_build_op(b->t->c, &ti->insn, ti->rip & 0xfff, &ti->built, &ti->ends, &not_last);
        analyse_insn(b, ti);
        next = next_rip(b, ti);
        if (++b->count < TR_MAX_INSNS)
            b->insns[b->count].enters = NULL;
        is_loop = (ti->kind == TR_JCC || ti->kind == TR_JMP) && ti->target == rip && is_main(b) &&
                  !b->checks_itself && accesses_memory(b);
        if (is_loop && ti->kind == TR_JMP) {
            ti->kind = TR_NOTHING;
            next = rip;
        }
        if (is_loop)
            break;
        if (b->checks_itself && (may_write(ti) || next - rip >= b->source->size))
            break;
        if (ti->ends ? !follow_branch(b, ti, &next) : (next ^ ti->rip) & GUEST_PAGE_MASK)
            break;
    }
    find_joins(b);
    if (is_loop)
        unroll(b);
    if (not_last && b->count)
        b->insns[b->count - 1].is_last = true;
    b->end_rip = next;
    return b->count;
}
