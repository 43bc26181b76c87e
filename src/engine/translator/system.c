/*
 * system.c - SYSCALL, SYSRET and POPF of 64-bit code, RDTSC, control registers, FS and GS, PKRU
 *
 * SYSCALL and SYSRET as x86/syscall.c does them, where nothing is unusual: what may fault, trap,
 * let an interrupt in or check alignment is a step of the interpreter's op. What it derives from
 * the privilege (refresh_code() and refresh_tlb_kind() of interpreter/run.c) is constants here.
 */
#include "engine/translator/builder.h"
#include "trapeze/clock.h"
#include "trapeze/machine.h"

#define SYSRET_FLAGS 0x3c7fd7u /* bits of R11 that SYSRET loads */

static struct host_mem field_with_immediate(const void *field, unsigned bytes)
{
    struct host_mem m = mem_field(field);

    m.immediate_bytes = bytes;
    return m;
}

static void store_field(struct tr_builder *b, const void *field, uint32_t value)
{
    emit_rm(b->e, false, 0xc7, 0, field_with_immediate(field, 4));
    put32(b->e, value);
}

static void test_field(struct tr_builder *b, const void *field, uint32_t bits)
{
    emit_rm(b->e, false, 0xf7, 0, field_with_immediate(field, 4));
    put32(b->e, bits);
}

/* CMP: equal if the address in reg is canonical. TR_S1 is lost. */
static void emit_canonical(struct tr_builder *b, unsigned reg)
{
    emit_mov(b->e, TR_S1, reg);
    emit_rr(b->e, true, 0xc1, 4, TR_S1); /* shl */
    put8(b->e, 16);
    emit_rr(b->e, true, 0xc1, 7, TR_S1); /* sar */
    put8(b->e, 16);
    emit_rr(b->e, true, 0x3b, TR_S1, reg); /* cmp */
}

/* A flat segment whose selector is in reg; the rest of reg is lost. */
static void emit_flat_segment(struct tr_builder *b, enum x86_segment_index index, unsigned reg,
                              unsigned attributes)
{
    struct x86_segment *seg = &b->t->c->cpu.s.seg[index];

    _Static_assert(offsetof(struct x86_segment, attributes) ==
                       offsetof(struct x86_segment, selector) + 2,
                   "one store for both");
    emit_rr(b->e, false, 0x0fb7, reg, reg); /* movzx: 16 bits */
    emit_alu_imm(b->e, false, ALU_OR, reg, (int32_t)(attributes << 16));
    emit_rm(b->e, false, 0x89, reg, mem_field(&seg->selector));
    emit_store_imm(b->e, &seg->base, 0);
    store_field(b, &seg->limit, 0xffffffff);
}

/* CS and SS with the selectors in TR_S0 and TR_S1, which are lost, and what follows from them. */
static void emit_flat_code(struct tr_builder *b, bool user)
{
    const unsigned common = X86_SEG_P | X86_SEG_S | X86_SEG_G | X86_SEG_ACCESSED |
                            (user ? 3u : 0u) << X86_SEG_DPL_SHIFT;
    const unsigned mode_key = X86_CODE_64 | MODE_FLAT | MODE_FLAT_DATA | (user ? MODE_USER : 0);
    const enum tlb_kind kind = user ? TLB_USER : TLB_KERNEL;
    struct icpu *c = b->t->c;

    emit_flat_segment(b, X86_CS, TR_S0, common | X86_SEG_CODE | X86_SEG_READABLE | X86_SEG_L);
    emit_flat_segment(b, X86_SS, TR_S1, common | X86_SEG_WRITABLE | X86_SEG_DB);
    emit_rm(b->e, false, 0xc6, 0, field_with_immediate(&c->cpu.cpl, 1));
    put8(b->e, user ? 3 : 0);
    store_field(b, &c->mode_key, mode_key);
    emit_constant(b->e, TR_S0, (uint64_t)mode_key << MODE_SHIFT);
    emit_store(b->e, mem_field(&c->jump_tag), TR_S0);
    store_field(b, &c->tlb_kind, kind);
    emit_load(b->e, TR_S0, mem_field(&c->tlb_of[kind]));
    emit_store(b->e, mem_field(&c->tlb), TR_S0);
}

