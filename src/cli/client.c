/*
 * client.c - trapeze list, open, monitor, inspect, device, media, balloon, screenshot, type, key
 * and click: talk to running machines' sockets
 */
#include "cli/run.h"
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/base64.h"
#include "cli/machines.h"
#include "control/monitor.h"
#include "control/stream.h"
#include "host/given.h"
#include "host/host.h"
#include "trapeze/block.h"

struct client_options {
    bool json;
};

const struct cli_option cli_client_options[] = {
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct client_options, json),
     .help = "print answers as they come: JSON, one a line"},
    {.kind = CLI_END},
};

struct connection {
    int fd;
    FILE *in;
    bool json;
};

static int open_connection(struct connection *connection, const char *socket, struct error *err)
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

static void close_connection(struct connection *connection)
{
    if (connection->in)
        fclose(connection->in);
    else if (connection->fd >= 0)
        close(connection->fd);
}

/* With a descriptor, or -1. */
static int send_with_file(const struct connection *connection, const json_t *request, int file,
                          struct error *err)
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

static int send_request(const struct connection *connection, const json_t *request,
                        struct error *err)
{
    return send_with_file(connection, request, -1, err);
}

/* The next line of JSON, or NULL. */
static json_t *read_reply(const struct connection *connection, struct error *err)
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
static json_t *read_answer(const struct connection *connection, struct error *err)
{
    json_t *line = read_reply(connection, err);

    while (json_object_get(line, "event")) {
        json_decref(line);
        line = read_reply(connection, err);
    }
    return line;
}

static void print_reply(const struct connection *connection, const json_t *reply)
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
static int check_reply(const json_t *reply, struct error *err)
{
    const char *error = json_string_value(json_object_get(reply, "error"));

    if (json_is_true(json_object_get(reply, "ok")))
        return 0;
    return error_set(err, EREMOTEIO, "%s", error ? error : "refused");
}

/* One request and its reply; -EREMOTEIO if the machine answered with an error. */
static int ask(const struct connection *connection, const json_t *request, struct error *err)
{
    json_t *reply = send_request(connection, request, err) ? NULL : read_reply(connection, err);
    int result = reply ? check_reply(reply, err) : -EIO;

    if (reply && (result == 0 || connection->json))
        print_reply(connection, reply);
    json_decref(reply);
    return result;
}

static int ask_words(const struct connection *connection, const char *const *words, size_t count,
                     struct error *err)
{
    json_t *request = monitor_parse_words(words, count, err);
    int result;

    if (!request)
        return -EINVAL;
    result = ask(connection, request, err);
    json_decref(request);
    return result;
}

/* Commands from standard input; a mistake is reported and the next one done. */
static int ask_lines(const struct cli_verb *verb, const struct connection *connection)
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
    struct connection connection = {.fd = -1, .json = options->json};
    struct error err = {0};
    int status = CLI_DONE;

    if (open_connection(&connection, socket, &err))
        status = cli_failed(verb, &err);
    else if (count == 0)
        status = ask_lines(verb, &connection);
    else if (ask_words(&connection, words, count, &err))
        status = cli_failed(verb, &err);
    close_connection(&connection);
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

