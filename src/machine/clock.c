/*
 * clock.c - virtual, host and wall clocks; timer queues
 *
 * Theory of operation. Each clock has a binary heap of armed timers, ordered by
 * deadline and then by order of arming, so that counted runs repeat exactly. Room
 * in a heap is reserved when a timer is initialised: arming never fails. One mutex
 * protects the heaps; reading a clock takes no lock.
 *
 * The virtual clock is the host's minus an offset while it runs, and a frozen value
 * while paused. In counted mode it is a value that the engine stores. Between two looks at the
 * host's clock, LINE_TICKS apart at most, it is extrapolated by the processor's counter where that
 * is steady (struct clock_line); a new line starts no earlier than the one before could reach.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "host/host.h"
#include "trapeze/clock.h"

/* 2024-01-01 00:00 UTC: where the wall clock of a counted machine starts unless told. */
#define COUNTED_WALL_START_NS (1704067200ull * NANOSECONDS_PER_SECOND)
#define RUNNING               CLOCK_NEVER /* value of frozen_ns while virtual time passes */

#define LINE_TICKS            (1u << 27) /* how long a line holds: 30 to 60 ms */
#define RATE_TICKS            (1u << 25) /* for less the rate is not measured */
#define RATE_TOLERANCE        1024       /* two rates in a row agree to 1 / this */

struct timer_queue {
    struct timer **heap; /* heap[0] is the earliest */
    size_t count;
    size_t reserved; /* timers that were initialised for this clock */
    size_t capacity;
};

struct clocks {
    struct clocks_config config;
    _Atomic uint64_t frozen_ns; /* virtual time while paused, or RUNNING */
    _Atomic uint64_t offset_ns; /* host minus virtual time while running */

    bool has_line;
    struct clock_line line;
    struct host_mutex line_mutex;
    uint64_t floor_ns;                 /* virtual time that may have been told */
    uint64_t last_ticks, last_host_ns; /* when the rate was measured, */
    uint64_t last_rate;                /* and what it was; 0: not yet */

    _Atomic uint64_t counted_ns; /* virtual time in counted mode */
    uint64_t skipped_ns;         /* part of it that no instruction took; vCPU's thread */

    struct host_mutex mutex;
    uint64_t next_order;
    struct timer_queue queues[CLOCK_ID_COUNT];
};

struct clocks *clocks_new(const struct clocks_config *config)
{
    struct clocks *clocks = calloc(1, sizeof(*clocks));

    if (!clocks)
        return NULL;
    clocks->config = *config;
    if (config->counted && !config->wall_start_ns)
        clocks->config.wall_start_ns = COUNTED_WALL_START_NS;
    host_mutex_init(&clocks->mutex);
    host_mutex_init(&clocks->line_mutex);
    clocks->has_line = !config->counted && host_ticks_are_steady();
    return clocks;
}

void clocks_free(struct clocks *clocks)
{
    if (!clocks)
        return;
    for (int id = 0; id < CLOCK_ID_COUNT; id++)
        free(clocks->queues[id].heap);
    host_mutex_done(&clocks->line_mutex);
    host_mutex_done(&clocks->mutex);
    free(clocks);
}

/* ---- the line; line_mutex held, but for reading ---- */

const struct clock_line *clocks_line(const struct clocks *clocks)
{
    return clocks->has_line ? &clocks->line : NULL;
}

static bool line_read(const struct clock_line *line, uint64_t *out_ns)
{
    uint64_t sequence = atomic_load_explicit(&line->sequence, memory_order_acquire);
    uint64_t ticks = host_ticks() - atomic_load_explicit(&line->start_ticks, memory_order_acquire);
    uint64_t most = atomic_load_explicit(&line->ticks, memory_order_acquire);
    uint64_t rate = atomic_load_explicit(&line->rate, memory_order_acquire);
    uint64_t start_ns = atomic_load_explicit(&line->start_ns, memory_order_acquire);

    if (sequence & 1 || ticks >= most ||
        atomic_load_explicit(&line->sequence, memory_order_relaxed) != sequence)
        return false;
    *out_ns = start_ns + (ticks * rate >> 32);
    return true;
}

static void line_set(struct clock_line *line, uint64_t start_ticks, uint64_t start_ns,
                     uint64_t rate, uint64_t ticks)
{
    atomic_fetch_add(&line->sequence, 1);
    atomic_store_explicit(&line->start_ticks, start_ticks, memory_order_release);
    atomic_store_explicit(&line->start_ns, start_ns, memory_order_release);
    atomic_store_explicit(&line->rate, rate, memory_order_release);
    atomic_store_explicit(&line->ticks, ticks, memory_order_release);
    atomic_fetch_add(&line->sequence, 1);
}

