/*
 * transport_pci.c - a virtio device as a PCI function
 *
 * BAR 4 has the four structures a page apart, BAR 1 the MSI-X tables. The capability for access
 * through configuration space (4.1.4.9) is for firmware that cannot reach BAR 4. A transitional
 * function has the registers of the legacy interface (4.1.4.10) in BAR 0, too.
 *
 * Threads: machine lock held.
 */
#include "devices/virtio/transport_pci.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

#define VENDOR            0x1af4
#define FIRST_DEVICE_ID   0x1040
#define BAR_LEGACY        0
#define BAR_MSIX          1
#define BAR_REGISTERS     4
#define PAGE              0x1000u
#define NOTIFY_MULTIPLIER 4u

enum structure {
    COMMON = 1,
    NOTIFY = 2,
    ISR = 3,
    DEVICE = 4,
    ACCESS = 5
}; /* as cfg_type has them */

#define ISR_QUEUE  0x1u
#define ISR_CONFIG 0x2u

/* struct virtio_pci_common_cfg (4.1.4.3). */
enum common_register {
    OFFERED_SELECT = 0x00,
    OFFERED = 0x04,
    ACCEPTED_SELECT = 0x08,
    ACCEPTED = 0x0c,
    CONFIG_VECTOR = 0x10,
    QUEUE_COUNT = 0x12,
    STATUS = 0x14,
    GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFFSET = 0x1e,
    QUEUE_DESCRIPTORS = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_BYTES = 0x38,
};

static struct virtio_pci *virtio_pci_of(struct device *dev)
{
    return container_of(dev, struct virtio_pci, function.dev);
}

/* ---- interrupts ---- */

static void update_intx(struct virtio_pci *pci)
{
    pci_set_intx(&pci->function, pci->isr != 0);
}

static void interrupt(struct virtio_pci *pci, uint8_t reason, uint16_t vector)
{
    if (pci_uses_messages(&pci->function)) {
        if (vector != VIRTIO_NO_VECTOR)
            pci_notify(&pci->function, vector);
        return;
    }
    pci->isr |= reason;
    update_intx(pci);
}

static void notify_queue(struct virtio_device *dev, const struct virtqueue *queue)
{
    interrupt(virtio_pci_of(dev->dev), ISR_QUEUE, queue->vector);
}

static void notify_config(struct virtio_device *dev)
{
    struct virtio_pci *pci = virtio_pci_of(dev->dev);

    dev->config_generation++;
    interrupt(pci, ISR_CONFIG, pci->config_vector);
}

/* Old drivers do not know that they have to allow it. */
static bool can_access_memory(const struct virtio_device *dev)
{
    return dev->legacy || pci_is_master(&virtio_pci_of(dev->dev)->function);
}

const struct virtio_transport_ops virtio_pci_transport = {
    .notify_queue = notify_queue,
    .notify_config = notify_config,
    .can_access_memory = can_access_memory,
};

/* ---- common configuration ---- */

/* NULL if the guest has selected one that is not there. */
static struct virtqueue *selected(struct virtio_pci *pci)
{
    return pci->queue_select < pci->virtio->queue_count ? &pci->virtio->queues[pci->queue_select]
                                                        : NULL;
}

static uint64_t queue_read(const struct virtio_pci *pci, const struct virtqueue *queue, unsigned at)
{
    switch (at) {
    case QUEUE_SIZE:
        return queue->size;
    case QUEUE_VECTOR:
        return queue->vector;
    case QUEUE_ENABLE:
        return queue->enabled;
    case QUEUE_NOTIFY_OFFSET:
        return pci->queue_select;
    case QUEUE_DESCRIPTORS:
        return queue->descriptors;
    case QUEUE_DRIVER:
        return queue->driver_area;
    case QUEUE_DEVICE:
        return queue->device_area;
    default:
        return 0;
    }
}

/* The register that begins at, whole. */
static uint64_t common_register(struct virtio_pci *pci, unsigned at)
{
    struct virtio_device *virtio = pci->virtio;
    const struct virtqueue *queue = selected(pci);

    switch (at) {
    case OFFERED_SELECT:
        return pci->offered_select;
    case OFFERED:
        return virtio_offered_half(virtio, pci->offered_select);
    case ACCEPTED_SELECT:
        return pci->accepted_select;
    case ACCEPTED:
        return virtio_accepted_half(virtio, pci->accepted_select);
    case CONFIG_VECTOR:
        return pci->config_vector;
    case QUEUE_COUNT:
        return virtio->queue_count;
    case STATUS:
        return virtio->status;
    case GENERATION:
        return virtio->config_generation & 0xff;
    case QUEUE_SELECT:
        return pci->queue_select;
    default:
        return queue ? queue_read(pci, queue, at) : 0;
    }
}