static void give_up_after(const struct connection *connection, long seconds)
{
    const struct timeval limit = {.tv_sec = seconds};

    setsockopt(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* A machine that listens: what it says of itself. */
static void add_machine(void *opaque, const char *name, const char *summary)
{
    struct connection connection = {.fd = -1};
    json_t *request = json_pack("{s:s}", "command", "status"), *status = NULL, *entry;
    struct error err = {0};

    (void)summary;
    if (!open_connection(&connection, name, &err)) {
        give_up_after(&connection, ANSWER_WAIT_S);
        if (!send_request(&connection, request, &err))
            status = read_reply(&connection, &err);
        entry = json_pack("{s:s}", "name", name);
        json_object_set_new(entry, "state", json_string("does not answer"));
        json_object_del(status, "ok");
        json_object_update(entry, status);
        json_array_append_new(opaque, entry);
    }
    json_decref(status);
    json_decref(request);
    close_connection(&connection);
}

static void print_machine(const json_t *machine)
{
    const json_t *bytes = json_object_get(machine, "memory_bytes");
    char text[160];

    snprintf(text, sizeof(text), "%s", json_string_value(json_object_get(machine, "state")));
    if (bytes)
        snprintf(text, sizeof(text), "%s, %lld MiB, %lld processors, %s",
                 json_string_value(json_object_get(machine, "state")),
                 (long long)json_integer_value(bytes) >> 20,
                 (long long)json_integer_value(json_object_get(machine, "cpus")),
                 json_string_value(json_object_get(machine, "engine")));
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
static int open_window(struct connection *connection, const char *socket, struct error *err)
{
    json_t *request = json_pack("{s:s}", "command", "window"), *reply = NULL;
    int ends[2], result = -EIO;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        json_decref(request);
        return error_set(err, errno, "socketpair: %s", strerror(errno));
    }
    if (!open_connection(connection, socket, err) &&
        !send_with_file(connection, request, ends[0], err))
        reply = read_answer(connection, err);
    close(ends[0]);
    if (reply)
        result = check_reply(reply, err);
    json_decref(reply);
    json_decref(request);
    if (!result)
        result = run_become_window(ends[1], socket, false, err);
    close(ends[1]);
    return result;
}

int cli_open_run(const struct cli_verb *verb, char **words)
{
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, NULL, words, &operands, &err);
    struct connection connection = {.fd = -1};
    int status;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    open_window(&connection, operands.items[0], &err);
    status = cli_failed(verb, &err);
    close_connection(&connection);
    cli_texts_free(&operands);
    return status;
}

/* ---- what the machine may not open ---- */

/* Open here what a request makes the machine open. */
static int open_for(const json_t *request, bool is_floppy, struct host_given *out,
                    struct error *err)
{
    const char *disk = json_string_value(json_object_get(request, "disk"));
    const char *net = json_string_value(json_object_get(request, "net"));
    const char *medium = json_string_value(json_object_get(request, "file"));
    int result = 0;

    if (!request)
        return error_set(err, EINVAL, "a name is not UTF-8");
    host_record(out);
    if (disk)
        result = run_hand_over_disk(disk, err);
    else if (net)
        result = run_hand_over_network(net, err);
    else if (medium)
        result = (is_floppy ? run_hand_over_floppy : run_hand_over_cd)(medium, err);
    host_record(NULL);
    return result;
}

static int give_file(const struct connection *connection, const struct host_given_file *file,
                     struct error *err)
{
    json_t *request = json_pack("{s:s, s:s, s:i}", "command", "give", "name", file->name, "flags",
                                (int)file->flags);
    json_t *reply = NULL;
    int result = -EINVAL;

    if (!request)
        error_set(err, EINVAL, "'%s' is not UTF-8", file->name);
    else if (!send_with_file(connection, request, file->fd, err))
        reply = read_answer(connection, err);
    if (reply)
        result = check_reply(reply, err);
    json_decref(request);
    json_decref(reply);
    return result;
}

static int give(const struct connection *connection, const struct host_given *given,
                struct error *err)
{
    int result = 0;

    for (size_t n = 0; !result && n < given->count; n++)
        result = give_file(connection, &given->files[n], err);
    return result;
}

/* ---- trapeze device ---- */

struct device_options {
    const char *disk, *net, *device;
    bool json;
};

struct remove_options {
    bool force, json;
};

const struct cli_option cli_device_add_options[] = {
    {"disk", .letter = 'D', .kind = CLI_TEXT, .offset = offsetof(struct device_options, disk),
     .argument = "FILE[,P=VALUE]...", .file = true, .help = "a disk, as with 'trapeze run --disk'"},
    {"net", .letter = 'N', .kind = CLI_TEXT, .offset = offsetof(struct device_options, net),
     .argument = "KIND[,P=VALUE]...", .help = "a network card, as with 'trapeze run --net'"},
    {"device", .letter = 'd', .kind = CLI_TEXT, .offset = offsetof(struct device_options, device),
     .argument = "NAME[,P=VALUE]...", .choices = cli_device_choices,
     .help =
         "a USB device, as with 'trapeze run --device': usb-kbd, usb-mouse, usb-tablet, usb-hub"},
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct device_options, json),
     .help = "print the answer as it comes: JSON"},
    {.kind = CLI_END},
};

