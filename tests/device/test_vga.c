/*
 * test_vga.c - registers, windows, states, and what a screen costs
 */
#include "vga_rig.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
