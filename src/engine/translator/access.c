/*
 * access.c - registers, effective addresses and the inline TLB look-up
 */
#include "engine/interpreter/build.h"
#include "engine/translator/builder.h"

#include <limits.h>

struct cold *cold_new(struct tr_builder *b, enum cold_kind kind, uint8_t *rel32)
{
    struct cold *cold = &b->cold[b->cold_count++];

    assert(b->cold_count <= TR_MAX_COLD);
    *cold = (struct cold){.kind = kind, .rel32 = rel32, .flags_saved = b->flags_saved};
    return cold;
}

static const struct op *op_return(struct icpu *c, const struct op *i)
{
    (void)c;
    return i;
}

struct tr_op *insn_op(struct tr_builder *b, struct tr_insn *ti)
{
    struct tr_op *op = ti->op;

    if (op)
        return op;
    if (ti->built_later) {
        bool ends, not_last;

        blocks_build_op(b->t->c, &ti->insn, ti->rip & 0xfff, &ti->built, &ends, &not_last);
        assert(!not_last && (!ends || ti->ends));
        ti->built_later = false;
    }
    op = ti->op = translator_data(b->t, sizeof(*op));
    *op = (struct tr_op){.op = ti->built,
                         .end = op_return,
                         .page_rip = ti->rip & GUEST_PAGE_MASK,
                         .next_rip = next_rip(b, ti),
                         .charged = (uint8_t)b->charged,
                         .mnemonic = ti->insn.info.mnemonic};
    return op;
}

struct host_mem guest_slot(struct tr_builder *b, int guest)
{
    return mem_field(&b->t->c->cpu.s.gpr[guest]);
}

unsigned guest_value(struct tr_builder *b, int guest, unsigned scratch)
{
    if (!is_spilled(guest))
        return (unsigned)guest;
    emit_load(b->e, scratch, guest_slot(b, guest));
    scratch_lost(b, scratch);
    return scratch;
}

/* ---- flags ---- */

void flags_save(struct tr_builder *b)
{
    if (b->flags_saved)
        return;
    emit_save_flags(b->t, b->e);
    scratch_lost(b, TR_S1);
    b->flags_saved = true;
}

void flags_to_host(struct tr_builder *b)
{
    if (!b->flags_saved)
        return;
    emit_restore_flags(b->t, b->e);
    scratch_lost(b, TR_S1);
    b->flags_saved = false;
}

void flags_for(struct tr_builder *b, const struct tr_insn *ti)
{
    const ZydisAccessedFlags *f = ti->insn.info.cpu_flags;

    if (!b->flags_saved || !f)
        return;
    if (ti->flags_used || (ti->flags_killed != STATUS_FLAGS &&
                           (f->modified | f->set_0 | f->set_1 | f->undefined) & STATUS_FLAGS))
        flags_to_host(b);
    else if (ti->flags_killed)
        b->flags_saved = false;
}

/* ---- effective addresses ---- */

/* The address if it is the same each time. */
static bool constant_ea(const struct tr_insn *ti, const struct insn_operand *m, uint64_t *out)
{
    uint64_t disp = (uint64_t)m->mem.disp.value;

    if (m->mem.index != ZYDIS_REGISTER_NONE)
        return false;
    if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP)
        *out = ti->rip + ti->insn.info.length + disp;
    else if (m->mem.base == ZYDIS_REGISTER_NONE)
        *out = disp;
    else
        return false;
    if (ti->insn.info.address_width == 32)
        *out = (uint32_t)*out;
    return true;
}

static void emit_offset(struct tr_builder *b, const struct tr_insn *ti, unsigned to, bool wide)
{
    const struct insn_operand *m = ti->memory;
    int base = gpr_of(m->mem.base), index = gpr_of(m->mem.index);
    int32_t disp = (int32_t)m->mem.disp.value;
    struct host_mem host = {.base = NO_REG, .index = NO_REG, .disp = disp};

    if (base != NO_REG)
        host.base = (int)guest_value(b, base, TR_S0);
    if (index != NO_REG) {
        host.index = (int)guest_value(b, index, TR_S1);
        host.scale = (unsigned)__builtin_ctz(m->mem.scale);
    }
    emit_lea(b->e, wide, to, host);
}

