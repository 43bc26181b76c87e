/*
 * gpu_vga.c - a virtio graphics card that is a VGA as well, until its driver shows something
 *
 * As QEMU's virtio-vga: firmware and systems without the driver use the VGA (BARs 0 and 2, ports,
 * window), which is one that firmware's drivers for this function know.
 */
#include "devices/devices.h"
#include "devices/vga/vga_internal.h"
#include "devices/virtio/gpu.h"
#include "trapeze/machine.h"

struct virtio_vga {
    struct vga vga; /* first: vga_of() */
    struct gpu gpu;
    uint64_t max_hostmem; /* property */
    bool was_gpu;         /* what was drawn last was not the VGA's */
};

static struct virtio_vga *card_of(struct device *dev)
{
    return container_of(vga_of(dev), struct virtio_vga, vga);
}

/* ---- the screen; opaque is that of the VGA ---- */

static struct virtio_vga *card_of_screen(void *opaque)
{
    return container_of((struct vga *)opaque, struct virtio_vga, vga);
}

static void watched(void *opaque, bool on)
{
    card_of_screen(opaque)->gpu.changed = true;
    vga_screen.watched(opaque, on);
}

static void refresh(void *opaque)
{
    struct virtio_vga *s = card_of_screen(opaque);

    if (s->gpu.shown_id) {
        s->was_gpu = true;
        gpu_draw(&s->gpu);
        return;
    }
    s->vga.changed |= s->was_gpu;
    s->was_gpu = false;
    vga_screen.refresh(opaque);
}

static bool text(void *opaque, struct screen_text *out)
{
    return !card_of_screen(opaque)->gpu.shown_id && vga_screen.text(opaque, out);
}

static void want_size(void *opaque, uint32_t width, uint32_t height)
{
    gpu_want_size(&card_of_screen(opaque)->gpu, width, height);
}

static const struct screen_source_ops card_screen = {
    .watched = watched, .refresh = refresh, .text = text, .want_size = want_size};

/* ---- lifecycle ---- */

static int card_attach(struct device *dev, struct error *err)
{
    struct virtio_vga *s = card_of(dev);
    struct virtio_pci *pci = &s->vga.virtio_pci;
    struct pci_function_desc desc;
    int result;

    /* First, so that it can be taken apart again whatever fails. */
    result = gpu_begin(&s->gpu, dev, &s->vga.screen, s->vga.xres, s->vga.yres, s->max_hostmem, err);
    if (!result)
        result = virtio_pci_describe(pci, &s->gpu.virtio, GPU_CLASS_VGA, &desc, err);
    if (!result)
        result = vga_begin(&s->vga, &desc, &card_screen, err);
    if (!result)
        result = pci_attach(&pci->function, &desc, err);
    return result ? result : vga_map_legacy(&s->vga, err);
}

static void card_detach(struct device *dev)
{
    struct virtio_vga *s = card_of(dev);

    vga_end(&s->vga);
    virtio_pci_detach(&s->vga.virtio_pci);
    gpu_end(&s->gpu);
}

static void card_reset(struct device *dev)
{
    virtio_pci_reset(&card_of(dev)->vga.virtio_pci);
    vga_registers_reset(vga_of(dev));
}

static void card_reset_done(struct device *dev)
{
    vga_update_window(vga_of(dev));
}

static void card_quiesce(struct device *dev)
{
    gpu_quiesce(&card_of(dev)->gpu);
}

static void card_resume(struct device *dev)
{
    gpu_resume(&card_of(dev)->gpu);
}

static int card_after_load(void *object, struct error *err)
{
    struct virtio_vga *s = object;

    vga_after_load(&s->vga);
    return gpu_after_load(&s->gpu, err);
}

static const struct property card_properties[] = {
    VIRTIO_PCI_PROPERTIES(struct vga, virtio_pci),
    VGA_PROPERTIES,
    PROPERTY_U64(struct virtio_vga, max_hostmem, GPU_DEFAULT_BLOCK, GPU_BLOCK_HELP),
    PROPERTY_END,
};

static const struct state_field card_state[] = {
    STATE_STRUCT(struct virtio_vga, vga.virtio_pci, virtio_pci_state),
    VGA_REGISTERS_STATE(struct virtio_vga, vga),
    STATE_STRUCT(struct virtio_vga, gpu, gpu_state),
    STATE_END,
};

const struct device_class virtio_vga_class = {
    .name = "virtio-vga",
    .summary = "virtio graphics card that is a VGA, too",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct virtio_vga),
    .properties = card_properties,
    .attach = card_attach,
    .detach = card_detach,
    .reset = card_reset,
    .reset_done = card_reset_done,
    .quiesce = card_quiesce,
    .resume = card_resume,
    .state = {.version = 1, .oldest = 1, .fields = card_state, .after_load = card_after_load},
};
