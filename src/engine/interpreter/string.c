/*
 * string.c - MOVS STOS LODS CMPS SCAS INS OUTS with REP, IN, OUT
 *
 * A repeated instruction may stop between any two elements with RIP still on it (SDM vol. 1,
 * 7.3.9.2): it does so for faults, for anything in c->attention, and after every element
 * while single-stepping. MOVS, STOS, CMPS and SCAS work on as much of a page as the TLB has. Where
 * CMPS or SCAS stops by a fault the flags are those of the last comparison, as some processors have
 * it; others restore them (SDM vol. 2, REP).
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"
#include "engine/interpreter/operands.h"

#include <stdatomic.h>

#include "trapeze/machine.h"
#include "x86/segments.h"

/* extra: operand bytes, and the kind of repetition */
#define BYTES           (i->extra & 15u)
#define REP_NONE        0x00u
#define REP_ALWAYS      0x10u /* REP; for CMPS and SCAS the next two */
#define REP_WHILE       0x20u /* REPE */
#define REP_UNTIL       0x30u /* REPNE */
#define REP_KIND_OF(op) ((op)->extra & 0x30u)
#define REP_KIND        REP_KIND_OF(i)

#define SI              X86_RSI
#define DI              X86_RDI

static uint64_t address_mask(const struct op *i)
{
    return i->address_size == 8 ? ~0ull : i->address_size == 4 ? 0xffffffff : 0xffff;
}

static uint64_t element_linear(struct icpu *c, const struct op *i, unsigned reg, unsigned seg,
                               unsigned access)
{
    uint64_t offset = c->cpu.s.gpr[reg] & address_mask(i);

    if (likely(c->code_size == X86_CODE_64))
        return seg >= X86_FS ? offset + c->cpu.s.seg[seg].base : offset;
    if (likely((c->mode_key & MODE_FLAT_DATA) && seg <= X86_DS && seg != X86_CS &&
               offset <= FLAT32_END - BYTES))
        return offset;
    return interp_segment_linear(c, i, seg, offset, BYTES, access);
}

/* Move an index register by bytes, as the address size wraps it. */
static void advance(struct icpu *c, const struct op *i, unsigned reg, int64_t bytes)
{
    reg_set(c, REG_OFFSET(reg), c->cpu.s.gpr[reg] + (uint64_t)bytes, i->address_size);
}

static int64_t stride(const struct icpu *c, const struct op *i)
{
    return c->cpu.s.rflags & X86_FLAG_DF ? -(int64_t)BYTES : BYTES;
}

static uint64_t repeat_count(const struct icpu *c, const struct op *i)
{
    return c->cpu.s.gpr[X86_RCX] & address_mask(i);
}
static void repeat_done(struct icpu *c, const struct op *i, uint64_t elements)
{
    reg_set(c, REG_OFFSET(X86_RCX), c->cpu.s.gpr[X86_RCX] - elements, i->address_size);
}

static bool must_stop(const struct icpu *c)
{
    return unlikely(atomic_load_explicit(&c->attention, memory_order_relaxed) == ATTENTION_EVENT ||
                    (c->cpu.s.rflags & X86_FLAG_TF));
}

/* ---- one element each ---- */

static void movs(struct icpu *c, const struct op *i)
{
    uint64_t value = load_sized(c, i, element_linear(c, i, SI, i->seg, X86_ACCESS_READ), BYTES);

    store_sized(c, i, element_linear(c, i, DI, X86_ES, X86_ACCESS_WRITE), value, BYTES);
    advance(c, i, SI, stride(c, i));
    advance(c, i, DI, stride(c, i));
}
static void stos(struct icpu *c, const struct op *i)
{
    store_sized(c, i, element_linear(c, i, DI, X86_ES, X86_ACCESS_WRITE), c->cpu.s.gpr[X86_RAX],
                BYTES);
    advance(c, i, DI, stride(c, i));
}
static void lods(struct icpu *c, const struct op *i)
{
    uint64_t value = load_sized(c, i, element_linear(c, i, SI, i->seg, X86_ACCESS_READ), BYTES);

    reg_set(c, REG_OFFSET(X86_RAX), value, BYTES);
    advance(c, i, SI, stride(c, i));
}

