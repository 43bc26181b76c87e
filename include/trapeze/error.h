/*
 * error.h - why something failed, in words for a person
 *
 * A struct error lives with the caller, usually on the stack and zeroed. The
 * function that finds the fault calls error_set(); callers on the way up may
 * put context in front with error_prefix(); the top reports it once.
 */
#ifndef TRAPEZE_ERROR_H
#define TRAPEZE_ERROR_H

#include <stdarg.h>

#define ERROR_TEXT_SIZE 512

struct error {
    int code;                   /* positive errno value, 0 while nothing is set */
    char text[ERROR_TEXT_SIZE]; /* one sentence, no trailing newline */
};

/*
 * Record a failure and return -code, so that "return error_set(...)" works.
 * err may be NULL (the text is dropped). An error that is already set is kept:
 * the first cause wins. The text is cut, never overrun. Any thread.
 */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put context in front of the text ("disk 'a.img': "). No effect if err is NULL or unset. */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forget the failure, so that the struct can be used again. err may be NULL. */
void error_clear(struct error *err);

#endif
