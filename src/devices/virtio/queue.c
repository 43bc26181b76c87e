/*
 * queue.c - split and packed virtqueues
 *
 * The specification, 2.7 and 2.8. The three parts of a queue are in RAM, which does not move, so
 * their addresses are looked up once, when the queue is enabled. Whatever is read there is the
 * guest's: each number is read once and checked, and a chain is no longer than its table or ring.
 */
#include "base/bytes.h"
#include "base/guest_ram.h"
#include "base/pieces.h"
#include "devices/dma.h"
#include "devices/virtio/virtio.h"
#include "trapeze/machine.h"

#include <stdatomic.h>

#define DESCRIPTOR_BYTES   16u
#define DESC_NEXT          0x1u
#define DESC_WRITE         0x2u
#define DESC_INDIRECT      0x4u
#define DESC_AVAIL         0x80u /* packed ring */
#define DESC_USED          0x8000u

#define AVAIL_NO_INTERRUPT 0x1u
#define RING_OFFSET        4u /* in the driver's and the device's area: flags, index, ring */

#define EVENT_ENABLE       0u /* packed ring: flags of an event suppression structure */
#define EVENT_DISABLE      1u
#define EVENT_DESCRIPTOR   2u

static bool is_packed(const struct virtqueue *queue)
{
    return virtio_has(queue->dev, VIRTIO_F_RING_PACKED);
}

static struct memory *memory_of(const struct virtqueue *queue)
{
    return device_memory(queue->dev->dev);
}

/* ---- where it is ---- */

bool virtqueue_map(struct virtqueue *queue)
{
    struct memory *memory = memory_of(queue);
    size_t size = queue->size;
    bool packed = is_packed(queue);
    size_t driver_bytes = packed ? 4 : RING_OFFSET + 2 * size + 2;
    size_t device_bytes = packed ? 4 : RING_OFFSET + 8 * size + 2;

    if (!size || size > VIRTIO_QUEUE_SIZE || (!packed && (size & (size - 1))) ||
        (queue->descriptors & 15) || (queue->driver_area & (packed ? 3 : 1)) ||
        (queue->device_area & 3))
        return false;
    queue->descriptor_ram = memory_pin(memory, queue->descriptors, DESCRIPTOR_BYTES * size);
    queue->driver_ram = memory_pin(memory, queue->driver_area, driver_bytes);
    queue->device_ram = memory_pin(memory, queue->device_area, device_bytes);
    return queue->descriptor_ram && queue->driver_ram && queue->device_ram;
}

/* ---- descriptors ---- */

static struct virtio_descriptor load_descriptor(const uint8_t *ram, bool packed)
{
    uint8_t bytes[DESCRIPTOR_BYTES];

    ram_copy(bytes, ram, sizeof(bytes));
    return (struct virtio_descriptor){
        .gpa = get_le64(bytes),
        .size_bytes = get_le32(bytes + 8),
        .id = get_le16(bytes + 12),
        .next = get_le16(bytes + 14),
        .flags = get_le16(bytes + (packed ? 14 : 12)),
    };
}

static bool add_piece(struct virtio_chain *chain, bool write, void *hva, size_t size)
{
    unsigned count = chain->out_count + chain->in_count;

    if (count == VIRTIO_MAX_PIECES)
        return false;
    chain->pieces[count] = (struct io_piece){hva, size};
    if (write) {
        chain->in_count++;
        chain->in_bytes += size;
    } else {
        chain->out_count++;
        chain->out_bytes += size;
    }
    return true;
}

