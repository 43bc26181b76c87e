/*
 * hub.c - USB hub of High Speed, or of Full Speed where nothing is faster, with eight ports
 *
 * USB 2.0, chapter 11. Devices of any speed up to its own sit on it, other hubs too, five deep at
 * most (what a route string has room for). Ports have power switches of their own. There is one
 * transaction translator, which does nothing that software could see.
 *
 * Threads: machine lock held. Guest memory: not touched.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/usb/usb.h"

#define HUB_PORTS    8u
#define CHANGE_IN    0x81u /* which ports have changed, a bit each from 1 on */

/* Of a port's status, 11.24.2.7; its changes are the first five. */
#define CONNECTED    0x0001u
#define ENABLED      0x0002u
#define SUSPENDED    0x0004u
#define OVER_CURRENT 0x0008u
#define RESET        0x0010u
#define POWER        0x0100u
#define LOW_SPEED    0x0200u
#define HIGH_SPEED   0x0400u
#define OF_DEVICE    (CONNECTED | ENABLED | SUSPENDED | LOW_SPEED | HIGH_SPEED)
#define ALL_STATUS   (OF_DEVICE | POWER)
#define ALL_CHANGES  (CONNECTED | ENABLED | SUSPENDED | OVER_CURRENT | RESET)

enum hub_request {
    GET_STATUS = 0,
    CLEAR_FEATURE = 1,
    SET_FEATURE = 3,
    GET_DESCRIPTOR = 6,
    CLEAR_TT_BUFFER = 8,
    RESET_TT = 9,
    STOP_TT = 11,
};
#define FROM_HUB  0xa000u /* with the request: its type */
#define TO_HUB    0x2000u
#define FROM_PORT 0xa300u
#define TO_PORT   0x2300u

enum port_feature {
    PORT_ENABLE = 1,
    PORT_SUSPEND = 2,
    PORT_RESET = 4,
    PORT_POWER = 8,
    C_PORT_CONNECTION = 16,
    C_PORT_RESET = 20,
    PORT_INDICATOR = 22,
};

struct hub {
    struct usb_device usb;

    /* Configuration. */
    struct usb_bus bus;
    struct usb_port ports[HUB_PORTS];

    /* Guest-visible state. */
    uint16_t status[HUB_PORTS], changes[HUB_PORTS];
};

static struct hub *hub_of(struct usb_device *usb)
{
    return container_of(usb, struct hub, usb);
}

/* ---- ports ---- */

static uint16_t speed_of(const struct usb_device *usb)
{
    return usb->description->speed == USB_HIGH  ? HIGH_SPEED
           : usb->description->speed == USB_LOW ? LOW_SPEED
                                                : 0;
}

static void change(struct hub *hub, unsigned n, uint16_t changes)
{
    hub->changes[n] |= changes;
    usb_wake(&hub->usb, CHANGE_IN);
}

/* A device came or went; without power nobody sees that. */
static void plugged(struct usb_port *port)
{
    struct hub *hub = hub_of(usb_device_of(port->controller));
    unsigned n = port->number - 1u;

    hub->status[n] &= (uint16_t)~OF_DEVICE;
    if (!(hub->status[n] & POWER))
        return;
    if (port->device)
        hub->status[n] |= CONNECTED | speed_of(port->device);
    change(hub, n, CONNECTED);
}

/* On its way to the controller; a device on a suspended port asks for the host, if it may. */
static void woken(struct usb_port *port, uint32_t route, uint8_t endpoint)
{
    struct hub *hub = hub_of(usb_device_of(port->controller));
    unsigned n = port->number - 1u;

    if (hub->status[n] & SUSPENDED && port->device->may_wake) {
        hub->status[n] &= (uint16_t)~SUSPENDED;
        change(hub, n, SUSPENDED);
    }
    if (hub->usb.port)
        hub->usb.port->ops->wake(hub->usb.port, route << 4 | port->number, endpoint);
}

static const struct usb_port_ops port_ops = {
    .connected = plugged,
    .disconnected = plugged,
    .wake = woken,
};

static struct usb_device *below(struct usb_device *usb, unsigned number)
{
    struct hub *hub = hub_of(usb);

    if (!usb->configuration || !number || number > HUB_PORTS)
        return NULL;
    return hub->status[number - 1] & ENABLED ? hub->ports[number - 1].device : NULL;
}

/* ---- requests ---- */

