/*
 * net.c - the kinds of network backend, and the frames between them and cards
 *
 * Threads: machine lock held; opening and freeing on the main loop's thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/net/internal.h"

static const struct net_kind *const kinds[] = {
    &net_socket,
    &net_switch,
    &net_tap,
#ifdef HAVE_SLIRP
    &net_user,
#endif
};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

struct queued_frame {
    struct queued_frame *next;
    size_t size_bytes;
    struct net_offload offload;
    uint8_t bytes[];
};

const char *net_kind_name(unsigned index)
{
    return index < KIND_COUNT ? kinds[index]->name : NULL;
}

const char *net_kind_summary(unsigned index)
{
    return index < KIND_COUNT ? kinds[index]->summary : NULL;
}

bool net_parse_mac(const char *text, uint8_t out[NET_MAC_BYTES])
{
    uint8_t mac[NET_MAC_BYTES], any = 0;
    int length = 0;

    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3],
               &mac[4], &mac[5], &length) != NET_MAC_BYTES ||
        text[length])
        return false;
    for (unsigned n = 0; n < NET_MAC_BYTES; n++)
        any |= mac[n];
    if (mac[0] & 1 || !any)
        return false;
    memcpy(out, mac, NET_MAC_BYTES);
    return true;
}

int net_check_card(const char *name, const struct net *net, const char *mac,
                   uint8_t out[NET_MAC_BYTES], struct error *err)
{
    if (!net)
        return error_set(err, EINVAL, "%s: it is on no network; use --net KIND", name);
    if (!net_parse_mac(mac, out))
        return error_set(err, EINVAL,
                         "%s: '%s' is not the address of one card, like 52:54:00:12:34:56", name,
                         mac);
    return 0;
}

/* ---- opening ---- */

