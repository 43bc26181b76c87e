/*
 * blocks.c - the cache of decoded code
 *
 * Blocks lie one behind the other in one arena; when it is full, everything is
 * dropped at once. A block never crosses a page, with one exception: an instruction
 * that does is a block of its own, which remembers both pages.
 *
 * A Jcc does not end a block: the not-taken path goes on behind it. The header takes all of
 * the block's instructions from the budget, and a way out in the middle gives the rest back.
 */
#include "engine/interpreter/build.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/translator/translator.h"
#include "trapeze/machine.h"

#define HASH_BITS   16
#define HASH_SIZE   (1u << HASH_BITS)
#define ARENA_BYTES (96u << 20) /* reserved; pages are touched as they fill */
#define FETCH_BYTES 1024        /* most bytes that one block is decoded from */

struct block_cache {
    struct block *hash[HASH_SIZE];
    uint8_t *arena;
    size_t used;
    struct op_notes notes[BLOCK_MAX_INSTRUCTIONS + 2];
    struct {
        struct block block;
        struct op ops[4];
    } single; /* the instruction being stepped */
};

struct block_cache *blocks_new(struct error *err)
{
    struct block_cache *cache = calloc(1, sizeof(*cache));

    if (!cache) {
        error_set(err, ENOMEM, "no memory for the interpreter's block table");
        return NULL;
    }
    cache->arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->arena == MAP_FAILED) {
        error_set(err, errno, "no address space for the interpreter's block cache");
        free(cache);
        return NULL;
    }
    return cache;
}

void blocks_free(struct block_cache *cache)
{
    if (!cache)
        return;
    munmap(cache->arena, ARENA_BYTES);
    free(cache);
}

void blocks_flush(struct icpu *c)
{
    memset(c->blocks->hash, 0, sizeof(c->blocks->hash));
    c->blocks->used = 0;
    c->block = NULL;
    interp_flush_jumps(c);
    if (c->translator)
        translator_forget_ops(c->translator); /* their host stubs are gone */
}

static struct block **hash_slot(struct icpu *c, uint64_t gpa)
{
    uint64_t h = (gpa ^ (uint64_t)c->mode_key << 40) * 0x9e3779b97f4a7c15ull;

    return &c->blocks->hash[h >> (64 - HASH_BITS)];
}

/* ---- executing: header, end, stale rest ---- */

static const struct op *block_enter(struct icpu *c, const struct op *i)
{
    const struct block *b = block_of(i);

    if (unlikely(atomic_load_explicit(&b->page->generation, memory_order_relaxed) != b->generation))
        return blocks_lookup(c, op_rip(c, i));
    if (unlikely(atomic_load_explicit(&c->attention, memory_order_relaxed) ||
                 c->budget < b->count)) {
        c->cpu.s.rip = op_rip(c, i);
        c->insn = NULL;
        return NULL;
    }
    c->budget -= b->count;
    c->block = b;
    NEXT(c, i);
}

/* A block of one instruction that crosses a page: the second page may have changed as well. */
static const struct op *block_enter_crossing(struct icpu *c, const struct op *i)
{
    const struct block *b = block_of(i);

    if (unlikely(b->second_page &&
                 atomic_load_explicit(&b->second_page->generation, memory_order_relaxed) !=
                     b->second_generation))
        return blocks_lookup(c, op_rip(c, i));
    return block_enter(c, i);
}

/* A block that the run loop must see first: a breakpoint is on its first instruction. */
static const struct op *block_enter_breakpoint(struct icpu *c, const struct op *i)
{
    c->cpu.s.rip = op_rip(c, i);
    c->insn = NULL;
    return NULL;
}

/* Blocks that are executed once: stepping, and code that is not in RAM or ROM. */
static const struct op *block_enter_once(struct icpu *c, const struct op *i)
{
    const struct block *b = block_of(i);

    if (!c->stepping && (atomic_load(&c->attention) || c->budget < b->count)) {
        c->cpu.s.rip = op_rip(c, i);
        c->insn = NULL;
        return NULL;
    }
    c->budget -= b->count;
    c->block = b;
    NEXT(c, i);
}

static const struct op *block_end(struct icpu *c, const struct op *i)
{
    const struct op *next = i->link;

    if (likely(next))
        GOTO(c, next);
    if (i->page_offset < 0x1000)
        return blocks_link(c, i, op_rip(c, i));
    GOTO(c, jump_to(c, op_rip(c, i)));
}

