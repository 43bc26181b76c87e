/*
 * loop.c - the main loop on epoll
 *
 * Theory of operation. A round: note that we are about to sleep, ask how long
 * (timers, deferred calls), epoll_pwait2, then with the lock held call fd
 * handlers, deferred calls and timers. A waker changes what the loop
 * would look at and then looks at `asleep`; the loop sets `asleep` and then looks at
 * what a waker may have changed. Both are sequentially consistent, so one of the two
 * sees the other, and a busy loop costs a waker no system call.
 *
 * A handler that is removed while its event is already in hand stays allocated
 * until the end of the round. Files that epoll refuses because they never block
 * (regular files, /dev/null) count as always ready.
 */
#include "host/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"

#define EVENTS_PER_WAIT 32
#define SLEEP_FOREVER   UINT64_MAX

struct loop_fd {
    struct loop *loop;
    int fd;
    unsigned events;
    loop_fd_fn *fn; /* NULL: removed, freed at the end of the round */
    void *opaque;
    bool polled; /* is in the epoll set */
    bool always; /* epoll does not take it: always ready */
    struct loop_fd *next;
};

struct deferred {
    loop_call_fn *fn;
    void *opaque;
    struct deferred *next;
};

struct loop {
    int epoll_fd, wake_fd;
    bool coarse_wait; /* the host has no epoll_pwait2 */
    bool dispatching;
    bool garbage; /* some handler was removed during this round */
    struct loop_fd *handlers;
    _Atomic size_t always_count; /* handlers that are always ready and want events */
    struct loop_hooks hooks;
    _Atomic bool asleep;

    struct host_mutex mutex; /* protects the queue of deferred calls */
    struct deferred *first, **last;
    struct deferred *running; /* what is left of the ones that are called now */
    _Atomic bool has_deferred;
};

static uint32_t epoll_events(unsigned events)
{
    return (events & LOOP_READ ? EPOLLIN : 0u) | (events & LOOP_WRITE ? EPOLLOUT : 0u) |
           (events & LOOP_HANGUP ? EPOLLRDHUP : 0u);
}

/*
 * Errors and hang-ups cannot be switched off in epoll: who did not ask for them
 * gets what was asked for, and finds out by reading or writing.
 */
static unsigned events_for(const struct loop_fd *handler, uint32_t polled)
{
    unsigned events = (polled & EPOLLIN ? LOOP_READ : 0u) | (polled & EPOLLOUT ? LOOP_WRITE : 0u);

    if (polled & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        events |= handler->events & LOOP_HANGUP ? LOOP_HANGUP : (unsigned)(LOOP_READ | LOOP_WRITE);
    return events & handler->events;
}

struct loop *loop_new(struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

    if (!loop) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    host_mutex_init(&loop->mutex);
    loop->last = &loop->first;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
        error_set(err, errno, "cannot set up the main loop: %s", strerror(errno));
        loop_free(loop);
        return NULL;
    }
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    while (loop->handlers) {
        struct loop_fd *handler = loop->handlers;

        loop->handlers = handler->next;
        free(handler);
    }
    while (loop->first) {
        struct deferred *call = loop->first;

        loop->first = call->next;
        free(call);
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    host_mutex_done(&loop->mutex);
    free(loop);
}

/* Make the epoll set agree with handler->events. Returns 0 or -errno. */
static int poll_update(struct loop_fd *handler)
{
    struct loop *loop = handler->loop;
    struct epoll_event event = {.events = epoll_events(handler->events), .data.ptr = handler};
    int operation = handler->polled ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (handler->always)
        return 0;
    if (!handler->events) {
        if (handler->polled)
            epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, handler->fd, NULL);
        handler->polled = false;
        return 0;
    }
    if (epoll_ctl(loop->epoll_fd, operation, handler->fd, &event) < 0) {
        if (errno != EPERM)
            return -errno;
        handler->always = true;
        return 0;
    }
    handler->polled = true;
    return 0;
}

static bool always_wanted(const struct loop_fd *handler)
{
    return handler->always && handler->events & (LOOP_READ | LOOP_WRITE);
}

struct loop_fd *loop_add_fd(struct loop *loop, int fd, unsigned events, loop_fd_fn *fn,
                            void *opaque, struct error *err)
{
    struct loop_fd *handler = calloc(1, sizeof(*handler));
    int ret;

    if (!handler) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    *handler =
        (struct loop_fd){.loop = loop, .fd = fd, .events = events, .fn = fn, .opaque = opaque};
    ret = poll_update(handler);
    if (ret) {
        error_set(err, -ret, "cannot wait for file descriptor %d: %s", fd, strerror(-ret));
        free(handler);
        return NULL;
    }
    loop->always_count += always_wanted(handler);
    handler->next = loop->handlers;
    loop->handlers = handler;
    return handler;
}

void loop_set_events(struct loop_fd *handler, unsigned events)
{
    if (events == handler->events)
        return;
    handler->loop->always_count -= always_wanted(handler);
    handler->events = events;
    poll_update(handler);
    handler->loop->always_count += always_wanted(handler);
    if (always_wanted(handler)) /* epoll does not wake a sleeping loop for it */
        loop_wake(handler->loop);
}

static void free_removed(struct loop *loop)
{
    struct loop_fd **link = &loop->handlers;

    while (*link) {
        struct loop_fd *handler = *link;

        if (handler->fn) {
            link = &handler->next;
            continue;
        }
        *link = handler->next;
        free(handler);
    }
    loop->garbage = false;
}

