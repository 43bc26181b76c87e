/*
 * storage.c - USB stick: a SCSI disk behind the bulk-only transport
 *
 * Universal Serial Bus Mass Storage Class, Bulk-Only Transport 1.0; the commands are scsi/disk.c's.
 *
 * Theory of operation. A command block (CBW) says how many bytes the host will move. For a command
 * that takes data these are collected in a buffer first; then it is executed, and data that it
 * gives is in the buffer when it has ended. The host always gets and gives as many bytes as it
 * said, filled up with zeros; the status (CSW) tells how many of them mean something. Sense data is
 * kept until REQUEST SENSE, as the transport has no place for it.
 *
 * Threads: machine lock held. Guest memory: not touched; controllers move the data.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/scsi/scsi.h"
#include "devices/usb/usb.h"
#include "trapeze/pci.h"

#define BULK_IN         0x81u
#define BULK_OUT        0x02u
#define BUFFER_BYTES    (1u << 20) /* more is not moved by one command */
#define CBW_BYTES       31u
#define CSW_BYTES       13u
#define CBW_SIGNATURE   0x43425355u
#define CSW_SIGNATURE   0x53425355u
#define REQUEST_SENSE   0x03u
#define BULK_ONLY_RESET 0xffu
#define GET_MAX_LUN     0xfeu
#define CLASS_TO_HOST   0xa1u
#define CLASS_TO_DEVICE 0x21u

enum phase {
    PHASE_COMMAND,   /* a CBW is next */
    PHASE_DATA_OUT,  /* the host's data */
    PHASE_EXECUTING, /* the disk has the command */
    PHASE_DATA_IN,   /* data for the host */
    PHASE_STATUS,    /* a CSW is next */
    PHASES,
};

enum csw_status { CSW_GOOD = 0, CSW_FAILED = 1, CSW_PHASE_ERROR = 2 };

struct stick {
    struct usb_device usb;

    /* Configuration. */
    struct block *drive; /* property */
    char *serial;        /* property */

    /* Guest-visible state. */
    struct scsi_disk disk;
    uint8_t phase;                       /* enum phase */
    uint8_t status;                      /* enum csw_status */
    bool is_in;                          /* the host wants data */
    bool is_wedged;                      /* by what is no CBW: until Bulk-Only Mass Storage Reset */
    uint32_t tag, length, moved, useful; /* of the command; bytes */
    uint8_t cdb[16];
    uint8_t sense[SCSI_SENSE_BYTES];
    uint8_t buffer[BUFFER_BYTES];

    bool is_busy; /* the disk has request */
    struct scsi_request request;
};

static struct stick *stick_of(struct usb_device *usb)
{
    return container_of(usb, struct stick, usb);
}

/* ---- commands ---- */

static void ended(struct stick *s, enum csw_status status, uint32_t useful)
{
    s->status = status;
    s->useful = useful < s->length ? useful : s->length;
    s->phase = s->is_in && s->length ? PHASE_DATA_IN : PHASE_STATUS;
    usb_wake(&s->usb, BULK_IN);
}

static void executed(struct scsi_request *request)
{
    struct stick *s = container_of(request, struct stick, request);

    s->is_busy = false;
    if (request->overrun) {
        ended(s, CSW_PHASE_ERROR, 0);
        return;
    }
    if (request->status == SCSI_CHECK_CONDITION)
        memcpy(s->sense, request->sense, sizeof(s->sense));
    else
        memset(s->sense, 0, sizeof(s->sense));
    ended(s, request->status == SCSI_GOOD ? CSW_GOOD : CSW_FAILED,
          (uint32_t)request->transferred_bytes);
}

/* Sense data of the last command, if it had any. */
static bool give_sense(struct stick *s)
{
    uint32_t size = s->cdb[4] < SCSI_SENSE_BYTES ? s->cdb[4] : SCSI_SENSE_BYTES;

    if (s->cdb[0] != REQUEST_SENSE || !s->sense[0] || !s->is_in)
        return false;
    memcpy(s->buffer, s->sense, sizeof(s->sense));
    memset(s->sense, 0, sizeof(s->sense));
    ended(s, CSW_GOOD, size);
    return true;
}

