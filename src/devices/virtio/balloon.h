/*
 * balloon.h - what the host asks of a memory balloon
 *
 * Sizes are of the memory that the guest is left with, in bytes. Machine lock held.
 */
#ifndef DEVICES_VIRTIO_BALLOON_H
#define DEVICES_VIRTIO_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct machine;

/* The machine's first balloon, or NULL. */
struct device *balloon_find(struct machine *machine);

/* How much the guest shall keep; it gives the rest up as fast as it can. More than there is: all.
 */
void balloon_set_target(struct device *dev, uint64_t memory_bytes);
uint64_t balloon_target(struct device *dev);
uint64_t balloon_memory(struct device *dev); /* what it has now, as it says */

/* Ask for new statistics, which come a little later; false: no driver gives any, or not now. */
bool balloon_ask(struct device *dev);
/* One call of put for each number that the guest gave last. */
void balloon_statistics(struct device *dev,
                        void (*put)(void *opaque, const char *name, uint64_t value), void *opaque);
/* Call changed when statistics have come, or the memory has changed. NULL: nothing. */
void balloon_observe(struct device *dev, void (*changed)(void *opaque), void *opaque);

#endif
