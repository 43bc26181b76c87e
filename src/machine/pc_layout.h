/*
 * pc_layout.h - where things are in the PC's address spaces
 *
 * One place for the addresses that the board, the ACPI tables and the loaders
 * must agree on, and the E820 memory map that follows from the RAM size.
 */
#ifndef MACHINE_PC_LAYOUT_H
#define MACHINE_PC_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- memory ---- */
#define PC_CONVENTIONAL_END  0x9fc00ull /* the extended BIOS data area follows, up to 640 KiB */
#define PC_EBDA_END          0xa0000ull
#define PC_VGA_END           0xc0000ull /* 0xa0000-0xbffff: nothing there without a VGA */
#define PC_ACPI_GPA          0xe0000ull
#define PC_SMBIOS_GPA        0xf0000ull
#define PC_MP_GPA            0xf1000ull
#define PC_TABLES_GPA        0xe0000ull /* ACPI, SMBIOS and MP tables of a direct boot */
#define PC_FIRMWARE_LOW      0xe0000ull /* the firmware's last 128 KiB are seen here too */
#define PC_FIRMWARE_LOW_SIZE 0x20000ull
#define PC_BIOS_END          0x100000ull
#define PC_LOW_RAM_MAX       0xc0000000ull /* the rest of the RAM goes above 4 GiB */
#define PC_LOW_RAM_FIRMWARE                                                                        \
    0x80000000ull /* the same with firmware: SeaBIOS's ECAM is at 0xb0000000 */
#define PC_HIGH_RAM       0x100000000ull
#define PC_PCI_WINDOW     0xc0000000ull /* for BARs, but where the ECAM is */
#define PC_PCI_WINDOW_END 0xfec00000ull
#define PC_ECAM           0xe0000000ull /* 1 MiB for each of 256 buses */
#define PC_ECAM_SIZE      0x10000000ull
#define PC_IOAPIC         0xfec00000ull
#define PC_VIRTIO         0xfec10000u /* places of virtio devices without PCI */
#define PC_VIRTIO_SIZE    0x1000u     /* of each */
#define PC_VIRTIO_PLACES  10u
#define PC_HPET           0xfed00000ull
#define PC_LAPIC          0xfee00000ull
#define PC_FIRMWARE_MAX   0x1000000ull /* the ROM ends at 4 GiB */

/* ---- interrupts ---- */
#define PC_IRQ_PIT        0
#define PC_IRQ_KEYBOARD   1
#define PC_IRQ_COM2       3
#define PC_IRQ_COM1       4
#define PC_IRQ_FLOPPY     6
#define PC_IRQ_RTC        8
#define PC_IRQ_MOUSE      12
#define PC_VIRTIO_LINES   5
#define PC_IRQ_IDE        14 /* and 15: the second channel */
#define PC_GSI_PIT        2  /* IRQ 0 comes in here on the I/O APIC */
#define PC_GSI_PCI        16 /* the eight lines of the PCI bus: 16-23 */
#define PC_IOAPIC_ID      0

/* ISA interrupts of virtio devices without PCI: place n has the one of n % PC_VIRTIO_LINES. */
extern const uint8_t pc_virtio_irqs[PC_VIRTIO_LINES];

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
    uint64_t gpa;
    uint64_t size_bytes;
    enum e820_type type;
};

#define PC_E820_MAX          12
#define PC_SERIAL_NUMBER_MAX 63

/* Which machine it is, for whom asks SMBIOS. */
struct pc_identity {
    bool has_uuid;
    uint8_t uuid[16];                             /* as it is written */
    char serial_number[PC_SERIAL_NUMBER_MAX + 1]; /* "": none */
};

struct pc_layout {
    uint64_t low_ram_bytes;  /* from address 0, up to PC_LOW_RAM_MAX */
    uint64_t high_ram_bytes; /* from 4 GiB */
    unsigned vcpu_count;
    uint64_t ecam_gpa;
    unsigned physical_bits; /* of addresses, as the processors have them */
    unsigned virtio_taken;  /* places of virtio devices without PCI that have one: a bit mask */
    bool has_vga, has_floppy;
    struct pc_identity identity;
    struct e820_entry e820[PC_E820_MAX]; /* sorted, without overlaps */
    size_t e820_count;
};

#define PC_PHYSICAL_BITS 40 /* until the board says what its processors have */

/* ram_bytes is a multiple of 1 MiB and not 0. */
void pc_layout_init(struct pc_layout *layout, uint64_t ram_bytes, unsigned vcpu_count);
/* What firmware is told: the RAM. It sees itself what it reserves, and where the ECAM is to be. */
void pc_layout_init_for_firmware(struct pc_layout *layout, uint64_t ram_bytes, unsigned vcpu_count);

/*
 * The PCI window above 4 GiB: from the end of the RAM to that of the address space, at least 1 GiB.
 * Firmware and systems put large BARs there.
 */
uint64_t pc_high_window(const struct pc_layout *layout);
uint64_t pc_high_window_end(const struct pc_layout *layout);

#endif
