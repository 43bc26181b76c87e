/*
 * vnc.c - a machine's screen for viewers of VNC: who listens, when the screen is looked at
 *
 * Theory of operation. Viewers ask for updates, so each gets as many as it has time for. While one
 * waits, the screen is refreshed 40 times a second, or 10 if nothing changed for a second; what
 * changed is noted for each viewer in tiles (vnc_update.c), and its next update has all that is
 * noted by then. Pixels are copied with the machine lock held; packing them is the work of other
 * threads (vnc_encode.c). Without a viewer, and while none of them waits, nothing is done.
 */
#include "backends/display/vnc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/vnc_internal.h"
#include "base/log.h"
#include "control/stream.h"
#include "trapeze/machine.h"

#define REFRESH_NS     (NANOSECONDS_PER_SECOND / 40)
#define SLOW_NS        (NANOSECONDS_PER_SECOND / 10) /* after QUIET refreshes without a change */
#define QUIET          30
#define ENCODE_THREADS 2
#define MAX_CLIENTS    16

/* ---- the screen ---- */

static void on_resized(void *opaque, const struct screen_surface *surface)
{
    struct vnc *vnc = opaque;

    vnc->surface = *surface;
    vnc->quiet = 0;
    for (struct vnc_client *client = vnc->clients; client; client = client->next)
        vnc_client_resized(client);
}

static void on_changed(void *opaque, const struct screen_rect *rect)
{
    struct vnc *vnc = opaque;

    vnc->quiet = 0;
    for (struct vnc_client *client = vnc->clients; client; client = client->next)
        vnc_client_changed(client, rect);
}

static void on_cursor_changed(void *opaque, const struct screen_cursor *cursor)
{
    struct vnc *vnc = opaque;

    if (!vnc->cursor && !cursor->width)
        return; /* a card without */
    if (!vnc->cursor)
        vnc->cursor = malloc(sizeof(*vnc->cursor));
    if (!vnc->cursor)
        return;
    *vnc->cursor = *cursor;
    vnc->cursor_number++;
}

static void on_removed(void *opaque)
{
    struct vnc *vnc = opaque;

    vnc->screen = NULL;
    vnc->is_watching = false;
    vnc->surface.pixels = NULL;
}

static const struct screen_viewer_ops viewer_ops = {
    .resized = on_resized,
    .changed = on_changed,
    .cursor_changed = on_cursor_changed,
    .removed = on_removed,
};

int vnc_watch(struct vnc *vnc, struct error *err)
{
    if (!vnc->screen)
        return error_set(err, ENODEV, "the screen has gone");
    if (vnc->is_watching)
        return 0;
    vnc->is_watching = true;
    if (screen_attach(vnc->screen, &vnc->viewer, err)) {
        vnc->is_watching = false;
        return -ENOMEM;
    }
    return 0;
}

void vnc_unwatch(struct vnc *vnc)
{
    for (struct vnc_client *client = vnc->clients; client; client = client->next)
        if (vnc_client_looks(client))
            return;
    if (vnc->is_watching && vnc->screen)
        screen_detach(vnc->screen, &vnc->viewer);
    vnc->is_watching = false;
    vnc->surface = (struct screen_surface){0};
    timer_cancel(&vnc->refresh);
}

/* So long after the last one. */
void vnc_want_refresh(struct vnc *vnc)
{
    if (!timer_is_armed(&vnc->refresh))
        timer_arm(&vnc->refresh, vnc->refreshed_ns + (vnc->quiet < QUIET ? REFRESH_NS : SLOW_NS));
}

void vnc_wake(struct vnc *vnc)
{
    timer_arm(&vnc->refresh, clock_now_ns(vnc->refresh.clocks, CLOCK_ID_HOST));
}

void vnc_expect_change(struct vnc *vnc)
{
    if (vnc->quiet >= QUIET)
        timer_cancel(&vnc->refresh); /* it is armed again, earlier */
    vnc->quiet = 0;
}

static void on_time(void *opaque)
{
    struct vnc *vnc = opaque;
    struct vnc_client *next;

    vnc->quiet += vnc->quiet < QUIET;
    vnc->refreshed_ns = clock_now_ns(vnc->refresh.clocks, CLOCK_ID_HOST);
    if (vnc->screen && vnc->is_watching)
        screen_refresh(vnc->screen);
    for (struct vnc_client *client = vnc->clients; client; client = next) {
        next = client->next;
        vnc_client_settle(client);
    }
}

