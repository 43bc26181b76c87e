/*
 * virtio.h - virtio devices and their queues, whatever they sit on
 *
 * Virtual I/O Device (VIRTIO) Version 1.2, "the specification" below. A device fills in
 * struct virtio_ops and embeds struct virtio_device; a transport (transport_pci.h) shows it to the
 * guest. Devices see no registers of the transport, and transports no requests.
 *
 * A guest that breaks the rules of a queue breaks the device (virtio_break): it does nothing
 * more until the guest resets it (the specification, 2.1.2, DEVICE_NEEDS_RESET).
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_VIRTIO_VIRTIO_H
#define DEVICES_VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/clock.h"
#include "trapeze/device.h"
#include "trapeze/io_piece.h"
#include "trapeze/state.h"

#define VIRTIO_MAX_QUEUES      33u
#define VIRTIO_QUEUE_SIZE      256u /* largest that is offered */
#define VIRTIO_MAX_PIECES      (VIRTIO_QUEUE_SIZE + 8u)
#define VIRTIO_NO_VECTOR       0xffffu

/* Device status (2.1). */
#define VIRTIO_ACKNOWLEDGE     0x01u
#define VIRTIO_DRIVER          0x02u
#define VIRTIO_DRIVER_OK       0x04u
#define VIRTIO_FEATURES_OK     0x08u
#define VIRTIO_NEEDS_RESET     0x40u
#define VIRTIO_FAILED          0x80u

/* Feature bits of all devices (6). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)
#define VIRTIO_F_RING_PACKED   (1ull << 34)

struct virtio_device;

struct virtqueue {
    /* Guest-visible state. */
    uint16_t size; /* a power of two if split; at most VIRTIO_QUEUE_SIZE */
    uint16_t vector;
    bool enabled;
    uint64_t descriptors, driver_area, device_area; /* GPAs */
    uint16_t next_avail, next_used; /* split: they run freely; packed: in the ring */
    uint16_t news; /* next_used has gone on by so many since the last virtqueue_notify */
    bool avail_wrap, used_wrap; /* packed ring: wrap counters */

    /* Rebuilt on load. */
    struct virtio_device *dev;
    uint8_t *descriptor_ram, *driver_ram, *device_ram; /* NULL until enabled */
};

struct virtio_ops {
    uint16_t id;           /* device type (5) */
    unsigned config_bytes; /* of device-specific configuration; a multiple of 4 */
    /* Bytes [offset, offset + size) of it. */
    void (*read_config)(struct virtio_device *dev, unsigned offset, uint8_t *out, unsigned size);
    /* May be NULL: nothing can be written. */
    void (*write_config)(struct virtio_device *dev, unsigned offset, const uint8_t *data,
                         unsigned size);
    /* The guest has put something into the queue, perhaps. The device is running. */
    void (*kick)(struct virtio_device *dev, struct virtqueue *queue);
    /* Finish or forget what is under way; nothing of it reaches the guest any more. */
    void (*reset)(struct virtio_device *dev);
};

/* How a transport tells the guest. */
struct virtio_transport_ops {
    void (*notify_queue)(struct virtio_device *dev, const struct virtqueue *queue);
    void (*notify_config)(struct virtio_device *dev);
    bool (*can_access_memory)(const struct virtio_device *dev);
};

struct virtio_device {
    /* Configuration. */
    const struct virtio_ops *ops;
    const struct virtio_transport_ops *transport;
    struct device *dev; /* the whole, with its transport */
    uint64_t offered;   /* features; VIRTIO_F_VERSION_1 and those of the rings are added */
    unsigned queue_count;

    /* Guest-visible state. */
    uint8_t status;
    uint64_t features; /* accepted */
    bool legacy;       /* the driver knows the legacy interface only (1.4) */
    uint32_t config_generation;
    struct virtqueue queues[VIRTIO_MAX_QUEUES];
    struct timer later;     /* virtio_kick_later() */
    struct state_list kept; /* of struct virtio_kept: virtio_keep() */
};

/* ---- device.c: for transports ---- */

/* ops, transport, dev, offered and queue_count are set. */
void virtio_init(struct virtio_device *dev);
void virtio_done(struct virtio_device *dev);
void virtio_reset(struct virtio_device *dev);
/* The guest writes the status register; not 0, which is virtio_reset(). */
void virtio_set_status(struct virtio_device *dev, uint8_t status);
/* Half (0 or 1) of the features; accepting works until FEATURES_OK. */
uint32_t virtio_offered_half(const struct virtio_device *dev, uint32_t half);
uint32_t virtio_accepted_half(const struct virtio_device *dev, uint32_t half);
void virtio_accept_half(struct virtio_device *dev, uint32_t half, uint32_t features);
/* Reading beyond the end gives 0, writing nothing. */
uint64_t virtio_read_config(struct virtio_device *dev, unsigned offset, unsigned size);
void virtio_write_config(struct virtio_device *dev, unsigned offset, uint64_t value, unsigned size);
void virtio_enable_queue(struct virtio_device *dev, struct virtqueue *queue);
void virtio_kick(struct virtio_device *dev, unsigned queue);
/*
 * The legacy interface of a transport (1.4): from the first status that is written there until a
 * reset it is the driver's. Then there are 32 features, queues lie in one piece and are used
 * before DRIVER_OK, too.
 */
