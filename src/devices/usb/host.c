/*
 * host.c - a USB device of the host
 *
 * Theory of operation. What the guest's driver asks for is asked of the host's device; until that
 * has answered, the guest is told NAK, as with all devices here. Each endpoint has a pipe with one
 * transfer. It is idle, busy (the host has it), or done: then its data, or how it ended, is for the
 * next time that the guest offers the transfer. So what has come from the device is kept until the
 * guest has taken it, unless a reset or another setting has made it void.
 *
 * Some requests are not sent, as the host's own driver has to do them: these are changes. One
 * begins when no pipe that it concerns is busy any more, and holds these pipes (NAK) until it has
 * ended. A reset of the bus is one, too, if the device was used since the last.
 *
 * Who controls the device's address is the guest's controller; the host has its own for it.
 *
 * Threads: machine lock held. Guest memory: not touched; controllers move the data.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/devices.h"
#include "devices/usb/host.h"
#include "trapeze/machine.h"
#include "trapeze/usb_host.h"

#define PIPES        32u /* endpoint 0 and those out; 16 more on, those in */
#define CONTROL      0u
#define ALL_PIPES    UINT32_MAX
#define SETUP_BYTES  8u
#define TRANSFER_MAX (4u << 20) /* bytes; the host's kernel has room for 16 MiB of all devices */
#define BULK         2u
#define TO_DEVICE    0x00u
#define TO_INTERFACE 0x01u
#define TO_ENDPOINT  0x02u
#define FROM_DEVICE  0x80u

enum standard_request {
    CLEAR_FEATURE = 1,
    SET_FEATURE = 3,
    GET_DESCRIPTOR = 6,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION = 9,
    SET_INTERFACE = 11,
    SET_SEL = 48,
    SET_ISOCH_DELAY = 49,
};

enum feature { FEATURE_HALT = 0, FEATURE_U1 = 48, FEATURE_LTM = 50 };

enum phase { PHASE_IDLE, PHASE_BUSY, PHASE_DONE };

struct host_device;

struct pipe {
    struct host_device *owner;
    uint8_t phase;                     /* enum phase */
    bool is_dropped;                   /* nobody wants what it brings */
    size_t taken;                      /* bytes of its data that the guest has */
    struct usb_host_transfer transfer; /* data: its own memory, or NULL */
};

enum change_phase { CHANGE_NONE, CHANGE_WAITS, CHANGE_RUNS };

struct host_device {
    struct usb_device usb;

    /* Configuration. */
    char *product, *at;    /* properties */
    struct usb_host *host; /* property, or opened; owned from attach on */

    /*
     * What the guest sees is the device's own state, which cannot be saved; this is how far it is
     * known here.
     */
    struct usb_description own;
    struct usb_description slow; /* what it is on a companion of EHCI: not more than there */
    struct host_settings settings;
    struct usb_setup setup; /* of the request that the control pipe has */
    struct pipe pipes[PIPES];
    uint32_t held; /* pipes of the change */
    struct usb_host_change change;
    uint8_t change_phase; /* enum change_phase */
    bool wants_reset;     /* behind the change */
    bool is_used;         /* since the last reset, by more than reading descriptors */
    bool is_paused;
    bool is_gone;
};

static struct host_device *host_of(struct usb_device *usb)
{
    return container_of(usb, struct host_device, usb);
}

static unsigned pipe_number(uint8_t endpoint)
{
    return endpoint & 0xf ? (endpoint & 0xf) + (endpoint & USB_IN ? 16u : 0) : CONTROL;
}

static uint8_t endpoint_of(const struct pipe *p)
{
    unsigned n = (unsigned)(p - p->owner->pipes);

    return (uint8_t)(n & 0xf ? (n & 0xf) | (n & 16 ? USB_IN : 0) : USB_IN);
}

/* ---- pipes ---- */

