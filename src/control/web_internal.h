/*
 * web_internal.h - what the files of the web page's server share
 *
 * web.c: HTTP, by libmicrohttpd, and who may come in. web_files.c: what is served. web_socket.c:
 * connections that are WebSockets; web_bridge.c and web_console.c are at their inner ends.
 */
#ifndef CONTROL_WEB_INTERNAL_H
#define CONTROL_WEB_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/web.h"
#include "control/websocket.h"

struct clocks;
struct loop;

/* ---- web_files.c ---- */

struct web_file {
    char *path; /* of the URL, with its slash */
    const char *type;
    uint8_t *bytes;
    size_t size;
};

struct web_files {
    struct web_file *files;
    size_t count, bytes;
    bool has_screen, has_terminal; /* the packages with them are there */
};

/* Read them all. -ENOENT: the page's own are not there; what is of packages may be missing. */
int web_files_load(struct web_files *files, const char *page, const char *packages,
                   struct error *err);
void web_files_done(struct web_files *files);
/* NULL: there is none. */
const struct web_file *web_files_find(const struct web_files *files, const char *path);

/* ---- web_socket.c ---- */

#define WEB_IN_BYTES  16384u
#define WEB_OUT_BYTES 32768u

struct web_socket;

struct web_socket_ops {
    /* Bytes came. Returns how many were taken; the rest stays until web_socket_go_on(). */
    size_t (*receive)(void *opaque, const uint8_t *bytes, size_t size);
    /* There is room for size bytes. Returns how many there are; 0: web_socket_go_on() follows when
     * there are more. */
    size_t (*fill)(void *opaque, uint8_t *out, size_t size);
    /* The connection is over: the last call. */
    void (*closed)(void *opaque);
};

/* All that there are. */
struct web_sockets {
    struct loop *loop;
    struct clocks *clocks;
    struct web_socket *first;
    unsigned count;
    void (*release)(void *opaque, void *connection); /* closes a descriptor */
    void *opaque;
};

/*
 * fd is connection's. first are bytes that came already. NULL: no memory; closed() was called, and
 * the caller still has connection.
 */
struct web_socket *web_socket_new(struct web_sockets *sockets, int fd, void *connection,
                                  const void *first, size_t first_size,
                                  const struct web_socket_ops *ops, void *opaque);
/* Something is different at the inner end. */
void web_socket_go_on(struct web_socket *socket);
/* Say why, and end; closed() follows. */
void web_socket_close(struct web_socket *socket, enum websocket_code code);
/* The same at once, for all, as far as they have room for what there is to say. */
void web_sockets_end(struct web_sockets *sockets);
/* From time to time: ask those that are quiet whether they are there, and end dead ones. */
#define WEB_TICK_NS 10000000000ull
void web_sockets_tick(struct web_sockets *sockets);

/* ---- web_bridge.c ---- */

extern const struct web_socket_ops web_bridge_ops;
struct web_bridge;
/* Lead a WebSocket to *out_fd, which is the caller's to connect. NULL: there is no memory. */
struct web_bridge *web_bridge_new(struct loop *loop, int *out_fd);
/* Once, before anything comes. */
void web_bridge_attach(struct web_bridge *bridge, struct web_socket *socket);

/* ---- web_console.c ---- */

#define WEB_CONSOLE_BYTES 65536u /* what a late viewer sees of the past */

extern const struct web_socket_ops web_viewer_ops;
struct web_console;
struct web_viewer;
struct web_console *web_console_new(struct loop *loop, struct clocks *clocks,
                                    struct chardev *chardev);
void web_console_free(struct web_console *console); /* viewers have gone; NULL is fine */
struct web_viewer *web_viewer_new(struct web_console *console); /* NULL: there is no memory */
void web_viewer_attach(struct web_viewer *viewer, struct web_socket *socket);

#endif
