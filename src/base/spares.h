/*
 * spares.h - memory of one size that is taken and given back often
 *
 * What was given back is kept for who takes next; the link is in the memory itself. The caller
 * sees to it that one thread at a time uses a list.
 */
#ifndef BASE_SPARES_H
#define BASE_SPARES_H

#include <stdlib.h>

struct spare {
    struct spare *next;
};

/* size bytes, not cleared, the same size at each call. NULL: out of memory. */
static inline void *spares_take(struct spare **spares, size_t size)
{
    struct spare *spare = *spares;

    if (!spare)
        return malloc(size);
    *spares = spare->next;
    return spare;
}

static inline void spares_give_back(struct spare **spares, void *memory)
{
    struct spare *spare = memory;

    spare->next = *spares;
    *spares = spare;
}

static inline void spares_free(struct spare **spares)
{
    for (struct spare *spare; (spare = *spares);) {
        *spares = spare->next;
        free(spare);
    }
}

#endif
