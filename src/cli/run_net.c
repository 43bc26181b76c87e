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
#include <unistd.h>

#include "base/log.h"
#include "host/file.h"
#include "host/host.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"
#include "trapeze/net.h"
#include "trapeze/pci.h"

/* rom: from the package ipxe-qemu. */
static const struct model {
    const char *name, *summary, *class, *rom;
} models[] = {
    {"virtio", "virtio-net on PCI", "virtio-net", "/usr/lib/ipxe/qemu/efi-virtio.rom"},
    {"virtio-mmio", "virtio-net without PCI", "virtio-net-mmio", NULL},
    {"e1000", "Intel 82540EM", "e1000", "/usr/lib/ipxe/qemu/efi-e1000.rom"},
    {.name = NULL},
};

static void model_choices(cli_put_choice *put, void *opaque)
{
    for (unsigned n = 0; models[n].name; n++)
        put(opaque, models[n].name, models[n].summary);
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

    snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(text, ",="), text);
    return cli_check_choice("network", kind, run_net_choices, err);
}

static bool has_kind(const char *name)
{
    for (unsigned n = 0; net_kind_name(n); n++)
        if (strcmp(net_kind_name(n), name) == 0)
            return true;
    return false;
}

static const struct model *find_model(const char *name, struct error *err)
{
    const struct model *model = models;

    if (name && cli_check_choice("network card", name, model_choices, err))
        return NULL;
    while (name && strcmp(model->name, name))
        model++;
    return model;
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

/* What a word of --net says of the card; the rest is net_open()'s. NULL: nothing. */
struct card {
    char model_text[32], mac_text[32], queues_text[32], mtu_text[32], transitional_text[32];
    char boot_index_text[32], rom_text[4096];
    const char *model, *mac, *queues, *mtu, *transitional, *boot_index, *romfile;
};

static void take_card(struct card *card, char *properties)
{
    card->model = run_take_property(properties, "model=", card->model_text);
    if (!card->model)
        card->model = run_take_property(properties, "if=", card->model_text);
    card->mac = run_take_property(properties, "mac=", card->mac_text);
    card->queues = run_take_property(properties, "queues=", card->queues_text);
    card->mtu = run_take_property(properties, "mtu=", card->mtu_text);
    card->transitional = run_take_property(properties, "transitional=", card->transitional_text);
    card->boot_index = run_take_property(properties, "bootindex=", card->boot_index_text);
    card->romfile = run_take_text(properties, "romfile=", card->rom_text, sizeof(card->rom_text));
}

static int set_if_said(struct device *dev, const char *property, const char *value,
                       struct error *err)
{
    return value ? device_set(dev, property, value, err) : 0;
}

static struct device *attach_card(struct machine *machine, const struct card *card,
                                  const char *place, struct net *net, bool boots, struct error *err)
{
    const struct model *model = find_model(card->model, err);
    const struct device_class *class = model ? device_class_find(model->class) : NULL;
    struct device *dev = class ? device_new(machine, class, NULL, err) : NULL;
    const char *romfile = card->romfile;

    if (model && model->rom && !romfile && boots && !access(model->rom, R_OK))
        romfile = model->rom;
    if (dev && !device_set(dev, "mac", card->mac, err) &&
        !set_if_said(dev, "queues", card->queues, err) &&
        !set_if_said(dev, "mtu", card->mtu, err) &&
        !set_if_said(dev, "transitional", card->transitional, err) &&
        !set_if_said(dev, "romfile", romfile, err) && !set_if_said(dev, "addr", place, err) &&
        !run_set_boot_index(dev, RUN_BOOT_NETWORK, card->boot_index, err) &&
        !device_set_pointer(dev, "network", net, err) && !device_attach(dev, err))
        return dev;
    device_free(dev);
    return NULL;
}

/* A port of a switch has the machine's name, unless it has one of its own. */
static struct net *open_network(struct machine *machine, const char *text, const char *name,
                                struct error *err)
{
    char named[1024];

    if (strstr(text, "tftp=") && !host_may(HOST_MAY_READ)) {
        error_set(err, EACCES,
                  "a machine that began without tftp= can, in its sandbox, read no files");
        return NULL;
    }
    if (!strncmp(text, "switch=", 7) && !strstr(text, ",name=") && !strchr(name, ',') &&
        (size_t)snprintf(named, sizeof(named), "%s,name=%.31s", text, name) < sizeof(named))
        text = named;
    return net_open(machine_loop(machine), text, err);
}

/*
 * "KIND[,model=NAME][,mac=ADDRESS][,queues=N][,mtu=N][,romfile=FILE][,PROPERTY=VALUE]...". *out_net
 * is kept by the caller.
 */
static struct device *add_card(struct run_networks *networks, struct machine *machine,
                               const char *text, const struct run_network_options *options,
                               const char *place, struct net **out_net, struct error *err)
{
    char *rest = strdup(text);
    struct device *dev = NULL;
    struct card card;

    if (!rest) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    take_card(&card, rest);
    if (!card.mac) {
        make_mac(card.mac_text, options->seed, (size_t)(out_net - networks->nets));
        card.mac = card.mac_text;
    }
    *out_net = open_network(machine, rest, options->name, err);
    if (*out_net) {
        networks->reads_files |= strstr(rest, "tftp=") != NULL;
        dev = attach_card(machine, &card, place, *out_net, options->boots, err);
    }
    free(rest);
    if (!dev)
        error_prefix(err, "--net %s: ", text);
    return dev;
}

static int add_network(struct run_networks *networks, struct machine *machine, const char *text,
                       const struct run_network_options *options, struct error *err)
{
    struct net **net = &networks->nets[networks->count++];

    return add_card(networks, machine, text, options, NULL, net, err) ? 0 : -EINVAL;
}

static int hand_over_rom(const char *path, struct error *err)
{
    uint8_t *data;
    size_t size;

    if (host_file_read(path, PCI_ROM_MAX, &data, &size, err)) {
        error_prefix(err, "romfile: ");
        return -EINVAL;
    }
    free(data);
    return 0;
}

int run_hand_over_network(const char *text, struct error *err)
{
    char *rest = strdup(text);
    struct card card;
    int result;

    if (!rest)
        return error_set(err, ENOMEM, "out of memory");
    take_card(&card, rest);
    result = card.romfile ? hand_over_rom(card.romfile, err) : 0;
    if (!result)
        result = net_hand_over(rest, err);
    free(rest);
    if (result)
        error_prefix(err, "--net %s: ", text);
    return result;
}

struct device *run_plug_card(struct run_networks *networks, struct machine *machine,
                             const char *text, const struct run_network_options *options,
                             const char *place, struct net ***out_net, struct error *err)
{
    struct device *dev;
    size_t n = 0;

    while (n < networks->count && networks->nets[n])
        n++;
    if (n == RUN_MAX_NETS) {
        error_set(err, E2BIG, "there are %d networks, and no room for more", RUN_MAX_NETS);
        return NULL;
    }
    if (n == networks->count)
        networks->count++;
    *out_net = &networks->nets[n];
    dev = add_card(networks, machine, text, options, place, *out_net, err);
    if (!dev) {
        net_free(**out_net);
        **out_net = NULL;
    }
    return dev;
}

/* ---- published ports ---- */

#define FIRST_SSH_PORT 2222u
#define LAST_SSH_PORT  2321u

/* "[HOST:]PORT:22": is it the guest's SSH server? */
static bool leads_to_ssh(const char *text)
{
    const char *colon = strrchr(text, ':');

    return colon && (strcmp(colon, ":22") == 0 || strcmp(colon, ":22/tcp") == 0);
}

static void tell(const char *text, const char *user)
{
    const char *colon = strrchr(text, ':');
    const char *host_end = colon ? memrchr(text, ':', (size_t)(colon - text)) : NULL;
    const char *port = host_end ? host_end + 1 : text;

    if (leads_to_ssh(text))
        log_info("the guest's SSH server: ssh -p %.*s %s@%.*s%s", (int)(colon - port), port,
                 *user ? user : "USER", host_end ? (int)(host_end - text) : 9,
                 host_end ? text : "127.0.0.1",
                 *user ? "" : " (USER: the system's own, such as debian or ubuntu)");
    else
        log_info("%s: the host's port leads to the guest's", text);
}

static int publish_one(struct run_networks *networks, const char *text, struct error *err)
{
    int result = net_publish(networks->nets[0], text, err);

    if (result)
        error_prefix(err, "--publish %s: ", text);
    else
        tell(text, networks->ssh_user);
    return result;
}

/* At the first port that is free. A network that is no user network needs none. */
static int publish_ssh(struct run_networks *networks, struct error *err)
{
    int result = -EADDRINUSE;
    char text[32];

    for (unsigned port = FIRST_SSH_PORT; result == -EADDRINUSE && port <= LAST_SSH_PORT; port++) {
        snprintf(text, sizeof(text), "%u:22", port);
        result = publish_one(networks, text, err);
    }
    return result == -ENOTSUP ? 0 : result;
}

static int publish_all(struct run_networks *networks, const struct cli_texts *publish,
                       struct error *err)
{
    bool has_ssh = false;

    for (size_t n = 0; n < publish->count; n++) {
        if (!networks->count)
            return error_set(err, EINVAL, "--publish %s: there is no network; use --net user",
                             publish->items[n]);
        if (publish_one(networks, publish->items[n], err))
            return -EINVAL;
        has_ssh |= leads_to_ssh(publish->items[n]);
    }
    return networks->wants_ssh && !has_ssh && networks->count ? publish_ssh(networks, err) : 0;
}

bool run_default_network(const struct cli_texts *net, const struct cli_texts *publish,
                         bool is_default)
{
    return !net->count && (is_default || publish->count) && has_kind("user");
}

int run_add_networks(struct run_networks *networks, struct machine *machine,
                     const struct run_network_options *options, struct error *err)
{
    const struct cli_texts *net = options->net;

    if (net->count > RUN_MAX_NETS)
        return error_set(err, E2BIG, "%zu networks are too many; up to %d can be given", net->count,
                         RUN_MAX_NETS);
    for (size_t n = 0; n < net->count; n++)
        if (strcmp(net->items[n], "none") &&
            add_network(networks, machine, net->items[n], options, err))
            return -EINVAL;
    if (run_default_network(net, options->publish, options->is_default) &&
        add_network(networks, machine, "user", options, err))
        return -EINVAL;
    return publish_all(networks, options->publish, err);
}

/* libslirp keeps what it has read, for all. */
void run_know_name_servers(struct loop *loop)
{
    struct error ignored = {0};

    if (has_kind("user"))
        net_free(net_open(loop, "user", &ignored));
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
