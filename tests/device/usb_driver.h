/*
 * usb_driver.h - what drivers of all USB controllers say, for device tests and fuzzers
 */
#ifndef TESTS_DEVICE_USB_DRIVER_H
#define TESTS_DEVICE_USB_DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"

/* The 8 bytes of a SETUP packet (USB 2.0, 9.3). */
static inline uint64_t usb_driver_setup(uint8_t type, uint8_t request, uint16_t value,
                                        uint16_t index, uint16_t length)
{
    return type | (uint64_t)request << 8 | (uint64_t)value << 16 | (uint64_t)index << 32 |
           (uint64_t)length << 48;
}

/* ---- the bulk-only transport (1.0, chapter 5) ---- */

#define USB_CBW_BYTES 31u
#define USB_CSW_BYTES 13u
#define USB_CBW_TAG   0x1234u

/* The wrapper of a command that moves length bytes. */
static inline void usb_driver_put_cbw(uint8_t *cbw, const uint8_t *cdb, unsigned cdb_bytes,
                                      uint32_t length, bool is_in)
{
    memset(cbw, 0, USB_CBW_BYTES);
    put_le32(cbw, 0x43425355);
    put_le32(cbw + 4, USB_CBW_TAG);
    put_le32(cbw + 8, length);
    cbw[12] = is_in ? 0x80 : 0;
    cbw[14] = (uint8_t)cdb_bytes;
    memcpy(cbw + 15, cdb, cdb_bytes);
}

/* 0xff: it is no answer to that. */
static inline unsigned usb_driver_csw_status(const uint8_t *csw)
{
    return get_le32(csw) == 0x53425355 && get_le32(csw + 4) == USB_CBW_TAG ? csw[12] : 0xff;
}

#endif
