/*
 * vhd.c - Virtual PC's images: dynamic and fixed ones, read only
 *
 * docs/formats/foreign.md. A footer, which dynamic images have at their start too; a table with
 * the sector of each block; a block is a bitmap, which says nothing here, and its data.
 */
#include <errno.h>
#include <string.h>

#include "backends/block/mapped.h"
#include "base/bytes.h"

#define FOOTER_BYTES       512u
#define FOOTER_AT_NEXT     16u /* the dynamic header */
#define FOOTER_AT_SIZE     48u
#define FOOTER_AT_TYPE     60u
#define FOOTER_AT_SUM      64u

#define DYNAMIC_BYTES      1024u
#define DYNAMIC_AT_TABLE   16u
#define DYNAMIC_AT_ENTRIES 28u
#define DYNAMIC_AT_BLOCK   32u
#define DYNAMIC_AT_SUM     36u

#define NOTHING            0xffffffffu
#define MAX_BLOCK          (256u << 20)

enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCE = 4 };

struct vhd {
    struct mapped mapped;
    bool is_fixed;
    uint64_t table_offset;
    uint32_t bitmap_bytes; /* before each block's data */
};

static int find(struct mapped *m, uint64_t offset, uint64_t size_bytes, struct mapped_place *out)
{
    const struct vhd *vhd = (const struct vhd *)m;
    uint64_t block = offset / m->block_bytes;
    uint8_t entries[MAPPED_ENTRIES * 4];
    unsigned count = mapped_entries(m, offset, size_bytes);
    int result;

    if (vhd->is_fixed) {
        *out = (struct mapped_place){.kind = MAPPED_FILE,
                                     .file = m->file,
                                     .file_offset = offset,
                                     .size_bytes = m->node.size_bytes - offset};
        return 0;
    }
    result = block_node_read(m->file, vhd->table_offset + block * 4, entries, count * 4);
    for (unsigned n = 0; n < count && !result; n++) {
        uint32_t entry = get_be32(entries + n * 4);
        struct mapped_place place = {.kind = entry == NOTHING ? MAPPED_ZERO : MAPPED_FILE,
                                     .file = m->file,
                                     .file_offset =
                                         (uint64_t)entry * BLOCK_SECTOR_BYTES + vhd->bitmap_bytes,
                                     .size_bytes = m->block_bytes};

        if (n == 0)
            *out = place;
        else if (!mapped_extend(out, &place))
            break;
    }
    if (!result)
        mapped_skip(out, offset % m->block_bytes);
    return result;
}

/* ---- opening ---- */

static bool probe(const uint8_t *header, size_t size_bytes)
{
    return size_bytes >= FOOTER_BYTES && memcmp(header, "conectix", 8) == 0;
}

/* The complement of the sum of all bytes but its own. */
static bool sum_is_right(const uint8_t *bytes, size_t size, unsigned at_sum)
{
    uint32_t sum = 0;

    for (size_t n = 0; n < size; n++)
        if (n < at_sum || n >= at_sum + 4)
            sum += bytes[n];
    return ~sum == get_be32(bytes + at_sum);
}

static int read_dynamic(struct vhd *vhd, uint64_t offset, struct error *err)
{
    struct mapped *m = &vhd->mapped;
    uint8_t h[DYNAMIC_BYTES];
    uint64_t blocks;
    uint32_t block;

    if (mapped_read(m->file, offset, h, sizeof(h), err))
        return -EINVAL;
    if (memcmp(h, "cxsparse", 8) || !sum_is_right(h, sizeof(h), DYNAMIC_AT_SUM))
        return error_set(err, EINVAL, "it is damaged: its second header is not right");
    block = get_be32(h + DYNAMIC_AT_BLOCK);
    if (block < BLOCK_SECTOR_BYTES || block > MAX_BLOCK || block & (block - 1))
        return error_set(err, EINVAL, "its blocks have %u bytes", block);
    m->block_bytes = block;
    vhd->bitmap_bytes = (uint32_t)align_up(block / BLOCK_SECTOR_BYTES / 8, BLOCK_SECTOR_BYTES);
    vhd->table_offset = get_be64(h + DYNAMIC_AT_TABLE);
    blocks = (m->node.size_bytes - 1) / block + 1;
    if (blocks > get_be32(h + DYNAMIC_AT_ENTRIES))
        return error_set(err, EINVAL, "its table is too small for its disk");
    return mapped_check_table(m->file, vhd->table_offset, blocks * 4, err);
}

static int use_footer(struct vhd *vhd, const uint8_t *footer, uint64_t length, struct error *err)
{
    struct mapped *m = &vhd->mapped;
    uint32_t type = get_be32(footer + FOOTER_AT_TYPE);

    if (!sum_is_right(footer, FOOTER_BYTES, FOOTER_AT_SUM))
        return error_set(err, EINVAL, "it is damaged: the sum of its footer is wrong");
    m->node.size_bytes = align_down(get_be64(footer + FOOTER_AT_SIZE), BLOCK_SECTOR_BYTES);
    if (!m->node.size_bytes)
        return error_set(err, EINVAL, "its disk has no sector");
    if (type == TYPE_DYNAMIC)
        return read_dynamic(vhd, get_be64(footer + FOOTER_AT_NEXT), err);
    if (type != TYPE_FIXED)
        return error_set(err, ENOTSUP,
                         type == TYPE_DIFFERENCE
                             ? "it is a difference to another image, which is not "
                               "supported"
                             : "its type is not known");
    if (m->node.size_bytes > length - FOOTER_BYTES)
        return error_set(err, EINVAL, "it is shorter than its disk");
    vhd->is_fixed = true;
    m->block_bytes = 2u << 20;
    return 0;
}

/* A fixed image has its footer at the end only. */
static int read_header(struct vhd *vhd, struct error *err)
{
    struct block_node *file = vhd->mapped.file;
    uint8_t footer[FOOTER_BYTES];
    uint64_t length;
    int result = file->ops->length(file, &length);

    if (result)
        return error_set(err, -result, "%s", strerror(-result));
    if (mapped_read(file, 0, footer, sizeof(footer), err))
        return -EINVAL;
    if (!probe(footer, sizeof(footer)) &&
        mapped_read(file, length - FOOTER_BYTES, footer, sizeof(footer), err))
        return -EINVAL;
    if (!probe(footer, sizeof(footer)))
        return error_set(err, EINVAL, "it is not a VHD image");
    return use_footer(vhd, footer, length, err);
}

static const struct block_node_ops vhd_ops = {
    .name = "vpc",
    .close = mapped_close,
    .execute = mapped_execute,
    .try_execute = mapped_try,
    .map = mapped_map,
};

static struct block_node *vhd_open(struct block_node *file, const struct block_options *options,
                                   const struct block_chain *chain, struct error *err)
{
    struct mapped *m = mapped_new(sizeof(struct vhd), &vhd_ops, file, err);

    if (!m)
        return NULL;
    m->find = find;
    return mapped_opened(m, read_header((struct vhd *)m, err), options, err);
}

const struct block_format block_vhd = {
    .name = "vpc",
    .summary = "Virtual PC's format (VHD); only read",
    .is_only_read = true,
    .probe = probe,
    .open = vhd_open,
};
