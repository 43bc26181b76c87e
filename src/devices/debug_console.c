/*
 * debug_console.c - ports that firmware and test kernels print to
 *
 * A byte written to port 0xe9 (Bochs and others) or 0x402 (SeaBIOS, OVMF) goes to a chardev or,
 * without one, line by line to the log at guest level. Reading gives 0xe9, by which a
 * guest finds out that somebody listens.
 *
 * The ports have no "busy", so what the chardev does not take at once waits in a buffer; what does
 * not fit there either is dropped, and that is said once.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include <string.h>

#include "base/log.h"
#include "devices/devices.h"
#include "trapeze/chardev.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define READ_BACK   0xe9
#define BUFFER_SIZE 65536u
#define LINE_SIZE   160

struct debug_console {
    struct device dev;

    /* Configuration. */
    uint16_t port, firmware_port;
    struct chardev *chardev;
    struct chardev_frontend frontend;

    /* On their way out; no guest can see them. */
    bool dropped;
    size_t head, count;
    uint8_t buffer[BUFFER_SIZE];
    size_t line_length;
    char line[LINE_SIZE];
};

static struct debug_console *debug_console_of(struct device *dev)
{
    return container_of(dev, struct debug_console, dev);
}

/* ---- to a chardev ---- */

static void console_drain(void *opaque)
{
    struct debug_console *s = opaque;

    while (s->count) {
        size_t piece = BUFFER_SIZE - s->head, sent;

        if (piece > s->count)
            piece = s->count;
        sent = chardev_send(s->chardev, s->buffer + s->head, piece);
        if (!sent)
            return;
        s->head = (s->head + sent) % BUFFER_SIZE;
        s->count -= sent;
    }
}

static void console_send(struct debug_console *s, uint8_t byte)
{
    if (!s->count && chardev_send(s->chardev, &byte, 1) == 1)
        return;
    if (s->count < BUFFER_SIZE) {
        s->buffer[(s->head + s->count++) % BUFFER_SIZE] = byte;
    } else if (!s->dropped) {
        s->dropped = true;
        log_warn("%s: output is dropped, nobody reads it", s->dev.id);
    }
}

/* ---- to the log ---- */

static void console_end_line(struct debug_console *s)
{
    if (s->line_length)
        log_message(LOG_GUEST, "%s: %.*s", s->dev.id, (int)s->line_length, s->line);
    s->line_length = 0;
}

static void console_log(struct debug_console *s, uint8_t byte)
{
    if (byte == '\n' || s->line_length == sizeof(s->line))
        console_end_line(s);
    if (byte != '\n' && byte != '\r')
        s->line[s->line_length++] = byte >= 0x20 && byte < 0x7f ? (char)byte : '.';
}

/* ---- ports ---- */

static uint64_t console_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return READ_BACK;
}

static void console_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_console *s = debug_console_of(dev);

    (void)offset, (void)size;
    if (s->chardev)
        console_send(s, (uint8_t)value);
    else
        console_log(s, (uint8_t)value);
}

static const struct region_ops console_port = {
    .name = "debug-console",
    .read = console_read,
    .write = console_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- lifecycle ---- */

static int console_attach(struct device *dev, struct error *err)
{
    struct debug_console *s = debug_console_of(dev);
    int rc = 0;

    s->frontend = (struct chardev_frontend){.can_send = console_drain, .opaque = s};
    if (s->chardev)
        chardev_connect(s->chardev, &s->frontend);
    if (s->port)
        rc = device_map_ports(dev, s->port, 1, &console_port, err);
    if (!rc && s->firmware_port)
        rc = device_map_ports(dev, s->firmware_port, 1, &console_port, err);
    return rc;
}

static void console_detach(struct device *dev)
{
    struct debug_console *s = debug_console_of(dev);

    console_end_line(s);
    if (s->chardev && s->chardev->frontend == &s->frontend) {
        console_drain(s);
        chardev_connect(s->chardev, NULL);
    }
}

static void console_reset(struct device *dev)
{
    console_end_line(debug_console_of(dev));
}

static const struct property console_properties[] = {
    PROPERTY_U16(struct debug_console, port, 0xe9, "I/O port; 0: none"),
    PROPERTY_U16(struct debug_console, firmware_port, 0x402, "I/O port of firmware; 0: none"),
    PROPERTY_POINTER(struct debug_console, chardev, "where output goes; none: the log"),
    PROPERTY_END,
};

const struct device_class debug_console_class = {
    .name = "debug-console",
    .summary = "ports 0xe9 and 0x402 that firmware and test kernels print to",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct debug_console),
    .properties = console_properties,
    .attach = console_attach,
    .reset = console_reset,
    .detach = console_detach,
};
