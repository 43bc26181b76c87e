/*
 * fuzz_bus.c - a changing map of ports and memory, and accesses of all sizes to it
 *
 * A model of the map says for every byte who answers there; the bus works with ranges,
 * pieces and merged accesses. Claims:
 * - what is read is, byte by byte, what the model has there, and all ones where nothing is;
 * - what is written is all there afterwards, in order, and nothing else is;
 * - a device sees only aligned accesses of its sizes inside its region;
 * - the map takes what is valid and nothing else, and a change shows only after the commit;
 * - the flat view is sorted and without overlaps; old views stay whole until they are put back;
 * - the dirty pages are those that were written.
 */
#include <errno.h>

#include "base/log.h"
#include "fuzz_device.h"

#define RAM_BYTES    (2u << 20) /* so that line 20 makes a difference */
#define ROM_BYTES    0x2000u
#define PAGES        ((RAM_BYTES + ROM_BYTES) / GUEST_PAGE_SIZE)
#define BYTES        0x100u /* registers of a device */
#define REGIONS      8
#define CLAIMS       8
#define OLD_VIEWS    4
#define ALIAS_HOPS   8
#define TOUCHED      2048
#define PHYSICAL_END (1ull << 52)

/* ---- a device that is a few registers ---- */

struct store {
    struct device dev;
    const struct region_ops *ops;
    uint64_t size_bytes; /* of the region or claim that is mapped now */
    uint8_t bytes[BYTES], expected[BYTES];
};

static struct store *store_of(struct device *dev)
{
    return container_of(dev, struct store, dev);
}

static void check_access(const struct store *s, uint64_t offset, unsigned size)
{
    unsigned min = s->ops->min_size ? s->ops->min_size : 1;
    unsigned max = s->ops->max_size ? s->ops->max_size : 4;

    FUZZ_CLAIM(size >= min && size <= max && (size & (size - 1)) == 0);
    FUZZ_CLAIM(offset % size == 0 && offset < s->size_bytes && size <= s->size_bytes - offset);
}

static uint64_t store_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct store *s = store_of(dev);
    uint64_t value = UINT64_MAX; /* bits above size must be cut by the bus */

    check_access(s, offset, size);
    for (unsigned i = 0; i < size; i++)
        memcpy((uint8_t *)&value + i, &s->bytes[(offset + i) % BYTES], 1);
    return value;
}

static void store_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct store *s = store_of(dev);

    check_access(s, offset, size);
    FUZZ_CLAIM(size == 8 || value >> 8 * size == 0);
    for (unsigned i = 0; i < size; i++)
        s->bytes[(offset + i) % BYTES] = (uint8_t)(value >> 8 * i);
}

#define OPS(min, max)                                                                              \
    {                                                                                              \
        .read = store_read, .write = store_write, .min_size = (min), .max_size = (max)             \
    }
static const struct region_ops all_ops[] = {
    OPS(0, 0),
    OPS(1, 1),
    OPS(1, 2),
    OPS(1, 8),
    OPS(2, 2),
    OPS(2, 8),
    OPS(4, 4),
    OPS(4, 8),
    OPS(8, 8),
    {.read = store_read},
    {.write = store_write},
    {.name = "nothing"},
};
#define OPS_COUNT (sizeof(all_ops) / sizeof(all_ops[0]))

static const struct device_class store_class = {
    .name = "store",
    .summary = "registers for fuzzing",
    .instance_size = sizeof(struct store),
};

/* ---- the machine and its model ---- */

struct claim {
    bool there;
    uint16_t first, count;
};

struct rig {
    struct device_test *t;
    struct memory *memory;
    struct store *store[REGIONS], *ports[CLAIMS];
    struct region region[REGIONS];
    uint8_t *rom;
    uint64_t rom_offset;
    unsigned depth;

