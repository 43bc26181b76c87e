/*
 * floppy.h - the floppy controller and its drives
 *
 * The board wires controller and DMA; drives are devices of their own that are connected to the
 * controller, as ATA drives are. Machine lock held.
 */
#ifndef DEVICES_FLOPPY_FLOPPY_H
#define DEVICES_FLOPPY_FLOPPY_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/isa_dma.h"
#include "trapeze/block.h"
#include "trapeze/device.h"

#define FLOPPY_DRIVES      2u
#define FLOPPY_SECTOR_CODE 2u                         /* N: 512 bytes */
#define FLOPPY_TRACK_BYTES (36u * BLOCK_SECTOR_BYTES) /* one side of the largest */
#define FLOPPY_LAST_TRACK  84u                        /* where the head can go */
#define FLOPPY_DOR_GATE    0x08u                      /* interrupts and DMA requests pass */
#define FLOPPY_DMA_CHANNEL 2u
#define FLOPPY_MAX_PARAMS  8u
#define FLOPPY_MAX_RESULTS 10u

/* As in CMOS byte 0x10. */
enum floppy_type {
    FLOPPY_NONE,
    FLOPPY_360K,
    FLOPPY_1200K,
    FLOPPY_720K,
    FLOPPY_1440K,
    FLOPPY_2880K
};

struct floppy_format {
    uint8_t tracks, heads, sectors;
};

struct floppy_drive {
    struct device dev;

    /* Configuration. */
    struct block *drive;       /* property; NULL: no disk in it */
    char *type_name;           /* property */
    struct device *controller; /* property */
    uint8_t unit;
    uint8_t type;                       /* enum floppy_type */
    const struct floppy_format *format; /* of the disk */
    uint8_t rate;                       /* at which it is recorded, as in the data rate registers */

    /* Guest-visible state. */
    uint8_t track; /* where the head is */
    bool changed;  /* the disk was, and the head has not moved since */
};

/* ---- drive.c ---- */

extern const struct device_class floppy_drive_class;

/* Move the head, up to where it can go. */
void floppy_step_to(struct floppy_drive *drive, unsigned track);
/* Which track of its disk is under the head. */
unsigned floppy_track(const struct floppy_drive *drive);
/* Is there a kind of disk with so many bytes? */
bool floppy_is_size(uint64_t size_bytes);
/* For the board's CMOS. */
enum floppy_type floppy_type(const struct device *drive);
/*
 * Take the disk out and put another one in (NULL: none). *out_old is the caller's again.
 * -EINVAL: the drive cannot read such a disk.
 */
int floppy_change(struct device *drive, struct block *medium, struct block **out_old,
                  struct error *err);

/* ---- controller.c ---- */

extern const struct device_class floppy_class;

/* Where the drive is connected: 0, 1; -ENOSPC. */
int floppy_connect(struct device *controller, struct floppy_drive *drive, struct error *err);
void floppy_disconnect(struct device *controller, struct floppy_drive *drive);
/* Are two drives there? */
bool floppy_is_full(const struct device *controller);
/* The drive's disk is about to go: what uses it ends. */
void floppy_disk_goes(struct device *controller, struct floppy_drive *drive);

enum floppy_phase { FLOPPY_COMMAND, FLOPPY_EXECUTING, FLOPPY_RESULT, FLOPPY_PHASES };

/* What a command that moves data does now. */
enum floppy_stage {
    FLOPPY_IDLE,
    FLOPPY_READING, /* the disk fills the buffer */
    FLOPPY_WRITING, /* and takes it */
    FLOPPY_MOVING,  /* the guest takes or fills it */
    FLOPPY_STAGES,
};

struct floppy_controller {
    struct device dev;

    /* Configuration. */
    struct device *dma; /* property */
    struct floppy_drive *drives[FLOPPY_DRIVES];

    /* Guest-visible state. */
    uint8_t dor, tdr, dsr; /* digital output, tape drive, data rate select */
    uint8_t phase;         /* enum floppy_phase */
    uint8_t command;
    uint8_t params[FLOPPY_MAX_PARAMS], param_count; /* with the command itself */
    uint8_t results[FLOPPY_MAX_RESULTS], result_count, result_at;
    uint8_t step_and_unload, load_and_mode; /* SPECIFY */
    uint8_t config, precompensation;        /* CONFIGURE */
    uint8_t perpendicular;
    bool locked;
    uint8_t cylinder[4]; /* PCN of each drive */
    uint8_t seeking;     /* drives whose seek has not been sensed, a bit each */
    uint8_t seek_status[4];
    bool seek_ended[4];
    uint8_t reset_senses; /* interrupts of a reset that were not sensed yet */
    bool interrupt;
    struct irq_line irq;
    struct timer timer; /* the end of seeks, or of a reset */
    /* of the command that moves data */
    uint8_t stage; /* enum floppy_stage */
    uint8_t id[4]; /* C, H, R, N */
    uint8_t head;
    bool ended;             /* terminal count was reached */
    bool one_by_one;        /* a sector of several could not be read: which? */
    uint8_t st1, st2;       /* what the end will say besides */
    uint16_t filled, moved; /* bytes of the buffer */
    uint8_t buffer[FLOPPY_TRACK_BYTES];

    /* Not state: nothing is under way when the machine is paused. */
    bool is_busy;
    struct block_request request;
    struct io_piece pieces[FLOPPY_TRACK_BYTES / BLOCK_SECTOR_BYTES];
};

/* ---- command.c ---- */

/* How many bytes follow a command's first. */
unsigned floppy_param_count(uint8_t command);
/* All parameters are there. */
void floppy_execute(struct floppy_controller *s);
/* The guest moves a byte of the buffer by itself (non-DMA mode). */
uint8_t floppy_take_byte(struct floppy_controller *s);
void floppy_give_byte(struct floppy_controller *s, uint8_t value);
bool floppy_is_write(const struct floppy_controller *s);
bool floppy_uses_dma(const struct floppy_controller *s);
isa_dma_ready_fn floppy_dma_ready;
/* What the disk does ends, unseen. */
void floppy_forget(struct floppy_controller *s);
/* What the disk could not do, which paused the machine, is begun again by floppy_resume(). */
void floppy_postpone(struct device *controller);
/* Begin again what a saved state or a pause left to do. */
void floppy_resume(struct floppy_controller *s);
/* The command ends without success: interrupt code 01 and these bits. */
void floppy_fail(struct floppy_controller *s, uint8_t st1, uint8_t st2);
void floppy_reset_commands(struct floppy_controller *s, bool is_hard);
/* results are there, or the command has none: what is next. */
void floppy_begin_results(struct floppy_controller *s);
/* Ask for the DMA channel, if there is something to move and the gate is open. */
void floppy_offer(struct floppy_controller *s);
/* -EINVAL: no command gets into that state. */
int floppy_check_transfer(const struct floppy_controller *s, struct error *err);

/* controller.c */
void floppy_interrupt(struct floppy_controller *s, bool level);

static inline struct floppy_controller *floppy_of(struct device *dev)
{
    return container_of(dev, struct floppy_controller, dev);
}

#endif
