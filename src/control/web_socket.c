/*
 * web_socket.c - a WebSocket that is connected, on the main loop
 *
 * Theory of operation. What comes is taken out of a buffer as far as the inner end takes it; while
 * that has no room nothing more is read. What goes is asked for only when all before has gone, so
 * a browser that does not read costs one buffer. Control frames go between. Nothing frees a socket
 * while its inner end is called: is_gone says that it is to go, which the loop then notices.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "control/web_internal.h"
#include "host/loop.h"
#include "trapeze/clock.h"

#define QUIET_NS (2 * WEB_TICK_NS) /* then it is asked whether it is there */
#define DEAD_NS  (6 * WEB_TICK_NS)

struct web_socket {
    struct web_sockets *sockets;
    struct web_socket *next;
    int fd;
    void *connection;
    struct loop_fd *handler;
    const struct web_socket_ops *ops;
    void *opaque;

    struct websocket_reader reader;
    uint8_t in[WEB_IN_BYTES]; /* from in_start to in_end */
    size_t in_start, in_end;
    const uint8_t *rest; /* in it: what the inner end has not taken */
    size_t rest_size;

    uint8_t out[WEBSOCKET_HEAD_BYTES + WEB_OUT_BYTES]; /* from out_start to out_end */
    size_t out_start, out_end;
    uint8_t pong[WEBSOCKET_CONTROL_BYTES];
    size_t pong_size;
    bool has_pong, wants_ping;
    uint16_t close_code;            /* 0: it goes on */
    bool is_shut, is_late, is_gone; /* all was said; since the last tick; it is to be freed */
    uint64_t heard_ns, progress_ns; /* when it last sent and read something */
};

static uint64_t now_ns(const struct web_socket *socket)
{
    return clock_now_ns(socket->sockets->clocks, CLOCK_ID_HOST);
}

/* ---- sending ---- */

static size_t queued(const struct web_socket *socket)
{
    return socket->out_end - socket->out_start;
}

static void flush(struct web_socket *socket)
{
    while (queued(socket) && !socket->is_gone) {
        ssize_t n = send(socket->fd, socket->out + socket->out_start, queued(socket),
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            socket->is_gone = errno != EAGAIN && errno != EWOULDBLOCK;
            return;
        }
        socket->out_start += (size_t)n;
        socket->progress_ns = now_ns(socket);
    }
}

/* A frame with what is behind the room for its head. */
static void put_frame(struct web_socket *socket, enum websocket_opcode opcode, size_t size)
{
    uint8_t head[WEBSOCKET_HEAD_BYTES];
    size_t head_size = websocket_head(opcode, size, head);

    socket->out_start = WEBSOCKET_HEAD_BYTES - head_size;
    socket->out_end = WEBSOCKET_HEAD_BYTES + size;
    memcpy(socket->out + socket->out_start, head, head_size);
    socket->progress_ns = now_ns(socket);
}

/* What is next to say. False: nothing. */
static bool put_next(struct web_socket *socket)
{
    uint8_t *to = socket->out + WEBSOCKET_HEAD_BYTES;
    size_t size;

    if (socket->is_shut)
        return false;
    if (socket->close_code) {
        put_be16(to, socket->close_code);
        put_frame(socket, WEBSOCKET_CLOSE, 2);
        socket->is_shut = true;
    } else if (socket->has_pong) {
        memcpy(to, socket->pong, socket->pong_size);
        put_frame(socket, WEBSOCKET_PONG, socket->pong_size);
        socket->has_pong = false;
    } else if (socket->wants_ping) {
        put_frame(socket, WEBSOCKET_PING, 0);
        socket->wants_ping = false;
    } else {
        size = socket->ops->fill(socket->opaque, to, WEB_OUT_BYTES);
        if (!size && !socket->close_code)
            return false;
        if (size)
            put_frame(socket, WEBSOCKET_BINARY, size);
    }
    return true;
}

static void send_all(struct web_socket *socket)
{
    do
        flush(socket);
    while (!queued(socket) && !socket->is_gone && put_next(socket));
    if (socket->is_shut && !queued(socket))
        shutdown(socket->fd, SHUT_WR);
}

/* ---- receiving ---- */

static void take_piece(struct web_socket *socket, const struct websocket_piece *piece)
{
    switch (piece->event) {
    case WEBSOCKET_DATA:
        socket->rest = piece->bytes;
        socket->rest_size = piece->size;
        break;
    case WEBSOCKET_PINGED: /* only the last one has to be answered (section 5.5.3) */
        memcpy(socket->pong, piece->bytes, piece->size);
        socket->pong_size = piece->size;
        socket->has_pong = true;
        break;
    case WEBSOCKET_CLOSED:
    case WEBSOCKET_WRONG:
        socket->close_code = socket->close_code ? socket->close_code : piece->code;
        break;
    case WEBSOCKET_MORE:
    case WEBSOCKET_PONGED:
        break;
    }
}

