/*
 * vga_rig.c - see vga_rig.h
 */
#include "vga_rig.h"

struct fixture f;

static void saw_size(void *opaque, const struct screen_surface *surface)
{
    (void)opaque;
    f.surface = *surface;
}

static void saw_change(void *opaque, const struct screen_rect *rect)
{
    (void)opaque;
    f.changes++;
    f.rect = *rect;
}

static const struct screen_viewer_ops viewer_ops = {.resized = saw_size, .changed = saw_change};

static void configure(unsigned offset, uint32_t value, unsigned size)
{
    test_write(f.t, ECAM + (SLOT << 15) + offset, value, size);
}

int set_up(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(RAM_BYTES), .viewer = {.ops = &viewer_ops}};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.card = device_test_add(f.t, &vga_class, "addr=2");
    device_test_start(f.t);
    test_outb(f.t, 0x3c2, 0x01); /* registers as with a colour monitor */
    configure(PCI_BAR0, VRAM, 4);
    configure(PCI_BAR0 + 8, REGISTERS, 4);
    configure(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
    f.screen = display_screen(machine_display(f.t->machine), 0);
    assert_non_null(f.screen);
    assert_int_equal(screen_attach(f.screen, &f.viewer, NULL), 0);
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

/* ---- registers ---- */

static void set_indexed(uint16_t port, uint8_t index, uint8_t value)
{
    test_outw(f.t, port, (uint16_t)(index | value << 8));
}

void sequencer(uint8_t index, uint8_t value)
{
    set_indexed(0x3c4, index, value);
}

void graphics(uint8_t index, uint8_t value)
{
    set_indexed(0x3ce, index, value);
}

void crtc(uint8_t index, uint8_t value)
{
    set_indexed(0x3d4, index, value);
}

uint8_t get_indexed(uint16_t port, uint8_t index)
{
    test_outb(f.t, port, index);
    return test_inb(f.t, port + 1);
}

void attribute(uint8_t index, uint8_t value)
{
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, index);
    test_outb(f.t, 0x3c0, value);
    test_outb(f.t, 0x3c0, 0x20); /* the screen is on */
}

void dispi(uint16_t index, uint16_t value)
{
    test_outw(f.t, 0x1ce, index);
    test_outw(f.t, 0x1cf, value);
}

uint16_t dispi_get(uint16_t index)
{
    test_outw(f.t, 0x1ce, index);
    return test_inw(f.t, 0x1cf);
}

/* Colour n of the palette that the tests have, as components of 6 bits. */
uint8_t component(unsigned n, unsigned which)
{
    return (uint8_t)((n * (5 + 2 * which) + 7 * which) & 0x3f);
}

uint32_t colour(unsigned n)
{
    uint32_t rgb = 0;

    for (unsigned which = 0; which < 3; which++) {
        uint8_t c = component(n & 0xff, which);

        rgb = rgb << 8 | (uint8_t)(c << 2 | c >> 4);
    }
    return rgb;
}

/* As the IBM BIOS sets them. */
const struct mode text_80x25 = {0x67,
                                {0x03, 0x00, 0x03, 0x00, 0x02},
                                {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
                                 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
                                 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
                                {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff},
                                {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
                                 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00}};
const struct mode cga_4_colours = {
    0x63,
    {0x03, 0x09, 0x03, 0x00, 0x02},
    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x00, 0xff},
    {0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12,
     0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x03, 0x00, 0x00}};
const struct mode cga_2_colours = {
    0x63,
    {0x03, 0x01, 0x01, 0x00, 0x06},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0d, 0x00, 0xff},
    {0x00, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17,
     0x17, 0x17, 0x17, 0x17, 0x17, 0x01, 0x00, 0x01, 0x00, 0x00}};
const struct mode planar_640x480 = {
    0xe3,
    {0x03, 0x01, 0x0f, 0x00, 0x06},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00}};
