/*
 * table_loader.h - tables that firmware puts in place
 */
#ifndef MACHINE_TABLE_LOADER_H
#define MACHINE_TABLE_LOADER_H

#include "machine/pc_layout.h"
#include "trapeze/device.h"
#include "trapeze/error.h"

struct table_loader {
    struct pc_layout *layout;
    struct device *pci_host; /* which knows where firmware has put the ECAM */
    uint8_t *tables;         /* fw_cfg's */
    size_t size_bytes;
};

/*
 * Add the ACPI tables, and the script that says what to do with them, to the fw_cfg device. The
 * tables are made again when firmware takes them. loader, whose layout and pci_host are set, stays
 * where it is.
 */
int table_loader_add(struct table_loader *loader, struct device *fw_cfg, struct error *err);

#endif
