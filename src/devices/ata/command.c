/*
 * command.c - commands of ATA disks
 *
 * ACS-2, 7, and ATA/ATAPI-6 for what later standards have dropped.
 *
 * Left out: SLEEP is the same as STANDBY, and ends with the next command; security, HPA and DCO,
 * streaming, media card and tape commands; standby timers never expire.
 *
 * Threads: machine lock held.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/ata/ata.h"

#define LBA28_COUNT 256u

enum command_flag {
    FLAG_DISK = 0x01, /* of disks */
    FLAG_CD = 0x02,   /* of CD drives */
    FLAG_OUT = 0x04,
    FLAG_DMA = 0x08,
    FLAG_EXT = 0x10, /* 48-bit */
    FLAG_MULTIPLE = 0x20,
    FLAG_FUA = 0x40,
};

/* ---- addresses ---- */

static void put_lba48(struct ata_taskfile *tf, uint64_t lba)
{
    for (unsigned n = 0; n < 6; n++)
        tf->lba[n] = (uint8_t)(lba >> 8 * n);
}

/* As the command was: where it failed, or how large the disk is. */
static void put_lba28(struct ata_taskfile *tf, uint64_t lba)
{
    tf->lba[0] = (uint8_t)lba;
    tf->lba[1] = (uint8_t)(lba >> 8);
    tf->lba[2] = (uint8_t)(lba >> 16);
    tf->device = (uint8_t)((tf->device & 0xf0) | (lba >> 24 & 0x0f));
}

/* False: there is no such sector. */
static bool find_sector(const struct ata_drive *d, unsigned flags, uint64_t *out_lba)
{
    const struct ata_taskfile *tf = &d->tf;
    unsigned head = tf->device & 0x0f;

    if (flags & FLAG_EXT) {
        *out_lba = ata_lba48(tf);
        return tf->device & ATA_LBA;
    }
    if (tf->device & ATA_LBA) {
        *out_lba = tf->lba[0] | (uint32_t)tf->lba[1] << 8 | (uint32_t)tf->lba[2] << 16 |
                   (uint32_t)head << 24;
        return true;
    }
    if (!tf->lba[0] || tf->lba[0] > d->track_sectors || head >= d->heads)
        return false;
    *out_lba =
        ((uint64_t)get_le16(tf->lba + 1) * d->heads + head) * d->track_sectors + tf->lba[0] - 1;
    return true;
}

static uint32_t sector_count(const struct ata_taskfile *tf, unsigned flags)
{
    uint32_t count = tf->count[0] | (flags & FLAG_EXT ? (uint32_t)tf->count[1] << 8 : 0);

    return count ? count : flags & FLAG_EXT ? ATA_LBA48_COUNT : LBA28_COUNT;
}

/* Checked; 0 or bits of the error register. */
static uint8_t find_sectors(const struct ata_drive *d, unsigned flags, uint64_t *out_lba,
                            uint32_t *out_count)
{
    *out_count = sector_count(&d->tf, flags);
    if (!find_sector(d, flags, out_lba) || !range_fits(*out_lba, *out_count, d->sectors))
        return ATA_IDNF;
    return 0;
}

/* ---- commands ---- */

static void send_sector(struct ata_drive *d, bool is_dma)
{
    ata_send_buffer(d, BLOCK_SECTOR_BYTES, BLOCK_SECTOR_BYTES, is_dma);
}

typedef void command_fn(struct ata_drive *d, unsigned flags);

static void do_read_write(struct ata_drive *d, unsigned flags)
{
    bool is_out = flags & FLAG_OUT;
    uint64_t lba;
    uint32_t count;
    uint8_t error = find_sectors(d, flags, &lba, &count);

    if ((flags & FLAG_MULTIPLE && !d->multiple) || (is_out && block_is_read_only(d->drive)))
        error = ATA_ABRT;
    if (error) {
        ata_end(d, error);
        return;
    }
    d->transfer = (struct ata_transfer){
        .is_out = is_out,
        .is_dma = flags & FLAG_DMA,
        .is_media = true,
        .flush = is_out && (flags & FLAG_FUA || !d->write_cache),
        .offset = lba * BLOCK_SECTOR_BYTES,
        .left = (uint64_t)count * BLOCK_SECTOR_BYTES,
        .block_bytes = (flags & FLAG_MULTIPLE ? d->multiple : 1u) * BLOCK_SECTOR_BYTES,
    };
    ata_begin_transfer(d);
}

