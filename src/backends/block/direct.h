/*
 * direct.h - reading and writing past the host's page cache (O_DIRECT)
 *
 * Disks take whole blocks from memory that begins at certain addresses. What does not fit is copied
 * by way of a buffer, and blocks that are written in part are read before.
 */
#ifndef BACKENDS_BLOCK_DIRECT_H
#define BACKENDS_BLOCK_DIRECT_H

#include <pthread.h>

#include "backends/block/internal.h"

struct direct {
    uint32_t block_bytes, memory_bytes; /* powers of two */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned writers; /* of whole blocks */
    unsigned waiting; /* who want to be alone; no new writers */
    bool is_alone;    /* somebody writes a part of a block */
};

/* What fd, opened with O_DIRECT, wants. */
void direct_init(struct direct *direct, int fd);
void direct_done(struct direct *direct);
/* READ or WRITE: can it be handed to the system as it is? */
bool direct_fits(const struct direct *direct, const struct block_request *request);
/*
 * Around each write that fits, and whatever else changes whole blocks: none of them gets lost
 * between reading and writing a block that is written in part. may_wait false: may fail.
 */
bool direct_enter(struct direct *direct, bool may_wait);
void direct_leave(struct direct *direct);
/* READ or WRITE of anything. Behind the end of a container are zeros. */
int direct_copy(struct direct *direct, int fd, const struct block_request *request,
                bool is_container);

#endif
