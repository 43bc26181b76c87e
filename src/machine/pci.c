/*
 * pci.c - PCI configuration space, interrupt pins, a function's place and life
 *
 * PCI Local Bus Specification 3.0, chapter 6: header of type 0, capabilities.
 *
 * Theory of operation. attach builds three images of configuration space from the
 * description: values after reset, bits the guest can write, bits that writing 1 clears. A
 * write goes through them byte by byte, and then whatever depends on configuration space
 * is brought in line: BAR mappings, the interrupt wire, messages that were held back
 * by a mask.
 *
 * BARs are pci_bar.c's, messages pci_message.c's, bridges pci_bridge.c's. Left out: extended
 * configuration space, power management, latency and cache line effects (the registers only store).
 */
#include "machine/pci_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "trapeze/machine.h"

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

unsigned pci_command(const struct pci_function *function)
{
    return pci_get16(function->config + PCI_COMMAND);
}

bool pci_is_master(const struct pci_function *function)
{
    return pci_command(function) & PCI_COMMAND_MASTER && pci_bus_is_master(function->bus);
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

bool pci_touches(unsigned offset, unsigned size, unsigned start, unsigned length)
{
    return offset < start + length && start < offset + size;
}

/* Bring everything in line with configuration space after a write to it. */
static void pci_config_changed(struct pci_function *function, unsigned offset, unsigned size)
{
    pci_bars_written(function, offset, size);
    pci_messages_written(function, offset, size);
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

static int pci_check(const struct pci_function_desc *desc, struct error *err)
{
    if (pci_bars_check(desc, err))
        return -EINVAL;
    if (desc->interrupt_pin > 4)
        return error_set(err, EINVAL, "interrupt pin %u: there are 4", desc->interrupt_pin);
    if (pci_bridge_check(desc, err))
        return -EINVAL;
    return pci_messages_check(desc, err);
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

/* Append a capability to the list; returns its offset, or 0 if there is no room. */
unsigned pci_build_capability(struct pci_function *function, uint8_t id, unsigned size)
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
    pci_bars_build(function);
    rc = pci_build_capabilities(function, err);
    if (!rc)
        rc = pci_build_express(function, err);
    return rc ? rc : pci_messages_build(function, err);
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
    pci_bars_prepare(function);
    pci_messages_prepare(function);
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
    if (!pci_is_attached(function))
        return;
    pci_set_intx(function, false);
    pci_bars_unmap(function);
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
    pci_messages_reset(function);
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

/* Bits that no guest can have changed come from the description, whatever the stream says. */
int pci_after_load(struct pci_function *function, struct error *err)
{
    (void)err;
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
        uint8_t own = function->writable[i] | function->clearable[i];

        if (pci_messages_own(function, i))
            continue;
        function->config[i] =
            (uint8_t)((function->initial[i] & ~own) | (function->config[i] & own));
    }
    pci_messages_loaded(function);
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
        .count = PCI_MSIX_MAX * PCI_MSIX_ENTRY_BYTES / 4,
        .element_size = 4,
        .max = UINT32_MAX,
    },
    STATE_U32S(struct pci_function, msix_pending),
    STATE_END,
};
