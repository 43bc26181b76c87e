/*
 * transfer.c - transfers of the xHCI controller
 *
 * The specification, 4.9.1, 4.10 and 4.11.
 *
 * Theory of operation. A transfer descriptor (TD) is a chain of TRBs; of a control endpoint it is
 * taken to be all from Setup to Status. It is looked at when all of it is there, and offered to the
 * device as one. If the device is not ready nothing has happened: the ring stays where it is, until
 * the device wakes the endpoint. Isochronous transfers are not done.
 */
#include "base/bytes.h"
#include "base/log.h"
#include "devices/usb/xhci.h"

#define TDS_AT_ONCE    64u
#define EVENTS_AT_MOST 16u /* of a TD, that room is made sure of */
#define LENGTH_MASK    0x1ffffu
#define EVENT_LENGTH   0xffffffu
#define TYPE_CONTROL   4u

struct place {
    struct xhci_slot *slot;
    struct xhci_endpoint *endpoint;
    unsigned number, dci; /* of the slot, of the endpoint */
    bool is_control;
};

static struct place place_of(struct xhci *s, unsigned slot, unsigned dci)
{
    struct xhci_endpoint *endpoint = &s->slots[slot].endpoints[dci - 1];

    return (struct place){&s->slots[slot], endpoint, slot + 1, dci, endpoint->type == TYPE_CONTROL};
}

static uint32_t length_of(const struct xhci_trb *trb)
{
    return trb->status & LENGTH_MASK;
}

static bool is_data(const struct xhci_trb *trb)
{
    return xhci_trb_type(trb) == XHCI_NORMAL || xhci_trb_type(trb) == XHCI_DATA;
}

static unsigned interrupter_of(const struct xhci_trb *trb)
{
    return trb->status >> 22 < XHCI_INTERRUPTERS ? trb->status >> 22 : 0;
}

/* ---- transfer descriptors ---- */

/* Does the TRB fit where it is? first: of its TD. */
static bool fits(const struct place *place, const struct xhci_trb *first,
                 const struct xhci_trb *trb)
{
    bool is_first = first == trb;

    switch (xhci_trb_type(trb)) {
    case XHCI_NO_OP:
        return is_first;
    case XHCI_EVENT_DATA:
        return !is_first || !place->is_control;
    case XHCI_SETUP:
        return place->is_control && is_first && trb->control & XHCI_TRB_IDT;
    case XHCI_STATUS:
        return place->is_control && !is_first;
    case XHCI_NORMAL:
        return !place->is_control || !is_first;
    case XHCI_DATA: /* in the direction that the request says */
        return place->is_control && !is_first &&
               !(trb->control & XHCI_TRB_IN) == !(first->parameter & USB_IN);
    default:
        return false;
    }
}

static bool add_data(struct xhci *s, const struct xhci_trb *trb)
{
    bool is_immediate = trb->control & XHCI_TRB_IDT;
    uint32_t length = length_of(trb);

    if (is_immediate && length > 8)
        return false;
    return dma_list_add(&s->td.list, device_memory(&s->function.dev),
                        is_immediate ? trb->gpa : trb->parameter, length);
}

/* Collect a TD into s->td. ring goes behind it. */
static enum xhci_fetch collect(struct xhci *s, const struct place *place, struct xhci_ring *ring)
{
    struct xhci_td *td = &s->td;
    bool is_last = false, had_status = false;

    td->count = 0;
    dma_list_clear(&td->list);
    while (!is_last) {
        struct xhci_trb *trb = &td->trbs[td->count];
        enum xhci_fetch fetched =
            td->count < XHCI_TD_TRBS ? xhci_fetch(s, ring, trb) : XHCI_FETCH_BAD;

        if (fetched != XHCI_FETCH_DONE)
            return fetched;
        td->count++;
        if (!fits(place, td->trbs, trb) || (is_data(trb) && !add_data(s, trb)))
            return XHCI_FETCH_BAD;
        had_status |= xhci_trb_type(trb) == XHCI_STATUS;
        is_last = !(trb->control & XHCI_TRB_CHAIN) &&
                  (had_status || xhci_trb_type(td->trbs) != XHCI_SETUP);
    }
    return XHCI_FETCH_DONE;
}

/* ---- events ---- */

static void post(struct xhci *s, const struct place *place, const struct xhci_trb *trb,
                 enum xhci_code code, uint32_t length)
{
    bool is_data_event = xhci_trb_type(trb) == XHCI_EVENT_DATA;

    xhci_post(s, interrupter_of(trb), is_data_event ? trb->parameter : trb->gpa,
              (uint32_t)code << 24 | (length & EVENT_LENGTH),
              XHCI_TRANSFER_EVENT << 10 | place->dci << 16 | place->number << 24 |
                  (is_data_event ? XHCI_TRB_EVENT_DATA : 0),
              trb->control & XHCI_TRB_BEI && !place->is_control);
}

/* Events of a TD that went well, of which so many bytes were moved (4.10.1). */
static void post_done(struct xhci *s, const struct place *place, uint64_t moved_bytes)
{
    bool is_short = false, was_told = false;
    uint64_t left = moved_bytes;
    uint32_t since_event = 0;

    for (unsigned n = 0; n < s->td.count; n++) {
        const struct xhci_trb *trb = &s->td.trbs[n];
        uint32_t length = is_data(trb) ? length_of(trb) : 0;
        uint32_t part = length < left ? length : (uint32_t)left;
        bool is_shortest = part < length && !is_short;

        left -= part;
        since_event += part;
        is_short |= is_shortest;
        if (xhci_trb_type(trb) == XHCI_EVENT_DATA) {
            if (trb->control & XHCI_TRB_IOC)
                post(s, place, trb, is_short ? XHCI_SHORT_PACKET : XHCI_SUCCESS, since_event);
            since_event = 0;
        } else if (!is_data(trb) || !is_short) {
            if (trb->control & XHCI_TRB_IOC)
                post(s, place, trb, XHCI_SUCCESS, 0);
        } else if (!was_told &&
                   (trb->control & XHCI_TRB_IOC || (is_shortest && trb->control & XHCI_TRB_ISP))) {
            post(s, place, trb, XHCI_SHORT_PACKET, length - part);
            was_told = true;
        }
    }
}

