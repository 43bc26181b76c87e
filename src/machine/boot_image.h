/*
 * boot_image.h - bytes and registers that a direct boot puts in place
 *
 * A loader turns files into an image: pieces with guest-physical addresses, and
 * the state in which the first processor enters the kernel. The image is kept as
 * long as the machine, because every reset puts it in place again; the files that it came
 * from are let go of between resets. Building one touches no machine, so loaders can be tested and
 * fuzzed alone.
 *
 * One thread at a time. Failures leave the image fit for boot_image_done only.
 */
#ifndef MACHINE_BOOT_IMAGE_H
#define MACHINE_BOOT_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/file.h"
#include "machine/pc_layout.h"
#include "trapeze/error.h"

/* Bytes at an address, then zeros; or a place that is only kept free. */
struct boot_piece {
    char name[32]; /* for messages: "kernel", "initrd" */
    uint64_t gpa;
    uint64_t size_bytes; /* all of it; at least data_bytes */
    const uint8_t *data; /* points into one of the image's blobs or files */
    size_t data_bytes;
    bool reserved; /* keep free, write nothing */
};

/* How the first processor starts. */
enum boot_mode {
    BOOT_MODE_RESET,     /* at the reset vector, as hardware does */
    BOOT_MODE_PROTECTED, /* 32-bit, flat segments, no paging */
    BOOT_MODE_LONG,      /* 64-bit, flat segments, low 4 GiB mapped one to one */
};

struct boot_entry {
    enum boot_mode mode;
    uint64_t rip;
    uint64_t rax, rbx, rsi; /* the others are 0 */
    uint64_t gdt_gpa;       /* see enum boot_gdt; not used in BOOT_MODE_RESET */
    uint64_t cr3;           /* BOOT_MODE_LONG */
    bool bios_timer;        /* IRQ 0 comes 18.2 times a second, as a PC's BIOS leaves it */
};

/* The boot GDT. The Linux boot protocol fixes code and data; task is for PVH. */
enum boot_gdt {
    BOOT_GDT_CODE = 0x10,
    BOOT_GDT_DATA = 0x18,
    BOOT_GDT_TASK = 0x20,
    BOOT_GDT_BYTES = 0x28,
};

#define BOOT_IMAGE_MAX_PIECES 160
#define BOOT_IMAGE_MAX_FILES  65 /* a kernel and its modules */

struct boot_image {
    const struct pc_layout *layout; /* borrowed */
    struct boot_entry entry;
    struct boot_piece pieces[BOOT_IMAGE_MAX_PIECES];
    size_t piece_count;
    void **blobs;
    size_t blob_count;
    size_t blob_capacity;
    struct host_file files[BOOT_IMAGE_MAX_FILES];
    size_t file_count;
    bool is_complete; /* the files' bytes are in memory */
};

/* Low memory below this belongs to the BIOS data area and to the loader's tables. */
#define BOOT_LOW_MIN 0x1000ull

void boot_image_init(struct boot_image *image, const struct pc_layout *layout);
void boot_image_done(struct boot_image *image);

/* Give a heap block to the image; it is freed with it, and at once on failure. */
int boot_image_own(struct boot_image *image, void *blob, struct error *err);

/* Read a file for the image; *out_file is part of it. */
int boot_image_read(struct boot_image *image, const char *path, uint64_t max_bytes,
                    const struct host_file **out_file, struct error *err);
/* Before pieces are put in place, and afterwards: files in memory, and let go of. */
int boot_image_complete(struct boot_image *image, struct error *err);
void boot_image_let_go(struct boot_image *image);

/*
 * Add a piece. data must be in an owned blob or a file of the image. Refused with -ENOSPC when it
 * is not all usable RAM, with -EINVAL when it overlaps an earlier piece.
 */
int boot_image_add(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                   size_t data_bytes, uint64_t size_bytes, struct error *err);
/* Keep usable RAM free without writing to it: the kernel will unpack itself there. */
int boot_image_reserve(struct boot_image *image, const char *name, uint64_t gpa,
                       uint64_t size_bytes, struct error *err);
/* Add a copy of data that may lie outside usable RAM: tables below 1 MiB, BIOS data area. */
int boot_image_add_table(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                         size_t data_bytes, struct error *err);
/* Copy size_bytes of data into a blob of the image and add it. */
int boot_image_add_copy(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                        size_t size_bytes, struct error *err);

enum boot_search { BOOT_SEARCH_UP, BOOT_SEARCH_DOWN };

/*
 * Find usable RAM of [min, max) that no piece covers: the lowest or the highest place.
 * alignment is a power of two. *out_gpa keeps its value on failure.
 */
bool boot_image_find(const struct boot_image *image, uint64_t size_bytes, uint64_t alignment,
                     uint64_t min, uint64_t max, enum boot_search search, uint64_t *out_gpa);

#endif
