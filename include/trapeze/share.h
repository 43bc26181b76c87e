/*
 * share.h - folders of the host that a guest mounts
 *
 * Each is served, in the protocol 9P2000.L, by a process of its own, which can reach nothing but
 * the folder and the guest's RAM. A device hands over the guest's messages and is told when they
 * are answered.
 *
 * All calls with the machine lock held unless they say otherwise.
 */
#ifndef TRAPEZE_SHARE_H
#define TRAPEZE_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/error.h"
#include "trapeze/io_piece.h"
#include "trapeze/property.h"
#include "trapeze/state.h"

struct loop;
struct memory;
struct share;

#define SHARE_MAX_TAG      32u  /* characters */
#define SHARE_MAX_REQUESTS 256u /* under way at a time */
#define SHARE_MAX_PIECES   272u /* of a request */

/* A message of the guest, and the room for the answer: pieces of its RAM, which stay as they are
 * until done(). */
struct share_request {
    const struct io_piece *pieces; /* out_count to be read, then in_count to be written */
    unsigned out_count, in_count;
    /* answer_bytes were written; or -EIO, and nothing was. The request is the caller's again. */
    void (*done)(struct share_request *request, int64_t answer_bytes);
    struct share_request *next; /* share.c's */
};

/*
 * Start serving "DIR[,PROPERTY=VALUE]..." (a comma in DIR is doubled; share_properties has the
 * list) by a new process, which inherits nothing; before there are threads. tag: unless the
 * description has one. sandboxed: it is confined to DIR by the kernel, too.
 */
struct share *share_open(const char *description, const char *tag, bool sandboxed,
                         struct error *err);
/* Ends the process. NULL is fine. */
void share_free(struct share *share);
const char *share_tag(const struct share *share); /* by which the guest mounts it */

/* The guest's RAM is memory, and the loop tells of answers. Once, before the first request. */
int share_connect(struct share *share, struct loop *loop, struct memory *memory, struct error *err);
/* request stays until done() was called, which may be before this returns. */
void share_submit(struct share *share, struct share_request *request);
/*
 * Give the server a moment, for 50 us at most: the answers that come meanwhile need no detour by
 * the loop. After the last of some share_submit().
 */
void share_wait_a_little(struct share *share);
/* Wait until nothing is under way, done() was called for all. */
void share_drain(struct share *share);
/* The guest begins anew: nothing is open any more. Nothing may be under way. */
void share_forget(struct share *share);

/*
 * What the guest has open, for a saved state: bytes of its own, appended to out, which is empty.
 * share_load() takes what may be hostile, and opens it again instead of what is open; a message to
 * what is not there any more ends with ESTALE. 0 or -errno; then nothing is open.
 */
#define SHARE_MAX_STATE (64u << 20)
int share_save(struct share *share, struct state_buffer *out, struct error *err);
int share_load(struct share *share, const struct state_buffer *saved, struct error *err);

/* The properties of a description, for help texts. */
extern const struct property share_properties[];

#endif
