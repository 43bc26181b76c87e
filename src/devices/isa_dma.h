/*
 * isa_dma.h - the 8237A DMA controllers as the board and ISA devices see them
 *
 * A device asks for its channel (DREQ) and is called back when the channel can move data; then it
 * moves as much as it has. Machine lock held.
 */
#ifndef DEVICES_ISA_DMA_H
#define DEVICES_ISA_DMA_H

#include <stdbool.h>
#include <stddef.h>

#include "trapeze/device.h"

#define ISA_DMA_CHANNELS 8u /* 0-3 move bytes, 5-7 words; 4 leads to the first four */

/* Ports 0x00-0x0f, 0x80-0x8f, 0xc0-0xdf. */
extern const struct device_class isa_dma_class;

/*
 * The channel can move what the device asks for: isa_dma_move() it. Called from isa_dma_request(),
 * and when the guest has set the channel up.
 */
typedef void isa_dma_ready_fn(void *opaque);

/* Before the machine starts; -EBUSY: somebody else has the channel. */
int isa_dma_connect(struct device *dma, unsigned channel, isa_dma_ready_fn *ready, void *opaque,
                    struct error *err);
/* The device on the channel asks for it, or does not any more. */
void isa_dma_request(struct device *dma, unsigned channel, bool wants);
/*
 * Move up to size_bytes between data and guest memory; returns how many were moved. 0: the channel
 * is masked. *out_end: terminal count was reached. When the guest set the channel up for the other
 * direction, or to verify, the bytes are counted and nothing moves: data is left alone.
 */
size_t isa_dma_move(struct device *dma, unsigned channel, void *data, size_t size_bytes,
                    bool to_memory, bool *out_end);

#endif
