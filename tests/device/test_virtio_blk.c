/*
 * test_virtio_blk.c - the virtio disk, driven by a guest's driver: requests, state, properties
 */
#include "virtio_disk.h"

/* ---- requests ---- */

static void data_goes_both_ways(uint64_t features)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 65536 * 2, 4096);
    uint8_t bytes[4096];

    start(features, 16);
    disk_write_image(f.path, DISK_BYTES, 1);
    for (unsigned size = SECTOR; size <= 131072; size *= 4) {
        struct request r = header(IN, 7);
        uint16_t id;
        uint32_t length;

        memset(ram(gpa), 0, size);
        add_data(&r, gpa, 100, true); /* pieces of odd sizes */
        add_data(&r, gpa + 100, size - 100, true);
        add_status(&r);
        driver_queue_add(&f.q, r.buffers, r.count);
        driver_queue_kick(&f.q);
        driver_queue_wait(&f.q, &id, &length);
        assert_int_equal(status_of(&r), OK);
        assert_int_equal(length, size + 1);
        for (unsigned n = 0; n < size; n++)
            if (*ram(gpa + n) != (uint8_t)((n + 7 * SECTOR) * 7 + (n + 7 * SECTOR) / 256 + 1))
                fail_msg("byte %u of %u", n, size);
    }
    disk_fill(ram(gpa), 4096, 9);
    assert_int_equal(do_request(OUT, 2000, gpa, 4096), OK);
    disk_read_image(f.path, 2000 * SECTOR, bytes, sizeof(bytes));
    assert_memory_equal(bytes, ram(gpa), sizeof(bytes));
}

static void a_split_queue_reads_and_writes(void **state)
{
    (void)state;
    data_goes_both_ways(V1);
}

static void a_packed_queue_reads_and_writes(void **state)
{
    (void)state;
    data_goes_both_ways(PACKED);
}

static void queues_turn_many_times(void **state)
{
    static const uint64_t features[] = {V1, PACKED, V1 | VIRTIO_F_EVENT_IDX,
                                        PACKED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC};

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 3);
    for (unsigned variant = 0; variant < 4; variant++) {
        uint64_t memory = f.d.next_gpa;
        uint64_t gpa = virtio_driver_alloc(&f.d, 16 * SECTOR, SECTOR), requests;

        start(features[variant], 16);
        requests = f.d.next_gpa;
        for (unsigned round = 0; round < 200; round++) {
            struct request r[5];
            unsigned count = 1 + round % 5;

            f.d.next_gpa = requests;
            for (unsigned n = 0; n < count; n++) {
                r[n] = request(IN, (round * 5 + n) % 2048, gpa + n * SECTOR, SECTOR);
                driver_queue_add(&f.q, r[n].buffers, r[n].count);
            }
            driver_queue_kick(&f.q);
            for (unsigned n = 0; n < count; n++)
                wait_used(&f.q);
            for (unsigned n = 0; n < count; n++) {
                unsigned at = (round * 5 + n) % 2048 * SECTOR;

                assert_int_equal(status_of(&r[n]), OK);
                assert_int_equal(*ram(gpa + n * SECTOR + 11),
                                 (uint8_t)((at + 11) * 7 + (at + 11) / 256 + 3));
            }
        }
        f.d.next_gpa = memory;
    }
}

static void indirect_tables_hold_a_request(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 4096, 4096);

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 4);
    for (unsigned packed = 0; packed < 2; packed++) {
        struct request r;

        start((packed ? PACKED : V1) | VIRTIO_F_INDIRECT_DESC, 16);
        r = header(IN, 0);
        for (unsigned n = 0; n < 8; n++)
            add_data(&r, gpa + 64 * n, 64, true);
        add_status(&r);
        memset(ram(gpa), 0, SECTOR);
        driver_queue_add_indirect(&f.q, r.buffers, r.count);
        driver_queue_kick(&f.q);
        wait_used(&f.q);
        assert_int_equal(status_of(&r), OK);
        assert_int_equal(*ram(gpa + 500), (uint8_t)(500 * 7 + 1 + 4));
    }
}

