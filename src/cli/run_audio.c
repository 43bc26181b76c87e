/*
 * run_audio.c - trapeze run --audio: a sound card, and who listens
 */
#include <errno.h>

#include "cli/run.h"
#include "devices/devices.h"
#include "trapeze/audio.h"

void run_audio_choices(cli_put_choice *put, void *opaque)
{
    for (unsigned n = 0; audio_kind_name(n); n++)
        put(opaque, audio_kind_name(n), audio_kind_summary(n));
}

struct audio *run_open_audio(const char *text, struct error *err)
{
    bool wants_player = audio_wants_player(text);
    int player = wants_player ? run_start_player(err) : -1;
    struct audio *audio = wants_player && player < 0 ? NULL : audio_open(text, player, err);

    if (!audio)
        error_prefix(err, "--audio %s: ", text);
    return audio;
}

int run_add_sound(struct machine *machine, struct audio *audio, struct error *err)
{
    struct device *dev = device_new(machine, &hda_class, NULL, err);

    return dev && !device_set_pointer(dev, "audio", audio, err) && !device_attach(dev, err)
               ? 0
               : -EINVAL;
}