static void compare(struct icpu *c, const struct op *i, uint64_t a, uint64_t b)
{
    unsigned shift = 64 - 8 * BYTES;
    int64_t x = (int64_t)(a << shift) >> shift, y = (int64_t)(b << shift) >> shift;
    int64_t r = (int64_t)((a - b) << shift) >> shift;

    cc_set(c, CC_SUB, r, x, y);
}
static void cmps(struct icpu *c, const struct op *i)
{
    uint64_t a = load_sized(c, i, element_linear(c, i, SI, i->seg, X86_ACCESS_READ), BYTES);
    uint64_t b = load_sized(c, i, element_linear(c, i, DI, X86_ES, X86_ACCESS_READ), BYTES);

    compare(c, i, a, b);
    advance(c, i, SI, stride(c, i));
    advance(c, i, DI, stride(c, i));
}
static void scas(struct icpu *c, const struct op *i)
{
    uint64_t b = load_sized(c, i, element_linear(c, i, DI, X86_ES, X86_ACCESS_READ), BYTES);

    compare(c, i, reg_get(c, REG_OFFSET(X86_RAX), BYTES), b);
    advance(c, i, DI, stride(c, i));
}

/* ---- ports ---- */

static void check_port(struct icpu *c, const struct op *i, uint16_t port)
{
    unsigned iopl = (unsigned)(c->cpu.s.rflags & X86_FLAG_IOPL) >> 12;

    if (likely(c->cpu.cpl <= iopl && !x86_in_v86_mode(&c->cpu)))
        return;
    interp_sync(c, i);
    x86_check_port(&c->cpu, port, BYTES);
}
static uint32_t port_read(struct icpu *c, const struct op *i, uint16_t port)
{
    enum meter_part before;
    uint32_t value;

    interp_sync_clock(c, i);
    meter_count(c, METER_PORT_ACCESSES);
    before = meter_to(c, METER_DEVICES);
    code_pages_leave(c);
    value = bus_port_read(c->interpreter->machine, port, BYTES);
    code_pages_enter(c);
    meter_to(c, before);
    return value;
}
static void port_write(struct icpu *c, const struct op *i, uint16_t port, uint32_t value)
{
    enum meter_part before;

    interp_sync_clock(c, i);
    meter_count(c, METER_PORT_ACCESSES);
    before = meter_to(c, METER_DEVICES);
    code_pages_leave(c);
    bus_port_write(c->interpreter->machine, port, value, BYTES);
    code_pages_enter(c);
    meter_to(c, before);
}

/* The destination is checked first: a port must not be read for a store that faults. */
static void ins(struct icpu *c, const struct op *i)
{
    uint16_t port = (uint16_t)c->cpu.s.gpr[X86_RDX];
    uint64_t linear;

    check_port(c, i, port);
    linear = element_linear(c, i, DI, X86_ES, X86_ACCESS_WRITE);
    interp_probe_write(c, i, linear, BYTES);
    store_sized(c, i, linear, port_read(c, i, port), BYTES);
    advance(c, i, DI, stride(c, i));
}
static void outs(struct icpu *c, const struct op *i)
{
    uint16_t port = (uint16_t)c->cpu.s.gpr[X86_RDX];
    uint64_t value;

    check_port(c, i, port);
    value = load_sized(c, i, element_linear(c, i, SI, i->seg, X86_ACCESS_READ), BYTES);
    port_write(c, i, port, (uint32_t)value);
    advance(c, i, SI, stride(c, i));
}

/* ---- as much of a page as possible ---- */

/* Within a page no index register wraps, and no limit is in the way. */
static bool bulk_possible(const struct icpu *c, const struct op *i)
{
    if (c->code_size == X86_CODE_64)
        return i->address_size == 8 || i->seg < X86_FS;
    return (c->mode_key & MODE_FLAT_DATA) && i->address_size == 4 && i->seg <= X86_DS &&
           i->seg != X86_CS;
}

