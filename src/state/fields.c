/*
 * fields.c - walk a state table: save, load, print
 *
 * The format is in docs/formats/state.md. A loaded stream is walked twice: once to
 * check everything, once to store. Nothing in it is trusted: every length is compared
 * with what is left, names and counts with the table, values with their ranges, and
 * nesting follows the table, so a stream cannot make the walk deeper.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trapeze/clock.h"
#include "trapeze/irq.h"
#include "trapeze/state.h"

#define NAME_MAX_BYTES  255
#define TIMER_BYTES     9 /* armed, deadline */
#define JSON_NUMBER_MAX (1ull << 53)
#define LINE_SIZE       256

/* Type codes in the stream. Never renumbered. */
enum code {
    CODE_BOOL = 1,
    CODE_U8 = 2,
    CODE_U16 = 3,
    CODE_U32 = 4,
    CODE_U64 = 5,
    CODE_BYTES = 6,
    CODE_TIMER = 7,
    CODE_LINE = 8,
    CODE_STRUCT = 9,
    CODE_GROUP = 10,
};

static enum code code_of(enum state_type type)
{
    static const uint8_t codes[] = {
        [STATE_TYPE_BOOL] = CODE_BOOL,     [STATE_TYPE_U8] = CODE_U8,
        [STATE_TYPE_U16] = CODE_U16,       [STATE_TYPE_U32] = CODE_U32,
        [STATE_TYPE_U64] = CODE_U64,       [STATE_TYPE_BYTES] = CODE_BYTES,
        [STATE_TYPE_TIMER] = CODE_TIMER,   [STATE_TYPE_LINE] = CODE_LINE,
        [STATE_TYPE_STRUCT] = CODE_STRUCT, [STATE_TYPE_LIST] = CODE_STRUCT,
        [STATE_TYPE_BLOB] = CODE_BYTES,
    };

    return (enum code)codes[type];
}

/* Bytes of one element in the stream; 0 for what has no fixed length or no such code. */
static size_t element_bytes(unsigned code)
{
    switch (code) {
    case CODE_BOOL:
    case CODE_U8:
    case CODE_BYTES:
    case CODE_LINE:
        return 1;
    case CODE_U16:
        return 2;
    case CODE_U32:
        return 4;
    case CODE_U64:
        return 8;
    case CODE_TIMER:
        return TIMER_BYTES;
    default:
        return 0;
    }
}

static bool is_integer(unsigned code)
{
    return code >= CODE_U8 && code <= CODE_U64;
}

