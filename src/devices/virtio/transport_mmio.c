/*
 * transport_mmio.c - a virtio device as a page of registers, without PCI
 *
 * The specification, 4.2.2: version 2 of the registers. Shared memory regions are not there, nor is
 * the legacy interface.
 *
 * A driver that takes an enabled queue away by QueueReady, which no reset has stopped, breaks the
 * device: requests may be under way in it.
 *
 * Threads: machine lock held.
 */
#include "devices/virtio/transport_mmio.h"

#include <errno.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "trapeze/machine.h"

#define MAGIC      0x74726976u /* "virt" */
#define VERSION    2u
#define VENDOR     0x1af4u

#define ISR_QUEUE  0x1u
#define ISR_CONFIG 0x2u

enum mmio_register {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR_ID = 0x00c,
    REG_OFFERED = 0x010,
    REG_OFFERED_SELECT = 0x014,
    REG_ACCEPTED = 0x020,
    REG_ACCEPTED_SELECT = 0x024,
    REG_QUEUE_SELECT = 0x030,
    REG_QUEUE_SIZE_MAX = 0x034,
    REG_QUEUE_SIZE = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_DESCRIPTORS_LOW = 0x080,
    REG_DESCRIPTORS_HIGH = 0x084,
    REG_DRIVER_LOW = 0x090,
    REG_DRIVER_HIGH = 0x094,
    REG_DEVICE_LOW = 0x0a0,
    REG_DEVICE_HIGH = 0x0a4,
    REG_SHARED_FIRST = 0x0b0, /* length and base of shared memory: all ones, there is none */
    REG_SHARED_LAST = 0x0bc,
    REG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

struct virtio_mmio_bus {
    struct device dev;