static bool is_blocked(const struct web_socket *socket)
{
    return socket->rest_size > 0;
}

static void take_all(struct web_socket *socket)
{
    struct websocket_piece piece;

    while (!socket->close_code) {
        if (is_blocked(socket)) {
            size_t taken = socket->ops->receive(socket->opaque, socket->rest, socket->rest_size);

            socket->rest += taken;
            socket->rest_size -= taken;
            if (is_blocked(socket))
                return;
        }
        if (socket->in_start == socket->in_end)
            break;
        socket->in_start += websocket_read(&socket->reader, socket->in + socket->in_start,
                                           socket->in_end - socket->in_start, &piece);
        take_piece(socket, &piece);
    }
    socket->in_start = socket->in_end = socket->rest_size = 0; /* what is behind the end */
}

static void receive(struct web_socket *socket)
{
    ssize_t n = recv(socket->fd, socket->in, sizeof(socket->in), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    socket->is_gone |= n <= 0;
    if (n <= 0 || socket->close_code)
        return;
    socket->in_end = (size_t)n;
    socket->heard_ns = now_ns(socket);
    take_all(socket);
}

/* ---- the loop ---- */

static void socket_free(struct web_socket *socket)
{
    struct web_socket **link = &socket->sockets->first;

    while (*link != socket)
        link = &(*link)->next;
    *link = socket->next;
    socket->sockets->count--;
    loop_remove_fd(socket->handler);
    socket->ops->closed(socket->opaque);
    socket->sockets->release(socket->sockets->opaque, socket->connection);
    free(socket);
}

static void update_events(struct web_socket *socket)
{
    bool reads = socket->is_gone || socket->close_code || !is_blocked(socket);

    loop_set_events(socket->handler, (reads ? LOOP_READ : 0) | (queued(socket) ? LOOP_WRITE : 0));
}

void web_socket_go_on(struct web_socket *socket)
{
    take_all(socket);
    send_all(socket);
    update_events(socket);
}

static void on_ready(void *opaque, unsigned events)
{
    struct web_socket *socket = opaque;

    if (socket->close_code || !is_blocked(socket)) {
        if (events & (LOOP_READ | LOOP_HANGUP))
            receive(socket);
    } else {
        socket->is_gone |= (events & LOOP_HANGUP) != 0;
    }
    send_all(socket);
    if (socket->is_gone)
        socket_free(socket);
    else
        update_events(socket);
}

void web_socket_close(struct web_socket *socket, enum websocket_code code)
{
    if (!socket->close_code)
        socket->close_code = (uint16_t)code;
    socket->rest_size = 0;
}

struct web_socket *web_socket_new(struct web_sockets *sockets, int fd, void *connection,
                                  const void *first, size_t first_size,
                                  const struct web_socket_ops *ops, void *opaque)
{
    struct web_socket *socket = first_size <= WEB_IN_BYTES ? calloc(1, sizeof(*socket)) : NULL;
    struct error err = {0};

    if (socket)
        socket->handler = loop_add_fd(sockets->loop, fd, LOOP_READ, on_ready, socket, &err);
    if (!socket || !socket->handler) {
        free(socket);
        ops->closed(opaque);
        return NULL;
    }
    socket->sockets = sockets;
    socket->fd = fd;
    socket->connection = connection;
    socket->ops = ops;
    socket->opaque = opaque;
    socket->in_end = first_size;
    if (first_size)
        memcpy(socket->in, first, first_size);
    socket->heard_ns = socket->progress_ns = now_ns(socket);
    socket->next = sockets->first;
    sockets->first = socket;
    sockets->count++;
    return socket;
}

void web_sockets_end(struct web_sockets *sockets)
{
    while (sockets->first) {
        send_all(sockets->first);
        web_socket_close(sockets->first, WEBSOCKET_GOING_AWAY);
        send_all(sockets->first);
        socket_free(sockets->first);
    }
}

/* One whose inner end has no room cannot be heard; one that is sent something has to read it. */
static bool is_dead(const struct web_socket *socket)
{
    uint64_t now = now_ns(socket);

    return (queued(socket) && now - socket->progress_ns > DEAD_NS) ||
           (!is_blocked(socket) && now - socket->heard_ns > DEAD_NS) || socket->is_late;
}

void web_sockets_tick(struct web_sockets *sockets)
{
    struct web_socket *next;

    for (struct web_socket *socket = sockets->first; socket; socket = next) {
        next = socket->next;
        if (is_dead(socket)) {
            socket_free(socket);
            continue;
        }
        socket->is_late = socket->close_code != 0;
        socket->wants_ping = now_ns(socket) - socket->heard_ns > QUIET_NS;
        web_socket_go_on(socket);
    }
}
