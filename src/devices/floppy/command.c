/*
 * command.c - commands of the floppy controller
 *
 * After the 82077AA data sheet, chapters 5 and 6. Data moves a side of a track at a time: the
 * buffer is filled by the disk and taken by the guest, or the other way round. The disk's requests
 * are asynchronous; what the guest moves goes through the DMA channel, or byte by byte.
 *
 * Formatting can only make a track as its image has it: other sectors are not found then.
 *
 * Threads: machine lock. Guest memory: through the DMA channel only.
 */
#include <errno.h>
#include <string.h>

#include "devices/floppy/floppy.h"

#define MULTI_TRACK      0x80u /* bits of a command's first byte */
#define MFM              0x40u
#define INWARD           0x40u
#define RELATIVE         0x80u

#define READ_TRACK       0x02u
#define WRITE_DATA       0x05u
#define READ_DATA        0x06u
#define WRITE_DELETED    0x09u
#define READ_DELETED     0x0cu
#define FORMAT_TRACK     0x0du
#define VERIFY           0x16u
#define VERIFY_COUNTS    0x80u /* in the byte that selects the drive */

#define ST0_FAILED       0x40u
#define ST0_INVALID      0x80u
#define ST0_SEEK_END     0x20u
#define ST0_EQUIPMENT    0x10u
#define ST1_NO_MARK      0x01u
#define ST1_PROTECTED    0x02u
#define ST1_NO_DATA      0x04u
#define ST1_DATA_ERROR   0x20u
#define ST1_END_OF_TRACK 0x80u
#define ST2_BAD_TRACK    0x02u
#define ST2_WRONG_TRACK  0x10u
#define ST2_DATA_ERROR   0x20u
#define ST2_CONTROL      0x40u /* the mark is not the one that was asked for */
#define ST3_TRACK_0      0x10u
#define ST3_READY        0x20u
#define ST3_PROTECTED    0x40u
#define ST3_TWO_SIDES    0x08u

#define VERSION_82077    0x90u
#define CONFIG_SEEK      0x40u /* commands that move data go to the track by themselves */
#define NON_DMA          0x01u
#define RECALIBRATE_MAX  79u
#define ID_BYTES         4u

enum { ID_TRACK, ID_HEAD, ID_SECTOR, ID_SIZE };

static unsigned code_of(const struct floppy_controller *s)
{
    return s->command & 0x1f;
}

static unsigned unit_of(const struct floppy_controller *s)
{
    return s->params[0] & 3;
}

static struct floppy_drive *drive_of(const struct floppy_controller *s)
{
    return unit_of(s) < FLOPPY_DRIVES ? s->drives[unit_of(s)] : NULL;
}

/* Bits of ST0: which drive and side. */
static uint8_t place_of(const struct floppy_controller *s)
{
    return s->params[0] & 7;
}

bool floppy_uses_dma(const struct floppy_controller *s)
{
    return !(s->load_and_mode & NON_DMA);
}

bool floppy_is_write(const struct floppy_controller *s)
{
    unsigned code = code_of(s);

    return code == WRITE_DATA || code == WRITE_DELETED || code == FORMAT_TRACK;
}

/* ---- the end ---- */

void floppy_begin_results(struct floppy_controller *s)
{
    s->param_count = 0;
    s->result_at = 0;
    s->phase = s->result_count ? FLOPPY_RESULT : FLOPPY_COMMAND;
}

static void one_result(struct floppy_controller *s, uint8_t value)
{
    s->results[0] = value;
    s->result_count = 1;
}

/* The seven bytes of commands that look at a disk. */
static void end(struct floppy_controller *s, uint8_t st0)
{
    s->stage = FLOPPY_IDLE;
    isa_dma_request(s->dma, FLOPPY_DMA_CHANNEL, false);
    s->results[0] = st0 | place_of(s);
    s->results[1] = s->st1;
    s->results[2] = s->st2;
    memcpy(s->results + 3, s->id, sizeof(s->id));
    s->result_count = 7;
    floppy_begin_results(s);
    floppy_interrupt(s, true);
}

