/*
 * typist.c - texts, chords and clicks for the guest
 */
#include "backends/display/typist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "backends/display/layout.h"
#include "host/loop.h"
#include "trapeze/display.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define STEP_NS   10000000u
#define MAX_STEPS 65536u

enum step_kind { STEP_KEY, STEP_HOME, STEP_AT, STEP_BUTTONS };

struct step {
    enum step_kind kind;
    uint8_t usage;
    bool pressed;
    unsigned buttons;
    uint32_t x, y, width, height;
};

struct typist {
    struct machine *machine;
    int timer_fd;
    struct loop_fd *handler;
    struct step *steps; /* from start to end */
    size_t start, end, capacity;
};

/* ---- doing ---- */

static void take_step(struct typist *typist, const struct step *step)
{
    struct input *input = machine_input(typist->machine);

    switch (step->kind) {
    case STEP_KEY:
        input_key(input, step->usage, step->pressed);
        break;
    case STEP_HOME:
        input_pointer_moved(input, -(int32_t)step->width, -(int32_t)step->height);
        break;
    case STEP_AT:
        if (input_has_absolute(input))
            input_pointer_at(input, step->x, step->y, step->width, step->height);
        else
            input_pointer_moved(input, (int32_t)step->x, (int32_t)step->y);
        break;
    case STEP_BUTTONS:
        input_buttons(input, step->buttons);
        break;
    }
}

static void arm(struct typist *typist, bool on)
{
    const struct itimerspec when = {.it_value.tv_nsec = on ? STEP_NS : 0,
                                    .it_interval.tv_nsec = on ? STEP_NS : 0};

    timerfd_settime(typist->timer_fd, 0, &when, NULL);
}

static void on_time(void *opaque, unsigned events)
{
    struct typist *typist = opaque;
    uint64_t count;

    (void)events;
    if (read(typist->timer_fd, &count, sizeof(count)) < 0)
        return;
    if (machine_get_state(typist->machine) != MACHINE_RUNNING)
        return;
    if (typist->start < typist->end)
        take_step(typist, &typist->steps[typist->start++]);
    if (typist->start == typist->end) {
        typist->start = typist->end = 0;
        arm(typist, false);
    }
}

struct typist *typist_new(struct machine *machine, struct error *err)
{
    struct typist *typist = calloc(1, sizeof(*typist));

    if (!typist) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    typist->machine = machine;
    typist->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (typist->timer_fd < 0)
        error_set(err, errno, "timerfd: %s", strerror(errno));
    else
        typist->handler =
            loop_add_fd(machine_loop(machine), typist->timer_fd, LOOP_READ, on_time, typist, err);
    if (typist->handler)
        return typist;
    typist_free(typist);
    return NULL;
}

void typist_free(struct typist *typist)
{
    if (!typist)
        return;
    loop_remove_fd(typist->handler);
    if (typist->timer_fd >= 0)
        close(typist->timer_fd);
    free(typist->steps);
    free(typist);
}

uint64_t typist_left_ns(const struct typist *typist)
{
    return (typist->end - typist->start) * (uint64_t)STEP_NS;
}

/* ---- what is to be done ---- */

static int add(struct typist *typist, const struct step *step, struct error *err)
{
    if (typist->start && typist->end == typist->capacity) {
        memmove(typist->steps, typist->steps + typist->start,
                (typist->end - typist->start) * sizeof(*step));
        typist->end -= typist->start;
        typist->start = 0;
    }
    if (typist->end == typist->capacity) {
        size_t capacity = typist->capacity * 2 + 64;
        struct step *grown =
            capacity <= 2 * MAX_STEPS ? realloc(typist->steps, capacity * sizeof(*grown)) : NULL;

        if (!grown)
            return error_set(err, E2BIG, "it is too much: %u steps are waiting",
                             (unsigned)(typist->end - typist->start));
        typist->steps = grown;
        typist->capacity = capacity;
    }
    typist->steps[typist->end++] = *step;
    return 0;
}

static int add_key(struct typist *typist, uint8_t usage, bool pressed, struct error *err)
{
    return add(typist, &(struct step){.kind = STEP_KEY, .usage = usage, .pressed = pressed}, err);
}

static const struct key_layout *layout_of(const struct typist *typist)
{
    return input_layout(machine_input(typist->machine));
}

static int add_chord(struct typist *typist, const char *text, size_t length, struct error *err)
{
    uint8_t usages[KEYS_MAX_CHORD];
    int count = keys_of_chord(layout_of(typist), text, length, usages, err),
        result = count < 0 ? count : 0;

    for (int n = 0; !result && n < count; n++)
        result = add_key(typist, usages[n], true, err);
    for (int n = count; !result && n > 0; n--)
        result = add_key(typist, usages[n - 1], false, err);
    return result;
}

