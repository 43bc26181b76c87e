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

/* The host bridge's registers SMRAM and ESMRAMC (Intel 82Q35 MCH, 5.1.32 and 5.1.33). */
#define PCI_SMRAM_OPEN     0x40u /* D_OPEN: seen outside SMM, too */
#define PCI_SMRAM_LOCK     0x10u /* D_LCK: both registers are as they are until a reset */
#define PCI_SMRAM_ENABLE   0x08u /* G_SMRAME */
#define PCI_ESMRAMC_TSEG   0x01u /* T_EN: the top of RAM below 4 GiB is for SMM */
#define PCI_ESMRAMC_CACHES 0x38u

/* They may have changed. Conditions as above. */
typedef void pci_host_smram_fn(void *opaque, uint8_t smram, uint8_t esmramc);
void pci_host_set_smram(struct device *dev, pci_host_smram_fn *fn, void *opaque);

/* The ISA bridge's SMI_LOCK may have changed (Intel ICH9, 13.8.1.1). Conditions as above. */
typedef void pci_isa_smi_lock_fn(void *opaque, bool locked);
void pci_isa_set_smi_lock(struct device *dev, pci_isa_smi_lock_fn *fn, void *opaque);

#endif
