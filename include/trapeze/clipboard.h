/*
 * clipboard.h - text that people copy, between viewers and the guest
 *
 * Each who can copy and paste is a peer: a viewer, a device whose driver in the guest does. What
 * one copies, all others are told. The last text is kept for those who come later.
 *
 * Threads: the machine lock is held for every call in here and for every call of peers, on any
 * thread.
 */
#ifndef TRAPEZE_CLIPBOARD_H
#define TRAPEZE_CLIPBOARD_H

#include <stddef.h>

struct machine;

#define CLIPBOARD_MAX (1u << 20) /* bytes of a text */

struct clipboard_ops {
    /* Another peer has copied something: clipboard_text(). It does not come or go in here. */
    void (*changed)(void *opaque);
};

/* Embedded in its owner. */
struct clipboard_peer {
    const struct clipboard_ops *ops;
    void *opaque;
    struct clipboard_peer *next;
};

struct clipboard *machine_clipboard(struct machine *machine);

void clipboard_join(struct clipboard *clipboard, struct clipboard_peer *peer);
/* No effect on one that has not joined. */
void clipboard_leave(struct clipboard *clipboard, struct clipboard_peer *peer);
/* The peer has this text, UTF-8 for all that is known, which is copied. -E2BIG, -ENOMEM. */
int clipboard_copy(struct clipboard *clipboard, const struct clipboard_peer *peer, const char *text,
                   size_t size);
/* What was copied last; valid until the next copy. NULL: nothing. */
const char *clipboard_text(const struct clipboard *clipboard, size_t *out_size);
void clipboard_done(struct clipboard *clipboard);

/* Embedded in the machine, zero at first. */
struct clipboard {
    struct clipboard_peer *peers;
    char *text;
    size_t size;
};

#endif
