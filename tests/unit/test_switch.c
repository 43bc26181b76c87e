/*
 * test_switch.c - the switch between machines: learned addresses, VLANs, ports
 */
#include "../device/cmocka_all.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/net/internal.h"
#include "backends/net/switch.h"
#include "base/bytes.h"

#define SECOND_NS 1000000000ull

/* A port's other end: the last frame, and how many there were. */
struct end {
    uint8_t frame[2048];
    size_t size;
    unsigned count;
    bool is_full;
};

static struct vlan_switch *s;
static struct end ends[SWITCH_PORTS];
static uint64_t now_ns;

static bool take(void *opaque, const struct net_frame *frame)
{
    struct end *end = opaque;

    if (end->is_full)
        return false;
    net_gather(frame, end->frame);
    end->size = frame->size_bytes;
    end->count++;
    return true;
}

static int set_up(void **state)
{
    (void)state;
    s = calloc(1, sizeof(*s));
    memset(ends, 0, sizeof(ends));
    now_ns = SECOND_NS;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(s);
    return 0;
}

static unsigned add(const char *text)
{
    struct switch_port_config config;
    struct error err = {0};
    unsigned next = 0;

    while (s->ports[next].used)
        next++;
    assert_int_equal(switch_parse_port(text, &config, &err), 0);
    assert_int_equal(switch_add_port(s, &config, take, &ends[next]), next);
    return next;
}

/* From station from to station to (0: broadcast), with tags in front of the type. */
static size_t make(uint8_t *out, unsigned to, unsigned from, unsigned tags, const uint32_t *tag)
{
    size_t at = 12;

    memset(out, 0x5a, 100);
    memset(out, to ? 2 : 0xff, 6);
    memset(out + 6, 2, 6);
    if (to)
        out[5] = (uint8_t)to;
    out[11] = (uint8_t)from;
    for (unsigned n = 0; n < tags; n++, at += 4)
        put_be32(out + at, tag[n]);
    put_be16(out + at, 0x1234);
    return at + 50;
}

static void sends(unsigned port, unsigned to, unsigned from)
{
    uint8_t frame[100];

    switch_input(s, port, frame, make(frame, to, from, 0, NULL), now_ns);
}

static void sends_tagged(unsigned port, unsigned to, unsigned from, uint32_t tag)
{
    uint8_t frame[100];

    switch_input(s, port, frame, make(frame, to, from, 1, &tag), now_ns);
}

static void addresses_are_learned(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3; n++)
        add("port,vlan=5");
    sends(0, 2, 1); /* nobody knows 2 */
    assert_int_equal(ends[0].count, 0);
    assert_int_equal(ends[1].count, 1);
    assert_int_equal(ends[2].count, 1);
    sends(1, 1, 2);
    assert_int_equal(ends[0].count, 1);
    assert_int_equal(ends[2].count, 1);
    sends(0, 2, 1);
    assert_int_equal(ends[1].count, 2);
    assert_int_equal(ends[2].count, 1);
    sends(2, 2, 1); /* 1 has moved */
    sends(1, 1, 2);
    assert_int_equal(ends[2].count, 2);
    assert_int_equal(ends[0].count, 1);
    sends(2, 1, 9); /* back to where it came from: not */
    assert_int_equal(ends[2].count, 2);
}

static void addresses_are_forgotten(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3; n++)
        add("port");
    sends(1, 0, 2);
    now_ns += SWITCH_AGE_NS - 1;
    sends(0, 2, 1);
    assert_int_equal(ends[2].count, 1); /* only the broadcast */
    now_ns += 1;
    sends(0, 2, 1);
    assert_int_equal(ends[2].count, 2);
    sends(1, 0, 2);
    switch_remove_port(s, 1);
    assert_int_equal(switch_find(&s->table, 1, (const uint8_t *)"\2\2\2\2\2\2", now_ns), -1);
}

