/*
 * log.c - log levels, typed trace events
 *
 * A message is put together first and written with one call, so lines of several
 * threads do not mix. Control characters are replaced: text that came from a
 * guest must not drive the terminal.
 */
#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trapeze/property.h"

#define LOG_LINE_SIZE      1024
#define TRACE_NAME_SIZE    48
#define TRACE_PATTERN_SIZE 64

enum log_level log_threshold = LOG_INFO;

static const char *const level_prefixes[LOG_LEVEL_COUNT] = {
    [LOG_ERROR] = "trapeze: error: ", [LOG_WARN] = "trapeze: warning: ", [LOG_INFO] = "trapeze: ",
    [LOG_GUEST] = "trapeze: guest: ", [LOG_DEBUG] = "trapeze: debug: ",
};

static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = *text == '\t' ? ' ' : '?';
}

void log_message(enum log_level level, const char *format, ...)
{
    char text[LOG_LINE_SIZE];
    va_list args;

    if (level > log_threshold)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    make_printable(text);
    fprintf(stderr, "%s%s\n", level_prefixes[level], text);
}

/* ---- trace events ---- */

/* Written as in the list, then turned to lower case before main(). */
static char trace_names[TRACE_EVENT_COUNT][TRACE_NAME_SIZE] = {
#define TRACE_EVENT(name, text, help) #name,
#include "base/trace_events.def"
#undef TRACE_EVENT
};

const struct trace_info trace_infos[TRACE_EVENT_COUNT] = {
#define TRACE_EVENT(event, text, description)                                                      \
    [TRACE_##event] = {.name = trace_names[TRACE_##event], .format = text, .help = description},
#include "base/trace_events.def"
#undef TRACE_EVENT
};

_Atomic bool trace_on[TRACE_EVENT_COUNT];
static FILE *trace_file; /* NULL: stderr */

__attribute__((constructor)) static void trace_lower_names(void)
{
    for (int event = 0; event < TRACE_EVENT_COUNT; event++)
        for (char *c = trace_names[event]; *c; c++)
            *c = (char)tolower((unsigned char)*c);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
void trace_emit(enum trace_event event, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    char text[LOG_LINE_SIZE];

    /* Formats come from trace_events.def only; values they do not use are ignored. */
    snprintf(text, sizeof(text), trace_infos[event].format, a, b, c, d);
    fprintf(trace_file ? trace_file : stderr, "%s: %s\n", trace_infos[event].name, text);
}
#pragma GCC diagnostic pop

/* '*' any characters, '?' one; '-' and '_' are equal. */
static bool glob_match(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;

    while (*text) {
        char p = *pattern == '-' ? '_' : (char)tolower((unsigned char)*pattern);

        if (p == '*') {
            star = ++pattern;
            resume = text;
        } else if (p == '?' || p == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static int trace_unknown(const char *pattern, struct error *err)
{
    const char *names[TRACE_EVENT_COUNT + 1] = {NULL};
    const char *nearest;

    for (int event = 0; event < TRACE_EVENT_COUNT; event++)
        names[event] = trace_names[event];
    nearest = nearest_word(pattern, names);
    if (nearest)
        return error_set(err, ENOENT, "there is no trace event '%s'; did you mean '%s'?", pattern,
                         nearest);
    return error_set(err, ENOENT, "there is no trace event '%s'", pattern);
}

static int trace_switch(const char *pattern, bool on, struct error *err)
{
    bool found = false;

    for (int event = 0; event < TRACE_EVENT_COUNT; event++) {
        if (!glob_match(pattern, trace_names[event]))
            continue;
        atomic_store_explicit(&trace_on[event], on, memory_order_relaxed);
        found = true;
    }
    return found ? 0 : trace_unknown(pattern, err);
}

int trace_enable(const char *patterns, struct error *err)
{
    while (*patterns) {
        char pattern[TRACE_PATTERN_SIZE];
        size_t length = strcspn(patterns, ",");
        bool on = *patterns != '-';
        int ret;

        if (length >= sizeof(pattern))
            return error_set(err, EINVAL, "trace pattern '%.*s...' is too long", 32, patterns);
        memcpy(pattern, patterns, length);
        pattern[length] = 0;
        ret = length ? trace_switch(pattern + !on, on, err) : 0;
        if (ret)
            return ret;
        patterns += length;
        patterns += *patterns == ',';
    }
    return 0;
}

int trace_open(const char *path, struct error *err)
{
    FILE *file = fopen(path, "we");

    if (!file)
        return error_set(err, errno, "cannot write trace file '%s': %s", path, strerror(errno));
    if (trace_file)
        fclose(trace_file);
    trace_file = file;
    return 0;
}
