/*
 * e1000_frames.c - the descriptor rings of the 82540EM: sending and receiving
 *
 * The manual's chapter 3. Transmit: legacy descriptors, and those of TCP/IP contexts and data with
 * checksums and TCP segments, which are left to the network's other side where it takes them;
 * VLAN tags are put in. Receive: filters by address, multicast hash and VLAN, buffers of all sizes,
 * checksums, VLAN tags taken out.
 *
 * Theory of operation. Descriptors are taken when the guest moves a tail, and when the network has
 * room again. A frame's bytes are gathered until its last descriptor. What is received is written
 * when there are descriptors for all of it; until then the network keeps it.
 *
 * Left out: UDP segments, flow control by pause frames, splitting of headers.
 *
 * Threads: machine lock held. Guest memory: DMA to and from what descriptors name.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "base/net_sum.h"
#include "devices/e1000_internal.h"
#include "trapeze/memory.h"

#define TCTL_EN             (1u << 1)
#define TCTL_PSP            (1u << 3) /* pad short frames */
#define TXDCTL_LWTHRESH     25        /* shift: in eights of descriptors */

#define RCTL_EN             (1u << 1)
#define RCTL_UPE            (1u << 3) /* all unicast */
#define RCTL_MPE            (1u << 4) /* all multicast */
#define RCTL_LPE            (1u << 5) /* long frames */
#define RCTL_LBM            (3u << 6)
#define RCTL_RDMTS          8  /* shift */
#define RCTL_MO             12 /* shift */
#define RCTL_BAM            (1u << 15)
#define RCTL_BSIZE          16 /* shift */
#define RCTL_VFE            (1u << 18)
#define RCTL_CFIEN          (1u << 19)
#define RCTL_CFI            (1u << 20)
#define RCTL_BSEX           (1u << 25)
#define RCTL_SECRC          (1u << 26)

#define RXCSUM_IP           (1u << 8)
#define RXCSUM_TCP          (1u << 9)
#define RAH_SOURCE          (1u << 16)
#define RAH_VALID           (1u << 31)

/* Commands of transmit descriptors. */
#define COMMAND_EOP         0x01u
#define COMMAND_CHECKSUM    0x04u /* legacy */
#define COMMAND_SEGMENTS    0x04u
#define COMMAND_REPORT      0x08u
#define COMMAND_EXTENDED    0x20u
#define COMMAND_TAG         0x40u
#define COMMAND_DELAY       0x80u
#define CONTEXT_TCP         0x01u
#define CONTEXT_IPV4        0x02u
#define OPTION_IP           0x01u
#define OPTION_TCP          0x02u
#define STATUS_DONE         0x01u

/* Status and errors of receive descriptors. */
#define RECEIVED_DONE       0x0001u
#define RECEIVED_EOP        0x0002u
#define RECEIVED_IGNORE     0x0004u /* no checksum was checked */
#define RECEIVED_TAGGED     0x0008u
#define RECEIVED_TCP        0x0020u
#define RECEIVED_IP         0x0040u
#define RECEIVED_INEXACT    0x0080u
#define RECEIVED_TCP_WRONG  0x2000u
#define RECEIVED_IP_WRONG   0x4000u

#define ETHERTYPE           12u
#define ETHERTYPE_IPV4      0x0800u
#define MIN_BYTES           60u
#define MAX_BYTES           1514u
#define CRC_BYTES           4u
#define LONGEST_BYTES       (16384u - CRC_BYTES)
#define TCP_BYTES           20u
#define TCP_FLAGS           13u
#define TCP_CWR             0x80u
#define DESCRIPTORS_AT_ONCE 1024u /* others want the lock, too */

struct descriptor {
    uint64_t gpa;
    uint8_t bytes[E1000_DESCRIPTOR_BYTES];
};

static uint64_t ring_gpa(uint32_t low, uint32_t high, uint32_t index)
{
    return ((uint64_t)high << 32 | low) + (uint64_t)index * E1000_DESCRIPTOR_BYTES;
}

static void count_frame(struct e1000 *s, unsigned good, unsigned first_size, size_t size)
{
    e1000_count(s, good, 1);
    e1000_count(s, e1000_size_class(first_size, size + CRC_BYTES), 1);
}

