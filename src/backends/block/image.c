/*
 * image.c - what is done to disk images while no machine runs
 */
#include "backends/block/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/block/mapped.h"
#include "base/bytes.h"

#define PART_BYTES  (2u << 20) /* copied at once; the largest cluster */
#define GRAIN_BYTES 4096u      /* zeros of this size become holes in raw images */

const struct property image_properties[] = {
    PROPERTY_U32(struct image_options, cluster_size, 64 << 10,
                 "bytes of a cluster: 512 to 2M, a power of two"),
    PROPERTY_STRING(struct image_options, compression, "zlib",
                    "how clusters are compressed: zlib or zstd"),
    PROPERTY_U8(struct image_options, version, 3, "of the format: 2 (for very old programs) or 3"),
    PROPERTY_END,
};

/* ---- opening ---- */

static struct block_options options_of(const char *file, const char *format, bool readonly)
{
    return (struct block_options){.file = (char *)(uintptr_t)file,
                                  .format = (char *)(uintptr_t)format,
                                  .readonly = readonly,
                                  .discard = true,
                                  .reconnect = 60,
                                  .lock = true};
}

static struct block_node *open_image(const char *file, const char *format, bool readonly,
                                     struct error *err)
{
    struct block_options options = options_of(file, format, readonly);

    return block_node_open(&options, NULL, err);
}

/* A qcow2 image for writing, with or without what it stands on. */
static struct block_node *open_qcow2(const char *file, bool no_backing, struct error *err)
{
    struct block_options options = options_of(file, NULL, false);
    struct block_node *node;

    options.no_backing = no_backing;
    node = block_node_open(&options, NULL, err);
    if (!node || qcow2_info(node))
        return node;
    error_set(err, EINVAL, "'%s': it is a raw image, which has no backing file", file);
    block_node_close(node);
    return NULL;
}

static int failed(struct error *err, const char *file, int result)
{
    return result ? error_set(err, -result, "'%s': %s", file, strerror(-result)) : 0;
}

/* ---- new images ---- */

static int find_compression(const char *name, enum qcow2_compression *out, struct error *err)
{
    *out = strcmp(name, "zstd") == 0 ? QCOW2_ZSTD : QCOW2_ZLIB;
    if (*out == QCOW2_ZSTD || strcmp(name, "zlib") == 0)
        return 0;
    return error_set(err, EINVAL, "there is no compression '%s'; it can be zlib or zstd", name);
}

static int check_new(const struct image_new *new, struct error *err)
{
    struct stat stat_now;

    if (new->options->version != 2 && new->options->version != 3)
        return error_set(err, EINVAL, "there is no version %u of qcow2; 2 and 3 are known",
                         new->options->version);
    if (new->force || block_is_uri(new->file) || stat(new->file, &stat_now) ||
        (S_ISREG(stat_now.st_mode) && stat_now.st_size == 0))
        return 0;
    return error_set(err, EEXIST, "'%s' is there already; --force overwrites it", new->file);
}

/* Into an empty file. */
static int fill_new(struct block_node *file, const struct image_new *new, bool is_raw,
                    struct error *err)
{
    struct qcow2_create_options options = {.size_bytes = new->size_bytes,
                                           .version = new->options->version,
                                           .cluster_bytes = new->options->cluster_size,
                                           .backing = new->backing,
                                           .backing_format = new->backing_format};
    uint64_t length;

    if (is_raw && (file->ops->length(file, &length) || length < new->size_bytes))
        return failed(err, new->file, file->ops->set_length(file, new->size_bytes));
    if (is_raw)
        return 0;
    if (find_compression(new->options->compression, &options.compression, err))
        return -EINVAL;
    return qcow2_create(file, &options, err);
}

static int create(const struct image_new *new, struct error *err)
{
    struct block_options options = options_of(new->file, NULL, false);
    const struct block_format *format = block_format_find(new->format ? new->format : "qcow2", err);
    struct block_node *file;
    int result;

    if (!format || check_new(new, err))
        return -EINVAL;
    if (format->is_only_read)
        return error_set(err, ENOTSUP, "%s images are only read; raw and qcow2 images can be made",
                         format->name);
    if (format == &block_raw && new->backing)
        return error_set(err, EINVAL, "a raw image has no backing file");
    if (!new->size_bytes || new->size_bytes % BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "a disk has whole sectors of 512 bytes, and one at least");
    file = block_file_open(&options, true, err);
    if (!file)
        return -EIO;
    result = fill_new(file, new, format == &block_raw, err);
    block_node_close(file);
    return result;
}

