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
    void (*can_send)(void *opaque); /* the backend takes bytes again; may be NULL */
    void (*hang_up)(void *opaque, bool connected); /* peer came or went; may be NULL */
    void *opaque;
};

struct chardev_ops {
    const char *name;
    const char *summary;
    /* Take up to size_bytes; returns how many were taken (0: try after can_send). */
    size_t (*send)(struct chardev *chardev, const uint8_t *data, size_t size_bytes);
    /* The front end can receive again after it could not. May be NULL. */
    void (*accept_input)(struct chardev *chardev);
    void (*free)(struct chardev *chardev);
};

struct chardev {
    const struct chardev_ops *ops;
    const struct chardev_frontend *frontend; /* NULL until a device connects */
};

/*
 * Open a backend from its description: "stdio", "null", "file:path=OUT[,input=IN]",
 * "socket:path=P[,wait=off]", "ring:size=64K". Freed with chardev_free.
 */
struct chardev *chardev_open(struct loop *loop, const char *description, struct error *err);
void chardev_free(struct chardev *chardev); /* NULL is fine */

/* frontend stays owned by the caller; NULL disconnects. */
void chardev_connect(struct chardev *chardev, const struct chardev_frontend *frontend);
/* chardev may be NULL: bytes are dropped and count as sent. */
size_t chardev_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes);
void chardev_accept_input(struct chardev *chardev);

#endif
