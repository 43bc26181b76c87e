/*
 * acpi.h - the ACPI tables of the PC board
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "machine/pc_layout.h"
#include "trapeze/error.h"
#include "trapeze/memory.h"

/* Room for all tables with any number of vCPUs. */
#define ACPI_TABLES_MAX_BYTES 0x8000u

#define ACPI_RSDP_BYTES       36u

/* What has to be done again, in this order, when the tables are moved. */
enum acpi_fixup_kind { ACPI_FIXUP_POINTER, ACPI_FIXUP_CHECKSUM };
struct acpi_fixup {
    enum acpi_fixup_kind kind;
    uint32_t offset;     /* of the field, from the first byte of the tables */
    uint32_t start;      /* CHECKSUM: of the first byte that is summed up */
    uint32_t size_bytes; /* POINTER: of the field; CHECKSUM: how many are summed up */
};
#define ACPI_FIXUPS_MAX 64
struct acpi_fixups {
    struct acpi_fixup items[ACPI_FIXUPS_MAX];
    size_t count;
};

/*
 * Write the tables for an address: RSDP first, at base_gpa, which is a multiple of 64 and in
 * the area that a guest searches. *out_size_bytes is what is used. fixups is added to unless it is
 * NULL. Returns 0, or -ENOSPC when capacity_bytes is too small. Any thread.
 */
int acpi_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
               size_t capacity_bytes, size_t *out_size_bytes, struct acpi_fixups *fixups,
               struct error *err);

/*
 * Where the system wants to go on after suspend to RAM, as it says in the tables at base_gpa
 * (5.2.10, 16.3.1): ACPI_WAKE_REAL is at segment:offset, ACPI_WAKE_PROTECTED with flat segments of
 * 32 bits. ACPI_WAKE_NOWHERE: it did not say, or nothing that makes sense. Machine lock held.
 */
enum acpi_wake { ACPI_WAKE_NOWHERE, ACPI_WAKE_REAL, ACPI_WAKE_PROTECTED };
enum acpi_wake acpi_waking_vector(struct memory *memory, uint64_t base_gpa, uint32_t *out_gpa);

#endif
