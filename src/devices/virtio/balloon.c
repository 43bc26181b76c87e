/*
 * balloon.c - virtio memory balloon
 *
 * The specification, 5.5. Pages that the guest puts into the balloon, or reports as free (5.5.6.7),
 * go back to the host; the guest finds zeros when it uses them again, so taking them out needs no
 * more than an answer.
 *
 * The guest offers one buffer of statistics, which it fills anew whenever it was given back. It
 * stays in the ring until the host asks: nothing is under way.
 *
 * Threads: machine lock held. Guest memory: DMA from what chains name, and pages that are emptied.
 */
#include "devices/virtio/balloon.h"

#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/devices.h"
#include "devices/virtio/transport.h"
#include "trapeze/machine.h"

#define ID_BALLOON       5
#define PCI_CLASS_OTHER  0x00ff00

#define F_MUST_TELL_HOST (1ull << 0)
#define F_STATS_VQ       (1ull << 1)
#define F_DEFLATE_ON_OOM (1ull << 2)
#define F_PAGE_REPORTING (1ull << 5)

#define PAGES_PER_READ   256u
#define PAGES_PER_CHAIN  16384u
#define PAGES_PER_KICK   4096u
#define CHAINS_PER_KICK  64u
#define STATISTIC_BYTES  10u /* tag, value */
#define STATISTICS_MAX   64u /* of one buffer */

/*
 * Without free page hints, which have queue 3, reported pages come by queue 4 (5.5.2); by queue 3
 * from Linux before 6.11, which leaves no number out.
 */
enum queue_number { INFLATE, DEFLATE, STATISTICS, REPORTING_OLD, REPORTING, QUEUE_COUNT };

enum config_field { CONFIG_NUM_PAGES = 0, CONFIG_ACTUAL = 4, CONFIG_BYTES = 8 };

/* By tag (5.5.6.4). */
static const char *const statistic_names[] = {
    "swap_in_bytes",      "swap_out_bytes", "major_faults",
    "minor_faults",       "free_bytes",     "total_bytes",
    "available_bytes",    "cache_bytes",    "huge_page_allocations",
    "huge_page_failures",
};
#define STATISTIC_COUNT (sizeof(statistic_names) / sizeof(statistic_names[0]))

struct virtio_balloon {
    VIRTIO_TRANSPORT;
    struct virtio_device virtio;

    /* Configuration. */
    uint64_t size;       /* property: the first target */
    bool deflate_on_oom; /* property */
    bool must_tell_host; /* property */

    /* Guest-visible state. */
    uint32_t num_pages; /* what the host wants in the balloon */
    uint32_t actual;    /* what the guest says is */

    /* For people. */
    uint64_t statistics[STATISTIC_COUNT];
    bool known[STATISTIC_COUNT];
    void (*changed)(void *opaque);
    void *changed_opaque;

    bool is_paused, has_failed;
    struct virtio_chain chain; /* too big for the stack */
};

static struct virtio_balloon *balloon_of(struct device *dev)
{
    return container_of(dev, struct virtio_balloon, dev);
}

static struct memory *memory_of(struct virtio_balloon *s)
{
    return device_memory(&s->dev);
}

static void tell(struct virtio_balloon *s)
{
    if (s->changed)
        s->changed(s->changed_opaque);
}

/* ---- pages ---- */

static void empty(struct virtio_balloon *s, void *hva, size_t size_bytes)
{
    struct error err = {0};

    if (!memory_discard(memory_of(s), hva, size_bytes, &err) || s->has_failed)
        return;
    s->has_failed = true;
    log_warn("%s: memory stays with the guest: %s", s->dev.id, err.text);
}

/* Pages that follow each other. */
struct run {
    uint64_t first, count;
};

