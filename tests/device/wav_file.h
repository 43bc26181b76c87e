/*
 * wav_file.h - sound into a file, for tests of what plays
 */
#ifndef TESTS_DEVICE_WAV_FILE_H
#define TESTS_DEVICE_WAV_FILE_H

#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trapeze/audio.h"

/* A new file; its name goes to path. */
static inline struct audio *wav_file_make(char path[32])
{
    char description[64];
    struct error err = {0};
    struct audio *audio;

    strcpy(path, "/tmp/test-wav-XXXXXX");
    close(mkstemp(path));
    snprintf(description, sizeof(description), "wav=%s", path);
    audio = audio_open(description, -1, &err);
    if (!audio)
        fail_msg("%s", err.text);
    return audio;
}

#endif
