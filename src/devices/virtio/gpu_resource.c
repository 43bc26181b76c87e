/*
 * gpu_resource.c - pictures of a guest: memory for them, and what they are filled from
 *
 * The block of memory is given out in whole pages, the first that fit, which are zero; what is
 * given back goes to the host. A guest can have no more than the block and the table hold. A reset
 * leaves what is in the block alone: a state that is loaded next may have come with it.
 *
 * A backing is looked up in RAM each time it is read: nothing of it is kept but addresses.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/virtio/gpu.h"
#include "trapeze/memory.h"

#define ENTRY_BYTES     16u /* address, length, padding: the guest's; address, length: ours */
#define ENTRIES_AT_ONCE 64u

/* ---- pages ---- */

static uint32_t pages_of(uint64_t bytes)
{
    return (uint32_t)((bytes + GUEST_PAGE_SIZE - 1) / GUEST_PAGE_SIZE);
}

static uint8_t *page_at(const struct gpu *g, uint32_t page)
{
    return g->block + (size_t)page * GUEST_PAGE_SIZE;
}

static void empty(struct gpu *g, uint32_t first, uint32_t count)
{
    struct error err = {0};

    memory_discard(device_memory(g->virtio.dev), page_at(g, first), (size_t)count * GUEST_PAGE_SIZE,
                   &err);
}

static bool take_pages(struct gpu *g, uint32_t count, uint32_t *out_first)
{
    uint32_t at = 0;

    while (at < g->page_count && count <= g->page_count - at) {
        const uint8_t *other = memchr(g->taken + at, 1, count);

        if (!other) {
            memset(g->taken + at, 1, count);
            empty(g, at, count);
            *out_first = at;
            return true;
        }
        at = (uint32_t)(other - g->taken) + 1;
    }
    return false;
}

static void give_pages(struct gpu *g, uint32_t first, uint32_t count)
{
    memset(g->taken + first, 0, count);
    empty(g, first, count);
}

static void written(struct gpu *g, uint8_t *at, size_t size)
{
    memory_unpin(device_memory(g->virtio.dev), at, size);
}

/* ---- resources ---- */

static uint32_t pixel_pages(const struct gpu_resource *r)
{
    return pages_of((uint64_t)r->width * r->height * GPU_PIXEL_BYTES);
}

static uint32_t backing_pages(const struct gpu_resource *r)
{
    return pages_of((uint64_t)r->piece_count * ENTRY_BYTES);
}

struct gpu_resource *gpu_find(struct gpu *g, uint32_t id)
{
    for (struct gpu_resource *r = g->resources; id && r < g->resources + GPU_MAX_RESOURCES; r++)
        if (r->id == id)
            return r;
    return NULL;
}

static struct gpu_resource *find_free(struct gpu *g)
{
    for (struct gpu_resource *r = g->resources; r < g->resources + GPU_MAX_RESOURCES; r++)
        if (!r->id)
            return r;
    return NULL;
}

const uint8_t *gpu_pixels(const struct gpu *g, const struct gpu_resource *r)
{
    return page_at(g, r->first_page);
}

static bool is_possible(const struct gpu_resource *r)
{
    return gpu_knows_format(r->format) && r->width && r->height && r->width <= SCREEN_MAX_SIZE &&
           r->height <= SCREEN_MAX_SIZE;
}

uint32_t gpu_create(struct gpu *g, uint32_t id, uint32_t format, uint32_t width, uint32_t height)
{
    struct gpu_resource new = {.id = id, .format = format, .width = width, .height = height};
    struct gpu_resource *r = find_free(g);

    if (!id || gpu_find(g, id))
        return GPU_ERROR_RESOURCE;
    if (!is_possible(&new))
        return GPU_ERROR_PARAMETER;
    if (!r || !take_pages(g, pixel_pages(&new), &new.first_page))
        return GPU_ERROR_MEMORY;
    *r = new;
    return 0;
}

void gpu_destroy(struct gpu *g, struct gpu_resource *r)
{
    gpu_detach(g, r);
    give_pages(g, r->first_page, pixel_pages(r));
    *r = (struct gpu_resource){0};
}

void gpu_forget_all(struct gpu *g)
{
    memset(g->resources, 0, sizeof(g->resources));
    memset(g->taken, 0, g->page_count);
}

/* ---- backing ---- */

struct piece {
    uint64_t gpa, size_bytes;
};

static struct piece get_piece(const struct gpu *g, const struct gpu_resource *r, uint32_t n)
{
    const uint8_t *entry = page_at(g, r->backing_page) + (size_t)n * ENTRY_BYTES;

    return (struct piece){get_le64(entry), get_le64(entry + 8)};
}

static void put_piece(struct gpu *g, const struct gpu_resource *r, uint32_t n,
                      const struct piece *piece)
{
    uint8_t *entry = page_at(g, r->backing_page) + (size_t)n * ENTRY_BYTES;

    put_le64(entry, piece->gpa);
    put_le64(entry + 8, piece->size_bytes);
}

