/*
 * test_e1000.c - the 82540EM, driven as a guest's driver would; the other end of its link is a
 * socket of the test
 */
#include "cmocka_all.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/net_sum.h"
#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/net.h"
#include "trapeze/pci.h"

#define RAM_BYTES (4u << 20)
#define ECAM      0xe0000000ull
#define SLOT      3
#define REGISTERS 0xc0100000u
#define PORTS     0xc000u
#define TX_RING   0x10000u
#define RX_RING   0x20000u
#define TX_DATA   0x100000u
#define RX_DATA   0x200000u
#define RX_STRIDE 0x4000u
#define RING      8u /* descriptors */

#define CTRL      0x0000
#define STATUS    0x0008
#define EECD      0x0010
#define EERD      0x0014
#define MDIC      0x0020
#define VET       0x0038
#define ICR       0x00c0
#define ITR       0x00c4
#define ICS       0x00c8
#define IMS       0x00d0
#define IMC       0x00d8
#define RCTL      0x0100
#define TCTL      0x0400
#define RDBAL     0x2800
#define RDLEN     0x2808
#define RDH       0x2810
#define RDT       0x2818
#define RDTR      0x2820
#define RADV      0x282c
#define TDBAL     0x3800
#define TDLEN     0x3808
#define TDH       0x3810
#define TDT       0x3818
#define TIDV      0x3820
#define GPRC      0x4074
#define GPTC      0x4080
#define GOTCL     0x4090
#define GOTCH     0x4094
#define TSCTC     0x40f8
#define RXCSUM    0x5000
#define MTA       0x5200
#define RA        0x5400
#define VFTA      0x5600

#define VME       (1u << 30)
#define RST       (1u << 26)
#define EN        0x2u
#define UPE       0x8u
#define MPE       0x10u
#define LPE       0x20u
#define BAM       0x8000u
#define BSIZE_256 (3u << 16)
#define VFE       (1u << 18)
#define BSEX      (1u << 25)
#define SECRC     (1u << 26)
#define PSP       0x8u

#define TXDW      0x01u
#define TXQE      0x02u
#define LSC       0x04u
#define RXDMT0    0x10u
#define RXT0      0x80u

#define EOP       0x01u
#define IC        0x04u
#define TSE       0x04u
#define RS        0x08u
#define DEXT      0x20u
#define VLE       0x40u
#define IDE       0x80u

#define DD        0x01u
#define IXSM      0x04u
#define VP        0x08u
#define TCPCS     0x20u
#define IPCS      0x40u
#define TCP_WRONG 0x2000u
#define IP_WRONG  0x4000u

#define OWN       "\x52\x54\x00\x12\x34\x56"
#define OTHER     "\x52\x54\x00\x99\x99\x99"
#define BROADCAST "\xff\xff\xff\xff\xff\xff"
#define GROUP     "\x01\x00\x5e\x00\x00\x01"

struct fixture {
    struct device_test *t;
    struct device *card, *host;
    struct net *net;
    int peer;
    struct test_irq irq;
    unsigned tail;
};

static struct fixture f;

/* ---- the machine ---- */

static uint32_t get(unsigned offset)
{
    return (uint32_t)test_read(f.t, REGISTERS + offset, 4);
}

static void set(unsigned offset, uint32_t value)
{
    test_write(f.t, REGISTERS + offset, value, 4);
}

static void configure(unsigned offset, uint32_t value, unsigned size)
{
    test_write(f.t, ECAM + (SLOT << 15) + offset, value, size);
}

