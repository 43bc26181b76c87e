/*
 * open.c - from the name of a file to the stack of nodes over it
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/internal.h"
#include "backends/block/mapped.h"
#include "backends/block/qcow2.h"
#include "base/log.h"

#define MAX_DEPTH    200u /* of backing files */
#define HEADER_BYTES 512u

const struct block_format *const block_formats[] = {
    &block_raw, &block_qcow2, &block_vmdk, &block_vhdx, &block_vhd, &block_vdi, NULL};

/* Formats that are not read. Taken for raw, such an image would be destroyed. */
static const struct {
    const char *name, *magic;
    unsigned at;
} foreign_formats[] = {
    {"VMDK (COWD)", "COWD", 0},
    {"QED", "QED", 0},
    {"Parallels", "WithoutFreeSpace", 0},
    {"Parallels", "WithouFreSpacExt", 0},
};

static const char *foreign_format(const uint8_t *header)
{
    for (size_t n = 0; n < sizeof(foreign_formats) / sizeof(foreign_formats[0]); n++)
        if (memcmp(header + foreign_formats[n].at, foreign_formats[n].magic,
                   strlen(foreign_formats[n].magic)) == 0)
            return foreign_formats[n].name;
    return NULL;
}

static const struct block_format *probe_header(const uint8_t *header)
{
    for (size_t n = 0; block_formats[n]; n++)
        if (block_formats[n]->probe && block_formats[n]->probe(header, HEADER_BYTES))
            return block_formats[n];
    return &block_raw;
}

const struct block_format *block_format_find(const char *name, struct error *err)
{
    for (size_t n = 0; block_formats[n]; n++)
        if (strcmp(block_formats[n]->name, name) == 0)
            return block_formats[n];
    error_set(err, ENOENT, "there is no image format '%s'; it can be " BLOCK_FORMAT_NAMES, name);
    return NULL;
}

const struct block_format *block_format_probe(struct block_node *file, struct error *err)
{
    uint8_t header[HEADER_BYTES] = {0};
    uint64_t length;
    int result = file->ops->length(file, &length);
    const char *foreign;

    if (!result)
        result =
            block_node_read(file, 0, header, length < sizeof(header) ? length : sizeof(header));
    if (result) {
        error_set(err, -result, "cannot read it: %s", strerror(-result));
        return NULL;
    }
    foreign = foreign_format(header);
    if (!foreign)
        return probe_header(header);
    error_set(err, ENOTSUP,
              "it is a %s image, which is not supported ('qemu-img convert' makes another of it); "
              "format=raw takes it as it is",
              foreign);
    return NULL;
}

/* ---- a raw image whose format was found out ---- */

struct guard {
    struct block_node node;
    struct block_node *below;
    _Atomic bool is_said;
};

static struct block_node *below_guard(struct block_node *node)
{
    return ((struct guard *)node)->below;
}

static void guard_close(struct block_node *node)
{
    block_node_close(below_guard(node));
    free(node);
}

/* Would the start of the image be another format's? */
static int check_start(struct block_node *below, const struct block_request *request)
{
    uint8_t header[HEADER_BYTES];
    uint64_t at = request->offset;
    int result = block_node_read(below, 0, header, sizeof(header));

    if (result)
        return result;
    for (unsigned n = 0; n < request->piece_count && at < sizeof(header); n++) {
        uint64_t size = request->pieces[n].size_bytes, room = sizeof(header) - at;

        memcpy(header + at, request->pieces[n].data, size < room ? size : room);
        at += size;
    }
    return foreign_format(header) || probe_header(header) != &block_raw ? -EPERM : 0;
}

static int guard_execute(struct block_node *node, const struct block_request *request)
{
    struct block_node *below = below_guard(node);
    int result = 0;

    if (request->op == BLOCK_WRITE && request->offset < HEADER_BYTES)
        result = check_start(below, request);
    if (result == -EPERM && !atomic_exchange(&((struct guard *)node)->is_said, true))
        log_warn("a write that would make a raw disk look like an image of another format was "
                 "refused; format=raw in --disk allows it");
    return result ? result : below->ops->execute(below, request);
}