static const struct {
    uint8_t at, size_bytes;
} common_layout[] = {
    {OFFERED_SELECT, 4},      {OFFERED, 4},           {ACCEPTED_SELECT, 4}, {ACCEPTED, 4},
    {CONFIG_VECTOR, 2},       {QUEUE_COUNT, 2},       {STATUS, 1},          {GENERATION, 1},
    {QUEUE_SELECT, 2},        {QUEUE_SIZE, 2},        {QUEUE_VECTOR, 2},    {QUEUE_ENABLE, 2},
    {QUEUE_NOTIFY_OFFSET, 2}, {QUEUE_DESCRIPTORS, 8}, {QUEUE_DRIVER, 8},    {QUEUE_DEVICE, 8},
};

/* Where the register begins that [offset, offset + size) lies in, or -1. */
static int register_at(unsigned offset, unsigned size)
{
    for (unsigned n = 0; n < sizeof(common_layout) / sizeof(common_layout[0]); n++)
        if (offset >= common_layout[n].at &&
            offset + size <= (unsigned)common_layout[n].at + common_layout[n].size_bytes)
            return common_layout[n].at;
    return -1;
}

static uint64_t common_read(struct virtio_pci *pci, unsigned offset, unsigned size)
{
    int at = register_at(offset, size);

    return at < 0 ? 0 : common_register(pci, (unsigned)at) >> 8 * (offset - (unsigned)at);
}

static uint16_t checked_vector(const struct virtio_pci *pci, uint64_t vector)
{
    return vector < pci->function.desc.msix_vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

/* One half of a 64-bit register; the whole if 8 bytes are written. */
static void put_address(uint64_t *field, unsigned offset, uint64_t value, unsigned size)
{
    uint64_t mask = size == 8 ? ~0ull : 0xffffffffull << 8 * offset;

    if (size >= 4)
        *field = (*field & ~mask) | (value << 8 * offset & mask);
}

/* What an enabled queue is may not be changed; but where its interrupts go. */
static void queue_write(struct virtio_pci *pci, struct virtqueue *queue, unsigned at,
                        unsigned offset, uint64_t value, unsigned size)
{
    if (at == QUEUE_VECTOR) {
        queue->vector = checked_vector(pci, value);
        return;
    }
    if (queue->enabled)
        return;
    switch (at) {
    case QUEUE_SIZE:
        queue->size = value <= VIRTIO_QUEUE_SIZE ? (uint16_t)value : 0;
        break;
    case QUEUE_ENABLE:
        if (value == 1)
            virtio_enable_queue(pci->virtio, queue);
        break;
    case QUEUE_DESCRIPTORS:
        put_address(&queue->descriptors, offset, value, size);
        break;
    case QUEUE_DRIVER:
        put_address(&queue->driver_area, offset, value, size);
        break;
    case QUEUE_DEVICE:
        put_address(&queue->device_area, offset, value, size);
        break;
    default:
        break;
    }
}

static void common_write(struct virtio_pci *pci, unsigned offset, uint64_t value, unsigned size)
{
    int at = register_at(offset, size);
    struct virtqueue *queue = selected(pci);

    switch (at) {
    case OFFERED_SELECT:
        pci->offered_select = (uint32_t)value;
        break;
    case ACCEPTED_SELECT:
        pci->accepted_select = (uint32_t)value;
        break;
    case ACCEPTED:
        virtio_accept_half(pci->virtio, pci->accepted_select, (uint32_t)value);
        break;
    case CONFIG_VECTOR:
        pci->config_vector = checked_vector(pci, value);
        break;
    case STATUS:
        if (value)
            virtio_set_status(pci->virtio, (uint8_t)value);
        else
            virtio_pci_reset(pci);
        update_intx(pci);
        break;
    case QUEUE_SELECT:
        pci->queue_select = (uint16_t)value;
        break;
    default:
        if (queue && at >= 0)
            queue_write(pci, queue, (unsigned)at, offset - (unsigned)at, value, size);
    }
}

/* ---- all structures ---- */

static uint64_t isr_read(struct virtio_pci *pci)
{
    uint8_t isr = pci->isr;

    pci->isr = 0;
    update_intx(pci);
    return isr;
}

static uint64_t registers_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = virtio_pci_of(dev);
    unsigned at = (unsigned)(offset % PAGE);

    switch (offset - at) {
    case 0: /* COMMON */
        return common_read(pci, at, size);
    case PAGE: /* ISR */
        return at == 0 ? isr_read(pci) : 0;
    case 2 * PAGE: /* DEVICE */
        return virtio_read_config(pci->virtio, at, size);
    default:
        return 0;
    }
}