const struct cli_option cli_device_remove_options[] = {
    {"force", .kind = CLI_FLAG, .offset = offsetof(struct remove_options, force),
     .help = "take it out at once, without asking the guest"},
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct remove_options, json),
     .help = "print the answer as it comes: JSON"},
    {.kind = CLI_END},
};

/* The machine may run in another folder than we do. A comma in ours is doubled. */
static json_t *disk_json(const char *text)
{
    char *folder = *text == '/' || block_is_uri(text) ? NULL : getcwd(NULL, 0);
    size_t size = folder ? strlen(folder) : 0;
    char *doubled = folder ? malloc(2 * size + 1) : NULL, *to = doubled;
    json_t *json;

    for (size_t n = 0; doubled && n < size; n++) {
        if (folder[n] == ',')
            *to++ = ',';
        *to++ = folder[n];
    }
    if (doubled)
        *to = '\0';
    json = doubled ? json_sprintf("%s/%s", doubled, text) : json_string(text);
    free(doubled);
    free(folder);
    return json;
}

/* One request; the reply is printed. */
static int tell(const struct cli_verb *verb, struct connection *connection, const char *socket,
                json_t *request)
{
    struct error err = {0};
    int status = CLI_DONE;

    if (open_connection(connection, socket, &err) || ask(connection, request, &err))
        status = cli_failed(verb, &err);
    json_decref(request);
    return status;
}

int cli_device_add_run(const struct cli_verb *verb, char **words)
{
    struct device_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status = CLI_DONE;
    struct connection connection = {.fd = -1};
    struct host_given given = {.count = 0};
    json_t *request;

    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    if (parsed == 0 && !options.disk + !options.net + !options.device != 2)
        parsed = error_set(&err, EINVAL, "give one of --disk, --net and --device");
    if (parsed < 0)
        return cli_misused(verb, &err);
    connection.json = options.json;
    request = json_pack("{s:s, s:o*, s:s*, s:s*}", "command", "device-add", "disk",
                        options.disk ? disk_json(options.disk) : NULL, "net", options.net, "device",
                        options.device);
    if (open_connection(&connection, operands.items[0], &err) ||
        open_for(request, false, &given, &err) || give(&connection, &given, &err) ||
        ask(&connection, request, &err))
        status = cli_failed(verb, &err);
    host_given_done(&given);
    json_decref(request);
    close_connection(&connection);
    cli_texts_free(&operands);
    return status;
}

/* Until the device has gone. */
static int wait_for_removal(const struct connection *connection, const char *device,
                            struct error *err)
{
    bool gone = false;

    while (!gone) {
        json_t *line = read_reply(connection, err);
        const char *event = json_string_value(json_object_get(line, "event"));
        const char *which = json_string_value(json_object_get(line, "device"));
        const char *error = json_string_value(json_object_get(line, "error"));

        if (!line)
            return -EIO;
        if (error)
            error_set(err, EREMOTEIO, "%s", error);
        gone = event && which && !strcmp(event, "device-removed") && !strcmp(which, device);
        json_decref(line);
        if (err->code)
            return -EREMOTEIO;
    }
    return 0;
}

