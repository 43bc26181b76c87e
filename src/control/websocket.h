/*
 * websocket.h - frames of WebSocket (RFC 6455), a server's side, without any input or output
 *
 * Messages are binary, and what is in them is a stream: where one ends means nothing. Text is
 * refused. Any thread; nothing is shared.
 */
#ifndef CONTROL_WEBSOCKET_H
#define CONTROL_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEBSOCKET_ACCEPT_BYTES  29u /* with its end */
#define WEBSOCKET_HEAD_BYTES    10u /* of what a server sends, at most */
#define WEBSOCKET_CONTROL_BYTES 125u
#define WEBSOCKET_MESSAGE_BYTES (1u << 20) /* of a client, all fragments together */

enum websocket_opcode {
    WEBSOCKET_CONTINUATION = 0,
    WEBSOCKET_TEXT = 1,
    WEBSOCKET_BINARY = 2,
    WEBSOCKET_CLOSE = 8,
    WEBSOCKET_PING = 9,
    WEBSOCKET_PONG = 10,
};

/* Why a connection ends (section 7.4.1). */
enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_UNSUPPORTED_DATA = 1003,
    WEBSOCKET_TOO_BIG = 1009,
};

/* What Sec-WebSocket-Accept answers to Sec-WebSocket-Key. False: the key is none. */
bool websocket_accept(const char *key, char out[WEBSOCKET_ACCEPT_BYTES]);

/* The beginning of a whole message or control frame of size bytes; returns its length. */
size_t websocket_head(enum websocket_opcode opcode, size_t size, uint8_t out[WEBSOCKET_HEAD_BYTES]);

/* Zeroed to begin with. */
struct websocket_reader {
    uint8_t head[14], control[WEBSOCKET_CONTROL_BYTES];
    unsigned head_size, control_size;
    uint64_t left;          /* bytes of the frame that are to come, when its head is there */
    uint64_t message_bytes; /* so far */
    unsigned mask_at;
    bool is_in_frame, is_in_message, is_over;
};

enum websocket_event {
    WEBSOCKET_MORE,   /* all was taken; there is nothing to do yet */
    WEBSOCKET_DATA,   /* bytes of the stream */
    WEBSOCKET_PINGED, /* answer by a pong with the same bytes */
    WEBSOCKET_PONGED,
    WEBSOCKET_CLOSED, /* answer by a close frame with this code; nothing is read any more */
    WEBSOCKET_WRONG,  /* close with this code */
};

struct websocket_piece {
    enum websocket_event event;
    const uint8_t *bytes; /* of DATA and PINGED, until the next call */
    size_t size;
    uint16_t code;
};

/*
 * Look at bytes that have come, up to the first thing that there is to do; returns how many these
 * were. They are unmasked in place.
 */
size_t websocket_read(struct websocket_reader *reader, uint8_t *bytes, size_t size,
                      struct websocket_piece *out);

#endif
