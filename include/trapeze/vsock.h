/*
 * vsock.h - programs on the host that speak with programs in a guest by virtio sockets
 *
 * The host's side is unix sockets. Who connects to PATH and writes "CONNECT PORT\n" is led to the
 * guest's port, and reads "OK PORT\n" when somebody listens there; the guest's connections to a
 * port of the host lead to a socket at PATH_PORT, which a process of its own connects to, so that
 * the machine's cannot connect to anything else.
 *
 * All calls with the machine lock held unless they say otherwise.
 */
#ifndef TRAPEZE_VSOCK_H
#define TRAPEZE_VSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct loop;
struct vsock;
struct vsock_stream; /* a socket of the host */

#define VSOCK_MAX_STREAMS 256u

struct vsock_frontend {
    /* A stream wants a port of the guest: vsock_own() it, and vsock_accept() or close it later.
     * False: no, and it is closed. */
    bool (*requested)(void *opaque, struct vsock_stream *stream, uint32_t port);
    /* Of the owner of a stream: vsock_dial() has ended, with 0 or -errno. */
    void (*dialed)(void *owner, int status);
    void (*readable)(void *owner); /* vsock_read() has something; asked for by vsock_wait_read() */
    void (*writable)(void *owner); /* vsock_write() takes some again, after it took less */
    void *opaque;
};

/*
 * Listen on path and start the process that connects; before there are threads. sandboxed: it is
 * confined by the kernel, too.
 */
struct vsock *vsock_open(const char *path, bool sandboxed, struct error *err);
void vsock_free(struct vsock *vsock); /* closes all streams; NULL is fine */
/* The loop tells of clients; once. */
int vsock_start(struct vsock *vsock, struct loop *loop, struct error *err);
/* frontend stays the caller's; NULL: none, and all streams are closed. */
void vsock_connect(struct vsock *vsock, const struct vsock_frontend *frontend);

/* Connect to PATH_port; dialed() follows. NULL: there are too many. */
struct vsock_stream *vsock_dial(struct vsock *vsock, uint32_t port, void *owner);
void vsock_own(struct vsock_stream *stream, void *owner);
/* The guest has accepted: the client is told, with the port that it has on the host's side. */
void vsock_accept(struct vsock_stream *stream, uint32_t host_port);
/* Bytes; 0 at the end; -EAGAIN: not now; another -errno: it is broken. */
ptrdiff_t vsock_read(struct vsock_stream *stream, void *out, size_t size);
/* How much was taken, which may be 0; -errno: it is broken. */
ptrdiff_t vsock_write(struct vsock_stream *stream, const void *data, size_t size);
/* Call readable() when there is something, or not any more. Off at first. */
void vsock_wait_read(struct vsock_stream *stream, bool on);
bool vsock_is_hung_up(const struct vsock_stream *stream); /* neither reads nor writes any more */
void vsock_end_writing(struct vsock_stream *stream);      /* the other end reads the end */
void vsock_close(struct vsock_stream *stream);            /* NULL is fine */

#endif