static void forget(struct pipe *p)
{
    free(p->transfer.data);
    p->transfer.data = NULL;
    p->phase = PHASE_IDLE;
    p->is_dropped = false;
    p->taken = 0;
}

static void drop(struct pipe *p)
{
    struct host_device *s = p->owner;

    if (p->phase == PHASE_DONE)
        forget(p);
    if (p->phase != PHASE_BUSY || p->is_dropped)
        return;
    p->is_dropped = true;
    if (p->transfer.data) /* else it is a change, which ends by itself */
        s->host->ops->cancel(s->host, &p->transfer);
}

static void drop_all(struct host_device *s)
{
    for (unsigned n = 0; n < PIPES; n++)
        drop(&s->pipes[n]);
}

static void wake(struct pipe *p)
{
    if (!p->owner->is_paused)
        usb_wake(&p->owner->usb, endpoint_of(p));
}

static enum usb_status status_of(enum usb_host_result result)
{
    return result == USB_HOST_DONE       ? USB_DONE
           : result == USB_HOST_TOO_MUCH ? USB_BABBLE
           : result == USB_HOST_GONE     ? USB_NAK
                                         : USB_STALL;
}

static void advance_change(struct host_device *s);

/* What was cancelled in the middle is what came until then. */
static void transfer_ended(struct usb_host_transfer *transfer)
{
    struct pipe *p = container_of(transfer, struct pipe, transfer);
    bool is_cancelled = transfer->result == USB_HOST_CANCELLED;
    size_t room = transfer->size_bytes - (transfer->endpoint ? 0 : SETUP_BYTES);

    if (transfer->moved_bytes > room)
        transfer->moved_bytes = room;
    if (p->is_dropped || transfer->result == USB_HOST_GONE ||
        (is_cancelled && !transfer->moved_bytes)) {
        forget(p);
    } else {
        p->phase = PHASE_DONE;
        if (is_cancelled)
            transfer->result = USB_HOST_DONE;
    }
    advance_change(p->owner);
    wake(p);
}

/* Room for so many bytes. False: there is none. */
static bool make_room(struct pipe *p, size_t size)
{
    p->transfer.data = calloc(1, size ? size : 1);
    p->transfer.size_bytes = size;
    p->transfer.done = transfer_ended;
    return p->transfer.data;
}

/* USB_NAK: it is under way. */
static enum usb_status submit(struct pipe *p, uint8_t endpoint, uint8_t type)
{
    struct host_device *s = p->owner;
    int code;

    p->transfer.endpoint = endpoint;
    p->transfer.type = type;
    p->phase = PHASE_BUSY;
    code = s->host->ops->submit(s->host, &p->transfer);
    if (!code)
        return USB_NAK;
    forget(p);
    return code == -ENODEV ? USB_NAK : USB_STALL;
}

/* ---- changes ---- */

static void clear_halts(struct host_device *s, uint32_t pipes)
{
    s->usb.stalled[0] = (uint16_t)(s->usb.stalled[0] & ~pipes);
    s->usb.stalled[1] = (uint16_t)(s->usb.stalled[1] & ~(pipes >> 16));
}

static void apply_change(struct host_device *s)
{
    const struct usb_host_change *change = &s->change;

    switch (change->kind) {
    case USB_HOST_CONFIGURATION:
        s->settings.configuration = change->value;
        if (!s->pipes[CONTROL].is_dropped)
            s->usb.configuration = change->value;
        memset(s->settings.alternates, 0, sizeof(s->settings.alternates));
        host_describe_endpoints(&s->settings, &s->own);
        break;
    case USB_HOST_INTERFACE:
        s->settings.alternates[change->index] = change->value;
        host_describe_endpoints(&s->settings, &s->own);
        break;
    default:
        break;
    }
    clear_halts(s, s->held);
}

static void begin_reset(struct host_device *s);

