/*
 * websocket.c - frames of WebSocket (RFC 6455, section 5)
 *
 * Left out: extensions (none is offered, so reserved bits are an error), text messages, and the
 * reason that a close frame may have beside its code.
 */
#include "control/websocket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/bytes.h"
#include "base/sha1.h"

#define FIN        0x80u
#define RESERVED   0x70u
#define MASKED     0x80u
#define LENGTH_16  126u
#define LENGTH_64  127u
#define KEY_BYTES  16u
#define MASK_BYTES 4u

bool websocket_accept(const char *key, char out[WEBSOCKET_ACCEPT_BYTES])
{
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* section 1.3 */
    uint8_t hash[SHA1_BYTES], *bytes = NULL;
    char text[64], *answer = NULL;
    size_t size = 0;
    bool good;

    if (strlen(key) == 24)
        bytes = base64_decode(key, &size);
    good = bytes && size == KEY_BYTES;
    free(bytes);
    if (!good)
        return false;
    sha1(text, (size_t)snprintf(text, sizeof(text), "%s%s", key, magic), hash);
    answer = base64_encode(hash, sizeof(hash));
    if (answer)
        memcpy(out, answer, WEBSOCKET_ACCEPT_BYTES);
    free(answer);
    return answer != NULL;
}

size_t websocket_head(enum websocket_opcode opcode, size_t size, uint8_t out[WEBSOCKET_HEAD_BYTES])
{
    out[0] = (uint8_t)(FIN | opcode);
    if (size < LENGTH_16) {
        out[1] = (uint8_t)size;
        return 2;
    }
    if (size <= UINT16_MAX) {
        out[1] = LENGTH_16;
        put_be16(out + 2, (uint32_t)size);
        return 4;
    }
    out[1] = LENGTH_64;
    put_be64(out + 2, size);
    return 10;
}

/* ---- what comes ---- */

static bool is_control(const struct websocket_reader *reader)
{
    return reader->head[0] & 8;
}

static unsigned opcode_of(const struct websocket_reader *reader)
{
    return reader->head[0] & 15;
}

static unsigned length_bytes(const struct websocket_reader *reader)
{
    unsigned length = reader->head[1] & ~MASKED;

    return length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0;
}

static void end(struct websocket_reader *reader, struct websocket_piece *out,
                enum websocket_event event, uint16_t code)
{
    reader->is_over = true;
    *out = (struct websocket_piece){.event = event, .code = code};
}

/* Of the first two bytes, before more is waited for. 0: they are fine. */
static uint16_t check_start(const struct websocket_reader *reader)
{
    unsigned opcode = opcode_of(reader), length = reader->head[1] & ~MASKED;
    bool is_last = reader->head[0] & FIN;

    if (reader->head[0] & RESERVED || !(reader->head[1] & MASKED))
        return WEBSOCKET_PROTOCOL_ERROR;
    if (is_control(reader))
        return opcode <= WEBSOCKET_PONG && is_last && length <= WEBSOCKET_CONTROL_BYTES
                   ? 0
                   : WEBSOCKET_PROTOCOL_ERROR;
    if (opcode == WEBSOCKET_TEXT)
        return WEBSOCKET_UNSUPPORTED_DATA;
    return opcode <= WEBSOCKET_BINARY && (opcode == WEBSOCKET_CONTINUATION) == reader->is_in_message
               ? 0
               : WEBSOCKET_PROTOCOL_ERROR;
}

/* Of the whole head. The shortest form of a length is the only one (section 5.2). */
static uint16_t start_frame(struct websocket_reader *reader)
{
    uint64_t length = reader->head[1] & ~MASKED;

    if (length == LENGTH_16)
        length = get_be16(reader->head + 2);
    else if (length == LENGTH_64)
        length = get_be64(reader->head + 2);
    if (length_bytes(reader) && length < (length_bytes(reader) == 2 ? LENGTH_16 : 0x10000u))
        return WEBSOCKET_PROTOCOL_ERROR;
    reader->left = length;
    reader->mask_at = 0;
    reader->is_in_frame = true;
    if (is_control(reader)) {
        reader->control_size = 0;
        return 0;
    }
    if (length > WEBSOCKET_MESSAGE_BYTES - reader->message_bytes)
        return WEBSOCKET_TOO_BIG;
    reader->message_bytes += length;
    reader->is_in_message = !(reader->head[0] & FIN);
    if (!reader->is_in_message)
        reader->message_bytes = 0;
    return 0;
}

static void unmask(struct websocket_reader *reader, uint8_t *bytes, size_t size)
{
    const uint8_t *mask = reader->head + reader->head_size - MASK_BYTES;

    for (size_t n = 0; n < size; n++)
        bytes[n] ^= mask[(reader->mask_at + n) % MASK_BYTES];
    reader->mask_at = (unsigned)((reader->mask_at + size) % MASK_BYTES);
}

/* Which a client may send (section 7.4). */
static bool is_code(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static void end_control(struct websocket_reader *reader, struct websocket_piece *out)
{
    uint16_t code = WEBSOCKET_NORMAL;

    switch (opcode_of(reader)) {
    case WEBSOCKET_PING:
        *out = (struct websocket_piece){WEBSOCKET_PINGED, reader->control, reader->control_size, 0};
        return;
    case WEBSOCKET_PONG:
        *out = (struct websocket_piece){.event = WEBSOCKET_PONGED};
        return;
    default:
        if (reader->control_size >= 2)
            code = (uint16_t)get_be16(reader->control);
        if (reader->control_size != 1 && is_code(code))
            end(reader, out, WEBSOCKET_CLOSED, code);
        else
            end(reader, out, WEBSOCKET_WRONG, WEBSOCKET_PROTOCOL_ERROR);
    }
}

/* Bytes of a frame. */
static size_t read_payload(struct websocket_reader *reader, uint8_t *bytes, size_t size,
                           struct websocket_piece *out)
{
    size = size < reader->left ? size : (size_t)reader->left;
    unmask(reader, bytes, size);
    reader->left -= size;
    if (size && is_control(reader)) {
        memcpy(reader->control + reader->control_size, bytes, size);
        reader->control_size += (unsigned)size;
    } else if (size) {
        *out = (struct websocket_piece){WEBSOCKET_DATA, bytes, size, 0};
    }
    if (!reader->left) {
        if (is_control(reader))
            end_control(reader, out);
        reader->is_in_frame = false;
        reader->head_size = 0;
    }
    return size;
}

/* A byte of a head. */
static void read_head(struct websocket_reader *reader, uint8_t byte, struct websocket_piece *out)
{
    uint16_t code = 0;

    reader->head[reader->head_size++] = byte;
    if (reader->head_size == 2)
        code = check_start(reader);
    if (!code && reader->head_size == 2 + length_bytes(reader) + MASK_BYTES)
        code = start_frame(reader);
    if (code)
        end(reader, out, WEBSOCKET_WRONG, code);
    else if (reader->is_in_frame && !reader->left)
        read_payload(reader, NULL, 0, out); /* an empty one */
}

size_t websocket_read(struct websocket_reader *reader, uint8_t *bytes, size_t size,
                      struct websocket_piece *out)
{
    size_t taken = 0;

    *out = (struct websocket_piece){.event = WEBSOCKET_MORE};
    if (reader->is_over)
        return size;
    while (taken < size && out->event == WEBSOCKET_MORE)
        if (reader->is_in_frame)
            taken += read_payload(reader, bytes + taken, size - taken, out);
        else
            read_head(reader, bytes[taken++], out);
    return taken;
}
