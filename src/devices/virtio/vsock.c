/*
 * vsock.c - virtio sockets
 *
 * The specification, 5.10: stream sockets between the guest and the host, whose side is
 * trapeze/vsock.h. A connection has a buffer for what the host's socket does not take at once; the
 * guest sends no more than that has room (credit), and gets no more than it has room for.
 *
 * What is to be said to the guest waits as bits of its connection, or in a short list of resets for
 * connections that there are not, until the guest has buffers; while that list is full the guest's
 * packets wait in their ring. Connections are not in the state: after a load the guest is told
 * that they are gone (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET).
 *
 * Threads: machine lock held. Guest memory: DMA from and to what chains name.
 */
#include "trapeze/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/transport.h"
#include "trapeze/machine.h"

#define ID_SOCKET               19
#define PCI_CLASS_COMMUNICATION 0x078000
#define F_STREAM                (1ull << 0)

#define CONFIG_BYTES            8 /* the guest's CID */
#define HOST_CID                2u
#define FIRST_CID               3u
#define LAST_CID                0xfffffffeu

enum queue_number { RECEIVE, TRANSMIT, EVENTS, QUEUE_COUNT };

#define HEADER_BYTES     44u
#define TYPE_STREAM      1u
#define BUFFER_BYTES     65536u /* of a connection: the guest's credit */
#define MAX_CONNECTIONS  VSOCK_MAX_STREAMS
#define MAX_RESETS       32u
#define FIRST_HOST_PORT  0x40000000u /* of connections that the host begins */
#define PACKETS_PER_TURN 64u
#define BYTES_PER_TURN   (1u << 20)
#define DATA_BYTES       16384u /* of a packet to the guest, at most */

enum operation {
    OP_REQUEST = 1,
    OP_RESPONSE = 2,
    OP_RST = 3,
    OP_SHUTDOWN = 4,
    OP_RW = 5,
    OP_CREDIT_UPDATE = 6,
    OP_CREDIT_REQUEST = 7,
};
#define SHUTDOWN_RECEIVE   0x1u
#define SHUTDOWN_SEND      0x2u
#define SHUTDOWN_ALL       0x3u

#define EVENT_RESET        0u
#define EVENT_BYTES        4u

/* What the guest is to be told; the lowest first. */
#define SAY_REQUEST        0x01u
#define SAY_RESPONSE       0x02u
#define SAY_CREDIT         0x04u
#define SAY_CREDIT_REQUEST 0x08u
#define SAY_SHUTDOWN       0x10u
#define SAY_RST            0x20u /* and it is gone */

struct packet {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port, size_bytes;
    uint16_t type, operation;
    uint32_t flags, buffer_bytes, forwarded;
};

struct connection {
    struct virtio_vsock *vsock;
    struct connection *next;
    struct vsock_stream *stream; /* NULL: it has gone */
    uint32_t host_port, guest_port;
    bool from_host;        /* who has asked for it */
    bool is_open;          /* both sides have agreed */
    uint8_t messages;      /* SAY_... */
    uint8_t guest_ended;   /* SHUTDOWN_..., by the guest */
    uint8_t host_ended;    /* by the host */
    bool has_ended_writes; /* the host's side was told that no more comes */

    uint32_t guest_buffer, guest_forwarded; /* as the guest said last */
    uint32_t sent;                          /* bytes to the guest */
    uint32_t forwarded, forwarded_told;     /* bytes from the guest: gone on, and so said */
    size_t head, count;                     /* of the buffer: from the guest, not gone on yet */
    uint8_t *buffer;                        /* NULL until it is needed */
};

struct reset {
    uint32_t host_port, guest_port;
};

struct virtio_vsock {
    VIRTIO_TRANSPORT;
    struct virtio_device virtio;

    /* Configuration. */
    struct vsock *host; /* property */
    uint64_t cid;       /* property */

    /* Guest-visible state. */
    bool has_connections; /* when it was saved */

    struct vsock_frontend frontend;
    struct connection *connections;
    unsigned connection_count;
    uint32_t next_port;
    struct reset resets[MAX_RESETS];
    unsigned reset_count;
    bool is_reset; /* the guest is to be told that nothing is left */
    bool is_paused;
    struct virtio_chain chain; /* too big for the stack */
};

static struct virtio_vsock *vsock_of(struct device *dev)
{
    return container_of(dev, struct virtio_vsock, dev);
}

/* ---- connections ---- */

static struct connection *find(struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port)
{
    struct connection *c = s->connections;

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->next;
    return c;
}

/* NULL: there are enough. */
static struct connection *connection_new(struct virtio_vsock *s, uint32_t host_port,
                                         uint32_t guest_port)
{
    struct connection *c = s->connection_count < MAX_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    *c = (struct connection){
        .vsock = s, .next = s->connections, .host_port = host_port, .guest_port = guest_port};
    s->connections = c;
    s->connection_count++;
    return c;
}

