/*
 * hash.h - FNV-1a, 64 bits: names and identities made of what they stand for
 *
 * Spreads well enough for tables, and is the same on every host. No defence against who looks for
 * two inputs of one hash.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START 0xcbf29ce484222325ull

/* hash, HASH_START or what an earlier call gave, with size_bytes more. */
static inline uint64_t hash_add(uint64_t hash, const void *data, size_t size_bytes)
{
    const uint8_t *byte = data;

    for (size_t n = 0; n < size_bytes; n++)
        hash = (hash ^ byte[n]) * 0x100000001b3ull;
    return hash;
}

#endif
