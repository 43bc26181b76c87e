/*
 * test_vga.c - modes of the VGA, set up register by register, and what its screen shows pixel by
 * pixel
 */
#include "cmocka_all.h"

#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/display.h"
#include "trapeze/pci.h"

#define RAM_BYTES   (4u << 20)
#define ECAM        0xe0000000ull
#define SLOT        2
#define VRAM        0xc0000000u
#define REGISTERS   0xc2000000u
#define WINDOW      0xa0000u
#define TEXT_WINDOW 0xb8000u
#define FRAME_NS    16700000ull

struct fixture {
    struct device_test *t;
    struct device *card;
    struct screen *screen;
    struct screen_viewer viewer;
    struct screen_surface surface;
    unsigned changes;
    struct screen_rect rect; /* the last that changed */
};

static struct fixture f;

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

static int set_up(void **state)
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

static int tear_down(void **state)
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

static void sequencer(uint8_t index, uint8_t value)
{
    set_indexed(0x3c4, index, value);
}

static void graphics(uint8_t index, uint8_t value)
{
    set_indexed(0x3ce, index, value);
}

static void crtc(uint8_t index, uint8_t value)
{
    set_indexed(0x3d4, index, value);
}

static uint8_t get_indexed(uint16_t port, uint8_t index)
{
    test_outb(f.t, port, index);
    return test_inb(f.t, port + 1);
}

static void attribute(uint8_t index, uint8_t value)
{
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, index);
    test_outb(f.t, 0x3c0, value);
    test_outb(f.t, 0x3c0, 0x20); /* the screen is on */
}

static void dispi(uint16_t index, uint16_t value)
{
    test_outw(f.t, 0x1ce, index);
    test_outw(f.t, 0x1cf, value);
}

static uint16_t dispi_get(uint16_t index)
{
    test_outw(f.t, 0x1ce, index);
    return test_inw(f.t, 0x1cf);
}

/* Colour n of the palette that the tests have, as components of 6 bits. */
static uint8_t component(unsigned n, unsigned which)
{
    return (uint8_t)((n * (5 + 2 * which) + 7 * which) & 0x3f);
}

static uint32_t colour(unsigned n)
{
    uint32_t rgb = 0;

    for (unsigned which = 0; which < 3; which++) {
        uint8_t c = component(n & 0xff, which);

        rgb = rgb << 8 | (uint8_t)(c << 2 | c >> 4);
    }
    return rgb;
}

struct mode {
    uint8_t misc, seq[5], crtc[25], gfx[9], attr[21];
};

/* As the IBM BIOS sets them. */
static const struct mode text_80x25 = {
    0x67,
    {0x03, 0x00, 0x03, 0x00, 0x02},
    {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00}};
static const struct mode cga_4_colours = {
    0x63,
    {0x03, 0x09, 0x03, 0x00, 0x02},
    {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x0f, 0x00, 0xff},
    {0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12,
     0x13, 0x14, 0x15, 0x16, 0x17, 0x01, 0x00, 0x03, 0x00, 0x00}};
static const struct mode cga_2_colours = {
    0x63,
    {0x03, 0x01, 0x01, 0x00, 0x06},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0d, 0x00, 0xff},
    {0x00, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17,
     0x17, 0x17, 0x17, 0x17, 0x17, 0x01, 0x00, 0x01, 0x00, 0x00}};
static const struct mode planar_640x480 = {
    0xe3,
    {0x03, 0x01, 0x0f, 0x00, 0x06},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0xea, 0x8c, 0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x0f, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
     0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x01, 0x00, 0x0f, 0x00, 0x00}};
static const struct mode mode_13h = {
    0x63,
    {0x03, 0x01, 0x0f, 0x00, 0x0e},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00,
     0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
    {0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x05, 0x0f, 0xff},
    {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
     0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x41, 0x00, 0x0f, 0x00, 0x00}};

static void set_palette(void)
{
    test_outb(f.t, 0x3c8, 0);
    for (unsigned n = 0; n < 256; n++)
        for (unsigned which = 0; which < 3; which++)
            test_outb(f.t, 0x3c9, component(n, which));
}

static void set_mode(const struct mode *m)
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

static void look(void)
{
    machine_lock(f.t->machine);
    screen_refresh(f.screen);
    machine_unlock(f.t->machine);
}

static uint32_t pixel(uint32_t x, uint32_t y)
{
    assert_true(x < f.surface.width && y < f.surface.height);
    return f.surface.pixels[(size_t)y * f.surface.stride + x];
}

static void expect_size(uint32_t width, uint32_t height)
{
    look();
    assert_int_equal(f.surface.width, width);
    assert_int_equal(f.surface.height, height);
}

/* All pixels, against what a function of the test says. */
static void expect_picture(uint32_t (*expected)(uint32_t x, uint32_t y))
{
    look();
    for (uint32_t y = 0; y < f.surface.height; y++)
        for (uint32_t x = 0; x < f.surface.width; x++)
            if (pixel(x, y) != expected(x, y))
                fail_msg("pixel %u, %u is %06x, not %06x", x, y, pixel(x, y), expected(x, y));
}

