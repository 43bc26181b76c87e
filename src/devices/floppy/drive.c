/*
 * drive.c - floppy drives and their disks
 *
 * A disk is an image of 512-byte sectors in the order of track, head, sector; its size says what
 * kind of disk it is, and the kind says in which drives it can be and at which rate they read it.
 * A disk of 40 tracks in a drive of 80 is stepped over twice as far.
 *
 * Threads: machine lock. Guest memory: not touched.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "devices/floppy/floppy.h"

#define RATES_500K 0u
#define RATES_300K 1u
#define RATES_250K 2u
#define RATES_1M   3u
#define UNREADABLE 0xffu

enum kind { KIND_5_DOUBLE, KIND_5_HIGH, KIND_3_DOUBLE, KIND_3_HIGH, KIND_3_EXTRA, KINDS };

static const struct {
    struct floppy_format format;
    enum kind kind;
} disks[] = {
    {{40, 1, 8}, KIND_5_DOUBLE}, {{40, 1, 9}, KIND_5_DOUBLE}, {{40, 2, 8}, KIND_5_DOUBLE},
    {{40, 2, 9}, KIND_5_DOUBLE}, {{80, 2, 9}, KIND_3_DOUBLE}, {{80, 2, 15}, KIND_5_HIGH},
    {{80, 2, 18}, KIND_3_HIGH},  {{80, 2, 21}, KIND_3_HIGH},  {{80, 2, 36}, KIND_3_EXTRA},
};

/* The drive that a disk is put into when nothing is said. */
static const uint8_t usual_type[KINDS] = {
    [KIND_5_DOUBLE] = FLOPPY_360K, [KIND_5_HIGH] = FLOPPY_1200K,  [KIND_3_DOUBLE] = FLOPPY_1440K,
    [KIND_3_HIGH] = FLOPPY_1440K,  [KIND_3_EXTRA] = FLOPPY_2880K,
};

static const struct {
    const char *name;
    uint8_t tracks, rates[KINDS];
} types[] = {
    [FLOPPY_360K] = {"360K", 40, {RATES_250K, UNREADABLE, UNREADABLE, UNREADABLE, UNREADABLE}},
    [FLOPPY_1200K] = {"1.2M", 80, {RATES_300K, RATES_500K, UNREADABLE, UNREADABLE, UNREADABLE}},
    [FLOPPY_720K] = {"720K", 80, {UNREADABLE, UNREADABLE, RATES_250K, UNREADABLE, UNREADABLE}},
    [FLOPPY_1440K] = {"1.44M", 80, {UNREADABLE, UNREADABLE, RATES_250K, RATES_500K, UNREADABLE}},
    [FLOPPY_2880K] = {"2.88M", 80, {UNREADABLE, UNREADABLE, RATES_250K, RATES_500K, RATES_1M}},
};

#define DISKS (sizeof(disks) / sizeof(disks[0]))
#define TYPES (sizeof(types) / sizeof(types[0]))

static struct floppy_drive *drive_of(struct device *dev)
{
    return container_of(dev, struct floppy_drive, dev);
}

/* ---- the head ---- */

void floppy_step_to(struct floppy_drive *d, unsigned track)
{
    if (track > FLOPPY_LAST_TRACK)
        track = FLOPPY_LAST_TRACK;
    if (track != d->track && d->drive)
        d->changed = false;
    d->track = (uint8_t)track;
}

unsigned floppy_track(const struct floppy_drive *d)
{
    return types[d->type].tracks > d->format->tracks ? d->track / 2 : d->track;
}

enum floppy_type floppy_type(const struct device *drive)
{
    return container_of(drive, const struct floppy_drive, dev)->type;
}

/* ---- disks ---- */

/* Index into disks, or -1. */
static int find_size(uint64_t size_bytes)
{
    for (size_t n = 0; n < DISKS; n++) {
        const struct floppy_format *f = &disks[n].format;

        if (size_bytes == (uint64_t)f->tracks * f->heads * f->sectors * BLOCK_SECTOR_BYTES)
            return (int)n;
    }
    return -1;
}

bool floppy_is_size(uint64_t size_bytes)
{
    return find_size(size_bytes) >= 0;
}

/* Index into disks, or -EINVAL. */
static int find_disk(const struct block *medium, struct error *err)
{
    int disk = find_size(block_size_bytes(medium));

    if (disk >= 0)
        return disk;
    return error_set(err, EINVAL,
                     "no floppy disk has %llu bytes: they have 160, 180, 320, 360, 720, 1200, "
                     "1440, 1680 or 2880 KiB",
                     (unsigned long long)block_size_bytes(medium));
}