/* t->flags from EFLAGS in reg, which is lost, as TR_S2 is. */
static void emit_flags_word(struct tr_builder *b, unsigned reg)
{
    struct emit *e = b->e;

    emit_rr(e, false, 0x8b, TR_S2, reg);
    emit_rr(e, false, 0xc1, 5, TR_S2); /* shr */
    put8(e, 11);
    emit_alu_imm(e, false, ALU_AND, TR_S2, 1); /* OF */
    emit_alu_imm(e, false, ALU_AND, reg, STATUS_FLAGS & 0xff);
    emit_rr(e, false, 0xc1, 4, reg); /* shl */
    put8(e, 8);
    emit_lea(e, false, TR_S2, mem_index(TR_S2, (int)reg, 0, 0x200));
    put8(e, 0x66);
    emit_rm(e, false, 0x89, TR_S2, mem_field(&b->t->flags));
    b->flags_saved = true;
}

struct cold *step_if_event(struct tr_builder *b, struct tr_insn *ti)
{
    emit_load(b->e, TR_S2, mem_field(&b->t->c->vcpu));
    emit_rm(b->e, false, 0x83, ALU_CMP, mem_base(TR_S2, offsetof(struct vcpu, events)));
    put8(b->e, 0);
    return step_if(b, ti, CC_NE);
}

static void test_flags(struct tr_builder *b, unsigned reg, uint32_t flags)
{
    emit_rr(b->e, false, 0xf7, 0, reg);
    put32(b->e, flags);
}

/* In ring 0. AC is left to the interpreter if it changes, as it may lift SMAP. */
bool emit_popf(struct tr_builder *b, struct tr_insn *ti)
{
    const uint32_t loaded = STATUS_FLAGS | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_IOPL |
                            X86_FLAG_NT | X86_FLAG_AC | X86_FLAG_ID;
    struct emit *e = b->e;
    struct host_mem flags = mem_field(&b->t->c->cpu.s.rflags);
    struct place p = emit_stack_access(b, ti);
    struct cold *colds[3];
    uint8_t *off;

    emit_load(e, TR_S1, place_mem(&p));
    emit_load(e, TR_S0, flags);
    test_flags(b, TR_S1, X86_FLAG_TF);
    colds[0] = step_if(b, ti, CC_NE);
    emit_mov(e, TR_S2, TR_S1);
    emit_rr(e, false, 0x33, TR_S2, TR_S0); /* xor */
    test_flags(b, TR_S2, X86_FLAG_AC);
    colds[1] = step_if(b, ti, CC_NE);
    test_flags(b, TR_S1, X86_FLAG_IF);
    off = emit_jcc(e, CC_E);
    colds[2] = step_if_event(b, ti);
    emit_aim(e, off, emit_address(e));
    emit_alu_imm(e, false, ALU_AND, TR_S0, (int32_t)~loaded);
    emit_alu_imm(e, false, ALU_AND, TR_S1, (int32_t)loaded);
    emit_rr(e, false, 0x0b, TR_S0, TR_S1); /* or */
    emit_store(e, flags, TR_S0);
    emit_flags_word(b, TR_S1);
    move_rsp(b, (int32_t)b->word);
    finish_access(b, &p);
    for (unsigned n = 0; n < 3; n++)
        finish_cold(b, colds[n]);
    return true;
}

bool emit_syscall(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    struct x86_state *s = &b->t->c->cpu.s;
    struct cold *colds[2];

    translator_make_jumps(b->cache, tr_mode(TLB_KERNEL, false));
    flags_save(b);
    test_field(b, &s->msr.efer, X86_EFER_SCE);
    colds[0] = step_if(b, ti, CC_E);
    emit_status_flags(b);
    emit_rm(e, false, 0x8b, TR_S0, mem_field(&s->rflags));
    emit_alu_imm(e, false, ALU_AND, TR_S0, (int32_t) ~(uint32_t)(STATUS_FLAGS | X86_FLAG_RF));
    emit_rr(e, false, 0x0b, TR_S1, TR_S0); /* or */
    emit_rm(e, false, 0x8b, TR_S0, mem_field(&s->msr.sfmask));
    emit_andn(e, TR_S0, TR_S0, TR_S1);
    test_flags(b, TR_S0, X86_FLAG_AC); /* SMAP may be lifted */
    colds[1] = step_if(b, ti, CC_NE);
    emit_store(e, mem_field(&s->gpr[X86_R11]), TR_S1);
    emit_alu_imm(e, false, ALU_OR, TR_S0, X86_FLAG_FIXED);
    emit_store(e, mem_field(&s->rflags), TR_S0);
    emit_flags_word(b, TR_S0);
    emit_constant(e, RCX, next_rip(b, ti));
    emit_rm(e, false, 0x0fb7, TR_S0, mem_field((uint8_t *)&s->msr.star + 4));
    emit_lea(e, false, TR_S1, mem_base(TR_S0, 8));
    emit_alu_imm(e, false, ALU_AND, TR_S0, 0xfffc);
    emit_flat_code(b, false);
    emit_load(e, TR_S0, mem_field(&s->msr.lstar));
    emit_indirect_mode(b, ti, tr_mode(TLB_KERNEL, false));
    finish_cold(b, colds[0]);
    finish_cold(b, colds[1]);
    return true;
}

