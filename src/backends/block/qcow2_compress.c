/*
 * qcow2_compress.c - compressed clusters
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "backends/block/qcow2_internal.h"

#define WINDOW_BITS (-12) /* no header; the window of the format */
#define KEPT        8u    /* clusters that were unpacked lately */

const char *qcow2_compression_name(enum qcow2_compression compression)
{
    return compression == QCOW2_ZSTD ? "zstd" : "zlib";
}

bool qcow2_can_compress(enum qcow2_compression compression)
{
#ifdef HAVE_ZSTD
    return true;
#else
    return compression == QCOW2_ZLIB;
#endif
}

/* ---- zlib ---- */

static int inflate_cluster(const uint8_t *packed, size_t packed_bytes, uint8_t *data, size_t bytes)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)packed,
                       .avail_in = (uInt)packed_bytes,
                       .next_out = data,
                       .avail_out = (uInt)bytes};
    int result;

    if (inflateInit2(&stream, WINDOW_BITS) != Z_OK)
        return -ENOMEM;
    result = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0 ? 0 : -EIO;
}

static size_t deflate_cluster(const uint8_t *data, size_t bytes, uint8_t *out, size_t max_bytes)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)data,
                       .avail_in = (uInt)bytes,
                       .next_out = out,
                       .avail_out = (uInt)max_bytes};
    int result;

    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    result = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return result == Z_STREAM_END ? max_bytes - stream.avail_out : 0;
}

/* ---- either ---- */

/* What follows the packed data in its last sector is not part of it. */
static int unpack_bytes(const struct qcow2 *q, const uint8_t *packed, size_t packed_bytes,
                        uint8_t *data)
{
#ifdef HAVE_ZSTD
    if (q->info.compression == QCOW2_ZSTD) {
        ZSTD_DStream *stream = ZSTD_createDStream();
        ZSTD_inBuffer in = {.src = packed, .size = packed_bytes};
        ZSTD_outBuffer out = {.dst = data, .size = q->cluster_bytes};
        size_t result = 1;

        if (!stream)
            return -ENOMEM;
        while (out.pos < out.size && in.pos < in.size && !ZSTD_isError(result) && result)
            result = ZSTD_decompressStream(stream, &out, &in);
        ZSTD_freeDStream(stream);
        return out.pos == out.size ? 0 : -EIO;
    }
#endif
    return inflate_cluster(packed, packed_bytes, data, q->cluster_bytes);
}

size_t qcow2_pack(const struct qcow2 *q, const uint8_t *data, uint8_t *out, size_t max_bytes)
{
#ifdef HAVE_ZSTD
    if (q->info.compression == QCOW2_ZSTD) {
        size_t size = ZSTD_compress(out, max_bytes, data, q->cluster_bytes, ZSTD_CLEVEL_DEFAULT);

        return ZSTD_isError(size) ? 0 : size;
    }
#endif
    return deflate_cluster(data, q->cluster_bytes, out, max_bytes);
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint8_t *data)
{
    unsigned bits = 62 - (q->cluster_bits - 8);
    uint64_t offset = entry & ((1ull << bits) - 1);
    uint64_t sectors = (entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> bits;
    size_t size = (size_t)((sectors + 1) * 512 - (offset & 511));
    uint8_t *packed = malloc(size);
    int result = packed ? block_node_read(q->file, offset, packed, size) : -ENOMEM;

    if (!result)
        result = unpack_bytes(q, packed, size, data);
    free(packed);
    return result;
}

/* ---- clusters that were unpacked lately ---- */

struct qcow2_unpacked {
    pthread_mutex_t lock;
    unsigned next;
    uint64_t entries[KEPT]; /* 0: none */
    uint8_t *data;          /* KEPT clusters */
};

int qcow2_unpacked_new(struct qcow2 *q)
{
    q->unpacked = calloc(1, sizeof(*q->unpacked));
    if (!q->unpacked)
        return -ENOMEM;
    pthread_mutex_init(&q->unpacked->lock, NULL);
    return 0;
}

void qcow2_unpacked_free(struct qcow2 *q)
{
    if (!q->unpacked)
        return;
    pthread_mutex_destroy(&q->unpacked->lock);
    free(q->unpacked->data);
    free(q->unpacked);
}

static int find_unpacked(struct qcow2 *q, uint64_t entry, uint8_t **out_data)
{
    struct qcow2_unpacked *unpacked = q->unpacked;
    int result;

    if (!unpacked->data)
        unpacked->data = malloc((size_t)KEPT * q->cluster_bytes);
    if (!unpacked->data)
        return -ENOMEM;
    for (unsigned n = 0; n < KEPT; n++)
        if (unpacked->entries[n] == entry) {
            *out_data = unpacked->data + (size_t)n * q->cluster_bytes;
            return 0;
        }
    *out_data = unpacked->data + (size_t)unpacked->next * q->cluster_bytes;
    unpacked->entries[unpacked->next] = 0;
    result = qcow2_unpack(q, entry, *out_data);
    if (result)
        return result;
    unpacked->entries[unpacked->next] = entry;
    unpacked->next = (unpacked->next + 1) % KEPT;
    return 0;
}

int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint32_t offset,
                      const struct block_request *request, uint64_t skip, uint64_t size_bytes)
{
    uint8_t *data;
    int result;

    pthread_mutex_lock(&q->unpacked->lock);
    result = find_unpacked(q, entry, &data);
    if (!result)
        block_fill(data + offset, request, skip, size_bytes);
    pthread_mutex_unlock(&q->unpacked->lock);
    return result;
}