int cli_device_remove_run(const struct cli_verb *verb, char **words)
{
    struct remove_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status;
    struct connection connection = {.fd = -1};
    json_t *request;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    connection.json = options.json;
    status = tell(verb, &connection, operands.items[0],
                  json_pack("{s:s, s:b}", "command", "events", "on", 1));
    request = json_pack("{s:s, s:s, s:b}", "command", "device-remove", "device", operands.items[1],
                        "force", options.force);
    if (status == CLI_DONE && (send_request(&connection, request, &err) ||
                               wait_for_removal(&connection, operands.items[1], &err)))
        status = cli_failed(verb, &err);
    json_decref(request);
    close_connection(&connection);
    cli_texts_free(&operands);
    return status;
}

/* ---- trapeze media ---- */

const struct cli_option cli_media_options[] = {
    {"force", .kind = CLI_FLAG, .offset = offsetof(struct remove_options, force),
     .help = "at once, also if the guest has locked the CD drive"},
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct remove_options, json),
     .help = "print the answer as it comes: JSON"},
    {.kind = CLI_END},
};

static int wait_for_tray(const struct connection *connection, struct error *err)
{
    bool is_open = false;

    while (!is_open) {
        json_t *line = read_reply(connection, err);
        const char *event = json_string_value(json_object_get(line, "event"));

        if (!line)
            return -EIO;
        is_open = event && !strcmp(event, "tray") && json_is_true(json_object_get(line, "open"));
        json_decref(line);
    }
    return 0;
}

/* The reply, or NULL with err. Until the guest has opened the tray, if it has to. */
static json_t *ask_for_change(const struct connection *connection, const json_t *request,
                              const struct host_given *given, struct error *err)
{
    bool is_asked = false;
    json_t *reply;

    do {
        if (is_asked) {
            fprintf(stderr, "The guest has locked the drive, and was asked to open it.\n");
            if (wait_for_tray(connection, err))
                return NULL;
        }
        reply = give(connection, given, err) || send_request(connection, request, err)
                    ? NULL
                    : read_answer(connection, err);
        is_asked = json_is_true(json_object_get(reply, "asked"));
        if (reply && !is_asked && !check_reply(reply, err))
            return reply;
        json_decref(reply);
    } while (is_asked);
    return NULL;
}

/* Is drive (NULL: the only one) a floppy drive? Machines open their disks in other ways than CDs.
 */
static bool is_floppy_drive(const struct connection *connection, const char *drive)
{
    json_t *request = json_pack("{s:s}", "command", "devices"), *reply = NULL, *device;
    bool has_floppy = false, has_cd = false;
    struct error err = {0};
    size_t n;

    if (!send_request(connection, request, &err))
        reply = read_answer(connection, &err);
    json_array_foreach(json_object_get(reply, "devices"), n, device)
    {
        const char *id = json_string_value(json_object_get(device, "id"));
        const char *class = json_string_value(json_object_get(device, "device"));

        if (!id || !class || (drive && strcmp(id, drive)))
            continue;
        has_floppy |= !strcmp(class, floppy_drive_class.name);
        has_cd |= !strcmp(class, ata_cd_class.name);
    }
    json_decref(reply);
    json_decref(request);
    return has_floppy && !has_cd;
}

static int change_media(const struct cli_verb *verb, const struct remove_options *options,
                        const char *socket, const char *drive, json_t *request)
{
    struct connection connection = {.fd = -1, .json = options->json};
    json_t *events = json_pack("{s:s, s:b}", "command", "events", "on", 1), *reply = NULL;
    struct host_given given = {.count = 0};
    struct error err = {0};
    int status = CLI_DONE;

    if (!open_connection(&connection, socket, &err) &&
        !open_for(request, is_floppy_drive(&connection, drive), &given, &err) &&
        !send_request(&connection, events, &err)) {
        json_decref(read_answer(&connection, &err));
        reply = ask_for_change(&connection, request, &given, &err);
    }
    json_object_del(reply, "asked");
    if (reply)
        print_reply(&connection, reply);
    else
        status = cli_failed(verb, &err);
    json_decref(reply);
    json_decref(events);
    json_decref(request);
    host_given_done(&given);
    close_connection(&connection);
    return status;
}

