/*
 * lists.c - what there is: engines, devices, processor models, trace events
 */
#include "cli/cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "trapeze/device.h"
#include "trapeze/engine.h"
#include "x86/features.h"

#define NAME_COLUMN 18

struct list_options {
    bool json;
};

const struct cli_option cli_list_options[] = {
    {"json", .kind = CLI_FLAG, .offset = offsetof(struct list_options, json),
     .help = "print JSON: an array with one object per line of the list"},
    {.kind = CLI_END},
};

/* ---- choices ---- */

void cli_engine_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "auto", "the first of these that can run here");
    for (const struct engine_ops *const *engine = engines; *engine; engine++)
        put(opaque, (*engine)->name, (*engine)->summary);
}

void cli_device_choices(cli_put_choice *put, void *opaque)
{
    for (const struct device_class *const *class = device_classes; *class; class ++)
        put(opaque, (*class)->name, (*class)->summary);
}

void cli_cpu_choices(cli_put_choice *put, void *opaque)
{
    for (const struct cpu_model_name *model = cpu_model_names; model->name; model++)
        put(opaque, model->name, model->summary);
}

void cli_trace_choices(cli_put_choice *put, void *opaque)
{
    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++)
        put(opaque, trace_infos[i].name, trace_infos[i].help);
}

static const struct {
    const char *name, *summary;
} log_levels[] = {
    [LOG_ERROR] = {"error", "what you asked for failed"},
    [LOG_WARN] = {"warn", "odd, but carried on"},
    [LOG_INFO] = {"info", "rare and worth keeping"},
    [LOG_GUEST] = {"guest", "mistakes of the guest"},
    [LOG_DEBUG] = {"debug", "for developers"},
};

void cli_log_level_choices(cli_put_choice *put, void *opaque)
{
    for (size_t i = 0; i < LOG_LEVEL_COUNT; i++)
        put(opaque, log_levels[i].name, log_levels[i].summary);
}

/* ---- lists ---- */

/*
 * A list is an array of objects with "name" and "summary", and where it depends on the host
 * "available" and "why". Text output is made from the same array.
 */
static json_t *new_entry(const char *name, const char *summary)
{
    return json_pack("{s:s, s:s}", "name", name, "summary", summary);
}

static void set_available(json_t *entry, int error, const struct error *err)
{
    json_object_set_new(entry, "available", json_boolean(error == 0));
    if (error)
        json_object_set_new(entry, "why", json_string(err->text));
}

static void print_entry(const json_t *entry)
{
    const char *why = json_string_value(json_object_get(entry, "why"));
    char text[ERROR_TEXT_SIZE + 256];

    snprintf(text, sizeof(text), why ? "%s (not here: %s)" : "%s",
             json_string_value(json_object_get(entry, "summary")), why);
    cli_print_row(stdout, 0, NAME_COLUMN, json_string_value(json_object_get(entry, "name")), text);
}

static void print_json(json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
}

static void print_list(json_t *list, bool json)
{
    json_t *entry;
    size_t i;

    if (json)
        print_json(list);
    else
        json_array_foreach(list, i, entry) print_entry(entry);
}

typedef void fill_list_fn(json_t *list);

/* Parse the options and print what fill puts into the list. */
static int run_list(const struct cli_verb *verb, char **words, fill_list_fn *fill)
{
    struct list_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err);
    json_t *list;

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    list = json_array();
    fill(list);
    print_list(list, options.json);
    json_decref(list);
    cli_texts_free(&operands);
    return CLI_DONE;
}

static void fill_engines(json_t *list)
{
    for (const struct engine_ops *const *engine = engines; *engine; engine++) {
        json_t *entry = new_entry((*engine)->name, (*engine)->summary);
        struct error err = {0};

        set_available(entry, (*engine)->probe(&err), &err);
        json_object_set_new(entry, "counts_instructions",
                            json_boolean((*engine)->counts_instructions));
        json_array_append_new(list, entry);
    }
}

int cli_engines_run(const struct cli_verb *verb, char **words)
{
    return run_list(verb, words, fill_engines);
}

