/*
 * user.c - a network of its own behind address translation, made of the process's own sockets
 *
 * libslirp answers the guest's frames: it gives addresses (DHCP), translates to sockets of this
 * process, and leads ports of the host to the guest. No rights are needed.
 *
 *   10.0.2.2   the gateway; also the host's own 127.0.0.1, unless loopback=off
 *   10.0.2.3   the name server, translated to the host's
 *   10.0.2.15  the guest (what DHCP gives, and where published ports lead)
 *
 * Theory of operation. libslirp says which descriptors it waits for (slirp_pollfds_fill), and is
 * told what became ready (slirp_pollfds_poll). The loop has one handler for each descriptor;
 * refresh() makes them agree after everything that may have changed something: frames of the
 * guest, ready descriptors, timers. Ready descriptors are collected in a round of the loop, and
 * handed over at its end.
 *
 * libslirp knows no offload, but it is an end of every TCP connection, so no segment has to be cut:
 * it takes what the guest has not cut, and believes that the guest takes segments of 64 KiB
 * (raise_mss), which reach the card as such that are to be cut. Whatever else is longer than the
 * link is cut into fragments (send_fragments).
 *
 * The guest's frames come on the thread of a processor, where handlers cannot be freed: those of
 * closed descriptors wait for the loop. The name servers of the host are read once, at open
 * (read_name_server), as the sandbox lets no file be opened later.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <slirp/libslirp.h>

#include "backends/net/internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/net_sum.h"
#include "host/host.h"

#define NETWORK      0x0a000200u /* 10.0.2.0 */
#define NETMASK      0xffffff00u
#define GATEWAY      (NETWORK + 2)
#define NAME_SERVER  (NETWORK + 3)
#define FIRST_LEASE  (NETWORK + 15)
#define DISCARD_PORT 9
#define DNS_PORT     53
#define LONG_MTU     65521u /* libslirp's largest */
#define TCP_SYN      0x02u

struct user;

/* A descriptor of libslirp's. */
struct user_fd {
    struct user *user;
    struct user_fd *next; /* in user->fds or user->closed */
    struct loop_fd *handler;
    int fd;
    unsigned wanted, ready; /* LOOP_READ, LOOP_WRITE */
};

/* One that libslirp has asked for, beside those that slirp_pollfds_fill() speaks of. */
struct user_timer {
    struct user_timer *next;
    uint64_t deadline_ns; /* NEVER: not armed */
    SlirpTimerCb fire;
    void *opaque;
};
#define NEVER UINT64_MAX

struct user {
    struct net net;

    /* Properties. */
    bool restricted, loopback, ipv6;
    char *hostname, *domain, *tftp, *bootfile, *publish;

    Slirp *slirp;
    struct user_fd *fds, *closed;
    struct user_fd **by_number; /* fd to its entry */
    size_t number_count;
    bool is_due;         /* pass_on() was deferred */
    bool has_complained; /* about the guest */
    struct user_timer *timers;
    int timer_fd;
    uint64_t armed_ns; /* when timer_fd wakes us: never later than something is due */
    struct loop_fd *timer_handler;
};

static struct user *user_of(struct net *net)
{
    return (struct user *)net;
}

/* ---- descriptors ---- */

static struct user_fd *find(struct user *s, int fd)
{
    return fd >= 0 && (size_t)fd < s->number_count ? s->by_number[fd] : NULL;
}

static void refresh(struct user *s);

static int ready_events(int fd, void *opaque)
{
    struct user_fd *entry = find(opaque, fd);
    unsigned ready = entry ? entry->ready : 0;

    if (entry)
        entry->ready = 0;
    return (ready & LOOP_READ ? SLIRP_POLL_IN : 0) | (ready & LOOP_WRITE ? SLIRP_POLL_OUT : 0);
}

static void pass_on(void *opaque)
{
    struct user *s = opaque;

    s->is_due = false;
    while (s->closed) {
        struct user_fd *entry = s->closed;

        s->closed = entry->next;
        loop_remove_fd(entry->handler);
        free(entry);
    }
    slirp_pollfds_poll(s->slirp, 0, ready_events, s);
    net_delivered(&s->net);
    refresh(s);
}

static void pass_on_soon(struct user *s)
{
    if (!s->is_due)
        s->is_due = loop_defer(s->net.loop, pass_on, s) == 0;
}

