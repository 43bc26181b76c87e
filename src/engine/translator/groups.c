/*
 * groups.c - which memory accesses of a block share one TLB look-up
 *
 * Theory of operation. Each general register is followed through the block as symbol + offset:
 * ADD, SUB, LEA, INC, DEC, PUSH, POP and copies keep the symbol, everything else makes a new one.
 * Accesses whose addresses have the same symbols and lie within GROUP_BYTES of each other form a
 * group. One check covers the range of all of them and leaves in memory where their lowest byte is
 * (translator.pointers); its members only load that. The check sees to the alignment, too.
 *
 * The check stands before its first member, or further up where the status flags are dead, so that
 * they need not be saved. It has no effect of its own. When it fails (a miss, or a range over two
 * pages), the rest of the block, from the instruction it stands before, runs as another block
 * that has only one turn of a loop, or no groups (enum tr_style).
 *
 * Branches within the block: where ways meet, registers that differ are new symbols. A group's
 * check is on all ways to its members: they end where a way meets that left before the check.
 *
 * What a check has found stays true up to the last member: only the interpreter's ops change
 * the TLB, a group does not reach over an instruction that is always executed by one, and
 * translator_step leaves the block if a slow access has changed it (icpu.tlb_epoch).
 */
#include "engine/translator/builder.h"

#define GROUP_BYTES      256
#define LOOP_GROUP_BYTES 512 /* in a loop that is unrolled */

/* ---- registers as symbol and offset ---- */

static unsigned new_symbol(struct tr_builder *b)
{
    return ++b->symbol_count;
}

static void set_new(struct tr_builder *b, struct symbolic regs[16], int guest)
{
    regs[guest] = (struct symbolic){.symbol = new_symbol(b)};
}

/* reg = symbol + offset. An offset of more than 32 bits is not followed; in 32-bit code it wraps.
 */
static void set_sum(struct tr_builder *b, struct symbolic regs[16], int guest, uint32_t symbol,
                    int64_t offset)
{
    regs[guest] = (struct symbolic){symbol, (int32_t)offset};
    if (offset != (int32_t)offset && !b->is_32bit)
        set_new(b, regs, guest);
}

static void add(struct tr_builder *b, struct symbolic regs[16], int guest, int64_t constant)
{
    set_sum(b, regs, guest, regs[guest].symbol, regs[guest].offset + constant);
}

static void set_written(struct tr_builder *b, struct symbolic regs[16], const struct tr_insn *ti)
{
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];
        int guest = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(o->reg.value) : NO_REG;

        if (guest != NO_REG && o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            set_new(b, regs, guest);
    }
}

/* A general register as wide as addresses are. */
static bool is_word_gpr(const struct tr_builder *b, const struct insn_operand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(o->reg.value) != NO_REG &&
           o->size == 8 * b->word;
}

