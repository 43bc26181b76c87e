/*
 * ioapic.c - the I/O APIC: interrupt lines in, APIC messages out
 *
 * After Intel's 82093AA data sheet (290566) with the EOI register at offset 0x40 of version
 * 0x20 (Intel ICH10, 13.5.6). Modelled: 24 redirection entries, edge and level triggering
 * with remote IRR, masks, all delivery modes, arbitration register.
 *
 * Left out: the polarity bit is kept but has no effect, because a line says "asserted" and
 * not a voltage; the delivery status bit always reads idle, because messages do not wait.
 *
 * Theory of operation. A rising edge on an unmasked edge pin sends one message; while masked
 * it is lost. A level pin sends a message when it is asserted, not masked and has no
 * remote IRR; a message that a local APIC took sets remote IRR, and the EOI of that
 * vector, by broadcast or through the EOI register, clears it and looks at the line again.
 * Only fixed and lowest-priority deliveries can be level-triggered. Writing an
 * entry as edge-triggered clears remote IRR, which old kernels use to unjam a pin.
 *
 * Ticks of the timer (pin 2) that come while the one before still waits in a local APIC are lost on
 * real hardware, where processors are not kept from their interrupts by other work of a host. They
 * are counted and made up for at the EOI of the one before (apic_want_eoi), until the pin is
 * masked.
 *
 * Threads: registers with the machine lock; inputs and EOIs from any thread. Own lock; order:
 * machine, PIC, I/O APIC, local APIC.
 */
#include "devices/ioapic.h"

#include <errno.h>

#include "base/log.h"
#include "devices/apic.h"
#include "devices/pic.h"
#include "host/host.h"
#include "trapeze/machine.h"

#define WINDOW_BYTES     0x1000u
#define OFFSET_SELECT    0x00u
#define OFFSET_DATA      0x10u
#define OFFSET_EOI       0x40u

#define REG_ID           0x00u
#define REG_VERSION      0x01u
#define REG_ARBITRATION  0x02u
#define REG_ENTRIES      0x10u

#define ENTRY_LOGICAL    0x800ull
#define ENTRY_REMOTE_IRR 0x4000ull
#define ENTRY_LEVEL      0x8000ull
#define ENTRY_MASKED     0x10000ull
#define ENTRY_WRITABLE   0xff0000000001afffull

#define TIMER_PIN        2u
#define LOST_TICKS_MAX   1000u

struct ioapic {
    struct device dev;
    uint64_t gpa;    /* property */
    uint8_t apic_id; /* property: ID after reset */
    struct host_mutex lock;

    /* guest-visible state */
    uint8_t id;     /* 0-15 */
    uint8_t select; /* register that the data window shows */
    uint32_t lines; /* asserted inputs */
    uint64_t entry[IOAPIC_PIN_COUNT];
    uint16_t lost_ticks; /* of TIMER_PIN */
};

static struct ioapic *ioapic_of(struct device *dev)
{
    return container_of(dev, struct ioapic, dev);
}

/* ---- messages; lock held ---- */

static bool entry_is_level(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) && (entry >> 8 & 7) <= APIC_LOWEST;
}

static struct apic_message message_of(uint64_t entry)
{
    return (struct apic_message){
        .destination = (uint32_t)(entry >> 56),
        .logical = entry & ENTRY_LOGICAL,
        .level = entry_is_level(entry),
        .delivery = entry >> 8 & 7,
        .vector = (uint8_t)entry,
    };
}

static bool ioapic_send_locked(struct ioapic *s, unsigned pin)
{
    struct apic_message message = message_of(s->entry[pin]);

    trace(IOAPIC_SEND, pin, s->entry[pin]);
    return apic_deliver(s->dev.machine, &message) > 0;
}

static bool counts_ticks(uint64_t entry)
{
    return !(entry & (ENTRY_MASKED | ENTRY_LEVEL)) && (entry >> 8 & 7) <= APIC_LOWEST;
}

/* A tick: to be sent at once (false), or when the one before has been dealt with. */
static bool ioapic_keep_tick_locked(struct ioapic *s)
{
    struct apic_message message = message_of(s->entry[TIMER_PIN]);

    if (!counts_ticks(s->entry[TIMER_PIN]) || !apic_is_waiting(s->dev.machine, &message))
        return false;
    if (s->lost_ticks < LOST_TICKS_MAX)
        s->lost_ticks++;
    apic_want_eoi(s->dev.machine, message.vector);
    return true;
}