    /* Model: indices of regions from the top to the bottom, now and at the last commit. */
    unsigned order[REGIONS], order_count, shown[REGIONS], shown_count;
    struct claim claim[CLAIMS];
    uint8_t expected[RAM_BYTES + ROM_BYTES]; /* the RAM file */
    bool dirty[PAGES];
    uint32_t touched[TOUCHED]; /* bytes of the file that may not be zero */
    unsigned touched_count;

    const struct flat_view *old[OLD_VIEWS];
    uint64_t old_sum[OLD_VIEWS];
};

enum kind { NOTHING, FILE_BYTE, DEVICE_BYTE };

struct byte { /* what answers at an address */
    enum kind kind;
    bool read_only;
    const struct region *region;
    uint64_t offset; /* in the RAM file, or in the device's region */
    struct store *store;
};

static uint64_t file_offset(const struct rig *r, uint64_t ram_offset)
{
    return ram_offset < RAM_BYTES ? ram_offset : RAM_BYTES + (ram_offset - r->rom_offset);
}

static uint8_t *file_byte(struct rig *r, uint64_t offset)
{
    return offset < RAM_BYTES ? memory_ram_hva(r->memory) + offset : r->rom + (offset - RAM_BYTES);
}

/* A device answers in whole units of its smallest size. */
static bool reachable(const struct store *s, uint64_t offset)
{
    unsigned min = s->ops->min_size ? s->ops->min_size : 1;

    return offset / min * min + min <= s->size_bytes;
}

static bool behind_region(const struct rig *r, const struct region *region, uint64_t offset,
                          struct byte *out)
{
    for (unsigned hops = 0; region->kind == REGION_ALIAS; hops++) {
        const struct region *target = region->target;

        if (hops == ALIAS_HOPS || !target || region->target_offset > UINT64_MAX - offset)
            return false;
        offset += region->target_offset;
        if (offset >= target->size_bytes)
            return false;
        region = target;
    }
    *out = (struct byte){.region = region, .offset = offset};
    if (region->kind == REGION_DEVICE) {
        out->kind = DEVICE_BYTE;
        out->store = store_of(region->dev);
    } else {
        out->kind = FILE_BYTE;
        out->offset = file_offset(r, region->ram_offset + offset);
        out->read_only = region->kind == REGION_ROM;
    }
    return true;
}

/* The model of the memory map: the first region from the top that has something there. */
static struct byte memory_byte(const struct rig *r, uint64_t gpa)
{
    struct byte byte = {.kind = NOTHING};

    for (unsigned i = 0; i < r->shown_count; i++) {
        const struct region *region = &r->region[r->shown[i]];

        if (gpa - region->gpa < region->size_bytes &&
            behind_region(r, region, gpa - region->gpa, &byte))
            return byte;
    }
    if (gpa < RAM_BYTES)
        return (struct byte){.kind = FILE_BYTE, .region = &r->t->ram, .offset = gpa};
    return byte;
}

static struct byte port_byte(const struct rig *r, uint32_t port)
{
    for (unsigned i = 0; i < CLAIMS; i++)
        if (r->claim[i].there && port - r->claim[i].first < r->claim[i].count)
            return (struct byte){
                .kind = DEVICE_BYTE, .store = r->ports[i], .offset = port - r->claim[i].first};
    return (struct byte){.kind = NOTHING};
}

static uint8_t model_read(struct rig *r, const struct byte *byte)
{
    if (byte->kind == FILE_BYTE)
        return r->expected[byte->offset];
    if (byte->kind == DEVICE_BYTE && byte->store->ops->read && reachable(byte->store, byte->offset))
        return byte->store->expected[byte->offset % BYTES];
    return 0xff;
}

static void model_write_file(struct rig *r, uint64_t offset, uint8_t value)
{
    r->expected[offset] = value;
    r->dirty[offset / GUEST_PAGE_SIZE] = true;
    FUZZ_CLAIM(r->touched_count < TOUCHED);
    r->touched[r->touched_count++] = (uint32_t)offset;
}

