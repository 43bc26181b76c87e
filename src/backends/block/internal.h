/*
 * internal.h - what block nodes are
 *
 * A node reads and writes by calls that may wait, from any number of threads at once. block.c makes
 * them on worker threads, and so gives devices requests that do not wait.
 */
#ifndef BACKENDS_BLOCK_INTERNAL_H
#define BACKENDS_BLOCK_INTERNAL_H

#include "trapeze/block.h"
#include "trapeze/property.h"

/* How an image is opened. */
struct block_options {
    char *file, *format; /* properties */
    bool readonly, discard, lock;
};

struct block_node {
    const struct block_node_ops *ops;
    uint64_t size_bytes; /* whole sectors */
    bool read_only;
    bool can_discard;
};

struct block_node_ops {
    const char *name; /* of the format */
    const char *summary;
    /* Open it: a new node, or NULL. */
    struct block_node *(*open)(const struct block_options *options, struct error *err);
    void (*close)(struct block_node *node);
    /*
     * READ, WRITE, FLUSH, DISCARD, ZERO of request; done() is not called. 0 or -errno. Checked
     * to be within the node and allowed. Any thread.
     */
    int (*execute)(struct block_node *node, const struct block_request *request);
    /* The same without waiting for the disk; -EAGAIN if that is not possible, and execute() will
     * do. */
    int (*try_execute)(struct block_node *node, const struct block_request *request);
};

extern const struct block_node_ops block_raw;

#endif
