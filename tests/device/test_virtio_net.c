/*
 * test_virtio_net.c - the virtio network card, driven by a guest's driver; the other end of its
 * link is a socket of the test
 */
#include "cmocka_all.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/transport_pci.h"
#include "trapeze/net.h"
#include "virtio_driver.h"

#define SLOT          3
#define RAM_BYTES     (4u << 20)
#define HEADER        12u
#define V1            VIRTIO_F_VERSION_1
#define CSUM          (1ull << 0)
#define GUEST_CSUM    (1ull << 1)
#define OFFLOADS      (1ull << 2)
#define MTU           (1ull << 3)
#define MAC           (1ull << 5)
#define HOST_TSO4     (1ull << 11)
#define MERGE         (1ull << 15)
#define STATUS        (1ull << 16)
#define CTRL          (1ull << 17)
#define CTRL_RX       (1ull << 18)
#define CTRL_VLAN     (1ull << 19)
#define CTRL_RX_EXTRA (1ull << 20)
#define ANNOUNCE      (1ull << 21)
#define MQ            (1ull << 22)
#define CTRL_MAC      (1ull << 23)
#define FILTERS       (V1 | CTRL | CTRL_RX | CTRL_VLAN | CTRL_RX_EXTRA | CTRL_MAC)

enum { RECEIVE = 0, SEND = 1 };
enum { OK = 0, FAILED = 1, NO_ANSWER = 0xaa };

struct fixture {
    struct device_test *t;
    struct device *card;
    struct net *net;
    int peer;
    struct virtio_driver d;
    struct driver_queue receive, send, control;
};

static struct fixture f;

static void make_machine(const char *properties)
{
    struct error err = {0};
    char description[32];
    int fds[2];

    f = (struct fixture){.t = device_test_new_smp(RAM_BYTES, 2)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(description, sizeof(description), "socket,fd=%d", fds[0]);
    f.peer = fds[1];
    f.net = net_open(f.t->loop, description, &err);
    assert_non_null(f.net);
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.card = device_test_create(f.t, &virtio_net_class, properties);
    assert_int_equal(device_set_pointer(f.card, "network", f.net, &err), 0);
    device_test_attach(f.card);
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
}

static int set_up(void **state)
{
    (void)state;
    make_machine("addr=3,mac=52:54:00:12:34:56,mtu=1400");
    return 0;
}

static int set_up_transitional(void **state)
{
    (void)state;
    make_machine("addr=3,mac=52:54:00:12:34:56,transitional=on");
    assert_int_equal(driver_config_read(&f.d, PCI_DEVICE_ID, 2), 0x1000);
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

static void start(uint64_t features, unsigned size)
{
    bool has_pairs = features & MQ;

    assert_true(virtio_driver_negotiate(&f.d, features));
    driver_queue_set_up(&f.receive, &f.d, RECEIVE, size);
    driver_queue_set_up(&f.send, &f.d, SEND, size);
    if (features & CTRL)
        driver_queue_set_up(&f.control, &f.d, has_pairs ? 4 : 2, size);
    virtio_driver_start(&f.d);
    assert_int_equal(driver_status(&f.d), 0x0f);
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
    out[12] = (uint8_t)(type >> 8);
    out[13] = (uint8_t)type;
    return size;
}

#define OWN       "\x52\x54\x00\x12\x34\x56"
#define OTHER     "\x52\x54\x00\x99\x99\x99"
#define BROADCAST "\xff\xff\xff\xff\xff\xff"
#define GROUP     "\x01\x00\x5e\x00\x00\x01"

/* ---- the guest's end ---- */

static uint64_t add_receive_buffer(uint32_t size)
{
    struct driver_buffer buffer = {virtio_driver_alloc(&f.d, size, 16), size, true};

    driver_queue_add(&f.receive, &buffer, 1);
    return buffer.gpa;
}

static bool was_received(uint32_t *out_length)
{
    uint16_t id;

    return driver_queue_take(&f.receive, &id, out_length);
}

/* Header and frame in buffers of their own. */
static void guest_sends(const uint8_t header[HEADER], const void *frame, size_t size)
{
    struct driver_buffer buffers[2] = {
        {virtio_driver_alloc(&f.d, HEADER, 16), HEADER, false},
        {virtio_driver_alloc(&f.d, size, 16), (uint32_t)size, false},
    };

    memcpy(f.t->ram.hva + buffers[0].gpa, header, HEADER);
    memcpy(f.t->ram.hva + buffers[1].gpa, frame, size);
    driver_queue_add(&f.send, buffers, 2);
    driver_queue_kick(&f.send);
}

static unsigned command_with(unsigned class, unsigned number, const void *data, uint32_t size)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, size + 3, 16);
    struct driver_buffer buffers[3] = {
        {gpa, 2, false}, {gpa + 2, size, false}, {gpa + 2 + size, 1, true}};
    uint8_t *ram = f.t->ram.hva + gpa;
    uint16_t id;
    uint32_t length;

    ram[0] = (uint8_t) class;
    ram[1] = (uint8_t)number;
    memcpy(ram + 2, data, size);
    ram[2 + size] = NO_ANSWER;
    driver_queue_add(&f.control, buffers, 3);
    driver_queue_kick(&f.control);
    driver_queue_wait(&f.control, &id, &length);
    assert_int_equal(length, 1);
    return ram[2 + size];
}

