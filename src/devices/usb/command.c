/*
 * command.c - the command ring of the xHCI controller: slots, endpoints and their contexts
 *
 * The specification, 4.6 and 6.2. Contexts have 32 bytes. What the guest has written into output
 * contexts is not looked at: slots and endpoints are as the controller knows them.
 */
#include "base/bytes.h"
#include "base/log.h"
#include "devices/usb/xhci.h"

#define COMMANDS_AT_ONCE 64u
#define ADD_SLOT         0x1u
#define ADD_ENDPOINT_0   0x2u
#define ENTRIES_SHIFT    27
#define SLOT_STATE_SHIFT 27
#define STREAMS_MASK     0x7c00u
#define DEQUEUE_MASK     (~(uint64_t)0xf)
#define EP_STATE_MASK    0x7u

enum endpoint_type {
    TYPE_ISOCH_OUT = 1,
    TYPE_CONTROL = 4,
    TYPE_ISOCH_IN = 5,
    TYPE_IN = 4, /* added to the type of an out endpoint */
};

/* ---- contexts ---- */

static bool read_context(struct xhci *s, uint64_t gpa, uint32_t out[8])
{
    uint8_t bytes[XHCI_CONTEXT_BYTES];

    if (memory_read(device_memory(&s->function.dev), gpa, bytes, sizeof(bytes)))
        return false;
    for (unsigned n = 0; n < 8; n++)
        out[n] = get_le32(bytes + 4 * n);
    return true;
}

/* Where there is no memory the guest sees nothing of it. */
static void write_context(struct xhci *s, uint64_t gpa, const uint32_t context[8])
{
    uint8_t bytes[XHCI_CONTEXT_BYTES];

    for (unsigned n = 0; n < 8; n++)
        put_le32(bytes + 4 * n, context[n]);
    memory_write(device_memory(&s->function.dev), gpa, bytes, sizeof(bytes));
}

static void set_dequeue(uint32_t context[8], const struct xhci_ring *ring)
{
    context[2] = (uint32_t)ring->gpa | (ring->cycle ? 1 : 0);
    context[3] = (uint32_t)(ring->gpa >> 32);
}

void xhci_put_endpoint(struct xhci *s, struct xhci_slot *slot, unsigned dci)
{
    const struct xhci_endpoint *endpoint = &slot->endpoints[dci - 1];
    uint64_t gpa = slot->context + dci * XHCI_CONTEXT_BYTES;
    uint32_t context[8];

    if (!read_context(s, gpa, context))
        return;
    context[0] = (context[0] & ~EP_STATE_MASK) | endpoint->state;
    set_dequeue(context, &endpoint->ring);
    write_context(s, gpa, context);
}

/* The slot's state and address, and how many endpoints there are. */
static void put_slot(struct xhci *s, struct xhci_slot *slot)
{
    unsigned number = (unsigned)(slot - s->slots) + 1, entries = 1;
    uint32_t context[8];

    if (!read_context(s, slot->context, context))
        return;
    for (unsigned dci = 1; dci <= XHCI_ENDPOINTS; dci++)
        if (slot->endpoints[dci - 1].state)
            entries = dci;
    context[0] = (context[0] & ~(0x1fu << ENTRIES_SHIFT)) | entries << ENTRIES_SHIFT;
    context[3] = (slot->state >= XHCI_SLOT_ADDRESSED ? number : 0) | (uint32_t)slot->state
                                                                         << SLOT_STATE_SHIFT;
    write_context(s, slot->context, context);
}

/* What an endpoint's input context asks for. */
static enum xhci_code check_endpoint(struct xhci *s, unsigned dci, const uint32_t context[8])
{
    unsigned type = context[1] >> 3 & 7;
    bool is_in = type & TYPE_IN;

    if (type == TYPE_ISOCH_OUT || type == TYPE_ISOCH_IN) {
        log_guest("%s: isochronous endpoints are not there", s->function.dev.id);
        return XHCI_PARAMETER_ERROR;
    }
    if (!type || (type == TYPE_CONTROL) != (dci == 1) || (dci > 1 && is_in != (dci % 2 == 1)) ||
        context[0] & STREAMS_MASK)
        return XHCI_PARAMETER_ERROR;
    return XHCI_SUCCESS;
}

