/*
 * test_hpet.c - the HPET: counter, comparators, routing, legacy replacement, status
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/hpet.h"

#define CAPABILITIES    0x000
#define CONFIG          0x010
#define STATUS          0x020
#define COUNTER         0x0f0
#define TIMER_CONFIG(n) (0x100u + 0x20u * (n))
#define COMPARATOR(n)   (0x108u + 0x20u * (n))
#define FSB(n)          (0x110u + 0x20u * (n))

#define LEVEL           0x2u
#define ENABLE          0x4u
#define PERIODIC        0x8u
#define SET_VALUE       0x40u
#define BITS32          0x100u
#define ROUTE(pin)      ((pin) << 9)
#define USE_FSB         0x4000u

struct fixture {
    struct device_test *t;
    struct device *hpet;
    struct test_irq isa[16], io[24];
};

static void isa_sink(void *opaque, unsigned number, bool level)
{
    test_irq_sink(&((struct fixture *)opaque)->isa[number], 0, level);
}

static void io_sink(void *opaque, unsigned number, bool level)
{
    test_irq_sink(&((struct fixture *)opaque)->io[number], 0, level);
}

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.t = device_test_new(0)};
    f.hpet = device_test_add(f.t, &hpet_class, NULL);
    hpet_connect(f.hpet, isa_sink, &f, io_sink, &f);
    device_test_start(f.t);
    device_test_advance_ns(f.t, 12345);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(((struct fixture *)*state)->t);
    return 0;
}

static uint64_t get(struct fixture *f, uint32_t reg)
{
    return test_read(f->t, HPET_GPA + reg, 8);
}

static void set(struct fixture *f, uint32_t reg, uint64_t value)
{
    test_write(f->t, HPET_GPA + reg, value, 8);
}

static void set32(struct fixture *f, uint32_t reg, uint32_t value)
{
    test_write(f->t, HPET_GPA + reg, value, 4);
}

static void ticks(struct fixture *f, uint64_t n)
{
    device_test_advance_ns(f->t, n * 10);
}

static void identification(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, CAPABILITIES), 10000000ull << 32 | 0x8086a201);
    assert_int_equal(test_read(f->t, HPET_GPA + 4, 4), 10000000);
    assert_int_equal(get(f, TIMER_CONFIG(0)), 0x00f00000ull << 32 | 0x8030);
    assert_int_equal(get(f, TIMER_CONFIG(2)), 0x00f00800ull << 32 | 0x8030);
    set(f, CAPABILITIES, 0);
    assert_int_equal(get(f, CAPABILITIES), 10000000ull << 32 | 0x8086a201);
    assert_int_equal(get(f, TIMER_CONFIG(3)), 0);
    assert_int_equal(get(f, 0x3f8), 0);
}

static void the_counter_runs_when_enabled(void **state)
{
    struct fixture *f = *state;

    ticks(f, 100);
    assert_int_equal(get(f, COUNTER), 0);
    set(f, COUNTER, 0x1fffffff0);
    set(f, CONFIG, 1);
    ticks(f, 0x20);
    assert_int_equal(get(f, COUNTER), 0x200000010);
    assert_int_equal(test_read(f->t, HPET_GPA + COUNTER, 4), 0x10);
    assert_int_equal(test_read(f->t, HPET_GPA + COUNTER + 4, 4), 2);
    set(f, CONFIG, 0);
    ticks(f, 100);
    assert_int_equal(get(f, COUNTER), 0x200000010);
    set32(f, COUNTER + 4, 7);
    assert_int_equal(get(f, COUNTER), 0x700000010);
}

static void one_shot_fires_once_at_its_match(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | ROUTE(20));
    set(f, COMPARATOR(0), 1000);
    set(f, CONFIG, 1);
    ticks(f, 999);
    assert_int_equal(f->io[20].rises, 0);
    ticks(f, 1);
    assert_int_equal(f->io[20].rises, 1);
    assert_false(f->io[20].level); /* edge: a pulse */
    assert_int_equal(get(f, STATUS), 0);
    ticks(f, 1000000);
    assert_int_equal(f->io[20].rises, 1);
}

static void a_32_bit_one_shot_fires_again_after_wrapping(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | BITS32 | ROUTE(20));
    set(f, COMPARATOR(0), 0x5000003e8); /* the high half is cut off */
    assert_int_equal(get(f, COMPARATOR(0)), 1000);
    set(f, CONFIG, 1);
    ticks(f, 1000);
    assert_int_equal(f->io[20].rises, 1);
    ticks(f, (1ull << 32) - 1);
    assert_int_equal(f->io[20].rises, 1);
    ticks(f, 1);
    assert_int_equal(f->io[20].rises, 2);
}

