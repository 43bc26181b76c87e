/*
 * fuzz_virtio_vsock.c - a hostile driver of virtio sockets, and clients on the host
 *
 * Steps are accesses to registers, configuration space, rings and descriptors, packets, clients
 * that connect, write, read and go, time, pauses and saved states. Claims: states survive a round
 * trip; a reset mends the device.
 */
#include <fcntl.h>
#include <sys/un.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "fuzz_virtio.h"
#include "trapeze/vsock.h"

#define DATA    0x80000u
#define ROOM    0x90000u
#define QUEUES  3u
#define CLIENTS 4u
#define HEADER  44u

struct rig {
    struct device_test *t;
    struct device *dev;
    struct vsock *host;
    struct virtio_driver d;
    struct driver_queue q[QUEUES];
    char path[64];
    int listener, clients[CLIENTS];
};

static void run_loop(struct rig *r)
{
    for (unsigned n = 0; n < 3; n++)
        device_test_loop(r->t);
}

static void add(struct rig *r, unsigned queue, uint64_t gpa, uint32_t size)
{
    struct driver_buffer buffer = {gpa, size, queue != 1};

    if (r->q[queue].driver && r->q[queue].free)
        driver_queue_add(&r->q[queue], &buffer, 1);
    notify_queue(r->t, queue);
}

/* Ports of the host: one where somebody listens, one where nobody does, those of clients. */
static void send_packet(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint8_t *h = r->t->ram.hva + DATA;
    uint8_t ports = (uint8_t)fuzz_take(in, 1);
    uint32_t size = what & 0x40 ? (uint32_t)fuzz_take(in, 2) : what >> 4 & 3;

    memset(h, 0, HEADER);
    put_le64(h, 3);
    put_le64(h + 8, 2);
    put_le32(h + 16, ports & 7);
    put_le32(h + 20, ports & 0x80 ? 0x40000000 + (ports >> 3 & 7) : 1 + (ports >> 3 & 1));
    put_le32(h + 24, size);
    put_le16(h + 28, 1);
    put_le16(h + 30, (uint16_t)(fuzz_take(in, 1) & 7));
    put_le32(h + 32, ports >> 5);
    put_le32(h + 36, (uint32_t)fuzz_take(in, 2));
    put_le32(h + 40, (uint32_t)fuzz_take(in, 1));
    if (what & 0x80)
        h[fuzz_take(in, 1) % HEADER] = (uint8_t)fuzz_take(in, 1);
    add(r, 1, DATA, HEADER + size);
    run_loop(r);
}

static void connect_client(struct rig *r, int *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(address.sun_path, r->path);
    *client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(*client, (struct sockaddr *)&address, sizeof(address)) == 0)
        return;
    close(*client);
    *client = -1;
}

static void close_client(int *client)
{
    if (*client >= 0)
        close(*client);
    *client = -1;
}

static void act_as_host(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    int *client = &r->clients[what >> 3 & 3];
    char data[300];
    unsigned size;

    switch (what & 7) {
    case 0:
    case 1:
        close_client(client);
        connect_client(r, client);
        size = (unsigned)snprintf(data, sizeof(data), "CONNECT %u%s", what >> 5,
                                  what & 1 ? "\n" : "\nmore");
        if (*client >= 0)
            send(*client, data, size, MSG_NOSIGNAL);
        break;
    case 2:
        close_client(client);
        *client = accept4(r->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        break;
    case 3:
        size = (unsigned)fuzz_take(in, 1);
        memset(data, 'd', sizeof(data));
        send(*client, data, size, MSG_NOSIGNAL);
        break;
    case 4:
        while (recv(*client, data, sizeof(data), 0) > 0)
            ;
        break;
    case 5:
        shutdown(*client, what & 0x80 ? SHUT_RD : SHUT_WR);
        break;
    default:
        close_client(client);
        break;
    }
    run_loop(r);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned kind = what % (5 + COMMON_STEPS);

    if (kind == 0)
        begin_queues(&r->d, r->t, r->q, QUEUES, (uint8_t)fuzz_take(in, 1), 1);
    else if (kind <= 2)
        send_packet(r, in, (uint8_t)fuzz_take(in, 1));
    else if (kind == 3)
        add(r, what & 0x10 ? 2 : 0, what & 0x80 ? take_gpa(in) : ROOM, (uint32_t)fuzz_take(in, 2));
    else if (kind == 4)
        act_as_host(r, in, (uint8_t)fuzz_take(in, 1));
    else
        common_step(r->t, r->dev, &r->d, &r->q[(what >> 4) % QUEUES], in, kind - 5, what);
}

/* A connection to where nobody listens is refused. */
static void check_mended(struct rig *r)
{
    uint8_t *h = r->t->ram.hva + DATA;
    bool found = false;
    uint32_t length;
    uint16_t id;

    virtio_driver_find(&r->d, r->t, SLOT);
    FUZZ_CLAIM(virtio_driver_negotiate(&r->d, VIRTIO_F_VERSION_1));
    for (unsigned n = 0; n < QUEUES; n++)
        driver_queue_set_up(&r->q[n], &r->d, n, 4);
    virtio_driver_start(&r->d);
    memset(h, 0, HEADER);
    put_le64(h, 3);
    put_le64(h + 8, 2);
    put_le32(h + 16, 100);
    put_le32(h + 20, 2);
    put_le16(h + 28, 1);
    put_le16(h + 30, 1);
    add(r, 0, ROOM, 256);
    add(r, 1, DATA, HEADER);
    for (unsigned n = 0; n < 100000 && !found; n++) {
        device_test_loop(r->t);
        found = driver_queue_take(&r->q[0], &id, &length);
    }
    FUZZ_CLAIM(found && get_le16(r->t->ram.hva + ROOM + 30) == 3);
}

static void open_rig(struct rig *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct error err = {0};

    snprintf(r->path, sizeof(r->path), "/tmp/fuzz-vsock-%d", (int)getpid());
    snprintf(address.sun_path, sizeof(address.sun_path), "%s_1", r->path);
    unlink(address.sun_path);
    r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_CLAIM(!bind(r->listener, (struct sockaddr *)&address, sizeof(address)) &&
               !listen(r->listener, 8));
    unlink(r->path);
    r->t = device_test_new(RAM_BYTES);
    r->host = vsock_open(r->path, false, &err);
    FUZZ_CLAIM(r->host && !vsock_start(r->host, r->t->loop, &err));
    device_test_add(r->t, &pci_host_class, "ecam=0xe0000000");
    r->dev = device_test_create(r->t, &virtio_vsock_class, "addr=3");
    device_set_pointer(r->dev, "host", r->host, &err);
    device_test_attach(r->dev);
    device_test_start(r->t);
    for (unsigned n = 0; n < CLIENTS; n++)
        r->clients[n] = -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fuzz_input in = {data, size};
    int fd;

    if (!r.t)
        open_rig(&r);
    start_over(r.t, &r.d, r.q, sizeof(r.q));
    while (in.left)
        step(&r, &in);
    device_test_reset(r.t);
    check_mended(&r);
    for (unsigned n = 0; n < CLIENTS; n++)
        close_client(&r.clients[n]);
    while ((fd = accept4(r.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
    device_test_reset(r.t);
    run_loop(&r);
    return 0;
}
