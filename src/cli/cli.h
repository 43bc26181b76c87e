/*
 * cli.h - verbs and options of the trapeze command as tables
 *
 * A verb is a table entry with a table of options. Parsing, the help texts, shell
 * completion and the manual pages all walk these tables, so an option is described
 * once. Values are stored into the structure that the option table describes.
 *
 * Everything here runs on the process's first thread, before or instead of a machine.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "trapeze/error.h"

enum cli_status { CLI_DONE = 0, CLI_FAILED = 1, CLI_MISUSED = 2 };

enum cli_kind {
    CLI_END,
    CLI_HEADING,  /* a title in help texts; only name is used */
    CLI_FLAG,     /* bool: set if the option is there */
    CLI_TEXT,     /* const char *: points into the command line */
    CLI_TEXTS,    /* struct cli_texts: the option may be repeated */
    CLI_OPTIONAL, /* const char *: the value may be left out, then it is `implied` */
    CLI_SIZE,     /* uint64_t bytes, with suffix K M G T; a bare number is MiB */
    CLI_NUMBER,   /* uint64_t, decimal or 0x */
};

struct cli_texts {
    const char **items;
    size_t count;
};

/* Enumerates the values an option may have: calls put(opaque, name, summary) for each. */
typedef void cli_put_choice(void *opaque, const char *name, const char *summary);
typedef void cli_choices_fn(cli_put_choice *put, void *opaque);

struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* 0: no short form */
    enum cli_kind kind;
    size_t offset;                   /* of the value in the structure */
    const char *argument;            /* what help texts call the value; NULL for flags */
    const char *initial;             /* default as text, parsed like a given value; may be NULL */
    const char *implied;             /* CLI_OPTIONAL */
    bool (*takes)(const char *word); /* CLI_OPTIONAL: is the next word its value? */
    uint64_t min, max;               /* CLI_SIZE, CLI_NUMBER */
    cli_choices_fn *choices;         /* known values: "--name help" lists them; may be NULL */
    bool only_choices;               /* any other value is a mistake */
    bool file;                       /* completion offers file names */
    bool is_no_config;               /* of this call; not kept in a configuration */
    const char *help;                /* one or more sentences without the last full stop */
};

struct cli_example {
    const char *command;
    const char *what;
};

struct cli_verb {
    const char *name;
    const char *summary;              /* one line, no full stop */
    const char *operands;             /* for the synopsis: "[IMAGE]"; NULL: takes none */
    const char *description;          /* paragraphs separated by "\n\n" */
    const struct cli_option *options; /* ends with CLI_END */
    unsigned min_operands, max_operands;
    cli_choices_fn *operand_choices;                       /* completion of operands; may be NULL */
    bool operand_file;                                     /* completion offers file names */
    const struct cli_example *examples;                    /* ends with command NULL; may be NULL */
    int (*run)(const struct cli_verb *verb, char **words); /* words after the verb; exit status */
};

/* All verbs, ends with a NULL name. A name may be two words: "image create". */
extern const struct cli_verb cli_verbs[];
/* The verb that words (ends with NULL) begin with, and how many of them it is; NULL if none. */
const struct cli_verb *cli_verb_find(char *const *words, size_t *out_count);
/* words begin with no verb: say so, with the nearest. -EINVAL. */
int cli_no_verb(char *const *words, struct error *err);
/* Is word the first of the verb's two? */
bool cli_is_in_group(const struct cli_verb *verb, const char *word);
void cli_verb_choices(cli_put_choice *put, void *opaque);

/* The whole command; argv as main() gets it. Returns the exit status. */
int cli_main(char **argv);

/* ---- options.c ---- */

enum cli_parsed { CLI_PARSED, CLI_ANSWERED }; /* answered: help was asked for and printed */

/*
 * Parse words (ends with NULL) by the verb's options into object, which is zeroed first up to
 * its defaults. Operands go to *out_operands. Texts point into words; free lists with
 * cli_texts_free. Returns enum cli_parsed, or -EINVAL (misuse) or -ENOMEM.
 */
int cli_parse(const struct cli_verb *verb, void *object, char **words,
              struct cli_texts *out_operands, struct error *err);
void cli_options_free(const struct cli_option *options, void *object);
int cli_texts_add(struct cli_texts *texts, const char *text, struct error *err);
void cli_texts_free(struct cli_texts *texts);

/* Is name one of the choices? Otherwise -EINVAL with the nearest one; what is "engine". */
int cli_check_choice(const char *what, const char *name, cli_choices_fn *choices,
                     struct error *err);

/* The option of a name (without dashes), or NULL. */
const struct cli_option *cli_option_find(const struct cli_option *options, const char *name);

/* Report an error of a verb on stderr, once; return the exit status to use. */
int cli_misused(const struct cli_verb *verb, const struct error *err);
int cli_failed(const struct cli_verb *verb, const struct error *err);

/* ---- help.c ---- */

