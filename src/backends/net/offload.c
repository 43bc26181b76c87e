/*
 * offload.c - checksums and TCP segments of frames, where a side does not do them itself
 *
 * RFC 791 and 8200 (IP), 9293 (TCP).
 */
#include <string.h>

#include "backends/net/internal.h"
#include "base/bytes.h"
#include "base/guest_ram.h"
#include "base/net_sum.h"

#define ETHERTYPE_OFFSET 12u
#define VLAN_BYTES       4u
#define IPV6_BYTES       40u
#define PROTOCOL_TCP     6u
#define TCP_MIN_BYTES    20u
#define TCP_SUM_OFFSET   16u
#define TCP_FIN          0x01u
#define TCP_PUSH         0x08u
#define TCP_CWR          0x80u
#define MAX_HEADER_BYTES 512u

void net_gather(const struct net_frame *frame, uint8_t *out)
{
    size_t done = 0;

    for (unsigned n = 0; n < frame->piece_count && done < frame->size_bytes; n++) {
        size_t part = frame->pieces[n].size_bytes;

        if (part > frame->size_bytes - done)
            part = frame->size_bytes - done;
        ram_copy(out + done, frame->pieces[n].data, part);
        done += part;
    }
}

bool net_fill_checksum(uint8_t *frame, size_t size, const struct net_offload *offload)
{
    size_t start = offload->checksum_start, at = start + offload->checksum_offset;
    uint16_t sum;

    if (start > size || at + 2 > size || at < start)
        return false;
    sum = (uint16_t)~net_sum(0, frame + start, size - start);
    sum = sum ? sum : 0xffff; /* 0 is "none" in UDP, and the same number elsewhere */
    memcpy(frame + at, &sum, 2);
    return true;
}

/* ---- TCP segments ---- */

struct segments {
    unsigned ip, tcp, header_bytes; /* offsets, and all headers */
    bool is_ipv6;
    uint8_t header[MAX_HEADER_BYTES];
    uint32_t sequence;
    unsigned identification, flags;
};

static bool parse(struct segments *s, const uint8_t *frame, size_t size,
                  const struct net_offload *offload)
{
    size_t ip = NET_HEADER_BYTES, tcp = offload->checksum_start;

    s->is_ipv6 = offload->gso == NET_GSO_TCP6;
    if (size < NET_HEADER_BYTES + VLAN_BYTES)
        return false;
    if (get_be16(frame + ETHERTYPE_OFFSET) == 0x8100)
        ip += VLAN_BYTES;
    if (tcp < ip + (s->is_ipv6 ? IPV6_BYTES : 20) || tcp + TCP_MIN_BYTES > size ||
        offload->checksum_offset != TCP_SUM_OFFSET || !offload->segment_bytes)
        return false;
    if (frame[ip] >> 4 != (s->is_ipv6 ? 6 : 4) ||
        (!s->is_ipv6 && ip + 4u * (frame[ip] & 15u) != tcp))
        return false;
    s->ip = (unsigned)ip;
    s->tcp = (unsigned)tcp;
    s->header_bytes = s->tcp + 4u * (frame[tcp + 12] >> 4);
    if (s->header_bytes < tcp + TCP_MIN_BYTES || s->header_bytes > size ||
        s->header_bytes > MAX_HEADER_BYTES)
        return false;
    memcpy(s->header, frame, s->header_bytes);
    s->sequence = get_be32(frame + tcp + 4);
    s->identification = get_be16(frame + ip + 4);
    s->flags = frame[tcp + 13];
    return true;
}

static uint16_t pseudo_sum(const struct segments *s, const uint8_t *frame, unsigned tcp_bytes)
{
    uint8_t rest[4] = {0, PROTOCOL_TCP};
    uint16_t sum =
        s->is_ipv6 ? net_sum(0, frame + s->ip + 8, 32) : net_sum(0, frame + s->ip + 12, 8);

    put_be16(rest + 2, tcp_bytes);
    return net_sum(sum, rest, sizeof(rest));
}

/* Headers of a segment with bytes of data that follow data_offset bytes of others. */
static void make_headers(const struct segments *s, uint8_t *frame, unsigned index,
                         size_t data_offset, size_t bytes, bool is_last)
{
    uint8_t *ip = frame + s->ip, *tcp = frame + s->tcp;
    size_t tcp_bytes = s->header_bytes - s->tcp + bytes;
    unsigned flags = s->flags;
    uint16_t sum;

    memcpy(frame, s->header, s->header_bytes);
    if (s->is_ipv6) {
        put_be16(ip + 4, (unsigned)(s->tcp - s->ip - IPV6_BYTES + tcp_bytes));
    } else {
        put_be16(ip + 2, (unsigned)(s->tcp - s->ip + tcp_bytes));
        put_be16(ip + 4, s->identification + index);
        put_be16(ip + 10, 0);
        sum = (uint16_t)~net_sum(0, ip, s->tcp - s->ip);
        memcpy(ip + 10, &sum, 2);
    }
    if (!is_last)
        flags &= ~(TCP_FIN | TCP_PUSH);
    if (index)
        flags &= ~TCP_CWR;
    put_be32(tcp + 4, s->sequence + (uint32_t)data_offset);
    tcp[13] = (uint8_t)flags;
    put_be16(tcp + TCP_SUM_OFFSET, 0);
    sum = (uint16_t)~net_sum(pseudo_sum(s, frame, (unsigned)tcp_bytes), tcp, tcp_bytes);
    memcpy(tcp + TCP_SUM_OFFSET, &sum, 2);
}

/* The data stays where it is: each header is written before its own, over what has gone. */
bool net_cut(uint8_t *frame, size_t size, const struct net_offload *offload, net_put_frame *put,
             void *opaque)
{
    struct segments s;
    size_t done = 0, all;

    if (!parse(&s, frame, size, offload))
        return false;
    all = size - s.header_bytes;
    for (unsigned index = 0; index == 0 || done < all; index++) {
        size_t bytes = all - done < offload->segment_bytes ? all - done : offload->segment_bytes;
        struct io_piece piece = {frame + done, s.header_bytes + bytes};
        struct net_frame segment = {.pieces = &piece,
                                    .piece_count = 1,
                                    .size_bytes = piece.size_bytes,
                                    .offload.checksum_valid = true};

        make_headers(&s, frame + done, index, done, bytes, done + bytes == all);
        put(opaque, &segment);
        done += bytes;
    }
    return true;
}