static enum usb_status set_port(struct hub *hub, unsigned n, unsigned feature)
{
    uint16_t *status = &hub->status[n];

    switch (feature) {
    case PORT_POWER:
        if (!(*status & POWER)) {
            *status |= POWER;
            if (hub->ports[n].device)
                plugged(&hub->ports[n]);
        }
        return USB_DONE;
    case PORT_RESET:
        if (*status & CONNECTED) {
            usb_reset(hub->ports[n].device);
            *status = (uint16_t)((*status & ~SUSPENDED) | ENABLED);
            change(hub, n, RESET);
        }
        return USB_DONE;
    case PORT_SUSPEND:
        if (*status & ENABLED) {
            *status |= SUSPENDED;
            usb_suspended(hub->ports[n].device);
        }
        return USB_DONE;
    case PORT_INDICATOR:
        return USB_DONE;
    default:
        return USB_STALL;
    }
}

static enum usb_status clear_port(struct hub *hub, unsigned n, unsigned feature)
{
    uint16_t *status = &hub->status[n];

    switch (feature) {
    case PORT_POWER:
        *status = 0;
        return USB_DONE;
    case PORT_ENABLE:
        *status &= (uint16_t) ~(ENABLED | SUSPENDED);
        return USB_DONE;
    case PORT_SUSPEND:
        if (*status & SUSPENDED) {
            *status &= (uint16_t)~SUSPENDED;
            change(hub, n, SUSPENDED);
        }
        return USB_DONE;
    case PORT_INDICATOR:
        return USB_DONE;
    default:
        if (feature < C_PORT_CONNECTION || feature > C_PORT_RESET)
            return USB_STALL;
        hub->changes[n] &= (uint16_t) ~(1u << (feature - C_PORT_CONNECTION));
        return USB_DONE;
    }
}

static enum usb_status port_request(struct hub *hub, const struct usb_setup *setup, uint8_t *data,
                                    size_t *out_bytes)
{
    unsigned n = (setup->index & 0xff) - 1u;

    if (n >= HUB_PORTS)
        return USB_STALL;
    switch (setup->request) {
    case GET_STATUS:
        put_le16(data, hub->status[n]);
        put_le16(data + 2, hub->changes[n]);
        *out_bytes = 4;
        return USB_DONE;
    case SET_FEATURE:
        return set_port(hub, n, setup->value);
    default:
        return clear_port(hub, n, setup->value);
    }
}

static size_t put_hub_descriptor(uint8_t *out)
{
    static const uint8_t descriptor[] = {
        11,   0x29, HUB_PORTS, 0x09, 0, /* power and its failures are those of each port */
        1,                              /* 2 ms until it is good */
        0,                              /* mA that it takes */
        0,    0,                        /* nothing is built in */
        0xff, 0xff,
    };

    memcpy(out, descriptor, sizeof(descriptor));
    return sizeof(descriptor);
}

static enum usb_status control(struct usb_device *usb, const struct usb_setup *setup, uint8_t *data,
                               size_t *out_bytes)
{
    switch ((unsigned)setup->type << 8 | setup->request) {
    case FROM_HUB | GET_DESCRIPTOR:
        *out_bytes = put_hub_descriptor(data);
        return USB_DONE;
    case FROM_HUB | GET_STATUS:
        put_le32(data, 0);
        *out_bytes = 4;
        return USB_DONE;
    case TO_HUB | CLEAR_FEATURE:
    case TO_HUB | SET_FEATURE:
        return setup->value < 2 ? USB_DONE : USB_STALL; /* local power, over current: never */
    case FROM_PORT | GET_STATUS:
    case TO_PORT | CLEAR_FEATURE:
    case TO_PORT | SET_FEATURE:
        return port_request(hub_of(usb), setup, data, out_bytes);
    case TO_PORT | CLEAR_TT_BUFFER:
    case TO_PORT | RESET_TT:
    case TO_PORT | STOP_TT:
        return USB_DONE;
    default:
        return USB_STALL;
    }
}

/* Ports that have changed, a bit each from 1 on. */
static uint16_t changed_ports(const struct hub *hub)
{
    uint16_t changed = 0;

    for (unsigned n = 0; n < HUB_PORTS; n++)
        changed = (uint16_t)(changed | (hub->changes[n] ? 2u << n : 0));
    return changed;
}