static void enable(void)
{
    configure(PCI_BAR0, REGISTERS, 4);
    configure(PCI_BAR0 + 4, PORTS, 4);
    configure(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

static int set_up(void **state)
{
    struct error err = {0};
    char description[32];
    int fds[2];

    (void)state;
    f = (struct fixture){.t = device_test_new(RAM_BYTES)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(description, sizeof(description), "socket,fd=%d", fds[0]);
    f.peer = fds[1];
    f.net = net_open(f.t->loop, description, &err);
    assert_non_null(f.net);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.card = device_test_create(f.t, &e1000_class, "addr=3,mac=52:54:00:12:34:56");
    assert_int_equal(device_set_pointer(f.card, "network", f.net, &err), 0);
    device_test_attach(f.card);
    test_irq_connect(&f.irq, device_output(f.host, "pirq", pci_pirq(SLOT, 1)));
    device_test_start(f.t);
    enable();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    machine_free(f.t->machine);
    f.t->machine = NULL;
    net_free(f.net);
    if (f.peer >= 0)
        close(f.peer);
    device_test_free(f.t);
    return 0;
}

/* ---- the other end ---- */

static void peer_sends(const void *frame, size_t size)
{
    uint8_t stream[70000] = {0, 0, (uint8_t)(size >> 8), (uint8_t)size};

    memcpy(stream + 4, frame, size);
    assert_int_equal(write(f.peer, stream, size + 4), size + 4);
    device_test_loop(f.t);
}

/* The size of the next frame, 0 if there is none. */
static size_t peer_gets(uint8_t *out)
{
    uint8_t head[4];
    size_t size;

    device_test_loop(f.t);
    if (read(f.peer, head, 4) != 4)
        return 0;
    size = (size_t)head[2] << 8 | head[3];
    assert_int_equal(read(f.peer, out, size), size);
    return size;
}

static size_t make_frame(uint8_t *out, const char *target, unsigned type, size_t size)
{
    for (size_t n = 0; n < size; n++)
        out[n] = (uint8_t)(n * 11);
    memcpy(out, target, 6);
    put_be16(out + 12, type);
    return size;
}

/* IPv4 with a TCP segment or a datagram; its sums are right, or TCP's begun for the card. */
static size_t make_packet(uint8_t *out, unsigned protocol, size_t data, bool is_begun)
{
    unsigned header = protocol == 6 ? 20 : 8, at = protocol == 6 ? 50 : 40;
    size_t size = 34 + header + data;
    uint8_t rest[4] = {0, (uint8_t)protocol};
    uint16_t sum;

    make_frame(out, OWN, 0x0800, size);
    memset(out + 14, 0, 20 + header);
    out[14] = 0x45;
    put_be16(out + 16, is_begun ? 0 : (unsigned)(size - 14));
    out[22] = 64;
    out[23] = (uint8_t)protocol;
    memcpy(out + 26, "\x0a\x00\x02\x02\x0a\x00\x02\x0f", 8);
    put_be16(out + 34, 80);
    put_be16(out + 36, 1234);
    if (protocol == 6) {
        out[46] = 0x50;
        out[47] = 0x18;
    } else {
        put_be16(out + 38, (unsigned)(size - 34));
    }
    if (!is_begun) {
        sum = (uint16_t)~net_sum(0, out + 14, 20);
        memcpy(out + 24, &sum, 2);
        put_be16(rest + 2, (unsigned)(size - 34));
    }
    sum = net_sum(net_sum(0, out + 26, 8), rest, 4);
    if (!is_begun)
        sum = (uint16_t)~net_sum(sum, out + 34, size - 34);
    memcpy(out + at, &sum, 2);
    return size;
}

static bool sums_are_right(const uint8_t *frame, size_t size)
{
    uint8_t rest[4] = {0, frame[23]};

    put_be16(rest + 2, (unsigned)(size - 34));
    return net_sum(0, frame + 14, 20) == 0xffff &&
           net_sum(net_sum(net_sum(0, frame + 26, 8), rest, 4), frame + 34, size - 34) == 0xffff;
}

/* ---- the driver ---- */

static void start(uint32_t rctl)
{
    set(TDBAL, TX_RING);
    set(TDLEN, RING * 16);
    set(TCTL, EN | PSP);
    set(RDBAL, RX_RING);
    set(RDLEN, RING * 16);
    for (unsigned n = 0; n < RING; n++) {
        memset(f.t->ram.hva + RX_RING + 16 * n, 0, 16);
        put_le64(f.t->ram.hva + RX_RING + 16 * n, RX_DATA + n * RX_STRIDE);
    }
    set(RCTL, EN | SECRC | rctl);
    set(RDT, RING - 1);
}

static uint8_t *descriptor(unsigned n)
{
    return f.t->ram.hva + TX_RING + 16 * (n % RING);
}

static void put_descriptor(uint64_t low, uint32_t middle, uint32_t high)
{
    uint8_t *d = descriptor(f.tail++);

    put_le64(d, low);
    put_le32(d + 8, middle);
    put_le32(d + 12, high);
}

static void go(void)
{
    set(TDT, f.tail % RING);
}

static uint64_t put_data(const void *frame, size_t size)
{
    static uint32_t next;
    uint64_t gpa = TX_DATA + (next++ % 8) * 0x12000;

    memcpy(f.t->ram.hva + gpa, frame, size);
    return gpa;
}

static void send_legacy(const void *frame, size_t size, unsigned command, uint32_t high)
{
    put_descriptor(put_data(frame, size), (uint32_t)size | command << 24, high);
    go();
}

static void put_context(unsigned command, unsigned segment, size_t payload, unsigned header)
{
    uint64_t ip = 14 | 24u << 8 | 33u << 16, tcp = 34 | 50u << 8;

    put_descriptor(ip | tcp << 32, (uint32_t)payload | (command | DEXT) << 24,
                   header << 8 | segment << 16);
}

static void send_data(const void *frame, size_t size, unsigned command, uint32_t high)
{
    put_descriptor(put_data(frame, size), (uint32_t)size | 1u << 20 | (command | DEXT) << 24, high);
    go();
}

struct received {
    unsigned length, sum, status, tag;
    const uint8_t *bytes;
};

static struct received received(unsigned n)
{
    const uint8_t *d = f.t->ram.hva + RX_RING + 16 * n;

    return (struct received){get_le16(d + 8), get_le16(d + 10), get_le16(d + 12), get_le16(d + 14),
                             f.t->ram.hva + RX_DATA + n * RX_STRIDE};
}

static bool arrives(const void *frame, size_t size)
{
    uint32_t before = get(RDH);

    peer_sends(frame, size);
    if (get(RDH) == before)
        return false;
    set(RDT, (get(RDH) + RING - 1) % RING);
    return true;
}

/* ---- registers, EEPROM, PHY ---- */

static void registers_are_what_the_manual_says(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, ECAM + (SLOT << 15), 4), 0x100e8086);
    assert_int_equal(get(STATUS), 0x283);
    assert_int_equal(get(VET), 0x8100);
    set(RDBAL, UINT32_MAX);
    assert_int_equal(get(RDBAL), 0xfffffff0);
    set(RDLEN, UINT32_MAX);
    assert_int_equal(get(RDLEN), 0xfff80);
    set(MTA + 4 * 127, 0x12345678);
    assert_int_equal(get(MTA + 4 * 127), 0x12345678);
    set(STATUS, 0);
    assert_int_equal(get(STATUS), 0x283);
    assert_int_equal(get(0x5ffc), 0);
    assert_int_equal(get(0x1fffc), 0);
    assert_int_equal(get(RA), 0x00005452 | 0x12u << 24);
    assert_int_equal(get(RA + 4), 0x80005634);
}

static void ports_lead_to_registers(void **state)
{
    (void)state;
    test_outl(f.t, PORTS, STATUS);
    assert_int_equal(test_inl(f.t, PORTS + 4), 0x283);
    test_outl(f.t, PORTS, VET);
    test_outl(f.t, PORTS + 4, 0x88a8);
    assert_int_equal(get(VET), 0x88a8);
    assert_int_equal(test_inl(f.t, PORTS), VET);
}

static unsigned eerd(unsigned address)
{
    set(EERD, address << 8 | 1);
    assert_true(get(EERD) & 0x10);
    return get(EERD) >> 16;
}

static void clock_bit(bool bit)
{
    uint32_t base = 0x42 | (bit ? 4 : 0);

    set(EECD, base);
    set(EECD, base | 1);
    set(EECD, base);
}

static void microwire(uint32_t bits, unsigned count)
{
    set(EECD, 0x40);
    set(EECD, 0x42);
    while (count--)
        clock_bit(bits >> count & 1);
}

/* As drivers do: what they read they write back. */
static unsigned shift_out(void)
{
    unsigned word = 0;

    for (unsigned n = 0; n < 16; n++) {
        set(EECD, get(EECD) | 1);
        word = word << 1 | (get(EECD) >> 3 & 1);
        set(EECD, get(EECD) & ~1u);
    }
    return word;
}

static void the_eeprom_is_read_both_ways(void **state)
{
    unsigned sum = 0;

    (void)state;
    for (unsigned n = 0; n < 64; n++)
        sum += eerd(n);
    assert_int_equal(sum & 0xffff, 0xbaba);
    assert_int_equal(eerd(0), 0x5452);
    set(EECD, 0x40);
    assert_int_equal(get(EECD) & 0x1c0, 0x1c0); /* granted, present */
    microwire(6u << 6 | 0, 9);
    assert_int_equal(shift_out(), 0x5452);
    assert_int_equal(shift_out(), 0x1200); /* the next one follows */
    microwire(6u << 6 | 0x3f, 9);
    assert_int_equal(shift_out(), eerd(63));
}

static void the_eeprom_is_written_when_that_is_enabled(void **state)
{
    (void)state;
    microwire((5u << 6 | 7) << 16 | 0xbeef, 25);
    set(EECD, 0x40);
    assert_int_equal(eerd(7), 0);
    microwire(4u << 6 | 0x30, 9);
    microwire((5u << 6 | 7) << 16 | 0xbeef, 25);
    set(EECD, 0x40);
    set(EECD, 0x42);
    assert_true(get(EECD) & 8); /* done */
    assert_int_equal(eerd(7), 0xbeef);
    microwire(7u << 6 | 7, 9);
    set(EECD, 0x40);
    assert_int_equal(eerd(7), 0xffff);
    microwire(4u << 6, 9);
    microwire((5u << 6 | 7) << 16 | 0x1234, 25);
    set(EECD, 0x40);
    assert_int_equal(eerd(7), 0xffff);
}

static unsigned phy(unsigned number)
{
    set(MDIC, 2u << 26 | 1u << 21 | number << 16);
    assert_int_equal(get(MDIC) >> 28, 1);
    return get(MDIC) & 0xffff;
}

static void set_phy(unsigned number, unsigned value)
{
    set(MDIC, 1u << 26 | 1u << 21 | number << 16 | value);
}

static void the_phy_has_its_registers(void **state)
{
    (void)state;
    assert_int_equal(phy(2), 0x0141);
    assert_int_equal(phy(3), 0x0c20);
    assert_int_equal(phy(1) & 0x24, 0x24);
    assert_int_equal(phy(17) & 0xec00, 0xac00);
    set_phy(4, 0x01e1);
    assert_int_equal(phy(4), 0x01e1);
    set_phy(2, 0);
    assert_int_equal(phy(2), 0x0141);
    set_phy(0, 0x1340); /* negotiate again */
    assert_int_equal(phy(0), 0x1140);
    assert_true(get(ICR) & LSC);
    set(MDIC, 2u << 26 | 2u << 21);
    assert_int_equal(get(MDIC) >> 28, 5); /* there is no other PHY */
    set_phy(0, 0x0800);
    assert_false(get(STATUS) & 2);
    assert_int_equal(phy(1) & 0x24, 0);
    set_phy(0, 0x8000);
    assert_int_equal(phy(0), 0x1140);
    assert_int_equal(phy(4), 0x0de1);
    assert_true(get(STATUS) & 2);
}

static void a_peer_that_goes_takes_the_link(void **state)
{
    (void)state;
    set(IMS, LSC);
    close(f.peer);
    f.peer = -1;
    device_test_loop(f.t);
    assert_true(f.irq.level);
    assert_int_equal(get(ICR), LSC);
    assert_false(get(STATUS) & 2);
}

static void resets_keep_the_eeprom(void **state)
{
    (void)state;
    start(0);
    set(IMS, LSC);
    set(ICS, LSC);
    assert_true(f.irq.level);
    set(RA, 0);
    set(CTRL, RST);
    assert_false(f.irq.level);
    assert_int_equal(get(CTRL) & RST, 0);
    assert_int_equal(get(RCTL), 0);
    assert_int_equal(get(TDLEN), 0);
    assert_int_equal(get(RA) & 0xffff, 0x5452);
    start(0);
    device_test_reset(f.t);
    enable();
    assert_int_equal(get(RCTL), 0);
    assert_int_equal(eerd(0), 0x5452);
}

/* ---- interrupts ---- */

static void causes_are_masked_and_cleared(void **state)
{
    (void)state;
    set(ICS, LSC | RXDMT0);
    assert_false(f.irq.level);
    set(IMS, LSC);
    assert_true(f.irq.level);
    assert_int_equal(get(IMS), LSC);
    set(IMC, LSC);
    assert_false(f.irq.level);
    set(IMS, LSC | RXDMT0);
    set(ICR, LSC);
    assert_true(f.irq.level);
    assert_int_equal(get(ICR), RXDMT0);
    assert_false(f.irq.level);
    assert_int_equal(get(ICR), 0);
}

static void interrupts_are_throttled(void **state)
{
    (void)state;
    set(ITR, 1000); /* 256 us */
    set(IMS, LSC);
    set(ICS, LSC);
    assert_true(f.irq.level);
    get(ICR);
    set(ICS, LSC);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 255000);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 2000);
    assert_true(f.irq.level);
}

