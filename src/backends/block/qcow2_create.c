/*
 * qcow2_create.c - new qcow2 images
 *
 * The header, the table of refcount blocks, its first block and the L1 table, one after the
 * other; all but the header come first, so that a half-made image is none.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "base/bytes.h"

#define REFCOUNT_ORDER 4u

struct layout {
    unsigned cluster_bits;
    uint64_t l1_size, l1_clusters;
    uint64_t reftable_clusters, blocks; /* enough for the tables themselves */
    uint64_t clusters;                  /* in all */
};

static uint64_t round_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

static int plan(const struct qcow2_create_options *options, struct layout *layout,
                struct error *err)
{
    uint64_t cluster = options->cluster_bytes, per_block = cluster * 8 >> REFCOUNT_ORDER;

    if (cluster < 512 || cluster > 2u << 20 || cluster & (cluster - 1))
        return error_set(err, EINVAL,
                         "clusters can have 512 bytes to 2 MiB, and a power of two of them");
    if (!options->size_bytes)
        return error_set(err, EINVAL, "a disk has one sector of 512 bytes at least");
    layout->cluster_bits = (unsigned)__builtin_ctzll(cluster);
    layout->l1_size = round_up(options->size_bytes, cluster * (cluster / 8));
    if (layout->l1_size * 8 > QCOW2_MAX_L1_BYTES)
        return error_set(err, EFBIG, "the disk is too large for clusters of this size");
    layout->l1_clusters = round_up(layout->l1_size * 8, cluster);
    layout->blocks = layout->reftable_clusters = 1;
    for (;;) {
        uint64_t blocks, reftable_clusters;

        layout->clusters = 1 + layout->reftable_clusters + layout->blocks + layout->l1_clusters;
        blocks = round_up(layout->clusters, per_block);
        reftable_clusters = round_up(blocks * 8, cluster);
        if (blocks <= layout->blocks && reftable_clusters <= layout->reftable_clusters)
            return 0;
        layout->blocks = blocks;
        layout->reftable_clusters = reftable_clusters;
    }
}

static int fill_header(uint8_t *header, const struct qcow2_create_options *options,
                       const struct layout *layout, struct error *err)
{
    uint64_t cluster = options->cluster_bytes;
    uint32_t size = options->version == 2  ? QCOW2_V2_HEADER_BYTES
                    : options->compression ? QCOW2_AT_COMPRESSION + 8
                                           : QCOW2_V3_HEADER_BYTES;

    put_be32(header + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    put_be32(header + QCOW2_AT_VERSION, options->version);
    put_be32(header + QCOW2_AT_CLUSTER_BITS, layout->cluster_bits);
    put_be64(header + QCOW2_AT_SIZE, options->size_bytes);
    put_be32(header + QCOW2_AT_L1_SIZE, (uint32_t)layout->l1_size);
    put_be64(header + QCOW2_AT_L1_OFFSET,
             (1 + layout->reftable_clusters + layout->blocks) * cluster);
    put_be64(header + QCOW2_AT_REFTABLE_OFFSET, cluster);
    put_be32(header + QCOW2_AT_REFTABLE_CLUSTERS, (uint32_t)layout->reftable_clusters);
    if (options->version >= 3) {
        put_be32(header + QCOW2_AT_REFCOUNT_ORDER, REFCOUNT_ORDER);
        put_be32(header + QCOW2_AT_HEADER_BYTES, size);
    }
    if (options->compression != QCOW2_ZLIB) {
        put_be64(header + QCOW2_AT_INCOMPATIBLE, QCOW2_COMPRESSION);
        header[QCOW2_AT_COMPRESSION] = (uint8_t)options->compression;
    }
    return qcow2_put_backing(header, cluster, size, options->backing, options->backing_format, err);
}

static int write_all(struct block_node *file, const uint8_t *header, const struct layout *layout)
{
    size_t cluster = (size_t)1 << layout->cluster_bits;
    uint8_t *table = calloc(layout->reftable_clusters, cluster);
    uint8_t *blocks = calloc(layout->blocks, cluster);
    uint8_t *l1 = calloc(layout->l1_clusters, cluster);
    uint64_t at = cluster;
    int result = table && blocks && l1 ? 0 : -ENOMEM;

    for (uint64_t n = 0; !result && n < layout->blocks; n++)
        put_be64(table + n * 8, (1 + layout->reftable_clusters + n) * cluster);
    for (uint64_t n = 0; !result && n < layout->clusters; n++)
        put_be16(blocks + n * 2, 1);
    if (!result)
        result = block_node_write(file, at, table, layout->reftable_clusters * cluster);
    at += layout->reftable_clusters * cluster;
    if (!result)
        result = block_node_write(file, at, blocks, layout->blocks * cluster);
    at += layout->blocks * cluster;
    if (!result)
        result = block_node_write(file, at, l1, layout->l1_clusters * cluster);
    if (!result)
        result = block_node_flush(file);
    if (!result)
        result = block_node_write(file, 0, header, cluster);
    free(table);
    free(blocks);
    free(l1);
    return result ? result : block_node_flush(file);
}

int qcow2_create(struct block_node *file, const struct qcow2_create_options *options,
                 struct error *err)
{
    struct layout layout = {0};
    uint8_t *header;
    int result;

    if (plan(options, &layout, err))
        return -EINVAL;
    if (options->version == 2 && options->compression != QCOW2_ZLIB)
        return error_set(err, EINVAL, "version 2 has no %s compression",
                         qcow2_compression_name(options->compression));
    if (!qcow2_can_compress(options->compression))
        return error_set(err, ENOTSUP, "this program was built without %s",
                         qcow2_compression_name(options->compression));
    header = calloc(1, options->cluster_bytes);
    if (!header)
        return error_set(err, ENOMEM, "out of memory");
    result = fill_header(header, options, &layout, err);
    if (!result) {
        result = write_all(file, header, &layout);
        if (result)
            error_set(err, -result, "cannot write it: %s", strerror(-result));
    }
    free(header);
    return result;
}
