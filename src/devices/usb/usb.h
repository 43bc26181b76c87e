/*
 * usb.h - what a USB device is, and what it may call
 *
 * A device begins with struct usb_device and has a table of what it says about itself
 * (usb_description) and of what it does (usb_device_ops). It sits on a port of a controller.
 * Standard requests are answered once for all of them, in device.c.
 *
 * Theory of operation. A controller that has a transfer for an endpoint calls usb_transfer(). A
 * device that has nothing to send, or no room, answers USB_NAK: the transfer stays in the guest's
 * memory, and when things have changed the device calls usb_wake() and is asked again. So a
 * transfer happens at once or not yet; none is ever under way, which keeps reset, unplugging and
 * saved states simple. Requests on endpoint 0 are no exception.
 *
 * Controllers that know only packets (UHCI, EHCI) call usb_packet(), which puts control transfers
 * together; what is on the other endpoints is a stream, of which a packet is a small transfer.
 *
 * USB 2.0, chapters 8 and 9; USB 3.2, chapter 9.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_USB_USB_H
#define DEVICES_USB_USB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/device.h"
#include "trapeze/io_piece.h"

#define USB_CONTROL_BYTES   4096u /* data of a control transfer that devices take and give */
#define USB_MAX_ENDPOINTS   30u
#define USB_IN              0x80u /* of endpoint addresses and request types */

/*
 * Who has made a device can only be said by numbers that somebody owns. These are those of the same
 * devices of QEMU, which lists of USB ids know as virtual ones; the names are ours.
 */
#define USB_VENDOR_HID      0x0627u
#define USB_PRODUCT_HID     0x0001u
#define USB_VENDOR_STORAGE  0x46f4u
#define USB_PRODUCT_STORAGE 0x0001u
#define USB_VENDOR_HUB      0x0409u
#define USB_PRODUCT_HUB     0x55aau

enum usb_speed { USB_FULL = 1, USB_LOW = 2, USB_HIGH = 3, USB_SUPER = 4 };
/* Of ports: a bit for each speed. */
#define USB_SPEEDS_1 (1u << USB_FULL | 1u << USB_LOW)
#define USB_SPEEDS_2 (USB_SPEEDS_1 | 1u << USB_HIGH)
#define USB_SPEEDS_3 (1u << USB_SUPER)

enum usb_pid { USB_PID_OUT = 0xe1, USB_PID_IN = 0x69, USB_PID_SETUP = 0x2d };

enum usb_status {
    USB_DONE,
    USB_NAK,    /* not now; usb_wake() follows */
    USB_STALL,  /* cannot be done */
    USB_BABBLE, /* there is more than the host has room for */
};

/* ---- transfers ---- */

struct usb_setup {
    uint8_t type, request;
    uint16_t value, index, length;
};

/* The host's memory. done_bytes: of it has been written or read. */
struct usb_data {
    const struct io_piece *pieces;
    unsigned piece_count;
    uint64_t size_bytes, done_bytes;
};

/* Move the next bytes; how many there were room for, or were left. data NULL: zeros, or nowhere. */
size_t usb_put(struct usb_data *to, const void *data, size_t size_bytes);
size_t usb_take(struct usb_data *from, void *data, size_t size_bytes);
/* A whole message, which is not split. */
enum usb_status usb_send(struct usb_data *to, const void *message, size_t size_bytes);

/* ---- what a device says about itself ---- */

struct usb_endpoint_description {
    uint8_t address, type; /* type: of bmAttributes; 2 bulk, 3 interrupt */
    uint16_t max_packet;
    uint8_t interval, burst;
};

