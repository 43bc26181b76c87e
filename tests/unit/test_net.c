/*
 * test_net.c - network backends: offloads, stream sockets, back-pressure, captures, user networking
 */
#include "../device/cmocka_all.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/net/internal.h"
#include "base/bytes.h"
#include "base/net_sum.h"

/* ---- a card that remembers ---- */

#define MAX_KEPT 128

struct card {
    struct net_frontend frontend;
    struct loop *loop;
    struct net *net;
    unsigned takes, room; /* frames that it still receives */
    unsigned count, batches, can_sends, link_changes;
    bool up;
    size_t sizes[MAX_KEPT];
    struct net_offload offloads[MAX_KEPT];
    uint8_t frames[MAX_KEPT][2048]; /* their starts */
};

static unsigned card_takes(void *opaque)
{
    return ((struct card *)opaque)->takes;
}

static bool card_receive(void *opaque, const struct net_frame *frame)
{
    struct card *card = opaque;
    uint8_t bytes[NET_MAX_FRAME_BYTES];

    if (!card->room)
        return false;
    card->room--;
    net_gather(frame, bytes);
    if (card->count < MAX_KEPT) {
        memcpy(card->frames[card->count], bytes,
               frame->size_bytes < 2048 ? frame->size_bytes : 2048);
        card->sizes[card->count] = frame->size_bytes;
        card->offloads[card->count] = frame->offload;
    }
    card->count++;
    return true;
}

static void card_received(void *opaque)
{
    ((struct card *)opaque)->batches++;
}

static void card_can_send(void *opaque)
{
    ((struct card *)opaque)->can_sends++;
}

static void card_link_changed(void *opaque, bool up)
{
    struct card *card = opaque;

    card->up = up;
    card->link_changes++;
}

static struct card *card_on(const char *description)
{
    struct card *card = calloc(1, sizeof(*card));
    struct error err = {0};

    card->loop = loop_new(&err);
    card->net = net_open(card->loop, description, &err);
    if (!card->net)
        fail_msg("%s", err.text);
    card->room = UINT32_MAX;
    card->frontend = (struct net_frontend){card_takes,    card_receive,      card_received,
                                           card_can_send, card_link_changed, card};
    net_connect(card->net, &card->frontend);
    return card;
}

static void card_free(struct card *card)
{
    net_free(card->net);
    loop_free(card->loop);
    free(card);
}

static bool send_bytes(struct card *card, const void *bytes, size_t size,
                       const struct net_offload *offload)
{
    /* In two pieces, as a card's. */
    struct io_piece pieces[2] = {{(void *)bytes, 7}, {(uint8_t *)bytes + 7, size - 7}};
    struct net_frame frame = {.pieces = pieces, .piece_count = 2, .size_bytes = size};
    bool taken;

    if (offload)
        frame.offload = *offload;
    taken = net_send(card->net, &frame);
    net_sent(card->net);
    return taken;
}

static void expect_counts(struct card *card, struct net_counts expected)
{
    struct net_counts counts = net_counts(card->net);

    assert_memory_equal(&counts, &expected, sizeof(counts));
}

static void run_loop(struct card *card, unsigned rounds)
{
    while (rounds--)
        loop_once(card->loop, 1000000);
}

/* ---- frames ---- */

static const uint8_t own_mac[6] = {0x52, 0x54, 0, 1, 2, 3};

static size_t make_ipv4(uint8_t *frame, uint8_t protocol, uint32_t source, uint32_t target,
                        size_t bytes)
{
    uint16_t sum;

    memset(frame, 0, 34);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, own_mac, 6);
    frame[12] = 8;
    frame[14] = 0x45;
    frame[16] = (uint8_t)((bytes + 20) >> 8);
    frame[17] = (uint8_t)(bytes + 20);
    frame[22] = 64;
    frame[23] = protocol;
    source = htonl(source);
    target = htonl(target);
    memcpy(frame + 26, &source, 4);
    memcpy(frame + 30, &target, 4);
    sum = (uint16_t)~net_sum(0, frame + 14, 20);
    memcpy(frame + 24, &sum, 2);
    return 34 + bytes;
}