/* What is not one piece of RAM is pinned page by page. NULL, or what the guest did wrong. */
static const char *add_buffer(struct virtqueue *queue, struct virtio_chain *chain,
                              const struct virtio_descriptor *d)
{
    bool write = d->flags & DESC_WRITE;
    uint64_t gpa = d->gpa, left = d->size_bytes;

    if (!write && chain->in_count)
        return "a readable buffer behind a writable one";
    if (left > UINT64_MAX - gpa)
        return "a buffer beyond the end of memory";
    while (left) {
        uint64_t part = left;
        void *hva = memory_pin(memory_of(queue), gpa, part);

        if (!hva) {
            part = GUEST_PAGE_SIZE - gpa % GUEST_PAGE_SIZE;
            part = part < left ? part : left;
            hva = memory_pin(memory_of(queue), gpa, part);
        }
        if (!hva)
            return "a buffer that is not in RAM";
        if (!add_piece(chain, write, hva, part))
            return "too many buffers in one chain";
        gpa += part;
        left -= part;
    }
    return NULL;
}

/* The descriptors of an indirect table; in a packed ring they follow each other (2.8.7). */
static const char *add_table(struct virtqueue *queue, struct virtio_chain *chain,
                             const struct virtio_descriptor *d)
{
    bool packed = is_packed(queue);
    unsigned count = d->size_bytes / DESCRIPTOR_BYTES, at = 0;
    const uint8_t *table;

    if (!virtio_has(queue->dev, VIRTIO_F_INDIRECT_DESC))
        return "an indirect table that was not agreed on";
    if (!count || d->size_bytes % DESCRIPTOR_BYTES || count > VIRTIO_MAX_PIECES)
        return "an indirect table of a wrong size";
    table = memory_pin(memory_of(queue), d->gpa, d->size_bytes);
    if (!table)
        return "an indirect table that is not in RAM";
    for (unsigned n = 0; n < count; n++) {
        struct virtio_descriptor entry = load_descriptor(table + at * DESCRIPTOR_BYTES, packed);
        const char *wrong;

        if (entry.flags & DESC_INDIRECT)
            return "an indirect table in an indirect table";
        wrong = add_buffer(queue, chain, &entry);
        if (wrong || (!packed && !(entry.flags & DESC_NEXT)))
            return wrong;
        at = packed ? at + 1 : entry.next;
        if (!packed && at >= count)
            return "a descriptor beyond the end of its table";
    }
    return packed ? NULL : "a chain without an end";
}

static const char *add_descriptor(struct virtqueue *queue, struct virtio_chain *chain,
                                  const struct virtio_descriptor *d)
{
    if (!(d->flags & DESC_INDIRECT))
        return add_buffer(queue, chain, d);
    if (d->flags & DESC_NEXT)
        return "an indirect table that goes on";
    return add_table(queue, chain, d);
}

static void clear_chain(struct virtio_chain *chain)
{
    chain->out_count = chain->in_count = 0;
    chain->out_bytes = chain->in_bytes = 0;
}

/* ---- split queues ---- */

static const char *add_split(struct virtqueue *queue, struct virtio_chain *chain, unsigned head)
{
    unsigned at = head;

    chain->id = (uint16_t)head;
    chain->descriptors = 1;
    for (unsigned n = 0; n < queue->size; n++) {
        struct virtio_descriptor d;
        const char *wrong;

        if (at >= queue->size)
            return "a descriptor beyond the end of its table";
        d = load_descriptor(queue->descriptor_ram + at * DESCRIPTOR_BYTES, false);
        wrong = add_descriptor(queue, chain, &d);
        if (wrong || !(d.flags & DESC_NEXT))
            return wrong;
        at = d.next;
    }
    return "a chain without an end";
}

static const char *pop_split(struct virtqueue *queue, struct virtio_chain *chain, bool *out_found)
{
    uint16_t avail = ram_atomic_load16(queue->driver_ram + 2);
    unsigned head;

    *out_found = avail != queue->next_avail;
    if (!*out_found)
        return NULL;
    if ((uint16_t)(avail - queue->next_used) > queue->size) /* with those that are under way */
        return "more chains than its size";
    head =
        ram_load16(queue->driver_ram + RING_OFFSET + 2 * (queue->next_avail & (queue->size - 1u)));
    queue->next_avail++;
    return add_split(queue, chain, head);
}

static uint8_t *avail_event(const struct virtqueue *queue)
{
    return queue->device_ram + RING_OFFSET + 8u * queue->size;
}

