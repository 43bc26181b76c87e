/*
 * test_clock.c - clocks and timers
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/host.h"
#include "trapeze/clock.h"

#define TIMERS   200
#define START_NS (1000000000ull * NANOSECONDS_PER_SECOND)

static struct clocks *clocks;
static _Atomic unsigned changes;

struct probe {
    struct timer timer;
    uint64_t fired_at_ns;
    unsigned fired;
    uint64_t period_ns; /* re-arms itself */
};

static struct probe probes[TIMERS];
static struct probe *fired[TIMERS * 2];
static unsigned fired_count;

static void on_change(void *opaque)
{
    changes++;
}

static void on_fire(void *opaque)
{
    struct probe *probe = opaque;

    assert_false(timer_is_armed(&probe->timer));
    probe->fired_at_ns = clock_now_ns(clocks, probe->timer.clock);
    probe->fired++;
    if (fired_count < TIMERS * 2)
        fired[fired_count++] = probe;
    if (probe->period_ns)
        timer_arm(&probe->timer, probe->timer.deadline_ns + probe->period_ns);
}

static void new_clocks(bool counted, uint64_t wall_start_ns)
{
    clocks = clocks_new(&(struct clocks_config){
        .counted = counted, .wall_start_ns = wall_start_ns, .deadline_changed = on_change});
    assert_non_null(clocks);
    fired_count = 0;
    changes = 0;
    memset(probes, 0, sizeof(probes));
}

static int counted(void **state)
{
    new_clocks(true, START_NS);
    return 0;
}

static int normal(void **state)
{
    new_clocks(false, 0);
    return 0;
}

static int tear_down(void **state)
{
    for (int i = 0; i < TIMERS; i++)
        timer_done(&probes[i].timer);
    clocks_free(clocks);
    return 0;
}

static void init(struct probe *probe, enum clock_id id)
{
    timer_init(&probe->timer, clocks, id, on_fire, probe);
}

static void timers_fire_in_deadline_order(void **state)
{
    srand(1);
    for (int i = 0; i < TIMERS; i++) {
        init(&probes[i], CLOCK_ID_VIRTUAL);
        timer_arm(&probes[i].timer, 1000 + (uint64_t)(rand() % 50));
    }
    for (int i = 0; i < TIMERS; i += 3)
        timer_cancel(&probes[i].timer);
    for (int i = 0; i < TIMERS; i += 4) /* re-armed: later among equals */
        timer_arm(&probes[i].timer, 1000 + (uint64_t)(rand() % 50));
    clocks_set_counted_ns(clocks, 2000);
    clocks_run(clocks, CLOCK_ID_VIRTUAL);
    assert_int_equal(fired_count, TIMERS - (TIMERS + 2) / 3 + (TIMERS + 11) / 12);
    for (unsigned i = 1; i < fired_count; i++) {
        const struct timer *a = &fired[i - 1]->timer, *b = &fired[i]->timer;

        assert_true(a->deadline_ns < b->deadline_ns ||
                    (a->deadline_ns == b->deadline_ns && a->order < b->order));
    }
}

static void nothing_fires_early(void **state)
{
    init(&probes[0], CLOCK_ID_VIRTUAL);
    timer_arm(&probes[0].timer, 1000);
    clocks_set_counted_ns(clocks, 999);
    clocks_run(clocks, CLOCK_ID_VIRTUAL);
    assert_int_equal(fired_count, 0);
    assert_int_equal(clocks_next_deadline_ns(clocks, CLOCK_ID_VIRTUAL), 1000);
    clocks_set_counted_ns(clocks, 1000);
    clocks_run(clocks, CLOCK_ID_VIRTUAL);
    assert_int_equal(fired_count, 1);
    assert_int_equal(clocks_next_deadline_ns(clocks, CLOCK_ID_VIRTUAL), CLOCK_NEVER);
}