void cli_print_overview(FILE *out);
bool cli_print_group(FILE *out, const char *word); /* verbs that begin with word; false if none */
void cli_print_help(FILE *out, const struct cli_verb *verb);
void cli_print_man(FILE *out, const struct cli_verb *verb); /* NULL: trapeze.1 */
/* Name and summary columns, wrapped at 80 characters. */
void cli_print_row(FILE *out, unsigned indent, unsigned column, const char *name, const char *text);
void cli_print_choices(FILE *out, cli_choices_fn *choices);
int cli_help_run(const struct cli_verb *verb, char **words);
int cli_version_run(const struct cli_verb *verb, char **words);
extern const struct cli_option cli_help_options[], cli_no_options[];

/* ---- completion.c ---- */

/* Print the candidates for the last of words (the command line after "trapeze"). */
void cli_complete(FILE *out, char **words);
int cli_completion_run(const struct cli_verb *verb, char **words);
void cli_shell_choices(cli_put_choice *put, void *opaque);
extern const struct cli_option cli_completion_options[];

/* ---- data.c ---- */

/*
 * Where a file or folder is that comes with the program: in the folder in_tree ("" is its root)
 * beside that of the program, or where "ninja install" puts it, in share/trapeze. program is the
 * program's own name. -ENOENT.
 */
int cli_find_data(const char *in_tree, const char *name, char program[PATH_MAX],
                  char path[2 * PATH_MAX], struct error *err);

/* ---- lists.c ---- */

void cli_engine_choices(cli_put_choice *put, void *opaque); /* with "auto" */
void cli_device_choices(cli_put_choice *put, void *opaque);
void cli_cpu_choices(cli_put_choice *put, void *opaque);
void cli_trace_choices(cli_put_choice *put, void *opaque);
void cli_log_level_choices(cli_put_choice *put, void *opaque);
int cli_engines_run(const struct cli_verb *verb, char **words);
int cli_devices_run(const struct cli_verb *verb, char **words);
int cli_cpus_run(const struct cli_verb *verb, char **words);
int cli_traces_run(const struct cli_verb *verb, char **words);
extern const struct cli_option cli_list_options[];
/* Properties of a device class, as `--device NAME,help` shows them. */
struct device_class;
void cli_print_properties(FILE *out, const struct device_class *class);

/* ---- run.c ---- */

int cli_run_run(const struct cli_verb *verb, char **words);
extern const struct cli_option cli_run_options[];

/* ---- image.c ---- */

int cli_image_build_run(const struct cli_verb *verb, char **words);
int cli_image_create_run(const struct cli_verb *verb, char **words);
int cli_image_info_run(const struct cli_verb *verb, char **words);
int cli_image_convert_run(const struct cli_verb *verb, char **words);
int cli_image_check_run(const struct cli_verb *verb, char **words);
int cli_image_resize_run(const struct cli_verb *verb, char **words);
int cli_image_commit_run(const struct cli_verb *verb, char **words);
int cli_image_rebase_run(const struct cli_verb *verb, char **words);
extern const struct cli_option cli_image_build_options[];
void cli_image_build_choices(cli_put_choice *put, void *opaque);
extern const struct cli_option cli_image_create_options[], cli_image_info_options[],
    cli_image_convert_options[], cli_image_check_options[], cli_image_resize_options[],
    cli_image_commit_options[], cli_image_rebase_options[];

/* ---- switch.c ---- */

int cli_switch_run_run(const struct cli_verb *verb, char **words);
int cli_switch_show_run(const struct cli_verb *verb, char **words);
int cli_switch_capture_run(const struct cli_verb *verb, char **words);
extern const struct cli_option cli_switch_show_options[];

/* ---- client.c, client_plug.c, client_screen.c: verbs that talk to a running machine ---- */

int cli_list_run(const struct cli_verb *verb, char **words);
int cli_open_run(const struct cli_verb *verb, char **words);
int cli_monitor_run(const struct cli_verb *verb, char **words);
int cli_inspect_run(const struct cli_verb *verb, char **words);
int cli_device_add_run(const struct cli_verb *verb, char **words);
int cli_device_remove_run(const struct cli_verb *verb, char **words);
int cli_media_insert_run(const struct cli_verb *verb, char **words);
int cli_media_eject_run(const struct cli_verb *verb, char **words);
int cli_balloon_run(const struct cli_verb *verb, char **words);
int cli_screenshot_run(const struct cli_verb *verb, char **words);
int cli_type_run(const struct cli_verb *verb, char **words);
int cli_key_run(const struct cli_verb *verb, char **words);
int cli_click_run(const struct cli_verb *verb, char **words);
extern const struct cli_option cli_client_options[], cli_device_add_options[],
    cli_device_remove_options[], cli_media_options[], cli_screenshot_options[];

/* ---- config.c ---- */

/* Print options that are set as JSON, with image (NULL: none). */
int cli_config_print(FILE *out, const struct cli_option *options, const void *object,
                     const char *image, struct error *err);
/*
 * Read such a file ("-" is standard input) into words of a command line; the image is left out when
 * there is another. The words are the caller's, to free() one by one, also after an error.
 */
int cli_config_read(const char *path, const struct cli_option *options, bool has_image,
                    struct cli_texts *out_words, struct error *err);

#endif
