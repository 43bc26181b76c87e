/*
 * socket.c - frames over a stream socket: passt, other machines, switches
 *
 * "connect=" and "listen=" name a Unix socket (a path with a '/') or HOST:PORT; fd= is one that is
 * open already. One peer at a time; while there is none the link is down. A peer that breaks the
 * protocol is cut off. A port of a switch is such a socket, too: its first frame says what it is
 * ("port,vlan=5").
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/net/frame_stream.h"
#include "backends/net/internal.h"
#include "backends/net/switch.h"
#include "base/log.h"

#define NO_FD     UINT32_MAX
#define CONNECTED 0u /* how a socket is handed over */
#define LISTENING 1u

struct socket_net {
    struct net net;

    char *connect, *listen; /* properties */
    uint32_t fd;            /* property */
    /* Properties of a switch's port. */
    char *switch_name, *trunk, *port_name;
    uint16_t vlan;

    int listen_fd, peer_fd; /* -1: none */
    struct loop_fd *listener, *peer;
    bool bound; /* the file is ours to remove */

    struct frame_stream stream;
};

static struct socket_net *socket_of(struct net *net)
{
    return (struct socket_net *)net;
}

/* ---- the peer ---- */

static void drop_peer(struct socket_net *s)
{
    loop_remove_fd(s->peer);
    s->peer = NULL;
    if (s->peer_fd >= 0)
        close(s->peer_fd);
    s->peer_fd = -1;
    frame_stream_clear(&s->stream);
    if (s->listener)
        loop_set_events(s->listener, LOOP_READ);
    net_set_up(&s->net, false);
    net_notify_can_send(&s->net);
}

static void update_events(struct socket_net *s)
{
    if (s->peer)
        loop_set_events(s->peer, (net_is_full(&s->net) ? 0u : (unsigned)LOOP_READ) |
                                     (s->stream.output_bytes ? (unsigned)LOOP_WRITE : 0u));
}

static void deliver(void *opaque, uint8_t *bytes, size_t size)
{
    struct socket_net *s = opaque;
    struct io_piece piece = {bytes, size};
    struct net_frame frame = {.pieces = &piece, .piece_count = 1, .size_bytes = size};

    net_deliver(&s->net, &frame);
}

static void read_peer(struct socket_net *s)
{
    int result = frame_stream_read(&s->stream, s->peer_fd, deliver, s);

    net_delivered(&s->net);
    if (!result || result == -EAGAIN)
        return;
    if (result == -EPROTO)
        log_warn("network socket: the peer sends what are no frames; it is cut off");
    drop_peer(s);
}

static void write_peer(struct socket_net *s)
{
    bool was_busy = frame_stream_is_busy(&s->stream);

    frame_stream_write(&s->stream, s->peer_fd);
    if (was_busy && !frame_stream_is_busy(&s->stream))
        net_notify_can_send(&s->net);
}

static void on_peer(void *opaque, unsigned events)
{
    struct socket_net *s = opaque;

    if (events & LOOP_WRITE && s->stream.output_bytes)
        write_peer(s);
    if (events & LOOP_READ && s->peer)
        read_peer(s);
    update_events(s);
}

/* fd is the backend's from here on. */
static int serve(struct socket_net *s, int fd, struct error *err)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* others refuse it */
    s->peer_fd = fd;
    s->peer = loop_add_fd(s->net.loop, fd, LOOP_READ, on_peer, s, err);
    if (!s->peer)
        return -ENOMEM;
    if (s->listener)
        loop_set_events(s->listener, 0);
    net_set_up(&s->net, true);
    return 0;
}

static void on_connection(void *opaque, unsigned events)
{
    struct socket_net *s = opaque;
    struct error err = {0};
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    (void)events;
    if (fd >= 0 && serve(s, fd, &err)) {
        log_warn("network socket: %s", err.text);
        drop_peer(s);
    }
}

/* ---- the backend's calls ---- */

static bool socket_is_busy(const struct net *net)
{
    return frame_stream_is_busy(&((const struct socket_net *)net)->stream);
}

static void socket_send(struct net *net, const struct net_frame *frame)
{
    struct socket_net *s = socket_of(net);

    if (s->peer)
        frame_stream_add(&s->stream, frame); /* room there is: it is not busy */
}

static void socket_sent(struct net *net)
{
    struct socket_net *s = socket_of(net);

    if (s->peer && s->stream.output_bytes)
        write_peer(s);
    update_events(s);
}

static void socket_accept(struct net *net)
{
    update_events(socket_of(net));
}

/* ---- opening ---- */

union address {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_storage storage;
};