static void model_write(struct rig *r, const struct byte *byte, uint8_t value)
{
    if (byte->kind == FILE_BYTE && !byte->read_only)
        model_write_file(r, byte->offset, value);
    if (byte->kind == DEVICE_BYTE && byte->store->ops->write &&
        reachable(byte->store, byte->offset))
        byte->store->expected[byte->offset % BYTES] = value;
}

static void check_file_byte(struct rig *r, uint64_t offset)
{
    FUZZ_CLAIM(*file_byte(r, offset) == r->expected[offset]);
}

static void check_byte(struct rig *r, const struct byte *byte)
{
    if (byte->kind == FILE_BYTE)
        check_file_byte(r, byte->offset);
}

static void check_stores(const struct rig *r)
{
    for (unsigned i = 0; i < REGIONS; i++)
        FUZZ_CLAIM(!memcmp(r->store[i]->bytes, r->store[i]->expected, BYTES));
    for (unsigned i = 0; i < CLAIMS; i++)
        FUZZ_CLAIM(!memcmp(r->ports[i]->bytes, r->ports[i]->expected, BYTES));
}

/* ---- accesses ---- */

/* Near the borders that matter; regions are put there too. */
static uint64_t take_gpa(struct fuzz_input *in)
{
    static const uint64_t bases[] = {
        0, 0x100000, RAM_BYTES, 0xe0000000, 0xe0001000, 0x100000000ull, PHYSICAL_END, 0,
    };
    uint16_t where = (uint16_t)fuzz_take(in, 2);
    int64_t offset = where & 0xfff;

    /* A few bytes, or anywhere in a few pages, to both sides. */
    if (where & 0x1000)
        offset = (offset & 0x1f) * 0x100;
    return bases[where >> 13] + (uint64_t)(offset & 1 ? -(offset >> 1) : offset >> 1);
}

static uint64_t gated(const struct rig *r, uint64_t gpa)
{
    return machine_a20(r->t->machine) ? gpa : gpa & ~(1ull << 20);
}

static void read_memory(struct rig *r, uint64_t gpa, unsigned size)
{
    uint64_t value = bus_memory_read(r->t->machine, gpa, size);

    FUZZ_CLAIM(size == 8 || value >> 8 * size == 0);
    for (unsigned i = 0; i < size; i++) {
        struct byte byte = memory_byte(r, gated(r, gpa + i));

        FUZZ_CLAIM((uint8_t)(value >> 8 * i) == model_read(r, &byte));
    }
}

static void write_memory(struct rig *r, uint64_t gpa, uint64_t value, unsigned size)
{
    struct byte byte[8];

    for (unsigned i = 0; i < size; i++) {
        byte[i] = memory_byte(r, gated(r, gpa + i));
        model_write(r, &byte[i], (uint8_t)(value >> 8 * i));
    }
    bus_memory_write(r->t->machine, gpa, value, size);
    for (unsigned i = 0; i < size; i++)
        check_byte(r, &byte[i]);
}

static void read_port(struct rig *r, uint16_t port, unsigned size)
{
    uint32_t value = bus_port_read(r->t->machine, port, size);

    FUZZ_CLAIM(size == 4 || value >> 8 * size == 0);
    for (unsigned i = 0; i < size; i++) {
        struct byte byte = port_byte(r, port + i);

        FUZZ_CLAIM((uint8_t)(value >> 8 * i) == model_read(r, &byte));
    }
}

static void write_port(struct rig *r, uint16_t port, uint32_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        struct byte byte = port_byte(r, port + i);

        model_write(r, &byte, (uint8_t)(value >> 8 * i));
    }
    bus_port_write(r->t->machine, port, value, size);
}

