/*
 * disk.c - the commands of a SCSI disk
 *
 * SPC-4 and SBC-3. Sectors of 512 bytes without protection information. A table says which commands
 * there are; what is not there, persistent reservations among it, ends as an invalid operation
 * code. Commands that become several requests to the image (UNMAP, WRITE SAME) make one after the
 * other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/scsi/internal.h"

#define FUA               0x08u /* byte 1 */
#define PROTECT           0xe0u /* RDPROTECT, WRPROTECT, VRPROTECT */
#define BYTE_CHECK        0x06u
#define UNMAP_BIT         0x08u
#define ANCHOR            0x10u
#define NO_DATA_OUT       0x01u /* WRITE SAME(16) */
#define SENSE_DESCRIPTORS 0x01u
#define POWER_CONDITION   0xf0u
#define START_EJECT       0x02u
#define START             0x01u
#define READ_CAPACITY_16  0x10u
#define PHYSICAL_EXPONENT 3u /* pages of the host's cache */
#define UNMAP_ENABLED     0x80u
#define RANGE_BYTES       16u
#define MAX_RANGES        256u
#define MAX_SAME_SECTORS  (1u << 22)
#define SAME_SECTORS      128u /* written at once */
#define MAX_COMPARE       (1u << 20)

/* ---- ends of requests ---- */

static void put_sense(uint8_t sense[SCSI_SENSE_BYTES], uint32_t code)
{
    memset(sense, 0, SCSI_SENSE_BYTES);
    sense[0] = 0x70; /* of this command, fixed format */
    sense[2] = (uint8_t)(code >> 16);
    sense[7] = SCSI_SENSE_BYTES - 8;
    sense[12] = (uint8_t)(code >> 8);
    sense[13] = (uint8_t)code;
}

void scsi_end(struct scsi_request *r, uint32_t sense)
{
    free(r->buffer);
    r->buffer = NULL;
    r->status = sense ? SCSI_CHECK_CONDITION : SCSI_GOOD;
    if (sense) {
        put_sense(r->sense, sense);
        r->transferred_bytes = 0;
    }
    r->done(r);
}

/* There is not enough memory. False: the request has ended. */
static bool has_memory(struct scsi_request *r, bool from_unit, uint64_t size_bytes)
{
    if (!size_bytes || (r->from_unit == from_unit && r->size_bytes >= size_bytes))
        return true;
    r->overrun = true;
    scsi_end(r, SCSI_NO_SENSE);
    return false;
}

static void copy(struct scsi_request *r, uint8_t *data, size_t size_bytes, bool to_guest)
{
    for (unsigned n = 0; n < r->piece_count && size_bytes; n++) {
        size_t part = r->pieces[n].size_bytes < size_bytes ? r->pieces[n].size_bytes : size_bytes;

        if (to_guest)
            ram_copy(r->pieces[n].data, data, part);
        else
            ram_copy(data, r->pieces[n].data, part);
        data += part;
        size_bytes -= part;
    }
}

void scsi_reply(struct scsi_request *r, const void *data, size_t size_bytes,
                uint64_t allocation_bytes)
{
    if (size_bytes > allocation_bytes)
        size_bytes = (size_t)allocation_bytes;
    if (!has_memory(r, true, size_bytes))
        return;
    copy(r, (uint8_t *)data, size_bytes, true);
    r->transferred_bytes = size_bytes;
    scsi_end(r, SCSI_NO_SENSE);
}

bool scsi_take(struct scsi_request *r, void *out, size_t size_bytes)
{
    if (!has_memory(r, false, size_bytes))
        return false;
    copy(r, out, size_bytes, false);
    r->transferred_bytes = size_bytes;
    return true;
}

static uint32_t sense_of_error(enum block_op op, int error)
{
    if (error == -ENOSPC)
        return SCSI_SPACE_FAILED;
    if (error == -ENOMEM)
        return SCSI_INTERNAL_FAILURE;
    return op == BLOCK_READ ? SCSI_READ_ERROR : SCSI_WRITE_ERROR;
}

static bool equals_guest(const struct scsi_request *r)
{
    const uint8_t *data = r->buffer;

    for (unsigned n = 0; n < r->piece_count; n++) {
        if (!ram_equals(r->pieces[n].data, data, r->pieces[n].size_bytes))
            return false;
        data += r->pieces[n].size_bytes;
    }
    return true;
}

static void submit_range(struct scsi_request *r);
static void submit_same(struct scsi_request *r);

static void request_done(struct block_request *block, int error)
{
    struct scsi_request *r = container_of(block, struct scsi_request, block);

    if (error) {
        r->canceled = error == -ECANCELED;
        scsi_end(r, sense_of_error(block->op, error));
    } else if (r->range < r->range_count)
        submit_range(r);
    else if (r->left)
        submit_same(r);
    else if (r->flush_after) {
        r->flush_after = false;
        block->op = BLOCK_FLUSH;
        block_submit(r->disk->drive, block);
    } else {
        scsi_end(r, r->is_compare && !equals_guest(r) ? SCSI_MISCOMPARE : SCSI_NO_SENSE);
    }
}

