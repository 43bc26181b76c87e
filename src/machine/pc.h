/*
 * pc.h - the PC board: what the command line needs to know of it
 *
 * pc_build() puts RAM, ROM, interrupt controllers, timers, ports and the PCI host
 * into an empty machine, reads the kernel or firmware from the host, and makes
 * every reset put that in place again. Main loop thread, before machine_start.
 */
#ifndef MACHINE_PC_H
#define MACHINE_PC_H

#include <stddef.h>

#include "trapeze/chardev.h"
#include "trapeze/error.h"
#include "trapeze/machine.h"

#define PC_SERIAL_COUNT 2

/* How a Linux bzImage is entered; other formats have one way only. */
enum pc_entry {
    PC_ENTRY_AUTO, /* 64-bit where the kernel offers it, else 32-bit */
    PC_ENTRY_32,
    PC_ENTRY_64,
};

/*
 * All pointers are borrowed: strings and lists for the call, chardevs as long as
 * the machine lives. Zero or NULL means "not there" everywhere.
 */
struct pc_config {
    struct chardev *serial[PC_SERIAL_COUNT]; /* COM1, COM2 */
    struct chardev *debug_console;           /* ports 0xe9 and 0x402 */
    struct audio *audio;                     /* the speaker */

    /*
     * Path of a kernel; the format is recognised: Linux bzImage, ELF with a PVH note,
     * ELF or flat file with a multiboot 1 header. NULL: firmware, or nothing to run.
     */
    const char *kernel;
    enum pc_entry kernel_entry;
    const char *append; /* kernel command line */
    /*
     * Linux: files that are put one behind the other. Multiboot and PVH: modules, each
     * "PATH" or "PATH ARGUMENTS" (what follows the first space goes to the module).
     */
    const char *const *initrds;
    size_t initrd_count;

    const char *firmware; /* path of a ROM image: whole 4 KiB pages, up to 16 MiB */
    /* UEFI's variables, in a flash below the ROM: kept on a drive, or the contents of a file. */
    struct block *variables;
    const char *variables_file;
    /* System Management Mode; then only it writes to the variables. */
    bool smm;
    bool has_vga;    /* a VGA will be added */
    bool has_floppy; /* a floppy controller is there, for drives that will be added */

    /* What SMBIOS says: 16 bytes as they are written, and up to 63 characters. */
    const uint8_t *uuid;
    const char *serial_number;
};

/*
 * Build the board. Returns 0 or -errno: -ENOENT and the like for files, -ENOEXEC for a kernel
 * that is not one or is cut short, -ENOSPC for one that does not fit into the RAM. After a
 * failure the machine can only be freed.
 */
int pc_build(struct machine *machine, const struct pc_config *config, struct error *err);

/*
 * Wire a device that was added to a finished board: its outputs "isa", if it has any, become ISA
 * interrupt lines 0, 1, 2, ..., and its outputs "ide" the lines 14 and 15. What a floppy drive is
 * for is noted in CMOS. Before machine_start.
 */
void pc_wire_added(struct machine *machine, struct device *dev);

/*
 * Tell firmware in which order to look for a system: the devices with a boot_index, lowest first.
 * Once, before machine_start.
 */
int pc_set_boot_order(struct machine *machine, struct error *err);

/*
 * As if somebody pressed the power or the sleep button for a moment; the guest decides. A guest
 * that sleeps wakes. Machine lock held.
 */
void pc_press_power_button(struct machine *machine);
void pc_press_sleep_button(struct machine *machine);

/* Is the guest suspended to RAM? pc_wake wakes it. Machine lock held. */
bool pc_is_asleep(struct machine *machine);
void pc_wake(struct machine *machine);

#endif
