/*
 * thunks.c - how generated code is entered and left
 *
 * Made once, by the first vCPU. Generated code has the
 * guest's RSP in the host's: thunks are jumped to, and take the host's stack pointer for what they
 * call.
 */
#include "engine/translator/translator.h"

static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static struct host_mem guest_field(const struct translator *t, unsigned guest)
{
    return mem_field(&t->c->cpu.s.gpr[guest]);
}

void emit_save_flags(struct translator *t, struct emit *e)
{
    struct host_mem m = mem_field(&t->flags);

    emit_mov(e, TR_S1, RAX);
    put8(e, 0x9f);                   /* lahf */
    put_bytes(e, "\x0f\x90\xc0", 3); /* seto al */
    put8(e, 0x66);                   /* mov [flags], ax */
    emit_rm(e, false, 0x89, RAX, m);
    emit_mov(e, RAX, TR_S1);
}

static void load_flags(struct translator *t, struct emit *e)
{
    emit_rm(e, false, 0x0fb7, RAX, mem_field(&t->flags)); /* movzx eax, word */
    put_bytes(e, "\x04\x7f", 2);                          /* add al, 0x7f: OF if AL was 1 */
    put8(e, 0x9e);                                        /* sahf */
}

void emit_restore_flags(struct translator *t, struct emit *e)
{
    emit_mov(e, TR_S1, RAX);
    load_flags(t, e);
    emit_mov(e, RAX, TR_S1);
}

static void store_guest(struct translator *t, struct emit *e)
{
    for (unsigned reg = RAX; reg <= R15; reg++)
        if (!is_spilled((int)reg))
            emit_store(e, guest_field(t, reg), reg);
}

/* Flags, which pass through RAX, and registers. */
static void load_guest(struct translator *t, struct emit *e)
{
    load_flags(t, e);
    for (unsigned reg = RAX; reg <= R15; reg++)
        if (!is_spilled((int)reg))
            emit_load(e, reg, guest_field(t, reg));
}

