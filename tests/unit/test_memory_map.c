/*
 * test_memory_map.c - regions, views, copies, dirty pages
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/host.h"
#include "trapeze/device.h"
#include "trapeze/memory.h"

#define MIB       (1ull << 20)
#define RAM_BYTES (4 * MIB)

static struct memory *memory;
static struct device dev;
static const struct region_ops ops = {.name = "registers"};
static struct region ram;

static int set_up(void **state)
{
    struct error err = {0};

    memory = memory_new(NULL, RAM_BYTES, &err);
    ram = (struct region){
        .name = "ram", .kind = REGION_RAM, .size_bytes = RAM_BYTES, .hva = memory_ram_hva(memory)};
    return !memory || memory_map(memory, &ram, &err);
}

static int tear_down(void **state)
{
    memory_free(memory);
    return 0;
}

static struct region registers(uint64_t gpa, uint64_t size_bytes, int priority)
{
    return (struct region){.name = "device",
                           .kind = REGION_DEVICE,
                           .gpa = gpa,
                           .size_bytes = size_bytes,
                           .priority = priority,
                           .ops = &ops,
                           .dev = &dev};
}

static void map(struct region *region)
{
    struct error err = {0};

    assert_int_equal(memory_map(memory, region, &err), 0);
}

/* Sorted, without overlap or empty range, and resolved. */
static void check_view(const struct flat_view *view)
{
    for (size_t i = 0; i < view->count; i++) {
        const struct flat_range *range = &view->ranges[i];

        assert_true(range->size_bytes > 0);
        assert_true(range->region->kind != REGION_ALIAS);
        assert_true(range->offset + range->size_bytes <= range->region->size_bytes);
        if (i)
            assert_true(range[-1].gpa + range[-1].size_bytes <= range->gpa);
    }
}

static const struct region *region_at(uint64_t gpa, uint64_t *out_offset)
{
    const struct flat_view *view = memory_view_get(memory);
    const struct flat_range *range = flat_view_find(view, gpa);
    const struct region *region = range ? range->region : NULL;

    check_view(view);
    if (range && out_offset)
        *out_offset = range->offset + (gpa - range->gpa);
    memory_view_put(memory, view);
    return region;
}

static size_t view_count(void)
{
    const struct flat_view *view = memory_view_get(memory);
    size_t count = view->count;

    memory_view_put(memory, view);
    return count;
}

static void higher_priority_wins(void **state)
{
    struct region low = registers(0x1000, 0x3000, 1), high = registers(0x2000, 0x1000, 2);
    uint64_t offset = 0;

    map(&high);
    map(&low);
    assert_ptr_equal(region_at(0xfff, NULL), &ram);
    assert_ptr_equal(region_at(0x1000, NULL), &low);
    assert_ptr_equal(region_at(0x2000, &offset), &high);
    assert_int_equal(offset, 0);
    assert_ptr_equal(region_at(0x3004, &offset), &low);
    assert_int_equal(offset, 0x2004);
    assert_ptr_equal(region_at(0x4000, &offset), &ram);
    assert_int_equal(offset, 0x4000);
    memory_unmap(memory, &high);
    assert_ptr_equal(region_at(0x2000, &offset), &low);
    assert_int_equal(offset, 0x1000);
    memory_unmap(memory, &low);
    assert_int_equal(view_count(), 1);
}

static void among_equals_the_latest_wins(void **state)
{
    struct region first = registers(0x1000, 0x1000, 1), second = registers(0x1000, 0x1000, 1);

    map(&first);
    map(&second);
    assert_ptr_equal(region_at(0x1000, NULL), &second);
    memory_unmap(memory, &second);
    assert_ptr_equal(region_at(0x1000, NULL), &first);
    memory_unmap(memory, &first);
}

static void nothing_is_beyond_the_regions(void **state)
{
    assert_null(region_at(RAM_BYTES, NULL));
    assert_null(region_at(UINT64_MAX, NULL));
}

static void a_transaction_is_seen_at_its_end(void **state)
{
    struct region a = registers(0x1000, 0x1000, 1), b = registers(0x3000, 0x1000, 1);
    struct error err = {0};

    memory_begin(memory);
    map(&a);
    memory_begin(memory);
    map(&b);
    assert_int_equal(memory_commit(memory, &err), 0);
    assert_ptr_equal(region_at(0x1000, NULL), &ram);
    assert_int_equal(memory_commit(memory, &err), 0);
    assert_ptr_equal(region_at(0x1000, NULL), &a);
    assert_ptr_equal(region_at(0x3000, NULL), &b);
    memory_begin(memory);
    memory_unmap(memory, &a);
    memory_unmap(memory, &b);
    assert_ptr_equal(region_at(0x1000, NULL), &a);
    assert_int_equal(memory_commit(memory, &err), 0);
    assert_ptr_equal(region_at(0x1000, NULL), &ram);
}

