/*
 * transfer.c - how the data of ATA commands moves
 *
 * Theory of operation. A command either ends at once, waits for the disk (BSY), or has data to
 * move. Data is the medium's or the drive's own (identification, logs), and moves in one of two
 * ways. By a scatter list the controller names guest memory, and the disk's request goes straight
 * into or out of it. Through the data register the guest moves DRQ blocks of the buffer, which is
 * filled from the disk, or written to it, whenever it was moved as a whole. Queued commands always
 * have lists, and up to 32 of them are under way.
 *
 * While the machine is paused nothing is under way at the disk: what remains is a phase, the task
 * file, the transfer and the buffer, which are all state. What failed in a way that pauses the
 * machine goes back to where its request was made: a command of a list to the list, or, where the
 * controller can begin it anew, to the controller.
 *
 * Threads: machine lock held. Guest memory: only what request.list names.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/pieces.h"
#include "devices/ata/ata.h"

#define TRIM_ENTRY_BYTES 8u
#define LBA_MASK_48      0xffffffffffffull

static const struct ata_host_ops *host_of(const struct ata_drive *d)
{
    return d->bus->ops;
}

static void set_status(struct ata_drive *d, uint8_t bits)
{
    d->tf.status = ATA_DRDY | ATA_DSC | bits;
}

/* ---- the end of a command ---- */

/* Nobody is told: the guest has taken all that it asked for. */
static void end_quietly(struct ata_drive *d, uint8_t error)
{
    d->phase = ATA_PHASE_NONE;
    d->tf.error = error;
    set_status(d, error ? ATA_ERR : 0);
}

void ata_end(struct ata_drive *d, uint8_t error)
{
    end_quietly(d, error);
    host_of(d)->interrupt(d);
}

/* ---- requests to the disk ---- */

static void submit(struct ata_request *r, enum block_op op, uint64_t offset, uint64_t size_bytes,
                   void (*done)(struct block_request *, int))
{
    r->block.op = op;
    r->block.offset = offset;
    r->block.size_bytes = size_bytes;
    r->block.done = done;
    block_submit(r->drive->drive, &r->block);
}

static struct ata_request *request_of(struct block_request *block)
{
    return container_of(block, struct ata_request, block);
}

/* The disk works for the one command that is not queued. */
static void submit_busy(struct ata_drive *d, enum block_op op, uint64_t offset, uint64_t size_bytes,
                        void (*done)(struct block_request *, int))
{
    d->phase = ATA_PHASE_NONE;
    set_status(d, ATA_BSY);
    submit(&d->request, op, offset, size_bytes, done);
}

static void use_buffer(struct ata_drive *d, size_t size_bytes)
{
    d->request.piece = (struct io_piece){d->buffer, size_bytes};
    d->request.block.pieces = &d->request.piece;
    d->request.block.piece_count = 1;
}

static void use_list(struct ata_request *r)
{
    r->block.pieces = r->list.pieces;
    r->block.piece_count = r->list.count;
}

static void media_failed(struct ata_drive *d)
{
    if (d->is_cd)
        atapi_failed(d);
    else
        ata_end(d, d->transfer.is_out ? ATA_ABRT : ATA_UNC);
}

static void flushed(struct block_request *block, int status)
{
    ata_end(request_of(block)->drive, status ? ATA_ABRT : 0);
}

void ata_flush(struct ata_drive *d)
{
    if (block_is_read_only(d->drive))
        ata_end(d, 0);
    else
        submit_busy(d, BLOCK_FLUSH, 0, 0, flushed);
}

/* All was moved. */
static void media_moved(struct ata_drive *d)
{
    if (d->transfer.flush)
        ata_flush(d);
    else if (d->is_cd)
        atapi_end(d);
    else
        ata_end(d, 0);
}

/* ---- TRIM ---- */

/* Does the guest name only sectors that there are? */
static bool can_trim(const struct ata_drive *d)
{
    for (uint32_t at = 0; at < d->transfer.filled; at += TRIM_ENTRY_BYTES) {
        uint64_t entry = get_le64(d->buffer + at);

        if (!range_fits(entry & LBA_MASK_48, entry >> 48, d->sectors))
            return false;
    }
    return true;
}

