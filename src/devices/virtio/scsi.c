/*
 * scsi.c - virtio SCSI host bus adapter with one disk
 *
 * The specification, 5.6: a control queue, an event queue, and a request queue for each processor.
 * The disk is unit 0 of target 0; what it does is scsi/disk.c's. Requests end in any order.
 *
 * Left out: bidirectional commands, protection information, events (nothing changes the disk).
 *
 * Threads: machine lock held. Guest memory: DMA into and out of what chains name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/spares.h"
#include "devices/devices.h"
#include "devices/scsi/scsi.h"
#include "devices/virtio/transport_pci.h"
#include "trapeze/machine.h"

#define ID_SCSI        8
#define PCI_CLASS_SCSI 0x010000

#define CONTROL_QUEUE  0u
#define REQUEST_QUEUES 2u                /* the first */
#define MAX_REQUESTS   VIRTIO_QUEUE_SIZE /* started by one kick */
#define MAX_SECTORS    0xffffu

/* struct virtio_scsi_config (5.6.4). */
enum config_field {
    CONFIG_NUM_QUEUES = 0,
    CONFIG_SEG_MAX = 4,
    CONFIG_MAX_SECTORS = 8,
    CONFIG_CMD_PER_LUN = 12,
    CONFIG_EVENT_BYTES = 16,
    CONFIG_SENSE_BYTES = 20,
    CONFIG_CDB_BYTES = 24,
    CONFIG_MAX_CHANNEL = 28,
    CONFIG_MAX_TARGET = 30,
    CONFIG_MAX_LUN = 32,
    CONFIG_BYTES = 36,
};
#define EVENT_BYTES   16u
#define DEFAULT_SENSE 96u
#define DEFAULT_CDB   32u

#define LUN_BYTES     8u
#define REQUEST_BYTES 19u /* lun, tag, three bytes; the command follows */
#define RESPONSE_BYTES                                                                             \
    12u /* sense length, residual, qualifier, status, response; sense follows                      \
         */
#define RESPONSE_STATUS   10u
#define RESPONSE_RESPONSE 11u

enum response {
    OK = 0,
    OVERRUN = 1,
    ABORTED = 2,
    BAD_TARGET = 3,
    RESET = 4,
    FAILURE = 9,
    FUNCTION_SUCCEEDED = 10,
    FUNCTION_REJECTED = 11,
    INCORRECT_LUN = 12,
};

enum control_type { TYPE_TMF = 0, TYPE_AN_QUERY = 1, TYPE_AN_SUBSCRIBE = 2 };
enum tmf {
    TMF_ABORT_TASK = 0,
    TMF_ABORT_TASK_SET = 1,
    TMF_CLEAR_TASK_SET = 3,
    TMF_NEXUS_RESET = 4,
    TMF_UNIT_RESET = 5,
    TMF_QUERY_TASK = 6,
    TMF_QUERY_TASK_SET = 7,
};

/* Where an 8-byte LUN leads (5.6.6.1). */
enum place { UNIT, NO_UNIT, NO_TARGET };

struct hba_request {
    struct scsi_request scsi;
    struct virtio_scsi *hba;
    struct virtqueue *queue;
    struct hba_request *next, **at; /* in hba->tasks */
    uint64_t tag;
    struct virtio_chain chain;
};

struct virtio_scsi {
    struct virtio_pci pci;
    struct virtio_device virtio;

    /* Configuration. */
    struct block *drive; /* property */
    char *serial;        /* property */
    uint16_t queues;     /* property; 0: one for each processor */

    /* Guest-visible state. */
    struct scsi_disk disk;
    uint32_t sense_bytes, cdb_bytes; /* as the guest sets them */

    bool kicking;              /* interrupts wait until the whole queue was looked at */
    struct hba_request *tasks; /* under way */
    enum response canceled_as;
    struct spare *spares; /* requests that nobody uses */
};

static struct virtio_scsi *hba_of(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_scsi, virtio);
}

static enum place place_of(const uint8_t lun[LUN_BYTES])
{
    static const uint8_t unit0[6];

