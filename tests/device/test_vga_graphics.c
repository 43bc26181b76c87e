/*
 * test_vga_graphics.c - 256, 16 and CGA's colours, planes and latches
 */
#include "vga_rig.h"

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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