static void suspended(struct usb_device *usb)
{
    if (changed_ports(hub_of(usb)))
        usb_wake(usb, CHANGE_IN);
}

static enum usb_status transfer(struct usb_device *usb, uint8_t endpoint, struct usb_data *data)
{
    uint16_t changed = changed_ports(hub_of(usb));
    uint8_t message[2];

    (void)endpoint; /* there is one */
    if (!changed)
        return USB_NAK;
    put_le16(message, changed);
    return usb_send(data, message, sizeof(message));
}

static void reset_ports(struct usb_device *usb)
{
    struct hub *hub = hub_of(usb);

    memset(hub->status, 0, sizeof(hub->status));
    memset(hub->changes, 0, sizeof(hub->changes));
}

static const struct usb_device_ops ops = {
    .reset = reset_ports,
    .control = control,
    .transfer = transfer,
    .suspended = suspended,
    .below = below,
};

#define HUB_USB(of_speed, protocol, period)                                                        \
    .speed = (of_speed), .vendor = USB_VENDOR_HUB, .product = USB_PRODUCT_HUB, .release = 0x0100,  \
    .maker = "Trapeze", .name = "USB hub", .device_class = 9, .device_protocol = (protocol),       \
    .class = 9, .can_wake = true, .has_power = true, .endpoint_count = 1,                          \
    .endpoints = {{.address = CHANGE_IN, .type = 3, .max_packet = 2, .interval = (period)}}

static const struct usb_description hub_on_usb1 = {HUB_USB(USB_FULL, 0, 255)};
static const struct usb_description hub_description = {
    HUB_USB(USB_HIGH, 1 /* transaction translator */, 12), .slower = &hub_on_usb1};

/* ---- lifecycle and state ---- */

struct usb_bus *usb_hub_bus(struct device *dev)
{
    return &hub_of(usb_device_of(dev))->bus;
}

static int attach(struct device *dev, struct error *err)
{
    struct hub *hub = hub_of(usb_device_of(dev));

    for (unsigned n = 0; n < HUB_PORTS; n++)
        hub->ports[n] =
            (struct usb_port){.controller = dev, .ops = &port_ops, .number = (uint8_t)(n + 1)};
    hub->bus = (struct usb_bus){hub->ports, HUB_PORTS};
    hub->usb.fastest = &hub_description;
    hub->usb.ops = &ops;
    hub->usb.serial = dev->id;
    return usb_attach(&hub->usb, err);
}

static void detach(struct device *dev)
{
    struct hub *hub = hub_of(usb_device_of(dev));

    for (unsigned n = 0; n < HUB_PORTS; n++)
        if (hub->ports[n].device)
            hub->ports[n].device->port = NULL;
    usb_detach(&hub->usb);
}

static void reset(struct device *dev)
{
    usb_power_on(usb_device_of(dev));
    reset_ports(usb_device_of(dev));
}

/* The same devices have to be there, and no port be enabled without one. */
static int after_load(void *object, struct error *err)
{
    const struct hub *hub = object;

    for (unsigned n = 0; n < HUB_PORTS; n++) {
        const struct usb_device *usb = hub->ports[n].device;
        uint16_t status = hub->status[n];
        bool is_seen = usb && status & POWER;

        if (status & ~ALL_STATUS || hub->changes[n] & ~ALL_CHANGES ||
            !(status & CONNECTED) != !is_seen ||
            (is_seen ? (status & (LOW_SPEED | HIGH_SPEED)) != speed_of(usb) : status & OF_DEVICE) ||
            (status & SUSPENDED && !(status & ENABLED)))
            return error_set(err, EINVAL, "%s: it cannot be as it is saved", hub->usb.dev.id);
    }
    return 0;
}

static const struct property properties[] = {
    USB_PROPERTIES(struct hub, usb),
    PROPERTY_END,
};

static const struct state_group groups[] = {
    USB_REQUEST_GROUP,
    {.name = NULL},
};

static const struct state_field state[] = {
    USB_STATE(struct hub, usb),
    STATE_U16S(struct hub, status),
    STATE_U16S(struct hub, changes),
    STATE_END,
};

const struct device_class usb_hub_class = {
    .name = "usb-hub",
    .summary = "USB hub with eight ports",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct hub),
    .properties = properties,
    .attach = attach,
    .reset = reset,
    .detach = detach,
    .state =
        {.version = 1, .oldest = 1, .fields = state, .groups = groups, .after_load = after_load},
};