/* Is the sum of the pseudo header and the segment right? */
static bool tcp_sum_is_right(const uint8_t *frame, size_t size)
{
    uint8_t rest[4] = {0, IPPROTO_TCP, (uint8_t)((size - 34) >> 8), (uint8_t)(size - 34)};

    return net_sum(net_sum(net_sum(0, frame + 26, 8), rest, 4), frame + 34, size - 34) == 0xffff;
}

/* A segment whose checksum is left to others: the field has the pseudo header's sum. */
static size_t make_tcp(uint8_t *frame, size_t bytes, unsigned flags, struct net_offload *out)
{
    size_t size = make_ipv4(frame, IPPROTO_TCP, 0x0a00020f, 0x0a000202, bytes + 20);
    uint8_t rest[4] = {0, IPPROTO_TCP, (uint8_t)((bytes + 20) >> 8), (uint8_t)(bytes + 20)};
    uint8_t *tcp = frame + 34;
    uint16_t sum = net_sum(net_sum(0, frame + 26, 8), rest, 4);

    memset(tcp, 0, 20);
    tcp[1] = 99, tcp[3] = 80;
    tcp[4] = tcp[5] = tcp[6] = 0xff; /* the sequence number runs over */
    tcp[12] = 0x50;
    tcp[13] = (uint8_t)flags;
    memcpy(tcp + 16, &sum, 2);
    for (size_t n = 0; n < bytes; n++)
        tcp[20 + n] = (uint8_t)(n * 7);
    *out =
        (struct net_offload){.needs_checksum = true, .checksum_start = 34, .checksum_offset = 16};
    return size;
}

/* ---- offloads ---- */

static void sums_do_not_depend_on_how_bytes_are_split(void **state)
{
    uint8_t bytes[64];
    uint16_t all;

    (void)state;
    for (unsigned n = 0; n < sizeof(bytes); n++)
        bytes[n] = (uint8_t)(n * 37 + 200);
    all = net_sum(0, bytes, sizeof(bytes));
    for (unsigned n = 0; n < sizeof(bytes); n += 2)
        assert_int_equal(net_sum(net_sum(0, bytes, n), bytes + n, sizeof(bytes) - n), all);
    bytes[63] = 0;
    assert_int_equal(net_sum(0, bytes, 64), net_sum(0, bytes, 63));
}

static void a_checksum_is_filled_in_or_refused(void **state)
{
    uint8_t frame[128];
    struct net_offload offload;
    size_t size = make_tcp(frame, 31, 0x18, &offload);

    (void)state;
    assert_true(net_fill_checksum(frame, size, &offload));
    assert_true(tcp_sum_is_right(frame, size));
    offload.checksum_offset = (uint16_t)(size - 34 - 1);
    assert_false(net_fill_checksum(frame, size, &offload));
    offload.checksum_start = 0xffff;
    offload.checksum_offset = 0xffff;
    assert_false(net_fill_checksum(frame, size, &offload));
}

struct pieces {
    unsigned count;
    size_t bytes;
};

static void check_segment(void *opaque, const struct net_frame *frame)
{
    struct pieces *seen = opaque;
    const uint8_t *bytes = frame->pieces[0].data, *tcp = bytes + 34;
    size_t data = frame->size_bytes - 54;
    bool is_last = seen->bytes + data == 3000;

    assert_int_equal(frame->piece_count, 1);
    assert_int_equal(data, is_last ? 200 : 1400);
    assert_int_equal(bytes[16] << 8 | bytes[17], data + 40);
    assert_int_equal(bytes[19], seen->count);
    assert_int_equal(net_sum(0, bytes + 14, 20), 0xffff);
    assert_true(tcp_sum_is_right(bytes, frame->size_bytes));
    assert_int_equal(get_be32(tcp + 4), 0xffffff00u + (uint32_t)seen->bytes);
    /* CWR in the first, FIN and PSH in the last. */
    assert_int_equal(tcp[13], 0x10 | (seen->count ? 0 : 0x80) | (is_last ? 0x09 : 0));
    for (size_t n = 0; n < data; n++)
        assert_int_equal(tcp[20 + n], (uint8_t)((seen->bytes + n) * 7));
    seen->bytes += data;
    seen->count++;
}

