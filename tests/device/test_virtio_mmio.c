/*
 * test_virtio_mmio.c - virtio without PCI: places, registers, interrupts, with disks behind them
 */
#include "virtio_disk.h"

#define BASE      0xfec10000u
#define MAGIC     0x74726976u
#define REG(at)   (f.d.mmio + (at))
#define READY     0x44u
#define INTERRUPT 0x60u
#define ACK       0x64u

static struct device *add_disk(void)
{
    struct device *dev = device_test_create(f.t, &virtio_blk_mmio_class, "serial=disk-1");
    struct error err = {0};

    assert_int_equal(device_set_pointer(dev, "drive", f.disk, &err), 0);
    return dev;
}

static int set_up_mmio(void **state)
{
    (void)state;
    make_image();
    open_disk("");
    f.host = device_test_add(f.t, &virtio_mmio_bus_class, "gpa=0xfec10000");
    f.blk = add_disk();
    device_test_attach(f.blk);
    test_irq_connect(&f.intx, device_output(f.host, "irq", 0));
    device_test_start(f.t);
    virtio_driver_find_mmio(&f.d, f.t, BASE);
    return 0;
}

static uint32_t reg(unsigned at)
{
    return (uint32_t)test_read(f.t, REG(at), 4);
}

static void it_is_a_disk_in_the_first_place(void **state)
{
    (void)state;
    assert_int_equal(reg(0), MAGIC);
    assert_int_equal(reg(4), 2);
    assert_int_equal(reg(8), 2); /* a block device */
    assert_int_equal(reg(0xc), 0x1af4);
    assert_int_equal(reg(0x34), VIRTIO_QUEUE_SIZE);
    assert_int_equal(test_read(f.t, f.d.config, 4), DISK_BYTES / SECTOR);
    assert_int_equal(test_read(f.t, f.d.config + 34, 2), 2);
    assert_int_equal(test_read(f.t, f.d.config + 60, 4), 0);
    assert_int_equal(virtio_driver_offered(&f.d) & (V1 | F_RO | F_FLUSH | F_MQ | F_DISCARD),
                     V1 | F_FLUSH | F_MQ | F_DISCARD);
    for (unsigned at = 0xb0; at <= 0xbc; at += 4) /* no shared memory */
        assert_int_equal(reg(at), 0xffffffff);
    assert_int_equal(virtio_mmio_taken(f.t->machine), 1);
    assert_int_equal(test_read(f.t, BASE + 0x1000, 4), 0xffffffff);
}

static void registers_are_accessed_whole(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, REG(0), 1), 0);
    assert_int_equal(test_read(f.t, REG(0), 2), 0);
    assert_int_equal(test_read(f.t, REG(0), 8), (uint64_t)2 << 32 | MAGIC);
    test_write(f.t, REG(0x70), 1, 1);
    assert_int_equal(reg(0x70), 0);
    for (unsigned at = 0; at < 0x1000; at++)
        for (unsigned size = 1; size <= 8; size *= 2)
            test_read(f.t, REG(at), size);
}

static void it_reads_and_writes(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    uint8_t there[SECTOR];

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 1);
    for (unsigned turn = 0; turn < 2; turn++) {
        start(turn ? PACKED : V1, 16);
        assert_int_equal(do_request(IN, turn, gpa, SECTOR), OK);
        disk_read_image(f.path, turn * SECTOR, there, SECTOR);
        assert_memory_equal(ram(gpa), there, SECTOR);
        disk_fill(ram(gpa), SECTOR, 9 + turn);
        assert_int_equal(do_request(OUT, turn, gpa, SECTOR), OK);
        disk_read_image(f.path, turn * SECTOR, there, SECTOR);
        assert_memory_equal(ram(gpa), there, SECTOR);
    }
}

static void the_line_is_up_until_it_is_acknowledged(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    start(V1, 16);
    assert_false(f.intx.level);
    do_request(IN, 0, gpa, SECTOR);
    assert_true(f.intx.level);
    assert_int_equal(reg(INTERRUPT), 1);
    test_write(f.t, REG(ACK), 2, 4);
    assert_true(f.intx.level);
    test_write(f.t, REG(ACK), 1, 4);
    assert_false(f.intx.level);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.intx.rises, 2);
    driver_write(&f.d, COMMON_STATUS, 0, 1);
    assert_false(f.intx.level);
    start(V1, 16);
    do_request(IN, 0, gpa, SECTOR);
    assert_true(f.intx.level);
    device_test_reset(f.t);
    assert_false(f.intx.level);
}