static int check_disk(const struct floppy_drive *d, const struct block *medium, struct error *err)
{
    int disk = find_disk(medium, err);

    if (disk < 0)
        return disk;
    if (types[d->type].rates[disks[disk].kind] == UNREADABLE)
        return error_set(err, EINVAL, "%s: a drive for %s cannot read a disk of %llu KiB",
                         d->dev.id, types[d->type].name,
                         (unsigned long long)block_size_bytes(medium) / 1024);
    return disk;
}

static void put_in(struct floppy_drive *d, struct block *medium, int disk)
{
    d->drive = medium;
    d->format = medium ? &disks[disk].format : NULL;
    d->rate = medium ? types[d->type].rates[disks[disk].kind] : UNREADABLE;
    d->changed = true;
}

int floppy_change(struct device *drive, struct block *medium, struct block **out_old,
                  struct error *err)
{
    struct floppy_drive *d = drive_of(drive);
    int disk = medium ? check_disk(d, medium, err) : 0;

    if (disk < 0)
        return disk;
    floppy_disk_goes(d->controller, d);
    *out_old = d->drive;
    put_in(d, medium, disk);
    return 0;
}

/* ---- lifecycle ---- */

static int choose_type(struct floppy_drive *d, struct error *err)
{
    int disk = d->drive ? find_disk(d->drive, err) : 0;

    if (disk < 0)
        return disk;
    if (!*d->type_name) {
        d->type = d->drive ? usual_type[disks[disk].kind] : FLOPPY_1440K;
        return 0;
    }
    for (d->type = FLOPPY_360K; d->type < TYPES; d->type++)
        if (!strcmp(types[d->type].name, d->type_name))
            return 0;
    return error_set(err, EINVAL, "type=%s: drives are for 360K, 720K, 1.2M, 1.44M or 2.88M",
                     d->type_name);
}

static int drive_attach(struct device *dev, struct error *err)
{
    struct floppy_drive *d = drive_of(dev);
    int disk = 0;

    if (!d->controller || d->controller->class != &floppy_class)
        return error_set(err, EINVAL, "%s: it has no controller; use --floppy FILE", dev->id);
    if (choose_type(d, err))
        return -EINVAL;
    if (d->drive && (disk = check_disk(d, d->drive, err)) < 0)
        return disk;
    put_in(d, d->drive, disk);
    return floppy_connect(d->controller, d, err);
}

static void drive_detach(struct device *dev)
{
    struct floppy_drive *d = drive_of(dev);

    if (d->controller)
        floppy_disconnect(d->controller, d);
}

static void drive_reset(struct device *dev)
{
    struct floppy_drive *d = drive_of(dev);

    d->track = 0;
    d->changed = true;
}

static void drive_quiesce(struct device *dev)
{
    struct floppy_drive *d = drive_of(dev);
    int status;

    if (!d->drive)
        return;
    block_quiesce(d->drive);
    if (block_take_kept(d->drive, &status))
        floppy_postpone(d->controller);
}

static void drive_boot_path(struct device *dev, char *out, size_t size)
{
    snprintf(out, size, "/pci@i0cf8/isa@1f/fdc@03f0/floppy@%x", drive_of(dev)->unit);
}

static const struct property drive_properties[] = {
    PROPERTY_POINTER(struct floppy_drive, drive, "disk"),
    PROPERTY_POINTER(struct floppy_drive, controller, "where it is connected"),
    {.name = "type",
     .type = PROPERTY_TYPE_STRING,
     .offset = offsetof(struct floppy_drive, type_name),
     .initial_text = "",
     .help = "360K, 720K, 1.2M, 1.44M or 2.88M (default: as the disk wants it)"},
    PROPERTY_END,
};

static const struct state_field drive_state[] = {
    STATE_U8_MAX(struct floppy_drive, track, FLOPPY_LAST_TRACK),
    STATE_BOOL(struct floppy_drive, changed),
    STATE_END,
};

const struct device_class floppy_drive_class = {
    .name = "floppy-drive",
    .summary = "floppy drive, for disks of 160 KiB to 2.88 MiB",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct floppy_drive),
    .properties = drive_properties,
    .attach = drive_attach,
    .reset = drive_reset,
    .detach = drive_detach,
    .quiesce = drive_quiesce,
    .boot_path = drive_boot_path,
    .state = {.version = 1, .oldest = 1, .fields = drive_state},
};
