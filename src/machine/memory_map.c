/*
 * memory_map.c - regions, priorities, published flat view, dirty pages
 *
 * Theory of operation. memory_commit() paints the regions into a new sorted array,
 * highest priority first, so that each only fills gaps that are left, and publishes it.
 *
 * Readers. `current` is one 64-bit word: the slot of the current view in its
 * upper byte and, below, how many references were taken on it since it was published.
 * memory_view_get() is one atomic add: it learns the slot and takes a reference in
 * the same step, so the view cannot be freed in between. Publishing exchanges the word
 * and adds the number of references taken to the old view's balance, from which each
 * memory_view_put() subtracts one; who brings the balance to zero frees the view. While
 * a view is current its balance is zero or negative, so a put cannot free it.
 *
 * RAM is one file, with address space behind it reserved for ROMs. Both are mapped
 * once and never move. Guest memory is shared with vCPUs that access it at the same
 * time, as on a real machine; aligned 1, 2, 4 and 8 byte copies are single accesses.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/guest_ram.h"
#include "base/log.h"
#include "machine/machine_internal.h"
#include "trapeze/memory.h"

#define RAM_BYTES_MAX     (1ull << 40)
#define BLOCK_SPACE_BYTES (256ull << 20) /* for memory_add_block, costs nothing until used */
#define BLOCK_WORDS       (BLOCK_SPACE_BYTES / GUEST_PAGE_SIZE / 64)
#define PHYSICAL_BITS     52
#define ALIAS_DEPTH_MAX   8

#define SLOT_SHIFT        56
#define SLOT_COUNT        256u
#define TAKEN_MASK        ((1ull << SLOT_SHIFT) - 1)

struct memory {
    struct machine *machine;
    struct host_memory host;
    uint64_t ram_bytes, block_bytes; /* used of the file: RAM, then blocks */

    struct region *regions; /* highest priority first, among equals the latest first */
    unsigned depth;         /* of nested transactions */
    bool changed;

    _Atomic uint64_t current;
    struct flat_view *_Atomic slots[SLOT_COUNT];

    _Atomic bool dirty_on;
    _Atomic uint64_t *dirty; /* one bit a page of the whole file; kept once allocated */

    /* One bit a page behind the RAM. */
    _Atomic uint64_t watched[BLOCK_WORDS];
    _Atomic uint64_t touched[BLOCK_WORDS]; /* written since the last fetch */
    uint64_t unsettled[BLOCK_WORDS];       /* a vCPU may still write to it unseen */
};

/* ---- building a view ---- */

struct painter {
    struct flat_range *ranges;
    size_t count, capacity;
};

static int painter_insert(struct painter *painter, size_t at, const struct flat_range *range)
{
    if (painter->count == painter->capacity) {
        size_t capacity = painter->capacity ? 2 * painter->capacity : 32;
        struct flat_range *ranges = realloc(painter->ranges, capacity * sizeof(*ranges));

        if (!ranges)
            return -ENOMEM;
        painter->ranges = ranges;
        painter->capacity = capacity;
    }
    memmove(&painter->ranges[at + 1], &painter->ranges[at],
            (painter->count - at) * sizeof(*painter->ranges));
    painter->ranges[at] = *range;
    painter->count++;
    return 0;
}

/* Fill what is still free of [gpa, gpa+size) with region from offset on. */
static int paint(struct painter *painter, uint64_t gpa, uint64_t size_bytes,
                 const struct region *region, uint64_t offset)
{
    uint64_t at = gpa, end = gpa + size_bytes;
    size_t i = 0;

    while (at < end) {
        uint64_t gap_end = end;

        while (i < painter->count && painter->ranges[i].gpa + painter->ranges[i].size_bytes <= at)
            i++;
        if (i < painter->count && painter->ranges[i].gpa <= at) {
            at = painter->ranges[i].gpa + painter->ranges[i].size_bytes;
            continue;
        }
        if (i < painter->count && painter->ranges[i].gpa < end)
            gap_end = painter->ranges[i].gpa;
        if (painter_insert(painter, i,
                           &(struct flat_range){.gpa = at,
                                                .size_bytes = gap_end - at,
                                                .region = region,
                                                .offset = offset + (at - gpa)}))
            return -ENOMEM;
        at = gap_end;
    }
    return 0;
}

