/*
 * transport_mmio.h - a virtio device as a page of registers, without PCI
 *
 * The specification, 4.2, version 2. The machine has one virtio-mmio-bus: places in memory that
 * devices take in the order in which they are added, and interrupt lines that places share. An
 * instance begins with struct virtio_mmio, has the device behind it, and its class's entry points
 * call those below.
 */
#ifndef DEVICES_VIRTIO_TRANSPORT_MMIO_H
#define DEVICES_VIRTIO_TRANSPORT_MMIO_H

#include "devices/virtio/virtio.h"

#define VIRTIO_MMIO_PLACES 10u
#define VIRTIO_MMIO_LINES  5u      /* place n has line n % VIRTIO_MMIO_LINES */
#define VIRTIO_MMIO_BYTES  0x1000u /* from one place to the next */

struct virtio_mmio {
    struct device dev;

    struct virtio_device *virtio; /* configuration */
    struct virtio_mmio_bus *bus;  /* NULL: on none */
    unsigned place;

    /* Guest-visible state. */
    uint32_t offered_select, accepted_select, queue_select;
    uint8_t isr; /* bit 0: a queue, bit 1: the configuration */
};

/* virtio is initialised. -ENOSPC: all places are taken. */
int virtio_mmio_attach(struct virtio_mmio *mmio, struct virtio_device *virtio, struct error *err);
void virtio_mmio_detach(struct virtio_mmio *mmio);
void virtio_mmio_reset(struct virtio_mmio *mmio);      /* and the device */
void virtio_mmio_reset_done(struct virtio_mmio *mmio); /* the class's second step */
int virtio_mmio_after_load(struct virtio_mmio *mmio, struct error *err);

extern const struct virtio_transport_ops virtio_mmio_transport;
extern const struct state_field virtio_mmio_state[];

/* Which places of the machine's virtio-mmio-bus are taken, as a bit mask; 0 if it has none. */
unsigned virtio_mmio_taken(struct machine *machine);

#endif
