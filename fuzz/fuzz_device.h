/*
 * fuzz_device.h - bytes of a fuzzer as accesses to one device
 *
 * Each step takes a byte that says what to do and then its operands. Time passes only where
 * the input says so, and never more than about a second a step.
 */
#ifndef FUZZ_FUZZ_DEVICE_H
#define FUZZ_FUZZ_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_test.h"

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

/* Up to 8 bytes, little endian; 0 where the input has ended. */
static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
        value |= (uint64_t)*in->data++ << 8 * i;
    return value;
}

/* A time that is often short and sometimes long: 8 bits of mantissa, 22 powers of two. */
static inline uint64_t fuzz_take_ns(struct fuzz_input *in)
{
    uint64_t mantissa = fuzz_take(in, 1);

    return mantissa << fuzz_take(in, 1) % 22;
}

/* Call what a device offers its board, which expects the machine lock. */
#define FUZZ_LOCKED(t, call)                                                                       \
    do {                                                                                           \
        machine_lock((t)->machine);                                                                \
        call;                                                                                      \
        machine_unlock((t)->machine);                                                              \
    } while (0)

/* A claim about the device that no input may break. */
#define FUZZ_CLAIM(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "claim failed: %s\n", #condition);                                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Load the rest of the input as a saved state: hostile, so it may be refused, not more. */
static inline void fuzz_load_state(struct fuzz_input *in, struct device *dev)
{
    state_load(&dev->class->state, dev, in->data, in->left, NULL);
}

#endif