/* Moves of a whole register at a width: MOVUPS, VMOVUPS ymm, VMOVUPS zmm. */
static void move_vector(struct translator *t, bool load, unsigned n, unsigned bytes)
{
    struct emit *e = &t->cache->emit;
    struct host_mem m = mem_field(&t->c->cpu.s.fpu.zmm[n]);
    unsigned opcode = load ? 0x10 : 0x11, r = n >> 3 & 1, r2 = n >> 4;

    if (bytes == 16) {
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

/* KMOVQ. */
static void move_mask(struct translator *t, bool load, unsigned n)
{
    struct host_mem m = mem_field(&t->c->cpu.s.fpu.k[n]);

    put_bytes(&t->cache->emit, "\xc4\xe1\xf8", 3);
    put8(&t->cache->emit, load ? 0x90 : 0x91);
    put_modrm_mem(&t->cache->emit, n, &m);
}

static void move_vectors(struct translator *t, bool load, enum vector_level level)
{
    unsigned count = level == VECTORS_AVX512 ? 32 : 16;

    for (unsigned n = 0; n < count; n++)
        move_vector(t, load, n, level == VECTORS_SSE ? 16 : t->c->vector_bytes);
    for (unsigned n = 0; n < 8 && level == VECTORS_AVX512; n++)
        move_mask(t, load, n);
    if (!load && level > VECTORS_SSE)
        put_bytes(&t->cache->emit, "\xc5\xf8\x77", 3); /* vzeroupper: what comes may be SSE code */
}

static enum vector_level highest_level(const struct translator *t)
{
    return t->c->vector_bytes == 64   ? VECTORS_AVX512
           : t->c->vector_bytes == 32 ? VECTORS_AVX
                                      : VECTORS_SSE;
}

static void store_level(struct translator *t, enum vector_level level)
{
    struct host_mem m = mem_field(&t->vector_level);

    m.immediate_bytes = 4;
    emit_rm(&t->cache->emit, false, 0xc7, 0, m);
    put32(&t->cache->emit, level);
}

static void take_host_stack(struct translator *t, struct emit *e)
{
    emit_load(e, RSP, mem_field(&t->host_rsp));
}

static void put_back(struct translator *t, struct emit *e)
{
    emit_rm(e, false, 0xff, 4, mem_field(&t->back)); /* jmp */
}

/* Returns the function that lets the level sink to none. */
static const uint8_t *make_vectors(struct translator *t, struct emit *e)
{
    const uint8_t *save = emit_address(e);
    uint8_t *to_level[VECTOR_LEVELS];

    for (enum vector_level level = VECTORS_SSE; level <= highest_level(t); level++) {
        emit_cmp_field(e, &t->vector_level, level);
        to_level[level] = emit_jcc(e, CC_E);
    }
    put8(e, 0xc3);
    for (enum vector_level level = VECTORS_SSE; level <= highest_level(t); level++) {
        emit_aim(e, to_level[level], emit_address(e));
        move_vectors(t, false, level);
        store_level(t, VECTORS_NONE);
        put8(e, 0xc3);
    }
    for (enum vector_level level = VECTORS_SSE; level <= highest_level(t); level++) {
        t->cache->raise_vectors[level] = emit_address(e);
        emit_store(e, guest_field(t, RSP), RSP);
        take_host_stack(t, e);
        emit_call(e, save);
        emit_load(e, RSP, guest_field(t, RSP));
        t->cache->load_vectors[level] = emit_address(e);
        move_vectors(t, true, level);
        store_level(t, level);
        put_back(t, e);
    }
    return save;
}

static void move_stack(struct emit *e, int32_t bytes)
{
    emit_lea(e, true, RSP, mem_base(RSP, bytes));
}

/* int enter(const uint8_t *code) */
static void make_enter(struct translator *t, struct emit *e)
{
    t->cache->enter = emit_address(e);
    for (unsigned n = 0; n < sizeof(callee_saved); n++) {
        if (callee_saved[n] >= 8)
            put8(e, 0x41);
        put8(e, 0x50 | (callee_saved[n] & 7)); /* push */
    }
    move_stack(e, -8); /* calls from here find the stack aligned */
    emit_store(e, mem_field(&t->host_rsp), RSP);
    emit_mov(e, TR_S0, RDI);
    load_guest(t, e);
    emit_rr(e, false, 0xff, 4, TR_S0); /* jmp */
}

/* Back to enter's caller. */
static void put_return(struct emit *e, uint32_t result)
{
    move_stack(e, 8);
    for (unsigned n = sizeof(callee_saved); n-- > 0;) {
        if (callee_saved[n] >= 8)
            put8(e, 0x41);
        put8(e, 0x58 | (callee_saved[n] & 7)); /* pop */
    }
    emit_constant(e, RAX, result);
    put8(e, 0xc3);
}

static void make_exit(struct translator *t, struct emit *e, const uint8_t *save_vectors)
{
    t->cache->exit_indirect_saved = emit_address(e);
    emit_rm(e, false, 0x89, TR_S2, mem_field(&t->site));
    t->cache->exit_saved = emit_address(e);
    emit_store(e, mem_field(&t->c->cpu.s.rip), TR_S0);
    store_guest(t, e);
    take_host_stack(t, e);
    emit_call(e, save_vectors);
    put_return(e, 0);
    t->cache->exit_indirect = emit_address(e);
    emit_save_flags(t, e);
    emit_jmp_to(e, t->cache->exit_indirect_saved);
    t->cache->exit_link = emit_address(e);
    emit_rm(e, false, 0x89, TR_S1, mem_field(&t->link));
    t->cache->exit = emit_address(e);
    emit_save_flags(t, e);
    emit_jmp_to(e, t->cache->exit_saved);
    t->cache->exit_link_saved = emit_address(e);
    emit_rm(e, false, 0x89, TR_S1, mem_field(&t->link));
    emit_jmp_to(e, t->cache->exit_saved);
}

static void make_step(struct translator *t, struct emit *e, const uint8_t *save_vectors)
{
    uint8_t *leave;

    t->cache->step = emit_address(e);
    emit_save_flags(t, e);
    t->cache->step_saved = emit_address(e);
    emit_store(e, mem_field(&t->back), TR_S0);
    store_guest(t, e);
    take_host_stack(t, e);
    emit_call(e, save_vectors);
    emit_load(e, RDI, mem_field(&t->c));
    emit_mov(e, RSI, TR_S2);
    emit_constant(e, RAX, (uintptr_t)translator_step);
    put_bytes(e, "\xff\xd0", 2); /* call rax */
    put_bytes(e, "\x85\xc0", 2); /* test eax, eax */
    leave = emit_jcc(e, CC_NE);
    load_guest(t, e);
    put_back(t, e);
    emit_aim(e, leave, emit_address(e));
    put_return(e, 1);
}

/* TR_S2 = the tag, which TR_S1 leads to; condition A if it is not that of the page of TR_S0. */
static void load_tag(struct emit *e, const uint64_t *tag)
{
    emit_load(e, TR_S2, mem_tlb(e, tag));
    emit_mov(e, RAX, TR_S2);
    emit_rr(e, true, 0x33, RAX, TR_S0); /* xor */
    emit_alu_imm(e, true, ALU_CMP, RAX, 0xfff);
}

static void store_near(struct emit *e, size_t field)
{
    emit_store(e, mem_by_gs(RBX, NO_REG, 0, (int32_t)field), TR_S2);
}

static void make_find_near(struct translator *t, struct emit *e)
{
    const struct tlb_entry *tlb = t->c->tlbs[TLB_USER];
    struct host_mem used = mem_field(&t->c->near_used);
    uint8_t *leave;

    used.immediate_bytes = 1;
    t->cache->find_near = emit_address(e);
    emit_store(e, guest_field(t, RAX), RAX);
    emit_store(e, guest_field(t, RBX), RBX);
    emit_mov(e, RBX, TR_S2);
    emit_hash(e, TR_S0, TR_S2);
    load_tag(e, &tlb->read);
    leave = emit_jcc(e, CC_A);
    store_near(e, offsetof(struct near_page, read));
    load_tag(e, &tlb->write);
    emit_rm(e, true, 0x0f47, TR_S2, mem_field(&t->c->no_page)); /* cmova */
    store_near(e, offsetof(struct near_page, write));
    emit_load(e, TR_S2, mem_tlb(e, &tlb->addend));
    store_near(e, offsetof(struct near_page, addend));
    emit_rm(e, false, 0xc6, 0, used); /* mov */
    put8(e, 1);
    emit_aim(e, leave, emit_address(e));
    emit_load(e, RAX, guest_field(t, RAX));
    emit_load(e, RBX, guest_field(t, RBX));
    put_back(t, e);
}

void translator_make_thunks(struct translator *t)
{
    struct emit *e = &t->cache->emit;
    const uint8_t *save_vectors = make_vectors(t, e);

    make_enter(t, e);
    make_exit(t, e, save_vectors);
    make_step(t, e, save_vectors);
    make_find_near(t, e);
}
