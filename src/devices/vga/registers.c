/*
 * registers.c - the VGA's ports, the Bochs display interface, and both in memory
 *
 * FreeVGA project, "VGA I/O Port Index"; IBM VGA Technical Reference. The Bochs interface as
 * its authors and QEMU's docs/specs/standard-vga describe it: an index and a data register for
 * 16-bit registers, at ports 1CEh and 1CFh, and in BAR 2.
 *
 * Threads: machine lock held.
 */
#include <string.h>

#include "devices/vga/vga_internal.h"

#define DISPI_OLDEST   0xb0c0u
#define DISPI_NEWEST   0xb0c5u
#define DISPI_MAX_X    16000u
#define DISPI_MAX_Y    12000u
#define DISPI_MAX_BPP  32u

#define CRTC_LOCK      0x80u /* of CRTC_V_RETRACE_END: registers 0 to 7 */

#define STATUS_BLANK   0x01u
#define STATUS_RETRACE 0x08u

#define DATA_SHORT     2u /* DAC components have 6 bits */

/* ---- the beam ---- */

uint32_t vga_v_display(const struct vga *s)
{
    uint8_t overflow = s->crtc[CRTC_OVERFLOW];

    return (s->crtc[CRTC_V_DISPLAY] | (overflow & 0x02u) << 7 | (overflow & 0x40u) << 3) + 1;
}

uint32_t vga_line_compare(const struct vga *s)
{
    return s->crtc[CRTC_LINE_COMPARE] | (s->crtc[CRTC_OVERFLOW] & 0x10u) << 4 |
           (s->crtc[CRTC_MAX_SCAN] & 0x40u) << 3;
}

/* The 480-line modes have 60 frames a second, those of 350 and 400 lines 70. */
struct vga_beam vga_beam(struct vga *s)
{
    uint8_t overflow = s->crtc[CRTC_OVERFLOW];
    uint64_t now_ns = device_now_ns(&s->pci.dev);
    uint32_t dots = s->seq[SEQ_CLOCK] & CLOCK_8_DOTS ? 8 : 9;
    uint32_t clock_khz = (s->misc >> 2 & 3) == 1 ? 28322 : 25175;
    uint64_t line_ns, frame_ns, at_ns;
    uint32_t columns = s->crtc[CRTC_H_TOTAL] + 5u, lines, start, length;
    struct vga_beam beam = {0};

    if (s->seq[SEQ_CLOCK] & CLOCK_HALF)
        dots *= 2;
    lines = (s->crtc[CRTC_V_TOTAL] | (overflow & 1u) << 8 | (overflow & 0x20u) << 4) + 2;
    start = s->crtc[CRTC_V_RETRACE_START] | (overflow & 4u) << 6 | (overflow & 0x80u) << 2;
    length = (s->crtc[CRTC_V_RETRACE_END] - start) & 0xf;
    line_ns = (uint64_t)columns * dots * 1000000 / clock_khz;
    frame_ns = line_ns * lines;
    at_ns = now_ns % frame_ns;
    beam.frame = now_ns / frame_ns;
    beam.line = (uint32_t)(at_ns / line_ns);
    beam.in_retrace = beam.line >= start && beam.line < start + (length ? length : 16);
    beam.in_line = beam.line < vga_v_display(s) &&
                   at_ns % line_ns * columns / line_ns <= s->crtc[CRTC_H_DISPLAY];
    return beam;
}

static uint8_t read_status(struct vga *s)
{
    struct vga_beam beam = vga_beam(s);

    s->attr_takes_data = false;
    return (beam.in_line ? 0 : STATUS_BLANK) | (beam.in_retrace ? STATUS_RETRACE : 0);
}

/* ---- the DAC ---- */

