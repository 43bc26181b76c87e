/*
 * web.c - a page in the browser that shows a machine: HTTP, and who may come in
 *
 * Theory of operation. libmicrohttpd parses what browsers ask; it runs on the main loop, which
 * waits on its epoll descriptor and calls it when it has something to do or a time is over. Files
 * are served to all: there is nothing secret in them. A WebSocket leads to the machine, so whoever
 * opens one has to know the token, which is made at each start and told on standard error only. The
 * browser's page has it behind the '#' of its address, from where no request takes it, and says it
 * as a subprotocol, since JavaScript can say nothing else.
 *
 * A page of somebody else in the same browser knows no token. It is refused all the same, and
 * before: by the Host that it reaches us by, which is an address, localhost or the name of --web,
 * and no name that somebody lets point here; and by its Origin, which has to be that Host.
 */
#include "control/web.h"

#include <errno.h>
#include <stddef.h>

#ifdef HAVE_MICROHTTPD

#include <arpa/inet.h>
#include <ctype.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/vnc.h"
#include "base/log.h"
#include "control/monitor.h"
#include "control/stream.h"
#include "control/web_internal.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/clock.h"
#include "trapeze/display.h"
#include "trapeze/machine.h"

#define MAX_CONNECTIONS 64u /* browsers open 6 for files, and 3 a page stay */
#define MAX_SOCKETS     48u
#define REQUEST_BYTES   16384u /* of its head, and of the buffer for an answer's */
#define REQUEST_SECONDS 20u
#define TOKEN_BYTES     16u
#define TOKEN_DIGITS    (2 * TOKEN_BYTES)
#define HOST_MAX        256u
#define PROTOCOL        "trapeze"
#define TOKEN_PREFIX    "token."

enum place { PLACE_SCREEN, PLACE_CONSOLE, PLACE_MONITOR, PLACE_COUNT };

static const char *const place_paths[PLACE_COUNT] = {
    [PLACE_SCREEN] = "/screen", [PLACE_CONSOLE] = "/console", [PLACE_MONITOR] = "/monitor"};

/* What libmicrohttpd hands back when a WebSocket is there. */
struct web_place {
    struct web *web;
    enum place place;
};

struct web {
    struct machine *machine;
    struct loop *loop;
    struct stream_server *server;
    struct MHD_Daemon *daemon;
    struct loop_fd *handler;
    struct timer poll, tick;
    bool run_is_due;
    unsigned connections;
    struct web_files files;
    struct web_sockets sockets;
    struct web_place places[PLACE_COUNT];
    struct monitor *monitor;
    struct vnc *vnc; /* NULL: the machine has no screen */
    struct web_console *console;
    char name[HOST_MAX]; /* of the host, as in --web; empty: none was said */
    char token[TOKEN_DIGITS + 1];
    char url[HOST_MAX + TOKEN_DIGITS + 32];
};

/* ---- libmicrohttpd on the loop ---- */

static void run(void *opaque);

static void run_soon(struct web *web)
{
    if (!web->run_is_due)
        web->run_is_due = loop_defer(web->loop, run, web) == 0;
}

static void run(void *opaque)
{
    struct web *web = opaque;
    MHD_UNSIGNED_LONG_LONG left_ms;

    web->run_is_due = false;
    MHD_run(web->daemon);
    if (MHD_get_timeout(web->daemon, &left_ms) != MHD_YES)
        timer_cancel(&web->poll);
    else if (left_ms)
        timer_arm(&web->poll, clock_now_ns(web->poll.clocks, CLOCK_ID_HOST) + left_ms * 1000000u);
    else
        run_soon(web);
}

static void on_ready(void *opaque, unsigned events)
{
    (void)events;
    run(opaque);
}

static void release(void *opaque, void *connection)
{
    MHD_upgrade_action(connection, MHD_UPGRADE_ACTION_CLOSE);
    run_soon(opaque); /* where it is closed */
}

static void on_tick(void *opaque)
{
    struct web *web = opaque;

    web_sockets_tick(&web->sockets);
    if (web->sockets.count)
        timer_arm(&web->tick, clock_now_ns(web->tick.clocks, CLOCK_ID_HOST) + WEB_TICK_NS);
}