/*
 * The ring is empty: the next chain is to be announced. True: one has come in between, which may
 * not have been.
 */
static bool ask_for_kick(struct virtqueue *queue)
{
    if (is_packed(queue) || !virtio_has(queue->dev, VIRTIO_F_EVENT_IDX))
        return false;
    ram_store16(avail_event(queue), queue->next_avail);
    memory_unpin(memory_of(queue), avail_event(queue), 2);
    atomic_thread_fence(
        memory_order_seq_cst); /* pairs with the driver's, between index and event */
    return ram_atomic_load16(queue->driver_ram + 2) != queue->next_avail;
}

/* Many may be used before the guest is told, if it polls meanwhile. */
static void add_news(struct virtqueue *queue, unsigned count)
{
    queue->news = (uint16_t)(queue->news + count < UINT16_MAX ? queue->news + count : UINT16_MAX);
}

static void push_split(struct virtqueue *queue, const struct virtio_used *used, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        uint8_t *ram =
            queue->device_ram + RING_OFFSET + 8u * (queue->next_used & (queue->size - 1u));

        ram_store32(ram, used[n].id);
        ram_store32(ram + 4, used[n].written_bytes);
        memory_unpin(memory_of(queue), ram, 8);
        queue->next_used++;
    }
    add_news(queue, count);
    ram_atomic_store16(queue->device_ram + 2, queue->next_used);
    memory_unpin(memory_of(queue), queue->device_ram + 2, 2);
}

/* Was event one of the last count before next? */
static bool passed(uint16_t event, uint16_t next, uint16_t count)
{
    return (uint16_t)(next - event - 1) < count;
}

static bool wants_split(const struct virtqueue *queue)
{
    if (virtio_has(queue->dev, VIRTIO_F_EVENT_IDX))
        return passed(ram_load16(queue->driver_ram + RING_OFFSET + 2u * queue->size),
                      queue->next_used, queue->news);
    return !(ram_load16(queue->driver_ram) & AVAIL_NO_INTERRUPT);
}

/* ---- packed queues ---- */

static void advance(const struct virtqueue *queue, uint16_t *at, bool *wrap, unsigned count)
{
    unsigned next = *at + count;

    if (next >= queue->size) {
        next -= queue->size;
        *wrap = !*wrap;
    }
    *at = (uint16_t)next;
}

/* Descriptors that were taken and not given back. */
static unsigned under_way_packed(const struct virtqueue *queue)
{
    return queue->next_avail + (queue->avail_wrap != queue->used_wrap ? queue->size : 0u) -
           queue->next_used;
}

static const char *pop_packed(struct virtqueue *queue, struct virtio_chain *chain, bool *out_found)
{
    uint8_t *ram = queue->descriptor_ram + queue->next_avail * DESCRIPTOR_BYTES;
    unsigned flags = ram_atomic_load16(ram + 14), at = queue->next_avail, count = 0;
    unsigned free = queue->size - under_way_packed(queue);
    const char *wrong = NULL;
    struct virtio_descriptor d;

    *out_found =
        !!(flags & DESC_AVAIL) == queue->avail_wrap && !!(flags & DESC_USED) != queue->avail_wrap;
    if (!*out_found)
        return NULL;
    do {
        if (count++ == free)
            return "more descriptors than its size";
        d = load_descriptor(queue->descriptor_ram + at * DESCRIPTOR_BYTES, true);
        chain->ring[count - 1] = d;
        wrong = add_descriptor(queue, chain, &d);
        at = at + 1 == queue->size ? 0 : at + 1;
    } while (!wrong && d.flags & DESC_NEXT);
    chain->id = d.id;
    chain->descriptors = (uint16_t)count;
    advance(queue, &queue->next_avail, &queue->avail_wrap, count);
    return wrong;
}

