/*
 * transport_pci.h - a virtio device as a PCI function
 *
 * The specification, 4.1; with transitional=on the legacy interface, too. An instance begins with
 * struct virtio_pci, has the device behind it, and its class's entry points call those below.
 */
#ifndef DEVICES_VIRTIO_TRANSPORT_PCI_H
#define DEVICES_VIRTIO_TRANSPORT_PCI_H

#include "devices/virtio/virtio.h"
#include "trapeze/pci.h"

struct virtio_pci {
    struct pci_function function;

    /* Configuration. */
    struct virtio_device *virtio;
    bool transitional; /* property */

    /* Guest-visible state, beside configuration space. */
    uint32_t offered_select, accepted_select;
    uint16_t config_vector, queue_select;
    uint8_t isr; /* bit 0: a queue, bit 1: the configuration */
};

/* virtio is initialised. class_code is PCI's. */
int virtio_pci_attach(struct virtio_pci *pci, struct virtio_device *virtio, uint32_t class_code,
                      struct error *err);
/* The same without the last step, pci_attach(): BARs 0, 2 and 3 are free for more. */
int virtio_pci_describe(struct virtio_pci *pci, struct virtio_device *virtio, uint32_t class_code,
                        struct pci_function_desc *out, struct error *err);
void virtio_pci_detach(struct virtio_pci *pci);
void virtio_pci_reset(struct virtio_pci *pci); /* and the device */
int virtio_pci_after_load(struct virtio_pci *pci, struct error *err);

extern const struct virtio_transport_ops virtio_pci_transport;
extern const struct state_field virtio_pci_state[];
#define VIRTIO_PCI_PROPERTIES(st, f)                                                               \
    PCI_PROPERTIES(st, f.function),                                                                \
    {                                                                                              \
        .name = "transitional", .type = PROPERTY_TYPE_BOOL,                                        \
        .offset = offsetof(st, f.transitional),                                                    \
        .help = "has the interface of old drivers (before VIRTIO 1.0), too"                        \
    }

#endif