static int find_host(const char *text, union address *out, socklen_t *out_size, struct error *err)
{
    const char *colon = strrchr(text, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    char host[256];
    int status;

    if (!colon || (size_t)(colon - text) >= sizeof(host))
        return error_set(err, EINVAL, "'%s' is neither a path with a '/' nor HOST:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    status = getaddrinfo(host, colon + 1, &hints, &found);
    if (status)
        return error_set(err, EINVAL, "%s: %s", text, gai_strerror(status));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *out_size = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int parse_address(const char *text, union address *out, socklen_t *out_size,
                         struct error *err)
{
    if (!strchr(text, '/'))
        return find_host(text, out, out_size, err);
    if (strlen(text) >= sizeof(out->local.sun_path))
        return error_set(err, ENAMETOOLONG, "path '%s' is longer than %zu bytes", text,
                         sizeof(out->local.sun_path) - 1);
    out->local.sun_family = AF_UNIX;
    strcpy(out->local.sun_path, text);
    *out_size = sizeof(out->local);
    return 0;
}

/* A descriptor, or -EINVAL. */
static int reach(const char *where, struct error *err)
{
    union address address = {.local.sun_path = ""};
    int fd = host_take_given(where, CONNECTED);
    socklen_t size;

    if (fd >= 0)
        return fd;
    if (parse_address(where, &address, &size, err))
        return -EINVAL;
    fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &address.any, size)) {
        error_set(err, errno, "%s: %s", where, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -EINVAL;
    }
    host_opened(where, CONNECTED, fd);
    return fd;
}

static int connect_to(struct socket_net *s, const char *where, struct error *err)
{
    int fd = reach(where, err);

    return fd < 0 ? fd : serve(s, fd, err);
}

/* A socket that an earlier run left behind goes; anything else of that name stays. */
static void remove_stale(const union address *address, socklen_t size)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat status;

    if (fd < 0)
        return;
    if (connect(fd, &address->any, size) < 0 && errno == ECONNREFUSED &&
        !lstat(address->local.sun_path, &status) && S_ISSOCK(status.st_mode))
        unlink(address->local.sun_path);
    close(fd);
}

/* Makes s->listen_fd. */
static int bind_to(struct socket_net *s, struct error *err)
{
    union address address = {.local.sun_path = ""};
    socklen_t size;
    int on = 1;

    s->listen_fd = host_take_given(s->listen, LISTENING);
    if (s->listen_fd >= 0) {
        s->bound = strchr(s->listen, '/');
        return 0;
    }
    if (parse_address(s->listen, &address, &size, err))
        return -EINVAL;
    if (address.any.sa_family == AF_UNIX)
        remove_stale(&address, size);
    s->listen_fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listen_fd < 0)
        return error_set(err, errno, "socket: %s", strerror(errno));
    setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(s->listen_fd, &address.any, size))
        return error_set(err, errno, "%s: %s", s->listen, strerror(errno));
    s->bound = address.any.sa_family == AF_UNIX;
    if (listen(s->listen_fd, 1))
        return error_set(err, errno, "%s: %s", s->listen, strerror(errno));
    host_opened(s->listen, LISTENING, s->listen_fd);
    return 0;
}

static int listen_at(struct socket_net *s, struct error *err)
{
    if (bind_to(s, err))
        return -EINVAL;
    s->listener = loop_add_fd(s->net.loop, s->listen_fd, LOOP_READ, on_connection, s, err);
    return s->listener ? 0 : -ENOMEM;
}

/* The socket's name stays until the machine is done with it. */
static int socket_hand_over(struct net *net, struct error *err)
{
    struct socket_net *s = socket_of(net);
    int result = 0, fd = -1;

    s->listen_fd = -1;
    if (s->connect)
        fd = reach(s->connect, err);
    else if (s->listen)
        result = bind_to(s, err);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (fd >= 0)
        close(fd);
    return s->connect && fd < 0 ? fd : result;
}

static int switch_hand_over(struct net *net, struct error *err)
{
    struct socket_net *s = socket_of(net);
    char path[108];
    int fd;

    if (!s->switch_name || switch_path(s->switch_name, path, sizeof(path), err))
        return s->switch_name ? -EINVAL : 0;
    fd = reach(path, err);
    if (fd >= 0)
        close(fd);
    else
        error_prefix(err, "is 'trapeze switch run %s' running? ", s->switch_name);
    return fd < 0 ? fd : 0;
}

