/*
 * work.h - calls that may wait, made on threads of their own
 *
 * A pool runs what is submitted on a few worker threads, and tells the main loop when it is done.
 * Work is taken up in the order of submission, but nothing is promised about the order in which it
 * ends.
 */
#ifndef HOST_WORK_H
#define HOST_WORK_H

#include "trapeze/error.h"

struct loop;
struct work_pool;

/* Embedded in what the caller needs; the caller's until it is submitted, and again from done() on.
 */
struct work {
    void (*run)(struct work *work);  /* on a worker's thread, without any lock */
    void (*done)(struct work *work); /* with the loop's lock held; may free or submit work */
    struct work *next;
};

/* 1 to 64 threads, started at once. */
struct work_pool *work_pool_new(struct loop *loop, unsigned threads, struct error *err);
/* Nothing may be under way any more. NULL is fine. */
void work_pool_free(struct work_pool *pool);
/* Any thread. */
void work_submit(struct work_pool *pool, struct work *work);
/* Wait until something is done, and call done() for what is. Loop's lock held. */
void work_wait(struct work_pool *pool);

#endif
