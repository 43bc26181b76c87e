/*
 * test_virtio_pci.c - virtio over PCI: registers, features, interrupts, with a disk behind them
 */
#include "virtio_disk.h"

/* ---- transport ---- */

static void it_is_a_modern_virtio_disk(void **state)
{
    (void)state;
    assert_int_equal(driver_config_read(&f.d, PCI_VENDOR_ID, 4), 0x10421af4);
    assert_int_equal(driver_config_read(&f.d, PCI_REVISION, 4), 0x01800001);
    assert_int_equal(driver_config_read(&f.d, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x10421af4);
    assert_int_equal(test_read(f.t, f.d.config, 8), DISK_BYTES / SECTOR);
    assert_int_equal(test_read(f.t, f.d.config + 20, 4), SECTOR);
    assert_int_equal(test_read(f.t, f.d.config + 34, 2), 2); /* queues: one a processor */
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_COUNT, 2), 2);
    assert_int_equal(test_read(f.t, f.d.config + 60, 4), 0);
    assert_int_equal(virtio_driver_offered(&f.d) & (V1 | F_RO | F_FLUSH | F_MQ | F_DISCARD),
                     V1 | F_FLUSH | F_MQ | F_DISCARD);
    driver_write(&f.d, COMMON_OFFERED_SELECT, 2, 4);
    assert_int_equal(driver_read(&f.d, COMMON_OFFERED, 4), 0);
}

static void features_that_are_not_offered_are_refused(void **state)
{
    (void)state;
    assert_false(virtio_driver_negotiate(&f.d, V1 | 1ull << 40));
    assert_false(virtio_driver_negotiate(&f.d, V1 | 1ull << 0));
    assert_false(virtio_driver_negotiate(&f.d, F_FLUSH)); /* without VERSION_1 */
    assert_true(virtio_driver_negotiate(&f.d, virtio_driver_offered(&f.d)));
    driver_write(&f.d, COMMON_ACCEPTED_SELECT, 0, 4);
    driver_write(&f.d, COMMON_ACCEPTED, 0, 4); /* too late */
    assert_int_equal(driver_read(&f.d, COMMON_ACCEPTED, 4), (uint32_t)virtio_driver_offered(&f.d));
}

static void status_bits_are_cleared_by_a_reset_only(void **state)
{
    (void)state;
    start(V1, 16);
    driver_write(&f.d, COMMON_STATUS, VIRTIO_ACKNOWLEDGE, 1);
    assert_int_equal(driver_status(&f.d), 0x0f);
    driver_write(&f.d, COMMON_STATUS, 0xff, 1);
    assert_int_equal(driver_status(&f.d), 0x8f); /* NEEDS_RESET is not the driver's to set */
    driver_write(&f.d, COMMON_STATUS, 0, 1);
    assert_int_equal(driver_status(&f.d), 0);
    driver_write(&f.d, COMMON_QUEUE_SELECT, 0, 2);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_ENABLE, 2), 0);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_SIZE, 2), VIRTIO_QUEUE_SIZE);
    assert_int_equal(driver_read(&f.d, COMMON_DESCRIPTORS, 8), 0);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_VECTOR, 2), VIRTIO_NO_VECTOR);
}

static void a_driver_without_agreed_features_breaks_it(void **state)
{
    (void)state;
    driver_write(&f.d, COMMON_STATUS, 0x07, 1);
    assert_true(driver_is_broken(&f.d));
}

static void a_queue_before_the_features_breaks_it(void **state)
{
    (void)state;
    /* Enabled as a packed ring at the end of RAM, it would be used as a split one beyond it. */
    driver_write(&f.d, COMMON_STATUS, 0x03, 1);
    driver_write(&f.d, COMMON_ACCEPTED_SELECT, 1, 4);
    driver_write(&f.d, COMMON_ACCEPTED, PACKED >> 32, 4);
    f.q = (struct driver_queue){.driver = &f.d,
                                .size = 200,
                                .descriptors = 0x10000,
                                .driver_area = RAM_BYTES - 4,
                                .device_area = RAM_BYTES - 4};
    driver_queue_enable(&f.q);
    assert_true(driver_is_broken(&f.d));
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_ENABLE, 2), 0);
}

static void enable_queue(uint64_t features, unsigned size, uint64_t descriptors,
                         uint64_t driver_area, uint64_t device_area, bool works)
{
    struct driver_queue q = {.driver = &f.d,
                             .size = size,
                             .descriptors = descriptors,
                             .driver_area = driver_area,
                             .device_area = device_area};

    assert_true(virtio_driver_negotiate(&f.d, features));
    driver_queue_enable(&q);
    if ((driver_read(&f.d, COMMON_QUEUE_ENABLE, 2) == 1) != works ||
        !(driver_status(&f.d) & VIRTIO_NEEDS_RESET) != works)
        fail_msg("size %u at 0x%llx, 0x%llx, 0x%llx", size, (unsigned long long)descriptors,
                 (unsigned long long)driver_area, (unsigned long long)device_area);
}