static void change_ended(struct usb_host_change *change)
{
    struct host_device *s = container_of(change, struct host_device, change);
    struct pipe *control = &s->pipes[CONTROL];
    uint32_t held = s->held;

    if (change->result == USB_HOST_DONE)
        apply_change(s);
    else if (change->kind == USB_HOST_RESET)
        log_warn("%s: the host could not reset it", s->usb.dev.id);
    s->change_phase = CHANGE_NONE;
    s->held = 0;
    if (control->phase == PHASE_BUSY && !control->transfer.data) {
        control->transfer.result = change->result;
        control->transfer.moved_bytes = 0;
        control->phase = PHASE_DONE;
        if (control->is_dropped)
            forget(control);
    }
    if (s->wants_reset && !s->is_gone)
        begin_reset(s);
    for (unsigned n = 0; n < PIPES; n++)
        if (n == CONTROL || held >> n & 1)
            wake(&s->pipes[n]);
}

static bool has_busy(const struct host_device *s, uint32_t pipes)
{
    for (unsigned n = 0; n < PIPES; n++)
        if (pipes >> n & 1 && s->pipes[n].phase == PHASE_BUSY && s->pipes[n].transfer.data)
            return true;
    return false;
}

/* It begins when nobody is in its way. */
static void advance_change(struct host_device *s)
{
    if (s->change_phase != CHANGE_WAITS || s->is_gone || has_busy(s, s->held))
        return;
    s->change_phase = CHANGE_RUNS;
    s->host->ops->change(s->host, &s->change);
}

static void begin_change(struct host_device *s, const struct usb_host_change *change,
                         uint32_t pipes)
{
    s->change = *change;
    s->change.done = change_ended;
    s->change_phase = CHANGE_WAITS;
    s->held = pipes;
    for (unsigned n = 0; n < PIPES; n++)
        if (pipes >> n & 1)
            drop(&s->pipes[n]);
    advance_change(s);
}

static void begin_reset(struct host_device *s)
{
    s->wants_reset = false;
    s->is_used = false;
    memset(s->settings.alternates, 0, sizeof(s->settings.alternates));
    host_describe_endpoints(&s->settings, &s->own);
    begin_change(s, &(struct usb_host_change){.kind = USB_HOST_RESET}, ALL_PIPES);
}

/* ---- requests ---- */

/* The control pipe is busy with it. */
static enum usb_status ask_change(struct host_device *s, const struct usb_host_change *change,
                                  uint32_t pipes)
{
    s->pipes[CONTROL].phase = PHASE_BUSY;
    begin_change(s, change, pipes & ~1u);
    return USB_NAK;
}

static enum usb_status set_configuration(struct host_device *s, uint16_t value)
{
    struct usb_host_change change = {.kind = USB_HOST_CONFIGURATION,
                                     .value = (uint8_t)value,
                                     .halted = {s->usb.stalled[0], s->usb.stalled[1]}};

    if (!value) { /* which the host's device need not know */
        drop_all(s);
        s->usb.configuration = 0;
        return USB_DONE;
    }
    if (value > UINT8_MAX || !host_has_configuration(&s->settings, (uint8_t)value))
        return USB_STALL;
    return ask_change(s, &change, ALL_PIPES);
}

static enum usb_status set_interface(struct host_device *s, uint16_t interface, uint16_t alternate)
{
    struct usb_host_change change = {
        .kind = USB_HOST_INTERFACE, .index = (uint8_t)interface, .value = (uint8_t)alternate};
    uint16_t endpoints[2];

    if (interface >= HOST_INTERFACES || alternate > UINT8_MAX || !s->usb.configuration ||
        !host_has_alternate(&s->settings, (uint8_t)interface, (uint8_t)alternate))
        return USB_STALL;
    host_endpoints_of(&s->settings, (uint8_t)interface, endpoints);
    return ask_change(s, &change, endpoints[0] | (uint32_t)endpoints[1] << 16);
}

static bool has_endpoint(const struct host_device *s, uint16_t address)
{
    for (unsigned n = 0; n < s->own.endpoint_count; n++)
        if (s->own.endpoints[n].address == address)
            return s->usb.configuration;
    return false;
}