static void trimmed(struct block_request *block, int status);

/* Ranges one after the other; those without sectors are padding. */
static void trim_next(struct ata_drive *d)
{
    while (d->trim_position < d->transfer.filled) {
        uint64_t entry = get_le64(d->buffer + d->trim_position);

        d->trim_position += TRIM_ENTRY_BYTES;
        if (entry >> 48) {
            submit_busy(d, BLOCK_DISCARD, (entry & LBA_MASK_48) * BLOCK_SECTOR_BYTES,
                        (entry >> 48) * BLOCK_SECTOR_BYTES, trimmed);
            return;
        }
    }
    ata_end(d, 0);
}

static void trimmed(struct block_request *block, int status)
{
    struct ata_drive *d = request_of(block)->drive;

    if (status)
        ata_end(d, ATA_ABRT);
    else
        trim_next(d);
}

/* The buffer is full of what the guest had to say, which only DATA SET MANAGEMENT does. */
static void take_buffer(struct ata_drive *d)
{
    d->trim_position = 0;
    if (can_trim(d))
        trim_next(d);
    else
        ata_end(d, ATA_IDNF);
}

/* ---- data by scatter lists ---- */

uint64_t ata_transfer_bytes(const struct ata_drive *d)
{
    return d->transfer.is_media ? d->transfer.left : d->transfer.filled;
}

static void list_moved(struct block_request *block, int status)
{
    struct ata_request *r = request_of(block);
    struct ata_drive *d = r->drive;

    if (status) {
        media_failed(d);
        return;
    }
    if (!d->transfer.is_out)
        io_pieces_written(r->list.pieces, r->list.count, device_memory(&d->dev), block->size_bytes);
    r->moved_bytes = block->size_bytes;
    d->transfer.left -= block->size_bytes;
    media_moved(d);
}

static void move_media(struct ata_drive *d)
{
    struct ata_transfer *t = &d->transfer;
    uint64_t size = d->request.list.size_bytes < t->left ? d->request.list.size_bytes : t->left;

    size -= size % BLOCK_SECTOR_BYTES;
    dma_list_cut(&d->request.list, size);
    use_list(&d->request);
    submit_busy(d, t->is_out ? BLOCK_WRITE : BLOCK_READ, t->offset, size, list_moved);
}

static void move_buffer(struct ata_drive *d)
{
    struct ata_transfer *t = &d->transfer;
    struct dma_list *list = &d->request.list;
    size_t size = t->is_out ? pieces_read(list->pieces, list->count, 0, d->buffer, t->filled)
                            : pieces_write(list->pieces, list->count, 0, d->buffer, t->filled);

    d->request.moved_bytes = size;
    if (!t->is_out) {
        io_pieces_written(list->pieces, list->count, device_memory(&d->dev), size);
        media_moved(d);
    } else if (size < t->filled) {
        ata_end(d, ATA_ABRT);
    } else {
        take_buffer(d);
    }
}

void ata_move(struct ata_drive *d)
{
    d->phase = ATA_PHASE_NONE;
    if (d->transfer.is_media)
        move_media(d);
    else
        move_buffer(d);
}

/* ---- data through the data register ---- */

/* A DRQ block of the buffer can be moved. */
static void offer_block(struct ata_drive *d, enum ata_phase phase)
{
    struct ata_transfer *t = &d->transfer;
    uint32_t left = t->filled - t->position;

    t->block_end = t->position + (t->block_bytes < left ? t->block_bytes : left);
    d->phase = phase;
    set_status(d, ATA_DRQ);
    if (d->is_cd)
        atapi_offer(d, t->block_end - t->position);
}

static void pio_in_next(struct ata_drive *d);

static void buffer_read(struct block_request *block, int status)
{
    struct ata_drive *d = request_of(block)->drive;
    struct ata_transfer *t = &d->transfer;

    if (status) {
        media_failed(d);
        return;
    }
    t->position = 0;
    t->filled = (uint32_t)block->size_bytes;
    t->offset += block->size_bytes;
    t->left -= block->size_bytes;
    pio_in_next(d);
}

