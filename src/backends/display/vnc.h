/*
 * vnc.h - a machine's screen, keyboard and pointer for viewers of VNC (RFB, RFC 6143)
 *
 * Main loop's thread, machine lock held.
 */
#ifndef BACKENDS_DISPLAY_VNC_H
#define BACKENDS_DISPLAY_VNC_H

#include "trapeze/error.h"

struct machine;
struct vnc;

struct vnc_config {
    /* As stream_listen() has it. NULL: the first port of 127.0.0.1 from 5900 on that is free. "":
     * nobody can connect but by vnc_connect(). */
    const char *address;
    const char *password_file;      /* its first line, read at once; NULL: none */
    const char *tls_cert, *tls_key; /* PEM files, read at once; NULL: not encrypted */
};

#define VNC_FIRST_PORT 5900u
#define VNC_LAST_PORT  5999u

/* The machine's first screen. NULL with err: there is none; no such address or file. */
struct vnc *vnc_new(struct machine *machine, const struct vnc_config *config, struct error *err);
/* Before the machine. NULL is fine. */
void vnc_free(struct vnc *vnc);
/* A viewer on fd, which is taken over. */
void vnc_connect(struct vnc *vnc, int fd);
unsigned vnc_port(const struct vnc *vnc); /* 0: it is a unix socket */

#endif
