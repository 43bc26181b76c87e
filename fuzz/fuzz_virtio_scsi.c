/*
 * fuzz_virtio_scsi.c - a hostile driver of the virtio SCSI adapter and its disk
 *
 * Steps are commands of a table with bytes of the input, task management, descriptors, accesses to
 * registers and configuration space, and saved states. Claims: all requests of an honest driver
 * end; states survive a round trip; whatever happened, a reset makes it a disk again.
 */
#include "devices/devices.h"
#include "fuzz_virtio.h"

#define DISK_BYTES (256u << 10)
#define HEADERS    0x80000u
#define DATA       0x90000u
#define CONTROL    0
#define REQUESTS   1
#define HEAD_BYTES 51u
#define SENSE_END  108u

struct rig {
    struct device_test *t;
    struct device *hba;
    struct virtio_driver d;
    struct driver_queue queues[2]; /* control, requests */
    bool is_honest;                /* the input has only used the driver: all of its requests end */
};

static void set_up_queues(struct rig *r, unsigned size)
{
    driver_queue_set_up(&r->queues[CONTROL], &r->d, 0, size);
    driver_queue_set_up(&r->queues[REQUESTS], &r->d, 2, size);
    virtio_driver_start(&r->d);
}

static void begin_driver(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);

    virtio_driver_find(&r->d, r->t, SLOT);
    r->d.next_gpa = AREA;
    if (how & 0x20)
        virtio_driver_use_msix(&r->d);
    virtio_driver_negotiate(&r->d, VIRTIO_F_VERSION_1 | (how & 1 ? VIRTIO_F_RING_PACKED : 0) |
                                       (how & 4 ? VIRTIO_F_EVENT_IDX : 0));
    set_up_queues(r, 4u << (how >> 6));
    r->is_honest = true;
}

static bool has_queues(const struct rig *r)
{
    return r->queues[0].driver;
}

static void take_used(struct rig *r)
{
    uint16_t id;
    uint32_t length;

    for (unsigned n = 0; n < 2; n++)
        while (r->is_honest && driver_queue_take(&r->queues[n], &id, &length))
            ;
}

static void drain(struct rig *r)
{
    fuzz_pause(r->t, r->hba);
}

static void kick(struct rig *r)
{
    test_write(r->t, r->d.notify, 0, 2);
    test_write(r->t, r->d.notify + 2 * r->d.notify_multiplier, 2, 2);
}

/* A command with its parameters from the input; data goes in, out, or not. */
static void add_command(struct rig *r, struct fuzz_input *in)
{
    static const uint8_t opcodes[32] = {0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b,
                                        0x1e, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42,
                                        0x55, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x93, 0x9e,
                                        0xa0, 0xa8, 0xaa, 0xaf, 0x28, 0x2a, 0x12, 0x5e};
    uint8_t what = (uint8_t)fuzz_take(in, 1), how = (uint8_t)fuzz_take(in, 1);
    uint64_t head = HEADERS + (how & 3) * 0x200u;
    uint8_t *bytes = r->t->ram.hva + head;
    uint32_t size = how & 4 ? 512u << (how >> 5) : (how >> 5) * 12u;
    struct driver_buffer buffers[3] = {{head, HEAD_BYTES, false}};
    struct driver_queue *q = &r->queues[REQUESTS];
    bool from_disk = how & 8;
    unsigned used = 1;

    if (q->free < 3)
        return;
    memset(bytes, 0, HEAD_BYTES);
    bytes[0] = 1;
    bytes[3] = how & 0x10 ? (uint8_t)fuzz_take(in, 1) : 0;
    bytes[19] = opcodes[what % 32];
    for (unsigned n = what >> 5; n; n--) {
        uint8_t at = (uint8_t)fuzz_take(in, 1);

        bytes[20 + at % 16] = (uint8_t)fuzz_take(in, 1);
    }
    if (size && !from_disk)
        buffers[used++] = (struct driver_buffer){DATA + (how >> 6) * 64u, size, false};
    buffers[used++] = (struct driver_buffer){head + 64, SENSE_END, true};
    if (size && from_disk)
        buffers[used++] = (struct driver_buffer){DATA + (how >> 6) * 64u, size, true};
    driver_queue_add(q, buffers, used);
}