/* False: they are not all RAM. */
static bool empty_run(struct virtio_balloon *s, const struct run *run)
{
    uint64_t gpa = run->first * GUEST_PAGE_SIZE, size = run->count * GUEST_PAGE_SIZE;
    void *hva = memory_pin(memory_of(s), gpa, size);

    if (hva) {
        empty(s, hva, size);
        return true;
    }
    for (; size; gpa += GUEST_PAGE_SIZE, size -= GUEST_PAGE_SIZE) {
        hva = memory_pin(memory_of(s), gpa, GUEST_PAGE_SIZE);
        if (!hva)
            return false;
        empty(s, hva, GUEST_PAGE_SIZE);
    }
    return true;
}

static bool add_page(struct virtio_balloon *s, struct run *run, uint64_t page)
{
    if (run->count && page == run->first + run->count) {
        run->count++;
        return true;
    }
    if (run->count && page + 1 == run->first) { /* systems give away the highest first */
        run->first--;
        run->count++;
        return true;
    }
    if (!empty_run(s, run))
        return false;
    *run = (struct run){page, 1};
    return true;
}

/* The chain is a list of page numbers. False: it names what is not RAM. */
static bool empty_pages(struct virtio_balloon *s)
{
    uint8_t pages[4 * PAGES_PER_READ];
    struct run run = {0};

    for (uint64_t at = 0; at < s->chain.out_bytes; at += sizeof(pages)) {
        size_t size = virtio_chain_read(&s->chain, at, pages, sizeof(pages));

        for (size_t n = 0; n + 4 <= size; n += 4)
            if (!add_page(s, &run, get_le32(pages + n)))
                return false;
    }
    return empty_run(s, &run);
}

static const char *inflate(struct virtio_balloon *s)
{
    if (s->chain.out_bytes > 4 * PAGES_PER_CHAIN)
        return "more pages at once than it takes";
    return empty_pages(s) ? NULL : "a page that is not RAM";
}

/* What was inflated was emptied, so there is nothing to do for those that go the other way. */
static const char *deflate(struct virtio_balloon *s)
{
    (void)s;
    return NULL;
}

static const char *report(struct virtio_balloon *s)
{
    if (s->chain.in_bytes > memory_ram_size_bytes(memory_of(s)))
        return "more free memory than there is";
    for (unsigned n = 0; n < s->chain.in_count; n++) {
        const struct io_piece *piece = &s->chain.pieces[s->chain.out_count + n];

        empty(s, piece->data, piece->size_bytes);
    }
    return NULL;
}

/* Take chains, do what is to be done with each and give it back. */
static void serve(struct virtio_balloon *s, struct virtqueue *queue,
                  const char *(*handle)(struct virtio_balloon *s))
{
    unsigned chains = 0;
    uint64_t pages = 0;

    while (chains < CHAINS_PER_KICK && pages < PAGES_PER_KICK && virtqueue_pop(queue, &s->chain)) {
        const char *wrong = handle(s);

        if (wrong) {
            virtio_break(&s->virtio, wrong);
            return;
        }
        virtqueue_push(queue, &s->chain, 0);
        chains++;
        pages += s->chain.out_bytes / 4;
    }
    virtqueue_notify(queue);
    if (chains == CHAINS_PER_KICK || pages >= PAGES_PER_KICK)
        virtio_kick_later(&s->virtio); /* others want the lock, too */
}

/* ---- statistics ---- */

static void read_statistics(struct virtio_balloon *s)
{
    uint8_t data[STATISTIC_BYTES * STATISTICS_MAX];
    size_t size = virtio_chain_read(&s->chain, 0, data, sizeof(data));

    memset(s->known, 0, sizeof(s->known));
    for (size_t n = 0; n + STATISTIC_BYTES <= size; n += STATISTIC_BYTES) {
        uint16_t tag = get_le16(data + n);

        if (tag >= STATISTIC_COUNT)
            continue;
        s->statistics[tag] = get_le64(data + n + 2);
        s->known[tag] = true;
    }
}

/* Look at what the guest has offered, which stays where it is. */
static void look_at_statistics(struct virtio_balloon *s, struct virtqueue *queue)
{
    if (!virtqueue_pop(queue, &s->chain))
        return;
    read_statistics(s);
    virtqueue_unpop(queue, s->chain.descriptors);
    tell(s);
}