/* The host's clock, and its counter at nearly the same time. */
static uint64_t read_both(uint64_t *out_ticks)
{
    uint64_t least = UINT64_MAX, ns = 0;

    for (unsigned n = 0; n < 3; n++) {
        uint64_t before = host_ticks(), now_ns = host_monotonic_ns(), width = host_ticks() - before;

        if (width >= least)
            continue;
        least = width;
        ns = now_ns;
        *out_ticks = before + width / 2;
    }
    return ns;
}

/* Has the counter's rate, since it was measured last, been what it was before? */
static bool measure_rate(struct clocks *clocks, uint64_t ticks, uint64_t host_ns)
{
    uint64_t passed = ticks - clocks->last_ticks, before = clocks->last_rate, rate, difference;

    if (passed < RATE_TICKS)
        return false;
    rate = (uint64_t)(((unsigned __int128)(host_ns - clocks->last_host_ns) << 32) / passed);
    difference = rate > before ? rate - before : before - rate;
    clocks->last_ticks = ticks;
    clocks->last_host_ns = host_ns;
    clocks->last_rate = rate;
    return rate && difference <= rate / RATE_TOLERANCE;
}

static uint64_t line_renew(struct clocks *clocks)
{
    uint64_t ticks, host_ns, now_ns;

    host_mutex_lock(&clocks->line_mutex);
    if (line_read(&clocks->line, &now_ns)) { /* another thread was here */
        host_mutex_unlock(&clocks->line_mutex);
        return now_ns;
    }
    host_ns = read_both(&ticks);
    now_ns = host_ns - atomic_load_explicit(&clocks->offset_ns, memory_order_relaxed);
    if (now_ns < clocks->floor_ns)
        now_ns = clocks->floor_ns;
    clocks->floor_ns = now_ns;
    if (measure_rate(clocks, ticks, host_ns)) {
        line_set(&clocks->line, ticks, now_ns, clocks->last_rate, LINE_TICKS);
        clocks->floor_ns += LINE_TICKS * clocks->last_rate >> 32;
    } else {
        line_set(&clocks->line, 0, 0, 0, 0);
    }
    host_mutex_unlock(&clocks->line_mutex);
    return now_ns;
}

/* Virtual time is floor_ns, and does not go on like before. */
static void line_drop(struct clocks *clocks, uint64_t floor_ns)
{
    host_mutex_lock(&clocks->line_mutex);
    clocks->floor_ns = floor_ns;
    line_set(&clocks->line, 0, 0, 0, 0);
    host_mutex_unlock(&clocks->line_mutex);
}

/* ---- reading and setting ---- */

static uint64_t virtual_now_ns(struct clocks *clocks)
{
    uint64_t frozen, now_ns;

    if (clocks->config.counted)
        return atomic_load_explicit(&clocks->counted_ns, memory_order_acquire);
    frozen = atomic_load_explicit(&clocks->frozen_ns, memory_order_acquire);
    if (frozen != RUNNING)
        return frozen;
    if (clocks->has_line)
        return line_read(&clocks->line, &now_ns) ? now_ns : line_renew(clocks);
    return host_monotonic_ns() - atomic_load_explicit(&clocks->offset_ns, memory_order_relaxed);
}

static bool wall_is_host(const struct clocks *clocks)
{
    return clocks->config.wall_start_ns == 0;
}

uint64_t clock_now_ns(struct clocks *clocks, enum clock_id id)
{
    if (id == CLOCK_ID_VIRTUAL)
        return virtual_now_ns(clocks);
    if (id == CLOCK_ID_HOST)
        return host_monotonic_ns();
    return wall_is_host(clocks) ? host_wall_ns()
                                : clocks->config.wall_start_ns + virtual_now_ns(clocks);
}

static void tell_deadline_changed(struct clocks *clocks)
{
    if (clocks->config.deadline_changed)
        clocks->config.deadline_changed(clocks->config.opaque);
}

void clocks_pause(struct clocks *clocks)
{
    uint64_t now_ns = virtual_now_ns(clocks);

    atomic_store_explicit(&clocks->frozen_ns, now_ns, memory_order_release);
    line_drop(clocks, now_ns);
}

void clocks_resume(struct clocks *clocks)
{
    uint64_t frozen = atomic_load(&clocks->frozen_ns);

    if (frozen == RUNNING)
        return;
    line_drop(clocks, frozen);
    /* The offset is seen by whoever sees RUNNING: pairs with the acquire in virtual_now_ns. */
    atomic_store_explicit(&clocks->offset_ns, host_monotonic_ns() - frozen, memory_order_relaxed);
    atomic_store_explicit(&clocks->frozen_ns, RUNNING, memory_order_release);
    tell_deadline_changed(clocks);
}

