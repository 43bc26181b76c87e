/*
 * vmdk.c - VMware's images, read only
 *
 * docs/formats/foreign.md; VMware's "Virtual Disk Format 5.0". A disk is made of extents, which a
 * text (the descriptor) lists: flat files, sparse ones, and zeros. A sparse file has a header and
 * two levels of tables to its grains, which may be compressed. An image of one sparse file has the
 * descriptor within.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "backends/block/mapped.h"
#include "base/bytes.h"

#define HEADER_BYTES          512u
#define AT_VERSION            4u
#define AT_FLAGS              8u
#define AT_CAPACITY           12u
#define AT_GRAIN              20u
#define AT_DESCRIPTOR         28u
#define AT_DESCRIPTOR_SECTORS 36u
#define AT_TABLE_ENTRIES      44u
#define AT_DIRECTORY          56u
#define AT_COMPRESSION        77u

#define HAS_ZERO_GRAINS       0x4u
#define IS_COMPRESSED         0x10000u
#define HAS_MARKERS           0x20000u
#define DIRECTORY_AT_END      UINT64_MAX /* in a second header, before the last sector */
#define MARKER_BYTES          12u        /* before a compressed grain: its sector, its bytes */

#define MAX_GRAIN             (1u << 20)
#define MAX_TABLE             512u
#define MAX_DESCRIPTOR        (1u << 20)
#define MAX_EXTENTS           8192u
#define MAX_SECTORS           (1ull << 45) /* of an extent */
#define FLAT_BLOCK            (64u << 10)

enum extent_kind { EXTENT_FLAT, EXTENT_SPARSE, EXTENT_ZERO };

struct extent {
    enum extent_kind kind;
    uint64_t start, size_bytes; /* of the disk */
    struct block_node *file;
    uint64_t flat_offset;
    uint64_t directory_offset;
    uint32_t grain_bytes, table_entries, flags;
};

struct vmdk {
    struct mapped mapped;
    struct extent *extents;
    unsigned count;
    pthread_mutex_t lock; /* of what follows */
    struct block_node *unpacked_file;
    uint64_t unpacked_offset; /* of the grain that is in unpacked; 0: none */
    uint8_t *unpacked;
};

static struct vmdk *vmdk_of(struct mapped *m)
{
    return (struct vmdk *)m;
}

/* ---- where things are ---- */

static const struct extent *extent_at(const struct vmdk *vmdk, uint64_t offset)
{
    const struct extent *e = vmdk->extents;

    while (offset - e->start >= e->size_bytes)
        e++;
    return e;
}

static struct mapped_place grain_place(const struct extent *e, uint32_t entry)
{
    struct mapped_place place = {.file = e->file,
                                 .file_offset = (uint64_t)entry * BLOCK_SECTOR_BYTES,
                                 .size_bytes = e->grain_bytes};

    if (!entry || (entry == 1 && e->flags & HAS_ZERO_GRAINS))
        place.kind = MAPPED_ZERO;
    else
        place.kind = e->flags & IS_COMPRESSED ? MAPPED_PACKED : MAPPED_FILE;
    return place;
}

/* at is in the extent, from its start. */
static int find_grains(const struct extent *e, uint64_t at, uint64_t size_bytes,
                       struct mapped_place *out)
{
    uint64_t grain = at / e->grain_bytes, skip = at % e->grain_bytes;
    uint64_t first = grain % e->table_entries, count;
    uint8_t entries[MAPPED_ENTRIES * 4];
    uint64_t table;
    int result =
        block_node_read(e->file, e->directory_offset + grain / e->table_entries * 4, entries, 4);

    if (result)
        return result;
    table = (uint64_t)get_le32(entries) * BLOCK_SECTOR_BYTES;
    if (!table) {
        *out = (struct mapped_place){.kind = MAPPED_ZERO,
                                     .size_bytes = (e->table_entries - first) * e->grain_bytes};
        mapped_skip(out, skip);
        return 0;
    }
    if (table >= e->file->size_bytes)
        return -EIO;
    count = (skip + size_bytes - 1) / e->grain_bytes + 1;
    if (count > e->table_entries - first)
        count = e->table_entries - first;
    if (count > MAPPED_ENTRIES)
        count = MAPPED_ENTRIES;
    result = block_node_read(e->file, table + first * 4, entries, count * 4);
    if (result)
        return result;
    *out = grain_place(e, get_le32(entries));
    for (uint64_t n = 1; n < count; n++) {
        struct mapped_place place = grain_place(e, get_le32(entries + n * 4));

        if (!mapped_extend(out, &place))
            break;
    }
    mapped_skip(out, skip);
    return 0;
}

