/*
 * engine_list.c - the table of engines
 */
#include <string.h>

#include "trapeze/engine.h"

extern const struct engine_ops interpreter_engine, translator_engine, null_engine;

const struct engine_ops *const engines[] = {
    &translator_engine,
    &interpreter_engine,
    &null_engine,
    NULL,
};

const struct engine_ops *engine_find(const char *name)
{
    for (const struct engine_ops *const *engine = engines; *engine; engine++)
        if (strcmp((*engine)->name, name) == 0)
            return *engine;
    return NULL;
}
