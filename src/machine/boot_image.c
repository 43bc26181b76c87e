/*
 * boot_image.c - bytes and registers that a direct boot puts in place
 *
 * No document: this is our own book-keeping between loaders and the board.
 */
#include "machine/boot_image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

void boot_image_init(struct boot_image *image, const struct pc_layout *layout)
{
    memset(image, 0, sizeof(*image));
    image->layout = layout;
    image->is_complete = true;
}

void boot_image_done(struct boot_image *image)
{
    for (size_t i = 0; i < image->blob_count; i++)
        free(image->blobs[i]);
    free(image->blobs);
    for (size_t i = 0; i < image->file_count; i++)
        host_file_close(&image->files[i]);
    image->file_count = 0;
    image->blobs = NULL;
    image->blob_count = 0;
    image->blob_capacity = 0;
    image->piece_count = 0;
}

int boot_image_own(struct boot_image *image, void *blob, struct error *err)
{
    if (image->blob_count == image->blob_capacity) {
        size_t capacity = image->blob_capacity ? image->blob_capacity * 2 : 16;
        void **blobs = realloc(image->blobs, capacity * sizeof(*blobs));

        if (!blobs) {
            free(blob);
            return error_set(err, ENOMEM, "no memory for the boot image");
        }
        image->blobs = blobs;
        image->blob_capacity = capacity;
    }
    image->blobs[image->blob_count++] = blob;
    return 0;
}

int boot_image_read(struct boot_image *image, const char *path, uint64_t max_bytes,
                    const struct host_file **out_file, struct error *err)
{
    struct host_file *file = &image->files[image->file_count];
    int status;

    if (image->file_count == BOOT_IMAGE_MAX_FILES)
        return error_set(err, E2BIG, "more than %d files to load", BOOT_IMAGE_MAX_FILES);
    status = host_file_open(path, max_bytes, file, err);
    if (status)
        return status;
    image->file_count++;
    *out_file = file;
    return 0;
}

int boot_image_complete(struct boot_image *image, struct error *err)
{
    for (size_t i = 0; i < image->file_count && !image->is_complete; i++) {
        int status = host_file_read_again(&image->files[i], err);

        if (status)
            return status;
    }
    image->is_complete = true;
    return 0;
}

void boot_image_let_go(struct boot_image *image)
{
    for (size_t i = 0; i < image->file_count; i++)
        host_file_let_go(&image->files[i]);
    image->is_complete = false;
}

static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

static const struct boot_piece *piece_at(const struct boot_image *image, uint64_t gpa,
                                         uint64_t size_bytes)
{
    for (size_t i = 0; i < image->piece_count; i++)
        if (overlaps(gpa, size_bytes, image->pieces[i].gpa, image->pieces[i].size_bytes))
            return &image->pieces[i];
    return NULL;
}

static bool is_usable_ram(const struct pc_layout *layout, uint64_t gpa, uint64_t size_bytes)
{
    for (size_t i = 0; i < layout->e820_count; i++) {
        const struct e820_entry *entry = &layout->e820[i];

        if (entry->type == E820_RAM && gpa >= entry->gpa &&
            range_fits(gpa - entry->gpa, size_bytes, entry->size_bytes))
            return true;
    }
    return false;
}

static int add_piece(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                     size_t data_bytes, uint64_t size_bytes, struct error *err)
{
    const struct boot_piece *other = piece_at(image, gpa, size_bytes);
    struct boot_piece *piece;

    if (other)
        return error_set(err, EINVAL,
                         "the %s at 0x%" PRIx64 "-0x%" PRIx64 " would overlap the %s at 0x%" PRIx64
                         "-0x%" PRIx64,
                         name, gpa, gpa + size_bytes - 1, other->name, other->gpa,
                         other->gpa + other->size_bytes - 1);
    if (image->piece_count == BOOT_IMAGE_MAX_PIECES)
        return error_set(err, E2BIG, "the kernel has more than %d parts to load",
                         BOOT_IMAGE_MAX_PIECES);
    piece = &image->pieces[image->piece_count++];
    snprintf(piece->name, sizeof(piece->name), "%s", name);
    piece->gpa = gpa;
    piece->size_bytes = size_bytes;
    piece->data = data;
    piece->data_bytes = data_bytes;
    return 0;
}