static int find(struct mapped *m, uint64_t offset, uint64_t size_bytes, struct mapped_place *out)
{
    const struct extent *e = extent_at(vmdk_of(m), offset);
    uint64_t at = offset - e->start, left = e->size_bytes - at;
    int result = 0;

    if (size_bytes > left)
        size_bytes = left;
    if (e->kind == EXTENT_SPARSE)
        result = find_grains(e, at, size_bytes, out);
    else
        *out = (struct mapped_place){.kind = e->kind == EXTENT_FLAT ? MAPPED_FILE : MAPPED_ZERO,
                                     .file = e->file,
                                     .file_offset = e->flat_offset + at,
                                     .size_bytes = left};
    if (!result && out->size_bytes > left) /* a grain goes beyond the end */
        out->size_bytes = left;
    return result;
}

/* ---- compressed grains ---- */

static int inflate_grain(const uint8_t *packed, size_t packed_bytes, uint8_t *out, size_t bytes)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)packed,
                       .avail_in = (uInt)packed_bytes,
                       .next_out = out,
                       .avail_out = (uInt)bytes};
    int result;

    if (inflateInit(&stream) != Z_OK)
        return -ENOMEM;
    result = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    memset(out + (bytes - stream.avail_out), 0, stream.avail_out); /* the last one may be short */
    return result == Z_STREAM_END ? 0 : -EIO;
}

/* vmdk->lock held. */
static int unpack(struct vmdk *vmdk, const struct extent *e, uint64_t file_offset)
{
    uint8_t marker[MARKER_BYTES], *packed;
    int result = block_node_read(e->file, file_offset, marker, sizeof(marker));
    uint32_t bytes = get_le32(marker + 8);

    if (result)
        return result;
    if (!bytes || bytes > 2 * e->grain_bytes)
        return -EIO;
    packed = malloc(bytes);
    if (!packed)
        return -ENOMEM;
    vmdk->unpacked_offset = 0;
    result = block_node_read(e->file, file_offset + sizeof(marker), packed, bytes);
    if (!result)
        result = inflate_grain(packed, bytes, vmdk->unpacked, e->grain_bytes);
    free(packed);
    if (result)
        return result;
    vmdk->unpacked_file = e->file;
    vmdk->unpacked_offset = file_offset;
    return 0;
}

static int read_packed(struct mapped *m, const struct mapped_place *place, uint64_t offset,
                       const struct block_request *request, uint64_t skip, uint64_t size_bytes)
{
    struct vmdk *vmdk = vmdk_of(m);
    const struct extent *e = extent_at(vmdk, offset);
    int result = 0;

    pthread_mutex_lock(&vmdk->lock);
    if (vmdk->unpacked_file != e->file || vmdk->unpacked_offset != place->file_offset)
        result = unpack(vmdk, e, place->file_offset);
    if (!result)
        block_fill(vmdk->unpacked + (offset - e->start) % e->grain_bytes, request, skip,
                   size_bytes);
    pthread_mutex_unlock(&vmdk->lock);
    return result;
}

/* ---- sparse files ---- */

static bool is_sparse(const uint8_t *header)
{
    return memcmp(header, "KDMV", 4) == 0;
}

/* The header, or the one at the end that knows where the directory is. */
static int read_sparse_header(struct block_node *file, uint8_t *h, struct error *err)
{
    uint64_t length;
    int result = file->ops->length(file, &length);

    if (result)
        return error_set(err, -result, "%s", strerror(-result));
    if (mapped_read(file, 0, h, HEADER_BYTES, err))
        return -EINVAL;
    if (is_sparse(h) && get_le64(h + AT_DIRECTORY) == DIRECTORY_AT_END &&
        mapped_read(file, length - 2 * HEADER_BYTES, h, HEADER_BYTES, err))
        return -EINVAL;
    return is_sparse(h) ? 0 : error_set(err, EINVAL, "it is not a sparse extent");
}