static bool is_paused(struct clocks *clocks)
{
    return atomic_load_explicit(&clocks->frozen_ns, memory_order_acquire) != RUNNING;
}

bool clocks_are_counted(const struct clocks *clocks)
{
    return clocks->config.counted;
}

void clocks_set_counted_ns(struct clocks *clocks, uint64_t instructions)
{
    uint64_t now_ns = clocks->skipped_ns + instructions;

    assert(clocks->config.counted);
    if (now_ns > atomic_load_explicit(&clocks->counted_ns, memory_order_relaxed))
        atomic_store_explicit(&clocks->counted_ns, now_ns, memory_order_release);
}

void clocks_skip_counted_to(struct clocks *clocks, uint64_t virtual_ns)
{
    uint64_t now_ns = atomic_load_explicit(&clocks->counted_ns, memory_order_relaxed);

    if (virtual_ns == CLOCK_NEVER || virtual_ns <= now_ns)
        return;
    clocks->skipped_ns += virtual_ns - now_ns;
    atomic_store_explicit(&clocks->counted_ns, virtual_ns, memory_order_release);
}

void clocks_rebase_counted(struct clocks *clocks, uint64_t instructions)
{
    /* May wrap below zero: only the sum counts. */
    clocks->skipped_ns =
        atomic_load_explicit(&clocks->counted_ns, memory_order_relaxed) - instructions;
}

void clocks_set_virtual_ns(struct clocks *clocks, uint64_t now_ns)
{
    assert(is_paused(clocks));
    atomic_store(&clocks->frozen_ns, now_ns);
    if (clocks->config.counted) {
        clocks->skipped_ns += now_ns - atomic_load(&clocks->counted_ns);
        atomic_store(&clocks->counted_ns, now_ns);
    }
    tell_deadline_changed(clocks);
}

/* ---- the heap; mutex held ---- */

static bool before(const struct timer *a, const struct timer *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    return a->order < b->order;
}

static void put(struct timer_queue *queue, size_t at, struct timer *timer)
{
    queue->heap[at] = timer;
    timer->heap_slot = at + 1;
}

static void sift_up(struct timer_queue *queue, size_t at, struct timer *timer)
{
    while (at && before(timer, queue->heap[(at - 1) / 2])) {
        put(queue, at, queue->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(queue, at, timer);
}

static void sift_down(struct timer_queue *queue, size_t at, struct timer *timer)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < queue->count && before(queue->heap[child + 1], queue->heap[child]))
            child++;
        if (child >= queue->count || !before(queue->heap[child], timer))
            break;
        put(queue, at, queue->heap[child]);
        at = child;
    }
    put(queue, at, timer);
}

static void remove_locked(struct timer_queue *queue, struct timer *timer)
{
    size_t at = timer->heap_slot - 1;
    struct timer *last = queue->heap[--queue->count];

    timer->heap_slot = 0;
    if (last == timer)
        return;
    if (at && before(last, queue->heap[(at - 1) / 2]))
        sift_up(queue, at, last);
    else
        sift_down(queue, at, last);
}

/* ---- timers ---- */

static void reserve(struct clocks *clocks, struct timer_queue *queue)
{
    host_mutex_lock(&clocks->mutex);
    if (++queue->reserved > queue->capacity) {
        size_t capacity = queue->capacity ? 2 * queue->capacity : 16;
        struct timer **heap = realloc(queue->heap, capacity * sizeof(*heap));

        if (!heap) { /* at set-up, a hundred bytes: nothing could go on */
            log_error("out of memory for timers");
            abort();
        }
        queue->heap = heap;
        queue->capacity = capacity;
    }
    host_mutex_unlock(&clocks->mutex);
}

void timer_init(struct timer *timer, struct clocks *clocks, enum clock_id id, timer_fn *fire,
                void *opaque)
{
    *timer = (struct timer){
        .clocks = clocks, .fire = fire, .opaque = opaque, .clock = id, .deadline_ns = CLOCK_NEVER};
    reserve(clocks, &clocks->queues[id]);
}