static enum usb_status send(struct host_device *s, const struct usb_setup *setup,
                            const uint8_t *data)
{
    struct pipe *p = &s->pipes[CONTROL];
    bool is_in = setup->type & USB_IN;
    uint16_t length = setup->length < USB_CONTROL_BYTES ? setup->length : USB_CONTROL_BYTES;
    const uint8_t bytes[SETUP_BYTES] = {
        setup->type,           setup->request,
        (uint8_t)setup->value, (uint8_t)(setup->value >> 8),
        (uint8_t)setup->index, (uint8_t)(setup->index >> 8),
        (uint8_t)length,       (uint8_t)(length >> 8),
    };

    if (!make_room(p, SETUP_BYTES + length))
        return USB_STALL;
    memcpy(p->transfer.data, bytes, SETUP_BYTES);
    if (!is_in)
        memcpy(p->transfer.data + SETUP_BYTES, data, length);
    return submit(p, 0, 0);
}

/* A request that nothing is known of yet. */
static enum usb_status begin(struct host_device *s, const struct usb_setup *setup, uint8_t *data,
                             size_t *out_bytes)
{
    s->setup = *setup;
    switch (setup->type << 8 | setup->request) {
    case FROM_DEVICE << 8 | GET_DESCRIPTOR:
        return send(s, setup, data);
    case FROM_DEVICE << 8 | GET_CONFIGURATION:
        data[0] = s->usb.configuration;
        *out_bytes = 1;
        return USB_DONE;
    case TO_DEVICE << 8 | SET_SEL: /* the host has told it its own */
    case TO_DEVICE << 8 | SET_ISOCH_DELAY:
        return USB_DONE;
    default:
        break;
    }
    s->is_used = true;
    switch (setup->type << 8 | setup->request) {
    case TO_DEVICE << 8 | SET_CONFIGURATION:
        return set_configuration(s, setup->value);
    case TO_INTERFACE << 8 | SET_INTERFACE:
        return set_interface(s, setup->index, setup->value);
    case TO_ENDPOINT << 8 | CLEAR_FEATURE:
        if (setup->value == FEATURE_HALT && has_endpoint(s, setup->index))
            return ask_change(s,
                              &(struct usb_host_change){.kind = USB_HOST_CLEAR_HALT,
                                                        .index = (uint8_t)setup->index},
                              1u << pipe_number((uint8_t)setup->index));
        return send(s, setup, data);
    case TO_DEVICE << 8 | SET_FEATURE: /* how the host's link saves power is its own affair */
    case TO_DEVICE << 8 | CLEAR_FEATURE:
        if (setup->value >= FEATURE_U1 && setup->value <= FEATURE_LTM)
            return USB_DONE;
        return send(s, setup, data);
    default:
        return send(s, setup, data);
    }
}

static bool is_same(const struct usb_setup *a, const struct usb_setup *b)
{
    return a->type == b->type && a->request == b->request && a->value == b->value &&
           a->index == b->index && a->length == b->length;
}

static enum usb_status control(struct usb_device *usb, const struct usb_setup *setup, uint8_t *data,
                               size_t *out_bytes)
{
    struct host_device *s = host_of(usb);
    struct pipe *p = &s->pipes[CONTROL];
    enum usb_status status;

    if (usb->description != &s->own)
        return USB_STALL;
    if (!is_same(&s->setup, setup))
        drop(p);
    if (s->is_gone || p->phase == PHASE_BUSY || s->change_phase != CHANGE_NONE)
        return USB_NAK;
    if (p->phase == PHASE_IDLE)
        return begin(s, setup, data, out_bytes);
    status = status_of(p->transfer.result);
    if (p->transfer.data && setup->type & USB_IN) {
        *out_bytes = p->transfer.moved_bytes;
        memcpy(data, p->transfer.data + SETUP_BYTES, *out_bytes);
    }
    forget(p);
    return status;
}