static void what_is_beyond_the_disk_is_an_error(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 4096, 4096);
    uint64_t end = DISK_BYTES / SECTOR;

    (void)state;
    start(V1, 16);
    assert_int_equal(do_request(IN, end - 1, gpa, SECTOR), OK);
    assert_int_equal(do_request(IN, end - 1, gpa, 2 * SECTOR), IO_ERROR);
    assert_int_equal(do_request(OUT, end, gpa, SECTOR), IO_ERROR);
    assert_int_equal(do_request(IN, UINT64_MAX / SECTOR, gpa, SECTOR), IO_ERROR);
    assert_int_equal(do_request(IN, UINT64_MAX, gpa, SECTOR), IO_ERROR);
    assert_int_equal(do_request(IN, 1ull << 55, gpa, SECTOR), IO_ERROR); /* 2^64 bytes */
    assert_int_equal(do_request(IN, 0, gpa, 100), IO_ERROR);             /* no whole sectors */
    assert_int_equal(do_request(OUT, 0, gpa, 1), IO_ERROR);
    assert_int_equal(do_request(IN, 0, 0, 0), OK);
    assert_int_equal(driver_status(&f.d), 0x0f);
}

static void its_number_is_the_serial(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 64, 1);

    (void)state;
    start(V1, 16);
    memset(ram(gpa), 0xff, 64);
    assert_int_equal(do_request(GET_ID, 0, gpa, 20), OK);
    assert_memory_equal(ram(gpa), "disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff", 21);
    assert_int_equal(do_request(GET_ID, 0, gpa, 19), IO_ERROR);
}

static void unknown_requests_are_unsupported(void **state)
{
    static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 0x80000000, 0xffffffff};

    (void)state;
    start(V1, 16);
    for (unsigned n = 0; n < sizeof(types) / sizeof(types[0]); n++)
        assert_int_equal(do_request(types[n], 0, 0, 0), UNSUPPORTED);
}

static void ranges_are_discarded_and_zeroed(void **state)
{
    uint8_t bytes[4096];
    struct request r;

    (void)state;
    start(V1 | F_DISCARD | F_ZEROES, 16);
    disk_write_image(f.path, DISK_BYTES, 5);
    r = range_request(WRITE_ZEROES, 8, 8, 0);
    assert_int_equal(run(&r), OK);
    disk_read_image(f.path, 4096, bytes, sizeof(bytes));
    for (unsigned n = 0; n < sizeof(bytes); n++)
        assert_int_equal(bytes[n], 0);
    r = range_request(WRITE_ZEROES, 17, 1, 1); /* not a page of the host */
    assert_int_equal(run(&r), OK);
    disk_read_image(f.path, 17 * SECTOR, bytes, 2 * SECTOR);
    assert_int_equal(bytes[511], 0);
    assert_int_equal(bytes[512], (uint8_t)(18 * SECTOR * 7 + 18 * 2 + 5));
    r = range_request(DISCARD, 32, 64, 0);
    assert_int_equal(run(&r), OK);
    r = range_request(DISCARD, 32, 64, 1); /* unmap is not for it */
    assert_int_equal(run(&r), UNSUPPORTED);
    r = range_request(WRITE_ZEROES, 0, 1, 2);
    assert_int_equal(run(&r), UNSUPPORTED);
    r = range_request(WRITE_ZEROES, DISK_BYTES / SECTOR - 1, 2, 0);
    assert_int_equal(run(&r), IO_ERROR);
    r = range_request(WRITE_ZEROES, 0, (1u << 22) + 1, 0);
    assert_int_equal(run(&r), IO_ERROR);
    r = range_request(DISCARD, UINT64_MAX, 1, 0);
    assert_int_equal(run(&r), IO_ERROR);
    r = request(DISCARD, 0, virtio_driver_alloc(&f.d, 32, 8), 32); /* max_discard_seg is 1 */
    assert_int_equal(run(&r), IO_ERROR);
    r = request(WRITE_ZEROES, 0, r.buffers[1].gpa, 15);
    assert_int_equal(run(&r), IO_ERROR);
    r = range_request(WRITE_ZEROES, 0, 0, 0);
    assert_int_equal(run(&r), OK);
}