int boot_image_add(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                   size_t data_bytes, uint64_t size_bytes, struct error *err)
{
    if (size_bytes == 0)
        return 0;
    if (!is_usable_ram(image->layout, gpa, size_bytes))
        return error_set(err, ENOSPC,
                         "the %s needs %" PRIu64 " KiB at 0x%" PRIx64
                         ", which is not all RAM on this machine; give it more memory with -m",
                         name, (size_bytes + 1023) / 1024, gpa);
    return add_piece(image, name, gpa, data, data_bytes, size_bytes, err);
}

int boot_image_reserve(struct boot_image *image, const char *name, uint64_t gpa,
                       uint64_t size_bytes, struct error *err)
{
    int status = boot_image_add(image, name, gpa, NULL, 0, size_bytes, err);

    if (status == 0 && size_bytes)
        image->pieces[image->piece_count - 1].reserved = true;
    return status;
}

int boot_image_add_table(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                         size_t data_bytes, struct error *err)
{
    uint8_t *copy = malloc(data_bytes);
    int status;

    if (!copy)
        return error_set(err, ENOMEM, "no memory for the %s", name);
    memcpy(copy, data, data_bytes);
    status = boot_image_own(image, copy, err);
    return status ? status : add_piece(image, name, gpa, copy, data_bytes, data_bytes, err);
}

int boot_image_add_copy(struct boot_image *image, const char *name, uint64_t gpa, const void *data,
                        size_t size_bytes, struct error *err)
{
    if (!is_usable_ram(image->layout, gpa, size_bytes))
        return error_set(err, ENOSPC, "the %s at 0x%" PRIx64 " does not fit into the RAM", name,
                         gpa);
    return boot_image_add_table(image, name, gpa, data, size_bytes, err);
}

/* The lowest place in [start, end) that no piece covers. */
static bool find_up(const struct boot_image *image, uint64_t size_bytes, uint64_t alignment,
                    uint64_t start, uint64_t end, uint64_t *out_gpa)
{
    uint64_t gpa = align_up(start, alignment);
    const struct boot_piece *piece;

    while (gpa <= end && size_bytes <= end - gpa) {
        piece = piece_at(image, gpa, size_bytes);
        if (!piece) {
            *out_gpa = gpa;
            return true;
        }
        gpa = align_up(piece->gpa + piece->size_bytes, alignment);
    }
    return false;
}

/* The highest one. */
static bool find_down(const struct boot_image *image, uint64_t size_bytes, uint64_t alignment,
                      uint64_t start, uint64_t end, uint64_t *out_gpa)
{
    const struct boot_piece *piece;

    while (end >= start && size_bytes <= end - start) {
        uint64_t gpa = align_down(end - size_bytes, alignment);

        if (gpa < start)
            return false;
        piece = piece_at(image, gpa, size_bytes);
        if (!piece) {
            *out_gpa = gpa;
            return true;
        }
        end = piece->gpa;
    }
    return false;
}

bool boot_image_find(const struct boot_image *image, uint64_t size_bytes, uint64_t alignment,
                     uint64_t min, uint64_t max, enum boot_search search, uint64_t *out_gpa)
{
    const struct pc_layout *layout = image->layout;

    for (size_t n = 0; n < layout->e820_count; n++) {
        size_t i = search == BOOT_SEARCH_UP ? n : layout->e820_count - 1 - n;
        const struct e820_entry *entry = &layout->e820[i];
        uint64_t start = entry->gpa > min ? entry->gpa : min;
        uint64_t end = entry->gpa + entry->size_bytes;

        end = end < max ? end : max;
        if (entry->type != E820_RAM || start >= end)
            continue;
        if (search == BOOT_SEARCH_UP ? find_up(image, size_bytes, alignment, start, end, out_gpa)
                                     : find_down(image, size_bytes, alignment, start, end, out_gpa))
            return true;
    }
    return false;
}
