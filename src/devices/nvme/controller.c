/*
 * controller.c - NVMe controller: registers, reset, shutdown, lifecycle, state
 *
 * NVM Express 1.4, chapter 3. One subsystem of one controller with one namespace. Pages of 4 KiB,
 * queues in one piece of up to 256 entries. Vectors are those of MSI-X or MSI, or INTx.
 *
 * Left out: memory of its own (CMB, PMR), boot partitions, firmware downloads, management of
 * namespaces, metadata and protection information, power states, reservations.
 *
 * Threads: machine lock held. Guest memory: DMA into and out of queues and what commands name.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/devices.h"
#include "devices/nvme/nvme.h"
#include "trapeze/machine.h"

#define REGISTER_BYTES    0x4000u
#define MSIX_TABLE_OFFSET 0x2000u
#define MSIX_PBA_OFFSET   0x3000u
#define PCI_CLASS_NVME    0x010802

enum nvme_register {
    REG_CAP_LOW = 0x00,
    REG_CAP_HIGH = 0x04,
    REG_VS = 0x08,
    REG_INTMS = 0x0c,
    REG_INTMC = 0x10,
    REG_CC = 0x14,
    REG_CSTS = 0x1c,
    REG_NSSR = 0x20,
    REG_AQA = 0x24,
    REG_ASQ_LOW = 0x28,
    REG_ASQ_HIGH = 0x2c,
    REG_ACQ_LOW = 0x30,
    REG_ACQ_HIGH = 0x34,
    REG_DOORBELLS = 0x1000,
};

#define CAP_LOW      (0x0f010000u | (NVME_QUEUE_SIZE - 1)) /* 7.5 s; queues in one piece */
#define CAP_HIGH     0x00000030u                           /* NVM command set, NSSR */
#define CC_WRITABLE  0x00fffff1u
#define CC_MUST_BE_0 0x00003ff0u /* command set, page size, arbitration: there is one each */
#define AQA_WRITABLE 0x0fff0fffu
#define NSSR_MAGIC   0x4e564d65u /* "NVMe" */
#define ADDRESS_MASK (~(uint64_t)(NVME_PAGE - 1))

static void leave(struct nvme *s)
{
    if (s->drive)
        block_drain(s->drive);
}

/* All that the guest can see but AQA, ASQ and ACQ (7.3.2). What is under way ends unseen. */
static void reset_controller(struct nvme *s)
{
    s->csts &= NVME_CSTS_NSSRO; /* first: what ends meanwhile does not reach the guest */
    leave(s);
    s->csts &= NVME_CSTS_NSSRO;
    s->interrupt_mask = 0;
    memset(s->sq, 0, sizeof(s->sq));
    memset(s->cq, 0, sizeof(s->cq));
    memset(s->events, 0, sizeof(s->events));
    s->event_request_count = 0;
    s->kept.count = 0;
    s->news = 0;
    nvme_reset_features(s);
}

void nvme_fail(struct nvme *s, const char *why)
{
    log_guest("%s: %s; it stands still until it is reset", s->function.dev.id, why);
    s->csts |= NVME_CSTS_FATAL;
}

static void enable(struct nvme *s)
{
    struct nvme_sq sq = {.valid = true, .gpa = s->asq, .size = (uint16_t)((s->aqa & 0xfff) + 1)};
    struct nvme_cq cq = {.valid = true,
                         .phase = true,
                         .interrupts = true,
                         .gpa = s->acq,
                         .size = (uint16_t)((s->aqa >> 16) + 1)};

    s->csts &= ~NVME_CSTS_SHUTDOWN; /* one that was asked for while it was off */
    if (s->cc & CC_MUST_BE_0 || sq.size < 2 || cq.size < 2 || !nvme_map_sq(s, &sq) ||
        !nvme_map_cq(s, &cq)) {
        nvme_fail(s, "the guest's driver enabled it with settings that it cannot have");
        return;
    }
    s->sq[0] = sq;
    s->cq[0] = cq;
    s->csts |= NVME_CSTS_READY;
}

/* ---- shutdown ---- */