static void without_discard_zeroes_are_written(void **state)
{
    uint8_t bytes[SECTOR];
    struct request r;

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 6);
    assert_int_equal(virtio_driver_offered(&f.d) & (F_DISCARD | F_ZEROES), F_ZEROES);
    assert_int_equal(test_read(f.t, f.d.config + 56, 1), 0); /* write_zeroes_may_unmap */
    start(V1 | F_ZEROES, 16);
    r = range_request(WRITE_ZEROES, 1, 1, 1);
    assert_int_equal(run(&r), OK);
    disk_read_image(f.path, SECTOR, bytes, sizeof(bytes));
    for (unsigned n = 0; n < sizeof(bytes); n++)
        assert_int_equal(bytes[n], 0);
}

static void a_read_only_disk_is_not_written(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    uint8_t bytes[SECTOR];
    struct request r;

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 7);
    assert_int_equal(virtio_driver_offered(&f.d) & (F_RO | F_DISCARD | F_ZEROES), F_RO);
    start(V1 | F_RO, 16);
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    memset(ram(gpa), 0, SECTOR);
    assert_int_equal(do_request(OUT, 0, gpa, SECTOR), IO_ERROR);
    r = range_request(WRITE_ZEROES, 0, 1, 0);
    assert_int_equal(run(&r), IO_ERROR);
    r = range_request(DISCARD, 0, 1, 0);
    assert_int_equal(run(&r), IO_ERROR);
    assert_int_equal(do_request(FLUSH, 0, 0, 0), OK);
    disk_read_image(f.path, 0, bytes, sizeof(bytes));
    assert_int_equal(bytes[1], 14);
}

/* ---- flushes ---- */

static unsigned syncs;

/* Instead of the system's: counted. */
int fdatasync(int fd)
{
    (void)fd;
    __atomic_fetch_add(&syncs, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static unsigned syncs_of_a_write(void)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    unsigned before = syncs;

    assert_int_equal(do_request(OUT, 0, gpa, SECTOR), OK);
    return syncs - before;
}

static void a_write_is_durable_when_the_driver_wants_that(void **state)
{
    unsigned before;

    (void)state;
    start(V1 | F_FLUSH, 16);
    assert_int_equal(syncs_of_a_write(), 0);
    before = syncs;
    assert_int_equal(do_request(FLUSH, 0, 0, 0), OK);
    assert_int_equal(syncs, before + 1);
    start(V1, 16); /* a driver that knows of no cache */
    assert_int_equal(syncs_of_a_write(), 1);
    start(V1 | F_FLUSH | F_CONFIG_WCE, 16);
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 1);
    assert_int_equal(syncs_of_a_write(), 0);
    test_write(f.t, f.d.config + 32, 0, 1);
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 0);
    assert_int_equal(syncs_of_a_write(), 1);
    start(V1 | F_FLUSH, 16);
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 1); /* a reset sets it */
    test_write(f.t, f.d.config + 32, 0, 1);                  /* not agreed on */
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 1);
}

static void a_disk_that_is_written_through_says_so(void **state)
{
    (void)state;
    start(V1 | F_FLUSH | F_CONFIG_WCE, 16);
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 0);
    assert_int_equal(syncs_of_a_write(), 1);
    test_write(f.t, f.d.config + 32, 1, 1); /* a driver that flushes, too, is none the worse */
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 1);
    assert_int_equal(syncs_of_a_write(), 1);
    start(V1 | F_FLUSH | F_CONFIG_WCE, 16);
    assert_int_equal(test_read(f.t, f.d.config + 32, 1), 0);
}

/* ---- what a driver may not rely on ---- */

static void a_kick_before_the_driver_is_ready_waits(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    struct request r;
    uint16_t id;
    uint32_t length;

    (void)state;
    assert_true(virtio_driver_negotiate(&f.d, V1));
    driver_queue_set_up(&f.q, &f.d, 0, 16);
    r = request(IN, 0, gpa, SECTOR);
    driver_queue_add(&f.q, r.buffers, r.count);
    driver_queue_kick(&f.q);
    device_test_loop(f.t);
    assert_false(driver_queue_take(&f.q, &id, &length));
    virtio_driver_start(&f.d);
    wait_used(&f.q);
    assert_int_equal(status_of(&r), OK);
    test_write(f.t, f.d.notify + 4 * 5, 5, 2); /* a queue that is not there */
    test_write(f.t, f.d.notify + 4 * 1, 1, 2); /* one that is not enabled */
    assert_int_equal(driver_status(&f.d), 0x0f);
}

