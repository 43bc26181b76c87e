/*
 * qcow2_io.c - reading and writing the disk in a qcow2 image
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/qcow2_internal.h"
#include "backends/block/qcow2_io.h"
#include "base/bytes.h"

#define ZERO_BYTES  (64u << 10) /* written at once */
#define MAX_DROPPED 65536u      /* clusters that wait for the next flush */

/* ---- parts of requests ---- */

/* A part of a request on another node. */
struct part {
    struct block_request request;
    struct io_piece pieces[BLOCK_MAX_PIECES + 2];
};

static void take_part(struct part *part, const struct block_request *request, uint64_t skip,
                      uint64_t max_bytes, uint64_t offset)
{
    part->request = (struct block_request){.op = request->op, .pieces = part->pieces};
    part->request.offset = offset;
    part->request.piece_count =
        block_slice(request, skip, max_bytes, part->pieces, &part->request.size_bytes);
}

static void end_claim(struct qcow2 *q, struct qcow2_claim *claim)
{
    pthread_mutex_lock(&q->lock);
    qcow2_unclaim(q, claim);
    pthread_mutex_unlock(&q->lock);
}

/* ---- reading ---- */

/* What is not in this image is in the one below it, or zero. Bytes done go to *out_bytes. */
static int read_below(struct qcow2 *q, const struct block_request *request, uint64_t skip,
                      uint64_t offset, uint64_t size_bytes, uint64_t *out_bytes)
{
    uint64_t end = q->backing ? q->backing->size_bytes : 0;
    struct part part;

    *out_bytes = size_bytes;
    if (offset >= end) {
        block_fill(NULL, request, skip, size_bytes);
        return 0;
    }
    take_part(&part, request, skip, size_bytes < end - offset ? size_bytes : end - offset, offset);
    *out_bytes = part.request.size_bytes;
    return q->backing->ops->execute(q->backing, &part.request);
}

static int read_mapped(struct qcow2 *q, const struct qcow2_mapping *m,
                       const struct block_request *request, uint64_t skip, uint64_t offset,
                       uint64_t *out_bytes)
{
    struct part part;

    *out_bytes = m->size_bytes;
    switch (m->kind) {
    case QCOW2_DATA:
        take_part(&part, request, skip, m->size_bytes, m->host);
        *out_bytes = part.request.size_bytes;
        return q->file->ops->execute(q->file, &part.request);
    case QCOW2_PACKED:
        return qcow2_read_packed(q, m->entry, offset & (q->cluster_bytes - 1), request, skip,
                                 m->size_bytes);
    case QCOW2_NOTHING:
        return read_below(q, request, skip, offset, m->size_bytes, out_bytes);
    default:
        block_fill(NULL, request, skip, m->size_bytes);
        return 0;
    }
}

/* The mapping of a part of the disk, claimed. Takes the lock, and releases it. */
static int map_to_read(struct qcow2 *q, uint64_t offset, uint64_t size_bytes,
                       struct qcow2_claim *claim, struct qcow2_mapping *m)
{
    int result;

    pthread_mutex_lock(&q->lock);
    for (;;) {
        result = qcow2_map(q, offset, size_bytes, false, m);
        if (result || !qcow2_is_claimed(q, offset, offset + m->size_bytes, false))
            break;
        pthread_cond_wait(&q->changed, &q->lock);
    }
    *claim = (struct qcow2_claim){.start = offset, .end = offset + m->size_bytes};
    if (!result)
        qcow2_claim(q, claim);
    pthread_mutex_unlock(&q->lock);
    return result;
}

static int do_read(struct qcow2 *q, const struct block_request *request)
{
    uint64_t part;
    int result = 0;

    for (uint64_t done = 0; done < request->size_bytes && !result; done += part) {
        uint64_t offset = request->offset + done;
        struct qcow2_claim claim;
        struct qcow2_mapping m;

        result = map_to_read(q, offset, request->size_bytes - done, &claim, &m);
        if (result)
            break;
        result = read_mapped(q, &m, request, done, offset, &part);
        end_claim(q, &claim);
    }
    return result;
}