/* ---- viewers ---- */

static void on_accept(void *opaque, int fd)
{
    vnc_connect(opaque, fd);
}

void vnc_connect(struct vnc *vnc, int fd)
{
    if (vnc->client_count < MAX_CLIENTS) {
        vnc_client_new(vnc, fd);
        return;
    }
    log_warn("vnc: there are %u viewers already; another one is turned away", vnc->client_count);
    close(fd);
}

/* ---- opening ---- */

static int read_password(struct vnc *vnc, const char *path, struct error *err)
{
    char line[256] = "";
    FILE *file;
    size_t length;

    if (!vnc_has_password_support)
        return error_set(err, ENOTSUP,
                         "password: this trapeze was built without GnuTLS and Nettle");
    file = fopen(path, "r");
    if (!file)
        return error_set(err, errno, "password: %s: %s", path, strerror(errno));
    if (!fgets(line, sizeof(line), file))
        line[0] = '\0';
    fclose(file);
    length = strcspn(line, "\r\n");
    if (!length)
        return error_set(err, EINVAL, "password: the first line of %s is empty", path);
    if (length > VNC_PASSWORD_MAX)
        log_warn("vnc: of a password the first %u characters count", VNC_PASSWORD_MAX);
    memcpy(vnc->password, line, length < VNC_PASSWORD_MAX ? length : VNC_PASSWORD_MAX);
    explicit_bzero(line, sizeof(line));
    vnc->has_password = true;
    return 0;
}

static int open_all(struct vnc *vnc, const struct vnc_config *config, struct error *err)
{
    if (!vnc->screen)
        return error_set(err, ENODEV, "the machine has no screen; add --vga std");
    if (config->password_file && read_password(vnc, config->password_file, err))
        return -EINVAL;
    if (!config->tls_cert != !config->tls_key)
        return error_set(err, EINVAL, "tls-cert and tls-key are needed both");
    if (config->tls_cert) {
        vnc->tls = vnc_tls_new(config->tls_cert, config->tls_key, err);
        if (!vnc->tls)
            return -EINVAL;
    }
    vnc->pool = work_pool_new(machine_loop(vnc->machine), ENCODE_THREADS, err);
    if (!vnc->pool)
        return -ENOMEM;
    if (!config->address)
        vnc->server = stream_listen_first(machine_loop(vnc->machine), VNC_FIRST_PORT, VNC_LAST_PORT,
                                          on_accept, vnc, err);
    else if (*config->address)
        vnc->server =
            stream_listen(machine_loop(vnc->machine), config->address, on_accept, vnc, err);
    else
        return 0;
    return vnc->server ? 0 : -EADDRNOTAVAIL;
}

struct vnc *vnc_new(struct machine *machine, const struct vnc_config *config, struct error *err)
{
    struct vnc *vnc = calloc(1, sizeof(*vnc));

    if (!vnc) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    vnc->machine = machine;
    vnc->screen = display_screen(machine_display(machine), 0);
    vnc->viewer = (struct screen_viewer){.ops = &viewer_ops, .opaque = vnc};
    snprintf(vnc->name, sizeof(vnc->name), "%s",
             machine_config(machine)->name ? machine_config(machine)->name : "trapeze");
    timer_init(&vnc->refresh, machine_clocks(machine), CLOCK_ID_HOST, on_time, vnc);
    if (!open_all(vnc, config, err))
        return vnc;
    vnc_free(vnc);
    return NULL;
}

void vnc_free(struct vnc *vnc)
{
    if (!vnc)
        return;
    stream_server_free(vnc->server);
    while (vnc->clients)
        if (vnc->clients->is_encoding)
            work_wait(vnc->pool);
        else
            vnc_client_free(vnc->clients);
    vnc_unwatch(vnc);
    work_pool_free(vnc->pool);
    vnc_tls_free(vnc->tls);
    timer_done(&vnc->refresh);
    free(vnc->cursor);
    explicit_bzero(vnc->password, sizeof(vnc->password));
    free(vnc);
}

unsigned vnc_port(const struct vnc *vnc)
{
    return vnc->server ? stream_server_port(vnc->server) : 0;
}