static void never_cancels(void **state)
{
    init(&probes[0], CLOCK_ID_VIRTUAL);
    timer_arm(&probes[0].timer, 5);
    assert_true(timer_is_armed(&probes[0].timer));
    timer_arm(&probes[0].timer, CLOCK_NEVER);
    assert_false(timer_is_armed(&probes[0].timer));
}

static void a_timer_that_was_never_initialised_is_not_armed(void **state)
{
    struct timer timer = {0};

    assert_false(timer_is_armed(&timer));
    timer_cancel(&timer);
    timer_done(&timer);
}

static void a_periodic_timer_catches_up(void **state)
{
    init(&probes[0], CLOCK_ID_VIRTUAL);
    probes[0].period_ns = 10;
    timer_arm(&probes[0].timer, 10);
    clocks_set_counted_ns(clocks, 105);
    clocks_run(clocks, CLOCK_ID_VIRTUAL);
    assert_int_equal(probes[0].fired, 10);
    assert_int_equal(probes[0].timer.deadline_ns, 110);
}

static void re_arm_in_the_past(void *opaque)
{
    struct probe *probe = opaque;

    probe->fired++;
    timer_arm(&probe->timer, 0);
}

static void a_timer_in_the_past_cannot_hang_the_loop(void **state)
{
    timer_init(&probes[0].timer, clocks, CLOCK_ID_VIRTUAL, re_arm_in_the_past, &probes[0]);
    timer_arm(&probes[0].timer, 0);
    clocks_run(clocks, CLOCK_ID_VIRTUAL);
    assert_int_equal(probes[0].fired, CLOCKS_RUN_MAX);
    assert_true(timer_is_armed(&probes[0].timer));
}

static void counted_time_is_instructions_and_skips(void **state)
{
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 0);
    clocks_set_counted_ns(clocks, 100);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 100);
    clocks_set_counted_ns(clocks, 50); /* never backwards */
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 100);
    clocks_skip_counted_to(clocks, 1100);
    clocks_skip_counted_to(clocks, 500);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 1100);
    clocks_set_counted_ns(clocks, 101); /* one more instruction */
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 1101);
    clocks_rebase_counted(clocks, 7); /* the count is another one now */
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 1101);
    clocks_set_counted_ns(clocks, 10);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 1104);
    clocks_rebase_counted(clocks, 5000); /* more instructions than time: a loaded state */
    clocks_set_counted_ns(clocks, 5001);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 1105);
}

static void counted_wall_time_is_fixed(void **state)
{
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_WALL), START_NS);
    clocks_set_counted_ns(clocks, 123);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_WALL), START_NS + 123);
    init(&probes[0], CLOCK_ID_WALL);
    timer_arm(&probes[0].timer, START_NS + 500);
    assert_int_equal(clocks_next_counted_ns(clocks), 500);
    init(&probes[1], CLOCK_ID_VIRTUAL);
    timer_arm(&probes[1].timer, 400);
    assert_int_equal(clocks_next_counted_ns(clocks), 400);
    assert_int_equal(clocks_wait_ns(clocks), CLOCK_NEVER); /* the loop has nothing to wait for */
    clocks_set_counted_ns(clocks, 500);
    clocks_run_loop(clocks);
    assert_int_equal(fired_count, 0);
    clocks_run_counted(clocks);
    assert_int_equal(fired_count, 2);
}

static void counted_clocks_start_the_same_every_time(void **state)
{
    struct clocks *one = clocks_new(&(struct clocks_config){.counted = true});
    struct clocks *two = clocks_new(&(struct clocks_config){.counted = true});

    assert_int_equal(clock_now_ns(one, CLOCK_ID_WALL), clock_now_ns(two, CLOCK_ID_WALL));
    clocks_free(one);
    clocks_free(two);
}