static const struct op *block_end_single(struct icpu *c, const struct op *i)
{
    c->cpu.s.rip = op_rip(c, i);
    c->insn = NULL;
    return NULL;
}

/* Stands in for the ops of a block that was overwritten while it ran. */
static const struct op *block_resync(struct icpu *c, const struct op *i)
{
    return interp_leave_at(c, i);
}

unsigned block_instructions_before(const struct block *block, const struct op *i)
{
    return (unsigned)(i - block->ops) - 1;
}

void block_cut(struct icpu *c, const struct op *i)
{
    struct block *b = (struct block *)c->block;

    if (!b || i < b->ops || i >= b->ops + b->op_count)
        return;
    for (struct op *op = (struct op *)i + 1; op < b->ops + b->op_count; op++)
        op->run = block_resync;
    /* The cut block is of no further use, even where its bytes did not change. */
    b->generation--;
}

bool block_is_cut(const struct op *i)
{
    return i[1].run == block_resync;
}

/* ---- building ---- */

uint16_t reg_offset(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
        return REG_OFFSET(reg - ZYDIS_REGISTER_AL);
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return REG_OFFSET(reg - ZYDIS_REGISTER_AH) + 1;
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return REG_OFFSET(reg - ZYDIS_REGISTER_SPL + 4);
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        return REG_OFFSET(reg - ZYDIS_REGISTER_AX);
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return REG_OFFSET(reg - ZYDIS_REGISTER_EAX);
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return REG_OFFSET(reg - ZYDIS_REGISTER_RAX);
    return offsetof(struct icpu, zero);
}

static uint8_t segment_of(ZydisRegister reg)
{
    switch (reg) {
    case ZYDIS_REGISTER_ES:
        return X86_ES;
    case ZYDIS_REGISTER_CS:
        return X86_CS;
    case ZYDIS_REGISTER_SS:
        return X86_SS;
    case ZYDIS_REGISTER_FS:
        return X86_FS;
    case ZYDIS_REGISTER_GS:
        return X86_GS;
    default:
        return X86_DS;
    }
}

void build_memory(struct builder *w, const struct insn *insn, const struct insn_operand *mem,
                  struct op *op)
{
    bool flat64 = w->code_size == X86_CODE_64 && insn->info.address_width == 64;
    bool flat32 = w->flat_data && insn->info.address_width == 32;

    op->seg = segment_of(mem->mem.segment);
    op->address_size = insn->info.address_width / 8;
    op->disp = mem->mem.disp.value;
    op->base = reg_offset(mem->mem.base);
    /* VSIB indices (vector registers) are read by their own handlers. */
    op->index = reg_offset(mem->mem.index);
    op->scale = mem->mem.scale ? (uint8_t)__builtin_ctz(mem->mem.scale) : 0;
    if (mem->mem.base == ZYDIS_REGISTER_RIP || mem->mem.base == ZYDIS_REGISTER_EIP) {
        op->base = offsetof(struct icpu, page_rip);
        op->disp += w->page_offset + insn->info.length;
    }
    if (!flat64)
        op->ea = flat32 && op->seg <= X86_DS && op->seg != X86_CS ? EA_FLAT32 : EA_LIMITED;
    else if (op->seg == X86_FS || op->seg == X86_GS)
        op->ea = EA_SEGMENT;
    else
        op->ea = op->index == offsetof(struct icpu, zero) ? EA_BASE : EA_INDEX;
}

bool build_memory_any(struct builder *w, const struct insn *insn, struct op *op)
{
    for (unsigned n = 0; n < insn->info.operand_count_visible; n++)
        if (is_mem(insn, n)) {
            build_memory(w, insn, operand(insn, n), op);
            return true;
        }
    return false;
}

static const struct op *op_undefined(struct icpu *c, const struct op *i)
{
    interp_raise(c, i, X86_UD);
}

static const struct op *op_too_long(struct icpu *c, const struct op *i)
{
    interp_raise_code(c, i, X86_GP, 0);
}

void build_undefined(struct builder *w, struct op *op)
{
    op->run = op_undefined;
    w->ends = true;
}

static build_fn *const groups[] = {
    build_alu,    build_move, build_stack,  build_branch, build_shift,
    build_muldiv, build_bits, build_string, build_system,
};

