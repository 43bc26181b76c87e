/*
 * pieces.c - parts and bytes of memory in pieces
 */
#include "base/pieces.h"

#include "base/guest_ram.h"

uint64_t pieces_bytes(const struct io_piece *pieces, unsigned count)
{
    uint64_t bytes = 0;

    for (unsigned n = 0; n < count; n++)
        bytes += pieces[n].size_bytes;
    return bytes;
}

static size_t copy(const struct io_piece *pieces, unsigned count, uint64_t offset, uint8_t *bytes,
                   size_t size, bool to_pieces)
{
    size_t done = 0;

    for (unsigned n = 0; n < count && done < size; n++) {
        size_t part = pieces[n].size_bytes;
        uint8_t *ram = pieces[n].data;

        if (offset >= part) {
            offset -= part;
            continue;
        }
        ram += offset;
        part -= offset;
        part = part < size - done ? part : size - done;
        if (to_pieces)
            ram_copy(ram, bytes + done, part);
        else
            ram_copy(bytes + done, ram, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t pieces_read(const struct io_piece *pieces, unsigned count, uint64_t offset, void *out,
                   size_t size)
{
    return copy(pieces, count, offset, out, size, false);
}

size_t pieces_write(const struct io_piece *pieces, unsigned count, uint64_t offset,
                    const void *data, size_t size)
{
    return copy(pieces, count, offset, (uint8_t *)data, size, true);
}

unsigned pieces_part(const struct io_piece *pieces, unsigned count, uint64_t offset, uint64_t size,
                     struct io_piece *out)
{
    unsigned chosen = 0;

    for (unsigned n = 0; n < count && size; n++) {
        uint64_t part = pieces[n].size_bytes;

        if (offset >= part) {
            offset -= part;
            continue;
        }
        part = part - offset < size ? part - offset : size;
        out[chosen++] = (struct io_piece){(char *)pieces[n].data + offset, part};
        size -= part;
        offset = 0;
    }
    return chosen;
}
