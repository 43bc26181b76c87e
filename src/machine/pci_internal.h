/*
 * pci_internal.h - what the files of PCI share
 */
#ifndef MACHINE_PCI_INTERNAL_H
#define MACHINE_PCI_INTERNAL_H

#include "trapeze/pci.h"

#define PCI_MSIX_ENTRY_BYTES 16

/* ---- pci.c ---- */

unsigned pci_command(const struct pci_function *function);
/* Does an access of this size touch what begins at start? All in bytes. */
bool pci_touches(unsigned offset, unsigned size, unsigned start, unsigned length);
/* Append a capability to the list; returns its offset, or 0 if there is no room. */
unsigned pci_build_capability(struct pci_function *function, uint8_t id, unsigned size);

/* ---- pci_bar.c: in the order of a function's life ---- */

int pci_bars_check(const struct pci_function_desc *desc, struct error *err);
/* Make a BAR of the file of the property romfile, if there is one. */
int pci_load_rom(struct pci_function *function, struct error *err);
void pci_bars_build(struct pci_function *function);
/* The regions that update_bars maps; RAM of pci_set_bar_ram keeps its kind. */
void pci_bars_prepare(struct pci_function *function);
void pci_prepare_region(struct pci_function *function, struct region *region,
                        const struct region_ops *ops, uint64_t size_bytes, int priority);
/* Configuration space was written. */
void pci_bars_written(struct pci_function *function, unsigned offset, unsigned size);
/* Map and unmap what the command register, the BARs and the bridges above ask for. */
void pci_update_bars(struct pci_function *function);
void pci_bars_unmap(struct pci_function *function);

/* ---- pci_message.c: in the order of a function's life ---- */

int pci_messages_check(const struct pci_function_desc *desc, struct error *err);
int pci_messages_build(struct pci_function *function, struct error *err);
void pci_messages_prepare(struct pci_function *function);
void pci_messages_reset(struct pci_function *function);
/* Configuration space was written. */
void pci_messages_written(struct pci_function *function, unsigned offset, unsigned size);
/* What a stream says of the tables is made what they can hold. */
void pci_messages_loaded(struct pci_function *function);
/* Is this byte of configuration space state that only the function changes? */
bool pci_messages_own(const struct pci_function *function, unsigned offset);

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
