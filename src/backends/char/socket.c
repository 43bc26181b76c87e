/*
 * socket.c - a Unix stream socket that one client at a time connects to
 *
 * "socket:path=P[,wait=on]". Further clients wait in the listening queue until the one
 * that is served has gone. While nobody is there, output is dropped and the device sees
 * its modem lines off.
 */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/char/internal.h"
#include "base/log.h"
#include "host/host.h"

#define READ_BYTES 256

struct socket_backend {
    struct chardev chardev;
    char *path; /* property */
    bool wait;
    struct loop *loop;
    int listen_fd, read_fd;
    struct loop_fd *listener;
    struct loop_fd *reader;
    struct char_output output; /* its fd is the client's, -1 without one */
    struct char_input input;
};

static struct socket_backend *socket_of(struct chardev *chardev)
{
    return (struct socket_backend *)chardev;
}

/* ---- the client ---- */

static void drop_client(struct socket_backend *s)
{
    loop_remove_fd(s->reader);
    s->reader = NULL;
    if (s->read_fd >= 0)
        close(s->read_fd);
    s->read_fd = -1;
    s->output.broken = true; /* there is nobody to drain it to */
    char_output_done(&s->output);
    s->input.head = s->input.count = 0;
    if (s->listener)
        loop_set_events(s->listener, LOOP_READ);
    chardev_set_connected(&s->chardev, false);
    chardev_notify_can_send(&s->chardev);
}

/* LOOP_HANGUP alone must not spin: the end of the stream is read as soon as there is room. */
static void update_reading(struct socket_backend *s)
{
    if (s->reader)
        loop_set_events(s->reader, char_input_room(&s->input) >= READ_BYTES ? LOOP_READ : 0);
}

static void read_client(void *opaque, unsigned events)
{
    struct socket_backend *s = opaque;
    uint8_t data[READ_BYTES];
    ssize_t size;

    (void)events;
    size = recv(s->output.fd, data, sizeof(data), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        drop_client(s);
        return;
    }
    for (ssize_t i = 0; i < size; i++)
        char_input_add(&s->input, data[i]);
    char_input_push(&s->input);
    update_reading(s);
}

static void client_room(void *opaque)
{
    chardev_notify_can_send(opaque);
}

/* epoll wants one registration for each descriptor, so reading has its own. */
static int serve(struct socket_backend *s, int fd, struct error *err)
{
    int rc = char_output_init(&s->output, s->loop, fd, true, client_room, &s->chardev, err);

    if (rc)
        return rc;
    s->read_fd = dup(fd);
    if (s->read_fd < 0)
        return error_set(err, errno, "dup: %s", strerror(errno));
    s->reader = loop_add_fd(s->loop, s->read_fd, LOOP_READ, read_client, s, err);
    return s->reader ? 0 : -ENOMEM;
}

static int accept_client(struct socket_backend *s, struct error *err)
{
    int rc, fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED
                   ? 0
                   : error_set(err, errno, "accept: %s", strerror(errno));
    rc = serve(s, fd, err);
    if (rc) {
        drop_client(s);
        return rc;
    }
    if (s->listener)
        loop_set_events(s->listener, 0);
    chardev_set_connected(&s->chardev, true);
    return 0;
}

static void on_connection(void *opaque, unsigned events)
{
    struct socket_backend *s = opaque;
    struct error err = {0};

    (void)events;
    if (accept_client(s, &err))
        log_warn("socket '%s': %s", s->path, err.text);
}

/* ---- the chardev's calls ---- */

static size_t socket_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    struct socket_backend *s = socket_of(chardev);

    return s->reader ? char_output_put(&s->output, data, size_bytes) : size_bytes;
}

static void socket_accept_input(struct chardev *chardev)
{
    struct socket_backend *s = socket_of(chardev);

    char_input_push(&s->input);
    update_reading(s);
}

/* ---- lifecycle ---- */

static int wait_for_client(struct socket_backend *s, struct error *err)
{
    struct pollfd incoming = {.fd = s->listen_fd, .events = POLLIN};

    log_info("waiting for a client on '%s'", s->path);
    while (!s->reader) {
        int rc;

        if (poll(&incoming, 1, -1) < 0 && errno != EINTR)
            return error_set(err, errno, "poll: %s", strerror(errno));
        rc = accept_client(s, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int socket_open(struct chardev *chardev, struct loop *loop, struct error *err)
{
    struct socket_backend *s = socket_of(chardev);

    chardev->connected = false;
    s->listen_fd = s->read_fd = s->output.fd = s->output.timer_fd = -1;
    s->loop = loop;
    s->input.chardev = chardev;
    if (!s->path || !*s->path)
        return error_set(err, EINVAL, "give the socket's file with path=");
    s->listen_fd = host_listen(s->path, 1, false, err);
    if (s->listen_fd < 0)
        return s->listen_fd;
    s->listener = loop_add_fd(loop, s->listen_fd, LOOP_READ, on_connection, s, err);
    if (!s->listener)
        return -ENOMEM;
    return s->wait ? wait_for_client(s, err) : 0;
}

static void socket_free(struct chardev *chardev)
{
    struct socket_backend *s = socket_of(chardev);

    loop_remove_fd(s->listener);
    loop_remove_fd(s->reader);
    char_output_done(&s->output);
    if (s->read_fd >= 0)
        close(s->read_fd);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
        unlink(s->path);
    }
}

static const struct property socket_properties[] = {
    PROPERTY_STRING(struct socket_backend, path, NULL, "file name of the socket"),
    PROPERTY_BOOL(struct socket_backend, wait, false, "do not start before a client is there"),
    PROPERTY_END,
};

const struct chardev_kind chardev_socket = {
    .ops =
        {
            .name = "socket",
            .summary = "a Unix socket that one client at a time connects to",
            .send = socket_send,
            .accept_input = socket_accept_input,
            .free = socket_free,
        },
    .instance_size = sizeof(struct socket_backend),
    .properties = socket_properties,
    .open = socket_open,
};
