/*
 * test_virtio_balloon.c - the virtio memory balloon, driven by a guest's driver
 */
#include "cmocka_all.h"

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/balloon.h"
#include "virtio_driver.h"

#define SLOT             3
#define RAM              (4u << 20)
#define PAGE             4096u
#define LIST             0x80000u  /* of page numbers, or statistics */
#define AREA             0x100000u /* pages to give away */

#define F_MUST_TELL_HOST (1ull << 0)
#define F_STATS          (1ull << 1)
#define F_OOM            (1ull << 2)
#define F_REPORTING      (1ull << 5)

struct fixture {
    struct device_test *t;
    struct device *balloon;
    struct virtio_driver d;
    struct driver_queue q[5];
    unsigned news;
};

static struct fixture f;

static void count_news(void *opaque)
{
    (void)opaque;
    f.news++;
}

static void open_fixture(const char *properties, uint64_t features)
{
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.balloon = device_test_add(f.t, &virtio_balloon_class, properties);
    device_test_start(f.t);
    balloon_observe(f.balloon, count_news, NULL);
    virtio_driver_find(&f.d, f.t, SLOT);
    virtio_driver_begin(&f.d, VIRTIO_F_VERSION_1 | features, f.q, 5, 32);
}

static int set_up(void **state)
{
    (void)state;
    open_fixture("addr=3", F_STATS | F_REPORTING);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

static uint64_t used_bytes(void)
{
    return memory_used_bytes(machine_memory(f.t->machine));
}

/* One chain of one buffer, which the device gives back if it is content. */
static bool send(unsigned queue, uint64_t gpa, uint32_t size, bool write)
{
    struct driver_buffer buffer = {gpa, size, write};
    uint16_t id;
    uint32_t length = 1;

    driver_queue_add(&f.q[queue], &buffer, 1);
    driver_queue_kick(&f.q[queue]);
    if (!driver_queue_take(&f.q[queue], &id, &length))
        return false;
    assert_int_equal(length, 0);
    return true;
}

static bool inflate(const uint32_t *pages, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        put_le32(ram(LIST + 4 * n), pages[n]);
    return send(0, LIST, 4 * count, false);
}

static void fill(uint64_t gpa, unsigned pages)
{
    memset(ram(gpa), 0x5a, (size_t)pages * PAGE);
}

static bool is_zero(uint64_t gpa, size_t size)
{
    for (size_t n = 0; n < size; n++)
        if (*ram(gpa + n))
            return false;
    return true;
}

static void pages_go_back_to_the_host(void **state)
{
    uint32_t pages[16];
    uint64_t before;

    (void)state;
    fill(AREA, 20);
    fill(LIST, 1);
    before = used_bytes();
    for (unsigned n = 0; n < 16; n++) /* 1 2 ... 8, 16 15 ... 9 */
        pages[n] = AREA / PAGE + (n < 8 ? n + 1 : 24 - n);
    assert_true(inflate(pages, 16));
    assert_int_equal(before - used_bytes(), 16 * PAGE);
    assert_true(is_zero(AREA + PAGE, 16 * PAGE));
    assert_int_equal(*ram(AREA + PAGE - 1), 0x5a);
    assert_int_equal(*ram(AREA + 17 * PAGE), 0x5a);
    fill(AREA, 20);
    put_le32(ram(LIST), AREA / PAGE);
    assert_true(send(1, LIST, 4, false)); /* out of the balloon: they are the guest's anyway */
    assert_int_equal(*ram(AREA), 0x5a);
}

static void pages_that_were_given_are_known_to_have_changed(void **state)
{
    uint32_t page = AREA / PAGE;
    uint8_t bits[1];

    (void)state;
    assert_int_equal(memory_dirty_start(machine_memory(f.t->machine), NULL), 0);
    assert_true(inflate(&page, 1));
    memory_dirty_fetch(machine_memory(f.t->machine), AREA / PAGE, 8, bits);
    assert_int_equal(bits[0], 1);
}

static void what_is_not_ram_is_refused(void **state)
{
    uint32_t pages[] = {AREA / PAGE, 0xc0000};

    (void)state;
    assert_false(inflate(pages, 2));
    assert_true(driver_is_broken(&f.d));
}

static void too_many_pages_are_refused(void **state)
{
    (void)state;
    assert_false(send(0, 0x200000, 4 * 16384 + 4, false));
    assert_true(driver_is_broken(&f.d));
}

static void many_pages_are_done_in_turns(void **state)
{
    struct driver_buffer buffer = {0x200000, 4 * 4096, false};
    unsigned done = 0;
    uint16_t id;
    uint32_t length;

    (void)state;
    for (unsigned n = 0; n < 4096; n++)
        put_le32(ram(buffer.gpa + 4 * n), AREA / PAGE);
    driver_queue_add(&f.q[0], &buffer, 1);
    driver_queue_add(&f.q[0], &buffer, 1);
    driver_queue_kick(&f.q[0]);
    while (driver_queue_take(&f.q[0], &id, &length))
        done++;
    assert_int_equal(done, 1);
    device_test_advance_ns(f.t, 1);
    assert_true(driver_queue_take(&f.q[0], &id, &length));
}

static void check_report(unsigned queue)
{
    uint64_t before;

    fill(AREA, 8);
    before = used_bytes();
    assert_true(send(queue, AREA + PAGE, 4 * PAGE, true));
    assert_int_equal(before - used_bytes(), 4 * PAGE);
    assert_true(is_zero(AREA + PAGE, 4 * PAGE));
    assert_int_equal(*ram(AREA), 0x5a);
    assert_int_equal(*ram(AREA + 5 * PAGE), 0x5a);
}

static void free_pages_are_reported_on_either_queue(void **state)
{
    (void)state;
    check_report(4);
    check_report(3); /* as by Linux before 6.11 */
    fill(AREA, 3);
    assert_true(send(4, AREA + 100, 2 * PAGE, true)); /* only whole pages */
    assert_true(is_zero(AREA + PAGE, PAGE));
    assert_int_equal(*ram(AREA + PAGE - 1), 0x5a);
    assert_int_equal(*ram(AREA + 2 * PAGE), 0x5a);
}

static void more_free_memory_than_there_is_is_refused(void **state)
{
    struct driver_buffer buffers[] = {{AREA, 3u << 20, true}, {AREA, 3u << 20, true}};

    (void)state;
    fill(AREA, 1);
    driver_queue_add(&f.q[4], buffers, 2);
    driver_queue_kick(&f.q[4]);
    assert_true(driver_is_broken(&f.d));
    assert_int_equal(*ram(AREA), 0x5a);
}

static void nothing_is_reported_that_was_not_agreed_on(void **state)
{
    (void)state;
    device_test_free(f.t);
    open_fixture("addr=3", F_STATS);
    fill(AREA, 1);
    assert_false(send(4, AREA, PAGE, true));
    assert_false(send(3, AREA, PAGE, true));
    assert_int_equal(*ram(AREA), 0x5a);
}

static void the_target_is_configuration(void **state)
{
    unsigned messages;

    (void)state;
    virtio_driver_use_msix(&f.d);
    driver_write(&f.d, COMMON_CONFIG_VECTOR, 0, 2);
    messages = f.t->msi_count;
    assert_int_equal(test_read(f.t, f.d.config, 4), 0);
    balloon_set_target(f.balloon, RAM - 64 * PAGE);
    assert_int_equal(f.t->msi_count, messages + 1);
    assert_int_equal(test_read(f.t, f.d.config, 4), 64);
    test_write(f.t, f.d.config, 7, 4); /* the host's to write */
    assert_int_equal(test_read(f.t, f.d.config, 4), 64);
    assert_int_equal(balloon_memory(f.balloon), RAM);
    f.news = 0;
    test_write(f.t, f.d.config + 4, 48, 4);
    assert_int_equal(f.news, 1);
    assert_int_equal(balloon_memory(f.balloon), RAM - 48 * PAGE);
    test_write(f.t, f.d.config + 5, 1, 1);
    assert_int_equal(test_read(f.t, f.d.config + 4, 4), 0x130);
    test_write(f.t, f.d.config + 4, ~0u, 4);
    assert_int_equal(balloon_memory(f.balloon), 0);
    device_test_round_trip(f.t, f.balloon);
    device_test_reset(f.t);
    assert_int_equal(balloon_target(f.balloon), RAM - 64 * PAGE);
    assert_int_equal(balloon_memory(f.balloon), RAM);
    balloon_set_target(f.balloon, ~0ull);
    assert_int_equal(balloon_target(f.balloon), RAM);
}

static void properties_are_what_is_offered(void **state)
{
    (void)state;
    assert_int_equal(virtio_driver_offered(&f.d) & 0xff, F_STATS | F_OOM | F_REPORTING);
    device_test_free(f.t);
    open_fixture("addr=3,size=3M,deflate-on-oom=off,must-tell-host=on", F_MUST_TELL_HOST);
    assert_int_equal(virtio_driver_offered(&f.d) & 0xff, F_STATS | F_MUST_TELL_HOST | F_REPORTING);
    assert_int_equal(test_read(f.t, f.d.config, 4), 256);
    assert_int_equal(balloon_target(f.balloon), 3u << 20);
}

/* ---- statistics ---- */

struct found {
    unsigned count;
    uint64_t free_bytes, major_faults;
};

static void find(void *opaque, const char *name, uint64_t value)
{
    struct found *found = opaque;

    found->count++;
    if (!strcmp(name, "free_bytes"))
        found->free_bytes = value;
    if (!strcmp(name, "major_faults"))
        found->major_faults = value;
}

static struct found statistics(void)
{
    struct found found = {0};

    balloon_statistics(f.balloon, find, &found);
    return found;
}

static void put_statistic(unsigned n, uint16_t tag, uint64_t value)
{
    put_le16(ram(LIST + 10 * n), tag);
    put_le64(ram(LIST + 10 * n + 2), value);
}

static void statistics_come_when_they_are_asked_for(void **state)
{
    struct driver_buffer buffer = {LIST, 35, false};
    uint16_t id;
    uint32_t length;

    (void)state;
    assert_true(balloon_ask(f.balloon)); /* there is a driver; what it offers comes in a moment */
    put_statistic(0, 4, 1000);
    put_statistic(1, 0xf000, 7);
    put_statistic(2, 2, 5);
    put_statistic(3, 5, 99); /* only half of it is there */
    driver_queue_add(&f.q[2], &buffer, 1);
    f.news = 0;
    driver_queue_kick(&f.q[2]);
    assert_int_equal(f.news, 1);
    assert_int_equal(statistics().count, 2);
    assert_int_equal(statistics().free_bytes, 1000);
    assert_int_equal(statistics().major_faults, 5);
    assert_false(driver_queue_take(&f.q[2], &id, &length)); /* kept, so nothing is under way */
    device_test_round_trip(f.t, f.balloon);
    assert_true(balloon_ask(f.balloon));
    assert_true(driver_queue_take(&f.q[2], &id, &length));
    put_statistic(0, 4, 2000);
    driver_queue_add(&f.q[2], &buffer, 1);
    driver_queue_kick(&f.q[2]);
    assert_int_equal(statistics().free_bytes, 2000);
    f.balloon->class->quiesce(f.balloon);
    assert_false(balloon_ask(f.balloon));
    f.balloon->class->resume(f.balloon);
    device_test_reset(f.t);
    assert_false(balloon_ask(f.balloon));
    assert_int_equal(statistics().count, 0);
}

static void a_pause_puts_pages_off(void **state)
{
    uint32_t page = AREA / PAGE;
    uint16_t id;
    uint32_t length;

    (void)state;
    fill(AREA, 1);
    f.balloon->class->quiesce(f.balloon);
    assert_false(inflate(&page, 1));
    device_test_round_trip(f.t, f.balloon);
    f.balloon->class->resume(f.balloon);
    device_test_advance_ns(f.t, 1);
    assert_true(driver_queue_take(&f.q[0], &id, &length));
    assert_true(is_zero(AREA, PAGE));
}

/* ---- other transports ---- */

static void an_old_driver_inflates(void **state)
{
    uint32_t page = AREA / PAGE;

    (void)state;
    device_test_free(f.t);
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.balloon = device_test_add(f.t, &virtio_balloon_class, "addr=3,transitional=on,size=3M");
    device_test_start(f.t);
    virtio_driver_find_legacy(&f.d, f.t, SLOT);
    virtio_driver_begin(&f.d, F_STATS, f.q, 3, 256);
    fill(AREA, 1);
    assert_true(inflate(&page, 1));
    assert_true(is_zero(AREA, PAGE));
    assert_int_equal(test_inl(f.t, f.d.port + 20), 256);
    for (unsigned n = 0; n < 4; n++) /* as it writes numbers */
        test_outb(f.t, (uint16_t)(f.d.port + 24 + n), (uint8_t)(0x100 >> 8 * n));
    assert_int_equal(balloon_memory(f.balloon), 3u << 20);
}

static void without_pci_it_is_the_same(void **state)
{
    uint32_t page = AREA / PAGE;

    (void)state;
    device_test_free(f.t);
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &virtio_mmio_bus_class, "gpa=0xfec10000");
    f.balloon = device_test_add(f.t, &virtio_balloon_mmio_class, NULL);
    assert_ptr_equal(balloon_find(f.t->machine), f.balloon);
    device_test_start(f.t);
    virtio_driver_find_mmio(&f.d, f.t, 0xfec10000);
    virtio_driver_begin(&f.d, VIRTIO_F_VERSION_1 | F_REPORTING, f.q, 5, 32);
    fill(AREA, 1);
    assert_true(inflate(&page, 1));
    assert_true(is_zero(AREA, PAGE));
    check_report(4);
    device_test_round_trip(f.t, f.balloon);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pages_go_back_to_the_host),
        TEST(pages_that_were_given_are_known_to_have_changed),
        TEST(what_is_not_ram_is_refused),
        TEST(too_many_pages_are_refused),
        TEST(many_pages_are_done_in_turns),
        TEST(free_pages_are_reported_on_either_queue),
        TEST(more_free_memory_than_there_is_is_refused),
        TEST(nothing_is_reported_that_was_not_agreed_on),
        TEST(the_target_is_configuration),
        TEST(properties_are_what_is_offered),
        TEST(statistics_come_when_they_are_asked_for),
        TEST(a_pause_puts_pages_off),
        TEST(an_old_driver_inflates),
        TEST(without_pci_it_is_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
