/*
 * admin.c - admin commands for queues, and asynchronous events
 *
 * The specification, 5.1 to 5.6. All commands end at once, but for Asynchronous Event Requests: of
 * these the identifiers are kept until there is something to tell.
 */
#include "base/bytes.h"
#include "devices/nvme/nvme.h"
#include "trapeze/machine.h"

#define FLAGS_FUSED        0x03u
#define FLAGS_SGL          0xc0u
#define QUEUE_CONTIGUOUS   0x1u
#define QUEUE_INTERRUPTS   0x2u
#define CC_IOSQES(cc)      ((cc) >> 16 & 0xf)
#define CC_IOCQES(cc)      ((cc) >> 20 & 0xf)
#define COMMAND_SIZE_POWER 6u
#define ENTRY_SIZE_POWER   4u
#define NOT_ABORTED        1u
#define LOG_OF_ERRORS      1u
#define LOG_SMART          2u

/* ---- queues ---- */

static bool is_new_queue(const struct nvme *s, unsigned id, bool exists)
{
    return id && id < s->queue_count && !exists;
}

static uint16_t check_new_queue(const struct nvme_request *r, unsigned size, bool entries_fit)
{
    if (size < 2 || size > NVME_QUEUE_SIZE || !entries_fit)
        return NVME_QUEUE_SIZE_INVALID;
    if (get_le64(r->command.data) % NVME_PAGE)
        return NVME_PRP_OFFSET;
    return r->command.dword[11] & QUEUE_CONTIGUOUS ? NVME_OK : NVME_INVALID_FIELD;
}

static uint16_t create_cq(struct nvme_request *r)
{
    struct nvme *s = r->s;
    unsigned id = r->command.dword[10] & 0xffff, size = (r->command.dword[10] >> 16) + 1;
    struct nvme_cq cq = {
        .valid = true,
        .phase = true,
        .interrupts = r->command.dword[11] & QUEUE_INTERRUPTS,
        .gpa = get_le64(r->command.data),
        .size = (uint16_t)size,
        .vector = (uint16_t)(r->command.dword[11] >> 16),
    };
    uint16_t status = check_new_queue(r, size, CC_IOCQES(s->cc) == ENTRY_SIZE_POWER);

    if (!is_new_queue(s, id, id < s->queue_count && s->cq[id].valid))
        return NVME_QUEUE_ID;
    if (status)
        return status;
    if (cq.vector >= s->function.desc.msix_vectors)
        return NVME_VECTOR_INVALID;
    if (!nvme_map_cq(s, &cq))
        return NVME_TRANSFER_ERROR;
    s->cq[id] = cq;
    return NVME_OK;
}

static uint16_t create_sq(struct nvme_request *r)
{
    struct nvme *s = r->s;
    unsigned id = r->command.dword[10] & 0xffff, size = (r->command.dword[10] >> 16) + 1;
    unsigned cq = r->command.dword[11] >> 16;
    struct nvme_sq sq = {
        .valid = true,
        .gpa = get_le64(r->command.data),
        .size = (uint16_t)size,
        .cq = (uint16_t)cq,
    };
    uint16_t status = check_new_queue(r, size, CC_IOSQES(s->cc) == COMMAND_SIZE_POWER);

    if (!cq || cq >= s->queue_count)
        return NVME_QUEUE_ID;
    if (!s->cq[cq].valid)
        return NVME_CQ_INVALID;
    if (!is_new_queue(s, id, id < s->queue_count && s->sq[id].valid))
        return NVME_QUEUE_ID;
    if (status)
        return status;
    if (!nvme_map_sq(s, &sq))
        return NVME_TRANSFER_ERROR;
    s->sq[id] = sq;
    return NVME_OK;
}

/* Its commands end first. */
static uint16_t delete_sq(struct nvme_request *r)
{
    struct nvme *s = r->s;
    unsigned id = r->command.dword[10] & 0xffff;

    if (!id || id >= s->queue_count || !s->sq[id].valid)
        return NVME_QUEUE_ID;
    nvme_drain_queue(s, id);
    s->sq[id] = (struct nvme_sq){0};
    return NVME_OK;
}

