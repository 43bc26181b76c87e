/*
 * fuzz_state.c - a hostile state stream
 *
 * Input: a stream for a table with every type of field. Whatever it holds: no value leaves
 * its range, a refused stream leaves the object as it was, and what was accepted is
 * saved and loaded again without change.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trapeze/clock.h"
#include "trapeze/irq.h"
#include "trapeze/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LIST_MAX 5u
#define TEXT_MAX 64u

struct inner {
    uint8_t index;
    uint32_t words[3];
};

struct object {
    bool on;
    uint8_t small;
    uint16_t port;
    uint32_t word;
    uint64_t big;
    bool flags[2];
    uint8_t blob[7];
    struct timer timer;
    struct irq_line line;
    struct inner inner[2];
    struct state_list list; /* of struct inner */
    struct state_buffer text;
    uint32_t extra;
};

static const struct state_field inner_fields[] = {
    STATE_U8_MAX(struct inner, index, 2),
    STATE_U32S(struct inner, words),
    STATE_END,
};

static const struct state_field fields[] = {
    STATE_BOOL(struct object, on),
    STATE_U8_MAX(struct object, small, 9),
    STATE_U16_MAX(struct object, port, 0x3ff),
    STATE_U32(struct object, word),
    STATE_U64_MAX(struct object, big, 1ull << 40),
    STATE_BOOLS(struct object, flags),
    STATE_BYTES(struct object, blob),
    STATE_TIMER(struct object, timer),
    STATE_LINE(struct object, line),
    STATE_STRUCTS(struct object, inner, inner_fields),
    STATE_LIST(struct object, list, LIST_MAX, struct inner, inner_fields),
    STATE_BLOB(struct object, text, TEXT_MAX),
    STATE_END,
};

static const struct state_field extra_fields[] = {
    STATE_U32(struct object, extra),
    STATE_END,
};

static bool always(const void *object)
{
    return true;
}

static const struct state_group groups[] = {
    {.name = "extras", .needed = always, .fields = extra_fields},
    {.name = NULL},
};

static int after_load(void *object, struct error *err)
{
    return ((struct object *)object)->word == 13 ? error_set(err, EINVAL, "unlucky") : 0;
}

static const struct state_table table = {
    .version = 2, .oldest = 1, .fields = fields, .groups = groups, .after_load = after_load};

static void must(bool ok)
{
    if (!ok)
        abort();
}

static struct state_buffer save(struct object *object)
{
    struct state_buffer out = {0};

    must(state_save(&table, object, &out, NULL) == 0);
    return out;
}

static bool equal(const struct state_buffer *a, const struct state_buffer *b)
{
    return a->size_bytes == b->size_bytes && memcmp(a->data, b->data, a->size_bytes) == 0;
}

static void check_ranges(const struct object *object)
{
    must(*(const uint8_t *)&object->on <= 1 && object->small <= 9 && object->port <= 0x3ff);
    must(object->big <= 1ull << 40 && object->word != 13);
    must(object->inner[0].index <= 2 && object->inner[1].index <= 2);
    must(object->list.count <= LIST_MAX && object->text.size_bytes <= TEXT_MAX);
    for (unsigned n = 0; n < object->list.count; n++)
        must(((const struct inner *)object->list.elements)[n].index <= 2);
}

static void check_round_trip(struct object *object, const struct state_buffer *saved)
{
    struct state_buffer again;

    must(state_load(&table, object, saved->data, saved->size_bytes, NULL) == 0);
    again = save(object);
    must(equal(saved, &again));
    free(again.data);
}

static void count(void *opaque, const char *text)
{
    *(size_t *)opaque += strlen(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct clocks *clocks = clocks_new(&(struct clocks_config){.counted = true});
    struct object object = {.small = 3};
    struct state_buffer before, after;
    struct error err = {0};
    size_t printed = 0;

    timer_init(&object.timer, clocks, CLOCK_ID_VIRTUAL, (timer_fn *)abort, NULL);
    must(state_list_add(&object.list, sizeof(struct inner)) != NULL);
    before = save(&object);
    if (state_load(&table, &object, data, size, &err)) {
        must(err.code != 0);
        after = save(&object);
        must(equal(&before, &after));
    } else {
        check_ranges(&object);
        after = save(&object);
        check_round_trip(&object, &after);
    }
    state_print(&table, &object, count, &printed);
    state_print_json(&table, &object, count, &printed);
    must(printed > 0);
    free(before.data);
    free(after.data);
    state_list_free(&object.list);
    free(object.text.data);
    timer_done(&object.timer);
    clocks_free(clocks);
    return 0;
}
