/*
 * memory.h - the guest-physical address space
 *
 * The map is a set of regions with priorities; where two overlap, the higher
 * priority wins. Changes are made inside a transaction, which publishes a new
 * flat view when it ends: a sorted array of ranges that do not overlap. Readers
 * take the current view without a lock and keep it until they put it back.
 *
 * Everything outside the engines reaches guest memory through memory_read,
 * memory_write, memory_pin and memory_unpin only; these mark pages dirty and tell
 * the engines which bytes changed, so that decoded or translated code is dropped.
 */
#ifndef TRAPEZE_MEMORY_H
#define TRAPEZE_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct device;
struct machine;
struct memory;

#define GUEST_PAGE_SIZE 4096u
#define GUEST_PAGE_MASK (~(uint64_t)(GUEST_PAGE_SIZE - 1))

/*
 * Register access of a device region. offset is from the region's start; size
 * is 1, 2, 4 or 8 and within [min_size, max_size], offset a multiple of size:
 * the bus splits and merges other accesses. Called with the machine lock held.
 */
struct region_ops {
    const char *name;
    uint64_t (*read)(struct device *dev, uint64_t offset, unsigned size);
    void (*write)(struct device *dev, uint64_t offset, uint64_t value, unsigned size);
    uint8_t min_size, max_size; /* 0 means 1 and 4 */
};

enum region_kind { REGION_RAM, REGION_ROM, REGION_DEVICE, REGION_ALIAS };

struct region {
    const char *name;
    enum region_kind kind;
    uint64_t gpa;
    uint64_t size_bytes;
    int priority;        /* RAM is 0, devices 1 by default */
    bool cpu_only;       /* RAM: memory_read, memory_write and memory_pin take it for nothing */
    uint8_t *hva;        /* RAM, ROM: the host's mapping */
    uint64_t ram_offset; /* RAM, ROM: position in the machine's RAM file, for dirty bitmaps */
    const struct region_ops *ops; /* DEVICE */
    struct device *dev;           /* DEVICE */
    const struct region *target;  /* ALIAS: shows target from target_offset */
    uint64_t target_offset;
    bool mapped; /* owned by the memory map */
    struct region *next;
};

struct flat_range {
    uint64_t gpa;
    uint64_t size_bytes;
    const struct region *region; /* RAM, ROM or DEVICE; aliases are resolved */
    uint64_t offset;             /* of gpa in the region */
};

struct flat_view {
    size_t count;
    struct flat_range *ranges; /* sorted by gpa */
    _Atomic int64_t balance;   /* references, for memory_map.c */
    unsigned slot;             /* likewise */
};

/*
 * Build the address space with one RAM file of ram_size_bytes (a multiple of the
 * page size, at most 1 TiB). RAM is not mapped anywhere yet: the board adds regions.
 */
struct memory *memory_new(struct machine *machine, uint64_t ram_size_bytes, struct error *err);
void memory_free(struct memory *memory);

uint8_t *memory_ram_hva(struct memory *memory);
uint64_t memory_ram_size_bytes(const struct memory *memory);
int memory_ram_fd(const struct memory *memory); /* the memfd; still owned by memory */

/* Further page-aligned memory behind the RAM (ROM images). Zeroed; freed with memory. */
uint8_t *memory_add_block(struct memory *memory, uint64_t size_bytes, uint64_t *out_ram_offset,
                          struct error *err);

/*
 * Regions stay owned by the caller and must outlive their mapping; a name, too. Of two
 * with the same priority the one mapped later wins. Transactions nest. A change
 * outside a transaction is one by itself. Machine lock held.
 */
void memory_begin(struct memory *memory);
int memory_map(struct memory *memory, struct region *region, struct error *err);
void memory_unmap(struct memory *memory, struct region *region);
/* On failure (-ENOMEM, -EBUSY) the old view stays current. */
int memory_commit(struct memory *memory, struct error *err);

/* The current view; never NULL. Balanced by memory_view_put. Any thread. */
const struct flat_view *memory_view_get(struct memory *memory);
void memory_view_put(struct memory *memory, const struct flat_view *view);
/* The range that holds gpa, or NULL where nothing is mapped. */
const struct flat_range *flat_view_find(const struct flat_view *view, uint64_t gpa);

/*
 * Copy bytes from or to guest memory; RAM and (read only) ROM. A part that is
 * neither reads as 0xff and ignores writes, and -EFAULT is returned. Any thread.
 */
int memory_read(struct memory *memory, uint64_t gpa, void *out, size_t size_bytes);
int memory_write(struct memory *memory, uint64_t gpa, const void *data, size_t size_bytes);
/* As memory_write, but ROM too: for loaders before the first reset. */
int memory_load(struct memory *memory, uint64_t gpa, const void *data, size_t size_bytes);

/*
 * A direct pointer to size_bytes of RAM at gpa, or NULL if that is not all one RAM
 * range. It stays valid until memory_unpin, which gets it back and says how many
 * bytes from the start were written (0 for reads). Any thread.
 */
void *memory_pin(struct memory *memory, uint64_t gpa, size_t size_bytes);
void memory_unpin(struct memory *memory, void *hva, size_t written_bytes);
/*
 * Give what hva, a pin, has of whole pages back to the host: they are zero from now on, and take
 * memory again when they are used. Any thread.
 */
int memory_discard(struct memory *memory, void *hva, size_t size_bytes, struct error *err);
uint64_t memory_used_bytes(const struct memory *memory); /* what RAM and blocks take of the host */

/* Dirty pages of the RAM file since the last fetch, one bit a page. Off until started. */
int memory_dirty_start(struct memory *memory, struct error *err);
void memory_dirty_stop(struct memory *memory);
bool memory_dirty_enabled(const struct memory *memory);
void memory_dirty_mark(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes);
/* Copy and clear the bitmap of pages [first, first+count) into bits (count/8 rounded up bytes). */
void memory_dirty_fetch(struct memory *memory, uint64_t first_page, uint64_t count, uint8_t *bits);

/*
 * Watched pages, for what is drawn from memory of memory_add_block: which of them were written
 * since the last fetch. Costs a vCPU one slow write a page and fetch. Machine lock held; a page
 * has one watcher. ram_offset and size_bytes: whole pages.
 */
void memory_watch_start(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes);
void memory_watch_stop(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes);
/*
 * Set bits (one a page; size_bytes / GUEST_PAGE_SIZE of them, whole words) of pages that may
 * have been written; the first time all. Returns whether there is one. Pages that were written
 * are in two fetches or more, until no vCPU writes to them unseen. Read them after the fetch.
 */
bool memory_watch_fetch(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes,
                        uint64_t *bits);
/*
 * For engines: may a page (ram_offset in it) be written without memory_dirty_mark()? False for one
 * that is watched and was not written since the last fetch. Any thread.
 */
bool memory_watch_allows(const struct memory *memory, uint64_t ram_offset);

#endif
