/*
 * gpu_screen.c - what the monitor of a virtio graphics card shows
 *
 * Rows are compared with what is on the screen, so that viewers hear of pixels that really differ,
 * whatever the guest flushes.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/virtio/gpu.h"

#define EVENT_DISPLAY 0x1u

/* Where a pixel has its colours: shifts in its four bytes as a little-endian number. */
struct format {
    uint8_t red, green, blue, alpha;
};

/* 5.7.6.8, by enum virtio_gpu_formats. NULL: there is none. */
static const struct format *find_format(uint32_t number)
{
    static const struct {
        uint32_t number;
        struct format format;
    } formats[] = {
        {1, {16, 8, 0, 24}},  {2, {16, 8, 0, 24}},  {3, {8, 16, 24, 0}},   {4, {8, 16, 24, 0}},
        {67, {0, 8, 16, 24}}, {68, {24, 16, 8, 0}}, {121, {24, 16, 8, 0}}, {134, {0, 8, 16, 24}},
    };

    for (size_t n = 0; n < sizeof(formats) / sizeof(formats[0]); n++)
        if (formats[n].number == number)
            return &formats[n].format;
    return NULL;
}

bool gpu_knows_format(uint32_t format)
{
    return find_format(format) != NULL;
}

static inline uint32_t colour(const struct format *f, uint32_t pixel)
{
    return (pixel >> f->red & 0xff) << 16 | (pixel >> f->green & 0xff) << 8 |
           (pixel >> f->blue & 0xff);
}

/* ---- the picture ---- */

/* Draw count pixels; *out_first to *out_end differ from what was there. False: none does. */
static inline __attribute__((always_inline)) bool put_row(const struct format *f, uint32_t *row,
                                                          const uint8_t *from, uint32_t count,
                                                          uint32_t *out_first, uint32_t *out_end)
{
    uint32_t first = 0, end = count;

    while (first < end && row[first] == colour(f, get_le32(from + 4 * (size_t)first)))
        first++;
    while (end > first && row[end - 1] == colour(f, get_le32(from + 4 * (size_t)(end - 1))))
        end--;
    for (uint32_t n = first; n < end; n++)
        row[n] = colour(f, get_le32(from + 4 * (size_t)n));
    *out_first = first;
    *out_end = end;
    return first < end;
}

static void draw_rows(struct gpu *g, const struct gpu_resource *r, const struct screen_rect *rect)
{
    static const struct format usual = {16, 8, 0, 24}; /* the compiler makes it a loop */
    const struct format *format = find_format(r->format);
    bool is_usual = format->red == usual.red && format->blue == usual.blue;

    for (uint32_t y = rect->y; y < rect->y + rect->height; y++) {
        size_t at = (size_t)(g->shown.y + y) * r->width + g->shown.x + rect->x;
        const uint8_t *from = gpu_pixels(g, r) + at * GPU_PIXEL_BYTES;
        uint32_t *row = screen_row(g->screen, y) + rect->x, first, end;

        if (is_usual ? put_row(&usual, row, from, rect->width, &first, &end)
                     : put_row(format, row, from, rect->width, &first, &end))
            screen_row_changed(g->screen, y, rect->x + first, rect->x + end);
    }
    screen_tell_changes(g->screen);
}

void gpu_draw(struct gpu *g)
{
    const struct gpu_resource *r = gpu_find(g, g->shown_id);

    if (screen_set_size(g->screen, g->shown.width, g->shown.height)) {
        g->changed = true; /* all, when there is memory */
        return;
    }
    if (g->changed)
        g->damage = (struct screen_rect){0, 0, g->shown.width, g->shown.height};
    if (g->damage.height)
        draw_rows(g, r, &g->damage);
    g->changed = false;
    g->damage.height = 0;
}

static uint32_t lower(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t higher(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

void gpu_flush(struct gpu *g, const struct gpu_resource *r, const struct gpu_area *area)
{
    const struct gpu_area *shown = &g->shown;
    struct screen_rect *d = &g->damage;
    uint32_t left = higher(area->x, shown->x), top = higher(area->y, shown->y);
    uint32_t right = lower(area->x + area->width, shown->x + shown->width);
    uint32_t bottom = lower(area->y + area->height, shown->y + shown->height);

    if (r->id != g->shown_id || left >= right || top >= bottom)
        return;
    left -= shown->x;
    right -= shown->x;
    top -= shown->y;
    bottom -= shown->y;
    if (d->height) {
        left = lower(left, d->x);
        top = lower(top, d->y);
        right = higher(right, d->x + d->width);
        bottom = higher(bottom, d->y + d->height);
    }
    *d = (struct screen_rect){left, top, right - left, bottom - top};
}

/* ---- the cursor ---- */

/*
 * As much of the resource as a cursor can have. In formats without alpha it is taken from where it
 * would be: Linux makes all its pictures in such a one, cursors too.
 */
void gpu_show_cursor(struct gpu *g)
{
    const struct gpu_resource *r = gpu_find(g, g->cursor_id);
    const struct format *format = r ? find_format(r->format) : NULL;
    struct screen_cursor cursor = {0};

    if (!r) {
        screen_define_cursor(g->screen, NULL);
        return;
    }
    cursor.width = lower(r->width, SCREEN_CURSOR_MAX);
    cursor.height = lower(r->height, SCREEN_CURSOR_MAX);
    cursor.hot_x = lower(g->cursor_hot_x, cursor.width - 1);
    cursor.hot_y = lower(g->cursor_hot_y, cursor.height - 1);
    for (uint32_t y = 0; y < cursor.height; y++)
        for (uint32_t x = 0; x < cursor.width; x++) {
            size_t at = ((size_t)y * r->width + x) * GPU_PIXEL_BYTES;
            uint32_t pixel = get_le32(gpu_pixels(g, r) + at);

            cursor.pixels[y * cursor.width + x] =
                (pixel >> format->alpha & 0xff) << 24 | colour(format, pixel);
        }
    screen_define_cursor(g->screen, &cursor);
}

/* ---- the size ---- */

void gpu_want_size(struct gpu *g, uint32_t width, uint32_t height)
{
    if (width == g->width && height == g->height)
        return;
    g->width = width;
    g->height = height;
    g->events |= EVENT_DISPLAY;
    if (virtio_is_running(&g->virtio))
        g->virtio.transport->notify_config(&g->virtio);
}
