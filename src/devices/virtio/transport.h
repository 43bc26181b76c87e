/*
 * transport.h - a virtio device that its class puts on PCI or into memory
 *
 * Such a device has two classes, one of BUS_PCI and one of BUS_PLATFORM. Its instance begins with
 * VIRTIO_TRANSPORT, of which the class says what counts. Entry points of both classes call those
 * below.
 */
#ifndef DEVICES_VIRTIO_TRANSPORT_H
#define DEVICES_VIRTIO_TRANSPORT_H

#include "devices/virtio/transport_mmio.h"
#include "devices/virtio/transport_pci.h"

#define VIRTIO_TRANSPORT                                                                           \
    union {                                                                                        \
        struct device dev;                                                                         \
        struct virtio_pci pci;                                                                     \
        struct virtio_mmio mmio;                                                                   \
    }

/* The tables of both classes, NAME_properties and NAME_mmio_properties, NAME_state and
 * NAME_mmio_state, of what they have in common, each with its end. */
#define VIRTIO_TABLES(name, st, common_properties, common_state)                                   \
    static const struct property name##_properties[] = {VIRTIO_PCI_PROPERTIES(st, pci),            \
                                                        common_properties};                        \
    static const struct property name##_mmio_properties[] = {common_properties};                   \
    static const struct state_field name##_state[] = {STATE_STRUCT(st, pci, virtio_pci_state),     \
                                                      common_state};                               \
    static const struct state_field name##_mmio_state[] = {                                        \
        STATE_STRUCT(st, mmio, virtio_mmio_state), common_state}

/* For virtio->transport. */
const struct virtio_transport_ops *virtio_transport_of(const struct device *dev);
/* virtio is initialised. class_code is PCI's. */
int virtio_transport_attach(struct device *dev, struct virtio_device *virtio, uint32_t class_code,
                            struct error *err);
void virtio_transport_detach(struct device *dev);
/* The steps of a reset; the first resets the device, too. */
void virtio_transport_reset(struct device *dev);
void virtio_transport_reset_done(struct device *dev);
int virtio_transport_after_load(struct device *dev, struct error *err);

#endif
