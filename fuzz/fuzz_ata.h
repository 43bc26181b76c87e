/*
 * fuzz_ata.h - what the fuzz targets of ATA controllers share: a machine with a disk and a CD whose
 * images are in memory
 */
#ifndef FUZZ_FUZZ_ATA_H
#define FUZZ_FUZZ_ATA_H

#include "ata_driver.h"
#include "base/bytes.h"
#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/block.h"

#define RAM_BYTES  (1u << 20)
#define DISK_BYTES (256u << 10)
#define CD_BYTES   (64u << 10)
#define DATA       0x80000u
#define DRIVES     2

struct rig {
    struct device_test *t;
    struct device *controller, *drives[DRIVES]; /* a disk, a CD */
    struct block *images[DRIVES], *other_cd;
};

static inline struct device *new_drive(struct rig *r, const struct device_class *class,
                                       struct block *block)
{
    struct device *dev = device_test_create(r->t, class, NULL);
    struct error err = {0};

    FUZZ_CLAIM(block != NULL);
    FUZZ_CLAIM(device_set_pointer(dev, "controller", r->controller, &err) == 0);
    FUZZ_CLAIM(device_set_pointer(dev, "drive", block, &err) == 0);
    device_test_attach(dev);
    return dev;
}

/* What somebody does at the drive. */
static inline void change_cd(struct rig *r, struct block *medium, bool by_force)
{
    struct error err = {0};
    struct block *old;
    bool asked;

    FUZZ_LOCKED(r->t,
                FUZZ_CLAIM(ata_cd_change(r->drives[1], medium, by_force, &asked, &old, &err) == 0));
    FUZZ_CLAIM(!asked || !by_force);
}

static inline void take_change(struct rig *r, uint8_t what)
{
    struct block *media[4] = {NULL, r->images[1], r->other_cd, NULL};

    change_cd(r, media[what & 3], what & 4);
}

/* The same machine each time, as after power-on. */
static inline struct rig *rig(const struct device_class *controller)
{
    static struct rig r;

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.controller = device_test_add(r.t, controller, NULL);
        r.images[0] = fuzz_disk(r.t->loop, DISK_BYTES);
        r.images[1] = fuzz_disk(r.t->loop, CD_BYTES);
        r.other_cd = fuzz_disk(r.t->loop, CD_BYTES / 4);
        r.drives[0] = new_drive(&r, &ata_disk_class, r.images[0]);
        r.drives[1] = new_drive(&r, &ata_cd_class, r.images[1]);
        device_test_start(r.t);
    }
    change_cd(&r, r.images[1], true);
    device_test_reset(r.t);
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    return &r;
}

static inline void drain(struct rig *r)
{
    for (unsigned n = 0; n < DRIVES; n++)
        fuzz_pause(r->t, r->drives[n]);
}

static inline struct device *which_device(struct rig *r, uint8_t what)
{
    return what % 3 < DRIVES ? r->drives[what % 3] : r->controller;
}

static inline void round_trips(struct rig *r)
{
    drain(r);
    for (unsigned n = 0; n < 3; n++)
        device_test_round_trip(r->t, which_device(r, (uint8_t)n));
}

/* An address: mostly free memory, else the end of RAM, registers or anywhere. */
static inline uint64_t take_gpa(struct fuzz_input *in)
{
    uint16_t value = (uint16_t)fuzz_take(in, 2);

    switch (value >> 12) {
    case 0:
        return RAM_BYTES - (value & 0xfff);
    case 1:
        return ATA_ABAR + (value & 0xfff);
    case 2:
        return fuzz_take(in, 8);
    default:
        return DATA + value * 4u;
    }
}

static inline uint32_t take_size(struct fuzz_input *in)
{
    static const uint32_t sizes[8] = {512, 2048, 8192, 2, 1024, 0x10000, 514, 0x400000};
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    return value < 0xc0 ? sizes[value % 8] : (value & 0x3fu) * 2 + 2;
}

/* Opcodes that there are, packets that there are, or any; numbers are small. */
static inline struct driver_command take_command(struct fuzz_input *in)
{
    static const uint8_t codes[32] = {0x20, 0x24, 0x25, 0x29, 0x2f, 0x30, 0x34, 0x35,
                                      0x39, 0x3d, 0x42, 0x47, 0x06, 0x90, 0x91, 0xa0,
                                      0xa0, 0xa1, 0xb0, 0xc4, 0xc5, 0xc6, 0xc8, 0xca,
                                      0xe0, 0xe5, 0xea, 0xec, 0xef, 0xf8, 0xce, 0x08};
    static const uint8_t packets[32] = {0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28,
                                        0x28, 0x28, 0x2b, 0x35, 0x42, 0x43, 0x46, 0x4a,
                                        0x51, 0x5a, 0xa8, 0xa8, 0xbb, 0xbd, 0xbe, 0xbe,
                                        0x28, 0x28, 0x43, 0x46, 0x55, 0x1b, 0x00, 0x03};
    struct driver_command c = {0};
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    c.command = what < 0x20 ? codes[what] : what < 0xa0 ? codes[what % 32] : what;
    c.device = (uint8_t)(ATA_LBA | (uint8_t)fuzz_take(in, 1));
    c.features = (uint16_t)fuzz_take(in, 2);
    c.count = (uint16_t)fuzz_take(in, 2);
    c.lba = fuzz_take(in, 2);
    c.is_out = what & 0x20;
    if (c.command == 0xb0)
        c.lba = 0xc24f00 | (c.lba & 0xff);
    if (c.command == 0xef || c.command == 0xb0)
        c.features &= 0xff;
    if (c.command == ATA_PACKET) {
        for (unsigned n = 0; n < 12; n++)
            c.packet[n] = n == 2 || n == 3 ? 0 : (uint8_t)fuzz_take(in, 1);
        c.packet[0] = packets[c.packet[0] % 32];
    }
    c.pieces = (unsigned)fuzz_take(in, 1) % (ATA_MAX_PIECES + 1);
    for (unsigned n = 0; n < c.pieces; n++)
        c.piece[n] = (struct ata_piece){take_gpa(in), take_size(in)};
    return c;
}

static inline void access_config(struct rig *r, struct fuzz_input *in, unsigned address,
                                 uint8_t what)
{
    unsigned size = 1u << (what & 3) % 3, offset = (unsigned)fuzz_take(in, 1) & ~(size - 1);

    if (what & 0x80)
        ata_config_read(r->t, address, offset, size);
    else
        ata_config_write(r->t, address, offset, (uint32_t)fuzz_take(in, size), size);
}

#endif