/* IF may let in what has been announced before, so nothing may be. */
bool emit_sysret(struct tr_builder *b, struct tr_insn *ti)
{
    struct emit *e = b->e;
    struct x86_state *s = &b->t->c->cpu.s;
    struct cold *colds[4];

    translator_make_jumps(b->cache, tr_mode(TLB_USER, false));
    guard_flags(b, ti);
    test_field(b, &s->msr.efer, X86_EFER_SCE);
    colds[0] = step_if(b, ti, CC_E);
    emit_canonical(b, RCX);
    colds[1] = step_if(b, ti, CC_NE);
    colds[2] = step_if_event(b, ti);
    emit_rm(e, false, 0x8b, TR_S1, mem_field(&s->gpr[X86_R11]));
    test_flags(b, TR_S1, X86_FLAG_TF | X86_FLAG_AC); /* a trap behind it, alignment checks */
    colds[3] = step_if(b, ti, CC_NE);
    emit_alu_imm(e, false, ALU_AND, TR_S1, SYSRET_FLAGS);
    emit_alu_imm(e, false, ALU_OR, TR_S1, X86_FLAG_FIXED);
    emit_store(e, mem_field(&s->rflags), TR_S1);
    emit_flags_word(b, TR_S1);
    emit_rm(e, false, 0x0fb7, TR_S1, mem_field((uint8_t *)&s->msr.star + 6));
    emit_lea(e, false, TR_S0, mem_base(TR_S1, 16));
    emit_lea(e, false, TR_S1, mem_base(TR_S1, 8));
    emit_alu_imm(e, false, ALU_OR, TR_S0, 3);
    emit_alu_imm(e, false, ALU_OR, TR_S1, 3);
    emit_flat_code(b, true);
    emit_mov(e, TR_S0, RCX);
    emit_indirect_mode(b, ti, tr_mode(TLB_USER, false));
    for (unsigned n = 0; n < 4; n++)
        finish_cold(b, colds[n]);
    return true;
}

