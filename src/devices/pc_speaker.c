/*
 * pc_speaker.c - what channel 2 of the PIT sounds like
 *
 * Theory of operation. The membrane follows OUT while the speaker's bit is set, else it rests: a
 * square wave, or what a program makes of the bit itself. Frames lie on one grid of virtual time;
 * each is the mean of SAMPLES looks at the level, so that programs that play samples by the length
 * of pulses are heard, too. Nothing is played once the speaker was off for REST_NS.
 */
#include "devices/pc_speaker.h"

#define SAMPLES  8u
#define LOUDNESS 6000
#define PART     256u
#define PART_NS  10000000u
#define REST_NS  50000000u
#define LATE_NS  200000000u /* what a late host has missed of more is not made up for */

static uint64_t frame_at(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * AUDIO_HZ / NANOSECONDS_PER_SECOND);
}

/* The time of a fraction of a frame. */
static uint64_t frame_ns(uint64_t frame, unsigned sample)
{
    return (uint64_t)(((unsigned __int128)frame * SAMPLES + sample) * NANOSECONDS_PER_SECOND /
                      ((uint64_t)AUDIO_HZ * SAMPLES));
}

static int16_t frame_of(struct pc_speaker *s, uint64_t frame)
{
    int32_t sum = 0;

    for (unsigned n = 0; s->is_on && n < SAMPLES; n++)
        sum += s->ops->level(s->opaque, frame_ns(frame, n));
    sum = sum * LOUDNESS / (int32_t)SAMPLES;
    s->after = sum - s->before + s->after * 995 / 1000;
    s->before = sum;
    return (int16_t)s->after;
}

static void stop(struct pc_speaker *s)
{
    timer_cancel(&s->timer);
    audio_stop(&s->voice);
}

void pc_speaker_play(struct pc_speaker *s)
{
    uint64_t now_ns, end;
    int16_t frames[PART];

    if (!s->voice.audio)
        return;
    now_ns = clock_now_ns(s->clocks, CLOCK_ID_VIRTUAL);
    end = frame_at(now_ns);
    if (end - s->played > frame_at(LATE_NS))
        s->played = end - frame_at(LATE_NS);
    while (s->played < end) {
        unsigned count = 0;

        while (count < PART && s->played < end)
            frames[count++] = frame_of(s, s->played++);
        audio_put(&s->voice, frames, count);
    }
    if (s->is_on)
        s->on_until_ns = now_ns;
    else if (now_ns - s->on_until_ns >= REST_NS)
        stop(s);
}

static void fire(void *opaque)
{
    struct pc_speaker *s = opaque;

    pc_speaker_play(s);
    if (s->voice.audio)
        timer_arm(&s->timer, clock_now_ns(s->clocks, CLOCK_ID_VIRTUAL) + PART_NS);
}

static void start(struct pc_speaker *s)
{
    uint64_t now_ns = clock_now_ns(s->clocks, CLOCK_ID_VIRTUAL);

    audio_start(s->audio, &s->voice, AUDIO_HZ, 1);
    s->played = frame_at(now_ns);
    s->on_until_ns = now_ns;
    s->before = s->after = 0;
    timer_arm(&s->timer, now_ns + PART_NS);
}

void pc_speaker_switch(struct pc_speaker *s, bool is_on)
{
    s->is_on = is_on;
    if (is_on && s->audio && !s->voice.audio)
        start(s);
}

void pc_speaker_reset(struct pc_speaker *s, bool is_on)
{
    stop(s);
    pc_speaker_switch(s, is_on);
}

void pc_speaker_init(struct pc_speaker *s, struct clocks *clocks, struct audio *audio,
                     const struct pc_speaker_ops *ops, void *opaque)
{
    *s = (struct pc_speaker){.clocks = clocks, .audio = audio, .ops = ops, .opaque = opaque};
    timer_init(&s->timer, clocks, CLOCK_ID_VIRTUAL, fire, s);
}

void pc_speaker_done(struct pc_speaker *s)
{
    if (!s->clocks)
        return;
    audio_stop(&s->voice);
    timer_done(&s->timer);
}
