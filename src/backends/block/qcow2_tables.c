/*
 * qcow2_tables.c - tables of a qcow2 image in memory, and the order in which they are written
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "base/bytes.h"

#define SECTOR 512u

/* ---- sets of clusters: open addressing ---- */

static size_t set_slot(const struct qcow2_set *set, uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15ull) >> 20) & (set->size - 1);
}

bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster)
{
    if (!set->count)
        return false;
    for (size_t n = set_slot(set, cluster + 1); set->slots[n]; n = (n + 1) & (set->size - 1))
        if (set->slots[n] == cluster + 1)
            return true;
    return false;
}

static void set_put(struct qcow2_set *set, uint64_t key)
{
    size_t n = set_slot(set, key);

    while (set->slots[n])
        n = (n + 1) & (set->size - 1);
    set->slots[n] = key;
    set->count++;
}

static int set_grow(struct qcow2_set *set)
{
    struct qcow2_set larger = {.size = set->size ? set->size * 2 : 64};

    larger.slots = calloc(larger.size, sizeof(*larger.slots));
    if (!larger.slots)
        return -ENOMEM;
    for (size_t n = 0; n < set->size; n++)
        if (set->slots[n])
            set_put(&larger, set->slots[n]);
    free(set->slots);
    *set = larger;
    return 0;
}

int qcow2_set_add(struct qcow2_set *set, uint64_t cluster)
{
    if (qcow2_set_has(set, cluster))
        return -EEXIST;
    if (set->count * 2 >= set->size && set_grow(set))
        return -ENOMEM;
    set_put(set, cluster + 1);
    return 0;
}

/* What follows in the same run of slots moves up, as it may belong further to the front. */
void qcow2_set_remove(struct qcow2_set *set, uint64_t cluster)
{
    size_t n;

    if (!qcow2_set_has(set, cluster))
        return;
    n = set_slot(set, cluster + 1);
    while (set->slots[n] != cluster + 1)
        n = (n + 1) & (set->size - 1);
    set->slots[n] = 0;
    set->count--;
    for (n = (n + 1) & (set->size - 1); set->slots[n]; n = (n + 1) & (set->size - 1)) {
        uint64_t key = set->slots[n];

        set->slots[n] = 0;
        set->count--;
        set_put(set, key);
    }
}

/* ---- caches ---- */

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t count, uint64_t max_bytes,
                     uint32_t table_bytes)
{
    uint64_t max = max_bytes / table_bytes;

    *cache = (struct qcow2_cache){.max = (uint32_t)(max < 4 ? 4 : max)};
    cache->of_index = calloc(count ? count : 1, sizeof(struct qcow2_table *));
    cache->tables = calloc(cache->max, sizeof(struct qcow2_table *));
    return cache->of_index && cache->tables ? 0 : -ENOMEM;
}

void qcow2_cache_done(struct qcow2_cache *cache)
{
    for (uint32_t n = 0; n < cache->count; n++)
        free(cache->tables[n]);
    free(cache->tables);
    free(cache->of_index);
    *cache = (struct qcow2_cache){0};
}

void qcow2_table_changed(struct qcow2_table *table, uint32_t offset, uint32_t size_bytes)
{
    uint32_t from = offset & ~(SECTOR - 1), to = (offset + size_bytes + SECTOR - 1) & ~(SECTOR - 1);

    if (table->dirty_from == table->dirty_to) {
        table->dirty_from = from;
        table->dirty_to = to;
        return;
    }
    if (from < table->dirty_from)
        table->dirty_from = from;
    if (to > table->dirty_to)
        table->dirty_to = to;
}

static int write_table(struct qcow2 *q, struct qcow2_table *table)
{
    uint32_t from = table->dirty_from, size = table->dirty_to - from;
    int result = block_node_write(q->file, table->offset + from, table->bytes + from, size);

    if (!result)
        table->dirty_from = table->dirty_to = 0;
    return result;
}

static int write_tables(struct qcow2 *q, struct qcow2_cache *cache)
{
    int result = 0;

    for (uint32_t n = 0; n < cache->count && !result; n++)
        if (cache->tables[n]->dirty_from != cache->tables[n]->dirty_to)
            result = write_table(q, cache->tables[n]);
    return result;
}

static bool is_dirty(const struct qcow2_cache *cache)
{
    for (uint32_t n = 0; n < cache->count; n++)
        if (cache->tables[n]->dirty_from != cache->tables[n]->dirty_to)
            return true;
    return false;
}

/* The next table that was not used lately; one that need not be written, if there is any. */
static uint32_t choose_victim(struct qcow2_cache *cache)
{
    for (uint32_t n = 0; n < 2 * cache->count; n++) {
        struct qcow2_table *table = cache->tables[cache->hand];
        uint32_t at = cache->hand;

        cache->hand = (cache->hand + 1) % cache->count;
        if (!table->was_used && table->dirty_from == table->dirty_to)
            return at;
        table->was_used = false;
    }
    return cache->hand;
}

/* Refcount blocks may be written at any time; L2 tables only in a synchronisation. */
static int clean_victim(struct qcow2 *q, struct qcow2_cache *cache, uint32_t at)
{
    if (cache == &q->refs)
        return write_table(q, cache->tables[at]);
    if (!q->syncing)
        return qcow2_sync(q);
    qcow2_wait_sync(q);
    return 0;
}

