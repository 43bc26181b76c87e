/*
 * qcow2_map.c - where each cluster of a qcow2 disk is, and who works on it
 */
#include <errno.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "base/bytes.h"

/* ---- claims ---- */

bool qcow2_is_claimed(const struct qcow2 *q, uint64_t start, uint64_t end, bool alone)
{
    for (const struct qcow2_claim *claim = q->claims; claim; claim = claim->next)
        if (start < claim->end && claim->start < end && (alone || claim->is_alone))
            return true;
    return false;
}

void qcow2_claim(struct qcow2 *q, struct qcow2_claim *claim)
{
    claim->next = q->claims;
    q->claims = claim;
}

void qcow2_unclaim(struct qcow2 *q, struct qcow2_claim *claim)
{
    struct qcow2_claim **at = &q->claims;

    while (*at != claim)
        at = &(*at)->next;
    *at = claim->next;
    pthread_cond_broadcast(&q->changed);
}

/* ---- mapping ---- */

static int classify(struct qcow2 *q, uint64_t entry, struct qcow2_mapping *m)
{
    uint64_t host = entry & QCOW2_OFFSET_MASK;

    m->entry = entry;
    m->host = 0;
    m->in_place = false;
    if (entry & QCOW2_COMPRESSED) {
        m->kind = QCOW2_PACKED;
        return 0;
    }
    if (entry & QCOW2_ZERO) {
        m->kind = QCOW2_ZEROS;
        return q->info.version >= 3
                   ? 0
                   : qcow2_found_corrupt(q, "a cluster of zeros in version 2, entry", entry);
    }
    m->kind = host ? QCOW2_DATA : QCOW2_NOTHING;
    m->host = host;
    m->in_place = host && entry & QCOW2_COPIED;
    if (host & (q->cluster_bytes - 1))
        return qcow2_found_corrupt(q, "data is not at a cluster", host);
    return 0;
}

static int get_l2(struct qcow2 *q, uint32_t index, bool cached, struct qcow2_table **out_table)
{
    uint64_t offset = q->l1[index] & QCOW2_OFFSET_MASK;

    *out_table = NULL;
    if (!offset)
        return 0;
    if (offset & (q->cluster_bytes - 1))
        return qcow2_found_corrupt(q, "an L2 table is not at a cluster", offset);
    if (cached && !q->l2.of_index[index])
        return -EAGAIN;
    return qcow2_table_get(q, &q->l2, index, offset, out_table);
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t size_bytes, bool cached,
              struct qcow2_mapping *m)
{
    uint64_t index = offset >> q->cluster_bits >> q->l2_bits;
    uint64_t in_cluster = offset & (q->cluster_bytes - 1), found;
    uint32_t at = qcow2_l2_at(q, offset), entries = q->l2_entries - at / 8;
    struct qcow2_table *table;
    int result;

    *m = (struct qcow2_mapping){.kind = QCOW2_NOTHING};
    result = get_l2(q, (uint32_t)index, cached, &table);
    if (result)
        return result;
    found = ((uint64_t)entries << q->cluster_bits) - in_cluster;
    if (table) {
        result = classify(q, get_be64(table->bytes + at), m);
        if (result)
            return result;
        found = q->cluster_bytes - in_cluster;
        for (uint32_t n = 1; n < entries && found < size_bytes && m->kind != QCOW2_PACKED; n++) {
            struct qcow2_mapping next;

            if (classify(q, get_be64(table->bytes + at + n * 8), &next))
                break; /* said when it is asked for */
            if (next.kind != m->kind || next.in_place != m->in_place ||
                (m->kind == QCOW2_DATA && next.host != m->host + (uint64_t)n * q->cluster_bytes))
                break;
            found += q->cluster_bytes;
        }
    }
    if (m->kind == QCOW2_DATA)
        m->host += in_cluster;
    m->size_bytes = found < size_bytes ? found : size_bytes;
    return 0;
}

/* ---- changes ---- */

static void set_l1(struct qcow2 *q, uint32_t index, uint64_t entry)
{
    q->l1[index] = entry;
    if (q->l1_dirty_from == q->l1_dirty_to) {
        q->l1_dirty_from = index;
        q->l1_dirty_to = index + 1;
    }
    if (index < q->l1_dirty_from)
        q->l1_dirty_from = index;
    if (index >= q->l1_dirty_to)
        q->l1_dirty_to = index + 1;
}

static int new_l2(struct qcow2 *q, uint32_t index, struct qcow2_table **out_table)
{
    uint64_t offset;
    int result = qcow2_allocate_table(q, 1, &offset);

    if (!result)
        result = qcow2_table_new(q, &q->l2, index, offset, out_table);
    if (!result)
        set_l1(q, index, offset | QCOW2_COPIED);
    return result;
}

/* The table is a snapshot's too: from now on this one is our own. */
static int own_l2(struct qcow2 *q, struct qcow2_table *table)
{
    uint64_t old = table->offset, offset;
    int result = qcow2_allocate_table(q, 1, &offset);

    if (result)
        return result;
    table->offset = offset;
    qcow2_table_changed(table, 0, q->cluster_bytes);
    set_l1(q, table->index, offset | QCOW2_COPIED);
    return qcow2_drop(q, old >> q->cluster_bits, 1, true);
}

int qcow2_table_for_change(struct qcow2 *q, uint64_t offset, struct qcow2_table **out_table)
{
    uint32_t index = (uint32_t)(offset >> q->cluster_bits >> q->l2_bits);
    int result;

    for (;;) {
        qcow2_wait_sync(q);
        if (q->is_corrupt)
            return -EIO;
        result = get_l2(q, index, false, out_table);
        if (!result && !*out_table)
            result = qcow2_make_room(q, &q->l2);
        if (result)
            return result;
        if (q->syncing || !*out_table != !(q->l1[index] & QCOW2_OFFSET_MASK))
            continue; /* the lock was free for a while */
        if (!*out_table)
            return new_l2(q, index, out_table);
        return q->l1[index] & QCOW2_COPIED ? 0 : own_l2(q, *out_table);
    }
}
