/*
 * curses.h - a machine's text modes and keyboard on the terminal that the process was started from
 *
 * Main loop's thread, machine lock held.
 */
#ifndef BACKENDS_DISPLAY_CURSES_H
#define BACKENDS_DISPLAY_CURSES_H

#include "trapeze/error.h"

struct chardev_console;
struct curses;
struct machine;

/*
 * The machine's first screen. Takes the terminal, and standard error if that is the same one, until
 * curses_free() or the process ends. console, which is the caller's, is who hears that the person
 * wants to leave. Before the sandbox. NULL with err: no screen, no terminal, a terminal without
 * cursor, somebody else has it.
 */
struct curses *curses_new(struct machine *machine, const struct chardev_console *console,
                          struct error *err);
/* Before the machine. NULL is fine. */
void curses_free(struct curses *curses);

#endif
