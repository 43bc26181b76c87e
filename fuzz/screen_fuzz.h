/*
 * screen_fuzz.h - a machine with a card and a keyboard, for the fuzz targets of viewers
 *
 * The card's size is another one each time that a key was pressed, or as a viewer wishes.
 */
#ifndef FUZZ_SCREEN_FUZZ_H
#define FUZZ_SCREEN_FUZZ_H

#include <string.h>

#include "control_fuzz.h"
#include "trapeze/display.h"
#include "trapeze/input.h"

static struct screen fuzz_screen;
static bool fuzz_is_watched, fuzz_is_dirty;
static bool fuzz_keys[256]; /* that are down */
static uint32_t fuzz_size = 70;

static void fuzz_watched(void *opaque, bool on)
{
    fuzz_is_watched = fuzz_is_dirty = on;
}

static void fuzz_refresh(void *opaque)
{
    struct screen_rect all = {0, 0, fuzz_size, fuzz_size};

    if (!fuzz_is_dirty || screen_set_size(&fuzz_screen, fuzz_size, fuzz_size))
        return;
    fuzz_is_dirty = false;
    for (uint32_t y = 0; y < fuzz_size; y++)
        for (uint32_t x = 0; x < fuzz_size; x++)
            screen_row(&fuzz_screen, y)[x] = x * y;
    screen_changed(&fuzz_screen, &all);
}

static void fuzz_want_size(void *opaque, uint32_t width, uint32_t height)
{
    fuzz_size = 1 + (width + height) % 200;
    fuzz_is_dirty = true;
}

static void fuzz_key(void *opaque, uint8_t usage, bool pressed)
{
    fuzz_keys[usage] = pressed;
    fuzz_size = 1 + (fuzz_size * 7 + usage) % 200;
    fuzz_is_dirty = true;
}

static bool fuzz_any_key(void)
{
    return memchr(fuzz_keys, true, sizeof(fuzz_keys)) != NULL;
}

static void fuzz_screen_open(void)
{
    static const struct screen_source_ops card = {
        .watched = fuzz_watched, .refresh = fuzz_refresh, .want_size = fuzz_want_size};
    static const struct input_device_ops keys = {.key = fuzz_key};
    static struct input_device keyboard = {.ops = &keys};

    fuzz_machine_open();
    screen_init(&fuzz_screen, fuzz_machine, "card", &card, NULL);
    input_add(machine_input(fuzz_machine), &keyboard);
}

#endif