/* The same where the caller has claimed the cluster. */
static int read_claimed(struct qcow2 *q, uint64_t offset, uint8_t *data, uint64_t size_bytes)
{
    struct io_piece piece = {data, size_bytes};
    struct block_request request = {
        .op = BLOCK_READ, .pieces = &piece, .piece_count = 1, .size_bytes = size_bytes};
    uint64_t part;
    int result = 0;

    for (uint64_t done = 0; done < size_bytes && !result; done += part) {
        struct qcow2_mapping m;

        pthread_mutex_lock(&q->lock);
        result = qcow2_map(q, offset + done, size_bytes - done, false, &m);
        pthread_mutex_unlock(&q->lock);
        if (result)
            break;
        result = read_mapped(q, &m, &request, done, offset + done, &part);
    }
    return result;
}

/* ---- writing ---- */

/* How much from offset on must be moved to new clusters; whole ones, so it may begin before. */
static int bytes_to_allocate(struct qcow2 *q, uint64_t offset, uint64_t size_bytes,
                             uint64_t *out_bytes)
{
    uint64_t table_bytes = (uint64_t)q->cluster_bytes << q->l2_bits;
    uint64_t left = table_bytes - (offset & (table_bytes - 1));
    struct qcow2_mapping m;
    int result = 0;

    *out_bytes = 0;
    if (size_bytes > left)
        size_bytes = left;
    while (*out_bytes < size_bytes && !result) {
        result = qcow2_map(q, offset + *out_bytes, size_bytes - *out_bytes, false, &m);
        if (!result && m.in_place)
            break;
        *out_bytes += result ? 0 : m.size_bytes;
    }
    return result;
}

static int check_data(struct qcow2 *q, uint64_t host, uint64_t size_bytes)
{
    uint64_t last = (host + size_bytes - 1) >> q->cluster_bits;

    for (uint64_t cluster = host >> q->cluster_bits; cluster <= last; cluster++)
        if (qcow2_set_has(&q->metadata, cluster))
            return qcow2_found_corrupt(q, "data is in a cluster of tables",
                                       cluster << q->cluster_bits);
    return 0;
}

/* What an entry leads to is about to be dropped. */
static int check_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t first, count;

    qcow2_entry_clusters(q, entry, &first, &count);
    return count ? check_data(q, first << q->cluster_bits, count << q->cluster_bits) : 0;
}

static void drop_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t first, count;

    qcow2_entry_clusters(q, entry, &first, &count);
    qcow2_drop(q, first, count, false);
}

/* New clusters for a part of the disk. */
struct new_clusters {
    uint64_t start; /* of the disk; whole clusters */
    uint64_t host, count;
    bool is_fresh; /* the file reads as zeros there */
};

/* The entries of new clusters; what was there before is dropped. Lock held. */
static int link_clusters(struct qcow2 *q, const struct new_clusters *new)
{
    struct qcow2_table *table;
    uint32_t at = qcow2_l2_at(q, new->start);
    int result = qcow2_table_for_change(q, new->start, &table);

    for (uint64_t n = 0; n < new->count && !result; n++)
        result = check_entry(q, get_be64(table->bytes + at + n * 8));
    if (result)
        return result;
    for (uint64_t n = 0; n < new->count; n++) {
        uint8_t *entry = table->bytes + at + n * 8;

        drop_entry(q, get_be64(entry));
        put_be64(entry, (new->host + n * q->cluster_bytes) | QCOW2_COPIED);
    }
    qcow2_table_changed(table, at, (uint32_t) new->count * 8);
    return 0;
}

/* Does the disk read as zeros there? Where that is not easy to say: no. Lock not held. */
static bool is_zero(struct qcow2 *q, uint64_t offset, uint64_t size_bytes)
{
    struct qcow2_mapping m;
    int result;

    pthread_mutex_lock(&q->lock);
    result = qcow2_map(q, offset, size_bytes, false, &m);
    pthread_mutex_unlock(&q->lock);
    if (result || m.size_bytes < size_bytes)
        return false;
    return m.kind == QCOW2_ZEROS ||
           (m.kind == QCOW2_NOTHING && (!q->backing || offset >= q->backing->size_bytes));
}

/*
 * Part of the request, and what was in the rest of its first and last cluster, to the new clusters.
 * before and after have room for a cluster each.
 */