static int check_sparse_header(const uint8_t *h, struct error *err)
{
    uint32_t version = get_le32(h + AT_VERSION), flags = get_le32(h + AT_FLAGS);
    uint32_t entries = get_le32(h + AT_TABLE_ENTRIES);
    uint64_t grain = get_le64(h + AT_GRAIN), capacity = get_le64(h + AT_CAPACITY);

    if (version < 1 || version > 3)
        return error_set(err, ENOTSUP, "it is VMDK of version %u; 1 to 3 are supported", version);
    if (!grain || grain & (grain - 1) || grain > MAX_GRAIN / BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "its grains have %" PRIu64 " sectors", grain);
    if (!entries || entries > MAX_TABLE)
        return error_set(err, EINVAL, "its tables have %u entries", entries);
    if (!capacity || capacity > MAX_SECTORS)
        return error_set(err, EINVAL, "its disk has %" PRIu64 " sectors", capacity);
    if (flags & IS_COMPRESSED && (!(flags & HAS_MARKERS) || get_le16(h + AT_COMPRESSION) != 1))
        return error_set(err, ENOTSUP, "how it is compressed is not known");
    return 0;
}

/* out->file is what is to be looked at. */
static int open_sparse(struct extent *out, uint8_t *h, struct error *err)
{
    uint64_t directory, grains;

    if (read_sparse_header(out->file, h, err) || check_sparse_header(h, err))
        return -EINVAL;
    directory = get_le64(h + AT_DIRECTORY);
    if (!directory || directory >= out->file->size_bytes / BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "its directory is at sector %" PRIu64 ", where it cannot be",
                         directory);
    out->kind = EXTENT_SPARSE;
    out->size_bytes = get_le64(h + AT_CAPACITY) * BLOCK_SECTOR_BYTES;
    out->directory_offset = directory * BLOCK_SECTOR_BYTES;
    out->grain_bytes = (uint32_t)get_le64(h + AT_GRAIN) * BLOCK_SECTOR_BYTES;
    out->table_entries = get_le32(h + AT_TABLE_ENTRIES);
    out->flags = get_le32(h + AT_FLAGS);
    grains = (out->size_bytes - 1) / out->grain_bytes + 1;
    return mapped_check_table(out->file, out->directory_offset,
                              ((grains - 1) / out->table_entries + 1) * 4, err);
}

/* ---- the descriptor ---- */

/* What follows name in a line of text; NULL if it does not begin so. */
static const char *value_of(const char *line, const char *name)
{
    size_t length = strlen(name);

    return strncmp(line, name, length) == 0 ? line + length : NULL;
}

static int check_parent(const char *text, struct error *err)
{
    const char *value = NULL;

    for (const char *line = text; line && !value; line = strchr(line, '\n')) {
        line += *line == '\n';
        value = value_of(line, "parentCID=");
    }
    if (!value || strncasecmp(value, "ffffffff", 8) == 0)
        return 0;
    return error_set(err, ENOTSUP, "it is a difference to another image, which is not supported");
}

/* size_bytes of text with an end mark; NULL on failure. */
static char *read_text(struct block_node *file, uint64_t offset, uint64_t size_bytes,
                       struct error *err)
{
    char *text;

    if (size_bytes > MAX_DESCRIPTOR) {
        error_set(err, EFBIG, "its descriptor has %" PRIu64 " bytes; %u are the most", size_bytes,
                  MAX_DESCRIPTOR);
        return NULL;
    }
    text = calloc(1, size_bytes + 1);
    if (!text)
        error_set(err, ENOMEM, "out of memory");
    else if (!size_bytes || !mapped_read(file, offset, text, size_bytes, err))
        return text;
    free(text);
    return NULL;
}

/* A file beside the descriptor: an image from elsewhere must not lead to any file of the host. */
static struct block_node *open_beside(const struct block_options *options, const char *name,
                                      struct error *err)
{
    struct block_options file = block_options_below(options);
    struct block_node *node;

