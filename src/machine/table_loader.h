/*
 * table_loader.h - tables that firmware puts in place
 */
#ifndef MACHINE_TABLE_LOADER_H
#define MACHINE_TABLE_LOADER_H

#include "machine/pc_layout.h"
#include "trapeze/device.h"
#include "trapeze/error.h"

/* Add the ACPI tables, and the script that says what to do with them, to the fw_cfg device. */
int table_loader_add(struct device *fw_cfg, const struct pc_layout *layout, struct error *err);

#endif
