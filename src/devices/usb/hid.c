/*
 * hid.c - USB keyboard, tablet and mouse
 *
 * Device Class Definition for Human Interface Devices 1.11; HID Usage Tables. The keyboard and the
 * mouse have the boot protocol as well. The tablet says where the pointer is, from 0 to 0x7fff, and
 * has a wheel; it moves with the host's pointer.
 *
 * Theory of operation. What people do is queued, so that a quick click or key is two reports; the
 * movement of a pointer is summed up in the last entry of the queue. An interrupt transfer takes
 * one report. With the queue full the keyboard reports next what is held down now, and the pointer
 * loses a click between two others.
 *
 * Input comes here while the driver asks for reports, so a configured device that no driver has
 * taken leaves keys to others.
 *
 * Threads: machine lock. Guest memory: not touched.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/usb/usb.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define REPORT_IN      0x81u
#define QUEUE          32u
#define POINTER_MAX    0x7fff
#define IDLE_UNIT_NS   4000000ull
#define MAX_REPORT     8u
#define KEYS_IN_REPORT 6u
#define KEY_ROLLOVER   0x01u /* too many at once */
#define KEY_LAST       0xddu
#define KEY_MODIFIERS  0xe0u
#define ALL_BUTTONS    0x1fu

enum hid_request {
    GET_REPORT = 0x01,
    GET_IDLE = 0x02,
    GET_PROTOCOL = 0x03,
    SET_REPORT = 0x09,
    SET_IDLE = 0x0a,
    SET_PROTOCOL = 0x0b,
};
#define TYPE_HID        0x21u /* descriptors */
#define TYPE_REPORT     0x22u
#define TO_INTERFACE    0x01u
#define CLASS_TO_HOST   0xa1u /* request types */
#define CLASS_TO_DEVICE 0x21u
#define REPORT_TYPE_IN  1u
#define REPORT_TYPE_OUT 2u

enum hid_kind { KEYBOARD, TABLET, MOUSE };

/* The keyboard's: usage and pressed. A pointer's: all but these; x and y are places or steps. */
struct hid_event {
    uint8_t usage;
    bool pressed;
    uint8_t buttons;
    uint32_t x, y, up, right; /* signed, but for the tablet's x and y */
};

struct hid;

struct hid_model {
    enum hid_kind kind;
    const uint8_t *report_descriptor;
    uint16_t report_descriptor_bytes;
    struct usb_description usb;
    const struct input_device_ops *input;
};

struct hid {
    struct usb_device usb;
    const struct hid_model *model;
    struct input_device input;

    /* Guest-visible state. */
    bool is_boot;   /* protocol */
    bool is_polled; /* a driver asks for reports */
    uint8_t idle;   /* of 4 ms, after which a report is repeated; 0: never */
    bool is_due;    /* it is to be repeated */
    uint8_t leds;
    uint8_t down[32];      /* keys that are held, a bit each */
    uint8_t shown[32];     /* keys that the last report held */
    struct hid_event last; /* pointers: what was reported last */
    struct hid_event queue[QUEUE];
    uint8_t head, count;
    bool has_lost; /* the queue was too short: a report of what is down now is next */
    struct timer repeat;
};

static struct hid *hid_of(struct usb_device *usb)
{
    return container_of(usb, struct hid, usb);
}

/* ---- reports ---- */

static bool has_key(const uint8_t *keys, unsigned usage)
{
    return keys[usage / 8] >> usage % 8 & 1;
}

static void put_key(uint8_t *keys, unsigned usage, bool pressed)
{
    uint8_t bit = (uint8_t)(1u << usage % 8);

    keys[usage / 8] = (uint8_t)(pressed ? keys[usage / 8] | bit : keys[usage / 8] & ~bit);
}

static size_t put_keys(const struct hid *h, uint8_t *report)
{
    unsigned count = 0;

    report[0] = h->shown[KEY_MODIFIERS / 8];
    for (unsigned usage = 4; usage <= KEY_LAST; usage++) {
        if (!has_key(h->shown, usage))
            continue;
        if (count == KEYS_IN_REPORT) {
            memset(report + 2, KEY_ROLLOVER, KEYS_IN_REPORT);
            break;
        }
        report[2 + count++] = (uint8_t)usage;
    }
    return 8;
}

