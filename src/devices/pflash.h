/*
 * pflash.h - what the board has to tell the flash
 */
#ifndef DEVICES_PFLASH_H
#define DEVICES_PFLASH_H

#include <stddef.h>
#include <stdint.h>

#include "trapeze/device.h"

/*
 * Before attach, of a flash without a drive: its contents, which are copied (NULL: room only).
 * Whole blocks of 4 KiB, up to 16 MiB.
 */
int pflash_set_contents(struct device *dev, const uint8_t *data, size_t size_bytes,
                        struct error *err);

#endif
