/*
 * file.h - read whole files that the user named
 *
 * For kernels, modules and firmware. Implemented by host/linux/ now; on bare metal
 * the boot loader's modules will stand for files.
 */
#ifndef HOST_FILE_H
#define HOST_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "trapeze/error.h"

struct stat;

/* As fstat(2), which the C library makes of a call that takes names, too: the sandbox refuses that.
 */
int host_fstat(int fd, struct stat *out);

/*
 * Read path into a new heap block that the caller frees. Regular files only. Returns 0,
 * -errno of the system, -EISDIR and the like, or -EFBIG beyond max_bytes; err says what to do.
 * An empty file gives a block of no bytes that is not NULL. Any thread.
 */
int host_file_read(const char *path, uint64_t max_bytes, uint8_t **out_data, size_t *out_size_bytes,
                   struct error *err);

/* A file whose bytes are in memory, unless they were let go of until they are needed again. */
struct host_file {
    int fd;
    uint8_t *data; /* stays where it is */
    size_t size_bytes;
    struct timespec modified;
};

/* As host_file_read. Closed with host_file_close; *file is not initialised on failure. */
int host_file_open(const char *path, uint64_t max_bytes, struct host_file *file, struct error *err);
void host_file_close(struct host_file *file);
/* The bytes at data are undefined, and cost no memory, until they are read again. */
void host_file_let_go(struct host_file *file);
/* 0, or -errno with undefined bytes: -ESTALE if somebody has changed the file since it was opened.
 */
int host_file_read_again(struct host_file *file, struct error *err);

#endif