/* ---- transmit: one frame ---- */

static void store_sum(uint8_t *frame, size_t size, size_t start, size_t at, size_t last)
{
    size_t end = last && last < size ? last + 1 : size;
    uint16_t sum;

    if (start > end || at + 2 > size)
        return;
    sum = (uint16_t)~net_sum(0, frame + start, end - start);
    memcpy(frame + at, &sum, 2);
}

/* The sum is left to the other side if it goes to the frame's end. */
static void ask_for_sum(uint8_t *frame, size_t size, size_t start, size_t at, size_t last,
                        struct net_offload *out)
{
    if (at < start || (last && last + 1 < size)) {
        store_sum(frame, size, start, at, last);
        return;
    }
    out->needs_checksum = true;
    out->checksum_start = (uint16_t)start;
    out->checksum_offset = (uint16_t)(at - start);
}

/*
 * A TCP segment to be cut. The driver left out the lengths of all of it (3.5.7): in the header of
 * IP, and in the sum that is in TCP's checksum. False: it is none.
 */
static bool ask_for_segments(const struct e1000_context *c, uint8_t *frame, size_t size,
                             size_t shift, struct net_offload *out)
{
    size_t ip = c->ip_start + shift, tcp = c->tcp_start + shift, at = c->tcp_offset + shift;
    bool is_ipv4 = c->command & CONTEXT_IPV4;
    uint8_t length[2];
    uint16_t sum;

    if (!(c->command & CONTEXT_TCP) || ip + TCP_BYTES > tcp || tcp + TCP_BYTES > size || at < tcp ||
        at + 2 > size || !c->segment_bytes)
        return false;
    put_be16(frame + ip + (is_ipv4 ? 2 : 4), (unsigned)(size - (is_ipv4 ? ip : ip + 40)));
    if (is_ipv4) {
        frame[ip + 10] = frame[ip + 11] = 0;
        store_sum(frame, size, ip, ip + 10, tcp - 1);
    }
    put_be16(length, (unsigned)(size - tcp));
    memcpy(&sum, frame + at, 2);
    sum = net_sum(sum, length, 2);
    memcpy(frame + at, &sum, 2);
    out->needs_checksum = true;
    out->gso = is_ipv4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
    out->ecn = frame[tcp + TCP_FLAGS] & TCP_CWR;
    out->checksum_start = (uint16_t)tcp;
    out->checksum_offset = (uint16_t)(at - tcp);
    out->segment_bytes = c->segment_bytes;
    return true;
}

static void count_sent(struct e1000 *s, const uint8_t *frame, size_t size)
{
    count_frame(s, E1000_GPTC, E1000_PTC64, size);
    e1000_count(s, E1000_TPT, 1);
    e1000_count_long(s, E1000_GOTC, size + CRC_BYTES);
    e1000_count_long(s, E1000_TOTC, size + CRC_BYTES);
    if (frame[0] == 0xff)
        e1000_count(s, E1000_BPTC, 1);
    else if (frame[0] & 1)
        e1000_count(s, E1000_MPTC, 1);
}

static void loop_back(struct e1000 *s, uint8_t *bytes, size_t size,
                      const struct net_offload *offload)
{
    struct io_piece piece = {bytes, size};
    struct net_frame frame = {.pieces = &piece, .piece_count = 1, .size_bytes = size};

    if (offload->gso != NET_GSO_NONE)
        return;
    if (offload->needs_checksum)
        store_sum(bytes, size, offload->checksum_start,
                  (size_t)offload->checksum_start + offload->checksum_offset, 0);
    e1000_receive(s, &frame);
    s->frontend.received(s);
}

static void give_away(struct e1000 *s, uint8_t *bytes, size_t size,
                      const struct net_offload *offload)
{
    struct io_piece piece = {bytes, size};
    struct net_frame frame = {
        .pieces = &piece, .piece_count = 1, .size_bytes = size, .offload = *offload};

    count_sent(s, bytes, size);
    if (e1000_loops_back(s) || s->rctl & RCTL_LBM)
        loop_back(s, bytes, size, offload);
    else if (e1000_has_link(s))
        net_send(s->network, &frame);
}

