/*
 * queue.c - submission and completion queues, and interrupts
 *
 * The specification, 4.1 and 7.5. A command is only taken when its completion queue has room for it
 * and for all that are under way, so no completion ever waits. Queues are in RAM, which does not
 * move, so their addresses are looked up once.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/nvme/nvme.h"

#define STATUS_NO_RETRY  0x4000u

#define EVENT_BAD_QUEUE  0u /* information of error events: doorbells (5.2) */
#define EVENT_BAD_TARGET 1u

static struct memory *memory_of(struct nvme *s)
{
    return device_memory(&s->function.dev);
}

bool nvme_map_sq(struct nvme *s, struct nvme_sq *sq)
{
    sq->ram = memory_pin(memory_of(s), sq->gpa, (size_t)sq->size * NVME_COMMAND_BYTES);
    return sq->ram;
}

bool nvme_map_cq(struct nvme *s, struct nvme_cq *cq)
{
    cq->ram = memory_pin(memory_of(s), cq->gpa, (size_t)cq->size * NVME_ENTRY_BYTES);
    cq->under_way = 0;
    cq->starved = true;
    return cq->ram;
}

static unsigned used_entries(const struct nvme_cq *cq)
{
    return (unsigned)(cq->tail + cq->size - cq->head) % cq->size;
}

bool nvme_has_room(const struct nvme_cq *cq)
{
    return used_entries(cq) + cq->under_way < cq->size - 1u;
}

/* ---- interrupts ---- */

static bool is_masked(const struct nvme *s, unsigned vector)
{
    return vector < 32 && s->interrupt_mask >> vector & 1;
}

/* The pin stays up while a queue has entries that the guest has not taken (7.5.1.1). */
bool nvme_intx_level(const struct nvme *s)
{
    bool level = false;

    if (pci_uses_messages(&s->function))
        return false;
    for (unsigned n = 0; n < s->queue_count; n++) {
        const struct nvme_cq *cq = &s->cq[n];

        level |= cq->valid && cq->interrupts && cq->head != cq->tail && !is_masked(s, cq->vector);
    }
    return level;
}

void nvme_update_intx(struct nvme *s)
{
    pci_set_intx(&s->function, nvme_intx_level(s));
}

void nvme_notify(struct nvme *s)
{
    uint64_t news = s->news;

    if (!news)
        return;
    s->news = 0;
    if (!pci_uses_messages(&s->function)) {
        nvme_update_intx(s);
        return;
    }
    for (; news; news &= news - 1) {
        const struct nvme_cq *cq = &s->cq[__builtin_ctzll(news)];

        if (!is_masked(s, cq->vector))
            pci_notify(&s->function, cq->vector);
    }
}

/* ---- completion ---- */