static void on_connection(void *opaque, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct web *web = opaque;

    (void)connection;
    (void)context;
    web->connections += code == MHD_CONNECTION_NOTIFY_STARTED ? 1u : -1u;
}

/* ---- answers ---- */

static const char *const common_headers[][2] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
     "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Cache-Control", "no-cache"},
};

/* Takes response over, which may be NULL. */
static enum MHD_Result queue(struct MHD_Connection *connection, unsigned status,
                             struct MHD_Response *response)
{
    enum MHD_Result result = MHD_NO;

    if (!response)
        return MHD_NO; /* the connection ends */
    for (size_t n = 0; n < sizeof(common_headers) / sizeof(common_headers[0]); n++)
        MHD_add_response_header(response, common_headers[n][0], common_headers[n][1]);
    result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* name and value may be NULL. */
static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *why,
                              const char *name, const char *value)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(why), (void *)why, MHD_RESPMEM_PERSISTENT);

    if (response) {
        MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
        if (name)
            MHD_add_response_header(response, name, value);
    }
    return queue(connection, status, response);
}

static enum MHD_Result send_file(struct MHD_Connection *connection, const struct web_file *file)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(file->size, file->bytes, MHD_RESPMEM_PERSISTENT);

    if (response)
        MHD_add_response_header(response, "Content-Type", file->type);
    return queue(connection, MHD_HTTP_OK, response);
}

static enum MHD_Result refuse_path(struct MHD_Connection *connection, const char *path)
{
    const char *why = "There is nothing of this name.\n";

    if (strncmp(path, "/novnc/", 7) == 0)
        why = "The screen needs noVNC: install the package novnc on the machine's host.\n";
    else if (strncmp(path, "/xterm/", 7) == 0)
        why =
            "The terminal needs xterm.js: install the package node-xterm on the machine's host.\n";
    return refuse(connection, MHD_HTTP_NOT_FOUND, why, NULL, NULL);
}

/* ---- who may come in ---- */

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* The name without brackets, and nothing but a port behind it. False: it is none. */
static bool split_host(const char *text, char out[HOST_MAX])
{
    bool has_brackets = text[0] == '[';
    size_t length = strcspn(text + has_brackets, has_brackets ? "]" : ":");
    const char *rest = text + has_brackets + length;

    if (!length || length >= HOST_MAX || (has_brackets && *rest++ != ']'))
        return false;
    memcpy(out, text + has_brackets, length);
    out[length] = '\0';
    return !*rest || (*rest == ':' && rest[1] && !rest[1 + strspn(rest + 1, "0123456789")]);
}

static bool is_known_host(const struct web *web, const char *text)
{
    struct in6_addr address;
    char name[HOST_MAX];

    if (!text || !split_host(text, name))
        return false;
    return inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1 ||
           strcasecmp(name, "localhost") == 0 || (web->name[0] && strcasecmp(name, web->name) == 0);
}

static bool is_own_origin(const char *origin, const char *host)
{
    static const char scheme[] = "http://";

    return strncasecmp(origin, scheme, sizeof(scheme) - 1) == 0 &&
           strcasecmp(origin + sizeof(scheme) - 1, host) == 0;
}

/* In as much time as any other of its length. */
static bool is_token(const struct web *web, const char *text, size_t length)
{
    uint8_t differs = 0;

    if (length != TOKEN_DIGITS)
        return false;
    for (size_t n = 0; n < TOKEN_DIGITS; n++)
        differs |= (uint8_t)(text[n] ^ web->token[n]);
    return !differs;
}

struct offer {
    bool has_protocol, has_token, is_right;
};

/* What Sec-WebSocket-Protocol lists: "trapeze, token.0123...". */
static struct offer read_offer(const struct web *web, const char *list)
{
    struct offer offer = {0};