    if (lun[0] != 1 || lun[1] != 0)
        return NO_TARGET;
    return (lun[2] & 0xbf) == 0 && !memcmp(lun + 3, unit0 + 1, 5) ? UNIT : NO_UNIT;
}

/* ---- requests ---- */

static struct hba_request *take_request(struct virtio_scsi *s)
{
    struct hba_request *r = spares_take(&s->spares, sizeof(*r));

    if (r)
        r->hba = s;
    return r;
}

static void give_back(struct hba_request *r)
{
    spares_give_back(&r->hba->spares, r);
}

/* written_bytes: of data, behind response and sense. */
static void respond(struct hba_request *r, const uint8_t response[RESPONSE_BYTES],
                    uint64_t written_bytes)
{
    struct virtqueue *queue = r->queue;
    uint64_t head = RESPONSE_BYTES + r->hba->sense_bytes;

    virtio_chain_write(&r->chain, 0, response, RESPONSE_BYTES);
    virtqueue_push(queue, &r->chain, head + written_bytes);
    if (!r->hba->kicking)
        virtqueue_notify(queue);
    give_back(r);
}

static void fail(struct hba_request *r, enum response why)
{
    uint8_t response[RESPONSE_BYTES] = {0};

    response[RESPONSE_RESPONSE] = (uint8_t)why;
    respond(r, response, 0);
}

static void begin_task(struct hba_request *r)
{
    struct virtio_scsi *s = r->hba;

    r->at = &s->tasks;
    r->next = s->tasks;
    if (r->next)
        r->next->at = &r->next;
    s->tasks = r;
}

static void end_task(struct hba_request *r)
{
    *r->at = r->next;
    if (r->next)
        r->next->at = r->at;
}

static void request_done(struct scsi_request *scsi)
{
    struct hba_request *r = container_of(scsi, struct hba_request, scsi);
    uint8_t response[RESPONSE_BYTES] = {0};
    uint32_t sense =
        r->hba->sense_bytes < SCSI_SENSE_BYTES ? r->hba->sense_bytes : SCSI_SENSE_BYTES;

    end_task(r);
    if (scsi->overrun || scsi->canceled) {
        fail(r, scsi->overrun ? OVERRUN : r->hba->canceled_as);
        return;
    }
    if (scsi->status == SCSI_CHECK_CONDITION) {
        put_le32(response, sense);
        virtio_chain_write(&r->chain, RESPONSE_BYTES, scsi->sense, sense);
    }
    put_le32(response + 4, (uint32_t)(scsi->size_bytes - scsi->transferred_bytes));
    response[RESPONSE_STATUS] = scsi->status;
    respond(r, response, scsi->from_unit ? scsi->transferred_bytes : 0);
}

static const char *check_request(const struct virtio_scsi *s, const struct virtio_chain *chain)
{
    if (chain->out_bytes < REQUEST_BYTES + s->cdb_bytes ||
        chain->in_bytes < RESPONSE_BYTES + s->sense_bytes)
        return "a request without a command or room for a response";
    return chain->in_bytes > UINT32_MAX || chain->out_bytes > UINT32_MAX
               ? "a request of more than 4 GiB"
               : NULL;
}

/* Of a chain that was taken. */
static void start_request(struct hba_request *r)
{
    struct virtio_scsi *s = r->hba;
    struct scsi_request *scsi = &r->scsi;
    uint64_t out_head = REQUEST_BYTES + s->cdb_bytes, in_head = RESPONSE_BYTES + s->sense_bytes;
    uint64_t out = r->chain.out_bytes - out_head, in = r->chain.in_bytes - in_head;
    const char *wrong = check_request(s, &r->chain);
    uint8_t lun[LUN_BYTES], tag[8];

    if (wrong) {
        virtio_break(&s->virtio, wrong);
        give_back(r);
        return;
    }
    virtio_chain_read(&r->chain, 0, lun, sizeof(lun));
    virtio_chain_read(&r->chain, LUN_BYTES, tag, sizeof(tag));
    r->tag = get_le64(tag);
    if (place_of(lun) == NO_TARGET) {
        fail(r, BAD_TARGET);
        return;
    }
    if (out && in) { /* which was not agreed on */
        fail(r, FAILURE);
        return;
    }
    memset(scsi->cdb, 0, sizeof(scsi->cdb));
    virtio_chain_read(&r->chain, REQUEST_BYTES, scsi->cdb, s->cdb_bytes);
    scsi->is_unit = place_of(lun) == UNIT;
    scsi->from_unit = in;
    scsi->size_bytes = in ? in : out;
    scsi->piece_count =
        virtio_chain_pieces(&r->chain, in, in ? in_head : out_head, scsi->size_bytes, scsi->pieces);
    scsi->done = request_done;
    begin_task(r);
    scsi_disk_execute(&s->disk, scsi);
}

