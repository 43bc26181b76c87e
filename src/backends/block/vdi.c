/*
 * vdi.c - VirtualBox's images: dynamic and static ones, read only
 *
 * docs/formats/foreign.md. A header, a map with 32 bits for each block of the disk, the blocks.
 */
#include <errno.h>
#include <string.h>

#include "backends/block/mapped.h"
#include "base/bytes.h"

#define AT_SIGNATURE 0x40u
#define AT_VERSION   0x44u
#define AT_TYPE      0x4cu
#define AT_MAP       0x154u
#define AT_DATA      0x158u
#define AT_SECTOR    0x168u
#define AT_SIZE      0x170u
#define AT_BLOCK     0x178u
#define AT_EXTRA     0x17cu
#define AT_BLOCKS    0x180u
#define AT_PARENTS   0x1a8u /* two UUIDs of the image under a difference */
#define HEADER_BYTES 0x1c8u

#define SIGNATURE    0xbeda107fu
#define VERSION_1_1  0x00010001u
#define ZEROS        0xfffffffeu /* in the map; and above it, nothing: which reads as zeros too */
#define MIN_BLOCK    4096u
#define MAX_BLOCK    (256u << 20)

enum { TYPE_DYNAMIC = 1, TYPE_STATIC = 2 };

struct vdi {
    struct mapped mapped;
    uint64_t map_offset, data_offset;
};

static int find(struct mapped *m, uint64_t offset, uint64_t size_bytes, struct mapped_place *out)
{
    const struct vdi *vdi = (const struct vdi *)m;
    uint64_t block = offset / m->block_bytes;
    uint8_t entries[MAPPED_ENTRIES * 4];
    unsigned count = mapped_entries(m, offset, size_bytes);
    int result = block_node_read(m->file, vdi->map_offset + block * 4, entries, count * 4);

    for (unsigned n = 0; n < count && !result; n++) {
        uint32_t entry = get_le32(entries + n * 4);
        struct mapped_place place = {.kind = entry >= ZEROS ? MAPPED_ZERO : MAPPED_FILE,
                                     .file = m->file,
                                     .file_offset =
                                         vdi->data_offset + (uint64_t)entry * m->block_bytes,
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
    return size_bytes >= AT_VERSION && get_le32(header + AT_SIGNATURE) == SIGNATURE;
}

static bool has_parent(const uint8_t *header)
{
    for (unsigned n = AT_PARENTS; n < HEADER_BYTES; n++)
        if (header[n])
            return true;
    return false;
}

static int check_header(const uint8_t *h, struct error *err)
{
    uint32_t type = get_le32(h + AT_TYPE), block = get_le32(h + AT_BLOCK);

    if (!probe(h, HEADER_BYTES))
        return error_set(err, EINVAL, "it is not a VDI image");
    if (get_le32(h + AT_VERSION) != VERSION_1_1)
        return error_set(err, ENOTSUP, "it is VDI of version %u.%u; 1.1 is supported",
                         get_le16(h + AT_VERSION + 2), get_le16(h + AT_VERSION));
    if ((type != TYPE_DYNAMIC && type != TYPE_STATIC) || has_parent(h))
        return error_set(err, ENOTSUP,
                         "it is a difference to another image, which is not supported");
    if (get_le32(h + AT_SECTOR) != BLOCK_SECTOR_BYTES || get_le32(h + AT_EXTRA) ||
        block < MIN_BLOCK || block > MAX_BLOCK || block & (block - 1))
        return error_set(err, ENOTSUP, "it has blocks of %u and %u bytes, sectors of %u", block,
                         get_le32(h + AT_EXTRA), get_le32(h + AT_SECTOR));
    return 0;
}

static int read_header(struct vdi *vdi, struct error *err)
{
    struct mapped *m = &vdi->mapped;
    uint8_t h[HEADER_BYTES];
    uint64_t size;

    if (mapped_read(m->file, 0, h, sizeof(h), err) || check_header(h, err))
        return -EINVAL;
    size = get_le64(h + AT_SIZE);
    m->block_bytes = get_le32(h + AT_BLOCK);
    vdi->map_offset = get_le32(h + AT_MAP);
    vdi->data_offset = get_le32(h + AT_DATA);
    m->node.size_bytes = align_down(size, BLOCK_SECTOR_BYTES);
    if (!m->node.size_bytes)
        return error_set(err, EINVAL, "its disk has no sector");
    if (vdi->data_offset % BLOCK_SECTOR_BYTES)
        return error_set(err, EINVAL, "its data is at 0x%llx, where it cannot be",
                         (unsigned long long)vdi->data_offset);
    if ((size - 1) / m->block_bytes + 1 > get_le32(h + AT_BLOCKS))
        return error_set(err, EINVAL, "its map is too small for its disk");
    return mapped_check_table(m->file, vdi->map_offset, ((size - 1) / m->block_bytes + 1) * 4, err);
}

static const struct block_node_ops vdi_ops = {
    .name = "vdi",
    .close = mapped_close,
    .execute = mapped_execute,
    .try_execute = mapped_try,
    .map = mapped_map,
};

static struct block_node *vdi_open(struct block_node *file, const struct block_options *options,
                                   const struct block_chain *chain, struct error *err)
{
    struct mapped *m = mapped_new(sizeof(struct vdi), &vdi_ops, file, err);

    if (!m)
        return NULL;
    m->find = find;
    return mapped_opened(m, read_header((struct vdi *)m, err), options, err);
}

const struct block_format block_vdi = {
    .name = "vdi",
    .summary = "VirtualBox's format; only read",
    .is_only_read = true,
    .probe = probe,
    .open = vdi_open,
};
