/*
 * layout.h - what the keys of the guest's keyboard give
 *
 * People and viewers say characters; which keys give them depends on the layout that the guest has,
 * which only its user knows (--keyboard-layout). Without one it is that of a US keyboard.
 *
 * Threads: a layout does not change once it is there.
 */
#ifndef BACKENDS_DISPLAY_LAYOUT_H
#define BACKENDS_DISPLAY_LAYOUT_H

#include <stdint.h>

#include "backends/display/keys.h"

struct key_layout;

/*
 * Read a layout by its name in X, "LAYOUT[:VARIANT]" ("de", "fr:oss"), from the host's xkb-data.
 * *out is NULL for "us". -ENOENT: there is none such; -ENOTSUP: built without libxkbcommon.
 */
int key_layout_open(const char *name, struct key_layout **out, struct error *err);
void key_layout_free(struct key_layout *layout); /* NULL is fine */

#define KEYS_MAX_STROKES 2u

/*
 * The keys that give a character (Unicode), one after the other: the second comes behind a dead
 * key. layout may be NULL. Returns how many; 0: none do.
 */
unsigned keys_of_character(const struct key_layout *layout, uint32_t character,
                           struct key_stroke out[KEYS_MAX_STROKES]);
/* The same for a keysym, as X11 and RFB number them. */
unsigned keys_of_keysym(const struct key_layout *layout, uint32_t keysym,
                        struct key_stroke out[KEYS_MAX_STROKES]);

#define KEYS_MAX_CHORD 8
/* "ctrl-alt-del" to its keys. Returns their number, or -EINVAL with names that there are. */
int keys_of_chord(const struct key_layout *layout, const char *text, size_t length,
                  uint8_t out[KEYS_MAX_CHORD], struct error *err);

#endif
