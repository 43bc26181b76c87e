/*
 * smbios.h - the SMBIOS tables of the PC board
 */
#ifndef MACHINE_SMBIOS_H
#define MACHINE_SMBIOS_H

#include <stddef.h>
#include <stdint.h>

#include "machine/pc_layout.h"
#include "trapeze/error.h"

#define SMBIOS_TABLES_MAX_BYTES  0x1000u
#define SMBIOS_ENTRY2_OFFSET     0x20u /* of the entry point of version 2.1 */
#define SMBIOS_ENTRY2_BYTES      31u
#define SMBIOS_STRUCTURES_OFFSET 0x40u

/*
 * Write both entry points (3.0 and 2.1) and the structures for an address: entry points
 * first, at base_gpa, which is a multiple of 16 in 0xf0000-0xfffff. *out_size_bytes is what is
 * used. Returns 0, or -ENOSPC when capacity_bytes is too small. Any thread.
 */
int smbios_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
                 size_t capacity_bytes, size_t *out_size_bytes, struct error *err);

#endif
