/*
 * fuzz_monitor.c - any bytes to the monitor's socket
 *
 * A first byte below 4 says how they are sent: 1 by a client that does not read, 2 again and
 * again, as a line that is too long. Checks too that every non-empty line gets one line of
 * JSON with "ok" in it, and that the command line's words give a request or an error.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "control/monitor.h"
#include "control_fuzz.h"
#include "devices/devices.h"

#define LAZY      1
#define REPEAT    2
#define MAX_BYTES 320 /* each line of a few bytes can ask for everything */

static struct monitor *monitor;
static FILE *nowhere;

/* Something to list and to inspect. */
static void add_devices(void)
{
    static const struct device_class *const classes[] = {&acpi_pm_class, &pit_class, &rtc_class,
                                                         &debug_exit_class};
    struct error err = {0};

    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        struct device *dev = device_new(fuzz_machine, classes[i], NULL, &err);

        assert(dev && device_attach(dev, &err) == 0);
    }
}

static void open_machine(void)
{
    struct error err = {0};

    fuzz_machine_open();
    add_devices();
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
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
    monitor_print_reply(nowhere, reply);
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
    if (count > 0) {
        json_t *request = monitor_parse_words(words, count, &err);

        assert(!request == !!err.code);
        json_decref(request);
    }
}

static void send_repeated(const uint8_t *data, size_t size)
{
    static uint8_t line[MONITOR_MAX_LINE_BYTES + 100];

    for (size_t i = 0; i < sizeof(line); i++)
        line[i] = size ? data[i % size] : 0;
    fuzz_send(line, sizeof(line));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned how = size && data[0] < 4 ? data[0] : 0;
    const uint8_t *end;
    int fd;

    size = size < MAX_BYTES ? size : MAX_BYTES;
    if (how) {
        data++;
        size--;
    }
    end = memchr(data, '\n', size);
    if (!fuzz_machine)
        open_machine();
    machine_lock(fuzz_machine);
    check_reply(data, end ? (size_t)(end - data) : size);
    check_words(data, size);
    fd = fuzz_socket();
    monitor_connect(monitor, fd);
    machine_unlock(fuzz_machine);
    fuzz_lazy = how & LAZY;
    if (how & REPEAT)
        send_repeated(data, size);
    fuzz_send(data, size);
    if (fuzz_hang_up())
        close_machine();
    return 0;
}