static void registers_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *pci = virtio_pci_of(dev);
    unsigned at = (unsigned)(offset % PAGE);

    switch (offset - at) {
    case 0: /* COMMON */
        common_write(pci, at, value, size);
        break;
    case 2 * PAGE: /* DEVICE */
        virtio_write_config(pci->virtio, at, value, size);
        break;
    case 3 * PAGE: /* NOTIFY */
        virtio_kick(pci->virtio, at / NOTIFY_MULTIPLIER);
        break;
    default:
        break;
    }
}

static const struct region_ops registers_ops = {
    .name = "virtio-pci",
    .read = registers_read,
    .write = registers_write,
    .min_size = 1,
    .max_size = 8,
};

/* ---- the legacy interface ---- */

enum legacy_register {
    LEGACY_OFFERED = 0x00,
    LEGACY_ACCEPTED = 0x04,
    LEGACY_QUEUE_PAGE = 0x08,
    LEGACY_QUEUE_SIZE = 0x0c,
    LEGACY_QUEUE_SELECT = 0x0e,
    LEGACY_QUEUE_NOTIFY = 0x10,
    LEGACY_STATUS = 0x12,
    LEGACY_ISR = 0x13,
    LEGACY_CONFIG_VECTOR = 0x14, /* these two only while there are messages */
    LEGACY_QUEUE_VECTOR = 0x16,
    LEGACY_CONFIG = 0x18,
};
#define LEGACY_PAGE_SHIFT 12

static unsigned legacy_config(const struct virtio_pci *pci)
{
    return pci_uses_messages(&pci->function) ? LEGACY_CONFIG : LEGACY_CONFIG_VECTOR;
}

static uint64_t legacy_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = virtio_pci_of(dev);
    const struct virtqueue *queue = selected(pci);
    unsigned at = (unsigned)offset;

    if (at >= legacy_config(pci))
        return virtio_read_config(pci->virtio, at - legacy_config(pci), size);
    switch (at) {
    case LEGACY_OFFERED:
        return virtio_offered_half(pci->virtio, 0);
    case LEGACY_ACCEPTED:
        return virtio_accepted_half(pci->virtio, 0);
    case LEGACY_QUEUE_PAGE:
        return queue && queue->enabled ? queue->descriptors >> LEGACY_PAGE_SHIFT : 0;
    case LEGACY_QUEUE_SIZE:
        return queue ? queue->size : 0;
    case LEGACY_QUEUE_SELECT:
        return pci->queue_select;
    case LEGACY_STATUS:
        return pci->virtio->status;
    case LEGACY_ISR:
        return isr_read(pci);
    case LEGACY_CONFIG_VECTOR:
        return pci->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return queue ? queue->vector : VIRTIO_NO_VECTOR;
    default:
        return 0;
    }
}

/* Page 0 takes the queue away; with requests under way the whole device can be reset only. */
static void legacy_place_queue(struct virtio_pci *pci, struct virtqueue *queue, uint32_t page)
{
    if (page)
        virtio_legacy_enable_queue(pci->virtio, queue, (uint64_t)page << LEGACY_PAGE_SHIFT);
    else if (pci->virtio->legacy)
        virtio_pci_reset(pci);
}

