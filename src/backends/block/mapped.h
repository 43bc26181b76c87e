/*
 * mapped.h - images that are only read, whose tables say where each part of the disk is
 *
 * A format fills in struct mapped and says where things are; reading, extents and checking are the
 * same for all.
 */
#ifndef BACKENDS_BLOCK_MAPPED_H
#define BACKENDS_BLOCK_MAPPED_H

#include "backends/block/internal.h"

#define MAPPED_ENTRIES 256u /* of a table, read at once */

enum mapped_kind {
    MAPPED_ZERO,
    MAPPED_FILE,
    MAPPED_BELOW,  /* in the parent image */
    MAPPED_PACKED, /* the format's read_packed() knows */
};

/* Where some bytes of a disk are. */
struct mapped_place {
    enum mapped_kind kind;
    struct block_node *file; /* FILE, PACKED */
    uint64_t file_offset;    /* FILE, PACKED: below file->size_bytes, or the image is damaged */
    uint64_t size_bytes;     /* more than 0 */
};

struct mapped {
    struct block_node node;
    struct block_node *file;
    struct block_node *below; /* the parent; NULL: none, it reads as zeros */
    uint32_t block_bytes;     /* what tables count in */
    /* What is at offset, for at most size_bytes, which may be exceeded. Any thread. */
    int (*find)(struct mapped *m, uint64_t offset, uint64_t size_bytes, struct mapped_place *out);
    /* size_bytes of the disk at offset, within place, into request's memory from byte skip on. */
    int (*read_packed)(struct mapped *m, const struct mapped_place *place, uint64_t offset,
                       const struct block_request *request, uint64_t skip, uint64_t size_bytes);
};

/* ---- for formats ---- */

/*
 * A zeroed structure of size_bytes that begins with struct mapped, with file under it. NULL on
 * failure; then file is closed.
 */
struct mapped *mapped_new(size_t size_bytes, const struct block_node_ops *ops,
                          struct block_node *file, struct error *err);
/* The node when result is 0; else it is closed, and err gets the name of the file. */
struct block_node *mapped_opened(struct mapped *m, int result, const struct block_options *options,
                                 struct error *err);

/* The ops of struct block_node, but for the name. close() frees it with what is under it. */
void mapped_close(struct block_node *node);
int mapped_execute(struct block_node *node, const struct block_request *request);
int mapped_try(struct block_node *node, const struct block_request *request,
               struct block_later *later);
int mapped_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
               struct block_extent *out_extent);

/* Is next what follows run? Then run becomes both. */
bool mapped_extend(struct mapped_place *run, const struct mapped_place *next);
/* The place of what is skip bytes into place, which has more. */
void mapped_skip(struct mapped_place *place, uint64_t skip);
/* Entries that find() reads at once: from that of offset on, up to what is asked for and
 * MAPPED_ENTRIES. */
unsigned mapped_entries(const struct mapped *m, uint64_t offset, uint64_t size_bytes);
/* As block_node_read(), with a message; what is behind the end of file is an error. */
int mapped_read(struct block_node *file, uint64_t offset, void *data, size_t size_bytes,
                struct error *err);
/* Is a table of size_bytes at offset within file? */
int mapped_check_table(struct block_node *file, uint64_t offset, uint64_t size_bytes,
                       struct error *err);

/* ---- for image.c ---- */

struct mapped_check_result {
    uint64_t blocks, allocated, errors;
};
/* NULL if node is of no such format. */
struct mapped *mapped_of(struct block_node *node);
/* Follow all tables; what is wrong goes to report. */
void mapped_check(struct mapped *m, void (*report)(void *opaque, const char *text), void *opaque,
                  struct mapped_check_result *out_result);

extern const struct block_format block_vdi, block_vhd, block_vhdx, block_vmdk;

#endif
