/*
 * shadow.c - RAM in the place of the BIOS's ROM
 *
 * The PAM registers of the host bridge (Intel 82Q35 MCH, 5.1.24): two bits for each of 12
 * segments of 16 KiB from 768 KiB on, and for the last 64 KiB. Bit 0 lets reads go to RAM, bit 1
 * writes. What does not go to RAM goes to the bus, where the ROM answers in the last 128 KiB. A
 * segment that is read from the ROM and written to RAM is the ROM: its writes are lost.
 */
#include "machine/shadow.h"

#include "base/log.h"
#include "machine/pc_layout.h"

#define SEGMENT_BYTES 0x4000ull
#define LAST          0xf0000ull
#define PRIORITY      2 /* in front of the ROM's alias */

static uint64_t floating_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return UINT64_MAX;
}

static void lost_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)dev, (void)offset, (void)value, (void)size;
}

const struct region_ops floating_ops = {
    .name = "nothing", .read = floating_read, .write = lost_write, .min_size = 1, .max_size = 8};

static uint64_t segment_gpa(unsigned n)
{
    return n == SHADOW_SEGMENTS - 1 ? LAST : PC_VGA_END + n * SEGMENT_BYTES;
}

/* The two bits: of the last segment in register 0, of the others by twos in the rest. */
static unsigned segment_bits(const uint8_t pam[SHADOW_REGISTERS], unsigned n)
{
    return n == SHADOW_SEGMENTS - 1 ? pam[0] >> 4 & 3 : pam[1 + n / 2] >> n % 2 * 4 & 3;
}

/* What covers the segment; its kind is REGION_ALIAS if nothing does: the ROM or its place is seen.
 */
static struct region cover(const struct region *ram, struct device *dev, unsigned n, unsigned bits)
{
    uint64_t gpa = segment_gpa(n);
    struct region region = {
        .name = "shadow",
        .gpa = gpa,
        .size_bytes = n == SHADOW_SEGMENTS - 1 ? PC_BIOS_END - LAST : SEGMENT_BYTES,
        .priority = PRIORITY,
        .hva = ram->hva + (gpa - ram->gpa),
        .ram_offset = ram->ram_offset + (gpa - ram->gpa),
    };

    if (bits & 1) {
        region.kind = bits & 2 ? REGION_RAM : REGION_ROM;
        return region;
    }
    region.hva = NULL;
    region.kind = gpa < PC_FIRMWARE_LOW ? REGION_DEVICE : REGION_ALIAS;
    region.ops = &floating_ops;
    region.dev = dev;
    return region;
}

void shadow_update(struct shadow *shadow, struct device *dev, const struct region *ram,
                   const uint8_t pam[SHADOW_REGISTERS])
{
    struct memory *memory = device_memory(dev);
    struct error err = {0};

    memory_begin(memory);
    for (unsigned n = 0; n < SHADOW_SEGMENTS; n++) {
        struct region *segment = &shadow->segments[n];
        struct region region = cover(ram, dev, n, segment_bits(pam, n));

        if (segment->mapped && segment->kind == region.kind)
            continue;
        memory_unmap(memory, segment);
        *segment = region;
        if (region.kind != REGION_ALIAS && memory_map(memory, segment, &err))
            log_error("shadow RAM: %s", err.text);
    }
    if (memory_commit(memory, &err))
        log_error("shadow RAM: %s", err.text);
}

void shadow_unmap(struct shadow *shadow, struct memory *memory)
{
    for (unsigned n = 0; n < SHADOW_SEGMENTS; n++)
        memory_unmap(memory, &shadow->segments[n]);
}
