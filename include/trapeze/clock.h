/*
 * clock.h - the three clocks of a machine and timers on them
 *
 *   virtual   guest time; stands still while the machine is paused. In counted
 *             mode it advances only with executed instructions (one nanosecond
 *             each by default), which makes a run repeatable.
 *   host      the host's monotonic clock, never paused
 *   wall      time of day, nanoseconds since 1970-01-01 UTC; what the RTC starts
 *             from. Fixed at the configured start plus virtual time in counted mode.
 *
 * A timer is a callback and an absolute deadline. Timers may be armed and
 * cancelled from any thread; callbacks run with the machine lock held, on the
 * main loop's thread (in counted mode: on the vCPU's thread, at the exact
 * instruction). A timer that fires is disarmed first, so the callback may re-arm it.
 */
#ifndef TRAPEZE_CLOCK_H
#define TRAPEZE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum clock_id { CLOCK_ID_VIRTUAL, CLOCK_ID_HOST, CLOCK_ID_WALL, CLOCK_ID_COUNT };

#define CLOCK_NEVER            UINT64_MAX
#define NANOSECONDS_PER_SECOND 1000000000ull

struct clocks; /* one per machine */

typedef void timer_fn(void *opaque);

struct timer {
    struct clocks *clocks;
    timer_fn *fire;
    void *opaque;
    uint64_t deadline_ns; /* meaningful while armed */
    uint64_t order;       /* among equal deadlines the one armed first fires first */
    size_t heap_slot;     /* position in the queue + 1; 0 = not armed */
    enum clock_id clock;
};

uint64_t clock_now_ns(struct clocks *clocks, enum clock_id id);

/* Embedded in its owner; no allocation. timer_done cancels it. */
void timer_init(struct timer *timer, struct clocks *clocks, enum clock_id id, timer_fn *fire,
                void *opaque);
void timer_done(struct timer *timer);

/* Set the absolute deadline; re-arms if armed. CLOCK_NEVER cancels. A past deadline fires soon. */
void timer_arm(struct timer *timer, uint64_t deadline_ns);
/* After it returns on the machine-lock holder's thread, the callback will not run. */
void timer_cancel(struct timer *timer);
bool timer_is_armed(const struct timer *timer);

/* ---- for the machine, the main loop and the engines ---- */

struct clocks_config {
    bool counted; /* virtual time = executed instructions */
    /* Wall clock at virtual time 0; 0 = the host's time of day, in counted mode a fixed date. */
    uint64_t wall_start_ns;
    void (*deadline_changed)(void *opaque); /* an earlier deadline appeared: wake the loop */
    void *opaque;
};

/* Returns NULL only without memory. The virtual clock starts paused at 0. */
struct clocks *clocks_new(const struct clocks_config *config);
void clocks_free(struct clocks *clocks);

void clocks_pause(struct clocks *clocks);
void clocks_resume(struct clocks *clocks);
bool clocks_are_counted(const struct clocks *clocks);

/*
 * Virtual time as a line over the host's counter (host_ticks()), for engines that read it in code
 * of their own. It holds from start_ticks on, for less than ticks: start_ns + ((host_ticks() -
 * start_ticks) * rate >> 32) Read sequence first and last: the line is what was read if both times
 * it was the same even number. Whoever finds that it does not hold calls clock_now_ns(), which
 * makes a new one.
 */
struct clock_line {
    _Atomic uint64_t sequence; /* odd while the line is being changed */
    _Atomic uint64_t start_ticks, start_ns;
    _Atomic uint64_t ticks; /* 0: it never holds */
    _Atomic uint64_t rate;  /* nanoseconds in 2^32 ticks */
};
/* NULL: there is none, in counted mode or without a steady counter. */
const struct clock_line *clocks_line(const struct clocks *clocks);

/*
 * Counted mode only. Virtual time is the number of executed instructions plus the
 * time that was skipped while the vCPU was halted. The engine reports the count
 * (before each device access, RDTSC and at the end of run()); time never goes backwards.
 */
void clocks_set_counted_ns(struct clocks *clocks, uint64_t instructions);
/* Halted: go to an absolute virtual time at once. No effect on a time that has passed. */
void clocks_skip_counted_to(struct clocks *clocks, uint64_t virtual_ns);
/* The count changed other than by executing (state load, reset): virtual time stays. */
void clocks_rebase_counted(struct clocks *clocks, uint64_t instructions);
/* Earliest deadline, as a virtual time, of what the vCPU's thread serves (wall timers included). */
uint64_t clocks_next_counted_ns(struct clocks *clocks);

/* State load: set virtual time while paused, either mode; backwards too. */
void clocks_set_virtual_ns(struct clocks *clocks, uint64_t now_ns);

/* Earliest deadline on one clock, or CLOCK_NEVER. */
uint64_t clocks_next_deadline_ns(struct clocks *clocks, enum clock_id id);

/* Host nanoseconds from now until any timer that the main loop serves is due; CLOCK_NEVER if none.
 */
uint64_t clocks_wait_ns(struct clocks *clocks);

/*
 * Fire what is due on one clock, in deadline order, at most CLOCKS_RUN_MAX timers (the
 * rest stays due, so a device that re-arms in the past cannot hang the caller).
 * Machine lock held.
 */
#define CLOCKS_RUN_MAX 1024
void clocks_run(struct clocks *clocks, enum clock_id id);
/* clocks_run for every clock that the main loop serves, or that the vCPU's thread serves. */
void clocks_run_loop(struct clocks *clocks);
void clocks_run_counted(struct clocks *clocks);

#endif
