/*
 * config.c - the options of a verb as JSON, and back
 *
 * An object with a member for each option, by its name: text, a number, true, or an array where an
 * option may be repeated; the operand is "image". Back it becomes words, which stand in front of
 * those of the command line: what is said there wins, and repeated options add to each other.
 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#define OPERAND "image"

/* ---- to JSON ---- */

/* As short as it can be read back. No option takes less than a K. */
static json_t *size_json(uint64_t bytes)
{
    static const char units[] = "KMGT";
    unsigned unit = 0;

    for (bytes /= 1024; unit < 3 && bytes && bytes % 1024 == 0; unit++)
        bytes /= 1024;
    return json_sprintf("%" PRIu64 "%c", bytes, units[unit]);
}

static json_t *texts_json(const struct cli_texts *texts)
{
    json_t *array = texts->count ? json_array() : NULL;

    for (size_t n = 0; n < texts->count; n++)
        json_array_append_new(array, json_string(texts->items[n]));
    return array;
}

/* NULL: it is not set. */
static json_t *value_json(const struct cli_option *option, const void *value)
{
    switch (option->kind) {
    case CLI_FLAG:
        return *(const bool *)value ? json_true() : NULL;
    case CLI_TEXT:
    case CLI_OPTIONAL:
        return *(const char *const *)value ? json_string(*(const char *const *)value) : NULL;
    case CLI_TEXTS:
        return texts_json(value);
    case CLI_SIZE:
        return *(const uint64_t *)value ? size_json(*(const uint64_t *)value) : NULL;
    case CLI_NUMBER:
        return *(const uint64_t *)value ? json_integer((json_int_t) * (const uint64_t *)value)
                                        : NULL;
    default:
        return NULL;
    }
}

int cli_config_print(FILE *out, const struct cli_option *options, const void *object,
                     const char *image, struct error *err)
{
    json_t *config = json_object();
    int result;

    if (image)
        json_object_set_new(config, OPERAND, json_string(image));
    for (const struct cli_option *o = options; o->kind != CLI_END; o++) {
        json_t *value = o->kind == CLI_HEADING || o->is_no_config
                            ? NULL
                            : value_json(o, (const char *)object + o->offset);

        if (value)
            json_object_set_new(config, o->name, value);
    }
    result = json_dumpf(config, out, JSON_INDENT(2));
    json_decref(config);
    if (result || fputc('\n', out) == EOF)
        return error_set(err, EIO,
                         "cannot write the configuration: a name is not UTF-8 text, or "
                         "the output is closed");
    return 0;
}

/* ---- to words ---- */

static int add_word(struct cli_texts *words, char *word, struct error *err)
{
    if (word && cli_texts_add(words, word, err) == 0)
        return 0;
    free(word);
    return error_set(err, ENOMEM, "out of memory");
}

static int add_value(struct cli_texts *words, const struct cli_option *option, const json_t *value,
                     struct error *err)
{
    char *word = NULL;
    int length = -1;

    if (json_is_string(value) && option->kind != CLI_FLAG)
        length = asprintf(&word, "--%s=%s", option->name, json_string_value(value));
    else if (json_is_integer(value) && option->kind != CLI_FLAG)
        length =
            asprintf(&word, "--%s=%" JSON_INTEGER_FORMAT, option->name, json_integer_value(value));
    else if (json_is_true(value) && (option->kind == CLI_FLAG || option->kind == CLI_OPTIONAL))
        length = asprintf(&word, "--%s", option->name);
    else
        return error_set(err, EINVAL, "\"%s\" wants %s", option->name,
                         option->kind == CLI_FLAG    ? "true or false"
                         : option->kind == CLI_TEXTS ? "an array of text"
                                                     : "text or a number");
    return add_word(words, length < 0 ? NULL : word, err);
}

static int add_member(struct cli_texts *words, const struct cli_option *option, const json_t *value,
                      struct error *err)
{
    size_t index;
    json_t *item;

    if (json_is_null(value) || json_is_false(value))
        return 0;
    if (!json_is_array(value) || option->kind != CLI_TEXTS)
        return add_value(words, option, value, err);
    json_array_foreach(value, index, item)
    {
        if (add_value(words, option, item, err))
            return -EINVAL;
    }
    return 0;
}

static int add_image(struct cli_texts *words, const json_t *value, struct error *err)
{
    const char *image = json_string_value(value);
    char *word = NULL;

    if (!image)
        return error_set(err, EINVAL, "\"" OPERAND "\" wants text");
    return add_word(
        words, asprintf(&word, "%s%s", *image == '-' ? "./" : "", image) < 0 ? NULL : word, err);
}

static int add_members(struct cli_texts *words, const struct cli_option *options, json_t *config,
                       bool has_image, struct error *err)
{
    const char *name;
    json_t *value;

    json_object_foreach(config, name, value)
    {
        const struct cli_option *option = cli_option_find(options, name);
        int result = 0;

        if (option && !option->is_no_config)
            result = add_member(words, option, value, err);
        else if (strcmp(name, OPERAND))
            result = error_set(err, EINVAL, "there is no option \"%s\"", name);
        else if (!has_image)
            result = add_image(words, value, err);
        if (result)
            return result;
    }
    return 0;
}

int cli_config_read(const char *path, const struct cli_option *options, bool has_image,
                    struct cli_texts *out_words, struct error *err)
{
    json_error_t why;
    json_t *config = strcmp(path, "-") ? json_load_file(path, JSON_REJECT_DUPLICATES, &why)
                                       : json_loadf(stdin, JSON_REJECT_DUPLICATES, &why);
    int result;

    *out_words = (struct cli_texts){0};
    if (!config)
        return why.line < 0 ? error_set(err, EINVAL, "%s: %s", path, why.text)
                            : error_set(err, EINVAL, "%s, line %d: %s", path, why.line, why.text);
    if (json_is_object(config))
        result = add_members(out_words, options, config, has_image, err);
    else
        result = error_set(err, EINVAL, "it is no JSON object, as --dry-run prints one");
    json_decref(config);
    if (result)
        error_prefix(err, "%s: ", path);
    return result;
}
