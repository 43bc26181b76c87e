/*
 * acpi.c - the ACPI tables of the PC board
 *
 * After ACPI 6.4, chapter 5 (tables), the IA-PC HPET specification 1.0a, 3.2.4, the
 * PCI firmware specification 3.0, 4.1.2 (MCFG) and 4.5.1 (_OSC), and Microsoft's WAET. Hardware
 * model, not reduced. Left out: methods for general-purpose events (no hot plug yet), C-states
 * beyond HLT, P-states, thermal zones, PCI interrupt links for systems that use the 8259 only.
 */
#include "machine/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/acpi_pm.h"
#include "devices/hpet.h"
#include "machine/aml.h"
#include "trapeze/pci.h"

enum {
    HEADER_BYTES = 36,
    HEADER_LENGTH = 4,
    HEADER_CHECKSUM = 9,

    RSDP_BYTES = 36,
    RSDP_V1_BYTES = 20, /* covered by the first checksum */
    FACS_BYTES = 64,
    FACS_VECTOR = 12,
    FACS_X_VECTOR = 24,
    FADT_BYTES = 276,

    EISA_ID_LENGTH = 7, /* longer ones are strings */
    TABLE_COUNT = 5,    /* in RSDT and XSDT */
    TABLE_ALIGNMENT = 64,

    SPACE_MEMORY = 0,
    SPACE_IO = 1,

    /* FADT, IA-PC boot architecture: COM ports and the like; i8042 */
    BOOT_ARCH = 1 << 0 | 1 << 1,
    BOOT_ARCH_NO_VGA = 1 << 2,
    /* WBINVD works; C1 on all; 32-bit timer; reset register. Buttons and RTC wake are in PM1. */
    FADT_FLAGS = 1 << 0 | 1 << 2 | 1 << 8 | 1 << 10,
    C2_UNSUPPORTED_US = 101,
    C3_UNSUPPORTED_US = 1001,
    CMOS_CENTURY = 0x32,

    MADT_PCAT_COMPATIBLE = 1,
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    INTERRUPT_ACTIVE_HIGH = 1,
    INTERRUPT_LEVEL = 3 << 2,

    /* _OSC: in the first doubleword */
    OSC_UNKNOWN_UUID = 1 << 2,
    OSC_UNKNOWN_REVISION = 1 << 3,
    OSC_MASKED = 1 << 4,
    /* In the third: native hot plug, SHPC, PME, AER, PCI Express capability. LTR and DPC are not.
     */
    OSC_GRANTED = 0x1f,

    DEVICE_PRESENT = 0x0f, /* _STA: present, enabled, shown, works */

    HPET_MIN_TICK = 1000, /* 10 us: shorter periods than that are not kept */
    WAET_PM_TIMER_GOOD = 1 << 1,
};

struct acpi_writer {
    uint8_t *data;
    size_t used, capacity;
    uint64_t base_gpa;
    struct acpi_fixups *fixups; /* NULL: nobody moves the tables */
    bool overflow;
};

/* Take aligned, zeroed room. NULL when there is none left. */
static uint8_t *take(struct acpi_writer *w, size_t size_bytes)
{
    size_t at = align_up(w->used, TABLE_ALIGNMENT);

    if (!range_fits(at, size_bytes, w->capacity)) {
        w->overflow = true;
        return NULL;
    }
    memset(w->data + w->used, 0, at + size_bytes - w->used);
    w->used = at + size_bytes;
    return w->data + at;
}

static uint64_t gpa_of(const struct acpi_writer *w, const uint8_t *table)
{
    return w->base_gpa + (uint64_t)(table - w->data);
}

static void add_fixup(struct acpi_writer *w, enum acpi_fixup_kind kind, const uint8_t *field,
                      size_t start, size_t size_bytes)
{
    struct acpi_fixups *f = w->fixups;

    if (!f)
        return;
    if (f->count == ACPI_FIXUPS_MAX) {
        w->overflow = true;
        return;
    }
    f->items[f->count++] = (struct acpi_fixup){
        .kind = kind,
        .offset = (uint32_t)(field - w->data),
        .start = (uint32_t)start,
        .size_bytes = (uint32_t)size_bytes,
    };
}