static unsigned command(unsigned class, unsigned number, uint64_t value, uint32_t size)
{
    uint8_t bytes[8];

    put_le64(bytes, value);
    return command_with(class, number, bytes, size);
}

/* Does a frame to this address get through? */
static bool passes(const char *target, unsigned type)
{
    uint8_t frame[64];
    uint32_t length;

    add_receive_buffer(256);
    driver_queue_kick(&f.receive);
    while (was_received(&length))
        ;
    peer_sends(frame, make_frame(frame, target, type, sizeof(frame)));
    return was_received(&length);
}

/* ---- tests ---- */

static void configuration_says_what_the_card_is(void **state)
{
    (void)state;
    assert_int_equal(virtio_driver_offered(&f.d) & (MAC | STATUS | MTU | MQ | CTRL),
                     MAC | STATUS | MTU | MQ | CTRL);
    assert_true(virtio_driver_negotiate(&f.d, V1 | MAC | STATUS | MTU | MQ | CTRL));
    for (unsigned n = 0; n < 6; n++)
        assert_int_equal(test_read(f.t, f.d.config + n, 1), (uint8_t)OWN[n]);
    assert_int_equal(test_read(f.t, f.d.config + 6, 2), 1); /* the link is up */
    assert_int_equal(test_read(f.t, f.d.config + 8, 2), 2);
    assert_int_equal(test_read(f.t, f.d.config + 10, 2), 1400);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_COUNT, 2), 5);
}

static void frames_go_both_ways_on(uint64_t rings)
{
    uint8_t frame[1400], got[2048], header[HEADER] = {0};
    uint32_t length;
    uint16_t id;

    start(V1 | rings, 16);
    for (unsigned n = 0; n < 40; n++) { /* around the ring more than once */
        uint64_t gpa = add_receive_buffer(1600);

        driver_queue_kick(&f.receive);
        make_frame(frame, OWN, 0x0800, sizeof(frame));
        frame[20] = (uint8_t)n;
        peer_sends(frame, sizeof(frame));
        assert_true(was_received(&length));
        assert_int_equal(length, HEADER + sizeof(frame));
        assert_memory_equal(f.t->ram.hva + gpa + HEADER, frame, sizeof(frame));
        assert_int_equal(test_read(f.t, gpa, 8), 0);
        assert_int_equal(test_read(f.t, gpa + 10, 2), 1); /* buffers */

        guest_sends(header, frame, sizeof(frame));
        assert_int_equal(peer_gets(got), sizeof(frame));
        assert_memory_equal(got, frame, sizeof(frame));
        assert_true(driver_queue_take(&f.send, &id, &length));
        assert_int_equal(length, 0);
        f.d.next_gpa -= 4096 * (n % 2); /* memory is used again */
    }
    device_test_round_trip(f.t, f.card);
}

static void frames_go_both_ways(void **state)
{
    (void)state;
    frames_go_both_ways_on(0);
}

static void frames_go_both_ways_on_packed_rings(void **state)
{
    (void)state;
    frames_go_both_ways_on(VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX);
}