    if (!*name || strchr(name, '/') || strcmp(name, "..") == 0) {
        error_set(err, EINVAL, "its extent '%s' is not a file in its own folder", name);
        return NULL;
    }
    file.file = block_backing_path(options->file, name, err);
    if (!file.file)
        return NULL;
    node = block_file_open(&file, false, err);
    free(file.file);
    if (node)
        node->is_container = true;
    return node;
}

static struct extent *add_extent(struct vmdk *vmdk, struct error *err)
{
    struct extent *more, *e;

    if (vmdk->count == MAX_EXTENTS) {
        error_set(err, EFBIG, "it has more than %u extents", MAX_EXTENTS);
        return NULL;
    }
    more = realloc(vmdk->extents, (vmdk->count + 1) * sizeof(*more));
    if (!more) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    vmdk->extents = more;
    e = more + vmdk->count++;
    *e = (struct extent){.start = vmdk->mapped.node.size_bytes};
    return e;
}

static int open_extent(struct vmdk *vmdk, const struct block_options *options, const char *type,
                       const char *name, uint64_t sectors, uint64_t offset, struct error *err)
{
    struct extent *e = add_extent(vmdk, err);
    uint8_t header[HEADER_BYTES];

    if (!e)
        return -ENOMEM;
    if (strcmp(type, "ZERO") == 0) {
        e->kind = EXTENT_ZERO;
    } else if (strcmp(type, "FLAT") == 0 || strcmp(type, "VMFS") == 0) {
        e->kind = EXTENT_FLAT;
        e->flat_offset = offset * BLOCK_SECTOR_BYTES;
        e->file = open_beside(options, name, err);
    } else if (strcmp(type, "SPARSE") == 0) {
        e->file = open_beside(options, name, err);
        if (e->file && open_sparse(e, header, err)) {
            error_prefix(err, "'%s': ", name);
            return -EINVAL;
        }
        if (e->file && e->size_bytes < sectors * BLOCK_SECTOR_BYTES)
            return error_set(err, EINVAL, "its extent '%s' is too short", name);
    } else {
        return error_set(err, ENOTSUP, "it has an extent of type %s, which is not supported", type);
    }
    if (!e->file && e->kind != EXTENT_ZERO)
        return -EIO;
    e->size_bytes = sectors * BLOCK_SECTOR_BYTES;
    if (!range_fits(e->start, e->size_bytes, INT64_MAX))
        return error_set(err, EFBIG, "its disk is too large");
    vmdk->mapped.node.size_bytes += e->size_bytes;
    return 0;
}

/* "RW 4192256 SPARSE "name.vmdk"", with an offset behind it if it is flat; other lines are none. */
static int parse_line(struct vmdk *vmdk, const struct block_options *options, const char *line,
                      struct error *err)
{
    char access[16], type[16], name[256] = "";
    uint64_t sectors, offset = 0;
    int count = sscanf(line, "%15s %" SCNu64 " %15s \"%255[^\"\n]\" %" SCNu64, access, &sectors,
                       type, name, &offset);

    if (count < 3 || (strcmp(access, "RW") && strcmp(access, "RDONLY")))
        return 0;
    if (!sectors || sectors > MAX_SECTORS || offset > MAX_SECTORS)
        return error_set(err, EINVAL, "its extent '%s' has %" PRIu64 " sectors from %" PRIu64 " on",
                         name, sectors, offset);
    return open_extent(vmdk, options, type, name, sectors, offset, err);
}

static int open_described(struct vmdk *vmdk, const struct block_options *options, struct error *err)
{
    struct block_node *file = vmdk->mapped.file;
    uint64_t length;
    int result = file->ops->length(file, &length);
    char *text = result ? NULL : read_text(file, 0, length, err), *rest = text, *line;

    if (!text)
        return -EINVAL;
    result = check_parent(text, err);
    while (!result && (line = strsep(&rest, "\n")))
        result = parse_line(vmdk, options, line, err);
    free(text);
    if (!result && !vmdk->count)
        result = error_set(err, EINVAL, "its descriptor names no extents");
    return result;
}