static void receive_interrupts_wait(void **state)
{
    uint8_t frame[60];

    (void)state;
    make_frame(frame, OWN, 0x1234, 60);
    start(0);
    set(RDTR, 100);
    set(RADV, 150);
    set(IMS, RXT0);
    peer_sends(frame, 60);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 90 * 1024);
    peer_sends(frame, 60); /* puts it off, but not beyond RADV */
    device_test_advance_ns(f.t, 55 * 1024);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 10 * 1024);
    assert_true(f.irq.level);
    get(ICR);
    peer_sends(frame, 60);
    assert_false(f.irq.level);
    set(RDTR, 1u << 31 | 100); /* now */
    assert_true(f.irq.level);
}

/* ---- sending ---- */

static void legacy_frames_are_sent(void **state)
{
    uint8_t frame[1514], got[2048];

    (void)state;
    start(0);
    set(IMS, TXDW);
    make_frame(frame, OTHER, 0x1234, sizeof(frame));
    send_legacy(frame, 100, EOP | RS, 0);
    assert_int_equal(peer_gets(got), 100);
    assert_memory_equal(got, frame, 100);
    assert_int_equal(descriptor(0)[12], DD);
    assert_true(f.irq.level);
    assert_int_equal(get(ICR) & (TXDW | TXQE), TXDW | TXQE);
    assert_int_equal(get(TDH), 1);
    send_legacy(frame, 20, EOP, 0); /* short: padded; not asked for: not reported */
    assert_int_equal(peer_gets(got), 60);
    assert_int_equal(got[20], 0);
    assert_int_equal(descriptor(1)[12], 0);
    assert_int_equal(get(GPTC), 2);
    assert_int_equal(get(GPTC), 0);
    assert_int_equal(get(GOTCL), 104 + 64);
    assert_int_equal(get(GOTCL), 104 + 64);
    assert_int_equal(get(GOTCH), 0);
    assert_int_equal(get(GOTCL), 0);
}

