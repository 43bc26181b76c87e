/*
 * fuzz_virtio_console.c - a hostile driver of the virtio console and of named ports
 *
 * A bit of the first byte says which. Steps are accesses to registers, configuration space, rings
 * and descriptors, bytes from the host, a backend that takes some, peers that come and go, time,
 * pauses and saved states. Claims: states survive a round trip; a reset mends the device; what the
 * backend did not take is not lost on the way.
 */
#include "devices/devices.h"
#include "devices/virtio/console.h"
#include "fuzz_virtio.h"
#include "trapeze/chardev.h"

#define DATA   0x80000u
#define QUEUES 8u
#define PORTS  2u

struct rig {
    struct device_test *t;
    struct device *console;
    struct virtio_driver d;
    struct driver_queue q[QUEUES];
    struct chardev chardev[PORTS];
    size_t room, input; /* bytes */
    uint16_t columns;
};

static struct rig rigs[2], *r; /* a console, ports */

/* ---- a backend ---- */

static void backend_accept_input(struct chardev *chardev)
{
    static const uint8_t data[64];
    size_t size;

    while (r->input && (size = chardev_room(chardev))) {
        size = size < r->input ? size : r->input;
        size = size < sizeof(data) ? size : sizeof(data);
        r->input -= size;
        chardev_deliver(chardev, data, size);
    }
}

static size_t backend_send(struct chardev *chardev, const uint8_t *data, size_t size)
{
    size_t taken = size < r->room ? size : r->room;

    (void)data;
    r->room -= taken;
    backend_accept_input(chardev); /* it may answer at once */
    return taken;
}

static bool backend_window(struct chardev *chardev, uint16_t *out_columns, uint16_t *out_rows)
{
    (void)chardev;
    *out_columns = *out_rows = r->columns;
    return true;
}

static const struct chardev_ops backend_ops = {.name = "fuzz",
                                               .send = backend_send,
                                               .accept_input = backend_accept_input,
                                               .window = backend_window};

/* ---- steps ---- */

static unsigned queue_count(void)
{
    return r == &rigs[0] ? 2 : QUEUES;
}

static void add_chain(struct fuzz_input *in, uint8_t what)
{
    struct driver_queue *q = &r->q[fuzz_take(in, 1) % queue_count()];
    struct driver_buffer buffer = {DATA, (uint32_t)fuzz_take(in, 2), !(q->index & 1)};

    if (what & 0x20)
        buffer.write = !buffer.write;
    if (what & 0x40)
        buffer.gpa = take_gpa(in);
    else if (!buffer.write)
        for (unsigned n = 0; n < 8; n++)
            r->t->ram.hva[DATA + n] = n & 1 ? 0 : (uint8_t)(fuzz_take(in, 1) & 7);
    if (q->driver && q->free)
        driver_queue_add(q, &buffer, 1);
    notify_queue(r->t, q->index);
}

static void act_as_host(struct fuzz_input *in, uint8_t what)
{
    struct chardev *chardev = &r->chardev[what >> 7];

    switch (what >> 4 & 7) {
    case 0:
    case 1:
        r->room += fuzz_take(in, 2);
        chardev_notify_can_send(chardev);
        break;
    case 2:
    case 3:
        r->input += fuzz_take(in, 2);
        backend_accept_input(chardev);
        break;
    case 4:
        r->columns = (uint16_t)fuzz_take(in, 1);
        chardev_notify_resized(chardev);
        break;
    default:
        chardev_set_connected(chardev, what & 0x10);
        break;
    }
}

static void step(struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned kind = what % (3 + COMMON_STEPS);

    if (kind == 0)
        begin_queues(&r->d, r->t, r->q, queue_count(), (uint8_t)fuzz_take(in, 1),
                     what & 0x80 ? 0 : 7);
    else if (kind == 1)
        add_chain(in, what);
    else if (kind == 2)
        FUZZ_LOCKED(r->t, act_as_host(in, (uint8_t)fuzz_take(in, 1)));
    else
        common_step(r->t, r->console, &r->d, &r->q[(what >> 4) % QUEUES], in, kind - 3, what);
}

/* Six bytes, of which the backend takes two and then the rest. */
static void check_mended(void)
{
    unsigned queue = r == &rigs[0] ? 1 : 5;
    struct driver_buffer buffer = {DATA, 6, false};
    uint16_t id;
    uint32_t length;

    virtio_driver_find(&r->d, r->t, SLOT);
    FUZZ_CLAIM(
        virtio_driver_negotiate(&r->d, (VIRTIO_F_VERSION_1 | 7) & virtio_driver_offered(&r->d)));
    driver_queue_set_up(&r->q[queue], &r->d, queue, 4);
    virtio_driver_start(&r->d);
    r->room = 2;
    driver_queue_add(&r->q[queue], &buffer, 1);
    driver_queue_kick(&r->q[queue]);
    FUZZ_CLAIM(!driver_queue_take(&r->q[queue], &id, &length) && !r->room);
    r->room = 10;
    FUZZ_LOCKED(r->t, chardev_notify_can_send(&r->chardev[0]));
    FUZZ_CLAIM(driver_queue_take(&r->q[queue], &id, &length) && r->room == 6);
}

static void open_rig(void)
{
    struct error err = {0};

    r->t = device_test_new(RAM_BYTES);
    device_test_add(r->t, &pci_host_class, "ecam=0xe0000000");
    r->console = device_test_create(r->t, &virtio_console_class, "addr=3");
    for (unsigned n = 0; n < PORTS; n++)
        r->chardev[n].ops = &backend_ops;
    if (r == &rigs[0])
        device_set_pointer(r->console, "chardev", &r->chardev[0], &err);
    else
        for (unsigned n = 0; n < PORTS; n++)
            virtio_console_add_port(r->console, n ? "second" : "first", &r->chardev[n], &err);
    device_test_attach(r->console);
    device_test_start(r->t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};

    r = &rigs[fuzz_take(&in, 1) & 1];
    if (!r->t)
        open_rig();
    device_test_reset(r->t);
    memset(r->q, 0, sizeof(r->q));
    memset(r->t->ram.hva, 0, r->t->ram.size_bytes);
    r->room = r->input = 0;
    virtio_driver_find(&r->d, r->t, SLOT);
    while (in.left)
        step(&in);
    r->input = 0;
    device_test_reset(r->t);
    check_mended();
    return 0;
}
