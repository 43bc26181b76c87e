/*
 * pc_speaker.h - the speaker behind port 0x61 and channel 2 of the PIT
 *
 * Embedded in the PIT, which calls it before what it hears changes. Machine lock held.
 */
#ifndef DEVICES_PC_SPEAKER_H
#define DEVICES_PC_SPEAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/audio.h"
#include "trapeze/clock.h"

struct pc_speaker_ops {
    /* OUT of channel 2 at a time, which is not before the one of the last call. */
    bool (*level)(void *opaque, uint64_t now_ns);
};

/* No state that a guest can see. */
struct pc_speaker {
    struct clocks *clocks;
    struct audio *audio;
    const struct pc_speaker_ops *ops;
    void *opaque;
    struct timer timer;
    struct audio_voice voice;
    bool is_on;            /* the speaker's bit of port 0x61 */
    uint64_t played;       /* frames of virtual time */
    uint64_t on_until_ns;  /* while it plays: when it was last on */
    int32_t before, after; /* of the filter that takes out what does not move */
};

/* audio NULL: it is never heard, and costs nothing. */
void pc_speaker_init(struct pc_speaker *speaker, struct clocks *clocks, struct audio *audio,
                     const struct pc_speaker_ops *ops, void *opaque);
void pc_speaker_done(struct pc_speaker *speaker);
/* Play up to now. */
void pc_speaker_play(struct pc_speaker *speaker);
/* The bit was written; what was before has been played. */
void pc_speaker_switch(struct pc_speaker *speaker, bool is_on);
/* All is new: a reset, a state. */
void pc_speaker_reset(struct pc_speaker *speaker, bool is_on);

#endif