/* Checksums are where contexts say, further on if there is a tag. Legacy: css and cso. */
static bool finish_frame(struct e1000 *s, uint8_t *frame, size_t size, size_t shift,
                         const uint8_t *legacy, struct net_offload *out)
{
    const struct e1000_context *c = s->frame_is_segmented ? &s->segments : &s->checksums;

    if (legacy) {
        if (legacy[11] & COMMAND_CHECKSUM)
            ask_for_sum(frame, size, legacy[13] + shift, legacy[10] + shift, 0, out);
        return true;
    }
    if (s->frame_is_segmented) {
        bool is_right = ask_for_segments(c, frame, size, shift, out);

        e1000_count(s, is_right ? E1000_TSCTC : E1000_TSCTFC, 1);
        return is_right;
    }
    if (s->frame_options & OPTION_IP)
        store_sum(frame, size, c->ip_start + shift, c->ip_offset + shift,
                  c->ip_end ? c->ip_end + shift : 0);
    if (s->frame_options & OPTION_TCP)
        ask_for_sum(frame, size, c->tcp_start + shift, c->tcp_offset + shift,
                    c->tcp_end ? c->tcp_end + shift : 0, out);
    return true;
}

static void send_frame(struct e1000 *s, const uint8_t *legacy)
{
    uint8_t *frame = s->frame + E1000_TAG_BYTES;
    struct net_offload offload = {0};
    size_t size = s->frame_bytes, shift = 0;

    if (s->frame_is_too_long || size < NET_HEADER_BYTES)
        return;
    if (size < MIN_BYTES && s->tctl & TCTL_PSP) {
        memset(frame + size, 0, MIN_BYTES - size);
        size = MIN_BYTES;
    }
    if (s->frame_is_tagged && s->ctrl & E1000_CTRL_VME) {
        frame = s->frame;
        memmove(frame, frame + E1000_TAG_BYTES, ETHERTYPE);
        put_be16(frame + ETHERTYPE, s->vet);
        put_be16(frame + ETHERTYPE + 2, s->frame_tag);
        shift = E1000_TAG_BYTES;
        size += shift;
    }
    if (finish_frame(s, frame, size, shift, legacy, &offload))
        give_away(s, frame, size, &offload);
}

/* ---- transmit: descriptors ---- */

static void load_context(struct e1000 *s, const uint8_t *d)
{
    struct e1000_context *c = d[11] & COMMAND_SEGMENTS ? &s->segments : &s->checksums;

    *c = (struct e1000_context){
        .ip_start = d[0],
        .ip_offset = d[1],
        .ip_end = get_le16(d + 2),
        .tcp_start = d[4],
        .tcp_offset = d[5],
        .tcp_end = get_le16(d + 6),
        .command = d[11],
        .header_bytes = d[13],
        .segment_bytes = get_le16(d + 14),
    };
}

static void gather(struct e1000 *s, uint64_t gpa, uint32_t size)
{
    if (size > NET_MAX_FRAME_BYTES - E1000_TAG_BYTES - s->frame_bytes) {
        s->frame_is_too_long = true;
        return;
    }
    memory_read(device_memory(&s->function.dev), gpa, s->frame + E1000_TAG_BYTES + s->frame_bytes,
                size);
    s->frame_bytes += size;
}

static void take_data(struct e1000 *s, const uint8_t *d)
{
    bool is_legacy = !(d[11] & COMMAND_EXTENDED);
    bool is_first = !s->frame_has_begun, is_last = d[11] & COMMAND_EOP;

    if (is_first) {
        s->frame_has_begun = true;
        s->frame_bytes = 0;
        s->frame_is_too_long = false;
        s->frame_is_segmented = !is_legacy && d[11] & COMMAND_SEGMENTS;
        s->frame_options = is_legacy ? 0 : d[13];
    }
    if (s->frame_is_segmented ? is_first : is_last) {
        s->frame_is_tagged = d[11] & COMMAND_TAG;
        s->frame_tag = get_le16(d + 14);
    }
    gather(s, get_le64(d), is_legacy ? get_le16(d + 8) : get_le32(d + 8) & 0xfffffu);
    if (!is_last)
        return;
    s->frame_has_begun = false;
    send_frame(s, is_legacy ? d : NULL);
}

