/*
 * test_bus.c - splitting and merging of accesses, claims, what floats
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "device_test.h"

#define MMIO 0xfe000000ull
#define PORT 0x100

/* A register file that writes down how it was accessed: "r0.4 w4.2=1234 ". */
struct recorder {
    struct device dev;
    const struct region_ops *ops;
    uint32_t size_bytes;
    uint8_t bytes[64];
    char log[512];
};

static struct recorder *recorder_of(struct device *dev)
{
    return container_of(dev, struct recorder, dev);
}

static void note(struct recorder *recorder, const char *text)
{
    strncat(recorder->log, text, sizeof(recorder->log) - strlen(recorder->log) - 1);
}

static uint64_t recorder_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct recorder *recorder = recorder_of(dev);
    uint64_t value = UINT64_MAX; /* bits above size must be cut by the bus */
    char text[32];

    assert_true(offset + size <= recorder->size_bytes);
    assert_int_equal(offset % size, 0);
    memcpy(&value, recorder->bytes + offset, size);
    snprintf(text, sizeof(text), "r%x.%u ", (unsigned)offset, size);
    note(recorder, text);
    return value;
}

static void recorder_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct recorder *recorder = recorder_of(dev);
    char text[64];

    assert_true(offset + size <= recorder->size_bytes);
    assert_int_equal(offset % size, 0);
    memcpy(recorder->bytes + offset, &value, size);
    snprintf(text, sizeof(text), "w%x.%u=%llx ", (unsigned)offset, size, (unsigned long long)value);
    note(recorder, text);
}

static int recorder_attach(struct device *dev, struct error *err)
{
    struct recorder *recorder = recorder_of(dev);
    int ret;

    for (unsigned i = 0; i < sizeof(recorder->bytes); i++)
        recorder->bytes[i] = (uint8_t)(0x10 + i);
    ret = device_map_ports(dev, PORT, (uint16_t)recorder->size_bytes, recorder->ops, err);
    return ret ? ret : device_map_memory(dev, MMIO, recorder->size_bytes, recorder->ops, err);
}

static const struct property recorder_properties[] = {
    PROPERTY_POINTER(struct recorder, ops, "access sizes"),
    PROPERTY_U32(struct recorder, size_bytes, 64, "bytes of registers"),
    PROPERTY_END,
};

static const struct device_class recorder_class = {
    .name = "recorder",
    .summary = "writes down how it is accessed",
    .instance_size = sizeof(struct recorder),
    .properties = recorder_properties,
    .attach = recorder_attach,
};

#define OPS(min, max)                                                                              \
    {                                                                                              \
        .name = "recorder", .read = recorder_read, .write = recorder_write, .min_size = (min),     \
        .max_size = (max)                                                                          \
    }
static const struct region_ops bytes_only = OPS(1, 1), any_size = OPS(1, 8), words_only = OPS(4, 4),
                               defaults = OPS(0, 0), two_to_four = OPS(2, 4),
                               nothing = {.name = "nothing"};

static struct device_test *t;

static int set_up(void **state)
{
    t = device_test_new(0);
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(t);
    return 0;
}

static struct recorder *add(const struct region_ops *ops, const char *properties)
{
    struct device *dev = device_test_create(t, &recorder_class, properties);
    struct error err = {0};

    assert_int_equal(device_set_pointer(dev, "ops", (void *)(uintptr_t)ops, &err), 0);
    device_test_attach(dev);
    return recorder_of(dev);
}

static void assert_log(struct recorder *recorder, const char *expected)
{
    assert_string_equal(recorder->log, expected);
    recorder->log[0] = 0;
}

static void what_fits_goes_through(void **state)
{
    struct recorder *r = add(&any_size, NULL);

    assert_int_equal(test_read(t, MMIO, 1), 0x10);
    assert_int_equal(test_read(t, MMIO + 2, 2), 0x1312);
    assert_int_equal(test_read(t, MMIO + 4, 4), 0x17161514);
    assert_int_equal(test_read(t, MMIO + 8, 8), 0x1f1e1d1c1b1a1918ull);
    assert_log(r, "r0.1 r2.2 r4.4 r8.8 ");
    assert_int_equal(test_inl(t, PORT + 4), 0x17161514);
    test_outw(t, PORT + 6, 0xbeef);
    assert_log(r, "r4.4 w6.2=beef ");
}

