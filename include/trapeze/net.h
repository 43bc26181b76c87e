/*
 * net.h - Ethernet frames between a network card and the host
 *
 * The backend (user, socket, tap) owns the host side; the front end is a card. Both
 * directions have back-pressure: a card keeps what net_send() does not take until can_send, and
 * a backend keeps what the card has no buffers for, or leaves it with whoever sent it.
 *
 * Frames may be larger than the link: a TCP segment that is to be cut, a checksum that is to be
 * filled in (struct net_offload). Who cannot take such a frame is given what it can take.
 *
 * All calls with the machine lock held.
 */
#ifndef TRAPEZE_NET_H
#define TRAPEZE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"
#include "trapeze/io_piece.h"
#include "trapeze/state.h"

struct loop;
struct net;

#define NET_MAC_BYTES       6u
#define NET_HEADER_BYTES    14u /* addresses and type */
#define NET_MAX_FRAME_BYTES (65535u + NET_HEADER_BYTES + 4)
#define NET_DEFAULT_MTU     1500u

enum net_gso { NET_GSO_NONE, NET_GSO_TCP4, NET_GSO_TCP6 };

/* What a side of the link takes or leaves to the other. Zero: an ordinary frame. */
struct net_offload {
    bool needs_checksum; /* store the sum from checksum_start to the end, at + checksum_offset */
    bool checksum_valid; /* whoever wrote it has checked it */
    bool ecn;            /* of TCP: CWR is for the first segment only */
    uint8_t gso;         /* enum net_gso; needs_checksum is set, too */
    uint16_t checksum_start, checksum_offset; /* bytes */
    uint16_t segment_bytes;                   /* of data in each segment */
};

struct net_frame {
    const struct io_piece *pieces; /* may be guest memory, which changes while it is read */
    unsigned piece_count;
    size_t size_bytes; /* of all pieces, at most NET_MAX_FRAME_BYTES */
    struct net_offload offload;
};

/* What a side takes. */
#define NET_TAKES_CHECKSUM 0x1u /* needs_checksum */
#define NET_TAKES_TCP4     0x2u
#define NET_TAKES_TCP6     0x4u
#define NET_TAKES_ECN      0x8u

struct net_frontend {
    unsigned (*takes)(void *opaque); /* NET_TAKES_...; may change */
    /* False: there is no room. net_accept() says when there is. */
    bool (*receive)(void *opaque, const struct net_frame *frame);
    void (*received)(void *opaque); /* no more for now: the time to tell the guest */
    void (*can_send)(void *opaque); /* net_send() takes frames again */
    void (*link_changed)(void *opaque, bool up);
    void *opaque;
};

/* Open "KIND[,PROPERTY=VALUE]...": "user", "socket,connect=PATH", "tap,name=tap0", "switch=NAME".
 */
struct net *net_open(struct loop *loop, const char *description, struct error *err);
void net_free(struct net *net); /* NULL is fine */
/* Open what net_open() would, for host_record() (host/given.h), and close it. */
int net_hand_over(const char *description, struct error *err);

/* frontend stays owned by the caller; NULL disconnects. One at a time. */
void net_connect(struct net *net, const struct net_frontend *frontend);
/* False: not taken; can_send follows. A frame that makes no sense is taken and lost. */
bool net_send(struct net *net, const struct net_frame *frame);
bool net_can_send(const struct net *net); /* net_send() would take a frame */
void net_sent(struct net *net);           /* no more for now */
/* The front end has room again. */
void net_accept(struct net *net);
bool net_is_up(const struct net *net);
/* What the card has sent, and was sent, since it was opened. */
struct net_counts {
    uint64_t sent_frames, sent_bytes, received_frames, received_bytes;
};
struct net_counts net_counts(const struct net *net);

/*
 * What the backend knows of its guest, for the state of the card: bytes of its own, most have none.
 * net_save() fills out, which is empty; 0 or -ENOMEM. net_load() takes what may be hostile, or of
 * another backend: 0, or -EINVAL and nothing has changed.
 */
#define NET_MAX_STATE 4096u
int net_save(struct net *net, struct state_buffer *out, struct error *err);
int net_load(struct net *net, const struct state_buffer *saved, struct error *err);

/*
 * Lead a port of the host to the guest: "[HOST:]PORT:GUESTPORT[/udp]"; HOST is 127.0.0.1 if
 * it is not said. Before the machine starts. -ENOTSUP for a backend that has no such ports.
 */
int net_publish(struct net *net, const char *port, struct error *err);
/* Does it connect to other hosts while the machine runs? */
bool net_connects(const struct net *net);

/* "52:54:00:12:34:56" to bytes. False: it is not that, or not one card's (multicast, or 0). */
bool net_parse_mac(const char *text, uint8_t out[NET_MAC_BYTES]);
/* What every card wants: a network (NULL: there is none) and an address. name is for the error. */
int net_check_card(const char *name, const struct net *net, const char *mac,
                   uint8_t out[NET_MAC_BYTES], struct error *err);

/* The kinds of backend, for help texts: names from index 0 on, NULL after the last. */
const char *net_kind_name(unsigned index);
const char *net_kind_summary(unsigned index);

#endif