/* Follow aliases to what is really there; false if nothing is. *size_bytes shrinks to fit. */
static bool resolve(const struct region **region, uint64_t *offset, uint64_t *size_bytes)
{
    for (int depth = 0; (*region)->kind == REGION_ALIAS; depth++) {
        const struct region *target = (*region)->target;

        if (depth == ALIAS_DEPTH_MAX || !target ||
            __builtin_add_overflow(*offset, (*region)->target_offset, offset) ||
            *offset >= target->size_bytes)
            return false;
        if (*size_bytes > target->size_bytes - *offset)
            *size_bytes = target->size_bytes - *offset;
        *region = target;
    }
    return true;
}

static int paint_region(struct painter *painter, const struct region *mapped)
{
    const struct region *region = mapped;
    uint64_t offset = 0, size_bytes = mapped->size_bytes;

    if (!resolve(&region, &offset, &size_bytes))
        return 0;
    return paint(painter, mapped->gpa, size_bytes, region, offset);
}

/* Join neighbours that show consecutive parts of one region. */
static void merge(struct painter *painter)
{
    size_t kept = 0;

    for (size_t i = 1; i < painter->count; i++) {
        struct flat_range *last = &painter->ranges[kept];
        const struct flat_range *next = &painter->ranges[i];

        if (next->region == last->region && next->gpa == last->gpa + last->size_bytes &&
            next->offset == last->offset + last->size_bytes)
            last->size_bytes += next->size_bytes;
        else
            painter->ranges[++kept] = *next;
    }
    if (painter->count)
        painter->count = kept + 1;
}

static void view_free(struct flat_view *view)
{
    if (!view)
        return;
    free(view->ranges);
    free(view);
}

static struct flat_view *view_build(const struct memory *memory)
{
    struct flat_view *view = calloc(1, sizeof(*view));
    struct painter painter = {0};

    if (!view)
        return NULL;
    for (const struct region *region = memory->regions; region; region = region->next) {
        if (paint_region(&painter, region)) {
            free(painter.ranges);
            free(view);
            return NULL;
        }
    }
    merge(&painter);
    view->ranges = painter.ranges;
    view->count = painter.count;
    return view;
}

/* ---- publishing and reading ---- */

static void view_release(struct memory *memory, struct flat_view *view, int64_t taken)
{
    if (atomic_fetch_add(&view->balance, taken) + taken != 0)
        return;
    atomic_store(&memory->slots[view->slot], NULL);
    view_free(view);
}

/* The machine lock serialises publishers. */
static int publish(struct memory *memory, struct flat_view *view)
{
    unsigned slot = 0;
    uint64_t old;

    while (slot < SLOT_COUNT && atomic_load(&memory->slots[slot]))
        slot++;
    if (slot == SLOT_COUNT)
        return -EBUSY;
    view->slot = slot;
    atomic_store(&memory->slots[slot], view);
    old = atomic_exchange(&memory->current, (uint64_t)slot << SLOT_SHIFT);
    view = atomic_load(&memory->slots[old >> SLOT_SHIFT]);
    view_release(memory, view, (int64_t)(old & TAKEN_MASK));
    return 0;
}

const struct flat_view *memory_view_get(struct memory *memory)
{
    uint64_t current = atomic_fetch_add(&memory->current, 1);

    return atomic_load(&memory->slots[current >> SLOT_SHIFT]);
}

void memory_view_put(struct memory *memory, const struct flat_view *view)
{
    view_release(memory, (struct flat_view *)(uintptr_t)view, -1);
}

const struct flat_range *flat_view_find(const struct flat_view *view, uint64_t gpa)
{
    size_t low = 0, high = view->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct flat_range *range = &view->ranges[middle];

        if (gpa < range->gpa)
            high = middle;
        else if (gpa - range->gpa >= range->size_bytes)
            low = middle + 1;
        else
            return range;
    }
    return NULL;
}

/* ---- life ---- */

struct memory *memory_new(struct machine *machine, uint64_t ram_size_bytes, struct error *err)
{
    struct memory *memory;
    struct flat_view *view;

