/*
 * test_virtio_rng.c - the virtio entropy device, driven by a guest's driver
 */
#include "cmocka_all.h"

#include "devices/devices.h"
#include "virtio_driver.h"

#define SLOT 3

struct fixture {
    struct device_test *t;
    struct device *rng;
    struct virtio_driver d;
    struct driver_queue q;
};

static struct fixture f;

static int set_up(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(1 << 20)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.rng = device_test_add(f.t, &virtio_rng_class, "addr=3");
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    virtio_driver_begin(&f.d, VIRTIO_F_VERSION_1, &f.q, 1, 128);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

/* How many bytes came of a request for so many, which are left at gpa. */
static uint32_t ask(uint64_t gpa, uint32_t size)
{
    struct driver_buffer buffer = {gpa, size, true};
    uint16_t id;
    uint32_t length = 0;

    memset(f.t->ram.hva + gpa, 0, size);
    driver_queue_add(&f.q, &buffer, 1);
    driver_queue_kick(&f.q);
    assert_true(driver_queue_take(&f.q, &id, &length));
    return length;
}

static void requests_are_filled(void **state)
{
    const uint8_t *ram = f.t->ram.hva;
    unsigned zeros = 0;

    (void)state;
    assert_int_equal(ask(0x80000, 1000), 1000);
    for (unsigned n = 0; n < 1000; n++)
        zeros += !ram[0x80000 + n];
    assert_true(zeros < 50);
    assert_int_equal(ask(0x81000, 64), 64);
    assert_memory_not_equal(ram + 0x80000, ram + 0x81000, 64);
    assert_int_equal(ask(0x80000, 65536), 4096); /* enough at a time */
    assert_int_equal(ask(0x80000, 1), 1);
}

static void runs_that_repeat_get_the_same(void **state)
{
    uint8_t first[32];

    (void)state; /* the test's machine is counted */
    ask(0x80000, 32);
    memcpy(first, f.t->ram.hva + 0x80000, 32);
    device_test_reset(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    assert_true(virtio_driver_negotiate(&f.d, VIRTIO_F_VERSION_1));
    driver_queue_set_up(&f.q, &f.d, 0, 8);
    virtio_driver_start(&f.d);
    ask(0x80000, 32);
    assert_memory_equal(f.t->ram.hva + 0x80000, first, 32);
}

static void many_requests_are_done_in_turns(void **state)
{
    struct driver_buffer buffer = {0x80000, 16, true};
    unsigned done = 0;
    uint16_t id;
    uint32_t length;

    (void)state;
    for (unsigned n = 0; n < 100; n++)
        driver_queue_add(&f.q, &buffer, 1);
    driver_queue_kick(&f.q);
    while (driver_queue_take(&f.q, &id, &length))
        done++;
    assert_int_equal(done, 64);
    device_test_advance_ns(f.t, 1);
    while (driver_queue_take(&f.q, &id, &length))
        done++;
    assert_int_equal(done, 100);
}

static void a_pause_puts_requests_off(void **state)
{
    struct driver_buffer buffer = {0x80000, 16, true};
    uint16_t id;
    uint32_t length;

    (void)state;
    f.rng->class->quiesce(f.rng);
    driver_queue_add(&f.q, &buffer, 1);
    driver_queue_kick(&f.q);
    assert_false(driver_queue_take(&f.q, &id, &length));
    device_test_round_trip(f.t, f.rng);
    f.rng->class->resume(f.rng);
    device_test_advance_ns(f.t, 1);
    assert_true(driver_queue_take(&f.q, &id, &length));
}

static void state_round_trip(void **state)
{
    (void)state;
    ask(0x80000, 100);
    device_test_round_trip(f.t, f.rng);
    assert_int_equal(ask(0x80000, 100), 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(requests_are_filled),
        TEST(runs_that_repeat_get_the_same),
        TEST(many_requests_are_done_in_turns),
        TEST(a_pause_puts_requests_off),
        TEST(state_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