/* As devices do it: any length, only memory, line 20 does not matter. */
static void copy_out(struct rig *r, uint64_t gpa, unsigned size)
{
    uint8_t got[64];
    int ret = memory_read(r->memory, gpa, got, size), expected = 0;

    for (unsigned i = 0; i < size; i++) {
        struct byte byte = memory_byte(r, gpa + i);

        if (byte.kind != FILE_BYTE)
            expected = -EFAULT;
        FUZZ_CLAIM(got[i] == (byte.kind == FILE_BYTE ? r->expected[byte.offset] : 0xff));
    }
    FUZZ_CLAIM(ret == expected);
}

static void copy_in(struct rig *r, struct fuzz_input *in, uint64_t gpa, unsigned size, bool load)
{
    uint8_t data[64] = {0};
    int ret, expected = 0;

    for (unsigned i = 0; i < size; i++) {
        struct byte byte = memory_byte(r, gpa + i);

        data[i] = (uint8_t)fuzz_take(in, 1);
        if (byte.kind == FILE_BYTE && (load || !byte.read_only))
            model_write_file(r, byte.offset, data[i]);
        else
            expected = -EFAULT;
    }
    ret = load ? memory_load(r->memory, gpa, data, size) : memory_write(r->memory, gpa, data, size);
    FUZZ_CLAIM(ret == expected);
    for (unsigned i = 0; i < size; i++) {
        struct byte byte = memory_byte(r, gpa + i);

        check_byte(r, &byte);
    }
}

static void pin(struct rig *r, uint64_t gpa, unsigned size, uint8_t value)
{
    uint8_t *hva = memory_pin(r->memory, gpa, size);
    struct byte first = memory_byte(r, gpa);

    if (size == 1)
        FUZZ_CLAIM(!!hva == (first.kind == FILE_BYTE && !first.read_only));
    if (!hva)
        return;
    for (unsigned i = 0; i < size; i++) {
        struct byte byte = memory_byte(r, gpa + i);

        FUZZ_CLAIM(byte.kind == FILE_BYTE && !byte.read_only);
        FUZZ_CLAIM(file_byte(r, byte.offset) == hva + i);
    }
    if (value & 1) {
        memset(hva, value, size);
        for (unsigned i = 0; i < size; i++)
            model_write_file(r, first.offset + i, value);
    }
    memory_unpin(r->memory, hva, value & 1 ? size : 0);
}

static void access_bus(struct rig *r, struct fuzz_input *in, unsigned what)
{
    uint64_t gpa = take_gpa(in);
    unsigned size = 1 + (unsigned)fuzz_take(in, 1) % 64, few = 1 + (size - 1) % 8;

    switch (what) {
    case 0:
        read_memory(r, gpa, few);
        break;
    case 1:
        write_memory(r, gpa, fuzz_take(in, few), few);
        break;
    case 2:
        read_port(r, (uint16_t)gpa, 1 + (few - 1) % 4);
        break;
    case 3:
        few = 1 + (few - 1) % 4;
        write_port(r, (uint16_t)gpa, (uint32_t)fuzz_take(in, few), few);
        break;
    case 4:
        copy_out(r, gpa, size);
        break;
    case 5:
        copy_in(r, in, gpa, size, false);
        break;
    case 6:
        copy_in(r, in, gpa, size, true);
        break;
    default:
        pin(r, gpa, size, (uint8_t)fuzz_take(in, 1));
        break;
    }
}

/* ---- changes of the map ---- */

static void check_view(const struct flat_view *view)
{
    uint64_t end = 0;

    for (size_t i = 0; i < view->count; i++) {
        const struct flat_range *range = &view->ranges[i];

        FUZZ_CLAIM(range->size_bytes && range->gpa >= end);
        FUZZ_CLAIM(range->region->kind != REGION_ALIAS);
        FUZZ_CLAIM(range->offset < range->region->size_bytes &&
                   range->size_bytes <= range->region->size_bytes - range->offset);
        FUZZ_CLAIM(flat_view_find(view, range->gpa) == range);
        FUZZ_CLAIM(flat_view_find(view, range->gpa + range->size_bytes - 1) == range);
        end = range->gpa + range->size_bytes;
    }
}

