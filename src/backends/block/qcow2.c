/*
 * qcow2.c - opening and closing qcow2 images
 *
 * After docs/interop/qcow2.txt of QEMU. Everything in a file is hostile: sizes and offsets are
 * checked before they are used, and tables that overlap are refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "backends/block/qcow2_io.h"
#include "base/bytes.h"
#include "base/log.h"

#define L2_CACHE_BYTES           (16u << 20) /* with clusters of 64 KiB: for 128 GiB of disk */
#define REFS_CACHE_BYTES         (4u << 20)

#define EXTENSION_BACKING_FORMAT 0xe2792acau

/* ---- what goes wrong later ---- */

int qcow2_found_corrupt(struct qcow2 *q, const char *what, uint64_t offset)
{
    uint8_t features[8];

    if (q->is_corrupt)
        return -EIO;
    q->is_corrupt = true;
    if (q->node.read_only) {
        log_error("qcow2: the image is corrupt: %s (0x%llx)", what, (unsigned long long)offset);
        return -EIO;
    }
    log_error("qcow2: the image is corrupt: %s (0x%llx); nothing more is written to it", what,
              (unsigned long long)offset);
    if (q->info.version >= 3) {
        q->incompatible |= QCOW2_CORRUPT;
        put_be64(features, q->incompatible);
        qcow2_write_header(q, QCOW2_AT_INCOMPATIBLE, features, sizeof(features));
    }
    return -EIO;
}

int qcow2_write_header(struct qcow2 *q, uint32_t at, const uint8_t *bytes, uint32_t size_bytes)
{
    return block_node_write(q->file, at, bytes, size_bytes);
}

/* ---- the header ---- */

static bool probe(const uint8_t *header, size_t size_bytes)
{
    return size_bytes >= 8 && get_be32(header) == QCOW2_MAGIC && get_be32(header + 4) >= 2;
}

static const struct {
    unsigned bit;
    const char *name;
} unsupported_features[] = {
    {2, "an external data file"},
    {4, "extended L2 entries (subclusters)"},
};

static int check_features(const struct qcow2 *q, struct error *err)
{
    uint64_t unknown = q->incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION);
    unsigned bit;

    for (size_t n = 0; n < sizeof(unsupported_features) / sizeof(unsupported_features[0]); n++)
        if (unknown >> unsupported_features[n].bit & 1)
            return error_set(err, ENOTSUP, "it has %s, which is not supported",
                             unsupported_features[n].name);
    if (!unknown)
        return 0;
    for (bit = 0; !(unknown >> bit & 1); bit++)
        ;
    return error_set(err, ENOTSUP, "it has a feature that is not known (incompatible bit %u)", bit);
}

static int parse_version_3(struct qcow2 *q, const uint8_t *header, struct error *err)
{
    q->incompatible = get_be64(header + QCOW2_AT_INCOMPATIBLE);
    q->autoclear = get_be64(header + QCOW2_AT_AUTOCLEAR);
    q->refcount_order = get_be32(header + QCOW2_AT_REFCOUNT_ORDER);
    q->header_bytes = get_be32(header + QCOW2_AT_HEADER_BYTES);
    if (q->header_bytes < QCOW2_V3_HEADER_BYTES || q->header_bytes > q->cluster_bytes)
        return error_set(err, EINVAL, "its header has %u bytes", q->header_bytes);
    if (q->refcount_order > 6)
        return error_set(err, EINVAL, "its refcounts have 2^%u bits; 64 are the most",
                         q->refcount_order);
    if (check_features(q, err))
        return -ENOTSUP;
    if (q->incompatible & QCOW2_COMPRESSION && q->header_bytes > QCOW2_AT_COMPRESSION) {
        unsigned type = header[QCOW2_AT_COMPRESSION];

        if (type > QCOW2_ZSTD)
            return error_set(err, ENOTSUP, "its compression is not known (type %u)", type);
        q->info.compression = type;
    }
    if (!qcow2_can_compress(q->info.compression))
        return error_set(err, ENOTSUP,
                         "it is compressed with %s, and this program was built "
                         "without",
                         qcow2_compression_name(q->info.compression));
    return 0;
}

/* Offsets and sizes of tables, before they are read. */
static int check_table(const struct qcow2 *q, const char *name, uint64_t offset, uint64_t bytes,
                       uint64_t max_bytes, struct error *err)
{
    if (bytes > max_bytes)
        return error_set(err, EFBIG, "its %s has %llu bytes; %llu are the most", name,
                         (unsigned long long)bytes, (unsigned long long)max_bytes);
    if ((bytes && !offset) || offset & (q->cluster_bytes - 1) ||
        !range_fits(offset, bytes, INT64_MAX))
        return error_set(err, EINVAL, "its %s is at 0x%llx, where it cannot be", name,
                         (unsigned long long)offset);
    return 0;
}

