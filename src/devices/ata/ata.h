/*
 * ata.h - ATA disks and ATAPI CD-ROM drives, whatever controller they are connected to
 *
 * A drive has the registers of the task file and executes commands. Its controller fills in the
 * registers, calls ata_execute() and is told through struct ata_host_ops when there is data to
 * move and when the command has ended. Controllers: ahci.c, where all data is moved by scatter
 * lists; pci_ide.c, where the guest may read and write it word by word through ata_read_data() and
 * ata_write_data().
 *
 * ATA/ATAPI Command Set - 2 (ACS-2), ATA/ATAPI-6 for what later standards have dropped, MMC-6 and
 * SFF-8020i for packets.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_ATA_ATA_H
#define DEVICES_ATA_ATA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "devices/dma.h"
#include "trapeze/block.h"
#include "trapeze/device.h"

#define ATA_BUFFER_BYTES  8192u /* READ and WRITE MULTIPLE: 16 sectors; CD: 4 */
#define ATA_PACKET_BYTES  12u
#define ATA_MAX_QUEUED    32u
#define ATA_CD_SECTOR     2048u
#define ATA_SERIAL_BYTES  20u
#define ATA_ANY_PLACE     255u
#define ATA_LBA48_COUNT   65536u
#define ATA_HEADS         16u /* the usual geometry */
#define ATA_TRACK_SECTORS 63u

enum ata_command {
    ATA_READ_FPDMA = 0x60,
    ATA_WRITE_FPDMA = 0x61,
    ATA_DEVICE_RESET = 0x08,
    ATA_DIAGNOSTIC = 0x90,
    ATA_PACKET = 0xa0,
    ATA_IDENTIFY_PACKET = 0xa1,
    ATA_IDENTIFY = 0xec,
};

enum ata_status {
    ATA_ERR = 0x01, /* CHK of packet commands */
    ATA_DRQ = 0x08,
    ATA_DSC = 0x10, /* seek complete */
    ATA_DF = 0x20,
    ATA_DRDY = 0x40,
    ATA_BSY = 0x80,
};
enum ata_error {
    ATA_ABRT = 0x04,
    ATA_IDNF = 0x10, /* no such sector */
    ATA_UNC = 0x40,  /* it cannot be read */
};
enum ata_device_register { ATA_DEVICE_1 = 0x10, ATA_LBA = 0x40 };
enum ata_control { ATA_NIEN = 0x02, ATA_SRST = 0x04, ATA_HOB = 0x80 };

/* [0] is what was written last, and 28-bit commands take; [1] what was there before. */
struct ata_taskfile {
    uint8_t command, features[2], count[2];
    uint8_t lba[6]; /* low, mid, high, and what they were before */
    uint8_t device, control, status, error;
};

enum ata_phase {
    ATA_PHASE_NONE,    /* nothing to move: no command, or it is under way with BSY */
    ATA_PHASE_PACKET,  /* DRQ: the guest writes a packet */
    ATA_PHASE_PIO_IN,  /* DRQ: the guest reads the buffer */
    ATA_PHASE_PIO_OUT, /* DRQ: the guest writes it */
    ATA_PHASE_LIST,    /* BSY: the controller has to call ata_move() */
    /* BSY: what the disk had to do when the machine was paused, and is to do anew. */
    ATA_PHASE_FILL,  /* fill the buffer */
    ATA_PHASE_EMPTY, /* write it */
    ATA_PHASE_FLUSH,
    ATA_PHASES,
};

/* The data of a command. */
struct ata_transfer {
    bool is_out;               /* to the drive */
    bool is_dma;               /* it is moved by a scatter list; else by either */
    bool is_media;             /* it is the medium's; else the buffer's */
    bool flush;                /* it is on the disk when the command ends */
    uint64_t offset;           /* media: next byte that goes between it and the buffer, or a list */
    uint64_t left;             /* media: bytes that have no place in the buffer yet */
    uint32_t position, filled; /* in the buffer: next byte, end */
    uint32_t block_end, block_bytes; /* of the DRQ block; and of those that follow */
};

