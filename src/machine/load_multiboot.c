/*
 * load_multiboot.c - multiboot 1 kernels
 *
 * After "Multiboot Specification" version 0.6.96: header search, ELF or address
 * fields, information structure with memory sizes, memory map, command line,
 * modules, loader name. An ELF64 file is taken as well, as GRUB does; it is
 * entered in 32-bit mode all the same. Left out: drives, configuration table,
 * APM, VBE; a kernel that requires a video mode is refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/loaders.h"

enum {
    HEADER_MAGIC = 0x1badb002,
    HEADER_SEARCH_BYTES = 8192,
    HEADER_BYTES = 12,
    HEADER_ADDRESS_BYTES = 32,

    HEADER_PAGE_ALIGN = 1 << 0, /* modules on pages: always done */
    HEADER_MEMORY_INFO = 1 << 1,
    HEADER_VIDEO_MODE = 1 << 2,
    HEADER_ADDRESSES = 1 << 16,
    HEADER_MUST_UNDERSTAND = 0xffff,

    LOADER_MAGIC = 0x2badb002,

    INFO_BYTES = 116,
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4, /* KiB from 0 */
    INFO_MEM_UPPER = 8, /* KiB from 1 MiB */
    INFO_CMDLINE = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_NAME = 64,

    INFO_HAS_MEMORY = 1 << 0,
    INFO_HAS_CMDLINE = 1 << 2,
    INFO_HAS_MODS = 1 << 3,
    INFO_HAS_MMAP = 1 << 6,
    INFO_HAS_LOADER_NAME = 1 << 9,

    MODULE_BYTES = 16,
    MAP_ENTRY_BYTES = 24, /* the size field counts the other 20 */
};

#define PAGE_BYTES 4096u
#define FOUR_GIB   0x100000000ull

/* Offset of the header, or -1. */
static int64_t find_header(const struct boot_file *file)
{
    for (size_t at = 0;
         at + HEADER_BYTES <= file->size_bytes && at + HEADER_BYTES <= HEADER_SEARCH_BYTES;
         at += 4) {
        const uint8_t *p = file->data + at;

        if (get_le32(p) == HEADER_MAGIC &&
            (uint32_t)(get_le32(p) + get_le32(p + 4) + get_le32(p + 8)) == 0)
            return (int64_t)at;
    }
    return -1;
}

static bool multiboot_recognise(const struct boot_file *file)
{
    return find_header(file) >= 0;
}

static int check_flags(uint32_t flags, struct error *err)
{
    uint32_t known = HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO | HEADER_VIDEO_MODE;

    if (flags & HEADER_VIDEO_MODE)
        return error_set(err, ENOTSUP,
                         "it is a multiboot kernel that requires a video mode, and this machine "
                         "has no display yet");
    if (flags & HEADER_MUST_UNDERSTAND & ~known)
        return error_set(err, ENOTSUP, "it is a multiboot kernel with unknown requirements (0x%x)",
                         flags & HEADER_MUST_UNDERSTAND);
    return 0;
}

/* Addresses in the header ("a.out kludge"): which part of the file goes where. */
static int load_by_addresses(struct boot_image *image, const struct boot_file *file, size_t at,
                             uint64_t *out_entry, struct error *err)
{
    const uint8_t *p = file->data + at;
    uint64_t header, load, load_end, bss_end, size, offset, entry;

    if (!range_fits(at, HEADER_ADDRESS_BYTES, file->size_bytes))
        return error_set(err, ENOEXEC, "it is cut short within the multiboot header");
    header = get_le32(p + 12);
    load = get_le32(p + 16);
    load_end = get_le32(p + 20);
    bss_end = get_le32(p + 24);
    entry = get_le32(p + 28);
    if (header < load || header - load > at)
        return error_set(err, ENOEXEC,
                         "it is damaged: its multiboot addresses start before the file");
    offset = at - (header - load);
    size = load_end ? load_end - load : file->size_bytes - offset;
    if (load_end && load_end < load)
        return error_set(err, ENOEXEC,
                         "it is damaged: its multiboot addresses end before they start");
    if (!range_fits(offset, size, file->size_bytes))
        return error_set(err, ENOEXEC,
                         "it is cut short: %zu bytes long, and its multiboot header needs %" PRIu64,
                         file->size_bytes, offset + size);
    *out_entry = entry;
    return boot_image_add(image, "kernel", load, file->data + offset, (size_t)size,
                          bss_end > load + size ? bss_end - load : size, err);
}

static int load_by_elf(struct boot_image *image, const struct boot_file *file, uint64_t *out_entry,
                       struct error *err)
{
    struct elf_info info = {.is_64bit = false};
    int status;

    if (!elf_recognise(file))
        return error_set(
            err, ENOEXEC,
            "it has a multiboot header without load addresses, and is not an ELF file");
    status = elf_load(image, file, &info, err);
    if (status)
        return status;
    if (info.entry > UINT32_MAX)
        return error_set(err, ENOEXEC,
                         "its entry 0x%" PRIx64 " is not a physical address below 4 GiB",
                         info.entry);
    *out_entry = info.entry;
    return 0;
}

static int place_text(struct boot_image *image, const char *name, const char *text, uint8_t *out,
                      struct error *err)
{
    uint64_t gpa;
    int status = loader_add_part(image, name, text, strlen(text) + 1, &gpa, err);

    if (status == 0)
        put_le32(out, (uint32_t)gpa);
    return status;
}