static void an_alias_shows_its_target(void **state)
{
    struct region alias = {.name = "alias",
                           .kind = REGION_ALIAS,
                           .gpa = 0x10000000,
                           .size_bytes = 0x3000,
                           .target = &ram,
                           .target_offset = 0x2000};
    struct region second = {.name = "alias of an alias",
                            .kind = REGION_ALIAS,
                            .gpa = 0x20000000,
                            .size_bytes = 0x3000,
                            .target = &alias,
                            .target_offset = 0x1000};
    uint64_t offset = 0;
    uint8_t byte = 99;

    map(&alias);
    map(&second);
    assert_ptr_equal(region_at(0x10000010, &offset), &ram);
    assert_int_equal(offset, 0x2010);
    assert_ptr_equal(region_at(0x20000010, &offset), &ram);
    assert_int_equal(offset, 0x3010);
    assert_null(region_at(0x20002000, NULL)); /* behind the end of its target */
    assert_int_equal(memory_write(memory, 0x20000010, &byte, 1), 0);
    assert_int_equal(memory_ram_hva(memory)[0x3010], 99);
    memory_unmap(memory, &second);
    memory_unmap(memory, &alias);
}

static void an_alias_of_itself_shows_nothing(void **state)
{
    struct region alias = {
        .name = "loop", .kind = REGION_ALIAS, .gpa = 0x10000000, .size_bytes = 0x1000};
    struct region beyond = {.name = "beyond",
                            .kind = REGION_ALIAS,
                            .gpa = 0x20000000,
                            .size_bytes = 0x1000,
                            .target = &ram,
                            .target_offset = UINT64_MAX};

    alias.target = &alias;
    map(&alias);
    map(&beyond);
    assert_null(region_at(0x10000000, NULL));
    assert_null(region_at(0x20000000, NULL));
    memory_unmap(memory, &alias);
    memory_unmap(memory, &beyond);
}

static void neighbours_of_one_region_are_joined(void **state)
{
    struct region left = {.name = "left",
                          .kind = REGION_ALIAS,
                          .gpa = 0x10000000,
                          .size_bytes = 0x1000,
                          .target = &ram};
    struct region right = {.name = "right",
                           .kind = REGION_ALIAS,
                           .gpa = 0x10001000,
                           .size_bytes = 0x1000,
                           .target = &ram,
                           .target_offset = 0x1000};

    map(&left);
    map(&right);
    assert_int_equal(view_count(), 2);
    memory_unmap(memory, &left);
    memory_unmap(memory, &right);
}

static void bad_regions_are_refused(void **state)
{
    struct region empty = registers(0, 0, 1), wraps = registers(UINT64_MAX - 10, 100, 1),
                  high = registers(1ull << 52, 1, 1), no_device = registers(0, 0x1000, 1),
                  odd = ram, elsewhere = ram, mapped = ram, too_long = ram,
                  alias = registers(0, 0x1000, 1), of_nobody = registers(0, 0x1000, 1);
    struct region *const bad[] = {&empty,     &wraps,    &high,  &no_device, &odd,
                                  &elsewhere, &too_long, &alias, &of_nobody};
    uint8_t page[4096];

    no_device.dev = NULL;
    odd.mapped = elsewhere.mapped = too_long.mapped = false;
    odd.size_bytes = 100;
    elsewhere.hva = page;
    too_long.ram_offset = 1ull << 40;
    too_long.hva = memory_ram_hva(memory) + too_long.ram_offset;
    alias.kind = of_nobody.kind = REGION_ALIAS; /* of what was never mapped */
    alias.target = &too_long;
    of_nobody.target = &no_device;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = {0};

        assert_int_equal(memory_map(memory, bad[i], &err), -EINVAL);
        assert_false(bad[i]->mapped);
    }
    assert_int_equal(memory_map(memory, &mapped, NULL), -EBUSY);
    assert_int_equal(view_count(), 1);
}

/* The same as the view, computed one address at a time. */
static const struct region *slow_find(struct region *const *regions, int count, uint64_t gpa)
{
    const struct region *best = &ram;

    for (int i = 0; i < count; i++)
        if (regions[i]->mapped && gpa >= regions[i]->gpa &&
            gpa < regions[i]->gpa + regions[i]->size_bytes &&
            regions[i]->priority >= best->priority)
            best = regions[i];
    return best;
}

