/*
 * curses.c - a machine's text modes and keyboard on a terminal
 *
 * Theory of operation. The screen's characters are looked at 30 times a second, 10 times if nothing
 * changed for a second; what differs is given to curses. Curses writes into a file in memory, and
 * that goes to the terminal as it takes it (output.c): a slow terminal gets fewer frames, and the
 * machine never waits for it. Keys come as the terminal's characters and sequences, which curses
 * takes apart; what goes down and up on the guest's keyboard for them is the typist's work.
 *
 * After the escape key (Ctrl-A) there are commands, as with a serial console (stdio.c).
 *
 * While the terminal shows the guest, what is written to standard error is kept in a file in
 * memory, with its last line at the bottom for a moment; all of it follows when the terminal is
 * given back, also by a signal that ends the process.
 */
#include "backends/display/curses.h"

#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "backends/char/internal.h"
#include "backends/char/terminal.h"
#include "backends/display/typist.h"
#include "host/file.h"
#include "host/loop.h"
#include "trapeze/clock.h"
#include "trapeze/display.h"
#include "trapeze/machine.h"

#define REFRESH_NS     (NANOSECONDS_PER_SECOND / 30)
#define SLOW_NS        (NANOSECONDS_PER_SECOND / 10) /* after QUIET looks without a change */
#define QUIET          30
#define MESSAGE_NS     (5 * NANOSECONDS_PER_SECOND)
#define MAX_ERRORS     (1u << 20) /* bytes of standard error that are kept */
#define ESCAPE_KEY     0x01       /* Ctrl-A */
#define ESCAPE_WAIT_MS 20         /* for the rest of a key's sequence */

struct curses {
    struct machine *machine;
    const struct chardev_console *console;
    struct typist *typist;
    struct timer timer;
    unsigned quiet; /* looks since something changed */
    bool has_colours, has_bright, has_unicode;

    SCREEN *terminal;
    FILE *frame; /* what curses writes; from frame_sent on it has still to go */
    off_t frame_sent;
    struct char_output output;
    FILE *input;
    struct loop_fd *reader;
    unsigned short rows, columns; /* of the terminal */

    struct screen_text shown; /* cells NULL: nothing, or graphics */
    bool shows_graphics;
    bool escaped; /* the escape key was pressed */
    char message[160];
    uint64_t message_until_ns;
    off_t errors_seen;
};

/* ---- the terminal, and its way back; process-wide, as it is ---- */

static char enter_sequence[256], leave_sequence[256];
static int errors_fd = -1, old_errors_fd = -1; /* standard error's, if it is the terminal */
static volatile sig_atomic_t was_stopped;

static void write_all(int fd, const char *text, size_t size)
{
    while (size) {
        ssize_t written = write(fd, text, size);

        if (written <= 0)
            return;
        text += written;
        size -= (size_t)written;
    }
}

/* Standard error is the terminal again, with what was said meanwhile. */
static void release_errors(void)
{
    char text[512];
    ssize_t size;

    if (errors_fd < 0 || dup2(old_errors_fd, STDERR_FILENO) < 0)
        return;
    for (off_t at = 0; (size = pread(errors_fd, text, sizeof(text), at)) > 0; at += size)
        write_all(STDERR_FILENO, text, (size_t)size);
    if (ftruncate(errors_fd, 0))
        errors_fd = -1; /* it will not be said twice */
}

static void on_left(void)
{
    write_all(STDOUT_FILENO, leave_sequence, strlen(leave_sequence));
    release_errors();
}

static void on_taken(void)
{
    if (errors_fd >= 0)
        dup2(errors_fd, STDERR_FILENO);
    was_stopped = 1;
}

static const struct terminal_hooks hooks = {.left = on_left, .taken = on_taken};

static int is_same_terminal(int fd)
{
    struct stat output, other;

    return isatty(fd) && !fstat(STDOUT_FILENO, &output) && !fstat(fd, &other) &&
           output.st_rdev == other.st_rdev;
}

static void keep_errors(void)
{
    if (!is_same_terminal(STDERR_FILENO))
        return;
    errors_fd = memfd_create("stderr", MFD_CLOEXEC);
    old_errors_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (errors_fd < 0 || old_errors_fd < 0 || fcntl(errors_fd, F_SETFL, O_APPEND) ||
        dup2(errors_fd, STDERR_FILENO) < 0) {
        close(errors_fd);
        close(old_errors_fd);
        errors_fd = old_errors_fd = -1;
    }
}