/* Of one that was not needed; NULL: there was none. */
static void end_taking(struct virtio_scsi *s, struct hba_request *r)
{
    if (r)
        give_back(r);
    else
        virtio_break(&s->virtio, "more than the host has memory for");
}

static void kick_requests(struct virtio_scsi *s, struct virtqueue *queue)
{
    struct hba_request *r;
    unsigned count = 0;

    s->kicking = true;
    while ((r = take_request(s)) && count < MAX_REQUESTS && virtqueue_pop(queue, &r->chain)) {
        count++;
        r->queue = queue;
        start_request(r);
    }
    end_taking(s, r);
    s->kicking = false;
    virtqueue_notify(queue);
    if (count == MAX_REQUESTS)
        virtio_kick_later(&s->virtio);
}

/* ---- control ---- */

static bool has_tag(const void *tag, const struct block_request *block)
{
    const struct scsi_request *scsi = container_of(block, struct scsi_request, block);

    return container_of(scsi, struct hba_request, scsi)->tag == *(const uint64_t *)tag;
}

/* tag: NULL for any. */
static uint8_t query_task(const struct virtio_scsi *s, const uint64_t *tag)
{
    for (const struct hba_request *r = s->tasks; r; r = r->next)
        if (!tag || r->tag == *tag)
            return FUNCTION_SUCCEEDED;
    return OK;
}

/*
 * Task management. What is under way is waited for, so that no task is left of those that were to
 * be aborted; what has not begun never does.
 */
static uint8_t manage_tasks(struct virtio_scsi *s, uint32_t what, const uint8_t lun[LUN_BYTES],
                            uint64_t tag)
{
    enum place place = place_of(lun);
    bool is_reset = what == TMF_UNIT_RESET || what == TMF_NEXUS_RESET;

    if (place == NO_TARGET)
        return BAD_TARGET;
    switch (what) {
    case TMF_ABORT_TASK:
    case TMF_ABORT_TASK_SET:
    case TMF_CLEAR_TASK_SET:
    case TMF_QUERY_TASK:
    case TMF_QUERY_TASK_SET:
    case TMF_UNIT_RESET:
        if (place == NO_UNIT)
            return INCORRECT_LUN;
        break;
    case TMF_NEXUS_RESET:
        break;
    default:
        return FUNCTION_REJECTED;
    }
    if (what == TMF_QUERY_TASK || what == TMF_QUERY_TASK_SET)
        return query_task(s, what == TMF_QUERY_TASK ? &tag : NULL);
    s->canceled_as = is_reset ? RESET : ABORTED;
    if (what == TMF_ABORT_TASK)
        block_drain_owner(s->drive, has_tag, &tag);
    else
        block_drain(s->drive);
    if (is_reset)
        scsi_disk_reset(&s->disk, SCSI_UNIT_RESET);
    return OK;
}

/* One control request; what its answer is. 0: it is none. */
static size_t control(struct virtio_scsi *s, const struct virtio_chain *chain, uint8_t answer[5])
{
    uint8_t request[24] = {0};
    size_t size = virtio_chain_read(chain, 0, request, sizeof(request));

    switch (get_le32(request)) {
    case TYPE_TMF: /* subtype, lun, tag */
        if (size < 24 || chain->in_bytes < 1)
            return 0;
        answer[0] = manage_tasks(s, get_le32(request + 4), request + 8, get_le64(request + 16));
        return 1;
    case TYPE_AN_QUERY: /* lun, events that are asked for: there are none */
    case TYPE_AN_SUBSCRIBE:
        if (size < 16 || chain->in_bytes < 5)
            return 0;
        answer[4] = place_of(request + 4) == NO_TARGET ? BAD_TARGET : OK;
        return 5;
    default:
        return 0;
    }
}