static int write_around(struct qcow2 *q, const struct new_clusters *new, struct part *part,
                        uint64_t offset, uint8_t *before, uint8_t *after)
{
    struct block_request *request = &part->request;
    uint64_t end = new->start + new->count * q->cluster_bytes;
    uint64_t head = offset - new->start, tail = end - offset - request->size_bytes;
    int result = 0;

    request->offset = new->host + head;
    if (tail && !(new->is_fresh &&is_zero(q, end - tail, tail))) {
        result = read_claimed(q, end - tail, after, tail);
        part->pieces[request->piece_count++] = (struct io_piece){after, tail};
        request->size_bytes += tail;
    }
    if (head && !(new->is_fresh &&is_zero(q, new->start, head)) && !result) {
        result = read_claimed(q, new->start, before, head);
        memmove(part->pieces + 1, part->pieces, request->piece_count * sizeof(part->pieces[0]));
        part->pieces[0] = (struct io_piece){before, head};
        request->piece_count++;
        request->size_bytes += head;
        request->offset -= head;
    }
    return result ? result : q->file->ops->execute(q->file, request);
}

/* Takes and releases the lock; the claim is there. */
static int write_new(struct qcow2 *q, const struct new_clusters *new, struct part *part,
                     uint64_t offset)
{
    uint8_t *buffers = malloc(2 * (size_t)q->cluster_bytes);
    int result =
        buffers ? write_around(q, new, part, offset, buffers, buffers + q->cluster_bytes) : -ENOMEM;

    free(buffers);
    pthread_mutex_lock(&q->lock);
    if (!result)
        result = link_clusters(q, new);
    if (result) /* nothing leads to them */
        qcow2_refcount_add(q, new->host >> q->cluster_bits, new->count, -1);
    pthread_mutex_unlock(&q->lock);
    return result;
}

/* Claim and allocate for up to size_bytes from offset on. Lock held; new->count 0: in place. */
static int prepare_write(struct qcow2 *q, uint64_t offset, uint64_t size_bytes,
                         struct qcow2_claim *claim, struct qcow2_mapping *m,
                         struct new_clusters *new)
{
    uint64_t bytes, count;
    int result;

    for (;;) {
        if (q->is_corrupt)
            return -EIO;
        *new = (struct new_clusters){.start = align_down(offset, q->cluster_bytes)};
        result = bytes_to_allocate(q, offset, size_bytes, &bytes);
        if (!result && !bytes)
            result = qcow2_map(q, offset, size_bytes, false, m);
        if (result)
            return result;
        *claim = (struct qcow2_claim){.start = bytes ? new->start : offset,
                                      .end = bytes ? align_up(offset + bytes, q->cluster_bytes)
                                                   : offset + m->size_bytes,
                                      .is_alone = bytes != 0};
        if (!bytes && !m->in_place)
            continue; /* it was changed while a table was read */
        if (!qcow2_is_claimed(q, claim->start, claim->end, claim->is_alone))
            break;
        pthread_cond_wait(&q->changed, &q->lock);
    }
    if (!bytes) {
        result = check_data(q, m->host, m->size_bytes);
    } else {
        count = (claim->end - claim->start) >> q->cluster_bits;
        result = qcow2_allocate(q, count, &new->host, &new->count);
        new->is_fresh = new->host >= q->file_end;
        if (!result && new->host + new->count * q->cluster_bytes > q->file_end)
            q->file_end = new->host + new->count * q->cluster_bytes;
    }
    if (!result)
        qcow2_claim(q, claim);
    return result;
}

static int do_write(struct qcow2 *q, const struct block_request *request)
{
    struct part part;
    int result = 0;

    for (uint64_t done = 0; done < request->size_bytes && !result;) {
        uint64_t offset = request->offset + done, size;
        struct new_clusters new;
        struct qcow2_claim claim;
        struct qcow2_mapping m;

        take_part(&part, request, done, request->size_bytes - done, 0);
        pthread_mutex_lock(&q->lock);
        result = prepare_write(q, offset, part.request.size_bytes, &claim, &m, &new);
        pthread_mutex_unlock(&q->lock);
        if (result)
            break;
        size = new.count ? new.start + new.count * q->cluster_bytes - offset : m.size_bytes;
        if (size > part.request.size_bytes)
            size = part.request.size_bytes;
        take_part(&part, request, done, size, m.host);
        done += size;
        result = new.count ? write_new(q, &new, &part, offset)
                           : q->file->ops->execute(q->file, &part.request);
        end_claim(q, &claim);
    }
    return result;
}

