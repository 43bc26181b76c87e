/*
 * switch.c - an Ethernet switch with VLANs (IEEE 802.1Q), without its sockets
 *
 * Theory of operation. At ingress every frame gets its VLAN: an access port's own, or that of the
 * tag on a trunk. What has no right to be there ends there: a tag at an access port (but a
 * priority's, of VLAN 0, in front of no other), no tag or one of another VLAN at a trunk, a sender
 * that is a group, groups that never pass a bridge (01:80:c2:00:00:0x). Inside a frame is without
 * its tag; at egress a trunk puts it in front. A further tag behind the first is data: it chooses
 * nothing.
 *
 * Addresses are learned per VLAN, in a table of bounded size, of which a port has a bounded share:
 * a guest that makes addresses up makes its own VLAN flood, at worst. A port that takes no more
 * frames loses them; no other waits for it.
 */
#include "backends/net/switch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "trapeze/property.h"

#define WAYS          4u
#define SETS          (SWITCH_ENTRIES / WAYS)
#define ADDRESSES     12u /* bytes: both of a frame */
#define TAG_BYTES     4u
#define TAG_TYPE      0x8100u
#define SERVICE_TYPE  0x88a8u
#define VLAN_MASK     0xfffu
#define PRIORITY_MASK 0xe000u
#define DEFAULT_VLAN  1u
#define LAST_VLAN     4094u

/* ---- learned addresses ---- */

static struct switch_entry *set_of(const struct switch_table *table, uint16_t vlan,
                                   const uint8_t *mac)
{
    uint64_t hash = ((uint64_t)get_be32(mac) << 16 | get_be16(mac + 4)) ^ (uint64_t)vlan << 48;

    hash *= 0x9e3779b97f4a7c15ull;
    return (struct switch_entry *)table->entries + (hash >> 40) % SETS * WAYS;
}

static bool is_it(const struct switch_entry *entry, uint16_t vlan, const uint8_t *mac)
{
    return entry->vlan == vlan && !memcmp(entry->mac, mac, NET_MAC_BYTES);
}

int switch_find(const struct switch_table *table, uint16_t vlan, const uint8_t *mac,
                uint64_t now_ns)
{
    const struct switch_entry *set = set_of(table, vlan, mac);

    for (unsigned n = 0; n < WAYS; n++)
        if (is_it(&set[n], vlan, mac))
            return now_ns - set[n].seen_ns < SWITCH_AGE_NS ? set[n].port : -1;
    return -1;
}

/* The one that is it, else a free one, else the oldest. */
static struct switch_entry *choose(struct switch_entry *set, uint16_t vlan, const uint8_t *mac)
{
    struct switch_entry *chosen = &set[0];

    for (unsigned n = 0; n < WAYS; n++) {
        if (is_it(&set[n], vlan, mac))
            return &set[n];
        if (chosen->vlan && (!set[n].vlan || set[n].seen_ns < chosen->seen_ns))
            chosen = &set[n];
    }
    return chosen;
}

void switch_learn(struct switch_table *table, uint16_t vlan, const uint8_t *mac, unsigned port,
                  uint64_t now_ns)
{
    struct switch_entry *entry = choose(set_of(table, vlan, mac), vlan, mac);
    bool is_ours = entry->vlan && entry->port == port;

    if (!is_ours && table->counts[port] >= SWITCH_PORT_SHARE)
        return;
    if (entry->vlan)
        table->counts[entry->port]--;
    table->counts[port]++;
    *entry = (struct switch_entry){.vlan = vlan, .port = (uint8_t)port, .seen_ns = now_ns};
    memcpy(entry->mac, mac, NET_MAC_BYTES);
}

void switch_forget(struct switch_table *table, unsigned port)
{
    for (unsigned n = 0; n < SWITCH_ENTRIES; n++)
        if (table->entries[n].port == port)
            table->entries[n].vlan = 0;
    table->counts[port] = 0;
}

/* ---- ports ---- */

static bool is_in(const struct switch_port_config *config, uint16_t vlan)
{
    if (config->vlan)
        return config->vlan == vlan;
    return config->vlans[vlan / 8] >> vlan % 8 & 1;
}