static void store_packed(struct virtqueue *queue, const struct virtio_used *used, uint16_t at,
                         bool wrap)
{
    uint8_t *ram = queue->descriptor_ram + at * DESCRIPTOR_BYTES;

    ram_store32(ram + 8, used->written_bytes);
    ram_store16(ram + 12, used->id);
    ram_atomic_store16(ram + 14, (uint16_t)((wrap ? DESC_AVAIL | DESC_USED : 0) |
                                            (used->written_bytes ? DESC_WRITE : 0)));
    memory_unpin(memory_of(queue), ram, DESCRIPTOR_BYTES);
}

/* The first one last: the guest looks at no other before. */
static void push_packed(struct virtqueue *queue, const struct virtio_used *used, unsigned count)
{
    uint16_t first = queue->next_used;
    bool first_wrap = queue->used_wrap;

    for (unsigned n = 0; n < count; n++) {
        if (n)
            store_packed(queue, &used[n], queue->next_used, queue->used_wrap);
        advance(queue, &queue->next_used, &queue->used_wrap, used[n].descriptors);
        add_news(queue, used[n].descriptors);
    }
    store_packed(queue, &used[0], first, first_wrap);
}

static bool wants_packed(const struct virtqueue *queue)
{
    uint32_t event = ram_load32(queue->driver_ram);
    uint16_t at = event & 0x7fff;

    if (event >> 16 != EVENT_DESCRIPTOR || !virtio_has(queue->dev, VIRTIO_F_EVENT_IDX))
        return event >> 16 != EVENT_DISABLE;
    if ((event >> 15 & 1) != queue->used_wrap) /* in the turn before, which lies below 0 */
        at = (uint16_t)(at - queue->size);
    return passed(at, queue->next_used, queue->news);
}

/* ---- either ---- */

bool virtqueue_pop(struct virtqueue *queue, struct virtio_chain *chain)
{
    const char *wrong;
    bool found;

    if (!virtio_is_running(queue->dev) || !queue->enabled ||
        !queue->dev->transport->can_access_memory(queue->dev))
        return false;
    do {
        clear_chain(chain);
        wrong =
            is_packed(queue) ? pop_packed(queue, chain, &found) : pop_split(queue, chain, &found);
    } while (!wrong && !found && ask_for_kick(queue));
    if (!wrong)
        return found;
    virtio_break(queue->dev, wrong);
    return false;
}

void virtqueue_unpop(struct virtqueue *queue, uint16_t descriptors)
{
    if (!is_packed(queue)) {
        queue->next_avail--;
        return;
    }
    if (queue->next_avail < descriptors) {
        queue->next_avail += queue->size;
        queue->avail_wrap = !queue->avail_wrap;
    }
    queue->next_avail -= descriptors;
}

/* ---- chains that are kept ---- */

/* Of a split queue chains, of a packed one descriptors, that were taken and not given back. */
static unsigned under_way(const struct virtqueue *queue)
{
    unsigned count = (uint16_t)(queue->next_avail - queue->next_used);

    if (is_packed(queue))
        return under_way_packed(queue);
    return count < queue->size ? count : queue->size;
}

bool virtio_keep(struct virtqueue *queue, const struct virtio_chain *chain)
{
    struct state_list *kept = &queue->dev->kept;
    uint32_t before = kept->count;

    for (unsigned n = 0; n < chain->descriptors; n++) {
        struct virtio_kept *k = state_list_add(kept, sizeof(*k));

        if (!k) {
            kept->count = before;
            return false;
        }
        *k = (struct virtio_kept){.queue = (uint16_t)(queue - queue->dev->queues), .id = chain->id};
        if (is_packed(queue)) {
            k->gpa = chain->ring[n].gpa;
            k->size_bytes = chain->ring[n].size_bytes;
            k->flags = chain->ring[n].flags;
        }
    }
    return true;
}

