/*
 * vectors.c - vector instructions, and when vector registers are loaded
 *
 * A vector instruction is copied: it works on the host's registers of the same numbers. Whether
 * they are loaded is known while generated code runs (translator.vector_level); a block looks once
 * before its first vector instruction, and again behind an instruction that is the interpreter's.
 */
#include "engine/translator/builder.h"

/* ---- levels ---- */

static enum vector_level level_of(const struct tr_insn *ti)
{
    if (ti->kind != TR_VECTOR)
        return VECTORS_NONE;
    if (ti->plan.needs & (FPU_AVX512 | FPU_AVX512_FP))
        return VECTORS_AVX512;
    return ti->plan.needs & (FPU_AVX | FPU_AVX_FP) ? VECTORS_AVX : VECTORS_SSE;
}

/* Up from instruction n, but not to before first: where the flags are dead, or n. */
static unsigned place_level(const struct tr_builder *b, unsigned first, unsigned n)
{
    for (unsigned place = n; place >= first; place--) {
        if (!b->insns[place].flags_live)
            return place;
        if (!place || b->insns[place].joined_from != NO_INSN)
            break;
    }
    return n;
}

void plan_vector_levels(struct tr_builder *b)
{
    unsigned first = 0; /* no step that is always made from here on */

    for (unsigned n = 0; n < b->count; n++)
        b->insns[n].raise = VECTORS_NONE;
    while (first < b->count) {
        enum vector_level most = VECTORS_NONE;
        unsigned user = b->count, n = first;

        for (; n < b->count && b->insns[n].kind != TR_FALLBACK; n++) {
            enum vector_level level = level_of(&b->insns[n]);

            if (level && user == b->count)
                user = n;
            if (level > most)
                most = level;
        }
        if (most)
            b->insns[place_level(b, first, user)].raise = most;
        first = n + 1;
    }
}

void emit_vector_level(struct tr_builder *b, struct tr_insn *ti)
{
    enum vector_level level = ti->raise ? ti->raise : level_of(ti);
    struct cold *cold;

    if (b->level >= level)
        return;
    guard_flags(b, ti);
    emit_cmp_field(b->e, &b->t->vector_level, level);
    cold = cold_new(b, COLD_RAISE, emit_jcc(b->e, CC_B));
    b->level = level;
    finish_cold(b, cold);
}

/* ---- vector instructions ---- */

/* General register operands; false if there are more than the scratch registers can hold. */
static bool place_registers(struct tr_builder *b, const struct tr_insn *ti, struct rewrite *r,
                            int *out_spilled)
{
    *out_spilled = NO_REG;
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];
        int guest, host;

        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || (guest = gpr_of(o->reg.value)) == NO_REG)
            continue;
        if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG &&
            o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue; /* implicit ones are in their places (analyse.c) */
        host = (int)guest_value(b, guest, TR_S1);
        if (is_spilled(guest)) {
            if (*out_spilled != NO_REG)
                return false;
            if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
                *out_spilled = guest;
        }
        if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            r->reg = host;
        else
            r->rm = host;
    }
    return true;
}

bool emit_vector(struct tr_builder *b, struct tr_insn *ti)
{
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    struct place place = {0};
    int spilled;

    if (ti->memory) {
        place = emit_access(b, ti, &ti->access[0]);
        rewrite_at(&r, &place);
    }
    flags_for(b, ti);
    if (!place_registers(b, ti, &r, &spilled) || !rewrite_insn(b->e, &ti->insn, &r))
        return false;
    if (spilled != NO_REG)
        emit_store(b->e, guest_slot(b, spilled), TR_S1);
    finish_access(b, &place);
    return true;
}

/* ---- x87: its registers are in the host's while the interpreter's loop runs, once loaded ---- */

static void store_u16(struct tr_builder *b, const uint16_t *field, unsigned value)
{
    struct host_mem m = mem_field(field);

    m.immediate_bytes = 2;
    put8(b->e, 0x66);
    emit_rm(b->e, false, 0xc7, 0, m);
    put8(b->e, value);
    put8(b->e, value >> 8);
}

static void copy_selector(struct tr_builder *b, uint16_t *field, unsigned segment)
{
    emit_rm(b->e, false, 0x0fb7, TR_S1, mem_field(&b->t->c->cpu.s.seg[segment].selector));
    put8(b->e, 0x66);
    emit_rm(b->e, false, 0x89, TR_S1, mem_field(field));
}

/* What FSTENV and FSAVE show of the last instruction. TR_S0 is the address of the operand. */
static void remember_x87(struct tr_builder *b, struct tr_insn *ti)
{
    struct x86_fpu *fpu = &b->t->c->cpu.s.fpu;

    if (!ti->plan.sets_pointers)
        return;
    emit_constant(b->e, TR_S1, ti->rip);
    emit_store(b->e, mem_field(&fpu->fip), TR_S1);
    store_u16(b, &fpu->fop, ti->plan.fop);
    copy_selector(b, &fpu->fcs, X86_CS);
    if (!ti->memory)
        return;
    emit_store(b->e, mem_field(&fpu->fdp), TR_S0);
    copy_selector(b, &fpu->fds, ti->built.seg);
}

/* ---- control words; exceptions are masked before and after, or it is the interpreter's ---- */

