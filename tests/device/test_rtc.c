/*
 * test_rtc.c - the MC146818: calendar, formats, SET, divider, UIP, interrupts, CMOS
 *
 * A counted machine's wall clock starts at 2024-01-01 00:00:00 UTC, a Monday.
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/rtc.h"

#define SECOND  1000000000ull
#define A       0x0a
#define B       0x0b
#define C       0x0c
#define D       0x0d
#define CENTURY 0x32

struct fixture {
    struct device_test *t;
    struct device *rtc;
    struct test_irq irq;
};

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.t = device_test_new(0)};
    f.rtc = device_test_add(f.t, &rtc_class, NULL);
    test_irq_connect(&f.irq, rtc_output(f.rtc));
    device_test_start(f.t);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(((struct fixture *)*state)->t);
    return 0;
}

static uint8_t get(struct fixture *f, uint8_t reg)
{
    test_outb(f->t, 0x70, reg);
    return test_inb(f->t, 0x71);
}

static void set(struct fixture *f, uint8_t reg, uint8_t value)
{
    test_outb(f->t, 0x70, reg);
    test_outb(f->t, 0x71, value);
}

static void wait_ns(struct fixture *f, uint64_t ns)
{
    device_test_advance_ns(f->t, ns);
}

/* Registers 9 8 7 4 2 0: date and time as one hexadecimal number. */
static uint64_t date_time(struct fixture *f)
{
    static const uint8_t registers[] = {CENTURY, 9, 8, 7, 4, 2, 0};
    uint64_t value = 0;

    for (unsigned i = 0; i < sizeof(registers); i++)
        value = value << 8 | get(f, registers[i]);
    return value;
}

static void set_date_time(struct fixture *f, uint64_t value)
{
    static const uint8_t registers[] = {0, 2, 4, 7, 8, 9, CENTURY};
    uint8_t b = get(f, B);

    set(f, B, b | 0x80);
    for (unsigned i = 0; i < sizeof(registers); i++)
        set(f, registers[i], (uint8_t)(value >> 8 * i));
    set(f, B, b);
}

static void it_starts_with_the_wall_clock(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(date_time(f), 0x20240101000000);
    assert_int_equal(get(f, 6), 2); /* Monday */
    assert_int_equal(get(f, A), 0x26);
    assert_int_equal(get(f, B), 0x02);
    assert_int_equal(get(f, D), 0x80);
    wait_ns(f, 86399 * SECOND);
    assert_int_equal(date_time(f), 0x20240101235959);
    wait_ns(f, SECOND);
    assert_int_equal(date_time(f), 0x20240102000000);
    assert_int_equal(get(f, 6), 3);
}

static void leap_years(void **state)
{
    static const struct {
        uint64_t before, after;
    } dates[] = {
        {0x20240228235959, 0x20240229000000}, {0x20230228235959, 0x20230301000000},
        {0x20000228235959, 0x20000229000000}, {0x21000228235959, 0x21000301000000},
        {0x19691231235959, 0x19700101000000}, {0x20231231235959, 0x20240101000000},
        {0x16000229235959, 0x16000301000000}, {0x99991231235959, 0x00000101000000},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(dates) / sizeof(*dates); i++) {
        set_date_time(f, dates[i].before);
        assert_int_equal(date_time(f), dates[i].before);
        wait_ns(f, SECOND);
        assert_int_equal(date_time(f), dates[i].after);
    }
}

static void binary_and_twelve_hours(void **state)
{
    struct fixture *f = *state;

    set_date_time(f, 0x20240506134759);
    set(f, B, 0x00); /* BCD, 12 hours */
    assert_int_equal(get(f, 4), 0x81);
    set(f, B, 0x04); /* binary, 12 hours */
    assert_int_equal(get(f, 4), 0x81);
    assert_int_equal(get(f, 2), 47);
    assert_int_equal(get(f, 9), 24);
    assert_int_equal(get(f, CENTURY), 20);
    set(f, 4, 12); /* 12 AM */
    set(f, B, 0x06);
    assert_int_equal(get(f, 4), 0);
    set(f, B, 0x04);
    set(f, 4, 0x80 | 12); /* 12 PM */
    set(f, B, 0x02);
    assert_int_equal(date_time(f), 0x20240506124759);
}

static void set_freezes_the_calendar(void **state)
{
    struct fixture *f = *state;

    wait_ns(f, SECOND / 4);
    set(f, B, 0x82);
    wait_ns(f, 100 * SECOND);
    assert_int_equal(get(f, 0), 0x00);
    set(f, 0, 0x30);
    assert_int_equal(get(f, 0), 0x30);
    set(f, B, 0x02);
    wait_ns(f, SECOND * 3 / 4 - 1); /* the divider ran on: seconds keep their phase */
    assert_int_equal(get(f, 0), 0x30);
    wait_ns(f, 1);
    assert_int_equal(get(f, 0), 0x31);
}