static void places_share_lines(void **state)
{
    struct device *others[VIRTIO_MMIO_LINES];
    struct virtio_driver first = f.d;
    struct driver_queue first_queue;

    (void)state;
    for (unsigned n = 0; n < VIRTIO_MMIO_LINES; n++) {
        others[n] = add_disk();
        device_test_attach(others[n]);
    }
    assert_int_equal(virtio_mmio_taken(f.t->machine), 0x3f);
    start(V1, 16);
    do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR);
    first = f.d;
    first_queue = f.q;
    virtio_driver_find_mmio(&f.d, f.t, BASE + 0x5000);
    f.d.next_gpa = 0x100000;
    start(V1, 16);
    do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR);
    assert_int_equal(f.intx.rises, 1);
    test_write(f.t, REG(ACK), 1, 4);
    assert_true(f.intx.level);
    f.d = first;
    f.q = first_queue;
    test_write(f.t, REG(ACK), 1, 4);
    assert_false(f.intx.level);
}

static void places_are_counted(void **state)
{
    struct error err = {0};

    (void)state;
    for (unsigned n = 1; n < VIRTIO_MMIO_PLACES; n++)
        device_test_attach(add_disk());
    assert_int_equal(device_attach(add_disk(), &err), -ENOSPC);
    assert_non_null(strstr(err.text, "10 virtio devices"));
}

static void a_machine_without_places_takes_none(void **state)
{
    struct device_test *t = device_test_new(RAM_BYTES);
    struct device *dev = device_test_create(t, &virtio_blk_mmio_class, NULL);
    struct error err = {0};

    (void)state;
    assert_int_equal(device_set_pointer(dev, "drive", f.disk, &err), 0);
    assert_int_equal(device_attach(dev, &err), -ENODEV);
    assert_int_equal(virtio_mmio_taken(t->machine), 0);
    device_test_free(t);
}

static void a_queue_that_is_taken_away_breaks_it(void **state)
{
    (void)state;
    start(V1, 16);
    assert_int_equal(reg(READY), 1);
    test_write(f.t, REG(0x80), 0x5000, 4); /* it stays where it is */
    do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR);
    test_write(f.t, REG(READY), 0, 4);
    assert_int_equal(reg(INTERRUPT) & 2, 2);
    expect_broken();
    driver_write(&f.d, COMMON_STATUS, 0, 1);
    assert_int_equal(reg(READY), 0);
    test_write(f.t, REG(READY), 0, 4); /* of a queue that is not enabled: nothing */
    assert_int_equal(driver_status(&f.d), 0);
}

static void queues_that_are_not_there_do_nothing(void **state)
{
    (void)state;
    start(V1, 16);
    test_write(f.t, REG(0x30), 2, 4);
    assert_int_equal(reg(0x34), 0);
    test_write(f.t, REG(READY), 1, 4);
    assert_int_equal(reg(READY), 0);
    test_write(f.t, REG(0x50), 77, 4);
    test_write(f.t, REG(0x50), 0xffffffff, 4);
    assert_int_equal(driver_status(&f.d), 0x0f);
}

static void its_state_goes_on(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    start(V1, 16);
    do_request(IN, 0, gpa, SECTOR);
    device_test_round_trip(f.t, f.blk);
    assert_true(f.intx.level);
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    test_write(f.t, REG(ACK), 3, 4);
    assert_false(f.intx.level);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_mmio, tear_down_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_disk_in_the_first_place),
        TEST(registers_are_accessed_whole),
        TEST(it_reads_and_writes),
        TEST(the_line_is_up_until_it_is_acknowledged),
        TEST(places_share_lines),
        TEST(places_are_counted),
        TEST(a_machine_without_places_takes_none),
        TEST(a_queue_that_is_taken_away_breaks_it),
        TEST(queues_that_are_not_there_do_nothing),
        TEST(its_state_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
