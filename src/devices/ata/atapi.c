/*
 * atapi.c - packet commands of CD-ROM drives
 *
 * SFF-8020i and ATA/ATAPI-6, 9.8 for how a packet and its data move; MMC-6 and SPC-3 for what
 * packets say. One track of data, on a CD or, if it is larger, a DVD.
 *
 * Left out: audio, writing, READ CD of anything but the data of sectors, MODE SELECT.
 *
 * Threads: machine lock held.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/ata/ata.h"

#define INTERRUPT_CD  0x01u /* interrupt reason, in the count register: a command, or its end */
#define INTERRUPT_IO  0x02u /* to the host */
#define FEATURE_DMA   0x01u
#define MAX_BLOCKS    65536u /* of one READ */
#define CD_MAX_BLOCKS (80u * 60 * 75)
#define LEAD_OUT      0xaau
#define BLOCKS_SECOND 75u
#define FIRST_SECOND  2u /* block 0 is at 00:02:00 */

enum sense_key {
    SENSE_NONE = 0x0,
    SENSE_NOT_READY = 0x2,
    SENSE_MEDIUM_ERROR = 0x3,
    SENSE_ILLEGAL_REQUEST = 0x5,
    SENSE_UNIT_ATTENTION = 0x6,
};

enum media_event { EVENT_NONE = 0, EVENT_EJECT = 1, EVENT_NEW = 2, EVENT_REMOVED = 3 };

static const struct ata_sense no_sense = {SENSE_NONE, 0, 0};
static const struct ata_sense no_medium = {SENSE_NOT_READY, 0x3a, 0x01};
static const struct ata_sense no_medium_tray_open = {SENSE_NOT_READY, 0x3a, 0x02};
static const struct ata_sense unrecovered_read = {SENSE_MEDIUM_ERROR, 0x11, 0};
static const struct ata_sense unknown_command = {SENSE_ILLEGAL_REQUEST, 0x20, 0};
static const struct ata_sense beyond_end = {SENSE_ILLEGAL_REQUEST, 0x21, 0};
static const struct ata_sense invalid_field = {SENSE_ILLEGAL_REQUEST, 0x24, 0};
static const struct ata_sense cannot_save = {SENSE_ILLEGAL_REQUEST, 0x39, 0};
static const struct ata_sense removal_prevented = {SENSE_ILLEGAL_REQUEST, 0x53, 0x02};
static const struct ata_sense medium_changed = {SENSE_UNIT_ATTENTION, 0x28, 0};
static const struct ata_sense was_reset = {SENSE_UNIT_ATTENTION, 0x29, 0};

bool atapi_has_medium(const struct ata_drive *d)
{
    return d->drive && !d->tray_open;
}

