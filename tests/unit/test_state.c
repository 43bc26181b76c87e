/*
 * test_state.c - saving, loading and printing state tables
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "trapeze/clock.h"
#include "trapeze/irq.h"
#include "trapeze/state.h"

#define LIST_MAX 20

struct channel {
    uint8_t mode;
    uint32_t count[2];
};

struct thing {
    bool on;
    uint8_t index;
    uint16_t port;
    uint32_t word;
    uint64_t big;
    bool flags[3];
    uint16_t table[4];
    uint8_t blob[5];
    struct timer timer;
    struct irq_line line;
    struct channel channels[2];
    struct channel single;
    struct state_list list; /* of struct channel */
    struct state_buffer text;
    uint32_t extra;
    bool has_extra;
    unsigned saves, loads, cache;
};

static const struct state_field channel_fields[] = {
    STATE_U8_MAX(struct channel, mode, 5),
    STATE_U32S(struct channel, count),
    STATE_END,
};

static const struct state_field fields[] = {
    STATE_BOOL(struct thing, on),
    STATE_U8_MAX(struct thing, index, 9),
    STATE_U16(struct thing, port),
    STATE_U32(struct thing, word),
    STATE_U64(struct thing, big),
    STATE_BOOLS(struct thing, flags),
    STATE_U16S(struct thing, table),
    STATE_BYTES(struct thing, blob),
    STATE_TIMER(struct thing, timer),
    STATE_LINE(struct thing, line),
    STATE_STRUCTS(struct thing, channels, channel_fields),
    STATE_STRUCT(struct thing, single, channel_fields),
    STATE_LIST(struct thing, list, LIST_MAX, struct channel, channel_fields),
    STATE_BLOB(struct thing, text, LIST_MAX),
    STATE_END,
};

static const struct state_field extra_fields[] = {
    STATE_U32(struct thing, extra),
    STATE_END,
};

static bool extra_needed(const void *object)
{
    return ((const struct thing *)object)->has_extra;
}

static const struct state_group groups[] = {
    {.name = "extras", .needed = extra_needed, .fields = extra_fields},
    {.name = NULL},
};

static int before_save(void *object, struct error *err)
{
    struct thing *thing = object;

    thing->saves++;
    return thing->word == 0xdead ? error_set(err, EIO, "it is not known") : 0;
}

static int after_load(void *object, struct error *err)
{
    struct thing *thing = object;

    thing->loads++;
    if (thing->word == 0xbad)
        return error_set(err, EINVAL, "no such combination");
    thing->cache = thing->word * 2;
    return 0;
}

static const struct state_table table = {.version = 3,
                                         .oldest = 2,
                                         .fields = fields,
                                         .groups = groups,
                                         .before_save = before_save,
                                         .after_load = after_load};

static struct clocks *clocks;
static struct thing one, two;
static struct state_buffer saved;

static void no_fire(void *opaque)
{
}

static void fill(struct thing *thing)
{
    thing->on = true;
    thing->index = 9;
    thing->port = 0x3f8;
    thing->word = 0xdeadbeef;
    thing->big = 0x0123456789abcdefull;
    thing->flags[1] = true;
    for (int i = 0; i < 4; i++)
        thing->table[i] = (uint16_t)(i * 1000);
    memcpy(thing->blob, "\x00\x01\xfe\xff\x80", 5);
    thing->line.level = true;
    timer_arm(&thing->timer, 12345);
    thing->channels[1] = (struct channel){.mode = 5, .count = {1, 2}};
    thing->single = (struct channel){.mode = 1, .count = {3, UINT32_MAX}};
    thing->extra = 77;
    thing->has_extra = true;
}

static int set_up(void **state)
{
    clocks = clocks_new(&(struct clocks_config){.counted = true});
    memset(&one, 0, sizeof(one));
    memset(&two, 0, sizeof(two));
    memset(&saved, 0, sizeof(saved));
    timer_init(&one.timer, clocks, CLOCK_ID_VIRTUAL, no_fire, &one);
    timer_init(&two.timer, clocks, CLOCK_ID_VIRTUAL, no_fire, &two);
    fill(&one);
    return state_save(&table, &one, &saved, NULL);
}

