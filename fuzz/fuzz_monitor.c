/*
 * fuzz_monitor.c - any bytes to the monitor's socket
 *
 * Checks too that every non-empty line gets one line of JSON with "ok" in it.
 */
#include <jansson.h>
#include <string.h>

#include "control/monitor.h"
#include "control_fuzz.h"

static struct monitor *monitor;

static void open_machine(void)
{
    struct error err = {0};

    fuzz_machine_open();
    monitor = monitor_new(fuzz_machine, NULL, &err);
    assert(monitor && machine_start(fuzz_machine, &err) == 0);
}

static void close_machine(void)
{
    machine_free(fuzz_machine);
    monitor_free(monitor);
    loop_free(fuzz_loop);
    fuzz_machine = NULL;
}

static void check_reply(const uint8_t *data, size_t size)
{
    char *text = monitor_execute_line(fuzz_machine, (const char *)data, size);
    json_t *reply = text ? json_loads(text, 0, NULL) : NULL;

    assert(reply && json_is_boolean(json_object_get(reply, "ok")) && !strchr(text, '\n'));
    json_decref(reply);
    free(text);
}

static void check_words(const uint8_t *data, size_t size)
{
    char text[256];
    const char *words[8];
    size_t count = 0;
    struct error err = {0};

    size = size < sizeof(text) - 1 ? size : sizeof(text) - 1;
    memcpy(text, data, size);
    text[size] = '\0';
    for (char *rest = text, *word; count < 8 && (word = strsep(&rest, " "));)
        words[count++] = word;
    json_decref(monitor_parse_words(words, count, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\n', size);
    int fd;

    if (!fuzz_machine)
        open_machine();
    machine_lock(fuzz_machine);
    check_reply(data, end ? (size_t)(end - data) : size);
    check_words(data, size);
    fd = fuzz_socket();
    monitor_connect(monitor, fd);
    machine_unlock(fuzz_machine);
    fuzz_send(data, size);
    if (fuzz_hang_up())
        close_machine();
    return 0;
}