static void the_divider_starts_half_a_second_before_the_update(void **state)
{
    struct fixture *f = *state;

    wait_ns(f, SECOND / 3);
    set(f, A, 0x70);
    wait_ns(f, 10 * SECOND);
    assert_int_equal(date_time(f), 0x20240101000000);
    set(f, A, 0x26);
    wait_ns(f, SECOND / 2 - 1);
    assert_int_equal(get(f, 0), 0x00);
    wait_ns(f, 1);
    assert_int_equal(get(f, 0), 0x01);
}

static void the_weekday_is_the_guests(void **state)
{
    struct fixture *f = *state;

    set(f, 6, 7);
    assert_int_equal(get(f, 6), 7);
    wait_ns(f, 86400 * SECOND);
    assert_int_equal(get(f, 6), 1);
    assert_int_equal(date_time(f), 0x20240102000000);
}

static void uip_comes_244_us_before_the_update(void **state)
{
    struct fixture *f = *state;

    wait_ns(f, SECOND - 244001);
    assert_int_equal(get(f, A), 0x26);
    wait_ns(f, 1);
    assert_int_equal(get(f, A), 0xa6);
    assert_int_equal(get(f, 0), 0x00);
    wait_ns(f, 243999);
    assert_int_equal(get(f, A), 0xa6);
    wait_ns(f, 1);
    assert_int_equal(get(f, A), 0x26);
    assert_int_equal(get(f, 0), 0x01);
    set(f, B, 0x82); /* no updates under SET */
    wait_ns(f, SECOND - 1000);
    assert_int_equal(get(f, A), 0x26);
}

static void the_update_interrupt(void **state)
{
    struct fixture *f = *state;

    set(f, B, 0x12);
    wait_ns(f, SECOND - 1);
    assert_false(f->irq.level);
    wait_ns(f, 1);
    assert_true(f->irq.level);
    wait_ns(f, 5 * SECOND);
    assert_int_equal(f->irq.rises, 1); /* until C is read */
    assert_int_equal(get(f, C) & 0x90, 0x90);
    assert_false(f->irq.level);
    assert_int_equal(get(f, C), 0x00);
    wait_ns(f, SECOND);
    assert_int_equal(f->irq.rises, 2);
    set(f, B, 0x92); /* SET clears the enable bit */
    assert_int_equal(get(f, B), 0x82);
}

static void flags_are_set_without_interrupts(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, C), 0x00);
    wait_ns(f, SECOND + 1);
    assert_int_equal(get(f, C), 0x50);
    assert_int_equal(f->irq.calls, 1); /* of the reset */
    wait_ns(f, SECOND / 2);
    assert_int_equal(get(f, C), 0x40);
    wait_ns(f, SECOND);
    set(f, B, 0x12); /* enabling finds the flag set */
    assert_true(f->irq.level);
}

static void the_periodic_interrupt(void **state)
{
    struct fixture *f = *state;

    set(f, B, 0x42);
    for (unsigned rate = 1; rate <= 15; rate++) {
        unsigned hertz = rate < 3 ? 512u >> rate : 65536u >> rate;

        set(f, A, (uint8_t)(0x20 | rate));
        get(f, C);
        f->irq.rises = 0;
        for (unsigned n = 1; n <= 4; n++) {
            uint64_t next_ns = (n * SECOND + hertz - 1) / hertz;
            uint64_t last_ns = ((n - 1) * SECOND + hertz - 1) / hertz;

            wait_ns(f, next_ns - last_ns - 1);
            assert_int_equal(f->irq.rises, n - 1);
            wait_ns(f, 1);
            assert_int_equal(f->irq.rises, n);
            assert_int_equal(get(f, C) & 0xc0, 0xc0);
        }
        wait_ns(f, SECOND - device_test_now_ns(f->t) % SECOND);
    }
    set(f, A, 0x20); /* rate 0: none */
    get(f, C);
    f->irq.rises = 0;
    wait_ns(f, 10 * SECOND);
    assert_int_equal(f->irq.rises, 0);
}

static void the_alarm_matches_a_time(void **state)
{
    struct fixture *f = *state;

    set(f, 1, 0x30);
    set(f, 3, 0x15);
    set(f, 5, 0x06);
    set(f, B, 0x22);
    wait_ns(f, (6 * 3600 + 15 * 60 + 30) * SECOND - 1);
    assert_false(f->irq.level);
    wait_ns(f, 1);
    assert_true(f->irq.level);
    assert_int_equal(get(f, C) & 0xa0, 0xa0);
    wait_ns(f, 86400 * SECOND - 1);
    assert_int_equal(f->irq.rises, 1);
    wait_ns(f, 1);
    assert_int_equal(f->irq.rises, 2);
}

