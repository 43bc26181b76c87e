/*
 * internal.h - what block nodes are
 *
 * A node reads and writes by calls that may wait, from any number of threads at once. block.c makes
 * them on worker threads, and so gives devices requests that do not wait.
 *
 * Nodes stack: a format or a filter owns the nodes under it. The lowest one is a file; its length
 * is in bytes, it is read as zeros behind its end, and grows where it is written.
 */
#ifndef BACKENDS_BLOCK_INTERNAL_H
#define BACKENDS_BLOCK_INTERNAL_H

#include <stdatomic.h>

#include "backends/block/throttle.h"
#include "trapeze/block.h"
#include "trapeze/property.h"

#define BLOCK_MAX_PIECES 64u   /* of a part of a request, as nodes hand it on */
#define BLOCK_NAME_BYTES 1024u /* of a backing file or format, with the end mark */

struct ring;

/* How an image is opened. */
struct block_options {
    char *file, *format; /* properties */
    char *werror, *rerror, *fault, *aio, *cache;
    uint32_t reconnect;
    struct throttle_options throttle;
    _Atomic bool *impatient; /* set while nobody shall wait for a server; NULL: never */
    struct ring *ring;       /* for files; NULL: none */
    bool ring_writes;        /* not only reads */
    bool readonly, discard, lock, snapshot;
    bool is_direct;   /* past the host's page cache */
    bool is_volatile; /* flushes do nothing */
    bool as_it_is;    /* to be checked: it may be damaged, and is not changed by being opened */
    bool no_backing;  /* its backing file is not opened */
    bool is_nameless; /* file is the folder of one that nobody else can find */
};

struct block_node {
    const struct block_node_ops *ops;
    uint64_t size_bytes; /* whole sectors */
    bool read_only;
    bool can_discard;
    bool is_container; /* files: another format is in it */
};

/* What some bytes of a node are. */
struct block_extent {
    uint64_t size_bytes;
    bool is_zero;  /* they read as zeros */
    bool is_below; /* they are the backing image's, or nobody's */
};

/*
 * A request that goes on while its caller does something else. block.c has one for each such
 * request, and a node that has something to do at its end puts its own inside of it.
 */
struct block_later {
    /* status as execute()'s, or -EAGAIN: execute() is to do it. Machine lock held. */
    void (*end)(struct block_later *later, int status);
};

struct block_node_ops {
    const char *name; /* of the format */
    void (*close)(struct block_node *node);
    /*
     * READ, WRITE, FLUSH, DISCARD, ZERO of request; done() is not called. 0 or -errno. Checked
     * to be within the node and allowed. Any thread.
     */
    int (*execute)(struct block_node *node, const struct block_request *request);
    /*
     * READ or WRITE without waiting for the disk; -EAGAIN if that is not possible, and execute()
     * will do. Machine lock held. With later (NULL: not) also -EINPROGRESS: it has begun, and
     * later->end() will be called; of request only the memory of its pieces is needed until then.
     */
    int (*try_execute)(struct block_node *node, const struct block_request *request,
                       struct block_later *later);
    /* What is at offset, for at most size_bytes (more than 0). May say too little of is_zero. */
    int (*map)(struct block_node *node, uint64_t offset, uint64_t size_bytes,
               struct block_extent *out_extent);
    /* Files only. Nothing else may be under way in set_length. */
    int (*length)(struct block_node *node, uint64_t *out_bytes);
    int (*set_length)(struct block_node *node, uint64_t size_bytes);
};

/* The files above an image, from the one that named it as its backing file upwards. */
struct block_chain {
    const struct block_chain *above;
    const char *path; /* canonical */
    unsigned depth;
};

struct block_format {
    const char *name, *summary;
    bool is_only_read;
    bool (*probe)(const uint8_t *header, size_t size_bytes);
    /* An image in file, which is the node's from now on, also if this fails. chain begins with
     * this file. */
    struct block_node *(*open)(struct block_node *file, const struct block_options *options,
                               const struct block_chain *chain, struct error *err);
};

/* ---- open.c ---- */

extern const struct block_format *const block_formats[];              /* ends with NULL */
#define BLOCK_FORMAT_NAMES "raw, qcow2, vmdk, vhdx, vpc (VHD) or vdi" /* for texts */
const struct block_format *block_format_find(const char *name, struct error *err);
/* The format of what is in file; raw if it is no other. NULL if it cannot be read. */
const struct block_format *block_format_probe(struct block_node *file, struct error *err);
/* Open an image with all that it stands on. format NULL: found out. chain NULL: for the topmost. */
struct block_node *block_node_open(const struct block_options *options,
                                   const struct block_chain *above, struct error *err);
/* How a file is opened that an image stands on: for reading. */
struct block_options block_options_below(const struct block_options *options);
/* The path of a backing file as the image at path names it; freed by the caller. */
char *block_backing_path(const char *path, const char *backing, struct error *err);

/* ---- node.c: requests by nodes. 0 or -errno ---- */

int block_node_read(struct block_node *node, uint64_t offset, void *data, size_t size_bytes);
int block_node_write(struct block_node *node, uint64_t offset, const void *data, size_t size_bytes);
int block_node_flush(struct block_node *node);
int block_node_clear(struct block_node *node, enum block_op op, uint64_t offset,
                     uint64_t size_bytes);      /* DISCARD or ZERO */
void block_node_close(struct block_node *node); /* NULL is fine */
/*
 * request's pieces from byte skip on, for at most max_bytes and BLOCK_MAX_PIECES. Returns how many
 * pieces went to out, and their bytes.
 */
unsigned block_slice(const struct block_request *request, uint64_t skip, uint64_t max_bytes,
                     struct io_piece *out, uint64_t *out_bytes);
/* data (NULL: zeros) goes into size_bytes of request's memory, from byte skip on. */
void block_fill(const uint8_t *data, const struct block_request *request, uint64_t skip,
                uint64_t size_bytes);

/* ---- raw.c ---- */

/* A regular file or block device as a node; create: a new file, or an old one made empty. */
struct block_node *block_file_open(const struct block_options *options, bool create,
                                   struct error *err);
extern const struct block_format block_raw;
void block_file_ring_done(void *opaque, int result); /* a ring_done_fn, for the options' ring */

/* ---- uri.c, nbd.c ---- */

/* What is behind a URI that block_is_uri() knows, as a file of a length that stays. */
struct block_node *block_uri_open(const struct block_options *options, struct error *err);
struct block_node *block_nbd_open(const struct block_options *options, struct error *err);

/* ---- fault.c ---- */

/* A node with errors as text describes them. below is the new node's, also on failure. */
struct block_node *block_fault_new(struct block_node *below, const char *text, struct error *err);

/* ---- snapshot.c ---- */

/* What is written goes to a nameless file in $TMPDIR. below is the new node's, also on failure. */
struct block_node *block_snapshot_new(struct block_node *below, struct error *err);

#endif
