/*
 * stdio.c - the terminal, or whatever standard input and output are
 *
 * A terminal on standard input goes into raw mode, so that every key but the escape
 * key reaches the guest, and comes back when the backend is freed, at exit, and
 * when a signal ends or stops the process. Without a terminal standard input is a plain
 * stream, its end is harmless, and output goes to standard output all the same.
 *
 * After the escape key (Ctrl-A): x ends the machine, p presses its power button, b sends a break,
 * c tells how to reach the monitor, h helps, and Ctrl-A itself is sent once.
 *
 * There is one terminal, so there can be one such backend. Threads: main loop and machine
 * lock; the signal handler only puts the terminal's mode back.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backends/char/internal.h"
#include "backends/char/terminal.h"

#define ESCAPE_KEY 0x01 /* Ctrl-A */
#define READ_BYTES 256

struct stdio_backend {
    struct chardev chardev;
    bool escape;  /* property */
    bool escaped; /* the escape key was pressed */
    struct char_output output;
    struct char_input input;
    struct loop_fd *reader;
};

static struct stdio_backend *the_backend;

/* ---- the escape key ---- */

static void say(struct stdio_backend *s, const char *text)
{
    char_output_put(&s->output, (const uint8_t *)text, strlen(text));
}

static void help(struct stdio_backend *s)
{
    say(s, "\r\n"
           "Ctrl-A h       this help\r\n"
           "Ctrl-A x       stop the machine and leave\r\n"
           "Ctrl-A p       press the power button, which also wakes a guest that sleeps\r\n"
           "Ctrl-A b       send a break\r\n"
           "Ctrl-A c       how to reach the monitor\r\n"
           "Ctrl-A Ctrl-A  send Ctrl-A\r\n");
}

static void monitor_hint(struct stdio_backend *s)
{
    const struct chardev_console *console = s->chardev.console;

    say(s, "\r\n");
    say(s, console && console->monitor_hint
               ? console->monitor_hint
               : "The monitor is on a socket; see --monitor in 'trapeze help run'.");
    say(s, "\r\n");
}

static void quit(struct stdio_backend *s)
{
    const struct chardev_console *console = s->chardev.console;

    say(s, "\r\n");
    if (console && console->quit)
        console->quit(console->opaque);
    else
        kill(getpid(), SIGTERM);
}

static void press_power_button(struct stdio_backend *s)
{
    const struct chardev_console *console = s->chardev.console;

    if (console && console->press_power_button)
        console->press_power_button(console->opaque);
}

/* A terminal's user who types more than the guest reads loses bytes, not the escape key. */
static void type(struct stdio_backend *s, uint8_t byte)
{
    char_input_add(&s->input, byte);
}

static void command(struct stdio_backend *s, uint8_t byte)
{
    switch (byte) {
    case ESCAPE_KEY:
        type(s, byte);
        break;
    case 'b':
        char_input_push(&s->input);
        chardev_deliver_break(&s->chardev);
        break;
    case 'c':
        monitor_hint(s);
        break;
    case 'h':
    case '?':
        help(s);
        break;
    case 'p':
        press_power_button(s);
        break;
    case 'x':
        quit(s);
        break;
    default: /* not a command: forget the escape key too */
        break;
    }
}

static void take_byte(struct stdio_backend *s, uint8_t byte)
{
    if (s->escaped) {
        s->escaped = false;
        command(s, byte);
    } else if (byte == ESCAPE_KEY && s->escape) {
        s->escaped = true;
    } else {
        type(s, byte);
    }
}

/* ---- input ---- */

/* A stream waits until there is room; a terminal is always read, for its escape key. */
static void update_reading(struct stdio_backend *s)
{
    bool wanted = terminal_is_raw() || char_input_room(&s->input) >= READ_BYTES;

    if (s->reader)
        loop_set_events(s->reader, wanted ? LOOP_READ : 0);
}

static void end_input(struct stdio_backend *s)
{
    loop_remove_fd(s->reader);
    s->reader = NULL;
}

static void read_input(void *opaque, unsigned events)
{
    struct stdio_backend *s = opaque;
    uint8_t data[READ_BYTES];
    ssize_t size;

    (void)events;
    size = read(STDIN_FILENO, data, sizeof(data));
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        end_input(s);
        return;
    }
    for (ssize_t i = 0; i < size; i++)
        take_byte(s, data[i]);
    char_input_push(&s->input);
    update_reading(s);
}

static void stdio_accept_input(struct chardev *chardev)
{
    struct stdio_backend *s = (struct stdio_backend *)chardev;

    char_input_push(&s->input);
    update_reading(s);
}

/* ---- output and lifecycle ---- */

static size_t stdio_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    return char_output_put(&((struct stdio_backend *)chardev)->output, data, size_bytes);
}

static bool stdio_window(struct chardev *chardev, uint16_t *out_columns, uint16_t *out_rows)
{
    struct winsize window;

    (void)chardev;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window))
        return false;
    *out_columns = window.ws_col;
    *out_rows = window.ws_row;
    return true;
}

static void stdio_room(void *opaque)
{
    chardev_notify_can_send(opaque);
}

/* A terminal that another job has in front must not be read, and its mode not be touched. */
static int open_input(struct stdio_backend *s, struct loop *loop, struct error *err)
{
    int result = isatty(STDIN_FILENO) ? terminal_take(NULL, err) : -ENOTTY;

    if (result == -EPERM)
        return 0;
    if (result == -EBUSY)
        return result;
    if (result == -ENOTTY)
        s->escape = false;
    s->reader = loop_add_fd(loop, STDIN_FILENO, LOOP_READ, read_input, s, err);
    return s->reader ? 0 : -ENOMEM;
}

static int stdio_open(struct chardev *chardev, struct loop *loop, struct error *err)
{
    struct stdio_backend *s = (struct stdio_backend *)chardev;
    int rc;

    s->output.fd = -1;
    s->output.timer_fd = -1;
    s->input.chardev = chardev;
    if (the_backend)
        return error_set(err, EBUSY, "standard input and output are in use by another device");
    the_backend = s;
    rc = char_output_init(&s->output, loop, STDOUT_FILENO, false, stdio_room, chardev, err);
    return rc ? rc : open_input(s, loop, err);
}

static void stdio_free(struct chardev *chardev)
{
    struct stdio_backend *s = (struct stdio_backend *)chardev;

    if (the_backend != s)
        return;
    end_input(s);
    char_output_done(&s->output);
    terminal_give_back();
    the_backend = NULL;
}

static const struct property stdio_properties[] = {
    PROPERTY_BOOL(struct stdio_backend, escape, true, "Ctrl-A is the escape key of a terminal"),
    PROPERTY_END,
};

const struct chardev_kind chardev_stdio = {
    .ops =
        {
            .name = "stdio",
            .summary = "the terminal, or standard input and output",
            .send = stdio_send,
            .accept_input = stdio_accept_input,
            .window = stdio_window,
            .free = stdio_free,
        },
    .instance_size = sizeof(struct stdio_backend),
    .properties = stdio_properties,
    .open = stdio_open,
};