/* RDTSCP of the host, because what came before is to have been done. */
bool emit_rdtsc(struct tr_builder *b, struct tr_insn *ti)
{
    const int32_t base = offsetof(struct clock_line, sequence);
    const struct clock_line *line = clocks_line(machine_clocks(b->t->c->interpreter->machine));
    struct x86_state *s = &b->t->c->cpu.s;
    struct emit *e = b->e;
    struct cold *colds[4];
    unsigned count = 0;

    guard_flags(b, ti);
    if (b->page->kind == TLB_USER || b->page->kind == TLB_SLOW) {
        test_field(b, &s->cr4, X86_CR4_TSD);
        colds[count++] = step_if(b, ti, CC_NE);
    }
    emit_constant(e, TR_S0, (uintptr_t)line);
    emit_load(e, TR_S1, mem_base(TR_S0, base));
    emit_rr(e, false, 0xf7, 0, TR_S1); /* test: odd? */
    put32(e, 1);
    colds[count++] = step_if(b, ti, CC_NE);
    emit_mov(e, TR_S2, RCX);
    put_bytes(e, "\x0f\x01\xf9", 3); /* rdtscp */
    emit_mov(e, RCX, TR_S2);
    emit_rr(e, true, 0xc1, 4, RDX); /* shl */
    put8(e, 32);
    emit_rr(e, true, 0x0b, RAX, RDX); /* or */
    emit_rm(e, true, 0x2b, RAX, mem_base(TR_S0, offsetof(struct clock_line, start_ticks)));
    emit_rm(e, true, 0x3b, RAX, mem_base(TR_S0, offsetof(struct clock_line, ticks)));
    colds[count++] = step_if(b, ti, CC_AE);
    emit_rm(e, true, 0x0faf, RAX, mem_base(TR_S0, offsetof(struct clock_line, rate))); /* imul */
    emit_rr(e, true, 0xc1, 5, RAX);                                                    /* shr */
    put8(e, 32);
    emit_rm(e, true, 0x03, RAX, mem_base(TR_S0, offsetof(struct clock_line, start_ns)));
    emit_rm(e, true, 0x3b, TR_S1, mem_base(TR_S0, base)); /* the same line still? */
    colds[count++] = step_if(b, ti, CC_NE);
    emit_rm(e, true, 0x03, RAX, mem_field(&s->msr.tsc_offset));
    emit_mov(e, RDX, RAX);
    emit_rr(e, true, 0xc1, 5, RDX);
    put8(e, 32);
    emit_rr(e, false, 0x8b, RAX, RAX); /* mov: 32 bits */
    if (ti->insn.info.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        emit_rm(e, false, 0x8b, RCX, mem_field(&s->msr.tsc_aux));
    while (count--)
        finish_cold(b, colds[count]);
    return true;
}

/* General register guest = what is at field, of 32 or 64 bits. */
static void emit_field_to_guest(struct tr_builder *b, int guest, const void *field, bool wide)
{
    unsigned to = is_spilled(guest) ? TR_S1 : (unsigned)guest;

    emit_rm(b->e, wide, 0x8b, to, mem_field(field));
    if (is_spilled(guest))
        emit_store(b->e, guest_slot(b, guest), to);
}

bool emit_read_cr(struct tr_builder *b, struct tr_insn *ti)
{
    const struct x86_state *s = &b->t->c->cpu.s;
    const uint64_t *const registers[] = {&s->cr0, NULL, &s->cr2, &s->cr3, &s->cr4};
    unsigned n = ti->insn.operands[1].reg.value - ZYDIS_REGISTER_CR0;

    emit_field_to_guest(b, gpr_of(ti->insn.operands[0].reg.value), registers[n], !b->is_32bit);
    return true;
}

bool emit_fsgsbase(struct tr_builder *b, struct tr_insn *ti)
{
    const ZydisMnemonic mnemonic = ti->insn.info.mnemonic;
    bool of_fs = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
    bool reads = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_RDGSBASE;
    bool wide = ti->insn.info.operand_width == 64;
    int guest = gpr_of(ti->insn.operands[0].reg.value);
    struct x86_state *s = &b->t->c->cpu.s;
    uint64_t *base = &s->seg[of_fs ? X86_FS : X86_GS].base;
    struct emit *e = b->e;
    struct cold *colds[2];
    unsigned count = 0;

    guard_flags(b, ti);
    test_field(b, &s->cr4, X86_CR4_FSGSBASE);
    colds[count++] = step_if(b, ti, CC_E);
    if (reads) {
        emit_field_to_guest(b, guest, base, wide);
    } else {
        emit_rr(e, wide, 0x8b, TR_S0, guest_value(b, guest, TR_S0)); /* mov */
        if (wide) {
            emit_canonical(b, TR_S0);
            colds[count++] = step_if(b, ti, CC_NE);
        }
        emit_store(e, mem_field(base), TR_S0);
    }
    while (count--)
        finish_cold(b, colds[count]);
    return true;
}

bool emit_rdpkru(struct tr_builder *b, struct tr_insn *ti)
{
    struct x86_state *s = &b->t->c->cpu.s;
    struct cold *colds[2];

    guard_flags(b, ti);
    test_field(b, &s->cr4, X86_CR4_PKE);
    colds[0] = step_if(b, ti, CC_E);
    emit_rr(b->e, false, 0x85, RCX, RCX); /* test */
    colds[1] = step_if(b, ti, CC_NE);
    emit_rm(b->e, false, 0x8b, RAX, mem_field(&s->fpu.pkru));
    emit_constant(b->e, RDX, 0);
    finish_cold(b, colds[0]);
    finish_cold(b, colds[1]);
    return true;
}
