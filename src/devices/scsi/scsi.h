/*
 * scsi.h - the SCSI commands of a logical unit, whatever leads to it
 *
 * SPC-4, SBC-3. A transport fills in a request with the command and the memory of its data, and is
 * told when it has ended, with what status and sense data. Requests overlap and end in any order.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_SCSI_SCSI_H
#define DEVICES_SCSI_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/io_piece.h"

#define SCSI_CDB_BYTES       32u
#define SCSI_SENSE_BYTES     18u
#define SCSI_MAX_PIECES      264u
#define SCSI_MAX_SERIAL      20u

#define SCSI_GOOD            0x00u
#define SCSI_CHECK_CONDITION 0x02u

/* Additional sense codes with their qualifiers, and the sense keys that go with them. */
enum scsi_sense {
    SCSI_NO_SENSE = 0,
    SCSI_NOT_READY = 0x20402,   /* key 2: to be started */
    SCSI_WRITE_ERROR = 0x30c00, /* key 3 */
    SCSI_READ_ERROR = 0x31100,
    SCSI_INTERNAL_FAILURE = 0x44400, /* key 4 */
    SCSI_LIST_LENGTH = 0x51a00,      /* key 5 */
    SCSI_INVALID_OPCODE = 0x52000,
    SCSI_LBA_RANGE = 0x52100,
    SCSI_INVALID_FIELD = 0x52400,
    SCSI_NO_UNIT = 0x52500,
    SCSI_INVALID_PARAMETER = 0x52600,
    SCSI_NOT_SAVED = 0x53900,
    SCSI_POWER_ON = 0x62900, /* key 6 */
    SCSI_UNIT_RESET = 0x62903,
    SCSI_WRITE_PROTECTED = 0x72700, /* key 7 */
    SCSI_SPACE_FAILED = 0x72707,
    SCSI_MISCOMPARE = 0xe1d00, /* key 14 */
};

/* A direct-access disk. */
struct scsi_disk {
    /* Configuration. */
    struct block *drive;
    const char *serial;
    bool is_removable; /* a stick: it can be taken out, whatever the guest says */

    /* Guest-visible state. */
    uint32_t attention; /* enum scsi_sense of a unit attention that was not reported yet, or 0 */
    bool write_cache;
    bool stopped;
};

struct scsi_request {
    /* The transport's. */
    uint8_t cdb[SCSI_CDB_BYTES];
    bool is_unit;   /* else it goes to a unit that is not there */
    bool from_unit; /* the memory is for data from the unit, else for it */
    uint64_t size_bytes;
    unsigned piece_count;
    struct io_piece pieces[SCSI_MAX_PIECES];
    void (*done)(struct scsi_request *request);

    /* When it has ended. */
    uint8_t status;
    bool overrun;  /* there is less memory than the command transfers; nothing was done */
    bool canceled; /* by the transport, which waited for it to end */
    uint64_t transferred_bytes;
    uint8_t sense[SCSI_SENSE_BYTES]; /* if the status is CHECK CONDITION */

    /* disk.c's. */
    struct scsi_disk *disk;
    struct block_request block;
    bool flush_after, is_compare;
    uint8_t *buffer;
    struct io_piece whole;
    uint64_t lba, left;          /* of WRITE SAME */
    unsigned range, range_count; /* of UNMAP */
};

/* Power-on, or the reset of a unit: attention says which. Nothing is under way. */
void scsi_disk_reset(struct scsi_disk *disk, uint32_t attention);
/* done() is called before it returns, or later. */
void scsi_disk_execute(struct scsi_disk *disk, struct scsi_request *request);
/*
 * In a transport's quiesce(): a request that the disk had and block_take_kept() gave back. It is
 * to be executed anew. Without memory for that, block.done() ends it.
 */
static inline struct scsi_request *scsi_of_kept(struct block_request *kept)
{
    return container_of(kept, struct scsi_request, block);
}
/* Drop such a request. */
void scsi_forget(struct scsi_request *request);

extern const struct state_field scsi_disk_state[];
#define SCSI_DISK_STATE(st, f) STATE_STRUCT(st, f, scsi_disk_state)

#endif
