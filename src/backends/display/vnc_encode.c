/*
 * vnc_encode.c - pixels as viewers of VNC want them: formats, Raw and ZRLE (RFC 6143, 7.4, 7.7),
 * and Tight, as the RFB community's rfbproto.rst has it (its basic compression, and fills)
 *
 * Runs on a thread of its own: a job has its own copy of the pixels, and nothing else is touched.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"

#define ZRLE_TILE     64u
#define COLOURS       16u /* of a palette */
#define LEVEL         1   /* of compression */
#define RECT_BYTES    12u
#define TIGHT_FILTER  0x40u /* the next byte says which */
#define TIGHT_FILL    0x80u
#define TIGHT_PALETTE 1u
#define TIGHT_PLAIN   12u /* fewer bytes are not compressed */

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

        if (end > bits || max & (max + 1))
            return false;
        low = shift < low ? shift : low;
        high = end > high ? end : high;
    }
    *format = (struct vnc_format){.bytes = (uint8_t)(bits / 8), .is_big_endian = text[2] != 0};
    fill(format->red, get_be16(text + 4), text[10]);
    fill(format->green, get_be16(text + 6), text[11]);
    fill(format->blue, get_be16(text + 8), text[12]);
    format->has_bytes = bits == 32 && text[1] == 24 && get_be16(text + 4) == 255 &&
                        get_be16(text + 6) == 255 && get_be16(text + 8) == 255;
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

/* ---- what ZRLE and Tight share ---- */

static unsigned find(const uint32_t *colours, unsigned count, uint32_t pixel)
{
    unsigned n = 0;

    while (n < count && colours[n] != pixel)
        n++;
    return n;
}

/* Returns how many there are; more than COLOURS: there are too many. */
static unsigned find_colours(const uint32_t *pixels, unsigned stride, unsigned width,
                             unsigned height, uint32_t colours[COLOURS])
{
    unsigned count = 0;

    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++) {
            uint32_t pixel = pixels[(size_t)y * stride + x];

            if (x && pixel == pixels[(size_t)y * stride + x - 1])
                continue;
            if (find(colours, count, pixel) < count)
                continue;
            if (count == COLOURS)
                return count + 1;
            colours[count++] = pixel;
        }
    return count;
}

/* Indices of 1, 2, 4 or 8 bits. */
static uint8_t *put_row(uint8_t *to, const uint32_t *pixels, unsigned width, unsigned bits,
                        const uint32_t *colours, unsigned count)
{
    unsigned filled = 0, byte = 0;

    for (unsigned x = 0; x < width; x++) {
        byte = byte << bits | find(colours, count, pixels[x]);
        filled += bits;
        if (filled == 8) {
            *to++ = (uint8_t)byte;
            filled = byte = 0;
        }
    }
    if (filled)
        *to++ = (uint8_t)(byte << (8 - filled));
    return to;
}

/* flush: the viewer has to be able to unpack all of it. */
static void pack(struct vnc_job *job, struct vnc_stream *stream, const uint8_t *bytes, size_t size,
                 int flush)
{
    z_stream *zlib = &stream->zlib;

    if (!stream->is_open)
        stream->is_open = deflateInit(zlib, LEVEL) == Z_OK;
    job->out.failed |= !stream->is_open;
    if (job->out.failed)
        return;
    zlib->next_in = (uint8_t *)bytes;
    zlib->avail_in = (unsigned)size;
    do {
        size_t room = deflateBound(zlib, zlib->avail_in) + 64;
        uint8_t *to = vnc_buffer_add(&job->out, room);

        if (!to)
            return;
        zlib->next_out = to;
        zlib->avail_out = (unsigned)room;
        deflate(zlib, flush);
        job->out.end -= zlib->avail_out;
    } while (zlib->avail_out == 0);
}

/* ---- ZRLE ---- */

/* Returns what is behind it. */
static uint8_t *put_tile(const struct vnc_format *format, uint8_t *to, const uint32_t *pixels,
                         unsigned stride, unsigned width, unsigned height)
{
    uint32_t colours[COLOURS];
    unsigned count = find_colours(pixels, stride, width, height, colours);

    if (count <= COLOURS) {
        *to++ = (uint8_t)count; /* 1: all of one colour */
        for (unsigned n = 0; n < count; n++)
            to = put_compact(format, to, colours[n]);
        for (unsigned y = 0; y < height && count > 1; y++)
            to = put_row(to, pixels + (size_t)y * stride, width,
                         count == 2   ? 1
                         : count <= 4 ? 2
                                      : 4,
                         colours, count);
        return to;
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

            pack(job, &job->zrle, tile, (size_t)(end - tile), Z_NO_FLUSH);
        }
    pack(job, &job->zrle, NULL, 0, Z_SYNC_FLUSH);
    put_be32(job->out.bytes + place, (uint32_t)(job->out.end - place - 4));
}

