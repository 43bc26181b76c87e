/*
 * test_qcow2.c - qcow2 images: random requests against an array, cut power, and images that
 * contradict themselves; all of it by one thread
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/block/qcow2_internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "memory_file.h"
#include "qcow2_test.h"

#define KIB      1024u
#define SECTOR   512u
#define MAX_FILE (64u << 20)

static uint64_t random_state;

static uint32_t random_number(uint32_t limit)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((random_state >> 33) % limit);
}

/* ---- images ---- */

static struct memory_file *new_image(uint64_t size, uint32_t cluster, unsigned version,
                                     const char *backing)
{
    const struct qcow2_create_options options = {
        .size_bytes = size, .version = version, .cluster_bytes = cluster, .backing = backing};
    struct memory_file *file = memory_new(NULL, 0, MAX_FILE);
    struct error err = {0};

    file->is_kept = true;
    assert_int_equal(qcow2_create(&file->node, &options, &err), 0);
    return file;
}

static struct block_node *try_open(struct memory_file *file, bool readonly, bool as_it_is,
                                   struct error *err)
{
    static char name[] = "test";
    const struct block_options options = {.file = name,
                                          .readonly = readonly,
                                          .discard = true,
                                          .as_it_is = as_it_is,
                                          .no_backing = true};

    return block_qcow2.open(&file->node, &options, NULL, err);
}

static struct block_node *open_image(struct memory_file *file, struct memory_file *below)
{
    struct error err = {0};
    struct block_node *node = try_open(file, false, false, &err);

    if (!node)
        fail_msg("%s", err.text);
    if (below)
        qcow2_of(node)->backing = &below->node;
    qcow2_of(node)->l2.max = 2; /* tables come and go */
    qcow2_of(node)->refs.max = 1;
    return node;
}

static struct qcow2_check_result check(struct memory_file *file, bool repair, bool loud)
{
    struct qcow2_check_result result;
    struct error err = {0};
    struct block_node *node = try_open(file, !repair, true, &err);

    if (!node)
        fail_msg("%s", err.text);
    if (qcow2_check(node, repair, ignore, &loud, &result, &err))
        fail_msg("%s", err.text);
    block_node_close(node);
    return result;
}

/* No corruption and no leak. */
static void check_clean(struct memory_file *file)
{
    struct qcow2_check_result result = check(file, false, true);

    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
}

/* ---- against an array ---- */

struct model {
    struct memory_file *file, *below;
    struct block_node *node;
    uint8_t *bytes;
    uint64_t size;
};

static void compare(struct model *m, uint64_t offset, uint64_t size)
{
    uint8_t *data = malloc(size);

    memset(data, 0xa5, size);
    assert_int_equal(request(m->node, BLOCK_READ, offset, data, size), 0);
    if (memcmp(data, m->bytes + offset, size))
        fail_msg("the disk differs in %llu bytes from 0x%llx on", (unsigned long long)size,
                 (unsigned long long)offset);
    free(data);
}

static void write_random(struct model *m, uint64_t offset, uint64_t size)
{
    for (uint64_t n = 0; n < size; n++)
        m->bytes[offset + n] = (uint8_t)random_number(256);
    assert_int_equal(request(m->node, BLOCK_WRITE, offset, m->bytes + offset, size), 0);
}

/* Discarded bytes may be anything now: what they are is the truth from then on. */
static void discard(struct model *m, uint64_t offset, uint64_t size)
{
    uint8_t *now = malloc(size);

    assert_int_equal(request(m->node, BLOCK_DISCARD, offset, NULL, size), 0);
    assert_int_equal(request(m->node, BLOCK_READ, offset, now, size), 0);
    for (uint64_t n = 0; n < size; n++)
        assert_true(now[n] == m->bytes[offset + n] || now[n] == 0);
    memcpy(m->bytes + offset, now, size);
    free(now);
}

static void write_compressed(struct model *m, uint64_t offset)
{
    struct qcow2 *q = qcow2_of(m->node);
    uint64_t start = align_down(offset, q->cluster_bytes);
    struct block_extent extent;

    assert_int_equal(m->node->ops->map(m->node, start, SECTOR, &extent), 0);
    if (!extent.is_below || start + q->cluster_bytes > m->size)
        return;
    memset(m->bytes + start, (int)random_number(255) + 1, q->cluster_bytes);
    m->bytes[start + random_number(q->cluster_bytes)] = 7;
    assert_int_equal(qcow2_write_compressed(m->node, start, m->bytes + start), 0);
}