static int parse_tables(struct qcow2 *q, const uint8_t *header, struct error *err)
{
    uint64_t per_l2 = (uint64_t)q->cluster_bytes << q->l2_bits, size = get_be64(header + 24);
    uint64_t reftable_bytes = (uint64_t)get_be32(header + QCOW2_AT_REFTABLE_CLUSTERS)
                              << q->cluster_bits;

    q->l1_size = get_be32(header + QCOW2_AT_L1_SIZE);
    q->l1_offset = get_be64(header + QCOW2_AT_L1_OFFSET);
    q->reftable_offset = get_be64(header + QCOW2_AT_REFTABLE_OFFSET);
    q->info.snapshots = get_be32(header + QCOW2_AT_SNAPSHOTS);
    q->snapshots_offset = get_be64(header + QCOW2_AT_SNAPSHOTS_OFFSET);
    q->node.size_bytes = align_down(size, BLOCK_SECTOR_BYTES);
    if (!q->node.size_bytes)
        return error_set(err, EINVAL, "its disk has no sector");
    if (check_table(q, "L1 table", q->l1_offset, q->l1_size * 8ull, QCOW2_MAX_L1_BYTES, err) ||
        check_table(q, "refcount table", q->reftable_offset, reftable_bytes,
                    QCOW2_MAX_REFTABLE_BYTES, err))
        return -EINVAL;
    if (!reftable_bytes)
        return error_set(err, EINVAL, "it has no refcount table");
    q->reftable_size = (uint32_t)(reftable_bytes / 8);
    if (size / per_l2 + (size % per_l2 != 0) > q->l1_size)
        return error_set(err, EINVAL, "its L1 table is too small for its disk");
    if (q->info.snapshots > QCOW2_MAX_SNAPSHOTS)
        return error_set(err, EFBIG, "it has %u snapshots; %u are the most", q->info.snapshots,
                         QCOW2_MAX_SNAPSHOTS);
    return 0;
}

static int parse_header(struct qcow2 *q, const uint8_t *header, struct error *err)
{
    uint32_t method = get_be32(header + QCOW2_AT_CRYPT_METHOD);

    q->info.version = get_be32(header + QCOW2_AT_VERSION);
    q->cluster_bits = get_be32(header + QCOW2_AT_CLUSTER_BITS);
    if (!probe(header, QCOW2_V3_HEADER_BYTES))
        return error_set(err, EINVAL, "it is not a qcow2 image");
    if (q->info.version > 3)
        return error_set(err, ENOTSUP, "it is qcow2 of version %u; 2 and 3 are supported",
                         q->info.version);
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return error_set(err, EINVAL, "its clusters have 2^%u bytes; 512 to 2 MiB are possible",
                         q->cluster_bits);
    q->cluster_bytes = 1u << q->cluster_bits;
    q->l2_bits = q->cluster_bits - 3;
    q->l2_entries = 1u << q->l2_bits;
    q->refcount_order = 4;
    q->header_bytes = QCOW2_V2_HEADER_BYTES;
    if (method)
        return error_set(err, ENOTSUP, "it is encrypted (%s), which is not supported",
                         method == 1   ? "AES"
                         : method == 2 ? "LUKS"
                                       : "unknown method");
    if (q->info.version >= 3 && parse_version_3(q, header, err))
        return -EINVAL;
    q->block_bits = q->cluster_bits + 3 - q->refcount_order;
    q->info.refcount_bits = 1u << q->refcount_order;
    q->info.cluster_bytes = q->cluster_bytes;
    q->info.is_dirty = q->incompatible & QCOW2_DIRTY;
    q->info.is_corrupt = q->incompatible & QCOW2_CORRUPT;
    return parse_tables(q, header, err);
}

static int read_name(struct qcow2 *q, uint64_t offset, uint32_t size, char *out, struct error *err)
{
    int result;

    if (size >= BLOCK_NAME_BYTES || offset > q->cluster_bytes || size > q->cluster_bytes - offset)
        return error_set(err, EINVAL, "the name of its backing file is too long");
    result = block_node_read(q->file, offset, out, size);
    out[size] = '\0';
    return result ? error_set(err, -result, "cannot read it: %s", strerror(-result)) : 0;
}