static void a_large_frame_is_spread_over_buffers_on(uint64_t rings)
{
    static uint8_t frame[3000];
    uint64_t gpas[8];
    uint32_t lengths[8];
    uint8_t got[3000];
    size_t at = 0;

    start(V1 | MERGE | rings, 8);
    make_frame(frame, OWN, 0x0800, sizeof(frame));
    for (unsigned round = 0; round < 5; round++) {
        at = 0;
        gpas[0] = add_receive_buffer(1012);
        gpas[1] = add_receive_buffer(1000);
        driver_queue_kick(&f.receive);
        peer_sends(frame, sizeof(frame));
        assert_false(was_received(&lengths[0])); /* all or nothing */
        gpas[2] = add_receive_buffer(1000);
        driver_queue_kick(&f.receive);
        for (unsigned n = 0; n < 3; n++) {
            size_t skip = n ? 0 : HEADER;

            assert_true(was_received(&lengths[n]));
            memcpy(got + at, f.t->ram.hva + gpas[n] + skip, lengths[n] - skip);
            at += lengths[n] - skip;
        }
        assert_int_equal(at, sizeof(frame));
        assert_memory_equal(got, frame, sizeof(frame));
        assert_int_equal(test_read(f.t, gpas[0] + 10, 2), 3);
    }
}

static void a_large_frame_is_spread_over_buffers(void **state)
{
    (void)state;
    a_large_frame_is_spread_over_buffers_on(0);
}

static void a_large_frame_is_spread_over_packed_buffers(void **state)
{
    (void)state;
    a_large_frame_is_spread_over_buffers_on(VIRTIO_F_RING_PACKED);
}

static void without_merging_it_needs_one_buffer(void **state)
{
    uint8_t frame[1000];
    uint32_t length;

    (void)state;
    start(V1, 8);
    make_frame(frame, OWN, 0x0800, sizeof(frame));
    add_receive_buffer(600);
    driver_queue_kick(&f.receive);
    peer_sends(frame, sizeof(frame)); /* lost */
    assert_false(was_received(&length));
    peer_sends(frame, 500); /* into the same buffer */
    assert_true(was_received(&length));
    assert_int_equal(length, HEADER + 500);
}

static void a_checksum_is_made_for_who_takes_none(void **state)
{
    uint8_t frame[80] = {0}, got[128], header[HEADER] = {1};

    (void)state;
    start(V1 | CSUM, 8);
    put_le16(header + 6, 34);
    put_le16(header + 8, 6);
    frame[12] = 8;
    guest_sends(header, frame, sizeof(frame));
    assert_int_equal(peer_gets(got), sizeof(frame));
    assert_int_equal(get_le16(got + 40), 0xffff); /* of zeros */

    put_le16(header + 6, 79); /* not in the frame: lost, and the card goes on */
    guest_sends(header, frame, sizeof(frame));
    assert_int_equal(peer_gets(got), 0);
    header[0] = 0;
    guest_sends(header, frame, sizeof(frame));
    assert_int_equal(peer_gets(got), sizeof(frame));
    assert_int_equal(get_le16(got + 40), 0);
}

static void a_segment_is_cut_for_who_takes_none(void **state)
{
    static uint8_t frame[54 + 2500] = {0};
    uint8_t got[2048], header[HEADER] = {1, 1};

    (void)state;
    start(V1 | CSUM | HOST_TSO4, 8);
    put_le16(header + 2, 54);
    put_le16(header + 4, 1000);
    put_le16(header + 6, 34);
    put_le16(header + 8, 16);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[23] = 6;
    frame[46] = 0x50;
    guest_sends(header, frame, sizeof(frame));
    assert_int_equal(peer_gets(got), 1054);
    assert_int_equal(peer_gets(got), 1054);
    assert_int_equal(peer_gets(got), 554);
    assert_int_equal(got[40] << 8 | got[41], 2000); /* sequence */
    assert_int_equal(peer_gets(got), 0);
}

