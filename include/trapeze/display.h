/*
 * display.h - screens of a machine, and who looks at them
 *
 * A graphics device has a screen for each monitor that could be plugged into it. Any number of
 * viewers (VNC, a window, a terminal, a screenshot) look at a screen. Viewers ask: nothing is
 * drawn while nobody calls screen_refresh(), and nothing is kept for a screen without viewers.
 *
 *     static const struct screen_viewer_ops ops = {.resized = ..., .changed = ...};
 *     struct screen *screen = display_screen(machine_display(machine), 0);
 *     screen_attach(screen, &viewer);     // calls resized
 *     screen_refresh(screen);             // 30 times a second, or when the far end has time:
 *                                         // calls changed for what differs since the last time
 *     screen_detach(screen, &viewer);
 *
 * Threads: the machine lock is held for every call in here and for every call of viewers and
 * sources; the main loop's thread has it in all its handlers. A viewer with threads of its own
 * copies pixels in changed(). Viewers may attach and detach at any time but in a viewer's call.
 */
#ifndef TRAPEZE_DISPLAY_H
#define TRAPEZE_DISPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct machine;
struct screen;

#define SCREEN_MAX_PIXELS (64u << 20) /* width * height of a screen */
#define SCREEN_MAX_SIZE   16384u      /* width, height */
#define SCREEN_CURSOR_MAX 64u         /* width, height of a cursor */

struct screen_rect {
    uint32_t x, y, width, height;
};

/* What the monitor shows. */
struct screen_surface {
    uint32_t width, height;
    uint32_t stride;        /* pixels from one row to the next */
    const uint32_t *pixels; /* 0x00RRGGBB; the screen's, valid until the next refresh or detach */
    uint64_t generation;    /* another number: other size, other pixels pointer */
};

/* A pointer that the card draws over the picture: it is not in the surface. */
struct screen_cursor {
    uint32_t width, height; /* up to SCREEN_CURSOR_MAX; 0: the guest shows none */
    uint32_t hot_x, hot_y;  /* the pixel that points */
    uint32_t pixels[SCREEN_CURSOR_MAX * SCREEN_CURSOR_MAX]; /* 0xAARRGGBB, width in a row */
};

struct screen_viewer_ops {
    /* The surface is another one, and all of it has to be shown. Also called by screen_attach. */
    void (*resized)(void *opaque, const struct screen_surface *surface);
    /* These pixels changed; within the surface. */
    void (*changed)(void *opaque, const struct screen_rect *rect);
    /* May be NULL, then the viewer does not show the cursor. Also called by screen_attach. */
    void (*cursor_changed)(void *opaque, const struct screen_cursor *cursor);
    /* The guest says that the hot spot is there; may be NULL. x and y can be off the screen. */
    void (*cursor_moved)(void *opaque, int32_t x, int32_t y);
    /* The screen has gone with its card: the viewer is detached already. May be NULL. */
    void (*removed)(void *opaque);
};

/* Embedded in its owner. */
struct screen_viewer {
    const struct screen_viewer_ops *ops;
    void *opaque;
    struct screen_viewer *next; /* in the screen's list */
};

/* -ENOMEM: there is no memory for the pixels. The viewer is not attached then. */
int screen_attach(struct screen *screen, struct screen_viewer *viewer, struct error *err);
/* No effect on one that is not attached. */
void screen_detach(struct screen *screen, struct screen_viewer *viewer);

/*
 * Draw what the guest has changed since the last refresh, whoever asked for that; all viewers are
 * told. On a screen without viewers nothing happens. Costs nearly nothing if nothing has changed.
 */
void screen_refresh(struct screen *screen);

/*
 * Ask the guest for another size, which comes when its driver likes, or never. False: the card
 * has no way to ask, or there is no such size.
 */
bool screen_want_size(struct screen *screen, uint32_t width, uint32_t height);

/* NULL: there is no viewer. */
const struct screen_surface *screen_surface(const struct screen *screen);
const char *screen_name(const struct screen *screen); /* the device's id */

/* ---- text modes ---- */

#define SCREEN_TEXT_BLINK     0x01u
#define SCREEN_TEXT_UNDERLINE 0x02u

