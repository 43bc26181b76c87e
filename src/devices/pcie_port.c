/*
 * pcie_port.c - a root port of PCI Express, and its hot-plug slot
 *
 * PCI Express Base 5.0, 6.7 and 7.5.3. Theory of operation. The slot has an attention button, a
 * power controller and two indicators. A card that is put in sets "presence detect changed", and as
 * it has power, "link state changed"; the guest's driver finds it. To take it out the button is
 * pressed: the driver lets go of the card, which takes Linux 5 s (it blinks, and the button pressed
 * again would cancel), and switches power off; then the card is taken out. Pulling it out without
 * asking works, too, as from a real slot. A slot without power is dark: nothing in it answers, and
 * a card is reset when its power goes.
 *
 * Who puts a card into a slot without power presses the button, too, but not while the driver may
 * still be busy with switching power off: Linux waits for a second, looks whether there is a card,
 * and would take the button, pressed meanwhile, for a wish to take that out.
 *
 * Left out: commands take no time, so "command completed" is not there; power faults, latch,
 * errors, power management events.
 */
#include "devices/pcie_port.h"

#include <errno.h>

#include "devices/devices.h"
#include "trapeze/machine.h"
#include "trapeze/pci.h"

#define FLAGS_ROOT_PORT    0x0142u /* version 2, type 4, with a slot */
#define LINK_ACTIVE_REPORT 0x00100000u
#define LINK_ACTIVE        0x2000u

/* Slot capabilities: button, power controller, two indicators, hot plug, no command completed. */
#define SLOT_FEATURES      0x0004005bu
#define SLOT_NUMBER_SHIFT  19

/* Slot control. */
#define CONTROL_EVENTS     0x101bu /* button, presence, command, link: bits as in the status */
#define CONTROL_INTERRUPT  0x0020u
#define CONTROL_ATTENTION  0x00c0u
#define CONTROL_POWER_LED  0x0300u
#define CONTROL_POWER_OFF  0x0400u
#define CONTROL_LINK       0x1000u /* its event is another bit of the status */
#define CONTROL_WRITABLE   0x17ffu
#define INDICATORS_OFF     0x03c0u
#define INDICATOR_POWER_ON 0x01c0u /* and attention off */

/* Slot status. */
#define STATUS_BUTTON      0x0001u
#define STATUS_PRESENCE    0x0008u /* has changed */
#define STATUS_PRESENT     0x0040u
#define STATUS_LINK        0x0100u /* has changed */
#define STATUS_EVENTS      (STATUS_BUTTON | STATUS_PRESENCE | STATUS_LINK)

#define EXPRESS            0                            /* the first of the capabilities */
#define SETTLE_NS          (3 * NANOSECONDS_PER_SECOND) /* after power went off */

struct pcie_port {
    struct pci_function function;
    struct pci_bus secondary;

    /* Configuration. */
    uint16_t number;    /* property: of the slot */
    bool multifunction; /* property */
    uint8_t pin;        /* property */

    /* State beside configuration space. */
    uint64_t settled_ns; /* from then on the button can be pressed for a card */
    bool presses;        /* it will be */

    struct timer press;        /* rebuilt on load */
    bool link;                 /* is active; rebuilt on load */
    bool event;                /* an interrupt is asked for; rebuilt on load */
    pcie_port_ready_fn *ready; /* the card is to be taken out; NULL: it is not */
    void *ready_opaque;
};

static struct pcie_port *port_of(struct device *dev)
{
    return container_of(dev, struct pcie_port, function.dev);
}

static uint8_t *express(struct pcie_port *s, unsigned offset)
{
    return s->function.config + pci_capability_offset(&s->function, EXPRESS) + offset;
}

static unsigned control(struct pcie_port *s)
{
    return pci_get16(express(s, PCI_EXPRESS_SLOT_CONTROL));
}

static unsigned status(struct pcie_port *s)
{
    return pci_get16(express(s, PCI_EXPRESS_SLOT_STATUS));
}

static void add_status(struct pcie_port *s, unsigned bits)
{
    pci_put16(express(s, PCI_EXPRESS_SLOT_STATUS), (uint16_t)(status(s) | bits));
}

static bool has_power(struct pcie_port *s)
{
    return !(control(s) & CONTROL_POWER_OFF);
}

/* ---- interrupts ---- */

/* Events that the guest wants to hear of (6.7.3.4). */
static bool wants_interrupt(struct pcie_port *s)
{
    unsigned enabled = control(s) & CONTROL_EVENTS & ~CONTROL_LINK, happened = status(s);

    if (control(s) & CONTROL_LINK)
        enabled |= STATUS_LINK;
    return control(s) & CONTROL_INTERRUPT && happened & enabled & STATUS_EVENTS;
}

static void update_interrupt(struct pcie_port *s)
{
    bool event = wants_interrupt(s), was = s->event;

    s->event = event;
    if (!pci_uses_messages(&s->function))
        pci_set_intx(&s->function, event);
    else if (event && !was)
        pci_notify(&s->function, 0);
}

/* ---- the slot ---- */

