/*
 * net_sum.h - the Internet checksum
 */
#ifndef BASE_NET_SUM_H
#define BASE_NET_SUM_H

#include <stddef.h>
#include <stdint.h>

/* Of bytes behind an even number of bytes with that sum; not inverted. To be stored as it is. */
uint16_t net_sum(uint16_t sum, const uint8_t *bytes, size_t size);

#endif
