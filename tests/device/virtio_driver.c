/*
 * virtio_driver.c - a guest's virtio driver, for device tests and fuzzers
 */
#include "virtio_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/guest_ram.h"
#include "host/host.h"

#define BARS         0xc0000000u
#define BAR_DISTANCE 0x100000u
#define WAIT_NS      10000000000ull

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "virtio driver: %s\n", what);
    abort();
}

/* ---- memory ---- */

static void put(struct virtio_driver *d, uint64_t gpa, uint64_t value, unsigned size)
{
    test_write(d->t, gpa, value, size);
}

static uint64_t get(struct virtio_driver *d, uint64_t gpa, unsigned size)
{
    return test_read(d->t, gpa, size);
}

uint64_t virtio_driver_alloc(struct virtio_driver *d, uint64_t size_bytes, uint64_t alignment)
{
    uint64_t gpa = (d->next_gpa + alignment - 1) / alignment * alignment;

    must(gpa + size_bytes <= d->t->ram.size_bytes, "out of RAM");
    memset(d->t->ram.hva + gpa, 0, size_bytes);
    d->next_gpa = gpa + size_bytes;
    return gpa;
}

/* ---- finding it ---- */

static uint64_t config_gpa(const struct virtio_driver *d, unsigned offset)
{
    return DRIVER_ECAM + (d->slot << 15) + offset;
}

uint32_t driver_config_read(struct virtio_driver *d, unsigned offset, unsigned size)
{
    return (uint32_t)get(d, config_gpa(d, offset), size);
}

void driver_config_write(struct virtio_driver *d, unsigned offset, uint32_t value, unsigned size)
{
    put(d, config_gpa(d, offset), value, size);
}

static uint64_t bar_gpa(unsigned bar)
{
    return BARS + bar * BAR_DISTANCE;
}

static void note_structure(struct virtio_driver *d, unsigned at)
{
    uint64_t gpa = bar_gpa(driver_config_read(d, at + 4, 1)) + driver_config_read(d, at + 8, 4);

    switch (driver_config_read(d, at + 3, 1)) {
    case 1:
        d->common = gpa;
        break;
    case 2:
        d->notify = gpa;
        d->notify_multiplier = driver_config_read(d, at + 16, 4);
        break;
    case 3:
        d->isr = gpa;
        break;
    case 4:
        d->config = gpa;
        break;
    case 5:
        d->window = at;
        break;
    default:
        break;
    }
}

void virtio_driver_find(struct virtio_driver *d, struct device_test *t, unsigned slot)
{
    *d = (struct virtio_driver){.t = t, .slot = slot, .next_gpa = DRIVER_MEMORY};
    must(driver_config_read(d, PCI_VENDOR_ID, 2) == 0x1af4, "it is not there");
    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        unsigned at = PCI_BAR0 + 4 * bar;

        driver_config_write(d, at, (uint32_t)bar_gpa(bar), 4);
        if ((driver_config_read(d, at, 4) & 7) == 4) {
            driver_config_write(d, at + 4, 0, 4);
            bar++;
        }
    }
    driver_config_write(d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    for (unsigned at = driver_config_read(d, PCI_CAPABILITIES, 1); at;
         at = driver_config_read(d, at + 1, 1)) {
        if (driver_config_read(d, at, 1) == PCI_CAP_VENDOR)
            note_structure(d, at);
        if (driver_config_read(d, at, 1) == PCI_CAP_MSIX)
            d->msix = at;
    }
    must(d->common && d->isr && d->config && d->notify && d->window && d->msix,
         "a capability is not there");
    d->msix_table = bar_gpa(driver_config_read(d, d->msix + 4, 1) & 7) +
                    (driver_config_read(d, d->msix + 4, 4) & ~7u);
}

void virtio_driver_use_msix(struct virtio_driver *d)
{
    unsigned count = (driver_config_read(d, d->msix + 2, 2) & 0x7ff) + 1;

    for (unsigned vector = 0; vector < count; vector++) {
        put(d, d->msix_table + 16 * vector, DRIVER_MSI_GPA, 4);
        put(d, d->msix_table + 16 * vector + 4, 0, 4);
        put(d, d->msix_table + 16 * vector + 8, vector, 4);
        put(d, d->msix_table + 16 * vector + 12, 0, 4);
    }
    driver_config_write(d, d->msix + 2, 0x8000, 2);
}

