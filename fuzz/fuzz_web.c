/*
 * fuzz_web.c - any bytes of browsers: requests, and frames of WebSockets
 *
 * The first byte says what was said before (nothing, or the handshake of the console's or the
 * monitor's WebSocket) and whether the browser reads what it is sent. Claims: nobody comes in
 * without the token; frames give the same stream however they are cut, and it is no longer than
 * they are; when the browser has gone, nothing of it is left.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "control/monitor.h"
#include "control/web_internal.h"
#include "control_fuzz.h"
#include "trapeze/chardev.h"

#define TO_CONSOLE 1
#define TO_MONITOR 2
#define IS_LAZY    4
#define MAX_BYTES  2048

static struct monitor *monitor;
static struct chardev *console;
static struct web *web;
static size_t typed_bytes;
static char folder[] = "/tmp/fuzz_web.XXXXXX";

static size_t device_room(void *opaque)
{
    return typed_bytes % 7; /* now and then none, until it is asked again */
}

static void device_receive(void *opaque, const uint8_t *data, size_t size)
{
    typed_bytes += size;
}

static const struct chardev_frontend device = {.can_receive = device_room,
                                               .receive = device_receive};

static void make_page(void)
{
    char name[64];
    FILE *file;

    assert(mkdtemp(folder));
    snprintf(name, sizeof(name), "%s/index.html", folder);
    file = fopen(name, "w");
    assert(file && fputs("page", file) >= 0 && fclose(file) == 0);
}

static void remove_page(void)
{
    char name[64];

    snprintf(name, sizeof(name), "%s/index.html", folder);
    remove(name);
    remove(folder);
}

static void open_machine(void)
{
    struct web_config config = {.address = "", .page = folder, .packages = folder};
    struct error err = {0};

    if (folder[sizeof(folder) - 2] == 'X') {
        make_page();
        atexit(remove_page);
    }
    fuzz_machine_open();
    config.monitor = monitor = monitor_new(fuzz_machine, NULL, &err);
    config.console = console = chardev_open(fuzz_loop, "ring:size=4K,overwrite=on", &err);
    assert(monitor && console);
    chardev_connect(console, &device);
    machine_lock(fuzz_machine);
    web = web_new(fuzz_machine, &config, &err);
    machine_unlock(fuzz_machine);
    assert(web && machine_start(fuzz_machine, &err) == 0);
}

static void close_machine(void)
{
    machine_lock(fuzz_machine);
    web_free(web);
    machine_unlock(fuzz_machine);
    machine_free(fuzz_machine);
    monitor_free(monitor);
    chardev_free(console);
    loop_free(fuzz_loop);
    fuzz_machine = NULL;
}

/* ---- frames by themselves ---- */

struct unpacked {
    size_t size;
    uint32_t sum;
    enum websocket_event last;
    uint16_t code;
};

static struct unpacked unpack(const uint8_t *data, size_t size, size_t step)
{
    struct websocket_reader reader = {0};
    struct unpacked out = {0};
    uint8_t *copy = malloc(size + 1);

    memcpy(copy, data, size);
    for (size_t at = 0, end; at < size; at = end) {
        end = at + step < size ? at + step : size;
        for (size_t from = at; from < end;) {
            struct websocket_piece piece;
            size_t taken = websocket_read(&reader, copy + from, end - from, &piece);

            assert(taken && taken <= end - from);
            from += taken;
            for (size_t n = 0; n < piece.size; n++)
                out.sum = out.sum * 31 + piece.bytes[n];
            out.size += piece.size;
            if (piece.event > WEBSOCKET_DATA) {
                out.last = piece.event;
                out.code = piece.code;
            }
        }
    }
    free(copy);
    return out;
}

static void check_frames(const uint8_t *data, size_t size)
{
    struct unpacked whole = unpack(data, size, size), cut = unpack(data, size, 1);

    assert(whole.size <= size && whole.size == cut.size && whole.sum == cut.sum);
    assert(whole.last == cut.last && whole.code == cut.code);
}

/* ---- a browser ---- */

static void say_hello(const char *path)
{
    char text[512];
    int size = snprintf(text, sizeof(text),
                        "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Sec-WebSocket-Protocol: trapeze, token.%s\r\n\r\n",
                        path, strchr(web_url(web), '#') + 1);

    fuzz_send((const uint8_t *)text, (size_t)size);
    loop_once(fuzz_loop, 0);
}

/* Something to send, and room for keys. */
static void work_console(void)
{
    machine_lock(fuzz_machine);
    chardev_send(console, (const uint8_t *)"login: ", 7);
    typed_bytes++;
    chardev_accept_input(console);
    machine_unlock(fuzz_machine);
    loop_once(fuzz_loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned how = size ? data[0] & 7 : 0;
    int fd;

    size = size < MAX_BYTES ? size : MAX_BYTES;
    if (size) {
        data++;
        size--;
    }
    check_frames(data, size);
    if (!fuzz_machine)
        open_machine();
    fd = fuzz_socket();
    machine_lock(fuzz_machine);
    web_connect(web, fd);
    machine_unlock(fuzz_machine);
    loop_once(fuzz_loop, 0);
    fuzz_lazy = false;
    typed_bytes = 0;
    if (how & (TO_CONSOLE | TO_MONITOR)) {
        say_hello(how & TO_CONSOLE ? "/console" : "/monitor");
        assert(web_viewers(web) == 1);
    }
    fuzz_lazy = how & IS_LAZY;
    fuzz_send(data, size / 2);
    work_console();
    fuzz_send(data + size / 2, size - size / 2);
    work_console();
    assert(how & (TO_CONSOLE | TO_MONITOR) || !web_viewers(web));
    close(fuzz_fd);
    for (unsigned n = 0; n < 100 && web_viewers(web); n++) {
        work_console();
        loop_once(fuzz_loop, 1000000);
    }
    assert(!web_viewers(web));
    if (machine_get_state(fuzz_machine) == MACHINE_STOPPED)
        close_machine();
    return 0;
}