static void a_frame_may_be_in_pieces(void **state)
{
    uint8_t frame[1514], got[2048];

    (void)state;
    start(0);
    make_frame(frame, OTHER, 0x1234, sizeof(frame));
    send_legacy(frame, 10, RS, 0);
    assert_int_equal(descriptor(0)[12], DD);
    send_legacy(frame + 10, 700, 0, 0);
    assert_int_equal(peer_gets(got), 0);
    device_test_round_trip(f.t, f.card);
    send_legacy(frame + 710, 804, EOP, 0);
    assert_int_equal(peer_gets(got), 1514);
    assert_memory_equal(got, frame, 1514);
}

static void frames_that_are_too_long_are_lost(void **state)
{
    static uint8_t frame[65535], got[70000];

    (void)state;
    start(0);
    make_frame(frame, OTHER, 0x1234, sizeof(frame));
    send_legacy(frame, 65535, 0, 0);
    send_legacy(frame, 65535, EOP | RS, 0);
    assert_int_equal(peer_gets(got), 0);
    assert_int_equal(descriptor(1)[12], DD);
    send_legacy(frame, 60, EOP, 0);
    assert_int_equal(peer_gets(got), 60);
}

static void begin_tcp_sum(uint8_t *frame, size_t size)
{
    uint8_t rest[4] = {0, 6};
    uint16_t sum;

    put_be16(rest + 2, (unsigned)(size - 34));
    sum = net_sum(net_sum(0, frame + 26, 8), rest, 4);
    memcpy(frame + 50, &sum, 2);
}

