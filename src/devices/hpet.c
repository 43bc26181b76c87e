/*
 * hpet.c - high precision event timer
 *
 * After the IA-PC HPET Specification 1.0a: a 64-bit counter at 100 MHz, three timers, each
 * one-shot or periodic, 32- or 64-bit, edge or level, through an I/O APIC pin or as a
 * message (FSB); legacy replacement routing of timers 0 and 1 to IRQ0 and IRQ8.
 *
 * Left out: reads and writes of the counter while it runs behave, although the
 * specification leaves writes undefined then. Periods shorter than PERIOD_MIN_NS are
 * merged into fewer interrupts. Of those that passed while the host was busy each is an edge (the
 * interrupt controllers keep ticks of IRQ0 that the guest cannot take yet), unless they are shorter
 * than MADE_UP_NS.
 *
 * Theory of operation. The running counter is virtual time / 10 ns + counter_offset. A timer's
 * comparator holds the next match; a timer on the virtual clock wakes for the earliest that
 * interrupts (due_ns), and every register access first handles what is due. A match advances
 * the comparator of a periodic timer by its period, sets the status bit of a level
 * timer, and drives its output. Lines that the PIT and the RTC drive come in
 * through hpet_sink and go on unless legacy replacement takes their place.
 *
 * A write to the comparator of a periodic timer sets its period, and with VAL_SET also the
 * comparator. The comparator then needs another write for the period: that is what
 * systems do, since the specification wants both.
 *
 * Threads: machine lock.
 */
#include "devices/hpet.h"

#include <errno.h>

#include "base/log.h"
#include "devices/ioapic.h"
#include "trapeze/machine.h"

#define WINDOW_BYTES       0x400u
#define TICK_NS            (HPET_PERIOD_FS / 1000000u)
#define PERIOD_MIN_NS      10000u
#define MADE_UP_NS         100000u
#define MADE_UP_MAX        1000u /* periods at a time */

#define REG_CAPABILITIES   0x000u
#define REG_CONFIG         0x010u
#define REG_STATUS         0x020u
#define REG_COUNTER        0x0f0u
#define REG_TIMERS         0x100u
#define TIMER_STRIDE       0x20u

#define CONFIG_ENABLE      1ull
#define CONFIG_LEGACY      2ull

#define TIMER_LEVEL        0x0002ull
#define TIMER_INT_ENABLE   0x0004ull
#define TIMER_PERIODIC     0x0008ull
#define TIMER_CAN_PERIODIC 0x0010ull
#define TIMER_CAN_64       0x0020ull
#define TIMER_SET_VALUE    0x0040ull
#define TIMER_32BIT        0x0100ull
#define TIMER_ROUTE_SHIFT  9
#define TIMER_ROUTE        0x3e00ull
#define TIMER_FSB          0x4000ull
#define TIMER_CAN_FSB      0x8000ull
#define TIMER_CAPABILITIES (TIMER_CAN_PERIODIC | TIMER_CAN_64 | TIMER_CAN_FSB)
#define TIMER_WRITABLE                                                                             \
    (TIMER_LEVEL | TIMER_INT_ENABLE | TIMER_PERIODIC | TIMER_SET_VALUE | TIMER_32BIT |             \
     TIMER_ROUTE | TIMER_FSB)

/* I/O APIC pins that a timer can be routed to, as in Intel's ICH10. */
static const uint32_t hpet_routes[HPET_TIMER_COUNT] = {0x00f00000, 0x00f00000, 0x00f00800};

struct hpet_timer {
    /* guest-visible state */
    uint64_t config; /* TIMER_WRITABLE bits only */
    uint64_t comparator;
    uint64_t period; /* of a periodic timer */
    uint64_t fsb;    /* message: address in the high half, data in the low */
    uint64_t due_ns; /* of the next match; CLOCK_NEVER: none */
};

struct hpet {
    struct device dev;
    uint64_t gpa; /* property */

    /* guest-visible state */
    uint64_t config;
    uint64_t status;
    uint64_t counter_offset; /* running: counter - ticks of virtual time; else the counter */
    struct hpet_timer timers[HPET_TIMER_COUNT];
    bool input[2];             /* levels of the PIT's and the RTC's line */
    struct irq_line legacy[2]; /* IRQ0, IRQ8 */
    struct irq_line io[IOAPIC_PIN_COUNT];
    struct timer timer;
};

