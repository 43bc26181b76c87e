/*
 * qcow2_check.c - do the refcounts of a qcow2 image agree with what it uses?
 *
 * Everything that leads somewhere is followed and counted. A repair writes new refcounts for the
 * whole file behind its end, from what was counted, and then switches to them; entries that cannot
 * be right are taken out, and the copied flags set as the counts say.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "backends/block/qcow2_io.h"
#include "base/bytes.h"

#define MAX_CLUSTERS   (1ull << 28) /* of a file: a GiB of counters */
#define SNAPSHOT_BYTES 40u
#define MAX_REPORTS    1000u

struct check {
    struct qcow2 *q;
    uint32_t *used; /* how often each cluster of the file is */
    uint64_t clusters;
    uint32_t beyond; /* how often the one behind the end of the file is: by entries that are cut */
    struct qcow2_set tables;    /* of the active image */
    struct qcow2_set l2_tables; /* those of them that snapshots may share */
    struct qcow2_check_result *result;
    bool repair, has_reftable;
    bool is_lost; /* there are errors that cannot be repaired */
    void (*report)(void *opaque, const char *text);
    void *opaque;
    unsigned reports;
};

static void found(struct check *c, uint64_t *counter, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void found(struct check *c, uint64_t *counter, const char *format, ...)
{
    char text[256];
    va_list args;

    ++*counter;
    if (c->reports++ >= MAX_REPORTS)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    c->report(c->opaque, text);
}

#define corrupt(c, ...) found(c, &(c)->result->corruptions, __VA_ARGS__)
#define leak(c, ...)    found(c, &(c)->result->leaks, __VA_ARGS__)

/* ---- counting ---- */

static bool use(struct check *c, uint64_t cluster, uint64_t count)
{
    if (!range_fits(cluster, count, c->clusters))
        return false;
    for (uint64_t n = 0; n < count; n++)
        if (c->used[cluster + n] != UINT32_MAX)
            c->used[cluster + n]++;
    return true;
}

/* A table of the active image; no other may overlap it. */
static bool use_table(struct check *c, const char *name, uint64_t offset, uint64_t bytes)
{
    const struct qcow2 *q = c->q;
    uint64_t first = offset >> q->cluster_bits, count = qcow2_clusters(q, bytes);

    if (offset & (q->cluster_bytes - 1) || !range_fits(first, count, c->clusters)) {
        corrupt(c, "the %s at 0x%llx is not within the file, or not at a cluster", name,
                (unsigned long long)offset);
        return false;
    }
    for (uint64_t n = 0; n < count; n++)
        if (qcow2_set_add(&c->tables, first + n)) {
            corrupt(c, "the %s at 0x%llx overlaps another table", name, (unsigned long long)offset);
            return false;
        }
    return use(c, first, count);
}

/* Where an entry leads to; its last sector, if it is compressed, may be cut. */
static void entry_clusters(const struct check *c, uint64_t entry, uint64_t *out_first,
                           uint64_t *out_count)
{
    qcow2_entry_clusters(c->q, entry, out_first, out_count);
    if (*out_count > 1 && *out_first + *out_count == c->clusters + 1)
        --*out_count;
}

static bool is_entry_right(const struct check *c, uint64_t entry)
{
    uint64_t first, count;

    entry_clusters(c, entry, &first, &count);
    if (!(entry & QCOW2_COMPRESSED) && entry & QCOW2_OFFSET_MASK & (c->q->cluster_bytes - 1))
        return false;
    if (count && !range_fits(first, count, c->clusters))
        return false;
    for (uint64_t n = 0; n < count; n++)
        if (qcow2_set_has(&c->tables, first + n))
            return false;
    return true;
}

static void count_entry(struct check *c, uint64_t entry)
{
    uint64_t first, count, whole;

    qcow2_entry_clusters(c->q, entry, &first, &whole);
    entry_clusters(c, entry, &first, &count);
    use(c, first, count);
    if (whole > count && c->beyond != UINT32_MAX)
        c->beyond++;
}

static int read_table(struct check *c, uint64_t offset, uint8_t *table, struct error *err)
{
    int result = block_node_read(c->q->file, offset, table, c->q->cluster_bytes);

    return result ? error_set(err, -result, "cannot read it: %s", strerror(-result)) : 0;
}

static int write_entry(struct check *c, uint64_t offset, uint64_t entry, struct error *err)
{
    uint8_t bytes[8];
    int result;

    put_be64(bytes, entry);
    result = block_node_write(c->q->file, offset, bytes, sizeof(bytes));
    return result ? error_set(err, -result, "cannot repair it: %s", strerror(-result)) : 0;
}

/* ---- the active image ---- */

static int check_l2(struct check *c, uint32_t index, uint8_t *table, struct error *err)
{
    const struct qcow2 *q = c->q;
    uint64_t offset = q->l1[index] & QCOW2_OFFSET_MASK;

    if (!offset)
        return 0;
    if (read_table(c, offset, table, err))
        return -EIO;
    for (uint32_t n = 0; n < q->l2_entries; n++) {
        uint64_t entry = get_be64(table + n * 8);

        if (!is_entry_right(c, entry)) {
            corrupt(c, "entry %u of the L2 table at 0x%llx leads to 0x%llx, where data cannot be",
                    n, (unsigned long long)offset, (unsigned long long)(entry & QCOW2_OFFSET_MASK));
            if (!c->repair)
                continue;
            if (write_entry(c, offset + n * 8, q->info.version >= 3 ? QCOW2_ZERO : 0, err))
                return -EIO;
            c->result->corruptions_fixed++;
            continue;
        }
        count_entry(c, entry);
        if (entry & QCOW2_COMPRESSED)
            c->result->compressed++;
        if (entry & (QCOW2_COMPRESSED | QCOW2_OFFSET_MASK))
            c->result->allocated++;
    }
    return 0;
}

static int check_active(struct check *c, uint8_t *table, struct error *err)
{
    struct qcow2 *q = c->q;

    use_table(c, "header", 0, q->cluster_bytes);
    if (!use_table(c, "L1 table", q->l1_offset, q->l1_size * 8ull))
        c->is_lost = true;
    for (uint32_t n = 0; n < q->l1_size; n++) {
        uint64_t offset = q->l1[n] & QCOW2_OFFSET_MASK;

        if (!offset)
            continue;
        if (use_table(c, "L2 table", offset, q->cluster_bytes)) {
            qcow2_set_add(&c->l2_tables, offset >> q->cluster_bits);
            continue;
        }
        q->l1[n] = 0;
        if (!c->repair)
            continue;
        if (write_entry(c, q->l1_offset + n * 8ull, 0, err))
            return -EIO;
        c->result->corruptions_fixed++;
    }
    for (uint32_t n = 0; n < q->l1_size; n++)
        if (check_l2(c, n, table, err))
            return -EIO;
    return 0;
}

/* ---- snapshots in the image ---- */

/* A table of a snapshot alone: whoever writes to one of the active image would change it. */
static bool use_snapshot_table(struct check *c, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> c->q->cluster_bits, count = qcow2_clusters(c->q, bytes);

    if (!use(c, first, count))
        return false;
    for (uint64_t n = 0; n < count; n++)
        if (qcow2_set_has(&c->tables, first + n))
            return false;
    return true;
}

/* An L2 table, which may be the active image's too, but none of its other tables. */
static bool use_snapshot_l2(struct check *c, uint64_t offset)
{
    uint64_t cluster = offset >> c->q->cluster_bits;

    return !(offset & (c->q->cluster_bytes - 1)) && use(c, cluster, 1) &&
           (!qcow2_set_has(&c->tables, cluster) || qcow2_set_has(&c->l2_tables, cluster));
}

static void check_snapshot_entry(struct check *c, uint64_t entry)
{
    if (is_entry_right(c, entry)) {
        count_entry(c, entry);
        return;
    }
    corrupt(c, "data of a snapshot is at 0x%llx, where it cannot be",
            (unsigned long long)(entry & QCOW2_OFFSET_MASK));
    c->is_lost = true;
}

static int check_snapshot_l1(struct check *c, uint64_t offset, uint32_t size, uint8_t *table,
                             struct error *err)
{
    const struct qcow2 *q = c->q;

    if (size > QCOW2_MAX_L1_BYTES / 8 || offset & (q->cluster_bytes - 1) ||
        !use_snapshot_table(c, offset, size * 8ull)) {
        corrupt(c, "the L1 table of a snapshot is at 0x%llx", (unsigned long long)offset);
        c->is_lost = true;
        return 0;
    }
    for (uint32_t n = 0; n < size; n++) {
        uint8_t bytes[8];
        uint64_t l2;

        if (block_node_read(q->file, offset + n * 8ull, bytes, sizeof(bytes)))
            return error_set(err, EIO, "cannot read it");
        l2 = get_be64(bytes) & QCOW2_OFFSET_MASK;
        if (!l2)
            continue;
        if (!use_snapshot_l2(c, l2)) {
            corrupt(c, "an L2 table of a snapshot is at 0x%llx", (unsigned long long)l2);
            c->is_lost = true;
            continue;
        }
        if (read_table(c, l2, table, err))
            return -EIO;
        for (uint32_t m = 0; m < q->l2_entries; m++)
            check_snapshot_entry(c, get_be64(table + m * 8));
    }
    return 0;
}

static int check_snapshots(struct check *c, uint8_t *table, struct error *err)
{
    const struct qcow2 *q = c->q;
    uint64_t at = q->snapshots_offset;

    for (uint32_t n = 0; n < q->info.snapshots; n++) {
        uint8_t head[SNAPSHOT_BYTES];

        at = align_up(at, 8);
        if (at >> 62 || block_node_read(q->file, at, head, sizeof(head)))
            return error_set(err, EIO, "cannot read its snapshots");
        if (check_snapshot_l1(c, get_be64(head), get_be32(head + 8), table, err))
            return -EIO;
        at += SNAPSHOT_BYTES + get_be32(head + 36) + get_be16(head + 12) + get_be16(head + 14);
    }
    if (q->info.snapshots &&
        !use_snapshot_table(c, q->snapshots_offset, at - q->snapshots_offset)) {
        corrupt(c, "the table of snapshots is at 0x%llx", (unsigned long long)q->snapshots_offset);
        c->is_lost = true;
    }
    return 0;
}

/* ---- refcounts ---- */

static void check_refcount_tables(struct check *c)
{
    struct qcow2 *q = c->q;

    c->has_reftable = use_table(c, "refcount table", q->reftable_offset, q->reftable_size * 8ull);
    for (uint32_t n = 0; n < q->reftable_size; n++)
        if (q->reftable[n] && !use_table(c, "refcount block", q->reftable[n], q->cluster_bytes))
            q->reftable[n] = 0;
}

static int compare_counts(struct check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    uint64_t end = (uint64_t)q->reftable_size << q->block_bits;

    for (uint64_t cluster = 0; cluster < c->clusters || cluster < end; cluster++) {
        uint64_t used = cluster < c->clusters ? c->used[cluster] : 0, count;
        uint64_t index = cluster >> q->block_bits;

        if (!used && (index >= q->reftable_size || !q->reftable[index])) {
            if (cluster >= c->clusters) /* a range without a block */
                cluster |= (1ull << q->block_bits) - 1;
            continue;
        }
        if (qcow2_refcount_get(q, cluster, &count))
            return error_set(err, EIO, "cannot read its refcounts");
        if (count < used)
            corrupt(c, "cluster %llu is counted %llu times and used %llu times",
                    (unsigned long long)cluster, (unsigned long long)count,
                    (unsigned long long)used);
        else if (count > used)
            leak(c, "cluster %llu is counted %llu times and used %llu times",
                 (unsigned long long)cluster, (unsigned long long)count, (unsigned long long)used);
        if (used || count)
            c->result->image_end = (cluster + 1) << q->cluster_bits;
    }
    return 0;
}

/* The entry as its copied flag should be: by what is counted, or after a repair what is used. */
static int right_entry(struct check *c, uint64_t entry, uint64_t *out_entry)
{
    uint64_t first, clusters, count;
    int result = 0;

    *out_entry = entry;
    qcow2_entry_clusters(c->q, entry, &first, &clusters);
    if (!clusters || entry & QCOW2_COMPRESSED || first >= c->clusters)
        return 0;
    if (c->repair)
        count = c->used[first];
    else
        result = qcow2_refcount_get(c->q, first, &count);
    if (!result)
        *out_entry = count == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
    return result;
}

static int check_flag(struct check *c, uint64_t at, uint64_t entry, struct error *err)
{
    uint64_t right;

    if (right_entry(c, entry, &right))
        return error_set(err, EIO, "cannot read its refcounts");
    if (right == entry)
        return 0;
    corrupt(c, "the entry at 0x%llx says that its cluster is used %s, and it is not",
            (unsigned long long)at, entry & QCOW2_COPIED ? "once" : "more than once");
    if (!c->repair)
        return 0;
    c->result->corruptions_fixed++;
    return write_entry(c, at, right, err);
}

static int check_flags(struct check *c, uint8_t *table, struct error *err)
{
    const struct qcow2 *q = c->q;

    for (uint32_t n = 0; n < q->l1_size; n++) {
        uint64_t offset = q->l1[n] & QCOW2_OFFSET_MASK;

        if (!offset)
            continue;
        if (check_flag(c, q->l1_offset + n * 8ull, q->l1[n], err) ||
            read_table(c, offset, table, err))
            return -EIO;
        for (uint32_t m = 0; m < q->l2_entries; m++)
            if (check_flag(c, offset + m * 8, get_be64(table + m * 8), err))
                return -EIO;
    }
    return 0;
}

/* ---- new refcounts ---- */

struct new_counts {
    uint64_t blocks, table_clusters, first; /* blocks, then the table, from first on */
};

static void plan(const struct check *c, struct new_counts *new)
{
    uint64_t per_table = c->q->cluster_bytes / 8, end;

    *new = (struct new_counts){
        .blocks = 1, .table_clusters = 1, .first = c->clusters + (c->beyond ? 1 : 0)};
    for (;;) {
        end = new->first + new->blocks + new->table_clusters;
        if (new->blocks << c->q->block_bits < end)
            new->blocks++;
        else if (new->table_clusters * per_table < new->blocks)
            new->table_clusters++;
        else
            return;
    }
}

static void put_count(const struct qcow2 *q, uint8_t *block, uint32_t n, uint64_t count)
{
    unsigned order = q->refcount_order;

    if (order < 3)
        block[n >> (3 - order)] |= (uint8_t)(count << ((n << order) & 7));
    else if (order == 3)
        block[n] = (uint8_t)count;
    else if (order == 4)
        put_be16(block + n * 2, (uint16_t)count);
    else if (order == 5)
        put_be32(block + n * 4, (uint32_t)count);
    else
        put_be64(block + (size_t)n * 8, count);
}

static uint64_t new_count(const struct check *c, const struct new_counts *new, uint64_t cluster)
{
    uint64_t end = new->first + new->blocks + new->table_clusters;

    if (cluster < c->clusters)
        return c->used[cluster];
    return cluster < new->first ? c->beyond : cluster < end;
}

static int write_block(struct check *c, const struct new_counts *new, uint64_t n, uint8_t *block,
                       struct error *err)
{
    const struct qcow2 *q = c->q;
    uint64_t most = q->refcount_order > 4 ? UINT32_MAX : (1ull << (1u << q->refcount_order)) - 1;
    int result;

    memset(block, 0, q->cluster_bytes);
    for (uint32_t at = 0; at < 1u << q->block_bits; at++) {
        uint64_t count = new_count(c, new, (n << q->block_bits) + at);

        if (count > most)
            return error_set(err, EOVERFLOW,
                             "a cluster is used %llu times, which its refcounts "
                             "of %u bits cannot say",
                             (unsigned long long)count, q->info.refcount_bits);
        put_count(q, block, at, count);
    }
    result =
        block_node_write(q->file, (new->first + n) << q->cluster_bits, block, q->cluster_bytes);
    return result ? error_set(err, -result, "cannot repair it: %s", strerror(-result)) : 0;
}

static int write_table(struct check *c, const struct new_counts *new, struct error *err)
{
    struct qcow2 *q = c->q;
    size_t size = (size_t)(new->table_clusters * q->cluster_bytes);
    uint64_t at = (new->first + new->blocks) << q->cluster_bits;
    uint8_t *table = calloc(1, size), header[12];
    int result = table ? 0 : -ENOMEM;

    for (uint64_t n = 0; n < new->blocks && !result; n++)
        put_be64(table + n * 8, (new->first + n) << q->cluster_bits);
    if (!result)
        result = block_node_write(q->file, at, table, size);
    free(table);
    if (!result)
        result = block_node_flush(q->file);
    put_be64(header, at);
    put_be32(header + 8, (uint32_t) new->table_clusters);
    if (!result)
        result = qcow2_write_header(q, QCOW2_AT_REFTABLE_OFFSET, header, sizeof(header));
    if (!result)
        result = block_node_flush(q->file);
    return result ? error_set(err, -result, "cannot repair it: %s", strerror(-result)) : 0;
}

/* The blocks of before are not used any more; they were counted by themselves. */
static void forget_old_counts(struct check *c)
{
    struct qcow2 *q = c->q;
    uint64_t table = q->reftable_offset >> q->cluster_bits;

    for (uint64_t n = 0; c->has_reftable && n < qcow2_clusters(q, q->reftable_size * 8ull); n++)
        c->used[table + n]--;
    for (uint32_t n = 0; n < q->reftable_size; n++)
        if (q->reftable[n])
            c->used[q->reftable[n] >> q->cluster_bits]--;
}

static int write_counts(struct check *c, uint8_t *block, struct error *err)
{
    struct new_counts new;

    forget_old_counts(c);
    plan(c, &new);
    for (uint64_t n = 0; n < new.blocks; n++)
        if (write_block(c, &new, n, block, err))
            return -EIO;
    if (write_table(c, &new, err))
        return -EIO;
    for (uint64_t n = 0; n < c->clusters; n++)
        if (!c->used[n] && c->q->node.can_discard)
            block_node_clear(c->q->file, BLOCK_DISCARD, n << c->q->cluster_bits,
                             c->q->cluster_bytes);
    return 0;
}

static int clear_marks(struct check *c, struct error *err)
{
    struct qcow2 *q = c->q;
    uint8_t features[8];
    int result = 0;

    q->incompatible &= ~(QCOW2_DIRTY | QCOW2_CORRUPT);
    put_be64(features, q->incompatible);
    if (q->info.version >= 3)
        result = qcow2_write_header(q, QCOW2_AT_INCOMPATIBLE, features, sizeof(features));
    if (!result)
        result = block_node_flush(q->file);
    return result ? error_set(err, -result, "cannot repair it: %s", strerror(-result)) : 0;
}

/* ---- all of it ---- */

static int run_check(struct check *c, uint8_t *table, struct error *err)
{
    struct qcow2_check_result *result = c->result;
    uint64_t bad_counts;

    if (check_active(c, table, err))
        return -EIO;
    check_refcount_tables(c);
    if (check_snapshots(c, table, err))
        return -EIO;
    if (c->repair && c->is_lost)
        return error_set(err, ENOTSUP,
                         "its L1 table or its snapshots are damaged, which cannot be repaired");
    bad_counts = result->corruptions;
    if (compare_counts(c, err))
        return -EIO;
    bad_counts = result->corruptions - bad_counts;
    if (c->repair && (result->corruptions || result->leaks)) {
        if (write_counts(c, table, err))
            return -EIO;
        result->corruptions_fixed += bad_counts;
        result->leaks_fixed = result->leaks;
    }
    if (check_flags(c, table, err))
        return -EIO;
    if (!c->repair)
        return 0;
    return clear_marks(c, err);
}

int qcow2_check(struct block_node *node, bool repair,
                void (*report)(void *opaque, const char *text), void *opaque,
                struct qcow2_check_result *out_result, struct error *err)
{
    struct qcow2 *q = qcow2_of(node);
    struct check c = {
        .q = q, .repair = repair, .report = report, .opaque = opaque, .result = out_result};
    uint8_t *table = malloc(q->cluster_bytes);
    int result;

    *out_result = (struct qcow2_check_result){.clusters = qcow2_clusters(q, node->size_bytes)};
    c.clusters = qcow2_clusters(q, q->file_end);
    if (q->autoclear & 1)
        result = error_set(err, ENOTSUP, "it has bitmaps of QEMU, which are not checked");
    else if (c.clusters > MAX_CLUSTERS)
        result = error_set(err, EFBIG, "the file is too large to be checked");
    else if (!table || !(c.used = calloc(c.clusters + 1, sizeof(*c.used))))
        result = error_set(err, ENOMEM, "out of memory");
    else
        result = run_check(&c, table, err);
    if (repair)
        q->node.read_only = true; /* its tables in memory are out of date */
    free(c.used);
    free(c.tables.slots);
    free(c.l2_tables.slots);
    free(table);
    return result;
}