static void build_op(struct builder *w, const struct insn *insn, struct op *op)
{
    for (unsigned n = 0; n < sizeof(groups) / sizeof(groups[0]); n++)
        if (groups[n](w, insn, op))
            return;
    for (unsigned n = insn->info.operand_count; n-- > 0;) /* MASKMOVDQU's is implicit */
        if (is_mem(insn, n))
            build_memory(w, insn, operand(insn, n), op);
    if (!host_stub_build(w->c, insn, op, &w->flush_stubs))
        build_undefined(w, op);
}

/*
 * Flags that nobody reads before they are overwritten need not be computed. Everything
 * that may fault or leave the block counts as reading all of them.
 */
static void drop_dead_flags(struct block *b, struct op_notes *notes)
{
    uint16_t live = X86_FLAGS_STATUS;

    for (unsigned n = b->op_count - 2; n >= 1; n--) {
        struct op_notes *note = &notes[n];

        if (note->leaves)
            live = X86_FLAGS_STATUS;
        if (note->quiet && !(note->flags_killed & live))
            b->ops[n].run = note->quiet;
        live = (live & ~note->flags_killed) | note->flags_used;
        if (!note->cannot_fault)
            live = X86_FLAGS_STATUS;
    }
}

static void fuse_branches(struct block *b, const struct op_notes *notes)
{
    for (unsigned n = 1; n + 2 < b->op_count; n++)
        if (notes[n].fused && notes[n + 1].is_jcc)
            b->ops[n].run = notes[n].fused[notes[n + 1].condition];
}

bool blocks_has_breakpoint(const struct icpu *c, unsigned page_offset)
{
    for (unsigned n = 0; n < 4; n++)
        if ((c->cpu.s.dr7 >> (2 * n) & 3) && (c->cpu.s.dr7 >> (16 + 4 * n) & 3) == 0 &&
            (c->cpu.s.dr[n] & 0xfff) == page_offset)
            return true;
    for (unsigned n = 0; c->debug && n < c->debug->point_count; n++)
        if (c->debug->points[n].kind == DEBUG_BREAKPOINT &&
            (c->debug->points[n].gva & 0xfff) == page_offset)
            return true;
    return false;
}

/* Where the bytes of a block come from. */
struct source {
    const struct fetch_entry *first;
    uint64_t rip, linear;
    unsigned offset; /* in the page */
    uint8_t bytes[FETCH_BYTES];
    unsigned available; /* up to the end of the page */
    unsigned used;      /* bytes that the block depends on */
    bool crosses;       /* into the second page: */
    struct code_page *second_page;
    uint64_t second_gpa;
    const uint8_t *second_host;
    uint8_t crossing[X86_MAX_INSN_BYTES];
};

static void read_page(struct icpu *c, const struct fetch_entry *f, unsigned offset, void *out,
                      unsigned size)
{
    if (f->host)
        ram_copy(out, f->host + offset, size);
    else
        for (unsigned n = 0; n < size; n++)
            ((uint8_t *)out)[n] =
                (uint8_t)bus_memory_read(c->interpreter->machine, f->gpa + offset + n, 1);
}

static void source_open(struct icpu *c, struct source *s, uint64_t rip)
{
    s->rip = rip;
    s->linear = c->cs_base + rip;
    if (c->code_size != X86_CODE_64)
        s->linear &= 0xffffffff;
    s->offset = s->linear & 0xfff;
    s->first = interp_fetch(c, s->linear);
    s->available = 0x1000 - s->offset;
    if (s->available > FETCH_BYTES)
        s->available = FETCH_BYTES;
    if (!s->first->host && s->available > 16)
        s->available = 16;
    read_page(c, s->first, s->offset, s->bytes, s->available);
    s->used = 0;
    s->crosses = false;
    s->second_page = NULL;
}

/* The first instruction runs into the next page: fetch that too (may raise #PF). */
static enum decode_result decode_crossing(struct icpu *c, struct source *s, struct insn *insn)
{
    struct fetch_entry first = *s->first;
    unsigned here = 0x1000 - s->offset;
    uint64_t linear = (s->linear & GUEST_PAGE_MASK) + 0x1000;
    const struct fetch_entry *f;