static void without_bus_mastering_memory_is_left_alone(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    struct request r;

    (void)state;
    assert_true(virtio_driver_negotiate(&f.d, V1));
    driver_queue_set_up(&f.q, &f.d, 0, 16);
    r = request(IN, 0, gpa, SECTOR);
    driver_queue_add(&f.q, r.buffers, r.count);
    driver_config_write(&f.d, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    virtio_driver_start(&f.d);
    driver_queue_kick(&f.q);
    device_test_loop(f.t);
    assert_int_equal(status_of(&r), NO_STATUS);
    driver_config_write(&f.d, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    driver_queue_kick(&f.q);
    wait_used(&f.q);
    assert_int_equal(status_of(&r), OK);
}

static void a_status_at_the_end_of_a_large_buffer_is_marked_dirty(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 8192, 4096);
    struct memory *memory = machine_memory(f.t->machine);
    uint8_t dirty[RAM_BYTES / 4096 / 8];
    struct error err = {0};
    struct request r;

    (void)state;
    start(V1, 16);
    r = header(FLUSH, 0);
    add_data(&r, gpa, 4097, true);
    assert_int_equal(memory_dirty_start(memory, &err), 0);
    driver_queue_add(&f.q, r.buffers, r.count);
    driver_queue_kick(&f.q);
    wait_used(&f.q);
    assert_int_equal(*ram(gpa + 4096), OK);
    memory_dirty_fetch(memory, 0, RAM_BYTES / 4096, dirty);
    memory_dirty_stop(memory);
    assert_true(dirty[(gpa / 4096 + 1) / 8] >> (gpa / 4096 + 1) % 8 & 1);
}

static void a_reset_waits_for_what_is_under_way(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 1 << 20, 4096);
    static uint8_t before[1 << 20];

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 8);
    for (unsigned how = 0; how < 3; how++) {
        struct request r[4];

        start(V1, 32);
        for (unsigned n = 0; n < 4; n++) { /* large: on worker threads */
            r[n] = request(IN, n, gpa + n * (256u << 10), 256 << 10);
            driver_queue_add(&f.q, r[n].buffers, r[n].count);
        }
        driver_queue_kick(&f.q);
        if (how == 0)
            driver_write(&f.d, COMMON_STATUS, 0, 1);
        else if (how == 1)
            device_test_reset(f.t);
        else
            machine_pause(f.t->machine);
        memcpy(before, ram(gpa), sizeof(before));
        usleep(2000);
        assert_memory_equal(before, ram(gpa), sizeof(before));
        if (how == 1)
            virtio_driver_find(&f.d, f.t, SLOT);
        if (how == 2) {
            for (unsigned n = 0; n < 4; n++)
                wait_used(&f.q);
            machine_resume(f.t->machine);
        }
        gpa = virtio_driver_alloc(&f.d, 1 << 20, 4096);
        f.d.next_gpa = DRIVER_MEMORY;
        gpa = virtio_driver_alloc(&f.d, 1 << 20, 4096);
    }
}

/* One kick does not keep others from the machine for ever. */
static void a_kick_ends_while_the_guest_goes_on(void **state)
{
    struct request r;
    uint16_t head;

    (void)state;
    start(V1, 256);
    r = request(99, 0, 0, 0); /* unsupported: ended at once */
    head = driver_queue_add(&f.q, r.buffers, r.count);
    for (unsigned n = 1; n < 256; n++)
        driver_queue_publish(&f.q, head);
    f.q.lengths[head] = 1;
    driver_queue_kick(&f.q);
    assert_int_equal(test_read(f.t, f.q.device_area + 2, 2), 256);
    test_write(f.t, f.q.driver_area + 4, head, 2);
    driver_queue_publish(&f.q, head); /* without a kick, as a guest may that saw the device busy */
    device_test_advance_ns(f.t, 1000);
    assert_int_equal(test_read(f.t, f.q.device_area + 2, 2), 257);
}

