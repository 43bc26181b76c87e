/*
 * inquiry.c - INQUIRY with vital product data, REPORT LUNS
 *
 * SPC-4, 6.6, 6.33 and 7.8; SBC-3, 6.5.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/scsi/internal.h"

#define NO_DEVICE       0x7fu /* no unit can be there */
#define REMOVABLE       0x80u
#define VERSION_SPC4    6u
#define RESPONSE_FORMAT 0x12u /* 2, hierarchical LUNs */
#define COMMAND_QUEUING 0x02u
#define EVPD            0x01u
#define VENDOR          "TRAPEZE "
#define PRODUCT         "disk            "
#define REVISION        "1.0 "
#define MAX_UNMAP       (1u << 22) /* sectors: 2 GiB */
#define MAX_RANGES      256u
#define PREFERRED       8u /* sectors: pages of the host's cache */
#define NOT_ROTATING    1u
#define UNMAPS          0xe0u /* UNMAP, and WRITE SAME(16) and (10) with its bit */
#define THIN            2u
#define NAA_LOCAL       (3ull << 60)
#define WELL_KNOWN_LUNS 1u

static size_t put_standard(const struct scsi_request *r, uint8_t *data)
{
    data[0] = r->is_unit ? 0 : NO_DEVICE;
    data[1] = r->is_unit && r->disk->is_removable ? REMOVABLE : 0;
    data[2] = VERSION_SPC4;
    data[3] = RESPONSE_FORMAT;
    data[4] = 36 - 5;
    data[7] = COMMAND_QUEUING;
    memcpy(data + 8, VENDOR PRODUCT REVISION, 28);
    return 36;
}

/* The same for the same serial number: FNV-1a. */
static uint64_t naa_of(const char *serial)
{
    uint64_t hash = 0xcbf29ce484222325ull;

    for (const char *c = serial; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3ull;
    return NAA_LOCAL | hash >> 4;
}

/* Two designators: vendor and serial number, and a number made of that. */
static size_t put_identification(const struct scsi_disk *disk, uint8_t *data)
{
    size_t serial = strlen(disk->serial);
    uint8_t *naa = data + 4 + 8 + serial;

    data[0] = 0x02; /* ASCII */
    data[1] = 0x01; /* of the unit: vendor and more */
    data[3] = (uint8_t)(8 + serial);
    memcpy(data + 4, VENDOR, 8);
    memcpy(data + 12, disk->serial, serial);
    naa[0] = 0x01; /* binary */
    naa[1] = 0x03; /* of the unit: NAA */
    naa[3] = 8;
    put_be64(naa + 4, naa_of(disk->serial));
    return 4 + 8 + serial + 12;
}

static size_t put_limits(const struct scsi_disk *disk, uint8_t *data)
{
    data[0] = 1; /* WRITE SAME of no sectors is not done */
    put_be16(data + 2, PREFERRED);
    if (block_can_discard(disk->drive)) {
        put_be32(data + 16, MAX_UNMAP);
        put_be32(data + 20, MAX_RANGES);
        put_be32(data + 24, PREFERRED);
    }
    put_be64(data + 32, MAX_UNMAP); /* of WRITE SAME */
    return 60;
}

/* A page's contents; 0: there is none such. */
static size_t put_page(const struct scsi_disk *disk, uint8_t page, uint8_t *data)
{
    static const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};

    switch (page) {
    case 0x00:
        memcpy(data, pages, sizeof(pages));
        return sizeof(pages);
    case 0x80:
        memcpy(data, disk->serial, strlen(disk->serial));
        return strlen(disk->serial);
    case 0x83:
        return put_identification(disk, data);
    case 0xb0:
        return put_limits(disk, data);
    case 0xb1:
        put_be16(data, NOT_ROTATING);
        return 60;
    case 0xb2:
        data[1] = block_can_discard(disk->drive) ? UNMAPS : 0;
        data[2] = block_can_discard(disk->drive) ? THIN : 0;
        return 4;
    default:
        return 0;
    }
}

void scsi_inquiry(struct scsi_request *r)
{
    uint8_t data[96] = {0};
    uint8_t page = r->cdb[2];
    size_t size;

    if (!(r->cdb[1] & EVPD)) {
        if (page) {
            scsi_end(r, SCSI_INVALID_FIELD);
            return;
        }
        size = put_standard(r, data);
    } else {
        size = r->is_unit ? put_page(r->disk, page, data + 4) : 0;
        if (!size) {
            scsi_end(r, SCSI_INVALID_FIELD);
            return;
        }
        data[1] = page;
        put_be16(data + 2, (uint16_t)size);
        size += 4;
    }
    scsi_reply(r, data, size, get_be16(r->cdb + 3));
}

/* There is unit 0. */
void scsi_report_luns(struct scsi_request *r)
{
    uint8_t data[16] = {0};
    uint8_t which = r->cdb[2];
    uint32_t allocation = get_be32(r->cdb + 6);
    bool listed = which != WELL_KNOWN_LUNS;

    if (which > 2 || allocation < 16) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    put_be32(data, listed ? 8 : 0);
    scsi_reply(r, data, listed ? 16 : 8, allocation);
}
