/*
 * screen.c - screens of a machine: surfaces, viewers, cursors
 *
 * Theory of operation. A device draws into the surface only in refresh(), which viewers ask
 * for, and says which pixels differ; every viewer hears of it, so that each has seen all changes
 * up to the same moment, and none needs a list of its own. The pixels are there as long as
 * somebody looks.
 *
 * Threads: machine lock held.
 */
#include "trapeze/display.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the list ---- */

void screen_init(struct screen *screen, struct machine *machine, const char *name,
                 const struct screen_source_ops *ops, void *opaque)
{
    struct display *display = machine_display(machine);
    struct screen **link = &display->screens;

    *screen = (struct screen){.display = display, .name = name, .source = ops, .opaque = opaque};
    while (*link)
        link = &(*link)->next;
    *link = screen;
}

static void free_pixels(struct screen *screen)
{
    free(screen->pixels);
    screen->pixels = NULL;
    screen->capacity = 0;
    screen->surface = (struct screen_surface){.generation = screen->surface.generation};
}

void screen_done(struct screen *screen)
{
    struct screen **link;

    if (!screen->display)
        return;
    while (screen->viewers) {
        struct screen_viewer *viewer = screen->viewers;

        screen_detach(screen, viewer);
        if (viewer->ops->removed)
            viewer->ops->removed(viewer->opaque);
    }
    link = &screen->display->screens;
    while (*link != screen)
        link = &(*link)->next;
    *link = screen->next;
    free(screen->cursor);
    *screen = (struct screen){0};
}

struct screen *display_screen(struct display *display, unsigned index)
{
    struct screen *screen = display->screens;

    while (screen && index--)
        screen = screen->next;
    return screen;
}

const char *screen_name(const struct screen *screen)
{
    return screen->name;
}

/* ---- viewers ---- */

static const struct screen_cursor no_cursor;

static void tell_cursor(const struct screen *screen, const struct screen_viewer *viewer)
{
    if (viewer->ops->cursor_changed)
        viewer->ops->cursor_changed(viewer->opaque, screen->cursor ? screen->cursor : &no_cursor);
}

static void tell_place(const struct screen *screen, const struct screen_viewer *viewer)
{
    if (viewer->ops->cursor_moved)
        viewer->ops->cursor_moved(viewer->opaque, screen->cursor_x, screen->cursor_y);
}

/* The first one: a black pixel until the device says how large the screen is. */
static int start_watching(struct screen *screen)
{
    int result = screen_set_size(screen, 1, 1);

    if (result)
        return result;
    screen->source->watched(screen->opaque, true);
    screen->source->refresh(screen->opaque);
    return 0;
}

int screen_attach(struct screen *screen, struct screen_viewer *viewer, struct error *err)
{
    if (!screen->viewers && start_watching(screen))
        return error_set(err, ENOMEM, "out of memory for the pixels of a screen");
    if (screen->viewers)
        screen_refresh(screen);
    viewer->next = screen->viewers;
    screen->viewers = viewer;
    viewer->ops->resized(viewer->opaque, &screen->surface);
    tell_cursor(screen, viewer);
    tell_place(screen, viewer);
    return 0;
}

void screen_detach(struct screen *screen, struct screen_viewer *viewer)
{
    struct screen_viewer **link = &screen->viewers;

    while (*link && *link != viewer)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = viewer->next;
    viewer->next = NULL;
    if (screen->viewers)
        return;
    screen->source->watched(screen->opaque, false);
    free_pixels(screen);
}

void screen_refresh(struct screen *screen)
{
    if (screen->viewers)
        screen->source->refresh(screen->opaque);
}

bool screen_want_size(struct screen *screen, uint32_t width, uint32_t height)
{
    if (!screen->source->want_size || !width || !height || width > SCREEN_MAX_SIZE ||
        height > SCREEN_MAX_SIZE)
        return false;
    screen->source->want_size(screen->opaque, width, height);
    return true;
}

const struct screen_surface *screen_surface(const struct screen *screen)
{
    return screen->pixels ? &screen->surface : NULL;
}

/* ---- what devices call ---- */

bool screen_is_watched(const struct screen *screen)
{
    return screen->pixels != NULL;
}

static int reserve_pixels(struct screen *screen, size_t pixels)
{
    uint32_t *memory;

    if (pixels <= screen->capacity && pixels >= screen->capacity / 4)
        return 0;
    memory = malloc(pixels * sizeof(*memory));
    if (!memory)
        return -ENOMEM;
    free(screen->pixels);
    screen->pixels = memory;
    screen->capacity = pixels;
    return 0;
}

