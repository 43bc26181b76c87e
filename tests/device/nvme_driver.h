/*
 * nvme_driver.h - a guest's NVMe driver, for the device test and the fuzz target
 *
 * Finds the controller on the PCI bus of a device_test machine, enables it, makes queues in RAM,
 * submits commands and takes completions. Everything goes through configuration space, the BAR and
 * RAM, as a guest would.
 */
#ifndef TESTS_DEVICE_NVME_DRIVER_H
#define TESTS_DEVICE_NVME_DRIVER_H

#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device_test.h"
#include "trapeze/pci.h"

#define NVME_ECAM     0xe0000000ull
#define NVME_SLOT     3u
#define NVME_BAR      0xc0400000ull
#define NVME_QUEUES   4u       /* with the admin queue */
#define NVME_MEMORY   0x10000u /* free from here on */

#define NVME_CC_START 0x00460001u /* entries of 64 and 16 bytes, enabled */
#define NVME_REG_CC   0x14u
#define NVME_REG_CSTS 0x1cu

struct nvme_driver_queue {
    uint64_t sq, cq; /* GPAs */
    unsigned size, tail, head;
    bool phase;
};

struct nvme_driver {
    struct device_test *t;
    uint64_t next_gpa;
    uint16_t next_cid;
    struct nvme_driver_queue queues[NVME_QUEUES];
};

struct nvme_test_command {
    uint8_t opcode, flags;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dword[16]; /* 10 to 15 */
};

struct nvme_test_entry {
    uint32_t result;
    uint16_t sq_head, sq, cid, status; /* status without the phase tag and do-not-retry */
};

static inline uint32_t nvme_read(struct nvme_driver *d, unsigned offset)
{
    return (uint32_t)test_read(d->t, NVME_BAR + offset, 4);
}

static inline void nvme_write(struct nvme_driver *d, unsigned offset, uint32_t value)
{
    test_write(d->t, NVME_BAR + offset, value, 4);
}

static inline uint64_t nvme_config_gpa(unsigned offset)
{
    return NVME_ECAM + (NVME_SLOT << 15) + offset;
}

static inline uint64_t nvme_alloc(struct nvme_driver *d, uint64_t size_bytes)
{
    uint64_t gpa = (d->next_gpa + 4095) & ~4095ull;

    d->next_gpa = gpa + size_bytes;
    memset(d->t->ram.hva + gpa, 0, size_bytes);
    return gpa;
}

