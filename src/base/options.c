/*
 * options.c - property tables: defaults, parsing, the nearest word
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trapeze/property.h"

#define WORD_MAX           63 /* longer words are never near */
#define PROPERTY_TABLE_MAX 64 /* candidates that a suggestion looks at */

/* ---- the nearest word ---- */

static char fold(char c)
{
    return c == '_' ? '-' : (char)tolower((unsigned char)c);
}

static unsigned min_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/*
 * Insertions, deletions, replacements and swaps of neighbours that turn a into b
 * (Damerau-Levenshtein, optimal string alignment). Both at most WORD_MAX long.
 */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    size_t length = strlen(b);

    for (size_t j = 0; j <= length; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; a[i - 1]; i++) {
        unsigned *spare = before;

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= length; j++) {
            unsigned differ = fold(a[i - 1]) != fold(b[j - 1]);

            row[j] = min_of(min_of(above[j], row[j - 1]) + 1, above[j - 1] + differ);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]))
                row[j] = min_of(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
        row = spare;
    }
    return above[length];
}

const char *nearest_word(const char *text, const char *const *candidates)
{
    size_t length = strlen(text);
    unsigned best = (unsigned)(length + 2) / 3 + 1;
    const char *nearest = NULL;

    if (length == 0 || length > WORD_MAX)
        return NULL;
    for (; *candidates; candidates++) {
        unsigned distance;

        if (strlen(*candidates) > WORD_MAX)
            continue;
        distance = edit_distance(text, *candidates);
        if (distance < best) {
            best = distance;
            nearest = *candidates;
        }
    }
    return nearest;
}

/* ---- values ---- */

static int suffix_shift(char c)
{
    switch (toupper((unsigned char)c)) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    case 'T':
        return 40;
    default:
        return -1;
    }
}

/* Digits of base at *text; false without a digit or on overflow. */
static bool parse_digits(const char **text, unsigned base, uint64_t *out_value)
{
    const char *start = *text;
    uint64_t value = 0;

    for (; isxdigit((unsigned char)**text); (*text)++) {
        char c = (char)tolower((unsigned char)**text);
        unsigned digit = (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);

        if (digit >= base)
            break;
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out_value = value;
    return *text != start;
}

int property_parse_u64(const char *text, uint64_t max, uint64_t *out_value, struct error *err)
{
    const char *rest = text;
    unsigned base = 10;
    uint64_t value;
    int shift = 0;

    if (rest[0] == '0' && (rest[1] == 'x' || rest[1] == 'X')) {
        base = 16;
        rest += 2;
    }
    if (!parse_digits(&rest, base, &value))
        return error_set(err, EINVAL, "'%s' is not a number", text);
    if (*rest) {
        shift = suffix_shift(*rest++);
        if (shift < 0 || *rest)
            return error_set(err, EINVAL, "'%s' is not a number (with K, M, G or T behind it)",
                             text);
    }
    if (value > max >> shift)
        return error_set(err, ERANGE, "'%s' is more than %" PRIu64, text, max);
    *out_value = value << shift;
    return 0;
}

static int parse_bool(const char *text, bool *out_value, struct error *err)
{
    static const char *const on[] = {"on", "yes", "true", "1", NULL};
    static const char *const off[] = {"off", "no", "false", "0", NULL};

    for (int i = 0; on[i]; i++) {
        if (strcasecmp(text, on[i]) == 0 || strcasecmp(text, off[i]) == 0) {
            *out_value = strcasecmp(text, on[i]) == 0;
            return 0;
        }
    }
    return error_set(err, EINVAL, "'%s' is neither 'on' nor 'off'", text);
}

/* ---- tables ---- */

static void *member_of(const struct property *property, void *object)
{
    return (char *)object + property->offset;
}

static uint64_t integer_max(enum property_type type)
{
    switch (type) {
    case PROPERTY_TYPE_U8:
        return UINT8_MAX;
    case PROPERTY_TYPE_U16:
        return UINT16_MAX;
    case PROPERTY_TYPE_U32:
        return UINT32_MAX;
    default:
        return UINT64_MAX;
    }
}

static void store_integer(const struct property *property, void *object, uint64_t value)
{
    void *member = member_of(property, object);

    switch (property->type) {
    case PROPERTY_TYPE_BOOL:
        *(bool *)member = value != 0;
        break;
    case PROPERTY_TYPE_U8:
        *(uint8_t *)member = (uint8_t)value;
        break;
    case PROPERTY_TYPE_U16:
        *(uint16_t *)member = (uint16_t)value;
        break;
    case PROPERTY_TYPE_U32:
        *(uint32_t *)member = (uint32_t)value;
        break;
    case PROPERTY_TYPE_U64:
        *(uint64_t *)member = value;
        break;
    default:
        break;
    }
}

static int store_string(const struct property *property, void *object, const char *text,
                        struct error *err)
{
    char **member = member_of(property, object);
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        return error_set(err, ENOMEM, "out of memory");
    free(*member);
    *member = copy;
    return 0;
}

int properties_init(const struct property *table, void *object, struct error *err)
{
    const struct property *property;

    for (property = table; property && property->type; property++) {
        if (property->type == PROPERTY_TYPE_STRING || property->type == PROPERTY_TYPE_POINTER)
            *(void **)member_of(property, object) = NULL;
        else
            store_integer(property, object, property->initial);
    }
    for (property = table; property && property->type; property++) {
        if (property->type == PROPERTY_TYPE_STRING &&
            store_string(property, object, property->initial_text, err)) {
            properties_done(table, object);
            return -ENOMEM;
        }
    }
    return 0;
}

void properties_done(const struct property *table, void *object)
{
    for (; table && table->type; table++) {
        if (table->type == PROPERTY_TYPE_STRING) {
            free(*(char **)member_of(table, object));
            *(char **)member_of(table, object) = NULL;
        }
    }
}

static bool names_equal(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '_' ? '-' : *a) != (*b == '_' ? '-' : *b))
            return false;
    return *a == *b;
}

