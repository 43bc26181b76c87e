/*
 * blk.c - virtio block device
 *
 * The specification, 5.2. One queue for each processor. Requests end in any order.
 *
 * Threads: machine lock held. Guest memory: DMA into and out of what chains name.
 */
#include "devices/virtio/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/spares.h"
#include "devices/devices.h"
#include "trapeze/block.h"
#include "trapeze/machine.h"

#define ID_BLOCK          2
#define PCI_CLASS_STORAGE 0x018000

#define F_SEG_MAX         (1ull << 2)
#define F_RO              (1ull << 5)
#define F_BLK_SIZE        (1ull << 6)
#define F_FLUSH           (1ull << 9)
#define F_TOPOLOGY        (1ull << 10)
#define F_CONFIG_WCE      (1ull << 11)
#define F_MQ              (1ull << 12)
#define F_DISCARD         (1ull << 13)
#define F_WRITE_ZEROES    (1ull << 14)

/* struct virtio_blk_config (5.2.4). */
enum config_field {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_EXPONENT = 24,
    CONFIG_MIN_IO = 26,
    CONFIG_OPT_IO = 28,
    CONFIG_WRITEBACK = 32,
    CONFIG_NUM_QUEUES = 34,
    CONFIG_MAX_DISCARD_SECTORS = 36,
    CONFIG_MAX_DISCARD_SEGMENTS = 40,
    CONFIG_DISCARD_ALIGNMENT = 44,
    CONFIG_MAX_ZERO_SECTORS = 48,
    CONFIG_MAX_ZERO_SEGMENTS = 52,
    CONFIG_ZERO_MAY_UNMAP = 56,
    CONFIG_BYTES = 60,
};

enum request_type {
    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
};
enum { STATUS_OK = 0, STATUS_ERROR = 1, STATUS_UNSUPPORTED = 2 };

#define HEADER_BYTES      16u
#define RANGE_BYTES       16u /* of DISCARD and WRITE_ZEROES: sector, count, flags */
#define RANGE_UNMAP       0x1u
#define ID_BYTES          20u
#define MAX_REQUESTS      VIRTIO_QUEUE_SIZE /* started by one kick */
#define MAX_RANGE_SECTORS (1u << 22)        /* 2 GiB */

struct blk_request {
    struct block_request block;
    struct virtio_blk *blk;
    struct virtqueue *queue;
    bool flush_after;                          /* the guest wants no write cache */
    struct io_piece pieces[VIRTIO_MAX_PIECES]; /* of the data */
    struct virtio_chain chain;
};

struct virtio_blk {
    VIRTIO_TRANSPORT;
    struct virtio_device virtio;

    /* Configuration. */
    struct block *drive; /* property */
    char *serial;        /* property */
    uint16_t queues;     /* property; 0: one for each processor */

    /* Guest-visible state. */
    bool writeback; /* as the guest sets it: it flushes, or wants each write on the disk */

    bool kicking;         /* interrupts wait until the whole queue was looked at */
    struct spare *spares; /* requests that nobody uses */
};

static struct virtio_blk *blk_of(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_blk, virtio);
}

/* ---- ends of requests ---- */

static struct blk_request *take_request(struct virtio_blk *s)
{
    struct blk_request *r = spares_take(&s->spares, sizeof(*r));

    if (r)
        r->blk = s;
    return r;
}

static void give_back(struct blk_request *r)
{
    spares_give_back(&r->blk->spares, r);
}

/* The status is the last byte that the guest can be given, so all of them count as written. */
static void end_request(struct blk_request *r, uint8_t status)
{
    struct virtqueue *queue = r->queue;

    virtio_chain_write(&r->chain, r->chain.in_bytes - 1, &status, 1);
    virtqueue_push(queue, &r->chain, r->chain.in_bytes);
    if (!r->blk->kicking)
        virtqueue_notify(queue);
    give_back(r);
}