void emit_lea_operand(struct tr_builder *b, const struct tr_insn *ti, unsigned to, bool wide)
{
    uint64_t constant;

    if (constant_ea(ti, ti->memory, &constant))
        emit_constant(b->e, to, wide ? constant : (uint32_t)constant);
    else
        emit_offset(b, ti, to, wide && ti->insn.info.address_width == 64);
}

static const uint64_t *segment_base(struct tr_builder *b, const struct insn_operand *m)
{
    if (m->mem.segment == ZYDIS_REGISTER_FS)
        return &b->t->c->cpu.s.seg[X86_FS].base;
    if (m->mem.segment == ZYDIS_REGISTER_GS)
        return &b->t->c->cpu.s.seg[X86_GS].base;
    return NULL;
}

void emit_address_of(struct tr_builder *b, const struct tr_insn *ti, const struct access *a)
{
    const uint64_t *base;

    if (!a->is_operand) {
        emit_lea_word(b, TR_S0,
                      mem_base(ti->kind == TR_LEAVE ? RBP : RSP, a->write ? -(int32_t)b->word : 0));
        return;
    }
    base = segment_base(b, ti->memory);
    emit_lea_operand(b, ti, TR_S0, true);
    if (base) {
        emit_load(b->e, TR_S1, mem_field(base));
        emit_lea_word(b, TR_S0, mem_index(TR_S0, TR_S1, 0, 0));
    }
}

/* ---- the look-up ---- */

static int32_t low_address(const void *address)
{
    assert((uintptr_t)address <= INT32_MAX);
    return (int32_t)(uintptr_t)address;
}

void guard_flags(struct tr_builder *b, const struct tr_insn *ti)
{
    if (ti->flags_live)
        flags_save(b);
    else
        b->flags_saved = false;
}

static struct cold *step_cold(struct tr_builder *b, struct tr_insn *ti, unsigned condition)
{
    struct cold *cold = cold_new(b, COLD_STEP, emit_jcc(b->e, condition));

    cold->op = insn_op(b, ti);
    return cold;
}

/* TR_S2 holds a tag: compare it with TR_S0, and load the addend from there on a hit. */
static struct cold *emit_compare(struct tr_builder *b, struct tr_insn *ti, unsigned size,
                                 unsigned align_mask, struct host_mem addend)
{
    struct emit *e = b->e;
    struct cold *cold;

    all_scratch_lost(b);
    emit_rr(e, true, 0x33, TR_S2, TR_S0); /* xor: the offset in the page on a hit */
    if (align_mask) {
        emit_rr(e, true, 0xc1, 1, TR_S2); /* ror: what is not aligned becomes very large */
        put8(e, (unsigned)__builtin_popcount(align_mask));
    }
    emit_alu_imm(e, true, ALU_CMP, TR_S2, (int32_t)((0x1000 - size) / (align_mask + 1)));
    cold = step_cold(b, ti, CC_A);
    emit_load(e, TR_S2, addend);
    return cold;
}

struct cold *emit_lookup(struct tr_builder *b, struct tr_insn *ti, unsigned size, bool write,
                         unsigned align_mask)
{
    struct emit *e = b->e;
    const struct tlb_entry *tlb = b->t->c->tlbs[b->page->kind];

    guard_flags(b, ti);
    /* tlb_index(TR_S0) * sizeof(struct tlb_entry) */
    emit_rorx(e, TR_S1, TR_S0, 7);
    emit_rorx(e, TR_S2, TR_S0, 19);
    emit_rr(e, false, 0x33, TR_S1, TR_S2); /* xor */
    emit_alu_imm(e, false, ALU_AND, TR_S1, (TLB_SIZE - 1) << 5);
    emit_load(e, TR_S2, mem_base(TR_S1, low_address(write ? &tlb->write : &tlb->read)));
    return emit_compare(b, ti, size, align_mask, mem_base(TR_S1, low_address(&tlb->addend)));
}

struct cold *emit_lookup_at(struct tr_builder *b, struct tr_insn *ti, uint64_t address,
                            unsigned size, bool write, unsigned align_mask)
{
    const struct tlb_entry *entry = &b->t->c->tlbs[b->page->kind][tlb_index(address)];

    guard_flags(b, ti);
    emit_constant(b->e, TR_S0, address);
    emit_load(b->e, TR_S2, mem_field(write ? &entry->write : &entry->read));
    return emit_compare(b, ti, size, align_mask, mem_field(&entry->addend));
}