struct screen_cell {
    uint16_t code; /* in the card's font: 0 to 255, and 256 to 511 in its second one */
    uint8_t foreground, background; /* index into colours */
    uint8_t flags;                  /* SCREEN_TEXT_... */
};

struct screen_text {
    uint32_t columns, rows;
    struct screen_cell *cells; /* columns in a row */
    uint32_t colours[16];      /* 0x00RRGGBB */
    bool has_cursor;           /* it may be in a moment of blinking when it is not seen */
    uint32_t cursor_column, cursor_row;
};

/*
 * What a card in a text mode shows, as characters; works without a viewer. False: it is in a
 * graphics mode, or there is no memory. Free what was stored with screen_text_done.
 */
bool screen_text(struct screen *screen, struct screen_text *out);
void screen_text_done(struct screen_text *text);
/* What the usual font of PCs (code page 437) has at a cell's code. */
uint16_t screen_code_to_unicode(uint16_t code);

/* ---- screenshots ---- */

/* The screen as a PNG file in memory, which the caller frees. -ENOMEM. */
int screen_png(struct screen *screen, uint8_t **out_png, size_t *out_size, struct error *err);

/* ---- the machine's screens ---- */

struct display {
    struct screen *screens; /* in the order in which they were added */
};

struct display *machine_display(struct machine *machine);
/* Counted from 0; NULL: there is no such screen. */
struct screen *display_screen(struct display *display, unsigned index);

/* ---- for graphics devices ---- */

struct screen_source_ops {
    /* A first viewer came, or the last one went. In between, all has to be drawn once. */
    void (*watched)(void *opaque, bool on);
    /* Draw what has changed: screen_set_size, screen_row, screen_row_changed. */
    void (*refresh)(void *opaque);
    /* Allocate and fill in cells; as screen_text. NULL: there are no text modes. */
    bool (*text)(void *opaque, struct screen_text *out);
    /* A viewer's wish; what comes of it is the guest's business. NULL: it cannot be told. */
    void (*want_size)(void *opaque, uint32_t width, uint32_t height);
};

/* Embedded in the device; the members are screen.c's. */
struct screen {
    struct display *display;
    const char *name;
    const struct screen_source_ops *source;
    void *opaque;
    struct screen_surface surface;
    uint32_t *pixels;             /* NULL: there is no viewer */
    size_t capacity;              /* pixels */
    struct screen_rect changes;   /* which viewers have not heard of; height 0: none */
    struct screen_cursor *cursor; /* NULL: none was defined */
    int32_t cursor_x, cursor_y;
    struct screen_viewer *viewers;
    struct screen *next;
};

/* name and ops are borrowed. */
void screen_init(struct screen *screen, struct machine *machine, const char *name,
                 const struct screen_source_ops *ops, void *opaque);
/* Detaches all viewers. Also on a screen that was never initialised (all zero). */
void screen_done(struct screen *screen);

bool screen_is_watched(const struct screen *screen);
/*
 * In refresh(): the size from now on; no effect if it is the same. The pixels are black then, all
 * viewers are told, and the device draws all. -ENOMEM, -EINVAL (0 or too much): the old size stays.
 */
int screen_set_size(struct screen *screen, uint32_t width, uint32_t height);
/* In refresh(): all is black, in this size. Errors as of screen_set_size(). */
int screen_clear(struct screen *screen, uint32_t width, uint32_t height);
/* In refresh(): a row's pixels, to write to. */
static inline uint32_t *screen_row(const struct screen *screen, uint32_t y)
{
    return screen->pixels + (size_t)y * screen->surface.stride;
}
/* In refresh(): these pixels, which are within the surface, were drawn and differ. */
void screen_changed(struct screen *screen, const struct screen_rect *rect);
/*
 * The same of pixels [first, end) of row y. Viewers hear of rows that follow each other as one
 * rectangle, the last of them at the end of refresh(), by screen_tell_changes().
 */
void screen_row_changed(struct screen *screen, uint32_t y, uint32_t first, uint32_t end);
void screen_tell_changes(struct screen *screen);

/* At any time. NULL: no cursor is shown. The cursor is copied. */
void screen_define_cursor(struct screen *screen, const struct screen_cursor *cursor);
void screen_move_cursor(struct screen *screen, int32_t x, int32_t y);

#endif