static void request_done(struct block_request *block, int status)
{
    struct blk_request *r = container_of(block, struct blk_request, block);

    if (!status && r->flush_after) {
        r->flush_after = false;
        r->block.op = BLOCK_FLUSH;
        block_submit(r->blk->drive, &r->block);
        return;
    }
    end_request(r, status ? STATUS_ERROR : STATUS_OK);
}

/* ---- requests ---- */

static void submit(struct blk_request *r, enum block_op op, uint64_t offset, uint64_t size_bytes)
{
    r->block.op = op;
    r->block.offset = offset;
    r->block.size_bytes = size_bytes;
    r->block.pieces = r->pieces;
    r->block.done = request_done;
    block_submit(r->blk->drive, &r->block);
}

/* Is a write on the disk when it ends? When a driver writes a cache through, or knows of none
 * (5.2.6.2). */
static bool is_write_through(const struct virtio_blk *s)
{
    return virtio_has(&s->virtio, F_CONFIG_WCE) ? !s->writeback : !virtio_has(&s->virtio, F_FLUSH);
}

static void transfer(struct blk_request *r, bool is_read, uint64_t sector)
{
    const struct virtio_chain *chain = &r->chain;
    uint64_t size = is_read ? chain->in_bytes - 1 : chain->out_bytes - HEADER_BYTES;

    if (size % BLOCK_SECTOR_BYTES || sector > UINT64_MAX / BLOCK_SECTOR_BYTES) {
        end_request(r, STATUS_ERROR);
        return;
    }
    r->block.piece_count =
        virtio_chain_pieces(chain, is_read, is_read ? 0 : HEADER_BYTES, size, r->pieces);
    r->flush_after = !is_read && is_write_through(r->blk);
    submit(r, is_read ? BLOCK_READ : BLOCK_WRITE, sector * BLOCK_SECTOR_BYTES, size);
}

static void get_id(struct blk_request *r)
{
    char id[ID_BYTES] = {0};

    if (r->chain.in_bytes < ID_BYTES + 1) {
        end_request(r, STATUS_ERROR);
        return;
    }
    memcpy(id, r->blk->serial, strnlen(r->blk->serial, ID_BYTES));
    virtio_chain_write(&r->chain, 0, id, sizeof(id));
    end_request(r, STATUS_OK);
}

/* DISCARD or WRITE_ZEROES of one range, which is what max_..._seg says. */
static void clear_range(struct blk_request *r, bool is_discard)
{
    uint8_t range[RANGE_BYTES];
    uint64_t sector, count;
    uint32_t flags;

    if (r->chain.out_bytes != HEADER_BYTES + RANGE_BYTES) {
        end_request(r, STATUS_ERROR);
        return;
    }
    virtio_chain_read(&r->chain, HEADER_BYTES, range, sizeof(range));
    sector = get_le64(range);
    count = get_le32(range + 8);
    flags = get_le32(range + 12);
    if (flags & ~RANGE_UNMAP || (is_discard && flags)) { /* 5.2.6.2 */
        end_request(r, STATUS_UNSUPPORTED);
        return;
    }
    if (sector > UINT64_MAX / BLOCK_SECTOR_BYTES || count > MAX_RANGE_SECTORS) {
        end_request(r, STATUS_ERROR);
        return;
    }
    r->flush_after = is_write_through(r->blk);
    submit(r, is_discard ? BLOCK_DISCARD : BLOCK_ZERO, sector * BLOCK_SECTOR_BYTES,
           count * BLOCK_SECTOR_BYTES);
}

/* Of a chain that was taken. */
static void start_request(struct blk_request *r)
{
    uint8_t header[HEADER_BYTES];

    if (r->chain.out_bytes < HEADER_BYTES || !r->chain.in_bytes) {
        virtio_break(&r->blk->virtio, "a request without a header or a status");
        give_back(r);
        return;
    }
    r->flush_after = false;
    r->block.piece_count = 0;
    virtio_chain_read(&r->chain, 0, header, sizeof(header));
    switch (get_le32(header)) {
    case TYPE_IN:
        transfer(r, true, get_le64(header + 8));
        break;
    case TYPE_OUT:
        transfer(r, false, get_le64(header + 8));
        break;
    case TYPE_FLUSH:
        submit(r, BLOCK_FLUSH, 0, 0);
        break;
    case TYPE_GET_ID:
        get_id(r);
        break;
    case TYPE_DISCARD:
    case TYPE_WRITE_ZEROES:
        clear_range(r, get_le32(header) == TYPE_DISCARD);
        break;
    default:
        end_request(r, STATUS_UNSUPPORTED);
    }
}