/* reg += constant, or reg = reg: true if ti is such an instruction on all that addresses read. */
static bool follow_copy(struct tr_builder *b, struct symbolic regs[16], const struct tr_insn *ti)
{
    const struct insn_operand *o = ti->insn.operands;
    int to;

    if (!is_word_gpr(b, &o[0]))
        return false;
    to = gpr_of(o[0].reg.value);
    switch (ti->insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_INC:
        add(b, regs, to, 1);
        return true;
    case ZYDIS_MNEMONIC_DEC:
        add(b, regs, to, -1);
        return true;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (o[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return false;
        add(b, regs, to,
            ti->insn.info.mnemonic == ZYDIS_MNEMONIC_ADD ? o[1].imm.value.s : -o[1].imm.value.s);
        return true;
    case ZYDIS_MNEMONIC_MOV:
        if (!is_word_gpr(b, &o[1]))
            return false;
        regs[to] = regs[gpr_of(o[1].reg.value)];
        return true;
    default:
        return false;
    }
}

static bool follow_lea(struct tr_builder *b, struct symbolic regs[16], const struct tr_insn *ti)
{
    const struct insn_operand *m = ti->memory;
    int base = gpr_of(m->mem.base);

    if (!is_word_gpr(b, &ti->insn.operands[0]) || m->mem.index != ZYDIS_REGISTER_NONE ||
        base == NO_REG || ti->insn.info.address_width != 8 * b->word)
        return false;
    set_sum(b, regs, gpr_of(ti->insn.operands[0].reg.value), regs[base].symbol,
            regs[base].offset + m->mem.disp.value);
    return true;
}

/* What the registers are behind ti. */
static void follow(struct tr_builder *b, struct symbolic regs[16], const struct tr_insn *ti)
{
    switch (ti->kind) {
    case TR_FALLBACK:
        for (int guest = 0; guest < 16; guest++)
            set_new(b, regs, guest);
        return;
    case TR_PUSH:
    case TR_PUSHF:
    case TR_CALL:
    case TR_CALL_INDIRECT:
        add(b, regs, RSP, -(int64_t)b->word);
        return;
    case TR_RET:
        add(b, regs, RSP, (int64_t)(b->word + ti->insn.info.raw.imm[0].value.u));
        return;
    case TR_POPF:
        add(b, regs, RSP, b->word);
        return;
    case TR_POP:
        add(b, regs, RSP, b->word);
        set_new(b, regs, gpr_of(ti->insn.operands[0].reg.value));
        return;
    case TR_LEAVE:
        set_sum(b, regs, RSP, regs[RBP].symbol, (int64_t)regs[RBP].offset + b->word);
        set_new(b, regs, RBP);
        return;
    case TR_STRING:
    case TR_REP: /* the decoder does not list what CMPS and SCAS change */
        set_new(b, regs, RCX);
        set_new(b, regs, RSI);
        set_new(b, regs, RDI);
        set_written(b, regs, ti);
        return;
    case TR_COPY:
        if (!follow_copy(b, regs, ti))
            set_written(b, regs, ti);
        return;
    case TR_LEA:
        if (!follow_lea(b, regs, ti))
            set_written(b, regs, ti);
        return;
    default:
        set_written(b, regs, ti);
    }
}

/* ---- accesses ---- */

static struct access *add_access(struct tr_insn *ti, struct symbolic base, int64_t offset,
                                 unsigned size, bool write)
{
    struct access *a = &ti->access[ti->access_count++];

    *a = (struct access){.base = base.symbol,
                         .offset = base.offset + offset,
                         .size = size,
                         .write = write,
                         .group = NO_GROUP};
    return a;
}

static void operand_access(const struct tr_builder *b, const struct symbolic regs[16],
                           struct tr_insn *ti)
{
    const struct insn_operand *m = ti->memory;
    int base = gpr_of(m->mem.base), index = gpr_of(m->mem.index);
    unsigned size =
        ti->kind == TR_VECTOR || ti->kind == TR_X87 ? ti->plan.memory_bytes : m->size / 8u;
    bool write = ti->kind == TR_VECTOR || ti->kind == TR_X87
                     ? ti->plan.is_store
                     : m->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    struct access *a;

    a = add_access(ti, base == NO_REG ? (struct symbolic){0} : regs[base], m->mem.disp.value, size,
                   write);
    a->is_operand = true;
    if (ti->kind == TR_VECTOR)
        a->align_mask = ti->plan.align_mask;
    else if (ti->insn.info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B)
        a->align_mask = 15;
    a->alone = ti->kind == TR_BITS || ti->insn.info.address_width != 8 * b->word ||
               m->mem.segment == ZYDIS_REGISTER_FS || m->mem.segment == ZYDIS_REGISTER_GS;
    if (m->mem.base == ZYDIS_REGISTER_RIP)
        a->offset += (int64_t)(ti->rip + ti->insn.info.length);
    if (index != NO_REG) {
        a->index = regs[index].symbol;
        a->scale = (uint8_t)__builtin_ctz(m->mem.scale);
        a->offset += (int64_t)((uint64_t)(int64_t)regs[index].offset << a->scale);
    }
    /* Only near addresses are compared: the distance of others may be more than 63 bits. */
    if (!a->base && !a->index && !x86_is_canonical((uint64_t)a->offset))
        a->alone = true;
    if (b->is_32bit)
        a->offset = a->base || a->index ? (int32_t)a->offset : (int64_t)(uint32_t)a->offset;
}

static void find_accesses(const struct tr_builder *b, const struct symbolic regs[16],
                          struct tr_insn *ti)
{
    ti->access_count = 0;
    if (ti->memory && ti->kind != TR_LEA && ti->kind != TR_NOTHING && ti->kind != TR_FALLBACK)
        operand_access(b, regs, ti);
    switch (ti->kind) {
    case TR_PUSH:
    case TR_PUSHF:
    case TR_CALL:
    case TR_CALL_INDIRECT:
        add_access(ti, regs[RSP], -(int64_t)b->word, b->word, true);
        break;
    case TR_POP:
    case TR_POPF:
    case TR_RET:
        add_access(ti, regs[RSP], 0, b->word, false);
        break;
    case TR_LEAVE:
        add_access(ti, regs[RBP], 0, b->word, false);
        break;
    default:
        break;
    }
}

/* ---- groups ---- */

/* Takes a into g if it fits. The low end is aligned if all members are as they have to be. */
static bool join(const struct tr_builder *b, struct group *g, const struct access *a)
{
    int64_t most = b->unrolled ? LOOP_GROUP_BYTES : GROUP_BYTES;
    int64_t aligned = a->align_mask > g->align_mask ? a->offset : g->low;
    int64_t low = a->offset < g->low ? a->offset : g->low;
    int64_t high = a->offset + (int64_t)a->size > g->high ? a->offset + (int64_t)a->size : g->high;
    int mask = a->align_mask | g->align_mask;

    low = aligned - ((aligned - low + mask) & ~(int64_t)mask);
    if (a->alone || a->group != NO_GROUP || a->base != g->base || a->index != g->index ||
        a->scale != g->scale || high - low > most ||
        ((a->offset - g->low) & a->align_mask & g->align_mask))
        return false;
    g->low = low;
    g->high = high;
    g->align_mask = (uint8_t)mask;
    g->write |= a->write;
    return true;
}

/* A register that is symbol + something before ti; -1 if there is none. */
static int register_with(const struct tr_insn *ti, unsigned symbol)
{
    for (int guest = 0; guest < 16; guest++)
        if (ti->before[guest].symbol == symbol)
            return guest;
    return -1;
}

static bool reaches(const struct tr_insn *ti, const struct group *g)
{
    return (!g->base || register_with(ti, g->base) >= 0) &&
           (!g->index || register_with(ti, g->index) >= 0);
}

/*
 * Does instruction n come behind STI or a load of SS? A failed check would leave the block, and an
 * interrupt could come between the two (SDM vol. 2, STI; vol. 3, 6.8.3).
 */
static bool in_shadow(const struct tr_builder *b, unsigned n)
{
    const struct insn *before = n ? &b->insns[n - 1].insn : NULL;

    return before && (before->info.mnemonic == ZYDIS_MNEMONIC_STI ||
                      (before->info.mnemonic == ZYDIS_MNEMONIC_MOV &&
                       before->operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                       before->operands[0].reg.value == ZYDIS_REGISTER_SS));
}

/* Where to check a group whose first member is in instruction n. */
static unsigned place_check(const struct tr_builder *b, const struct group *g, unsigned n)
{
    unsigned place = n;

    while (b->insns[place].flags_live) {
        if (place == 0 || b->insns[place - 1].kind == TR_FALLBACK ||
            b->insns[place].joined_from != NO_INSN || !reaches(&b->insns[place - 1], g))
            return n; /* the flags are saved */
        place--;
    }
    return in_shadow(b, place) ? n : place;
}

/* Gather what fits to access a of instruction n. */
static void make_group(struct tr_builder *b, unsigned n, struct access *a)
{
    struct group *g = &b->groups[b->group_count];
    bool branched = false;
    unsigned members = 1;

    *g = (struct group){.base = a->base,
                        .index = a->index,
                        .scale = a->scale,
                        .low = a->offset,
                        .high = a->offset + (int64_t)a->size,
                        .align_mask = a->align_mask,
                        .write = a->write};
    a->group = (int8_t)b->group_count;
    for (unsigned k = n; k < b->count && b->insns[k].kind != TR_FALLBACK; k++) {
        struct tr_insn *ti = &b->insns[k];

        if (k > n && ti->joined_from < n)
            break;
        for (unsigned m = 0; m < ti->access_count; m++) {
            /* Behind a branch that may be taken nobody knows that the page will be written. */
            if (branched && ti->access[m].write && !g->write)
                continue;
            if (join(b, g, &ti->access[m])) {
                ti->access[m].group = (int8_t)b->group_count;
                members++;
            }
        }
        branched |= ti->kind == TR_JCC || ti->kind == TR_RET;
    }
    assert(g->low < g->high && g->high - g->low < 2 * LOOP_GROUP_BYTES);
    g->place = place_check(b, g, n);
    if (members == 1 && g->place == n)
        a->group = NO_GROUP; /* nothing is gained */
    else
        b->group_count++;
}

/* Ways meet at instruction n: what is not the same on all of them is new. */
static void meet(struct tr_builder *b, struct symbolic regs[16], unsigned n)
{
    for (unsigned k = b->insns[n].joined_from; k < n; k++)
        for (int guest = 0; guest < 16 && b->insns[k].join == n; guest++) {
            const struct symbolic *there = &b->insns[k].before[guest];

            if (there->symbol != regs[guest].symbol || there->offset != regs[guest].offset)
                set_new(b, regs, guest);
        }
}

void find_groups(struct tr_builder *b)
{
    struct symbolic regs[16];

    b->group_count = b->symbol_count = 0;
    for (int guest = 0; guest < 16; guest++)
        set_new(b, regs, guest);
    for (unsigned n = 0; n < b->count; n++) {
        struct tr_insn *ti = &b->insns[n];

        meet(b, regs, n);
        memcpy(ti->before, regs, sizeof(regs));
        find_accesses(b, regs, ti);
        follow(b, regs, ti);
    }
    for (unsigned n = 0; n < b->count && b->style != TR_PLAIN; n++) {
        if (in_shadow(b, n))
            continue;
        for (unsigned m = 0; m < b->insns[n].access_count && b->group_count < TR_MAX_GROUPS; m++) {
            struct access *a = &b->insns[n].access[m];

            if (a->group == NO_GROUP && !a->alone)
                make_group(b, n, a);
        }
    }
}

/* ---- code ---- */

/* TR_S2 = the lowest address of the group, by the registers before ti. False: out of reach. */
static bool emit_low_address(struct tr_builder *b, const struct tr_insn *ti, const struct group *g,
                             int *out_near)
{
    struct host_mem m = {.base = NO_REG, .index = NO_REG};
    uint64_t disp = (uint64_t)g->low;
    int base = g->base ? register_with(ti, g->base) : NO_REG;
    int index = g->index ? register_with(ti, g->index) : NO_REG;

    if (base != NO_REG)
        disp -= (uint64_t)(int64_t)ti->before[base].offset;
    if (base == RSP)
        disp += (uint64_t)(int64_t)b->rsp_ahead;
    if (index != NO_REG)
        disp -= (uint64_t)(int64_t)ti->before[index].offset << g->scale;
    if (!b->is_32bit && (int64_t)disp != (int32_t)disp)
        return false;
    m.disp = (int32_t)disp;
    if (base != NO_REG)
        m.base = (int)guest_value(b, base, TR_S2);
    if (index != NO_REG) {
        m.index = (int)guest_value(b, index, TR_S1);
        m.scale = g->scale;
    }
    emit_lea_word(b, TR_S2, m);
    *out_near = near_of(b, base, index);
    return true;
}

/* Its members look the address up each on its own. */
static void dissolve(struct tr_builder *b, int group)
{
    for (unsigned n = 0; n < b->count; n++)
        for (unsigned m = 0; m < b->insns[n].access_count; m++)
            if (b->insns[n].access[m].group == group)
                b->insns[n].access[m].group = NO_GROUP;
}

/* TR_S2 = pointer to the lowest address of the group. NULL: out of reach. */
static struct cold *emit_group_check(struct tr_builder *b, struct tr_insn *ti,
                                     const struct group *g)
{
    struct lookup l = {TR_S2, (unsigned)(g->high - g->low), g->write, g->align_mask, NO_NEAR};
    struct cold *cold;

    if (!g->base && !g->index) {
        cold = emit_lookup_at(b, ti, word_of(b, (uint64_t)g->low), l.size, l.write, l.align_mask);
        emit_rr(b->e, true, 0x03, TR_S2, TR_S0); /* add */
        return cold;
    }
    if (!emit_low_address(b, ti, g, &l.near))
        return NULL;
    emit_rm(b->e, true, 0x03, TR_S2, emit_find(b, ti, &l, &cold)); /* add */
    return cold;
}

void emit_group_checks(struct tr_builder *b, struct tr_insn *ti)
{
    unsigned here = (unsigned)(ti - b->insns);

    for (unsigned n = 0; n < b->group_count; n++) {
        struct group *g = &b->groups[n];
        struct cold *cold;

        if (g->place != here)
            continue;
        cold = emit_group_check(b, ti, g);
        if (!cold) {
            dissolve(b, (int)n);
            continue;
        }
        cold->kind = COLD_GROUP;
        cold->rip = ti->rip;
        cold->refund = b->charged;
        g->store = b->e->at;
        emit_store(b->e, mem_field(&b->t->pointers[n]), TR_S2);
        b->held[scratch_index(TR_S2)] = (int8_t)n;
    }
}

void drop_unused_stores(struct tr_builder *b)
{
    for (unsigned n = 0; n < b->group_count; n++)
        if (b->groups[n].store && !b->groups[n].reloaded)
            memcpy(b->groups[n].store, "\x0f\x1f\x80\0\0\0\0", 7); /* nop */
}
