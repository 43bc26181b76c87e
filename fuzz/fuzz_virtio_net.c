/*
 * fuzz_virtio_net.c - a hostile driver of the virtio network card, and a hostile peer
 *
 * Steps are accesses to configuration space, registers, rings and descriptors, well-formed chains
 * of frames and commands, frames and bytes from the other end of the link, and saved states. The
 * other end is a stream socket. Claims: states survive a round trip; whatever happened, a reset
 * makes it a card again that receives and sends.
 */
#include <unistd.h>

#include "devices/devices.h"
#include "fuzz_virtio.h"

#define QUEUES 5
#define DATA   0x80000u

struct rig {
    struct device_test *t;
    struct device *card;
    struct net *net;
    int peer;
    struct virtio_driver d;
    struct driver_queue queues[QUEUES];
};

static void begin_driver(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    uint64_t features = (VIRTIO_F_VERSION_1 | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                         (how & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                         (how & 4 ? VIRTIO_F_EVENT_IDX : 0) | fuzz_take(in, 3)) &
                        virtio_driver_offered(&r->d);

    virtio_driver_find(&r->d, r->t, SLOT);
    r->d.next_gpa = how & 0x10 ? RAM_BYTES - 0x4000 : AREA;
    if (how & 0x20)
        virtio_driver_use_msix(&r->d);
    virtio_driver_negotiate(&r->d, features);
    for (unsigned n = 0; n < QUEUES; n++)
        driver_queue_set_up(&r->queues[n], &r->d, n,
                            how & 1 ? 1 + (unsigned)fuzz_take(in, 1) % 20 : 1u << (how >> 6) << 1);
    virtio_driver_start(&r->d);
}

static bool has_queues(const struct rig *r)
{
    return r->queues[0].driver;
}

/* Bytes of the input in guest memory, in up to four buffers. */
static void add_chain(struct rig *r, struct fuzz_input *in, struct driver_queue *q)
{
    struct driver_buffer buffers[4];
    unsigned count = 1 + (unsigned)fuzz_take(in, 1) % 4;

    for (unsigned n = 0; n < count; n++) {
        uint8_t what = (uint8_t)fuzz_take(in, 1);
        uint64_t gpa = DATA + (what & 0x3fu) * 0x400;
        uint32_t size = what & 0x40 ? (uint32_t)fuzz_take(in, 2) : (uint32_t)fuzz_take(in, 1);

        buffers[n] = (struct driver_buffer){gpa, size, what & 0x80};
        for (uint32_t k = 0; k < size && k < 80 && in->left && !(what & 0x80); k++)
            r->t->ram.hva[gpa + k] = (uint8_t)fuzz_take(in, 1);
    }
    if (q->free >= count)
        driver_queue_add(q, buffers, count);
}

/* What the peer was sent is thrown away. */
static void run(struct rig *r)
{
    static uint8_t bytes[1 << 16];

    device_test_loop(r->t);
    while (recv(r->peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        device_test_loop(r->t);
}

static void peer_sends(struct rig *r, struct fuzz_input *in, size_t size)
{
    uint8_t stream[4 + 2048] = {0, 0, (uint8_t)(size >> 8), (uint8_t)size};

    for (size_t n = 0; n < size && n < 40 && in->left; n++)
        stream[4 + n] = (uint8_t)fuzz_take(in, 1);
    if (send(r->peer, stream, size + 4, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        run(r);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct driver_queue *q = &r->queues[(what >> 4) % QUEUES];

    switch (what % 16) {
    case 0:
        begin_driver(r, in);
        break;
    case 1:
    case 2:
    case 3:
        if (has_queues(r))
            add_chain(r, in, q);
        break;
    case 4:
    case 5:
        test_write(r->t, 0xc0403000u + 4 * (what >> 4), what >> 4, 2);
        break;
    case 6:
        if (has_queues(r))
            write_descriptor(&r->d, in, q, (uint32_t)fuzz_take(in, 2));
        break;
    case 7:
        if (has_queues(r) && !q->packed)
            driver_queue_publish(q, (unsigned)fuzz_take(in, 1));
        break;
    case 8:
        access_registers(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 9:
        access_config(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 10:
        test_write(r->t, take_gpa(in), fuzz_take(in, 2), 2);
        break;
    case 11:
    case 12:
        peer_sends(r, in, 1 + fuzz_take(in, what & 0x10 ? 2 : 1) % 2048);
        break;
    case 13:
        device_test_advance_ns(r->t, 1000);
        run(r);
        break;
    case 14:
        FUZZ_LOCKED(r->t, r->card->class->quiesce(r->card));
        run(r);
        FUZZ_LOCKED(r->t, r->card->class->resume(r->card));
        break;
    default:
        fuzz_change_state(in, r->t, r->card, what & 0x80);
        break;
    }
}

/* Each end sends one, and the other gets it. */
static void check_mended(struct rig *r)
{
    struct driver_buffer in = {DATA, 2048, true}, out = {DATA + 4096, 12 + 60, false};
    uint8_t frame[64] = {0, 0, 0, 60, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, got[64];
    uint16_t id;
    uint32_t length = 0;

    FUZZ_LOCKED(r->t, net_accept(r->net)); /* what waited for buffers goes, the driver is away */
    virtio_driver_find(&r->d, r->t, SLOT);
    FUZZ_CLAIM(virtio_driver_negotiate(&r->d, VIRTIO_F_VERSION_1));
    driver_queue_set_up(&r->queues[0], &r->d, 0, 4);
    driver_queue_set_up(&r->queues[1], &r->d, 1, 4);
    run(r);
    virtio_driver_start(&r->d);
    driver_queue_add(&r->queues[0], &in, 1);
    driver_queue_kick(&r->queues[0]);
    FUZZ_CLAIM(send(r->peer, frame, 64, MSG_DONTWAIT) == 64);
    device_test_loop(r->t);
    FUZZ_CLAIM(driver_queue_take(&r->queues[0], &id, &length) && length == 72);
    memset(r->t->ram.hva + out.gpa, 0, 12 + 60);
    driver_queue_add(&r->queues[1], &out, 1);
    driver_queue_kick(&r->queues[1]);
    FUZZ_CLAIM(recv(r->peer, got, 64, MSG_DONTWAIT) == 64);
}

static struct rig *rig(void)
{
    static struct rig r;
    struct error err = {0};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        r.net = fuzz_network(r.t->loop, &r.peer);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.card = device_test_create(r.t, &virtio_net_class, "addr=3,queues=2");
        FUZZ_CLAIM(device_set_pointer(r.card, "network", r.net, &err) == 0);
        device_test_attach(r.card);
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    FUZZ_LOCKED(r.t, net_accept(r.net));
    run(&r);
    memset(r.queues, 0, sizeof(r.queues));
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    virtio_driver_find(&r.d, r.t, SLOT);
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left)
        step(r, &in);
    device_test_reset(r->t);
    check_mended(r);
    return 0;
}
