/*
 * load_kernel.c - choose the loader for a kernel; parts that all loaders need
 *
 * Descriptors and page tables after SDM vol. 3, 3.4.5 and 4.5.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/loaders.h"

#define PAGE_BYTES           4096u
#define LARGE_PAGE_BYTES     0x200000ull
#define IDENTITY_DIRECTORIES 4 /* 1 GiB each */
#define LOW_PARTS_END        0x90000ull
#define FOUR_GIB             0x100000000ull

static const struct kernel_loader *const loaders[] = {
    &linux_loader,
    &multiboot_loader,
    &pvh_loader,
};

/* Files that people give by mistake, and what to do about each. */
struct lookalike {
    size_t offset, length;
    const char *magic;
    const char *advice;
};

static const struct lookalike lookalikes[] = {
    {0, 2, "\x1f\x8b", "it is compressed with gzip; unpack it first"},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     "it is compressed with xz; unpack it first"},
    {0, 4, "\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it first"},
    {0, 4, "\x02\x21\x4c\x18", "it is compressed with lz4; unpack it first"},
    {0, 6, "070701", "it is a cpio archive; initramfs files go to --initrd"},
    {56, 4, "ARM\x64", "it is a Linux kernel for 64-bit Arm, and this machine is an x86 PC"},
    {257, 5, "ustar", "it is a tar archive"},
    {32769, 5, "CD001", "it is a CD image"},
};

static const char *advice_for(const struct boot_file *kernel)
{
    for (size_t i = 0; i < sizeof(lookalikes) / sizeof(lookalikes[0]); i++) {
        const struct lookalike *like = &lookalikes[i];

        if (range_fits(like->offset, like->length, kernel->size_bytes) &&
            memcmp(kernel->data + like->offset, like->magic, like->length) == 0)
            return like->advice;
    }
    if (kernel->size_bytes < 0x268)
        return "it is too short to be a kernel";
    return "it is no kernel that is known here: give a Linux bzImage, an ELF file with a PVH "
           "note, or a multiboot 1 kernel";
}

int load_kernel(struct boot_image *image, const struct boot_request *request, struct error *err)
{
    for (size_t i = 0; i < sizeof(loaders) / sizeof(loaders[0]); i++)
        if (loaders[i]->recognise(&request->kernel))
            return loaders[i]->load(image, request, err);
    return error_set(err, ENOEXEC, "%s", advice_for(&request->kernel));
}

int loader_add_part(struct boot_image *image, const char *name, const void *data, size_t size_bytes,
                    uint64_t *out_gpa, struct error *err)
{
    uint64_t alignment = size_bytes >= PAGE_BYTES ? PAGE_BYTES : 16;
    uint64_t gpa;
    int status;

    if (!boot_image_find(image, size_bytes, alignment, BOOT_LOW_MIN, LOW_PARTS_END, BOOT_SEARCH_UP,
                         &gpa) &&
        !boot_image_find(image, size_bytes, alignment, BOOT_LOW_MIN, FOUR_GIB, BOOT_SEARCH_UP,
                         &gpa))
        return error_set(err, ENOSPC,
                         "there is no room for the %s beside the kernel; give the machine more "
                         "memory with -m",
                         name);
    status = boot_image_add_copy(image, name, gpa, data, size_bytes, err);
    if (status == 0)
        *out_gpa = gpa;
    return status;
}

/* Flat segments of 4 GiB, accessed already; code is 32-bit or 64-bit. */
static int add_gdt(struct boot_image *image, bool long_mode, struct error *err)
{
    uint8_t gdt[BOOT_GDT_BYTES] = {0};

    put_le64(gdt + BOOT_GDT_CODE, long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
    put_le64(gdt + BOOT_GDT_DATA, 0x00cf93000000ffffull);
    put_le64(gdt + BOOT_GDT_TASK, 0x00008b0000000067ull);
    return loader_add_part(image, "boot GDT", gdt, sizeof(gdt), &image->entry.gdt_gpa, err);
}

/* The low 4 GiB one to one in 2 MiB pages: one PML4, one PDPT, four page directories. */
static int add_page_tables(struct boot_image *image, struct error *err)
{
    static const uint64_t present_writable = 3, large = 0x80;
    uint8_t tables[(2 + IDENTITY_DIRECTORIES) * PAGE_BYTES] = {0};
    uint64_t gpa;

    if (!boot_image_find(image, sizeof(tables), PAGE_BYTES, BOOT_LOW_MIN, FOUR_GIB, BOOT_SEARCH_UP,
                         &gpa))
        return error_set(err, ENOSPC, "there is no room for the boot page tables");
    put_le64(tables, (gpa + PAGE_BYTES) | present_writable);
    for (unsigned i = 0; i < IDENTITY_DIRECTORIES; i++)
        put_le64(tables + PAGE_BYTES + i * 8, (gpa + (2 + i) * PAGE_BYTES) | present_writable);
    for (unsigned i = 0; i < IDENTITY_DIRECTORIES * 512; i++)
        put_le64(tables + 2 * PAGE_BYTES + i * 8,
                 (i * LARGE_PAGE_BYTES) | present_writable | large);
    image->entry.cr3 = gpa;
    return boot_image_add_copy(image, "boot page tables", gpa, tables, sizeof(tables), err);
}

int loader_enter_protected(struct boot_image *image, uint64_t rip, struct error *err)
{
    image->entry.mode = BOOT_MODE_PROTECTED;
    image->entry.rip = rip;
    return add_gdt(image, false, err);
}

int loader_enter_long(struct boot_image *image, uint64_t rip, struct error *err)
{
    int status;

    image->entry.mode = BOOT_MODE_LONG;
    image->entry.rip = rip;
    status = add_gdt(image, true, err);
    return status ? status : add_page_tables(image, err);
}
