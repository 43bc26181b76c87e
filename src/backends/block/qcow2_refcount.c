/*
 * qcow2_refcount.c - how often each cluster of a qcow2 file is used, and where a free one is
 *
 * Refcount blocks are made where they are needed: in the first free cluster of the range that
 * they describe. The table of them moves to the end of the file when it is too small.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "base/bytes.h"

/* ---- one count in a block ---- */

static uint64_t get_count(const struct qcow2 *q, const uint8_t *block, uint32_t n)
{
    unsigned order = q->refcount_order, shift;

    switch (order) {
    case 3:
        return block[n];
    case 4:
        return get_be16(block + n * 2);
    case 5:
        return get_be32(block + n * 4);
    case 6:
        return get_be64(block + (size_t)n * 8);
    default: /* the first is in the low bits */
        shift = (n << order) & 7;
        return block[n >> (3 - order)] >> shift & ((1u << (1u << order)) - 1);
    }
}

static void put_count(const struct qcow2 *q, struct qcow2_table *table, uint32_t n, uint64_t count)
{
    unsigned order = q->refcount_order, shift;
    uint8_t *block = table->bytes, *byte, mask;

    switch (order) {
    case 3:
        block[n] = (uint8_t)count;
        break;
    case 4:
        put_be16(block + n * 2, (uint16_t)count);
        break;
    case 5:
        put_be32(block + n * 4, (uint32_t)count);
        break;
    case 6:
        put_be64(block + (size_t)n * 8, count);
        break;
    default:
        shift = (n << order) & 7;
        byte = block + (n >> (3 - order));
        mask = (uint8_t)(((1u << (1u << order)) - 1) << shift);
        *byte = (uint8_t)((*byte & ~mask) | count << shift);
    }
    qcow2_table_changed(table, (n << order) >> 3, 1);
}

/* ---- blocks ---- */

/* NULL: there is none, all its clusters are free. */
static int get_block(struct qcow2 *q, uint64_t cluster, struct qcow2_table **out_block)
{
    uint64_t index = cluster >> q->block_bits, offset;

    *out_block = NULL;
    if (index >= q->reftable_size || !q->reftable[index])
        return 0;
    offset = q->reftable[index];
    if (offset & (q->cluster_bytes - 1))
        return qcow2_found_corrupt(q, "a refcount block is not at a cluster", offset);
    return qcow2_table_get(q, &q->refs, (uint32_t)index, offset, out_block);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out_count)
{
    struct qcow2_table *block;
    int result = get_block(q, cluster, &block);

    *out_count = 0;
    if (!result && block)
        *out_count = get_count(q, block->bytes, cluster & ((1u << q->block_bits) - 1));
    return result;
}

static void used_up_to(struct qcow2 *q, uint64_t cluster)
{
    uint64_t end = (cluster + 1) << q->cluster_bits;

    if (end > q->file_end)
        q->file_end = end;
}

/* A free cluster becomes a table's. */
static int add_metadata(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    int result = 0;

    for (uint64_t n = 0; n < count && !result; n++)
        result = qcow2_set_add(&q->metadata, cluster + n);
    return result == -EEXIST
               ? qcow2_found_corrupt(q, "a table is counted as free", cluster << q->cluster_bits)
               : result;
}

static int write_reftable_entry(struct qcow2 *q, uint32_t index, uint64_t offset)
{
    uint8_t entry[8];

    put_be64(entry, offset);
    q->reftable[index] = offset;
    return block_node_write(q->file, q->reftable_offset + index * 8ull, entry, sizeof(entry));
}

/* The caller keeps the lock, so that nobody allocates meanwhile. */
static int barrier_locked(struct qcow2 *q)
{
    return q->is_temporary ? 0 : block_node_flush(q->file);
}

/* A block for the range of cluster, which is free and becomes that block. */
static int new_block(struct qcow2 *q, uint64_t cluster)
{
    uint32_t index = (uint32_t)(cluster >> q->block_bits);
    struct qcow2_table *block;
    int result = add_metadata(q, cluster, 1);

    if (!result)
        result = qcow2_make_room(q, &q->refs);
    if (!result)
        result = qcow2_table_new(q, &q->refs, index, cluster << q->cluster_bits, &block);
    if (result)
        return result;
    used_up_to(q, cluster);
    put_count(q, block, cluster & ((1u << q->block_bits) - 1), 1);
    result = block_node_write(q->file, block->offset, block->bytes, q->cluster_bytes);
    if (!result)
        result = barrier_locked(q);
    return result ? result : write_reftable_entry(q, index, block->offset);
}

/* ---- a larger table ---- */

