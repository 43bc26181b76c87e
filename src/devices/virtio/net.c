/*
 * net.c - virtio network card
 *
 * The specification, 5.1: pairs of queues, the control queue, mergeable buffers, checksums and TCP
 * segments left to the other side. Not: hash reports, receive-side scaling, notification
 * coalescing, UDP fragmentation.
 *
 * Theory of operation. Frames of the guest are given to the backend where they lie, when the guest
 * kicks; a backend that is busy leaves them in the queue. Frames of the backend are filtered and
 * written into buffers of the pair on which the guest last sent to that flow (5.1.6.5.6.1); what
 * finds no buffers stays with the backend until the guest kicks that queue.
 *
 * Threads: machine lock held. Guest memory: DMA into and out of what chains name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/devices.h"
#include "devices/virtio/transport.h"
#include "trapeze/machine.h"
#include "trapeze/net.h"

#define ID_NETWORK         1
#define PCI_CLASS_ETHERNET 0x020000

#define F_CSUM             (1ull << 0)
#define F_GUEST_CSUM       (1ull << 1)
#define F_CTRL_OFFLOADS    (1ull << 2)
#define F_MTU              (1ull << 3)
#define F_MAC              (1ull << 5)
#define F_GUEST_TSO4       (1ull << 7)
#define F_GUEST_TSO6       (1ull << 8)
#define F_GUEST_ECN        (1ull << 9)
#define F_HOST_TSO4        (1ull << 11)
#define F_HOST_TSO6        (1ull << 12)
#define F_HOST_ECN         (1ull << 13)
#define F_MRG_RXBUF        (1ull << 15)
#define F_STATUS           (1ull << 16)
#define F_CTRL_VQ          (1ull << 17)
#define F_CTRL_RX          (1ull << 18)
#define F_CTRL_VLAN        (1ull << 19)
#define F_CTRL_RX_EXTRA    (1ull << 20)
#define F_GUEST_ANNOUNCE   (1ull << 21)
#define F_MQ               (1ull << 22)
#define F_CTRL_MAC_ADDR    (1ull << 23)
#define GUEST_OFFLOADS     (F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN)

/* struct virtio_net_config (5.1.4). */
enum config_field {
    CONFIG_MAC = 0,
    CONFIG_STATUS = 6,
    CONFIG_MAX_PAIRS = 8,
    CONFIG_MTU = 10,
    CONFIG_BYTES = 12,
};
#define STATUS_LINK_UP  0x1u
#define STATUS_ANNOUNCE 0x2u

/* struct virtio_net_hdr (5.1.6). */
enum header_field {
    HEADER_FLAGS = 0,
    HEADER_GSO_TYPE = 1,
    HEADER_LENGTH = 2,
    HEADER_GSO_SIZE = 4,
    HEADER_CSUM_START = 6,
    HEADER_CSUM_OFFSET = 8,
    HEADER_BUFFERS = 10,
    HEADER_BYTES = 12,
};
#define NEEDS_CSUM    0x1u
#define DATA_VALID    0x2u
#define GSO_TCP4      1u
#define GSO_TCP6      4u
#define GSO_ECN       0x80u

/* Commands: class, command (5.1.6.5). */
#define COMMAND(c, n) ((c) << 8 | (n))
enum command {
    RX_PROMISCUOUS = COMMAND(0, 0),
    RX_ALL_MULTICAST = COMMAND(0, 1),
    RX_ALL_UNICAST = COMMAND(0, 2),
    RX_NO_MULTICAST = COMMAND(0, 3),
    RX_NO_UNICAST = COMMAND(0, 4),
    RX_NO_BROADCAST = COMMAND(0, 5),
    MAC_TABLE_SET = COMMAND(1, 0),
    MAC_ADDRESS_SET = COMMAND(1, 1),
    VLAN_ADD = COMMAND(2, 0),
    VLAN_REMOVE = COMMAND(2, 1),
    ANNOUNCE_ACK = COMMAND(3, 0),
    PAIRS_SET = COMMAND(4, 0),
    OFFLOADS_SET = COMMAND(5, 0),
};
#define COMMAND_BYTES   2u
#define ACK_OK          0u
#define ACK_ERROR       1u

