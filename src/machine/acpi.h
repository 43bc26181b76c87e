/*
 * acpi.h - the ACPI tables of the PC board
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "machine/pc_layout.h"
#include "trapeze/error.h"

/* Room for all tables with any number of vCPUs. */
#define ACPI_TABLES_MAX_BYTES 0x8000u

/*
 * Write the tables for an address: RSDP first, at base_gpa, which is a multiple of 64 and in
 * the area that a guest searches. *out_size_bytes is what is used. Returns 0, or -ENOSPC when
 * capacity_bytes is too small. Any thread.
 */
int acpi_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
               size_t capacity_bytes, size_t *out_size_bytes, struct error *err);

#endif