/* ---- data ---- */

static uint8_t type_of(const struct host_device *s, uint8_t endpoint)
{
    for (unsigned n = 0; n < s->own.endpoint_count; n++)
        if (s->own.endpoints[n].address == endpoint)
            return s->own.endpoints[n].type;
    return BULK;
}

static enum usb_status start(struct pipe *p, uint8_t endpoint, struct usb_data *data)
{
    struct host_device *s = p->owner;
    bool is_in = endpoint & USB_IN;

    if (data->size_bytes > TRANSFER_MAX) {
        log_guest("%s: a transfer of %llu bytes is too long; up to %u are moved at once",
                  s->usb.dev.id, (unsigned long long)data->size_bytes, TRANSFER_MAX);
        return USB_STALL;
    }
    if (is_in && !data->size_bytes)
        return USB_DONE;
    if (!make_room(p, data->size_bytes))
        return USB_STALL;
    if (!is_in) {
        usb_take(data, p->transfer.data, data->size_bytes);
        data->done_bytes = 0;
    }
    return submit(p, endpoint, type_of(s, endpoint));
}

/* What the device has sent. More than the guest has room for now is for later. */
static enum usb_status give(struct pipe *p, struct usb_data *data)
{
    enum usb_status status = status_of(p->transfer.result);

    p->taken += usb_put(data, p->transfer.data + p->taken, p->transfer.moved_bytes - p->taken);
    if (p->taken < p->transfer.moved_bytes)
        return USB_DONE;
    forget(p);
    return status;
}

static enum usb_status transfer(struct usb_device *usb, uint8_t endpoint, struct usb_data *data)
{
    struct host_device *s = host_of(usb);
    struct pipe *p = &s->pipes[pipe_number(endpoint)];
    enum usb_status status;

    if (s->is_gone || p->phase == PHASE_BUSY || s->held >> pipe_number(endpoint) & 1)
        return USB_NAK;
    if (p->phase == PHASE_DONE && endpoint & USB_IN)
        return give(p, data);
    if (p->phase == PHASE_IDLE || p->transfer.size_bytes != data->size_bytes) {
        forget(p); /* the guest has thought better of it */
        return start(p, endpoint, data);
    }
    status = status_of(p->transfer.result);
    usb_take(data, NULL, p->transfer.moved_bytes);
    forget(p);
    return status;
}

/* Data that is on its way in is kept. */
static void stopped(struct usb_device *usb, uint8_t endpoint)
{
    struct host_device *s = host_of(usb);
    struct pipe *p = &s->pipes[pipe_number(endpoint)];

    if (!(endpoint & 0xf) || !(endpoint & USB_IN))
        drop(p);
    else if (p->phase == PHASE_BUSY)
        s->host->ops->cancel(s->host, &p->transfer);
}

static void bus_reset(struct usb_device *usb)
{
    struct host_device *s = host_of(usb);

    drop_all(s);
    if (!s->is_used || s->is_gone)
        return;
    if (s->change_phase == CHANGE_NONE) {
        begin_reset(s);
    } else {
        s->wants_reset = true;
        s->held = ALL_PIPES;
    }
}

static const struct usb_device_ops ops = {
    .reset = bus_reset,
    .takes_standard = true,
    .control = control,
    .transfer = transfer,
    .stopped = stopped,
};

/* ---- lifecycle ---- */

/*
 * Ports of EHCI are their companions' until its driver takes them; one of High Speed waits there.
 * Nobody would take it away from a controller that is no companion.
 */
static int attach_fast(struct host_device *s, struct error *err)
{
    int result;

    if (s->own.speed == USB_HIGH) {
        s->slow = (struct usb_description){.speed = USB_FULL};
        s->own.slower = &s->slow;
    }
    result = usb_attach(&s->usb, err);
    if (!result && !(usb_fastest_port(s->usb.port)->speeds >> s->own.speed & 1))
        result = error_set(err, ENODEV, "no USB port is fast enough for it; --usb xhci has such");
    return result;
}