    if (ram_size_bytes % GUEST_PAGE_SIZE || ram_size_bytes > RAM_BYTES_MAX) {
        error_set(err, EINVAL, "%" PRIu64 " bytes of RAM are not whole pages up to 1 TiB",
                  ram_size_bytes);
        return NULL;
    }
    memory = calloc(1, sizeof(*memory));
    view = calloc(1, sizeof(*view));
    if (!memory || !view) {
        error_set(err, ENOMEM, "out of memory");
        free(memory);
        free(view);
        return NULL;
    }
    memory->machine = machine;
    memory->ram_bytes = ram_size_bytes;
    atomic_init(&memory->slots[0], view);
    if (host_memory_new(&memory->host, "trapeze-ram", ram_size_bytes + BLOCK_SPACE_BYTES, err)) {
        error_prefix(err, "guest RAM: ");
        memory_free(memory);
        return NULL;
    }
    return memory;
}

void memory_free(struct memory *memory)
{
    if (!memory)
        return;
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
        view_free(atomic_load(&memory->slots[slot]));
    host_memory_free(&memory->host);
    free(memory->dirty);
    free(memory);
}

uint8_t *memory_ram_hva(struct memory *memory)
{
    return memory->host.hva;
}

uint64_t memory_ram_size_bytes(const struct memory *memory)
{
    return memory->ram_bytes;
}

int memory_ram_fd(const struct memory *memory)
{
    return memory->host.fd;
}

uint8_t *memory_add_block(struct memory *memory, uint64_t size_bytes, uint64_t *out_ram_offset,
                          struct error *err)
{
    uint64_t rounded = (size_bytes + GUEST_PAGE_SIZE - 1) & GUEST_PAGE_MASK;
    uint64_t offset = memory->ram_bytes + memory->block_bytes;

    if (size_bytes == 0 || size_bytes > BLOCK_SPACE_BYTES ||
        rounded > BLOCK_SPACE_BYTES - memory->block_bytes) {
        error_set(err, ENOSPC, "no room for a memory block of %" PRIu64 " bytes", size_bytes);
        return NULL;
    }
    memory->block_bytes += rounded;
    *out_ram_offset = offset;
    return memory->host.hva + offset;
}

/* ---- changing the map ---- */

/* Memory regions are whole pages of the machine's RAM file. */
static bool in_file(const struct memory *memory, const struct region *region)
{
    return (region->gpa | region->size_bytes | region->ram_offset) % GUEST_PAGE_SIZE == 0 &&
           region->ram_offset < memory->host.size_bytes &&
           region->size_bytes <= memory->host.size_bytes - region->ram_offset &&
           region->hva == memory->host.hva + region->ram_offset;
}

static int check_region(const struct memory *memory, const struct region *region, struct error *err)
{
    const struct region *shown = region;
    uint64_t end, offset = 0, size_bytes = region->size_bytes;
    bool paged = resolve(&shown, &offset, &size_bytes) &&
                 (shown->kind == REGION_RAM || shown->kind == REGION_ROM);

    if (!region->size_bytes || __builtin_add_overflow(region->gpa, region->size_bytes, &end) ||
        end > 1ull << PHYSICAL_BITS)
        return error_set(err, EINVAL,
                         "region '%s' at 0x%" PRIx64 " size 0x%" PRIx64
                         " is not within the address space",
                         region->name, region->gpa, region->size_bytes);
    if (paged && !in_file(memory, shown))
        return error_set(err, EINVAL,
                         "memory region '%s' at 0x%" PRIx64 " is not whole pages of the RAM file",
                         shown->name, shown->gpa);
    if (shown->kind == REGION_DEVICE && (!shown->ops || !shown->dev))
        return error_set(err, EINVAL, "device region '%s' has no device", shown->name);
    return 0;
}

void memory_begin(struct memory *memory)
{
    memory->depth++;
}

static void unlink_region(struct memory *memory, struct region *region)
{
    struct region **link = &memory->regions;

    while (*link != region)
        link = &(*link)->next;
    *link = region->next;
    region->next = NULL;
    region->mapped = false;
    memory->changed = true;
}

int memory_map(struct memory *memory, struct region *region, struct error *err)
{
    struct region **link = &memory->regions;
    int ret = check_region(memory, region, err);

    if (ret)
        return ret;
    if (region->mapped)
        return error_set(err, EBUSY, "region '%s' is mapped already", region->name);
    while (*link && (*link)->priority > region->priority)
        link = &(*link)->next;
    region->next = *link;
    *link = region;
    region->mapped = true;
    memory->changed = true;
    if (memory->depth)
        return 0;
    memory->depth++;
    ret = memory_commit(memory, err);
    if (ret)
        unlink_region(memory, region);
    return ret;
}

