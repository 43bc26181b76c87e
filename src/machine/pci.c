/*
 * pci.c - PCI configuration space, BARs, interrupt pins, MSI and MSI-X
 *
 * PCI Local Bus Specification 3.0, chapter 6: header of type 0, BAR sizing and
 * decoding, capabilities, MSI with masks (6.8.1) and MSI-X (6.8.2).
 *
 * Theory of operation. attach builds three images of configuration space from the
 * description: values after reset, bits the guest can write, bits that writing 1 clears. A
 * write goes through them byte by byte, and then whatever depends on configuration space
 * is brought in line: BAR mappings, the interrupt wire, messages that were held back
 * by a mask. BARs lie below RAM in the memory map, as on a chipset that decodes RAM first; a
 * BAR at a place where it cannot be is left unmapped.
 *
 * Bridges are pci_bridge.c's. Left out: extended configuration space, power
 * management, latency and cache line effects (the registers only store).
 */
#include "machine/pci_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "host/file.h"
#include "trapeze/machine.h"

#define BAR_IO_FLAG       0x1u
#define BAR_MEMORY64      0x4u
#define BAR_PREFETCHABLE  0x8u
#define BAR_IO_MASK       0x3u
#define BAR_MEMORY_MASK   0xfu
#define BAR_IO_MAX        256u
#define BAR_MEMORY_MIN    16u
#define BAR_MEMORY_MAX    (1ull << 40)
#define ROM_ENABLE        0x1u
#define ROM_MIN           GUEST_PAGE_SIZE
#define BAR_COUNT         (PCI_BARS + 1u) /* with the expansion ROM */
#define BAR_PRIORITY      (-2)
#define MSIX_PRIORITY     (-1)

#define MSI_CONTROL       2 /* offsets in the capability */
#define MSI_ADDRESS_LOW   4
#define MSI_ADDRESS_HIGH  8
#define MSI_DATA          12
#define MSI_MASK          16
#define MSI_PENDING       20
#define MSI_SIZE          24
#define MSI_ENABLE        0x0001u
#define MSI_ENABLED_SHIFT 4
#define MSI_64BIT         0x0080u
#define MSI_MASKING       0x0100u

#define MSIX_CONTROL      2
#define MSIX_TABLE        4
#define MSIX_PBA          8
#define MSIX_SIZE         12
#define MSIX_ENABLE       0x8000u
#define MSIX_MASK_ALL     0x4000u
#define MSIX_VECTOR_MASK  0x1u
#define MSIX_ENTRY_BYTES  16

uint16_t pci_get16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

uint32_t pci_get32(const uint8_t *bytes)
{
    return pci_get16(bytes) | (uint32_t)pci_get16(bytes + 2) << 16;
}

void pci_put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

void pci_put32(uint8_t *bytes, uint32_t value)
{
    pci_put16(bytes, (uint16_t)value);
    pci_put16(bytes + 2, (uint16_t)(value >> 16));
}

static uint64_t pci_get64(const uint8_t *bytes)
{
    return pci_get32(bytes) | (uint64_t)pci_get32(bytes + 4) << 32;
}

static unsigned pci_command(const struct pci_function *function)
{
    return pci_get16(function->config + PCI_COMMAND);
}

bool pci_is_master(const struct pci_function *function)
{
    return pci_command(function) & PCI_COMMAND_MASTER && pci_bus_is_master(function->bus);
}

/* ---- MSI-X ---- */

static unsigned msix_control(const struct pci_function *function)
{
    if (!function->msix_offset)
        return 0;
    return pci_get16(function->config + function->msix_offset + MSIX_CONTROL);
}

static bool msix_is_masked(const struct pci_function *function, unsigned vector)
{
    return (msix_control(function) & MSIX_MASK_ALL) ||
           (function->msix_table[vector].control & MSIX_VECTOR_MASK);
}

static void msix_send(struct pci_function *function, unsigned vector)
{
    const struct pci_msix_entry *entry = &function->msix_table[vector];

    if (pci_is_master(function))
        msi_send(function->dev.machine, entry->address_low | (uint64_t)entry->address_high << 32,
                 entry->data);
}

/* Send what was held back and is free to go now. */
static void msix_flush(struct pci_function *function)
{
    if (!(msix_control(function) & MSIX_ENABLE))
        return;
    for (unsigned vector = 0; vector < function->desc.msix_vectors; vector++) {
        uint32_t bit = 1u << vector % 32;

        if (!(function->msix_pending[vector / 32] & bit) || msix_is_masked(function, vector))
            continue;
        function->msix_pending[vector / 32] &= ~bit;
        msix_send(function, vector);
    }
}

static void msix_notify(struct pci_function *function, unsigned vector)
{
    if (vector >= function->desc.msix_vectors)
        return;
    if (msix_is_masked(function, vector))
        function->msix_pending[vector / 32] |= 1u << vector % 32;
    else
        msix_send(function, vector);
}

