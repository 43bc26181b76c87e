/*
 * window.c - a machine's screen, keyboard and pointer for a window: the machine's end
 *
 * Theory of operation. The window says when it has time for a frame (WINDOW_READY). Then the screen
 * is refreshed 60 times a second, 10 times if nothing changed for a second, until something has
 * changed; that is copied into the memory that both see, and the window is told, in six packets
 * at most. So no queue can grow, and a window that is hidden or stuck costs nothing.
 *
 * What comes from the window is not trusted: packets of another size and unknown kinds end it.
 * Who made the shared file can shorten it, which ends the machine's process, as WINDOW_END does.
 */
#include "backends/display/window.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "host/file.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define REFRESH_NS    (NANOSECONDS_PER_SECOND / 60)
#define SLOW_NS       (NANOSECONDS_PER_SECOND / 10) /* after QUIET refreshes without a change */
#define QUIET         60
#define MAX_PACKETS   64    /* of a window at once; the rest is done a moment later */
#define OPEN_LIMIT_MS 20000 /* for a program to start and show a window */

struct window {
    struct windows *windows;
    struct screen *screen; /* NULL: it is not looked at */
    struct screen_viewer viewer;
    struct screen_surface surface;
    struct clipboard_peer peer; /* has joined while there is a screen */
    int socket, timer_fd;
    struct loop_fd *reader, *timer;
    uint8_t *memory; /* NULL: it has not come */
    bool is_ready;   /* for a frame */
    unsigned quiet;

    /* What it has not been told. */
    bool has_new_size, has_new_cursor, has_new_text;
    uint32_t cursor[4], state;
    struct screen_rect changed; /* width 0: nothing */
    struct window *next;
};

/* ---- what is new ---- */

