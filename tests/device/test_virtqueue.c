/*
 * test_virtqueue.c - split and packed virtqueues: event indices, and what a driver may do wrong
 */
#include "virtio_disk.h"

/* ---- event index ---- */

static void a_split_queue_interrupts_at_the_event(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    unsigned expected = 0;

    (void)state;
    virtio_driver_use_msix(&f.d);
    start(V1 | VIRTIO_F_EVENT_IDX, 8);
    for (unsigned n = 0; n < 40; n++) { /* also around the ring */
        if (n % 5 == 0)
            driver_queue_set_used_event(&f.q, n + 3, false);
        do_request(IN, 0, gpa, SECTOR);
        expected += n % 5 == 3;
        assert_int_equal(f.t->msi_count, expected);
        assert_int_equal(driver_queue_avail_event(&f.q), n + 1); /* it wants to know of the next */
    }
}

static void a_packed_queue_interrupts_at_the_event(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    virtio_driver_use_msix(&f.d);
    for (unsigned size = 5; size <= 10; size++) {
        unsigned position = 0, event = 0, expected = f.t->msi_count;
        bool wrap = true;

        start(PACKED | VIRTIO_F_EVENT_IDX, size);
        for (unsigned n = 0; n < 30; n++) { /* chains of three descriptors */
            if (n % 2 == 0) {
                event = position + 5; /* in the chain after the next */
                driver_queue_set_used_event(&f.q, event % size, event < size ? wrap : !wrap);
            }
            do_request(IN, 0, gpa, SECTOR);
            expected += position + 3 > event;
            assert_int_equal(f.t->msi_count, expected);
            position += 3;
            if (position >= size) {
                position -= size;
                event -= event >= size ? size : 0;
                wrap = !wrap;
            }
        }
    }
}

/* A whole ring that is used at once passes every event in it. */
static void a_whole_packed_ring_passes_the_event(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    virtio_driver_use_msix(&f.d);
    for (unsigned event = 0; event < 6; event++) {
        unsigned before = f.t->msi_count;

        start(PACKED | VIRTIO_F_EVENT_IDX, 6);
        driver_queue_set_used_event(&f.q, event, true);
        for (unsigned n = 0; n < 2; n++) {
            struct request r = request(IN, 0, gpa, SECTOR);

            driver_queue_add(&f.q, r.buffers, r.count);
        }
        driver_queue_kick(&f.q);
        wait_used(&f.q);
        wait_used(&f.q);
        device_test_loop(f.t);
        assert_int_equal(f.t->msi_count, before + 1);
    }
}

/*
 * The guest polls, and gives more than a ring before the device looks whether it wants to know. (A
 * device's own functions are called here: one kick does as much only while processors run.)
 */
static void more_than_a_ring_may_be_used_before_the_guest_is_told(void **state)
{
    struct virtio_device *virtio;
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    static struct virtio_chain chain;
    struct driver_buffer b = {gpa, SECTOR, true};
    uint16_t id;
    uint32_t length;

    (void)state;
    virtio_driver_use_msix(&f.d);
    start(PACKED | VIRTIO_F_EVENT_IDX, 4);
    virtio = container_of(f.blk, struct virtio_pci, function.dev)->virtio;
    machine_lock(f.t->machine);
    for (unsigned n = 0; n < 6; n++) {
        if (n == 2)
            driver_queue_set_used_event(&f.q, 2, true);
        driver_queue_add(&f.q, &b, 1);
        assert_true(virtqueue_pop(&virtio->queues[0], &chain));
        virtqueue_push(&virtio->queues[0], &chain, 1);
        if (n < 2)
            assert_true(driver_queue_take(&f.q, &id, &length));
    }
    virtqueue_notify(&virtio->queues[0]);
    machine_unlock(f.t->machine);
    assert_int_equal(f.t->msi_count, 1);
}

/* ---- malformed chains ---- */

static void add_raw(uint64_t address, uint32_t size, unsigned flags, unsigned index, unsigned last)
{
    driver_put_descriptor(&f.d, f.q.descriptors + 16 * index, f.q.packed, address, size, flags,
                          last);
}

static void offer_raw(unsigned head)
{
    driver_queue_publish(&f.q, head);
    driver_queue_kick(&f.q);
}

static void loops_and_ends_of_tables_break_it(void **state)
{
    uint64_t table = virtio_driver_alloc(&f.d, 4096, 16);

    (void)state;
    start(V1, 16);
    add_raw(0x1000, 16, DRIVER_NEXT, 0, 1);
    add_raw(0x1000, 16, DRIVER_NEXT, 1, 0);
    offer_raw(0);
    expect_broken();
    start(V1, 16);
    offer_raw(16);
    expect_broken();
    start(V1, 16);
    add_raw(0x1000, 16, DRIVER_NEXT, 0, 0xffff);
    offer_raw(0);
    expect_broken();
    start(V1, 16);
    f.q.next_avail = 16; /* more than the queue holds */
    offer_raw(0);
    expect_broken();
    start(V1 | VIRTIO_F_INDIRECT_DESC, 16);
    for (unsigned n = 0; n < 2; n++)
        driver_put_descriptor(&f.d, table + 16 * n, false, 0x1000, 16, DRIVER_NEXT, 1 - n);
    add_raw(table, 32, DRIVER_INDIRECT, 0, 0);
    offer_raw(0);
    expect_broken();
}

