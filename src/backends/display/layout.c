/*
 * layout.c - what the keys of the guest's keyboard give
 *
 * Theory of operation. libxkbcommon reads the layout once, before the sandbox; what its keys give
 * on four levels (plain, Shift, AltGr, both) becomes a table. The place of a key is known by its
 * scan code, which Linux's number of it is for all keys that have characters. Keys that only
 * Japanese and Brazilian keyboards have are left out.
 */
#include "backends/display/layout.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uchar.h>
#ifdef HAVE_XKBCOMMON
#include <xkbcommon/xkbcommon.h>
#endif

#define MAX_ENTRIES 256u /* 48 keys on four levels */

struct entry {
    uint32_t keysym; /* as a viewer says it; of a character that Unicode has: KEYSYM_UNICODE */
    struct key_stroke stroke;
};
#define KEYSYM_UNICODE 0x1000000u

struct key_layout {
    unsigned count;
    struct entry entries[MAX_ENTRIES];
};

/* What a dead key gives with the space bar, and with letters: pairs of the result and the letter.
 */
static const struct {
    char32_t alone;
    uint16_t keysym;
    const char32_t *letters;
} dead_keys[] = {
    {U'`', 0xfe50, U"ÀAÈEÌIÒOÙUàaèeìiòoùu"},
    {U'´', 0xfe51, U"ÁAÉEÍIÓOÚUÝYáaéeíióoúuýyĆCćcĹLĺlŃNńnŔRŕrŚSśsŹZźz"},
    {U'^', 0xfe52, U"ÂAÊEÎIÔOÛUâaêeîiôoûuĈCĉcĜGĝgĤHĥhĴJĵjŜSŝsŴWŵwŶYŷy"},
    {U'~', 0xfe53, U"ÃAÑNÕOãañnõoĨIĩiŨUũu"},
    {U'¯', 0xfe54, U"ĀAāaĒEēeĪIīiŌOōoŪUūu"},
    {U'˘', 0xfe55, U"ĂAăaĔEĕeĞGğgĬIĭiŎOŏoŬUŭu"},
    {U'˙', 0xfe56, U"ĊCċcĖEėeĠGġgİIŻZżz"},
    {U'¨', 0xfe57, U"ÄAËEÏIÖOÜUäaëeïiöoüuÿyŸY"},
    {U'°', 0xfe58, U"ÅAåaŮUůu"},
    {U'˝', 0xfe59, U"ŐOőoŰUűu"},
    {U'ˇ', 0xfe5a, U"ČCčcĎDďdĚEěeĽLľlŇNňnŘRřrŠSšsŤTťtŽZžz"},
    {U'¸', 0xfe5b, U"ÇCçcĢGģgĶKķkĻLļlŅNņnŖRŗrŞSşsŢTţt"},
    {U'˛', 0xfe5c, U"ĄAąaĘEęeĮIįiŲUųu"},
};

static bool find(const struct key_layout *layout, uint32_t keysym, struct key_stroke *out)
{
    for (unsigned n = 0; n < layout->count; n++)
        if (layout->entries[n].keysym == keysym) {
            *out = layout->entries[n].stroke;
            return true;
        }
    return false;
}

static bool find_character(const struct key_layout *layout, uint32_t character,
                           struct key_stroke *out)
{
    if (character <= ' ' || !layout)
        return key_of_character(character, out);
    return find(layout, KEYSYM_UNICODE | character, out);
}

/* 0: there is none. */
static uint32_t letter_below(uint32_t character, const char32_t *letters)
{
    for (; *letters; letters += 2)
        if (letters[0] == character)
            return letters[1];
    return 0;
}

unsigned keys_of_character(const struct key_layout *layout, uint32_t character,
                           struct key_stroke out[KEYS_MAX_STROKES])
{
    if (find_character(layout, character, &out[0]))
        return 1;
    for (size_t n = 0; layout && n < sizeof(dead_keys) / sizeof(dead_keys[0]); n++) {
        uint32_t letter =
            dead_keys[n].alone == character ? ' ' : letter_below(character, dead_keys[n].letters);

        if (letter && find(layout, dead_keys[n].keysym, &out[0]) &&
            find_character(layout, letter, &out[1]))
            return 2;
    }
    return 0;
}

