/*
 * client.c - trapeze list, open, monitor, inspect, balloon: talk to running machines' sockets
 */
#include "cli/client.h"
#include "cli/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "cli/machines.h"
#include "control/monitor.h"
#include "control/stream.h"
#include "host/host.h"

struct client_options {
    bool json;
};

const struct cli_option cli_client_options[] = {
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct client_options, json),
     .help = "print answers as they come: JSON, one a line"},
    {.kind = CLI_END},
};

int client_open(struct client_connection *connection, const char *socket, struct error *err)
{
    char address[MACHINE_PATH_BYTES];

    if (machines_find(socket, address, err))
        return -EINVAL;
    connection->fd = stream_connect(address, err);
    if (connection->fd < 0) {
        error_prefix(err, "is a machine running with --name or --monitor %s? ", socket);
        return -EINVAL;
    }
    connection->in = fdopen(connection->fd, "r");
    return connection->in ? 0 : error_set(err, errno, "%s", strerror(errno));
}

void client_close(struct client_connection *connection)
{
    if (connection->in)
        fclose(connection->in);
    else if (connection->fd >= 0)
        close(connection->fd);
}

/* With a descriptor, or -1. */
int client_send_with_file(const struct client_connection *connection, const json_t *request,
                          int file, struct error *err)
{
    char *text = json_dumps(request, JSON_COMPACT);
    size_t size = text ? strlen(text) : 0;

    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    text[size] = '\n'; /* in place of the end mark */
    for (size_t sent = 0; sent < size + 1;) {
        ptrdiff_t n = host_send(connection->fd, text + sent, size + 1 - sent, sent ? -1 : file);

        if (n < 0) {
            free(text);
            return error_set(err, errno, "the machine does not listen any more: %s",
                             strerror(errno));
        }
        sent += (size_t)n;
    }
    free(text);
    return 0;
}

int client_send(const struct client_connection *connection, const json_t *request,
                struct error *err)
{
    return client_send_with_file(connection, request, -1, err);
}

/* The next line of JSON, or NULL. */
json_t *client_read(const struct client_connection *connection, struct error *err)
{
    json_error_t where;
    json_t *reply = NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length = getline(&line, &capacity, connection->in);

    if (length > 0)
        reply = json_loadb(line, (size_t)length, 0, &where);
    if (length <= 0)
        error_set(err, ECONNRESET, "the machine has ended");
    else if (!reply)
        error_set(err, EPROTO, "what answers is not a monitor: %s", where.text);
    free(line);
    return reply;
}

/* The answer to a request, whatever events come before it. NULL with err. */
json_t *client_read_answer(const struct client_connection *connection, struct error *err)
{
    json_t *line = client_read(connection, err);

    while (json_object_get(line, "event")) {
        json_decref(line);
        line = client_read(connection, err);
    }
    return line;
}

