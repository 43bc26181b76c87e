/*
 * device_test.h - a machine without a processor, for device tests and fuzzers
 *
 * The machine has the null engine, RAM from address 0 and counted time, so
 * nothing happens unless the test does it: it accesses ports and memory through the
 * bus as a vCPU would, and lets virtual time pass with device_test_advance_ns.
 *
 *     struct device_test *t = device_test_new(1 << 20);
 *     struct device *pit = device_test_add(t, &pit_class, NULL);
 *     struct test_irq irq;
 *     test_irq_connect(&irq, device_output(pit, "irq", 0));
 *     device_test_start(t);                  // resets everything
 *     test_outb(t, 0x43, 0x34);
 *     device_test_advance_ns(t, 1000000);
 *     assert_int_equal(irq.rises, 1);
 *     device_test_free(t);
 *
 * Set-up that fails ends the process with a message. One thread, without the machine
 * lock (the helpers take it); hold it to call a device's own functions.
 */
#ifndef TESTS_DEVICE_DEVICE_TEST_H
#define TESTS_DEVICE_DEVICE_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/loop.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

struct block;

struct device_test {
    struct loop *loop;
    struct machine *machine;
    struct region ram;
    /* The last message interrupt, and how many there were (unless the test sets its own sink). */
    uint64_t msi_address;
    uint32_t msi_data;
    unsigned msi_count;
};

/* ram_bytes: 0 = 1 MiB. One vCPU (which never runs); device_test_new_smp for more. */
struct device_test *device_test_new(uint64_t ram_bytes);
struct device_test *device_test_new_smp(uint64_t ram_bytes, unsigned vcpu_count);
void device_test_free(struct device_test *t); /* NULL is fine */
/* And a disk that its devices use, with the disk's file. */
void device_test_free_with_disk(struct device_test *t, struct block *disk, const char *path);

/* device_new, properties "a=1,b=2" (NULL: none) and device_attach. */
struct device *device_test_add(struct device_test *t, const struct device_class *class,
                               const char *properties);
/* device_new and properties only; attach with device_test_attach. */
struct device *device_test_create(struct device_test *t, const struct device_class *class,
                                  const char *properties);
void device_test_attach(struct device *dev);

/* Reset everything and run (machine_start); and a reset later on. */
void device_test_start(struct device_test *t);
void device_test_reset(struct device_test *t);

/* Let virtual time pass; every timer fires at its own deadline. */
void device_test_advance_ns(struct device_test *t, uint64_t ns);
/* The same on a host that runs no timer meanwhile: they are all late. */
void device_test_starve_ns(struct device_test *t, uint64_t ns);
uint64_t device_test_now_ns(struct device_test *t);
/* One round of the main loop without waiting: file descriptors and deferred calls. */
void device_test_loop(struct device_test *t);

uint8_t test_inb(struct device_test *t, uint16_t port);
uint16_t test_inw(struct device_test *t, uint16_t port);
uint32_t test_inl(struct device_test *t, uint16_t port);
void test_outb(struct device_test *t, uint16_t port, uint8_t value);
void test_outw(struct device_test *t, uint16_t port, uint16_t value);
void test_outl(struct device_test *t, uint16_t port, uint32_t value);
uint64_t test_read(struct device_test *t, uint64_t gpa, unsigned size_bytes);
void test_write(struct device_test *t, uint64_t gpa, uint64_t value, unsigned size_bytes);

/* What arrives on a line. Zeroed by test_irq_connect; lives as long as the device. */
struct test_irq {
    bool level;
    unsigned rises, falls, calls;
};
void test_irq_connect(struct test_irq *irq, struct irq_line *line);
/* The sink itself, for sinks of other kinds: opaque is a struct test_irq. */
void test_irq_sink(void *opaque, unsigned number, bool level);

/*
 * Save the device's state, load it into the same device after a reset, save again: both
 * must be equal, byte for byte. Ends the process otherwise.
 */
void device_test_round_trip(struct device_test *t, struct device *dev);

#endif