static void the_table_is_bounded(void **state)
{
    struct switch_table *table = &s->table;
    unsigned total = 0;
    uint8_t mac[6] = {2};

    (void)state;
    switch_learn(table, 7, (const uint8_t *)"\2aaaaa", 3, 1);
    for (uint32_t n = 0; n < 100000; n++) {
        put_be32(mac + 2, n * 2654435761u);
        switch_learn(table, 7, mac, n % 2, n + 2);
    }
    for (unsigned n = 0; n < SWITCH_PORTS; n++)
        total += table->counts[n];
    assert_true(table->counts[0] <= SWITCH_PORT_SHARE);
    assert_true(table->counts[1] <= SWITCH_PORT_SHARE);
    assert_true(total <= 2 * SWITCH_PORT_SHARE + 1);
    assert_int_equal(switch_find(table, 7, mac, 100000), -1); /* beyond its port's share */
    switch_forget(table, 0);
    assert_int_equal(table->counts[0], 0);
}

static void the_oldest_of_a_set_makes_room(void **state)
{
    struct switch_table *table = &s->table;
    uint8_t mac[6] = {2};

    (void)state;
    /* More than the table has, from ports that all have their share. */
    for (uint32_t n = 0; n < 2 * SWITCH_ENTRIES; n++) {
        put_be32(mac + 2, n * 2654435761u);
        switch_learn(table, 7, mac, n % 32, n + 1);
    }
    assert_int_equal(switch_find(table, 7, mac, 2 * SWITCH_ENTRIES), 31);
}

static void no_frame_leaves_its_vlan(void **state)
{
    (void)state;
    add("port,vlan=5");
    add("port,vlan=5");
    add("port,vlan=6");
    add("port,trunk=6+8-10");
    sends(0, 0, 1);
    assert_int_equal(ends[1].count, 1);
    assert_int_equal(ends[2].count + ends[3].count, 0);
    sends(2, 1, 3); /* 1 is known, in VLAN 5 */
    assert_int_equal(ends[0].count, 0);
    assert_int_equal(ends[3].count, 1);
}

static void trunks_see_tags(void **state)
{
    (void)state;
    add("port,vlan=5");
    add("port,vlan=6");
    add("port,trunk=5+6");
    add("port,trunk=all");
    sends(0, 0, 1);
    assert_int_equal(ends[2].size, 66);
    assert_int_equal(get_be32(ends[2].frame + 12), 0x81000005);
    assert_int_equal(get_be16(ends[2].frame + 16), 0x1234);
    sends_tagged(2, 1, 9, 0x8100a005); /* with a priority */
    assert_int_equal(ends[0].size, 62);
    assert_int_equal(get_be16(ends[0].frame + 12), 0x1234);
    assert_int_equal(ends[1].count, 0);
    sends_tagged(3, 9, 8, 0x81000005);
    assert_int_equal(get_be32(ends[2].frame + 12), 0x81000005);
    sends(2, 0, 9); /* no tag, no VLAN */
    sends_tagged(2, 0, 9, 0x81000007);
    assert_int_equal(s->ports[2].refused, 2);
    sends_tagged(3, 0, 8, 0x81000000);
    sends_tagged(3, 0, 8, 0x81000fff);
    assert_int_equal(s->ports[3].refused, 2);
}

