/*
 * vhdx.c - Hyper-V's images: dynamic, fixed and differencing ones, read only
 *
 * docs/formats/foreign.md; MS-VHDX. Two headers, of which the newer valid one counts; a table of
 * regions; one region is metadata, the other a table (BAT) with 64 bits for each block of the
 * disk, and after those of each chunk 64 more for a bitmap of its sectors. A log that was not
 * played back is refused: to do so writes to the image.
 */
#include "backends/block/vhdx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/mapped.h"
#include "base/bytes.h"

#define GUID_BYTES          16u
#define GUID_TEXT_BYTES     39u /* "{...}" with the end mark */

#define HEADER_AT_SEQUENCE  8u
#define HEADER_AT_DATA_GUID 32u
#define HEADER_AT_LOG_GUID  48u
#define HEADER_AT_VERSION   66u

#define MAX_ENTRIES         2047u /* of regions and of metadata */
#define ENTRY_BYTES         32u
#define REGIONS_AT_COUNT    8u
#define REGIONS_AT_ENTRIES  16u
#define METADATA_AT_COUNT   10u
#define METADATA_AT_ENTRIES 32u
#define IS_REQUIRED_REGION  0x1u
#define IS_USERS            0x1u /* metadata of others */
#define IS_REQUIRED_ITEM    0x4u

#define HAS_PARENT          0x2u
#define MIN_BLOCK           (1u << 20)
#define MAX_BLOCK           (256u << 20)
#define MAX_SIZE            (64ull << 40)
#define CHUNK_SECTORS       (1u << 23)
#define MAX_LOCATOR         (64u << 10)
#define BITMAP_PART         64u /* bytes of a bitmap that are looked at at once */

#define BAT_STATE           0x7u
#define BAT_OFFSET          (~0ull << 20)

enum block_state {
    BLOCK_NOT_PRESENT = 0,
    BLOCK_UNDEFINED = 1,
    BLOCK_IS_ZERO = 2,
    BLOCK_UNMAPPED = 3,
    BLOCK_PRESENT = 6,
    BLOCK_IN_PART = 7,
};

struct vhdx {
    struct mapped mapped;
    uint64_t bat_offset, bat_bytes;
    uint64_t metadata_offset;
    uint32_t metadata_bytes, sector_bytes;
    uint64_t chunk_blocks;
    bool has_parent;
    char data_guid[GUID_TEXT_BYTES];
    uint8_t *locator; /* while it is opened */
    uint32_t locator_bytes;
};

/* As they stand in the file. */
static const uint8_t bat_guid[] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                   0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t metadata_guid[] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                        0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
static const uint8_t parameters_guid[] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                          0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
static const uint8_t size_guid[] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                    0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
static const uint8_t disk_id_guid[] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                       0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
static const uint8_t logical_guid[] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                       0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
static const uint8_t physical_guid[] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                        0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
static const uint8_t parent_guid[] = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                      0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};

static bool is_guid(const uint8_t *bytes, const uint8_t *guid)
{
    return memcmp(bytes, guid, GUID_BYTES) == 0;
}

static void guid_text(const uint8_t *g, char *out)
{
    snprintf(out, GUID_TEXT_BYTES, "{%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}",
             get_le32(g), get_le16(g + 4), get_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13],
             g[14], g[15]);
}

uint32_t vhdx_sum(const uint8_t *bytes, size_t size)
{
    uint32_t table[256], sum = ~0u;

    for (uint32_t n = 0; n < 256; n++) {
        table[n] = n;
        for (unsigned bit = 0; bit < 8; bit++)
            table[n] = table[n] >> 1 ^ (table[n] & 1 ? 0x82f63b78u : 0);
    }
    for (size_t n = 0; n < size; n++) {
        uint8_t byte = n >= VHDX_AT_SUM && n < VHDX_AT_SUM + 4 ? 0 : bytes[n];

        sum = sum >> 8 ^ table[(sum ^ byte) & 0xff];
    }
    return ~sum;
}

/* ---- where things are ---- */

static int bat_place(const struct vhdx *vhdx, uint64_t entry, struct mapped_place *out)
{
    *out = (struct mapped_place){.file = vhdx->mapped.file,
                                 .file_offset = entry & BAT_OFFSET,
                                 .size_bytes = vhdx->mapped.block_bytes};
    switch ((enum block_state)(entry & BAT_STATE)) {
    case BLOCK_PRESENT:
    case BLOCK_IN_PART:
        out->kind = MAPPED_FILE;
        return 0;
    case BLOCK_NOT_PRESENT:
        out->kind = vhdx->has_parent ? MAPPED_BELOW : MAPPED_ZERO;
        return 0;
    case BLOCK_UNDEFINED:
    case BLOCK_IS_ZERO:
    case BLOCK_UNMAPPED:
        out->kind = MAPPED_ZERO;
        return 0;
    default:
        return -EIO;
    }
}