static void enable_endpoint(struct xhci *s, struct xhci_slot *slot, unsigned dci,
                            uint32_t context[8])
{
    struct xhci_endpoint *endpoint = &slot->endpoints[dci - 1];
    uint64_t dequeue = (uint64_t)context[3] << 32 | context[2];

    *endpoint = (struct xhci_endpoint){.state = XHCI_EP_RUNNING,
                                       .type = context[1] >> 3 & 7,
                                       .ring = {dequeue & DEQUEUE_MASK, dequeue & 1}};
    slot->kicked &= ~(1u << dci);
    context[0] = (context[0] & ~EP_STATE_MASK) | XHCI_EP_RUNNING;
    set_dequeue(context, &endpoint->ring);
    write_context(s, slot->context + dci * XHCI_CONTEXT_BYTES, context);
}

static void disable_endpoints(struct xhci *s, struct xhci_slot *slot, uint32_t which)
{
    for (unsigned dci = 1; dci <= XHCI_ENDPOINTS; dci++) {
        if (!(which >> dci & 1) || !slot->endpoints[dci - 1].state)
            continue;
        slot->endpoints[dci - 1].state = XHCI_EP_DISABLED;
        slot->kicked &= ~(1u << dci);
        xhci_put_endpoint(s, slot, dci);
    }
}

/* ---- commands for slots ---- */

static enum xhci_code enable_slot(struct xhci *s, unsigned *out_slot)
{
    unsigned count = s->config & 0xff;

    for (unsigned n = 0; n < XHCI_SLOTS && n < count; n++) {
        if (s->slots[n].is_enabled)
            continue;
        s->slots[n] = (struct xhci_slot){.is_enabled = true};
        *out_slot = n + 1;
        return XHCI_SUCCESS;
    }
    return XHCI_NO_SLOTS;
}

static enum xhci_code disable_slot(struct xhci *s, struct xhci_slot *slot)
{
    if (slot->context) {
        disable_endpoints(s, slot, UINT32_MAX);
        slot->state = XHCI_SLOT_ENABLED;
        put_slot(s, slot);
    }
    *slot = (struct xhci_slot){0};
    return XHCI_SUCCESS;
}

static bool read_output(struct xhci *s, struct xhci_slot *slot, uint64_t *out_gpa)
{
    unsigned number = (unsigned)(slot - s->slots) + 1;
    uint8_t bytes[8];

    if (memory_read(device_memory(&s->function.dev), s->contexts + 8 * number, bytes,
                    sizeof(bytes)))
        return false;
    *out_gpa = get_le64(bytes) & ~(uint64_t)0x3f;
    return *out_gpa != 0;
}

static enum xhci_code address_device(struct xhci *s, struct xhci_slot *slot,
                                     const struct xhci_trb *trb)
{
    uint64_t input = trb->parameter & DEQUEUE_MASK, output;
    bool is_blocked = trb->control & XHCI_TRB_BSR;
    uint32_t control[8], context[8], endpoint[8];
    unsigned port;

    if (slot->state > (is_blocked ? XHCI_SLOT_ENABLED : XHCI_SLOT_DEFAULT))
        return XHCI_CONTEXT_STATE;
    if (!read_context(s, input, control) || !read_context(s, input + 0x20, context) ||
        !read_context(s, input + 0x40, endpoint) || control[0] ||
        (control[1] & 3) != (ADD_SLOT | ADD_ENDPOINT_0) || !read_output(s, slot, &output))
        return XHCI_TRB_ERROR;
    port = context[1] >> 16 & 0xff;
    if (!port || port > XHCI_PORTS || check_endpoint(s, 1, endpoint) != XHCI_SUCCESS)
        return XHCI_PARAMETER_ERROR;
    slot->port = (uint8_t)port;
    slot->route = context[0] & USB_ROUTE_MAX;
    if (!xhci_device(s, slot)) {
        slot->port = 0;
        return XHCI_TRANSACTION_ERROR;
    }
    slot->context = output;
    slot->state = is_blocked ? XHCI_SLOT_DEFAULT : XHCI_SLOT_ADDRESSED;
    write_context(s, output, context);
    enable_endpoint(s, slot, 1, endpoint);
    put_slot(s, slot);
    return XHCI_SUCCESS;
}

static enum xhci_code deconfigure(struct xhci *s, struct xhci_slot *slot)
{
    disable_endpoints(s, slot, ~3u);
    slot->state = XHCI_SLOT_ADDRESSED;
    put_slot(s, slot);
    return XHCI_SUCCESS;
}

static bool has_endpoints(const struct xhci_slot *slot)
{
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS; dci++)
        if (slot->endpoints[dci - 1].state)
            return true;
    return false;
}

