/*
 * block.c - requests to block nodes, executed on worker threads
 *
 * A request that needs no disk (small, and in the host's page cache) is executed at once, where it
 * is submitted: handing it over would take longer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/internal.h"
#include "base/log.h"
#include "host/work.h"

#define THREADS     4u
#define SMALL_BYTES (64u << 10) /* more is copied elsewhere, so that the caller's lock is free */
#define MAX_WORKS   256u        /* kept for later requests */

struct block_work {
    struct work work;
    struct block *block;
    struct block_request *request;
    int status;
    struct block_work *next; /* in block->spare */
};

struct block {
    char *description;
    struct block_node *node;
    struct work_pool *pool;
    unsigned under_way; /* on worker threads */
    struct block_work *spare;
    unsigned spare_count;
};

const struct property block_properties[] = {
    PROPERTY_STRING(struct block_options, file, NULL, "image file or device"),
    PROPERTY_STRING(struct block_options, format, NULL,
                    "format of the image: raw or qcow2; found out if it is not given"),
    PROPERTY_BOOL(struct block_options, readonly, 0, "open it for reading only"),
    PROPERTY_BOOL(struct block_options, discard, 1, "give room back that the guest discards"),
    PROPERTY_BOOL(struct block_options, snapshot, 0,
                  "write nothing to the image: changes are gone at the end"),
    PROPERTY_BOOL(struct block_options, lock, 1, "refuse an image that somebody else has open"),
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

static struct block_node *open_node(const char *description, struct error *err)
{
    struct block_options options = {0};
    struct block_node *node = NULL;

    if (!parse_options(&options, description, err)) {
        if (options.snapshot)
            options.readonly = true;
        node = block_node_open(&options, NULL, err);
        if (node && options.snapshot)
            node = block_snapshot_new(node, err);
    }
    properties_done(block_properties, &options);
    return node;
}

struct block *block_open(struct loop *loop, const char *description, struct error *err)
{
    struct block *block = calloc(1, sizeof(*block));

    if (!block) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    block->description = strdup(description);
    if (block->description)
        block->node = open_node(description, err);
    else
        error_set(err, ENOMEM, "out of memory");
    if (block->node)
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
    work_pool_free(block->pool);
    if (block->node) {
        int status = block->node->read_only ? 0 : block->node->ops->execute(block->node, &flush);

        if (status)
            log_error("disk %s: not all of it was written: %s", block->description,
                      strerror(-status));
        block->node->ops->close(block->node);
    }
    free(block->description);
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

bool block_can_discard(const struct block *block)
{
    return block->node->can_discard && !block->node->read_only;
}

/* ---- requests ---- */

static int check_request(const struct block_node *node, const struct block_request *request)
{
    if (request->op == BLOCK_FLUSH)
        return 0;
    if (request->offset > node->size_bytes ||
        request->size_bytes > node->size_bytes - request->offset)
        return -EINVAL;
    return node->read_only && request->op != BLOCK_READ ? -EROFS : 0;
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

static void run_work(struct work *opaque)
{
    struct block_work *work = (struct block_work *)opaque;
    struct block_node *node = work->block->node;

    work->status = node->ops->execute(node, work->request);
}

static void work_done(struct work *opaque)
{
    struct block_work *work = (struct block_work *)opaque;
    struct block_request *request = work->request;
    int status = work->status;

    work->block->under_way--;
    give_back(work->block, work);
    request->done(request, status);
}

static bool is_small(const struct block_request *request)
{
    return (request->op == BLOCK_READ || request->op == BLOCK_WRITE) &&
           request->size_bytes <= SMALL_BYTES;
}

void block_submit(struct block *block, struct block_request *request)
{
    struct block_node *node = block->node;
    int status = check_request(node, request);
    struct block_work *work;

    if (!status)
        status = is_small(request) ? node->ops->try_execute(node, request) : -EAGAIN;
    if (status != -EAGAIN) {
        request->done(request, status);
        return;
    }
    work = take_work(block);
    if (!work) {
        request->done(request, -ENOMEM);
        return;
    }
    *work = (struct block_work){
        .work = {.run = run_work, .done = work_done}, .block = block, .request = request};
    block->under_way++;
    work_submit(block->pool, &work->work);
}

void block_drain(struct block *block)
{
    while (block->under_way)
        work_wait(block->pool);
}
