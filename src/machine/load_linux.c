/*
 * load_linux.c - Linux bzImage
 *
 * After Documentation/arch/x86/boot.rst and zero-page.rst of Linux 6.1: the
 * 64-bit entry (protocol 2.12) and the 32-bit entry (2.06 and later). The kernel is
 * put at its preferred address, since it would move itself there anyway; what it
 * unpacks into (init_size) is kept free. Left out: the real-mode entry, zImage,
 * protocols before 2.06, setup_data, EFI handover.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/loaders.h"

/* Offsets in the first sectors of the file and, the same, in struct boot_params. */
enum {
    BP_ACPI_RSDP = 0x070, /* 8 bytes, since 2.14 */
    BP_E820_COUNT = 0x1e8,
    BP_HEADER = 0x1f1,
    BP_SETUP_SECTS = 0x1f1,
    BP_SYSSIZE = 0x1f4, /* in 16-byte units */
    BP_BOOT_FLAG = 0x1fe,
    BP_JUMP_LENGTH = 0x201, /* the header ends this far behind BP_MAGIC */
    BP_MAGIC = 0x202,
    BP_VERSION = 0x206,
    BP_LOADER_TYPE = 0x210,
    BP_LOADFLAGS = 0x211,
    BP_CODE32_START = 0x214,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_CMDLINE = 0x228,
    BP_INITRD_ADDR_MAX = 0x22c,
    BP_XLOADFLAGS = 0x236,
    BP_CMDLINE_SIZE = 0x238,
    BP_PREF_ADDRESS = 0x258,
    BP_INIT_SIZE = 0x260,
    BP_HEADER_MAX = 0x290,
    BP_E820 = 0x2d0, /* 128 entries of 20 bytes */
    BP_BYTES = 4096,
};

#define SECTOR_BYTES          512u
#define LOADER_UNDEFINED      0xff
#define LOADFLAG_LOADED_HIGH  0x01
#define XLOADFLAG_KERNEL_64   0x0001
#define ENTRY_64_OFFSET       0x200
#define PROTOCOL_OLDEST       0x0206
#define PROTOCOL_PREF_ADDRESS 0x020a
#define PROTOCOL_XLOADFLAGS   0x020c
#define PROTOCOL_RSDP         0x020e
#define PAGE_BYTES            4096u

struct linux_kernel {
    uint8_t params[BP_BYTES]; /* the zero page, filled in step by step */
    unsigned version;
    const uint8_t *code;
    size_t code_bytes;
    uint64_t load_gpa;
    uint64_t init_bytes; /* RAM it needs from load_gpa until it is up */
    bool offers_64;
};

static bool linux_recognise(const struct boot_file *file)
{
    return file->size_bytes >= BP_MAGIC + 4 && get_le16(file->data + BP_BOOT_FLAG) == 0xaa55 &&
           memcmp(file->data + BP_MAGIC, "HdrS", 4) == 0;
}

/* Copy the setup header into the zero page; its length is stated by the jump over it. */
static int read_header(struct linux_kernel *kernel, const struct boot_file *file, struct error *err)
{
    size_t end = BP_MAGIC + file->data[BP_JUMP_LENGTH];

    memset(kernel, 0, sizeof(*kernel));
    end = end < BP_HEADER_MAX ? end : BP_HEADER_MAX;
    if (file->size_bytes < end)
        return error_set(err, ENOEXEC, "it is cut short within the Linux setup header");
    memcpy(kernel->params + BP_HEADER, file->data + BP_HEADER, end - BP_HEADER);
    kernel->version = get_le16(kernel->params + BP_VERSION);
    if (kernel->version < PROTOCOL_OLDEST)
        return error_set(err, ENOEXEC,
                         "it is a Linux kernel with boot protocol %u.%02u; 2.06 (Linux 2.6.22) or "
                         "later is needed",
                         kernel->version >> 8, kernel->version & 0xff);
    if (!(kernel->params[BP_LOADFLAGS] & LOADFLAG_LOADED_HIGH))
        return error_set(err, ENOEXEC, "it is an old zImage; build a bzImage");
    return 0;
}

static int find_code(struct linux_kernel *kernel, const struct boot_file *file, struct error *err)
{
    unsigned sectors = kernel->params[BP_SETUP_SECTS] ? kernel->params[BP_SETUP_SECTS] : 4;
    uint64_t offset = (sectors + 1) * SECTOR_BYTES;
    uint64_t size = (uint64_t)get_le32(kernel->params + BP_SYSSIZE) * 16;

    if (size <= ENTRY_64_OFFSET)
        return error_set(err, ENOEXEC, "it is damaged: its header says that it has no code");
    if (!range_fits(offset, size, file->size_bytes))
        return error_set(err, ENOEXEC,
                         "it is cut short: %zu bytes long, and its header says %" PRIu64,
                         file->size_bytes, offset + size);
    kernel->code = file->data + offset;
    kernel->code_bytes = (size_t)size;
    return 0;
}

static void read_placement(struct linux_kernel *kernel)
{
    kernel->load_gpa = PC_BIOS_END;
    kernel->init_bytes = kernel->code_bytes * 4; /* before 2.10 nobody says: a usual ratio */
    if (kernel->version >= PROTOCOL_PREF_ADDRESS) {
        kernel->load_gpa = get_le64(kernel->params + BP_PREF_ADDRESS);
        kernel->init_bytes = get_le32(kernel->params + BP_INIT_SIZE);
    }
    if (kernel->init_bytes < kernel->code_bytes)
        kernel->init_bytes = kernel->code_bytes;
    kernel->offers_64 = kernel->version >= PROTOCOL_XLOADFLAGS &&
                        (get_le16(kernel->params + BP_XLOADFLAGS) & XLOADFLAG_KERNEL_64);
}

