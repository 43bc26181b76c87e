/*
 * test_uart.c - 16550A: registers, FIFOs, interrupts and priorities, loopback, back-pressure
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/chardev.h"

#define BASE 0x3f8
enum { DATA = BASE, IER, IIR, LCR, MCR, LSR, MSR, SCR };

#define READY        0x01
#define OVERRUN      0x02
#define BREAK_ERRORS 0x18
#define THRE         0x20
#define TEMT         0x40

#define CHAR_NS      1041666 /* 8N1 at 9600 baud */

struct fixture {
    struct device_test *t;
    struct device *uart;
    struct chardev *chardev;
    struct test_irq irq;
};

static struct fixture f;

static int set_up_with(const char *properties, const char *backend)
{
    f = (struct fixture){.t = device_test_new(0)};
    f.chardev = chardev_open(f.t->loop, backend, NULL);
    f.uart = device_test_create(f.t, &uart16550_class, properties);
    device_set_pointer(f.uart, "chardev", f.chardev, NULL);
    device_test_attach(f.uart);
    test_irq_connect(&f.irq, device_output(f.uart, "irq", 0));
    device_test_start(f.t);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with(NULL, "ring:size=64");
}

static int set_up_small_ring(void **state)
{
    (void)state;
    return set_up_with(NULL, "ring:size=4");
}

static int set_up_paced(void **state)
{
    (void)state;
    return set_up_with("pace=on", "ring:size=64");
}

static int set_up_gated(void **state)
{
    (void)state;
    return set_up_with("out2-gates-irq=on", "ring:size=64");
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    chardev_free(f.chardev);
    return 0;
}

static uint8_t in(uint16_t port)
{
    return test_inb(f.t, port);
}

static void out(uint16_t port, uint8_t value)
{
    test_outb(f.t, port, value);
}

static size_t type(const char *text)
{
    size_t taken;

    machine_lock(f.t->machine);
    taken = chardev_ring_put(f.chardev, (const uint8_t *)text, strlen(text));
    machine_unlock(f.t->machine);
    return taken;
}

static const char *printed(void)
{
    static char text[65];
    size_t length;

    machine_lock(f.t->machine);
    length = chardev_ring_take(f.chardev, (uint8_t *)text, sizeof(text) - 1);
    machine_unlock(f.t->machine);
    text[length] = 0;
    return text;
}

static void send_break(void)
{
    machine_lock(f.t->machine);
    chardev_deliver_break(f.chardev);
    machine_unlock(f.t->machine);
}

/* ---- registers ---- */

static void reset_values_are_those_of_the_data_sheet(void **state)
{
    (void)state;
    assert_int_equal(in(IER), 0);
    assert_int_equal(in(IIR), 0x01);
    assert_int_equal(in(MCR), 0);
    assert_int_equal(in(LSR), THRE | TEMT);
    assert_false(f.irq.level);
}

static void scratch_and_masks(void **state)
{
    (void)state;
    out(SCR, 0x5a);
    assert_int_equal(in(SCR), 0x5a);
    out(IER, 0xff);
    assert_int_equal(in(IER), 0x0f);
    out(MCR, 0xef);
    assert_int_equal(in(MCR), 0x0f);
}

static void divisor_is_behind_dlab(void **state)
{
    (void)state;
    out(LCR, 0x83);
    out(DATA, 0x34);
    out(IER, 0x12);
    assert_int_equal(in(DATA), 0x34);
    assert_int_equal(in(IER), 0x12);
    out(LCR, 0x03);
    assert_int_equal(in(IER), 0);
    assert_string_equal(printed(), "");
}

static void fcr_bits_need_the_enable_bit(void **state)
{
    (void)state;
    out(IIR, 0xc0);
    assert_int_equal(in(IIR), 0x01);
    out(IIR, 0x01);
    assert_int_equal(in(IIR), 0xc1);
    out(IIR, 0x00);
    assert_int_equal(in(IIR), 0x01);
}

/* ---- sending ---- */

