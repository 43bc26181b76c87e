/*
 * ring.h - reads and writes that the kernel executes while the caller goes on (io_uring)
 *
 * A ring can only read and write: the kernel is told so when it is made, so whoever takes over the
 * process later can open nothing by it.
 *
 * All calls with the loop's lock held. Only one thread at a time then uses a ring, any thread.
 */
#ifndef HOST_RING_H
#define HOST_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "trapeze/error.h"

struct loop;
struct ring;

/* result: bytes, or -errno. May submit, and wait for others. */
typedef void ring_done_fn(void *opaque, int result);

/*
 * done() is called by the loop, or by ring_wait(). NULL, and err says why, where the kernel has no
 * rings or allows none.
 */
struct ring *ring_new(struct loop *loop, ring_done_fn *done, struct error *err);
/* Nothing may be under way any more. NULL is fine. */
void ring_free(struct ring *ring);

/*
 * Read from or write to a file at offset. iov is the caller's again at once, what it points to when
 * it is done. flags: RWF_... 0; -EAGAIN: there is no room, nothing was begun.
 */
int ring_submit(struct ring *ring, int fd, bool is_write, const struct iovec *iov, unsigned count,
                uint64_t offset, int flags, void *opaque);
/* Has anything begun that is not done? */
bool ring_is_busy(const struct ring *ring);
/* Wait until something is done, and call done() for what is. */
void ring_wait(struct ring *ring);

#endif