/* "1+5-9" or "all" */
static int parse_vlans(const char *text, uint8_t *vlans, struct error *err)
{
    const char *at = strcmp(text, "all") == 0 || strcmp(text, "on") == 0 ? "1-4094" : text;

    while (*at) {
        char *end;
        unsigned long first = strtoul(at, &end, 10), last = first;

        if (end != at && *end == '-') {
            at = end + 1;
            last = strtoul(at, &end, 10);
        }
        if (end == at || (*end && *end != '+') || !first || first > last || last > LAST_VLAN)
            return error_set(err, EINVAL,
                             "trunk=%s: it is 'all' or VLANs from 1 to 4094, like 1+5-9", text);
        for (; first <= last; first++)
            vlans[first / 8] |= (uint8_t)(1u << first % 8);
        at = end + (*end == '+');
    }
    return 0;
}

struct hello {
    char *name, *trunk;
    uint16_t vlan;
};

static const struct property hello_properties[] = {
    PROPERTY_STRING(struct hello, name, "port", "name"),
    PROPERTY_STRING(struct hello, trunk, NULL, "VLANs of a trunk"),
    PROPERTY_U16(struct hello, vlan, 0, "VLAN of an access port"),
    PROPERTY_END,
};

static int make_config(const struct hello *hello, struct switch_port_config *out, struct error *err)
{
    *out = (struct switch_port_config){.vlan = hello->vlan};
    if (hello->trunk && hello->vlan)
        return error_set(err, EINVAL, "a port has vlan= or trunk=, not both");
    if (hello->vlan > LAST_VLAN)
        return error_set(err, EINVAL, "vlan=%u: there are 1 to 4094", hello->vlan);
    if (!hello->trunk && !hello->vlan)
        out->vlan = DEFAULT_VLAN;
    for (size_t n = 0; hello->name[n] && n < SWITCH_NAME_BYTES - 1; n++)
        out->name[n] = hello->name[n] > ' ' && hello->name[n] < 127 ? hello->name[n] : '?';
    return hello->trunk ? parse_vlans(hello->trunk, out->vlans, err) : 0;
}

int switch_parse_port(const char *text, struct switch_port_config *out, struct error *err)
{
    size_t word = strcspn(text, ",");
    struct hello hello = {NULL};
    int result;

    if (word != 4 || memcmp(text, "port", word))
        return error_set(err, EINVAL, "this is no port");
    result = properties_init(hello_properties, &hello, err);
    if (!result && text[word])
        result = properties_parse(hello_properties, &hello, text + word + 1, err);
    if (!result)
        result = make_config(&hello, out, err);
    properties_done(hello_properties, &hello);
    return result;
}

int switch_add_port(struct vlan_switch *s, const struct switch_port_config *config,
                    bool (*send)(void *opaque, const struct net_frame *frame), void *opaque)
{
    for (unsigned n = 0; n < SWITCH_PORTS; n++) {
        if (s->ports[n].used)
            continue;
        s->ports[n] =
            (struct switch_port){.used = true, .config = *config, .send = send, .opaque = opaque};
        return (int)n;
    }
    return -ENOSPC;
}

void switch_remove_port(struct vlan_switch *s, unsigned port)
{
    s->ports[port].used = false;
    switch_forget(&s->table, port);
}

/* ---- frames ---- */

/* A frame in the switch: its tag is beside it. */
struct inner {
    uint16_t tag; /* priority and VLAN */
    const uint8_t *addresses, *rest;
    size_t rest_bytes;
};

static void watch(const struct vlan_switch *s, unsigned port, const struct net_frame *frame)
{
    if (s->watch)
        s->watch(s->opaque, port, frame);
}

/* False: it has no right to be at that port. */
static bool classify(const struct switch_port_config *config, const uint8_t *frame, size_t size,
                     struct inner *out)
{
    unsigned type, inner;