/* Modifiers go down in this order and up in the other. */
static int add_stroke(struct typist *typist, const struct key_stroke *stroke, struct error *err)
{
    bool shift = stroke->shift == KEY_SHIFT_DOWN || stroke->shift == KEY_SHIFT_UPPER;
    uint8_t usages[3];
    int count = 0, result = 0;

    if (shift)
        usages[count++] = KEY_LEFT_SHIFT;
    if (stroke->altgr)
        usages[count++] = KEY_ALTGR;
    usages[count++] = stroke->usage;
    for (int n = 0; !result && n < count; n++)
        result = add_key(typist, usages[n], true, err);
    for (int n = count; !result && n > 0; n--)
        result = add_key(typist, usages[n - 1], false, err);
    return result;
}

static int add_character(struct typist *typist, uint32_t character, struct error *err)
{
    struct key_stroke strokes[KEYS_MAX_STROKES];
    unsigned count = keys_of_character(layout_of(typist), character, strokes);
    int result = 0;

    if (!count)
        return error_set(err, EINVAL,
                         "U+%04X is no character of the guest's keyboard (trapeze run "
                         "--keyboard-layout); keys are written like {enter}",
                         character);
    for (unsigned n = 0; !result && n < count; n++)
        result = add_stroke(typist, &strokes[n], err);
    return result;
}

/* The next character of UTF-8 and how many bytes it has; a byte that begins none is itself. */
static uint32_t next_character(const char *text, size_t *out_size)
{
    uint8_t first = (uint8_t)*text;
    size_t size = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
    uint32_t character = size == 1 ? first : first & (0x7fu >> size);

    for (size_t n = 1; n < size; n++) {
        if (((uint8_t)text[n] & 0xc0) != 0x80) {
            *out_size = 1;
            return first;
        }
        character = character << 6 | (text[n] & 0x3f);
    }
    *out_size = size;
    return character;
}

static int add_text(struct typist *typist, const char *text, struct error *err)
{
    int result = 0;

    while (!result && *text) {
        const char *brace = *text == '{' && text[1] != '{' ? strchr(text, '}') : NULL;
        size_t size;

        if (brace) {
            result = add_chord(typist, text + 1, (size_t)(brace - text - 1), err);
            text = brace + 1;
        } else if (*text == '{' && text[1] != '{') {
            result = error_set(err, EINVAL, "a key's name ends with '}'; '{{' is a brace");
        } else {
            result = add_character(typist, next_character(text, &size), err);
            text += *text == '{' ? 2 : size;
        }
    }
    return result;
}

/* All of it, or nothing. */
static int settle(struct typist *typist, size_t left, int result)
{
    if (result)
        typist->end = typist->start + left;
    else if (!left && typist->end > typist->start)
        arm(typist, true);
    return result;
}

int typist_type(struct typist *typist, const char *text, struct error *err)
{
    size_t left = typist->end - typist->start;

    return settle(typist, left, add_text(typist, text, err));
}

int typist_press(struct typist *typist, const char *chord, struct error *err)
{
    size_t left = typist->end - typist->start;

    return settle(typist, left, add_chord(typist, chord, strlen(chord), err));
}

/* ---- clicks ---- */

static void saw_size(void *opaque, const struct screen_surface *surface)
{
    *(struct screen_surface *)opaque = *surface;
}

static void saw_change(void *opaque, const struct screen_rect *rect)
{
    (void)opaque;
    (void)rect;
}

static int get_size(struct machine *machine, struct screen_surface *out, struct error *err)
{
    static const struct screen_viewer_ops ops = {.resized = saw_size, .changed = saw_change};
    struct screen_viewer viewer = {.ops = &ops, .opaque = out};
    struct screen *screen = display_screen(machine_display(machine), 0);

    if (!screen)
        return error_set(err, ENODEV, "the machine has no screen; run it with --vga std");
    if (screen_attach(screen, &viewer, err))
        return -ENOMEM;
    screen_detach(screen, &viewer);
    return 0;
}

int typist_click(struct typist *typist, uint32_t x, uint32_t y, unsigned button, struct error *err)
{
    size_t left = typist->end - typist->start;
    struct screen_surface surface = {0};
    struct step step;
    int result = get_size(typist->machine, &surface, err);

    if (result)
        return result;
    if (x >= surface.width || y >= surface.height)
        return error_set(err, ERANGE, "the screen has %u x %u pixels: x is 0 to %u, y is 0 to %u",
                         surface.width, surface.height, surface.width - 1, surface.height - 1);
    step = (struct step){
        .kind = STEP_HOME, .x = x, .y = y, .width = surface.width, .height = surface.height};
    if (!input_has_absolute(machine_input(typist->machine)))
        result = add(typist, &step, err);
    step.kind = STEP_AT;
    if (!result)
        result = add(typist, &step, err);
    step.kind = STEP_BUTTONS;
    step.buttons = button;
    if (!result)
        result = add(typist, &step, err);
    step.buttons = 0;
    if (!result)
        result = add(typist, &step, err);
    return settle(typist, left, result);
}
