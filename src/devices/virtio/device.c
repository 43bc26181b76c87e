/*
 * device.c - what all virtio devices have: status, features, queues, configuration
 */
#include "base/bytes.h"
#include "base/log.h"
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <string.h>

#define RING_FEATURES                                                                              \
    (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)

static void reset_queue(struct virtqueue *queue)
{
    struct virtio_device *dev = queue->dev;

    *queue = (struct virtqueue){.size = VIRTIO_QUEUE_SIZE,
                                .vector = VIRTIO_NO_VECTOR,
                                .avail_wrap = true,
                                .used_wrap = true,
                                .dev = dev};
}

void virtio_kick(struct virtio_device *dev, unsigned queue)
{
    if (queue < dev->queue_count && dev->queues[queue].enabled && virtio_is_running(dev) &&
        dev->transport->can_access_memory(dev))
        dev->ops->kick(dev, &dev->queues[queue]);
}

static void kick_all(void *opaque)
{
    struct virtio_device *dev = opaque;

    for (unsigned n = 0; n < dev->queue_count; n++)
        virtio_kick(dev, n);
}

void virtio_init(struct virtio_device *dev)
{
    dev->offered |= RING_FEATURES;
    for (unsigned n = 0; n < VIRTIO_MAX_QUEUES; n++) {
        dev->queues[n].dev = dev;
        reset_queue(&dev->queues[n]);
    }
    timer_init(&dev->later, device_clocks(dev->dev), CLOCK_ID_VIRTUAL, kick_all, dev);
}

void virtio_done(struct virtio_device *dev)
{
    dev->ops->reset(dev);
    timer_done(&dev->later);
    state_list_free(&dev->kept);
}

void virtio_reset(struct virtio_device *dev)
{
    dev->status = 0; /* first: what ends meanwhile does not reach the guest */
    dev->legacy = false;
    dev->ops->reset(dev);
    dev->features = 0;
    timer_cancel(&dev->later);
    dev->kept.count = 0;
    for (unsigned n = 0; n < VIRTIO_MAX_QUEUES; n++)
        reset_queue(&dev->queues[n]);
}

void virtio_break(struct virtio_device *dev, const char *why)
{
    if (dev->status & VIRTIO_NEEDS_RESET)
        return;
    log_guest("%s: the guest's driver gave it %s; it stands still until it is reset", dev->dev->id,
              why);
    dev->status |= VIRTIO_NEEDS_RESET;
    if (dev->status & VIRTIO_DRIVER_OK)
        dev->transport->notify_config(dev);
}

void virtio_kick_later(struct virtio_device *dev)
{
    timer_arm(&dev->later, clock_now_ns(device_clocks(dev->dev), CLOCK_ID_VIRTUAL));
}

/* Bits are set one by one, and only a reset clears them. Features that we did not offer are
 * refused. */
void virtio_set_status(struct virtio_device *dev, uint8_t status)
{
    uint8_t added = status & (uint8_t)~dev->status;

    if (added & VIRTIO_FEATURES_OK &&
        ((dev->features & ~dev->offered) || !virtio_has(dev, VIRTIO_F_VERSION_1)))
        added &= (uint8_t)~VIRTIO_FEATURES_OK;
    dev->status |= added & (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK |
                            VIRTIO_FEATURES_OK | VIRTIO_FAILED);
    if (!(added & VIRTIO_DRIVER_OK))
        return;
    if (!(dev->status & VIRTIO_FEATURES_OK)) {
        virtio_break(dev, "DRIVER_OK before FEATURES_OK");
        return;
    }
    kick_all(dev); /* what was put there before */
}

uint32_t virtio_offered_half(const struct virtio_device *dev, uint32_t half)
{
    return half < 2 ? (uint32_t)(dev->offered >> 32 * half) : 0;
}

uint32_t virtio_accepted_half(const struct virtio_device *dev, uint32_t half)
{
    return half < 2 ? (uint32_t)(dev->features >> 32 * half) : 0;
}

void virtio_accept_half(struct virtio_device *dev, uint32_t half, uint32_t features)
{
    if (half >= 2 || dev->status & VIRTIO_FEATURES_OK || dev->legacy)
        return;
    dev->features &= ~(0xffffffffull << 32 * half);
    dev->features |= (uint64_t)features << 32 * half;
}

uint64_t virtio_read_config(struct virtio_device *dev, unsigned offset, unsigned size)
{
    uint8_t bytes[8] = {0};

    if (size <= sizeof(bytes) && range_fits(offset, size, dev->ops->config_bytes))
        dev->ops->read_config(dev, offset, bytes, size);
    return get_le64(bytes);
}

void virtio_write_config(struct virtio_device *dev, unsigned offset, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    put_le64(bytes, value);
    if (dev->ops->write_config && size <= sizeof(bytes) &&
        range_fits(offset, size, dev->ops->config_bytes))
        dev->ops->write_config(dev, offset, bytes, size);
}

void virtio_enable_queue(struct virtio_device *dev, struct virtqueue *queue)
{
    if (queue->enabled)
        return;
    if (!(dev->status & VIRTIO_FEATURES_OK)) { /* they say what it looks like */
        virtio_break(dev, "a queue before FEATURES_OK");
        return;
    }
    queue->enabled = virtqueue_map(queue);
    if (!queue->enabled)
        virtio_break(dev, "a queue that is not in RAM, or of a wrong size");
}

