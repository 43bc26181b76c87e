/*
 * qcow2_edit.c - what tools do to qcow2 images: compressed writes, sizes, backing files
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "backends/block/qcow2_io.h"
#include "base/bytes.h"

#define EXTENSION_BACKING_FORMAT 0xe2792acau

/* ---- compressed clusters ---- */

/* Room for size bytes right behind the last compressed cluster, or in a new one. */
static int allocate_packed(struct qcow2 *q, uint32_t size, uint64_t *out_offset)
{
    uint64_t end = q->packed_end, room = end ? align_up(end, q->cluster_bytes) - end : 0;
    uint64_t cluster, count;
    int result = 0;

    if (size > room) {
        result = qcow2_allocate(q, 1, &cluster, &count);
        if (result)
            return result;
        if (cluster + q->cluster_bytes > q->file_end)
            q->file_end = cluster + q->cluster_bytes;
        if (!room || cluster != end + room) {
            *out_offset = cluster;
            return 0;
        }
    }
    *out_offset = end;
    return qcow2_refcount_add(q, end >> q->cluster_bits, 1, 1);
}

static uint64_t packed_entry(const struct qcow2 *q, uint64_t offset, uint32_t size)
{
    unsigned bits = 62 - (q->cluster_bits - 8);
    uint64_t sectors = (offset + size - 1) / 512 - offset / 512;

    return QCOW2_COMPRESSED | sectors << bits | offset;
}

/* Up to the end of its last sector, which the next one may begin in. Lock held. */
static int write_packed(struct qcow2 *q, uint64_t offset, uint8_t *packed, uint32_t size)
{
    uint64_t at, padded;
    struct qcow2_table *table;
    int result = allocate_packed(q, size, &at);

    if (result)
        return result;
    padded = align_up(at + size, 512) - at;
    memset(packed + size, 0, padded - size);
    result = block_node_write(q->file, at, packed, padded);
    if (!result)
        result = qcow2_table_for_change(q, offset, &table);
    if (result)
        return result; /* the room leaks */
    put_be64(table->bytes + qcow2_l2_at(q, offset), packed_entry(q, at, size));
    qcow2_table_changed(table, qcow2_l2_at(q, offset), 8);
    q->packed_end = (at + size) & (q->cluster_bytes - 1) ? at + size : 0;
    return 0;
}

int qcow2_write_compressed(struct block_node *node, uint64_t offset, const uint8_t *cluster)
{
    struct qcow2 *q = qcow2_of(node);
    uint8_t *packed = malloc(q->cluster_bytes + 512);
    size_t size;
    int result;

    if (!packed)
        return -ENOMEM;
    size = qcow2_pack(q, cluster, packed, q->cluster_bytes - 1);
    if (!size) {
        free(packed);
        return 1;
    }
    pthread_mutex_lock(&q->lock);
    result = write_packed(q, offset, packed, (uint32_t)size);
    pthread_mutex_unlock(&q->lock);
    free(packed);
    return result;
}

/* ---- sizes ---- */

/* A longer L1 table elsewhere; the old one is given back. Lock held. */
static int grow_l1(struct qcow2 *q, uint32_t size)
{
    uint64_t old_at = q->l1_offset >> q->cluster_bits, offset;
    uint64_t old = qcow2_clusters(q, q->l1_size * 8ull), clusters = qcow2_clusters(q, size * 8ull);
    struct qcow2_table **of_index = calloc(size, sizeof(struct qcow2_table *));
    uint64_t *l1 = calloc(size, sizeof(*l1));
    uint8_t *bytes = calloc(clusters, q->cluster_bytes), header[12];
    int result = of_index && l1 && bytes ? 0 : -ENOMEM;

    if (!result)
        result = qcow2_allocate_table(q, clusters, &offset);
    if (!result)
        result = qcow2_sync(q); /* the old table, and the new one's counts */
    for (uint32_t n = 0; n < q->l1_size && !result; n++) {
        l1[n] = q->l1[n];
        put_be64(bytes + n * 8, l1[n]);
        of_index[n] = q->l2.of_index[n];
    }
    if (!result)
        result = block_node_write(q->file, offset, bytes, clusters * q->cluster_bytes);
    if (!result)
        result = qcow2_barrier(q);
    if (!result) {
        put_be32(header, size);
        put_be64(header + 4, offset);
        result = qcow2_write_header(q, QCOW2_AT_L1_SIZE, header, sizeof(header));
    }
    if (!result)
        result = qcow2_barrier(q);
    free(bytes);
    if (result) {
        free(of_index);
        free(l1);
        return result;
    }
    free(q->l2.of_index);
    free(q->l1);
    q->l2.of_index = of_index;
    q->l1 = l1;
    q->l1_size = size;
    q->l1_offset = offset;
    return old ? qcow2_refcount_add(q, old_at, old, -1) : 0;
}

static int clear(struct qcow2 *q, uint64_t offset, uint64_t end)
{
    return offset < end ? block_node_clear(&q->node, BLOCK_ZERO, offset, end - offset) : 0;
}

