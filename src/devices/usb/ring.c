/*
 * ring.c - TRB rings, event rings and interrupters of the xHCI controller
 *
 * The specification, 4.9, 4.17 and 5.5.2.
 *
 * Theory of operation. Events go to the place behind the last one; the ring is full when that would
 * reach ERDP. Transfers and commands are begun only if there is room for their events, so a guest
 * that reads its events loses none; the last place is for Event Ring Full. The segment table
 * stays in guest memory and is read for each event, as its contents may be anything at any time.
 *
 * An event that asks for an interrupt makes it pending. It becomes one (IP, EHB) when EHB is clear
 * and the time of moderation has passed. A message takes IP away again.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/usb/xhci.h"

#define MAX_LINKS          8u /* in a row */
#define MIN_SEGMENT        16u
#define MAX_SEGMENT        4096u
#define MODERATION_UNIT_NS 250u
#define MODERATION_INITIAL 4000u /* 1 ms */
#define NO_POSITION        UINT64_MAX

enum interrupter_register {
    REG_MANAGEMENT = 0x00,
    REG_MODERATION = 0x04,
    REG_TABLE_SIZE = 0x08,
    REG_TABLE_LOW = 0x10,
    REG_TABLE_HIGH = 0x14,
    REG_DEQUEUE_LOW = 0x18,
    REG_DEQUEUE_HIGH = 0x1c,
};
#define INTERRUPTER_BYTES 0x20u

/* ---- TRBs ---- */

enum xhci_fetch xhci_fetch(struct xhci *s, struct xhci_ring *ring, struct xhci_trb *out)
{
    struct memory *memory = device_memory(&s->function.dev);

    for (unsigned links = 0; links <= MAX_LINKS; links++) {
        uint8_t bytes[XHCI_TRB_BYTES];

        /* The cycle bit first: what is before it was written before it. */
        if (memory_read(memory, ring->gpa + 12, bytes + 12, 4))
            return XHCI_FETCH_BAD;
        out->gpa = ring->gpa;
        out->control = get_le32(bytes + 12);
        if ((out->control & XHCI_TRB_CYCLE) != ring->cycle)
            return XHCI_FETCH_NONE;
        if (memory_read(memory, ring->gpa, bytes, 12))
            return XHCI_FETCH_BAD;
        out->parameter = get_le64(bytes);
        out->status = get_le32(bytes + 8);
        if (xhci_trb_type(out) != XHCI_LINK) {
            ring->gpa += XHCI_TRB_BYTES;
            return XHCI_FETCH_DONE;
        }
        ring->gpa = out->parameter & ~(uint64_t)0xf;
        if (out->control & XHCI_TRB_TOGGLE)
            ring->cycle = !ring->cycle;
    }
    return XHCI_FETCH_BAD;
}

/* ---- event rings ---- */

/* False: there is no such segment, or it cannot be one. */
static bool read_segment(struct xhci *s, const struct xhci_interrupter *ir, unsigned n,
                         uint64_t *out_gpa, unsigned *out_size)
{
    uint8_t entry[16];

    if (n >= ir->table_size ||
        memory_read(device_memory(&s->function.dev), ir->table + 16ull * n, entry, sizeof(entry)))
        return false;
    *out_gpa = get_le64(entry) & ~(uint64_t)0x3f;
    *out_size = get_le32(entry + 8) & 0xffff;
    return *out_size >= MIN_SEGMENT && *out_size <= MAX_SEGMENT;
}

/* Free places: all but one of an empty ring. 0: there is no ring. */
static unsigned count_free(struct xhci *s, const struct xhci_interrupter *ir)
{
    uint64_t dequeue = ir->dequeue & ~(uint64_t)0xf, at = NO_POSITION, put = NO_POSITION;
    unsigned total = 0, size;
    uint64_t gpa;

    for (unsigned n = 0; read_segment(s, ir, n, &gpa, &size); n++, total += size) {
        if (dequeue - gpa < (uint64_t)size * XHCI_TRB_BYTES)
            at = total + (dequeue - gpa) / XHCI_TRB_BYTES;
        if (n == (ir->is_fresh ? 0 : ir->segment))
            put = total + (ir->is_fresh ? 0 : ir->index);
    }
    if (put == NO_POSITION || put >= total)
        return 0;
    return at == NO_POSITION ? total - 1 : (unsigned)((at + total - 1 - put) % total);
}

