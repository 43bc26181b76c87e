/*
 * input.h - keys and pointers from people to the guest
 *
 * Viewers say what was pressed and moved; the router sends it to the device that the guest
 * listens to: the one that was added last among those whose driver is running, else the first.
 * A key or button that is held down when another device takes over is let go on the old one.
 *
 * Threads: the machine lock is held for every call.
 */
#ifndef TRAPEZE_INPUT_H
#define TRAPEZE_INPUT_H

#include <stdbool.h>
#include <stdint.h>

struct key_layout;
struct machine;

enum input_button {
    INPUT_BUTTON_LEFT = 1u << 0,
    INPUT_BUTTON_RIGHT = 1u << 1,
    INPUT_BUTTON_MIDDLE = 1u << 2,
    INPUT_BUTTON_SIDE = 1u << 3,
    INPUT_BUTTON_EXTRA = 1u << 4,
};

enum input_led { INPUT_LED_SCROLL = 1u << 0, INPUT_LED_NUM = 1u << 1, INPUT_LED_CAPS = 1u << 2 };

#define INPUT_ABSOLUTE_MAX 0x7fffu /* right or bottom edge of the screen */

/* ---- for viewers ---- */

struct input *machine_input(struct machine *machine);

/*
 * The layout that the guest's keyboard has, for viewers that are told characters; NULL is that of a
 * US keyboard. Stays the caller's.
 */
void input_set_layout(struct input *input, const struct key_layout *layout);
const struct key_layout *input_layout(const struct input *input);

/*
 * A key goes down or up. usage is from the keyboard page of the USB HID Usage Tables: 0x04 is A,
 * 0xe0-0xe7 are the modifiers. The guest's keyboard repeats a held key by itself.
 */
void input_key(struct input *input, uint8_t usage, bool pressed);
/* Let go of all keys and buttons, as when a viewer loses the focus. */
void input_release(struct input *input);
unsigned input_leds(struct input *input); /* enum input_led */

/*
 * Does the guest have an absolute pointer (a tablet)? If not, a viewer had better keep the host's
 * pointer for itself and send movement, but input_pointer_at works all the same.
 */
bool input_has_absolute(struct input *input);
/* The pointer is at this pixel of a picture of that size. */
void input_pointer_at(struct input *input, uint32_t x, uint32_t y, uint32_t width, uint32_t height);
/* The pointer moved; to an absolute pointer nothing is sent. */
void input_pointer_moved(struct input *input, int32_t right, int32_t down);
void input_buttons(struct input *input, unsigned buttons); /* all that are down now */
/* Notches of the wheel; away from the user and to the right are positive. */
void input_wheel(struct input *input, int32_t up, int32_t right);

/*
 * wake is called before a key or button goes down; it says whether the machine slept and is being
 * woken, by which the key is used up.
 */
typedef bool input_wake_fn(void *opaque);
void input_set_wake(struct input *input, input_wake_fn *wake, void *opaque);

/* ---- for devices of the guest ---- */

struct input_device_ops {
    /* Its driver runs. NULL: always. */
    bool (*is_listening)(void *opaque);
    /* A keyboard. usage as above. */
    void (*key)(void *opaque, uint8_t usage, bool pressed);
    unsigned (*leds)(void *opaque);
    /* A pointer has one of these two; up to INPUT_ABSOLUTE_MAX. */
    void (*moved)(void *opaque, int32_t right, int32_t down);
    void (*at)(void *opaque, uint32_t x, uint32_t y);
    void (*buttons)(void *opaque, unsigned buttons);
    void (*wheel)(void *opaque, int32_t up, int32_t right);
};

/* Embedded in the device. What it is follows from which functions there are. */
struct input_device {
    const struct input_device_ops *ops;
    void *opaque;
    struct input_device *next;
};

void input_add(struct input *input, struct input_device *device);
void input_remove(struct input *input, struct input_device *device); /* not added: no effect */

/* The router; embedded in the machine, zero at first. */
struct input {
    struct input_device *devices;            /* the last that was added first */
    struct input_device *keyboard, *pointer; /* that got the last event; NULL: none */
    uint8_t down[32];                        /* keys, a bit each */
    unsigned buttons;
    bool has_place; /* x and y are where the pointer was */
    uint32_t x, y, width, height;
    const struct key_layout *layout;
    input_wake_fn *wake; /* NULL: nothing sleeps */
    void *wake_opaque;
};

#endif