/* Off to the interpreter if the x87 registers are not loaded, or an exception could be pending. */
static struct cold *step_if_blocked(struct tr_builder *b, struct tr_insn *ti)
{
    struct host_mem blocked = mem_field(&b->t->c->fpu_blocked);

    blocked.immediate_bytes = 1;
    emit_rm(b->e, false, 0xf6, 0, blocked); /* test */
    put8(b->e, FPU_X87);
    return step_if(b, ti, CC_NE);
}

/* Off to the interpreter unless all bits of mask are set in TR_S1; TR_S2 is lost. */
static struct cold *step_unless_set(struct tr_builder *b, struct tr_insn *ti, int32_t mask)
{
    emit_rr(b->e, false, 0x8b, TR_S2, TR_S1); /* mov */
    emit_alu_imm(b->e, false, ALU_AND, TR_S2, mask);
    emit_alu_imm(b->e, false, ALU_CMP, TR_S2, mask);
    return step_if(b, ti, CC_NE);
}

bool emit_fwait(struct tr_builder *b, struct tr_insn *ti)
{
    guard_flags(b, ti);
    finish_cold(b, step_if_blocked(b, ti));
    return true;
}

bool emit_fldcw(struct tr_builder *b, struct tr_insn *ti)
{
    struct host_mem word = mem_field(&b->t->target);
    struct cold *blocked, *unmasked;
    struct place p;

    guard_flags(b, ti);
    blocked = step_if_blocked(b, ti);
    p = emit_access(b, ti, &ti->access[0]);
    emit_rm(b->e, false, 0x0fb7, TR_S1, place_mem(&p)); /* movzx */
    unmasked = step_unless_set(b, ti, FCW_MASKS);
    emit_store(b->e, word, TR_S1);
    emit_rm(b->e, false, 0xd9, 5, word);                               /* fldcw */
    emit_rm(b->e, false, 0xd9, 7, mem_field(&b->t->c->cpu.s.fpu.fcw)); /* fnstcw */
    finish_access(b, &p);
    finish_cold(b, blocked);
    finish_cold(b, unmasked);
    return true;
}

/* Sticky flags are in the host's register, masks in memory. */
bool emit_stmxcsr(struct tr_builder *b, struct tr_insn *ti)
{
    struct host_mem word = mem_field(&b->t->target);
    struct place p;

    guard_flags(b, ti);
    p = emit_access(b, ti, &ti->access[0]);
    emit_rm(b->e, false, 0x0fae, 3, word); /* stmxcsr */
    emit_rm(b->e, false, 0x8b, TR_S1, word);
    emit_alu_imm(b->e, false, ALU_AND, TR_S1, MXCSR_FLAGS);
    emit_rm(b->e, false, 0x0b, TR_S1, mem_field(&b->t->c->cpu.s.fpu.mxcsr)); /* or */
    emit_rm(b->e, false, 0x89, TR_S1, place_mem(&p));
    finish_access(b, &p);
    return true;
}

bool emit_ldmxcsr(struct tr_builder *b, struct tr_insn *ti)
{
    struct host_mem mxcsr = mem_field(&b->t->c->cpu.s.fpu.mxcsr);
    struct cold *colds[3];
    struct place p;

    guard_flags(b, ti);
    p = emit_access(b, ti, &ti->access[0]);
    emit_rm(b->e, false, 0x8b, TR_S1, place_mem(&p));
    emit_alu_imm(b->e, false, ALU_CMP, TR_S1, MXCSR_VALID);
    colds[0] = step_if(b, ti, CC_A); /* #GP(0) */
    colds[1] = step_unless_set(b, ti, MXCSR_MASKS);
    emit_rm(b->e, false, 0x8b, TR_S2, mxcsr);
    emit_alu_imm(b->e, false, ALU_AND, TR_S2, MXCSR_MASKS);
    emit_alu_imm(b->e, false, ALU_CMP, TR_S2, MXCSR_MASKS);
    colds[2] = step_if(b, ti, CC_NE);
    emit_rm(b->e, false, 0x89, TR_S1, mxcsr);
    emit_rm(b->e, false, 0x0fae, 2, mxcsr); /* ldmxcsr */
    finish_access(b, &p);
    for (unsigned n = 0; n < 3; n++)
        finish_cold(b, colds[n]);
    return true;
}

bool emit_x87(struct tr_builder *b, struct tr_insn *ti)
{
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    const struct insn_operand *m = ti->memory;
    struct place place = {0};
    struct cold *cold;

    /* FS and GS: the pointer is the offset in the segment, and TR_S0 is not. */
    if (m && (m->mem.segment == ZYDIS_REGISTER_FS || m->mem.segment == ZYDIS_REGISTER_GS))
        return false;
    if (ti->flags_live)
        flags_save(b);
    cold = step_if_blocked(b, ti);
    if (m) {
        place = emit_access(b, ti, &ti->access[0]);
        if (!place.cold)
            emit_address_of(b, ti, &ti->access[0]);
        rewrite_at(&r, &place);
    }
    flags_for(b, ti);
    remember_x87(b, ti);
    if (!rewrite_insn(b->e, &ti->insn, &r))
        return false;
    finish_access(b, &place);
    finish_cold(b, cold);
    return true;
}
