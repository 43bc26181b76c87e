/*
 * monitor_requests.c - the table of commands, and requests: JSON, and words as people type them
 */
#include "control/monitor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "trapeze/property.h"

static const struct command commands[];

/* ---- commands ---- */

static int run_events(struct call *call, struct error *err)
{
    if (!call->client)
        return error_set(err, ENOTSUP, "events go to clients of the monitor socket only");
    call->client->wants_events = call_flag(call, "on");
    return 0;
}

static const char *const type_names[] = {
    [ARGUMENT_TEXT] = "text", [ARGUMENT_NUMBER] = "number", [ARGUMENT_FLAG] = "boolean"};

static json_t *command_json(const struct command *command)
{
    json_t *arguments = json_array();

    for (const struct argument *a = command->arguments; a->name; a++)
        json_array_append_new(arguments, json_pack("{s:s, s:s, s:b, s:s}", "name", a->name, "type",
                                                   type_names[a->type], "required", a->required,
                                                   "help", a->help));
    return json_pack("{s:s, s:s, s:o}", "command", command->name, "summary", command->summary,
                     "arguments", arguments);
}

static int run_help(struct call *call, struct error *err)
{
    json_t *list = json_array();

    (void)err;
    for (const struct command *command = commands; command->name; command++)
        json_array_append_new(list, command_json(command));
    call_set(call, "commands", list);
    return 0;
}

static int run_quit(struct call *call, struct error *err)
{
    (void)err;
    call->quit = true;
    return 0;
}

#define CPU_ARGUMENT                                                                               \
    {                                                                                              \
        "cpu", ARGUMENT_NUMBER, false, "index of the processor, 0 if left out"                     \
    }

#define DRIVE_ARGUMENT                                                                             \
    {                                                                                              \
        "device", ARGUMENT_TEXT, false, "id of the drive; can be left out if there is one"         \
    }
#define FORCE_MEDIA_ARGUMENT                                                                       \
    {                                                                                              \
        "force", ARGUMENT_FLAG, false, "also if the guest has locked it"                           \
    }