static void queues_lie_in_ram_and_have_a_size(void **state)
{
    uint64_t end = RAM_BYTES;

    (void)state;
    enable_queue(V1, 16, 0x10000, 0x20000, 0x30000, true);
    enable_queue(V1, 256, end - 4096, 0x20000, 0x30000, true);
    enable_queue(V1, 256, end - 4080, 0x20000, 0x30000, false);
    enable_queue(V1, 16, 0x10000, end - 38, 0x30000, true);
    enable_queue(V1, 16, 0x10000, end - 36, 0x30000, false);
    enable_queue(V1, 16, 0x10000, 0x20000, end - 136, true);
    enable_queue(V1, 16, 0x10000, 0x20000, end - 132, false);
    enable_queue(PACKED, 16, end - 256, end - 4, end - 4, true);
    enable_queue(PACKED, 16, end - 240, end - 4, end - 4, false);
    enable_queue(PACKED, 17, 0x10000, end - 4, end, false);
    enable_queue(PACKED, 17, 0x10000, 0x20000, 0x30000, true);
    enable_queue(V1, 17, 0x10000, 0x20000, 0x30000, false);
    enable_queue(V1, 0, 0x10000, 0x20000, 0x30000, false);
    enable_queue(V1, 512, 0x10000, 0x20000, 0x30000, false);
    enable_queue(V1, 16, 0x10008, 0x20000, 0x30000, false);
    enable_queue(V1, 16, 0x10000, 0x20001, 0x30000, false);
    enable_queue(V1, 16, 0x10000, 0x20000, 0x30002, false);
    enable_queue(V1, 16, UINT64_MAX - 15, 0x20000, 0x30000, false);
    enable_queue(V1, 16, f.d.common & ~15ull, 0x20000, 0x30000, false);
}

static void an_enabled_queue_stays_where_it_is(void **state)
{
    (void)state;
    start(V1, 16);
    driver_write(&f.d, COMMON_DESCRIPTORS, 0x5000, 8);
    driver_write(&f.d, COMMON_QUEUE_SIZE, 8, 2);
    driver_write(&f.d, COMMON_QUEUE_ENABLE, 0, 2);
    assert_int_equal(driver_read(&f.d, COMMON_DESCRIPTORS, 8), f.q.descriptors);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_SIZE, 2), 16);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_ENABLE, 2), 1);
    driver_write(&f.d, COMMON_QUEUE_VECTOR, 2, 2);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_VECTOR, 2), 2);
    driver_write(&f.d, COMMON_QUEUE_VECTOR, 3, 2); /* of 3 */
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_VECTOR, 2), VIRTIO_NO_VECTOR);
    driver_write(&f.d, COMMON_QUEUE_SELECT, 2, 2); /* of 2 */
    driver_write(&f.d, COMMON_QUEUE_ENABLE, 1, 2);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_SIZE, 2), 0);
    assert_int_equal(driver_status(&f.d), 0x0f);
}

static uint32_t window_read(unsigned offset, unsigned size)
{
    driver_config_write(&f.d, f.d.window + 4, 4, 1);
    driver_config_write(&f.d, f.d.window + 8, offset, 4);
    driver_config_write(&f.d, f.d.window + 12, size, 4);
    return driver_config_read(&f.d, f.d.window + 16, size == 1 ? 1 : size == 2 ? 2 : 4);
}

static void registers_are_in_configuration_space_too(void **state)
{
    uint32_t common = (uint32_t)(f.d.common & 0xffff);

    (void)state;
    driver_config_write(&f.d, PCI_COMMAND, 0, 2); /* BARs are off */
    assert_int_equal(test_read(f.t, f.d.common + COMMON_QUEUE_COUNT, 2), 0xffff);
    assert_int_equal(window_read(common + COMMON_QUEUE_COUNT, 2), 2);
    assert_int_equal(window_read(common + COMMON_QUEUE_SIZE, 2), VIRTIO_QUEUE_SIZE);
    window_read(common + COMMON_STATUS, 1);
    driver_config_write(&f.d, f.d.window + 16, 0x03, 1);
    assert_int_equal(window_read(common + COMMON_STATUS, 1), 3);
    window_read((uint32_t)(f.d.config & 0xffff), 4);
    assert_int_equal(driver_config_read(&f.d, f.d.window + 16, 4), DISK_BYTES / SECTOR);
    /* Places and sizes that do not exist leave the data as it is. */
    driver_config_write(&f.d, f.d.window + 12, 3, 4);
    assert_int_equal(driver_config_read(&f.d, f.d.window + 16, 4), DISK_BYTES / SECTOR);
    window_read(0x4000, 4);
    window_read(0xfffffffc, 4);
    driver_config_write(&f.d, f.d.window + 16, 0xffffffff, 4);
    assert_int_equal(window_read(common + COMMON_STATUS, 1), 3);
}

