/*
 * rng.c - virtio entropy device
 *
 * The specification, 5.4: one queue, whose buffers are filled with random bytes. They are the
 * host's; in counted mode, where runs repeat, a sequence that is the same each time, whose place is
 * state.
 *
 * Threads: machine lock held. Guest memory: DMA into what chains name.
 */
#include <string.h>

#include "devices/devices.h"
#include "devices/virtio/transport_pci.h"
#include "trapeze/machine.h"

#define ID_ENTROPY        4
#define PCI_CLASS_OTHER   0x00ff00
#define MOST_BYTES        4096u /* of one buffer: the guest asks again */
#define REQUESTS_PER_KICK 64u

struct virtio_rng {
    struct virtio_pci pci;
    struct virtio_device virtio;

    /* Guest-visible state. */
    uint64_t place; /* in the sequence of counted mode */

    bool is_paused;
    struct virtio_chain chain; /* too big for the stack */
};

static struct virtio_rng *rng_of(struct device *dev)
{
    return container_of(dev, struct virtio_rng, pci.function.dev);
}

/* Numbers that look random (Steele, Lea, Flood: SplitMix). */
static uint64_t next_number(struct virtio_rng *s)
{
    uint64_t number = ++s->place * 0x9e3779b97f4a7c15ull;

    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9ull;
    number = (number ^ number >> 27) * 0x94d049bb133111ebull;
    return number ^ number >> 31;
}

static void make_bytes(struct virtio_rng *s, uint8_t *out, size_t size)
{
    if (!clocks_are_counted(device_clocks(s->virtio.dev))) {
        machine_random(out, size);
        return;
    }
    for (size_t n = 0; n < size; n += 8) {
        uint64_t number = next_number(s);

        memcpy(out + n, &number, size - n < 8 ? size - n : 8);
    }
}

static void rng_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_rng *s = container_of(virtio, struct virtio_rng, virtio);
    uint8_t bytes[MOST_BYTES];
    unsigned count = 0;

    while (!s->is_paused && count < REQUESTS_PER_KICK && virtqueue_pop(queue, &s->chain)) {
        size_t size = s->chain.in_bytes < MOST_BYTES ? (size_t)s->chain.in_bytes : MOST_BYTES;

        make_bytes(s, bytes, size);
        virtqueue_push(queue, &s->chain, virtio_chain_write(&s->chain, 0, bytes, size));
        count++;
    }
    virtqueue_notify(queue);
    if (count == REQUESTS_PER_KICK)
        virtio_kick_later(virtio); /* others want the lock, too */
}

static void rng_forget(struct virtio_device *virtio)
{
    (void)virtio; /* nothing is under way */
}

static void rng_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                            unsigned size)
{
    (void)virtio, (void)offset;
    memset(out, 0, size);
}

static const struct virtio_ops rng_ops = {
    .id = ID_ENTROPY,
    .read_config = rng_read_config,
    .kick = rng_kick,
    .reset = rng_forget,
};

static int rng_attach(struct device *dev, struct error *err)
{
    struct virtio_rng *s = rng_of(dev);

    s->virtio = (struct virtio_device){
        .ops = &rng_ops, .transport = &virtio_pci_transport, .dev = dev, .queue_count = 1};
    virtio_init(&s->virtio);
    return virtio_pci_attach(&s->pci, &s->virtio, PCI_CLASS_OTHER, err);
}

static void rng_detach(struct device *dev)
{
    virtio_pci_detach(&rng_of(dev)->pci);
}

static void rng_reset(struct device *dev)
{
    rng_of(dev)->place = 0;
    virtio_pci_reset(&rng_of(dev)->pci);
}

static void rng_quiesce(struct device *dev)
{
    rng_of(dev)->is_paused = true;
}

static void rng_resume(struct device *dev)
{
    struct virtio_rng *s = rng_of(dev);

    s->is_paused = false;
    virtio_kick_later(&s->virtio);
}

static int rng_after_load(void *object, struct error *err)
{
    return virtio_pci_after_load(&((struct virtio_rng *)object)->pci, err);
}

static const struct property rng_properties[] = {
    VIRTIO_PCI_PROPERTIES(struct virtio_rng, pci),
    PROPERTY_END,
};

static const struct state_field rng_state[] = {
    STATE_STRUCT(struct virtio_rng, pci, virtio_pci_state),
    VIRTIO_STATE(struct virtio_rng, virtio),
    STATE_U64(struct virtio_rng, place),
    STATE_END,
};

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .summary = "virtio entropy device on PCI",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct virtio_rng),
    .properties = rng_properties,
    .attach = rng_attach,
    .reset = rng_reset,
    .quiesce = rng_quiesce,
    .resume = rng_resume,
    .detach = rng_detach,
    .state = {.version = 1, .oldest = 1, .fields = rng_state, .after_load = rng_after_load},
};
