/*
 * vnc_encode.c - pixels as viewers of VNC want them: formats, Raw and ZRLE (RFC 6143, 7.4, 7.7),
 * zlib
 *
 * Runs on a thread of its own: a job has its own copy of the pixels, and nothing else is touched.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"

#define ZRLE_TILE    64u
#define ZRLE_COLOURS 16u
#define RECT_BYTES   12u

/* ---- buffers ---- */

uint8_t *vnc_buffer_add(struct vnc_buffer *buffer, size_t size)
{
    size_t needed = buffer->end + size, capacity = needed + needed / 2 + 256;

    if (needed > buffer->capacity) {
        uint8_t *grown = realloc(buffer->bytes, capacity);

        if (!grown) {
            buffer->failed = true;
            return NULL;
        }
        buffer->bytes = grown;
        buffer->capacity = capacity;
    }
    buffer->end = needed;
    return buffer->bytes + needed - size;
}

void vnc_buffer_put(struct vnc_buffer *buffer, const void *bytes, size_t size)
{
    uint8_t *to = vnc_buffer_add(buffer, size);

    if (to && size)
        memcpy(to, bytes, size);
}

void vnc_buffer_free(struct vnc_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct vnc_buffer){0};
}

/* ---- formats ---- */

/* bits, depth, big endian, true colour, maxima of red, green and blue, their shifts */
const uint8_t vnc_format_default[VNC_FORMAT_BYTES] = {32,  24, 0,   1,  0, 255, 0,
                                                      255, 0,  255, 16, 8, 0};

static void fill(uint32_t table[256], unsigned max, unsigned shift)
{
    for (unsigned n = 0; n < 256; n++)
        table[n] = (uint32_t)((n * max + 127) / 255) << shift;
}

bool vnc_format_set(struct vnc_format *format, const uint8_t text[VNC_FORMAT_BYTES])
{
    unsigned bits = text[0], low = 32, high = 0;

    if ((bits != 8 && bits != 16 && bits != 32) || !text[3])
        return false;
    for (unsigned n = 0; n < 3; n++) {
        unsigned max = get_be16(text + 4 + 2 * n), shift = text[10 + n];
        unsigned end = shift + (max ? 32u - (unsigned)__builtin_clz(max) : 0);

        if (end > bits || shift >= bits || max & (max + 1))
            return false;
        low = shift < low ? shift : low;
        high = end > high ? end : high;
    }
    *format =
        (struct vnc_format){.bytes = (uint8_t)(bits / 8),
                            .is_big_endian = text[2] != 0,
                            .is_rgb = bits == 32 && text[1] == 24 && get_be16(text + 4) == 255 &&
                                      get_be16(text + 6) == 255 && get_be16(text + 8) == 255};
    fill(format->red, get_be16(text + 4), text[10]);
    fill(format->green, get_be16(text + 6), text[11]);
    fill(format->blue, get_be16(text + 8), text[12]);
    format->compact = bits == 32 && text[1] <= 24 && (high <= 24 || low >= 8) ? 3 : format->bytes;
    format->skip = format->compact == 3 && bits == 32 && high > 24;
    return true;
}

static uint32_t convert(const struct vnc_format *format, uint32_t pixel)
{
    return format->red[pixel >> 16 & 0xff] | format->green[pixel >> 8 & 0xff] |
           format->blue[pixel & 0xff];
}

static uint8_t *put(uint8_t *to, uint32_t value, unsigned bytes, bool is_big_endian)
{
    for (unsigned n = 0; n < bytes; n++)
        to[n] = (uint8_t)(value >> 8 * (is_big_endian ? bytes - 1 - n : n));
    return to + bytes;
}

uint8_t *vnc_put_pixel(const struct vnc_format *format, uint8_t *to, uint32_t pixel)
{
    return put(to, convert(format, pixel), format->bytes, format->is_big_endian);
}

static uint8_t *put_compact(const struct vnc_format *format, uint8_t *to, uint32_t pixel)
{
    return put(to, convert(format, pixel) >> 8 * format->skip, format->compact,
               format->is_big_endian);
}

/* ---- zlib ---- */

static bool open_stream(struct vnc_job *job, unsigned stream)
{
    if (!job->streams[stream].is_open) {
        job->streams[stream].is_open = deflateInit(&job->streams[stream].zlib, job->level) == Z_OK;
        job->streams[stream].level = job->level;
    }
    job->out.failed |= !job->streams[stream].is_open;
    return job->streams[stream].is_open;
}

void vnc_pack(struct vnc_job *job, unsigned stream, const uint8_t *bytes, size_t size, bool all)
{
    z_stream *zlib = &job->streams[stream].zlib;
    bool is_new_level;

    if (!open_stream(job, stream))
        return;
    is_new_level = job->streams[stream].level != job->level;
    job->streams[stream].level = job->level;
    zlib->next_in = (uint8_t *)bytes;
    zlib->avail_in = is_new_level ? 0 : (unsigned)size;
    do {
        size_t room = deflateBound(zlib, (unsigned)size) + 64;
        uint8_t *to = vnc_buffer_add(&job->out, room);

        if (!to)
            return;
        zlib->next_out = to;
        zlib->avail_out = (unsigned)room;
        if (is_new_level) /* between blocks */
            deflateParams(zlib, job->level, Z_DEFAULT_STRATEGY);
        if (is_new_level)
            zlib->avail_in = (unsigned)size;
        is_new_level = false;
        deflate(zlib, all ? Z_SYNC_FLUSH : Z_NO_FLUSH);
        job->out.end -= zlib->avail_out;
    } while (zlib->avail_out == 0);
}

