/*
 * uhci.c - UHCI controller for USB 1.1: registers, reset, lifecycle, state
 *
 * UHCI Design Guide 1.1, chapter 2 and 5; ids of the one in Intel's PIIX3 (8086:7020). Two ports.
 *
 * Left out: single-stepping (SWDBG is only kept); traps of the legacy keyboard support, whose
 * register (LEGSUP) routes the interrupt and keeps what is written.
 *
 * Threads: machine lock held. Guest memory: the schedule, and what it names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/devices.h"
#include "devices/usb/uhci.h"

#define PCI_CLASS_UHCI 0x0c0300
#define PCI_RELEASE    0x60u /* of USB */
#define PCI_LEGSUP     0xc0u
#define LEGSUP_PIRQ    0x2000u /* interrupts go to the PCI line */
#define LEGSUP_WRITE   0x20bfu

enum uhci_register {
    REG_COMMAND = 0x00,
    REG_STATUS = 0x02,
    REG_INTERRUPTS = 0x04,
    REG_FRAME = 0x06,
    REG_LIST_LOW = 0x08,
    REG_LIST_HIGH = 0x0a,
    REG_SOF = 0x0c,
    REG_PORTS = 0x10,
};
#define REGISTER_BYTES  32u

#define CMD_WRITABLE    0x00fdu
#define STS_CLEARABLE   0x001fu
#define INTR_WRITABLE   0x000fu
#define INTR_ERROR      0x0001u
#define INTR_RESUME     0x0002u
#define INTR_DONE_SHIFT 2 /* from there on as causes */
#define FRAME_MASK      0x07ffu
#define SOF_INITIAL     64u
#define SOF_MASK        0x7fu

/* ---- interrupts and errors ---- */

static bool intx_level(const struct uhci *s)
{
    bool is_wanted = (s->status & UHCI_STS_INT && s->causes & s->interrupts >> INTR_DONE_SHIFT) ||
                     (s->status & UHCI_STS_ERROR && s->interrupts & INTR_ERROR) ||
                     (s->status & UHCI_STS_RESUME && s->interrupts & INTR_RESUME) ||
                     s->status & (UHCI_STS_SYSTEM | UHCI_STS_PROCESS);

    return is_wanted && pci_get16(s->function.config + PCI_LEGSUP) & LEGSUP_PIRQ;
}

void uhci_update_interrupts(struct uhci *s)
{
    pci_set_intx(&s->function, intx_level(s));
}

static void halt(struct uhci *s)
{
    s->command &= (uint16_t)~UHCI_CMD_RUN;
    s->status |= UHCI_STS_HALTED;
    uhci_stop_devices(s);
}

void uhci_fail(struct uhci *s, uint16_t error, const char *why)
{
    log_guest("%s: %s; it halts", s->function.dev.id, why);
    usb_frames_stop(&s->frames);
    halt(s);
    s->status |= error;
}

/* ---- reset, run and stop ---- */

static void reset_registers(struct uhci *s)
{
    usb_frames_stop(&s->frames);
    s->command = s->interrupts = 0;
    s->status = UHCI_STS_HALTED;
    s->causes = 0;
    s->frame_list = 0;
    s->sof = SOF_INITIAL;
    s->frames.number = s->frames.idle = 0;
    s->frames.begins_ns = 0;
    uhci_reset_ports(s);
}

static void write_command(struct uhci *s, uint16_t value)
{
    bool was_running = s->command & UHCI_CMD_RUN, was_suspended = s->command & UHCI_CMD_SUSPEND;
    bool runs;

    if (value & (UHCI_CMD_RESET | UHCI_CMD_GRESET)) {
        uhci_stop_devices(s);
        if (value & UHCI_CMD_GRESET)
            uhci_reset_bus(s);
        reset_registers(s);
        s->command = value & UHCI_CMD_GRESET;
        return;
    }
    s->command = value & CMD_WRITABLE;
    runs = value & UHCI_CMD_RUN;
    if (runs && !was_running) {
        s->status &= (uint16_t)~UHCI_STS_HALTED;
        usb_frames_start(&s->frames);
    } else if (!runs && was_running) {
        usb_frames_finish(&s->frames);
        halt(s);
    }
    if (s->command & UHCI_CMD_SUSPEND && !was_suspended)
        uhci_bus_suspended(s);
}

/* ---- registers ---- */

static uint16_t read_word(struct uhci *s, unsigned offset)
{
    uint64_t part_ns;

    switch (offset) {
    case REG_COMMAND:
        return s->command;
    case REG_STATUS:
        return s->status;
    case REG_INTERRUPTS:
        return s->interrupts;
    case REG_FRAME:
        return usb_frames_now(&s->frames, &part_ns) & FRAME_MASK;
    case REG_LIST_LOW:
        return (uint16_t)s->frame_list;
    case REG_LIST_HIGH:
        return (uint16_t)(s->frame_list >> 16);
    case REG_SOF:
        return s->sof;
    default:
        return offset >= REG_PORTS && offset < REG_PORTS + 2 * UHCI_PORTS
                   ? uhci_read_port(s, (offset - REG_PORTS) / 2)
                   : 0;
    }
}