static struct hpet *hpet_of(struct device *dev)
{
    return container_of(dev, struct hpet, dev);
}

static bool hpet_runs(const struct hpet *s)
{
    return s->config & CONFIG_ENABLE;
}

static bool hpet_is_legacy(const struct hpet *s)
{
    return s->config & CONFIG_LEGACY;
}

static uint64_t hpet_counter(const struct hpet *s, uint64_t now_ns)
{
    return hpet_runs(s) ? now_ns / TICK_NS + s->counter_offset : s->counter_offset;
}

/* Bits of counter and comparator that a timer compares. */
static uint64_t hpet_mask(const struct hpet_timer *t)
{
    return t->config & TIMER_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* ---- outputs ---- */

/* The line that a timer drives; NULL if it sends messages or is routed nowhere. */
static struct irq_line *hpet_line(struct hpet *s, unsigned number)
{
    uint64_t config = s->timers[number].config;
    unsigned route = (config & TIMER_ROUTE) >> TIMER_ROUTE_SHIFT;

    if (config & TIMER_FSB)
        return NULL;
    if (number < 2 && hpet_is_legacy(s))
        return &s->legacy[number];
    return hpet_routes[number] >> route & 1 ? &s->io[route] : NULL;
}

/* A level timer with its status bit set holds this line up. */
static bool hpet_is_held(struct hpet *s, const struct irq_line *line)
{
    for (unsigned i = 0; i < HPET_TIMER_COUNT; i++) {
        uint64_t wanted = TIMER_LEVEL | TIMER_INT_ENABLE;

        if ((s->status >> i & 1) && (s->timers[i].config & wanted) == wanted &&
            hpet_line(s, i) == line)
            return true;
    }
    return false;
}

static void hpet_update_line(struct hpet *s, struct irq_line *line, bool level)
{
    if (line->level != level)
        irq_set(line, level);
}

/* After a change of status, routing or type. */
static void hpet_update_lines(struct hpet *s)
{
    for (unsigned i = 0; i < 2; i++) {
        bool held = hpet_is_held(s, &s->legacy[i]);

        hpet_update_line(s, &s->legacy[i], hpet_is_legacy(s) ? held : s->input[i]);
    }
    for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++)
        hpet_update_line(s, &s->io[pin], hpet_is_held(s, &s->io[pin]));
}

void hpet_sink(void *hpet, unsigned number, bool level)
{
    struct hpet *s = hpet_of(hpet);
    unsigned index = number == 8;

    if (number != 0 && number != 8)
        return;
    s->input[index] = level;
    if (!hpet_is_legacy(s))
        irq_set(&s->legacy[index], level);
}

static void hpet_interrupt(struct hpet *s, unsigned number)
{
    struct hpet_timer *t = &s->timers[number];
    struct irq_line *line = hpet_line(s, number);

    if (t->config & TIMER_LEVEL)
        s->status |= 1ull << number;
    if (!(t->config & TIMER_INT_ENABLE))
        return;
    if (t->config & TIMER_FSB)
        msi_send(s->dev.machine, t->fsb >> 32, (uint32_t)t->fsb);
    else if (line && (t->config & TIMER_LEVEL))
        hpet_update_line(s, line, true);
    else if (line)
        irq_pulse(line);
}

/* ---- matches ---- */

static bool hpet_is_periodic(const struct hpet_timer *t)
{
    return (t->config & TIMER_PERIODIC) && (t->period & hpet_mask(t));
}

/* matched: the comparator equals the counter now, but that match has been handled. */
static void hpet_schedule(struct hpet *s, struct hpet_timer *t, uint64_t now_ns, bool matched)
{
    uint64_t distance = (t->comparator - hpet_counter(s, now_ns)) & hpet_mask(t);
    uint64_t now_ticks = now_ns / TICK_NS;

    t->due_ns = CLOCK_NEVER;
    if (!hpet_runs(s))
        return;
    if (distance == 0 && matched) {
        if (!(t->config & TIMER_32BIT))
            return;
        distance = 1ull << 32;
    }
    if (distance < (CLOCK_NEVER / TICK_NS) - now_ticks)
        t->due_ns = (now_ticks + distance) * TICK_NS;
}