static size_t put_tablet(const struct hid *h, uint8_t *report)
{
    report[0] = h->last.buttons;
    put_le16(report + 1, (uint16_t)h->last.x);
    put_le16(report + 3, (uint16_t)h->last.y);
    report[5] = (uint8_t)h->last.up;
    report[6] = (uint8_t)h->last.right;
    return 7;
}

static size_t put_mouse(const struct hid *h, uint8_t *report)
{
    report[0] = h->last.buttons & (h->is_boot ? 7 : ALL_BUTTONS);
    report[1] = (uint8_t)h->last.x;
    report[2] = (uint8_t)h->last.y;
    report[3] = (uint8_t)h->last.up;
    report[4] = (uint8_t)h->last.right;
    return h->is_boot ? 3 : 5;
}

/* The state as the last report had it, or has it now. */
static size_t put_report(const struct hid *h, uint8_t report[MAX_REPORT])
{
    memset(report, 0, MAX_REPORT);
    switch (h->model->kind) {
    case KEYBOARD:
        return put_keys(h, report);
    case TABLET:
        return put_tablet(h, report);
    default:
        return put_mouse(h, report);
    }
}

/* ---- the queue ---- */

static void arm_repeat(struct hid *h)
{
    if (h->idle)
        timer_arm(&h->repeat, device_now_ns(&h->usb.dev) + h->idle * IDLE_UNIT_NS);
    else
        timer_cancel(&h->repeat);
}

static void repeat(void *opaque)
{
    struct hid *h = opaque;

    h->is_due = true;
    usb_wake(&h->usb, REPORT_IN);
}

static void drop_first(struct hid *h)
{
    h->head = (uint8_t)((h->head + 1) % QUEUE);
    h->count--;
}

/* A part of a sum that a report has room for. */
static uint32_t take_step(uint32_t *sum)
{
    int32_t step = (int32_t)*sum;

    step = step > 127 ? 127 : step < -127 ? -127 : step;
    *sum -= (uint32_t)step;
    return (uint32_t)step;
}

/* The next event becomes the state that is reported; what does not fit stays for the next. */
static void take_pointer(struct hid *h)
{
    struct hid_event *event = &h->queue[h->head];
    bool is_mouse = h->model->kind == MOUSE;

    h->last.buttons = event->buttons;
    h->last.x = is_mouse ? take_step(&event->x) : event->x;
    h->last.y = is_mouse ? take_step(&event->y) : event->y;
    h->last.up = take_step(&event->up);
    h->last.right = take_step(&event->right);
    if (!event->up && !event->right && (!is_mouse || (!event->x && !event->y)))
        drop_first(h);
}

static void take_event(struct hid *h)
{
    const struct hid_event *event = &h->queue[h->head];

    if (h->model->kind != KEYBOARD) {
        if (h->count) {
            take_pointer(h);
            return;
        }
        h->last.up = h->last.right = 0;
        if (h->model->kind == MOUSE)
            h->last.x = h->last.y = 0;
    } else if (h->has_lost) {
        h->has_lost = false;
        h->count = 0;
        memcpy(h->shown, h->down, sizeof(h->shown));
    } else if (h->count) {
        put_key(h->shown, event->usage, event->pressed);
        drop_first(h);
    }
}

static enum usb_status hid_transfer(struct usb_device *usb, uint8_t endpoint, struct usb_data *data)
{
    struct hid *h = hid_of(usb);
    uint8_t report[MAX_REPORT];

    (void)endpoint;
    h->is_polled = true;
    if (!h->count && !h->has_lost && !h->is_due)
        return USB_NAK;
    take_event(h);
    h->is_due = false;
    arm_repeat(h);
    return usb_send(data, report, put_report(h, report));
}

static void hid_stopped(struct usb_device *usb, uint8_t endpoint)
{
    if (endpoint == REPORT_IN)
        hid_of(usb)->is_polled = false;
}

/* ---- input from the host ---- */

static bool is_listening(void *opaque)
{
    const struct hid *h = opaque;

    return h->is_polled && usb_is_asked(&h->usb);
}

static void key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    struct hid *h = opaque;

    if (usage < 4 || (usage > KEY_LAST && usage < KEY_MODIFIERS) || usage >= KEY_MODIFIERS + 8 ||
        has_key(h->down, usage) == pressed)
        return;
    put_key(h->down, usage, pressed);
    if (h->count < QUEUE)
        h->queue[(h->head + h->count++) % QUEUE] =
            (struct hid_event){.usage = usage, .pressed = pressed};
    else
        h->has_lost = true;
    usb_wake(&h->usb, REPORT_IN);
}