/* Of one that was not needed; NULL: there was none. */
static void end_taking(struct virtio_blk *s, struct blk_request *r)
{
    if (r)
        give_back(r);
    else
        virtio_break(&s->virtio, "more than the host has memory for");
}

static void blk_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_blk *s = blk_of(virtio);
    struct blk_request *r;
    unsigned count = 0;

    s->kicking = true;
    while ((r = take_request(s)) && count < MAX_REQUESTS && virtqueue_pop(queue, &r->chain)) {
        count++;
        r->queue = queue;
        start_request(r);
    }
    end_taking(s, r);
    s->kicking = false;
    virtqueue_notify(queue);
    if (count == MAX_REQUESTS)
        virtio_kick_later(virtio);
}

static void blk_forget(struct virtio_device *virtio)
{
    struct virtio_blk *s = blk_of(virtio);

    if (s->drive) {
        block_drain(s->drive);
        s->writeback = !block_is_write_through(s->drive);
    }
}

/* ---- configuration ---- */

static void blk_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                            unsigned size)
{
    struct virtio_blk *s = blk_of(virtio);
    uint8_t c[CONFIG_BYTES] = {0};

    put_le64(c + CONFIG_CAPACITY, block_size_bytes(s->drive) / BLOCK_SECTOR_BYTES);
    put_le32(c + CONFIG_SEG_MAX, VIRTIO_QUEUE_SIZE - 2);
    put_le32(c + CONFIG_BLK_SIZE, BLOCK_SECTOR_BYTES);
    c[CONFIG_PHYSICAL_EXPONENT] = 3; /* pages of the host's cache */
    put_le16(c + CONFIG_MIN_IO, 8);
    c[CONFIG_WRITEBACK] = s->writeback;
    put_le16(c + CONFIG_NUM_QUEUES, (uint16_t)virtio->queue_count);
    put_le32(c + CONFIG_MAX_DISCARD_SECTORS, MAX_RANGE_SECTORS);
    put_le32(c + CONFIG_MAX_DISCARD_SEGMENTS, 1);
    put_le32(c + CONFIG_DISCARD_ALIGNMENT, 8);
    put_le32(c + CONFIG_MAX_ZERO_SECTORS, MAX_RANGE_SECTORS);
    put_le32(c + CONFIG_MAX_ZERO_SEGMENTS, 1);
    c[CONFIG_ZERO_MAY_UNMAP] = block_can_discard(s->drive);
    memcpy(out, c + offset, size);
}

static void blk_write_config(struct virtio_device *virtio, unsigned offset, const uint8_t *data,
                             unsigned size)
{
    if (offset == CONFIG_WRITEBACK && size == 1 && virtio_has(virtio, F_CONFIG_WCE))
        blk_of(virtio)->writeback = data[0] & 1;
}

static const struct virtio_ops blk_ops = {
    .id = ID_BLOCK,
    .config_bytes = CONFIG_BYTES,
    .read_config = blk_read_config,
    .write_config = blk_write_config,
    .kick = blk_kick,
    .reset = blk_forget,
};

/* ---- lifecycle ---- */

static struct virtio_blk *blk_of_device(struct device *dev)
{
    return container_of(dev, struct virtio_blk, dev);
}