/*
 * Move the comparator of a periodic timer past now, and far enough for the host to breathe. How
 * many interrupts that stands for.
 */
static uint64_t hpet_advance(struct hpet *s, struct hpet_timer *t, uint64_t now_ns)
{
    uint64_t period = t->period & hpet_mask(t);
    uint64_t late = (hpet_counter(s, now_ns) - t->comparator) & hpet_mask(t);
    uint64_t periods = late / period + 1;

    if (period < PERIOD_MIN_NS / TICK_NS)
        periods += PERIOD_MIN_NS / TICK_NS / period;
    t->comparator = (t->comparator + periods * period) & hpet_mask(t);
    if (period < MADE_UP_NS / TICK_NS || (t->config & TIMER_LEVEL))
        return 1;
    return periods < MADE_UP_MAX ? periods : MADE_UP_MAX;
}

static void hpet_match(struct hpet *s, unsigned number, uint64_t now_ns)
{
    struct hpet_timer *t = &s->timers[number];
    uint64_t interrupts = 1;

    trace(HPET_MATCH, number, now_ns);
    if (hpet_is_periodic(t))
        interrupts = hpet_advance(s, t, now_ns);
    hpet_schedule(s, t, now_ns, true);
    while (interrupts--)
        hpet_interrupt(s, number);
}

/* A timer without interrupt is brought up to date when somebody looks: it wakes nobody. */
static void hpet_arm(struct hpet *s)
{
    uint64_t due_ns = CLOCK_NEVER;

    for (unsigned i = 0; i < HPET_TIMER_COUNT; i++) {
        const struct hpet_timer *t = &s->timers[i];

        if ((t->config & TIMER_INT_ENABLE) && t->due_ns < due_ns)
            due_ns = t->due_ns;
    }
    timer_arm(&s->timer, due_ns);
}

static void hpet_catch_up(struct hpet *s, uint64_t now_ns)
{
    for (unsigned i = 0; i < HPET_TIMER_COUNT; i++) {
        if (s->timers[i].due_ns <= now_ns)
            hpet_match(s, i, now_ns);
    }
}

static void hpet_schedule_all(struct hpet *s, uint64_t now_ns)
{
    for (unsigned i = 0; i < HPET_TIMER_COUNT; i++)
        hpet_schedule(s, &s->timers[i], now_ns, false);
    hpet_catch_up(s, now_ns);
}

static void hpet_fire(void *opaque)
{
    struct hpet *s = opaque;

    hpet_catch_up(s, device_now_ns(&s->dev));
    hpet_arm(s);
}

/* ---- registers, as 64-bit values ---- */

static uint64_t hpet_read_timer(const struct hpet *s, unsigned number, uint64_t reg)
{
    const struct hpet_timer *t = &s->timers[number];

    switch (reg) {
    case 0x00:
        return (uint64_t)hpet_routes[number] << 32 | TIMER_CAPABILITIES | t->config;
    case 0x08:
        return t->comparator & hpet_mask(t);
    case 0x10:
        return t->fsb;
    default:
        return 0;
    }
}

static uint64_t hpet_read_register(const struct hpet *s, uint64_t reg, uint64_t now_ns)
{
    uint64_t number = (reg - REG_TIMERS) / TIMER_STRIDE;

    switch (reg) {
    case REG_CAPABILITIES:
        return (uint64_t)HPET_PERIOD_FS << 32 | HPET_HARDWARE_ID;
    case REG_CONFIG:
        return s->config;
    case REG_STATUS:
        return s->status;
    case REG_COUNTER:
        return hpet_counter(s, now_ns);
    default:
        if (reg < REG_TIMERS || number >= HPET_TIMER_COUNT)
            return 0;
        return hpet_read_timer(s, (unsigned)number, reg % TIMER_STRIDE);
    }
}

