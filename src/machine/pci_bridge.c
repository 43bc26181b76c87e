/*
 * pci_bridge.c - PCI bridges: the way to other buses, windows, interrupt pins, secondary reset
 *
 * PCI-to-PCI Bridge Architecture Specification 1.2; ports of PCI Express are such bridges to
 * software. Theory of operation: configuration cycles follow the bus numbers that the guest gives
 * to bridges. A BAR is decoded if it lies in a window of each bridge above it; so whatever moves a
 * window, or switches a bridge off, moves BARs below. INTx of a slot is rotated at each bridge
 * (2.2.9 of the bridge specification, "swizzling").
 *
 * Left out: VGA and ISA modes, 32-bit I/O, delayed transactions, errors (the registers only store).
 */
#include <errno.h>
#include <string.h>

#include "machine/pci_internal.h"
#include "trapeze/machine.h"

#define IO_MASK         0xf0u
#define MEMORY_MASK     0xfff0u
#define PREFETCH_64BIT  0x1u
#define HEADER_BRIDGE   1u
#define BRIDGE_WRITABLE 0x0043u /* parity, SERR, reset */

static unsigned secondary_of(const struct pci_function *bridge)
{
    return bridge->config[PCI_SECONDARY_BUS];
}

static unsigned command_of(const struct pci_function *function)
{
    return pci_get16(function->config + PCI_COMMAND);
}

/* ---- buses ---- */

void pci_bus_init(struct pci_bus *bus, struct machine *machine, struct irq_line *pirq)
{
    *bus = (struct pci_bus){.machine = machine, .pirq = pirq, .slots = PCI_SLOTS};
}

struct pci_bus *pci_bus_find(struct machine *machine, const char *bridge_id)
{
    struct device *dev = machine_find_device(machine, bridge_id);

    return dev && dev->attached && dev->class->bus == BUS_PCI ? pci_function_of(dev)->desc.secondary
                                                              : NULL;
}

bool pci_bus_is_occupied(const struct pci_bus *bus)
{
    for (unsigned n = 0; n < PCI_FUNCTIONS; n++)
        if (bus->functions[n])
            return true;
    return false;
}

struct pci_bus *pci_bus_root(struct pci_bus *bus)
{
    while (bus->bridge)
        bus = bus->bridge->bus;
    return bus;
}

/* ---- configuration cycles ---- */

/* The bus with this number, below one that has another. */
static struct pci_bus *bus_below(struct pci_bus *bus, unsigned number)
{
    for (unsigned n = 0; n < PCI_FUNCTIONS; n++) {
        struct pci_function *bridge = bus->functions[n];

        if (!bridge || !bridge->desc.secondary || bridge->desc.secondary->is_dark ||
            number < secondary_of(bridge) || number > bridge->config[PCI_SUBORDINATE_BUS])
            continue;
        if (number == secondary_of(bridge))
            return bridge->desc.secondary;
        return bus_below(bridge->desc.secondary, number);
    }
    return NULL;
}

struct pci_function *pci_bus_route(struct pci_bus *root, unsigned address)
{
    struct pci_bus *bus = address < PCI_FUNCTIONS ? root : bus_below(root, address >> 8 & 0xff);

    return bus && address < 256 * PCI_FUNCTIONS ? bus->functions[address % PCI_FUNCTIONS] : NULL;
}

/* ---- windows ---- */

static bool is_in(uint64_t address, uint64_t size_bytes, uint64_t first, uint64_t last)
{
    return address >= first && address <= last && size_bytes - 1 <= last - address;
}

static bool memory_window_holds(const uint8_t *c, uint64_t address, uint64_t size_bytes)
{
    uint64_t first = (uint64_t)(pci_get16(c + PCI_MEMORY_BASE) & MEMORY_MASK) << 16;
    uint64_t last = (uint64_t)(pci_get16(c + PCI_MEMORY_LIMIT) & MEMORY_MASK) << 16 | 0xfffff;

    return is_in(address, size_bytes, first, last);
}

static bool prefetch_window_holds(const uint8_t *c, uint64_t address, uint64_t size_bytes)
{
    uint64_t first = (uint64_t)(pci_get16(c + PCI_PREFETCH_BASE) & MEMORY_MASK) << 16 |
                     (uint64_t)pci_get32(c + PCI_PREFETCH_BASE_HIGH) << 32;
    uint64_t last = (uint64_t)(pci_get16(c + PCI_PREFETCH_LIMIT) & MEMORY_MASK) << 16 |
                    (uint64_t)pci_get32(c + PCI_PREFETCH_LIMIT_HIGH) << 32 | 0xfffff;

    return is_in(address, size_bytes, first, last);
}

