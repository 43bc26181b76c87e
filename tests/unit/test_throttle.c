/*
 * test_throttle.c - limits of a disk: what starts when, on a clock that the test moves
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/host.h"
#include "host/loop.h"
#include "trapeze/block.h"

#define BYTES    (1u << 20)
#define REQUESTS 4096u

struct test_request {
    struct block_request block;
    struct io_piece piece;
    int status;
    bool ended;
};

static struct loop *loop;
static struct block *disk;
static char path[] = "/tmp/test-throttle-XXXXXX";
static struct test_request requests[REQUESTS];
static unsigned submitted;
static uint8_t buffer[BYTES];

/* Instead of the system's: stands still until a test moves it, or runs. */
static uint64_t now_ns;
static bool clock_runs;

uint64_t host_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return clock_runs ? (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec : now_ns;
}

static int set_up(void **state)
{
    struct error err = {0};
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(ftruncate(fd, BYTES), 0);
    close(fd);
    loop = loop_new(&err);
    now_ns = 1000000000u;
    clock_runs = false;
    submitted = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (disk)
        block_drain(disk);
    block_free(disk);
    disk = NULL;
    loop_free(loop);
    unlink(path);
    strcpy(path + strlen(path) - 6, "XXXXXX");
    return 0;
}

static void open_it(const char *options)
{
    struct error err = {0};
    char text[256];

    snprintf(text, sizeof(text), "%s%s", path, options);
    disk = block_open(loop, text, &err);
    if (!disk)
        fail_msg("%s", err.text);
}

static void expect_error(const char *options, const char *part)
{
    struct error err = {0};
    char text[256];

    snprintf(text, sizeof(text), "%s%s", path, options);
    assert_null(block_open(loop, text, &err));
    if (!strstr(err.text, part))
        fail_msg("'%s' is not in: %s", part, err.text);
}

static void ended(struct block_request *block, int status)
{
    struct test_request *r = (struct test_request *)block;

    assert_false(r->ended);
    r->status = status;
    r->ended = true;
}

static struct test_request *submit(enum block_op op, uint64_t size)
{
    struct test_request *r = &requests[submitted++];

    assert_true(submitted <= REQUESTS);
    *r = (struct test_request){.piece = {buffer, size}};
    r->block = (struct block_request){.op = op,
                                      .size_bytes = size,
                                      .pieces = &r->piece,
                                      .piece_count = op == BLOCK_READ || op == BLOCK_WRITE,
                                      .done = ended};
    block_submit(disk, &r->block);
    return r;
}

/* Of those from first on. */
static unsigned count_ended(unsigned first)
{
    unsigned count = 0;

    for (unsigned n = first; n < submitted; n++)
        count += requests[n].ended;
    return count;
}

/* How many more have ended after the clock moved on; each further request makes the disk look. */
static unsigned after(uint64_t milliseconds)
{
    unsigned before = count_ended(0);

    for (uint64_t left = milliseconds, step; left; left -= step) {
        step = left < 50 ? left : 50;
        now_ns += step * 1000000u;
        submit(BLOCK_READ, 512);
    }
    return count_ended(0) - before;
}

/* Writes may be a worker's: those from first on, until count have ended. */
static unsigned settle(unsigned first, unsigned count)
{
    uint64_t rounds = 0;

    while (count_ended(first) < count && rounds++ < 1000)
        loop_once(loop, 10000000);
    return count_ended(first);
}

static void submit_many(enum block_op op, uint64_t size, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        submit(op, size);
}

static void so_many_requests_a_second(void **state)
{
    (void)state;
    open_it(",throttle.iops=100");
    submit_many(BLOCK_READ, 512, 300);
    assert_int_equal(count_ended(0), 11); /* a tenth of a second's, and the one that fills */
    assert_int_equal(after(0), 0);
    assert_int_equal(after(100), 10);
    assert_int_equal(after(1000), 100);
    assert_int_equal(after(1), 0);
}