static const struct command commands[] = {
    {"status", "what the machine is and does", .run = monitor_run_status},
    {"statistics", "what it has computed, read, written, sent and received so far",
     .run = monitor_run_statistics},
    {"pause", "stop guest time and all processors", .run = monitor_run_pause},
    {"resume", "let a paused machine go on", .run = monitor_run_resume},
    {"stop",
     "end the machine now, as if power failed",
     {{"status", ARGUMENT_NUMBER, false, "exit status of the process, 0 if left out"}},
     .run = monitor_run_stop},
    {"reset", "reset processors and devices", .run = monitor_run_reset},
    {"powerdown", "press the power button for a moment; the guest decides",
     .run = monitor_run_powerdown},
    {"sleep", "press the sleep button for a moment; the guest decides", .run = monitor_run_sleep},
    {"wake", "wake a guest that is suspended to RAM", .run = monitor_run_wake},
    {"devices", "list the machine's devices", .run = monitor_run_devices},
    {"inspect",
     "print the guest-visible state of a device or processor, or of all",
     {{"device", ARGUMENT_TEXT, false, "id of a device, or cpu0, cpu1 and so on"}},
     .run = monitor_run_inspect},
    {"registers",
     "print a processor's main registers",
     {CPU_ARGUMENT},
     .run = monitor_run_registers},
    {"memory-read",
     "read guest-physical memory",
     {{"gpa", ARGUMENT_NUMBER, true, "guest-physical address"},
      {"size", ARGUMENT_NUMBER, false, "bytes, up to 64K; 16 if left out"}},
     .run = monitor_run_memory_read},
    {"translate",
     "translate a linear to a guest-physical address",
     {{"gva", ARGUMENT_NUMBER, true, "linear address"}, CPU_ARGUMENT},
     .run = monitor_run_translate},
    {"trace",
     "switch trace events on or off",
     {{"events", ARGUMENT_TEXT, true, "names or patterns separated by commas, -NAME for off"}},
     .run = monitor_run_trace},
    {"give",
     "hand over an open descriptor, for the next device-add or media-insert",
     {{"name", ARGUMENT_TEXT, true, "what it was opened by"},
      {"flags", ARGUMENT_NUMBER, false, "how it was opened"}},
     .run = monitor_run_give},
    {"device-add",
     "put a disk or a network card into an empty slot, or a device on a USB port",
     {{"disk", ARGUMENT_TEXT, false, "as with 'trapeze run --disk'"},
      {"net", ARGUMENT_TEXT, false, "as with 'trapeze run --net'"},
      {"device", ARGUMENT_TEXT, false, "a USB device, as with 'trapeze run --device'"}},
     .run = monitor_run_device_add},
    {"device-remove",
     "ask the guest to let go of a device that was added, and take it out then",
     {{"device", ARGUMENT_TEXT, true, "id of the device"},
      {"force", ARGUMENT_FLAG, false, "take it out at once, without asking"}},
     .run = monitor_run_device_remove},
    {"media-insert",
     "put a CD or a floppy into a drive in place of what is there, or ask the guest to unlock it "
     "first",
     {{"file", ARGUMENT_TEXT, true,
       "the image, as with 'trapeze run --cdrom' or --floppy, without what is the drive's"},
      DRIVE_ARGUMENT,
      FORCE_MEDIA_ARGUMENT},
     .run = monitor_run_media},
    {"media-eject",
     "take the CD or the floppy out of a drive, or ask the guest to unlock it first",
     {DRIVE_ARGUMENT, FORCE_MEDIA_ARGUMENT},
     .run = monitor_run_media},
    {"balloon",
     "tell or change how much of its memory the guest has, and ask it for new statistics",
     {{"size", ARGUMENT_NUMBER, false, "bytes that it shall be left with"}},
     .run = monitor_run_balloon},
    {"screenshot",
     "the screen as a PNG file in base64, or a text mode's characters",
     {{"screen", ARGUMENT_NUMBER, false, "which one, 0 if left out"},
      {"text", ARGUMENT_FLAG, false, "characters"}},
     .run = monitor_run_screenshot},
    {"window", "show the screen to what is at the other end of a socket that comes with it",
     .run = monitor_run_window},
    {"type",
     "type a text on the guest's keyboard, which is a US one",
     {{"text", ARGUMENT_TEXT, true, "{enter}, {ctrl-c} are keys, {{ is a brace"}},
     .run = monitor_run_type},
    {"key",
     "press keys together",
     {{"keys", ARGUMENT_TEXT, true, "names, as in ctrl-alt-del"}},
     .run = monitor_run_key},
    {"click",
     "press a button of the pointer at a pixel of the screen",
     {{"x", ARGUMENT_NUMBER, true, "pixels from the left"},
      {"y", ARGUMENT_NUMBER, true, "pixels from the top"},
      {"button", ARGUMENT_TEXT, false, "left, right or middle; left if left out"}},
     .run = monitor_run_click},
    {"events",
     "send this client a line when the machine changes its state",
     {{"on", ARGUMENT_FLAG, true, "true or false"}},
     .run = run_events},
    {"help", "list the commands", .run = run_help},
    {"quit", "end the connection", .run = run_quit},
    {NULL},
};

/* ---- requests ---- */

static const struct command *find_command(const char *name, struct error *err)
{
    const char *names[sizeof(commands) / sizeof(commands[0])] = {0}, *nearest;
    size_t count = 0;

    for (const struct command *command = commands; command->name; command++) {
        if (strcmp(command->name, name) == 0)
            return command;
        names[count++] = command->name;
    }
    nearest = nearest_word(name, names);
    if (nearest)
        error_set(err, ENOENT, "there is no command '%.64s'; did you mean '%s'?", name, nearest);
    else
        error_set(err, ENOENT, "there is no command '%.64s'; 'help' lists them", name);
    return NULL;
}

