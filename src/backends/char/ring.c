/*
 * ring.c - output kept in memory, input put in by a program
 *
 * For tests and the monitor. A full ring takes no more, so the device waits; with
 * overwrite=on the oldest bytes go instead, which keeps the end of a log.
 */
#include <errno.h>
#include <stdlib.h>

#include "backends/char/internal.h"

#define RING_MAX (64ull << 20)

struct ring {
    struct chardev chardev;
    uint64_t size; /* property */
    bool overwrite;
    bool starved;
    uint8_t *data;
    size_t head, count;
};

static struct ring *ring_of(struct chardev *chardev)
{
    return (struct ring *)chardev;
}

static size_t ring_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    struct ring *ring = ring_of(chardev);

    for (size_t i = 0; i < size_bytes; i++) {
        if (ring->count == ring->size && !ring->overwrite) {
            ring->starved = true;
            return i;
        }
        if (ring->count == ring->size) {
            ring->head = (ring->head + 1) % ring->size;
            ring->count--;
        }
        ring->data[(ring->head + ring->count++) % ring->size] = data[i];
    }
    return size_bytes;
}

static int ring_open(struct chardev *chardev, struct loop *loop, struct error *err)
{
    struct ring *ring = ring_of(chardev);

    (void)loop;
    if (!ring->size || ring->size > RING_MAX)
        return error_set(err, EINVAL, "size must be from 1 to 64M");
    ring->data = malloc(ring->size);
    return ring->data ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void ring_free(struct chardev *chardev)
{
    free(ring_of(chardev)->data);
}

size_t chardev_ring_take(struct chardev *chardev, uint8_t *out, size_t size_bytes)
{
    struct ring *ring = ring_of(chardev);
    size_t taken = 0;

    if (chardev->ops != &chardev_ring.ops)
        return 0;
    while (taken < size_bytes && ring->count) {
        out[taken++] = ring->data[ring->head];
        ring->head = (ring->head + 1) % ring->size;
        ring->count--;
    }
    if (taken && ring->starved) {
        ring->starved = false;
        chardev_notify_can_send(chardev);
    }
    return taken;
}

size_t chardev_ring_put(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    size_t room;

    if (chardev->ops != &chardev_ring.ops)
        return 0;
    room = chardev_room(chardev);
    if (room > size_bytes)
        room = size_bytes;
    chardev_deliver(chardev, data, room);
    return room;
}

static const struct property ring_properties[] = {
    PROPERTY_U64(struct ring, size, 65536, "bytes that are kept, up to 64M"),
    PROPERTY_BOOL(struct ring, overwrite, false, "drop the oldest bytes instead of waiting"),
    PROPERTY_END,
};

const struct chardev_kind chardev_ring = {
    .ops =
        {
            .name = "ring",
            .summary = "output is kept in memory for the monitor and for tests",
            .send = ring_send,
            .free = ring_free,
        },
    .instance_size = sizeof(struct ring),
    .properties = ring_properties,
    .open = ring_open,
};
