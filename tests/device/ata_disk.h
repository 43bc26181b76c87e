/*
 * ata_disk.h - a machine with a controller, a disk and a CD for the tests of ATA
 */
#ifndef TESTS_DEVICE_ATA_DISK_H
#define TESTS_DEVICE_ATA_DISK_H

#include "cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ata_driver.h"
#include "base/bytes.h"
#include "devices/ata/ata.h"
#include "devices/devices.h"
#include "disk_test.h"
#include "trapeze/block.h"

#define RAM_BYTES  (8u << 20)
#define DISK_BYTES (4u << 20)
#define CD_BYTES   (64u * 2048)
#define SECTOR     512u
#define DATA       0x200000u /* free memory */
#define OK         (ATA_DRDY | ATA_DSC)

struct fixture {
    struct device_test *t;
    struct device *host, *controller, *disk, *cd;
    struct test_irq irq[2];  /* AHCI: INTx; IDE: 14 and 15 */
    struct block *blocks[3]; /* of the disk, of the CD, and another CD if a test makes one */
    char paths[3][64];
};

static struct fixture f;

/* What byte n of an image holds. */
static inline uint8_t pattern(uint64_t n, unsigned seed)
{
    return (uint8_t)(n * 7 + n / 256 + n / 65536 + seed);
}

static inline struct block *make_image(unsigned number, uint32_t bytes, const char *options)
{
    static uint8_t contents[DISK_BYTES];
    char description[128];
    struct error err = {0};
    struct block *block;
    int fd;

    snprintf(f.paths[number], sizeof(f.paths[number]), "/tmp/test-ata-XXXXXX");
    fd = mkstemp(f.paths[number]);
    for (uint32_t n = 0; n < bytes; n++)
        contents[n] = pattern(n, number);
    assert_true(fd >= 0 && write(fd, contents, bytes) == (ssize_t)bytes);
    close(fd);
    snprintf(description, sizeof(description), "%s%s", f.paths[number], options);
    block = block_open(f.t->loop, description, &err);
    if (!block)
        fail_msg("%s", err.text);
    return block;
}

static inline struct device *add_drive(const struct device_class *class, const char *properties,
                                       struct block *block)
{
    struct device *dev = device_test_create(f.t, class, properties);
    struct error err = {0};

    assert_int_equal(device_set_pointer(dev, "controller", f.controller, &err), 0);
    assert_int_equal(device_set_pointer(dev, "drive", block, &err), 0);
    device_test_attach(dev);
    return dev;
}

/* The disk is on port 0, the CD on port 1. */
static inline void make_machine(const struct device_class *controller, const char *disk_options)
{
    f = (struct fixture){.t = device_test_new(RAM_BYTES)};
    f.blocks[0] = make_image(0, DISK_BYTES, disk_options);
    f.blocks[1] = make_image(1, CD_BYTES, ",readonly=on");
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.controller = device_test_add(f.t, controller, NULL);
    f.disk = add_drive(&ata_disk_class, "serial=disk-1", f.blocks[0]);
    f.cd = add_drive(&ata_cd_class, NULL, f.blocks[1]);
}

/* What somebody does at the drive. Was the guest asked to unlock it? */
static inline bool change_cd(struct block *medium, bool by_force, struct block *expected_old)
{
    struct error err = {0};
    struct block *old;
    bool asked;

    machine_lock(f.t->machine);
    assert_int_equal(ata_cd_change(f.cd, medium, by_force, &asked, &old, &err), 0);
    machine_unlock(f.t->machine);
    assert_ptr_equal(old, expected_old);
    return asked;
}

static inline int tear_down(void **state)
{
    (void)state;
    machine_free(f.t->machine);
    for (unsigned n = 0; n < 3; n++) {
        block_free(f.blocks[n]);
        unlink(f.paths[n]);
    }
    f.t->machine = NULL;
    device_test_free(f.t);
    return 0;
}

static inline uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

/* Is what the disk (0) or CD (1) holds at offset in memory? */
static inline void expect_image(uint64_t gpa, unsigned number, uint64_t offset, uint32_t size)
{
    for (uint32_t n = 0; n < size; n++)
        if (*ram(gpa + n) != pattern(offset + n, number))
            fail_msg("byte %u of %u is 0x%02x", n, size, *ram(gpa + n));
}

static inline void fill(uint64_t gpa, uint32_t size, unsigned seed)
{
    for (uint32_t n = 0; n < size; n++)
        *ram(gpa + n) = pattern(n, seed);
}

static inline void expect_file(uint64_t offset, uint64_t gpa, uint32_t size)
{
    static uint8_t bytes[DISK_BYTES];
    int fd = open(f.paths[0], O_RDONLY);

    assert_int_equal(pread(fd, bytes, size, (off_t)offset), size);
    close(fd);
    assert_memory_equal(bytes, ram(gpa), size);
}

static inline struct driver_command command(uint8_t code, uint64_t lba, uint16_t count,
                                            uint64_t gpa, uint32_t size)
{
    return (struct driver_command){.command = code,
                                   .device = ATA_LBA,
                                   .lba = lba,
                                   .count = count,
                                   .pieces = size ? 1 : 0,
                                   .piece = {{gpa, size}}};
}

static inline struct driver_command out_command(uint8_t code, uint64_t lba, uint16_t count,
                                                uint64_t gpa, uint32_t size)
{
    struct driver_command c = command(code, lba, count, gpa, size);

    c.is_out = true;
    return c;
}

static inline unsigned word(uint64_t gpa, unsigned number)
{
    return get_le16(ram(gpa + 2 * number));
}

#endif
