/*
 * log.h - messages for people and typed trace events
 *
 * Levels have an audience: error = the operator's wish failed; warn = odd, but
 * carried on; info = rare and worth keeping; debug = for developers; guest = the
 * guest did something wrong (rate-limited, off by default). All go to stderr.
 *
 * Trace events are declared once in trace_events.def and cost one predictable
 * branch while off: trace(UART_WRITE, offset, value).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "trapeze/error.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_GUEST, LOG_DEBUG, LOG_LEVEL_COUNT };

extern enum log_level log_threshold; /* default LOG_INFO */

void log_message(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define log_error(...) log_message(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_message(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_message(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (log_threshold >= LOG_DEBUG)                                                            \
            log_message(LOG_DEBUG, __VA_ARGS__);                                                   \
    } while (0)
/* Something the guest did; at most LOG_GUEST_MAX lines per call site. Any thread. */
#define log_guest(...)                                                                             \
    do {                                                                                           \
        static _Atomic unsigned count_;                                                            \
        if (log_threshold >= LOG_GUEST && count_ < LOG_GUEST_MAX) {                                \
            log_message(LOG_GUEST, __VA_ARGS__);                                                   \
            if (atomic_fetch_add_explicit(&count_, 1, memory_order_relaxed) + 1 == LOG_GUEST_MAX)  \
                log_message(LOG_GUEST, "%s: more of these are not shown", __func__);               \
        }                                                                                          \
    } while (0)
#define LOG_GUEST_MAX 16

enum trace_event {
#define TRACE_EVENT(name, text, help) TRACE_##name,
#include "base/trace_events.def"
#undef TRACE_EVENT
    TRACE_EVENT_COUNT
};

struct trace_info {
    const char *name;   /* "uart_write" */
    const char *format; /* printf format over uint64_t arguments, at most four, each %PRIx64-like */
    const char *help;
};
extern const struct trace_info trace_infos[TRACE_EVENT_COUNT];
extern _Atomic bool trace_on[TRACE_EVENT_COUNT]; /* may change at any time */

/* Print one event with up to four values; missing ones are 0. */
void trace_emit(enum trace_event event, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
/* "uart_*,irq,-irq_ack": switch on (or off with -) by name or glob. -ENOENT names the nearest. */
int trace_enable(const char *patterns, struct error *err);
/* Trace to a file instead of stderr. */
int trace_open(const char *path, struct error *err);

#define TRACE_PICK_(_1, _2, _3, _4, _5, NAME, ...) NAME
#define trace(...)                                                                                 \
    TRACE_PICK_(__VA_ARGS__, trace4_, trace3_, trace2_, trace1_, trace0_)(__VA_ARGS__)
#define trace0_(e)             trace_do_(e, 0, 0, 0, 0)
#define trace1_(e, a)          trace_do_(e, a, 0, 0, 0)
#define trace2_(e, a, b)       trace_do_(e, a, b, 0, 0)
#define trace3_(e, a, b, c)    trace_do_(e, a, b, c, 0)
#define trace4_(e, a, b, c, d) trace_do_(e, a, b, c, d)
#define trace_do_(e, a, b, c, d)                                                                   \
    do {                                                                                           \
        if (__builtin_expect(atomic_load_explicit(&trace_on[TRACE_##e], memory_order_relaxed), 0)) \
            trace_emit(TRACE_##e, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d));     \
    } while (0)

#endif
