/*
 * image.h - what is done to disk images while no machine runs: one function for each verb of
 * "trapeze image"
 *
 * All wait until they are done. 0 or -errno, and err says why. Format NULL: found out, or for a
 * new image qcow2.
 */
#ifndef BACKENDS_BLOCK_IMAGE_H
#define BACKENDS_BLOCK_IMAGE_H

#include "backends/block/qcow2.h"

/* Called now and then by what takes long. */
struct image_progress {
    void (*report)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);
    void *opaque;
};

/* What a new image is like. */
struct image_options {
    uint32_t cluster_size; /* properties; qcow2 */
    uint8_t version;
    char *compression;
};
extern const struct property image_properties[];

struct image_new {
    const char *file, *format;
    uint64_t size_bytes;                  /* 0: the backing file's */
    const char *backing, *backing_format; /* may be NULL */
    bool force;                           /* an image that is there is lost */
    const struct image_options *options;
};
int image_create(const struct image_new *new, struct error *err);

struct image_info {
    const char *format;
    uint64_t size_bytes, used_bytes; /* of the disk; of the host's disk */
    bool is_qcow2;
    struct qcow2_info qcow2;
    char backing[BLOCK_NAME_BYTES], backing_format[BLOCK_NAME_BYTES];
};
int image_info(const char *file, const char *format, struct image_info *out_info,
               struct error *err);

/* new->size_bytes and backing are not used. compress: qcow2 only. */
int image_convert(const char *source, const char *format, const struct image_new *new,
                  bool compress, const struct image_progress *progress, struct error *err);
int image_check(const char *file, const char *format, bool repair,
                void (*report)(void *opaque, const char *text), void *opaque,
                struct qcow2_check_result *out_result, struct error *err);
int image_resize(const char *file, const char *format, uint64_t size_bytes, struct error *err);
/* Move what is in an image into its backing file; keep: and leave it there too. */
int image_commit(const char *file, bool keep, const struct image_progress *progress,
                 struct error *err);
/* Over another backing file ("": none), with the disk unchanged; only_name: without a look at it.
 */
int image_rebase(const char *file, const char *backing, const char *backing_format, bool only_name,
                 const struct image_progress *progress, struct error *err);

#endif
