/*
 * identify.c - what ATA drives say of themselves: IDENTIFY (PACKET) DEVICE, SMART
 *
 * ACS-2, 7.12 and 7.13, and ATA/ATAPI-6 for the geometry. Words that are not set here are 0.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/ata/ata.h"

#define LBA28_MAX      0x0fffffffu
#define MAX_CYLINDERS  16383u
#define TRIM_BLOCKS    (ATA_BUFFER_BYTES / BLOCK_SECTOR_BYTES)

#define MWDMA_MODES    0x07u /* 0 to 2 */
#define UDMA_MODES     0x3fu /* 0 to 5 */
#define MODE_MWDMA     0x20u /* of SET FEATURES: the number in bits 2:0 */
#define MODE_UDMA      0x40u

#define IDENTIFY_MAGIC 0xa5u

static void put_word(struct ata_drive *d, unsigned word, unsigned value)
{
    put_le16(d->buffer + 2 * word, (uint16_t)value);
}

/* Characters are the wrong way round in each word; spaces follow. */
static void put_text(struct ata_drive *d, unsigned word, unsigned words, const char *text)
{
    size_t length = strlen(text);

    for (unsigned n = 0; n < 2 * words; n++)
        d->buffer[2 * word + (n ^ 1)] = (uint8_t)(n < length ? text[n] : ' ');
}

static void put_names(struct ata_drive *d, const char *model)
{
    char serial[ATA_SERIAL_BYTES + 1];

    if (*d->serial)
        snprintf(serial, sizeof(serial), "%s", d->serial);
    else
        snprintf(serial, sizeof(serial), "TZ%05u", (unsigned)(d->port - d->bus->ports) + 1);
    put_text(d, 10, 10, serial);
    put_text(d, 23, 4, "1.0");
    put_text(d, 27, 20, model);
}

/* The modes there are, and the one that is set in the upper byte. */
static unsigned modes(const struct ata_drive *d, unsigned kind, unsigned there_are)
{
    if ((d->transfer_mode & 0xf8) != kind)
        return there_are;
    return there_are | 0x100u << (d->transfer_mode & 7);
}

/* On a cable of 80 wires: does device 0 answer for device 1, or has it seen that one? */
static uint16_t reset_result(const struct ata_drive *d)
{
    if (d->port->unit)
        return 0x6b00;
    return d->port[1].drive ? 0x603b : 0x604b;
}

static void put_interface(struct ata_drive *d)
{
    put_word(d, 49, 0x0f00); /* DMA, LBA, IORDY */
    put_word(d, 63, modes(d, MODE_MWDMA, MWDMA_MODES));
    put_word(d, 64, 0x03); /* PIO 3 and 4 */
    for (unsigned word = 65; word <= 68; word++)
        put_word(d, word, 120); /* ns of a cycle */
    put_word(d, 80, 0x01f0);    /* ATA/ATAPI-4 to ATA8-ACS */
    put_word(d, 88, modes(d, MODE_UDMA, UDMA_MODES));
    if (d->bus->is_serial)
        put_word(d, 222, 0x103f); /* serial ATA, to 2.6 */
    else
        put_word(d, 93, reset_result(d));
}

static void put_checksum(struct ata_drive *d)
{
    uint8_t sum = IDENTIFY_MAGIC;

    d->buffer[510] = IDENTIFY_MAGIC;
    for (unsigned n = 0; n < 510; n++)
        sum = (uint8_t)(sum + d->buffer[n]);
    d->buffer[511] = (uint8_t)-sum;
}

static unsigned cylinders(const struct ata_drive *d, unsigned heads, unsigned sectors)
{
    uint64_t count = d->sectors / (heads * sectors);

    return count < MAX_CYLINDERS ? (unsigned)count : MAX_CYLINDERS;
}

static void put_geometry(struct ata_drive *d)
{
    unsigned current = cylinders(d, d->heads, d->track_sectors);

    put_word(d, 1, cylinders(d, ATA_HEADS, ATA_TRACK_SECTORS));
    put_word(d, 3, ATA_HEADS);
    put_word(d, 6, ATA_TRACK_SECTORS);
    put_word(d, 54, current);
    put_word(d, 55, d->heads);
    put_word(d, 56, d->track_sectors);
    put_le32(d->buffer + 2 * 57, current * d->heads * d->track_sectors);
    put_le32(d->buffer + 2 * 60, d->sectors < LBA28_MAX ? (uint32_t)d->sectors : LBA28_MAX);
    put_le64(d->buffer + 2 * 100, d->sectors);
}