/* The descriptors from *at on that are one chain. */
static const char *add_kept(struct virtqueue *queue, struct virtio_chain *chain, unsigned *at)
{
    const struct virtio_kept *k = (const struct virtio_kept *)queue->dev->kept.elements + *at;
    const char *wrong = NULL;
    unsigned count = 0;

    if (!is_packed(queue)) {
        ++*at;
        return add_split(queue, chain, k->id);
    }
    chain->id = k->id;
    do {
        chain->ring[count] = (struct virtio_descriptor){
            .gpa = k->gpa, .size_bytes = k->size_bytes, .id = k->id, .flags = k->flags};
        wrong = add_descriptor(queue, chain, &chain->ring[count]);
        count++;
    } while (!wrong && k++->flags & DESC_NEXT);
    chain->descriptors = (uint16_t)count;
    *at += count;
    return wrong;
}

bool virtio_take_kept(struct virtio_device *dev, unsigned *at, struct virtqueue **out_queue,
                      struct virtio_chain *chain)
{
    if (*at < dev->kept.count && virtio_is_running(dev)) {
        const struct virtio_kept *k = (const struct virtio_kept *)dev->kept.elements + *at;
        const char *wrong;

        *out_queue = &dev->queues[k->queue];
        clear_chain(chain);
        wrong = add_kept(*out_queue, chain, at);
        if (!wrong)
            return true;
        virtio_break(dev, wrong);
    }
    dev->kept.count = 0;
    return false;
}

bool virtio_kept_is_consistent(const struct virtio_device *dev)
{
    const struct virtio_kept *kept = dev->kept.elements;
    unsigned counts[VIRTIO_MAX_QUEUES] = {0};

    for (unsigned n = 0; n < dev->kept.count; n++) {
        const struct virtio_kept *k = &kept[n];
        const struct virtqueue *queue = &dev->queues[k->queue];

        if (k->queue >= dev->queue_count || !queue->enabled ||
            ++counts[k->queue] > under_way(queue))
            return false;
        if (is_packed(queue) && k->flags & DESC_NEXT &&
            (n + 1 == dev->kept.count || k[1].queue != k->queue || k[1].id != k->id))
            return false;
    }
    return true;
}

/* ---- given back ---- */

struct virtio_used virtqueue_written(struct virtqueue *queue, const struct virtio_chain *chain,
                                     uint64_t written_bytes)
{
    io_pieces_written(chain->pieces + chain->out_count, chain->in_count, memory_of(queue),
                      written_bytes);
    return (struct virtio_used){chain->id, chain->descriptors, (uint32_t)written_bytes};
}

void virtqueue_push_used(struct virtqueue *queue, const struct virtio_used *used, unsigned count)
{
    if (!count || !virtio_is_running(queue->dev))
        return;
    if (is_packed(queue))
        push_packed(queue, used, count);
    else
        push_split(queue, used, count);
}

void virtqueue_push(struct virtqueue *queue, const struct virtio_chain *chain,
                    uint64_t written_bytes)
{
    struct virtio_used used = virtqueue_written(queue, chain, written_bytes);

    virtqueue_push_used(queue, &used, 1);
}

void virtqueue_notify(struct virtqueue *queue)
{
    bool wants;

    if (!queue->news || !virtio_is_running(queue->dev))
        return;
    atomic_thread_fence(memory_order_seq_cst); /* what was used, then what the driver asks for */
    wants = is_packed(queue) ? wants_packed(queue) : wants_split(queue);
    queue->news = 0;
    if (wants)
        queue->dev->transport->notify_queue(queue->dev, queue);
}

/* ---- contents of a chain ---- */

size_t virtio_chain_read(const struct virtio_chain *chain, uint64_t offset, void *out, size_t size)
{
    return pieces_read(chain->pieces, chain->out_count, offset, out, size);
}

size_t virtio_chain_write(const struct virtio_chain *chain, uint64_t offset, const void *data,
                          size_t size)
{
    return pieces_write(chain->pieces + chain->out_count, chain->in_count, offset, data, size);
}

unsigned virtio_chain_pieces(const struct virtio_chain *chain, bool in, uint64_t skip,
                             uint64_t size, struct io_piece *out)
{
    return pieces_part(chain->pieces + (in ? chain->out_count : 0),
                       in ? chain->in_count : chain->out_count, skip, size, out);
}