static void periodic_as_systems_program_it(void **state)
{
    struct fixture *f = *state;

    set(f, CONFIG, 1);
    set32(f, TIMER_CONFIG(1), ENABLE | PERIODIC | SET_VALUE | BITS32 | ROUTE(21));
    uint32_t now = (uint32_t)get(f, COUNTER);
    set32(f, COMPARATOR(1), now + 5000);
    assert_int_equal(get(f, TIMER_CONFIG(1)) & SET_VALUE, 0);
    set32(f, COMPARATOR(1), 2000);
    assert_int_equal(get(f, COMPARATOR(1)), now + 5000);
    ticks(f, 4999);
    assert_int_equal(f->io[21].rises, 0);
    ticks(f, 1);
    assert_int_equal(f->io[21].rises, 1);
    assert_int_equal(get(f, COMPARATOR(1)), now + 7000);
    ticks(f, 2000 * 9 - 1);
    assert_int_equal(f->io[21].rises, 9);
    ticks(f, 1);
    assert_int_equal(f->io[21].rises, 10);
}

static void tiny_periods_are_survived(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | PERIODIC | SET_VALUE | ROUTE(20));
    set(f, COMPARATOR(0), 1);
    set(f, CONFIG, 1);
    ticks(f, 1000000);
    assert_in_range(f->io[20].rises, 900, 1100);
    set(f, TIMER_CONFIG(0), ENABLE | PERIODIC | SET_VALUE | ROUTE(20));
    set(f, COMPARATOR(0), 0); /* no period at all */
    ticks(f, 1000000);
}

static void level_interrupts_last_until_status_is_cleared(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(2), ENABLE | LEVEL | ROUTE(11));
    set(f, COMPARATOR(2), 100);
    set(f, CONFIG, 1);
    ticks(f, 100);
    assert_true(f->io[11].level);
    assert_int_equal(get(f, STATUS), 4);
    set(f, STATUS, 3); /* other bits */
    assert_true(f->io[11].level);
    set(f, TIMER_CONFIG(2), ENABLE | LEVEL | ROUTE(23)); /* the request moves along */
    assert_false(f->io[11].level);
    assert_true(f->io[23].level);
    set(f, STATUS, 4);
    assert_false(f->io[23].level);
    assert_int_equal(get(f, STATUS), 0);
}

static void status_is_set_without_interrupt_enable(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), LEVEL | ROUTE(20));
    set(f, COMPARATOR(0), 100);
    set(f, CONFIG, 1);
    ticks(f, 100);
    assert_int_equal(get(f, STATUS), 1);
    assert_int_equal(f->io[20].rises, 0);
}

static void a_timer_without_interrupt_wakes_nobody(void **state)
{
    struct fixture *f = *state;
    struct clocks *clocks = machine_clocks(f->t->machine);

    set(f, TIMER_CONFIG(0), PERIODIC | SET_VALUE | ROUTE(20));
    set(f, COMPARATOR(0), 5000);
    set(f, CONFIG, 1);
    assert_int_equal(clocks_next_deadline_ns(clocks, CLOCK_ID_VIRTUAL), CLOCK_NEVER);
    ticks(f, 12000);
    assert_int_equal(get(f, COMPARATOR(0)), 15000);
    set(f, TIMER_CONFIG(0), ENABLE | PERIODIC | ROUTE(20)); /* goes on as if it had been on */
    assert_int_equal(f->io[20].rises, 0);
    ticks(f, 3000);
    assert_int_equal(f->io[20].rises, 1);
}

static void unsupported_routes_are_not_taken(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | ROUTE(22));
    set(f, TIMER_CONFIG(0), ENABLE | ROUTE(11)); /* timer 2 only */
    assert_int_equal(get(f, TIMER_CONFIG(0)) & 0x3e00, ROUTE(22));
    set(f, TIMER_CONFIG(0), ENABLE | ROUTE(31));
    assert_int_equal(get(f, TIMER_CONFIG(0)) & 0x3e00, ROUTE(22));
}

static void messages_instead_of_lines(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | USE_FSB | ROUTE(20));
    set32(f, FSB(0), 0x4041);
    set32(f, FSB(0) + 4, 0xfee01000);
    set(f, COMPARATOR(0), 100);
    set(f, CONFIG, 1);
    ticks(f, 100);
    assert_int_equal(f->t->msi_count, 1);
    assert_int_equal(f->t->msi_address, 0xfee01000);
    assert_int_equal(f->t->msi_data, 0x4041);
    assert_int_equal(f->io[20].calls, 0);
}

