/*
 * vnc_update.c - what a viewer of VNC has not seen yet, and its updates
 *
 * What changed on the screen is a byte for each tile. An update takes neighbouring tiles together,
 * copies their pixels, and has them packed by another thread; one is on its way at a time.
 *
 * Packing costs more than it saves where the viewer is near and the picture has many colours. So it
 * is measured: if sending what was packed took a small part of the time that packing took, the next
 * updates go out as they are (zlib's level 0), until sending them takes longer than packing did.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define MAX_RECTS     1000u
#define LARGE_PIXELS  65536u /* an update that is measured */
#define SLOW_PIXEL_PS 20000u /* packing one: 64 million a second are well without it */
#define PLAIN_UPDATES 100u   /* then packing is tried again */

bool vnc_client_waits(const struct vnc_client *client)
{
    return vnc_client_looks(client) && client->wants_update && !client->is_encoding &&
           !vnc_client_queued(client);
}

/* ---- what changed ---- */

bool vnc_client_set_size(struct vnc_client *client, uint32_t width, uint32_t height)
{
    uint32_t columns = (width + VNC_TILE_WIDTH - 1) / VNC_TILE_WIDTH;
    uint32_t rows = (height + VNC_TILE_HEIGHT - 1) / VNC_TILE_HEIGHT;
    uint8_t *tiles = realloc(client->tiles, (size_t)columns * rows);

    if (!tiles)
        return false;
    client->tiles = tiles;
    client->columns = columns;
    client->rows = rows;
    client->width = width;
    client->height = height;
    client->has_changes = true;
    memset(tiles, 1, (size_t)columns * rows);
    return true;
}

void vnc_client_changed(struct vnc_client *client, const struct screen_rect *rect)
{
    uint32_t right = (rect->x + rect->width - 1) / VNC_TILE_WIDTH;
    uint32_t bottom = (rect->y + rect->height - 1) / VNC_TILE_HEIGHT;

    for (uint32_t row = rect->y / VNC_TILE_HEIGHT; row <= bottom && row < client->rows; row++)
        for (uint32_t column = rect->x / VNC_TILE_WIDTH;
             column <= right && column < client->columns; column++)
            client->tiles[(size_t)row * client->columns + column] = 1;
    client->has_changes |= client->rows > 0;
}

void vnc_client_resized(struct vnc_client *client)
{
    if (client->tiles)
        memset(client->tiles, 1, (size_t)client->columns * client->rows);
    client->has_changes = true;
}

/* ---- updates ---- */

static void put_rect(struct vnc_buffer *out, const struct screen_rect *rect, int32_t encoding)
{
    uint8_t head[12];

    put_be16(head, rect->x);
    put_be16(head + 2, rect->y);
    put_be16(head + 4, rect->width);
    put_be16(head + 6, rect->height);
    put_be32(head + 8, (uint32_t)encoding);
    vnc_buffer_put(out, head, sizeof(head));
}

/* Pixels, then a bit for each of those that are seen; rows begin at bytes. */
static void put_cursor(struct vnc_buffer *out, const struct vnc_format *format,
                       const struct screen_cursor *cursor)
{
    const struct screen_rect rect = {cursor->hot_x, cursor->hot_y, cursor->width, cursor->height};
    uint32_t mask_stride = (cursor->width + 7) / 8;
    uint8_t *to, *mask;

    put_rect(out, &rect, VNC_PSEUDO_CURSOR);
    to = vnc_buffer_add(out, (size_t)cursor->width * cursor->height * format->bytes +
                                 (size_t)mask_stride * cursor->height);
    if (!to)
        return;
    mask = to + (size_t)cursor->width * cursor->height * format->bytes;
    memset(mask, 0, (size_t)mask_stride * cursor->height);
    for (uint32_t y = 0; y < cursor->height; y++)
        for (uint32_t x = 0; x < cursor->width; x++) {
            uint32_t pixel = cursor->pixels[(size_t)y * cursor->width + x];

            to = vnc_put_pixel(format, to, pixel);
            if (pixel >> 31)
                mask[(size_t)y * mask_stride + x / 8] |= (uint8_t)(0x80 >> x % 8);
        }
}

/* The viewer's size, for one that knows ExtendedDesktopSize: who asked for it, and what came of
 * that. */