static uint8_t *encode(const uint64_t *entries, uint64_t count)
{
    uint8_t *bytes = malloc(count * 8);

    for (uint64_t n = 0; bytes && n < count; n++)
        put_be64(bytes + n * 8, entries[n]);
    return bytes;
}

/* The new table and the blocks that count it are in memory and go to the file. */
static int write_new_table(struct qcow2 *q, uint64_t first, uint64_t blocks, uint64_t clusters)
{
    uint64_t at = (first + blocks) << q->cluster_bits;
    uint8_t *bytes = encode(q->reftable, q->reftable_size), header[12];
    int result =
        bytes ? block_node_write(q->file, at, bytes, (size_t)q->reftable_size * 8) : -ENOMEM;

    free(bytes);
    for (uint64_t n = 0; n < blocks && !result; n++) {
        struct qcow2_table *block;

        result =
            get_block(q, (first >> q->block_bits << q->block_bits) + (n << q->block_bits), &block);
        if (!result)
            result = block_node_write(q->file, block->offset, block->bytes, q->cluster_bytes);
    }
    if (!result)
        result = barrier_locked(q);
    if (result)
        return result;
    put_be64(header, at);
    put_be32(header + 8, (uint32_t)clusters);
    result = qcow2_write_header(q, QCOW2_AT_REFTABLE_OFFSET, header, sizeof(header));
    return result ? result : barrier_locked(q);
}

/*
 * The table's range is full. The new one is put behind that range, after blocks that count both.
 */
static int grow_table(struct qcow2 *q)
{
    uint64_t per_cluster = q->cluster_bytes / 8,
             first = (uint64_t)q->reftable_size << q->block_bits;
    uint64_t old_at = q->reftable_offset >> q->cluster_bits, old = q->reftable_size / per_cluster;
    uint64_t clusters = old + old / 2 + 1, blocks = 1;
    uint64_t *table, *old_table = q->reftable;
    struct qcow2_table **of_index;
    int result = 0;

    while ((blocks << q->block_bits) < blocks + clusters)
        blocks++;
    if (clusters * q->cluster_bytes > QCOW2_MAX_REFTABLE_BYTES)
        return -EFBIG;
    table = calloc(clusters * per_cluster, sizeof(*table));
    of_index = calloc(clusters * per_cluster, sizeof(struct qcow2_table *));
    if (!table || !of_index) {
        free(table);
        free(of_index);
        return -ENOMEM;
    }
    memcpy(table, q->reftable, q->reftable_size * sizeof(*table));
    memcpy(of_index, q->refs.of_index, q->reftable_size * sizeof(struct qcow2_table *));
    free(q->refs.of_index);
    q->refs.of_index = of_index;
    q->reftable = table;
    q->reftable_size = (uint32_t)(clusters * per_cluster);
    used_up_to(q, first + blocks + clusters - 1);
    result = add_metadata(q, first, blocks + clusters);
    for (uint64_t n = 0; n < blocks && !result; n++) {
        struct qcow2_table *block;

        q->reftable[(first >> q->block_bits) + n] = (first + n) << q->cluster_bits;
        result = qcow2_make_room(q, &q->refs);
        if (!result)
            result = qcow2_table_new(q, &q->refs, (uint32_t)((first >> q->block_bits) + n),
                                     (first + n) << q->cluster_bits, &block);
    }
    if (!result)
        result = qcow2_refcount_add(q, first, blocks + clusters, 1);
    if (!result)
        result = write_new_table(q, first, blocks, clusters);
    free(old_table);
    if (result) { /* the table in memory is ahead of the file's: no more of it */
        q->is_corrupt = true;
        return result;
    }
    q->reftable_offset = (first + blocks) << q->cluster_bits;
    for (uint64_t n = 0; n < old; n++)
        qcow2_set_remove(&q->metadata, old_at + n);
    return qcow2_refcount_add(q, old_at, old, -1);
}

/* ---- counting ---- */

/* Clusters that are free now: holes, if the file can have them. */
static void give_room_back(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    if (q->node.can_discard && count)
        block_node_clear(q->file, BLOCK_DISCARD, cluster << q->cluster_bits,
                         count << q->cluster_bits);
}

static void became_free(struct qcow2 *q, uint64_t cluster)
{
    qcow2_set_remove(&q->metadata, cluster);
    if (cluster < q->first_free)
        q->first_free = cluster;
    if (q->packed_end >> q->cluster_bits == cluster)
        q->packed_end = 0;
}

