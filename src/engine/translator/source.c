/*
 * source.c - blocks whose bytes are written again and again
 *
 * A block that was dropped because its bytes were written is kept beside its source. If they are
 * what they were (the guest wrote data beside them, or a patch and back), it is brought back.
 * If it was made for the same instructions with other immediates, and that for the TR_PATCHES-th
 * time, the next one checks itself: it compares its bytes each time it is entered, its page is not
 * watched for it, and the immediates that change are read from where they stand. Such a block
 * ends where it may have written, so that a store to it takes effect at the next instruction.
 */
#include "engine/translator/builder.h"

#include "base/guest_ram.h"

/* Opcodes with a register and a register or memory: what is live is loaded into a register. */
static unsigned opcode_with_register(unsigned mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        return 0x03;
    case ZYDIS_MNEMONIC_OR:
        return 0x0b;
    case ZYDIS_MNEMONIC_ADC:
        return 0x13;
    case ZYDIS_MNEMONIC_SBB:
        return 0x1b;
    case ZYDIS_MNEMONIC_AND:
        return 0x23;
    case ZYDIS_MNEMONIC_SUB:
        return 0x2b;
    case ZYDIS_MNEMONIC_XOR:
        return 0x33;
    case ZYDIS_MNEMONIC_CMP:
        return 0x3b;
    case ZYDIS_MNEMONIC_TEST:
        return 0x85;
    case ZYDIS_MNEMONIC_MOV:
        return 0x8b;
    default:
        return 0;
    }
}

static bool can_be_live(const struct tr_insn *ti)
{
    return ti->kind == TR_COPY && !ti->memory && ti->insn.info.raw.imm[0].size &&
           ti->insn.info.operand_width >= 32 && opcode_with_register(ti->insn.info.mnemonic);
}

static uint16_t offset_of(const struct tr_builder *b, const struct tr_insn *ti)
{
    return (uint16_t)(ti->rip - b->insns[0].rip);
}

/* Bytes of the instructions that follow each other from the first one on. */
static unsigned contiguous_bytes(const struct tr_builder *b, unsigned *count)
{
    unsigned n = 0, size = 0;

    while (n < b->count && b->insns[n].rip == b->insns[0].rip + size)
        size += b->insns[n++].insn.info.length;
    *count = n;
    return size;
}

static bool is_live(const struct tr_source *s, unsigned at)
{
    for (unsigned n = 0; n < s->live_count; n++)
        if (s->live[n].at == at)
            return true;
    return false;
}

static bool add_live(struct tr_source *s, unsigned at, unsigned bytes)
{
    if (s->live_count == TR_MAX_LIVE)
        return false;
    s->live[s->live_count].at = (uint16_t)at;
    s->live[s->live_count++].size = (uint8_t)bytes;
    return true;
}

/* Is ti what it was before but for an immediate? That is live in s then. */
static bool was_patched(const struct tr_builder *b, const struct tr_insn *ti,
                        const struct tr_source *before, struct tr_source *s)
{
    const struct insn_info *info = &ti->insn.info;
    unsigned at = offset_of(b, ti), first = info->length, end = info->length;
    const uint8_t *was = before->bytes + at, *is = ti->insn.bytes;

    if (at + info->length > before->size)
        return true; /* nothing is known of it */
    if (can_be_live(ti)) {
        first = info->raw.imm[0].offset;
        end = first + info->raw.imm[0].size / 8u;
    }
    if (memcmp(was, is, first) || memcmp(was + end, is + end, info->length - end))
        return false;
    return first == end ||
           (!memcmp(was + first, is + first, end - first) && !is_live(before, at + first)) ||
           add_live(s, at + first, end - first);
}

void find_source(struct tr_builder *b, const struct tr_source *before)
{
    unsigned count, size = contiguous_bytes(b, &count);
    struct tr_source *s;
    uint8_t *at;

    b->source = NULL;
    if (b->crosses || b->followed_count)
        return;
    s = b->source = translator_data(b->cache, sizeof(*s) + size);
    *s = (struct tr_source){.size = (uint16_t)size};
    at = s->bytes;
    for (unsigned n = 0; n < count; n++) {
        memcpy(at, b->insns[n].insn.bytes, b->insns[n].insn.info.length);
        at += b->insns[n].insn.info.length;
    }
    if (!before)
        return;
    for (unsigned n = 0; n < count; n++)
        if (!was_patched(b, &b->insns[n], before, s)) {
            s->live_count = 0;
            return;
        }
    s->patches = before->patches + (before->patches < TR_PATCHES);
    b->checks_itself = s->patches == TR_PATCHES && !b->t->c->counted;
    if (b->checks_itself && s->size > before->size)
        s->size = before->size; /* what is behind was not there each time */
}

