/*
 * vga_internal.h - what the files of the VGA share
 *
 * Threads: machine lock held for all of it, but VRAM is guest memory that vCPUs write at any time
 * (base/guest_ram.h).
 */
#ifndef DEVICES_VGA_INTERNAL_H
#define DEVICES_VGA_INTERNAL_H

#include "base/guest_ram.h"
#include "devices/vga/edid.h"
#include "devices/virtio/transport_pci.h"
#include "trapeze/display.h"
#include "trapeze/pci.h"

#define VGA_WINDOW       0xa0000ull
#define VGA_WINDOW_BYTES 0x20000u
#define VGA_PLANE_MASK   0xffffu /* a plane has 64 KiB */
#define VGA_MEMORY_BYTES (256u << 10)
#define VGA_MAX_MIB      64u

enum vga_sequencer { SEQ_RESET, SEQ_CLOCK, SEQ_MAP_MASK, SEQ_FONT, SEQ_MEMORY, SEQ_COUNT };
enum vga_graphics {
    GFX_SET_RESET,
    GFX_ENABLE_SET_RESET,
    GFX_COLOUR_COMPARE,
    GFX_ROTATE,
    GFX_READ_MAP,
    GFX_MODE,
    GFX_MISC,
    GFX_COLOUR_CARE,
    GFX_BIT_MASK,
    GFX_COUNT
};
enum vga_attribute {
    ATTR_MODE = 0x10,
    ATTR_OVERSCAN,
    ATTR_PLANES,
    ATTR_PANNING,
    ATTR_COLOUR_SELECT,
    ATTR_COUNT
};
enum vga_crtc {
    CRTC_H_TOTAL,
    CRTC_H_DISPLAY,
    CRTC_V_TOTAL = 6,
    CRTC_OVERFLOW,
    CRTC_PRESET,
    CRTC_MAX_SCAN,
    CRTC_CURSOR_START,
    CRTC_CURSOR_END,
    CRTC_START_HIGH,
    CRTC_START_LOW,
    CRTC_CURSOR_HIGH,
    CRTC_CURSOR_LOW,
    CRTC_V_RETRACE_START,
    CRTC_V_RETRACE_END,
    CRTC_V_DISPLAY,
    CRTC_OFFSET,
    CRTC_UNDERLINE,
    CRTC_MODE = 0x17,
    CRTC_LINE_COMPARE,
    CRTC_COUNT
};

#define MISC_COLOUR        0x01u /* CRTC at 3D4h, else 3B4h */
#define MISC_MEMORY        0x02u
#define CLOCK_8_DOTS       0x01u
#define CLOCK_HALF         0x08u
#define CLOCK_OFF          0x20u
#define MEMORY_SEQUENTIAL  0x04u /* else odd addresses are in planes 1 and 3 */
#define MEMORY_CHAIN4      0x08u
#define GFX_ODD_EVEN       0x10u /* of GFX_MODE */
#define GFX_INTERLEAVE     0x20u
#define GFX_256            0x40u
#define GFX_GRAPHICS       0x01u /* of GFX_MISC */
#define GFX_CHAIN_ODD_EVEN 0x02u
#define ATTR_LINE_GRAPHICS 0x04u
#define ATTR_BLINK         0x08u
#define ATTR_SPLIT_RESETS  0x20u
#define ATTR_P54           0x80u
#define ATTR_SCREEN_ON     0x20u /* of the index */

enum dispi_register {
    DISPI_ID,
    DISPI_XRES,
    DISPI_YRES,
    DISPI_BPP,
    DISPI_ENABLE,
    DISPI_BANK,
    DISPI_VIRT_WIDTH,
    DISPI_VIRT_HEIGHT,
    DISPI_X_OFFSET,
    DISPI_Y_OFFSET,
    DISPI_COUNT,
    DISPI_MEMORY_64K = DISPI_COUNT, /* read only, not kept */
};
#define DISPI_ENABLED  0x01u
#define DISPI_GETCAPS  0x02u
#define DISPI_8BIT_DAC 0x20u
#define DISPI_LFB      0x40u
#define DISPI_NO_CLEAR 0x80u

/* What the registers of the Bochs interface make, within what there is. */
struct dispi_mode {
    uint32_t width, height; /* height 0: nothing fits */
    uint32_t bpp;           /* 4, 8, 15, 16, 24 or 32 */
    uint32_t line_bytes;    /* of a plane with 4 bpp */
    uint32_t start;         /* of the first pixel; likewise */
};

/* An instance begins with it: a plain VGA, or one that is a virtio device, too. */
struct vga {
    union {
        struct pci_function pci;
        struct virtio_pci virtio_pci;
    };

