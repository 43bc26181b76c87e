/*
 * vhdx.h - Hyper-V's images: what tests need to make them
 */
#ifndef BACKENDS_BLOCK_VHDX_H
#define BACKENDS_BLOCK_VHDX_H

#include "backends/block/internal.h"

#define VHDX_HEADERS      (64u << 10) /* two of them, each in 64 KiB */
#define VHDX_REGIONS      (192u << 10)
#define VHDX_HEADER_BYTES 4096u
#define VHDX_TABLE_BYTES  (64u << 10)
#define VHDX_AT_SUM       4u

/* CRC-32C of a header or region table, with its own four bytes at VHDX_AT_SUM as zeros. */
uint32_t vhdx_sum(const uint8_t *bytes, size_t size);

#endif