    if (c->code_size != X86_CODE_64)
        linear &= 0xffffffff;
    f = interp_fetch(c, linear);
    memcpy(s->crossing, s->bytes, here);
    read_page(c, f, 0, s->crossing + here, X86_MAX_INSN_BYTES - here);
    s->crosses = true;
    s->second_page = f->page;
    s->second_gpa = f->gpa;
    s->second_host = f->host;
    /* Both pages may share a slot of the fetch table. */
    c->fetches[(s->linear >> 12) & (FETCH_SIZE - 1)] = first;
    s->first = &c->fetches[(s->linear >> 12) & (FETCH_SIZE - 1)];
    return x86_decode(c->code_size, c->mode_key & MODE_REAL, s->crossing, X86_MAX_INSN_BYTES, insn);
}

static bool within_limit(const struct icpu *c, uint64_t rip, unsigned size)
{
    return c->code_size == X86_CODE_64 || rip + size - 1 <= c->cpu.s.seg[X86_CS].limit;
}

/* All bytes of an undefined instruction that the decoder may have looked at. */
static unsigned undefined_bytes(const struct source *s)
{
    unsigned here = s->available - s->used;

    return s->crosses || here > X86_MAX_INSN_BYTES ? X86_MAX_INSN_BYTES : here;
}

/*
 * Decode and build one instruction. Returns the number of bytes that it depends on, which is its
 * length if there is one behind it; 0 to end the block before it.
 */
static unsigned build_one(struct builder *w, struct source *s, struct op *op, struct insn *insn,
                          bool first)
{
    struct icpu *c = w->c;
    enum decode_result result;
    uint64_t rip = s->rip + s->used;

    result = x86_decode_cached(c->decode_cache, c->code_size, c->mode_key & MODE_REAL,
                               s->bytes + s->used, s->available - s->used, insn);
    if (result == DECODE_MORE) {
        if (!first)
            return 0;
        result = decode_crossing(c, s, insn);
    }
    *op = (struct op){.page_offset = (uint16_t)w->page_offset, .seg = X86_DS};
    if (result != DECODE_OK) {
        if (!first)
            return 0;
        op->length = 1;
        build_undefined(w, op);
        if (result == DECODE_TOO_LONG)
            op->run = op_too_long;
        return undefined_bytes(s);
    }
    if (unlikely(!within_limit(c, rip, insn->info.length))) {
        if (first)
            x86_raise_code(&c->cpu, X86_GP, 0);
        return 0;
    }
    op->length = insn->info.length;
    op->base = op->index = op->dst = op->src = offsetof(struct icpu, zero);
    build_op(w, insn, op);
    return insn->info.length;
}

static struct builder builder_of(struct icpu *c)
{
    return (struct builder){.c = c,
                            .code_size = c->code_size,
                            .user = c->cpu.cpl == 3,
                            .real = c->mode_key & MODE_REAL,
                            .flat = c->mode_key & MODE_FLAT,
                            .flat_data = c->mode_key & MODE_FLAT_DATA};
}

static void build_block(struct icpu *c, struct source *s, struct block *b, unsigned max)
{
    struct op_notes *notes = c->blocks->notes;
    struct builder w = builder_of(c);
    struct insn insn;
    unsigned n = 1;

    b->ops[0] = (struct op){.run = block_enter, .page_offset = (uint16_t)s->offset};
    while (n <= max && !w.ends) {
        unsigned length;

        w.page_offset = s->offset + s->used;
        if (n > 1 && !w.not_last && unlikely(blocks_has_breakpoint(c, w.page_offset)))
            break;
        w.notes = &notes[n];
        w.not_last = false;
        notes[n] = (struct op_notes){.flags_used = X86_FLAGS_STATUS};
        length = build_one(&w, s, &b->ops[n], &insn, n == 1);
        if (!length)
            break;
        if (unlikely(w.flush_stubs)) {
            /* The stub area was emptied: no other block may use it any more. */
            break;
        }
        s->used += length;
        n++;
        if (s->crosses || s->used >= s->available)
            break;
    }
    if (w.not_last)
        b->ops[n - 1].extra |= OP_IS_LAST;
    b->ops[n] = (struct op){.run = block_end, .page_offset = (uint16_t)(s->offset + s->used)};
    b->count = (uint16_t)(n - 1);
    b->op_count = (uint16_t)(n + 1);
    for (unsigned k = 1; k < n; k++)
        if (notes[k].is_jcc)
            b->ops[k].imm = n - 1 - k; /* instructions behind it */
    if (max > 1) {
        drop_dead_flags(b, notes);
        if (likely(!c->watching)) { /* a trap may come between two instructions */
            fuse_branches(b, notes);
            join_pairs(b, notes);
        }
        if (unlikely(blocks_has_breakpoint(c, s->offset)))
            b->ops[0].run = block_enter_breakpoint;
    }
    if (w.flush_stubs)
        c->flush_blocks = true;
}