/* The guest is told what it asked for with the descriptor. */
static void report(struct e1000 *s, const struct descriptor *d)
{
    uint8_t status = d->bytes[12] | STATUS_DONE;

    if (!(d->bytes[11] & COMMAND_REPORT))
        return;
    memory_write(device_memory(&s->function.dev), d->gpa + 12, &status, 1);
    if (d->bytes[11] & COMMAND_DELAY && s->tidv) {
        e1000_delay(s, &s->transmit_delay, &s->transmit_limit_ns, s->tidv, s->tadv);
    } else {
        timer_cancel(&s->transmit_delay);
        e1000_raise(s, E1000_TXDW);
    }
}

static void take_descriptor(struct e1000 *s, uint32_t count)
{
    struct descriptor d = {.gpa = ring_gpa(s->tdbal, s->tdbah, s->tdh)};
    uint32_t left;

    memory_read(device_memory(&s->function.dev), d.gpa, d.bytes, sizeof(d.bytes));
    if (d.bytes[11] & COMMAND_EXTENDED && !(d.bytes[10] >> 4))
        load_context(s, d.bytes);
    else
        take_data(s, d.bytes);
    s->tdh = (s->tdh + 1) % count;
    report(s, &d);
    left = (s->tdt + count - s->tdh) % count;
    if (left == s->txdctl >> TXDCTL_LWTHRESH << 3)
        e1000_raise(s, E1000_TXD_LOW | (left ? 0 : E1000_TXQE));
    else if (!left)
        e1000_raise(s, E1000_TXQE);
}

static bool can_transmit(const struct e1000 *s, uint32_t count)
{
    return s->tctl & TCTL_EN && !s->is_paused && pci_is_master(&s->function) && s->tdh < count &&
           s->tdt < count && s->tdh != s->tdt && net_can_send(s->network);
}

void e1000_transmit(struct e1000 *s)
{
    uint32_t count = s->tdlen / E1000_DESCRIPTOR_BYTES;
    unsigned done = 0;

    while (done < DESCRIPTORS_AT_ONCE && can_transmit(s, count)) {
        take_descriptor(s, count);
        done++;
    }
    if (done == DESCRIPTORS_AT_ONCE)
        timer_arm(&s->transmit_more, device_now_ns(&s->function.dev));
    if (done)
        net_sent(s->network);
}

/* ---- receive: filters ---- */

static bool has_address(const struct e1000 *s, const uint8_t *frame)
{
    for (unsigned n = 0; n < sizeof(s->ra) / 4; n += 2) {
        const uint8_t *mac = frame + (s->ra[n + 1] & RAH_SOURCE ? NET_MAC_BYTES : 0);

        if (s->ra[n + 1] & RAH_VALID && get_le32(mac) == s->ra[n] &&
            get_le16(mac + 4) == (s->ra[n + 1] & 0xffff))
            return true;
    }
    return false;
}

static bool has_hash(const struct e1000 *s, const uint8_t *mac)
{
    static const uint8_t shifts[4] = {4, 3, 2, 0};
    unsigned hash = get_le16(mac + 4) >> shifts[s->rctl >> RCTL_MO & 3] & 0xfff;

    return s->mta[hash / 32] >> hash % 32 & 1;
}

static bool has_tag(const struct e1000 *s, const uint8_t *frame, size_t size)
{
    return size >= NET_HEADER_BYTES + E1000_TAG_BYTES && get_be16(frame + ETHERTYPE) == s->vet;
}

static bool wants_vlan(const struct e1000 *s, const uint8_t *frame, size_t size)
{
    unsigned tag, vlan;

    if (!(s->rctl & RCTL_VFE) || !has_tag(s, frame, size))
        return true;
    tag = get_be16(frame + ETHERTYPE + 2);
    vlan = tag & 0xfff;
    if (s->rctl & RCTL_CFIEN && (tag >> 12 & 1) != (s->rctl & RCTL_CFI ? 1 : 0))
        return false;
    return s->vfta[vlan / 32] >> vlan % 32 & 1;
}

