/*
 * ehci_ports.c - the ports of an EHCI controller, and who owns them
 *
 * The specification, 2.3.9 and 4.2. A socket is a port of this controller and one of a companion
 * (its twin); the device is on the one that owns it, which software chooses after a reset of the
 * port has not enabled it: only a device of High Speed is. On the companion's port each device has
 * one of the speeds of USB 1. A device that is pulled out there gives the port back.
 */
#include "devices/devices.h"
#include "devices/usb/ehci.h"
#include "devices/usb/uhci.h"

#define CHANGES      (EHCI_PORT_CHANGE | EHCI_PORT_OFF)
#define KEPT_CHOICES (EHCI_PORT_INDICATOR | EHCI_PORT_TEST | EHCI_PORT_WAKE)
#define OF_DEVICE    (EHCI_PORT_ENABLED | EHCI_PORT_RESUME | EHCI_PORT_SUSPEND | EHCI_PORT_RESET)

/* Something came, went or woke. */
static void change(struct ehci *s, unsigned n, uint32_t what)
{
    s->port_status[n] |= what;
    s->status |= EHCI_STS_PORT;
    ehci_update_interrupts(s);
}

static void settle(struct ehci *s, unsigned n)
{
    uint32_t off = s->port_status[n] & EHCI_PORT_ENABLED ? EHCI_PORT_OFF : 0;

    s->port_status[n] &= ~OF_DEVICE;
    change(s, n, EHCI_PORT_CHANGE | off);
}

static bool is_companions(const struct ehci *s, unsigned n)
{
    return s->port_status[n] & EHCI_PORT_COMPANION;
}

/* The device is where its port belongs to; else it goes there. False: it was not, or there is none.
 */
static bool move(struct ehci *s, unsigned n)
{
    struct usb_port *own = &s->ports[n];
    struct usb_port *from = is_companions(s, n) ? own : own->twin;
    struct usb_port *to = is_companions(s, n) ? own->twin : own;

    if (!from || !to || !from->device)
        return false;
    usb_move(from->device, to);
    return true;
}

static void set_owner(struct ehci *s, unsigned n, bool is_companion)
{
    s->port_status[n] &= ~EHCI_PORT_COMPANION;
    if (is_companion && s->ports[n].twin)
        s->port_status[n] |= EHCI_PORT_COMPANION;
}

/* The port goes to somebody else: one sees the device leave, the other sees it come. */
static void give(struct ehci *s, unsigned n, bool is_companion)
{
    struct usb_port *own = &s->ports[n];

    set_owner(s, n, is_companion);
    if (!move(s, n))
        return;
    usb_reset(own->device ? own->device : own->twin->device);
    settle(s, n);
    own->twin->ops->connected(own->twin);
}

static void plugged(struct usb_port *port)
{
    struct ehci *s = ehci_of(port->controller);
    unsigned n = port->number - 1u;

    if (!is_companions(s, n))
        settle(s, n);
    else if (move(s, n))
        port->twin->ops->connected(port->twin);
}

static void twin_left(struct usb_port *port)
{
    struct ehci *s = ehci_of(port->controller);

    if (s->is_configured)
        s->port_status[port->number - 1] &= ~EHCI_PORT_COMPANION;
}

static void woken(struct usb_port *port, uint32_t way, uint8_t endpoint)
{
    struct ehci *s = ehci_of(port->controller);
    unsigned n = port->number - 1u;

    (void)way;
    (void)endpoint;
    if (!(s->port_status[n] & EHCI_PORT_SUSPEND))
        usb_frames_wake(&s->frames);
    else if (port->device->may_wake)
        change(s, n, EHCI_PORT_RESUME);
}

static const struct usb_port_ops port_ops = {
    .connected = plugged,
    .disconnected = plugged,
    .wake = woken,
    .twin_left = twin_left,
};

/* ---- companions ---- */

void ehci_init_ports(struct ehci *s)
{
    for (unsigned n = 0; n < EHCI_PORTS; n++)
        s->ports[n] = (struct usb_port){
            .controller = &s->function.dev,
            .ops = &port_ops,
            .number = (uint8_t)(n + 1),
            .speeds = 1u << USB_HIGH,
        };
    s->bus = (struct usb_bus){s->ports, EHCI_PORTS};
}

/* Its ports are the next ones of s, too; not if they are another controller's. */
static void add_companion(struct ehci *s, struct device *uhci)
{
    struct usb_port *twins = uhci_share_ports(uhci), *ports = &s->ports[s->companions * UHCI_PORTS];

    if (!twins)
        return;
    for (unsigned n = 0; n < UHCI_PORTS; n++) {
        ports[n].twin = &twins[n];
        ports[n].speeds = USB_SPEEDS_2;
        twins[n].twin = &ports[n];
    }
    s->companions++;
}

