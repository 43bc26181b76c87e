/*
 * file.c - read a whole file that the user named
 */
#include "host/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(int fd, uint8_t *data, size_t size_bytes, struct error *err)
{
    size_t done = 0;

    while (done < size_bytes) {
        ssize_t got = read(fd, data + done, size_bytes - done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, errno, "cannot read: %s", strerror(errno));
        if (got == 0)
            return error_set(err, EIO, "it became shorter while it was read; try again");
        done += (size_t)got;
    }
    return 0;
}

static int read_open(int fd, uint64_t max_bytes, uint8_t **out_data, size_t *out_size_bytes,
                     struct error *err)
{
    struct stat st;
    uint8_t *data;
    int status;

    if (fstat(fd, &st) != 0)
        return error_set(err, errno, "cannot read: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "it is not a regular file");
    if ((uint64_t)st.st_size > max_bytes)
        return error_set(err, EFBIG,
                         "it is %" PRIu64 " bytes long and may have %" PRIu64 " at most",
                         (uint64_t)st.st_size, max_bytes);
    data = malloc(st.st_size ? (size_t)st.st_size : 1);
    if (!data)
        return error_set(err, ENOMEM, "no memory for its %" PRIu64 " bytes", (uint64_t)st.st_size);
    status = read_all(fd, data, (size_t)st.st_size, err);
    if (status) {
        free(data);
        return status;
    }
    *out_data = data;
    *out_size_bytes = (size_t)st.st_size;
    return 0;
}

int host_file_read(const char *path, uint64_t max_bytes, uint8_t **out_data, size_t *out_size_bytes,
                   struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int status;

    if (fd < 0)
        return error_set(err, errno, "cannot open: %s", strerror(errno));
    status = read_open(fd, max_bytes, out_data, out_size_bytes, err);
    close(fd);
    return status;
}