#define MAX_PAIRS       ((VIRTIO_MAX_QUEUES - 1) / 2)
#define TABLE_SIZE      64u
#define VLAN_COUNT      4096u
#define ETHERTYPE_VLAN  0x8100u
#define ETHERTYPE_IPV4  0x0800u
#define ETHERTYPE_IPV6  0x86ddu
#define FLOW_COUNT      256u
#define MAX_BUFFERS     VIRTIO_QUEUE_SIZE /* of one frame */
#define PEEK_BYTES      64u               /* enough for addresses and ports */
#define FRAMES_PER_KICK VIRTIO_QUEUE_SIZE

/* Addresses to receive, of one kind; too_many: all of them. */
struct mac_table {
    uint8_t count;
    bool too_many;
    uint8_t macs[TABLE_SIZE * NET_MAC_BYTES];
};

struct virtio_net {
    VIRTIO_TRANSPORT;
    struct virtio_device virtio;

    /* Configuration. */
    struct net *network; /* property */
    char *mac;           /* property */
    uint16_t queues;     /* property: pairs; 0: one for each processor */
    uint16_t mtu;        /* property; 0: not said */
    uint8_t own_mac[NET_MAC_BYTES];
    unsigned max_pairs;

    /* Guest-visible state. */
    uint8_t address[NET_MAC_BYTES];
    bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    struct mac_table unicast, multicast;
    uint8_t vlans[VLAN_COUNT / 8];
    uint16_t pairs;
    bool announce;
    uint64_t offloads; /* of those agreed on: what is used */

    struct state_buffer backend; /* net_save() */

    bool is_paused;
    uint8_t flow_pairs[FLOW_COUNT]; /* where the guest sends a flow */
    struct net_frontend frontend;
    struct virtio_chain sent, first, more; /* too big for the stack */
    struct virtio_used used[MAX_BUFFERS];
};

static struct virtio_net *net_of(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_net, virtio);
}

static struct virtio_net *net_of_device(struct device *dev)
{
    return container_of(dev, struct virtio_net, dev);
}

static struct virtqueue *receive_queue(struct virtio_net *s, unsigned pair)
{
    return &s->virtio.queues[2 * pair];
}

static struct virtqueue *send_queue(struct virtio_net *s, unsigned pair)
{
    return &s->virtio.queues[2 * pair + 1];
}

/* Behind the pairs that there can be (5.1.2). */
static struct virtqueue *control_queue(struct virtio_net *s)
{
    return &s->virtio.queues[virtio_has(&s->virtio, F_MQ) ? 2 * s->max_pairs : 2];
}

/* Old drivers that do not merge buffers have no count of them (5.1.6.1). */
static unsigned header_bytes(const struct virtio_net *s)
{
    return virtio_has(&s->virtio, VIRTIO_F_VERSION_1) || virtio_has(&s->virtio, F_MRG_RXBUF)
               ? HEADER_BYTES
               : HEADER_BUFFERS;
}

/* ---- flows ---- */

/* The same for both directions of a connection. size bytes of the frame's start. */
static unsigned flow_of(const uint8_t *frame, size_t size)
{
    unsigned type = get_be16(frame + 12), protocol = 0, ports = 0;
    uint32_t hash = 0;

    if (type == ETHERTYPE_IPV4 && size >= 34) {
        hash = get_be32(frame + 26) ^ get_be32(frame + 30);
        protocol = frame[23];
        ports = NET_HEADER_BYTES + 4u * (frame[14] & 15u);
    } else if (type == ETHERTYPE_IPV6 && size >= 54) {
        for (unsigned n = 22; n < 54; n += 4)
            hash ^= get_be32(frame + n);
        protocol = frame[20];
        ports = 54;
    }
    if ((protocol == 6 || protocol == 17) && ports + 4 <= size)
        hash ^= get_be16(frame + ports) ^ get_be16(frame + ports + 2);
    hash ^= hash >> 16;
    hash ^= hash >> 8;
    return hash % FLOW_COUNT;
}

