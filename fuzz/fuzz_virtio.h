/*
 * fuzz_virtio.h - what the fuzz targets of virtio devices share: a driver's memory, random accesses
 */
#ifndef FUZZ_FUZZ_VIRTIO_H
#define FUZZ_FUZZ_VIRTIO_H

#include "fuzz_device.h"
#include "virtio_driver.h"

#define SLOT       3
#define RAM_BYTES  (1u << 20)
#define AREA       0x8000u /* rings and tables begin there */
#define AREA_BYTES 0x8000u
#define PLACE      0xfec10000u /* of a device without PCI */

/* An address: mostly in the area, else at the end of RAM, in registers or anywhere. */
static inline uint64_t take_gpa(struct fuzz_input *in)
{
    uint16_t value = (uint16_t)fuzz_take(in, 2);

    switch (value >> 13) {
    case 0:
        return RAM_BYTES - (value & 0x1fff);
    case 1:
        return value & 0x1000 ? 0xc0400000u + (value & 0xfff) : fuzz_take(in, 8);
    default:
        return AREA + value % AREA_BYTES;
    }
}

/* Before each input: the machine as at power-on, its RAM zero, and a driver that has found SLOT. */
static inline void start_over(struct device_test *t, struct virtio_driver *d,
                              struct driver_queue *queues, size_t queues_bytes)
{
    device_test_reset(t);
    memset(queues, 0, queues_bytes);
    memset(t->ram.hva, 0, t->ram.size_bytes);
    virtio_driver_find(d, t, SLOT);
}

/* An entry of the table, or anywhere. */
static inline void write_descriptor(struct virtio_driver *d, struct fuzz_input *in,
                                    const struct driver_queue *q, uint32_t size)
{
    uint8_t at = (uint8_t)fuzz_take(in, 1);
    uint64_t where = at & 0x80 ? take_gpa(in) & ~15ull : q->descriptors + 16u * (at % q->size);
    uint64_t gpa = take_gpa(in);
    uint16_t last = (uint16_t)fuzz_take(in, 2);

    if (where <= RAM_BYTES - 16)
        driver_put_descriptor(d, where, q->packed, gpa, size, last & 0x8087u, last >> 3 & 0x1f);
}

static inline void access_memory(struct device_test *t, struct fuzz_input *in, uint64_t gpa,
                                 unsigned size, bool read)
{
    if (read)
        test_read(t, gpa, size);
    else
        test_write(t, gpa, fuzz_take(in, size), size);
}

static inline void access_registers(struct device_test *t, struct fuzz_input *in, uint8_t what)
{
    static const uint32_t bases[4] = {0xc0400000, 0xc0400000, 0xc0402000, 0xc0100000};
    uint64_t gpa = bases[what >> 6] + (what & 0x20 ? fuzz_take(in, 2) & 0x3fff : fuzz_take(in, 1));

    access_memory(t, in, gpa, 1u << (what >> 3 & 3), what & 4);
}

/* Of a device without PCI; access 4 bytes more often than others. */
static inline void access_place(struct device_test *t, struct fuzz_input *in, uint8_t what)
{
    uint64_t gpa = PLACE + (what & 0x20 ? fuzz_take(in, 2) & 0xfff : fuzz_take(in, 1));
    unsigned size = what & 0x10 ? 1u << (what >> 6) : 4;

    access_memory(t, in, size == 4 ? gpa & ~3ull : gpa, size, what & 4);
}

/* Of a transitional device. */
static inline void access_ports(struct device_test *t, struct fuzz_input *in, uint8_t what)
{
    uint16_t port = DRIVER_LEGACY_PORT + (fuzz_take(in, 1) & (what & 0x20 ? 0x7f : 0x1f));
    unsigned size = 1u << (what >> 3 & 3) % 3;

    if (what & 4)
        bus_port_read(t->machine, port, size);
    else
        bus_port_write(t->machine, port, (uint32_t)fuzz_take(in, size), size);
}

static inline void access_config(struct device_test *t, struct fuzz_input *in, uint8_t what)
{
    uint64_t gpa = DRIVER_ECAM + (SLOT << 15) + fuzz_take(in, 1);

    access_memory(t, in, gpa, 1u << (what >> 3 & 3) % 3, what & 0x20);
}

/* How a driver begins: rings of some kind, and the features of extra that are offered. */
static inline void begin_queues(struct virtio_driver *d, struct device_test *t,
                                struct driver_queue *queues, unsigned count, uint8_t how,
                                uint64_t extra)
{
    virtio_driver_find(d, t, SLOT);
    virtio_driver_negotiate(d, (VIRTIO_F_VERSION_1 | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                                (how & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                                (how & 4 ? VIRTIO_F_EVENT_IDX : 0) | extra) &
                                   virtio_driver_offered(d));
    for (unsigned n = 0; n < count; n++)
        driver_queue_set_up(&queues[n], d, n, 1u << (how >> 5));
    virtio_driver_start(d);
}

/* After a reset: a driver finds the device as at power-on, and starts it with queue 0 alone. */
static inline void begin_again(struct virtio_driver *d, struct device_test *t,
                               struct driver_queue *queue)
{
    virtio_driver_find(d, t, SLOT);
    FUZZ_CLAIM(virtio_driver_negotiate(d, VIRTIO_F_VERSION_1));
    driver_queue_set_up(queue, d, 0, 4);
    virtio_driver_start(d);
}

static inline void notify_queue(struct device_test *t, unsigned queue)
{
    test_write(t, 0xc0403000u + 4 * queue, 0, 2);
}

#define COMMON_STEPS 6u

/* A step that fits any device: step is below COMMON_STEPS, what has more bits from bit 4 on. */
static inline void common_step(struct device_test *t, struct device *dev, struct virtio_driver *d,
                               struct driver_queue *q, struct fuzz_input *in, unsigned step,
                               uint8_t what)
{
    switch (step) {
    case 0:
        if (q->driver)
            write_descriptor(d, in, q, (uint32_t)fuzz_take(in, 2));
        break;
    case 1:
        if (q->driver && !q->packed)
            driver_queue_publish(q, (unsigned)fuzz_take(in, 1));
        break;
    case 2:
        access_registers(t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 3:
        access_config(t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 4:
        FUZZ_LOCKED(t, dev->class->quiesce(dev));
        notify_queue(t, what >> 5);
        device_test_loop(t);
        FUZZ_LOCKED(t, dev->class->resume(dev));
        device_test_advance_ns(t, 1000);
        break;
    default:
        if (what & 0x80) {
            FUZZ_LOCKED(t, fuzz_load_state(in, dev));
            in->left = 0;
        } else {
            device_test_round_trip(t, dev);
        }
        break;
    }
}

#endif
