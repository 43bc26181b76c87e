/*
 * audio.h - where sound goes
 *
 * A device plays through voices. It keeps time itself, by the guest's clock: what it puts in is
 * what has sounded since it did so last. All voices are mixed, to 16 bits, stereo, AUDIO_HZ, and
 * the mix goes to the backend. While no voice plays its time stands still; a tenth of a second of
 * silence is left of it.
 *
 * All calls with the machine lock held.
 */
#ifndef TRAPEZE_AUDIO_H
#define TRAPEZE_AUDIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

#define AUDIO_HZ     48000u
#define AUDIO_MAX_HZ 192000u

struct audio;

/* Embedded in its owner; zeroed, it is silent. */
struct audio_voice {
    struct audio *audio; /* NULL: it does not play */
    struct audio_voice *next;
    uint32_t rate_hz;
    uint8_t channels;
    uint64_t at;     /* in the mix: frames */
    uint32_t phase;  /* of the mix's next frame between the voice's two last: 1/AUDIO_HZ */
    int32_t last[2]; /* frame that was put in */
};

/*
 * "null", "wav=FILE". "sdl" wants a program that plays (src/sound/) at the other end of player, a
 * socket of whole packets, which is taken over; -1: there is none.
 */
struct audio *audio_open(const char *description, int player, struct error *err);
bool audio_wants_player(const char *description);
void audio_free(struct audio *audio); /* NULL is fine; no voice plays any more */
/* -EINVAL: there is no such backend. */
int audio_check(const char *description, struct error *err);
/* The kinds of backend, for help texts: names from index 0 on, NULL after the last. */
const char *audio_kind_name(unsigned index);
const char *audio_kind_summary(unsigned index);

/* rate_hz: 1 to AUDIO_MAX_HZ; channels: 1, or more, of which the first two are heard. audio NULL:
 * nobody listens. */
void audio_start(struct audio *audio, struct audio_voice *voice, uint32_t rate_hz,
                 unsigned channels);
/* Frames of channels signed samples each. Without effect while it does not play. */
void audio_put(struct audio_voice *voice, const int16_t *samples, size_t frames);
void audio_stop(struct audio_voice *voice);

#endif
