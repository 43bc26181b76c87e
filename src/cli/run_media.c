/*
 * run_media.c - what trapeze run starts from: IMAGE, the firmware and its variables, disks, CDs,
 * floppies
 */
#include "cli/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/ata/ata.h"
#include "devices/floppy/floppy.h"
#include "host/file.h"
#include "host/loop.h"
#include "machine/pc.h"
#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define SNAPSHOT     ",snapshot=on" /* to a disk */
#define READ_ONLY    ",readonly=on"
#define NO_CD        "none" READ_ONLY /* --cdrom none */
#define SAY_SNAPSHOT "this machine has --snapshot: say snapshot=on, too; "
#define NO_DISK      "none" /* --floppy none */

/* ---- IMAGE ---- */

static bool has_multiboot_header(const uint8_t *bytes, size_t size)
{
    uint32_t word;

    for (size_t i = 0; i + 4 <= size; i += 4) {
        memcpy(&word, bytes + i, 4);
        if (word == 0x1badb002u)
            return true;
    }
    return false;
}

static bool looks_like_kernel(const uint8_t *bytes, size_t size)
{
    if (size >= 4 && memcmp(bytes, "\177ELF", 4) == 0)
        return true;
    if (size >= 0x206 && memcmp(bytes + 0x202, "HdrS", 4) == 0)
        return true;
    return has_multiboot_header(bytes, size);
}

/* Is IMAGE a kernel? Else it is a disk or a CD. Negative: it cannot be read. */
static int is_kernel(const char *path, struct error *err)
{
    static uint8_t head[8192];
    FILE *file = fopen(path, "rb");
    size_t size;

    if (!file)
        return error_set(err, errno, "'%s': %s", path, strerror(errno));
    size = fread(head, 1, sizeof(head), file);
    if (ferror(file)) {
        int code = errno;

        fclose(file);
        return error_set(err, code, "'%s': %s", path, strerror(code));
    }
    fclose(file);
    return looks_like_kernel(head, size);
}

/* Does it hold an ISO 9660 file system? */
static bool is_cd(const char *path)
{
    char name[5] = "";
    FILE *file = fopen(path, "rb");

    if (!file)
        return false;
    if (fseek(file, 16 * 2048 + 1, SEEK_SET) || fread(name, 1, sizeof(name), file) != sizeof(name))
        name[0] = '\0';
    fclose(file);
    return memcmp(name, "CD001", sizeof(name)) == 0;
}

static bool is_floppy(const char *path)
{
    struct stat status;

    return !stat(path, &status) && S_ISREG(status.st_mode) &&
           floppy_is_size((uint64_t)status.st_size);
}

/* A comma in a file name is doubled in --disk. */
static char *disk_text(const char *path)
{
    char *text = malloc(2 * strlen(path) + 1), *to = text;

    for (const char *from = path; text && *from; from++) {
        if (*from == ',')
            *to++ = ',';
        *to++ = *from;
    }
    if (text)
        *to = '\0';
    return text;
}

