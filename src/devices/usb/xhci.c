/*
 * xhci.c - xHCI controller: registers, reset, lifecycle, state
 *
 * eXtensible Host Controller Interface 1.2, chapter 5; the registers say 1.1. 32 slots, four
 * interrupters (MSI-X, MSI or INTx), four ports of USB 3 and eight of USB 2, no scratchpad.
 *
 * Left out: isochronous endpoints and streams, which are refused; the debug capability,
 * virtualization, bandwidth negotiation. Saving the internal state for a suspend of the controller
 * is left to the driver: Restore State fails, and it begins anew.
 *
 * Threads: machine lock held. Guest memory: rings, contexts, and what transfers name.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/devices.h"
#include "devices/usb/xhci.h"
#include "trapeze/machine.h"

#define REGISTER_BYTES    0x4000u
#define MSIX_TABLE_OFFSET 0x3000u
#define MSIX_PBA_OFFSET   0x3800u
#define PCI_CLASS_XHCI    0x0c0330

#define OPERATIONAL       0x40u
#define PORTS             0x440u
#define PROTOCOLS         0x500u
#define RUNTIME           0x1000u
#define INTERRUPTERS      (RUNTIME + 0x20u)
#define DOORBELLS         0x2000u

enum xhci_register {
    REG_CAPLENGTH = 0x00,
    REG_HCSPARAMS1 = 0x04,
    REG_HCSPARAMS2 = 0x08,
    REG_HCCPARAMS1 = 0x10,
    REG_DBOFF = 0x14,
    REG_RTSOFF = 0x18,
    REG_USBCMD = OPERATIONAL,
    REG_USBSTS = OPERATIONAL + 0x04,
    REG_PAGESIZE = OPERATIONAL + 0x08,
    REG_DNCTRL = OPERATIONAL + 0x14,
    REG_CRCR_LOW = OPERATIONAL + 0x18,
    REG_CRCR_HIGH = OPERATIONAL + 0x1c,
    REG_DCBAAP_LOW = OPERATIONAL + 0x30,
    REG_DCBAAP_HIGH = OPERATIONAL + 0x34,
    REG_CONFIG = OPERATIONAL + 0x38,
    REG_MFINDEX = RUNTIME,
};

#define VERSION        0x0110u
#define HCSPARAMS1     (XHCI_SLOTS | XHCI_INTERRUPTERS << 8 | XHCI_PORTS << 24)
#define HCSPARAMS2     0x00000040u                         /* 16 segments of an event ring */
#define HCCPARAMS1     (0x00000181u | PROTOCOLS / 4 << 16) /* 64-bit; event data; no second ids */
#define CMD_WRITABLE   (XHCI_CMD_RUN | XHCI_CMD_INTE | XHCI_CMD_HSEE | 0xc00u)
#define STS_CLEARABLE  (XHCI_STS_HSE | XHCI_STS_EINT | XHCI_STS_PCD | XHCI_STS_SRE)
#define RING_MASK      (~(uint64_t)0x3f)
#define MICROFRAME_NS  125000u
#define MFINDEX_MASK   0x3fffu
#define ROUNDS_AT_ONCE 4u

/* Supported protocols (7.2): capability, revision, "USB ", first port and count. */
static const uint32_t protocols[] = {
    0x03000402,
    0x20425355,
    1u | XHCI_SUPER_PORTS << 8,
    0,
    0x02000002,
    0x20425355,
    (XHCI_SUPER_PORTS + 1) | (XHCI_PORTS - XHCI_SUPER_PORTS) << 8,
    0,
};

/* ---- work ---- */

void xhci_later(struct xhci *s)
{
    timer_arm(&s->more, device_now_ns(&s->function.dev));
}

void xhci_fail(struct xhci *s, const char *why)
{
    log_guest("%s: %s; it stands still until it is reset", s->function.dev.id, why);
    s->status |= XHCI_STS_HSE | XHCI_STS_HALTED;
    s->command &= ~XHCI_CMD_RUN;
    s->commands_run = false;
}