static void put_link(struct pcie_port *s, bool active)
{
    uint8_t *field = express(s, PCI_EXPRESS_LINK_STATUS);

    s->link = active;
    pci_put16(field, (uint16_t)(PCI_EXPRESS_LANE | (active ? LINK_ACTIVE : 0)));
}

static void update_link(struct pcie_port *s)
{
    bool active = pci_bus_is_occupied(&s->secondary) && has_power(s);

    if (active != s->link)
        add_status(s, STATUS_LINK);
    put_link(s, active);
}

/* A card without power forgets all, and reaches nothing any more. */
static void update_power(struct pcie_port *s)
{
    bool dark = !has_power(s);
    pcie_port_ready_fn *ready = s->ready;

    if (dark == s->secondary.is_dark)
        return;
    s->secondary.is_dark = dark;
    if (dark) {
        s->settled_ns = device_now_ns(&s->function.dev) + SETTLE_NS;
        pci_bus_reset_devices(&s->secondary);
    }
    pci_bus_update(&s->secondary);
    update_link(s);
    if (dark && ready) {
        s->ready = NULL;
        ready(s->ready_opaque);
    }
}

/* What a reset leaves of the slot's registers: power for a card that is there. */
static void set_initial(struct pcie_port *s, bool occupied)
{
    uint8_t *initial = s->function.initial + pci_capability_offset(&s->function, EXPRESS);

    pci_put16(initial + PCI_EXPRESS_SLOT_CONTROL,
              occupied ? INDICATOR_POWER_ON : INDICATORS_OFF | CONTROL_POWER_OFF);
    pci_put16(initial + PCI_EXPRESS_SLOT_STATUS, occupied ? STATUS_PRESENT : 0);
    pci_put16(initial + PCI_EXPRESS_LINK_STATUS,
              (uint16_t)(PCI_EXPRESS_LANE | (occupied ? LINK_ACTIVE : 0)));
}

/* Does a driver listen to the button? */
static bool has_listener(struct pcie_port *s)
{
    return control(s) & CONTROL_INTERRUPT && control(s) & STATUS_BUTTON;
}

static void stop_pressing(struct pcie_port *s)
{
    s->presses = false;
    timer_cancel(&s->press);
}

/* If the driver has not found the card meanwhile. */
static void press_for_card(void *opaque)
{
    struct pcie_port *s = opaque;

    s->presses = false;
    if (!pci_bus_is_occupied(&s->secondary) || has_power(s) || !has_listener(s))
        return;
    add_status(s, STATUS_BUTTON);
    update_interrupt(s);
}

/*
 * A card was put in or taken out. A driver that listens to the button asks for no interrupt for
 * cards, as Linux's does: who puts one in presses it, too.
 */
static void occupied(struct pci_bus *bus)
{
    struct pcie_port *s = container_of(bus, struct pcie_port, secondary);
    bool present = pci_bus_is_occupied(bus);
    uint8_t *field = express(s, PCI_EXPRESS_SLOT_STATUS);

    set_initial(s, present);
    if (present == !!(status(s) & STATUS_PRESENT))
        return;
    pci_put16(field, (uint16_t)(status(s) ^ STATUS_PRESENT));
    add_status(s, STATUS_PRESENCE);
    s->ready = NULL;
    update_link(s);
    stop_pressing(s);
    if (present && device_now_ns(&s->function.dev) < s->settled_ns) {
        s->presses = true;
        timer_arm(&s->press, s->settled_ns);
    } else {
        press_for_card(s);
    }
    update_interrupt(s);
}

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    struct pcie_port *s = port_of(&function->dev);

    (void)offset, (void)size;
    update_power(s);
    update_interrupt(s);
}

/* ---- who plugs ---- */

struct device *pcie_port_find_empty(struct machine *machine)
{
    for (struct device *dev = machine_first_device(machine); dev; dev = dev->next)
        if (dev->class == &pcie_port_class && dev->attached &&
            !pci_bus_is_occupied(&port_of(dev)->secondary))
            return dev;
    return NULL;
}

struct device *pcie_port_of(const struct pci_function *function)
{
    struct pci_function *bridge = function->bus ? function->bus->bridge : NULL;

    return bridge && bridge->dev.class == &pcie_port_class ? &bridge->dev : NULL;
}

int pcie_port_press_button(struct device *port, pcie_port_ready_fn *ready, void *opaque,
                           struct error *err)
{
    struct pcie_port *s = port_of(port);

    if (s->ready)
        return error_set(err, EBUSY, "the guest was asked already, and has not let go of it");
    if (!has_listener(s))
        return error_set(err, ENXIO, "nobody in the guest listens to the slot's button");
    s->ready = ready;
    s->ready_opaque = opaque;
    add_status(s, STATUS_BUTTON);
    update_interrupt(s);
    return 0;
}

/* ---- lifecycle ---- */