static uint32_t character_of(uint32_t keysym)
{
    if (keysym >> 24 == 1)
        return keysym & 0xffffff;
#ifdef HAVE_XKBCOMMON
    return keysym < 0xfe00 ? xkb_keysym_to_utf32(keysym) : 0;
#else
    return keysym >= ' ' && keysym < 0xfe00 ? keysym : 0; /* Latin-1 has the same numbers */
#endif
}

unsigned keys_of_keysym(const struct key_layout *layout, uint32_t keysym,
                        struct key_stroke out[KEYS_MAX_STROKES])
{
    uint32_t character = character_of(keysym);

    if (character)
        return keys_of_character(layout, character, out);
    return (layout && find(layout, keysym, &out[0])) || key_of_keysym(keysym, &out[0]);
}

static bool needs_shift(const struct key_stroke *stroke)
{
    return stroke->shift == KEY_SHIFT_DOWN || stroke->shift == KEY_SHIFT_UPPER;
}

int keys_of_chord(const struct key_layout *layout, const char *text, size_t length,
                  uint8_t out[KEYS_MAX_CHORD], struct error *err)
{
    int count = 0;
    char name[33];

    while (length) {
        const char *dash = length > 1 ? memchr(text + 1, '-', length - 1) : NULL;
        size_t size = dash ? (size_t)(dash - text) : length;
        struct key_stroke strokes[KEYS_MAX_STROKES];

        if (count == KEYS_MAX_CHORD)
            return error_set(err, EINVAL, "up to %d keys can be pressed together", KEYS_MAX_CHORD);
        snprintf(name, sizeof(name), "%.*s", (int)(size < 32 ? size : 32), text);
        if (size == 1 && keys_of_character(layout, (uint8_t)*text, strokes) == 1 &&
            !needs_shift(&strokes[0]) && !strokes[0].altgr)
            out[count++] = strokes[0].usage;
        else if (key_of_name(name, &out[count], err) == 0)
            count++;
        else
            return -EINVAL;
        text += size + (dash != NULL);
        length -= size + (dash != NULL);
    }
    return count ? count : error_set(err, EINVAL, "no key is named");
}

/* ---- reading ---- */

#define MAX_NAME 64u

/* "LAYOUT[:VARIANT]" in two. */
static int split_name(const char *name, char layout[MAX_NAME], const char **out_variant,
                      struct error *err)
{
    char *colon;

    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("_-:", *c))
            return error_set(err, EINVAL, "write LAYOUT or LAYOUT:VARIANT, as in de or fr:oss");
    if (!*name || strlen(name) >= MAX_NAME)
        return error_set(err, EINVAL, "a layout's name has 1 to %u characters", MAX_NAME - 1);
    strcpy(layout, name);
    colon = strchr(layout, ':');
    if (colon)
        *colon = '\0';
    *out_variant = colon ? colon + 1 : "";
    return 0;
}

#ifdef HAVE_XKBCOMMON

struct modifiers {
    xkb_mod_mask_t shift, altgr;
};

static void add(struct key_layout *layout, xkb_keysym_t keysym, struct key_stroke stroke)
{
    uint32_t character = xkb_keysym_to_utf32(keysym), key = keysym;
    struct key_stroke other;

    if (character)
        key = KEYSYM_UNICODE | character;
    if (character <= ' ' && (keysym < 0xfe50 || keysym > 0xfe6f)) /* those are dead keys */
        return;
    if (layout->count < MAX_ENTRIES && !find(layout, key, &other))
        layout->entries[layout->count++] = (struct entry){key, stroke};
}

/* 0: there is not exactly one. */
static xkb_keysym_t keysym_at(struct xkb_keymap *map, xkb_keycode_t code, xkb_level_index_t level)
{
    const xkb_keysym_t *keysyms;

    return xkb_keymap_key_get_syms_by_level(map, code, 0, level, &keysyms) == 1 ? keysyms[0] : 0;
}

