/*
 * gdbstub.h - a debugger for the guest, by GDB's remote protocol
 *
 * What is supported and how processors, addresses and breakpoints are seen is in
 * docs/design/control.md. Main loop's thread, machine lock held.
 */
#ifndef CONTROL_GDBSTUB_H
#define CONTROL_GDBSTUB_H

#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct gdbstub;
struct machine;

/*
 * Listen on an address of stream_listen ("localhost:1234", "unix:PATH"; NULL: nowhere). One
 * debugger at a time; the machine is paused when it connects. Free after the machine, before its
 * loop.
 */
struct gdbstub *gdbstub_new(struct machine *machine, const char *address, struct error *err);
void gdbstub_free(struct gdbstub *gdbstub); /* NULL is fine */
/* Let the debugger at the other end of a connected socket in; fd is taken over. */
void gdbstub_connect(struct gdbstub *gdbstub, int fd);
/* The TCP port (useful after ":0"), or 0. */
unsigned gdbstub_port(const struct gdbstub *gdbstub);

#endif
