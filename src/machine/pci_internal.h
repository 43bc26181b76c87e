/*
 * pci_internal.h - what pci.c and pci_bridge.c share
 */
#ifndef MACHINE_PCI_INTERNAL_H
#define MACHINE_PCI_INTERNAL_H

#include "trapeze/pci.h"

/* ---- pci.c ---- */

/* Map and unmap what the command register, the BARs and the bridges above ask for. */
void pci_update_bars(struct pci_function *function);

/* ---- pci_bridge.c ---- */

/* The function that answers; address is bus << 8 | slot << 3 | function. NULL: none. */
struct pci_function *pci_bus_route(struct pci_bus *root, unsigned address);
/* Do the bridges above let accesses to this range through? */
bool pci_bus_forwards(const struct pci_bus *bus, bool is_io, uint64_t address, uint64_t size_bytes);
/* Do they let what comes from below through? */
bool pci_bus_is_master(const struct pci_bus *bus);
/* The root bus above, and which of its lines INTx of the function is wired to. */
struct pci_bus *pci_bus_root(struct pci_bus *bus);
unsigned pci_function_pirq(const struct pci_function *function);

int pci_bridge_check(const struct pci_function_desc *desc, struct error *err);
void pci_bridge_build(struct pci_function *function);
/* Configuration space of a bridge was written. */
void pci_bridge_written(struct pci_function *function, unsigned offset, unsigned size);

#endif