static void poke(uint32_t offset, uint8_t value)
{
    test_write(f.t, WINDOW + offset, value, 1);
}

static uint8_t peek(uint32_t offset)
{
    return (uint8_t)test_read(f.t, WINDOW + offset, 1);
}

static uint32_t black(uint32_t x, uint32_t y)
{
    (void)x, (void)y;
    return 0;
}

static uint32_t first_colour(uint32_t x, uint32_t y)
{
    (void)x, (void)y;
    return colour(0);
}

/* ---- 256 colours ---- */

static uint8_t pattern(uint32_t x, uint32_t y)
{
    return (uint8_t)(x * 3 + y * 7 + (x * y >> 6));
}

static uint32_t pattern_colour(uint32_t x, uint32_t y)
{
    return colour(pattern(x, y));
}

static void mode_13h_is_linear(void **state)
{
    (void)state;
    set_mode(&mode_13h);
    for (uint32_t n = 0; n < 320 * 200; n++)
        poke(n, pattern(n % 320, n / 320));
    expect_size(320, 200);
    expect_picture(pattern_colour);
    assert_int_equal(peek(321), pattern(1, 1));
    assert_int_equal(test_read(f.t, VRAM + 321, 1), pattern(1, 1));
}

static void mode_13h_is_ram_for_the_guest(void **state)
{
    struct memory *memory = machine_memory(f.t->machine);
    void *pin;

    (void)state;
    assert_null(memory_pin(memory, WINDOW, 4));
    set_mode(&mode_13h);
    pin = memory_pin(memory, WINDOW, 0x10000);
    assert_non_null(pin);
    memory_unpin(memory, pin, 0);
    assert_null(memory_pin(memory, WINDOW + 0x10000, 4));
    graphics(8, 0x0f); /* a bit mask is work */
    assert_null(memory_pin(memory, WINDOW, 4));
    poke(5, 0xff);
    assert_int_equal(peek(5), 0x0f);
    graphics(8, 0xff);
    assert_int_equal(peek(5), 0x0f);
    sequencer(2, 0x02); /* so is a plane that is left out */
    poke(4, 0x11);
    poke(5, 0x22);
    assert_int_equal(peek(4), 0);
    assert_int_equal(peek(5), 0x22);
}

static void set_mode_x(void)
{
    set_mode(&mode_13h);
    sequencer(4, 0x06);
    crtc(0x14, 0x00);
    crtc(0x17, 0xe3);
}

static void fill_mode_x(uint32_t offset, uint32_t width, uint32_t height)
{
    for (uint8_t plane = 0; plane < 4; plane++) {
        sequencer(2, (uint8_t)(1u << plane));
        for (uint32_t y = 0; y < height; y++)
            for (uint32_t x = plane; x < width; x += 4)
                poke(offset + y * width / 4 + x / 4, pattern(x, y));
    }
}

static void mode_x_has_four_planes(void **state)
{
    (void)state;
    set_mode_x();
    fill_mode_x(0, 320, 200);
    expect_size(320, 200);
    expect_picture(pattern_colour);
}

/* A wide picture, shown from (5, 3) on, over a panel from offset 0. */
#define SPLIT 150u

static uint32_t split_colour(uint32_t x, uint32_t y)
{
    return y < SPLIT ? colour(pattern(x + 5, y + 3)) : colour(0x55);
}

static void mode_x_pans_and_splits(void **state)
{
    (void)state;
    set_mode_x();
    sequencer(2, 0x0f);
    for (uint32_t n = 0; n < 0x2000; n++)
        poke(n, 0x55);
    crtc(0x13, 50); /* 400 pixels */
    fill_mode_x(0x4000, 400, 160);
    crtc(0x0c, (0x4000 + 3 * 100 + 1) >> 8);
    crtc(0x0d, (0x4000 + 3 * 100 + 1) & 0xff);
    attribute(0x13, 2); /* one pixel, and four by the address */
    attribute(0x10, 0x61);
    crtc(0x18, (2 * SPLIT - 1) & 0xff); /* scan lines are doubled */
    crtc(0x07, 0x0f | ((2 * SPLIT - 1) >> 8 & 1) << 4);
    crtc(0x09, 0x01);
    expect_size(320, 200);
    expect_picture(split_colour);
}

static void the_palette_is_masked(void **state)
{
    (void)state;
    set_mode(&mode_13h);
    poke(0, 0xf5);
    test_outb(f.t, 0x3c6, 0x0f);
    look();
    assert_int_equal(pixel(0, 0), colour(0x05));
    test_outb(f.t, 0x3c6, 0xff);
    look();
    assert_int_equal(pixel(0, 0), colour(0xf5));
}

/* ---- 16 colours ---- */

/* The attribute controller's palette of mode 12h. */
static uint32_t colour_16(unsigned n)
{
    return colour(planar_640x480.attr[n]);
}

static uint32_t planar_pattern(uint32_t x, uint32_t y)
{
    return colour_16((x / 8 + x % 8 + y) & 0xf);
}