static void frames_are_filtered_by_address(void **state)
{
    uint8_t table[4 + 6 + 4 + 6] = {1};

    (void)state;
    start(FILTERS, 64);
    assert_true(passes(OTHER, 0x0800)); /* promiscuous until the driver says otherwise */
    assert_int_equal(command(0, 0, 0, 1), OK);
    assert_false(passes(OTHER, 0x0800));
    assert_true(passes(OWN, 0x0800));
    assert_true(passes(BROADCAST, 0x0800));
    assert_false(passes(GROUP, 0x0800));
    memcpy(table + 4, OTHER, 6);
    table[10] = 1;
    memcpy(table + 14, GROUP, 6);
    assert_int_equal(command_with(1, 0, table, sizeof(table)), OK);
    assert_true(passes(OTHER, 0x0800));
    assert_true(passes(GROUP, 0x0800));
    assert_false(passes("\x01\x00\x5e\x00\x00\x02", 0x0800));
    assert_int_equal(command(0, 1, 1, 1), OK); /* all multicast */
    assert_true(passes("\x01\x00\x5e\x00\x00\x02", 0x0800));
    assert_int_equal(command(0, 3, 1, 1), OK); /* none */
    assert_false(passes(GROUP, 0x0800));
    assert_int_equal(command(0, 5, 1, 1), OK); /* no broadcast */
    assert_false(passes(BROADCAST, 0x0800));
    assert_int_equal(command(0, 4, 1, 1), OK); /* no unicast */
    assert_false(passes(OWN, 0x0800));
    assert_int_equal(command(0, 4, 0, 1), OK);
    assert_int_equal(command_with(1, 1, "\x52\x54\x00\x77\x77\x77", 6), OK);
    assert_false(passes(OWN, 0x0800));
    assert_true(passes("\x52\x54\x00\x77\x77\x77", 0x0800));
    device_test_round_trip(f.t, f.card);
    virtio_driver_negotiate(&f.d, V1); /* a reset forgets all that */
    f.receive = (struct driver_queue){0};
    start(V1, 8);
    assert_true(passes(OTHER, 0x0800));
}

static void frames_are_filtered_by_vlan(void **state)
{
    (void)state;
    start(FILTERS, 32);
    /* make_frame puts 14 * 11, 15 * 11 there: VLAN 0xaa5 mod 4096. */
    assert_false(passes(OWN, 0x8100));
    assert_int_equal(command(2, 0, 0xaa5, 2), OK);
    assert_true(passes(OWN, 0x8100));
    assert_int_equal(command(2, 1, 0xaa5, 2), OK);
    assert_false(passes(OWN, 0x8100));
    assert_int_equal(command(2, 0, 4096, 2), FAILED);
}

static void wrong_commands_fail(void **state)
{
    static const uint8_t too_long[4] = {0xff, 0xff, 0xff, 0xff};
    uint8_t many[8 + 65 * 6] = {65};

    (void)state;
    start(FILTERS | MQ | OFFLOADS | GUEST_CSUM, 16);
    assert_int_equal(command(0, 99, 1, 1), FAILED);
    assert_int_equal(command(77, 0, 1, 1), FAILED);
    assert_int_equal(command_with(1, 0, too_long, 4), FAILED);
    assert_int_equal(command_with(1, 1, too_long, 4), FAILED);
    assert_int_equal(command(4, 0, 0, 2), FAILED);
    assert_int_equal(command(4, 0, 3, 2), FAILED);
    assert_int_equal(command(4, 0, 2, 2), OK);
    assert_int_equal(command(5, 0, 1 << 7, 8), FAILED); /* not agreed on */
    assert_int_equal(command(5, 0, 1 << 1, 8), OK);
    assert_int_equal(command_with(1, 0, many, sizeof(many)), OK); /* too many: all of them */
    assert_int_equal(command(0, 0, 0, 1), OK);
    assert_true(passes(OTHER, 0x0800));
}

static void broken_chains_break_the_card(void **state)
{
    struct driver_buffer buffer = {0x40000, 8, false};

    (void)state;
    start(FILTERS, 8);
    driver_queue_add(&f.send, &buffer, 1); /* no header */
    driver_queue_kick(&f.send);
    assert_true(driver_is_broken(&f.d));
    start(FILTERS, 8);
    driver_queue_add(&f.control, &buffer, 1); /* no room for the answer */
    driver_queue_kick(&f.control);
    assert_true(driver_is_broken(&f.d));
    start(FILTERS, 8);
    assert_true(passes(OWN, 0x0800));
}

/* They are refused when the driver is done with them, not before. */
static void features_that_are_not_offered_can_be_saved(void **state)
{
    (void)state;
    driver_write(&f.d, COMMON_ACCEPTED, 1u << 6, 4);
    device_test_round_trip(f.t, f.card);
    assert_false(virtio_driver_negotiate(&f.d, V1 | 1 << 6));
    start(V1, 8);
}