static void large_accesses_are_split(void **state)
{
    struct recorder *r = add(&bytes_only, NULL);

    assert_int_equal(test_read(t, MMIO, 4), 0x13121110);
    assert_log(r, "r0.1 r1.1 r2.1 r3.1 ");
    test_write(t, MMIO + 1, 0xaabb, 2);
    assert_log(r, "w1.1=bb w2.1=aa ");
    test_outl(t, PORT, 0x01020304);
    assert_log(r, "w0.1=4 w1.1=3 w2.1=2 w3.1=1 ");
}

static void the_default_is_one_to_four(void **state)
{
    struct recorder *r = add(&defaults, NULL);

    assert_int_equal(test_read(t, MMIO, 8), 0x1716151413121110ull);
    assert_log(r, "r0.4 r4.4 ");
}

static void unaligned_accesses_are_cut_at_natural_borders(void **state)
{
    struct recorder *r = add(&any_size, NULL);

    assert_int_equal(test_read(t, MMIO + 1, 4), 0x14131211);
    assert_log(r, "r1.1 r2.2 r4.1 ");
    assert_int_equal(test_read(t, MMIO + 3, 8), 0x1a19181716151413ull);
    assert_log(r, "r3.1 r4.4 r8.2 ra.1 ");
}

static void small_accesses_are_cut_out_of_a_larger_one(void **state)
{
    struct recorder *r = add(&words_only, NULL);

    assert_int_equal(test_read(t, MMIO + 5, 1), 0x15);
    assert_log(r, "r4.4 ");
    assert_int_equal(test_read(t, MMIO + 6, 4), 0x19181716);
    assert_log(r, "r4.4 r8.4 ");
    test_write(t, MMIO + 5, 0xff, 1);
    assert_log(r, "r4.4 w4.4=1716ff14 ");
    test_write(t, MMIO + 6, 0xaabbccdd, 4);
    assert_log(r, "r4.4 w4.4=ccddff14 r8.4 w8.4=1b1aaabb ");
}

static void pieces_below_the_smallest_size_are_merged(void **state)
{
    struct recorder *r = add(&two_to_four, NULL);

    assert_int_equal(test_read(t, MMIO + 1, 4), 0x14131211);
    assert_log(r, "r0.2 r2.2 r4.2 ");
}

static void nobody_is_asked_beyond_the_end(void **state)
{
    struct recorder *r = add(&words_only, "size-bytes=6");

    /* The word at 4 is only half there. */
    assert_int_equal(test_read(t, MMIO + 4, 2), 0xffff);
    test_write(t, MMIO + 4, 0, 2);
    assert_log(r, "");
    assert_int_equal(test_read(t, MMIO + 2, 4), 0xffff1312);
    assert_log(r, "r0.4 ");
}

static void an_access_may_cross_into_ram(void **state)
{
    struct recorder *r = add(&any_size, "size-bytes=8");
    uint64_t end = t->ram.size_bytes;

    assert_int_equal(test_read(t, MMIO + 6, 4), 0xffff1716);
    assert_log(r, "r6.2 ");
    test_write(t, end - 2, 0x44332211, 4);
    assert_int_equal(test_read(t, end - 2, 4), 0xffff2211);
    test_write(t, 0x1ffe, 0x8877665544332211ull, 8);
    assert_int_equal(test_read(t, 0x1ffe, 8), 0x8877665544332211ull);
    assert_int_equal(test_read(t, 0x2000, 1), 0x33);
}

