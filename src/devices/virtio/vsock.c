/*
 * vsock.c - virtio sockets
 *
 * The specification, 5.10: stream sockets between the guest and the host, whose side is
 * trapeze/vsock.h. This is the device; vsock_connection.c has its connections.
 *
 * Resets for connections that there are not wait in a short list until the guest has buffers; while
 * that list is full the guest's packets wait in their ring. Connections are not in the state: after
 * a load the guest is told that they are gone (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET).
 *
 * Threads: machine lock held. Guest memory: DMA from and to what chains name.
 */
#include "devices/virtio/vsock_connection.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "trapeze/machine.h"

#define ID_SOCKET               19
#define PCI_CLASS_COMMUNICATION 0x078000
#define F_STREAM                (1ull << 0)

#define CONFIG_BYTES            8 /* the guest's CID */
#define FIRST_CID               3u
#define LAST_CID                0xfffffffeu

#define FIRST_HOST_PORT         0x40000000u /* of connections that the host begins */
#define BYTES_PER_TURN          (1u << 20)

#define EVENT_RESET             0u
#define EVENT_BYTES             4u

static struct virtio_vsock *vsock_of(struct device *dev)
{
    return container_of(dev, struct virtio_vsock, dev);
}

/* ---- the guest's packets ---- */

static void reset_unknown(struct virtio_vsock *s, const struct packet *p)
{
    if (p->operation != OP_RST)
        s->resets[s->reset_count++] = (struct reset){p->target_port, p->source_port};
}

static void begin(struct virtio_vsock *s, const struct packet *p)
{
    struct connection *c = connection_new(s, p->target_port, p->source_port);

    if (!c) {
        reset_unknown(s, p);
        return;
    }
    c->guest_buffer = p->buffer_bytes;
    c->guest_forwarded = p->forwarded;
    c->stream = vsock_dial(s->host, p->target_port, c);
    if (!c->stream)
        connection_abort(c);
}

static void shut_down(struct connection *c, uint32_t flags)
{
    c->guest_ended |= flags & SHUTDOWN_ALL;
    if (c->guest_ended == SHUTDOWN_ALL && (!c->stream || !c->is_open))
        connection_abort(c);
    else
        connection_end_for_host(c);
}

static void handle(struct virtio_vsock *s, const struct packet *p)
{
    struct connection *c = connection_find(s, p->target_port, p->source_port);

    if (p->source_cid != s->cid || p->target_cid != HOST_CID || p->type != TYPE_STREAM) {
        reset_unknown(s, p);
        return;
    }
    if (!c && p->operation == OP_REQUEST) {
        begin(s, p);
        return;
    }
    if (!c) {
        reset_unknown(s, p);
        return;
    }
    c->guest_buffer = p->buffer_bytes;
    c->guest_forwarded = p->forwarded;
    if (c->messages & SAY_RST && p->operation != OP_RST)
        return; /* it will hear */
    if (p->operation == OP_RESPONSE && !c->is_open && c->stream && c->from_host) {
        c->is_open = true;
        vsock_accept(c->stream, c->host_port);
    } else if (p->operation == OP_RST) {
        connection_free(c);
        return;
    } else if (p->operation == OP_SHUTDOWN) {
        shut_down(c, p->flags);
    } else if (p->operation == OP_RW && c->is_open) {
        connection_take_data(c, p->size_bytes);
    } else if (p->operation == OP_CREDIT_REQUEST) {
        c->messages |= SAY_CREDIT;
    } else if (p->operation != OP_CREDIT_UPDATE) {
        connection_abort(c);
    }
    connection_wait_for_host(c);
}

