/*
 * data.c - the memory of a command: PRP entries and lists, and SGLs
 *
 * The specification, 4.3 and 4.4. Every entry is read once and checked. A list is followed only as
 * far as the transfer's size goes, and an SGL for as many descriptors as a request has pieces.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/nvme/nvme.h"

#define FLAGS_SGL        0xc0u
#define SGL_BYTES        16u
#define SGL_DATA         0x00u /* type and subtype: an address */
#define SGL_SEGMENT      0x20u
#define SGL_LAST_SEGMENT 0x30u

static struct memory *memory_of(struct nvme_request *r)
{
    return device_memory(&r->s->function.dev);
}

/* ---- pieces ---- */

static bool add_piece(struct nvme_request *r, char *hva, size_t size_bytes)
{
    struct io_piece *last = r->piece_count ? &r->pieces[r->piece_count - 1] : NULL;

    if (last && (char *)last->data + last->size_bytes == hva) {
        last->size_bytes += size_bytes;
        return true;
    }
    if (r->piece_count == NVME_MAX_PIECES)
        return false;
    r->pieces[r->piece_count++] = (struct io_piece){hva, size_bytes};
    return true;
}

/* What is not one piece of RAM is pinned page by page. */
static uint16_t add_range(struct nvme_request *r, uint64_t gpa, uint64_t size_bytes)
{
    while (size_bytes) {
        uint64_t part = size_bytes;
        void *hva = memory_pin(memory_of(r), gpa, part);

        if (!hva) {
            part = GUEST_PAGE_SIZE - gpa % GUEST_PAGE_SIZE;
            part = part < size_bytes ? part : size_bytes;
            hva = memory_pin(memory_of(r), gpa, part);
        }
        if (!hva)
            return NVME_TRANSFER_ERROR;
        if (!add_piece(r, hva, part))
            return NVME_TOO_MANY_SGLS;
        gpa += part;
        size_bytes -= part;
    }
    return NVME_OK;
}

/* ---- PRP ---- */

/*
 * The list at gpa, which begins anywhere in its page; the last entry of a page leads to the next
 * one if the transfer does not end there.
 */
static uint16_t add_prp_list(struct nvme_request *r, uint64_t gpa, uint64_t left)
{
    while (left) {
        unsigned entries = (unsigned)(NVME_PAGE - gpa % NVME_PAGE) / 8;
        unsigned wanted = (unsigned)((left + NVME_PAGE - 1) / NVME_PAGE);
        unsigned pages = wanted <= entries ? wanted : entries - 1;
        const uint8_t *list = memory_pin(memory_of(r), gpa, 8u * (pages + (wanted > entries)));

        if (gpa % 8)
            return NVME_PRP_OFFSET;
        if (!list)
            return NVME_TRANSFER_ERROR;
        for (unsigned n = 0; n < pages; n++) {
            uint64_t page = ram_load64(list + 8 * n);
            uint64_t part = left < NVME_PAGE ? left : NVME_PAGE;
            uint16_t status =
                page % NVME_PAGE ? (uint16_t)NVME_PRP_OFFSET : add_range(r, page, part);

            if (status)
                return status;
            left -= part;
        }
        if (!left)
            break;
        gpa = ram_load64(list + 8 * pages);
        if (gpa % NVME_PAGE)
            return NVME_PRP_OFFSET;
    }
    return NVME_OK;
}

static uint16_t map_prp(struct nvme_request *r, uint64_t size_bytes)
{
    uint64_t first = get_le64(r->command.data), second = get_le64(r->command.data + 8);
    uint64_t part = NVME_PAGE - first % NVME_PAGE;
    uint16_t status;

    if (part > size_bytes)
        part = size_bytes;
    status = add_range(r, first, part);
    size_bytes -= part;
    if (status || !size_bytes)
        return status;
    if (size_bytes > NVME_PAGE)
        return add_prp_list(r, second, size_bytes);
    return second % NVME_PAGE ? NVME_PRP_OFFSET : add_range(r, second, size_bytes);
}

/* ---- SGL ---- */

struct sgl {
    uint64_t gpa;
    uint32_t size_bytes;
    uint8_t type;
};

