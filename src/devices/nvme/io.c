/*
 * io.c - the NVM command set
 *
 * The specification, chapter 6. A command is a request to the disk; Dataset Management is one for
 * each range, one after the other. Where the guest wants no write cache, or one write not in it
 * (FUA), a flush follows.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "devices/nvme/nvme.h"

enum opcode {
    OP_FLUSH = 0x00,
    OP_WRITE = 0x01,
    OP_READ = 0x02,
    OP_COMPARE = 0x05,
    OP_WRITE_ZEROES = 0x08,
    OP_DATASET = 0x09,
};

#define FLAGS_FUSED        0x03u
#define FLAGS_SGL          0xc0u
#define FORCE_UNIT_ACCESS  0x40000000u /* dword 12 */
#define DATASET_DEALLOCATE 0x4u        /* dword 11 */
#define RANGE_BYTES        16u

static uint64_t sectors_of(const struct nvme *s)
{
    return block_size_bytes(s->drive) / BLOCK_SECTOR_BYTES;
}

/* ---- ends of requests ---- */

static uint16_t status_of_error(struct nvme *s, enum block_op op, int error)
{
    if (error == -ENOSPC)
        return NVME_CAPACITY_EXCEEDED;
    if (error == -ENOMEM)
        return NVME_INTERNAL_ERROR;
    if (error == -ECANCELED)
        return NVME_ABORTED_WITH_QUEUE;
    s->counters.media_errors++;
    return op == BLOCK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
}

static void submit_range(struct nvme_request *r);

static uint16_t finish_transfer(struct nvme_request *r)
{
    struct nvme *s = r->s;

    switch (r->command.opcode) {
    case OP_READ:
        s->counters.reads++;
        s->counters.read_sectors += r->block.size_bytes / BLOCK_SECTOR_BYTES;
        nvme_mark_written(r);
        return NVME_OK;
    case OP_WRITE:
        s->counters.writes++;
        s->counters.written_sectors += r->block.size_bytes / BLOCK_SECTOR_BYTES;
        return NVME_OK;
    case OP_COMPARE:
        s->counters.reads++;
        return nvme_equals_guest(r, r->buffer) ? NVME_OK : NVME_COMPARE_FAILURE;
    default:
        return NVME_OK;
    }
}

static void request_done(struct block_request *block, int error)
{
    struct nvme_request *r = container_of(block, struct nvme_request, block);
    uint16_t status = NVME_OK;

    if (error)
        status = status_of_error(r->s, block->op, error);
    else if (r->range < r->range_count) {
        submit_range(r);
        return;
    } else if (block->op != BLOCK_FLUSH) {
        status = finish_transfer(r);
    }
    if (!status && r->flush_after) {
        r->flush_after = false;
        block->op = BLOCK_FLUSH;
        block_submit(r->s->drive, block);
        return;
    }
    nvme_complete(r, status);
}

/* ---- requests ---- */

static void submit(struct nvme_request *r, enum block_op op, uint64_t lba, uint64_t count)
{
    r->block.op = op;
    r->block.offset = lba * BLOCK_SECTOR_BYTES;
    r->block.size_bytes = count * BLOCK_SECTOR_BYTES;
    r->block.done = request_done;
    block_submit(r->s->drive, &r->block);
}

static uint16_t flush(struct nvme_request *r)
{
    r->block.piece_count = 0;
    submit(r, BLOCK_FLUSH, 0, 0);
    return NVME_STARTED;
}

/* The range of Read, Write, Compare and Write Zeroes. */
static uint16_t take_range(const struct nvme_request *r, uint64_t *out_lba, uint64_t *out_count)
{
    uint64_t lba = r->command.dword[10] | (uint64_t)r->command.dword[11] << 32;
    uint64_t count = (r->command.dword[12] & 0xffff) + 1u;

    if (!range_fits(lba, count, sectors_of(r->s)))
        return NVME_LBA_RANGE;
    *out_lba = lba;
    *out_count = count;
    return NVME_OK;
}

/* Is it on the disk when it ends? */
static bool is_durable(const struct nvme_request *r)
{
    return r->command.dword[12] & FORCE_UNIT_ACCESS ||
           (r->command.opcode != OP_READ && !r->s->features.write_cache);
}

static uint16_t transfer(struct nvme_request *r, enum block_op op)
{
    uint64_t lba, count;
    uint16_t status = take_range(r, &lba, &count);

    if (!status)
        status = nvme_map_data(r, count * BLOCK_SECTOR_BYTES);
    if (status)
        return status;
    r->flush_after = is_durable(r);
    r->block.pieces = r->pieces;
    r->block.piece_count = r->piece_count;
    submit(r, op, lba, count);
    return NVME_STARTED;
}