static void on_resized(void *opaque, const struct screen_surface *surface)
{
    struct window *window = opaque;

    window->surface = *surface;
    window->has_new_size = true;
    window->changed = (struct screen_rect){0, 0, surface->width, surface->height};
    window->quiet = 0;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void on_changed(void *opaque, const struct screen_rect *rect)
{
    struct window *window = opaque;
    struct screen_rect old = window->changed.width ? window->changed : *rect,
                       *all = &window->changed;

    all->x = least(old.x, rect->x);
    all->y = least(old.y, rect->y);
    all->width = most(old.x + old.width, rect->x + rect->width) - all->x;
    all->height = most(old.y + old.height, rect->y + rect->height) - all->y;
    window->quiet = 0;
}

static void on_cursor_changed(void *opaque, const struct screen_cursor *cursor)
{
    struct window *window = opaque;

    if (!cursor->width && !window->cursor[0])
        return; /* a card without */
    memcpy(window->memory, cursor->pixels, sizeof(cursor->pixels));
    window->cursor[0] = cursor->width;
    window->cursor[1] = cursor->height;
    window->cursor[2] = cursor->hot_x;
    window->cursor[3] = cursor->hot_y;
    window->has_new_cursor = true;
    window->quiet = 0;
}

static void on_removed(void *opaque)
{
    struct window *window = opaque;

    window->screen = NULL;
    clipboard_leave(machine_clipboard(window->windows->machine), &window->peer);
}

static const struct screen_viewer_ops viewer_ops = {
    .resized = on_resized,
    .changed = on_changed,
    .cursor_changed = on_cursor_changed,
    .removed = on_removed,
};

/* ---- telling ---- */

static void window_free(struct window *window);

static bool send_packet(const struct window *window, uint32_t kind, const uint32_t values[4])
{
    struct window_packet packet = {.kind = kind};

    memcpy(packet.values, values, sizeof(packet.values));
    return host_send(window->socket, &packet, sizeof(packet), -1) == sizeof(packet);
}

static uint32_t state_of(const struct window *window)
{
    struct machine *machine = window->windows->machine;

    return (machine_get_state(machine) == MACHINE_RUNNING ? WINDOW_IS_RUNNING : 0) |
           (input_has_absolute(machine_input(machine)) ? WINDOW_IS_ABSOLUTE : 0);
}

/* False: the window does not listen any more. */
static bool send_text(const struct window *window)
{
    uint32_t values[4] = {0};
    size_t size;
    const char *text = clipboard_text(machine_clipboard(window->windows->machine), &size);

    if (!window->has_new_text || !text)
        return true;
    memcpy(window->memory + WINDOW_TO_WINDOW, text, size);
    values[0] = (uint32_t)size;
    return send_packet(window, WINDOW_TEXT, values);
}

static void copy_changed(const struct window *window)
{
    const struct screen_surface *surface = &window->surface;
    const struct screen_rect *rect = &window->changed;

    for (uint32_t y = rect->y; y < rect->y + rect->height; y++) {
        const uint32_t *from = surface->pixels + (size_t)y * surface->stride + rect->x;

        memcpy(window->memory + WINDOW_CURSOR_BYTES + 4 * ((size_t)y * surface->width + rect->x),
               from, 4 * (size_t)rect->width);
    }
}

/* A frame, if there is something to tell. False: the window does not listen any more. */
static bool send_frame(struct window *window)
{
    uint32_t size[4] = {window->surface.width, window->surface.height}, state[4] = {0};
    const struct screen_rect *rect = &window->changed;
    uint32_t frame[4] = {rect->x, rect->y, rect->width, rect->height};

    state[0] = state_of(window);
    if (!rect->width && !window->has_new_cursor && !window->has_new_text &&
        state[0] == window->state)
        return true;
    copy_changed(window);
    if ((window->has_new_size && !send_packet(window, WINDOW_SIZE, size)) ||
        (window->has_new_cursor && !send_packet(window, WINDOW_CURSOR, window->cursor)) ||
        (state[0] != window->state && !send_packet(window, WINDOW_STATE, state)) ||
        !send_text(window) || !send_packet(window, WINDOW_FRAME, frame))
        return false;
    window->has_new_size = window->has_new_cursor = window->has_new_text = false;
    window->is_ready = false;
    window->changed.width = 0;
    window->state = state[0];
    return true;
}

static void arm(const struct window *window, uint64_t ns)
{
    const struct itimerspec when = {.it_value.tv_nsec = (long)ns};

    timerfd_settime(window->timer_fd, 0, &when, NULL);
}

static void look_soon(struct window *window)
{
    if (window->is_ready && window->quiet >= QUIET)
        arm(window, REFRESH_NS);
    window->quiet = 0;
}

static void on_copied(void *opaque)
{
    struct window *window = opaque;

    window->has_new_text = true;
    look_soon(window);
}

static const struct clipboard_ops clipboard_ops = {.changed = on_copied};

static void on_time(void *opaque, unsigned events)
{
    struct window *window = opaque;
    uint64_t count;

    (void)events;
    if (read(window->timer_fd, &count, sizeof(count)) < 0 || !window->screen)
        return;
    window->quiet += window->quiet < QUIET;
    screen_refresh(window->screen);
    if (!send_frame(window))
        window_free(window);
    else if (window->is_ready)
        arm(window, window->quiet < QUIET ? REFRESH_NS : SLOW_NS);
}

/* ---- hearing ---- */

/* With the shared file: from here on the screen is looked at. */
static int open_screen(struct window *window, int fd, struct error *err)
{
    struct screen *screen = display_screen(machine_display(window->windows->machine), 0);
    struct stat status;
    void *memory;

    if (window->memory || fd < 0 || host_fstat(fd, &status) ||
        (uint64_t)status.st_size < WINDOW_MEMORY_BYTES)
        return error_set(err, EINVAL, "it has no memory for the screen");
    if (!screen)
        return error_set(err, ENODEV, "the machine has no screen; add --vga std");
    memory = mmap(NULL, WINDOW_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return error_set(err, errno, "its memory: %s", strerror(errno));
    window->memory = memory;
    if (screen_attach(screen, &window->viewer, err))
        return -ENOMEM;
    window->screen = screen;
    window->has_new_text = true; /* if there is one */
    clipboard_join(machine_clipboard(window->windows->machine), &window->peer);
    return 0;
}

static void take_input(struct window *window, const struct window_packet *packet)
{
    struct input *input = machine_input(window->windows->machine);
    const uint32_t *values = packet->values;

    switch (packet->kind) {
    case WINDOW_KEY:
        input_key(input, (uint8_t)values[0], values[1] != 0);
        break;
    case WINDOW_AT:
        if (values[0] < window->surface.width && values[1] < window->surface.height)
            input_pointer_at(input, values[0], values[1], window->surface.width,
                             window->surface.height);
        break;
    case WINDOW_MOVED:
        input_pointer_moved(input, (int32_t)values[0], (int32_t)values[1]);
        break;
    case WINDOW_BUTTONS:
        input_buttons(input, values[0] & 0x1f);
        break;
    case WINDOW_WHEEL:
        input_wheel(input, (int32_t)values[0], (int32_t)values[1]);
        break;
    case WINDOW_RELEASE:
        input_release(input);
        break;
    case WINDOW_COPIED: /* of more than fits, nothing */
        clipboard_copy(machine_clipboard(window->windows->machine), &window->peer,
                       (const char *)window->memory + WINDOW_FROM_WINDOW,
                       values[0] <= CLIPBOARD_MAX ? values[0] : 0);
        break;
    }
    look_soon(window);
}

/* False: it is of no kind that there is. */
static bool take_packet(struct window *window, const struct window_packet *packet)
{
    const struct windows *windows = window->windows;

    switch (packet->kind) {
    case WINDOW_READY:
        window->is_ready = true;
        arm(window, REFRESH_NS);
        return true;
    case WINDOW_POWER_OFF:
        windows->calls->power_off(windows->opaque);
        return true;
    case WINDOW_END:
        windows->calls->end(windows->opaque);
        return true;
    default:
        if (packet->kind < WINDOW_KEY || packet->kind > WINDOW_COPIED)
            return false;
        take_input(window, packet);
        return true;
    }
}

/* 1: there is none now; 0: done; else it is to go, for a reason if there is one. */
static int read_packet(struct window *window, struct error *err)
{
    union {
        struct window_packet packet;
        char bytes[WINDOW_TEXT_BYTES];
    } in = {.bytes = {0}};
    int fd, result = 0;
    ptrdiff_t size = host_receive(window->socket, &in, sizeof(in.bytes) - 1, false, &fd);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (size <= 0)
        result = -ECONNRESET;
    else if (size > (ptrdiff_t)sizeof(in.packet.kind) && in.packet.kind == WINDOW_FAILED)
        result = error_set(err, EIO, "%s", in.bytes + sizeof(in.packet.kind));
    else if (size != sizeof(in.packet))
        result = error_set(err, EPROTO, "it says what no window says");
    else if (in.packet.kind == WINDOW_HELLO)
        result = open_screen(window, fd, err);
    else if (!window->memory || !take_packet(window, &in.packet))
        result = error_set(err, EPROTO, "it says what no window says");
    if (fd >= 0)
        close(fd);
    return result;
}

static void on_readable(void *opaque, unsigned events)
{
    struct window *window = opaque;
    struct error err = {0};
    int result = 0;

    (void)events;
    for (unsigned n = 0; !result && n < MAX_PACKETS; n++)
        result = read_packet(window, &err);
    if (result >= 0)
        return;
    if (err.code)
        log_warn("a window is gone: %s", err.text);
    window_free(window);
}

/* ---- coming and going ---- */

static void window_free(struct window *window)
{
    struct window **link = &window->windows->first;

    while (*link != window)
        link = &(*link)->next;
    *link = window->next;
    window->windows->count--;
    if (window->screen) {
        screen_detach(window->screen, &window->viewer);
        clipboard_leave(machine_clipboard(window->windows->machine), &window->peer);
        input_release(machine_input(window->windows->machine));
    }
    loop_remove_fd(window->reader);
    loop_remove_fd(window->timer);
    if (window->timer_fd >= 0)
        close(window->timer_fd);
    close(window->socket);
    if (window->memory)
        munmap(window->memory, WINDOW_MEMORY_BYTES);
    free(window);
}

int windows_add(struct windows *windows, int socket, struct error *err)
{
    struct loop *loop = machine_loop(windows->machine);
    struct window *window = NULL;

    if (windows->count == WINDOWS_MAX)
        error_set(err, EUSERS, "there are %u windows already", windows->count);
    else if (!(window = calloc(1, sizeof(*window))))
        error_set(err, ENOMEM, "out of memory");
    if (!window) {
        close(socket);
        return -err->code;
    }
    window->windows = windows;
    window->viewer = (struct screen_viewer){.ops = &viewer_ops, .opaque = window};
    window->peer = (struct clipboard_peer){.ops = &clipboard_ops, .opaque = window};
    window->socket = socket;
    window->state = UINT32_MAX;
    window->next = windows->first;
    windows->first = window;
    windows->count++;
    fcntl(socket, F_SETFL, O_NONBLOCK);
    window->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (window->timer_fd < 0)
        error_set(err, errno, "timerfd: %s", strerror(errno));
    else
        window->timer = loop_add_fd(loop, window->timer_fd, LOOP_READ, on_time, window, err);
    if (window->timer)
        window->reader = loop_add_fd(loop, socket, LOOP_READ, on_readable, window, err);
    if (window->reader)
        return 0;
    window_free(window);
    return -ENOMEM;
}

int windows_wait(struct windows *windows, struct error *err)
{
    struct window *window = windows->first;
    int result = 1;

    while (result == 1) {
        struct pollfd ready = {.fd = window->socket, .events = POLLIN};

        if (poll(&ready, 1, OPEN_LIMIT_MS) <= 0)
            return error_set(err, EIO, "there is no window after %d s", OPEN_LIMIT_MS / 1000);
        result = read_packet(window, err);
    }
    if (result == -ECONNRESET)
        error_set(err, EIO, "the window's program has ended");
    return result;
}

void windows_done(struct windows *windows)
{
    while (windows->first)
        window_free(windows->first);
}