static void put_commands(struct ata_drive *d)
{
    put_word(d, 82, 0x0049 | (ata_has_write_cache(d) ? 0x20u : 0)); /* look-ahead, power, SMART */
    put_word(d, 83, 0x7400);                                        /* FLUSH CACHE, EXT; 48-bit */
    put_word(d, 84, 0x4063); /* FUA, logs, SMART self-test and error log */
    put_word(d, 85,
             0x0008u | (d->look_ahead ? 0x40u : 0) | (d->write_cache ? 0x20u : 0) |
                 (d->smart ? 1u : 0));
    put_word(d, 86, 0x3400);
    put_word(d, 87, 0x4063);
}

static void identify_disk(struct ata_drive *d)
{
    put_word(d, 0, 0x0040);
    put_geometry(d);
    put_names(d, "TRAPEZE DISK");
    put_word(d, 47, 0x8000 | TRIM_BLOCKS); /* sectors of READ MULTIPLE: as many fit */
    put_interface(d);
    put_word(d, 50, 0x4000);
    put_word(d, 53, 0x0007); /* words 54-58, 64-70, 88 are valid */
    put_word(d, 59, d->multiple ? 0x100u | d->multiple : 0);
    put_commands(d);
    if (d->bus->is_queued) {
        put_word(d, 75, ATA_MAX_QUEUED - 1);
        put_word(d, 76, 0x0106); /* queued commands; 1.5 and 3 Gbit/s */
    }
    put_word(d, 106, 0x6003); /* 8 sectors are a page of the host's cache */
    put_word(d, 217, 1);      /* nothing turns */
    if (block_can_discard(d->drive)) {
        put_word(d, 105, TRIM_BLOCKS);
        put_word(d, 169, 1);
    }
}

static void identify_cd(struct ata_drive *d)
{
    put_word(d, 0, 0x85c0); /* packets of 12 bytes, CD-ROM, removable, DRQ in 50 us */
    put_names(d, "TRAPEZE CD-ROM");
    put_interface(d);
    put_word(d, 50, 0x4000);
    put_word(d, 53, 0x0006);
    if (d->bus->is_serial)
        put_word(d, 76, 0x0006);
    put_word(d, 82, 0x0218); /* DEVICE RESET, PACKET, power management */
    put_word(d, 83, 0x4000);
    put_word(d, 84, 0x4000);
    put_word(d, 85, 0x0218);
    put_word(d, 87, 0x4000);
}

void ata_identify(struct ata_drive *d)
{
    memset(d->buffer, 0, BLOCK_SECTOR_BYTES);
    if (d->is_cd)
        identify_cd(d);
    else
        identify_disk(d);
    put_checksum(d);
}

/* ---- SMART ---- */

/* As all vendors have them: a disk that has never failed. Bit 0 of the flags: the threshold counts.
 */
static const struct {
    uint8_t id, flags, value, threshold;
    uint32_t raw;
} attributes[] = {
    {5, 0x33, 100, 10, 0},  /* reallocated sectors */
    {9, 0x32, 100, 0, 1},   /* hours of power */
    {12, 0x32, 100, 0, 1},  /* times switched on */
    {194, 0x22, 70, 0, 30}, /* degrees Celsius */
    {197, 0x32, 100, 0, 0}, /* sectors that may be bad */
};

#define ATTRIBUTE_BYTES 12u

void ata_smart_data(uint8_t *sector)
{
    put_le16(sector, 0x0010); /* revision */
    for (size_t n = 0; n < sizeof(attributes) / sizeof(attributes[0]); n++) {
        uint8_t *entry = sector + 2 + n * ATTRIBUTE_BYTES;

        entry[0] = attributes[n].id;
        entry[1] = attributes[n].flags;
        entry[3] = entry[4] = attributes[n].value; /* now, and at worst */
        put_le32(entry + 5, attributes[n].raw);
    }
    put_le16(sector + 368, 0x0003); /* data is kept */
    sector[370] = 0x01;             /* errors are logged */
}

void ata_smart_thresholds(uint8_t *sector)
{
    put_le16(sector, 0x0010);
    for (size_t n = 0; n < sizeof(attributes) / sizeof(attributes[0]); n++) {
        sector[2 + n * ATTRIBUTE_BYTES] = attributes[n].id;
        sector[3 + n * ATTRIBUTE_BYTES] = attributes[n].threshold;
    }
}