static bool bit_of(const uint8_t *bitmap, uint64_t bit)
{
    return bitmap[bit / 8] >> bit % 8 & 1;
}

/*
 * block, which is whole in *out, is here in part: shorten *out, which is at byte skip of it now,
 * to sectors that are all here or all in the parent.
 */
static int split(const struct vhdx *vhdx, uint64_t block, uint64_t skip, struct mapped_place *out)
{
    uint64_t chunk = block / vhdx->chunk_blocks, entry, sector, count, last;
    uint8_t bytes[8], bitmap[BITMAP_PART];
    uint64_t at = chunk * (vhdx->chunk_blocks + 1) + vhdx->chunk_blocks;
    int result;

    if (!vhdx->has_parent || at >= vhdx->bat_bytes / 8)
        return -EIO;
    result = block_node_read(vhdx->mapped.file, vhdx->bat_offset + at * 8, bytes, sizeof(bytes));
    if (result)
        return result;
    entry = get_le64(bytes);
    if ((entry & BAT_STATE) != BLOCK_PRESENT)
        return -EIO;
    sector = (block % vhdx->chunk_blocks * vhdx->mapped.block_bytes + skip) / vhdx->sector_bytes;
    result = block_node_read(vhdx->mapped.file, (entry & BAT_OFFSET) + sector / 8, bitmap,
                             sizeof(bitmap));
    if (result)
        return result;
    last = sector + (out->size_bytes - 1) / vhdx->sector_bytes; /* skip may be within a sector */
    for (count = 1; sector % 8 + count < 8 * BITMAP_PART && sector + count <= last; count++)
        if (bit_of(bitmap, sector % 8 + count) != bit_of(bitmap, sector % 8))
            break;
    out->kind = bit_of(bitmap, sector % 8) ? MAPPED_FILE : MAPPED_BELOW;
    count = count * vhdx->sector_bytes - skip % vhdx->sector_bytes;
    if (count < out->size_bytes)
        out->size_bytes = count;
    return 0;
}

static int find(struct mapped *m, uint64_t offset, uint64_t size_bytes, struct mapped_place *out)
{
    const struct vhdx *vhdx = (const struct vhdx *)m;
    uint64_t block = offset / m->block_bytes, skip = offset % m->block_bytes;
    uint64_t in_chunk = vhdx->chunk_blocks - block % vhdx->chunk_blocks;
    uint8_t entries[MAPPED_ENTRIES * 8];
    unsigned count = mapped_entries(m, offset, size_bytes);
    int result;

    if (count > in_chunk)
        count = (unsigned)in_chunk;
    result = block_node_read(m->file, vhdx->bat_offset + (block + block / vhdx->chunk_blocks) * 8,
                             entries, count * 8);
    if (!result)
        result = bat_place(vhdx, get_le64(entries), out);
    if (result)
        return result;
    if ((get_le64(entries) & BAT_STATE) == BLOCK_IN_PART) {
        mapped_skip(out, skip);
        return split(vhdx, block, skip, out);
    }
    for (unsigned n = 1; n < count; n++) {
        uint64_t entry = get_le64(entries + n * 8);
        struct mapped_place place;

        if ((entry & BAT_STATE) == BLOCK_IN_PART || bat_place(vhdx, entry, &place) ||
            !mapped_extend(out, &place))
            break;
    }
    mapped_skip(out, skip);
    return 0;
}

/* ---- headers ---- */

static bool probe(const uint8_t *header, size_t size_bytes)
{
    return size_bytes >= 8 && memcmp(header, "vhdxfile", 8) == 0;
}

static int check_header(struct vhdx *vhdx, const uint8_t *header, struct error *err)
{
    static const uint8_t none[GUID_BYTES];

    if (get_le16(header + HEADER_AT_VERSION) != 1)
        return error_set(err, ENOTSUP, "it is VHDX of version %u; 1 is supported",
                         get_le16(header + HEADER_AT_VERSION));
    if (!is_guid(header + HEADER_AT_LOG_GUID, none))
        return error_set(err, ENOTSUP,
                         "it was not closed by who wrote it last: its log has to be played back "
                         "first, which 'qemu-img check -r all' does");
    guid_text(header + HEADER_AT_DATA_GUID, vhdx->data_guid);
    return 0;
}