static void legacy_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *pci = virtio_pci_of(dev);
    struct virtqueue *queue = selected(pci);
    unsigned at = (unsigned)offset;

    if (at >= legacy_config(pci)) {
        virtio_write_config(pci->virtio, at - legacy_config(pci), value, size);
        return;
    }
    switch (at) {
    case LEGACY_ACCEPTED:
        virtio_legacy_accept(pci->virtio, (uint32_t)value);
        break;
    case LEGACY_QUEUE_PAGE:
        if (queue)
            legacy_place_queue(pci, queue, (uint32_t)value);
        break;
    case LEGACY_QUEUE_SELECT:
        pci->queue_select = (uint16_t)value;
        break;
    case LEGACY_QUEUE_NOTIFY:
        virtio_kick(pci->virtio, (uint16_t)value);
        break;
    case LEGACY_STATUS:
        if (value & 0xff)
            virtio_legacy_set_status(pci->virtio, (uint8_t)value);
        else
            virtio_pci_reset(pci);
        break;
    case LEGACY_CONFIG_VECTOR:
        pci->config_vector = checked_vector(pci, value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (queue)
            queue->vector = checked_vector(pci, value);
        break;
    default:
        break;
    }
    update_intx(pci);
}

static const struct region_ops legacy_ops = {
    .name = "virtio-pci-legacy",
    .read = legacy_read,
    .write = legacy_write,
    .min_size = 1,
    .max_size = 4,
};

/* Device ids of transitional functions, by device type (4.1.2.1); 0: there is none. */
static uint16_t transitional_id(unsigned type)
{
    static const uint16_t ids[] = {
        [1] = 0x1000, [2] = 0x1001, [3] = 0x1003, [4] = 0x1005,
        [5] = 0x1002, [8] = 0x1004, [9] = 0x1009,
    };

    return type < sizeof(ids) / sizeof(ids[0]) ? ids[type] : 0;
}

static int make_transitional(const struct virtio_pci *pci, struct pci_function_desc *desc,
                             struct error *err)
{
    const struct virtio_ops *ops = pci->virtio->ops;
    unsigned size = 32;

    if (!transitional_id(ops->id))
        return error_set(err, EINVAL, "%s: transitional=on: there never were old drivers of it",
                         pci->function.dev.id);
    while (size < LEGACY_CONFIG + ops->config_bytes)
        size *= 2;
    desc->device_id = transitional_id(ops->id);
    desc->subsystem_id = ops->id;
    desc->revision = 0;
    desc->bar[BAR_LEGACY] =
        (struct pci_bar_desc){.kind = PCI_BAR_IO, .size_bytes = size, .ops = &legacy_ops};
    return 0;
}

/* ---- capabilities ---- */

/* Behind id and next pointer: length, type, BAR, three bytes, offset, length; more by type. */
#define CONTENTS(type, offset, length)                                                             \
    {                                                                                              \
        16, type, BAR_REGISTERS, 0, 0, 0, (offset)&0xff, (offset) >> 8, 0, 0, (length)&0xff,       \
            (length) >> 8, 0, 0                                                                    \
    }
static const uint8_t common_contents[14] = CONTENTS(COMMON, 0, COMMON_BYTES);
static const uint8_t isr_contents[14] = CONTENTS(ISR, PAGE, 1);
static const uint8_t device_contents[14] = CONTENTS(DEVICE, 2 * PAGE, PAGE);
static const uint8_t notify_contents[18] = {
    20, NOTIFY, BAR_REGISTERS,     0, 0, 0, 0, (3 * PAGE) >> 8, 0, 0, 0, PAGE >> 8,
    0,  0,      NOTIFY_MULTIPLIER, 0, 0, 0};