static uint32_t block_count(const struct ata_drive *d)
{
    uint64_t count = d->sectors * BLOCK_SECTOR_BYTES / ATA_CD_SECTOR;

    return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

static bool is_dvd(const struct ata_drive *d)
{
    return block_count(d) > CD_MAX_BLOCKS;
}

/* ---- how it ends ---- */

static void set_reason(struct ata_drive *d, uint8_t reason)
{
    d->tf.count[0] = reason;
}

void atapi_end(struct ata_drive *d)
{
    if (d->tf.command == ATA_PACKET)
        set_reason(d, INTERRUPT_IO | INTERRUPT_CD);
    d->sense = no_sense;
    ata_end(d, 0);
}

static void fail(struct ata_drive *d, struct ata_sense sense)
{
    d->sense = sense;
    set_reason(d, INTERRUPT_IO | INTERRUPT_CD);
    ata_end(d, (uint8_t)(sense.key << 4 | ATA_ABRT));
}

void atapi_failed(struct ata_drive *d)
{
    fail(d, unrecovered_read);
}

/* The guest takes the byte count from the middle and high address registers. */
void atapi_offer(struct ata_drive *d, uint32_t bytes)
{
    if (d->tf.command != ATA_PACKET)
        return;
    set_reason(d, INTERRUPT_IO);
    put_le16(d->tf.lba + 1, (uint16_t)bytes);
}

/* ---- how data moves ---- */

static bool uses_dma(const struct ata_drive *d)
{
    return d->tf.features[0] & FEATURE_DMA;
}

/* The largest block that the guest takes; an odd one is for the last only. */
static uint32_t block_limit(const struct ata_drive *d)
{
    uint32_t limit = get_le16(d->tf.lba + 1) & 0xfffeu;

    return limit ? limit : 0xfffe;
}

static void send(struct ata_drive *d, size_t there_are, size_t allocated)
{
    size_t size = there_are < allocated ? there_are : allocated;

    if (size)
        ata_send_buffer(d, size, block_limit(d), uses_dma(d));
    else
        atapi_end(d);
}

static uint8_t *clear_buffer(struct ata_drive *d, size_t size_bytes)
{
    memset(d->buffer, 0, size_bytes);
    return d->buffer;
}

static void read_blocks(struct ata_drive *d, uint32_t block, uint32_t count)
{
    if (!range_fits(block, count, block_count(d))) {
        fail(d, beyond_end);
    } else if (count > MAX_BLOCKS) {
        fail(d, invalid_field);
    } else if (!count) {
        atapi_end(d);
    } else {
        d->transfer = (struct ata_transfer){
            .is_dma = uses_dma(d),
            .is_media = true,
            .offset = (uint64_t)block * ATA_CD_SECTOR,
            .left = (uint64_t)count * ATA_CD_SECTOR,
            .block_bytes = block_limit(d),
        };
        ata_begin_transfer(d);
    }
}

/* ---- packets ---- */

typedef void packet_fn(struct ata_drive *d, const uint8_t *packet);

static void do_ready(struct ata_drive *d, const uint8_t *packet)
{
    (void)packet;
    atapi_end(d);
}

static void do_request_sense(struct ata_drive *d, const uint8_t *packet)
{
    struct ata_sense sense = d->attention.key ? d->attention : d->sense;
    uint8_t *out = clear_buffer(d, 18);

    d->attention = no_sense;
    out[0] = 0x70; /* of this command */
    out[2] = sense.key;
    out[7] = 10;
    out[12] = sense.code;
    out[13] = sense.qualifier;
    send(d, 18, packet[4]);
}

static void do_inquiry(struct ata_drive *d, const uint8_t *packet)
{
    uint8_t *out = clear_buffer(d, 36);

    if (packet[1] & 1) { /* no vital product data */
        fail(d, invalid_field);
        return;
    }
    out[0] = 0x05; /* CD/DVD */
    out[1] = 0x80; /* removable */
    out[3] = 0x32; /* ATAPI, response format 2 */
    out[4] = 31;
    memcpy(out + 8, "TRAPEZE CD-ROM          1.0 ", 28);
    send(d, 36, get_be16(packet + 3));
}

void atapi_move_tray(struct ata_drive *d, bool open)
{
    bool moved = d->tray_open != open;

    d->tray_open = open;
    if (moved && d->tray_moved)
        d->tray_moved(d->tray_opaque);
}

static void open_tray(struct ata_drive *d)
{
    if (d->tray_open)
        return;
    d->media_event = EVENT_REMOVED;
    atapi_move_tray(d, true);
}

static void close_tray(struct ata_drive *d)
{
    if (!d->tray_open)
        return;
    atapi_move_tray(d, false);
    if (d->drive) {
        d->media_event = EVENT_NEW;
        d->attention = medium_changed;
    }
}

/* Power conditions, and starting and stopping the motor, have no effect. */
static void do_start_stop(struct ata_drive *d, const uint8_t *packet)
{
    bool start = packet[4] & 1, load_eject = packet[4] & 2;

    if (packet[4] & 0xf0 || !load_eject) {
        atapi_end(d);
        return;
    }
    if (!start && d->locked) {
        fail(d, removal_prevented);
        return;
    }
    if (start)
        close_tray(d);
    else
        open_tray(d);
    atapi_end(d);
}

static void do_prevent(struct ata_drive *d, const uint8_t *packet)
{
    d->locked = packet[4] & 1;
    atapi_end(d);
}

static void do_read_capacity(struct ata_drive *d, const uint8_t *packet)
{
    (void)packet;
    put_be32(d->buffer, block_count(d) - 1);
    put_be32(d->buffer + 4, ATA_CD_SECTOR);
    send(d, 8, 8);
}

static void do_read10(struct ata_drive *d, const uint8_t *packet)
{
    read_blocks(d, get_be32(packet + 2), get_be16(packet + 7));
}

static void do_read12(struct ata_drive *d, const uint8_t *packet)
{
    read_blocks(d, get_be32(packet + 2), get_be32(packet + 6));
}

/* Of any or mode 1 sectors, the 2048 bytes of data, or nothing. */
static void do_read_cd(struct ata_drive *d, const uint8_t *packet)
{
    unsigned type = packet[1] >> 2 & 7, fields = packet[9] & 0xf8;
    uint32_t count = get_be32(packet + 5) & 0x00ffffff; /* bytes 6 to 8 */

    if (type > 2 || type == 1 || (fields != 0x10 && fields) || packet[10] & 7)
        fail(d, invalid_field);
    else
        read_blocks(d, get_be32(packet + 2), fields ? count : 0);
}

static void put_msf(uint8_t *out, uint32_t block)
{
    block += FIRST_SECOND * BLOCKS_SECOND;
    out[0] = 0;
    out[1] = (uint8_t)(block / (60 * BLOCKS_SECOND));
    out[2] = (uint8_t)(block / BLOCKS_SECOND % 60);
    out[3] = (uint8_t)(block % BLOCKS_SECOND);
}

static void put_address(uint8_t *out, uint32_t block, bool msf)
{
    if (msf)
        put_msf(out, block);
    else
        put_be32(out, block);
}

/* Format 0: the track and the lead-out. */
static size_t put_toc(const struct ata_drive *d, uint8_t *out, uint8_t first, bool msf)
{
    size_t size = 4;

    out[2] = out[3] = 1; /* first and last track */
    for (unsigned n = first > 1 ? 1 : 0; n < 2; n++, size += 8) {
        out[size + 1] = 0x14; /* data */
        out[size + 2] = n ? LEAD_OUT : 1;
        put_address(out + size + 4, n ? block_count(d) : 0, msf);
    }
    return size;
}

/* Format 2: as the lead-in has it. */
static size_t put_full_toc(const struct ata_drive *d, uint8_t *out)
{
    static const uint8_t points[4] = {0xa0, 0xa1, 0xa2, 1};
    size_t size = 4;

    out[2] = out[3] = 1; /* sessions */
    for (unsigned n = 0; n < 4; n++, size += 11) {
        uint8_t msf[4];

        out[size] = 1; /* session */
        out[size + 1] = 0x14;
        out[size + 3] = points[n];
        if (n < 2) { /* first and last track */
            out[size + 8] = 1;
            continue;
        }
        put_msf(msf, n == 2 ? block_count(d) : 0);
        memcpy(out + size + 8, msf + 1, 3);
    }
    return size;
}

static void do_read_toc(struct ata_drive *d, const uint8_t *packet)
{
    unsigned format = packet[2] & 0x0f ? packet[2] & 0x0fu : packet[9] >> 6; /* of SFF-8020i */
    bool msf = packet[1] & 2;
    uint8_t *out = clear_buffer(d, 64);
    size_t size;

    if (format > 2 || (format == 0 && packet[6] > 1 && packet[6] != LEAD_OUT)) {
        fail(d, invalid_field);
        return;
    }
    if (format == 0) {
        size = put_toc(d, out, packet[6], msf);
    } else if (format == 1) { /* the last session begins with track 1 */
        out[2] = out[3] = 1;
        out[5] = 0x14;
        out[6] = 1;
        put_address(out + 8, 0, msf);
        size = 12;
    } else {
        size = put_full_toc(d, out);
    }
    put_be16(out, (uint16_t)(size - 2));
    send(d, size, get_be16(packet + 7));
}

/* No audio is played. */
static void do_read_sub_channel(struct ata_drive *d, const uint8_t *packet)
{
    uint8_t *out = clear_buffer(d, 24), format = packet[3];
    bool has_data = packet[2] & 0x40;
    size_t size = !has_data ? 4 : format == 1 ? 16 : 24;

    if (has_data && (format < 1 || format > 3)) {
        fail(d, invalid_field);
        return;
    }
    out[1] = 0x15; /* audio status: none */
    out[3] = (uint8_t)(size - 4);
    out[4] = has_data ? format : 0;
    if (has_data && format == 1) { /* position */
        out[5] = 0x14;
        out[6] = out[7] = 1;
    }
    send(d, size, get_be16(packet + 7));
}

static void do_disc_information(struct ata_drive *d, const uint8_t *packet)
{
    uint8_t *out = clear_buffer(d, 34);

    if (packet[1] & 7) {
        fail(d, invalid_field);
        return;
    }
    put_be16(out, 32);
    out[2] = 0x0e;                         /* complete, as is its session */
    out[3] = out[4] = out[5] = out[6] = 1; /* first track, sessions, tracks of the last session */
    out[7] = 0x20;                         /* not restricted */
    memset(out + 16, 0xff, 8);
    send(d, 34, get_be16(packet + 7));
}

static void do_mechanism_status(struct ata_drive *d, const uint8_t *packet)
{
    uint8_t *out = clear_buffer(d, 8);

    out[1] = d->tray_open ? 0x10 : 0;
    send(d, 8, get_be16(packet + 8));
}

static void do_event_status(struct ata_drive *d, const uint8_t *packet)
{
    uint8_t *out = clear_buffer(d, 8);
    bool wants_media = packet[4] & 0x10;
    size_t size = wants_media ? 8 : 4;

    if (!(packet[1] & 1)) { /* only polled */
        fail(d, invalid_field);
        return;
    }
    put_be16(out, (uint16_t)(size - 2));
    out[2] = wants_media ? 4 : 0x80; /* its class, or no event */
    out[3] = 0x10;                   /* classes there are */
    if (wants_media) {
        out[4] = d->media_event;
        out[5] = (uint8_t)((d->tray_open ? 1 : 0) | (atapi_has_medium(d) ? 2 : 0));
        d->media_event = EVENT_NONE;
    }
    send(d, size, get_be16(packet + 7));
}

static const struct feature {
    uint16_t number;
    bool persistent;
    uint8_t version, size;
    uint8_t data[8];
    uint8_t medium; /* current with: 0 anything, 1 a CD, 2 a DVD, 3 either */
} features[] = {
    {0x0000, true, 0, 8, {0}, 0},                          /* profiles */
    {0x0001, true, 2, 8, {0, 0, 0, 2, 1}, 0},              /* core: ATAPI */
    {0x0003, true, 1, 4, {0x29}, 0},                       /* removable: tray, eject, lock */
    {0x0010, false, 0, 8, {0, 0, 0x08, 0, 0, 1, 0, 0}, 3}, /* blocks at random */
    {0x001e, false, 2, 4, {0}, 1},                         /* CD */
    {0x001f, false, 1, 4, {0}, 2},                         /* DVD */
};

enum profile { PROFILE_NONE = 0, PROFILE_CD = 0x08, PROFILE_DVD = 0x10 };

static enum profile current_profile(const struct ata_drive *d)
{
    if (!atapi_has_medium(d))
        return PROFILE_NONE;
    return is_dvd(d) ? PROFILE_DVD : PROFILE_CD;
}

static bool is_current(const struct feature *feature, enum profile profile)
{
    uint8_t medium = profile == PROFILE_CD ? 1 : profile == PROFILE_DVD ? 2 : 0;

    return !feature->medium || (feature->medium & medium);
}

static size_t put_feature(uint8_t *out, const struct feature *feature, enum profile profile)
{
    put_be16(out, feature->number);
    out[2] = (uint8_t)(feature->version << 2 | (feature->persistent ? 2 : 0) |
                       (is_current(feature, profile) ? 1 : 0));
    out[3] = feature->size;
    memcpy(out + 4, feature->data, feature->size);
    if (feature->number == 0) {
        put_be16(out + 4, PROFILE_DVD);
        out[6] = profile == PROFILE_DVD;
        put_be16(out + 8, PROFILE_CD);
        out[10] = profile == PROFILE_CD;
    }
    return 4u + feature->size;
}

/* All features from the one that is asked for, only current ones, or that one. */
static void do_get_configuration(struct ata_drive *d, const uint8_t *packet)
{
    unsigned which = packet[1] & 3, first = get_be16(packet + 2);
    enum profile profile = current_profile(d);
    uint8_t *out = clear_buffer(d, 128);
    size_t size = 8;

    if (which == 3) {
        fail(d, invalid_field);
        return;
    }
    for (size_t n = 0; n < sizeof(features) / sizeof(features[0]); n++) {
        const struct feature *feature = &features[n];

        if (which == 2 ? feature->number == first
                       : feature->number >= first && (!which || is_current(feature, profile)))
            size += put_feature(out + size, feature, profile);
    }
    put_be32(out, (uint32_t)size - 4);
    put_be16(out + 6, profile);
    send(d, size, get_be16(packet + 7));
}

/* ---- MODE SENSE ---- */

static const uint8_t page_errors[] = {0x01, 6, 0, 5, 0, 0, 0, 0};
static const uint8_t page_capabilities[] = {
    0x2a, 20,   0x3b, 0,    /* reads CD-R, CD-RW and DVDs */
    0x70, 0x60,             /* sectors of mode 2, sessions */
    0x29, 0,                /* tray, eject, lock */
    0x02, 0xc2, 0,    2,    /* 706 kB/s, as 4 times; levels of volume */
    0x02, 0,    0x02, 0xc2, /* KiB of buffer; speed now */
    0,    0,    0,    0,    0, 0,
};

static const struct {
    const uint8_t *bytes;
    size_t size;
} pages[] = {
    {page_errors, sizeof(page_errors)},
    {page_capabilities, sizeof(page_capabilities)},
};

/* Current or default values; nothing can be changed. 0: there is no such page. */
static size_t put_pages(struct ata_drive *d, uint8_t *out, unsigned control, unsigned page)
{
    size_t size = 0;

    for (size_t n = 0; n < sizeof(pages) / sizeof(pages[0]); n++) {
        if (page != 0x3f && page != pages[n].bytes[0])
            continue;
        memcpy(out + size, pages[n].bytes, pages[n].size);
        if (control == 1)
            memset(out + size + 2, 0, pages[n].size - 2);
        else if (pages[n].bytes == page_capabilities && d->locked)
            out[size + 6] |= 0x02;
        size += pages[n].size;
    }
    return size;
}

static void mode_sense(struct ata_drive *d, const uint8_t *packet, size_t header, size_t allocated)
{
    uint8_t *out = clear_buffer(d, 64);
    unsigned control = packet[2] >> 6;
    size_t size = put_pages(d, out + header, control, packet[2] & 0x3f);

    if (!size || control == 3) {
        fail(d, control == 3 ? cannot_save : invalid_field);
        return;
    }
    size += header;
    if (header == 8)
        put_be16(out, (uint16_t)(size - 2));
    else
        out[0] = (uint8_t)(size - 1);
    out[header == 8 ? 2 : 1] = d->tray_open ? 0x71
                               : !d->drive  ? 0x70
                                            : 0x01; /* medium, SFF-8020i */
    send(d, size, allocated);
}

static void do_mode_sense6(struct ata_drive *d, const uint8_t *packet)
{
    mode_sense(d, packet, 4, packet[4]);
}

static void do_mode_sense10(struct ata_drive *d, const uint8_t *packet)
{
    mode_sense(d, packet, 8, get_be16(packet + 7));
}

/* ---- the table of packets ---- */

enum packet_flag {
    NEEDS_MEDIUM = 0x1,
    BEFORE_ATTENTION =
        0x2, /* is executed although the guest has to be told something (SPC-3, 5.13) */
};

static const struct {
    packet_fn *run;
    uint8_t flags;
} packets[256] = {
    [0x00] = {do_ready, NEEDS_MEDIUM}, /* TEST UNIT READY */
    [0x03] = {do_request_sense, BEFORE_ATTENTION},
    [0x12] = {do_inquiry, BEFORE_ATTENTION},
    [0x1a] = {do_mode_sense6, 0},
    [0x1b] = {do_start_stop, 0},
    [0x1e] = {do_prevent, 0},
    [0x25] = {do_read_capacity, NEEDS_MEDIUM},
    [0x28] = {do_read10, NEEDS_MEDIUM},
    [0x2b] = {do_ready, NEEDS_MEDIUM}, /* SEEK(10) */
    [0x35] = {do_ready, NEEDS_MEDIUM}, /* SYNCHRONIZE CACHE */
    [0x42] = {do_read_sub_channel, NEEDS_MEDIUM},
    [0x43] = {do_read_toc, NEEDS_MEDIUM},
    [0x46] = {do_get_configuration, BEFORE_ATTENTION},
    [0x4a] = {do_event_status, BEFORE_ATTENTION},
    [0x51] = {do_disc_information, NEEDS_MEDIUM},
    [0x5a] = {do_mode_sense10, 0},
    [0xa8] = {do_read12, NEEDS_MEDIUM},
    [0xbb] = {do_ready, 0}, /* SET CD SPEED */
    [0xbd] = {do_mechanism_status, 0},
    [0xbe] = {do_read_cd, NEEDS_MEDIUM},
};

void atapi_execute(struct ata_drive *d)
{
    const uint8_t *packet = d->packet;
    uint8_t flags = packets[packet[0]].flags;

    d->transfer = (struct ata_transfer){0};
    if (!packets[packet[0]].run) {
        fail(d, unknown_command);
    } else if (d->attention.key && !(flags & BEFORE_ATTENTION)) {
        fail(d, d->attention);
        d->attention = no_sense;
    } else if (flags & NEEDS_MEDIUM && !atapi_has_medium(d)) {
        fail(d, d->tray_open ? no_medium_tray_open : no_medium);
    } else {
        packets[packet[0]].run(d, packet);
    }
}

/* Without a data register the packet has come with the command. */
void atapi_packet(struct ata_drive *d)
{
    if (!d->bus->ops->has_data_register) {
        atapi_execute(d);
        return;
    }
    d->transfer = (struct ata_transfer){.block_end = ATA_PACKET_BYTES};
    d->phase = ATA_PHASE_PACKET;
    set_reason(d, INTERRUPT_CD);
    d->tf.status = ATA_DRDY | ATA_DSC | ATA_DRQ;
}

void atapi_reset(struct ata_drive *d)
{
    d->sense = no_sense;
    d->attention = was_reset;
    d->locked = false;
}

/* ---- the host's hand ---- */

void atapi_ask_to_eject(struct ata_drive *d)
{
    d->media_event = EVENT_EJECT;
}

/* What reads the old medium ends with it. */
void atapi_change(struct ata_drive *d, struct block *medium, uint64_t sectors)
{
    ata_drain(d);
    if (d->phase != ATA_PHASE_NONE && d->transfer.is_media)
        fail(d, no_medium_tray_open);
    open_tray(d);
    d->drive = medium;
    d->sectors = sectors;
    if (medium)
        close_tray(d);
}
