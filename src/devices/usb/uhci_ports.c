/*
 * uhci_ports.c - the two ports of a UHCI controller
 *
 * The guide, 2.1.7. Software times resets and resumes; a device is reset when that begins.
 */
#include "devices/usb/uhci.h"

#define CONNECTED 0x0001u
#define LINE_FULL 0x0010u /* the line that an idle device of that speed pulls up */
#define LINE_LOW  0x0020u
#define ALWAYS    0x0080u
#define LOW_SPEED 0x0100u
#define CHANGES   (UHCI_PORT_CHANGE | UHCI_PORT_OFF)

static bool is_suspended(const struct uhci *s, unsigned n)
{
    return s->port_status[n] & UHCI_PORT_SUSPEND || s->command & UHCI_CMD_SUSPEND;
}

/* A suspended port has seen something. */
static void resume_host(struct uhci *s)
{
    s->status |= UHCI_STS_RESUME;
    if (s->command & UHCI_CMD_SUSPEND)
        s->command |= UHCI_CMD_RESUME;
}

static void plugged(struct usb_port *port)
{
    struct uhci *s = uhci_of(port->controller);
    uint16_t *status = &s->port_status[port->number - 1];

    if (*status & UHCI_PORT_ENABLED)
        *status |= UHCI_PORT_OFF;
    *status = (uint16_t)((*status & CHANGES) | UHCI_PORT_CHANGE);
    if (s->command & UHCI_CMD_SUSPEND)
        resume_host(s);
    uhci_update_interrupts(s);
}

static void woken(struct usb_port *port, uint32_t route, uint8_t endpoint)
{
    struct uhci *s = uhci_of(port->controller);
    unsigned n = port->number - 1u;

    (void)route;
    (void)endpoint;
    if (!is_suspended(s, n)) {
        usb_frames_wake(&s->frames);
    } else if (port->device->may_wake && s->port_status[n] & UHCI_PORT_ENABLED) {
        if (s->port_status[n] & UHCI_PORT_SUSPEND)
            s->port_status[n] |= UHCI_PORT_RESUME;
        resume_host(s);
        uhci_update_interrupts(s);
    }
}

static const struct usb_port_ops port_ops = {
    .connected = plugged,
    .disconnected = plugged,
    .wake = woken,
};

void uhci_init_ports(struct uhci *s)
{
    for (unsigned n = 0; n < UHCI_PORTS; n++)
        s->ports[n] = (struct usb_port){
            .controller = &s->function.dev,
            .ops = &port_ops,
            .number = (uint8_t)(n + 1),
            .speeds = USB_SPEEDS_1,
        };
    s->bus = (struct usb_bus){s->ports, UHCI_PORTS};
}

struct usb_port *uhci_share_ports(struct device *dev)
{
    struct uhci *s = uhci_of(dev);

    if (!s->bus.count)
        return NULL;
    s->bus.count = 0;
    return s->ports;
}

void uhci_reset_ports(struct uhci *s)
{
    for (unsigned n = 0; n < UHCI_PORTS; n++)
        s->port_status[n] = s->ports[n].device ? UHCI_PORT_CHANGE : 0;
}

void uhci_reset_bus(struct uhci *s)
{
    for (unsigned n = 0; n < UHCI_PORTS; n++)
        if (s->ports[n].device)
            usb_reset(s->ports[n].device);
}

void uhci_bus_suspended(struct uhci *s)
{
    for (unsigned n = 0; n < UHCI_PORTS; n++)
        if (s->ports[n].device)
            usb_suspended(s->ports[n].device);
}

void uhci_stop_devices(struct uhci *s)
{
    for (unsigned n = 0; n < UHCI_PORTS; n++)
        if (s->ports[n].device)
            usb_all_stopped(s->ports[n].device);
}

uint16_t uhci_read_port(const struct uhci *s, unsigned n)
{
    const struct usb_device *usb = s->ports[n].device;
    uint16_t status = s->port_status[n] | ALWAYS;

    if (usb)
        status |= usb->description->speed == USB_LOW ? CONNECTED | LOW_SPEED | LINE_LOW
                                                     : CONNECTED | LINE_FULL;
    return status;
}

/* A resume ends when software says so. */
static uint16_t written_suspend(uint16_t before, uint16_t value)
{
    uint16_t after = value & (UHCI_PORT_SUSPEND | UHCI_PORT_RESUME);

    if (!(after & UHCI_PORT_SUSPEND) || (before & UHCI_PORT_RESUME && !(value & UHCI_PORT_RESUME)))
        return 0;
    return before & UHCI_PORT_SUSPEND ? after : UHCI_PORT_SUSPEND;
}

void uhci_write_port(struct uhci *s, unsigned n, uint16_t value)
{
    struct usb_device *usb = s->ports[n].device;
    uint16_t before = s->port_status[n];
    uint16_t after = (uint16_t)(before & CHANGES & ~value);

    after |= value & UHCI_PORT_RESET;
    if (value & UHCI_PORT_RESET) {
        if (usb && !(before & UHCI_PORT_RESET))
            usb_reset(usb);
    } else if (usb && value & UHCI_PORT_ENABLED) {
        after |= UHCI_PORT_ENABLED | written_suspend(before, value);
    }
    if (usb && before & UHCI_PORT_ENABLED && !(after & UHCI_PORT_ENABLED))
        usb_all_stopped(usb);
    s->port_status[n] = after;
    if (after & ~before & UHCI_PORT_SUSPEND)
        usb_suspended(usb);
}

struct usb_device *uhci_device(struct uhci *s, uint8_t address)
{
    struct usb_device *found = NULL;

    for (unsigned n = 0; n < UHCI_PORTS && !found; n++)
        if (s->ports[n].device && s->port_status[n] & UHCI_PORT_ENABLED && !is_suspended(s, n))
            found = usb_by_address(s->ports[n].device, address);
    return found;
}