static void so_many_bytes_a_second(void **state)
{
    (void)state;
    open_it(",throttle.bps=1M");
    submit(BLOCK_READ, 64 << 10);
    submit(BLOCK_WRITE, 64 << 10);
    submit(BLOCK_READ, 64 << 10); /* 128 KiB are more than a tenth */
    assert_int_equal(settle(0, 2), 2);
    assert_false(requests[2].ended);
    submit_many(BLOCK_READ, 4096, 1000);
    after(100);
    assert_true(requests[2].ended);
    after(2000);
    assert_in_range(count_ended(3), 460, 540); /* 256 a second */
    block_drain(disk);
}

static void a_rest_gives_no_more_than_a_burst(void **state)
{
    unsigned first;

    (void)state;
    open_it(",throttle.iops=10,throttle.iops_max=100");
    submit_many(BLOCK_READ, 512, 300);
    assert_int_equal(count_ended(0), 101);
    assert_int_equal(after(1000), 10);
    block_drain(disk);
    now_ns += 3600000000000u;
    first = submitted;
    submit_many(BLOCK_READ, 512, 300);
    assert_int_equal(count_ended(first), 101);
}

static void a_long_burst_has_a_rate_of_its_own(void **state)
{
    (void)state;
    open_it(",throttle.iops=10,throttle.iops_max=100,throttle.iops_max_length=5");
    submit_many(BLOCK_READ, 512, 1000);
    assert_int_equal(count_ended(0), 11);
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(after(1000), 100);
    for (unsigned n = 0; n < 6; n++)
        after(500);
    assert_in_range(after(1000), 9, 11); /* 500 above the rate are used up */
    block_drain(disk);
}

static void directions_have_limits_of_their_own(void **state)
{
    (void)state;
    open_it(",throttle.iops_rd=10,throttle.bps_wr=100K");
    submit_many(BLOCK_READ, 512, 50);
    assert_int_equal(count_ended(0), 2);
    submit_many(BLOCK_WRITE, 512, 50); /* no read is in their way */
    assert_int_equal(settle(50, 21), 21);
}

/* Reads wait for their own limit, writes fill the common one as soon as they can. */
static void the_older_one_is_first(void **state)
{
    unsigned reads = 0;

    (void)state;
    open_it(",throttle.iops=10");
    for (unsigned n = 0; n < 200; n++)
        submit(n % 50 ? BLOCK_WRITE : BLOCK_READ, 512);
    for (unsigned n = 0; n < 10; n++)
        after(1000);
    for (unsigned n = 0; n < 200; n++)
        reads += requests[n].ended && requests[n].block.op == BLOCK_READ;
    assert_int_equal(reads, 3); /* 102 in the order in which they came */
    block_drain(disk);
}

static void nothing_is_free(void **state)
{
    static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO};

    (void)state;
    for (unsigned n = 0; n < 4; n++) {
        open_it(",throttle.iops_wr=10");
        submit_many(ops[n], ops[n] == BLOCK_FLUSH ? 0 : 512, 5);
        submitted = 0;
        block_drain(disk);
        assert_int_equal(requests[0].status, 0);
        assert_int_equal(requests[4].status, -ECANCELED);
        block_free(disk);
    }
    open_it(",throttle.bps_wr=10K");
    assert_false(submit(BLOCK_ZERO, 100 << 10)->ended); /* by a worker */
    block_quiesce(disk);
    assert_false(submit(BLOCK_WRITE, 512)->ended);
}

static void large_requests_count_as_several(void **state)
{
    (void)state;
    open_it(",throttle.iops=100,throttle.iops_size=4K");
    submit(BLOCK_READ, 40 << 10); /* ten */
    submit_many(BLOCK_READ, 512, 10);
    assert_int_equal(count_ended(1), 1);
}