static bool settable(const struct property *property)
{
    return property->type != PROPERTY_TYPE_POINTER;
}

static int unknown_property(const struct property *table, const char *name, struct error *err)
{
    const char *names[PROPERTY_TABLE_MAX + 1] = {NULL};
    const char *nearest;
    size_t count = 0;

    for (; table && table->type && count < PROPERTY_TABLE_MAX; table++)
        if (settable(table))
            names[count++] = table->name;
    nearest = nearest_word(name, names);
    if (nearest)
        return error_set(err, ENOENT, "there is no property '%s'; did you mean '%s'?", name,
                         nearest);
    return error_set(err, ENOENT, "there is no property '%s'", name);
}

static int store_text(const struct property *property, void *object, const char *value,
                      struct error *err)
{
    uint64_t number;
    bool flag = false;
    int ret;

    if (property->type == PROPERTY_TYPE_STRING)
        return store_string(property, object, value, err);
    if (property->type == PROPERTY_TYPE_BOOL) {
        ret = parse_bool(value, &flag, err);
        number = !ret && flag;
    } else {
        ret = property_parse_u64(value, integer_max(property->type), &number, err);
    }
    if (!ret)
        store_integer(property, object, number);
    return ret;
}

int property_set(const struct property *table, void *object, const char *name, const char *value,
                 struct error *err)
{
    for (const struct property *property = table; property && property->type; property++) {
        int ret;

        if (!settable(property) || !names_equal(property->name, name))
            continue;
        ret = store_text(property, object, value, err);
        if (ret)
            error_prefix(err, "%s: ", property->name);
        return ret;
    }
    return unknown_property(table, name, err);
}

/* Cut the next item off *text, in place: doubled commas become one. */
static char *next_item(char **text)
{
    char *item = *text, *out = item, *in = item;

    for (; *in; in++) {
        if (*in == ',' && in[1] != ',')
            break;
        if (*in == ',')
            in++;
        *out++ = *in;
    }
    *text = *in ? in + 1 : NULL;
    *out = 0;
    return item;
}

int properties_parse(const struct property *table, void *object, const char *text,
                     struct error *err)
{
    char *copy = strdup(text), *rest = copy;
    int ret = 0;

    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    if (!*rest)
        rest = NULL;
    while (rest && !ret) {
        char *name = next_item(&rest);
        char *value = strchr(name, '=');

        if (value)
            *value++ = 0;
        if (!*name)
            ret = error_set(err, EINVAL, "'%s': a property has no name", text);
        else
            ret = property_set(table, object, name, value ? value : "on", err);
    }
    free(copy);
    return ret;
}