static void checksums_are_filled_in(void **state)
{
    uint8_t frame[1514], got[2048];
    size_t size = make_packet(frame, 6, 301, false);
    uint16_t ip_sum;

    (void)state;
    start(0);
    memcpy(&ip_sum, frame + 24, 2);
    put_be16(frame + 24, 0);
    begin_tcp_sum(frame, size);
    put_context(0, 0, 0, 0);
    send_data(frame, size, EOP, 3u << 8); /* both */
    assert_int_equal(peer_gets(got), size);
    assert_true(sums_are_right(got, size));
    send_data(frame, size, EOP, 2u << 8); /* TCP's only */
    assert_int_equal(peer_gets(got), size);
    assert_int_equal(get_be16(got + 24), 0);
    /* The legacy way: where the sum begins, and where it goes. */
    memcpy(frame + 24, &ip_sum, 2);
    put_descriptor(put_data(frame, size), (uint32_t)size | 50u << 16 | (EOP | IC) << 24, 34u << 8);
    go();
    assert_int_equal(peer_gets(got), size);
    assert_true(sums_are_right(got, size));
}

static void tcp_segments_are_cut(void **state)
{
    static uint8_t frame[70000], got[2048];
    size_t size = make_packet(frame, 6, 5000, true), total = 0;

    (void)state;
    start(0);
    put_context(TSE | 3, 1460, 5000, 54);
    send_data(frame, 54, TSE, 3u << 8); /* the headers by themselves */
    send_data(frame + 54, size - 54, TSE | EOP | RS, 0);
    for (unsigned n = 0; n < 4; n++) {
        size_t part = n < 3 ? 1460 : 5000 - 3 * 1460;

        assert_int_equal(peer_gets(got), 54 + part);
        assert_true(sums_are_right(got, 54 + part));
        assert_int_equal(get_be16(got + 16), 40 + part);
        assert_int_equal(get_be32(got + 38), total);
        assert_memory_equal(got + 54, frame + 54 + total, part);
        total += part;
    }
    assert_int_equal(peer_gets(got), 0);
    assert_int_equal(get(TSCTC), 1);
    /* The two contexts are two. */
    put_context(0, 0, 0, 0);
    send_data(frame, size, TSE | EOP, 3u << 8);
    for (unsigned n = 0; n < 4; n++)
        assert_int_not_equal(peer_gets(got), 0);
}

