/*
 * fuzz_device.h - bytes of a fuzzer as accesses to one device
 *
 * Each step takes a byte that says what to do and then its operands. Time passes only where
 * the input says so. The machine is built once:
 * each input begins at virtual time 0 with the devices as they were after power-on.
 */
#ifndef FUZZ_FUZZ_DEVICE_H
#define FUZZ_FUZZ_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device_test.h"
#include "trapeze/block.h"
#include "trapeze/net.h"

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

/* A time that is often short and sometimes long: 8 bits of mantissa, some powers of two. */
static inline uint64_t fuzz_take_ns(struct fuzz_input *in, unsigned powers)
{
    uint64_t mantissa = fuzz_take(in, 1);

    return mantissa << fuzz_take(in, 1) % powers;
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

/* A disk whose image is in memory. */
static inline struct block *fuzz_disk(struct loop *loop, uint64_t size_bytes)
{
    struct error err = {0};
    char path[32];
    int fd = memfd_create("disk", MFD_CLOEXEC);

    FUZZ_CLAIM(fd >= 0 && ftruncate(fd, (off_t)size_bytes) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return block_open(loop, path, &err);
}

/* A network that ends in this process: what a card sends can be read from *out_peer. */
static inline struct net *fuzz_network(struct loop *loop, int *out_peer)
{
    struct error err = {0};
    char description[32];
    int fds[2];

    FUZZ_CLAIM(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    snprintf(description, sizeof(description), "socket,fd=%d", fds[0]);
    *out_peer = fds[1];
    return net_open(loop, description, &err);
}

/* A device and its state after power-on. */
struct fuzz_saved {
    struct device *dev;
    struct state_buffer state;
};

static inline void fuzz_go_to_start(struct device_test *t)
{
    struct clocks *clocks = machine_clocks(t->machine);

    clocks_pause(clocks);
    clocks_set_virtual_ns(clocks, 0);
    clocks_resume(clocks);
    device_test_reset(t);
    for (unsigned i = 0; i < machine_vcpu_count(t->machine); i++) {
        machine_vcpu(t->machine, i)->events = 0;
        machine_vcpu(t->machine, i)->tsc_offset = 0;
    }
}

/* Begin an input. saved: the devices, NULL at the end; their states are filled in the first time.
 */
static inline void fuzz_begin(struct device_test *t, struct fuzz_saved *saved)
{
    bool first = !saved->state.data;

    if (first)
        device_test_start(t);
    else
        fuzz_go_to_start(t);
    for (; saved->dev; saved++) {
        const struct state_table *table = &saved->dev->class->state;

        if (first)
            state_save(table, saved->dev, &saved->state, NULL);
        else
            state_load(table, saved->dev, saved->state.data, saved->state.size_bytes, NULL);
    }
}

/*
 * Load the rest of the input as a saved state, while the device is paused: hostile, so it may be
 * refused, not more. Machine lock held.
 */
static inline void fuzz_load_state(struct fuzz_input *in, struct device *dev)
{
    if (dev->class->quiesce)
        dev->class->quiesce(dev);
    state_load(&dev->class->state, dev, in->data, in->left, NULL);
    if (dev->class->resume)
        dev->class->resume(dev);
}

/* The rest of the input, as a saved state; else the device's own state, there and back. Nothing of
 * the device is under way. */
static inline void fuzz_change_state(struct fuzz_input *in, struct device_test *t,
                                     struct device *dev, bool hostile)
{
    if (!hostile) {
        device_test_round_trip(t, dev);
        return;
    }
    FUZZ_LOCKED(t, fuzz_load_state(in, dev));
    in->left = 0;
}

/* Wait until nothing of the device is under way. */
static inline void fuzz_pause(struct device_test *t, struct device *dev)
{
    machine_lock(t->machine);
    dev->class->quiesce(dev);
    if (dev->class->resume)
        dev->class->resume(dev);
    machine_unlock(t->machine);
}

#endif
