/*
 * test_websocket.c - frames of WebSocket: what RFC 6455 has as examples, and what it forbids
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/sha1.h"
#include "control/websocket.h"

static void sha1_of_the_standard(void **state)
{
    static const struct {
        const char *text, *hash;
    } rows[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {"0123456701234567012345670123456701234567012345670123456701234567",
         "e0c094e867ef46c350ef54a7f59dd60bed92ae83"},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        uint8_t hash[SHA1_BYTES];
        char text[2 * SHA1_BYTES + 1];

        sha1(rows[n].text, strlen(rows[n].text), hash);
        for (unsigned i = 0; i < SHA1_BYTES; i++)
            snprintf(text + 2 * i, 3, "%02x", hash[i]);
        assert_string_equal(text, rows[n].hash);
    }
}

static void keys_are_accepted(void **state)
{
    char answer[WEBSOCKET_ACCEPT_BYTES];

    (void)state;
    assert_true(websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", answer)); /* section 1.3 */
    assert_string_equal(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_false(websocket_accept("", answer));
    assert_false(websocket_accept("dGhlIHNhbXBsZSBub25jZQ", answer));
    assert_false(websocket_accept("dGhlIHNhbXBsZSBub25jZSEh", answer)); /* 18 bytes */
    assert_false(websocket_accept("!GhlIHNhbXBsZSBub25jZQ==", answer));
}

static void heads_have_the_shortest_length(void **state)
{
    uint8_t head[WEBSOCKET_HEAD_BYTES];

    (void)state;
    assert_int_equal(websocket_head(WEBSOCKET_PING, 0, head), 2);
    assert_memory_equal(head, "\x89\0", 2);
    assert_int_equal(websocket_head(WEBSOCKET_BINARY, 125, head), 2);
    assert_int_equal(websocket_head(WEBSOCKET_BINARY, 126, head), 4);
    assert_memory_equal(head, "\x82\x7e\0\x7e", 4);
    assert_int_equal(websocket_head(WEBSOCKET_BINARY, 65535, head), 4);
    assert_int_equal(websocket_head(WEBSOCKET_BINARY, 65536, head), 10);
    assert_memory_equal(head, "\x82\x7f\0\0\0\0\0\1\0\0", 10);
}

/* ---- reading ---- */

static struct websocket_reader reader;
static char stream[1000]; /* what came out */
static size_t stream_size;
static struct websocket_piece last; /* that was no data */

static void feed(const void *bytes, size_t size, size_t step)
{
    uint8_t copy[1000];

    assert_true(size <= sizeof(copy));
    memcpy(copy, bytes, size);
    for (size_t at = 0, end; at < size; at = end) {
        end = at + step < size ? at + step : size;
        while (at < end) {
            struct websocket_piece piece;
            size_t taken = websocket_read(&reader, copy + at, end - at, &piece);

            assert_true(taken > 0 && taken <= end - at);
            at += taken;
            if (piece.event == WEBSOCKET_DATA) {
                memcpy(stream + stream_size, piece.bytes, piece.size);
                stream_size += piece.size;
            } else if (piece.event != WEBSOCKET_MORE) {
                last = piece;
            }
        }
    }
}

static void start(void)
{
    reader = (struct websocket_reader){0};
    last = (struct websocket_piece){0};
    stream_size = 0;
}

#define MASK "\x37\xfa\x21\x3d"

/* A masked frame. */
static size_t frame(uint8_t *out, uint8_t first, const void *payload, size_t size)
{
    size_t head = 2;

    out[0] = first;
    if (size < 126) {
        out[1] = (uint8_t)(0x80 | size);
    } else {
        out[1] = 0x80 | 126;
        put_be16(out + 2, (uint32_t)size);
        head = 4;
    }
    memcpy(out + head, MASK, 4);
    for (size_t n = 0; n < size; n++)
        out[head + 4 + n] = (uint8_t)(((const uint8_t *)payload)[n] ^ MASK[n % 4]);
    return head + 4 + size;
}

static void data_is_a_stream(void **state)
{
    static uint8_t bytes[900], text[300];
    size_t size = 0;

    (void)state;
    memset(text, 'x', sizeof(text));
    size += frame(bytes + size, 0x82, "Hello", 5);
    size += frame(bytes + size, 0x82, "", 0);
    size += frame(bytes + size, 0x02, ", ", 2); /* three fragments, a ping between them */
    size += frame(bytes + size, 0x89, "are you there?", 14);
    size += frame(bytes + size, 0x00, "wor", 3);
    size += frame(bytes + size, 0x80, "ld", 2);
    size += frame(bytes + size, 0x82, text, sizeof(text));
    for (size_t step = 1; step < 20; step++) {
        start();
        feed(bytes, size, step);
        assert_int_equal(stream_size, 12 + sizeof(text));
        assert_memory_equal(stream, "Hello, world", 12);
        assert_memory_equal(stream + 12, text, sizeof(text));
        assert_int_equal(last.event, WEBSOCKET_PINGED);
        assert_int_equal(last.size, 14);
    }
}