static void reopen(struct model *m)
{
    block_node_close(m->node);
    m->node = NULL;
    if (random_number(4) == 0)
        check_clean(m->file);
    m->node = open_image(m->file, m->below);
}

static void step(struct model *m)
{
    uint64_t offset = random_number((uint32_t)(m->size / SECTOR)) * (uint64_t)SECTOR;
    uint64_t left = m->size - offset,
             size = (1 + random_number(random_number(8) ? 16 : 400)) * SECTOR;

    if (size > left)
        size = left;
    switch (random_number(16)) {
    case 0:
        assert_int_equal(request(m->node, BLOCK_ZERO, offset, NULL, size), 0);
        memset(m->bytes + offset, 0, size);
        break;
    case 1:
        discard(m, offset, size);
        break;
    case 2:
        assert_int_equal(block_node_flush(m->node), 0);
        break;
    case 3:
        if (random_number(4) == 0)
            reopen(m);
        break;
    case 4:
        write_compressed(m, offset);
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        compare(m, offset, size);
        break;
    default:
        write_random(m, offset, size);
    }
}

static void run_model(uint64_t seed, uint64_t size, uint32_t cluster, unsigned version,
                      uint64_t below_size, unsigned steps)
{
    struct model m = {.size = size, .bytes = calloc(1, size)};

    random_state = seed;
    m.file = new_image(size, cluster, version, below_size ? "below" : NULL);
    if (below_size) {
        uint64_t shared = below_size < size ? below_size : size;

        for (uint64_t n = 0; n < shared; n++)
            m.bytes[n] = (uint8_t)random_number(256);
        m.below = memory_new(m.bytes, shared, MAX_FILE);
        m.below->is_kept = true;
    }
    m.node = open_image(m.file, m.below);
    for (unsigned n = 0; n < steps; n++)
        step(&m);
    compare(&m, 0, size);
    block_node_close(m.node);
    check_clean(m.file);
    m.node = open_image(m.file, m.below);
    compare(&m, 0, size);
    block_node_close(m.node);
    memory_free(m.file);
    if (m.below)
        memory_free(m.below);
    free(m.bytes);
}

static void test_random_requests(void **state)
{
    run_model(1, 512 * KIB, 512, 3, 0, 3000);
    run_model(2, 512 * KIB + 512, 512, 2, 0, 3000);
    run_model(3, 700 * KIB + 512, 4096, 3, 300 * KIB + 1024, 3000);
    run_model(4, 700 * KIB + 512, 4096, 2, 900 * KIB, 3000);
    run_model(5, 3000 * KIB + 1024, 64 * KIB, 3, 1000 * KIB, 2000);
    run_model(6, 5000 * KIB, 2048 * KIB, 3, 0, 300);
}

/* The refcount table of small clusters is too small after 8 MiB. */
static void test_refcount_table_grows(void **state)
{
    struct model m = {.size = 20 << 20, .bytes = calloc(1, 20 << 20)};

    m.file = new_image(m.size, 512, 3, NULL);
    m.node = open_image(m.file, NULL);
    for (uint64_t at = 0; at < m.size; at += 256 * KIB)
        write_random(&m, at, 256 * KIB);
    compare(&m, 0, m.size);
    block_node_close(m.node);
    check_clean(m.file);
    memory_free(m.file);
    free(m.bytes);
}

static void test_compression_zstd(void **state)
{
    const struct qcow2_create_options options = {
        .size_bytes = 1 << 20, .version = 3, .cluster_bytes = 4096, .compression = QCOW2_ZSTD};
    struct model m = {.size = 1 << 20, .bytes = calloc(1, 1 << 20)};
    struct error err = {0};

    if (!qcow2_can_compress(QCOW2_ZSTD))
        skip();
    m.file = memory_new(NULL, 0, MAX_FILE);
    m.file->is_kept = true;
    assert_int_equal(qcow2_create(&m.file->node, &options, &err), 0);
    m.node = open_image(m.file, NULL);
    for (uint64_t at = 0; at < m.size; at += 4096)
        write_compressed(&m, at);
    compare(&m, 0, m.size);
    write_random(&m, 512, 100 * KIB);
    compare(&m, 0, m.size);
    block_node_close(m.node);
    check_clean(m.file);
    memory_free(m.file);
    free(m.bytes);
}

