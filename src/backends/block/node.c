/*
 * node.c - small requests that nodes and tools make of nodes
 */
#include <string.h>

#include "backends/block/internal.h"

static int transfer(struct block_node *node, enum block_op op, uint64_t offset, void *data,
                    size_t size_bytes)
{
    const struct io_piece piece = {.data = data, .size_bytes = size_bytes};
    const struct block_request request = {
        .op = op, .offset = offset, .size_bytes = size_bytes, .pieces = &piece, .piece_count = 1};

    return size_bytes ? node->ops->execute(node, &request) : 0;
}

int block_node_read(struct block_node *node, uint64_t offset, void *data, size_t size_bytes)
{
    return transfer(node, BLOCK_READ, offset, data, size_bytes);
}

int block_node_write(struct block_node *node, uint64_t offset, const void *data, size_t size_bytes)
{
    return transfer(node, BLOCK_WRITE, offset, (void *)(uintptr_t)data, size_bytes);
}

int block_node_flush(struct block_node *node)
{
    const struct block_request request = {.op = BLOCK_FLUSH};

    return node->ops->execute(node, &request);
}

int block_node_clear(struct block_node *node, enum block_op op, uint64_t offset,
                     uint64_t size_bytes)
{
    const struct block_request request = {.op = op, .offset = offset, .size_bytes = size_bytes};

    return size_bytes ? node->ops->execute(node, &request) : 0;
}

void block_node_close(struct block_node *node)
{
    if (node)
        node->ops->close(node);
}

unsigned block_slice(const struct block_request *request, uint64_t skip, uint64_t max_bytes,
                     struct io_piece *out, uint64_t *out_bytes)
{
    unsigned count = 0;

    *out_bytes = 0;
    for (unsigned n = 0; n < request->piece_count && count < BLOCK_MAX_PIECES && max_bytes; n++) {
        uint64_t size = request->pieces[n].size_bytes;

        if (skip >= size) {
            skip -= size;
            continue;
        }
        size = size - skip < max_bytes ? size - skip : max_bytes;
        out[count++] = (struct io_piece){(char *)request->pieces[n].data + skip, size};
        *out_bytes += size;
        max_bytes -= size;
        skip = 0;
    }
    return count;
}

void block_fill(const uint8_t *data, const struct block_request *request, uint64_t skip,
                uint64_t size_bytes)
{
    for (unsigned n = 0; n < request->piece_count && size_bytes; n++) {
        uint64_t size = request->pieces[n].size_bytes;

        if (skip >= size) {
            skip -= size;
            continue;
        }
        size = size - skip < size_bytes ? size - skip : size_bytes;
        if (data) {
            memcpy((char *)request->pieces[n].data + skip, data, size);
            data += size;
        } else {
            memset((char *)request->pieces[n].data + skip, 0, size);
        }
        size_bytes -= size;
        skip = 0;
    }
}
