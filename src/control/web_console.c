/*
 * web_console.c - a console in the browser, beside where it is on the host
 *
 * The end of what the device has sent is kept. Each viewer has a place in it: one that comes late
 * sees the past, one that is slow loses what is older than that. Keys of all go to the device as it
 * has room.
 */
#include <stdlib.h>
#include <string.h>

#include "control/web_internal.h"
#include "host/loop.h"
#include "trapeze/chardev.h"
#include "trapeze/clock.h"

#define GATHER_NS 4000000u /* guests print byte by byte */

struct web_viewer {
    struct web_console *console;
    struct web_viewer *next;
    struct web_socket *socket;
    uint64_t seen; /* of the console's sent */
};

struct web_console {
    struct loop *loop;
    struct chardev *chardev;
    struct chardev_tap tap;
    struct timer gather;
    struct web_viewer *viewers;
    bool room_is_due;
    uint64_t sent;
    uint8_t past[WEB_CONSOLE_BYTES]; /* of sent */
};

static void go_on(void *opaque)
{
    struct web_console *console = opaque;

    console->room_is_due = false;
    for (struct web_viewer *viewer = console->viewers; viewer; viewer = viewer->next)
        web_socket_go_on(viewer->socket);
}

/* ---- the device's side: on any thread, machine lock held ---- */

static void on_sent(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct web_console *console = opaque;

    for (size_t n = 0; n < size_bytes; n++)
        console->past[console->sent++ % WEB_CONSOLE_BYTES] = data[n];
    if (console->viewers && !timer_is_armed(&console->gather))
        timer_arm(&console->gather,
                  clock_now_ns(console->gather.clocks, CLOCK_ID_HOST) + GATHER_NS);
}

static void on_room(void *opaque)
{
    struct web_console *console = opaque;

    if (console->viewers && !console->room_is_due)
        console->room_is_due = loop_defer(console->loop, go_on, console) == 0;
}

/* ---- viewers ---- */

static size_t viewer_receive(void *opaque, const uint8_t *bytes, size_t size)
{
    struct chardev *chardev = ((struct web_viewer *)opaque)->console->chardev;
    size_t room = chardev_room(chardev), taken = size < room ? size : room;

    chardev_deliver(chardev, bytes, taken);
    return taken;
}

static size_t viewer_fill(void *opaque, uint8_t *out, size_t size)
{
    struct web_viewer *viewer = opaque;
    struct web_console *console = viewer->console;
    uint64_t left = console->sent - viewer->seen;

    if (left > WEB_CONSOLE_BYTES) {
        left = WEB_CONSOLE_BYTES;
        viewer->seen = console->sent - left;
    }
    size = size < left ? size : (size_t)left;
    for (size_t n = 0; n < size; n++)
        out[n] = console->past[viewer->seen++ % WEB_CONSOLE_BYTES];
    return size;
}

static void viewer_closed(void *opaque)
{
    struct web_viewer *viewer = opaque;
    struct web_viewer **link = &viewer->console->viewers;

    while (*link && *link != viewer)
        link = &(*link)->next;
    if (*link)
        *link = viewer->next;
    free(viewer);
}

const struct web_socket_ops web_viewer_ops = {
    .receive = viewer_receive, .fill = viewer_fill, .closed = viewer_closed};

struct web_viewer *web_viewer_new(struct web_console *console)
{
    struct web_viewer *viewer = calloc(1, sizeof(*viewer));

    if (viewer)
        viewer->console = console;
    return viewer;
}

void web_viewer_attach(struct web_viewer *viewer, struct web_socket *socket)
{
    viewer->socket = socket;
    viewer->next = viewer->console->viewers;
    viewer->console->viewers = viewer;
    web_socket_go_on(socket);
}

/* ---- the console ---- */

struct web_console *web_console_new(struct loop *loop, struct clocks *clocks,
                                    struct chardev *chardev)
{
    struct web_console *console = calloc(1, sizeof(*console));

    if (!console)
        return NULL;
    console->loop = loop;
    console->chardev = chardev;
    console->tap =
        (struct chardev_tap){.sent = on_sent, .accept_input = on_room, .opaque = console};
    timer_init(&console->gather, clocks, CLOCK_ID_HOST, go_on, console);
    chardev_set_tap(chardev, &console->tap);
    return console;
}

void web_console_free(struct web_console *console)
{
    if (!console)
        return;
    chardev_set_tap(console->chardev, NULL);
    loop_undefer(console->loop, console);
    timer_done(&console->gather);
    free(console);
}
