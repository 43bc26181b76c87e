/*
 * table_loader.c - tables that firmware puts in place
 *
 * SeaBIOS and OVMF take ACPI tables from fw_cfg files, and a script of commands of 128 bytes from
 * "etc/table-loader": where to allocate room for a file, which fields hold addresses in
 * another one, and which are checksums.
 */
#include "machine/table_loader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/fw_cfg.h"
#include "devices/pci_host.h"
#include "devices/virtio/transport_mmio.h"
#include "machine/acpi.h"

#define TABLES_FILE   "etc/acpi/tables"
#define RSDP_FILE     "etc/acpi/rsdp" /* a copy of the first of them */

#define COMMAND_BYTES 128u
#define COMMANDS_MAX  (ACPI_FIXUPS_MAX + 2)
enum command { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum zone { ZONE_HIGH = 1, ZONE_BELOW_1MIB = 2 };

struct script {
    uint8_t commands[COMMANDS_MAX][COMMAND_BYTES];
    size_t count;
};

static uint8_t *add_command(struct script *script, enum command command, const char *file)
{
    uint8_t *c = script->commands[script->count++];

    put_le32(c, command);
    strcpy((char *)c + 4, file);
    return c + 4 + FW_CFG_NAME_SIZE;
}

static void allocate(struct script *script, const char *file, uint32_t alignment, enum zone zone)
{
    uint8_t *c = add_command(script, ALLOCATE, file);

    put_le32(c, alignment);
    c[4] = (uint8_t)zone;
}

/* The RSDP is the first of the tables, and moves alone. */
static void add_fixup(struct script *script, const struct acpi_fixup *fixup)
{
    const char *file = fixup->offset < ACPI_RSDP_BYTES ? RSDP_FILE : TABLES_FILE;
    uint8_t *c;

    if (fixup->kind == ACPI_FIXUP_POINTER) {
        c = add_command(script, ADD_POINTER, file);
        strcpy((char *)c, TABLES_FILE);
        put_le32(c + FW_CFG_NAME_SIZE, fixup->offset);
        c[FW_CFG_NAME_SIZE + 4] = (uint8_t)fixup->size_bytes;
        return;
    }
    c = add_command(script, ADD_CHECKSUM, file);
    put_le32(c, fixup->offset);
    put_le32(c + 4, fixup->start);
    put_le32(c + 8, fixup->size_bytes);
}

/* Pointers first: checksums are over fields that hold addresses by then. */
static void write_script(struct script *script, const struct acpi_fixups *fixups)
{
    allocate(script, RSDP_FILE, 16, ZONE_BELOW_1MIB);
    allocate(script, TABLES_FILE, 64, ZONE_HIGH);
    for (unsigned pass = ACPI_FIXUP_POINTER; pass <= ACPI_FIXUP_CHECKSUM; pass++)
        for (size_t n = 0; n < fixups->count; n++)
            if (fixups->items[n].kind == pass)
                add_fixup(script, &fixups->items[n]);
}

/* The loader adds to a checksum field what makes the sum 0: it has to be 0 before. */
static void clear_checksums(uint8_t *tables, const struct acpi_fixups *fixups)
{
    for (size_t n = 0; n < fixups->count; n++)
        if (fixups->items[n].kind == ACPI_FIXUP_CHECKSUM)
            tables[fixups->items[n].offset] = 0;
}

/* PCI is set up by then: the tables say where the ECAM is, and what is left for BARs. */
static void tables_selected(void *opaque)
{
    struct table_loader *loader = opaque;
    struct acpi_fixups fixups = {.count = 0};
    uint64_t ecam = pci_host_ecam(loader->pci_host);
    struct error err = {0};
    size_t size_bytes;

    if (ecam)
        loader->layout->ecam_gpa = ecam;
    loader->layout->virtio_taken = virtio_mmio_taken(loader->pci_host->machine);
    if (acpi_build(loader->layout, 0, loader->tables, loader->size_bytes, &size_bytes, &fixups,
                   &err))
        log_error("%s", err.text); /* they have one size, so this is not */
    clear_checksums(loader->tables, &fixups);
}

static const struct fw_cfg_item_ops tables_ops = {.selected = tables_selected};

int table_loader_add(struct table_loader *loader, struct device *fw_cfg, struct error *err)
{
    static uint8_t tables[ACPI_TABLES_MAX_BYTES];
    struct acpi_fixups *fixups = calloc(1, sizeof(*fixups));
    struct script *script = calloc(1, sizeof(*script));
    int status = fixups && script ? 0 : error_set(err, ENOMEM, "out of memory");

    if (!status)
        status =
            acpi_build(loader->layout, 0, tables, sizeof(tables), &loader->size_bytes, fixups, err);
    if (!status) {
        write_script(script, fixups);
        status = fw_cfg_add_file(fw_cfg, TABLES_FILE, tables, loader->size_bytes, &tables_ops,
                                 loader, &loader->tables, err);
    }
    if (!status) {
        clear_checksums(tables, fixups);
        status = fw_cfg_add_file(fw_cfg, RSDP_FILE, tables, ACPI_RSDP_BYTES, NULL, NULL, NULL, err);
    }
    if (!status)
        status = fw_cfg_add_file(fw_cfg, "etc/table-loader", script->commands,
                                 script->count * COMMAND_BYTES, NULL, NULL, NULL, err);
    free(script);
    free(fixups);
    return status;
}
