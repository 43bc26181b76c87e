/*
 * mode.c - MODE SENSE and MODE SELECT: error recovery, caching, control
 *
 * SPC-4, 6.11 to 6.14 and 7.5; SBC-3, 6.4. Only the write cache can be switched, if there is
 * one. Nothing is saved.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/scsi/internal.h"

#define PAGE_RECOVERY    0x01u
#define PAGE_CACHING     0x08u
#define PAGE_CONTROL     0x0au
#define PAGE_ALL         0x3fu
#define CACHING_WCE      0x04u /* byte 2 */
#define CONTROL_REORDER  0x10u /* byte 3: unrestricted */

#define CURRENT          0u
#define CHANGEABLE       1u
#define SAVED            3u

#define WRITE_PROTECT    0x80u /* device-specific parameter */
#define FUA_SUPPORT      0x10u
#define NO_DESCRIPTORS   0x08u /* DBD */
#define LONG_LBA         0x10u /* LLBAA */
#define PAGE_FORMAT      0x10u
#define SAVE_PAGES       0x01u
#define DESCRIPTOR_BYTES 8u
#define MAX_BYTES        96u

static const uint8_t pages[] = {PAGE_RECOVERY, PAGE_CACHING, PAGE_CONTROL};

static bool is_long(const struct scsi_request *r) /* of the 10-byte commands */
{
    return r->cdb[0] >= 0x40;
}

/* As it is (CURRENT), or which bits can be changed, or its default. 0: there is none such. */
static size_t put_page(const struct scsi_disk *disk, uint8_t page, unsigned control, uint8_t *data)
{
    static const uint8_t sizes[] = {[PAGE_RECOVERY] = 12, [PAGE_CACHING] = 20, [PAGE_CONTROL] = 12};
    size_t size = page < sizeof(sizes) ? sizes[page] : 0;

    if (!size)
        return 0;
    memset(data, 0, size);
    data[0] = page;
    data[1] = (uint8_t)(size - 2);
    if (page == PAGE_CACHING &&
        (control == CURRENT ? disk->write_cache : scsi_has_write_cache(disk)))
        data[2] = CACHING_WCE;
    if (page == PAGE_CONTROL && control != CHANGEABLE)
        data[3] = CONTROL_REORDER;
    return size;
}

static size_t put_descriptor(const struct scsi_disk *disk, uint8_t *data)
{
    uint64_t sectors = block_size_bytes(disk->drive) / BLOCK_SECTOR_BYTES;

    put_be32(data, sectors > UINT32_MAX ? UINT32_MAX : (uint32_t)sectors);
    put_be32(data + 4, BLOCK_SECTOR_BYTES);
    return DESCRIPTOR_BYTES;
}

void scsi_mode_sense(struct scsi_request *r)
{
    uint8_t data[MAX_BYTES] = {0};
    uint8_t page = r->cdb[2] & 0x3f, control = r->cdb[2] >> 6;
    uint8_t specific =
        (uint8_t)(FUA_SUPPORT | (block_is_read_only(r->disk->drive) ? WRITE_PROTECT : 0));
    size_t header = is_long(r) ? 8 : 4, size = header, before;

    if (control == SAVED) {
        scsi_end(r, SCSI_NOT_SAVED);
        return;
    }
    if (!(r->cdb[1] & NO_DESCRIPTORS))
        size += put_descriptor(r->disk, data + size);
    data[header - 1] = (uint8_t)(size - header);
    before = size;
    for (size_t n = 0; n < sizeof(pages); n++)
        if (page == pages[n] || page == PAGE_ALL)
            size += put_page(r->disk, pages[n], control, data + size);
    if (size == before || (r->cdb[3] && r->cdb[3] != 0xff)) { /* there are no subpages */
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (is_long(r)) {
        put_be16(data, (uint16_t)(size - 2));
        data[3] = specific;
    } else {
        data[0] = (uint8_t)(size - 1);
        data[2] = specific;
    }
    scsi_reply(r, data, size, is_long(r) ? get_be16(r->cdb + 7) : r->cdb[4]);
}

/* Is the page as it is, but for what can be changed? */
static bool is_acceptable(const struct scsi_disk *disk, const uint8_t *page, size_t size)
{
    uint8_t current[MAX_BYTES], changeable[MAX_BYTES];

    if (put_page(disk, page[0], CURRENT, current) != size)
        return false;
    put_page(disk, page[0], CHANGEABLE, changeable);
    for (size_t n = 2; n < size; n++)
        if ((page[n] ^ current[n]) & ~changeable[n])
            return false;
    return page[1] == size - 2;
}

/* Walks the pages of a list twice: all of it is checked before any of it holds. */
static bool select_pages(struct scsi_disk *disk, const uint8_t *page, size_t left, bool apply)
{
    while (left >= 2) {
        size_t size = page[1] + 2u;

        if (size > left || !is_acceptable(disk, page, size))
            return false;
        if (apply && page[0] == PAGE_CACHING)
            disk->write_cache = page[2] & CACHING_WCE;
        page += size;
        left -= size;
    }
    return left == 0;
}

void scsi_mode_select(struct scsi_request *r)
{
    size_t size = is_long(r) ? get_be16(r->cdb + 7) : r->cdb[4], header = is_long(r) ? 8 : 4;
    uint8_t list[256];
    size_t descriptors;

    if (!size) {
        scsi_end(r, SCSI_NO_SENSE);
        return;
    }
    if ((r->cdb[1] & (PAGE_FORMAT | SAVE_PAGES)) != PAGE_FORMAT) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (size < header || size > sizeof(list)) {
        scsi_end(r, SCSI_LIST_LENGTH);
        return;
    }
    if (!scsi_take(r, list, size))
        return;
    descriptors = is_long(r) ? get_be16(list + 6) : list[3];
    if (descriptors && (descriptors != DESCRIPTOR_BYTES || size < header + descriptors ||
                        (get_be32(list + header + 4) & 0xffffff) != BLOCK_SECTOR_BYTES)) {
        scsi_end(r, SCSI_INVALID_PARAMETER);
        return;
    }
    header += descriptors;
    if (!select_pages(r->disk, list + header, size - header, false)) {
        scsi_end(r, SCSI_INVALID_PARAMETER);
        return;
    }
    select_pages(r->disk, list + header, size - header, true);
    scsi_end(r, SCSI_NO_SENSE);
}