const struct mode mode_13h = {0x63,
                              {0x03, 0x01, 0x0f, 0x00, 0x0e},
                              {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00,
                               0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
                               0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                              {0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff},
                              {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
                               0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x41, 0x00, 0x0f, 0x00, 0x00}};

void set_palette(void)
{
    test_outb(f.t, 0x3c8, 0);
    for (unsigned n = 0; n < 256; n++)
        for (unsigned which = 0; which < 3; which++)
            test_outb(f.t, 0x3c9, component(n, which));
}

void set_mode(const struct mode *m)
{
    test_outb(f.t, 0x3c2, m->misc);
    for (uint8_t n = 0; n < sizeof(m->seq); n++)
        sequencer(n, m->seq[n]);
    crtc(0x11, 0);
    for (uint8_t n = 0; n < sizeof(m->crtc); n++)
        crtc(n, m->crtc[n]);
    for (uint8_t n = 0; n < sizeof(m->gfx); n++)
        graphics(n, m->gfx[n]);
    for (uint8_t n = 0; n < sizeof(m->attr); n++)
        attribute(n, m->attr[n]);
    set_palette();
}

/* ---- the picture ---- */

void look(void)
{
    machine_lock(f.t->machine);
    screen_refresh(f.screen);
    machine_unlock(f.t->machine);
}

uint32_t pixel(uint32_t x, uint32_t y)
{
    assert_true(x < f.surface.width && y < f.surface.height);
    return f.surface.pixels[(size_t)y * f.surface.stride + x];
}

void expect_size(uint32_t width, uint32_t height)
{
    look();
    assert_int_equal(f.surface.width, width);
    assert_int_equal(f.surface.height, height);
}

/* All pixels, against what a function of the test says. */
void expect_picture(uint32_t (*expected)(uint32_t x, uint32_t y))
{
    look();
    for (uint32_t y = 0; y < f.surface.height; y++)
        for (uint32_t x = 0; x < f.surface.width; x++)
            if (pixel(x, y) != expected(x, y))
                fail_msg("pixel %u, %u is %06x, not %06x", x, y, pixel(x, y), expected(x, y));
}

void poke(uint32_t offset, uint8_t value)
{
    test_write(f.t, WINDOW + offset, value, 1);
}

uint8_t peek(uint32_t offset)
{
    return (uint8_t)test_read(f.t, WINDOW + offset, 1);
}

uint32_t black(uint32_t x, uint32_t y)
{
    (void)x, (void)y;
    return 0;
}

uint32_t first_colour(uint32_t x, uint32_t y)
{
    (void)x, (void)y;
    return colour(0);
}

/* ---- what tests of several files start from ---- */

/* The attribute controller's palette of mode 12h. */
uint32_t colour_16(unsigned n)
{
    return colour(planar_640x480.attr[n]);
}

/* A font in which every character's rows differ. */
uint8_t glyph(unsigned code, unsigned row)
{
    return (uint8_t)(code * 29 + row * 53);
}

void load_font(uint32_t offset, uint8_t change)
{
    sequencer(2, 4);
    sequencer(4, 7);
    graphics(5, 0);
    graphics(6, 4);
    for (unsigned code = 0; code < 256; code++)
        for (unsigned row = 0; row < 16; row++)
            poke(offset + 32 * code + row, glyph(code, row) ^ change);
    sequencer(2, 3);
    sequencer(4, 2);
    graphics(5, 0x10);
    graphics(6, 0x0e);
}

void put_char(unsigned column, unsigned row, uint8_t code, uint8_t attr)
{
    test_write(f.t, TEXT_WINDOW + 2 * (row * 80 + column), code | attr << 8, 2);
}

void start_text(void)
{
    set_mode(&text_80x25);
    load_font(0, 0);
    for (unsigned n = 0; n < 80 * 25; n++)
        put_char(n % 80, n / 80, (uint8_t)(n * 7), (uint8_t)(n * 5 & 0x77));
    crtc(0x0a, 0x20); /* no cursor */
}

void set_linear(uint16_t width, uint16_t height, uint16_t bpp, uint16_t flags)
{
    dispi(4, 0);
    dispi(1, width);
    dispi(2, height);
    dispi(3, bpp);
    dispi(4, 0x41 | flags);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 0x20);
}