static void forget_errors(void)
{
    if (old_errors_fd >= 0) {
        close(errors_fd);
        close(old_errors_fd);
    }
    errors_fd = old_errors_fd = -1;
}

/* ---- sequences of terminfo ---- */

/* Without the delays ("$<5>") that terminals of paper needed. */
static void add_sequence(char to[256], const char *capability)
{
    const char *from = tigetstr(capability);
    size_t length = strlen(to);

    if (!from || from == (const char *)-1)
        return;
    while (*from && length + 1 < 256)
        if (from[0] == '$' && from[1] == '<')
            from += strcspn(from, ">") + (strchr(from, '>') != NULL);
        else
            to[length++] = *from++;
    to[length] = '\0';
}

static void find_sequences(void)
{
    static const char *const enter[] = {"smcup", "smkx", NULL};
    static const char *const leave[] = {"sgr0", "rmkx", "cnorm", "rmcup", NULL};

    enter_sequence[0] = leave_sequence[0] = '\0';
    for (const char *const *name = enter; *name; name++)
        add_sequence(enter_sequence, *name);
    for (const char *const *name = leave; *name; name++)
        add_sequence(leave_sequence, *name);
}

/* ---- frames on their way out ---- */

/* All that curses wrote is with the terminal. */
static bool pump(struct curses *curses)
{
    uint8_t bytes[4096];
    ssize_t size;

    while ((size = pread(fileno(curses->frame), bytes, sizeof(bytes), curses->frame_sent)) > 0) {
        size_t taken = char_output_put(&curses->output, bytes, (size_t)size);

        curses->frame_sent += (off_t)taken;
        if (taken < (size_t)size)
            return false;
    }
    if (curses->frame_sent && !ftruncate(fileno(curses->frame), 0)) {
        lseek(fileno(curses->frame), 0, SEEK_SET);
        curses->frame_sent = 0;
    }
    return curses->output.count == 0;
}

static void on_room(void *opaque)
{
    pump(opaque);
}

/* ---- drawing ---- */

static void tell(struct curses *curses, const char *text)
{
    snprintf(curses->message, sizeof(curses->message), "%.*s", (int)sizeof(curses->message) - 1,
             text);
    curses->message_until_ns = clock_now_ns(curses->timer.clocks, CLOCK_ID_HOST) + MESSAGE_NS;
    curses->quiet = 0;
}

/* The last line that was written to standard error since it was looked at. */
static void look_at_errors(struct curses *curses)
{
    struct stat status;
    char text[sizeof(curses->message)] = "", *line;
    ssize_t size;

    if (errors_fd < 0 || host_fstat(errors_fd, &status) || status.st_size == curses->errors_seen)
        return;
    size =
        pread(errors_fd, text, sizeof(text) - 1,
              status.st_size < (off_t)sizeof(text) ? 0 : status.st_size - (off_t)sizeof(text) + 1);
    curses->errors_seen = status.st_size;
    if (size > 0 && text[size - 1] == '\n')
        text[size - 1] = '\0';
    line = strrchr(text, '\n');
    tell(curses, line ? line + 1 : text);
    if (status.st_size > MAX_ERRORS && !ftruncate(errors_fd, 0))
        curses->errors_seen = 0;
}

/* What stands for a character of code page 437 where there is no Unicode. */
static wchar_t plain_character(uint16_t code)
{
    code &= 0xff;
    if (code >= ' ' && code < 0x7f)
        return (wchar_t)code;
    if (code == 0 || code == 0xff)
        return ' ';
    if (code == 0xb3 || code == 0xba)
        return '|';
    if (code == 0xc4 || code == 0xcd)
        return '-';
    if (code >= 0xb0 && code <= 0xdf)
        return code < 0xb3 || code >= 0xdb ? '#' : '+';
    return '?';
}

/* Colours of a VGA count blue first, those of terminals red. */
static short colour_of(const struct curses *curses, unsigned index)
{
    static const short order[8] = {0, 4, 2, 6, 1, 5, 3, 7};

    return (short)(order[index & 7] | (curses->has_bright ? index & 8 : 0));
}

