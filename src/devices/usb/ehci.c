/*
 * ehci.c - EHCI controller for USB 2: registers, reset, lifecycle, state
 *
 * EHCI 1.0, chapter 2; ids of the one in Intel's ICH9 (8086:293a). Six ports. The UHCI controllers
 * that are functions of the same slot are its companions: two ports each, in their order.
 * Without companions only devices of High Speed can be there.
 *
 * Left out: isochronous transfers (iTDs and siTDs are passed over), the hand-over from firmware
 * (there is no such capability), 64-bit addresses, port tests (kept, not done), the light reset;
 * the interrupt threshold is kept, interrupts come at the end of a frame.
 *
 * Threads: machine lock held. Guest memory: the schedules, and what they name.
 */
#include <errno.h>

#include "base/log.h"
#include "devices/devices.h"
#include "devices/usb/ehci.h"

#define PCI_CLASS_EHCI     0x0c0320
#define PCI_RELEASE        0x60u /* of USB */
#define PCI_FRAME_LENGTH   0x61u
#define FRAME_LENGTH       0x20u

#define REGISTER_BYTES     0x400u
#define OPERATIONAL        0x20u
#define VERSION            0x0100u
#define HCCPARAMS          0x0002u /* the frame list has other sizes */
#define PORTS_OF_COMPANION 2u

enum ehci_register {
    REG_CAPLENGTH = 0x00,
    REG_HCSPARAMS = 0x04,
    REG_HCCPARAMS = 0x08,
    REG_COMMAND = OPERATIONAL,
    REG_STATUS = OPERATIONAL + 0x04,
    REG_INTERRUPTS = OPERATIONAL + 0x08,
    REG_FRAME = OPERATIONAL + 0x0c,
    REG_PERIODIC = OPERATIONAL + 0x14,
    REG_ASYNC = OPERATIONAL + 0x18,
    REG_CONFIGURED = OPERATIONAL + 0x40,
    REG_PORTS = OPERATIONAL + 0x44,
};

#define CMD_WRITABLE                                                                               \
    (EHCI_CMD_RUN | EHCI_CMD_SIZE | EHCI_CMD_PERIODIC | EHCI_CMD_ASYNC | EHCI_CMD_DOORBELL |       \
     EHCI_CMD_THRESHOLD)
#define CMD_INITIAL   0x00080000u
#define SCHEDULES     (EHCI_CMD_PERIODIC | EHCI_CMD_ASYNC | EHCI_CMD_DOORBELL)
#define MICROFRAME_NS (USB_FRAME_NS / 8)
#define FRAME_MASK    0x3fffu
#define PERIODIC_MASK 0xfffff000u
#define ASYNC_MASK    0xffffffe0u
#define IDLE_PACE     256u /* frames, when both schedules are switched off */

/* ---- interrupts and errors ---- */

static bool intx_level(const struct ehci *s)
{
    return s->status & s->interrupts;
}

void ehci_update_interrupts(struct ehci *s)
{
    pci_set_intx(&s->function, intx_level(s));
}

static void halt(struct ehci *s)
{
    s->command &= ~EHCI_CMD_RUN;
    ehci_stop_devices(s);
}

void ehci_fail(struct ehci *s, const char *why)
{
    log_guest("%s: %s; it halts", s->function.dev.id, why);
    usb_frames_stop(&s->frames);
    halt(s);
    s->status |= EHCI_STS_SYSTEM;
}

/* ---- reset, run and stop ---- */

static void reset_registers(struct ehci *s)
{
    usb_frames_stop(&s->frames);
    s->command = CMD_INITIAL;
    s->interrupts = 0;
    s->periodic_list = s->async_list = 0;
    s->frames.number = s->frames.idle = s->last_frame = 0;
    s->frames.begins_ns = 0;
    ehci_reset_ports(s);
    s->status = 0; /* of ports, too */
    ehci_update_interrupts(s);
}

/* Without a schedule frames are only counted. */
static void choose_pace(struct ehci *s)
{
    bool has_work = s->command & SCHEDULES || s->interrupts & EHCI_STS_ROLLOVER;

    s->frames.pace = has_work ? 0 : IDLE_PACE;
}

static void write_command(struct ehci *s, uint32_t value)
{
    bool was_running = s->command & EHCI_CMD_RUN, runs = value & EHCI_CMD_RUN;

    if (value & EHCI_CMD_RESET) {
        ehci_stop_devices(s);
        reset_registers(s);
        return;
    }
    s->command = (value & CMD_WRITABLE) | (s->command & EHCI_CMD_DOORBELL);
    if (runs && !was_running) {
        usb_frames_start(&s->frames);
    } else if (!runs && was_running) {
        usb_frames_finish(&s->frames);
        halt(s);
    }
}

/* ---- registers ---- */

static uint32_t read_frame(const struct ehci *s)
{
    uint64_t part_ns;
    uint32_t frame = usb_frames_now(&s->frames, &part_ns);

    return (frame * 8 + (uint32_t)(part_ns / MICROFRAME_NS)) & FRAME_MASK;
}

static uint32_t read_status(const struct ehci *s)
{
    bool runs = s->command & EHCI_CMD_RUN;

    return s->status | (runs ? 0 : EHCI_STS_HALTED) |
           (runs && s->command & EHCI_CMD_PERIODIC ? EHCI_STS_PERIODIC : 0) |
           (runs && s->command & EHCI_CMD_ASYNC ? EHCI_STS_ASYNC : 0);
}