static int socket_open(struct net *net, struct error *err)
{
    struct socket_net *s = socket_of(net);
    unsigned ways = (s->connect != NULL) + (s->listen != NULL) + (s->fd != NO_FD);

    s->listen_fd = s->peer_fd = -1;
    if (!frame_stream_init(&s->stream))
        return error_set(err, ENOMEM, "out of memory");
    if (ways != 1)
        return error_set(err, EINVAL, "give one of connect=, listen= and fd=");
    if (s->fd != NO_FD)
        return serve(s, (int)s->fd, err);
    return s->connect ? connect_to(s, s->connect, err) : listen_at(s, err);
}

/* A port of a switch: it is said first what it is. */
static int switch_open(struct net *net, struct error *err)
{
    struct socket_net *s = socket_of(net);
    struct switch_port_config config;
    char path[108], hello[SWITCH_HELLO_BYTES];
    struct io_piece piece = {hello, 0};
    struct net_frame frame = {.pieces = &piece, .piece_count = 1};
    int size;

    s->listen_fd = s->peer_fd = -1;
    if (!frame_stream_init(&s->stream))
        return error_set(err, ENOMEM, "out of memory");
    if (!s->switch_name)
        return error_set(err, EINVAL, "which one? switch=NAME or switch=PATH");
    size = snprintf(hello, sizeof(hello), "port,name=%s,%s=", s->port_name,
                    s->trunk ? "trunk" : "vlan");
    if (size > 0 && (size_t)size < sizeof(hello))
        size += s->trunk ? snprintf(hello + size, sizeof(hello) - (size_t)size, "%s", s->trunk)
                         : snprintf(hello + size, sizeof(hello) - (size_t)size, "%u", s->vlan);
    if (size < 0 || (size_t)size >= sizeof(hello))
        return error_set(err, ENAMETOOLONG, "too much is said of the port");
    if (switch_parse_port(hello, &config, err) ||
        switch_path(s->switch_name, path, sizeof(path), err))
        return -EINVAL;
    if (connect_to(s, path, err)) {
        error_prefix(err, "is 'trapeze switch run %s' running? ", s->switch_name);
        return -EINVAL;
    }
    frame.size_bytes = piece.size_bytes = (size_t)size;
    frame_stream_add(&s->stream, &frame);
    socket_sent(net);
    return 0;
}

static void socket_free(struct net *net)
{
    struct socket_net *s = socket_of(net);

    loop_remove_fd(s->peer);
    loop_remove_fd(s->listener);
    if (s->peer_fd >= 0)
        close(s->peer_fd);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (s->bound)
        unlink(s->listen);
    frame_stream_done(&s->stream);
}

static const struct property socket_properties[] = {
    NET_PROPERTIES(struct socket_net),
    PROPERTY_STRING(struct socket_net, connect, NULL, "connect to this path or HOST:PORT"),
    PROPERTY_STRING(struct socket_net, listen, NULL, "wait for a peer at this path or HOST:PORT"),
    PROPERTY_U32(struct socket_net, fd, NO_FD, "use this open descriptor"),
    PROPERTY_END,
};

const struct net_kind net_socket = {
    .name = "socket",
    .summary = "frames over a stream socket, as passt and other machines speak it",
    .instance_size = sizeof(struct socket_net),
    .properties = socket_properties,
    .hand_over = socket_hand_over,
    .open = socket_open,
    .free = socket_free,
    .is_busy = socket_is_busy,
    .send = socket_send,
    .sent = socket_sent,
    .accept = socket_accept,
};

static const struct property switch_properties[] = {
    NET_PROPERTIES(struct socket_net),
    {.name = "switch",
     .type = PROPERTY_TYPE_STRING,
     .offset = offsetof(struct socket_net, switch_name),
     .help = "name or path of the switch, as in 'trapeze switch run'"},
    PROPERTY_U16(struct socket_net, vlan, 1, "VLAN of an access port, 1 to 4094"),
    PROPERTY_STRING(struct socket_net, trunk, NULL,
                    "make it a trunk of these VLANs, 'all' or like 1+5-9"),
    {.name = "name",
     .type = PROPERTY_TYPE_STRING,
     .offset = offsetof(struct socket_net, port_name),
     .initial_text = "vm",
     .help = "what 'trapeze switch show' calls the port"},
    PROPERTY_END,
};

const struct net_kind net_switch = {
    .name = "switch",
    .summary = "a port of a switch between machines (trapeze switch), with VLANs",
    .instance_size = sizeof(struct socket_net),
    .properties = switch_properties,
    .hand_over = switch_hand_over,
    .open = switch_open,
    .free = socket_free,
    .is_busy = socket_is_busy,
    .send = socket_send,
    .sent = socket_sent,
    .accept = socket_accept,
};