int qcow2_refcount_add(struct qcow2 *q, uint64_t cluster, uint64_t count, int change)
{
    uint64_t most = q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << q->refcount_order)) - 1;
    uint64_t free_from = 0, free_count = 0;
    int result = 0;

    for (; count && !result; cluster++, count--) {
        uint32_t n = cluster & ((1u << q->block_bits) - 1);
        struct qcow2_table *block;
        uint64_t now;

        result = get_block(q, cluster, &block);
        if (result)
            break;
        now = block ? get_count(q, block->bytes, n) : 0;
        if (!block || (change < 0 ? now == 0 : now == most)) {
            result = change > 0 && block
                         ? -EOVERFLOW
                         : qcow2_found_corrupt(q, "a cluster in use is counted as free",
                                               cluster << q->cluster_bits);
            break;
        }
        put_count(q, block, n, change < 0 ? now - 1 : now + 1);
        if (change > 0 || now > 1)
            continue;
        became_free(q, cluster);
        if (free_from + free_count != cluster) {
            give_room_back(q, free_from, free_count);
            free_from = cluster;
            free_count = 0;
        }
        free_count++;
    }
    give_room_back(q, free_from, free_count);
    return result;
}

/* Is cluster free? A block for it is made if there is none, which may use it up. */
static int look_at(struct qcow2 *q, uint64_t cluster, bool *out_free)
{
    uint64_t index = cluster >> q->block_bits, count;
    int result;

    if (cluster >> (56 - q->cluster_bits))
        return -EFBIG;
    if (index >= q->reftable_size)
        result = grow_table(q);
    else
        result = q->reftable[index] ? 0 : new_block(q, cluster);
    if (!result)
        result = qcow2_refcount_get(q, cluster, &count);
    *out_free = !result && count == 0;
    return result;
}

int qcow2_allocate(struct qcow2 *q, uint64_t count, uint64_t *out_offset, uint64_t *out_count)
{
    uint64_t cluster = q->first_free, found = 0;
    bool is_free = false;
    int result = 0;

    if (q->is_corrupt)
        return -EIO;
    for (; !result && !is_free; cluster += !is_free)
        result = look_at(q, cluster, &is_free);
    while (!result && is_free && found < count) {
        if (qcow2_set_has(&q->metadata, cluster + found))
            return qcow2_found_corrupt(q, "a table is counted as free",
                                       (cluster + found) << q->cluster_bits);
        found++;
        if (found < count)
            result = look_at(q, cluster + found, &is_free);
    }
    if (result)
        return result;
    result = qcow2_refcount_add(q, cluster, found, 1);
    if (result)
        return result;
    q->first_free = cluster + found;
    *out_offset = cluster << q->cluster_bits;
    *out_count = found;
    return 0;
}

int qcow2_allocate_table(struct qcow2 *q, uint64_t count, uint64_t *out_offset)
{
    uint64_t found = 0, first_free = 0;
    int result;

    for (unsigned tries = 0;; tries++) {
        result = qcow2_allocate(q, count, out_offset, &found);
        if (result)
            return result;
        if (tries == 0)
            first_free = *out_offset >> q->cluster_bits;
        if (found == count)
            break;
        /* Too little in a row here: look further on. */
        result = qcow2_refcount_add(q, *out_offset >> q->cluster_bits, found, -1);
        if (result)
            return result;
        q->first_free = (*out_offset >> q->cluster_bits) + found;
    }
    if (first_free < *out_offset >> q->cluster_bits)
        q->first_free = first_free;
    used_up_to(q, (*out_offset >> q->cluster_bits) + count - 1);
    return add_metadata(q, *out_offset >> q->cluster_bits, count);
}

int qcow2_drop(struct qcow2 *q, uint64_t cluster, uint64_t count, bool is_table)
{
    if (q->dropped_count + count > q->dropped_max) {
        size_t max = (q->dropped_max + count) * 2;
        uint64_t *dropped = realloc(q->dropped, max * sizeof(*dropped));

        if (!dropped)
            return -ENOMEM; /* they leak */
        q->dropped = dropped;
        q->dropped_max = max;
    }
    for (uint64_t n = 0; n < count; n++)
        q->dropped[q->dropped_count++] = (cluster + n) | (is_table ? QCOW2_DROPPED_TABLE : 0);
    return 0;
}

void qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *out_first,
                          uint64_t *out_count)
{
    *out_first = 0;
    *out_count = 0;
    if (entry & QCOW2_COMPRESSED) {
        unsigned bits = 62 - (q->cluster_bits - 8);
        uint64_t offset = entry & ((1ull << bits) - 1);
        uint64_t sectors = (entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> bits;
        uint64_t last = (offset & ~511ull) + (sectors + 1) * 512 - 1;

        *out_first = offset >> q->cluster_bits;
        *out_count = (last >> q->cluster_bits) - *out_first + 1;
    } else if (entry & QCOW2_OFFSET_MASK) {
        *out_first = (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits;
        *out_count = 1;
    }
}