/* This vector's EOI: the next tick that is to be made up for. */
static void ioapic_make_up_locked(struct ioapic *s, uint8_t vector)
{
    struct apic_message message = message_of(s->entry[TIMER_PIN]);

    if (!s->lost_ticks || message.vector != vector || apic_is_waiting(s->dev.machine, &message))
        return;
    if (--s->lost_ticks == 0)
        apic_want_eoi(s->dev.machine, -1);
    ioapic_send_locked(s, TIMER_PIN);
}

/* TIMER_PIN's entry was written. */
static void ioapic_timer_changed_locked(struct ioapic *s)
{
    if (!counts_ticks(s->entry[TIMER_PIN]))
        s->lost_ticks = 0;
    apic_want_eoi(s->dev.machine, s->lost_ticks ? (uint8_t)s->entry[TIMER_PIN] : -1);
}

/* A level pin may have something to say: it was asserted, unmasked or acknowledged. */
static void ioapic_level_locked(struct ioapic *s, unsigned pin)
{
    uint64_t *entry = &s->entry[pin];

    if (!entry_is_level(*entry) || !(s->lines >> pin & 1) ||
        (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        return;
    if (ioapic_send_locked(s, pin))
        *entry |= ENTRY_REMOTE_IRR;
}

void ioapic_sink(void *ioapic, unsigned number, bool level)
{
    struct ioapic *s = ioapic_of(ioapic);

    if (number >= IOAPIC_PIN_COUNT)
        return;
    host_mutex_lock(&s->lock);
    uint32_t bit = 1u << number;
    bool rises = level && !(s->lines & bit);
    s->lines = level ? s->lines | bit : s->lines & ~bit;
    if (entry_is_level(s->entry[number]))
        ioapic_level_locked(s, number);
    else if (rises && !(s->entry[number] & ENTRY_MASKED) &&
             !(number == TIMER_PIN && ioapic_keep_tick_locked(s)))
        ioapic_send_locked(s, number);
    host_mutex_unlock(&s->lock);
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
    struct ioapic *s = opaque;

    host_mutex_lock(&s->lock);
    for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++) {
        if ((uint8_t)s->entry[pin] != vector || !(s->entry[pin] & ENTRY_REMOTE_IRR))
            continue;
        s->entry[pin] &= ~ENTRY_REMOTE_IRR;
        ioapic_level_locked(s, pin);
    }
    ioapic_make_up_locked(s, vector);
    host_mutex_unlock(&s->lock);
}

/* ---- registers; lock held ---- */

static uint32_t ioapic_read_data_locked(struct ioapic *s)
{
    unsigned pin = (s->select - REG_ENTRIES) / 2u;

    switch (s->select) {
    case REG_ID:
    case REG_ARBITRATION:
        return (uint32_t)s->id << 24;
    case REG_VERSION:
        return (IOAPIC_PIN_COUNT - 1) << 16 | 0x20;
    default:
        if (s->select < REG_ENTRIES || pin >= IOAPIC_PIN_COUNT)
            return 0;
        return (uint32_t)(s->entry[pin] >> (s->select & 1) * 32);
    }
}

static void ioapic_write_entry_locked(struct ioapic *s, unsigned pin, bool high, uint32_t value)
{
    unsigned shift = high ? 32 : 0;
    uint64_t writable = ENTRY_WRITABLE & (0xffffffffull << shift);
    uint64_t entry = (s->entry[pin] & ~writable) | ((uint64_t)value << shift & writable);

    if (!entry_is_level(entry))
        entry &= ~ENTRY_REMOTE_IRR;
    s->entry[pin] = entry;
    ioapic_level_locked(s, pin);
    if (pin == TIMER_PIN)
        ioapic_timer_changed_locked(s);
}

static void ioapic_write_data_locked(struct ioapic *s, uint32_t value)
{
    unsigned pin = (s->select - REG_ENTRIES) / 2u;

    if (s->select == REG_ID)
        s->id = value >> 24 & 0xf;
    else if (s->select >= REG_ENTRIES && pin < IOAPIC_PIN_COUNT)
        ioapic_write_entry_locked(s, pin, s->select & 1, value);
}

static uint64_t ioapic_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct ioapic *s = ioapic_of(dev);
    uint64_t value = 0;

    host_mutex_lock(&s->lock);
    if (offset == OFFSET_SELECT)
        value = s->select;
    else if (offset == OFFSET_DATA)
        value = ioapic_read_data_locked(s);
    host_mutex_unlock(&s->lock);
    return value;
}

