/*
 * test_loop.c - the main loop
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/host.h"
#include "host/loop.h"

struct fixture {
    struct loop *loop;
    int pipe[2];
    struct loop_fd *handler;
    unsigned calls, events;
    char order[16];
    size_t order_length;
    _Atomic bool finished;
    _Atomic uint64_t wait_ns;
    unsigned timer_rounds;
    bool locked, called_unlocked;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    struct error err = {0};

    memset(&fixture, 0, sizeof(fixture));
    fixture.loop = loop_new(&err);
    *state = &fixture;
    return !fixture.loop || pipe(fixture.pipe);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    loop_free(f->loop);
    close(f->pipe[0]);
    close(f->pipe[1]);
    return 0;
}

static void on_event(void *opaque, unsigned events)
{
    struct fixture *f = opaque;

    f->calls++;
    f->events = events;
    f->called_unlocked |= !f->locked;
}

static void read_one(void *opaque, unsigned events)
{
    struct fixture *f = opaque;
    char c;

    on_event(opaque, events);
    if (read(f->pipe[0], &c, 1) == 1 && f->order_length < sizeof(f->order) - 1)
        f->order[f->order_length++] = c;
}

static void a_readable_file_calls_its_handler(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    f->handler = loop_add_fd(f->loop, f->pipe[0], LOOP_READ, read_one, f, &err);
    assert_non_null(f->handler);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 0);
    assert_int_equal(write(f->pipe[1], "x", 1), 1);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 1);
    assert_int_equal(f->events, LOOP_READ);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 1);
}

static void events_can_be_switched_off_and_on(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    f->handler = loop_add_fd(f->loop, f->pipe[1], LOOP_WRITE, on_event, f, &err);
    loop_once(f->loop, 0);
    assert_int_equal(f->events, LOOP_WRITE);
    loop_set_events(f->handler, 0);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 1);
    loop_set_events(f->handler, LOOP_WRITE);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 2);
}

static void hang_up_is_told_to_who_asks(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    f->handler = loop_add_fd(f->loop, f->pipe[0], LOOP_READ | LOOP_HANGUP, on_event, f, &err);
    close(f->pipe[1]);
    loop_once(f->loop, 0);
    assert_true(f->events & LOOP_HANGUP);
    loop_set_events(f->handler, LOOP_READ);
    loop_once(f->loop, 0);
    assert_int_equal(f->events, LOOP_READ); /* and finds out by reading */
    f->pipe[1] = open("/dev/null", O_RDWR);
}

static void files_that_never_block_are_always_ready(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    FILE *file = tmpfile();

    f->handler = loop_add_fd(f->loop, fileno(file), LOOP_READ, on_event, f, &err);
    assert_non_null(f->handler);
    loop_once(f->loop, UINT64_MAX);
    loop_once(f->loop, UINT64_MAX);
    assert_int_equal(f->calls, 2);
    assert_int_equal(f->events, LOOP_READ);
    loop_remove_fd(f->handler);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 2);
    fclose(file);
}

static void a_bad_file_is_refused(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    assert_null(loop_add_fd(f->loop, 99999, LOOP_READ, on_event, f, &err));
    assert_int_equal(err.code, EBADF);
}

static void remove_self(void *opaque, unsigned events)
{
    struct fixture *f = opaque;

    f->calls++;
    loop_remove_fd(f->handler);
    f->handler = NULL;
}

static void a_handler_may_remove_itself(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    f->handler = loop_add_fd(f->loop, f->pipe[1], LOOP_WRITE, remove_self, f, &err);
    loop_once(f->loop, 0);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 1);
    loop_remove_fd(NULL);
}

struct pair {
    struct loop_fd *handlers[2];
    unsigned calls;
};

static void remove_both(void *opaque, unsigned events)
{
    struct pair *pair = opaque;

    pair->calls++;
    for (int i = 0; i < 2; i++) {
        loop_remove_fd(pair->handlers[i]);
        pair->handlers[i] = NULL;
    }
}

static void a_removed_handler_is_not_called_in_the_same_round(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    struct pair pair = {0};
    int second = dup(f->pipe[1]);

    pair.handlers[0] = loop_add_fd(f->loop, f->pipe[1], LOOP_WRITE, remove_both, &pair, &err);
    pair.handlers[1] = loop_add_fd(f->loop, second, LOOP_WRITE, remove_both, &pair, &err);
    loop_once(f->loop, 0);
    assert_int_equal(pair.calls, 1);
    close(second);
}

static void append(struct fixture *f, char c)
{
    f->order[f->order_length++] = c;
}

static void append_c(void *opaque)
{
    append(opaque, 'c');
}

static void append_a(void *opaque)
{
    struct fixture *f = opaque;

    append(f, 'a');
    loop_defer(f->loop, append_c, f);
}

static void append_b(void *opaque)
{
    append(opaque, 'b');
}