static void a_long_segment_is_cut(void **state)
{
    static uint8_t frame[4096];
    struct net_offload offload;
    struct pieces seen = {0};
    size_t size = make_tcp(frame, 3000, 0x99, &offload);

    (void)state;
    offload.gso = NET_GSO_TCP4;
    offload.segment_bytes = 1400;
    assert_true(net_cut(frame, size, &offload, check_segment, &seen));
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.bytes, 3000);
}

static void put_nothing(void *opaque, const struct net_frame *frame)
{
    (void)opaque;
    (void)frame;
    fail_msg("a frame that is not what its offload says was cut");
}

static void what_is_no_segment_is_not_cut(void **state)
{
    static uint8_t frame[4096];
    struct net_offload good, bad;
    size_t size = make_tcp(frame, 3000, 0x10, &good);

    (void)state;
    good.gso = NET_GSO_TCP4;
    good.segment_bytes = 1400;
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        bad = good;                                                                                \
        change;                                                                                    \
        assert_false(net_cut(frame, size, &bad, put_nothing, NULL));                               \
    } while (0)
    REFUSED(bad.segment_bytes = 0);
    REFUSED(bad.gso = NET_GSO_TCP6);
    REFUSED(bad.checksum_start = 30);
    REFUSED(bad.checksum_start = 38);
    REFUSED(bad.checksum_start = 0xffff);
    REFUSED(bad.checksum_offset = 6);
    frame[46] = 0x40; /* a header of 16 bytes */
    REFUSED((void)0);
    frame[46] = 0xf0; /* of 60, in a frame of 54 */
    size = 54;
    REFUSED((void)0);
}

/* ---- the stream socket ---- */

static struct card *socket_card(int *out_peer)
{
    char description[64];
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    snprintf(description, sizeof(description), "socket,fd=%d", fds[0]);
    *out_peer = fds[1];
    return card_on(description);
}

static void frames_go_through_a_socket(void **state)
{
    uint8_t frame[100], stream[256];
    int peer;
    struct card *card = socket_card(&peer);

    (void)state;
    memset(frame, 0xa5, sizeof(frame));
    assert_true(net_is_up(card->net));
    assert_true(send_bytes(card, frame, sizeof(frame), NULL));
    assert_int_equal(read(peer, stream, sizeof(stream)), 104);
    assert_memory_equal(stream, "\0\0\0\x64", 4);
    assert_memory_equal(stream + 4, frame, 100);

    /* Two frames, cut at odd places. */
    memcpy(stream + 104, stream, 104);
    stream[108] = 0x11;
    for (unsigned n = 0; n < 208; n += 13) {
        assert_int_equal(write(peer, stream + n, 13), 13);
        run_loop(card, 1);
    }
    assert_int_equal(card->count, 2);
    assert_int_equal(card->sizes[1], 100);
    assert_int_equal(card->frames[1][0], 0x11);
    expect_counts(card, (struct net_counts){.sent_frames = 1,
                                            .sent_bytes = 100,
                                            .received_frames = 2,
                                            .received_bytes = 200});
    close(peer);
    run_loop(card, 2);
    assert_int_equal(card->link_changes, 1);
    assert_false(card->up);
    assert_true(send_bytes(card, frame, sizeof(frame), NULL)); /* lost */
    card_free(card);
}

static void a_peer_that_breaks_the_protocol_is_cut_off(void **state)
{
    static const uint8_t wrong[][4] = {{0, 0, 0, 0}, {0, 2, 0, 0}, {0xff, 0xff, 0xff, 0xff}};

    (void)state;
    for (size_t n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
        uint8_t byte;
        int peer;
        struct card *card = socket_card(&peer);

        assert_int_equal(write(peer, wrong[n], 4), 4);
        run_loop(card, 2);
        assert_int_equal(card->count, 0);
        assert_false(net_is_up(card->net));
        assert_int_equal(read(peer, &byte, 1), 0);
        close(peer);
        card_free(card);
    }
}

