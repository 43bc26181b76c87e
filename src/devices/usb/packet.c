/*
 * packet.c - devices as controllers see them that deal in packets, UHCI and EHCI
 *
 * USB 2.0, 8.5.3: a control transfer is a SETUP packet, packets of data, and an empty one in the
 * other direction. A request for data is answered when it comes in, or as soon as the device can,
 * all others with their status stage, so that a device gets its address after it has answered to
 * the old one.
 *
 * Packets do not get lost, so data toggles are not compared.
 */
#include "base/bytes.h"
#include "devices/usb/usb.h"
#include "trapeze/machine.h"

enum usb_stage {
    STAGE_NONE,
    STAGE_DATA_IN,  /* which the host may end at any time by its OUT */
    STAGE_DATA_OUT, /* size bytes of data */
    STAGE_STALLED,  /* until the next SETUP */
    STAGE_ASKED,    /* for data, and the device has not answered yet */
};
#define SETUP_BYTES       8u
#define ASKED_AT_LEAST_NS NANOSECONDS_PER_SECOND

static enum usb_status run_request(struct usb_device *usb)
{
    struct usb_request *r = &usb->request;
    struct usb_setup setup = {r->setup[0], r->setup[1], get_le16(r->setup + 2),
                              get_le16(r->setup + 4), get_le16(r->setup + 6)};
    bool is_in = setup.type & USB_IN;
    struct io_piece piece = {r->data, is_in ? sizeof(r->data) : r->size};
    struct usb_data data = {&piece, 1, piece.size_bytes, 0};
    enum usb_status status = usb_control(usb, &setup, &data);

    if (is_in)
        r->size = (uint16_t)data.done_bytes;
    return status;
}

static enum usb_status ask(struct usb_device *usb)
{
    enum usb_status status = run_request(usb);

    usb->request.stage = status == USB_DONE  ? STAGE_DATA_IN
                         : status == USB_NAK ? STAGE_ASKED
                                             : STAGE_STALLED;
    return status;
}

static enum usb_status take_setup(struct usb_device *usb, struct usb_data *data)
{
    struct usb_request *r = &usb->request;
    unsigned length;

    if (r->stage == STAGE_ASKED || r->stage == STAGE_DATA_OUT)
        usb_stopped(usb, 0);
    r->stage = STAGE_STALLED;
    r->size = r->done = 0;
    if (data->size_bytes != SETUP_BYTES || usb_take(data, r->setup, SETUP_BYTES) != SETUP_BYTES)
        return USB_STALL;
    length = get_le16(r->setup + 6);
    if (r->setup[0] & USB_IN) {
        ask(usb);
    } else if (length <= sizeof(r->data)) {
        r->size = (uint16_t)length;
        r->stage = STAGE_DATA_OUT;
    }
    return USB_DONE; /* a device always accepts it */
}

/* Data for the host, or the status of what it has sent. */
static enum usb_status give(struct usb_device *usb, struct usb_data *data)
{
    struct usb_request *r = &usb->request;
    enum usb_status status = r->stage == STAGE_ASKED ? ask(usb) : USB_DONE;
    bool is_whole = r->done >= r->size;

    if (status != USB_DONE)
        return status;
    switch (r->stage) {
    case STAGE_DATA_IN:
        if (!is_whole)
            r->done = (uint16_t)(r->done + usb_put(data, r->data + r->done, r->size - r->done));
        return USB_DONE;
    case STAGE_DATA_OUT:
        status = is_whole ? run_request(usb) : USB_STALL;
        if (status != USB_NAK)
            r->stage = status == USB_DONE ? STAGE_NONE : STAGE_STALLED;
        return status;
    default:
        return USB_STALL;
    }
}

static enum usb_status take(struct usb_device *usb, struct usb_data *data)
{
    struct usb_request *r = &usb->request;

    if (r->stage == STAGE_DATA_IN) {
        r->stage = STAGE_NONE;
        return USB_DONE;
    }
    if (r->stage != STAGE_DATA_OUT || r->done + data->size_bytes > r->size)
        r->stage = STAGE_STALLED;
    else
        r->done = (uint16_t)(r->done + usb_take(data, r->data + r->done, r->size - r->done));
    return r->stage == STAGE_STALLED ? USB_STALL : USB_DONE;
}

enum usb_status usb_packet(struct usb_device *usb, enum usb_pid pid, uint8_t number,
                           struct usb_data *data)
{
    usb->asked_ns = device_now_ns(&usb->dev);
    if (number)
        return pid == USB_PID_SETUP
                   ? USB_STALL
                   : usb_transfer(usb, number | (pid == USB_PID_IN ? USB_IN : 0), data);
    return pid == USB_PID_SETUP ? take_setup(usb, data)
           : pid == USB_PID_IN  ? give(usb, data)
                                : take(usb, data);
}

unsigned usb_packet_bytes(const struct usb_device *usb, uint8_t endpoint)
{
    const struct usb_description *d = usb->description;

    if (!(endpoint & 0xf))
        return usb_control_packet_bytes(d);
    for (unsigned n = 0; n < d->endpoint_count; n++)
        if (d->endpoints[n].address == endpoint)
            return d->endpoints[n].max_packet;
    return 0;
}

bool usb_is_asked(const struct usb_device *usb)
{
    return !usb->asked_ns ||
           device_now_ns((struct device *)(uintptr_t)&usb->dev) - usb->asked_ns < ASKED_AT_LEAST_NS;
}

/* The first in the order of ports, should several have the same. */
struct usb_device *usb_by_address(struct usb_device *usb, uint8_t address)
{
    const struct usb_bus *bus = usb_bus_of(&usb->dev);
    struct usb_device *found = usb->address == address ? usb : NULL;

    for (unsigned n = 0; bus && !found && n < bus->count; n++) {
        struct usb_device *next = usb->ops->below(usb, n + 1);

        found = next ? usb_by_address(next, address) : NULL;
    }
    return found;
}

bool usb_has_request(const void *object)
{
    return ((const struct usb_device *)object)->request.stage != STAGE_NONE;
}

static const struct state_field request_fields[] = {
    STATE_U8_MAX(struct usb_request, stage, STAGE_ASKED),
    STATE_BYTES(struct usb_request, setup),
    STATE_U16_MAX(struct usb_request, size, USB_CONTROL_BYTES),
    STATE_U16_MAX(struct usb_request, done, USB_CONTROL_BYTES),
    STATE_BYTES(struct usb_request, data),
    STATE_END,
};

const struct state_field usb_request_state[] = {
    STATE_STRUCT(struct usb_device, request, request_fields),
    STATE_END,
};
