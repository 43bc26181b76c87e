/*
 * pci_host.h - what the board has to tell the PCI host bridge
 */
#ifndef DEVICES_PCI_HOST_H
#define DEVICES_PCI_HOST_H

#include <stdint.h>

#include "trapeze/device.h"

#define PCI_HOST_PAM_BYTES 7

/* Where the ECAM window is now; 0: it is off. */
uint64_t pci_host_ecam(struct device *dev);

/* The PAM registers may have changed: which parts of the BIOS area are RAM. */
typedef void pci_host_shadow_fn(void *opaque, const uint8_t pam[PCI_HOST_PAM_BYTES]);
/* Before the first reset; machine lock held in calls. NULL: nobody is told. */
void pci_host_set_shadow(struct device *dev, pci_host_shadow_fn *fn, void *opaque);

#endif