static void random_maps_agree_with_a_slow_model(void **state)
{
    enum { COUNT = 20 };
    struct region regions[COUNT];
    struct region *order[COUNT];

    srand(7);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < COUNT; i++) {
            regions[i] = registers((uint64_t)(rand() % 64) * 256, (uint64_t)(1 + rand() % 16) * 256,
                                   1 + rand() % 4);
            order[i] = &regions[i];
            map(&regions[i]);
        }
        for (int i = 0; i < COUNT; i += 5)
            memory_unmap(memory, &regions[i]);
        for (uint64_t gpa = 0; gpa < 0x6000; gpa += 128)
            assert_ptr_equal(region_at(gpa, NULL), slow_find(order, COUNT, gpa));
        for (int i = 0; i < COUNT; i++)
            memory_unmap(memory, &regions[i]);
        assert_int_equal(view_count(), 1);
    }
}

static void copies_cross_ranges(void **state)
{
    struct region hole = registers(0x2000, 0x10, 1);
    uint8_t data[64], back[64];

    map(&hole);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    memset(back, 0, sizeof(back));
    assert_int_equal(memory_write(memory, 0x1ff0, data, 64), -EFAULT);
    assert_int_equal(memory_read(memory, 0x1ff0, back, 64), -EFAULT);
    for (size_t i = 0; i < sizeof(data); i++)
        assert_int_equal(back[i], i < 16 || i >= 32 ? data[i] : 0xff);
    memory_unmap(memory, &hole);
    assert_int_equal(memory_read(memory, 0x2000, back, 1), 0);
    assert_int_equal(back[0], 0);
    /* Behind the end of RAM, and around the end of the address space. */
    assert_int_equal(memory_read(memory, RAM_BYTES - 4, back, 8), -EFAULT);
    assert_int_equal(back[3], 0);
    assert_int_equal(back[4], 0xff);
    assert_int_equal(memory_read(memory, UINT64_MAX - 3, back, 8), -EFAULT);
    assert_int_equal(back[3], 0xff);
    assert_int_equal(back[4], 15); /* wrapped: address 0 */
    assert_int_equal(memory_write(memory, 1ull << 60, data, 64), -EFAULT);
}

static int write_address_zero(void **state)
{
    int ret = set_up(state);

    memory_ram_hva(memory)[0] = 15;
    return ret;
}

static void rom_is_written_by_loaders_only(void **state)
{
    struct region rom = {.name = "rom", .kind = REGION_ROM, .gpa = 0xf0000, .priority = 1};
    struct error err = {0};
    uint32_t value = 0x12345678, back = 0;

    rom.size_bytes = 0x10000;
    rom.hva = memory_add_block(memory, rom.size_bytes, &rom.ram_offset, &err);
    assert_non_null(rom.hva);
    assert_true(rom.ram_offset >= RAM_BYTES);
    map(&rom);
    assert_int_equal(memory_write(memory, 0xf0000, &value, 4), -EFAULT);
    assert_int_equal(memory_read(memory, 0xf0000, &back, 4), 0);
    assert_int_equal(back, 0);
    assert_int_equal(memory_load(memory, 0xf0000, &value, 4), 0);
    assert_int_equal(memory_read(memory, 0xf0000, &back, 4), 0);
    assert_int_equal(back, value);
    assert_null(memory_pin(memory, 0xf0000, 4));
    memory_unmap(memory, &rom);
    assert_null(memory_add_block(memory, 1ull << 40, &rom.ram_offset, &err));
    assert_int_equal(err.code, ENOSPC);
    assert_null(memory_add_block(memory, 0, &rom.ram_offset, NULL));
}

static void a_pin_is_one_range_of_ram(void **state)
{
    struct region hole = registers(0x3000, 0x1000, 1);
    uint8_t *hva;

    map(&hole);
    hva = memory_pin(memory, 0x1000, 0x2000);
    assert_ptr_equal(hva, memory_ram_hva(memory) + 0x1000);
    memory_unpin(memory, hva, 0);
    assert_null(memory_pin(memory, 0x1000, 0x2001));
    assert_null(memory_pin(memory, 0x3000, 1));
    assert_null(memory_pin(memory, RAM_BYTES, 1));
    assert_null(memory_pin(memory, 0x5000, SIZE_MAX));
    memory_unmap(memory, &hole);
}