static void a_slow_peer_keeps_the_card_waiting(void **state)
{
    static uint8_t frame[1500];
    uint8_t stream[65536];
    size_t sent = 0, got = 0;
    int peer;
    struct card *card = socket_card(&peer);

    (void)state;
    while (send_bytes(card, frame, sizeof(frame), NULL)) {
        sent += sizeof(frame) + 4;
        assert_true(sent < 8 << 20);
    }
    assert_int_equal(card->can_sends, 0);
    while (got < sent) {
        ssize_t size = recv(peer, stream, sizeof(stream), MSG_DONTWAIT);

        got += size > 0 ? (size_t)size : 0;
        run_loop(card, 1);
    }
    assert_int_equal(got, sent);
    assert_true(card->can_sends > 0);
    assert_true(send_bytes(card, frame, sizeof(frame), NULL));
    close(peer);
    card_free(card);
}

static void a_card_without_room_gets_all_later(void **state)
{
    uint8_t stream[104] = {0, 0, 0, 100};
    int peer;
    struct card *card = socket_card(&peer);

    (void)state;
    card->room = 2;
    for (unsigned n = 0; n < 5; n++) {
        stream[4] = (uint8_t)n;
        assert_int_equal(write(peer, stream, sizeof(stream)), sizeof(stream));
    }
    run_loop(card, 3);
    assert_int_equal(card->count, 2);
    card->room = 10;
    net_accept(card->net);
    assert_int_equal(card->count, 5);
    for (unsigned n = 0; n < 5; n++)
        assert_int_equal(card->frames[n][0], n);
    close(peer);
    card_free(card);
}

static void segments_are_cut_for_a_peer_that_takes_none(void **state)
{
    static uint8_t frame[4096], stream[8192];
    struct net_offload offload;
    size_t size = make_tcp(frame, 3000, 0x10, &offload);
    int peer;
    struct card *card = socket_card(&peer);

    (void)state;
    offload.gso = NET_GSO_TCP4;
    offload.segment_bytes = 1000;
    assert_true(send_bytes(card, frame, size, &offload));
    assert_int_equal(read(peer, stream, sizeof(stream)), 3 * (4 + 54 + 1000));
    assert_true(tcp_sum_is_right(stream + 4, 1054));
    assert_true(tcp_sum_is_right(stream + 4 + 2 * 1058, 1054));
    close(peer);
    card_free(card);
}

static void two_ends_connect_by_path(void **state)
{
    char path[64], description[96];
    struct card *first, *second;
    uint8_t frame[60] = {1, 2, 3};
    struct error err = {0};

    (void)state;
    snprintf(path, sizeof(path), "/tmp/trapeze-net-%d", (int)getpid());
    snprintf(description, sizeof(description), "socket,connect=%s", path);
    assert_null(net_open(NULL, description, &err));
    snprintf(description, sizeof(description), "socket,listen=%s", path);
    first = card_on(description);
    assert_false(net_is_up(first->net));
    snprintf(description, sizeof(description), "socket,connect=%s", path);
    second = card_on(description);
    run_loop(first, 2);
    assert_true(first->up);
    assert_true(send_bytes(second, frame, sizeof(frame), NULL));
    run_loop(first, 2);
    assert_int_equal(first->count, 1);
    assert_memory_equal(first->frames[0], frame, sizeof(frame));
    card_free(second);
    run_loop(first, 2);
    assert_false(first->up);
    card_free(first);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* ---- capture ---- */

static void a_capture_has_what_went_both_ways(void **state)
{
    char path[64], description[128];
    uint8_t frame[70] = {9}, file[512], stream[64] = {0, 0, 0, 60, 7};
    int fds[2], fd;
    struct card *card;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/trapeze-capture-%d", (int)getpid());
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    snprintf(description, sizeof(description), "socket,fd=%d,capture=%s", fds[0], path);
    card = card_on(description);
    assert_true(send_bytes(card, frame, sizeof(frame), NULL));
    assert_int_equal(write(fds[1], stream, sizeof(stream)), sizeof(stream));
    run_loop(card, 2);
    card_free(card);
    close(fds[1]);
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, file, sizeof(file)), 24 + 16 + 70 + 16 + 60);
    close(fd);
    unlink(path);
    assert_int_equal(get_le32(file), 0xa1b23c4d);
    assert_int_equal(get_le32(file + 20), 1);
    assert_int_equal(get_le32(file + 24 + 8), 70);
    assert_int_equal(get_le32(file + 24 + 12), 70);
    assert_true(get_le32(file + 24 + 4) < 1000000000);
    assert_int_equal(file[40], 9);
    assert_int_equal(file[40 + 70 + 16], 7);
}