static void test_sizes_change(void **state)
{
    struct model m = {.size = 100 * KIB, .bytes = calloc(1, 4 << 20)};
    struct error err = {0};

    random_state = 8;
    for (uint64_t n = 0; n < 300 * KIB; n++)
        m.bytes[n] = (uint8_t)random_number(256);
    m.below = memory_new(m.bytes, 300 * KIB, MAX_FILE);
    m.below->is_kept = true;
    memset(m.bytes + m.size, 0, 200 * KIB);
    m.file = new_image(m.size, 512, 3, "below");
    m.node = open_image(m.file, m.below);
    for (unsigned n = 0; n < 40; n++) {
        uint64_t size = (1 + random_number((4 << 20) / SECTOR)) * (uint64_t)SECTOR;

        for (unsigned s = 0; s < 20; s++)
            step(&m);
        assert_int_equal(qcow2_resize(m.node, size, &err), 0);
        if (size < m.size)
            memset(m.bytes + size, 0, m.size - size);
        m.size = size;
        compare(&m, 0, m.size);
        reopen(&m);
        compare(&m, 0, m.size);
    }
    block_node_close(m.node);
    check_clean(m.file);
    memory_free(m.file);
    memory_free(m.below);
    free(m.bytes);
}

/* ---- cut power ---- */

#define POWER_SECTORS 512u
#define NO_VALUE      UINT32_MAX

/* All that a sector was given, with the event of the file before which it was. */
struct past {
    uint32_t value; /* first word of the sector */
    size_t event;
    bool is_discard; /* it may have the value before it still */
};

struct power {
    struct memory_file *file, *below;
    struct block_node *node;
    struct past *past[POWER_SECTORS];
    unsigned past_count[POWER_SECTORS];
    size_t *flushed_at; /* events at the start and the end of each flush */
    size_t *flush_ended;
    unsigned flush_count;
};

static void remember(struct power *p, uint32_t sector, uint32_t value, bool is_discard)
{
    unsigned count = p->past_count[sector]++;

    p->past[sector] = realloc(p->past[sector], (count + 1) * sizeof(struct past));
    p->past[sector][count] = (struct past){value, p->file->event_count, is_discard};
}

static void power_flush(struct power *p)
{
    unsigned n = p->flush_count++;

    p->flushed_at = realloc(p->flushed_at, (n + 1) * sizeof(size_t));
    p->flush_ended = realloc(p->flush_ended, (n + 1) * sizeof(size_t));
    p->flushed_at[n] = p->file->event_count;
    assert_int_equal(block_node_flush(p->node), 0);
    p->flush_ended[n] = p->file->event_count;
}

static void power_step(struct power *p, uint32_t stamp)
{
    uint32_t sector = random_number(POWER_SECTORS), kind = random_number(10);
    uint32_t count = 1 + random_number(random_number(4) ? 4 : 40);
    uint32_t data[40 * SECTOR / 4] = {0};

    if (count > POWER_SECTORS - sector)
        count = POWER_SECTORS - sector;
    if (kind == 0) {
        power_flush(p);
        return;
    }
    for (uint32_t n = 0; n < count; n++)
        remember(p, sector + n, kind < 3 ? 0 : stamp, kind == 1);
    for (uint32_t n = 0; n < count * SECTOR / 4; n++)
        data[n] = stamp;
    if (kind < 3)
        assert_int_equal(block_node_clear(p->node, kind == 1 ? BLOCK_DISCARD : BLOCK_ZERO,
                                          sector * (uint64_t)SECTOR, count * (uint64_t)SECTOR),
                         0);
    else
        assert_int_equal(
            block_node_write(p->node, sector * (uint64_t)SECTOR, data, count * (size_t)SECTOR), 0);
}

/* May a sector have this value when the power fails before event cut? */
static bool is_possible(const struct power *p, uint32_t sector, uint32_t value, size_t cut)
{
    size_t durable = 0;
    bool any_flush = false;

    for (unsigned n = 0; n < p->flush_count; n++)
        if (p->flush_ended[n] <= cut) {
            durable = p->flushed_at[n];
            any_flush = true;
        }
    for (unsigned n = p->past_count[sector]; n-- > 0;) {
        const struct past *past = &p->past[sector][n];

        if (past->event > cut)
            continue;
        if (past->value == value)
            return true;
        if (any_flush && past->event <= durable && !past->is_discard)
            return false;
    }
    return false;
}