void driver_mask_vector(struct virtio_driver *d, unsigned vector, bool masked)
{
    put(d, d->msix_table + 16 * vector + 12, masked, 4);
}

/* ---- without PCI ---- */

#define MMIO_QUEUE_SIZE   0x38
#define MMIO_QUEUE_NOTIFY 0x50
#define MMIO_ISR          0x60
#define MMIO_CONFIG       0x100

void virtio_driver_find_mmio(struct virtio_driver *d, struct device_test *t, uint64_t gpa)
{
    *d = (struct virtio_driver){.t = t,
                                .mmio = gpa,
                                .next_gpa = DRIVER_MEMORY,
                                .isr = gpa + MMIO_ISR,
                                .config = gpa + MMIO_CONFIG,
                                .notify = gpa + MMIO_QUEUE_NOTIFY};
    must(get(d, gpa, 4) == 0x74726976 && get(d, gpa + 4, 4) == 2, "it is not there");
}

/* Where a register of the common configuration is, or -1. */
static int mmio_register(unsigned offset)
{
    static const struct {
        unsigned common;
        int mmio;
    } places[] = {
        {COMMON_OFFERED_SELECT, 0x14},  {COMMON_OFFERED, 0x10},    {COMMON_ACCEPTED_SELECT, 0x24},
        {COMMON_ACCEPTED, 0x20},        {COMMON_STATUS, 0x70},     {COMMON_GENERATION, 0xfc},
        {COMMON_QUEUE_SELECT, 0x30},    {COMMON_QUEUE_SIZE, 0x34}, {COMMON_QUEUE_ENABLE, 0x44},
        {COMMON_DESCRIPTORS, 0x80},     {COMMON_DRIVER, 0x90},     {COMMON_DEVICE, 0xa0},
        {COMMON_DESCRIPTORS + 4, 0x84},
    };

    for (unsigned n = 0; n < sizeof(places) / sizeof(places[0]); n++)
        if (places[n].common == offset)
            return places[n].mmio;
    return -1;
}

static void mmio_write(struct virtio_driver *d, unsigned offset, uint64_t value, unsigned size)
{
    int at = mmio_register(offset);

    if (at < 0)
        return;
    put(d, d->mmio + (unsigned)(offset == COMMON_QUEUE_SIZE ? MMIO_QUEUE_SIZE : at),
        (uint32_t)value, 4);
    if (size == 8)
        put(d, d->mmio + (unsigned)at + 4, value >> 32, 4);
}

/* ---- the legacy interface ---- */

#define LEGACY_QUEUE_PAGE   0x08
#define LEGACY_QUEUE_NOTIFY 0x10