static void deferred_calls_keep_their_order(void **state)
{
    struct fixture *f = *state;

    loop_defer(f->loop, append_a, f);
    loop_defer(f->loop, append_b, f);
    loop_once(f->loop, UINT64_MAX);
    assert_string_equal(f->order, "ab");
    loop_once(f->loop, UINT64_MAX);
    assert_string_equal(f->order, "abc");
}

static void count_call(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void take_back(void *opaque)
{
    struct fixture *f = opaque;

    loop_undefer(f->loop, &f->calls);
}

/* As who is freed has to, also by a call of the same round. */
static void deferred_calls_can_be_taken_back(void **state)
{
    struct fixture *f = *state;

    loop_defer(f->loop, count_call, &f->calls);
    loop_defer(f->loop, append_b, f);
    take_back(f);
    loop_once(f->loop, UINT64_MAX);
    loop_defer(f->loop, take_back, f);
    loop_defer(f->loop, count_call, &f->calls);
    loop_defer(f->loop, append_b, f);
    loop_once(f->loop, UINT64_MAX);
    assert_int_equal(f->calls, 0);
    assert_string_equal(f->order, "bb");
}

static void deferred_calls_left_over_are_freed(void **state)
{
    struct fixture *f = *state;

    loop_defer(f->loop, append_a, f); /* the leak checker watches */
}

static uint64_t wait_hook(void *opaque)
{
    return ((struct fixture *)opaque)->wait_ns;
}

static void timers_hook(void *opaque)
{
    struct fixture *f = opaque;

    f->timer_rounds++;
    f->called_unlocked |= !f->locked;
    if (f->wait_ns != UINT64_MAX)
        f->finished = true;
}

static void lock_hook(void *opaque)
{
    ((struct fixture *)opaque)->locked = true;
}

static void unlock_hook(void *opaque)
{
    ((struct fixture *)opaque)->locked = false;
}

static bool finished_hook(void *opaque)
{
    return ((struct fixture *)opaque)->finished;
}

static void set_hooks(struct fixture *f)
{
    loop_set_hooks(f->loop, &(struct loop_hooks){.wait_ns = wait_hook,
                                                 .run_timers = timers_hook,
                                                 .lock = lock_hook,
                                                 .unlock = unlock_hook,
                                                 .finished = finished_hook,
                                                 .opaque = f});
}

static void handlers_are_called_with_the_lock(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    set_hooks(f);
    f->handler = loop_add_fd(f->loop, f->pipe[1], LOOP_WRITE, on_event, f, &err);
    loop_once(f->loop, 0);
    assert_int_equal(f->calls, 1);
    assert_int_equal(f->timer_rounds, 1);
    assert_false(f->called_unlocked);
    assert_false(f->locked);
}

static void the_loop_sleeps_as_long_as_the_hook_says(void **state)
{
    struct fixture *f = *state;
    uint64_t start = host_monotonic_ns();

    set_hooks(f);
    f->wait_ns = 3000000;
    loop_run(f->loop);
    assert_true(host_monotonic_ns() - start >= 3000000);
    assert_int_equal(f->timer_rounds, 1);
}

static void wake_and_finish(void *opaque)
{
    struct fixture *f = opaque;

    for (int i = 0; i < 1000; i++) /* to hit the loop awake and asleep */
        loop_wake(f->loop);
    f->finished = true;
    loop_wake(f->loop);
}

static void a_wake_from_another_thread_is_not_lost(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};

    set_hooks(f);
    f->wait_ns = UINT64_MAX;
    for (int round = 0; round < 50; round++) {
        struct host_thread *thread;

        f->finished = false;
        thread = host_thread_start("waker", wake_and_finish, f, &err);
        loop_run(f->loop); /* hangs if a wake-up is lost */
        host_thread_join(thread);
    }
}

#define DEFERRED_PER_THREAD 200

static void defer_many(void *opaque)
{
    struct fixture *f = opaque;

    for (int i = 0; i < DEFERRED_PER_THREAD; i++)
        loop_defer(f->loop, (loop_call_fn *)lock_hook, f);
    f->finished = true;
    loop_wake(f->loop);
}

static void calls_deferred_by_another_thread_arrive(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    struct host_thread *thread;

    loop_set_hooks(f->loop, &(struct loop_hooks){.finished = finished_hook, .opaque = f});
    thread = host_thread_start("deferrer", defer_many, f, &err);
    loop_run(f->loop);
    host_thread_join(thread);
    f->finished = false; /* it may have been before the loop's first round */
    loop_once(f->loop, 0);
    assert_true(f->locked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_readable_file_calls_its_handler, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_can_be_switched_off_and_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hang_up_is_told_to_who_asks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_that_never_block_are_always_ready, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_file_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_handler_may_remove_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_removed_handler_is_not_called_in_the_same_round, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(deferred_calls_keep_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deferred_calls_can_be_taken_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deferred_calls_left_over_are_freed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(handlers_are_called_with_the_lock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_loop_sleeps_as_long_as_the_hook_says, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_wake_from_another_thread_is_not_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calls_deferred_by_another_thread_arrive, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
