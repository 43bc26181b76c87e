/*
 * memory_file.h - a file in memory for tests of image formats, which can note what is done to it
 */
#ifndef MEMORY_FILE_H
#define MEMORY_FILE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/block/internal.h"

/* What was done: a write (with its data), a hole, or a barrier (size 0). */
struct memory_event {
    uint64_t offset;
    size_t size_bytes;
    uint8_t *data; /* NULL: a hole or a barrier */
};

struct memory_file {
    struct block_node node;
    uint8_t *data;
    size_t length, max_bytes; /* writes behind max_bytes fail */
    bool is_noted, is_kept;   /* kept: close() does nothing */
    struct memory_event *events;
    size_t event_count;
    unsigned fail_in; /* writes until one fails; 0: none does */
};

static inline void memory_note(struct memory_file *file, uint64_t offset, const uint8_t *data,
                               size_t size_bytes)
{
    struct memory_event *event;

    if (!file->is_noted)
        return;
    if ((file->event_count & (file->event_count - 1)) == 0)
        file->events = realloc(file->events, 2 * (file->event_count + 1) * sizeof(*file->events));
    event = &file->events[file->event_count++];
    *event = (struct memory_event){.offset = offset, .size_bytes = size_bytes};
    if (data) {
        event->data = malloc(size_bytes);
        memcpy(event->data, data, size_bytes);
    }
}

static inline int memory_extend(struct memory_file *file, uint64_t end)
{
    if (end > file->max_bytes)
        return -ENOSPC;
    if (end <= file->length)
        return 0;
    file->data = realloc(file->data, end);
    memset(file->data + file->length, 0, end - file->length);
    file->length = end;
    return 0;
}

static inline int memory_move(struct memory_file *file, const struct block_request *request)
{
    uint64_t offset = request->offset;

    if (request->op == BLOCK_WRITE) {
        if (file->fail_in && --file->fail_in == 0)
            return -EIO;
        if (offset > file->max_bytes || memory_extend(file, offset + request->size_bytes))
            return -ENOSPC;
    }
    for (unsigned n = 0; n < request->piece_count; n++) {
        uint8_t *data = request->pieces[n].data;
        size_t size = request->pieces[n].size_bytes;
        size_t there = offset >= file->length         ? 0
                       : size < file->length - offset ? size
                                                      : file->length - offset;

        if (request->op == BLOCK_WRITE) {
            memcpy(file->data + offset, data, size);
            memory_note(file, offset, data, size);
        } else {
            if (there)
                memcpy(data, file->data + offset, there);
            memset(data + there, 0, size - there);
        }
        offset += size;
    }
    return 0;
}

static inline int memory_execute(struct block_node *node, const struct block_request *request)
{
    struct memory_file *file = (struct memory_file *)node;
    size_t size = request->size_bytes;

    switch (request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return memory_move(file, request);
    case BLOCK_FLUSH:
        memory_note(file, 0, NULL, 0);
        return 0;
    default:
        if (request->offset >= file->length)
            return 0;
        if (size > file->length - request->offset)
            size = file->length - request->offset;
        memset(file->data + request->offset, 0, size);
        memory_note(file, request->offset, NULL, size);
        return 0;
    }
}

static inline int memory_try(struct block_node *node, const struct block_request *request,
                             struct block_later *later)
{
    (void)later;
    return memory_execute(node, request);
}

static inline int memory_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                             struct block_extent *out_extent)
{
    (void)node;
    (void)offset;
    *out_extent = (struct block_extent){.size_bytes = size_bytes};
    return 0;
}

static inline int memory_length(struct block_node *node, uint64_t *out_bytes)
{
    *out_bytes = ((struct memory_file *)node)->length;
    return 0;
}

static inline int memory_set_length(struct block_node *node, uint64_t size_bytes)
{
    struct memory_file *file = (struct memory_file *)node;

    if (size_bytes < file->length)
        file->length = size_bytes;
    return memory_extend(file, size_bytes);
}

static inline void memory_free(struct memory_file *file)
{
    for (size_t n = 0; n < file->event_count; n++)
        free(file->events[n].data);
    free(file->events);
    free(file->data);
    free(file);
}

static inline void memory_close(struct block_node *node)
{
    struct memory_file *file = (struct memory_file *)node;

    if (!file->is_kept)
        memory_free(file);
}

static const struct block_node_ops memory_ops = {
    .name = "memory",
    .close = memory_close,
    .execute = memory_execute,
    .try_execute = memory_try,
    .map = memory_map,
    .length = memory_length,
    .set_length = memory_set_length,
};

/* A copy of data; freed when it is closed, or if it is kept by memory_free(). */
static inline struct memory_file *memory_new(const void *data, size_t length, size_t max_bytes)
{
    struct memory_file *file = calloc(1, sizeof(*file));

    file->node = (struct block_node){
        .ops = &memory_ops, .size_bytes = length & ~511ull, .can_discard = true};
    file->max_bytes = max_bytes;
    file->data = malloc(length ? length : 1);
    file->length = length;
    if (length)
        memcpy(file->data, data, length);
    return file;
}

#endif
