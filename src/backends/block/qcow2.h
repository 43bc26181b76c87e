/*
 * qcow2.h - images in QEMU's format, and what opens, makes and checks them
 *
 * docs/formats/qcow2.md says what is supported.
 */
#ifndef BACKENDS_BLOCK_QCOW2_H
#define BACKENDS_BLOCK_QCOW2_H

#include "backends/block/internal.h"

extern const struct block_format block_qcow2;

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

struct qcow2_create_options {
    uint64_t size_bytes; /* whole sectors */
    unsigned version;    /* 2 or 3 */
    uint32_t cluster_bytes;
    enum qcow2_compression compression;   /* not zlib: version 3 */
    const char *backing, *backing_format; /* may be NULL; not opened here */
};

/* Write an empty image into file, which is empty. The file stays the caller's. */
int qcow2_create(struct block_node *file, const struct qcow2_create_options *options,
                 struct error *err);

/* What an image's header says. */
struct qcow2_info {
    unsigned version, refcount_bits;
    uint32_t cluster_bytes, snapshots;
    enum qcow2_compression compression;
    bool is_dirty, is_corrupt;
    const char *backing, *backing_format; /* the node's; NULL if there is none */
};

/* NULL if node is of another format. */
const struct qcow2_info *qcow2_info(const struct block_node *node);
/* The node of the backing file, or NULL. */
struct block_node *qcow2_backing(const struct block_node *node);

/*
 * The image in file over the node below it (may be NULL). Both are the new node's, also on failure.
 * Nothing of it need survive the process: flushing does nothing.
 */
struct block_node *qcow2_open_temporary(struct block_node *file, struct block_node *below,
                                        struct error *err);

/* Nothing else may be under way on node in what follows. */

/* Write one cluster compressed at offset, where nothing is yet; data has whole clusters.
 * -ENOSPC-like errors as execute; 1: it does not become smaller and was not written. */
int qcow2_write_compressed(struct block_node *node, uint64_t offset, const uint8_t *cluster);
/* Whole sectors. Data behind the new end is dropped. */
int qcow2_resize(struct block_node *node, uint64_t size_bytes, struct error *err);
/* Name another backing file in the header, or none; the node under it stays what it was. */
int qcow2_set_backing(struct block_node *node, const char *backing, const char *backing_format,
                      struct error *err);
/* Drop all data, so that the backing image is seen through it everywhere. */
int qcow2_make_empty(struct block_node *node);

struct qcow2_check_result {
    const char *format;          /* image.c sets it */
    uint64_t corruptions, leaks; /* before any repair */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t clusters, allocated, compressed, image_end; /* of the disk; bytes of the file in use */
};

/*
 * Compare refcounts with what is used; a problem goes to report(opaque, text). repair: set them
 * right; then node can only be closed. It was opened as_it_is, and nothing was done with it. 0
 * also if there are problems; an error if it could not be checked or repaired.
 */
int qcow2_check(struct block_node *node, bool repair,
                void (*report)(void *opaque, const char *text), void *opaque,
                struct qcow2_check_result *out_result, struct error *err);

#endif