/* The address of a table in a field of 4 or 8 bytes. */
static void put_pointer(struct acpi_writer *w, uint8_t *field, size_t size_bytes,
                        const uint8_t *table)
{
    uint64_t gpa = gpa_of(w, table);

    put_le32(field, (uint32_t)gpa);
    if (size_bytes == 8)
        put_le32(field + 4, (uint32_t)(gpa >> 32));
    add_fixup(w, ACPI_FIXUP_POINTER, field, 0, size_bytes);
}

static void write_header(uint8_t *table, const char *signature, uint8_t revision)
{
    memcpy(table, signature, 4);
    table[8] = revision;
    memcpy(table + 10, "TRAPEZ", 6);
    memcpy(table + 16, "TRAPEZE ", 8);
    put_le32(table + 24, 1);
    memcpy(table + 28, "TRPZ", 4);
    put_le32(table + 32, 1);
}

static void put_checksum(struct acpi_writer *w, uint8_t *field, const uint8_t *start,
                         size_t size_bytes)
{
    *field = 0;
    *field = sum_complement(start, size_bytes);
    add_fixup(w, ACPI_FIXUP_CHECKSUM, field, (size_t)(start - w->data), size_bytes);
}

/* Length and checksum of a table that is complete. */
static void seal(struct acpi_writer *w, uint8_t *table, size_t size_bytes)
{
    put_le32(table + HEADER_LENGTH, (uint32_t)size_bytes);
    put_checksum(w, table + HEADER_CHECKSUM, table, size_bytes);
}

static uint8_t *begin_table(struct acpi_writer *w, const char *signature, uint8_t revision,
                            size_t size_bytes)
{
    uint8_t *table = take(w, size_bytes);

    if (table)
        write_header(table, signature, revision);
    return table;
}

enum gas_access { GAS_ANY, GAS_BYTE, GAS_WORD, GAS_DWORD };

/* A generic address structure (5.2.3.2). */
static void put_gas(uint8_t *p, uint8_t space, uint8_t bits, enum gas_access access,
                    uint64_t address)
{
    p[0] = space;
    p[1] = bits;
    p[2] = 0;
    p[3] = (uint8_t)access;
    put_le64(p + 4, address);
}

/* ---- DSDT ---- */

static void aml_cpus(struct aml *aml, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[5];
        size_t device;

        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        device = aml_begin_device(aml, name);
        aml_name_string(aml, "_HID", "ACPI0007");
        aml_name_integer(aml, "_UID", i);
        aml_end(aml, device);
    }
}

static void aml_pci_windows(struct aml *aml, const struct pc_layout *layout)
{
    uint64_t ecam = layout->ecam_gpa;
    struct aml_resources crs = aml_begin_resources(aml);

    aml_bus_window(aml, 0, 255);
    aml_io(aml, 0xcf8, 8);
    aml_io_window(aml, 0, 0xcf7);
    aml_io_window(aml, 0xd00, 0xffff);
    aml_memory_window(aml, PC_EBDA_END, PC_VGA_END - 1, true);
    /* Two descriptors in any case, so that the tables have one size: around the ECAM, or halves. */
    if (ecam > PC_PCI_WINDOW && ecam < PC_PCI_WINDOW_END - PC_ECAM_SIZE) {
        aml_memory_window(aml, PC_PCI_WINDOW, ecam - 1, false);
        aml_memory_window(aml, ecam + PC_ECAM_SIZE, PC_PCI_WINDOW_END - 1, false);
    } else {
        aml_memory_window(aml, PC_PCI_WINDOW, PC_ECAM - 1, false);
        aml_memory_window(aml, PC_ECAM, PC_PCI_WINDOW_END - 1, false);
    }
    aml_memory_window64(aml, pc_high_window(layout), pc_high_window_end(layout) - 1);
    aml_end_resources(aml, crs);
}

