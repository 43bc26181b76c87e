/*
 * switch.c - the verbs "trapeze switch ..."
 *
 * "run" is the switch, until a signal ends it; the others talk to it over its socket.
 */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "backends/net/frame_stream.h"
#include "backends/net/internal.h"
#include "backends/net/switch.h"
#include "base/log.h"
#include "control/stream.h"
#include "control/switch_server.h"
#include "host/host.h"
#include "host/loop.h"

#define MAX_ANSWER_BYTES (1u << 20)

struct switch_options {
    bool json;
};

const struct cli_option cli_switch_show_options[] = {
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct switch_options, json),
     .help = "print JSON"},
    {.kind = CLI_END},
};

/* ---- trapeze switch run ---- */

static int signal_fd_for(int first, int second)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, first);
    sigaddset(&signals, second);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    return signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void set_true(void *opaque, unsigned events)
{
    (void)events;
    *(bool *)opaque = true;
}

static bool is_true(void *opaque)
{
    return *(bool *)opaque;
}

static int serve(const char *path, struct error *err)
{
    bool ends = false;
    const struct loop_hooks hooks = {.finished = is_true, .opaque = &ends};
    int signals = signal_fd_for(SIGINT, SIGTERM), result = -EINVAL;
    struct loop *loop = loop_new(err);
    struct loop_fd *handler =
        loop ? loop_add_fd(loop, signals, LOOP_READ, set_true, &ends, err) : NULL;
    struct switch_server *server = handler ? switch_server_new(loop, path, err) : NULL;

    if (server && !host_sandbox(HOST_MAY_REMOVE, err)) {
        loop_set_hooks(loop, &hooks);
        log_info("switch: at %s", path);
        loop_run(loop);
        result = 0;
    }
    switch_server_free(server);
    loop_remove_fd(handler);
    if (loop)
        loop_free(loop);
    close(signals);
    return result;
}

/* ---- talking to it ---- */

static int say(const char *path, const char *text, struct error *err)
{
    size_t size = strlen(text);
    uint8_t head[4] = {0, 0, (uint8_t)(size >> 8), (uint8_t)size};
    char address[128];
    int fd;

    snprintf(address, sizeof(address), "unix:%s", path);
    fd = stream_connect(address, err);
    if (fd < 0) {
        error_prefix(err, "is 'trapeze switch run' running? ");
        return fd;
    }
    if (send(fd, head, 4, MSG_NOSIGNAL) == 4 && send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size)
        return fd;
    error_set(err, errno, "%s: %s", path, strerror(errno));
    close(fd);
    return -EIO;
}

struct answer {
    char *text;
    size_t size;
};

static void append(void *opaque, uint8_t *bytes, size_t size)
{
    struct answer *a = opaque;
    char *text = a->size + size < MAX_ANSWER_BYTES ? realloc(a->text, a->size + size) : NULL;

    if (!text)
        return;
    memcpy(text + a->size, bytes, size);
    a->text = text;
    a->size += size;
}

/* Until the other side has said all. */
static int read_frames(int fd, frame_stream_put *put, void *opaque, struct error *err)
{
    struct frame_stream stream;
    int result = frame_stream_init(&stream) ? 0 : error_set(err, ENOMEM, "out of memory");
    uint8_t byte;

    while (!result || result == -EAGAIN) {
        if (recv(fd, &byte, 1, MSG_PEEK) < 0 && errno != EINTR)
            break;
        result = frame_stream_read(&stream, fd, put, opaque);
    }
    frame_stream_done(&stream);
    return result == -ECONNRESET ? 0 : result;
}

