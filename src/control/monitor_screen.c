/*
 * monitor_screen.c - commands for the screen, the keyboard and the pointer
 */
#include "control/monitor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/typist.h"
#include "base/base64.h"
#include "control/stream.h"
#include "machine/pc.h"
#include "trapeze/display.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define MAX_PNG_BYTES (STREAM_MAX_QUEUED_BYTES / 4 * 3 - 4096) /* as base64 */

/* ---- screenshots ---- */

static size_t put_utf8(char *to, uint16_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    to[0] = (char)(0xe0 | c >> 12);
    to[1] = (char)(0x80 | (c >> 6 & 0x3f));
    to[2] = (char)(0x80 | (c & 0x3f));
    return 3;
}

/* A row's characters; spaces at its end are left out. */
static json_t *row_json(const struct screen_cell *cells, uint32_t columns)
{
    char *text = malloc(3 * (size_t)columns + 1);
    size_t size = 0;
    json_t *json;

    while (columns && (cells[columns - 1].code & 0xff) <= ' ' &&
           screen_code_to_unicode(cells[columns - 1].code) == ' ')
        columns--;
    for (uint32_t n = 0; text && n < columns; n++)
        size += put_utf8(text + size, screen_code_to_unicode(cells[n].code));
    json = text ? json_stringn(text, size) : NULL;
    free(text);
    return json;
}

static int set_screen_text(struct call *call, struct screen *screen, struct error *err)
{
    struct screen_text text;
    json_t *lines = json_array();

    if (!screen_text(screen, &text)) {
        json_decref(lines);
        return error_set(err, ENOTSUP, "the screen is in a graphics mode: it has no characters");
    }
    for (uint32_t row = 0; row < text.rows; row++)
        json_array_append_new(lines,
                              row_json(text.cells + (size_t)row * text.columns, text.columns));
    call_set(call, "columns", json_integer(text.columns));
    call_set(call, "rows", json_integer(text.rows));
    if (text.has_cursor)
        call_set(call, "cursor",
                 json_pack("{s:i, s:i}", "column", (int)text.cursor_column, "row",
                           (int)text.cursor_row));
    call_set(call, "lines", lines);
    screen_text_done(&text);
    return 0;
}

static int set_screen_png(struct call *call, struct screen *screen, struct error *err)
{
    uint8_t *png;
    char *text;
    size_t size;

    if (screen_png(screen, &png, &size, err))
        return -ENOMEM;
    text = size < MAX_PNG_BYTES ? base64_encode(png, size) : NULL;
    free(png);
    if (!text)
        return error_set(err, EFBIG, "the picture has %zu bytes, which are too many", size);
    call_set(call, "png", json_string(text));
    free(text);
    return 0;
}

int monitor_run_screenshot(struct call *call, struct error *err)
{
    uint64_t number = call_number(call, "screen", 0);
    struct screen *screen = number < UINT32_MAX
                                ? display_screen(machine_display(call->machine), (unsigned)number)
                                : NULL;

    if (!screen)
        return error_set(err, ENODEV, "the machine has no %sscreen%s", number ? "such " : "",
                         number ? "" : "; run it with --vga std");
    call_set(call, "device", monitor_string(screen_name(screen)));
    if (call_flag(call, "text"))
        return set_screen_text(call, screen, err);
    return set_screen_png(call, screen, err);
}

/* ---- windows ---- */

static void press_power_button(void *opaque)
{
    pc_press_power_button(opaque);
}

static void end_machine(void *opaque)
{
    machine_request_stop(opaque, STOP_HOST, 0);
}

const struct window_calls monitor_window_calls = {.power_off = press_power_button,
                                                  .end = end_machine};

/* What is at the other end of the socket that comes with it shows the screen. */
int monitor_run_window(struct call *call, struct error *err)
{
    int fd = call->client ? stream_take_file(call->client->stream) : -1;

    if (fd < 0)
        return error_set(err, EBADF, "no socket came with it (SCM_RIGHTS)");
    if (call_expect_alive(call, err) || !display_screen(machine_display(call->machine), 0)) {
        close(fd);
        return error_set(err, ENODEV, "the machine has no screen; run it with --vga std");
    }
    return windows_add(&call->client->monitor->windows, fd, err);
}

/* ---- keys and clicks ---- */

static struct typist *get_typist(struct call *call, struct error *err)
{
    struct monitor *monitor = call->client ? call->client->monitor : NULL;

    if (!monitor) {
        error_set(err, ENOTSUP, "only a client of the socket can type");
        return NULL;
    }
    if (!monitor->typist && !call_expect_alive(call, err))
        monitor->typist = typist_new(call->machine, err);
    return monitor->typist;
}

/* When it will be done. */
static int set_typing_time(struct call *call, const struct typist *typist, int result)
{
    if (!result)
        call_set(call, "milliseconds",
                 json_integer((json_int_t)(typist_left_ns(typist) / 1000000)));
    return result;
}

int monitor_run_type(struct call *call, struct error *err)
{
    struct typist *typist = get_typist(call, err);

    if (!typist)
        return -ENOTSUP;
    return set_typing_time(call, typist, typist_type(typist, call_text(call, "text"), err));
}

int monitor_run_key(struct call *call, struct error *err)
{
    struct typist *typist = get_typist(call, err);

    if (!typist)
        return -ENOTSUP;
    return set_typing_time(call, typist, typist_press(typist, call_text(call, "keys"), err));
}

static int parse_button(const char *name, unsigned *out, struct error *err)
{
    static const char *const names[] = {"left", "right", "middle", NULL};
    static const unsigned buttons[] = {INPUT_BUTTON_LEFT, INPUT_BUTTON_RIGHT, INPUT_BUTTON_MIDDLE};

    for (unsigned n = 0; names[n]; n++)
        if (!name || strcmp(names[n], name) == 0) {
            *out = buttons[n];
            return 0;
        }
    return error_set(err, EINVAL, "there is no button '%.32s'; they are left, right and middle",
                     name);
}

int monitor_run_click(struct call *call, struct error *err)
{
    struct typist *typist = get_typist(call, err);
    uint64_t x = call_number(call, "x", 0), y = call_number(call, "y", 0);
    unsigned button = 0;

    if (!typist || parse_button(call_text(call, "button"), &button, err))
        return -EINVAL;
    call_set(call, "absolute", json_boolean(input_has_absolute(machine_input(call->machine))));
    return set_typing_time(call, typist,
                           typist_click(typist, x < UINT32_MAX ? (uint32_t)x : UINT32_MAX,
                                        y < UINT32_MAX ? (uint32_t)y : UINT32_MAX, button, err));
}