struct ata_drive;

/* A request to the disk, and the memory that it moves. */
struct ata_request {
    struct block_request block;
    struct ata_drive *drive;
    struct dma_list list;
    struct io_piece piece; /* of the buffer */
    uint64_t moved_bytes;
    struct ata_taskfile tf; /* of a queued command */
    bool flush;             /* afterwards */
};

struct ata_host_ops {
    /*
     * transfer is to be moved by a scatter list: put it into request.list and call ata_move(), now
     * or later.
     */
    void (*move)(struct ata_drive *drive);
    /* INTRQ: a block of data can be moved, or the command has ended. */
    void (*interrupt)(struct ata_drive *drive);
    /* A queued command has ended: error is of the error register, 0 is well. May be NULL. */
    void (*queued_ended)(struct ata_drive *drive, struct ata_request *request, uint8_t error);
    /*
     * The machine is paused, and request failed: execute its command anew when it goes on. NULL:
     * the drive does that by itself.
     */
    void (*postponed)(struct ata_drive *drive, struct ata_request *request);
    bool has_data_register;
};

/* Where a drive can be connected. */
struct ata_port {
    struct device *controller;
    struct ata_drive *drive; /* NULL: none */
    uint8_t number;          /* of the controller's ports */
    uint8_t unit;            /* device 1 of two on a cable */
};

/* The places of a controller. */
struct ata_bus {
    const struct ata_host_ops *ops;
    struct ata_port *ports;
    unsigned count;
    bool is_serial;
    bool is_queued; /* READ and WRITE FPDMA QUEUED */
};

/* Sense data (SPC). */
struct ata_sense {
    uint8_t key, code, qualifier;
};

struct ata_drive {
    struct device dev;

    /* Configuration. */
    struct block *drive;       /* property; CD: its medium, NULL is an empty tray */
    char *serial;              /* property */
    uint8_t place;             /* property */
    struct device *controller; /* property */
    const struct ata_bus *bus;
    struct ata_port *port;
    uint64_t sectors; /* of 512 bytes */
    bool is_cd;

    /* Guest-visible state. */
    struct ata_taskfile tf;
    uint8_t phase; /* enum ata_phase */
    struct ata_transfer transfer;
    uint8_t buffer[ATA_BUFFER_BYTES];
    uint8_t packet[16];
    bool intrq;
    uint8_t multiple;             /* sectors of READ MULTIPLE; 0: not set */
    uint8_t heads, track_sectors; /* as the guest sees the disk */
    uint8_t transfer_mode;        /* of SET FEATURES */
    bool write_cache, look_ahead, smart, standby;
    bool queue_failed;     /* the log of queued errors holds one */
    uint8_t queue_log[16]; /* the first bytes of it */
    /* CD */
    struct ata_sense sense, attention; /* attention: what the next command is told instead */
    bool tray_open, locked;
    uint8_t media_event;

    /* Who is told when the tray has opened or closed; NULL: nobody. */
    void (*tray_moved)(void *opaque);
    void *tray_opaque;

    /* Not state: nothing is under way when the machine is paused. */
    struct ata_request request; /* of commands that are not queued */
    struct ata_request queued[ATA_MAX_QUEUED];
    uint32_t trim_position; /* in the buffer */
};

/* ---- for controllers ---- */

/* The ports of a controller; NULL if it is none. */
struct ata_bus *ata_bus_of(struct device *controller);
bool ata_bus_is_full(const struct ata_bus *bus);
/* tf.command and the other registers were written (and packet, without a data register). */
void ata_execute(struct ata_drive *drive);
/* Move what request.list takes of the transfer; then the command ends, if that was all of it. */
void ata_move(struct ata_drive *drive);
/*
 * READ or WRITE FPDMA QUEUED in request->tf: check it. 0 and its bytes, or bits of the error
 * register. Fill request->list then, and call ata_move_queued.
 */
