/*
 * test_work.c - calls that may wait, on threads of their own
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/host.h"
#include "host/loop.h"
#include "host/work.h"

#define COUNT 1000u

struct item {
    struct work work;
    unsigned number;
    uint64_t ran_on, done_on; /* threads */
    unsigned place;           /* when it was taken up */
    bool submits, waits;
};

struct fixture {
    struct loop *loop;
    struct work_pool *pool;
    struct item items[COUNT];
    _Atomic unsigned ran;
    unsigned done;
    struct host_mutex gate; /* held by a test that wants workers to wait */
};

static struct fixture f;

static void set_up_threads(unsigned threads)
{
    struct error err = {0};

    memset(&f, 0, sizeof(f));
    host_mutex_init(&f.gate);
    f.loop = loop_new(&err);
    f.pool = work_pool_new(f.loop, threads, &err);
    assert_non_null(f.pool);
}

static int tear_down(void **state)
{
    (void)state;
    work_pool_free(f.pool);
    loop_free(f.loop);
    host_mutex_done(&f.gate);
    return 0;
}

static struct item *item_of(struct work *work)
{
    return (struct item *)work;
}

static void run(struct work *work)
{
    struct item *item = item_of(work);

    host_mutex_lock(&f.gate);
    host_mutex_unlock(&f.gate);
    item->ran_on = host_thread_self();
    item->place = atomic_fetch_add(&f.ran, 1);
}

static void submit(unsigned number);

static void done(struct work *work)
{
    struct item *item = item_of(work);

    item->done_on = host_thread_self();
    if (item->submits)
        submit(item->number + 1);
    while (item->waits && f.done < item->number) /* all before it */
        work_wait(f.pool);
    f.done++;
}

static void submit(unsigned number)
{
    struct item *item = &f.items[number];

    item->number = number;
    item->work = (struct work){.run = run, .done = done};
    work_submit(f.pool, &item->work);
}

static void loop_until_done(unsigned count)
{
    uint64_t end = host_monotonic_ns() + 20000000000ull;

    while (f.done < count && host_monotonic_ns() < end)
        loop_once(f.loop, 10000000);
    assert_int_equal(f.done, count);
}

static void work_runs_elsewhere_and_is_done_on_the_loop(void **state)
{
    (void)state;
    set_up_threads(3);
    for (unsigned n = 0; n < COUNT; n++)
        submit(n);
    assert_int_equal(f.done, 0); /* not before the loop runs */
    loop_until_done(COUNT);
    for (unsigned n = 0; n < COUNT; n++) {
        assert_true(f.items[n].ran_on && f.items[n].ran_on != host_thread_self());
        assert_int_equal(f.items[n].done_on, host_thread_self());
    }
}

static void one_thread_keeps_the_order(void **state)
{
    (void)state;
    set_up_threads(1);
    for (unsigned n = 0; n < COUNT; n++)
        submit(n);
    loop_until_done(COUNT);
    for (unsigned n = 0; n < COUNT; n++)
        assert_int_equal(f.items[n].place, n);
}

static void waiting_needs_no_loop(void **state)
{
    (void)state;
    set_up_threads(4);
    for (unsigned n = 0; n < 100; n++)
        submit(n);
    while (f.done < 100)
        work_wait(f.pool);
    loop_once(f.loop, 0); /* wakes for nothing */
    assert_int_equal(f.done, 100);
    work_wait(f.pool); /* nothing is under way */
    submit(100);
    loop_until_done(101); /* the loop is told again */
}

static void done_may_submit(void **state)
{
    (void)state;
    set_up_threads(2);
    for (unsigned n = 0; n < 99; n++)
        f.items[n].submits = true;
    submit(0);
    loop_until_done(100);
}

/* The first to be done waits for others, of which some are done too. */
static void done_may_wait(void **state)
{
    (void)state;
    set_up_threads(1);
    host_mutex_lock(&f.gate);
    f.items[9].waits = true; /* taken first */
    submit(9);
    for (unsigned n = 0; n < 9; n++)
        submit(n);
    host_mutex_unlock(&f.gate);
    while (atomic_load(&f.ran) < 10)
        usleep(1000);
    loop_until_done(10);
}

static void submit_some(void *opaque)
{
    unsigned first = *(unsigned *)opaque;

    for (unsigned n = 0; n < 250; n++)
        submit(first + n);
}

static void many_threads_submit(void **state)
{
    unsigned firsts[4] = {0, 250, 500, 750};
    struct host_thread *threads[4];
    struct error err = {0};

    (void)state;
    set_up_threads(4);
    for (unsigned n = 0; n < 4; n++)
        threads[n] = host_thread_start("submitter", submit_some, &firsts[n], &err);
    loop_until_done(COUNT);
    for (unsigned n = 0; n < 4; n++)
        host_thread_join(threads[n]);
}

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(work_runs_elsewhere_and_is_done_on_the_loop),
        TEST(one_thread_keeps_the_order),
        TEST(waiting_needs_no_loop),
        TEST(done_may_submit),
        TEST(done_may_wait),
        TEST(many_threads_submit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
