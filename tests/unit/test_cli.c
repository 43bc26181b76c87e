/*
 * test_cli.c - option parsing, help, completion and manual pages of the command line
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/cli.h"
#include "cli/run.h"

/* ---- a verb of our own ---- */

struct values {
    bool flag;
    const char *text, *optional, *colour;
    struct cli_texts list;
    uint64_t size, number;
};

static bool is_number(const char *word)
{
    return word[0] && word[strspn(word, "0123456789")] == '\0';
}

static void colours(cli_put_choice *put, void *opaque)
{
    put(opaque, "red", "like blood");
    put(opaque, "green", "like grass");
}

#define AT(field) .offset = offsetof(struct values, field)
static const struct cli_option options[] = {
    {"Group", .kind = CLI_HEADING},
    {"flag", 'F', CLI_FLAG, AT(flag), .help = "a flag"},
    {"text", 't', CLI_TEXT, AT(text), "TEXT", .initial = "none", .help = "a text"},
    {"optional", 'o', CLI_OPTIONAL, AT(optional), "N", .implied = "7", .takes = is_number,
     .help = "a value that may be left out"},
    {"colour", 0, CLI_TEXT, AT(colour), "NAME", .initial = "red", .choices = colours,
     .only_choices = true, .help = "a choice"},
    {"list", 'l', CLI_TEXTS, AT(list), "ITEM", .file = true, .help = "may be repeated"},
    {"size", 'm', CLI_SIZE, AT(size), "SIZE", .initial = "2M", .min = 1 << 20, .max = 1ull << 40,
     .help = "a size"},
    {"number", 0, CLI_NUMBER, AT(number), "N", .initial = "1", .min = 1, .max = 16,
     .help = "a number"},
    {.kind = CLI_END},
};
static const struct cli_verb verb = {
    .name = "try",
    .summary = "for tests",
    .operands = "[A [B]]",
    .description = "A first paragraph that is long enough to be wrapped in the middle of the "
                   "line, by the looks of it.\n\nA second one.",
    .options = options,
    .max_operands = 2,
};

static int parse(struct values *values, struct cli_texts *operands, struct error *err, ...)
{
    char *words[16];
    size_t count = 0;
    va_list args;

    va_start(args, err);
    while ((words[count] = va_arg(args, char *)))
        count++;
    va_end(args);
    *err = (struct error){0};
    return cli_parse(&verb, values, words, operands, err);
}

#define PARSE(...) parse(&values, &operands, &err, __VA_ARGS__, NULL)
#define LOCALS                                                                                     \
    struct values values;                                                                          \
    struct cli_texts operands;                                                                     \
    struct error err
#define DONE                                                                                       \
    cli_texts_free(&operands);                                                                     \
    cli_options_free(options, &values)

/* ---- parsing ---- */

static void defaults_are_stored(void **state)
{
    LOCALS;

    assert_int_equal(parse(&values, &operands, &err, NULL), CLI_PARSED);
    assert_false(values.flag);
    assert_string_equal(values.text, "none");
    assert_null(values.optional);
    assert_int_equal(values.size, 2 << 20);
    assert_int_equal(values.number, 1);
    assert_int_equal(values.list.count, 0);
    assert_int_equal(operands.count, 0);
    DONE;
}

static void every_way_to_write_a_value(void **state)
{
    LOCALS;

    assert_int_equal(PARSE("--text", "a", "-F", "--size=4G", "one"), CLI_PARSED);
    assert_string_equal(values.text, "a");
    assert_true(values.flag);
    assert_int_equal(values.size, 4ull << 30);
    assert_string_equal(operands.items[0], "one");
    DONE;
    assert_int_equal(PARSE("-tb", "-m3", "-l", "x", "--list=y", "-t=c"), CLI_PARSED);
    assert_string_equal(values.text, "c");
    assert_int_equal(values.size, 3 << 20); /* a bare number is MiB */
    assert_int_equal(values.list.count, 2);
    assert_string_equal(values.list.items[1], "y");
    DONE;
}

static void words_after_two_dashes_are_operands(void **state)
{
    LOCALS;

    assert_int_equal(PARSE("--", "--flag", "-"), CLI_PARSED);
    assert_false(values.flag);
    assert_string_equal(operands.items[0], "--flag");
    assert_string_equal(operands.items[1], "-");
    DONE;
}