/* SOCKET [FILE] [DRIVE] */
static int media_run(const struct cli_verb *verb, char **words, const char *command)
{
    struct remove_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status;
    const char *file = NULL, *drive;
    json_t *request;
    size_t n = 1;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    if (verb->min_operands > 1)
        file = operands.items[n++];
    drive = operands.count > n ? operands.items[n] : NULL;
    request = file ? json_pack("{s:s, s:b, s:o, s:s*}", "command", command, "force", options.force,
                               "file", disk_json(file), "device", drive)
                   : json_pack("{s:s, s:b, s:s*}", "command", command, "force", options.force,
                               "device", drive);
    status = change_media(verb, &options, operands.items[0], drive, request);
    cli_texts_free(&operands);
    return status;
}

int cli_media_insert_run(const struct cli_verb *verb, char **words)
{
    return media_run(verb, words, "media-insert");
}

int cli_media_eject_run(const struct cli_verb *verb, char **words)
{
    return media_run(verb, words, "media-eject");
}

/* ---- trapeze screenshot ---- */

struct screenshot_options {
    uint64_t screen;
    bool text;
};

const struct cli_option cli_screenshot_options[] = {
    {"text", .kind = CLI_FLAG, .offset = offsetof(struct screenshot_options, text),
     .help = "print the characters of a text mode"},
    {"screen", .kind = CLI_NUMBER, .offset = offsetof(struct screenshot_options, screen),
     .argument = "N", .initial = "0", .max = UINT32_MAX,
     .help = "which screen, if there are several (default: 0)"},
    {.kind = CLI_END},
};

/* path "-": standard output. */
static int write_picture(const char *path, const json_t *reply, struct error *err)
{
    const char *text = json_string_value(json_object_get(reply, "png"));
    size_t size = 0;
    uint8_t *png = text ? base64_decode(text, &size) : NULL;
    FILE *out = strcmp(path, "-") ? fopen(path, "wb") : stdout;
    int result = 0;

    if (!png)
        result = error_set(err, EPROTO, "what answers sends no picture");
    else if (!out || fwrite(png, 1, size, out) != size || fflush(out))
        result = error_set(err, errno, "%s: %s", path, strerror(errno));
    if (out && out != stdout && fclose(out) && !result)
        result = error_set(err, errno, "%s: %s", path, strerror(errno));
    free(png);
    return result;
}

static void print_lines(const json_t *reply)
{
    size_t n;
    json_t *line;

    json_array_foreach(json_object_get(reply, "lines"), n, line) puts(json_string_value(line));
}

static int take_screenshot(struct connection *connection, const char *socket, const char *path,
                           const struct screenshot_options *options, struct error *err)
{
    json_t *request = json_pack("{s:s, s:I, s:b}", "command", "screenshot", "screen",
                                (json_int_t)options->screen, "text", options->text);
    json_t *reply = NULL;
    const char *error;
    int result = open_connection(connection, socket, err);

    if (!result)
        result = send_request(connection, request, err);
    if (!result) {
        reply = read_reply(connection, err);
        error = json_string_value(json_object_get(reply, "error"));
        result = !reply ? -EIO : error ? error_set(err, EREMOTEIO, "%s", error) : 0;
    }
    if (!result && options->text)
        print_lines(reply);
    else if (!result)
        result = write_picture(path, reply, err);
    json_decref(request);
    json_decref(reply);
    return result;
}

int cli_screenshot_run(const struct cli_verb *verb, char **words)
{
    struct screenshot_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err), status = CLI_DONE;
    struct connection connection = {.fd = -1};

    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    if (parsed == 0 && options.text == (operands.count > 1))
        parsed = error_set(&err, EINVAL, "give one of FILE and --text");
    if (parsed < 0)
        return cli_misused(verb, &err);
    if (take_screenshot(&connection, operands.items[0], operands.count > 1 ? operands.items[1] : "",
                        &options, &err))
        status = cli_failed(verb, &err);
    close_connection(&connection);
    cli_texts_free(&operands);
    return status;
}