static void bytes_are_sent_in_order(void **state)
{
    (void)state;
    for (const char *p = "hello"; *p; p++)
        out(DATA, (uint8_t)*p);
    assert_string_equal(printed(), "hello");
    assert_int_equal(in(LSR), THRE | TEMT);
}

static void switching_on_the_thre_interrupt_raises_it_and_iir_clears_it(void **state)
{
    (void)state;
    out(IER, 0x02);
    assert_true(f.irq.level);
    assert_int_equal(in(IIR), 0x02);
    assert_false(f.irq.level);
    assert_int_equal(in(IIR), 0x01);
    /* The test that Linux's driver makes: off and on again must raise it once more. */
    out(IER, 0x00);
    out(IER, 0x02);
    assert_int_equal(in(IIR), 0x02);
}

static void each_byte_makes_a_new_thre_edge(void **state)
{
    unsigned rises;

    (void)state;
    out(IER, 0x02);
    rises = f.irq.rises;
    out(DATA, 'a');
    assert_int_equal(f.irq.rises, rises + 1);
    out(DATA, 'b');
    assert_int_equal(f.irq.rises, rises + 2);
    assert_string_equal(printed(), "ab");
}

static void a_slow_backend_loses_nothing(void **state)
{
    char got[64] = "";

    (void)state;
    out(IIR, 0x01);
    for (unsigned i = 0; i < 20; i++) /* four in the ring, sixteen in the FIFO */
        out(DATA, (uint8_t)('a' + i));
    assert_int_equal(in(LSR), 0);
    out(DATA, '!'); /* a guest that does not look at LSR loses its own byte only */
    for (unsigned i = 0; i < 8; i++)
        strcat(got, printed());
    assert_string_equal(got, "abcdefghijklmnopqrst");
    assert_int_equal(in(LSR), THRE | TEMT);
}

static void thre_comes_when_the_backend_takes_the_last_byte(void **state)
{
    (void)state;
    out(IIR, 0x01);
    out(IER, 0x02);
    in(IIR);
    for (unsigned i = 0; i < 6; i++)
        out(DATA, 'x');
    in(IIR);
    assert_int_equal(in(LSR), 0);
    assert_false(f.irq.level);
    printed();
    assert_true(f.irq.level);
    assert_int_equal(in(IIR)&0x0f, 0x02);
}

static void clearing_the_transmit_fifo_drops_what_waits(void **state)
{
    (void)state;
    out(IIR, 0x01);
    for (unsigned i = 0; i < 8; i++)
        out(DATA, (uint8_t)('a' + i));
    out(IIR, 0x05);
    assert_int_equal(in(LSR), THRE | TEMT);
    assert_string_equal(printed(), "abcd");
    assert_string_equal(printed(), "");
}

static void paced_bytes_take_a_character_time(void **state)
{
    (void)state;
    out(DATA, 'a');
    assert_int_equal(in(LSR), THRE);
    out(DATA, 'b');
    assert_int_equal(in(LSR), 0);
    assert_string_equal(printed(), "a");
    device_test_advance_ns(f.t, CHAR_NS + 1);
    assert_string_equal(printed(), "b");
    assert_int_equal(in(LSR), THRE);
    device_test_advance_ns(f.t, CHAR_NS + 1);
    assert_int_equal(in(LSR), THRE | TEMT);
}

/* ---- receiving ---- */

static void one_byte_without_fifo(void **state)
{
    (void)state;
    out(IER, 0x01);
    assert_int_equal(type("xy"), 1);
    assert_true(f.irq.level);
    assert_int_equal(in(IIR), 0x04);
    assert_int_equal(in(LSR), THRE | TEMT | READY);
    assert_int_equal(in(DATA), 'x');
    assert_false(f.irq.level);
    assert_int_equal(in(LSR), THRE | TEMT);
}

static void fifo_takes_sixteen_and_no_more(void **state)
{
    (void)state;
    out(IIR, 0x01);
    assert_int_equal(type("0123456789abcdefXYZ"), 16);
    assert_int_equal(type("X"), 0);
    for (const char *p = "0123456789abcdef"; *p; p++)
        assert_int_equal(in(DATA), *p);
    assert_int_equal(in(LSR), THRE | TEMT);
}

