/*
 * run_console.c - the virtio console and named ports of trapeze run
 */
#include "cli/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/agent.h"
#include "devices/devices.h"
#include "devices/virtio/console.h"
#include "trapeze/chardev.h"
#include "trapeze/machine.h"

#define UNIX "unix:"

/* "NAME=BACKEND" */
struct port_text {
    char name[VIRTIO_CONSOLE_MAX_NAME + 1];
    char *backend; /* as chardev_open() takes it; to be freed */
};

/* "unix:PATH", as others write it; a comma is a comma. */
static char *unix_backend(const char *path)
{
    static const char start[] = "socket:path=";
    char *text = malloc(sizeof(start) + 2 * strlen(path)), *to = text;

    if (!text)
        return NULL;
    to = stpcpy(to, start);
    for (; *path; path++) {
        if (*path == ',')
            *to++ = ',';
        *to++ = *path;
    }
    *to = '\0';
    return text;
}

static int parse_port(const char *text, struct port_text *out, struct error *err)
{
    const char *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : 0;

    if (!length || length > VIRTIO_CONSOLE_MAX_NAME)
        return error_set(err, EINVAL, "write NAME=unix:PATH; NAME has up to %u characters",
                         VIRTIO_CONSOLE_MAX_NAME);
    memcpy(out->name, text, length);
    out->name[length] = '\0';
    out->backend = strncmp(equals + 1, UNIX, strlen(UNIX))
                       ? strdup(equals + 1)
                       : unix_backend(equals + 1 + strlen(UNIX));
    return out->backend ? 0 : error_set(err, ENOMEM, "out of memory");
}

int run_check_serial_port(const char *text, struct error *err)
{
    struct port_text port;
    int result = parse_port(text, &port, err);

    if (result)
        return result;
    result = run_check_chardev(port.backend, err);
    free(port.backend);
    return result;
}

static int add_port(struct run_serial_ports *ports, struct device *dev, struct loop *loop,
                    const char *text, struct error *err)
{
    struct chardev **chardev = &ports->chardevs[ports->count];
    struct port_text port;
    int result = parse_port(text, &port, err);

    if (result)
        return result;
    *chardev = chardev_open(loop, port.backend, err);
    free(port.backend);
    if (!*chardev)
        return -EINVAL;
    ports->count++;
    return virtio_console_add_port(dev, port.name, *chardev, err);
}

void run_clipboard_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "on", "by a port for the agent in the guest (spice-vdagent)");
    put(opaque, "off", "only those who look at the screen share it");
}

static struct device *new_agent(struct machine *machine, struct error *err)
{
    struct device *agent = device_new(machine, &agent_class, NULL, err);

    return agent && !device_attach(agent, err) ? agent : NULL;
}

int run_add_serial_ports(struct run_serial_ports *ports, struct machine *machine,
                         const struct cli_texts *texts, bool has_clipboard, struct error *err)
{
    struct device *dev, *agent = NULL;

    if (!texts->count && !has_clipboard)
        return 0;
    if (texts->count + has_clipboard > VIRTIO_CONSOLE_MAX_PORTS)
        return error_set(err, E2BIG, "%zu ports are too many; up to %d can be given%s",
                         texts->count, VIRTIO_CONSOLE_MAX_PORTS - has_clipboard,
                         has_clipboard ? " beside the clipboard's" : "");
    /* Before its port, which therefore goes before it. */
    if (has_clipboard && !(agent = new_agent(machine, err)))
        return -ENOMEM;
    dev = device_new(machine, &virtio_console_class, "ports", err);
    for (size_t n = 0; dev && n < texts->count; n++)
        if (add_port(ports, dev, machine_loop(machine), texts->items[n], err)) {
            error_prefix(err, "--port %s: ", texts->items[n]);
            return -EINVAL;
        }
    if (dev && agent && virtio_console_add_port(dev, AGENT_PORT_NAME, agent_chardev(agent), err)) {
        error_prefix(err, "--clipboard on: ");
        return -EINVAL;
    }
    return dev ? device_attach(dev, err) : -EINVAL;
}

int run_add_console(struct machine *machine, struct chardev *console, struct error *err)
{
    struct device *dev = device_new(machine, &virtio_console_class, "console", err);

    if (!dev || device_set_pointer(dev, "chardev", console, err))
        return -EINVAL;
    return device_attach(dev, err);
}

void run_free_serial_ports(struct run_serial_ports *ports)
{
    for (size_t n = 0; n < ports->count; n++)
        chardev_free(ports->chardevs[n]);
    ports->count = 0;
}
