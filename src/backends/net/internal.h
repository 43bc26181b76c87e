/*
 * internal.h - what the network backends share
 *
 * A backend is a struct net_kind in the table of net.c: its settings are a property table over the
 * instance, whose first member is struct net.
 */
#ifndef BACKENDS_NET_INTERNAL_H
#define BACKENDS_NET_INTERNAL_H

#include <fcntl.h>

#include "host/given.h"
#include "host/loop.h"
#include "trapeze/net.h"
#include "trapeze/property.h"

struct capture;
struct queued_frame;

struct net_kind {
    const char *name, *summary;
    size_t instance_size;
    const struct property *properties; /* starts with NET_PROPERTIES */
    unsigned takes;                    /* of what send is given, NET_TAKES_... */
    bool takes_long; /* TCP segments that are to be cut, with their checksums filled in */
    bool connects;   /* to others, while the machine runs */
    /* Open what open() opens, for host_record(), and close it; NULL: there is nothing. */
    int (*hand_over)(struct net *net, struct error *err);
    /* Start up; on failure free is called (which may find it half-built). */
    int (*open)(struct net *net, struct error *err);
    void (*free)(struct net *net);
    /* No room for another frame: net_notify_can_send() follows. NULL: there always is. */
    bool (*is_busy)(const struct net *net);
    void (*send)(struct net *net, const struct net_frame *frame);
    void (*sent)(struct net *net);   /* no more for now; may be NULL */
    void (*accept)(struct net *net); /* net_is_full() no longer; may be NULL */
    int (*publish)(struct net *net, const char *port, struct error *err); /* may be NULL */
    /* net_save(), net_load(); NULL: it has no state. */
    int (*save)(struct net *net, struct state_buffer *out, struct error *err);
    int (*load)(struct net *net, const struct state_buffer *saved, struct error *err);
};

struct net {
    const struct net_kind *kind;
    struct loop *loop;
    const struct net_frontend *frontend; /* NULL until a card connects */
    bool up;                             /* a peer is there */

    char *capture; /* property: file name */
    struct capture *capture_to;

    /* What the card had no room for. */
    struct queued_frame *first, **last;
    size_t queued_bytes;
    struct net_counts counts;

    uint8_t *scratch; /* NET_MAX_FRAME_BYTES: a frame in one piece */
};

#define NET_PROPERTIES(st)                                                                         \
    {                                                                                              \
        .name = "capture", .type = PROPERTY_TYPE_STRING, .offset = offsetof(st, net.capture),      \
        .help = "write all frames to this file, as pcap"                                           \
    }

extern const struct net_kind net_socket, net_switch, net_tap, net_user;

/* ---- net.c: for backends ---- */

/* Frames wait while the card has no room; what comes when there are this many bytes is lost. */
#define NET_QUEUE_BYTES (1u << 20)
void net_deliver(struct net *net, const struct net_frame *frame);
void net_delivered(struct net *net); /* no more for now */
/* Should the backend leave frames where they are? accept() tells when not any more. */
bool net_is_full(const struct net *net);
void net_notify_can_send(struct net *net);
void net_set_up(struct net *net, bool up);

/* ---- offload.c: frames in one piece of the host's memory ---- */

/* Copy it. out has NET_MAX_FRAME_BYTES. */
void net_gather(const struct net_frame *frame, uint8_t *out);
/* Fill in the checksum that offload wants. False: it is not within the frame. */
bool net_fill_checksum(uint8_t *frame, size_t size, const struct net_offload *offload);
/*
 * Cut a TCP segment into frames with checksums, and put() one after the other; frame is
 * overwritten. False: it is not what offload says, and nothing was put.
 */
typedef void net_put_frame(void *opaque, const struct net_frame *frame);
bool net_cut(uint8_t *frame, size_t size, const struct net_offload *offload, net_put_frame *put,
             void *opaque);

/* ---- capture.c ---- */

#define NET_CAPTURE_FLAGS (O_WRONLY | O_CREAT | O_TRUNC)
struct capture *capture_open(const char *path, struct error *err);
void capture_free(struct capture *capture); /* NULL is fine */
void capture_frame(struct capture *capture, const struct net_frame *frame);

#endif
