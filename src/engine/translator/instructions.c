/*
 * instructions.c - host code for one guest instruction
 *
 * One function for each kind (enum tr_kind) that is not the interpreter's. A function that finds
 * that it cannot do an instruction returns false; what it emitted is taken back, and the
 * interpreter's op stands in. A branch that is not canonical and every miss of a look-up are steps
 * of that op, too.
 */
#include "engine/translator/builder.h"

#include "trapeze/machine.h"

static const uint8_t scratches[TR_SCRATCH_COUNT] = {TR_S0, TR_S1, TR_S2};

static void emit_fallback(struct tr_builder *b, struct tr_insn *ti)
{
    struct tr_site *site = insn_site(b, ti);

    settle_rsp(b);
    all_scratch_lost(b);
    emit_step(b, site, b->flags_saved, NULL);
    b->flags_saved = false;
    b->level = VECTORS_NONE;
    site->is_fallback = true;
    site->ends = ti->ends && ti->kind < TR_JMP;
    if (site->ends) {          /* it may have been one that forgets mappings */
        b->flags_saved = true; /* they are there, too */
        emit_page_exit(b, next_rip(b, ti));
    }
    b->t->stats.fallback_instructions++;
}

/* Does ti replace the whole register without reading it? */
static bool is_overwritten(const struct tr_insn *ti, int guest)
{
    if (ti->insn.info.mnemonic == ZYDIS_MNEMONIC_BSF ||
        ti->insn.info.mnemonic == ZYDIS_MNEMONIC_BSR)
        return false; /* not if the source is 0 */
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(o->reg.value) == guest &&
            (o->size < 32 || (o->actions & ~(unsigned)ZYDIS_OPERAND_ACTION_WRITE)))
            return false;
    }
    return true;
}

/*
 * AH, CH, DH and BH cannot be named beside the scratch registers, where memory operands are: the
 * register is turned so that the byte is the lowest one of TR_S1, and turned back if it is written.
 */
static void place_high_byte(struct tr_builder *b, const struct insn_operand *o, struct rewrite *r)
{
    emit_rorx(b->e, TR_S1, (unsigned)gpr_of(o->reg.value), 8);
    scratch_lost(b, TR_S1);
    r->reg = TR_S1;
    r->no_high_byte = true;
}

static void finish_high_byte(struct tr_builder *b, const struct tr_insn *ti)
{
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && is_high_byte(o->reg.value) &&
            o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            emit_rorx(b->e, (unsigned)gpr_of(o->reg.value), TR_S1, 56);
    }
}

/*
 * Give each spilled register operand a scratch register. Beside a memory operand only TR_S1 is free
 * for one that is read; what is only written may have those of the address, too: TR_S2 first.
 */
static bool place_spilled(struct tr_builder *b, const struct tr_insn *ti, int where[16])
{
    static const uint8_t with_memory[] = {TR_S1, TR_S2, TR_S0};
    const uint8_t *scratch = ti->memory ? with_memory : scratches, *first = scratch;

    for (unsigned write_only = 0; write_only < 2; write_only++)
        for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
            const struct insn_operand *o = &ti->insn.operands[n];
            int guest = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(o->reg.value) : NO_REG;

            if (!is_spilled(guest) || where[guest] >= 0 || is_overwritten(ti, guest) != write_only)
                continue;
            if (ti->memory && !write_only && scratch != first)
                return false;
            where[guest] = *scratch++;
            if (!write_only)
                guest_value(b, guest, (unsigned)where[guest]);
            scratch_lost(b, (unsigned)where[guest]);
        }
    return true;
}

/* Register operands in fields; spilled: those to be stored behind it. */
static bool place_registers(struct tr_builder *b, const struct tr_insn *ti, struct rewrite *r,
                            int spilled[TR_SCRATCH_COUNT])
{
    int where[16];

    memset(where, -1, sizeof(where));
    spilled[0] = spilled[1] = spilled[2] = NO_REG;
    if (!place_spilled(b, ti, where))
        return false;
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];
        int guest = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(o->reg.value) : NO_REG;
        int host;

        if (guest == NO_REG)
            continue;
        if (ti->memory && is_high_byte(o->reg.value)) {
            place_high_byte(b, o, r);
            continue;
        }
        host = is_high_byte(o->reg.value) ? guest + 4 : is_spilled(guest) ? where[guest] : guest;
        if (is_spilled(guest) && o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            spilled[scratch_index((unsigned)host)] = guest;
        switch (o->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            r->reg = host;
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            r->rm = host;
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            r->vvvv = host;
            break;
        default:
            break;
        }
    }
    return true;
}

