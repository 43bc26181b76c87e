/*
 * strings.c - host code for string instructions
 *
 * Upwards; what goes downwards is the interpreter's, and so is every access that the TLB does not
 * answer at once.
 */
#include "engine/translator/builder.h"

/* Off to the interpreter if DF is set. */
static struct cold *step_backwards(struct tr_builder *b, struct tr_insn *ti)
{
    struct host_mem eflags = mem_field(&b->t->c->cpu.s.rflags);

    guard_flags(b, ti);
    eflags.immediate_bytes = 4;
    emit_rm(b->e, false, 0xf7, 0, eflags); /* test */
    put32(b->e, X86_FLAG_DF);
    return step_if(b, ti, CC_NE);
}

/* ---- one element ---- */

/* opcode (that of bytes, and the next one of words) with RAX or a scratch register. */
static void emit_element(struct tr_builder *b, const struct tr_insn *ti, unsigned opcode,
                         unsigned reg, struct host_mem m)
{
    unsigned width = ti->insn.info.operand_width;

    if (width == 16)
        put8(b->e, 0x66);
    emit_rm(b->e, width == 64, opcode | (width != 8), reg, m);
}

/* [TR_S0 + TR_S2] = the element that guest_index points to. */
static struct cold *look_up_element(struct tr_builder *b, struct tr_insn *ti, unsigned guest_index,
                                    bool write)
{
    emit_mov_word(b, TR_S0, guest_index);
    return emit_lookup(b, ti, ti->insn.info.operand_width / 8, write, 0);
}

static void advance(struct tr_builder *b, const struct tr_insn *ti, unsigned guest_index)
{
    emit_lea_word(b, guest_index, mem_base((int)guest_index, ti->insn.info.operand_width / 8));
}

/*
 * Nothing changes before the last look-up. The first element of two waits in memory for the second;
 * REX in emit_rm is what makes it the lowest byte of a scratch register.
 */
bool emit_string(struct tr_builder *b, struct tr_insn *ti)
{
    const struct host_mem element = mem_index(TR_S0, TR_S2, 0, 0), kept = mem_field(&b->t->target);
    struct cold *colds[3] = {step_backwards(b, ti)};
    enum string_insn kind = string_of(&ti->insn);
    bool reads_si = kind == STRING_MOVS || kind == STRING_LODS || kind == STRING_CMPS;
    unsigned count = 1;

    if (reads_si) {
        colds[count++] = look_up_element(b, ti, RSI, false);
        emit_element(b, ti, 0x8a, kind == STRING_LODS ? RAX : TR_S1, element);
    }
    if (kind != STRING_LODS) {
        if (reads_si)
            emit_store(b->e, kept, TR_S1);
        colds[count++] = look_up_element(b, ti, RDI, kind == STRING_MOVS || kind == STRING_STOS);
        if (reads_si)
            emit_load(b->e, TR_S1, kept);
        emit_element(b, ti, kind == STRING_MOVS || kind == STRING_STOS ? 0x88 : 0x3a,
                     reads_si ? TR_S1 : RAX, element); /* mov, cmp */
        advance(b, ti, RDI);
    }
    if (reads_si)
        advance(b, ti, RSI);
    if (kind == STRING_SCAS || kind == STRING_CMPS)
        b->flags_saved = false;
    while (count--)
        finish_cold(b, colds[count]);
    return true;
}

/* ---- as many as fit into a page ---- */

/* Nothing is left above what 32-bit code sees of the register. */
static void emit_zero_extend(struct tr_builder *b, unsigned reg)
{
    if (b->is_32bit)
        emit_rr(b->e, false, 0x8b, reg, reg); /* mov */
}

/* Off to the interpreter unless RCX elements from the address in reg on lie in its page. */
static struct cold *step_beyond_page(struct tr_builder *b, struct tr_insn *ti, unsigned reg,
                                     unsigned scale)
{
    emit_mov(b->e, TR_S1, reg);
    emit_alu_imm(b->e, false, ALU_AND, TR_S1, 0xfff);
    emit_lea(b->e, false, TR_S1, mem_index(TR_S1, RCX, scale, 0));
    emit_alu_imm(b->e, false, ALU_CMP, TR_S1, 0x1000);
    return step_if(b, ti, CC_A);
}

/* reg = the host's address of the linear address in it; changes the host's flags. */
static void emit_add_addend(struct tr_builder *b, unsigned reg, unsigned addend)
{
    emit_zero_extend(b, reg);
    emit_rr(b->e, true, 0x03, reg, addend);
    emit_rr(b->e, true, 0xf7, 3, addend); /* neg */
}
/* And back: addend is negative by now. The flags are the instruction's. */
static void emit_take_back(struct tr_builder *b, unsigned reg, unsigned addend)
{
    emit_lea_word(b, reg, mem_index((int)reg, (int)addend, 0, 0));
}