/* By custom the first word is the kernel's own name. */
static int place_command_line(struct boot_image *image, const struct boot_request *request,
                              uint8_t *info, struct error *err)
{
    size_t bytes = strlen(request->kernel.name) + strlen(request->append) + 2;
    char *text = malloc(bytes);
    int status;

    if (!text)
        return error_set(err, ENOMEM, "no memory for the command line");
    snprintf(text, bytes, "%s%s%s", request->kernel.name, *request->append ? " " : "",
             request->append);
    status = place_text(image, "command line", text, info + INFO_CMDLINE, err);
    free(text);
    return status;
}

static uint64_t end_of_pieces(const struct boot_image *image)
{
    uint64_t end = PC_BIOS_END;

    for (size_t i = 0; i < image->piece_count; i++)
        if (image->pieces[i].gpa + image->pieces[i].size_bytes > end)
            end = image->pieces[i].gpa + image->pieces[i].size_bytes;
    return end;
}

static int place_module(struct boot_image *image, const struct boot_file *module, uint8_t *entry,
                        struct error *err)
{
    uint64_t gpa;
    int status;

    if (!boot_image_find(image, module->size_bytes, PAGE_BYTES, end_of_pieces(image), FOUR_GIB,
                         BOOT_SEARCH_UP, &gpa))
        return error_set(err, ENOSPC,
                         "there is no room for the module '%s' of %zu KiB behind it; give the "
                         "machine more memory with -m",
                         module->name, (module->size_bytes + 1023) / 1024);
    put_le32(entry, (uint32_t)gpa);
    put_le32(entry + 4, (uint32_t)(gpa + module->size_bytes));
    status = boot_image_add(image, "module", gpa, module->data, module->size_bytes,
                            module->size_bytes, err);
    return status ? status : place_text(image, "module name", module->name, entry + 8, err);
}

static int place_modules(struct boot_image *image, const struct boot_request *request,
                         uint8_t *info, struct error *err)
{
    size_t bytes = request->module_count * MODULE_BYTES;
    uint8_t *list;
    uint64_t gpa = 0;
    int status = 0;

    if (bytes == 0)
        return 0;
    list = calloc(1, bytes);
    if (!list)
        return error_set(err, ENOMEM, "no memory for the list of modules");
    for (size_t i = 0; i < request->module_count && status == 0; i++)
        status = place_module(image, &request->modules[i], list + i * MODULE_BYTES, err);
    if (status == 0)
        status = loader_add_part(image, "module list", list, bytes, &gpa, err);
    free(list);
    put_le32(info + INFO_MODS_COUNT, (uint32_t)request->module_count);
    put_le32(info + INFO_MODS_ADDR, (uint32_t)gpa);
    return status;
}

static int place_map(struct boot_image *image, uint8_t *info, struct error *err)
{
    const struct pc_layout *layout = image->layout;
    uint8_t map[PC_E820_MAX * MAP_ENTRY_BYTES] = {0};
    size_t bytes = layout->e820_count * MAP_ENTRY_BYTES;
    uint64_t gpa;
    int status;

    for (size_t i = 0; i < layout->e820_count; i++) {
        uint8_t *p = map + i * MAP_ENTRY_BYTES;

        put_le32(p, MAP_ENTRY_BYTES - 4);
        put_le64(p + 4, layout->e820[i].gpa);
        put_le64(p + 12, layout->e820[i].size_bytes);
        put_le32(p + 20, layout->e820[i].type);
    }
    status = loader_add_part(image, "memory map", map, bytes, &gpa, err);
    if (status)
        return status;
    put_le32(info + INFO_MMAP_LENGTH, (uint32_t)bytes);
    put_le32(info + INFO_MMAP_ADDR, (uint32_t)gpa);
    return 0;
}

static int place_info(struct boot_image *image, const struct boot_request *request,
                      struct error *err)
{
    uint8_t info[INFO_BYTES] = {0};
    uint32_t flags = INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MMAP | INFO_HAS_LOADER_NAME;
    uint64_t low = image->layout->low_ram_bytes;
    int status = place_modules(image, request, info, err);

    if (status == 0)
        status = place_map(image, info, err);
    if (status == 0)
        status = place_command_line(image, request, info, err);
    if (status == 0)
        status = place_text(image, "loader name", "Trapeze", info + INFO_LOADER_NAME, err);
    if (status)
        return status;
    flags |= request->module_count ? INFO_HAS_MODS : 0;
    put_le32(info + INFO_FLAGS, flags);
    put_le32(info + INFO_MEM_LOWER, (uint32_t)(PC_CONVENTIONAL_END >> 10));
    put_le32(info + INFO_MEM_UPPER, low > PC_BIOS_END ? (uint32_t)((low - PC_BIOS_END) >> 10) : 0);
    return loader_add_part(image, "multiboot information", info, sizeof(info), &image->entry.rbx,
                           err);
}

static int multiboot_load(struct boot_image *image, const struct boot_request *request,
                          struct error *err)
{
    const struct boot_file *file = &request->kernel;
    size_t at = (size_t)find_header(file);
    uint32_t flags = get_le32(file->data + at + 4);
    uint64_t entry = 0;
    int status = check_flags(flags, err);

    if (status == 0)
        status = flags & HEADER_ADDRESSES ? load_by_addresses(image, file, at, &entry, err)
                                          : load_by_elf(image, file, &entry, err);
    if (status == 0)
        status = place_info(image, request, err);
    if (status == 0)
        status = loader_enter_protected(image, entry, err);
    image->entry.rax = LOADER_MAGIC;
    image->entry.bios_timer = true; /* 3.2: other state "as initialized by the BIOS" */
    return status;
}

const struct kernel_loader multiboot_loader = {
    .name = "multiboot 1",
    .recognise = multiboot_recognise,
    .load = multiboot_load,
};