static uint64_t registers_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct ehci *s = ehci_of(dev);

    (void)size;
    switch (offset) {
    case REG_CAPLENGTH:
        return OPERATIONAL | VERSION << 16;
    case REG_HCSPARAMS:
        return EHCI_PORTS | (s->companions ? PORTS_OF_COMPANION << 8 : 0) | s->companions << 12;
    case REG_HCCPARAMS:
        return HCCPARAMS;
    case REG_COMMAND:
        return s->command;
    case REG_STATUS:
        return read_status(s);
    case REG_INTERRUPTS:
        return s->interrupts;
    case REG_FRAME:
        return read_frame(s);
    case REG_PERIODIC:
        return s->periodic_list;
    case REG_ASYNC:
        return s->async_list;
    case REG_CONFIGURED:
        return s->is_configured;
    default:
        return offset >= REG_PORTS && offset < REG_PORTS + 4 * EHCI_PORTS
                   ? ehci_read_port(s, (unsigned)(offset - REG_PORTS) / 4)
                   : 0;
    }
}

static void write_register(struct ehci *s, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_COMMAND:
        write_command(s, value);
        break;
    case REG_STATUS:
        s->status &= ~(value & EHCI_STS_KEPT);
        break;
    case REG_INTERRUPTS:
        s->interrupts = value & EHCI_STS_KEPT;
        break;
    case REG_FRAME:
        if (!(s->command & EHCI_CMD_RUN))
            s->frames.number = s->last_frame = (value & FRAME_MASK) / 8;
        break;
    case REG_PERIODIC:
        s->periodic_list = value & PERIODIC_MASK;
        break;
    case REG_ASYNC:
        s->async_list = value & ASYNC_MASK;
        break;
    case REG_CONFIGURED:
        ehci_configure(s, value & 1);
        break;
    default:
        if (offset >= REG_PORTS && offset < REG_PORTS + 4 * EHCI_PORTS)
            ehci_write_port(s, (unsigned)(offset - REG_PORTS) / 4, value);
        break;
    }
}

static void registers_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct ehci *s = ehci_of(dev);

    (void)size;
    write_register(s, offset, (uint32_t)value);
    choose_pace(s);
    usb_frames_wake(&s->frames);
    ehci_update_interrupts(s);
}

static const struct region_ops registers_ops = {
    .name = "ehci",
    .read = registers_read,
    .write = registers_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- lifecycle ---- */

static const struct pci_function_desc function_desc = {
    .vendor_id = 0x8086,
    .device_id = 0x293a,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = PCI_CLASS_EHCI,
    .revision = 3,
    .interrupt_pin = 4,
    .bar = {{.kind = PCI_BAR_MEMORY32, .size_bytes = REGISTER_BYTES, .ops = &registers_ops}},
};

static void build_config(struct pci_function *function)
{
    function->initial[PCI_RELEASE] = 0x20;
    function->initial[PCI_FRAME_LENGTH] = FRAME_LENGTH;
    function->writable[PCI_FRAME_LENGTH] = 0x3f;
}

struct usb_bus *ehci_bus(struct device *dev)
{
    return &ehci_of(dev)->bus;
}

static int attach(struct device *dev, struct error *err)
{
    struct ehci *s = ehci_of(dev);
    int status;

    usb_frames_init(&s->frames, dev, ehci_run_frame);
    ehci_init_ports(s);
    status = pci_attach(&s->function, &function_desc, err);
    if (status)
        return status;
    build_config(&s->function);
    ehci_find_companions(s);
    reset_registers(s);
    return 0;
}

static void detach(struct device *dev)
{
    struct ehci *s = ehci_of(dev);

    for (unsigned n = 0; n < EHCI_PORTS; n++)
        if (s->ports[n].device)
            s->ports[n].device->port = NULL;
    ehci_lose_companions(s);
    timer_done(&s->frames.timer);
    dma_list_free(&s->list);
    pci_detach(&s->function);
}

static void reset(struct device *dev)
{
    reset_registers(ehci_of(dev));
}

/* ---- state ---- */

static int after_load(void *object, struct error *err)
{
    struct ehci *s = object;

    if (!(s->command & EHCI_CMD_RUN) != !timer_is_armed(&s->frames.timer))
        return error_set(err, EINVAL, "%s: it cannot run and be halted", s->function.dev.id);
    s->command &= CMD_WRITABLE;
    s->periodic_list &= PERIODIC_MASK;
    s->async_list &= ASYNC_MASK;
    ehci_ports_loaded(s);
    choose_pace(s);
    s->function.intx_level = intx_level(s);
    return pci_after_load(&s->function, err);
}

static const struct property properties[] = {
    PCI_PROPERTIES(struct ehci, function),
    PROPERTY_END,
};

static const struct state_field state[] = {
    PCI_STATE(struct ehci, function),
    STATE_U32(struct ehci, command),
    STATE_U32_MAX(struct ehci, status, EHCI_STS_KEPT),
    STATE_U32_MAX(struct ehci, interrupts, EHCI_STS_KEPT),
    STATE_U32(struct ehci, periodic_list),
    STATE_U32(struct ehci, async_list),
    STATE_BOOL(struct ehci, is_configured),
    STATE_U32S(struct ehci, port_status),
    STATE_STRUCT(struct ehci, frames, usb_frames_state),
    STATE_U32(struct ehci, last_frame),
    STATE_END,
};

const struct device_class ehci_class = {
    .name = "ehci",
    .summary = "USB 2 controller (EHCI); UHCI controllers in its slot are its companions",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct ehci),
    .properties = properties,
    .attach = attach,
    .reset = reset,
    .detach = detach,
    .state = {.version = 1, .oldest = 1, .fields = state, .after_load = after_load},
};
