/*
 * fuzz_vmdk.c - hostile VMDK images: sparse files, compressed ones, descriptors
 *
 * Input: the file.
 */
#include "image_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_image(&block_vmdk, &memory_new(data, size, FUZZ_MAX_FILE)->node, false);
    return 0;
}
