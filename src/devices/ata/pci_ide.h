/*
 * pci_ide.h - the IDE controller, for drives that are connected to it
 */
#ifndef DEVICES_ATA_PCI_IDE_H
#define DEVICES_ATA_PCI_IDE_H

#include "devices/ata/ata.h"

extern const struct device_class pci_ide_class;

struct ata_bus *pci_ide_bus(struct device *controller);

#endif