/* The half with the phase tag is written last, and at once. */
void nvme_post(struct nvme *s, unsigned sq, uint16_t cid, uint32_t result, uint16_t status)
{
    unsigned index = s->sq[sq].cq;
    struct nvme_cq *cq = &s->cq[index];
    uint8_t *entry = cq->ram + cq->tail * NVME_ENTRY_BYTES;
    uint64_t field = status ? status | STATUS_NO_RETRY : 0;

    if (!(s->csts & NVME_CSTS_READY))
        return;
    ram_store64(entry, result);
    ram_atomic_store64(entry + 8, s->sq[sq].head | (uint64_t)sq << 16 | (uint64_t)cid << 32 |
                                      (field << 1 | cq->phase) << 48);
    memory_unpin(memory_of(s), entry, NVME_ENTRY_BYTES);
    cq->tail++;
    if (cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    if (cq->interrupts)
        s->news |= 1ull << index;
}

static struct nvme_request *take_request(struct nvme *s)
{
    struct nvme_request *r = s->spare;

    if (r)
        s->spare = r->next;
    else
        r = malloc(sizeof(*r));
    return r;
}

void nvme_forget(struct nvme_request *r)
{
    struct nvme *s = r->s;

    s->cq[s->sq[r->sq].cq].under_way--;
    free(r->buffer);
    r->next = s->spare;
    s->spare = r;
}

void nvme_complete(struct nvme_request *r, uint16_t status)
{
    struct nvme *s = r->s;

    if (status)
        nvme_log_error(s, r, status);
    nvme_post(s, r->sq, r->command.cid, r->result, status);
    nvme_forget(r);
    if (!s->batching)
        nvme_notify(s);
}

/* ---- submission ---- */

static void load_command(struct nvme_command *command, const uint8_t *ram)
{
    uint8_t bytes[NVME_COMMAND_BYTES];

    ram_copy(bytes, ram, sizeof(bytes));
    command->opcode = bytes[0];
    command->flags = bytes[1];
    command->cid = get_le16(bytes + 2);
    command->nsid = get_le32(bytes + 4);
    memcpy(command->data, bytes + 24, sizeof(command->data));
    for (unsigned n = 0; n < 16; n++)
        command->dword[n] = get_le32(bytes + 4 * n);
}

/* r->command is one of queue index. */
static void execute(struct nvme *s, unsigned index, struct nvme_request *r)
{
    uint16_t status;

    r->s = s;
    r->sq = (uint16_t)index;
    r->flush_after = false;
    r->result = 0;
    r->buffer = NULL;
    r->piece_count = 0;
    s->cq[s->sq[index].cq].under_way++;
    status = index ? nvme_execute_io(r) : nvme_execute_admin(r);
    if (status != NVME_STARTED)
        nvme_complete(r, status);
}

static void execute_next(struct nvme *s, unsigned index, struct nvme_request *r)
{
    struct nvme_sq *sq = &s->sq[index];

    load_command(&r->command, sq->ram + sq->head * NVME_COMMAND_BYTES);
    sq->head = (uint16_t)((sq->head + 1) % sq->size);
    execute(s, index, r);
}

void nvme_run_queue(struct nvme *s, unsigned index)
{
    struct nvme_sq *sq = &s->sq[index];
    struct nvme_cq *cq = &s->cq[sq->cq];

    if (!nvme_is_running(s) || !sq->valid || !pci_is_master(&s->function))
        return;
    s->batching = true;
    while (sq->head != sq->tail && nvme_is_running(s)) {
        struct nvme_request *r;

        if (!nvme_has_room(cq)) {
            cq->starved = true;
            break;
        }
        r = take_request(s);
        if (!r) {
            nvme_fail(s, "the host has no memory for its commands");
            break;
        }
        execute_next(s, index, r);
    }
    s->batching = false;
    nvme_notify(s);
}

void nvme_run_queues(struct nvme *s)
{
    for (unsigned n = 0; n < s->queue_count; n++)
        nvme_run_queue(s, n);
}

/* ---- commands that are kept while the machine is paused ---- */

bool nvme_keep(struct nvme_request *r)
{
    struct nvme_kept *kept = state_list_add(&r->s->kept, sizeof(*kept));

    if (!kept)
        return false;
    *kept = (struct nvme_kept){.sq = r->sq, .command = r->command};
    nvme_forget(r);
    return true;
}

void nvme_execute_kept(struct nvme *s)
{
    const struct nvme_kept *kept = s->kept.elements;

    for (unsigned n = 0; n < s->kept.count; n++) {
        struct nvme_request *r = take_request(s);

        if (!r) {
            nvme_fail(s, "the host has no memory for its commands");
            break;
        }
        r->command = kept[n].command;
        execute(s, kept[n].sq, r);
    }
    s->kept.count = 0;
}

bool nvme_kept_is_consistent(const struct nvme *s)
{
    const struct nvme_kept *kept = s->kept.elements;
    unsigned counts[NVME_MAX_QUEUES] = {0};

    for (unsigned n = 0; n < s->kept.count; n++) {
        const struct nvme_sq *sq = &s->sq[kept[n].sq];
        const struct nvme_cq *cq = &s->cq[sq->cq];

        if (!kept[n].sq || !sq->valid || used_entries(cq) + ++counts[sq->cq] > cq->size - 1u)
            return false;
    }
    return true;
}

/* ---- doorbells ---- */

/* True if the doorbell is a queue's. */
static bool check_doorbell(struct nvme *s, bool valid)
{
    if (!nvme_is_running(s))
        return false;
    if (!valid) {
        nvme_raise_event(s, NVME_EVENT_ERROR, EVENT_BAD_QUEUE);
        return false;
    }
    return true;
}

void nvme_write_tail(struct nvme *s, unsigned index, uint32_t value)
{
    if (!check_doorbell(s, index < s->queue_count && s->sq[index].valid))
        return;
    if (value >= s->sq[index].size) {
        nvme_raise_event(s, NVME_EVENT_ERROR, EVENT_BAD_TARGET);
        return;
    }
    s->sq[index].tail = (uint16_t)value;
    nvme_run_queue(s, index);
}

/* Entries that were not posted cannot be taken. */
void nvme_write_head(struct nvme *s, unsigned index, uint32_t value)
{
    struct nvme_cq *cq;

    if (!check_doorbell(s, index < s->queue_count && s->cq[index].valid))
        return;
    cq = &s->cq[index];
    if (value >= cq->size || (value + cq->size - cq->head) % cq->size > used_entries(cq)) {
        nvme_raise_event(s, NVME_EVENT_ERROR, EVENT_BAD_TARGET);
        return;
    }
    cq->head = (uint16_t)value;
    if (s->function.intx_level)
        nvme_update_intx(s);
    if (index == 0)
        nvme_send_events(s);
    if (!cq->starved)
        return;
    cq->starved = false;
    for (unsigned n = 0; n < s->queue_count; n++)
        if (s->sq[n].cq == index)
            nvme_run_queue(s, n);
}