static int tear_down(void **state)
{
    state_list_free(&one.list);
    state_list_free(&two.list);
    free(one.text.data);
    free(two.text.data);
    timer_done(&one.timer);
    timer_done(&two.timer);
    clocks_free(clocks);
    free(saved.data);
    return 0;
}

static int load(const void *data, size_t size_bytes)
{
    struct error err = {0};
    int ret = state_load(&table, &two, data, size_bytes, &err);

    assert_int_equal(ret, -err.code);
    return ret;
}

/* two is as it was after set_up. */
static void assert_untouched(void)
{
    assert_false(two.on);
    assert_int_equal(two.index, 0);
    assert_int_equal(two.word, 0);
    assert_int_equal(two.big, 0);
    assert_false(timer_is_armed(&two.timer));
    assert_false(two.line.level);
    assert_int_equal(two.channels[1].count[1], 0);
    assert_int_equal(two.extra, 0);
}

static void what_is_saved_is_loaded(void **state)
{
    struct state_buffer again = {0};

    assert_int_equal(one.saves, 1);
    assert_int_equal(load(saved.data, saved.size_bytes), 0);
    assert_true(two.on);
    assert_int_equal(two.index, 9);
    assert_int_equal(two.port, 0x3f8);
    assert_int_equal(two.word, 0xdeadbeef);
    assert_int_equal(two.big, 0x0123456789abcdefull);
    assert_memory_equal(two.flags, one.flags, sizeof(one.flags));
    assert_memory_equal(two.table, one.table, sizeof(one.table));
    assert_memory_equal(two.blob, one.blob, sizeof(one.blob));
    assert_true(timer_is_armed(&two.timer));
    assert_int_equal(two.timer.deadline_ns, 12345);
    assert_true(two.line.level);
    assert_int_equal(two.channels[1].count[1], 2);
    assert_int_equal(two.single.count[1], UINT32_MAX);
    assert_int_equal(two.extra, 77);
    assert_int_equal(two.loads, 1);
    assert_int_equal(two.cache, 0xdeadbeefu * 2);
    two.has_extra = true; /* configuration */
    assert_int_equal(state_save(&table, &two, &again, NULL), 0);
    assert_int_equal(again.size_bytes, saved.size_bytes);
    assert_memory_equal(again.data, saved.data, saved.size_bytes);
    free(again.data);
}

static void add(struct thing *thing, uint8_t mode)
{
    struct channel *channel = state_list_add(&thing->list, sizeof(*channel));

    assert_non_null(channel);
    *channel = (struct channel){.mode = mode, .count = {mode, 2}};
}

static const struct channel *in_list(const struct thing *thing, unsigned index)
{
    return (const struct channel *)thing->list.elements + index;
}

static void save_again(void)
{
    saved.size_bytes = 0;
    assert_int_equal(state_save(&table, &one, &saved, NULL), 0);
}

static void a_list_is_as_long_as_it_was(void **state)
{
    for (unsigned n = 0; n < LIST_MAX; n++)
        add(&one, n % 6);
    save_again();
    add(&two, 4);
    assert_int_equal(load(saved.data, saved.size_bytes), 0);
    assert_int_equal(two.list.count, LIST_MAX);
    for (unsigned n = 0; n < LIST_MAX; n++)
        assert_int_equal(in_list(&two, n)->count[0], n % 6);
    one.list.count = 1;
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), 0);
    assert_int_equal(two.list.count, 1);
    one.list.count = 0;
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), 0);
    assert_int_equal(two.list.count, 0);
}

static void set_text(struct thing *thing, const char *text)
{
    free(thing->text.data);
    thing->text = (struct state_buffer){.data = (uint8_t *)strdup(text),
                                        .size_bytes = strlen(text),
                                        .capacity_bytes = strlen(text) + 1};
}

