/*
 * qcow2_internal.h - an open qcow2 image, shared by the files qcow2*.c
 *
 * Theory of operation. Two kinds of tables are kept in memory and written back later: L2 tables
 * (where each cluster of the disk is) and refcount blocks (how often each cluster of the file is
 * used). After a crash at any moment no cluster may be in use that the refcounts call free. So
 *
 *  1. a cluster is counted before an L2 table that leads to it is written: counts and data,
 * barrier, L2 tables, barrier, the L1 table;
 *  2. a cluster that is not used any more stays counted until what led to it is gone on the disk:
 *     it waits in `dropped`, and is given back at the end of a synchronisation.
 *
 * What a crash leaves is then at worst a cluster that is counted and not used: a leak.
 *
 * Requests. A request claims the part of the disk that it works on: shared where it only follows
 * the mapping, alone where it changes it. So no cluster moves while data is on the way to it, and
 * two requests never allocate the same one. The lock is not held while data moves or a barrier is
 * waited for; `syncing` keeps L2 tables as they are from the first barrier of a synchronisation to
 * its end.
 */
#ifndef BACKENDS_BLOCK_QCOW2_INTERNAL_H
#define BACKENDS_BLOCK_QCOW2_INTERNAL_H

#include <pthread.h>

#include "backends/block/qcow2.h"

#define QCOW2_OFFSET_MASK        0x00fffffffffffe00ull
#define QCOW2_COPIED             (1ull << 63) /* refcount is 1: may be written in place */
#define QCOW2_COMPRESSED         (1ull << 62)
#define QCOW2_ZERO               1ull

#define QCOW2_DROPPED_TABLE      (1ull << 63) /* in q->dropped */

#define QCOW2_DIRTY              (1ull << 0) /* incompatible features */
#define QCOW2_CORRUPT            (1ull << 1)
#define QCOW2_COMPRESSION        (1ull << 3)

#define QCOW2_MAGIC              0x514649fbu
#define QCOW2_V2_HEADER_BYTES    72u
#define QCOW2_V3_HEADER_BYTES    104u

#define QCOW2_MAX_L1_BYTES       (32u << 20) /* as QEMU's */
#define QCOW2_MAX_REFTABLE_BYTES (8u << 20)
#define QCOW2_MAX_SNAPSHOTS      65536u

/* Offsets of header fields. */
enum {
    QCOW2_AT_MAGIC = 0,
    QCOW2_AT_VERSION = 4,
    QCOW2_AT_BACKING_OFFSET = 8,
    QCOW2_AT_BACKING_SIZE = 16,
    QCOW2_AT_CLUSTER_BITS = 20,
    QCOW2_AT_SIZE = 24,
    QCOW2_AT_CRYPT_METHOD = 32,
    QCOW2_AT_L1_SIZE = 36,
    QCOW2_AT_L1_OFFSET = 40,
    QCOW2_AT_REFTABLE_OFFSET = 48,
    QCOW2_AT_REFTABLE_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOTS = 60,
    QCOW2_AT_SNAPSHOTS_OFFSET = 64,
    QCOW2_AT_INCOMPATIBLE = 72,
    QCOW2_AT_COMPATIBLE = 80,
    QCOW2_AT_AUTOCLEAR = 88,
    QCOW2_AT_REFCOUNT_ORDER = 96,
    QCOW2_AT_HEADER_BYTES = 100,
    QCOW2_AT_COMPRESSION = 104,
};

/* A table of one cluster, big-endian as in the file. */
struct qcow2_table {
    uint64_t offset; /* in the file */
    uint32_t index;
    uint32_t dirty_from, dirty_to; /* bytes; the same: as in the file */
    bool was_used;                 /* since the hand of the clock came by */
    uint8_t bytes[];
};

struct qcow2_cache {
    struct qcow2_table **of_index;
    struct qcow2_table **tables;
    uint32_t count, max, hand;
};

/* Clusters of the file, by number. */
struct qcow2_set {
    uint64_t *slots; /* number + 1; 0: free */
    size_t size, count;
};

struct qcow2_claim {
    struct qcow2_claim *next;
    uint64_t start, end; /* of the disk */
    bool is_alone;
};

enum qcow2_kind { QCOW2_NOTHING, QCOW2_ZEROS, QCOW2_DATA, QCOW2_PACKED };

/* What is at some offset of the disk. */
struct qcow2_mapping {
    enum qcow2_kind kind;
    bool in_place;       /* DATA: may be overwritten */
    uint64_t host;       /* DATA: where in the file */
    uint64_t entry;      /* of the first cluster */
    uint64_t size_bytes; /* of the same kind; DATA: one behind the other */
};

struct qcow2_unpacked; /* qcow2_compress.c */

struct qcow2 {
    struct block_node node;
    struct block_node *file, *backing;
    struct qcow2_info info;
    char backing_name[BLOCK_NAME_BYTES], backing_format[BLOCK_NAME_BYTES];

    /* Fixed. */
    unsigned cluster_bits, l2_bits, refcount_order, block_bits; /* refcounts in a block */
    uint32_t cluster_bytes, l2_entries;
    uint64_t incompatible, autoclear;
    uint64_t snapshots_offset;
    uint32_t header_bytes;
    bool is_temporary; /* nothing need be durable */

    pthread_mutex_t lock;   /* of all that follows */
    pthread_cond_t changed; /* a claim or a synchronisation has ended */
    struct qcow2_claim *claims;
    bool syncing;
    bool is_corrupt; /* writes are refused */

    uint64_t l1_offset, reftable_offset;
    uint32_t l1_size, reftable_size; /* entries; the tables have whole clusters */
    uint64_t *l1, *reftable;         /* as in the file, in host byte order */
    uint32_t l1_dirty_from, l1_dirty_to;
    struct qcow2_cache l2, refs;
    struct qcow2_set metadata; /* clusters that no data may be written to */