static void emit_verbatim(struct tr_builder *b, const struct tr_insn *ti)
{
    memcpy(b->e->at, ti->insn.bytes, sizeof(ti->insn.bytes));
    b->e->at += ti->insn.info.length;
}

static bool emit_copy(struct tr_builder *b, struct tr_insn *ti)
{
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    struct place place = {0};
    int spilled[TR_SCRATCH_COUNT];

    if (emit_live(b, ti))
        return true;
    if (ti->verbatim) {
        flags_for(b, ti);
        emit_verbatim(b, ti);
        return true;
    }
    if (ti->memory) {
        place = emit_access(b, ti, &ti->access[0]);
        rewrite_at(&r, &place);
    }
    flags_for(b, ti);
    if (!place_registers(b, ti, &r, spilled) || !rewrite_insn(b->e, &ti->insn, &r))
        return false;
    for (unsigned n = 0; n < TR_SCRATCH_COUNT; n++)
        if (spilled[n] != NO_REG)
            emit_store(b->e, guest_slot(b, spilled[n]), scratches[n]);
    if (r.no_high_byte)
        finish_high_byte(b, ti);
    finish_access(b, &place);
    return true;
}

static bool emit_lea_insn(struct tr_builder *b, struct tr_insn *ti)
{
    int guest = gpr_of(ti->insn.operands[0].reg.value);
    unsigned to = is_spilled(guest) ? TR_S0 : (unsigned)guest;

    if (ti->verbatim) {
        emit_verbatim(b, ti);
        return true;
    }
    if (ti->insn.info.operand_width < 32)
        return false;
    emit_lea_operand(b, ti, to, ti->insn.info.operand_width == 64);
    if (is_spilled(guest)) {
        emit_store(b->e, guest_slot(b, guest), TR_S0);
        scratch_lost(b, TR_S0);
    }
    return true;
}

static void store_constant(struct tr_builder *b, const struct place *p, uint64_t value)
{
    if (b->is_32bit || (int64_t)value == (int32_t)value) {
        emit_rm(b->e, !b->is_32bit, 0xc7, 0, place_mem(p));
        put32(b->e, (uint32_t)value);
    } else {
        emit_constant(b->e, TR_S1, value);
        emit_store(b->e, place_mem(p), TR_S1);
    }
}

/* The access to the stack; the one to the memory operand comes before it, if there is one. */
struct place emit_stack_access(struct tr_builder *b, struct tr_insn *ti)
{
    return emit_access(b, ti, &ti->access[ti->access_count - 1]);
}

static void move_rsp_down(struct tr_builder *b)
{
    move_rsp(b, -(int32_t)b->word);
}

static bool emit_push(struct tr_builder *b, struct tr_insn *ti)
{
    const struct insn_operand *o = &ti->insn.operands[0];
    struct place p, first = {0};

    if (ti->memory) {
        p = emit_access(b, ti, &ti->access[0]);
        emit_load_word(b, TR_S1, place_mem(&p));
        emit_store(b->e, mem_field(&b->t->target), TR_S1);
        first = p;
    }
    p = emit_stack_access(b, ti);
    if (ti->memory) {
        emit_load(b->e, TR_S1, mem_field(&b->t->target));
        emit_store_word(b, place_mem(&p), TR_S1);
    } else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        store_constant(b, &p, (uint64_t)o->imm.value.s);
    else
        emit_store_word(b, place_mem(&p), guest_value(b, gpr_of(o->reg.value), TR_S1));
    move_rsp_down(b);
    finish_access(b, &first); /* a miss of either is a step that does it all */
    finish_access(b, &p);
    return true;
}

static bool emit_pop(struct tr_builder *b, struct tr_insn *ti)
{
    int guest = gpr_of(ti->insn.operands[0].reg.value);
    struct place p = emit_stack_access(b, ti);

    if (is_spilled(guest)) {
        emit_load(b->e, TR_S1, place_mem(&p));
        emit_store(b->e, guest_slot(b, guest), TR_S1);
    } else {
        emit_load_word(b, (unsigned)guest, place_mem(&p));
    }
    if (guest != RSP)
        move_rsp(b, (int32_t)b->word);
    finish_access(b, &p);
    return true;
}

