/*
 * fuzz_virtio_blk.c - a hostile driver of the virtio disk
 *
 * Steps are accesses to configuration space, registers, rings and descriptors, well-formed
 * requests, and saved states. Queues may lie at the end of RAM. Claims: what was given back was
 * given; states survive a round trip; whatever happened, a reset makes it a disk again that reads
 * what it holds. KIND says which transport it sits on.
 */
#include "base/guest_ram.h"
#include "devices/devices.h"
#include "fuzz_virtio.h"

#define DISK_BYTES (256u << 10)
#define QUEUES     2
#define HEADERS    0x80000u
#define DATA       0x90000u

struct rig {
    struct device_test *t;
    struct device *blk;
    struct virtio_driver d;
    struct driver_queue queues[QUEUES];
    bool is_honest; /* the input has only used the driver: all of its requests end */
};

#define KIND_PCI    0
#define KIND_MMIO   1
#define KIND_LEGACY 2
#ifndef KIND
#define KIND KIND_PCI
#endif

static void find(struct rig *r)
{
    if (KIND == KIND_MMIO)
        virtio_driver_find_mmio(&r->d, r->t, PLACE);
    else if (KIND == KIND_LEGACY)
        virtio_driver_find_legacy(&r->d, r->t, SLOT);
    else
        virtio_driver_find(&r->d, r->t, SLOT);
}

static void kick(struct rig *r, unsigned n)
{
    if (KIND == KIND_MMIO)
        test_write(r->t, PLACE + 0x50, n, 4);
    else if (KIND == KIND_LEGACY)
        test_outw(r->t, DRIVER_LEGACY_PORT + 0x10, (uint16_t)n);
    else
        test_write(r->t, 0xc0403000u + 4 * n, n, 2);
}

static void access_device(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    if (KIND == KIND_MMIO)
        access_place(r->t, in, what);
    else if (KIND == KIND_LEGACY && what & 0x40)
        access_ports(r->t, in, what);
    else
        access_registers(r->t, in, what);
}

static uint32_t take_size(struct fuzz_input *in)
{
    static const uint32_t sizes[8] = {16, 1, 512, 4096, 513, 0, 0x10000, 0xffffffff};
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    return value < 0x80 ? sizes[value % 8] : (value & 0x7fu) * 16;
}