static void trigger_levels(void **state)
{
    static const struct {
        uint8_t fcr, level;
    } levels[] = {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xc1, 14}};

    (void)state;
    out(IER, 0x01);
    for (unsigned i = 0; i < 4; i++) {
        out(IIR, levels[i].fcr | 0x02);
        for (unsigned n = 1; n < levels[i].level; n++) {
            type("x");
            assert_false(f.irq.level);
        }
        type("x");
        assert_true(f.irq.level);
        assert_int_equal(in(IIR), 0xc4);
        in(DATA);
        assert_false(f.irq.level);
    }
}

static void few_bytes_raise_the_timeout_after_four_characters(void **state)
{
    (void)state;
    out(IIR, 0xc1);
    out(IER, 0x01);
    type("ab");
    device_test_advance_ns(f.t, 4 * CHAR_NS - 10000);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 20000);
    assert_true(f.irq.level);
    assert_int_equal(in(IIR), 0xcc);
    assert_int_equal(in(DATA), 'a');
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 5 * CHAR_NS);
    assert_int_equal(in(IIR), 0xcc);
    assert_int_equal(in(DATA), 'b');
    device_test_advance_ns(f.t, 10 * CHAR_NS);
    assert_int_equal(in(IIR), 0xc1);
}

static void character_time_follows_the_line_format(void **state)
{
    (void)state;
    out(LCR, 0x80);
    out(DATA, 1); /* 115200 baud */
    out(IER, 0);
    out(LCR, 0x00); /* 5N1: seven bits, 60.8 us */
    out(IIR, 0xc1);
    out(IER, 0x01);
    type("a");
    device_test_advance_ns(f.t, 4 * 60000);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 4 * 1000);
    assert_true(f.irq.level);
}

static void break_is_a_zero_byte_with_errors(void **state)
{
    (void)state;
    out(IIR, 0x01);
    out(IER, 0x04);
    send_break();
    assert_true(f.irq.level);
    assert_int_equal(in(IIR), 0xc6);
    assert_int_equal(in(LSR), 0x80 | THRE | TEMT | BREAK_ERRORS | READY);
    assert_false(f.irq.level);
    assert_int_equal(in(LSR), THRE | TEMT | READY);
    assert_int_equal(in(DATA), 0);
}

static void errors_show_when_their_byte_is_at_the_head(void **state)
{
    (void)state;
    out(IIR, 0x01);
    type("a");
    send_break();
    assert_int_equal(in(LSR), 0x80 | THRE | TEMT | READY);
    assert_int_equal(in(DATA), 'a');
    assert_int_equal(in(LSR), 0x80 | THRE | TEMT | READY | BREAK_ERRORS);
}

/* ---- priorities ---- */

static void interrupts_are_told_by_priority(void **state)
{
    (void)state;
    out(MCR, 0x10);
    out(IIR, 0x01);
    out(IER, 0x0f);
    in(MSR);
    in(IIR);
    out(MCR, 0x11); /* DTR: delta DSR in loopback */
    for (unsigned i = 0; i < 17; i++)
        out(DATA, 'x'); /* the last one overruns */
    assert_int_equal(in(IIR), 0xc6);
    assert_int_equal(in(LSR)&OVERRUN, OVERRUN);
    assert_int_equal(in(IIR), 0xc4);
    for (unsigned i = 0; i < 16; i++)
        in(DATA);
    assert_int_equal(in(IIR), 0xc2);
    assert_int_equal(in(IIR), 0xc0);
    assert_int_equal(in(MSR), 0x22);
    assert_int_equal(in(IIR), 0xc1);
    assert_false(f.irq.level);
}

/* ---- loopback and modem lines ---- */