/* Sets a bit of *status if the hash alone lets it in. */
static bool wants(const struct e1000 *s, const uint8_t *frame, size_t size, unsigned *status)
{
    static const uint8_t broadcast[NET_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    bool is_group = frame[0] & 1;

    if (!wants_vlan(s, frame, size))
        return false;
    if (has_address(s, frame))
        return true;
    if (!memcmp(frame, broadcast, NET_MAC_BYTES) && s->rctl & RCTL_BAM)
        return true;
    if (s->rctl & (is_group ? RCTL_MPE : RCTL_UPE))
        return true;
    *status |= RECEIVED_INEXACT;
    return is_group && has_hash(s, frame);
}

/* ---- receive: checksums ---- */

/* What the descriptor says of them: bits of its status and errors. */
static unsigned check_sums(const struct e1000 *s, const uint8_t *frame, size_t size, bool is_valid)
{
    size_t ip = NET_HEADER_BYTES, header, packet;
    uint8_t pseudo[4] = {0};
    unsigned status = 0;
    uint16_t sum;

    if (has_tag(s, frame, size))
        ip += E1000_TAG_BYTES;
    if (size < ip + 20 || get_be16(frame + ip - 2) != ETHERTYPE_IPV4 || frame[ip] >> 4 != 4)
        return RECEIVED_IGNORE;
    header = 4u * (frame[ip] & 15u);
    packet = get_be16(frame + ip + 2);
    if (header < 20 || packet < header || packet > size - ip)
        return RECEIVED_IGNORE;
    if (s->rxcsum & RXCSUM_IP) {
        status = RECEIVED_IP;
        if (!is_valid && net_sum(0, frame + ip, header) != 0xffff)
            status |= RECEIVED_IP_WRONG;
    }
    pseudo[1] = frame[ip + 9];
    if (!(s->rxcsum & RXCSUM_TCP) || get_be16(frame + ip + 6) & 0x3fff ||
        (pseudo[1] != 6 && pseudo[1] != 17) || packet < header + 8)
        return status ? status : RECEIVED_IGNORE;
    if (pseudo[1] == 17 && !get_be16(frame + ip + header + 6))
        return status ? status : RECEIVED_IGNORE; /* it has none */
    put_be16(pseudo + 2, (unsigned)(packet - header));
    sum = net_sum(net_sum(0, frame + ip + 12, 8), pseudo, 4);
    if (!is_valid && net_sum(sum, frame + ip + header, packet - header) != 0xffff)
        status |= RECEIVED_TCP_WRONG;
    return status | RECEIVED_TCP;
}

/* IEEE 802.3's, four bits at a time. */
static uint32_t frame_check(const uint8_t *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t n = 0; n < size * 2; n++) {
        uint32_t low = (crc ^ bytes[n / 2] >> n % 2 * 4) & 15u;

        for (unsigned bit = 0; bit < 4; bit++)
            low = low & 1 ? low >> 1 ^ 0xedb88320u : low >> 1;
        crc = crc >> 4 ^ low;
    }
    return ~crc;
}

/* ---- receive: descriptors ---- */

static uint32_t buffer_bytes(const struct e1000 *s)
{
    uint32_t size = 2048u >> (s->rctl >> RCTL_BSIZE & 3);

    return s->rctl & RCTL_BSEX && size < 2048 ? size * 16 : size;
}

static void write_buffers(struct e1000 *s, const uint8_t *frame, size_t size, uint32_t count,
                          unsigned status, unsigned tag)
{
    struct memory *memory = device_memory(&s->function.dev);
    uint32_t most = buffer_bytes(s), start = s->rxcsum & 0xff;
    uint16_t sum = start < size ? (uint16_t)~net_sum(0, frame + start, size - start) : 0;

    for (size_t done = 0; done < size;) {
        size_t part = size - done < most ? size - done : most;
        uint64_t gpa = ring_gpa(s->rdbal, s->rdbah, s->rdh);
        uint8_t d[E1000_DESCRIPTOR_BYTES];

        memory_read(memory, gpa, d, 8);
        memory_write(memory, get_le64(d), frame + done, part);
        done += part;
        put_le16(d + 8, (uint16_t)part);
        memcpy(d + 10, &sum, 2);
        put_le16(d + 12, (uint16_t)(RECEIVED_DONE | (done == size ? RECEIVED_EOP | status : 0)));
        put_le16(d + 14, (uint16_t)tag);
        memory_write(memory, gpa + 8, d + 8, 4);
        memory_write(memory, gpa + 12, d + 12, 4); /* "done" comes last */
        s->rdh = (s->rdh + 1) % count;
    }
}

