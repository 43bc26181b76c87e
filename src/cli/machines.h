/*
 * machines.h - running machines by their names: where their monitors' sockets are
 */
#ifndef CLI_MACHINES_H
#define CLI_MACHINES_H

#include "cli/cli.h"

#define MACHINE_PATH_BYTES 108 /* of a unix socket */

/*
 * The socket of the user's machine by that name, in a folder that is the user's alone, and which is
 * made. -EINVAL: such a name can be no file's; else what is wrong with the folder.
 */
int machines_path(const char *name, char out[MACHINE_PATH_BYTES], struct error *err);
/* What a person writes for a machine: its name, or a socket's address, which is left as it is. */
int machines_find(const char *word, char out[MACHINE_PATH_BYTES], struct error *err);
/* The names whose sockets are there, whether or not somebody listens. */
void machines_choices(cli_put_choice *put, void *opaque);

#endif