void blocks_build_op(struct icpu *c, const struct insn *insn, unsigned page_offset, struct op *op,
                     bool *out_ends, bool *out_not_last)
{
    struct op_notes notes = {0};
    struct builder w = builder_of(c);

    w.page_offset = page_offset;
    w.notes = &notes;
    *op = (struct op){.page_offset = (uint16_t)page_offset, .seg = X86_DS};
    op->length = insn->info.length;
    op->base = op->index = op->dst = op->src = offsetof(struct icpu, zero);
    build_op(&w, insn, op);
    *out_ends = w.ends;
    *out_not_last = w.not_last;
    if (unlikely(w.flush_stubs))
        blocks_flush(c);
}

static bool source_unchanged(const struct source *s)
{
    unsigned here = 0x1000 - s->offset;

    if (!s->crosses)
        return ram_equals(s->first->host + s->offset, s->bytes, s->used);
    return ram_equals(s->first->host + s->offset, s->crossing, here) &&
           ram_equals(s->second_host, s->crossing + here, s->used - here);
}

static void claim(struct icpu *c, const struct source *s)
{
    unsigned here = s->used;

    if (s->crosses) {
        here = 0x1000 - s->offset;
        code_page_claim(c, s->second_page, chunk_mask(0, s->used - here));
    }
    code_page_claim(c, s->first->page, chunk_mask(s->offset, here));
}

static struct block *arena_take(struct icpu *c)
{
    size_t most = sizeof(struct block) + (BLOCK_MAX_INSTRUCTIONS + 2) * sizeof(struct op);

    if (c->blocks->used + most > ARENA_BYTES)
        blocks_flush(c);
    return (struct block *)(c->blocks->arena + c->blocks->used);
}

/* NULL: it runs into a page that nobody watches for writes. */
static struct block *build_cached(struct icpu *c, struct source *s)
{
    struct block *b;
    struct block **slot;

    do {
        uint32_t generation = atomic_load(&s->first->page->generation);

        b = arena_take(c);
        *b = (struct block){.gpa = s->first->gpa | s->offset,
                            .page = s->first->page,
                            .generation = generation,
                            .mode_key = c->mode_key};
        build_block(c, s, b, BLOCK_MAX_INSTRUCTIONS);
        if (unlikely(c->flush_blocks)) {
            c->flush_blocks = false;
            blocks_flush(c);
            source_open(c, s, s->rip);
            continue;
        }
        if (s->crosses && !s->second_page)
            return NULL;
        if (s->crosses) {
            b->second_page = s->second_page;
            b->second_gpa = s->second_gpa;
            b->second_generation = atomic_load(&s->second_page->generation);
            if (b->ops[0].run == block_enter)
                b->ops[0].run = block_enter_crossing;
        }
        claim(c, s);
        if (likely(source_unchanged(s)))
            break;
        source_open(c, s, s->rip);
    } while (true);
    c->blocks->used += sizeof(struct block) + b->op_count * sizeof(struct op);
    slot = hash_slot(c, b->gpa);
    b->next = *slot;
    *slot = b;
    return b;
}

static bool is_fresh(struct icpu *c, const struct block *b, uint64_t linear)
{
    const struct fetch_entry *f;

    if (atomic_load_explicit(&b->page->generation, memory_order_relaxed) != b->generation)
        return false;
    if (likely(!b->second_page))
        return true;
    linear = (linear & GUEST_PAGE_MASK) + 0x1000;
    f = interp_fetch(c, c->code_size == X86_CODE_64 ? linear : linear & 0xffffffff);
    return f->page == b->second_page &&
           atomic_load(&b->second_page->generation) == b->second_generation;
}

/* gpa may show another page of RAM or ROM than when a block was made. */
static struct block *find(struct icpu *c, uint64_t gpa, const struct code_page *page,
                          uint64_t linear)
{
    struct block **link = hash_slot(c, gpa);

    while (*link) {
        struct block *b = *link;

        if (b->gpa == gpa && b->page == page && b->mode_key == c->mode_key) {
            if (is_fresh(c, b, linear))
                return b;
            *link = b->next; /* stale: forget it */
            continue;
        }
        link = &b->next;
    }
    return NULL;
}