/* ---- descriptions ---- */

static void wrong_descriptions_are_explained(void **state)
{
    static const struct {
        const char *description, *says;
    } wrong[] = {
        {"nobody", "no network backend 'nobody'"},
        {"sockt,fd=1", "did you mean 'socket'"},
        {"socket", "one of connect=, listen= and fd="},
        {"socket,connect=a,listen=b", "one of connect=, listen= and fd="},
        {"socket,connect=nowhere", "neither a path"},
        {"socket,path=/tmp/x", "path"},
        {"tap", "name="},
        {"tap,name=averyveryverylongname", "name="},
#ifdef HAVE_SLIRP
        {"user,publish=22", "[HOST:]PORT:GUESTPORT"},
        {"user,publish=0:22", "[HOST:]PORT:GUESTPORT"},
        {"user,publish=70000:22", "[HOST:]PORT:GUESTPORT"},
        {"user,publish=host:1:22", "[HOST:]PORT:GUESTPORT"},
        {"user,publish=1:22/sctp", "[HOST:]PORT:GUESTPORT"},
#endif
    };
    struct error err = {0};
    struct loop *loop = loop_new(&err);

    (void)state;
    for (size_t n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
        err = (struct error){0};
        assert_null(net_open(loop, wrong[n].description, &err));
        if (!strstr(err.text, wrong[n].says))
            fail_msg("%s: %s", wrong[n].description, err.text);
    }
    loop_free(loop);
}

static void addresses_of_cards(void **state)
{
    uint8_t mac[6];

    (void)state;
    assert_true(net_parse_mac("52:54:00:ab:CD:0f", mac));
    assert_memory_equal(mac, "\x52\x54\x00\xab\xcd\x0f", 6);
    assert_false(net_parse_mac("53:54:00:12:34:56", mac)); /* multicast */
    assert_false(net_parse_mac("00:00:00:00:00:00", mac));
    assert_false(net_parse_mac("52:54:00:12:34", mac));
    assert_false(net_parse_mac("52:54:00:12:34:56:78", mac));
    assert_false(net_parse_mac("52-54-00-12-34-56", mac));
    assert_false(net_parse_mac("", mac));
}

/* ---- user networking ---- */

#ifdef HAVE_SLIRP

/* Ports and length; no checksum, which IPv4 allows. */
static size_t make_udp(uint8_t *frame, uint32_t source, uint32_t target, unsigned from, unsigned to,
                       const void *data, size_t bytes)
{
    size_t size = make_ipv4(frame, IPPROTO_UDP, source, target, bytes + 8);
    uint8_t *udp = frame + 34;

    memset(udp, 0, 8);
    udp[0] = (uint8_t)(from >> 8), udp[1] = (uint8_t)from;
    udp[2] = (uint8_t)(to >> 8), udp[3] = (uint8_t)to;
    udp[4] = (uint8_t)((bytes + 8) >> 8), udp[5] = (uint8_t)(bytes + 8);
    memcpy(udp + 8, data, bytes);
    return size;
}

#define GUEST   0x0a00020fu
#define GATEWAY 0x0a000202u

/* The guest says where it is. */
static void announce(struct card *card)
{
    static const uint8_t arp[42] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,    1,    2, 3, 8, 6, /* Ethernet */
        0,    1,    8,    0,    6,    4,    0,    1,    0x52, 0x54, 0, 1, 2, 3,
        10,   0,    2,    15, /* who has */
        0,    0,    0,    0,    0,    0,    10,   0,    2,    2,
    };

    assert_true(send_bytes(card, arp, sizeof(arp), NULL));
}

/* The index of the first frame from `from` on with this type and, if IPv4, protocol. */
static int find_frame(const struct card *card, unsigned from, unsigned type, unsigned protocol)
{
    for (unsigned n = from; n < card->count && n < MAX_KEPT; n++)
        if ((card->frames[n][12] << 8 | card->frames[n][13]) == (int)type &&
            (type != 0x0800 || card->frames[n][23] == protocol))
            return (int)n;
    return -1;
}

static int wait_for(struct card *card, unsigned from, unsigned type, unsigned protocol)
{
    for (unsigned n = 0; n < 500; n++) {
        int found = find_frame(card, from, type, protocol);

        if (found >= 0)
            return found;
        loop_once(card->loop, 10000000);
    }
    fail_msg("no frame of type %x, protocol %u", type, protocol);
    return -1;
}