static int write_zeros(struct qcow2 *q, uint64_t offset, uint64_t size_bytes)
{
    static uint8_t zeros[ZERO_BYTES];
    int result = 0;

    for (uint64_t part; size_bytes && !result; offset += part, size_bytes -= part) {
        struct io_piece piece = {.data = zeros};
        struct block_request request = {
            .op = BLOCK_WRITE, .offset = offset, .pieces = &piece, .piece_count = 1};

        part = size_bytes < sizeof(zeros) ? size_bytes : sizeof(zeros);
        piece.size_bytes = part;
        request.size_bytes = part;
        if (!is_zero(q, offset, part))
            result = do_write(q, &request);
    }
    return result;
}

/* ---- giving clusters back ---- */

/* The entry for clusters that shall read as zeros; false: there is none. */
static bool entry_of_zeros(const struct qcow2 *q, uint64_t *out_entry)
{
    *out_entry = q->backing ? QCOW2_ZERO : 0;
    return !q->backing || q->info.version >= 3;
}

/* Whole clusters with one L2 table, claimed alone. Lock held. */
static int clear_clusters(struct qcow2 *q, uint64_t offset, uint64_t count, uint64_t entry)
{
    uint32_t index = (uint32_t)(offset >> q->cluster_bits >> q->l2_bits);
    uint32_t at = qcow2_l2_at(q, offset);
    struct qcow2_table *table;
    int result;

    if (!entry && !(q->l1[index] & QCOW2_OFFSET_MASK))
        return 0;
    result = qcow2_table_for_change(q, offset, &table);
    for (uint64_t n = 0; n < count && !result; n++) {
        uint8_t *place = table->bytes + at + n * 8;

        result = check_entry(q, get_be64(place));
        if (result)
            break;
        drop_entry(q, get_be64(place));
        put_be64(place, entry);
        qcow2_table_changed(table, at + (uint32_t)n * 8, 8);
    }
    return result;
}

static int clear_range(struct qcow2 *q, uint64_t offset, uint64_t end, uint64_t entry)
{
    uint64_t table_bytes = (uint64_t)q->cluster_bytes << q->l2_bits;
    int result = 0;

    pthread_mutex_lock(&q->lock);
    for (uint64_t next; offset < end && !result; offset = next) {
        struct qcow2_claim claim = {.start = offset, .is_alone = true};

        next = align_down(offset, table_bytes) + table_bytes;
        if (next > end)
            next = end;
        claim.end = next;
        while (qcow2_is_claimed(q, offset, next, true))
            pthread_cond_wait(&q->changed, &q->lock);
        qcow2_claim(q, &claim);
        result = q->is_corrupt
                     ? -EIO
                     : clear_clusters(q, offset, (next - offset) >> q->cluster_bits, entry);
        qcow2_unclaim(q, &claim);
    }
    if (!result && q->dropped_count > MAX_DROPPED)
        result = qcow2_sync(q);
    pthread_mutex_unlock(&q->lock);
    return result;
}

int qcow2_forget(struct qcow2 *q, uint64_t offset, uint64_t end)
{
    return clear_range(q, offset, end, 0);
}

/* Zeros everywhere, or with DISCARD where it costs nothing. */
static int do_clear(struct qcow2 *q, const struct block_request *request)
{
    uint64_t start = request->offset, end = start + request->size_bytes, entry;
    uint64_t first = align_up(start, q->cluster_bytes), last = align_down(end, q->cluster_bytes);
    int result = 0;

    if (end == q->node.size_bytes) /* the last cluster ends with the disk */
        last = align_up(end, q->cluster_bytes);
    if (!q->node.can_discard || !entry_of_zeros(q, &entry) || first >= last)
        return request->op == BLOCK_ZERO ? write_zeros(q, start, end - start) : 0;
    if (request->op == BLOCK_ZERO)
        result = write_zeros(q, start, first - start);
    if (!result)
        result = clear_range(q, first, last, entry);
    if (!result && request->op == BLOCK_ZERO && last < end)
        result = write_zeros(q, last, end - last);
    return result;
}

/* ---- flushing ---- */

int qcow2_flush(struct qcow2 *q)
{
    int result;

    if (q->is_temporary || q->node.read_only)
        return 0;
    pthread_mutex_lock(&q->lock);
    result = qcow2_sync(q);
    pthread_mutex_unlock(&q->lock);
    return result ? result : block_node_flush(q->file);
}

/* ---- all operations ---- */

