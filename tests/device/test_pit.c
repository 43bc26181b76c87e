/*
 * test_pit.c - the 8254: modes, gates, byte order, latches, BCD, exact time, port 0x61
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/pit.h"

struct fixture {
    struct device_test *t;
    struct device *pit;
    struct test_irq irq;
};

/* Nanoseconds at which clock tick n begins. */
static uint64_t tick_ns(uint64_t n)
{
    return (n * 1000000000ull + PIT_HZ - 1) / PIT_HZ;
}

static uint64_t now_tick(struct fixture *f)
{
    return (uint64_t)((unsigned __int128)device_test_now_ns(f->t) * PIT_HZ / 1000000000u);
}

/* Go on to n ticks from the current one. */
static void ticks(struct fixture *f, uint64_t n)
{
    device_test_advance_ns(f->t, tick_ns(now_tick(f) + n) - device_test_now_ns(f->t));
}

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.t = device_test_new(0)};
    f.pit = device_test_add(f.t, &pit_class, NULL);
    test_irq_connect(&f.irq, pit_output(f.pit));
    device_test_start(f.t);
    ticks(&f, 1000);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(((struct fixture *)*state)->t);
    return 0;
}

static void program(struct fixture *f, unsigned channel, uint8_t mode, uint16_t count)
{
    test_outb(f->t, 0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    test_outb(f->t, (uint16_t)(0x40 + channel), (uint8_t)count);
    test_outb(f->t, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t latch(struct fixture *f, unsigned channel)
{
    test_outb(f->t, 0x43, (uint8_t)(channel << 6));
    uint8_t low = test_inb(f->t, (uint16_t)(0x40 + channel));

    return (uint16_t)(low | test_inb(f->t, (uint16_t)(0x40 + channel)) << 8);
}

static uint8_t status(struct fixture *f, unsigned channel)
{
    test_outb(f->t, 0x43, (uint8_t)(0xe0 | 2u << channel));
    return test_inb(f->t, (uint16_t)(0x40 + channel));
}

static bool out2(struct fixture *f)
{
    return test_inb(f->t, 0x61) & 0x20;
}

static void gate2(struct fixture *f, bool level)
{
    test_outb(f->t, 0x61, level);
}

static void mode0_interrupts_on_terminal_count(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 0, 100);
    assert_false(f->irq.level);
    ticks(f, 1);
    assert_int_equal(latch(f, 0), 100);
    ticks(f, 99);
    assert_int_equal(latch(f, 0), 1);
    assert_int_equal(f->irq.rises, 0);
    ticks(f, 1); /* N + 1 ticks after the write */
    assert_int_equal(f->irq.rises, 1);
    assert_int_equal(latch(f, 0), 0);
    ticks(f, 1);
    assert_int_equal(latch(f, 0), 0xffff);
    ticks(f, 200000);
    assert_int_equal(f->irq.rises, 1);
    assert_true(f->irq.level);
}

static void mode0_the_first_byte_stops_it(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 0, 100);
    ticks(f, 50);
    test_outb(f->t, 0x40, 20);
    ticks(f, 1000);
    assert_false(f->irq.level);
    test_outb(f->t, 0x40, 0);
    ticks(f, 20);
    assert_false(f->irq.level);
    ticks(f, 1);
    assert_true(f->irq.level);
}

static void mode0_the_gate_stops_it(void **state)
{
    struct fixture *f = *state;

    program(f, 2, 0, 100); /* gate is low */
    ticks(f, 500);
    assert_false(out2(f));
    assert_int_equal(latch(f, 2), 100);
    gate2(f, true);
    ticks(f, 40);
    assert_int_equal(latch(f, 2), 60);
    gate2(f, false);
    ticks(f, 500);
    assert_int_equal(latch(f, 2), 60);
    gate2(f, true);
    ticks(f, 59);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
}

static void mode1_is_a_retriggerable_one_shot(void **state)
{
    struct fixture *f = *state;

    program(f, 2, 1, 10);
    assert_true(out2(f));
    ticks(f, 100);
    assert_true(out2(f));
    gate2(f, true);
    ticks(f, 1);
    assert_false(out2(f));
    gate2(f, false);
    ticks(f, 5);
    assert_int_equal(latch(f, 2), 5);
    gate2(f, true); /* again */
    ticks(f, 10);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
}

static void mode2_divides(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 1000);
    ticks(f, 1);
    assert_true(f->irq.level);
    f->irq.rises = 0;
    for (unsigned i = 1; i <= 5; i++) {
        ticks(f, 999);
        assert_int_equal(latch(f, 0), 1);
        assert_int_equal(status(f, 0) & 0x80, 0); /* OUT is low for one tick */
        assert_int_equal(f->irq.rises, i - 1);
        ticks(f, 1);
        assert_int_equal(latch(f, 0), 1000);
        assert_int_equal(status(f, 0) & 0x80, 0x80);
        assert_int_equal(f->irq.rises, i);
    }
}