static void the_gateway_answers_arp(void **state)
{
    struct card *card = card_on("user,ipv6=off");
    int n;

    (void)state;
    announce(card);
    n = wait_for(card, 0, 0x0806, 0);
    assert_int_equal(card->frames[n][21], 2); /* a reply */
    assert_memory_equal(card->frames[n] + 28, "\x0a\0\2\2", 4);
    assert_true(card->batches > 0);
    card_free(card);
}

static void dhcp_offers_an_address_and_a_boot_file(void **state)
{
    uint8_t request[300] = {1, 1, 6, 0, 1, 2, 3, 4}, frame[400];
    struct card *card = card_on("user,ipv6=off,hostname=box,bootfile=pxe.0");
    const uint8_t *offer;
    size_t size;

    (void)state;
    memcpy(request + 28, own_mac, 6);
    memcpy(request + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8); /* DISCOVER */
    size = make_udp(frame, 0, 0xffffffff, 68, 67, request, sizeof(request));
    assert_true(send_bytes(card, frame, size, NULL));
    offer = card->frames[wait_for(card, 0, 0x0800, IPPROTO_UDP)] + 42;
    assert_int_equal(offer[0], 2);
    assert_memory_equal(offer + 4, "\1\2\3\4", 4);
    assert_memory_equal(offer + 16, "\x0a\0\2\x0f", 4);
    assert_string_equal((const char *)offer + 108, "pxe.0");
    assert_non_null(memmem(offer + 240, 100, "\x03\x04\x0a\0\2\2", 6)); /* router */
    assert_non_null(memmem(offer + 240, 100, "\x06\x04\x0a\0\2\3", 6)); /* name server */
    assert_non_null(memmem(offer + 240, 100, "box", 3));
    card_free(card);
}

/* The last byte of the address that DHCP has for the card of this number. */
static unsigned lease_of(struct card *card, uint8_t number)
{
    uint8_t request[300] = {1, 1, 6, 0, 1, 2, 3, number}, frame[400];
    unsigned from = card->count;

    memcpy(request + 28, own_mac, 5);
    request[33] = number;
    memcpy(request + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8); /* DISCOVER */
    assert_true(
        send_bytes(card, frame, make_udp(frame, 0, 0xffffffff, 68, 67, request, 300), NULL));
    return card->frames[wait_for(card, from, 0x0800, IPPROTO_UDP)][42 + 19];
}

static void what_dhcp_has_given_is_state(void **state)
{
    struct card *card = card_on("user,ipv6=off");
    struct state_buffer saved = {0}, bad = {0};
    struct error err = {0};

    (void)state;
    for (uint8_t n = 0; n < 3; n++)
        assert_int_equal(lease_of(card, n), 15 + n);
    assert_int_equal(net_save(card->net, &saved, &err), 0);
    card_free(card);

    card = card_on("user,ipv6=off");
    assert_int_equal(net_load(card->net, &saved, &err), 0);
    assert_int_equal(lease_of(card, 2), 17);
    assert_int_equal(lease_of(card, 9), 18);
    saved.data[4] = 42; /* a connection */
    assert_int_equal(net_load(card->net, &saved, &err), -EINVAL);
    saved.data[4] = 0;
    for (size_t n = 1; n < saved.size_bytes; n++) {
        bad = (struct state_buffer){.data = saved.data, .size_bytes = n};
        assert_int_equal(net_load(card->net, &bad, &err), -EINVAL);
    }
    assert_non_null(strstr(err.text, "user network"));
    assert_int_equal(lease_of(card, 9), 18); /* nothing of that was loaded */
    saved.data[0] ^= 1;                      /* of another version: nothing is known */
    assert_int_equal(net_load(card->net, &saved, &err), 0);
    saved.size_bytes = 0; /* of another backend */
    assert_int_equal(net_load(card->net, &saved, &err), 0);
    card_free(card);
    free(saved.data);
}

/* A UDP socket of the host on a free port of 127.0.0.1. */
static int host_socket(int type, unsigned *out_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, type, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *out_port = ntohs(address.sin_port);
    return fd;
}

