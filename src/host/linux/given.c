/*
 * given.c - descriptors that one process opens and another one uses
 */
#include "host/given.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/file.h"

static struct host_given *record, *use;

int host_given_add(struct host_given *given, const char *name, unsigned flags, int fd)
{
    char *copy = given->count < HOST_MAX_GIVEN ? strdup(name) : NULL;

    if (copy) {
        given->files[given->count++] = (struct host_given_file){copy, flags, fd};
        return 0;
    }
    close(fd);
    return given->count < HOST_MAX_GIVEN ? -ENOMEM : -E2BIG;
}

void host_given_done(struct host_given *given)
{
    while (given->count) {
        struct host_given_file *file = &given->files[--given->count];

        free(file->name);
        close(file->fd);
    }
}

void host_record(struct host_given *given)
{
    record = given;
}

void host_use(struct host_given *given)
{
    use = given;
}

int host_take_given(const char *name, unsigned flags)
{
    for (size_t n = 0; use && n < use->count; n++) {
        struct host_given_file file = use->files[n];

        if (file.flags != flags || strcmp(file.name, name))
            continue;
        use->count--;
        memmove(&use->files[n], &use->files[n + 1], (use->count - n) * sizeof(file));
        free(file.name);
        return file.fd;
    }
    return -1;
}

void host_opened(const char *name, unsigned flags, int fd)
{
    int copy = record && fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

    if (copy >= 0)
        host_given_add(record, name, flags, copy);
}

int host_stat(const char *path, struct stat *out)
{
    for (size_t n = 0; use && n < use->count; n++)
        if (strcmp(use->files[n].name, path) == 0)
            return host_fstat(use->files[n].fd, out);
    return stat(path, out);
}

int host_open(const char *path, int flags, unsigned mode)
{
    int fd = host_take_given(path, (unsigned)flags);

    if (fd < 0)
        fd = open(path, flags | O_CLOEXEC, mode);
    host_opened(path, (unsigned)flags, fd);
    return fd;
}

int host_open_nameless(const char *folder)
{
    int fd = host_take_given("", 0);
    char path[HOST_GIVEN_NAME_BYTES];

    if (fd >= 0)
        return fd;
    snprintf(path, sizeof(path), "%s/trapeze-XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -1;
    unlink(path);
    host_opened("", 0, fd);
    return fd;
}