static void an_empty_value_is_a_value(void **state)
{
    LOCALS;

    assert_int_equal(PARSE("--text=", "--list", ""), CLI_PARSED);
    assert_string_equal(values.text, "");
    assert_string_equal(values.list.items[0], "");
    DONE;
}

static void an_optional_value_takes_only_what_fits(void **state)
{
    LOCALS;

    assert_int_equal(PARSE("--optional", "12"), CLI_PARSED);
    assert_string_equal(values.optional, "12");
    DONE;
    assert_int_equal(PARSE("--optional", "image"), CLI_PARSED);
    assert_string_equal(values.optional, "7");
    assert_string_equal(operands.items[0], "image");
    DONE;
    assert_int_equal(PARSE("-o"), CLI_PARSED);
    assert_string_equal(values.optional, "7");
    DONE;
}

static void mistakes_name_the_nearest(void **state)
{
    LOCALS;

    assert_int_equal(PARSE("--flga"), -EINVAL);
    assert_string_equal(err.text, "there is no option '--flga'; did you mean '--flag'?");
    assert_int_equal(PARSE("--txt=5"), -EINVAL);
    assert_string_equal(err.text, "there is no option '--txt'; did you mean '--text'?");
    assert_int_equal(PARSE("-flag"), -EINVAL);
    assert_string_equal(err.text, "there is no option '-flag'; did you mean '--flag'?");
    assert_int_equal(PARSE("--colour", "gren"), -EINVAL);
    assert_string_equal(err.text, "there is no colour 'gren'; did you mean 'green'?");
    assert_int_equal(PARSE("--hlep"), -EINVAL);
    assert_string_equal(err.text, "there is no option '--hlep'; did you mean '--help'?");
}

static void mistakes_are_refused(void **state)
{
    LOCALS;

    assert_int_equal(PARSE("--text"), -EINVAL);
    assert_string_equal(err.text, "--text needs a value: --text TEXT");
    assert_int_equal(PARSE("--flag=1"), -EINVAL);
    assert_int_equal(PARSE("-Fx"), -EINVAL);
    assert_int_equal(PARSE("-Q"), -EINVAL);
    assert_int_equal(PARSE("--size", "banana"), -EINVAL);
    assert_int_equal(PARSE("--size", "1K"), -EINVAL);
    assert_int_equal(PARSE("--size", "18446744073709551615"), -EINVAL);
    assert_int_equal(PARSE("--number", "17"), -EINVAL);
    assert_string_equal(err.text, "--number 17 is out of range: it can be 1 to 16");
    assert_int_equal(PARSE("--number", "0"), -EINVAL);
    assert_int_equal(PARSE("--number="), -EINVAL);
    assert_int_equal(PARSE("-l", "x", "a", "b", "c"), -EINVAL);
    assert_string_equal(err.text, "one argument too many: 'c'");
}

static void missing_operands_are_named(void **state)
{
    struct cli_verb strict = verb;
    struct error err = {0};
    struct values values;
    struct cli_texts operands;
    char *words[] = {NULL};

    strict.min_operands = 1;
    assert_int_equal(cli_parse(&strict, &values, words, &operands, &err), -EINVAL);
    assert_string_equal(err.text, "something is missing: trapeze try [A [B]]");
}

/* ---- configurations ---- */

