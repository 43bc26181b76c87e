/*
 * fuzz_pci_ide.c - a hostile driver of the IDE controller, its disk and its CD
 *
 * Steps are commands, registers, data, the bus master, configuration space, memory, changes of the
 * CD, and saved states. Claims: states survive a round trip; whatever happened, a reset makes it a
 * controller again whose disk reads what it holds.
 */
#include "fuzz_ata.h"

#define ADDRESS (1u << 3)

static void move_words(struct rig *r, struct fuzz_input *in, unsigned channel, uint8_t what)
{
    unsigned count = 1u << (what >> 4 & 15) % 13;

    for (unsigned n = 0; n < count; n++)
        if (what & 1)
            bus_port_read(r->t->machine, ide_command_port(channel), 1u << (what >> 1 & 3) % 3);
        else
            bus_port_write(r->t->machine, ide_command_port(channel), (uint32_t)fuzz_take(in, 1),
                           1u << (what >> 1 & 3) % 3);
}

static void send_packet(struct rig *r, const struct driver_command *c)
{
    for (unsigned n = 0; n < 12 && c->command == ATA_PACKET; n += 2)
        test_outw(r->t, ide_command_port(0), get_le16(c->packet + n));
}

static void access_port(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned channel = what & 1, size = 1u << (what >> 1 & 3) % 3;
    uint16_t bases[4] = {ide_command_port(channel), ide_control_port(channel),
                         (uint16_t)(ATA_BM_PORT + 8 * channel), ide_command_port(channel)};
    uint16_t port = bases[what >> 4 & 3];

    if (port != ide_control_port(channel))
        port = (uint16_t)(port + ((unsigned)fuzz_take(in, 1) & 7));
    if (what & 0x80)
        bus_port_read(r->t->machine, port, size);
    else
        bus_port_write(r->t->machine, port, (uint32_t)fuzz_take(in, size), size);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct driver_command c;

    switch (what % 12) {
    case 0:
    case 1:
        c = take_command(in);
        ide_issue(r->t, 0, &c);
        send_packet(r, &c);
        break;
    case 2:
    case 3:
        c = take_command(in);
        ide_put_table(r->t, 0, &c);
        ide_issue(r->t, 0, &c);
        send_packet(r, &c);
        test_outb(r->t, ATA_BM_PORT, what & 0x80 ? 9 : 1);
        break;
    case 4:
    case 5:
        move_words(r, in, what >> 7 & (what >> 6), (uint8_t)fuzz_take(in, 1));
        break;
    case 6:
        access_port(r, in, (uint8_t)fuzz_take(in, 1));
        break;
    case 7:
        access_config(r, in, ADDRESS, (uint8_t)fuzz_take(in, 1));
        break;
    case 8:
        test_write(r->t, IDE_TABLE + (fuzz_take(in, 1) & 0xfe), fuzz_take(in, 2), 2);
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
        .command = 0xc8, .device = ATA_LBA, .count = 1, .pieces = 1, .piece = {{DATA, 512}}};

    device_test_reset(r->t);
    ide_find(r->t, ADDRESS);
    FUZZ_CLAIM(ide_do_dma(r->t, 0, &c) == (ATA_DRDY | ATA_DSC));
    c.command = 0x20;
    ide_issue(r->t, 0, &c);
    FUZZ_CLAIM(ide_move(r->t, 0, DATA, 512, 512, false) == (ATA_DRDY | ATA_DSC));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig(&pci_ide_class);

    ide_find(r->t, ADDRESS);
    while (in.left)
        step(r, &in);
    drain(r);
    if (size % 8 == 0) /* which takes as long as many steps */
        round_trips(r);
    check_mended(r);
    return 0;
}