static void planar_modes_have_16_colours(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    for (uint8_t plane = 0; plane < 4; plane++) {
        sequencer(2, (uint8_t)(1u << plane));
        for (uint32_t n = 0; n < 80 * 480; n++) {
            uint8_t bits = 0;

            for (unsigned dot = 0; dot < 8; dot++)
                bits = (uint8_t)(bits << 1 | ((n % 80 + dot + n / 80) >> plane & 1));
            poke(n, bits);
        }
    }
    expect_size(640, 480);
    expect_picture(planar_pattern);
}

/* What the four planes have at an offset. */
static uint32_t planes_at(uint32_t offset)
{
    uint32_t all = 0;

    graphics(5, 0);
    for (uint8_t plane = 0; plane < 4; plane++) {
        graphics(4, plane);
        all |= (uint32_t)peek(offset) << 8 * plane;
    }
    return all;
}

static void write_mode_0_rotates_masks_and_sets(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    graphics(3, 3);
    poke(0, 0x81);
    assert_int_equal(planes_at(0), 0x30303030);
    graphics(3, 0);
    sequencer(2, 0x05);
    poke(0, 0xff);
    assert_int_equal(planes_at(0), 0x30ff30ff);
    sequencer(2, 0x0f);
    graphics(0, 0x02); /* plane 1 is set, plane 3 reset, the others get the byte */
    graphics(1, 0x0a);
    peek(0);
    graphics(8, 0xf0);
    poke(0, 0x11);
    assert_int_equal(planes_at(0), 0x001ff01f);
}

static void logic_works_on_latches(void **state)
{
    static const uint32_t expected[4] = {0x0f0f0f0f, 0x03030303, 0x3f3f3f3f, 0x3c3c3c3c};

    (void)state;
    set_mode(&planar_640x480);
    for (uint8_t function = 0; function < 4; function++) {
        graphics(3, 0);
        poke(7, 0x33);
        peek(7);
        graphics(3, (uint8_t)(function << 3));
        poke(7, 0x0f);
        graphics(3, 0);
        assert_int_equal(planes_at(7), expected[function]);
    }
}

static void write_mode_1_copies_latches(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    for (uint8_t plane = 0; plane < 4; plane++) {
        sequencer(2, (uint8_t)(1u << plane));
        poke(100, (uint8_t)(0x11 * (plane + 1)));
    }
    sequencer(2, 0x0f);
    graphics(5, 1);
    peek(100);
    poke(200, 0);
    assert_int_equal(planes_at(200), 0x44332211);
}

static void write_mode_2_and_3_take_colours(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    poke(1, 0xff);
    peek(1);
    graphics(5, 2);
    graphics(8, 0x3c);
    poke(1, 0x09);
    assert_int_equal(planes_at(1), 0xffc3c3ff);
    graphics(8, 0xff);
    peek(1);
    graphics(5, 3); /* the byte is a mask, set/reset the colour */
    graphics(0, 0x06);
    poke(1, 0x81);
    assert_int_equal(planes_at(1), 0x7ec3c37e);
}

static void read_mode_1_compares_colours(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    sequencer(2, 1);
    poke(0, 0xf0);
    sequencer(2, 4);
    poke(0, 0x3c);
    graphics(5, 8);
    graphics(2, 0x05);
    graphics(7, 0x0f);
    assert_int_equal(peek(0), 0x30);
    graphics(7, 0x01);
    assert_int_equal(peek(0), 0xf0);
    graphics(7, 0x00);
    assert_int_equal(peek(0), 0xff);
}

static void planes_are_left_out_of_colours(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    poke(0, 0xff);
    attribute(0x12, 0x05);
    look();
    assert_int_equal(pixel(0, 0), colour_16(5));
    attribute(0x14, 0x0b); /* bits 7 and 6 of the colour */
    attribute(0x10, 0x81); /* and 5 and 4 */
    look();
    assert_int_equal(pixel(0, 0), colour(0x80 | 0x30 | (planar_640x480.attr[5] & 0xf)));
}

/* ---- CGA ---- */

static unsigned cga_pattern(uint32_t x, uint32_t y)
{
    return (x / 3 + y) & 3;
}

static uint32_t cga_4_expected(uint32_t x, uint32_t y)
{
    return colour(cga_4_colours.attr[cga_pattern(x, y)]);
}

static void cga_has_four_colours_in_two_banks(void **state)
{
    (void)state;
    set_mode(&cga_4_colours);
    for (uint32_t y = 0; y < 200; y++)
        for (uint32_t x = 0; x < 320; x += 4) {
            uint8_t byte = 0;

            for (unsigned dot = 0; dot < 4; dot++)
                byte = (uint8_t)(byte << 2 | cga_pattern(x + dot, y));
            test_write(f.t, TEXT_WINDOW + (y & 1) * 0x2000 + y / 2 * 80 + x / 4, byte, 1);
        }
    expect_size(320, 200);
    expect_picture(cga_4_expected);
}

