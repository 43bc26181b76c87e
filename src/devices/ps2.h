/*
 * ps2.h - keyboard and mouse input for the i8042
 *
 * The controller takes part in the machine's input (trapeze/input.h); tests call these. dev is an
 * instance of i8042_class. Machine lock held.
 */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/device.h"
#include "trapeze/input.h"

extern const struct device_class i8042_class;

/*
 * A key goes down or up. usage is from the keyboard page of the USB HID Usage Tables
 * (0x04 is A, 0xe0-0xe7 are the modifiers); unknown ones are ignored. The device repeats a
 * held key by itself, so a second "down" has no effect.
 */
void i8042_key(struct device *dev, uint8_t usage, bool pressed);
/* Release every key that is down, as when a viewer loses the focus. */
void i8042_release_keys(struct device *dev);
unsigned i8042_leds(struct device *dev); /* enum input_led */

/* Counts of movement: right, up, and the wheel towards the user are positive. */
void i8042_mouse_move(struct device *dev, int right, int up, int wheel);
void i8042_mouse_buttons(struct device *dev, unsigned buttons); /* enum input_button */

#endif
