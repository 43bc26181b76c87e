/*
 * png.c - a screen as a PNG file
 *
 * Portable Network Graphics (W3C, second edition): 8 bits of red, green and blue, no filter, one
 * IDAT chunk. zlib has all that this needs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bytes.h"
#include "trapeze/display.h"

#define IHDR_BYTES  13u
#define CHUNK_BYTES 12u /* length, name and checksum */

static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

/* Rows of red, green and blue, each behind the number of its filter, which is none. */
static uint8_t *surface_bytes(const struct screen_surface *surface, size_t *out_size)
{
    size_t row_bytes = 1 + 3 * (size_t)surface->width;
    uint8_t *bytes = malloc(row_bytes * surface->height), *to = bytes;

    if (!bytes)
        return NULL;
    for (uint32_t y = 0; y < surface->height; y++) {
        const uint32_t *row = surface->pixels + (size_t)y * surface->stride;

        *to++ = 0;
        for (uint32_t x = 0; x < surface->width; x++) {
            *to++ = (uint8_t)(row[x] >> 16);
            *to++ = (uint8_t)(row[x] >> 8);
            *to++ = (uint8_t)row[x];
        }
    }
    *out_size = row_bytes * surface->height;
    return bytes;
}

/* The chunk's contents are at to + 8 already. */
static uint8_t *finish_chunk(uint8_t *to, const char *name, size_t size)
{
    put_be32(to, (uint32_t)size);
    memcpy(to + 4, name, 4);
    put_be32(to + 8 + size, (uint32_t)crc32(0, to + 4, (uInt)(4 + size)));
    return to + CHUNK_BYTES + size;
}

static uint8_t *write_png(const struct screen_surface *surface, size_t *out_size)
{
    size_t size;
    uint8_t *bytes = surface_bytes(surface, &size), *png, *to;
    uLongf packed = bytes ? compressBound(size) : 0;

    png = bytes ? malloc(sizeof(signature) + 3 * CHUNK_BYTES + IHDR_BYTES + packed) : NULL;
    if (!png) {
        free(bytes);
        return NULL;
    }
    memcpy(png, signature, sizeof(signature));
    to = png + sizeof(signature);
    put_be32(to + 8, surface->width);
    put_be32(to + 12, surface->height);
    memcpy(to + 16, "\x08\x02\0\0\0", 5); /* bits, kind (RGB), and the usual methods */
    to = finish_chunk(to, "IHDR", IHDR_BYTES);
    if (compress2(to + 8, &packed, bytes, size, Z_BEST_SPEED) != Z_OK) {
        free(bytes);
        free(png);
        return NULL;
    }
    free(bytes);
    to = finish_chunk(to, "IDAT", packed);
    to = finish_chunk(to, "IEND", 0);
    *out_size = (size_t)(to - png);
    return png;
}

static void ignore_size(void *opaque, const struct screen_surface *surface)
{
    (void)opaque, (void)surface;
}

static void ignore_change(void *opaque, const struct screen_rect *rect)
{
    (void)opaque, (void)rect;
}

static const struct screen_viewer_ops glance = {.resized = ignore_size, .changed = ignore_change};

int screen_png(struct screen *screen, uint8_t **out_png, size_t *out_size, struct error *err)
{
    struct screen_viewer viewer = {.ops = &glance};
    uint8_t *png;
    int result = screen_attach(screen, &viewer, err);

    if (result)
        return result;
    png = write_png(screen_surface(screen), out_size);
    screen_detach(screen, &viewer);
    if (!png)
        return error_set(err, ENOMEM, "out of memory for a picture of the screen");
    *out_png = png;
    return 0;
}