void client_print(const struct client_connection *connection, const json_t *reply)
{
    if (connection->json) {
        json_dumpf(reply, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        monitor_print_reply(stdout, reply);
    }
    fflush(stdout);
}

/* 0, or what a reply says went wrong. */
int client_check(const json_t *reply, struct error *err)
{
    const char *error = json_string_value(json_object_get(reply, "error"));

    if (json_is_true(json_object_get(reply, "ok")))
        return 0;
    return error_set(err, EREMOTEIO, "%s", error ? error : "refused");
}

/* One request and its reply; -EREMOTEIO if the machine answered with an error. */
int client_ask(const struct client_connection *connection, const json_t *request, struct error *err)
{
    json_t *reply = client_send(connection, request, err) ? NULL : client_read(connection, err);
    int result = reply ? client_check(reply, err) : -EIO;

    if (reply && (result == 0 || connection->json))
        client_print(connection, reply);
    json_decref(reply);
    return result;
}

static int ask_words(const struct client_connection *connection, const char *const *words,
                     size_t count, struct error *err)
{
    json_t *request = monitor_parse_words(words, count, err);
    int result;

    if (!request)
        return -EINVAL;
    result = client_ask(connection, request, err);
    json_decref(request);
    return result;
}

/* Commands from standard input; a mistake is reported and the next one done. */
static int ask_lines(const struct cli_verb *verb, const struct client_connection *connection)
{
    int status = CLI_DONE;
    char *line = NULL;
    size_t capacity = 0;

    while (getline(&line, &capacity, stdin) > 0) {
        const char *words[MONITOR_MAX_WORDS];
        size_t count = monitor_split_words(line, words);
        struct error err = {0};

        if (count == 0 || words[0][0] == '#')
            continue;
        if (ask_words(connection, words, count, &err))
            status = cli_failed(verb, &err);
        if (err.code == ECONNRESET || strcmp(words[0], "quit") == 0)
            break;
    }
    free(line);
    return status;
}

static int talk(const struct cli_verb *verb, const struct client_options *options,
                const char *socket, const char *const *words, size_t count)
{
    struct client_connection connection = {.fd = -1, .json = options->json};
    struct error err = {0};
    int status = CLI_DONE;

    if (client_open(&connection, socket, &err))
        status = cli_failed(verb, &err);
    else if (count == 0)
        status = ask_lines(verb, &connection);
    else if (ask_words(&connection, words, count, &err))
        status = cli_failed(verb, &err);
    client_close(&connection);
    return status;
}

/* Find mistakes in the command before the socket is opened. */
static int check_words(const struct cli_verb *verb, const char *const *words, size_t count)
{
    struct error err = {0};
    json_t *request = count ? monitor_parse_words(words, count, &err) : NULL;

    json_decref(request);
    return err.code ? cli_misused(verb, &err) : CLI_DONE;
}

int cli_monitor_run(const struct cli_verb *verb, char **words)
{
    struct client_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    status = check_words(verb, operands.items + 1, operands.count - 1);
    if (status == CLI_DONE)
        status = talk(verb, &options, operands.items[0], operands.items + 1, operands.count - 1);
    cli_texts_free(&operands);
    return status;
}

int cli_inspect_run(const struct cli_verb *verb, char **words)
{
    struct client_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status;
    const char *command[2] = {"inspect"};

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    command[1] = operands.count > 1 ? operands.items[1] : NULL;
    status = talk(verb, &options, operands.items[0], command, operands.count);
    cli_texts_free(&operands);
    return status;
}

/* ---- trapeze list ---- */

#define ANSWER_WAIT_S 2

static void give_up_after(const struct client_connection *connection, long seconds)
{
    const struct timeval limit = {.tv_sec = seconds};

    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* What a machine says of itself. NULL: nothing, for a while. */
static json_t *ask_status(const struct client_connection *connection, struct error *err)
{
    json_t *request = json_pack("{s:s}", "command", "status"), *status = NULL;

    give_up_after(connection, ANSWER_WAIT_S);
    if (!client_send(connection, request, err))
        status = client_read(connection, err);
    json_decref(request);
    return status;
}

static void add_machine(void *opaque, const char *name, const char *summary)
{
    struct client_connection connection = {.fd = -1};
    json_t *status = NULL, *entry;
    struct error err = {0};

    (void)summary;
    if (!client_open(&connection, name, &err)) {
        status = ask_status(&connection, &err);
        entry = json_pack("{s:s}", "name", name);
        json_object_set_new(entry, "state", json_string("does not answer"));
        json_object_del(status, "ok");
        json_object_update(entry, status);
        json_array_append_new(opaque, entry);
    }
    json_decref(status);
    client_close(&connection);
}

/* Where its screen is to be seen, beside a window; "" if nowhere. */
static const char *viewers_text(const json_t *status, char *out, size_t size)
{
    const json_t *viewers = json_object_get(status, "viewers");
    const char *vnc = json_string_value(json_object_get(viewers, "vnc"));
    const char *web = json_string_value(json_object_get(viewers, "web"));

    snprintf(out, size, "%s%s%s%s", vnc ? ", VNC on " : "", vnc ? vnc : "",
             web ? ", web page " : "", web ? web : "");
    return out;
}

static void print_machine(const json_t *machine)
{
    const json_t *bytes = json_object_get(machine, "memory_bytes");
    const char *state = json_string_value(json_object_get(machine, "state"));
    const char *asleep = json_is_true(json_object_get(machine, "asleep")) ? ", asleep" : "";
    char viewers[600], text[800];

    snprintf(text, sizeof(text), "%s", state);
    if (bytes)
        snprintf(text, sizeof(text), "%s%s, %lld MiB, %lld processors, %s%s", state, asleep,
                 (long long)json_integer_value(bytes) >> 20,
                 (long long)json_integer_value(json_object_get(machine, "cpus")),
                 json_string_value(json_object_get(machine, "engine")),
                 viewers_text(machine, viewers, sizeof(viewers)));
    cli_print_row(stdout, 0, 18, json_string_value(json_object_get(machine, "name")), text);
}

int cli_list_run(const struct cli_verb *verb, char **words)
{
    struct client_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err);
    json_t *list, *machine;
    size_t n;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    list = json_array();
    machines_choices(add_machine, list);
    if (options.json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        json_array_foreach(list, n, machine) print_machine(machine);
    }
    json_decref(list);
    return CLI_DONE;
}

/* ---- trapeze open ---- */

/* The machine gets one end of a pair of sockets, and this process becomes a window at the other. */
static int open_window(struct client_connection *connection, const char *socket, struct error *err)
{
    json_t *request = json_pack("{s:s}", "command", "window"), *reply = NULL;
    int ends[2], result = -EIO;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        json_decref(request);
        return error_set(err, errno, "socketpair: %s", strerror(errno));
    }
    if (!client_open(connection, socket, err) &&
        !client_send_with_file(connection, request, ends[0], err))
        reply = client_read_answer(connection, err);
    close(ends[0]);
    if (reply)
        result = client_check(reply, err);
    json_decref(reply);
    json_decref(request);
    if (!result)
        result = run_become_window(ends[1], socket, false, err);
    close(ends[1]);
    return result;
}

