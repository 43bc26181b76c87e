/*
 * web_bridge.c - the inner end of a WebSocket that is a socket of something else: VNC, the monitor
 *
 * Bytes go through as they come, with back-pressure in both directions.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/web_internal.h"
#include "host/loop.h"

struct web_bridge {
    struct loop_fd *handler;
    int fd;
    struct web_socket *socket;
    unsigned waits_for; /* LOOP_READ, LOOP_WRITE */
};

static void wait_for(struct web_bridge *bridge, unsigned events)
{
    bridge->waits_for = events;
    loop_set_events(bridge->handler, events);
}

static bool is_waiting(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static size_t bridge_receive(void *opaque, const uint8_t *bytes, size_t size)
{
    struct web_bridge *bridge = opaque;
    ssize_t n = send(bridge->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n >= 0)
        return (size_t)n;
    if (is_waiting()) {
        wait_for(bridge, bridge->waits_for | LOOP_WRITE);
        return 0;
    }
    web_socket_close(bridge->socket, WEBSOCKET_NORMAL);
    return size;
}

static size_t bridge_fill(void *opaque, uint8_t *out, size_t size)
{
    struct web_bridge *bridge = opaque;
    ssize_t n = recv(bridge->fd, out, size, MSG_DONTWAIT);

    if (n > 0)
        return (size_t)n;
    if (n < 0 && is_waiting())
        wait_for(bridge, bridge->waits_for | LOOP_READ);
    else
        web_socket_close(bridge->socket, WEBSOCKET_NORMAL);
    return 0;
}

static void on_ready(void *opaque, unsigned events)
{
    struct web_bridge *bridge = opaque;

    (void)events;
    wait_for(bridge, 0);
    web_socket_go_on(bridge->socket);
}

static void bridge_closed(void *opaque)
{
    struct web_bridge *bridge = opaque;

    loop_remove_fd(bridge->handler);
    close(bridge->fd);
    free(bridge);
}

const struct web_socket_ops web_bridge_ops = {
    .receive = bridge_receive, .fill = bridge_fill, .closed = bridge_closed};

struct web_bridge *web_bridge_new(struct loop *loop, int *out_fd)
{
    struct web_bridge *bridge = calloc(1, sizeof(*bridge));
    struct error err = {0};
    int pair[2];

    if (!bridge || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) {
        free(bridge);
        return NULL;
    }
    bridge->fd = pair[0];
    bridge->handler = loop_add_fd(loop, pair[0], 0, on_ready, bridge, &err);
    if (!bridge->handler) {
        bridge_closed(bridge);
        close(pair[1]);
        return NULL;
    }
    *out_fd = pair[1];
    return bridge;
}

void web_bridge_attach(struct web_bridge *bridge, struct web_socket *socket)
{
    bridge->socket = socket;
    web_socket_go_on(socket);
}