static uint32_t cga_2_expected(uint32_t x, uint32_t y)
{
    return colour(cga_2_colours.attr[cga_pattern(x, y) & 1]);
}

static void cga_has_two_colours(void **state)
{
    (void)state;
    set_mode(&cga_2_colours);
    for (uint32_t y = 0; y < 200; y++)
        for (uint32_t x = 0; x < 640; x += 8) {
            uint8_t byte = 0;

            for (unsigned dot = 0; dot < 8; dot++)
                byte = (uint8_t)(byte << 1 | (cga_pattern(x + dot, y) & 1));
            test_write(f.t, TEXT_WINDOW + (y & 1) * 0x2000 + y / 2 * 80 + x / 8, byte, 1);
        }
    expect_size(640, 200);
    expect_picture(cga_2_expected);
}

/* ---- text ---- */

/* A font in which every character's rows differ. */
static uint8_t glyph(unsigned code, unsigned row)
{
    return (uint8_t)(code * 29 + row * 53);
}

static void load_font(uint32_t offset, uint8_t change)
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

static void put_char(unsigned column, unsigned row, uint8_t code, uint8_t attr)
{
    test_write(f.t, TEXT_WINDOW + 2 * (row * 80 + column), code | attr << 8, 2);
}

static void start_text(void)
{
    set_mode(&text_80x25);
    load_font(0, 0);
    for (unsigned n = 0; n < 80 * 25; n++)
        put_char(n % 80, n / 80, (uint8_t)(n * 7), (uint8_t)(n * 5 & 0x77));
    crtc(0x0a, 0x20); /* no cursor */
}

static uint32_t text_colour(unsigned n)
{
    return colour(text_80x25.attr[n]);
}

static uint32_t text_expected(uint32_t x, uint32_t y)
{
    unsigned n = y / 16 * 80 + x / 9, dot = x % 9;
    uint8_t code = (uint8_t)(n * 7), attr = n * 5 & 0x77, bits = glyph(code, y % 16);
    bool lit = dot < 8 ? bits >> (7 - dot) & 1 : code >= 0xc0 && code < 0xe0 && (bits & 1);

    return text_colour(lit ? attr & 0xf : attr >> 4);
}

static void text_is_drawn_from_the_font(void **state)
{
    (void)state;
    start_text();
    expect_size(720, 400);
    expect_picture(text_expected);
}

static uint32_t eight_dots_expected(uint32_t x, uint32_t y)
{
    unsigned n = y / 16 * 80 + x / 8;
    uint8_t attr = n * 5 & 0x77, bits = glyph((uint8_t)(n * 7), y % 16);

    return text_colour(bits >> (7 - x % 8) & 1 ? attr & 0xf : attr >> 4);
}

static void characters_may_have_eight_dots(void **state)
{
    (void)state;
    start_text();
    sequencer(1, 1);
    attribute(0x13, 0);
    expect_size(640, 400);
    expect_picture(eight_dots_expected);
}

static uint32_t scrolled_expected(uint32_t x, uint32_t y)
{
    return text_expected(x + 3, y + 5);
}

static void text_scrolls_smoothly(void **state)
{
    (void)state;
    start_text();
    for (unsigned n = 80 * 25; n < 80 * 27; n++) /* what comes into sight */
        put_char(n % 80, n / 80, (uint8_t)(n * 7), (uint8_t)(n * 5 & 0x77));
    crtc(0x08, 5);
    attribute(0x13, 2);
    look();
    for (uint32_t y = 0; y < 395; y++)
        for (uint32_t x = 0; x < 717; x++)
            if (pixel(x, y) != scrolled_expected(x, y))
                fail_msg("pixel %u, %u", x, y);
}

static void bit_3_chooses_the_second_font(void **state)
{
    (void)state;
    start_text();
    load_font(0x4000, 0xff); /* all inverted */
    put_char(0, 0, 'A', 0x0f);
    put_char(1, 0, 'A', 0x07);
    sequencer(3, 0x04); /* map A is 1, map B 0 */
    look();
    for (unsigned row = 0; row < 16; row++) {
        bool lit = glyph('A', row) & 0x80;

        assert_int_equal(pixel(0, row), text_colour(lit ? 0 : 15));
        assert_int_equal(pixel(9, row), text_colour(lit ? 7 : 0));
    }
}

static bool cursor_is_seen(void)
{
    look();
    return pixel(9 * 3, 16 * 2 + 13) == text_colour(7) &&
           pixel(9 * 3 + 8, 16 * 2 + 14) == text_colour(7) &&
           pixel(9 * 3, 16 * 2 + 12) == text_colour(0);
}

