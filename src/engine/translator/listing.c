/*
 * listing.c - what was translated, for people and for perf
 *
 * The listing has each block with its guest instructions, the host's under each of them. The perf
 * map
 * (/tmp/perf-PID.map) gives perf names for addresses in the code cache. Both go on growing
 * while blocks are made; a block that was dropped stays in them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/translator/builder.h"
#include "trapeze/machine.h"

struct tr_listing {
    FILE *listing, *perf_map; /* NULL: not asked for */
};

static const char *const suffixes[] = {
    [TR_QUICK] = "", [TR_FOLLOWING] = "", [TR_TAIL] = "_tail", [TR_PLAIN] = "_plain"};

static FILE *open_file(const char *path, const char *what, struct error *err)
{
    FILE *file = fopen(path, "w");

    if (file)
        setvbuf(file, NULL, _IOLBF, 0);
    else
        error_set(err, errno, "cannot write the %s to '%s': %s", what, path, strerror(errno));
    return file;
}

int listing_open(struct tr_cache *cache, const struct machine_config *config, struct error *err)
{
    char name[64];

    if (!config->listing && !config->perf_map)
        return 0;
    cache->listing = calloc(1, sizeof(*cache->listing));
    if (!cache->listing)
        return error_set(err, ENOMEM, "no memory for a listing");
    snprintf(name, sizeof(name), "/tmp/perf-%ld.map", (long)getpid());
    if (config->listing && !(cache->listing->listing = open_file(config->listing, "listing", err)))
        return -EIO;
    if (config->perf_map && !(cache->listing->perf_map = open_file(name, "perf map", err)))
        return -EIO;
    return 0;
}

void listing_close(struct tr_cache *cache)
{
    if (!cache->listing)
        return;
    if (cache->listing->listing)
        fclose(cache->listing->listing);
    if (cache->listing->perf_map)
        fclose(cache->listing->perf_map);
    free(cache->listing);
    cache->listing = NULL;
}

static void list_host(FILE *file, const struct tr_builder *b, const uint8_t *from,
                      const uint8_t *to)
{
    while (from < to) {
        char text[96];
        uint64_t address = (uintptr_t)(from + b->e->execute);
        size_t length =
            x86_disassemble(X86_CODE_64, from, (size_t)(to - from), address, text, sizeof(text));

        if (!length)
            return;
        fprintf(file, "        %" PRIx64 "  %s\n", address, text);
        from += length;
    }
}

static void list_block(FILE *file, const struct tr_builder *b, const uint8_t *start,
                       const uint8_t *cold)
{
    fprintf(file, "block %" PRIx64 "%s at %" PRIx64 ", %s\n", b->block->rip, suffixes[b->style],
            b->page->gpa, b->page->kind == TLB_USER ? "user" : "kernel");
    list_host(file, b, start, b->insns[0].host);
    for (unsigned n = 0; n < b->count; n++) {
        const struct tr_insn *ti = &b->insns[n];
        const uint8_t *next = n + 1 < b->count ? b->insns[n + 1].host : cold;
        char text[96];

        x86_disassemble(b->is_32bit ? X86_CODE_32 : X86_CODE_64, ti->insn.bytes,
                        ti->insn.info.length, ti->rip, text, sizeof(text));
        fprintf(file, "    %" PRIx64 "  %s\n", ti->rip, text);
        list_host(file, b, ti->host, next);
    }
    fprintf(file, "    out of line\n");
    list_host(file, b, cold, b->e->at);
}

void listing_block(const struct tr_builder *b, const uint8_t *start, const uint8_t *cold)
{
    const struct tr_listing *l = b->cache->listing;

    for (unsigned n = 0; l->perf_map && n < b->cache->vcpu_count; n++)
        fprintf(l->perf_map, "%" PRIx64 " %zx guest_%" PRIx64 "%s\n",
                (uint64_t)(uintptr_t)(start + b->e->execute) + b->cache->vcpus[n]->distance,
                (size_t)(b->e->at - start), b->block->rip, suffixes[b->style]);
    if (l->listing)
        list_block(l->listing, b, start, cold);
}