/* ---- what the guest wants to receive ---- */

static bool is_in(const struct mac_table *table, const uint8_t *mac)
{
    for (unsigned n = 0; n < table->count; n++)
        if (!memcmp(table->macs + n * NET_MAC_BYTES, mac, NET_MAC_BYTES))
            return true;
    return table->too_many;
}

static bool wants(const struct virtio_net *s, const uint8_t *start, size_t size)
{
    static const uint8_t broadcast[NET_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (virtio_has(&s->virtio, F_CTRL_VLAN) && get_be16(start + 12) == ETHERTYPE_VLAN) {
        unsigned vlan = size < 16 ? 0 : get_be16(start + 14) % VLAN_COUNT;

        if (!(s->vlans[vlan / 8] >> vlan % 8 & 1))
            return false;
    }
    if (s->promiscuous)
        return true;
    if (!memcmp(start, broadcast, NET_MAC_BYTES))
        return !s->no_broadcast;
    if (start[0] & 1)
        return !s->no_multicast && (s->all_multicast || is_in(&s->multicast, start));
    return !s->no_unicast && (s->all_unicast || !memcmp(start, s->address, NET_MAC_BYTES) ||
                              is_in(&s->unicast, start));
}

/* ---- receiving ---- */

static unsigned net_takes(void *opaque)
{
    struct virtio_net *s = opaque;
    uint64_t offloads = s->virtio.features & s->offloads;

    return (offloads & F_GUEST_CSUM ? NET_TAKES_CHECKSUM : 0) |
           (offloads & F_GUEST_TSO4 ? NET_TAKES_TCP4 : 0) |
           (offloads & F_GUEST_TSO6 ? NET_TAKES_TCP6 : 0) |
           (offloads & F_GUEST_ECN ? NET_TAKES_ECN : 0);
}

/* The first size bytes; returns how many there are. */
static size_t peek(const struct net_frame *frame, uint8_t *out, size_t size)
{
    size_t done = 0;

    for (unsigned n = 0; n < frame->piece_count && done < size; n++) {
        size_t part = frame->pieces[n].size_bytes;

        part = part < size - done ? part : size - done;
        ram_copy(out + done, frame->pieces[n].data, part);
        done += part;
    }
    return done;
}

static void make_header(struct virtio_net *s, const struct net_offload *offload, unsigned buffers,
                        uint8_t header[HEADER_BYTES])
{
    memset(header, 0, HEADER_BYTES);
    if (offload->needs_checksum) {
        header[HEADER_FLAGS] = NEEDS_CSUM;
        put_le16(header + HEADER_CSUM_START, offload->checksum_start);
        put_le16(header + HEADER_CSUM_OFFSET, offload->checksum_offset);
    } else if (offload->checksum_valid && net_takes(s) & NET_TAKES_CHECKSUM) {
        header[HEADER_FLAGS] = DATA_VALID;
    }
    if (offload->gso != NET_GSO_NONE) {
        header[HEADER_GSO_TYPE] = (uint8_t)((offload->gso == NET_GSO_TCP4 ? GSO_TCP4 : GSO_TCP6) |
                                            (offload->ecn ? GSO_ECN : 0));
        put_le16(header + HEADER_LENGTH, (uint16_t)(offload->checksum_start + 20));
        put_le16(header + HEADER_GSO_SIZE, offload->segment_bytes);
    }
    put_le16(header + HEADER_BUFFERS, (uint16_t)buffers);
}

/* Where in the frame the next byte comes from. */
struct place {
    const struct io_piece *piece;
    size_t offset;
};

static void write_part(const struct virtio_chain *chain, uint64_t at, struct place *place,
                       size_t size)
{
    while (size) {
        size_t part = place->piece->size_bytes - place->offset;

        part = part < size ? part : size;
        virtio_chain_write(chain, at, (uint8_t *)place->piece->data + place->offset, part);
        at += part;
        size -= part;
        place->offset += part;
        if (place->offset == place->piece->size_bytes) {
            place->piece++;
            place->offset = 0;
        }
    }
}

static bool give_up(struct virtio_net *s, struct virtqueue *queue, unsigned count)
{
    while (count)
        virtqueue_unpop(queue, s->used[--count].descriptors);
    return !virtio_is_running(&s->virtio);
}

/* True: it is in the guest's buffers, or lost. False: there are too few. */
static bool put_frame(struct virtio_net *s, struct virtqueue *queue, const struct net_frame *frame)
{
    bool can_merge = virtio_has(&s->virtio, F_MRG_RXBUF);
    struct place place = {frame->pieces, 0};
    uint8_t header[HEADER_BYTES];
    size_t left = frame->size_bytes;
    unsigned count = 0;

    do {
        struct virtio_chain *chain = count ? &s->more : &s->first;
        size_t skip = count ? 0 : header_bytes(s), part;

        if (count == MAX_BUFFERS || !virtqueue_pop(queue, chain))
            return give_up(s, queue, count);
        if (chain->in_bytes < header_bytes(s) || (!can_merge && chain->in_bytes - skip < left)) {
            virtqueue_unpop(queue, chain->descriptors);
            give_up(s, queue, count);
            return true;
        }
        part = chain->in_bytes - skip < left ? (size_t)chain->in_bytes - skip : left;
        write_part(chain, skip, &place, part);
        s->used[count++] = virtqueue_written(queue, chain, skip + part);
        left -= part;
    } while (left);
    make_header(s, &frame->offload, count, header);
    virtio_chain_write(&s->first, 0, header, header_bytes(s));
    virtqueue_push_used(queue, s->used, count);
    return true;
}

static bool net_receive(void *opaque, const struct net_frame *frame)
{
    struct virtio_net *s = opaque;
    struct virtqueue *queue = receive_queue(s, 0);
    uint8_t start[PEEK_BYTES];
    size_t size;

    if (s->is_paused)
        return false;
    size = peek(frame, start, sizeof(start));
    if (!virtio_is_running(&s->virtio) || !wants(s, start, size))
        return true;
    if (s->pairs > 1)
        queue = receive_queue(s, s->flow_pairs[flow_of(start, size)] % s->pairs);
    return !queue->enabled || put_frame(s, queue, frame);
}

static void net_received(void *opaque)
{
    struct virtio_net *s = opaque;

    for (unsigned pair = 0; pair < s->pairs; pair++)
        virtqueue_notify(receive_queue(s, pair));
}

/* ---- sending ---- */

/* What the guest did not agree on is as if it were not there. */
static void read_offload(const struct virtio_net *s, const uint8_t *header, struct net_offload *out)
{
    const struct virtio_device *virtio = &s->virtio;
    unsigned gso = header[HEADER_GSO_TYPE] & ~GSO_ECN;

    if (!(header[HEADER_FLAGS] & NEEDS_CSUM) || !virtio_has(virtio, F_CSUM))
        return;
    out->needs_checksum = true;
    out->checksum_start = get_le16(header + HEADER_CSUM_START);
    out->checksum_offset = get_le16(header + HEADER_CSUM_OFFSET);
    if (gso == GSO_TCP4 && virtio_has(virtio, F_HOST_TSO4))
        out->gso = NET_GSO_TCP4;
    else if (gso == GSO_TCP6 && virtio_has(virtio, F_HOST_TSO6))
        out->gso = NET_GSO_TCP6;
    else
        return;
    out->segment_bytes = get_le16(header + HEADER_GSO_SIZE);
    out->ecn = header[HEADER_GSO_TYPE] & GSO_ECN && virtio_has(virtio, F_HOST_ECN);
}

/* The frame is what follows the header. */
static unsigned skip_header(struct virtio_chain *chain, size_t left)
{
    unsigned n = 0;

    while (chain->pieces[n].size_bytes <= left && n + 1 < chain->out_count)
        left -= chain->pieces[n++].size_bytes;
    chain->pieces[n].data = (uint8_t *)chain->pieces[n].data + left;
    chain->pieces[n].size_bytes -= left;
    return n;
}

static bool send_one(struct virtio_net *s, unsigned pair, struct virtio_chain *chain)
{
    struct net_frame frame = {.size_bytes = (size_t)chain->out_bytes - header_bytes(s)};
    uint8_t header[HEADER_BYTES], start[PEEK_BYTES];
    unsigned first;

    virtio_chain_read(chain, 0, header, sizeof(header));
    read_offload(s, header, &frame.offload);
    first = skip_header(chain, header_bytes(s));
    frame.pieces = chain->pieces + first;
    frame.piece_count = chain->out_count - first;
    if (s->pairs > 1 && frame.size_bytes >= NET_HEADER_BYTES)
        s->flow_pairs[flow_of(start, peek(&frame, start, sizeof(start)))] = (uint8_t)pair;
    return net_send(s->network, &frame);
}

static void send_frames(struct virtio_net *s, unsigned pair)
{
    struct virtqueue *queue = send_queue(s, pair);
    unsigned count = 0;

    while (count < FRAMES_PER_KICK && virtqueue_pop(queue, &s->sent)) {
        if (s->sent.out_bytes <= header_bytes(s) || s->sent.out_bytes > SIZE_MAX) {
            virtio_break(&s->virtio, "a frame without a header");
            return;
        }
        if (!send_one(s, pair, &s->sent)) {
            virtqueue_unpop(queue, s->sent.descriptors);
            break;
        }
        virtqueue_push(queue, &s->sent, 0);
        count++;
    }
    if (count)
        net_sent(s->network);
    virtqueue_notify(queue);
    if (count == FRAMES_PER_KICK)
        virtio_kick_later(&s->virtio); /* others want the lock, too */
}

static void send_all(void *opaque)
{
    struct virtio_net *s = opaque;

    for (unsigned pair = 0; pair < s->pairs && !s->is_paused; pair++)
        if (send_queue(s, pair)->enabled)
            send_frames(s, pair);
}

/* ---- commands ---- */

static bool set_flag(const struct virtio_chain *chain, bool *flag)
{
    uint8_t value;

    if (virtio_chain_read(chain, COMMAND_BYTES, &value, 1) != 1)
        return false;
    *flag = value != 0;
    return true;
}

/* A count and as many addresses; *offset goes on behind them. */
static bool read_table(const struct virtio_chain *chain, uint64_t *offset, struct mac_table *out)
{
    uint8_t number[4];
    uint64_t count, bytes;

    if (virtio_chain_read(chain, *offset, number, 4) != 4)
        return false;
    count = get_le32(number);
    bytes = count * NET_MAC_BYTES;
    *offset += 4;
    if (!range_fits(*offset, bytes, chain->out_bytes))
        return false;
    *out = (struct mac_table){.too_many = count > TABLE_SIZE};
    if (!out->too_many) {
        out->count = (uint8_t)count;
        virtio_chain_read(chain, *offset, out->macs, (size_t)bytes);
    }
    *offset += bytes;
    return true;
}

static bool set_tables(struct virtio_net *s, const struct virtio_chain *chain)
{
    struct mac_table unicast, multicast;
    uint64_t offset = COMMAND_BYTES;

    if (!read_table(chain, &offset, &unicast) || !read_table(chain, &offset, &multicast))
        return false;
    s->unicast = unicast;
    s->multicast = multicast;
    return true;
}

/* A command's number of 16 bits; -1: it is cut short. */
static int read_number(const struct virtio_chain *chain)
{
    uint8_t number[2];

    if (virtio_chain_read(chain, COMMAND_BYTES, number, 2) != 2)
        return -1;
    return get_le16(number);
}

static bool set_vlan(struct virtio_net *s, const struct virtio_chain *chain, bool add)
{
    int vlan = read_number(chain);

    if (vlan < 0 || vlan >= (int)VLAN_COUNT)
        return false;
    if (add)
        s->vlans[vlan / 8] |= (uint8_t)(1u << vlan % 8);
    else
        s->vlans[vlan / 8] &= (uint8_t) ~(1u << vlan % 8);
    return true;
}

static bool set_pairs(struct virtio_net *s, const struct virtio_chain *chain)
{
    int pairs = read_number(chain);

    if (!virtio_has(&s->virtio, F_MQ) || pairs <= 0 || pairs > (int)s->max_pairs)
        return false;
    s->pairs = (uint16_t)pairs;
    return true;
}

static bool set_offloads(struct virtio_net *s, const struct virtio_chain *chain)
{
    uint8_t number[8];
    uint64_t offloads;

    if (virtio_chain_read(chain, COMMAND_BYTES, number, 8) != 8)
        return false;
    offloads = get_le64(number);
    if (!virtio_has(&s->virtio, F_CTRL_OFFLOADS) ||
        offloads & ~(s->virtio.features & GUEST_OFFLOADS))
        return false;
    s->offloads = offloads;
    return true;
}

static bool execute(struct virtio_net *s, const struct virtio_chain *chain, unsigned command)
{
    switch (command) {
    case RX_PROMISCUOUS:
        return set_flag(chain, &s->promiscuous);
    case RX_ALL_MULTICAST:
        return set_flag(chain, &s->all_multicast);
    case RX_ALL_UNICAST:
        return set_flag(chain, &s->all_unicast);
    case RX_NO_MULTICAST:
        return set_flag(chain, &s->no_multicast);
    case RX_NO_UNICAST:
        return set_flag(chain, &s->no_unicast);
    case RX_NO_BROADCAST:
        return set_flag(chain, &s->no_broadcast);
    case MAC_TABLE_SET:
        return set_tables(s, chain);
    case MAC_ADDRESS_SET:
        if (chain->out_bytes != COMMAND_BYTES + NET_MAC_BYTES)
            return false;
        virtio_chain_read(chain, COMMAND_BYTES, s->address, NET_MAC_BYTES);
        return true;
    case VLAN_ADD:
    case VLAN_REMOVE:
        return set_vlan(s, chain, command == VLAN_ADD);
    case ANNOUNCE_ACK:
        s->announce = false;
        return true;
    case PAIRS_SET:
        return set_pairs(s, chain);
    case OFFLOADS_SET:
        return set_offloads(s, chain);
    default:
        return false;
    }
}

static void execute_commands(struct virtio_net *s, struct virtqueue *queue)
{
    for (unsigned n = 0; n < VIRTIO_QUEUE_SIZE && virtqueue_pop(queue, &s->sent); n++) {
        uint8_t command[COMMAND_BYTES], answer;

        if (virtio_chain_read(&s->sent, 0, command, COMMAND_BYTES) != COMMAND_BYTES ||
            !s->sent.in_bytes) {
            virtio_break(&s->virtio, "a command without a class or room for the answer");
            return;
        }
        answer = execute(s, &s->sent, COMMAND(command[0], command[1])) ? ACK_OK : ACK_ERROR;
        virtio_chain_write(&s->sent, 0, &answer, 1);
        virtqueue_push(queue, &s->sent, 1);
    }
    virtqueue_notify(queue);
}

/* ---- the device's calls ---- */

static void net_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_net *s = net_of(virtio);
    unsigned index = (unsigned)(queue - virtio->queues);

    if (queue == control_queue(s))
        execute_commands(s, queue);
    else if (index / 2 >= s->pairs)
        return;
    else if (index % 2)
        send_frames(s, index / 2);
    else
        net_accept(s->network);
}

