/*
 * audio.c - voices are mixed, and the mix goes to a backend
 *
 * Theory of operation. The mix is a ring of frames. Each voice is brought to AUDIO_HZ and added at
 * its own place in it; what all voices have passed goes to the backend. A voice that begins does so
 * where the one that is furthest is. Rates are changed by straight lines between frames.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "backends/audio/internal.h"

#define MIX_FRAMES  16384u /* a power of two; 0.34 s */
#define PART_FRAMES 512u
#define GAP_FRAMES  (AUDIO_HZ / 10) /* between sounds; less than MIX_FRAMES */

struct audio {
    const struct audio_kind *kind;
    struct audio_sink *sink;
    struct audio_voice *voices;
    uint64_t from, to; /* frames that were not written yet */
    int32_t mix[MIX_FRAMES][2];
};

static const struct audio_kind audio_null = {.name = "null", .summary = "nobody listens"};

static const struct audio_kind *const kinds[] = {
    &audio_null,
    &audio_wav,
    &audio_player,
    NULL,
};

const char *audio_kind_name(unsigned index)
{
    return kinds[index] ? kinds[index]->name : NULL;
}

const char *audio_kind_summary(unsigned index)
{
    return kinds[index]->summary;
}

/* *out_argument: behind "NAME=". NULL with err. */
static const struct audio_kind *find_kind(const char *description, const char **out_argument,
                                          struct error *err)
{
    size_t length = strcspn(description, "=");
    const struct audio_kind *kind = NULL;

    for (unsigned n = 0; kinds[n] && !kind; n++)
        if (strlen(kinds[n]->name) == length && !strncmp(kinds[n]->name, description, length))
            kind = kinds[n];
    *out_argument = description[length] ? description + length + 1 : NULL;
    if (!kind)
        error_set(err, EINVAL, "there is no audio backend '%.*s'", (int)length, description);
    else if (kind->argument && !(*out_argument && **out_argument))
        error_set(err, EINVAL, "give a file: %s=%s", kind->name, kind->argument);
    else if (!kind->argument && *out_argument)
        error_set(err, EINVAL, "'%s' takes no value", kind->name);
    else
        return kind;
    return NULL;
}

int audio_check(const char *description, struct error *err)
{
    const char *argument;

    return find_kind(description, &argument, err) ? 0 : -EINVAL;
}

bool audio_wants_player(const char *description)
{
    return strcmp(description, audio_player.name) == 0;
}

/* False with err. */
static bool open_sink(struct audio *audio, const char *argument, int player, struct error *err)
{
    const struct audio_kind *kind = audio->kind;

    if (!kind->write)
        return true;
    audio->sink =
        kind == &audio_player ? audio_player_open(player, err) : kind->open(argument, err);
    return audio->sink;
}

struct audio *audio_open(const char *description, int player, struct error *err)
{
    const char *argument;
    const struct audio_kind *kind = find_kind(description, &argument, err);
    struct audio *audio = kind ? calloc(1, sizeof(*audio)) : NULL;

    if (kind && !audio)
        error_set(err, ENOMEM, "out of memory");
    if (!audio)
        return NULL;
    audio->kind = kind;
    if (open_sink(audio, argument, player, err))
        return audio;
    free(audio);
    return NULL;
}

/* ---- the mix ---- */

static int16_t clip(int32_t value)
{
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

/* All before the frame `until` goes to the backend. */
static void flush(struct audio *audio, uint64_t until)
{
    int16_t part[PART_FRAMES][2];

    while (audio->from < until) {
        size_t count = 0;

        for (; count < PART_FRAMES && audio->from < until; count++, audio->from++) {
            int32_t *frame = audio->mix[audio->from % MIX_FRAMES];

            part[count][0] = clip(frame[0]);
            part[count][1] = clip(frame[1]);
            frame[0] = frame[1] = 0;
        }
        if (audio->kind->write)
            audio->kind->write(audio->sink, part[0], count);
    }
}

/* What every voice has passed. */
static void flush_passed(struct audio *audio)
{
    uint64_t until = audio->to;

    for (const struct audio_voice *v = audio->voices; v; v = v->next)
        if (v->at < until)
            until = v->at;
    flush(audio, until);
}

static void add_frame(struct audio_voice *v, int32_t left, int32_t right)
{
    struct audio *audio = v->audio;
    int32_t *frame;

    if (v->at < audio->from) /* it stood still */
        v->at = audio->from;
    if (v->at - audio->from >= MIX_FRAMES) /* another one does */
        flush(audio, v->at - MIX_FRAMES + 1);
    frame = audio->mix[v->at++ % MIX_FRAMES];
    frame[0] += left;
    frame[1] += right;
    if (v->at > audio->to)
        audio->to = v->at;
}

static int32_t between(int32_t from, int32_t to, uint32_t phase)
{
    return from + (int32_t)((int64_t)(to - from) * phase / AUDIO_HZ);
}

void audio_put(struct audio_voice *v, const int16_t *samples, size_t frames)
{
    if (!v->audio)
        return;
    for (size_t n = 0; n < frames; n++) {
        int32_t left = samples[n * v->channels];
        int32_t right = samples[n * v->channels + (v->channels > 1)];

        for (; v->phase < AUDIO_HZ; v->phase += v->rate_hz)
            add_frame(v, between(v->last[0], left, v->phase), between(v->last[1], right, v->phase));
        v->phase -= AUDIO_HZ;
        v->last[0] = left;
        v->last[1] = right;
    }
    flush_passed(v->audio);
}

void audio_start(struct audio *audio, struct audio_voice *v, uint32_t rate_hz, unsigned channels)
{
    audio_stop(v);
    if (!audio)
        return;
    if (!audio->voices && audio->to) {
        audio->to += GAP_FRAMES;
        flush(audio, audio->to);
    }
    *v = (struct audio_voice){.audio = audio,
                              .next = audio->voices,
                              .rate_hz = rate_hz,
                              .channels = (uint8_t)channels,
                              .at = audio->to};
    audio->voices = v;
}

void audio_stop(struct audio_voice *v)
{
    struct audio *audio = v->audio;

    if (!audio)
        return;
    for (struct audio_voice **link = &audio->voices; *link; link = &(*link)->next)
        if (*link == v) {
            *link = v->next;
            break;
        }
    v->audio = NULL;
    flush_passed(audio);
}

void audio_free(struct audio *audio)
{
    if (!audio)
        return;
    flush(audio, audio->to);
    if (audio->kind->close)
        audio->kind->close(audio->sink);
    free(audio);
}