static uint64_t view_sum(const struct flat_view *view)
{
    uint64_t sum = view->count;

    for (size_t i = 0; i < view->count; i++)
        sum = sum * 31 + view->ranges[i].gpa + 7 * view->ranges[i].size_bytes +
              13 * view->ranges[i].offset;
    return sum;
}

/* The map that was committed is what the model shows from now on. */
static void committed(struct rig *r)
{
    const struct flat_view *view;

    if (r->depth)
        return;
    memcpy(r->shown, r->order, sizeof(r->shown));
    r->shown_count = r->order_count;
    view = memory_view_get(r->memory);
    check_view(view);
    memory_view_put(r->memory, view);
}

static void begin(struct rig *r)
{
    if (r->depth == 3)
        return;
    memory_begin(r->memory);
    r->depth++;
}

static void commit(struct rig *r)
{
    if (!r->depth)
        return;
    r->depth--;
    FUZZ_CLAIM(memory_commit(r->memory, NULL) == 0);
    committed(r);
}

static void unmap(struct rig *r, unsigned which)
{
    unsigned kept = 0;

    memory_unmap(r->memory, &r->region[which]);
    for (unsigned i = 0; i < r->order_count; i++)
        if (r->order[i] != which)
            r->order[kept++] = r->order[i];
    r->order_count = kept;
    FUZZ_CLAIM(!r->region[which].mapped);
    committed(r);
}

/* A view that a reader still holds shows the region, mapped or through an alias. */
static bool in_use(const struct rig *r, unsigned which)
{
    if (r->depth || r->region[which].mapped)
        return true;
    for (unsigned i = 0; i < r->order_count; i++) {
        const struct region *region = &r->region[r->order[i]];

        for (unsigned hops = 0; region && region->kind == REGION_ALIAS && hops <= ALIAS_HOPS;
             hops++) {
            region = region->target;
            if (region == &r->region[which])
                return true;
        }
    }
    return false;
}

static void set_up_file_region(struct rig *r, struct region *region, struct fuzz_input *in,
                               uint16_t what)
{
    uint64_t page = fuzz_take(in, 1);

    region->gpa &= GUEST_PAGE_MASK;
    region->size_bytes = GUEST_PAGE_SIZE * (1 + (what >> 4 & 1));
    region->kind = what & 4 ? REGION_ROM : REGION_RAM;
    if (what & 8) {
        region->ram_offset = r->rom_offset;
        region->hva = r->rom;
        return;
    }
    region->ram_offset = page * GUEST_PAGE_SIZE;
    if (what & 0x200) /* not valid */
        region->ram_offset += what & 0x400 ? 1 : 1ull << 40;
    region->hva = memory_ram_hva(r->memory) + region->ram_offset;
}

/* Make a region that is not in use another one. Some of them cannot be mapped. */
static void set_up_region(struct rig *r, struct fuzz_input *in, unsigned which)
{
    struct region *region = &r->region[which];
    uint16_t what = (uint16_t)fuzz_take(in, 2);

    *region = (struct region){
        .name = "region",
        .gpa = take_gpa(in),
        .priority = what >> 12 & 3,
        .size_bytes = 1 + fuzz_take(in, 1),
    };
    if (what & 0x800)
        region->size_bytes = (region->size_bytes - 1) << (what >> 4 & 15);
    switch (what & 3) {
    case 0:
        set_up_file_region(r, region, in, what);
        break;
    case 1:
        region->kind = REGION_ALIAS;
        region->target = what & 4 ? &r->t->ram : &r->region[fuzz_take(in, 1) % REGIONS];
        region->target_offset = what & 8 ? fuzz_take(in, 4) : fuzz_take(in, 1);
        if ((what & 0x1f0) == 0x1f0)
            region->target_offset = UINT64_MAX - 4;
        if ((what & 0x1f0) == 0x1e0)
            region->target = NULL;
        break;
    default:
        region->kind = REGION_DEVICE;
        region->dev = &r->store[which]->dev;
        region->ops = &all_ops[(what >> 4 & 15) % OPS_COUNT];
        r->store[which]->ops = region->ops;
        r->store[which]->size_bytes = region->size_bytes;
        break;
    }
}

