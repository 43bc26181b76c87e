/*
 * nvme.h - what the files of the NVMe controller share
 *
 * NVM Express 1.4, "the specification" below. controller.c has the registers, queue.c the queues,
 * data.c finds the memory of a command, admin.c, features.c, identify.c and log.c execute admin
 * commands, io.c those of the NVM command set.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_NVME_NVME_H
#define DEVICES_NVME_NVME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/block.h"
#include "trapeze/io_piece.h"
#include "trapeze/pci.h"

#define NVME_MAX_QUEUES     33u /* with the admin queue */
#define NVME_QUEUE_SIZE     256u
#define NVME_COMMAND_BYTES  64u
#define NVME_ENTRY_BYTES    16u /* of a completion queue */
#define NVME_PAGE           4096u
#define NVME_MDTS           8u /* 2^8 pages */
#define NVME_MAX_TRANSFER   (NVME_PAGE << NVME_MDTS)
#define NVME_MAX_PIECES     ((1u << NVME_MDTS) + 1)
#define NVME_MAX_RANGES     256u /* of Dataset Management */
#define NVME_MAX_EVENTS     4u   /* Asynchronous Event Requests */
#define NVME_ERROR_LOG      16u  /* entries */
#define NVME_VERSION        0x00010400u
#define NVME_ALL_NAMESPACES 0xffffffffu
#define NVME_TEMPERATURE_K  310u
#define NVME_VENDOR_ID      0x1b36u
#define NVME_SUBSYSTEM_ID   0x1af4u /* its vendor */
#define NVME_SERIAL_BYTES   20u

/* CC and CSTS (3.1.5, 3.1.6). */
#define NVME_CC_ENABLE      0x1u
#define NVME_CC_SHUTDOWN    0xc000u
#define NVME_CSTS_READY     0x01u
#define NVME_CSTS_FATAL     0x02u
#define NVME_CSTS_SHUTDOWN  0x0cu
#define NVME_CSTS_OCCURRING 0x04u
#define NVME_CSTS_COMPLETE  0x08u
#define NVME_CSTS_NSSRO     0x10u

/* Status: its type and its code (4.6.1). Do-not-retry is added when it is posted. */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_TRANSFER_ERROR = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_ABORT_REQUESTED = 0x007,
    NVME_ABORTED_WITH_QUEUE = 0x008,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_SEQUENCE_ERROR = 0x00c,
    NVME_INVALID_SGL_SEGMENT = 0x00d,
    NVME_TOO_MANY_SGLS = 0x00e,
    NVME_SGL_LENGTH = 0x00f,
    NVME_SGL_TYPE = 0x011,
    NVME_PRP_OFFSET = 0x013,
    NVME_WRITE_PROTECTED = 0x020,
    NVME_LBA_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_CQ_INVALID = 0x100,
    NVME_QUEUE_ID = 0x101,
    NVME_QUEUE_SIZE_INVALID = 0x102,
    NVME_EVENT_LIMIT = 0x105,
    NVME_VECTOR_INVALID = 0x108,
    NVME_LOG_PAGE = 0x109,
    NVME_QUEUE_DELETION = 0x10c,
    NVME_NOT_SAVEABLE = 0x10d,
    NVME_NOT_CHANGEABLE = 0x10e,
    NVME_NOT_NS_SPECIFIC = 0x10f,
    NVME_WRITE_FAULT = 0x280,
    NVME_READ_ERROR = 0x281,
    NVME_COMPARE_FAILURE = 0x285,
    NVME_STARTED = 0xffff, /* of an execute function: the command has ended, or will */
};

struct nvme_sq {
    bool valid;
    uint64_t gpa;
    uint16_t size, head, tail, cq;

    uint8_t *ram; /* rebuilt on load, as long as it is valid */
};

struct nvme_cq {
    bool valid, phase, interrupts;
    uint64_t gpa;
    uint16_t size, head, tail, vector;

    /* Rebuilt on load. */
    uint8_t *ram;
    uint16_t under_way; /* commands that will be posted here: there is room for them */
    bool starved;       /* a submission queue waits for room */
};

/* Types of asynchronous events (5.2), which are masked from being reported to their log's being
 * read. */
enum { NVME_EVENT_ERROR, NVME_EVENT_SMART, NVME_EVENT_TYPES };

struct nvme_event {
    bool pending, masked;
    uint8_t info;
};

struct nvme_error_entry {
    uint64_t count, lba;
    uint32_t nsid;
    uint16_t sq, cid, status;
};

struct nvme_features {
    uint32_t arbitration, error_recovery, coalescing, async_events;
    uint16_t over_k, under_k; /* temperature thresholds */
    bool write_cache;
    bool write_atomicity; /* normal atomicity is not wanted */
    bool no_coalescing[NVME_MAX_QUEUES];
};

struct nvme_counters {
    uint64_t reads, writes, read_sectors, written_sectors, media_errors, errors;
};

struct nvme_command {
    uint8_t opcode, flags;
    uint16_t cid;
    uint32_t nsid;
    uint8_t data[16];   /* PRP entries or an SGL descriptor */
    uint32_t dword[16]; /* of all of it; 10 to 15 are used */
};

/* One that was under way when the machine was paused, and failed; it is executed anew. */
struct nvme_kept {
    uint16_t sq;
    struct nvme_command command;
};

struct nvme;

