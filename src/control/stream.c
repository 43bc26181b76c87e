/*
 * stream.c - sockets of the control interfaces
 */
#include "control/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "host/host.h"
#include "host/loop.h"

#define READ_CHUNK_BYTES 4096
/* More queued output than this stops reading from the peer. */
#define QUEUE_HIGH_BYTES (256u << 10)
#define LISTEN_BACKLOG   8

struct stream {
    struct loop *loop;
    struct loop_fd *handler;
    int fd;
    const struct stream_events *events;
    void *opaque;
    uint8_t *queue; /* output from queue_start to queue_end */
    size_t queue_start, queue_end, queue_capacity;
    bool finishing;
    int files[STREAM_MAX_FILES]; /* in the order in which they came */
    size_t file_count;
};

struct stream_server {
    struct loop_fd *handler;
    int fd;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* empty: TCP */
    stream_accept_fn *accepted;
    void *opaque;
};

/* ---- streams ---- */

static size_t queued(const struct stream *stream)
{
    return stream->queue_end - stream->queue_start;
}

static void update_events(struct stream *stream)
{
    unsigned events = queued(stream) < QUEUE_HIGH_BYTES ? LOOP_READ : 0;

    if (queued(stream))
        events |= LOOP_WRITE;
    loop_set_events(stream->handler, events);
}

/* The socket then reads as ended, which brings the loop to on_ready and closed(). */
static void cut(struct stream *stream)
{
    shutdown(stream->fd, SHUT_RDWR);
    stream->finishing = true;
    stream->queue_start = stream->queue_end = 0;
    update_events(stream);
}

/* Write until the socket is full; returns false if it is broken. */
static bool flush_queue(struct stream *stream)
{
    while (queued(stream)) {
        ssize_t n =
            send(stream->fd, stream->queue + stream->queue_start, queued(stream), MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        stream->queue_start += (size_t)n;
    }
    stream->queue_start = stream->queue_end = 0;
    return true;
}

static void flush_or_cut(struct stream *stream)
{
    if (!flush_queue(stream) || (stream->finishing && !queued(stream)))
        cut(stream);
    else
        update_events(stream);
}

/* Returns false when the connection is over. */
static bool read_some(struct stream *stream)
{
    uint8_t bytes[READ_CHUNK_BYTES];
    int file;
    ssize_t n = host_receive(stream->fd, bytes, sizeof(bytes), false, &file);

    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (file >= 0 && stream->file_count < STREAM_MAX_FILES)
        stream->files[stream->file_count++] = file;
    else if (file >= 0)
        close(file);
    if (n > 0 && !stream->finishing)
        stream->events->receive(stream->opaque, bytes, (size_t)n);
    return n > 0;
}

static void on_ready(void *opaque, unsigned events)
{
    struct stream *stream = opaque;

    if (events & LOOP_WRITE)
        flush_or_cut(stream);
    if ((events & (LOOP_READ | LOOP_HANGUP)) && !read_some(stream))
        stream->events->closed(stream->opaque);
}

struct stream *stream_new(struct loop *loop, int fd, const struct stream_events *events,
                          void *opaque, struct error *err)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    if (!stream) {
        error_set(err, ENOMEM, "out of memory");
        close(fd);
        return NULL;
    }
    *stream = (struct stream){.loop = loop, .fd = fd, .events = events, .opaque = opaque};
    stream->handler = loop_add_fd(loop, fd, LOOP_READ, on_ready, stream, err);
    if (!stream->handler) {
        stream_free(stream);
        return NULL;
    }
    return stream;
}

void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    loop_remove_fd(stream->handler);
    close(stream->fd);
    while (stream->file_count)
        close(stream->files[--stream->file_count]);
    free(stream->queue);
    free(stream);
}

int stream_take_file(struct stream *stream)
{
    int fd = stream->file_count ? stream->files[0] : -1;

    if (fd >= 0)
        memmove(stream->files, stream->files + 1, --stream->file_count * sizeof(fd));
    return fd;
}

