/*
 * test_ps2.c - i8042, keyboard and mouse
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/ps2.h"

#define DATA       0x60
#define STATUS     0x64

#define FULL       0x01
#define SYSTEM     0x04
#define COMMAND    0x08
#define FROM_MOUSE 0x20

#define KEY_A      0x04
#define KEY_F7     0x40
#define KEY_PRINT  0x46
#define KEY_PAUSE  0x48
#define KEY_UP     0x52
#define KEY_LSHIFT 0xe1
#define KEY_LALT   0xe2
#define KEY_LCTRL  0xe0

#define MS         1000000ull

struct fixture {
    struct device_test *t;
    struct device *dev;
    struct test_irq keyboard, mouse;
};

static struct fixture f;

static int set_up(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(0)};
    f.dev = device_test_add(f.t, &i8042_class, NULL);
    test_irq_connect(&f.keyboard, device_output(f.dev, "keyboard_irq", 0));
    test_irq_connect(&f.mouse, device_output(f.dev, "mouse_irq", 0));
    device_test_start(f.t);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static void command(uint8_t byte)
{
    test_outb(f.t, STATUS, byte);
}

static void data(uint8_t byte)
{
    test_outb(f.t, DATA, byte);
}

static bool full(void)
{
    return test_inb(f.t, STATUS) & FULL;
}

/* The next byte after the time that a device needs for it, or -1. */
static int next(void)
{
    device_test_advance_ns(f.t, MS);
    return full() ? test_inb(f.t, DATA) : -1;
}

static void expect_bytes(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(next(), bytes[i]);
    assert_int_equal(next(), -1);
}

#define EXPECT(...)                                                                                \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        expect_bytes(bytes_, sizeof(bytes_));                                                      \
    } while (0)

static void key(uint8_t usage, bool pressed)
{
    machine_lock(f.t->machine);
    i8042_key(f.dev, usage, pressed);
    machine_unlock(f.t->machine);
}

static void move(int dx, int dy, int dz)
{
    machine_lock(f.t->machine);
    i8042_mouse_move(f.dev, dx, dy, dz);
    machine_unlock(f.t->machine);
}

static void buttons(unsigned set)
{
    machine_lock(f.t->machine);
    i8042_mouse_buttons(f.dev, set);
    machine_unlock(f.t->machine);
}

static uint8_t config(void)
{
    command(0x20);
    return (uint8_t)next();
}

static void set_config(uint8_t value)
{
    command(0x60);
    data(value);
}

/* ---- controller ---- */

static void controller_tests_itself(void **state)
{
    (void)state;
    assert_int_equal(test_inb(f.t, STATUS) & SYSTEM, 0);
    command(0xaa);
    EXPECT(0x55);
    assert_int_equal(test_inb(f.t, STATUS) & SYSTEM, SYSTEM);
    command(0xab);
    EXPECT(0x00);
    command(0xa9);
    EXPECT(0x00);
    command(0xa4);
    EXPECT(0xf1);
}

static void configuration_is_stored(void **state)
{
    (void)state;
    set_config(0x47);
    assert_int_equal(config(), 0x47);
    assert_int_equal(test_inb(f.t, STATUS) & SYSTEM, SYSTEM);
    command(0xa7);
    assert_int_equal(config(), 0x67);
    command(0xa8);
    command(0xad);
    assert_int_equal(config(), 0x57);
    command(0xae);
    assert_int_equal(config(), 0x47);
    command(0x7f);
    data(0x99);
    command(0x3f);
    EXPECT(0x99);
}

static void status_tells_commands_from_data(void **state)
{
    (void)state;
    command(0x60);
    assert_int_equal(test_inb(f.t, STATUS) & COMMAND, COMMAND);
    data(0x47);
    assert_int_equal(test_inb(f.t, STATUS) & COMMAND, 0);
}

