/*
 * qcow2_test.h - what the tests of qcow2 images share
 */
#ifndef TESTS_UNIT_QCOW2_TEST_H
#define TESTS_UNIT_QCOW2_TEST_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backends/block/qcow2_internal.h"

/* For qcow2_check: prints what it finds if the bool is true. */
static inline void ignore(void *opaque, const char *text)
{
    if (*(bool *)opaque)
        print_message("%s\n", text);
}

/* Execute a request; 0 or -errno. */
static inline int request(struct block_node *node, enum block_op op, uint64_t offset, uint8_t *data,
                          uint64_t size)
{
    /* two pieces, and the way without waiting first */
    size_t third = data ? size / 3 : 0;
    struct io_piece pieces[2] = {{data, third}, {data ? data + third : NULL, size - third}};
    struct block_request r = {
        .op = op, .offset = offset, .size_bytes = size, .pieces = pieces, .piece_count = 2};
    int result =
        op == BLOCK_READ || op == BLOCK_WRITE ? node->ops->try_execute(node, &r, NULL) : -EAGAIN;

    return result == -EAGAIN ? node->ops->execute(node, &r) : result;
}

#endif