static void tags_are_put_in(void **state)
{
    uint8_t frame[100], got[2048];

    (void)state;
    start(0);
    make_frame(frame, OTHER, 0x1234, sizeof(frame));
    send_legacy(frame, 100, EOP | VLE, 0x2123u << 16);
    assert_int_equal(peer_gets(got), 100); /* not switched on */
    set(CTRL, VME);
    send_legacy(frame, 100, EOP | VLE, 0x2123u << 16);
    assert_int_equal(peer_gets(got), 104);
    assert_int_equal(get_be32(got + 12), 0x81002123);
    assert_memory_equal(got, frame, 12);
    assert_memory_equal(got + 16, frame + 12, 88);
}

static void a_slow_network_is_waited_for(void **state)
{
    static uint8_t frame[16000], got[70000];
    unsigned sent = 0, arrived = 0;

    (void)state;
    start(0);
    make_frame(frame, OTHER, 0x1234, sizeof(frame));
    while (get(TDH) == f.tail % RING && sent < 10000) {
        send_legacy(frame, sizeof(frame), EOP | RS, 0);
        sent++;
    }
    assert_true(sent < 10000);
    while (peer_gets(got) == sizeof(frame))
        arrived++;
    assert_int_equal(arrived, sent);
    assert_int_equal(get(TDH), f.tail % RING);
}

static void what_is_sent_can_come_back(void **state)
{
    uint8_t frame[100];

    (void)state;
    start(0);
    set_phy(0, 0x4140);
    make_frame(frame, OWN, 0x1234, sizeof(frame));
    send_legacy(frame, 100, EOP, 0);
    assert_int_equal(received(0).length, 100);
    assert_memory_equal(received(0).bytes, frame, 100);
}

/* ---- receiving ---- */

static void frames_are_received(void **state)
{
    uint8_t frame[1514];

    (void)state;
    start(0);
    set(IMS, RXT0);
    make_frame(frame, OWN, 0x1234, sizeof(frame));
    peer_sends(frame, 1514);
    assert_true(f.irq.level);
    assert_true(get(ICR) & RXT0);
    assert_int_equal(received(0).length, 1514);
    assert_int_equal(received(0).status & 0xff, DD | 2 | IXSM);
    assert_memory_equal(received(0).bytes, frame, 1514);
    assert_int_equal(received(0).sum, (uint16_t)~net_sum(0, frame, 1514));
    peer_sends(frame, 42); /* short frames are padded */
    assert_int_equal(received(1).length, 60);
    assert_int_equal(received(1).bytes[42], 0);
    assert_int_equal(get(GPRC), 2);
}