static bool io_window_holds(const uint8_t *c, uint64_t address, uint64_t size_bytes)
{
    uint64_t first = (c[PCI_IO_BASE] & IO_MASK) << 8;
    uint64_t last = (c[PCI_IO_LIMIT] & IO_MASK) << 8 | 0xfffu;

    return is_in(address, size_bytes, first, last);
}

bool pci_bus_forwards(const struct pci_bus *bus, bool is_io, uint64_t address, uint64_t size_bytes)
{
    for (; bus->bridge; bus = bus->bridge->bus) {
        const uint8_t *c = bus->bridge->config;
        bool holds = is_io ? io_window_holds(c, address, size_bytes)
                           : memory_window_holds(c, address, size_bytes) ||
                                 prefetch_window_holds(c, address, size_bytes);

        if (bus->is_dark || !holds ||
            !(command_of(bus->bridge) & (is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
            return false;
    }
    return true;
}

bool pci_bus_is_master(const struct pci_bus *bus)
{
    for (; bus->bridge; bus = bus->bridge->bus)
        if (bus->is_dark || !(command_of(bus->bridge) & PCI_COMMAND_MASTER))
            return false;
    return true;
}

unsigned pci_function_pirq(const struct pci_function *function)
{
    unsigned slot = function->slot, pin = function->desc.interrupt_pin;

    for (const struct pci_bus *bus = function->bus; bus->bridge; bus = bus->bridge->bus) {
        pin = (pin - 1 + slot) % 4 + 1;
        slot = bus->bridge->slot;
    }
    return pci_pirq(slot, pin);
}

/* ---- the bridge itself ---- */

int pci_bridge_check(const struct pci_function_desc *desc, struct error *err)
{
    if (!desc->secondary)
        return 0;
    for (unsigned n = 2; n < PCI_BARS; n++)
        if (desc->bar[n].kind != PCI_BAR_NONE)
            return error_set(err, EINVAL, "a bridge has two BARs, and no BAR %u", n);
    return desc->bar[1].kind == PCI_BAR_MEMORY64
               ? error_set(err, EINVAL, "BAR 1 of a bridge has no room for its upper half")
               : 0;
}

void pci_bridge_build(struct pci_function *function)
{
    uint8_t *initial = function->initial, *writable = function->writable;

    initial[PCI_HEADER_TYPE] |= HEADER_BRIDGE;
    initial[PCI_PREFETCH_BASE] = initial[PCI_PREFETCH_LIMIT] = PREFETCH_64BIT;
    memset(writable + PCI_PRIMARY_BUS, 0xff, 4);
    writable[PCI_IO_BASE] = writable[PCI_IO_LIMIT] = IO_MASK;
    pci_put16(function->clearable + PCI_SECONDARY_STATUS, 0xf900);
    for (unsigned at = PCI_MEMORY_BASE; at <= PCI_PREFETCH_LIMIT; at += 2)
        pci_put16(writable + at, MEMORY_MASK);
    memset(writable + PCI_PREFETCH_BASE_HIGH, 0xff, 8);
    pci_put16(writable + PCI_BRIDGE_CONTROL, BRIDGE_WRITABLE);
    function->desc.secondary->bridge = function;
}

void pci_bus_update(struct pci_bus *bus)
{
    for (unsigned n = 0; n < PCI_FUNCTIONS; n++) {
        if (!bus->functions[n])
            continue;
        pci_update_bars(bus->functions[n]);
        if (bus->functions[n]->desc.secondary)
            pci_bus_update(bus->functions[n]->desc.secondary);
    }
}

void pci_bus_reset_devices(struct pci_bus *bus)
{
    for (unsigned n = 0; n < PCI_FUNCTIONS; n++)
        if (bus->functions[n]) {
            pci_power_on(bus->functions[n]);
            if (bus->functions[n]->desc.secondary)
                pci_bus_reset_devices(bus->functions[n]->desc.secondary);
        }
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned end)
{
    return offset < end && first < offset + size;
}

/* Devices below are reset while the bit is set, which is to say when it is written. */
void pci_bridge_written(struct pci_function *function, unsigned offset, unsigned size)
{
    const uint8_t *control = function->config + PCI_BRIDGE_CONTROL;

    if (touches(offset, size, PCI_BRIDGE_CONTROL, PCI_BRIDGE_CONTROL + 1) &&
        pci_get16(control) & PCI_BRIDGE_RESET)
        pci_bus_reset_devices(function->desc.secondary);
    if (touches(offset, size, PCI_COMMAND, PCI_COMMAND + 2) ||
        touches(offset, size, PCI_IO_BASE, PCI_PREFETCH_LIMIT_HIGH + 4))
        pci_bus_update(function->desc.secondary);
}