static void count_received(struct e1000 *s, const uint8_t *frame, size_t size)
{
    count_frame(s, E1000_GPRC, E1000_PRC64, size);
    e1000_count_long(s, E1000_GORC, size + CRC_BYTES);
    if (frame[0] == 0xff)
        e1000_count(s, E1000_BPRC, 1);
    else if (frame[0] & 1)
        e1000_count(s, E1000_MPRC, 1);
}

/* Fewer than the threshold are left. */
static bool is_low(const struct e1000 *s, uint32_t count, uint32_t left)
{
    return left == count >> ((s->rctl >> RCTL_RDMTS & 3) + 1);
}

/* size bytes at frame, with room for the check behind them. */
static bool put_frame(struct e1000 *s, uint8_t *frame, size_t size, unsigned status, unsigned tag)
{
    uint32_t count = s->rdlen / E1000_DESCRIPTOR_BYTES, left, wanted, before;

    if (s->rdh >= count || s->rdt >= count)
        return true;
    if (!(s->rctl & RCTL_SECRC)) {
        put_le32(frame + size, frame_check(frame, size));
        size += CRC_BYTES;
    }
    left = before = (s->rdt + count - s->rdh) % count;
    wanted = (uint32_t)((size + buffer_bytes(s) - 1) / buffer_bytes(s));
    if (wanted >= count)
        return true;
    if (wanted > left) {
        e1000_count(s, E1000_RNBC, 1);
        return false;
    }
    write_buffers(s, frame, size, count, status, tag);
    for (left -= wanted; before > left; before--)
        if (is_low(s, count, before - 1))
            s->icr |= E1000_RXDMT0;
    s->has_received = true;
    return true;
}

bool e1000_receive(struct e1000 *s, const struct net_frame *frame)
{
    uint8_t *bytes = s->received;
    size_t size = 0;
    unsigned status = 0, tag = 0;

    if (s->is_paused)
        return false;
    if (!(s->rctl & RCTL_EN) || !pci_is_master(&s->function) || frame->size_bytes > LONGEST_BYTES)
        return true;
    for (unsigned n = 0; n < frame->piece_count; size += frame->pieces[n++].size_bytes)
        ram_copy(bytes + size, frame->pieces[n].data, frame->pieces[n].size_bytes);
    if (size < MIN_BYTES) {
        memset(bytes + size, 0, MIN_BYTES - size);
        size = MIN_BYTES;
    }
    if (!(s->rctl & RCTL_LPE) && size > MAX_BYTES + (has_tag(s, bytes, size) ? 4 : 0)) {
        e1000_count(s, E1000_ROC, 1);
        return true;
    }
    if (!wants(s, bytes, size, &status))
        return true;
    status |= check_sums(s, bytes, size, frame->offload.checksum_valid);
    if (s->ctrl & E1000_CTRL_VME && has_tag(s, bytes, size)) {
        tag = get_be16(bytes + ETHERTYPE + 2);
        status |= RECEIVED_TAGGED;
        memmove(bytes + E1000_TAG_BYTES, bytes, ETHERTYPE);
        bytes += E1000_TAG_BYTES;
        size -= E1000_TAG_BYTES;
    }
    if (!put_frame(s, bytes, size, status, tag))
        return false;
    count_received(s, bytes, size);
    e1000_count(s, E1000_TPR, 1);
    e1000_count_long(s, E1000_TORC, size + CRC_BYTES);
    if (size + CRC_BYTES <= s->rsrpd)
        s->icr |= E1000_SRPD;
    return true;
}

const struct state_field e1000_context_state[] = {
    STATE_U8(struct e1000_context, ip_start),       STATE_U8(struct e1000_context, ip_offset),
    STATE_U16(struct e1000_context, ip_end),        STATE_U8(struct e1000_context, tcp_start),
    STATE_U8(struct e1000_context, tcp_offset),     STATE_U16(struct e1000_context, tcp_end),
    STATE_U8(struct e1000_context, header_bytes),   STATE_U8(struct e1000_context, command),
    STATE_U16(struct e1000_context, segment_bytes), STATE_END,
};