void memory_unmap(struct memory *memory, struct region *region)
{
    struct error err = {0};

    if (!region->mapped)
        return;
    unlink_region(memory, region);
    if (memory->depth)
        return;
    memory->depth++;
    if (memory_commit(memory, &err)) { /* the old view would show a region that is gone */
        log_error("cannot unmap '%s': %s", region->name, err.text);
        abort();
    }
}

int memory_commit(struct memory *memory, struct error *err)
{
    struct flat_view *view;
    int ret;

    assert(memory->depth);
    if (--memory->depth || !memory->changed)
        return 0;
    view = view_build(memory);
    if (!view)
        return error_set(err, ENOMEM, "out of memory for the memory map");
    ret = publish(memory, view);
    if (ret) {
        view_free(view);
        return error_set(err, -ret, "too many old memory maps are still in use");
    }
    memory->changed = false;
    machine_memory_changed(memory->machine);
    return 0;
}

/* ---- copying ---- */

static bool both_aligned(const void *a, const void *b, size_t size_bytes)
{
    return (((uintptr_t)a | (uintptr_t)b) & (size_bytes - 1)) == 0;
}

/* A driver's aligned index must not be seen half written. */
static void copy_ram(void *to, const void *from, size_t size_bytes)
{
    if (size_bytes == 8 && both_aligned(to, from, 8))
        ram_atomic_store64(to, ram_atomic_load64(from));
    else if (size_bytes == 4 && both_aligned(to, from, 4))
        ram_atomic_store32(to, ram_atomic_load32(from));
    else if (size_bytes == 2 && both_aligned(to, from, 2))
        ram_atomic_store16(to, ram_atomic_load16(from));
    else
        ram_copy(to, from, size_bytes);
}

/* For what is not a processor. */
static bool is_ram(const struct flat_range *range)
{
    return range && range->region->kind == REGION_RAM && !range->region->cpu_only;
}

static bool is_memory(const struct flat_range *range)
{
    return is_ram(range) || (range && range->region->kind == REGION_ROM);
}

/* Bytes from gpa on that one range (or one gap, range NULL) covers, at most size_bytes. */
static size_t piece_size(const struct flat_view *view, const struct flat_range *range, uint64_t gpa,
                         size_t size_bytes)
{
    uint64_t left = UINT64_MAX - gpa;

    if (range) {
        left = range->gpa + range->size_bytes - gpa;
    } else {
        for (size_t i = 0; i < view->count; i++) {
            if (view->ranges[i].gpa > gpa) {
                left = view->ranges[i].gpa - gpa;
                break;
            }
        }
    }
    if (left == 0) /* the last byte of the address space */
        left = 1;
    return left < size_bytes ? (size_t)left : size_bytes;
}

int memory_read(struct memory *memory, uint64_t gpa, void *out, size_t size_bytes)
{
    const struct flat_view *view = memory_view_get(memory);
    uint8_t *to = out;
    int ret = 0;

    while (size_bytes) {
        const struct flat_range *range = flat_view_find(view, gpa);
        size_t piece = piece_size(view, range, gpa, size_bytes);

        if (is_memory(range)) {
            copy_ram(to, range->region->hva + range->offset + (gpa - range->gpa), piece);
        } else {
            memset(to, 0xff, piece);
            ret = -EFAULT;
        }
        to += piece;
        gpa += piece;
        size_bytes -= piece;
    }
    memory_view_put(memory, view);
    return ret;
}

static void written(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes)
{
    memory_dirty_mark(memory, ram_offset, size_bytes);
    machine_memory_written(memory->machine, ram_offset, size_bytes);
}

static int write_bytes(struct memory *memory, uint64_t gpa, const void *data, size_t size_bytes,
                       bool rom_too)
{
    const struct flat_view *view = memory_view_get(memory);
    const uint8_t *from = data;
    int ret = 0;

    while (size_bytes) {
        const struct flat_range *range = flat_view_find(view, gpa);
        size_t piece = piece_size(view, range, gpa, size_bytes);

        if (rom_too ? is_memory(range) : is_ram(range)) {
            uint64_t offset = range->offset + (gpa - range->gpa);

            copy_ram(range->region->hva + offset, from, piece);
            written(memory, range->region->ram_offset + offset, piece);
        } else {
            ret = -EFAULT;
        }
        from += piece;
        gpa += piece;
        size_bytes -= piece;
    }
    memory_view_put(memory, view);
    return ret;
}