static void close_stream(struct connection *c)
{
    vsock_close(c->stream);
    c->stream = NULL;
    c->count = 0;
}

static void connection_free(struct connection *c)
{
    struct connection **link = &c->vsock->connections;

    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    c->vsock->connection_count--;
    close_stream(c);
    free(c->buffer);
    free(c);
}

/* The host's side is over; the guest is told, and then nothing is left. */
static void abort_connection(struct connection *c)
{
    close_stream(c);
    c->messages = SAY_RST;
}

/* ---- packets ---- */

static void put_packet(const struct packet *p, uint8_t out[HEADER_BYTES])
{
    put_le64(out, p->source_cid);
    put_le64(out + 8, p->target_cid);
    put_le32(out + 16, p->source_port);
    put_le32(out + 20, p->target_port);
    put_le32(out + 24, p->size_bytes);
    put_le16(out + 28, p->type);
    put_le16(out + 30, p->operation);
    put_le32(out + 32, p->flags);
    put_le32(out + 36, p->buffer_bytes);
    put_le32(out + 40, p->forwarded);
}

static struct packet get_packet(const uint8_t in[HEADER_BYTES])
{
    return (struct packet){
        .source_cid = get_le64(in),
        .target_cid = get_le64(in + 8),
        .source_port = get_le32(in + 16),
        .target_port = get_le32(in + 20),
        .size_bytes = get_le32(in + 24),
        .type = get_le16(in + 28),
        .operation = get_le16(in + 30),
        .flags = get_le32(in + 32),
        .buffer_bytes = get_le32(in + 36),
        .forwarded = get_le32(in + 40),
    };
}

/* A buffer of the guest for a packet. False: there is none. */
static bool take_buffer(struct virtio_vsock *s)
{
    if (s->is_paused || !virtqueue_pop(&s->virtio.queues[RECEIVE], &s->chain))
        return false;
    if (s->chain.in_bytes >= HEADER_BYTES)
        return true;
    virtio_break(&s->virtio, "a buffer without room for a packet");
    return false;
}

/* Into the buffer that was taken; data may be NULL. */
static void send_packet(struct virtio_vsock *s, struct packet p, const void *data)
{
    uint8_t header[HEADER_BYTES];

    p.source_cid = HOST_CID;
    p.target_cid = s->cid;
    p.type = TYPE_STREAM;
    put_packet(&p, header);
    virtio_chain_write(&s->chain, 0, header, sizeof(header));
    if (data)
        virtio_chain_write(&s->chain, HEADER_BYTES, data, p.size_bytes);
    virtqueue_push(&s->virtio.queues[RECEIVE], &s->chain, HEADER_BYTES + p.size_bytes);
}

static void send_of(struct connection *c, enum operation operation, uint32_t flags,
                    const void *data, uint32_t size)
{
    struct packet p = {.source_port = c->host_port,
                       .target_port = c->guest_port,
                       .size_bytes = size,
                       .operation = (uint16_t)operation,
                       .flags = flags,
                       .buffer_bytes = BUFFER_BYTES,
                       .forwarded = c->forwarded};

    c->forwarded_told = c->forwarded;
    send_packet(c->vsock, p, data);
}

static void say(struct connection *c, unsigned what)
{
    static const uint8_t operations[] = {OP_REQUEST,        OP_RESPONSE, OP_CREDIT_UPDATE,
                                         OP_CREDIT_REQUEST, OP_SHUTDOWN, OP_RST};

    send_of(c, operations[__builtin_ctz(what)], what == SAY_SHUTDOWN ? c->host_ended : 0, NULL, 0);
}

/* What waits for buffers. Connections of which the last has been said are gone then. */
static void say_all(struct virtio_vsock *s)
{
    while (s->reset_count && take_buffer(s)) {
        const struct reset *r = &s->resets[--s->reset_count];

        send_packet(s,
                    (struct packet){.source_port = r->host_port,
                                    .target_port = r->guest_port,
                                    .operation = OP_RST},
                    NULL);
    }
    for (struct connection *c = s->connections, *next; c; c = next) {
        next = c->next;
        while (c->messages && take_buffer(s)) {
            unsigned what = c->messages & -(unsigned)c->messages;

            say(c, what);
            c->messages &= (uint8_t)~what;
            if (what == SAY_RST) {
                connection_free(c);
                break;
            }
        }
    }
    virtqueue_notify(&s->virtio.queues[RECEIVE]);
}

/* ---- from the host to the guest ---- */

/* How much more it has room for. */
static uint32_t credit(const struct connection *c)
{
    uint32_t under_way = c->sent - c->guest_forwarded;

    return under_way < c->guest_buffer ? c->guest_buffer - under_way : 0;
}

