/*
 * vsock_connection.c - connections of virtio sockets
 *
 * A connection has a buffer for what the host's socket does not take at once; the guest sends no
 * more than that has room (credit), and gets no more than it has room for. What is to be said to
 * the guest waits as bits of its connection until the guest has buffers.
 */
#include "devices/virtio/vsock_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define MAX_CONNECTIONS VSOCK_MAX_STREAMS
#define DATA_BYTES      16384u /* of a packet to the guest, at most */

/* ---- connections ---- */

struct connection *connection_find(struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port)
{
    struct connection *c = s->connections;

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->next;
    return c;
}

struct connection *connection_new(struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port)
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

void connection_free(struct connection *c)
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

void connection_abort(struct connection *c)
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

struct packet vsock_get_packet(const uint8_t in[HEADER_BYTES])
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

void vsock_say_all(struct virtio_vsock *s)
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

void connection_wait_for_host(struct connection *c)
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
        connection_abort(c);
    return NOTHING_THERE;
}

/* Without room the socket is looked at again when the guest has made some. */
void connection_readable(void *owner)
{
    struct connection *c = owner;
    struct virtio_vsock *s = c->vsock;
    enum passed passed = PASSED;

    for (unsigned n = 0; n < PACKETS_PER_TURN / 4 && passed == PASSED && may_receive(c); n++)
        passed = pass_on(c);
    if (passed != NO_ROOM)
        connection_wait_for_host(c);
    else if (c->stream)
        vsock_wait_read(c->stream, false);
    vsock_say_all(s); /* may free it */
}

/* ---- from the guest to the host ---- */

static void has_forwarded(struct connection *c, size_t size)
{
    c->forwarded += (uint32_t)size;
    if (c->forwarded - c->forwarded_told >= BUFFER_BYTES / 2)
        c->messages |= SAY_CREDIT;
}

void connection_end_for_host(struct connection *c)
{
    if (c->count || !c->stream || !c->is_open)
        return;
    if (c->guest_ended == SHUTDOWN_ALL) {
        connection_abort(c);
    } else if (c->guest_ended & SHUTDOWN_SEND && !c->has_ended_writes) {
        c->has_ended_writes = true;
        vsock_end_writing(c->stream);
    }
}

void connection_flush(struct connection *c)
{
    while (c->count) {
        size_t part = BUFFER_BYTES - c->head < c->count ? BUFFER_BYTES - c->head : c->count;
        ptrdiff_t taken = vsock_write(c->stream, c->buffer + c->head, part);

        if (taken < 0) {
            connection_abort(c);
            return;
        }
        if (!taken)
            return;
        c->head = (c->head + (size_t)taken) % BUFFER_BYTES;
        c->count -= (size_t)taken;
        has_forwarded(c, (size_t)taken);
    }
    connection_end_for_host(c);
}

void connection_writable(void *owner)
{
    struct connection *c = owner;
    struct virtio_vsock *s = c->vsock;

    if (s->is_paused)
        return; /* resume looks */
    connection_flush(c);
    vsock_say_all(s);
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

void connection_take_data(struct connection *c, uint32_t size)
{
    const struct virtio_chain *chain = &c->vsock->chain;
    static uint8_t data[BUFFER_BYTES];
    ptrdiff_t taken = 0;

    if (!c->stream) { /* the host's side has ended; the guest will see */
        has_forwarded(c, size);
        return;
    }
    if (size > BUFFER_BYTES - c->count || c->guest_ended & SHUTDOWN_SEND) {
        connection_abort(c);
        return;
    }
    virtio_chain_read(chain, HEADER_BYTES, data, size);
    if (!c->count && size)
        taken = vsock_write(c->stream, data, size);
    if (taken < 0 || !keep(c, data + taken, size - (size_t)taken)) {
        connection_abort(c);
        return;
    }
    has_forwarded(c, (size_t)taken);
}
