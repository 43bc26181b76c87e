/*
 * mp_table.c - the MultiProcessor table of the PC board
 *
 * After Intel's MultiProcessor Specification 1.4, chapter 4 and appendix D.3 (PCI). Only the root
 * bus has entries: behind bridges, a system turns pins as these do. Processors are described by the
 * least that one with a local APIC has; systems ask CPUID.
 */
#include "machine/mp_table.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "trapeze/pci.h"

enum {
    POINTER_BYTES = 16,
    HEADER_BYTES = 44,
    PROCESSOR_BYTES = 20,
    ENTRY_BYTES = 8, /* of all others */
    REVISION = 4,    /* 1.4 */

    PROCESSOR = 0,
    BUS = 1,
    IOAPIC = 2,
    IO_INTERRUPT = 3,
    LOCAL_INTERRUPT = 4,

    ENABLED = 1 << 0,
    BOOT_PROCESSOR = 1 << 1,
    SIGNATURE = 0x600,
    FEATURES = 1 << 0 | 1 << 8 | 1 << 9, /* FPU, CMPXCHG8B, APIC */
    LAPIC_VERSION = 0x14,
    IOAPIC_VERSION = 0x20,

    BUS_PCI_ID = 0, /* as the bus's number */
    BUS_ISA_ID = 1,
    ISA_IRQS = 16,
    CASCADE_IRQ = 2,
    ALL_LAPICS = 0xff,

    INT = 0,
    NMI = 1,
    EXTINT = 3,
    CONFORMS = 0, /* as interrupts of the bus are: ISA edges, PCI active-low levels */
    HIGH_LEVEL = 1 << 0 | 3 << 2,
};

struct mp_writer {
    uint8_t *data;
    size_t used, capacity;
    unsigned entries;
    bool overflow;
    uint8_t scratch[PROCESSOR_BYTES]; /* written to after an overflow, never read */
};

static uint8_t *add_entry(struct mp_writer *w, uint8_t type, size_t size_bytes)
{
    uint8_t *p = w->data + w->used;

    if (w->overflow || !range_fits(w->used, size_bytes, w->capacity)) {
        w->overflow = true;
        return w->scratch;
    }
    memset(p, 0, size_bytes);
    p[0] = type;
    w->used += size_bytes;
    w->entries++;
    return p;
}

static void add_processor(struct mp_writer *w, unsigned id)
{
    uint8_t *p = add_entry(w, PROCESSOR, PROCESSOR_BYTES);

    p[1] = (uint8_t)id;
    p[2] = LAPIC_VERSION;
    p[3] = ENABLED | (id == 0 ? BOOT_PROCESSOR : 0);
    put_le32(p + 4, SIGNATURE);
    put_le32(p + 8, FEATURES);
}

static void add_bus(struct mp_writer *w, uint8_t id, const char name[6])
{
    uint8_t *p = add_entry(w, BUS, ENTRY_BYTES);

    p[1] = id;
    memcpy(p + 2, name, 6);
}

static void add_ioapic(struct mp_writer *w)
{
    uint8_t *p = add_entry(w, IOAPIC, ENTRY_BYTES);

    p[1] = PC_IOAPIC_ID;
    p[2] = IOAPIC_VERSION;
    p[3] = ENABLED;
    put_le32(p + 4, PC_IOAPIC);
}

static void add_interrupt(struct mp_writer *w, uint8_t entry, uint8_t type, uint16_t flags,
                          uint8_t bus, unsigned source, uint8_t target, unsigned pin)
{
    uint8_t *p = add_entry(w, entry, ENTRY_BYTES);

    p[1] = type;
    put_le16(p + 2, flags);
    p[4] = bus;
    p[5] = (uint8_t)source;
    p[6] = target;
    p[7] = (uint8_t)pin;
}

/* Virtio devices without PCI share theirs. */
static bool is_level(unsigned irq)
{
    for (unsigned i = 0; i < PC_VIRTIO_LINES; i++)
        if (pc_virtio_irqs[i] == irq)
            return true;
    return false;
}

static void add_interrupts(struct mp_writer *w)
{
    for (unsigned irq = 0; irq < ISA_IRQS; irq++)
        if (irq != CASCADE_IRQ)
            add_interrupt(w, IO_INTERRUPT, INT, is_level(irq) ? HIGH_LEVEL : CONFORMS, BUS_ISA_ID,
                          irq, PC_IOAPIC_ID, irq == PC_IRQ_PIT ? PC_GSI_PIT : irq);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < 4; pin++)
            add_interrupt(w, IO_INTERRUPT, INT, CONFORMS, BUS_PCI_ID, slot << 2 | pin, PC_IOAPIC_ID,
                          PC_GSI_PCI + pci_pirq(slot, pin + 1));
    add_interrupt(w, LOCAL_INTERRUPT, EXTINT, CONFORMS, BUS_ISA_ID, 0, ALL_LAPICS, 0);
    add_interrupt(w, LOCAL_INTERRUPT, NMI, CONFORMS, BUS_ISA_ID, 0, ALL_LAPICS, 1);
}

static void write_pointer(uint8_t *p, uint64_t table_gpa)
{
    memset(p, 0, POINTER_BYTES);
    memcpy(p, "_MP_", 4);
    put_le32(p + 4, (uint32_t)table_gpa);
    p[8] = POINTER_BYTES / 16;
    p[9] = REVISION;
    p[10] = sum_complement(p, POINTER_BYTES); /* features: a table, virtual wire mode */
}

static void write_header(uint8_t *p, size_t table_bytes, unsigned entries)
{
    memset(p, 0, HEADER_BYTES);
    memcpy(p, "PCMP", 4);
    put_le16(p + 4, (uint16_t)table_bytes);
    p[6] = REVISION;
    memcpy(p + 8, "TRAPEZE PC          ", 20); /* maker, product */
    put_le16(p + 34, (uint16_t)entries);
    put_le32(p + 36, PC_LAPIC);
    p[7] = sum_complement(p, table_bytes);
}

int mp_table_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
                   size_t capacity_bytes, size_t *out_size_bytes, struct error *err)
{
    struct mp_writer w = {
        .data = buffer, .used = POINTER_BYTES + HEADER_BYTES, .capacity = capacity_bytes};

    for (unsigned i = 0; i < layout->vcpu_count; i++)
        add_processor(&w, i);
    add_bus(&w, BUS_PCI_ID, "PCI   ");
    add_bus(&w, BUS_ISA_ID, "ISA   ");
    add_ioapic(&w);
    add_interrupts(&w);
    if (w.overflow)
        return error_set(err, ENOSPC, "the MP table does not fit into %zu bytes", capacity_bytes);
    write_pointer(buffer, base_gpa + POINTER_BYTES);
    write_header(buffer + POINTER_BYTES, w.used - POINTER_BYTES, w.entries);
    *out_size_bytes = w.used;
    return 0;
}