static void leave(struct host_device *s)
{
    log_warn("%s: the host's device was unplugged", s->usb.dev.id);
    usb_detach(&s->usb);
}

static void gone(void *opaque)
{
    struct host_device *s = opaque;

    s->is_gone = true;
    drop_all(s);
    if (!s->is_paused)
        leave(s);
}

static int attach(struct device *dev, struct error *err)
{
    struct host_device *s = host_of(usb_device_of(dev));
    unsigned isochronous;

    if (!s->host)
        s->host = usb_host_open(machine_loop(dev->machine), s->product, s->at, err);
    if (!s->host)
        return -ENODEV;
    for (unsigned n = 0; n < PIPES; n++)
        s->pipes[n].owner = s;
    s->host->gone = gone;
    s->host->opaque = s;
    s->settings = (struct host_settings){.descriptors = s->host->descriptors,
                                         .size_bytes = s->host->descriptor_bytes,
                                         .configuration = s->host->configuration};
    s->is_used = true; /* by the host */
    host_describe_device(s->host, &s->own);
    host_describe_endpoints(&s->settings, &s->own);
    isochronous = host_count_isochronous(&s->settings);
    if (isochronous)
        log_warn("%s: its isochronous endpoints, for sound or video, will not work (%u)", dev->id,
                 isochronous);
    s->usb.fastest = &s->own;
    s->usb.ops = &ops;
    return attach_fast(s, err);
}

static void detach(struct device *dev)
{
    struct host_device *s = host_of(usb_device_of(dev));

    usb_detach(&s->usb);
    s->is_gone = true;
    if (!s->host)
        return;
    drop_all(s);
    s->host->ops->close(s->host);
    s->host = NULL;
    for (unsigned n = 0; n < PIPES; n++)
        forget(&s->pipes[n]);
}

static void reset(struct device *dev)
{
    struct host_device *s = host_of(usb_device_of(dev));

    usb_power_on(&s->usb);
    drop_all(s);
}

static void quiesce(struct device *dev)
{
    host_of(usb_device_of(dev))->is_paused = true;
}

/* What has come meanwhile is told now. */
static void resume(struct device *dev)
{
    struct host_device *s = host_of(usb_device_of(dev));

    s->is_paused = false;
    if (s->is_gone && s->usb.port)
        leave(s);
    for (unsigned n = 0; n < PIPES; n++)
        wake(&s->pipes[n]);
}

static int refuse_state(void *object, struct error *err)
{
    const struct host_device *s = object;

    return error_set(err, ENOTSUP,
                     "%s: a USB device of the host (%s) cannot be saved, nor loaded; take it out "
                     "with 'trapeze device remove', or run the machine without it",
                     s->usb.dev.id, s->host ? s->host->name : "it has gone");
}

static const struct property properties[] = {
    USB_PROPERTIES(struct host_device, usb),
    PROPERTY_STRING(struct host_device, product, "",
                    "VENDOR:PRODUCT of it, as lsusb shows; 'id=' does, too"),
    PROPERTY_STRING(struct host_device, at, "", "where it is: BUS.ADDRESS, or BUS-PORT"),
    PROPERTY_POINTER(struct host_device, host, "opened"),
    PROPERTY_END,
};

static const struct state_field state[] = {
    USB_STATE(struct host_device, usb),
    STATE_END,
};

const struct device_class usb_host_class = {
    .name = "usb-host",
    .summary = "a USB device of the host",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct host_device),
    .properties = properties,
    .attach = attach,
    .reset = reset,
    .detach = detach,
    .quiesce = quiesce,
    .resume = resume,
    .state = {.version = 1,
              .oldest = 1,
              .fields = state,
              .before_save = refuse_state,
              .after_load = refuse_state},
};