/* The TRB that did not go well: of the data if there is any, else the last one. */
static const struct xhci_trb *culprit(const struct xhci_td *td)
{
    for (unsigned n = 0; n < td->count; n++)
        if (is_data(&td->trbs[n]))
            return &td->trbs[n];
    return &td->trbs[td->count - 1];
}

static void fail(struct xhci *s, const struct place *place, const struct xhci_trb *trb,
                 enum xhci_code code)
{
    place->endpoint->state = code == XHCI_TRB_ERROR ? XHCI_EP_ERROR : XHCI_EP_HALTED;
    xhci_put_endpoint(s, place->slot, place->dci);
    post(s, place, trb, code, is_data(trb) ? length_of(trb) : 0);
}

static void fail_bad(struct xhci *s, const struct place *place)
{
    struct xhci_trb *trb = &s->td.trbs[s->td.count ? s->td.count - 1 : 0];

    if (!s->td.count)
        *trb = (struct xhci_trb){.gpa = place->endpoint->ring.gpa};
    if (s->td.count && xhci_trb_type(trb) == XHCI_ISOCH)
        log_guest("%s: isochronous transfers are not done", s->function.dev.id);
    fail(s, place, trb, XHCI_TRB_ERROR);
}

/* ---- execution ---- */

static enum usb_status offer(struct xhci *s, const struct place *place, struct usb_device *usb,
                             struct usb_data *data)
{
    uint64_t p = s->td.trbs[0].parameter;
    struct usb_setup setup = {(uint8_t)p, (uint8_t)(p >> 8), (uint16_t)(p >> 16),
                              (uint16_t)(p >> 32), (uint16_t)(p >> 48)};

    if (xhci_trb_type(s->td.trbs) == XHCI_NO_OP)
        return USB_DONE;
    if (place->is_control)
        return usb_control(usb, &setup, data);
    return usb_transfer(usb, xhci_endpoint_address(place->dci), data);
}

static bool has_room(struct xhci *s)
{
    unsigned events = 1;

    for (unsigned n = 0; n < s->td.count && events < EVENTS_AT_MOST; n++)
        events += s->td.trbs[n].control & XHCI_TRB_IOC ? 1 : 0;
    return xhci_has_room(s, interrupter_of(&s->td.trbs[s->td.count ? s->td.count - 1 : 0]), events);
}

/* False: there is nothing more to do now. */
static bool run_td(struct xhci *s, const struct place *place)
{
    static const enum xhci_code codes[] = {[USB_STALL] = XHCI_STALL, [USB_BABBLE] = XHCI_BABBLE};
    struct usb_device *usb = xhci_device(s, place->slot);
    struct xhci_ring ring = place->endpoint->ring;
    struct usb_data data = {0};
    enum xhci_fetch found;
    enum usb_status status;

    if (place->endpoint->state != XHCI_EP_RUNNING || xhci_is_suspended(s, place->slot))
        return false;
    found = collect(s, place, &ring);
    if (found == XHCI_FETCH_NONE)
        return false;
    if (!has_room(s)) {
        s->is_starved = true;
        place->slot->kicked |= 1u << place->dci;
        return false;
    }
    if (found == XHCI_FETCH_BAD) {
        fail_bad(s, place);
        return false;
    }
    if (!usb) {
        fail(s, place, culprit(&s->td), XHCI_TRANSACTION_ERROR);
        return false;
    }
    data = (struct usb_data){s->td.list.pieces, s->td.list.count, s->td.list.size_bytes, 0};
    status = offer(s, place, usb, &data);
    if (status == USB_NAK)
        return false;
    io_pieces_written(s->td.list.pieces, s->td.list.count, device_memory(&s->function.dev),
                      data.done_bytes);
    if (status != USB_DONE) {
        fail(s, place, culprit(&s->td), codes[status]);
        return false;
    }
    place->endpoint->ring = ring;
    post_done(s, place, data.done_bytes);
    return true;
}

void xhci_run_endpoint(struct xhci *s, unsigned slot, unsigned dci)
{
    struct place place = place_of(s, slot, dci);

    for (unsigned n = 0; n < TDS_AT_ONCE; n++)
        if (!run_td(s, &place))
            return;
    place.slot->kicked |= 1u << dci;
    xhci_later(s);
}

void xhci_report_stopped(struct xhci *s, unsigned slot, unsigned dci)
{
    struct place place = place_of(s, slot, dci);
    struct xhci_ring ring = place.endpoint->ring;
    struct usb_device *usb = s->slots[slot].port ? s->ports[s->slots[slot].port - 1].device : NULL;
    const struct xhci_trb *trb;

    if (usb)
        usb_stopped(usb, xhci_endpoint_address(dci));
    if (collect(s, &place, &ring) != XHCI_FETCH_DONE)
        return;
    trb = culprit(&s->td);
    post(s, &place, trb, XHCI_STOPPED, is_data(trb) ? length_of(trb) : 0);
}