static uint16_t delete_cq(struct nvme_request *r)
{
    struct nvme *s = r->s;
    unsigned id = r->command.dword[10] & 0xffff;

    if (!id || id >= s->queue_count || !s->cq[id].valid)
        return NVME_QUEUE_ID;
    for (unsigned n = 0; n < s->queue_count; n++)
        if (s->sq[n].valid && s->sq[n].cq == id)
            return NVME_QUEUE_DELETION;
    s->news &= ~(1ull << id);
    s->cq[id] = (struct nvme_cq){0};
    nvme_update_intx(s);
    return NVME_OK;
}

/* ---- events ---- */

/* Tell of what is pending, if the guest waits for it; it is masked until its log is read. */
void nvme_send_events(struct nvme *s)
{
    static const uint8_t logs[NVME_EVENT_TYPES] = {LOG_OF_ERRORS, LOG_SMART};

    if (!nvme_is_running(s))
        return;
    for (unsigned type = 0; type < NVME_EVENT_TYPES; type++) {
        struct nvme_event *event = &s->events[type];

        if (!event->pending || event->masked || !s->event_request_count ||
            !nvme_has_room(&s->cq[0]))
            continue;
        event->pending = false;
        event->masked = true;
        s->event_request_count--;
        nvme_post(s, 0, s->event_requests[s->event_request_count],
                  type | (uint32_t)event->info << 8 | (uint32_t)logs[type] << 16, NVME_OK);
    }
    if (!s->batching)
        nvme_notify(s);
}

void nvme_raise_event(struct nvme *s, unsigned type, uint8_t info)
{
    s->events[type].pending = true;
    s->events[type].info = info;
    nvme_send_events(s);
}

static uint16_t request_event(struct nvme_request *r)
{
    struct nvme *s = r->s;

    if (s->event_request_count == NVME_MAX_EVENTS)
        return NVME_EVENT_LIMIT;
    s->event_requests[s->event_request_count++] = r->command.cid;
    nvme_forget(r);
    nvme_send_events(s);
    return NVME_STARTED;
}

/* What is on its way to the disk cannot be stopped, but a request for an event can. */
static uint16_t abort_command(struct nvme_request *r)
{
    struct nvme *s = r->s;
    unsigned sq = r->command.dword[10] & 0xffff, cid = r->command.dword[10] >> 16;

    r->result = NOT_ABORTED;
    if (sq >= s->queue_count || !s->sq[sq].valid)
        return NVME_INVALID_FIELD;
    for (unsigned n = 0; sq == 0 && n < s->event_request_count; n++) {
        if (s->event_requests[n] != cid || !nvme_has_room(&s->cq[0]))
            continue;
        s->event_requests[n] = s->event_requests[--s->event_request_count];
        nvme_post(s, 0, (uint16_t)cid, 0, NVME_ABORT_REQUESTED);
        r->result = 0;
        break;
    }
    return NVME_OK;
}

/* ---- all commands ---- */

static const struct {
    uint8_t opcode;
    uint16_t (*execute)(struct nvme_request *r);
} commands[] = {
    {0x00, delete_sq},     {0x01, create_sq},         {0x02, nvme_get_log_page},
    {0x04, delete_cq},     {0x05, create_cq},         {0x06, nvme_identify},
    {0x08, abort_command}, {0x09, nvme_set_features}, {0x0a, nvme_get_features},
    {0x0c, request_event},
};

uint16_t nvme_execute_admin(struct nvme_request *r)
{
    for (unsigned n = 0; n < sizeof(commands) / sizeof(commands[0]); n++) {
        if (commands[n].opcode != r->command.opcode)
            continue;
        if (r->command.flags & (FLAGS_FUSED | FLAGS_SGL)) /* over PCI they have PRPs */
            return NVME_INVALID_FIELD;
        return commands[n].execute(r);
    }
    return NVME_INVALID_OPCODE;
}
