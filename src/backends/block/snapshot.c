/*
 * snapshot.c - a disk whose changes are gone at the end: a nameless qcow2 image over the real one
 */
#include <stdlib.h>

#include "backends/block/internal.h"
#include "backends/block/qcow2.h"

static struct block_node *open_nameless(struct error *err)
{
    const char *folder = getenv("TMPDIR");
    struct block_options options = {.file = folder && *folder ? (char *)folder : "/var/tmp",
                                    .discard = true,
                                    .is_nameless = true};
    struct block_node *file = block_file_open(&options, false, err);

    if (!file)
        error_prefix(err, "cannot make a file for what is written: ");
    return file;
}

struct block_node *block_snapshot_new(struct block_node *below, struct error *err)
{
    const struct qcow2_create_options options = {
        .size_bytes = below->size_bytes, .version = 3, .cluster_bytes = 64u << 10};
    struct block_node *file = open_nameless(err);

    if (file && !qcow2_create(file, &options, err))
        return qcow2_open_temporary(file, below, err);
    block_node_close(file);
    block_node_close(below);
    return NULL;
}