static void on_ready(void *opaque, unsigned events)
{
    struct user_fd *entry = opaque;

    entry->ready |= events;
    pass_on_soon(entry->user);
}

static struct user_fd *add_fd(struct user *s, int fd)
{
    struct error err = {0};
    struct user_fd *entry = calloc(1, sizeof(*entry));

    if ((size_t)fd >= s->number_count) {
        size_t count = (size_t)fd * 2 + 16;
        struct user_fd **numbers = realloc(s->by_number, count * sizeof(*numbers));

        if (numbers) {
            memset(numbers + s->number_count, 0, (count - s->number_count) * sizeof(*numbers));
            s->by_number = numbers;
            s->number_count = count;
        }
    }
    if (entry && (size_t)fd < s->number_count)
        entry->handler = loop_add_fd(s->net.loop, fd, 0, on_ready, entry, &err);
    if (!entry || !entry->handler) {
        free(entry);
        return NULL;
    }
    entry->user = s;
    entry->fd = fd;
    entry->next = s->fds;
    s->fds = entry;
    s->by_number[fd] = entry;
    return entry;
}

/* While the card has no room, what the host has for the guest stays in the host's sockets. */
static int want(int fd, int events, void *opaque)
{
    struct user *s = opaque;
    struct user_fd *entry = find(s, fd);

    if (!entry)
        entry = add_fd(s, fd);
    if (!entry)
        return -1;
    if (events & SLIRP_POLL_IN && !net_is_full(&s->net))
        entry->wanted |= LOOP_READ;
    if (events & SLIRP_POLL_OUT)
        entry->wanted |= LOOP_WRITE;
    return fd;
}

static void arm(struct user *s, uint64_t deadline_ns)
{
    const struct itimerspec at = {.it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                                               .tv_nsec = (long)(deadline_ns % 1000000000u)}};

    if (deadline_ns >= s->armed_ns)
        return;
    s->armed_ns = deadline_ns;
    timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void refresh(struct user *s)
{
    uint32_t timeout_ms = UINT32_MAX;

    for (struct user_fd *entry = s->fds; entry; entry = entry->next)
        entry->wanted = 0;
    slirp_pollfds_fill(s->slirp, &timeout_ms, want, s);
    for (struct user_fd *entry = s->fds; entry; entry = entry->next)
        loop_set_events(entry->handler, entry->wanted);
    if (timeout_ms != UINT32_MAX)
        arm(s, host_monotonic_ns() + timeout_ms * 1000000ull);
    for (struct user_timer *timer = s->timers; timer; timer = timer->next)
        arm(s, timer->deadline_ns);
}

static void on_time(void *opaque, unsigned events)
{
    struct user *s = opaque;
    uint64_t count, now_ns = host_monotonic_ns();

    (void)events;
    if (read(s->timer_fd, &count, sizeof(count)) < 0)
        return;
    s->armed_ns = NEVER;
    for (struct user_timer *timer = s->timers; timer; timer = timer->next) {
        if (timer->deadline_ns > now_ns)
            continue;
        timer->deadline_ns = NEVER;
        timer->fire(timer->opaque);
    }
    pass_on(s);
}

/* ---- what libslirp calls ---- */

/* Where the TCP header is that is complete; 0: there is none. */
static size_t find_tcp(const uint8_t *frame, size_t size)
{
    unsigned type = get_be16(frame + 12);
    size_t tcp = 0;

    if (type == 0x0800 && size >= 34 && frame[23] == IPPROTO_TCP &&
        !(get_be16(frame + 20) & 0x3fff))
        tcp = NET_HEADER_BYTES + 4u * (frame[14] & 15u);
    else if (type == 0x86dd && size >= 54 && frame[20] == IPPROTO_TCP)
        tcp = 54;
    return tcp >= 34 && tcp + 20 <= size && tcp + 4u * (frame[tcp + 12] >> 4) <= size ? tcp : 0;
}

static void deliver(struct user *s, const uint8_t *bytes, size_t size,
                    const struct net_offload *offload)
{
    struct io_piece piece = {(void *)bytes, size};
    struct net_frame frame = {
        .pieces = &piece, .piece_count = 1, .size_bytes = size, .offload = *offload};

    net_deliver(&s->net, &frame);
}