void floppy_fail(struct floppy_controller *s, uint8_t st1, uint8_t st2)
{
    s->st1 |= st1;
    s->st2 |= st2;
    end(s, ST0_FAILED);
}

/* ---- what is under the head ---- */

/* Is there a disk whose marks can be read? */
static bool sees_marks(const struct floppy_controller *s)
{
    const struct floppy_drive *d = drive_of(s);

    return d && d->drive && s->command & MFM && (s->dsr & 3) == d->rate &&
           s->head < d->format->heads && floppy_track(d) < d->format->tracks;
}

/* Is the sector of id there? Else false, and st1 and st2 say why not. */
static bool find_sector(struct floppy_controller *s)
{
    const struct floppy_drive *d = drive_of(s);

    if (!sees_marks(s)) {
        s->st1 |= ST1_NO_MARK;
        return false;
    }
    if (s->id[ID_TRACK] != floppy_track(d))
        s->st2 |= s->id[ID_TRACK] == 0xff ? ST2_BAD_TRACK | ST2_WRONG_TRACK : ST2_WRONG_TRACK;
    else if (s->id[ID_HEAD] == s->head && s->id[ID_SIZE] == FLOPPY_SECTOR_CODE &&
             s->id[ID_SECTOR] && s->id[ID_SECTOR] <= d->format->sectors)
        return true;
    s->st1 |= ST1_NO_DATA;
    return false;
}

static uint64_t offset_of(const struct floppy_controller *s, unsigned sector)
{
    const struct floppy_drive *d = drive_of(s);
    unsigned before = (floppy_track(d) * d->format->heads + s->head) * d->format->sectors;

    return (uint64_t)(before + sector - 1) * BLOCK_SECTOR_BYTES;
}

/* ---- sectors ---- */

static unsigned last_sector(const struct floppy_controller *s)
{
    return s->params[5];
}

/* How many sectors can move at once; id is there. */
static unsigned run_of_sectors(const struct floppy_controller *s)
{
    unsigned last = drive_of(s)->format->sectors;

    if (s->one_by_one || code_of(s) == READ_DELETED)
        return 1;
    if (s->id[ID_SECTOR] <= last_sector(s) && last_sector(s) < last)
        last = last_sector(s);
    return last - s->id[ID_SECTOR] + 1;
}

/* Go on behind the sectors that were moved. False: that was the last one of all. */
static bool advance(struct floppy_controller *s, unsigned sectors)
{
    unsigned next = s->id[ID_SECTOR] + sectors;
    bool multi = s->command & MULTI_TRACK && code_of(s) != READ_TRACK;

    if (next != last_sector(s) + 1) {
        s->id[ID_SECTOR] = (uint8_t)next;
        return true;
    }
    s->id[ID_SECTOR] = 1;
    if (multi && s->head == 0) {
        s->head = 1;
        s->id[ID_HEAD] ^= 1;
        return true;
    }
    s->id[ID_TRACK]++;
    if (multi)
        s->id[ID_HEAD] ^= 1;
    return false;
}

static void next_run(struct floppy_controller *s);

/* VERIFY may say how many sectors it wants. */
static bool verified_all(struct floppy_controller *s, unsigned sectors)
{
    if (code_of(s) != VERIFY || !(s->params[0] & VERIFY_COUNTS))
        return false;
    s->params[7] = (uint8_t)(s->params[7] > sectors ? s->params[7] - sectors : 0);
    return !s->params[7];
}

static void run_moved(struct floppy_controller *s)
{
    unsigned sectors = (s->moved + BLOCK_SECTOR_BYTES - 1) / BLOCK_SECTOR_BYTES;
    bool all = verified_all(s, sectors), more = advance(s, sectors);

    if (code_of(s) == READ_DELETED)
        floppy_fail(s, 0, ST2_CONTROL);
    else if (s->ended || all || (!more && code_of(s) == VERIFY))
        end(s, 0);
    else if (!more)
        floppy_fail(s, ST1_END_OF_TRACK, 0);
    else
        next_run(s);
}