static uint32_t buffer_part(const struct ata_transfer *t)
{
    return t->left < ATA_BUFFER_BYTES ? (uint32_t)t->left : ATA_BUFFER_BYTES;
}

static void pio_in_next(struct ata_drive *d)
{
    struct ata_transfer *t = &d->transfer;

    if (t->position < t->filled) {
        offer_block(d, ATA_PHASE_PIO_IN);
        host_of(d)->interrupt(d);
    } else if (t->left) {
        use_buffer(d, buffer_part(t));
        submit_busy(d, BLOCK_READ, t->offset, buffer_part(t), buffer_read);
    } else if (d->is_cd && d->tf.command == ATA_PACKET) {
        atapi_end(d);
    } else {
        end_quietly(d, 0);
    }
}

/* Room for the next part of what the guest writes. */
static void open_buffer(struct ata_transfer *t)
{
    t->position = 0;
    t->filled = buffer_part(t);
    t->left -= t->filled;
}

static void buffer_written(struct block_request *block, int status)
{
    struct ata_drive *d = request_of(block)->drive;
    struct ata_transfer *t = &d->transfer;

    if (status) {
        media_failed(d);
        return;
    }
    t->offset += block->size_bytes;
    if (!t->left) {
        media_moved(d);
        return;
    }
    open_buffer(t);
    offer_block(d, ATA_PHASE_PIO_OUT);
    host_of(d)->interrupt(d);
}

static void pio_out_next(struct ata_drive *d)
{
    struct ata_transfer *t = &d->transfer;

    if (t->position < t->filled) {
        offer_block(d, ATA_PHASE_PIO_OUT);
        host_of(d)->interrupt(d);
    } else if (t->is_media) {
        use_buffer(d, t->filled);
        submit_busy(d, BLOCK_WRITE, t->offset, t->filled, buffer_written);
    } else {
        take_buffer(d);
    }
}

/* Bytes of a block that one access takes: all of it, but at the block's end. */
static unsigned access_bytes(const struct ata_transfer *t, unsigned size)
{
    return size < t->block_end - t->position ? size : t->block_end - t->position;
}

uint32_t ata_read_data(struct ata_drive *d, unsigned size)
{
    struct ata_transfer *t = &d->transfer;
    uint8_t bytes[4] = {0};

    if (d->phase != ATA_PHASE_PIO_IN)
        return UINT32_MAX;
    size = access_bytes(t, size);
    memcpy(bytes, d->buffer + t->position, size);
    t->position += size;
    if (t->position == t->block_end)
        pio_in_next(d);
    return get_le32(bytes);
}

static void write_packet(struct ata_drive *d, const uint8_t *bytes, unsigned size)
{
    struct ata_transfer *t = &d->transfer;

    memcpy(d->packet + t->position, bytes, size);
    t->position += size;
    if (t->position == t->block_end)
        atapi_execute(d);
}

void ata_write_data(struct ata_drive *d, uint32_t value, unsigned size)
{
    struct ata_transfer *t = &d->transfer;
    uint8_t bytes[4];

    if (d->phase != ATA_PHASE_PIO_OUT && d->phase != ATA_PHASE_PACKET)
        return;
    put_le32(bytes, value);
    size = access_bytes(t, size);
    if (d->phase == ATA_PHASE_PACKET) {
        write_packet(d, bytes, size);
        return;
    }
    memcpy(d->buffer + t->position, bytes, size);
    t->position += size;
    if (t->position == t->block_end)
        pio_out_next(d);
}

/* ---- the beginning of a transfer ---- */

void ata_begin_transfer(struct ata_drive *d)
{
    struct ata_transfer *t = &d->transfer;

    d->request.moved_bytes = 0;
    if (t->is_dma || !host_of(d)->has_data_register) {
        d->phase = ATA_PHASE_LIST;
        set_status(d, ATA_BSY);
        host_of(d)->move(d);
    } else if (!t->is_out) {
        pio_in_next(d);
    } else {
        if (t->is_media)
            open_buffer(t);
        offer_block(d, ATA_PHASE_PIO_OUT); /* the first one without an interrupt */
    }
}

