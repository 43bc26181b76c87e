/*
 * fuzz_loaders.c - hostile kernels: no loader may read outside the file, and what
 * comes out must lie in usable RAM without overlaps
 *
 * Input: RAM in MiB (2 bytes), entry, number of modules and length of the command line (1),
 * length of a module (1), then the kernel.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/loaders.h"

#define PREFIX_BYTES 4
#define MODULES      4
#define APPEND_STEP  300 /* characters; up to 17 times */

static int is_usable(const struct pc_layout *layout, uint64_t gpa, uint64_t size_bytes)
{
    for (size_t i = 0; i < layout->e820_count; i++)
        if (layout->e820[i].type == E820_RAM && gpa >= layout->e820[i].gpa &&
            range_fits(gpa - layout->e820[i].gpa, size_bytes, layout->e820[i].size_bytes))
            return 1;
    return 0;
}

static void check(const struct boot_image *image)
{
    for (size_t i = 0; i < image->piece_count; i++) {
        const struct boot_piece *a = &image->pieces[i];

        assert(is_usable(image->layout, a->gpa, a->size_bytes));
        assert(a->data_bytes <= a->size_bytes);
        for (size_t j = 0; j < i; j++) {
            const struct boot_piece *b = &image->pieces[j];

            assert(a->gpa + a->size_bytes <= b->gpa || b->gpa + b->size_bytes <= a->gpa);
        }
    }
}

/* Every byte that would be copied into the guest can be read. */
static unsigned touch(const struct boot_image *image)
{
    unsigned sum = 0;

    for (size_t i = 0; i < image->piece_count; i++)
        for (size_t at = 0; at < image->pieces[i].data_bytes; at++)
            sum += image->pieces[i].data[at];
    return sum;
}

static const char *append(size_t length)
{
    static char text[17 * APPEND_STEP + 1];

    memset(text, 'a', length);
    text[length] = '\0';
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t module_bytes[256];
    struct boot_file modules[MODULES];
    struct boot_request request = {.modules = modules, .rsdp_gpa = PC_ACPI_GPA};
    struct pc_layout layout;
    struct boot_image image;
    struct error err = {0};
    volatile unsigned sink;

    if (size < PREFIX_BYTES)
        return 0;
    pc_layout_init(&layout, (uint64_t)(get_le16(data) % 8192 + 1) << 20, 1);
    boot_image_init(&image, &layout);
    request.entry = data[2] % 3;
    request.module_count = data[2] / 3 % (MODULES + 1);
    request.append = append(data[2] / 3u / (MODULES + 1) * APPEND_STEP);
    for (size_t i = 0; i < MODULES; i++)
        modules[i] = (struct boot_file){"module text", module_bytes, data[3]};
    request.kernel = (struct boot_file){"kernel", data + PREFIX_BYTES, size - PREFIX_BYTES};
    if (load_kernel(&image, &request, &err) == 0) {
        assert(image.entry.mode != BOOT_MODE_RESET);
        check(&image);
        sink = touch(&image);
        (void)sink;
    } else {
        assert(err.code != 0 && err.text[0]);
    }
    boot_image_done(&image);
    return 0;
}