/* Pair 0 is white on black for all. */
static short pair_of(const struct curses *curses, const struct screen_cell *cell)
{
    short foreground = colour_of(curses, cell->foreground);
    short background = colour_of(curses, cell->background);

    return (short)((foreground ^ 7) * (curses->has_bright ? 16 : 8) + background);
}

static void make_pairs(struct curses *curses)
{
    short count = 8;

    curses->has_colours = has_colors() && start_color() == OK && COLORS >= 8 && COLOR_PAIRS >= 64;
    curses->has_bright = curses->has_colours && COLORS >= 16 && COLOR_PAIRS >= 256;
    if (curses->has_bright)
        count = 16;
    for (short pair = 1; curses->has_colours && pair < count * count; pair++)
        init_pair(pair, (short)((pair / count) ^ 7), (short)(pair % count));
}

static void draw_cell(const struct curses *curses, int y, int x, const struct screen_cell *cell)
{
    wchar_t text[2] = {screen_code_to_unicode(cell->code), 0};
    attr_t attributes = A_NORMAL;
    cchar_t character;

    if (!curses->has_unicode || wcwidth(text[0]) != 1)
        text[0] = plain_character(cell->code);
    if (cell->flags & SCREEN_TEXT_BLINK)
        attributes |= A_BLINK;
    if (cell->flags & SCREEN_TEXT_UNDERLINE)
        attributes |= A_UNDERLINE;
    if (!curses->has_bright && cell->foreground & 8)
        attributes |= A_BOLD;
    if (!curses->has_colours && cell->background & 7)
        attributes |= A_REVERSE;
    if (setcchar(&character, text, attributes, curses->has_colours ? pair_of(curses, cell) : 0,
                 NULL) == OK)
        mvadd_wch(y, x, &character);
}

/* What is left out of a dimension on the left, so that the cursor is in the window. */
static uint32_t first_shown(uint32_t size, uint32_t window, uint32_t cursor)
{
    if (size <= window || cursor < window)
        return 0;
    return cursor < size ? cursor - window + 1 : 0;
}

static void draw_text(const struct curses *curses)
{
    const struct screen_text *text = &curses->shown;
    uint32_t left = first_shown(text->columns, curses->columns, text->cursor_column);
    uint32_t top = first_shown(text->rows, curses->rows, text->cursor_row);

    for (uint32_t y = 0; y < curses->rows && top + y < text->rows; y++)
        for (uint32_t x = 0; x < curses->columns && left + x < text->columns; x++)
            draw_cell(curses, (int)y, (int)x,
                      &text->cells[(size_t)(top + y) * text->columns + left + x]);
    curs_set(text->has_cursor);
    if (text->has_cursor)
        move((int)(text->cursor_row - top), (int)(text->cursor_column - left));
}

static void draw_all(struct curses *curses)
{
    static const char graphics[] = "The guest shows graphics, and this terminal only characters: "
                                   "'trapeze screenshot' takes a picture";
    int y, x;

    erase();
    if (curses->shown.cells) {
        draw_text(curses);
    } else {
        curs_set(0);
        mvaddnstr(curses->rows / 2, 0, graphics, curses->columns);
    }
    getyx(stdscr, y, x);
    if (curses->message[0]) {
        attron(A_REVERSE);
        mvaddnstr(curses->rows - 1, 0, curses->message, curses->columns);
        attroff(A_REVERSE);
        move(y, x);
    }
    refresh();
}

/* ---- looking ---- */

static bool is_same_text(const struct screen_text *a, const struct screen_text *b)
{
    return a->cells && b->cells && a->columns == b->columns && a->rows == b->rows &&
           a->has_cursor == b->has_cursor && a->cursor_column == b->cursor_column &&
           a->cursor_row == b->cursor_row &&
           !memcmp(a->cells, b->cells, sizeof(*a->cells) * a->columns * a->rows);
}

/* Has the guest changed what it shows? */
static bool look_at_screen(struct curses *curses)
{
    struct screen *screen = display_screen(machine_display(curses->machine), 0);
    struct screen_text text = {0};
    bool is_text = screen && screen_text(screen, &text);
    bool has_changed = is_text ? !is_same_text(&text, &curses->shown) : !curses->shows_graphics;

    curses->shows_graphics = !is_text;
    screen_text_done(&curses->shown);
    curses->shown = text;
    return has_changed;
}