static void refuse(struct stick *s)
{
    memset(s->sense, 0, sizeof(s->sense));
    s->sense[0] = 0x70;
    s->sense[2] = SCSI_INVALID_FIELD >> 16 & 0xf;
    s->sense[7] = SCSI_SENSE_BYTES - 8;
    s->sense[12] = SCSI_INVALID_FIELD >> 8 & 0xff;
    ended(s, CSW_FAILED, 0);
}

static void execute(struct stick *s)
{
    struct scsi_request *r = &s->request;

    s->phase = PHASE_EXECUTING;
    if (s->length > BUFFER_BYTES) {
        refuse(s);
        return;
    }
    if (s->is_in)
        memset(s->buffer, 0, s->length);
    if (give_sense(s))
        return;
    memset(r->cdb, 0, sizeof(r->cdb));
    memcpy(r->cdb, s->cdb, sizeof(s->cdb));
    r->is_unit = true;
    r->from_unit = s->is_in;
    r->size_bytes = s->length;
    r->piece_count = s->length ? 1 : 0;
    r->pieces[0] = (struct io_piece){s->buffer, s->length};
    r->done = executed;
    s->is_busy = true;
    scsi_disk_execute(&s->disk, r);
}

/* A CBW that makes no sense: both pipes stall until the guest resets the transport (6.6.1). */
static enum usb_status wedge(struct stick *s)
{
    s->is_wedged = true;
    return USB_STALL;
}

static enum usb_status take_command(struct stick *s, struct usb_data *data)
{
    uint8_t cbw[CBW_BYTES];

    if (data->size_bytes != CBW_BYTES || usb_take(data, cbw, CBW_BYTES) != CBW_BYTES ||
        get_le32(cbw) != CBW_SIGNATURE || cbw[13] || !cbw[14] || cbw[14] > 16)
        return wedge(s);
    s->tag = get_le32(cbw + 4);
    s->length = get_le32(cbw + 8);
    s->moved = s->useful = 0;
    s->is_in = cbw[12] & 0x80;
    memset(s->cdb, 0, sizeof(s->cdb));
    memcpy(s->cdb, cbw + 15, cbw[14]);
    if (s->length && !s->is_in)
        s->phase = PHASE_DATA_OUT;
    else
        execute(s);
    return USB_DONE;
}

/* ---- data and status ---- */

