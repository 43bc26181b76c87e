/*
 * pci_bridge.c - a conventional PCI bridge with a bus of 32 slots behind it
 *
 * All that it does is machine/pci_bridge.c's; --device NAME,addr=pci-bridge/ puts a device behind
 * it.
 */
#include "devices/devices.h"
#include "trapeze/pci.h"

struct bridge {
    struct pci_function function;
    struct pci_bus secondary;
};

static struct bridge *bridge_of(struct device *dev)
{
    return container_of(dev, struct bridge, function.dev);
}

static int bridge_attach(struct device *dev, struct error *err)
{
    struct bridge *s = bridge_of(dev);
    const struct pci_function_desc desc = {
        .vendor_id = 0x1b36,
        .device_id = 0x0001,
        .class_code = 0x060400,
        .secondary = &s->secondary,
    };

    pci_bus_init(&s->secondary, dev->machine, NULL);
    return pci_attach(&s->function, &desc, err);
}

static void bridge_detach(struct device *dev)
{
    pci_detach(&bridge_of(dev)->function);
}

static int bridge_after_load(void *object, struct error *err)
{
    return pci_after_load(&((struct bridge *)object)->function, err);
}

static const struct property properties[] = {
    PCI_PROPERTIES(struct bridge, function),
    PROPERTY_END,
};

static const struct state_field state[] = {
    PCI_STATE(struct bridge, function),
    STATE_END,
};

const struct device_class pci_bridge_class = {
    .name = "pci-bridge",
    .summary = "PCI bridge with a bus of 32 slots",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct bridge),
    .properties = properties,
    .attach = bridge_attach,
    .detach = bridge_detach,
    .state = {.version = 1, .oldest = 1, .fields = state, .after_load = bridge_after_load},
};