static void alarm_codes_that_match_anything(void **state)
{
    struct fixture *f = *state;

    set(f, 1, 0x10);
    set(f, 3, 0xc0); /* any minute */
    set(f, 5, 0xff); /* any hour */
    set(f, B, 0x22);
    wait_ns(f, 10 * SECOND);
    assert_int_equal(f->irq.rises, 1);
    get(f, C);
    wait_ns(f, 60 * SECOND);
    assert_int_equal(f->irq.rises, 2);
    get(f, C);
    set(f, 1, 0xff); /* every second */
    wait_ns(f, SECOND);
    assert_int_equal(f->irq.rises, 3);
    get(f, C);
    set(f, 1, 0x75); /* never */
    wait_ns(f, 200000 * SECOND);
    assert_int_equal(f->irq.rises, 3);
}

static void cmos_memory(void **state)
{
    struct fixture *f = *state;

    set(f, 0x0f, 0x5a);
    set(f, 0x7f, 0xa5);
    test_outb(f->t, 0x72, 0x0f);
    test_outb(f->t, 0x73, 0x11);
    test_outb(f->t, 0x72, 0x80); /* 128 bytes: bit 7 does not count */
    test_outb(f->t, 0x73, 0x22);
    assert_int_equal(get(f, 0x0f), 0x5a);
    assert_int_equal(get(f, 0x7f), 0xa5);
    test_outb(f->t, 0x72, 0x0f);
    assert_int_equal(test_inb(f->t, 0x73), 0x11);
    test_outb(f->t, 0x72, 0x00);
    assert_int_equal(test_inb(f->t, 0x73), 0x22);
    rtc_set_cmos(f->rtc, 0x15, 0x80);
    assert_int_equal(get(f, 0x15), 0x80);
    rtc_set_cmos(f->rtc, 0x8f, 0x33);
    test_outb(f->t, 0x72, 0x0f);
    assert_int_equal(test_inb(f->t, 0x73), 0x33);
    rtc_set_cmos(f->rtc, B, 0xff); /* not the clock's */
    rtc_set_cmos(f->rtc, 256, 0xff);
    assert_int_equal(get(f, B), 0x02);
    device_test_reset(f->t);
    assert_int_equal(get(f, 0x0f), 0x5a); /* a battery */
}

static void the_nmi_mask(void **state)
{
    struct fixture *f = *state;

    assert_false(rtc_nmi_masked(f->rtc));
    test_outb(f->t, 0x70, 0x8f);
    assert_true(rtc_nmi_masked(f->rtc));
    test_outb(f->t, 0x71, 0x42);
    assert_int_equal(get(f, 0x0f), 0x42);
    assert_false(rtc_nmi_masked(f->rtc));
    assert_int_equal(test_inb(f->t, 0x70), 0xff);
}

static void reset_keeps_the_time_and_stops_interrupts(void **state)
{
    struct fixture *f = *state;

    set_date_time(f, 0x20301112131415);
    set(f, B, 0x7a);
    wait_ns(f, SECOND);
    assert_true(f->irq.level);
    device_test_reset(f->t);
    assert_false(f->irq.level);
    assert_int_equal(get(f, B), 0x02);
    assert_int_equal(get(f, C), 0x00);
    assert_int_equal(date_time(f), 0x20301112131416);
}

static void nonsense_dates_are_survived(void **state)
{
    struct fixture *f = *state;

    set_date_time(f, 0xffffffffffffff);
    wait_ns(f, 100 * SECOND);
    date_time(f);
    set(f, B, 0x06);
    set_date_time(f, 0xffffffffffffff);
    wait_ns(f, 100 * SECOND);
    date_time(f);
    set_date_time(f, 0);
    wait_ns(f, 100 * SECOND);
    set(f, B, 0x02);
    assert_int_equal(date_time(f) & 0xffffff, 0x000140);
}

static void the_state_survives_a_round_trip(void **state)
{
    struct fixture *f = *state;

    set_date_time(f, 0x20301112131415);
    set(f, B, 0x12);
    wait_ns(f, SECOND / 2);
    device_test_round_trip(f->t, f->rtc);
    assert_int_equal(date_time(f), 0x20301112131415);
    wait_ns(f, SECOND / 2);
    assert_int_equal(date_time(f), 0x20301112131416);
    assert_true(f->irq.level);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_starts_with_the_wall_clock),
        TEST(leap_years),
        TEST(binary_and_twelve_hours),
        TEST(set_freezes_the_calendar),
        TEST(the_divider_starts_half_a_second_before_the_update),
        TEST(the_weekday_is_the_guests),
        TEST(uip_comes_244_us_before_the_update),
        TEST(the_update_interrupt),
        TEST(flags_are_set_without_interrupts),
        TEST(the_periodic_interrupt),
        TEST(the_alarm_matches_a_time),
        TEST(alarm_codes_that_match_anything),
        TEST(cmos_memory),
        TEST(the_nmi_mask),
        TEST(reset_keeps_the_time_and_stops_interrupts),
        TEST(nonsense_dates_are_survived),
        TEST(the_state_survives_a_round_trip),
    };

    return cmocka_run_group_tests_name("rtc", tests, NULL, NULL);
}
