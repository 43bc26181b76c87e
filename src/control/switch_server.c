/*
 * switch_server.c - a switch between machines, as a server on a socket
 *
 * Each connection is a stream of frames (frame_stream.h). Its first says what it wants: "port,..."
 * to be a port (switch_parse_port), "show" to be sent one frame of JSON, "watch,N" to be sent what
 * enters and leaves port N. Who breaks the protocol is cut off.
 *
 * Every connection has its own buffers and is read in turn, one buffer at a time, so that neither
 * one that floods nor one that does not read stops others: it loses frames.
 */
#include "control/switch_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "backends/net/frame_stream.h"
#include "backends/net/switch.h"
#include "base/log.h"
#include "control/stream.h"
#include "host/host.h"
#include "host/loop.h"

#define MAX_CONNECTIONS (SWITCH_PORTS + 16u)

enum role { NEW, PORT, WATCHER, ANSWERED };

struct connection {
    struct switch_server *server;
    struct connection *next;
    struct loop_fd *handler;
    int fd;
    struct frame_stream stream;
    enum role role;
    unsigned port;  /* its own, or that it watches */
    bool is_broken; /* it says what is none of the above */
};

struct switch_server {
    struct loop *loop;
    struct stream_server *listener;
    struct vlan_switch vlan_switch;
    struct connection *connections;
    unsigned count, watchers;
};

/* ---- answers ---- */

static json_t *vlans_of(const struct switch_port_config *config)
{
    json_t *vlans = json_array();

    for (unsigned n = 1; n < SWITCH_VLANS; n++) {
        unsigned first = n;

        while (n < SWITCH_VLANS && config->vlans[n / 8] >> n % 8 & 1)
            n++;
        if (n > first)
            json_array_append_new(vlans, json_pack("[ii]", first, n - 1));
    }
    return vlans;
}

static json_t *describe_port(unsigned number, const struct switch_port *port)
{
    json_t *text = json_pack("{si ss sI sI sI sI}", "port", number, "name", port->config.name,
                             "received", (json_int_t)port->received, "sent", (json_int_t)port->sent,
                             "refused", (json_int_t)port->refused, "lost", (json_int_t)port->lost);

    if (port->config.vlan)
        json_object_set_new(text, "vlan", json_integer(port->config.vlan));
    else
        json_object_set_new(text, "trunk", vlans_of(&port->config));
    return text;
}

static json_t *describe_entry(const struct switch_entry *entry, uint64_t now_ns)
{
    const uint8_t *m = entry->mac;
    char mac[18];

    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
    return json_pack("{ss si si sI}", "mac", mac, "vlan", entry->vlan, "port", entry->port, "age_s",
                     (json_int_t)((now_ns - entry->seen_ns) / 1000000000u));
}

static json_t *describe(const struct vlan_switch *s)
{
    json_t *ports = json_array(), *addresses = json_array();
    uint64_t now_ns = host_monotonic_ns();

    for (unsigned n = 0; n < SWITCH_PORTS; n++)
        if (s->ports[n].used)
            json_array_append_new(ports, describe_port(n, &s->ports[n]));
    for (unsigned n = 0; n < SWITCH_ENTRIES; n++)
        if (s->table.entries[n].vlan && now_ns - s->table.entries[n].seen_ns < SWITCH_AGE_NS)
            json_array_append_new(addresses, describe_entry(&s->table.entries[n], now_ns));
    return json_pack("{so so}", "ports", ports, "addresses", addresses);
}

/* Longer than a frame: in several, of which the last is short. */
static void answer(struct connection *c, const char *text)
{
    size_t left = strlen(text) + 1;

    while (left) {
        size_t part = left < NET_MAX_FRAME_BYTES ? left : NET_MAX_FRAME_BYTES;
        struct io_piece piece = {(void *)text, part};
        struct net_frame frame = {.pieces = &piece, .piece_count = 1, .size_bytes = part};

        if (!frame_stream_add(&c->stream, &frame))
            break;
        text += part;
        left -= part;
    }
}

static void show(struct connection *c)
{
    json_t *all = describe(&c->server->vlan_switch);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;

    if (text)
        answer(c, text);
    free(text);
    json_decref(all);
    c->role = ANSWERED;
}

/* ---- frames ---- */

static bool send_frame(void *opaque, const struct net_frame *frame)
{
    struct connection *c = opaque;

    return frame_stream_add(&c->stream, frame);
}

static void watch(void *opaque, unsigned port, const struct net_frame *frame)
{
    struct switch_server *server = opaque;

    for (struct connection *c = server->connections; c; c = c->next)
        if (c->role == WATCHER && c->port == port)
            frame_stream_add(&c->stream, frame);
}

