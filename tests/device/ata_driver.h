/*
 * ata_driver.h - a guest's drivers of AHCI and IDE controllers, for device tests and fuzzers
 *
 * They do everything through configuration space, registers and RAM, as a guest would. What fails
 * ends the process with a message, unless it is said otherwise.
 */
#ifndef TESTS_DEVICE_ATA_DRIVER_H
#define TESTS_DEVICE_ATA_DRIVER_H

#include "device_test.h"
#include "devices/ata/ata.h"
#include "trapeze/pci.h"

#define ATA_ECAM            0xe0000000ull
#define ATA_ABAR            0xc0500000u
#define ATA_BM_PORT         0xc000u
#define ATA_MSI_GPA         0xfee00000u

/* A port's memory: command list, receive area, tables, a descriptor table of IDE. */
#define AHCI_LIST(p)        (0x10000u + (p)*0x10000u)
#define AHCI_AREA(p)        (AHCI_LIST(p) + 0x800u)
#define AHCI_TABLE(p, slot) (AHCI_LIST(p) + 0x1000u + (slot)*0x400u)
#define IDE_TABLE           0x8000u

/* Port registers of AHCI. */
enum {
    P_CLB = 0x00,
    P_CLBU = 0x04,
    P_FB = 0x08,
    P_FBU = 0x0c,
    P_IS = 0x10,
    P_IE = 0x14,
    P_CMD = 0x18,
    P_TFD = 0x20,
    P_SIG = 0x24,
    P_SSTS = 0x28,
    P_SCTL = 0x2c,
    P_SERR = 0x30,
    P_SACT = 0x34,
    P_CI = 0x38
};

struct ata_piece {
    uint64_t gpa;
    uint32_t size_bytes;
};

#define ATA_MAX_PIECES 8

/* A command with its data, for either controller. */
struct driver_command {
    uint8_t command, device;
    uint16_t features, count;
    uint64_t lba;
    bool is_out;
    uint8_t packet[12];
    unsigned pieces;
    struct ata_piece piece[ATA_MAX_PIECES];
};

/* Configuration space of 00:slot.function. */
uint32_t ata_config_read(struct device_test *t, unsigned address, unsigned offset, unsigned size);
void ata_config_write(struct device_test *t, unsigned address, unsigned offset, uint32_t value,
                      unsigned size);

/* ---- AHCI, at 00:1f.2 ---- */

#define AHCI_ADDRESS (0x1fu << 3 | 2)

/* BAR, bus mastering, interrupts on. */
void ahci_find(struct device_test *t);
uint32_t ahci_hba_read(struct device_test *t, unsigned reg);
void ahci_hba_write(struct device_test *t, unsigned reg, uint32_t value);
uint32_t ahci_read(struct device_test *t, unsigned port, unsigned reg);
void ahci_write(struct device_test *t, unsigned port, unsigned reg, uint32_t value);
/* Memory, all interrupts, errors cleared, started. */
void ahci_start(struct device_test *t, unsigned port);
void ahci_stop(struct device_test *t, unsigned port);
/* Its header and table; to be issued. */
void ahci_put(struct device_test *t, unsigned port, unsigned slot, const struct driver_command *c);
/* The same as READ or WRITE FPDMA QUEUED of count sectors. */
void ahci_put_queued(struct device_test *t, unsigned port, unsigned slot, bool is_out, uint64_t lba,
                     uint16_t count, bool fua, uint64_t gpa);
void ahci_issue(struct device_test *t, unsigned port, uint32_t slots, bool queued);
/* Until none of the slots is under way, or the port has an error. 10 s at most. */
void ahci_wait(struct device_test *t, unsigned port, uint32_t slots);
/* Slot 0, waits. Returns the task file: error and status. */
uint16_t ahci_do(struct device_test *t, unsigned port, const struct driver_command *c);
uint16_t ahci_packet(struct device_test *t, unsigned port, const uint8_t packet[12], uint64_t gpa,
                     uint32_t size_bytes);

/* ---- IDE ---- */

/* Configuration space address; bus mastering on. */
void ide_find(struct device_test *t, unsigned address);
uint16_t ide_command_port(unsigned channel);
uint16_t ide_control_port(unsigned channel);
/* Until BSY is clear; the status. 10 s at most. */
uint8_t ide_wait(struct device_test *t, unsigned channel);
/* Registers and the command, to the drive that c->device selects; 48-bit ones with both bytes. */
void ide_issue(struct device_test *t, unsigned channel, const struct driver_command *c);
/* With DMA: descriptors, the command, the bus master; waits. The status register, which is read. */
uint8_t ide_do_dma(struct device_test *t, unsigned channel, const struct driver_command *c);
void ide_put_table(struct device_test *t, unsigned channel, const struct driver_command *c);
/* Read or write DRQ blocks of block_bytes through the data register. The last status. */
uint8_t ide_move(struct device_test *t, unsigned channel, uint64_t gpa, uint32_t size_bytes,
                 uint32_t block_bytes, bool is_out);
/* A packet by PIO; data goes to gpa, as much as there is. Returns how much; -1 for an error. */
int ide_packet(struct device_test *t, unsigned channel, uint8_t device, const uint8_t packet[12],
               uint16_t limit, uint64_t gpa);

#endif