/* The card cuts it, or tells the guest that it need not. */
static void send_long_segment(struct user *s, uint8_t *frame, size_t size, size_t tcp)
{
    bool is_ipv6 = tcp == 54 && frame[14] >> 4 == 6;
    size_t headers = tcp - NET_HEADER_BYTES + 4u * (frame[tcp + 12] >> 4);
    uint8_t rest[4] = {0, IPPROTO_TCP};
    struct net_offload offload = {
        .needs_checksum = true,
        .gso = is_ipv6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
        .checksum_start = (uint16_t)tcp,
        .checksum_offset = 16,
        .segment_bytes = (uint16_t)(NET_DEFAULT_MTU - headers),
    };
    uint16_t sum = is_ipv6 ? net_sum(0, frame + 22, 32) : net_sum(0, frame + 26, 8);

    put_be16(rest + 2, (unsigned)(size - tcp));
    sum = net_sum(sum, rest, sizeof(rest));
    memcpy(frame + tcp + 16, &sum, 2);
    deliver(s, frame, size, &offload);
}

/* RFC 791: pieces of a multiple of 8 bytes. The data stays where it is, as in net_cut(). */
static void send_fragments(struct user *s, uint8_t *frame, size_t size)
{
    const struct net_offload none = {0};
    size_t head = NET_HEADER_BYTES + 4u * (frame[14] & 15u), done = 0;
    size_t most = (NET_DEFAULT_MTU + NET_HEADER_BYTES - head) & ~(size_t)7;
    unsigned place = get_be16(frame + 20);
    uint8_t header[NET_HEADER_BYTES + 60];

    if (get_be16(frame + 12) != 0x0800 || head < 34 || head > size || place & 0x4000)
        return; /* IPv6 is cut by who sends it, or not at all */
    memcpy(header, frame, head);
    while (done < size - head) {
        size_t left = size - head - done, bytes = left < most ? left : most;
        uint8_t *out = frame + done, *ip = out + NET_HEADER_BYTES;
        unsigned more = bytes < left ? 0x2000 : place & 0x2000;
        uint16_t sum;

        memcpy(out, header, head);
        put_be16(ip + 2, (unsigned)(head - NET_HEADER_BYTES + bytes));
        put_be16(ip + 6, more | ((place & 0x1fff) + (unsigned)(done / 8)));
        put_be16(ip + 10, 0);
        sum = (uint16_t)~net_sum(0, ip, head - NET_HEADER_BYTES);
        memcpy(ip + 10, &sum, 2);
        deliver(s, out, head + bytes, &none);
        done += bytes;
    }
}

/* The frame is in memory of libslirp's that it does not use any more. */
static ssize_t send_packet(const void *bytes, size_t size, void *opaque)
{
    const struct net_offload valid = {.checksum_valid = true};
    struct user *s = opaque;
    size_t tcp;

    if (size <= NET_DEFAULT_MTU + NET_HEADER_BYTES) {
        deliver(s, bytes, size, &valid);
        return (ssize_t)size;
    }
    tcp = find_tcp(bytes, size);
    if (tcp)
        send_long_segment(s, (uint8_t *)bytes, size, tcp);
    else
        send_fragments(s, (uint8_t *)bytes, size);
    return (ssize_t)size;
}

/* Once: it may be said of every frame. */
static void guest_error(const char *message, void *opaque)
{
    struct user *s = opaque;

    if (!s->has_complained)
        log_guest("user network: %s", message);
    s->has_complained = true;
}

static int64_t get_clock_ns(void *opaque)
{
    (void)opaque;
    return (int64_t)host_monotonic_ns();
}

static void *new_timer(SlirpTimerCb fire, void *opaque, void *user)
{
    struct user *s = user;
    struct user_timer *timer = calloc(1, sizeof(*timer));

    if (!timer)
        abort(); /* as libslirp does without memory */
    *timer = (struct user_timer){s->timers, NEVER, fire, opaque};
    s->timers = timer;
    return timer;
}

static void free_timer(void *opaque, void *user)
{
    struct user_timer *timer = opaque, **link = &((struct user *)user)->timers;

    while (*link != timer)
        link = &(*link)->next;
    *link = timer->next;
    free(timer);
}