static bool emit_leave(struct tr_builder *b, struct tr_insn *ti)
{
    struct place p = emit_stack_access(b, ti);

    emit_lea_word(b, RSP, mem_base(RBP, (int32_t)b->word));
    emit_load_word(b, RBP, place_mem(&p));
    finish_access(b, &p);
    return true;
}

struct cold *step_if(struct tr_builder *b, struct tr_insn *ti, unsigned condition)
{
    struct cold *cold = cold_new(b, COLD_STEP, emit_jcc(b->e, condition));

    cold->site = insn_site(b, ti);
    return cold;
}

void emit_status_flags(struct tr_builder *b)
{
    struct emit *e = b->e;

    emit_rm(e, false, 0x0fb6, TR_S1, mem_field((uint8_t *)&b->t->flags + 1)); /* movzx: AH */
    emit_alu_imm(e, false, ALU_AND, TR_S1, STATUS_FLAGS & 0xff);
    emit_rm(e, false, 0x0fb6, TR_S0, mem_field(&b->t->flags));
    emit_rr(e, false, 0xc1, 4, TR_S0); /* shl: OF */
    put8(e, 11);
    emit_rr(e, false, 0x0b, TR_S1, TR_S0); /* or */
}

static bool emit_pushf(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    struct place p = emit_stack_access(b, ti);

    flags_save(b);
    emit_status_flags(b);
    emit_rm(e, false, 0x8b, TR_S0, mem_field(&b->t->c->cpu.s.rflags));
    emit_alu_imm(e, false, ALU_AND, TR_S0,
                 (int32_t) ~(uint32_t)(STATUS_FLAGS | X86_FLAG_VM | X86_FLAG_RF));
    emit_rr(e, false, 0x0b, TR_S1, TR_S0);
    if (p.base == TR_S0)
        emit_address_of(b, ti, &ti->access[0]);
    emit_store_word(b, place_mem(&p), TR_S1);
    move_rsp_down(b);
    finish_access(b, &p);
    return true;
}

/* TR_S1 = how many words of 32 or 64 bits before or behind the operand the bit is. */
static void emit_bit_word(struct tr_builder *b, int guest, bool wide)
{
    if (wide)
        emit_mov(b->e, TR_S1, guest_value(b, guest, TR_S1));
    else
        emit_rr(b->e, true, 0x63, TR_S1, guest_value(b, guest, TR_S1)); /* movsxd */
    emit_rr(b->e, true, 0xc1, 7, TR_S1);                                /* sar */
    put8(b->e, wide ? 6 : 5);
}

/*
 * The bit may be anywhere before or behind the operand. The look-up is of the word that it is in;
 * the host's instruction finds that word by the same rule from the operand's address, which in
 * 32-bit code is taken from the word's, because its addresses wrap.
 */
static bool emit_bits(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    bool wide = ti->insn.info.operand_width == 64;
    struct rewrite r = {
        .reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = true, .base = TR_S0, .index = TR_S2};
    int offset = gpr_of(ti->insn.operands[1].reg.value);
    struct place p = {0};

    guard_flags(b, ti);
    emit_address_of(b, ti, &ti->access[0]);
    emit_bit_word(b, offset, wide);
    emit_lea_word(b, TR_S0, mem_index(TR_S0, TR_S1, wide ? 3 : 2, 0));
    p.cold = emit_lookup(b, ti, wide ? 8 : 4, ti->insn.info.mnemonic != ZYDIS_MNEMONIC_BT, 0);
    if (b->is_32bit) {
        emit_bit_word(b, offset, false);
        emit_rr(e, true, 0xc1, 4, TR_S1); /* shl */
        put8(e, 2);
        emit_rr(e, true, 0x2b, TR_S0, TR_S1); /* sub */
    } else {
        emit_address_of(b, ti, &ti->access[0]);
    }
    flags_for(b, ti);
    r.reg = (int)guest_value(b, offset, TR_S1);
    if (!rewrite_insn(e, &ti->insn, &r))
        return false;
    finish_access(b, &p);
    return true;
}

/* ---- system instructions ---- */

