/*
 * client_plug.c - trapeze device and media: what comes and goes while a machine runs
 *
 * A machine in its sandbox opens nothing: what it is to use is opened here, and handed over.
 */
#include "cli/client.h"
#include "cli/run.h"
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/given.h"
#include "trapeze/block.h"

/* ---- what the machine may not open ---- */

/* A device of the host is told by its place, as the machine may not look for it. */
static int open_device(json_t *request, const char *device, struct error *err)
{
    char *text;

    if (run_hand_over_device(device, &text, err))
        return -EINVAL;
    json_object_set_new(request, "device", json_string(text));
    free(text);
    return 0;
}

/* Open here what a request makes the machine open. */
static int open_for(json_t *request, bool is_floppy, struct host_given *out, struct error *err)
{
    const char *disk = json_string_value(json_object_get(request, "disk"));
    const char *net = json_string_value(json_object_get(request, "net"));
    const char *medium = json_string_value(json_object_get(request, "file"));
    const char *device = json_string_value(json_object_get(request, "device"));
    const char *command = json_string_value(json_object_get(request, "command"));
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
    else if (device && !strcmp(command, "device-add"))
        result = open_device(request, device, err);
    host_record(NULL);
    return result;
}

static int give_file(const struct client_connection *connection, const struct host_given_file *file,
                     struct error *err)
{
    json_t *request = json_pack("{s:s, s:s, s:i}", "command", "give", "name", file->name, "flags",
                                (int)file->flags);
    json_t *reply = NULL;
    int result = -EINVAL;

    if (!request)
        error_set(err, EINVAL, "'%s' is not UTF-8", file->name);
    else if (!client_send_with_file(connection, request, file->fd, err))
        reply = client_read_answer(connection, err);
    if (reply)
        result = client_check(reply, err);
    json_decref(request);
    json_decref(reply);
    return result;
}

static int give(const struct client_connection *connection, const struct host_given *given,
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
     .help = "a USB device, as with 'trapeze run --device': usb-kbd, usb-mouse, usb-tablet, "
             "usb-hub, usb-host"},
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
static int tell(const struct cli_verb *verb, struct client_connection *connection,
                const char *socket, json_t *request)
{
    struct error err = {0};
    int status = CLI_DONE;

    if (client_open(connection, socket, &err) || client_ask(connection, request, &err))
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
    struct client_connection connection = {.fd = -1};
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
    if (client_open(&connection, operands.items[0], &err) ||
        open_for(request, false, &given, &err) || give(&connection, &given, &err) ||
        client_ask(&connection, request, &err))
        status = cli_failed(verb, &err);
    host_given_done(&given);
    json_decref(request);
    client_close(&connection);
    cli_texts_free(&operands);
    return status;
}

/* Until the device has gone. */
static int wait_for_removal(const struct client_connection *connection, const char *device,
                            struct error *err)
{
    bool gone = false;

    while (!gone) {
        json_t *line = client_read(connection, err);
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
    struct client_connection connection = {.fd = -1};
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
    if (status == CLI_DONE && (client_send(&connection, request, &err) ||
                               wait_for_removal(&connection, operands.items[1], &err)))
        status = cli_failed(verb, &err);
    json_decref(request);
    client_close(&connection);
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

static int wait_for_tray(const struct client_connection *connection, struct error *err)
{
    bool is_open = false;

    while (!is_open) {
        json_t *line = client_read(connection, err);
        const char *event = json_string_value(json_object_get(line, "event"));

        if (!line)
            return -EIO;
        is_open = event && !strcmp(event, "tray") && json_is_true(json_object_get(line, "open"));
        json_decref(line);
    }
    return 0;
}

/* The reply, or NULL with err. Until the guest has opened the tray, if it has to. */
static json_t *ask_for_change(const struct client_connection *connection, const json_t *request,
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
        reply = give(connection, given, err) || client_send(connection, request, err)
                    ? NULL
                    : client_read_answer(connection, err);
        is_asked = json_is_true(json_object_get(reply, "asked"));
        if (reply && !is_asked && !client_check(reply, err))
            return reply;
        json_decref(reply);
    } while (is_asked);
    return NULL;
}

/* Is drive (NULL: the only one) a floppy drive? Machines open their disks in other ways than CDs.
 */
static bool is_floppy_drive(const struct client_connection *connection, const char *drive)
{
    json_t *request = json_pack("{s:s}", "command", "devices"), *reply = NULL, *device;
    bool has_floppy = false, has_cd = false;
    struct error err = {0};
    size_t n;

    if (!client_send(connection, request, &err))
        reply = client_read_answer(connection, &err);
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
    struct client_connection connection = {.fd = -1, .json = options->json};
    json_t *events = json_pack("{s:s, s:b}", "command", "events", "on", 1), *reply = NULL;
    struct host_given given = {.count = 0};
    struct error err = {0};
    int status = CLI_DONE;

    if (!client_open(&connection, socket, &err) &&
        !open_for(request, is_floppy_drive(&connection, drive), &given, &err) &&
        !client_send(&connection, events, &err)) {
        json_decref(client_read_answer(&connection, &err));
        reply = ask_for_change(&connection, request, &given, &err);
    }
    json_object_del(reply, "asked");
    if (reply)
        client_print(&connection, reply);
    else
        status = cli_failed(verb, &err);
    json_decref(reply);
    json_decref(events);
    json_decref(request);
    host_given_done(&given);
    client_close(&connection);
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