static unsigned leds_asked(void *opaque)
{
    uint8_t leds = ((struct hid *)opaque)->leds; /* Num, Caps, Scroll from bit 0 on */

    return (leds & 1 ? INPUT_LED_NUM : 0) | (leds & 2 ? INPUT_LED_CAPS : 0) |
           (leds & 4 ? INPUT_LED_SCROLL : 0);
}

static struct hid_event *last_of(struct hid *h)
{
    return &h->queue[(h->head + h->count - 1u) % QUEUE];
}

/* The entry that movement goes into. Buttons as they are in the last one. */
static struct hid_event *open_event(struct hid *h)
{
    if (!h->count) {
        h->count = 1;
        *last_of(h) = (struct hid_event){.buttons = h->last.buttons};
        if (h->model->kind == TABLET) {
            last_of(h)->x = h->last.x;
            last_of(h)->y = h->last.y;
        }
    }
    return last_of(h);
}

static void add(uint32_t *sum, int32_t step)
{
    int64_t total = (int64_t)(int32_t)*sum + step;

    total = total > POINTER_MAX ? POINTER_MAX : total < -POINTER_MAX ? -POINTER_MAX : total;
    *sum = (uint32_t)(int32_t)total;
}

static void moved(void *opaque, int32_t right, int32_t down)
{
    struct hid_event *event = open_event(opaque);

    add(&event->x, right);
    add(&event->y, down);
    usb_wake(&((struct hid *)opaque)->usb, REPORT_IN);
}

static void placed(void *opaque, uint32_t x, uint32_t y)
{
    struct hid_event *event = open_event(opaque);

    event->x = x;
    event->y = y;
    usb_wake(&((struct hid *)opaque)->usb, REPORT_IN);
}

static void buttons_changed(void *opaque, unsigned buttons)
{
    struct hid *h = opaque;
    struct hid_event *event = h->count ? last_of(h) : NULL, next = {0};

    if (h->model->kind == TABLET) {
        next.x = event ? event->x : h->last.x;
        next.y = event ? event->y : h->last.y;
    }
    next.buttons = buttons & ALL_BUTTONS;
    if (h->count == QUEUE) {
        event->buttons = next.buttons;
    } else {
        h->count++;
        *last_of(h) = next;
    }
    usb_wake(&h->usb, REPORT_IN);
}

static void wheel_turned(void *opaque, int32_t up, int32_t right)
{
    struct hid_event *event = open_event(opaque);

    add(&event->up, up);
    add(&event->right, right);
    usb_wake(&((struct hid *)opaque)->usb, REPORT_IN);
}

/* ---- requests ---- */

/* A descriptor of the interface: that of the class, or that of reports. */
static enum usb_status get_descriptor(const struct hid *h, uint16_t value, uint8_t *data,
                                      size_t *out_bytes)
{
    const struct hid_model *model = h->model;

    if (value == TYPE_REPORT << 8) {
        memcpy(data, model->report_descriptor, model->report_descriptor_bytes);
        *out_bytes = model->report_descriptor_bytes;
        return USB_DONE;
    }
    if (value != TYPE_HID << 8)
        return USB_STALL;
    memcpy(data, model->usb.extra, model->usb.extra_bytes);
    *out_bytes = model->usb.extra_bytes;
    return USB_DONE;
}

static enum usb_status read_value(const struct hid *h, const struct usb_setup *setup, uint8_t *data,
                                  size_t *out_bytes)
{
    uint8_t report[MAX_REPORT];

    *out_bytes = 1;
    switch (setup->request) {
    case GET_REPORT:
        if (setup->value >> 8 != REPORT_TYPE_IN)
            return USB_STALL;
        *out_bytes = put_report(h, report);
        memcpy(data, report, *out_bytes);
        return USB_DONE;
    case GET_IDLE:
        data[0] = h->idle;
        return USB_DONE;
    case GET_PROTOCOL:
        data[0] = !h->is_boot;
        return h->model->usb.subclass ? USB_DONE : USB_STALL;
    default:
        return USB_STALL;
    }
}