static bool emit_swapgs(struct tr_builder *b, struct tr_insn *ti)
{
    struct x86_state *s = &b->t->c->cpu.s;

    (void)ti;
    emit_load(b->e, TR_S0, mem_field(&s->seg[X86_GS].base));
    emit_load(b->e, TR_S1, mem_field(&s->msr.kernel_gs_base));
    emit_store(b->e, mem_field(&s->seg[X86_GS].base), TR_S1);
    emit_store(b->e, mem_field(&s->msr.kernel_gs_base), TR_S0);
    return true;
}

/* AND or OR of EFLAGS in memory; changes the host's flags. */
static void emit_eflags(struct tr_builder *b, enum emit_alu op, uint32_t value)
{
    struct host_mem m = mem_field(&b->t->c->cpu.s.rflags);

    m.immediate_bytes = 4;
    emit_rm(b->e, false, 0x81, op, m);
    put32(b->e, value);
}

static bool emit_set_df(struct tr_builder *b, struct tr_insn *ti)
{
    bool set = ti->insn.info.mnemonic == ZYDIS_MNEMONIC_STD;

    guard_flags(b, ti);
    emit_eflags(b, set ? ALU_OR : ALU_AND, set ? X86_FLAG_DF : ~(uint32_t)X86_FLAG_DF);
    return true;
}

static bool emit_selector(struct tr_builder *b, struct tr_insn *ti)
{
    int guest = gpr_of(ti->insn.operands[0].reg.value);
    unsigned segment = ti->insn.operands[1].reg.value - ZYDIS_REGISTER_ES;
    struct host_mem slot = guest_slot(b, guest);

    emit_rm(b->e, false, 0x0fb7, TR_S1, mem_field(&b->t->c->cpu.s.seg[segment].selector));
    if (ti->insn.info.operand_width == 16) {
        put8(b->e, 0x66);
        if (is_spilled(guest))
            emit_rm(b->e, false, 0x89, TR_S1, slot);
        else
            emit_rr(b->e, false, 0x8b, (unsigned)guest, TR_S1);
    } else if (is_spilled(guest)) {
        emit_store(b->e, slot, TR_S1);
    } else {
        emit_mov(b->e, (unsigned)guest, TR_S1);
    }
    return true;
}

static bool emit_cli(struct tr_builder *b, struct tr_insn *ti)
{
    guard_flags(b, ti);
    emit_eflags(b, ALU_AND, ~(uint32_t)X86_FLAG_IF);
    return true;
}

/* With an event pending the interpreter sees to what may come behind the next instruction. */
static bool emit_sti(struct tr_builder *b, struct tr_insn *ti)
{
    struct cold *cold;

    if (ti == &b->insns[b->count - 1])
        return false; /* the shadow reaches into another block */
    guard_flags(b, ti);
    cold = step_if_event(b, ti);
    emit_eflags(b, ALU_OR, X86_FLAG_IF);
    finish_cold(b, cold);
    return true;
}

/* Another TLB counts behind it, so another block follows. */
static bool emit_set_ac(struct tr_builder *b, struct tr_insn *ti)
{
    struct icpu *c = b->t->c;
    bool set = ti->insn.info.mnemonic == ZYDIS_MNEMONIC_STAC;
    enum tlb_kind kind = set && (c->cpu.s.cr4 & X86_CR4_SMAP) ? TLB_KERNEL_SMAP_OPEN : TLB_KERNEL;
    struct host_mem field = mem_field(&c->tlb_kind);

    guard_flags(b, ti);
    emit_eflags(b, set ? ALU_OR : ALU_AND, set ? X86_FLAG_AC : ~(uint32_t)X86_FLAG_AC);
    field.immediate_bytes = 4;
    emit_rm(b->e, false, 0xc7, 0, field);
    put32(b->e, kind);
    emit_load(b->e, TR_S0, mem_field(&c->tlb_of[kind]));
    emit_store(b->e, mem_field(&c->tlb), TR_S0);
    return true;
}