/* What there is instead of a window, on a host without a desktop. */
static int refuse_window(struct client_connection *connection, const char *socket,
                         struct error *err)
{
    json_t *status = client_open(connection, socket, err) ? NULL : ask_status(connection, err);
    char viewers[600];

    if (status && !*viewers_text(status, viewers, sizeof(viewers)))
        snprintf(viewers, sizeof(viewers),
                 ", and run it with --display vnc or --web to see it from another host");
    if (status)
        error_set(err, ENOTSUP,
                  "no desktop is here for a window (neither DISPLAY nor WAYLAND_DISPLAY is set)%s",
                  viewers);
    json_decref(status);
    return -ENOTSUP;
}

static bool has_desktop(void)
{
    return getenv("DISPLAY") || getenv("WAYLAND_DISPLAY") || getenv("SDL_VIDEODRIVER");
}

int cli_open_run(const struct cli_verb *verb, char **words)
{
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, NULL, words, &operands, &err);
    struct client_connection connection = {.fd = -1};
    int status;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    (has_desktop() ? open_window : refuse_window)(&connection, operands.items[0], &err);
    status = cli_failed(verb, &err);
    client_close(&connection);
    cli_texts_free(&operands);
    return status;
}

/* ---- trapeze balloon ---- */

#define STATISTICS_WAIT_S 2

/* What the guest says, or NULL if it says nothing for a while. */
static json_t *read_statistics(const struct client_connection *connection)
{
    struct error ignored = {0};
    json_t *event;

    give_up_after(connection, STATISTICS_WAIT_S);
    do {
        event = client_read(connection, &ignored);
    } while (event && !json_object_get(event, "statistics") && (json_decref(event), true));
    return event;
}

/* The reply, or NULL with err. */
static json_t *ask_balloon(struct client_connection *connection, const char *socket,
                           const char *size, struct error *err)
{
    const char *words[] = {"balloon", size};
    json_t *request = monitor_parse_words(words, size ? 2 : 1, err);
    json_t *events = json_pack("{s:s, s:b}", "command", "events", "on", 1);
    json_t *reply = NULL;
    const char *error;

    if (request && !client_open(connection, socket, err) && !client_send(connection, events, err) &&
        !client_send(connection, request, err)) {
        json_decref(client_read(connection, err)); /* of events */
        do {                                       /* and of what happens meanwhile */
            json_decref(reply);
            reply = client_read(connection, err);
        } while (reply && !json_object_get(reply, "ok"));
    }
    json_decref(events);
    json_decref(request);
    error = json_string_value(json_object_get(reply, "error"));
    if (!error)
        return reply;
    error_set(err, EREMOTEIO, "%s", error);
    json_decref(reply);
    return NULL;
}

int cli_balloon_run(const struct cli_verb *verb, char **words)
{
    struct client_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status = CLI_DONE;
    struct client_connection connection = {.fd = -1};
    json_t *reply, *news = NULL;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    connection.json = options.json;
    reply = ask_balloon(&connection, operands.items[0],
                        operands.count > 1 ? operands.items[1] : NULL, &err);
    if (reply && json_is_true(json_object_get(reply, "asked")))
        news = read_statistics(&connection);
    if (news)
        json_object_update_existing(reply, news);
    json_object_del(reply, "asked");
    if (reply)
        client_print(&connection, reply);
    else
        status = cli_failed(verb, &err);
    json_decref(news);
    json_decref(reply);
    client_close(&connection);
    cli_texts_free(&operands);
    return status;
}
