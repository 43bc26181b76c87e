/*
 * mapped.c - reading images whose tables say where each part of the disk is
 */
#include "backends/block/mapped.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct mapped *mapped_of(struct block_node *node)
{
    return node->ops->execute == mapped_execute ? (struct mapped *)node : NULL;
}

/* ---- opening and closing ---- */

struct mapped *mapped_new(size_t size_bytes, const struct block_node_ops *ops,
                          struct block_node *file, struct error *err)
{
    struct mapped *m = calloc(1, size_bytes);

    if (!m) {
        error_set(err, ENOMEM, "out of memory");
        block_node_close(file);
        return NULL;
    }
    m->node = (struct block_node){.ops = ops, .read_only = true};
    m->file = file;
    file->is_container = true;
    return m;
}

struct block_node *mapped_opened(struct mapped *m, int result, const struct block_options *options,
                                 struct error *err)
{
    if (!result)
        return &m->node;
    error_prefix(err, "'%s': ", options->file);
    block_node_close(&m->node);
    return NULL;
}

void mapped_close(struct block_node *node)
{
    struct mapped *m = (struct mapped *)node;

    block_node_close(m->below);
    block_node_close(m->file);
    free(m);
}

/* ---- for formats ---- */

static bool is_in_file(const struct mapped_place *place)
{
    return place->kind == MAPPED_FILE || place->kind == MAPPED_PACKED;
}

bool mapped_extend(struct mapped_place *run, const struct mapped_place *next)
{
    if (run->kind != next->kind || run->kind == MAPPED_PACKED)
        return false;
    if (run->kind == MAPPED_FILE &&
        (run->file != next->file || run->file_offset + run->size_bytes != next->file_offset))
        return false;
    run->size_bytes += next->size_bytes;
    return true;
}

void mapped_skip(struct mapped_place *place, uint64_t skip)
{
    place->size_bytes -= skip;
    if (place->kind == MAPPED_FILE)
        place->file_offset += skip;
}

unsigned mapped_entries(const struct mapped *m, uint64_t offset, uint64_t size_bytes)
{
    uint64_t within = offset % m->block_bytes, left = m->node.size_bytes - offset;
    uint64_t blocks;

    if (size_bytes > left)
        size_bytes = left;
    blocks = (within + size_bytes - 1) / m->block_bytes + 1;
    return blocks < MAPPED_ENTRIES ? (unsigned)blocks : MAPPED_ENTRIES;
}

int mapped_read(struct block_node *file, uint64_t offset, void *data, size_t size_bytes,
                struct error *err)
{
    uint64_t length;
    int result = file->ops->length(file, &length);

    if (!result && !range_fits(offset, size_bytes, length))
        return error_set(err, EINVAL, "it ends before byte %llu, where it should go on",
                         (unsigned long long)offset + size_bytes);
    if (!result)
        result = block_node_read(file, offset, data, size_bytes);
    return result ? error_set(err, -result, "cannot read it: %s", strerror(-result)) : 0;
}

int mapped_check_table(struct block_node *file, uint64_t offset, uint64_t size_bytes,
                       struct error *err)
{
    uint64_t length;
    int result = file->ops->length(file, &length);

    if (result)
        return error_set(err, -result, "cannot find its length: %s", strerror(-result));
    return range_fits(offset, size_bytes, length)
               ? 0
               : error_set(err, EINVAL, "its table at byte %llu is not in the file",
                           (unsigned long long)offset);
}

/* ---- operations ---- */

/*
 * What find() says, cut to what was asked for. A block must begin in the file; it may end behind
 * it, where there are zeros.
 */
static int find(struct mapped *m, uint64_t offset, uint64_t size_bytes, struct mapped_place *out)
{
    int result = m->find(m, offset, size_bytes, out);
    uint64_t block = m->block_bytes - offset % m->block_bytes;

    if (result)
        return result;
    if (out->size_bytes > size_bytes)
        out->size_bytes = size_bytes;
    if (!is_in_file(out))
        return 0;
    if (out->file_offset >= out->file->size_bytes)
        return -EIO;
    if (out->size_bytes > out->file->size_bytes - out->file_offset && out->size_bytes > block)
        out->size_bytes = block;
    return 0;
}