static void net_forget(struct virtio_device *virtio)
{
    struct virtio_net *s = net_of(virtio);

    memcpy(s->address, s->own_mac, NET_MAC_BYTES);
    s->promiscuous = true; /* until the driver says which it wants */
    s->all_multicast = s->all_unicast = false;
    s->no_multicast = s->no_unicast = s->no_broadcast = false;
    memset(&s->unicast, 0, sizeof(s->unicast));
    memset(&s->multicast, 0, sizeof(s->multicast));
    memset(s->vlans, 0, sizeof(s->vlans));
    s->pairs = 1;
    s->announce = false;
    s->offloads = GUEST_OFFLOADS;
}

static void net_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                            unsigned size)
{
    struct virtio_net *s = net_of(virtio);
    uint8_t c[CONFIG_BYTES] = {0};

    memcpy(c + CONFIG_MAC, virtio->legacy ? s->address : s->own_mac, NET_MAC_BYTES);
    put_le16(c + CONFIG_STATUS, (uint16_t)((net_is_up(s->network) ? STATUS_LINK_UP : 0) |
                                           (s->announce ? STATUS_ANNOUNCE : 0)));
    put_le16(c + CONFIG_MAX_PAIRS, (uint16_t)s->max_pairs);
    put_le16(c + CONFIG_MTU, s->mtu);
    memcpy(out, c + offset, size);
}