static void set_timer(void *opaque, int64_t deadline_ms, void *user)
{
    ((struct user_timer *)opaque)->deadline_ns = (uint64_t)deadline_ms * 1000000u;
    arm(user, (uint64_t)deadline_ms * 1000000u);
}

static void register_fd(int fd, void *opaque)
{
    (void)fd;
    (void)opaque;
}

/* It will be closed. */
static void unregister_fd(int fd, void *opaque)
{
    struct user *s = opaque;
    struct user_fd *entry = find(s, fd);
    struct user_fd **link = &s->fds;

    if (!entry)
        return;
    loop_set_events(entry->handler, 0);
    s->by_number[fd] = NULL;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    entry->next = s->closed;
    s->closed = entry;
    pass_on_soon(s);
}

static void notify(void *opaque) /* refresh() follows in any case */
{
    (void)opaque;
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = get_clock_ns,
    .timer_new = new_timer,
    .timer_free = free_timer,
    .timer_mod = set_timer,
    .register_poll_fd = register_fd,
    .unregister_poll_fd = unregister_fd,
    .notify = notify,
};

/* ---- the backend's calls ---- */

/*
 * Let a connection that the guest opens or takes have long segments, if the card gives them to it
 * as such: the maximum segment size of its SYN (RFC 9293, 3.7.1), and the checksum (RFC 1624).
 */
static void raise_mss(struct user *s, uint8_t *frame, size_t size)
{
    const struct net_frontend *frontend = s->net.frontend;
    size_t tcp = find_tcp(frame, size), at = tcp + 20, end;
    unsigned takes = frontend ? frontend->takes(frontend->opaque) : 0;
    bool is_ipv6 = frame[14] >> 4 == 6;

    if (!tcp || !(frame[tcp + 13] & TCP_SYN) ||
        !(takes & (is_ipv6 ? NET_TAKES_TCP6 : NET_TAKES_TCP4)))
        return;
    end = tcp + 4u * (frame[tcp + 12] >> 4);
    while (at + 4 <= end && frame[at]) {
        if (frame[at] == 2 && frame[at + 1] == 4 && at % 2 == 0) {
            uint16_t old, new, sum;

            memcpy(&old, frame + at + 2, 2);
            put_be16(frame + at + 2, LONG_MTU - (is_ipv6 ? 60 : 40));
            memcpy(&sum, frame + tcp + 16, 2);
            memcpy(&new, frame + at + 2, 2);
            sum = (uint16_t)~sum;
            old = (uint16_t)~old;
            sum = net_sum(sum, (uint8_t *)&old, 2);
            sum = (uint16_t)~net_sum(sum, (uint8_t *)&new, 2);
            memcpy(frame + tcp + 16, &sum, 2);
            return;
        }
        at += frame[at] == 1 ? 1 : frame[at + 1] ? frame[at + 1] : end;
    }
}

static void user_send(struct net *net, const struct net_frame *frame)
{
    struct user *s = user_of(net);
    uint8_t *bytes = net->scratch;

    if (frame->piece_count == 1 && frame->offload.checksum_valid)
        bytes = frame->pieces[0].data; /* net.c's */
    else
        net_gather(frame, net->scratch);
    raise_mss(s, bytes, frame->size_bytes);
    slirp_input(s->slirp, bytes, (int)frame->size_bytes);
}

static void user_sent(struct net *net)
{
    net_delivered(net);
    refresh(user_of(net));
}

static void user_accept(struct net *net)
{
    refresh(user_of(net));
}

/* ---- published ports ---- */

static int parse_port(const char *text, size_t length, int *out_port)
{
    char copy[8] = "";
    uint64_t port;
    struct error err = {0};

    if (!length || length >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, length);
    if (property_parse_u64(copy, 65535, &port, &err) || !port)
        return -EINVAL;
    *out_port = (int)port;
    return 0;
}

