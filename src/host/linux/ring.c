/*
 * ring.c - reads and writes that the kernel executes while the caller goes on
 *
 * Theory of operation. The ring is made disabled, restricted, and then enabled. What it cannot take
 * is left to its caller. The loop polls the ring itself, which is readable while something is done.
 * Files are not registered: they, and with them their locks, would stay for a while when the
 * process has ended.
 */
#include "host/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/loop.h"

#ifdef HAVE_LIBURING
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 128u /* under way at most */

struct ring {
    struct io_uring uring;
    ring_done_fn *done;
    struct loop_fd *handler;
    unsigned under_way;
};

/* One by one, so that a done() that waits for others does not miss those that are done too. */
static void call_done(struct ring *ring)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        void *opaque = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&ring->uring, cqe);
        ring->under_way--;
        if (opaque)
            ring->done(opaque, result);
    }
}

static void on_event(void *opaque, unsigned events)
{
    (void)events;
    call_done(opaque);
}

void ring_free(struct ring *ring)
{
    if (!ring)
        return;
    while (ring->under_way) /* what submit() made nothing of */
        ring_wait(ring);
    loop_remove_fd(ring->handler);
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

/* Some builds of liburing lack the calls for it. */
static int set_up(struct io_uring *uring, unsigned operation, void *argument, unsigned count)
{
    return syscall(__NR_io_uring_register, uring->ring_fd, operation, argument, count) ? -errno : 0;
}

/* Only what is submitted here; no further registration. */
static int restrict_ring(struct io_uring *uring)
{
    struct io_uring_restriction rules[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP},
    };

    return set_up(uring, IORING_REGISTER_RESTRICTIONS, rules, sizeof(rules) / sizeof(rules[0]));
}

static int make_ring(struct io_uring *uring, struct error *err)
{
    int result = io_uring_queue_init(ENTRIES, uring, IORING_SETUP_R_DISABLED);

    if (result)
        return error_set(err, -result, "the kernel gives this process none: %s", strerror(-result));
    result = restrict_ring(uring);
    if (!result)
        result = set_up(uring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (!result)
        return 0;
    io_uring_queue_exit(uring);
    return error_set(err, -result, "the kernel cannot restrict it: %s", strerror(-result));
}

struct ring *ring_new(struct loop *loop, ring_done_fn *done, struct error *err)
{
    struct ring *ring = calloc(1, sizeof(*ring));

    if (!ring) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    if (make_ring(&ring->uring, err)) {
        free(ring);
        return NULL;
    }
    ring->done = done;
    ring->handler = loop_add_fd(loop, ring->uring.ring_fd, LOOP_READ, on_event, ring, err);
    if (ring->handler)
        return ring;
    ring_free(ring);
    return NULL;
}

int ring_submit(struct ring *ring, int fd, bool is_write, const struct iovec *iov, unsigned count,
                uint64_t offset, int flags, void *opaque)
{
    struct io_uring_sqe *sqe = ring->under_way < ENTRIES ? io_uring_get_sqe(&ring->uring) : NULL;

    if (!sqe)
        return -EAGAIN;
    if (is_write)
        io_uring_prep_writev2(sqe, fd, iov, count, offset, flags);
    else
        io_uring_prep_readv2(sqe, fd, iov, count, offset, flags);
    io_uring_sqe_set_data(sqe, opaque);
    ring->under_way++;
    if (io_uring_submit(&ring->uring) >= 0 && !io_uring_sq_ready(&ring->uring))
        return 0;
    /* The kernel is short of memory, and has not seen it: nothing, submitted with the next one. */
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, NULL);
    return -EAGAIN;
}

bool ring_is_busy(const struct ring *ring)
{
    return ring->under_way != 0;
}

void ring_wait(struct ring *ring)
{
    io_uring_submit_and_wait(&ring->uring, 1);
    call_done(ring);
}

#else

struct ring *ring_new(struct loop *loop, ring_done_fn *done, struct error *err)
{
    error_set(err, ENOTSUP, "this program was built without it (liburing)");
    return NULL;
}

void ring_free(struct ring *ring)
{
}

int ring_submit(struct ring *ring, int fd, bool is_write, const struct iovec *iov, unsigned count,
                uint64_t offset, int flags, void *opaque)
{
    return -EAGAIN;
}

bool ring_is_busy(const struct ring *ring)
{
    return false;
}

void ring_wait(struct ring *ring)
{
}

#endif