static uint32_t *msix_register(struct pci_function *function, uint64_t offset)
{
    struct pci_msix_entry *entry = &function->msix_table[offset / MSIX_ENTRY_BYTES];
    uint32_t *const registers[4] = {&entry->address_low, &entry->address_high, &entry->data,
                                    &entry->control};

    return registers[offset / 4 % 4];
}

static uint64_t msix_table_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return *msix_register(pci_function_of(dev), offset);
}

static void msix_table_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_function *function = pci_function_of(dev);

    (void)size;
    if (offset / 4 % 4 == 3)
        value &= MSIX_VECTOR_MASK;
    *msix_register(function, offset) = (uint32_t)value;
    msix_flush(function);
    if (offset / 4 % 4 == 3 && function->desc.vectors_changed)
        function->desc.vectors_changed(function);
}

static uint64_t msix_pba_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return pci_function_of(dev)->msix_pending[offset / 4];
}

static void msix_pba_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)dev, (void)offset, (void)value, (void)size;
}

static const struct region_ops msix_table_ops = {
    .name = "msix-table",
    .read = msix_table_read,
    .write = msix_table_write,
    .min_size = 4,
    .max_size = 4,
};

static const struct region_ops msix_pba_ops = {
    .name = "msix-pba",
    .read = msix_pba_read,
    .write = msix_pba_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- MSI ---- */

static const uint8_t *msi_capability(const struct pci_function *function)
{
    return function->config + function->msi_offset;
}

static unsigned msi_control(const struct pci_function *function)
{
    return function->msi_offset ? pci_get16(msi_capability(function) + MSI_CONTROL) : 0;
}

/* How many vectors the guest allows; never more than were asked for. */
static unsigned msi_enabled_count(const struct pci_function *function)
{
    unsigned count = 1u << (msi_control(function) >> MSI_ENABLED_SHIFT & 7);

    return count < function->desc.msi_vectors ? count : function->desc.msi_vectors;
}

static void msi_transmit(struct pci_function *function, unsigned vector)
{
    const uint8_t *msi = msi_capability(function);
    unsigned count = msi_enabled_count(function);
    uint32_t data = (pci_get16(msi + MSI_DATA) & ~(count - 1)) | vector;

    if (pci_is_master(function))
        msi_send(function->dev.machine, pci_get64(msi + MSI_ADDRESS_LOW), data);
}

static void msi_set_pending(struct pci_function *function, uint32_t pending)
{
    pci_put32(function->config + function->msi_offset + MSI_PENDING, pending);
}

static void msi_flush(struct pci_function *function)
{
    const uint8_t *msi = msi_capability(function);
    uint32_t ready;

    if (!(msi_control(function) & MSI_ENABLE))
        return;
    ready = pci_get32(msi + MSI_PENDING) & ~pci_get32(msi + MSI_MASK);
    msi_set_pending(function, pci_get32(msi + MSI_PENDING) & ~ready);
    for (unsigned vector = 0; vector < msi_enabled_count(function); vector++)
        if (ready & 1u << vector)
            msi_transmit(function, vector);
}

/* A vector beyond those that the guest enabled shares the last message. */
static void msi_notify(struct pci_function *function, unsigned vector)
{
    const uint8_t *msi = msi_capability(function);

    if (vector >= function->desc.msi_vectors)
        return;
    if (vector >= msi_enabled_count(function))
        vector = msi_enabled_count(function) - 1;
    if (pci_get32(msi + MSI_MASK) & 1u << vector)
        msi_set_pending(function, pci_get32(msi + MSI_PENDING) | 1u << vector);
    else
        msi_transmit(function, vector);
}

bool pci_uses_messages(const struct pci_function *function)
{
    return (msix_control(function) & MSIX_ENABLE) || (msi_control(function) & MSI_ENABLE);
}

void pci_notify(struct pci_function *function, unsigned vector)
{
    if (msix_control(function) & MSIX_ENABLE)
        msix_notify(function, vector);
    else if (msi_control(function) & MSI_ENABLE)
        msi_notify(function, vector);
}

/* ---- interrupt pin ---- */

static void pci_bus_wire(struct pci_bus *bus, unsigned pirq, bool up)
{
    bool level;

    bus->pirq_count[pirq] = (uint16_t)(bus->pirq_count[pirq] + (up ? 1 : -1));
    level = bus->pirq_count[pirq] > 0;
    if (bus->pirq && bus->pirq[pirq].level != level)
        irq_set(&bus->pirq[pirq], level);
    if (bus->router)
        bus->router(bus->router_opaque, pirq, level);
}

/* The status bit shows the request; the wire also needs the pin to be in use and enabled. */
static void pci_update_wire(struct pci_function *function)
{
    uint8_t *status = function->config + PCI_STATUS;
    bool level = function->intx_level && function->desc.interrupt_pin &&
                 !(pci_command(function) & PCI_COMMAND_NO_INTX) && !pci_uses_messages(function);

    *status = (uint8_t)((*status & ~PCI_STATUS_INTERRUPT) |
                        (function->intx_level ? PCI_STATUS_INTERRUPT : 0));
    if (level == function->wire_level || !function->bus)
        return;
    function->wire_level = level;
    pci_bus_wire(pci_bus_root(function->bus), pci_function_pirq(function), level);
}

void pci_set_intx(struct pci_function *function, bool level)
{
    function->intx_level = level;
    pci_update_wire(function);
}

/* ---- BARs ---- */

static bool bar_is_io(const struct pci_function *function, unsigned index)
{
    return function->desc.bar[index].kind == PCI_BAR_IO;
}

static uint64_t bar_zero_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return 0;
}