/* ---- the guest's side of the buffer ---- */

static void submit(struct floppy_controller *s, enum block_op op, uint64_t offset,
                   unsigned piece_count);

static void write_run(struct floppy_controller *s)
{
    unsigned partial = s->moved % BLOCK_SECTOR_BYTES;

    if (partial) {
        memset(s->buffer + s->moved, 0, BLOCK_SECTOR_BYTES - partial);
        s->moved = (uint16_t)(s->moved + BLOCK_SECTOR_BYTES - partial);
    }
    s->stage = FLOPPY_WRITING;
    if (!find_sector(s) ||
        s->id[ID_SECTOR] - 1u + s->moved / BLOCK_SECTOR_BYTES > drive_of(s)->format->sectors) {
        floppy_fail(s, 0, 0);
        return;
    }
    s->pieces[0] = (struct io_piece){s->buffer, s->moved};
    submit(s, BLOCK_WRITE, offset_of(s, s->id[ID_SECTOR]), 1);
}

/* The sectors of a track as the guest wants them; true if that is what the disk has. */
static bool is_possible_track(const struct floppy_controller *s)
{
    const struct floppy_format *format = drive_of(s)->format;
    uint64_t seen = 0, wanted = ((1ull << format->sectors) - 1) << 1;

    if (s->params[1] != FLOPPY_SECTOR_CODE || s->params[2] != format->sectors)
        return false;
    for (unsigned n = 0; n < format->sectors; n++) {
        const uint8_t *id = s->buffer + n * ID_BYTES;

        if (id[ID_TRACK] != floppy_track(drive_of(s)) || id[ID_HEAD] != s->head ||
            id[ID_SIZE] != FLOPPY_SECTOR_CODE || id[ID_SECTOR] > format->sectors)
            return false;
        seen |= 1ull << id[ID_SECTOR];
    }
    return seen == wanted;
}

static void format_track(struct floppy_controller *s)
{
    uint8_t *sector = s->buffer + FLOPPY_TRACK_BYTES - BLOCK_SECTOR_BYTES;

    s->stage = FLOPPY_WRITING;
    if (!sees_marks(s)) {
        floppy_fail(s, ST1_NO_MARK, 0);
        return;
    }
    if (!is_possible_track(s)) {
        floppy_fail(s, ST1_NO_DATA, 0);
        return;
    }
    memset(sector, s->params[4], BLOCK_SECTOR_BYTES);
    for (unsigned n = 0; n < s->params[2]; n++)
        s->pieces[n] = (struct io_piece){sector, BLOCK_SECTOR_BYTES};
    submit(s, BLOCK_WRITE, offset_of(s, 1), s->params[2]);
}

/* The guest has moved all that it wants to of the buffer. */
static void buffer_moved(struct floppy_controller *s)
{
    isa_dma_request(s->dma, FLOPPY_DMA_CHANNEL, false);
    if (!floppy_is_write(s))
        run_moved(s);
    else if (code_of(s) == FORMAT_TRACK)
        format_track(s);
    else
        write_run(s);
}

void floppy_dma_ready(void *opaque)
{
    struct floppy_controller *s = opaque;
    size_t moved;
    bool is_end;

    if (s->stage != FLOPPY_MOVING || !floppy_uses_dma(s))
        return;
    moved = isa_dma_move(s->dma, FLOPPY_DMA_CHANNEL, s->buffer + s->moved, s->filled - s->moved,
                         !floppy_is_write(s), &is_end);
    s->moved = (uint16_t)(s->moved + moved);
    s->ended |= is_end;
    if (is_end || s->moved == s->filled)
        buffer_moved(s);
}

static void byte_moved(struct floppy_controller *s)
{
    if (s->moved++ == 0)
        floppy_interrupt(s, false);
    if (s->moved == s->filled)
        buffer_moved(s);
}

uint8_t floppy_take_byte(struct floppy_controller *s)
{
    uint8_t value = s->buffer[s->moved];

    byte_moved(s);
    return value;
}