/* How old drivers set their address (5.1.5.1). */
static void net_write_config(struct virtio_device *virtio, unsigned offset, const uint8_t *data,
                             unsigned size)
{
    if (virtio->legacy && range_fits(offset, size, NET_MAC_BYTES))
        memcpy(net_of(virtio)->address + offset, data, size);
}

/* Who has come back to a network tells it where it is. */
static void link_changed(void *opaque, bool up)
{
    struct virtio_net *s = opaque;

    s->announce = up && virtio_has(&s->virtio, F_GUEST_ANNOUNCE);
    if (virtio_is_running(&s->virtio))
        s->virtio.transport->notify_config(&s->virtio);
}

static const struct virtio_ops net_ops = {
    .id = ID_NETWORK,
    .config_bytes = CONFIG_BYTES,
    .read_config = net_read_config,
    .write_config = net_write_config,
    .kick = net_kick,
    .reset = net_forget,
};

/* ---- lifecycle ---- */

static int net_attach(struct device *dev, struct error *err)
{
    struct virtio_net *s = net_of_device(dev);
    unsigned pairs = s->queues ? s->queues : machine_vcpu_count(dev->machine);

    if (net_check_card(dev->id, s->network, s->mac, s->own_mac, err))
        return -EINVAL;
    s->max_pairs = pairs < MAX_PAIRS ? pairs : MAX_PAIRS;
    s->virtio = (struct virtio_device){
        .ops = &net_ops,
        .transport = virtio_transport_of(dev),
        .dev = dev,
        .offered = F_CSUM | F_GUEST_CSUM | F_CTRL_OFFLOADS | F_MAC | F_GUEST_TSO4 | F_GUEST_TSO6 |
                   F_GUEST_ECN | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_MRG_RXBUF | F_STATUS |
                   F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE |
                   F_CTRL_MAC_ADDR | (s->mtu ? F_MTU : 0) | (s->max_pairs > 1 ? F_MQ : 0),
        .queue_count = 2 * s->max_pairs + 1,
    };
    virtio_init(&s->virtio);
    net_forget(&s->virtio);
    s->frontend = (struct net_frontend){.takes = net_takes,
                                        .receive = net_receive,
                                        .received = net_received,
                                        .can_send = send_all,
                                        .link_changed = link_changed,
                                        .opaque = s};
    net_connect(s->network, &s->frontend);
    return virtio_transport_attach(dev, &s->virtio, PCI_CLASS_ETHERNET, err);
}