static void become_port(struct connection *c, const char *text)
{
    struct switch_port_config config;
    struct error err = {0};
    int port = -EINVAL;

    if (!switch_parse_port(text, &config, &err))
        port = switch_add_port(&c->server->vlan_switch, &config, send_frame, c);
    if (port < 0) {
        log_warn("switch: a port is refused: %s", err.code ? err.text : "there are no more");
        c->is_broken = true;
        return;
    }
    c->role = PORT;
    c->port = (unsigned)port;
    if (config.vlan)
        log_info("switch: port %u is '%s', in VLAN %u", c->port, config.name, config.vlan);
    else
        log_info("switch: port %u is '%s', a trunk", c->port, config.name);
}

static void become_watcher(struct connection *c, const char *number)
{
    char *end;
    unsigned long port = strtoul(number, &end, 10);

    c->is_broken =
        end == number || *end || port >= SWITCH_PORTS || !c->server->vlan_switch.ports[port].used;
    if (c->is_broken)
        return;
    c->role = WATCHER;
    c->port = (unsigned)port;
    c->server->watchers++;
    c->server->vlan_switch.watch = watch;
}

static void greet(struct connection *c, const uint8_t *bytes, size_t size)
{
    char text[SWITCH_HELLO_BYTES] = "";

    c->is_broken = size >= sizeof(text) || memchr(bytes, '\0', size);
    if (c->is_broken)
        return;
    memcpy(text, bytes, size);
    if (strcmp(text, "show") == 0)
        show(c);
    else if (strncmp(text, "watch,", 6) == 0)
        become_watcher(c, text + 6);
    else
        become_port(c, text);
}

static void take(void *opaque, uint8_t *bytes, size_t size)
{
    struct connection *c = opaque;

    if (c->is_broken)
        return;
    if (c->role == NEW)
        greet(c, bytes, size);
    else if (c->role == PORT)
        switch_input(&c->server->vlan_switch, c->port, bytes, size, host_monotonic_ns());
}

/* ---- connections ---- */

static void end_connection(struct connection *c)
{
    struct switch_server *server = c->server;
    struct connection **link = &server->connections;

    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    server->count--;
    if (c->role == PORT) {
        log_info("switch: port %u is gone", c->port);
        switch_remove_port(&server->vlan_switch, c->port);
    }
    if (c->role == WATCHER && !--server->watchers)
        server->vlan_switch.watch = NULL;
    loop_remove_fd(c->handler);
    close(c->fd);
    frame_stream_done(&c->stream);
    free(c);
}

static void write_all(struct switch_server *server)
{
    for (struct connection *c = server->connections; c; c = c->next) {
        if (c->stream.output_bytes)
            frame_stream_write(&c->stream, c->fd);
        loop_set_events(c->handler,
                        LOOP_READ | (c->stream.output_bytes ? (unsigned)LOOP_WRITE : 0u));
    }
}

static void on_connection(void *opaque, unsigned events)
{
    struct connection *c = opaque;
    struct switch_server *server = c->server;
    int result = events & LOOP_READ ? frame_stream_read(&c->stream, c->fd, take, c) : 0;

    if (c->role == ANSWERED)
        frame_stream_write(&c->stream, c->fd);
    if (c->is_broken || (result && result != -EAGAIN) ||
        (c->role == ANSWERED && !c->stream.output_bytes))
        end_connection(c);
    write_all(server);
}

static void accepted(void *opaque, int fd)
{
    struct switch_server *server = opaque;
    struct connection *c = server->count < MAX_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
    struct error err = {0};

    if (c && frame_stream_init(&c->stream))
        c->handler = loop_add_fd(server->loop, fd, LOOP_READ, on_connection, c, &err);
    if (!c || !c->handler) {
        log_warn("switch: a connection is refused: there are too many");
        close(fd);
        if (c)
            frame_stream_done(&c->stream);
        free(c);
        return;
    }
    c->server = server;
    c->fd = fd;
    c->next = server->connections;
    server->connections = c;
    server->count++;
}

struct switch_server *switch_server_new(struct loop *loop, const char *path, struct error *err)
{
    struct switch_server *server = calloc(1, sizeof(*server));
    char address[128];

    if (!server) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    server->loop = loop;
    server->vlan_switch.opaque = server;
    snprintf(address, sizeof(address), "unix:%s", path);
    server->listener = stream_listen(loop, address, accepted, server, err);
    if (server->listener)
        return server;
    switch_server_free(server);
    return NULL;
}

void switch_server_free(struct switch_server *server)
{
    if (!server)
        return;
    while (server->connections)
        end_connection(server->connections);
    stream_server_free(server->listener);
    free(server);
}