static void hpet_write_config(struct hpet *s, uint64_t value, uint64_t now_ns)
{
    uint64_t counter = hpet_counter(s, now_ns);

    s->config = value & (CONFIG_ENABLE | CONFIG_LEGACY);
    s->counter_offset = hpet_runs(s) ? counter - now_ns / TICK_NS : counter;
    hpet_update_lines(s);
    hpet_schedule_all(s, now_ns);
}

static void hpet_write_counter(struct hpet *s, uint64_t value, uint64_t now_ns)
{
    s->counter_offset = hpet_runs(s) ? value - now_ns / TICK_NS : value;
    hpet_schedule_all(s, now_ns);
}

static void hpet_write_timer_config(struct hpet *s, unsigned number, uint64_t value)
{
    struct hpet_timer *t = &s->timers[number];
    uint64_t route = (value & TIMER_ROUTE) >> TIMER_ROUTE_SHIFT;

    value &= TIMER_WRITABLE;
    if (!(hpet_routes[number] >> route & 1)) /* not offered: keeps what it was */
        value = (value & ~TIMER_ROUTE) | (t->config & TIMER_ROUTE);
    t->config = value;
    t->comparator &= hpet_mask(t);
    t->period &= hpet_mask(t);
    hpet_update_lines(s);
}

/* written: the bits that this access covers; the low half ends the effect of VAL_SET. */
static void hpet_write_comparator(struct hpet_timer *t, uint64_t value, uint64_t written)
{
    uint64_t mask = hpet_mask(t) & written;

    if (!(t->config & TIMER_PERIODIC) || (t->config & TIMER_SET_VALUE))
        t->comparator = (t->comparator & ~mask) | (value & mask);
    if (t->config & TIMER_PERIODIC)
        t->period = (t->period & ~mask) | (value & mask);
    if ((uint32_t)written)
        t->config &= ~TIMER_SET_VALUE;
}

static void hpet_write_timer(struct hpet *s, unsigned number, uint64_t reg, uint64_t value,
                             uint64_t written, uint64_t now_ns)
{
    struct hpet_timer *t = &s->timers[number];

    switch (reg) {
    case 0x00:
        hpet_write_timer_config(s, number, (hpet_read_timer(s, number, 0) & ~written) | value);
        break;
    case 0x08:
        hpet_write_comparator(t, value, written);
        break;
    case 0x10:
        t->fsb = (t->fsb & ~written) | value;
        return;
    default:
        return;
    }
    hpet_schedule(s, t, now_ns, false);
    hpet_catch_up(s, now_ns);
}

/* value has only bits that are written. */
static void hpet_write_register(struct hpet *s, uint64_t reg, uint64_t value, uint64_t written,
                                uint64_t now_ns)
{
    uint64_t number = (reg - REG_TIMERS) / TIMER_STRIDE;

    switch (reg) {
    case REG_CONFIG:
        hpet_write_config(s, (s->config & ~written) | value, now_ns);
        break;
    case REG_STATUS:
        s->status &= ~value;
        hpet_update_lines(s);
        break;
    case REG_COUNTER:
        hpet_write_counter(s, (hpet_counter(s, now_ns) & ~written) | value, now_ns);
        break;
    default:
        if (reg >= REG_TIMERS && number < HPET_TIMER_COUNT)
            hpet_write_timer(s, (unsigned)number, reg % TIMER_STRIDE, value, written, now_ns);
        break;
    }
}

/* ---- window: 32- and 64-bit accesses ---- */

static uint64_t hpet_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct hpet *s = hpet_of(dev);
    uint64_t now_ns = device_now_ns(dev);
    uint64_t value;

    hpet_catch_up(s, now_ns);
    hpet_arm(s);
    value = hpet_read_register(s, offset & ~7ull, now_ns);
    return size == 8 ? value : (uint32_t)(value >> (offset & 4) * 8);
}

static void hpet_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct hpet *s = hpet_of(dev);
    uint64_t now_ns = device_now_ns(dev);
    unsigned shift = (offset & 4) * 8;
    uint64_t written = size == 8 ? UINT64_MAX : (uint64_t)UINT32_MAX << shift;

    hpet_catch_up(s, now_ns);
    hpet_write_register(s, offset & ~7ull, value << shift & written, written, now_ns);
    hpet_arm(s);
}