static void ioapic_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct ioapic *s = ioapic_of(dev);

    if (offset == OFFSET_EOI) {
        ioapic_eoi(s, (uint8_t)value);
        return;
    }
    host_mutex_lock(&s->lock);
    if (offset == OFFSET_SELECT)
        s->select = (uint8_t)value;
    else if (offset == OFFSET_DATA)
        ioapic_write_data_locked(s, (uint32_t)value);
    host_mutex_unlock(&s->lock);
}

/* ---- ISA lines ---- */

void isa_irq_sink(void *isa_irqs, unsigned number, bool level)
{
    const struct isa_irqs *irqs = isa_irqs;

    if (number >= 16 || number == 2)
        return;
    if (irqs->pic)
        pic_sink(irqs->pic, number, level);
    if (irqs->ioapic)
        ioapic_sink(irqs->ioapic, number ? number : 2, level);
}

/* ---- class ---- */

/* The window is decoded on dwords; narrower accesses reach the low bytes of a register. */
static const struct region_ops ioapic_window = {
    .name = "ioapic",
    .read = ioapic_read,
    .write = ioapic_write,
    .min_size = 1,
    .max_size = 4,
};

static int ioapic_attach(struct device *dev, struct error *err)
{
    struct ioapic *s = ioapic_of(dev);
    int status;

    host_mutex_init(&s->lock);
    status = device_map_memory(dev, s->gpa, WINDOW_BYTES, &ioapic_window, err);
    if (!status)
        status = apic_set_eoi_sink(dev->machine, ioapic_eoi, s, err);
    if (!status)
        machine_set_msi_sink(dev->machine, apic_msi_sink, dev->machine);
    return status;
}

static void ioapic_detach(struct device *dev)
{
    machine_set_msi_sink(dev->machine, NULL, NULL);
    apic_set_eoi_sink(dev->machine, NULL, NULL, NULL);
    host_mutex_done(&ioapic_of(dev)->lock);
}

static void ioapic_reset(struct device *dev)
{
    struct ioapic *s = ioapic_of(dev);

    host_mutex_lock(&s->lock);
    s->id = s->apic_id & 0xf;
    s->select = 0;
    s->lines = 0;
    for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++)
        s->entry[pin] = ENTRY_MASKED;
    ioapic_timer_changed_locked(s);
    host_mutex_unlock(&s->lock);
}

static const struct property ioapic_properties[] = {
    PROPERTY_U64(struct ioapic, gpa, IOAPIC_GPA, "guest-physical address of the registers"),
    PROPERTY_U8(struct ioapic, apic_id, 0, "APIC ID after reset, 0-15"),
    PROPERTY_END,
};

static int ioapic_after_load(void *object, struct error *err)
{
    struct ioapic *s = object;

    s->lines &= (1u << IOAPIC_PIN_COUNT) - 1;
    for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++)
        s->entry[pin] &= ENTRY_WRITABLE | ENTRY_REMOTE_IRR;
    ioapic_timer_changed_locked(s); /* nothing runs */
    return 0;
}

static const struct state_field ioapic_state[] = {
    STATE_U8_MAX(struct ioapic, id, 15),  STATE_U8(struct ioapic, select),
    STATE_U32(struct ioapic, lines),      STATE_U64S(struct ioapic, entry),
    STATE_U16(struct ioapic, lost_ticks), STATE_END,
};

const struct device_class ioapic_class = {
    .name = "ioapic",
    .summary = "I/O APIC with 24 inputs",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct ioapic),
    .properties = ioapic_properties,
    .attach = ioapic_attach,
    .reset = ioapic_reset,
    .detach = ioapic_detach,
    .state = {.version = 1, .oldest = 1, .fields = ioapic_state, .after_load = ioapic_after_load},
};