/* Shift makes a capital of the letter, as Caps Lock does. */
static bool is_letter(struct xkb_keymap *map, xkb_keycode_t code)
{
    xkb_keysym_t plain = keysym_at(map, code, 0), shifted = keysym_at(map, code, 1);

    return plain && plain != shifted && xkb_keysym_to_upper(plain) == shifted;
}

/* The stroke that reaches a level by Shift and AltGr alone. */
static bool stroke_of(struct xkb_keymap *map, xkb_keycode_t code, xkb_level_index_t level,
                      const struct modifiers *modifiers, struct key_stroke *out)
{
    xkb_mod_mask_t masks[16];
    size_t count = xkb_keymap_key_get_mods_for_level(map, code, 0, level, masks, 16);

    for (size_t n = 0; n < count; n++) {
        bool shift = masks[n] & modifiers->shift;

        if (masks[n] & ~(modifiers->shift | modifiers->altgr))
            continue;
        out->altgr = masks[n] & modifiers->altgr;
        if (level < 2 && is_letter(map, code))
            out->shift = shift ? KEY_SHIFT_UPPER : KEY_SHIFT_LOWER;
        else
            out->shift = shift ? KEY_SHIFT_DOWN : KEY_SHIFT_UP;
        return true;
    }
    return false;
}

static void add_key(struct key_layout *layout, struct xkb_keymap *map, unsigned scan_code,
                    xkb_level_index_t level, const struct modifiers *modifiers)
{
    xkb_keycode_t code = scan_code + 8;
    xkb_keysym_t keysym = keysym_at(map, code, level);
    struct key_stroke stroke = {.usage = key_of_scan_code(scan_code)};

    if (keysym && stroke.usage && stroke_of(map, code, level, modifiers, &stroke))
        add(layout, keysym, stroke);
}

/* Levels outside, so that of two ways the simpler one is taken. */
static void read_keys(struct key_layout *layout, struct xkb_keymap *map)
{
    const struct modifiers modifiers = {
        .shift = 1u << xkb_keymap_mod_get_index(map, XKB_MOD_NAME_SHIFT),
        .altgr = 1u << xkb_keymap_mod_get_index(map, "Mod5"),
    };

    for (xkb_level_index_t level = 0; level < 4; level++) {
        for (unsigned code = 2; code < 0x37; code++)
            add_key(layout, map, code, level, &modifiers);
        add_key(layout, map, 0x56, level, &modifiers);
    }
}

int key_layout_open(const char *name, struct key_layout **out, struct error *err)
{
    char layout[MAX_NAME];
    struct xkb_rule_names names = {.rules = "evdev", .model = "pc105", .layout = layout};
    struct xkb_context *context;
    struct xkb_keymap *map = NULL;

    *out = NULL;
    if (split_name(name, layout, &names.variant, err))
        return -EINVAL;
    if (strcmp(name, "us") == 0)
        return 0;
    context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    if (context) {
        xkb_context_set_log_level(context, XKB_LOG_LEVEL_CRITICAL);
        map = xkb_keymap_new_from_names(context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
    }
    if (map)
        *out = calloc(1, sizeof(**out));
    if (*out)
        read_keys(*out, map);
    xkb_keymap_unref(map);
    xkb_context_unref(context);
    if (*out)
        return 0;
    return error_set(err, ENOENT,
                     "the keyboard layout '%s' is not known; layouts are named as in X, like us, "
                     "gb, de, fr, es, it, se or fr:oss, and the package xkb-data has them",
                     name);
}

#else

int key_layout_open(const char *name, struct key_layout **out, struct error *err)
{
    char layout[MAX_NAME];
    const char *variant;

    *out = NULL;
    if (split_name(name, layout, &variant, err))
        return -EINVAL;
    if (strcmp(name, "us") == 0)
        return 0;
    return error_set(err, ENOTSUP,
                     "this trapeze was built without libxkbcommon, and knows the layout us only");
}

#endif

void key_layout_free(struct key_layout *layout)
{
    free(layout);
}
