/*
 * test_fw_cfg.c - firmware configuration: selector, data, DMA, directory, hostile DMA
 */
#include <stdio.h>

#include "base/bytes.h"
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/fw_cfg.h"

#define SELECTOR 0x510
#define DATA     0x511
#define DMA      0x514
#define DESC     0x1000
#define BUFFER   0x2000
#define RAM      0x100000u

#define ERROR    0x01
#define READ     0x02
#define SKIP     0x04
#define SELECT   0x08
#define WRITE    0x10

struct fixture {
    struct device_test *t;
    struct device *dev;
    uint8_t *writable;
    unsigned selections;
    size_t written_offset, written_size;
};

static struct fixture f;

static void on_selected(void *opaque)
{
    ((struct fixture *)opaque)->selections++;
}

static void on_written(void *opaque, size_t offset, size_t size_bytes)
{
    struct fixture *fixture = opaque;

    fixture->written_offset = offset;
    fixture->written_size = size_bytes;
}

static const struct fw_cfg_item_ops watched = {.selected = on_selected};
static const struct fw_cfg_item_ops writable = {.written = on_written};

static int set_up(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(RAM)};
    f.dev = device_test_add(f.t, &fw_cfg_class, NULL);
    assert_int_equal(fw_cfg_add_u16(f.dev, FW_CFG_NB_CPUS, 4, NULL), 0);
    assert_int_equal(fw_cfg_add_file(f.dev, "etc/one", "first file", 10, &watched, &f, NULL, NULL),
                     0);
    assert_int_equal(
        fw_cfg_add_file(f.dev, "etc/two", "........", 8, &writable, &f, &f.writable, NULL), 0);
    device_test_start(f.t);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint8_t next(void)
{
    return test_inb(f.t, DATA);
}

static uint32_t be32(uint32_t value)
{
    return __builtin_bswap32(value);
}

static void put(uint64_t gpa, const void *data, size_t size)
{
    assert_int_equal(memory_write(machine_memory(f.t->machine), gpa, data, size), 0);
}

static void get(uint64_t gpa, void *data, size_t size)
{
    assert_int_equal(memory_read(machine_memory(f.t->machine), gpa, data, size), 0);
}

/* Carry out one transfer; returns what the device left in the control word. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    uint8_t desc[16];
    uint32_t result;

    put_le32(desc, be32(control));
    put_le32(desc + 4, be32(length));
    put_le32(desc + 8, be32((uint32_t)(address >> 32)));
    put_le32(desc + 12, be32((uint32_t)address));
    put(DESC, desc, sizeof(desc));
    test_outl(f.t, DMA, 0);
    test_outl(f.t, DMA + 4, be32(DESC));
    get(DESC, &result, 4);
    return be32(result);
}

static void signature_and_features(void **state)
{
    (void)state;
    test_outw(f.t, SELECTOR, FW_CFG_SIGNATURE);
    assert_int_equal(next(), 'Q');
    assert_int_equal(next(), 'E');
    assert_int_equal(next(), 'M');
    assert_int_equal(next(), 'U');
    assert_int_equal(next(), 0);
    test_outw(f.t, SELECTOR, FW_CFG_ID);
    assert_int_equal(next(), 3);
    assert_int_equal(test_inl(f.t, DMA), 0x554d4551);     /* "QEMU" */
    assert_int_equal(test_inl(f.t, DMA + 4), 0x47464320); /* " CFG" */
}

static void selecting_starts_again(void **state)
{
    (void)state;
    test_outw(f.t, SELECTOR, FW_CFG_NB_CPUS);
    assert_int_equal(next(), 4);
    test_outw(f.t, SELECTOR, FW_CFG_NB_CPUS);
    assert_int_equal(next(), 4);
    assert_int_equal(next(), 0);
    assert_int_equal(next(), 0);
}

static void unknown_keys_read_as_zero(void **state)
{
    static const uint16_t keys[] = {0x1f, 0x20 + FW_CFG_FILE_MAX, 0x3fff, 0x8005, 0xffff};

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        test_outw(f.t, SELECTOR, keys[i]);
        assert_int_equal(next(), 0);
    }
}

static void directory_lists_the_files(void **state)
{
    uint8_t dir[4 + 2 * 64];

    (void)state;
    test_outw(f.t, SELECTOR, FW_CFG_FILE_DIR);
    for (unsigned i = 0; i < sizeof(dir); i++)
        dir[i] = next();
    assert_int_equal(be32(get_le32(dir)), 2);
    assert_int_equal(be32(get_le32(dir + 4)), 10);
    assert_int_equal(dir[8] << 8 | dir[9], 0x20);
    assert_string_equal((char *)dir + 12, "etc/one");
    assert_int_equal(be32(get_le32(dir + 68)), 8);
    assert_int_equal(dir[72] << 8 | dir[73], 0x21);
    assert_string_equal((char *)dir + 76, "etc/two");
}