static void shutdown_done(struct block_request *request, int error)
{
    struct nvme *s = container_of(request, struct nvme, shutdown);

    s->is_flushing = false;
    if (error)
        log_error("%s: not all of the disk was written: %s", s->function.dev.id, strerror(-error));
    if (s->csts & NVME_CSTS_OCCURRING)
        s->csts = (s->csts & ~NVME_CSTS_SHUTDOWN) | NVME_CSTS_COMPLETE;
}

static void flush(struct nvme *s)
{
    s->shutdown = (struct block_request){.op = BLOCK_FLUSH, .done = shutdown_done};
    s->is_flushing = true;
    block_submit(s->drive, &s->shutdown);
}

/* Commands end, and what was written is on the disk when it is complete. */
static void begin_shutdown(struct nvme *s)
{
    if (s->csts & NVME_CSTS_SHUTDOWN)
        return;
    leave(s);
    s->csts |= NVME_CSTS_OCCURRING;
    flush(s);
}

/* ---- registers ---- */

static void write_cc(struct nvme *s, uint32_t value)
{
    uint32_t before = s->cc;

    s->cc = value & CC_WRITABLE;
    if (before & NVME_CC_ENABLE && !(value & NVME_CC_ENABLE)) {
        reset_controller(s);
        nvme_update_intx(s);
    }
    if (!(before & NVME_CC_ENABLE) && value & NVME_CC_ENABLE)
        enable(s);
    if (!(before & NVME_CC_SHUTDOWN) && value & NVME_CC_SHUTDOWN)
        begin_shutdown(s);
}

static void reset_all(struct nvme *s)
{
    reset_controller(s);
    s->cc = s->aqa = 0;
    s->asq = s->acq = 0;
}

static void reset_subsystem(struct nvme *s)
{
    reset_all(s);
    s->csts |= NVME_CSTS_NSSRO;
    nvme_update_intx(s);
}

static void write_mask(struct nvme *s, uint32_t mask)
{
    uint32_t opened = s->interrupt_mask & ~mask;

    s->interrupt_mask = mask;
    if (!pci_uses_messages(&s->function)) {
        nvme_update_intx(s);
        return;
    }
    for (unsigned n = 0; n < s->queue_count; n++) {
        const struct nvme_cq *cq = &s->cq[n];

        if (cq->valid && cq->interrupts && cq->head != cq->tail && cq->vector < 32 &&
            opened >> cq->vector & 1)
            s->news |= 1ull << n;
    }
    nvme_notify(s);
}

static void put_half(uint64_t *field, unsigned shift, uint32_t value)
{
    *field = ((*field & ~(0xffffffffull << shift)) | (uint64_t)value << shift) & ADDRESS_MASK;
}

static void write_doorbell(struct nvme *s, unsigned index, uint32_t value)
{
    if (index % 2)
        nvme_write_head(s, index / 2, value & 0xffff);
    else
        nvme_write_tail(s, index / 2, value & 0xffff);
}

static uint64_t registers_read(struct device *dev, uint64_t offset, unsigned size)
{
    const struct nvme *s = nvme_of(dev);

    (void)size;
    switch (offset) {
    case REG_CAP_LOW:
        return CAP_LOW;
    case REG_CAP_HIGH:
        return CAP_HIGH;
    case REG_VS:
        return NVME_VERSION;
    case REG_INTMS:
    case REG_INTMC:
        return s->interrupt_mask;
    case REG_CC:
        return s->cc;
    case REG_CSTS:
        return s->csts;
    case REG_AQA:
        return s->aqa;
    case REG_ASQ_LOW:
    case REG_ASQ_HIGH:
        return s->asq >> 8 * (offset - REG_ASQ_LOW);
    case REG_ACQ_LOW:
    case REG_ACQ_HIGH:
        return s->acq >> 8 * (offset - REG_ACQ_LOW);
    default:
        return 0;
    }
}