static bool is_valid(const uint8_t *bytes, size_t size, const char *signature)
{
    return memcmp(bytes, signature, 4) == 0 &&
           get_le32(bytes + VHDX_AT_SUM) == vhdx_sum(bytes, size);
}

static int read_header(struct vhdx *vhdx, struct error *err)
{
    struct block_node *file = vhdx->mapped.file;
    uint8_t headers[2][VHDX_HEADER_BYTES];
    int newest = -1;

    if (mapped_read(file, 0, headers[0], 8, err))
        return -EINVAL;
    if (!probe(headers[0], 8))
        return error_set(err, EINVAL, "it is not a VHDX image");
    for (int n = 0; n < 2; n++) {
        if (mapped_read(file, VHDX_HEADERS * (unsigned)(n + 1), headers[n], sizeof(headers[n]),
                        err))
            return -EINVAL;
        if (is_valid(headers[n], sizeof(headers[n]), "head") &&
            (newest < 0 || get_le64(headers[n] + HEADER_AT_SEQUENCE) >
                               get_le64(headers[newest] + HEADER_AT_SEQUENCE)))
            newest = n;
    }
    if (newest < 0)
        return error_set(err, EINVAL, "it is damaged: neither of its headers is right");
    return check_header(vhdx, headers[newest], err);
}

/* ---- regions ---- */

static int parse_regions(struct vhdx *vhdx, const uint8_t *table, struct error *err)
{
    uint32_t count = get_le32(table + REGIONS_AT_COUNT);

    for (uint32_t n = 0; n < count && n < MAX_ENTRIES; n++) {
        const uint8_t *e = table + REGIONS_AT_ENTRIES + n * ENTRY_BYTES;
        uint64_t offset = get_le64(e + 16);
        uint32_t bytes = get_le32(e + 24);

        if (!range_fits(offset, bytes, INT64_MAX))
            return error_set(err, EINVAL, "a region is at 0x%llx, where it cannot be",
                             (unsigned long long)offset);
        if (is_guid(e, bat_guid)) {
            vhdx->bat_offset = offset;
            vhdx->bat_bytes = bytes;
        } else if (is_guid(e, metadata_guid)) {
            vhdx->metadata_offset = offset;
            vhdx->metadata_bytes = bytes;
        } else if (get_le32(e + 28) & IS_REQUIRED_REGION) {
            return error_set(err, ENOTSUP, "it has a region that is not known");
        }
    }
    if (!vhdx->bat_bytes || vhdx->metadata_bytes < VHDX_TABLE_BYTES)
        return error_set(err, EINVAL, "it is damaged: a region is missing");
    return 0;
}

static int read_regions(struct vhdx *vhdx, struct error *err)
{
    uint8_t *table = malloc(VHDX_TABLE_BYTES);
    int result = table ? 0 : error_set(err, ENOMEM, "out of memory");
    bool is_found = false;

    for (unsigned n = 0; n < 2 && !result && !is_found; n++) {
        result = mapped_read(vhdx->mapped.file, VHDX_REGIONS + n * VHDX_TABLE_BYTES, table,
                             VHDX_TABLE_BYTES, err);
        is_found = !result && is_valid(table, VHDX_TABLE_BYTES, "regi");
    }
    if (!result)
        result = is_found ? parse_regions(vhdx, table, err)
                          : error_set(err, EINVAL,
                                      "it is damaged: neither of its region tables is right");
    free(table);
    return result;
}

/* ---- metadata ---- */

struct metadata {
    uint32_t block_bytes, flags, sector_bytes;
    uint64_t size_bytes;
};

/* size_bytes of the item that an entry is about. */
static int read_item(const struct vhdx *vhdx, const uint8_t *entry, void *out, uint32_t size_bytes,
                     struct error *err)
{
    uint32_t offset = get_le32(entry + 16);

    if (get_le32(entry + 20) < size_bytes || !range_fits(offset, size_bytes, vhdx->metadata_bytes))
        return error_set(err, EINVAL, "it is damaged: an item of its metadata is too short");
    return mapped_read(vhdx->mapped.file, vhdx->metadata_offset + offset, out, size_bytes, err);
}

static int read_locator(struct vhdx *vhdx, const uint8_t *entry, struct error *err)
{
    uint32_t bytes = get_le32(entry + 20);

    if (bytes > MAX_LOCATOR || vhdx->locator)
        return error_set(err, EINVAL, "what it says about its parent is too long");
    vhdx->locator = malloc(bytes ? bytes : 1);
    if (!vhdx->locator)
        return error_set(err, ENOMEM, "out of memory");
    vhdx->locator_bytes = bytes;
    return read_item(vhdx, entry, vhdx->locator, bytes, err);
}

