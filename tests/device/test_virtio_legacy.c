/*
 * test_virtio_legacy.c - a transitional disk as an old driver sees it: ports, queues in one piece
 */
#include "virtio_disk.h"

#define PORT(at) (uint16_t)(DRIVER_LEGACY_PORT + (at))
#define PAGE     0x08
#define NOTIFY   0x10
#define STATUS   0x12
#define ISR      0x13
#define CONFIG   0x14 /* without messages */

static int set_up_legacy(void **state)
{
    (void)state;
    make_machine("", "addr=3,serial=disk-1,transitional=on");
    virtio_driver_find_legacy(&f.d, f.t, SLOT);
    return 0;
}

static void start_old(uint64_t features)
{
    assert_true(virtio_driver_negotiate(&f.d, features));
    driver_queue_set_up(&f.q, &f.d, 0, 0);
    virtio_driver_start(&f.d);
    assert_int_equal(driver_status(&f.d), 0x07);
}

static void it_has_both_interfaces(void **state)
{
    (void)state;
    assert_int_equal(driver_config_read(&f.d, PCI_VENDOR_ID, 4), 0x10011af4);
    assert_int_equal(driver_config_read(&f.d, PCI_REVISION, 4), 0x01800000);
    assert_int_equal(driver_config_read(&f.d, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x00021af4);
    assert_int_equal(test_inl(f.t, PORT(CONFIG)), DISK_BYTES / SECTOR);
    assert_int_equal(test_inw(f.t, PORT(CONFIG + 34)), 2); /* queues */
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_SIZE, 2), VIRTIO_QUEUE_SIZE);
    assert_int_equal(virtio_driver_offered(&f.d) & (F_RO | F_FLUSH | F_MQ), F_FLUSH | F_MQ);
    f.d.port = 0;
    driver_config_write(&f.d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    start(PACKED, 16);
    assert_int_equal(do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR), OK);
}

static void it_reads_and_writes(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    uint8_t there[SECTOR];

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 1);
    start_old(F_FLUSH);
    assert_int_equal(test_inl(f.t, PORT(PAGE)), f.q.descriptors >> 12);
    for (unsigned n = 0; n < 300; n++) { /* around the ring */
        assert_int_equal(do_request(IN, n, gpa, SECTOR), OK);
        disk_read_image(f.path, n * SECTOR, there, SECTOR);
        assert_memory_equal(ram(gpa), there, SECTOR);
        assert_true(f.intx.level);
        assert_int_equal(test_inb(f.t, PORT(ISR)), 1);
        assert_false(f.intx.level);
        f.d.next_gpa -= 32; /* header and status are used again */
    }
    disk_fill(ram(gpa), SECTOR, 9);
    assert_int_equal(do_request(OUT, 1, gpa, SECTOR), OK);
    disk_read_image(f.path, SECTOR, there, SECTOR);
    assert_memory_equal(ram(gpa), there, SECTOR);
}

/* Linux before 2010 read the partition table in its probe. */
static void it_works_before_driver_ok(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    virtio_driver_negotiate(&f.d, 0);
    driver_queue_set_up(&f.q, &f.d, 0, 0);
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    driver_write(&f.d, COMMON_ACCEPTED, F_FLUSH, 4); /* and agreed on features only then */
    virtio_driver_start(&f.d);
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    assert_int_equal(driver_read(&f.d, COMMON_ACCEPTED, 4), F_FLUSH);
}

static void features_are_those_offered(void **state)
{
    (void)state;
    virtio_driver_negotiate(&f.d, UINT32_MAX);
    assert_int_equal(driver_read(&f.d, COMMON_ACCEPTED, 4), virtio_driver_offered(&f.d));
}

static void with_messages_configuration_is_further_behind(void **state)
{
    (void)state;
    driver_config_write(&f.d, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
                        2);
    virtio_driver_use_msix(&f.d);
    assert_int_equal(test_inl(f.t, PORT(CONFIG + 4)), DISK_BYTES / SECTOR);
    assert_int_equal(test_inw(f.t, PORT(CONFIG)), VIRTIO_NO_VECTOR);
    start_old(0);
    driver_write(&f.d, COMMON_QUEUE_VECTOR, 1, 2);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_VECTOR, 2), 1);
    driver_write(&f.d, COMMON_CONFIG_VECTOR, 99, 2);
    assert_int_equal(driver_read(&f.d, COMMON_CONFIG_VECTOR, 2), VIRTIO_NO_VECTOR);
    do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 1);
    assert_int_equal(test_inb(f.t, PORT(ISR)), 0);
}

