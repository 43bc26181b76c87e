/*
 * fuzz_virtio_balloon.c - a hostile driver of the virtio memory balloon
 *
 * Steps are accesses to registers, configuration space, rings and descriptors, lists of pages,
 * statistics, the host's wishes, time, pauses and saved states. Claims: states survive a round
 * trip; a reset mends the device; pages that were put into the balloon are zero.
 */
#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/balloon.h"
#include "fuzz_virtio.h"

#define DATA   0x80000u
#define QUEUES 5u

struct rig {
    struct device_test *t;
    struct device *balloon;
    struct virtio_driver d;
    struct driver_queue q[QUEUES];
};

static void add_chain(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct driver_queue *q = &r->q[fuzz_take(in, 1) % QUEUES];
    struct driver_buffer buffer = {DATA, (uint32_t)fuzz_take(in, 3), !(what & 0x10)};

    if (what & 0x20)
        buffer.gpa = take_gpa(in);
    else
        for (unsigned n = 0; n < (what >> 6) * 2u; n++)
            put_le32(r->t->ram.hva + DATA + 4 * n, (uint32_t)(take_gpa(in) >> 12));
    if (q->driver && q->free)
        driver_queue_add(q, &buffer, 1);
    notify_queue(r->t, q->index);
}

static void ignore(void *opaque, const char *name, uint64_t value)
{
    (void)opaque, (void)name, (void)value;
}

static void ask_host(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    if (what & 0x10)
        balloon_set_target(r->balloon, fuzz_take(in, 3));
    else
        balloon_ask(r->balloon);
    balloon_statistics(r->balloon, ignore, NULL);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned kind = what % (3 + COMMON_STEPS);

    if (kind == 0)
        begin_queues(&r->d, r->t, r->q, QUEUES, (uint8_t)fuzz_take(in, 1), what & 0x80 ? 0 : 0x2f);
    else if (kind == 1)
        add_chain(r, in, what);
    else if (kind == 2)
        FUZZ_LOCKED(r->t, ask_host(r, in, what));
    else
        common_step(r->t, r->balloon, &r->d, &r->q[(what >> 4) % QUEUES], in, kind - 3, what);
}

static void check_mended(struct rig *r)
{
    uint8_t *ram = r->t->ram.hva;
    struct driver_buffer list = {DATA, 4, false};
    uint16_t id;
    uint32_t length;

    begin_again(&r->d, r->t, &r->q[0]);
    put_le32(ram + DATA, (DATA + 0x1000) >> 12);
    ram[DATA + 0x1000] = ram[DATA + 0x2000] = 1;
    driver_queue_add(&r->q[0], &list, 1);
    driver_queue_kick(&r->q[0]);
    FUZZ_CLAIM(driver_queue_take(&r->q[0], &id, &length));
    FUZZ_CLAIM(!ram[DATA + 0x1000] && ram[DATA + 0x2000]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fuzz_input in = {data, size};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.balloon = device_test_add(r.t, &virtio_balloon_class, "addr=3,must-tell-host=on");
        device_test_start(r.t);
    }
    start_over(r.t, &r.d, r.q, sizeof(r.q));
    while (in.left)
        step(&r, &in);
    device_test_reset(r.t);
    check_mended(&r);
    return 0;
}