static void the_link_goes_with_the_peer(void **state)
{
    (void)state;
    virtio_driver_use_msix(&f.d);
    start(V1 | STATUS | ANNOUNCE | CTRL, 8);
    driver_write(&f.d, COMMON_CONFIG_VECTOR, 0, 2);
    assert_int_equal(test_read(f.t, f.d.config + 6, 2), 1);
    f.t->msi_count = 0;
    close(f.peer);
    f.peer = -1;
    device_test_loop(f.t);
    assert_int_equal(test_read(f.t, f.d.config + 6, 2), 0);
    assert_int_equal(f.t->msi_count, 1);
}

/* With merging the header has 12 bytes, as ever; else 10. The address is the driver's to set. */
static void old_drivers_have_a_shorter_header(void **state)
{
    static const uint64_t features[] = {MAC, MAC | MERGE};
    uint8_t frame[100], got[256], zeros[HEADER] = {0};
    uint32_t length;

    (void)state;
    virtio_driver_find_legacy(&f.d, f.t, SLOT);
    for (unsigned n = 0; n < 2; n++) {
        unsigned header = n ? 12 : 10;
        struct driver_buffer buffer;
        uint64_t gpa;

        virtio_driver_negotiate(&f.d, features[n]);
        driver_queue_set_up(&f.receive, &f.d, RECEIVE, 0);
        driver_queue_set_up(&f.send, &f.d, SEND, 0);
        virtio_driver_start(&f.d);
        gpa = add_receive_buffer(256);
        driver_queue_kick(&f.receive);
        make_frame(frame, OWN, 0x0800, sizeof(frame));
        peer_sends(frame, sizeof(frame));
        assert_true(was_received(&length));
        assert_int_equal(length, header + sizeof(frame));
        assert_memory_equal(f.t->ram.hva + gpa, zeros, 10);
        assert_memory_equal(f.t->ram.hva + gpa + header, frame, sizeof(frame));

        buffer = (struct driver_buffer){virtio_driver_alloc(&f.d, 256, 16),
                                        header + (uint32_t)sizeof(frame), false};
        memcpy(f.t->ram.hva + buffer.gpa + header, frame, sizeof(frame));
        driver_queue_add(&f.send, &buffer, 1);
        driver_queue_kick(&f.send);
        assert_int_equal(peer_gets(got), sizeof(frame));
        assert_memory_equal(got, frame, sizeof(frame));
    }
    for (unsigned n = 0; n < 6; n++)
        test_outb(f.t, (uint16_t)(DRIVER_LEGACY_PORT + 0x14 + n), (uint8_t)OTHER[n]);
    assert_int_equal(test_inl(f.t, DRIVER_LEGACY_PORT + 0x14), 0x99005452);
    assert_int_equal(test_inw(f.t, DRIVER_LEGACY_PORT + 0x18), 0x9999);
    test_outl(f.t, DRIVER_LEGACY_PORT + 0x18, 0); /* partly behind it */
    assert_int_equal(test_inw(f.t, DRIVER_LEGACY_PORT + 0x18), 0x9999);
}

static void many_frames_are_one_interrupt(void **state)
{
    uint8_t stream[5 * 68] = {0};

    (void)state;
    virtio_driver_use_msix(&f.d);
    start(V1, 16);
    for (unsigned n = 0; n < 5; n++) {
        add_receive_buffer(128);
        stream[n * 68 + 3] = 64;
        memcpy(stream + n * 68 + 4, OWN, 6);
    }
    driver_queue_kick(&f.receive);
    f.t->msi_count = 0;
    assert_int_equal(write(f.peer, stream, sizeof(stream)), sizeof(stream));
    device_test_loop(f.t);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, RECEIVE + 1);
}

int main(void)
{
#define TEST(name)     cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_OLD(name) cmocka_unit_test_setup_teardown(name, set_up_transitional, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(configuration_says_what_the_card_is),
        TEST(frames_go_both_ways),
        TEST(frames_go_both_ways_on_packed_rings),
        TEST(a_large_frame_is_spread_over_buffers),
        TEST(a_large_frame_is_spread_over_packed_buffers),
        TEST(without_merging_it_needs_one_buffer),
        TEST(a_checksum_is_made_for_who_takes_none),
        TEST(a_segment_is_cut_for_who_takes_none),
        TEST(frames_are_filtered_by_address),
        TEST(frames_are_filtered_by_vlan),
        TEST(wrong_commands_fail),
        TEST(broken_chains_break_the_card),
        TEST(features_that_are_not_offered_can_be_saved),
        TEST(the_link_goes_with_the_peer),
        TEST_OLD(old_drivers_have_a_shorter_header),
        TEST(many_frames_are_one_interrupt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