/* Is the terminal's window another size, or was it somebody else's meanwhile? */
static bool look_at_window(struct curses *curses)
{
    struct winsize window;
    bool has_changed = was_stopped;

    if (was_stopped) {
        was_stopped = 0;
        char_output_put(&curses->output, (const uint8_t *)enter_sequence, strlen(enter_sequence));
        clearok(curscr, true);
    }
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) || !window.ws_row || !window.ws_col)
        return has_changed;
    if (window.ws_row == curses->rows && window.ws_col == curses->columns)
        return has_changed;
    curses->rows = window.ws_row;
    curses->columns = window.ws_col;
    resizeterm(curses->rows, curses->columns);
    clearok(curscr, true);
    return true;
}

static bool look_at_message(struct curses *curses)
{
    uint64_t now = clock_now_ns(curses->timer.clocks, CLOCK_ID_HOST);
    char old[sizeof(curses->message)];

    memcpy(old, curses->message, sizeof(old));
    look_at_errors(curses);
    if (curses->message[0] && now >= curses->message_until_ns)
        curses->message[0] = '\0';
    return strcmp(old, curses->message) != 0;
}

static void look_again(struct curses *curses, uint64_t delay_ns)
{
    timer_arm(&curses->timer, clock_now_ns(curses->timer.clocks, CLOCK_ID_HOST) + delay_ns);
}

static void look(struct curses *curses)
{
    bool has_changed;

    if (!pump(curses))
        return;
    has_changed = look_at_window(curses);
    has_changed |= look_at_message(curses);
    has_changed |= look_at_screen(curses);
    if (!has_changed) {
        curses->quiet += curses->quiet < QUIET;
        return;
    }
    curses->quiet = 0;
    draw_all(curses);
    pump(curses);
}

static void on_time(void *opaque)
{
    struct curses *curses = opaque;

    look(curses);
    look_again(curses, curses->quiet < QUIET ? REFRESH_NS : SLOW_NS);
}

/* ---- keys ---- */

static void press(struct curses *curses, const char *modifiers, const char *key)
{
    struct error err = {0};
    char chord[64];

    snprintf(chord, sizeof(chord), "%s%s", modifiers, key);
    if (typist_press(curses->typist, chord, &err))
        tell(curses, err.text);
    curses->quiet = 0;
}

static const char *const modifier_names[8] = {
    "", "shift-", "alt-", "shift-alt-", "ctrl-", "ctrl-shift-", "ctrl-alt-", "ctrl-alt-shift-",
};

/* Keys whose sequences terminfo has; with modifiers they are numbered as xterm does: kUP5. */
static const struct {
    const char *capability, *key;
    int code;
} special_keys[] = {
    {"kUP", "up", KEY_UP},         {"kDN", "down", KEY_DOWN},       {"kLFT", "left", KEY_LEFT},
    {"kRIT", "right", KEY_RIGHT},  {"kHOM", "home", KEY_HOME},      {"kEND", "end", KEY_END},
    {"kPRV", "pageup", KEY_PPAGE}, {"kNXT", "pagedown", KEY_NPAGE}, {"kIC", "insert", KEY_IC},
    {"kDC", "del", KEY_DC},
};

static const struct {
    int code;
    const char *chord;
} other_keys[] = {
    {KEY_BACKSPACE, "backspace"},
    {KEY_ENTER, "enter"},
    {KEY_BTAB, "shift-tab"},
    {KEY_SLEFT, "shift-left"},
    {KEY_SRIGHT, "shift-right"},
    {KEY_SHOME, "shift-home"},
    {KEY_SEND, "shift-end"},
    {KEY_SPREVIOUS, "shift-pageup"},
    {KEY_SNEXT, "shift-pagedown"},
    {KEY_SDC, "shift-del"},
    {KEY_SIC, "shift-insert"},
    {KEY_SR, "shift-up"},
    {KEY_SF, "shift-down"},
    {KEY_B2, "kp5"},
    {KEY_A1, "home"},
    {KEY_A3, "pageup"},
    {KEY_C1, "end"},
    {KEY_C3, "pagedown"},
};

/* "kUP5" is up with Ctrl; modifiers are a digit, less 1: 1 Shift, 2 Alt, 4 Ctrl. */
static bool press_modified(struct curses *curses, int code)
{
    const char *name = keyname(code);

    for (size_t n = 0; name && n < sizeof(special_keys) / sizeof(special_keys[0]); n++) {
        size_t length = strlen(special_keys[n].capability);
        unsigned digit =
            (unsigned char)(strncmp(name, special_keys[n].capability, length) ? 0 : name[length]);

        if (digit < '2' || digit > '8' || name[length + 1])
            continue;
        press(curses, modifier_names[digit - '1'], special_keys[n].key);
        return true;
    }
    return false;
}

