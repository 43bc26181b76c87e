/*
 * test_vga_linear.c - the linear modes of the dispi interface
 */
#include "vga_rig.h"

/* ---- linear modes ---- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(linear_modes_have_all_depths),      TEST(linear_modes_scroll),
        TEST(linear_modes_have_banks),           TEST(planar_linear_modes_work),
        TEST(a_mode_comes_up_black_unless_told), TEST(the_interface_tells_what_it_can),
        TEST(the_dac_may_have_eight_bits),       TEST(registers_are_in_memory_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