static void a_queue_without_a_page_is_a_reset(void **state)
{
    (void)state;
    start_old(F_FLUSH);
    do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR);
    test_outl(f.t, PORT(PAGE), 0x77); /* it stays where it is */
    assert_int_equal(test_inl(f.t, PORT(PAGE)), f.q.descriptors >> 12);
    test_outl(f.t, PORT(PAGE), 0);
    assert_int_equal(test_inl(f.t, PORT(PAGE)), 0);
    assert_int_equal(driver_status(&f.d), 0);
    assert_false(f.intx.level);
    start_old(0);
    assert_int_equal(do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR), OK);
}

static void a_queue_beyond_ram_breaks_it(void **state)
{
    (void)state;
    virtio_driver_negotiate(&f.d, 0);
    test_outl(f.t, PORT(PAGE), (RAM_BYTES >> 12) - 2);
    assert_int_equal(driver_status(&f.d), 0x03 | VIRTIO_NEEDS_RESET);
    virtio_driver_negotiate(&f.d, 0);
    test_outl(f.t, PORT(PAGE), 0xffffffff);
    assert_int_equal(driver_status(&f.d), 0x03 | VIRTIO_NEEDS_RESET);
    virtio_driver_negotiate(&f.d, 0);
    test_outl(f.t, PORT(PAGE), (RAM_BYTES >> 12) - 3);
    assert_int_equal(driver_status(&f.d), 0x03);
}

/* Half a driver of each kind: what one has set up is not taken for the other's. */
static void interfaces_do_not_mix(void **state)
{
    struct virtio_driver modern = f.d;

    (void)state;
    modern.port = 0;
    test_outl(f.t, PORT(PAGE), 0x100); /* before any status */
    assert_int_equal(test_inl(f.t, PORT(PAGE)), 0);
    driver_write(&modern, COMMON_ACCEPTED_SELECT, 1, 4);
    driver_write(&modern, COMMON_ACCEPTED, PACKED >> 32, 4);
    virtio_driver_negotiate(&f.d, F_FLUSH);
    driver_write(&modern, COMMON_ACCEPTED_SELECT, 1, 4);
    assert_int_equal(driver_read(&modern, COMMON_ACCEPTED, 4), 0);
    driver_queue_set_up(&f.q, &f.d, 0, 0);
    driver_write(&modern, COMMON_ACCEPTED, PACKED >> 32, 4);
    assert_int_equal(driver_read(&modern, COMMON_ACCEPTED, 4), 0);
    driver_write(&modern, COMMON_STATUS, 0x0b, 1);
    assert_int_equal(driver_status(&modern), 0x03);
    assert_int_equal(do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR), OK);

    assert_true(virtio_driver_negotiate(&modern, V1));
    test_outb(f.t, PORT(STATUS), 0x07);
    assert_int_equal(driver_status(&modern), 0x0b);
    test_outl(f.t, PORT(4), UINT32_MAX);
    test_outl(f.t, PORT(PAGE), 0x100);
    test_outw(f.t, PORT(NOTIFY), 0);
    driver_write(&modern, COMMON_ACCEPTED_SELECT, 0, 4);
    assert_int_equal(driver_read(&modern, COMMON_ACCEPTED, 4), 0);
    assert_int_equal(driver_read(&modern, COMMON_QUEUE_ENABLE, 2), 0);
}

static void its_state_goes_on(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    start_old(F_FLUSH);
    do_request(IN, 0, gpa, SECTOR);
    device_test_round_trip(f.t, f.blk);
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    device_test_reset(f.t);
    assert_int_equal(driver_config_read(&f.d, PCI_COMMAND, 2), 0);
}

static void odd_accesses_do_no_harm(void **state)
{
    (void)state;
    start_old(0);
    for (unsigned at = 0; at < 128; at++)
        for (unsigned size = 1; size <= 4; size *= 2)
            bus_port_read(f.t->machine, PORT(at), size);
    for (unsigned at = CONFIG; at < 128; at++)
        test_outl(f.t, PORT(at), 0xffffffff);
    assert_int_equal(test_inl(f.t, PORT(124)), 0);
    driver_write(&f.d, COMMON_QUEUE_SELECT, 9, 2);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_SIZE, 2), 0);
    test_outl(f.t, PORT(PAGE), 0);
    test_outw(f.t, PORT(NOTIFY), 0xffff);
    assert_int_equal(driver_status(&f.d), 0x07);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_legacy, tear_down_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_has_both_interfaces),
        TEST(it_reads_and_writes),
        TEST(it_works_before_driver_ok),
        TEST(features_are_those_offered),
        TEST(with_messages_configuration_is_further_behind),
        TEST(a_queue_without_a_page_is_a_reset),
        TEST(a_queue_beyond_ram_breaks_it),
        TEST(interfaces_do_not_mix),
        TEST(its_state_goes_on),
        TEST(odd_accesses_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