int qcow2_make_room(struct qcow2 *q, struct qcow2_cache *cache)
{
    while (cache->count == cache->max) {
        uint32_t at = choose_victim(cache);
        struct qcow2_table *table = cache->tables[at];
        int result;

        if (table->dirty_from != table->dirty_to) {
            result = clean_victim(q, cache, at);
            if (result)
                return result;
            continue; /* others may have had the lock */
        }
        cache->of_index[table->index] = NULL;
        free(table);
        cache->tables[at] = cache->tables[--cache->count];
        cache->hand = 0;
    }
    return 0;
}

static struct qcow2_table *add_table(struct qcow2 *q, struct qcow2_cache *cache, uint32_t index,
                                     uint64_t offset)
{
    struct qcow2_table *table = calloc(1, sizeof(*table) + q->cluster_bytes);

    if (!table)
        return NULL;
    table->index = index;
    table->offset = offset;
    table->was_used = true;
    cache->of_index[index] = table;
    cache->tables[cache->count++] = table;
    return table;
}

int qcow2_table_get(struct qcow2 *q, struct qcow2_cache *cache, uint32_t index, uint64_t offset,
                    struct qcow2_table **out_table)
{
    struct qcow2_table *table = cache->of_index[index];
    int result = 0;

    if (!table) {
        result = qcow2_make_room(q, cache);
        table = cache->of_index[index]; /* somebody else was faster */
    }
    if (!table && !result) {
        table = add_table(q, cache, index, offset);
        result = table ? block_node_read(q->file, offset, table->bytes, q->cluster_bytes) : -ENOMEM;
        if (result && table) {
            cache->of_index[index] = NULL;
            free(cache->tables[--cache->count]);
        }
    }
    if (result)
        return result;
    table->was_used = true;
    *out_table = table;
    return 0;
}

int qcow2_table_new(struct qcow2 *q, struct qcow2_cache *cache, uint32_t index, uint64_t offset,
                    struct qcow2_table **out_table)
{
    struct qcow2_table *table = add_table(q, cache, index, offset);

    if (!table)
        return -ENOMEM;
    qcow2_table_changed(table, 0, q->cluster_bytes);
    *out_table = table;
    return 0;
}

/* ---- synchronisation ---- */

int qcow2_barrier(struct qcow2 *q)
{
    int result;

    if (q->is_temporary)
        return 0;
    pthread_mutex_unlock(&q->lock);
    result = block_node_flush(q->file);
    pthread_mutex_lock(&q->lock);
    return result;
}

void qcow2_wait_sync(struct qcow2 *q)
{
    while (q->syncing)
        pthread_cond_wait(&q->changed, &q->lock);
}

/* Whole sectors of the L1 table. */
static int write_l1(struct qcow2 *q)
{
    uint32_t from = q->l1_dirty_from & ~63u, to = (q->l1_dirty_to + 63) & ~63u;
    uint8_t sector[SECTOR];
    int result = 0;

    for (; from < to && !result; from += 64) {
        for (uint32_t n = 0; n < 64; n++)
            put_be64(sector + n * 8, from + n < q->l1_size ? q->l1[from + n] : 0);
        result = block_node_write(q->file, q->l1_offset + from * 8ull, sector, sizeof(sector));
    }
    if (!result)
        q->l1_dirty_from = q->l1_dirty_to = 0;
    return result;
}

/* Clusters that nothing leads to any more, on the disk either. */
static int free_run(struct qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t cluster = first & ~QCOW2_DROPPED_TABLE;

    for (uint64_t n = 0; n < count && cluster == first; n++)
        if (qcow2_set_has(&q->metadata, cluster + n))
            return qcow2_found_corrupt(q, "data was in a cluster of tables",
                                       (cluster + n) << q->cluster_bits);
    return qcow2_refcount_add(q, cluster, count, -1);
}

static int free_dropped(struct qcow2 *q, size_t count)
{
    int result = 0;

    for (size_t n = 0, run; n < count && !result; n += run) {
        for (run = 1; n + run < count && q->dropped[n + run] == q->dropped[n] + run; run++)
            ;
        result = free_run(q, q->dropped[n], run);
    }
    q->dropped_count -= count;
    memmove(q->dropped, q->dropped + count, q->dropped_count * sizeof(*q->dropped));
    return result;
}

static int sync_tables(struct qcow2 *q)
{
    size_t dropped = q->dropped_count;
    int result = write_tables(q, &q->refs);

    if (!result && (dropped || is_dirty(&q->l2) || q->l1_dirty_from != q->l1_dirty_to)) {
        result = qcow2_barrier(q);
        if (!result)
            result = write_tables(q, &q->l2);
        if (!result && q->l1_dirty_from != q->l1_dirty_to) {
            result = qcow2_barrier(q);
            if (!result)
                result = write_l1(q);
        }
    }
    if (!result && dropped) {
        result = qcow2_barrier(q);
        if (!result)
            result = free_dropped(q, dropped);
    }
    return result;
}

int qcow2_sync(struct qcow2 *q)
{
    int result;

    qcow2_wait_sync(q);
    q->syncing = true;
    result = sync_tables(q);
    q->syncing = false;
    pthread_cond_broadcast(&q->changed);
    return result;
}