static void the_cursor_blinks(void **state)
{
    unsigned seen = 0, changes = 0;
    bool was;

    (void)state;
    start_text();
    for (unsigned column = 2; column < 5; column++)
        put_char(column, 2, 0, 0x07);
    load_font(0, 0);
    sequencer(2, 4);
    sequencer(4, 7);
    graphics(5, 0);
    graphics(6, 4);
    for (unsigned row = 0; row < 16; row++)
        poke(row, 0); /* character 0 is empty */
    sequencer(2, 3);
    sequencer(4, 2);
    graphics(5, 0x10);
    graphics(6, 0x0e);
    crtc(0x0a, 0x0d);
    crtc(0x0b, 0x0e);
    crtc(0x0e, (2 * 80 + 3) >> 8);
    crtc(0x0f, (2 * 80 + 3) & 0xff);
    was = cursor_is_seen();
    f.changes = 0;
    for (unsigned n = 0; n < 64; n++) {
        device_test_advance_ns(f.t, 14268600); /* a frame of 449 lines */
        seen += cursor_is_seen();
        changes += cursor_is_seen() != was;
        was = cursor_is_seen();
    }
    assert_in_range(seen, 31, 33);
    assert_in_range(changes, 7, 8);
    assert_int_equal(f.changes, changes); /* nothing was drawn in between */
    assert_int_equal(f.rect.x, 27);
    assert_int_equal(f.rect.width, 9);
    assert_int_equal(f.rect.height, 2);
}

static void characters_blink(void **state)
{
    unsigned seen = 0;

    (void)state;
    start_text();
    put_char(0, 0, 1, 0x97);
    for (unsigned n = 0; n < 64; n++) {
        device_test_advance_ns(f.t, 14268600);
        look();
        assert_true(pixel(3, 0) == text_colour(7) || pixel(3, 0) == text_colour(1));
        seen += pixel(3, 0) == text_colour(7); /* 29 is 00011101b */
    }
    assert_in_range(seen, 31, 33);
    attribute(0x10, 0x04); /* no: a bright background */
    look();
    assert_int_equal(pixel(0, 0), text_colour(9));
}

static void text_can_be_read(void **state)
{
    struct screen_text text;

    (void)state;
    start_text();
    put_char(4, 24, 'Z', 0x8e);
    crtc(0x0a, 0x0d);
    crtc(0x0e, (24 * 80 + 5) >> 8);
    crtc(0x0f, (24 * 80 + 5) & 0xff);
    assert_true(screen_text(f.screen, &text));
    assert_int_equal(text.columns, 80);
    assert_int_equal(text.rows, 25);
    assert_int_equal(text.cells[81].code, (81 * 7) & 0xff);
    assert_int_equal(text.cells[24 * 80 + 4].code, 'Z');
    assert_int_equal(text.cells[24 * 80 + 4].foreground, 14);
    assert_int_equal(text.cells[24 * 80 + 4].background, 0);
    assert_int_equal(text.cells[24 * 80 + 4].flags, SCREEN_TEXT_BLINK);
    assert_int_equal(text.colours[14], text_colour(14));
    assert_true(text.has_cursor);
    assert_int_equal(text.cursor_column, 5);
    assert_int_equal(text.cursor_row, 24);
    screen_text_done(&text);
    set_mode(&mode_13h);
    assert_false(screen_text(f.screen, &text));
}

static void fonts_have_several_heights(void **state)
{
    struct screen_text text;

    (void)state;
    start_text();
    crtc(0x11, 0x0e); /* unlocked */
    crtc(0x09, 0x47); /* 8 lines: 50 rows */
    assert_true(screen_text(f.screen, &text));
    assert_int_equal(text.rows, 50);
    screen_text_done(&text);
    look();
    assert_int_equal(
        pixel(0, 8),
        text_colour(glyph((uint8_t)(80 * 7), 0) & 0x80 ? (80 * 5) & 7 : (80 * 5) >> 4 & 7));
    sequencer(1, 8); /* half the clock: dots are doubled */
    crtc(0x01, 39);
    expect_size(720, 400);
    assert_int_equal(pixel(0, 0), pixel(1, 0));
}

/* ---- linear modes ---- */

static void set_linear(uint16_t width, uint16_t height, uint16_t bpp, uint16_t flags)
{
    dispi(4, 0);
    dispi(1, width);
    dispi(2, height);
    dispi(3, bpp);
    dispi(4, 0x41 | flags);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 0x20);
}

static void linear_modes_have_all_depths(void **state)
{
    static const struct {
        uint16_t bpp;
        uint8_t bytes;
        uint32_t value, colour;
    } depths[] = {
        {8, 1, 0x5a, 0},
        {15, 2, 0x7c1f, 0xff00ff},
        {15, 2, 0x0220, 0x008c00},
        {16, 2, 0xf81f, 0xff00ff},
        {16, 2, 0x0420, 0x008600},
        {24, 3, 0x123456, 0x123456},
        {32, 4, 0xff654321, 0x654321},
    };

    (void)state;
    set_palette();
    for (unsigned n = 0; n < sizeof(depths) / sizeof(depths[0]); n++) {
        uint32_t place = VRAM + (10 * 800 + 20) * depths[n].bytes;
        uint32_t expected = depths[n].bpp == 8 ? colour(0x5a) : depths[n].colour;

        set_linear(800, 600, depths[n].bpp, 0);
        expect_size(800, 600);
        expect_picture(depths[n].bpp == 8 ? first_colour : black);
        for (unsigned byte = 0; byte < depths[n].bytes; byte++)
            test_write(f.t, place + byte, depths[n].value >> 8 * byte, 1);
        look();
        assert_int_equal(pixel(20, 10), expected);
        assert_int_equal(f.rect.x, 20);
        assert_int_equal(f.rect.y, 10);
        assert_int_equal(f.rect.width, 1);
        assert_int_equal(f.rect.height, 1);
    }
}

