/*
 * chardev.h - byte streams between a device and the host
 *
 * The backend (stdio, socket, file, ring, null) owns the host side; the
 * front end is a device such as a UART. Both directions have back-pressure: the
 * device asks for no more than the backend takes, and the backend delivers no
 * more than the device says it can receive. All calls with the machine lock held.
 */
#ifndef TRAPEZE_CHARDEV_H
#define TRAPEZE_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct chardev;
struct loop;

struct chardev_frontend {
    size_t (*can_receive)(void *opaque); /* bytes that receive() would take now */
    void (*receive)(void *opaque, const uint8_t *data, size_t size_bytes);
    void (*can_send)(void *opaque);                /* the backend takes bytes again; may be NULL */
    void (*hang_up)(void *opaque, bool connected); /* peer came or went; may be NULL */
    void (*receive_break)(void *opaque);           /* a break condition on the line; may be NULL */
    void (*resized)(void *opaque);                 /* chardev_window() may differ; may be NULL */
    void *opaque;
};

struct chardev_ops {
    const char *name;
    const char *summary;
    /* Take up to size_bytes; returns how many were taken (0: try after can_send). */
    size_t (*send)(struct chardev *chardev, const uint8_t *data, size_t size_bytes);
    /* The front end can receive again after it could not. May be NULL. */
    void (*accept_input)(struct chardev *chardev);
    /* A program in the guest has opened or closed the front end, which is a port. May be NULL. */
    void (*opened)(struct chardev *chardev, bool is_open);
    /* Of a terminal. False: it is none. May be NULL. */
    bool (*window)(struct chardev *chardev, uint16_t *out_columns, uint16_t *out_rows);
    void (*free)(struct chardev *chardev);
};

/* What the escape key of a terminal asks of the program around the machine. */
struct chardev_console {
    void (*quit)(void *opaque);               /* NULL: SIGTERM is raised in the own process */
    void (*press_power_button)(void *opaque); /* machine lock held; may be NULL */
    const char *monitor_hint; /* one line on how to reach the monitor; may be NULL */
    void *opaque;
};

/* Who reads what the device sends, and types to it, beside the backend. */
struct chardev_tap {
    void (*sent)(void *opaque, const uint8_t *data, size_t size_bytes); /* the backend took it */
    void (*accept_input)(void *opaque); /* there is room for chardev_deliver() again */
    void *opaque;
};

struct chardev {
    const struct chardev_ops *ops;
    const struct chardev_frontend *frontend; /* NULL until a device connects */
    const struct chardev_console *console;   /* NULL: defaults */
    const struct chardev_tap *tap;           /* NULL: none */
    bool connected; /* a peer is there: sockets and ptys; true for the others */
};

/*
 * Open a backend from its description: "stdio", "null", "file:path=OUT[,input=IN]",
 * "socket:path=P[,wait=off]", "ring:size=64K". Freed with chardev_free.
 */
struct chardev *chardev_open(struct loop *loop, const char *description, struct error *err);
/* What was taken is written out first, as long as the peer makes progress. NULL is fine. */
void chardev_free(struct chardev *chardev);
/* console stays the caller's. */
void chardev_set_console(struct chardev *chardev, const struct chardev_console *console);
/* tap stays the caller's; NULL takes it off. One at a time. */
void chardev_set_tap(struct chardev *chardev, const struct chardev_tap *tap);

/* frontend stays owned by the caller; NULL disconnects. */
void chardev_connect(struct chardev *chardev, const struct chardev_frontend *frontend);
/* chardev may be NULL: bytes are dropped and count as sent. */
size_t chardev_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes);
void chardev_accept_input(struct chardev *chardev);
void chardev_set_open(struct chardev *chardev, bool is_open);
/* The size of a terminal in characters; false, and nothing is stored: it has none. */
bool chardev_window(struct chardev *chardev, uint16_t *out_columns, uint16_t *out_rows);

/* ---- for backends and taps: calls of the front end; nothing happens without one ---- */
size_t chardev_room(struct chardev *chardev); /* bytes the front end takes now */
void chardev_deliver(struct chardev *chardev, const uint8_t *data, size_t size_bytes);
void chardev_deliver_break(struct chardev *chardev);
void chardev_notify_can_send(struct chardev *chardev);
void chardev_set_connected(struct chardev *chardev, bool connected);
void chardev_notify_resized(struct chardev *chardev);

/* ---- the ring backend, for tests and the monitor ---- */

/* Move bytes out of the ring (what the device sent) and towards the device; returns how many. */
size_t chardev_ring_take(struct chardev *chardev, uint8_t *out, size_t size_bytes);
size_t chardev_ring_put(struct chardev *chardev, const uint8_t *data, size_t size_bytes);

/* The kinds of backend, for help texts: names from index 0 on, NULL after the last. */
const char *chardev_kind_name(unsigned index);
const char *chardev_kind_summary(unsigned index);

#endif