    if (size < NET_HEADER_BYTES || size > NET_MAX_FRAME_BYTES - TAG_BYTES)
        return false;
    *out = (struct inner){
        .addresses = frame, .rest = frame + ADDRESSES, .rest_bytes = size - ADDRESSES};
    type = get_be16(out->rest);
    if (type == TAG_TYPE) {
        if (size < NET_HEADER_BYTES + TAG_BYTES)
            return false;
        out->tag = get_be16(out->rest + 2);
        out->rest += TAG_BYTES;
        out->rest_bytes -= TAG_BYTES;
    }
    if (!config->vlan)
        return type == TAG_TYPE && is_in(config, out->tag & VLAN_MASK);
    inner = get_be16(out->rest);
    if (type == TAG_TYPE && (out->tag & VLAN_MASK || inner == TAG_TYPE || inner == SERVICE_TYPE))
        return false;
    out->tag = (uint16_t)((out->tag & PRIORITY_MASK) | config->vlan);
    return true;
}

static void send_to(struct vlan_switch *s, unsigned number, const struct inner *frame)
{
    struct switch_port *port = &s->ports[number];
    uint8_t tag[TAG_BYTES];
    struct io_piece pieces[3] = {{(void *)frame->addresses, ADDRESSES}};
    struct net_frame out = {
        .pieces = pieces, .piece_count = 2, .size_bytes = ADDRESSES + frame->rest_bytes};

    if (!port->config.vlan) {
        put_be16(tag, TAG_TYPE);
        put_be16(tag + 2, frame->tag);
        pieces[1] = (struct io_piece){tag, TAG_BYTES};
        out.piece_count++;
        out.size_bytes += TAG_BYTES;
    }
    pieces[out.piece_count - 1] = (struct io_piece){(void *)frame->rest, frame->rest_bytes};
    watch(s, number, &out);
    if (port->send(port->opaque, &out))
        port->sent++;
    else
        port->lost++;
}

static bool never_passes(const uint8_t *mac)
{
    static const uint8_t group[] = {0x01, 0x80, 0xc2, 0x00, 0x00};

    return !memcmp(mac, group, sizeof(group)) && mac[5] < 16;
}

static void forward(struct vlan_switch *s, unsigned from, const struct inner *frame,
                    uint64_t now_ns)
{
    uint16_t vlan = frame->tag & VLAN_MASK;
    int to = frame->addresses[0] & 1 ? -1 : switch_find(&s->table, vlan, frame->addresses, now_ns);

    if (to == (int)from)
        return;
    if (to >= 0) {
        send_to(s, (unsigned)to, frame);
        return;
    }
    for (unsigned n = 0; n < SWITCH_PORTS; n++)
        if (n != from && s->ports[n].used && is_in(&s->ports[n].config, vlan))
            send_to(s, n, frame);
}

void switch_input(struct vlan_switch *s, unsigned number, const uint8_t *frame, size_t size_bytes,
                  uint64_t now_ns)
{
    struct switch_port *port = &s->ports[number];
    struct io_piece piece = {(void *)frame, size_bytes};
    struct net_frame whole = {.pieces = &piece, .piece_count = 1, .size_bytes = size_bytes};
    struct inner inner;

    watch(s, number, &whole);
    port->received++;
    if (!classify(&port->config, frame, size_bytes, &inner) || inner.addresses[NET_MAC_BYTES] & 1 ||
        never_passes(inner.addresses)) {
        port->refused++;
        return;
    }
    switch_learn(&s->table, inner.tag & VLAN_MASK, inner.addresses + NET_MAC_BYTES, number, now_ns);
    forward(s, number, &inner, now_ns);
}

/* ---- its name ---- */

int switch_path(const char *name, char *out, size_t out_size, struct error *err)
{
    const char *folder = getenv("XDG_RUNTIME_DIR");
    int size;

    if (strchr(name, '/'))
        size = snprintf(out, out_size, "%s", name);
    else if (folder && *folder)
        size = snprintf(out, out_size, "%s/trapeze-switch-%s", folder, name);
    else
        size = snprintf(out, out_size, "/tmp/trapeze-switch-%u-%s", (unsigned)getuid(), name);
    if (size < 0 || (size_t)size >= out_size)
        return error_set(err, ENAMETOOLONG, "the name '%s' of a switch is too long", name);
    return 0;
}
