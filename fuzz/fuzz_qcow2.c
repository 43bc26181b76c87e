/*
 * fuzz_qcow2.c - hostile qcow2 images
 *
 * What is written reads back; no table is written through, so the header stays what it was; what a
 * repair has repaired has no errors, and can be written to.
 *
 * Input: flags, number of steps, four bytes for each (kind, sector, sectors), then the file.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/unit/memory_file.h"
#include "backends/block/qcow2_internal.h"
#include "base/bytes.h"

#define MAX_FILE  (1u << 20)
#define MAX_STEPS 64u
#define BELOW     8192u

enum { FLAG_READONLY = 1, FLAG_BELOW = 2, FLAG_SMALL_CACHE = 4 };

static struct block_node *open_image(struct memory_file *file, bool readonly, bool as_it_is)
{
    static char name[] = "fuzz";
    const struct block_options options = {.file = name,
                                          .readonly = readonly,
                                          .discard = true,
                                          .as_it_is = as_it_is,
                                          .no_backing = true};
    struct error err = {0};

    return block_qcow2.open(&file->node, &options, NULL, &err);
}

static void write_and_read(struct block_node *node, uint64_t offset, size_t size, uint8_t value)
{
    uint8_t *data = malloc(size);

    memset(data, value, size);
    if (!block_node_write(node, offset, data, size)) {
        memset(data, ~value, size);
        if (!block_node_read(node, offset, data, size))
            for (size_t n = 0; n < size; n++)
                assert(data[n] == value);
    }
    free(data);
}

static void read_both_ways(struct block_node *node, uint64_t offset, size_t size)
{
    uint8_t *data = malloc(2 * size);
    struct io_piece pieces[2] = {{data, size / 2}, {data + size / 2, size - size / 2}};
    struct block_request request = {
        .op = BLOCK_READ, .offset = offset, .size_bytes = size, .pieces = pieces, .piece_count = 2};

    if (!node->ops->try_execute(node, &request, NULL) &&
        !block_node_read(node, offset, data + size, size))
        assert(memcmp(data, data + size, size) == 0);
    free(data);
}

static void step(struct block_node *node, const uint8_t *step)
{
    struct block_extent extent;
    struct error err = {0};
    uint64_t offset = get_le16(step + 1) * 512ull, left;
    size_t size = (step[3] % 32 + 1) * 512u;

    if (step[0] & 0x80 && node->size_bytes > offset) /* from the end */
        offset = node->size_bytes - 512 - offset;
    if (offset >= node->size_bytes)
        return;
    left = node->size_bytes - offset;
    if (size > left)
        size = (size_t)left;
    if (node->read_only || step[0] % 8 == 0) {
        read_both_ways(node, offset, size);
        return;
    }
    switch (step[0] % 8) {
    case 1:
        block_node_clear(node, BLOCK_DISCARD, offset, size);
        break;
    case 2:
        block_node_clear(node, BLOCK_ZERO, offset, size);
        break;
    case 3:
        block_node_flush(node);
        break;
    case 4:
        if (node->ops->map(node, offset, left, &extent) == 0)
            assert(extent.size_bytes);
        break;
    case 5:
        qcow2_resize(node, offset + 512, &err);
        break;
    default:
        write_and_read(node, offset, size, step[3]);
    }
}

static void ignore(void *opaque, const char *text)
{
}

/* Errors left; -1: it cannot be checked. */
static int64_t check(struct memory_file *file, bool repair)
{
    struct block_node *node = open_image(file, !repair, true);
    struct qcow2_check_result result;
    struct error err = {0};
    int64_t left = -1;

    if (!node)
        return -1;
    if (!qcow2_check(node, repair, ignore, NULL, &result, &err))
        left = (int64_t)(result.corruptions + result.leaks);
    block_node_close(node);
    return left;
}

static void use(struct memory_file *file, unsigned flags, const uint8_t *steps, unsigned count)
{
    struct block_node *node = open_image(file, flags & FLAG_READONLY, false);
    struct memory_file *below;

    if (!node)
        return;
    if (flags & FLAG_BELOW) {
        below = memory_new(NULL, 0, BELOW);
        memory_extend(below, BELOW);
        memset(below->data, 0x5a, BELOW);
        below->node.size_bytes = BELOW;
        qcow2_of(node)->backing = &below->node;
    }
    if (flags & FLAG_SMALL_CACHE)
        qcow2_of(node)->l2.max = qcow2_of(node)->refs.max = 1;
    for (unsigned n = 0; n < count; n++)
        step(node, steps + n * 4);
    block_node_close(node);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *silence;
    struct memory_file *file;
    unsigned count;
    uint8_t start[8];

    if (size < 2)
        return 0;
    if (!silence)
        stderr = silence = fopen("/dev/null", "w"); /* half of all images are said to be corrupt */
    count = data[1] % MAX_STEPS;
    if (2 + count * 4u + QCOW2_V2_HEADER_BYTES > size)
        return 0;
    file = memory_new(data + 2 + count * 4u, size - 2 - count * 4u, MAX_FILE);
    file->is_kept = true;
    memcpy(start, file->data, sizeof(start));
    use(file, data[0], data + 2, count);
    assert(memcmp(start, file->data, sizeof(start)) == 0);
    if (check(file, true) >= 0) {
        assert(check(file, false) == 0);
        use(file, data[0] & ~FLAG_READONLY, data + 2, count);
        assert(memcmp(start, file->data, sizeof(start)) == 0);
    }
    memory_free(file);
    return 0;
}