static void mode2_does_not_drift(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932);
    uint64_t start = now_tick(f) + 1;
    ticks(f, 1);
    f->irq.rises = 0;
    device_test_advance_ns(f->t, 3600ull * 1000000000u);
    assert_int_equal(f->irq.rises, (now_tick(f) - start) / 11932);
    assert_int_equal(now_tick(f) - start, 3600ull * PIT_HZ);
}

static void mode2_a_new_count_waits_for_the_end(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 1000);
    ticks(f, 1);
    f->irq.rises = 0;
    ticks(f, 300);
    test_outb(f->t, 0x40, 0xd0); /* 2000 */
    test_outb(f->t, 0x40, 0x07);
    assert_int_equal(status(f, 0) & 0x40, 0x40); /* null count */
    assert_int_equal(latch(f, 0), 700);
    ticks(f, 700);
    assert_int_equal(f->irq.rises, 1);
    assert_int_equal(latch(f, 0), 2000);
    assert_int_equal(status(f, 0) & 0x40, 0);
    ticks(f, 1999);
    assert_int_equal(f->irq.rises, 1);
    ticks(f, 1);
    assert_int_equal(f->irq.rises, 2);
}

static void mode2_the_gate_restarts(void **state)
{
    struct fixture *f = *state;

    gate2(f, true);
    program(f, 2, 2, 100);
    ticks(f, 1 + 30);
    gate2(f, false);
    assert_true(out2(f));
    ticks(f, 500);
    assert_true(out2(f));
    assert_int_equal(latch(f, 2), 70);
    gate2(f, true);
    ticks(f, 1);
    assert_int_equal(latch(f, 2), 100);
    ticks(f, 99);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
}

static void mode3_is_a_square_wave(void **state)
{
    struct fixture *f = *state;

    gate2(f, true);
    program(f, 2, 3, 10);
    ticks(f, 1);
    for (unsigned i = 0; i < 30; i++) {
        assert_int_equal(out2(f), i % 10 < 5);
        assert_int_equal(latch(f, 2), 10 - 2 * (i % 5));
        ticks(f, 1);
    }
    program(f, 2, 3, 5); /* odd: high for 3, low for 2 */
    ticks(f, 1);
    static const uint16_t values[] = {4, 2, 0, 4, 2};
    for (unsigned i = 0; i < 15; i++) {
        assert_int_equal(out2(f), i % 5 < 3);
        assert_int_equal(latch(f, 2), values[i % 5]);
        ticks(f, 1);
    }
}

static void mode3_a_new_count_waits_for_the_half(void **state)
{
    struct fixture *f = *state;

    gate2(f, true);
    program(f, 2, 3, 100);
    ticks(f, 1 + 20);
    test_outb(f->t, 0x42, 20);
    test_outb(f->t, 0x42, 0);
    ticks(f, 29);
    assert_true(out2(f));
    ticks(f, 1); /* the old half ends; now low for 10 */
    assert_false(out2(f));
    ticks(f, 9);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
    ticks(f, 10);
    assert_false(out2(f));
}

static void mode3_raises_the_interrupt_once_a_period(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 3, 0); /* 65536: 18.2 Hz */
    ticks(f, 1);
    f->irq.rises = f->irq.falls = 0;
    ticks(f, 32767);
    assert_int_equal(f->irq.falls, 0);
    ticks(f, 1);
    assert_int_equal(f->irq.falls, 1);
    ticks(f, 32767);
    assert_int_equal(f->irq.rises, 0);
    ticks(f, 1);
    assert_int_equal(f->irq.rises, 1);
    ticks(f, 65536 * 10);
    assert_int_equal(f->irq.rises, 11);
    assert_int_equal(f->irq.falls, 11);
}

