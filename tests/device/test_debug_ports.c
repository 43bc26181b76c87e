/*
 * test_debug_ports.c - debug-exit, debug-console, pc-testdev and port 92h
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/chardev.h"

static struct device_test *t;

static int set_up(void **state)
{
    (void)state;
    t = device_test_new(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(t);
    return 0;
}

static void add(const struct device_class *class)
{
    device_test_add(t, class, NULL);
    device_test_start(t);
}

/* ---- debug-exit ---- */

static void exit_status(int expected)
{
    assert_int_equal(machine_stop_reason(t->machine), STOP_GUEST_EXIT);
    assert_int_equal(machine_stop_status(t->machine), expected);
}

static void a_byte_becomes_the_status(void **state)
{
    (void)state;
    add(&debug_exit_class);
    test_outb(t, 0xf4, 0x10);
    exit_status(0x21);
    assert_int_equal(test_inb(t, 0xf4), 0x10);
}

static void a_word_becomes_the_status(void **state)
{
    (void)state;
    add(&debug_exit_class);
    test_outw(t, 0xf4, 0x1234);
    exit_status(0x2469);
}

static void a_doubleword_becomes_a_positive_status(void **state)
{
    (void)state;
    add(&debug_exit_class);
    test_outl(t, 0xf4, 0xffffffff);
    exit_status(0x7fffffff);
}

static void the_other_ports_do_not_end_the_run(void **state)
{
    (void)state;
    add(&debug_exit_class);
    test_outb(t, 0xf5, 1);
    test_outb(t, 0xf7, 1);
    assert_int_equal(machine_stop_reason(t->machine), STOP_NONE);
}

/* ---- debug-console ---- */

static struct chardev *add_console(const char *backend)
{
    struct chardev *chardev = chardev_open(t->loop, backend, NULL);
    struct device *dev = device_test_create(t, &debug_console_class, NULL);

    device_set_pointer(dev, "chardev", chardev, NULL);
    device_test_attach(dev);
    device_test_start(t);
    return chardev;
}

static void both_ports_print_and_read_back(void **state)
{
    struct chardev *chardev = add_console("ring");
    uint8_t got[16] = {0};

    (void)state;
    assert_int_equal(test_inb(t, 0xe9), 0xe9);
    assert_int_equal(test_inb(t, 0x402), 0xe9);
    test_outb(t, 0xe9, 'a');
    test_outb(t, 0x402, 'b');
    assert_int_equal(chardev_ring_take(chardev, got, sizeof(got)), 2);
    assert_string_equal((char *)got, "ab");
    machine_lock(t->machine);
    machine_unlock(t->machine);
    device_test_free(t);
    t = NULL;
    chardev_free(chardev);
}

static void a_slow_console_is_buffered(void **state)
{
    struct chardev *chardev = add_console("ring:size=2");
    uint8_t got[64];
    size_t length = 0, more;

    (void)state;
    for (unsigned i = 0; i < 26; i++)
        test_outb(t, 0xe9, (uint8_t)('a' + i));
    machine_lock(t->machine);
    while ((more = chardev_ring_take(chardev, got + length, sizeof(got) - length)))
        length += more;
    machine_unlock(t->machine);
    assert_int_equal(length, 26);
    assert_memory_equal(got, "abcdefghijklmnopqrstuvwxyz", 26);
    device_test_free(t);
    t = NULL;
    chardev_free(chardev);
}

static void without_chardev_lines_of_any_length_are_harmless(void **state)
{
    (void)state;
    add(&debug_console_class);
    for (unsigned i = 0; i < 1000; i++)
        test_outb(t, 0xe9, (uint8_t)i);
    assert_int_equal(test_inb(t, 0xe9), 0xe9);
}

/* ---- pc-testdev ---- */

