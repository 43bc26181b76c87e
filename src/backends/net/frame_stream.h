/*
 * frame_stream.h - frames over a stream socket, each with its length in front
 *
 * 32 bits, big-endian: what passt and QEMU's stream sockets speak. The descriptor stays the
 * caller's. Not thread-safe.
 */
#ifndef BACKENDS_NET_FRAME_STREAM_H
#define BACKENDS_NET_FRAME_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/net.h"

struct frame_stream {
    uint8_t *input, *output;
    size_t input_bytes, output_bytes;
};

/* False: out of memory. done() is right for zeros, too. */
bool frame_stream_init(struct frame_stream *stream);
void frame_stream_done(struct frame_stream *stream);
void frame_stream_clear(struct frame_stream *stream); /* for another peer */

/*
 * Read what is there, and give put() each whole frame, which it may change. 0; -EAGAIN: there was
 * nothing; -ECONNRESET: the peer has gone; -EPROTO: what it sends are no frames.
 */
typedef void frame_stream_put(void *opaque, uint8_t *frame, size_t size_bytes);
int frame_stream_read(struct frame_stream *stream, int fd, frame_stream_put *put, void *opaque);

/* So much waits that no more should be added. */
bool frame_stream_is_busy(const struct frame_stream *stream);
/* Append a frame to what is to be sent. False: there is no room; nothing was appended. */
bool frame_stream_add(struct frame_stream *stream, const struct net_frame *frame);
/* Send what the socket takes. Errors show when it is read. */
void frame_stream_write(struct frame_stream *stream, int fd);

#endif