static void linear_modes_scroll(void **state)
{
    (void)state;
    set_linear(640, 480, 32, 0);
    dispi(6, 1000);
    assert_int_equal(dispi_get(6), 1000);
    assert_int_equal(dispi_get(7), (16 << 20) / 4000);
    test_write(f.t, VRAM + (7 * 1000 + 50) * 4, 0xabcdef, 4);
    dispi(8, 40);
    dispi(9, 5);
    look();
    assert_int_equal(pixel(10, 2), 0xabcdef);
    dispi(6, 8); /* not less than what is shown */
    assert_int_equal(dispi_get(6), 640);
    dispi(9, 0xffff); /* nothing is there */
    expect_size(640, 1);
    assert_int_equal(pixel(0, 0), 0);
}

static void linear_modes_have_banks(void **state)
{
    (void)state;
    set_mode(&mode_13h);
    set_linear(1024, 768, 8, 0);
    dispi(5, 3);
    poke(0x123, 0x77);
    assert_int_equal(test_read(f.t, VRAM + 0x30123, 1), 0x77);
    look();
    assert_int_equal(pixel(0x123, 0x30000 / 1024), colour(0x77));
    dispi(4, 0);
    assert_int_equal(peek(0x123), 0);
}

static void planar_linear_modes_work(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    set_linear(800, 600, 4, 0);
    sequencer(2, 0x0a);
    poke(599 * 100 + 99, 0x01);
    expect_size(800, 600);
    assert_int_equal(pixel(799, 599), colour_16(0x0a));
    assert_int_equal(pixel(798, 599), colour_16(0));
}

static void a_mode_comes_up_black_unless_told(void **state)
{
    (void)state;
    test_write(f.t, VRAM + 8, 0x112233, 4);
    set_linear(640, 480, 32, 0x80);
    look();
    assert_int_equal(pixel(2, 0), 0x112233);
    set_linear(640, 480, 32, 0);
    expect_picture(black);
    test_write(f.t, VRAM + 8, 0x112233, 4);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 0x00); /* the screen is off */
    expect_picture(black);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 0x20);
    look();
    assert_int_equal(pixel(2, 0), 0x112233);
}

static void the_interface_tells_what_it_can(void **state)
{
    (void)state;
    assert_int_equal(dispi_get(0), 0xb0c5);
    dispi(0, 0xb0c0);
    assert_int_equal(dispi_get(0), 0xb0c0);
    dispi(0, 0xb0cf);
    assert_int_equal(dispi_get(0), 0xb0c0);
    assert_int_equal(dispi_get(10), 256);
    dispi(4, 2);
    assert_true(dispi_get(1) >= 1600);
    assert_true(dispi_get(2) >= 1200);
    assert_int_equal(dispi_get(3), 32);
    set_linear(1023, 20000, 32, 0);
    assert_int_equal(dispi_get(1), 1016);
    assert_int_equal(dispi_get(2), (16 << 20) / (1016 * 4));
    dispi(1, 320); /* a mode that is on stays as it is */
    assert_int_equal(dispi_get(1), 1016);
}

static void the_dac_may_have_eight_bits(void **state)
{
    (void)state;
    set_palette();
    set_linear(640, 480, 8, 0x20);
    test_outb(f.t, 0x3c7, 3);
    assert_int_equal(test_inb(f.t, 0x3c9), component(3, 0) << 2);
    test_outb(f.t, 0x3c8, 1);
    test_outb(f.t, 0x3c9, 0x81);
    test_outb(f.t, 0x3c9, 0x42);
    test_outb(f.t, 0x3c9, 0xff);
    test_write(f.t, VRAM, 1, 1);
    look();
    assert_int_equal(pixel(0, 0), 0x8142ff);
    dispi(4, 0);
    test_outb(f.t, 0x3c7, 1);
    assert_int_equal(test_inb(f.t, 0x3c9), 0x20);
}

