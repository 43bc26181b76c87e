/*
 * options.c - parses the words of a verb by its option table
 *
 * "--name value", "--name=value", "-m value", "-mvalue"; operands may stand between
 * options; "--" ends the options. A value "help" lists what an option accepts.
 * Names are never abbreviated, so that a new option cannot break a script.
 */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trapeze/property.h"

#define MAX_NAMES 128 /* candidates for "did you mean" */

struct parser {
    const struct cli_verb *verb;
    void *object;
    char **words; /* the next one to look at */
    struct cli_texts *operands;
    struct error *err;
};

/* A cursor of cli_choices_fn that collects names, ending with NULL. */
struct names {
    const char *items[MAX_NAMES + 1];
    size_t count;
};

static void names_add(void *opaque, const char *name, const char *summary)
{
    struct names *names = opaque;

    (void)summary;
    if (names->count < MAX_NAMES)
        names->items[names->count++] = name;
}

int cli_texts_add(struct cli_texts *texts, const char *text, struct error *err)
{
    const char **items = realloc(texts->items, (texts->count + 1) * sizeof(*items));

    if (!items)
        return error_set(err, ENOMEM, "out of memory");
    items[texts->count++] = text;
    texts->items = items;
    return 0;
}

void cli_texts_free(struct cli_texts *texts)
{
    free(texts->items);
    *texts = (struct cli_texts){0};
}

int cli_check_choice(const char *what, const char *name, cli_choices_fn *choices, struct error *err)
{
    struct names names = {0};
    const char *nearest;

    choices(names_add, &names);
    for (size_t i = 0; i < names.count; i++)
        if (strcmp(names.items[i], name) == 0)
            return 0;
    nearest = nearest_word(name, names.items);
    if (nearest)
        return error_set(err, EINVAL, "there is no %s '%s'; did you mean '%s'?", what, name,
                         nearest);
    return error_set(err, EINVAL, "there is no %s '%s'", what, name);
}

static void *value_at(const struct parser *parser, const struct cli_option *option)
{
    return (char *)parser->object + option->offset;
}

static int store_text(struct parser *parser, const struct cli_option *option, const char *text)
{
    if (option->only_choices && cli_check_choice(option->name, text, option->choices, parser->err))
        return -EINVAL;
    *(const char **)value_at(parser, option) = text;
    return 0;
}

static int store_texts(struct parser *parser, const struct cli_option *option, const char *text)
{
    return cli_texts_add(value_at(parser, option), text, parser->err);
}

static int check_range(const struct parser *parser, const struct cli_option *option, uint64_t value,
                       const char *text, unsigned shift)
{
    if (value >= option->min && value <= option->max)
        return 0;
    return error_set(parser->err, EINVAL, "--%s %s is out of range: it can be %llu%s to %llu%s",
                     option->name, text, (unsigned long long)(option->min >> shift),
                     shift ? "M" : "", (unsigned long long)(option->max >> shift),
                     shift ? "M" : "");
}

static int store_number(struct parser *parser, const struct cli_option *option, const char *text)
{
    uint64_t value;

    if (property_parse_u64(text, UINT64_MAX, &value, parser->err)) {
        error_prefix(parser->err, "--%s: ", option->name);
        return -EINVAL;
    }
    if (check_range(parser, option, value, text, 0))
        return -EINVAL;
    *(uint64_t *)value_at(parser, option) = value;
    return 0;
}

static int store_size(struct parser *parser, const struct cli_option *option, const char *text)
{
    uint64_t value;

    if (property_parse_u64(text, UINT64_MAX, &value, parser->err)) {
        error_prefix(parser->err, "--%s: ", option->name);
        return -EINVAL;
    }
    if (text[0] && text[strspn(text, "0123456789")] == '\0')
        value = value > UINT64_MAX >> 20 ? UINT64_MAX : value << 20;
    if (check_range(parser, option, value, text, 20))
        return -EINVAL;
    *(uint64_t *)value_at(parser, option) = value;
    return 0;
}

typedef int store_fn(struct parser *parser, const struct cli_option *option, const char *text);
static store_fn *const store[] = {
    [CLI_TEXT] = store_text, [CLI_TEXTS] = store_texts,   [CLI_OPTIONAL] = store_text,
    [CLI_SIZE] = store_size, [CLI_NUMBER] = store_number,
};

static int store_default(struct parser *parser, const struct cli_option *option)
{
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)value_at(parser, option) = false;
        return 0;
    case CLI_TEXTS:
        *(struct cli_texts *)value_at(parser, option) = (struct cli_texts){0};
        return 0;
    case CLI_TEXT:
    case CLI_OPTIONAL:
        *(const char **)value_at(parser, option) = option->initial;
        return 0;
    case CLI_SIZE:
    case CLI_NUMBER:
        *(uint64_t *)value_at(parser, option) = 0;
        return option->initial ? store[option->kind](parser, option, option->initial) : 0;
    default:
        return 0;
    }
}

void cli_options_free(const struct cli_option *options, void *object)
{
    for (; options->kind != CLI_END; options++)
        if (options->kind == CLI_TEXTS)
            cli_texts_free((struct cli_texts *)((char *)object + options->offset));
}

static const struct cli_option *find_name(const struct cli_option *options, const char *name,
                                          size_t length)
{
    for (; options->kind != CLI_END; options++)
        if (options->kind != CLI_HEADING && strlen(options->name) == length &&
            memcmp(options->name, name, length) == 0)
            return options;
    return NULL;
}

const struct cli_option *cli_option_find(const struct cli_option *options, const char *name)
{
    return find_name(options, name, strlen(name));
}