void floppy_give_byte(struct floppy_controller *s, uint8_t value)
{
    s->buffer[s->moved] = value;
    byte_moved(s);
}

void floppy_offer(struct floppy_controller *s)
{
    if (s->stage == FLOPPY_MOVING && floppy_uses_dma(s))
        isa_dma_request(s->dma, FLOPPY_DMA_CHANNEL, s->dor & FLOPPY_DOR_GATE);
}

/* filled bytes of the buffer are the guest's now. */
static void offer_buffer(struct floppy_controller *s)
{
    s->stage = FLOPPY_MOVING;
    s->moved = 0;
    if (floppy_uses_dma(s))
        floppy_offer(s);
    else
        floppy_interrupt(s, true);
}

/* ---- the disk's side ---- */

static void read_run(struct floppy_controller *s)
{
    s->stage = FLOPPY_READING;
    if (!find_sector(s)) {
        floppy_fail(s, 0, 0);
        return;
    }
    s->filled = (uint16_t)(run_of_sectors(s) * BLOCK_SECTOR_BYTES);
    s->pieces[0] = (struct io_piece){s->buffer, s->filled};
    submit(s, BLOCK_READ, offset_of(s, s->id[ID_SECTOR]), 1);
}

static void next_run(struct floppy_controller *s)
{
    if (!floppy_is_write(s)) {
        read_run(s);
    } else if (!find_sector(s)) {
        floppy_fail(s, 0, 0);
    } else {
        s->filled = (uint16_t)(run_of_sectors(s) * BLOCK_SECTOR_BYTES);
        offer_buffer(s);
    }
}

static void was_read(struct floppy_controller *s, int status)
{
    if (status && s->filled > BLOCK_SECTOR_BYTES) {
        s->one_by_one = true;
        read_run(s);
    } else if (status) {
        floppy_fail(s, ST1_DATA_ERROR, ST2_DATA_ERROR);
    } else if (code_of(s) == VERIFY) {
        s->moved = s->filled;
        run_moved(s);
    } else {
        offer_buffer(s);
    }
}

static void was_written(struct floppy_controller *s, int status)
{
    if (status)
        floppy_fail(s, ST1_DATA_ERROR, ST2_DATA_ERROR);
    else if (code_of(s) == FORMAT_TRACK)
        end(s, 0);
    else
        run_moved(s);
}

static void request_done(struct block_request *request, int status)
{
    struct floppy_controller *s = container_of(request, struct floppy_controller, request);

    s->is_busy = false;
    if (s->stage == FLOPPY_READING)
        was_read(s, status);
    else if (s->stage == FLOPPY_WRITING)
        was_written(s, status);
}

static void submit(struct floppy_controller *s, enum block_op op, uint64_t offset,
                   unsigned piece_count)
{
    struct block_request *r = &s->request;

    r->op = op;
    r->offset = offset;
    r->size_bytes = 0;
    r->pieces = s->pieces;
    r->piece_count = piece_count;
    r->done = request_done;
    for (unsigned n = 0; n < piece_count; n++)
        r->size_bytes += s->pieces[n].size_bytes;
    s->is_busy = true;
    block_submit(drive_of(s)->drive, r);
}

void floppy_forget(struct floppy_controller *s)
{
    s->stage = FLOPPY_IDLE;
    for (unsigned n = 0; n < FLOPPY_DRIVES && s->is_busy; n++)
        if (s->drives[n] && s->drives[n]->drive)
            block_drain(s->drives[n]->drive);
}

void floppy_postpone(struct device *controller)
{
    floppy_of(controller)->is_busy = false; /* the stage says what it was */
}

void floppy_resume(struct floppy_controller *s)
{
    if (s->is_busy)
        return;
    if (s->stage == FLOPPY_READING)
        read_run(s);
    else if (s->stage == FLOPPY_WRITING && code_of(s) == FORMAT_TRACK)
        format_track(s);
    else if (s->stage == FLOPPY_WRITING)
        write_run(s);
}

/* ---- commands that look at a disk ---- */

