/*
 * fuzz_vhdx.c - hostile VHDX images
 *
 * Input: flags, then the parts of a file of two MiB that say something, each put where the format
 * has it, and behind them data, which is the table of blocks too, and what it leads to. Sums are
 * made right.
 */
#include "backends/block/vhdx.h"
#include "base/bytes.h"
#include "image_fuzz.h"

#define FLAG_PARENT 1u
#define FLAG_SECOND 2u /* the second header, and the second table */

#define METADATA    (1u << 20)
#define ITEMS       (METADATA + VHDX_TABLE_BYTES)
#define BLOCKS      (2u << 20)
#define FILE_BYTES  (BLOCKS + (256u << 10))

static const struct {
    uint32_t offset, size_bytes;
} parts[] = {{VHDX_HEADERS, 80}, {VHDX_REGIONS, 112}, {METADATA, 256}, {ITEMS, 512}};

static void put_sum(uint8_t *bytes, const char *signature, size_t size)
{
    memcpy(bytes, signature, 4);
    put_le32(bytes + VHDX_AT_SUM, vhdx_sum(bytes, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_file *file;
    uint32_t second;
    uint8_t flags;

    if (!size)
        return 0;
    flags = *data++;
    size--;
    second = flags & FLAG_SECOND ? VHDX_TABLE_BYTES : 0;
    file = memory_new(NULL, 0, FUZZ_MAX_FILE);
    memory_set_length(&file->node, FILE_BYTES);
    file->node.size_bytes = FILE_BYTES;
    memcpy(file->data, "vhdxfile", 8);
    for (unsigned n = 0; n < sizeof(parts) / sizeof(parts[0]); n++) {
        size_t part = size < parts[n].size_bytes ? size : parts[n].size_bytes;

        memcpy(file->data + parts[n].offset + (n < 2 ? second : 0), data, part);
        data += part;
        size -= part;
    }
    memcpy(file->data + BLOCKS, data, size < FILE_BYTES - BLOCKS ? size : FILE_BYTES - BLOCKS);
    put_sum(file->data + VHDX_HEADERS + second, "head", VHDX_HEADER_BYTES);
    put_sum(file->data + VHDX_REGIONS + second, "regi", VHDX_TABLE_BYTES);
    fuzz_image(&block_vhdx, &file->node, !(flags & FLAG_PARENT));
    return 0;
}