static void net_detach(struct device *dev)
{
    struct virtio_net *s = net_of_device(dev);

    if (s->frontend.opaque)
        net_connect(s->network, NULL);
    free(s->backend.data);
    virtio_transport_detach(dev);
}

static void net_reset(struct device *dev)
{
    virtio_transport_reset(dev);
}

/* Nothing is under way but what waits in queues. */
static void net_quiesce(struct device *dev)
{
    net_of_device(dev)->is_paused = true;
}

static void net_resume(struct device *dev)
{
    struct virtio_net *s = net_of_device(dev);

    s->is_paused = false;
    net_accept(s->network);
    send_all(s);
}

static void net_boot_path(struct device *dev, char *out, size_t size)
{
    pci_boot_path(&net_of_device(dev)->pci.function, "ethernet", "/ethernet-phy@0", out, size);
}

static int net_before_save(void *object, struct error *err)
{
    struct virtio_net *s = object;

    s->backend.size_bytes = 0;
    return net_save(s->network, &s->backend, err);
}

static int net_after_load(void *object, struct error *err)
{
    struct virtio_net *s = object;
    int result;

    if (s->pairs > s->max_pairs)
        return error_set(err, EINVAL, "%s: %u pairs of queues, of %u", s->virtio.dev->id, s->pairs,
                         s->max_pairs);
    result = virtio_transport_after_load(&s->dev, err);
    return result ? result : net_load(s->network, &s->backend, err);
}