static const struct net_kind *find_kind(const char *description, size_t length, struct error *err)
{
    const char *names[KIND_COUNT + 1] = {NULL};
    char name[32] = "";
    const char *nearest;

    for (size_t n = 0; n < KIND_COUNT; n++) {
        names[n] = kinds[n]->name;
        if (strlen(names[n]) == length && !memcmp(names[n], description, length))
            return kinds[n];
    }
    if (length < sizeof(name))
        memcpy(name, description, length);
    nearest = nearest_word(name, names);
    error_set(err, ENOENT, "there is no network backend '%.*s'%s%s%s", (int)length, description,
              nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
    return NULL;
}

static int start(struct net *net, struct error *err)
{
    net->scratch = malloc(NET_MAX_FRAME_BYTES);
    if (!net->scratch)
        return error_set(err, ENOMEM, "out of memory");
    if (net->capture) {
        net->capture_to = capture_open(net->capture, err);
        if (!net->capture_to)
            return -EINVAL;
    }
    return net->kind->open(net, err);
}

static struct net *parse(struct loop *loop, const char *description, struct error *err)
{
    size_t length = strcspn(description, ",=");
    const struct net_kind *kind = find_kind(description, length, err);
    /* "switch=NAME,..." is short for "switch,switch=NAME,...". */
    const char *settings = description[length] == '=' ? description
                           : description[length]      ? description + length + 1
                                                      : "";
    struct net *net = kind ? calloc(1, kind->instance_size) : NULL;

    if (!net) {
        if (kind)
            error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    net->kind = kind;
    net->loop = loop;
    net->last = &net->first;
    if (!properties_init(kind->properties, net, err) &&
        (!*settings || !properties_parse(kind->properties, net, settings, err)))
        return net;
    error_prefix(err, "%s: ", kind->name);
    properties_done(kind->properties, net);
    free(net);
    return NULL;
}

struct net *net_open(struct loop *loop, const char *description, struct error *err)
{
    struct net *net = parse(loop, description, err);

    if (!net || !start(net, err))
        return net;
    error_prefix(err, "%s: ", net->kind->name);
    net_free(net);
    return NULL;
}

static int hand_over(struct net *net, struct error *err)
{
    int fd = net->capture ? host_open(net->capture, NET_CAPTURE_FLAGS, 0666) : -1;

    if (net->capture && fd < 0)
        return error_set(err, errno, "capture '%s': %s", net->capture, strerror(errno));
    if (fd >= 0)
        close(fd);
    return net->kind->hand_over ? net->kind->hand_over(net, err) : 0;
}

int net_hand_over(const char *description, struct error *err)
{
    struct net *net = parse(NULL, description, err);
    int result = net ? hand_over(net, err) : -EINVAL;

    if (!net)
        return -EINVAL;
    if (result)
        error_prefix(err, "%s: ", net->kind->name);
    properties_done(net->kind->properties, net);
    free(net);
    return result;
}

static struct queued_frame *take_first(struct net *net)
{
    struct queued_frame *queued = net->first;

    if (!queued)
        return NULL;
    net->first = queued->next;
    if (!net->first)
        net->last = &net->first;
    net->queued_bytes -= queued->size_bytes;
    return queued;
}

void net_free(struct net *net)
{
    struct queued_frame *queued;

    if (!net)
        return;
    net->frontend = NULL;
    if (net->kind->free)
        net->kind->free(net);
    while ((queued = take_first(net)))
        free(queued);
    capture_free(net->capture_to);
    properties_done(net->kind->properties, net);
    free(net->scratch);
    free(net);
}

int net_publish(struct net *net, const char *port, struct error *err)
{
    if (!net->kind->publish)
        return error_set(err, ENOTSUP, "the network '%s' has no ports of the host; 'user' has",
                         net->kind->name);
    return net->kind->publish(net, port, err);
}

bool net_connects(const struct net *net)
{
    return net->kind->connects;
}

bool net_is_up(const struct net *net)
{
    return net->up;
}

struct net_counts net_counts(const struct net *net)
{
    return net->counts;
}

int net_save(struct net *net, struct state_buffer *out, struct error *err)
{
    return net->kind->save ? net->kind->save(net, out, err) : 0;
}

int net_load(struct net *net, const struct state_buffer *saved, struct error *err)
{
    return net->kind->load && saved->size_bytes ? net->kind->load(net, saved, err) : 0;
}

/* ---- what a side does not take ---- */

static bool has_right_size(const struct net_frame *frame)
{
    return frame->size_bytes >= NET_HEADER_BYTES && frame->size_bytes <= NET_MAX_FRAME_BYTES;
}

/* What offload asks of the other side. */
static unsigned needs(const struct net_offload *offload)
{
    unsigned all = offload->needs_checksum ? NET_TAKES_CHECKSUM : 0;

    if (offload->gso != NET_GSO_NONE)
        all |= offload->gso == NET_GSO_TCP4 ? NET_TAKES_TCP4 : NET_TAKES_TCP6;
    return all | (offload->ecn ? NET_TAKES_ECN : 0);
}

/* Give put() a frame, or several, that need no more than is taken. */
static void simplify(struct net *net, const struct net_frame *frame, unsigned takes,
                     bool takes_long, net_put_frame *put)
{
    struct net_offload offload = frame->offload;
    struct io_piece piece = {net->scratch, frame->size_bytes};
    struct net_frame plain = {.pieces = &piece,
                              .piece_count = 1,
                              .size_bytes = frame->size_bytes,
                              .offload.checksum_valid = true};

    if (!(needs(&offload) & ~takes)) {
        put(net, frame);
        return;
    }
    net_gather(frame, net->scratch);
    if (offload.gso != NET_GSO_NONE) {
        if (takes_long)
            offload.segment_bytes = UINT16_MAX;
        net_cut(net->scratch, frame->size_bytes, &offload, put, net);
    } else if (net_fill_checksum(net->scratch, frame->size_bytes, &offload)) {
        put(net, &plain);
    }
}

/* ---- from the card ---- */

static void send_simple(void *opaque, const struct net_frame *frame)
{
    struct net *net = opaque;

    net->kind->send(net, frame);
}

bool net_can_send(const struct net *net)
{
    return !net->kind->is_busy || !net->kind->is_busy(net);
}

bool net_send(struct net *net, const struct net_frame *frame)
{
    if (!net_can_send(net))
        return false;
    net->counts.sent_frames++;
    net->counts.sent_bytes += frame->size_bytes;
    if (net->capture_to)
        capture_frame(net->capture_to, frame);
    if (net->up && has_right_size(frame))
        simplify(net, frame, net->kind->takes, net->kind->takes_long, send_simple);
    return true;
}

void net_sent(struct net *net)
{
    if (net->kind->sent)
        net->kind->sent(net);
}

void net_notify_can_send(struct net *net)
{
    if (net->frontend && net->frontend->can_send)
        net->frontend->can_send(net->frontend->opaque);
}

/* ---- to the card ---- */

static void enqueue(struct net *net, const struct net_frame *frame)
{
    struct queued_frame *queued;

    if (net->queued_bytes + frame->size_bytes > NET_QUEUE_BYTES)
        return;
    queued = malloc(sizeof(*queued) + frame->size_bytes);
    if (!queued)
        return;
    queued->next = NULL;
    queued->size_bytes = frame->size_bytes;
    queued->offload = frame->offload;
    net_gather(frame, queued->bytes);
    *net->last = queued;
    net->last = &queued->next;
    net->queued_bytes += frame->size_bytes;
}

static void receive_simple(void *opaque, const struct net_frame *frame)
{
    struct net *net = opaque;

    if (net->first || !net->frontend->receive(net->frontend->opaque, frame))
        enqueue(net, frame);
}

void net_deliver(struct net *net, const struct net_frame *frame)
{
    net->counts.received_frames++;
    net->counts.received_bytes += frame->size_bytes;
    if (net->capture_to)
        capture_frame(net->capture_to, frame);
    if (net->frontend && has_right_size(frame))
        simplify(net, frame, net->frontend->takes(net->frontend->opaque), false, receive_simple);
}

void net_delivered(struct net *net)
{
    if (net->frontend)
        net->frontend->received(net->frontend->opaque);
}

bool net_is_full(const struct net *net)
{
    return net->queued_bytes > NET_QUEUE_BYTES / 4;
}

/* True: it is gone. */
static bool deliver_first(struct net *net)
{
    struct queued_frame *queued = net->first;
    struct io_piece piece = {queued->bytes, queued->size_bytes};
    struct net_frame frame = {.pieces = &piece,
                              .piece_count = 1,
                              .size_bytes = queued->size_bytes,
                              .offload = queued->offload};
    const struct net_frontend *frontend = net->frontend;

    /* Another driver may take less than the one that it was made for. */
    if (!(needs(&queued->offload) & ~frontend->takes(frontend->opaque)) &&
        !frontend->receive(frontend->opaque, &frame))
        return false;
    free(take_first(net));
    return true;
}

void net_accept(struct net *net)
{
    bool was_full = net_is_full(net);

    if (!net->frontend || !net->first)
        return;
    while (net->first && deliver_first(net))
        ;
    net->frontend->received(net->frontend->opaque);
    if (was_full && !net_is_full(net) && net->kind->accept)
        net->kind->accept(net);
}

void net_connect(struct net *net, const struct net_frontend *frontend)
{
    net->frontend = frontend;
    if (frontend)
        net_accept(net);
}

void net_set_up(struct net *net, bool up)
{
    const struct net_frontend *frontend = net->frontend;

    if (net->up == up)
        return;
    net->up = up;
    if (frontend && frontend->link_changed)
        frontend->link_changed(frontend->opaque, up);
}