/* READ VERIFY, SEEK: the host's disk is trusted. */
static void do_verify(struct ata_drive *d, unsigned flags)
{
    uint64_t lba;
    uint32_t count;

    ata_end(d, find_sectors(d, flags, &lba, &count));
}

static void do_nothing(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_end(d, 0);
}

static void do_flush(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_flush(d);
}

static void do_trim(struct ata_drive *d, unsigned flags)
{
    uint32_t bytes = sector_count(&d->tf, FLAG_EXT) * BLOCK_SECTOR_BYTES;

    (void)flags;
    if (d->tf.features[0] != 1 || bytes > ATA_BUFFER_BYTES || !block_can_discard(d->drive)) {
        ata_end(d, ATA_ABRT);
        return;
    }
    d->transfer = (struct ata_transfer){.is_out = true, .is_dma = true, .filled = bytes};
    ata_begin_transfer(d);
}

static void do_identify(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    if (d->is_cd && d->tf.command == ATA_IDENTIFY) { /* it says which one to use */
        ata_signature(d);
        ata_end(d, ATA_ABRT);
        return;
    }
    ata_identify(d);
    send_sector(d, false);
}

static void do_packet(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    atapi_packet(d);
}

static void do_device_reset(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_reset(d); /* without an interrupt */
}

/* Of the drive that executes it; the controller has told both. */
static void do_diagnostic(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_sign(d);
    d->bus->ops->interrupt(d);
}

static void do_parameters(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    if (!d->tf.count[0]) {
        ata_end(d, ATA_ABRT);
        return;
    }
    d->heads = (uint8_t)((d->tf.device & 0x0f) + 1);
    d->track_sectors = d->tf.count[0];
    ata_end(d, 0);
}

/* Powers of two, so that blocks fit into the buffer; 0 switches it off. */
static void do_set_multiple(struct ata_drive *d, unsigned flags)
{
    unsigned count = d->tf.count[0];

    (void)flags;
    if (count * BLOCK_SECTOR_BYTES > ATA_BUFFER_BYTES || (count & (count - 1))) {
        ata_end(d, ATA_ABRT);
        return;
    }
    d->multiple = (uint8_t)count;
    ata_end(d, 0);
}

static void do_standby(struct ata_drive *d, unsigned flags)
{
    d->standby = true;
    if (flags & FLAG_DISK)
        ata_flush(d);
    else
        ata_end(d, 0);
}

static void do_idle(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    d->standby = false;
    ata_end(d, 0);
}

static void do_check_power(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    d->tf.count[0] = d->standby ? 0x00 : 0xff;
    ata_end(d, 0);
}

static void do_native_max(struct ata_drive *d, unsigned flags)
{
    uint64_t last = d->sectors - 1;

    if (flags & FLAG_EXT)
        put_lba48(&d->tf, last);
    else
        put_lba28(&d->tf, last < 0x0fffffff ? last : 0x0fffffff);
    ata_end(d, 0);
}

static bool mode_exists(uint8_t mode)
{
    unsigned number = mode & 7;

    switch (mode >> 3) {
    case 0: /* PIO as after reset */
        return number <= 1;
    case 1: /* PIO with flow control */
        return number <= 4;
    case 4: /* multiword DMA */
        return number <= 2;
    case 8: /* ultra DMA */
        return number <= 5;
    default:
        return false;
    }
}

