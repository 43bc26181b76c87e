/*
 * capture.c - frames to a file, in the pcap format with nanoseconds
 *
 * What tcpdump and wireshark read: a header of the file, then for each frame its time and its
 * lengths. A frame that is to be cut or has no checksum yet is written as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backends/net/internal.h"
#include "base/log.h"
#include "host/host.h"
#include "trapeze/clock.h"

#define MAGIC_NANOSECONDS 0xa1b23c4du
#define LINK_ETHERNET     1u
#define MAX_PIECES        64u

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, longest, link;
};

struct frame_header {
    uint32_t seconds, nanoseconds, stored_bytes, size_bytes;
};

struct capture {
    int fd; /* -1 after an error */
};

struct capture *capture_open(const char *path, struct error *err)
{
    const struct file_header header = {.magic = MAGIC_NANOSECONDS,
                                       .major = 2,
                                       .minor = 4,
                                       .longest = NET_MAX_FRAME_BYTES,
                                       .link = LINK_ETHERNET};
    struct capture *capture = calloc(1, sizeof(*capture));

    if (!capture) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    capture->fd = host_open(path, NET_CAPTURE_FLAGS, 0666);
    if (capture->fd >= 0 && write(capture->fd, &header, sizeof(header)) == sizeof(header))
        return capture;
    error_set(err, errno, "capture '%s': %s", path, strerror(errno));
    capture_free(capture);
    return NULL;
}

void capture_free(struct capture *capture)
{
    if (!capture)
        return;
    if (capture->fd >= 0)
        close(capture->fd);
    free(capture);
}

void capture_frame(struct capture *capture, const struct net_frame *frame)
{
    uint64_t now_ns = host_wall_ns();
    struct frame_header header = {
        .seconds = (uint32_t)(now_ns / NANOSECONDS_PER_SECOND),
        .nanoseconds = (uint32_t)(now_ns % NANOSECONDS_PER_SECOND),
        .size_bytes = (uint32_t)frame->size_bytes,
    };
    struct iovec parts[MAX_PIECES + 1] = {{&header, sizeof(header)}};
    int count = 1;
    size_t left = frame->size_bytes;

    if (capture->fd < 0)
        return;
    for (unsigned n = 0; n < frame->piece_count && n < MAX_PIECES && left; n++, count++) {
        size_t part = frame->pieces[n].size_bytes < left ? frame->pieces[n].size_bytes : left;

        parts[count] = (struct iovec){frame->pieces[n].data, part};
        header.stored_bytes += (uint32_t)part;
        left -= part;
    }
    if (writev(capture->fd, parts, count) == (ssize_t)(sizeof(header) + header.stored_bytes))
        return;
    log_warn("the capture of frames ends: %s", strerror(errno));
    close(capture->fd);
    capture->fd = -1;
}