static void virtual_time_stands_still_while_paused(void **state)
{
    uint64_t start, end, host;

    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 0);
    clocks_resume(clocks);
    host = host_monotonic_ns();
    while (host_monotonic_ns() - host < 1000000)
        ;
    start = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
    assert_true(start >= 1000000);
    clocks_pause(clocks);
    end = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
    assert_true(end >= start);
    clocks_pause(clocks);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), end);
    clocks_resume(clocks);
    assert_true(clock_now_ns(clocks, CLOCK_ID_VIRTUAL) - end < 1000000000);
    clocks_pause(clocks);
    clocks_set_virtual_ns(clocks, 42);
    assert_int_equal(clock_now_ns(clocks, CLOCK_ID_VIRTUAL), 42);
}

/* As an engine reads it. */
static bool read_line(const struct clock_line *line, uint64_t *out_ns)
{
    uint64_t sequence = atomic_load(&line->sequence), passed;

    passed = host_ticks() - line->start_ticks;
    if (sequence & 1 || passed >= line->ticks)
        return false;
    *out_ns = line->start_ns + (passed * line->rate >> 32);
    return atomic_load(&line->sequence) == sequence;
}

static void the_line_is_virtual_time(void **state)
{
    const struct clock_line *line = clocks_line(clocks);
    uint64_t offset, last, now, by_line, paused, lines = 0, held = 0;

    assert_true(!line == !host_ticks_are_steady());
    if (!line)
        return;
    assert_false(read_line(line, &by_line));
    clocks_resume(clocks);
    do {
        now = host_monotonic_ns();
        offset = now - clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
    } while (host_monotonic_ns() - now > 20000);
    last = 0;
    do {
        uint64_t sequence = line->sequence;
        uint64_t want = host_monotonic_ns() - offset;

        now = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
        assert_true(now >= last && now + 100000 >= want);
        last = now;
        if (read_line(line, &by_line)) {
            assert_true(by_line >= last);
            last = by_line;
            held++;
        }
        assert_true(last <= host_monotonic_ns() - offset + 100000);
        lines += line->sequence != sequence;
    } while (last < 400000000);
    assert_true(lines > 3 && held > 1000);
    clocks_pause(clocks);
    paused = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
    assert_true(paused >= last);
    assert_false(read_line(line, &by_line));
    clocks_resume(clocks);
    assert_true(clock_now_ns(clocks, CLOCK_ID_VIRTUAL) - paused < 1000000000);
    while (!read_line(line, &by_line))
        clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
    assert_true(by_line >= paused);
}

static _Atomic uint64_t told_ns;

static void read_time(void *opaque)
{
    _Atomic bool *good = opaque;

    while (atomic_load(&told_ns) < 200000000) {
        uint64_t told = atomic_load(&told_ns), now = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);

        if (now < told)
            atomic_store(good, false);
        while (now > told && !atomic_compare_exchange_weak(&told_ns, &told, now))
            ;
    }
}

static void time_goes_back_for_no_thread(void **state)
{
    struct host_thread *threads[3];
    struct error err = {0};
    _Atomic bool good = true;

    atomic_store(&told_ns, 0);
    clocks_resume(clocks);
    for (int i = 0; i < 3; i++)
        threads[i] = host_thread_start("reader", read_time, &good, &err);
    for (int i = 0; i < 3; i++)
        host_thread_join(threads[i]);
    assert_true(good);
}

static void the_loop_waits_for_the_earliest(void **state)
{
    uint64_t wait;

    assert_int_equal(clocks_wait_ns(clocks), CLOCK_NEVER);
    init(&probes[0], CLOCK_ID_VIRTUAL);
    timer_arm(&probes[0].timer, 1000000000);
    assert_int_equal(clocks_wait_ns(clocks), CLOCK_NEVER); /* paused */
    clocks_resume(clocks);
    wait = clocks_wait_ns(clocks);
    assert_true(wait > 0 && wait <= 1000000000);
    init(&probes[1], CLOCK_ID_HOST);
    timer_arm(&probes[1].timer, host_monotonic_ns() + 1000);
    assert_true(clocks_wait_ns(clocks) <= 1000);
    init(&probes[2], CLOCK_ID_WALL);
    timer_arm(&probes[2].timer, 1);
    assert_int_equal(clocks_wait_ns(clocks), 0);
    while (clocks_wait_ns(clocks) == 0)
        clocks_run_loop(clocks);
    assert_int_equal(probes[2].fired, 1);
    assert_int_equal(probes[0].fired, 0);
}