static struct block *build_once(struct icpu *c, struct source *s, struct block *b)
{
    static struct code_page nowhere;

    *b = (struct block){.gpa = s->first->gpa | s->offset, .page = &nowhere};
    build_block(c, s, b, 1);
    if (c->flush_blocks) {
        c->flush_blocks = false;
        blocks_flush(c);
        source_open(c, s, s->rip);
        build_block(c, s, b, 1);
    }
    b->ops[0].run = block_enter_once;
    b->ops[b->op_count - 1].run = block_end_single;
    return b;
}

static void check_rip(struct icpu *c, uint64_t rip)
{
    if (unlikely(c->code_size == X86_CODE_64 ? !x86_is_canonical(rip)
                                             : rip > c->cpu.s.seg[X86_CS].limit)) {
        flags_materialize(c);
        x86_raise_code(&c->cpu, X86_GP, 0);
    }
}

static struct block *lookup(struct icpu *c, uint64_t rip)
{
    const struct fetch_entry *f;
    uint64_t linear = c->cs_base + rip;
    struct source s;
    struct block *b;

    if (c->code_size != X86_CODE_64)
        linear &= 0xffffffff;
    f = interp_fetch(c, linear);
    if (likely(f->page)) {
        b = find(c, f->gpa | (linear & 0xfff), f->page, linear);
        if (b &&
            (likely(c->mode_key & MODE_FLAT) ||
             within_limit(c, rip, b->ops[b->op_count - 1].page_offset - b->ops[0].page_offset)))
            return b;
    }
    source_open(c, &s, rip);
    if (likely(s.first->page)) {
        b = build_cached(c, &s);
        if (likely(b))
            return b;
        source_open(c, &s, rip);
    }
    return build_once(c, &s, &c->blocks->single.block);
}

static const struct op *op_stop(struct icpu *c, const struct op *i)
{
    (void)c;
    (void)i;
    return NULL;
}
static const struct op stop = {.run = op_stop}; /* after a step: s.rip is where to go on */

const struct op *blocks_lookup(struct icpu *c, uint64_t rip)
{
    struct jump_entry *e = jump_slot(c, rip);
    struct block *b;

    c->insn = NULL;
    c->cpu.s.rip = rip; /* fetch faults are at the target */
    if (unlikely(c->stepping))
        return &stop;
    check_rip(c, rip);
    b = lookup(c, rip);
    c->page_rip = rip - b->ops[0].page_offset;
    if (likely(b != &c->blocks->single.block)) {
        c->jumps_filled = true;
        e->key = jump_key(c, rip);
        e->first = b->ops;
    }
    return b->ops;
}

const struct op *blocks_link(struct icpu *c, const struct op *i, uint64_t rip)
{
    const struct block *b = c->block;
    const uint8_t *arena = c->blocks->arena;
    const struct op *next;
    size_t used = c->blocks->used;
    bool may_link;
    uint64_t gpa;

    if (unlikely(c->stepping)) /* c->block may be NULL: a step of the translator */
        return blocks_lookup(c, rip);
    gpa = b->gpa;
    may_link = (c->mode_key & MODE_FLAT) && b != &c->blocks->single.block;
    next = jump_to(c, rip);
    /*
     * Not if the cache was emptied meanwhile, or if i's block or the target is not a cached one.
     * Nor if one of them crosses a page: where its second page is mapped is found out by a lookup.
     */
    if (may_link && c->blocks->used >= used && (const uint8_t *)next >= arena &&
        (const uint8_t *)next < arena + ARENA_BYTES && c->block == b &&
        ((block_of(next)->gpa ^ gpa) & GUEST_PAGE_MASK) == 0 && !b->second_page &&
        !block_of(next)->second_page)
        ((struct op *)i)->link = next;
    GOTO(c, next);
}

const struct op *blocks_single(struct icpu *c, uint64_t rip)
{
    struct source s;
    struct block *b = &c->blocks->single.block;

    c->insn = NULL;
    check_rip(c, rip);
    source_open(c, &s, rip);
    build_once(c, &s, b);
    c->page_rip = rip - b->ops[0].page_offset;
    return b->ops;
}
