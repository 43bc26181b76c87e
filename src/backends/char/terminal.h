/*
 * terminal.h - the terminal on standard input, in raw mode
 *
 * It comes back when its user gives it back, at exit, and when a signal ends or stops the process.
 * There is one terminal, so there is one user at a time. Main loop's thread; signal handlers only
 * put things back.
 */
#ifndef BACKENDS_CHAR_TERMINAL_H
#define BACKENDS_CHAR_TERMINAL_H

#include <stdbool.h>

#include "trapeze/error.h"

/* Of who draws on it: then output is raw, too. In signal handlers, so only what is safe there. */
struct terminal_hooks {
    void (*left)(void);  /* the mode is that of somebody else again */
    void (*taken)(void); /* it is ours again, after a stop */
};

/*
 * hooks may be NULL. -EBUSY: it has a user; -ENOTTY: standard input is no terminal; -EPERM: another
 * job has it in front, and it must not be touched.
 */
int terminal_take(const struct terminal_hooks *hooks, struct error *err);
void terminal_give_back(void); /* not taken: no effect */
/* Is it in raw mode now? */
bool terminal_is_raw(void);

#endif
