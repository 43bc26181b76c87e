/*
 * dma.c - guest memory as a list of pieces
 */
#include "devices/dma.h"

#include <stdlib.h>

#include "base/guest_ram.h"

void io_pieces_written(const struct io_piece *pieces, unsigned count, struct memory *memory,
                       uint64_t size_bytes)
{
    for (unsigned n = 0; n < count && size_bytes; n++) {
        size_t part = pieces[n].size_bytes < size_bytes ? pieces[n].size_bytes : size_bytes;

        memory_unpin(memory, pieces[n].data, part);
        size_bytes -= part;
    }
}

static bool add_piece(struct dma_list *list, void *hva, size_t size_bytes)
{
    struct io_piece *last = list->count ? &list->pieces[list->count - 1] : NULL;

    if (last && (char *)last->data + last->size_bytes == hva) {
        last->size_bytes += size_bytes;
    } else {
        if (list->count == list->capacity) {
            unsigned capacity = list->capacity ? 2 * list->capacity : 16;
            struct io_piece *pieces = realloc(list->pieces, capacity * sizeof(*pieces));

            if (!pieces)
                return false;
            list->pieces = pieces;
            list->capacity = capacity;
        }
        list->pieces[list->count++] = (struct io_piece){hva, size_bytes};
    }
    list->size_bytes += size_bytes;
    return true;
}

/* What is not one piece of RAM is pinned page by page. */
bool dma_list_add(struct dma_list *list, struct memory *memory, uint64_t gpa, uint64_t size_bytes)
{
    uint64_t before = list->size_bytes, left = size_bytes;

    if (left > UINT64_MAX - gpa)
        return false;
    while (left) {
        uint64_t part = left;
        void *hva = memory_pin(memory, gpa, part);

        if (!hva) {
            part = GUEST_PAGE_SIZE - gpa % GUEST_PAGE_SIZE;
            part = part < left ? part : left;
            hva = memory_pin(memory, gpa, part);
        }
        if (!hva || !add_piece(list, hva, part)) {
            dma_list_cut(list, before);
            return false;
        }
        gpa += part;
        left -= part;
    }
    return true;
}

void dma_list_clear(struct dma_list *list)
{
    list->count = 0;
    list->size_bytes = 0;
}

void dma_list_free(struct dma_list *list)
{
    free(list->pieces);
    *list = (struct dma_list){0};
}

void dma_list_cut(struct dma_list *list, uint64_t size_bytes)
{
    while (list->size_bytes > size_bytes) {
        struct io_piece *last = &list->pieces[list->count - 1];
        uint64_t extra = list->size_bytes - size_bytes;

        if (extra < last->size_bytes) {
            last->size_bytes -= extra;
            list->size_bytes -= extra;
        } else {
            list->size_bytes -= last->size_bytes;
            list->count--;
        }
    }
}
