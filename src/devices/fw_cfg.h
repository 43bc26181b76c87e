/*
 * fw_cfg.h - what the board puts into the firmware configuration device
 *
 * Items are added after device_new and before the machine runs; contents stay until the
 * device is freed. Machine lock held, or before machine_start.
 */
#ifndef DEVICES_FW_CFG_H
#define DEVICES_FW_CFG_H

#include <stddef.h>
#include <stdint.h>

#include "trapeze/device.h"

extern const struct device_class fw_cfg_class;

/* Keys with a fixed meaning. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_DEVICE = 0x0c,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
};

#define FW_CFG_FILE_MAX  64
#define FW_CFG_NAME_SIZE 56 /* with the terminating zero */

/* Optional calls of an item's owner. */
struct fw_cfg_item_ops {
    /* The guest selected the item: contents may be brought up to date in place. May be NULL. */
    void (*selected)(void *opaque);
    /*
     * The guest wrote [offset, offset+size) by DMA; the contents have it already. NULL: the
     * item is read-only.
     */
    void (*written)(void *opaque, size_t offset, size_t size_bytes);
};

/*
 * Add an item under a fixed key below FW_CFG_FILE_FIRST, or as a file. data is copied; the copy
 * is returned through out_data (may be NULL) for items that the owner updates or the
 * guest writes; it stays where it is. ops may be NULL (read-only). -EEXIST, -EINVAL, -ENOSPC.
 */
int fw_cfg_add_item(struct device *dev, uint16_t key, const void *data, size_t size_bytes,
                    struct error *err);
int fw_cfg_add_file(struct device *dev, const char *name, const void *data, size_t size_bytes,
                    const struct fw_cfg_item_ops *ops, void *opaque, uint8_t **out_data,
                    struct error *err);
/* Little-endian numbers. */
int fw_cfg_add_u16(struct device *dev, uint16_t key, uint16_t value, struct error *err);
int fw_cfg_add_u32(struct device *dev, uint16_t key, uint32_t value, struct error *err);

#endif