/* Has ti a register operand that its code has in a scratch register? */
static bool has_scratch_operand(const struct tr_insn *ti)
{
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++)
        if (ti->insn.operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (is_spilled(gpr_of(ti->insn.operands[n].reg.value)) ||
             is_high_byte(ti->insn.operands[n].reg.value)))
            return true;
    return false;
}

/* May ti's code have the pointer of a group in this scratch register? */
static bool may_hold(const struct tr_builder *b, const struct tr_insn *ti, unsigned scratch)
{
    if (scratch == TR_S2)
        return true;
    if (ti->kind != TR_COPY && ti->kind != TR_VECTOR)
        return false;
    return scratch == TR_S0 || (!b->flags_saved && !has_scratch_operand(ti));
}

/* How many instructions behind ti use the group next. */
static unsigned distance(const struct tr_builder *b, const struct tr_insn *ti, int group)
{
    unsigned here = (unsigned)(ti - b->insns);

    for (unsigned n = here + 1; n < b->count && group != NO_GROUP; n++)
        for (unsigned m = 0; m < b->insns[n].access_count; m++)
            if (b->insns[n].access[m].group == group)
                return n - here;
    return UINT_MAX;
}

/* A scratch register with the group's pointer. */
static unsigned emit_pointer(struct tr_builder *b, const struct tr_insn *ti, int group)
{
    static const uint8_t scratches[TR_SCRATCH_COUNT] = {TR_S0, TR_S1, TR_S2};
    unsigned best = TR_S2;

    for (unsigned n = 0; n < TR_SCRATCH_COUNT; n++)
        if (b->held[n] == group && may_hold(b, ti, scratches[n]))
            return scratches[n];
    for (unsigned n = 0; n < TR_SCRATCH_COUNT; n++)
        if (may_hold(b, ti, scratches[n]) &&
            distance(b, ti, b->held[n]) > distance(b, ti, b->held[scratch_index(best)]))
            best = scratches[n];
    emit_load(b->e, best, mem_field(&b->t->pointers[group]));
    b->held[scratch_index(best)] = (int8_t)group;
    return best;
}

/*
 * FS and GS in 32-bit code: TR_S0 = linear address of the operand, or off to the code that is
 * returned if it is beyond the segment.
 */
static struct cold *emit_address_in_segment(struct tr_builder *b, struct tr_insn *ti,
                                            const struct access *a)
{
    struct icpu *c = b->t->c;
    bool is_gs = ti->memory->mem.segment == ZYDIS_REGISTER_GS;
    struct cold *cold;

    emit_lea_operand(b, ti, TR_S0, false);
    guard_flags(b, ti);
    emit_lea(b->e, true, TR_S1, mem_base(TR_S0, (int32_t)a->size));
    emit_rm(b->e, true, 0x3b, TR_S1, mem_field(is_gs ? &c->gs_reach : &c->fs_reach)); /* cmp */
    cold = step_cold(b, ti, CC_A);
    emit_load(b->e, TR_S1, mem_field(segment_base(b, ti->memory)));
    emit_lea_word(b, TR_S0, mem_index(TR_S0, TR_S1, 0, 0));
    return cold;
}

struct place emit_access(struct tr_builder *b, struct tr_insn *ti, const struct access *a)
{
    struct place p = {.base = TR_S0, .index = TR_S2};

    if (a->group != NO_GROUP) {
        p.base = (int)emit_pointer(b, ti, a->group);
        p.index = NO_REG;
        p.disp = (int32_t)(a->offset - b->groups[a->group].low);
    } else if (!a->alone && !a->base && !a->index) {
        p.cold = emit_lookup_at(b, ti, (uint64_t)a->offset, a->size, a->write, a->align_mask);
    } else {
        if (b->is_32bit && a->is_operand && segment_base(b, ti->memory))
            p.segment = emit_address_in_segment(b, ti, a);
        else
            emit_address_of(b, ti, a);
        p.cold = emit_lookup(b, ti, a->size, a->write, a->align_mask);
    }
    return p;
}

void finish_cold(struct tr_builder *b, struct cold *cold)
{
    cold->resume = emit_address(b->e);
    cold->level = b->level;
    all_scratch_lost(b);
}

void finish_access(struct tr_builder *b, const struct place *p)
{
    if (p->cold)
        finish_cold(b, p->cold);
    if (p->segment)
        finish_cold(b, p->segment);
}