    uint64_t gpa; /* property: of the first place */
    struct virtio_mmio *devices[VIRTIO_MMIO_PLACES];
    struct irq_line irq[VIRTIO_MMIO_LINES]; /* output */
    unsigned raised;                        /* places whose device wants an interrupt */
};

static struct virtio_mmio *mmio_of(struct device *dev)
{
    return container_of(dev, struct virtio_mmio, dev);
}

/* ---- interrupts ---- */

static void update_line(struct virtio_mmio *mmio)
{
    struct virtio_mmio_bus *bus = mmio->bus;
    unsigned line = mmio->place % VIRTIO_MMIO_LINES, bit = 1u << mmio->place;
    bool level = false;

    if (!bus || !(bus->raised & bit) == !mmio->isr)
        return;
    bus->raised ^= bit;
    for (unsigned n = line; n < VIRTIO_MMIO_PLACES; n += VIRTIO_MMIO_LINES)
        level |= bus->raised >> n & 1;
    irq_set(&bus->irq[line], level);
}

static void interrupt(struct virtio_device *dev, uint8_t reason)
{
    struct virtio_mmio *mmio = mmio_of(dev->dev);

    mmio->isr |= reason;
    update_line(mmio);
}

static void notify_queue(struct virtio_device *dev, const struct virtqueue *queue)
{
    (void)queue;
    interrupt(dev, ISR_QUEUE);
}

static void notify_config(struct virtio_device *dev)
{
    dev->config_generation++;
    interrupt(dev, ISR_CONFIG);
}

static bool can_access_memory(const struct virtio_device *dev)
{
    (void)dev;
    return true;
}

const struct virtio_transport_ops virtio_mmio_transport = {
    .notify_queue = notify_queue,
    .notify_config = notify_config,
    .can_access_memory = can_access_memory,
};

/* ---- registers ---- */

/* NULL if the guest has selected one that is not there. */
static struct virtqueue *selected(const struct virtio_mmio *mmio)
{
    return mmio->queue_select < mmio->virtio->queue_count
               ? &mmio->virtio->queues[mmio->queue_select]
               : NULL;
}

static uint32_t register_read(const struct virtio_mmio *mmio, unsigned at)
{
    const struct virtio_device *virtio = mmio->virtio;
    const struct virtqueue *queue = selected(mmio);

    if (at >= REG_SHARED_FIRST && at <= REG_SHARED_LAST)
        return UINT32_MAX;
    switch (at) {
    case REG_MAGIC:
        return MAGIC;
    case REG_VERSION:
        return VERSION;
    case REG_DEVICE_ID:
        return virtio->ops->id;
    case REG_VENDOR_ID:
        return VENDOR;
    case REG_OFFERED:
        return virtio_offered_half(virtio, mmio->offered_select);
    case REG_QUEUE_SIZE_MAX:
        return queue ? VIRTIO_QUEUE_SIZE : 0;
    case REG_QUEUE_READY:
        return queue && queue->enabled;
    case REG_INTERRUPT_STATUS:
        return mmio->isr;
    case REG_STATUS:
        return virtio->status;
    case REG_GENERATION:
        return virtio->config_generation;
    default:
        return 0;
    }
}

static void queue_ready(struct virtio_mmio *mmio, struct virtqueue *queue, uint32_t value)
{
    if (value == 1)
        virtio_enable_queue(mmio->virtio, queue);
    else if (value == 0 && queue->enabled)
        virtio_break(mmio->virtio, "no more use of a queue");
}

static void put_low(uint64_t *field, uint32_t value)
{
    *field = (*field & ~0xffffffffull) | value;
}

static void put_high(uint64_t *field, uint32_t value)
{
    *field = (*field & 0xffffffff) | (uint64_t)value << 32;
}

/* Where an enabled queue is does not change. */
static void place_queue(struct virtqueue *queue, unsigned at, uint32_t value)
{
    switch (at) {
    case REG_QUEUE_SIZE:
        queue->size = value <= VIRTIO_QUEUE_SIZE ? (uint16_t)value : 0;
        break;
    case REG_DESCRIPTORS_LOW:
        put_low(&queue->descriptors, value);
        break;
    case REG_DESCRIPTORS_HIGH:
        put_high(&queue->descriptors, value);
        break;
    case REG_DRIVER_LOW:
        put_low(&queue->driver_area, value);
        break;
    case REG_DRIVER_HIGH:
        put_high(&queue->driver_area, value);
        break;
    case REG_DEVICE_LOW:
        put_low(&queue->device_area, value);
        break;
    case REG_DEVICE_HIGH:
        put_high(&queue->device_area, value);
        break;
    default:
        break;
    }
}

static void set_status(struct virtio_mmio *mmio, uint32_t value)
{
    if (value & 0xff)
        virtio_set_status(mmio->virtio, (uint8_t)value);
    else
        virtio_mmio_reset(mmio);
    update_line(mmio);
}

static void register_write(struct virtio_mmio *mmio, unsigned at, uint32_t value)
{
    struct virtqueue *queue = selected(mmio);

    switch (at) {
    case REG_OFFERED_SELECT:
        mmio->offered_select = value;
        break;
    case REG_ACCEPTED_SELECT:
        mmio->accepted_select = value;
        break;
    case REG_ACCEPTED:
        virtio_accept_half(mmio->virtio, mmio->accepted_select, value);
        break;
    case REG_QUEUE_SELECT:
        mmio->queue_select = value;
        break;
    case REG_QUEUE_READY:
        if (queue)
            queue_ready(mmio, queue, value);
        break;
    case REG_QUEUE_NOTIFY:
        virtio_kick(mmio->virtio, value);
        break;
    case REG_INTERRUPT_ACK:
        mmio->isr &= (uint8_t)~value;
        update_line(mmio);
        break;
    case REG_STATUS:
        set_status(mmio, value);
        break;
    default:
        if (queue && !queue->enabled)
            place_queue(queue, at, value);
    }
}

/* Registers are accessed whole (4.2.2.2), configuration in any size. */
static uint64_t mmio_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct virtio_mmio *mmio = mmio_of(dev);

    if (offset >= REG_CONFIG)
        return virtio_read_config(mmio->virtio, (unsigned)offset - REG_CONFIG, size);
    return size == 4 ? register_read(mmio, (unsigned)offset) : 0;
}