static void bar_ignore_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)dev, (void)offset, (void)value, (void)size;
}

static const struct region_ops bar_empty_ops = {
    .name = "pci-bar",
    .read = bar_zero_read,
    .write = bar_ignore_write,
    .min_size = 1,
    .max_size = 8,
};

static const struct region_ops *bar_ops(const struct pci_function *function, unsigned index)
{
    const struct region_ops *ops = function->desc.bar[index].ops;

    return ops ? ops : &bar_empty_ops;
}

static unsigned bar_register(unsigned index)
{
    return index == PCI_ROM ? PCI_ROM_ADDRESS : PCI_BAR0 + 4 * index;
}

/* Where the registers say that the BAR is. */
static uint64_t bar_programmed(const struct pci_function *function, unsigned index)
{
    const uint8_t *bar = function->config + bar_register(index);

    switch (function->desc.bar[index].kind) {
    case PCI_BAR_IO:
        return pci_get32(bar) & ~BAR_IO_MASK;
    case PCI_BAR_MEMORY32:
        return pci_get32(bar) & ~BAR_MEMORY_MASK;
    case PCI_BAR_MEMORY64:
        return pci_get64(bar) & ~(uint64_t)BAR_MEMORY_MASK;
    case PCI_BAR_ROM: /* the bit is one more enable */
        return pci_get32(bar) & ROM_ENABLE ? pci_get32(bar) & ~(ROM_MIN - 1) : 0;
    default:
        return 0;
    }
}

/* Address 0 is "not programmed"; I/O ends at 64 KiB, memory where physical addresses end. */
static bool bar_is_decoded(const struct pci_function *function, unsigned index, uint64_t address)
{
    const struct pci_bar_desc *bar = &function->desc.bar[index];
    uint64_t limit = bar->kind == PCI_BAR_IO         ? 1ull << 16
                     : bar->kind == PCI_BAR_MEMORY64 ? 1ull << 52
                                                     : 1ull << 32;
    unsigned enable = bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

    return bar->kind != PCI_BAR_NONE && (pci_command(function) & enable) && address != 0 &&
           address < limit && bar->size_bytes <= limit - address &&
           pci_bus_forwards(function->bus, bar->kind == PCI_BAR_IO, address, bar->size_bytes);
}

static bool bar_holds_msix(const struct pci_function *function, unsigned index)
{
    return function->desc.msix_vectors && function->desc.msix_bar == index;
}

static void bar_unmap(struct pci_function *function, unsigned index)
{
    struct memory *memory = device_memory(&function->dev);
    struct pci_bar *bar = &function->bars[index];

    if (!bar->mapped)
        return;
    bar->mapped = false;
    if (bar_is_io(function, index)) {
        device_unmap_ports(&function->dev, (uint16_t)bar->gpa,
                           (uint16_t)function->desc.bar[index].size_bytes);
        return;
    }
    memory_unmap(memory, &bar->region);
    if (bar_holds_msix(function, index)) {
        memory_unmap(memory, &function->msix_table_region);
        memory_unmap(memory, &function->msix_pba_region);
    }
}

static int bar_map_io(struct pci_function *function, unsigned index, struct error *err)
{
    return device_map_ports(&function->dev, (uint16_t)function->bars[index].gpa,
                            (uint16_t)function->desc.bar[index].size_bytes,
                            bar_ops(function, index), err);
}

static int bar_map_region(struct pci_function *function, struct region *region, uint64_t gpa,
                          struct error *err)
{
    region->gpa = gpa;
    return memory_map(device_memory(&function->dev), region, err);
}

static int bar_map_msix(struct pci_function *function, uint64_t gpa, struct error *err)
{
    int rc = bar_map_region(function, &function->msix_table_region,
                            gpa + function->desc.msix_table_offset, err);

    if (rc)
        return rc;
    rc = bar_map_region(function, &function->msix_pba_region, gpa + function->desc.msix_pba_offset,
                        err);
    if (rc)
        memory_unmap(device_memory(&function->dev), &function->msix_table_region);
    return rc;
}

static int bar_map_memory(struct pci_function *function, unsigned index, struct error *err)
{
    struct pci_bar *bar = &function->bars[index];
    int rc = bar_map_region(function, &bar->region, bar->gpa, err);

    if (rc || !bar_holds_msix(function, index))
        return rc;
    rc = bar_map_msix(function, bar->gpa, err);
    if (rc)
        memory_unmap(device_memory(&function->dev), &bar->region);
    return rc;
}