static void submit(struct scsi_request *r, enum block_op op, uint64_t lba, uint64_t count)
{
    r->block.op = op;
    r->block.offset = lba * BLOCK_SECTOR_BYTES;
    r->block.size_bytes = count * BLOCK_SECTOR_BYTES;
    r->block.done = request_done;
    block_submit(r->disk->drive, &r->block);
}

/* ---- ranges of sectors ---- */

static uint64_t sectors_of(const struct scsi_disk *disk)
{
    return block_size_bytes(disk->drive) / BLOCK_SECTOR_BYTES;
}

/* Where they are in a command depends on its length, which its first three bits say. */
static void take_range(const struct scsi_request *r, uint64_t *out_lba, uint64_t *out_count)
{
    const uint8_t *cdb = r->cdb;

    switch (cdb[0] >> 5) {
    case 0:
        *out_lba = get_be32(cdb) & 0x1fffff;
        *out_count = cdb[4] ? cdb[4] : 256;
        break;
    case 4:
        *out_lba = get_be64(cdb + 2);
        *out_count = get_be32(cdb + 10);
        break;
    case 5:
        *out_lba = get_be32(cdb + 2);
        *out_count = get_be32(cdb + 6);
        break;
    default:
        *out_lba = get_be32(cdb + 2);
        *out_count = get_be16(cdb + 7);
    }
}

/* False: the request has ended. */
static bool check_range(struct scsi_request *r, uint64_t *out_lba, uint64_t *out_count)
{
    take_range(r, out_lba, out_count);
    if (range_fits(*out_lba, *out_count, sectors_of(r->disk)))
        return true;
    scsi_end(r, SCSI_LBA_RANGE);
    return false;
}

static bool is_short(const struct scsi_request *r) /* 6 bytes: without flags */
{
    return r->cdb[0] < 0x20;
}

/* The guest's memory may be more than what is transferred. */
static void use_pieces(struct scsi_request *r, uint64_t size_bytes)
{
    unsigned n = 0;

    for (; n < r->piece_count && size_bytes; n++) {
        if (r->pieces[n].size_bytes > size_bytes)
            r->pieces[n].size_bytes = (size_t)size_bytes;
        size_bytes -= r->pieces[n].size_bytes;
    }
    r->piece_count = n;
    r->block.pieces = r->pieces;
    r->block.piece_count = n;
}

static void transfer(struct scsi_request *r, bool is_read)
{
    uint64_t lba, count;

    if (!is_short(r) && r->cdb[1] & PROTECT) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (!check_range(r, &lba, &count) || !has_memory(r, is_read, count * BLOCK_SECTOR_BYTES))
        return;
    use_pieces(r, count * BLOCK_SECTOR_BYTES);
    r->transferred_bytes = count * BLOCK_SECTOR_BYTES;
    r->flush_after = (!is_short(r) && r->cdb[1] & FUA) || (!is_read && !r->disk->write_cache);
    submit(r, is_read ? BLOCK_READ : BLOCK_WRITE, lba, count);
}

static void read_sectors(struct scsi_request *r)
{
    transfer(r, true);
}

static void write_sectors(struct scsi_request *r)
{
    transfer(r, false);
}

/* With BYTCHK what is on the disk is compared with what the guest has. */
static void verify(struct scsi_request *r)
{
    uint64_t lba, count, size;

    if (r->cdb[1] & PROTECT || (r->cdb[1] & BYTE_CHECK) > 2) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (!check_range(r, &lba, &count))
        return;
    size = count * BLOCK_SECTOR_BYTES;
    if (!(r->cdb[1] & BYTE_CHECK) || !count) {
        scsi_end(r, SCSI_NO_SENSE);
        return;
    }
    if (size > MAX_COMPARE) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (!has_memory(r, false, size))
        return;
    r->buffer = malloc(size);
    if (!r->buffer) {
        scsi_end(r, SCSI_INTERNAL_FAILURE);
        return;
    }
    use_pieces(r, size);
    r->transferred_bytes = size;
    r->is_compare = true;
    r->whole = (struct io_piece){r->buffer, size};
    r->block.pieces = &r->whole;
    r->block.piece_count = 1;
    submit(r, BLOCK_READ, lba, count);
}

static void synchronize_cache(struct scsi_request *r)
{
    uint64_t lba, count;

    if (check_range(r, &lba, &count))
        submit(r, BLOCK_FLUSH, 0, 0);
}

/* ---- WRITE SAME, UNMAP ---- */

