/*
 * pcie_port.h - what a root port offers who plugs devices in while the machine runs
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_PCIE_PORT_H
#define DEVICES_PCIE_PORT_H

#include "trapeze/device.h"

struct pci_function;

/* A root port whose slot is empty, or NULL. */
struct device *pcie_port_find_empty(struct machine *machine);
/* The port whose slot holds the function, or NULL. */
struct device *pcie_port_of(const struct pci_function *function);

/*
 * The attention button: the guest is to let go of what is in the slot. When it has switched the
 * slot's power off, ready() is called, once, with the loop's or a vCPU's stack below it: the card
 * may be taken out soon, not within the call. -EBUSY: that was asked for already; -ENXIO: no driver
 * listens.
 */
typedef void pcie_port_ready_fn(void *opaque);
int pcie_port_press_button(struct device *port, pcie_port_ready_fn *ready, void *opaque,
                           struct error *err);

#endif