static bool is_readable(struct card *card, int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    for (unsigned n = 0; n < 20; n++) {
        run_loop(card, 1);
        if (poll(&poll_fd, 1, 5) == 1)
            return true;
    }
    return false;
}

static void datagrams_reach_the_host_and_come_back(void **state)
{
    uint8_t frame[256], got[64];
    static uint8_t large[4000];
    struct sockaddr_in from;
    socklen_t from_size = sizeof(from);
    unsigned port, bytes = 0;
    struct card *card = card_on("user,ipv6=off");
    int fd = host_socket(SOCK_DGRAM, &port), n;
    size_t size = make_udp(frame, GUEST, GATEWAY, 1000, port, "question", 8);

    (void)state;
    announce(card);
    assert_true(send_bytes(card, frame, size, NULL));
    assert_true(is_readable(card, fd));
    assert_int_equal(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &from_size), 8);
    assert_memory_equal(got, "question", 8);
    assert_int_equal(sendto(fd, "answer", 6, 0, (struct sockaddr *)&from, from_size), 6);
    n = wait_for(card, 0, 0x0800, IPPROTO_UDP);
    assert_memory_equal(card->frames[n] + 42, "answer", 6);
    assert_true(card->offloads[n].checksum_valid);

    /* Longer than the link: in fragments. */
    card->count = 0;
    memset(large, 0x5a, sizeof(large));
    assert_int_equal(sendto(fd, large, sizeof(large), 0, (struct sockaddr *)&from, from_size),
                     4000);
    wait_for(card, 0, 0x0800, IPPROTO_UDP);
    run_loop(card, 5);
    assert_int_equal(card->count, 3);
    for (unsigned k = 0; k < 3; k++) {
        const uint8_t *f = card->frames[k];

        assert_true(card->sizes[k] <= 1514);
        assert_int_equal(net_sum(0, f + 14, 20), 0xffff);
        assert_int_equal(8 * ((f[20] << 8 | f[21]) & 0x1fff), bytes);
        assert_int_equal(f[20] >> 5, k < 2 ? 1 : 0);
        bytes += (unsigned)card->sizes[k] - 34;
    }
    assert_int_equal(bytes, 4008);
    close(fd);
    card_free(card);
}

static void a_restricted_guest_reaches_nobody(void **state)
{
    static const char *const descriptions[] = {"user,ipv6=off,restrict",
                                               "user,ipv6=off,loopback=off"};

    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        uint8_t frame[256];
        unsigned port;
        struct card *card = card_on(descriptions[n]);
        int fd = host_socket(SOCK_DGRAM, &port);
        size_t size = make_udp(frame, GUEST, GATEWAY, 1000, port, "question", 8);

        announce(card);
        assert_true(send_bytes(card, frame, size, NULL));
        assert_false(is_readable(card, fd));
        close(fd);
        card_free(card);
    }
}

/* Opened from the host: the guest sees a SYN, and takes it with a maximum segment of 1460. */
static void connect_from_host(struct card *card, unsigned *out_mss, uint8_t *out_syn)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct error err = {0};
    char text[32];
    unsigned port;
    int fd = host_socket(SOCK_STREAM, &port), n;

    close(fd);
    snprintf(text, sizeof(text), "%u:80", port);
    assert_int_equal(net_publish(card->net, text, &err), 0);
    assert_int_not_equal(net_publish(card->net, text, &err), 0); /* it is taken */
    announce(card);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_port = htons((uint16_t)port);
    assert_true(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
                errno == EINPROGRESS);
    n = wait_for(card, 0, 0x0800, IPPROTO_TCP);
    memcpy(out_syn, card->frames[n], 64);
    *out_mss = card->frames[n][56] << 8 | card->frames[n][57];
    close(fd);
}

static void a_published_port_leads_to_the_guest(void **state)
{
    struct card *card = card_on("user,ipv6=off");
    uint8_t syn[64];
    unsigned mss;

    (void)state;
    connect_from_host(card, &mss, syn);
    assert_memory_equal(syn + 30, "\x0a\0\2\x0f", 4);
    assert_int_equal(syn[36] << 8 | syn[37], 80);
    assert_int_equal(syn[47], 2);
    card_free(card);
}

