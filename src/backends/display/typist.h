/*
 * typist.h - texts, chords and clicks for the guest, one after the other, as fast as guests take
 * them
 *
 * Main loop's thread, machine lock held. While the machine stands still, it waits.
 */
#ifndef BACKENDS_DISPLAY_TYPIST_H
#define BACKENDS_DISPLAY_TYPIST_H

#include <stdint.h>

#include "trapeze/error.h"

struct machine;
struct typist;

/* NULL with err. Outlives the machine if it must. */
struct typist *typist_new(struct machine *machine, struct error *err);
void typist_free(struct typist *typist); /* NULL is fine */

/*
 * Each adds to what is still to be done, or nothing with an error. A text has the characters of a
 * US keyboard, newlines, tabs, and chords in braces: "{enter}", "{ctrl-c}"; "{{" is a brace.
 */
int typist_type(struct typist *typist, const char *text, struct error *err);
int typist_press(struct typist *typist, const char *chord, struct error *err);
/* The pointer goes there, on the machine's first screen, and a button (input.h) is pressed. */
int typist_click(struct typist *typist, uint32_t x, uint32_t y, unsigned button, struct error *err);
uint64_t typist_left_ns(const struct typist *typist); /* till all is done */

#endif
