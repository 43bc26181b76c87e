/*
 * frame_stream.c - frames over a stream socket, each with its length in front
 */
#include "backends/net/frame_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "backends/net/internal.h"
#include "base/bytes.h"

#define LENGTH_BYTES 4u
#define INPUT_BYTES  (256u << 10) /* at least one frame */
#define OUTPUT_BYTES (512u << 10)
#define BUSY_BYTES   (128u << 10)

bool frame_stream_init(struct frame_stream *stream)
{
    *stream = (struct frame_stream){.input = malloc(INPUT_BYTES), .output = malloc(OUTPUT_BYTES)};
    return stream->input && stream->output;
}

void frame_stream_done(struct frame_stream *stream)
{
    free(stream->input);
    free(stream->output);
    *stream = (struct frame_stream){NULL};
}

void frame_stream_clear(struct frame_stream *stream)
{
    stream->input_bytes = stream->output_bytes = 0;
}

static int put_frames(struct frame_stream *stream, frame_stream_put *put, void *opaque)
{
    size_t done = 0;

    while (stream->input_bytes - done >= LENGTH_BYTES) {
        size_t size = get_be32(stream->input + done);

        if (!size || size > NET_MAX_FRAME_BYTES)
            return -EPROTO;
        if (stream->input_bytes - done < LENGTH_BYTES + size)
            break;
        put(opaque, stream->input + done + LENGTH_BYTES, size);
        done += LENGTH_BYTES + size;
    }
    memmove(stream->input, stream->input + done, stream->input_bytes - done);
    stream->input_bytes -= done;
    return 0;
}

int frame_stream_read(struct frame_stream *stream, int fd, frame_stream_put *put, void *opaque)
{
    ssize_t size = recv(fd, stream->input + stream->input_bytes, INPUT_BYTES - stream->input_bytes,
                        MSG_DONTWAIT);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (size <= 0)
        return -ECONNRESET;
    stream->input_bytes += (size_t)size;
    return put_frames(stream, put, opaque);
}

bool frame_stream_is_busy(const struct frame_stream *stream)
{
    return stream->output_bytes > BUSY_BYTES;
}

bool frame_stream_add(struct frame_stream *stream, const struct net_frame *frame)
{
    uint8_t *to = stream->output + stream->output_bytes;

    if (frame->size_bytes + LENGTH_BYTES > OUTPUT_BYTES - stream->output_bytes)
        return false;
    put_be32(to, (uint32_t)frame->size_bytes);
    net_gather(frame, to + LENGTH_BYTES);
    stream->output_bytes += LENGTH_BYTES + frame->size_bytes;
    return true;
}

void frame_stream_write(struct frame_stream *stream, int fd)
{
    ssize_t size = send(fd, stream->output, stream->output_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (size < 0)
        return;
    stream->output_bytes -= (size_t)size;
    memmove(stream->output, stream->output + size, stream->output_bytes);
}