static void tags_do_not_open_other_vlans(void **state)
{
    static const uint32_t twice[2] = {0x81000001, 0x81000006};
    static const uint32_t hidden[2] = {0x81000000, 0x81000006};
    static const uint32_t service[2] = {0x81000000, 0x88a80006};
    static const uint32_t both[2] = {0x81000005, 0x81000006};
    uint8_t frame[100];

    (void)state;
    add("port,vlan=5");
    add("port,vlan=6");
    add("port,trunk=5+6");
    sends_tagged(0, 0, 1, 0x81000006);
    sends_tagged(0, 0, 1, 0x81000005);
    switch_input(s, 0, frame, make(frame, 0, 1, 2, twice), now_ns);
    switch_input(s, 0, frame, make(frame, 0, 1, 2, hidden), now_ns);
    switch_input(s, 0, frame, make(frame, 0, 1, 2, service), now_ns);
    assert_int_equal(s->ports[0].refused, 5);
    assert_int_equal(ends[1].count + ends[2].count, 0);
    sends_tagged(0, 0, 1, 0x8100e000); /* a priority is not a VLAN */
    assert_int_equal(get_be32(ends[2].frame + 12), 0x8100e005);
    switch_input(s, 2, frame, make(frame, 0, 9, 2, both), now_ns);
    assert_int_equal(ends[1].count, 0);
    assert_int_equal(ends[0].size, 66); /* the second tag is data */
    assert_int_equal(get_be32(ends[0].frame + 12), 0x81000006);
}

static void wrong_frames_are_refused(void **state)
{
    uint8_t frame[100];

    (void)state;
    add("port");
    add("port");
    make(frame, 0, 1, 0, NULL);
    switch_input(s, 0, frame, 13, now_ns);
    frame[6] = 3; /* a group sends nothing */
    switch_input(s, 0, frame, 60, now_ns);
    make(frame, 0, 1, 0, NULL);
    memcpy(frame, "\x01\x80\xc2\x00\x00\x00", 6); /* spanning tree */
    switch_input(s, 0, frame, 60, now_ns);
    put_be16(frame + 12, 0x8100);
    switch_input(s, 0, frame, 17, now_ns);
    assert_int_equal(s->ports[0].refused, 4);
    assert_int_equal(ends[1].count, 0);
}

static void who_takes_nothing_stops_nobody(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3; n++)
        add("port");
    ends[1].is_full = true;
    sends(0, 0, 1);
    sends(0, 0, 1);
    assert_int_equal(ends[2].count, 2);
    assert_int_equal(s->ports[1].lost, 2);
    assert_int_equal(s->ports[2].sent, 2);
}

static void ports_say_what_they_are(void **state)
{
    static const struct {
        const char *text, *part;
    } wrong[] = {
        {"watch", "no port"},
        {"portal", "no port"},
        {"port,vlan=4095", "1 to 4094"},
        {"port,vlan=5,trunk=6", "not both"},
        {"port,trunk=0", "1 to 4094"},
        {"port,trunk=5-4095", "1 to 4094"},
        {"port,trunk=9-5", "1 to 4094"},
        {"port,trunk=5+x", "1 to 4094"},
        {"port,trunk=-5", "1 to 4094"},
        {"port,colour=red", "colour"},
    };
    struct switch_port_config config;
    struct error err = {0};

    (void)state;
    for (size_t n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
        err = (struct error){0};
        assert_int_not_equal(switch_parse_port(wrong[n].text, &config, &err), 0);
        if (!strstr(err.text, wrong[n].part))
            fail_msg("'%s': %s", wrong[n].text, err.text);
    }
    assert_int_equal(switch_parse_port("port,name=a\nb", &config, &err), 0);
    assert_string_equal(config.name, "a?b");
    assert_int_equal(config.vlan, 1);
    assert_int_equal(switch_parse_port("port,trunk=3+5-6", &config, &err), 0);
    assert_int_equal(config.vlans[0], 0x68);
    for (unsigned n = 0; n < SWITCH_PORTS; n++)
        add("port");
    assert_int_equal(switch_add_port(s, &config, take, NULL), -ENOSPC);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(addresses_are_learned),          TEST(addresses_are_forgotten),
        TEST(the_table_is_bounded),           TEST(the_oldest_of_a_set_makes_room),
        TEST(no_frame_leaves_its_vlan),       TEST(trunks_see_tags),
        TEST(tags_do_not_open_other_vlans),   TEST(wrong_frames_are_refused),
        TEST(who_takes_nothing_stops_nobody), TEST(ports_say_what_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
