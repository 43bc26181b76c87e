/*
 * ata_driver.c - a guest's drivers of AHCI and IDE controllers, for device tests and fuzzers
 */
#include "ata_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "host/host.h"

#define WAIT_NS   10000000000ull

#define CMD_ST    0x1u
#define CMD_FRE   0x10u
#define IS_ERRORS 0x78000000u

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "ATA driver: %s\n", what);
    abort();
}

static uint64_t config_gpa(unsigned address, unsigned offset)
{
    return ATA_ECAM + (address << 12) + offset;
}

uint32_t ata_config_read(struct device_test *t, unsigned address, unsigned offset, unsigned size)
{
    return (uint32_t)test_read(t, config_gpa(address, offset), size);
}

void ata_config_write(struct device_test *t, unsigned address, unsigned offset, uint32_t value,
                      unsigned size)
{
    test_write(t, config_gpa(address, offset), value, size);
}

/* ---- AHCI ---- */

void ahci_find(struct device_test *t)
{
    must(ata_config_read(t, AHCI_ADDRESS, PCI_VENDOR_ID, 4) == 0x29228086, "there is no AHCI");
    ata_config_write(t, AHCI_ADDRESS, PCI_BAR0 + 20, ATA_ABAR, 4);
    ata_config_write(t, AHCI_ADDRESS, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    ahci_hba_write(t, 0x04, 0x80000002);
}

uint32_t ahci_hba_read(struct device_test *t, unsigned reg)
{
    return (uint32_t)test_read(t, ATA_ABAR + reg, 4);
}

void ahci_hba_write(struct device_test *t, unsigned reg, uint32_t value)
{
    test_write(t, ATA_ABAR + reg, value, 4);
}

uint32_t ahci_read(struct device_test *t, unsigned port, unsigned reg)
{
    return ahci_hba_read(t, 0x100 + port * 0x80 + reg);
}

void ahci_write(struct device_test *t, unsigned port, unsigned reg, uint32_t value)
{
    ahci_hba_write(t, 0x100 + port * 0x80 + reg, value);
}

void ahci_start(struct device_test *t, unsigned port)
{
    ahci_write(t, port, P_CLB, AHCI_LIST(port));
    ahci_write(t, port, P_CLBU, 0);
    ahci_write(t, port, P_FB, AHCI_AREA(port));
    ahci_write(t, port, P_FBU, 0);
    ahci_write(t, port, P_SERR, UINT32_MAX);
    ahci_write(t, port, P_IS, UINT32_MAX);
    ahci_write(t, port, P_IE, UINT32_MAX);
    ahci_write(t, port, P_CMD, CMD_FRE);
    ahci_write(t, port, P_CMD, CMD_FRE | CMD_ST);
}

void ahci_stop(struct device_test *t, unsigned port)
{
    ahci_write(t, port, P_CMD, CMD_FRE);
}

static uint64_t lba_byte(uint64_t lba, unsigned n)
{
    return lba >> 8 * n & 0xff;
}

static void put_frame(uint8_t *fis, const struct driver_command *c)
{
    fis[0] = 0x27;
    fis[1] = 0x80;
    fis[2] = c->command;
    fis[3] = (uint8_t)c->features;
    for (unsigned n = 0; n < 6; n++)
        fis[n < 3 ? 4 + n : 5 + n] = (uint8_t)lba_byte(c->lba, n);
    fis[7] = c->device;
    fis[11] = (uint8_t)(c->features >> 8);
    fis[12] = (uint8_t)c->count;
    fis[13] = (uint8_t)(c->count >> 8);
}

void ahci_put(struct device_test *t, unsigned port, unsigned slot, const struct driver_command *c)
{
    uint8_t *header = t->ram.hva + AHCI_LIST(port) + slot * 32;
    uint8_t *table = t->ram.hva + AHCI_TABLE(port, slot);
    bool is_packet = c->command == ATA_PACKET;

    memset(header, 0, 32);
    put_le16(header, (uint16_t)(5 | (is_packet ? 0x20 : 0) | (c->is_out ? 0x40 : 0)));
    put_le16(header + 2, (uint16_t)c->pieces);
    put_le64(header + 8, AHCI_TABLE(port, slot));
    memset(table, 0, 0x80);
    put_frame(table, c);
    memcpy(table + 0x40, c->packet, sizeof(c->packet));
    for (unsigned n = 0; n < c->pieces; n++) {
        memset(table + 0x80 + 16 * n, 0, 16);
        put_le64(table + 0x80 + 16 * n, c->piece[n].gpa);
        put_le32(table + 0x80 + 16 * n + 12, c->piece[n].size_bytes - 1);
    }
}

void ahci_put_queued(struct device_test *t, unsigned port, unsigned slot, bool is_out, uint64_t lba,
                     uint16_t count, bool fua, uint64_t gpa)
{
    struct driver_command c = {
        .command = is_out ? ATA_WRITE_FPDMA : ATA_READ_FPDMA,
        .device = (uint8_t)(ATA_LBA | (fua ? 0x80 : 0)),
        .features = count,
        .count = (uint16_t)(slot << 3),
        .lba = lba,
        .is_out = is_out,
        .pieces = 1,
        .piece = {{gpa, count * 512u}},
    };

    ahci_put(t, port, slot, &c);
}

void ahci_issue(struct device_test *t, unsigned port, uint32_t slots, bool queued)
{
    if (queued)
        ahci_write(t, port, P_SACT, slots);
    ahci_write(t, port, P_CI, slots);
}

void ahci_wait(struct device_test *t, unsigned port, uint32_t slots)
{
    uint64_t end = host_monotonic_ns() + WAIT_NS;

    while ((ahci_read(t, port, P_CI) | ahci_read(t, port, P_SACT)) & slots &&
           !(ahci_read(t, port, P_IS) & IS_ERRORS)) {
        must(host_monotonic_ns() < end, "a command does not end");
        device_test_loop(t);
    }
}

uint16_t ahci_do(struct device_test *t, unsigned port, const struct driver_command *c)
{
    ahci_put(t, port, 0, c);
    ahci_issue(t, port, 1, false);
    ahci_wait(t, port, 1);
    return (uint16_t)ahci_read(t, port, P_TFD);
}

uint16_t ahci_packet(struct device_test *t, unsigned port, const uint8_t packet[12], uint64_t gpa,
                     uint32_t size_bytes)
{
    struct driver_command c = {.command = ATA_PACKET,
                               .features = 1,
                               .pieces = size_bytes ? 1 : 0,
                               .piece = {{gpa, size_bytes}}};
    uint16_t tfd;

    memcpy(c.packet, packet, sizeof(c.packet));
    tfd = ahci_do(t, port, &c);
    if (tfd & ATA_ERR) {
        ahci_stop(t, port);
        ahci_start(t, port);
    }
    return tfd;
}

/* ---- IDE ---- */

void ide_find(struct device_test *t, unsigned address)
{
    must(ata_config_read(t, address, PCI_VENDOR_ID, 4) == 0x70108086, "there is no IDE");
    ata_config_write(t, address, PCI_BAR0 + 16, ATA_BM_PORT, 4);
    ata_config_write(t, address, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER, 2);
}

uint16_t ide_command_port(unsigned channel)
{
    return channel ? 0x170 : 0x1f0;
}

uint16_t ide_control_port(unsigned channel)
{
    return channel ? 0x376 : 0x3f6;
}

uint8_t ide_wait(struct device_test *t, unsigned channel)
{
    uint64_t end = host_monotonic_ns() + WAIT_NS;

    while (test_inb(t, ide_control_port(channel)) & ATA_BSY) {
        must(host_monotonic_ns() < end, "a drive stays busy");
        device_test_loop(t);
    }
    return test_inb(t, ide_control_port(channel));
}

void ide_issue(struct device_test *t, unsigned channel, const struct driver_command *c)
{
    uint16_t base = ide_command_port(channel);

    test_outb(t, (uint16_t)(base + 6), c->device);
    for (unsigned n = 2; n--;) { /* the upper bytes first */
        test_outb(t, (uint16_t)(base + 1), (uint8_t)(c->features >> 8 * n));
        test_outb(t, (uint16_t)(base + 2), (uint8_t)(c->count >> 8 * n));
        for (unsigned k = 0; k < 3; k++)
            test_outb(t, (uint16_t)(base + 3 + k), (uint8_t)lba_byte(c->lba, 3 * n + k));
    }
    test_outb(t, (uint16_t)(base + 7), c->command);
}

void ide_put_table(struct device_test *t, unsigned channel, const struct driver_command *c)
{
    uint8_t *table = t->ram.hva + IDE_TABLE;

    for (unsigned n = 0; n < c->pieces; n++) {
        put_le32(table + 8 * n, (uint32_t)c->piece[n].gpa);
        put_le32(table + 8 * n + 4,
                 (c->piece[n].size_bytes & 0xffff) | (n + 1 == c->pieces ? 0x80000000u : 0));
    }
    test_outl(t, (uint16_t)(ATA_BM_PORT + 8 * channel + 4), IDE_TABLE);
}

uint8_t ide_do_dma(struct device_test *t, unsigned channel, const struct driver_command *c)
{
    uint16_t bm = (uint16_t)(ATA_BM_PORT + 8 * channel);
    uint8_t direction = c->is_out ? 0 : 8;

    ide_put_table(t, channel, c);
    test_outb(t, bm, direction);
    test_outb(t, (uint16_t)(bm + 2), 6);
    ide_issue(t, channel, c);
    test_outb(t, bm, direction | 1);
    ide_wait(t, channel);
    test_outb(t, bm, direction);
    return test_inb(t, (uint16_t)(ide_command_port(channel) + 7));
}

uint8_t ide_move(struct device_test *t, unsigned channel, uint64_t gpa, uint32_t size_bytes,
                 uint32_t block_bytes, bool is_out)
{
    uint16_t data = ide_command_port(channel);

    for (uint32_t done = 0; done < size_bytes; done += 2) {
        if (done % block_bytes == 0)
            must((ide_wait(t, channel) & (ATA_DRQ | ATA_ERR)) == ATA_DRQ, "no data is asked for");
        if (is_out)
            test_outw(t, data, get_le16(t->ram.hva + gpa + done));
        else
            put_le16(t->ram.hva + gpa + done, test_inw(t, data));
    }
    ide_wait(t, channel);
    return test_inb(t, (uint16_t)(data + 7));
}

int ide_packet(struct device_test *t, unsigned channel, uint8_t device, const uint8_t packet[12],
               uint16_t limit, uint64_t gpa)
{
    struct driver_command c = {
        .command = ATA_PACKET, .device = device, .lba = (uint64_t)limit << 8};
    uint16_t base = ide_command_port(channel);
    int moved = 0;

    ide_issue(t, channel, &c);
    for (unsigned n = 0; n < 12; n += 2)
        test_outw(t, base, get_le16(packet + n));
    while (ide_wait(t, channel) & ATA_DRQ) {
        unsigned bytes =
            test_inb(t, (uint16_t)(base + 4)) | (unsigned)test_inb(t, (uint16_t)(base + 5)) << 8;

        must(bytes && bytes <= limit && (test_inb(t, (uint16_t)(base + 2)) & 3) == 2,
             "a wrong block of data");
        for (unsigned n = 0; n < bytes; n += 2)
            put_le16(t->ram.hva + gpa + moved + n, test_inw(t, base));
        moved += (int)bytes;
    }
    return test_inb(t, (uint16_t)(base + 7)) & ATA_ERR ? -1 : moved;
}