static const struct argument *find_argument(const struct command *command, const char *name,
                                            struct error *err)
{
    const char *names[MONITOR_MAX_ARGUMENTS + 1] = {0}, *nearest;
    size_t count = 0;

    for (const struct argument *a = command->arguments; a->name; a++) {
        if (strcmp(a->name, name) == 0)
            return a;
        names[count++] = a->name;
    }
    nearest = nearest_word(name, names);
    if (nearest)
        error_set(err, EINVAL, "%s has no argument '%.64s'; did you mean '%s'?", command->name,
                  name, nearest);
    else
        error_set(err, EINVAL, "%s has no argument '%.64s'", command->name, name);
    return NULL;
}

static int check_type(const struct argument *argument, const json_t *value, struct error *err)
{
    uint64_t number;
    int result = 0;

    if (argument->type == ARGUMENT_TEXT && !json_is_string(value))
        result = error_set(err, EINVAL, "must be text");
    else if (argument->type == ARGUMENT_FLAG && !json_is_boolean(value))
        result = error_set(err, EINVAL, "must be true or false");
    else if (argument->type == ARGUMENT_NUMBER)
        result = monitor_number(value, &number, err);
    if (result)
        error_prefix(err, "%s: ", argument->name);
    return result;
}

static int check_request(const struct command *command, const json_t *request, struct error *err)
{
    const struct argument *argument;
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)request, name, value)
    {
        if (strcmp(name, "command") == 0 || strcmp(name, "id") == 0)
            continue;
        argument = find_argument(command, name, err);
        if (!argument || check_type(argument, value, err))
            return -EINVAL;
    }
    for (argument = command->arguments; argument->name; argument++)
        if (argument->required && !json_object_get(request, argument->name))
            return error_set(err, EINVAL, "%s needs '%s': %s", command->name, argument->name,
                             argument->help);
    return 0;
}

static int carry_out(struct call *call, struct error *err)
{
    const json_t *name = json_object_get(call->request, "command");
    const struct command *command;

    if (!json_is_object(call->request) || !json_is_string(name))
        return error_set(err, EINVAL,
                         "a request is an object with a command: {\"command\":\"status\"}");
    command = find_command(json_string_value(name), err);
    if (!command || check_request(command, call->request, err))
        return -EINVAL;
    return command->run(call, err);
}

static json_t *error_reply(const char *text)
{
    return json_pack("{s:b, s:o}", "ok", 0, "error", monitor_string(text));
}

/* Carry out call->request and return the whole reply. */
static json_t *answer(struct call *call)
{
    struct error err = {0};
    json_t *id = json_object_get(call->request, "id"), *reply;

    call->reply = json_pack("{s:b}", "ok", 1);
    if (!call->reply)
        return NULL;
    reply = call->reply;
    if (carry_out(call, &err)) {
        json_decref(reply);
        reply = error_reply(err.text);
    }
    if (reply && id)
        json_object_set(reply, "id", id);
    return reply;
}

json_t *monitor_execute(struct machine *machine, const json_t *request)
{
    struct call call = {.machine = machine, .request = request};

    return answer(&call);
}

json_t *monitor_answer_line(struct call *call, const char *line, size_t length)
{
    json_error_t where;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &where), *reply;
    char text[JSON_ERROR_TEXT_LENGTH + 32];

    if (!request) {
        snprintf(text, sizeof(text), "not JSON: %s", where.text);
        return error_reply(text);
    }
    call->request = request;
    reply = answer(call);
    json_decref(request);
    return reply;
}

char *monitor_execute_line(struct machine *machine, const char *line, size_t length)
{
    struct call call = {.machine = machine};
    json_t *reply = monitor_answer_line(&call, line, length);
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;

    json_decref(reply);
    return text;
}

/* ---- for people ---- */