static int use_item(struct vhdx *vhdx, const uint8_t *entry, struct metadata *out,
                    struct error *err)
{
    uint32_t flags = get_le32(entry + 24);
    uint8_t bytes[8];
    int result;

    if (flags & IS_USERS)
        return 0;
    if (is_guid(entry, parameters_guid)) {
        result = read_item(vhdx, entry, bytes, 8, err);
        out->block_bytes = result ? 0 : get_le32(bytes);
        out->flags = result ? 0 : get_le32(bytes + 4);
        return result;
    }
    if (is_guid(entry, size_guid)) {
        result = read_item(vhdx, entry, bytes, 8, err);
        out->size_bytes = result ? 0 : get_le64(bytes);
        return result;
    }
    if (is_guid(entry, logical_guid)) {
        result = read_item(vhdx, entry, bytes, 4, err);
        out->sector_bytes = result ? 0 : get_le32(bytes);
        return result;
    }
    if (is_guid(entry, parent_guid))
        return read_locator(vhdx, entry, err);
    if (flags & IS_REQUIRED_ITEM && !is_guid(entry, disk_id_guid) && !is_guid(entry, physical_guid))
        return error_set(err, ENOTSUP, "it has metadata that is not known");
    return 0;
}

static int use_metadata(struct vhdx *vhdx, const struct metadata *data, struct error *err)
{
    struct mapped *m = &vhdx->mapped;
    uint64_t blocks, entries;

    if (data->sector_bytes != 512 && data->sector_bytes != 4096)
        return error_set(err, EINVAL, "its sectors have %u bytes", data->sector_bytes);
    if (data->block_bytes < MIN_BLOCK || data->block_bytes > MAX_BLOCK ||
        data->block_bytes & (data->block_bytes - 1))
        return error_set(err, EINVAL, "its blocks have %u bytes", data->block_bytes);
    if (!data->size_bytes || data->size_bytes % data->sector_bytes || data->size_bytes > MAX_SIZE)
        return error_set(err, EINVAL, "its disk has %llu bytes",
                         (unsigned long long)data->size_bytes);
    m->node.size_bytes = data->size_bytes;
    m->block_bytes = data->block_bytes;
    vhdx->sector_bytes = data->sector_bytes;
    vhdx->has_parent = data->flags & HAS_PARENT;
    vhdx->chunk_blocks = (uint64_t)CHUNK_SECTORS * data->sector_bytes / data->block_bytes;
    blocks = (data->size_bytes - 1) / data->block_bytes + 1;
    entries = blocks + (blocks - 1) / vhdx->chunk_blocks;
    if (entries > vhdx->bat_bytes / 8)
        return error_set(err, EINVAL, "its table is too small for its disk");
    return mapped_check_table(m->file, vhdx->bat_offset, entries * 8, err);
}

static int read_metadata(struct vhdx *vhdx, struct error *err)
{
    struct metadata data = {0};
    uint8_t head[METADATA_AT_ENTRIES], entry[ENTRY_BYTES];
    uint32_t count;

    if (mapped_read(vhdx->mapped.file, vhdx->metadata_offset, head, sizeof(head), err))
        return -EINVAL;
    count = get_le16(head + METADATA_AT_COUNT);
    if (memcmp(head, "metadata", 8) || count > MAX_ENTRIES)
        return error_set(err, EINVAL, "it is damaged: its metadata is not right");
    for (uint32_t n = 0; n < count; n++)
        if (mapped_read(vhdx->mapped.file,
                        vhdx->metadata_offset + METADATA_AT_ENTRIES + n * ENTRY_BYTES, entry,
                        sizeof(entry), err) ||
            use_item(vhdx, entry, &data, err))
            return -EINVAL;
    return use_metadata(vhdx, &data, err);
}

/* ---- the parent ---- */

/* UTF-16 of size bytes as UTF-8, which takes at most 3 bytes for 2; out has room. */
static void utf8_of(const uint8_t *text, size_t size, char *out)
{
    for (size_t n = 0; n + 2 <= size; n += 2) {
        uint32_t c = get_le16(text + n);

        if (c >= 0xd800 && c < 0xdc00 && n + 4 <= size) {
            c = 0x10000 + ((c & 0x3ff) << 10) + (get_le16(text + n + 2) & 0x3ff);
            n += 2;
            *out++ = (char)(0xf0 | c >> 18);
            *out++ = (char)(0x80 | (c >> 12 & 0x3f));
            *out++ = (char)(0x80 | (c >> 6 & 0x3f));
            *out++ = (char)(0x80 | (c & 0x3f));
        } else if (c >= 0x800) {
            *out++ = (char)(0xe0 | c >> 12);
            *out++ = (char)(0x80 | (c >> 6 & 0x3f));
            *out++ = (char)(0x80 | (c & 0x3f));
        } else if (c >= 0x80) {
            *out++ = (char)(0xc0 | c >> 6);
            *out++ = (char)(0x80 | (c & 0x3f));
        } else {
            *out++ = (char)c;
        }
    }
    *out = '\0';
}