static void mode4_strobes_after_the_count(void **state)
{
    struct fixture *f = *state;

    gate2(f, true);
    program(f, 2, 4, 10);
    ticks(f, 10);
    assert_true(out2(f));
    ticks(f, 1);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
    ticks(f, 70000); /* not again when it wraps */
    assert_true(out2(f));
    program(f, 0, 4, 1000);
    f->irq.rises = 0;
    ticks(f, 1001);
    assert_int_equal(f->irq.rises, 0);
    ticks(f, 1);
    assert_int_equal(f->irq.rises, 1);
    ticks(f, 200000);
    assert_int_equal(f->irq.rises, 1);
}

static void mode5_strobes_after_the_trigger(void **state)
{
    struct fixture *f = *state;

    program(f, 2, 5, 10);
    ticks(f, 100);
    gate2(f, true);
    ticks(f, 10);
    assert_true(out2(f));
    ticks(f, 1);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
}

static void bcd_counts_in_decimal(void **state)
{
    struct fixture *f = *state;

    gate2(f, true);
    test_outb(f->t, 0x43, 0xb1); /* channel 2, both bytes, mode 0, BCD */
    test_outb(f->t, 0x42, 0x00);
    test_outb(f->t, 0x42, 0x20);
    ticks(f, 2);
    assert_int_equal(latch(f, 2), 0x1999);
    ticks(f, 1999);
    assert_int_equal(latch(f, 2), 0x0000);
    assert_true(out2(f));
    ticks(f, 1);
    assert_int_equal(latch(f, 2), 0x9999);
    test_outb(f->t, 0x42, 0x00); /* zero is 10000 */
    test_outb(f->t, 0x42, 0x00);
    ticks(f, 10000);
    assert_false(out2(f));
    ticks(f, 1);
    assert_true(out2(f));
}

static void single_byte_access(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x43, 0x10); /* channel 0, low byte only, mode 0 */
    test_outb(f->t, 0x40, 0x80);
    ticks(f, 1);
    assert_int_equal(test_inb(f->t, 0x40), 0x80);
    assert_int_equal(test_inb(f->t, 0x40), 0x80);
    test_outb(f->t, 0x43, 0x20); /* high byte only */
    test_outb(f->t, 0x40, 0x12);
    ticks(f, 2);
    assert_int_equal(test_inb(f->t, 0x40), 0x11);
}

static void a_latch_holds_until_it_is_read(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 0x5000);
    ticks(f, 1);
    test_outb(f->t, 0x43, 0x00);
    ticks(f, 0x321);
    test_outb(f->t, 0x43, 0x00); /* a second latch is ignored */
    assert_int_equal(test_inb(f->t, 0x40), 0x00);
    ticks(f, 1);
    assert_int_equal(test_inb(f->t, 0x40), 0x50);
    /* live again: 0x5000 - 0x322 */
    assert_int_equal(test_inb(f->t, 0x40), 0xde);
    assert_int_equal(test_inb(f->t, 0x40), 0x4c);
}

static void read_back_latches_status_and_count(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 0x1234);
    test_outb(f->t, 0x43, 0xc2);                  /* both, channel 0 */
    assert_int_equal(test_inb(f->t, 0x40), 0xf4); /* OUT, null count, both bytes, mode 2 */
    assert_int_equal(test_inb(f->t, 0x40), 0x34);
    assert_int_equal(test_inb(f->t, 0x40), 0x12);
    ticks(f, 1);
    test_outb(f->t, 0x43, 0xee); /* status of all */
    assert_int_equal(test_inb(f->t, 0x40), 0xb4);
    assert_int_equal(test_inb(f->t, 0x41) & 0x40, 0x40); /* nothing loaded there */
    assert_int_equal(test_inb(f->t, 0x42) & 0x40, 0x40);
    assert_int_equal(test_inb(f->t, 0x43), 0xff);
}