bool xhci_has_room(struct xhci *s, unsigned interrupter, unsigned events)
{
    return count_free(s, &s->interrupters[interrupter]) > events; /* one is for Event Ring Full */
}

static void put_event(struct xhci *s, struct xhci_interrupter *ir, uint64_t parameter,
                      uint32_t status, uint32_t control)
{
    struct memory *memory = device_memory(&s->function.dev);
    uint8_t bytes[XHCI_TRB_BYTES];
    unsigned size;
    uint64_t gpa;

    if (ir->is_fresh) {
        ir->is_fresh = false;
        ir->cycle = true;
        ir->segment = 0;
        ir->index = 0;
    }
    if (!read_segment(s, ir, ir->segment, &gpa, &size)) {
        xhci_fail(s, "an event ring is not in memory");
        return;
    }
    put_le64(bytes, parameter);
    put_le32(bytes + 8, status);
    put_le32(bytes + 12, control | (ir->cycle ? XHCI_TRB_CYCLE : 0));
    gpa += (uint64_t)ir->index * XHCI_TRB_BYTES;
    if (memory_write(memory, gpa, bytes, 12) || memory_write(memory, gpa + 12, bytes + 12, 4)) {
        xhci_fail(s, "an event ring is not in memory");
        return;
    }
    if (++ir->index < size)
        return;
    ir->index = 0;
    if (++ir->segment >= ir->table_size) {
        ir->segment = 0;
        ir->cycle = !ir->cycle;
    }
}

static void update_interrupter(struct xhci *s, unsigned n);

void xhci_post(struct xhci *s, unsigned interrupter, uint64_t parameter, uint32_t status,
               uint32_t control, bool is_quiet)
{
    unsigned n = interrupter < XHCI_INTERRUPTERS ? interrupter : 0;
    struct xhci_interrupter *ir = &s->interrupters[n];
    unsigned room = count_free(s, ir);

    if (!room) {
        log_guest("%s: an event is lost, as its ring is full or not there", s->function.dev.id);
        return;
    }
    if (room == 1) {
        parameter = 0;
        status = (uint32_t)XHCI_EVENT_RING_FULL << 24;
        control = XHCI_HOST_EVENT << 10;
    }
    put_event(s, ir, parameter, status, control);
    ir->pending |= !is_quiet;
    update_interrupter(s, n);
}

/* ---- interrupters ---- */

static bool asks(const struct xhci *s, const struct xhci_interrupter *ir)
{
    return s->command & XHCI_CMD_INTE &&
           (ir->management & (XHCI_IMAN_PENDING | XHCI_IMAN_ENABLE)) ==
               (XHCI_IMAN_PENDING | XHCI_IMAN_ENABLE);
}

bool xhci_intx_level(const struct xhci *s)
{
    bool level = false;

    for (unsigned n = 0; n < XHCI_INTERRUPTERS; n++)
        level |= asks(s, &s->interrupters[n]);
    return level && !pci_uses_messages(&s->function);
}

void xhci_update_interrupts(struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_INTERRUPTERS; n++) {
        struct xhci_interrupter *ir = &s->interrupters[n];

        if (!asks(s, ir) || !pci_uses_messages(&s->function))
            continue;
        ir->management &= ~XHCI_IMAN_PENDING;
        pci_notify(&s->function, n);
    }
    pci_set_intx(&s->function, xhci_intx_level(s));
}

static void update_interrupter(struct xhci *s, unsigned n)
{
    struct xhci_interrupter *ir = &s->interrupters[n];
    uint64_t interval_ns = (uint64_t)(ir->moderation & 0xffff) * MODERATION_UNIT_NS;

    if (!ir->pending || ir->dequeue & XHCI_ERDP_BUSY || timer_is_armed(&ir->quiet))
        return;
    ir->pending = false;
    ir->dequeue |= XHCI_ERDP_BUSY;
    ir->management |= XHCI_IMAN_PENDING;
    s->status |= XHCI_STS_EINT;
    if (interval_ns)
        timer_arm(&ir->quiet, device_now_ns(&s->function.dev) + interval_ns);
    xhci_update_interrupts(s);
}