static void dma_reads_and_pads_with_zeros(void **state)
{
    char got[16];

    (void)state;
    memset(got, 'x', sizeof(got));
    put(BUFFER, got, sizeof(got));
    assert_int_equal(dma(0x20 << 16 | SELECT | READ, 12, BUFFER), 0);
    get(BUFFER, got, sizeof(got));
    assert_memory_equal(got, "first file\0\0xxxx", 16);
    assert_int_equal(f.selections, 1);
}

static void dma_skips_and_goes_on(void **state)
{
    char got[5] = "";

    (void)state;
    assert_int_equal(dma(0x20 << 16 | SELECT | SKIP, 6, 0), 0);
    assert_int_equal(dma(READ, 4, BUFFER), 0);
    get(BUFFER, got, 4);
    assert_string_equal(got, "file");
}

static void dma_writes_where_it_may(void **state)
{
    (void)state;
    put(BUFFER, "guest", 5);
    assert_int_equal(dma(0x21 << 16 | SELECT | SKIP, 2, 0), 0);
    assert_int_equal(dma(WRITE, 5, BUFFER), 0);
    assert_memory_equal(f.writable, "..guest.", 8);
    assert_int_equal(f.written_offset, 2);
    assert_int_equal(f.written_size, 5);
    assert_int_equal(dma(0x21 << 16 | SELECT | WRITE, 9, BUFFER), ERROR); /* too long */
    assert_int_equal(dma(0x20 << 16 | SELECT | WRITE, 1, BUFFER), ERROR); /* read-only */
    assert_memory_equal(f.writable, "..guest.", 8);
}

static void nothing_can_be_written_behind_the_end(void **state)
{
    (void)state;
    assert_int_equal(dma(0x21 << 16 | SELECT | SKIP, 9, 0), 0);
    f.written_offset = 1234;
    assert_int_equal(dma(WRITE, 0, BUFFER), ERROR);
    assert_int_equal(f.written_offset, 1234);
}

static void hostile_dma_ends_with_an_error(void **state)
{
    (void)state;
    assert_int_equal(dma(0x20 << 16 | SELECT | READ, UINT32_MAX, BUFFER), ERROR);
    assert_int_equal(dma(0x20 << 16 | SELECT | READ, 16, RAM - 4), ERROR);
    assert_int_equal(dma(0x20 << 16 | SELECT | READ, 16, UINT64_MAX - 3), ERROR);
    assert_int_equal(dma(SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(dma(SKIP, UINT32_MAX, 0), 0);
    assert_int_equal(dma(READ, 4, BUFFER), 0);
    assert_int_equal(dma(0x21 << 16 | SELECT | WRITE, 8, RAM - 4), ERROR);
    assert_int_equal(next(), 0);
}

static void descriptors_outside_ram_are_ignored(void **state)
{
    (void)state;
    test_outl(f.t, DMA, UINT32_MAX);
    test_outl(f.t, DMA + 4, UINT32_MAX);
    test_outl(f.t, DMA + 4, be32(RAM - 8));
    test_outw(f.t, SELECTOR, FW_CFG_SIGNATURE);
    assert_int_equal(next(), 'Q');
}

static void the_board_is_told_what_is_wrong(void **state)
{
    struct error err = {0};
    char name[FW_CFG_NAME_SIZE + 1];

    (void)state;
    assert_int_equal(fw_cfg_add_u16(f.dev, FW_CFG_NB_CPUS, 1, NULL), -EEXIST);
    assert_int_equal(fw_cfg_add_item(f.dev, FW_CFG_FILE_FIRST, "", 0, NULL), -EINVAL);
    assert_int_equal(fw_cfg_add_file(f.dev, "etc/one", "", 0, NULL, NULL, NULL, &err), -EEXIST);
    assert_non_null(strstr(err.text, "etc/one"));
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    assert_int_equal(fw_cfg_add_file(f.dev, name, "", 0, NULL, NULL, NULL, NULL), -EINVAL);
    for (unsigned i = 2; i < FW_CFG_FILE_MAX; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        assert_int_equal(fw_cfg_add_file(f.dev, name, "", 0, NULL, NULL, NULL, NULL), 0);
    }
    assert_int_equal(fw_cfg_add_file(f.dev, "more", "", 0, NULL, NULL, NULL, NULL), -ENOSPC);
}

static void state_round_trip(void **state)
{
    (void)state;
    test_outw(f.t, SELECTOR, 0x20);
    next();
    test_outl(f.t, DMA, be32(0x12345678));
    device_test_round_trip(f.t, f.dev);
    assert_int_equal(next(), 'i');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(signature_and_features),          TEST(selecting_starts_again),
        TEST(unknown_keys_read_as_zero),       TEST(directory_lists_the_files),
        TEST(dma_reads_and_pads_with_zeros),   TEST(dma_skips_and_goes_on),
        TEST(dma_writes_where_it_may),         TEST(nothing_can_be_written_behind_the_end),
        TEST(hostile_dma_ends_with_an_error),  TEST(descriptors_outside_ram_are_ignored),
        TEST(the_board_is_told_what_is_wrong), TEST(state_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
