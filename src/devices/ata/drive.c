/*
 * drive.c - ATA disks and CD-ROM drives as devices
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "devices/ata/ahci.h"
#include "devices/ata/pci_ide.h"

#define MAX_SECTORS   (1ull << 48)
#define DIAGNOSTIC_OK 0x01u

/* ---- reset ---- */

void ata_signature(struct ata_drive *d)
{
    struct ata_taskfile *tf = &d->tf;

    tf->count[0] = 1;
    tf->lba[0] = 1;
    tf->lba[1] = d->is_cd ? 0x14 : 0;
    tf->lba[2] = d->is_cd ? 0xeb : 0;
    tf->device = 0;
}

void ata_sign(struct ata_drive *d)
{
    ata_signature(d);
    d->tf.error = DIAGNOSTIC_OK;
    d->tf.status = d->is_cd ? 0 : ATA_DRDY | ATA_DSC;
}

bool ata_has_write_cache(const struct ata_drive *d)
{
    return !d->is_cd && d->drive && !block_is_write_through(d->drive);
}

void ata_reset(struct ata_drive *d)
{
    ata_drain(d);
    d->tf = (struct ata_taskfile){.control = d->tf.control};
    ata_sign(d);
    d->phase = ATA_PHASE_NONE;
    d->transfer = (struct ata_transfer){0};
    d->intrq = false;
    d->multiple = 0;
    d->heads = ATA_HEADS;
    d->track_sectors = ATA_TRACK_SECTORS;
    d->transfer_mode = 0;
    d->write_cache = ata_has_write_cache(d);
    d->look_ahead = d->smart = true;
    d->standby = false;
    d->queue_failed = false;
    atapi_reset(d);
}

void ata_drain(struct ata_drive *d)
{
    if (d->drive)
        block_drain(d->drive);
}

/* ---- connections ---- */

struct ata_bus *ata_bus_of(struct device *controller)
{
    if (controller->class == &ahci_class)
        return ahci_bus(controller);
    return controller->class == &pci_ide_class ? pci_ide_bus(controller) : NULL;
}

/* At the place that was asked for, or the first free one. */
static struct ata_port *find_port(const struct ata_bus *bus, unsigned place)
{
    for (unsigned n = 0; n < bus->count; n++)
        if ((place == n || place == ATA_ANY_PLACE) && !bus->ports[n].drive)
            return &bus->ports[n];
    return NULL;
}

bool ata_bus_is_full(const struct ata_bus *bus)
{
    return !find_port(bus, ATA_ANY_PLACE);
}

/* ---- lifecycle ---- */

static struct ata_drive *drive_of(struct device *dev)
{
    return container_of(dev, struct ata_drive, dev);
}

static uint64_t sectors_of(const struct block *medium)
{
    return medium ? block_size_bytes(medium) / BLOCK_SECTOR_BYTES : 0;
}

static int check_medium(const struct ata_drive *d, const struct block *medium, struct error *err)
{
    if (sectors_of(medium) > MAX_SECTORS)
        return error_set(err, EFBIG, "%s: its disk is larger than 128 PiB", d->dev.id);
    if (d->is_cd && medium && block_size_bytes(medium) < ATA_CD_SECTOR)
        return error_set(err, EINVAL, "%s: what is less than %u bytes is no CD", d->dev.id,
                         ATA_CD_SECTOR);
    return 0;
}

static int check_drive(const struct ata_drive *d, struct error *err)
{
    const char *id = d->dev.id;

    if (!d->drive && !d->is_cd)
        return error_set(err, EINVAL, "%s: it has no disk; use --disk FILE,if=ahci", id);
    if (!d->controller || !ata_bus_of(d->controller))
        return error_set(err, EINVAL, "%s: it has no controller; use --disk FILE,if=ahci", id);
    if (strlen(d->serial) > ATA_SERIAL_BYTES)
        return error_set(err, EINVAL, "%s: serial=%s is longer than %u characters", id, d->serial,
                         ATA_SERIAL_BYTES);
    return check_medium(d, d->drive, err);
}

static int drive_attach(struct device *dev, struct error *err)
{
    struct ata_drive *d = drive_of(dev);
    int status = check_drive(d, err);
    struct ata_bus *bus;

    if (status)
        return status;
    bus = ata_bus_of(d->controller);
    d->port = find_port(bus, d->place);
    if (!d->port && d->place == ATA_ANY_PLACE)
        return error_set(err, ENOSPC, "%s: all %u places of %s are taken", dev->id, bus->count,
                         d->controller->id);
    if (!d->port)
        return error_set(err, EBUSY, "%s: place %u of %s is taken, or does not exist", dev->id,
                         d->place, d->controller->id);
    d->bus = bus;
    d->port->drive = d;
    d->sectors = sectors_of(d->drive);
    d->request.drive = d;
    return 0;
}

static int disk_attach(struct device *dev, struct error *err)
{
    return drive_attach(dev, err);
}

static int cd_attach(struct device *dev, struct error *err)
{
    drive_of(dev)->is_cd = true;
    return drive_attach(dev, err);
}