static int place_code(struct boot_image *image, const struct linux_kernel *kernel,
                      struct error *err)
{
    uint64_t end, low = image->layout->low_ram_bytes;
    int status;

    if (!checked_add(kernel->load_gpa, kernel->init_bytes, &end) || end > low)
        return error_set(err, ENOSPC,
                         "it needs %" PRIu64 " MiB of RAM from 0x%" PRIx64
                         " on to start, and the machine has %" PRIu64
                         " MiB below 4 GiB; give it more memory with -m",
                         (kernel->init_bytes >> 20) + 1, kernel->load_gpa, low >> 20);
    status = boot_image_add(image, "kernel", kernel->load_gpa, kernel->code, kernel->code_bytes,
                            kernel->code_bytes, err);
    if (status)
        return status;
    return boot_image_reserve(image, "room to unpack the kernel",
                              kernel->load_gpa + kernel->code_bytes,
                              kernel->init_bytes - kernel->code_bytes, err);
}

/* Each file starts on 4 bytes, with zeros between: what the kernel expects of concatenated cpio. */
static uint64_t padded(const struct boot_file *module)
{
    return align_up(module->size_bytes, 4);
}

static int place_initrd(struct boot_image *image, struct linux_kernel *kernel,
                        const struct boot_request *request, struct error *err)
{
    uint64_t max = (uint64_t)get_le32(kernel->params + BP_INITRD_ADDR_MAX) + 1;
    uint64_t total = 0, gpa;
    int status = 0;

    for (size_t i = 0; i < request->module_count; i++)
        total += padded(&request->modules[i]);
    if (total == 0)
        return 0;
    if (!boot_image_find(image, total, PAGE_BYTES, PC_BIOS_END, max, BOOT_SEARCH_DOWN, &gpa))
        return error_set(err, ENOSPC,
                         "there is no room for the initrd of %" PRIu64
                         " KiB beside it; give the machine more memory with -m",
                         (total + 1023) / 1024);
    put_le32(kernel->params + BP_RAMDISK_IMAGE, (uint32_t)gpa);
    put_le32(kernel->params + BP_RAMDISK_SIZE, (uint32_t)total);
    for (size_t i = 0; i < request->module_count && status == 0; i++) {
        const struct boot_file *module = &request->modules[i];

        status = boot_image_add(image, "initrd", gpa, module->data, module->size_bytes,
                                padded(module), err);
        gpa += padded(module);
    }
    return status;
}

static int place_command_line(struct boot_image *image, struct linux_kernel *kernel,
                              const char *append, struct error *err)
{
    uint32_t max = get_le32(kernel->params + BP_CMDLINE_SIZE);
    uint64_t gpa;
    int status;

    if (strlen(append) > max)
        return error_set(err, EINVAL,
                         "the command line has %zu characters, and this kernel takes %" PRIu32
                         "; shorten --append",
                         strlen(append), max);
    status = loader_add_part(image, "command line", append, strlen(append) + 1, &gpa, err);
    if (status == 0)
        put_le32(kernel->params + BP_CMDLINE, (uint32_t)gpa);
    return status;
}

static void fill_e820(struct linux_kernel *kernel, const struct pc_layout *layout)
{
    uint8_t *p = kernel->params + BP_E820;

    kernel->params[BP_E820_COUNT] = (uint8_t)layout->e820_count;
    for (size_t i = 0; i < layout->e820_count; i++, p += 20) {
        put_le64(p, layout->e820[i].gpa);
        put_le64(p + 8, layout->e820[i].size_bytes);
        put_le32(p + 16, layout->e820[i].type);
    }
}

static int place_params(struct boot_image *image, struct linux_kernel *kernel,
                        const struct boot_request *request, struct error *err)
{
    kernel->params[BP_LOADER_TYPE] = LOADER_UNDEFINED;
    put_le32(kernel->params + BP_CODE32_START, (uint32_t)kernel->load_gpa);
    if (kernel->version >= PROTOCOL_RSDP)
        put_le64(kernel->params + BP_ACPI_RSDP, request->rsdp_gpa);
    fill_e820(kernel, image->layout);
    return loader_add_part(image, "boot parameters", kernel->params, BP_BYTES, &image->entry.rsi,
                           err);
}

static int enter(struct boot_image *image, const struct linux_kernel *kernel, enum pc_entry entry,
                 struct error *err)
{
    if (entry == PC_ENTRY_64 && !kernel->offers_64)
        return error_set(err, EINVAL,
                         "it has no 64-bit entry; leave the choice to us, or ask for "
                         "the 32-bit one");
    if (kernel->offers_64 && entry != PC_ENTRY_32)
        return loader_enter_long(image, kernel->load_gpa + ENTRY_64_OFFSET, err);
    return loader_enter_protected(image, kernel->load_gpa, err);
}

static int linux_load(struct boot_image *image, const struct boot_request *request,
                      struct error *err)
{
    struct linux_kernel kernel;
    int status = read_header(&kernel, &request->kernel, err);

    if (status == 0)
        status = find_code(&kernel, &request->kernel, err);
    if (status)
        return status;
    read_placement(&kernel);
    status = place_code(image, &kernel, err);
    if (status == 0)
        status = place_initrd(image, &kernel, request, err);
    if (status == 0)
        status = place_command_line(image, &kernel, request->append, err);
    if (status == 0)
        status = place_params(image, &kernel, request, err);
    if (status == 0)
        status = enter(image, &kernel, request->entry, err);
    return status;
}

const struct kernel_loader linux_loader = {
    .name = "Linux bzImage",
    .recognise = linux_recognise,
    .load = linux_load,
};
