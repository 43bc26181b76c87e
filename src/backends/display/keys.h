/*
 * keys.h - keys by their names, characters, keysyms and scan codes
 *
 * What a key is for the guest is a usage of the keyboard page of USB HID (input.h). Characters
 * are those of a US keyboard, the layout which guests take for granted; layout.h has others.
 */
#ifndef BACKENDS_DISPLAY_KEYS_H
#define BACKENDS_DISPLAY_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

#define KEY_LEFT_SHIFT  0xe1u
#define KEY_RIGHT_SHIFT 0xe5u
#define KEY_ALTGR       0xe6u

enum key_shift { KEY_SHIFT_ANY, KEY_SHIFT_UP, KEY_SHIFT_DOWN, KEY_SHIFT_LOWER, KEY_SHIFT_UPPER };

struct key_stroke {
    uint8_t usage;
    enum key_shift shift; /* ..._LOWER, ..._UPPER: a letter, which Caps Lock changes */
    bool altgr;           /* it is held, too */
};

/* False: no key of a US keyboard gives this character (Unicode). */
bool key_of_character(uint32_t character, struct key_stroke *out);
/* False: there is no such key. keysym: as X11 and RFB number them. */
bool key_of_keysym(uint32_t keysym, struct key_stroke *out);
/* A scan code of set 1, with 0x80 added where e0 comes first. 0: there is no such key. */
uint8_t key_of_scan_code(uint32_t code);

/* A key by its name, as chords have it. -EINVAL: err has the names that there are. */
int key_of_name(const char *name, uint8_t *out, struct error *err);
/* The name of the nth key, NULL behind the last. */
const char *key_name(unsigned n);

#endif