/* Size and format of the backing file, as it is seen from the new image. */
static int look_at_backing(struct image_new *new, struct error *err)
{
    char *path = block_backing_path(new->file, new->backing, err);
    struct block_node *node = path ? open_image(path, new->backing_format, true, err) : NULL;

    free(path);
    if (!node)
        return -EIO;
    if (!new->backing_format)
        new->backing_format = node->ops->name;
    if (!new->size_bytes)
        new->size_bytes = node->size_bytes;
    block_node_close(node);
    return 0;
}

int image_create(const struct image_new *new, struct error *err)
{
    struct image_new all = *new;

    if (new->backing && look_at_backing(&all, err)) {
        error_prefix(err, "backing file: ");
        return -EIO;
    }
    return create(&all, err);
}

/* ---- looking ---- */

int image_info(const char *file, const char *format, struct image_info *out_info, struct error *err)
{
    struct block_options options = options_of(file, format, true);
    const struct qcow2_info *qcow2;
    struct block_node *node;
    struct stat host;

    options.lock = false; /* a machine may have it */
    options.as_it_is = options.no_backing = true;
    node = block_node_open(&options, NULL, err);
    if (!node)
        return -EIO;
    *out_info = (struct image_info){.format = node->ops->name, .size_bytes = node->size_bytes};
    if (stat(file, &host) == 0)
        out_info->used_bytes = (uint64_t)host.st_blocks * 512;
    qcow2 = qcow2_info(node);
    if (qcow2) {
        out_info->is_qcow2 = true;
        out_info->qcow2 = *qcow2;
        strcpy(out_info->backing, qcow2->backing ? qcow2->backing : "");
        strcpy(out_info->backing_format, qcow2->backing_format ? qcow2->backing_format : "");
        out_info->qcow2.backing = out_info->qcow2.backing_format = NULL; /* the node's */
    }
    block_node_close(node);
    return 0;
}

static void check_mapped(struct mapped *mapped, void (*report)(void *opaque, const char *text),
                         void *opaque, struct qcow2_check_result *out_result)
{
    struct mapped_check_result result;

    mapped_check(mapped, report, opaque, &result);
    *out_result = (struct qcow2_check_result){
        .corruptions = result.errors, .clusters = result.blocks, .allocated = result.allocated};
}

int image_check(const char *file, const char *format, bool repair,
                void (*report)(void *opaque, const char *text), void *opaque,
                struct qcow2_check_result *out_result, struct error *err)
{
    struct block_options options = options_of(file, format, !repair);
    struct block_node *node;
    struct mapped *mapped;
    int result = 0;

    options.as_it_is = options.no_backing = true;
    node = block_node_open(&options, NULL, err);
    if (!node)
        return -EIO;
    mapped = mapped_of(node);
    if (mapped) {
        check_mapped(mapped, report, opaque, out_result);
    } else if (qcow2_info(node)) {
        result = qcow2_check(node, repair, report, opaque, out_result, err);
        if (result)
            error_prefix(err, "'%s': ", file);
    } else {
        result = error_set(err, ENOTSUP, "'%s': in a raw image there is nothing to check", file);
    }
    out_result->format = node->ops->name;
    block_node_close(node);
    return result;
}

/* ---- copying ---- */

