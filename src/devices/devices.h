/*
 * devices.h - the device classes of device_list.c, one a line
 *
 * For code and tests that name a class; boards look them up with device_class_find.
 */
#ifndef DEVICES_DEVICES_H
#define DEVICES_DEVICES_H

#include "trapeze/device.h"

extern const struct device_class acpi_pm_class;
extern const struct device_class ahci_class;
extern const struct device_class apic_class;
extern const struct device_class ata_cd_class;
extern const struct device_class ata_disk_class;
extern const struct device_class debug_console_class;
extern const struct device_class debug_exit_class;
extern const struct device_class e1000_class;
extern const struct device_class floppy_class;
extern const struct device_class floppy_drive_class;
extern const struct device_class ehci_class;
extern const struct device_class fw_cfg_class;
extern const struct device_class hda_class;
extern const struct device_class hpet_class;
extern const struct device_class i8042_class;
extern const struct device_class ioapic_class;
extern const struct device_class isa_dma_class;
extern const struct device_class nvme_class;
extern const struct device_class pc_testdev_class;
extern const struct device_class pci_bridge_class;
extern const struct device_class pci_host_class;
extern const struct device_class pci_ide_class;
extern const struct device_class pci_isa_class;
extern const struct device_class pcie_port_class;
extern const struct device_class pflash_class;
extern const struct device_class pic_class;
extern const struct device_class pit_class;
extern const struct device_class port92_class;
extern const struct device_class rtc_class;
extern const struct device_class uart16550_class;
extern const struct device_class uhci_class;
extern const struct device_class usb_host_class;
extern const struct device_class usb_hub_class;
extern const struct device_class usb_kbd_class;
extern const struct device_class usb_mouse_class;
extern const struct device_class usb_storage_class;
extern const struct device_class usb_tablet_class;
extern const struct device_class vga_class;
extern const struct device_class virtio_9p_class;
extern const struct device_class virtio_balloon_class;
extern const struct device_class virtio_balloon_mmio_class;
extern const struct device_class virtio_blk_class;
extern const struct device_class virtio_blk_mmio_class;
extern const struct device_class virtio_console_class;
extern const struct device_class virtio_console_mmio_class;
extern const struct device_class virtio_mmio_bus_class;
extern const struct device_class virtio_gpu_class;
extern const struct device_class virtio_gpu_mmio_class;
extern const struct device_class virtio_net_class;
extern const struct device_class virtio_net_mmio_class;
extern const struct device_class virtio_rng_class;
extern const struct device_class virtio_scsi_class;
extern const struct device_class virtio_vga_class;
extern const struct device_class virtio_vsock_class;
extern const struct device_class virtio_vsock_mmio_class;
extern const struct device_class xhci_class;

#endif