static void write_config(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void free_words(struct cli_texts *words)
{
    for (size_t n = 0; n < words->count; n++)
        free((char *)words->items[n]);
    cli_texts_free(words);
}

static void options_survive_a_configuration(void **state)
{
    char path[] = "/tmp/trapeze-config-XXXXXX";
    struct cli_texts words;
    FILE *file;
    LOCALS;

    close(mkstemp(path));
    assert_int_equal(
        PARSE("-F", "--text", "a=b \"c\"", "-o", "-l", "x", "--list=-y", "-m", "3G", "--number=9"),
        CLI_PARSED);
    file = fopen(path, "w");
    assert_int_equal(cli_config_print(file, options, &values, "-image", &err), 0);
    fclose(file);
    DONE;
    assert_int_equal(cli_config_read(path, options, false, &words, &err), 0);
    assert_int_equal(cli_texts_add(&words, NULL, &err), 0);
    assert_int_equal(cli_parse(&verb, &values, (char **)words.items, &operands, &err), CLI_PARSED);
    assert_true(values.flag);
    assert_string_equal(values.text, "a=b \"c\"");
    assert_string_equal(values.optional, "7");
    assert_string_equal(values.colour, "red");
    assert_int_equal(values.list.count, 2);
    assert_string_equal(values.list.items[1], "-y");
    assert_int_equal(values.size, 3ull << 30);
    assert_int_equal(values.number, 9);
    assert_string_equal(operands.items[0], "./-image");
    free_words(&words);
    DONE;
    assert_int_equal(cli_config_read(path, options, true, &words, &err), 0);
    for (size_t n = 0; n < words.count; n++)
        assert_null(strstr(words.items[n], "image"));
    free_words(&words);
    unlink(path);
}

static void configurations_with_mistakes_are_refused(void **state)
{
    static const char *const wrong[] = {
        "",
        "[]",
        "{\"txet\": \"a\"}",
        "{\"flag\": \"on\"}",
        "{\"text\": [\"a\"]}",
        "{\"text\": {}}",
        "{\"list\": [[\"a\"]]}",
        "{\"image\": 7}",
        "{\"number\": 1.5}",
        "{\"number\": 1, \"number\": 2}",
    };
    char path[] = "/tmp/trapeze-config-XXXXXX";
    struct cli_texts words;
    struct error err;

    close(mkstemp(path));
    for (size_t n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
        err = (struct error){0};
        write_config(path, wrong[n]);
        assert_int_equal(cli_config_read(path, options, false, &words, &err), -EINVAL);
        assert_non_null(strstr(err.text, path));
        free_words(&words);
    }
    unlink(path);
}

/* ---- output ---- */

/* What the command prints on stdout; *out_status is its exit status. */
static char *run_command(int *out_status, ...)
{
    char *words[16] = {(char *)"trapeze"}, *text;
    FILE *file = tmpfile(), *quiet = fopen("/dev/null", "w");
    int saved = dup(1), saved_err = dup(2);
    size_t count = 1, size;
    va_list args;

    va_start(args, out_status);
    while ((words[count] = va_arg(args, char *)))
        count++;
    va_end(args);
    fflush(stdout);
    fflush(stderr);
    dup2(fileno(file), 1);
    dup2(fileno(quiet), 2);
    *out_status = cli_main(words);
    fflush(stdout);
    fflush(stderr);
    dup2(saved, 1);
    dup2(saved_err, 2);
    close(saved);
    close(saved_err);
    fclose(quiet);
    size = (size_t)lseek(fileno(file), 0, SEEK_END);
    text = calloc(1, size + 1);
    assert_int_equal(pread(fileno(file), text, size, 0), size);
    fclose(file);
    return text;
}

static void expect_status(int expected, const char *a, const char *b, const char *c)
{
    int status;
    char *text = run_command(&status, a, b, c, NULL);

    free(text);
    assert_int_equal(status, expected);
}

static void exit_status_tells_misuse_from_failure(void **state)
{
    expect_status(CLI_MISUSED, NULL, NULL, NULL);
    expect_status(CLI_MISUSED, "rnu", NULL, NULL);
    expect_status(CLI_MISUSED, "run", "--kernal", "x");
    expect_status(CLI_MISUSED, "run", NULL, NULL);
    expect_status(CLI_MISUSED, "run", "--engine", "nonesuch");
    expect_status(CLI_MISUSED, "run", "--cpus", "17");
    expect_status(CLI_MISUSED, "run", "--device", "nonesuch");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--cpu=nonesuch");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--cpu=max,+nonesuch");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--serial=nonesuch");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--rtc=tomorrow");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--uuid=123e4567-e89b-12d3-a456-42661417400");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--uuid=123e4567-e89b-12d3-a456-42661417400g");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--uuid=123e4567-e89b-12d3-a456-4266141740000");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--rtc=2024-02-30T00:00:00x");
    expect_status(CLI_MISUSED, "run", "--counted", "--cpus=2");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--digest=1000");
    expect_status(CLI_MISUSED, "devices", "nonesuch", NULL);
    expect_status(CLI_MISUSED, "help", "nonesuch", NULL);
    expect_status(CLI_MISUSED, "completion", "tcsh", NULL);
    expect_status(CLI_MISUSED, "monitor", "/nonesuch/socket", "nonesuch");
    expect_status(CLI_MISUSED, "engines", "extra", NULL);
    expect_status(CLI_FAILED, "run", "--kernel", "/nonesuch/kernel");
    expect_status(CLI_FAILED, "run", "/dev/null", NULL);
    expect_status(CLI_FAILED, "monitor", "/nonesuch/socket", "status");
    expect_status(CLI_FAILED, "inspect", "/nonesuch/socket", NULL);
    expect_status(CLI_DONE, "--help", NULL, NULL);
    expect_status(CLI_DONE, "--version", NULL, NULL);
    expect_status(CLI_DONE, "run", "--help", NULL);
    expect_status(CLI_DONE, "run", "--engine", "help");
    expect_status(CLI_DONE, "run", "--device", "help");
    expect_status(CLI_DONE, "completion", "bash", NULL);
}