struct nvme_request {
    struct block_request block;
    struct nvme *s;
    struct nvme_request *next; /* in s->spare */
    struct nvme_command command;
    uint16_t sq;
    bool flush_after;
    uint32_t result;
    uint8_t *buffer; /* of Compare and Dataset Management; freed when it ends */
    unsigned range, range_count;
    struct io_piece whole; /* buffer as a piece */
    unsigned piece_count;
    struct io_piece pieces[NVME_MAX_PIECES];
};

struct nvme {
    struct pci_function function;

    /* Configuration. */
    struct block *drive;  /* property */
    char *serial;         /* property; "": the device's id */
    uint16_t queues;      /* property; 0: one for each processor */
    unsigned queue_count; /* with the admin queue */

    /* Guest-visible state. */
    uint32_t cc, csts, aqa, interrupt_mask;
    uint64_t asq, acq;
    struct nvme_sq sq[NVME_MAX_QUEUES];
    struct nvme_cq cq[NVME_MAX_QUEUES];
    struct nvme_features features;
    struct nvme_event events[NVME_EVENT_TYPES];
    uint16_t event_requests[NVME_MAX_EVENTS]; /* command identifiers */
    uint8_t event_request_count;
    struct nvme_error_entry error_log[NVME_ERROR_LOG]; /* newest first */
    struct nvme_counters counters;
    struct state_list kept; /* of struct nvme_kept; while the machine is paused */

    uint64_t news; /* a bit for each queue that interrupts */
    bool batching; /* interrupts wait until the whole queue was looked at */
    struct nvme_request *spare;
    struct block_request shutdown; /* its flush */
    bool is_flushing;              /* shutdown is under way */
};

static inline struct nvme *nvme_of(struct device *dev)
{
    return container_of(dev, struct nvme, function.dev);
}

static inline const char *nvme_serial(const struct nvme *s)
{
    return *s->serial ? s->serial : s->function.dev.id;
}

/* Commands are taken. */
static inline bool nvme_is_running(const struct nvme *s)
{
    return (s->csts & (NVME_CSTS_READY | NVME_CSTS_FATAL | NVME_CSTS_SHUTDOWN)) == NVME_CSTS_READY;
}

/* ---- controller.c ---- */

/* It cannot go on until it is reset; why is logged. */
void nvme_fail(struct nvme *s, const char *why);

/* ---- queue.c ---- */

/* Find the queue's memory. False: it is not in RAM. */
bool nvme_map_sq(struct nvme *s, struct nvme_sq *sq);
bool nvme_map_cq(struct nvme *s, struct nvme_cq *cq);
/* Execute what is in a queue, or in all of them. */
void nvme_run_queue(struct nvme *s, unsigned sq);
void nvme_run_queues(struct nvme *s);
void nvme_write_tail(struct nvme *s, unsigned sq, uint32_t value);
void nvme_write_head(struct nvme *s, unsigned cq, uint32_t value);
/* The request is not the caller's any more. */
void nvme_complete(struct nvme_request *r, uint16_t status);
/* Drop it: it is completed later, by another way. */
void nvme_forget(struct nvme_request *r);
/* In quiesce: r, which the disk gave back, becomes one of s->kept. False: out of memory. */
bool nvme_keep(struct nvme_request *r);
/* In resume: execute them. */
void nvme_execute_kept(struct nvme *s);
/* Are all of them commands of queues that have room for their ends? */
bool nvme_kept_is_consistent(const struct nvme *s);
/* Complete one of sq's commands that is no request any more; there must be room. */
void nvme_post(struct nvme *s, unsigned sq, uint16_t cid, uint32_t result, uint16_t status);
bool nvme_has_room(const struct nvme_cq *cq);
void nvme_notify(struct nvme *s);
/* What the interrupt pin has to be: down while there are messages. */
bool nvme_intx_level(const struct nvme *s);
void nvme_update_intx(struct nvme *s);

/* ---- data.c ---- */

/* The memory that a command transfers size_bytes with becomes r->pieces. */
uint16_t nvme_map_data(struct nvme_request *r, uint64_t size_bytes);
void nvme_copy_to_guest(struct nvme_request *r, const void *data, size_t size_bytes);
void nvme_copy_from_guest(const struct nvme_request *r, void *out, size_t size_bytes);
bool nvme_equals_guest(const struct nvme_request *r, const uint8_t *data);
/* The device has written all pieces. */
void nvme_mark_written(const struct nvme_request *r);

/* ---- commands; they return a status, or NVME_STARTED ---- */

uint16_t nvme_execute_admin(struct nvme_request *r);
uint16_t nvme_execute_io(struct nvme_request *r);
/* The command that a request to the disk is for. NULL: it is the flush of a shutdown. */
struct nvme_request *nvme_request_of(struct block_request *block);
/* Wait until no command of a submission queue is under way; what has not begun is aborted. */
void nvme_drain_queue(struct nvme *s, unsigned sq);
uint16_t nvme_identify(struct nvme_request *r);
uint64_t nvme_eui64(const struct nvme *s); /* of its namespace */
uint16_t nvme_get_log_page(struct nvme_request *r);
uint16_t nvme_get_features(struct nvme_request *r);
uint16_t nvme_set_features(struct nvme_request *r);
void nvme_reset_features(struct nvme *s);
bool nvme_has_write_cache(const struct nvme *s); /* if its disk is not written through */
uint8_t nvme_critical_warning(const struct nvme *s);

/* An event has happened; the guest is told if it asks. */
void nvme_raise_event(struct nvme *s, unsigned type, uint8_t info);
void nvme_send_events(struct nvme *s);
void nvme_log_error(struct nvme *s, const struct nvme_request *r, uint16_t status);

#endif
