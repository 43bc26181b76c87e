/*
 * web.h - a page in the browser that shows a machine and lets people use it
 *
 * docs/design/web.md has the protocol. Main loop's thread, machine lock held.
 */
#ifndef CONTROL_WEB_H
#define CONTROL_WEB_H

#include "trapeze/error.h"

struct chardev;
struct machine;
struct monitor;
struct web;

#define WEB_FIRST_PORT 8080u
#define WEB_LAST_PORT  8179u

struct web_config {
    /* [HOST:]PORT. NULL: the first port of 127.0.0.1 from 8080 on that is free. "": nobody can
     * connect but by web_connect(). */
    const char *address;
    const char *page;     /* folder of the page's own files */
    const char *packages; /* what stands for /usr/share; NULL: that */
    struct monitor *monitor;
    struct chardev *console; /* what the terminal leads to; NULL: there is none */
};

/*
 * The machine's first screen is shown if it has one. All files are read at once. monitor and
 * console are the caller's. NULL with err: no such address or folder, or built without.
 */
struct web *web_new(struct machine *machine, const struct web_config *config, struct error *err);
/* Before the machine, its monitor and its console. NULL is fine. */
void web_free(struct web *web);
/* A browser on fd, which is taken over. */
void web_connect(struct web *web, int fd);
/* WebSockets that are open. */
unsigned web_viewers(const struct web *web);
/* Where to look, with the token behind '#'. */
const char *web_url(const struct web *web);

#endif