static void hear_all(struct virtio_vsock *s)
{
    struct virtqueue *queue = &s->virtio.queues[TRANSMIT];
    uint8_t header[HEADER_BYTES];
    unsigned count = 0;
    uint64_t bytes = 0;

    vsock_say_all(s);
    while (count < PACKETS_PER_TURN && bytes < BYTES_PER_TURN && s->reset_count < MAX_RESETS &&
           virtqueue_pop(queue, &s->chain)) {
        struct packet p;

        if (virtio_chain_read(&s->chain, 0, header, sizeof(header)) != sizeof(header)) {
            virtio_break(&s->virtio, "a packet without a header");
            return;
        }
        p = vsock_get_packet(header);
        if (p.size_bytes > s->chain.out_bytes - HEADER_BYTES) {
            virtio_break(&s->virtio, "a packet that is shorter than it says");
            return;
        }
        handle(s, &p);
        virtqueue_push(queue, &s->chain, 0);
        count++;
        bytes += p.size_bytes;
    }
    virtqueue_notify(queue);
    vsock_say_all(s);
    if (count == PACKETS_PER_TURN || bytes >= BYTES_PER_TURN)
        virtio_kick_later(&s->virtio); /* others want the lock, too */
}

/* ---- the host's calls ---- */

static uint32_t new_host_port(struct virtio_vsock *s, uint32_t guest_port)
{
    do {
        if (s->next_port < FIRST_HOST_PORT)
            s->next_port = FIRST_HOST_PORT;
    } while (connection_find(s, s->next_port++, guest_port));
    return s->next_port - 1;
}

static bool requested(void *opaque, struct vsock_stream *stream, uint32_t port)
{
    struct virtio_vsock *s = opaque;
    struct connection *c = NULL;

    if (virtio_is_running(&s->virtio))
        c = connection_new(s, new_host_port(s, port), port);
    if (!c)
        return false;
    c->stream = stream;
    c->from_host = true;
    c->messages = SAY_REQUEST;
    vsock_own(stream, c);
    vsock_say_all(s);
    return true;
}

static void dialed(void *owner, int status)
{
    struct connection *c = owner;
    struct virtio_vsock *s = c->vsock;

    if (status) {
        connection_abort(c);
    } else {
        c->is_open = true;
        c->messages |= SAY_RESPONSE;
    }
    vsock_say_all(s);
    if (!status)
        connection_wait_for_host(c);
}

/* ---- the device's calls ---- */

/* Tell the guest that its connections are gone. */
static void tell_reset(struct virtio_vsock *s)
{
    struct virtqueue *queue = &s->virtio.queues[EVENTS];
    uint8_t event[EVENT_BYTES];

    if (!s->is_reset || !virtqueue_pop(queue, &s->chain))
        return;
    put_le32(event, EVENT_RESET);
    virtqueue_push(queue, &s->chain, virtio_chain_write(&s->chain, 0, event, sizeof(event)));
    virtqueue_notify(queue);
    s->is_reset = false;
}

static void vsock_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_vsock *s = container_of(virtio, struct virtio_vsock, virtio);

    if (s->is_paused)
        return;
    if (queue == &virtio->queues[EVENTS]) {
        tell_reset(s);
    } else if (queue == &virtio->queues[TRANSMIT]) {
        hear_all(s);
    } else {
        vsock_say_all(s);
        for (struct connection *c = s->connections; c; c = c->next)
            connection_wait_for_host(c);
        if (s->reset_count < MAX_RESETS)
            virtio_kick(virtio, TRANSMIT); /* what waited for room in the list */
    }
}

static void close_all(struct virtio_vsock *s)
{
    while (s->connections)
        connection_free(s->connections);
    s->reset_count = 0;
}

static void vsock_forget(struct virtio_device *virtio)
{
    struct virtio_vsock *s = container_of(virtio, struct virtio_vsock, virtio);

    close_all(s);
    s->is_reset = false;
}

static void vsock_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                              unsigned size)
{
    uint8_t c[CONFIG_BYTES];

    put_le64(c, container_of(virtio, struct virtio_vsock, virtio)->cid);
    memcpy(out, c + offset, size);
}

static const struct virtio_ops vsock_ops = {
    .id = ID_SOCKET,
    .config_bytes = CONFIG_BYTES,
    .read_config = vsock_read_config,
    .kick = vsock_kick,
    .reset = vsock_forget,
};

/* ---- lifecycle ---- */

