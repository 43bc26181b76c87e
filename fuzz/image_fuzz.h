/*
 * image_fuzz.h - fuzz targets of images that are only read: read all that an image says it has
 *
 * Whatever the file says, a disk can be read in any pieces and gives the same bytes; what is said
 * to be zero reads as zeros; checking it ends.
 */
#ifndef FUZZ_IMAGE_FUZZ_H
#define FUZZ_IMAGE_FUZZ_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/unit/memory_file.h"
#include "backends/block/mapped.h"

#define FUZZ_MAX_FILE (8u << 20)
#define FUZZ_EXTENTS  64u
#define FUZZ_PART     8192u

static inline void fuzz_ignore(void *opaque, const char *text)
{
    (void)opaque;
    (void)text;
}

/* The first of an extent, at once and in two reads. */
static inline void fuzz_read(struct block_node *node, uint64_t at,
                             const struct block_extent *extent)
{
    static uint8_t whole[FUZZ_PART], parts[FUZZ_PART];
    size_t size = extent->size_bytes < FUZZ_PART ? (size_t)extent->size_bytes : FUZZ_PART;
    size_t half = size / 3;

    memset(whole, 0x55, size);
    memset(parts, 0xaa, size);
    if (block_node_read(node, at, whole, size))
        return;
    if (!block_node_read(node, at, parts, half) &&
        !block_node_read(node, at + half, parts + half, size - half))
        assert(memcmp(whole, parts, size) == 0);
    for (size_t n = 0; n < size && extent->is_zero; n++)
        assert(whole[n] == 0);
}

/* file is closed with the image. */
static inline void fuzz_image(const struct block_format *format, struct block_node *file,
                              bool no_backing)
{
    static char name[] = "fuzz";
    const struct block_options options = {.file = name, .readonly = true, .no_backing = no_backing};
    struct block_chain chain = {.path = name};
    struct error err = {0};
    struct block_node *node = format->open(file, &options, &chain, &err);
    struct mapped_check_result result;
    struct block_extent extent;
    uint64_t at = 0;

    if (!node) {
        assert(err.code);
        return;
    }
    assert(node->size_bytes && node->size_bytes % BLOCK_SECTOR_BYTES == 0);
    for (unsigned n = 0; n < FUZZ_EXTENTS && at < node->size_bytes; n++) {
        if (node->ops->map(node, at, node->size_bytes - at, &extent)) {
            at += mapped_of(node)->block_bytes;
            continue;
        }
        assert(extent.size_bytes && extent.size_bytes <= node->size_bytes - at);
        fuzz_read(node, at, &extent);
        at += extent.size_bytes;
    }
    extent = (struct block_extent){.size_bytes = BLOCK_SECTOR_BYTES};
    fuzz_read(node, node->size_bytes - BLOCK_SECTOR_BYTES, &extent);
    mapped_check(mapped_of(node), fuzz_ignore, NULL, &result);
    block_node_close(node);
}

#endif