static const uint8_t access_contents[18] = {20, ACCESS};
static const uint8_t access_writable[18] = {0,    0,    0xff, 0,    0,    0,    0xff, 0xff, 0xff,
                                            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

enum { ACCESS_INDEX = 4 };
#define ACCESS_BAR    4 /* offsets in the capability */
#define ACCESS_OFFSET 8
#define ACCESS_LENGTH 12
#define ACCESS_DATA   16

static const struct pci_capability_desc capabilities[] = {
    {.id = PCI_CAP_VENDOR, .size_bytes = 16, .contents = common_contents},
    {.id = PCI_CAP_VENDOR, .size_bytes = 16, .contents = isr_contents},
    {.id = PCI_CAP_VENDOR, .size_bytes = 16, .contents = device_contents},
    {.id = PCI_CAP_VENDOR, .size_bytes = 20, .contents = notify_contents},
    [ACCESS_INDEX] = {.id = PCI_CAP_VENDOR,
                      .size_bytes = 20,
                      .contents = access_contents,
                      .writable = access_writable},
};

/* Does the access touch the window of the capability? What and where it leads then. */
static bool finds_window(struct pci_function *function, unsigned offset, unsigned size,
                         uint32_t *out_at, uint32_t *out_length)
{
    unsigned capability = pci_capability_offset(function, ACCESS_INDEX);
    const uint8_t *c = function->config + capability;

    *out_at = get_le32(c + ACCESS_OFFSET);
    *out_length = get_le32(c + ACCESS_LENGTH);
    return offset < capability + ACCESS_DATA + 4 && offset + size > capability + ACCESS_DATA &&
           c[ACCESS_BAR] == BAR_REGISTERS &&
           (*out_length == 1 || *out_length == 2 || *out_length == 4) &&
           *out_at % *out_length == 0 && *out_at < 4 * PAGE;
}

static void config_read(struct pci_function *function, unsigned offset, unsigned size)
{
    uint8_t *data = function->config + pci_capability_offset(function, ACCESS_INDEX) + ACCESS_DATA;
    uint32_t at, length;

    if (finds_window(function, offset, size, &at, &length))
        put_le32(data, (uint32_t)registers_read(&function->dev, at, length));
}

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    const uint8_t *data =
        function->config + pci_capability_offset(function, ACCESS_INDEX) + ACCESS_DATA;
    uint32_t at, length;

    if (finds_window(function, offset, size, &at, &length))
        registers_write(&function->dev, at,
                        get_le32(data) & (length == 4 ? ~0u : (1u << 8 * length) - 1), length);
}

/* ---- lifecycle ---- */

int virtio_pci_describe(struct virtio_pci *pci, struct virtio_device *virtio, uint32_t class_code,
                        struct pci_function_desc *out, struct error *err)
{
    *out = (struct pci_function_desc){
        .vendor_id = VENDOR,
        .device_id = (uint16_t)(FIRST_DEVICE_ID + virtio->ops->id),
        .subsystem_vendor_id = VENDOR,
        .subsystem_id = (uint16_t)(FIRST_DEVICE_ID + virtio->ops->id),
        .class_code = class_code,
        .revision = 1,
        .interrupt_pin = 1,
        .bar =
            {
                [BAR_MSIX] = {.kind = PCI_BAR_MEMORY32, .size_bytes = PAGE},
                [BAR_REGISTERS] = {.kind = PCI_BAR_MEMORY64,
                                   .prefetchable = true,
                                   .size_bytes = 4 * PAGE,
                                   .ops = &registers_ops},
            },
        .capabilities = capabilities,
        .capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
        .msix_vectors = (uint16_t)(virtio->queue_count + 1),
        .msix_bar = BAR_MSIX,
        .msix_pba_offset = 0x800,
        .config_read = config_read,
        .config_written = config_written,
    };

    pci->virtio = virtio;
    return pci->transitional ? make_transitional(pci, out, err) : 0;
}

int virtio_pci_attach(struct virtio_pci *pci, struct virtio_device *virtio, uint32_t class_code,
                      struct error *err)
{
    struct pci_function_desc desc;
    int result = virtio_pci_describe(pci, virtio, class_code, &desc, err);

    return result ? result : pci_attach(&pci->function, &desc, err);
}

void virtio_pci_detach(struct virtio_pci *pci)
{
    if (pci->virtio)
        virtio_done(pci->virtio);
    pci_detach(&pci->function);
}

void virtio_pci_reset(struct virtio_pci *pci)
{
    virtio_reset(pci->virtio);
    pci->offered_select = pci->accepted_select = 0;
    pci->config_vector = VIRTIO_NO_VECTOR;
    pci->queue_select = 0;
    pci->isr = 0;
}

int virtio_pci_after_load(struct virtio_pci *pci, struct error *err)
{
    int status = virtio_after_load(pci->virtio, err);

    pci->function.intx_level = pci->isr != 0;
    return status ? status : pci_after_load(&pci->function, err);
}

const struct state_field virtio_pci_state[] = {
    PCI_STATE(struct virtio_pci, function),
    STATE_U32(struct virtio_pci, offered_select),
    STATE_U32(struct virtio_pci, accepted_select),
    STATE_U16(struct virtio_pci, config_vector),
    STATE_U16(struct virtio_pci, queue_select),
    STATE_U8_MAX(struct virtio_pci, isr, ISR_QUEUE | ISR_CONFIG),
    STATE_END,
};