/* Room for size_bytes more at the end of the queue. */
static bool reserve(struct stream *stream, size_t size_bytes)
{
    size_t needed, capacity;
    uint8_t *grown;

    if (size_bytes > STREAM_MAX_QUEUED_BYTES ||
        queued(stream) + size_bytes > STREAM_MAX_QUEUED_BYTES)
        return false;
    if (stream->queue_start) {
        memmove(stream->queue, stream->queue + stream->queue_start, queued(stream));
        stream->queue_end -= stream->queue_start;
        stream->queue_start = 0;
    }
    needed = stream->queue_end + size_bytes;
    if (needed <= stream->queue_capacity)
        return true;
    capacity = needed * 2;
    grown = realloc(stream->queue, capacity);
    if (!grown)
        return false;
    stream->queue = grown;
    stream->queue_capacity = capacity;
    return true;
}

void stream_send(struct stream *stream, const void *data, size_t size_bytes)
{
    if (stream->finishing || size_bytes == 0)
        return;
    if (!reserve(stream, size_bytes)) {
        cut(stream);
        return;
    }
    memcpy(stream->queue + stream->queue_end, data, size_bytes);
    stream->queue_end += size_bytes;
    flush_or_cut(stream);
}

void stream_finish(struct stream *stream)
{
    stream->finishing = true;
    flush_or_cut(stream);
}

/* ---- addresses ---- */

/* The path of a unix address, or NULL if it is a TCP address. */
static const char *unix_path(const char *address)
{
    const char *colon = strrchr(address, ':');
    const char *port = colon ? colon + 1 : address;

    if (strncmp(address, "unix:", 5) == 0)
        return address + 5;
    if (strchr(address, '/') || !*port || port[strspn(port, "0123456789")])
        return address;
    return NULL;
}

static int fill_unix(struct sockaddr_un *un, const char *path, struct error *err)
{
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!*path)
        return error_set(err, EINVAL, "the path of the socket is empty");
    if (strlen(path) >= sizeof(un->sun_path))
        return error_set(err, ENAMETOOLONG, "the path of a socket can have %zu characters",
                         sizeof(un->sun_path) - 1);
    memcpy(un->sun_path, path, strlen(path) + 1);
    return 0;
}

static int resolve(const char *address, bool passive, struct addrinfo **out_list, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const char *colon = strrchr(address, ':');
    char host[256] = "localhost";
    int code;

    if (colon && colon > address) {
        bool brackets = address[0] == '[' && colon[-1] == ']';

        snprintf(host, sizeof(host), "%.*s", (int)(colon - address - (brackets ? 2 : 0)),
                 address + brackets);
    }
    hints.ai_flags = passive ? AI_PASSIVE : 0;
    code = getaddrinfo(host, colon ? colon + 1 : address, &hints, out_list);
    if (code)
        return error_set(err, EINVAL, "%s: %s", host, gai_strerror(code));
    return 0;
}

/* Try every address of the list, IPv4 first, with bind or connect; returns a socket or -errno. */
static int try_addresses(const struct addrinfo *list, bool passive)
{
    static const int families[] = {AF_INET, AF_INET6};
    int error = EADDRNOTAVAIL;

    for (unsigned f = 0; f < 2; f++)
        for (const struct addrinfo *a = list; a; a = a->ai_next) {
            int on = 1, fd, result;

            if (a->ai_family != families[f])
                continue;
            fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (fd < 0) {
                error = errno;
                continue;
            }
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
            result = passive ? bind(fd, a->ai_addr, a->ai_addrlen)
                             : connect(fd, a->ai_addr, a->ai_addrlen);
            if (result == 0)
                return fd;
            error = errno;
            close(fd);
        }
    return -error;
}

static int open_tcp(const char *address, bool passive, struct error *err)
{
    struct addrinfo *list;
    int fd;

    if (resolve(address, passive, &list, err))
        return -EINVAL;
    fd = try_addresses(list, passive);
    freeaddrinfo(list);
    if (fd < 0)
        error_set(err, -fd, "%s", strerror(-fd));
    return fd;
}

