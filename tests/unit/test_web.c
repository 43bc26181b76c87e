/*
 * test_web.c - the server of the web page: who may come in, what is served, what WebSockets lead to
 *
 * Browsers are sockets of this process, which write requests as text. The files that are served
 * stand in a folder that is made for it, in place of the page's and the packages'.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/log.h"
#include "control/monitor.h"
#include "control/web_internal.h"
#include "control_test.h"
#include "trapeze/chardev.h"
#include "trapeze/display.h"

#define HOST "127.0.0.1:8080"

/* ---- files ---- */

static char folder[] = "/tmp/test_web.XXXXXX";
static const char *const names[][2] = {
    {"page", NULL},
    {"page/index.html", "<p>the page</p>"},
    {"page/page.js", "start();"},
    {"page/notes.txt", "not for browsers"},
    {"secret.js", "outside"},
    {"share", NULL},
    {"share/novnc", NULL},
    {"share/novnc/core", NULL},
    {"share/novnc/core/rfb.js", "the screen"},
    {"share/novnc/core/input", NULL},
    {"share/novnc/core/input/keyboard.js", "keys"},
    {"share/novnc/vendor", NULL},
    {"share/nodejs", NULL},
    {"share/nodejs/xterm", NULL},
    {"share/nodejs/xterm/lib", NULL},
    {"share/nodejs/xterm/lib/xterm.css", "style"},
    {"share/nodejs/xterm/lib/Buffer.test.js", "a test"},
    {"share/nodejs/xterm/lib/public", NULL},
    {"share/nodejs/xterm/lib/public/Terminal.js", "exports.Terminal = 1;"},
    {"empty", NULL},
};
#define NAME_COUNT (sizeof(names) / sizeof(names[0]))

static const char *in_folder(const char *name)
{
    static char paths[2][256];
    static unsigned turn;

    turn = !turn;
    snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", folder, name);
    return paths[turn];
}

static int make_files(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (size_t n = 0; n < NAME_COUNT; n++) {
        FILE *file = names[n][1] ? fopen(in_folder(names[n][0]), "w") : NULL;

        if (file)
            fputs(names[n][1], file);
        else
            assert_int_equal(mkdir(in_folder(names[n][0]), 0700), 0);
        if (file)
            assert_int_equal(fclose(file), 0);
    }
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    for (size_t n = NAME_COUNT; n--;)
        assert_int_equal(remove(in_folder(names[n][0])), 0);
    return rmdir(folder);
}

/* ---- a machine with a page ---- */

static struct counting_machine m;
static struct monitor *monitor;
static struct chardev *console;
static struct web *web;
static const char *token;

/* The console's device reads as much as it is let. */
static char typed[256];
static size_t room;

static size_t device_room(void *opaque)
{
    (void)opaque;
    return room;
}

static void device_receive(void *opaque, const uint8_t *data, size_t size)
{
    (void)opaque;
    assert_true(size <= room);
    room -= size;
    strncat(typed, (const char *)data, size);
}

static const struct chardev_frontend device = {.can_receive = device_room,
                                               .receive = device_receive};

static int open_web(const char *packages)
{
    const struct web_config config = {.address = "",
                                      .page = in_folder("page"),
                                      .packages = in_folder(packages),
                                      .monitor = monitor,
                                      .console = console};
    struct error err = {0};

    machine_lock(m.machine);
    web = web_new(m.machine, &config, &err);
    machine_unlock(m.machine);
    if (!web)
        fail_msg("%s", err.text);
    token = strchr(web_url(web), '#') + 1;
    return 0;
}

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    log_threshold = LOG_ERROR;
    counting_machine_open(&m, 1, false);
    monitor = monitor_new(m.machine, NULL, &err);
    console = chardev_open(m.loop, "ring:size=1M,overwrite=on", &err);
    assert_true(monitor && console);
    chardev_connect(console, &device);
    typed[0] = '\0';
    room = sizeof(typed) - 1;
    assert_int_equal(machine_start(m.machine, &err), 0);
    return open_web("share");
}

static int tear_down(void **state)
{
    (void)state;
    machine_lock(m.machine);
    web_free(web);
    machine_unlock(m.machine);
    machine_free(m.machine);
    monitor_free(monitor);
    chardev_free(console);
    loop_free(m.loop);
    return 0;
}

