/*
 * keys.h - keys by their names, characters, keysyms and scan codes
 *
 * What a key is for the guest is a usage of the keyboard page of USB HID (input.h). Characters
 * are those of a US keyboard: that is the layout which guests take for granted.
 */
#ifndef BACKENDS_DISPLAY_KEYS_H
#define BACKENDS_DISPLAY_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

#define KEY_LEFT_SHIFT  0xe1u
#define KEY_RIGHT_SHIFT 0xe5u

enum key_shift { KEY_SHIFT_ANY, KEY_SHIFT_UP, KEY_SHIFT_DOWN, KEY_SHIFT_LOWER, KEY_SHIFT_UPPER };

struct key_stroke {
    uint8_t usage;
    enum key_shift shift; /* ..._LOWER, ..._UPPER: a letter, which Caps Lock changes */
};

/* False: no key of a US keyboard gives this character (Unicode). */
bool key_of_character(uint32_t character, struct key_stroke *out);
/* False: there is no such key. keysym: as X11 and RFB number them. */
bool key_of_keysym(uint32_t keysym, struct key_stroke *out);
/* A scan code of set 1, with 0x80 added where e0 comes first. 0: there is no such key. */
uint8_t key_of_scan_code(uint32_t code);

#define KEYS_MAX_CHORD 8
/* "ctrl-alt-del" to its keys. Returns their number, or -EINVAL with names that there are. */
int keys_of_chord(const char *text, size_t length, uint8_t out[KEYS_MAX_CHORD], struct error *err);
/* The name of the nth key, NULL behind the last. */
const char *key_name(unsigned n);

#endif