static bool valid(const struct rig *r, const struct region *region)
{
    const struct region *shown;
    struct byte first;

    if (!region->size_bytes || region->gpa >= PHYSICAL_END ||
        region->size_bytes > PHYSICAL_END - region->gpa)
        return false;
    if (!behind_region(r, region, 0, &first) || first.kind != FILE_BYTE)
        return true;
    shown = first.region;
    return shown->ram_offset % GUEST_PAGE_SIZE == 0 &&
           (shown->ram_offset + shown->size_bytes <= RAM_BYTES ||
            shown->ram_offset == r->rom_offset);
}

static void map(struct rig *r, unsigned which)
{
    struct region *region = &r->region[which];
    struct error err = {0};
    bool was_mapped = region->mapped;
    unsigned at = 0;
    int ret = memory_map(r->memory, region, &err);

    FUZZ_CLAIM((ret == 0) == (!was_mapped && valid(r, region)));
    FUZZ_CLAIM((ret == 0) == !err.code);
    if (ret)
        return;
    while (at < r->order_count && r->region[r->order[at]].priority > region->priority)
        at++;
    memmove(&r->order[at + 1], &r->order[at], (r->order_count - at) * sizeof(r->order[0]));
    r->order[at] = which;
    r->order_count++;
    committed(r);
}

static void hold_view(struct rig *r, unsigned which)
{
    const struct flat_view **view = &r->old[which % OLD_VIEWS];

    if (*view) {
        FUZZ_CLAIM(view_sum(*view) == r->old_sum[which % OLD_VIEWS]);
        memory_view_put(r->memory, *view);
        *view = NULL;
    } else {
        *view = memory_view_get(r->memory);
        r->old_sum[which % OLD_VIEWS] = view_sum(*view);
    }
}

static bool ports_are_free(const struct rig *r, uint32_t first, uint32_t count)
{
    for (unsigned i = 0; i < CLAIMS; i++)
        if (r->claim[i].there && first < (uint32_t)r->claim[i].first + r->claim[i].count &&
            r->claim[i].first < first + count)
            return false;
    return true;
}

static void release_ports(struct rig *r, unsigned which)
{
    struct claim *claim = &r->claim[which];

    device_unmap_ports(&r->ports[which]->dev, claim->first, (uint16_t)(claim->count + 1));
    device_unmap_ports(&r->ports[which]->dev, claim->first, claim->count);
    claim->there = false;
}

static void claim_ports(struct rig *r, struct fuzz_input *in, unsigned which)
{
    struct claim *claim = &r->claim[which];
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint16_t first = (uint16_t)take_gpa(in);
    uint16_t count = what < 0xf0 ? what >> 4 : (uint16_t)fuzz_take(in, 2);
    const struct region_ops *ops = &all_ops[(what & 15) % OPS_COUNT];
    struct error err = {0};
    bool good;

    if (claim->there) {
        release_ports(r, which);
        return;
    }
    good = count && (uint32_t)first + count <= 0x10000 && ports_are_free(r, first, count);
    FUZZ_CLAIM((device_map_ports(&r->ports[which]->dev, first, count, ops, &err) == 0) == good);
    if (!good)
        return;
    *claim = (struct claim){.there = true, .first = first, .count = count};
    r->ports[which]->ops = ops;
    r->ports[which]->size_bytes = count;
}