static void write_word(struct uhci *s, unsigned offset, uint16_t value)
{
    switch (offset) {
    case REG_COMMAND:
        write_command(s, value);
        break;
    case REG_STATUS:
        s->status &= (uint16_t) ~(value & STS_CLEARABLE);
        if (!(s->status & UHCI_STS_INT))
            s->causes = 0;
        break;
    case REG_INTERRUPTS:
        s->interrupts = value & INTR_WRITABLE;
        break;
    case REG_FRAME:
        if (s->status & UHCI_STS_HALTED)
            s->frames.number = value & FRAME_MASK;
        break;
    case REG_LIST_LOW:
        s->frame_list = (s->frame_list & 0xffff0000u) | (value & 0xf000u);
        break;
    case REG_LIST_HIGH:
        s->frame_list = (s->frame_list & 0xffffu) | (uint32_t)value << 16;
        break;
    default:
        if (offset >= REG_PORTS && offset < REG_PORTS + 2 * UHCI_PORTS)
            uhci_write_port(s, (offset - REG_PORTS) / 2, value);
        break;
    }
}

static uint64_t registers_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct uhci *s = uhci_of(dev);
    unsigned at = (unsigned)offset & ~1u;

    if (size == 1)
        return read_word(s, at) >> 8 * (offset & 1) & 0xff;
    return read_word(s, at) | (size == 4 ? (uint32_t)read_word(s, at + 2) << 16 : 0);
}

/* Words are written as such (2.1); the one byte that is a register of its own is not. */
static void registers_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct uhci *s = uhci_of(dev);

    if (offset == REG_SOF)
        s->sof = value & SOF_MASK;
    else if (size >= 2)
        write_word(s, (unsigned)offset, (uint16_t)value);
    if (size == 4)
        write_word(s, (unsigned)offset + 2, (uint16_t)(value >> 16));
    usb_frames_wake(&s->frames);
    uhci_update_interrupts(s);
}

static const struct region_ops registers_ops = {
    .name = "uhci",
    .read = registers_read,
    .write = registers_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- configuration space ---- */

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    uhci_update_interrupts(uhci_of(&function->dev));
}

static const struct pci_function_desc function_desc = {
    .vendor_id = 0x8086,
    .device_id = 0x7020,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = PCI_CLASS_UHCI,
    .revision = 1,
    .multifunction = true, /* with others like it, and one of USB 2 */
    .bar = {[4] = {.kind = PCI_BAR_IO, .size_bytes = REGISTER_BYTES, .ops = &registers_ops}},
    .config_written = config_written,
};

static void build_config(struct pci_function *function)
{
    function->initial[PCI_RELEASE] = 0x10;
    pci_put16(function->initial + PCI_LEGSUP, LEGSUP_PIRQ);
    pci_put16(function->writable + PCI_LEGSUP, LEGSUP_WRITE);
}

/* ---- lifecycle ---- */

struct usb_bus *uhci_bus(struct device *dev)
{
    return &uhci_of(dev)->bus;
}

/* Functions of a slot have lines of their own. */
static int attach(struct device *dev, struct error *err)
{
    struct uhci *s = uhci_of(dev);
    struct pci_function_desc desc = function_desc;
    const char *dot = s->function.addr ? strrchr(s->function.addr, '.') : NULL;
    int status;

    desc.interrupt_pin = (uint8_t)(1 + (dot ? strtoul(dot + 1, NULL, 16) % 4 : 0));
    usb_frames_init(&s->frames, dev, uhci_run_frame);
    uhci_init_ports(s);
    reset_registers(s);
    status = pci_attach(&s->function, &desc, err);
    if (!status)
        build_config(&s->function);
    return status;
}

static void detach(struct device *dev)
{
    struct uhci *s = uhci_of(dev);

    for (unsigned n = 0; n < UHCI_PORTS; n++) {
        if (s->ports[n].device)
            s->ports[n].device->port = NULL;
        if (s->ports[n].twin)
            s->ports[n].twin->twin = NULL;
    }
    timer_done(&s->frames.timer);
    dma_list_free(&s->list);
    pci_detach(&s->function);
}

static void reset(struct device *dev)
{
    reset_registers(uhci_of(dev));
}

/* ---- state ---- */

static int after_load(void *object, struct error *err)
{
    struct uhci *s = object;
    bool runs = s->command & UHCI_CMD_RUN;

    if (runs == !!(s->status & UHCI_STS_HALTED) || runs != timer_is_armed(&s->frames.timer))
        return error_set(err, EINVAL, "%s: it cannot run and be halted", s->function.dev.id);
    for (unsigned n = 0; n < UHCI_PORTS; n++)
        s->port_status[n] &= UHCI_PORT_KEPT;
    s->function.intx_level = intx_level(s);
    return pci_after_load(&s->function, err);
}

static const struct property properties[] = {
    PCI_PROPERTIES(struct uhci, function),
    PROPERTY_END,
};

static const struct state_field state[] = {
    PCI_STATE(struct uhci, function),
    STATE_U16_MAX(struct uhci, command, CMD_WRITABLE),
    STATE_U16_MAX(struct uhci, status, STS_CLEARABLE | UHCI_STS_HALTED),
    STATE_U16_MAX(struct uhci, interrupts, INTR_WRITABLE),
    STATE_U32(struct uhci, frame_list),
    STATE_U8_MAX(struct uhci, sof, SOF_MASK),
    STATE_U8_MAX(struct uhci, causes, UHCI_CAUSE_DONE | UHCI_CAUSE_SHORT),
    STATE_U16S(struct uhci, port_status),
    STATE_STRUCT(struct uhci, frames, usb_frames_state),
    STATE_END,
};

const struct device_class uhci_class = {
    .name = "uhci",
    .summary = "USB 1.1 controller (UHCI)",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct uhci),
    .properties = properties,
    .attach = attach,
    .reset = reset,
    .detach = detach,
    .state = {.version = 1, .oldest = 1, .fields = state, .after_load = after_load},
};