static void do_set_features(struct ata_drive *d, unsigned flags)
{
    bool known = true;

    (void)flags;
    switch (d->tf.features[0]) {
    case 0x02:
        known = d->write_cache = ata_has_write_cache(d);
        break;
    case 0x82:
        known = ata_has_write_cache(d);
        d->write_cache = false;
        if (known) {
            ata_flush(d);
            return;
        }
        break;
    case 0x03:
        known = mode_exists(d->tf.count[0]);
        if (known)
            d->transfer_mode = d->tf.count[0];
        break;
    case 0x55:
        d->look_ahead = false;
        break;
    case 0xaa:
        d->look_ahead = true;
        break;
    case 0x66: /* what is set survives a reset, or not: nothing depends on it */
    case 0xcc:
        break;
    default:
        known = false;
    }
    ata_end(d, known ? 0 : ATA_ABRT);
}

/* ---- SMART and logs ---- */

static void put_sum(uint8_t *sector)
{
    uint8_t sum = 0;

    for (unsigned n = 0; n < BLOCK_SECTOR_BYTES - 1; n++)
        sum = (uint8_t)(sum + sector[n]);
    sector[BLOCK_SECTOR_BYTES - 1] = (uint8_t)-sum;
}

static void clear_sector(struct ata_drive *d)
{
    memset(d->buffer, 0, BLOCK_SECTOR_BYTES);
}

/* Empty logs: a directory, errors, self-tests. */
static void smart_log(struct ata_drive *d)
{
    clear_sector(d);
    d->buffer[0] = 1; /* version */
    switch (d->tf.lba[0]) {
    case 0x00:
        d->buffer[2 * 1] = 1; /* pages of each log */
        d->buffer[2 * 6] = 1;
        break;
    case 0x01:
    case 0x06:
        put_sum(d->buffer);
        break;
    default:
        ata_end(d, ATA_ABRT);
        return;
    }
    send_sector(d, false);
}

static void do_smart(struct ata_drive *d, unsigned flags)
{
    uint8_t what = d->tf.features[0];

    (void)flags;
    if (d->tf.lba[1] != 0x4f || d->tf.lba[2] != 0xc2 || (!d->smart && what != 0xd8)) {
        ata_end(d, ATA_ABRT);
        return;
    }
    switch (what) {
    case 0xd0: /* data */
    case 0xd1: /* thresholds */
        clear_sector(d);
        if (what == 0xd0)
            ata_smart_data(d->buffer);
        else
            ata_smart_thresholds(d->buffer);
        put_sum(d->buffer);
        send_sector(d, false);
        break;
    case 0xd5:
        smart_log(d);
        break;
    case 0xd8:
    case 0xd9:
        d->smart = what == 0xd8;
        ata_end(d, 0);
        break;
    case 0xd2: /* autosave */
    case 0xd3: /* save */
    case 0xd4: /* test: it has ended at once */
    case 0xda: /* status: the key comes back unchanged while all is well */
        ata_end(d, 0);
        break;
    default:
        ata_end(d, ATA_ABRT);
    }
}

/* The directory, and the error of queued commands, which reading forgets. */
static void do_read_log(struct ata_drive *d, unsigned flags)
{
    unsigned log = d->tf.lba[0], page = d->tf.lba[1] | d->tf.lba[4] << 8;

    if (page || sector_count(&d->tf, flags) != 1 || !d->bus->is_queued ||
        (log != 0x00 && log != 0x10)) {
        ata_end(d, ATA_ABRT);
        return;
    }
    clear_sector(d);
    if (log == 0x00) {
        put_le16(d->buffer, 1); /* version */
        put_le16(d->buffer + 2 * 0x10, 1);
    } else {
        memcpy(d->buffer, d->queue_log, sizeof(d->queue_log));
        d->buffer[0] |= d->queue_failed ? 0 : 0x80;
        d->queue_failed = false;
        put_sum(d->buffer);
    }
    send_sector(d, flags & FLAG_DMA);
}

/* ---- the table of commands ---- */

#define READ  FLAG_DISK
#define WRITE (FLAG_DISK | FLAG_OUT)
#define BOTH  (FLAG_DISK | FLAG_CD)