static void a_ping_keeps_its_bytes(void **state)
{
    uint8_t bytes[200], text[125];

    (void)state;
    memset(text, 'p', sizeof(text));
    start();
    feed(bytes, frame(bytes, 0x89, text, sizeof(text)), 1000);
    assert_int_equal(last.event, WEBSOCKET_PINGED);
    assert_int_equal(last.size, sizeof(text));
    assert_memory_equal(last.bytes, text, sizeof(text));
    feed(bytes, frame(bytes, 0x8a, "any", 3), 1000);
    assert_int_equal(last.event, WEBSOCKET_PONGED);
}

static void expect_end(const void *bytes, size_t size, enum websocket_event event, uint16_t code)
{
    for (size_t step = 1; step < 4; step += 2) {
        start();
        feed(bytes, size, step);
        assert_int_equal(last.event, event);
        assert_int_equal(last.code, code);
        feed("\x82\x81 more", 7, 7); /* is not looked at */
        assert_int_equal(stream_size, 0);
    }
}

static void close_frames_have_codes(void **state)
{
    static const struct {
        const char *payload;
        unsigned size;
        enum websocket_event event;
        uint16_t code;
    } rows[] = {
        {"", 0, WEBSOCKET_CLOSED, 1000},
        {"\x03\xe8", 2, WEBSOCKET_CLOSED, 1000},
        {"\x03\xe9 bye", 6, WEBSOCKET_CLOSED, 1001},
        {"\x0f\xa0", 2, WEBSOCKET_CLOSED, 4000},
        {"\x03", 1, WEBSOCKET_WRONG, 1002},
        {"\x03\xe7", 2, WEBSOCKET_WRONG, 1002}, /* 999 */
        {"\x03\xed", 2, WEBSOCKET_WRONG, 1002}, /* 1005: never sent */
        {"\x03\xf7", 2, WEBSOCKET_WRONG, 1002}, /* 1015 */
        {"\x13\x88", 2, WEBSOCKET_WRONG, 1002}, /* 5000 */
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        uint8_t bytes[32];

        expect_end(bytes, frame(bytes, 0x88, rows[n].payload, rows[n].size), rows[n].event,
                   rows[n].code);
    }
}

static void what_is_forbidden_ends_it(void **state)
{
    static const struct {
        const char *bytes;
        unsigned size;
        uint16_t code;
    } rows[] = {
        {"\x82\x01x", 3, 1002},                          /* not masked */
        {"\xc2\x80" MASK, 6, 1002},                      /* a reserved bit */
        {"\x83\x80" MASK, 6, 1002},                      /* a reserved opcode */
        {"\x8b\x80" MASK, 6, 1002},                      /* one of a control frame */
        {"\x81\x80" MASK, 6, 1003},                      /* text */
        {"\x80\x80" MASK, 6, 1002},                      /* continues nothing */
        {"\x09\x80" MASK, 6, 1002},                      /* a control frame in fragments */
        {"\x89\xfe\0\x7e" MASK, 8, 1002},                /* a long one */
        {"\x02\x80" MASK "\x82\x80" MASK, 12, 1002},     /* a message in a message */
        {"\x82\xfe\0\x05" MASK, 8, 1002},                /* a length that is too long */
        {"\x82\xff\0\0\0\0\0\0\xff\xff" MASK, 14, 1002}, /* another */
        {"\x82\xff\0\0\0\0\0\x10\0\1" MASK, 14, 1009},   /* 1 MiB and a byte */
        {"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" MASK, 14, 1009},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
        expect_end(rows[n].bytes, rows[n].size, WEBSOCKET_WRONG, rows[n].code);
}

/* Fragments are counted together, messages are not. */
static void messages_have_a_largest_size(void **state)
{
    static uint8_t bytes[14 + WEBSOCKET_MESSAGE_BYTES];
    struct websocket_piece piece;
    uint8_t more[] = "\x80\x81" MASK "x";

    (void)state;
    for (unsigned is_last = 0; is_last < 2; is_last++) {
        size_t at = 0;

        start();
        memset(bytes, 0, sizeof(bytes));
        bytes[0] = (uint8_t)(is_last << 7 | WEBSOCKET_BINARY);
        bytes[1] = 0xff;
        put_be64(bytes + 2, WEBSOCKET_MESSAGE_BYTES);
        do
            at += websocket_read(&reader, bytes + at, sizeof(bytes) - at, &piece);
        while (piece.event == WEBSOCKET_DATA && at < sizeof(bytes));
        assert_int_equal(at, sizeof(bytes));
        more[0] = is_last ? 0x82 : 0x80;
        feed(more, 7, 7);
        assert_int_equal(stream_size, is_last);
        assert_int_equal(last.event, is_last ? WEBSOCKET_MORE : WEBSOCKET_WRONG);
        assert_int_equal(last.code, is_last ? 0 : WEBSOCKET_TOO_BIG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha1_of_the_standard),
        cmocka_unit_test(keys_are_accepted),
        cmocka_unit_test(heads_have_the_shortest_length),
        cmocka_unit_test(data_is_a_stream),
        cmocka_unit_test(a_ping_keeps_its_bytes),
        cmocka_unit_test(close_frames_have_codes),
        cmocka_unit_test(what_is_forbidden_ends_it),
        cmocka_unit_test(messages_have_a_largest_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