void timer_done(struct timer *timer)
{
    if (!timer->clocks)
        return;
    timer_cancel(timer);
    host_mutex_lock(&timer->clocks->mutex);
    timer->clocks->queues[timer->clock].reserved--;
    host_mutex_unlock(&timer->clocks->mutex);
    timer->clocks = NULL;
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    struct clocks *clocks = timer->clocks;
    struct timer_queue *queue = &clocks->queues[timer->clock];
    bool earliest;

    if (deadline_ns == CLOCK_NEVER) {
        timer_cancel(timer);
        return;
    }
    host_mutex_lock(&clocks->mutex);
    if (timer->heap_slot)
        remove_locked(queue, timer);
    timer->deadline_ns = deadline_ns;
    timer->order = clocks->next_order++;
    sift_up(queue, queue->count++, timer);
    earliest = timer->heap_slot == 1;
    host_mutex_unlock(&clocks->mutex);
    if (earliest)
        tell_deadline_changed(clocks);
}

void timer_cancel(struct timer *timer)
{
    struct clocks *clocks = timer->clocks;

    if (!clocks)
        return;
    host_mutex_lock(&clocks->mutex);
    if (timer->heap_slot)
        remove_locked(&clocks->queues[timer->clock], timer);
    host_mutex_unlock(&clocks->mutex);
}

bool timer_is_armed(const struct timer *timer)
{
    bool armed;

    if (!timer->clocks)
        return false;
    host_mutex_lock(&timer->clocks->mutex);
    armed = timer->heap_slot != 0;
    host_mutex_unlock(&timer->clocks->mutex);
    return armed;
}

/* ---- serving ---- */

uint64_t clocks_next_deadline_ns(struct clocks *clocks, enum clock_id id)
{
    const struct timer_queue *queue = &clocks->queues[id];
    uint64_t deadline;

    host_mutex_lock(&clocks->mutex);
    deadline = queue->count ? queue->heap[0]->deadline_ns : CLOCK_NEVER;
    host_mutex_unlock(&clocks->mutex);
    return deadline;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t clocks_next_counted_ns(struct clocks *clocks)
{
    uint64_t wall = clocks_next_deadline_ns(clocks, CLOCK_ID_WALL);

    if (wall != CLOCK_NEVER)
        wall = wall > clocks->config.wall_start_ns ? wall - clocks->config.wall_start_ns : 0;
    return earlier(wall, clocks_next_deadline_ns(clocks, CLOCK_ID_VIRTUAL));
}

/* Does time pass on this clock by itself, so that the main loop can wait for it? */
static bool served_by_loop(struct clocks *clocks, enum clock_id id)
{
    if (id == CLOCK_ID_HOST || (id == CLOCK_ID_WALL && wall_is_host(clocks)))
        return true;
    return !clocks->config.counted && !is_paused(clocks);
}

uint64_t clocks_wait_ns(struct clocks *clocks)
{
    uint64_t wait = CLOCK_NEVER;

    for (int id = 0; id < CLOCK_ID_COUNT; id++) {
        uint64_t deadline = clocks_next_deadline_ns(clocks, (enum clock_id)id), now;

        if (deadline == CLOCK_NEVER || !served_by_loop(clocks, (enum clock_id)id))
            continue;
        now = clock_now_ns(clocks, (enum clock_id)id);
        wait = earlier(wait, deadline > now ? deadline - now : 0);
    }
    return wait;
}

/* The earliest timer if it is due, disarmed; else NULL. */
static struct timer *take_due(struct clocks *clocks, enum clock_id id, uint64_t now_ns)
{
    struct timer_queue *queue = &clocks->queues[id];
    struct timer *timer = NULL;

    host_mutex_lock(&clocks->mutex);
    if (queue->count && queue->heap[0]->deadline_ns <= now_ns) {
        timer = queue->heap[0];
        trace(TIMER_FIRE, id, timer->deadline_ns, now_ns);
        remove_locked(queue, timer);
    }
    host_mutex_unlock(&clocks->mutex);
    return timer;
}

void clocks_run(struct clocks *clocks, enum clock_id id)
{
    uint64_t now_ns;

    if (clocks_next_deadline_ns(clocks, id) == CLOCK_NEVER)
        return;
    now_ns = clock_now_ns(clocks, id);
    for (int fired = 0; fired < CLOCKS_RUN_MAX; fired++) {
        struct timer *timer = take_due(clocks, id, now_ns);

        if (!timer)
            return;
        timer->fire(timer->opaque);
    }
}

void clocks_run_loop(struct clocks *clocks)
{
    for (int id = 0; id < CLOCK_ID_COUNT; id++)
        if (served_by_loop(clocks, (enum clock_id)id))
            clocks_run(clocks, (enum clock_id)id);
}

void clocks_run_counted(struct clocks *clocks)
{
    clocks_run(clocks, CLOCK_ID_VIRTUAL);
    if (!wall_is_host(clocks))
        clocks_run(clocks, CLOCK_ID_WALL);
}