static void add_control(struct rig *r, struct fuzz_input *in)
{
    struct driver_queue *q = &r->queues[CONTROL];
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    uint64_t head = HEADERS + 0x800 + (how & 8) * 8u; /* their lengths differ */
    struct driver_buffer buffers[2] = {{head, 24, false}, {head + 32, how & 8 ? 5 : 1, true}};

    if (q->free < 2)
        return;
    test_write(r->t, head, how & 8 ? 1 : 0, 4);
    test_write(r->t, head + 4, how >> 4, 4);
    test_write(r->t, head + 8, 1, 8);
    driver_queue_add(q, buffers, 2);
}

/* Bytes of parameter lists: of MODE SELECT, UNMAP and WRITE SAME. */
static void fill_data(struct rig *r, struct fuzz_input *in)
{
    uint8_t at = (uint8_t)fuzz_take(in, 1);

    test_write(r->t, DATA + at % 0xc0u, fuzz_take(in, 4), 4);
}

static void change_state(struct rig *r, struct fuzz_input *in, bool hostile)
{
    drain(r);
    if (hostile)
        r->is_honest = false;
    fuzz_change_state(in, r->t, r->hba, hostile);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    if (what % 16 && !has_queues(r))
        return;
    switch (what % 16) {
    case 0:
        begin_driver(r, in);
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        add_command(r, in);
        break;
    case 5:
        add_control(r, in);
        break;
    case 6:
    case 7:
        fill_data(r, in);
        break;
    case 8:
    case 9:
        kick(r);
        drain(r);
        take_used(r);
        break;
    case 10:
        r->is_honest = false;
        write_descriptor(&r->d, in, &r->queues[what >> 7], (uint32_t)fuzz_take(in, 2));
        break;
    case 11:
        r->is_honest = false;
        access_registers(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 12:
        r->is_honest = false;
        access_config(r->t, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 13:
        device_test_advance_ns(r->t, 1000);
        device_test_loop(r->t);
        break;
    case 14:
        kick(r);
        break;
    default:
        change_state(r, in, what & 0x80);
        break;
    }
}

/* All that an honest driver has asked for has ended. */
static void check_end(struct rig *r)
{
    kick(r);
    drain(r);
    take_used(r);
    FUZZ_CLAIM(driver_status(&r->d) == 0x0f);
    FUZZ_CLAIM(r->queues[0].free == r->queues[0].size && r->queues[1].free == r->queues[1].size);
}

/* A unit attention, then it reads. */
static void check_mended(struct rig *r)
{
    struct driver_buffer buffers[3] = {
        {HEADERS, HEAD_BYTES, false}, {HEADERS + 64, SENSE_END, true}, {DATA, 512, true}};
    uint8_t *head = r->t->ram.hva + HEADERS;

    virtio_driver_find(&r->d, r->t, SLOT);
    r->d.next_gpa = AREA;
    FUZZ_CLAIM(virtio_driver_negotiate(&r->d, VIRTIO_F_VERSION_1));
    set_up_queues(r, 4);
    r->is_honest = true;
    memset(head, 0, HEAD_BYTES);
    head[0] = 1;
    head[19] = 0x28;
    head[27] = 1;
    for (unsigned n = 0; n < 2; n++) {
        driver_queue_add(&r->queues[REQUESTS], buffers, 3);
        kick(r);
        drain(r);
        take_used(r);
        FUZZ_CLAIM(r->queues[REQUESTS].free == 4);
        FUZZ_CLAIM(head[64 + 11] == 0 && head[64 + 10] == (n ? 0 : 2));
    }
}

static struct rig *rig(void)
{
    static struct rig r;
    struct error err = {0};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.hba = device_test_create(r.t, &virtio_scsi_class, "addr=3,queues=1");
        FUZZ_CLAIM(device_set_pointer(r.hba, "drive", fuzz_disk(r.t->loop, DISK_BYTES), &err) == 0);
        device_test_attach(r.hba);
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
    drain(r);
    if (r->is_honest)
        check_end(r);
    if (size % 8 == 0) /* which takes as long as many steps */
        device_test_round_trip(r->t, r->hba);
    check_mended(r);
    return 0;
}
