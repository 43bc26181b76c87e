/*
 * run.h - what the files of trapeze run share
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/cli.h"

struct loop;
struct machine;
struct net;

/* Take "NAME=VALUE" out of a property list, in place; key is "NAME=". VALUE's copy in out, or NULL.
 */
const char *run_take_property(char *properties, const char *key, char out[32]);

/* ---- run_net.c ---- */

#define RUN_MAX_NETS 8

struct run_networks {
    struct net *nets[RUN_MAX_NETS];
    size_t count;
    bool reads_files; /* while the machine runs */
};

/*
 * Cards of --net with their backends, and ports of --publish. Nothing said: user networking if
 * is_default, and possible. seed is what the cards' addresses are made of.
 */
int run_add_networks(struct run_networks *networks, struct machine *machine,
                     const struct cli_texts *net, const struct cli_texts *publish, bool is_default,
                     uint64_t seed, struct error *err);
bool run_networks_connect(const struct run_networks *networks);
void run_free_networks(struct run_networks *networks);
void run_net_choices(cli_put_choice *put, void *opaque);
/* -EINVAL: no such kind. */
int run_check_net(const char *text, struct error *err);

#endif
