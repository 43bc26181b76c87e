/*
 * dialer.c - the process that connects to sockets of the host for a guest
 */
#include "backends/vsock/dialer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/host.h"

/* A descriptor, or -errno. A listener whose queue is full refuses: nobody waits here. */
static int dial(const char *path, uint32_t port)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd,
        length = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%" PRIu32, path, port);

    if (length < 0 || (size_t)length >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    length = -errno;
    close(fd);
    return length;
}

static bool answer(int socket, int fd)
{
    int32_t status = fd < 0 ? fd : 0;

    return host_send(socket, &status, sizeof(status), fd) == sizeof(status);
}

void dialer_run(int socket, void *opaque)
{
    const struct dialer *dialer = opaque;
    struct error err = {0};
    uint32_t port;
    bool going = true;

    if (dialer->sandboxed && host_dial_sandbox(&err)) {
        fprintf(stderr, "trapeze: vsock: %s\n", err.text);
        return;
    }
    while (going && recv(socket, &port, sizeof(port), 0) == sizeof(port)) {
        int fd = dial(dialer->path, port);

        going = answer(socket, fd);
        if (fd >= 0)
            close(fd);
    }
}