static int read_file(struct block_node *file, uint64_t offset, const struct block_request *request,
                     uint64_t skip, uint64_t size_bytes)
{
    struct io_piece pieces[BLOCK_MAX_PIECES];
    struct block_request part = {.op = BLOCK_READ, .pieces = pieces};
    int result = 0;

    for (uint64_t done = 0; done < size_bytes && !result; done += part.size_bytes) {
        part.offset = offset + done;
        part.piece_count =
            block_slice(request, skip + done, size_bytes - done, pieces, &part.size_bytes);
        result = file->ops->execute(file, &part);
    }
    return result;
}

/* A parent may be smaller. */
static int read_below(struct mapped *m, uint64_t offset, const struct block_request *request,
                      uint64_t skip, uint64_t size_bytes)
{
    uint64_t end = m->below ? m->below->size_bytes : 0;
    uint64_t there = offset >= end ? 0 : size_bytes < end - offset ? size_bytes : end - offset;
    int result = there ? read_file(m->below, offset, request, skip, there) : 0;

    if (!result)
        block_fill(NULL, request, skip + there, size_bytes - there);
    return result;
}

static int read_place(struct mapped *m, const struct mapped_place *place, uint64_t offset,
                      const struct block_request *request, uint64_t skip)
{
    switch (place->kind) {
    case MAPPED_FILE:
        return read_file(place->file, place->file_offset, request, skip, place->size_bytes);
    case MAPPED_BELOW:
        return read_below(m, offset, request, skip, place->size_bytes);
    case MAPPED_PACKED:
        return m->read_packed(m, place, offset, request, skip, place->size_bytes);
    default:
        block_fill(NULL, request, skip, place->size_bytes);
        return 0;
    }
}

int mapped_execute(struct block_node *node, const struct block_request *request)
{
    struct mapped *m = (struct mapped *)node;
    struct mapped_place place;
    int result = 0;

    if (request->op == BLOCK_FLUSH)
        return 0;
    if (request->op != BLOCK_READ)
        return -EROFS;
    for (uint64_t done = 0; done < request->size_bytes && !result; done += place.size_bytes) {
        result = find(m, request->offset + done, request->size_bytes - done, &place);
        if (!result)
            result = read_place(m, &place, request->offset + done, request, done);
    }
    return result;
}

int mapped_try(struct block_node *node, const struct block_request *request,
               struct block_later *later)
{
    return -EAGAIN; /* tables are read from the file */
}

int mapped_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
               struct block_extent *out_extent)
{
    struct mapped *m = (struct mapped *)node;
    struct mapped_place place;
    int result = find(m, offset, size_bytes, &place);

    if (result)
        return result;
    *out_extent = (struct block_extent){.size_bytes = place.size_bytes};
    out_extent->is_zero = place.kind == MAPPED_ZERO;
    out_extent->is_below = place.kind == MAPPED_BELOW;
    if (place.kind != MAPPED_BELOW)
        return 0;
    if (!m->below || offset >= m->below->size_bytes) {
        out_extent->is_zero = true;
        return 0;
    }
    if (place.size_bytes > m->below->size_bytes - offset)
        place.size_bytes = m->below->size_bytes - offset;
    result = m->below->ops->map(m->below, offset, place.size_bytes, out_extent);
    out_extent->is_below = true;
    return result;
}

/* ---- checking ---- */

void mapped_check(struct mapped *m, void (*report)(void *opaque, const char *text), void *opaque,
                  struct mapped_check_result *out_result)
{
    uint64_t size = m->node.size_bytes, next;

    *out_result = (struct mapped_check_result){.blocks = (size - 1) / m->block_bytes + 1};
    for (uint64_t at = 0; at < size; at = next) {
        struct mapped_place place;
        int result = find(m, at, size - at, &place);

        next = at - at % m->block_bytes + m->block_bytes;
        if (result) {
            char text[128];

            snprintf(text, sizeof(text), "what is at byte %llu of the disk cannot be found: %s",
                     (unsigned long long)at, strerror(-result));
            report(opaque, text);
            out_result->errors++;
            continue;
        }
        if (at + place.size_bytes > next)
            next = at + place.size_bytes;
        if (is_in_file(&place))
            out_result->allocated += (next - at - 1) / m->block_bytes + 1;
    }
}
