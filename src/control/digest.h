/*
 * digest.h - whether two runs are the same, told by a few numbers now and then
 */
#ifndef CONTROL_DIGEST_H
#define CONTROL_DIGEST_H

#include <stdint.h>

#include "trapeze/error.h"
#include "trapeze/machine.h"

struct digest;

/*
 * From virtual time from_ns on, every every_ns (not 0), trace cpu_digest and, if it is on,
 * machine_digest, which reads all RAM. The machine is counted and not started yet; it is borrowed
 * and freed later. NULL without memory.
 */
struct digest *digest_new(struct machine *machine, uint64_t every_ns, uint64_t from_ns,
                          struct error *err);
void digest_free(struct digest *digest); /* NULL is fine */

/* Pause at virtual time at_ns; in a counted run at that very instruction. */
struct digest *digest_pause_at(struct machine *machine, uint64_t at_ns, struct error *err);

#endif