/* The file if some of the writes since the last barrier came to nothing, or half. */
static struct memory_file *cut_file(const struct power *p, const struct memory_file *durable,
                                    size_t barrier, size_t cut, unsigned how)
{
    struct memory_file *file = memory_new(durable->data, durable->length, MAX_FILE);

    file->is_kept = true;
    for (size_t n = barrier; n < cut; n++) {
        const struct memory_event *event = &p->file->events[n];

        for (size_t at = 0; at < event->size_bytes; at += SECTOR) {
            size_t size = event->size_bytes - at < SECTOR ? event->size_bytes - at : SECTOR;

            if (how == 0 || (how == 1 && random_number(2)) || (how == 2 && at && random_number(8)))
                continue;
            assert_int_equal(memory_extend(file, event->offset + at + size), 0);
            if (event->data)
                memcpy(file->data + event->offset + at, event->data + at, size);
            else
                memset(file->data + event->offset + at, 0, size);
        }
    }
    return file;
}

static void check_cut(const struct power *p, struct memory_file *file, size_t cut)
{
    struct qcow2_check_result result = check(file, false, false);
    struct block_node *node;

    if (result.corruptions)
        fail_msg("power cut before event %zu: the image is corrupt", cut);
    node = open_image(file, p->below);
    for (uint32_t sector = 0; sector < POWER_SECTORS; sector++) {
        uint32_t data[SECTOR / 4];

        assert_int_equal(block_node_read(node, sector * (uint64_t)SECTOR, data, SECTOR), 0);
        if (!is_possible(p, sector, data[0], cut))
            fail_msg("power cut before event %zu: sector %u is %u", cut, sector, data[0]);
    }
    block_node_close(node);
}

/* durable: the file before the first event; freed here. */
static void cut_everywhere(struct power *p, struct memory_file *durable)
{
    size_t barrier = 0;

    for (size_t cut = 0; cut <= p->file->event_count; cut++) {
        bool is_barrier = cut < p->file->event_count && !p->file->events[cut].size_bytes;

        for (unsigned how = 0; how < 4; how++) {
            struct memory_file *file = cut_file(p, durable, barrier, cut, how);

            check_cut(p, file, cut);
            memory_free(file);
        }
        if (is_barrier) {
            struct memory_file *next = cut_file(p, durable, barrier, cut, 3);

            memory_free(durable);
            durable = next;
            barrier = cut + 1;
        }
    }
    memory_free(durable);
}

static void run_power(uint64_t seed, uint32_t cluster, unsigned version, bool has_below)
{
    struct power p = {0};
    struct memory_file *start;
    uint32_t *below = calloc(POWER_SECTORS, SECTOR);

    random_state = seed;
    for (uint32_t n = 0; n < POWER_SECTORS * SECTOR / 4; n++)
        below[n] = has_below ? 1000000 + n / (SECTOR / 4) : 0;
    p.below = memory_new(below, POWER_SECTORS * SECTOR, MAX_FILE);
    p.below->is_kept = true;
    p.file = new_image(POWER_SECTORS * SECTOR, cluster, version, has_below ? "below" : NULL);
    p.file->is_noted = true;
    start = memory_new(p.file->data, p.file->length, MAX_FILE);
    start->is_kept = true;
    for (uint32_t sector = 0; sector < POWER_SECTORS; sector++)
        remember(&p, sector, below[sector * (SECTOR / 4)], false);
    p.node = open_image(p.file, p.below);
    for (uint32_t stamp = 1; stamp <= 120; stamp++)
        power_step(&p, stamp);
    block_node_close(p.node);
    cut_everywhere(&p, start);
    for (uint32_t sector = 0; sector < POWER_SECTORS; sector++)
        free(p.past[sector]);
    free(p.flushed_at);
    free(p.flush_ended);
    memory_free(p.file);
    memory_free(p.below);
    free(below);
}

static void test_power_cuts(void **state)
{
    run_power(1, 512, 3, false);
    run_power(2, 512, 3, true);
    run_power(3, 2048, 2, false);
    run_power(4, 4096, 3, true);
}

/* ---- images that contradict themselves ---- */

static void assert_refused(struct memory_file *file, bool readonly, const char *why)
{
    struct error err = {0};
    struct block_node *node = try_open(file, readonly, false, &err);

    assert_null(node);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in '%s'", why, err.text);
}

