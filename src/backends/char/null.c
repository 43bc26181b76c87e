/*
 * null.c - swallows all output and has no input
 */
#include "backends/char/internal.h"

static size_t null_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    (void)chardev, (void)data;
    return size_bytes;
}

const struct chardev_kind chardev_null = {
    .ops = {.name = "null", .summary = "no input, output is dropped", .send = null_send},
    .instance_size = sizeof(struct chardev),
};