static const struct {
    command_fn *run;
    uint8_t flags;
} commands[256] = {
    [0x06] = {do_trim, FLAG_DISK},
    [0x08] = {do_device_reset, FLAG_CD},
    [0x10] = {do_nothing, FLAG_DISK}, /* RECALIBRATE */
    [0x20] = {do_read_write, READ},
    [0x21] = {do_read_write, READ},
    [0x24] = {do_read_write, READ | FLAG_EXT},
    [0x25] = {do_read_write, READ | FLAG_EXT | FLAG_DMA},
    [0x27] = {do_native_max, FLAG_DISK | FLAG_EXT},
    [0x29] = {do_read_write, READ | FLAG_EXT | FLAG_MULTIPLE},
    [0x2f] = {do_read_log, FLAG_DISK | FLAG_EXT},
    [0x30] = {do_read_write, WRITE},
    [0x31] = {do_read_write, WRITE},
    [0x34] = {do_read_write, WRITE | FLAG_EXT},
    [0x35] = {do_read_write, WRITE | FLAG_EXT | FLAG_DMA},
    [0x39] = {do_read_write, WRITE | FLAG_EXT | FLAG_MULTIPLE},
    [0x3d] = {do_read_write, WRITE | FLAG_EXT | FLAG_DMA | FLAG_FUA},
    [0x40] = {do_verify, READ},
    [0x41] = {do_verify, READ},
    [0x42] = {do_verify, READ | FLAG_EXT},
    [0x47] = {do_read_log, FLAG_DISK | FLAG_EXT | FLAG_DMA},
    [0x70] = {do_verify, READ}, /* SEEK */
    [0x90] = {do_diagnostic, BOTH},
    [0x91] = {do_parameters, FLAG_DISK},
    [0x94] = {do_standby, FLAG_DISK}, /* as E0h to E6h, of old */
    [0x95] = {do_idle, FLAG_DISK},
    [0x96] = {do_standby, FLAG_DISK},
    [0x97] = {do_idle, FLAG_DISK},
    [0x98] = {do_check_power, FLAG_DISK},
    [0x99] = {do_standby, FLAG_DISK},
    [ATA_PACKET] = {do_packet, FLAG_CD},
    [ATA_IDENTIFY_PACKET] = {do_identify, FLAG_CD},
    [0xb0] = {do_smart, FLAG_DISK},
    [0xc4] = {do_read_write, READ | FLAG_MULTIPLE},
    [0xc5] = {do_read_write, WRITE | FLAG_MULTIPLE},
    [0xc6] = {do_set_multiple, FLAG_DISK},
    [0xc8] = {do_read_write, READ | FLAG_DMA},
    [0xc9] = {do_read_write, READ | FLAG_DMA},
    [0xca] = {do_read_write, WRITE | FLAG_DMA},
    [0xcb] = {do_read_write, WRITE | FLAG_DMA},
    [0xce] = {do_read_write, WRITE | FLAG_EXT | FLAG_MULTIPLE | FLAG_FUA},
    [0xe0] = {do_standby, BOTH},
    [0xe1] = {do_idle, BOTH},
    [0xe2] = {do_standby, BOTH},
    [0xe3] = {do_idle, BOTH},
    [0xe5] = {do_check_power, BOTH},
    [0xe6] = {do_standby, BOTH},
    [0xe7] = {do_flush, FLAG_DISK},
    [0xea] = {do_flush, FLAG_DISK},
    [ATA_IDENTIFY] = {do_identify, BOTH},
    [0xef] = {do_set_features, BOTH},
    [0xf8] = {do_native_max, FLAG_DISK},
};

void ata_execute(struct ata_drive *d)
{
    command_fn *run = commands[d->tf.command].run;
    uint8_t flags = commands[d->tf.command].flags;

    d->transfer = (struct ata_transfer){0};
    d->tf.error = 0;
    if (!run || !(flags & (d->is_cd ? FLAG_CD : FLAG_DISK))) {
        ata_end(d, ATA_ABRT);
        return;
    }
    if (d->is_cd)
        flags &= (uint8_t)~FLAG_DISK;
    if (run == do_read_write || run == do_verify)
        d->standby = false;
    run(d, flags);
}