static void registers_write(struct device *dev, uint64_t offset, uint64_t wide, unsigned size)
{
    struct nvme *s = nvme_of(dev);
    uint32_t value = (uint32_t)wide;

    (void)size;
    switch (offset) {
    case REG_INTMS:
        write_mask(s, s->interrupt_mask | value);
        break;
    case REG_INTMC:
        write_mask(s, s->interrupt_mask & ~value);
        break;
    case REG_CC:
        write_cc(s, value);
        break;
    case REG_CSTS:
        s->csts &= ~(value & NVME_CSTS_NSSRO);
        break;
    case REG_NSSR:
        if (value == NSSR_MAGIC)
            reset_subsystem(s);
        break;
    case REG_AQA:
        s->aqa = value & AQA_WRITABLE;
        break;
    case REG_ASQ_LOW:
    case REG_ASQ_HIGH:
        put_half(&s->asq, 8 * (unsigned)(offset - REG_ASQ_LOW), value);
        break;
    case REG_ACQ_LOW:
    case REG_ACQ_HIGH:
        put_half(&s->acq, 8 * (unsigned)(offset - REG_ACQ_LOW), value);
        break;
    default:
        if (offset >= REG_DOORBELLS)
            write_doorbell(s, (unsigned)(offset - REG_DOORBELLS) / 4, value);
    }
}

static const struct region_ops registers_ops = {
    .name = "nvme",
    .read = registers_read,
    .write = registers_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- configuration space ---- */

/* A guest that lets it master the bus again wants what it left in the queues to be done. */
static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    (void)size;
    if (offset <= PCI_COMMAND + 1 && pci_is_master(function))
        nvme_run_queues(nvme_of(&function->dev));
}

static void vectors_changed(struct pci_function *function)
{
    nvme_update_intx(nvme_of(&function->dev));
}

static unsigned power_of_two(unsigned at_least)
{
    unsigned power = 1;

    while (power < at_least && power < PCI_MSI_MAX)
        power *= 2;
    return power;
}

static int attach_function(struct nvme *s, struct error *err)
{
    const struct pci_function_desc desc = {
        .vendor_id = NVME_VENDOR_ID,
        .device_id = 0x0010,
        .subsystem_vendor_id = NVME_SUBSYSTEM_ID,
        .subsystem_id = 0x1100,
        .class_code = PCI_CLASS_NVME,
        .revision = 1,
        .interrupt_pin = 1,
        .bar = {{.kind = PCI_BAR_MEMORY64, .size_bytes = REGISTER_BYTES, .ops = &registers_ops}},
        .msi_vectors = (uint8_t)power_of_two(s->queue_count),
        .msix_vectors = (uint16_t)s->queue_count,
        .msix_bar = 0,
        .msix_table_offset = MSIX_TABLE_OFFSET,
        .msix_pba_offset = MSIX_PBA_OFFSET,
        .config_written = config_written,
        .vectors_changed = vectors_changed,
    };

    return pci_attach(&s->function, &desc, err);
}

/* ---- lifecycle ---- */

static int nvme_attach(struct device *dev, struct error *err)
{
    struct nvme *s = nvme_of(dev);
    unsigned queues = s->queues ? s->queues : machine_vcpu_count(dev->machine);

    if (!s->drive)
        return error_set(err, EINVAL, "%s: it has no disk; use --disk FILE", dev->id);
    if (strlen(s->serial) > NVME_SERIAL_BYTES)
        return error_set(err, EINVAL, "%s: serial=%s is longer than %u characters", dev->id,
                         s->serial, NVME_SERIAL_BYTES);
    if (queues >= NVME_MAX_QUEUES)
        return error_set(err, EINVAL, "%s: queues=%u: there can be up to %u", dev->id, queues,
                         NVME_MAX_QUEUES - 1);
    if (!s->queues && queues < 2)
        queues = 2; /* OVMF wants two */
    s->queue_count = queues + 1;
    return attach_function(s, err);
}

static void nvme_detach(struct device *dev)
{
    struct nvme *s = nvme_of(dev);

    s->csts = 0;
    leave(s);
    state_list_free(&s->kept);
    pci_detach(&s->function);
    while (s->spare) {
        struct nvme_request *r = s->spare;

        s->spare = r->next;
        free(r);
    }
}

static void nvme_reset(struct device *dev)
{
    struct nvme *s = nvme_of(dev);

    reset_all(s);
    s->csts = 0;
    memset(s->error_log, 0, sizeof(s->error_log));
    s->counters = (struct nvme_counters){0};
}

static void nvme_quiesce(struct device *dev)
{
    struct nvme *s = nvme_of(dev);
    struct block_request *kept;
    int status;

    block_quiesce(s->drive);
    while ((kept = block_take_kept(s->drive, &status))) {
        struct nvme_request *r = nvme_request_of(kept);

        if (!r)
            s->is_flushing = false;
        else if (!nvme_keep(r))
            kept->done(kept, status);
    }
}