/* The value of a key, freed by the caller; NULL if there is none. */
static char *locator_value(const struct vhdx *vhdx, const char *key)
{
    const uint8_t *l = vhdx->locator;
    uint32_t count = vhdx->locator_bytes >= 20 ? get_le16(l + 18) : 0;

    for (uint32_t n = 0; n < count && 20 + (n + 1) * 12 <= vhdx->locator_bytes; n++) {
        const uint8_t *e = l + 20 + n * 12;
        uint32_t key_at = get_le32(e), value_at = get_le32(e + 4);
        uint16_t key_bytes = get_le16(e + 8), value_bytes = get_le16(e + 10);
        char *text;
        bool is_it;

        if (!range_fits(key_at, key_bytes, vhdx->locator_bytes) ||
            !range_fits(value_at, value_bytes, vhdx->locator_bytes))
            continue;
        text = malloc((key_bytes > value_bytes ? key_bytes : value_bytes) * 3 / 2 + 4u);
        if (!text)
            return NULL;
        utf8_of(l + key_at, key_bytes, text);
        is_it = strcmp(text, key) == 0;
        utf8_of(l + value_at, value_bytes, text);
        if (is_it)
            return text;
        free(text);
    }
    return NULL;
}

static const struct block_node_ops vhdx_ops;

/* Has nobody written to the parent since the image was made? */
static int check_linkage(const struct vhdx *vhdx, struct error *err)
{
    const struct vhdx *below = (const struct vhdx *)vhdx->mapped.below;
    char *linkage = locator_value(vhdx, "parent_linkage");
    bool is_right = linkage && below->mapped.node.ops == &vhdx_ops &&
                    strcasecmp(linkage, below->data_guid) == 0;

    free(linkage);
    return is_right ? 0
                    : error_set(err, EINVAL,
                                "its parent is another one, or was written to since it was made");
}

static int open_parent(struct vhdx *vhdx, const struct block_options *options,
                       const struct block_chain *chain, struct error *err)
{
    static char format[] = "vhdx";
    struct block_options below = block_options_below(options);
    char *name;

    if (!vhdx->has_parent || options->no_backing)
        return 0;
    name = locator_value(vhdx, "relative_path");
    if (!name)
        return error_set(err, ENOTSUP, "it does not say where its parent is, relative to itself");
    for (char *c = name; *c; c++)
        if (*c == '\\')
            *c = '/';
    below.file = block_backing_path(options->file, name, err);
    free(name);
    if (!below.file)
        return -EINVAL;
    below.format = format;
    vhdx->mapped.below = block_node_open(&below, chain, err);
    free(below.file);
    return vhdx->mapped.below ? check_linkage(vhdx, err) : -EIO;
}

/* ---- opening ---- */

static int open_all(struct vhdx *vhdx, const struct block_options *options,
                    const struct block_chain *chain, struct error *err)
{
    int result = read_header(vhdx, err);

    if (!result)
        result = read_regions(vhdx, err);
    if (!result)
        result = read_metadata(vhdx, err);
    if (!result)
        result = open_parent(vhdx, options, chain, err);
    free(vhdx->locator);
    vhdx->locator = NULL;
    return result;
}

static const struct block_node_ops vhdx_ops = {
    .name = "vhdx",
    .close = mapped_close,
    .execute = mapped_execute,
    .try_execute = mapped_try,
    .map = mapped_map,
};

static struct block_node *vhdx_open(struct block_node *file, const struct block_options *options,
                                    const struct block_chain *chain, struct error *err)
{
    struct mapped *m = mapped_new(sizeof(struct vhdx), &vhdx_ops, file, err);

    if (!m)
        return NULL;
    m->find = find;
    return mapped_opened(m, open_all((struct vhdx *)m, options, chain, err), options, err);
}

const struct block_format block_vhdx = {
    .name = "vhdx",
    .summary = "Hyper-V's format; only read",
    .is_only_read = true,
    .probe = probe,
    .open = vhdx_open,
};
