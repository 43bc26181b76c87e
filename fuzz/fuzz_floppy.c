/*
 * fuzz_floppy.c - random commands, accesses and disks at the floppy controller and its DMA
 *
 * Claims: the interrupt line as the sink saw it is the device's, and is up only through the gate;
 * the states survive a round trip; after a reset a sector can be read, whatever was before.
 */
#include "floppy_rig.h"
#include "fuzz_device.h"

#define DISK_BYTES (1440u << 10)

struct rig {
    struct floppy_rig floppy;
    struct block *disks[FLOPPY_DRIVES], *spare;
    struct fuzz_saved saved[5];
};

static void drain(struct rig *r)
{
    for (unsigned n = 0; n < 3; n++)
        FUZZ_LOCKED(r->floppy.t, block_drain(n < 2 ? r->disks[n] : r->spare));
}

static struct rig *rig(void)
{
    static struct rig r;
    struct device_test *t = r.floppy.t;

    if (!t) {
        t = device_test_new(0);
        r.disks[0] = fuzz_disk(t->loop, DISK_BYTES);
        r.disks[1] = fuzz_disk(t->loop, 720u << 10);
        r.spare = fuzz_disk(t->loop, DISK_BYTES);
        floppy_rig_make(&r.floppy, t, r.disks);
        r.saved[0].dev = r.floppy.dma;
        r.saved[1].dev = r.floppy.controller;
        r.saved[2].dev = r.floppy.drives[0];
        r.saved[3].dev = r.floppy.drives[1];
    } else {
        drain(&r);
    }
    fuzz_begin(t, r.saved);
    r.floppy.irq.level = device_output(r.floppy.controller, "irq", 0)->level;
    return &r;
}

/* A command with bytes that often make sense, as the controller is now. */
static void take_command(struct rig *r, struct fuzz_input *in)
{
    static const uint8_t codes[] = {0x46, 0xc6, 0x45, 0xc5, 0x4a, 0x4d,
                                    0x07, 0x0f, 0x08, 0x13, 0x03, 0x56};
    struct device_test *t = r->floppy.t;
    uint8_t code = codes[fuzz_take(in, 1) % sizeof(codes)], place = (uint8_t)fuzz_take(in, 1);
    uint8_t spot = (uint8_t)fuzz_take(in, 1);
    const uint8_t bytes[] = {place, place >> 4,           place >> 2 & 1, (uint8_t)(spot % 20),
                             2,     (uint8_t)(spot % 37), 0x1b,           0xff};

    if (place & 0x80)
        floppy_rig_dma(t, place & 0x40, 1 + (unsigned)fuzz_take(in, 2));
    test_outb(t, 0x3f5, code);
    for (unsigned n = 0; n < floppy_param_count(code); n++)
        test_outb(t, 0x3f5, bytes[n]);
}

static void access_port(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint16_t ports[] = {0x3f2, 0x3f4, 0x3f5, 0x3f5, 0x3f7, 0x3f3, 0x04, 0x05,
                                     0x0a,  0x0b,  0x0c,  0x08,  0x81,  0x0f,  0xd4, 0xd6};

    if (what & 0x80)
        test_inb(r->floppy.t, ports[what & 15]);
    else
        test_outb(r->floppy.t, ports[what & 15], (uint8_t)fuzz_take(in, 1));
}

/* Nothing, or one of two disks, in the first drive. */
static void change(struct rig *r, uint8_t which)
{
    struct block *disk = which & 2 ? NULL : which & 1 ? r->spare : r->disks[0], *old;

    FUZZ_LOCKED(r->floppy.t, floppy_change(r->floppy.drives[0], disk, &old, NULL));
}

static void round_trips(struct rig *r)
{
    for (unsigned n = 0; r->saved[n].dev; n++)
        device_test_round_trip(r->floppy.t, r->saved[n].dev);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what & 7) {
    case 0:
    case 1:
        take_command(r, in);
        break;
    case 2:
    case 3:
        access_port(r, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 4:
        for (unsigned n = 0; n < 600 && n < (unsigned)what * 4; n++)
            if (what & 0x80)
                test_inb(r->floppy.t, 0x3f5);
            else
                test_outb(r->floppy.t, 0x3f5, what);
        break;
    case 5:
        device_test_advance_ns(r->floppy.t, fuzz_take_ns(in, 14));
        break;
    case 6:
        if (what & 0x80)
            change(r, what >> 5);
        else
            drain(r);
        break;
    default:
        if (what < 0xf0) {
            device_test_loop(r->floppy.t);
            break;
        }
        drain(r);
        FUZZ_LOCKED(r->floppy.t, fuzz_load_state(in, r->saved[what & 3].dev));
        r->floppy.irq.level = device_output(r->floppy.controller, "irq", 0)->level;
        in->left = 0;
        break;
    }
}

static void check_line(struct rig *r)
{
    FUZZ_CLAIM(r->floppy.irq.level == device_output(r->floppy.controller, "irq", 0)->level);
}

/* After a reset the first sector comes. */
static void check_mended(struct rig *r)
{
    static const uint8_t command[] = {0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff};
    struct device_test *t = r->floppy.t;

    device_test_reset(t);
    test_outb(t, 0x3f2, 0x1c);
    test_outb(t, 0x3f7, 0);
    floppy_rig_dma(t, true, 512);
    for (unsigned n = 0; n < sizeof(command); n++)
        test_outb(t, 0x3f5, command[n]);
    drain(r);
    device_test_loop(t);
    FUZZ_CLAIM(test_inb(t, 0x3f4) == 0xd0);
    FUZZ_CLAIM(test_inb(t, 0x3f5) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left) {
        step(r, &in);
        check_line(r);
    }
    drain(r);
    if (size % 8 == 0)
        round_trips(r);
    change(r, 0);
    check_mended(r);
    return 0;
}
