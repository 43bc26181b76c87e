/*
 * error.c - error objects with context added on the way up
 */
#include "trapeze/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void cut_newline(char *text)
{
    size_t length = strlen(text);

    while (length && text[length - 1] == '\n')
        text[--length] = 0;
}

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;

    if (code <= 0)
        code = EINVAL;
    if (!err || err->code)
        return -code;
    if (!format) /* no caller does; the compiler's checks of formats want to see it */
        format = "";
    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    cut_newline(err->text);
    return -code;
}

void error_prefix(struct error *err, const char *format, ...)
{
    char old[ERROR_TEXT_SIZE];
    va_list args;
    size_t length;

    if (!err || !err->code)
        return;
    memcpy(old, err->text, sizeof(old));
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    length = strlen(err->text);
    snprintf(err->text + length, sizeof(err->text) - length, "%s", old);
}

void error_clear(struct error *err)
{
    if (!err)
        return;
    err->code = 0;
    err->text[0] = 0;
}
