/*
 * 9p.c - virtio 9P transport
 *
 * The specification has only its number (5); what there is, is Linux's driver (net/9p/
 * trans_virtio.c): one queue, a chain is a message and the room for its answer, and the
 * configuration has the tag by which a guest mounts the share. Messages are the share's.
 *
 * Threads: machine lock held. Guest memory: the share's process reads and writes what chains name.
 */
#include "devices/virtio/transport_pci.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/spares.h"
#include "devices/devices.h"
#include "trapeze/machine.h"
#include "trapeze/share.h"

#define ID_9P             9
#define PCI_CLASS_STORAGE 0x018000
#define F_MOUNT_TAG       (1ull << 0)
#define CONFIG_TAG        2 /* its length is in front of it */
#define CONFIG_BYTES      (CONFIG_TAG + SHARE_MAX_TAG + 2)

#define HEADER_BYTES      7u /* of a message: size, type, tag */
#define ERROR_BYTES       11u
#define TYPE_ERROR        7                 /* Rlerror */
#define MAX_REQUESTS      VIRTIO_QUEUE_SIZE /* started by one kick */

static_assert(VIRTIO_MAX_PIECES <= SHARE_MAX_PIECES, "a chain is a request");

struct p9_request {
    struct share_request share;
    struct virtio_9p *p9;
    struct virtio_chain chain;
};

struct virtio_9p {
    struct virtio_pci pci;
    struct virtio_device virtio;

    /* Configuration. */
    struct share *share; /* property */

    struct state_buffer open; /* share_save() */

    struct spare *spares; /* requests that nobody uses */
};

static struct virtio_9p *p9_of(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_9p, virtio);
}

/* ---- requests ---- */

static struct p9_request *take_request(struct virtio_9p *s)
{
    struct p9_request *r = spares_take(&s->spares, sizeof(*r));

    if (r)
        r->p9 = s;
    return r;
}

static void give_back(struct p9_request *r)
{
    spares_give_back(&r->p9->spares, r);
}

/* There is no server any more. */
static int64_t answer_error(struct p9_request *r)
{
    uint8_t message[HEADER_BYTES], answer[ERROR_BYTES];

    virtio_chain_read(&r->chain, 0, message, sizeof(message));
    put_le32(answer, ERROR_BYTES);
    answer[4] = TYPE_ERROR;
    memcpy(answer + 5, message + 5, 2);
    put_le32(answer + HEADER_BYTES, EIO);
    return (int64_t)virtio_chain_write(&r->chain, 0, answer, sizeof(answer));
}

static void request_done(struct share_request *share, int64_t answer_bytes)
{
    struct p9_request *r = container_of(share, struct p9_request, share);
    struct virtqueue *queue = &r->p9->virtio.queues[0];

    if (answer_bytes < 0)
        answer_bytes = answer_error(r);
    virtqueue_push(queue, &r->chain, (uint64_t)answer_bytes);
    virtqueue_notify(queue);
    give_back(r);
}

static void p9_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_9p *s = p9_of(virtio);
    struct p9_request *r;
    unsigned count = 0;

    while ((r = take_request(s)) && count < MAX_REQUESTS && virtqueue_pop(queue, &r->chain)) {
        count++;
        if (r->chain.out_bytes < HEADER_BYTES || r->chain.in_bytes < ERROR_BYTES) {
            virtio_break(virtio, "a message without a header or room for an answer");
            break;
        }
        r->share = (struct share_request){.pieces = r->chain.pieces,
                                          .out_count = r->chain.out_count,
                                          .in_count = r->chain.in_count,
                                          .done = request_done};
        share_submit(s->share, &r->share);
    }
    if (r)
        give_back(r);
    else
        virtio_break(virtio, "more than the host has memory for");
    if (count == MAX_REQUESTS)
        virtio_kick_later(virtio);
    else if (count)
        share_wait_a_little(s->share);
}

static void p9_forget(struct virtio_device *virtio)
{
    struct virtio_9p *s = p9_of(virtio);

    share_drain(s->share);
    share_forget(s->share);
}

static void p9_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                           unsigned size)
{
    const char *tag = share_tag(p9_of(virtio)->share);
    uint8_t c[CONFIG_BYTES] = {0};

    put_le16(c, (uint16_t)strlen(tag));
    memcpy(c + CONFIG_TAG, tag, strlen(tag));
    memcpy(out, c + offset, size);
}

static const struct virtio_ops p9_ops = {
    .id = ID_9P,
    .config_bytes = CONFIG_BYTES,
    .read_config = p9_read_config,
    .kick = p9_kick,
    .reset = p9_forget,
};

/* ---- lifecycle ---- */

static struct virtio_9p *p9_of_device(struct device *dev)
{
    return container_of(dev, struct virtio_9p, pci.function.dev);
}

static int p9_attach(struct device *dev, struct error *err)
{
    struct virtio_9p *s = p9_of_device(dev);

    if (!s->share)
        return error_set(err, EINVAL, "%s: it has no folder; use --share DIR", dev->id);
    if (share_connect(s->share, machine_loop(dev->machine), machine_memory(dev->machine), err))
        return -EINVAL;
    s->virtio = (struct virtio_device){.ops = &p9_ops,
                                       .transport = &virtio_pci_transport,
                                       .dev = dev,
                                       .offered = F_MOUNT_TAG,
                                       .queue_count = 1};
    virtio_init(&s->virtio);
    return virtio_pci_attach(&s->pci, &s->virtio, PCI_CLASS_STORAGE, err);
}

static void p9_detach(struct device *dev)
{
    struct virtio_9p *s = p9_of_device(dev);

    virtio_pci_detach(&s->pci);
    free(s->open.data);
    spares_free(&s->spares);
}

static void p9_reset(struct device *dev)
{
    virtio_pci_reset(&p9_of_device(dev)->pci);
}

static void p9_quiesce(struct device *dev)
{
    share_drain(p9_of_device(dev)->share);
}

static int p9_before_save(void *object, struct error *err)
{
    struct virtio_9p *s = object;

    s->open.size_bytes = 0;
    return share_save(s->share, &s->open, err);
}

static int p9_after_load(void *object, struct error *err)
{
    struct virtio_9p *s = object;
    int result = virtio_pci_after_load(&s->pci, err);

    return result ? result : share_load(s->share, &s->open, err);
}

static const struct property p9_properties[] = {
    VIRTIO_PCI_PROPERTIES(struct virtio_9p, pci),
    PROPERTY_POINTER(struct virtio_9p, share, "share"),
    PROPERTY_END,
};

static const struct state_field p9_state[] = {
    STATE_STRUCT(struct virtio_9p, pci, virtio_pci_state),
    VIRTIO_STATE(struct virtio_9p, virtio),
    STATE_BLOB(struct virtio_9p, open, SHARE_MAX_STATE),
    STATE_END,
};

const struct device_class virtio_9p_class = {
    .name = "virtio-9p",
    .summary = "virtio folder of the host on PCI",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct virtio_9p),
    .properties = p9_properties,
    .attach = p9_attach,
    .reset = p9_reset,
    .detach = p9_detach,
    .quiesce = p9_quiesce,
    .state = {.version = 1,
              .oldest = 1,
              .fields = p9_state,
              .before_save = p9_before_save,
              .after_load = p9_after_load},
};
