/*
 * window.h - a machine's screen, keyboard and pointer for a window in a process of its own
 *
 * The two talk over a unix socket of whole packets (SOCK_SEQPACKET), and share the pixels: the
 * window's process makes a file in memory and sends it with its first packet. The machine copies
 * into it what has changed, says where, and goes on when that has been shown.
 *
 * src/window/ is the other end.
 */
#ifndef BACKENDS_DISPLAY_WINDOW_H
#define BACKENDS_DISPLAY_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/clipboard.h"
#include "trapeze/display.h"
#include "trapeze/error.h"

/* The shared file: the pointer's pixels, then the screen's, as in struct screen_cursor and
 * struct screen_surface without room between rows; texts of the clipboard, each written by one. */
#define WINDOW_CURSOR_BYTES (4u * SCREEN_CURSOR_MAX * SCREEN_CURSOR_MAX)
#define WINDOW_TO_WINDOW    (WINDOW_CURSOR_BYTES + 4ull * SCREEN_MAX_PIXELS)
#define WINDOW_FROM_WINDOW  (WINDOW_TO_WINDOW + CLIPBOARD_MAX)
#define WINDOW_MEMORY_BYTES (WINDOW_FROM_WINDOW + CLIPBOARD_MAX)

enum window_kind {
    /* To the window; all that is new, then WINDOW_FRAME. */
    WINDOW_SIZE = 1, /* width, height: the screen is black, all is sent anew */
    WINDOW_CURSOR,   /* width, height, hot x and y; width 0: the guest shows none */
    WINDOW_STATE,    /* bits: WINDOW_IS_... */
    WINDOW_TEXT,     /* bytes that were copied for the clipboard */
    WINDOW_FRAME,    /* x, y, width, height of what has changed; width 0: nothing */

    /* From the window. */
    WINDOW_HELLO = 64, /* with the shared file */
    WINDOW_FAILED,     /* instead, with a text behind the kind: there can be no window */
    WINDOW_READY,      /* the last frame was shown: the next one may come */
    WINDOW_KEY,        /* usage (input.h), pressed */
    WINDOW_AT,         /* x, y of the screen */
    WINDOW_MOVED,      /* right, down, signed */
    WINDOW_BUTTONS,    /* enum input_button that are down */
    WINDOW_WHEEL,      /* up, right, signed */
    WINDOW_RELEASE,    /* of all keys and buttons */
    WINDOW_COPIED,     /* bytes of a text that is on the desktop's clipboard */
    WINDOW_POWER_OFF,  /* press the machine's power button */
    WINDOW_END,        /* end the machine */
};

enum window_state { WINDOW_IS_RUNNING = 1u << 0, WINDOW_IS_ABSOLUTE = 1u << 1 };

struct window_packet {
    uint32_t kind; /* enum window_kind */
    uint32_t values[4];
};
#define WINDOW_TEXT_BYTES 256u /* of WINDOW_FAILED, with its kind */

/* ---- the machine's end; main loop's thread, machine lock held ---- */

struct machine;
struct window;

struct window_calls {
    void (*power_off)(void *opaque);
    void (*end)(void *opaque);
};

#define WINDOWS_MAX 16

/* Embedded in its owner, who sets the first three. */
struct windows {
    struct machine *machine;
    const struct window_calls *calls;
    void *opaque;
    struct window *first;
    unsigned count;
};

/* Serve what is at the other end of a socket, which is taken over. */
int windows_add(struct windows *windows, int socket, struct error *err);
/* Wait until the last one that was added shows its window; -EIO with what it says instead. */
int windows_wait(struct windows *windows, struct error *err);
/* They go; before or after the machine. */
void windows_done(struct windows *windows);

#endif
