/*
 * file.c - read whole files that the user named
 */
#include "host/file.h"
#include "host/given.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int read_all(int fd, uint8_t *data, size_t size_bytes, struct error *err)
{
    size_t done = 0;

    while (done < size_bytes) {
        ssize_t got = pread(fd, data + done, size_bytes - done, (off_t)done);

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

int host_fstat(int fd, struct stat *out)
{
    return (int)syscall(SYS_fstat, fd, out);
}

/* The file of path, if it may be read: its descriptor. */
static int open_regular(const char *path, uint64_t max_bytes, struct stat *st, struct error *err)
{
    int fd = host_open(path, O_RDONLY | O_NONBLOCK, 0);
    int status;

    if (fd < 0)
        return error_set(err, errno, "cannot open: %s", strerror(errno));
    if (host_fstat(fd, st) != 0)
        status = error_set(err, errno, "cannot read: %s", strerror(errno));
    else if (!S_ISREG(st->st_mode))
        status = error_set(err, EINVAL, "it is not a regular file");
    else if ((uint64_t)st->st_size > max_bytes)
        status =
            error_set(err, EFBIG, "it is %" PRIu64 " bytes long and may have %" PRIu64 " at most",
                      (uint64_t)st->st_size, max_bytes);
    else
        return fd;
    close(fd);
    return status;
}

static int no_memory(uint64_t size_bytes, struct error *err)
{
    return error_set(err, ENOMEM, "no memory for its %" PRIu64 " bytes", size_bytes);
}

int host_file_read(const char *path, uint64_t max_bytes, uint8_t **out_data, size_t *out_size_bytes,
                   struct error *err)
{
    struct stat st;
    int fd = open_regular(path, max_bytes, &st, err), status;
    uint8_t *data;

    if (fd < 0)
        return fd;
    data = malloc(st.st_size ? (size_t)st.st_size : 1);
    status =
        data ? read_all(fd, data, (size_t)st.st_size, err) : no_memory((uint64_t)st.st_size, err);
    close(fd);
    if (status) {
        free(data);
        return status;
    }
    *out_data = data;
    *out_size_bytes = (size_t)st.st_size;
    return 0;
}

/* ---- files that are let go of and read again ---- */

/* mmap() maps no 0 bytes. */
static size_t mapped_bytes(const struct host_file *file)
{
    return file->size_bytes ? file->size_bytes : 1;
}

int host_file_open(const char *path, uint64_t max_bytes, struct host_file *file, struct error *err)
{
    struct stat st;
    int fd = open_regular(path, max_bytes, &st, err), status;

    if (fd < 0)
        return fd;
    *file = (struct host_file){.fd = fd, .size_bytes = (size_t)st.st_size, .modified = st.st_mtim};
    file->data = mmap(NULL, mapped_bytes(file), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (file->data == MAP_FAILED) {
        close(fd);
        return no_memory((uint64_t)st.st_size, err);
    }
    status = read_all(fd, file->data, file->size_bytes, err);
    if (status)
        host_file_close(file);
    return status;
}

void host_file_close(struct host_file *file)
{
    munmap(file->data, mapped_bytes(file));
    close(file->fd);
}

void host_file_let_go(struct host_file *file)
{
    madvise(file->data, mapped_bytes(file), MADV_DONTNEED);
}

static int check_unchanged(const struct host_file *file, struct error *err)
{
    struct stat st;

    if (host_fstat(file->fd, &st) != 0)
        return error_set(err, errno, "cannot read: %s", strerror(errno));
    if ((uint64_t)st.st_size != file->size_bytes || st.st_mtim.tv_sec != file->modified.tv_sec ||
        st.st_mtim.tv_nsec != file->modified.tv_nsec)
        return error_set(err, ESTALE, "the file was changed since it was opened");
    return 0;
}

int host_file_read_again(struct host_file *file, struct error *err)
{
    int status = check_unchanged(file, err);

    if (status == 0)
        status = read_all(file->fd, file->data, file->size_bytes, err);
    return status ? status : check_unchanged(file, err);
}