static void mmio_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_mmio *mmio = mmio_of(dev);

    if (offset >= REG_CONFIG)
        virtio_write_config(mmio->virtio, (unsigned)offset - REG_CONFIG, value, size);
    else if (size == 4)
        register_write(mmio, (unsigned)offset, (uint32_t)value);
}

static const struct region_ops mmio_ops = {
    .name = "virtio-mmio",
    .read = mmio_read,
    .write = mmio_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- lifecycle ---- */

static struct virtio_mmio_bus *bus_of(struct machine *machine)
{
    struct device *dev = machine_find_device(machine, virtio_mmio_bus_class.name);

    return dev && dev->class == &virtio_mmio_bus_class
               ? container_of(dev, struct virtio_mmio_bus, dev)
               : NULL;
}

int virtio_mmio_attach(struct virtio_mmio *mmio, struct virtio_device *virtio, struct error *err)
{
    struct virtio_mmio_bus *bus = bus_of(mmio->dev.machine);
    unsigned place = 0;

    mmio->virtio = virtio;
    if (!bus)
        return error_set(err, ENODEV, "%s: the machine has no places for it", mmio->dev.id);
    while (place < VIRTIO_MMIO_PLACES && bus->devices[place])
        place++;
    if (place == VIRTIO_MMIO_PLACES)
        return error_set(err, ENOSPC, "%s: %u virtio devices without PCI are there already",
                         mmio->dev.id, VIRTIO_MMIO_PLACES);
    bus->devices[place] = mmio;
    mmio->bus = bus;
    mmio->place = place;
    return device_map_memory(&mmio->dev, bus->gpa + place * VIRTIO_MMIO_BYTES, VIRTIO_MMIO_BYTES,
                             &mmio_ops, err);
}

void virtio_mmio_detach(struct virtio_mmio *mmio)
{
    if (mmio->virtio)
        virtio_done(mmio->virtio);
    mmio->isr = 0;
    update_line(mmio);
    if (mmio->bus)
        mmio->bus->devices[mmio->place] = NULL;
    mmio->bus = NULL;
}

void virtio_mmio_reset(struct virtio_mmio *mmio)
{
    virtio_reset(mmio->virtio);
    mmio->offered_select = mmio->accepted_select = mmio->queue_select = 0;
    mmio->isr = 0;
}

void virtio_mmio_reset_done(struct virtio_mmio *mmio)
{
    update_line(mmio);
}

int virtio_mmio_after_load(struct virtio_mmio *mmio, struct error *err)
{
    update_line(mmio);
    return virtio_after_load(mmio->virtio, err);
}

unsigned virtio_mmio_taken(struct machine *machine)
{
    const struct virtio_mmio_bus *bus = bus_of(machine);
    unsigned taken = 0;

    for (unsigned n = 0; bus && n < VIRTIO_MMIO_PLACES; n++)
        taken |= (bus->devices[n] ? 1u : 0) << n;
    return taken;
}

const struct state_field virtio_mmio_state[] = {
    STATE_U32(struct virtio_mmio, offered_select),
    STATE_U32(struct virtio_mmio, accepted_select),
    STATE_U32(struct virtio_mmio, queue_select),
    STATE_U8_MAX(struct virtio_mmio, isr, ISR_QUEUE | ISR_CONFIG),
    STATE_END,
};

/* ---- the bus ---- */

static const struct property bus_properties[] = {
    PROPERTY_U64(struct virtio_mmio_bus, gpa, 0, "address of the first place"),
    PROPERTY_END,
};

static const struct device_output bus_outputs[] = {
    DEVICE_OUTPUTS(struct virtio_mmio_bus, irq),
    DEVICE_OUTPUT_END,
};

/* No state: the lines follow from the devices. */
const struct device_class virtio_mmio_bus_class = {
    .name = "virtio-mmio-bus",
    .summary = "places for virtio devices without PCI",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct virtio_mmio_bus),
    .properties = bus_properties,
    .outputs = bus_outputs,
};