int memory_write(struct memory *memory, uint64_t gpa, const void *data, size_t size_bytes)
{
    return write_bytes(memory, gpa, data, size_bytes, false);
}

int memory_load(struct memory *memory, uint64_t gpa, const void *data, size_t size_bytes)
{
    return write_bytes(memory, gpa, data, size_bytes, true);
}

void *memory_pin(struct memory *memory, uint64_t gpa, size_t size_bytes)
{
    const struct flat_view *view = memory_view_get(memory);
    const struct flat_range *range = flat_view_find(view, gpa);
    void *hva = NULL;

    /* RAM never moves, so the pointer outlives the view. */
    if (is_ram(range) && size_bytes <= range->size_bytes - (gpa - range->gpa))
        hva = range->region->hva + range->offset + (gpa - range->gpa);
    memory_view_put(memory, view);
    return hva;
}

void memory_unpin(struct memory *memory, void *hva, size_t written_bytes)
{
    uint64_t ram_offset = (uint64_t)((uint8_t *)hva - memory->host.hva);

    if (written_bytes)
        written(memory, ram_offset, written_bytes);
}

int memory_discard(struct memory *memory, void *hva, size_t size_bytes, struct error *err)
{
    uint64_t ram_offset = (uint64_t)((uint8_t *)hva - memory->host.hva);
    uint64_t first = (ram_offset + GUEST_PAGE_SIZE - 1) & GUEST_PAGE_MASK;
    uint64_t end = (ram_offset + size_bytes) & GUEST_PAGE_MASK;
    int result;

    if (end <= first)
        return 0;
    result = host_memory_discard(&memory->host, first, end - first, err);
    if (!result)
        written(memory, first, end - first);
    return result;
}

uint64_t memory_used_bytes(const struct memory *memory)
{
    return host_memory_used_bytes(&memory->host);
}

/* ---- dirty pages ---- */

static uint64_t page_count(const struct memory *memory)
{
    return memory->host.size_bytes / GUEST_PAGE_SIZE;
}

int memory_dirty_start(struct memory *memory, struct error *err)
{
    uint64_t words = (page_count(memory) + 63) / 64;

    if (!memory->dirty)
        memory->dirty = calloc(words, sizeof(*memory->dirty));
    if (!memory->dirty)
        return error_set(err, ENOMEM, "out of memory for the bitmap of dirty pages");
    for (uint64_t word = 0; word < words; word++)
        atomic_store_explicit(&memory->dirty[word], 0, memory_order_relaxed);
    atomic_store(&memory->dirty_on, true); /* pairs with the acquire in memory_dirty_mark */
    machine_dirty_tracking(memory->machine, true);
    return 0;
}

void memory_dirty_stop(struct memory *memory)
{
    machine_dirty_tracking(memory->machine, false);
    atomic_store(&memory->dirty_on, false);
}

bool memory_dirty_enabled(const struct memory *memory)
{
    return atomic_load_explicit(&memory->dirty_on, memory_order_acquire);
}

/* As in memory_dirty_mark: set even if it is set. */
static void touch(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes)
{
    uint64_t first = (ram_offset - memory->ram_bytes) / GUEST_PAGE_SIZE;
    uint64_t last = (ram_offset + size_bytes - 1 - memory->ram_bytes) / GUEST_PAGE_SIZE;

    for (uint64_t page = first; page <= last; page++)
        if (atomic_load_explicit(&memory->watched[page / 64], memory_order_relaxed) >> page % 64 &
            1)
            atomic_fetch_or(&memory->touched[page / 64], 1ull << page % 64);
}

void memory_dirty_mark(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes)
{
    uint64_t last;

    if (!size_bytes)
        return;
    if (ram_offset >= memory->ram_bytes)
        touch(memory, ram_offset, size_bytes);
    if (!memory_dirty_enabled(memory))
        return;
    assert(ram_offset < memory->host.size_bytes &&
           size_bytes <= memory->host.size_bytes - ram_offset);
    last = (ram_offset + size_bytes - 1) / GUEST_PAGE_SIZE;
    /*
     * Set even if it is set: the read-modify-write makes the data visible before the bit is
     * seen, so who clears the bit copies a page with the data in it.
     */
    for (uint64_t page = ram_offset / GUEST_PAGE_SIZE; page <= last; page++)
        atomic_fetch_or(&memory->dirty[page / 64], 1ull << page % 64);
}