static void drive_detach(struct device *dev)
{
    struct ata_drive *d = drive_of(dev);

    if (d->port)
        d->port->drive = NULL;
    dma_list_free(&d->request.list);
    for (unsigned n = 0; n < ATA_MAX_QUEUED; n++)
        dma_list_free(&d->queued[n].list);
}

static void drive_reset(struct device *dev)
{
    struct ata_drive *d = drive_of(dev);

    d->tf.control = 0;
    atapi_move_tray(d, false);
    d->locked = false;
    d->media_event = 0;
    memset(d->buffer, 0, sizeof(d->buffer));
    memset(d->packet, 0, sizeof(d->packet));
    memset(d->queue_log, 0, sizeof(d->queue_log));
    ata_reset(d);
}

static void drive_quiesce(struct device *dev)
{
    struct ata_drive *d = drive_of(dev);

    if (d->drive)
        ata_quiesce(d);
}

static void drive_resume(struct device *dev)
{
    ata_resume(drive_of(dev));
}

/* Is there what the disk is to do? Only commands of the data register have such phases. */
static bool has_request(const struct ata_drive *d)
{
    const struct ata_transfer *t = &d->transfer;

    switch (d->phase) {
    case ATA_PHASE_FILL:
        return t->is_media && !t->is_out && t->left && t->block_bytes && t->position == t->filled;
    case ATA_PHASE_EMPTY:
        return t->is_media && t->is_out && t->filled && t->block_bytes && t->position == t->filled;
    case ATA_PHASE_FLUSH:
        return d->drive;
    default:
        return true;
    }
}

/* What the fields of a transfer say together. */
static int drive_after_load(void *object, struct error *err)
{
    struct ata_drive *d = object;
    const struct ata_transfer *t = &d->transfer;
    uint32_t limit = d->phase == ATA_PHASE_PACKET ? ATA_PACKET_BYTES : t->filled;
    bool has_block = d->phase == ATA_PHASE_PACKET || d->phase == ATA_PHASE_PIO_IN ||
                     d->phase == ATA_PHASE_PIO_OUT;

    if (t->position > t->filled && d->phase != ATA_PHASE_PACKET)
        return error_set(err, EINVAL, "more was moved than there is");
    if (has_block && (t->position >= t->block_end || t->block_end > limit ||
                      (d->phase != ATA_PHASE_PACKET && !t->block_bytes)))
        return error_set(err, EINVAL, "there is no such block of data");
    if (d->phase > ATA_PHASE_LIST && (!d->bus->ops->has_data_register || !has_request(d)))
        return error_set(err, EINVAL, "there is nothing that the disk could be doing");
    if (d->multiple & (d->multiple - 1u))
        return error_set(err, EINVAL, "%u sectors cannot be a block", d->multiple);
    if (d->is_cd &&
        (t->is_out || (d->phase == ATA_PHASE_PACKET && !d->bus->ops->has_data_register)))
        return error_set(err, EINVAL, "a CD drive has no such phase");
    if (d->phase != ATA_PHASE_NONE && t->is_media && !d->drive)
        return error_set(err, EINVAL, "it reads a medium that is not there");
    return 0;
}

/* ---- media ---- */

int ata_cd_change(struct device *cd, struct block *medium, bool by_force, bool *out_asked,
                  struct block **out_old, struct error *err)
{
    struct ata_drive *d = drive_of(cd);

    *out_old = NULL;
    *out_asked = false;
    if (check_medium(d, medium, err))
        return -EINVAL;
    if (d->locked && atapi_has_medium(d) && !by_force) {
        atapi_ask_to_eject(d);
        *out_asked = true;
        return 0;
    }
    *out_old = d->drive;
    atapi_change(d, medium, sectors_of(medium));
    return 0;
}

bool ata_cd_is_open(const struct device *cd)
{
    return container_of(cd, struct ata_drive, dev)->tray_open;
}

void ata_cd_observe(struct device *cd, void (*moved)(void *opaque), void *opaque)
{
    struct ata_drive *d = drive_of(cd);

    d->tray_moved = moved;
    d->tray_opaque = opaque;
}

/* ---- tables ---- */

static void drive_boot_path(struct device *dev, char *out, size_t size)
{
    const struct ata_drive *d = drive_of(dev);
    char controller[64];

    d->controller->class->boot_path(d->controller, controller, sizeof(controller));
    snprintf(out, size, "%s/drive@%x/disk@%x", controller, d->port->number, d->port->unit);
}

static const struct property disk_properties[] = {
    PROPERTY_POINTER(struct ata_drive, drive, "disk"),
    PROPERTY_POINTER(struct ata_drive, controller, "where it is connected"),
    PROPERTY_STRING(struct ata_drive, serial, "", "serial number, up to 20 characters"),
    PROPERTY_U8(struct ata_drive, place, ATA_ANY_PLACE,
                "port of the controller; IDE: 0 to 3 (default: first free)"),
    PROPERTY_END,
};

