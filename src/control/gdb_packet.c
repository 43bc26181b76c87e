/*
 * gdb_packet.c - packets of GDB's remote protocol
 */
#include "control/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ESCAPE     '}'
#define ESCAPE_XOR 0x20

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* ---- receiving ---- */

static enum gdb_input receive_idle(struct gdb_receiver *receiver, uint8_t byte)
{
    switch (byte) {
    case '$':
        receiver->state = GDB_DATA;
        receiver->size = 0;
        receiver->sum = 0;
        receiver->escaped = receiver->damaged = false;
        return GDB_NOTHING;
    case '+':
        return GDB_ACK;
    case '-':
        return GDB_NAK;
    case 0x03:
        return GDB_INTERRUPT;
    default:
        return GDB_NOTHING;
    }
}

static void store_byte(struct gdb_receiver *receiver, uint8_t byte)
{
    if (receiver->size < GDB_PACKET_BYTES)
        receiver->data[receiver->size++] = byte;
    else
        receiver->damaged = true;
}

static void receive_data(struct gdb_receiver *receiver, uint8_t byte)
{
    if (byte == '#') {
        receiver->damaged |= receiver->escaped;
        receiver->state = GDB_SUM_HIGH;
        return;
    }
    receiver->sum = (uint8_t)(receiver->sum + byte);
    if (receiver->escaped) {
        receiver->escaped = false;
        store_byte(receiver, byte ^ ESCAPE_XOR);
    } else if (byte == ESCAPE) {
        receiver->escaped = true;
    } else {
        store_byte(receiver, byte);
    }
}

static enum gdb_input receive_sum(struct gdb_receiver *receiver, uint8_t byte)
{
    int digit = hex_digit((char)byte);

    receiver->damaged |= digit < 0;
    receiver->given_sum = (uint8_t)(receiver->given_sum << 4 | (digit & 15));
    if (receiver->state == GDB_SUM_HIGH) {
        receiver->state = GDB_SUM_LOW;
        return GDB_NOTHING;
    }
    receiver->state = GDB_IDLE;
    receiver->data[receiver->size] = 0;
    if (receiver->damaged || receiver->given_sum != receiver->sum)
        return GDB_DAMAGED;
    return GDB_PACKET;
}

enum gdb_input gdb_receive(struct gdb_receiver *receiver, uint8_t byte)
{
    switch (receiver->state) {
    case GDB_IDLE:
        return receive_idle(receiver, byte);
    case GDB_DATA:
        receive_data(receiver, byte);
        return GDB_NOTHING;
    default:
        return receive_sum(receiver, byte);
    }
}

/* ---- sending ---- */

void gdb_put_bytes(struct gdb_reply *reply, const void *data, size_t size)
{
    if (size > sizeof(reply->data) - reply->size) {
        reply->overflow = true;
        return;
    }
    memcpy(reply->data + reply->size, data, size);
    reply->size += size;
}

void gdb_put(struct gdb_reply *reply, const char *format, ...)
{
    char text[512];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof(text))
        reply->overflow = true;
    else
        gdb_put_bytes(reply, text, (size_t)length);
}

void gdb_put_hex(struct gdb_reply *reply, const void *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;

    for (size_t i = 0; i < size; i++) {
        const char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};

        gdb_put_bytes(reply, pair, 2);
    }
}

size_t gdb_frame(const struct gdb_reply *reply, uint8_t *out)
{
    static const char digits[] = "0123456789abcdef";
    size_t size = 0;
    uint8_t sum = 0;

    out[size++] = '$';
    for (size_t i = 0; i < reply->size; i++) {
        uint8_t byte = reply->data[i];

        if (byte == '#' || byte == '$' || byte == ESCAPE || byte == '*') {
            out[size++] = ESCAPE;
            byte ^= ESCAPE_XOR;
        }
        out[size++] = byte;
    }
    for (size_t i = 1; i < size; i++)
        sum = (uint8_t)(sum + out[i]);
    out[size++] = '#';
    out[size++] = (uint8_t)digits[sum >> 4];
    out[size++] = (uint8_t)digits[sum & 15];
    return size;
}

/* ---- parsing ---- */

bool gdb_get_hex(const char **text, uint64_t *out_value)
{
    const char *p = *text;
    uint64_t value = 0;
    int digit;

    while ((digit = hex_digit(*p)) >= 0) {
        if (value >> 60)
            return false;
        value = value << 4 | (unsigned)digit;
        p++;
    }
    if (p == *text)
        return false;
    *text = p;
    *out_value = value;
    return true;
}

bool gdb_get_char(const char **text, char expected)
{
    if (**text != expected)
        return false;
    (*text)++;
    return true;
}

bool gdb_get_word(const char **text, const char *expected)
{
    size_t length = strlen(expected);

    if (strncmp(*text, expected, length) != 0)
        return false;
    *text += length;
    return true;
}

bool gdb_get_bytes(const char **text, void *out, size_t size)
{
    uint8_t *bytes = out;
    const char *p = *text;

    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(p[0]), low = high < 0 ? -1 : hex_digit(p[1]);

        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
        p += 2;
    }
    *text = p;
    return true;
}
