/*
 * fuzz_virtio_rng.c - a hostile driver of the virtio entropy device
 *
 * Steps are accesses to registers, configuration space, rings and descriptors, requests, time,
 * pauses and saved states. Claims: states survive a round trip; a reset mends the device.
 */
#include "devices/devices.h"
#include "fuzz_virtio.h"

#define DATA 0x80000u

struct rig {
    struct device_test *t;
    struct device *rng;
    struct virtio_driver d;
    struct driver_queue q;
};

static void begin_driver(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);

    virtio_driver_find(&r->d, r->t, SLOT);
    virtio_driver_negotiate(&r->d, (VIRTIO_F_VERSION_1 | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                                    (how & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                                    (how & 4 ? VIRTIO_F_EVENT_IDX : 0)) &
                                       virtio_driver_offered(&r->d));
    driver_queue_set_up(&r->q, &r->d, 0, 1u << (how >> 5));
    virtio_driver_start(&r->d);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct driver_buffer buffer = {DATA, what >> 4, true};

    switch (what % 8) {
    case 0:
        begin_driver(r, in);
        break;
    case 1:
        buffer.size_bytes = (uint32_t)fuzz_take(in, 3);
        buffer.gpa = what & 0x80 ? take_gpa(in) : DATA;
        if (r->q.driver && r->q.free)
            driver_queue_add(&r->q, &buffer, 1);
        test_write(r->t, 0xc0403000u, 0, 2);
        break;
    case 2:
        if (r->q.driver)
            write_descriptor(&r->d, in, &r->q, (uint32_t)fuzz_take(in, 2));
        break;
    case 3:
        if (r->q.driver && !r->q.packed)
            driver_queue_publish(&r->q, (unsigned)fuzz_take(in, 1));
        break;
    case 4:
        access_registers(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 5:
        access_config(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 6:
        FUZZ_LOCKED(r->t, r->rng->class->quiesce(r->rng));
        test_write(r->t, 0xc0403000u, 0, 2);
        FUZZ_LOCKED(r->t, r->rng->class->resume(r->rng));
        device_test_advance_ns(r->t, 1000);
        break;
    default:
        fuzz_change_state(in, r->t, r->rng, what & 0x80);
        break;
    }
}

static void check_mended(struct rig *r)
{
    struct driver_buffer buffer = {DATA, 64, true};
    uint16_t id;
    uint32_t length = 0;

    begin_again(&r->d, r->t, &r->q);
    driver_queue_add(&r->q, &buffer, 1);
    driver_queue_kick(&r->q);
    FUZZ_CLAIM(driver_queue_take(&r->q, &id, &length) && length == 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fuzz_input in = {data, size};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.rng = device_test_add(r.t, &virtio_rng_class, "addr=3");
        device_test_start(r.t);
    }
    start_over(r.t, &r.d, &r.q, sizeof(r.q));
    while (in.left)
        step(&r, &in);
    device_test_reset(r.t);
    check_mended(&r);
    return 0;
}
