/*
 * device.c - what all USB devices have in common: standard requests, data, ports
 *
 * USB 2.0, chapter 9; USB 3.2, 9.4. The xHCI controller gives addresses itself; what others tell a
 * device is its address from the status stage on.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/devices.h"
#include "devices/usb/ehci.h"
#include "devices/usb/uhci.h"
#include "devices/usb/usb.h"
#include "devices/usb/xhci.h"
#include "trapeze/machine.h"

enum request_kind { KIND_DEVICE = 0x00, KIND_INTERFACE = 0x01, KIND_ENDPOINT = 0x02 };
#define KIND_MASK 0x7fu /* standard, class or vendor, and to whom */

enum standard_request {
    GET_STATUS = 0,
    CLEAR_FEATURE = 1,
    SET_FEATURE = 3,
    SET_ADDRESS = 5,
    GET_DESCRIPTOR = 6,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION = 9,
    GET_INTERFACE = 10,
    SET_INTERFACE = 11,
    SET_SEL = 48,
    SET_ISOCH_DELAY = 49,
};

enum feature {
    FEATURE_HALT = 0,
    FEATURE_WAKEUP = 1,
    FEATURE_U1 = 48, /* these three: of Super Speed, about saving power */
    FEATURE_LTM = 50,
};

#define STATUS_POWER  0x01u /* of its own */
#define STATUS_WAKEUP 0x02u
#define HUBS_MAX      5u /* one behind the other */
#define ADDRESS_MAX   127u

/* ---- data ---- */

typedef void move_fn(uint8_t *host, uint8_t *device, size_t size_bytes);

static void move_in(uint8_t *host, uint8_t *device, size_t size_bytes)
{
    if (device)
        ram_copy(host, device, size_bytes);
    else
        ram_fill(host, 0, size_bytes);
}

static void move_out(uint8_t *host, uint8_t *device, size_t size_bytes)
{
    if (device)
        ram_copy(device, host, size_bytes);
}

static size_t move(struct usb_data *data, uint8_t *device, size_t size_bytes, move_fn *how)
{
    uint64_t skip = data->done_bytes;
    size_t moved = 0;

    for (unsigned n = 0; n < data->piece_count && moved < size_bytes; n++) {
        const struct io_piece *piece = &data->pieces[n];
        size_t part;

        if (skip >= piece->size_bytes) {
            skip -= piece->size_bytes;
            continue;
        }
        part = piece->size_bytes - (size_t)skip;
        part = part < size_bytes - moved ? part : size_bytes - moved;
        how((uint8_t *)piece->data + skip, device ? device + moved : NULL, part);
        moved += part;
        skip = 0;
    }
    data->done_bytes += moved;
    return moved;
}

size_t usb_put(struct usb_data *to, const void *data, size_t size_bytes)
{
    return move(to, (uint8_t *)data, size_bytes, move_in);
}

size_t usb_take(struct usb_data *from, void *data, size_t size_bytes)
{
    return move(from, data, size_bytes, move_out);
}

enum usb_status usb_send(struct usb_data *to, const void *message, size_t size_bytes)
{
    if (to->size_bytes < size_bytes)
        return USB_BABBLE;
    usb_put(to, message, size_bytes);
    return USB_DONE;
}

/* ---- standard requests ---- */

static uint16_t *stalled_of(struct usb_device *usb, uint16_t address)
{
    return &usb->stalled[address & USB_IN ? 1 : 0];
}

static bool has_endpoint(const struct usb_device *usb, uint16_t address)
{
    for (unsigned n = 0; n < usb->description->endpoint_count; n++)
        if (usb->description->endpoints[n].address == address)
            return true;
    return (address & 0xff7f) == 0;
}

static enum usb_status get_status(struct usb_device *usb, const struct usb_setup *setup,
                                  uint8_t *data)
{
    data[1] = 0;
    switch (setup->type & KIND_MASK) {
    case KIND_DEVICE:
        data[0] = (uint8_t)((usb->description->has_power ? STATUS_POWER : 0) |
                            (usb->may_wake ? STATUS_WAKEUP : 0));
        return USB_DONE;
    case KIND_INTERFACE:
        data[0] = 0;
        return USB_DONE;
    default:
        if (!has_endpoint(usb, setup->index))
            return USB_STALL;
        data[0] = *stalled_of(usb, setup->index) >> (setup->index & 0xf) & 1;
        return USB_DONE;
    }
}