/* _PRT (6.2.13): slot and pin to a global system interrupt, without links. */
static void aml_pci_routes(struct aml *aml)
{
    size_t routes;

    aml_name(aml, "_PRT");
    routes = aml_begin_package(aml, PCI_SLOTS * 4);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < 4; pin++) {
            size_t route = aml_begin_package(aml, 4);

            aml_integer(aml, slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_integer(aml, 0);
            aml_integer(aml, PC_GSI_PCI + pci_pirq(slot, pin + 1));
            aml_end(aml, route);
        }
    aml_end(aml, routes);
}

static void aml_or_into(struct aml *aml, const char *name, uint64_t bits)
{
    aml_term(aml, AML_OR);
    aml_name_term(aml, name);
    aml_integer(aml, bits);
    aml_name_term(aml, name);
}

/*
 * Who controls PCI Express features. Nothing here but the guest does: there is no firmware that
 * handles hot plug, errors or power events, so the guest gets what it asks for, within what exists.
 * Arguments: UUID, revision, number of doublewords, buffer. No state, so a query is as a request.
 */
static void aml_pci_control(struct aml *aml)
{
    size_t method = aml_begin_method(aml, "_OSC", 4), known, block;

    aml_dword_field(aml, AML_ARG3, 0, "CDW1");
    known = aml_begin_if(aml);
    aml_term(aml, AML_EQUAL);
    aml_term(aml, AML_ARG0);
    aml_uuid(aml, "33db4d5b-1ff7-401c-9657-7441c03dd766");
    aml_dword_field(aml, AML_ARG3, 8, "CDW3");
    aml_term(aml, AML_AND); /* Local0 = CDW3 & OSC_GRANTED */
    aml_name_term(aml, "CDW3");
    aml_integer(aml, OSC_GRANTED);
    aml_term(aml, AML_LOCAL0);
    block = aml_begin_if(aml); /* Arg1 != 1 */
    aml_term(aml, AML_NOT);
    aml_term(aml, AML_EQUAL);
    aml_term(aml, AML_ARG1);
    aml_integer(aml, 1);
    aml_or_into(aml, "CDW1", OSC_UNKNOWN_REVISION);
    aml_end(aml, block);
    block = aml_begin_if(aml); /* CDW3 != Local0 */
    aml_term(aml, AML_NOT);
    aml_term(aml, AML_EQUAL);
    aml_name_term(aml, "CDW3");
    aml_term(aml, AML_LOCAL0);
    aml_or_into(aml, "CDW1", OSC_MASKED);
    aml_end(aml, block);
    aml_term(aml, AML_STORE);
    aml_term(aml, AML_LOCAL0);
    aml_name_term(aml, "CDW3");
    aml_end(aml, known);
    block = aml_begin_else(aml);
    aml_or_into(aml, "CDW1", OSC_UNKNOWN_UUID);
    aml_end(aml, block);
    aml_term(aml, AML_RETURN);
    aml_term(aml, AML_ARG3);
    aml_end(aml, method);
}

static void aml_pci_host(struct aml *aml, const struct pc_layout *layout)
{
    size_t device = aml_begin_device(aml, "PCI0");

    aml_name_eisa_id(aml, "_HID", "PNP0A08");
    aml_name_eisa_id(aml, "_CID", "PNP0A03");
    aml_name_integer(aml, "_UID", 0);
    aml_name_integer(aml, "_BBN", 0);
    aml_name_integer(aml, "_SEG", 0);
    aml_pci_windows(aml, layout);
    aml_pci_routes(aml);
    aml_pci_control(aml);
    aml_end(aml, device);
}

/* Devices with fixed resources. */
struct fixed_device {
    const char *name, *hid;
    int uid; /* -1: none */
    uint16_t port;
    uint8_t port_count;
    uint16_t port2; /* 0: none */
    uint8_t port2_count;
    uint16_t port3;
    uint8_t port3_count;
    int irq;     /* -1: none */
    uint8_t dma; /* channels, a bit each */
    uint32_t gpa, size_bytes;
};

