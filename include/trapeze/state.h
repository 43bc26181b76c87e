/*
 * state.h - tables of the fields that a guest can see
 *
 * Every device and CPU declares its guest-visible fields once. Snapshots,
 * migration, `trapeze inspect` and state diffs all walk the same table.
 * Loading treats the stream as hostile: every value is checked against the
 * range in the table before anything is stored.
 */
#ifndef TRAPEZE_STATE_H
#define TRAPEZE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

enum state_type {
    STATE_TYPE_END,
    STATE_TYPE_BOOL,
    STATE_TYPE_U8,
    STATE_TYPE_U16,
    STATE_TYPE_U32,
    STATE_TYPE_U64,
    STATE_TYPE_BYTES,  /* count bytes, printed as hex */
    STATE_TYPE_TIMER,  /* struct timer: armed or not, and its deadline on the virtual clock */
    STATE_TYPE_LINE,   /* struct irq_line: its level */
    STATE_TYPE_STRUCT, /* count nested structs of element_size, each walked by fields */
    STATE_TYPE_LIST,   /* struct state_list: up to count of these; no lists or blobs within */
    STATE_TYPE_BLOB, /* struct state_buffer: up to count bytes, of which only the size is printed */
};

/*
 * Structs of which there may be none or many. Zero-initialise; state_list_free() when done. To
 * empty it, set its count to 0.
 */
struct state_list {
    void *elements;
    uint32_t count, capacity;
};

struct state_field {
    const char *name;
    enum state_type type;
    size_t offset;                    /* in the structure that the table describes */
    size_t count;                     /* elements; 1 for a scalar; of a list the most */
    size_t element_size;              /* bytes from one element to the next */
    uint64_t min, max;                /* allowed values of integers, both included */
    const struct state_field *fields; /* of STATE_TYPE_STRUCT and _LIST */
};

/* Fields that are saved only when they matter; a reader without them keeps reset values. */
struct state_group {
    const char *name;
    bool (*needed)(const void *object);
    const struct state_field *fields;
};

struct state_table {
    unsigned version; /* written; 0 means "no guest-visible state" */
    unsigned oldest;  /* the oldest version that can be loaded */
    const struct state_field *fields;
    const struct state_group *groups; /* ends with name NULL; may be NULL */
    /* Fills in what is only known elsewhere. 0 or -errno: then nothing is saved. */
    int (*before_save)(void *object, struct error *err);
    /* Rebuilds caches; may refuse combinations that no field range can express. */
    int (*after_load)(void *object, struct error *err);
};

#define STATE_FIELD_(st, t, f, c, e, lo, hi, sub)                                                  \
    {                                                                                              \
        .name = #f, .type = (t), .offset = offsetof(st, f), .count = (c), .element_size = (e),     \
        .min = (lo), .max = (hi), .fields = (sub)                                                  \
    }
#define STATE_SIZEOF_(st, f)     sizeof(((st *)0)->f)
#define STATE_LENGTH_(st, f)     (STATE_SIZEOF_(st, f) / STATE_SIZEOF_(st, f[0]))

#define STATE_BOOL(st, f)        STATE_FIELD_(st, STATE_TYPE_BOOL, f, 1, 1, 0, 1, NULL)
#define STATE_U8(st, f)          STATE_FIELD_(st, STATE_TYPE_U8, f, 1, 1, 0, UINT8_MAX, NULL)
#define STATE_U16(st, f)         STATE_FIELD_(st, STATE_TYPE_U16, f, 1, 2, 0, UINT16_MAX, NULL)
#define STATE_U32(st, f)         STATE_FIELD_(st, STATE_TYPE_U32, f, 1, 4, 0, UINT32_MAX, NULL)
#define STATE_U64(st, f)         STATE_FIELD_(st, STATE_TYPE_U64, f, 1, 8, 0, UINT64_MAX, NULL)
#define STATE_U8_MAX(st, f, hi)  STATE_FIELD_(st, STATE_TYPE_U8, f, 1, 1, 0, hi, NULL)
#define STATE_U16_MAX(st, f, hi) STATE_FIELD_(st, STATE_TYPE_U16, f, 1, 2, 0, hi, NULL)
#define STATE_U32_MAX(st, f, hi) STATE_FIELD_(st, STATE_TYPE_U32, f, 1, 4, 0, hi, NULL)
#define STATE_U64_MAX(st, f, hi) STATE_FIELD_(st, STATE_TYPE_U64, f, 1, 8, 0, hi, NULL)
#define STATE_BOOLS(st, f)       STATE_FIELD_(st, STATE_TYPE_BOOL, f, STATE_LENGTH_(st, f), 1, 0, 1, NULL)
#define STATE_U8S(st, f)                                                                           \
    STATE_FIELD_(st, STATE_TYPE_U8, f, STATE_LENGTH_(st, f), 1, 0, UINT8_MAX, NULL)