static int choose_image(struct run_media *media, const char *image, struct error *err)
{
    int kernel = image && !block_is_uri(image) ? is_kernel(image, err) : 0;

    if (!image || kernel < 0)
        return kernel;
    if (!kernel) {
        media->image_disk = disk_text(image);
        media->image_is_cd = is_cd(image);
        media->image_is_floppy = !block_is_uri(image) && !media->image_is_cd && is_floppy(image);
        return media->image_disk ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    if (media->kernel)
        return error_set(err, EINVAL, "'%s' and --kernel %s: give one kernel", image,
                         media->kernel);
    media->kernel = image;
    return 0;
}

/* ---- firmware ---- */

/* Where distributions have it, and what it keeps its variables in. */
static const struct firmware {
    const char *name, *summary, *package, *file, *variables;
    bool smm;
} known_firmware[] = {
    {"bios", "SeaBIOS", "seabios", "/usr/share/seabios/bios-256k.bin", NULL, false},
    {"uefi", "OVMF", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd",
     false},
    {"uefi-secure", "OVMF with Secure Boot", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
     "/usr/share/OVMF/OVMF_VARS_4M.ms.fd", true},
    {.name = NULL},
};

void run_firmware_choices(cli_put_choice *put, void *opaque)
{
    for (const struct firmware *f = known_firmware; f->name; f++)
        put(opaque, f->name, f->summary);
}

/* Builds of OVMF that keep their variables in SMM say so by the file's name, behind links. */
static bool needs_smm(const char *path)
{
    char *real = realpath(path, NULL), *slash = real ? strrchr(real, '/') : NULL;
    bool needs = slash && strncmp(slash, "/OVMF", 5) == 0 && strstr(slash, "secboot");

    free(real);
    return needs;
}

/* Its file, and where its variables begin. A name that is not known is a file. */
static int find_firmware(struct run_media *media, struct error *err)
{
    const struct firmware *f = known_firmware;

    while (f->name && strcmp(f->name, media->firmware))
        f++;
    if (!f->name) {
        media->smm = needs_smm(media->firmware);
        return 0;
    }
    media->smm = f->smm;
    media->firmware = f->file;
    media->variables_file = f->variables;
    if (access(f->file, R_OK) || (f->variables && access(f->variables, R_OK)))
        return error_set(err, ENOENT,
                         "--firmware %s: %s is not here; install it (apt-get install %s), or "
                         "name a ROM image with --firmware FILE",
                         f->name, f->summary, f->package);
    return 0;
}

static int copy_file(const char *from, const char *to, struct error *err)
{
    uint8_t *data;
    size_t size_bytes;
    FILE *file;
    int status = host_file_read(from, 16u << 20, &data, &size_bytes, err);

    if (status)
        return status;
    file = fopen(to, "wbx");
    if (!file || fwrite(data, 1, size_bytes, file) != size_bytes)
        status = error_set(err, errno, "'%s': %s", to, strerror(errno));
    if (file && fclose(file) && !status)
        status = error_set(err, errno, "'%s': %s", to, strerror(errno));
    free(data);
    return status;
}

int run_open_variables(struct run_media *media, struct loop *loop, const char *path,
                       struct error *err)
{
    char *text;

    if (!path)
        return 0;
    if (!media->variables_file)
        return error_set(err, EINVAL,
                         "--nvram wants --firmware uefi or uefi-secure: no other keeps variables");
    if (access(path, F_OK) && copy_file(media->variables_file, path, err)) {
        error_prefix(err, "--nvram: ");
        return -EINVAL;
    }
    text = disk_text(path);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    media->variables = block_open(loop, text, err);
    free(text);
    if (!media->variables)
        error_prefix(err, "--nvram: ");
    return media->variables ? 0 : -EINVAL;
}

/* A disk or CD is started by the firmware, unless there is a kernel to start. */
int run_choose_media(struct run_media *media, const char *image, struct error *err)
{
    int result = choose_image(media, image, err);

    if (result)
        return result;
    if (!media->firmware && !media->kernel &&
        (media->image_disk || media->disk_texts->count || media->cd_texts->count ||
         media->floppy_texts->count))
        media->firmware = known_firmware[0].name;
    media->firmware_name = media->firmware;
    return media->firmware ? find_firmware(media, err) : 0;
}

/* ---- disks and CDs ---- */

/* The first one is what is taken if nothing is said. cd: the class of a drive for CDs. */
static const struct disk_interface {
    const char *name, *summary, *class, *cd, *controller;
} disk_interfaces[] = {
    {"virtio", "virtio-blk on PCI", "virtio-blk", NULL, NULL},
    {"nvme", "NVMe on PCI", "nvme", NULL, NULL},
    {"ahci", "serial ATA", "ata-disk", "ata-cd", "ahci"},
    {"ide", "ATA, as old systems know it", "ata-disk", "ata-cd", "pci-ide"},
    {"virtio-mmio", "virtio-blk without PCI", "virtio-blk-mmio", NULL, NULL},
    {"scsi", "SCSI on virtio-scsi on PCI", "virtio-scsi", NULL, NULL},
    {"usb", "a USB stick", "usb-storage", NULL, NULL},
    {.name = NULL},
};

static void put_interfaces(cli_put_choice *put, void *opaque, bool cd)
{
    for (const struct disk_interface *i = disk_interfaces; i->name; i++)
        if (!cd || i->cd)
            put(opaque, i->name, i->summary);
}

static void disk_interface_choices(cli_put_choice *put, void *opaque)
{
    put_interfaces(put, opaque, false);
}

static void cd_interface_choices(cli_put_choice *put, void *opaque)
{
    put_interfaces(put, opaque, true);
}

static const struct disk_interface *find_interface(const char *name, bool cd, struct error *err)
{
    const struct disk_interface *i = disk_interfaces;

    if (name && cli_check_choice("disk interface", name,
                                 cd ? cd_interface_choices : disk_interface_choices, err))
        return NULL;
    while (name ? strcmp(i->name, name) != 0 : cd && !i->cd)
        i++;
    return i;
}

static void pause_machine(void *opaque, const char *why)
{
    machine_pause_for(opaque, why);
}

/* A controller of that class with a free place; a new one if there is none. */
static struct device *find_controller(struct machine *machine, const char *class_name,
                                      struct error *err)
{
    const struct device_class *class = device_class_find(class_name);
    struct device *dev = machine_first_device(machine);

    while (dev && (dev->class != class || ata_bus_is_full(ata_bus_of(dev))))
        dev = dev->next;
    if (dev)
        return dev;
    dev = device_new(machine, class, NULL, err);
    if (!dev || device_attach(dev, err))
        return NULL;
    pc_wire_added(machine, dev);
    return dev;
}

/* What is taken out of --disk and --cdrom: the rest is block_open()'s. */
struct drive_options {
    char interface[32], serial[32], boot_index[32], transitional[32], bus[32];
    const char *chosen_interface, *chosen_serial, *chosen_boot_index, *chosen_transitional;
    const char *chosen_bus;
};

static void take_options(char *text, struct drive_options *options)
{
    options->chosen_interface = run_take_property(text, "if=", options->interface);
    options->chosen_serial = run_take_property(text, "serial=", options->serial);
    options->chosen_boot_index = run_take_property(text, "bootindex=", options->boot_index);
    options->chosen_transitional = run_take_property(text, "transitional=", options->transitional);
    options->chosen_bus = run_take_property(text, "bus=", options->bus);
}

bool run_is_stick(const char *text)
{
    struct drive_options options;
    char *copy = strdup(text);
    bool is_stick;

    if (!copy)
        return false;
    take_options(copy, &options);
    is_stick = options.chosen_interface && !strcmp(options.chosen_interface, "usb");
    free(copy);
    return is_stick;
}

static bool set_up(struct device *dev, const struct drive_options *options, const char *place,
                   enum run_boot_kind kind, struct block *disk, struct error *err)
{
    return !(options->chosen_serial && device_set(dev, "serial", options->chosen_serial, err)) &&
           !(options->chosen_transitional &&
             device_set(dev, "transitional", options->chosen_transitional, err)) &&
           !(options->chosen_bus && device_set(dev, "bus", options->chosen_bus, err)) &&
           !(place && !run_is_usb(dev->class->name) && device_set(dev, "addr", place, err)) &&
           !run_set_boot_index(dev, kind, options->chosen_boot_index, err) &&
           !device_set_pointer(dev, "drive", disk, err);
}

/* What failed leaves nothing behind but a controller. */
static struct device *plug_in(struct machine *machine, const struct drive_options *options,
                              const struct disk_interface *interface, bool cd, const char *place,
                              struct block *disk, struct error *err)
{
    const struct device_class *class = device_class_find(cd ? interface->cd : interface->class);
    struct device *controller = NULL, *dev;

    if (interface->controller && place) {
        error_set(err, EINVAL, "if=%s has no places where disks come and go", interface->name);
        return NULL;
    }
    if (interface->controller) {
        controller = find_controller(machine, interface->controller, err);
        if (!controller)
            return NULL;
    }
    if (run_is_usb(class->name) && run_need_usb(machine, err))
        return NULL;
    dev = device_new(machine, class, NULL, err);
    if (dev && !(controller && device_set_pointer(dev, "controller", controller, err)) &&
        set_up(dev, options, place, cd ? RUN_BOOT_CD : RUN_BOOT_DISK, disk, err) &&
        !device_attach(dev, err))
        return dev;
    device_free(dev);
    return NULL;
}

/*
 * "FILE[,if=INTERFACE][,serial=TEXT][,bootindex=N][,transitional=on][,bus=ID][,PROPERTY=VALUE]...";
 * place: on the PCI bus, NULL: anywhere. What failed leaves nothing behind but *out_disk.
 */
static struct device *add_drive(const struct run_media *media, struct machine *machine,
                                const char *text, bool cd, const char *place,
                                struct block **out_disk, struct error *err)
{
    const char *more = cd ? READ_ONLY : media->snapshot ? SNAPSHOT : "";
    size_t size = strlen(text) + strlen(more) + 1;
    const struct disk_interface *interface;
    struct drive_options options;
    char *rest = malloc(size);
    struct device *dev = NULL;
    bool is_empty;

    if (!rest) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    snprintf(rest, size, "%s%s", text, more);
    take_options(rest, &options);
    interface = find_interface(options.chosen_interface, cd, err);
    is_empty = cd && strcmp(rest, NO_CD) == 0;
    if (interface && !is_empty)
        *out_disk = block_open(machine_loop(machine), rest, err);
    if (*out_disk)
        block_set_pause(*out_disk, pause_machine, machine);
    if (*out_disk || (interface && is_empty))
        dev = plug_in(machine, &options, interface, cd, place, *out_disk, err);
    free(rest);
    if (!dev)
        error_prefix(err, "--%s %s: ", cd ? "cdrom" : "disk", text);
    return dev;
}

/* ---- floppies ---- */

bool run_has_floppy(const struct run_media *media)
{
    return media->floppy_texts->count || media->image_is_floppy;
}

/* Of a drive that is connected to the board's controller. */
static struct device *plug_floppy(struct machine *machine, struct block *disk, const char *type,
                                  const char *boot_index, struct error *err)
{
    struct device *dev = device_new(machine, &floppy_drive_class, NULL, err);

    if (dev &&
        !device_set_pointer(dev, "controller", machine_find_device(machine, floppy_class.name),
                            err) &&
        !device_set_pointer(dev, "drive", disk, err) &&
        !(type && device_set(dev, "type", type, err)) &&
        !run_set_boot_index(dev, RUN_BOOT_FLOPPY, boot_index, err) && !device_attach(dev, err)) {
        pc_wire_added(machine, dev);
        return dev;
    }
    device_free(dev);
    return NULL;
}

/* What goes into a drive. NULL with err. */
static struct block *open_floppy(struct loop *loop, const char *text, struct error *err)
{
    if (!block_is_uri(text)) /* the sandbox lets not every machine connect */
        return block_open(loop, text, err);
    error_set(err, ENOTSUP, "'%s': only a file can be put into a floppy drive", text);
    return NULL;
}

/* "FILE[,type=TYPE][,bootindex=N][,PROPERTY=VALUE]..." */
static int add_floppy(const struct run_media *media, struct machine *machine, const char *text,
                      struct block **out_disk, struct error *err)
{
    const char *more = media->snapshot ? SNAPSHOT : "";
    size_t size = strlen(text) + strlen(more) + 1;
    char *rest = malloc(size), type[32], boot_index[32];
    const char *chosen_type, *chosen_index;
    struct device *dev = NULL;

    if (!rest)
        return error_set(err, ENOMEM, "out of memory");
    strcpy(rest, text);
    chosen_type = run_take_property(rest, "type=", type);
    chosen_index = run_take_property(rest, "bootindex=", boot_index);
    if (strcmp(rest, NO_DISK)) {
        strcat(rest, more);
        *out_disk = open_floppy(machine_loop(machine), rest, err);
        if (*out_disk)
            block_set_pause(*out_disk, pause_machine, machine);
    }
    if (*out_disk || !strcmp(rest, NO_DISK))
        dev = plug_floppy(machine, *out_disk, chosen_type, chosen_index, err);
    free(rest);
    if (!dev)
        error_prefix(err, "--floppy %s: ", text);
    return dev ? 0 : -EINVAL;
}

static int add_floppies(const struct run_media *media, struct machine *machine,
                        struct block ***next, struct error *err)
{
    if (media->image_is_floppy && add_floppy(media, machine, media->image_disk, (*next)++, err))
        return -EINVAL;
    for (size_t i = 0; i < media->floppy_texts->count; i++)
        if (add_floppy(media, machine, media->floppy_texts->items[i], (*next)++, err))
            return -EINVAL;
    return 0;
}

static int add_seed(struct run_media *media, struct machine *machine, struct block **out_disk,
                    struct error *err)
{
    char text[64];
    int fd = run_make_seed(media->seed, err);
    struct device *dev;

    if (fd < 0)
        return fd;
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=raw,readonly=on", fd);
    dev = add_drive(media, machine, text, false, NULL, out_disk, err);
    close(fd);
    return dev ? 0 : -EINVAL;
}

int run_add_disks(struct run_media *media, struct machine *machine, struct error *err)
{
    struct block **next = media->disks;

    if (media->image_disk && !media->image_is_floppy &&
        !add_drive(media, machine, media->image_disk, media->image_is_cd, NULL, next++, err))
        return -EINVAL;
    for (size_t i = 0; i < media->disk_texts->count; i++)
        if (!add_drive(media, machine, media->disk_texts->items[i], false, NULL, next++, err))
            return -EINVAL;
    for (size_t i = 0; i < media->cd_texts->count; i++)
        if (!add_drive(media, machine, media->cd_texts->items[i], true, NULL, next++, err))
            return -EINVAL;
    if (add_floppies(media, machine, &next, err))
        return -EINVAL;
    return media->seed ? add_seed(media, machine, next, err) : 0;
}

/* Where it is kept; disk NULL: where another can be. */
static struct block **find_disk(struct run_media *media, const struct block *disk)
{
    for (unsigned i = 0; i < sizeof(media->disks) / sizeof(media->disks[0]); i++)
        if (media->disks[i] == disk)
            return &media->disks[i];
    return NULL;
}

/* What goes into a drive. NULL with err. */
static struct block *open_cd(struct loop *loop, const char *text, struct error *err)
{
    size_t size = strlen(text) + sizeof(READ_ONLY);
    char *whole = malloc(size);
    struct block *cd = NULL;

    if (!whole)
        error_set(err, ENOMEM, "out of memory");
    else if (block_is_uri(text)) /* the sandbox lets not every machine connect */
        error_set(err, ENOTSUP, "'%s': only a file can be put into a drive", text);
    else if (snprintf(whole, size, "%s%s", text, READ_ONLY))
        cd = block_open(loop, whole, err);
    free(whole);
    return cd;
}

/* As a drive wants it. NULL with err. */
static struct block *open_medium(const struct run_media *media, const struct device *drive,
                                 const char *text, struct error *err)
{
    struct loop *loop = machine_loop(drive->machine);
    struct block *medium = drive->class == &floppy_drive_class ? open_floppy(loop, text, err)
                                                               : open_cd(loop, text, err);

    if (medium)
        block_set_pause(medium, pause_machine, drive->machine);
    else if (err->code == EACCES && media->snapshot)
        error_prefix(err, SAY_SNAPSHOT);
    return medium;
}

int run_change_medium(struct run_media *media, struct device *drive, const char *text,
                      bool by_force, bool *out_asked, struct error *err)
{
    struct block *medium = NULL, *old, **kept;
    int result;

    *out_asked = false;
    if (text) {
        if (!find_disk(media, NULL))
            return error_set(err, E2BIG, "there are %d disks, and no room for more", RUN_MAX_DISKS);
        medium = open_medium(media, drive, text, err);
        if (!medium)
            return -EINVAL;
    }
    result = drive->class == &floppy_drive_class
                 ? floppy_change(drive, medium, &old, err)
                 : ata_cd_change(drive, medium, by_force, out_asked, &old, err);
    if (result || *out_asked) {
        block_free(medium);
        return result;
    }
    kept = find_disk(media, old);
    if (kept)
        *kept = medium;
    block_free(old);
    return 0;
}

/* By one of block_open(), open_cd() and open_floppy(). */
static int open_once(struct block *open(struct loop *, const char *, struct error *),
                     const char *text, struct error *err)
{
    struct loop *loop = loop_new(err);
    struct block *block = loop ? open(loop, text, err) : NULL;
    int result = block ? 0 : -EINVAL;

    block_free(block);
    loop_free(loop);
    return result;
}

int run_hand_over_disk(const char *text, struct error *err)
{
    struct drive_options options;
    char *rest = strdup(text);
    int result = -EINVAL;

    if (!rest)
        return error_set(err, ENOMEM, "out of memory");
    take_options(rest, &options);
    if (block_is_uri(rest))
        result = 0; /* it is connected to again and again */
    else if (find_interface(options.chosen_interface, false, err))
        result = open_once(block_open, rest, err);
    free(rest);
    if (result)
        error_prefix(err, "--disk %s: ", text);
    return result;
}

int run_hand_over_cd(const char *text, struct error *err)
{
    return open_once(open_cd, text, err);
}

int run_hand_over_floppy(const char *text, struct error *err)
{
    return open_once(open_floppy, text, err);
}

struct device *run_plug_disk(struct run_media *media, struct machine *machine, const char *text,
                             const char *place, struct block ***out_disk, struct error *err)
{
    struct block **disk = find_disk(media, NULL);
    struct device *dev;

    if (!disk) {
        error_set(err, E2BIG, "there are %d disks, and no room for more", RUN_MAX_DISKS);
        return NULL;
    }
    dev = add_drive(media, machine, text, false, place, disk, err);
    *out_disk = disk;
    if (!dev) {
        if (err->code == EACCES && media->snapshot)
            error_prefix(err, SAY_SNAPSHOT);
        block_free(*disk);
        *disk = NULL;
    }
    return dev;
}

static bool any_disk(const struct run_media *media, bool (*is_so)(const struct block *block))
{
    bool is_any = media->variables && is_so(media->variables);

    for (unsigned i = 0; i < sizeof(media->disks) / sizeof(media->disks[0]); i++)
        is_any |= media->disks[i] && is_so(media->disks[i]);
    return is_any;
}

bool run_media_connects(const struct run_media *media)
{
    return any_disk(media, block_is_remote);
}

bool run_media_submits(const struct run_media *media)
{
    return any_disk(media, block_has_ring);
}

void run_free_media(struct run_media *media)
{
    for (unsigned i = 0; i < sizeof(media->disks) / sizeof(media->disks[0]); i++)
        block_free(media->disks[i]);
    block_free(media->variables);
    free(media->image_disk);
}
