/*
 * block.h - disks and their images
 *
 * A block device is a stack of nodes (an image format on a file); devices see only its
 * end: requests that are submitted and end some time later. Requests overlap, and end in any order;
 * who needs an order waits. A write has reached the disk when a flush that was submitted after its
 * end has ended.
 *
 * All calls with the machine lock held unless they say otherwise.
 */
#ifndef TRAPEZE_BLOCK_H
#define TRAPEZE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"
#include "trapeze/io_piece.h"
#include "trapeze/property.h"

struct block;
struct loop;

#define BLOCK_SECTOR_BYTES 512u

enum block_op {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,
    BLOCK_DISCARD, /* the contents do not matter any more; they may stay or become zero */
    BLOCK_ZERO,
};

struct block_request {
    enum block_op op;
    uint64_t offset, size_bytes;   /* of all but FLUSH; within the device */
    const struct io_piece *pieces; /* READ, WRITE: size_bytes in all; unchanged until it ends */
    unsigned piece_count;
    /* 0 or -errno. The request is the caller's again. */
    void (*done)(struct block_request *request, int status);
};

/*
 * Open "FILE[,PROPERTY=VALUE]..." (a comma in FILE is doubled; block_properties has the list).
 * The image is locked: for reading with others, or for writing alone.
 */
struct block *block_open(struct loop *loop, const char *description, struct error *err);
/* Is it a URI, of a disk that is not a file of this host? nbd://, nbds://, nbd+unix://... */
bool block_is_uri(const char *file);
/* Nothing may be under way. Flushes what was written. NULL is fine. */
void block_free(struct block *block);

uint64_t block_size_bytes(const struct block *block); /* a multiple of BLOCK_SECTOR_BYTES */
bool block_is_read_only(const struct block *block);
bool block_is_remote(const struct block *block); /* opened by a URI */
bool block_has_ring(const struct block *block);  /* the kernel executes requests (io_uring) */
/* Is each write safe when it ends (cache=)? Then there is no cache that a guest has to flush. */
bool block_is_write_through(const struct block *block);
/* What has been read and written since it was opened, without what failed. */
struct block_counts {
    uint64_t reads, read_bytes, writes, written_bytes;
};
struct block_counts block_counts(const struct block *block);
/* Does DISCARD give room back? If not it is done and changes nothing. */
bool block_can_discard(const struct block *block);

/*
 * request stays until done() was called, which may be before this returns. What is out of range, or
 * writes to a device that is read-only, ends with -EINVAL or -EROFS.
 */
void block_submit(struct block *block, struct block_request *request);
/*
 * Wait until nothing is under way, done() was called for all. What was kept ends with its error,
 * what is throttled and has not begun with -ECANCELED.
 */
void block_drain(struct block *block);
/*
 * Wait until nothing of owner's is under way: as block_drain(), but what is another's and throttled
 * or kept stays so. owns() says whose a request is; it is called for all of the device's.
 */
typedef bool block_owns_fn(const void *owner, const struct block_request *request);
void block_drain_owner(struct block *block, block_owns_fn *owns, const void *owner);

/*
 * An error that pauses the machine (werror=, rerror=): its request is kept, and pause() told why.
 * Without pause() such errors are reported like others.
 */
typedef void block_pause_fn(void *opaque, const char *why);
void block_set_pause(struct block *block, block_pause_fn *pause, void *opaque);
/*
 * In a device's quiesce(): as block_drain(), but what was kept stays. The device takes all of it
 * back, in the order in which it failed, makes it a part of its state, and begins it anew in its
 * resume(). block_take_kept(): a request that is the caller's again without done(), and with what
 * it failed; NULL: there is none.
 */
void block_quiesce(struct block *block);
struct block_request *block_take_kept(struct block *block, int *out_status);

/* The properties of a description, for help texts. */
extern const struct property block_properties[];

#endif