static enum xhci_code configure_endpoint(struct xhci *s, struct xhci_slot *slot,
                                         const struct xhci_trb *trb)
{
    uint64_t input = trb->parameter & DEQUEUE_MASK;
    uint32_t control[8], contexts[XHCI_ENDPOINTS + 1][8];
    enum xhci_code code = XHCI_SUCCESS;

    if (slot->state < XHCI_SLOT_ADDRESSED)
        return XHCI_CONTEXT_STATE;
    if (trb->control & XHCI_TRB_BSR)
        return deconfigure(s, slot);
    if (!read_context(s, input, control) || control[0] & 3 || (control[1] & 3) != ADD_SLOT)
        return XHCI_TRB_ERROR;
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS && code == XHCI_SUCCESS; dci++) {
        if (!(control[1] >> dci & 1))
            continue;
        if (!read_context(s, input + (dci + 1) * XHCI_CONTEXT_BYTES, contexts[dci]))
            code = XHCI_TRB_ERROR;
        else if (slot->endpoints[dci - 1].state && !(control[0] >> dci & 1))
            code = XHCI_PARAMETER_ERROR;
        else
            code = check_endpoint(s, dci, contexts[dci]);
    }
    if (code != XHCI_SUCCESS)
        return code;
    disable_endpoints(s, slot, control[0]);
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS; dci++)
        if (control[1] >> dci & 1)
            enable_endpoint(s, slot, dci, contexts[dci]);
    slot->state = has_endpoints(slot) ? XHCI_SLOT_CONFIGURED : XHCI_SLOT_ADDRESSED;
    put_slot(s, slot);
    return XHCI_SUCCESS;
}

/* Of the slot the exit latency and the interrupter; of endpoint 0 its packets' size. */
static enum xhci_code evaluate_context(struct xhci *s, struct xhci_slot *slot,
                                       const struct xhci_trb *trb)
{
    uint64_t input = trb->parameter & DEQUEUE_MASK;
    uint32_t control[8], from[8], to[8];

    if (slot->state < XHCI_SLOT_DEFAULT)
        return XHCI_CONTEXT_STATE;
    if (!read_context(s, input, control) || control[0] ||
        control[1] & ~(uint32_t)(ADD_SLOT | ADD_ENDPOINT_0))
        return XHCI_TRB_ERROR;
    if (control[1] & ADD_SLOT && read_context(s, input + 0x20, from) &&
        read_context(s, slot->context, to)) {
        to[1] = (to[1] & ~0xffffu) | (from[1] & 0xffff);
        to[2] = (to[2] & ~0xffc00000u) | (from[2] & 0xffc00000u);
        write_context(s, slot->context, to);
    }
    if (control[1] & ADD_ENDPOINT_0 && read_context(s, input + 0x40, from) &&
        read_context(s, slot->context + XHCI_CONTEXT_BYTES, to)) {
        to[1] = (to[1] & 0xffff) | (from[1] & 0xffff0000u);
        write_context(s, slot->context + XHCI_CONTEXT_BYTES, to);
    }
    return XHCI_SUCCESS;
}

static enum xhci_code reset_device(struct xhci *s, struct xhci_slot *slot)
{
    struct usb_device *usb;

    if (slot->state < XHCI_SLOT_ADDRESSED)
        return XHCI_CONTEXT_STATE;
    disable_endpoints(s, slot, ~3u);
    slot->state = XHCI_SLOT_DEFAULT;
    put_slot(s, slot);
    usb = xhci_device(s, slot);
    if (usb)
        usb_reset(usb);
    return XHCI_SUCCESS;
}

/* ---- commands for endpoints ---- */

static enum xhci_code reset_endpoint(struct xhci *s, struct xhci_slot *slot, unsigned dci)
{
    struct xhci_endpoint *endpoint = &slot->endpoints[dci - 1];

    if (endpoint->state != XHCI_EP_HALTED)
        return XHCI_CONTEXT_STATE;
    endpoint->state = XHCI_EP_STOPPED;
    xhci_put_endpoint(s, slot, dci);
    return XHCI_SUCCESS;
}

static enum xhci_code stop_endpoint(struct xhci *s, struct xhci_slot *slot, unsigned dci)
{
    struct xhci_endpoint *endpoint = &slot->endpoints[dci - 1];

