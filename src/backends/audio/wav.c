/*
 * wav.c - sound into a file that every player reads (RIFF, WAVE, PCM)
 *
 * The lengths in its header are brought up to date with each second of sound and at the end, so
 * that the file can be played when the machine was killed. A file that can take no more ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/audio/internal.h"
#include "base/bytes.h"
#include "base/log.h"

#define HEADER_BYTES 44u
#define MAX_BYTES    (UINT32_MAX - HEADER_BYTES - AUDIO_FRAME_BYTES)
#define BUFFER_BYTES 16384u

struct audio_sink {
    int fd;
    bool has_failed;
    uint32_t bytes; /* of sound in the file */
    uint32_t noted; /* in its header */
    uint32_t used;
    uint8_t buffer[BUFFER_BYTES];
};

static void fail(struct audio_sink *s)
{
    if (!s->has_failed)
        log_warn("the sound file is full, or cannot be written to: %s", strerror(errno));
    s->has_failed = true;
}

static void write_header(struct audio_sink *s)
{
    uint8_t h[HEADER_BYTES];

    memcpy(h, "RIFF", 4);
    put_le32(h + 4, HEADER_BYTES - 8 + s->bytes);
    memcpy(h + 8, "WAVEfmt ", 8);
    put_le32(h + 16, 16);
    put_le16(h + 20, 1); /* PCM */
    put_le16(h + 22, 2);
    put_le32(h + 24, AUDIO_HZ);
    put_le32(h + 28, AUDIO_HZ * AUDIO_FRAME_BYTES);
    put_le16(h + 32, AUDIO_FRAME_BYTES);
    put_le16(h + 34, 16);
    memcpy(h + 36, "data", 4);
    put_le32(h + 40, s->bytes);
    if (!s->has_failed && pwrite(s->fd, h, sizeof(h), 0) != sizeof(h))
        fail(s);
    s->noted = s->bytes;
}

static void empty_buffer(struct audio_sink *s)
{
    if (s->has_failed) {
        s->used = 0;
        return;
    }
    if (s->bytes > MAX_BYTES - s->used) {
        errno = EFBIG;
        fail(s);
    } else if (pwrite(s->fd, s->buffer, s->used, HEADER_BYTES + (off_t)s->bytes) !=
               (ssize_t)s->used) {
        fail(s);
    } else {
        s->bytes += s->used;
    }
    s->used = 0;
    if (s->bytes - s->noted >= AUDIO_HZ * AUDIO_FRAME_BYTES)
        write_header(s);
}

static struct audio_sink *wav_open(const char *path, struct error *err)
{
    struct audio_sink *s = calloc(1, sizeof(*s));

    if (!s) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (s->fd >= 0) {
        write_header(s);
        return s;
    }
    error_set(err, errno, "'%s': %s", path, strerror(errno));
    free(s);
    return NULL;
}

static void wav_write(struct audio_sink *s, const int16_t *samples, size_t frames)
{
    for (size_t n = 0; n < 2 * frames; n++) {
        put_le16(s->buffer + s->used, (uint16_t)samples[n]);
        s->used += 2;
        if (s->used == BUFFER_BYTES)
            empty_buffer(s);
    }
}

static void wav_close(struct audio_sink *s)
{
    empty_buffer(s);
    write_header(s);
    close(s->fd);
    free(s);
}

const struct audio_kind audio_wav = {
    .name = "wav",
    .summary = "a file: wav=FILE",
    .argument = "FILE",
    .open = wav_open,
    .write = wav_write,
    .close = wav_close,
};