void ata_send_buffer(struct ata_drive *d, size_t size_bytes, uint32_t block_bytes, bool is_dma)
{
    d->transfer = (struct ata_transfer){
        .is_dma = is_dma, .filled = (uint32_t)size_bytes, .block_bytes = block_bytes};
    ata_begin_transfer(d);
}

/* ---- pause ---- */

/* The phase that led to the request of a command that is not queued. */
static enum ata_phase phase_before(const struct ata_drive *d)
{
    void (*done)(struct block_request *, int) = d->request.block.done;

    if (done == buffer_read)
        return ATA_PHASE_FILL;
    if (done == buffer_written)
        return ATA_PHASE_EMPTY;
    return done == flushed ? ATA_PHASE_FLUSH : ATA_PHASE_LIST;
}

void ata_quiesce(struct ata_drive *d)
{
    struct block_request *kept;
    int status;

    block_quiesce(d->drive);
    while ((kept = block_take_kept(d->drive, &status))) {
        if (host_of(d)->postponed)
            host_of(d)->postponed(d, request_of(kept));
        else
            d->phase = (uint8_t)phase_before(d);
    }
}

void ata_resume(struct ata_drive *d)
{
    if (host_of(d)->postponed)
        return;
    switch (d->phase) {
    case ATA_PHASE_LIST:
        host_of(d)->move(d);
        break;
    case ATA_PHASE_FILL:
        pio_in_next(d);
        break;
    case ATA_PHASE_EMPTY:
        pio_out_next(d);
        break;
    case ATA_PHASE_FLUSH:
        ata_flush(d);
        break;
    default:
        break;
    }
}

/* ---- queued commands ---- */

uint8_t ata_queue(struct ata_drive *d, struct ata_request *r, uint64_t *out_bytes)
{
    const struct ata_taskfile *tf = &r->tf;
    uint64_t lba = ata_lba48(tf);
    uint32_t count = tf->features[0] | (uint32_t)tf->features[1] << 8;
    bool is_out = tf->command == ATA_WRITE_FPDMA;

    count = count ? count : ATA_LBA48_COUNT;
    d->standby = false;
    if (d->is_cd || d->queue_failed || !(tf->device & ATA_LBA) ||
        (is_out && block_is_read_only(d->drive)))
        return ATA_ABRT;
    if (!range_fits(lba, count, d->sectors))
        return ATA_IDNF;
    *out_bytes = (uint64_t)count * BLOCK_SECTOR_BYTES;
    r->drive = d;
    r->block.offset = lba * BLOCK_SECTOR_BYTES;
    r->flush = is_out && (tf->device & 0x80 || !d->write_cache); /* FUA */
    return 0;
}

static void queued_done(struct block_request *block, int status)
{
    struct ata_request *r = request_of(block);
    struct ata_drive *d = r->drive;

    if (!status && block->op == BLOCK_READ)
        io_pieces_written(r->list.pieces, r->list.count, device_memory(&d->dev), block->size_bytes);
    if (!status && r->flush) {
        r->flush = false;
        submit(r, BLOCK_FLUSH, 0, 0, queued_done);
        return;
    }
    host_of(d)->queued_ended(d, r, !status ? 0 : block->op == BLOCK_READ ? ATA_UNC : ATA_ABRT);
}

void ata_move_queued(struct ata_drive *d, struct ata_request *r)
{
    (void)d;
    use_list(r);
    submit(r, r->tf.command == ATA_WRITE_FPDMA ? BLOCK_WRITE : BLOCK_READ, r->block.offset,
           r->list.size_bytes, queued_done);
}

/* ACS-2, A.14: the NCQ command error log. */
void ata_queue_failed(struct ata_drive *d, const struct ata_request *r, uint8_t error)
{
    uint8_t *log = d->queue_log;

    memset(log, 0, sizeof(d->queue_log));
    log[0] = r->tf.count[0] >> 3; /* the tag */
    log[2] = ATA_DRDY | ATA_DSC | ATA_ERR;
    log[3] = error;
    memcpy(log + 4, r->tf.lba, 3);
    log[7] = r->tf.device;
    memcpy(log + 8, r->tf.lba + 3, 3);
    log[12] = r->tf.count[0];
    log[13] = r->tf.count[1];
    d->queue_failed = true;
}