/* The quotient fits, as far as can be told quickly; else the interpreter divides, or raises #DE. */
static bool emit_div(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    bool wide = ti->insn.info.operand_width == 64;
    bool is_signed = ti->insn.info.mnemonic == ZYDIS_MNEMONIC_IDIV;
    struct place place = {0};
    struct cold *colds[2] = {NULL};
    unsigned count = 0;

    if (ti->memory) {
        place = emit_access(b, ti, &ti->access[0]);
        emit_rm(e, wide, 0x8b, TR_S0, place_mem(&place));
    } else {
        emit_mov(e, TR_S0, guest_value(b, gpr_of(ti->insn.operands[0].reg.value), TR_S0));
    }
    guard_flags(b, ti); /* they stay saved if they are alive, and so unchanged */
    if (is_signed) {
        emit_rr(e, wide, 0x8b, TR_S1, RAX);
        emit_rr(e, wide, 0xc1, 7, TR_S1); /* sar */
        put8(e, wide ? 63 : 31);
        emit_rr(e, wide, 0x3b, TR_S1, RDX); /* RDX:RAX is no more than RAX */
        colds[count++] = step_if(b, ti, CC_NE);
        emit_lea(e, wide, TR_S1, mem_base(TR_S0, 1));
        emit_alu_imm(e, wide, ALU_CMP, TR_S1, 1); /* the divisor is neither 0 nor -1 */
        colds[count++] = step_if(b, ti, CC_BE);
    } else {
        emit_rr(e, wide, 0x3b, RDX, TR_S0);
        colds[count++] = step_if(b, ti, CC_AE);
    }
    emit_rr(e, wide, 0xf7, is_signed ? 7 : 6, TR_S0);
    while (count--)
        finish_cold(b, colds[count]);
    finish_access(b, &place);
    return true;
}

static void emit_push_return(struct tr_builder *b, struct tr_insn *ti)
{
    struct place p = emit_stack_access(b, ti);

    store_constant(b, &p, next_rip(b, ti));
    move_rsp_down(b);
    finish_access(b, &p);
}

static bool emit_call_insn(struct tr_builder *b, struct tr_insn *ti)
{
    emit_push_return(b, ti);
    if (!ti->followed)
        emit_branch(b, -1, ti->target);
    return true;
}

/* TR_S0 = the operand of an indirect branch. */
static void emit_branch_operand(struct tr_builder *b, struct tr_insn *ti)
{
    struct place p;

    if (!ti->memory) {
        emit_mov_word(b, TR_S0, guest_value(b, gpr_of(ti->insn.operands[0].reg.value), TR_S0));
        return;
    }
    p = emit_access(b, ti, &ti->access[0]);
    emit_load_word(b, TR_S0, place_mem(&p));
    finish_access(b, &p);
}

static bool emit_call_indirect(struct tr_builder *b, struct tr_insn *ti)
{
    insn_site(b, ti)->undo_rsp = (int8_t)b->word;
    emit_branch_operand(b, ti);
    emit_store(b->e, mem_field(&b->t->target), TR_S0);
    emit_push_return(b, ti);
    emit_load(b->e, TR_S0, mem_field(&b->t->target));
    emit_indirect(b, ti);
    return true;
}

static bool emit_jmp_indirect(struct tr_builder *b, struct tr_insn *ti)
{
    emit_branch_operand(b, ti);
    emit_indirect(b, ti);
    return true;
}

static bool emit_ret(struct tr_builder *b, struct tr_insn *ti)
{
    int32_t bytes = (int32_t)b->word;
    struct place p;

    if (ti->insn.info.raw.imm[0].size)
        bytes += (int32_t)ti->insn.info.raw.imm[0].value.u;
    if (bytes > -INT8_MIN)
        return false;
    insn_site(b, ti)->undo_rsp = (int8_t)-bytes;
    p = emit_stack_access(b, ti);
    emit_load_word(b, TR_S0, place_mem(&p));
    move_rsp(b, bytes);
    finish_access(b, &p);
    if (ti->followed)
        emit_matched_return(b, ti);
    else
        emit_indirect(b, ti);
    return true;
}

static bool emit_jcc_insn(struct tr_builder *b, struct tr_insn *ti)
{
    unsigned condition = (ti->insn.info.opcode & 15) ^ ti->inverted;

    if (ti->join == NO_INSN) {
        emit_branch(b, (int)condition, ti->target);
        return true;
    }
    flags_to_host(b);
    ti->rel32 = emit_jcc(b->e, condition);
    memcpy(ti->held, b->held, sizeof(b->held));
    ti->level = b->level;
    return true;
}