static bool may_receive(const struct connection *c)
{
    return c->is_open && c->stream && !(c->guest_ended & SHUTDOWN_RECEIVE) &&
           !(c->host_ended & SHUTDOWN_SEND) && !(c->messages & (SAY_RESPONSE | SAY_RST));
}

static void wait_for_host(struct connection *c)
{
    if (c->stream)
        vsock_wait_read(c->stream, may_receive(c) && credit(c) && !c->vsock->is_paused);
}

/* The host sends no more, or is gone. */
static void host_has_ended(struct connection *c)
{
    c->host_ended = vsock_is_hung_up(c->stream) ? SHUTDOWN_ALL : SHUTDOWN_SEND;
    c->messages |= SAY_SHUTDOWN;
    if (c->host_ended == SHUTDOWN_ALL)
        close_stream(c);
}

enum passed { PASSED, NOTHING_THERE, NO_ROOM };

/* One packet. */
static enum passed pass_on(struct connection *c)
{
    struct virtio_vsock *s = c->vsock;
    uint8_t data[DATA_BYTES];
    size_t size = credit(c);
    ptrdiff_t result;

    if (!size) {
        c->messages |= SAY_CREDIT_REQUEST;
        return NO_ROOM;
    }
    if (!take_buffer(s))
        return NO_ROOM;
    if (size > s->chain.in_bytes - HEADER_BYTES)
        size = (size_t)(s->chain.in_bytes - HEADER_BYTES);
    if (!size) {
        virtio_break(&s->virtio, "a buffer without room for data");
        return NO_ROOM;
    }
    result = vsock_read(c->stream, data, size < sizeof(data) ? size : sizeof(data));
    if (result > 0) {
        c->sent += (uint32_t)result;
        send_of(c, OP_RW, 0, data, (uint32_t)result);
        return PASSED;
    }
    virtqueue_unpop(&s->virtio.queues[RECEIVE], s->chain.descriptors);
    if (!result)
        host_has_ended(c);
    else if (result != -EAGAIN)
        abort_connection(c);
    return NOTHING_THERE;
}

/* Without room the socket is looked at again when the guest has made some. */
static void readable(void *owner)
{
    struct connection *c = owner;
    struct virtio_vsock *s = c->vsock;
    enum passed passed = PASSED;

    for (unsigned n = 0; n < PACKETS_PER_TURN / 4 && passed == PASSED && may_receive(c); n++)
        passed = pass_on(c);
    if (passed != NO_ROOM)
        wait_for_host(c);
    else if (c->stream)
        vsock_wait_read(c->stream, false);
    say_all(s); /* may free it */
}

/* ---- from the guest to the host ---- */

static void has_forwarded(struct connection *c, size_t size)
{
    c->forwarded += (uint32_t)size;
    if (c->forwarded - c->forwarded_told >= BUFFER_BYTES / 2)
        c->messages |= SAY_CREDIT;
}

/* Once all has gone on: what the guest has ended ends for the host. */
static void end_for_host(struct connection *c)
{
    if (c->count || !c->stream || !c->is_open)
        return;
    if (c->guest_ended == SHUTDOWN_ALL) {
        abort_connection(c);
    } else if (c->guest_ended & SHUTDOWN_SEND && !c->has_ended_writes) {
        c->has_ended_writes = true;
        vsock_end_writing(c->stream);
    }
}

/* Pass the buffer on, as much as is taken. */
static void flush(struct connection *c)
{
    while (c->count) {
        size_t part = BUFFER_BYTES - c->head < c->count ? BUFFER_BYTES - c->head : c->count;
        ptrdiff_t taken = vsock_write(c->stream, c->buffer + c->head, part);

        if (taken < 0) {
            abort_connection(c);
            return;
        }
        if (!taken)
            return;
        c->head = (c->head + (size_t)taken) % BUFFER_BYTES;
        c->count -= (size_t)taken;
        has_forwarded(c, (size_t)taken);
    }
    end_for_host(c);
}

static void writable(void *owner)
{
    struct connection *c = owner;
    struct virtio_vsock *s = c->vsock;

    if (s->is_paused)
        return; /* resume looks */
    flush(c);
    say_all(s);
}

/* False: it does not fit, and the guest knew. */
static bool keep(struct connection *c, const uint8_t *data, size_t size)
{
    size_t at = (c->head + c->count) % BUFFER_BYTES;
    size_t part = BUFFER_BYTES - at < size ? BUFFER_BYTES - at : size;

    if (size > BUFFER_BYTES - c->count)
        return false;
    if (!c->buffer)
        c->buffer = malloc(BUFFER_BYTES);
    if (!c->buffer)
        return false;
    memcpy(c->buffer + at, data, part);
    memcpy(c->buffer, data + part, size - part);
    c->count += size;
    return true;
}