/* "[HOST:]PORT:GUESTPORT[/udp]" */
static int publish_one(struct user *s, const char *text, size_t length, struct error *err)
{
    char copy[64] = "", *guest, *host, *protocol;
    struct in_addr address = {htonl(INADDR_LOOPBACK)}, any = {0};
    int host_port, guest_port;
    bool is_udp;

    if (length < sizeof(copy))
        memcpy(copy, text, length);
    protocol = strchr(copy, '/');
    is_udp = protocol && strcmp(protocol, "/udp") == 0;
    if (protocol && (is_udp || strcmp(protocol, "/tcp") == 0))
        *protocol = '\0';
    guest = strrchr(copy, ':');
    if (!guest)
        goto wrong;
    *guest++ = '\0';
    host = strrchr(copy, ':');
    if (host) {
        *host = '\0';
        if (inet_pton(AF_INET, copy, &address) != 1)
            goto wrong;
        host++;
    } else {
        host = copy;
    }
    if (parse_port(host, strlen(host), &host_port) || parse_port(guest, strlen(guest), &guest_port))
        goto wrong;
    if (slirp_add_hostfwd(s->slirp, is_udp, address, host_port, any, guest_port))
        return error_set(err, errno, "port %.*s: %s", (int)length, text, strerror(errno));
    refresh(s);
    return 0;
wrong:
    return error_set(err, EINVAL, "'%.*s' is not [HOST:]PORT:GUESTPORT[/udp], like 2222:22",
                     (int)length, text);
}

static int user_publish(struct net *net, const char *port, struct error *err)
{
    return publish_one(user_of(net), port, strlen(port), err);
}

/* Several, with '+' between them. */
static int publish_all(struct user *s, const char *text, struct error *err)
{
    while (*text) {
        size_t length = strcspn(text, "+");
        int result = publish_one(s, text, length, err);

        if (result)
            return result;
        text += length + (text[length] == '+');
    }
    return 0;
}

/* ---- lifecycle ---- */

/* libslirp reads the host's name servers when the first frame wants one: an empty one for it. */
static void read_name_server(struct user *s)
{
    uint8_t frame[NET_HEADER_BYTES + 28] = {
        [12] = 0x08, /* IPv4 */
        [14] = 0x45,
        [17] = 28,
        [22] = 2,
        [23] = IPPROTO_UDP,
        [26] = FIRST_LEASE >> 24,
        FIRST_LEASE >> 16 & 0xff,
        FIRST_LEASE >> 8 & 0xff,
        FIRST_LEASE & 0xff,
        [30] = NAME_SERVER >> 24,
        NAME_SERVER >> 16 & 0xff,
        NAME_SERVER >> 8 & 0xff,
        NAME_SERVER & 0xff,
        [35] = DISCARD_PORT,
        [37] = DNS_PORT,
        [39] = 8,
    };
    uint16_t sum = (uint16_t)~net_sum(0, frame + NET_HEADER_BYTES, 20);

    memcpy(frame + NET_HEADER_BYTES + 10, &sum, 2);
    slirp_input(s->slirp, frame, sizeof(frame));
}

/* ---- state: which addresses DHCP has given to whom ---- */

/*
 * libslirp's version, and its bytes: a list of connections that end in this process, of which there
 * are none, and what is as long in each state of one version. Loaded are only bytes that look so.
 */
#define VERSION_BYTES 4u

static ssize_t append(const void *bytes, size_t size, void *opaque)
{
    uint8_t *to = state_buffer_add(opaque, size);

    if (!to)
        return -1;
    memcpy(to, bytes, size);
    return (ssize_t)size;
}

static int user_save(struct net *net, struct state_buffer *out, struct error *err)
{
    uint8_t *version = state_buffer_add(out, VERSION_BYTES);

    if (!version)
        return error_set(err, ENOMEM, "out of memory");
    put_le32(version, (uint32_t)slirp_state_version());
    slirp_state_save(user_of(net)->slirp, append, out);
    return 0;
}

static ssize_t take(void *out, size_t size, void *opaque)
{
    struct state_buffer *left = opaque;

    if (size > left->size_bytes)
        return -1;
    memcpy(out, left->data, size);
    left->data += size;
    left->size_bytes -= size;
    return (ssize_t)size;
}

