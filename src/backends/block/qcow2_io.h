/*
 * qcow2_io.h - the operations of qcow2 nodes
 */
#ifndef BACKENDS_BLOCK_QCOW2_IO_H
#define BACKENDS_BLOCK_QCOW2_IO_H

#include "backends/block/qcow2_internal.h"

int qcow2_execute(struct block_node *node, const struct block_request *request);
int qcow2_try_execute(struct block_node *node, const struct block_request *request,
                      struct block_later *later);
int qcow2_node_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                   struct block_extent *out_extent);
int qcow2_flush(struct qcow2 *q);
/* Whole clusters are nobody's from now on: what is below shows. */
int qcow2_forget(struct qcow2 *q, uint64_t offset, uint64_t end);

#endif