static void bar_map(struct pci_function *function, unsigned index, uint64_t gpa)
{
    struct error err = {0};
    struct pci_bar *bar = &function->bars[index];
    int rc;

    bar->gpa = gpa;
    rc = bar_is_io(function, index) ? bar_map_io(function, index, &err)
                                    : bar_map_memory(function, index, &err);
    bar->mapped = rc == 0;
    if (rc)
        log_guest("%s: BAR %u cannot be at 0x%" PRIx64 ": %s", function->dev.id, index, gpa,
                  err.text);
}

void pci_update_bars(struct pci_function *function)
{
    struct memory *memory = device_memory(&function->dev);
    struct error err = {0};
    uint32_t move = 0;

    for (unsigned i = 0; i < BAR_COUNT; i++) {
        uint64_t gpa = bar_programmed(function, i);
        bool decoded = bar_is_decoded(function, i, gpa);

        if (decoded != function->bars[i].mapped || (decoded && gpa != function->bars[i].gpa))
            move |= 1u << i;
    }
    if (!move)
        return;
    memory_begin(memory);
    for (unsigned i = 0; i < BAR_COUNT; i++)
        if (move & 1u << i)
            bar_unmap(function, i);
    for (unsigned i = 0; i < BAR_COUNT; i++)
        if ((move & 1u << i) && bar_is_decoded(function, i, bar_programmed(function, i)))
            bar_map(function, i, bar_programmed(function, i));
    if (memory_commit(memory, &err))
        log_error("%s: BARs cannot be mapped: %s", function->dev.id, err.text);
}

/* ---- configuration cycles ---- */

uint32_t pci_config_read(struct pci_bus *bus, unsigned address, unsigned offset, unsigned size)
{
    struct pci_function *function = pci_bus_route(bus, address);
    uint32_t value = 0;

    if (!function || offset + size > PCI_CONFIG_BYTES)
        return size < 4 ? (1u << 8 * size) - 1 : UINT32_MAX;
    if (function->desc.config_read && offset >= PCI_HEADER_END)
        function->desc.config_read(function, offset, size);
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)function->config[offset + i] << 8 * i;
    trace(PCI_CONFIG_READ, address, offset, size, value);
    return value;
}

static bool touches(unsigned offset, unsigned size, unsigned start, unsigned length)
{
    return offset < start + length && start < offset + size;
}

static void pci_vectors_written(struct pci_function *function)
{
    msix_flush(function);
    if (function->msi_offset)
        msi_flush(function);
    if (function->desc.vectors_changed)
        function->desc.vectors_changed(function);
}

/* Bring everything in line with configuration space after a write to it. */
static void pci_config_changed(struct pci_function *function, unsigned offset, unsigned size)
{
    bool command = touches(offset, size, PCI_COMMAND, 2);

    if (command || touches(offset, size, PCI_BAR0, 4 * PCI_BARS) ||
        touches(offset, size, PCI_ROM_ADDRESS, 4))
        pci_update_bars(function);
    if ((function->msix_offset && touches(offset, size, function->msix_offset, MSIX_SIZE)) ||
        (function->msi_offset && touches(offset, size, function->msi_offset, MSI_SIZE)))
        pci_vectors_written(function);
    pci_update_wire(function);
    if (function->desc.secondary)
        pci_bridge_written(function, offset, size);
    if (function->desc.config_written)
        function->desc.config_written(function, offset, size);
}

void pci_config_write(struct pci_bus *bus, unsigned address, unsigned offset, uint32_t value,
                      unsigned size)
{
    struct pci_function *function = pci_bus_route(bus, address);

    if (!function || offset + size > PCI_CONFIG_BYTES)
        return;
    trace(PCI_CONFIG_WRITE, address, offset, size, value);
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        uint8_t writable = function->writable[offset + i];
        uint8_t *config = &function->config[offset + i];

        *config = (uint8_t)((*config & ~writable) | (byte & writable));
        *config &= (uint8_t) ~(byte & function->clearable[offset + i]);
    }
    pci_config_changed(function, offset, size);
}

/* ---- building configuration space ---- */

static int pci_check_bar(const struct pci_function_desc *desc, unsigned index, struct error *err)
{
    const struct pci_bar_desc *bar = &desc->bar[index];
    bool io = bar->kind == PCI_BAR_IO;
    uint64_t min = io ? 4 : BAR_MEMORY_MIN;
    uint64_t max = io ? BAR_IO_MAX : bar->kind == PCI_BAR_MEMORY32 ? 1ull << 31 : BAR_MEMORY_MAX;

    if (bar->kind == PCI_BAR_NONE)
        return 0;
    if (bar->kind == PCI_BAR_ROM)
        return error_set(err, EINVAL, "BAR %u is no place for the expansion ROM", index);
    if (bar->size_bytes < min || bar->size_bytes > max || (bar->size_bytes & (bar->size_bytes - 1)))
        return error_set(err, EINVAL, "BAR %u has a size of %" PRIu64 " bytes", index,
                         bar->size_bytes);
    if (bar->kind == PCI_BAR_MEMORY64 &&
        (index + 1 >= PCI_BARS || desc->bar[index + 1].kind != PCI_BAR_NONE))
        return error_set(err, EINVAL, "BAR %u has no room for its upper half", index);
    return 0;
}

