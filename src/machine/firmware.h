/*
 * firmware.h - what runs first: a ROM image, or a kernel put in place directly
 *
 * A direct start does what firmware would have done: tables below 1 MiB, memory
 * types, virtual wire mode, the kernel and its arguments. Everything is done again
 * at each reset. Main loop thread or machine lock held.
 */
#ifndef MACHINE_FIRMWARE_H
#define MACHINE_FIRMWARE_H

#include "machine/boot_image.h"
#include "machine/pc.h"
#include "machine/pc_layout.h"
#include "trapeze/error.h"
#include "trapeze/machine.h"
#include "trapeze/memory.h"

/* A ROM that ends at 4 GiB, and its last part once more below 1 MiB. Zeroed when there is none. */
struct firmware_rom {
    struct region region, low_alias;
};

/* Read and map a ROM image; undone with firmware_unmap_rom. */
int firmware_map_rom(struct firmware_rom *rom, struct memory *memory, const char *path,
                     struct error *err);
void firmware_unmap_rom(struct firmware_rom *rom, struct memory *memory);

/* Read the kernel and the initrds of config, and make the image of a direct start. */
int firmware_build_image(struct boot_image *image, const struct pc_config *config,
                         struct error *err);

/*
 * In machine_boot_fn: put the image in place and set up the processors, or stop the machine. When
 * the machine wakes, the first processor goes where the system said (see acpi_waking_vector).
 */
void firmware_start_image(struct boot_image *image, struct machine *machine);

#endif