static void test_headers_are_checked(void **state)
{
    static const struct {
        uint32_t at, size;
        uint64_t value;
        const char *why;
    } cases[] = {
        {QCOW2_AT_VERSION, 4, 4, "version 4"},
        {QCOW2_AT_CLUSTER_BITS, 4, 8, "2^8"},
        {QCOW2_AT_CLUSTER_BITS, 4, 22, "2^22"},
        {QCOW2_AT_SIZE, 8, 0, "no sector"},
        {QCOW2_AT_SIZE, 8, UINT64_MAX, "too small"},
        {QCOW2_AT_CRYPT_METHOD, 4, 1, "AES"},
        {QCOW2_AT_CRYPT_METHOD, 4, 2, "LUKS"},
        {QCOW2_AT_L1_SIZE, 4, UINT32_MAX, "L1 table has"},
        {QCOW2_AT_L1_SIZE, 4, 0, "too small"},
        {QCOW2_AT_L1_OFFSET, 8, 513, "where it cannot be"},
        {QCOW2_AT_L1_OFFSET, 8, 1ull << 63, "where it cannot be"},
        {QCOW2_AT_REFTABLE_OFFSET, 8, 0, "where it cannot be"},
        {QCOW2_AT_REFTABLE_CLUSTERS, 4, 0, "no refcount table"},
        {QCOW2_AT_REFTABLE_CLUSTERS, 4, UINT32_MAX, "refcount table has"},
        {QCOW2_AT_SNAPSHOTS, 4, UINT32_MAX, "snapshots"},
        {QCOW2_AT_INCOMPATIBLE, 8, 1 << 2, "an external data file"},
        {QCOW2_AT_INCOMPATIBLE, 8, 1 << 4, "extended L2"},
        {QCOW2_AT_INCOMPATIBLE, 8, 1ull << 40, "bit 40"},
        {QCOW2_AT_REFCOUNT_ORDER, 4, 7, "2^7"},
        {QCOW2_AT_HEADER_BYTES, 4, 100, "header has 100"},
        {QCOW2_AT_BACKING_SIZE, 4, 5000, "too long"},
    };

    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        struct memory_file *file = new_image(1 << 20, 4096, 3, "below");

        if (cases[n].size == 8)
            put_be64(file->data + cases[n].at, cases[n].value);
        else
            put_be32(file->data + cases[n].at, (uint32_t)cases[n].value);
        assert_refused(file, true, cases[n].why);
        memory_free(file);
    }
}

static void test_marks_keep_writers_out(void **state)
{
    struct memory_file *file = new_image(1 << 20, 4096, 3, NULL);
    struct error err = {0};

    put_be64(file->data + QCOW2_AT_INCOMPATIBLE, QCOW2_CORRUPT);
    assert_refused(file, false, "marked as corrupt");
    put_be64(file->data + QCOW2_AT_INCOMPATIBLE, QCOW2_DIRTY);
    assert_refused(file, false, "was not closed");
    block_node_close(try_open(file, true, false, &err));
    assert_int_equal(err.code, 0);
    check(file, true, false);
    block_node_close(open_image(file, NULL));
    assert_int_equal(get_be64(file->data + QCOW2_AT_INCOMPATIBLE), 0);
    memory_free(file);
}

/* Where the image keeps what is first written to its disk: the L2 entry, and the L2 table. */
static struct memory_file *image_with_data(uint64_t *out_l2)
{
    struct memory_file *file = new_image(1 << 20, 4096, 3, NULL);
    struct block_node *node = open_image(file, NULL);
    uint8_t data[8192];

    memset(data, 1, sizeof(data));
    assert_int_equal(block_node_write(node, 0, data, sizeof(data)), 0);
    block_node_close(node);
    *out_l2 = get_be64(file->data + get_be64(file->data + QCOW2_AT_L1_OFFSET)) & QCOW2_OFFSET_MASK;
    return file;
}