static enum usb_status set_halt(struct usb_device *usb, uint16_t address, bool on)
{
    uint16_t bit = (uint16_t)(1u << (address & 0xf)), *stalled = stalled_of(usb, address);

    if (!has_endpoint(usb, address))
        return USB_STALL;
    if (address & 0xf) /* endpoint 0 takes the next request in any case */
        *stalled = (uint16_t)(on ? *stalled | bit : *stalled & ~bit);
    return USB_DONE;
}

static enum usb_status set_feature(struct usb_device *usb, const struct usb_setup *setup, bool on)
{
    unsigned kind = setup->type & KIND_MASK;

    if (kind == KIND_ENDPOINT)
        return setup->value == FEATURE_HALT ? set_halt(usb, setup->index, on) : USB_STALL;
    if (kind == KIND_DEVICE && setup->value == FEATURE_WAKEUP && usb->description->can_wake) {
        usb->may_wake = on;
        return USB_DONE;
    }
    if (usb->description->speed != USB_SUPER)
        return USB_STALL;
    return kind == KIND_INTERFACE
               ? (setup->value == 0 ? USB_DONE : USB_STALL)
               : (setup->value >= FEATURE_U1 && setup->value <= FEATURE_LTM ? USB_DONE : USB_STALL);
}

static enum usb_status set_configuration(struct usb_device *usb, uint16_t value)
{
    if (value > 1)
        return USB_STALL;
    usb->configuration = (uint8_t)value;
    usb->stalled[0] = usb->stalled[1] = 0;
    usb->ops->reset(usb);
    return USB_DONE;
}

static enum usb_status standard(struct usb_device *usb, const struct usb_setup *setup,
                                uint8_t *data, size_t *out_bytes)
{
    bool is_in = setup->type & USB_IN;

    switch (setup->request | (is_in ? 0x100 : 0)) {
    case GET_STATUS | 0x100:
        *out_bytes = 2;
        return get_status(usb, setup, data);
    case CLEAR_FEATURE:
    case SET_FEATURE:
        return set_feature(usb, setup, setup->request == SET_FEATURE);
    case GET_DESCRIPTOR | 0x100:
        *out_bytes =
            (setup->type & KIND_MASK) == KIND_DEVICE
                ? usb_descriptor(usb, (uint8_t)(setup->value >> 8), (uint8_t)setup->value, data)
                : 0;
        return *out_bytes ? USB_DONE : usb->ops->control(usb, setup, data, out_bytes);
    case GET_CONFIGURATION | 0x100:
        *out_bytes = 1;
        data[0] = usb->configuration;
        return USB_DONE;
    case SET_CONFIGURATION:
        return set_configuration(usb, setup->value);
    case GET_INTERFACE | 0x100:
        *out_bytes = 1;
        data[0] = 0;
        return setup->index || !usb->configuration ? USB_STALL : USB_DONE;
    case SET_INTERFACE:
        return setup->index || setup->value || !usb->configuration ? USB_STALL : USB_DONE;
    case SET_ADDRESS:
        if (setup->value > ADDRESS_MAX)
            return USB_STALL;
        usb->address = (uint8_t)setup->value;
        return USB_DONE;
    case SET_SEL:
    case SET_ISOCH_DELAY:
        return usb->description->speed == USB_SUPER ? USB_DONE : USB_STALL;
    default:
        return USB_STALL;
    }
}

/* ---- for controllers ---- */

enum usb_status usb_control(struct usb_device *usb, const struct usb_setup *setup,
                            struct usb_data *data)
{
    uint8_t buffer[USB_CONTROL_BYTES];
    bool is_in = setup->type & USB_IN, is_standard = !(setup->type & 0x60);
    bool is_ours = is_standard && (!usb->ops->takes_standard || setup->request == SET_ADDRESS);
    enum usb_status status;
    size_t size = 0;