static void lists_are_json_with_a_sentence_each(void **state)
{
    static const char *const verbs[] = {"engines", "devices", "cpus", "traces"};

    for (size_t i = 0; i < 4; i++) {
        int status;
        char *text = run_command(&status, verbs[i], "--json", NULL);
        json_t *list = json_loads(text, 0, NULL), *entry;
        size_t at;

        assert_int_equal(status, CLI_DONE);
        assert_true(json_array_size(list) > 0);
        json_array_foreach(list, at, entry)
        {
            assert_non_null(json_string_value(json_object_get(entry, "name")));
            assert_true(strlen(json_string_value(json_object_get(entry, "summary"))) > 5);
        }
        json_decref(list);
        free(text);
    }
}

static char *print_verb(void (*print)(FILE *out, const struct cli_verb *verb),
                        const struct cli_verb *about)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    print(out, about);
    fclose(out);
    return text;
}

static void check_lines(const char *text)
{
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        size_t length = strcspn(line, "\n");

        if (length > 80 && !memmem(line, length, "  trapeze ", 10))
            fail_msg("a line of %zu characters: %.*s", length, (int)length, line);
        if (length && line[length - 1] == ' ')
            fail_msg("blanks at the end of: %.*s", (int)length, line);
        if (!line[length])
            break;
    }
}

static void help_describes_every_option_within_80_columns(void **state)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++) {
        char *text = print_verb(cli_print_help, v);

        check_lines(text);
        assert_true(strlen(v->summary) > 5 && strlen(v->description) > 10);
        for (const struct cli_option *o = v->options; o->kind != CLI_END; o++) {
            char title[64];

            snprintf(title, sizeof(title), o->kind == CLI_HEADING ? "%s:" : "--%s", o->name);
            assert_non_null(strstr(text, title));
            if (o->kind != CLI_HEADING) {
                assert_true(strlen(o->help) > 3);
                assert_int_not_equal(o->help[strlen(o->help) - 1], '.');
                assert_true(o->kind == CLI_FLAG || o->argument);
            }
        }
        free(text);
    }
}

static void option_names_and_letters_are_unique(void **state)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        for (const struct cli_option *a = v->options; a->kind != CLI_END; a++)
            for (const struct cli_option *b = a + 1; b->kind != CLI_END; b++) {
                if (strcmp(a->name, b->name) == 0 || (a->letter && a->letter == b->letter))
                    fail_msg("trapeze %s: %s and %s", v->name, a->name, b->name);
            }
}

static void manual_pages_escape_what_troff_would_eat(void **state)
{
    char *text = print_verb(cli_print_man, &verb);

    assert_non_null(strstr(text, ".TH TRAPEZE-TRY 1"));
    assert_non_null(strstr(text, "\\fB\\-\\-optional\\fR[=\\fIN\\fR]"));
    assert_non_null(strstr(text, ".PP\nA second one."));
    for (const char *at = text; (at = strchr(at, '\\')); at += 2)
        assert_non_null(strchr("\"-fe&(", at[1]));
    free(text);
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        free(print_verb(cli_print_man, v));
    text = print_verb(cli_print_man, NULL);
    assert_non_null(strstr(text, ".BR trapeze\\-run (1)"));
    free(text);
}

/* ---- completion ---- */

static void expect_completion(const char *expected, ...)
{
    char *words[8], *text = NULL;
    size_t count = 0, size;
    FILE *out = open_memstream(&text, &size);
    va_list args;

    va_start(args, expected);
    while ((words[count] = va_arg(args, char *)))
        count++;
    va_end(args);
    cli_complete(out, words);
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
}

