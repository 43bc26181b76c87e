/*
 * file.h - read a whole file that the user named
 *
 * For kernels, modules and firmware. Implemented by host/linux/ now; on bare metal
 * the boot loader's modules will stand for files.
 */
#ifndef HOST_FILE_H
#define HOST_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

/*
 * Read path into a new heap block that the caller frees. Regular files only. Returns 0,
 * -errno of the system, -EISDIR and the like, or -EFBIG beyond max_bytes; err says what to do.
 * An empty file gives a block of no bytes that is not NULL. Any thread.
 */
int host_file_read(const char *path, uint64_t max_bytes, uint8_t **out_data, size_t *out_size_bytes,
                   struct error *err);

#endif