static void the_check_sequence_may_be_kept(void **state)
{
    uint8_t frame[60] = "123456789";

    (void)state;
    start(UPE | MPE);
    set(RCTL, EN | UPE | MPE);
    peer_sends(frame, 60);
    assert_int_equal(received(0).length, 64);
    assert_int_equal(get_le32(received(0).bytes + 60), 0x285969db);
}

static void large_frames_take_several_buffers(void **state)
{
    static uint8_t frame[9000];

    (void)state;
    start(BSIZE_256);
    make_frame(frame, OWN, 0x1234, sizeof(frame));
    assert_true(arrives(frame, 600));
    assert_int_equal(received(0).length, 256);
    assert_int_equal(received(0).status, DD);
    assert_int_equal(received(2).length, 600 - 512);
    assert_int_equal(received(2).status & 3, 3);
    assert_memory_equal(received(1).bytes, frame + 256, 256);
    assert_false(arrives(frame, 1515)); /* too long */
    assert_false(arrives(frame, 9000));
    set(RCTL, EN | SECRC | LPE | 1u << 16 | BSEX); /* 16 KiB */
    assert_true(arrives(frame, 9000));
    assert_int_equal(received(3).length, 9000);
    set(RCTL, EN | SECRC | LPE | BSIZE_256);
    assert_false(arrives(frame, 9000)); /* more than the ring has: lost */
    assert_true(arrives(frame, 60));
}

static void a_full_ring_makes_the_network_wait(void **state)
{
    uint8_t frame[60];

    (void)state;
    start(0);
    make_frame(frame, OWN, 0x1234, sizeof(frame));
    for (unsigned n = 0; n < 9; n++) {
        frame[20] = (uint8_t)n;
        peer_sends(frame, 60);
    }
    assert_int_equal(get(RDH), 7);
    assert_true(get(ICR) & RXDMT0);
    set(RDT, 1);
    assert_int_equal(get(RDH), 1);
    assert_int_equal(received(7).bytes[20], 7);
    assert_int_equal(received(0).bytes[20], 8);
}

static void addresses_are_filtered(void **state)
{
    uint8_t frame[60];

    (void)state;
    start(0);
    make_frame(frame, OTHER, 0x1234, 60);
    assert_false(arrives(frame, 60));
    memcpy(frame, OWN, 6);
    assert_true(arrives(frame, 60));
    memcpy(frame, BROADCAST, 6);
    assert_false(arrives(frame, 60));
    set(RCTL, EN | SECRC | BAM);
    assert_true(arrives(frame, 60));
    memcpy(frame, GROUP, 6);
    assert_false(arrives(frame, 60));
    set(MTA, 1u << 16); /* 0x0100 >> 4 = 0x010 */
    assert_true(arrives(frame, 60));
    set(RCTL, EN | SECRC | 1u << 12); /* 0x0100 >> 3 = 0x020 */
    assert_false(arrives(frame, 60));
    set(MTA + 4, 1);
    assert_true(arrives(frame, 60));
    set(RCTL, EN | SECRC | MPE);
    set(MTA + 4, 0);
    assert_true(arrives(frame, 60));
    memcpy(frame, OTHER, 6);
    assert_false(arrives(frame, 60));
    set(RA + 8 * 15, get_le32((const uint8_t *)OTHER));
    set(RA + 8 * 15 + 4, 0x80009999);
    assert_true(arrives(frame, 60));
    set(RA + 8 * 15 + 4, 0x00009999);
    assert_false(arrives(frame, 60));
    set(RCTL, EN | SECRC | UPE);
    assert_true(arrives(frame, 60));
    set(RCTL, SECRC | UPE);
    assert_false(arrives(frame, 60));
}

static void vlans_are_filtered_and_tags_taken_out(void **state)
{
    uint8_t frame[100];

    (void)state;
    start(0);
    make_frame(frame, OWN, 0x8100, sizeof(frame));
    put_be16(frame + 14, 0x6021); /* VLAN 33 */
    assert_true(arrives(frame, 100));
    assert_int_equal(received(0).length, 100);
    assert_false(received(0).status & VP);
    set(RCTL, EN | SECRC | VFE);
    assert_false(arrives(frame, 100));
    set(VFTA + 4, 2);
    set(CTRL, VME);
    assert_true(arrives(frame, 100));
    assert_int_equal(received(1).length, 96);
    assert_true(received(1).status & VP);
    assert_int_equal(received(1).tag, 0x6021);
    assert_memory_equal(received(1).bytes + 12, frame + 16, 84);
    make_frame(frame, OWN, 0x1234, sizeof(frame));
    assert_true(arrives(frame, 100)); /* without a tag */
}