static void press_special(struct curses *curses, int code)
{
    /* Function keys are counted on by twelves, as on xterm; curses has 63. */
    static const unsigned modifiers[] = {0, 1, 4, 5, 2};
    unsigned number = (unsigned)(code - KEY_F0 - 1);
    char key[8];

    if (code > KEY_F0 && number < 12 * sizeof(modifiers) / sizeof(modifiers[0])) {
        snprintf(key, sizeof(key), "f%u", number % 12 + 1);
        press(curses, modifier_names[modifiers[number / 12]], key);
        return;
    }
    for (size_t n = 0; n < sizeof(special_keys) / sizeof(special_keys[0]); n++)
        if (special_keys[n].code == code) {
            press(curses, "", special_keys[n].key);
            return;
        }
    for (size_t n = 0; n < sizeof(other_keys) / sizeof(other_keys[0]); n++)
        if (other_keys[n].code == code) {
            press(curses, "", other_keys[n].chord);
            return;
        }
    press_modified(curses, code);
}

/* Characters that keys with Ctrl have, and those of keys that have no other. */
static void press_control(struct curses *curses, const char *modifiers, unsigned character)
{
    char key[16];

    if (character == '\t' || character == '\r' || character == '\n')
        press(curses, modifiers, character == '\t' ? "tab" : "enter");
    else if (character == '\b' || character == 0x7f)
        press(curses, modifiers, "backspace");
    else if (character == 0x1b)
        press(curses, modifiers, "esc");
    else {
        snprintf(key, sizeof(key), "ctrl-%c",
                 character == 0     ? ' '
                 : character < 0x1b ? (int)character + 'a' - 1
                                    : (int)character + '@');
        press(curses, modifiers, character ? key : "ctrl-space");
    }
}

static void type_character(struct curses *curses, unsigned character)
{
    char text[3] = {(char)character, character == '{' ? '{' : '\0'};
    struct error err = {0};

    if (character >= 0x7f)
        tell(curses, "this character is not on the guest's keyboard, which is a US one");
    else if (typist_type(curses->typist, text, &err))
        tell(curses, err.text);
    curses->quiet = 0;
}

static void press_with_alt(struct curses *curses, unsigned character)
{
    char text[2] = {(char)character};

    if (character < ' ' || character == 0x7f)
        press_control(curses, "alt-", character);
    else if (character >= 'A' && character <= 'Z')
        press(curses, "alt-shift-", (text[0] = (char)(character | 0x20), text));
    else if (character < 0x7f)
        press(curses, "alt-", text);
}

static void do_command(struct curses *curses, unsigned character)
{
    const struct chardev_console *console = curses->console;
    char key[16];

    switch (character) {
    case ESCAPE_KEY:
        press(curses, "", "ctrl-a");
        break;
    case 'x':
        console->quit(console->opaque);
        break;
    case 'p':
        console->press_power_button(console->opaque);
        break;
    case 'd':
        press(curses, "", "ctrl-alt-del");
        break;
    case 'c':
        tell(curses, console->monitor_hint
                         ? console->monitor_hint
                         : "The monitor is on a socket; see --monitor in 'trapeze help run'.");
        break;
    case '1' ... '9':
        snprintf(key, sizeof(key), "ctrl-alt-f%u", character - '0');
        press(curses, "", key);
        break;
    default:
        tell(curses,
             "Ctrl-A x: stop and leave, p: power button, d: Ctrl-Alt-Del, 1 to 9: Ctrl-Alt-F1 to "
             "F9, c: the monitor, Ctrl-A: itself");
    }
}

static void take_character(struct curses *curses, unsigned character)
{
    wint_t next;

    if (curses->escaped) {
        curses->escaped = false;
        do_command(curses, character);
    } else if (character == ESCAPE_KEY) {
        curses->escaped = true;
    } else if (character == 0x1b && get_wch(&next) == OK) {
        press_with_alt(curses, (unsigned)next);
    } else if (character < ' ' || character == 0x7f) {
        press_control(curses, "", character);
    } else {
        type_character(curses, character);
    }
}