/* ---- trapeze type, key, click ---- */

/* The machine types on its own; this ends when it is done. */
static int type_and_wait(const struct cli_verb *verb, const char *socket, json_t *request)
{
    struct connection connection = {.fd = -1};
    struct error err = {0};
    json_t *reply = NULL;
    const char *error;
    int result = request ? open_connection(&connection, socket, &err) : -ENOMEM;

    if (!result)
        result = send_request(&connection, request, &err);
    if (!result) {
        reply = read_reply(&connection, &err);
        error = json_string_value(json_object_get(reply, "error"));
        result = !reply ? -EIO : error ? error_set(&err, EREMOTEIO, "%s", error) : 0;
    }
    if (!result && json_is_false(json_object_get(reply, "absolute")))
        fprintf(stderr,
                "trapeze: the guest's pointer only knows movement: where it ends up depends "
                "on the guest's acceleration\n");
    if (!result)
        usleep((useconds_t)json_integer_value(json_object_get(reply, "milliseconds")) * 1000u);
    json_decref(request);
    json_decref(reply);
    close_connection(&connection);
    return result ? cli_failed(verb, &err) : CLI_DONE;
}

/* Operands by the names of the command's arguments; those that are not there are left out. */
static int run_typing(const struct cli_verb *verb, char **words, const char *const *names)
{
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, NULL, words, &operands, &err), status;
    json_t *request;

    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    if (parsed < 0)
        return cli_misused(verb, &err);
    request = json_pack("{s:s}", "command", verb->name);
    for (size_t n = 1; n < operands.count; n++)
        json_object_set_new(request, names[n - 1], json_string(operands.items[n]));
    status = type_and_wait(verb, operands.items[0], request);
    cli_texts_free(&operands);
    return status;
}

int cli_type_run(const struct cli_verb *verb, char **words)
{
    return run_typing(verb, words, (const char *const[]){"text"});
}

int cli_key_run(const struct cli_verb *verb, char **words)
{
    return run_typing(verb, words, (const char *const[]){"keys"});
}

int cli_click_run(const struct cli_verb *verb, char **words)
{
    return run_typing(verb, words, (const char *const[]){"x", "y", "button"});
}

/* ---- trapeze balloon ---- */

#define STATISTICS_WAIT_S 2

/* What the guest says, or NULL if it says nothing for a while. */
static json_t *read_statistics(const struct connection *connection)
{
    struct error ignored = {0};
    json_t *event;

    give_up_after(connection, STATISTICS_WAIT_S);
    do {
        event = read_reply(connection, &ignored);
    } while (event && !json_object_get(event, "statistics") && (json_decref(event), true));
    return event;
}

/* The reply, or NULL with err. */
static json_t *ask_balloon(struct connection *connection, const char *socket, const char *size,
                           struct error *err)
{
    const char *words[] = {"balloon", size};
    json_t *request = monitor_parse_words(words, size ? 2 : 1, err);
    json_t *events = json_pack("{s:s, s:b}", "command", "events", "on", 1);
    json_t *reply = NULL;
    const char *error;

    if (request && !open_connection(connection, socket, err) &&
        !send_request(connection, events, err) && !send_request(connection, request, err)) {
        json_decref(read_reply(connection, err)); /* of events */
        do {                                      /* and of what happens meanwhile */
            json_decref(reply);
            reply = read_reply(connection, err);
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
    struct connection connection = {.fd = -1};
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
        print_reply(&connection, reply);
    else
        status = cli_failed(verb, &err);
    json_decref(news);
    json_decref(reply);
    close_connection(&connection);
    cli_texts_free(&operands);
    return status;
}
