/*
 * keys.c - keys by their names, characters, keysyms and scan codes
 */
#include "backends/display/keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "trapeze/property.h"

/* keysym: of a key that has no character. */
static const struct key {
    const char *name;
    uint8_t usage, scan_code;
    char plain, shifted;
    uint16_t keysym;
} keys[] = {
    {"enter", 0x28, 0x1c, '\n', 0, 0xff0d},
    {"esc", 0x29, 0x01, 0, 0, 0xff1b},
    {"backspace", 0x2a, 0x0e, '\b', 0, 0xff08},
    {"tab", 0x2b, 0x0f, '\t', 0, 0xff09},
    {"space", 0x2c, 0x39, ' ', 0, 0},
    {"up", 0x52, 0xc8, 0, 0, 0xff52},
    {"down", 0x51, 0xd0, 0, 0, 0xff54},
    {"left", 0x50, 0xcb, 0, 0, 0xff51},
    {"right", 0x4f, 0xcd, 0, 0, 0xff53},
    {"home", 0x4a, 0xc7, 0, 0, 0xff50},
    {"end", 0x4d, 0xcf, 0, 0, 0xff57},
    {"pageup", 0x4b, 0xc9, 0, 0, 0xff55},
    {"pagedown", 0x4e, 0xd1, 0, 0, 0xff56},
    {"insert", 0x49, 0xd2, 0, 0, 0xff63},
    {"del", 0x4c, 0xd3, 0, 0, 0xffff},
    {"ctrl", 0xe0, 0x1d, 0, 0, 0xffe3},
    {"shift", KEY_LEFT_SHIFT, 0x2a, 0, 0, 0xffe1},
    {"alt", 0xe2, 0x38, 0, 0, 0xffe9},
    {"super", 0xe3, 0xdb, 0, 0, 0xffeb},
    {"rightctrl", 0xe4, 0x9d, 0, 0, 0xffe4},
    {"rightshift", KEY_RIGHT_SHIFT, 0x36, 0, 0, 0xffe2},
    {"altgr", KEY_ALTGR, 0xb8, 0, 0, 0xffea},
    {"rightsuper", 0xe7, 0xdc, 0, 0, 0xffec},
    {"menu", 0x65, 0xdd, 0, 0, 0xff67},
    {"f1", 0x3a, 0x3b, 0, 0, 0xffbe},
    {"f2", 0x3b, 0x3c, 0, 0, 0xffbf},
    {"f3", 0x3c, 0x3d, 0, 0, 0xffc0},
    {"f4", 0x3d, 0x3e, 0, 0, 0xffc1},
    {"f5", 0x3e, 0x3f, 0, 0, 0xffc2},
    {"f6", 0x3f, 0x40, 0, 0, 0xffc3},
    {"f7", 0x40, 0x41, 0, 0, 0xffc4},
    {"f8", 0x41, 0x42, 0, 0, 0xffc5},
    {"f9", 0x42, 0x43, 0, 0, 0xffc6},
    {"f10", 0x43, 0x44, 0, 0, 0xffc7},
    {"f11", 0x44, 0x57, 0, 0, 0xffc8},
    {"f12", 0x45, 0x58, 0, 0, 0xffc9},
    {"print", 0x46, 0xb7, 0, 0, 0xff61},
    {"pause", 0x48, 0xc6, 0, 0, 0xff13},
    {"capslock", 0x39, 0x3a, 0, 0, 0xffe5},
    {"numlock", 0x53, 0x45, 0, 0, 0xff7f},
    {"scrolllock", 0x47, 0x46, 0, 0, 0xff14},
    {"minus", 0x2d, 0x0c, '-', '_', 0},
    {"equal", 0x2e, 0x0d, '=', '+', 0},
    {"bracketleft", 0x2f, 0x1a, '[', '{', 0},
    {"bracketright", 0x30, 0x1b, ']', '}', 0},
    {"backslash", 0x31, 0x2b, '\\', '|', 0},
    {"semicolon", 0x33, 0x27, ';', ':', 0},
    {"apostrophe", 0x34, 0x28, '\'', '"', 0},
    {"grave", 0x35, 0x29, '`', '~', 0},
    {"comma", 0x36, 0x33, ',', '<', 0},
    {"period", 0x37, 0x34, '.', '>', 0},
    {"slash", 0x38, 0x35, '/', '?', 0},
    {"less", 0x64, 0x56, 0, 0, 0}, /* beside the left shift key of European keyboards */
    {"1", 0x1e, 0x02, '1', '!', 0},
    {"2", 0x1f, 0x03, '2', '@', 0},
    {"3", 0x20, 0x04, '3', '#', 0},
    {"4", 0x21, 0x05, '4', '$', 0},
    {"5", 0x22, 0x06, '5', '%', 0},
    {"6", 0x23, 0x07, '6', '^', 0},
    {"7", 0x24, 0x08, '7', '&', 0},
    {"8", 0x25, 0x09, '8', '*', 0},
    {"9", 0x26, 0x0a, '9', '(', 0},
    {"0", 0x27, 0x0b, '0', ')', 0},
    {"a", 0x04, 0x1e, 'a', 'A', 0},
    {"b", 0x05, 0x30, 'b', 'B', 0},
    {"c", 0x06, 0x2e, 'c', 'C', 0},
    {"d", 0x07, 0x20, 'd', 'D', 0},
    {"e", 0x08, 0x12, 'e', 'E', 0},
    {"f", 0x09, 0x21, 'f', 'F', 0},
    {"g", 0x0a, 0x22, 'g', 'G', 0},
    {"h", 0x0b, 0x23, 'h', 'H', 0},
    {"i", 0x0c, 0x17, 'i', 'I', 0},
    {"j", 0x0d, 0x24, 'j', 'J', 0},
    {"k", 0x0e, 0x25, 'k', 'K', 0},
    {"l", 0x0f, 0x26, 'l', 'L', 0},
    {"m", 0x10, 0x32, 'm', 'M', 0},
    {"n", 0x11, 0x31, 'n', 'N', 0},
    {"o", 0x12, 0x18, 'o', 'O', 0},
    {"p", 0x13, 0x19, 'p', 'P', 0},
    {"q", 0x14, 0x10, 'q', 'Q', 0},
    {"r", 0x15, 0x13, 'r', 'R', 0},
    {"s", 0x16, 0x1f, 's', 'S', 0},
    {"t", 0x17, 0x14, 't', 'T', 0},
    {"u", 0x18, 0x16, 'u', 'U', 0},
    {"v", 0x19, 0x2f, 'v', 'V', 0},
    {"w", 0x1a, 0x11, 'w', 'W', 0},
    {"x", 0x1b, 0x2d, 'x', 'X', 0},
    {"y", 0x1c, 0x15, 'y', 'Y', 0},
    {"z", 0x1d, 0x2c, 'z', 'Z', 0},
    {"kp0", 0x62, 0x52, 0, 0, 0xffb0},
    {"kp1", 0x59, 0x4f, 0, 0, 0xffb1},
    {"kp2", 0x5a, 0x50, 0, 0, 0xffb2},
    {"kp3", 0x5b, 0x51, 0, 0, 0xffb3},
    {"kp4", 0x5c, 0x4b, 0, 0, 0xffb4},
    {"kp5", 0x5d, 0x4c, 0, 0, 0xffb5},
    {"kp6", 0x5e, 0x4d, 0, 0, 0xffb6},
    {"kp7", 0x5f, 0x47, 0, 0, 0xffb7},
    {"kp8", 0x60, 0x48, 0, 0, 0xffb8},
    {"kp9", 0x61, 0x49, 0, 0, 0xffb9},
    {"kpperiod", 0x63, 0x53, 0, 0, 0xffae},
    {"kpenter", 0x58, 0x9c, 0, 0, 0xff8d},
    {"kpplus", 0x57, 0x4e, 0, 0, 0xffab},
    {"kpminus", 0x56, 0x4a, 0, 0, 0xffad},
    {"kpmultiply", 0x55, 0x37, 0, 0, 0xffaa},
    {"kpdivide", 0x54, 0xb5, 0, 0, 0xffaf},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

/* Keysyms of keys that have another one, or that only look different. */
static const struct {
    uint16_t keysym, same_as;
} other_keysyms[] = {
    {0xffe7, 0xffe9}, {0xffe8, 0xffea}, /* Meta */
    {0xfe20, 0xff09},                   /* Shift and Tab */
    {0xff15, 0xff61}, {0xff6b, 0xff13}, /* SysRq, Break */
    {0xff95, 0xffb7}, {0xff96, 0xffb4}, {0xff97, 0xffb8}, {0xff98, 0xffb6},
    {0xff99, 0xffb2}, {0xff9a, 0xffb9}, {0xff9b, 0xffb3}, {0xff9c, 0xffb1},
    {0xff9d, 0xffb5}, {0xff9e, 0xffb0}, {0xff9f, 0xffae}, /* the keypad without Num Lock */
};

static const struct {
    const char *name, *same_as;
} other_names[] = {
    {"return", "enter"}, {"ret", "enter"},          {"escape", "esc"},    {"delete", "del"},
    {"control", "ctrl"}, {"pgup", "pageup"},        {"pgdn", "pagedown"}, {"ins", "insert"},
    {"win", "super"},    {"meta", "super"},         {"sysrq", "print"},   {"ctrl_r", "rightctrl"},
    {"bs", "backspace"}, {"shift_r", "rightshift"}, {"alt_r", "altgr"},
};

bool key_of_character(uint32_t character, struct key_stroke *out)
{
    for (const struct key *key = keys; key < keys + KEY_COUNT; key++) {
        bool is_letter = key->plain >= 'a' && key->plain <= 'z';

        if (!character || (character != (uint8_t)key->plain && character != (uint8_t)key->shifted))
            continue;
        *out = (struct key_stroke){.usage = key->usage};
        if (character == (uint8_t)key->plain)
            out->shift = is_letter ? KEY_SHIFT_LOWER : key->shifted ? KEY_SHIFT_UP : KEY_SHIFT_ANY;
        else
            out->shift = is_letter ? KEY_SHIFT_UPPER : KEY_SHIFT_DOWN;
        return true;
    }
    return false;
}

bool key_of_keysym(uint32_t keysym, struct key_stroke *out)
{
    if (keysym >> 24 == 1) /* Unicode */
        keysym &= 0xffffff;
    if (keysym >= ' ' && keysym < 0xfe00)
        return key_of_character(keysym, out);
    for (size_t n = 0; n < sizeof(other_keysyms) / sizeof(other_keysyms[0]); n++)
        if (other_keysyms[n].keysym == keysym)
            keysym = other_keysyms[n].same_as;
    for (const struct key *key = keys; key < keys + KEY_COUNT; key++)
        if (key->keysym && key->keysym == keysym) {
            *out = (struct key_stroke){.usage = key->usage, .shift = KEY_SHIFT_ANY};
            return true;
        }
    return false;
}

uint8_t key_of_scan_code(uint32_t code)
{
    for (const struct key *key = keys; key < keys + KEY_COUNT; key++)
        if (key->scan_code == code)
            return key->usage;
    return code == 0x54 ? 0x46 : 0; /* Print with Alt held */
}

const char *key_name(unsigned n)
{
    return n < KEY_COUNT ? keys[n].name : NULL;
}

int key_of_name(const char *name, uint8_t *out, struct error *err)
{
    const char *names[KEY_COUNT + 1] = {0}, *nearest;

    for (size_t n = 0; n < sizeof(other_names) / sizeof(other_names[0]); n++)
        if (strcasecmp(other_names[n].name, name) == 0)
            name = other_names[n].same_as;
    for (size_t n = 0; n < KEY_COUNT; n++) {
        names[n] = keys[n].name;
        if (strcasecmp(names[n], name) == 0) {
            *out = keys[n].usage;
            return 0;
        }
    }
    nearest = nearest_word(name, names);
    return error_set(
        err, EINVAL,
        "there is no key '%.32s'%s%s%s keys are a to z, 0 to 9, f1 to f12, enter, "
        "esc, tab, space, backspace, del, insert, home, end, pageup, pagedown, up, "
        "down, left, right, print, pause, ctrl, shift, alt, altgr, super, menu, minus, "
        "comma, kp0 and so on",
        name, nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?);" : ";");
}