bool balloon_ask(struct device *dev)
{
    struct virtio_balloon *s = balloon_of(dev);
    struct virtqueue *queue = &s->virtio.queues[STATISTICS];

    if (s->is_paused || !virtio_is_running(&s->virtio) || !virtio_has(&s->virtio, F_STATS_VQ))
        return false;
    if (virtqueue_pop(queue, &s->chain)) {
        virtqueue_push(queue, &s->chain, 0);
        virtqueue_notify(queue);
        look_at_statistics(s, queue); /* asks for the guest's kick */
    }
    return true;
}

void balloon_statistics(struct device *dev,
                        void (*put)(void *opaque, const char *name, uint64_t value), void *opaque)
{
    const struct virtio_balloon *s = balloon_of(dev);

    for (size_t n = 0; n < STATISTIC_COUNT; n++)
        if (s->known[n])
            put(opaque, statistic_names[n], s->statistics[n]);
}

static void balloon_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_balloon *s = container_of(virtio, struct virtio_balloon, virtio);
    ptrdiff_t number = queue - virtio->queues;

    if (s->is_paused)
        return;
    if (number == INFLATE)
        serve(s, queue, inflate);
    else if (number == DEFLATE)
        serve(s, queue, deflate);
    else if (number == STATISTICS && virtio_has(virtio, F_STATS_VQ))
        look_at_statistics(s, queue);
    else if (number >= REPORTING_OLD && virtio_has(virtio, F_PAGE_REPORTING))
        serve(s, queue, report);
}

/* ---- sizes ---- */

static uint64_t memory_without(struct virtio_balloon *s, uint64_t pages)
{
    uint64_t all = memory_ram_size_bytes(memory_of(s));

    return pages < all / GUEST_PAGE_SIZE ? all - pages * GUEST_PAGE_SIZE : 0;
}

uint64_t balloon_target(struct device *dev)
{
    return memory_without(balloon_of(dev), balloon_of(dev)->num_pages);
}

uint64_t balloon_memory(struct device *dev)
{
    return memory_without(balloon_of(dev), balloon_of(dev)->actual);
}

static uint32_t pages_to_leave(struct virtio_balloon *s, uint64_t memory_bytes)
{
    uint64_t all = memory_ram_size_bytes(memory_of(s));

    return memory_bytes < all ? (uint32_t)((all - memory_bytes) / GUEST_PAGE_SIZE) : 0;
}

void balloon_set_target(struct device *dev, uint64_t memory_bytes)
{
    struct virtio_balloon *s = balloon_of(dev);

    s->num_pages = pages_to_leave(s, memory_bytes);
    if (virtio_is_running(&s->virtio))
        s->virtio.transport->notify_config(&s->virtio);
}

void balloon_observe(struct device *dev, void (*changed)(void *opaque), void *opaque)
{
    balloon_of(dev)->changed = changed;
    balloon_of(dev)->changed_opaque = opaque;
}

struct device *balloon_find(struct machine *machine)
{
    struct device *dev = machine_first_device(machine);

    while (dev && dev->class != &virtio_balloon_class && dev->class != &virtio_balloon_mmio_class)
        dev = dev->next;
    return dev;
}

/* ---- configuration ---- */

static void balloon_config(const struct virtio_balloon *s, uint8_t out[CONFIG_BYTES])
{
    put_le32(out + CONFIG_NUM_PAGES, s->num_pages);
    put_le32(out + CONFIG_ACTUAL, s->actual);
}

static void balloon_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                                unsigned size)
{
    uint8_t c[CONFIG_BYTES];

    balloon_config(container_of(virtio, struct virtio_balloon, virtio), c);
    memcpy(out, c + offset, size);
}

/* Old drivers write byte by byte. */
static void balloon_write_config(struct virtio_device *virtio, unsigned offset, const uint8_t *data,
                                 unsigned size)
{
    struct virtio_balloon *s = container_of(virtio, struct virtio_balloon, virtio);
    uint8_t c[CONFIG_BYTES];

    balloon_config(s, c);
    memcpy(c + offset, data, size);
    s->actual = get_le32(c + CONFIG_ACTUAL);
    tell(s);
}

