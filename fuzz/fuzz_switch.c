/*
 * fuzz_switch.c - hostile machines at a switch: what ports say they are, frames with any tags
 *
 * The input is steps: a port comes (with words of the input or well-formed ones), goes, or sends a
 * frame; time passes. Claims: what comes out at a port belongs to the VLAN that its frame came in
 * by, and that the port is in, as a second opinion on tags says; the counts of the table agree.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/net/internal.h"
#include "backends/net/switch.h"
#include "base/bytes.h"

#define CLAIM(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "claim failed: %s\n", #condition);                                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct input {
    const uint8_t *data;
    size_t left;
};

static struct vlan_switch s;
static unsigned numbers[SWITCH_PORTS];
static unsigned current_vlan, from; /* of the frame that is under way; 0: it should go nowhere */

static unsigned take(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->data++;
}

static bool is_in(unsigned port, unsigned vlan)
{
    const struct switch_port_config *c = &s.ports[port].config;

    return c->vlan ? c->vlan == vlan : c->vlans[vlan >> 3] & 1u << (vlan & 7);
}

static bool send_frame(void *opaque, const struct net_frame *frame)
{
    static uint8_t bytes[NET_MAX_FRAME_BYTES];
    unsigned port = *(unsigned *)opaque;

    CLAIM(current_vlan && port != from && is_in(port, current_vlan));
    CLAIM(frame->size_bytes <= NET_MAX_FRAME_BYTES);
    net_gather(frame, bytes);
    if (!s.ports[port].config.vlan)
        CLAIM(get_be16(bytes + 12) == 0x8100 && (get_be16(bytes + 14) & 0xfff) == current_vlan);
    return !(port & 1);
}

/* The VLAN that the standard gives the frame. */
static unsigned vlan_of(unsigned port, const uint8_t *frame, size_t size)
{
    unsigned own = s.ports[port].config.vlan;
    bool has_tag = size >= 18 && frame[12] == 0x81 && frame[13] == 0;
    unsigned tag = has_tag ? (frame[14] << 8 | frame[15]) & 0xfff : 0;

    if (size < 14 || (own && tag))
        return 0;
    return own ? own : has_tag && is_in(port, tag) ? tag : 0;
}

static void port_comes(struct input *in)
{
    static const char *const texts[] = {"port,vlan=5", "port,vlan=6", "port,trunk=5+6",
                                        "port,trunk=all"};
    struct switch_port_config config;
    struct error err = {0};
    char text[64] = "port,";
    unsigned what = take(in);
    int port;

    for (size_t n = 5; what & 0x80 && n < 5 + (what & 31); n++)
        text[n] = (char)take(in);
    if (switch_parse_port(what & 0x80 ? text : texts[what & 3], &config, &err))
        return;
    port = switch_add_port(&s, &config, send_frame, NULL);
    if (port < 0)
        return;
    numbers[port] = (unsigned)port;
    s.ports[port].opaque = &numbers[port];
}

static void port_sends(struct input *in, unsigned port, uint64_t now_ns)
{
    static const uint16_t types[4] = {0x8100, 0x88a8, 0x0800, 0x9100};
    uint8_t frame[80] = {0};
    unsigned what = take(in);
    size_t size = what & 0x40 ? take(in) % 80 : 60, at = 12;

    frame[0] = what & 1 ? 2 : 0xff;
    frame[5] = (uint8_t)take(in);
    frame[6] = what & 2 ? (uint8_t)take(in) : 2;
    frame[11] = (uint8_t)take(in);
    for (unsigned tags = what >> 2 & 3; tags; tags--, at += 4) {
        unsigned tag = take(in);

        put_be16(frame + at, types[tag & 3]);
        put_be16(frame + at + 2, tag & 4 ? take(in) << 8 | take(in) : tag >> 4);
    }
    from = port;
    current_vlan = vlan_of(port, frame, size);
    switch_input(&s, port, frame, size, now_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint64_t now_ns = 1;
    unsigned counts[SWITCH_PORTS] = {0};

    memset(&s, 0, sizeof(s));
    while (in.left) {
        unsigned what = take(&in), port = what >> 2 & 15;

        if ((what & 3) == 0)
            port_comes(&in);
        else if ((what & 0xc3) == 1 && s.ports[port].used)
            switch_remove_port(&s, port);
        else if ((what & 0xc3) == 0x41)
            now_ns += (uint64_t)take(&in) << 32;
        else if (s.ports[port].used)
            port_sends(&in, port, now_ns);
    }
    for (unsigned n = 0; n < SWITCH_ENTRIES; n++)
        if (s.table.entries[n].vlan)
            counts[s.table.entries[n].port]++;
    for (unsigned n = 0; n < SWITCH_PORTS; n++)
        CLAIM(counts[n] == s.table.counts[n] && counts[n] <= SWITCH_PORT_SHARE);
    return 0;
}