static void ram_may_be_in_two_pieces(void **state)
{
    struct region high = {.name = "high",
                          .kind = REGION_RAM,
                          .gpa = 1ull << 32,
                          .size_bytes = RAM_BYTES - MIB,
                          .hva = memory_ram_hva(memory) + MIB,
                          .ram_offset = MIB};
    uint8_t bits[1] = {0};

    memory_unmap(memory, &ram);
    ram.size_bytes = MIB;
    map(&ram);
    map(&high);
    assert_int_equal(memory_dirty_start(memory, NULL), 0);
    assert_int_equal(memory_write(memory, (1ull << 32) + 0x1800, bits, 1), 0);
    memory_dirty_fetch(memory, (MIB + 0x1000) / GUEST_PAGE_SIZE, 1, bits);
    assert_int_equal(bits[0], 1);
    memory_unmap(memory, &high);
}

static void dirty_pages_are_noted(void **state)
{
    uint8_t bits[RAM_BYTES / GUEST_PAGE_SIZE / 8], one = 1;
    uint8_t *hva;

    assert_int_equal(memory_write(memory, 0x9000, &one, 1), 0); /* not enabled */
    assert_false(memory_dirty_enabled(memory));
    assert_int_equal(memory_dirty_start(memory, NULL), 0);
    assert_true(memory_dirty_enabled(memory));
    assert_int_equal(memory_write(memory, 0x2fff, "ab", 2), 0);
    hva = memory_pin(memory, 0x10000, 0x3000);
    memory_unpin(memory, hva, 0x1001);
    memory_dirty_mark(memory, RAM_BYTES - 1, 1);
    memory_dirty_fetch(memory, 0, sizeof(bits) * 8, bits);
    for (unsigned page = 0; page < sizeof(bits) * 8; page++)
        assert_int_equal(bits[page / 8] >> page % 8 & 1, page == 2 || page == 3 || page == 16 ||
                                                             page == 17 ||
                                                             page == sizeof(bits) * 8 - 1);
    memory_dirty_fetch(memory, 0, sizeof(bits) * 8, bits);
    for (unsigned i = 0; i < sizeof(bits); i++)
        assert_int_equal(bits[i], 0); /* taken */
    assert_int_equal(memory_write(memory, 0x5000, &one, 1), 0);
    memory_dirty_fetch(memory, 3, 5, bits);
    assert_int_equal(bits[0], 1 << 2);
    memory_dirty_mark(memory, 0, 1);
    memory_dirty_stop(memory);
    memory_dirty_mark(memory, 0x1000, 1);
    assert_int_equal(memory_dirty_start(memory, NULL), 0);
    memory_dirty_fetch(memory, 0, 8, bits);
    assert_int_equal(bits[0], 0); /* a new start is clean */
}

static void watched_pages_are_fetched_when_they_were_written(void **state)
{
    uint64_t offset, bits[1];
    uint8_t *hva = memory_add_block(memory, 64 * GUEST_PAGE_SIZE, &offset, NULL);

    (void)state;
    assert_non_null(hva);
    assert_true(memory_watch_allows(memory, offset));
    memory_watch_start(memory, offset, 64 * GUEST_PAGE_SIZE);
    assert_true(memory_watch_allows(memory, offset));
    assert_true(memory_watch_fetch(memory, offset, 64 * GUEST_PAGE_SIZE, bits));
    assert_true(bits[0] == UINT64_MAX); /* at first all */
    assert_false(memory_watch_allows(memory, offset));
    memory_unpin(memory, hva + 3 * GUEST_PAGE_SIZE - 1, 2);
    assert_true(memory_watch_allows(memory, offset + 2 * GUEST_PAGE_SIZE));
    assert_true(memory_watch_fetch(memory, offset, 64 * GUEST_PAGE_SIZE, bits));
    assert_true(bits[0] == UINT64_MAX); /* somebody may have gone on writing */
    assert_true(memory_watch_fetch(memory, offset, 64 * GUEST_PAGE_SIZE, bits));
    assert_true(bits[0] == 0xc);
    assert_false(memory_watch_fetch(memory, offset, 64 * GUEST_PAGE_SIZE, bits));
    assert_true(bits[0] == 0);
    memory_watch_stop(memory, offset, 64 * GUEST_PAGE_SIZE);
    memory_dirty_mark(memory, offset, 1);
    assert_true(memory_watch_allows(memory, offset));
    assert_false(memory_watch_fetch(memory, offset, 64 * GUEST_PAGE_SIZE, bits));
}