static void answers_raise_interrupts(void **state)
{
    (void)state;
    command(0xab);
    assert_true(f.keyboard.level);
    test_inb(f.t, DATA);
    assert_false(f.keyboard.level);
    set_config(0x46); /* mouse interrupt only */
    command(0xd3);
    data(0x12);
    assert_false(f.keyboard.level);
    assert_true(f.mouse.level);
    assert_int_equal(test_inb(f.t, STATUS) & (FULL | FROM_MOUSE), FULL | FROM_MOUSE);
    assert_int_equal(test_inb(f.t, DATA), 0x12);
    assert_false(f.mouse.level);
    command(0xd2);
    data(0x34);
    assert_int_equal(test_inb(f.t, STATUS) & (FULL | FROM_MOUSE), FULL);
    EXPECT(0x34);
}

static void output_port_has_the_a20_gate(void **state)
{
    (void)state;
    assert_true(machine_a20(f.t->machine));
    command(0xd0);
    EXPECT(0xc3);
    command(0xd1);
    data(0xdd);
    assert_false(machine_a20(f.t->machine));
    command(0xd0);
    EXPECT(0xc1);
    command(0xdf);
    assert_true(machine_a20(f.t->machine));
    command(0xdd);
    assert_false(machine_a20(f.t->machine));
    device_test_reset(f.t);
    assert_true(machine_a20(f.t->machine));
}

static bool was_reset(void)
{
    bool reset;

    device_test_loop(f.t);
    reset = config() != 0x47;
    set_config(0x47);
    return reset;
}

static void pulses_and_output_port_reset(void **state)
{
    (void)state;
    set_config(0x47);
    command(0xff); /* pulse nothing */
    assert_false(was_reset());
    command(0xfe);
    assert_true(was_reset());
    command(0xf0);
    assert_true(was_reset());
    command(0xd1);
    data(0x02);
    assert_true(was_reset());
}

static void the_byte_stays_for_chained_handlers(void **state)
{
    (void)state;
    key(KEY_A, true);
    key(KEY_A, false);
    assert_int_equal(test_inb(f.t, DATA), 0x1e);
    assert_int_equal(test_inb(f.t, DATA), 0x1e);
    device_test_advance_ns(f.t, MS);
    assert_int_equal(test_inb(f.t, DATA), 0x9e);
}

static void a_disabled_keyboard_waits(void **state)
{
    (void)state;
    command(0xad);
    key(KEY_A, true);
    assert_int_equal(next(), -1);
    command(0xae);
    EXPECT(0x1e);
}

/* ---- keyboard ---- */

static void keyboard_identifies_itself(void **state)
{
    (void)state;
    set_config(0x04); /* no translation */
    data(0xf2);
    EXPECT(0xfa, 0xab, 0x83);
    set_config(0x44);
    data(0xf2);
    EXPECT(0xfa, 0xab, 0x41);
    data(0xee);
    EXPECT(0xee);
    data(0xff);
    EXPECT(0xfa, 0xaa);
    data(0xef);
    EXPECT(0xfe);
}

static void leds_are_seen_by_the_host(void **state)
{
    (void)state;
    data(0xed);
    EXPECT(0xfa);
    data(0x05);
    EXPECT(0xfa);
    assert_int_equal(i8042_leds(f.dev), INPUT_LED_SCROLL | INPUT_LED_CAPS);
    data(0xed);
    data(0xf4); /* a command instead of the argument */
    EXPECT(0xfa, 0xfa);
    assert_int_equal(i8042_leds(f.dev), INPUT_LED_SCROLL | INPUT_LED_CAPS);
}

static void resend_repeats_the_last_byte(void **state)
{
    (void)state;
    key(KEY_A, true);
    EXPECT(0x1e);
    data(0xfe);
    EXPECT(0x1e);
}

static void press_and_release(uint8_t usage)
{
    key(usage, true);
    key(usage, false);
}

static void use_set(uint8_t set)
{
    set_config(0x04);
    data(0xf0);
    EXPECT(0xfa);
    data(set);
    EXPECT(0xfa);
    data(0xf0);
    EXPECT(0xfa);
    data(0);
    EXPECT(0xfa, set);
}