static void loopback_returns_bytes_and_modem_lines(void **state)
{
    static const uint8_t lines[4][2] = {{0x01, 0x20}, {0x02, 0x10}, {0x04, 0x40}, {0x08, 0x80}};

    (void)state;
    out(MCR, 0x10);
    out(DATA, 'q');
    assert_int_equal(in(DATA), 'q');
    assert_string_equal(printed(), "");
    for (unsigned i = 0; i < 4; i++) {
        out(MCR, 0x10 | lines[i][0]);
        assert_int_equal(in(MSR)&0xf0, lines[i][1]);
    }
    out(MCR, 0x10);
    in(MSR);
    out(MCR, 0x14);
    assert_int_equal(in(MSR)&0x0f, 0); /* the ring indicator tells of its end only */
    out(MCR, 0x10);
    assert_int_equal(in(MSR)&0x0f, 0x04);
}

static void loopback_takes_no_input_and_returns_a_break(void **state)
{
    (void)state;
    out(MCR, 0x10);
    assert_int_equal(type("x"), 0);
    out(LCR, 0x43);
    assert_int_equal(in(LSR)&BREAK_ERRORS, BREAK_ERRORS);
    assert_int_equal(in(DATA), 0);
}

static void modem_lines_follow_the_peer(void **state)
{
    (void)state;
    assert_int_equal(in(MSR), 0xb0);
    out(IER, 0x08);
    machine_lock(f.t->machine);
    chardev_set_connected(f.chardev, false);
    machine_unlock(f.t->machine);
    assert_true(f.irq.level);
    assert_int_equal(in(IIR), 0x00);
    assert_int_equal(in(MSR), 0x0b);
    assert_int_equal(in(MSR), 0x00);
    assert_false(f.irq.level);
}

static void out2_gates_the_line_if_asked(void **state)
{
    (void)state;
    out(IER, 0x02);
    assert_false(f.irq.level);
    out(MCR, 0x08);
    assert_true(f.irq.level);
    out(MCR, 0x18);
    assert_false(f.irq.level);
}

/* ---- state ---- */

static void state_round_trip(void **state)
{
    (void)state;
    out(IIR, 0x81);
    out(IER, 0x0f);
    out(MCR, 0x0b);
    out(SCR, 0x77);
    type("abc");
    for (unsigned i = 0; i < 8; i++)
        out(DATA, 'x');
    device_test_round_trip(f.t, f.uart);
    assert_int_equal(in(SCR), 0x77);
    assert_int_equal(in(DATA), 'a');
    device_test_advance_ns(f.t, 10 * CHAR_NS);
    in(IIR);
    assert_int_equal(in(IIR), 0xcc);
}

#define TEST(name)          cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_WITH(name, up) cmocka_unit_test_setup_teardown(name, up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reset_values_are_those_of_the_data_sheet),
        TEST(scratch_and_masks),
        TEST(divisor_is_behind_dlab),
        TEST(fcr_bits_need_the_enable_bit),
        TEST(bytes_are_sent_in_order),
        TEST(switching_on_the_thre_interrupt_raises_it_and_iir_clears_it),
        TEST(each_byte_makes_a_new_thre_edge),
        TEST_WITH(a_slow_backend_loses_nothing, set_up_small_ring),
        TEST_WITH(thre_comes_when_the_backend_takes_the_last_byte, set_up_small_ring),
        TEST_WITH(clearing_the_transmit_fifo_drops_what_waits, set_up_small_ring),
        TEST_WITH(paced_bytes_take_a_character_time, set_up_paced),
        TEST(one_byte_without_fifo),
        TEST(fifo_takes_sixteen_and_no_more),
        TEST(trigger_levels),
        TEST(few_bytes_raise_the_timeout_after_four_characters),
        TEST(character_time_follows_the_line_format),
        TEST(break_is_a_zero_byte_with_errors),
        TEST(errors_show_when_their_byte_is_at_the_head),
        TEST(interrupts_are_told_by_priority),
        TEST(loopback_returns_bytes_and_modem_lines),
        TEST(loopback_takes_no_input_and_returns_a_break),
        TEST(modem_lines_follow_the_peer),
        TEST_WITH(out2_gates_the_line_if_asked, set_up_gated),
        TEST_WITH(state_round_trip, set_up_small_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