static struct sgl load_sgl(const uint8_t *bytes)
{
    return (struct sgl){get_le64(bytes), get_le32(bytes + 8), bytes[15]};
}

static uint16_t add_sgl_data(struct nvme_request *r, const struct sgl *d, uint64_t *left)
{
    if (d->type != SGL_DATA)
        return NVME_SGL_TYPE;
    if (d->size_bytes > *left)
        return NVME_SGL_LENGTH;
    *left -= d->size_bytes;
    return add_range(r, d->gpa, d->size_bytes);
}

/* A segment is followed by another one, which its last descriptor describes; a last one is not. */
static uint16_t map_sgl(struct nvme_request *r, uint64_t left)
{
    struct sgl d = load_sgl(r->command.data);
    unsigned descriptors = 1;
    uint16_t status;

    while (d.type == SGL_SEGMENT || d.type == SGL_LAST_SEGMENT) {
        unsigned count = d.size_bytes / SGL_BYTES;
        bool is_last = d.type == SGL_LAST_SEGMENT;
        const uint8_t *segment;

        if (!count || d.size_bytes % SGL_BYTES)
            return NVME_INVALID_SGL_SEGMENT;
        descriptors += count;
        if (descriptors > NVME_MAX_PIECES)
            return NVME_TOO_MANY_SGLS;
        segment = memory_pin(memory_of(r), d.gpa, d.size_bytes);
        if (!segment)
            return NVME_TRANSFER_ERROR;
        for (unsigned n = 0; n < count; n++) {
            uint8_t bytes[SGL_BYTES];

            ram_copy(bytes, segment + n * SGL_BYTES, sizeof(bytes));
            d = load_sgl(bytes);
            if (n == count - 1 && !is_last)
                break;
            status = add_sgl_data(r, &d, &left);
            if (status)
                return status;
        }
        if (is_last)
            return left ? NVME_SGL_LENGTH : NVME_OK;
    }
    if (descriptors > 1) /* a segment that does not lead on */
        return d.type == SGL_DATA ? NVME_INVALID_SGL_SEGMENT : NVME_SGL_TYPE;
    status = add_sgl_data(r, &d, &left);
    return !status && left ? NVME_SGL_LENGTH : status;
}

uint16_t nvme_map_data(struct nvme_request *r, uint64_t size_bytes)
{
    if (size_bytes > NVME_MAX_TRANSFER)
        return NVME_INVALID_FIELD;
    return r->command.flags & FLAGS_SGL ? map_sgl(r, size_bytes) : map_prp(r, size_bytes);
}

/* ---- copies ---- */

void nvme_copy_to_guest(struct nvme_request *r, const void *data, size_t size_bytes)
{
    const char *from = data;

    for (unsigned n = 0; n < r->piece_count && size_bytes; n++) {
        size_t part = r->pieces[n].size_bytes < size_bytes ? r->pieces[n].size_bytes : size_bytes;

        ram_copy(r->pieces[n].data, from, part);
        memory_unpin(memory_of(r), r->pieces[n].data, part);
        from += part;
        size_bytes -= part;
    }
}

void nvme_copy_from_guest(const struct nvme_request *r, void *out, size_t size_bytes)
{
    char *to = out;

    for (unsigned n = 0; n < r->piece_count && size_bytes; n++) {
        size_t part = r->pieces[n].size_bytes < size_bytes ? r->pieces[n].size_bytes : size_bytes;

        ram_copy(to, r->pieces[n].data, part);
        to += part;
        size_bytes -= part;
    }
}

bool nvme_equals_guest(const struct nvme_request *r, const uint8_t *data)
{
    for (unsigned n = 0; n < r->piece_count; n++) {
        if (!ram_equals(r->pieces[n].data, data, r->pieces[n].size_bytes))
            return false;
        data += r->pieces[n].size_bytes;
    }
    return true;
}

void nvme_mark_written(const struct nvme_request *r)
{
    struct memory *memory = device_memory(&r->s->function.dev);

    for (unsigned n = 0; n < r->piece_count; n++)
        memory_unpin(memory, r->pieces[n].data, r->pieces[n].size_bytes);
}