#define NET_PROPERTIES                                                                             \
    PROPERTY_POINTER(struct virtio_net, network, "network"),                                       \
        PROPERTY_STRING(struct virtio_net, mac, "52:54:00:12:34:56", "address of the card"),       \
        PROPERTY_U16(struct virtio_net, queues, 0, "pairs of queues; 0: one for each processor"),  \
        PROPERTY_U16(struct virtio_net, mtu, 0,                                                    \
                     "largest packet in bytes, told to the guest; 0: not told"),                   \
        PROPERTY_END

static const struct state_field mac_table_state[] = {
    STATE_U8_MAX(struct mac_table, count, TABLE_SIZE),
    STATE_BOOL(struct mac_table, too_many),
    STATE_BYTES(struct mac_table, macs),
    STATE_END,
};

#define NET_STATE                                                                                  \
    VIRTIO_STATE(struct virtio_net, virtio), STATE_BYTES(struct virtio_net, address),              \
        STATE_BOOL(struct virtio_net, promiscuous), STATE_BOOL(struct virtio_net, all_multicast),  \
        STATE_BOOL(struct virtio_net, all_unicast), STATE_BOOL(struct virtio_net, no_multicast),   \
        STATE_BOOL(struct virtio_net, no_unicast), STATE_BOOL(struct virtio_net, no_broadcast),    \
        STATE_STRUCT(struct virtio_net, unicast, mac_table_state),                                 \
        STATE_STRUCT(struct virtio_net, multicast, mac_table_state),                               \
        STATE_BYTES(struct virtio_net, vlans),                                                     \
        STATE_FIELD_(struct virtio_net, STATE_TYPE_U16, pairs, 1, 2, 1, MAX_PAIRS, NULL),          \
        STATE_BOOL(struct virtio_net, announce),                                                   \
        STATE_U64_MAX(struct virtio_net, offloads, GUEST_OFFLOADS),                                \
        STATE_BLOB(struct virtio_net, backend, NET_MAX_STATE), STATE_END

VIRTIO_TABLES(net, struct virtio_net, NET_PROPERTIES, NET_STATE);

#define NET_CALLS                                                                                  \
    .instance_size = sizeof(struct virtio_net), .attach = net_attach, .reset = net_reset,          \
    .reset_done = virtio_transport_reset_done, .detach = net_detach, .quiesce = net_quiesce,       \
    .resume = net_resume

#define NET_TABLE(f)                                                                               \
    {                                                                                              \
        .version = 1, .oldest = 1, .fields = f, .before_save = net_before_save,                    \
        .after_load = net_after_load                                                               \
    }

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .summary = "virtio network card on PCI",
    .bus = BUS_PCI,
    .properties = net_properties,
    .boot_path = net_boot_path,
    .state = NET_TABLE(net_state),
    NET_CALLS,
};

const struct device_class virtio_net_mmio_class = {
    .name = "virtio-net-mmio",
    .summary = "virtio network card without PCI",
    .bus = BUS_PLATFORM,
    .properties = net_mmio_properties,
    .state = NET_TABLE(net_mmio_state),
    NET_CALLS,
};
