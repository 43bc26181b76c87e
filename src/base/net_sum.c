/*
 * net_sum.c - the Internet checksum (RFC 1071)
 *
 * Of the bytes as they lie in memory, and so right on any host.
 */
#include "base/net_sum.h"

#include <string.h>

uint16_t net_sum(uint16_t sum, const uint8_t *bytes, size_t size)
{
    uint64_t all = sum;
    uint16_t last = 0;

    for (; size >= 4; bytes += 4, size -= 4) {
        uint32_t word;

        memcpy(&word, bytes, 4);
        all += word;
    }
    if (size >= 2) {
        memcpy(&last, bytes, 2);
        all += last;
        bytes += 2;
        size -= 2;
    }
    if (size) {
        last = 0;
        memcpy(&last, bytes, 1);
        all += last;
    }
    while (all >> 16)
        all = (all & 0xffff) + (all >> 16);
    return (uint16_t)all;
}