static void a_blob_is_as_long_as_it_was(void **state)
{
    static const char *const texts[] = {"a few bytes", "", "20 bytes, not more..", "x"};

    for (unsigned n = 0; n < 4; n++) {
        set_text(&one, texts[n]);
        save_again();
        assert_int_equal(load(saved.data, saved.size_bytes), 0);
        assert_int_equal(two.text.size_bytes, strlen(texts[n]));
        assert_memory_equal(two.text.data, texts[n], strlen(texts[n]));
    }
    set_text(&one, "21 bytes are too long");
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), -EINVAL);
    set_text(&one, "another text");
    one.word = 0xbad;
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), -EINVAL);
    assert_int_equal(two.text.size_bytes, 1);
    assert_int_equal(*two.text.data, 'x');
}

static void what_is_not_known_is_not_saved(void **state)
{
    size_t before = saved.size_bytes;
    struct error err = {0};

    one.word = 0xdead;
    assert_int_equal(state_save(&table, &one, &saved, &err), -EIO);
    assert_string_equal(err.text, "it is not known");
    assert_int_equal(saved.size_bytes, before);
}

static void a_list_that_is_refused_stays(void **state)
{
    add(&two, 3);
    two.word = 1;
    for (unsigned n = 0; n < LIST_MAX + 1; n++)
        add(&one, 1);
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), -EINVAL); /* too long */
    one.list.count = 4;
    ((struct channel *)one.list.elements)[3].mode = 6;
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), -EINVAL); /* out of range */
    ((struct channel *)one.list.elements)[3].mode = 5;
    one.word = 0xbad;
    save_again();
    assert_int_equal(load(saved.data, saved.size_bytes), -EINVAL); /* by after_load */
    assert_int_equal(two.list.count, 1);
    assert_int_equal(in_list(&two, 0)->mode, 3);
    assert_int_equal(two.word, 1);
}

static void the_format_is_what_the_page_says(void **state)
{
    static const uint8_t expected[] = {
        3,  0, 0,   0,                      /* version */
        15, 0, 0,   0,                      /* length of the body */
        2,  4, 'm', 'o', 'd', 'e',          /* type, name */
        1,  0, 0,   0,   1,   0,   0, 0, 4, /* count, length, contents */
    };
    static const struct state_field mode[] = {STATE_U8_MAX(struct channel, mode, 5), STATE_END};
    static const struct state_table small = {.version = 3, .oldest = 1, .fields = mode};
    struct channel channel = {.mode = 4};
    struct state_buffer out = {0};

    assert_int_equal(state_save(&small, &channel, &out, NULL), 0);
    assert_int_equal(out.size_bytes, sizeof(expected));
    assert_memory_equal(out.data, expected, sizeof(expected));
    free(out.data);
}

static void saving_appends(void **state)
{
    size_t first = saved.size_bytes;

    assert_int_equal(state_save(&table, &one, &saved, NULL), 0);
    assert_int_equal(saved.size_bytes, 2 * first);
    assert_memory_equal(saved.data, saved.data + first, first);
}

static void a_disarmed_timer_is_loaded(void **state)
{
    struct state_buffer off = {0};

    timer_cancel(&one.timer);
    assert_int_equal(state_save(&table, &one, &off, NULL), 0);
    timer_arm(&two.timer, 5);
    assert_int_equal(load(off.data, off.size_bytes), 0);
    assert_false(timer_is_armed(&two.timer));
    free(off.data);
}

static void every_cut_is_refused(void **state)
{
    for (size_t size = 0; size < saved.size_bytes; size++) {
        uint8_t *copy = malloc(size ? size : 1); /* so that a read behind it is seen */

        memcpy(copy, saved.data, size);
        assert_int_equal(load(copy, size), -EINVAL);
        free(copy);
        assert_untouched();
    }
    saved.data[saved.size_bytes - 1] = 0;
    saved.data = realloc(saved.data, saved.size_bytes + 1);
    assert_int_equal(load(saved.data, saved.size_bytes + 1), -EINVAL); /* something behind it */
    assert_untouched();
}

