/*
 * client_screen.c - trapeze screenshot, type, key and click: somebody at a machine's screen
 */
#include "cli/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base64.h"

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

static int take_screenshot(struct client_connection *connection, const char *socket,
                           const char *path, const struct screenshot_options *options,
                           struct error *err)
{
    json_t *request = json_pack("{s:s, s:I, s:b}", "command", "screenshot", "screen",
                                (json_int_t)options->screen, "text", options->text);
    json_t *reply = NULL;
    const char *error;
    int result = client_open(connection, socket, err);

    if (!result)
        result = client_send(connection, request, err);
    if (!result) {
        reply = client_read(connection, err);
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
    struct client_connection connection = {.fd = -1};

    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    if (parsed == 0 && options.text == (operands.count > 1))
        parsed = error_set(&err, EINVAL, "give one of FILE and --text");
    if (parsed < 0)
        return cli_misused(verb, &err);
    if (take_screenshot(&connection, operands.items[0], operands.count > 1 ? operands.items[1] : "",
                        &options, &err))
        status = cli_failed(verb, &err);
    client_close(&connection);
    cli_texts_free(&operands);
    return status;
}

/* ---- trapeze type, key, click ---- */

/* The machine types on its own; this ends when it is done. */
static int type_and_wait(const struct cli_verb *verb, const char *socket, json_t *request)
{
    struct client_connection connection = {.fd = -1};
    struct error err = {0};
    json_t *reply = NULL;
    const char *error;
    int result = request ? client_open(&connection, socket, &err) : -ENOMEM;

    if (!result)
        result = client_send(&connection, request, &err);
    if (!result) {
        reply = client_read(&connection, &err);
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
    client_close(&connection);
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