static void dac_write_component(struct vga *s, uint8_t value)
{
    s->dac_new[s->dac_component] =
        dispi_is_on(s) && (s->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC) ? value : value & 0x3f;
    if (++s->dac_component < 3)
        return;
    s->dac_component = 0;
    memcpy(&s->dac[3 * s->dac_write], s->dac_new, 3);
    s->dac_write++;
    s->changed = true;
}

static uint8_t dac_read_component(struct vga *s)
{
    uint8_t value = s->dac[3 * s->dac_read + s->dac_component];

    if (++s->dac_component == 3) {
        s->dac_component = 0;
        s->dac_read++;
    }
    return value;
}

/* Colours stay what they are when components get another width. */
static void dac_set_width(struct vga *s, bool is_8bit)
{
    for (unsigned n = 0; n < sizeof(s->dac); n++)
        s->dac[n] = (uint8_t)(is_8bit ? s->dac[n] << DATA_SHORT : s->dac[n] >> DATA_SHORT);
}

/* ---- indexed registers ---- */

static void write_attribute(struct vga *s, uint8_t value)
{
    static const uint8_t masks[ATTR_COUNT - ATTR_MODE] = {0xef, 0xff, 0x3f, 0x0f, 0x0f};
    unsigned index = s->attr_index & 0x1f;

    s->attr_takes_data = !s->attr_takes_data;
    s->changed = true;
    if (s->attr_takes_data)
        s->attr_index = value & 0x3f;
    else if (index < ATTR_MODE)
        s->attr[index] = value & 0x3f;
    else if (index < ATTR_COUNT)
        s->attr[index] = value & masks[index - ATTR_MODE];
}

static uint8_t read_attribute(const struct vga *s)
{
    unsigned index = s->attr_index & 0x1f;

    return index < ATTR_COUNT ? s->attr[index] : 0;
}

static void write_sequencer(struct vga *s, uint8_t value)
{
    static const uint8_t masks[SEQ_COUNT] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};

    if (s->seq_index >= SEQ_COUNT)
        return;
    value &= masks[s->seq_index];
    if (s->seq_index != SEQ_MAP_MASK)
        s->changed |= s->seq[s->seq_index] != value;
    s->seq[s->seq_index] = value;
    vga_update_window(s);
}

static void write_graphics(struct vga *s, uint8_t value)
{
    static const uint8_t masks[GFX_COUNT] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

    if (s->gfx_index >= GFX_COUNT)
        return;
    value &= masks[s->gfx_index];
    if (s->gfx_index == GFX_MODE || s->gfx_index == GFX_MISC)
        s->changed |= s->gfx[s->gfx_index] != value;
    s->gfx[s->gfx_index] = value;
    vga_update_window(s);
}

static void write_crtc(struct vga *s, uint8_t value)
{
    uint8_t index = s->crtc_index, *reg;

    if (index >= CRTC_COUNT)
        return;
    reg = &s->crtc[index];
    if ((s->crtc[CRTC_V_RETRACE_END] & CRTC_LOCK) && index <= CRTC_OVERFLOW) {
        if (index != CRTC_OVERFLOW)
            return;
        value = (uint8_t)((*reg & ~0x10) | (value & 0x10)); /* of line compare */
    }
    s->changed |= *reg != value;
    *reg = value;
}

/* ---- ports 3C0h to 3CFh ---- */

static void write_main(struct vga *s, unsigned port, uint8_t value)
{
    switch (port) {
    case 0x0:
        write_attribute(s, value);
        break;
    case 0x2:
        s->misc = value;
        s->changed = true;
        vga_update_window(s);
        break;
    case 0x3:
        s->enable = value & 1;
        break;
    case 0x4:
        s->seq_index = value & 7;
        break;
    case 0x5:
        write_sequencer(s, value);
        break;
    case 0x6:
        s->dac_mask = value;
        s->changed = true;
        break;
    case 0x7:
        s->dac_read = value;
        s->dac_component = 0;
        s->dac_reads = true;
        break;
    case 0x8:
        s->dac_write = value;
        s->dac_component = 0;
        s->dac_reads = false;
        break;
    case 0x9:
        dac_write_component(s, value);
        break;
    case 0xe:
        s->gfx_index = value & 0xf;
        break;
    case 0xf:
        write_graphics(s, value);
        break;
    default:
        break;
    }
}

