/*
 * help.c - help texts and manual pages, printed from the verb tables
 *
 * Manual pages use the man(7) macros; the build runs "trapeze help --man VERB" to
 * make them, so they cannot differ from what the program does.
 */
#include "cli/cli.h"

#include <ctype.h>
#include <string.h>

#include "cli/version.h"

#define LINE_WIDTH    80
#define OPTION_COLUMN 27
#define VERB_COLUMN   18

struct help_options {
    bool man;
};

/* ---- text ---- */

/* Print words of text wrapped between column and LINE_WIDTH; the cursor is at position at. */
static void print_wrapped(FILE *out, const char *text, size_t at, size_t column)
{
    while (*text) {
        size_t length = strcspn(text, " \n");

        if (at + length > LINE_WIDTH && at > column) {
            fprintf(out, "\n%*s", (int)column, "");
            at = column;
        }
        fprintf(out, "%.*s", (int)length, text);
        at += length;
        text += length;
        if (text[0] == '\n' && text[1] == '\n') {
            fprintf(out, "\n\n%*s", (int)column, "");
            at = column;
            text += 2;
        } else if (*text) {
            text++;
            if (*text && at + 1 + strcspn(text, " \n") <= LINE_WIDTH) {
                fputc(' ', out);
                at++;
            } else if (*text) {
                fprintf(out, "\n%*s", (int)column, "");
                at = column;
            }
        }
    }
    fputc('\n', out);
}

void cli_print_row(FILE *out, unsigned indent, unsigned column, const char *name, const char *text)
{
    size_t at = indent + strlen(name);

    fprintf(out, "%*s%s", (int)indent, "", name);
    if (!text || !*text) {
        fputc('\n', out);
        return;
    }
    if (at + 2 > column) {
        fputc('\n', out);
        at = 0;
    }
    fprintf(out, "%*s", (int)(column - at), "");
    print_wrapped(out, text, column, column);
}

static void print_choice(void *opaque, const char *name, const char *summary)
{
    cli_print_row(opaque, 0, 20, name, summary);
}

void cli_print_choices(FILE *out, cli_choices_fn *choices)
{
    choices(print_choice, out);
}

/* "-m, --memory SIZE" */
static void option_title(const struct cli_option *option, char *title, size_t size)
{
    char value[64] = "";

    if (option->kind == CLI_OPTIONAL)
        snprintf(value, sizeof(value), "[=%s]", option->argument);
    else if (option->argument)
        snprintf(value, sizeof(value), " %s", option->argument);
    if (option->letter)
        snprintf(title, size, "-%c, --%s%s", option->letter, option->name, value);
    else
        snprintf(title, size, "    --%s%s", option->name, value);
}

static void option_text(const struct cli_option *option, char *text, size_t size)
{
    const char *list = option->choices ? "; 'help' lists them" : "";

    if (option->initial)
        snprintf(text, size, "%s (default: %s%s)", option->help, option->initial, list);
    else if (option->choices)
        snprintf(text, size, "%s ('help' lists them)", option->help);
    else
        snprintf(text, size, "%s", option->help);
}

static void print_option(FILE *out, const struct cli_option *option)
{
    char title[128], text[1024];

    if (option->kind == CLI_HEADING) {
        fprintf(out, "\n%s:\n", option->name);
        return;
    }
    option_title(option, title, sizeof(title));
    option_text(option, text, sizeof(text));
    cli_print_row(out, 2, OPTION_COLUMN, title, text);
}

static void print_synopsis(FILE *out, const struct cli_verb *verb)
{
    fprintf(out, "trapeze %s", verb->name);
    if (verb->options->kind != CLI_END)
        fprintf(out, " [OPTIONS]");
    if (verb->operands)
        fprintf(out, " %s", verb->operands);
}

