/*
 * ahci.h - the AHCI controller, for drives that are connected to it
 */
#ifndef DEVICES_ATA_AHCI_H
#define DEVICES_ATA_AHCI_H

#include "devices/ata/ata.h"

extern const struct device_class ahci_class;

struct ata_bus *ahci_bus(struct device *controller);

#endif
