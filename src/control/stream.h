/*
 * stream.h - sockets of the control interfaces
 *
 * A server listens on a unix or TCP address and hands out connections; a stream is
 * one connection with an output queue. Everything runs on the main loop's thread with
 * the machine lock held. Peers are hostile: what they do not read is queued up to a
 * limit, and while much is queued nothing more is read from them.
 */
#ifndef CONTROL_STREAM_H
#define CONTROL_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct loop;
struct stream;
struct stream_server;

/* Descriptors that wait to be taken; more are closed. */
#define STREAM_MAX_FILES        32u
/* A stream whose unread output exceeds this is cut off. */
#define STREAM_MAX_QUEUED_BYTES (16u << 20)

struct stream_events {
    /* Bytes came. May send and finish; must not free. */
    void (*receive)(void *opaque, const uint8_t *data, size_t size_bytes);
    /* The connection is over, from either side: the last call. Must stream_free. */
    void (*closed)(void *opaque);
};

/* Takes the connected socket fd over, also on failure (it is closed then). */
struct stream *stream_new(struct loop *loop, int fd, const struct stream_events *events,
                          void *opaque, struct error *err);
/* Closes without sending what is queued, and without closed(). NULL is fine. */
void stream_free(struct stream *stream);

/* Send or queue. A peer that is gone or does not read is noticed later, by closed(). */
void stream_send(struct stream *stream, const void *data, size_t size_bytes);
/* Send what is queued, then end the connection; closed() follows from the loop. */
void stream_finish(struct stream *stream);

/* The next descriptor that the peer has sent (SCM_RIGHTS), which is the caller's; -1: none. */
int stream_take_file(struct stream *stream);

/* fd is a new connection, which the callee owns. */
typedef void stream_accept_fn(void *opaque, int fd);

/*
 * Listen on "unix:PATH" or a path with a slash or without digits only; or "[HOST:]PORT", where
 * HOST is localhost if left out. A unix socket is for its owner only; a dead one of the same
 * name is replaced, and it is removed when the server is freed.
 */
struct stream_server *stream_listen(struct loop *loop, const char *address,
                                    stream_accept_fn *accepted, void *opaque, struct error *err);
/* The same on the first port of 127.0.0.1, from first to last, that is free. */
struct stream_server *stream_listen_first(struct loop *loop, unsigned first, unsigned last,
                                          stream_accept_fn *accepted, void *opaque,
                                          struct error *err);
void stream_server_free(struct stream_server *server); /* NULL is fine */
/* The TCP port (useful after ":0"), or 0. */
unsigned stream_server_port(const struct stream_server *server);

/* Connect to such an address and block until done. Returns the socket or -errno. Any thread. */
int stream_connect(const char *address, struct error *err);

#endif