static void every_flipped_byte_is_harmless(void **state)
{
    for (size_t at = 0; at < saved.size_bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            saved.data[at] ^= (uint8_t)(1 << bit);
            load(saved.data, saved.size_bytes);
            assert_true(two.index <= 9);
            assert_true(two.channels[0].mode <= 5 && two.channels[1].mode <= 5);
            saved.data[at] ^= (uint8_t)(1 << bit);
        }
    }
}

static void values_out_of_range_leave_the_object_alone(void **state)
{
    struct state_buffer bad = {0};

    one.index = 10;
    assert_int_equal(state_save(&table, &one, &bad, NULL), 0);
    assert_int_equal(load(bad.data, bad.size_bytes), -EINVAL);
    assert_untouched();
    one.index = 9;
    one.channels[1].mode = 6; /* nested, after fields that are fine */
    bad.size_bytes = 0;
    assert_int_equal(state_save(&table, &one, &bad, NULL), 0);
    assert_int_equal(load(bad.data, bad.size_bytes), -EINVAL);
    assert_untouched();
    assert_int_equal(two.loads, 0);
    free(bad.data);
}

static void versions_are_checked(void **state)
{
    saved.data[0] = 4;
    assert_int_equal(load(saved.data, saved.size_bytes), -ENOTSUP);
    saved.data[0] = 1;
    assert_int_equal(load(saved.data, saved.size_bytes), -ENOTSUP);
    assert_untouched();
    saved.data[0] = 2;
    assert_int_equal(load(saved.data, saved.size_bytes), 0);
}

static void a_refusal_of_after_load_undoes_everything(void **state)
{
    struct state_buffer bad = {0};

    two.word = 21;
    two.extra = 5; /* in a group that is not needed, and still has to come back */
    one.word = 0xbad;
    assert_int_equal(state_save(&table, &one, &bad, NULL), 0);
    assert_int_equal(load(bad.data, bad.size_bytes), -EINVAL);
    assert_int_equal(two.word, 21);
    assert_int_equal(two.extra, 5);
    assert_int_equal(two.cache, 42);
    assert_false(two.on);
    assert_false(timer_is_armed(&two.timer));
    free(bad.data);
}

struct newer {
    uint32_t word;
    uint8_t added[4];
    uint8_t port;
};

static const struct state_field newer_fields[] = {
    STATE_U32(struct newer, word),
    STATE_BYTES(struct newer, added),
    STATE_U8(struct newer, port),
    STATE_END,
};

static void unknown_fields_are_skipped_and_missing_ones_stay(void **state)
{
    static const struct state_table newer = {.version = 3, .oldest = 1, .fields = newer_fields};
    struct newer from = {.word = 0x11223344, .port = 0x60};
    struct state_buffer out = {0};

    two.big = 99;
    assert_int_equal(state_save(&newer, &from, &out, NULL), 0);
    assert_int_equal(load(out.data, out.size_bytes), 0);
    assert_int_equal(two.word, 0x11223344);
    assert_int_equal(two.port, 0x60); /* saved with 8 bits, loaded into 16 */
    assert_int_equal(two.big, 99);
    free(out.data);
}

static void integers_may_shrink_if_they_fit(void **state)
{
    static const struct state_table newer = {.version = 3, .oldest = 1, .fields = newer_fields};
    struct newer to = {0};
    struct error err = {0};

    assert_int_equal(state_load(&newer, &to, saved.data, saved.size_bytes, &err), -EINVAL);
    assert_non_null(strstr(err.text, "port")); /* 0x3f8 does not */
    assert_int_equal(to.word, 0);
    one.port = 0x70;
    saved.size_bytes = 0;
    assert_int_equal(state_save(&table, &one, &saved, NULL), 0);
    assert_int_equal(state_load(&newer, &to, saved.data, saved.size_bytes, NULL), 0);
    assert_int_equal(to.port, 0x70);
}

