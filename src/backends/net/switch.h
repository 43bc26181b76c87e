/*
 * switch.h - an Ethernet switch with VLANs (IEEE 802.1Q), without its sockets
 *
 * Frames go in at a port and come out at others, by what the switch has learned of addresses. An
 * access port is in one VLAN and sees no tags; a trunk is in a list of VLANs and sees only frames
 * with a tag. No frame leaves the VLAN it came in. Not thread-safe.
 */
#ifndef BACKENDS_NET_SWITCH_H
#define BACKENDS_NET_SWITCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"
#include "trapeze/net.h"

#define SWITCH_PORTS       64u
#define SWITCH_VLANS       4096u /* 1 to 4094 are */
#define SWITCH_ENTRIES     1024u /* addresses that are known at a time */
#define SWITCH_PORT_SHARE  256u  /* of them from one port */
#define SWITCH_AGE_NS      300000000000ull
#define SWITCH_NAME_BYTES  32u
#define SWITCH_HELLO_BYTES 512u

/* ---- learned addresses ---- */

struct switch_entry {
    uint8_t mac[NET_MAC_BYTES];
    uint16_t vlan; /* 0: free */
    uint8_t port;
    uint64_t seen_ns;
};

/* Sets of entries; the oldest of a set makes room. Zeros are an empty table. */
struct switch_table {
    struct switch_entry entries[SWITCH_ENTRIES];
    uint16_t counts[SWITCH_PORTS]; /* of a port's entries */
};

void switch_learn(struct switch_table *table, uint16_t vlan, const uint8_t *mac, unsigned port,
                  uint64_t now_ns);
/* The port, or -1: not known, or not heard of for SWITCH_AGE_NS. */
int switch_find(const struct switch_table *table, uint16_t vlan, const uint8_t *mac,
                uint64_t now_ns);
void switch_forget(struct switch_table *table, unsigned port);

/* ---- the switch ---- */

struct switch_port_config {
    char name[SWITCH_NAME_BYTES];
    uint16_t vlan; /* of an access port; 0: a trunk */
    uint8_t vlans[SWITCH_VLANS / 8];
};

struct switch_port {
    bool used;
    struct switch_port_config config;
    /* The frame, or false: there is no room. */
    bool (*send)(void *opaque, const struct net_frame *frame);
    void *opaque;
    uint64_t received, sent, refused, lost; /* frames; refused: by the rules; lost: no room */
};

struct vlan_switch {
    struct switch_port ports[SWITCH_PORTS];
    struct switch_table table;
    /* What enters or leaves a port, as it looks there. May be NULL. */
    void (*watch)(void *opaque, unsigned port, const struct net_frame *frame);
    void *opaque;
};

/*
 * What a port wants to be: "port,name=web,vlan=5", "port,trunk=1+5-9", "port,trunk=all".
 * text ends with 0. Without both it is in VLAN 1.
 */
int switch_parse_port(const char *text, struct switch_port_config *out, struct error *err);
/* The number of the port; -ENOSPC. */
int switch_add_port(struct vlan_switch *s, const struct switch_port_config *config,
                    bool (*send)(void *opaque, const struct net_frame *frame), void *opaque);
void switch_remove_port(struct vlan_switch *s, unsigned port);
/* A frame from outside. */
void switch_input(struct vlan_switch *s, unsigned port, const uint8_t *frame, size_t size_bytes,
                  uint64_t now_ns);

/* Where a switch listens: name itself if it has a '/', else in the user's own folder. */
int switch_path(const char *name, char *out, size_t out_size, struct error *err);

#endif