    while (list && *list) {
        size_t length;

        list += strspn(list, ", \t");
        length = strcspn(list, ", \t");
        if (length == strlen(PROTOCOL) && strncmp(list, PROTOCOL, length) == 0) {
            offer.has_protocol = true;
        } else if (length > strlen(TOKEN_PREFIX) &&
                   strncmp(list, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0) {
            offer.has_token = true;
            offer.is_right |=
                is_token(web, list + strlen(TOKEN_PREFIX), length - strlen(TOKEN_PREFIX));
        }
        list += length;
    }
    return offer;
}

/* ---- WebSockets ---- */

static bool has_word(const char *list, const char *word)
{
    while (list && *list) {
        size_t length;

        list += strspn(list, ", \t");
        length = strcspn(list, ", \t");
        if (length == strlen(word) && strncasecmp(list, word, length) == 0)
            return true;
        list += length;
    }
    return false;
}

/* The inner end is a viewer's socket of VNC or the monitor's. */
static bool open_bridge(struct web *web, enum place place, int fd, void *connection,
                        const void *first, size_t first_size)
{
    int inner;
    struct web_bridge *bridge = web_bridge_new(web->loop, &inner);
    struct web_socket *socket = bridge ? web_socket_new(&web->sockets, fd, connection, first,
                                                        first_size, &web_bridge_ops, bridge)
                                       : NULL;

    if (socket && place == PLACE_SCREEN)
        vnc_connect(web->vnc, inner);
    else if (socket)
        monitor_connect(web->monitor, inner);
    else if (bridge)
        close(inner);
    if (socket)
        web_bridge_attach(bridge, socket);
    return socket;
}

static bool open_console(struct web *web, int fd, void *connection, const void *first,
                         size_t first_size)
{
    struct web_viewer *viewer = web_viewer_new(web->console);
    struct web_socket *socket = viewer ? web_socket_new(&web->sockets, fd, connection, first,
                                                        first_size, &web_viewer_ops, viewer)
                                       : NULL;

    if (socket)
        web_viewer_attach(viewer, socket);
    return socket;
}

static void on_upgrade(void *opaque, struct MHD_Connection *connection, void *context,
                       const char *first, size_t first_size, MHD_socket fd,
                       struct MHD_UpgradeResponseHandle *handle)
{
    const struct web_place *place = opaque;
    struct web *web = place->web;
    bool is_open;

    (void)connection;
    (void)context;
    if (place->place == PLACE_CONSOLE)
        is_open = open_console(web, fd, handle, first, first_size);
    else
        is_open = open_bridge(web, place->place, fd, handle, first, first_size);
    if (!is_open) {
        log_warn("web: out of memory");
        release(web, handle);
        return;
    }
    if (!timer_is_armed(&web->tick))
        timer_arm(&web->tick, clock_now_ns(web->tick.clocks, CLOCK_ID_HOST) + WEB_TICK_NS);
}

/* NULL: it is there. */
static const char *why_absent(const struct web *web, enum place place)
{
    if (place == PLACE_SCREEN && !web->vnc)
        return "The machine has no screen; run it with --vga std.\n";
    if (place == PLACE_CONSOLE && !web->console)
        return "The machine has no console.\n";
    return NULL;
}

static enum MHD_Result accept_socket(struct web *web, struct MHD_Connection *connection,
                                     enum place place)
{
    char answer[WEBSOCKET_ACCEPT_BYTES];
    const char *key = header(connection, "Sec-WebSocket-Key");
    struct MHD_Response *response;

    if (!key || !websocket_accept(key, answer))
        return refuse(connection, MHD_HTTP_BAD_REQUEST, "Sec-WebSocket-Key is none.\n", NULL, NULL);
    response = MHD_create_response_for_upgrade(on_upgrade, &web->places[place]);
    if (response) {
        MHD_add_response_header(response, "Upgrade", "websocket");
        MHD_add_response_header(response, "Sec-WebSocket-Accept", answer);
        MHD_add_response_header(response, "Sec-WebSocket-Protocol", PROTOCOL);
    }
    return queue(connection, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}

static enum MHD_Result answer_socket(struct web *web, struct MHD_Connection *connection,
                                     enum place place)
{
    struct offer offer = read_offer(web, header(connection, "Sec-WebSocket-Protocol"));
    const char *version = header(connection, "Sec-WebSocket-Version");