struct usb_description {
    enum usb_speed speed;
    uint16_t vendor, product, release;
    const char *maker, *name;              /* strings 1 and 2; the third is the serial number */
    uint8_t device_class, device_protocol; /* 0: as its interface's */
    uint8_t class, subclass, protocol;     /* of its interface */
    const uint8_t *extra;                  /* class-specific, behind the interface's */
    uint8_t extra_bytes;
    bool can_wake;                        /* the host, from suspend */
    bool has_power;                       /* of its own */
    uint8_t power;                        /* of the bus; 2 mA each; Super Speed: 8 mA */
    uint8_t control_packet;               /* of endpoint 0; 0: what is usual at its speed */
    const struct usb_description *slower; /* on a port that is slower; NULL: it cannot be there */
    uint8_t endpoint_count;
    struct usb_endpoint_description endpoints[USB_MAX_ENDPOINTS];
};

struct usb_device;

struct usb_device_ops {
    /* The bus is reset, or a configuration was chosen: as after power-on, but what it shows. */
    void (*reset)(struct usb_device *usb);
    /*
     * A request that is not standard, or any but SET_ADDRESS. data: usb_setup.length bytes from the
     * host (up to USB_CONTROL_BYTES), or room for USB_CONTROL_BYTES; *out_bytes then says how many
     * there are.
     */
    bool takes_standard;
    enum usb_status (*control)(struct usb_device *usb, const struct usb_setup *setup, uint8_t *data,
                               size_t *out_bytes);
    enum usb_status (*transfer)(struct usb_device *usb, uint8_t endpoint, struct usb_data *data);
    /* The host takes back what waits, also on endpoint 0. May be NULL. */
    void (*stopped)(struct usb_device *usb, uint8_t endpoint);
    /* The port is suspended now; what has come before is worth waking the host for. May be NULL. */
    void (*suspended)(struct usb_device *usb);
    /* Of a hub: the device on a port that is enabled, or NULL. */
    struct usb_device *(*below)(struct usb_device *usb, unsigned number);
};

/* ---- ports ---- */

struct usb_port;

struct usb_port_ops {
    void (*connected)(struct usb_port *port);
    void (*disconnected)(struct usb_port *port); /* port->device is NULL */
    /* route: ports of hubs behind this one that lead to the device, as of usb_follow(). */
    void (*wake)(struct usb_port *port, uint32_t route, uint8_t endpoint);
    /* The device that was on the twin has been unplugged. NULL: it has no twin. */
    void (*twin_left)(struct usb_port *port);
};

struct usb_port {
    struct device *controller; /* or hub */
    const struct usb_port_ops *ops;
    struct usb_device *device; /* NULL: none */
    struct usb_port *twin;     /* the same socket, of another controller; NULL: there is none */
    uint8_t number;            /* among those of its kind, from 1 on */
    uint8_t speeds;            /* that it has */
};

static inline bool usb_is_super(const struct usb_port *port)
{
    return port->speeds == USB_SPEEDS_3;
}

/* Where firmware that drives all controllers finds what is on it. */
static inline const struct usb_port *usb_fastest_port(const struct usb_port *port)
{
    return port->twin && port->twin->speeds > port->speeds ? port->twin : port;
}

/* The ports of a controller, or a hub, that devices can be plugged into. */
struct usb_bus {
    struct usb_port *ports;
    unsigned count;
};

/* NULL: it has no ports. */
struct usb_bus *usb_bus_of(struct device *controller);
/* The first controller of the machine; NULL: there is none. */
struct device *usb_find_controller(struct machine *machine);

/* ---- a device ---- */

/* A control transfer of which some packets are still to come. */
struct usb_request {
    uint8_t stage;       /* enum usb_stage, of packet.c */
    uint8_t setup[8];    /* its first packet */
    uint16_t size, done; /* bytes of data; of them, moved */
    uint8_t data[USB_CONTROL_BYTES];
};

struct usb_device {
    struct device dev;

    /* Configuration. */
    char *bus;     /* property: id of the controller or hub; "": the first that has a free port */
    uint8_t place; /* property: number of the port; 0: the first that is free */
    const struct usb_description *fastest;
    const struct usb_device_ops *ops;
    const char *serial;

    /* Where it is; controllers decide, and keep it in their state. */
    struct usb_port *port;
    const struct usb_description *description; /* of the speed that it has there */
    uint64_t asked_ns; /* when it last had a packet; 0: none yet; not state */