static void the_test_register_takes_all_sizes(void **state)
{
    (void)state;
    add(&pc_testdev_class);
    test_outl(t, 0xe0, 0x44332211);
    test_outb(t, 0xe1, 0xaa);
    test_outw(t, 0xe2, 0xbbcc);
    assert_int_equal(test_inl(t, 0xe0), 0xbbccaa11);
    assert_int_equal(test_inw(t, 0xe0), 0xaa11);
    assert_int_equal(test_inb(t, 0xe3), 0xbb);
    assert_int_equal(test_inb(t, 0xe8), 0x11);
    test_outb(t, 0xe8, 0x55);
    test_outl(t, 0xe4, 0x1000);
    assert_int_equal(test_inb(t, 0xe0), 0x55);
    device_test_reset(t);
    assert_int_equal(test_inl(t, 0xe0), 0);
}

static void test_memory_takes_all_sizes(void **state)
{
    (void)state;
    add(&pc_testdev_class);
    test_write(t, 0xff000000, 0x8877665544332211, 8);
    test_write(t, 0xff000003, 0xaa, 1);
    test_write(t, 0xff00fffe, 0x1234, 2);
    assert_int_equal(test_read(t, 0xff000000, 8), 0x88776655aa332211);
    assert_int_equal(test_read(t, 0xff000002, 4), 0x6655aa33);
    assert_int_equal(test_read(t, 0xff00fffe, 2), 0x1234);
    device_test_reset(t);
    assert_int_equal(test_read(t, 0xff000000, 8), 0);
}

static void interrupt_lines_follow_their_ports(void **state)
{
    struct device *dev = device_test_add(t, &pc_testdev_class, NULL);
    struct test_irq first, last;

    (void)state;
    test_irq_connect(&first, device_output(dev, "isa", 0));
    test_irq_connect(&last, device_output(dev, "isa", 15));
    device_test_start(t);
    test_outb(t, 0x200f, 1);
    assert_true(last.level);
    assert_false(first.level);
    assert_int_equal(test_inw(t, 0x200e), 0x0100);
    test_outl(t, 0x2000, 0xff);
    assert_true(first.level);
    test_outb(t, 0x200f, 0);
    assert_false(last.level);
    assert_int_equal(last.rises, 1);
    device_test_reset(t);
    assert_false(first.level);
}

/* ---- port 92h ---- */

static void port92_is_the_a20_gate(void **state)
{
    (void)state;
    add(&port92_class);
    test_outb(t, 0x92, 0x02);
    assert_true(machine_a20(t->machine));
    assert_int_equal(test_inb(t, 0x92), 0x02);
    test_outb(t, 0x92, 0xc0);
    assert_false(machine_a20(t->machine));
    assert_int_equal(test_inb(t, 0x92), 0xc0);
}

static void port92_resets_on_a_rising_bit(void **state)
{
    (void)state;
    add(&port92_class);
    test_outb(t, 0x92, 0xc2);
    test_outb(t, 0x92, 0xc3);
    device_test_loop(t);
    assert_int_equal(test_inb(t, 0x92) & 0xc1, 0);
}

static void states_round_trip(void **state)
{
    (void)state;
    add(&debug_exit_class);
    device_test_round_trip(t, device_test_add(t, &port92_class, NULL));
    device_test_round_trip(t, machine_find_device(t->machine, "debug-exit"));
    device_test_round_trip(t, device_test_add(t, &pc_testdev_class, NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_byte_becomes_the_status),
        TEST(a_word_becomes_the_status),
        TEST(a_doubleword_becomes_a_positive_status),
        TEST(the_other_ports_do_not_end_the_run),
        TEST(both_ports_print_and_read_back),
        TEST(a_slow_console_is_buffered),
        TEST(without_chardev_lines_of_any_length_are_harmless),
        TEST(the_test_register_takes_all_sizes),
        TEST(test_memory_takes_all_sizes),
        TEST(interrupt_lines_follow_their_ports),
        TEST(port92_is_the_a20_gate),
        TEST(port92_resets_on_a_rising_bit),
        TEST(states_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