void virtio_legacy_set_status(struct virtio_device *dev, uint8_t status);
void virtio_legacy_accept(struct virtio_device *dev, uint32_t features);
void virtio_legacy_enable_queue(struct virtio_device *dev, struct virtqueue *queue, uint64_t gpa);
/* In after_load. */
int virtio_after_load(struct virtio_device *dev, struct error *err);

extern const struct state_field virtio_device_state[];
#define VIRTIO_STATE(st, f) STATE_STRUCT(st, f, virtio_device_state)

/* ---- for devices ---- */

static inline bool virtio_has(const struct virtio_device *dev, uint64_t feature)
{
    return dev->features & feature;
}
/* The driver is there, and nobody has broken the device. */
static inline bool virtio_is_running(const struct virtio_device *dev)
{
    return !(dev->status & VIRTIO_NEEDS_RESET) && (dev->status & VIRTIO_DRIVER_OK || dev->legacy);
}
/*
 * Kick all queues soon, from the main loop: for a device that has done enough for one kick, while
 * others wait for the machine lock.
 */
void virtio_kick_later(struct virtio_device *dev);
/* The guest has broken a rule; what it was is logged. */
void virtio_break(struct virtio_device *dev, const char *why);

/* A descriptor. */
struct virtio_descriptor {
    uint64_t gpa;
    uint32_t size_bytes;
    uint16_t id, next, flags; /* id: of a packed ring; next: of a split one */
};

/* One request of the guest: first what it wrote for the device, then what the device writes. */
struct virtio_chain {
    uint16_t id, descriptors; /* queue.c's */
    unsigned out_count, in_count;
    uint64_t out_bytes, in_bytes;
    struct io_piece pieces[VIRTIO_MAX_PIECES]; /* out_count of them, then in_count */
    /* Of a packed ring, from which they may be gone before the chain is given back. */
    struct virtio_descriptor ring[VIRTIO_QUEUE_SIZE];
};

/* Take the next chain. False: there is none, or the guest has broken the device. */
bool virtqueue_pop(struct virtqueue *queue, struct virtio_chain *chain);
/*
 * Give it back; written_bytes from the start of its in pieces were written. virtqueue_notify()
 * tells the guest, if it wants to know, of all that were given back.
 */
void virtqueue_push(struct virtqueue *queue, const struct virtio_chain *chain,
                    uint64_t written_bytes);
void virtqueue_notify(struct virtqueue *queue);
/* Undo the last virtqueue_pop() that was not undone; nothing was pushed since. */
void virtqueue_unpop(struct virtqueue *queue, uint16_t descriptors);

/*
 * Requests that a device holds while the machine is paused. In quiesce(): chain, which was popped
 * and will not be pushed, is part of the device's state; false: out of memory. In resume(): take
 * the first of them (*at is 0), or the next; they are as if they had been popped just now. False:
 * none is left, all are forgotten.
 */
bool virtio_keep(struct virtqueue *queue, const struct virtio_chain *chain);
bool virtio_take_kept(struct virtio_device *dev, unsigned *at, struct virtqueue **out_queue,
                      struct virtio_chain *chain);

/* A chain that was popped, and how much was written into it. */
struct virtio_used {
    uint16_t id, descriptors; /* of the chain */
    uint32_t written_bytes;
};
/* Tell what was written, for virtqueue_push_used(). */
struct virtio_used virtqueue_written(struct virtqueue *queue, const struct virtio_chain *chain,
                                     uint64_t written_bytes);
/* Give several back, which the guest sees all at once. */
void virtqueue_push_used(struct virtqueue *queue, const struct virtio_used *used, unsigned count);

/* Copy from what the guest wrote, or to what it reads, from byte offset on. Returns how many bytes.
 */
size_t virtio_chain_read(const struct virtio_chain *chain, uint64_t offset, void *out, size_t size);
size_t virtio_chain_write(const struct virtio_chain *chain, uint64_t offset, const void *data,
                          size_t size);

/*
 * The pieces of what the guest wrote, or of what it reads (in), between skip bytes and skip + size.
 * Returns how many; there are at most VIRTIO_MAX_PIECES.
 */
unsigned virtio_chain_pieces(const struct virtio_chain *chain, bool in, uint64_t skip,
                             uint64_t size, struct io_piece *out);

/* ---- queue.c: for device.c ---- */

/* Find its memory. False: it is not in RAM, or its size is none. */
bool virtqueue_map(struct virtqueue *queue);
/* Are the chains that were kept some of those under way? Queues are mapped. */
bool virtio_kept_is_consistent(const struct virtio_device *dev);

/* In a saved state, a descriptor of a packed ring's chain; of a split one's only queue and id. */
struct virtio_kept {
    uint16_t queue, id, flags;
    uint32_t size_bytes;
    uint64_t gpa;
};
#define VIRTIO_MAX_KEPT (VIRTIO_MAX_QUEUES * VIRTIO_QUEUE_SIZE)

#endif