static void unclaimed_reads_are_all_ones(void **state)
{
    assert_int_equal(test_inb(t, 0x80), 0xff);
    assert_int_equal(test_inw(t, 0x80), 0xffff);
    assert_int_equal(test_inl(t, 0x80), 0xffffffff);
    test_outl(t, 0x80, 1);
    assert_true(test_read(t, 0xd0000000, 8) == UINT64_MAX);
    assert_int_equal(test_read(t, UINT64_MAX - 3, 4), 0xffffffff);
    test_write(t, 0xd0000000, 1, 8);
}

static void ports_end_at_64k(void **state)
{
    assert_int_equal(test_inl(t, 0xffff), 0xffffffff);
    test_outl(t, 0xfffe, 0x12345678);
}

static void an_access_may_cross_two_claims(void **state)
{
    struct recorder *r = add(&any_size, "size-bytes=2");

    assert_int_equal(test_inl(t, PORT - 1), 0xff1110ff);
    assert_log(r, "r0.2 ");
    assert_int_equal(test_inl(t, PORT), 0xffff1110);
    test_outl(t, PORT, 0xddccbbaa);
    assert_log(r, "r0.2 w0.2=bbaa ");
}

static void a_device_without_functions_floats(void **state)
{
    add(&nothing, NULL);
    assert_int_equal(test_inw(t, PORT), 0xffff);
    test_outw(t, PORT, 0);
}

static void line_20_is_masked_while_off(void **state)
{
    struct device_test *big = device_test_new(4 << 20);

    test_write(big, 0x100000, 0xaa, 1);
    machine_lock(big->machine);
    machine_set_a20(big->machine, false);
    machine_unlock(big->machine);
    assert_false(machine_a20(big->machine));
    assert_int_equal(test_read(big, 0x100000, 1), 0);
    test_write(big, 0x100000, 0xbb, 1);
    test_write(big, 0x300000, 0xcc, 1); /* goes to 2 MiB */
    machine_lock(big->machine);
    machine_set_a20(big->machine, true);
    machine_unlock(big->machine);
    assert_int_equal(test_read(big, 0x100000, 1), 0xaa);
    assert_int_equal(test_read(big, 0, 1), 0xbb);
    assert_int_equal(test_read(big, 0x200000, 1), 0xcc);
    device_test_free(big);
}

static void line_20_is_masked_for_each_byte(void **state)
{
    struct device_test *big = device_test_new(4 << 20);

    test_write(big, 0, 0x2211, 2);
    test_write(big, 0x0ffffe, 0x66554433, 4);
    machine_lock(big->machine);
    machine_set_a20(big->machine, false);
    machine_unlock(big->machine);
    assert_int_equal(test_read(big, 0x0ffffe, 4), 0x22114433);
    test_write(big, 0x1ffffe, 0xdeadbeef, 4); /* at 0xffffe and 2 MiB */
    assert_int_equal(test_read(big, 0x0ffffe, 4), 0x2211beef);
    assert_int_equal(test_read(big, 0x200000, 2), 0xdead);
    device_test_free(big);
}

static void the_lock_may_be_held_already(void **state)
{
    add(&any_size, NULL);
    machine_lock(t->machine);
    assert_true(machine_is_locked_by_me(t->machine));
    assert_int_equal(test_inb(t, PORT), 0x10);
    assert_int_equal(test_read(t, MMIO, 1), 0x10);
    assert_true(machine_is_locked_by_me(t->machine));
    machine_unlock(t->machine);
    assert_false(machine_is_locked_by_me(t->machine));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_fits_goes_through, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_accesses_are_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_default_is_one_to_four, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unaligned_accesses_are_cut_at_natural_borders, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(small_accesses_are_cut_out_of_a_larger_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(pieces_below_the_smallest_size_are_merged, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nobody_is_asked_beyond_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_access_may_cross_into_ram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unclaimed_reads_are_all_ones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ports_end_at_64k, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_access_may_cross_two_claims, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_device_without_functions_floats, set_up, tear_down),
        cmocka_unit_test(line_20_is_masked_while_off),
        cmocka_unit_test(line_20_is_masked_for_each_byte),
        cmocka_unit_test_setup_teardown(the_lock_may_be_held_already, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