uint32_t gpu_attach(struct gpu *g, struct gpu_resource *r, const struct virtio_chain *chain,
                    uint64_t offset, uint32_t count)
{
    uint8_t entries[ENTRIES_AT_ONCE * ENTRY_BYTES];
    size_t size = sizeof(entries);

    if (r->piece_count)
        return GPU_ERROR_UNSPECIFIED;
    if (!count || count > GPU_MAX_PIECES ||
        chain->out_bytes < offset + (uint64_t)count * ENTRY_BYTES)
        return GPU_ERROR_PARAMETER;
    if (!take_pages(g, pages_of((uint64_t)count * ENTRY_BYTES), &r->backing_page))
        return GPU_ERROR_MEMORY;
    r->piece_count = count;
    for (uint32_t n = 0; n < count; n++) {
        const uint8_t *entry = entries + n % ENTRIES_AT_ONCE * ENTRY_BYTES;
        struct piece piece;

        if (n % ENTRIES_AT_ONCE == 0)
            virtio_chain_read(chain, offset + (uint64_t)n * ENTRY_BYTES, entries, size);
        piece = (struct piece){get_le64(entry), get_le32(entry + 8)};
        put_piece(g, r, n, &piece);
    }
    written(g, page_at(g, r->backing_page), (size_t)count * ENTRY_BYTES);
    return 0;
}

void gpu_detach(struct gpu *g, struct gpu_resource *r)
{
    if (r->piece_count)
        give_pages(g, r->backing_page, backing_pages(r));
    r->piece_count = 0;
}

/* ---- filling ---- */

/* A way through a backing, forward only. */
struct reader {
    struct gpu *g;
    const struct gpu_resource *r;
    uint32_t n;
    uint64_t start; /* byte of the backing where piece n begins */
};

/* A part of RAM that begins there, of size at most. NULL: it is not RAM. */
static const uint8_t *find_ram(struct gpu *g, uint64_t gpa, uint64_t *size)
{
    struct memory *memory = device_memory(g->virtio.dev);
    const uint8_t *ram = memory_pin(memory, gpa, *size);
    uint64_t in_page = GUEST_PAGE_SIZE - gpa % GUEST_PAGE_SIZE;

    if (ram)
        return ram;
    *size = *size < in_page ? *size : in_page;
    return memory_pin(memory, gpa, *size);
}

/* Bytes behind the end of the backing stay as they are. False: a piece is not RAM. */
static bool copy(struct reader *reader, uint64_t offset, uint8_t *to, uint64_t size)
{
    while (size && reader->n < reader->r->piece_count) {
        struct piece piece = get_piece(reader->g, reader->r, reader->n);
        uint64_t at = offset - reader->start, part;
        const uint8_t *ram;

        if (at >= piece.size_bytes) {
            reader->start += piece.size_bytes;
            reader->n++;
            continue;
        }
        part = piece.size_bytes - at < size ? piece.size_bytes - at : size;
        ram = checked_add(piece.gpa, at, &piece.gpa) ? find_ram(reader->g, piece.gpa, &part) : NULL;
        if (!ram)
            return false;
        ram_copy(to, ram, part);
        to += part;
        offset += part;
        size -= part;
    }
    return true;
}

bool gpu_contains(const struct gpu_resource *r, const struct gpu_area *area)
{
    return area->width && area->height && range_fits(area->x, area->width, r->width) &&
           range_fits(area->y, area->height, r->height);
}

uint32_t gpu_fill(struct gpu *g, struct gpu_resource *r, const struct gpu_area *area,
                  uint64_t offset)
{
    size_t stride = (size_t)r->width * GPU_PIXEL_BYTES;
    size_t row = (size_t)area->width * GPU_PIXEL_BYTES, rows = area->height;
    uint8_t *to = page_at(g, r->first_page) + area->y * stride + (size_t)area->x * GPU_PIXEL_BYTES;
    size_t span = (rows - 1) * stride + row;
    struct reader reader = {g, r, 0, 0};
    uint64_t end;
    bool is_ram = true;

    if (!r->piece_count)
        return GPU_ERROR_UNSPECIFIED;
    if (!checked_add(offset, span, &end))
        return GPU_ERROR_PARAMETER;
    if (row == stride) { /* whole rows follow each other */
        row = span;
        rows = 1;
    }
    for (size_t n = 0; n < rows && is_ram; n++)
        is_ram = copy(&reader, offset + n * stride, to + n * stride, row);
    written(g, to, span);
    g->copied_bytes += span;
    return is_ram ? 0 : GPU_ERROR_PARAMETER;
}

/* ---- states ---- */

static bool claim(struct gpu *g, uint32_t first, uint32_t count)
{
    if (!range_fits(first, count, g->page_count) || memchr(g->taken + first, 1, count))
        return false;
    memset(g->taken + first, 1, count);
    return true;
}

int gpu_check_resources(struct gpu *g, struct error *err)
{
    memset(g->taken, 0, g->page_count);
    for (struct gpu_resource *r = g->resources; r < g->resources + GPU_MAX_RESOURCES; r++)
        if (r->id && (gpu_find(g, r->id) != r || !is_possible(r) ||
                      !claim(g, r->first_page, pixel_pages(r)) ||
                      !claim(g, r->backing_page, backing_pages(r))))
            return error_set(err, EINVAL, "%s: resource %u cannot be as it is saved",
                             g->virtio.dev->id, r->id);
    return 0;
}