int qcow2_execute(struct block_node *node, const struct block_request *request)
{
    struct qcow2 *q = qcow2_of(node);

    switch (request->op) {
    case BLOCK_READ:
        return do_read(q, request);
    case BLOCK_WRITE:
        return do_write(q, request);
    case BLOCK_FLUSH:
        return qcow2_flush(q);
    default:
        return do_clear(q, request);
    }
}

/* What needs no table to be read, and is in one piece. Lock held. */
static int try_map(struct qcow2 *q, const struct block_request *request, struct qcow2_mapping *m)
{
    uint64_t end = request->offset + request->size_bytes;
    bool is_write = request->op == BLOCK_WRITE;
    int result;

    if (qcow2_is_claimed(q, request->offset, end, false))
        return -EAGAIN;
    result = qcow2_map(q, request->offset, request->size_bytes, true, m);
    if (result || m->size_bytes < request->size_bytes || m->kind == QCOW2_PACKED)
        return -EAGAIN;
    if (!is_write)
        return 0;
    return m->in_place && !q->is_corrupt && !check_data(q, m->host, m->size_bytes) ? 0 : -EAGAIN;
}

static int try_below(struct qcow2 *q, const struct block_request *request,
                     struct block_later *later)
{
    uint64_t end = q->backing ? q->backing->size_bytes : 0;

    if (request->offset >= end) {
        block_fill(NULL, request, 0, request->size_bytes);
        return 0;
    }
    if (request->size_bytes > end - request->offset)
        return -EAGAIN;
    return q->backing->ops->try_execute(q->backing, request, later);
}

/* A request that goes on: its claim stays until it ends. */
struct claimed {
    struct block_later later;
    struct block_later *outer;
    struct qcow2 *q;
    struct qcow2_claim claim;
};

static void end_claimed(struct block_later *later, int status)
{
    struct claimed *c = (struct claimed *)later;
    struct block_later *outer = c->outer;

    end_claim(c->q, &c->claim);
    free(c);
    outer->end(outer, status);
}

static int map_and_claim(struct qcow2 *q, const struct block_request *request,
                         struct qcow2_claim *claim, struct qcow2_mapping *m)
{
    int result;

    if (!request->size_bytes || pthread_mutex_trylock(&q->lock))
        return -EAGAIN;
    result = try_map(q, request, m);
    if (!result)
        qcow2_claim(q, claim);
    pthread_mutex_unlock(&q->lock);
    return result;
}

int qcow2_try_execute(struct block_node *node, const struct block_request *request,
                      struct block_later *later)
{
    struct qcow2 *q = qcow2_of(node);
    struct block_request below = *request;
    struct claimed *c = malloc(sizeof(*c));
    struct qcow2_mapping m;
    int result;

    if (!c)
        return -EAGAIN;
    *c = (struct claimed){.later.end = end_claimed, .outer = later, .q = q};
    c->claim.start = request->offset;
    c->claim.end = request->offset + request->size_bytes;
    result = map_and_claim(q, request, &c->claim, &m);
    if (result) {
        free(c);
        return result;
    }
    below.offset = m.host;
    later = later ? &c->later : NULL;
    if (m.kind == QCOW2_DATA)
        result = q->file->ops->try_execute(q->file, &below, later);
    else if (m.kind == QCOW2_NOTHING)
        result = try_below(q, request, later);
    else
        block_fill(NULL, request, 0, request->size_bytes);
    if (result == -EINPROGRESS)
        return result;
    end_claim(q, &c->claim);
    free(c);
    return result;
}

int qcow2_node_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                   struct block_extent *out_extent)
{
    struct qcow2 *q = qcow2_of(node);
    struct qcow2_mapping m;
    int result;

    pthread_mutex_lock(&q->lock);
    result = qcow2_map(q, offset, size_bytes, false, &m);
    pthread_mutex_unlock(&q->lock);
    if (result)
        return result;
    *out_extent = (struct block_extent){.size_bytes = m.size_bytes,
                                        .is_zero = m.kind == QCOW2_ZEROS,
                                        .is_below = m.kind == QCOW2_NOTHING};
    if (!out_extent->is_below)
        return 0;
    if (!q->backing || offset >= q->backing->size_bytes) {
        out_extent->is_zero = true;
        return 0;
    }
    if (m.size_bytes > q->backing->size_bytes - offset)
        m.size_bytes = q->backing->size_bytes - offset;
    result = q->backing->ops->map(q->backing, offset, m.size_bytes, out_extent);
    out_extent->is_below = true;
    return result;
}
