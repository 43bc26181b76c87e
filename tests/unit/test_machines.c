/*
 * test_machines.c - machines by their names
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/machines.h"

static char folder[64], inner[80];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/trapeze-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(inner, sizeof(inner), "%s/trapeze", folder);
    setenv("XDG_RUNTIME_DIR", folder, 1);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    return 0;
}

static void make(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", inner, name);
    close(open(path, O_CREAT | O_WRONLY, 0600));
}

static void test_a_name_is_a_socket_in_a_folder_of_the_user_alone(void **state)
{
    char path[MACHINE_PATH_BYTES], expected[MACHINE_PATH_BYTES];
    struct error err = {0};
    struct stat status;

    (void)state;
    assert_int_equal(machines_path("web", path, &err), 0);
    snprintf(expected, sizeof(expected), "%s/web.sock", inner);
    assert_string_equal(path, expected);
    assert_int_equal(stat(inner, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    chmod(inner, 0755);
    assert_int_equal(machines_path("web", path, &err), -EPERM);
}

static void test_names_that_are_no_files(void **state)
{
    static const char *const names[] = {"", ".", "../web", "a/b", "a:1"};
    char path[MACHINE_PATH_BYTES], name[128];
    struct error err = {0};

    (void)state;
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
        assert_int_equal(machines_path(names[n], path, &err), -EINVAL);
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(machines_path(name, path, &err), -ENAMETOOLONG);
    assert_int_equal(machines_find(name, path, &err), -ENAMETOOLONG);
}

static void test_a_word_is_a_socket_if_it_is_one_and_else_a_name(void **state)
{
    char path[MACHINE_PATH_BYTES], expected[MACHINE_PATH_BYTES];
    struct error err = {0};

    (void)state;
    assert_int_equal(machines_find("./web", path, &err), 0);
    assert_string_equal(path, "./web");
    assert_int_equal(machines_find("host:1", path, &err), 0);
    assert_string_equal(path, "host:1");
    assert_int_equal(machines_find("web", path, &err), 0);
    assert_string_equal(path, "web"); /* neither: it is told of as it was written */
    make("web.sock");
    assert_int_equal(machines_find("web", path, &err), 0);
    snprintf(expected, sizeof(expected), "%s/web.sock", inner);
    assert_string_equal(path, expected);
    assert_int_equal(chdir(inner), 0);
    assert_int_equal(machines_find("web.sock", path, &err), 0);
    assert_string_equal(path, "web.sock"); /* a file that is here */
    assert_int_equal(chdir("/"), 0);
}

static void add_name(void *opaque, const char *name, const char *summary)
{
    (void)summary;
    strcat(strcat(opaque, name), " ");
}

static void test_names_are_listed(void **state)
{
    char path[MACHINE_PATH_BYTES], names[64] = "";
    struct error err = {0};

    (void)state;
    assert_int_equal(machines_path("x", path, &err), 0);
    make("web.sock");
    make("db.sock");
    make("other");
    make(".sock");
    machines_choices(add_name, names);
    assert_string_equal(names, "db web ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_name_is_a_socket_in_a_folder_of_the_user_alone,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_that_are_no_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_word_is_a_socket_if_it_is_one_and_else_a_name,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_are_listed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