/* ---- Tight ---- */

static uint8_t *put_tight(const struct vnc_format *format, uint8_t *to, uint32_t pixel)
{
    if (!format->has_bytes)
        return vnc_put_pixel(format, to, pixel);
    *to++ = (uint8_t)(pixel >> 16);
    *to++ = (uint8_t)(pixel >> 8);
    *to++ = (uint8_t)pixel;
    return to;
}

static void put_colours(struct vnc_job *job, const uint32_t *colours, unsigned count)
{
    uint8_t bytes[COLOURS * 4], *end = bytes;

    for (unsigned n = 0; n < count; n++)
        end = put_tight(&job->format, end, colours[n]);
    vnc_buffer_put(&job->out, bytes, (size_t)(end - bytes));
}

/* bits of each pixel are its place in colours; 0: it is there itself. */
static uint8_t *put_tight_row(struct vnc_job *job, uint8_t *to, const uint32_t *pixels,
                              unsigned width, unsigned bits, const uint32_t *colours,
                              unsigned count)
{
    if (bits)
        return put_row(to, pixels, width, bits, colours, count);
    for (unsigned x = 0; x < width; x++)
        to = put_tight(&job->format, to, pixels[x]);
    return to;
}

/* Seven bits a byte, the last of three has eight. */
static void put_length(uint8_t out[3], size_t length)
{
    out[0] = (uint8_t)(0x80 | (length & 0x7f));
    out[1] = (uint8_t)(0x80 | (length >> 7 & 0x7f));
    out[2] = (uint8_t)(length >> 14);
}

static void put_tight_rows(struct vnc_job *job, const struct screen_rect *rect,
                           const uint32_t *pixels, unsigned bits, const uint32_t *colours,
                           unsigned count)
{
    uint8_t row[VNC_RECT_COLUMNS * VNC_TILE_WIDTH * 4];
    size_t pixel_bytes = job->format.has_bytes ? 3 : job->format.bytes;
    size_t row_bytes = bits ? ((size_t)rect->width * bits + 7) / 8 : rect->width * pixel_bytes;
    bool is_packed = row_bytes * rect->height >= TIGHT_PLAIN;
    size_t place = job->out.end;

    if (is_packed && !vnc_buffer_add(&job->out, 3))
        return;
    for (unsigned y = 0; y < rect->height; y++) {
        put_tight_row(job, row, pixels + (size_t)y * rect->width, rect->width, bits, colours,
                      count);
        if (is_packed)
            pack(job, &job->tight, row, row_bytes,
                 y + 1 == rect->height ? Z_SYNC_FLUSH : Z_NO_FLUSH);
        else
            vnc_buffer_put(&job->out, row, row_bytes);
    }
    if (is_packed && !job->out.failed)
        put_length(job->out.bytes + place, job->out.end - place - 3);
}

static void encode_tight(struct vnc_job *job, const struct screen_rect *rect,
                         const uint32_t *pixels)
{
    uint32_t colours[COLOURS];
    unsigned count = find_colours(pixels, rect->width, rect->width, rect->height, colours);
    const uint8_t fill = TIGHT_FILL, plain = 0;

    if (count == 1) {
        vnc_buffer_put(&job->out, &fill, 1);
        put_colours(job, colours, 1);
    } else if (count <= COLOURS) {
        const uint8_t head[] = {TIGHT_FILTER, TIGHT_PALETTE, (uint8_t)(count - 1)};

        vnc_buffer_put(&job->out, head, sizeof(head));
        put_colours(job, colours, count);
        put_tight_rows(job, rect, pixels, count == 2 ? 1 : 8, colours, count);
    } else {
        vnc_buffer_put(&job->out, &plain, 1);
        put_tight_rows(job, rect, pixels, 0, NULL, 0);
    }
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
            encode_tight(job, rect, pixels);
        else
            encode_raw(job, rect, pixels);
        pixels += (size_t)rect->width * rect->height;
    }
}

void vnc_job_free(struct vnc_job *job)
{
    if (job->zrle.is_open)
        deflateEnd(&job->zrle.zlib);
    if (job->tight.is_open)
        deflateEnd(&job->tight.zlib);
    free(job->rects);
    free(job->pixels);
    vnc_buffer_free(&job->out);
}