/* What can be reached directly from linear on, in the direction of DF; *count is cut to it. */
static uint8_t *reach(struct icpu *c, const struct op *i, uint64_t linear, bool write,
                      uint64_t *count)
{
    const struct tlb_entry *e = tlb_slot(c, linear);
    uint64_t offset = linear ^ (write ? e->write : e->read); /* in the page, or far more */
    uint64_t room = offset > 0x1000 - BYTES ? 0
                    : stride(c, i) < 0      ? offset / BYTES + 1
                                            : (0x1000 - offset) / BYTES;

    if (*count > room)
        *count = room;
    return (uint8_t *)(linear + e->addend);
}

/* The lowest of count elements that begin at first. */
static uint8_t *lowest(const struct icpu *c, const struct op *i, uint8_t *first, uint64_t count)
{
    return stride(c, i) < 0 ? first - (count - 1) * BYTES : first;
}

static uint64_t movs_bulk(struct icpu *c, const struct op *i, uint64_t count)
{
    uint64_t from = element_linear(c, i, SI, i->seg, X86_ACCESS_READ);
    uint64_t to = element_linear(c, i, DI, X86_ES, X86_ACCESS_WRITE);
    uint8_t *source = reach(c, i, from, false, &count), *target = reach(c, i, to, true, &count);
    uintptr_t ahead = (uintptr_t)target - (uintptr_t)source;

    if (stride(c, i) < 0)
        ahead = -ahead;
    if (ahead && ahead < count * BYTES)
        count = ahead / BYTES; /* those that follow must see these */
    if (!count)
        return 0;
    ram_move(lowest(c, i, target, count), lowest(c, i, source, count), count * BYTES);
    advance(c, i, SI, stride(c, i) * (int64_t)count);
    advance(c, i, DI, stride(c, i) * (int64_t)count);
    return count;
}

static uint64_t stos_bulk(struct icpu *c, const struct op *i, uint64_t count)
{
    uint64_t to = element_linear(c, i, DI, X86_ES, X86_ACCESS_WRITE);
    uint64_t value = reg_get(c, REG_OFFSET(X86_RAX), BYTES);
    uint8_t *target = reach(c, i, to, true, &count);

    if (!count)
        return 0;
    target = lowest(c, i, target, count);
    if (BYTES == 1 || value == 0)
        ram_fill(target, (uint8_t)value, count * BYTES);
    else
        for (uint64_t n = 0; n < count; n++)
            ram_copy(target + n * BYTES, &value, BYTES);
    advance(c, i, DI, stride(c, i) * (int64_t)count);
    return count;
}