static bool msix_tables_fit(const struct pci_function_desc *desc)
{
    uint64_t table = desc->msix_table_offset, pba = desc->msix_pba_offset;
    uint64_t table_end = table + MSIX_ENTRY_BYTES * desc->msix_vectors;
    uint64_t pba_end = pba + ((desc->msix_vectors + 63u) / 64u) * 8u;
    uint64_t size = desc->bar[desc->msix_bar].size_bytes;

    return !(table % 8) && !(pba % 8) && table_end <= size && pba_end <= size &&
           (table_end <= pba || pba_end <= table);
}

static int pci_check_vectors(const struct pci_function_desc *desc, struct error *err)
{
    unsigned msi = desc->msi_vectors;

    if (msi > PCI_MSI_MAX || (msi & (msi - 1)))
        return error_set(err, EINVAL, "%u MSI vectors: must be a power of two up to 32", msi);
    if (!desc->msix_vectors)
        return 0;
    if (desc->msix_vectors > PCI_MSIX_MAX)
        return error_set(err, EINVAL, "%u MSI-X vectors: at most %u are possible",
                         desc->msix_vectors, PCI_MSIX_MAX);
    if (desc->msix_bar >= PCI_BARS || desc->bar[desc->msix_bar].kind < PCI_BAR_MEMORY32 ||
        !msix_tables_fit(desc))
        return error_set(err, EINVAL, "the MSI-X tables do not fit into BAR %u", desc->msix_bar);
    return 0;
}

static int pci_check(const struct pci_function_desc *desc, struct error *err)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        int rc = pci_check_bar(desc, i, err);

        if (rc)
            return rc;
    }
    if (desc->interrupt_pin > 4)
        return error_set(err, EINVAL, "interrupt pin %u: there are 4", desc->interrupt_pin);
    if (pci_bridge_check(desc, err))
        return -EINVAL;
    return pci_check_vectors(desc, err);
}

static void pci_build_header(struct pci_function *function)
{
    const struct pci_function_desc *desc = &function->desc;
    uint8_t *initial = function->initial, *writable = function->writable;

    pci_put16(initial + PCI_VENDOR_ID, desc->vendor_id);
    pci_put16(initial + PCI_DEVICE_ID, desc->device_id);
    pci_put32(initial + PCI_REVISION, desc->class_code << 8 | desc->revision);
    initial[PCI_HEADER_TYPE] = desc->multifunction ? 0x80 : 0;
    if (!desc->secondary) {
        pci_put16(initial + PCI_SUBSYSTEM_VENDOR_ID, desc->subsystem_vendor_id);
        pci_put16(initial + PCI_SUBSYSTEM_ID, desc->subsystem_id);
    }
    initial[PCI_INTERRUPT_PIN] = desc->interrupt_pin;
    pci_put16(writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                          PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                                          PCI_COMMAND_NO_INTX);
    pci_put16(function->clearable + PCI_STATUS, 0xf900); /* errors; nothing sets them */
    writable[PCI_CACHE_LINE] = 0xff;
    writable[PCI_LATENCY] = 0xff;
    writable[PCI_INTERRUPT_LINE] = 0xff;
    if (desc->secondary)
        pci_bridge_build(function);
}

static void pci_build_bar(struct pci_function *function, unsigned index)
{
    const struct pci_bar_desc *bar = &function->desc.bar[index];
    uint8_t *initial = function->initial + bar_register(index);
    uint8_t *writable = function->writable + bar_register(index);
    uint64_t mask = ~(bar->size_bytes - 1);
    uint32_t flags = bar->kind == PCI_BAR_IO ? BAR_IO_FLAG : 0;

    if (bar->kind == PCI_BAR_NONE)
        return;
    if (bar->kind == PCI_BAR_ROM)
        mask |= ROM_ENABLE;
    if (bar->kind == PCI_BAR_MEMORY64)
        flags |= BAR_MEMORY64;
    if (bar->kind != PCI_BAR_IO && bar->prefetchable)
        flags |= BAR_PREFETCHABLE;
    pci_put32(initial, flags);
    pci_put32(writable, (uint32_t)mask);
    if (bar->kind == PCI_BAR_MEMORY64)
        pci_put32(writable + 4, (uint32_t)(mask >> 32));
}

