/*
 * transport.c - a virtio device that its class puts on PCI or into memory
 */
#include "devices/virtio/transport.h"

static bool is_pci(const struct device *dev)
{
    return dev->class->bus == BUS_PCI;
}

static struct virtio_pci *pci_of(struct device *dev)
{
    return container_of(dev, struct virtio_pci, function.dev);
}

static struct virtio_mmio *mmio_of(struct device *dev)
{
    return container_of(dev, struct virtio_mmio, dev);
}

const struct virtio_transport_ops *virtio_transport_of(const struct device *dev)
{
    return is_pci(dev) ? &virtio_pci_transport : &virtio_mmio_transport;
}

int virtio_transport_attach(struct device *dev, struct virtio_device *virtio, uint32_t class_code,
                            struct error *err)
{
    return is_pci(dev) ? virtio_pci_attach(pci_of(dev), virtio, class_code, err)
                       : virtio_mmio_attach(mmio_of(dev), virtio, err);
}

void virtio_transport_detach(struct device *dev)
{
    if (is_pci(dev))
        virtio_pci_detach(pci_of(dev));
    else
        virtio_mmio_detach(mmio_of(dev));
}

void virtio_transport_reset(struct device *dev)
{
    if (is_pci(dev))
        virtio_pci_reset(pci_of(dev));
    else
        virtio_mmio_reset(mmio_of(dev));
}

void virtio_transport_reset_done(struct device *dev)
{
    if (!is_pci(dev)) /* a PCI function's line is its bus's work */
        virtio_mmio_reset_done(mmio_of(dev));
}

int virtio_transport_after_load(struct device *dev, struct error *err)
{
    return is_pci(dev) ? virtio_pci_after_load(pci_of(dev), err)
                       : virtio_mmio_after_load(mmio_of(dev), err);
}