/* How many pairs in a row, of count, are equal or not. */
#define ALIKE(bits)                                                                                \
    static uint64_t alike##bits(const uint8_t *a, int64_t step_a, const uint8_t *b,                \
                                int64_t step_b, uint64_t count, bool equal)                        \
    {                                                                                              \
        uint64_t n = 0;                                                                            \
                                                                                                   \
        for (; n < count && (ram_load##bits(a) == ram_load##bits(b)) == equal; n++) {              \
            a += step_a;                                                                           \
            b += step_b;                                                                           \
        }                                                                                          \
        return n;                                                                                  \
    }
ALIKE(8)
ALIKE(16)
ALIKE(32)
ALIKE(64)

static uint64_t alike(const struct op *i, const uint8_t *a, int64_t step_a, const uint8_t *b,
                      int64_t step_b, uint64_t count, bool equal)
{
    switch (BYTES) {
    case 1:
        return alike8(a, step_a, b, step_b, count, equal);
    case 2:
        return alike16(a, step_a, b, step_b, count, equal);
    case 4:
        return alike32(a, step_a, b, step_b, count, equal);
    default:
        return alike64(a, step_a, b, step_b, count, equal);
    }
}

/*
 * Go over elements that do not end the instruction; how many. The last one within reach is left: it
 * sets the flags that a fault of the next one would show.
 */
static uint64_t cmps_bulk(struct icpu *c, const struct op *i, uint64_t count, bool equal)
{
    uint64_t si = element_linear(c, i, SI, i->seg, X86_ACCESS_READ);
    uint64_t di = element_linear(c, i, DI, X86_ES, X86_ACCESS_READ);
    const uint8_t *a = reach(c, i, si, false, &count), *b = reach(c, i, di, false, &count);

    count = alike(i, a, stride(c, i), b, stride(c, i), count - !!count, equal);
    if (!count)
        return 0; /* 32-bit indexes keep their upper halves if the first element faults */
    advance(c, i, SI, stride(c, i) * (int64_t)count);
    advance(c, i, DI, stride(c, i) * (int64_t)count);
    return count;
}
static uint64_t scas_bulk(struct icpu *c, const struct op *i, uint64_t count, bool equal)
{
    uint64_t di = element_linear(c, i, DI, X86_ES, X86_ACCESS_READ);
    const uint8_t *b = reach(c, i, di, false, &count);

    count = alike(i, (const uint8_t *)&c->cpu.s.gpr[X86_RAX], 0, b, stride(c, i), count - !!count,
                  equal);
    if (!count)
        return 0;
    advance(c, i, DI, stride(c, i) * (int64_t)count);
    return count;
}

/* ---- handlers ---- */

#define ONCE(name)                                                                                 \
    static const struct op *op_##name(struct icpu *c, const struct op *i)                          \
    {                                                                                              \
        name(c, i);                                                                                \
        NEXT(c, i);                                                                                \
    }
#define REPEAT(name)                                                                               \
    ONCE(name)                                                                                     \
    static const struct op *op_rep_##name(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        for (uint64_t count = repeat_count(c, i); count; count--) {                                \
            name(c, i);                                                                            \
            repeat_done(c, i, 1);                                                                  \
            if (count > 1 && must_stop(c))                                                         \
                return interp_leave_at(c, i);                                                      \
        }                                                                                          \
        NEXT(c, i);                                                                                \
    }
#define REPEAT_BULK(name)                                                                          \
    ONCE(name)                                                                                     \
    static const struct op *op_rep_##name(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        bool bulk = bulk_possible(c, i);                                                           \
        for (uint64_t count = repeat_count(c, i); count;) {                                        \
            uint64_t done = bulk && !must_stop(c) ? name##_bulk(c, i, count) : 0;                  \
            if (!done) {                                                                           \
                name(c, i);                                                                        \
                done = 1;                                                                          \
            }                                                                                      \
            repeat_done(c, i, done);                                                               \
            count -= done;                                                                         \
            if (count && must_stop(c))                                                             \
                return interp_leave_at(c, i);                                                      \
        }                                                                                          \
        NEXT(c, i);                                                                                \
    }
#define REPEAT_COMPARE(name)                                                                       \
    ONCE(name)                                                                                     \
    static const struct op *op_rep_##name(struct icpu *c, const struct op *i)                      \
    {                                                                                              \
        bool bulk = bulk_possible(c, i), go_on = REP_KIND == REP_WHILE;                            \
        for (uint64_t count = repeat_count(c, i); count;) {                                        \
            uint64_t done = bulk && !must_stop(c) ? name##_bulk(c, i, count, go_on) : 0;           \
            if (done)                                                                              \
                repeat_done(c, i, done);                                                           \
            name(c, i);                                                                            \
            repeat_done(c, i, 1);                                                                  \
            count -= done + 1;                                                                     \
            if (flag_zf(c) != go_on)                                                               \
                break;                                                                             \
            if (count && must_stop(c))                                                             \
                return interp_leave_at(c, i);                                                      \
        }                                                                                          \
        NEXT(c, i);                                                                                \
    }
REPEAT_BULK(movs)
REPEAT_BULK(stos)
REPEAT(lods)
REPEAT(ins)
REPEAT(outs)
REPEAT_COMPARE(cmps)
REPEAT_COMPARE(scas)

