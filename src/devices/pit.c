/*
 * pit.c - the 8254 programmable interval timer and port 0x61
 *
 * After Intel's 8254 data sheet (231164): three counters, all six modes, binary and BCD, byte
 * sequencing, counter latch and read-back commands, null count, gates. Port 0x61 as
 * in the PC AT: gate and OUT of counter 2, speaker enable, refresh toggle.
 *
 * Left out: counts of 1 in modes 2 and 3, which
 * the data sheet forbids, count as 2.
 *
 * Theory of operation. All counters run on one grid of clock ticks, tick t being
 * floor(virtual time * 1193182 Hz): nothing is added up, so nothing drifts. A
 * counter remembers the tick at which it was loaded (start_tick); its value and OUT
 * are functions of that and of now. A load happens one tick after its cause. While GATE
 * stops a counter, the ticks it has seen are kept in held_ticks. In modes 2 and 3 a new
 * count waits for the end of the period or half period (next_tick).
 *
 * Only OUT of counter 0 has to be told to others: a timer on the virtual clock wakes
 * at its next change. OUT is low for one tick at a time in modes 2, 4 and 5: that
 * is reported as a pulse when it rises. Edges that come faster than EDGE_MIN_NS are merged. If the
 * host was late, each period that passed is an edge: the interrupt controllers keep those that the
 * guest cannot take yet.
 *
 * Threads: machine lock.
 */
#include "devices/pit.h"

#include <errno.h>

#include "base/log.h"
#include "devices/pc_speaker.h"
#include "trapeze/device.h"

#define CHANNEL_COUNT     3
#define EDGE_MIN_NS       10000u
#define MADE_UP_TICKS     120u   /* shortest period of which lost ticks are made up for: 100 us */
#define MADE_UP_MAX       1000u  /* ticks at a time */
#define REFRESH_TOGGLE_NS 15085u /* counter 1 at its usual 18 ticks */

#define PORT61_GATE2      0x01u
#define PORT61_SPEAKER    0x02u
#define PORT61_WRITABLE   0x0fu
#define PORT61_REFRESH    0x10u
#define PORT61_OUT2       0x20u

enum pit_access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

/* Before a load or trigger; counting; stopped by GATE. */
enum pit_phase { PHASE_IDLE, PHASE_COUNTING, PHASE_HELD, PHASE_COUNT };

struct pit_channel {
    /* guest-visible state */
    uint8_t mode;   /* 0-5 */
    uint8_t access; /* enum pit_access: LOW, HIGH or BOTH */
    uint8_t phase;  /* enum pit_phase */
    bool bcd;
    bool gate;
    uint16_t reload;     /* count register as written */
    uint8_t written_low; /* first byte of two */
    bool write_high;     /* the second byte comes next */
    bool read_high;      /* likewise for reading */
    bool written;        /* modes 1 and 5: there is a count to trigger with */
    bool null_count;     /* reload has not reached the counter */
    bool status_latched; /* the next read gives status */
    bool count_latched;  /* then latch */
    uint8_t status;
    uint16_t latch;
    uint32_t count;      /* what the counter was loaded with: 1-65536 */
    uint64_t start_tick; /* when it was loaded */
    uint64_t held_ticks; /* PHASE_HELD: ticks seen */
    bool reloaded;       /* OUT rose at start_tick, the period before ended there */
    bool next_valid;     /* modes 2 and 3: reload at next_tick */
    bool next_low;       /* mode 3: and OUT falls then */
    uint64_t next_tick;
};

struct pit {
    struct device dev;

    struct audio *audio; /* property; NULL: nobody hears the speaker */
    struct pc_speaker speaker;

    /* guest-visible state */
    struct pit_channel channel[CHANNEL_COUNT];
    uint8_t port61;
    uint64_t seen_tick; /* OUT of counter 0 was reported up to here */
    struct irq_line irq;
    struct timer timer;
};

static struct pit *pit_of(struct device *dev)
{
    return container_of(dev, struct pit, dev);
}