/* A guest that resets its disk again and again gets no more. */
static void a_drain_cancels_what_waits(void **state)
{
    unsigned done = 0;

    (void)state;
    open_it(",throttle.iops=10");
    for (unsigned turn = 0; turn < 100; turn++) {
        submit_many(BLOCK_READ, 512, 20);
        block_drain(disk);
    }
    for (unsigned n = 0; n < submitted; n++) {
        assert_true(requests[n].ended);
        assert_true(requests[n].status == 0 || requests[n].status == -ECANCELED);
        done += requests[n].status == 0;
    }
    assert_int_equal(done, 2);
}

static bool is_write(const void *owner, const struct block_request *block)
{
    (void)owner;
    return block->op == BLOCK_WRITE;
}

static void an_owner_loses_only_what_is_its_own(void **state)
{
    unsigned write;

    (void)state;
    open_it(",throttle.iops=10");
    for (unsigned n = 0; n < 30; n++)
        submit(n % 3 ? BLOCK_WRITE : BLOCK_READ, 512);
    block_drain_owner(disk, is_write, NULL);
    for (unsigned n = 0; n < 30; n++)
        assert_true(requests[n].ended == (n % 3 || !n));
    for (unsigned n = 2; n < 30; n++)
        assert_int_equal(requests[n].status, n % 3 ? -ECANCELED : 0);
    after(1000);
    assert_int_equal(count_ended(0), 21 + 10); /* the reads, and the next */
    assert_true(requests[27].ended);
    write = submitted; /* its queue goes on */
    assert_false(submit(BLOCK_WRITE, 512)->ended);
    after(5000);
    for (unsigned n = 0; n < 1000 && !requests[write].ended; n++)
        loop_once(loop, 10000000);
    assert_true(requests[write].ended);
}

/* A pause lets all of it through, which is paid for later. */
static void a_pause_does_not_wait(void **state)
{
    (void)state;
    open_it(",throttle.iops=10");
    submit_many(BLOCK_READ, 512, 100);
    block_quiesce(disk);
    assert_int_equal(count_ended(0), 100);
    assert_int_equal(after(9000), 0);
    assert_int_equal(after(1000), 2);
}

/* On the real clock, by the loop's timer, which sleeps in between. */
static void a_timer_starts_what_waits(void **state)
{
    uint64_t start;
    unsigned rounds = 0;

    (void)state;
    clock_runs = true;
    open_it(",throttle.iops=200");
    start = host_monotonic_ns();
    submit_many(BLOCK_READ, 512, 100);
    for (; count_ended(0) < 100; rounds++)
        loop_once(loop, 1000000000);
    assert_true(host_monotonic_ns() - start >= 390000000); /* 79 of 100 at 200 a second */
    assert_true(rounds <= 200);
}

static void wrong_limits_are_refused(void **state)
{
    (void)state;
    expect_error(",throttle.iops=x", "throttle.iops");
    expect_error(",throttle.iop=1", "throttle.iops");
    expect_error(",throttle.iops_max=5", "wants throttle.iops");
    expect_error(",throttle.bps=10,throttle.bps_max=5", "less than");
    expect_error(",throttle.bps=10,throttle.bps_max_length=5", "wants throttle.bps_max");
    expect_error(",throttle.bps=10,throttle.bps_max=20,throttle.bps_max_length=0", "1 or more");
    expect_error(",throttle.bps=10,throttle.bps_rd=5", "for both, or");
    expect_error(",throttle.iops_size=4096", "wants throttle.iops");
    expect_error(",throttle.bps=10000000000000000", "1000T at most");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(so_many_requests_a_second),
        TEST(so_many_bytes_a_second),
        TEST(a_rest_gives_no_more_than_a_burst),
        TEST(a_long_burst_has_a_rate_of_its_own),
        TEST(directions_have_limits_of_their_own),
        TEST(the_older_one_is_first),
        TEST(nothing_is_free),
        TEST(large_requests_count_as_several),
        TEST(a_drain_cancels_what_waits),
        TEST(an_owner_loses_only_what_is_its_own),
        TEST(a_pause_does_not_wait),
        TEST(a_timer_starts_what_waits),
        TEST(wrong_limits_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
