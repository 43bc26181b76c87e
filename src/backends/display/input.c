/*
 * input.c - the router between who presses keys and the guest's keyboards and pointers
 *
 * Threads: machine lock held.
 */
#include "trapeze/input.h"

#include <stddef.h>
#include <string.h>

/* ---- who gets it ---- */

static bool is_listening(const struct input_device *device)
{
    return !device->ops->is_listening || device->ops->is_listening(device->opaque);
}

static bool is_keyboard(const struct input_device *device)
{
    return device->ops->key != NULL;
}

static bool is_absolute(const struct input_device *device)
{
    return device->ops->at != NULL;
}

static bool is_relative(const struct input_device *device)
{
    return device->ops->moved != NULL;
}

/* The last that was added and whose driver runs; else the first that was added, if it shall be. */
static struct input_device *find(const struct input *input,
                                 bool (*fits)(const struct input_device *device), bool deaf_too)
{
    struct input_device *first = NULL;

    for (struct input_device *device = input->devices; device; device = device->next) {
        if (!fits(device))
            continue;
        if (is_listening(device))
            return device;
        first = device;
    }
    return deaf_too ? first : NULL;
}

static bool key_is_down(const struct input *input, unsigned usage)
{
    return input->down[usage / 8] >> usage % 8 & 1;
}

static void release_keys(struct input *input)
{
    for (unsigned usage = 0; input->keyboard && usage < 256; usage++)
        if (key_is_down(input, usage))
            input->keyboard->ops->key(input->keyboard->opaque, (uint8_t)usage, false);
    memset(input->down, 0, sizeof(input->down));
}

static void release_buttons(struct input *input)
{
    if (input->pointer && input->buttons)
        input->pointer->ops->buttons(input->pointer->opaque, 0);
    input->buttons = 0;
}

static struct input_device *choose_keyboard(struct input *input)
{
    struct input_device *device = find(input, is_keyboard, true);

    if (device != input->keyboard)
        release_keys(input);
    return input->keyboard = device;
}

static struct input_device *choose_pointer(struct input *input)
{
    struct input_device *device = find(input, is_absolute, false);

    if (!device)
        device = find(input, is_relative, true);
    if (device != input->pointer)
        release_buttons(input);
    return input->pointer = device;
}

/* ---- for viewers ---- */

void input_set_layout(struct input *input, const struct key_layout *layout)
{
    input->layout = layout;
}

const struct key_layout *input_layout(const struct input *input)
{
    return input->layout;
}

void input_set_wake(struct input *input, input_wake_fn *wake, void *opaque)
{
    input->wake = wake;
    input->wake_opaque = opaque;
}

static bool wakes(const struct input *input)
{
    return input->wake && input->wake(input->wake_opaque);
}

void input_key(struct input *input, uint8_t usage, bool pressed)
{
    const struct input_device *keyboard = choose_keyboard(input);
    uint8_t bit = (uint8_t)(1u << usage % 8);

    if (!keyboard || (pressed && wakes(input)))
        return;
    input->down[usage / 8] = (uint8_t)((input->down[usage / 8] & ~bit) | (pressed ? bit : 0));
    keyboard->ops->key(keyboard->opaque, usage, pressed);
}

void input_release(struct input *input)
{
    release_keys(input);
    release_buttons(input);
}

unsigned input_leds(struct input *input)
{
    const struct input_device *keyboard = find(input, is_keyboard, true);

    return keyboard && keyboard->ops->leds ? keyboard->ops->leds(keyboard->opaque) : 0;
}

bool input_has_absolute(struct input *input)
{
    return find(input, is_absolute, false) != NULL;
}

static uint32_t scale(uint32_t at, uint32_t size)
{
    if (size < 2)
        return 0;
    return at >= size ? INPUT_ABSOLUTE_MAX
                      : (uint32_t)((uint64_t)at * INPUT_ABSOLUTE_MAX / (size - 1));
}

void input_pointer_at(struct input *input, uint32_t x, uint32_t y, uint32_t width, uint32_t height)
{
    const struct input_device *pointer = choose_pointer(input);
    bool moves = input->has_place && width == input->width && height == input->height;
    int32_t right = (int32_t)(x - input->x), down = (int32_t)(y - input->y);

    input->has_place = true;
    input->x = x;
    input->y = y;
    input->width = width;
    input->height = height;
    if (pointer && is_absolute(pointer))
        pointer->ops->at(pointer->opaque, scale(x, width), scale(y, height));
    else if (pointer && moves && (right || down))
        pointer->ops->moved(pointer->opaque, right, down);
}

void input_pointer_moved(struct input *input, int32_t right, int32_t down)
{
    const struct input_device *pointer = choose_pointer(input);

    if (pointer && !is_absolute(pointer))
        pointer->ops->moved(pointer->opaque, right, down);
}

void input_buttons(struct input *input, unsigned buttons)
{
    const struct input_device *pointer = choose_pointer(input);

    if (!pointer || buttons == input->buttons || ((buttons & ~input->buttons) && wakes(input)))
        return;
    input->buttons = buttons;
    pointer->ops->buttons(pointer->opaque, buttons);
}

void input_wheel(struct input *input, int32_t up, int32_t right)
{
    const struct input_device *pointer = choose_pointer(input);

    if (pointer && pointer->ops->wheel)
        pointer->ops->wheel(pointer->opaque, up, right);
}

/* ---- for devices ---- */

void input_add(struct input *input, struct input_device *device)
{
    device->next = input->devices;
    input->devices = device;
}

void input_remove(struct input *input, struct input_device *device)
{
    struct input_device **link = &input->devices;

    while (*link && *link != device)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = device->next;
    if (input->keyboard == device) {
        input->keyboard = NULL;
        memset(input->down, 0, sizeof(input->down));
    }
    if (input->pointer == device) {
        input->pointer = NULL;
        input->buttons = 0;
    }
}
