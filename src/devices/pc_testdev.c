/*
 * pc_testdev.c - what test kernels for virtual machines expect to find: QEMU's pc-testdev
 *
 * Behaves as the tests that use it (kvm-unit-tests) describe it:
 *
 * | where                 | what                                                         |
 * | --------------------- | ------------------------------------------------------------ |
 * | ports 0xe0-0xe3       | a register of four bytes, in accesses of 1, 2 and 4 bytes    |
 * | ports 0xe4-0xe7       | "flush" the page at the address written: no effect, see below |
 * | port 0xe8             | the register's first byte again                              |
 * | ports 0x2000-0x200f   | not 0: ISA interrupt line 0-15 is asserted                   |
 * | memory at 0xff000000  | 64 KiB that keep what is written, but are a device's         |
 *
 * Left out: bytes 1 to 3 at 0xe9-0xeb, where the board has its debug console, and lines 16-23,
 * which a PC's ISA bus does not have.
 *
 * Flushing takes a page away from under a hypervisor's second-level page tables for a moment;
 * no guest can tell. The page is not looked at, and the ports read as 0.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "trapeze/irq.h"

#define TESTDEV_PORT       0xe0
#define TESTDEV_FLUSH_PORT 0xe4
#define TESTDEV_BYTE_PORT  0xe8
#define TESTDEV_IRQ_PORT   0x2000
#define TESTDEV_PORT_COUNT 4
#define TESTDEV_IRQ_COUNT  16
#define TESTDEV_GPA        0xff000000ull
#define TESTDEV_BYTES      0x10000

struct pc_testdev {
    struct device dev;

    /* guest-visible state */
    uint8_t scratch[TESTDEV_PORT_COUNT];
    uint8_t memory[TESTDEV_BYTES];
    struct irq_line isa[TESTDEV_IRQ_COUNT];
};

static struct pc_testdev *testdev_of(struct device *dev)
{
    return container_of(dev, struct pc_testdev, dev);
}

/* The bus keeps accesses aligned and inside the region, so they end inside the array too. */
static uint64_t testdev_get(const uint8_t *bytes, unsigned size)
{
    uint8_t wide[8] = {0};

    memcpy(wide, bytes, size);
    return get_le64(wide);
}

static void testdev_put(uint8_t *bytes, uint64_t value, unsigned size)
{
    uint8_t wide[8];

    put_le64(wide, value);
    memcpy(bytes, wide, size);
}

/* ---- ports ---- */

static uint64_t testdev_read(struct device *dev, uint64_t offset, unsigned size)
{
    return testdev_get(testdev_of(dev)->scratch + offset, size);
}

static void testdev_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    testdev_put(testdev_of(dev)->scratch + offset, value, size);
}

static uint64_t testdev_flush_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return 0;
}

static void testdev_flush_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)dev, (void)offset, (void)value, (void)size;
}

static uint64_t testdev_irq_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return testdev_of(dev)->isa[offset].level;
}

static void testdev_irq_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    irq_set(&testdev_of(dev)->isa[offset], value != 0);
}

static const struct region_ops testdev_ports = {
    .name = "pc-testdev",
    .read = testdev_read,
    .write = testdev_write,
    .min_size = 1,
    .max_size = 4,
};

static const struct region_ops testdev_byte_port = {
    .name = "pc-testdev-byte",
    .read = testdev_read,
    .write = testdev_write,
    .min_size = 1,
    .max_size = 1,
};

static const struct region_ops testdev_flush_ports = {
    .name = "pc-testdev-flush",
    .read = testdev_flush_read,
    .write = testdev_flush_write,
    .min_size = 1,
    .max_size = 4,
};

static const struct region_ops testdev_irq_ports = {
    .name = "pc-testdev-irq",
    .read = testdev_irq_read,
    .write = testdev_irq_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- memory ---- */

static uint64_t testdev_memory_read(struct device *dev, uint64_t offset, unsigned size)
{
    return testdev_get(testdev_of(dev)->memory + offset, size);
}

static void testdev_memory_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    testdev_put(testdev_of(dev)->memory + offset, value, size);
}

static const struct region_ops testdev_memory = {
    .name = "pc-testdev-memory",
    .read = testdev_memory_read,
    .write = testdev_memory_write,
    .min_size = 1,
    .max_size = 8,
};

/* ---- class ---- */

static int testdev_attach(struct device *dev, struct error *err)
{
    int status = device_map_ports(dev, TESTDEV_PORT, TESTDEV_PORT_COUNT, &testdev_ports, err);

    if (!status)
        status = device_map_ports(dev, TESTDEV_FLUSH_PORT, TESTDEV_PORT_COUNT, &testdev_flush_ports,
                                  err);
    if (!status)
        status = device_map_ports(dev, TESTDEV_BYTE_PORT, 1, &testdev_byte_port, err);
    if (!status)
        status =
            device_map_ports(dev, TESTDEV_IRQ_PORT, TESTDEV_IRQ_COUNT, &testdev_irq_ports, err);
    if (!status)
        status = device_map_memory(dev, TESTDEV_GPA, TESTDEV_BYTES, &testdev_memory, err);
    return status;
}

static void testdev_reset(struct device *dev)
{
    struct pc_testdev *s = testdev_of(dev);

    memset(s->scratch, 0, sizeof(s->scratch));
    memset(s->memory, 0, sizeof(s->memory));
}

static void testdev_reset_done(struct device *dev)
{
    for (unsigned i = 0; i < TESTDEV_IRQ_COUNT; i++)
        irq_set(&testdev_of(dev)->isa[i], false);
}

static const struct state_field testdev_line_state[] = {
    STATE_FIELD_(struct irq_line, STATE_TYPE_BOOL, level, 1, 1, 0, 1, NULL),
    STATE_END,
};

static const struct state_field testdev_state[] = {
    STATE_BYTES(struct pc_testdev, scratch),
    STATE_BYTES(struct pc_testdev, memory),
    STATE_STRUCTS(struct pc_testdev, isa, testdev_line_state),
    STATE_END,
};

static const struct device_output testdev_outputs[] = {
    DEVICE_OUTPUTS(struct pc_testdev, isa),
    DEVICE_OUTPUT_END,
};

const struct device_class pc_testdev_class = {
    .name = "pc-testdev",
    .summary = "for test kernels: interrupt lines, ports and memory that only keep what is written",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct pc_testdev),
    .outputs = testdev_outputs,
    .attach = testdev_attach,
    .reset = testdev_reset,
    .reset_done = testdev_reset_done,
    .state = {.version = 1, .oldest = 1, .fields = testdev_state},
};
