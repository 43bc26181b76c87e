/*
 * vga.c - a VGA with linear modes, as PCI function 1234:1111
 *
 * The card that Bochs and QEMU have: a VGA (registers.c, window.c, draw.c) with the Bochs display
 * interface, VRAM in BAR 0, registers in BAR 2 and an expansion ROM. SeaBIOS's VGA BIOS, OVMF and
 * Linux (bochs-drm) drive it. QEMU's docs/specs/standard-vga.
 *
 * legacy=off leaves out ports and window, for a second card.
 *
 * Left out: interrupts at the retrace, the diagnostic bits of status register 1, skews, the
 * horizontal timing beyond how many columns there are, the border, counting by two and four in
 * the CRTC. The window and the ports answer whatever the command register says.
 *
 * Threads: machine lock held. Guest memory: VRAM only.
 */
#include <errno.h>
#include <stdlib.h>

#include "devices/devices.h"
#include "devices/vga/vga_internal.h"
#include "trapeze/machine.h"

#define CLASS_VGA     0x030000u
#define CLASS_DISPLAY 0x038000u

static const struct pci_function_desc vga_desc = {
    .vendor_id = 0x1234,
    .device_id = 0x1111,
    .subsystem_vendor_id = 0x1af4, /* by which bochs-drm knows it */
    .subsystem_id = 0x1100,
    .class_code = CLASS_VGA,
    .revision = 2, /* there are the extended registers in BAR 2 */
};

static int check_properties(const struct vga *s, struct error *err)
{
    if (!s->memory || s->memory > VGA_MAX_MIB || (s->memory & (s->memory - 1)))
        return error_set(err, EINVAL, "memory is a power of two up to %u MiB", VGA_MAX_MIB);
    if (s->xres < 320 || s->yres < 200 || s->xres > 4095 || s->yres > 4095)
        return error_set(err, EINVAL, "a monitor has 320x200 to 4095x4095 pixels");
    return 0;
}

int vga_map_legacy(struct vga *s, struct error *err)
{
    static const struct {
        uint16_t port, count;
        const struct region_ops *ops;
    } ports[] = {
        {0x1ce, 4, &vga_ports_dispi},       {0x3b4, 2, &vga_ports_crtc_mono},
        {0x3ba, 1, &vga_ports_status_mono}, {0x3c0, 16, &vga_ports_main},
        {0x3d4, 2, &vga_ports_crtc},        {0x3da, 1, &vga_ports_status},
    };
    int result = 0;

    for (unsigned n = 0; n < sizeof(ports) / sizeof(ports[0]) && !result; n++)
        result = device_map_ports(&s->pci.dev, ports[n].port, ports[n].count, ports[n].ops, err);
    if (result)
        return result;
    s->window = (struct region){.name = "vga-window",
                                .kind = REGION_DEVICE,
                                .gpa = VGA_WINDOW,
                                .size_bytes = VGA_WINDOW_BYTES,
                                .priority = 1,
                                .ops = &vga_window,
                                .dev = &s->pci.dev};
    return memory_map(device_memory(&s->pci.dev), &s->window, err);
}

int vga_begin(struct vga *s, struct pci_function_desc *desc, const struct screen_source_ops *source,
              struct error *err)
{
    struct device *dev = &s->pci.dev;
    int result = check_properties(s, err);

    if (result)
        return result;
    s->vram_bytes = s->memory << 20;
    s->vram = memory_add_block(device_memory(dev), s->vram_bytes, &s->vram_offset, err);
    if (!s->vram)
        return -ENOSPC;
    s->all = (struct region){.name = "vga-vram",
                             .kind = REGION_RAM,
                             .size_bytes = s->vram_bytes,
                             .hva = s->vram,
                             .ram_offset = s->vram_offset};
    edid_build(s->edid, s->xres, s->yres);
    screen_init(&s->screen, dev->machine, dev->id, source, s);
    desc->bar[0] = (struct pci_bar_desc){
        .kind = PCI_BAR_MEMORY32, .prefetchable = true, .size_bytes = s->vram_bytes};
    desc->bar[2] = (struct pci_bar_desc){
        .kind = PCI_BAR_MEMORY32, .size_bytes = VGA_REGISTERS_BAR_BYTES, .ops = &vga_registers_bar};
    pci_set_bar_ram(&s->pci, 0, s->vram, s->vram_offset);
    return 0;
}