static const struct fixed_device fixed_devices[] = {
    {.name = "PIC_",
     .hid = "PNP0000",
     .uid = -1,
     .port = 0x20,
     .port_count = 2,
     .port2 = 0xa0,
     .port2_count = 2,
     .irq = 2},
    {.name = "DMAC",
     .hid = "PNP0200",
     .uid = -1,
     .port = 0x00,
     .port_count = 0x10,
     .port2 = 0x80,
     .port2_count = 0x10,
     .port3 = 0xc0,
     .port3_count = 0x20,
     .irq = -1,
     .dma = 1 << 4},
    {.name = "TIMR", .hid = "PNP0100", .uid = -1, .port = 0x40, .port_count = 4, .irq = PC_IRQ_PIT},
    {.name = "SPKR", .hid = "PNP0800", .uid = -1, .port = 0x61, .port_count = 1, .irq = -1},
    {.name = "RTC_", .hid = "PNP0B00", .uid = -1, .port = 0x70, .port_count = 4, .irq = PC_IRQ_RTC},
    {.name = "KBD_",
     .hid = "PNP0303",
     .uid = -1,
     .port = 0x60,
     .port_count = 1,
     .port2 = 0x64,
     .port2_count = 1,
     .irq = PC_IRQ_KEYBOARD},
    {.name = "MOU_", .hid = "PNP0F13", .uid = -1, .irq = PC_IRQ_MOUSE},
    {.name = "COM1",
     .hid = "PNP0501",
     .uid = 1,
     .port = 0x3f8,
     .port_count = 8,
     .irq = PC_IRQ_COM1},
    {.name = "COM2",
     .hid = "PNP0501",
     .uid = 2,
     .port = 0x2f8,
     .port_count = 8,
     .irq = PC_IRQ_COM2},
    {.name = "HPET", .hid = "PNP0103", .uid = 0, .irq = -1, .gpa = PC_HPET, .size_bytes = 0x400},
    {.name = "FWCF", .hid = "QEMU0002", .uid = -1, .port = 0x510, .port_count = 12, .irq = -1},
    /* What no driver shall claim: power management, configuration space, odd ports. */
    {.name = "MBRD",
     .hid = "PNP0C02",
     .uid = 0,
     .port = ACPI_PM_BASE,
     .port_count = ACPI_PM_SIZE,
     .irq = -1},
    {.name = "MBIO",
     .hid = "PNP0C02",
     .uid = 1,
     .port = 0x92,
     .port_count = 1,
     .port2 = 0x4d0,
     .port2_count = 2,
     .irq = -1},
};

static void aml_fixed_device(struct aml *aml, const struct fixed_device *fixed)
{
    size_t device = aml_begin_device(aml, fixed->name);
    struct aml_resources crs;

    if (strlen(fixed->hid) == EISA_ID_LENGTH)
        aml_name_eisa_id(aml, "_HID", fixed->hid);
    else
        aml_name_string(aml, "_HID", fixed->hid);
    if (fixed->uid >= 0)
        aml_name_integer(aml, "_UID", (uint64_t)fixed->uid);
    crs = aml_begin_resources(aml);
    if (fixed->port_count)
        aml_io(aml, fixed->port, fixed->port_count);
    if (fixed->port2_count)
        aml_io(aml, fixed->port2, fixed->port2_count);
    if (fixed->port3_count)
        aml_io(aml, fixed->port3, fixed->port3_count);
    if (fixed->irq >= 0)
        aml_irq(aml, (unsigned)fixed->irq);
    if (fixed->dma)
        aml_dma(aml, fixed->dma);
    if (fixed->size_bytes)
        aml_memory32(aml, fixed->gpa, fixed->size_bytes, true);
    aml_end_resources(aml, crs);
    aml_end(aml, device);
}

static const struct fixed_device floppy_controller = {.name = "FDC0",
                                                      .hid = "PNP0700",
                                                      .uid = -1,
                                                      .port = 0x3f2,
                                                      .port_count = 4,
                                                      .port2 = 0x3f7,
                                                      .port2_count = 1,
                                                      .irq = PC_IRQ_FLOPPY,
                                                      .dma = 1 << 2};

