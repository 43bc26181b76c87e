/*
 * test_options.c - property tables and the nearest word
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "trapeze/property.h"

struct thing {
    bool fast;
    uint8_t small;
    uint16_t port;
    uint32_t medium;
    uint64_t size_bytes;
    char *path;
    void *peer;
};

static const struct property table[] = {
    PROPERTY_BOOL(struct thing, fast, true, "go fast"),
    PROPERTY_U8(struct thing, small, 7, "a small number"),
    PROPERTY_U16(struct thing, port, 0x3f8, "first I/O port"),
    PROPERTY_U32(struct thing, medium, 0, "a number"),
    PROPERTY_U64(struct thing, size_bytes, 1 << 20, "how large"),
    PROPERTY_STRING(struct thing, path, "/dev/null", "a file"),
    PROPERTY_POINTER(struct thing, peer, "set in code"),
    PROPERTY_END,
};

static int set_up(void **state)
{
    static struct thing thing;
    struct error err = {0};

    memset(&thing, 0xee, sizeof(thing));
    *state = &thing;
    return properties_init(table, &thing, &err);
}

static int tear_down(void **state)
{
    properties_done(table, *state);
    return 0;
}

static void defaults_are_stored(void **state)
{
    const struct thing *thing = *state;

    assert_true(thing->fast);
    assert_int_equal(thing->small, 7);
    assert_int_equal(thing->port, 0x3f8);
    assert_int_equal(thing->medium, 0);
    assert_int_equal(thing->size_bytes, 1 << 20);
    assert_string_equal(thing->path, "/dev/null");
    assert_null(thing->peer);
}

static void values_are_parsed(void **state)
{
    struct thing *thing = *state;
    struct error err = {0};

    assert_int_equal(
        properties_parse(table, thing, "fast=off,small=0xff,port=1016,size-bytes=64K,path=a", &err),
        0);
    assert_false(thing->fast);
    assert_int_equal(thing->small, 0xff);
    assert_int_equal(thing->port, 1016);
    assert_int_equal(thing->size_bytes, 65536);
    assert_string_equal(thing->path, "a");
}

static void a_name_alone_means_on(void **state)
{
    struct thing *thing = *state;
    struct error err = {0};

    thing->fast = false;
    assert_int_equal(properties_parse(table, thing, "fast", &err), 0);
    assert_true(thing->fast);
}

static void doubled_commas_are_commas(void **state)
{
    struct thing *thing = *state;
    struct error err = {0};

    assert_int_equal(properties_parse(table, thing, "path=a,,b,,,small=3", &err), 0);
    assert_string_equal(thing->path, "a,b,");
    assert_int_equal(thing->small, 3);
    assert_int_equal(properties_parse(table, thing, "", &err), 0);
    assert_int_equal(properties_parse(table, thing, "path=", &err), 0);
    assert_string_equal(thing->path, "");
}

static void items_without_a_name_are_refused(void **state)
{
    static const char *const bad[] = {"=1", "small=1,", "small=1,=2", ",", NULL};

    for (int i = 0; bad[i]; i++) {
        struct error err = {0};

        assert_int_equal(properties_parse(table, *state, bad[i], &err), -EINVAL);
        assert_int_equal(err.code, EINVAL);
    }
}

static void values_out_of_range_are_refused(void **state)
{
    struct thing *thing = *state;
    static const struct {
        const char *name, *value;
        int code;
    } bad[] = {
        {"small", "256", ERANGE},
        {"port", "0x10000", ERANGE},
        {"medium", "4G", ERANGE},
        {"size-bytes", "18446744073709551616", EINVAL},
        {"size-bytes", "16777216T", ERANGE},
        {"small", "-1", EINVAL},
        {"small", "", EINVAL},
        {"small", "0x", EINVAL},
        {"small", "1x", EINVAL},
        {"small", "1KK", EINVAL},
        {"small", " 1", EINVAL},
        {"fast", "maybe", EINVAL},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = {0};

        assert_int_equal(property_set(table, thing, bad[i].name, bad[i].value, &err), -bad[i].code);
        assert_memory_equal(err.text, bad[i].name, 4); /* says which */
    }
    assert_int_equal(thing->small, 7);
    assert_int_equal(thing->size_bytes, 1 << 20);
}

static void limits_are_reached(void **state)
{
    struct thing *thing = *state;
    struct error err = {0};

    assert_int_equal(property_set(table, thing, "size_bytes", "18446744073709551615", &err), 0);
    assert_int_equal(thing->size_bytes, UINT64_MAX);
    assert_int_equal(property_set(table, thing, "size_bytes", "0xFFFFFFFFFFFFFFFF", &err), 0);
    assert_int_equal(thing->size_bytes, UINT64_MAX);
    assert_int_equal(property_set(table, thing, "medium", "4194303k", &err), 0);
    assert_int_equal(thing->medium, 4294966272u);
    assert_int_equal(property_set(table, thing, "size_bytes", "2T", &err), 0);
    assert_int_equal(thing->size_bytes, 2ull << 40);
}

static void a_wrong_name_gets_the_nearest(void **state)
{
    struct error err = {0};

    assert_int_equal(property_set(table, *state, "prot", "1", &err), -ENOENT);
    assert_non_null(strstr(err.text, "did you mean 'port'"));
    error_clear(&err);
    assert_int_equal(property_set(table, *state, "completely-else", "1", &err), -ENOENT);
    assert_null(strstr(err.text, "did you mean"));
}

static void pointers_cannot_be_set_from_text(void **state)
{
    struct error err = {0};

    assert_int_equal(property_set(table, *state, "peer", "0x1234", &err), -ENOENT);
    assert_null(((struct thing *)*state)->peer);
}

static void nearest_word_is_near(void **state)
{
    static const char *const words[] = {"serial", "monitor", "kernel", "initrd", "cpus", NULL};

    assert_string_equal(nearest_word("seral", words), "serial");
    assert_string_equal(nearest_word("sreial", words), "serial");
    assert_string_equal(nearest_word("KERNEL", words), "kernel");
    assert_string_equal(nearest_word("cpu", words), "cpus");
    assert_null(nearest_word("x", words));
    assert_null(nearest_word("firmware", words));
    assert_null(nearest_word("", words));
    assert_null(nearest_word(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", words));
}

static void an_empty_table_knows_nothing(void **state)
{
    struct error err = {0};

    assert_int_equal(properties_init(NULL, NULL, &err), 0);
    assert_int_equal(properties_parse(NULL, NULL, "", &err), 0);
    assert_int_equal(properties_parse(NULL, NULL, "a=1", &err), -ENOENT);
    properties_done(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_stored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_are_parsed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_alone_means_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(doubled_commas_are_commas, set_up, tear_down),
        cmocka_unit_test_setup_teardown(items_without_a_name_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_out_of_range_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_are_reached, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_wrong_name_gets_the_nearest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pointers_cannot_be_set_from_text, set_up, tear_down),
        cmocka_unit_test(nearest_word_is_near),
        cmocka_unit_test(an_empty_table_knows_nothing),
    };

    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