static void test_tables_are_never_overwritten(void **state)
{
    static const uint32_t fields[] = {QCOW2_AT_L1_OFFSET, QCOW2_AT_REFTABLE_OFFSET};

    for (unsigned n = 0; n < 4; n++) {
        uint64_t l2, victim, offset;
        struct memory_file *file = image_with_data(&l2), *before;
        uint8_t data[4096] = {0};
        struct block_node *node;
        struct error err = {0};

        victim = n == 2 ? l2 : get_be64(file->data + fields[n < 2 ? n : 1]);
        if (n == 3) /* the refcount block */
            victim = get_be64(file->data + victim);
        put_be64(file->data + l2, victim | QCOW2_COPIED);
        before = memory_new(file->data, file->length, MAX_FILE);
        node = open_image(file, NULL);
        assert_int_equal(block_node_write(node, 512, data, 512), -EIO);
        assert_int_equal(block_node_write(node, 4096, data, 512),
                         -EIO); /* nothing at all any more */
        block_node_close(node);
        assert_true(get_be64(file->data + QCOW2_AT_INCOMPATIBLE) & QCOW2_CORRUPT);
        put_be64(file->data + QCOW2_AT_INCOMPATIBLE, 0);
        assert_memory_equal(file->data, before->data, file->length);
        for (offset = 0; offset < 2; offset++) { /* nor given back */
            node = open_image(file, NULL);
            assert_int_equal(block_node_clear(node, offset ? BLOCK_ZERO : BLOCK_DISCARD, 0, 4096),
                             -EIO);
            block_node_close(node);
            put_be64(file->data + QCOW2_AT_INCOMPATIBLE, 0);
            assert_memory_equal(file->data, before->data, file->length);
        }
        assert_true(check(file, false, false).corruptions > 0);
        check(file, true, false);
        check_clean(file);
        node = try_open(file, false, false, &err);
        assert_non_null(node);
        block_node_close(node);
        memory_free(file);
        block_node_close(&before->node);
    }
}

static void test_free_tables_are_not_allocated(void **state)
{
    uint64_t l2, block;
    struct memory_file *file = image_with_data(&l2);
    struct block_node *node;
    uint8_t data[4096] = {0};

    block = get_be64(file->data + get_be64(file->data + QCOW2_AT_REFTABLE_OFFSET));
    memset(file->data + block, 0, 4096); /* all is free, it says */
    node = open_image(file, NULL);
    assert_int_equal(block_node_write(node, 100 * KIB, data, 4096), -EIO);
    block_node_close(node);
    assert_true(get_be64(file->data + QCOW2_AT_INCOMPATIBLE) & QCOW2_CORRUPT);
    check(file, true, false);
    check_clean(file);
    memory_free(file);
}

static void test_overlapping_tables_are_refused(void **state)
{
    uint64_t l2, l1;
    struct memory_file *file = image_with_data(&l2);

    l1 = get_be64(file->data + QCOW2_AT_L1_OFFSET);
    put_be64(file->data + l1 + 8, l2 | QCOW2_COPIED);
    put_be64(file->data + QCOW2_AT_SIZE, 4 << 20);
    put_be32(file->data + QCOW2_AT_L1_SIZE, 2);
    assert_refused(file, false, "overlaps another table");
    assert_true(check(file, true, false).corruptions > 0);
    check_clean(file);
    block_node_close(open_image(file, NULL));
    memory_free(file);
}

static void test_what_is_behind_the_end_of_the_file(void **state)
{
    uint64_t l2;
    struct memory_file *file = image_with_data(&l2);
    struct block_node *node;
    struct qcow2_check_result result;
    struct error err = {0};
    bool loud = false;
    uint8_t data[4096], zeros[4096] = {0};

    put_be64(file->data + l2, 1ull << 40 | QCOW2_COPIED);
    node = open_image(file, NULL);
    assert_int_equal(block_node_read(node, 0, data, sizeof(data)), 0);
    assert_memory_equal(data, zeros, sizeof(data));
    block_node_close(node);
    assert_true(check(file, true, false).corruptions > 0);
    check_clean(file);
    file->length = 4096; /* the header alone */
    node = try_open(file, false, true, &err);
    assert_non_null(node);
    assert_int_equal(qcow2_check(node, true, ignore, &loud, &result, &err), -ENOTSUP);
    block_node_close(node);
    memory_free(file);
}

/* ---- errors of the file ---- */

/* Each write to the file fails in turn: no crash, no hang, and at worst leaks. */
static void test_failing_writes(void **state)
{
    for (unsigned fail_in = 1; fail_in < 60; fail_in++) {
        struct memory_file *file = new_image(256 * KIB, 512, 3, NULL);
        struct block_node *node = open_image(file, NULL);
        uint8_t data[3000] = {1};

        random_state = fail_in;
        file->fail_in = fail_in;
        for (unsigned n = 0; n < 60; n++) {
            uint64_t offset = random_number(500) * (uint64_t)SECTOR;

            if (n % 8 == 7)
                block_node_flush(node);
            else if (n % 5 == 4)
                block_node_clear(node, BLOCK_ZERO, offset, 2048);
            else
                block_node_write(node, offset, data, 5 * SECTOR);
        }
        block_node_close(node);
        assert_int_equal(check(file, false, true).corruptions, 0);
        memory_free(file);
    }
}