static void put_size(struct vnc_client *client, struct vnc_buffer *out, unsigned who,
                     unsigned status)
{
    const struct screen_rect rect = {who, status, client->width, client->height};
    uint8_t screens[4 + 16] = {1};

    put_rect(out, &rect, VNC_PSEUDO_ANY_SIZE);
    put_be16(screens + 12, client->width);
    put_be16(screens + 14, client->height);
    vnc_buffer_put(out, screens, sizeof(screens));
}

/* What is no pixels. Returns how many rectangles it makes. */
static unsigned put_news(struct vnc_client *client, struct vnc_buffer *out)
{
    const struct screen_rect none = {0};
    bool relative = !input_has_absolute(machine_input(client->vnc->machine));
    unsigned count = 0;

    if (client->takes_scan_codes && !client->has_told_scan_codes) {
        put_rect(out, &none, VNC_PSEUDO_SCAN_CODES);
        client->has_told_scan_codes = true;
        count++;
    }
    if (client->takes_any_size && !client->has_told_size) {
        put_size(client, out, 0, 0);
        client->has_told_size = true;
        count++;
    }
    if (client->takes_any_size && client->size_answer != VNC_SIZE_NONE) {
        put_size(client, out, 1, (unsigned)client->size_answer);
        client->size_answer = VNC_SIZE_NONE;
        count++;
    }
    if (client->takes_pointer_change && client->told_relative != relative) {
        const struct screen_rect kind = {!relative, 0, client->width, client->height};

        put_rect(out, &kind, VNC_PSEUDO_POINTER_CHANGE);
        client->told_relative = relative;
        count++;
    }
    if (client->takes_cursor && client->vnc->cursor &&
        client->cursor_number != client->vnc->cursor_number) {
        put_cursor(out, &client->format, client->vnc->cursor);
        client->cursor_number = client->vnc->cursor_number;
        count++;
    }
    return count;
}

/* Room for one more, and for its pixels. */
static bool reserve(struct vnc_job *job, size_t pixels)
{
    if (job->rect_count == job->rect_capacity) {
        size_t capacity = job->rect_capacity * 2 + 16;
        struct screen_rect *grown = realloc(job->rects, capacity * sizeof(*grown));

        if (!grown)
            return false;
        job->rects = grown;
        job->rect_capacity = capacity;
    }
    if (job->pixel_count + pixels > job->pixel_capacity) {
        size_t capacity = job->pixel_count + pixels;
        uint32_t *grown;

        capacity += capacity / 2;
        grown = realloc(job->pixels, capacity * sizeof(*grown));
        if (!grown)
            return false;
        job->pixels = grown;
        job->pixel_capacity = capacity;
    }
    return true;
}

static void add_rect(struct vnc_client *client, uint32_t column, uint32_t row, uint32_t count,
                     uint32_t rows)
{
    const struct screen_surface *surface = &client->vnc->surface;
    uint32_t x = column * VNC_TILE_WIDTH, y = row * VNC_TILE_HEIGHT;
    uint32_t right = client->width < surface->width ? client->width : surface->width;
    uint32_t bottom = client->height < surface->height ? client->height : surface->height;
    struct vnc_job *job = &client->job;
    struct screen_rect rect = {x, y, count * VNC_TILE_WIDTH, rows * VNC_TILE_HEIGHT};

    if (x >= right || y >= bottom)
        return; /* a viewer that keeps its size, of a screen that is smaller now */
    rect.width = rect.width < right - x ? rect.width : right - x;
    rect.height = rect.height < bottom - y ? rect.height : bottom - y;
    if (!reserve(job, (size_t)rect.width * rect.height)) {
        client->is_over = true;
        return;
    }
    job->rects[job->rect_count++] = rect;
    for (uint32_t n = 0; n < rect.height; n++) {
        memcpy(job->pixels + job->pixel_count,
               surface->pixels + (size_t)(y + n) * surface->stride + x,
               rect.width * sizeof(uint32_t));
        job->pixel_count += rect.width;
    }
}

static bool all_are(const uint8_t *tiles, uint32_t count)
{
    return memchr(tiles, 0, count) == NULL;
}

/*
 * The tiles that changed, as few rectangles: to the right as far as it goes, then down, within what
 * the encoding can have in one.
 */