static void translated_keys(void **state)
{
    (void)state;
    press_and_release(KEY_A);
    EXPECT(0x1e, 0x9e);
    press_and_release(KEY_UP);
    EXPECT(0xe0, 0x48, 0xe0, 0xc8);
    press_and_release(KEY_F7);
    EXPECT(0x41, 0xc1);
    press_and_release(KEY_PRINT);
    EXPECT(0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa);
    press_and_release(KEY_PAUSE);
    EXPECT(0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
}

static void set_1_is_what_translation_gives(void **state)
{
    (void)state;
    use_set(1);
    press_and_release(KEY_A);
    EXPECT(0x1e, 0x9e);
    press_and_release(KEY_UP);
    EXPECT(0xe0, 0x48, 0xe0, 0xc8);
    press_and_release(KEY_PAUSE);
    EXPECT(0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
}

static void set_2_is_the_default(void **state)
{
    (void)state;
    set_config(0x04);
    press_and_release(KEY_A);
    EXPECT(0x1c, 0xf0, 0x1c);
    press_and_release(KEY_UP);
    EXPECT(0xe0, 0x75, 0xe0, 0xf0, 0x75);
    press_and_release(KEY_F7);
    EXPECT(0x83, 0xf0, 0x83);
    press_and_release(KEY_PAUSE);
    EXPECT(0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77);
}

static void modified_print_screen_and_pause(void **state)
{
    (void)state;
    set_config(0x04);
    key(KEY_LSHIFT, true);
    EXPECT(0x12);
    press_and_release(KEY_PRINT);
    EXPECT(0xe0, 0x7c, 0xe0, 0xf0, 0x7c);
    key(KEY_LSHIFT, false);
    EXPECT(0xf0, 0x12);
    key(KEY_LALT, true);
    EXPECT(0x11);
    press_and_release(KEY_PRINT);
    EXPECT(0x84, 0xf0, 0x84);
    key(KEY_LALT, false);
    EXPECT(0xf0, 0x11);
    key(KEY_LCTRL, true);
    EXPECT(0x14);
    press_and_release(KEY_PAUSE);
    EXPECT(0xe0, 0x7e, 0xe0, 0xf0, 0x7e);
}

static void set_3_has_types_of_keys(void **state)
{
    (void)state;
    use_set(3);
    press_and_release(KEY_A); /* typematic: no break */
    EXPECT(0x1c);
    press_and_release(KEY_LSHIFT); /* make and break */
    EXPECT(0x12, 0xf0, 0x12);
    data(0xfc);
    EXPECT(0xfa);
    data(0x1c);
    EXPECT(0xfa);
    data(0xf4);
    EXPECT(0xfa);
    press_and_release(KEY_A);
    EXPECT(0x1c, 0xf0, 0x1c);
    data(0xf9); /* all make only */
    EXPECT(0xfa);
    press_and_release(KEY_A);
    EXPECT(0x1c);
    data(0xf6);
    EXPECT(0xfa);
    press_and_release(KEY_LSHIFT);
    EXPECT(0x12, 0xf0, 0x12);
}

static void held_keys_repeat(void **state)
{
    unsigned count = 0;

    (void)state;
    data(0xf3);
    EXPECT(0xfa);
    data(0x00); /* 250 ms, 30 a second */
    EXPECT(0xfa);
    key(KEY_A, true);
    assert_int_equal(next(), 0x1e);
    device_test_advance_ns(f.t, 245 * MS);
    assert_false(full());
    for (unsigned ms = 0; ms < 1000; ms++)
        count += next() == 0x1e;
    assert_in_range(count, 29, 31);
    key(KEY_A, false);
    EXPECT(0x9e);
    device_test_advance_ns(f.t, 1000 * MS);
    assert_false(full());
}

static void disabled_scanning_is_silent(void **state)
{
    (void)state;
    data(0xf5);
    EXPECT(0xfa);
    press_and_release(KEY_A);
    assert_int_equal(next(), -1);
    data(0xf4);
    EXPECT(0xfa);
    press_and_release(KEY_A);
    EXPECT(0x1e, 0x9e);
}

static void too_many_keys_end_in_an_overrun(void **state)
{
    int byte, last = -1;
    unsigned count = 0;

    (void)state;
    set_config(0x04);
    for (uint8_t usage = 0x04; usage < 0x1d; usage++)
        key(usage, true);
    while ((byte = next()) >= 0) {
        last = byte;
        count++;
    }
    assert_int_equal(last, 0x00);
    assert_int_equal(count, 18); /* one in the controller, sixteen in the buffer, the mark */
    machine_lock(f.t->machine);
    i8042_release_keys(f.dev);
    machine_unlock(f.t->machine);
}

static void unknown_usages_are_ignored(void **state)
{
    (void)state;
    press_and_release(0x00);
    press_and_release(0xff);
    assert_int_equal(next(), -1);
}

/* ---- mouse ---- */

static void to_mouse(uint8_t byte)
{
    command(0xd4);
    data(byte);
}

static void start_mouse(void)
{
    set_config(0x47);
    to_mouse(0xf4);
    EXPECT(0xfa);
}

static void set_rate(uint8_t rate)
{
    to_mouse(0xf3);
    EXPECT(0xfa);
    to_mouse(rate);
    EXPECT(0xfa);
}

static void mouse_resets_and_identifies_itself(void **state)
{
    (void)state;
    to_mouse(0xff);
    assert_int_equal(test_inb(f.t, STATUS) & FROM_MOUSE, FROM_MOUSE);
    EXPECT(0xfa, 0xaa, 0x00);
    to_mouse(0xf2);
    EXPECT(0xfa, 0x00);
    to_mouse(0x17);
    EXPECT(0xfe);
}

static void movement_is_reported(void **state)
{
    (void)state;
    start_mouse();
    move(5, -3, 0);
    device_test_advance_ns(f.t, MS);
    assert_true(f.mouse.level);
    EXPECT(0x28, 0x05, 0xfd);
    assert_false(f.mouse.level);
    buttons(INPUT_BUTTON_LEFT | INPUT_BUTTON_MIDDLE);
    device_test_advance_ns(f.t, 10 * MS);
    EXPECT(0x0d, 0x00, 0x00);
}

static void big_movements_take_several_reports(void **state)
{
    (void)state;
    start_mouse();
    move(300, 0, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(next(), ((const uint8_t[]){0x08, 0xff, 0x00})[i]);
    device_test_advance_ns(f.t, 10 * MS);
    EXPECT(0x08, 45, 0x00);
}

static void reports_keep_to_the_sample_rate(void **state)
{
    unsigned count = 0;

    (void)state;
    start_mouse();
    set_rate(20);
    for (unsigned ms = 0; ms < 1000; ms++) {
        move(1, 0, 0);
        count += next() >= 0;
    }
    assert_in_range(count, 3 * 19, 3 * 21);
}

static void a_quick_click_is_two_reports(void **state)
{
    (void)state;
    start_mouse();
    move(1, 0, 0);
    EXPECT(0x08, 0x01, 0x00);
    buttons(INPUT_BUTTON_LEFT);
    buttons(0);
    device_test_advance_ns(f.t, 20 * MS);
    assert_int_equal(next(), 0x09);
    next();
    next();
    device_test_advance_ns(f.t, 20 * MS);
    EXPECT(0x08, 0x00, 0x00);
}

static void the_knock_makes_a_wheel(void **state)
{
    (void)state;
    start_mouse();
    set_rate(200);
    set_rate(100);
    set_rate(80);
    to_mouse(0xf2);
    EXPECT(0xfa, 0x03);
    move(0, 0, -1);
    EXPECT(0x08, 0x00, 0x00, 0xff);
}

static void the_other_knock_makes_five_buttons(void **state)
{
    (void)state;
    start_mouse();
    set_rate(200);
    set_rate(200);
    set_rate(80);
    to_mouse(0xf2);
    EXPECT(0xfa, 0x04);
    buttons(INPUT_BUTTON_SIDE | INPUT_BUTTON_EXTRA);
    move(0, 0, 2);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(next(), ((const uint8_t[]){0x08, 0x00, 0x00, 0x30})[i]);
    device_test_advance_ns(f.t, 20 * MS);
    EXPECT(0x08, 0x00, 0x00, 0x32);
}

static void status_resolution_and_scaling(void **state)
{
    (void)state;
    to_mouse(0xe8);
    EXPECT(0xfa);
    to_mouse(0x03);
    EXPECT(0xfa);
    to_mouse(0xe8);
    EXPECT(0xfa);
    to_mouse(0x04);
    EXPECT(0xfe);
    set_rate(40);
    to_mouse(0xe7);
    EXPECT(0xfa);
    to_mouse(0xf4);
    EXPECT(0xfa);
    buttons(INPUT_BUTTON_RIGHT);
    device_test_advance_ns(f.t, 20 * MS);
    EXPECT(0x0a, 0x00, 0x00);
    to_mouse(0xe9);
    EXPECT(0xfa, 0x31, 0x03, 40);
    device_test_advance_ns(f.t, 100 * MS);
    move(3, 5, 0);
    EXPECT(0x0a, 0x03, 0x09);
}

static void remote_mode_reports_when_asked(void **state)
{
    (void)state;
    to_mouse(0xf0);
    EXPECT(0xfa);
    move(7, 0, 0);
    device_test_advance_ns(f.t, 100 * MS);
    assert_int_equal(next(), -1);
    to_mouse(0xeb);
    EXPECT(0xfa, 0x08, 0x07, 0x00);
    to_mouse(0xea);
    EXPECT(0xfa);
}

static void wrap_mode_echoes(void **state)
{
    (void)state;
    to_mouse(0xee);
    EXPECT(0xfa);
    to_mouse(0xf2);
    EXPECT(0xf2);
    to_mouse(0x55);
    EXPECT(0x55);
    to_mouse(0xec);
    EXPECT(0xfa);
    to_mouse(0xf2);
    EXPECT(0xfa, 0x00);
}

static void what_people_do_reaches_keyboard_and_mouse(void **state)
{
    struct input *input = machine_input(f.t->machine);
    const uint8_t down_a[] = {0x1e}, report[] = {0x29, 5, 0xfb};

    (void)state;
    machine_lock(f.t->machine);
    input_key(input, KEY_A, true);
    machine_unlock(f.t->machine);
    expect_bytes(down_a, sizeof(down_a));
    start_mouse();
    machine_lock(f.t->machine);
    input_release(input);
    input_buttons(input, INPUT_BUTTON_LEFT);
    machine_unlock(f.t->machine);
    while (next() >= 0)
        ;
    machine_lock(f.t->machine);
    input_pointer_at(input, 100, 100, 640, 480);
    input_pointer_at(input, 105, 105, 640, 480);
    machine_unlock(f.t->machine);
    device_test_advance_ns(f.t, 10 * MS);
    expect_bytes(report, sizeof(report));
}

static void state_round_trip(void **state)
{
    (void)state;
    set_config(0x47);
    to_mouse(0xf4);
    key(KEY_A, true);
    move(1000, -1000, 3);
    command(0xd4);
    device_test_round_trip(f.t, f.dev);
    assert_int_equal(next(), 0xfa);
    assert_int_equal(next(), 0x1e);
    assert_int_equal(next(), 0x28);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(controller_tests_itself),
        TEST(configuration_is_stored),
        TEST(status_tells_commands_from_data),
        TEST(answers_raise_interrupts),
        TEST(output_port_has_the_a20_gate),
        TEST(pulses_and_output_port_reset),
        TEST(the_byte_stays_for_chained_handlers),
        TEST(a_disabled_keyboard_waits),
        TEST(keyboard_identifies_itself),
        TEST(leds_are_seen_by_the_host),
        TEST(resend_repeats_the_last_byte),
        TEST(translated_keys),
        TEST(set_1_is_what_translation_gives),
        TEST(set_2_is_the_default),
        TEST(modified_print_screen_and_pause),
        TEST(set_3_has_types_of_keys),
        TEST(held_keys_repeat),
        TEST(disabled_scanning_is_silent),
        TEST(too_many_keys_end_in_an_overrun),
        TEST(unknown_usages_are_ignored),
        TEST(mouse_resets_and_identifies_itself),
        TEST(movement_is_reported),
        TEST(big_movements_take_several_reports),
        TEST(reports_keep_to_the_sample_rate),
        TEST(a_quick_click_is_two_reports),
        TEST(the_knock_makes_a_wheel),
        TEST(the_other_knock_makes_five_buttons),
        TEST(status_resolution_and_scaling),
        TEST(remote_mode_reports_when_asked),
        TEST(wrap_mode_echoes),
        TEST(what_people_do_reaches_keyboard_and_mouse),
        TEST(state_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