/* The data of the packet in s->chain. */
static void take_data(struct connection *c, uint32_t size)
{
    const struct virtio_chain *chain = &c->vsock->chain;
    static uint8_t data[BUFFER_BYTES];
    ptrdiff_t taken = 0;

    if (!c->stream) { /* the host's side has ended; the guest will see */
        has_forwarded(c, size);
        return;
    }
    if (size > BUFFER_BYTES - c->count || c->guest_ended & SHUTDOWN_SEND) {
        abort_connection(c);
        return;
    }
    virtio_chain_read(chain, HEADER_BYTES, data, size);
    if (!c->count && size)
        taken = vsock_write(c->stream, data, size);
    if (taken < 0 || !keep(c, data + taken, size - (size_t)taken)) {
        abort_connection(c);
        return;
    }
    has_forwarded(c, (size_t)taken);
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
        abort_connection(c);
}

static void shut_down(struct connection *c, uint32_t flags)
{
    c->guest_ended |= flags & SHUTDOWN_ALL;
    if (c->guest_ended == SHUTDOWN_ALL && (!c->stream || !c->is_open))
        abort_connection(c);
    else
        end_for_host(c);
}

static void handle(struct virtio_vsock *s, const struct packet *p)
{
    struct connection *c = find(s, p->target_port, p->source_port);

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
        take_data(c, p->size_bytes);
    } else if (p->operation == OP_CREDIT_REQUEST) {
        c->messages |= SAY_CREDIT;
    } else if (p->operation != OP_CREDIT_UPDATE) {
        abort_connection(c);
    }
    wait_for_host(c);
}

static void hear_all(struct virtio_vsock *s)
{
    struct virtqueue *queue = &s->virtio.queues[TRANSMIT];
    uint8_t header[HEADER_BYTES];
    unsigned count = 0;
    uint64_t bytes = 0;

    say_all(s);
    while (count < PACKETS_PER_TURN && bytes < BYTES_PER_TURN && s->reset_count < MAX_RESETS &&
           virtqueue_pop(queue, &s->chain)) {
        struct packet p;

        if (virtio_chain_read(&s->chain, 0, header, sizeof(header)) != sizeof(header)) {
            virtio_break(&s->virtio, "a packet without a header");
            return;
        }
        p = get_packet(header);
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
    say_all(s);
    if (count == PACKETS_PER_TURN || bytes >= BYTES_PER_TURN)
        virtio_kick_later(&s->virtio); /* others want the lock, too */
}

/* ---- the host's calls ---- */

static uint32_t new_host_port(struct virtio_vsock *s, uint32_t guest_port)
{
    do {
        if (s->next_port < FIRST_HOST_PORT)
            s->next_port = FIRST_HOST_PORT;
    } while (find(s, s->next_port++, guest_port));
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
    say_all(s);
    return true;
}

static void dialed(void *owner, int status)
{
    struct connection *c = owner;
    struct virtio_vsock *s = c->vsock;

    if (status) {
        abort_connection(c);
    } else {
        c->is_open = true;
        c->messages |= SAY_RESPONSE;
    }
    say_all(s);
    if (!status)
        wait_for_host(c);
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
        say_all(s);
        for (struct connection *c = s->connections; c; c = c->next)
            wait_for_host(c);
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
                                          .readable = readable,
                                          .writable = writable,
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
        wait_for_host(c);
}

static void vsock_resume(struct device *dev)
{
    struct virtio_vsock *s = vsock_of(dev);

    s->is_paused = false;
    for (struct connection *c = s->connections; c; c = c->next) {
        if (c->stream && c->is_open)
            flush(c);
        wait_for_host(c);
    }
    virtio_kick_later(&s->virtio);
}

static void vsock_before_save(void *object)
{
    struct virtio_vsock *s = object;

    s->has_connections = s->connections || s->reset_count || s->is_reset;
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

static const struct property vsock_properties[] = {
    VIRTIO_PCI_PROPERTIES(struct virtio_vsock, pci),
    VSOCK_PROPERTIES,
};
static const struct property vsock_mmio_properties[] = {VSOCK_PROPERTIES};

#define VSOCK_STATE                                                                                \
    VIRTIO_STATE(struct virtio_vsock, virtio), STATE_BOOL(struct virtio_vsock, has_connections),   \
        STATE_END

static const struct state_field vsock_state[] = {
    STATE_STRUCT(struct virtio_vsock, pci, virtio_pci_state),
    VSOCK_STATE,
};
static const struct state_field vsock_mmio_state[] = {
    STATE_STRUCT(struct virtio_vsock, mmio, virtio_mmio_state),
    VSOCK_STATE,
};

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