void shorten_source(struct tr_builder *b)
{
    struct tr_source *s = b->source;
    unsigned count;

    s->size = (uint16_t)contiguous_bytes(b, &count);
    while (s->live_count && s->live[s->live_count - 1].at >= s->size)
        s->live_count--;
}

/* The bytes between live immediates from at on; false: there are no more. */
static bool next_piece(const struct tr_source *s, unsigned n, unsigned *at, unsigned *end)
{
    *at = n ? s->live[n - 1].at + s->live[n - 1].size : 0u;
    *end = n < s->live_count ? s->live[n].at : s->size;
    return n <= s->live_count;
}

bool source_is_at(const struct tr_source *s, const uint8_t *host, bool but_live)
{
    unsigned at, end;

    if (!but_live)
        return ram_equals(host, s->bytes, s->size);
    for (unsigned n = 0; next_piece(s, n, &at, &end); n++)
        if (!ram_equals(host + at, s->bytes + at, end - at))
            return false;
    return true;
}

/* ---- code ---- */

static const uint8_t *host_bytes(const struct tr_builder *b)
{
    return b->parts[0].host + (b->insns[0].rip & 0xfff);
}

/* Compare up to 8 bytes from at on, TR_S0 being where the source is. Returns how many. */
static unsigned emit_compare_bytes(struct tr_builder *b, unsigned at, unsigned left)
{
    unsigned bytes = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    struct host_mem m = mem_base(TR_S0, (int32_t)at);
    uint64_t want = 0;

    memcpy(&want, b->source->bytes + at, bytes);
    if (bytes == 8) {
        emit_constant(b->e, TR_S1, want);
        emit_rm(b->e, true, 0x3b, TR_S1, m);
    } else {
        if (bytes == 2)
            put8(b->e, 0x66);
        emit_rm(b->e, false, bytes == 1 ? 0x80 : 0x81, ALU_CMP, m);
        put_bytes(b->e, &want, bytes);
    }
    emit_exit_if(b, CC_NE, b->block->rip);
    return bytes;
}

/* Flags that are alive were saved by the entries. */
void emit_source_check(struct tr_builder *b)
{
    unsigned at, end;

    if (!b->checks_itself)
        return;
    emit_constant(b->e, TR_S0, (uintptr_t)host_bytes(b));
    for (unsigned n = 0; next_piece(b->source, n, &at, &end); n++)
        while (at < end)
            at += emit_compare_bytes(b, at, end - at);
}

/* TR_S1 = the immediate, extended as the instruction does it. */
static void emit_load_live(struct tr_builder *b, const struct tr_insn *ti, unsigned at)
{
    bool wide = ti->insn.info.operand_width == 64;
    unsigned bits = ti->insn.info.raw.imm[0].size;

    emit_constant(b->e, TR_S1, (uintptr_t)host_bytes(b) + at);
    emit_rm(b->e, wide,
            bits == 8            ? 0x0fbe
            : wide && bits == 32 ? 0x63
                                 : 0x8b,
            TR_S1, mem_base(TR_S1, 0)); /* movsx, movsxd, mov */
    scratch_lost(b, TR_S1);
}

bool emit_live(struct tr_builder *b, struct tr_insn *ti)
{
    unsigned at = offset_of(b, ti) + ti->insn.info.raw.imm[0].offset, mnemonic, to;
    int guest;

    if (!b->checks_itself || !can_be_live(ti) || !is_live(b->source, at))
        return false;
    mnemonic = ti->insn.info.mnemonic;
    guest = gpr_of(ti->insn.operands[0].reg.value);
    flags_for(b, ti);
    to = mnemonic == ZYDIS_MNEMONIC_MOV && is_spilled(guest) ? TR_S0 : guest_value(b, guest, TR_S0);
    emit_load_live(b, ti, at);
    emit_rr(b->e, ti->insn.info.operand_width == 64, opcode_with_register(mnemonic), to, TR_S1);
    if (is_spilled(guest)) {
        scratch_lost(b, TR_S0);
        emit_store(b->e, guest_slot(b, guest), TR_S0);
    }
    return true;
}