/* flags: SOCK_NONBLOCK, or 0. */
static int connect_unix(const char *path, int flags, struct error *err)
{
    struct sockaddr_un un;
    int fd;

    if (fill_unix(&un, path, err))
        return -EINVAL;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        return error_set(err, errno, "socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
        int error = errno;

        close(fd);
        return error_set(err, error, "%s: %s", path, strerror(error));
    }
    return fd;
}

int stream_connect(const char *address, struct error *err)
{
    const char *path = unix_path(address);

    return path ? connect_unix(path, 0, err) : open_tcp(address, false, err);
}

/* ---- servers ---- */

/* A socket file that nobody listens on is left over from a process that was killed. */
static int remove_dead_socket(const char *path, struct error *err)
{
    struct error ignored = {0};
    struct stat st;
    int fd;

    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, EEXIST, "there is already a file of this name, and no socket");
    fd = connect_unix(path, SOCK_NONBLOCK, &ignored);
    if (fd >= 0)
        close(fd);
    if (fd >= 0 || fd == -EAGAIN) /* its queue is full */
        return error_set(
            err, EADDRINUSE,
            "something listens on this socket already: another process, or another option");
    unlink(path);
    return 0;
}

static int bind_unix(struct stream_server *server, const char *path, struct error *err)
{
    struct sockaddr_un un;
    int fd;

    if (fill_unix(&un, path, err) || remove_dead_socket(path, err))
        return -EINVAL;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, errno, "socket: %s", strerror(errno));
    fchmod(fd, 0600); /* Linux gives the mode to the file that bind makes */
    if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
        int error = errno;

        close(fd);
        return error_set(err, error, "%s", strerror(error));
    }
    snprintf(server->path, sizeof(server->path), "%s", path);
    return fd;
}

static void on_connection(void *opaque, unsigned events)
{
    struct stream_server *server = opaque;
    int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int on = 1;

    (void)events;
    if (fd < 0)
        return;
    if (!server->path[0])
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    server->accepted(server->opaque, fd);
}

struct stream_server *stream_listen(struct loop *loop, const char *address,
                                    stream_accept_fn *accepted, void *opaque, struct error *err)
{
    struct stream_server *server = calloc(1, sizeof(*server));
    const char *path = unix_path(address);

    if (!server) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    *server = (struct stream_server){.accepted = accepted, .opaque = opaque};
    server->fd = path ? bind_unix(server, path, err) : open_tcp(address, true, err);
    if (server->fd >= 0 && listen(server->fd, LISTEN_BACKLOG) < 0)
        error_set(err, errno, "listen: %s", strerror(errno));
    else if (server->fd >= 0 && fcntl(server->fd, F_SETFL, O_NONBLOCK) == 0)
        server->handler = loop_add_fd(loop, server->fd, LOOP_READ, on_connection, server, err);
    if (!server->handler) {
        stream_server_free(server);
        return NULL;
    }
    return server;
}

struct stream_server *stream_listen_first(struct loop *loop, unsigned first, unsigned last,
                                          stream_accept_fn *accepted, void *opaque,
                                          struct error *err)
{
    struct stream_server *server = NULL;
    char address[32];

    for (unsigned port = first; !server && port <= last; port++) {
        *err = (struct error){0};
        snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        server = stream_listen(loop, address, accepted, opaque, err);
    }
    if (server)
        *err = (struct error){0};
    else
        error_prefix(err, "no port from %u to %u is free: ", first, last);
    return server;
}

void stream_server_free(struct stream_server *server)
{
    if (!server)
        return;
    loop_remove_fd(server->handler);
    if (server->fd >= 0)
        close(server->fd);
    if (server->path[0])
        unlink(server->path);
    free(server);
}

unsigned stream_server_port(const struct stream_server *server)
{
    struct sockaddr_in6 address; /* the port is at the same place in sockaddr_in */
    socklen_t size = sizeof(address);

    if (server->path[0] || getsockname(server->fd, (struct sockaddr *)&address, &size) < 0)
        return 0;
    return ntohs(address.sin6_port);
}