static uint8_t read_main(struct vga *s, unsigned port)
{
    switch (port) {
    case 0x0:
        return s->attr_index;
    case 0x1:
        return read_attribute(s);
    case 0x2: /* a colour monitor is there; no interrupt */
        return 0x10;
    case 0x3:
        return s->enable;
    case 0x4:
        return s->seq_index;
    case 0x5:
        return s->seq_index < SEQ_COUNT ? s->seq[s->seq_index] : 0;
    case 0x6:
        return s->dac_mask;
    case 0x7:
        return s->dac_reads ? 3 : 0;
    case 0x8:
        return s->dac_write;
    case 0x9:
        return dac_read_component(s);
    case 0xa:
        return s->feature;
    case 0xc:
        return s->misc;
    case 0xe:
        return s->gfx_index;
    case 0xf:
        return s->gfx_index < GFX_COUNT ? s->gfx[s->gfx_index] : 0;
    default:
        return 0xff;
    }
}

static uint64_t main_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return read_main(vga_of(dev), (unsigned)offset);
}

static void main_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    write_main(vga_of(dev), (unsigned)offset, (uint8_t)value);
}

const struct region_ops vga_ports_main = {
    .name = "vga", .read = main_read, .write = main_write, .min_size = 1, .max_size = 1};

/* ---- the CRTC's ports, which are at 3B0h or 3D0h ---- */

static uint8_t read_crtc_port(const struct vga *s, unsigned offset)
{
    if (offset == 0)
        return s->crtc_index;
    return s->crtc_index < CRTC_COUNT ? s->crtc[s->crtc_index] : 0;
}

static void write_crtc_port(struct vga *s, unsigned offset, uint8_t value)
{
    if (offset == 0)
        s->crtc_index = value & 0x3f;
    else
        write_crtc(s, value);
}

static bool is_colour(struct device *dev)
{
    return vga_of(dev)->misc & MISC_COLOUR;
}

static uint64_t crtc_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return is_colour(dev) ? read_crtc_port(vga_of(dev), (unsigned)offset) : 0xff;
}

static void crtc_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    if (is_colour(dev))
        write_crtc_port(vga_of(dev), (unsigned)offset, (uint8_t)value);
}

static uint64_t crtc_mono_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return is_colour(dev) ? 0xff : read_crtc_port(vga_of(dev), (unsigned)offset);
}

static void crtc_mono_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    if (!is_colour(dev))
        write_crtc_port(vga_of(dev), (unsigned)offset, (uint8_t)value);
}

static uint64_t status_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return is_colour(dev) ? read_status(vga_of(dev)) : 0xff;
}

static void status_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)offset, (void)size;
    if (is_colour(dev))
        vga_of(dev)->feature = (uint8_t)value & 0x0b;
}

static uint64_t status_mono_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return is_colour(dev) ? 0xff : read_status(vga_of(dev));
}

static void status_mono_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)offset, (void)size;
    if (!is_colour(dev))
        vga_of(dev)->feature = (uint8_t)value & 0x0b;
}

const struct region_ops vga_ports_crtc = {
    .name = "vga-crtc", .read = crtc_read, .write = crtc_write, .min_size = 1, .max_size = 1};
const struct region_ops vga_ports_crtc_mono = {.name = "vga-crtc-mono",
                                               .read = crtc_mono_read,
                                               .write = crtc_mono_write,
                                               .min_size = 1,
                                               .max_size = 1};
const struct region_ops vga_ports_status = {
    .name = "vga-status", .read = status_read, .write = status_write, .min_size = 1, .max_size = 1};
