/*
 * tap.c - a network interface of the host's kernel
 *
 * "name=tap0": an interface that the user may use (ip tuntap add dev tap0 mode tap user NAME); fd=
 * is one that is open already. What it is connected to (a bridge, routes) is the host's business.
 * Checksums and cutting segments are left to the kernel and the other card: every frame has a
 * struct virtio_net_hdr in front.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>

#include "backends/net/internal.h"

#define NO_FD            UINT32_MAX
#define MAX_PIECES       64
#define FRAMES_PER_ROUND 64

struct tap {
    struct net net;

    char *name;  /* property */
    uint32_t fd; /* property */

    int tap_fd;
    struct loop_fd *handler;
    uint8_t *input; /* NET_MAX_FRAME_BYTES */
};

static struct tap *tap_of(struct net *net)
{
    return (struct tap *)net;
}

/* ---- frames ---- */

static struct net_offload offload_of(const struct virtio_net_hdr *header)
{
    unsigned gso = header->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
    struct net_offload offload = {
        .needs_checksum = header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .checksum_valid = header->flags & VIRTIO_NET_HDR_F_DATA_VALID,
        .checksum_start = header->csum_start,
        .checksum_offset = header->csum_offset,
    };

    if (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6) {
        offload.gso = gso == VIRTIO_NET_HDR_GSO_TCPV4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
        offload.segment_bytes = header->gso_size;
        offload.ecn = header->gso_type & VIRTIO_NET_HDR_GSO_ECN;
    }
    return offload;
}

static struct virtio_net_hdr header_of(const struct net_offload *offload, size_t size)
{
    struct virtio_net_hdr header = {
        .flags = offload->needs_checksum ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
        .csum_start = offload->checksum_start,
        .csum_offset = offload->checksum_offset,
    };
    size_t length = offload->checksum_start + 20u;

    if (offload->gso == NET_GSO_NONE)
        return header;
    header.gso_type = (uint8_t)((offload->gso == NET_GSO_TCP4 ? VIRTIO_NET_HDR_GSO_TCPV4
                                                              : VIRTIO_NET_HDR_GSO_TCPV6) |
                                (offload->ecn ? VIRTIO_NET_HDR_GSO_ECN : 0));
    header.gso_size = offload->segment_bytes;
    header.hdr_len = (uint16_t)(length < size ? length : size);
    return header;
}

static bool read_frame(struct tap *s)
{
    struct virtio_net_hdr header;
    const struct iovec parts[2] = {{&header, sizeof(header)}, {s->input, NET_MAX_FRAME_BYTES}};
    ssize_t size = readv(s->tap_fd, parts, 2);
    struct io_piece piece = {s->input, 0};
    struct net_frame frame = {.pieces = &piece, .piece_count = 1};

    if (size < (ssize_t)sizeof(header))
        return false;
    piece.size_bytes = frame.size_bytes = (size_t)size - sizeof(header);
    frame.offload = offload_of(&header);
    net_deliver(&s->net, &frame);
    return true;
}

static void on_readable(void *opaque, unsigned events)
{
    struct tap *s = opaque;

    (void)events;
    for (unsigned n = 0; n < FRAMES_PER_ROUND && !net_is_full(&s->net) && read_frame(s); n++)
        ;
    net_delivered(&s->net);
    if (net_is_full(&s->net))
        loop_set_events(s->handler, 0);
}

/* The kernel waits for nobody: what it has no room for is lost, as on a wire. */
static void tap_send(struct net *net, const struct net_frame *frame)
{
    struct virtio_net_hdr header = header_of(&frame->offload, frame->size_bytes);
    struct iovec parts[MAX_PIECES + 1] = {{&header, sizeof(header)}};
    int count = 1;

    if (frame->piece_count > MAX_PIECES) {
        net_gather(frame, net->scratch);
        parts[count++] = (struct iovec){net->scratch, frame->size_bytes};
    } else {
        for (unsigned n = 0; n < frame->piece_count; n++)
            parts[count++] = (struct iovec){frame->pieces[n].data, frame->pieces[n].size_bytes};
    }
    if (writev(tap_of(net)->tap_fd, parts, count) < 0)
        return;
}

static void tap_accept(struct net *net)
{
    loop_set_events(tap_of(net)->handler, LOOP_READ);
}

/* ---- opening ---- */

static int open_by_name(struct tap *s, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

    if (!s->name || strlen(s->name) >= sizeof(request.ifr_name))
        return error_set(err, EINVAL, "give an interface with name=, or an open one with fd=");
    strcpy(request.ifr_name, s->name);
    s->tap_fd = host_open("/dev/net/tun", O_RDWR, 0);
    if (s->tap_fd < 0)
        return error_set(err, errno, "/dev/net/tun: %s", strerror(errno));
    if (ioctl(s->tap_fd, TUNSETIFF, &request) && errno != EEXIST) /* it was given so */
        return error_set(err, errno,
                         "%s: %s; 'ip tuntap add dev %s mode tap user NAME' makes one for NAME",
                         s->name, strerror(errno), s->name);
    return 0;
}

static int tap_hand_over(struct net *net, struct error *err)
{
    struct tap *s = tap_of(net);
    int result;

    s->tap_fd = -1;
    result = s->fd == NO_FD ? open_by_name(s, err) : 0;
    if (s->tap_fd >= 0)
        close(s->tap_fd);
    return result;
}

static int tap_open(struct net *net, struct error *err)
{
    struct tap *s = tap_of(net);
    int header_bytes = sizeof(struct virtio_net_hdr);

    s->tap_fd = s->fd == NO_FD ? -1 : (int)s->fd;
    s->input = malloc(NET_MAX_FRAME_BYTES);
    if (!s->input)
        return error_set(err, ENOMEM, "out of memory");
    if (s->tap_fd < 0 && open_by_name(s, err))
        return -EINVAL;
    if (fcntl(s->tap_fd, F_SETFL, O_NONBLOCK) || ioctl(s->tap_fd, TUNSETVNETHDRSZ, &header_bytes) ||
        ioctl(s->tap_fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
        return error_set(err, errno, "this is no tap interface with IFF_VNET_HDR: %s",
                         strerror(errno));
    s->handler = loop_add_fd(net->loop, s->tap_fd, LOOP_READ, on_readable, s, err);
    if (!s->handler)
        return -ENOMEM;
    net->up = true;
    return 0;
}

static void tap_free(struct net *net)
{
    struct tap *s = tap_of(net);

    loop_remove_fd(s->handler);
    if (s->tap_fd >= 0)
        close(s->tap_fd);
    free(s->input);
}

static const struct property tap_properties[] = {
    NET_PROPERTIES(struct tap),
    PROPERTY_STRING(struct tap, name, NULL, "interface of the host"),
    PROPERTY_U32(struct tap, fd, NO_FD, "use this open descriptor"),
    PROPERTY_END,
};

const struct net_kind net_tap = {
    .name = "tap",
    .summary = "a network interface of the host, with checksums and segments left to it",
    .instance_size = sizeof(struct tap),
    .properties = tap_properties,
    .takes = NET_TAKES_CHECKSUM | NET_TAKES_TCP4 | NET_TAKES_TCP6 | NET_TAKES_ECN,
    .hand_over = tap_hand_over,
    .open = tap_open,
    .free = tap_free,
    .send = tap_send,
    .accept = tap_accept,
};
