/*
 * access.c - registers, effective addresses and the inline TLB look-up
 */
#include "engine/interpreter/build.h"
#include "engine/translator/builder.h"

#include <limits.h>
#include <stdlib.h>

struct cold *cold_new(struct tr_builder *b, enum cold_kind kind, uint8_t *rel32)
{
    struct cold *cold = &b->cold[b->cold_count++];

    assert(b->cold_count <= TR_MAX_COLD);
    *cold = (struct cold){
        .kind = kind, .rel32 = rel32, .flags_saved = b->flags_saved, .rsp_ahead = b->rsp_ahead};
    return cold;
}

static const struct op *op_return(struct icpu *c, const struct op *i)
{
    (void)c;
    return i;
}

struct tr_site *insn_site(struct tr_builder *b, struct tr_insn *ti)
{
    struct tr_site *site = ti->site;
    struct tr_copy *copy;

    if (site)
        return site;
    site = ti->site = translator_data(b->cache, sizeof(*site));
    *site = (struct tr_site){.block = tr_ref_to(b->cache, b->block),
                             .offset = (uint16_t)(ti->rip - b->block->rip),
                             .charged = (uint8_t)b->charged,
                             .is_last = ti->is_last};
    if (b->source && !b->checks_itself)
        return site;
    copy = translator_data(b->cache, sizeof(*copy));
    *copy = (struct tr_copy){.rip = ti->rip};
    memcpy(copy->bytes, ti->insn.bytes, ti->insn.info.length);
    site->copy = tr_ref_to(b->cache, copy);
    return site;
}

/* The vCPU is in the mode of the block. */
static void make_op(struct translator *t, const struct tr_site *site, struct tr_op *op)
{
    const struct tr_block *block = tr_at(t->cache, site->block);
    const struct tr_source *source = tr_at(t->cache, block->source);
    const struct tr_copy *copy = tr_at(t->cache, site->copy);
    const uint8_t *bytes = site->copy ? copy->bytes : source->bytes + site->offset;
    size_t size = site->copy ? sizeof(copy->bytes) : (size_t)(source->size - site->offset);
    uint64_t rip = site->copy ? copy->rip : block->rip + site->offset, next;
    bool ends, not_last;
    struct insn insn;

    if (x86_decode_cached(t->c->decode_cache, t->c->code_size, false, bytes, size, &insn) !=
        DECODE_OK)
        abort(); /* it was one */
    next = rip + insn.info.length;
    *op = (struct tr_op){.end = op_return,
                         .page_rip = rip & GUEST_PAGE_MASK,
                         .next_rip = t->c->code_size == X86_CODE_32 ? (uint32_t)next : next,
                         .charged = site->charged,
                         .mnemonic = (uint16_t)insn.info.mnemonic,
                         .is_fallback = site->is_fallback,
                         .ends = site->ends};
    blocks_build_op(t->c, &insn, rip & 0xfff, &op->op, &ends, &not_last);
    if (site->is_last)
        op->op.extra |= OP_IS_LAST;
}

const struct tr_op *translator_site_op(struct translator *t, tr_ref site)
{
    unsigned n = site % TR_OPS;

    if (unlikely(t->op_sites[n] != site)) {
        cache_see(t->cache);
        make_op(t, tr_at(t->cache, site), &t->ops[n]); /* may forget all */
        t->op_sites[n] = site;
    }
    return &t->ops[n];
}