static enum usb_status write_value(struct hid *h, const struct usb_setup *setup,
                                   const uint8_t *data)
{
    switch (setup->request) {
    case SET_REPORT:
        if (setup->value >> 8 != REPORT_TYPE_OUT || h->model->kind != KEYBOARD || !setup->length)
            return USB_STALL;
        h->leds = data[0] & 0x1f;
        return USB_DONE;
    case SET_IDLE:
        h->idle = (uint8_t)(setup->value >> 8);
        arm_repeat(h);
        return USB_DONE;
    case SET_PROTOCOL:
        if (!h->model->usb.subclass || setup->value > 1)
            return USB_STALL;
        h->is_boot = !setup->value;
        return USB_DONE;
    default:
        return USB_STALL;
    }
}

static enum usb_status hid_control(struct usb_device *usb, const struct usb_setup *setup,
                                   uint8_t *data, size_t *out_bytes)
{
    struct hid *h = hid_of(usb);

    if (setup->index)
        return USB_STALL;
    switch (setup->type) {
    case USB_IN | TO_INTERFACE: /* standard: only this request is left */
        return get_descriptor(h, setup->value, data, out_bytes);
    case CLASS_TO_HOST:
        return read_value(h, setup, data, out_bytes);
    case CLASS_TO_DEVICE:
        return write_value(h, setup, data);
    default:
        return USB_STALL;
    }
}

/* What people hold down stays so; a driver has to ask again. */
static void hid_reset(struct usb_device *usb)
{
    struct hid *h = hid_of(usb);

    timer_cancel(&h->repeat);
    h->is_boot = h->is_polled = h->is_due = h->has_lost = false;
    h->idle = h->leds = 0;
    h->head = h->count = 0;
    memcpy(h->shown, h->down, sizeof(h->shown));
}

static const struct usb_device_ops hid_ops = {
    .reset = hid_reset,
    .control = hid_control,
    .transfer = hid_transfer,
    .stopped = hid_stopped,
};

/* ---- models ---- */

static const uint8_t keyboard_reports[] = {
    0x05, 0x01,                   /* usage page: generic desktop */
    0x09, 0x06,                   /* usage: keyboard */
    0xa1, 0x01,                   /* collection: application */
    0x05, 0x07,                   /*  usage page: keyboard */
    0x19, 0xe0, 0x29, 0xe7,       /*  usages: modifiers */
    0x15, 0x00, 0x25, 0x01,       /*  logical: 0 to 1 */
    0x75, 0x01, 0x95, 0x08,       /*  8 fields of 1 bit */
    0x81, 0x02,                   /*  input: variable */
    0x75, 0x08, 0x95, 0x01,       /*  1 field of 8 bits */
    0x81, 0x01,                   /*  input: constant */
    0x05, 0x08,                   /*  usage page: LEDs */
    0x19, 0x01, 0x29, 0x05,       /*  usages: Num Lock to Kana */
    0x75, 0x01, 0x95, 0x05,       /*  5 fields of 1 bit */
    0x91, 0x02,                   /*  output: variable */
    0x75, 0x03, 0x95, 0x01,       /*  1 field of 3 bits */
    0x91, 0x01,                   /*  output: constant */
    0x05, 0x07,                   /*  usage page: keyboard */
    0x19, 0x00, 0x29, 0xdd,       /*  usages */
    0x15, 0x00, 0x26, 0xdd, 0x00, /*  logical: 0 to 0xdd */
    0x75, 0x08, 0x95, 0x06,       /*  6 fields of 8 bits */
    0x81, 0x00,                   /*  input: array */
    0xc0,                         /* end */
};

#define BUTTONS                                                                                    \
    0x05, 0x09,                 /* usage page: buttons */                                          \
        0x19, 0x01, 0x29, 0x05, /* usages: 1 to 5 */                                               \
        0x15, 0x00, 0x25, 0x01, /* logical: 0 to 1 */                                              \
        0x75, 0x01, 0x95, 0x05, /* 5 fields of 1 bit */                                            \
        0x81, 0x02,             /* input: variable */                                              \
        0x75, 0x03, 0x95, 0x01, /* 1 field of 3 bits */                                            \
        0x81, 0x01              /* input: constant */
