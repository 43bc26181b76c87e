/*
 * uri.c - disks that are not files of this host
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "backends/block/internal.h"
#include "host/host.h"

bool block_is_uri(const char *file)
{
    static const char *const schemes[] = {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"};

    for (size_t n = 0; n < sizeof(schemes) / sizeof(schemes[0]); n++)
        if (strncmp(file, schemes[n], strlen(schemes[n])) == 0)
            return true;
    return false;
}

/* Is the server an address, so that no name has to be looked up? */
static bool has_address(const char *uri)
{
    const char *host = strstr(uri, "://") + 3, *at;
    uint8_t address[sizeof(struct in6_addr)];
    char text[INET6_ADDRSTRLEN];
    size_t size;

    at = memchr(host, '@', strcspn(host, "/?"));
    host = at ? at + 1 : host;
    size = *host == '[' ? strcspn(++host, "]") : strcspn(host, ":/?");
    if (size >= sizeof(text))
        return false;
    memcpy(text, host, size);
    text[size] = '\0';
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

/*
 * A disk that is plugged in has the rights that the machine took when it began: to connect by TCP,
 * and more only if a disk of a server was there by then.
 */
static int check_rights(const char *uri, struct error *err)
{
    const char *lack = NULL;

    if (strstr(uri, "+unix://"))
        lack = host_may(HOST_MAY_CONNECT_LOCAL) ? NULL : "connect to no unix socket";
    else if (!host_may(HOST_MAY_READ) && !has_address(uri))
        lack = "look up no name: give the server's address";
    if (!lack && strncmp(uri, "nbds", 4) == 0 && !host_may(HOST_MAY_READ))
        lack = "read no certificates";
    return lack ? error_set(err, EACCES,
                            "'%s': a machine that began without a disk of an NBD server can, in "
                            "its sandbox, %s",
                            uri, lack)
                : 0;
}

struct block_node *block_uri_open(const struct block_options *options, struct error *err)
{
    if (check_rights(options->file, err))
        return NULL;
#ifdef HAVE_LIBNBD
    return block_nbd_open(options, err);
#else
    error_set(err, ENOTSUP, "'%s': this program was built without NBD (libnbd)", options->file);
    return NULL;
#endif
}