/* Its BAR has an address, it decodes it and is bus master. */
static inline void nvme_driver_find(struct nvme_driver *d, struct device_test *t)
{
    *d = (struct nvme_driver){.t = t, .next_gpa = NVME_MEMORY};
    test_write(t, nvme_config_gpa(PCI_BAR0), NVME_BAR, 4);
    test_write(t, nvme_config_gpa(PCI_BAR0 + 4), 0, 4);
    test_write(t, nvme_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

/* A message for each vector, whose data is its number. */
static inline void nvme_use_msix(struct nvme_driver *d, unsigned vectors)
{
    unsigned at = (unsigned)test_read(d->t, nvme_config_gpa(PCI_CAPABILITIES), 1);

    while (at && test_read(d->t, nvme_config_gpa(at), 1) != PCI_CAP_MSIX)
        at = (unsigned)test_read(d->t, nvme_config_gpa(at + 1), 1);
    for (unsigned n = 0; n < vectors; n++) {
        nvme_write(d, 0x2000 + 16 * n, 0xfee00000);
        nvme_write(d, 0x2004 + 16 * n, 0);
        nvme_write(d, 0x2008 + 16 * n, n);
        nvme_write(d, 0x200c + 16 * n, 0);
    }
    test_write(d->t, nvme_config_gpa(at + 2), 0x8000, 2);
}

static inline void nvme_init_queue(struct nvme_driver *d, unsigned index, unsigned size)
{
    d->queues[index] = (struct nvme_driver_queue){.sq = nvme_alloc(d, 64ull * size),
                                                  .cq = nvme_alloc(d, 16ull * size),
                                                  .size = size,
                                                  .phase = true};
}

/* Enabled with an admin queue of this size. */
static inline void nvme_driver_start(struct nvme_driver *d, unsigned size)
{
    struct nvme_driver_queue *q = &d->queues[0];

    nvme_write(d, NVME_REG_CC, 0);
    nvme_init_queue(d, 0, size);
    nvme_write(d, 0x24, (size - 1) | (size - 1) << 16);
    test_write(d->t, NVME_BAR + 0x28, q->sq, 8);
    test_write(d->t, NVME_BAR + 0x30, q->cq, 8);
    nvme_write(d, NVME_REG_CC, NVME_CC_START);
}

static inline void nvme_ring(struct nvme_driver *d, unsigned index)
{
    nvme_write(d, 0x1000 + 8 * index, d->queues[index].tail);
}

/* Put a command into the queue, without telling. Returns its identifier. */
static inline uint16_t nvme_add(struct nvme_driver *d, unsigned index,
                                const struct nvme_test_command *c)
{
    struct nvme_driver_queue *q = &d->queues[index];
    uint8_t *entry = d->t->ram.hva + q->sq + 64ull * q->tail;

    memset(entry, 0, 64);
    entry[0] = c->opcode;
    entry[1] = c->flags;
    put_le16(entry + 2, d->next_cid);
    put_le32(entry + 4, c->nsid);
    put_le64(entry + 24, c->prp1);
    put_le64(entry + 32, c->prp2);
    for (unsigned n = 10; n < 16; n++)
        put_le32(entry + 4 * n, c->dword[n]);
    q->tail = (q->tail + 1) % q->size;
    return d->next_cid++;
}

/* Take a completion, if there is one. */
static inline bool nvme_take(struct nvme_driver *d, unsigned index, struct nvme_test_entry *out)
{
    struct nvme_driver_queue *q = &d->queues[index];
    const uint8_t *entry = d->t->ram.hva + q->cq + 16ull * q->head;
    uint16_t status = get_le16(entry + 14);

    if ((status & 1) != q->phase)
        return false;
    *out = (struct nvme_test_entry){get_le32(entry), get_le16(entry + 8), get_le16(entry + 10),
                                    get_le16(entry + 12), status >> 1 & 0x7ff};
    q->head = (q->head + 1) % q->size;
    if (!q->head)
        q->phase = !q->phase;
    return true;
}

static inline void nvme_release(struct nvme_driver *d, unsigned index)
{
    nvme_write(d, 0x1004 + 8 * index, d->queues[index].head);
}

/* The same, and let the loop run until there is one; false after 10 s. */
static inline bool nvme_wait(struct nvme_driver *d, unsigned index, struct nvme_test_entry *out)
{
    for (unsigned n = 0; n < 100000; n++) {
        if (nvme_take(d, index, out)) {
            nvme_release(d, index);
            return true;
        }
        device_test_loop(d->t);
        usleep(n < 100 ? 0 : 100);
    }
    return false;
}

static inline struct nvme_test_entry nvme_run(struct nvme_driver *d, unsigned index,
                                              const struct nvme_test_command *c)
{
    struct nvme_test_entry entry = {.status = 0xffff};
    uint16_t cid = nvme_add(d, index, c);

    nvme_ring(d, index);
    if (nvme_wait(d, index, &entry) && entry.cid != cid)
        entry.status = 0xfffe;
    return entry;
}

/* A pair of I/O queues; the statuses of both commands, ored. */
static inline uint16_t nvme_make_queues(struct nvme_driver *d, unsigned index, unsigned size,
                                        unsigned vector)
{
    struct nvme_test_command c = {.opcode = 0x05};
    uint16_t status;

    nvme_init_queue(d, index, size);
    c.prp1 = d->queues[index].cq;
    c.dword[10] = index | (size - 1) << 16;
    c.dword[11] = 3 | vector << 16;
    status = nvme_run(d, 0, &c).status;
    c.opcode = 0x01;
    c.prp1 = d->queues[index].sq;
    c.dword[11] = 1 | index << 16;
    return status | nvme_run(d, 0, &c).status;
}

/* Read or Write of sectors at an LBA, with memory that is in one piece. */
static inline struct nvme_test_command nvme_transfer(uint8_t opcode, uint64_t lba, unsigned sectors,
                                                     uint64_t prp1, uint64_t prp2)
{
    return (struct nvme_test_command){
        .opcode = opcode,
        .nsid = 1,
        .prp1 = prp1,
        .prp2 = prp2,
        .dword = {[10] = (uint32_t)lba, [11] = (uint32_t)(lba >> 32), [12] = sectors - 1}};
}

#endif
