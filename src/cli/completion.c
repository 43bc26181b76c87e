/*
 * completion.c - shell completion
 *
 * The scripts are a few lines that hand the words typed so far to
 * "trapeze completion --words" and offer what it prints: one candidate a line, or the
 * single line ":files" for file names. So completion follows the tables too.
 */
#include "cli/cli.h"

#include <string.h>

struct completion_options {
    bool words;
};

/* Prints choices that begin with prefix; with before in front of them ("--engine="). */
struct candidates {
    FILE *out;
    const char *prefix;
    const char *before;
    unsigned count; /* that were printed */
};

static void candidates_put(void *opaque, const char *name, const char *summary)
{
    struct candidates *candidates = opaque;

    (void)summary;
    if (strncmp(name, candidates->prefix, strlen(candidates->prefix)))
        return;
    fprintf(candidates->out, "%s%s\n", candidates->before, name);
    candidates->count++;
}

static void complete_value(FILE *out, cli_choices_fn *choices, bool file, const char *prefix,
                           const char *before)
{
    struct candidates candidates = {.out = out, .prefix = prefix, .before = before};

    if (choices)
        choices(candidates_put, &candidates);
    if (file && !candidates.count)
        fprintf(out, ":files\n");
}

static void complete_option_names(FILE *out, const struct cli_verb *verb, const char *prefix)
{
    struct candidates candidates = {.out = out, .prefix = prefix + 2, .before = "--"};

    for (const struct cli_option *o = verb->options; o->kind != CLI_END; o++)
        if (o->kind != CLI_HEADING)
            candidates_put(&candidates, o->name, NULL);
    candidates_put(&candidates, "help", NULL);
}

/* The option whose name is the first length characters of word (with dashes), or NULL. */
static const struct cli_option *option_of(const struct cli_verb *verb, const char *word,
                                          size_t length)
{
    for (const struct cli_option *o = verb->options; o->kind != CLI_END; o++) {
        if (o->kind == CLI_HEADING)
            continue;
        if (length == 2 && o->letter && word[0] == '-' && word[1] == o->letter)
            return o;
        if (length > 2 && strncmp(word, "--", 2) == 0 && strlen(o->name) == length - 2 &&
            memcmp(o->name, word + 2, length - 2) == 0)
            return o;
    }
    return NULL;
}

static bool wants_value(const struct cli_option *option)
{
    return option && option->kind != CLI_FLAG && option->kind != CLI_OPTIONAL;
}

static void complete_word(FILE *out, const struct cli_verb *verb, const char *previous,
                          const char *word)
{
    size_t name_length = strcspn(word, "=");
    const struct cli_option *option = previous ? option_of(verb, previous, strlen(previous)) : NULL;

    if (wants_value(option)) {
        complete_value(out, option->choices, option->file, word, "");
    } else if (word[0] == '-' && word[name_length] == '=') {
        char before[64];

        snprintf(before, sizeof(before), "%.*s=", (int)name_length, word);
        option = option_of(verb, word, name_length);
        if (option)
            complete_value(out, option->choices, option->file, word + name_length + 1, before);
    } else if (word[0] == '-') {
        if (word[1] == '-' || word[1] == '\0')
            complete_option_names(out, verb, word[1] ? word : "--");
    } else {
        complete_value(out, verb->operand_choices, verb->operand_file, word, "");
    }
}

/* First words of verbs; or the second ones, if group is the first. */
static void complete_verb(FILE *out, const char *group, const char *prefix)
{
    struct candidates candidates = {.out = out, .prefix = prefix, .before = ""};
    char last[64] = "";

    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++) {
        char name[64];

        if (group && cli_is_in_group(verb, group)) {
            candidates_put(&candidates, strchr(verb->name, ' ') + 1, NULL);
        } else if (!group) {
            snprintf(name, sizeof(name), "%.*s", (int)strcspn(verb->name, " "), verb->name);
            if (strcmp(name, last))
                candidates_put(&candidates, name, NULL);
            strcpy(last, name);
        }
    }
}