static void registers_are_in_memory_too(void **state)
{
    uint8_t sum = 0;

    (void)state;
    assert_int_equal(test_read(f.t, REGISTERS + 0x500, 2), 0xb0c5);
    test_write(f.t, REGISTERS + 0x502, 640, 2);
    test_write(f.t, REGISTERS + 0x504, 480, 2);
    test_write(f.t, REGISTERS + 0x506, 16, 2);
    test_write(f.t, REGISTERS + 0x508, 0x41, 2);
    test_write(f.t, REGISTERS + 0x400, 0x20, 1);
    test_write(f.t, VRAM, 0x1234, 2);
    expect_size(640, 480);
    assert_int_equal(pixel(0, 0), 0x1045a5);
    assert_int_equal(test_read(f.t, REGISTERS + 0x600, 4), 8);
    assert_int_equal(test_read(f.t, REGISTERS + 0x604, 4), 0x1e1e1e1e);
    test_write(f.t, REGISTERS + 0x604, 0xbebebebe, 4);
    assert_int_equal(test_read(f.t, REGISTERS + 0x604, 4), 0xbebebebe);
    look();
    assert_int_equal(pixel(0, 0), 0x318294);
    test_write(f.t, REGISTERS + 0x404, 0x0c02, 2); /* index and data */
    assert_int_equal(get_indexed(0x3c4, 2), 0x0c);
    assert_int_equal(test_read(f.t, REGISTERS + 0x405, 1), 0x0c);
    for (unsigned n = 0; n < 128; n++)
        sum = (uint8_t)(sum + test_read(f.t, REGISTERS + n, 1));
    assert_int_equal(sum, 0);
    assert_int_equal(test_read(f.t, REGISTERS, 8), 0x00ffffffffffff00);
    assert_int_equal(test_read(f.t, REGISTERS + 56, 1), 1024 & 0xff); /* of the first timing */
    assert_int_equal(test_read(f.t, REGISTERS + 58, 1) >> 4, 1024 >> 8);
    assert_int_equal(
        test_read(f.t, REGISTERS + 59, 1) | (test_read(f.t, REGISTERS + 61, 1) >> 4) << 8, 768);
}

/* ---- registers ---- */

static void the_dac_is_read_and_written_by_threes(void **state)
{
    (void)state;
    set_palette();
    assert_int_equal(test_inb(f.t, 0x3c7), 0);
    test_outb(f.t, 0x3c7, 254);
    assert_int_equal(test_inb(f.t, 0x3c7), 3);
    for (unsigned n = 0; n < 9; n++)
        assert_int_equal(test_inb(f.t, 0x3c9), component((254 + n / 3) & 0xff, n % 3));
    test_outb(f.t, 0x3c8, 9);
    test_outb(f.t, 0x3c9, 0xff);
    test_outb(f.t, 0x3c9, 1);
    assert_int_equal(test_inb(f.t, 0x3c8), 9);
    test_outb(f.t, 0x3c7, 9);
    assert_int_equal(test_inb(f.t, 0x3c9), component(9, 0)); /* two of three change nothing */
}

static void some_registers_are_locked(void **state)
{
    (void)state;
    set_mode(&text_80x25);
    assert_int_equal(get_indexed(0x3d4, 0x11) & 0x80, 0x80);
    crtc(0x01, 0x27);
    assert_int_equal(get_indexed(0x3d4, 0x01), 0x4f);
    crtc(0x07, 0x00);
    assert_int_equal(get_indexed(0x3d4, 0x07), 0x0f); /* but for line compare's bit */
    assert_int_equal(test_inb(f.t, 0x3b5), 0xff);
    test_outb(f.t, 0x3c2, 0x66); /* monochrome */
    assert_int_equal(get_indexed(0x3b4, 0x01), 0x4f);
    assert_int_equal(test_inb(f.t, 0x3d5), 0xff);
    assert_int_equal(test_inb(f.t, 0x3cc), 0x66);
    assert_int_equal(get_indexed(0x3c4, 6), 0);
    assert_int_equal(get_indexed(0x3ce, 12), 0);
}

static void the_flip_flop_is_reset_by_the_status(void **state)
{
    (void)state;
    test_outb(f.t, 0x3c2, 1);
    attribute(5, 0x2a);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 5);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 6);
    test_outb(f.t, 0x3c0, 0x15);
    test_outb(f.t, 0x3c0, 5);
    assert_int_equal(test_inb(f.t, 0x3c1), 0x2a);
    assert_int_equal(test_inb(f.t, 0x3c0), 5);
}

static void the_beam_moves_with_time(void **state)
{
    unsigned retraces = 0, lines = 0, blank = 0, samples = 0;
    uint8_t last = test_inb(f.t, 0x3da);
    uint64_t end;

    (void)state;
    set_mode(&mode_13h);
    end = device_test_now_ns(f.t) + 1000000000;
    while (device_test_now_ns(f.t) < end) {
        uint8_t status = test_inb(f.t, 0x3da);

        retraces += (status & ~last & 8) != 0;
        lines += (status & ~last & 1) != 0;
        blank += status & 1;
        samples++;
        last = status;
        device_test_advance_ns(f.t, 5000);
    }
    assert_in_range(retraces, 69, 71);
    assert_in_range(lines / 70, 398, 402);
    assert_in_range(100 * blank / samples, 25, 35); /* 640 of 800 and 400 of 449 are seen */
}

static void windows_are_decoded(void **state)
{
    (void)state;
    set_mode(&planar_640x480);
    graphics(6, 0x0d); /* B8000h */
    poke(0x18000, 0x5a);
    assert_int_equal(peek(0x18000), 0x5a);
    assert_int_equal(peek(0), 0xff);
    graphics(6, 0x09); /* B0000h */
    assert_int_equal(peek(0x10000), 0x5a);
    assert_int_equal(peek(0x18000), 0xff);
    graphics(6, 0x01); /* all */
    assert_int_equal(peek(0), 0x5a);
    test_outb(f.t, 0x3c2, 0xe1); /* memory is off */
    assert_int_equal(peek(0), 0xff);
}

