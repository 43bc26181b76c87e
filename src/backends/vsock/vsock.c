/*
 * vsock.c - the unix sockets of virtio sockets
 *
 * Clients first say which port of the guest they want, in a line that is read byte by byte: what is
 * behind it is the guest's. Streams that are being dialed wait in the order in which the dialer
 * answers.
 *
 * Threads: machine lock held.
 */
#include "trapeze/vsock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/vsock/dialer.h"
#include "base/log.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/property.h"

#define LINE_BYTES 32
#define BACKLOG    64
#define MAX_PATH   (sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967295"))

enum phase { ASKING, DIALING, OPEN };

struct vsock_stream {
    struct vsock *vsock;
    struct vsock_stream *next; /* of the vsock's */
    void *owner;               /* NULL: not yet, or not any more */
    enum phase phase;
    bool is_forgotten; /* the owner closed it while it was dialed */
    bool waits_read, waits_write;
    int fd;
    struct loop_fd *handler;
    char line[LINE_BYTES];
    size_t length;
};

struct vsock {
    char *path;
    struct loop *loop;
    const struct vsock_frontend *frontend;
    int listen_fd, dialer_fd, dialer;
    struct loop_fd *listener, *answers;
    struct vsock_stream *streams; /* the latest first */
    unsigned count;
};

/* ---- streams ---- */

static void update_events(struct vsock_stream *s)
{
    bool reads = s->phase == ASKING || s->waits_read;

    if (s->handler)
        loop_set_events(s->handler, (reads ? LOOP_READ : 0u) | (s->waits_write ? LOOP_WRITE : 0u));
}

static void listen_again(struct vsock *vsock)
{
    if (vsock->listener)
        loop_set_events(vsock->listener, vsock->count < VSOCK_MAX_STREAMS ? LOOP_READ : 0);
}

static struct vsock_stream *stream_new(struct vsock *vsock, enum phase phase)
{
    struct vsock_stream *s = vsock->count < VSOCK_MAX_STREAMS ? calloc(1, sizeof(*s)) : NULL;

    if (!s)
        return NULL;
    *s = (struct vsock_stream){.vsock = vsock, .phase = phase, .fd = -1, .next = vsock->streams};
    vsock->streams = s;
    vsock->count++;
    listen_again(vsock);
    return s;
}

static void stream_free(struct vsock_stream *s)
{
    struct vsock_stream **link = &s->vsock->streams;

    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->vsock->count--;
    loop_remove_fd(s->handler);
    if (s->fd >= 0)
        close(s->fd);
    listen_again(s->vsock);
    free(s);
}

void vsock_close(struct vsock_stream *stream)
{
    if (!stream)
        return;
    stream->owner = NULL;
    stream->is_forgotten = stream->phase == DIALING;
    if (!stream->is_forgotten) /* else its answer comes */
        stream_free(stream);
}

/* ---- clients ---- */

/* "CONNECT 1234" */
static bool parse_line(const char *line, uint32_t *out_port)
{
    static const char word[] = "CONNECT ";
    const char *digits = line + strlen(word);
    uint64_t port = 0;
    struct error err;

    if (strncmp(line, word, strlen(word)) || digits[strspn(digits, "0123456789")] ||
        property_parse_u64(digits, UINT32_MAX, &port, &err))
        return false;
    *out_port = (uint32_t)port;
    return true;
}

static void request(struct vsock_stream *s)
{
    const struct vsock_frontend *frontend = s->vsock->frontend;
    uint32_t port;

    s->line[s->length] = '\0';
    s->phase = OPEN;
    update_events(s);
    if (!parse_line(s->line, &port) || !frontend || !frontend->requested(frontend->opaque, s, port))
        stream_free(s);
}

static void read_line(struct vsock_stream *s)
{
    ssize_t size;
    char byte;

    while ((size = recv(s->fd, &byte, 1, MSG_DONTWAIT)) == 1) {
        if (byte == '\n') {
            request(s);
            return;
        }
        if (s->length == LINE_BYTES - 1)
            break;
        s->line[s->length++] = byte;
    }
    if (size >= 0 || (errno != EAGAIN && errno != EINTR))
        stream_free(s);
}

static void on_stream(void *opaque, unsigned events)
{
    struct vsock_stream *s = opaque;
    const struct vsock_frontend *frontend = s->vsock->frontend;

    if (s->phase == ASKING) {
        read_line(s);
        return;
    }
    if (events & LOOP_WRITE) {
        s->waits_write = false;
        update_events(s);
        if (s->owner && frontend)
            frontend->writable(s->owner); /* may close it; what is readable is told again */
    } else if (s->owner && frontend) {
        frontend->readable(s->owner);
    }
}

static int watch(struct vsock_stream *s, int fd, struct error *err)
{
    s->fd = fd;
    s->handler =
        loop_add_fd(s->vsock->loop, fd, s->phase == ASKING ? LOOP_READ : 0, on_stream, s, err);
    return s->handler ? 0 : -ENOMEM;
}

