/*
 * engine_list.c - the table of engines
 */
#include <string.h>

#include "trapeze/engine.h"

const struct engine_ops *const engines[] = {
    NULL,
};

const struct engine_ops *engine_find(const char *name)
{
    for (const struct engine_ops *const *engine = engines; *engine; engine++)
        if (strcmp((*engine)->name, name) == 0)
            return *engine;
    return NULL;
}
