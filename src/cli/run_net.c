/*
 * run_net.c - network cards of trapeze run, and what they are connected to
 *
 * "--net none" is no card. Without --net a guest that boots from firmware gets one on a user
 * network: it is a whole system, which expects one. A kernel that is started directly gets what
 * it is given.
 */
#include "cli/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"
#include "trapeze/net.h"

static const struct {
    const char *name, *summary, *class;
} interfaces[] = {
    {"virtio", "virtio-net on PCI", "virtio-net"},
    {NULL, NULL, NULL},
};

static void interface_choices(cli_put_choice *put, void *opaque)
{
    for (unsigned n = 0; interfaces[n].name; n++)
        put(opaque, interfaces[n].name, interfaces[n].summary);
}

void run_net_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "none", "no card");
    for (unsigned n = 0; net_kind_name(n); n++)
        put(opaque, net_kind_name(n), net_kind_summary(n));
}

int run_check_net(const char *text, struct error *err)
{
    char kind[32];

    snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(text, ","), text);
    return cli_check_choice("network", kind, run_net_choices, err);
}

static bool has_kind(const char *name)
{
    for (unsigned n = 0; net_kind_name(n); n++)
        if (strcmp(net_kind_name(n), name) == 0)
            return true;
    return false;
}

static const struct device_class *card_class(const char *interface, struct error *err)
{
    unsigned n = 0;

    if (!interface)
        interface = interfaces[0].name;
    if (cli_check_choice("network card", interface, interface_choices, err))
        return NULL;
    while (strcmp(interfaces[n].name, interface))
        n++;
    return device_class_find(interfaces[n].class);
}

/* Locally administered, of one card. The same for the same seed, as systems remember theirs. */
static void make_mac(char text[32], uint64_t seed, size_t card)
{
    uint64_t hash = seed + (card + 1) * 0x9e3779b97f4a7c15ull;

    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9ull;
    hash = (hash ^ hash >> 27) * 0x94d049bb133111ebull;
    hash ^= hash >> 31;
    snprintf(text, 32, "52:54:00:%02x:%02x:%02x", (unsigned)(hash & 0xff),
             (unsigned)(hash >> 8 & 0xff), (unsigned)(hash >> 16 & 0xff));
}

struct card {
    char interface[32], mac[32], queues[32], mtu[32];
    const char *chosen_interface, *chosen_mac, *chosen_queues, *chosen_mtu;
};

static int attach_card(struct machine *machine, const struct card *card, struct net *net,
                       struct error *err)
{
    const struct device_class *class = card_class(card->chosen_interface, err);
    struct device *dev = class ? device_new(machine, class, NULL, err) : NULL;

    if (!dev || device_set(dev, "mac", card->chosen_mac, err) ||
        (card->chosen_queues && device_set(dev, "queues", card->chosen_queues, err)) ||
        (card->chosen_mtu && device_set(dev, "mtu", card->chosen_mtu, err)) ||
        device_set_pointer(dev, "network", net, err))
        return -EINVAL;
    return device_attach(dev, err);
}

/* "KIND[,if=virtio][,mac=ADDRESS][,queues=N][,mtu=N][,PROPERTY=VALUE]...": the rest is
 * net_open()'s. */
static int add_network(struct run_networks *networks, struct machine *machine, const char *text,
                       uint64_t seed, struct error *err)
{
    char *rest = strdup(text);
    struct card card;
    struct net *net;
    int result = -EINVAL;

    if (!rest)
        return error_set(err, ENOMEM, "out of memory");
    card.chosen_interface = run_take_property(rest, "if=", card.interface);
    card.chosen_mac = run_take_property(rest, "mac=", card.mac);
    card.chosen_queues = run_take_property(rest, "queues=", card.queues);
    card.chosen_mtu = run_take_property(rest, "mtu=", card.mtu);
    if (!card.chosen_mac) {
        make_mac(card.mac, seed, networks->count);
        card.chosen_mac = card.mac;
    }
    net = net_open(machine_loop(machine), rest, err);
    if (net) {
        networks->nets[networks->count++] = net;
        networks->reads_files |= strstr(rest, "tftp=") != NULL;
        result = attach_card(machine, &card, net, err);
    }
    free(rest);
    if (result)
        error_prefix(err, "--net %s: ", text);
    return result;
}

static int publish_all(struct run_networks *networks, const struct cli_texts *publish,
                       struct error *err)
{
    for (size_t n = 0; n < publish->count; n++) {
        if (!networks->count)
            return error_set(err, EINVAL, "--publish %s: there is no network; use --net user",
                             publish->items[n]);
        if (net_publish(networks->nets[0], publish->items[n], err)) {
            error_prefix(err, "--publish %s: ", publish->items[n]);
            return -EINVAL;
        }
        log_info("%s: the host's port leads to the guest's", publish->items[n]);
    }
    return 0;
}

int run_add_networks(struct run_networks *networks, struct machine *machine,
                     const struct cli_texts *net, const struct cli_texts *publish, bool is_default,
                     uint64_t seed, struct error *err)
{
    if (net->count > RUN_MAX_NETS)
        return error_set(err, E2BIG, "%zu networks are too many; up to %d can be given", net->count,
                         RUN_MAX_NETS);
    for (size_t n = 0; n < net->count; n++)
        if (strcmp(net->items[n], "none") &&
            add_network(networks, machine, net->items[n], seed, err))
            return -EINVAL;
    if (!net->count && (is_default || publish->count) && has_kind("user") &&
        add_network(networks, machine, "user", seed, err))
        return -EINVAL;
    return publish_all(networks, publish, err);
}

bool run_networks_connect(const struct run_networks *networks)
{
    for (size_t n = 0; n < networks->count; n++)
        if (net_connects(networks->nets[n]))
            return true;
    return false;
}

void run_free_networks(struct run_networks *networks)
{
    for (size_t n = 0; n < networks->count; n++)
        net_free(networks->nets[n]);
    networks->count = 0;
}