#define STATE_U16S(st, f)                                                                          \
    STATE_FIELD_(st, STATE_TYPE_U16, f, STATE_LENGTH_(st, f), 2, 0, UINT16_MAX, NULL)
#define STATE_U32S(st, f)                                                                          \
    STATE_FIELD_(st, STATE_TYPE_U32, f, STATE_LENGTH_(st, f), 4, 0, UINT32_MAX, NULL)
#define STATE_U64S(st, f)                                                                          \
    STATE_FIELD_(st, STATE_TYPE_U64, f, STATE_LENGTH_(st, f), 8, 0, UINT64_MAX, NULL)
#define STATE_BYTES(st, f)                                                                         \
    STATE_FIELD_(st, STATE_TYPE_BYTES, f, STATE_SIZEOF_(st, f), 1, 0, UINT8_MAX, NULL)
#define STATE_TIMER(st, f) STATE_FIELD_(st, STATE_TYPE_TIMER, f, 1, 0, 0, 0, NULL)
#define STATE_LINE(st, f)  STATE_FIELD_(st, STATE_TYPE_LINE, f, 1, 0, 0, 0, NULL)
#define STATE_STRUCT(st, f, sub)                                                                   \
    STATE_FIELD_(st, STATE_TYPE_STRUCT, f, 1, STATE_SIZEOF_(st, f), 0, 0, sub)
#define STATE_STRUCTS(st, f, sub)                                                                  \
    STATE_FIELD_(st, STATE_TYPE_STRUCT, f, STATE_LENGTH_(st, f), STATE_SIZEOF_(st, f[0]), 0, 0, sub)
#define STATE_LIST(st, f, most, element, sub)                                                      \
    STATE_FIELD_(st, STATE_TYPE_LIST, f, most, sizeof(element), 0, 0, sub)
#define STATE_BLOB(st, f, most) STATE_FIELD_(st, STATE_TYPE_BLOB, f, most, 1, 0, UINT8_MAX, NULL)
#define STATE_END                                                                                  \
    {                                                                                              \
        .type = STATE_TYPE_END                                                                     \
    }

/* A growing byte buffer, which a state is saved into. Zero-initialise; free(data) when done. */
struct state_buffer {
    uint8_t *data;
    size_t size_bytes, capacity_bytes;
};
/* Room for size more bytes. NULL: out of memory. */
uint8_t *state_buffer_add(struct state_buffer *buffer, size_t size);

/* One more element, of zeros, which is valid until the next call. NULL: out of memory. */
void *state_list_add(struct state_list *list, size_t element_size);
void state_list_free(struct state_list *list);

/*
 * Append the object's state. The format (docs/formats/state.md) names every
 * field and its length, so a reader can skip what it does not know. The machine
 * must be paused. Returns 0, -ENOMEM or before_save's; on failure the buffer keeps its old length.
 */
int state_save(const struct state_table *table, void *object, struct state_buffer *out,
               struct error *err);

/*
 * Load what state_save wrote. Everything is checked before anything is stored:
 * on failure the object is unchanged. Unknown fields are skipped, missing ones
 * keep their value. Returns 0, -EINVAL (malformed or out of range) or -ENOTSUP (version).
 */
int state_load(const struct state_table *table, void *object, const void *data, size_t size_bytes,
               struct error *err);

/*
 * Print the object's fields, one "name: value" line each, nested ones indented. put() gets
 * the text piece by piece; newlines are part of it. Calls before_save.
 */
typedef void state_put(void *opaque, const char *text);
void state_print(const struct state_table *table, void *object, state_put *put, void *opaque);

/* The same as one JSON object (no trailing newline). Values that exceed 2^53 are hex strings. */
void state_print_json(const struct state_table *table, void *object, state_put *put, void *opaque);

#endif
