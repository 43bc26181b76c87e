/*
 * fuzz_vhd.c - hostile VHD images
 *
 * Input: the file. The sums of its footers and of the header at byte 512 are made right.
 */
#include "base/bytes.h"
#include "image_fuzz.h"

static void put_sum(struct memory_file *file, size_t offset, size_t size, size_t at_sum)
{
    uint32_t sum = 0;

    if (file->length < size || offset > file->length - size)
        return;
    put_be32(file->data + offset + at_sum, 0);
    for (size_t n = 0; n < size; n++)
        sum += file->data[offset + n];
    put_be32(file->data + offset + at_sum, ~sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_file *file = memory_new(data, size, FUZZ_MAX_FILE);

    put_sum(file, 512, 1024, 36);
    put_sum(file, 0, 512, 64);
    if (size > 2048)
        put_sum(file, size - 512, 512, 64);
    fuzz_image(&block_vhd, &file->node, false);
    return 0;
}