static void fill_cpus(json_t *list)
{
    for (const struct cpu_model_name *name = cpu_model_names; name->name; name++) {
        json_t *entry = new_entry(name->name, name->summary), *features = json_array();
        struct cpu_model model;
        struct error err = {0};
        int error = cpu_model_parse(name->name, 1, &model, &err);

        set_available(entry, error, &err);
        for (unsigned i = 0; error == 0 && i < X86_FEATURE_COUNT; i++)
            if (cpu_model_has(&model, i))
                json_array_append_new(features, json_string(x86_feature_name(i)));
        json_object_set_new(entry, "features", features);
        json_array_append_new(list, entry);
    }
}

int cli_cpus_run(const struct cli_verb *verb, char **words)
{
    return run_list(verb, words, fill_cpus);
}

static void append_choice(void *opaque, const char *name, const char *summary)
{
    json_array_append_new(opaque, new_entry(name, summary));
}

static void fill_traces(json_t *list)
{
    cli_trace_choices(append_choice, list);
}

int cli_traces_run(const struct cli_verb *verb, char **words)
{
    return run_list(verb, words, fill_traces);
}

/* ---- devices and their properties ---- */

static const char *const type_names[] = {
    [PROPERTY_TYPE_BOOL] = "on|off", [PROPERTY_TYPE_U8] = "8-bit",
    [PROPERTY_TYPE_U16] = "16-bit",  [PROPERTY_TYPE_U32] = "32-bit",
    [PROPERTY_TYPE_U64] = "64-bit",  [PROPERTY_TYPE_STRING] = "text",
};

static bool is_listed(const struct property *property)
{
    return property->type != PROPERTY_TYPE_POINTER;
}

static void initial_text(const struct property *property, char *text, size_t size)
{
    if (property->type == PROPERTY_TYPE_STRING)
        snprintf(text, size, "%s", property->initial_text ? property->initial_text : "");
    else if (property->type == PROPERTY_TYPE_BOOL)
        snprintf(text, size, "%s", property->initial ? "on" : "off");
    else
        snprintf(text, size, property->initial < 10 ? "%llu" : "0x%llx",
                 (unsigned long long)property->initial);
}

void cli_print_properties(FILE *out, const struct device_class *class)
{
    fprintf(out, "%s: %s\n", class->name, class->summary);
    for (const struct property *p = class->properties; p && p->type != PROPERTY_TYPE_END; p++) {
        char title[96], initial[64], text[512];

        if (!is_listed(p))
            continue;
        initial_text(p, initial, sizeof(initial));
        snprintf(title, sizeof(title), "%s=%s", p->name, type_names[p->type]);
        snprintf(text, sizeof(text), "%s (default: %s)", p->help, initial);
        cli_print_row(out, 2, 26, title, text);
    }
}

static json_t *properties_json(const struct device_class *class)
{
    json_t *list = json_array();

    for (const struct property *p = class->properties; p && p->type != PROPERTY_TYPE_END; p++) {
        char initial[64];

        if (!is_listed(p))
            continue;
        initial_text(p, initial, sizeof(initial));
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s}", "name", p->name, "type",
                                        type_names[p->type], "default", initial, "help", p->help));
    }
    return list;
}

static json_t *device_json(const struct device_class *class)
{
    json_t *entry = new_entry(class->name, class->summary);

    json_object_set_new(entry, "bus", json_string(class->bus == BUS_PCI ? "pci" : "platform"));
    json_object_set_new(entry, "properties", properties_json(class));
    return entry;
}

static void print_all_devices(bool json)
{
    json_t *list = json_array();

    for (const struct device_class *const *class = device_classes; *class; class ++)
        json_array_append_new(list, device_json(*class));
    print_list(list, json);
    json_decref(list);
}

static void print_one_device(const struct device_class *class, bool json)
{
    json_t *entry = device_json(class);

    if (json)
        print_json(entry);
    else
        cli_print_properties(stdout, class);
    json_decref(entry);
}

int cli_devices_run(const struct cli_verb *verb, char **words)
{
    struct list_options options;
    struct cli_texts operands;
    struct error err = {0};
    int parsed = cli_parse(verb, &options, words, &operands, &err);

    if (parsed < 0)
        return cli_misused(verb, &err);
    if (parsed == CLI_ANSWERED)
        return CLI_DONE;
    if (operands.count == 0)
        print_all_devices(options.json);
    else if (!(parsed = cli_check_choice("device", operands.items[0], cli_device_choices, &err)))
        print_one_device(device_class_find(operands.items[0]), options.json);
    cli_texts_free(&operands);
    return parsed ? cli_misused(verb, &err) : CLI_DONE;
}