static void odd_accesses_to_registers_do_no_harm(void **state)
{
    (void)state;
    start(V1, 16);
    for (unsigned offset = 0; offset < 0x4000; offset += offset < 0x80 ? 1 : 0x7d)
        for (unsigned size = 1; size <= 8; size *= 2)
            test_read(f.t, f.d.common + offset, size);
    assert_int_equal(driver_read(&f.d, COMMON_CONFIG_VECTOR, 4), 0); /* two registers at once */
    assert_int_equal(driver_read(&f.d, COMMON_DESCRIPTORS + 4, 4), f.q.descriptors >> 32);
    assert_int_equal(driver_read(&f.d, COMMON_DESCRIPTORS + 1, 1), f.q.descriptors >> 8 & 0xff);
    assert_int_equal(driver_status(&f.d), 0x0f);
}

/* ---- interrupts ---- */

static void the_pin_is_up_until_isr_is_read(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    start(V1, 16);
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    assert_true(f.intx.level);
    assert_int_equal(test_read(f.t, f.d.isr, 1), 1);
    assert_false(f.intx.level);
    assert_int_equal(test_read(f.t, f.d.isr, 1), 0);
    do_request(IN, 0, gpa, SECTOR);
    assert_true(f.intx.level);
    driver_write(&f.d, COMMON_STATUS, 0, 1);
    assert_false(f.intx.level);
    assert_int_equal(f.intx.rises, 2);
}

static void each_queue_has_its_message(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    struct driver_queue second;
    struct request r = request(IN, 0, gpa, SECTOR);

    (void)state;
    virtio_driver_use_msix(&f.d);
    assert_true(virtio_driver_negotiate(&f.d, V1 | F_MQ));
    driver_queue_set_up(&f.q, &f.d, 0, 16);
    driver_queue_set_up(&second, &f.d, 1, 32);
    virtio_driver_start(&f.d);
    assert_int_equal(run(&r), OK);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 1);
    assert_int_equal(f.t->msi_address, DRIVER_MSI_GPA);
    driver_queue_add(&second, r.buffers, r.count);
    driver_queue_kick(&second);
    wait_used(&second);
    assert_int_equal(f.t->msi_count, 2);
    assert_int_equal(f.t->msi_data, 2);
    assert_int_equal(f.intx.rises, 0);
    assert_int_equal(test_read(f.t, f.d.isr, 1), 0);
}

static void a_masked_message_waits(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    virtio_driver_use_msix(&f.d);
    start(V1, 16);
    driver_mask_vector(&f.d, 1, true);
    do_request(IN, 0, gpa, SECTOR);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 0);
    driver_mask_vector(&f.d, 1, false);
    assert_int_equal(f.t->msi_count, 1);
    driver_config_write(&f.d, f.d.msix + 2, 0xc000, 2);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 1);
    driver_config_write(&f.d, f.d.msix + 2, 0x8000, 2);
    assert_int_equal(f.t->msi_count, 2);
    driver_write(&f.d, COMMON_QUEUE_SELECT, 0, 2);
    driver_write(&f.d, COMMON_QUEUE_VECTOR, VIRTIO_NO_VECTOR, 2);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 2);
}

static void a_broken_device_tells_so(void **state)
{
    struct driver_buffer only = {0x1000, 4, false};

    (void)state;
    virtio_driver_use_msix(&f.d);
    start(V1, 16);
    driver_write(&f.d, COMMON_CONFIG_VECTOR, 0, 2);
    f.t->msi_data = 77;
    driver_queue_add(&f.q, &only, 1);
    driver_queue_kick(&f.q);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 0);
    expect_broken();
}

static void the_driver_says_whether_it_wants_interrupts(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    virtio_driver_use_msix(&f.d);
    start(V1, 16);
    test_write(f.t, f.q.driver_area, 1, 2);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 0);
    test_write(f.t, f.q.driver_area, 0, 2);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 1);
    start(PACKED, 16);
    test_write(f.t, f.q.driver_area, 1u << 16, 4);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 1);
    test_write(f.t, f.q.driver_area, 0, 4);
    do_request(IN, 0, gpa, SECTOR);
    assert_int_equal(f.t->msi_count, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_modern_virtio_disk),
        TEST(features_that_are_not_offered_are_refused),
        TEST(status_bits_are_cleared_by_a_reset_only),
        TEST(a_driver_without_agreed_features_breaks_it),
        TEST(a_queue_before_the_features_breaks_it),
        TEST(queues_lie_in_ram_and_have_a_size),
        TEST(an_enabled_queue_stays_where_it_is),
        TEST(registers_are_in_configuration_space_too),
        TEST(odd_accesses_to_registers_do_no_harm),
        TEST(the_pin_is_up_until_isr_is_read),
        TEST(each_queue_has_its_message),
        TEST(a_masked_message_waits),
        TEST(a_broken_device_tells_so),
        TEST(the_driver_says_whether_it_wants_interrupts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