const struct region_ops vga_ports_status_mono = {.name = "vga-status-mono",
                                                 .read = status_mono_read,
                                                 .write = status_mono_write,
                                                 .min_size = 1,
                                                 .max_size = 1};

/* ---- the Bochs display interface ---- */

static uint32_t known_bpp(uint32_t bpp)
{
    switch (bpp) {
    case 4:
    case 15:
    case 16:
    case 24:
    case 32:
        return bpp;
    default:
        return 8;
    }
}

static uint32_t pixels_to_bytes(uint32_t bpp, uint32_t pixels)
{
    if (bpp == 4) /* of a plane */
        return pixels / 8;
    return pixels * ((bpp + 7) / 8);
}

struct dispi_mode vga_dispi_mode(const struct vga *s)
{
    uint32_t bpp = known_bpp(s->dispi[DISPI_BPP]);
    uint32_t bytes = bpp == 4 ? s->vram_bytes / 4 : s->vram_bytes;
    uint32_t width = s->dispi[DISPI_XRES] & ~7u, virtual_width = s->dispi[DISPI_VIRT_WIDTH] & ~7u;
    struct dispi_mode mode = {.bpp = bpp, .height = s->dispi[DISPI_YRES]};

    width = width < 8 ? 8 : width > DISPI_MAX_X ? DISPI_MAX_X : width;
    mode.width = width;
    mode.line_bytes = pixels_to_bytes(bpp, virtual_width < width ? width : virtual_width);
    mode.start =
        s->dispi[DISPI_Y_OFFSET] * mode.line_bytes + pixels_to_bytes(bpp, s->dispi[DISPI_X_OFFSET]);
    if (mode.height > DISPI_MAX_Y)
        mode.height = DISPI_MAX_Y;
    if (mode.start >= bytes || mode.line_bytes > bytes - mode.start)
        mode.height = 0;
    else if (mode.height > (bytes - mode.start) / mode.line_bytes)
        mode.height = (bytes - mode.start) / mode.line_bytes;
    return mode;
}

/* What the guest does not give: a whole picture from the first byte on. */
static void dispi_begin(struct vga *s, uint16_t enable)
{
    struct dispi_mode mode;

    s->dispi[DISPI_VIRT_WIDTH] = 0;
    s->dispi[DISPI_X_OFFSET] = s->dispi[DISPI_Y_OFFSET] = 0;
    s->dispi[DISPI_BPP] = (uint16_t)known_bpp(s->dispi[DISPI_BPP]);
    mode = vga_dispi_mode(s);
    s->dispi[DISPI_XRES] = s->dispi[DISPI_VIRT_WIDTH] = (uint16_t)mode.width;
    s->dispi[DISPI_YRES] = (uint16_t)mode.height;
    if (!(enable & DISPI_NO_CLEAR)) {
        size_t bytes = (size_t)mode.height * mode.line_bytes * (mode.bpp == 4 ? 4 : 1);

        ram_fill(s->vram, 0, bytes);
        memory_unpin(device_memory(&s->pci.dev), s->vram, bytes);
    }
}

static void dispi_write_enable(struct vga *s, uint16_t value)
{
    uint16_t old = s->dispi[DISPI_ENABLE];
    bool was_8bit = (old & DISPI_ENABLED) && (old & DISPI_8BIT_DAC);
    bool is_8bit = (value & DISPI_ENABLED) && (value & DISPI_8BIT_DAC);

    if (!(value & DISPI_ENABLED))
        s->dispi[DISPI_BANK] = 0;
    else if (!(old & DISPI_ENABLED))
        dispi_begin(s, value);
    s->dispi[DISPI_ENABLE] =
        value & (DISPI_ENABLED | DISPI_GETCAPS | DISPI_8BIT_DAC | DISPI_LFB | DISPI_NO_CLEAR);
    if (is_8bit != was_8bit)
        dac_set_width(s, is_8bit);
    vga_update_window(s);
}