/* ---- ZRLE ---- */

static unsigned find(const uint32_t *colours, unsigned count, uint32_t pixel)
{
    unsigned n = 0;

    while (n < count && colours[n] != pixel)
        n++;
    return n;
}

/* Returns how many there are; more than ZRLE_COLOURS: there are too many. */
static unsigned find_colours(const uint32_t *pixels, unsigned stride, unsigned width,
                             unsigned height, uint32_t colours[ZRLE_COLOURS])
{
    unsigned count = 0;

    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++) {
            uint32_t pixel = pixels[(size_t)y * stride + x];

            if (x && pixel == pixels[(size_t)y * stride + x - 1])
                continue;
            if (find(colours, count, pixel) < count)
                continue;
            if (count == ZRLE_COLOURS)
                return count + 1;
            colours[count++] = pixel;
        }
    return count;
}

/* Indices of 1, 2 or 4 bits, rows begin at bytes. */
static uint8_t *put_packed(uint8_t *to, const uint32_t *pixels, unsigned stride, unsigned width,
                           unsigned height, const uint32_t *colours, unsigned count)
{
    unsigned bits = count == 2 ? 1 : count <= 4 ? 2 : 4;

    for (unsigned y = 0; y < height; y++) {
        unsigned filled = 0, byte = 0;

        for (unsigned x = 0; x < width; x++) {
            byte = byte << bits | find(colours, count, pixels[(size_t)y * stride + x]);
            filled += bits;
            if (filled == 8) {
                *to++ = (uint8_t)byte;
                filled = byte = 0;
            }
        }
        if (filled)
            *to++ = (uint8_t)(byte << (8 - filled));
    }
    return to;
}

/* Returns what is behind it. */
static uint8_t *put_tile(const struct vnc_format *format, uint8_t *to, const uint32_t *pixels,
                         unsigned stride, unsigned width, unsigned height)
{
    uint32_t colours[ZRLE_COLOURS];
    unsigned count = find_colours(pixels, stride, width, height, colours);

    if (count <= ZRLE_COLOURS) {
        *to++ = (uint8_t)count; /* 1: all of one colour */
        for (unsigned n = 0; n < count; n++)
            to = put_compact(format, to, colours[n]);
        return count == 1 ? to : put_packed(to, pixels, stride, width, height, colours, count);
    }
    *to++ = 0;
    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++)
            to = put_compact(format, to, pixels[(size_t)y * stride + x]);
    return to;
}

static void encode_zrle(struct vnc_job *job, const struct screen_rect *rect, const uint32_t *pixels)
{
    uint8_t tile[1 + ZRLE_TILE * ZRLE_TILE * 4];
    size_t place = job->out.end;

    if (!vnc_buffer_add(&job->out, 4))
        return;
    for (unsigned y = 0; y < rect->height; y += ZRLE_TILE)
        for (unsigned x = 0; x < rect->width; x += ZRLE_TILE) {
            unsigned width = rect->width - x, height = rect->height - y;
            const uint8_t *end = put_tile(&job->format, tile, pixels + (size_t)y * rect->width + x,
                                          rect->width, width < ZRLE_TILE ? width : ZRLE_TILE,
                                          height < ZRLE_TILE ? height : ZRLE_TILE);

            vnc_pack(job, VNC_STREAM_ZRLE, tile, (size_t)(end - tile), false);
        }
    vnc_pack(job, VNC_STREAM_ZRLE, NULL, 0, true);
    put_be32(job->out.bytes + place, (uint32_t)(job->out.end - place - 4));
}

/* ---- Raw ---- */

static void encode_raw(struct vnc_job *job, const struct screen_rect *rect, const uint32_t *pixels)
{
    size_t count = (size_t)rect->width * rect->height;
    uint8_t *to = vnc_buffer_add(&job->out, count * job->format.bytes);

    for (size_t n = 0; to && n < count; n++)
        to = vnc_put_pixel(&job->format, to, pixels[n]);
}

/* ---- jobs ---- */

void vnc_encode(struct vnc_job *job)
{
    const uint32_t *pixels = job->pixels;

    if (job->encoding == VNC_TIGHT && !job->scratch) {
        job->scratch = malloc(4 * (size_t)VNC_TIGHT_PIXELS);
        job->out.failed |= !job->scratch;
    }
    for (size_t n = 0; n < job->rect_count && !job->out.failed; n++) {
        const struct screen_rect *rect = &job->rects[n];
        uint8_t *head = vnc_buffer_add(&job->out, RECT_BYTES);

        if (!head)
            return;
        put_be16(head, rect->x);
        put_be16(head + 2, rect->y);
        put_be16(head + 4, rect->width);
        put_be16(head + 6, rect->height);
        put_be32(head + 8, job->encoding);
        if (job->encoding == VNC_ZRLE)
            encode_zrle(job, rect, pixels);
        else if (job->encoding == VNC_TIGHT)
            vnc_encode_tight(job, rect, pixels);
        else
            encode_raw(job, rect, pixels);
        pixels += (size_t)rect->width * rect->height;
    }
}

void vnc_job_free(struct vnc_job *job)
{
    for (unsigned n = 0; n < VNC_STREAM_COUNT; n++)
        if (job->streams[n].is_open)
            deflateEnd(&job->streams[n].zlib);
    free(job->scratch);
    free(job->rects);
    free(job->pixels);
    vnc_buffer_free(&job->out);
}