    uint64_t first_free; /* cluster of the file; none before it is free */
    uint64_t file_end;   /* bytes; behind it the file has never been written */
    uint64_t packed_end; /* where the next compressed cluster can begin; 0: in a new cluster */
    uint64_t *dropped;   /* clusters of the file */
    size_t dropped_count, dropped_max;
    struct qcow2_unpacked *unpacked;
};

static inline struct qcow2 *qcow2_of(const struct block_node *node)
{
    return (struct qcow2 *)(uintptr_t)node;
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t size_bytes)
{
    return (size_bytes >> q->cluster_bits) + ((size_bytes & (q->cluster_bytes - 1)) != 0);
}

/*
 * The image contradicts itself: say so, and refuse all later writes, in the file too. -EIO. Lock
 * held.
 */
int qcow2_found_corrupt(struct qcow2 *q, const char *what, uint64_t offset);

/* ---- qcow2_tables.c: lock held. 0 or -errno ---- */

bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster);
int qcow2_set_add(struct qcow2_set *set, uint64_t cluster); /* -EEXIST */
void qcow2_set_remove(struct qcow2_set *set, uint64_t cluster);

/* max_bytes of tables at most; indexes up to count. */
int qcow2_cache_init(struct qcow2_cache *cache, uint32_t count, uint64_t max_bytes,
                     uint32_t table_bytes);
void qcow2_cache_done(struct qcow2_cache *cache);
/* Valid until the next call for the same cache. May release the lock for a while if it is L2's. */
int qcow2_table_get(struct qcow2 *q, struct qcow2_cache *cache, uint32_t index, uint64_t offset,
                    struct qcow2_table **out_table);
/* A table of zeros that is not in the file yet. Room was made before. */
int qcow2_table_new(struct qcow2 *q, struct qcow2_cache *cache, uint32_t index, uint64_t offset,
                    struct qcow2_table **out_table);
int qcow2_make_room(struct qcow2 *q, struct qcow2_cache *cache);
void qcow2_table_changed(struct qcow2_table *table, uint32_t offset, uint32_t size_bytes);

int qcow2_barrier(struct qcow2 *q); /* releases the lock for a while */
/* All tables to the file, in order; then what was dropped before is free. Releases the lock. */
int qcow2_sync(struct qcow2 *q);
void qcow2_wait_sync(struct qcow2 *q); /* until L2 tables may be changed */

/* ---- qcow2_refcount.c: lock held. 0 or -errno ---- */

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out_count);
/* At most count clusters in a row. */
int qcow2_allocate(struct qcow2 *q, uint64_t count, uint64_t *out_offset, uint64_t *out_count);
/* Exactly count, for tables. */
int qcow2_allocate_table(struct qcow2 *q, uint64_t count, uint64_t *out_offset);
/* Count one more, or less by -1, user of clusters of the file. */
int qcow2_refcount_add(struct qcow2 *q, uint64_t cluster, uint64_t count, int change);
/* To be freed when what led to it is gone. */
int qcow2_drop(struct qcow2 *q, uint64_t cluster, uint64_t count, bool is_table);
/* The clusters of the file that an L2 entry leads to. Lock not needed. */
void qcow2_entry_clusters(const struct qcow2 *q, uint64_t entry, uint64_t *out_first,
                          uint64_t *out_count);

/* ---- qcow2_map.c: lock held. 0 or -errno ---- */

bool qcow2_is_claimed(const struct qcow2 *q, uint64_t start, uint64_t end, bool alone);
void qcow2_claim(struct qcow2 *q, struct qcow2_claim *claim);
void qcow2_unclaim(struct qcow2 *q, struct qcow2_claim *claim);

/* cached: -EAGAIN if a table would have to be read. */
int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t size_bytes, bool cached,
              struct qcow2_mapping *out_mapping);
/* The L2 table of offset, to be changed now: L2 tables are not being written. */
int qcow2_table_for_change(struct qcow2 *q, uint64_t offset, struct qcow2_table **out_table);
static inline uint32_t qcow2_l2_at(const struct qcow2 *q, uint64_t offset)
{
    return (uint32_t)((offset >> q->cluster_bits) & (q->l2_entries - 1)) * 8;
}

/* ---- qcow2_compress.c ---- */

/* The cluster that entry leads to; -EIO if it is damaged. Lock not held. data: one cluster. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint8_t *data);
/* Bytes of the whole cluster packed, less than max_bytes; 0 if they are more. */
size_t qcow2_pack(const struct qcow2 *q, const uint8_t *data, uint8_t *out, size_t max_bytes);
const char *qcow2_compression_name(enum qcow2_compression compression);
bool qcow2_can_compress(enum qcow2_compression compression); /* is the library there? */
/* A piece of it, through a small cache. Lock not held. */
int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint32_t offset,
                      const struct block_request *request, uint64_t skip, uint64_t size_bytes);
int qcow2_unpacked_new(struct qcow2 *q);
void qcow2_unpacked_free(struct qcow2 *q);

/* ---- qcow2_edit.c ---- */

/*
 * Backing file and format (may be NULL) into a header of room bytes: its fields, and what follows
 * the extensions that end at byte at.
 */
int qcow2_put_backing(uint8_t *header, size_t room, uint32_t at, const char *backing,
                      const char *format, struct error *err);

/* ---- qcow2.c ---- */

/* Fields of the header that were changed go to the file: one write within its first sector. */
int qcow2_write_header(struct qcow2 *q, uint32_t at, const uint8_t *bytes, uint32_t size_bytes);

#endif
