/*
 * block.c - requests to block nodes, executed on worker threads
 *
 * A request that needs no disk (small, and in the host's page cache) is executed at once, where it
 * is submitted: handing it over would take longer. What the kernel can execute by itself goes into
 * a ring. Where a disk is throttled all of them wait before that.
 *
 * A request that fails may be kept until the machine is paused, and its device takes it back.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/internal.h"
#include "base/log.h"
#include "host/ring.h"
#include "host/work.h"

#define THREADS     4u
#define SMALL_BYTES (64u << 10) /* more is copied elsewhere, so that the caller's lock is free */
#define MAX_WORKS   256u        /* kept for later requests */

struct block_work {
    struct work work;
    struct throttled throttled;
    struct block_later later;
    struct block *block;
    struct block_request *request;
    int status;
    bool is_postponed;       /* kept for want of patience */
    struct block_work *next; /* in block->spare or block->kept */
};

/* Whose requests end. */
struct drain {
    block_owns_fn *owns; /* NULL: all */
    const void *owner;
};

/* What is done about an error. */
enum error_policy { ERROR_REPORT, ERROR_PAUSE, ERROR_IGNORE, ERROR_ENOSPC };

static const char *const error_policies[] = {[ERROR_REPORT] = "report",
                                             [ERROR_PAUSE] = "pause",
                                             [ERROR_IGNORE] = "ignore",
                                             [ERROR_ENOSPC] = "enospc"};

/* How the host's cache is used. */
static const struct cache_mode {
    const char *name;
    bool is_direct, is_write_through, is_volatile;
} cache_modes[] = {{"writeback", false, false, false},
                   {"none", true, false, false},
                   {"writethrough", false, true, false},
                   {"directsync", true, true, false},
                   {"unsafe", false, false, true}};

struct block {
    char *name; /* of its file */
    struct block_node *node;
    struct work_pool *pool;
    const struct cache_mode *cache;
    struct throttle *throttle; /* NULL: none */
    struct ring *ring;         /* NULL: none */
    unsigned under_way;        /* on worker threads and in the ring */
    struct block_work *spare;
    unsigned spare_count;
    enum error_policy read_error, write_error;
    block_pause_fn *pause;
    void *pause_opaque;
    struct block_work *kept, **kept_end; /* in the order in which they failed */
    const struct drain *drain;           /* NULL: none; their errors are reported */
    _Atomic bool impatient;              /* nodes shall not wait; what fails is kept */
    struct block_counts counts;
};