/* Endpoints that were kicked; those that a device wakes meanwhile are among them. */
static bool run_endpoints(struct xhci *s)
{
    bool any = false;

    for (unsigned slot = 0; slot < XHCI_SLOTS; slot++) {
        uint32_t kicked = s->slots[slot].kicked;

        s->slots[slot].kicked = 0;
        for (unsigned dci = 1; kicked && dci <= XHCI_ENDPOINTS; dci++)
            if (kicked >> dci & 1 && xhci_is_running(s))
                xhci_run_endpoint(s, slot, dci);
        any |= s->slots[slot].kicked != 0;
    }
    return any;
}

void xhci_work(struct xhci *s)
{
    bool any = true;

    if (s->is_working || !xhci_is_running(s))
        return;
    s->is_working = true;
    s->is_starved = false;
    xhci_run_commands(s);
    for (unsigned n = 0; n < ROUNDS_AT_ONCE && any && !s->is_starved; n++)
        any = run_endpoints(s);
    if (any && !s->is_starved)
        xhci_later(s);
    s->is_working = false;
}

static void do_more(void *opaque)
{
    xhci_work(opaque);
}

static void ring_doorbell(struct xhci *s, unsigned n, uint32_t value)
{
    unsigned dci = value & 0xff;
    struct xhci_endpoint *endpoint;

    if (!xhci_is_running(s) || n > XHCI_SLOTS)
        return;
    if (n == 0) {
        s->commands_run |= dci == 0;
        xhci_work(s);
        return;
    }
    if (!dci || dci > XHCI_ENDPOINTS || value >> 16)
        return;
    endpoint = &s->slots[n - 1].endpoints[dci - 1];
    if (endpoint->state == XHCI_EP_STOPPED) {
        endpoint->state = XHCI_EP_RUNNING;
        xhci_put_endpoint(s, &s->slots[n - 1], dci);
    }
    if (endpoint->state != XHCI_EP_RUNNING)
        return;
    s->slots[n - 1].kicked |= 1u << dci;
    xhci_work(s);
}

/* ---- reset, run and stop ---- */

static void reset_controller(struct xhci *s)
{
    timer_cancel(&s->more);
    s->command = s->notification = s->config = 0;
    s->status = XHCI_STS_HALTED;
    s->command_ring = s->contexts = 0;
    s->commands = (struct xhci_ring){0};
    s->commands_run = false;
    memset(s->slots, 0, sizeof(s->slots));
    s->started_ns = 0;
    xhci_reset_interrupters(s);
    xhci_reset_ports(s);
}

static void reset_bus(struct xhci *s)
{
    reset_controller(s);
    for (unsigned n = 0; n < XHCI_PORTS; n++)
        if (s->ports[n].device)
            usb_reset(s->ports[n].device);
    xhci_update_interrupts(s);
}

static void run(struct xhci *s)
{
    s->status &= ~XHCI_STS_HALTED;
    s->started_ns = device_now_ns(&s->function.dev);
    for (unsigned slot = 0; slot < XHCI_SLOTS; slot++)
        s->slots[slot].kicked = s->slots[slot].is_enabled ? ~1u : 0;
    xhci_report_ports(s);
    xhci_work(s);
}

static void write_command(struct xhci *s, uint32_t value)
{
    uint32_t before = s->command;

    if (value & XHCI_CMD_RESET) {
        reset_bus(s);
        return;
    }
    s->command = value & CMD_WRITABLE;
    if (value & XHCI_CMD_CRS) /* nothing was saved */
        s->status |= XHCI_STS_SRE;
    if (value & XHCI_CMD_RUN && !(before & XHCI_CMD_RUN)) {
        run(s);
    } else if (before & XHCI_CMD_RUN && !(value & XHCI_CMD_RUN)) {
        s->status |= XHCI_STS_HALTED;
        s->commands_run = false;
    }
    xhci_update_interrupts(s);
}