void memory_dirty_fetch(struct memory *memory, uint64_t first_page, uint64_t count, uint8_t *bits)
{
    memset(bits, 0, (count + 7) / 8);
    if (!memory->dirty)
        return;
    for (uint64_t i = 0; i < count && first_page + i < page_count(memory); i++) {
        uint64_t page = first_page + i, bit = 1ull << page % 64;

        if (!(atomic_load_explicit(&memory->dirty[page / 64], memory_order_relaxed) & bit))
            continue;
        atomic_fetch_and(&memory->dirty[page / 64], ~bit);
        bits[i / 8] |= (uint8_t)(1u << i % 8);
    }
}

/* ---- watched pages ---- */

struct watch_range {
    uint64_t first, count; /* pages behind the RAM */
};

static struct watch_range watch_range(const struct memory *memory, uint64_t ram_offset,
                                      uint64_t size_bytes)
{
    assert(ram_offset >= memory->ram_bytes && ram_offset % GUEST_PAGE_SIZE == 0 &&
           ram_offset - memory->ram_bytes + size_bytes <= BLOCK_SPACE_BYTES);
    return (struct watch_range){.first = (ram_offset - memory->ram_bytes) / GUEST_PAGE_SIZE,
                                .count = size_bytes / GUEST_PAGE_SIZE};
}

void memory_watch_start(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes)
{
    struct watch_range r = watch_range(memory, ram_offset, size_bytes);

    for (uint64_t page = r.first; page < r.first + r.count; page++) {
        atomic_fetch_or(&memory->touched[page / 64], 1ull << page % 64);
        atomic_fetch_or(&memory->watched[page / 64], 1ull << page % 64);
    }
}

void memory_watch_stop(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes)
{
    struct watch_range r = watch_range(memory, ram_offset, size_bytes);

    for (uint64_t page = r.first; page < r.first + r.count; page++) {
        atomic_fetch_and(&memory->watched[page / 64], ~(1ull << page % 64));
        atomic_fetch_and(&memory->touched[page / 64], ~(1ull << page % 64));
        memory->unsettled[page / 64] &= ~(1ull << page % 64);
    }
}

/*
 * A vCPU writes unseen to a page that is touched, and goes on with that until it has heard that it
 * no longer is. What it writes in between is in no bit: so the page is unsettled, and fetched
 * once more when all have heard. (Waiting for them here might be for one that waits for us.)
 */
bool memory_watch_fetch(struct memory *memory, uint64_t ram_offset, uint64_t size_bytes,
                        uint64_t *bits)
{
    struct watch_range r = watch_range(memory, ram_offset, size_bytes);
    bool settled = machine_watch_settled(memory->machine), any = false, again = false;

    memset(bits, 0, (r.count + 63) / 64 * sizeof(*bits));
    for (uint64_t i = 0; i < r.count; i++) {
        uint64_t page = r.first + i, bit = 1ull << page % 64, word = page / 64;
        bool was_unsettled = memory->unsettled[word] & bit, was_touched = false;

        if (bit == 1 && !memory->unsettled[word] &&
            !atomic_load_explicit(&memory->touched[word], memory_order_relaxed)) {
            i += 63; /* mostly nothing has happened */
            continue;
        }
        if (atomic_load_explicit(&memory->touched[word], memory_order_relaxed) & bit)
            was_touched = atomic_fetch_and(&memory->touched[word], ~bit) & bit;
        if (!was_touched && !was_unsettled)
            continue;
        bits[i / 64] |= 1ull << i % 64;
        any = true;
        again |= was_touched;
        if (was_touched)
            memory->unsettled[word] |= bit;
        else if (settled)
            memory->unsettled[word] &= ~bit;
    }
    if (again)
        machine_watch_again(memory->machine);
    return any;
}

bool memory_watch_allows(const struct memory *memory, uint64_t ram_offset)
{
    uint64_t page, bit;

    if (ram_offset < memory->ram_bytes)
        return true;
    page = (ram_offset - memory->ram_bytes) / GUEST_PAGE_SIZE;
    bit = 1ull << page % 64;
    return !(atomic_load(&memory->watched[page / 64]) & bit) ||
           (atomic_load(&memory->touched[page / 64]) & bit);
}
