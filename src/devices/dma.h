/*
 * dma.h - guest memory as a list of pieces, for requests that go straight into and out of it
 *
 * RAM does not move, so pieces stay valid; what was written is said afterwards.
 */
#ifndef DEVICES_DMA_H
#define DEVICES_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/io_piece.h"
#include "trapeze/memory.h"

/* The first size_bytes of pieces were written. */
void io_pieces_written(const struct io_piece *pieces, unsigned count, struct memory *memory,
                       uint64_t size_bytes);

/* Zero-initialise; dma_list_free when done. */
struct dma_list {
    struct io_piece *pieces;
    unsigned count, capacity;
    uint64_t size_bytes; /* of all pieces */
};

/* Append guest memory. False, and nothing is appended, if it is not all RAM or the host has no
 * memory for the list. */
bool dma_list_add(struct dma_list *list, struct memory *memory, uint64_t gpa, uint64_t size_bytes);
/* No pieces; room for them is kept. */
void dma_list_clear(struct dma_list *list);
void dma_list_free(struct dma_list *list);
/* Keep the first size_bytes. */
void dma_list_cut(struct dma_list *list, uint64_t size_bytes);
#endif
