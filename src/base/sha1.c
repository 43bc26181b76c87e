/*
 * sha1.c - SHA-1 (RFC 3174, method 1)
 */
#include "base/sha1.h"

#include <string.h>

#include "base/bytes.h"

#define BLOCK_BYTES 64u

static uint32_t rotate(uint32_t value, unsigned bits)
{
    return value << bits | value >> (32 - bits);
}

static uint32_t mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
    static const uint32_t k[] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};

    switch (round / 20) {
    case 0:
        return ((b & c) | (~b & d)) + k[0];
    case 2:
        return ((b & c) | (b & d) | (c & d)) + k[2];
    default:
        return (b ^ c ^ d) + k[round / 20];
    }
}

static void add_block(uint32_t h[5], const uint8_t *block)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

    for (unsigned t = 0; t < 16; t++)
        w[t] = get_be32(block + 4 * t);
    for (unsigned t = 16; t < 80; t++)
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (unsigned t = 0; t < 80; t++) {
        uint32_t next = rotate(a, 5) + mix(t, b, c, d) + e + w[t];

        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

void sha1(const void *data, size_t size, uint8_t out[SHA1_BYTES])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    size_t whole = size / BLOCK_BYTES * BLOCK_BYTES, rest = size - whole;
    uint8_t last[2 * BLOCK_BYTES] = {0};
    size_t last_bytes = rest < BLOCK_BYTES - 8 ? BLOCK_BYTES : 2 * BLOCK_BYTES;

    for (size_t at = 0; at < whole; at += BLOCK_BYTES)
        add_block(h, (const uint8_t *)data + at);
    if (rest)
        memcpy(last, (const uint8_t *)data + whole, rest);
    last[rest] = 0x80;
    put_be64(last + last_bytes - 8, (uint64_t)size * 8);
    for (size_t at = 0; at < last_bytes; at += BLOCK_BYTES)
        add_block(h, last + at);
    for (unsigned n = 0; n < 5; n++)
        put_be32(out + 4 * n, h[n]);
}