/* The virtual width is at least the real one, and what the memory has room for. */
static void dispi_write_virtual_width(struct vga *s, uint16_t value)
{
    uint16_t old = s->dispi[DISPI_VIRT_WIDTH];

    s->dispi[DISPI_VIRT_WIDTH] = value & 0xfff8;
    if (!dispi_is_on(s))
        return;
    if (s->dispi[DISPI_VIRT_WIDTH] < s->dispi[DISPI_XRES])
        s->dispi[DISPI_VIRT_WIDTH] = s->dispi[DISPI_XRES];
    if (!vga_dispi_mode(s).height)
        s->dispi[DISPI_VIRT_WIDTH] = old;
}

static void dispi_write_register(struct vga *s, unsigned index, uint16_t value)
{
    s->changed = true;
    switch (index) {
    case DISPI_ID:
        if (value >= DISPI_OLDEST && value <= DISPI_NEWEST)
            s->dispi[DISPI_ID] = value;
        break;
    case DISPI_XRES:
    case DISPI_YRES:
    case DISPI_BPP: /* a mode is chosen before it is switched on */
        if (!dispi_is_on(s))
            s->dispi[index] = value;
        break;
    case DISPI_ENABLE:
        dispi_write_enable(s, value);
        break;
    case DISPI_BANK:
        s->dispi[DISPI_BANK] = value & (uint16_t)((s->vram_bytes >> 16) - 1);
        vga_update_window(s);
        break;
    case DISPI_VIRT_WIDTH:
        dispi_write_virtual_width(s, value);
        break;
    case DISPI_X_OFFSET:
    case DISPI_Y_OFFSET:
        s->dispi[index] = value;
        break;
    default:
        break;
    }
}

static uint16_t dispi_read_register(const struct vga *s, unsigned index)
{
    static const uint16_t most[DISPI_BPP + 1] = {0, DISPI_MAX_X, DISPI_MAX_Y, DISPI_MAX_BPP};
    struct dispi_mode mode;
    uint32_t bytes;

    if ((s->dispi[DISPI_ENABLE] & DISPI_GETCAPS) && index >= DISPI_XRES && index <= DISPI_BPP)
        return most[index];
    if (index == DISPI_MEMORY_64K)
        return (uint16_t)(s->vram_bytes >> 16);
    if (index == DISPI_VIRT_HEIGHT) {
        mode = vga_dispi_mode(s);
        bytes = (mode.bpp == 4 ? s->vram_bytes / 4 : s->vram_bytes) / mode.line_bytes;
        return (uint16_t)(bytes > UINT16_MAX ? UINT16_MAX : bytes);
    }
    return index < DISPI_COUNT ? s->dispi[index] : 0;
}

/*
 * The data register is at an odd port, so words come in two bytes, the lower first; one at the even
 * port behind it is for machines that cannot do that.
 */
static uint64_t dispi_port_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct vga *s = vga_of(dev);

    if (offset == 0)
        return s->dispi_index;
    return dispi_read_register(s, s->dispi_index) >> (offset == 2 && size == 1 ? 8 : 0);
}

static void dispi_port_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *s = vga_of(dev);

    if (offset == 0)
        s->dispi_index = (uint16_t)value;
    else if (size == 2)
        dispi_write_register(s, s->dispi_index, (uint16_t)value);
    else if (offset == 1)
        s->dispi_low = (uint8_t)value;
    else if (offset == 2)
        dispi_write_register(s, s->dispi_index, (uint16_t)(value << 8 | s->dispi_low));
}

const struct region_ops vga_ports_dispi = {.name = "vga-dispi",
                                           .read = dispi_port_read,
                                           .write = dispi_port_write,
                                           .min_size = 1,
                                           .max_size = 2};

/* ---- BAR 2 ---- */