static bool is_zero(const uint8_t *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

struct copy {
    struct block_node *from, *to;
    uint8_t *data; /* PART_BYTES */
    uint32_t grain;
    bool compress;
};

/* One grain or more; what is zero is so already in a new image. */
static int write_grains(struct copy *copy, uint64_t offset, uint64_t size)
{
    int result = 0;

    for (uint64_t at = 0, run; at < size && !result; at += run) {
        uint64_t left = size - at;
        bool zero;

        run = left < copy->grain ? left : copy->grain;
        zero = is_zero(copy->data + at, run);
        if (!zero && copy->compress) {
            memset(copy->data + at + run, 0, copy->grain - run);
            result = qcow2_write_compressed(copy->to, offset + at, copy->data + at);
            if (result <= 0)
                continue;
            result = block_node_write(copy->to, offset + at, copy->data + at, run);
            continue;
        }
        while (!zero && !copy->compress && run < left) {
            uint64_t next = left - run < copy->grain ? left - run : copy->grain;

            if (is_zero(copy->data + at + run, next))
                break;
            run += next;
        }
        if (!zero)
            result = block_node_write(copy->to, offset + at, copy->data + at, run);
    }
    return result;
}

/* What is at offset, up to PART_BYTES that end with a part; holes as a whole. */
static int next_part(struct block_node *node, uint64_t offset, struct block_extent *extent)
{
    uint64_t left = node->size_bytes - offset, part = PART_BYTES - offset % PART_BYTES;
    int result = node->ops->map(node, offset, left, extent);

    if (!result && !extent->is_zero && extent->size_bytes > part)
        extent->size_bytes = part;
    return result;
}

/* Data that begins or ends within a grain is read with all of it. */
static int copy_all(struct copy *copy, const struct image_progress *progress)
{
    uint64_t total = copy->from->size_bytes, size;
    int result = 0;

    for (uint64_t at = 0; at < total && !result; at += size) {
        struct block_extent extent;

        result = next_part(copy->from, at, &extent);
        if (result)
            break;
        size = align_down(extent.size_bytes, copy->grain);
        if (!extent.is_zero || !size) {
            size = align_up(extent.size_bytes, copy->grain);
            if (size > total - at)
                size = total - at;
            result = block_node_read(copy->from, at, copy->data, size);
            if (!result)
                result = write_grains(copy, at, size);
        }
        progress->report(progress->opaque, at + size, total);
    }
    return result ? result : block_node_flush(copy->to);
}

static bool is_device(const char *file)
{
    struct stat kind;

    return block_is_uri(file) || (stat(file, &kind) == 0 && S_ISBLK(kind.st_mode));
}

static int copy_to_new(struct block_node *from, const struct image_new *new, bool compress,
                       const struct image_progress *progress, struct error *err)
{
    struct copy copy = {.from = from, .grain = GRAIN_BYTES, .compress = compress};
    const struct qcow2_info *info;
    int result = -ENOMEM;

    copy.to = open_image(new->file, new->format ? new->format : "qcow2", false, err);
    if (!copy.to)
        return -EIO;
    info = qcow2_info(copy.to);
    if (info)
        copy.grain = info->cluster_bytes;
    copy.data = malloc(PART_BYTES);
    if (copy.data)
        result = is_device(new->file) && !info /* where it is not zero yet */
                     ? block_node_clear(copy.to, BLOCK_ZERO, 0, copy.to->size_bytes)
                     : 0;
    if (!result)
        result = copy_all(&copy, progress);
    free(copy.data);
    block_node_close(copy.to);
    return failed(err, new->file, result);
}

int image_convert(const char *source, const char *format, const struct image_new *new,
                  bool compress, const struct image_progress *progress, struct error *err)
{
    struct block_node *from = open_image(source, format, true, err);
    struct image_new all = *new;
    int result;

    if (!from)
        return -EIO;
    all.size_bytes = from->size_bytes;
    if (compress && new->format && strcmp(new->format, "raw") == 0)
        result = error_set(err, EINVAL, "a raw image cannot be compressed");
    else
        result = create(&all, err);
    if (!result) {
        result = copy_to_new(from, new, compress, progress, err);
        if (result && !is_device(new->file))
            unlink(new->file); /* a part of an image is worse than none */
    }
    block_node_close(from);
    return result;
}

/* ---- sizes ---- */

static int resize_raw(const char *file, uint64_t size_bytes, struct error *err)
{
    struct block_options options = options_of(file, NULL, false);
    struct block_node *node = block_file_open(&options, false, err);
    int result = node ? 0 : -EIO;

    if (node) {
        result = failed(err, file, node->ops->set_length(node, size_bytes));
        block_node_close(node);
    }
    return result;
}

int image_resize(const char *file, const char *format, uint64_t size_bytes, struct error *err)
{
    struct block_node *node;
    int result = 0;
    bool is_raw;

    if (!size_bytes || size_bytes % BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "a disk has whole sectors of 512 bytes, and one at least");
    node = open_image(file, format, false, err);
    if (!node)
        return -EIO;
    is_raw = !qcow2_info(node);
    if (!is_raw && (result = qcow2_resize(node, size_bytes, err)))
        error_prefix(err, "'%s': ", file);
    block_node_close(node);
    return is_raw ? resize_raw(file, size_bytes, err) : result;
}

/* ---- backing files ---- */

static struct block_node *open_below(const char *file, const struct qcow2_info *info, bool readonly,
                                     struct error *err)
{
    char *path = block_backing_path(file, info->backing, err);
    struct block_node *node = path ? open_image(path, info->backing_format, readonly, err) : NULL;

    free(path);
    return node;
}

static int grow_below(struct block_node *below, const char *file, const struct qcow2_info *info,
                      uint64_t size_bytes, struct error *err)
{
    char *path;
    int result;

    if (qcow2_info(below))
        return qcow2_resize(below, size_bytes, err);
    path = block_backing_path(file, info->backing, err);
    if (!path)
        return -ENOMEM;
    result = failed(err, path, truncate(path, (off_t)size_bytes) ? -errno : 0);
    free(path);
    below->size_bytes = size_bytes;
    return result;
}

static int commit_part(struct block_node *from, struct block_node *to, uint64_t offset,
                       const struct block_extent *extent, uint8_t *data)
{
    int result;

    if (extent->is_below)
        return 0;
    if (extent->is_zero)
        return block_node_clear(to, BLOCK_ZERO, offset, extent->size_bytes);
    result = block_node_read(from, offset, data, extent->size_bytes);
    return result ? result : block_node_write(to, offset, data, extent->size_bytes);
}

static int commit_all(struct block_node *from, struct block_node *to,
                      const struct image_progress *progress)
{
    uint8_t *data = malloc(PART_BYTES);
    int result = data ? 0 : -ENOMEM;
    struct block_extent extent;

    for (uint64_t at = 0; at < from->size_bytes && !result; at += extent.size_bytes) {
        result = next_part(from, at, &extent);
        if (!result)
            result = commit_part(from, to, at, &extent, data);
        progress->report(progress->opaque, at, from->size_bytes);
    }
    free(data);
    return result ? result : block_node_flush(to);
}

static int commit(struct block_node *node, const char *file, bool keep,
                  const struct image_progress *progress, struct error *err)
{
    const struct qcow2_info *info = qcow2_info(node);
    struct block_node *below;
    int result = 0;

    if (!info->backing)
        return error_set(err, EINVAL, "'%s': it has no backing file", file);
    below = open_below(file, info, false, err);
    if (!below)
        return -EIO;
    if (below->size_bytes < node->size_bytes)
        result = grow_below(below, file, info, node->size_bytes, err);
    if (!result)
        result = failed(err, info->backing, commit_all(node, below, progress));
    block_node_close(below);
    if (!result && !keep)
        result = failed(err, file, qcow2_make_empty(node));
    return result;
}

int image_commit(const char *file, bool keep, const struct image_progress *progress,
                 struct error *err)
{
    struct block_node *node = open_qcow2(file, true, err);
    int result = node ? commit(node, file, keep, progress, err) : -EIO;

    block_node_close(node);
    return result;
}

/* Zeros behind the end; node may be NULL. */
static int read_or_zeros(struct block_node *node, uint64_t offset, uint8_t *data, uint64_t size)
{
    uint64_t end = node ? node->size_bytes : 0;
    uint64_t there = offset >= end ? 0 : size < end - offset ? size : end - offset;

    memset(data + there, 0, size - there);
    return there ? block_node_read(node, offset, data, there) : 0;
}

/* What would look different over the new backing image becomes the image's own. */
static int keep_part(struct block_node *node, struct block_node *old, struct block_node *new,
                     uint64_t offset, uint64_t size, uint8_t *data)
{
    uint8_t *now = data, *then = data + PART_BYTES;
    int result = read_or_zeros(old, offset, now, size);

    if (!result)
        result = read_or_zeros(new, offset, then, size);
    for (uint64_t at = 0; at < size && !result; at += GRAIN_BYTES) {
        uint64_t part = size - at < GRAIN_BYTES ? size - at : GRAIN_BYTES;

        if (memcmp(now + at, then + at, part))
            result = block_node_write(node, offset + at, now + at, part);
    }
    return result;
}

static int keep_all(struct block_node *node, struct block_node *new,
                    const struct image_progress *progress)
{
    uint8_t *data = malloc(2 * (size_t)PART_BYTES);
    int result = data ? 0 : -ENOMEM;
    struct block_extent extent;

    for (uint64_t at = 0; at < node->size_bytes && !result; at += extent.size_bytes) {
        uint64_t part = PART_BYTES - at % PART_BYTES;

        result = next_part(node, at, &extent);
        if (!result && extent.size_bytes > part)
            extent.size_bytes = part;
        if (!result && extent.is_below)
            result = keep_part(node, qcow2_backing(node), new, at, extent.size_bytes, data);
        progress->report(progress->opaque, at, node->size_bytes);
    }
    free(data);
    return result;
}

int image_rebase(const char *file, const char *backing, const char *backing_format, bool only_name,
                 const struct image_progress *progress, struct error *err)
{
    struct block_node *node = open_qcow2(file, only_name, err), *new = NULL;
    const struct qcow2_info named = {.backing = backing, .backing_format = backing_format};
    int result = node ? 0 : -EIO;

    if (node && *backing && !only_name) {
        new = open_below(file, &named, true, err);
        result = new ? 0 : -EIO;
        if (new && !backing_format)
            backing_format = new->ops->name;
    }
    if (!result && !only_name)
        result = failed(err, file, keep_all(node, new, progress));
    if (!result)
        result = qcow2_set_backing(node, *backing ? backing : NULL, backing_format, err);
    block_node_close(new);
    block_node_close(node);
    return result;
}