static void submit_same(struct scsi_request *r)
{
    uint64_t count = r->left < SAME_SECTORS ? r->left : SAME_SECTORS, lba = r->lba;

    r->lba += count;
    r->left -= count;
    r->whole = (struct io_piece){r->buffer, count * BLOCK_SECTOR_BYTES};
    r->block.pieces = &r->whole;
    r->block.piece_count = 1;
    submit(r, BLOCK_WRITE, lba, count);
}

static bool is_zero(const uint8_t *sector)
{
    return !sector[0] && !memcmp(sector, sector + 1, BLOCK_SECTOR_BYTES - 1);
}

/* Sectors of zeros become holes where the image has them, asked for (UNMAP) or not. */
static void write_same(struct scsi_request *r)
{
    bool no_data = r->cdb[0] == 0x93 && r->cdb[1] & NO_DATA_OUT;
    uint64_t lba, count;

    if (r->cdb[1] & (PROTECT | ANCHOR)) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (!check_range(r, &lba, &count))
        return;
    if (!count || count > MAX_SAME_SECTORS) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    r->buffer = calloc(SAME_SECTORS, BLOCK_SECTOR_BYTES);
    if (!r->buffer) {
        scsi_end(r, SCSI_INTERNAL_FAILURE);
        return;
    }
    if (!no_data && !scsi_take(r, r->buffer, BLOCK_SECTOR_BYTES))
        return;
    r->flush_after = !r->disk->write_cache;
    if (is_zero(r->buffer)) {
        submit(r, BLOCK_ZERO, lba, count);
        return;
    }
    for (unsigned n = 1; n < SAME_SECTORS; n++)
        memcpy(r->buffer + n * BLOCK_SECTOR_BYTES, r->buffer, BLOCK_SECTOR_BYTES);
    r->lba = lba;
    r->left = count;
    submit_same(r);
}

static void submit_range(struct scsi_request *r)
{
    const uint8_t *range = r->buffer + 8 + RANGE_BYTES * r->range++;

    submit(r, BLOCK_DISCARD, get_be64(range), get_be32(range + 8));
}

