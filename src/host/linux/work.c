/*
 * work.c - calls that may wait, made on threads of their own
 */
#include "host/work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/host.h"
#include "host/loop.h"

#define MAX_THREADS 64

struct work_list {
    struct work *first, **last;
};

struct work_pool {
    struct host_mutex mutex; /* protects the lists and stopping */
    struct host_cond submitted, finished;
    struct work_list waiting, done;
    unsigned under_way; /* submitted, and done() not called yet */
    bool stopping;
    unsigned thread_count;
    struct host_thread *threads[MAX_THREADS];
    int event_fd; /* readable while there may be something in done */
    struct loop_fd *handler;
};

static void list_clear(struct work_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_add(struct work_list *list, struct work *work)
{
    work->next = NULL;
    *list->last = work;
    list->last = &work->next;
}

static struct work *list_take(struct work_list *list)
{
    struct work *work = list->first;

    if (work) {
        list->first = work->next;
        if (!list->first)
            list->last = &list->first;
    }
    return work;
}

/* ---- workers ---- */

/* mutex is held. */
static void finish(struct work_pool *pool, struct work *work)
{
    bool was_empty = !pool->done.first;

    list_add(&pool->done, work);
    host_cond_broadcast(&pool->finished);
    if (was_empty && eventfd_write(pool->event_fd, 1))
        abort(); /* fails only if the descriptor is not an eventfd's */
}

static void worker(void *opaque)
{
    struct work_pool *pool = opaque;

    host_mutex_lock(&pool->mutex);
    for (;;) {
        struct work *work = list_take(&pool->waiting);

        if (work) {
            host_mutex_unlock(&pool->mutex);
            work->run(work);
            host_mutex_lock(&pool->mutex);
            finish(pool, work);
        } else if (pool->stopping) {
            break;
        } else {
            host_cond_wait(&pool->submitted, &pool->mutex);
        }
    }
    host_mutex_unlock(&pool->mutex);
}

/* ---- the loop's side ---- */

/* One by one, so that a done() that waits for others does not miss those that are done too. */
static void call_done(struct work_pool *pool)
{
    struct work *work;

    do {
        host_mutex_lock(&pool->mutex);
        work = list_take(&pool->done);
        if (work)
            pool->under_way--;
        host_mutex_unlock(&pool->mutex);
        if (work)
            work->done(work);
    } while (work);
}

static void on_event(void *opaque, unsigned events)
{
    struct work_pool *pool = opaque;
    eventfd_t count;

    (void)events;
    if (eventfd_read(pool->event_fd, &count) == 0)
        call_done(pool);
}

void work_submit(struct work_pool *pool, struct work *work)
{
    host_mutex_lock(&pool->mutex);
    pool->under_way++;
    list_add(&pool->waiting, work);
    host_cond_broadcast(&pool->submitted);
    host_mutex_unlock(&pool->mutex);
}

void work_wait(struct work_pool *pool)
{
    host_mutex_lock(&pool->mutex);
    while (pool->under_way && !pool->done.first)
        host_cond_wait(&pool->finished, &pool->mutex);
    host_mutex_unlock(&pool->mutex);
    call_done(pool);
}

struct work_pool *work_pool_new(struct loop *loop, unsigned threads, struct error *err)
{
    struct work_pool *pool = calloc(1, sizeof(*pool));

    if (!pool) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    host_mutex_init(&pool->mutex);
    host_cond_init(&pool->submitted);
    host_cond_init(&pool->finished);
    list_clear(&pool->waiting);
    list_clear(&pool->done);
    pool->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (pool->event_fd < 0) {
        error_set(err, errno, "eventfd: %s", strerror(errno));
        work_pool_free(pool);
        return NULL;
    }
    pool->handler = loop_add_fd(loop, pool->event_fd, LOOP_READ, on_event, pool, err);
    while (pool->handler && pool->thread_count < threads && pool->thread_count < MAX_THREADS) {
        struct host_thread *thread = host_thread_start("worker", worker, pool, err);

        if (!thread) {
            work_pool_free(pool);
            return NULL;
        }
        pool->threads[pool->thread_count++] = thread;
    }
    if (pool->handler)
        return pool;
    work_pool_free(pool);
    return NULL;
}

void work_pool_free(struct work_pool *pool)
{
    if (!pool)
        return;
    host_mutex_lock(&pool->mutex);
    pool->stopping = true;
    host_cond_broadcast(&pool->submitted);
    host_mutex_unlock(&pool->mutex);
    for (unsigned n = 0; n < pool->thread_count; n++)
        host_thread_join(pool->threads[n]);
    loop_remove_fd(pool->handler);
    if (pool->event_fd >= 0)
        close(pool->event_fd);
    host_cond_done(&pool->finished);
    host_cond_done(&pool->submitted);
    host_mutex_done(&pool->mutex);
    free(pool);
}
