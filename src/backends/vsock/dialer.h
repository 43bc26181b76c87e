/*
 * dialer.h - the process that connects to sockets of the host for a guest
 *
 * It is sent port numbers, four bytes each, and answers each in order with a status, 0 or -errno,
 * and with a descriptor if it is 0. Nothing else can be asked of it.
 */
#ifndef BACKENDS_VSOCK_DIALER_H
#define BACKENDS_VSOCK_DIALER_H

#include <stdbool.h>

struct dialer {
    const char *path;
    bool sandboxed;
};

/* In the new process: serves until the other end of the socket is closed. opaque: struct dialer. */
void dialer_run(int socket, void *opaque);

#endif