    if (!is_in &&
        (setup->length > sizeof(buffer) || usb_take(data, buffer, setup->length) != setup->length))
        return USB_STALL;
    status = is_ours ? standard(usb, setup, buffer, &size)
                     : usb->ops->control(usb, setup, buffer, &size);
    if (status != USB_DONE || !is_in)
        return status;
    return usb_send(data, buffer, size < setup->length ? size : setup->length);
}

enum usb_status usb_transfer(struct usb_device *usb, uint8_t endpoint, struct usb_data *data)
{
    uint16_t *stalled = stalled_of(usb, endpoint);
    enum usb_status status;

    if (!usb->configuration || !has_endpoint(usb, endpoint) || *stalled >> (endpoint & 0xf) & 1)
        return USB_STALL;
    status = usb->ops->transfer(usb, endpoint, data);
    if (status == USB_STALL)
        *stalled = (uint16_t)(*stalled | 1u << (endpoint & 0xf));
    return status;
}

void usb_stopped(struct usb_device *usb, uint8_t endpoint)
{
    if (usb->ops->stopped)
        usb->ops->stopped(usb, endpoint);
}

void usb_suspended(struct usb_device *usb)
{
    if (usb->ops->suspended)
        usb->ops->suspended(usb);
}

void usb_all_stopped(struct usb_device *usb)
{
    const struct usb_bus *bus = usb_bus_of(&usb->dev);

    usb_stopped(usb, 0);
    for (unsigned n = 0; n < usb->description->endpoint_count; n++)
        usb_stopped(usb, usb->description->endpoints[n].address);
    for (unsigned n = 0; bus && n < bus->count; n++)
        if (bus->ports[n].device)
            usb_all_stopped(bus->ports[n].device);
}

void usb_power_on(struct usb_device *usb)
{
    usb->configuration = 0;
    usb->may_wake = false;
    usb->stalled[0] = usb->stalled[1] = 0;
    usb->address = 0;
    usb->asked_ns = 0;
    usb->request.stage = 0;
}

void usb_reset(struct usb_device *usb)
{
    usb_power_on(usb);
    usb->ops->reset(usb);
}

/* ---- ports ---- */

/* Whose ports are found by their class. */
static const struct {
    const struct device_class *class;
    struct usb_bus *(*bus)(struct device *dev);
} controllers[] = {
    {&xhci_class, xhci_bus},
    {&ehci_class, ehci_bus},
    {&uhci_class, uhci_bus},
};
#define CONTROLLERS (sizeof(controllers) / sizeof(controllers[0]))

static unsigned kind_of(const struct device *dev)
{
    unsigned kind = 0;

    while (kind < CONTROLLERS && controllers[kind].class != dev->class)
        kind++;
    return kind;
}

struct usb_bus *usb_bus_of(struct device *controller)
{
    unsigned kind = kind_of(controller);

    if (controller->class == &usb_hub_class)
        return usb_hub_bus(controller);
    return kind < CONTROLLERS ? controllers[kind].bus(controller) : NULL;
}

struct device *usb_find_controller(struct machine *machine)
{
    struct device *dev = machine_first_device(machine);

    while (dev && kind_of(dev) == CONTROLLERS)
        dev = dev->next;
    return dev;
}

struct usb_device *usb_follow(struct usb_device *usb, uint32_t route)
{
    for (; usb && route; route >>= 4)
        usb = usb->ops->below ? usb->ops->below(usb, route & 0xf) : NULL;
    return usb;
}

/* How many hubs lead to its ports, itself one of them. */
static unsigned depth_of(const struct device *dev)
{
    unsigned depth = 0;

    for (; dev && dev->class == &usb_hub_class; depth++) {
        const struct usb_port *port = usb_device_of((struct device *)(uintptr_t)dev)->port;

        dev = port ? port->controller : NULL;
    }
    return dev ? depth : HUBS_MAX + 1; /* a hub that is nowhere leads to nobody */
}

static struct usb_port *find_port_of(const struct usb_device *usb, struct device *controller,
                                     enum usb_speed speed)
{
    const struct usb_bus *bus = usb_bus_of(controller);