void cli_print_help(FILE *out, const struct cli_verb *verb)
{
    fprintf(out, "trapeze %s - %s\n\nUsage: ", verb->name, verb->summary);
    print_synopsis(out, verb);
    fprintf(out, "\n\n");
    print_wrapped(out, verb->description, 0, 0);
    if (verb->options->kind != CLI_END && verb->options->kind != CLI_HEADING)
        fprintf(out, "\nOptions:\n");
    for (const struct cli_option *o = verb->options; o->kind != CLI_END; o++)
        print_option(out, o);
    if (verb->examples)
        fprintf(out, "\nExamples:\n");
    for (const struct cli_example *e = verb->examples; e && e->command; e++)
        fprintf(out, "  %s\n      %s\n", e->command, e->what);
}

void cli_print_overview(FILE *out)
{
    fprintf(out, "trapeze - run x86 virtual machines\n\nUsage: trapeze VERB [OPTIONS] ...\n\n");
    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++)
        cli_print_row(out, 2, VERB_COLUMN, verb->name, verb->summary);
    fprintf(out, "\n'trapeze help VERB' explains one of them.\n");
}

bool cli_print_group(FILE *out, const char *word)
{
    bool found = false;

    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++)
        if (cli_is_in_group(verb, word)) {
            cli_print_row(out, 2, VERB_COLUMN, verb->name, verb->summary);
            found = true;
        }
    return found;
}

/* ---- manual pages ---- */

/* Text as man(7) input: '-' and '\' escaped, no line begins with a control character. */
static void man_text(FILE *out, const char *text)
{
    bool line_start = true;

    for (; *text; text++) {
        if (text[0] == '\n' && text[1] == '\n') {
            fprintf(out, "\n.PP\n");
            text++;
            line_start = true;
            continue;
        }
        if (line_start && (*text == '.' || *text == '\''))
            fprintf(out, "\\&");
        if (*text == '-')
            fprintf(out, "\\-");
        else if (*text == '\\')
            fprintf(out, "\\e");
        else if (*text == '\'')
            fprintf(out, "\\(aq");
        else
            fputc(*text, out);
        line_start = *text == '\n';
    }
}

static void man_upper(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(toupper((unsigned char)*text), out);
}

static void man_head(FILE *out, const char *page, const char *summary)
{
    fprintf(out, ".\\\" printed by: trapeze help --man\n.TH ");
    man_upper(out, page);
    fprintf(out, " 1 \"\" \"trapeze %s\" \"User Commands\"\n.SH NAME\n", TRAPEZE_VERSION);
    man_text(out, page);
    fprintf(out, " \\- ");
    man_text(out, summary);
    fputc('\n', out);
}

static void man_option(FILE *out, const struct cli_option *option)
{
    char text[1024];

    if (option->kind == CLI_HEADING) {
        fprintf(out, ".SS ");
        man_text(out, option->name);
        fputc('\n', out);
        return;
    }
    fprintf(out, ".TP\n");
    if (option->letter)
        fprintf(out, "\\fB\\-%c\\fR, ", option->letter);
    fprintf(out, "\\fB\\-\\-");
    man_text(out, option->name);
    fprintf(out, "\\fR");
    if (option->argument)
        fprintf(out, option->kind == CLI_OPTIONAL ? "[=\\fI%s\\fR]" : " \\fI%s\\fR",
                option->argument);
    fputc('\n', out);
    option_text(option, text, sizeof(text));
    man_text(out, text);
    fprintf(out, ".\n");
}

static void man_examples(FILE *out, const struct cli_example *examples)
{
    if (!examples)
        return;
    fprintf(out, ".SH EXAMPLES\n");
    for (; examples->command; examples++) {
        fprintf(out, ".TP\n.B ");
        man_text(out, examples->command);
        fputc('\n', out);
        man_text(out, examples->what);
        fprintf(out, ".\n");
    }
}

static void man_exit_status(FILE *out)
{
    fprintf(out,
            ".SH EXIT STATUS\n"
            "0: done. 1: failed; standard error says why. 2: the command line was wrong.\n"
            "A guest that ends its own run through the debug exit port gives the status\n"
            "value \\(mu 2 + 1; a machine ended by a signal gives 128 + the signal's number.\n");
}