static void quiet_ended(void *opaque)
{
    struct xhci *s = opaque;

    for (unsigned n = 0; n < XHCI_INTERRUPTERS; n++)
        update_interrupter(s, n);
}

/* ---- registers ---- */

static uint32_t half(uint64_t value, bool is_high)
{
    return (uint32_t)(is_high ? value >> 32 : value);
}

static uint64_t with_half(uint64_t before, bool is_high, uint32_t value)
{
    return is_high ? (uint32_t)before | (uint64_t)value << 32
                   : (before & ~(uint64_t)UINT32_MAX) | value;
}

uint32_t xhci_read_interrupter(const struct xhci *s, unsigned offset)
{
    const struct xhci_interrupter *ir = &s->interrupters[offset / INTERRUPTER_BYTES];

    switch (offset % INTERRUPTER_BYTES) {
    case REG_MANAGEMENT:
        return ir->management;
    case REG_MODERATION:
        return ir->moderation & 0xffff;
    case REG_TABLE_SIZE:
        return ir->table_size;
    case REG_TABLE_LOW:
    case REG_TABLE_HIGH:
        return half(ir->table, offset & 4);
    case REG_DEQUEUE_LOW:
    case REG_DEQUEUE_HIGH:
        return half(ir->dequeue, offset & 4);
    default:
        return 0;
    }
}

static void write_management(struct xhci *s, struct xhci_interrupter *ir, uint32_t value)
{
    ir->management = (value & XHCI_IMAN_ENABLE) | (ir->management & ~value & XHCI_IMAN_PENDING);
    xhci_update_interrupts(s);
}

/* Events that nobody was interrupted for are so only if they were not read. */
static void write_dequeue(struct xhci *s, struct xhci_interrupter *ir, bool is_high, uint32_t value)
{
    bool is_busy = ir->dequeue & XHCI_ERDP_BUSY && (is_high || !(value & XHCI_ERDP_BUSY));

    if (!is_high)
        value = (value & ~XHCI_ERDP_BUSY) | (is_busy ? XHCI_ERDP_BUSY : 0);
    ir->dequeue = with_half(ir->dequeue, is_high, value);
    update_interrupter(s, (unsigned)(ir - s->interrupters));
    if (s->is_starved)
        xhci_work(s);
}

void xhci_write_interrupter(struct xhci *s, unsigned offset, uint32_t value)
{
    struct xhci_interrupter *ir = &s->interrupters[offset / INTERRUPTER_BYTES];

    switch (offset % INTERRUPTER_BYTES) {
    case REG_MANAGEMENT:
        write_management(s, ir, value);
        break;
    case REG_MODERATION:
        ir->moderation = value & 0xffff; /* the counter follows from when the last one was */
        break;
    case REG_TABLE_SIZE:
        ir->table_size =
            (value & 0xffff) < XHCI_ERST_SEGMENTS ? value & 0xffff : XHCI_ERST_SEGMENTS;
        break;
    case REG_TABLE_LOW:
        value &= ~0x3fu;
        /* fall through */
    case REG_TABLE_HIGH:
        ir->table = with_half(ir->table, offset & 4, value);
        ir->is_fresh = true;
        break;
    case REG_DEQUEUE_LOW:
    case REG_DEQUEUE_HIGH:
        write_dequeue(s, ir, offset & 4, value);
        break;
    default:
        break;
    }
}

void xhci_init_interrupters(struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_INTERRUPTERS; n++)
        timer_init(&s->interrupters[n].quiet, device_clocks(&s->function.dev), CLOCK_ID_VIRTUAL,
                   quiet_ended, s);
}

void xhci_reset_interrupters(struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_INTERRUPTERS; n++) {
        struct xhci_interrupter *ir = &s->interrupters[n];

        timer_cancel(&ir->quiet);
        ir->management = ir->table_size = 0;
        ir->moderation = MODERATION_INITIAL;
        ir->table = ir->dequeue = 0;
        ir->pending = ir->cycle = false;
        ir->is_fresh = true;
        ir->segment = 0;
        ir->index = 0;
    }
}