static void unmap(struct scsi_request *r)
{
    size_t size = get_be16(r->cdb + 7), ranges;

    if (r->cdb[1] & 1 || !block_can_discard(r->disk->drive)) { /* ANCHOR */
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    if (!size) {
        scsi_end(r, SCSI_NO_SENSE);
        return;
    }
    if (size < 8) {
        scsi_end(r, SCSI_LIST_LENGTH);
        return;
    }
    r->buffer = malloc(size);
    if (!r->buffer) {
        scsi_end(r, SCSI_INTERNAL_FAILURE);
        return;
    }
    if (!scsi_take(r, r->buffer, size))
        return;
    ranges = get_be16(r->buffer + 2);
    ranges = (ranges < size - 8 ? ranges : size - 8) / RANGE_BYTES;
    if (ranges > MAX_RANGES) {
        scsi_end(r, SCSI_INVALID_PARAMETER);
        return;
    }
    for (size_t n = 0; n < ranges; n++)
        if (!range_fits(get_be64(r->buffer + 8 + RANGE_BYTES * n),
                        get_be32(r->buffer + 16 + RANGE_BYTES * n), sectors_of(r->disk))) {
            scsi_end(r, SCSI_LBA_RANGE);
            return;
        }
    r->range_count = (unsigned)ranges;
    r->flush_after = ranges && !r->disk->write_cache;
    if (ranges)
        submit_range(r);
    else
        scsi_end(r, SCSI_NO_SENSE);
}

/* ---- the unit ---- */

static void test_unit_ready(struct scsi_request *r)
{
    scsi_end(r, SCSI_NO_SENSE);
}

/* Sense data goes with the status of its command; what is left is a unit attention. */
static void request_sense(struct scsi_request *r)
{
    uint8_t sense[SCSI_SENSE_BYTES];

    if (r->cdb[1] & SENSE_DESCRIPTORS) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    put_sense(sense, !r->is_unit ? SCSI_NO_UNIT : r->disk->attention);
    if (r->is_unit)
        r->disk->attention = 0;
    scsi_reply(r, sense, sizeof(sense), r->cdb[4]);
}

static void start_stop(struct scsi_request *r)
{
    if (r->cdb[4] & (POWER_CONDITION | START_EJECT)) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    r->disk->stopped = !(r->cdb[4] & START);
    submit(r, BLOCK_FLUSH, 0, 0);
}

static void prevent_removal(struct scsi_request *r)
{
    scsi_end(r, r->cdb[4] & 3 ? SCSI_INVALID_FIELD : SCSI_NO_SENSE); /* nobody can */
}

static void read_capacity(struct scsi_request *r)
{
    uint64_t last = sectors_of(r->disk) - 1;
    uint8_t data[8];

    put_be32(data, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
    put_be32(data + 4, BLOCK_SECTOR_BYTES);
    scsi_reply(r, data, sizeof(data), sizeof(data));
}

static void service_action_in(struct scsi_request *r)
{
    uint8_t data[32] = {0};

    if ((r->cdb[1] & 0x1f) != READ_CAPACITY_16) {
        scsi_end(r, SCSI_INVALID_FIELD);
        return;
    }
    put_be64(data, sectors_of(r->disk) - 1);
    put_be32(data + 8, BLOCK_SECTOR_BYTES);
    data[13] = PHYSICAL_EXPONENT;
    data[14] = block_can_discard(r->disk->drive) ? UNMAP_ENABLED : 0;
    scsi_reply(r, data, sizeof(data), get_be32(r->cdb + 10));
}

/* ---- all commands ---- */

enum {
    ANYWHERE = 0x1, /* also of a unit that is not there; reports no unit attention */
    WRITES = 0x2,
    STOPPED = 0x4, /* also while the unit is stopped */
};

static const struct {
    uint8_t opcode, flags;
    void (*execute)(struct scsi_request *r);
} commands[] = {
    {0x00, 0, test_unit_ready},
    {0x03, ANYWHERE | STOPPED, request_sense},
    {0x08, 0, read_sectors},
    {0x0a, WRITES, write_sectors},
    {0x12, ANYWHERE | STOPPED, scsi_inquiry},
    {0x15, STOPPED, scsi_mode_select},
    {0x1a, STOPPED, scsi_mode_sense},
    {0x1b, STOPPED, start_stop},
    {0x1e, STOPPED, prevent_removal},
    {0x25, 0, read_capacity},
    {0x28, 0, read_sectors},
    {0x2a, WRITES, write_sectors},
    {0x2f, 0, verify},
    {0x35, 0, synchronize_cache},
    {0x41, WRITES, write_same},
    {0x42, WRITES, unmap},
    {0x55, STOPPED, scsi_mode_select},
    {0x5a, STOPPED, scsi_mode_sense},
    {0x88, 0, read_sectors},
    {0x8a, WRITES, write_sectors},
    {0x8f, 0, verify},
    {0x91, 0, synchronize_cache},
    {0x93, WRITES, write_same},
    {0x9e, 0, service_action_in},
    {0xa0, ANYWHERE | STOPPED, scsi_report_luns},
    {0xa8, 0, read_sectors},
    {0xaa, WRITES, write_sectors},
    {0xaf, 0, verify},
};

/* What stands against the command before it is looked at. */
static uint32_t obstacle(struct scsi_disk *disk, const struct scsi_request *r, uint8_t flags)
{
    uint32_t attention = disk->attention;

    if (flags & ANYWHERE)
        return SCSI_NO_SENSE;
    if (!r->is_unit)
        return SCSI_NO_UNIT;
    if (attention) {
        disk->attention = 0;
        return attention;
    }
    if (disk->stopped && !(flags & STOPPED))
        return SCSI_NOT_READY;
    return flags & WRITES && block_is_read_only(disk->drive) ? SCSI_WRITE_PROTECTED : SCSI_NO_SENSE;
}

void scsi_disk_execute(struct scsi_disk *disk, struct scsi_request *r)
{
    uint32_t sense;

    r->disk = disk;
    r->block.piece_count = 0;
    r->overrun = r->canceled = r->flush_after = r->is_compare = false;
    r->transferred_bytes = r->left = 0;
    r->range = r->range_count = 0;
    r->buffer = NULL;
    for (unsigned n = 0; n < sizeof(commands) / sizeof(commands[0]); n++) {
        if (commands[n].opcode != r->cdb[0])
            continue;
        sense = obstacle(disk, r, commands[n].flags);
        if (sense)
            scsi_end(r, sense);
        else
            commands[n].execute(r);
        return;
    }
    sense = obstacle(disk, r, 0);
    scsi_end(r, sense && sense != SCSI_NOT_READY ? sense : SCSI_INVALID_OPCODE);
}

void scsi_forget(struct scsi_request *r)
{
    free(r->buffer);
    r->buffer = NULL;
}

bool scsi_has_write_cache(const struct scsi_disk *disk)
{
    return disk->drive && !block_is_write_through(disk->drive);
}

void scsi_disk_reset(struct scsi_disk *disk, uint32_t attention)
{
    disk->attention = attention;
    disk->write_cache = scsi_has_write_cache(disk);
    disk->stopped = false;
}

const struct state_field scsi_disk_state[] = {
    STATE_U32_MAX(struct scsi_disk, attention, 0xfffff),
    STATE_BOOL(struct scsi_disk, write_cache),
    STATE_BOOL(struct scsi_disk, stopped),
    STATE_END,
};