static const struct cli_option *find_letter(const struct cli_option *options, char letter)
{
    for (; options->kind != CLI_END; options++)
        if (options->kind != CLI_HEADING && options->letter == letter)
            return options;
    return NULL;
}

static int unknown_option(const struct parser *parser, const char *word, size_t name_length)
{
    struct names names = {0};
    char name[64];
    const char *nearest;

    snprintf(name, sizeof(name), "%.*s", (int)name_length, word + 2);
    for (const struct cli_option *o = parser->verb->options; o->kind != CLI_END; o++)
        if (o->kind != CLI_HEADING)
            names_add(&names, o->name, NULL);
    names_add(&names, "help", NULL);
    nearest = nearest_word(name, names.items);
    if (nearest)
        return error_set(parser->err, EINVAL, "there is no option '--%s'; did you mean '--%s'?",
                         name, nearest);
    return error_set(parser->err, EINVAL, "there is no option '--%s'", name);
}

static int apply_value(struct parser *parser, const struct cli_option *option, const char *value)
{
    if (option->choices && strcmp(value, "help") == 0) {
        cli_print_choices(stdout, option->choices);
        return CLI_ANSWERED;
    }
    return store[option->kind](parser, option, value);
}

/* The option stands in *parser->words; value is what is joined to it, or NULL. */
static int apply_option(struct parser *parser, const struct cli_option *option, const char *value)
{
    const char *next = parser->words[1];

    parser->words++;
    if (option->kind == CLI_FLAG) {
        if (value)
            return error_set(parser->err, EINVAL, "--%s takes no value", option->name);
        *(bool *)value_at(parser, option) = true;
        return 0;
    }
    if (value)
        return apply_value(parser, option, value);
    if (option->kind == CLI_OPTIONAL && !(next && option->takes && option->takes(next)))
        return apply_value(parser, option, option->implied);
    if (!next)
        return error_set(parser->err, EINVAL, "--%s needs a value: --%s %s", option->name,
                         option->name, option->argument);
    parser->words++;
    return apply_value(parser, option, next);
}

static int parse_long(struct parser *parser)
{
    const char *word = *parser->words;
    size_t length = strcspn(word + 2, "=");
    const struct cli_option *option = find_name(parser->verb->options, word + 2, length);

    if (option)
        return apply_option(parser, option, word[2 + length] ? word + 3 + length : NULL);
    if (strcmp(word, "--help") == 0) {
        cli_print_help(stdout, parser->verb);
        return CLI_ANSWERED;
    }
    return unknown_option(parser, word, length);
}

static int parse_short(struct parser *parser)
{
    const char *word = *parser->words;
    const struct cli_option *option = find_letter(parser->verb->options, word[1]);

    if (option && option->kind == CLI_FLAG && word[2])
        return error_set(parser->err, EINVAL, "'%s': -%c takes no value; write options apart", word,
                         word[1]);
    if (option)
        return apply_option(parser, option, word[2] ? word + 2 + (word[2] == '=') : NULL);
    if (strcmp(word, "-h") == 0) {
        cli_print_help(stdout, parser->verb);
        return CLI_ANSWERED;
    }
    if (find_name(parser->verb->options, word + 1, strcspn(word + 1, "=")))
        return error_set(parser->err, EINVAL, "there is no option '%s'; did you mean '-%s'?", word,
                         word);
    return error_set(parser->err, EINVAL, "there is no option '%s'", word);
}

static int add_operand(struct parser *parser, const char *word)
{
    const struct cli_verb *verb = parser->verb;

    if (parser->operands->count >= verb->max_operands)
        return error_set(parser->err, EINVAL,
                         verb->max_operands ? "one argument too many: '%s'"
                                            : "takes no arguments, but got '%s'",
                         word);
    return cli_texts_add(parser->operands, word, parser->err);
}

static int parse_words(struct parser *parser)
{
    bool only_operands = false;
    int result = 0;

    while (*parser->words && result == 0) {
        const char *word = *parser->words;

        if (only_operands || word[0] != '-' || word[1] == '\0') {
            result = add_operand(parser, word);
            parser->words++;
        } else if (strcmp(word, "--") == 0) {
            only_operands = true;
            parser->words++;
        } else {
            result = word[1] == '-' ? parse_long(parser) : parse_short(parser);
        }
    }
    return result;
}

int cli_parse(const struct cli_verb *verb, void *object, char **words,
              struct cli_texts *out_operands, struct error *err)
{
    struct parser parser = {
        .verb = verb, .object = object, .words = words, .operands = out_operands, .err = err};
    int result;

    *out_operands = (struct cli_texts){0};
    for (const struct cli_option *o = verb->options; o->kind != CLI_END; o++)
        if ((result = store_default(&parser, o)))
            return result;
    result = parse_words(&parser);
    if (result == 0 && out_operands->count < verb->min_operands)
        result = error_set(err, EINVAL, "something is missing: trapeze %s %s", verb->name,
                           verb->operands);
    if (result) {
        cli_texts_free(out_operands);
        cli_options_free(verb->options, object);
    }
    return result;
}

int cli_misused(const struct cli_verb *verb, const struct error *err)
{
    fprintf(stderr, "trapeze %s: %s\nTry 'trapeze help %s'.\n", verb->name, err->text, verb->name);
    return CLI_MISUSED;
}

int cli_failed(const struct cli_verb *verb, const struct error *err)
{
    fprintf(stderr, "trapeze %s: %s\n", verb->name, err->text);
    return CLI_FAILED;
}
