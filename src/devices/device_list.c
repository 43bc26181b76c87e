/*
 * device_list.c - the table of device classes, in alphabetical order
 */
#include <string.h>

#include "devices/devices.h"

const struct device_class *const device_classes[] = {
    &acpi_pm_class,
    &ahci_class,
    &apic_class,
    &ata_cd_class,
    &ata_disk_class,
    &debug_console_class,
    &debug_exit_class,
    &e1000_class,
    &ehci_class,
    &floppy_class,
    &floppy_drive_class,
    &fw_cfg_class,
    &hda_class,
    &hpet_class,
    &i8042_class,
    &ioapic_class,
    &isa_dma_class,
    &nvme_class,
    &pc_testdev_class,
    &pci_bridge_class,
    &pci_host_class,
    &pci_ide_class,
    &pci_isa_class,
    &pcie_port_class,
    &pflash_class,
    &pic_class,
    &pit_class,
    &port92_class,
    &rtc_class,
    &uart16550_class,
    &uhci_class,
    &usb_host_class,
    &usb_hub_class,
    &usb_kbd_class,
    &usb_mouse_class,
    &usb_storage_class,
    &usb_tablet_class,
    &vga_class,
    &virtio_9p_class,
    &virtio_balloon_class,
    &virtio_balloon_mmio_class,
    &virtio_blk_class,
    &virtio_blk_mmio_class,
    &virtio_console_class,
    &virtio_console_mmio_class,
    &virtio_mmio_bus_class,
    &virtio_gpu_class,
    &virtio_gpu_mmio_class,
    &virtio_net_class,
    &virtio_net_mmio_class,
    &virtio_rng_class,
    &virtio_scsi_class,
    &virtio_vga_class,
    &virtio_vsock_class,
    &virtio_vsock_mmio_class,
    &xhci_class,
    NULL,
};

const struct device_class *device_class_find(const char *name)
{
    for (size_t i = 0; device_classes[i]; i++) {
        if (!strcmp(device_classes[i]->name, name))
            return device_classes[i];
    }
    return NULL;
}
