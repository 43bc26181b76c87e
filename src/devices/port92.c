/*
 * port92.c - system control port A: fast A20 gate and fast reset
 *
 * IBM PS/2 Technical Reference, "System Control Port A": bit 0 going from 0 to 1
 * resets the processor, bit 1 is address line 20, bits 6 and 7 were the fixed disk's
 * light and are kept, the rest reads as 0. A20 is one latch shared with the keyboard
 * controller's output port: the last writer wins.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include "devices/devices.h"
#include "trapeze/machine.h"

#define PORT92_PORT   0x92
#define PORT92_RESET  0x01u
#define PORT92_A20    0x02u
#define PORT92_LIGHTS 0xc0u

struct port92 {
    struct device dev;

    uint8_t value; /* guest-visible state: reset bit and lights; A20 is the machine's */
};

static struct port92 *port92_of(struct device *dev)
{
    return container_of(dev, struct port92, dev);
}

static uint64_t port92_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return port92_of(dev)->value | (machine_a20(dev->machine) ? PORT92_A20 : 0);
}

static void port92_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct port92 *s = port92_of(dev);
    bool reset = (value & PORT92_RESET) && !(s->value & PORT92_RESET);

    (void)offset;
    (void)size;
    s->value = value & (PORT92_RESET | PORT92_LIGHTS);
    machine_set_a20(dev->machine, value & PORT92_A20);
    if (reset)
        machine_request_reset(dev->machine);
}

static const struct region_ops port92_port = {
    .name = "port92",
    .read = port92_read,
    .write = port92_write,
    .min_size = 1,
    .max_size = 1,
};

static int port92_attach(struct device *dev, struct error *err)
{
    return device_map_ports(dev, PORT92_PORT, 1, &port92_port, err);
}

static void port92_reset(struct device *dev)
{
    port92_of(dev)->value = 0;
}

static const struct state_field port92_state[] = {
    STATE_U8(struct port92, value),
    STATE_END,
};

const struct device_class port92_class = {
    .name = "port92",
    .summary = "system control port A: fast A20 and reset",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct port92),
    .attach = port92_attach,
    .reset = port92_reset,
    .state = {.version = 1, .oldest = 1, .fields = port92_state},
};
