/*
 * fuzz_virtio_9p.c - a hostile driver of the virtio 9P device
 *
 * Steps are accesses to configuration space, registers, rings and descriptors, chains that may be
 * messages, and saved states. The share is a process that serves an empty folder, read only.
 * Claims: states survive a round trip; whatever happened, a reset mends it.
 */
#include <unistd.h>

#include "devices/devices.h"
#include "fuzz_virtio.h"
#include "trapeze/share.h"

#define DATA 0x80000u

struct rig {
    struct device_test *t;
    struct device *dev;
    struct virtio_driver d;
    struct driver_queue q;
};

static void begin_driver(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    uint64_t features = VIRTIO_F_VERSION_1 | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                        (how & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                        (how & 4 ? VIRTIO_F_EVENT_IDX : 0) | (how >> 3 & 1);

    virtio_driver_find(&r->d, r->t, SLOT);
    r->d.next_gpa = how & 0x10 ? RAM_BYTES - 0x4000 : AREA;
    if (how & 0x20)
        virtio_driver_use_msix(&r->d);
    virtio_driver_negotiate(&r->d, features);
    driver_queue_set_up(&r->q, &r->d, 0,
                        how & 1 ? 1 + (unsigned)fuzz_take(in, 1) % 20 : 1u << (how >> 6) << 1);
    virtio_driver_start(&r->d);
}

static void add_chain(struct rig *r, struct fuzz_input *in)
{
    struct driver_buffer buffers[4];
    unsigned count = 1 + (unsigned)fuzz_take(in, 1) % 4;

    for (unsigned n = 0; n < count; n++) {
        uint8_t what = (uint8_t)fuzz_take(in, 1);
        uint64_t gpa = DATA + (what & 0x3fu) * 0x400;
        uint32_t size = (uint32_t)fuzz_take(in, what & 0x40 ? 2 : 1);

        buffers[n] = (struct driver_buffer){gpa, size, what & 0x80};
        for (uint32_t k = 0; k < size && k < 60 && in->left && !(what & 0x80); k++)
            r->t->ram.hva[gpa + k] = (uint8_t)fuzz_take(in, 1);
    }
    if (r->q.free >= count)
        driver_queue_add(&r->q, buffers, count);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    bool has_queue = r->q.driver;

    switch (what % 12) {
    case 0:
        begin_driver(r, in);
        break;
    case 1:
    case 2:
        if (has_queue)
            add_chain(r, in);
        break;
    case 3:
    case 4:
        test_write(r->t, 0xc0403000u, 0, 2);
        break;
    case 5:
        if (has_queue)
            write_descriptor(&r->d, in, &r->q, (uint32_t)fuzz_take(in, 2));
        break;
    case 6:
        if (has_queue && !r->q.packed)
            driver_queue_publish(&r->q, (unsigned)fuzz_take(in, 1));
        break;
    case 7:
        access_registers(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 8:
        access_config(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 9:
        device_test_advance_ns(r->t, 1000);
        device_test_loop(r->t);
        break;
    case 10:
        FUZZ_LOCKED(r->t, r->dev->class->quiesce(r->dev));
        break;
    default:
        fuzz_change_state(in, r->t, r->dev, what & 0x80);
        break;
    }
}

static void check_mended(struct rig *r)
{
    struct driver_buffer buffers[2] = {{DATA, 21, false}, {DATA + 4096, 100, true}};
    uint16_t id;
    uint32_t length = 0;

    begin_again(&r->d, r->t, &r->q);
    memcpy(r->t->ram.hva + DATA, "\x15\0\0\0\x64\1\0\0\0\1\0\x08\0009P2000.L", 21);
    driver_queue_add(&r->q, buffers, 2);
    driver_queue_kick(&r->q);
    driver_queue_wait(&r->q, &id, &length);
    FUZZ_CLAIM(length == 21 && r->t->ram.hva[DATA + 4096 + 4] == 101);
}

static struct rig *rig(void)
{
    static char folder[] = "/tmp/trapeze-fuzz-9p-XXXXXX";
    static struct rig r;
    struct share *share;
    struct error err = {0};

    if (!r.t) {
        char description[64];

        FUZZ_CLAIM(mkdtemp(folder));
        snprintf(description, sizeof(description), "%s,readonly=on", folder);
        share = share_open(description, "share", true, &err);
        FUZZ_CLAIM(share && rmdir(folder) == 0);
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.dev = device_test_create(r.t, &virtio_9p_class, "addr=3");
        FUZZ_CLAIM(device_set_pointer(r.dev, "share", share, &err) == 0);
        device_test_attach(r.dev);
        device_test_start(r.t);
    }
    start_over(r.t, &r.d, &r.q, sizeof(r.q));
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
