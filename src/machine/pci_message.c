/*
 * pci_message.c - a function's interrupts by message: MSI and MSI-X
 *
 * PCI Local Bus Specification 3.0: MSI with masks (6.8.1), MSI-X (6.8.2). What a mask holds back is
 * pending, and sent when the mask goes; without bus mastering messages are lost.
 */
#include <errno.h>
#include <string.h>

#include "machine/pci_internal.h"
#include "trapeze/machine.h"

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
#define MSIX_PRIORITY     (-1)

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
    struct pci_msix_entry *entry = &function->msix_table[offset / PCI_MSIX_ENTRY_BYTES];
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
        msi_send(function->dev.machine,
                 pci_get32(msi + MSI_ADDRESS_LOW) | (uint64_t)pci_get32(msi + MSI_ADDRESS_HIGH)
                                                        << 32,
                 data);
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

/* ---- configuration space ---- */

static bool msix_tables_fit(const struct pci_function_desc *desc)
{
    uint64_t table = desc->msix_table_offset, pba = desc->msix_pba_offset;
    uint64_t table_end = table + PCI_MSIX_ENTRY_BYTES * desc->msix_vectors;
    uint64_t pba_end = pba + ((desc->msix_vectors + 63u) / 64u) * 8u;
    uint64_t size = desc->bar[desc->msix_bar].size_bytes;

    return !(table % 8) && !(pba % 8) && table_end <= size && pba_end <= size &&
           (table_end <= pba || pba_end <= table);
}

int pci_messages_check(const struct pci_function_desc *desc, struct error *err)
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

int pci_messages_build(struct pci_function *function, struct error *err)
{
    int rc = pci_build_msi(function, err);

    return rc ? rc : pci_build_msix(function, err);
}

void pci_messages_prepare(struct pci_function *function)
{
    unsigned vectors = function->desc.msix_vectors;

    pci_prepare_region(function, &function->msix_table_region, &msix_table_ops,
                       (uint64_t)vectors * PCI_MSIX_ENTRY_BYTES, MSIX_PRIORITY);
    pci_prepare_region(function, &function->msix_pba_region, &msix_pba_ops,
                       ((vectors + 63) / 64) * 8, MSIX_PRIORITY);
}

void pci_messages_written(struct pci_function *function, unsigned offset, unsigned size)
{
    bool msix =
        function->msix_offset && pci_touches(offset, size, function->msix_offset, MSIX_SIZE);
    bool msi = function->msi_offset && pci_touches(offset, size, function->msi_offset, MSI_SIZE);

    if (!msix && !msi)
        return;
    msix_flush(function);
    if (function->msi_offset)
        msi_flush(function);
    if (function->desc.vectors_changed)
        function->desc.vectors_changed(function);
}

void pci_messages_reset(struct pci_function *function)
{
    memset(function->msix_table, 0, sizeof(function->msix_table));
    memset(function->msix_pending, 0, sizeof(function->msix_pending));
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        function->msix_table[i].control = MSIX_VECTOR_MASK;
}

void pci_messages_loaded(struct pci_function *function)
{
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        function->msix_table[i].control &= MSIX_VECTOR_MASK;
}

bool pci_messages_own(const struct pci_function *function, unsigned offset)
{
    return function->msi_offset && offset / 4 == (function->msi_offset + MSI_PENDING) / 4u;
}