/* Extensions follow the header; only the format of the backing file matters. */
static int read_extensions(struct qcow2 *q, uint64_t end, struct error *err)
{
    uint64_t at = q->header_bytes;

    while (at + 8 <= end) {
        uint8_t head[8];
        uint32_t type, size;

        if (block_node_read(q->file, at, head, sizeof(head)))
            return error_set(err, EIO, "cannot read its header");
        type = get_be32(head);
        size = get_be32(head + 4);
        at += sizeof(head);
        if (!type)
            break;
        if (size > end - at)
            return error_set(err, EINVAL, "an extension of its header is too long");
        if (type == EXTENSION_BACKING_FORMAT && read_name(q, at, size, q->backing_format, err))
            return -EINVAL;
        at += align_up(size, 8);
    }
    return 0;
}

static int read_backing(struct qcow2 *q, const uint8_t *header, struct error *err)
{
    uint64_t offset = get_be64(header + QCOW2_AT_BACKING_OFFSET);
    uint32_t size = get_be32(header + QCOW2_AT_BACKING_SIZE);

    if (read_extensions(q, offset && offset < q->cluster_bytes ? offset : q->cluster_bytes, err))
        return -EINVAL;
    if (!offset || !size)
        return 0;
    if (read_name(q, offset, size, q->backing_name, err))
        return -EINVAL;
    q->info.backing = q->backing_name;
    if (q->backing_format[0])
        q->info.backing_format = q->backing_format;
    return 0;
}

static int read_header(struct qcow2 *q, struct error *err)
{
    uint8_t header[QCOW2_AT_COMPRESSION + 8] = {0};
    int result = block_node_read(q->file, 0, header, sizeof(header));

    if (result)
        return error_set(err, -result, "cannot read it: %s", strerror(-result));
    if (parse_header(q, header, err))
        return -EINVAL;
    return read_backing(q, header, err);
}

/* ---- tables ---- */

static uint64_t *read_entries(struct qcow2 *q, uint64_t offset, uint64_t count, struct error *err)
{
    uint64_t *entries = calloc(count ? count : 1, sizeof(*entries));
    int result =
        entries ? block_node_read(q->file, offset, entries, count * sizeof(*entries)) : -ENOMEM;

    if (result) {
        error_set(err, -result, "cannot read its tables: %s", strerror(-result));
        free(entries);
        return NULL;
    }
    for (uint64_t n = 0; n < count; n++)
        entries[n] = get_be64((const uint8_t *)&entries[n]);
    return entries;
}

static int read_tables(struct qcow2 *q, struct error *err)
{
    q->l1 = read_entries(q, q->l1_offset, q->l1_size, err);
    q->reftable = q->l1 ? read_entries(q, q->reftable_offset, q->reftable_size, err) : NULL;
    if (!q->reftable)
        return -EIO;
    for (uint32_t n = 0; n < q->reftable_size; n++)
        q->reftable[n] &= ~511ull;
    if (qcow2_cache_init(&q->l2, q->l1_size, L2_CACHE_BYTES, q->cluster_bytes) ||
        qcow2_cache_init(&q->refs, q->reftable_size, REFS_CACHE_BYTES, q->cluster_bytes) ||
        qcow2_unpacked_new(q))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

static int add_table(struct qcow2 *q, const char *name, uint64_t offset, uint64_t bytes,
                     struct error *err)
{
    uint64_t first = offset >> q->cluster_bits;

    if (offset & (q->cluster_bytes - 1))
        return error_set(err, EIO, "it is corrupt: its %s is at 0x%llx", name,
                         (unsigned long long)offset);
    for (uint64_t n = 0; n < qcow2_clusters(q, bytes); n++) {
        int result = qcow2_set_add(&q->metadata, first + n);

        if (result == -EEXIST)
            return error_set(err, EIO, "it is corrupt: its %s at 0x%llx overlaps another table",
                             name, (unsigned long long)offset);
        if (result)
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

/* No data is ever written to these clusters, whatever tables say. */
static int find_metadata(struct qcow2 *q, struct error *err)
{
    if (add_table(q, "header", 0, q->cluster_bytes, err) ||
        add_table(q, "L1 table", q->l1_offset, q->l1_size * 8ull, err) ||
        add_table(q, "refcount table", q->reftable_offset, q->reftable_size * 8ull, err))
        return -EIO;
    for (uint32_t n = 0; n < q->l1_size; n++)
        if (q->l1[n] & QCOW2_OFFSET_MASK &&
            add_table(q, "L2 table", q->l1[n] & QCOW2_OFFSET_MASK, q->cluster_bytes, err))
            return -EIO;
    for (uint32_t n = 0; n < q->reftable_size; n++)
        if (q->reftable[n] && add_table(q, "refcount block", q->reftable[n], q->cluster_bytes, err))
            return -EIO;
    return 0;
}

/* ---- opening ---- */

static const struct block_node_ops qcow2_ops;

static void close_node(struct block_node *node)
{
    struct qcow2 *q = qcow2_of(node);

    if (!node->read_only && !q->is_temporary && !q->is_corrupt && q->unpacked) {
        qcow2_flush(q);
        qcow2_flush(q); /* and the counts of what that gave back */
    }
    qcow2_cache_done(&q->l2);
    qcow2_cache_done(&q->refs);
    qcow2_unpacked_free(q);
    free(q->l1);
    free(q->reftable);
    free(q->metadata.slots);
    free(q->dropped);
    block_node_close(q->backing);
    block_node_close(q->file);
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->changed);
    free(q);
}

static struct qcow2 *new_node(struct block_node *file, struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));

    if (!q) {
        error_set(err, ENOMEM, "out of memory");
        block_node_close(file);
        return NULL;
    }
    q->node.ops = &qcow2_ops;
    q->node.read_only = true; /* until all is known */
    q->file = file;
    file->is_container = true;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    return q;
}

