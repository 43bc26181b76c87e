/*
 * console.h - ports of a virtio console
 */
#ifndef DEVICES_VIRTIO_CONSOLE_H
#define DEVICES_VIRTIO_CONSOLE_H

#include "trapeze/error.h"

#define VIRTIO_CONSOLE_MAX_PORTS 14
#define VIRTIO_CONSOLE_MAX_NAME  64u /* characters */

struct chardev;
struct device;

/*
 * Give a virtio-console a port, by whose name programs in the guest find it; before it is attached.
 * It has a console (property), or ports. The chardev is borrowed.
 */
int virtio_console_add_port(struct device *dev, const char *name, struct chardev *chardev,
                            struct error *err);

#endif