    /* Guest-visible state. */
    uint8_t configuration; /* 0: none was chosen */
    bool may_wake;         /* the host, from suspend */
    uint16_t stalled[2];   /* endpoints, a bit each: out, in */
    uint8_t address;       /* 0: none was given; xHCI has its own */
    struct usb_request request;
};

static inline struct usb_device *usb_device_of(struct device *dev)
{
    return container_of(dev, struct usb_device, dev);
}

#define USB_PROPERTIES(st, f)                                                                      \
    {.name = "bus",                                                                                \
     .type = PROPERTY_TYPE_STRING,                                                                 \
     .offset = offsetof(st, f.bus),                                                                \
     .initial_text = "",                                                                           \
     .help = "id of the controller or hub (default: the first with a free port)"},                 \
    {                                                                                              \
        .name = "port", .type = PROPERTY_TYPE_U8, .offset = offsetof(st, f.place),                 \
        .help = "its port, from 1 on among those of its speed; 0: the first that is free"          \
    }

extern const struct state_field usb_device_state[];
#define USB_STATE(st, f) STATE_STRUCT(st, f, usb_device_state)
/* A group of all of them. */
extern const struct state_field usb_request_state[];
bool usb_has_request(const void *object);
#define USB_REQUEST_GROUP                                                                          \
    {                                                                                              \
        .name = "request", .needed = usb_has_request, .fields = usb_request_state                  \
    }

/* fastest, ops and serial are set. Connect it; before or while the machine runs. */
int usb_attach(struct usb_device *usb, struct error *err);
/* Also after a usb_attach that failed or never was. */
void usb_detach(struct usb_device *usb);
/* For the class's reset: power-on. */
void usb_power_on(struct usb_device *usb);
/* There is something new for an endpoint that was not ready. */
void usb_wake(struct usb_device *usb, uint8_t endpoint);

/* ---- for controllers ---- */

void usb_reset(struct usb_device *usb);
enum usb_status usb_control(struct usb_device *usb, const struct usb_setup *setup,
                            struct usb_data *data);
/* endpoint: its address. */
enum usb_status usb_transfer(struct usb_device *usb, uint8_t endpoint, struct usb_data *data);
void usb_stopped(struct usb_device *usb, uint8_t endpoint);
/* Its port, or the whole bus, is suspended. It may wake the host at once. */
void usb_suspended(struct usb_device *usb);
/* All of its endpoints, and of those behind it. */
void usb_all_stopped(struct usb_device *usb);
/* Its socket leads to another controller now. Nobody is told. */
void usb_move(struct usb_device *usb, struct usb_port *to);

/*
 * Through hubs: a port in four bits, the one next to usb first (a route string, USB 3.2, 8.9).
 * NULL: there is nobody, or a port on the way is not enabled.
 */
#define USB_ROUTE_MAX 0xfffffu
struct usb_device *usb_follow(struct usb_device *usb, uint32_t route);

/* ---- packet.c ---- */

/* As usb_transfer(), of a controller that deals in packets. */
enum usb_status usb_packet(struct usb_device *usb, enum usb_pid pid, uint8_t number,
                           struct usb_data *data);
/* The largest packet of an endpoint; 0: it has no such. */
unsigned usb_packet_bytes(const struct usb_device *usb, uint8_t endpoint);
/* False: it had packets, but none for some time: its driver has gone without a word. */
bool usb_is_asked(const struct usb_device *usb);
/* Who has that address: usb, one behind it that can be reached, or NULL. */
struct usb_device *usb_by_address(struct usb_device *usb, uint8_t address);

/* ---- hub.c ---- */

struct usb_bus *usb_hub_bus(struct device *dev);

/* ---- descriptors.c ---- */

/* The largest packet of endpoint 0. */
unsigned usb_control_packet_bytes(const struct usb_description *description);
/* Its bytes, USB_CONTROL_BYTES at most; 0: there is none such. */
size_t usb_descriptor(const struct usb_device *usb, uint8_t type, uint8_t index, uint8_t *out);

#endif
