/*
 * output.c - bytes on their way to a file descriptor whose reader may be slow
 *
 * A ring buffer that is written out at the end of a line, when a kilobyte has
 * gathered, or two milliseconds after the first byte; so a guest that prints
 * byte by byte costs one system call a line. When the descriptor takes no more, the rest
 * waits for the loop to say that it is writable; when the buffer is full, put() takes
 * less, which the device turns into "transmitter busy". Nothing is lost but for a
 * reader that is gone, and nobody is ever blocked.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "backends/char/internal.h"
#include "base/log.h"
#include "host/file.h"

#define FLUSH_BYTES    1024
#define FLUSH_DELAY_NS 2000000
#define PATIENCE_MS    10000 /* how long a reader may do nothing while we end */

/* ---- writing ---- */

static ssize_t write_careful(const struct char_output *o, const void *data, size_t size)
{
    struct pollfd ready = {.fd = o->fd, .events = POLLOUT};

    if (poll(&ready, 1, 0) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(o->fd, data, size < PIPE_BUF ? size : PIPE_BUF);
}

static ssize_t write_some(const struct char_output *o, const void *data, size_t size)
{
    switch (o->mode) {
    case CHAR_OUTPUT_SOCKET:
        return send(o->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    case CHAR_OUTPUT_CAREFUL:
        return write_careful(o, data, size);
    default:
        return write(o->fd, data, size);
    }
}

static void want_write_events(struct char_output *o, bool wanted)
{
    if (o->writer)
        loop_set_events(o->writer, wanted ? LOOP_WRITE : 0);
}

static void give_up(struct char_output *o)
{
    if (errno != EPIPE && errno != ECONNRESET)
        log_warn("character output is lost from here on: %s", strerror(errno));
    o->broken = true;
    o->count = 0;
    want_write_events(o, false);
}

/* Write until the buffer is empty or the descriptor takes no more; false: try again later. */
static bool write_out(struct char_output *o)
{
    while (o->count) {
        size_t piece = CHAR_OUTPUT_SIZE - o->head;
        ssize_t written;

        if (piece > o->count)
            piece = o->count;
        written = write_some(o, o->data + o->head, piece);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return false;
        if (written < 0) {
            give_up(o);
            return true;
        }
        o->head = (o->head + (size_t)written) % CHAR_OUTPUT_SIZE;
        o->count -= (size_t)written;
    }
    return true;
}

static void flush(struct char_output *o)
{
    want_write_events(o, !write_out(o));
}

/* Let the sender go on when half of the buffer is free, not for every byte. */
static void offer_room(struct char_output *o)
{
    if (!o->starved || o->count > CHAR_OUTPUT_SIZE / 2)
        return;
    o->starved = false;
    o->room(o->opaque);
}

static void on_writable(void *opaque, unsigned events)
{
    struct char_output *o = opaque;

    (void)events;
    flush(o);
    offer_room(o);
}

/* ---- the delayed flush ---- */

static void on_flush_timer(void *opaque, unsigned events)
{
    struct char_output *o = opaque;
    uint64_t expirations;

    (void)events;
    if (read(o->timer_fd, &expirations, sizeof(expirations)) < 0)
        return;
    o->flush_due = false;
    flush(o);
    offer_room(o);
}

static void flush_soon(struct char_output *o)
{
    struct itimerspec delay = {.it_value.tv_nsec = FLUSH_DELAY_NS};

    if (o->flush_due)
        return;
    if (o->timer_fd < 0 || timerfd_settime(o->timer_fd, 0, &delay, NULL))
        flush(o);
    else
        o->flush_due = true;
}

/* ---- taking bytes ---- */

static void append(struct char_output *o, const uint8_t *data, size_t size_bytes)
{
    size_t tail = (o->head + o->count) % CHAR_OUTPUT_SIZE;
    size_t first = CHAR_OUTPUT_SIZE - tail;

    if (first > size_bytes)
        first = size_bytes;
    memcpy(o->data + tail, data, first);
    memcpy(o->data, data + first, size_bytes - first);
    o->count += size_bytes;
}

/* Append what fits and write it out, now or soon. */
static size_t take(struct char_output *o, const uint8_t *data, size_t size_bytes)
{
    size_t taken = CHAR_OUTPUT_SIZE - o->count;

    if (taken > size_bytes)
        taken = size_bytes;
    append(o, data, taken);
    if (o->count >= FLUSH_BYTES || memchr(data, '\n', taken))
        flush(o);
    else
        flush_soon(o);
    return taken;
}

/*
 * Only a buffer that is full although it was written out makes the sender wait: then the
 * loop watches the descriptor, and offer_room() is called.
 */
size_t char_output_put(struct char_output *o, const uint8_t *data, size_t size_bytes)
{
    size_t taken = 0;

    while (taken < size_bytes) {
        if (o->fd < 0 || o->broken)
            return size_bytes;
        taken += take(o, data + taken, size_bytes - taken);
        if (o->count == CHAR_OUTPUT_SIZE)
            break;
    }
    if (taken < size_bytes)
        o->starved = true;
    return taken;
}

/* ---- opening and closing ---- */

/* The same terminal or pipe with a file description of our own, or -1. */
static int reopen_nonblocking(int fd)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static void choose_mode(struct char_output *o, int fd)
{
    struct stat status;
    int own;

    o->mode = CHAR_OUTPUT_PLAIN;
    if (fd < 0 || host_fstat(fd, &status))
        return;
    if (S_ISSOCK(status.st_mode)) {
        o->mode = CHAR_OUTPUT_SOCKET;
    } else if (fcntl(fd, F_GETFL) & O_NONBLOCK) {
        o->mode = CHAR_OUTPUT_NONBLOCK;
    } else if (S_ISFIFO(status.st_mode) || isatty(fd)) {
        own = reopen_nonblocking(fd);
        o->mode = own < 0 ? CHAR_OUTPUT_CAREFUL : CHAR_OUTPUT_NONBLOCK;
        if (own >= 0 && o->owns_fd)
            close(fd);
        if (own >= 0) {
            o->fd = own;
            o->owns_fd = true;
        }
    }
}

int char_output_init(struct char_output *o, struct loop *loop, int fd, bool owns_fd,
                     char_output_room_fn *room, void *opaque, struct error *err)
{
    *o = (struct char_output){
        .fd = fd, .owns_fd = owns_fd, .room = room, .opaque = opaque, .timer_fd = -1};
    choose_mode(o, fd);
    o->data = malloc(CHAR_OUTPUT_SIZE);
    if (!o->data)
        return error_set(err, ENOMEM, "out of memory");
    if (fd < 0 || !loop)
        return 0;
    o->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (o->timer_fd < 0)
        return error_set(err, errno, "timerfd: %s", strerror(errno));
    o->flusher = loop_add_fd(loop, o->timer_fd, LOOP_READ, on_flush_timer, o, err);
    o->writer = loop_add_fd(loop, o->fd, 0, on_writable, o, err);
    return o->flusher && o->writer ? 0 : -ENOMEM;
}

static void drain(struct char_output *o)
{
    while (!write_out(o)) {
        struct pollfd ready = {.fd = o->fd, .events = POLLOUT};
        int count = poll(&ready, 1, PATIENCE_MS);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            log_warn("character output: %zu bytes are lost, nobody reads them", o->count);
            return;
        }
    }
}

void char_output_done(struct char_output *o)
{
    if (o->data && o->fd >= 0 && !o->broken)
        drain(o);
    loop_remove_fd(o->flusher);
    loop_remove_fd(o->writer);
    if (o->timer_fd >= 0 && o->data)
        close(o->timer_fd);
    if (o->owns_fd && o->fd >= 0)
        close(o->fd);
    free(o->data);
    *o = (struct char_output){.fd = -1, .timer_fd = -1};
}