static int vga_attach(struct device *dev, struct error *err)
{
    struct vga *s = vga_of(dev);
    struct pci_function_desc desc = vga_desc;
    int result = vga_begin(s, &desc, &vga_screen, err);

    if (!s->legacy)
        desc.class_code = CLASS_DISPLAY;
    if (!result)
        result = pci_attach(&s->pci, &desc, err);
    return result || !s->legacy ? result : vga_map_legacy(s, err);
}

void vga_end(struct vga *s)
{
    struct memory *memory = device_memory(&s->pci.dev);

    screen_done(&s->screen);
    memory_unmap(memory, &s->linear);
    memory_unmap(memory, &s->window);
    free(s->line);
    free(s->line_bytes);
}

static void vga_detach(struct device *dev)
{
    vga_end(vga_of(dev));
    pci_detach(&vga_of(dev)->pci);
}

static void vga_reset(struct device *dev)
{
    vga_registers_reset(vga_of(dev));
}

static void vga_reset_done(struct device *dev)
{
    vga_update_window(vga_of(dev));
}

void vga_after_load(struct vga *s)
{
    s->dispi[DISPI_BANK] &= (uint16_t)((s->vram_bytes >> 16) - 1);
    vga_update_window(s);
    s->changed = true;
}

static int after_load(void *object, struct error *err)
{
    struct vga *s = object;
    int result = pci_after_load(&s->pci, err);

    vga_after_load(s);
    return result;
}

static const struct property vga_properties[] = {
    PCI_PROPERTIES(struct vga, pci),
    PROPERTY_BOOL(struct vga, legacy, true,
                  "the ports and the memory window of a VGA, which one card can have"),
    VGA_PROPERTIES,
    PROPERTY_END,
};

const struct state_field vga_state[] = {
    PCI_STATE(struct vga, pci),
    STATE_U8(struct vga, misc),
    STATE_U8_MAX(struct vga, feature, 0x0b),
    STATE_U8_MAX(struct vga, enable, 1),
    STATE_U8_MAX(struct vga, seq_index, 7),
    STATE_BYTES(struct vga, seq),
    STATE_U8_MAX(struct vga, gfx_index, 0xf),
    STATE_BYTES(struct vga, gfx),
    STATE_U8_MAX(struct vga, crtc_index, 0x3f),
    STATE_BYTES(struct vga, crtc),
    STATE_U8_MAX(struct vga, attr_index, 0x3f),
    STATE_BYTES(struct vga, attr),
    STATE_BOOL(struct vga, attr_takes_data),
    STATE_U8(struct vga, dac_mask),
    STATE_U8(struct vga, dac_read),
    STATE_U8(struct vga, dac_write),
    STATE_U8_MAX(struct vga, dac_component, 2),
    STATE_BOOL(struct vga, dac_reads),
    STATE_BYTES(struct vga, dac_new),
    STATE_BYTES(struct vga, dac),
    STATE_U32(struct vga, latch),
    STATE_U16(struct vga, dispi_index),
    STATE_U16S(struct vga, dispi),
    STATE_U8(struct vga, dispi_low),
    STATE_BOOL(struct vga, big_endian),
    STATE_END,
};

const struct device_class vga_class = {
    .name = "vga",
    .summary = "graphics card: VGA with linear modes (1234:1111, as QEMU's)",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct vga),
    .properties = vga_properties,
    .pci = &vga_desc,
    .attach = vga_attach,
    .detach = vga_detach,
    .reset = vga_reset,
    .reset_done = vga_reset_done,
    .state = {.version = 1, .oldest = 1, .fields = vga_state, .after_load = after_load},
};