static int grow(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t per_l2 = (uint64_t)q->cluster_bytes << q->l2_bits, old = q->node.size_bytes, end;
    uint64_t l1_size = size_bytes / per_l2 + (size_bytes % per_l2 != 0);
    int result = 0;

    if (l1_size * 8 > QCOW2_MAX_L1_BYTES)
        return -EFBIG;
    pthread_mutex_lock(&q->lock);
    if (l1_size > q->l1_size)
        result = grow_l1(q, (uint32_t)l1_size);
    pthread_mutex_unlock(&q->lock);
    end = q->backing && q->backing->size_bytes < size_bytes ? q->backing->size_bytes : size_bytes;
    return result || !q->backing ? result : clear(q, old, end); /* it must not show through */
}

/* Nothing may be left behind the end, as it would show when the disk grows again. */
static int shrink(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t old = q->node.size_bytes, first = align_up(size_bytes, q->cluster_bytes);
    int result = clear(q, size_bytes, first < old ? first : old);

    if (!result && first < old)
        result = qcow2_forget(q, first, align_up(old, q->cluster_bytes));
    return result ? result : qcow2_flush(q);
}

int qcow2_resize(struct block_node *node, uint64_t size_bytes, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    uint8_t size[8];
    int result;

    if (!size_bytes || size_bytes % BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "a disk has whole sectors of 512 bytes, and one at least");
    if (q->info.snapshots && size_bytes < node->size_bytes)
        return error_set(err, ENOTSUP, "it has snapshots, and so cannot become smaller");
    result = size_bytes < node->size_bytes ? shrink(q, size_bytes) : grow(q, size_bytes);
    if (!result)
        result = qcow2_flush(q);
    put_be64(size, size_bytes);
    if (!result)
        result = qcow2_write_header(q, QCOW2_AT_SIZE, size, sizeof(size));
    if (!result)
        result = block_node_flush(q->file);
    if (result)
        return error_set(err, -result, "cannot change its size: %s", strerror(-result));
    node->size_bytes = size_bytes;
    return 0;
}

int qcow2_make_empty(struct block_node *node)
{
    struct qcow2 *q = qcow2_of(node);
    int result = qcow2_forget(q, 0, align_up(node->size_bytes, q->cluster_bytes));

    return result ? result : qcow2_flush(q);
}

/* ---- backing files ---- */

/* Extensions but the backing file's format, from the old first cluster to the new. */
static uint32_t copy_extensions(const struct qcow2 *q, const uint8_t *old, uint8_t *new,
                                uint32_t room)
{
    uint64_t at = q->header_bytes, name = get_be64(old + QCOW2_AT_BACKING_OFFSET);
    uint64_t end = name && name < q->cluster_bytes ? name : q->cluster_bytes;
    uint32_t to = q->header_bytes;

    while (at + 8 <= end && get_be32(old + at)) {
        uint64_t size = 8 + align_up(get_be32(old + at + 4), 8);

        if (size > end - at || to + size > room)
            break;
        if (get_be32(old + at) != EXTENSION_BACKING_FORMAT) {
            memcpy(new + to, old + at, size);
            to += (uint32_t)size;
        }
        at += size;
    }
    return to;
}

int qcow2_put_backing(uint8_t *header, size_t room, uint32_t at, const char *backing,
                      const char *format, struct error *err)
{
    size_t size = backing ? strlen(backing) : 0, format_size = format ? strlen(format) : 0;

    if (size >= BLOCK_NAME_BYTES || format_size >= 16 ||
        at + 16 + align_up(format_size, 8) + size > room)
        return error_set(err, ENAMETOOLONG, "the name of the backing file is too long");
    put_be64(header + QCOW2_AT_BACKING_OFFSET, 0);
    put_be32(header + QCOW2_AT_BACKING_SIZE, (uint32_t)size);
    if (format_size && size) {
        put_be32(header + at, EXTENSION_BACKING_FORMAT);
        put_be32(header + at + 4, (uint32_t)format_size);
        memcpy(header + at + 8, format, format_size);
        at += 8 + (uint32_t)align_up(format_size, 8);
    }
    at += 8; /* an empty extension is the last */
    if (size) {
        put_be64(header + QCOW2_AT_BACKING_OFFSET, at);
        memcpy(header + at, backing, size);
    }
    return 0;
}

static int replace_backing(struct qcow2 *q, uint8_t *old, uint8_t *new, const char *backing,
                           const char *format, struct error *err)
{
    uint32_t at;
    int result = block_node_read(q->file, 0, old, q->cluster_bytes);

    if (result)
        return error_set(err, -result, "cannot read its header: %s", strerror(-result));
    memcpy(new, old, q->header_bytes);
    at = copy_extensions(q, old, new, q->cluster_bytes - 32);
    if (qcow2_put_backing(new, q->cluster_bytes, at, backing, format, err))
        return -ENAMETOOLONG;
    result = block_node_write(q->file, 0, new, q->cluster_bytes);
    if (!result)
        result = block_node_flush(q->file);
    return result ? error_set(err, -result, "cannot write its header: %s", strerror(-result)) : 0;
}

int qcow2_set_backing(struct block_node *node, const char *backing, const char *backing_format,
                      struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    uint8_t *buffers = calloc(2, q->cluster_bytes);
    int result = -ENOMEM;

    if (!buffers)
        return error_set(err, ENOMEM, "out of memory");
    if (qcow2_flush(q))
        error_set(err, EIO, "cannot write its tables");
    else
        result =
            replace_backing(q, buffers, buffers + q->cluster_bytes, backing, backing_format, err);
    free(buffers);
    return result;
}