/* Places where no device is are said to be absent, so that the tables have one size. */
static void aml_virtio_places(struct aml *aml, unsigned taken)
{
    for (unsigned i = 0; i < PC_VIRTIO_PLACES; i++) {
        char name[5];
        struct aml_resources crs;
        size_t device;

        snprintf(name, sizeof(name), "VR%02u", i % 100);
        device = aml_begin_device(aml, name);
        aml_name_string(aml, "_HID", "LNRO0005");
        aml_name_integer(aml, "_UID", i);
        aml_name_byte(aml, "_STA", taken >> i & 1 ? DEVICE_PRESENT : 0);
        crs = aml_begin_resources(aml);
        aml_memory32(aml, PC_VIRTIO + i * PC_VIRTIO_SIZE, PC_VIRTIO_SIZE, true);
        aml_interrupt(aml, pc_virtio_irqs[i % PC_VIRTIO_LINES]);
        aml_end_resources(aml, crs);
        aml_end(aml, device);
    }
}

static void aml_ecam(struct aml *aml, uint64_t ecam)
{
    const struct fixed_device fixed = {.name = "ECAM",
                                       .hid = "PNP0C02",
                                       .uid = 2,
                                       .irq = -1,
                                       .gpa = (uint32_t)ecam,
                                       .size_bytes = PC_ECAM_SIZE};

    aml_fixed_device(aml, &fixed);
}

/* _S3, _S5 (7.4.2): what goes into SLP_TYP to sleep or switch off. */
static void aml_sleep_state(struct aml *aml, const char *name, unsigned sleep_type)
{
    size_t package;

    aml_name(aml, name);
    package = aml_begin_package(aml, 4);
    aml_integer(aml, sleep_type);
    aml_integer(aml, sleep_type);
    aml_integer(aml, 0);
    aml_integer(aml, 0);
    aml_end(aml, package);
}

static uint8_t *write_dsdt(struct acpi_writer *w, const struct pc_layout *layout)
{
    uint8_t *table = begin_table(w, "DSDT", 2, HEADER_BYTES);
    struct aml aml;
    size_t scope;

    if (!table)
        return NULL;
    aml = (struct aml){
        .data = table,
        .size_bytes = HEADER_BYTES,
        .capacity_bytes = (size_t)(w->data + w->capacity - table),
    };
    aml_sleep_state(&aml, "_S3_", ACPI_SLEEP_TYPE_S3);
    aml_sleep_state(&aml, "_S5_", ACPI_SLEEP_TYPE_S5);
    scope = aml_begin_scope(&aml, "\\_SB_");
    aml_cpus(&aml, layout->vcpu_count);
    aml_pci_host(&aml, layout);
    for (size_t i = 0; i < sizeof(fixed_devices) / sizeof(fixed_devices[0]); i++)
        aml_fixed_device(&aml, &fixed_devices[i]);
    if (layout->has_floppy)
        aml_fixed_device(&aml, &floppy_controller);
    aml_ecam(&aml, layout->ecam_gpa);
    aml_virtio_places(&aml, layout->virtio_taken);
    aml_end(&aml, scope);
    if (aml.overflow) {
        w->overflow = true;
        return NULL;
    }
    w->used = (size_t)(table - w->data) + aml.size_bytes;
    seal(w, table, aml.size_bytes);
    return table;
}

/* ---- the fixed tables ---- */

static uint8_t *write_facs(struct acpi_writer *w)
{
    uint8_t *facs = take(w, FACS_BYTES);

    if (!facs)
        return NULL;
    memcpy(facs, "FACS", 4);
    put_le32(facs + 4, FACS_BYTES);
    facs[32] = 2; /* version */
    return facs;
}

static void put_pm_block(uint8_t *fadt, size_t offset, size_t extended_offset, uint16_t port,
                         size_t length_offset, uint8_t bytes, enum gas_access access)
{
    put_le32(fadt + offset, port);
    fadt[length_offset] = bytes;
    put_gas(fadt + extended_offset, SPACE_IO, (uint8_t)(bytes * 8), access, port);
}