static void port61_shows_gate_refresh_and_out(void **state)
{
    struct fixture *f = *state;
    unsigned changes = 0;
    uint8_t before = test_inb(f->t, 0x61) & 0x10;

    test_outb(f->t, 0x61, 0xff);
    assert_int_equal(test_inb(f->t, 0x61) & 0x0f, 0x0f);
    test_outb(f->t, 0x61, 0x02);
    assert_int_equal(test_inb(f->t, 0x61) & 0x0f, 0x02);
    for (unsigned i = 0; i < 1000; i++) {
        device_test_advance_ns(f->t, 1000);
        changes += (test_inb(f->t, 0x61) & 0x10) != before;
        before = test_inb(f->t, 0x61) & 0x10;
    }
    assert_in_range(changes, 66, 67); /* every 15.085 us of a millisecond */
}

static void counts_of_one_are_survived(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 1);
    ticks(f, 10000);
    program(f, 0, 3, 1);
    ticks(f, 10000);
    program(f, 0, 0, 1);
    ticks(f, 2);
    assert_true(f->irq.level);
}

static void the_state_survives_a_round_trip(void **state)
{
    struct fixture *f = *state;

    gate2(f, true);
    program(f, 0, 2, 1000);
    program(f, 2, 3, 500);
    ticks(f, 123);
    test_outb(f->t, 0x40, 0x11);
    device_test_round_trip(f->t, f->pit);
    test_outb(f->t, 0x40, 0x00); /* the second byte of 0x11 */
    f->irq.rises = 0;
    ticks(f, 1000 - 122 - 1);
    assert_int_equal(f->irq.rises, 0);
    ticks(f, 1);
    assert_int_equal(f->irq.rises, 1);
    ticks(f, 0x11);
    assert_int_equal(f->irq.rises, 2);
    assert_int_equal(test_inb(f->t, 0x61) & 1, 1);
}

/* Linux counts ticks to see that the timer is connected at all. */
static void late_ticks_are_all_reported(void **state)
{
    struct fixture *f = *state;
    const uint8_t modes[] = {2, 3};

    for (unsigned n = 0; n < sizeof(modes); n++) {
        program(f, 0, modes[n], 4773); /* 250 Hz */
        ticks(f, 1 + 4773 + 10);
        f->irq.rises = 0;
        device_test_starve_ns(f->t, 161000000); /* 40.2 periods */
        assert_int_equal(f->irq.rises, 40);
        ticks(f, 4773);
        assert_int_equal(f->irq.rises, 41);
    }
    /* A limit, periods that are too short, and what happens once */
    device_test_starve_ns(f->t, 1000000000000);
    assert_int_equal(f->irq.rises, 1041);
    program(f, 0, 2, 100);
    ticks(f, 101);
    f->irq.rises = 0;
    device_test_starve_ns(f->t, 1000000);
    assert_int_equal(f->irq.rises, 1);
    program(f, 0, 0, 1000);
    f->irq.rises = 0;
    device_test_starve_ns(f->t, 100000000);
    assert_int_equal(f->irq.rises, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mode0_interrupts_on_terminal_count),
        TEST(mode0_the_first_byte_stops_it),
        TEST(mode0_the_gate_stops_it),
        TEST(mode1_is_a_retriggerable_one_shot),
        TEST(mode2_divides),
        TEST(mode2_does_not_drift),
        TEST(mode2_a_new_count_waits_for_the_end),
        TEST(mode2_the_gate_restarts),
        TEST(mode3_is_a_square_wave),
        TEST(mode3_a_new_count_waits_for_the_half),
        TEST(mode3_raises_the_interrupt_once_a_period),
        TEST(late_ticks_are_all_reported),
        TEST(mode4_strobes_after_the_count),
        TEST(mode5_strobes_after_the_trigger),
        TEST(bcd_counts_in_decimal),
        TEST(single_byte_access),
        TEST(a_latch_holds_until_it_is_read),
        TEST(read_back_latches_status_and_count),
        TEST(port61_shows_gate_refresh_and_out),
        TEST(counts_of_one_are_survived),
        TEST(the_state_survives_a_round_trip),
    };

    return cmocka_run_group_tests_name("pit", tests, NULL, NULL);
}