/* Append a capability to the list; returns its offset, or 0 if there is no room. */
static unsigned pci_build_capability(struct pci_function *function, uint8_t id, unsigned size)
{
    unsigned offset = (function->config_used + 3u) & ~3u;
    unsigned link = PCI_CAPABILITIES;

    if (size < 2 || offset + size > PCI_CONFIG_BYTES)
        return 0;
    while (function->initial[link])
        link = function->initial[link] + 1u;
    function->initial[link] = (uint8_t)offset;
    function->initial[offset] = id;
    function->config_used = (uint16_t)(offset + size);
    function->initial[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    return offset;
}

static unsigned log2_of(unsigned power)
{
    return (unsigned)__builtin_ctz(power);
}

static int pci_build_msi(struct pci_function *function, struct error *err)
{
    unsigned count = function->desc.msi_vectors, offset;
    uint8_t *writable;

    if (!count)
        return 0;
    offset = pci_build_capability(function, PCI_CAP_MSI, MSI_SIZE);
    if (!offset)
        return error_set(err, EINVAL, "no room for the MSI capability");
    function->msi_offset = (uint8_t)offset;
    writable = function->writable + offset;
    pci_put16(function->initial + offset + MSI_CONTROL,
              (uint16_t)(MSI_64BIT | MSI_MASKING | log2_of(count) << 1));
    pci_put16(writable + MSI_CONTROL, MSI_ENABLE | 7u << MSI_ENABLED_SHIFT);
    pci_put32(writable + MSI_ADDRESS_LOW, ~3u);
    pci_put32(writable + MSI_ADDRESS_HIGH, UINT32_MAX);
    pci_put16(writable + MSI_DATA, UINT16_MAX);
    pci_put32(writable + MSI_MASK, (uint32_t)((1ull << count) - 1));
    return 0;
}

static int pci_build_msix(struct pci_function *function, struct error *err)
{
    const struct pci_function_desc *desc = &function->desc;
    unsigned offset;

    if (!desc->msix_vectors)
        return 0;
    offset = pci_build_capability(function, PCI_CAP_MSIX, MSIX_SIZE);
    if (!offset)
        return error_set(err, EINVAL, "no room for the MSI-X capability");
    function->msix_offset = (uint8_t)offset;
    pci_put16(function->initial + offset + MSIX_CONTROL, (uint16_t)(desc->msix_vectors - 1));
    pci_put16(function->writable + offset + MSIX_CONTROL, MSIX_ENABLE | MSIX_MASK_ALL);
    pci_put32(function->initial + offset + MSIX_TABLE, desc->msix_table_offset | desc->msix_bar);
    pci_put32(function->initial + offset + MSIX_PBA, desc->msix_pba_offset | desc->msix_bar);
    return 0;
}

static int pci_build_capabilities(struct pci_function *function, struct error *err)
{
    for (unsigned i = 0; i < function->desc.capability_count; i++) {
        const struct pci_capability_desc *cap = &function->desc.capabilities[i];
        unsigned offset = pci_build_capability(function, cap->id, cap->size_bytes);

        if (!offset)
            return error_set(err, EINVAL, "no room for capability %u", i);
        memcpy(function->initial + offset + 2, cap->contents, cap->size_bytes - 2u);
        if (cap->writable)
            memcpy(function->writable + offset + 2, cap->writable, cap->size_bytes - 2u);
    }
    return 0;
}

unsigned pci_capability_offset(const struct pci_function *function, unsigned index)
{
    unsigned offset = function->initial[PCI_CAPABILITIES];

    while (index-- && offset)
        offset = function->initial[offset + 1];
    return offset;
}

/* What a function of PCI Express has at least: an endpoint's capability (PCI Express Base, 7.5.3).
 */
static int pci_build_express(struct pci_function *function, struct error *err)
{
    unsigned offset;

    if (!function->bus->is_express)
        return 0;
    offset = pci_build_capability(function, PCI_CAP_EXPRESS, PCI_EXPRESS_BYTES);
    if (!offset)
        return error_set(err, EINVAL, "no room for the PCI Express capability");
    pci_put16(function->initial + offset + PCI_EXPRESS_FLAGS, 2); /* version; an endpoint */
    pci_put32(function->initial + offset + PCI_EXPRESS_DEVICE, PCI_EXPRESS_ERRORS);
    pci_put16(function->writable + offset + PCI_EXPRESS_DEVICE_CONTROL, 0x781f);
    pci_put32(function->initial + offset + PCI_EXPRESS_LINK, PCI_EXPRESS_LANE);
    pci_put16(function->initial + offset + PCI_EXPRESS_LINK_STATUS, PCI_EXPRESS_LANE);
    pci_put16(function->writable + offset + PCI_EXPRESS_LINK_CONTROL, 0x00c3);
    return 0;
}

/* The device's own capabilities come first, so that pci_capability_offset can count. */
static int pci_build(struct pci_function *function, struct error *err)
{
    int rc;

    memset(function->initial, 0, sizeof(function->initial));
    memset(function->writable, 0, sizeof(function->writable));
    memset(function->clearable, 0, sizeof(function->clearable));
    function->config_used = PCI_HEADER_END;
    function->msi_offset = function->msix_offset = 0;
    pci_build_header(function);
    for (unsigned i = 0; i < BAR_COUNT; i++)
        pci_build_bar(function, i);
    rc = pci_build_capabilities(function, err);
    if (!rc)
        rc = pci_build_express(function, err);
    if (!rc)
        rc = pci_build_msi(function, err);
    return rc ? rc : pci_build_msix(function, err);
}

static void pci_prepare_region(struct pci_function *function, struct region *region,
                               const struct region_ops *ops, uint64_t size_bytes, int priority)
{
    region->name = ops->name;
    region->kind = REGION_DEVICE;
    region->size_bytes = size_bytes;
    region->priority = priority;
    region->ops = ops;
    region->dev = &function->dev;
}

/* RAM of pci_set_bar_ram keeps its kind and mapping. */
static void pci_prepare_regions(struct pci_function *function)
{
    unsigned vectors = function->desc.msix_vectors;

    for (unsigned i = 0; i < BAR_COUNT; i++) {
        struct region *region = &function->bars[i].region;

        if (region->hva) {
            region->name = i == PCI_ROM ? "pci-rom" : "pci-bar-ram";
            region->kind = i == PCI_ROM ? REGION_ROM : REGION_RAM;
            region->size_bytes = function->desc.bar[i].size_bytes;
            region->priority = BAR_PRIORITY;
        } else {
            pci_prepare_region(function, region, bar_ops(function, i),
                               function->desc.bar[i].size_bytes, BAR_PRIORITY);
        }
    }
    pci_prepare_region(function, &function->msix_table_region, &msix_table_ops,
                       (uint64_t)vectors * MSIX_ENTRY_BYTES, MSIX_PRIORITY);
    pci_prepare_region(function, &function->msix_pba_region, &msix_pba_ops,
                       ((vectors + 63) / 64) * 8, MSIX_PRIORITY);
}

void pci_set_bar_ram(struct pci_function *function, unsigned bar, uint8_t *hva, uint64_t ram_offset)
{
    function->bars[bar].region.hva = hva;
    function->bars[bar].region.ram_offset = ram_offset;
}

/* Its size is the next power of two, the rest all zeros. */
static int pci_load_rom(struct pci_function *function, struct error *err)
{
    struct pci_bar_desc *bar = &function->desc.bar[PCI_ROM];
    uint64_t size_bytes = ROM_MIN, ram_offset;
    size_t file_bytes;
    uint8_t *data, *hva;

    *bar = (struct pci_bar_desc){.kind = PCI_BAR_NONE};
    if (!function->romfile || !*function->romfile)
        return 0;
    if (host_file_read(function->romfile, PCI_ROM_MAX, &data, &file_bytes, err)) {
        error_prefix(err, "romfile: ");
        return -EINVAL;
    }
    while (size_bytes < file_bytes)
        size_bytes *= 2;
    hva = memory_add_block(device_memory(&function->dev), size_bytes, &ram_offset, err);
    if (hva) {
        memcpy(hva, data, file_bytes);
        *bar = (struct pci_bar_desc){.kind = PCI_BAR_ROM, .size_bytes = size_bytes};
        pci_set_bar_ram(function, PCI_ROM, hva, ram_offset);
    }
    free(data);
    return hva ? 0 : -ENOSPC;
}

/* ---- the place on the bus ---- */

static int pci_parse_address(const char *text, unsigned *out_address, struct error *err)
{
    char *end;
    unsigned long slot = strtoul(text, &end, 16), number = 0;

    if (end != text && *end == '.' && end[1])
        number = strtoul(end + 1, &end, 16);
    if (end == text || *end || slot >= PCI_SLOTS || number >= 8)
        return error_set(err, EINVAL,
                         "addr=%s: expected SLOT or SLOT.FUNCTION, 0 to 1f.7 in "
                         "hexadecimal",
                         text);
    *out_address = (unsigned)(slot << 3 | number);
    return 0;
}

/* First slot of which no function is taken; on the root bus 0 is the host bridge's. */
static int pci_free_address(const struct pci_bus *bus, unsigned *out_address, struct error *err)
{
    for (unsigned slot = bus->bridge ? 0 : 1; slot < bus->slots; slot++) {
        bool taken = false;

        for (unsigned i = 0; i < 8; i++)
            taken |= bus->functions[slot << 3 | i] != NULL;
        if (!taken) {
            *out_address = slot << 3;
            return 0;
        }
    }
    return error_set(err, ENOSPC, "all %u slots of the PCI bus are taken", bus->slots);
}

/* What stands behind a slash in "BRIDGE/SLOT.FUNCTION", and the bus that it is on; "BRIDGE/" is the
 * first free slot there. */
static int pci_find_bus(struct pci_function *function, const char **place, struct error *err)
{
    const char *slash = *place ? strchr(*place, '/') : NULL;
    char id[sizeof(function->dev.id)];

    if (slash) {
        snprintf(id, sizeof(id), "%.*s", (int)(slash - *place), *place);
        function->bus = pci_bus_find(function->dev.machine, id);
        if (!function->bus)
            return error_set(err, ENOENT, "addr=%s: there is no PCI bridge '%s'", *place, id);
        *place = slash[1] ? slash + 1 : NULL;
    }
    if (!function->bus)
        function->bus = machine_pci_bus(function->dev.machine);
    return function->bus
               ? 0
               : error_set(err, ENODEV, "%s: this machine has no PCI bus", function->dev.id);
}

static int pci_find_place(struct pci_function *function, unsigned *out_address, struct error *err)
{
    const char *place = function->desc.place ? function->desc.place : function->addr;
    int rc = pci_find_bus(function, &place, err);
    struct pci_bus *bus = function->bus;

    if (!rc)
        rc = place ? pci_parse_address(place, out_address, err)
                   : pci_free_address(bus, out_address, err);
    if (rc)
        return rc;
    if (*out_address >> 3 >= bus->slots)
        return error_set(err, EINVAL, "addr=%s: this bus has %u slots", place, bus->slots);
    if (bus->functions[*out_address])
        return error_set(err, EBUSY, "PCI address %02x.%x is taken by %s", *out_address >> 3,
                         *out_address & 7, bus->functions[*out_address]->dev.id);
    return 0;
}

int pci_attach(struct pci_function *function, const struct pci_function_desc *desc,
               struct error *err)
{
    unsigned address = 0;
    int rc = pci_check(desc, err);

    if (rc)
        return rc;
    function->desc = *desc;
    rc = pci_find_place(function, &address, err);
    if (!rc)
        rc = pci_load_rom(function, err);
    if (!rc)
        rc = pci_build(function, err);
    if (rc)
        return rc;
    pci_prepare_regions(function);
    function->slot = (uint8_t)(address >> 3);
    function->number = address & 7;
    function->bus->functions[address] = function;
    if (function->bus->occupied)
        function->bus->occupied(function->bus);
    return 0;
}

static bool pci_is_attached(const struct pci_function *function)
{
    return function->bus &&
           function->bus->functions[function->slot << 3 | function->number] == function;
}

void pci_detach(struct pci_function *function)
{
    struct error err = {0};

    if (!pci_is_attached(function))
        return;
    pci_set_intx(function, false);
    memory_begin(device_memory(&function->dev));
    for (unsigned i = 0; i < BAR_COUNT; i++)
        bar_unmap(function, i);
    if (memory_commit(device_memory(&function->dev), &err))
        log_error("%s: %s", function->dev.id, err.text);
    function->bus->functions[function->slot << 3 | function->number] = NULL;
    if (function->bus->occupied)
        function->bus->occupied(function->bus);
}

void pci_boot_path(const struct pci_function *function, const char *node, const char *behind,
                   char *out, size_t size)
{
    char number[8] = "";

    if (function->number)
        snprintf(number, sizeof(number), ",%x", function->number);
    snprintf(out, size, "/pci@i0cf8/%s@%x%s%s", node, function->slot, number, behind);
}

/* ---- reset and state ---- */

static void pci_reset(struct pci_function *function)
{
    memcpy(function->config, function->initial, sizeof(function->config));
    memset(function->msix_table, 0, sizeof(function->msix_table));
    memset(function->msix_pending, 0, sizeof(function->msix_pending));
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        function->msix_table[i].control = MSIX_VECTOR_MASK;
    function->intx_level = false;
}

void pci_bus_reset(struct pci_bus *bus)
{
    for (unsigned i = 0; i < PCI_FUNCTIONS; i++)
        if (bus->functions[i]) {
            pci_reset(bus->functions[i]);
            if (bus->functions[i]->desc.secondary)
                pci_bus_reset(bus->functions[i]->desc.secondary);
        }
}

void pci_bus_reset_done(struct pci_bus *bus)
{
    for (unsigned i = 0; i < PCI_FUNCTIONS; i++)
        if (bus->functions[i]) {
            pci_update_bars(bus->functions[i]);
            pci_update_wire(bus->functions[i]);
            if (bus->functions[i]->desc.secondary)
                pci_bus_reset_done(bus->functions[i]->desc.secondary);
        }
}

void pci_power_on(struct pci_function *function)
{
    const struct device_class *class = function->dev.class;

    if (class->reset)
        class->reset(&function->dev);
    pci_reset(function);
    pci_update_bars(function);
    pci_update_wire(function);
    if (class->reset_done)
        class->reset_done(&function->dev);
}

/* MSI's pending bits are the function's own; pci_update_wire sets those of the status. */
static bool pci_is_pending(const struct pci_function *function, unsigned offset)
{
    return function->msi_offset && offset / 4 == (function->msi_offset + MSI_PENDING) / 4u;
}

/* Bits that no guest can have changed come from the description, whatever the stream says. */
int pci_after_load(struct pci_function *function, struct error *err)
{
    (void)err;
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
        uint8_t own = function->writable[i] | function->clearable[i];

        if (pci_is_pending(function, i))
            continue;
        function->config[i] =
            (uint8_t)((function->initial[i] & ~own) | (function->config[i] & own));
    }
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        function->msix_table[i].control &= MSIX_VECTOR_MASK;
    pci_update_bars(function);
    pci_update_wire(function);
    if (function->desc.secondary)
        pci_bus_update(function->desc.secondary);
    return 0;
}

const struct state_field pci_function_state[] = {
    STATE_BYTES(struct pci_function, config),
    STATE_BOOL(struct pci_function, intx_level),
    {
        .name = "msix_table", /* as an array of doublewords, as the guest sees it */
        .type = STATE_TYPE_U32,
        .offset = offsetof(struct pci_function, msix_table),
        .count = PCI_MSIX_MAX * MSIX_ENTRY_BYTES / 4,
        .element_size = 4,
        .max = UINT32_MAX,
    },
    STATE_U32S(struct pci_function, msix_pending),
    STATE_END,
};
