/*
 * edid.h - what a monitor tells of itself
 */
#ifndef DEVICES_VGA_EDID_H
#define DEVICES_VGA_EDID_H

#include <stdint.h>

#define EDID_BYTES    128u
#define EDID_MAX_SIZE 4095u /* width, height */

/* Of a monitor that likes this size best, pixels. */
void edid_build(uint8_t out[EDID_BYTES], uint32_t width, uint32_t height);

#endif