static void only_an_earlier_deadline_is_told(void **state)
{
    init(&probes[0], CLOCK_ID_VIRTUAL);
    init(&probes[1], CLOCK_ID_VIRTUAL);
    timer_arm(&probes[0].timer, 1000);
    assert_int_equal(changes, 1);
    timer_arm(&probes[1].timer, 2000);
    assert_int_equal(changes, 1);
    timer_arm(&probes[1].timer, 500);
    assert_int_equal(changes, 2);
    timer_cancel(&probes[1].timer);
    assert_int_equal(changes, 2);
}

static void arm_at_random(void *opaque)
{
    unsigned seed = (unsigned)(uintptr_t)opaque;

    for (int i = 0; i < 20000; i++) {
        struct timer *timer = &probes[rand_r(&seed) % TIMERS].timer;

        if (rand_r(&seed) % 4)
            timer_arm(timer, (uint64_t)(rand_r(&seed) % 1000000));
        else
            timer_cancel(timer);
    }
}

static void count_fire(void *opaque)
{
    ((struct probe *)opaque)->fired++;
}

static void timers_may_be_armed_from_any_thread(void **state)
{
    struct host_thread *threads[3];
    struct error err = {0};
    uint64_t last = 0;

    for (int i = 0; i < TIMERS; i++)
        timer_init(&probes[i].timer, clocks, CLOCK_ID_VIRTUAL, count_fire, &probes[i]);
    clocks_resume(clocks);
    for (int i = 0; i < 3; i++)
        threads[i] = host_thread_start("armer", arm_at_random, (void *)(uintptr_t)(i + 1), &err);
    for (int i = 0; i < 2000; i++) {
        uint64_t now = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);

        assert_true(now >= last);
        last = now;
        clocks_run_loop(clocks);
        clocks_wait_ns(clocks);
    }
    for (int i = 0; i < 3; i++)
        host_thread_join(threads[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timers_fire_in_deadline_order, counted, tear_down),
        cmocka_unit_test_setup_teardown(nothing_fires_early, counted, tear_down),
        cmocka_unit_test_setup_teardown(never_cancels, counted, tear_down),
        cmocka_unit_test(a_timer_that_was_never_initialised_is_not_armed),
        cmocka_unit_test_setup_teardown(a_periodic_timer_catches_up, counted, tear_down),
        cmocka_unit_test_setup_teardown(a_timer_in_the_past_cannot_hang_the_loop, counted,
                                        tear_down),
        cmocka_unit_test_setup_teardown(counted_time_is_instructions_and_skips, counted, tear_down),
        cmocka_unit_test_setup_teardown(counted_wall_time_is_fixed, counted, tear_down),
        cmocka_unit_test(counted_clocks_start_the_same_every_time),
        cmocka_unit_test_setup_teardown(virtual_time_stands_still_while_paused, normal, tear_down),
        cmocka_unit_test_setup_teardown(the_line_is_virtual_time, normal, tear_down),
        cmocka_unit_test_setup_teardown(time_goes_back_for_no_thread, normal, tear_down),
        cmocka_unit_test_setup_teardown(the_loop_waits_for_the_earliest, normal, tear_down),
        cmocka_unit_test_setup_teardown(only_an_earlier_deadline_is_told, normal, tear_down),
        cmocka_unit_test_setup_teardown(timers_may_be_armed_from_any_thread, normal, tear_down),
    };

    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