void cli_complete(FILE *out, char **words)
{
    const struct cli_verb *verb;
    size_t count = 0, used;

    while (words[count])
        count++;
    if (count <= 1) {
        complete_verb(out, NULL, count ? words[0] : "");
        return;
    }
    verb = cli_verb_find(words, &used);
    if (!verb && count == 2)
        complete_verb(out, words[0], words[1]);
    else if (verb && verb->operand_choices == cli_verb_choices && words[count - 1][0] != '-')
        complete_verb(out, count > used + 1 ? words[used] : NULL, words[count - 1]);
    else if (verb && count > used)
        complete_word(out, verb, count > used + 1 ? words[count - 2] : NULL, words[count - 1]);
}

static const char bash_script[] =
    "# bash completion for trapeze: source <(trapeze completion bash)\n"
    "_trapeze() {\n"
    "    local line=\"${COMP_LINE:0:COMP_POINT}\" current words\n"
    "    read -ra words <<<\"$line\"\n"
    "    [[ $line == *' ' ]] && words+=('')\n"
    "    current=${words[-1]}\n"
    "    mapfile -t COMPREPLY < <(trapeze completion --words -- \"${words[@]:1}\" 2>/dev/null)\n"
    "    if [[ ${COMPREPLY[0]} == :files ]]; then\n"
    "        compopt -o filenames\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"${COMP_WORDS[COMP_CWORD]#=}\")\n"
    "    elif [[ $current == *=* ]]; then\n"
    "        COMPREPLY=(\"${COMPREPLY[@]#*=}\")  # bash splits words at '='\n"
    "    fi\n"
    "}\n"
    "complete -F _trapeze trapeze\n";

static const char zsh_script[] =
    "#compdef trapeze\n"
    "# zsh completion for trapeze: source <(trapeze completion zsh)\n"
    "_trapeze() {\n"
    "    local -a found\n"
    "    found=(\"${(@f)$(trapeze completion --words -- ${words[2,CURRENT]} 2>/dev/null)}\")\n"
    "    if [[ $found[1] == :files ]]; then _files; else compadd -- $found; fi\n"
    "}\n"
    "compdef _trapeze trapeze\n";

static const char fish_script[] =
    "# fish completion for trapeze: trapeze completion fish | source\n"
    "function __trapeze\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    set -l found (trapeze completion --words -- $words[2..-1] 2>/dev/null)\n"
    "    if test \"$found[1]\" = :files\n"
    "        __fish_complete_path (commandline -ct)\n"
    "    else\n"
    "        printf '%s\\n' $found\n"
    "    end\n"
    "end\n"
    "complete -c trapeze -f -a '(__trapeze)'\n";

static const struct {
    const char *name, *summary, *script;
} shells[] = {
    {"bash", "source <(trapeze completion bash)", bash_script},
    {"zsh", "source <(trapeze completion zsh)", zsh_script},
    {"fish", "trapeze completion fish | source", fish_script},
};

void cli_shell_choices(cli_put_choice *put, void *opaque)
{
    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
        put(opaque, shells[i].name, shells[i].summary);
}

const struct cli_option cli_completion_options[] = {
    {"words", .kind = CLI_FLAG, .offset = offsetof(struct completion_options, words),
     .help = "print the candidates for the last of the words that follow --, as the scripts do"},
    {.kind = CLI_END},
};

static int print_script(const struct cli_verb *verb, const char *shell)
{
    struct error err = {0};

    if (cli_check_choice("shell", shell, cli_shell_choices, &err))
        return cli_misused(verb, &err);
    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
        if (strcmp(shells[i].name, shell) == 0)
            fputs(shells[i].script, stdout);
    return CLI_DONE;
}

int cli_completion_run(const struct cli_verb *verb, char **words)
{
    struct completion_options options;
    struct cli_texts operands;
    struct error err = {0};
    int result, parsed;

    if (words[0] && strcmp(words[0], "--words") == 0 && words[1] && strcmp(words[1], "--") == 0) {
        cli_complete(stdout, words + 2);
        return CLI_DONE;
    }
    parsed = cli_parse(verb, &options, words, &operands, &err);
    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    result = operands.count == 1 ? print_script(verb, operands.items[0]) : CLI_MISUSED;
    if (operands.count != 1)
        fprintf(stderr, "trapeze completion: name one shell: bash, zsh or fish\n");
    cli_texts_free(&operands);
    return result;
}