/* ---- registers ---- */

static void write_command_ring(struct xhci *s, bool is_high, uint32_t value)
{
    if (s->commands_run) {
        if (!is_high && value & (XHCI_CRCR_STOP | XHCI_CRCR_ABORT))
            xhci_stop_commands(s);
        return;
    }
    s->command_ring = is_high ? (uint32_t)s->command_ring | (uint64_t)value << 32
                              : (s->command_ring & ~(uint64_t)UINT32_MAX) | value;
    s->commands =
        (struct xhci_ring){s->command_ring & RING_MASK, s->command_ring & XHCI_CRCR_CYCLE};
}

static void write_contexts(struct xhci *s, bool is_high, uint32_t value)
{
    s->contexts = (is_high ? (uint32_t)s->contexts | (uint64_t)value << 32
                           : (s->contexts & ~(uint64_t)UINT32_MAX) | value) &
                  RING_MASK;
}

static uint32_t read_microframe(struct xhci *s)
{
    if (!(s->command & XHCI_CMD_RUN))
        return 0;
    return (uint32_t)((device_now_ns(&s->function.dev) - s->started_ns) / MICROFRAME_NS) &
           MFINDEX_MASK;
}

static uint32_t read_fixed(struct xhci *s, uint64_t offset)
{
    switch (offset) {
    case REG_CAPLENGTH:
        return OPERATIONAL | VERSION << 16;
    case REG_HCSPARAMS1:
        return HCSPARAMS1;
    case REG_HCSPARAMS2:
        return HCSPARAMS2;
    case REG_HCCPARAMS1:
        return HCCPARAMS1;
    case REG_DBOFF:
        return DOORBELLS;
    case REG_RTSOFF:
        return RUNTIME;
    case REG_USBCMD:
        return s->command;
    case REG_USBSTS:
        return s->status;
    case REG_PAGESIZE:
        return 1;
    case REG_DNCTRL:
        return s->notification;
    case REG_CRCR_LOW:
        return s->commands_run ? XHCI_CRCR_RUNNING : 0;
    case REG_DCBAAP_LOW:
    case REG_DCBAAP_HIGH:
        return (uint32_t)(s->contexts >> 8 * (offset - REG_DCBAAP_LOW));
    case REG_CONFIG:
        return s->config;
    case REG_MFINDEX:
        return read_microframe(s);
    default:
        return 0;
    }
}

static uint64_t registers_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct xhci *s = xhci_of(dev);

    (void)size;
    if (offset >= PORTS && offset < PORTS + 0x10 * XHCI_PORTS)
        return xhci_read_port(s, (unsigned)(offset - PORTS));
    if (offset >= PROTOCOLS && offset < PROTOCOLS + sizeof(protocols))
        return protocols[(offset - PROTOCOLS) / 4];
    if (offset >= INTERRUPTERS && offset < INTERRUPTERS + 0x20 * XHCI_INTERRUPTERS)
        return xhci_read_interrupter(s, (unsigned)(offset - INTERRUPTERS));
    return read_fixed(s, offset);
}

static void write_operational(struct xhci *s, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_USBCMD:
        write_command(s, value);
        break;
    case REG_USBSTS:
        s->status &= ~(value & STS_CLEARABLE);
        break;
    case REG_DNCTRL:
        s->notification = value & 0xffff;
        break;
    case REG_CRCR_LOW:
    case REG_CRCR_HIGH:
        write_command_ring(s, offset == REG_CRCR_HIGH, value);
        break;
    case REG_DCBAAP_LOW:
    case REG_DCBAAP_HIGH:
        write_contexts(s, offset == REG_DCBAAP_HIGH, value);
        break;
    case REG_CONFIG:
        s->config = value & 0x3ff;
        break;
    default:
        break;
    }
}