static void change_map(struct rig *r, struct fuzz_input *in, unsigned what, unsigned which)
{
    switch (what) {
    case 0:
    case 1:
        if (!in_use(r, which))
            set_up_region(r, in, which);
        map(r, which);
        break;
    case 2:
        unmap(r, which);
        break;
    case 3:
        begin(r);
        break;
    case 4:
        commit(r);
        break;
    case 5:
        hold_view(r, which);
        break;
    case 6:
        claim_ports(r, in, which);
        break;
    default:
        machine_set_a20(r->t->machine, which & 1);
        break;
    }
}

/* ---- life ---- */

static struct store *add_store(struct rig *r)
{
    struct store *s = store_of(device_test_create(r->t, &store_class, NULL));

    s->ops = &all_ops[0];
    return s;
}

static void build(struct rig *r)
{
    log_threshold = LOG_ERROR;
    r->t = device_test_new(RAM_BYTES);
    r->memory = machine_memory(r->t->machine);
    for (unsigned i = 0; i < REGIONS; i++)
        r->store[i] = add_store(r);
    for (unsigned i = 0; i < CLAIMS; i++)
        r->ports[i] = add_store(r);
    r->rom = memory_add_block(r->memory, ROM_BYTES, &r->rom_offset, NULL);
    FUZZ_CLAIM(r->rom);
    device_test_start(r->t);
}

static void check_dirty(struct rig *r)
{
    uint8_t bits[PAGES / 8 + 1];

    memory_dirty_fetch(r->memory, 0, RAM_BYTES / GUEST_PAGE_SIZE, bits);
    memory_dirty_fetch(r->memory, r->rom_offset / GUEST_PAGE_SIZE, ROM_BYTES / GUEST_PAGE_SIZE,
                       bits + RAM_BYTES / GUEST_PAGE_SIZE / 8);
    for (unsigned page = 0; page < PAGES; page++)
        FUZZ_CLAIM((bits[page / 8] >> page % 8 & 1) == r->dirty[page]);
    memset(r->dirty, 0, sizeof(r->dirty));
}

/* Take everything back, so that the next input begins with nothing but RAM full of zeros. */
static void finish(struct rig *r)
{
    while (r->depth)
        commit(r);
    for (unsigned i = 0; i < REGIONS; i++)
        unmap(r, i);
    for (unsigned i = 0; i < REGIONS; i++)
        r->region[i] = (struct region){.name = "none"};
    for (unsigned i = 0; i < OLD_VIEWS; i++)
        if (r->old[i])
            hold_view(r, i);
    for (unsigned i = 0; i < CLAIMS; i++)
        if (r->claim[i].there)
            release_ports(r, i);
    check_dirty(r);
    for (unsigned i = 0; i < r->touched_count; i++) {
        check_file_byte(r, r->touched[i]);
    }
    for (unsigned i = 0; i < r->touched_count; i++) {
        *file_byte(r, r->touched[i]) = 0;
        r->expected[r->touched[i]] = 0;
    }
    r->touched_count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fuzz_input in = {data, size};

    if (!r.t)
        build(&r);
    machine_lock(r.t->machine);
    machine_set_a20(r.t->machine, true);
    for (unsigned i = 0; i < REGIONS; i++)
        for (unsigned k = 0; k < BYTES; k++) {
            r.store[i]->bytes[k] = r.store[i]->expected[k] = (uint8_t)(i << 5 ^ k);
            r.ports[i]->bytes[k] = r.ports[i]->expected[k] = (uint8_t)(0x10 ^ i << 5 ^ k);
        }
    FUZZ_CLAIM(memory_dirty_start(r.memory, NULL) == 0);
    while (in.left && r.touched_count < TOUCHED - 64) {
        uint8_t what = (uint8_t)fuzz_take(&in, 1);

        if (what & 0x80)
            access_bus(&r, &in, what & 7);
        else
            change_map(&r, &in, what & 7, what >> 4 & 7);
        check_stores(&r);
    }
    finish(&r);
    machine_unlock(r.t->machine);
    return 0;
}
