/*
 * vnc_client.c - one viewer of VNC: its socket, from its coming to its going
 *
 * Theory of operation. What comes is put into a buffer of a few hundred bytes and taken out in
 * whole messages; lists and texts of any length are passed by piece by piece. A viewer who
 * does not read is not read from. Nothing frees a viewer while its bytes are being looked at:
 * is_over says that it is to go.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "host/loop.h"
#include "trapeze/machine.h"

#define HANDSHAKE_NS   (10 * NANOSECONDS_PER_SECOND)
#define OUT_HIGH_BYTES (64u << 10) /* with more to send nothing is read */
#define OUT_KEPT_BYTES (1u << 20)

size_t vnc_client_queued(const struct vnc_client *client)
{
    return client->out.end - client->out.start;
}

bool vnc_client_looks(const struct vnc_client *client)
{
    return client->state == VNC_STATE_NORMAL && !client->is_closed;
}

/* ---- the end ---- */

void vnc_client_free(struct vnc_client *client)
{
    struct vnc_client **link = &client->vnc->clients;

    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
    client->vnc->client_count--;
    vnc_tls_end(client->tls);
    loop_remove_fd(client->handler);
    if (client->fd >= 0)
        close(client->fd);
    timer_done(&client->deadline);
    vnc_job_free(&client->job);
    vnc_client_leave_clipboard(client);
    vnc_buffer_free(&client->text);
    vnc_buffer_free(&client->out);
    free(client->tiles);
    free(client);
}

/* An update that is on its way ends before it is freed. */
static void end(struct vnc_client *client)
{
    struct vnc *vnc = client->vnc;

    log_debug("vnc: a viewer has gone");
    vnc_client_release(client);
    vnc_client_leave_clipboard(client);
    client->is_closed = true;
    vnc_tls_end(client->tls);
    client->tls = NULL;
    loop_remove_fd(client->handler);
    client->handler = NULL;
    close(client->fd);
    client->fd = -1;
    timer_cancel(&client->deadline);
    if (!client->is_encoding)
        vnc_client_free(client);
    vnc_unwatch(vnc);
}

/* ---- sending ---- */

void vnc_client_flush(struct vnc_client *client)
{
    struct vnc_buffer *out = &client->out;

    client->is_over |= out->failed;
    while (vnc_client_queued(client) && !client->is_over) {
        ssize_t n = client->tls ? vnc_tls_write(client->tls, out->bytes + out->start,
                                                vnc_client_queued(client))
                                : send(client->fd, out->bytes + out->start,
                                       vnc_client_queued(client), MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            client->is_over = errno != EAGAIN && errno != EWOULDBLOCK;
            return;
        }
        out->start += (size_t)n;
    }
    vnc_client_is_sent(client);
    if (out->capacity > OUT_KEPT_BYTES)
        vnc_buffer_free(out);
    out->start = out->end = 0;
}

void vnc_client_send(struct vnc_client *client, const void *bytes, size_t size)
{
    vnc_buffer_put(&client->out, bytes, size);
}

void vnc_client_send_be32(struct vnc_client *client, uint32_t value)
{
    uint8_t bytes[4];

    put_be32(bytes, value);
    vnc_client_send(client, bytes, sizeof(bytes));
}

/* ---- receiving ---- */

static void drop(struct vnc_client *client, size_t size)
{
    client->in_size -= size;
    memmove(client->in, client->in + size, client->in_size);
}

static void take_all(struct vnc_client *client)
{
    while (client->in_size && !client->is_over) {
        size_t size;

        if (client->skip_bytes) {
            size = client->in_size < client->skip_bytes ? client->in_size : client->skip_bytes;
            client->skip_bytes -= (uint32_t)size;
        } else if (client->text_left) {
            size = client->in_size < client->text_left ? client->in_size : client->text_left;
            vnc_client_take_text(client, client->in, size);
        } else {
            size = client->state == VNC_STATE_NORMAL ? vnc_client_take_message(client)
                                                     : vnc_client_take_handshake(client);
        }
        if (!size)
            return;
        drop(client, size);
    }
}

static void receive(struct vnc_client *client)
{
    do {
        uint8_t *to = client->in + client->in_size;
        size_t room = sizeof(client->in) - client->in_size;
        ssize_t n =
            client->tls ? vnc_tls_read(client->tls, to, room) : recv(client->fd, to, room, 0);

        if (n < 0) {
            client->is_over |= errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
            return;
        }
        client->is_over |= n == 0;
        client->in_size += (size_t)n;
        take_all(client);
    } while (client->tls && client->state != VNC_STATE_TLS && client->state != VNC_STATE_WRONG &&
             !client->is_over && vnc_tls_has_more(client->tls));
}

void vnc_client_settle(struct vnc_client *client)
{
    if (client->is_closed)
        return;
    if (client->state != VNC_STATE_TLS)
        vnc_client_flush(client);
    vnc_client_tell_clipboard(client);
    if (client->state != VNC_STATE_TLS)
        vnc_client_flush(client);
    vnc_client_update(client);
    if (client->is_over) {
        end(client);
        return;
    }
    if (vnc_client_waits(client))
        vnc_want_refresh(client->vnc);
    if (client->state != VNC_STATE_TLS)
        loop_set_events(client->handler, (vnc_client_queued(client) < OUT_HIGH_BYTES &&
                                                  client->state != VNC_STATE_WRONG
                                              ? LOOP_READ
                                              : 0) |
                                             (vnc_client_queued(client) ? LOOP_WRITE : 0));
}

static void on_ready(void *opaque, unsigned events)
{
    struct vnc_client *client = opaque;

    if (client->state == VNC_STATE_TLS)
        vnc_client_shake_hands(client);
    else if (client->state == VNC_STATE_WRONG)
        client->is_over = events & LOOP_HANGUP; /* nothing else is waited for */
    else if (events & (LOOP_READ | LOOP_HANGUP))
        receive(client);
    vnc_client_settle(client);
}

static void on_deadline(void *opaque)
{
    struct vnc_client *client = opaque;

    if (client->state == VNC_STATE_WRONG)
        vnc_client_tell_wrong(client);
    end(client);
}

void vnc_client_new(struct vnc *vnc, int fd)
{
    struct vnc_client *client = calloc(1, sizeof(*client));
    struct error err = {0};

    if (client)
        client->handler =
            loop_add_fd(machine_loop(vnc->machine), fd, LOOP_READ, on_ready, client, &err);
    if (!client || !client->handler) {
        free(client);
        close(fd);
        return;
    }
    client->vnc = vnc;
    client->fd = fd;
    client->next = vnc->clients;
    vnc->clients = client;
    vnc->client_count++;
    client->size_answer = VNC_SIZE_NONE;
    vnc_client_init_job(client);
    vnc_format_set(&client->format, vnc_format_default);
    timer_init(&client->deadline, machine_clocks(vnc->machine), CLOCK_ID_HOST, on_deadline, client);
    timer_arm(&client->deadline,
              clock_now_ns(client->deadline.clocks, CLOCK_ID_HOST) + HANDSHAKE_NS);
    vnc_client_send(client, "RFB 003.008\n", 12);
    vnc_client_settle(client);
}