/* Features that we do not keep up with are out of date from now on. */
static int prepare_to_write(struct qcow2 *q, struct error *err)
{
    uint8_t none[8] = {0};

    if (q->info.is_corrupt)
        return error_set(err, EIO,
                         "it is marked as corrupt; readonly=on opens it for reading, and "
                         "'trapeze image check --repair' may mend it");
    if (q->info.is_dirty)
        return error_set(err, EIO,
                         "it was not closed by who wrote it last, so that its refcounts "
                         "may be wrong; run 'trapeze image check --repair'");
    if (find_metadata(q, err))
        return -EIO;
    if (q->autoclear && qcow2_write_header(q, QCOW2_AT_AUTOCLEAR, none, sizeof(none)))
        return error_set(err, EIO, "cannot write its header");
    q->autoclear = 0;
    return 0;
}

static int open_backing(struct qcow2 *q, const struct block_options *options,
                        const struct block_chain *chain, struct error *err)
{
    struct block_options below = block_options_below(options);

    if (!q->info.backing || options->no_backing)
        return 0;
    below.file = block_backing_path(options->file, q->backing_name, err);
    if (!below.file)
        return -ENOTSUP;
    below.format = q->backing_format[0] ? q->backing_format : NULL;
    q->backing = block_node_open(&below, chain, err);
    free(below.file);
    return q->backing ? 0 : -EIO;
}

static int open_node(struct qcow2 *q, struct error *err)
{
    int result = read_header(q, err);

    if (!result)
        result = read_tables(q, err);
    if (!result && q->file->ops->length(q->file, &q->file_end))
        result = error_set(err, EIO, "cannot find its length");
    return result;
}

static struct block_node *qcow2_open(struct block_node *file, const struct block_options *options,
                                     const struct block_chain *chain, struct error *err)
{
    struct qcow2 *q = new_node(file, err);
    int result;

    if (!q)
        return NULL;
    result = open_node(q, err);
    if (!result && !options->readonly && !options->as_it_is)
        result = prepare_to_write(q, err);
    if (result)
        error_prefix(err, "'%s': ", options->file);
    else
        result = open_backing(q, options, chain, err);
    if (result) {
        close_node(&q->node);
        return NULL;
    }
    q->node.read_only = options->readonly;
    q->node.can_discard = options->discard;
    return &q->node;
}

struct block_node *qcow2_open_temporary(struct block_node *file, struct block_node *below,
                                        struct error *err)
{
    struct qcow2 *q = new_node(file, err);

    if (!q) {
        block_node_close(below);
        return NULL;
    }
    q->backing = below;
    q->is_temporary = true;
    if (open_node(q, err) || prepare_to_write(q, err)) {
        close_node(&q->node);
        return NULL;
    }
    q->node.read_only = false;
    q->node.can_discard = true;
    return &q->node;
}

const struct qcow2_info *qcow2_info(const struct block_node *node)
{
    return node->ops == &qcow2_ops ? &qcow2_of(node)->info : NULL;
}

struct block_node *qcow2_backing(const struct block_node *node)
{
    return qcow2_info(node) ? qcow2_of(node)->backing : NULL;
}

static const struct block_node_ops qcow2_ops = {
    .name = "qcow2",
    .close = close_node,
    .execute = qcow2_execute,
    .try_execute = qcow2_try_execute,
    .map = qcow2_node_map,
};

const struct block_format block_qcow2 = {
    .name = "qcow2",
    .summary = "QEMU's format: sparse, compressed, with backing files",
    .probe = probe,
    .open = qcow2_open,
};