static uint16_t read_sectors(struct nvme_request *r)
{
    return transfer(r, BLOCK_READ);
}

static uint16_t write_sectors(struct nvme_request *r)
{
    return transfer(r, BLOCK_WRITE);
}

/* What is on the disk is read beside what the guest has. */
static uint16_t compare(struct nvme_request *r)
{
    uint64_t lba, count;
    uint16_t status = take_range(r, &lba, &count);

    if (!status)
        status = nvme_map_data(r, count * BLOCK_SECTOR_BYTES);
    if (status)
        return status;
    r->buffer = malloc(count * BLOCK_SECTOR_BYTES);
    if (!r->buffer)
        return NVME_INTERNAL_ERROR;
    r->whole = (struct io_piece){r->buffer, count * BLOCK_SECTOR_BYTES};
    r->block.pieces = &r->whole;
    r->block.piece_count = 1;
    submit(r, BLOCK_READ, lba, count);
    return NVME_STARTED;
}

static uint16_t write_zeroes(struct nvme_request *r)
{
    uint64_t lba, count;
    uint16_t status = take_range(r, &lba, &count);

    if (status)
        return status;
    r->flush_after = is_durable(r);
    r->block.piece_count = 0;
    submit(r, BLOCK_ZERO, lba, count);
    return NVME_STARTED;
}

static void submit_range(struct nvme_request *r)
{
    const uint8_t *range = r->buffer + RANGE_BYTES * r->range++;

    submit(r, BLOCK_DISCARD, get_le64(range + 8), get_le32(range + 4));
}

/* Advice beside Deallocate is accepted and not followed. */
static uint16_t manage_dataset(struct nvme_request *r)
{
    unsigned count = (r->command.dword[10] & 0xff) + 1;
    uint16_t status = nvme_map_data(r, count * RANGE_BYTES);

    if (status)
        return status;
    r->buffer = malloc(count * RANGE_BYTES);
    if (!r->buffer)
        return NVME_INTERNAL_ERROR;
    nvme_copy_from_guest(r, r->buffer, count * RANGE_BYTES);
    for (unsigned n = 0; n < count; n++)
        if (!range_fits(get_le64(r->buffer + RANGE_BYTES * n + 8),
                        get_le32(r->buffer + RANGE_BYTES * n + 4), sectors_of(r->s)))
            return NVME_LBA_RANGE;
    if (!(r->command.dword[11] & DATASET_DEALLOCATE))
        return NVME_OK;
    r->flush_after = is_durable(r);
    r->block.piece_count = 0;
    r->range = 0;
    r->range_count = count;
    submit_range(r);
    return NVME_STARTED;
}

static const struct {
    uint8_t opcode;
    bool writes;
    uint16_t (*execute)(struct nvme_request *r);
} commands[] = {
    {OP_FLUSH, false, flush},
    {OP_WRITE, true, write_sectors},
    {OP_READ, false, read_sectors},
    {OP_COMPARE, false, compare},
    {OP_WRITE_ZEROES, true, write_zeroes},
    {OP_DATASET, true, manage_dataset},
};

struct nvme_request *nvme_request_of(struct block_request *block)
{
    return block->done == request_done ? container_of(block, struct nvme_request, block) : NULL;
}

/* The flush of a shutdown is nobody's. */
static bool is_of_queue(const void *sq, const struct block_request *block)
{
    const struct nvme_request *r = nvme_request_of((struct block_request *)(uintptr_t)block);

    return r && r->sq == *(const unsigned *)sq;
}

void nvme_drain_queue(struct nvme *s, unsigned sq)
{
    block_drain_owner(s->drive, is_of_queue, &sq);
}

uint16_t nvme_execute_io(struct nvme_request *r)
{
    const struct nvme_command *c = &r->command;

    r->range = r->range_count = 0;
    for (unsigned n = 0; n < sizeof(commands) / sizeof(commands[0]); n++) {
        if (commands[n].opcode != c->opcode)
            continue;
        if (c->flags & FLAGS_FUSED || (c->flags & FLAGS_SGL) == FLAGS_SGL)
            return NVME_INVALID_FIELD;
        if (c->nsid != 1 && !(c->opcode == OP_FLUSH && c->nsid == NVME_ALL_NAMESPACES))
            return NVME_INVALID_NAMESPACE;
        if (commands[n].writes && block_is_read_only(r->s->drive))
            return NVME_WRITE_PROTECTED;
        return commands[n].execute(r);
    }
    return NVME_INVALID_OPCODE;
}