static void registers_write(struct device *dev, uint64_t offset, uint64_t wide, unsigned size)
{
    struct xhci *s = xhci_of(dev);
    uint32_t value = (uint32_t)wide;

    (void)size;
    if (offset >= DOORBELLS)
        ring_doorbell(s, (unsigned)(offset - DOORBELLS) / 4, value);
    else if (offset >= INTERRUPTERS && offset < INTERRUPTERS + 0x20 * XHCI_INTERRUPTERS)
        xhci_write_interrupter(s, (unsigned)(offset - INTERRUPTERS), value);
    else if (offset >= PORTS && offset < PORTS + 0x10 * XHCI_PORTS)
        xhci_write_port(s, (unsigned)(offset - PORTS), value);
    else
        write_operational(s, offset, value);
}

static const struct region_ops registers_ops = {
    .name = "xhci",
    .read = registers_read,
    .write = registers_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- configuration space ---- */

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    (void)size;
    if (offset <= PCI_COMMAND + 1)
        xhci_work(xhci_of(&function->dev));
}

static void vectors_changed(struct pci_function *function)
{
    xhci_update_interrupts(xhci_of(&function->dev));
}

static const struct pci_function_desc function_desc = {
    .vendor_id = 0x1b36,
    .device_id = 0x000d,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = PCI_CLASS_XHCI,
    .revision = 1,
    .interrupt_pin = 1,
    .bar = {{.kind = PCI_BAR_MEMORY64, .size_bytes = REGISTER_BYTES, .ops = &registers_ops}},
    .msi_vectors = XHCI_INTERRUPTERS,
    .msix_vectors = XHCI_INTERRUPTERS,
    .msix_bar = 0,
    .msix_table_offset = MSIX_TABLE_OFFSET,
    .msix_pba_offset = MSIX_PBA_OFFSET,
    .config_written = config_written,
    .vectors_changed = vectors_changed,
};

/* ---- lifecycle ---- */

struct usb_bus *xhci_bus(struct device *dev)
{
    return &xhci_of(dev)->bus;
}

static int attach(struct device *dev, struct error *err)
{
    struct xhci *s = xhci_of(dev);

    timer_init(&s->more, device_clocks(dev), CLOCK_ID_VIRTUAL, do_more, s);
    xhci_init_interrupters(s);
    xhci_init_ports(s);
    reset_controller(s);
    return pci_attach(&s->function, &function_desc, err);
}

static void detach(struct device *dev)
{
    struct xhci *s = xhci_of(dev);

    for (unsigned n = 0; n < XHCI_PORTS; n++)
        if (s->ports[n].device)
            s->ports[n].device->port = NULL;
    timer_done(&s->more);
    for (unsigned n = 0; n < XHCI_INTERRUPTERS; n++)
        timer_done(&s->interrupters[n].quiet);
    dma_list_free(&s->td.list);
    pci_detach(&s->function);
}

static void reset(struct device *dev)
{
    reset_controller(xhci_of(dev));
}

/* ---- state ---- */

/* Endpoints are there only in slots with contexts, and those that are have a type. */
static bool is_consistent(const struct xhci *s)
{
    for (unsigned n = 0; n < XHCI_SLOTS; n++) {
        const struct xhci_slot *slot = &s->slots[n];

        if (slot->state && (!slot->is_enabled || !slot->context || !slot->port))
            return false;
        for (unsigned dci = 1; dci <= XHCI_ENDPOINTS; dci++)
            if (slot->endpoints[dci - 1].state &&
                (!slot->state || (dci == 1) != (slot->endpoints[dci - 1].type == 4)))
                return false;
    }
    return !(s->command & XHCI_CMD_RUN) == !!(s->status & XHCI_STS_HALTED) &&
           xhci_ports_are_consistent(s);
}

static int after_load(void *object, struct error *err)
{
    struct xhci *s = object;

    if (!is_consistent(s))
        return error_set(err, EINVAL, "%s: it cannot be as it is saved", s->function.dev.id);
    s->is_working = s->is_starved = false;
    s->function.intx_level = xhci_intx_level(s);
    return pci_after_load(&s->function, err);
}