/* reg = how many whole elements there are from the address in from to the end of its page. */
static void emit_room(struct tr_builder *b, unsigned reg, unsigned from, unsigned scale)
{
    emit_rr(b->e, false, 0x8b, reg, from); /* mov */
    emit_alu_imm(b->e, false, ALU_OR, reg, -0x1000);
    emit_rr(b->e, false, 0xf7, 3, reg); /* neg: bytes */
    if (!scale)
        return;
    emit_rr(b->e, false, 0xc1, 5, reg); /* shr */
    put8(b->e, scale);
}

/* If the value of other is lower, reg takes it. */
static void emit_lower(struct tr_builder *b, unsigned reg, unsigned other)
{
    emit_rr(b->e, false, 0x3b, reg, other);   /* cmp */
    emit_rr(b->e, false, 0x0f47, reg, other); /* cmova */
}

/*
 * MOVS and STOS: translator.part = how many elements can be done at once. Off to the interpreter if
 * the next one crosses a page; elements of one byte do not.
 */
static unsigned find_part(struct tr_builder *b, struct tr_insn *ti, unsigned scale, bool reads_si,
                          struct cold **colds)
{
    emit_room(b, TR_S1, RDI, scale);
    if (reads_si) {
        emit_room(b, TR_S2, RSI, scale);
        emit_lower(b, TR_S1, TR_S2);
    }
    if (scale) {
        emit_rr(b->e, false, 0x85, TR_S1, TR_S1); /* test */
        colds[0] = step_if(b, ti, CC_E);
    }
    emit_lower(b, TR_S1, RCX);
    emit_store(b->e, mem_field(&b->t->part), TR_S1);
    return scale ? 1 : 0;
}

/* RCX = translator.part, which is what is left then. */
static void take_part(struct tr_builder *b)
{
    const struct host_mem part = mem_field(&b->t->part);

    emit_load(b->e, TR_S1, part);
    emit_rr(b->e, true, 0x2b, RCX, TR_S1); /* sub */
    emit_store(b->e, part, RCX);
    emit_mov(b->e, RCX, TR_S1);
}

/*
 * Upwards the host's instruction does it: MOVS and STOS page by page, CMPS and SCAS within one page
 * (or two). One that is interrupted starts again, so nothing else has to be looked at on the way.
 */
bool emit_rep(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    unsigned scale = (unsigned)__builtin_ctz(ti->insn.info.operand_width / 8);
    enum string_insn kind = string_of(&ti->insn);
    bool reads_si = kind == STRING_MOVS || kind == STRING_CMPS;
    bool by_page = kind == STRING_MOVS || kind == STRING_STOS;
    struct rewrite r = {.reg = NO_REG, .rm = NO_REG, .vvvv = NO_REG};
    struct cold *colds[6] = {NULL};
    const uint8_t *again;
    unsigned count = 0;

    colds[count++] = step_backwards(b, ti);
    emit_alu_imm(e, !b->is_32bit, ALU_CMP, RCX, 0x1000);
    colds[count++] = step_if(b, ti, CC_A);
    again = emit_address(e);
    if (by_page) {
        count += find_part(b, ti, scale, reads_si, &colds[count]);
    } else {
        colds[count++] = step_beyond_page(b, ti, RDI, scale);
        if (reads_si)
            colds[count++] = step_beyond_page(b, ti, RSI, scale);
    }
    emit_mov_word(b, TR_S0, RDI);
    colds[count++] = emit_lookup(b, ti, 1, by_page, 0);
    if (reads_si) {
        emit_store(e, mem_field(&b->t->target), TR_S2);
        emit_mov_word(b, TR_S0, RSI);
        colds[count++] = emit_lookup(b, ti, 1, false, 0);
        emit_mov(e, TR_S0, TR_S2);
        emit_load(e, TR_S2, mem_field(&b->t->target));
        emit_add_addend(b, RSI, TR_S0);
    }
    emit_add_addend(b, RDI, TR_S2);
    emit_zero_extend(b, RCX);
    if (by_page)
        take_part(b);
    flags_for(b, ti); /* with RCX 0 CMPS and SCAS keep them */
    if (!rewrite_insn(e, &ti->insn, &r))
        return false;
    emit_take_back(b, RDI, TR_S2);
    if (reads_si)
        emit_take_back(b, RSI, TR_S0);
    if (by_page) {
        emit_load(e, RCX, mem_field(&b->t->part));
        emit_rr(e, true, 0x85, RCX, RCX); /* test */
        emit_aim(e, emit_jcc(e, CC_NE), again);
    }
    while (count--)
        finish_cold(b, colds[count]);
    return true;
}