static void groups_are_saved_when_needed(void **state)
{
    size_t with = saved.size_bytes;

    one.has_extra = false;
    saved.size_bytes = 0;
    assert_int_equal(state_save(&table, &one, &saved, NULL), 0);
    assert_true(saved.size_bytes < with);
    two.extra = 5;
    assert_int_equal(load(saved.data, saved.size_bytes), 0);
    assert_int_equal(two.extra, 5);
}

static void put(void *opaque, const char *text)
{
    strncat(opaque, text, 4095 - strlen(opaque));
}

static void print_shows_every_field(void **state)
{
    char text[4096] = "";

    add(&one, 4);
    state_print(&table, &one, put, text);
    assert_string_equal(text, "on: on\n"
                              "index: 0x9\n"
                              "port: 0x3f8\n"
                              "word: 0xdeadbeef\n"
                              "big: 0x123456789abcdef\n"
                              "flags: off on off\n"
                              "table: 0x0 0x3e8 0x7d0 0xbb8\n"
                              "blob: 0001feff80\n"
                              "timer: 12345 ns\n"
                              "line: on\n"
                              "channels[0]:\n"
                              "  mode: 0x0\n"
                              "  count: 0x0 0x0\n"
                              "channels[1]:\n"
                              "  mode: 0x5\n"
                              "  count: 0x1 0x2\n"
                              "single:\n"
                              "  mode: 0x1\n"
                              "  count: 0x3 0xffffffff\n"
                              "list[0]:\n"
                              "  mode: 0x4\n"
                              "  count: 0x4 0x2\n"
                              "text: 0 bytes\n"
                              "extras:\n"
                              "  extra: 0x4d\n");
}

static void json_shows_every_field(void **state)
{
    char text[4096] = "";

    timer_cancel(&one.timer);
    add(&one, 4);
    state_print_json(&table, &one, put, text);
    assert_string_equal(
        text, "{\"on\":true,\"index\":9,\"port\":1016,\"word\":3735928559,"
              "\"big\":\"0x123456789abcdef\",\"flags\":[false,true,false],"
              "\"table\":[0,1000,2000,3000],\"blob\":\"0001feff80\",\"timer\":null,\"line\":true,"
              "\"channels\":[{\"mode\":0,\"count\":[0,0]},{\"mode\":5,\"count\":[1,2]}],"
              "\"single\":{\"mode\":1,\"count\":[3,4294967295]},"
              "\"list\":[{\"mode\":4,\"count\":[4,2]}],\"text\":0,\"extras\":{\"extra\":77}}");
}

static void an_empty_table_is_fine(void **state)
{
    static const struct state_table empty = {0};
    struct state_buffer out = {0};
    char text[64] = "";

    assert_int_equal(state_save(&empty, &one, &out, NULL), 0);
    assert_int_equal(state_load(&empty, &one, out.data, out.size_bytes, NULL), 0);
    state_print(&empty, &one, put, text);
    assert_string_equal(text, "");
    state_print_json(&empty, &one, put, text);
    assert_string_equal(text, "{}");
    free(out.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_saved_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_list_is_as_long_as_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_list_that_is_refused_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_blob_is_as_long_as_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_known_is_not_saved, set_up, tear_down),
        cmocka_unit_test(the_format_is_what_the_page_says),
        cmocka_unit_test_setup_teardown(saving_appends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disarmed_timer_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_cut_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_harmless, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_out_of_range_leave_the_object_alone, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(versions_are_checked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_refusal_of_after_load_undoes_everything, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(unknown_fields_are_skipped_and_missing_ones_stay, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(integers_may_shrink_if_they_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(groups_are_saved_when_needed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(print_shows_every_field, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_shows_every_field, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_empty_table_is_fine, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
