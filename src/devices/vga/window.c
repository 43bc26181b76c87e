/*
 * window.c - how processors reach the VGA's memory at A0000h to BFFFFh
 *
 * FreeVGA project, "Accessing the Display Memory"; IBM VGA Technical Reference, "Graphics
 * Controller".
 *
 * Theory of operation. The four planes are interleaved: offset n of plane p is byte 4 n + p
 * of VRAM. So what a byte is done with in the graphics controller is done for all planes at
 * once, and chain-4 memory (plane = address modulo 4) is linear. That is why it can be shown as RAM
 * in the window when nothing else is to be done with it. (A real VGA leaves three of four offsets
 * unused then. Only what is written in one layout and shown in another could tell.)
 */
#include "base/log.h"
#include "devices/vga/vga_internal.h"
#include "trapeze/machine.h"

/* ---- the graphics controller ---- */

/* Bit n of the low four: all of byte n. */
static uint32_t spread(unsigned planes)
{
    return ((planes & 1) | (planes & 2) << 7 | (planes & 4) << 14 | (planes & 8) << 21) * 0xffu;
}

static uint32_t repeat(uint8_t byte)
{
    return byte * 0x01010101u;
}

static uint8_t rotate(const struct vga *s, uint8_t byte)
{
    unsigned count = s->gfx[GFX_ROTATE] & 7;

    return (uint8_t)(byte >> count | byte << (8 - count));
}

static uint32_t logic(const struct vga *s, uint32_t value)
{
    switch (s->gfx[GFX_ROTATE] >> 3 & 3) {
    case 1:
        return value & s->latch;
    case 2:
        return value | s->latch;
    case 3:
        return value ^ s->latch;
    default:
        return value;
    }
}

/* What the planes get, by write mode. */
static uint32_t written(const struct vga *s, uint8_t byte)
{
    uint32_t bits = repeat(s->gfx[GFX_BIT_MASK]), value, set;

    switch (s->gfx[GFX_MODE] & 3) {
    case 0:
        set = spread(s->gfx[GFX_ENABLE_SET_RESET]);
        value = (repeat(rotate(s, byte)) & ~set) | (spread(s->gfx[GFX_SET_RESET]) & set);
        break;
    case 1:
        return s->latch;
    case 2:
        value = spread(byte);
        break;
    default:
        bits &= repeat(rotate(s, byte));
        value = spread(s->gfx[GFX_SET_RESET]);
        break;
    }
    return (logic(s, value) & bits) | (s->latch & ~bits);
}

static void write_planes(struct vga *s, uint32_t offset, unsigned planes, uint8_t byte)
{
    uint8_t *cell = vga_cell(s, offset);
    uint32_t old = ram_load32(cell), mask = spread(planes & s->seq[SEQ_MAP_MASK]);
    uint32_t new = (old & ~mask) | (written(s, byte) & mask);

    if (new == old)
        return;
    ram_store32(cell, new);
    memory_unpin(device_memory(&s->pci.dev), cell, 4);
}

static uint8_t read_planes(struct vga *s, uint32_t offset, unsigned plane)
{
    uint32_t differs;

    s->latch = ram_load32(vga_cell(s, offset));
    if (!(s->gfx[GFX_MODE] & 8))
        return (uint8_t)(s->latch >> 8 * plane);
    differs = (s->latch ^ spread(s->gfx[GFX_COLOUR_COMPARE])) & spread(s->gfx[GFX_COLOUR_CARE]);
    differs |= differs >> 16;
    return (uint8_t) ~(differs | differs >> 8);
}

/* ---- addresses ---- */

struct place {
    uint32_t base, size; /* of the window that is decoded, from A0000h */
};