static uint64_t get_le(const uint8_t *bytes, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

/* ---- elements in memory ---- */

static bool has_fields(const struct state_field *field)
{
    return field->type == STATE_TYPE_STRUCT || field->type == STATE_TYPE_LIST;
}

static struct state_list *list_at(const struct state_field *field, const void *object)
{
    return (struct state_list *)((char *)(uintptr_t)object + field->offset);
}

static struct state_buffer *blob_at(const struct state_field *field, const void *object)
{
    return (struct state_buffer *)((char *)(uintptr_t)object + field->offset);
}

static size_t element_count(const struct state_field *field, const void *object)
{
    if (field->type == STATE_TYPE_BLOB)
        return blob_at(field, object)->size_bytes;
    return field->type == STATE_TYPE_LIST ? list_at(field, object)->count : field->count;
}

static void *element_at(const struct state_field *field, const void *object, size_t index)
{
    char *first = (char *)(uintptr_t)object + field->offset;

    if (field->type == STATE_TYPE_LIST)
        first = list_at(field, object)->elements;
    return first + index * field->element_size;
}

static bool list_reserve(struct state_list *list, size_t element_size, size_t count)
{
    void *elements;

    if (count <= list->capacity)
        return true;
    elements = realloc(list->elements, count * element_size);
    if (!elements)
        return false;
    list->elements = elements;
    list->capacity = (uint32_t)count;
    return true;
}

/* Room was reserved. */
static void list_resize(struct state_list *list, size_t element_size, size_t count)
{
    if (count)
        memset(list->elements, 0, count * element_size);
    list->count = (uint32_t)count;
}

void *state_list_add(struct state_list *list, size_t element_size)
{
    size_t more = list->capacity ? 2 * (size_t)list->capacity : 8;
    void *element;

    if (list->count == list->capacity && !list_reserve(list, element_size, more))
        return NULL;
    element = (char *)list->elements + list->count++ * element_size;
    return memset(element, 0, element_size);
}

void state_list_free(struct state_list *list)
{
    free(list->elements);
    *list = (struct state_list){0};
}

static uint64_t element_value(const struct state_field *field, const void *element)
{
    switch (field->type) {
    case STATE_TYPE_U16:
        return *(const uint16_t *)element;
    case STATE_TYPE_U32:
        return *(const uint32_t *)element;
    case STATE_TYPE_U64:
        return *(const uint64_t *)element;
    case STATE_TYPE_LINE:
        return ((const struct irq_line *)element)->level;
    default:
        return *(const uint8_t *)element;
    }
}

static void store_element(const struct state_field *field, void *element, uint64_t value)
{
    switch (field->type) {
    case STATE_TYPE_U16:
        *(uint16_t *)element = (uint16_t)value;
        break;
    case STATE_TYPE_U32:
        *(uint32_t *)element = (uint32_t)value;
        break;
    case STATE_TYPE_U64:
        *(uint64_t *)element = value;
        break;
    case STATE_TYPE_LINE:
        ((struct irq_line *)element)->level = value != 0;
        break;
    case STATE_TYPE_BOOL:
        *(bool *)element = value != 0;
        break;
    default:
        *(uint8_t *)element = (uint8_t)value;
        break;
    }
}

/* ---- writing ---- */

uint8_t *state_buffer_add(struct state_buffer *out, size_t size)
{
    if (out->capacity_bytes - out->size_bytes < size) {
        size_t capacity = out->capacity_bytes ? out->capacity_bytes : 256;
        uint8_t *data;

        while (capacity - out->size_bytes < size)
            if (__builtin_mul_overflow(capacity, 2, &capacity))
                return NULL;
        data = realloc(out->data, capacity);
        if (!data)
            return NULL;
        out->data = data;
        out->capacity_bytes = capacity;
    }
    out->size_bytes += size;
    return out->data + out->size_bytes - size;
}

static int put_le(struct state_buffer *out, uint64_t value, size_t size)
{
    uint8_t *bytes = state_buffer_add(out, size);

    if (!bytes)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    return 0;
}

/* A length that is filled in when what it counts has been written. */
static int begin_length(struct state_buffer *out, size_t *out_at)
{
    *out_at = out->size_bytes;
    return put_le(out, 0, 4);
}

static int end_length(struct state_buffer *out, size_t at)
{
    size_t length = out->size_bytes - at - 4;

    if (length > UINT32_MAX)
        return -ENOMEM;
    for (size_t i = 0; i < 4; i++)
        out->data[at + i] = (uint8_t)(length >> 8 * i);
    return 0;
}

/* Type, name, count, and the length to come. */
static int put_head(struct state_buffer *out, enum code code, const char *name, size_t count,
                    size_t *out_at)
{
    size_t length = strlen(name);
    uint8_t *bytes;

    if (length > NAME_MAX_BYTES || put_le(out, code, 1) || put_le(out, length, 1))
        return -ENOMEM;
    bytes = state_buffer_add(out, length);
    if (!bytes)
        return -ENOMEM;
    memcpy(bytes, name, length);
    return put_le(out, count, 4) ? -ENOMEM : begin_length(out, out_at);
}

static int save_fields(const struct state_field *fields, const void *object,
                       struct state_buffer *out);

static int save_timer(const struct timer *timer, struct state_buffer *out)
{
    bool armed = timer_is_armed(timer);

    return put_le(out, armed, 1) || put_le(out, armed ? timer->deadline_ns : 0, 8) ? -ENOMEM : 0;
}

static int save_struct(const struct state_field *field, const void *element,
                       struct state_buffer *out)
{
    size_t at;

    if (begin_length(out, &at) || save_fields(field->fields, element, out))
        return -ENOMEM;
    return end_length(out, at);
}

static int save_blob(const struct state_buffer *blob, struct state_buffer *out)
{
    uint8_t *bytes = blob->size_bytes ? state_buffer_add(out, blob->size_bytes) : NULL;

    if (bytes)
        memcpy(bytes, blob->data, blob->size_bytes);
    return bytes || !blob->size_bytes ? 0 : -ENOMEM;
}

static int save_elements(const struct state_field *field, const void *object,
                         struct state_buffer *out)
{
    size_t size = element_bytes(code_of(field->type)), count = element_count(field, object);
    int ret = 0;

    if (field->type == STATE_TYPE_BLOB)
        return save_blob(blob_at(field, object), out);
    for (size_t i = 0; i < count && !ret; i++) {
        const void *element = element_at(field, object, i);

        if (has_fields(field))
            ret = save_struct(field, element, out);
        else if (field->type == STATE_TYPE_TIMER)
            ret = save_timer(element, out);
        else
            ret = put_le(out, element_value(field, element), size);
    }
    return ret;
}

static int save_fields(const struct state_field *fields, const void *object,
                       struct state_buffer *out)
{
    for (const struct state_field *field = fields; field && field->type; field++) {
        size_t at;

        if (put_head(out, code_of(field->type), field->name, element_count(field, object), &at) ||
            save_elements(field, object, out) || end_length(out, at))
            return -ENOMEM;
    }
    return 0;
}

static int save_groups(const struct state_group *groups, const void *object, bool all,
                       struct state_buffer *out)
{
    for (const struct state_group *group = groups; group && group->name; group++) {
        size_t at;

        if (!all && group->needed && !group->needed(object))
            continue;
        if (put_head(out, CODE_GROUP, group->name, 1, &at) ||
            save_fields(group->fields, object, out) || end_length(out, at))
            return -ENOMEM;
    }
    return 0;
}

/* all: groups that are not needed, too. */
static int save(const struct state_table *table, void *object, bool all, struct state_buffer *out,
                struct error *err)
{
    size_t before = out->size_bytes, at;
    int ret = table->before_save ? table->before_save(object, err) : 0;

    if (ret)
        return ret;
    if (put_le(out, table->version, 4) || begin_length(out, &at) ||
        save_fields(table->fields, object, out) || save_groups(table->groups, object, all, out) ||
        end_length(out, at)) {
        out->size_bytes = before;
        return error_set(err, ENOMEM, "out of memory for the saved state");
    }
    return 0;
}

int state_save(const struct state_table *table, void *object, struct state_buffer *out,
               struct error *err)
{
    return save(table, object, false, out, err);
}

/* ---- reading ---- */

struct reader {
    const uint8_t *data;
    size_t left;
    bool store; /* second walk: everything was checked */
    struct error *err;
};

static const uint8_t *reader_take(struct reader *reader, size_t size)
{
    const uint8_t *bytes = reader->data;

    if (reader->left < size)
        return NULL;
    reader->data += size;
    reader->left -= size;
    return bytes;
}

static bool reader_number(struct reader *reader, size_t size, uint64_t *out_value)
{
    const uint8_t *bytes = reader_take(reader, size);

    if (bytes)
        *out_value = get_le(bytes, size);
    return bytes != NULL;
}

/* A length and as many bytes, as a reader of their own. */
static bool reader_part(struct reader *reader, struct reader *out_part)
{
    uint64_t length;
    const uint8_t *bytes;

    if (!reader_number(reader, 4, &length))
        return false;
    bytes = reader_take(reader, length);
    if (!bytes)
        return false;
    *out_part = *reader;
    out_part->data = bytes;
    out_part->left = length;
    return true;
}

struct record {
    unsigned code;
    char name[NAME_MAX_BYTES + 1];
    uint64_t count;
    struct reader contents;
};

static int cut_short(const struct reader *reader)
{
    return error_set(reader->err, EINVAL, "the state is cut short");
}

static int read_record(struct reader *reader, struct record *record)
{
    uint64_t code, length;
    const uint8_t *name;

    if (!reader_number(reader, 1, &code) || !reader_number(reader, 1, &length))
        return cut_short(reader);
    name = reader_take(reader, length);
    if (!name || !reader_number(reader, 4, &record->count) ||
        !reader_part(reader, &record->contents))
        return cut_short(reader);
    record->code = (unsigned)code;
    memcpy(record->name, name, length);
    record->name[length] = 0;
    if (strlen(record->name) != length)
        return error_set(reader->err, EINVAL, "a field's name has a zero in it");
    return 0;
}

static int load_fields(const struct state_field *fields, const struct state_group *groups,
                       void *object, struct reader *reader);

static int out_of_range(const struct reader *reader, const struct state_field *field,
                        uint64_t value)
{
    return error_set(reader->err, EINVAL,
                     "field '%s': %" PRIu64 " is not within %" PRIu64 " to %" PRIu64, field->name,
                     value, field->min, field->max);
}

static int load_scalar(const struct state_field *field, void *element, unsigned code,
                       struct reader *reader)
{
    uint64_t max = field->type == STATE_TYPE_LINE ? 1 : field->max;
    uint64_t value = 0;

    reader_number(reader, element_bytes(code), &value);
    if (reader->store)
        store_element(field, element, value);
    else if (value < field->min || value > max)
        return out_of_range(reader, field, value);
    return 0;
}

static int load_timer(const struct state_field *field, struct timer *timer, struct reader *reader)
{
    uint64_t armed = 0, deadline = 0;

    reader_number(reader, 1, &armed);
    reader_number(reader, 8, &deadline);
    if (!reader->store) {
        if (armed > 1 || (armed && deadline == CLOCK_NEVER))
            return error_set(reader->err, EINVAL, "timer '%s' is malformed", field->name);
    } else if (timer->clocks) {
        timer_arm(timer, armed ? deadline : CLOCK_NEVER);
    }
    return 0;
}

static int load_struct(const struct state_field *field, void *element, struct reader *reader)
{
    struct reader part;

    if (!reader_part(reader, &part))
        return cut_short(reader);
    return load_fields(field->fields, NULL, element, &part);
}

/* Integers may have changed their width between versions: the range decides. */
static bool types_agree(const struct state_field *field, unsigned code)
{
    unsigned own = code_of(field->type);

    return own == code || (is_integer(own) && is_integer(code));
}

static int check_shape(const struct state_field *field, const struct record *record)
{
    size_t size = element_bytes(record->code);
    const struct reader *contents = &record->contents;

    if (!types_agree(field, record->code))
        return error_set(contents->err, EINVAL, "field '%s' is of another type", field->name);
    if (record->count > field->count)
        return error_set(contents->err, EINVAL, "field '%s' has %" PRIu64 " elements, not %zu",
                         field->name, record->count, field->count);
    if (size && contents->left != record->count * size)
        return error_set(contents->err, EINVAL, "field '%s' has the wrong length", field->name);
    return 0;
}

/* Room is made in the first walk. */
static int load_blob(const struct state_field *field, struct state_buffer *blob,
                     struct reader *contents)
{
    size_t size = contents->left, before = blob->size_bytes;
    bool has_room;

    if (contents->store) {
        if (size)
            memcpy(blob->data, contents->data, size);
        blob->size_bytes = size;
        return 0;
    }
    blob->size_bytes = 0;
    has_room = !size || state_buffer_add(blob, size);
    blob->size_bytes = before;
    return has_room ? 0 : error_set(contents->err, ENOMEM, "out of memory for '%s'", field->name);
}

static int load_field(const struct state_field *field, void *object, struct record *record)
{
    struct reader *contents = &record->contents;
    bool is_list = field->type == STATE_TYPE_LIST;
    int ret = check_shape(field, record);

    if (!ret && field->type == STATE_TYPE_BLOB)
        return load_blob(field, blob_at(field, object), contents);
    if (is_list && contents->store)
        list_resize(list_at(field, object), field->element_size, record->count);
    for (size_t i = 0; i < record->count && !ret; i++) {
        /* while it is checked a list has no such element yet, and nothing looks at one */
        void *element = is_list && !contents->store ? object : element_at(field, object, i);

        if (has_fields(field))
            ret = load_struct(field, element, contents);
        else if (field->type == STATE_TYPE_TIMER)
            ret = load_timer(field, element, contents);
        else
            ret = load_scalar(field, element, record->code, contents);
    }
    if (!ret && contents->left)
        ret = error_set(contents->err, EINVAL, "field '%s' has bytes left over", field->name);
    if (!ret && is_list &&
        !list_reserve(list_at(field, object), field->element_size, record->count))
        ret = error_set(contents->err, ENOMEM, "out of memory for '%s'", field->name);
    return ret;
}

static int load_group(const struct state_group *groups, void *object, struct record *record)
{
    int ret;

    for (const struct state_group *group = groups; group && group->name; group++) {
        if (strcmp(group->name, record->name) != 0)
            continue;
        ret = load_fields(group->fields, NULL, object, &record->contents);
        if (ret)
            error_prefix(record->contents.err, "%s: ", group->name);
        return ret;
    }
    return 0; /* unknown: skipped */
}

static int load_record(const struct state_field *fields, void *object, struct record *record)
{
    for (const struct state_field *field = fields; field && field->type; field++)
        if (strcmp(field->name, record->name) == 0)
            return load_field(field, object, record);
    return 0; /* unknown: skipped */
}

static int load_fields(const struct state_field *fields, const struct state_group *groups,
                       void *object, struct reader *reader)
{
    while (reader->left) {
        struct record record;
        int ret = read_record(reader, &record);

        if (!ret && record.code == CODE_GROUP)
            ret = load_group(groups, object, &record);
        else if (!ret)
            ret = load_record(fields, object, &record);
        if (ret)
            return ret;
    }
    return 0;
}

static int load_body(const struct state_table *table, void *object, struct reader body, bool store)
{
    body.store = store;
    return load_fields(table->fields, table->groups, object, &body);
}

static int open_stream(const struct state_table *table, const void *data, size_t size_bytes,
                       struct reader *out_body, struct error *err)
{
    struct reader reader = {.data = data, .left = size_bytes, .err = err};
    uint64_t version;

    if (!reader_number(&reader, 4, &version) || !reader_part(&reader, out_body))
        return cut_short(&reader);
    if (reader.left)
        return error_set(err, EINVAL, "the state has %zu bytes left over", reader.left);
    if (version > table->version || version < table->oldest)
        return error_set(err, ENOTSUP, "state of version %" PRIu64 " cannot be loaded (%u to %u)",
                         version, table->oldest, table->version);
    return 0;
}

/* Put back what was there before a load that after_load refused. */
static void restore(const struct state_table *table, void *object,
                    const struct state_buffer *backup)
{
    struct reader body;

    if (open_stream(table, backup->data, backup->size_bytes, &body, NULL) == 0)
        load_body(table, object, body, true);
    table->after_load(object, NULL);
}

int state_load(const struct state_table *table, void *object, const void *data, size_t size_bytes,
               struct error *err)
{
    struct state_buffer backup = {0};
    struct reader body;
    int ret = open_stream(table, data, size_bytes, &body, err);

    if (!ret)
        ret = load_body(table, object, body, false);
    if (!ret && table->after_load)
        ret = save(table, object, true, &backup, err);
    if (!ret) {
        load_body(table, object, body, true);
        ret = table->after_load ? table->after_load(object, err) : 0;
        if (ret)
            restore(table, object, &backup);
    }
    free(backup.data);
    return ret;
}

/* ---- printing ---- */

struct printer {
    state_put *put;
    void *opaque;
    unsigned indent;
};

__attribute__((format(printf, 2, 3))) static void print(struct printer *printer, const char *format,
                                                        ...)
{
    char text[LINE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    printer->put(printer->opaque, text);
}

static void print_hex(struct printer *printer, const struct state_field *field, const void *object)
{
    const uint8_t *bytes = element_at(field, object, 0);

    for (size_t i = 0; i < field->count; i++)
        print(printer, "%02x", bytes[i]);
}

static void print_value(struct printer *printer, const struct state_field *field,
                        const void *element)
{
    switch (field->type) {
    case STATE_TYPE_BOOL:
    case STATE_TYPE_LINE:
        print(printer, "%s", element_value(field, element) ? "on" : "off");
        break;
    case STATE_TYPE_TIMER:
        if (timer_is_armed(element))
            print(printer, "%" PRIu64 " ns", ((const struct timer *)element)->deadline_ns);
        else
            print(printer, "off");
        break;
    default:
        print(printer, "0x%" PRIx64, element_value(field, element));
    }
}

static void print_fields(struct printer *printer, const struct state_field *fields,
                         const void *object);

static void print_structs(struct printer *printer, const struct state_field *field,
                          const void *object)
{
    for (size_t i = 0; i < element_count(field, object); i++) {
        print(printer, "%*s%s", (int)printer->indent, "", field->name);
        if (field->count > 1)
            print(printer, "[%zu]", i);
        print(printer, ":\n");
        printer->indent += 2;
        print_fields(printer, field->fields, element_at(field, object, i));
        printer->indent -= 2;
    }
}

static void print_field(struct printer *printer, const struct state_field *field,
                        const void *object)
{
    print(printer, "%*s%s: ", (int)printer->indent, "", field->name);
    if (field->type == STATE_TYPE_BLOB) {
        print(printer, "%zu bytes", blob_at(field, object)->size_bytes);
    } else if (field->type == STATE_TYPE_BYTES) {
        print_hex(printer, field, object);
    } else {
        for (size_t i = 0; i < field->count; i++) {
            print(printer, "%s", i ? " " : "");
            print_value(printer, field, element_at(field, object, i));
        }
    }
    print(printer, "\n");
}

static void print_fields(struct printer *printer, const struct state_field *fields,
                         const void *object)
{
    for (const struct state_field *field = fields; field && field->type; field++) {
        if (has_fields(field))
            print_structs(printer, field, object);
        else
            print_field(printer, field, object);
    }
}

static bool group_needed(const struct state_group *group, const void *object)
{
    return !group->needed || group->needed(object);
}

void state_print(const struct state_table *table, void *object, state_put *put, void *opaque)
{
    struct printer printer = {.put = put, .opaque = opaque};

    if (table->before_save)
        table->before_save(object, NULL);
    print_fields(&printer, table->fields, object);
    for (const struct state_group *group = table->groups; group && group->name; group++) {
        if (!group_needed(group, object))
            continue;
        print(&printer, "%s:\n", group->name);
        printer.indent = 2;
        print_fields(&printer, group->fields, object);
        printer.indent = 0;
    }
}

/* ---- JSON; names are C identifiers and need no quoting ---- */

static void json_number(struct printer *printer, uint64_t value)
{
    if (value > JSON_NUMBER_MAX)
        print(printer, "\"0x%" PRIx64 "\"", value);
    else
        print(printer, "%" PRIu64, value);
}

static void json_fields(struct printer *printer, const struct state_field *fields,
                        const void *object, bool *first);

static void json_object(struct printer *printer, const struct state_field *fields,
                        const void *object)
{
    bool first = true;

    print(printer, "{");
    json_fields(printer, fields, object, &first);
    print(printer, "}");
}

static void json_value(struct printer *printer, const struct state_field *field,
                       const void *element)
{
    switch (field->type) {
    case STATE_TYPE_BOOL:
    case STATE_TYPE_LINE:
        print(printer, "%s", element_value(field, element) ? "true" : "false");
        break;
    case STATE_TYPE_TIMER:
        if (timer_is_armed(element))
            json_number(printer, ((const struct timer *)element)->deadline_ns);
        else
            print(printer, "null");
        break;
    case STATE_TYPE_STRUCT:
    case STATE_TYPE_LIST:
        json_object(printer, field->fields, element);
        break;
    default:
        json_number(printer, element_value(field, element));
    }
}

static void json_elements(struct printer *printer, const struct state_field *field,
                          const void *object)
{
    if (field->type == STATE_TYPE_BYTES) {
        print(printer, "\"");
        print_hex(printer, field, object);
        print(printer, "\"");
        return;
    }
    if (field->type == STATE_TYPE_BLOB) {
        json_number(printer, blob_at(field, object)->size_bytes);
        return;
    }
    if (field->count == 1 && field->type != STATE_TYPE_LIST) {
        json_value(printer, field, element_at(field, object, 0));
        return;
    }
    print(printer, "[");
    for (size_t i = 0; i < element_count(field, object); i++) {
        print(printer, "%s", i ? "," : "");
        json_value(printer, field, element_at(field, object, i));
    }
    print(printer, "]");
}

static void json_name(struct printer *printer, const char *name, bool *first)
{
    print(printer, "%s\"%s\":", *first ? "" : ",", name);
    *first = false;
}

static void json_fields(struct printer *printer, const struct state_field *fields,
                        const void *object, bool *first)
{
    for (const struct state_field *field = fields; field && field->type; field++) {
        json_name(printer, field->name, first);
        json_elements(printer, field, object);
    }
}

void state_print_json(const struct state_table *table, void *object, state_put *put, void *opaque)
{
    struct printer printer = {.put = put, .opaque = opaque};
    bool first = true;

    if (table->before_save)
        table->before_save(object, NULL);
    print(&printer, "{");
    json_fields(&printer, table->fields, object, &first);
    for (const struct state_group *group = table->groups; group && group->name; group++) {
        if (!group_needed(group, object))
            continue;
        json_name(&printer, group->name, &first);
        json_object(&printer, group->fields, object);
    }
    print(&printer, "}");
}
