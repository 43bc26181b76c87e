/*
 * throttle.h - no more requests, or bytes, in a second than the host's owner gives a disk
 *
 * Each limit is a bucket with a leak: a request may start while the bucket is not full, and fills
 * it by what it costs; the bucket leaks at the limit's rate. Requests of one direction start in
 * order; of two that may start the older one does. Time is the host's monotonic clock.
 *
 * All calls with the machine lock held.
 */
#ifndef BACKENDS_BLOCK_THROTTLE_H
#define BACKENDS_BLOCK_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/error.h"

struct loop;
struct throttle;

/* Properties. Requests and bytes a second, 0: any number; what is behind a _max is for a burst, and
 * _max_length how many seconds it may last. */
struct throttle_options {
    uint64_t iops, iops_rd, iops_wr, bps, bps_rd, bps_wr;
    uint64_t iops_max, iops_rd_max, iops_wr_max, bps_max, bps_rd_max, bps_wr_max;
    uint32_t iops_max_length, iops_rd_max_length, iops_wr_max_length;
    uint32_t bps_max_length, bps_rd_max_length, bps_wr_max_length;
    uint64_t iops_size; /* larger requests count as several; 0: as one */
};

/* A request that waits; the caller's again from start() on. */
struct throttled {
    struct throttled *next;
    uint64_t order;
    uint64_t size_bytes; /* what it moves */
    bool is_write;
};

/* *out_throttle: NULL if there is no limit. start() may submit. */
int throttle_new(const struct throttle_options *options, struct loop *loop,
                 void (*start)(struct throttled *request), struct throttle **out_throttle,
                 struct error *err);
void throttle_free(struct throttle *throttle); /* nothing may wait; NULL is fine */
/* start() is called when it is time, which may be before this returns. */
void throttle_submit(struct throttle *throttle, struct throttled *request);
/* Start all that wait; they count. NULL is fine. */
void throttle_hurry(struct throttle *throttle);
/* Those that wait and are meant, one by one; they do not start. NULL: none. */
struct throttled *throttle_take(struct throttle *throttle,
                                bool (*is_meant)(const void *opaque,
                                                 const struct throttled *request),
                                const void *opaque);

#endif