/* The first time is a guest's whole beginning; features and sizes come from the input. */
static void begin_driver(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    uint64_t features = VIRTIO_F_VERSION_1 | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                        (how & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
                        (how & 4 ? VIRTIO_F_EVENT_IDX : 0) | (how & 8 ? 0x7e00 : 0);

    find(r);
    r->d.next_gpa = how & 0x10 ? RAM_BYTES - (KIND == KIND_LEGACY ? 0x7000 : 0x2000) : AREA;
    if (how & 0x20 && KIND != KIND_MMIO)
        virtio_driver_use_msix(&r->d);
    virtio_driver_negotiate(&r->d, features);
    for (unsigned n = 0; n < QUEUES; n++)
        driver_queue_set_up(&r->queues[n], &r->d, n,
                            how & 1 ? 1 + (unsigned)fuzz_take(in, 1) % 20 : 1u << (how >> 6));
    virtio_driver_start(&r->d);
    r->is_honest = true;
}

static struct driver_queue *queue(struct rig *r, unsigned which)
{
    return &r->queues[which % QUEUES];
}

static bool has_queues(const struct rig *r)
{
    return r->queues[0].driver;
}

/* Of data: memory that holds nothing else, or anything. */
static struct driver_buffer take_buffer(struct rig *r, struct fuzz_input *in, bool write)
{
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    if (value < 0xc0)
        return (struct driver_buffer){DATA + value * 64u, value % 4 ? 512 : 128u << 10, write};
    r->is_honest = false;
    return (struct driver_buffer){take_gpa(in), take_size(in), write};
}

/* A request as a driver makes it, but for its numbers. */
static void add_request(struct rig *r, struct fuzz_input *in, struct driver_queue *q)
{
    static const uint8_t types[8] = {0, 1, 4, 8, 11, 13, 0, 99};
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint64_t header = HEADERS + (what >> 6) * 0x100u, range = header + 32;
    unsigned type = types[what & 7], used = 1;
    struct driver_buffer buffers[5] = {{header, 16, false}};

    test_write(r->t, header, type, 4);
    test_write(r->t, header + 8, fuzz_take(in, 2), 8);
    if (type == 11 || type == 13) {
        test_write(r->t, range, fuzz_take(in, 2), 8);
        test_write(r->t, range + 8, fuzz_take(in, 2), 4);
        test_write(r->t, range + 12, fuzz_take(in, 1) % 4, 4);
        buffers[used++] = (struct driver_buffer){range, 16, false};
    }
    for (unsigned n = what >> 3 & 3; n && used < 4; n--)
        buffers[used++] = take_buffer(r, in, type != 1);
    buffers[used++] = (struct driver_buffer){header + 16, 1, true};
    if (what & 0x20 && q->free && r->d.features & VIRTIO_F_INDIRECT_DESC &&
        r->d.next_gpa + 16 * used + 16 < (r->d.next_gpa < HEADERS ? HEADERS : RAM_BYTES))
        driver_queue_add_indirect(q, buffers, used);
    else if (q->free >= used)
        driver_queue_add(q, buffers, used);
}

/* Take what was used, as long as its ids can be believed. */
static void take_used(struct rig *r, struct driver_queue *q)
{
    uint16_t id;
    uint32_t length;

    while (r->is_honest && driver_queue_take(q, &id, &length))
        ;
}

static void drain(struct rig *r)
{
    fuzz_pause(r->t, r->blk);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct driver_queue *q = queue(r, what >> 7);

    switch (what % 16) {
    case 0:
        begin_driver(r, in);
        break;
    case 1:
    case 2:
    case 3:
        if (has_queues(r))
            add_request(r, in, q);
        break;
    case 4:
    case 5:
        kick(r, what >> 7);
        take_used(r, q);
        break;
    case 6:
    case 7:
        r->is_honest = false;
        if (has_queues(r))
            write_descriptor(&r->d, in, q, take_size(in));
        break;
    case 8:
        r->is_honest = false;
        if (has_queues(r) && !q->packed)
            driver_queue_publish(q, (unsigned)fuzz_take(in, 1));
        break;
    case 9:
        r->is_honest = false;
        access_device(r, in);
        break;
    case 10:
        r->is_honest = false;
        (KIND == KIND_MMIO ? access_place : access_config)(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 11:
        r->is_honest = false;
        test_write(r->t, take_gpa(in), fuzz_take(in, 2), 2);
        break;
    case 12:
        drain(r);
        if (has_queues(r))
            take_used(r, q);
        break;
    case 13:
        device_test_advance_ns(r->t, 1000);
        device_test_loop(r->t);
        break;
    case 14:
        if (has_queues(r))
            driver_queue_set_used_event(q, (unsigned)fuzz_take(in, 1), what & 0x40);
        break;
    default:
        drain(r);
        r->is_honest = false;
        fuzz_change_state(in, r->t, r->blk, what & 0x80);
        break;
    }
}

/* All that an honest driver has asked for has ended. */
static void check_end(struct rig *r)
{
    drain(r);
    for (unsigned n = 0; n < QUEUES && r->is_honest; n++) {
        struct driver_queue *q = queue(r, n);

        kick(r, n);
        drain(r);
        take_used(r, q);
        FUZZ_CLAIM(driver_status(&r->d) == (KIND == KIND_LEGACY ? 0x07 : 0x0f));
        FUZZ_CLAIM(q->free == q->size);
    }
}

static void check_mended(struct rig *r)
{
    struct driver_queue *q = &r->queues[0];
    uint64_t header, status;
    struct driver_buffer buffers[3];

    find(r);
    FUZZ_CLAIM(virtio_driver_negotiate(&r->d, VIRTIO_F_VERSION_1));
    driver_queue_set_up(q, &r->d, 0, 4);
    virtio_driver_start(&r->d);
    header = virtio_driver_alloc(&r->d, 16, 16);
    status = virtio_driver_alloc(&r->d, 1, 1);
    *(r->t->ram.hva + status) = 0xaa;
    buffers[0] = (struct driver_buffer){header, 16, false};
    buffers[1] = (struct driver_buffer){virtio_driver_alloc(&r->d, 512, 1), 512, true};
    buffers[2] = (struct driver_buffer){status, 1, true};
    driver_queue_add(q, buffers, 3);
    driver_queue_kick(q);
    drain(r);
    take_used(r, q);
    FUZZ_CLAIM(r->t->ram.hva[status] == 0);
}

static struct rig *rig(void)
{
    static struct rig r;
    struct error err = {0};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        if (KIND == KIND_MMIO)
            device_test_add(r.t, &virtio_mmio_bus_class, "gpa=0xfec10000");
        else
            device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.blk =
            device_test_create(r.t, KIND == KIND_MMIO ? &virtio_blk_mmio_class : &virtio_blk_class,
                               KIND == KIND_MMIO     ? "queues=2"
                               : KIND == KIND_LEGACY ? "addr=3,queues=2,transitional=on"
                                                     : "addr=3,queues=2");
        FUZZ_CLAIM(device_set_pointer(r.blk, "drive", fuzz_disk(r.t->loop, DISK_BYTES), &err) == 0);
        device_test_attach(r.blk);
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    memset(r.queues, 0, sizeof(r.queues));
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    r.is_honest = false;
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left)
        step(r, &in);
    if (has_queues(r))
        check_end(r);
    else
        drain(r);
    if (size % 8 == 0) /* which takes as long as many steps */
        device_test_round_trip(r->t, r->blk);
    r->is_honest = true;
    check_mended(r);
    return 0;
}