/* ---- the legacy interface ---- */

/* 3.1.2, 2.7.2: descriptors, driver's area, and the device's area on a page of its own. */
#define LEGACY_ALIGNMENT 4096u

static uint64_t legacy_features(const struct virtio_device *dev)
{
    return dev->offered & UINT32_MAX;
}

/* Queues exist, or how they look is agreed on, once there is FEATURES_OK: then it is too late. */
void virtio_legacy_set_status(struct virtio_device *dev, uint8_t status)
{
    if (dev->status & VIRTIO_FEATURES_OK)
        return;
    dev->legacy = true;
    dev->features &= legacy_features(dev);
    dev->status |= status & (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FAILED);
    if (status & VIRTIO_DRIVER_OK)
        kick_all(dev);
}

/* Some drivers agree on features when queues are in use: none of 32 changes where these lie. */
void virtio_legacy_accept(struct virtio_device *dev, uint32_t features)
{
    if (dev->legacy)
        dev->features = features & legacy_features(dev);
}

void virtio_legacy_enable_queue(struct virtio_device *dev, struct virtqueue *queue, uint64_t gpa)
{
    if (!dev->legacy || queue->enabled)
        return;
    queue->descriptors = gpa;
    queue->driver_area = gpa + 16ull * queue->size;
    queue->device_area = align_up(queue->driver_area + 6 + 2ull * queue->size, LEGACY_ALIGNMENT);
    queue->enabled = virtqueue_map(queue);
    if (!queue->enabled)
        virtio_break(dev, "a queue that is not in RAM");
}

/* ---- state ---- */

/*
 * What virtio_enable_queue and queue.c see to. Indices of a packed ring are inside it, and no more
 * than the ring is under way.
 */
static bool is_consistent(const struct virtio_device *dev, const struct virtqueue *queue)
{
    if (!(dev->status & VIRTIO_FEATURES_OK) && !dev->legacy)
        return false;
    if (!virtio_has(dev, VIRTIO_F_RING_PACKED))
        return true;
    return queue->next_avail < queue->size && queue->next_used < queue->size &&
           (queue->avail_wrap == queue->used_wrap ? queue->next_avail >= queue->next_used
                                                  : queue->next_avail <= queue->next_used);
}

int virtio_after_load(struct virtio_device *dev, struct error *err)
{
    if (dev->status & VIRTIO_FEATURES_OK && dev->features & ~dev->offered)
        return error_set(err, EINVAL, "%s: features 0x%llx that this device has not", dev->dev->id,
                         (unsigned long long)(dev->features & ~dev->offered));
    if (dev->legacy && (dev->status & VIRTIO_FEATURES_OK || dev->features & ~legacy_features(dev)))
        return error_set(err, EINVAL, "%s: the legacy interface with features 0x%llx", dev->dev->id,
                         (unsigned long long)dev->features);
    for (unsigned n = 0; n < VIRTIO_MAX_QUEUES; n++) {
        struct virtqueue *queue = &dev->queues[n];

        if (queue->enabled && (!is_consistent(dev, queue) || !virtqueue_map(queue)))
            return error_set(err, EINVAL, "%s: queue %u cannot be as it is saved", dev->dev->id, n);
    }
    if (!virtio_kept_is_consistent(dev))
        return error_set(err, EINVAL, "%s: it keeps requests that are not under way", dev->dev->id);
    return 0;
}

static const struct state_field virtqueue_state[] = {
    STATE_U16_MAX(struct virtqueue, size, VIRTIO_QUEUE_SIZE),
    STATE_U16(struct virtqueue, vector),
    STATE_BOOL(struct virtqueue, enabled),
    STATE_U64(struct virtqueue, descriptors),
    STATE_U64(struct virtqueue, driver_area),
    STATE_U64(struct virtqueue, device_area),
    STATE_U16(struct virtqueue, next_avail),
    STATE_U16(struct virtqueue, next_used),
    STATE_U16(struct virtqueue, news),
    STATE_BOOL(struct virtqueue, avail_wrap),
    STATE_BOOL(struct virtqueue, used_wrap),
    STATE_END,
};

static const struct state_field kept_state[] = {
    STATE_U16_MAX(struct virtio_kept, queue, VIRTIO_MAX_QUEUES - 1),
    STATE_U16(struct virtio_kept, id),
    STATE_U16(struct virtio_kept, flags),
    STATE_U32(struct virtio_kept, size_bytes),
    STATE_U64(struct virtio_kept, gpa),
    STATE_END,
};

const struct state_field virtio_device_state[] = {
    STATE_U8(struct virtio_device, status),
    STATE_U64(struct virtio_device, features),
    STATE_BOOL(struct virtio_device, legacy),
    STATE_U32(struct virtio_device, config_generation),
    STATE_STRUCTS(struct virtio_device, queues, virtqueue_state),
    STATE_TIMER(struct virtio_device, later),
    STATE_LIST(struct virtio_device, kept, VIRTIO_MAX_KEPT, struct virtio_kept, kept_state),
    STATE_END,
};