static void kick_control(struct virtio_scsi *s, struct virtqueue *queue)
{
    struct hba_request *r = take_request(s);

    for (unsigned n = 0; r && n < VIRTIO_QUEUE_SIZE && virtqueue_pop(queue, &r->chain); n++) {
        uint8_t answer[5] = {0};
        size_t size = control(s, &r->chain, answer);

        if (!size) {
            virtio_break(&s->virtio, "a control request that is none");
            break;
        }
        virtio_chain_write(&r->chain, 0, answer, size);
        virtqueue_push(queue, &r->chain, size);
    }
    if (r)
        give_back(r);
    virtqueue_notify(queue);
}

static void hba_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    unsigned index = (unsigned)(queue - virtio->queues);

    if (index == CONTROL_QUEUE)
        kick_control(hba_of(virtio), queue);
    else if (index >= REQUEST_QUEUES)
        kick_requests(hba_of(virtio), queue);
}

static void hba_forget(struct virtio_device *virtio)
{
    struct virtio_scsi *s = hba_of(virtio);

    s->canceled_as = RESET;
    if (s->drive)
        block_drain(s->drive);
    s->sense_bytes = DEFAULT_SENSE;
    s->cdb_bytes = DEFAULT_CDB;
    scsi_disk_reset(&s->disk, SCSI_POWER_ON);
}

/* ---- configuration ---- */

static void hba_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                            unsigned size)
{
    const struct virtio_scsi *s = hba_of(virtio);
    uint8_t c[CONFIG_BYTES] = {0};

    put_le32(c + CONFIG_NUM_QUEUES, virtio->queue_count - REQUEST_QUEUES);
    put_le32(c + CONFIG_SEG_MAX, VIRTIO_QUEUE_SIZE - 2);
    put_le32(c + CONFIG_MAX_SECTORS, MAX_SECTORS);
    put_le32(c + CONFIG_CMD_PER_LUN, VIRTIO_QUEUE_SIZE / 2);
    put_le32(c + CONFIG_EVENT_BYTES, EVENT_BYTES);
    put_le32(c + CONFIG_SENSE_BYTES, s->sense_bytes);
    put_le32(c + CONFIG_CDB_BYTES, s->cdb_bytes);
    memcpy(out, c + offset, size);
}

/* Before the driver begins; sizes that we have no room for stay as they are. */
static void hba_write_config(struct virtio_device *virtio, unsigned offset, const uint8_t *data,
                             unsigned size)
{
    struct virtio_scsi *s = hba_of(virtio);
    uint32_t value;

    if (size != 4 || virtio->status & VIRTIO_DRIVER_OK)
        return;
    value = get_le32(data);
    if (offset == CONFIG_SENSE_BYTES && value <= DEFAULT_SENSE)
        s->sense_bytes = value;
    else if (offset == CONFIG_CDB_BYTES && value <= DEFAULT_CDB)
        s->cdb_bytes = value;
}

static const struct virtio_ops hba_ops = {
    .id = ID_SCSI,
    .config_bytes = CONFIG_BYTES,
    .read_config = hba_read_config,
    .write_config = hba_write_config,
    .kick = hba_kick,
    .reset = hba_forget,
};

/* ---- lifecycle ---- */

static struct virtio_scsi *hba_of_device(struct device *dev)
{
    return container_of(dev, struct virtio_scsi, pci.function.dev);
}

