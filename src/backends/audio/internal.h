/*
 * internal.h - what the mixer and its backends share
 */
#ifndef BACKENDS_AUDIO_INTERNAL_H
#define BACKENDS_AUDIO_INTERNAL_H

#include "trapeze/audio.h"

#define AUDIO_FRAME_BYTES 4u

struct audio_sink;

struct audio_kind {
    const char *name, *summary;
    const char *argument; /* what follows "NAME="; NULL: nothing does */
    /* NULL with err; write NULL: what is mixed is lost. */
    struct audio_sink *(*open)(const char *argument, struct error *err);
    /* Frames of the mix, one after the other: left and right. */
    void (*write)(struct audio_sink *sink, const int16_t *samples, size_t frames);
    void (*close)(struct audio_sink *sink);
};

extern const struct audio_kind audio_wav, audio_player;
/* Behind the program's first packet; socket is taken over. NULL with err. */
struct audio_sink *audio_player_open(int socket, struct error *err);

#endif