/* ---- errors that pause the machine ---- */

static int set_up_full_disk(void **state)
{
    (void)state;
    make_machine(",fault=write:1:2:enospc", "addr=3");
    block_set_pause(f.disk, disk_pause_for, f.t->machine);
    return 0;
}

static void wait_for_pause(void)
{
    disk_wait_for_pause(f.t);
    assert_non_null(strstr(machine_pause_reason(f.t->machine), "No space left on device"));
}

static void resume(void)
{
    machine_resume(f.t->machine);
    assert_null(machine_pause_reason(f.t->machine));
}

static void a_full_disk_pauses_the_machine(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 4096, 4096);
    struct request r;
    uint8_t bytes[4096];
    uint16_t id;
    uint32_t length;

    (void)state;
    start(V1, 16);
    disk_fill(ram(gpa), 4096, 9);
    r = request(OUT, 8, gpa, 4096);
    driver_queue_add(&f.q, r.buffers, r.count);
    driver_queue_kick(&f.q);
    for (unsigned n = 0; n < 2; n++) { /* it fails again when it is tried again */
        wait_for_pause();
        assert_false(driver_queue_take(&f.q, &id, &length));
        assert_int_equal(status_of(&r), NO_STATUS);
        resume();
    }
    wait_used(&f.q);
    assert_int_equal(status_of(&r), OK);
    disk_read_image(f.path, 4096, bytes, sizeof(bytes));
    assert_memory_equal(bytes, ram(gpa), sizeof(bytes));
}

static void a_reset_forgets_what_was_kept(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 4096, 4096);
    struct request r;

    (void)state;
    start(V1, 16);
    r = request(OUT, 8, gpa, 4096);
    driver_queue_add(&f.q, r.buffers, r.count);
    driver_queue_kick(&f.q);
    wait_for_pause();
    device_test_reset(f.t);
    resume();
    virtio_driver_find(&f.d, f.t, SLOT);
    gpa = virtio_driver_alloc(&f.d, 4096, 4096);
    start(V1, 16);
    assert_int_equal(do_request(IN, 8, gpa, 4096),
                     OK); /* nothing is tried again: one write may fail yet */
    r = request(OUT, 8, gpa, 4096);
    driver_queue_add(&f.q, r.buffers, r.count);
    driver_queue_kick(&f.q);
    wait_for_pause();
    resume();
    wait_used(&f.q);
    assert_int_equal(status_of(&r), OK);
}

static void add(struct request *r)
{
    driver_queue_add(&f.q, r->buffers, r->count);
}

/* Requests of all kinds that fail, and between them one that is not the disk's and does not. */
static struct request kept[6];
#define KEPT (sizeof(kept) / sizeof(kept[0]))

static void make_machine_with_kept_requests(uint64_t features)
{
    struct request id;
    uint64_t gpa;

    make_machine(",werror=pause,rerror=pause,fault=write:1:2+read:1+flush:1+discard:1+zero:1",
                 "addr=3");
    block_set_pause(f.disk, disk_pause_for, f.t->machine);
    disk_write_image(f.path, DISK_BYTES, 10);
    start(features, 32);
    gpa = virtio_driver_alloc(&f.d, 4 * 4096, 4096);
    disk_fill(ram(gpa), 2 * 4096, 9);
    kept[0] = request(OUT, 8, gpa, 4096);
    kept[1] = request(OUT, 24, gpa + 4096, 4096);
    kept[2] = request(IN, 32, gpa + 2 * 4096, 4096);
    kept[3] = request(FLUSH, 0, 0, 0);
    kept[4] = range_request(DISCARD, 64, 8, 0);
    kept[5] = range_request(WRITE_ZEROES, 80, 8, 0);
    id = request(GET_ID, 0, gpa + 3 * 4096, 20);
    add(&kept[0]);
    add(&id); /* its end takes the place of what is kept in a packed ring */
    for (unsigned n = 1; n < KEPT; n++)
        add(&kept[n]);
    driver_queue_kick(&f.q);
    disk_wait_for_pause(f.t);
    wait_used(&f.q);
    assert_int_equal(status_of(&id), OK);
}

