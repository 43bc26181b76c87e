/*
 * pieces.h - parts and bytes of memory in pieces
 *
 * The memory may be a guest's, which changes while it is read.
 */
#ifndef BASE_PIECES_H
#define BASE_PIECES_H

#include <stdint.h>

#include "trapeze/io_piece.h"

uint64_t pieces_bytes(const struct io_piece *pieces, unsigned count);
/* Copy from byte offset on, as much as there is. Returns how many bytes. */
size_t pieces_read(const struct io_piece *pieces, unsigned count, uint64_t offset, void *out,
                   size_t size);
size_t pieces_write(const struct io_piece *pieces, unsigned count, uint64_t offset,
                    const void *data, size_t size);
/* The pieces between offset and offset + size, at most count of them. Returns how many. */
unsigned pieces_part(const struct io_piece *pieces, unsigned count, uint64_t offset, uint64_t size,
                     struct io_piece *out);

#endif
