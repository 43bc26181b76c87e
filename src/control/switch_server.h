/*
 * switch_server.h - a switch between machines, as a server on a socket
 */
#ifndef CONTROL_SWITCH_SERVER_H
#define CONTROL_SWITCH_SERVER_H

#include "trapeze/error.h"

struct loop;
struct switch_server;

/* Listen at path. On the main loop's thread, as all of it. NULL on failure. */
struct switch_server *switch_server_new(struct loop *loop, const char *path, struct error *err);
void switch_server_free(struct switch_server *server); /* NULL is fine */

#endif
