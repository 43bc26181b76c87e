/*
 * io_piece.h - memory that is read or written in pieces
 */
#ifndef TRAPEZE_IO_PIECE_H
#define TRAPEZE_IO_PIECE_H

#include <stddef.h>

/* Laid out as the host's struct iovec. */
struct io_piece {
    void *data;
    size_t size_bytes;
};

#endif
