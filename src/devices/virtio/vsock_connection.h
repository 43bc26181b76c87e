/*
 * vsock_connection.h - what the files of virtio sockets share
 *
 * vsock.c is the device: what the guest's packets and the host's side ask for. vsock_connection.c
 * has the connections: what goes through them, and what is said of them to the guest.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_VIRTIO_VSOCK_CONNECTION_H
#define DEVICES_VIRTIO_VSOCK_CONNECTION_H

#include "devices/virtio/transport.h"
#include "trapeze/vsock.h"

enum queue_number { RECEIVE, TRANSMIT, EVENTS, QUEUE_COUNT };

#define HOST_CID         2u
#define HEADER_BYTES     44u
#define TYPE_STREAM      1u
#define BUFFER_BYTES     65536u /* of a connection: the guest's credit */
#define MAX_RESETS       32u
#define PACKETS_PER_TURN 64u

enum operation {
    OP_REQUEST = 1,
    OP_RESPONSE = 2,
    OP_RST = 3,
    OP_SHUTDOWN = 4,
    OP_RW = 5,
    OP_CREDIT_UPDATE = 6,
    OP_CREDIT_REQUEST = 7,
};
#define SHUTDOWN_RECEIVE   0x1u
#define SHUTDOWN_SEND      0x2u
#define SHUTDOWN_ALL       0x3u

/* What the guest is to be told; the lowest first. */
#define SAY_REQUEST        0x01u
#define SAY_RESPONSE       0x02u
#define SAY_CREDIT         0x04u
#define SAY_CREDIT_REQUEST 0x08u
#define SAY_SHUTDOWN       0x10u
#define SAY_RST            0x20u /* and it is gone */

struct packet {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port, size_bytes;
    uint16_t type, operation;
    uint32_t flags, buffer_bytes, forwarded;
};

struct connection {
    struct virtio_vsock *vsock;
    struct connection *next;
    struct vsock_stream *stream; /* NULL: it has gone */
    uint32_t host_port, guest_port;
    bool from_host;        /* who has asked for it */
    bool is_open;          /* both sides have agreed */
    uint8_t messages;      /* SAY_... */
    uint8_t guest_ended;   /* SHUTDOWN_..., by the guest */
    uint8_t host_ended;    /* by the host */
    bool has_ended_writes; /* the host's side was told that no more comes */

    uint32_t guest_buffer, guest_forwarded; /* as the guest said last */
    uint32_t sent;                          /* bytes to the guest */
    uint32_t forwarded, forwarded_told;     /* bytes from the guest: gone on, and so said */
    size_t head, count;                     /* of the buffer: from the guest, not gone on yet */
    uint8_t *buffer;                        /* NULL until it is needed */
};

struct reset {
    uint32_t host_port, guest_port;
};

struct virtio_vsock {
    VIRTIO_TRANSPORT;
    struct virtio_device virtio;

    /* Configuration. */
    struct vsock *host; /* property */
    uint64_t cid;       /* property */

    /* Guest-visible state. */
    bool has_connections; /* when it was saved */

    struct vsock_frontend frontend;
    struct connection *connections;
    unsigned connection_count;
    uint32_t next_port;
    struct reset resets[MAX_RESETS];
    unsigned reset_count;
    bool is_reset; /* the guest is to be told that nothing is left */
    bool is_paused;
    struct virtio_chain chain; /* too big for the stack */
};

/* ---- packets ---- */

struct packet vsock_get_packet(const uint8_t in[HEADER_BYTES]);
/*
 * Say what waits, as far as the guest has buffers. Connections of which the last has been said are
 * gone then.
 */
void vsock_say_all(struct virtio_vsock *s);

/* ---- connections ---- */

struct connection *connection_find(struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port);
/* NULL: there are enough. */
struct connection *connection_new(struct virtio_vsock *s, uint32_t host_port, uint32_t guest_port);
void connection_free(struct connection *c);
/* The host's side is over; the guest is told, and then nothing is left. */
void connection_abort(struct connection *c);
/* Be told when the host has something, if the guest has room for it. */
void connection_wait_for_host(struct connection *c);
/* Once all has gone on: what the guest has ended ends for the host. */
void connection_end_for_host(struct connection *c);
/* Pass the buffer on, as much as is taken. */
void connection_flush(struct connection *c);
/* The data of the packet in s->chain. */
void connection_take_data(struct connection *c, uint32_t size);
/* Calls of a vsock_frontend; they may free it. */
void connection_readable(void *owner);
void connection_writable(void *owner);

#endif