    if (endpoint->state != XHCI_EP_RUNNING)
        return XHCI_CONTEXT_STATE;
    xhci_report_stopped(s, (unsigned)(slot - s->slots), dci);
    endpoint->state = XHCI_EP_STOPPED;
    xhci_put_endpoint(s, slot, dci);
    return XHCI_SUCCESS;
}

static enum xhci_code move_dequeue(struct xhci *s, struct xhci_slot *slot, unsigned dci,
                                   const struct xhci_trb *trb)
{
    struct xhci_endpoint *endpoint = &slot->endpoints[dci - 1];

    if (endpoint->state != XHCI_EP_STOPPED && endpoint->state != XHCI_EP_ERROR)
        return XHCI_CONTEXT_STATE;
    if (trb->status >> 16 || trb->parameter & 0xe) /* streams */
        return XHCI_TRB_ERROR;
    endpoint->state = XHCI_EP_STOPPED;
    endpoint->ring = (struct xhci_ring){trb->parameter & DEQUEUE_MASK, trb->parameter & 1};
    xhci_put_endpoint(s, slot, dci);
    return XHCI_SUCCESS;
}

static enum xhci_code endpoint_command(struct xhci *s, struct xhci_slot *slot,
                                       const struct xhci_trb *trb)
{
    unsigned dci = trb->control >> 16 & 0x1f;

    if (!dci)
        return XHCI_TRB_ERROR;
    if (!slot->endpoints[dci - 1].state)
        return XHCI_ENDPOINT_NOT_ENABLED;
    switch (xhci_trb_type(trb)) {
    case XHCI_RESET_ENDPOINT:
        return reset_endpoint(s, slot, dci);
    case XHCI_STOP_ENDPOINT:
        return stop_endpoint(s, slot, dci);
    default:
        return move_dequeue(s, slot, dci, trb);
    }
}

/* ---- the ring ---- */

static enum xhci_code slot_command(struct xhci *s, struct xhci_slot *slot,
                                   const struct xhci_trb *trb)
{
    switch (xhci_trb_type(trb)) {
    case XHCI_DISABLE_SLOT:
        return disable_slot(s, slot);
    case XHCI_ADDRESS_DEVICE:
        return address_device(s, slot, trb);
    case XHCI_CONFIGURE_ENDPOINT:
        return configure_endpoint(s, slot, trb);
    case XHCI_EVALUATE_CONTEXT:
        return evaluate_context(s, slot, trb);
    case XHCI_RESET_DEVICE:
        return reset_device(s, slot);
    default:
        return endpoint_command(s, slot, trb);
    }
}

static enum xhci_code execute(struct xhci *s, const struct xhci_trb *trb, unsigned *out_slot)
{
    unsigned type = xhci_trb_type(trb), slot = trb->control >> 24;

    if (type == XHCI_ENABLE_SLOT)
        return enable_slot(s, out_slot);
    if (type == XHCI_NO_OP_COMMAND)
        return XHCI_SUCCESS;
    if (type < XHCI_DISABLE_SLOT || type > XHCI_RESET_DEVICE)
        return XHCI_TRB_ERROR;
    *out_slot = slot;
    if (!slot || slot > XHCI_SLOTS || !s->slots[slot - 1].is_enabled)
        return XHCI_SLOT_NOT_ENABLED;
    return slot_command(s, &s->slots[slot - 1], trb);
}

static void complete(struct xhci *s, uint64_t gpa, enum xhci_code code, unsigned slot)
{
    xhci_post(s, 0, gpa, (uint32_t)code << 24, XHCI_COMMAND_EVENT << 10 | slot << 24, false);
}

void xhci_run_commands(struct xhci *s)
{
    for (unsigned n = 0; s->commands_run; n++) {
        struct xhci_trb trb;
        enum xhci_fetch fetched;
        enum xhci_code code;
        unsigned slot = 0;

        if (n == COMMANDS_AT_ONCE) {
            xhci_later(s);
            return;
        }
        if (!xhci_has_room(s, 0, 2)) {
            s->is_starved = true;
            return;
        }
        fetched = xhci_fetch(s, &s->commands, &trb);
        if (fetched == XHCI_FETCH_BAD)
            xhci_fail(s, "the command ring is not in memory");
        if (fetched != XHCI_FETCH_DONE)
            return;
        code = execute(s, &trb, &slot);
        complete(s, trb.gpa, code, slot);
    }
}

void xhci_stop_commands(struct xhci *s)
{
    if (!s->commands_run)
        return;
    s->commands_run = false;
    complete(s, s->commands.gpa, XHCI_RING_STOPPED, 0);
}