/* IN, OUT: port in imm, or in DX if bit 4 of extra is set */
static uint16_t port_number(const struct icpu *c, const struct op *i)
{
    return i->extra & 0x10 ? (uint16_t)c->cpu.s.gpr[X86_RDX] : (uint8_t)i->imm;
}
static const struct op *op_in(struct icpu *c, const struct op *i)
{
    check_port(c, i, port_number(c, i));
    reg_set(c, REG_OFFSET(X86_RAX), port_read(c, i, port_number(c, i)), BYTES);
    NEXT(c, i);
}
static const struct op *op_out(struct icpu *c, const struct op *i)
{
    check_port(c, i, port_number(c, i));
    port_write(c, i, port_number(c, i), (uint32_t)reg_get(c, REG_OFFSET(X86_RAX), BYTES));
    NEXT(c, i);
}

/* ---- building ---- */

struct string_row {
    ZydisMnemonic mnemonic;
    uint8_t bytes;
    op_fn *once, *repeated;
};
#define ROWS(NAME, name)                                                                           \
    {ZYDIS_MNEMONIC_##NAME##B, 1, op_##name, op_rep_##name},                                       \
        {ZYDIS_MNEMONIC_##NAME##W, 2, op_##name, op_rep_##name},                                   \
    {                                                                                              \
        ZYDIS_MNEMONIC_##NAME##D, 4, op_##name, op_rep_##name                                      \
    }
#define ROW_Q(NAME, name)                                                                          \
    {                                                                                              \
        ZYDIS_MNEMONIC_##NAME##Q, 8, op_##name, op_rep_##name                                      \
    }
static const struct string_row rows[] = {
    ROWS(MOVS, movs), ROW_Q(MOVS, movs), ROWS(STOS, stos), ROW_Q(STOS, stos),
    ROWS(LODS, lods), ROW_Q(LODS, lods), ROWS(CMPS, cmps), ROW_Q(CMPS, cmps),
    ROWS(SCAS, scas), ROW_Q(SCAS, scas), ROWS(INS, ins),   ROWS(OUTS, outs),
};

static bool build_in_out(struct builder *w, const struct insn *insn, struct op *op, bool out)
{
    const struct insn_operand *port = operand(insn, out ? 0 : 1);

    op->extra = (uint8_t)(operand(insn, out ? 1 : 0)->size / 8);
    if (port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        op->imm = (int64_t)port->imm.value.u;
    else
        op->extra |= 0x10;
    op->run = out ? op_out : op_in;
    w->ends = out; /* a device may have changed the memory map */
    return true;
}

bool build_string(struct builder *w, const struct insn *insn, struct op *op)
{
    uint64_t prefixes = insn->info.attributes;

    if (insn->info.mnemonic == ZYDIS_MNEMONIC_IN)
        return build_in_out(w, insn, op, false);
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_OUT)
        return build_in_out(w, insn, op, true);
    /* MOVSD and CMPSD also name SSE2 instructions, which have vector operands. */
    if (insn->info.meta.category != ZYDIS_CATEGORY_STRINGOP &&
        insn->info.meta.category != ZYDIS_CATEGORY_IOSTRINGOP)
        return false;
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        if (rows[n].mnemonic != insn->info.mnemonic)
            continue;
        op->extra = rows[n].bytes;
        op->address_size = insn->info.address_width / 8;
        op->seg = X86_DS;
        for (unsigned k = 0; k < insn->info.operand_count; k++)
            if (is_mem(insn, k) && (operand(insn, k)->mem.base == ZYDIS_REGISTER_RSI ||
                                    operand(insn, k)->mem.base == ZYDIS_REGISTER_ESI ||
                                    operand(insn, k)->mem.base == ZYDIS_REGISTER_SI))
                build_memory(w, insn, operand(insn, k), op);
        if (prefixes & ZYDIS_ATTRIB_HAS_REPNE)
            op->extra |= REP_UNTIL;
        else if (prefixes & ZYDIS_ATTRIB_HAS_REPE)
            op->extra |= REP_WHILE;
        else if (prefixes & ZYDIS_ATTRIB_HAS_REP)
            op->extra |= REP_ALWAYS;
        op->run = REP_KIND_OF(op) == REP_NONE ? rows[n].once : rows[n].repeated;
        return true;
    }
    return false;
}