/* Each once, and as it was asked. */
static void expect_kept_requests_to_end(void)
{
    uint8_t bytes[4096];
    uint16_t id;
    uint32_t length;

    for (unsigned n = 0; n < KEPT; n++)
        wait_used(&f.q);
    for (unsigned n = 0; n < KEPT; n++)
        assert_int_equal(status_of(&kept[n]), OK);
    for (unsigned n = 0; n < 2; n++) {
        disk_read_image(f.path, n ? 24 * SECTOR : 8 * SECTOR, bytes, sizeof(bytes));
        assert_memory_equal(bytes, ram(kept[n].buffers[1].gpa), sizeof(bytes));
    }
    disk_read_image(f.path, 32 * SECTOR, bytes, sizeof(bytes));
    assert_memory_equal(bytes, ram(kept[2].buffers[1].gpa), sizeof(bytes));
    assert_true(disk_image_is(f.path, 80 * SECTOR, 0, 4096));
    assert_int_equal(do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR), OK);
    assert_false(driver_queue_take(&f.q, &id, &length));
    assert_int_equal(f.q.free, 32);
}

static const uint64_t ring_features[] = {V1, V1 | VIRTIO_F_EVENT_IDX, PACKED,
                                         PACKED | VIRTIO_F_EVENT_IDX};
#define RINGS (sizeof(ring_features) / sizeof(ring_features[0]))

static void what_was_kept_is_state(void **state)
{
    for (unsigned n = 0; n < RINGS; n++) {
        make_machine_with_kept_requests(ring_features[n]);
        for (unsigned m = 0; m < KEPT; m++)
            assert_int_equal(status_of(&kept[m]), NO_STATUS);
        device_test_round_trip(f.t, f.blk);
        machine_resume(f.t->machine);
        if (machine_pause_reason(f.t->machine)) { /* a write that fails twice */
            disk_wait_for_pause(f.t);
            machine_resume(f.t->machine);
        }
        expect_kept_requests_to_end();
        tear_down_disk(state);
    }
}

/* With the memory and the disk, but without what else the first one knew. */
static void another_machine_ends_what_was_kept(void **state)
{
    for (unsigned n = 0; n < RINGS; n++) {
        struct state_buffer saved = {0};
        struct error err = {0};
        uint8_t *memory = malloc(RAM_BYTES);

        make_machine_with_kept_requests(ring_features[n]);
        assert_int_equal(state_save(&f.blk->class->state, f.blk, &saved, &err), 0);
        memcpy(memory, f.t->ram.hva, RAM_BYTES);
        device_test_free_with_disk(f.t, f.disk, "");
        f.t = device_test_new_smp(RAM_BYTES, 2);
        open_and_attach("", "addr=3");
        f.d.t = f.t;
        machine_pause(f.t->machine);
        memcpy(f.t->ram.hva, memory, RAM_BYTES);
        if (state_load(&f.blk->class->state, f.blk, saved.data, saved.size_bytes, &err))
            fail_msg("%s", err.text);
        machine_resume(f.t->machine);
        expect_kept_requests_to_end();
        free(saved.data);
        free(memory);
        tear_down_disk(state);
    }
}

/* Can a state be loaded in which entry n is so? */
static bool can_keep(unsigned n, struct virtio_kept entry)
{
    struct virtio_device *virtio = container_of(f.blk, struct virtio_pci, function.dev)->virtio;
    struct virtio_kept *entries = virtio->kept.elements, before;
    struct state_buffer bad = {0};
    struct error err = {0};
    int result;

    assert_true(n < virtio->kept.count);
    before = entries[n];
    entries[n] = entry;
    assert_int_equal(state_save(&f.blk->class->state, f.blk, &bad, &err), 0);
    entries[n] = before;
    result = state_load(&f.blk->class->state, f.blk, bad.data, bad.size_bytes, &err);
    if (result)
        assert_non_null(strstr(err.text, "not under way"));
    free(bad.data);
    return !result;
}

