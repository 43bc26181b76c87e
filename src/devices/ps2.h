/*
 * ps2.h - keyboard and mouse input for the i8042
 *
 * What a display, a test or the monitor calls to press keys and move the mouse.
 * dev is an instance of i8042_class. Machine lock held.
 */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/device.h"

extern const struct device_class i8042_class;

enum ps2_button {
    PS2_BUTTON_LEFT = 1u << 0,
    PS2_BUTTON_RIGHT = 1u << 1,
    PS2_BUTTON_MIDDLE = 1u << 2,
    PS2_BUTTON_4 = 1u << 3,
    PS2_BUTTON_5 = 1u << 4,
};

enum ps2_led { PS2_LED_SCROLL = 1u << 0, PS2_LED_NUM = 1u << 1, PS2_LED_CAPS = 1u << 2 };

/*
 * A key goes down or up. usage is from the keyboard page of the USB HID Usage Tables
 * (0x04 is A, 0xe0-0xe7 are the modifiers); unknown ones are ignored. The device repeats a
 * held key by itself, so a second "down" has no effect.
 */
void i8042_key(struct device *dev, uint8_t usage, bool pressed);
/* Release every key that is down, as when a viewer loses the focus. */
void i8042_release_keys(struct device *dev);
unsigned i8042_leds(struct device *dev); /* enum ps2_led */

/* Counts of movement: right, up, and the wheel towards the user are positive. */
void i8042_mouse_move(struct device *dev, int right, int up, int wheel);
void i8042_mouse_buttons(struct device *dev, unsigned buttons); /* enum ps2_button */

#endif