void ehci_find_companions(struct ehci *s)
{
    const struct pci_function *own = &s->function;

    for (unsigned n = 0; n < own->number && s->companions < EHCI_PORTS / UHCI_PORTS; n++) {
        struct pci_function *other = own->bus->functions[own->slot << 3 | n];

        if (other && other->dev.class == &uhci_class)
            add_companion(s, &other->dev);
    }
}

void ehci_lose_companions(struct ehci *s)
{
    for (unsigned n = 0; n < EHCI_PORTS; n++)
        if (s->ports[n].twin)
            s->ports[n].twin->twin = NULL;
}

void ehci_configure(struct ehci *s, bool is_configured)
{
    if (s->is_configured == is_configured)
        return;
    s->is_configured = is_configured;
    for (unsigned n = 0; n < EHCI_PORTS; n++)
        give(s, n, !is_configured);
}

void ehci_reset_ports(struct ehci *s)
{
    s->is_configured = false;
    for (unsigned n = 0; n < EHCI_PORTS; n++) {
        give(s, n, true);
        s->port_status[n] &= EHCI_PORT_COMPANION;
        if (s->ports[n].device)
            s->port_status[n] |= EHCI_PORT_CHANGE;
    }
}

void ehci_ports_loaded(struct ehci *s)
{
    for (unsigned n = 0; n < EHCI_PORTS; n++) {
        s->port_status[n] &= EHCI_PORT_KEPT;
        set_owner(s, n, is_companions(s, n));
        move(s, n);
    }
}

void ehci_stop_devices(struct ehci *s)
{
    for (unsigned n = 0; n < EHCI_PORTS; n++)
        if (s->ports[n].device)
            usb_all_stopped(s->ports[n].device);
}

/* ---- registers ---- */

uint32_t ehci_read_port(const struct ehci *s, unsigned n)
{
    const struct usb_device *usb = s->ports[n].device;
    uint32_t status = s->port_status[n] | EHCI_PORT_POWER;

    if (!usb)
        return status;
    if (!(status & EHCI_PORT_ENABLED))
        status |= usb->description->speed == USB_LOW ? EHCI_PORT_LINE_K : EHCI_PORT_LINE_J;
    return status | EHCI_PORT_CONNECTED;
}

/* The bits of a device that is there, as they are after a write. */
static uint32_t written_device(struct usb_device *usb, uint32_t before, uint32_t value)
{
    uint32_t after = before & value & EHCI_PORT_ENABLED; /* it can only be switched off */

    if (value & EHCI_PORT_RESET) {
        if (!(before & EHCI_PORT_RESET))
            usb_reset(usb);
        return EHCI_PORT_RESET;
    }
    if (before & EHCI_PORT_RESET)
        return usb->description->speed == USB_HIGH ? EHCI_PORT_ENABLED : 0;
    if (!after || (before & EHCI_PORT_RESUME && !(value & EHCI_PORT_RESUME)))
        return after;
    after |= (before | value) & EHCI_PORT_SUSPEND; /* a resume ends it */
    return after | (before & EHCI_PORT_SUSPEND ? value & EHCI_PORT_RESUME : 0);
}

void ehci_write_port(struct ehci *s, unsigned n, uint32_t value)
{
    struct usb_device *usb = s->ports[n].device;
    uint32_t before = s->port_status[n];
    uint32_t after = (before & CHANGES & ~value) | (value & KEPT_CHOICES);

    if (usb)
        after |= written_device(usb, before, value);
    if (usb && before & EHCI_PORT_ENABLED && !(after & EHCI_PORT_ENABLED))
        usb_all_stopped(usb);
    s->port_status[n] = after | (before & EHCI_PORT_COMPANION);
    if (after & ~before & EHCI_PORT_SUSPEND)
        usb_suspended(usb);
    if ((before ^ value) & EHCI_PORT_COMPANION && s->is_configured)
        give(s, n, value & EHCI_PORT_COMPANION);
}

struct usb_device *ehci_device(struct ehci *s, uint8_t address)
{
    struct usb_device *found = NULL;

    for (unsigned n = 0; n < EHCI_PORTS && !found; n++)
        if (s->ports[n].device && s->port_status[n] & EHCI_PORT_ENABLED &&
            !(s->port_status[n] & EHCI_PORT_SUSPEND))
            found = usb_by_address(s->ports[n].device, address);
    return found;
}