static int blk_attach(struct device *dev, struct error *err)
{
    struct virtio_blk *s = blk_of_device(dev);
    unsigned queues = s->queues ? s->queues : machine_vcpu_count(dev->machine);

    if (!s->drive)
        return error_set(err, EINVAL, "%s: it has no disk; use --disk FILE", dev->id);
    if (strlen(s->serial) > ID_BYTES)
        return error_set(err, EINVAL, "%s: serial=%s is longer than %u characters", dev->id,
                         s->serial, ID_BYTES);
    if (queues > VIRTIO_MAX_QUEUES)
        return error_set(err, EINVAL, "%s: queues=%u: there can be up to %u", dev->id, queues,
                         VIRTIO_MAX_QUEUES);
    s->virtio = (struct virtio_device){
        .ops = &blk_ops,
        .transport = virtio_transport_of(dev),
        .dev = dev,
        .offered = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE | F_MQ,
        .queue_count = queues,
    };
    if (block_is_read_only(s->drive))
        s->virtio.offered |= F_RO;
    else
        s->virtio.offered |= F_WRITE_ZEROES | (block_can_discard(s->drive) ? F_DISCARD : 0);
    virtio_init(&s->virtio);
    blk_forget(&s->virtio);
    return virtio_transport_attach(dev, &s->virtio, PCI_CLASS_STORAGE, err);
}

static void blk_detach(struct device *dev)
{
    struct virtio_blk *s = blk_of_device(dev);

    virtio_transport_detach(dev);
    spares_free(&s->spares);
}

static void blk_reset(struct device *dev)
{
    virtio_transport_reset(dev);
}

static void blk_quiesce(struct device *dev)
{
    struct virtio_blk *s = blk_of_device(dev);
    struct block_request *kept;
    int status;

    block_quiesce(s->drive);
    while ((kept = block_take_kept(s->drive, &status))) {
        struct blk_request *r = container_of(kept, struct blk_request, block);

        if (virtio_keep(r->queue, &r->chain))
            give_back(r);
        else
            request_done(kept, status);
    }
}

static void blk_resume(struct device *dev)
{
    struct virtio_blk *s = blk_of_device(dev);
    struct blk_request *r;
    unsigned at = 0;

    while ((r = take_request(s)) && virtio_take_kept(&s->virtio, &at, &r->queue, &r->chain))
        start_request(r);
    end_taking(s, r);
}

static void blk_boot_path(struct device *dev, char *out, size_t size)
{
    pci_boot_path(&blk_of_device(dev)->pci.function, "scsi", "/disk@0,0", out, size);
}

static int blk_after_load(void *object, struct error *err)
{
    return virtio_transport_after_load(object, err);
}

#define BLK_PROPERTIES                                                                             \
    PROPERTY_POINTER(struct virtio_blk, drive, "disk"),                                            \
        PROPERTY_STRING(struct virtio_blk, serial, "", "serial number, up to 20 characters"),      \
        PROPERTY_U16(struct virtio_blk, queues, 0,                                                 \
                     "request queues, up to 33; 0: one for each processor"),                       \
        PROPERTY_END

#define BLK_STATE                                                                                  \
    VIRTIO_STATE(struct virtio_blk, virtio), STATE_BOOL(struct virtio_blk, writeback), STATE_END

VIRTIO_TABLES(blk, struct virtio_blk, BLK_PROPERTIES, BLK_STATE);

#define BLK_CALLS                                                                                  \
    .instance_size = sizeof(struct virtio_blk), .attach = blk_attach, .reset = blk_reset,          \
    .reset_done = virtio_transport_reset_done, .detach = blk_detach, .quiesce = blk_quiesce,       \
    .resume = blk_resume

const struct device_class virtio_blk_class = {
    .name = "virtio-blk",
    .summary = "virtio disk on PCI",
    .bus = BUS_PCI,
    .properties = blk_properties,
    .boot_path = blk_boot_path,
    .state = {.version = 1, .oldest = 1, .fields = blk_state, .after_load = blk_after_load},
    BLK_CALLS,
};

const struct device_class virtio_blk_mmio_class = {
    .name = "virtio-blk-mmio",
    .summary = "virtio disk without PCI",
    .bus = BUS_PLATFORM,
    .properties = blk_mmio_properties,
    .state = {.version = 1, .oldest = 1, .fields = blk_mmio_state, .after_load = blk_after_load},
    BLK_CALLS,
};