/* ---- browsers ---- */

static char heard[100000];
static size_t heard_size;

static int connect_to_it(void)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    machine_lock(m.machine);
    web_connect(web, pair[1]);
    machine_unlock(m.machine);
    return pair[0];
}

/* Until there is nothing to do at once. */
static void let_run(void)
{
    counting_machine_settle(&m);
}

/* What has come, and what comes soon. False: nothing does any more. */
static bool hear(int fd)
{
    for (unsigned n = 0; n < 200; n++) {
        ssize_t got = recv(fd, heard + heard_size, sizeof(heard) - 1 - heard_size, MSG_DONTWAIT);

        if (got > 0) {
            heard_size += (size_t)got;
            heard[heard_size] = '\0';
            return true;
        }
        if (got == 0 || errno == ECONNRESET)
            return false;
        assert_int_equal(errno, EAGAIN);
        loop_once(m.loop, 1000000);
    }
    return false;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    let_run();
}

static bool is_whole(const char *method)
{
    const char *end = strstr(heard, "\r\n\r\n"), *length = strstr(heard, "Content-Length: ");

    return end && (!length || !strncmp(method, "HEAD", 4) ||
                   strlen(end + 4) >= strtoul(length + 16, NULL, 10));
}

/* The whole answer to a request, whose status is returned. */
static unsigned ask(const char *line, const char *headers)
{
    int fd = connect_to_it();
    char text[2048];
    unsigned status = 0;

    snprintf(text, sizeof(text), "%s HTTP/1.1\r\n%s\r\n", line, headers);
    heard_size = 0;
    heard[0] = '\0';
    say(fd, text);
    while (!is_whole(line) && hear(fd))
        ;
    assert_int_equal(sscanf(heard, "HTTP/1.1 %u", &status), 1);
    close(fd);
    let_run();
    return status;
}

static unsigned get(const char *path)
{
    char line[256];

    snprintf(line, sizeof(line), "GET %s", path);
    return ask(line, "Host: " HOST "\r\n");
}

/* ---- files and requests ---- */

static void files_are_for_everybody(void **state)
{
    (void)state;
    assert_int_equal(get("/"), 200);
    assert_non_null(strstr(heard, "\r\n\r\n<p>the page</p>"));
    assert_non_null(strstr(heard, "Content-Type: text/html"));
    assert_non_null(
        strstr(heard, "Content-Security-Policy: default-src 'none'; script-src 'self'"));
    assert_non_null(strstr(heard, "X-Content-Type-Options: nosniff"));
    assert_int_equal(get("/page.js"), 200);
    assert_non_null(strstr(heard, "Content-Type: text/javascript"));
    assert_int_equal(get("/novnc/core/input/keyboard.js"), 200);
    assert_int_equal(get("/xterm/xterm.css"), 200);
    assert_int_equal(get("/xterm/modules.js"), 200);
    assert_non_null(strstr(heard, "\r\n\r\nexport const modules = {};\n"
                                  "modules[\"public/Terminal.js\"] = function (exports, require, "
                                  "module) {\nexports.Terminal = 1;\n};\n"));
    assert_null(strstr(heard, "a test"));
    assert_int_equal(ask("HEAD /", "Host: " HOST "\r\n"), 200);
    assert_null(strstr(heard, "the page"));
}

static void one_connection_serves_many_requests(void **state)
{
    int fd = connect_to_it();

    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        heard_size = 0;
        heard[0] = '\0';
        say(fd, "GET / HTTP/1.1\r\nHost: " HOST "\r\n\r\n");
        while (!strstr(heard, "the page"))
            assert_true(hear(fd));
    }
    close(fd);
}

static void nothing_else_is_served(void **state)
{
    static const char *const paths[] = {
        "/../secret.js",
        "/%2e%2e/secret.js",
        "/novnc/../../secret.js",
        "//secret.js",
        "/novnc/core/../../../..",
        "/notes.txt",
        "/page.js/",
        "/novnc/core",
        "/./index.html",
        "/Index.html",
        "/etc/passwd",
    };

    (void)state;
    for (size_t n = 0; n < sizeof(paths) / sizeof(paths[0]); n++) {
        unsigned status = get(paths[n]);

        if (status != 404 && status != 400)
            fail_msg("%s: %u", paths[n], status);
        assert_null(strstr(heard, "outside"));
        assert_null(strstr(heard, "not for browsers"));
    }
}