/* The driver that comes next begins with an empty balloon. */
static void balloon_forget(struct virtio_device *virtio)
{
    struct virtio_balloon *s = container_of(virtio, struct virtio_balloon, virtio);

    s->actual = 0;
    memset(s->known, 0, sizeof(s->known));
}

static const struct virtio_ops balloon_ops = {
    .id = ID_BALLOON,
    .config_bytes = CONFIG_BYTES,
    .read_config = balloon_read_config,
    .write_config = balloon_write_config,
    .kick = balloon_kick,
    .reset = balloon_forget,
};

/* ---- lifecycle ---- */

static int balloon_attach(struct device *dev, struct error *err)
{
    struct virtio_balloon *s = balloon_of(dev);

    s->virtio = (struct virtio_device){
        .ops = &balloon_ops,
        .transport = virtio_transport_of(dev),
        .dev = dev,
        .offered = F_STATS_VQ | F_PAGE_REPORTING | (s->deflate_on_oom ? F_DEFLATE_ON_OOM : 0) |
                   (s->must_tell_host ? F_MUST_TELL_HOST : 0),
        .queue_count = QUEUE_COUNT,
    };
    virtio_init(&s->virtio);
    s->num_pages = s->size ? pages_to_leave(s, s->size) : 0;
    return virtio_transport_attach(dev, &s->virtio, PCI_CLASS_OTHER, err);
}

/* The target is the host's, and stays. */
static void balloon_reset(struct device *dev)
{
    virtio_transport_reset(dev);
}

static void balloon_quiesce(struct device *dev)
{
    balloon_of(dev)->is_paused = true;
}

static void balloon_resume(struct device *dev)
{
    struct virtio_balloon *s = balloon_of(dev);

    s->is_paused = false;
    virtio_kick_later(&s->virtio);
}

static int balloon_after_load(void *object, struct error *err)
{
    return virtio_transport_after_load(object, err);
}

#define BALLOON_PROPERTIES                                                                         \
    PROPERTY_U64(struct virtio_balloon, size, 0,                                                   \
                 "memory that the guest is left with at first, in bytes; 0: all"),                 \
        PROPERTY_BOOL(struct virtio_balloon, deflate_on_oom, 1,                                    \
                      "the guest may take pages back when it has no others"),                      \
        PROPERTY_BOOL(struct virtio_balloon, must_tell_host, 0,                                    \
                      "the guest waits for an answer before it uses a page again"),                \
        PROPERTY_END

#define BALLOON_STATE                                                                              \
    VIRTIO_STATE(struct virtio_balloon, virtio), STATE_U32(struct virtio_balloon, num_pages),      \
        STATE_U32(struct virtio_balloon, actual), STATE_END

VIRTIO_TABLES(balloon, struct virtio_balloon, BALLOON_PROPERTIES, BALLOON_STATE);

#define BALLOON_CALLS                                                                              \
    .instance_size = sizeof(struct virtio_balloon), .attach = balloon_attach,                      \
    .reset = balloon_reset, .reset_done = virtio_transport_reset_done,                             \
    .detach = virtio_transport_detach, .quiesce = balloon_quiesce, .resume = balloon_resume

const struct device_class virtio_balloon_class = {
    .name = "virtio-balloon",
    .summary = "virtio memory balloon on PCI",
    .bus = BUS_PCI,
    .properties = balloon_properties,
    .state = {.version = 1, .oldest = 1, .fields = balloon_state, .after_load = balloon_after_load},
    BALLOON_CALLS,
};

const struct device_class virtio_balloon_mmio_class = {
    .name = "virtio-balloon-mmio",
    .summary = "virtio memory balloon without PCI",
    .bus = BUS_PLATFORM,
    .properties = balloon_mmio_properties,
    .state = {.version = 1,
              .oldest = 1,
              .fields = balloon_mmio_state,
              .after_load = balloon_after_load},
    BALLOON_CALLS,
};
