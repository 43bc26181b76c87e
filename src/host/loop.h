/*
 * loop.h - the main loop: file descriptors, deferred calls, wake-up
 *
 * One loop per process, run by one thread. Handlers are called with the lock
 * that loop_set_lock named (the machine's). fd handlers and deferred calls may add and
 * remove handlers, including their own.
 */
#ifndef HOST_LOOP_H
#define HOST_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/error.h"

struct loop;
struct loop_fd;

enum loop_events { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HANGUP = 4 };
typedef void loop_fd_fn(void *opaque, unsigned events);
typedef void loop_call_fn(void *opaque);

struct loop *loop_new(struct error *err);
void loop_free(struct loop *loop);

/*
 * fd stays the caller's. Handlers are removed on the loop's thread or before loop_run; they are
 * added and changed there, or on any thread with the lock of the hooks held.
 */
struct loop_fd *loop_add_fd(struct loop *loop, int fd, unsigned events, loop_fd_fn *fn,
                            void *opaque, struct error *err);
void loop_set_events(struct loop_fd *handler, unsigned events);
void loop_remove_fd(struct loop_fd *handler); /* NULL is fine */

/* Call fn soon on the loop's thread, in order. Any thread. Returns 0 or -ENOMEM. */
int loop_defer(struct loop *loop, loop_call_fn *fn, void *opaque);
/* What was deferred with opaque is not called any more. On the loop's thread, or before it runs. */
void loop_undefer(struct loop *loop, const void *opaque);
/* Make a sleeping loop look at its timers again. Any thread; async-signal-safe. */
void loop_wake(struct loop *loop);

struct loop_hooks {
    uint64_t (*wait_ns)(void *opaque); /* how long the loop may sleep; UINT64_MAX = for ever */
    void (*run_timers)(void *opaque);  /* called after every wait, lock held */
    void (*lock)(void *opaque);
    void (*unlock)(void *opaque);
    bool (*finished)(void *opaque); /* loop_run returns when true */
    void *opaque;
};
void loop_set_hooks(struct loop *loop, const struct loop_hooks *hooks); /* NULL to remove */
/* Run until hooks->finished says so. */
void loop_run(struct loop *loop);
/* One round: wait at most timeout_ns, call what is due. For tests and fuzzers. */
void loop_once(struct loop *loop, uint64_t timeout_ns);

#endif
