/*
 * test_log.c - log levels and trace events
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "base/log.h"

/* stderr goes to a file while a test runs. */
static FILE *captured;
static int real_stderr;

static void capture_begin(void)
{
    fflush(stderr);
    captured = tmpfile();
    assert_non_null(captured);
    real_stderr = dup(2);
    dup2(fileno(captured), 2);
}

static void capture_end(char *out, size_t size)
{
    size_t length;

    fflush(stderr);
    dup2(real_stderr, 2);
    close(real_stderr);
    rewind(captured);
    length = fread(out, 1, size - 1, captured);
    out[length] = 0;
    fclose(captured);
}

static unsigned count_of(const char *text, const char *what)
{
    unsigned count = 0;

    while ((text = strstr(text, what))) {
        count++;
        text += strlen(what);
    }
    return count;
}

static int all_off(void **state)
{
    for (int i = 0; i < TRACE_EVENT_COUNT; i++)
        trace_on[i] = false;
    log_threshold = LOG_INFO;
    return 0;
}

static void threshold_decides_what_is_shown(void **state)
{
    char text[4096];

    capture_begin();
    log_error("an error %d", 1);
    log_info("news");
    log_debug("details");
    log_threshold = LOG_WARN;
    log_info("hidden news");
    log_warn("a warning");
    log_threshold = LOG_DEBUG;
    log_debug("shown details");
    capture_end(text, sizeof(text));
    assert_string_equal(text, "trapeze: error: an error 1\n"
                              "trapeze: news\n"
                              "trapeze: warning: a warning\n"
                              "trapeze: debug: shown details\n");
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
    char text[256];

    capture_begin();
    log_info("a\033[2Jb\nc\td");
    capture_end(text, sizeof(text));
    assert_string_equal(text, "trapeze: a?[2Jb?c d\n");
}

static void guest_messages_end_after_a_while(void **state)
{
    char text[8192];

    log_threshold = LOG_GUEST;
    capture_begin();
    for (int i = 0; i < 1000; i++)
        log_guest("guest did %d", i);
    capture_end(text, sizeof(text));
    assert_int_equal(count_of(text, "guest did"), LOG_GUEST_MAX);
    assert_int_equal(count_of(text, "not shown"), 1);
}

static void guest_messages_are_off_by_default(void **state)
{
    char text[256];

    capture_begin();
    log_guest("silent");
    capture_end(text, sizeof(text));
    assert_string_equal(text, "");
}

static void trace_prints_only_what_is_on(void **state)
{
    char text[1024];
    struct error err = {0};

    assert_int_equal(trace_enable("port_write", &err), 0);
    capture_begin();
    trace(PORT_READ, 0x60, 1, 2);
    trace(PORT_WRITE, 0x80, 1, 0xaa);
    capture_end(text, sizeof(text));
    assert_string_equal(text, "port_write: port 0x80 size 1 <- 0xaa\n");
}

static void trace_patterns_switch_on_and_off(void **state)
{
    struct error err = {0};

    assert_int_equal(trace_enable("port_*,-port_read,TIMER-fire", &err), 0);
    assert_true(trace_on[TRACE_PORT_WRITE]);
    assert_false(trace_on[TRACE_PORT_READ]);
    assert_true(trace_on[TRACE_TIMER_FIRE]);
    assert_false(trace_on[TRACE_MMIO_READ]);
    assert_int_equal(trace_enable("*", &err), 0);
    for (int i = 0; i < TRACE_EVENT_COUNT; i++)
        assert_true(trace_on[i]);
    assert_int_equal(trace_enable("-*_r?ad", &err), 0);
    assert_false(trace_on[TRACE_MMIO_READ]);
    assert_true(trace_on[TRACE_MMIO_WRITE]);
}

static void a_wrong_event_names_the_nearest(void **state)
{
    struct error err = {0};

    assert_int_equal(trace_enable("port_raed", &err), -ENOENT);
    assert_non_null(strstr(err.text, "did you mean 'port_read'"));
    error_clear(&err);
    assert_int_equal(trace_enable("zzzzzzzzzzzzzz", &err), -ENOENT);
    assert_null(strstr(err.text, "did you mean"));
}

static void names_are_lower_case(void **state)
{
    assert_string_equal(trace_infos[TRACE_PORT_READ].name, "port_read");
    assert_non_null(trace_infos[TRACE_PORT_READ].help);
}

/* Last: from here on trace goes to the file. */
static void trace_can_go_to_a_file(void **state)
{
    char path[] = "/tmp/trapeze-trace-XXXXXX", text[256] = "";
    struct error err = {0};
    int fd = mkstemp(path);
    FILE *file;

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(trace_open("/nonexistent/dir/file", &err), -ENOENT);
    error_clear(&err);
    assert_int_equal(trace_open(path, &err), 0);
    assert_int_equal(trace_enable("machine_state", &err), 0);
    trace(MACHINE_STATE, 3, 70);
    assert_int_equal(trace_open("/dev/null", &err), 0); /* closes and so flushes the first */
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    fclose(file);
    unlink(path);
    assert_string_equal(text, "machine_state: state 3 at 70 ns\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(threshold_decides_what_is_shown, all_off),
        cmocka_unit_test_setup(control_characters_do_not_reach_the_terminal, all_off),
        cmocka_unit_test_setup(guest_messages_end_after_a_while, all_off),
        cmocka_unit_test_setup(guest_messages_are_off_by_default, all_off),
        cmocka_unit_test_setup(trace_prints_only_what_is_on, all_off),
        cmocka_unit_test_setup(trace_patterns_switch_on_and_off, all_off),
        cmocka_unit_test_setup(a_wrong_event_names_the_nearest, all_off),
        cmocka_unit_test_setup(names_are_lower_case, all_off),
        cmocka_unit_test_setup(trace_can_go_to_a_file, all_off),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
