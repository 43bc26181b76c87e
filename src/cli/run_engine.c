/*
 * run_engine.c - the engine that trapeze run takes, and what it has counted at the end
 */
#include "cli/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "trapeze/machine.h"

static int usable(const struct engine_ops *engine, bool counted, struct error *err)
{
    if (engine->probe(err)) {
        error_prefix(err, "engine %s cannot run here: ", engine->name);
        return -ENOTSUP;
    }
    if (counted && !engine->counts_instructions)
        return error_set(err, ENOTSUP, "engine %s cannot count instructions (--counted)",
                         engine->name);
    return 0;
}

/* The first engine of the table that runs processors here; the note says what was passed over. */
static const struct engine_ops *pick_engine(bool counted, char *note, size_t note_size,
                                            struct error *err)
{
    struct error why = {0};
    size_t used = 0;

    for (const struct engine_ops *const *engine = engines; *engine; engine++) {
        struct error one = {0};

        if (!(*engine)->runs_on_vcpu_thread)
            continue;
        if (usable(*engine, counted, &one) == 0)
            return *engine;
        if (used < note_size)
            used += (size_t)snprintf(note + used, note_size - used, "; %s", one.text);
        error_set(&why, ENOTSUP, "%s", one.text);
    }
    error_set(err, ENOTSUP, "no engine can run here (%s)",
              why.code ? why.text : "none is built in");
    return NULL;
}

const struct engine_ops *run_choose_engine(const char *name, bool counted, char *note,
                                           size_t note_size, struct error *err)
{
    const struct engine_ops *engine;

    if (strcmp(name, "auto") == 0)
        return pick_engine(counted, note, note_size, err);
    engine = engine_find(name);
    return usable(engine, counted, err) == 0 ? engine : NULL;
}

/* ---- statistics ---- */

static void print_count(void *opaque, const char *name, uint64_t count)
{
    fprintf(stderr, "vcpu %u  %14" PRIu64 "  %s\n", *(const unsigned *)opaque, count, name);
}

static void add_count(void *opaque, const char *name, uint64_t count)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)count));
}

static void print_stats_text(struct machine *machine)
{
    for (unsigned n = 0; n < machine_vcpu_count(machine); n++)
        machine_config(machine)->engine->stats(machine_vcpu(machine, n), print_count, &n);
}

/* One line: {"vcpus": [{NAME: COUNT, ...}, ...]} */
static void print_stats_json(struct machine *machine)
{
    json_t *vcpus = json_array(), *all = json_pack("{s:o}", "vcpus", vcpus);

    for (unsigned n = 0; n < machine_vcpu_count(machine); n++) {
        json_t *counts = json_object();

        machine_config(machine)->engine->stats(machine_vcpu(machine, n), add_count, counts);
        json_array_append_new(vcpus, counts);
    }
    json_dumpf(all, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(all);
}

void run_print_stats(struct machine *machine, const char *form)
{
    const struct engine_ops *engine = machine_config(machine)->engine;

    if (!engine->stats)
        fprintf(stderr, "engine %s counts nothing\n", engine->name);
    else if (strcmp(form, "json") == 0)
        print_stats_json(machine);
    else
        print_stats_text(machine);
}