/* "trapeze-image-create" */
static void man_page_name(const struct cli_verb *verb, char *name, size_t size)
{
    snprintf(name, size, "trapeze-%s", verb->name);
    for (char *c = name; *c; c++)
        if (*c == ' ')
            *c = '-';
}

static void man_verb(FILE *out, const struct cli_verb *verb)
{
    char page[64];

    man_page_name(verb, page, sizeof(page));
    man_head(out, page, verb->summary);
    fprintf(out, ".SH SYNOPSIS\n.B trapeze ");
    man_text(out, verb->name);
    fprintf(out, "\n%s%s\n.SH DESCRIPTION\n",
            verb->options->kind == CLI_END ? "" : "[\\fIOPTIONS\\fR] ",
            verb->operands ? verb->operands : "");
    man_text(out, verb->description);
    fputc('\n', out);
    if (verb->options->kind != CLI_END)
        fprintf(out, ".SH OPTIONS\n");
    for (const struct cli_option *o = verb->options; o->kind != CLI_END; o++)
        man_option(out, o);
    man_examples(out, verb->examples);
    man_exit_status(out);
    fprintf(out, ".SH SEE ALSO\n.BR trapeze (1)\n");
}

static void man_overview(FILE *out)
{
    man_head(out, "trapeze", "run x86 virtual machines");
    fprintf(out, ".SH SYNOPSIS\n.B trapeze\n\\fIVERB\\fR [\\fIOPTIONS\\fR] ...\n"
                 ".SH DESCRIPTION\n");
    man_text(out, "A virtual machine monitor: it emulates a complete x86 PC, on which unmodified "
                  "operating systems run. One process is one machine.");
    fprintf(out, "\n.SH VERBS\n");
    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++) {
        char page[64];

        man_page_name(verb, page, sizeof(page));
        fprintf(out, ".TP\n.BR ");
        man_text(out, page);
        fprintf(out, " (1)\n");
        man_text(out, verb->summary);
        fprintf(out, ".\n");
    }
    man_exit_status(out);
}

void cli_print_man(FILE *out, const struct cli_verb *verb)
{
    if (verb)
        man_verb(out, verb);
    else
        man_overview(out);
}

/* ---- verbs ---- */

const struct cli_option cli_help_options[] = {
    {"man", .kind = CLI_FLAG, .offset = offsetof(struct help_options, man),
     .help = "print the manual page in man(7) form"},
    {.kind = CLI_END},
};

const struct cli_option cli_no_options[] = {{.kind = CLI_END}};

int cli_help_run(const struct cli_verb *verb, char **words)
{
    struct help_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err);
    const struct cli_verb *about = NULL;
    char *names[3] = {NULL};
    size_t count = 0;

    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    for (size_t n = 0; parsed == 0 && n < operands.count; n++)
        names[n] = (char *)(uintptr_t)operands.items[n];
    cli_texts_free(&operands);
    if (parsed == 0 && names[0]) {
        about = cli_verb_find(names, &count);
        if (!about && !names[1] && cli_print_group(stdout, names[0]))
            return CLI_DONE;
        if (!about || (names[1] && count == 1))
            parsed = cli_no_verb(names, &err);
    }
    if (parsed)
        return cli_misused(verb, &err);
    if (options.man)
        cli_print_man(stdout, about);
    else if (about)
        cli_print_help(stdout, about);
    else
        cli_print_overview(stdout);
    return CLI_DONE;
}

int cli_version_run(const struct cli_verb *verb, char **words)
{
    struct cli_texts operands;
    struct error err = {0};
    char nothing;
    int parsed = cli_parse(verb, &nothing, words, &operands, &err);

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_PARSED)
        printf("trapeze %s\n", TRAPEZE_VERSION);
    cli_texts_free(&operands);
    return CLI_DONE;
}