void virtio_driver_find_legacy(struct virtio_driver *d, struct device_test *t, unsigned slot)
{
    virtio_driver_find(d, t, slot);
    must(driver_config_read(d, PCI_BAR0, 4) & 1, "it has no ports");
    driver_config_write(d, PCI_BAR0, DRIVER_LEGACY_PORT, 4);
    driver_config_write(d, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
    d->port = DRIVER_LEGACY_PORT;
}

static int legacy_register(unsigned offset)
{
    switch (offset) {
    case COMMON_OFFERED:
        return 0x00;
    case COMMON_ACCEPTED:
        return 0x04;
    case COMMON_QUEUE_SIZE:
        return 0x0c;
    case COMMON_QUEUE_SELECT:
        return 0x0e;
    case COMMON_STATUS:
        return 0x12;
    case COMMON_CONFIG_VECTOR:
        return 0x14;
    case COMMON_QUEUE_VECTOR:
        return 0x16;
    default:
        return -1;
    }
}

static uint64_t legacy_read(struct virtio_driver *d, unsigned offset, unsigned size)
{
    int at = legacy_register(offset);

    return at < 0 ? 0 : bus_port_read(d->t->machine, (uint16_t)(d->port + at), size);
}

static void legacy_write(struct virtio_driver *d, unsigned offset, uint64_t value, unsigned size)
{
    int at = legacy_register(offset);

    if (at >= 0)
        bus_port_write(d->t->machine, (uint16_t)(d->port + at), (uint32_t)value, size);
}

/* ---- status and features ---- */

uint64_t driver_read(struct virtio_driver *d, unsigned offset, unsigned size)
{
    int at = d->mmio ? mmio_register(offset) : 0;

    if (d->port)
        return legacy_read(d, offset, size);

    if (at < 0)
        return 0;
    return d->mmio ? get(d, d->mmio + (unsigned)at, 4) : get(d, d->common + offset, size);
}

void driver_write(struct virtio_driver *d, unsigned offset, uint64_t value, unsigned size)
{
    if (d->port)
        legacy_write(d, offset, value, size);
    else if (d->mmio)
        mmio_write(d, offset, value, size);
    else
        put(d, d->common + offset, value, size);
}

uint8_t driver_status(struct virtio_driver *d)
{
    return (uint8_t)driver_read(d, COMMON_STATUS, 1);
}

bool driver_is_broken(struct virtio_driver *d)
{
    return driver_status(d) & VIRTIO_NEEDS_RESET;
}

static void add_status(struct virtio_driver *d, uint8_t bits)
{
    driver_write(d, COMMON_STATUS, driver_status(d) | bits, 1);
}

uint64_t virtio_driver_offered(struct virtio_driver *d)
{
    uint64_t features;

    driver_write(d, COMMON_OFFERED_SELECT, 0, 4);
    features = driver_read(d, COMMON_OFFERED, 4);
    if (d->port)
        return features;
    driver_write(d, COMMON_OFFERED_SELECT, 1, 4);
    return features | driver_read(d, COMMON_OFFERED, 4) << 32;
}

bool virtio_driver_negotiate(struct virtio_driver *d, uint64_t features)
{
    driver_write(d, COMMON_STATUS, 0, 1);
    must(driver_status(d) == 0, "a reset does not end");
    add_status(d, VIRTIO_ACKNOWLEDGE);
    add_status(d, VIRTIO_DRIVER);
    for (unsigned half = 0; half < (d->port ? 1 : 2); half++) {
        driver_write(d, COMMON_ACCEPTED_SELECT, half, 4);
        driver_write(d, COMMON_ACCEPTED, (uint32_t)(features >> 32 * half), 4);
    }
    d->features = d->port ? (uint32_t)features : features;
    if (d->port)
        return true;
    add_status(d, VIRTIO_FEATURES_OK);
    return driver_status(d) & VIRTIO_FEATURES_OK;
}

void virtio_driver_start(struct virtio_driver *d)
{
    add_status(d, VIRTIO_DRIVER_OK);
}

/* ---- queues ---- */

void driver_queue_enable(struct driver_queue *q)
{
    struct virtio_driver *d = q->driver;

    driver_write(d, COMMON_QUEUE_SELECT, q->index, 2);
    if (d->port) {
        test_outl(d->t, d->port + LEGACY_QUEUE_PAGE, (uint32_t)(q->descriptors >> 12));
        return;
    }
    driver_write(d, COMMON_QUEUE_SIZE, q->size, 2);
    driver_write(d, COMMON_QUEUE_VECTOR, q->index + 1, 2);
    driver_write(d, COMMON_DESCRIPTORS, (uint32_t)q->descriptors, 4); /* in halves: 4.1.3.1 */
    driver_write(d, COMMON_DESCRIPTORS + 4, q->descriptors >> 32, 4);
    driver_write(d, COMMON_DRIVER, q->driver_area, 8);
    driver_write(d, COMMON_DEVICE, q->device_area, 8);
    driver_write(d, COMMON_QUEUE_ENABLE, 1, 2);
}

void driver_queue_set_up(struct driver_queue *q, struct virtio_driver *d, unsigned index,
                         unsigned size)
{
    if (d->port) {
        driver_write(d, COMMON_QUEUE_SELECT, index, 2);
        size = (unsigned)driver_read(d, COMMON_QUEUE_SIZE, 2);
    }
    must(size <= DRIVER_MAX_SIZE, "a queue that is too large");
    *q = (struct driver_queue){
        .driver = d,
        .index = index,
        .size = size,
        .packed = d->features & VIRTIO_F_RING_PACKED,
        .descriptors = virtio_driver_alloc(d, 16 * size, d->port ? 4096 : 16),
        .free = size,
        .avail_wrap = true,
        .used_wrap = true,
    };
    q->driver_area = virtio_driver_alloc(d, q->packed ? 4 : 6 + 2 * size, 4);
    q->device_area = virtio_driver_alloc(d, q->packed ? 4 : 6 + 8 * size, d->port ? 4096 : 4);
    driver_queue_enable(q);
}

void virtio_driver_begin(struct virtio_driver *d, uint64_t features, struct driver_queue *queues,
                         unsigned count, unsigned size)
{
    must(virtio_driver_negotiate(d, features), "the features are refused");
    for (unsigned n = 0; n < count; n++)
        driver_queue_set_up(&queues[n], d, n, size);
    virtio_driver_start(d);
}

void driver_put_descriptor(struct virtio_driver *d, uint64_t gpa, bool packed, uint64_t address,
                           uint32_t size_bytes, unsigned flags, unsigned last)
{
    put(d, gpa, address, 8);
    put(d, gpa + 8, size_bytes, 4);
    put(d, gpa + 12, packed ? last : flags, 2);
    put(d, gpa + 14, packed ? flags : last, 2);
}

void driver_queue_publish(struct driver_queue *q, unsigned head)
{
    struct virtio_driver *d = q->driver;

    put(d, q->driver_area + 4 + 2 * (q->next_avail % q->size), head, 2);
    q->next_avail++;
    ram_atomic_store16(d->t->ram.hva + q->driver_area + 2, q->next_avail);
}

static unsigned take_free(struct driver_queue *q)
{
    unsigned at = 0;

    while (q->taken[at])
        at++;
    q->taken[at] = true;
    return at;
}

static uint16_t add_split(struct driver_queue *q, const struct driver_buffer *buffers,
                          unsigned count, unsigned flags)
{
    unsigned head = take_free(q), at = head;

    for (unsigned n = 0; n < count; n++) {
        unsigned more = n + 1 < count ? DRIVER_NEXT : 0, next = more ? take_free(q) : 0;

        driver_put_descriptor(q->driver, q->descriptors + 16 * at, false, buffers[n].gpa,
                              buffers[n].size_bytes,
                              flags | more | (buffers[n].write ? DRIVER_WRITE : 0), next);
        at = next;
    }
    q->lengths[head] = (uint16_t)count;
    driver_queue_publish(q, head);
    return (uint16_t)head;
}

/* The first descriptor's flags come last: then the device may look. */
static uint16_t add_packed(struct driver_queue *q, const struct driver_buffer *buffers,
                           unsigned count, unsigned flags)
{
    uint64_t first = q->descriptors + 16 * q->next_avail;
    unsigned first_flags = 0, id = 0;

    while (q->lengths[id])
        id++;

    for (unsigned n = 0; n < count; n++) {
        unsigned turn = q->avail_wrap ? DRIVER_AVAIL : DRIVER_USED;
        unsigned all = flags | turn | (n + 1 < count ? DRIVER_NEXT : 0) |
                       (buffers[n].write ? DRIVER_WRITE : 0);
        uint64_t gpa = q->descriptors + 16 * q->next_avail;

        if (n == 0)
            first_flags = all;
        put(q->driver, gpa, buffers[n].gpa, 8);
        put(q->driver, gpa + 8, buffers[n].size_bytes, 4);
        put(q->driver, gpa + 12, id, 2);
        if (n)
            put(q->driver, gpa + 14, all, 2);
        if (++q->next_avail == q->size) {
            q->next_avail = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    q->lengths[id] = (uint16_t)count;
    ram_atomic_store16(q->driver->t->ram.hva + first + 14, (uint16_t)first_flags);
    return (uint16_t)id;
}

static uint16_t add(struct driver_queue *q, const struct driver_buffer *buffers, unsigned count,
                    unsigned flags)
{
    must(count && count <= q->free, "a queue without room");
    q->free -= count;
    return q->packed ? add_packed(q, buffers, count, flags) : add_split(q, buffers, count, flags);
}

uint16_t driver_queue_add(struct driver_queue *q, const struct driver_buffer *buffers,
                          unsigned count)
{
    return add(q, buffers, count, 0);
}

uint16_t driver_queue_add_indirect(struct driver_queue *q, const struct driver_buffer *buffers,
                                   unsigned count)
{
    uint64_t table = virtio_driver_alloc(q->driver, 16 * count, 16);
    struct driver_buffer whole = {table, 16 * count, false};

    for (unsigned n = 0; n < count; n++)
        driver_put_descriptor(
            q->driver, table + 16 * n, q->packed, buffers[n].gpa, buffers[n].size_bytes,
            (!q->packed && n + 1 < count ? DRIVER_NEXT : 0) | (buffers[n].write ? DRIVER_WRITE : 0),
            q->packed ? 0 : n + 1);
    return add(q, &whole, 1, DRIVER_INDIRECT);
}

void driver_queue_kick(struct driver_queue *q)
{
    struct virtio_driver *d = q->driver;

    if (d->port) {
        test_outw(d->t, d->port + LEGACY_QUEUE_NOTIFY, (uint16_t)q->index);
        return;
    }
    driver_write(d, COMMON_QUEUE_SELECT, q->index, 2);
    put(d, d->notify + driver_read(d, COMMON_QUEUE_NOTIFY, 2) * d->notify_multiplier, q->index,
        d->mmio ? 4 : 2);
}

/* The chain's descriptors are free again. */
static void release(struct driver_queue *q, unsigned head)
{
    unsigned at = head;

    for (unsigned n = q->lengths[head]; n; n--) {
        q->taken[at] = false;
        at = (unsigned)get(q->driver, q->descriptors + 16 * at + 14, 2) % q->size;
    }
}

static bool take_split(struct driver_queue *q, uint16_t *out_id, uint32_t *out_length)
{
    uint64_t entry = q->device_area + 4 + 8 * (q->last_used % q->size);

    if (ram_atomic_load16(q->driver->t->ram.hva + q->device_area + 2) == q->last_used)
        return false;
    *out_id = (uint16_t)get(q->driver, entry, 4);
    *out_length = (uint32_t)get(q->driver, entry + 4, 4);
    q->last_used++;
    must(*out_id < q->size, "an id that was not given");
    release(q, *out_id);
    return true;
}

static bool take_packed(struct driver_queue *q, uint16_t *out_id, uint32_t *out_length)
{
    uint64_t gpa = q->descriptors + 16 * q->last_used;
    unsigned flags = ram_atomic_load16(q->driver->t->ram.hva + gpa + 14);

    if (!!(flags & DRIVER_AVAIL) != q->used_wrap || !!(flags & DRIVER_USED) != q->used_wrap)
        return false;
    *out_id = (uint16_t)get(q->driver, gpa + 12, 2);
    *out_length = (uint32_t)get(q->driver, gpa + 8, 4);
    must(*out_id < q->size, "an id that was not given");
    q->last_used = (uint16_t)(q->last_used + q->lengths[*out_id]);
    if (q->last_used >= q->size) {
        q->last_used = (uint16_t)(q->last_used - q->size);
        q->used_wrap = !q->used_wrap;
    }
    return true;
}

bool driver_queue_take(struct driver_queue *q, uint16_t *out_id, uint32_t *out_length)
{
    if (!(q->packed ? take_packed : take_split)(q, out_id, out_length))
        return false;
    must(q->lengths[*out_id], "an id that was not given");
    q->free += q->lengths[*out_id];
    q->lengths[*out_id] = 0;
    return true;
}

void driver_queue_wait(struct driver_queue *q, uint16_t *out_id, uint32_t *out_length)
{
    uint64_t end = host_monotonic_ns() + WAIT_NS;

    while (!driver_queue_take(q, out_id, out_length)) {
        must(host_monotonic_ns() < end, "a request does not end");
        loop_once(q->driver->t->loop, 1000000);
    }
}

void driver_queue_set_used_event(struct driver_queue *q, unsigned at, bool wrap)
{
    if (q->packed)
        put(q->driver, q->driver_area, at | (unsigned)wrap << 15 | 2u << 16, 4);
    else
        put(q->driver, q->driver_area + 4 + 2 * q->size, at, 2);
}

uint16_t driver_queue_avail_event(struct driver_queue *q)
{
    return (uint16_t)get(q->driver, q->device_area + 4 + 8 * q->size, 2);
}