static struct virtio_kept entry(unsigned n)
{
    const struct virtio_device *virtio =
        container_of(f.blk, struct virtio_pci, function.dev)->virtio;

    return ((const struct virtio_kept *)virtio->kept.elements)[n];
}

static void hostile_kept_requests_are_refused(void **state)
{
    struct virtio_device *virtio;
    struct virtio_kept bad;
    unsigned last;

    for (unsigned n = 0; n < RINGS; n += 2) {
        make_machine_with_kept_requests(ring_features[n]);
        virtio = container_of(f.blk, struct virtio_pci, function.dev)->virtio;
        last = virtio->kept.count - 1;
        bad = entry(0);
        bad.queue = 1; /* not enabled */
        assert_false(can_keep(0, bad));
        bad.queue = VIRTIO_MAX_QUEUES - 1; /* not there */
        assert_false(can_keep(0, bad));
        if (n) {
            bad = entry(last);
            bad.flags |= 1; /* it goes on, but there is nothing */
            assert_false(can_keep(last, bad));
            bad = entry(1);
            bad.id ^= 1; /* in another chain */
            assert_false(can_keep(1, bad));
        }
        while (state_list_add(&virtio->kept, sizeof(bad)) && virtio->kept.count <= 32)
            ;
        assert_false(can_keep(0, entry(0))); /* more than the ring has */
        virtio->kept.count = last + 1;
        bad = entry(0);
        bad.id = 0x7fff; /* a ring's: beyond its end, which is found out later */
        bad.gpa = UINT64_MAX;
        for (unsigned m = 1; n && bad.flags & 1 && m < 3; m++)
            bad.flags = 0;
        assert_true(can_keep(0, bad));
        machine_resume(f.t->machine);
        assert_int_equal(driver_status(&f.d), 0x0f | VIRTIO_NEEDS_RESET);
        tear_down_disk(state);
    }
}

/* ---- state ---- */

static void round_trip(void)
{
    machine_lock(f.t->machine);
    f.blk->class->quiesce(f.blk);
    machine_unlock(f.t->machine);
    device_test_round_trip(f.t, f.blk);
}

static void state_survives_in_the_middle(void **state)
{
    static const uint64_t features[] = {V1 | VIRTIO_F_EVENT_IDX, PACKED | VIRTIO_F_EVENT_IDX};
    uint64_t gpa = virtio_driver_alloc(&f.d, 256 << 10, 4096);

    (void)state;
    virtio_driver_use_msix(&f.d);
    disk_write_image(f.path, DISK_BYTES, 10);
    for (unsigned variant = 0; variant < 2; variant++) {
        uint64_t memory = f.d.next_gpa;

        start(features[variant], 8);
        for (unsigned n = 0; n < 30; n++) {
            struct request r = request(IN, n, gpa, n % 3 ? SECTOR : 128 << 10);

            driver_queue_add(&f.q, r.buffers, r.count);
            driver_queue_kick(&f.q);
            round_trip();
            wait_used(&f.q);
            assert_int_equal(status_of(&r), OK);
        }
        f.d.next_gpa = memory;
    }
}

/* Load the device's state with one number of it changed. Is it refused, and nothing changed? */
static bool is_refused(size_t offset, uint64_t value, unsigned size)
{
    const struct state_table *table = &f.blk->class->state;
    struct virtio_device *virtio = container_of(f.blk, struct virtio_pci, function.dev)->virtio;
    struct state_buffer good = {0}, bad = {0}, after = {0};
    uint8_t old[8];
    struct error err = {0};
    bool refused;

    assert_int_equal(state_save(table, f.blk, &good, &err), 0);
    memcpy(old, (uint8_t *)virtio + offset, size);
    memcpy((uint8_t *)virtio + offset, &value, size);
    assert_int_equal(state_save(table, f.blk, &bad, &err), 0);
    memcpy((uint8_t *)virtio + offset, old, size);
    refused = state_load(table, f.blk, bad.data, bad.size_bytes, &err) != 0;
    if (refused) {
        assert_int_equal(state_save(table, f.blk, &after, &err), 0);
        assert_int_equal(after.size_bytes, good.size_bytes);
        assert_memory_equal(after.data, good.data, good.size_bytes);
    } else {
        assert_int_equal(state_load(table, f.blk, good.data, good.size_bytes, &err), 0);
    }
    free(good.data);
    free(bad.data);
    free(after.data);
    return refused;
}