static const struct region_ops hpet_window = {
    .name = "hpet",
    .read = hpet_read,
    .write = hpet_write,
    .min_size = 4,
    .max_size = 8,
};

/* ---- class ---- */

void hpet_connect(struct device *hpet, irq_sink_fn *isa, void *isa_opaque, irq_sink_fn *io,
                  void *io_opaque)
{
    struct hpet *s = hpet_of(hpet);

    irq_connect(&s->legacy[0], isa, isa_opaque, 0);
    irq_connect(&s->legacy[1], isa, isa_opaque, 8);
    for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++) {
        if ((hpet_routes[0] | hpet_routes[1] | hpet_routes[2]) >> pin & 1)
            irq_connect(&s->io[pin], io, io_opaque, pin);
    }
}

static int hpet_attach(struct device *dev, struct error *err)
{
    struct hpet *s = hpet_of(dev);

    timer_init(&s->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, hpet_fire, s);
    return device_map_memory(dev, s->gpa, WINDOW_BYTES, &hpet_window, err);
}

static void hpet_detach(struct device *dev)
{
    timer_done(&hpet_of(dev)->timer);
}

static void hpet_reset(struct device *dev)
{
    struct hpet *s = hpet_of(dev);

    s->config = 0;
    s->status = 0;
    s->counter_offset = 0;
    for (unsigned i = 0; i < HPET_TIMER_COUNT; i++)
        s->timers[i] = (struct hpet_timer){.comparator = UINT64_MAX, .due_ns = CLOCK_NEVER};
    s->input[0] = s->input[1] = false;
    timer_cancel(&s->timer);
}

static void hpet_reset_done(struct device *dev)
{
    hpet_update_lines(hpet_of(dev));
}

static int hpet_after_load(void *object, struct error *err)
{
    struct hpet *s = object;

    s->config &= CONFIG_ENABLE | CONFIG_LEGACY;
    for (unsigned i = 0; i < HPET_TIMER_COUNT; i++)
        s->timers[i].config &= TIMER_WRITABLE;
    hpet_arm(s);
    return 0;
}

static const struct property hpet_properties[] = {
    PROPERTY_U64(struct hpet, gpa, HPET_GPA, "guest-physical address of the registers"),
    PROPERTY_END,
};

static const struct state_field hpet_timer_state[] = {
    STATE_U64(struct hpet_timer, config), STATE_U64(struct hpet_timer, comparator),
    STATE_U64(struct hpet_timer, period), STATE_U64(struct hpet_timer, fsb),
    STATE_U64(struct hpet_timer, due_ns), STATE_END,
};

static const struct state_field hpet_line_state[] = {
    {.name = "line", .type = STATE_TYPE_LINE, .offset = 0, .count = 1},
    STATE_END,
};

static const struct state_field hpet_state[] = {
    STATE_U64_MAX(struct hpet, config, CONFIG_ENABLE | CONFIG_LEGACY),
    STATE_U64_MAX(struct hpet, status, (1u << HPET_TIMER_COUNT) - 1),
    STATE_U64(struct hpet, counter_offset),
    STATE_STRUCTS(struct hpet, timers, hpet_timer_state),
    STATE_BOOLS(struct hpet, input),
    STATE_STRUCTS(struct hpet, legacy, hpet_line_state),
    STATE_STRUCTS(struct hpet, io, hpet_line_state),
    STATE_END,
};

static const struct device_output hpet_outputs[] = {
    DEVICE_OUTPUTS(struct hpet, legacy),
    DEVICE_OUTPUTS(struct hpet, io),
    DEVICE_OUTPUT_END,
};

const struct device_class hpet_class = {
    .name = "hpet",
    .summary = "high precision event timer with three timers",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct hpet),
    .properties = hpet_properties,
    .outputs = hpet_outputs,
    .attach = hpet_attach,
    .reset = hpet_reset,
    .reset_done = hpet_reset_done,
    .detach = hpet_detach,
    .state = {.version = 1, .oldest = 1, .fields = hpet_state, .after_load = hpet_after_load},
};