#define WHEELS                                                                                     \
    0x05, 0x01,                       /* usage page: generic desktop */                            \
        0x09, 0x38,                   /* usage: wheel */                                           \
        0x15, 0x81, 0x25, 0x7f,       /* logical: -127 to 127 */                                   \
        0x75, 0x08, 0x95, 0x01,       /* 1 field of 8 bits */                                      \
        0x81, 0x06,                   /* input: relative */                                        \
        0x05, 0x0c, 0x0a, 0x38, 0x02, /* usage page: consumer; usage: AC pan */                    \
        0x81, 0x06                    /* input: relative */

static const uint8_t tablet_reports[] = {
    0x05,    0x01,                   /* usage page: generic desktop */
    0x09,    0x02,                   /* usage: mouse */
    0xa1,    0x01,                   /* collection: application */
    0x09,    0x01,                   /*  usage: pointer */
    0xa1,    0x00,                   /*  collection: physical */
    BUTTONS, 0x05, 0x01,             /*   usage page: generic desktop */
    0x09,    0x30, 0x09, 0x31,       /*   usages: x, y */
    0x15,    0x00, 0x26, 0xff, 0x7f, /*   logical: 0 to 0x7fff */
    0x35,    0x00, 0x46, 0xff, 0x7f, /*   physical: the same */
    0x75,    0x10, 0x95, 0x02,       /*   2 fields of 16 bits */
    0x81,    0x02,                   /*   input: absolute */
    0x35,    0x00, 0x45, 0x00,       /*   physical: as logical */
    WHEELS,  0xc0, 0xc0,             /* ends */
};

static const uint8_t mouse_reports[] = {
    0x05,    0x01,             /* usage page: generic desktop */
    0x09,    0x02,             /* usage: mouse */
    0xa1,    0x01,             /* collection: application */
    0x09,    0x01,             /*  usage: pointer */
    0xa1,    0x00,             /*  collection: physical */
    BUTTONS, 0x05, 0x01,       /*   usage page: generic desktop */
    0x09,    0x30, 0x09, 0x31, /*   usages: x, y */
    0x15,    0x81, 0x25, 0x7f, /*   logical: -127 to 127 */
    0x75,    0x08, 0x95, 0x02, /*   2 fields of 8 bits */
    0x81,    0x06,             /*   input: relative */
    WHEELS,  0xc0, 0xc0,       /* ends */
};

/* The class's descriptor: HID 1.11, no country, one more descriptor, of reports. */
#define HID_DESCRIPTOR(reports)                                                                    \
    {                                                                                              \
        9, TYPE_HID, 0x11, 0x01, 0, 1, TYPE_REPORT, sizeof(reports), 0                             \
    }
static const uint8_t keyboard_extra[9] = HID_DESCRIPTOR(keyboard_reports);
static const uint8_t tablet_extra[9] = HID_DESCRIPTOR(tablet_reports);
static const uint8_t mouse_extra[9] = HID_DESCRIPTOR(mouse_reports);

#define HID_USB(text, sub, proto, class_descriptor, packet)                                        \
    {                                                                                              \
        .speed = USB_FULL, .vendor = USB_VENDOR_HID, .product = USB_PRODUCT_HID,                   \
        .release = 0x0100, .maker = "Trapeze", .name = (text), .class = 3, .subclass = (sub),      \
        .protocol = (proto), .extra = (class_descriptor), .extra_bytes = 9, .can_wake = true,      \
        .power = 50, .endpoint_count = 1, .endpoints = {                                           \
            {.address = REPORT_IN, .type = 3, .max_packet = (packet), .interval = 4}               \
        }                                                                                          \
    }

static const struct input_device_ops keyboard_input = {
    .is_listening = is_listening,
    .key = key_arrived,
    .leds = leds_asked,
};

static const struct input_device_ops tablet_input = {
    .is_listening = is_listening,
    .at = placed,
    .buttons = buttons_changed,
    .wheel = wheel_turned,
};

static const struct input_device_ops mouse_input = {
    .is_listening = is_listening,
    .moved = moved,
    .buttons = buttons_changed,
    .wheel = wheel_turned,
};

static const struct hid_model models[] = {
    [KEYBOARD] = {KEYBOARD, keyboard_reports, sizeof(keyboard_reports),
                  HID_USB("USB keyboard", 1, 1, keyboard_extra, 8), &keyboard_input},
    [TABLET] = {TABLET, tablet_reports, sizeof(tablet_reports),
                HID_USB("USB tablet", 0, 0, tablet_extra, 8), &tablet_input},
    [MOUSE] = {MOUSE, mouse_reports, sizeof(mouse_reports),
               HID_USB("USB mouse", 1, 2, mouse_extra, 8), &mouse_input},
};