static void checksums_are_checked(void **state)
{
    uint8_t frame[1514];
    size_t size = make_packet(frame, 6, 301, false);

    (void)state;
    start(0);
    set(RXCSUM, 0x300);
    assert_true(arrives(frame, size));
    assert_int_equal(received(0).status, DD | 2 | TCPCS | IPCS);
    frame[100]++;
    assert_true(arrives(frame, size));
    assert_int_equal(received(1).status, DD | 2 | TCPCS | IPCS | TCP_WRONG);
    frame[22]++;
    assert_true(arrives(frame, size));
    assert_int_equal(received(2).status, DD | 2 | TCPCS | IPCS | TCP_WRONG | IP_WRONG);
    size = make_packet(frame, 17, 100, false);
    assert_true(arrives(frame, size));
    assert_int_equal(received(3).status, DD | 2 | TCPCS | IPCS);
    frame[20] = 0x20; /* a fragment */
    assert_true(arrives(frame, size));
    assert_int_equal(received(4).status & 0xff, DD | 2 | IPCS);
    set(RXCSUM, 0x100);
    assert_true(arrives(frame, size));
    set(RXCSUM, 0);
    assert_true(arrives(frame, size));
    assert_int_equal(received(6).status, DD | 2 | IXSM);
}

static void without_bus_mastering_nothing_moves(void **state)
{
    uint8_t frame[60], got[64];

    (void)state;
    start(0);
    make_frame(frame, OWN, 0x1234, 60);
    configure(PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_false(arrives(frame, 60));
    send_legacy(frame, 60, EOP, 0);
    assert_int_equal(peer_gets(got), 0);
}

static void heads_beyond_the_ring_stand_still(void **state)
{
    uint8_t frame[60], got[64];

    (void)state;
    start(0);
    make_frame(frame, OWN, 0x1234, 60);
    set(TDH, 100);
    send_legacy(frame, 60, EOP, 0);
    assert_int_equal(peer_gets(got), 0);
    set(TDT, 200);
    set(RDH, 9);
    peer_sends(frame, 60);
    set(RDT, 0xffff);
    peer_sends(frame, 60);
    assert_int_equal(get(RDH), 9);
}

static void state_round_trip(void **state)
{
    (void)state;
    start(BAM);
    set(ITR, 1000);
    set(IMS, LSC);
    set(ICS, LSC);
    microwire(6u << 6, 9);
    set_phy(4, 0x01e1);
    device_test_round_trip(f.t, f.card);
    device_test_round_trip(f.t, f.host);
    assert_int_equal(get(RCTL), EN | SECRC | BAM);
    assert_int_equal(shift_out(), 0x5452);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_are_what_the_manual_says),
        TEST(ports_lead_to_registers),
        TEST(the_eeprom_is_read_both_ways),
        TEST(the_eeprom_is_written_when_that_is_enabled),
        TEST(the_phy_has_its_registers),
        TEST(a_peer_that_goes_takes_the_link),
        TEST(resets_keep_the_eeprom),
        TEST(causes_are_masked_and_cleared),
        TEST(interrupts_are_throttled),
        TEST(receive_interrupts_wait),
        TEST(legacy_frames_are_sent),
        TEST(a_frame_may_be_in_pieces),
        TEST(frames_that_are_too_long_are_lost),
        TEST(checksums_are_filled_in),
        TEST(tcp_segments_are_cut),
        TEST(tags_are_put_in),
        TEST(a_slow_network_is_waited_for),
        TEST(what_is_sent_can_come_back),
        TEST(frames_are_received),
        TEST(the_check_sequence_may_be_kept),
        TEST(large_frames_take_several_buffers),
        TEST(a_full_ring_makes_the_network_wait),
        TEST(addresses_are_filtered),
        TEST(vlans_are_filtered_and_tags_taken_out),
        TEST(checksums_are_checked),
        TEST(without_bus_mastering_nothing_moves),
        TEST(heads_beyond_the_ring_stand_still),
        TEST(state_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