    if (depth_of(controller) + (usb->ops->below != NULL) > HUBS_MAX)
        return NULL;
    for (unsigned n = 0; bus && controller->attached && n < bus->count; n++) {
        struct usb_port *port = &bus->ports[n];

        if (port->speeds >> speed & 1 && !port->device && !(port->twin && port->twin->device) &&
            (!usb->place || usb->place == port->number))
            return port;
    }
    return NULL;
}

/* The first that is free, among those on which the device is as fast as can be. */
static struct usb_port *find_port(const struct usb_device *usb)
{
    struct usb_port *port = NULL;

    for (const struct usb_description *d = usb->fastest; d && !port; d = d->slower) {
        struct device *dev = machine_first_device(usb->dev.machine);

        for (; dev && !port; dev = dev->next)
            if (!*usb->bus || !strcmp(usb->bus, dev->id))
                port = find_port_of(usb, dev, d->speed);
    }
    return port;
}

/* The highest speed that the device and its port have in common; what is behind a hub follows. */
static void choose_speed(struct usb_device *usb)
{
    const struct usb_bus *bus = usb_bus_of(&usb->dev);

    usb->description = usb->fastest;
    while (!(usb->port->speeds >> usb->description->speed & 1))
        usb->description = usb->description->slower;
    for (unsigned n = 0; bus && n < bus->count; n++) {
        bus->ports[n].speeds = usb->description->speed == USB_HIGH ? USB_SPEEDS_2 : USB_SPEEDS_1;
        if (bus->ports[n].device)
            choose_speed(bus->ports[n].device);
    }
}

/* Is there a port, free or not, that it can be plugged into? */
static bool has_speed(const struct usb_device *usb)
{
    for (struct device *dev = machine_first_device(usb->dev.machine); dev; dev = dev->next) {
        const struct usb_bus *bus = usb_bus_of(dev);

        for (const struct usb_description *d = usb->fastest; d; d = d->slower)
            for (unsigned n = 0; bus && n < bus->count; n++)
                if (bus->ports[n].speeds >> d->speed & 1)
                    return true;
    }
    return false;
}

static int no_port(const struct usb_device *usb, struct error *err)
{
    if (!usb_find_controller(usb->dev.machine))
        error_set(err, ENODEV, "there is no USB controller; --device xhci is one");
    else if (!has_speed(usb))
        error_set(err, ENODEV, "no USB port is fast enough for it; --usb xhci has such");
    else if (usb->place)
        error_set(err, EBUSY, "port %u is taken, or does not exist", usb->place);
    else
        error_set(err, ENOSPC,
                  "all USB ports for a device of its speed are taken; --device usb-hub has more");
    return -ENODEV;
}

void usb_move(struct usb_device *usb, struct usb_port *to)
{
    usb->port->device = NULL;
    usb->port = to;
    to->device = usb;
    choose_speed(usb);
}

int usb_attach(struct usb_device *usb, struct error *err)
{
    struct usb_port *port = find_port(usb);

    usb->description = usb->fastest;
    if (!port)
        return no_port(usb, err);
    usb->port = port;
    port->device = usb;
    choose_speed(usb);
    usb->dev.class->reset(&usb->dev);
    port->ops->connected(port);
    return 0;
}

void usb_detach(struct usb_device *usb)
{
    struct usb_port *port = usb->port;

    if (!port)
        return;
    usb->port = NULL;
    port->device = NULL;
    port->ops->disconnected(port);
    if (port->twin && port->twin->ops->twin_left)
        port->twin->ops->twin_left(port->twin);
}

void usb_wake(struct usb_device *usb, uint8_t endpoint)
{
    if (usb->port)
        usb->port->ops->wake(usb->port, 0, endpoint);
}

const struct state_field usb_device_state[] = {
    STATE_U8_MAX(struct usb_device, configuration, 1),
    STATE_BOOL(struct usb_device, may_wake),
    STATE_U16S(struct usb_device, stalled),
    STATE_U8_MAX(struct usb_device, address, ADDRESS_MAX),
    STATE_END,
};