static void legacy_replacement_cuts_off_pit_and_rtc(void **state)
{
    struct fixture *f = *state;

    hpet_sink(f->hpet, 0, true);
    hpet_sink(f->hpet, 8, true);
    assert_true(f->isa[0].level);
    assert_true(f->isa[8].level);
    set(f, TIMER_CONFIG(0), ENABLE);
    set(f, TIMER_CONFIG(1), ENABLE | LEVEL);
    set(f, COMPARATOR(0), 100);
    set(f, COMPARATOR(1), 200);
    set(f, CONFIG, 3);
    assert_false(f->isa[0].level);
    assert_false(f->isa[8].level);
    unsigned rises = f->isa[0].rises;
    hpet_sink(f->hpet, 0, false);
    hpet_sink(f->hpet, 0, true);
    assert_int_equal(f->isa[0].rises, rises);
    ticks(f, 100);
    assert_int_equal(f->isa[0].rises, rises + 1);
    ticks(f, 100);
    assert_true(f->isa[8].level);
    set(f, STATUS, 2);
    assert_false(f->isa[8].level);
    set(f, CONFIG, 1); /* the lines are theirs again */
    assert_true(f->isa[0].level);
    assert_true(f->isa[8].level);
}

static void a_moved_counter_moves_the_match(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | ROUTE(20));
    set(f, COMPARATOR(0), 1000000);
    set(f, CONFIG, 1);
    ticks(f, 10);
    set(f, CONFIG, 0);
    set(f, COUNTER, 999990);
    ticks(f, 1000);
    assert_int_equal(f->io[20].rises, 0);
    set(f, CONFIG, 1);
    ticks(f, 10);
    assert_int_equal(f->io[20].rises, 1);
}

static void a_passed_comparator_stays_silent(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | ROUTE(20));
    set(f, CONFIG, 1);
    ticks(f, 1000);
    set(f, COMPARATOR(0), 999);
    ticks(f, 1000000);
    assert_int_equal(f->io[20].rises, 0);
}

static void reset_stops_everything(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | LEVEL | ROUTE(20));
    set(f, COMPARATOR(0), 10);
    set(f, CONFIG, 3);
    set(f, TIMER_CONFIG(2), ENABLE | LEVEL | ROUTE(22));
    set(f, COMPARATOR(2), 10);
    ticks(f, 10);
    assert_true(f->io[22].level);
    device_test_reset(f->t);
    assert_false(f->io[22].level);
    assert_false(f->isa[0].level);
    assert_int_equal(get(f, CONFIG), 0);
    assert_int_equal(get(f, COUNTER), 0);
    assert_int_equal(get(f, COMPARATOR(0)), ~0ull);
}

static void the_state_survives_a_round_trip(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | PERIODIC | SET_VALUE | ROUTE(20));
    set(f, COMPARATOR(0), 3000);
    set(f, TIMER_CONFIG(2), ENABLE | LEVEL | ROUTE(22));
    set(f, COMPARATOR(2), 10);
    set(f, CONFIG, 1);
    ticks(f, 1000);
    device_test_round_trip(f->t, f->hpet);
    assert_int_equal(get(f, COUNTER), 1000);
    assert_int_equal(get(f, STATUS), 4);
    ticks(f, 2000);
    assert_int_equal(f->io[20].rises, 1);
    set(f, STATUS, 4);
    assert_false(f->io[22].level);
}

static void late_periods_are_all_reported(void **state)
{
    struct fixture *f = *state;

    set(f, TIMER_CONFIG(0), ENABLE | PERIODIC | SET_VALUE);
    set(f, COMPARATOR(0), 400000); /* 4 ms */
    set(f, COMPARATOR(0), 400000);
    set(f, CONFIG, 3); /* legacy replacement */
    device_test_starve_ns(f->t, 161000000);
    assert_int_equal(f->isa[0].rises, 40);
    device_test_advance_ns(f->t, 4000000);
    assert_int_equal(f->isa[0].rises, 41);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(late_periods_are_all_reported),
        TEST(identification),
        TEST(the_counter_runs_when_enabled),
        TEST(one_shot_fires_once_at_its_match),
        TEST(a_32_bit_one_shot_fires_again_after_wrapping),
        TEST(periodic_as_systems_program_it),
        TEST(tiny_periods_are_survived),
        TEST(level_interrupts_last_until_status_is_cleared),
        TEST(status_is_set_without_interrupt_enable),
        TEST(a_timer_without_interrupt_wakes_nobody),
        TEST(unsupported_routes_are_not_taken),
        TEST(messages_instead_of_lines),
        TEST(legacy_replacement_cuts_off_pit_and_rtc),
        TEST(a_moved_counter_moves_the_match),
        TEST(a_passed_comparator_stays_silent),
        TEST(reset_stops_everything),
        TEST(the_state_survives_a_round_trip),
    };

    return cmocka_run_group_tests_name("hpet", tests, NULL, NULL);
}