static uint32_t min_length(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

static enum usb_status take_data(struct stick *s, struct usb_data *data)
{
    uint32_t size = min_length(data->size_bytes, s->length - s->moved);
    bool fits = s->length <= BUFFER_BYTES;

    if (data->size_bytes > s->length - s->moved)
        return wedge(s);
    s->moved += (uint32_t)usb_take(data, fits ? s->buffer + s->moved : NULL, size);
    if (s->moved == s->length)
        execute(s);
    return USB_DONE;
}

static enum usb_status give_data(struct stick *s, struct usb_data *data)
{
    uint32_t size = min_length(data->size_bytes, s->length - s->moved);
    bool fits = s->length <= BUFFER_BYTES;

    s->moved += (uint32_t)usb_put(data, fits ? s->buffer + s->moved : NULL, size);
    if (s->moved == s->length)
        s->phase = PHASE_STATUS;
    return USB_DONE;
}

static enum usb_status give_status(struct stick *s, struct usb_data *data)
{
    uint8_t csw[CSW_BYTES];

    put_le32(csw, CSW_SIGNATURE);
    put_le32(csw + 4, s->tag);
    put_le32(csw + 8, s->length - s->useful);
    csw[12] = s->status;
    s->phase = PHASE_COMMAND;
    return usb_send(data, csw, sizeof(csw));
}

static enum usb_status stick_transfer(struct usb_device *usb, uint8_t endpoint,
                                      struct usb_data *data)
{
    struct stick *s = stick_of(usb);

    if (s->is_wedged)
        return USB_STALL;
    if (endpoint == BULK_OUT) {
        if (s->phase == PHASE_COMMAND)
            return take_command(s, data);
        return s->phase == PHASE_DATA_OUT ? take_data(s, data) : USB_NAK;
    }
    if (s->phase == PHASE_DATA_IN)
        return give_data(s, data);
    return s->phase == PHASE_STATUS ? give_status(s, data) : USB_NAK;
}

/* What the disk still does ends unseen. */
static void forget(struct usb_device *usb)
{
    struct stick *s = stick_of(usb);

    if (s->is_busy)
        block_drain(s->drive);
    s->phase = PHASE_COMMAND;
    s->status = CSW_GOOD;
    s->is_in = s->is_wedged = false;
    s->tag = s->length = s->moved = s->useful = 0;
    memset(s->cdb, 0, sizeof(s->cdb));
    memset(s->sense, 0, sizeof(s->sense));
}

static enum usb_status stick_control(struct usb_device *usb, const struct usb_setup *setup,
                                     uint8_t *data, size_t *out_bytes)
{
    if (setup->index || setup->value)
        return USB_STALL;
    if (setup->type == CLASS_TO_HOST && setup->request == GET_MAX_LUN) {
        data[0] = 0;
        *out_bytes = 1;
        return USB_DONE;
    }
    if (setup->type != CLASS_TO_DEVICE || setup->request != BULK_ONLY_RESET)
        return USB_STALL;
    forget(usb);
    return USB_DONE;
}

static const struct usb_device_ops stick_ops = {
    .reset = forget,
    .control = stick_control,
    .transfer = stick_transfer,
};

#define STICK_USB(of_speed, packet, bursts)                                                        \
    .speed = (of_speed), .vendor = USB_VENDOR_STORAGE, .product = USB_PRODUCT_STORAGE,             \
    .release = 0x0100, .maker = "Trapeze", .name = "USB stick", .class = 0x08, .subclass = 0x06,   \
    .protocol = 0x50, .power = 50, .endpoint_count = 2,                                            \
    .endpoints = {{.address = BULK_IN, .type = 2, .max_packet = (packet), .burst = (bursts)},      \
                  {.address = BULK_OUT, .type = 2, .max_packet = (packet), .burst = (bursts)}}

static const struct usb_description stick_on_usb1 = {STICK_USB(USB_FULL, 64, 0)};
static const struct usb_description stick_on_usb2 = {STICK_USB(USB_HIGH, 512, 0),
                                                     .slower = &stick_on_usb1};
static const struct usb_description stick_description = {STICK_USB(USB_SUPER, 1024, 15),
                                                         .slower = &stick_on_usb2};

/* ---- lifecycle ---- */

static int stick_attach(struct device *dev, struct error *err)
{
    struct stick *s = stick_of(usb_device_of(dev));

    if (!s->drive)
        return error_set(err, EINVAL, "%s: it has no disk; use --disk FILE,if=usb", dev->id);
    if (strlen(s->serial) > SCSI_MAX_SERIAL)
        return error_set(err, EINVAL, "%s: serial=%s is longer than %u characters", dev->id,
                         s->serial, SCSI_MAX_SERIAL);
    s->usb.fastest = &stick_description;
    s->usb.ops = &stick_ops;
    s->usb.serial = *s->serial ? s->serial : dev->id;
    s->disk = (struct scsi_disk){.drive = s->drive, .serial = s->usb.serial, .is_removable = true};
    return usb_attach(&s->usb, err);
}

static void stick_detach(struct device *dev)
{
    struct stick *s = stick_of(usb_device_of(dev));

    usb_detach(&s->usb);
    if (s->is_busy)
        block_drain(s->drive);
}

static void stick_reset(struct device *dev)
{
    struct stick *s = stick_of(usb_device_of(dev));

    usb_power_on(&s->usb);
    forget(&s->usb);
    scsi_disk_reset(&s->disk, SCSI_POWER_ON);
}

static void stick_quiesce(struct device *dev)
{
    struct stick *s = stick_of(usb_device_of(dev));
    struct block_request *kept;
    int status;

    block_quiesce(s->drive);
    while ((kept = block_take_kept(s->drive, &status))) {
        scsi_forget(scsi_of_kept(kept));
        s->is_busy = false;
    }
}

/* A command that failed at the disk, and paused the machine, is executed again. */
static void stick_resume(struct device *dev)
{
    struct stick *s = stick_of(usb_device_of(dev));

    if (s->phase == PHASE_EXECUTING && !s->is_busy)
        execute(s);
}

static void stick_boot_path(struct device *dev, char *out, size_t size)
{
    const struct usb_port *port = usb_device_of(dev)->port;
    char behind[128], rest[sizeof(behind)];

    port = usb_fastest_port(port);
    snprintf(behind, sizeof(behind), "/storage@%x/channel@0/disk@0,0", port->number);
    for (; port->controller->class == &usb_hub_class; strcpy(behind, rest)) {
        port = usb_fastest_port(usb_device_of(port->controller)->port);
        snprintf(rest, sizeof(rest), "/hub@%x%.100s", port->number, behind);
    }
    pci_boot_path(pci_function_of(port->controller), "usb", behind, out, size);
}

static int stick_after_load(void *object, struct error *err)
{
    const struct stick *s = object;
    bool has_data = s->phase == PHASE_DATA_IN || s->phase == PHASE_DATA_OUT;

    if (s->moved > s->length || s->useful > s->length || (has_data && s->moved == s->length))
        return error_set(err, EINVAL, "%s: it cannot be as it is saved", s->usb.dev.id);
    return 0;
}

static const struct property stick_properties[] = {
    USB_PROPERTIES(struct stick, usb),
    PROPERTY_POINTER(struct stick, drive, "disk"),
    PROPERTY_STRING(struct stick, serial, "", "serial number, up to 20 characters"),
    PROPERTY_END,
};

static const struct state_field stick_state[] = {
    USB_STATE(struct stick, usb),
    SCSI_DISK_STATE(struct stick, disk),
    STATE_U8_MAX(struct stick, phase, PHASES - 1),
    STATE_U8_MAX(struct stick, status, CSW_PHASE_ERROR),
    STATE_BOOL(struct stick, is_in),
    STATE_BOOL(struct stick, is_wedged),
    STATE_U32(struct stick, tag),
    STATE_U32(struct stick, length),
    STATE_U32(struct stick, moved),
    STATE_U32(struct stick, useful),
    STATE_BYTES(struct stick, cdb),
    STATE_BYTES(struct stick, sense),
    STATE_END,
};

static bool needs_buffer(const void *object)
{
    const struct stick *s = object;

    return s->phase != PHASE_COMMAND && s->phase != PHASE_STATUS;
}

static const struct state_field buffer_state[] = {
    STATE_BYTES(struct stick, buffer),
    STATE_END,
};

static const struct state_group stick_groups[] = {
    USB_REQUEST_GROUP,
    {.name = "data", .needed = needs_buffer, .fields = buffer_state},
    {.name = NULL},
};

const struct device_class usb_storage_class = {
    .name = "usb-storage",
    .summary = "USB stick",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct stick),
    .properties = stick_properties,
    .attach = stick_attach,
    .reset = stick_reset,
    .detach = stick_detach,
    .quiesce = stick_quiesce,
    .resume = stick_resume,
    .boot_path = stick_boot_path,
    .state = {.version = 1,
              .oldest = 1,
              .fields = stick_state,
              .groups = stick_groups,
              .after_load = stick_after_load},
};
