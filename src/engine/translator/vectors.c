/*
 * vectors.c - vector instructions, and which vector registers the host has
 *
 * Between blocks the guest's vector registers are in memory. Within a block a register is loaded
 * when an instruction first reads it and written back before anything else looks at memory: a call
 * of the interpreter, the end of the block. A block that jumps to its own start loads all it uses
 * before it starts and keeps them from one turn to the next (vector_loop).
 */
#include "engine/translator/builder.h"

#define LEGACY_BYTES 16u

/* Moves of a whole register at a width: MOVUPS, VMOVUPS ymm, VMOVUPS zmm. */
static void move_vector(struct tr_builder *b, bool load, unsigned n, unsigned bytes)
{
    struct emit *e = b->e;
    struct host_mem m = mem_field(&b->t->c->cpu.s.fpu.zmm[n]);
    unsigned opcode = load ? 0x10 : 0x11, r = n >> 3 & 1, r2 = n >> 4;

    if (bytes == LEGACY_BYTES) {
        emit_rm(e, false, 0x0f00 | opcode, n, m);
        return;
    }
    if (bytes == 32) {
        put8(e, 0xc5);
        put8(e, 0x7c | !r << 7);
    } else {
        put8(e, 0x62);
        put8(e, 0x61 | !r << 7 | !r2 << 4);
        put8(e, 0x7c);
        put8(e, 0x48);
    }
    put8(e, opcode);
    put_modrm_mem(e, n, &m);
}

void vectors_write_back(struct tr_builder *b, const struct vector_state *state)
{
    for (unsigned n = 0; n < 32; n++)
        if (state->dirty[n])
            move_vector(b, false, n, state->dirty[n]);
}

void vectors_load(struct tr_builder *b, const struct vector_state *wanted,
                  const struct vector_state *have)
{
    for (unsigned n = 0; n < 32; n++)
        if (wanted->valid[n] > (have ? have->valid[n] : 0))
            move_vector(b, true, n, wanted->valid[n]);
}

bool vectors_any_dirty(const struct vector_state *state)
{
    for (unsigned n = 0; n < 32; n++)
        if (state->dirty[n])
            return true;
    return false;
}

static void need(struct tr_builder *b, unsigned n, unsigned bytes)
{
    struct vector_state *v = &b->vectors;

    if (v->valid[n] >= bytes)
        return;
    if (v->dirty[n]) {
        move_vector(b, false, n, v->dirty[n]);
        v->dirty[n] = 0;
    }
    move_vector(b, true, n, bytes);
    v->valid[n] = (uint8_t)bytes;
}

static void mark_written(struct vector_state *v, unsigned n, const struct stub_plan *plan)
{
    unsigned bytes = plan->legacy ? LEGACY_BYTES : plan->store_bytes;

    if (v->dirty[n] < bytes)
        v->dirty[n] = (uint8_t)bytes;
    if (v->valid[n] < bytes)
        v->valid[n] = (uint8_t)bytes;
}

/* Legacy SSE of a 16-byte access must not see more than it has loaded. */
static unsigned read_bytes(const struct stub_plan *plan)
{
    return plan->legacy ? LEGACY_BYTES : plan->load_bytes;
}

/* General register operands; false if there are more than the scratch registers can hold. */
static bool place_registers(struct tr_builder *b, const struct tr_insn *ti, struct rewrite *r,
                            int *out_spilled)
{
    *out_spilled = NO_REG;
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const ZydisDecodedOperand *o = &ti->insn.operands[n];
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

/* Opmask registers are always in memory between instructions: KMOVQ. */
static void move_masks(struct tr_builder *b, bool load, unsigned set)
{
    for (unsigned n = 0; n < 8; n++)
        if (set >> n & 1) {
            struct host_mem m = mem_field(&b->t->c->cpu.s.fpu.k[n]);

            put_bytes(b->e, "\xc4\xe1\xf8", 3);
            put8(b->e, load ? 0x90 : 0x91);
            put_modrm_mem(b->e, n, &m);
        }
}

bool emit_vector(struct tr_builder *b, struct tr_insn *ti)
{
    const struct stub_plan *plan = &ti->plan;
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    struct place place = {0};
    int spilled;

    for (unsigned n = 0; n < 32; n++)
        if (plan->vector_read >> n & 1)
            need(b, n, read_bytes(plan));
    if (ti->memory) {
        place = emit_access(b, ti, &ti->access[0], plan->align_mask, false);
        r.base = place.base;
        r.disp = place.disp;
    }
    flags_for(b, ti);
    move_masks(b, true, plan->k_read);
    if (!place_registers(b, ti, &r, &spilled) || !rewrite_insn(b->e, &ti->insn, &r))
        return false;
    if (spilled != NO_REG)
        emit_store(b->e, guest_slot(b, spilled), TR_S1);
    move_masks(b, false, plan->k_write);
    for (unsigned n = 0; n < 32; n++)
        if (plan->vector_write >> n & 1)
            mark_written(&b->vectors, n, plan);
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

/* What FSTENV and FSAVE show of the last instruction. R11 is the address of the operand. */
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

bool emit_x87(struct tr_builder *b, struct tr_insn *ti)
{
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG, .memory = ti->memory};
    const ZydisDecodedOperand *m = ti->memory;
    struct host_mem blocked = mem_field(&b->t->c->fpu_blocked);
    struct place place = {0};
    struct cold *cold;

    /* FS and GS: the pointer is the offset in the segment, and R11 is not. */
    if (m && (m->mem.segment == ZYDIS_REGISTER_FS || m->mem.segment == ZYDIS_REGISTER_GS))
        return false;
    if (ti->flags_live)
        flags_save(b);
    blocked.immediate_bytes = 1;
    emit_rm(b->e, false, 0xf6, 0, blocked); /* test byte [fpu_blocked], FPU_X87 */
    put8(b->e, FPU_X87);
    cold = cold_new(b, COLD_STEP, emit_jcc(b->e, CC_NE));
    cold->op = insn_op(b, ti);
    if (m) {
        place = emit_access(b, ti, &ti->access[0], 0, true);
        r.base = place.base;
    }
    flags_for(b, ti);
    remember_x87(b, ti);
    if (!rewrite_insn(b->e, &ti->insn, &r))
        return false;
    finish_access(b, &place);
    finish_cold(b, cold);
    return true;
}

void vectors_plan_loop(struct tr_builder *b)
{
    bool jumps_back = false, any = false;

    memset(&b->at_hot, 0, sizeof(b->at_hot));
    for (unsigned k = 0; k < b->count; k++) {
        const struct tr_insn *ti = &b->insns[k];

        jumps_back |= (ti->kind == TR_JCC || ti->kind == TR_JMP) && ti->target == b->block->rip;
        if (ti->kind != TR_VECTOR)
            continue;
        any = true;
        for (unsigned n = 0; n < 32; n++) {
            if (ti->plan.vector_read >> n & 1 && b->at_hot.valid[n] < read_bytes(&ti->plan))
                b->at_hot.valid[n] = (uint8_t)read_bytes(&ti->plan);
            if (ti->plan.vector_write >> n & 1)
                mark_written(&b->at_hot, n, &ti->plan);
        }
    }
    b->vector_loop = jumps_back && any && !b->plain;
    if (!b->vector_loop)
        memset(&b->at_hot, 0, sizeof(b->at_hot));
}