static int hba_attach(struct device *dev, struct error *err)
{
    struct virtio_scsi *s = hba_of_device(dev);
    unsigned queues = s->queues ? s->queues : machine_vcpu_count(dev->machine);

    if (!s->drive)
        return error_set(err, EINVAL, "%s: it has no disk; use --disk FILE", dev->id);
    if (strlen(s->serial) > SCSI_MAX_SERIAL)
        return error_set(err, EINVAL, "%s: serial=%s is longer than %u characters", dev->id,
                         s->serial, SCSI_MAX_SERIAL);
    if (queues > VIRTIO_MAX_QUEUES - REQUEST_QUEUES)
        return error_set(err, EINVAL, "%s: queues=%u: there can be up to %u", dev->id, queues,
                         VIRTIO_MAX_QUEUES - REQUEST_QUEUES);
    s->disk = (struct scsi_disk){
        .drive = s->drive,
        .serial = *s->serial ? s->serial : dev->id,
    };
    s->virtio = (struct virtio_device){
        .ops = &hba_ops,
        .transport = &virtio_pci_transport,
        .dev = dev,
        .queue_count = REQUEST_QUEUES + queues,
    };
    virtio_init(&s->virtio);
    hba_forget(&s->virtio);
    return virtio_pci_attach(&s->pci, &s->virtio, PCI_CLASS_SCSI, err);
}

static void hba_detach(struct device *dev)
{
    struct virtio_scsi *s = hba_of_device(dev);

    virtio_pci_detach(&s->pci);
    spares_free(&s->spares);
}

static void hba_reset(struct device *dev)
{
    virtio_pci_reset(&hba_of_device(dev)->pci);
}

static void hba_quiesce(struct device *dev)
{
    struct virtio_scsi *s = hba_of_device(dev);
    struct block_request *kept;
    int status;

    block_quiesce(s->drive);
    while ((kept = block_take_kept(s->drive, &status))) {
        struct hba_request *r = container_of(scsi_of_kept(kept), struct hba_request, scsi);

        if (!virtio_keep(r->queue, &r->chain)) {
            kept->done(kept, status);
            continue;
        }
        end_task(r);
        scsi_forget(&r->scsi);
        give_back(r);
    }
}

static void hba_resume(struct device *dev)
{
    struct virtio_scsi *s = hba_of_device(dev);
    struct hba_request *r;
    unsigned at = 0;

    while ((r = take_request(s)) && virtio_take_kept(&s->virtio, &at, &r->queue, &r->chain))
        start_request(r);
    end_taking(s, r);
}

static void hba_boot_path(struct device *dev, char *out, size_t size)
{
    pci_boot_path(&hba_of_device(dev)->pci.function, "scsi", "/channel@0/disk@0,0", out, size);
}

static int hba_after_load(void *object, struct error *err)
{
    return virtio_pci_after_load(&((struct virtio_scsi *)object)->pci, err);
}

static const struct property hba_properties[] = {
    VIRTIO_PCI_PROPERTIES(struct virtio_scsi, pci),
    PROPERTY_POINTER(struct virtio_scsi, drive, "disk"),
    PROPERTY_STRING(struct virtio_scsi, serial, "", "serial number, up to 20 characters"),
    PROPERTY_U16(struct virtio_scsi, queues, 0,
                 "request queues, up to 31; 0: one for each processor"),
    PROPERTY_END,
};

static const struct state_field hba_state[] = {
    STATE_STRUCT(struct virtio_scsi, pci, virtio_pci_state),
    VIRTIO_STATE(struct virtio_scsi, virtio),
    SCSI_DISK_STATE(struct virtio_scsi, disk),
    STATE_U32_MAX(struct virtio_scsi, sense_bytes, DEFAULT_SENSE),
    STATE_U32_MAX(struct virtio_scsi, cdb_bytes, DEFAULT_CDB),
    STATE_END,
};

const struct device_class virtio_scsi_class = {
    .name = "virtio-scsi",
    .summary = "SCSI disk on virtio on PCI",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct virtio_scsi),
    .properties = hba_properties,
    .attach = hba_attach,
    .reset = hba_reset,
    .detach = hba_detach,
    .quiesce = hba_quiesce,
    .resume = hba_resume,
    .boot_path = hba_boot_path,
    .state = {.version = 1, .oldest = 1, .fields = hba_state, .after_load = hba_after_load},
};