void translator_forget_ops(struct translator *t)
{
    memset(t->op_sites, 0, sizeof(t->op_sites));
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

/* ---- RSP ---- */

#define MAX_RSP_AHEAD 0x10000

void settle_rsp(struct tr_builder *b)
{
    if (b->rsp_ahead)
        emit_lea_word(b, RSP, mem_base(RSP, b->rsp_ahead));
    b->rsp_ahead = 0;
}

void move_rsp(struct tr_builder *b, int32_t bytes)
{
    b->rsp_ahead += bytes;
    if (b->rsp_ahead < -MAX_RSP_AHEAD || b->rsp_ahead > MAX_RSP_AHEAD)
        settle_rsp(b);
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
    if (base == RSP)
        host.disp += b->rsp_ahead;
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

/* In 64-bit code: the same each time, but for the segment's base. */
static bool is_plain_offset(const struct tr_builder *b, const struct insn_operand *m)
{
    return !b->is_32bit && m->mem.base == ZYDIS_REGISTER_NONE &&
           m->mem.index == ZYDIS_REGISTER_NONE;
}

void emit_address_of(struct tr_builder *b, const struct tr_insn *ti, const struct access *a)
{
    const uint64_t *base;

    if (!a->is_operand) {
        emit_lea_word(b, TR_S0,
                      ti->kind == TR_LEAVE
                          ? mem_base(RBP, 0)
                          : mem_base(RSP, b->rsp_ahead - (a->write ? (int32_t)b->word : 0)));
        return;
    }
    base = segment_base(b, ti->memory);
    if (base && is_plain_offset(b, ti->memory)) {
        emit_load(b->e, TR_S0, mem_field(base));
        emit_lea(b->e, true, TR_S0, mem_base(TR_S0, (int32_t)ti->memory->mem.disp.value));
        return;
    }
    emit_lea_operand(b, ti, TR_S0, true);
    if (base) {
        emit_load(b->e, TR_S1, mem_field(base));
        emit_lea_word(b, TR_S0, mem_index(TR_S0, TR_S1, 0, 0));
    }
}

/* ---- the look-up ---- */

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

    cold->site = insn_site(b, ti);
    return cold;
}

/* other = the address XOR a tag, which is the offset in the page on a hit: condition A if it is
 * not. */
static void emit_compare(struct tr_builder *b, unsigned other, unsigned size, unsigned align_mask)
{
    if (align_mask) {
        emit_rr(b->e, true, 0xc1, 1, other); /* ror: what is not aligned becomes very large */
        put8(b->e, (unsigned)__builtin_popcount(align_mask));
    }
    emit_alu_imm(b->e, true, ALU_CMP, other, (int32_t)((0x1000 - size) / (align_mask + 1)));
}

/* TR_S0 and TR_S2 are for the address and something else. */
static unsigned other_than(unsigned address)
{
    return address == TR_S0 ? TR_S2 : TR_S0;
}

/*
 * Which near page is asked for. Only user code has them: the kernel's stack is another one after
 * each switch of tasks. Blocks have one each, nearly, because functions that call one another may
 * be at the two sides of the end of a page; and none where a check failed, because that is where an
 * access is in both.
 */
static int near_stack(const struct tr_builder *b)
{
    if (b->page->kind != TLB_USER || !is_main(b))
        return NO_NEAR;
    return 1 + (int)((b->block->rip * 0x9e3779b97f4a7c15ull >> 40) % (NEAR_PAGES - 1));
}

static int near_segment(const struct tr_builder *b)
{
    return b->page->kind == TLB_USER && is_main(b) ? 0 : NO_NEAR;
}

int near_of(const struct tr_builder *b, int base, int index)
{
    return base == RSP && index == NO_REG ? near_stack(b) : NO_NEAR;
}

static void emit_compare_near(struct tr_builder *b, const struct lookup *l)
{
    const struct near_page *page = &b->t->c->near[l->near];
    unsigned other = other_than(l->address);

    emit_mov(b->e, other, l->address);
    emit_rm(b->e, true, 0x33, other, mem_field(l->write ? &page->write : &page->read)); /* xor */
    emit_compare(b, other, l->size, l->align_mask);
}

void emit_find_near(struct tr_builder *b, const struct cold *cold)
{
    const struct lookup *l = &cold->lookup;

    emit_mov(b->e, TR_S0, l->address);
    emit_constant(b->e, TR_S2, (uintptr_t)vcpu_address(b->e, &b->t->c->near[l->near]));
    emit_thunk(b, b->cache->find_near, NULL);
    emit_mov(b->e, l->address, TR_S0);
    emit_compare_near(b, l);
    emit_aim(b->e, emit_jcc(b->e, CC_BE), cold->hit);
}

void emit_hash(struct emit *e, unsigned address, unsigned other)
{
    emit_rorx(e, TR_S1, address, 7);
    emit_rorx(e, other, address, 19);
    emit_rr(e, false, 0x33, TR_S1, other); /* xor */
    emit_alu_imm(e, false, ALU_AND, TR_S1, (TLB_SIZE - 1) << 5);
}

struct host_mem emit_find(struct tr_builder *b, struct tr_insn *ti, const struct lookup *l,
                          struct cold **out_cold)
{
    const struct tlb_entry *tlb = b->t->c->tlbs[b->page->kind];
    unsigned other = other_than(l->address);
    struct cold *cold;

    guard_flags(b, ti);
    all_scratch_lost(b);
    if (l->near == NO_NEAR) {
        emit_hash(b->e, l->address, other);
        emit_load(b->e, other, mem_tlb(b->e, l->write ? &tlb->write : &tlb->read));
        emit_rr(b->e, true, 0x33, other, l->address); /* xor */
        emit_compare(b, other, l->size, l->align_mask);
        *out_cold = step_cold(b, ti, CC_A);
        return mem_tlb(b->e, &tlb->addend);
    }
    emit_compare_near(b, l);
    *out_cold = cold = step_cold(b, ti, CC_A);
    cold->lookup = *l;
    cold->hit = emit_address(b->e);
    return mem_field(&b->t->c->near[l->near].addend);
}

struct cold *emit_lookup(struct tr_builder *b, struct tr_insn *ti, unsigned size, bool write,
                         unsigned align_mask)
{
    const struct lookup l = {TR_S0, size, write, (uint8_t)align_mask, NO_NEAR};
    struct cold *cold;

    emit_load(b->e, TR_S2, emit_find(b, ti, &l, &cold));
    return cold;
}

struct cold *emit_lookup_at(struct tr_builder *b, struct tr_insn *ti, uint64_t address,
                            unsigned size, bool write, unsigned align_mask)
{
    const struct tlb_entry *entry = &b->t->c->tlbs[b->page->kind][tlb_index(address)];
    struct cold *cold;

    guard_flags(b, ti);
    all_scratch_lost(b);
    emit_constant(b->e, TR_S0, address);
    emit_load(b->e, TR_S2, mem_field(write ? &entry->write : &entry->read));
    emit_rr(b->e, true, 0x33, TR_S2, TR_S0); /* xor */
    emit_compare(b, TR_S2, size, align_mask);
    cold = step_cold(b, ti, CC_A);
    emit_load(b->e, TR_S2, mem_field(&entry->addend));
    return cold;
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
    b->groups[group].reloaded = true;
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

/* TR_S0 is the address of a, an access of ti. */
static struct host_mem emit_find_access(struct tr_builder *b, struct tr_insn *ti,
                                        const struct access *a, struct cold **out_cold)
{
    const struct insn_operand *m = a->is_operand ? ti->memory : NULL;
    struct lookup l = {TR_S0, a->size, a->write, a->align_mask, NO_NEAR};

    if (!m)
        l.near = ti->kind == TR_LEAVE ? NO_NEAR : near_stack(b);
    else if (segment_base(b, m))
        l.near = is_plain_offset(b, m) ? near_segment(b) : NO_NEAR;
    else
        l.near = near_of(b, gpr_of(m->mem.base), gpr_of(m->mem.index));
    return emit_find(b, ti, &l, out_cold);
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
        emit_load(b->e, TR_S2, emit_find_access(b, ti, a, &p.cold));
    }
    return p;
}

void finish_cold(struct tr_builder *b, struct cold *cold)
{
    cold->resume = emit_address(b->e);
    cold->level = b->level;
    cold->resume_rsp_ahead = b->rsp_ahead;
    all_scratch_lost(b);
}

void finish_access(struct tr_builder *b, const struct place *p)
{
    if (p->cold)
        finish_cold(b, p->cold);
    if (p->segment)
        finish_cold(b, p->segment);
}