static void what_is_discarded_is_zero(void **state)
{
    uint8_t *hva = memory_ram_hva(memory);
    uint64_t used;
    uint8_t bits[1];

    memset(hva + MIB, 0xaa, 8 * GUEST_PAGE_SIZE);
    used = memory_used_bytes(memory);
    assert_true(used >= 8 * GUEST_PAGE_SIZE);
    assert_int_equal(memory_dirty_start(memory, NULL), 0);
    assert_int_equal(memory_discard(memory, hva + MIB + 1, 3 * GUEST_PAGE_SIZE, NULL), 0);
    assert_int_equal(memory_used_bytes(memory), used - 2 * GUEST_PAGE_SIZE);
    memory_dirty_fetch(memory, MIB / GUEST_PAGE_SIZE, 8, bits);
    assert_int_equal(bits[0], 0x06);
    for (unsigned page = 0; page < 8; page++)
        for (unsigned n = 0; n < GUEST_PAGE_SIZE; n++)
            assert_int_equal(hva[MIB + page * GUEST_PAGE_SIZE + n],
                             page == 1 || page == 2 ? 0 : 0xaa);
    assert_int_equal(memory_discard(memory, hva + MIB + 1, GUEST_PAGE_SIZE, NULL), 0);
    assert_int_equal(hva[MIB + 1], 0xaa);
}

static void an_old_view_stays_until_it_is_put_back(void **state)
{
    struct region hole = registers(0x3000, 0x1000, 1);
    const struct flat_view *old = memory_view_get(memory), *second;

    map(&hole);
    second = memory_view_get(memory);
    assert_ptr_not_equal(second, old);
    assert_ptr_equal(flat_view_find(old, 0x3000)->region, &ram);
    assert_ptr_equal(flat_view_find(second, 0x3000)->region, &hole);
    memory_unmap(memory, &hole);
    memory_view_put(memory, second);
    assert_ptr_equal(flat_view_find(old, 0x3000)->region, &ram);
    memory_view_put(memory, old);
}

static void views_that_are_never_put_back_block_only_changes(void **state)
{
    struct region hole = registers(0x3000, 0x1000, 1);
    const struct flat_view *views[300];
    struct error err = {0};
    int count = 0, ret = 0;

    while (count < 300 && !ret) {
        views[count++] = memory_view_get(memory);
        if (hole.mapped) {
            memory_begin(memory);
            memory_unmap(memory, &hole);
            ret = memory_commit(memory, &err);
        } else {
            ret = memory_map(memory, &hole, &err);
        }
    }
    assert_int_equal(ret, -EBUSY);
    assert_non_null(region_at(0x3000, NULL));
    while (count)
        memory_view_put(memory, views[--count]);
    memory_begin(memory);
    if (hole.mapped)
        memory_unmap(memory, &hole);
    assert_int_equal(memory_commit(memory, &err), 0);
    assert_ptr_equal(region_at(0x3000, NULL), &ram);
}

static _Atomic bool stop_readers;

static void read_views(void *opaque)
{
    while (!stop_readers) {
        const struct flat_view *view = memory_view_get(memory);
        const struct flat_range *range = flat_view_find(view, 0x3000);
        uint32_t value;

        if (!range || range->gpa > 0x3000)
            abort();
        memory_view_put(memory, view);
        memory_read(memory, 0x100, &value, sizeof(value));
        value++;
        memory_write(memory, 0x100, &value, sizeof(value));
    }
}

static void readers_need_no_lock(void **state)
{
    struct region hole = registers(0x3000, 0x1000, 1);
    struct host_thread *threads[3];
    struct error err = {0};

    stop_readers = false;
    for (int i = 0; i < 3; i++)
        threads[i] = host_thread_start("reader", read_views, NULL, &err);
    for (int i = 0; i < 3000; i++) {
        map(&hole);
        memory_unmap(memory, &hole);
    }
    stop_readers = true;
    for (int i = 0; i < 3; i++)
        host_thread_join(threads[i]);
}

static void sizes_are_checked(void **state)
{
    struct error err = {0};

    assert_null(memory_new(NULL, 4097, &err));
    assert_int_equal(err.code, EINVAL);
    assert_null(memory_new(NULL, 1ull << 41, NULL));
    memory_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(higher_priority_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(among_equals_the_latest_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_beyond_the_regions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_transaction_is_seen_at_its_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_alias_shows_its_target, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_alias_of_itself_shows_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(neighbours_of_one_region_are_joined, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_regions_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(random_maps_agree_with_a_slow_model, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_cross_ranges, write_address_zero, tear_down),
        cmocka_unit_test_setup_teardown(rom_is_written_by_loaders_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pin_is_one_range_of_ram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ram_may_be_in_two_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dirty_pages_are_noted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(watched_pages_are_fetched_when_they_were_written, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_discarded_is_zero, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_old_view_stays_until_it_is_put_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(views_that_are_never_put_back_block_only_changes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(readers_need_no_lock, set_up, tear_down),
        cmocka_unit_test(sizes_are_checked),
    };

    return cmocka_run_group_tests_name("memory map", tests, NULL, NULL);
}
