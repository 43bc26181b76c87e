/*
 * fault.c - a node with errors, for tests: what a bad or full disk does, when a test wants it
 *
 * "OPERATION:NUMBER[:COUNT[:ERROR]]": the NUMBERth read, write, flush, discard or zero and COUNT in
 * all (1; 0: for ever) fail with ERROR (eio; enospc, enomem), and change nothing. "slow:MS": every
 * operation takes so long. Several are separated by "+".
 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/block/internal.h"

#define OPERATIONS 5u

/* What happens to one kind of operation. */
struct fault {
    uint64_t first, count; /* first 0: nothing */
    int error;
    _Atomic uint64_t seen;
};

struct fault_node {
    struct block_node node;
    struct block_node *below;
    struct fault faults[OPERATIONS];
    uint64_t slow_ms;
};

static struct fault_node *fault_of(struct block_node *node)
{
    return (struct fault_node *)node;
}

/* ---- the description ---- */

static const char *const operations[OPERATIONS] = {[BLOCK_READ] = "read",
                                                   [BLOCK_WRITE] = "write",
                                                   [BLOCK_FLUSH] = "flush",
                                                   [BLOCK_DISCARD] = "discard",
                                                   [BLOCK_ZERO] = "zero"};
static const struct {
    const char *name;
    int error;
} errors[] = {{"eio", EIO}, {"enospc", ENOSPC}, {"enomem", ENOMEM}, {NULL, 0}};

static int parse_number(char **text, uint64_t initial, uint64_t *out, struct error *err)
{
    const char *word = strsep(text, ":");

    *out = initial;
    return word ? property_parse_u64(word, UINT32_MAX, out, err) : 0;
}

static int parse_error(const char *name, int *out, struct error *err)
{
    for (unsigned n = 0; errors[n].name; n++)
        if (!name || strcmp(errors[n].name, name) == 0) {
            *out = errors[n].error;
            return 0;
        }
    return error_set(err, EINVAL, "there is no error '%s' to fail with", name);
}

static int parse_fault(struct fault_node *fault, char *text, struct error *err)
{
    const char *name = strsep(&text, ":");
    struct fault *f = fault->faults;

    if (strcmp(name, "slow") == 0)
        return parse_number(&text, 0, &fault->slow_ms, err);
    while (f < fault->faults + OPERATIONS && strcmp(operations[f - fault->faults], name))
        f++;
    if (f == fault->faults + OPERATIONS)
        return error_set(err, EINVAL, "there is no operation '%s' to fail", name);
    if (parse_number(&text, 1, &f->first, err) || parse_number(&text, 1, &f->count, err))
        return -EINVAL;
    return parse_error(text, &f->error, err);
}

static int parse_all(struct fault_node *fault, const char *text, struct error *err)
{
    char *copy = strdup(text), *rest = copy, *word;
    int result = copy ? 0 : error_set(err, ENOMEM, "out of memory");

    while (!result && (word = strsep(&rest, "+")))
        result = parse_fault(fault, word, err);
    free(copy);
    if (result)
        error_prefix(err, "fault=%s: ", text);
    return result;
}

/* ---- operations ---- */

static void fault_close(struct block_node *node)
{
    block_node_close(fault_of(node)->below);
    free(node);
}

static int fault_execute(struct block_node *node, const struct block_request *request)
{
    struct fault_node *fault = fault_of(node);
    struct fault *f = &fault->faults[request->op];
    const struct timespec time = {.tv_sec = (time_t)(fault->slow_ms / 1000),
                                  .tv_nsec = (long)(fault->slow_ms % 1000 * 1000000)};
    uint64_t number = atomic_fetch_add(&f->seen, 1) + 1;

    if (fault->slow_ms)
        nanosleep(&time, NULL);
    if (f->first && number >= f->first && (!f->count || number - f->first < f->count))
        return -f->error;
    return fault->below->ops->execute(fault->below, request);
}

static int fault_try(struct block_node *node, const struct block_request *request,
                     struct block_later *later)
{
    return -EAGAIN;
}

static int fault_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                     struct block_extent *out_extent)
{
    struct block_node *below = fault_of(node)->below;

    return below->ops->map(below, offset, size_bytes, out_extent);
}

static const struct block_node_ops fault_ops = {
    .name = "fault",
    .close = fault_close,
    .execute = fault_execute,
    .try_execute = fault_try,
    .map = fault_map,
};

struct block_node *block_fault_new(struct block_node *below, const char *text, struct error *err)
{
    struct fault_node *fault = calloc(1, sizeof(*fault));

    if (!fault)
        error_set(err, ENOMEM, "out of memory");
    if (!fault || parse_all(fault, text, err)) {
        free(fault);
        block_node_close(below);
        return NULL;
    }
    fault->node = (struct block_node){.ops = &fault_ops,
                                      .size_bytes = below->size_bytes,
                                      .read_only = below->read_only,
                                      .can_discard = below->can_discard};
    fault->below = below;
    return &fault->node;
}