static struct place decoded(const struct vga *s)
{
    static const struct place places[4] = {
        {0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};

    return s->misc & MISC_MEMORY ? places[s->gfx[GFX_MISC] >> 2 & 3] : (struct place){0, 0};
}

static uint32_t bank(const struct vga *s)
{
    return dispi_is_on(s) ? (uint32_t)s->dispi[DISPI_BANK] << 16 : 0;
}

/* Odd and even addresses are two pairs of planes; which one replaces address line 0. */
static uint32_t odd_even_offset(const struct vga *s, uint32_t address)
{
    if (!(s->gfx[GFX_MISC] & GFX_CHAIN_ODD_EVEN))
        return address;
    return (address & ~1u) | (decoded(s).size > 0x10000 ? address >> 16 & 1 : 0);
}

/* Without the Bochs interface a plane ends at 64 KiB. */
static uint32_t planar(const struct vga *s, uint32_t offset)
{
    return dispi_is_on(s) ? offset : offset & VGA_PLANE_MASK;
}

static void write_byte(struct vga *s, uint32_t address, uint8_t byte)
{
    struct place place = decoded(s);

    if (address - place.base >= place.size)
        return;
    address = address - place.base + bank(s);
    if (s->seq[SEQ_MEMORY] & MEMORY_CHAIN4)
        write_planes(s, address >> 2, 1u << (address & 3), byte);
    else if (s->seq[SEQ_MEMORY] & MEMORY_SEQUENTIAL)
        write_planes(s, planar(s, address), 0xf, byte);
    else
        write_planes(s, planar(s, odd_even_offset(s, address)), address & 1 ? 0xa : 0x5, byte);
}

static uint8_t read_byte(struct vga *s, uint32_t address)
{
    struct place place = decoded(s);
    unsigned plane = s->gfx[GFX_READ_MAP] & 3;

    if (address - place.base >= place.size)
        return 0xff;
    address = address - place.base + bank(s);
    if (s->seq[SEQ_MEMORY] & MEMORY_CHAIN4)
        return read_planes(s, address >> 2, address & 3);
    if (s->gfx[GFX_MODE] & GFX_ODD_EVEN)
        return read_planes(s, planar(s, odd_even_offset(s, address)), (plane & 2) | (address & 1));
    return read_planes(s, planar(s, address), plane);
}

static uint64_t window_read(struct device *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)read_byte(vga_of(dev), (uint32_t)offset + n) << 8 * n;
    return value;
}

static void window_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    for (unsigned n = 0; n < size; n++)
        write_byte(vga_of(dev), (uint32_t)offset + n, (uint8_t)(value >> 8 * n));
}

const struct region_ops vga_window = {
    .name = "vga-window",
    .read = window_read,
    .write = window_write,
    .min_size = 1,
    .max_size = 8,
};

/* ---- VRAM in the window ---- */

/* Chain 4, and bytes go in and out as they are. */
static bool is_linear(const struct vga *s)
{
    return (s->seq[SEQ_MEMORY] & MEMORY_CHAIN4) && (s->seq[SEQ_MAP_MASK] & 0xf) == 0xf &&
           !(s->gfx[GFX_MODE] & 0xb) && !(s->gfx[GFX_ENABLE_SET_RESET] & 0xf) &&
           !(s->gfx[GFX_ROTATE] & 0x1f) && s->gfx[GFX_BIT_MASK] == 0xff;
}

void vga_update_window(struct vga *s)
{
    struct memory *memory = device_memory(&s->pci.dev);
    struct place place = decoded(s);
    uint32_t start = bank(s) & (s->vram_bytes - 1);
    struct error err = {0};
    bool shown = s->legacy && place.size && is_linear(s);

    if (place.size > s->vram_bytes - start)
        place.size = s->vram_bytes - start;
    if (s->linear.mapped &&
        (!shown || s->linear.gpa != VGA_WINDOW + place.base || s->linear.size_bytes != place.size ||
         s->linear.target_offset != start))
        memory_unmap(memory, &s->linear);
    if (!shown || s->linear.mapped)
        return;
    s->linear = (struct region){.name = "vga-linear",
                                .kind = REGION_ALIAS,
                                .gpa = VGA_WINDOW + place.base,
                                .size_bytes = place.size,
                                .priority = 2,
                                .target = &s->all,
                                .target_offset = start};
    if (memory_map(memory, &s->linear, &err)) /* then the window does the same, slowly */
        log_warn("%s: %s", s->pci.dev.id, err.text);
}
