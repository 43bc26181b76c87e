/*
 * property.h - settings of devices and commands as tables
 *
 * One table gives the command line ("name=value,..."), JSON, help texts and
 * completion. Values are stored into the structure that the table describes.
 */
#ifndef TRAPEZE_PROPERTY_H
#define TRAPEZE_PROPERTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

enum property_type {
    PROPERTY_TYPE_END,
    PROPERTY_TYPE_BOOL, /* on, off, yes, no, true, false, 1, 0 */
    PROPERTY_TYPE_U8,   /* integers: decimal, 0x, and for U64 a suffix K M G T */
    PROPERTY_TYPE_U16,
    PROPERTY_TYPE_U32,
    PROPERTY_TYPE_U64,
    PROPERTY_TYPE_STRING,  /* char *, owned by the object, freed by properties_done */
    PROPERTY_TYPE_POINTER, /* set in code only (a chardev, a peer device); not in help */
};

struct property {
    const char *name;
    enum property_type type;
    size_t offset;
    uint64_t initial;         /* default of integers and booleans */
    const char *initial_text; /* default of strings, may be NULL */
    const char *help;         /* what it is, units included; no full stop */
};

#define PROPERTY_(st, t, f, v, text, h)                                                            \
    {                                                                                              \
        .name = #f, .type = (t), .offset = offsetof(st, f), .initial = (v),                        \
        .initial_text = (text), .help = (h)                                                        \
    }
#define PROPERTY_BOOL(st, f, v, h)   PROPERTY_(st, PROPERTY_TYPE_BOOL, f, v, NULL, h)
#define PROPERTY_U8(st, f, v, h)     PROPERTY_(st, PROPERTY_TYPE_U8, f, v, NULL, h)
#define PROPERTY_U16(st, f, v, h)    PROPERTY_(st, PROPERTY_TYPE_U16, f, v, NULL, h)
#define PROPERTY_U32(st, f, v, h)    PROPERTY_(st, PROPERTY_TYPE_U32, f, v, NULL, h)
#define PROPERTY_U64(st, f, v, h)    PROPERTY_(st, PROPERTY_TYPE_U64, f, v, NULL, h)
#define PROPERTY_STRING(st, f, v, h) PROPERTY_(st, PROPERTY_TYPE_STRING, f, 0, v, h)
#define PROPERTY_POINTER(st, f, h)   PROPERTY_(st, PROPERTY_TYPE_POINTER, f, 0, NULL, h)
#define PROPERTY_END                                                                               \
    {                                                                                              \
        .type = PROPERTY_TYPE_END                                                                  \
    }

/* Store the defaults. Returns 0 or -ENOMEM. table may be NULL (empty). */
int properties_init(const struct property *table, void *object, struct error *err);
/* Free strings. */
void properties_done(const struct property *table, void *object);
/* Parse and store one value; names compare with '-' and '_' equal. */
int property_set(const struct property *table, void *object, const char *name, const char *value,
                 struct error *err);
/* Parse "a=1,b=two" (a doubled comma is a comma in a value). "x" alone is a boolean "x=on". */
int properties_parse(const struct property *table, void *object, const char *text,
                     struct error *err);
/* "64K", "0x10", "2G" -> value. Checked against max. */
int property_parse_u64(const char *text, uint64_t max, uint64_t *out_value, struct error *err);
/* The candidate (list ends with NULL) nearest to text by edit distance, or NULL if none is near. */
const char *nearest_word(const char *text, const char *const *candidates);

#endif