static void collect(struct vnc_client *client)
{
    bool is_tight = client->encoding == VNC_TIGHT;
    size_t most = is_tight ? VNC_TIGHT_PIXELS : VNC_UPDATE_PIXELS;
    uint32_t most_columns = is_tight ? VNC_TIGHT_WIDTH / VNC_TILE_WIDTH : UINT32_MAX;

    for (uint32_t row = 0; row < client->rows; row++)
        for (uint32_t column = 0; column < client->columns; column++) {
            uint8_t *tile = client->tiles + (size_t)row * client->columns + column;
            uint32_t count = 0, rows = 1;

            if (!*tile)
                continue;
            if (client->job.rect_count == MAX_RECTS || client->job.pixel_count >= VNC_UPDATE_PIXELS)
                return; /* the next update has the rest */
            while (column + count < client->columns && count < most_columns && tile[count])
                count++;
            while (row + rows < client->rows &&
                   (rows + 1ull) * VNC_TILE_HEIGHT * count * VNC_TILE_WIDTH <= most &&
                   all_are(tile + (size_t)rows * client->columns, count))
                rows++;
            for (uint32_t n = 0; n < rows; n++)
                memset(tile + (size_t)n * client->columns, 0, count);
            add_rect(client, column, row, count, rows);
            column += count - 1;
        }
    client->has_changes = false;
}

static void run_job(struct work *work)
{
    vnc_encode((struct vnc_job *)work);
}

static uint64_t now_ns(const struct vnc_client *client)
{
    return clock_now_ns(client->deadline.clocks, CLOCK_ID_HOST);
}

void vnc_client_is_sent(struct vnc_client *client)
{
    const struct vnc_job *job = &client->job;
    uint64_t pack_ns = client->packed_ns - client->started_ns, send_ns;

    if (client->is_encoding || !client->packed_ns || job->pixel_count < LARGE_PIXELS)
        return;
    send_ns = now_ns(client) - client->packed_ns;
    client->packed_ns = 0;
    if (!client->plain_updates) {
        client->pixel_ps = pack_ns * 1000 / job->pixel_count;
        if (client->pixel_ps > SLOW_PIXEL_PS && send_ns < pack_ns / 4)
            client->plain_updates = PLAIN_UPDATES;
    } else if (send_ns * 1000 / job->pixel_count > client->pixel_ps) {
        client->plain_updates = 0;
    } else {
        client->plain_updates--;
    }
}

static void job_done(struct work *work)
{
    struct vnc_job *job = (struct vnc_job *)work;
    struct vnc_client *client = job->client;
    struct vnc_buffer sent = client->out;

    client->is_encoding = false;
    client->packed_ns = now_ns(client);
    client->out = job->out;
    job->out = sent;
    job->out.start = job->out.end = 0;
    client->is_over |= client->out.failed;
    if (client->is_closed)
        vnc_client_free(client);
    else
        vnc_client_settle(client);
}

static void send_new_size(struct vnc_client *client)
{
    const struct screen_surface *surface = &client->vnc->surface;
    const uint8_t head[4] = {0, 0, 0, 1};
    struct screen_rect all = {0, 0, surface->width, surface->height};

    client->is_over |= !vnc_client_set_size(client, surface->width, surface->height);
    client->wants_update = false;
    vnc_buffer_put(&client->out, head, sizeof(head));
    if (client->takes_any_size)
        put_size(client, &client->out, 0, 0);
    else
        put_rect(&client->out, &all, VNC_PSEUDO_DESKTOP_SIZE);
    vnc_client_flush(client);
}

void vnc_client_update(struct vnc_client *client)
{
    const struct screen_surface *surface = &client->vnc->surface;
    struct vnc_job *job = &client->job;
    uint8_t head[4] = {0};
    unsigned news;

    if (!vnc_client_waits(client) || client->is_over || !surface->pixels)
        return;
    if ((client->takes_size || client->takes_any_size) &&
        (surface->width != client->width || surface->height != client->height)) {
        send_new_size(client);
        return;
    }
    job->out.start = job->out.end = 0;
    vnc_buffer_put(&job->out, head, sizeof(head));
    news = put_news(client, &job->out);
    job->rect_count = job->pixel_count = 0;
    if (client->has_changes)
        collect(client);
    if ((!news && !job->rect_count) || client->is_over || job->out.failed)
        return;
    put_be16(job->out.bytes + 2, (uint32_t)(news + job->rect_count));
    job->encoding = client->encoding;
    job->level = client->plain_updates ? 0 : client->level;
    job->format = client->format;
    client->wants_update = false;
    client->is_encoding = true;
    client->started_ns = now_ns(client);
    work_submit(client->vnc->pool, &job->work);
}

void vnc_client_init_job(struct vnc_client *client)
{
    client->job.client = client;
    client->job.work = (struct work){.run = run_job, .done = job_done};
}
