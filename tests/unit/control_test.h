/*
 * control_test.h - a machine whose processors only count, for tests of monitor and debugger
 *
 * Every "instruction" of the counting engine adds one to RIP and to the number of
 * instructions; one whose address is a multiple of 64 also writes eight bytes at that
 * address plus COUNTER_DATA (nothing is stored: only watchpoints see it). Linear addresses are
 * guest-physical ones, except that page COUNTER_HOLE is not mapped. RAM is at 0.
 */
#ifndef TESTS_CONTROL_TEST_H
#define TESTS_CONTROL_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/loop.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define COUNTER_DATA      0x100000000ull
#define COUNTER_HOLE      0x5000ull
#define COUNTER_RAM_BYTES (2ull << 20)

struct counting_machine {
    struct loop *loop;
    struct machine *machine;
    struct region ram;
};

extern const struct engine_ops counting_engine;

/* Asserts that all works. start: machine_start too. */
void counting_machine_open(struct counting_machine *m, unsigned vcpu_count, bool start);
void counting_machine_close(struct counting_machine *m);

/* Run the loop until fd has a line or packet to read, at most five seconds. */
void counting_machine_wait_readable(struct counting_machine *m, int fd);
/* Run the loop until it has nothing to do at once. */
void counting_machine_settle(struct counting_machine *m);

#endif