#define BAR_PORTS         0x400u /* 3C0h to 3DFh */
#define BAR_PORTS_END     0x420u
#define BAR_DISPI         0x500u
#define BAR_DISPI_END     0x516u
#define BAR_EXTENDED      0x600u /* what QEMU has added: how long this is, and byte order */
#define BAR_EXTENDED_SIZE 8u
#define LITTLE            0x1e1e1e1eu
#define BIG               0xbebebebeu

static uint8_t read_port_byte(struct device *dev, unsigned port)
{
    if (port < 0x10)
        return read_main(vga_of(dev), port);
    if (port == 0x14 || port == 0x15)
        return (uint8_t)crtc_read(dev, port - 0x14, 1);
    return port == 0x1a ? (uint8_t)status_read(dev, 0, 1) : 0xff;
}

static void write_port_byte(struct device *dev, unsigned port, uint8_t value)
{
    if (port < 0x10)
        write_main(vga_of(dev), port, value);
    else if (port == 0x14 || port == 0x15)
        crtc_write(dev, port - 0x14, value, 1);
    else if (port == 0x1a)
        status_write(dev, 0, value, 1);
}

static uint8_t read_bar_byte(struct device *dev, unsigned offset)
{
    struct vga *s = vga_of(dev);

    if (offset < sizeof(s->edid))
        return s->edid[offset];
    if (offset >= BAR_PORTS && offset < BAR_PORTS_END)
        return read_port_byte(dev, offset - BAR_PORTS);
    if (offset >= BAR_DISPI && offset < BAR_DISPI_END)
        return (uint8_t)(dispi_read_register(s, (offset - BAR_DISPI) / 2) >> offset % 2 * 8);
    if (offset == BAR_EXTENDED)
        return BAR_EXTENDED_SIZE;
    if (offset >= BAR_EXTENDED + 4 && offset < BAR_EXTENDED + BAR_EXTENDED_SIZE)
        return (uint8_t)(s->big_endian ? BIG : LITTLE);
    return 0;
}

static uint64_t bar_read(struct device *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)read_bar_byte(dev, (unsigned)offset + n) << 8 * n;
    return value;
}

static void bar_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga *s = vga_of(dev);

    if (offset >= BAR_PORTS && offset < BAR_PORTS_END) {
        for (unsigned n = 0; n < size; n++)
            write_port_byte(dev, (unsigned)offset + n - BAR_PORTS, (uint8_t)(value >> 8 * n));
    } else if (offset >= BAR_DISPI && offset < BAR_DISPI_END) {
        for (unsigned n = 0; n + 2 <= size; n += 2)
            dispi_write_register(s, ((unsigned)offset + n - BAR_DISPI) / 2,
                                 (uint16_t)(value >> 8 * n));
    } else if (offset == BAR_EXTENDED + 4 && size == 4 && (value == LITTLE || value == BIG)) {
        s->big_endian = value == BIG;
        s->changed = true;
    }
}

const struct region_ops vga_registers_bar = {
    .name = "vga-registers", .read = bar_read, .write = bar_write, .min_size = 1, .max_size = 4};

/* ---- reset ---- */

void vga_registers_reset(struct vga *s)
{
    s->misc = s->feature = s->seq_index = s->gfx_index = s->crtc_index = s->attr_index = 0;
    s->enable = 1;
    memset(s->seq, 0, sizeof(s->seq));
    memset(s->gfx, 0, sizeof(s->gfx));
    memset(s->crtc, 0, sizeof(s->crtc));
    memset(s->attr, 0, sizeof(s->attr));
    memset(s->dac, 0, sizeof(s->dac));
    memset(s->dac_new, 0, sizeof(s->dac_new));
    memset(s->dispi, 0, sizeof(s->dispi));
    s->attr_takes_data = s->dac_reads = s->big_endian = false;
    s->dac_mask = 0xff;
    s->dac_read = s->dac_write = s->dac_component = s->dispi_low = 0;
    s->latch = 0;
    s->dispi_index = 0;
    s->dispi[DISPI_ID] = DISPI_NEWEST;
    s->changed = true;
}