static uint8_t *write_fadt(struct acpi_writer *w, const struct pc_layout *layout,
                           const uint8_t *facs, const uint8_t *dsdt)
{
    uint8_t *fadt = begin_table(w, "FACP", 6, FADT_BYTES);

    if (!fadt || !facs || !dsdt)
        return NULL;
    put_pointer(w, fadt + 36, 4, facs);
    put_pointer(w, fadt + 40, 4, dsdt);
    fadt[45] = 1; /* preferred profile: desktop */
    put_le16(fadt + 46, ACPI_SCI_IRQ);
    put_le32(fadt + 48, ACPI_SMI_COMMAND_PORT);
    fadt[52] = ACPI_ENABLE_VALUE;
    fadt[53] = ACPI_DISABLE_VALUE;
    put_pm_block(fadt, 56, 148, ACPI_PM1_EVENT_PORT, 88, ACPI_PM1_EVENT_SIZE, GAS_WORD);
    put_pm_block(fadt, 64, 172, ACPI_PM1_CONTROL_PORT, 89, ACPI_PM1_CONTROL_SIZE, GAS_WORD);
    put_pm_block(fadt, 76, 208, ACPI_PM_TIMER_PORT, 91, ACPI_PM_TIMER_SIZE, GAS_DWORD);
    put_pm_block(fadt, 80, 220, ACPI_GPE0_PORT, 92, ACPI_GPE0_SIZE, GAS_BYTE);
    put_le16(fadt + 96, C2_UNSUPPORTED_US);
    put_le16(fadt + 98, C3_UNSUPPORTED_US);
    fadt[108] = CMOS_CENTURY;
    put_le16(fadt + 109, BOOT_ARCH | (layout->has_vga ? 0 : BOOT_ARCH_NO_VGA));
    put_le32(fadt + 112, FADT_FLAGS);
    put_gas(fadt + 116, SPACE_IO, 8, GAS_BYTE, ACPI_RESET_PORT);
    fadt[128] = ACPI_RESET_VALUE;
    fadt[131] = 4; /* 6.4 */
    put_pointer(w, fadt + 140, 8, dsdt);
    memcpy(fadt + 268, "TRAPEZE", 8); /* hypervisor vendor identity */
    seal(w, fadt, FADT_BYTES);
    return fadt;
}

static void put_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    p[0] = MADT_OVERRIDE;
    p[1] = 10;
    p[2] = 0; /* ISA */
    p[3] = irq;
    put_le32(p + 4, gsi);
    put_le16(p + 8, flags);
}

static uint8_t *write_madt(struct acpi_writer *w, const struct pc_layout *layout)
{
    size_t size = HEADER_BYTES + 8 + layout->vcpu_count * 8 + 12 + 2 * 10 + 6;
    uint8_t *madt = begin_table(w, "APIC", 5, size);
    uint8_t *p;

    if (!madt)
        return NULL;
    put_le32(madt + 36, PC_LAPIC);
    put_le32(madt + 40, MADT_PCAT_COMPATIBLE);
    p = madt + 44;
    for (unsigned i = 0; i < layout->vcpu_count; i++, p += 8) {
        p[0] = MADT_LAPIC;
        p[1] = 8;
        p[2] = (uint8_t)i; /* _UID of the processor object */
        p[3] = (uint8_t)i; /* APIC id */
        put_le32(p + 4, 1);
    }
    p[0] = MADT_IOAPIC;
    p[1] = 12;
    p[2] = PC_IOAPIC_ID;
    put_le32(p + 4, PC_IOAPIC);
    p += 12;
    put_override(p, PC_IRQ_PIT, PC_GSI_PIT, 0);
    put_override(p + 10, ACPI_SCI_IRQ, ACPI_SCI_IRQ, INTERRUPT_ACTIVE_HIGH | INTERRUPT_LEVEL);
    p += 20;
    p[0] = MADT_LAPIC_NMI;
    p[1] = 6;
    p[2] = 0xff; /* all processors */
    p[5] = 1;    /* LINT1 */
    seal(w, madt, size);
    return madt;
}

static uint8_t *write_hpet(struct acpi_writer *w)
{
    uint8_t *hpet = begin_table(w, "HPET", 1, 56);

    if (!hpet)
        return NULL;
    put_le32(hpet + 36, HPET_HARDWARE_ID);
    put_gas(hpet + 40, SPACE_MEMORY, 64, GAS_ANY, PC_HPET);
    put_le16(hpet + 53, HPET_MIN_TICK);
    seal(w, hpet, 56);
    return hpet;
}