static const struct property properties[] = {
    PCI_PROPERTIES(struct xhci, function),
    PROPERTY_END,
};

static const struct state_field ring_state[] = {
    STATE_U64(struct xhci_ring, gpa),
    STATE_BOOL(struct xhci_ring, cycle),
    STATE_END,
};

static const struct state_field interrupter_state[] = {
    STATE_U32_MAX(struct xhci_interrupter, management, 3),
    STATE_U32_MAX(struct xhci_interrupter, moderation, 0xffff),
    STATE_U32_MAX(struct xhci_interrupter, table_size, XHCI_ERST_SEGMENTS),
    STATE_U64(struct xhci_interrupter, table),
    STATE_U64(struct xhci_interrupter, dequeue),
    STATE_BOOL(struct xhci_interrupter, is_fresh),
    STATE_BOOL(struct xhci_interrupter, pending),
    STATE_BOOL(struct xhci_interrupter, cycle),
    STATE_U8_MAX(struct xhci_interrupter, segment, XHCI_ERST_SEGMENTS - 1),
    STATE_U16(struct xhci_interrupter, index),
    STATE_TIMER(struct xhci_interrupter, quiet),
    STATE_END,
};

static const struct state_field endpoint_state[] = {
    STATE_U8_MAX(struct xhci_endpoint, state, XHCI_EP_ERROR),
    STATE_U8_MAX(struct xhci_endpoint, type, 7),
    STATE_STRUCT(struct xhci_endpoint, ring, ring_state),
    STATE_END,
};

static const struct state_field slot_state[] = {
    STATE_BOOL(struct xhci_slot, is_enabled),
    STATE_U8_MAX(struct xhci_slot, state, XHCI_SLOT_CONFIGURED),
    STATE_U8_MAX(struct xhci_slot, port, XHCI_PORTS),
    STATE_U64(struct xhci_slot, context),
    STATE_U32(struct xhci_slot, kicked),
    STATE_STRUCTS(struct xhci_slot, endpoints, endpoint_state),
    STATE_END,
};

static const struct state_field state[] = {
    PCI_STATE(struct xhci, function),
    STATE_U32(struct xhci, command),
    STATE_U32(struct xhci, status),
    STATE_U32(struct xhci, notification),
    STATE_U32(struct xhci, config),
    STATE_U64(struct xhci, command_ring),
    STATE_STRUCT(struct xhci, commands, ring_state),
    STATE_BOOL(struct xhci, commands_run),
    STATE_U64(struct xhci, contexts),
    STATE_U32S(struct xhci, port_status),
    STATE_STRUCTS(struct xhci, interrupters, interrupter_state),
    STATE_STRUCTS(struct xhci, slots, slot_state),
    STATE_U64(struct xhci, started_ns),
    STATE_TIMER(struct xhci, more),
    STATE_END,
};

static const struct state_field route_state[] = {
    STATE_U32_MAX(struct xhci_slot, route, USB_ROUTE_MAX),
    STATE_END,
};

static const struct state_field routes_state[] = {
    STATE_STRUCTS(struct xhci, slots, route_state),
    STATE_END,
};

static bool has_routes(const void *object)
{
    const struct xhci *s = object;
    bool has = false;

    for (unsigned n = 0; n < XHCI_SLOTS; n++)
        has |= s->slots[n].route != 0;
    return has;
}

static const struct state_group groups[] = {
    {.name = "routes", .needed = has_routes, .fields = routes_state},
    {.name = NULL},
};

const struct device_class xhci_class = {
    .name = "xhci",
    .summary = "USB 3 controller (xHCI)",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct xhci),
    .properties = properties,
    .attach = attach,
    .reset = reset,
    .detach = detach,
    .state =
        {.version = 1, .oldest = 1, .fields = state, .groups = groups, .after_load = after_load},
};