static json_t *value_from_text(const struct argument *argument, const char *text, struct error *err)
{
    uint64_t number;

    if (argument->type == ARGUMENT_TEXT)
        return monitor_string(text);
    if (argument->type == ARGUMENT_FLAG) {
        if (strcmp(text, "on") == 0 || strcmp(text, "true") == 0)
            return json_true();
        if (strcmp(text, "off") == 0 || strcmp(text, "false") == 0)
            return json_false();
        error_set(err, EINVAL, "%s: must be on or off", argument->name);
        return NULL;
    }
    if (property_parse_u64(text, UINT64_MAX, &number, err)) {
        error_prefix(err, "%s: ", argument->name);
        return NULL;
    }
    return monitor_string(text);
}

/* "name=value", or the value of the next argument in the table's order. */
static int add_word(json_t *request, const struct command *command, unsigned position,
                    const char *word, struct error *err)
{
    const char *equals = strchr(word, '=');
    const struct argument *argument = &command->arguments[position];
    char name[64];
    json_t *value;

    if (equals) {
        snprintf(name, sizeof(name), "%.*s", (int)(equals - word), word);
        argument = find_argument(command, name, err);
        if (!argument)
            return -EINVAL;
        word = equals + 1;
    } else if (position >= MONITOR_MAX_ARGUMENTS || !argument->name) {
        return error_set(err, EINVAL, "%s: one argument too many: '%s'", command->name, word);
    }
    value = value_from_text(argument, word, err);
    return value ? json_object_set_new(request, argument->name, value) : -EINVAL;
}

size_t monitor_split_words(char *line, const char *words[MONITOR_MAX_WORDS])
{
    size_t count = 0;

    for (char *rest = line, *word; count < MONITOR_MAX_WORDS && (word = strsep(&rest, " \t\r\n"));)
        if (*word)
            words[count++] = word;
    return count;
}

json_t *monitor_parse_words(const char *const *words, size_t count, struct error *err)
{
    const struct command *command = count ? find_command(words[0], err) : NULL;
    json_t *request;

    if (!command) {
        error_set(err, EINVAL, "no command; 'help' lists them");
        return NULL;
    }
    request = json_pack("{s:s}", "command", command->name);
    for (size_t i = 1; request && i < count; i++)
        if (add_word(request, command, (unsigned)i - 1, words[i], err)) {
            json_decref(request);
            return NULL;
        }
    if (request && check_request(command, request, err)) {
        json_decref(request);
        return NULL;
    }
    return request;
}

static void print_value(FILE *out, const char *name, const json_t *value, int indent);

static void print_members(FILE *out, const json_t *value, int indent)
{
    const char *name;
    json_t *member;
    size_t i;

    if (json_is_object(value))
        json_object_foreach((json_t *)value, name, member) print_value(out, name, member, indent);
    else
        json_array_foreach(value, i, member) print_value(out, "-", member, indent);
}

static bool is_nested(const json_t *value)
{
    return json_is_object(value) || json_is_array(value);
}

static void print_value(FILE *out, const char *name, const json_t *value, int indent)
{
    char *text;

    if (is_nested(value) && json_object_size(value) + json_array_size(value) > 0) {
        fprintf(out, "%*s%s%s\n", indent, "", name, *name == '-' ? "" : ":");
        print_members(out, value, indent + 2);
        return;
    }
    text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
    fprintf(out, "%*s%s%s %s\n", indent, "", name, *name == '-' ? "" : ":",
            text                       ? text
            : json_string_value(value) ? json_string_value(value)
                                       : "");
    free(text);
}

void monitor_print_reply(FILE *out, const json_t *reply)
{
    const char *name;
    json_t *member;

    json_object_foreach((json_t *)reply, name, member)
    {
        if (strcmp(name, "ok") != 0 && strcmp(name, "id") != 0)
            print_value(out, name, member, 0);
    }
}

void monitor_list_commands(monitor_put_command *put, void *opaque)
{
    for (const struct command *command = commands; command->name; command++)
        put(opaque, command->name, command->summary);
}
