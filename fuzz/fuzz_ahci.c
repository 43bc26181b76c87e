/*
 * fuzz_ahci.c - a hostile driver of the AHCI controller, its disk and its CD
 *
 * Steps are commands, well-formed or not, registers, configuration space, memory, changes of the
 * CD, and saved states. Claims: states survive a round trip; whatever happened, a reset makes it a
 * controller again whose disk reads what it holds.
 */
#include "fuzz_ata.h"

static void access_register(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint16_t offset = (uint16_t)(what & 0x20 ? fuzz_take(in, 2) & 0xfff
                                             : 0x100 + (what >> 6) * 0x80 + (what & 0x1f) * 4u);

    if (what & 0x10 && what & 0x20)
        test_read(r->t, ATA_ABAR + offset, 4);
    else
        test_write(r->t, ATA_ABAR + offset, fuzz_take(in, 4), 4);
}

static void put_command(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned port = what & 1, slot = (unsigned)fuzz_take(in, 1) % 8;
    struct driver_command c = take_command(in);

    if (what & 0x10)
        ahci_put_queued(r->t, port, slot, c.is_out, c.lba % (DISK_BYTES / 512), c.count % 64,
                        what & 0x40, DATA + slot * 0x8000);
    else
        ahci_put(r->t, port, slot, &c);
    if (what & 0x20)
        ahci_issue(r->t, port, 1u << slot, what & 0x10);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what % 12) {
    case 0:
    case 1:
    case 2:
        put_command(r, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 3:
        ahci_issue(r->t, what >> 7, (uint32_t)fuzz_take(in, 1), what & 0x40);
        break;
    case 4:
        ahci_stop(r->t, what >> 7);
        ahci_start(r->t, what >> 7);
        break;
    case 5:
        access_register(r, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 6:
        access_config(r, in, AHCI_ADDRESS, (uint8_t)fuzz_take(in, 1));
        break;
    case 7: /* headers and tables */
        test_write(r->t, AHCI_LIST(what >> 7) + (fuzz_take(in, 2) & 0x3ffe), fuzz_take(in, 2), 2);
        break;
    case 8:
        ahci_write(r->t, what >> 7, P_SCTL, (uint32_t)fuzz_take(in, 1) % 5);
        break;
    case 9:
        if (what & 0x80)
            take_change(r, (uint8_t)fuzz_take(in, 1));
        else
            drain(r);
        break;
    case 10:
        device_test_loop(r->t);
        break;
    default:
        drain(r);
        if (what & 0x80) {
            FUZZ_LOCKED(r->t, fuzz_load_state(in, which_device(r, (uint8_t)fuzz_take(in, 1))));
            in->left = 0;
        } else {
            round_trips(r);
        }
        break;
    }
}

static void check_mended(struct rig *r)
{
    struct driver_command c = {
        .command = 0x25, .device = ATA_LBA, .count = 1, .pieces = 1, .piece = {{DATA, 512}}};

    device_test_reset(r->t);
    ahci_find(r->t);
    ahci_start(r->t, 0);
    FUZZ_CLAIM(ahci_do(r->t, 0, &c) == (ATA_DRDY | ATA_DSC));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig(&ahci_class);

    ahci_find(r->t);
    ahci_start(r->t, 0);
    ahci_start(r->t, 1);
    while (in.left)
        step(r, &in);
    drain(r);
    if (size % 8 == 0) /* which takes as long as many steps */
        round_trips(r);
    check_mended(r);
    return 0;
}
