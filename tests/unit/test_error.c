/*
 * test_error.c - error objects
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

#include "trapeze/error.h"

static void set_returns_the_negative_code(void **state)
{
    struct error err = {0};

    assert_int_equal(error_set(&err, ENOENT, "no file '%s'", "a"), -ENOENT);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.text, "no file 'a'");
}

static void first_cause_wins(void **state)
{
    struct error err = {0};

    error_set(&err, ENOENT, "first");
    assert_int_equal(error_set(&err, EIO, "second"), -EIO);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.text, "first");
}

static void null_is_fine(void **state)
{
    assert_int_equal(error_set(NULL, EIO, "dropped"), -EIO);
    error_prefix(NULL, "a: ");
    error_clear(NULL);
}

static void a_senseless_code_is_still_a_failure(void **state)
{
    struct error err = {0};

    assert_int_equal(error_set(&err, 0, "x"), -EINVAL);
    assert_int_equal(err.code, EINVAL);
}

static void prefixes_pile_up_in_front(void **state)
{
    struct error err = {0};

    error_prefix(&err, "ignored: ");
    assert_string_equal(err.text, "");
    error_set(&err, EIO, "broken");
    error_prefix(&err, "block %d: ", 7);
    error_prefix(&err, "disk '%s': ", "a.img");
    assert_string_equal(err.text, "disk 'a.img': block 7: broken");
}

static void long_texts_are_cut(void **state)
{
    struct error err = {0};
    char big[2 * ERROR_TEXT_SIZE];

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    error_set(&err, EIO, "%s", big);
    assert_int_equal(strlen(err.text), ERROR_TEXT_SIZE - 1);
    error_prefix(&err, "front: ");
    assert_int_equal(strlen(err.text), ERROR_TEXT_SIZE - 1);
    assert_memory_equal(err.text, "front: xxx", 10);
    error_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.text), ERROR_TEXT_SIZE - 1);
}

static void newlines_at_the_end_go(void **state)
{
    struct error err = {0};

    error_set(&err, EIO, "line\n\n");
    assert_string_equal(err.text, "line");
}

static void clear_makes_it_usable_again(void **state)
{
    struct error err = {0};

    error_set(&err, EIO, "a");
    error_clear(&err);
    assert_int_equal(err.code, 0);
    error_set(&err, ENOENT, "b");
    assert_string_equal(err.text, "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_returns_the_negative_code),
        cmocka_unit_test(first_cause_wins),
        cmocka_unit_test(null_is_fine),
        cmocka_unit_test(a_senseless_code_is_still_a_failure),
        cmocka_unit_test(prefixes_pile_up_in_front),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(newlines_at_the_end_go),
        cmocka_unit_test(clear_makes_it_usable_again),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