static const struct state_field taskfile_state[] = {
    STATE_U8(struct ata_taskfile, command),
    STATE_U8S(struct ata_taskfile, features),
    STATE_U8S(struct ata_taskfile, count),
    STATE_U8S(struct ata_taskfile, lba),
    STATE_U8(struct ata_taskfile, device),
    STATE_U8(struct ata_taskfile, control),
    STATE_U8(struct ata_taskfile, status),
    STATE_U8(struct ata_taskfile, error),
    STATE_END,
};

static const struct state_field transfer_state[] = {
    STATE_BOOL(struct ata_transfer, is_out),
    STATE_BOOL(struct ata_transfer, is_dma),
    STATE_BOOL(struct ata_transfer, is_media),
    STATE_BOOL(struct ata_transfer, flush),
    STATE_U64(struct ata_transfer, offset),
    STATE_U64_MAX(struct ata_transfer, left, 1ull << 28),
    STATE_U32_MAX(struct ata_transfer, position, ATA_BUFFER_BYTES),
    STATE_U32_MAX(struct ata_transfer, filled, ATA_BUFFER_BYTES),
    STATE_U32_MAX(struct ata_transfer, block_end, ATA_BUFFER_BYTES),
    STATE_U32_MAX(struct ata_transfer, block_bytes, 65535),
    STATE_END,
};

static const struct state_field sense_state[] = {
    STATE_U8_MAX(struct ata_sense, key, 15),
    STATE_U8(struct ata_sense, code),
    STATE_U8(struct ata_sense, qualifier),
    STATE_END,
};

#define DRIVE_STATE                                                                                \
    STATE_STRUCT(struct ata_drive, tf, taskfile_state),                                            \
        STATE_U8_MAX(struct ata_drive, phase, ATA_PHASES - 1),                                     \
        STATE_STRUCT(struct ata_drive, transfer, transfer_state),                                  \
        STATE_BYTES(struct ata_drive, packet), STATE_BOOL(struct ata_drive, intrq),                \
        STATE_U8(struct ata_drive, transfer_mode), STATE_BOOL(struct ata_drive, look_ahead),       \
        STATE_BOOL(struct ata_drive, standby)

static const struct state_field disk_state[] = {
    DRIVE_STATE,
    STATE_U8_MAX(struct ata_drive, multiple, ATA_BUFFER_BYTES / BLOCK_SECTOR_BYTES),
    {.name = "heads",
     .type = STATE_TYPE_U8,
     .offset = offsetof(struct ata_drive, heads),
     .count = 1,
     .element_size = 1,
     .min = 1,
     .max = ATA_HEADS},
    {.name = "track_sectors",
     .type = STATE_TYPE_U8,
     .offset = offsetof(struct ata_drive, track_sectors),
     .count = 1,
     .element_size = 1,
     .min = 1,
     .max = UINT8_MAX},
    STATE_BOOL(struct ata_drive, write_cache),
    STATE_BOOL(struct ata_drive, smart),
    STATE_BOOL(struct ata_drive, queue_failed),
    STATE_BYTES(struct ata_drive, queue_log),
    STATE_END,
};

static const struct state_field cd_state[] = {
    DRIVE_STATE,
    STATE_STRUCT(struct ata_drive, sense, sense_state),
    STATE_STRUCT(struct ata_drive, attention, sense_state),
    STATE_BOOL(struct ata_drive, tray_open),
    STATE_BOOL(struct ata_drive, locked),
    STATE_U8_MAX(struct ata_drive, media_event, 4),
    STATE_END,
};

/* The buffer holds something only in the middle of a transfer. */
static bool needs_buffer(const void *object)
{
    const struct ata_drive *d = object;

    return d->phase != ATA_PHASE_NONE;
}

static const struct state_field buffer_state[] = {
    STATE_BYTES(struct ata_drive, buffer),
    STATE_END,
};

static const struct state_group drive_groups[] = {
    {.name = "data", .needed = needs_buffer, .fields = buffer_state},
    {.name = NULL},
};

const struct device_class ata_disk_class = {
    .name = "ata-disk",
    .summary = "disk on an AHCI or IDE controller",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct ata_drive),
    .properties = disk_properties,
    .attach = disk_attach,
    .reset = drive_reset,
    .detach = drive_detach,
    .quiesce = drive_quiesce,
    .resume = drive_resume,
    .boot_path = drive_boot_path,
    .state = {.version = 1,
              .oldest = 1,
              .fields = disk_state,
              .groups = drive_groups,
              .after_load = drive_after_load},
};

const struct device_class ata_cd_class = {
    .name = "ata-cd",
    .summary = "CD-ROM drive on an AHCI or IDE controller",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct ata_drive),
    .properties = disk_properties,
    .attach = cd_attach,
    .reset = drive_reset,
    .detach = drive_detach,
    .quiesce = drive_quiesce,
    .resume = drive_resume,
    .boot_path = drive_boot_path,
    .state = {.version = 1,
              .oldest = 1,
              .fields = cd_state,
              .groups = drive_groups,
              .after_load = drive_after_load},
};