static void on_client(void *opaque, unsigned events)
{
    struct vsock *vsock = opaque;
    int fd = accept4(vsock->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct vsock_stream *s = fd >= 0 ? stream_new(vsock, ASKING) : NULL;
    struct error err = {0};

    (void)events;
    if (!s) {
        if (fd >= 0)
            close(fd);
    } else if (watch(s, fd, &err)) {
        log_warn("vsock: %s", err.text);
        stream_free(s);
    }
}

/* ---- the guest's connections ---- */

/* The one that was dialed first: streams are listed from the latest on. */
static struct vsock_stream *first_dialed(const struct vsock *vsock)
{
    struct vsock_stream *first = NULL;

    for (struct vsock_stream *s = vsock->streams; s; s = s->next)
        if (s->phase == DIALING)
            first = s;
    return first;
}

static void end_dialing(struct vsock_stream *s, int fd, int status)
{
    const struct vsock_frontend *frontend = s->vsock->frontend;
    struct error err = {0};

    s->phase = OPEN;
    if (!status)
        status = watch(s, fd, &err);
    if (s->is_forgotten || !frontend)
        stream_free(s);
    else
        frontend->dialed(s->owner, status);
}

static void on_answer(void *opaque, unsigned events)
{
    struct vsock *vsock = opaque;
    struct vsock_stream *s = first_dialed(vsock);
    int32_t status = 0;
    int fd;

    (void)events;
    if (host_receive(vsock->dialer_fd, &status, sizeof(status), false, &fd) != sizeof(status)) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        log_warn("vsock: the process that connects has ended");
        loop_set_events(vsock->answers, 0);
        while ((s = first_dialed(vsock)))
            end_dialing(s, -1, -EPIPE);
        return;
    }
    if (s)
        end_dialing(s, fd, fd < 0 && !status ? -EPROTO : status);
    else if (fd >= 0)
        close(fd);
}

struct vsock_stream *vsock_dial(struct vsock *vsock, uint32_t port, void *owner)
{
    struct vsock_stream *s = stream_new(vsock, DIALING);

    if (!s)
        return NULL;
    s->owner = owner;
    if (send(vsock->dialer_fd, &port, sizeof(port), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(port))
        return s;
    stream_free(s);
    return NULL;
}

/* ---- what owners do ---- */

void vsock_own(struct vsock_stream *stream, void *owner)
{
    stream->owner = owner;
}

/* A new socket has room for so much. */
void vsock_accept(struct vsock_stream *stream, uint32_t host_port)
{
    char line[LINE_BYTES];
    int length = snprintf(line, sizeof(line), "OK %" PRIu32 "\n", host_port);

    if (send(stream->fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) != length)
        log_debug("vsock: a client has gone before it was answered");
}

ptrdiff_t vsock_read(struct vsock_stream *stream, void *out, size_t size)
{
    ssize_t result = recv(stream->fd, out, size, MSG_DONTWAIT);

    return result >= 0 ? result : errno == EINTR ? -EAGAIN : -errno;
}

ptrdiff_t vsock_write(struct vsock_stream *stream, const void *data, size_t size)
{
    ssize_t result = send(stream->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (result < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    if (result < 0)
        result = 0;
    stream->waits_write = (size_t)result < size;
    update_events(stream);
    return result;
}

void vsock_wait_read(struct vsock_stream *stream, bool on)
{
    stream->waits_read = on;
    update_events(stream);
}

bool vsock_is_hung_up(const struct vsock_stream *stream)
{
    return send(stream->fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
}

void vsock_end_writing(struct vsock_stream *stream)
{
    shutdown(stream->fd, SHUT_WR);
}

/* ---- lifecycle ---- */

/* So long that PATH_4294967295 fits as well. */
static int listen_on(struct vsock *vsock, struct error *err)
{
    if (!*vsock->path || strlen(vsock->path) > MAX_PATH)
        return error_set(err, EINVAL, "the path has 1 to %zu bytes", MAX_PATH);
    vsock->listen_fd = host_listen(vsock->path, BACKLOG, true, err);
    return vsock->listen_fd < 0 ? vsock->listen_fd : 0;
}

struct vsock *vsock_open(const char *path, bool sandboxed, struct error *err)
{
    struct vsock *vsock = calloc(1, sizeof(*vsock));
    struct dialer dialer = {path, sandboxed};

    if (vsock)
        *vsock = (struct vsock){.path = strdup(path), .listen_fd = -1, .dialer_fd = -1};
    if (!vsock || !vsock->path) {
        free(vsock);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    vsock->dialer = host_process_start("vsock", dialer_run, &dialer, &vsock->dialer_fd, err);
    if (vsock->dialer > 0 && listen_on(vsock, err) == 0)
        return vsock;
    vsock_free(vsock);
    return NULL;
}

int vsock_start(struct vsock *vsock, struct loop *loop, struct error *err)
{
    vsock->loop = loop;
    vsock->listener = loop_add_fd(loop, vsock->listen_fd, LOOP_READ, on_client, vsock, err);
    vsock->answers = loop_add_fd(loop, vsock->dialer_fd, LOOP_READ, on_answer, vsock, err);
    return vsock->listener && vsock->answers ? 0 : -ENOMEM;
}

void vsock_connect(struct vsock *vsock, const struct vsock_frontend *frontend)
{
    vsock->frontend = frontend;
    for (struct vsock_stream *s = vsock->streams, *next; s; s = next) {
        next = s->next;
        if (!frontend && s->phase == OPEN)
            stream_free(s);
    }
}

void vsock_free(struct vsock *vsock)
{
    if (!vsock)
        return;
    while (vsock->streams)
        stream_free(vsock->streams);
    loop_remove_fd(vsock->listener);
    loop_remove_fd(vsock->answers);
    if (vsock->listen_fd >= 0) {
        close(vsock->listen_fd);
        unlink(vsock->path);
    }
    if (vsock->dialer_fd >= 0)
        close(vsock->dialer_fd);
    if (vsock->dialer > 0)
        waitpid(vsock->dialer, NULL, 0);
    free(vsock->path);
    free(vsock);
}