/* ---- opening ---- */

#define DESCRIPTOR_START "# Disk DescriptorFile"

static bool probe(const uint8_t *header, size_t size_bytes)
{
    return size_bytes >= sizeof(DESCRIPTOR_START) &&
           (is_sparse(header) ||
            memcmp(header, DESCRIPTOR_START, sizeof(DESCRIPTOR_START) - 1) == 0);
}

/* One sparse file, with its descriptor within. */
static int open_single(struct vmdk *vmdk, struct error *err)
{
    struct extent *e = add_extent(vmdk, err);
    uint8_t h[HEADER_BYTES];
    uint64_t offset, sectors;
    char *text;
    int result;

    if (!e)
        return -ENOMEM;
    e->file = vmdk->mapped.file;
    if (open_sparse(e, h, err))
        return -EINVAL;
    vmdk->mapped.node.size_bytes = e->size_bytes;
    offset = get_le64(h + AT_DESCRIPTOR);
    sectors = get_le64(h + AT_DESCRIPTOR_SECTORS);
    if (!offset)
        return error_set(err, EINVAL, "it is a part of an image; give the file that describes all");
    if (offset > MAX_SECTORS || sectors > MAX_DESCRIPTOR / BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "its descriptor is too long");
    text = read_text(e->file, offset * BLOCK_SECTOR_BYTES, sectors * BLOCK_SECTOR_BYTES, err);
    if (!text)
        return -EINVAL;
    result = check_parent(text, err);
    free(text);
    return result;
}

/* What is the same for all extents. */
static int finish(struct vmdk *vmdk, struct error *err)
{
    uint32_t largest = 0;

    vmdk->mapped.block_bytes = FLAT_BLOCK;
    for (unsigned n = 0; n < vmdk->count; n++) {
        uint32_t grain = vmdk->extents[n].grain_bytes;

        if (grain && grain < vmdk->mapped.block_bytes)
            vmdk->mapped.block_bytes = grain;
        if (grain > largest && vmdk->extents[n].flags & IS_COMPRESSED)
            largest = grain;
    }
    if (!largest)
        return 0;
    vmdk->unpacked = malloc(largest);
    return vmdk->unpacked ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int open_all(struct vmdk *vmdk, const struct block_options *options, struct error *err)
{
    uint8_t header[HEADER_BYTES] = {0};
    int result = block_node_read(vmdk->mapped.file, 0, header, sizeof(header));

    if (result)
        return error_set(err, -result, "cannot read it: %s", strerror(-result));
    if (!probe(header, sizeof(header)))
        return error_set(err, EINVAL, "it is not a VMDK image");
    result = is_sparse(header) ? open_single(vmdk, err) : open_described(vmdk, options, err);
    return result ? result : finish(vmdk, err);
}

static void vmdk_close(struct block_node *node)
{
    struct vmdk *vmdk = (struct vmdk *)node;

    for (unsigned n = 0; n < vmdk->count; n++)
        if (vmdk->extents[n].file != vmdk->mapped.file)
            block_node_close(vmdk->extents[n].file);
    free(vmdk->extents);
    free(vmdk->unpacked);
    pthread_mutex_destroy(&vmdk->lock);
    mapped_close(node);
}

static const struct block_node_ops vmdk_ops = {
    .name = "vmdk",
    .close = vmdk_close,
    .execute = mapped_execute,
    .try_execute = mapped_try,
    .map = mapped_map,
};

static struct block_node *vmdk_open(struct block_node *file, const struct block_options *options,
                                    const struct block_chain *chain, struct error *err)
{
    struct mapped *m = mapped_new(sizeof(struct vmdk), &vmdk_ops, file, err);

    if (!m)
        return NULL;
    m->find = find;
    m->read_packed = read_packed;
    pthread_mutex_init(&vmdk_of(m)->lock, NULL);
    return mapped_opened(m, open_all(vmdk_of(m), options, err), options, err);
}

const struct block_format block_vmdk = {
    .name = "vmdk",
    .summary = "VMware's format; only read",
    .is_only_read = true,
    .probe = probe,
    .open = vmdk_open,
};