static int user_load(struct net *net, const struct state_buffer *saved, struct error *err)
{
    struct state_buffer now = {0}, left = *saved;
    int result = user_save(net, &now, err);
    uint8_t version[VERSION_BYTES];

    if (result)
        return result;
    free(now.data);
    if (take(version, VERSION_BYTES, &left) < 0)
        return error_set(err, EINVAL, "the state of the user network is cut short");
    if (get_le32(version) != (uint32_t)slirp_state_version()) {
        log_warn("the state of the user network is of another libslirp; addresses that DHCP has "
                 "given are not known");
        return 0;
    }
    if (saved->size_bytes != now.size_bytes || left.data[0] ||
        slirp_state_load(user_of(net)->slirp, slirp_state_version(), take, &left))
        return error_set(err, EINVAL, "the state of the user network cannot be as it is saved");
    return 0;
}

static int user_open(struct net *net, struct error *err)
{
    struct user *s = user_of(net);
    SlirpConfig config = {
        .version = 3,
        .restricted = s->restricted,
        .in_enabled = true,
        .vnetwork.s_addr = htonl(NETWORK),
        .vnetmask.s_addr = htonl(NETMASK),
        .vhost.s_addr = htonl(GATEWAY),
        .vnameserver.s_addr = htonl(NAME_SERVER),
        .vdhcp_start.s_addr = htonl(FIRST_LEASE),
        .in6_enabled = s->ipv6,
        .vprefix_len = 64,
        .vhostname = s->hostname,
        .vdomainname = s->domain,
        .tftp_path = s->tftp,
        .bootfile = s->bootfile,
        .if_mtu = LONG_MTU,
        .if_mru = LONG_MTU,
        .disable_host_loopback = !s->loopback,
    };

    if (s->bootfile && strlen(s->bootfile) > 127)
        return error_set(err, ENAMETOOLONG, "bootfile is longer than 127 bytes");
    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    s->armed_ns = NEVER;
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (s->timer_fd < 0)
        return error_set(err, errno, "timerfd: %s", strerror(errno));
    s->timer_handler = loop_add_fd(net->loop, s->timer_fd, LOOP_READ, on_time, s, err);
    if (!s->timer_handler)
        return -ENOMEM;
    s->slirp = slirp_new(&config, &callbacks, s);
    if (!s->slirp)
        return error_set(err, EINVAL, "libslirp does not start");
    net->up = true;
    read_name_server(s);
    return s->publish ? publish_all(s, s->publish, err) : 0;
}

static void user_free(struct net *net)
{
    struct user *s = user_of(net);
    struct user_fd *entry;

    s->is_due = true; /* nothing more is */
    if (s->slirp)
        slirp_cleanup(s->slirp);
    while ((entry = s->fds))
        unregister_fd(entry->fd, s);
    while ((entry = s->closed)) {
        s->closed = entry->next;
        loop_remove_fd(entry->handler);
        free(entry);
    }
    loop_remove_fd(s->timer_handler);
    loop_undefer(net->loop, s);
    if (s->timer_fd >= 0)
        close(s->timer_fd);
    free(s->by_number);
}

static const struct property user_properties[] = {
    NET_PROPERTIES(struct user),
    {.name = "restrict",
     .type = PROPERTY_TYPE_BOOL,
     .offset = offsetof(struct user, restricted),
     .help = "the guest reaches nobody; published ports still lead to it"},
    PROPERTY_BOOL(struct user, loopback, 1, "10.0.2.2 is the host's own 127.0.0.1"),
    PROPERTY_BOOL(struct user, ipv6, 1, "IPv6 as well, in fec0::/64"),
    PROPERTY_STRING(struct user, hostname, NULL, "name that DHCP gives the guest"),
    PROPERTY_STRING(struct user, domain, NULL, "domain that DHCP gives the guest"),
    PROPERTY_STRING(struct user, tftp, NULL, "folder that the guest can read by TFTP"),
    PROPERTY_STRING(struct user, bootfile, NULL, "file in it that DHCP tells the guest to boot"),
    PROPERTY_STRING(struct user, publish, NULL,
                    "ports of the host that lead to the guest: [HOST:]PORT:GUESTPORT[/udp], "
                    "with '+' between several"),
    PROPERTY_END,
};

const struct net_kind net_user = {
    .name = "user",
    .summary = "a network of its own behind address translation; needs no rights",
    .instance_size = sizeof(struct user),
    .properties = user_properties,
    .takes_long = true,
    .connects = true,
    .open = user_open,
    .free = user_free,
    .send = user_send,
    .sent = user_sent,
    .accept = user_accept,
    .publish = user_publish,
    .save = user_save,
    .load = user_load,
};
