/*
 * ports.c - the ports of the xHCI controller's root hub
 *
 * The specification, 4.19 and 5.4.8. Ports 1 to 4 are those of USB 3, where a device is enabled as
 * soon as it is there; the others those of USB 2, which enable it by a reset.
 */
#include "devices/usb/xhci.h"

enum port_register { REG_STATUS = 0x0 };
#define PORT_BYTES     0x10u

#define CONNECTED      0x00000001u
#define ENABLED        0x00000002u
#define RESET          0x00000010u
#define LINK_SHIFT     5
#define LINK_MASK      0x000001e0u
#define POWER          0x00000200u
#define SPEED_SHIFT    10
#define SPEED_MASK     0x00003c00u
#define INDICATOR      0x0000c000u
#define LINK_STROBE    0x00010000u
#define CONNECT_CHANGE 0x00020000u
#define WARM_CHANGE    0x00080000u
#define RESET_CHANGE   0x00200000u
#define LINK_CHANGE    0x00400000u
#define CHANGES        0x00fe0000u
#define WAKE_ENABLES   0x0e000000u
#define WARM_RESET     0x80000000u

enum link_state {
    LINK_U0 = 0,
    LINK_U3 = 3,
    LINK_DISABLED = 4,
    LINK_RX_DETECT = 5,
    LINK_POLLING = 7,
    LINK_RESUME = 15,
};

static unsigned link_of(uint32_t status)
{
    return (status & LINK_MASK) >> LINK_SHIFT;
}

static void set_link(uint32_t *status, enum link_state link)
{
    *status = (*status & ~LINK_MASK) | (uint32_t)link << LINK_SHIFT;
}

/* An event when the first of a port's changes is seen. */
static void report(struct xhci *s, unsigned n)
{
    s->status |= XHCI_STS_PCD;
    if (xhci_is_running(s))
        xhci_post(s, 0, (uint64_t)(n + 1) << 24, (uint32_t)XHCI_SUCCESS << 24,
                  XHCI_PORT_EVENT << 10, false);
}

static void change(struct xhci *s, unsigned n, uint32_t changes)
{
    bool is_first = !(s->port_status[n] & CHANGES);

    s->port_status[n] |= changes;
    if (is_first)
        report(s, n);
}

/* What the device that is there, or none, makes of a port. */
static void settle(struct xhci *s, unsigned n)
{
    const struct usb_port *port = &s->ports[n];
    uint32_t *status = &s->port_status[n];

    *status &= ~(CONNECTED | ENABLED | RESET | SPEED_MASK);
    set_link(status, LINK_RX_DETECT);
    if (!port->device)
        return;
    *status |= CONNECTED | (uint32_t)port->device->description->speed << SPEED_SHIFT;
    set_link(status, usb_is_super(port) ? LINK_U0 : LINK_POLLING);
    if (usb_is_super(port))
        *status |= ENABLED;
}

static unsigned number_of(const struct xhci *s, const struct usb_port *port)
{
    return (unsigned)(port - s->ports);
}

static void plugged(struct usb_port *port)
{
    struct xhci *s = xhci_of(port->controller);

    settle(s, number_of(s, port));
    change(s, number_of(s, port), CONNECT_CHANGE);
}

static void kick(struct xhci *s, unsigned n, uint32_t route, unsigned dci)
{
    for (unsigned slot = 0; slot < XHCI_SLOTS; slot++)
        if (s->slots[slot].is_enabled && s->slots[slot].port == n + 1 &&
            s->slots[slot].route == route)
            s->slots[slot].kicked |= 1u << dci;
}

/* A device on a suspended port asks for the host, if it may; else its endpoint is looked at. */
static void woken(struct usb_port *port, uint32_t route, uint8_t endpoint)
{
    struct xhci *s = xhci_of(port->controller);
    unsigned n = number_of(s, port);
    uint32_t *status = &s->port_status[n];

    kick(s, n, route, (endpoint & 0xfu) * 2 + (endpoint & USB_IN ? 1 : 0));
    if (link_of(*status) == LINK_U3 && port->device->may_wake) {
        set_link(status, LINK_RESUME);
        change(s, n, LINK_CHANGE);
    }
    xhci_work(s);
}

static const struct usb_port_ops port_ops = {
    .connected = plugged,
    .disconnected = plugged,
    .wake = woken,
};

void xhci_init_ports(struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_PORTS; n++) {
        bool is_super = n < XHCI_SUPER_PORTS;

        s->ports[n] = (struct usb_port){
            .controller = &s->function.dev,
            .ops = &port_ops,
            .number = (uint8_t)(is_super ? n + 1 : n + 1 - XHCI_SUPER_PORTS),
            .speeds = is_super ? USB_SPEEDS_3 : USB_SPEEDS_2,
        };
    }
    s->bus = (struct usb_bus){s->ports, XHCI_PORTS};
}