/* A guest that takes long segments gets them: as such, with what the card has to do. */
static void receive_from_host(unsigned takes, size_t *out_longest, struct net_offload *out_offload)
{
    static uint8_t data[60000];
    uint8_t frame[128] = {0};
    struct net_offload offload;
    unsigned port, n = 0;
    struct card *card = card_on("user,ipv6=off");
    int fd = host_socket(SOCK_STREAM, &port), client, found;
    uint32_t sequence;
    size_t size;

    card->takes = takes;
    assert_int_equal(listen(fd, 1), 0);
    announce(card);
    size = make_tcp(frame, 4, 0x02, &offload); /* SYN with 4 bytes of options */
    frame[46] = 0x60;
    memcpy(frame + 54, "\x02\x04\x05\xb4", 4);
    frame[36] = (uint8_t)(port >> 8), frame[37] = (uint8_t)port;
    frame[48] = frame[49] = 0xff; /* the window */
    assert_true(send_bytes(card, frame, size, &offload));
    client = accept(fd, NULL, NULL);
    assert_true(client >= 0);
    found = wait_for(card, 0, 0x0800, IPPROTO_TCP); /* SYN, ACK */
    assert_int_equal(card->frames[found][47], 0x12);
    memcpy(&sequence, card->frames[found] + 38, 4);
    size = make_tcp(frame, 0, 0x10, &offload);
    frame[36] = (uint8_t)(port >> 8), frame[37] = (uint8_t)port;
    frame[48] = frame[49] = 0xff;
    frame[41] = 1;
    sequence = htonl(ntohl(sequence) + 1);
    memcpy(frame + 42, &sequence, 4);
    card->count = 0;
    assert_true(send_bytes(card, frame, size, &offload));
    assert_int_equal(write(client, data, sizeof(data)), sizeof(data));
    *out_longest = 0;
    for (unsigned round = 0; round < 20; round++) {
        run_loop(card, 1);
        for (; n < card->count && n < MAX_KEPT; n++)
            if (card->sizes[n] > *out_longest) {
                *out_longest = card->sizes[n];
                *out_offload = card->offloads[n];
            }
    }
    close(client);
    close(fd);
    card_free(card);
}

static void segments_are_as_long_as_the_card_takes_them(void **state)
{
    struct net_offload offload = {0};
    size_t longest;

    (void)state;
    receive_from_host(0, &longest, &offload);
    assert_in_range(longest, 1000, 1514);
    assert_int_equal(offload.gso, NET_GSO_NONE);
    receive_from_host(NET_TAKES_CHECKSUM | NET_TAKES_TCP4, &longest, &offload);
    assert_true(longest > 30000);
    assert_int_equal(offload.gso, NET_GSO_TCP4);
    assert_int_equal(offload.segment_bytes, 1460);
    assert_true(offload.needs_checksum);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_do_not_depend_on_how_bytes_are_split),
        cmocka_unit_test(a_checksum_is_filled_in_or_refused),
        cmocka_unit_test(a_long_segment_is_cut),
        cmocka_unit_test(what_is_no_segment_is_not_cut),
        cmocka_unit_test(frames_go_through_a_socket),
        cmocka_unit_test(a_peer_that_breaks_the_protocol_is_cut_off),
        cmocka_unit_test(a_slow_peer_keeps_the_card_waiting),
        cmocka_unit_test(a_card_without_room_gets_all_later),
        cmocka_unit_test(segments_are_cut_for_a_peer_that_takes_none),
        cmocka_unit_test(two_ends_connect_by_path),
        cmocka_unit_test(a_capture_has_what_went_both_ways),
        cmocka_unit_test(wrong_descriptions_are_explained),
        cmocka_unit_test(addresses_of_cards),
#ifdef HAVE_SLIRP
        cmocka_unit_test(the_gateway_answers_arp),
        cmocka_unit_test(dhcp_offers_an_address_and_a_boot_file),
        cmocka_unit_test(what_dhcp_has_given_is_state),
        cmocka_unit_test(datagrams_reach_the_host_and_come_back),
        cmocka_unit_test(a_restricted_guest_reaches_nobody),
        cmocka_unit_test(a_published_port_leads_to_the_guest),
        cmocka_unit_test(segments_are_as_long_as_the_card_takes_them),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
