/*
 * debug_exit.c - lets a test guest end its own run
 *
 * Four I/O ports. A byte, word or doubleword written to the first one stops the machine
 * and becomes the exit status, value * 2 + 1, so that a guest cannot report success by
 * accident. The other three exist so that wide writes are one access.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include "devices/devices.h"
#include "trapeze/machine.h"

#define DEBUG_EXIT_PORT_COUNT 4
#define DEBUG_EXIT_VALUE_MASK 0x3fffffffu /* value * 2 + 1 stays a positive int */

struct debug_exit {
    struct device dev;

    uint16_t port; /* property */

    uint32_t last_value; /* guest-visible state */
};

static struct debug_exit *debug_exit_of(struct device *dev)
{
    return container_of(dev, struct debug_exit, dev);
}

static uint64_t debug_exit_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return debug_exit_of(dev)->last_value >> (8 * offset);
}

static void debug_exit_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_exit *s = debug_exit_of(dev);

    (void)size;
    if (offset != 0)
        return;
    s->last_value = (uint32_t)value;
    machine_request_stop(dev->machine, STOP_GUEST_EXIT,
                         (int)((s->last_value & DEBUG_EXIT_VALUE_MASK) << 1 | 1));
}

static const struct region_ops debug_exit_ports = {
    .name = "debug-exit",
    .read = debug_exit_read,
    .write = debug_exit_write,
    .min_size = 1,
    .max_size = 4,
};

static int debug_exit_attach(struct device *dev, struct error *err)
{
    return device_map_ports(dev, debug_exit_of(dev)->port, DEBUG_EXIT_PORT_COUNT, &debug_exit_ports,
                            err);
}

static void debug_exit_reset(struct device *dev)
{
    debug_exit_of(dev)->last_value = 0;
}

static const struct property debug_exit_properties[] = {
    PROPERTY_U16(struct debug_exit, port, 0xf4, "I/O port the guest writes to"),
    PROPERTY_END,
};

static const struct state_field debug_exit_state[] = {
    STATE_U32(struct debug_exit, last_value),
    STATE_END,
};

const struct device_class debug_exit_class = {
    .name = "debug-exit",
    .summary = "stop the machine with a status chosen by the guest",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct debug_exit),
    .properties = debug_exit_properties,
    .attach = debug_exit_attach,
    .reset = debug_exit_reset,
    .state = {.version = 1, .oldest = 1, .fields = debug_exit_state},
};
