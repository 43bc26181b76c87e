/*
 * load_pvh.c - ELF kernels with the PVH entry: vmlinux, Xen, FreeBSD, unikernels
 *
 * After the Xen documents "x86/HVM direct boot ABI" (docs/misc/pvh.pandoc) and
 * public/arch-x86/hvm/start_info.h, version 1 with the memory map. The entry is
 * 32-bit protected mode at the address in the note XEN_ELFNOTE_PHYS32_ENTRY, with
 * the start info in EBX. Each initrd is one module. Left out: everything Xen.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/loaders.h"

enum {
    START_MAGIC = 0x336ec578,
    START_VERSION = 1,
    START_BYTES = 56,
    MODULE_BYTES = 32,
    MAP_ENTRY_BYTES = 24,
};

#define PAGE_BYTES     4096u
#define MODULES_END_64 0x80000000ull
#define MODULES_END_32 0x38000000ull /* what a 32-bit Linux maps directly */

static bool pvh_recognise(const struct boot_file *file)
{
    return elf_recognise(file);
}

static int place_map(struct boot_image *image, uint8_t *start, struct error *err)
{
    const struct pc_layout *layout = image->layout;
    uint8_t map[PC_E820_MAX * MAP_ENTRY_BYTES] = {0};
    uint64_t gpa;
    int status;

    for (size_t i = 0; i < layout->e820_count; i++) {
        uint8_t *p = map + i * MAP_ENTRY_BYTES;

        put_le64(p, layout->e820[i].gpa);
        put_le64(p + 8, layout->e820[i].size_bytes);
        put_le32(p + 16, layout->e820[i].type);
    }
    status =
        loader_add_part(image, "memory map", map, layout->e820_count * MAP_ENTRY_BYTES, &gpa, err);
    if (status)
        return status;
    put_le64(start + 40, gpa);
    put_le32(start + 48, (uint32_t)layout->e820_count);
    return 0;
}

static int place_text(struct boot_image *image, const char *name, const char *text, uint8_t *out,
                      struct error *err)
{
    uint64_t gpa;
    int status = loader_add_part(image, name, text, strlen(text) + 1, &gpa, err);

    if (status == 0)
        put_le64(out, gpa);
    return status;
}

static int place_module(struct boot_image *image, const struct boot_file *module, uint64_t max,
                        uint8_t *entry, struct error *err)
{
    const char *arguments = strchr(module->name, ' ');
    uint64_t gpa;
    int status;

    if (!boot_image_find(image, module->size_bytes, PAGE_BYTES, PC_BIOS_END, max, BOOT_SEARCH_DOWN,
                         &gpa))
        return error_set(err, ENOSPC,
                         "there is no room for the module '%s' of %zu KiB beside it; give the "
                         "machine more memory with -m",
                         module->name, (module->size_bytes + 1023) / 1024);
    put_le64(entry, gpa);
    put_le64(entry + 8, module->size_bytes);
    status = boot_image_add(image, "module", gpa, module->data, module->size_bytes,
                            module->size_bytes, err);
    if (status == 0 && arguments)
        status = place_text(image, "module arguments", arguments + 1, entry + 16, err);
    return status;
}

static int place_modules(struct boot_image *image, const struct boot_request *request, uint64_t max,
                         uint8_t *start, struct error *err)
{
    size_t bytes = request->module_count * MODULE_BYTES;
    uint8_t *list;
    uint64_t gpa;
    int status = 0;

    if (bytes == 0)
        return 0;
    list = calloc(1, bytes);
    if (!list)
        return error_set(err, ENOMEM, "no memory for the list of modules");
    for (size_t i = 0; i < request->module_count && status == 0; i++)
        status = place_module(image, &request->modules[i], max, list + i * MODULE_BYTES, err);
    if (status == 0)
        status = loader_add_part(image, "module list", list, bytes, &gpa, err);
    free(list);
    if (status)
        return status;
    put_le32(start + 12, (uint32_t)request->module_count);
    put_le64(start + 16, gpa);
    return 0;
}

static int place_start_info(struct boot_image *image, const struct boot_request *request,
                            const struct elf_info *info, struct error *err)
{
    uint8_t start[START_BYTES] = {0};
    uint64_t max = info->is_64bit ? MODULES_END_64 : MODULES_END_32;
    int status;

    put_le32(start, START_MAGIC);
    put_le32(start + 4, START_VERSION);
    put_le64(start + 32, request->rsdp_gpa);
    status = place_modules(image, request, max, start, err);
    if (status == 0)
        status = place_text(image, "command line", request->append, start + 24, err);
    if (status == 0)
        status = place_map(image, start, err);
    if (status == 0)
        status = loader_add_part(image, "start info", start, sizeof(start), &image->entry.rbx, err);
    return status;
}

static int pvh_load(struct boot_image *image, const struct boot_request *request, struct error *err)
{
    struct elf_info info = {.is_64bit = false};
    int status = elf_read(&request->kernel, &info, err);

    if (status)
        return status;
    if (!info.has_pvh_entry)
        return error_set(err, ENOEXEC,
                         "it is an ELF file with neither a PVH note nor a multiboot header; build "
                         "it with CONFIG_PVH=y, or give the bzImage");
    if (info.pvh_entry > UINT32_MAX)
        return error_set(err, ENOEXEC, "it is damaged: its PVH entry is above 4 GiB");
    status = elf_load(image, &request->kernel, &info, err);
    if (status == 0)
        status = place_start_info(image, request, &info, err);
    if (status == 0)
        status = loader_enter_protected(image, info.pvh_entry, err);
    return status;
}

const struct kernel_loader pvh_loader = {
    .name = "PVH ELF",
    .recognise = pvh_recognise,
    .load = pvh_load,
};