void loop_remove_fd(struct loop_fd *handler)
{
    struct loop *loop;

    if (!handler)
        return;
    loop = handler->loop;
    loop_set_events(handler, 0);
    handler->fn = NULL;
    loop->garbage = true;
    if (!loop->dispatching)
        free_removed(loop);
}

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    int saved = errno;

    /* Pairs with the store in loop_once, see the top. */
    if (atomic_exchange(&loop->asleep, false))
        while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
    errno = saved;
}

int loop_defer(struct loop *loop, loop_call_fn *fn, void *opaque)
{
    struct deferred *call = calloc(1, sizeof(*call));

    if (!call)
        return -ENOMEM;
    call->fn = fn;
    call->opaque = opaque;
    host_mutex_lock(&loop->mutex);
    *loop->last = call;
    loop->last = &call->next;
    host_mutex_unlock(&loop->mutex);
    atomic_store(&loop->has_deferred, true);
    loop_wake(loop);
    return 0;
}

static void forget(struct deferred *call, const void *opaque)
{
    for (; call; call = call->next)
        if (call->opaque == opaque)
            call->fn = NULL;
}

void loop_undefer(struct loop *loop, const void *opaque)
{
    host_mutex_lock(&loop->mutex);
    forget(loop->first, opaque);
    host_mutex_unlock(&loop->mutex);
    forget(loop->running, opaque);
}

/* Calls that are added meanwhile wait for the next round. */
static void run_deferred(struct loop *loop)
{
    if (!atomic_exchange(&loop->has_deferred, false))
        return;
    host_mutex_lock(&loop->mutex);
    loop->running = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    host_mutex_unlock(&loop->mutex);
    while (loop->running) {
        struct deferred *call = loop->running;

        loop->running = call->next;
        if (call->fn)
            call->fn(call->opaque);
        free(call);
    }
}

static int wait_coarse(struct loop *loop, struct epoll_event *events, uint64_t timeout_ns)
{
    uint64_t milliseconds = timeout_ns / 1000000u + (timeout_ns % 1000000u != 0);
    int timeout = milliseconds > 1000000u ? 1000000 : (int)milliseconds;

    if (timeout_ns == SLEEP_FOREVER)
        timeout = -1;
    return epoll_wait(loop->epoll_fd, events, EVENTS_PER_WAIT, timeout);
}

static int wait_for_events(struct loop *loop, struct epoll_event *events, uint64_t timeout_ns)
{
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / 1000000000u),
        .tv_nsec = (long)(timeout_ns % 1000000000u),
    };
    int count;

    if (loop->coarse_wait || timeout_ns == 0 || timeout_ns == SLEEP_FOREVER)
        return wait_coarse(loop, events, timeout_ns);
    count = epoll_pwait2(loop->epoll_fd, events, EVENTS_PER_WAIT, &timeout, NULL);
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
        loop->coarse_wait = true;
        return wait_coarse(loop, events, timeout_ns);
    }
    return count;
}

static void drain_wake(struct loop *loop)
{
    uint64_t count;

    while (read(loop->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

static void dispatch(struct loop *loop, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        struct loop_fd *handler = events[i].data.ptr;
        unsigned happened;

        if (!handler) {
            drain_wake(loop);
            continue;
        }
        happened = handler->fn ? events_for(handler, events[i].events) : 0;
        if (happened)
            handler->fn(handler->opaque, happened);
    }
}

/* Handlers are added at the front of the list, so those added meanwhile are not visited. */
static void dispatch_always(struct loop *loop)
{
    for (struct loop_fd *handler = loop->handlers; handler; handler = handler->next)
        if (handler->fn && always_wanted(handler))
            handler->fn(handler->opaque, handler->events & (LOOP_READ | LOOP_WRITE));
}

void loop_set_hooks(struct loop *loop, const struct loop_hooks *hooks)
{
    loop->hooks = hooks ? *hooks : (struct loop_hooks){0};
}

static uint64_t sleep_time_ns(struct loop *loop, uint64_t limit_ns)
{
    uint64_t wait_ns = SLEEP_FOREVER;

    if (loop->always_count || atomic_load(&loop->has_deferred))
        return 0;
    if (loop->hooks.wait_ns)
        wait_ns = loop->hooks.wait_ns(loop->hooks.opaque);
    return wait_ns < limit_ns ? wait_ns : limit_ns;
}

static void call_due(struct loop *loop, const struct epoll_event *events, int count)
{
    const struct loop_hooks hooks = loop->hooks;

    if (hooks.lock)
        hooks.lock(hooks.opaque);
    loop->dispatching = true;
    dispatch(loop, events, count);
    if (loop->always_count)
        dispatch_always(loop);
    run_deferred(loop);
    if (hooks.run_timers)
        hooks.run_timers(hooks.opaque);
    loop->dispatching = false;
    if (loop->garbage)
        free_removed(loop);
    if (hooks.unlock)
        hooks.unlock(hooks.opaque);
}

/* True when the loop is to end; asked after asleep is set, so that no request is lost. */
static bool round_of(struct loop *loop, uint64_t limit_ns)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int count;

    atomic_store(&loop->asleep, true);
    if (loop->hooks.finished && loop->hooks.finished(loop->hooks.opaque)) {
        atomic_store(&loop->asleep, false);
        return true;
    }
    count = wait_for_events(loop, events, sleep_time_ns(loop, limit_ns));
    atomic_store(&loop->asleep, false);
    call_due(loop, events, count);
    return false;
}

void loop_once(struct loop *loop, uint64_t timeout_ns)
{
    round_of(loop, timeout_ns);
}

void loop_run(struct loop *loop)
{
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* 50 microseconds are too late for a timer */
    while (!round_of(loop, SLEEP_FOREVER))
        ;
}
