/*
 * socket.c - frames over a stream socket: passt, other machines, switches
 *
 * Each frame has its length in front, 32 bits, big-endian. "connect=" and "listen=" name a
 * Unix socket (a path with a '/') or HOST:PORT; fd= is one that is open already. One peer at a
 * time; while there is none the link is down. A peer that breaks the protocol is cut off.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/net/internal.h"
#include "base/log.h"

#define LENGTH_BYTES 4u
#define INPUT_BYTES  (256u << 10) /* at least one frame */
#define OUTPUT_BYTES (512u << 10)
#define BUSY_BYTES   (128u << 10) /* of output that waits: the card keeps more */
#define NO_FD        UINT32_MAX

struct socket_net {
    struct net net;

    char *connect, *listen; /* properties */
    uint32_t fd;            /* property */

    int listen_fd, peer_fd; /* -1: none */
    struct loop_fd *listener, *peer;
    bool bound; /* the file is ours to remove */

    uint8_t *input, *output;
    size_t input_bytes, output_bytes;
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
    s->input_bytes = s->output_bytes = 0;
    if (s->listener)
        loop_set_events(s->listener, LOOP_READ);
    net_set_up(&s->net, false);
    net_notify_can_send(&s->net);
}

static void update_events(struct socket_net *s)
{
    if (s->peer)
        loop_set_events(s->peer, (net_is_full(&s->net) ? 0u : (unsigned)LOOP_READ) |
                                     (s->output_bytes ? (unsigned)LOOP_WRITE : 0u));
}

/* Whole frames of the input; -EPROTO if that is none. */
static int deliver_input(struct socket_net *s)
{
    size_t done = 0;

    while (s->input_bytes - done >= LENGTH_BYTES) {
        const uint8_t *head = s->input + done;
        size_t size =
            (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        struct io_piece piece = {s->input + done + LENGTH_BYTES, size};
        struct net_frame frame = {.pieces = &piece, .piece_count = 1, .size_bytes = size};

        if (!size || size > NET_MAX_FRAME_BYTES)
            return -EPROTO;
        if (s->input_bytes - done < LENGTH_BYTES + size)
            break;
        net_deliver(&s->net, &frame);
        done += LENGTH_BYTES + size;
    }
    memmove(s->input, s->input + done, s->input_bytes - done);
    s->input_bytes -= done;
    net_delivered(&s->net);
    return 0;
}

static void read_peer(struct socket_net *s)
{
    ssize_t size =
        recv(s->peer_fd, s->input + s->input_bytes, INPUT_BYTES - s->input_bytes, MSG_DONTWAIT);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size > 0) {
        s->input_bytes += (size_t)size;
        if (deliver_input(s) == 0)
            return;
        log_warn("network socket: the peer sends what are no frames; it is cut off");
    }
    drop_peer(s);
}

static void write_peer(struct socket_net *s)
{
    ssize_t size = send(s->peer_fd, s->output, s->output_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    bool was_busy = s->output_bytes > BUSY_BYTES;

    if (size < 0)
        return; /* reading says what is wrong */
    s->output_bytes -= (size_t)size;
    memmove(s->output, s->output + size, s->output_bytes);
    if (was_busy && s->output_bytes <= BUSY_BYTES)
        net_notify_can_send(&s->net);
}

static void on_peer(void *opaque, unsigned events)
{
    struct socket_net *s = opaque;

    if (events & LOOP_WRITE && s->output_bytes)
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
    return ((const struct socket_net *)net)->output_bytes > BUSY_BYTES;
}

static void socket_send(struct net *net, const struct net_frame *frame)
{
    struct socket_net *s = socket_of(net);
    uint8_t *to = s->output + s->output_bytes;
    uint32_t length = htonl((uint32_t)frame->size_bytes);

    if (!s->peer || frame->size_bytes + LENGTH_BYTES > OUTPUT_BYTES - s->output_bytes)
        return;
    memcpy(to, &length, LENGTH_BYTES);
    net_gather(frame, to + LENGTH_BYTES);
    s->output_bytes += LENGTH_BYTES + frame->size_bytes;
}

static void socket_sent(struct net *net)
{
    struct socket_net *s = socket_of(net);

    if (s->peer && s->output_bytes)
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

static int connect_to(struct socket_net *s, struct error *err)
{
    union address address = {.local.sun_path = ""};
    socklen_t size;
    int fd;

    if (parse_address(s->connect, &address, &size, err))
        return -EINVAL;
    fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &address.any, size)) {
        error_set(err, errno, "%s: %s", s->connect, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -EINVAL;
    }
    return serve(s, fd, err);
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

static int listen_at(struct socket_net *s, struct error *err)
{
    union address address = {.local.sun_path = ""};
    socklen_t size;
    int on = 1;

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
    s->listener = loop_add_fd(s->net.loop, s->listen_fd, LOOP_READ, on_connection, s, err);
    return s->listener ? 0 : -ENOMEM;
}

static int socket_open(struct net *net, struct error *err)
{
    struct socket_net *s = socket_of(net);
    unsigned ways = (s->connect != NULL) + (s->listen != NULL) + (s->fd != NO_FD);

    s->listen_fd = s->peer_fd = -1;
    s->input = malloc(INPUT_BYTES);
    s->output = malloc(OUTPUT_BYTES);
    if (!s->input || !s->output)
        return error_set(err, ENOMEM, "out of memory");
    if (ways != 1)
        return error_set(err, EINVAL, "give one of connect=, listen= and fd=");
    if (s->fd != NO_FD)
        return serve(s, (int)s->fd, err);
    return s->connect ? connect_to(s, err) : listen_at(s, err);
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
    free(s->input);
    free(s->output);
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
    .open = socket_open,
    .free = socket_free,
    .is_busy = socket_is_busy,
    .send = socket_send,
    .sent = socket_sent,
    .accept = socket_accept,
};