#define QUEUE_FIELD(field) offsetof(struct virtio_device, queues[0].field)
#define REFUSED(f, v)      assert_true(is_refused(QUEUE_FIELD(f), v, sizeof(((struct virtqueue *)0)->f)))

static void hostile_states_are_refused(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);

    (void)state;
    start(V1, 16);
    REFUSED(size, 0);
    REFUSED(size, 17);
    REFUSED(size, 257);
    REFUSED(descriptors, RAM_BYTES - 16);
    REFUSED(descriptors, 0x10001);
    REFUSED(driver_area, UINT64_MAX - 1);
    REFUSED(device_area, f.d.common);
    assert_true(is_refused(offsetof(struct virtio_device, features), V1 | 1ull << 50, 8));
    assert_true(is_refused(offsetof(struct virtio_device, status), 3, 1)); /* no features yet */
    assert_false(is_refused(QUEUE_FIELD(next_avail), 0xffff, 2));
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    start(PACKED, 16);
    REFUSED(next_avail, 16);
    REFUSED(next_used, 16);
    REFUSED(next_used, 1); /* before what was taken */
    assert_false(is_refused(QUEUE_FIELD(next_avail), 1, 2));
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
    assert_false(is_refused(QUEUE_FIELD(used_wrap), 0, 1)); /* less is under way than a ring */
    assert_int_equal(do_request(IN, 0, gpa, SECTOR), OK);
}

/* ---- properties ---- */

static void properties_are_checked(void **state)
{
    (void)state;
    assert_int_equal(
        disk_attach_result(f.t->machine, &virtio_blk_class, NULL, NULL, NULL, "--disk"), -EINVAL);
    assert_int_equal(
        disk_attach_result(f.t->machine, &virtio_blk_class, "queues", "34", f.disk, "33"), -EINVAL);
    assert_int_equal(disk_attach_result(f.t->machine, &virtio_blk_class, "serial",
                                        "123456789012345678901", f.disk, "20"),
                     -EINVAL);
    assert_int_equal(
        disk_attach_result(f.t->machine, &virtio_blk_class, "addr", "3", f.disk, "taken"), -EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_split_queue_reads_and_writes),
        TEST(a_packed_queue_reads_and_writes),
        TEST(queues_turn_many_times),
        TEST(indirect_tables_hold_a_request),
        TEST(what_is_beyond_the_disk_is_an_error),
        TEST(its_number_is_the_serial),
        TEST(unknown_requests_are_unsupported),
        TEST(ranges_are_discarded_and_zeroed),
        cmocka_unit_test_setup_teardown(a_full_disk_pauses_the_machine, set_up_full_disk,
                                        tear_down_disk),
        cmocka_unit_test_setup_teardown(a_reset_forgets_what_was_kept, set_up_full_disk,
                                        tear_down_disk),
        cmocka_unit_test_setup_teardown(without_discard_zeroes_are_written, set_up_without_discard,
                                        tear_down_disk),
        cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_written, set_up_read_only,
                                        tear_down_disk),
        TEST(a_write_is_durable_when_the_driver_wants_that),
        cmocka_unit_test_setup_teardown(a_disk_that_is_written_through_says_so,
                                        set_up_written_through, tear_down_disk),
        TEST(a_kick_before_the_driver_is_ready_waits),
        TEST(without_bus_mastering_memory_is_left_alone),
        TEST(a_status_at_the_end_of_a_large_buffer_is_marked_dirty),
        TEST(a_reset_waits_for_what_is_under_way),
        TEST(a_kick_ends_while_the_guest_goes_on),
        cmocka_unit_test(what_was_kept_is_state),
        cmocka_unit_test(another_machine_ends_what_was_kept),
        cmocka_unit_test(hostile_kept_requests_are_refused),
        TEST(state_survives_in_the_middle),
        TEST(hostile_states_are_refused),
        TEST(properties_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
