/*
 * run_media.c - what trapeze run starts from: IMAGE, the firmware and its variables, disks
 */
#include "cli/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/file.h"
#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define SNAPSHOT ",snapshot=on" /* to a disk */

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

/* Is IMAGE a kernel? Else it is a disk. Negative: it cannot be read. */
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
    int kernel = image ? is_kernel(image, err) : 0;

    if (!image || kernel < 0)
        return kernel;
    if (!kernel) {
        media->image_disk = disk_text(image);
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
} known_firmware[] = {
    {"bios", "SeaBIOS", "seabios", "/usr/share/seabios/bios-256k.bin", NULL},
    {"uefi", "OVMF", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
    /* The same code, which needs no SMM, with keys in its variables. */
    {"uefi-secure", "OVMF with Secure Boot", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd",
     "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"},
    {.name = NULL},
};

void run_firmware_choices(cli_put_choice *put, void *opaque)
{
    for (const struct firmware *f = known_firmware; f->name; f++)
        put(opaque, f->name, f->summary);
}

/*
 * Builds of OVMF that keep their variables in SMM would stand still. Their code is compressed, so
 * the file's name, behind links, is what there is to go by.
 */
static int check_needs_no_smm(const char *path, struct error *err)
{
    char *real = realpath(path, NULL), *slash = real ? strrchr(real, '/') : NULL;
    bool needs = slash && strncmp(slash, "/OVMF", 5) == 0 && strstr(slash, "secboot");

    free(real);
    if (needs)
        return error_set(err, ENOTSUP,
                         "--firmware %s: this build of OVMF needs System Management Mode, which "
                         "this machine has not; --firmware uefi-secure is Secure Boot without it",
                         path);
    return 0;
}

/* Its file, and where its variables begin. A name that is not known is a file. */
static int find_firmware(struct run_media *media, struct error *err)
{
    const struct firmware *f = known_firmware;

    while (f->name && strcmp(f->name, media->firmware))
        f++;
    if (!f->name)
        return check_needs_no_smm(media->firmware, err);
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

/* A disk is started by the firmware, unless there is a kernel to start. */
int run_choose_media(struct run_media *media, const char *image, struct error *err)
{
    int result = choose_image(media, image, err);

    if (result)
        return result;
    if (!media->firmware && (media->image_disk || media->disk_texts->count) && !media->kernel)
        media->firmware = known_firmware[0].name;
    media->firmware_name = media->firmware;
    return media->firmware ? find_firmware(media, err) : 0;
}

/* ---- disks ---- */

static const struct {
    const char *name, *summary, *class;
} disk_interfaces[] = {
    {"virtio", "virtio-blk on PCI", "virtio-blk"},
    {"nvme", "NVMe on PCI", "nvme"},
    {"virtio-mmio", "virtio-blk without PCI", "virtio-blk-mmio"},
    {"scsi", "SCSI on virtio-scsi on PCI", "virtio-scsi"},
    {NULL, NULL, NULL},
};

static void disk_interface_choices(cli_put_choice *put, void *opaque)
{
    for (unsigned i = 0; disk_interfaces[i].name; i++)
        put(opaque, disk_interfaces[i].name, disk_interfaces[i].summary);
}

static const struct device_class *disk_class(const char *interface, struct error *err)
{
    unsigned i = 0;

    if (!interface)
        interface = disk_interfaces[0].name;
    if (cli_check_choice("disk interface", interface, disk_interface_choices, err))
        return NULL;
    while (strcmp(disk_interfaces[i].name, interface))
        i++;
    return device_class_find(disk_interfaces[i].class);
}

static void pause_machine(void *opaque, const char *why)
{
    machine_pause_for(opaque, why);
}

/* "FILE[,if=INTERFACE][,serial=TEXT][,transitional=on][,PROPERTY=VALUE]...": the rest is
 * block_open()'s. */
static int add_disk(const struct run_media *media, struct loop *loop, struct machine *machine,
                    const char *text, struct block **out_disk, struct error *err)
{
    size_t size = strlen(text) + sizeof(SNAPSHOT);
    char *rest = malloc(size), interface[32], serial[32], transitional[32];
    const struct device_class *class = NULL;
    struct device *dev = NULL;
    int result = -EINVAL;

    if (!rest)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(rest, size, "%s%s", text, media->snapshot ? SNAPSHOT : "");
    class = disk_class(run_take_property(rest, "if=", interface), err);
    if (class) {
        const char *number = run_take_property(rest, "serial=", serial);
        const char *old = run_take_property(rest, "transitional=", transitional);

        *out_disk = block_open(loop, rest, err);
        if (*out_disk)
            block_set_pause(*out_disk, pause_machine, machine);
        dev = *out_disk ? device_new(machine, class, NULL, err) : NULL;
        if (dev && ((number && device_set(dev, "serial", number, err)) ||
                    (old && device_set(dev, "transitional", old, err))))
            dev = NULL;
    }
    if (dev && !device_set_pointer(dev, "drive", *out_disk, err))
        result = device_attach(dev, err);
    free(rest);
    if (result)
        error_prefix(err, "--disk %s: ", text);
    return result;
}

/* What failed is tried again when the machine is resumed, and ends with it. */
static void on_machine_state(void *opaque, struct machine *machine, enum machine_state state)
{
    const struct run_media *media = opaque;

    for (unsigned i = 0; i < sizeof(media->disks) / sizeof(media->disks[0]); i++)
        if (media->disks[i] && state == MACHINE_RUNNING)
            block_retry(media->disks[i]);
        else if (media->disks[i] && state == MACHINE_STOPPED)
            block_drain(media->disks[i]);
}

static int add_seed(struct run_media *media, struct loop *loop, struct machine *machine,
                    struct block **out_disk, struct error *err)
{
    char text[64];
    int fd = run_make_seed(media->seed, err), result;

    if (fd < 0)
        return fd;
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=raw,readonly=on", fd);
    result = add_disk(media, loop, machine, text, out_disk, err);
    close(fd);
    return result;
}

int run_add_disks(struct run_media *media, struct loop *loop, struct machine *machine,
                  struct error *err)
{
    struct block **next = media->disks;

    if (machine_observe(machine, on_machine_state, media))
        return error_set(err, ENOMEM, "out of memory");
    if (media->image_disk && add_disk(media, loop, machine, media->image_disk, next++, err))
        return -EINVAL;
    for (size_t i = 0; i < media->disk_texts->count; i++)
        if (add_disk(media, loop, machine, media->disk_texts->items[i], next++, err))
            return -EINVAL;
    return media->seed ? add_seed(media, loop, machine, next, err) : 0;
}

void run_free_media(struct run_media *media)
{
    for (unsigned i = 0; i < sizeof(media->disks) / sizeof(media->disks[0]); i++)
        block_free(media->disks[i]);
    block_free(media->variables);
    free(media->image_disk);
}