static int guard_try(struct block_node *node, const struct block_request *request,
                     struct block_later *later)
{
    struct block_node *below = below_guard(node);

    if (request->op == BLOCK_WRITE && request->offset < HEADER_BYTES)
        return -EAGAIN;
    return below->ops->try_execute(below, request, later);
}

static int guard_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                     struct block_extent *out_extent)
{
    struct block_node *below = below_guard(node);

    return below->ops->map(below, offset, size_bytes, out_extent);
}

static const struct block_node_ops guard_ops = {
    .name = "raw",
    .close = guard_close,
    .execute = guard_execute,
    .try_execute = guard_try,
    .map = guard_map,
};

static struct block_node *guard_new(struct block_node *below, struct error *err)
{
    struct guard *guard = calloc(1, sizeof(*guard));

    if (!guard) {
        error_set(err, ENOMEM, "out of memory");
        block_node_close(below);
        return NULL;
    }
    guard->node = (struct block_node){
        .ops = &guard_ops, .size_bytes = below->size_bytes, .can_discard = below->can_discard};
    guard->below = below;
    return &guard->node;
}

/* ---- stacks ---- */

static int check_chain(const struct block_chain *chain, struct error *err)
{
    if (chain->depth > MAX_DEPTH)
        return error_set(err, ELOOP, "there are more than %u backing files", MAX_DEPTH);
    for (const struct block_chain *above = chain->above; above; above = above->above)
        if (strcmp(above->path, chain->path) == 0)
            return error_set(err, ELOOP, "the image is its own backing file");
    return 0;
}

static struct block_node *open_format(const struct block_options *options,
                                      const struct block_chain *chain, struct error *err)
{
    struct block_node *file = block_file_open(options, false, err), *node;
    const struct block_format *format = NULL;

    if (!file)
        return NULL;
    if (options->format)
        format = block_format_find(options->format, err);
    else if (!(format = block_format_probe(file, err)))
        error_prefix(err, "'%s': ", options->file);
    if (format && format->is_only_read && !options->readonly) {
        error_set(
            err, ENOTSUP,
            "'%s': a %s image is only read: readonly=on or snapshot=on opens it, and 'trapeze "
            "image convert' makes a qcow2 image of it",
            options->file, format->name);
        format = NULL;
    }
    if (!format) {
        block_node_close(file);
        return NULL;
    }
    node = format->open(file, options, chain, err);
    if (node && format == &block_raw && !options->format && !options->readonly)
        node = guard_new(node, err);
    return node;
}

struct block_node *block_node_open(const struct block_options *options,
                                   const struct block_chain *above, struct error *err)
{
    char *path = realpath(options->file, NULL);
    struct block_chain chain = {
        .above = above, .path = path ? path : options->file, .depth = above ? above->depth + 1 : 0};
    struct block_node *node = NULL;

    if (check_chain(&chain, err))
        error_prefix(err, "'%s': ", options->file);
    else
        node = open_format(options, &chain, err);
    free(path);
    return node;
}

struct block_options block_options_below(const struct block_options *options)
{
    return (struct block_options){.readonly = true,
                                  .lock = options->lock,
                                  .impatient = options->impatient,
                                  .is_direct = options->is_direct,
                                  .is_volatile = options->is_volatile,
                                  .ring = options->ring};
}

/* A name with a colon before any slash is a protocol's, as elsewhere. */
char *block_backing_path(const char *path, const char *backing, struct error *err)
{
    const char *slash = strrchr(path, '/'), *colon = strchr(backing, ':');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0, size;
    char *result;

    if (strncmp(backing, "file:", 5) == 0) {
        backing += 5;
    } else if (colon && colon < backing + strcspn(backing, "/")) {
        error_set(err, ENOTSUP, "its backing file '%s' is not a file: '%.*s' is not supported",
                  backing, (int)(colon - backing), backing);
        return NULL;
    }
    if (backing[0] == '/')
        folder = 0;
    size = folder + strlen(backing) + 1;
    result = malloc(size);
    if (result)
        snprintf(result, size, "%.*s%s", (int)folder, path, backing);
    else
        error_set(err, ENOMEM, "out of memory");
    return result;
}