    /* Configuration. */
    uint32_t memory; /* property: MiB of VRAM */
    bool legacy;     /* property: ports, window and boot display */
    uint16_t xres, yres;
    uint8_t edid[EDID_BYTES];
    uint8_t *vram; /* guest-visible: in the RAM file, behind the RAM, and so saved with it */
    uint64_t vram_offset;
    uint32_t vram_bytes;

    /* Guest-visible state. */
    uint8_t misc, feature, enable;
    uint8_t seq_index, seq[SEQ_COUNT];
    uint8_t gfx_index, gfx[GFX_COUNT];
    uint8_t crtc_index, crtc[CRTC_COUNT];
    uint8_t attr_index, attr[ATTR_COUNT];
    bool attr_takes_data;                  /* the flip-flop of port 3C0h */
    uint8_t dac_mask, dac_read, dac_write; /* indexes of the colour */
    uint8_t dac_component;                 /* red, green or blue is next */
    bool dac_reads;                        /* what port 3C7h was last written for */
    uint8_t dac_new[3];                    /* components so far */
    uint8_t dac[256 * 3];
    uint32_t latch; /* a byte for each plane */
    uint16_t dispi_index, dispi[DISPI_COUNT];
    uint8_t dispi_low; /* of a word that is written in bytes */
    bool big_endian;

    /* Rebuilt on load. */
    struct region window;
    struct region linear; /* an alias of a part of all, which is mapped nowhere else */
    struct region all;

    /* What was drawn; meaningful while somebody looks. */
    struct screen screen;
    bool changed; /* registers were: all has to be drawn */
    uint32_t *line;
    uint8_t *line_bytes;
    uint32_t line_capacity; /* pixels */
    bool cursor_was_on, text_was_on;
    bool has_cursor, has_blink; /* the picture differs by the moment */
    uint32_t colours[256];      /* of the DAC, 0x00RRGGBB */
    uint32_t attributes[16];    /* the same through the attribute controller */
};

static inline struct vga *vga_of(struct device *dev)
{
    return container_of(pci_function_of(dev), struct vga, pci);
}

static inline bool dispi_is_on(const struct vga *s)
{
    return s->dispi[DISPI_ENABLE] & DISPI_ENABLED;
}

/* The four planes' bytes at an offset. */
static inline uint8_t *vga_cell(const struct vga *s, uint32_t offset)
{
    return s->vram + 4 * (size_t)(offset & (s->vram_bytes / 4 - 1));
}

/* vga.c */
/* VRAM, the screen, whose source is given, and all of desc that has to do with the VGA. */
int vga_begin(struct vga *s, struct pci_function_desc *desc, const struct screen_source_ops *source,
              struct error *err);
/* Ports and window, of a card that is on its bus. */
int vga_map_legacy(struct vga *s, struct error *err);
/* Before it leaves its bus. */
void vga_end(struct vga *s);
void vga_after_load(struct vga *s);
/* Of any class whose instance begins with struct vga. */
#define VGA_PROPERTIES                                                                             \
    PROPERTY_U32(struct vga, memory, 16, "video memory, MiB, a power of two up to 64"),            \
        PROPERTY_U16(struct vga, xres, 1024, "width that the monitor likes best, pixels"),         \
        PROPERTY_U16(struct vga, yres, 768, "height that the monitor likes best, pixels")
extern const struct state_field vga_state[];
/* All of it but the PCI function. */
#define VGA_REGISTERS_STATE(st, f) STATE_STRUCT(st, f, vga_state + 1)

/* registers.c */
extern const struct region_ops vga_ports_crtc_mono, vga_ports_status_mono, vga_ports_main,
    vga_ports_crtc, vga_ports_status, vga_ports_dispi;
extern const struct region_ops vga_registers_bar; /* BAR 2 */
#define VGA_REGISTERS_BAR_BYTES 4096u
void vga_registers_reset(struct vga *s);
struct dispi_mode vga_dispi_mode(const struct vga *s);
/* Of CRTC registers with their upper bits elsewhere: lines. */
uint32_t vga_v_display(const struct vga *s);
uint32_t vga_line_compare(const struct vga *s);
/* A frame's time on the virtual clock, and where in it the beam is; for blinking and retrace. */
struct vga_beam {
    uint64_t frame; /* count */
    uint32_t line;
    bool in_line, in_retrace; /* displays; vertical retrace */
};
struct vga_beam vga_beam(struct vga *s);

/* window.c */
extern const struct region_ops vga_window;
/* A register changed: is VRAM shown as such in the window? */
void vga_update_window(struct vga *s);

/* draw.c */
extern const struct screen_source_ops vga_screen;

#endif