void xhci_reset_ports(struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_PORTS; n++) {
        s->port_status[n] = POWER;
        settle(s, n);
        if (s->ports[n].device)
            s->port_status[n] |= CONNECT_CHANGE;
    }
}

void xhci_report_ports(struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_PORTS; n++)
        if (s->port_status[n] & CHANGES)
            report(s, n);
}

static void reset_port(struct xhci *s, unsigned n, bool is_warm)
{
    struct usb_device *usb = s->ports[n].device;

    if (!usb)
        return;
    usb_reset(usb);
    settle(s, n);
    s->port_status[n] |= ENABLED;
    set_link(&s->port_status[n], LINK_U0);
    change(s, n, RESET_CHANGE | (is_warm && usb_is_super(&s->ports[n]) ? WARM_CHANGE : 0));
}

static void resume_port(struct xhci *s, unsigned n)
{
    for (unsigned slot = 0; slot < XHCI_SLOTS; slot++)
        if (s->slots[slot].is_enabled && s->slots[slot].port == n + 1)
            s->slots[slot].kicked |= UINT32_MAX & ~1u;
    xhci_work(s);
}

/* Nothing is seen of the device until software asks for it. */
static void disable_super(uint32_t *status)
{
    *status &= ~(CONNECTED | ENABLED | SPEED_MASK);
    set_link(status, LINK_DISABLED);
}

/* What software may ask of a link. */
static void write_link(struct xhci *s, unsigned n, unsigned link)
{
    uint32_t *status = &s->port_status[n];
    unsigned before = link_of(*status);
    bool is_super = usb_is_super(&s->ports[n]);

    if (link == LINK_RX_DETECT && is_super && before == LINK_DISABLED) {
        settle(s, n);
        if (*status & CONNECTED)
            change(s, n, CONNECT_CHANGE);
    } else if (link == LINK_DISABLED && is_super) {
        disable_super(status);
    } else if (!(*status & ENABLED)) {
        return;
    } else if (link == LINK_U3 || (link == LINK_RESUME && !is_super && before == LINK_U3)) {
        set_link(status, link);
        if (link == LINK_U3)
            usb_suspended(s->ports[n].device);
    } else if (link == LINK_U0) {
        set_link(status, LINK_U0);
        if (before == LINK_U3 || before == LINK_RESUME)
            change(s, n, LINK_CHANGE);
        resume_port(s, n);
    }
}

static void write_status(struct xhci *s, unsigned n, uint32_t value)
{
    const uint32_t writable = INDICATOR | WAKE_ENABLES;
    uint32_t *status = &s->port_status[n];

    *status = (*status & ~writable & ~(value & CHANGES)) | (value & writable);
    if (value & ENABLED && *status & ENABLED) { /* 1 switches it off */
        if (usb_is_super(&s->ports[n])) {
            disable_super(status);
        } else {
            *status &= ~ENABLED;
            set_link(status, LINK_POLLING);
        }
    }
    if (value & (RESET | WARM_RESET)) {
        if (value & RESET || usb_is_super(&s->ports[n]))
            reset_port(s, n, value & WARM_RESET);
    } else if (value & LINK_STROBE) {
        write_link(s, n, link_of(value));
    }
}

uint32_t xhci_read_port(const struct xhci *s, unsigned offset)
{
    return offset % PORT_BYTES == REG_STATUS ? s->port_status[offset / PORT_BYTES] : 0;
}

void xhci_write_port(struct xhci *s, unsigned offset, uint32_t value)
{
    if (offset % PORT_BYTES == REG_STATUS)
        write_status(s, offset / PORT_BYTES, value);
}

struct usb_device *xhci_device(struct xhci *s, const struct xhci_slot *slot)
{
    unsigned n = slot->port - 1u;

    return slot->port && s->port_status[n] & ENABLED ? usb_follow(s->ports[n].device, slot->route)
                                                     : NULL;
}

bool xhci_is_suspended(const struct xhci *s, const struct xhci_slot *slot)
{
    unsigned link = slot->port ? link_of(s->port_status[slot->port - 1]) : LINK_U0;

    return link == LINK_U3 || link == LINK_RESUME;
}

/* The same devices have to be there, and no port be enabled without one. */
bool xhci_ports_are_consistent(const struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_PORTS; n++) {
        const struct usb_device *usb = s->ports[n].device;
        uint32_t status = s->port_status[n];
        bool is_off = link_of(status) == LINK_DISABLED && usb_is_super(&s->ports[n]);

        if (!(status & CONNECTED) != (!usb || is_off) ||
            (status & ENABLED && !(status & CONNECTED)))
            return false;
        if (status & CONNECTED && (status & SPEED_MASK) >> SPEED_SHIFT != usb->description->speed)
            return false;
    }
    return true;
}
