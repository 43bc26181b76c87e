/*
 * snapshot.c - a disk whose changes are gone at the end: a nameless qcow2 image over the real one
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/block/internal.h"
#include "backends/block/qcow2.h"

static struct block_node *open_nameless(struct error *err)
{
    const char *folder = getenv("TMPDIR");
    struct block_options options = {.discard = true};
    char path[4096];
    struct block_node *file;
    int fd;

    snprintf(path, sizeof(path), "%s/trapeze-XXXXXX", folder && *folder ? folder : "/var/tmp");
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        error_set(err, errno, "cannot make a file in '%s' for what is written: %s",
                  folder && *folder ? folder : "/var/tmp", strerror(errno));
        return NULL;
    }
    options.file = path;
    file = block_file_open(&options, false, err);
    unlink(path);
    close(fd);
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