static void print_port(const json_t *port)
{
    const json_t *trunk = json_object_get(port, "trunk"), *range;
    size_t n;

    printf("%4lld  %-20s  ", (long long)json_integer_value(json_object_get(port, "port")),
           json_string_value(json_object_get(port, "name")));
    if (!trunk)
        printf("VLAN %lld", (long long)json_integer_value(json_object_get(port, "vlan")));
    else
        printf("trunk");
    json_array_foreach(trunk, n, range) printf(
        "%s%lld-%lld", n ? "+" : " ", (long long)json_integer_value(json_array_get(range, 0)),
        (long long)json_integer_value(json_array_get(range, 1)));
    printf("  received %lld  sent %lld  refused %lld  lost %lld\n",
           (long long)json_integer_value(json_object_get(port, "received")),
           (long long)json_integer_value(json_object_get(port, "sent")),
           (long long)json_integer_value(json_object_get(port, "refused")),
           (long long)json_integer_value(json_object_get(port, "lost")));
}

static void print_address(const json_t *entry)
{
    printf("%s  VLAN %lld  port %lld  %lld s ago\n",
           json_string_value(json_object_get(entry, "mac")),
           (long long)json_integer_value(json_object_get(entry, "vlan")),
           (long long)json_integer_value(json_object_get(entry, "port")),
           (long long)json_integer_value(json_object_get(entry, "age_s")));
}

static int print_answer(const struct answer *a, bool json, struct error *err)
{
    json_t *all = a->size ? json_loads(a->text, 0, NULL) : NULL, *one;
    size_t n;

    if (!all)
        return error_set(err, EPROTO, "what answers is no switch");
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        json_array_foreach(json_object_get(all, "ports"), n, one) print_port(one);
        json_array_foreach(json_object_get(all, "addresses"), n, one) print_address(one);
    }
    json_decref(all);
    return 0;
}

static int show(const char *path, bool json, struct error *err)
{
    struct answer a = {NULL, 0};
    int fd = say(path, "show", err), result = fd;

    if (fd >= 0) {
        result = read_frames(fd, append, &a, err);
        close(fd);
    }
    if (!result)
        result = print_answer(&a, json, err);
    free(a.text);
    return result;
}

static void write_frame(void *opaque, uint8_t *bytes, size_t size)
{
    struct io_piece piece = {bytes, size};
    struct net_frame frame = {.pieces = &piece, .piece_count = 1, .size_bytes = size};

    capture_frame(opaque, &frame);
}

static int capture(const char *path, const char *port, const char *file, struct error *err)
{
    struct capture *to = capture_open(file, err);
    char hello[64];
    int fd = -EINVAL, result;

    snprintf(hello, sizeof(hello), "watch,%s", port);
    if (to)
        fd = say(path, hello, err);
    result = fd < 0 ? fd : read_frames(fd, write_frame, to, err);
    capture_free(to);
    if (fd >= 0)
        close(fd);
    return result;
}

/* ---- verbs ---- */

typedef int verb_fn(const struct switch_options *options, const char *path,
                    const struct cli_texts *operands, struct error *err);

static int run(const struct cli_verb *verb, char **words, verb_fn *what)
{
    struct switch_options options = {false};
    struct cli_texts operands;
    struct error err = {0};
    char path[108];
    int result = cli_parse(verb, &options, words, &operands, &err);

    if (result == CLI_ANSWERED)
        return CLI_DONE;
    if (result)
        return cli_misused(verb, &err);
    result = switch_path(operands.items[0], path, sizeof(path), &err);
    if (!result)
        result = what(&options, path, &operands, &err);
    cli_texts_free(&operands);
    return result ? cli_failed(verb, &err) : CLI_DONE;
}

static int do_run(const struct switch_options *options, const char *path,
                  const struct cli_texts *operands, struct error *err)
{
    (void)options, (void)operands;
    return serve(path, err);
}

static int do_show(const struct switch_options *options, const char *path,
                   const struct cli_texts *operands, struct error *err)
{
    (void)operands;
    return show(path, options->json, err);
}

static int do_capture(const struct switch_options *options, const char *path,
                      const struct cli_texts *operands, struct error *err)
{
    (void)options;
    return capture(path, operands->items[1], operands->items[2], err);
}

int cli_switch_run_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_run);
}

int cli_switch_show_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_show);
}

int cli_switch_capture_run(const struct cli_verb *verb, char **words)
{
    return run(verb, words, do_capture);
}
