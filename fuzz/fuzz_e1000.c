/*
 * fuzz_e1000.c - a hostile driver of the 82540EM, and a hostile peer
 *
 * Steps are accesses to registers, ports and configuration space, descriptors of both rings, frames
 * from the other end of the link, time, pauses and saved states. The other end is a stream socket.
 * Claims: states survive a round trip; whatever happened, a reset makes it a card again that
 * receives and sends.
 */
#include <unistd.h>

#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/pci.h"

#define ECAM       (0xe0000000u + (3u << 15))
#define REGISTERS  0xc0400000u
#define PORTS      0xc000u
#define RAM_BYTES  (1u << 20)
#define TX_RING    0x8000u
#define RX_RING    0x9000u
#define DATA       0x80000u
#define PACKET     0xa000u

#define RCTL       0x0100u
#define TCTL       0x0400u
#define RX         0x2800u /* ring: base, high, length, then head and tail */
#define TX         0x3800u
#define ENABLE_ALL 0x0400801au /* promiscuous, no check sequence */

struct rig {
    struct device_test *t;
    struct device *card;
    struct net *net;
    int peer;
};

static void set(struct rig *r, uint32_t offset, uint32_t value)
{
    test_write(r->t, REGISTERS + offset, value, 4);
}

static void map(struct rig *r)
{
    test_write(r->t, ECAM + PCI_BAR0, REGISTERS, 4);
    test_write(r->t, ECAM + PCI_BAR0 + 4, PORTS, 4);
    test_write(r->t, ECAM + PCI_COMMAND, 7, 2);
}

/* Rings of 8 descriptors. */
static void begin_driver(struct rig *r, uint32_t rctl)
{
    map(r);
    set(r, TX, TX_RING);
    set(r, TX + 4, 0);
    set(r, TX + 8, 128);
    set(r, TX + 0x10, 0);
    set(r, RX, RX_RING);
    set(r, RX + 4, 0);
    set(r, RX + 8, 128);
    set(r, RX + 0x10, 0);
    for (unsigned n = 0; n < 8; n++) {
        uint64_t gpa = DATA + n * 0x4000;

        memcpy(r->t->ram.hva + RX_RING + 16 * n, &gpa, 8);
    }
    set(r, TCTL, 0xa);
    set(r, RCTL, rctl);
    set(r, RX + 0x18, 7);
}

/* An IPv4 packet with a TCP segment, as a descriptor's data. */
static void make_packet(struct rig *r, uint8_t *out)
{
    static const uint8_t packet[54] = {
        0xff,     0xff,        0xff,     0xff,     0xff,        0xff,       0x52, 0x54,
        [12] = 8, [14] = 0x45, [16] = 1, [23] = 6, [26] = 10,   0,          2,    15,
        10,       0,           2,        2,        [46] = 0x50, [47] = 0x18};

    (void)r;
    memcpy(out, packet, sizeof(packet));
}

static void put_descriptor(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint8_t *d = r->t->ram.hva + TX_RING + 16 * (what & 7);
    uint64_t gpa = what & 0x40 ? fuzz_take(in, 8) : PACKET;
    uint32_t size = what & 0x20 ? (uint32_t)fuzz_take(in, 3) : (uint32_t)fuzz_take(in, 2) % 2048;
    uint32_t middle = size | (uint32_t)fuzz_take(in, 1) << 24, high = (uint32_t)fuzz_take(in, 4);

    if (what & 0x10) /* a context that fits the packet */
        gpa = 14 | 24u << 8 | 33u << 16 | (34 | 50ull << 8) << 32;
    else if (what & 0x08)
        middle |= 1u << 20;
    make_packet(r, r->t->ram.hva + PACKET);
    memcpy(d, &gpa, 8);
    memcpy(d + 8, &middle, 4);
    memcpy(d + 12, &high, 4);
    set(r, TX + 0x18, ((what & 7) + 1) % 8);
}

static void access_register(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint16_t bases[8] = {0, 0x0c0, 0x100, 0x2800, 0x3800, 0x4000, 0x5200, 0x5400};
    uint32_t offset = bases[what >> 5] + (uint32_t)fuzz_take(in, 1);
    unsigned size = 1u << (what >> 1 & 3);

    if (what & 0x10)
        offset = (uint32_t)fuzz_take(in, 3) % 0x20000;
    if (what & 1)
        test_write(r->t, REGISTERS + offset, fuzz_take(in, 4), size);
    else
        test_read(r->t, REGISTERS + offset, size);
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
    uint8_t stream[4 + 20000] = {0, 0, (uint8_t)(size >> 8), (uint8_t)size};

    make_packet(r, stream + 4);
    for (size_t n = 0; n < size && n < 60 && in->left; n++)
        stream[4 + n] ^= (uint8_t)fuzz_take(in, 1);
    if (send(r->peer, stream, size + 4, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        run(r);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what % 16) {
    case 0:
        begin_driver(r, (uint32_t)fuzz_take(in, 4));
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        put_descriptor(r, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 5:
    case 6:
    case 7:
        access_register(r, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 8:
        if (what & 0x80)
            test_outl(r->t, PORTS, (uint32_t)fuzz_take(in, 4));
        else if (what & 0x40)
            test_outl(r->t, PORTS + 4, (uint32_t)fuzz_take(in, 4));
        else
            test_inl(r->t, PORTS + (what >> 2 & 12));
        break;
    case 9:
        test_write(r->t, ECAM + fuzz_take(in, 1), fuzz_take(in, 2), 1u << (what >> 4) % 3);
        break;
    case 10:
    case 11:
        peer_sends(r, in, 14 + fuzz_take(in, what & 0x10 ? 2 : 1) % 19000);
        break;
    case 12:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 24));
        run(r);
        break;
    case 13:
        set(r, RX + 0x18, (uint32_t)fuzz_take(in, 1) % 8);
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
    uint8_t frame[64] = {0, 0, 0, 60, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, got[64];
    uint32_t descriptor[4] = {PACKET, 0, 60 | 9u << 24, 0};

    FUZZ_LOCKED(r->t, net_accept(r->net)); /* what waited for buffers goes, the driver is away */
    begin_driver(r, ENABLE_ALL);
    run(r);
    FUZZ_CLAIM(send(r->peer, frame, 64, MSG_DONTWAIT) == 64);
    device_test_loop(r->t);
    FUZZ_CLAIM(test_read(r->t, REGISTERS + RX + 0x10, 4) == 1);
    FUZZ_CLAIM(r->t->ram.hva[RX_RING + 8] == 60 && r->t->ram.hva[RX_RING + 12] & 1);
    memcpy(r->t->ram.hva + TX_RING, descriptor, 16);
    set(r, TX + 0x18, 1);
    FUZZ_CLAIM(recv(r->peer, got, 64, MSG_DONTWAIT) == 64);
    FUZZ_CLAIM(r->t->ram.hva[TX_RING + 12] & 1);
}

static struct rig *rig(void)
{
    static struct rig r;
    struct error err = {0};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        r.net = fuzz_network(r.t->loop, &r.peer);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.card = device_test_create(r.t, &e1000_class, "addr=3");
        FUZZ_CLAIM(device_set_pointer(r.card, "network", r.net, &err) == 0);
        device_test_attach(r.card);
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    FUZZ_LOCKED(r.t, net_accept(r.net));
    run(&r);
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    begin_driver(&r, ENABLE_ALL);
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