/* Branches that count RCX or look at it. None of it touches the flags. */
static bool emit_loop(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    bool wide = ti->insn.info.address_width == 64;
    uint8_t *behind_jrcxz;

    switch (ti->insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
        flags_to_host(b);
        /* fall through */
    case ZYDIS_MNEMONIC_LOOP:
        emit_lea(e, wide, RCX, mem_base(RCX, -1));
        break;
    default:
        break;
    }
    if (!wide)
        put8(e, 0x67);
    put_bytes(e, "\xe3\x02", 2); /* jrcxz */
    behind_jrcxz = e->at;
    switch (ti->insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_LOOP:
        aim_branch(b, emit_link_jmp(e), true, ti->target);
        break;
    case ZYDIS_MNEMONIC_LOOPE:
        aim_branch(b, emit_link_jcc(e, CC_E), true, ti->target);
        break;
    case ZYDIS_MNEMONIC_LOOPNE:
        aim_branch(b, emit_link_jcc(e, CC_NE), true, ti->target);
        break;
    default:                       /* JRCXZ, JECXZ */
        put_bytes(e, "\xeb\0", 2); /* over the jump */
        behind_jrcxz[-1] = 2;
        behind_jrcxz = e->at;
        aim_branch(b, emit_link_jmp(e), true, ti->target);
        break;
    }
    behind_jrcxz[-1] = (uint8_t)(e->at - behind_jrcxz);
    return true;
}

static bool emit_jmp_insn(struct tr_builder *b, struct tr_insn *ti)
{
    if (!ti->followed)
        emit_branch(b, -1, ti->target);
    return true;
}

/* Of several vCPUs one that waits for another may be in its way: now and then the op yields. */
static bool emit_pause(struct tr_builder *b, struct tr_insn *ti)
{
    struct host_mem left = mem_field(&b->t->c->pauses_left);
    struct cold *cold = NULL;

    if (machine_vcpu_count(b->t->c->interpreter->machine) > 1) {
        guard_flags(b, ti);
        left.immediate_bytes = 1;
        emit_rm(b->e, false, 0x83, ALU_SUB, left);
        put8(b->e, 1);
        cold = step_if(b, ti, CC_E);
    }
    put_bytes(b->e, "\xf3\x90", 2);
    if (cold)
        finish_cold(b, cold);
    return true;
}

static bool emit_nothing(struct tr_builder *b, struct tr_insn *ti)
{
    (void)b;
    (void)ti;
    return true;
}

static bool (*const emitters[])(struct tr_builder *b, struct tr_insn *ti) = {
    [TR_COPY] = emit_copy,
    [TR_VECTOR] = emit_vector,
    [TR_X87] = emit_x87,
    [TR_NOTHING] = emit_nothing,
    [TR_LEA] = emit_lea_insn,
    [TR_PUSH] = emit_push,
    [TR_POP] = emit_pop,
    [TR_LEAVE] = emit_leave,
    [TR_DIV] = emit_div,
    [TR_PUSHF] = emit_pushf,
    [TR_BITS] = emit_bits,
    [TR_REP] = emit_rep,
    [TR_STRING] = emit_string,
    [TR_SELECTOR] = emit_selector,
    [TR_SET_DF] = emit_set_df,
    [TR_PAUSE] = emit_pause,
    [TR_LDMXCSR] = emit_ldmxcsr,
    [TR_STMXCSR] = emit_stmxcsr,
    [TR_FLDCW] = emit_fldcw,
    [TR_FWAIT] = emit_fwait,
    [TR_SWAPGS] = emit_swapgs,
    [TR_CLI] = emit_cli,
    [TR_STI] = emit_sti,
    [TR_SET_AC] = emit_set_ac,
    [TR_RDTSC] = emit_rdtsc,
    [TR_READ_CR] = emit_read_cr,
    [TR_FSGSBASE] = emit_fsgsbase,
    [TR_RDPKRU] = emit_rdpkru,
    [TR_JCC] = emit_jcc_insn,
    [TR_LOOP] = emit_loop,
    [TR_JMP] = emit_jmp_insn,
    [TR_CALL] = emit_call_insn,
    [TR_JMP_INDIRECT] = emit_jmp_indirect,
    [TR_CALL_INDIRECT] = emit_call_indirect,
    [TR_RET] = emit_ret,
    [TR_POPF] = emit_popf,
    [TR_SYSCALL] = emit_syscall,
    [TR_SYSRET] = emit_sysret,
};

