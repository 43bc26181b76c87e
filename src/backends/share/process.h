/*
 * process.h - the process that serves a share, and how the machine's speaks with it
 *
 * Over a socket of whole packets. The machine's process sends struct share_packet, as long as it
 * has pieces; the first has the guest's RAM with it. To each that wants an answer comes a struct
 * share_answer, in order. Neither side trusts the other's numbers.
 */
#ifndef BACKENDS_SHARE_PROCESS_H
#define BACKENDS_SHARE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/share/server.h"
#include "trapeze/error.h"

enum share_kind {
    SHARE_RAM,     /* a memfd comes with it; offset and size of piece 0 are what of it is RAM */
    SHARE_MESSAGE, /* pieces of RAM: of the message, and of the room for its answer */
    SHARE_FORGET,  /* whatever is open */
    SHARE_SAVE,    /* that: the answer says how many bytes follow it, in packets of SHARE_CHUNK */
    SHARE_LOAD,    /* the size of piece 0, and so many bytes follow; the answer is 0 or an error */
};
#define SHARE_CHUNK  (32u << 10)
#define SHARE_FAILED UINT32_MAX /* of SHARE_SAVE */

struct share_packet {
    uint32_t kind, slot; /* slot: the sender's, comes back */
    uint32_t out_count, in_count;
    struct share_piece {
        uint64_t offset, size_bytes; /* in RAM */
    } pieces[SHARE_MAX_PIECES];
};

/* Of a packet with so many pieces. */
static inline size_t share_packet_bytes(unsigned pieces)
{
    return offsetof(struct share_packet, pieces) + pieces * sizeof(struct share_piece);
}

struct share_answer {
    uint32_t slot, bytes;
};

/* What a new process says when it is ready, or why it can't be. */
struct share_greeting {
    struct error err;
    uint32_t confinement; /* HOST_CONFINE_... */
};

/* In the new process, which host_process_start() has made; does not return. socket is its end. */
_Noreturn void share_process(int socket, const char *folder, bool read_only, bool sandboxed);

#endif