/* "throttle.NAME" and what belongs to it. */
#define THROTTLE(name, what)                                                                       \
    PROPERTY_U64(struct block_options, throttle.name, 0, what " a second at most, 0: any number"), \
        PROPERTY_U64(struct block_options, throttle.name##_max, 0, what " a second in a burst"),   \
        PROPERTY_U32(struct block_options, throttle.name##_max_length, 1,                          \
                     "seconds that a burst may last")

const struct property block_properties[] = {
    PROPERTY_STRING(struct block_options, file, NULL, "image file or device"),
    PROPERTY_STRING(struct block_options, format, NULL,
                    "format of the image: " BLOCK_FORMAT_NAMES "; found out if it is not given"),
    PROPERTY_BOOL(struct block_options, readonly, 0, "open it for reading only"),
    PROPERTY_BOOL(struct block_options, discard, 1, "give room back that the guest discards"),
    PROPERTY_BOOL(struct block_options, snapshot, 0,
                  "write nothing to the image: changes are gone at the end"),
    PROPERTY_BOOL(struct block_options, lock, 1, "refuse an image that somebody else has open"),
    PROPERTY_STRING(struct block_options, werror, "enospc",
                    "when writing fails: report it to the guest, pause the machine, ignore it, or "
                    "enospc: pause if there is no room, else report"),
    PROPERTY_STRING(struct block_options, rerror, "report",
                    "when reading fails: report, pause, ignore or enospc"),
    PROPERTY_U32(struct block_options, reconnect, 60,
                 "seconds that requests wait for an NBD server that is away before they fail"),
    PROPERTY_STRING(struct block_options, cache, "writeback",
                    "writeback: the host's page cache; none: past it; writethrough, directsync: "
                    "the same, and each write is safe when it ends; unsafe: flushes do nothing"),
    PROPERTY_STRING(struct block_options, aio, NULL,
                    "who waits for the disk: io_uring (the kernel) or threads; if nothing is said "
                    "the kernel for what is read, where it can"),
    THROTTLE(iops, "requests"),
    THROTTLE(iops_rd, "reads"),
    THROTTLE(iops_wr, "writes"),
    THROTTLE(bps, "bytes"),
    THROTTLE(bps_rd, "bytes read"),
    THROTTLE(bps_wr, "bytes written"),
    PROPERTY_U64(struct block_options, throttle.iops_size, 0,
                 "larger requests count as several of so many bytes"),
    PROPERTY_STRING(struct block_options, fault, NULL,
                    "for tests: OPERATION:NUMBER[:COUNT[:ERROR]] lets some fail, slow:MS all wait"),
    PROPERTY_END,
};

/* ---- opening ---- */

/* Does it begin with a property? A file's name may have a "=" in it. */
static bool begins_with_property(const char *description)
{
    size_t length = strcspn(description, "=,");

    for (const struct property *p = block_properties; p->name; p++)
        if (description[length] == '=' && strlen(p->name) == length &&
            strncmp(p->name, description, length) == 0)
            return true;
    return false;
}

/* The first word is the file, with or without "file=". */
static int parse_options(struct block_options *options, const char *description, struct error *err)
{
    size_t length = strlen(description) + sizeof("file=");
    char *text = malloc(length);
    int result;

    if (!text || properties_init(block_properties, options, err)) {
        free(text);
        return error_set(err, ENOMEM, "out of memory");
    }
    snprintf(text, length, "%s%s", begins_with_property(description) ? "" : "file=", description);
    result = properties_parse(block_properties, options, text, err);
    free(text);
    if (!result && (!options->file || !*options->file))
        result = error_set(err, EINVAL, "which file? Give FILE[,PROPERTY=VALUE]...");
    return result;
}

static int parse_policy(const char *name, const char *text, enum error_policy *out,
                        struct error *err)
{
    for (unsigned n = 0; n < sizeof(error_policies) / sizeof(error_policies[0]); n++)
        if (strcmp(text, error_policies[n]) == 0) {
            *out = n;
            return 0;
        }
    return error_set(err, EINVAL, "%s=%s: it can be report, pause, ignore or enospc", name, text);
}

static int parse_cache(struct block *block, struct block_options *options, struct error *err)
{
    for (size_t n = 0; n < sizeof(cache_modes) / sizeof(cache_modes[0]); n++)
        if (strcmp(options->cache, cache_modes[n].name) == 0)
            block->cache = &cache_modes[n];
    if (!block->cache)
        return error_set(err, EINVAL,
                         "cache=%s: it can be writeback, none, writethrough, directsync or unsafe",
                         options->cache);
    options->is_direct = block->cache->is_direct;
    options->is_volatile = block->cache->is_volatile;
    return 0;
}

/* Without aio=io_uring it goes without. */
static int make_ring(struct block *block, struct loop *loop, struct block_options *options,
                     struct error *err)
{
    bool is_wanted = options->aio && strcmp(options->aio, "io_uring") == 0;
    struct error why = {0};

    if (options->aio && !is_wanted)
        return strcmp(options->aio, "threads") == 0
                   ? 0
                   : error_set(err, EINVAL, "aio=%s: it can be io_uring or threads", options->aio);
    block->ring = ring_new(loop, block_file_ring_done, &why);
    options->ring = block->ring;
    options->ring_writes = is_wanted;
    if (!block->ring)
        log_debug("disk %s: no io_uring: %s", options->file, why.text);
    if (!block->ring && is_wanted)
        return error_set(err, ENOTSUP, "aio=io_uring: %s", why.text);
    return 0;
}

static void start_throttled(struct throttled *throttled);

static struct block_node *open_stack(struct block_options *options, struct error *err)
{
    struct block_node *node;

    if (options->snapshot)
        options->readonly = true;
    node = block_node_open(options, NULL, err);
    if (node && options->snapshot)
        node = block_snapshot_new(node, err);
    if (node && options->fault)
        node = block_fault_new(node, options->fault, err);
    return node;
}

static int open_node(struct block *block, struct loop *loop, const char *description,
                     struct error *err)
{
    struct block_options options = {.impatient = &block->impatient};

    if (!parse_options(&options, description, err) &&
        !parse_policy("werror", options.werror, &block->write_error, err) &&
        !parse_policy("rerror", options.rerror, &block->read_error, err) &&
        !parse_cache(block, &options, err) &&
        !throttle_new(&options.throttle, loop, start_throttled, &block->throttle, err) &&
        !make_ring(block, loop, &options, err)) {
        block->node = open_stack(&options, err);
        block->name = options.file;
        options.file = NULL;
    }
    properties_done(block_properties, &options);
    return block->node ? 0 : -EINVAL;
}

struct block *block_open(struct loop *loop, const char *description, struct error *err)
{
    struct block *block = calloc(1, sizeof(*block));

    if (!block) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    block->kept_end = &block->kept;
    if (!open_node(block, loop, description, err))
        block->pool = work_pool_new(loop, THREADS, err);
    if (block->pool)
        return block;
    block_free(block);
    return NULL;
}

void block_free(struct block *block)
{
    const struct block_request flush = {.op = BLOCK_FLUSH};

    if (!block)
        return;
    assert(!block->kept && !block->under_way);
    work_pool_free(block->pool);
    if (block->node) {
        int status = block->node->read_only ? 0 : block->node->ops->execute(block->node, &flush);

        if (status)
            log_error("disk %s: not all of it was written: %s", block->name, strerror(-status));
        block->node->ops->close(block->node);
    }
    ring_free(block->ring);
    throttle_free(block->throttle);
    free(block->name);
    while (block->spare) {
        struct block_work *work = block->spare;

        block->spare = work->next;
        free(work);
    }
    free(block);
}

uint64_t block_size_bytes(const struct block *block)
{
    return block->node->size_bytes;
}

bool block_is_read_only(const struct block *block)
{
    return block->node->read_only;
}

bool block_has_ring(const struct block *block)
{
    return block->ring != NULL;
}

bool block_is_write_through(const struct block *block)
{
    return block->cache->is_write_through;
}

bool block_can_discard(const struct block *block)
{
    return block->node->can_discard && !block->node->read_only;
}

struct block_counts block_counts(const struct block *block)
{
    return block->counts;
}

bool block_is_remote(const struct block *block)
{
    return block_is_uri(block->name);
}

/* ---- requests ---- */

/* -EINPROGRESS: there is something to do. */
static int check_request(const struct block *block, const struct block_request *request)
{
    const struct block_node *node = block->node;

    if (request->op == BLOCK_FLUSH)
        return block->cache->is_write_through ? 0 : -EINPROGRESS;
    if (request->offset > node->size_bytes ||
        request->size_bytes > node->size_bytes - request->offset)
        return -EINVAL;
    return node->read_only && request->op != BLOCK_READ ? -EROFS : -EINPROGRESS;
}

static struct block_work *take_work(struct block *block)
{
    struct block_work *work = block->spare;

    if (!work)
        return calloc(1, sizeof(*work));
    block->spare = work->next;
    block->spare_count--;
    return work;
}

static void give_back(struct block *block, struct block_work *work)
{
    if (block->spare_count == MAX_WORKS) {
        free(work);
        return;
    }
    work->next = block->spare;
    block->spare = work;
    block->spare_count++;
}

/* ---- errors ---- */

void block_set_pause(struct block *block, block_pause_fn *pause, void *opaque)
{
    block->pause = pause;
    block->pause_opaque = opaque;
}

static bool is_drained(const struct block *block, const struct block_request *request)
{
    const struct drain *drain = block->drain;

    return drain && (!drain->owns || drain->owns(drain->owner, request));
}

static bool keep(struct block *block, struct block_request *request, int status, bool postponed)
{
    struct block_work *work = take_work(block);

    if (!work)
        return false;
    *work = (struct block_work){.request = request, .status = status, .is_postponed = postponed};
    *block->kept_end = work;
    block->kept_end = &work->next;
    return true;
}

static void ask_for_pause(struct block *block, const struct block_request *request, int status)
{
    static const char *const verbs[] = {[BLOCK_READ] = "read",
                                        [BLOCK_WRITE] = "write",
                                        [BLOCK_FLUSH] = "flush",
                                        [BLOCK_DISCARD] = "discard",
                                        [BLOCK_ZERO] = "zero"};
    char why[512];

    snprintf(why, sizeof(why), "disk %s: cannot %s %llu bytes at %llu: %s", block->name,
             verbs[request->op], (unsigned long long)request->size_bytes,
             (unsigned long long)request->offset, strerror(-status));
    block->pause(block->pause_opaque, why);
}

static void count(struct block_counts *counts, const struct block_request *request)
{
    if (request->op == BLOCK_READ) {
        counts->reads++;
        counts->read_bytes += request->size_bytes;
    } else if (request->op == BLOCK_WRITE) {
        counts->writes++;
        counts->written_bytes += request->size_bytes;
    }
}

/* The request ends, unless it is kept. */
static void end_request(struct block *block, struct block_request *request, int status)
{
    enum error_policy policy = request->op == BLOCK_READ ? block->read_error : block->write_error;

    if (status && atomic_load(&block->impatient) && keep(block, request, status, true))
        return;
    if (policy == ERROR_ENOSPC)
        policy = status == -ENOSPC || status == -EDQUOT ? ERROR_PAUSE : ERROR_REPORT;
    if (status && policy == ERROR_PAUSE && block->pause && !is_drained(block, request) &&
        keep(block, request, status, false)) {
        ask_for_pause(block, request, status);
        return;
    }
    if (!status)
        count(&block->counts, request);
    request->done(request, policy == ERROR_IGNORE ? 0 : status);
}

/* The first that is_meant. It is kept no longer. */
static struct block_request *take_kept(struct block *block,
                                       bool (*is_meant)(const struct block *block,
                                                        const struct block_work *work),
                                       int *out_status)
{
    for (struct block_work **at = &block->kept; *at; at = &(*at)->next) {
        struct block_work *work = *at;
        struct block_request *request = work->request;

        if (!is_meant(block, work))
            continue;
        *at = work->next;
        if (!*at)
            block->kept_end = at;
        *out_status = work->status;
        give_back(block, work);
        return request;
    }
    return NULL;
}

/* ---- their execution ---- */

/* Written to the disk before it ends? */
static bool must_be_safe(const struct block *block, const struct block_request *request)
{
    return block->cache->is_write_through && request->op != BLOCK_READ;
}

static void run_work(struct work *opaque)
{
    struct block_work *work = (struct block_work *)opaque;
    struct block_node *node = work->block->node;

    work->status = node->ops->execute(node, work->request);
    if (!work->status && must_be_safe(work->block, work->request))
        work->status = block_node_flush(node);
}

static void end_work(struct block_work *work)
{
    struct block *block = work->block;
    struct block_request *request = work->request;
    int status = work->status;

    block->under_way--;
    give_back(block, work);
    end_request(block, request, status);
}

static void work_done(struct work *work)
{
    end_work((struct block_work *)work);
}

static void later_end(struct block_later *later, int status)
{
    struct block_work *work =
        (struct block_work *)((char *)later - offsetof(struct block_work, later));

    work->status = status;
    if (status == -EAGAIN)
        work_submit(work->block->pool, &work->work);
    else
        end_work(work);
}

/* Past the page cache nothing is copied where it is submitted. */
static bool may_try(const struct block *block, const struct block_request *request)
{
    return (request->op == BLOCK_READ || request->op == BLOCK_WRITE) &&
           (request->size_bytes <= SMALL_BYTES || block->cache->is_direct) &&
           !must_be_safe(block, request);
}

static struct block_work *new_work(struct block *block, struct block_request *request)
{
    struct block_work *work = take_work(block);

    if (work)
        *work = (struct block_work){.work = {.run = run_work, .done = work_done},
                                    .later.end = later_end,
                                    .block = block,
                                    .request = request};
    else
        request->done(request, -ENOMEM);
    return work;
}

static void start(struct block_work *work)
{
    struct block *block = work->block;
    struct block_node *node = block->node;
    struct block_request *request = work->request;
    int status;

    status =
        may_try(block, request) ? node->ops->try_execute(node, request, &work->later) : -EAGAIN;
    if (status != -EAGAIN && status != -EINPROGRESS) {
        give_back(block, work);
        end_request(block, request, status);
        return;
    }
    block->under_way++;
    if (status == -EAGAIN)
        work_submit(block->pool, &work->work);
}

static struct block_work *work_of_throttled(const struct throttled *throttled)
{
    return (struct block_work *)((char *)throttled - offsetof(struct block_work, throttled));
}

static void start_throttled(struct throttled *throttled)
{
    start(work_of_throttled(throttled));
}

/* What is discarded moves nowhere, but it is a request, as a flush is. */
static void throttle(struct block *block, struct block_work *work)
{
    const struct block_request *request = work->request;
    bool moves = request->op != BLOCK_FLUSH && request->op != BLOCK_DISCARD;

    work->throttled.is_write = request->op != BLOCK_READ;
    work->throttled.size_bytes = moves ? request->size_bytes : 0;
    throttle_submit(block->throttle, &work->throttled);
}

void block_submit(struct block *block, struct block_request *request)
{
    int status = check_request(block, request);
    struct block_work *work;

    if (status != -EINPROGRESS) {
        request->done(request, status);
        return;
    }
    work = new_work(block, request);
    if (work && block->throttle)
        throttle(block, work);
    else if (work)
        start(work);
}

static bool is_postponed(const struct block *block, const struct block_work *work)
{
    (void)block;
    return work->is_postponed;
}

static void retry_postponed(struct block *block)
{
    struct block_request *request;
    int status;

    while ((request = take_kept(block, is_postponed, &status))) {
        struct block_work *work = new_work(block, request);

        if (work)
            start(work);
    }
}

/* ---- until nothing is under way ---- */

/* Workers may wait for what is in the ring, but not the other way round. */
static void wait_for_some(struct block *block)
{
    if (block->ring && ring_is_busy(block->ring))
        ring_wait(block->ring);
    else
        work_wait(block->pool);
}

/* A server that is away may stay away; whatever fails for want of patience is tried again. */
void block_quiesce(struct block *block)
{
    atomic_store(&block->impatient, block_is_remote(block));
    throttle_hurry(block->throttle);
    while (block->under_way) {
        wait_for_some(block);
        throttle_hurry(block->throttle); /* done() may have submitted */
    }
    atomic_store(&block->impatient, false);
}

static bool is_any(const struct block *block, const struct block_work *work)
{
    (void)block;
    (void)work;
    return true;
}

struct block_request *block_take_kept(struct block *block, int *out_status)
{
    return take_kept(block, is_any, out_status);
}

static bool is_throttled_one_drained(const void *block, const struct throttled *throttled)
{
    return is_drained(block, work_of_throttled(throttled)->request);
}

static bool is_kept_one_drained(const struct block *block, const struct block_work *work)
{
    return is_drained(block, work->request);
}

/* What is throttled has not begun. If it did now, a guest that resets its disk would not be. */
static void end_what_waits(struct block *block)
{
    struct throttled *throttled;
    struct block_request *request;
    int status;

    while ((throttled = throttle_take(block->throttle, is_throttled_one_drained, block))) {
        struct block_work *work = work_of_throttled(throttled);

        request = work->request;
        give_back(block, work);
        request->done(request, -ECANCELED);
    }
    while ((request = take_kept(block, is_kept_one_drained, &status)))
        request->done(request, status);
}

void block_drain_owner(struct block *block, block_owns_fn *owns, const void *owner)
{
    const struct drain drain = {owns, owner}, *outer = block->drain; /* done() may drain too */

    block->drain = &drain;
    end_what_waits(block);
    while (block->under_way) {
        atomic_store(&block->impatient, block_is_remote(block));
        wait_for_some(block);
        end_what_waits(block); /* done() may have submitted */
    }
    atomic_store(&block->impatient, false);
    block->drain = outer;
    retry_postponed(block);
}

void block_drain(struct block *block)
{
    block_drain_owner(block, NULL, NULL);
}
