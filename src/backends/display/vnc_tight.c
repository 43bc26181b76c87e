/*
 * vnc_tight.c - pixels as viewers of VNC want them: Tight, without JPEG
 *
 * The RFB Protocol (community version), "Tight Encoding". A rectangle of one colour is that colour,
 * of up to 256 a palette and indices, else its pixels; each kind has a zlib stream of its own.
 *
 * Runs on a thread of its own, as vnc_encode.c.
 */
#include <string.h>

#include "backends/display/vnc_internal.h"

#define FILL         0x80u
#define FILTERED     0x40u /* the kind of filter follows */
#define PALETTE      1u
#define STREAM_SHIFT 4
#define MAX_COLOURS  256u
#define HASH_BITS    10
#define LEAST_BYTES  12u /* less is not compressed */

struct palette {
    unsigned count;
    uint32_t colours[MAX_COLOURS];
    uint16_t slots[1u << HASH_BITS]; /* index + 1; 0: free */
};

/* Of a colour, which is added. MAX_COLOURS: there are too many. */
static unsigned index_of(struct palette *p, uint32_t colour)
{
    unsigned slot = colour * 0x9e3779b1u >> (32 - HASH_BITS);

    while (p->slots[slot] && p->colours[p->slots[slot] - 1] != colour)
        slot = (slot + 1) & ((1u << HASH_BITS) - 1);
    if (!p->slots[slot]) {
        if (p->count == MAX_COLOURS)
            return MAX_COLOURS;
        p->colours[p->count++] = colour;
        p->slots[slot] = (uint16_t)p->count;
    }
    return p->slots[slot] - 1u;
}

/* False: there are too many colours. */
static bool find_colours(struct palette *p, const uint32_t *pixels, size_t count)
{
    memset(p, 0, sizeof(*p));
    for (size_t n = 0; n < count; n++)
        if ((n == 0 || pixels[n] != pixels[n - 1]) && index_of(p, pixels[n]) == MAX_COLOURS)
            return false;
    return true;
}

static uint8_t *put_pixel(const struct vnc_format *format, uint8_t *to, uint32_t pixel)
{
    if (!format->is_rgb)
        return vnc_put_pixel(format, to, pixel);
    to[0] = (uint8_t)(pixel >> 16);
    to[1] = (uint8_t)(pixel >> 8);
    to[2] = (uint8_t)pixel;
    return to + 3;
}

/* The length is put in three bytes, whatever it is: seven bits, seven bits, the rest. */
static void put_packed(struct vnc_job *job, unsigned stream, const uint8_t *bytes, size_t size)
{
    size_t place = job->out.end, length;
    uint8_t *to;

    if (size < LEAST_BYTES) {
        vnc_buffer_put(&job->out, bytes, size);
        return;
    }
    if (!vnc_buffer_add(&job->out, 3))
        return;
    vnc_pack(job, stream, bytes, size, true);
    if (job->out.failed)
        return;
    length = job->out.end - place - 3;
    to = job->out.bytes + place;
    to[0] = (uint8_t)(length | 0x80);
    to[1] = (uint8_t)(length >> 7 | 0x80);
    to[2] = (uint8_t)(length >> 14);
}

static uint8_t *put_bits(struct palette *p, uint8_t *to, const uint32_t *pixels,
                         const struct screen_rect *rect)
{
    for (uint32_t y = 0; y < rect->height; y++)
        for (uint32_t x = 0; x < rect->width; x++) {
            if (x % 8 == 0)
                *to++ = 0;
            if (index_of(p, pixels[(size_t)y * rect->width + x]))
                to[-1] |= (uint8_t)(0x80 >> x % 8);
        }
    return to;
}

static void put_indices(struct vnc_job *job, struct palette *p, const uint32_t *pixels,
                        const struct screen_rect *rect)
{
    enum vnc_stream stream = p->count == 2 ? VNC_STREAM_BITS : VNC_STREAM_INDICES;
    const uint8_t head[] = {(uint8_t)(FILTERED | stream << STREAM_SHIFT), PALETTE,
                            (uint8_t)(p->count - 1)};
    size_t count = (size_t)rect->width * rect->height;
    uint8_t *to = job->scratch;

    vnc_buffer_put(&job->out, head, sizeof(head));
    for (unsigned n = 0; n < p->count; n++)
        to = put_pixel(&job->format, to, p->colours[n]);
    vnc_buffer_put(&job->out, job->scratch, (size_t)(to - job->scratch));
    to = job->scratch;
    if (p->count == 2)
        to = put_bits(p, to, pixels, rect);
    else
        for (size_t n = 0; n < count; n++)
            *to++ = (uint8_t)index_of(p, pixels[n]);
    put_packed(job, stream, job->scratch, (size_t)(to - job->scratch));
}

void vnc_encode_tight(struct vnc_job *job, const struct screen_rect *rect, const uint32_t *pixels)
{
    size_t count = (size_t)rect->width * rect->height;
    const uint8_t whole = VNC_STREAM_PIXELS << STREAM_SHIFT;
    uint8_t *to = job->scratch;
    struct palette palette;

    if (!find_colours(&palette, pixels, count)) {
        for (size_t n = 0; n < count; n++)
            to = put_pixel(&job->format, to, pixels[n]);
        vnc_buffer_put(&job->out, &whole, 1);
        put_packed(job, VNC_STREAM_PIXELS, job->scratch, (size_t)(to - job->scratch));
    } else if (palette.count == 1) {
        *to++ = FILL;
        to = put_pixel(&job->format, to, palette.colours[0]);
        vnc_buffer_put(&job->out, job->scratch, (size_t)(to - job->scratch));
    } else {
        put_indices(job, &palette, pixels, rect);
    }
}