static const uint8_t contents[PCI_EXPRESS_BYTES - 2];
static const uint8_t writable[PCI_EXPRESS_BYTES - 2] = {
    [PCI_EXPRESS_DEVICE_CONTROL - 2] = 0x1f,
    [PCI_EXPRESS_DEVICE_CONTROL - 1] = 0x78,
    [PCI_EXPRESS_LINK_CONTROL - 2] = 0xd3, /* not: link disable */
    [PCI_EXPRESS_SLOT_CONTROL - 2] = CONTROL_WRITABLE & 0xff,
    [PCI_EXPRESS_SLOT_CONTROL - 1] = CONTROL_WRITABLE >> 8,
    [PCI_EXPRESS_ROOT_CONTROL - 2] = 0x1f,
};
static const struct pci_capability_desc capabilities[] = {
    {.id = PCI_CAP_EXPRESS,
     .size_bytes = PCI_EXPRESS_BYTES,
     .contents = contents,
     .writable = writable},
};

static void build_registers(struct pcie_port *s)
{
    unsigned at = pci_capability_offset(&s->function, EXPRESS);
    uint8_t *initial = s->function.initial + at;

    pci_put16(initial + PCI_EXPRESS_FLAGS, FLAGS_ROOT_PORT);
    pci_put32(initial + PCI_EXPRESS_DEVICE, PCI_EXPRESS_ERRORS);
    pci_put32(initial + PCI_EXPRESS_LINK,
              PCI_EXPRESS_LANE | LINK_ACTIVE_REPORT | (uint32_t)s->number << 24);
    pci_put32(initial + PCI_EXPRESS_SLOT, SLOT_FEATURES | (uint32_t)s->number << SLOT_NUMBER_SHIFT);
    pci_put16(s->function.clearable + at + PCI_EXPRESS_SLOT_STATUS, STATUS_EVENTS);
    set_initial(s, false);
}

static int port_attach(struct device *dev, struct error *err)
{
    struct pcie_port *s = port_of(dev);
    const struct pci_function_desc desc = {
        .vendor_id = 0x1b36,
        .device_id = 0x000c,
        .class_code = 0x060400,
        .interrupt_pin = s->pin,
        .multifunction = s->multifunction,
        .capabilities = capabilities,
        .capability_count = 1,
        .msi_vectors = 1,
        .config_written = config_written,
        .secondary = &s->secondary,
    };
    int rc;

    if (s->number > 255 || s->pin < 1 || s->pin > 4)
        return error_set(err, EINVAL, "%s: slots have numbers up to 255, and pins 1 to 4", dev->id);
    timer_init(&s->press, device_clocks(dev), CLOCK_ID_VIRTUAL, press_for_card, s);
    pci_bus_init(&s->secondary, dev->machine, NULL);
    s->secondary.slots = 1;
    s->secondary.is_express = true;
    rc = pci_attach(&s->function, &desc, err);
    if (rc)
        return rc;
    build_registers(s);
    s->secondary.occupied = occupied;
    return 0;
}

static void port_detach(struct device *dev)
{
    struct pcie_port *s = port_of(dev);

    s->secondary.occupied = NULL;
    if (s->press.clocks)
        timer_done(&s->press);
    pci_detach(&s->function);
}

static void port_reset(struct device *dev)
{
    struct pcie_port *s = port_of(dev);

    s->ready = NULL;
    s->settled_ns = 0;
    stop_pressing(s);
}

/* Configuration space has its reset values now; the slot follows. */
static void follow_registers(struct pcie_port *s)
{
    s->secondary.is_dark = !has_power(s);
    s->link = pci_bus_is_occupied(&s->secondary) && has_power(s);
    put_link(s, s->link);
    pci_bus_update(&s->secondary);
}

static void port_reset_done(struct device *dev)
{
    struct pcie_port *s = port_of(dev);

    follow_registers(s);
    s->event = false;
}

static int port_after_load(void *object, struct error *err)
{
    struct pcie_port *s = object;
    int rc = pci_after_load(&s->function, err);

    follow_registers(s);
    if (s->presses)
        timer_arm(&s->press, s->settled_ns);
    else
        timer_cancel(&s->press);
    s->event = wants_interrupt(s);
    if (!pci_uses_messages(&s->function))
        pci_set_intx(&s->function, s->event);
    return rc;
}

static const struct property properties[] = {
    PCI_PROPERTIES(struct pcie_port, function),
    PROPERTY_U16(struct pcie_port, number, 0, "number of the slot, up to 255"),
    PROPERTY_BOOL(struct pcie_port, multifunction, 0, "other functions share its address"),
    PROPERTY_U8(struct pcie_port, pin, 1, "interrupt pin, 1 to 4"),
    PROPERTY_END,
};

static const struct state_field state[] = {
    PCI_STATE(struct pcie_port, function),
    STATE_U64(struct pcie_port, settled_ns),
    STATE_BOOL(struct pcie_port, presses),
    STATE_END,
};

const struct device_class pcie_port_class = {
    .name = "pcie-port",
    .summary = "root port of PCI Express with a hot-plug slot",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct pcie_port),
    .properties = properties,
    .attach = port_attach,
    .reset = port_reset,
    .reset_done = port_reset_done,
    .detach = port_detach,
    .state = {.version = 1, .oldest = 1, .fields = state, .after_load = port_after_load},
};