uint8_t ata_queue(struct ata_drive *drive, struct ata_request *request, uint64_t *out_bytes);
void ata_move_queued(struct ata_drive *drive, struct ata_request *request);
/* A queued command failed: the log of queued errors holds it. */
void ata_queue_failed(struct ata_drive *drive, const struct ata_request *request, uint8_t error);
/* How many bytes the command in phase ATA_PHASE_LIST moves. */
uint64_t ata_transfer_bytes(const struct ata_drive *drive);
/* Power-on, COMRESET, SRST: all is forgotten, the signature is in the registers. */
void ata_reset(struct ata_drive *drive);
/* Wait until the disk does nothing for it any more. */
void ata_drain(struct ata_drive *drive);
/* The same for a pause: what failed in a way that pauses the machine is a phase then. */
void ata_quiesce(struct ata_drive *drive);
void ata_resume(struct ata_drive *drive);

/* The data register, size 1, 2 or 4. */
uint32_t ata_read_data(struct ata_drive *drive, unsigned size);
void ata_write_data(struct ata_drive *drive, uint32_t value, unsigned size);

/* ---- for who puts media into a CD drive ---- */

/*
 * Take the medium out, and put medium in and close the tray; NULL: leave it open. Is there one, and
 * the tray locked, the guest is asked to open it (*out_asked), and nothing else is done, unless
 * by_force. *out_old is the caller's again, NULL: there was none. -EINVAL: medium cannot be a CD.
 */
int ata_cd_change(struct device *cd, struct block *medium, bool by_force, bool *out_asked,
                  struct block **out_old, struct error *err);
bool ata_cd_is_open(const struct device *cd);
/* moved() is called on any thread when the tray has opened or closed. */
void ata_cd_observe(struct device *cd, void (*moved)(void *opaque), void *opaque);

/* ---- between the parts of a drive ---- */

static inline uint64_t ata_lba48(const struct ata_taskfile *tf)
{
    return get_le32((const uint8_t[4]){tf->lba[0], tf->lba[1], tf->lba[2], tf->lba[3]}) |
           (uint64_t)get_le16(tf->lba + 4) << 32;
}

/* transfer.c */
void ata_end(struct ata_drive *drive, uint8_t error); /* the command; error 0: it went well */
void ata_begin_transfer(struct ata_drive *drive);     /* transfer is filled in */
/* What is in buffer goes to the guest, in blocks of block_bytes. */
void ata_send_buffer(struct ata_drive *drive, size_t size_bytes, uint32_t block_bytes, bool is_dma);
void ata_flush(struct ata_drive *drive); /* then the command ends */
/* drive.c: what kind of drive it is, in the registers; and that it is well */
void ata_signature(struct ata_drive *drive);
void ata_sign(struct ata_drive *drive);
bool ata_has_write_cache(const struct ata_drive *drive); /* a disk that is not written through */
/* identify.c: 512 bytes each */
void ata_identify(struct ata_drive *drive); /* into buffer */
void ata_smart_data(uint8_t *sector);
void ata_smart_thresholds(uint8_t *sector);
/* atapi.c */
void atapi_packet(struct ata_drive *drive);                /* PACKET was written */
void atapi_execute(struct ata_drive *drive);               /* the packet is there */
void atapi_offer(struct ata_drive *drive, uint32_t bytes); /* a block of data */
void atapi_end(struct ata_drive *drive);                   /* all was moved */
void atapi_failed(struct ata_drive *drive);                /* the medium could not be read */
void atapi_reset(struct ata_drive *drive);
void atapi_change(struct ata_drive *drive, struct block *medium, uint64_t sectors);
void atapi_ask_to_eject(struct ata_drive *drive);
void atapi_move_tray(struct ata_drive *drive, bool open); /* who observes it is told */
bool atapi_has_medium(const struct ata_drive *drive);

extern const struct device_class ata_disk_class, ata_cd_class;

#endif