/* ---- the whole ---- */

static void an_unchanged_screen_costs_nothing(void **state)
{
    (void)state;
    set_mode(&mode_13h);
    look();
    look();
    f.changes = 0;
    for (unsigned n = 0; n < 100; n++)
        look();
    poke(5, 0); /* as it is */
    look();
    assert_int_equal(f.changes, 0);
    poke(320 * 7 + 9, 1);
    poke(320 * 8 + 8, 1);
    look();
    assert_int_equal(f.changes, 1);
    assert_int_equal(f.rect.x, 8);
    assert_int_equal(f.rect.y, 7);
    assert_int_equal(f.rect.width, 2);
    assert_int_equal(f.rect.height, 2);
}

static void a_reset_makes_it_dark(void **state)
{
    (void)state;
    set_linear(640, 480, 32, 0);
    test_write(f.t, VRAM, 0xffffff, 4);
    look();
    device_test_reset(f.t);
    expect_picture(black);
    assert_int_equal(test_inb(f.t, 0x3c6), 0xff);
    assert_int_equal(dispi_get(4), 0);
}

static void states_survive(void **state)
{
    (void)state;
    start_text();
    device_test_round_trip(f.t, f.card);
    set_mode(&mode_13h);
    set_linear(800, 600, 16, 0x20);
    dispi(5, 7);
    test_outb(f.t, 0x3c8, 1);
    test_outb(f.t, 0x3c9, 1);
    device_test_round_trip(f.t, f.card);
    expect_size(800, 600);
}

static void a_second_card_has_no_ports(void **state)
{
    struct screen *second;
    struct error err = {0};
    struct device *dev = device_new(f.t->machine, &vga_class, NULL, &err);

    (void)state;
    machine_lock(f.t->machine);
    assert_int_not_equal(device_attach(dev, &err), 0); /* both would have them */
    device_free(dev);
    machine_unlock(f.t->machine);
    device_test_add(f.t, &vga_class, "addr=4,legacy=off,memory=1");
    second = display_screen(machine_display(f.t->machine), 1);
    assert_non_null(second);
    assert_string_equal(screen_name(f.screen), "vga");
    device_test_reset(f.t);
    test_outl(f.t, 0xcf8, 0x80000000u | 4 << 11 | 8);
    assert_int_equal(test_inl(f.t, 0xcfc), 0x03800002);
}

static void properties_are_checked(void **state)
{
    static const char *const bad[] = {"memory=3", "memory=128", "xres=100", "yres=5000"};

    (void)state;
    for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        struct error err = {0};
        struct device *dev = device_new(f.t->machine, &vga_class, NULL, &err);

        assert_int_equal(properties_parse(vga_class.properties, dev, bad[n], &err), 0);
        machine_lock(f.t->machine);
        assert_int_equal(device_attach(dev, &err), -EINVAL);
        device_free(dev);
        machine_unlock(f.t->machine);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mode_13h_is_linear),
        TEST(mode_13h_is_ram_for_the_guest),
        TEST(mode_x_has_four_planes),
        TEST(mode_x_pans_and_splits),
        TEST(the_palette_is_masked),
        TEST(planar_modes_have_16_colours),
        TEST(write_mode_0_rotates_masks_and_sets),
        TEST(logic_works_on_latches),
        TEST(write_mode_1_copies_latches),
        TEST(write_mode_2_and_3_take_colours),
        TEST(read_mode_1_compares_colours),
        TEST(planes_are_left_out_of_colours),
        TEST(cga_has_four_colours_in_two_banks),
        TEST(cga_has_two_colours),
        TEST(text_is_drawn_from_the_font),
        TEST(characters_may_have_eight_dots),
        TEST(text_scrolls_smoothly),
        TEST(bit_3_chooses_the_second_font),
        TEST(the_cursor_blinks),
        TEST(characters_blink),
        TEST(text_can_be_read),
        TEST(fonts_have_several_heights),
        TEST(linear_modes_have_all_depths),
        TEST(linear_modes_scroll),
        TEST(linear_modes_have_banks),
        TEST(planar_linear_modes_work),
        TEST(a_mode_comes_up_black_unless_told),
        TEST(the_interface_tells_what_it_can),
        TEST(the_dac_may_have_eight_bits),
        TEST(registers_are_in_memory_too),
        TEST(the_dac_is_read_and_written_by_threes),
        TEST(some_registers_are_locked),
        TEST(the_flip_flop_is_reset_by_the_status),
        TEST(the_beam_moves_with_time),
        TEST(windows_are_decoded),
        TEST(an_unchanged_screen_costs_nothing),
        TEST(a_reset_makes_it_dark),
        TEST(states_survive),
        TEST(a_second_card_has_no_ports),
        TEST(properties_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