static void on_input(void *opaque, unsigned events)
{
    struct curses *curses = opaque;
    wint_t key;
    int kind;

    (void)events;
    while ((kind = get_wch(&key)) != ERR)
        if (kind == OK)
            take_character(curses, (unsigned)key);
        else if (!curses->escaped)
            press_special(curses, (int)key);
    if (feof(curses->input) || (events & LOOP_HANGUP)) {
        loop_remove_fd(curses->reader);
        curses->reader = NULL;
    }
    if (curses->quiet == 0)
        look_again(curses, REFRESH_NS / 2);
}

/* ---- coming and going ---- */

/* Curses knows the terminal's modes by the descriptor that it writes to: that is one at first. */
static int redirect_frames(struct curses *curses, struct error *err)
{
    int memory = memfd_create("frame", MFD_CLOEXEC);

    if (memory < 0 || dup3(memory, fileno(curses->frame), O_CLOEXEC) < 0)
        return error_set(err, errno, "memory for frames: %s", strerror(errno));
    close(memory);
    return 0;
}

/* Signals stay as they are, which curses would change. */
static SCREEN *new_terminal(const struct curses *curses)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
    struct sigaction old[sizeof(signals) / sizeof(signals[0])];
    SCREEN *terminal;

    for (size_t n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
        sigaction(signals[n], NULL, &old[n]);
    terminal = newterm(NULL, curses->frame, curses->input);
    for (size_t n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
        sigaction(signals[n], &old[n], NULL);
    return terminal;
}

static int open_terminal(struct curses *curses, struct error *err)
{
    const char *type = getenv("TERM");

    setlocale(LC_CTYPE, "");
    curses->has_unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    curses->frame = fdopen(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), "w");
    curses->input = fdopen(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), "r");
    if (!curses->frame || !curses->input)
        return error_set(err, errno, "%s", strerror(errno));
    curses->terminal = new_terminal(curses);
    if (!curses->terminal)
        return error_set(err, ENOTTY, "terminfo does not know the terminal '%s' (TERM)",
                         type ? type : "");
    raw();
    noecho();
    nonl();
    keypad(stdscr, true);
    nodelay(stdscr, true);
    intrflush(stdscr, false);
    set_escdelay(ESCAPE_WAIT_MS);
    make_pairs(curses);
    find_sequences();
    return redirect_frames(curses, err);
}

static int open_all(struct curses *curses, struct error *err)
{
    struct loop *loop = machine_loop(curses->machine);

    if (!display_screen(machine_display(curses->machine), 0))
        return error_set(err, ENODEV, "the machine has no screen; add --vga std");
    if (!isatty(STDIN_FILENO) || !is_same_terminal(STDIN_FILENO))
        return error_set(err, ENOTTY, "standard input and output are not a terminal");
    curses->typist = typist_new(curses->machine, err);
    if (!curses->typist || terminal_take(&hooks, err) || open_terminal(curses, err) ||
        char_output_init(&curses->output, loop, STDOUT_FILENO, false, on_room, curses, err))
        return -EINVAL;
    curses->reader = loop_add_fd(loop, STDIN_FILENO, LOOP_READ, on_input, curses, err);
    if (!curses->reader)
        return -ENOMEM;
    keep_errors();
    tell(curses, "Ctrl-A h: help");
    look_again(curses, 0);
    return 0;
}

struct curses *curses_new(struct machine *machine, const struct chardev_console *console,
                          struct error *err)
{
    struct curses *curses = calloc(1, sizeof(*curses));

    if (!curses) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    curses->machine = machine;
    curses->console = console;
    curses->output.fd = curses->output.timer_fd = -1;
    timer_init(&curses->timer, machine_clocks(machine), CLOCK_ID_HOST, on_time, curses);
    if (!open_all(curses, err))
        return curses;
    curses_free(curses);
    return NULL;
}

void curses_free(struct curses *curses)
{
    if (!curses)
        return;
    timer_done(&curses->timer);
    loop_remove_fd(curses->reader);
    char_output_done(&curses->output);
    terminal_give_back();
    forget_errors();
    if (curses->terminal) {
        endwin();
        delscreen(curses->terminal);
    }
    if (curses->frame)
        fclose(curses->frame);
    if (curses->input)
        fclose(curses->input);
    typist_free(curses->typist);
    screen_text_done(&curses->shown);
    free(curses);
}
