/*
 * loaders.h - kernel formats: recognise a file, turn it into a boot image
 *
 * Files are hostile: every offset and length in them is checked before use. A
 * loader reads the kernel from memory and touches neither host nor machine, except that
 * module files are read by load_kernel's caller.
 */
#ifndef MACHINE_LOADERS_H
#define MACHINE_LOADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine/boot_image.h"
#include "machine/pc.h"
#include "trapeze/error.h"

/* The bytes of a file and how it was named. */
struct boot_file {
    const char *name; /* as given, with arguments for a module */
    const uint8_t *data;
    size_t size_bytes;
};

/* What is to be booted. Everything is borrowed; data must be in blobs of the image. */
struct boot_request {
    struct boot_file kernel;
    const struct boot_file *modules;
    size_t module_count;
    const char *append; /* never NULL */
    enum pc_entry entry;
    uint64_t rsdp_gpa; /* 0: no ACPI tables */
};

struct kernel_loader {
    const char *name; /* "Linux bzImage" */
    /* Cheap and certain enough that load() may complain about what is wrong. */
    bool (*recognise)(const struct boot_file *kernel);
    int (*load)(struct boot_image *image, const struct boot_request *request, struct error *err);
};

extern const struct kernel_loader linux_loader;
extern const struct kernel_loader multiboot_loader;
extern const struct kernel_loader pvh_loader;

/*
 * Find the loader for the kernel and build the image. -ENOEXEC: no format that is known here, cut
 * short, or damaged; -ENOSPC: does not fit into the RAM; -EINVAL: options that do not go together.
 */
int load_kernel(struct boot_image *image, const struct boot_request *request, struct error *err);

/* ---- shared by the loaders ---- */

/*
 * Add a copy of a small part that has no fixed place, preferably below 640 KiB, in any case below
 * 4 GiB. *out_gpa keeps its value on failure.
 */
int loader_add_part(struct boot_image *image, const char *name, const void *data, size_t size_bytes,
                    uint64_t *out_gpa, struct error *err);

/* Enter at rip in 32-bit protected mode, or in 64-bit mode: adds the boot GDT and page tables. */
int loader_enter_protected(struct boot_image *image, uint64_t rip, struct error *err);
int loader_enter_long(struct boot_image *image, uint64_t rip, struct error *err);

/* ELF, 32 or 64 bits, little-endian x86. */
struct elf_info {
    bool is_64bit;
    uint64_t entry;     /* physical only if the kernel says so */
    uint64_t end_gpa;   /* behind the last byte loaded */
    bool has_pvh_entry; /* XEN_ELFNOTE_PHYS32_ENTRY */
    uint64_t pvh_entry;
};
bool elf_recognise(const struct boot_file *file);
/* Headers, notes; nothing is loaded. */
int elf_read(const struct boot_file *file, struct elf_info *out_info, struct error *err);
/* Add its segments at their physical addresses. */
int elf_load(struct boot_image *image, const struct boot_file *file, struct elf_info *out_info,
             struct error *err);

#endif