/* Do TR_S0 and TR_S1 change only where the code says so (scratch_lost)? TR_S2 always does. */
static bool keeps_scratch(const struct tr_insn *ti)
{
    return ti->kind == TR_COPY || ti->kind == TR_VECTOR || ti->kind == TR_LEA ||
           ti->kind == TR_NOTHING || ti->kind == TR_JCC;
}

/* Does ti name RSP otherwise than as the base of an access? */
static bool names_rsp(const struct tr_insn *ti)
{
    for (unsigned n = 0; n < ti->insn.info.operand_count_visible; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(o->reg.value) == RSP)
            return true;
    }
    return ti->verbatim && ti->memory && gpr_of(ti->memory->mem.base) == RSP;
}

/* Has the host's RSP to be the guest's for ti? Not for what leaves it alone, or adds to it. */
static bool needs_rsp(const struct tr_insn *ti)
{
    const int64_t near = 1 << 20; /* what is added to a displacement must not be too much */

    switch (ti->kind) {
    case TR_COPY:
    case TR_VECTOR:
    case TR_X87:
    case TR_LEA:
    case TR_PUSH:
    case TR_POP:
        return names_rsp(ti) || (ti->memory && (ti->memory->mem.disp.value > near ||
                                                ti->memory->mem.disp.value < -near));
    case TR_NOTHING:
    case TR_CALL:
    case TR_RET:
        return false;
    case TR_JMP:
        return !ti->followed;
    default:
        return true;
    }
}

/* RSP += *bytes, and nothing else that counts. */
static bool is_rsp_move(const struct tr_builder *b, const struct tr_insn *ti, int64_t *bytes)
{
    const struct insn_operand *o = ti->insn.operands;
    bool flags_die = ti + 1 < b->insns + b->count && !ti[1].flags_live;

    if (o[0].type != ZYDIS_OPERAND_TYPE_REGISTER || gpr_of(o[0].reg.value) != RSP ||
        o[0].size != 8 * b->word)
        return false;
    switch (ti->insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        *bytes = o[1].imm.value.s;
        return flags_die && o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    case ZYDIS_MNEMONIC_SUB:
        *bytes = -o[1].imm.value.s;
        return flags_die && o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    case ZYDIS_MNEMONIC_LEA:
        *bytes = o[1].mem.disp.value;
        return gpr_of(o[1].mem.base) == RSP && o[1].mem.index == ZYDIS_REGISTER_NONE &&
               ti->insn.info.address_width == 8 * b->word;
    default:
        return false;
    }
}

/* True if that is all there is to do for ti. */
static bool take_rsp_move(struct tr_builder *b, const struct tr_insn *ti)
{
    int64_t bytes;

    if ((ti->kind != TR_COPY && ti->kind != TR_LEA) || !is_rsp_move(b, ti, &bytes) ||
        bytes != (int16_t)bytes)
        return false;
    if (ti->kind == TR_COPY)
        b->flags_saved = false; /* they are dead */
    move_rsp(b, (int32_t)bytes);
    return true;
}

void emit_insn(struct tr_builder *b, struct tr_insn *ti)
{
    bool flags_saved;
    int32_t rsp_ahead;
    unsigned cold_count;
    uint8_t *at;

    ti->host = b->e->at;
    b->charged = b->t->c->counted ? b->count - (unsigned)(ti - b->insns) : 0;
    emit_page_check(b, ti);
    emit_vector_level(b, ti);
    emit_group_checks(b, ti);
    if (take_rsp_move(b, ti))
        return;
    if (needs_rsp(ti))
        settle_rsp(b);
    flags_saved = b->flags_saved;
    rsp_ahead = b->rsp_ahead;
    cold_count = b->cold_count;
    at = b->e->at;
    if (emitters[ti->kind] && emitters[ti->kind](b, ti)) {
        if (!keeps_scratch(ti)) {
            scratch_lost(b, TR_S0);
            scratch_lost(b, TR_S1);
        }
        return;
    }
    b->e->at = at;
    b->cold_count = cold_count;
    b->flags_saved = flags_saved;
    b->rsp_ahead = rsp_ahead;
    emit_fallback(b, ti);
}
