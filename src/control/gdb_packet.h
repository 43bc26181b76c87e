/*
 * gdb_packet.h - packets of GDB's remote protocol (GDB manual, appendix E.1)
 *
 * "$data#cc": cc is the sum of the data bytes modulo 256. In data, '}' escapes the
 * next byte, which is xored with 0x20.
 */
#ifndef CONTROL_GDB_PACKET_H
#define CONTROL_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_PACKET_BYTES 0x4000u

enum gdb_input {
    GDB_NOTHING,   /* more bytes are needed */
    GDB_PACKET,    /* a whole packet is in data, with a zero byte behind it */
    GDB_DAMAGED,   /* a packet with a wrong sum, or too long */
    GDB_INTERRUPT, /* 0x03: stop the target */
    GDB_ACK,
    GDB_NAK,
};

/* Zero-initialise. */
struct gdb_receiver {
    enum { GDB_IDLE, GDB_DATA, GDB_SUM_HIGH, GDB_SUM_LOW } state;
    uint8_t data[GDB_PACKET_BYTES + 1];
    size_t size;
    uint8_t sum, given_sum;
    bool escaped, damaged;
};
enum gdb_input gdb_receive(struct gdb_receiver *receiver, uint8_t byte);

/* A reply under construction: data before escaping. What does not fit is dropped and noted. */
struct gdb_reply {
    uint8_t data[GDB_PACKET_BYTES];
    size_t size;
    bool overflow;
};
void gdb_put_bytes(struct gdb_reply *reply, const void *data, size_t size);
void gdb_put(struct gdb_reply *reply, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb_reply *reply, const void *data, size_t size);

/* Write "$...#cc" into out, which has room for GDB_FRAME_BYTES; returns the size. */
#define GDB_FRAME_BYTES (2 * GDB_PACKET_BYTES + 4)
size_t gdb_frame(const struct gdb_reply *reply, uint8_t *out);

/* Parsing of packet data; *text is moved behind what was read. false: not there. */
bool gdb_get_hex(const char **text, uint64_t *out_value); /* 1 to 16 digits */
bool gdb_get_char(const char **text, char expected);
bool gdb_get_word(const char **text, const char *expected); /* a fixed beginning */
/* Exactly size bytes as pairs of hex digits. */
bool gdb_get_bytes(const char **text, void *out, size_t size);

#endif