static void missing_packages_have_names(void **state)
{
    machine_lock(m.machine);
    web_free(web);
    machine_unlock(m.machine);
    log_threshold = LOG_ERROR;
    open_web("empty");
    (void)state;
    assert_int_equal(get("/"), 200);
    assert_int_equal(get("/novnc/core/rfb.js"), 404);
    assert_non_null(strstr(heard, "install the package novnc"));
    assert_int_equal(get("/xterm/modules.js"), 404);
    assert_non_null(strstr(heard, "install the package node-xterm"));
}

static void a_page_without_files_does_not_start(void **state)
{
    const struct web_config config = {.address = "", .page = in_folder("empty")};
    struct error err = {0};

    (void)state;
    machine_lock(m.machine);
    assert_null(web_new(m.machine, &config, &err));
    machine_unlock(m.machine);
    assert_non_null(strstr(err.text, "index.html is not there"));
}

static void only_getting_is_allowed(void **state)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "OPTIONS", "TRACE"};

    (void)state;
    for (size_t n = 0; n < sizeof(methods) / sizeof(methods[0]); n++) {
        char line[32];

        snprintf(line, sizeof(line), "%s /", methods[n]);
        assert_int_equal(ask(line, "Host: " HOST "\r\n"), 405);
        assert_int_equal(ask(line, "Host: " HOST "\r\nContent-Length: 1000000000\r\n"), 405);
    }
    assert_int_equal(ask("GET /", "Host: " HOST "\r\nTransfer-Encoding: chunked\r\n"), 200);
    assert_non_null(strstr(heard, "Connection: close"));
}

static void long_requests_are_refused(void **state)
{
    static char cookie[20000];
    unsigned status = 0;
    int fd = connect_to_it();

    (void)state;
    memset(cookie, 'x', sizeof(cookie) - 1);
    heard_size = 0;
    say(fd, "GET / HTTP/1.1\r\nHost: " HOST "\r\nCookie: ");
    assert_true(send(fd, cookie, sizeof(cookie), MSG_NOSIGNAL) > 0);
    hear(fd);
    assert_true(sscanf(heard, "HTTP/1.1 %u", &status) == 1 && status >= 400);
    while (hear(fd))
        ;
    close(fd);
}

static void there_is_a_largest_number_of_connections(void **state)
{
    int fds[100];
    unsigned refused = 0;

    (void)state;
    for (unsigned n = 0; n < 100; n++)
        fds[n] = connect_to_it();
    let_run();
    for (unsigned n = 0; n < 100; n++) {
        char byte;

        refused += recv(fds[n], &byte, 1, MSG_DONTWAIT) == 0;
    }
    assert_int_equal(refused, 36);
    for (unsigned n = 0; n < 100; n++)
        close(fds[n]);
    let_run();
    assert_int_equal(get("/"), 200);
}

/* ---- who may come in ---- */

static void hosts_are_addresses_or_localhost(void **state)
{
    static const struct {
        const char *host;
        bool is_good;
    } rows[] = {
        {"127.0.0.1:8080", true},
        {"localhost:8080", true},
        {"LocalHost", true},
        {"[::1]:8080", true},
        {"192.168.1.7:80", true},
        {"evil.example:8080", false},
        {"localhost.evil.example", false},
        {"127.0.0.1.evil.example", false},
        {"127.0.0.1:8080@evil.example", false},
        {"[::1", false},
        {"[::1]x", false},
        {"", false},
        {"127.0.0.1:", false},
        {"localhost:80x", false},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        char headers[128];
        unsigned status;

        snprintf(headers, sizeof(headers), "Host: %s\r\n", rows[n].host);
        status = ask("GET /", headers);
        if (status != (rows[n].is_good ? 200 : 403))
            fail_msg("%s: %u", rows[n].host, status);
    }
    assert_int_equal(ask("GET /", ""), 400);
}

#define HANDSHAKE                                                                                  \
    "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"       \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static unsigned open_with(const char *path, const char *protocols, const char *headers)
{
    char line[64], all[1024];

    snprintf(line, sizeof(line), "GET %s", path);
    snprintf(all, sizeof(all), "%s%s%s%s%s", strstr(headers, "Host:") ? "" : "Host: " HOST "\r\n",
             headers, protocols ? "Sec-WebSocket-Protocol: " : "", protocols ? protocols : "",
             protocols ? "\r\n" : "");
    return ask(line, all);
}