static int vsock_attach(struct device *dev, struct error *err)
{
    struct virtio_vsock *s = vsock_of(dev);

    if (!s->host)
        return error_set(err, EINVAL, "%s: it has no host's side; use --vsock CID,PATH", dev->id);
    if (s->cid < FIRST_CID || s->cid > LAST_CID)
        return error_set(err, EINVAL, "%s: cid=%llu: it can be %u to %u", dev->id,
                         (unsigned long long)s->cid, FIRST_CID, LAST_CID);
    s->virtio = (struct virtio_device){
        .ops = &vsock_ops,
        .transport = virtio_transport_of(dev),
        .dev = dev,
        .offered = F_STREAM,
        .queue_count = QUEUE_COUNT,
    };
    virtio_init(&s->virtio);
    s->frontend = (struct vsock_frontend){.requested = requested,
                                          .dialed = dialed,
                                          .readable = connection_readable,
                                          .writable = connection_writable,
                                          .opaque = s};
    vsock_connect(s->host, &s->frontend);
    return virtio_transport_attach(dev, &s->virtio, PCI_CLASS_COMMUNICATION, err);
}

static void vsock_detach(struct device *dev)
{
    struct virtio_vsock *s = vsock_of(dev);

    virtio_transport_detach(dev);
    if (s->frontend.opaque)
        vsock_connect(s->host, NULL);
}

static void vsock_reset(struct device *dev)
{
    virtio_transport_reset(dev);
}

static void vsock_quiesce(struct device *dev)
{
    struct virtio_vsock *s = vsock_of(dev);

    s->is_paused = true;
    for (struct connection *c = s->connections; c; c = c->next)
        connection_wait_for_host(c);
}

static void vsock_resume(struct device *dev)
{
    struct virtio_vsock *s = vsock_of(dev);

    s->is_paused = false;
    for (struct connection *c = s->connections; c; c = c->next) {
        if (c->stream && c->is_open)
            connection_flush(c);
        connection_wait_for_host(c);
    }
    virtio_kick_later(&s->virtio);
}

static int vsock_before_save(void *object, struct error *err)
{
    struct virtio_vsock *s = object;

    (void)err;
    s->has_connections = s->connections || s->reset_count || s->is_reset;
    return 0;
}

static int vsock_after_load(void *object, struct error *err)
{
    struct virtio_vsock *s = object;

    close_all(s);
    s->is_reset = s->has_connections;
    return virtio_transport_after_load(&s->dev, err);
}

#define VSOCK_PROPERTIES                                                                           \
    PROPERTY_POINTER(struct virtio_vsock, host, "host's side"),                                    \
        PROPERTY_U64(struct virtio_vsock, cid, FIRST_CID, "the guest's address, 3 or more"),       \
        PROPERTY_END

#define VSOCK_STATE                                                                                \
    VIRTIO_STATE(struct virtio_vsock, virtio), STATE_BOOL(struct virtio_vsock, has_connections),   \
        STATE_END

VIRTIO_TABLES(vsock, struct virtio_vsock, VSOCK_PROPERTIES, VSOCK_STATE);

#define VSOCK_CALLS                                                                                \
    .instance_size = sizeof(struct virtio_vsock), .attach = vsock_attach, .reset = vsock_reset,    \
    .reset_done = virtio_transport_reset_done, .detach = vsock_detach, .quiesce = vsock_quiesce,   \
    .resume = vsock_resume
#define VSOCK_TABLE(f)                                                                             \
    {                                                                                              \
        .version = 1, .oldest = 1, .fields = f, .before_save = vsock_before_save,                  \
        .after_load = vsock_after_load                                                             \
    }

const struct device_class virtio_vsock_class = {
    .name = "virtio-vsock",
    .summary = "virtio sockets to the host on PCI",
    .bus = BUS_PCI,
    .properties = vsock_properties,
    .state = VSOCK_TABLE(vsock_state),
    VSOCK_CALLS,
};

const struct device_class virtio_vsock_mmio_class = {
    .name = "virtio-vsock-mmio",
    .summary = "virtio sockets to the host without PCI",
    .bus = BUS_PLATFORM,
    .properties = vsock_mmio_properties,
    .state = VSOCK_TABLE(vsock_mmio_state),
    VSOCK_CALLS,
};