static void nvme_resume(struct device *dev)
{
    struct nvme *s = nvme_of(dev);

    nvme_execute_kept(s);
    if (s->csts & NVME_CSTS_OCCURRING && !s->is_flushing)
        flush(s);
}

/*
 * The name is the one that firmware knows such controllers by. OVMF compares the namespace's EUI-64
 * as a little-endian number, which Identify has the other way around.
 */
static void nvme_boot_path(struct device *dev, char *out, size_t size)
{
    char namespace[40];

    snprintf(namespace, sizeof(namespace), "/namespace@1,%" PRIx64,
             __builtin_bswap64(nvme_eui64(nvme_of(dev))));
    pci_boot_path(&nvme_of(dev)->function, "pci8086,5845", namespace, out, size);
}

/* ---- state ---- */

static bool restore_sq(struct nvme *s, unsigned index)
{
    struct nvme_sq *sq = &s->sq[index];
    unsigned max = index ? NVME_QUEUE_SIZE : (AQA_WRITABLE & 0xfff) + 1u;

    if (!sq->valid)
        return true;
    return index < s->queue_count && sq->size >= 2 && sq->size <= max && sq->head < sq->size &&
           sq->tail < sq->size && sq->cq < s->queue_count && !sq->cq == !index &&
           s->cq[sq->cq].valid && !(sq->gpa % NVME_PAGE) && nvme_map_sq(s, sq);
}

static bool restore_cq(struct nvme *s, unsigned index)
{
    struct nvme_cq *cq = &s->cq[index];
    unsigned max = index ? NVME_QUEUE_SIZE : (AQA_WRITABLE & 0xfff) + 1u;

    if (!cq->valid)
        return true;
    return index < s->queue_count && cq->size >= 2 && cq->size <= max && cq->head < cq->size &&
           cq->tail < cq->size && cq->vector < s->function.desc.msix_vectors &&
           !(cq->gpa % NVME_PAGE) && nvme_map_cq(s, cq);
}

/* The admin queue is there exactly if the controller is ready, and without it no other is. */
static bool is_consistent(const struct nvme *s)
{
    bool ready = s->csts & NVME_CSTS_READY;

    for (unsigned n = 0; n < NVME_MAX_QUEUES; n++)
        if (!ready && (s->sq[n].valid || s->cq[n].valid))
            return false;
    return (!ready || (s->sq[0].valid && s->cq[0].valid && s->cc & NVME_CC_ENABLE)) &&
           !(s->cc & ~CC_WRITABLE) && !(s->asq % NVME_PAGE) && !(s->acq % NVME_PAGE) &&
           !(s->aqa & ~AQA_WRITABLE);
}

static int nvme_after_load(void *object, struct error *err)
{
    struct nvme *s = object;
    bool good = is_consistent(s);

    for (unsigned n = 0; n < NVME_MAX_QUEUES; n++)
        good = good && restore_cq(s, n);
    for (unsigned n = 0; n < NVME_MAX_QUEUES; n++)
        good = good && restore_sq(s, n);
    if (!good || !nvme_kept_is_consistent(s))
        return error_set(err, EINVAL, "%s: it cannot be as it is saved", s->function.dev.id);
    s->function.intx_level = nvme_intx_level(s);
    return pci_after_load(&s->function, err);
}

static const struct state_field sq_state[] = {
    STATE_BOOL(struct nvme_sq, valid),
    STATE_U64(struct nvme_sq, gpa),
    STATE_U16(struct nvme_sq, size),
    STATE_U16(struct nvme_sq, head),
    STATE_U16(struct nvme_sq, tail),
    STATE_U16(struct nvme_sq, cq),
    STATE_END,
};

static const struct state_field cq_state[] = {
    STATE_BOOL(struct nvme_cq, valid),
    STATE_BOOL(struct nvme_cq, phase),
    STATE_BOOL(struct nvme_cq, interrupts),
    STATE_U64(struct nvme_cq, gpa),
    STATE_U16(struct nvme_cq, size),
    STATE_U16(struct nvme_cq, head),
    STATE_U16(struct nvme_cq, tail),
    STATE_U16(struct nvme_cq, vector),
    STATE_END,
};