int screen_set_size(struct screen *screen, uint32_t width, uint32_t height)
{
    struct screen_surface *surface = &screen->surface;
    size_t pixels = (size_t)width * height;

    if (screen->pixels && width == surface->width && height == surface->height)
        return 0;
    if (!width || !height || width > SCREEN_MAX_SIZE || height > SCREEN_MAX_SIZE ||
        pixels > SCREEN_MAX_PIXELS)
        return -EINVAL;
    if (reserve_pixels(screen, pixels))
        return -ENOMEM;
    memset(screen->pixels, 0, pixels * sizeof(*screen->pixels));
    *surface = (struct screen_surface){.width = width,
                                       .height = height,
                                       .stride = width,
                                       .pixels = screen->pixels,
                                       .generation = surface->generation + 1};
    for (struct screen_viewer *viewer = screen->viewers; viewer; viewer = viewer->next)
        viewer->ops->resized(viewer->opaque, surface);
    return 0;
}

int screen_clear(struct screen *screen, uint32_t width, uint32_t height)
{
    const struct screen_rect all = {0, 0, width, height};
    int result = screen_set_size(screen, width, height);

    if (result)
        return result;
    memset(screen->pixels, 0, (size_t)width * height * sizeof(*screen->pixels));
    screen_changed(screen, &all);
    return 0;
}

void screen_changed(struct screen *screen, const struct screen_rect *rect)
{
    assert(rect->width && rect->x < screen->surface.width &&
           rect->width <= screen->surface.width - rect->x);
    assert(rect->height && rect->y < screen->surface.height &&
           rect->height <= screen->surface.height - rect->y);
    for (struct screen_viewer *viewer = screen->viewers; viewer; viewer = viewer->next)
        viewer->ops->changed(viewer->opaque, rect);
}

void screen_tell_changes(struct screen *screen)
{
    if (screen->changes.height)
        screen_changed(screen, &screen->changes);
    screen->changes.height = 0;
}

void screen_row_changed(struct screen *screen, uint32_t y, uint32_t first, uint32_t end)
{
    struct screen_rect *c = &screen->changes;
    uint32_t right;

    if (c->height && c->y + c->height != y)
        screen_tell_changes(screen);
    if (!c->height) {
        *c = (struct screen_rect){first, y, end - first, 1};
        return;
    }
    right = c->x + c->width > end ? c->x + c->width : end;
    c->x = first < c->x ? first : c->x;
    c->width = right - c->x;
    c->height++;
}

void screen_define_cursor(struct screen *screen, const struct screen_cursor *cursor)
{
    if (cursor && !screen->cursor)
        screen->cursor = malloc(sizeof(*screen->cursor));
    if (!screen->cursor)
        return;
    *screen->cursor = cursor ? *cursor : no_cursor;
    for (struct screen_viewer *viewer = screen->viewers; viewer; viewer = viewer->next)
        tell_cursor(screen, viewer);
}

void screen_move_cursor(struct screen *screen, int32_t x, int32_t y)
{
    screen->cursor_x = x;
    screen->cursor_y = y;
    for (struct screen_viewer *viewer = screen->viewers; viewer; viewer = viewer->next)
        tell_place(screen, viewer);
}

/* ---- text ---- */

bool screen_text(struct screen *screen, struct screen_text *out)
{
    *out = (struct screen_text){0};
    return screen->source->text && screen->source->text(screen->opaque, out);
}

void screen_text_done(struct screen_text *text)
{
    free(text->cells);
    *text = (struct screen_text){0};
}

/* What is shown for control characters, and the upper half. */
static const uint16_t code_page_437_low[32] = {
    ' ',    0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9,
    0x2642, 0x2640, 0x266a, 0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7,
    0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc,
};
static const uint16_t code_page_437_high[129] = {
    0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8,
    0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb,
    0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3,
    0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab,
    0x00bb, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551,
    0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e,
    0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565,
    0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590,
    0x2580, 0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9,
    0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7,
    0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0,
};

uint16_t screen_code_to_unicode(uint16_t code)
{
    code &= 0xff;
    if (code < 0x20)
        return code_page_437_low[code];
    return code < 0x7f ? code : code_page_437_high[code - 0x7f];
}
