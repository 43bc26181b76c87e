/*
 * pc_layout.c - the E820 memory map of the PC board
 *
 * After ACPI 6.4, chapter 15 (system address map). What the guest may use is RAM;
 * what exists but is not for it is reserved; holes are not listed.
 */
#include "machine/pc_layout.h"

#include "base/bytes.h"

#define PC_WINDOW_ALIGNMENT (1ull << 30)

const uint8_t pc_virtio_irqs[PC_VIRTIO_LINES] = {5, 6, 7, 10, 11};

static void add(struct pc_layout *layout, uint64_t gpa, uint64_t end, enum e820_type type)
{
    if (end > gpa)
        layout->e820[layout->e820_count++] = (struct e820_entry){
            .gpa = gpa,
            .size_bytes = end - gpa,
            .type = type,
        };
}

static void divide_ram(struct pc_layout *layout, uint64_t ram_bytes, uint64_t low_max,
                       unsigned vcpu_count)
{
    uint64_t low = ram_bytes < low_max ? ram_bytes : low_max;

    *layout = (struct pc_layout){
        .low_ram_bytes = low,
        .high_ram_bytes = ram_bytes - low,
        .vcpu_count = vcpu_count,
        .ecam_gpa = PC_ECAM,
        .physical_bits = PC_PHYSICAL_BITS,
    };
}

void pc_layout_init(struct pc_layout *layout, uint64_t ram_bytes, unsigned vcpu_count)
{
    divide_ram(layout, ram_bytes, PC_LOW_RAM_MAX, vcpu_count);
    add(layout, 0, PC_CONVENTIONAL_END, E820_RAM);
    add(layout, PC_CONVENTIONAL_END, PC_EBDA_END, E820_RESERVED);
    add(layout, PC_TABLES_GPA, PC_BIOS_END, E820_RESERVED);
    add(layout, PC_BIOS_END, layout->low_ram_bytes, E820_RAM);
    add(layout, PC_ECAM, PC_ECAM + PC_ECAM_SIZE, E820_RESERVED);
    add(layout, PC_HIGH_RAM, PC_HIGH_RAM + layout->high_ram_bytes, E820_RAM);
}

void pc_layout_init_for_firmware(struct pc_layout *layout, uint64_t ram_bytes, unsigned vcpu_count)
{
    divide_ram(layout, ram_bytes, PC_LOW_RAM_FIRMWARE, vcpu_count);
    add(layout, 0, layout->low_ram_bytes, E820_RAM);
    add(layout, PC_HIGH_RAM, PC_HIGH_RAM + layout->high_ram_bytes, E820_RAM);
}

uint64_t pc_high_window(const struct pc_layout *layout)
{
    return align_up(PC_HIGH_RAM + layout->high_ram_bytes, PC_WINDOW_ALIGNMENT);
}

uint64_t pc_high_window_end(const struct pc_layout *layout)
{
    uint64_t first_end = pc_high_window(layout) + PC_WINDOW_ALIGNMENT;
    uint64_t end = 1ull << layout->physical_bits;

    return end > first_end ? end : first_end;
}