static const char *right(void)
{
    static char text[128];

    snprintf(text, sizeof(text), "trapeze, token.%s", token);
    return text;
}

static void who_has_not_the_token_stays_out(void **state)
{
    static const char *const paths[] = {"/monitor", "/console", "/screen"};
    char wrong[160];

    (void)state;
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(open_with(paths[n], NULL, HANDSHAKE), 401);
        assert_int_equal(open_with(paths[n], "trapeze", HANDSHAKE), 401);
        assert_int_equal(open_with(paths[n], "trapeze, token.", HANDSHAKE), 401);
        assert_int_equal(open_with(paths[n], "trapeze, token.0", HANDSHAKE), 403);
        for (unsigned digit = 0; digit < strlen(token); digit++) {
            snprintf(wrong, sizeof(wrong), "%s", right());
            wrong[strlen("trapeze, token.") + digit] ^= 1;
            assert_int_equal(open_with(paths[n], wrong, HANDSHAKE), 403);
        }
        snprintf(wrong, sizeof(wrong), "%s0", right());
        assert_int_equal(open_with(paths[n], wrong, HANDSHAKE), 403);
        snprintf(wrong, sizeof(wrong), "%.*s", (int)strlen(right()) - 1, right());
        assert_int_equal(open_with(paths[n], wrong, HANDSHAKE), 403);
    }
    assert_int_equal(open_with("/screen", right(), HANDSHAKE), 404);
    assert_non_null(strstr(heard, "no screen"));
    assert_int_equal(open_with("/console", right(), HANDSHAKE), 101);
    assert_non_null(strstr(heard, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_non_null(strstr(heard, "Sec-WebSocket-Protocol: trapeze\r\n"));
    assert_null(strstr(heard, token));
}

static void pages_of_others_stay_out(void **state)
{
    (void)state;
    assert_int_equal(open_with("/monitor", right(), "Origin: http://" HOST "\r\n" HANDSHAKE), 101);
    assert_int_equal(open_with("/monitor", right(), "Origin: https://" HOST "\r\n" HANDSHAKE), 403);
    assert_int_equal(open_with("/monitor", right(), "Origin: http://evil\r\n" HANDSHAKE), 403);
    assert_int_equal(open_with("/monitor", right(), "Origin: http://127.0.0.1:81\r\n" HANDSHAKE),
                     403);
    assert_int_equal(open_with("/monitor", right(), "Origin: null\r\n" HANDSHAKE), 403);
    assert_int_equal(
        open_with("/monitor", right(), "Host: evil\r\nOrigin: http://evil\r\n" HANDSHAKE), 403);
    assert_int_equal(ask("GET /", "Host: " HOST "\r\nOrigin: http://evil\r\n"), 403);
}

static void handshakes_are_checked(void **state)
{
    (void)state;
    assert_int_equal(open_with("/monitor", right(), ""), 426);
    assert_int_equal(open_with("/monitor", strchr(right(), ' ') + 1, HANDSHAKE), 426);
    assert_int_equal(open_with("/monitor", right(),
                               "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 8\r\n"),
                     426);
    assert_non_null(strstr(heard, "Sec-WebSocket-Version: 13"));
    assert_int_equal(open_with("/monitor", right(),
                               "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n"),
                     400);
}

/* ---- WebSockets ---- */

static int open_socket(const char *path, const char *behind)
{
    int fd = connect_to_it();
    char text[1024], *end;

    snprintf(text, sizeof(text),
             "GET %s HTTP/1.1\r\nHost: " HOST "\r\n" HANDSHAKE
             "Sec-WebSocket-Protocol: %s\r\n\r\n%s",
             path, right(), behind);
    heard_size = 0;
    heard[0] = '\0';
    say(fd, text);
    while (!(end = strstr(heard, "\r\n\r\n")))
        assert_true(hear(fd));
    assert_memory_equal(heard, "HTTP/1.1 101 ", 13);
    end += 4;
    heard_size -= (size_t)(end - heard);
    memmove(heard, end, heard_size);
    return fd;
}

/* With a mask of zeros. */
static void say_frame(int fd, uint8_t first, const char *payload)
{
    uint8_t bytes[512] = {first, (uint8_t)(0x80 | strlen(payload))};

    memcpy(bytes + 6, payload, strlen(payload));
    assert_int_equal(send(fd, bytes, 6 + strlen(payload), MSG_NOSIGNAL), 6 + strlen(payload));
    let_run();
}

/* A whole frame, whose first byte is returned. */
static uint8_t hear_frame(int fd, char *out, size_t *out_size)
{
    size_t head = 2, size;
    uint8_t first;

    for (;;) {
        size = heard_size > 1 ? (uint8_t)heard[1] : 0;
        head = size == 126 ? 4 : 2;
        if (size == 126 && heard_size >= 4)
            size = get_be16((const uint8_t *)heard + 2);
        if (heard_size >= 2 && heard_size >= head + size)
            break;
        assert_true(hear(fd));
    }
    first = (uint8_t)heard[0];
    memcpy(out, heard + head, size);
    out[size] = '\0';
    *out_size = size;
    heard_size -= head + size;
    memmove(heard, heard + head + size, heard_size);
    return first;
}

static void expect_frame(int fd, uint8_t first, const char *payload, size_t size)
{
    static char got[70000];
    size_t got_size;

    assert_int_equal(hear_frame(fd, got, &got_size), first);
    assert_int_equal(got_size, size);
    assert_memory_equal(got, payload, size);
}

static void the_monitor_answers(void **state)
{
    static char got[70000];
    size_t size;
    int fd = open_socket("/monitor", "");

    (void)state;
    say_frame(fd, 0x02, "{\"command\":\"sta");
    say_frame(fd, 0x80, "tus\",\"id\":7}\n");
    assert_int_equal(hear_frame(fd, got, &size), 0x82);
    assert_non_null(strstr(got, "\"ok\":true"));
    assert_non_null(strstr(got, "\"id\":7"));
    say_frame(fd, 0x82, "{\"command\":\"quit\"}\n");
    hear_frame(fd, got, &size);
    expect_frame(fd, 0x88, "\x03\xe8", 2); /* it has hung up */
    assert_false(hear(fd));
    close(fd);
}

static void frames_may_come_with_the_request(void **state)
{
    int fd = open_socket("/console", "\x89\x82\1\1\1\1ij");

    (void)state;
    expect_frame(fd, 0x8a, "hk", 2);
    close(fd);
}

static void print(const char *text)
{
    machine_lock(m.machine);
    assert_int_equal(chardev_send(console, (const uint8_t *)text, strlen(text)), strlen(text));
    machine_unlock(m.machine);
}

static void a_console_has_a_past_and_many_viewers(void **state)
{
    int first, second;

    (void)state;
    print("before");
    first = open_socket("/console", "");
    expect_frame(first, 0x82, "before", 6);
    print("now");
    expect_frame(first, 0x82, "now", 3);
    second = open_socket("/console", "");
    expect_frame(second, 0x82, "beforenow", 9);
    say_frame(first, 0x82, "one");
    say_frame(second, 0x82, "two");
    assert_string_equal(typed, "onetwo");
    close(first);
    close(second);
}

static void keys_wait_for_room(void **state)
{
    int fd = open_socket("/console", "");

    (void)state;
    room = 2;
    say_frame(fd, 0x82, "abcd");
    say_frame(fd, 0x82, "ef");
    assert_string_equal(typed, "ab");
    machine_lock(m.machine);
    room = 3;
    chardev_accept_input(console);
    machine_unlock(m.machine);
    let_run();
    assert_string_equal(typed, "abcde");
    machine_lock(m.machine);
    room = 3;
    chardev_accept_input(console);
    machine_unlock(m.machine);
    let_run();
    assert_string_equal(typed, "abcdef");
    close(fd);
}

/* It costs no more memory, and sees the end. */
static void a_slow_viewer_loses_what_is_old(void **state)
{
    static char line[1001], got[70000];
    int fd = open_socket("/console", "");
    size_t size, all = 0;

    (void)state;
    memset(line, '.', 1000);
    for (unsigned n = 0; n < 2000; n++) {
        print(line);
        if (n % 50 == 0)
            loop_once(m.loop, 0);
    }
    let_run();
    print("the end");
    do {
        hear_frame(fd, got, &size);
        all += size;
    } while (!strstr(got, "the end"));
    assert_true(all < 1500000 && all >= WEB_CONSOLE_BYTES);
    close(fd);
}

static void mistakes_are_told_and_end_it(void **state)
{
    int fd = open_socket("/console", "");

    (void)state;
    say_frame(fd, 0x81, "text");
    expect_frame(fd, 0x88, "\x03\xeb", 2);
    assert_false(hear(fd));
    say_frame(fd, 0x82, "still here");
    assert_string_equal(typed, "");
    close(fd);
    fd = open_socket("/monitor", "");
    say_frame(fd, 0x88, "\x03\xe9");
    expect_frame(fd, 0x88, "\x03\xe9", 2);
    close(fd);
}

static void the_end_is_told(void **state)
{
    static char got[70000];
    size_t size;
    int fd = open_socket("/monitor", "");

    (void)state;
    say_frame(fd, 0x82, "{\"command\":\"events\",\"on\":true}\n");
    hear_frame(fd, got, &size);
    machine_lock(m.machine);
    machine_request_stop(m.machine, STOP_HOST, 3);
    machine_unlock(m.machine);
    machine_main(m.machine);
    machine_lock(m.machine);
    web_free(web);
    web = NULL;
    machine_unlock(m.machine);
    hear_frame(fd, got, &size);
    assert_non_null(strstr(got, "\"state\":\"stopped\""));
    expect_frame(fd, 0x88, "\x03\xe9", 2);
    assert_false(hear(fd));
    close(fd);
}

/* ---- the socket itself ---- */

static unsigned released;
static bool is_deaf;

static size_t inner_receive(void *opaque, const uint8_t *bytes, size_t size)
{
    (void)opaque;
    (void)bytes;
    return is_deaf ? 0 : size;
}

static size_t inner_fill(void *opaque, uint8_t *out, size_t size)
{
    (void)opaque;
    (void)out;
    (void)size;
    return 0;
}

static void inner_closed(void *opaque)
{
    (void)opaque;
}

static void inner_release(void *opaque, void *connection)
{
    (void)opaque;
    close(*(int *)connection);
    released++;
}

static const struct web_socket_ops inner_ops = {inner_receive, inner_fill, inner_closed};

static void who_does_not_hang_up_is_cut_off(void **state)
{
    struct web_sockets sockets = {
        .loop = m.loop, .clocks = machine_clocks(m.machine), .release = inner_release};
    struct web_socket *socket;
    int pair[2];
    char byte;

    (void)state;
    released = 0;
    is_deaf = true;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    machine_lock(m.machine);
    socket = web_socket_new(&sockets, pair[1], &pair[1], "", 0, &inner_ops, NULL);
    assert_non_null(socket);
    machine_unlock(m.machine);
    say_frame(pair[0], 0x82, "nobody takes it");
    machine_lock(m.machine);
    web_sockets_tick(&sockets);
    web_sockets_tick(&sockets);
    assert_int_equal(sockets.count, 1);
    web_socket_close(socket, WEBSOCKET_NORMAL);
    web_sockets_tick(&sockets);
    assert_int_equal(sockets.count, 1);
    web_sockets_tick(&sockets);
    assert_int_equal(sockets.count, 0);
    assert_int_equal(released, 1);
    machine_unlock(m.machine);
    assert_int_equal(recv(pair[0], &byte, 1, MSG_DONTWAIT), 1);
    assert_int_equal((uint8_t)byte, 0x88);
    close(pair[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_are_for_everybody),
        TEST(one_connection_serves_many_requests),
        TEST(nothing_else_is_served),
        TEST(missing_packages_have_names),
        TEST(a_page_without_files_does_not_start),
        TEST(only_getting_is_allowed),
        TEST(long_requests_are_refused),
        TEST(there_is_a_largest_number_of_connections),
        TEST(hosts_are_addresses_or_localhost),
        TEST(who_has_not_the_token_stays_out),
        TEST(pages_of_others_stay_out),
        TEST(handshakes_are_checked),
        TEST(the_monitor_answers),
        TEST(frames_may_come_with_the_request),
        TEST(a_console_has_a_past_and_many_viewers),
        TEST(keys_wait_for_room),
        TEST(a_slow_viewer_loses_what_is_old),
        TEST(mistakes_are_told_and_end_it),
        TEST(the_end_is_told),
        TEST(who_does_not_hang_up_is_cut_off),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