static const struct state_field features_state[] = {
    STATE_U32(struct nvme_features, arbitration),
    STATE_U32(struct nvme_features, error_recovery),
    STATE_U32(struct nvme_features, coalescing),
    STATE_U32(struct nvme_features, async_events),
    STATE_U16(struct nvme_features, over_k),
    STATE_U16(struct nvme_features, under_k),
    STATE_BOOL(struct nvme_features, write_cache),
    STATE_BOOL(struct nvme_features, write_atomicity),
    STATE_BOOLS(struct nvme_features, no_coalescing),
    STATE_END,
};

static const struct state_field event_state[] = {
    STATE_BOOL(struct nvme_event, pending),
    STATE_BOOL(struct nvme_event, masked),
    STATE_U8(struct nvme_event, info),
    STATE_END,
};

static const struct state_field error_entry_state[] = {
    STATE_U64(struct nvme_error_entry, count),
    STATE_U64(struct nvme_error_entry, lba),
    STATE_U32(struct nvme_error_entry, nsid),
    STATE_U16(struct nvme_error_entry, sq),
    STATE_U16(struct nvme_error_entry, cid),
    STATE_U16(struct nvme_error_entry, status),
    STATE_END,
};

static const struct state_field counters_state[] = {
    STATE_U64(struct nvme_counters, reads),
    STATE_U64(struct nvme_counters, writes),
    STATE_U64(struct nvme_counters, read_sectors),
    STATE_U64(struct nvme_counters, written_sectors),
    STATE_U64(struct nvme_counters, media_errors),
    STATE_U64(struct nvme_counters, errors),
    STATE_END,
};

static const struct state_field command_state[] = {
    STATE_U8(struct nvme_command, opcode),
    STATE_U8(struct nvme_command, flags),
    STATE_U16(struct nvme_command, cid),
    STATE_U32(struct nvme_command, nsid),
    STATE_BYTES(struct nvme_command, data),
    STATE_U32S(struct nvme_command, dword),
    STATE_END,
};

static const struct state_field kept_state[] = {
    STATE_U16_MAX(struct nvme_kept, sq, NVME_MAX_QUEUES - 1),
    STATE_STRUCT(struct nvme_kept, command, command_state),
    STATE_END,
};

static const struct state_field state[] = {
    PCI_STATE(struct nvme, function),
    STATE_U32(struct nvme, cc),
    STATE_U32_MAX(struct nvme, csts, 0x1f),
    STATE_U32(struct nvme, aqa),
    STATE_U32(struct nvme, interrupt_mask),
    STATE_U64(struct nvme, asq),
    STATE_U64(struct nvme, acq),
    STATE_STRUCTS(struct nvme, sq, sq_state),
    STATE_STRUCTS(struct nvme, cq, cq_state),
    STATE_STRUCT(struct nvme, features, features_state),
    STATE_STRUCTS(struct nvme, events, event_state),
    STATE_U16S(struct nvme, event_requests),
    STATE_U8_MAX(struct nvme, event_request_count, NVME_MAX_EVENTS),
    STATE_STRUCTS(struct nvme, error_log, error_entry_state),
    STATE_STRUCT(struct nvme, counters, counters_state),
    STATE_LIST(struct nvme, kept, NVME_MAX_QUEUES *NVME_QUEUE_SIZE, struct nvme_kept, kept_state),
    STATE_END,
};

static const struct property properties[] = {
    PCI_PROPERTIES(struct nvme, function),
    PROPERTY_POINTER(struct nvme, drive, "disk"),
    PROPERTY_STRING(struct nvme, serial, "", "serial number, up to 20 characters"),
    PROPERTY_U16(struct nvme, queues, 0,
                 "pairs of queues, up to 32; 0: one for each processor, and at least 2"),
    PROPERTY_END,
};

const struct device_class nvme_class = {
    .name = "nvme",
    .summary = "NVMe disk on PCI",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct nvme),
    .properties = properties,
    .attach = nvme_attach,
    .reset = nvme_reset,
    .detach = nvme_detach,
    .quiesce = nvme_quiesce,
    .resume = nvme_resume,
    .boot_path = nvme_boot_path,
    .state = {.version = 1, .oldest = 1, .fields = state, .after_load = nvme_after_load},
};
