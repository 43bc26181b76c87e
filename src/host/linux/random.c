/*
 * random.c - random bytes from the kernel
 */
#include <errno.h>
#include <sys/random.h>

#include "host/host.h"

void host_random(void *out, size_t size_bytes)
{
    uint8_t *at = out;

    while (size_bytes) {
        ssize_t got = getrandom(at, size_bytes, 0);

        if (got < 0)
            continue; /* EINTR is the only cause for a blocking call */
        at += got;
        size_bytes -= (size_t)got;
    }
}
