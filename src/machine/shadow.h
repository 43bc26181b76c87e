/*
 * shadow.h - RAM in the place of the BIOS's ROM
 */
#ifndef MACHINE_SHADOW_H
#define MACHINE_SHADOW_H

#include "trapeze/device.h"
#include "trapeze/memory.h"

#define SHADOW_REGISTERS 7
#define SHADOW_SEGMENTS  13

/* Where nothing answers: reads are all ones, writes are lost. */
extern const struct region_ops floating_ops;

/* What stands at 768 KiB to 1 MiB: RAM with the ROM's end in front of it. Zeroed at first. */
struct shadow {
    struct region segments[SHADOW_SEGMENTS]; /* what covers either */
};

/*
 * Show what the host bridge's PAM registers say. ram is the RAM of the area, whole; dev is whose
 * region an empty segment is. Machine lock held.
 */
void shadow_update(struct shadow *shadow, struct device *dev, const struct region *ram,
                   const uint8_t pam[SHADOW_REGISTERS]);
void shadow_unmap(struct shadow *shadow, struct memory *memory);

#endif