static void completion_follows_the_tables(void **state)
{
    expect_completion("run\n", "ru", NULL);
    expect_completion("--kernel\n--kernel-entry\n", "run", "--ker", NULL);
    expect_completion("--json\n", "engines", "--j", NULL);
    expect_completion(":files\n", "run", "--kernel", "vm", NULL);
    expect_completion(":files\n", "run", "-k", "vm", NULL);
    expect_completion(":files\n", "run", "vm", NULL);
    expect_completion("auto\n", "run", "--engine", "au", NULL);
    expect_completion("--engine=auto\n", "run", "--engine=au", NULL);
    expect_completion("error\n", "run", "-l", "er", NULL);
    expect_completion("bash\n", "completion", "b", NULL);
    expect_completion("engines\n", "help", "eng", NULL);
    expect_completion("image\n", "im", NULL);
    expect_completion("create\nconvert\ncheck\ncommit\n", "image", "c", NULL);
    expect_completion("--backing\n--backing-format\n", "image", "create", "--b", NULL);
    expect_completion(":files\n", "image", "info", "x", NULL);
    expect_completion("image\n", "help", "im", NULL);
    expect_completion("create\n", "help", "image", "cr", NULL);
    expect_completion("", "image", "nonesuch", "x", NULL);
    expect_completion("", "nonesuch", "x", NULL);
    expect_completion("", "run", "-Q", NULL);
    expect_completion("", "run", "--append", "x", NULL);
}

static void verbs_can_be_two_words(void **state)
{
    char *create[] = {"image", "create", "x", NULL}, *alone[] = {"image", NULL};
    char *wrong[] = {"image", "creat", NULL}, *run[] = {"run", "image", NULL};
    struct error err = {0};
    size_t count;

    assert_string_equal(cli_verb_find(create, &count)->name, "image create");
    assert_int_equal(count, 2);
    assert_string_equal(cli_verb_find(run, &count)->name, "run");
    assert_int_equal(count, 1);
    assert_null(cli_verb_find(alone, &count));
    assert_null(cli_verb_find(wrong, &count));
    assert_int_equal(cli_no_verb(wrong, &err), -EINVAL);
    assert_non_null(strstr(err.text, "did you mean 'image create'"));
}

static void boot_orders_are_words_of_a_list(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(run_check_boot(NULL, &err), 0);
    assert_int_equal(run_check_boot("cdrom,disk", &err), 0);
    assert_int_equal(run_check_boot("cdrom,dsik", &err), -EINVAL);
    assert_string_equal(err.text,
                        "there is no kind of device to boot from 'dsik'; did you mean 'disk'?");
}

static void addresses_of_the_page_end_in_a_port(void **state)
{
    static const char *const good[] = {"8080", "localhost:8080", "[::1]:80", "0.0.0.0:1", "auto"};
    static const char *const wrong[] = {"", "localhost", "localhost:", ":80", "80x", "vm.sock"};
    struct error err = {0};

    (void)state;
    assert_int_equal(run_check_web(NULL, &err), 0);
    for (size_t n = 0; n < sizeof(good) / sizeof(good[0]); n++)
        assert_int_equal(run_check_web(good[n], &err), 0);
    for (size_t n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
        err = (struct error){0};
        assert_int_equal(run_check_web(wrong[n], &err), -EINVAL);
    }
    assert_string_equal(err.text, "--web vm.sock: give [HOST:]PORT");
    expect_status(CLI_MISUSED, "run", "vmlinuz", "--web=vm.sock");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_stored),
        cmocka_unit_test(every_way_to_write_a_value),
        cmocka_unit_test(words_after_two_dashes_are_operands),
        cmocka_unit_test(an_empty_value_is_a_value),
        cmocka_unit_test(an_optional_value_takes_only_what_fits),
        cmocka_unit_test(mistakes_name_the_nearest),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(missing_operands_are_named),
        cmocka_unit_test(options_survive_a_configuration),
        cmocka_unit_test(configurations_with_mistakes_are_refused),
        cmocka_unit_test(exit_status_tells_misuse_from_failure),
        cmocka_unit_test(lists_are_json_with_a_sentence_each),
        cmocka_unit_test(help_describes_every_option_within_80_columns),
        cmocka_unit_test(option_names_and_letters_are_unique),
        cmocka_unit_test(manual_pages_escape_what_troff_would_eat),
        cmocka_unit_test(completion_follows_the_tables),
        cmocka_unit_test(verbs_can_be_two_words),
        cmocka_unit_test(boot_orders_are_words_of_a_list),
        cmocka_unit_test(addresses_of_the_page_end_in_a_port),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