static void step(struct floppy_controller *s, unsigned unit, unsigned track)
{
    s->cylinder[unit] = (uint8_t)track;
    if (unit < FLOPPY_DRIVES && s->drives[unit])
        floppy_step_to(s->drives[unit], track);
}

static bool is_protected(const struct floppy_drive *d)
{
    return d && d->drive && block_is_read_only(d->drive);
}

/* Command, parameters and selected side are known: what is common to all transfers. */
static void begin_transfer(struct floppy_controller *s)
{
    s->phase = FLOPPY_EXECUTING;
    s->stage = FLOPPY_MOVING;
    s->head = s->params[0] >> 2 & 1;
    s->ended = s->one_by_one = false;
    s->st1 = s->st2 = 0;
    s->filled = s->moved = 0;
    if (s->config & CONFIG_SEEK && code_of(s) != FORMAT_TRACK)
        step(s, unit_of(s), s->params[1]);
}

static void do_transfer(struct floppy_controller *s)
{
    memcpy(s->id, s->params + 1, sizeof(s->id));
    begin_transfer(s);
    if (code_of(s) == READ_TRACK)
        s->id[ID_SECTOR] = 1;
    if (floppy_is_write(s) && is_protected(drive_of(s)))
        floppy_fail(s, ST1_PROTECTED, 0);
    else
        next_run(s);
}

static void do_format(struct floppy_controller *s)
{
    begin_transfer(s);
    s->id[ID_TRACK] = (uint8_t)s->cylinder[unit_of(s)];
    s->id[ID_HEAD] = s->head;
    s->id[ID_SECTOR] = 1;
    s->id[ID_SIZE] = s->params[1];
    if (is_protected(drive_of(s)))
        floppy_fail(s, ST1_PROTECTED, 0);
    else if (!sees_marks(s))
        floppy_fail(s, ST1_NO_MARK, 0);
    else if (s->params[2] != drive_of(s)->format->sectors)
        floppy_fail(s, ST1_NO_DATA, 0);
    else {
        s->filled = (uint16_t)(s->params[2] * ID_BYTES);
        offer_buffer(s);
    }
}

static void do_read_id(struct floppy_controller *s)
{
    begin_transfer(s);
    if (!sees_marks(s)) {
        floppy_fail(s, ST1_NO_MARK, 0);
        return;
    }
    s->id[ID_TRACK] = (uint8_t)floppy_track(drive_of(s));
    s->id[ID_HEAD] = s->head;
    s->id[ID_SECTOR] = 1;
    s->id[ID_SIZE] = FLOPPY_SECTOR_CODE;
    end(s, 0);
}

/* ---- others ---- */

static void do_specify(struct floppy_controller *s)
{
    s->step_and_unload = s->params[0];
    s->load_and_mode = s->params[1];
}

static void do_sense_drive(struct floppy_controller *s)
{
    const struct floppy_drive *d = drive_of(s);
    uint8_t st3 = place_of(s) | ST3_TWO_SIDES | ST3_READY;

    if (d && d->track == 0)
        st3 |= ST3_TRACK_0;
    if (is_protected(d))
        st3 |= ST3_PROTECTED;
    one_result(s, st3);
}

static void begin_seek(struct floppy_controller *s, uint8_t status)
{
    unsigned unit = unit_of(s);

    s->seeking |= (uint8_t)(1u << unit);
    s->seek_ended[unit] = false;
    s->seek_status[unit] = (uint8_t)(ST0_SEEK_END | status | place_of(s));
}

/* Up to 79 steps outwards, until the drive says that it is at track 0. */
static void do_recalibrate(struct floppy_controller *s)
{
    struct floppy_drive *d = drive_of(s);

    s->params[0] &= 3;
    s->cylinder[unit_of(s)] = 0;
    if (d)
        floppy_step_to(d, d->track > RECALIBRATE_MAX ? d->track - RECALIBRATE_MAX : 0);
    begin_seek(s, d && d->track == 0 ? 0 : ST0_FAILED | ST0_EQUIPMENT);
}

