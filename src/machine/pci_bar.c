/*
 * pci_bar.c - a function's base address registers and expansion ROM: sizes, decoding, mappings
 *
 * PCI Local Bus Specification 3.0, 6.2.5. BARs lie below RAM in the memory map, as on a chipset
 * that decodes RAM first; one at a place where it cannot be is left unmapped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "host/file.h"
#include "machine/pci_internal.h"
#include "trapeze/machine.h"

#define BAR_IO_FLAG      0x1u
#define BAR_MEMORY64     0x4u
#define BAR_PREFETCHABLE 0x8u
#define BAR_IO_MASK      0x3u
#define BAR_MEMORY_MASK  0xfu
#define BAR_IO_MAX       256u
#define BAR_MEMORY_MIN   16u
#define BAR_MEMORY_MAX   (1ull << 40)
#define ROM_ENABLE       0x1u
#define ROM_MIN          GUEST_PAGE_SIZE
#define BAR_COUNT        (PCI_BARS + 1u) /* with the expansion ROM */
#define BAR_PRIORITY     (-2)

static uint64_t pci_get64(const uint8_t *bytes)
{
    return pci_get32(bytes) | (uint64_t)pci_get32(bytes + 4) << 32;
}

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

void pci_bars_unmap(struct pci_function *function)
{
    struct error err = {0};

    memory_begin(device_memory(&function->dev));
    for (unsigned i = 0; i < BAR_COUNT; i++)
        bar_unmap(function, i);
    if (memory_commit(device_memory(&function->dev), &err))
        log_error("%s: %s", function->dev.id, err.text);
}

void pci_bars_written(struct pci_function *function, unsigned offset, unsigned size)
{
    if (pci_touches(offset, size, PCI_COMMAND, 2) ||
        pci_touches(offset, size, PCI_BAR0, 4 * PCI_BARS) ||
        pci_touches(offset, size, PCI_ROM_ADDRESS, 4))
        pci_update_bars(function);
}

/* ---- building ---- */

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

int pci_bars_check(const struct pci_function_desc *desc, struct error *err)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        int rc = pci_check_bar(desc, i, err);

        if (rc)
            return rc;
    }
    return 0;
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

void pci_bars_build(struct pci_function *function)
{
    for (unsigned i = 0; i < BAR_COUNT; i++)
        pci_build_bar(function, i);
}

void pci_prepare_region(struct pci_function *function, struct region *region,
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
void pci_bars_prepare(struct pci_function *function)
{
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
}

void pci_set_bar_ram(struct pci_function *function, unsigned bar, uint8_t *hva, uint64_t ram_offset)
{
    function->bars[bar].region.hva = hva;
    function->bars[bar].region.ram_offset = ram_offset;
}

/* Its size is the next power of two, the rest all zeros. */
int pci_load_rom(struct pci_function *function, struct error *err)
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