static uint8_t *write_mcfg(struct acpi_writer *w, const struct pc_layout *layout)
{
    uint8_t *mcfg = begin_table(w, "MCFG", 1, 60);

    if (!mcfg)
        return NULL;
    put_le64(mcfg + 44, layout->ecam_gpa);
    mcfg[55] = 255; /* buses 0-255 of segment 0 */
    seal(w, mcfg, 60);
    return mcfg;
}

static uint8_t *write_waet(struct acpi_writer *w)
{
    uint8_t *waet = begin_table(w, "WAET", 1, 40);

    if (!waet)
        return NULL;
    put_le32(waet + 36, WAET_PM_TIMER_GOOD);
    seal(w, waet, 40);
    return waet;
}

/* RSDT with addresses of 4 bytes, XSDT with 8. */
static uint8_t *write_root(struct acpi_writer *w, const char *signature, size_t entry_bytes,
                           uint8_t *const *tables)
{
    size_t size = HEADER_BYTES + TABLE_COUNT * entry_bytes;
    uint8_t *root = begin_table(w, signature, 1, size);

    if (!root)
        return NULL;
    for (size_t i = 0; i < TABLE_COUNT; i++)
        put_pointer(w, root + HEADER_BYTES + i * entry_bytes, entry_bytes, tables[i]);
    seal(w, root, size);
    return root;
}

static void write_rsdp(struct acpi_writer *w, uint8_t *rsdp, const uint8_t *rsdt,
                       const uint8_t *xsdt)
{
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "TRAPEZ", 6);
    rsdp[15] = 2; /* revision */
    put_pointer(w, rsdp + 16, 4, rsdt);
    put_le32(rsdp + 20, RSDP_BYTES);
    put_pointer(w, rsdp + 24, 8, xsdt);
    put_checksum(w, rsdp + 8, rsdp, RSDP_V1_BYTES);
    put_checksum(w, rsdp + 32, rsdp, RSDP_BYTES);
}

int acpi_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
               size_t capacity_bytes, size_t *out_size_bytes, struct acpi_fixups *fixups,
               struct error *err)
{
    struct acpi_writer w = {
        .data = buffer, .capacity = capacity_bytes, .base_gpa = base_gpa, .fixups = fixups};
    uint8_t *rsdp = take(&w, RSDP_BYTES);
    uint8_t *facs = write_facs(&w);
    uint8_t *dsdt = write_dsdt(&w, layout);
    uint8_t *tables[TABLE_COUNT];
    uint8_t *rsdt = NULL, *xsdt = NULL;

    tables[0] = write_fadt(&w, layout, facs, dsdt);
    tables[1] = write_madt(&w, layout);
    tables[2] = write_hpet(&w);
    tables[3] = write_mcfg(&w, layout);
    tables[4] = write_waet(&w);
    if (!w.overflow) {
        rsdt = write_root(&w, "RSDT", 4, tables);
        xsdt = write_root(&w, "XSDT", 8, tables);
    }
    if (w.overflow)
        return error_set(err, ENOSPC, "the ACPI tables do not fit into %zu bytes", capacity_bytes);
    write_rsdp(&w, rsdp, rsdt, xsdt);
    *out_size_bytes = w.used;
    return 0;
}

/* The FACS is behind the RSDP. */
enum acpi_wake acpi_waking_vector(struct memory *memory, uint64_t base_gpa, uint32_t *out_gpa)
{
    uint8_t facs[FACS_BYTES];
    uint64_t flat;

    if (memory_read(memory, base_gpa + align_up(RSDP_BYTES, TABLE_ALIGNMENT), facs, sizeof(facs)) ||
        memcmp(facs, "FACS", 4) != 0)
        return ACPI_WAKE_NOWHERE;
    *out_gpa = get_le32(facs + FACS_VECTOR);
    flat = get_le64(facs + FACS_X_VECTOR);
    if (flat && flat <= UINT32_MAX) {
        *out_gpa = (uint32_t)flat;
        return ACPI_WAKE_PROTECTED;
    }
    return *out_gpa && *out_gpa < PC_BIOS_END ? ACPI_WAKE_REAL : ACPI_WAKE_NOWHERE;
}