static void bad_table(uint64_t features, uint64_t gpa, uint32_t size, unsigned flags)
{
    start(features, 16);
    add_raw(gpa, size, flags, 0, 1);
    add_raw(0x1000, 1, DRIVER_WRITE, 1, 0);
    offer_raw(0);
    expect_broken();
}

static void bad_indirect_tables_break_it(void **state)
{
    uint64_t table = virtio_driver_alloc(&f.d, 4096, 16);
    uint64_t agreed = V1 | VIRTIO_F_INDIRECT_DESC;

    (void)state;
    driver_put_descriptor(&f.d, table, false, 0x1000, 16, 0, 0);
    bad_table(V1, table, 16, DRIVER_INDIRECT);
    bad_table(agreed, table, 15, DRIVER_INDIRECT);
    bad_table(agreed, table, 0, DRIVER_INDIRECT);
    bad_table(agreed, table, 0xfffffff0, DRIVER_INDIRECT);
    bad_table(agreed, RAM_BYTES - 16, 32, DRIVER_INDIRECT);
    bad_table(agreed, UINT64_MAX - 15, 16, DRIVER_INDIRECT);
    bad_table(agreed, table, 16, DRIVER_INDIRECT | DRIVER_NEXT);
    driver_put_descriptor(&f.d, table, false, table, 16, DRIVER_INDIRECT, 0);
    bad_table(agreed, table, 16, DRIVER_INDIRECT); /* in itself */
    driver_put_descriptor(&f.d, table, false, 0x1000, 16, DRIVER_NEXT, 1);
    bad_table(agreed, table, 16, DRIVER_INDIRECT); /* beyond its end */
}

static void bad_chain(const struct driver_buffer *buffers, unsigned count)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        start(packed ? PACKED : V1, 16);
        driver_queue_add(&f.q, buffers, count);
        driver_queue_kick(&f.q);
        expect_broken();
    }
}

static void bad_buffers_break_it(void **state)
{
    const struct driver_buffer good = {0x1000, 16, false}, status = {0x2000, 1, true};

    (void)state;
    bad_chain((struct driver_buffer[]){good, status, good}, 3); /* in before out */
    bad_chain((struct driver_buffer[]){good}, 1);               /* no status */
    bad_chain((struct driver_buffer[]){status}, 1);             /* no header */
    bad_chain((struct driver_buffer[]){{0x1000, 15, false}, status}, 2);
    bad_chain((struct driver_buffer[]){{0x1000, 0, false}, {0x2000, 0, true}}, 2);
    bad_chain((struct driver_buffer[]){{RAM_BYTES - 8, 16, false}, status}, 2);
    bad_chain((struct driver_buffer[]){good, {RAM_BYTES, 1, true}}, 2);
    bad_chain((struct driver_buffer[]){good, {f.d.common, 1, true}}, 2); /* a register */
    bad_chain((struct driver_buffer[]){good, {UINT64_MAX - 3, 16, true}, status}, 3);
    bad_chain((struct driver_buffer[]){good, {0, 0xffffffff, true}, status}, 3);
}

static void bad_packed_chains_break_it(void **state)
{
    (void)state;
    start(PACKED, 4);
    for (unsigned n = 0; n < 4; n++)
        add_raw(0x1000, 16, DRIVER_NEXT | DRIVER_AVAIL, n, 0);
    driver_queue_kick(&f.q);
    expect_broken();
}

/* Each chain refers to the same descriptors, as if they had been given back. */
static void offer_again(const struct request *r, unsigned round)
{
    unsigned turn = round / 2 % 2 ? DRIVER_USED : DRIVER_AVAIL, at = round % 2 * 2;

    if (f.q.packed) {
        add_raw(r->buffers[1].gpa, r->buffers[1].size_bytes, DRIVER_WRITE | turn, at + 1, 0);
        add_raw(r->header, 16, DRIVER_NEXT | turn, at, 0);
        driver_queue_kick(&f.q);
        return;
    }
    add_raw(r->header, 16, DRIVER_NEXT, 0, 1);
    add_raw(r->buffers[1].gpa, r->buffers[1].size_bytes, DRIVER_WRITE, 1, 0);
    offer_raw(0);
}

/* A guest that gives more than the ring, while nothing was given back, would have us keep all. */
static void more_than_a_ring_is_not_under_way(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, (256 << 10) + 1, 4096);

    (void)state;
    for (unsigned packed = 0; packed < 2; packed++) {
        unsigned fit = packed ? 2 : 4;
        struct request r;

        start(packed ? PACKED : V1, 4);
        r = request(IN, 0, gpa, (256 << 10) + 1); /* so large that no kick ends it */
        for (unsigned n = 0; n < fit; n++)
            offer_again(&r, n);
        assert_int_equal(driver_status(&f.d), 0x0f);
        offer_again(&r, fit);
        assert_int_equal(driver_status(&f.d), 0x4f);
        start(V1, 16);
        assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_split_queue_interrupts_at_the_event),
        TEST(a_packed_queue_interrupts_at_the_event),
        TEST(a_whole_packed_ring_passes_the_event),
        TEST(more_than_a_ring_may_be_used_before_the_guest_is_told),
        TEST(loops_and_ends_of_tables_break_it),
        TEST(bad_indirect_tables_break_it),
        TEST(bad_buffers_break_it),
        TEST(bad_packed_chains_break_it),
        TEST(more_than_a_ring_is_not_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
