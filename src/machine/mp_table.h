/*
 * mp_table.h - the MultiProcessor table of the PC board, for systems that do not know ACPI
 */
#ifndef MACHINE_MP_TABLE_H
#define MACHINE_MP_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "machine/pc_layout.h"
#include "trapeze/error.h"

#define MP_TABLE_MAX_BYTES 0x800u

/*
 * Write the floating pointer and behind it the table for an address: a multiple of 16 in
 * 0xf0000-0xfffff. *out_size_bytes is what is used. Returns 0, or -ENOSPC when capacity_bytes is
 * too small. Any thread.
 */
int mp_table_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
                   size_t capacity_bytes, size_t *out_size_bytes, struct error *err);

#endif