static void do_seek(struct floppy_controller *s)
{
    const struct floppy_drive *d = drive_of(s);
    unsigned unit = unit_of(s), steps = s->params[1], at = s->cylinder[unit];

    if (!(s->command & RELATIVE)) {
        step(s, unit, steps);
    } else {
        unsigned track = d ? d->track : 0;

        if (d)
            floppy_step_to(s->drives[unit], s->command & INWARD ? track + steps
                                            : track > steps     ? track - steps
                                                                : 0);
        s->cylinder[unit] = (uint8_t)(s->command & INWARD ? at + steps : at - steps);
    }
    begin_seek(s, 0);
}

static void do_dump(struct floppy_controller *s)
{
    memcpy(s->results, s->cylinder, sizeof(s->cylinder));
    s->results[4] = s->step_and_unload;
    s->results[5] = s->load_and_mode;
    s->results[6] = s->params[5];
    s->results[7] = (uint8_t)(s->locked << 7 | (s->perpendicular & 0x3f));
    s->results[8] = s->config;
    s->results[9] = s->precompensation;
    s->result_count = 10;
}

static void do_version(struct floppy_controller *s)
{
    one_result(s, VERSION_82077);
}

/* Bit 7 allows to change which drives are perpendicular. */
static void do_perpendicular(struct floppy_controller *s)
{
    uint8_t value = s->params[0];

    s->perpendicular =
        value & 0x80 ? value & 0x3f : (uint8_t)((s->perpendicular & 0x3c) | (value & 3));
}

static void do_configure(struct floppy_controller *s)
{
    s->config = s->params[1];
    s->precompensation = s->params[2];
}

static void do_lock(struct floppy_controller *s)
{
    s->locked = s->command & 0x80;
    one_result(s, (uint8_t)(s->locked << 4));
}

/* By the low five bits of the first byte. */
static const struct {
    void (*run)(struct floppy_controller *s);
    uint8_t params;
} commands[32] = {
    [READ_TRACK] = {do_transfer, 8},
    [0x03] = {do_specify, 2},
    [0x04] = {do_sense_drive, 1},
    [WRITE_DATA] = {do_transfer, 8},
    [READ_DATA] = {do_transfer, 8},
    [0x07] = {do_recalibrate, 1},
    [WRITE_DELETED] = {do_transfer, 8},
    [0x0a] = {do_read_id, 1},
    [READ_DELETED] = {do_transfer, 8},
    [FORMAT_TRACK] = {do_format, 5},
    [0x0e] = {do_dump, 0},
    [0x0f] = {do_seek, 2},
    [0x10] = {do_version, 0},
    [0x12] = {do_perpendicular, 1},
    [0x13] = {do_configure, 3},
    [0x14] = {do_lock, 0},
    [VERIFY] = {do_transfer, 8},
};

unsigned floppy_param_count(uint8_t command)
{
    return commands[command & 0x1f].params;
}

void floppy_execute(struct floppy_controller *s)
{
    if (commands[code_of(s)].run)
        commands[code_of(s)].run(s);
    else
        one_result(s, ST0_INVALID);
}

/* A soft reset leaves what SPECIFY said, and with LOCK what CONFIGURE said. */
void floppy_reset_commands(struct floppy_controller *s, bool is_hard)
{
    if (is_hard)
        s->locked = false;
    if (!s->locked)
        s->config = s->precompensation = 0;
    s->perpendicular &= is_hard ? 0 : 0x3c;
    if (is_hard)
        s->step_and_unload = s->load_and_mode = 0;
}

int floppy_check_transfer(const struct floppy_controller *s, struct error *err)
{
    bool is_read = s->stage == FLOPPY_READING;
    bool is_data = commands[code_of(s)].run == do_transfer || code_of(s) == FORMAT_TRACK;

    if (!is_data || (is_read && floppy_is_write(s)) || s->moved > s->filled ||
        (s->stage == FLOPPY_WRITING && !floppy_is_write(s)) ||
        (s->stage == FLOPPY_MOVING && s->moved == s->filled))
        return error_set(err, EINVAL, "no command moves data as this one does");
    return 0;
}
