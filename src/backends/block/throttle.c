/*
 * throttle.c - no more requests, or bytes, in a second than the host's owner gives a disk
 */
#include "backends/block/throttle.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "host/host.h"
#include "host/loop.h"

#define NS_PER_S        1e9
#define UNUSED_SHARE    0.1 /* of a second: what may start at once after a rest */
#define MAX_RATE        1e15
#define SLEEP_MIN_NS    10000 /* timers are not more exact */
#define DIRECTIONS      2u    /* reading, writing */
#define BUCKETS_A_LIMIT 2u    /* the rate; the rate of a burst */

/* In requests or bytes. */
struct bucket {
    double rate, room, level; /* rate 0: no limit */
};

/* What one limit is for. */
static const struct limit {
    const char *name;
    size_t rate, max, length; /* in the options */
    bool of_bytes, of_reads, of_writes;
} limits[] = {
#define LIMIT(name, bytes, reads, writes)                                                          \
    {                                                                                              \
#name, offsetof(struct throttle_options, name),                                            \
            offsetof(struct throttle_options, name##_max),                                         \
            offsetof(struct throttle_options, name##_max_length), bytes, reads, writes             \
    }
    LIMIT(iops, false, true, true),     LIMIT(bps, true, true, true),
    LIMIT(iops_rd, false, true, false), LIMIT(bps_rd, true, true, false),
    LIMIT(iops_wr, false, false, true), LIMIT(bps_wr, true, false, true),
};
#define LIMITS (sizeof(limits) / sizeof(limits[0]))

struct throttle {
    struct bucket buckets[LIMITS][BUCKETS_A_LIMIT];
    double iops_size;
    uint64_t leaked_ns; /* until then */
    uint64_t order;
    struct {
        struct throttled *first, **last;
    } queues[DIRECTIONS];
    void (*start)(struct throttled *request);
    bool is_running, is_free;
    int timer_fd;
    struct loop_fd *handler;
};

/* ---- options ---- */

static uint64_t option(const struct throttle_options *options, size_t at)
{
    uint64_t value;

    memcpy(&value, (const char *)options + at, sizeof(value));
    return value;
}

static uint32_t length_of(const struct throttle_options *options, const struct limit *limit)
{
    uint32_t value;

    memcpy(&value, (const char *)options + limit->length, sizeof(value));
    return value;
}

static int check_limit(const struct throttle_options *options, const struct limit *limit,
                       struct error *err)
{
    uint64_t rate = option(options, limit->rate), max = option(options, limit->max);
    const char *name = limit->name;

    if (rate > MAX_RATE || max > MAX_RATE)
        return error_set(err, EINVAL, "throttle.%s: it is 1000T at most", name);
    if (max && max < rate)
        return error_set(err, EINVAL, "throttle.%s_max is less than throttle.%s", name, name);
    if (max && !rate)
        return error_set(err, EINVAL, "throttle.%s_max wants throttle.%s", name, name);
    if (!length_of(options, limit) || (length_of(options, limit) > 1 && !max))
        return error_set(err, EINVAL,
                         "throttle.%s_max_length: it is 1 or more, and wants throttle.%s_max", name,
                         name);
    return 0;
}

static int check_options(const struct throttle_options *o, struct error *err)
{
    for (size_t n = 0; n < LIMITS; n++)
        if (check_limit(o, &limits[n], err))
            return -EINVAL;
    if ((o->iops && (o->iops_rd || o->iops_wr)) || (o->bps && (o->bps_rd || o->bps_wr)))
        return error_set(err, EINVAL,
                         "throttle: give a limit for both, or those for reading and writing");
    if (o->iops_size && !o->iops && !o->iops_rd && !o->iops_wr)
        return error_set(err, EINVAL, "throttle.iops_size wants throttle.iops");
    return 0;
}

static bool is_limited(const struct throttle_options *options)
{
    bool is = false;

    for (size_t n = 0; n < LIMITS; n++)
        is |= option(options, limits[n].rate) != 0;
    return is;
}

/* A burst fills the large bucket, no faster than the small one leaks. */
static void make_buckets(struct throttle *t, const struct throttle_options *options)
{
    for (size_t n = 0; n < LIMITS; n++) {
        double rate = (double)option(options, limits[n].rate);
        double max = (double)option(options, limits[n].max);
        uint32_t length = length_of(options, &limits[n]);

        t->buckets[n][0].rate = rate;
        t->buckets[n][0].room = max > 0 ? max * length : rate * UNUSED_SHARE;
        t->buckets[n][1].rate = length > 1 ? max : 0;
        t->buckets[n][1].room = max * UNUSED_SHARE;
    }
    t->iops_size = (double)options->iops_size;
}

/* ---- buckets ---- */

static void leak(struct throttle *t)
{
    uint64_t now = host_monotonic_ns();
    double seconds = (double)(now - t->leaked_ns) / NS_PER_S;

    t->leaked_ns = now;
    for (size_t n = 0; n < LIMITS * BUCKETS_A_LIMIT; n++) {
        struct bucket *b = &t->buckets[n / BUCKETS_A_LIMIT][n % BUCKETS_A_LIMIT];

        b->level -= b->rate * seconds;
        if (b->level < 0)
            b->level = 0;
    }
}

static bool is_for(const struct limit *limit, const struct throttled *request)
{
    return request->is_write ? limit->of_writes : limit->of_reads;
}

/* Until a request may start; leak() was called. */
static double seconds_to_wait(const struct throttle *t, const struct throttled *request)
{
    double longest = 0;

    for (size_t n = 0; n < LIMITS * BUCKETS_A_LIMIT; n++) {
        const struct bucket *b = &t->buckets[n / BUCKETS_A_LIMIT][n % BUCKETS_A_LIMIT];
        double over = b->level - b->room;

        if (b->rate > 0 && over > 0 && is_for(&limits[n / BUCKETS_A_LIMIT], request) &&
            over / b->rate > longest)
            longest = over / b->rate;
    }
    return longest;
}

static void count(struct throttle *t, const struct throttled *request)
{
    double bytes = (double)request->size_bytes;
    double requests = t->iops_size > 0 && bytes > t->iops_size ? bytes / t->iops_size : 1;

    for (size_t n = 0; n < LIMITS * BUCKETS_A_LIMIT; n++)
        if (is_for(&limits[n / BUCKETS_A_LIMIT], request))
            t->buckets[n / BUCKETS_A_LIMIT][n % BUCKETS_A_LIMIT].level +=
                limits[n / BUCKETS_A_LIMIT].of_bytes ? bytes : requests;
}

/* ---- queues ---- */

/* at: where it hangs in its queue. */
static struct throttled *take(struct throttle *t, struct throttled **at)
{
    struct throttled *request = *at;

    *at = request->next;
    if (!request->next)
        t->queues[request->is_write].last = at;
    return request;
}

/* The oldest that may start; NULL: none, and *out_seconds until one may. */
static struct throttled *choose(struct throttle *t, double *out_seconds)
{
    struct throttled *best = NULL;

    *out_seconds = -1;
    for (unsigned n = 0; n < DIRECTIONS; n++) {
        struct throttled *first = t->queues[n].first;
        double seconds = first && !t->is_free ? seconds_to_wait(t, first) : 0;

        if (first && seconds > 0 && (*out_seconds < 0 || seconds < *out_seconds))
            *out_seconds = seconds;
        if (first && seconds <= 0 && (!best || first->order < best->order))
            best = first;
    }
    return best ? take(t, &t->queues[best->is_write].first) : NULL;
}

static void set_timer(struct throttle *t, double seconds)
{
    uint64_t at = seconds < 0 ? 0 : t->leaked_ns + SLEEP_MIN_NS + (uint64_t)(seconds * NS_PER_S);
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)}};

    timerfd_settime(t->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* What start() submits is found by the loop here. */
static void run(struct throttle *t)
{
    struct throttled *request;
    double seconds;

    if (t->is_running)
        return;
    t->is_running = true;
    leak(t);
    while ((request = choose(t, &seconds))) {
        count(t, request);
        t->start(request);
    }
    t->is_running = false;
    set_timer(t, seconds);
}

static void on_timer(void *opaque, unsigned events)
{
    struct throttle *t = opaque;
    uint64_t times;

    (void)events;
    if (read(t->timer_fd, &times, sizeof(times)) == sizeof(times))
        run(t);
}

void throttle_submit(struct throttle *t, struct throttled *request)
{
    unsigned direction = request->is_write;

    request->order = t->order++;
    request->next = NULL;
    *t->queues[direction].last = request;
    t->queues[direction].last = &request->next;
    run(t);
}

void throttle_hurry(struct throttle *t)
{
    if (!t)
        return;
    t->is_free = true;
    run(t);
    t->is_free = false;
}

struct throttled *throttle_take(struct throttle *t,
                                bool (*is_meant)(const void *opaque,
                                                 const struct throttled *request),
                                const void *opaque)
{
    if (!t)
        return NULL;
    for (unsigned n = 0; n < DIRECTIONS; n++)
        for (struct throttled **at = &t->queues[n].first; *at; at = &(*at)->next)
            if (is_meant(opaque, *at))
                return take(t, at);
    return NULL;
}

/* ---- life ---- */

int throttle_new(const struct throttle_options *options, struct loop *loop,
                 void (*start)(struct throttled *request), struct throttle **out_throttle,
                 struct error *err)
{
    struct throttle *t;

    *out_throttle = NULL;
    if (check_options(options, err))
        return -EINVAL;
    if (!is_limited(options))
        return 0;
    t = calloc(1, sizeof(*t));
    if (!t)
        return error_set(err, ENOMEM, "out of memory");
    make_buckets(t, options);
    for (unsigned n = 0; n < DIRECTIONS; n++)
        t->queues[n].last = &t->queues[n].first;
    t->start = start;
    t->leaked_ns = host_monotonic_ns();
    t->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (t->timer_fd < 0)
        error_set(err, errno, "timerfd: %s", strerror(errno));
    else
        t->handler = loop_add_fd(loop, t->timer_fd, LOOP_READ, on_timer, t, err);
    if (!t->handler) {
        throttle_free(t);
        return -EINVAL;
    }
    *out_throttle = t;
    return 0;
}

void throttle_free(struct throttle *t)
{
    if (!t)
        return;
    loop_remove_fd(t->handler);
    if (t->timer_fd >= 0)
        close(t->timer_fd);
    free(t);
}