/* ---- lifecycle ---- */

static int hid_attach(struct device *dev, struct error *err, enum hid_kind kind)
{
    struct hid *h = hid_of(usb_device_of(dev));
    int status;

    h->model = &models[kind];
    h->usb.fastest = &h->model->usb;
    h->usb.ops = &hid_ops;
    h->usb.serial = dev->id;
    h->input = (struct input_device){.ops = h->model->input, .opaque = h};
    timer_init(&h->repeat, device_clocks(dev), CLOCK_ID_VIRTUAL, repeat, h);
    status = usb_attach(&h->usb, err);
    if (!status)
        input_add(machine_input(dev->machine), &h->input);
    return status;
}

static int keyboard_attach(struct device *dev, struct error *err)
{
    return hid_attach(dev, err, KEYBOARD);
}

static int tablet_attach(struct device *dev, struct error *err)
{
    return hid_attach(dev, err, TABLET);
}

static int mouse_attach(struct device *dev, struct error *err)
{
    return hid_attach(dev, err, MOUSE);
}

static void hid_detach(struct device *dev)
{
    struct hid *h = hid_of(usb_device_of(dev));

    input_remove(machine_input(dev->machine), &h->input);
    usb_detach(&h->usb);
    timer_done(&h->repeat);
}

static void hid_power_on(struct device *dev)
{
    struct hid *h = hid_of(usb_device_of(dev));

    usb_power_on(&h->usb);
    memset(h->down, 0, sizeof(h->down));
    h->last = (struct hid_event){0};
    memset(h->queue, 0, sizeof(h->queue));
    hid_reset(&h->usb);
}

static const struct property hid_properties[] = {
    USB_PROPERTIES(struct hid, usb),
    PROPERTY_END,
};

static const struct state_field event_state[] = {
    STATE_U8(struct hid_event, usage),
    STATE_BOOL(struct hid_event, pressed),
    STATE_U8_MAX(struct hid_event, buttons, ALL_BUTTONS),
    STATE_U32(struct hid_event, x),
    STATE_U32(struct hid_event, y),
    STATE_U32(struct hid_event, up),
    STATE_U32(struct hid_event, right),
    STATE_END,
};

static const struct state_field hid_state[] = {
    USB_STATE(struct hid, usb),
    STATE_BOOL(struct hid, is_boot),
    STATE_BOOL(struct hid, is_polled),
    STATE_U8(struct hid, idle),
    STATE_BOOL(struct hid, is_due),
    STATE_U8_MAX(struct hid, leds, 0x1f),
    STATE_BYTES(struct hid, down),
    STATE_BYTES(struct hid, shown),
    STATE_STRUCT(struct hid, last, event_state),
    STATE_STRUCTS(struct hid, queue, event_state),
    STATE_U8_MAX(struct hid, head, QUEUE - 1),
    STATE_U8_MAX(struct hid, count, QUEUE),
    STATE_BOOL(struct hid, has_lost),
    STATE_TIMER(struct hid, repeat),
    STATE_END,
};

static const struct state_group hid_groups[] = {
    USB_REQUEST_GROUP,
    {.name = NULL},
};

#define HID_CLASS(class_name, text, how)                                                           \
    {                                                                                              \
        .name = (class_name), .summary = (text), .bus = BUS_PLATFORM,                              \
        .instance_size = sizeof(struct hid), .properties = hid_properties, .attach = (how),        \
        .reset = hid_power_on, .detach = hid_detach, .state = {                                    \
            .version = 1,                                                                          \
            .oldest = 1,                                                                           \
            .fields = hid_state,                                                                   \
            .groups = hid_groups                                                                   \
        }                                                                                          \
    }

const struct device_class usb_kbd_class = HID_CLASS("usb-kbd", "USB keyboard", keyboard_attach);
const struct device_class usb_mouse_class = HID_CLASS("usb-mouse", "USB mouse", mouse_attach);
const struct device_class usb_tablet_class =
    HID_CLASS("usb-tablet", "USB tablet: a pointer that follows the host's", tablet_attach);