/* ---- time ---- */

static uint64_t pit_tick_at(uint64_t now_ns)
{
    return (uint64_t)((unsigned __int128)now_ns * PIT_HZ / NANOSECONDS_PER_SECOND);
}

/* The first nanosecond at which pit_tick_at() gives tick. */
static uint64_t pit_tick_ns(uint64_t tick)
{
    unsigned __int128 ns = (unsigned __int128)tick * NANOSECONDS_PER_SECOND;

    return (uint64_t)((ns + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t pit_now(struct pit *s)
{
    return pit_tick_at(device_now_ns(&s->dev));
}

/* ---- counting ---- */

static uint32_t pit_modulus(const struct pit_channel *c)
{
    return c->bcd ? 10000 : 65536;
}

static bool pit_is_periodic(const struct pit_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 are started by GATE. */
static bool pit_is_triggered(const struct pit_channel *c)
{
    return c->mode == 1 || c->mode == 5;
}

/* The count that a register value stands for: zero is the largest. */
static uint32_t pit_decode(const struct pit_channel *c, uint16_t raw)
{
    uint32_t count = raw;

    if (c->bcd)
        count = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
    count %= pit_modulus(c);
    if (count == 0)
        count = pit_modulus(c);
    return pit_is_periodic(c) && count < 2 ? 2 : count;
}

static uint16_t pit_encode(const struct pit_channel *c, uint32_t count)
{
    count %= pit_modulus(c);
    if (!c->bcd)
        return (uint16_t)count;
    return (uint16_t)(count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 |
                      count % 10);
}

/* Ticks since the load; 0 in the tick between its cause and the load. */
static uint64_t pit_elapsed(const struct pit_channel *c, uint64_t tick)
{
    if (c->phase == PHASE_HELD)
        return c->held_ticks;
    return (int64_t)(tick - c->start_tick) < 0 ? 0 : tick - c->start_tick;
}

/* Mode 3: how many ticks of the period OUT is high. */
static uint32_t pit_high_ticks(uint32_t count)
{
    return (count + 1) / 2;
}

static bool pit_out(const struct pit_channel *c, uint64_t tick)
{
    uint64_t elapsed = pit_elapsed(c, tick);

    if (c->phase == PHASE_IDLE)
        return c->mode != 0;
    if (c->phase == PHASE_HELD && pit_is_periodic(c))
        return true;
    switch (c->mode) {
    case 2:
        return elapsed % c->count != c->count - 1;
    case 3:
        return elapsed % c->count < pit_high_ticks(c->count);
    case 4:
    case 5:
        return elapsed != c->count;
    default:
        return elapsed >= c->count;
    }
}

/* Mode 3 counts an even number down by two, once for each half. */
static uint32_t pit_square_value(const struct pit_channel *c, uint64_t elapsed)
{
    uint32_t position = (uint32_t)(elapsed % c->count), high = pit_high_ticks(c->count);

    if (position >= high)
        position -= high;
    return (c->count & ~1u) - 2 * position;
}

static uint16_t pit_value(const struct pit_channel *c, uint64_t tick)
{
    uint64_t elapsed = pit_elapsed(c, tick);
    uint32_t modulus = pit_modulus(c);

    if (c->phase == PHASE_IDLE)
        return c->reload;
    if (c->mode == 3)
        return pit_encode(c, pit_square_value(c, elapsed));
    if (c->mode == 2)
        return pit_encode(c, c->count - (uint32_t)(elapsed % c->count));
    return pit_encode(c, c->count + modulus - (uint32_t)(elapsed % modulus));
}

/* ---- loading ---- */

static void pit_load(struct pit_channel *c, uint64_t tick)
{
    c->count = pit_decode(c, c->reload);
    c->start_tick = tick + 1;
    c->held_ticks = 0;
    c->phase = c->gate || pit_is_triggered(c) ? PHASE_COUNTING : PHASE_HELD;
    c->reloaded = false;
    c->next_valid = false;
}

/* A new count in modes 2 and 3 waits for the end of the period, or of mode 3's half. */
static void pit_load_later(struct pit_channel *c, uint64_t tick)
{
    uint64_t elapsed = pit_elapsed(c, tick);
    uint64_t position = elapsed % c->count, rest = c->count - position;

    c->next_low = c->mode == 3 && position < pit_high_ticks(c->count);
    if (c->next_low)
        rest = pit_high_ticks(c->count) - position;
    c->next_tick = c->start_tick + elapsed + rest;
    c->next_valid = true;
}

/* Bring a channel up to now: a count that was waiting is loaded. */
static void pit_sync(struct pit_channel *c, uint64_t tick)
{
    if (c->next_valid && tick >= c->next_tick) {
        c->count = pit_decode(c, c->reload);
        c->start_tick = c->next_tick - (c->next_low ? pit_high_ticks(c->count) : 0);
        c->reloaded = !c->next_low;
        c->next_valid = false;
    }
    if (c->phase != PHASE_IDLE && !c->next_valid && !pit_is_triggered(c) &&
        (c->phase == PHASE_HELD || (int64_t)(tick - c->start_tick) >= 0))
        c->null_count = false;
}

static void pit_set_count(struct pit_channel *c, uint16_t raw, uint64_t tick)
{
    c->reload = raw;
    c->written = true;
    c->null_count = true;
    if (pit_is_triggered(c))
        return;
    if (pit_is_periodic(c) && c->phase == PHASE_COUNTING)
        pit_load_later(c, tick);
    else
        pit_load(c, tick);
}

static void pit_gate_rises(struct pit_channel *c, uint64_t tick)
{
    if (pit_is_triggered(c)) {
        if (!c->written)
            return;
        pit_load(c, tick);
        c->null_count = false;
    } else if (c->phase == PHASE_HELD && pit_is_periodic(c)) {
        pit_load(c, tick);
    } else if (c->phase == PHASE_HELD) {
        c->start_tick = tick - c->held_ticks;
        c->phase = PHASE_COUNTING;
    }
}

static void pit_set_gate(struct pit_channel *c, bool gate, uint64_t tick)
{
    bool was = c->gate;

    c->gate = gate;
    if (gate && !was) {
        pit_gate_rises(c, tick);
    } else if (!gate && was && c->phase == PHASE_COUNTING && !pit_is_triggered(c)) {
        c->held_ticks = pit_elapsed(c, tick);
        c->phase = PHASE_HELD;
        c->next_valid = false;
    }
}

/* ---- OUT of counter 0 ---- */

/*
 * How often did OUT rise after tick from, up to and including tick to? More than once if the host
 * was late; of periods too short to be made up for it counts one.
 */
static unsigned pit_rises(const struct pit_channel *c, uint64_t from, uint64_t to)
{
    uint64_t elapsed = pit_elapsed(c, to), rise = c->count;

    if (c->phase != PHASE_COUNTING)
        return 0;
    if (pit_is_periodic(c))
        rise = elapsed / c->count * c->count;
    else if (c->mode >= 4)
        rise++;
    if (elapsed < rise || (rise == 0 && !c->reloaded))
        return 0;
    if ((int64_t)(c->start_tick + rise - from) <= 0)
        return 0;
    if (!pit_is_periodic(c) || c->count < MADE_UP_TICKS || from < c->start_tick)
        return 1;
    rise = (c->start_tick + rise - from - 1) / c->count + 1;
    return rise < MADE_UP_MAX ? (unsigned)rise : MADE_UP_MAX;
}

/* The next tick at which OUT changes in a way that has to be reported. */
static bool pit_next_change(const struct pit_channel *c, uint64_t tick, uint64_t *out_tick)
{
    uint64_t elapsed = pit_elapsed(c, tick), change = c->count;

    if (c->phase != PHASE_COUNTING)
        return false;
    if (pit_is_periodic(c))
        change = (elapsed / c->count + 1) * c->count;
    if (c->mode == 3 && pit_out(c, tick))
        change -= c->count - pit_high_ticks(c->count);
    if (c->mode >= 4)
        change++;
    if (change <= elapsed && !pit_is_periodic(c))
        return false;
    *out_tick = c->start_tick + change;
    if (c->next_valid && c->next_tick < *out_tick)
        *out_tick = c->next_tick;
    return true;
}

static void pit_report(struct pit *s, uint64_t tick)
{
    struct pit_channel *c = &s->channel[0];

    pit_sync(c, tick);
    for (unsigned rises = pit_rises(c, s->seen_tick, tick); rises; rises--) {
        if (s->irq.level)
            irq_set(&s->irq, false);
        irq_set(&s->irq, true);
    }
    s->seen_tick = tick;
    bool out = pit_out(c, tick);
    if (out != s->irq.level)
        irq_set(&s->irq, out);
}

static void pit_arm(struct pit *s, uint64_t tick, uint64_t not_before_ns)
{
    uint64_t change, deadline_ns;

    if (!pit_next_change(&s->channel[0], tick, &change)) {
        timer_cancel(&s->timer);
        return;
    }
    deadline_ns = pit_tick_ns(change);
    timer_arm(&s->timer, deadline_ns > not_before_ns ? deadline_ns : not_before_ns);
}

static void pit_fire(void *opaque)
{
    struct pit *s = opaque;
    uint64_t now_ns = device_now_ns(&s->dev), tick = pit_tick_at(now_ns);

    pit_report(s, tick);
    pit_arm(s, tick, now_ns + EDGE_MIN_NS);
}

/* After the guest changed counter 0. */
static void pit_changed(struct pit *s, uint64_t tick)
{
    pit_report(s, tick);
    pit_arm(s, tick, 0);
}

/* ---- the speaker ---- */

static bool pit_speaker_level(void *opaque, uint64_t now_ns)
{
    struct pit *s = opaque;
    uint64_t tick = pit_tick_at(now_ns);

    pit_sync(&s->channel[2], tick);
    return pit_out(&s->channel[2], tick);
}

static const struct pc_speaker_ops pit_speaker_ops = {.level = pit_speaker_level};

struct irq_line *pit_output(struct device *pit)
{
    return &pit_of(pit)->irq;
}

/* ---- reading and writing counters ---- */

static void pit_latch_count(struct pit_channel *c, uint64_t tick)
{
    if (c->count_latched)
        return;
    c->latch = pit_value(c, tick);
    c->count_latched = true;
}

static void pit_latch_status(struct pit_channel *c, uint64_t tick)
{
    if (c->status_latched)
        return;
    c->status = (uint8_t)(pit_out(c, tick) << 7 | c->null_count << 6 | c->access << 4 |
                          c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static uint8_t pit_read_count(struct pit_channel *c, uint64_t tick)
{
    uint16_t value = c->count_latched ? c->latch : pit_value(c, tick);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);

    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (!c->read_high)
        c->count_latched = false;
    return (uint8_t)(high ? value >> 8 : value);
}

static uint8_t pit_read_channel(struct pit_channel *c, uint64_t tick)
{
    pit_sync(c, tick);
    if (!c->status_latched)
        return pit_read_count(c, tick);
    c->status_latched = false;
    return c->status;
}

static void pit_write_channel(struct pit_channel *c, uint8_t value, uint64_t tick)
{
    pit_sync(c, tick);
    if (c->access == ACCESS_LOW) {
        pit_set_count(c, value, tick);
    } else if (c->access == ACCESS_HIGH) {
        pit_set_count(c, (uint16_t)(value << 8), tick);
    } else if (c->write_high) {
        c->write_high = false;
        pit_set_count(c, (uint16_t)(value << 8 | c->written_low), tick);
    } else {
        c->write_high = true;
        c->written_low = value;
        if (c->mode == 0) { /* the first byte stops the count and takes OUT down */
            c->phase = PHASE_IDLE;
            c->null_count = true;
        }
    }
}

/* ---- control word ---- */

static void pit_set_mode(struct pit_channel *c, uint8_t control)
{
    uint8_t mode = control >> 1 & 7;

    *c = (struct pit_channel){
        .mode = mode > 5 ? mode & 3 : mode, /* 6 is 2, 7 is 3 */
        .access = control >> 4 & 3,
        .bcd = control & 1,
        .gate = c->gate,
        .reload = c->reload,
        .null_count = true,
    };
    c->count = pit_decode(c, c->reload);
}

static void pit_read_back(struct pit *s, uint8_t command, uint64_t tick)
{
    for (unsigned i = 0; i < CHANNEL_COUNT; i++) {
        if (!(command >> (i + 1) & 1))
            continue;
        pit_sync(&s->channel[i], tick);
        if (!(command & 0x20))
            pit_latch_count(&s->channel[i], tick);
        if (!(command & 0x10))
            pit_latch_status(&s->channel[i], tick);
    }
}

static void pit_control(struct pit *s, uint8_t control, uint64_t tick)
{
    unsigned number = control >> 6;

    if (number == 3) {
        pit_read_back(s, control, tick);
        return;
    }
    pit_sync(&s->channel[number], tick);
    if ((control >> 4 & 3) == ACCESS_LATCH)
        pit_latch_count(&s->channel[number], tick);
    else
        pit_set_mode(&s->channel[number], control);
}

/* ---- ports ---- */

static uint64_t pit_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct pit *s = pit_of(dev);

    if (offset >= CHANNEL_COUNT)
        return 0xff; /* the control word cannot be read */
    return pit_read_channel(&s->channel[offset], pit_now(s));
}

static void pit_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pit *s = pit_of(dev);
    uint64_t tick = pit_now(s);

    pc_speaker_play(&s->speaker);
    pit_report(s, tick); /* what happened before this write */
    if (offset < CHANNEL_COUNT)
        pit_write_channel(&s->channel[offset], (uint8_t)value, tick);
    else
        pit_control(s, (uint8_t)value, tick);
    pit_changed(s, tick);
}

static uint64_t pit_port61_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct pit *s = pit_of(dev);
    uint64_t now_ns = device_now_ns(dev), tick = pit_tick_at(now_ns);
    uint8_t value = s->port61;

    pit_sync(&s->channel[2], tick);
    if (now_ns / REFRESH_TOGGLE_NS & 1)
        value |= PORT61_REFRESH;
    if (pit_out(&s->channel[2], tick))
        value |= PORT61_OUT2;
    return value;
}

static void pit_port61_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pit *s = pit_of(dev);
    uint64_t tick = pit_now(s);

    pc_speaker_play(&s->speaker);
    s->port61 = value & PORT61_WRITABLE;
    pc_speaker_switch(&s->speaker, value & PORT61_SPEAKER);
    pit_sync(&s->channel[2], tick);
    pit_set_gate(&s->channel[2], value & PORT61_GATE2, tick);
}

static const struct region_ops pit_ports = {
    .name = "pit",
    .read = pit_read,
    .write = pit_write,
    .min_size = 1,
    .max_size = 1,
};

static const struct region_ops pit_port61 = {
    .name = "pit-port61",
    .read = pit_port61_read,
    .write = pit_port61_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- class ---- */

static int pit_attach(struct device *dev, struct error *err)
{
    struct pit *s = pit_of(dev);
    int status;

    timer_init(&s->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, pit_fire, s);
    pc_speaker_init(&s->speaker, device_clocks(dev), s->audio, &pit_speaker_ops, s);
    status = device_map_ports(dev, 0x40, 4, &pit_ports, err);
    if (!status)
        status = device_map_ports(dev, 0x61, 1, &pit_port61, err);
    return status;
}

static void pit_detach(struct device *dev)
{
    pc_speaker_done(&pit_of(dev)->speaker);
    timer_done(&pit_of(dev)->timer);
}

/* The data sheet leaves power-on undefined; here nothing counts before it is programmed. */
static void pit_reset(struct device *dev)
{
    struct pit *s = pit_of(dev);

    for (unsigned i = 0; i < CHANNEL_COUNT; i++)
        s->channel[i] = (struct pit_channel){
            .access = ACCESS_BOTH, .gate = i != 2, .count = 65536, .null_count = true};
    s->port61 = 0;
    pc_speaker_reset(&s->speaker, false);
    s->seen_tick = pit_now(s);
    timer_cancel(&s->timer);
}

static void pit_reset_done(struct device *dev)
{
    irq_set(&pit_of(dev)->irq, false);
}

static int pit_after_load(void *object, struct error *err)
{
    struct pit *s = object;

    for (unsigned i = 0; i < CHANNEL_COUNT; i++) {
        struct pit_channel *c = &s->channel[i];

        if (c->count > pit_modulus(c) || (pit_is_periodic(c) && c->count < 2))
            return error_set(err, EINVAL, "pit: counter %u cannot count %u in mode %u", i, c->count,
                             c->mode);
    }
    pc_speaker_reset(&s->speaker, s->port61 & PORT61_SPEAKER);
    return 0;
}

static const struct property pit_properties[] = {
    PROPERTY_POINTER(struct pit, audio, "where the speaker sounds"),
    PROPERTY_END,
};

static const struct state_field pit_channel_state[] = {
    STATE_U8_MAX(struct pit_channel, mode, 5),
    STATE_FIELD_(struct pit_channel, STATE_TYPE_U8, access, 1, 1, ACCESS_LOW, ACCESS_BOTH, NULL),
    STATE_U8_MAX(struct pit_channel, phase, PHASE_COUNT - 1),
    STATE_BOOL(struct pit_channel, bcd),
    STATE_BOOL(struct pit_channel, gate),
    STATE_U16(struct pit_channel, reload),
    STATE_U8(struct pit_channel, written_low),
    STATE_BOOL(struct pit_channel, write_high),
    STATE_BOOL(struct pit_channel, read_high),
    STATE_BOOL(struct pit_channel, written),
    STATE_BOOL(struct pit_channel, null_count),
    STATE_BOOL(struct pit_channel, status_latched),
    STATE_BOOL(struct pit_channel, count_latched),
    STATE_U8(struct pit_channel, status),
    STATE_U16(struct pit_channel, latch),
    STATE_FIELD_(struct pit_channel, STATE_TYPE_U32, count, 1, 4, 1, 65536, NULL),
    STATE_U64(struct pit_channel, start_tick),
    STATE_U64(struct pit_channel, held_ticks),
    STATE_BOOL(struct pit_channel, reloaded),
    STATE_BOOL(struct pit_channel, next_valid),
    STATE_BOOL(struct pit_channel, next_low),
    STATE_U64(struct pit_channel, next_tick),
    STATE_END,
};

static const struct state_field pit_state[] = {
    STATE_STRUCTS(struct pit, channel, pit_channel_state),
    STATE_U8_MAX(struct pit, port61, PORT61_WRITABLE),
    STATE_U64(struct pit, seen_tick),
    STATE_LINE(struct pit, irq),
    STATE_TIMER(struct pit, timer),
    STATE_END,
};

static const struct device_output pit_outputs[] = {
    DEVICE_OUTPUT(struct pit, irq),
    DEVICE_OUTPUT_END,
};

const struct device_class pit_class = {
    .name = "pit",
    .summary = "8254 interval timer and port 0x61",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct pit),
    .properties = pit_properties,
    .outputs = pit_outputs,
    .attach = pit_attach,
    .reset = pit_reset,
    .reset_done = pit_reset_done,
    .detach = pit_detach,
    .state = {.version = 1, .oldest = 1, .fields = pit_state, .after_load = pit_after_load},
};