/* ---- formats that are found out, and what is over an image ---- */

/* A raw file of 64 KiB; its name in path. */
static void make_raw(char path[static 32])
{
    uint8_t data[64 * KIB];
    FILE *file;

    strcpy(path, "/tmp/test-raw-XXXXXX");
    file = fdopen(mkstemp(path), "wb");
    memset(data, 3, sizeof(data));
    assert_int_equal(fwrite(data, 1, sizeof(data), file), sizeof(data));
    fclose(file);
}

static struct block_node *open_path(char *path, char *format, bool readonly)
{
    const struct block_options options = {
        .file = path, .format = format, .readonly = readonly, .discard = true, .lock = true};
    struct error err = {0};
    struct block_node *node = block_node_open(&options, NULL, &err);

    if (!node)
        fail_msg("%s", err.text);
    return node;
}

static void test_a_raw_disk_does_not_become_another_format(void **state)
{
    static const char *const starts[] = {"QFI\xfb\0\0\0\3", "KDMV\1\0\0", "conectix", "vhdxfile"};
    char path[32], raw[] = "raw";
    struct block_node *node;
    uint8_t sector[1024];

    make_raw(path);
    node = open_path(path, NULL, false);
    for (size_t n = 0; n < sizeof(starts) / sizeof(starts[0]); n++) {
        memset(sector, 5, sizeof(sector));
        memcpy(sector, starts[n], 8);
        assert_int_equal(request(node, BLOCK_WRITE, 0, sector, sizeof(sector)), -EPERM);
        assert_int_equal(block_node_write(node, 0, sector, 3), 0); /* the rest makes it one */
        assert_int_equal(block_node_write(node, 3, sector + 3, 5), -EPERM);
        assert_int_equal(request(node, BLOCK_WRITE, 512, sector, sizeof(sector)), 0);
    }
    memset(sector, 5, sizeof(sector));
    assert_int_equal(request(node, BLOCK_WRITE, 0, sector, sizeof(sector)), 0);
    block_node_close(node);
    node = open_path(path, raw, false);
    memcpy(sector, starts[0], 8);
    assert_int_equal(request(node, BLOCK_WRITE, 0, sector, sizeof(sector)), 0);
    block_node_close(node);
    unlink(path);
}

static void test_a_snapshot_leaves_the_image(void **state)
{
    char path[32];
    struct error err = {0};
    struct block_node *node;
    uint8_t data[5000], now[5000];

    make_raw(path);
    node = block_snapshot_new(open_path(path, NULL, true), &err);
    assert_non_null(node);
    memset(data, 9, sizeof(data));
    assert_int_equal(block_node_write(node, 1000, data, sizeof(data)), 0);
    assert_int_equal(block_node_flush(node), 0);
    assert_int_equal(block_node_read(node, 1000, now, sizeof(now)), 0);
    assert_memory_equal(data, now, sizeof(now));
    block_node_close(node);
    node = open_path(path, NULL, true);
    assert_int_equal(block_node_read(node, 1000, now, sizeof(now)), 0);
    memset(data, 3, sizeof(data));
    assert_memory_equal(data, now, sizeof(now));
    block_node_close(node);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_requests),
        cmocka_unit_test(test_refcount_table_grows),
        cmocka_unit_test(test_compression_zstd),
        cmocka_unit_test(test_sizes_change),
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_headers_are_checked),
        cmocka_unit_test(test_marks_keep_writers_out),
        cmocka_unit_test(test_tables_are_never_overwritten),
        cmocka_unit_test(test_free_tables_are_not_allocated),
        cmocka_unit_test(test_overlapping_tables_are_refused),
        cmocka_unit_test(test_what_is_behind_the_end_of_the_file),
        cmocka_unit_test(test_failing_writes),
        cmocka_unit_test(test_a_raw_disk_does_not_become_another_format),
        cmocka_unit_test(test_a_snapshot_leaves_the_image),
    };

    setvbuf(stdout, NULL, _IONBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