    if (!offer.has_token)
        return refuse(connection, MHD_HTTP_UNAUTHORIZED, "Say the token.\n", "WWW-Authenticate",
                      "Bearer");
    if (!offer.is_right)
        return refuse(connection, MHD_HTTP_FORBIDDEN, "The token is wrong.\n", NULL, NULL);
    if (why_absent(web, place))
        return refuse(connection, MHD_HTTP_NOT_FOUND, why_absent(web, place), NULL, NULL);
    if (!has_word(header(connection, "Connection"), "upgrade") ||
        !has_word(header(connection, "Upgrade"), "websocket") || !version ||
        strcmp(version, "13") || !offer.has_protocol)
        return refuse(connection, MHD_HTTP_UPGRADE_REQUIRED,
                      "This is for WebSockets of version 13 with the protocol " PROTOCOL ".\n",
                      "Sec-WebSocket-Version", "13");
    if (web->sockets.count >= MAX_SOCKETS)
        return refuse(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "There are too many viewers.\n",
                      NULL, NULL);
    return accept_socket(web, connection, place);
}

/* ---- requests ---- */

static enum MHD_Result answer(struct web *web, struct MHD_Connection *connection, const char *path,
                              const char *method)
{
    const char *host = header(connection, "Host"), *origin = header(connection, "Origin");
    const struct web_file *file;

    if (!is_known_host(web, host))
        return refuse(connection, MHD_HTTP_FORBIDDEN,
                      "The page is reached by an address, by localhost, or by the name that --web "
                      "was given.\n",
                      NULL, NULL);
    if (origin && !is_own_origin(origin, host))
        return refuse(connection, MHD_HTTP_FORBIDDEN, "Pages of others stay out.\n", NULL, NULL);
    if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET it.\n", "Allow", "GET, HEAD");
    for (unsigned place = 0; place < PLACE_COUNT; place++)
        if (strcmp(path, place_paths[place]) == 0)
            return answer_socket(web, connection, (enum place)place);
    file = web_files_find(&web->files, strcmp(path, "/") ? path : "/index.html");
    return file ? send_file(connection, file) : refuse_path(connection, path);
}

/* The first of two calls is for what has a body, which is answered without reading it. */
static enum MHD_Result on_request(void *opaque, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **context)
{
    (void)version;
    (void)data;
    (void)size;
    if (!*context && !header(connection, "Content-Length") &&
        !header(connection, "Transfer-Encoding")) {
        *context = opaque;
        return MHD_YES;
    }
    return answer(opaque, connection, path, method);
}

/* libmicrohttpd's complaints are about what browsers do. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void on_message(void *opaque, const char *format, va_list arguments)
{
    char text[256];

    (void)opaque;
    vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\n")] = '\0';
    log_debug("web: %s", text);
}
#pragma GCC diagnostic pop

/* ---- opening ---- */

static void on_accept(void *opaque, int fd)
{
    web_connect(opaque, fd);
}

void web_connect(struct web *web, int fd)
{
    static const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

    if (web->connections >= MAX_CONNECTIONS)
        close(fd);
    else if (MHD_add_connection(web->daemon, fd, &nowhere, sizeof(nowhere)) != MHD_YES)
        log_debug("web: a connection was not taken");
    run_soon(web);
}

static void make_token(struct web *web)
{
    uint8_t bytes[TOKEN_BYTES];

    host_random(bytes, sizeof(bytes));
    for (unsigned n = 0; n < TOKEN_BYTES; n++)
        snprintf(web->token + 2 * n, 3, "%02x", bytes[n]);
    explicit_bzero(bytes, sizeof(bytes));
}

static int start_daemon(struct web *web, struct error *err)
{
    const union MHD_DaemonInfo *info;

    web->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_UPGRADE | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG, 0, NULL,
        NULL, on_request, web, MHD_OPTION_EXTERNAL_LOGGER, on_message, web,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, web, MHD_OPTION_CONNECTION_LIMIT,
        MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, REQUEST_SECONDS, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    info = web->daemon ? MHD_get_daemon_info(web->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        return error_set(err, ENOMEM, "libmicrohttpd does not start");
    web->handler = loop_add_fd(web->loop, info->epoll_fd, LOOP_READ, on_ready, web, err);
    return web->handler ? 0 : -ENOMEM;
}

static int start_listening(struct web *web, const char *address, struct error *err)
{
    const char *colon = address ? strrchr(address, ':') : NULL;
    int length = colon ? (int)(colon - address) : 0;
    char host[HOST_MAX] = "127.0.0.1";

    if (address && *address) {
        web->server = stream_listen(web->loop, address, on_accept, web, err);
        snprintf(host, sizeof(host), "%.*s", length ? length : 9, length ? address : "localhost");
        split_host(host, web->name);
    } else if (!address) {
        web->server =
            stream_listen_first(web->loop, WEB_FIRST_PORT, WEB_LAST_PORT, on_accept, web, err);
    }
    snprintf(web->url, sizeof(web->url), "http://%s:%u/#%s", host,
             web->server ? stream_server_port(web->server) : 0, web->token);
    return web->server || (address && !*address) ? 0 : -EADDRNOTAVAIL;
}

static int open_screen(struct web *web, struct error *err)
{
    const struct vnc_config config = {.address = ""};

    if (!display_screen(machine_display(web->machine), 0))
        return 0;
    web->vnc = vnc_new(web->machine, &config, err);
    return web->vnc ? 0 : -ENOMEM;
}

static int open_all(struct web *web, const struct web_config *config, struct error *err)
{
    if (web_files_load(&web->files, config->page, config->packages, err) || open_screen(web, err))
        return -EIO;
    if (!web->files.has_screen)
        log_warn("web: no screen: install the package novnc");
    if (!web->files.has_terminal)
        log_warn("web: no terminal: install the package node-xterm");
    if (config->console) {
        web->console = web_console_new(web->loop, machine_clocks(web->machine), config->console);
        if (!web->console)
            return error_set(err, ENOMEM, "out of memory");
    }
    make_token(web);
    return start_daemon(web, err) || start_listening(web, config->address, err) ? -EIO : 0;
}

struct web *web_new(struct machine *machine, const struct web_config *config, struct error *err)
{
    struct web *web = calloc(1, sizeof(*web));
    struct clocks *clocks = machine_clocks(machine);

    if (!web) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    web->machine = machine;
    web->loop = machine_loop(machine);
    web->monitor = config->monitor;
    web->sockets = (struct web_sockets){
        .loop = web->loop, .clocks = clocks, .release = release, .opaque = web};
    for (unsigned n = 0; n < PLACE_COUNT; n++)
        web->places[n] = (struct web_place){web, (enum place)n};
    timer_init(&web->poll, clocks, CLOCK_ID_HOST, run, web);
    timer_init(&web->tick, clocks, CLOCK_ID_HOST, on_tick, web);
    if (!open_all(web, config, err))
        return web;
    web_free(web);
    return NULL;
}

void web_free(struct web *web)
{
    if (!web)
        return;
    stream_server_free(web->server);
    web_sockets_end(&web->sockets);
    loop_remove_fd(web->handler);
    loop_undefer(web->loop, web);
    if (web->daemon) {
        MHD_run(web->daemon); /* it wants to see that WebSockets are closed */
        MHD_stop_daemon(web->daemon);
    }
    timer_done(&web->poll);
    timer_done(&web->tick);
    web_console_free(web->console);
    vnc_free(web->vnc);
    web_files_done(&web->files);
    explicit_bzero(web->token, sizeof(web->token));
    explicit_bzero(web->url, sizeof(web->url));
    free(web);
}

unsigned web_viewers(const struct web *web)
{
    return web->sockets.count;
}

const char *web_url(const struct web *web)
{
    return web->url;
}

#else

struct web *web_new(struct machine *machine, const struct web_config *config, struct error *err)
{
    (void)machine;
    (void)config;
    error_set(err, ENOTSUP, "this trapeze was built without libmicrohttpd");
    return NULL;
}

void web_free(struct web *web)
{
    (void)web;
}

void web_connect(struct web *web, int fd)
{
    (void)web;
    (void)fd;
}

unsigned web_viewers(const struct web *web)
{
    (void)web;
    return 0;
}

const char *web_url(const struct web *web)
{
    (void)web;
    return "";
}

#endif
