/*
 * test_virtio_scsi.c - the virtio SCSI adapter and its disk, driven by a guest's driver
 */
#include "cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "disk_test.h"
#include "trapeze/block.h"
#include "virtio_driver.h"

#define SLOT       3
#define RAM_BYTES  (4u << 20)
#define DISK_BYTES (1u << 20)
#define SECTOR     512u
#define SECTORS    (DISK_BYTES / SECTOR)
#define V1         VIRTIO_F_VERSION_1
#define DATA_BYTES (128u << 10)

enum { GOOD = 0, CHECK = 2 };
enum {
    OK = 0,
    OVERRUN = 1,
    ABORTED = 2,
    BAD_TARGET = 3,
    RESET = 4,
    FAILURE = 9,
    SUCCEEDED = 10,
    REJECTED = 11,
    NO_LUN = 12
};

static struct {
    struct device_test *t;
    struct device *hba;
    struct block *disk;
    char path[64];
    struct virtio_driver d;
    struct driver_queue control, requests;
    uint64_t head, data, response; /* GPAs */
    unsigned cdb_bytes, sense_bytes;
} f;

/* ---- fixture ---- */

static void make_machine(const char *disk_options)
{
    char description[128];
    struct error err = {0};
    int fd;

    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/test-scsi-XXXXXX");
    f.t = device_test_new_smp(RAM_BYTES, 2);
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    snprintf(description, sizeof(description), "%s%s", f.path, disk_options);
    f.disk = block_open(f.t->loop, description, &err);
    if (!f.disk)
        fail_msg("%s", err.text);
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.hba = device_test_create(f.t, &virtio_scsi_class, "addr=3,serial=disk-1");
    assert_int_equal(device_set_pointer(f.hba, "drive", f.disk, &err), 0);
    device_test_attach(f.hba);
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    f.head = virtio_driver_alloc(&f.d, 64, 16);
    f.response = virtio_driver_alloc(&f.d, 256, 16);
    f.data = virtio_driver_alloc(&f.d, DATA_BYTES, 4096);
}

static int set_up(void **state)
{
    (void)state;
    make_machine("");
    return 0;
}

static int set_up_read_only(void **state)
{
    (void)state;
    make_machine(",readonly=on");
    return 0;
}

static int set_up_without_discard(void **state)
{
    (void)state;
    make_machine(",discard=off");
    return 0;
}

static int set_up_written_through(void **state)
{
    (void)state;
    make_machine(",cache=writethrough");
    return 0;
}

static int set_up_throttled(void **state)
{
    (void)state;
    make_machine(",throttle.iops=1");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free_with_disk(f.t, f.disk, f.path);
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

/* ---- requests ---- */

#define CDB(...)                                                                                   \
    (const uint8_t[32])                                                                            \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define BE32(v) (uint8_t)((v) >> 24), (uint8_t)((v) >> 16), (uint8_t)((v) >> 8), (uint8_t)(v)
#define BE64(v) BE32((uint64_t)(v) >> 32), BE32((uint64_t)(v))

struct answer {
    uint8_t response, status;
    uint32_t sense, residual, written; /* sense: key, code and qualifier */
};

static void begin(void)
{
    assert_true(virtio_driver_negotiate(&f.d, V1));
    if (f.cdb_bytes) {
        test_write(f.t, f.d.config + 20, f.sense_bytes, 4);
        test_write(f.t, f.d.config + 24, f.cdb_bytes, 4);
    } else {
        f.cdb_bytes = 32;
        f.sense_bytes = 96;
    }
    driver_queue_set_up(&f.control, &f.d, 0, 16);
    driver_queue_set_up(&f.requests, &f.d, 2, 16);
    virtio_driver_start(&f.d);
}

/* in: the data comes from the disk. */
static void send(const uint8_t lun[8], const uint8_t cdb[32], unsigned size, bool in)
{
    struct driver_buffer buffers[4] = {{f.head, 19 + f.cdb_bytes, false}};
    unsigned count = 1;

    memset(ram(f.head), 0, 64);
    memcpy(ram(f.head), lun, 8);
    memcpy(ram(f.head + 19), cdb, f.cdb_bytes);
    memset(ram(f.response), 0xee, 256);
    if (size && !in)
        buffers[count++] = (struct driver_buffer){f.data, size, false};
    buffers[count++] = (struct driver_buffer){f.response, 12 + f.sense_bytes, true};
    if (size && in)
        buffers[count++] = (struct driver_buffer){f.data, size, true};
    driver_queue_add(&f.requests, buffers, count);
    driver_queue_kick(&f.requests);
}

static struct answer wait_for_answer(void)
{
    const uint8_t *r = ram(f.response);
    struct answer answer;
    uint16_t id;

    driver_queue_wait(&f.requests, &id, &answer.written);
    answer.response = r[11];
    answer.status = r[10];
    answer.residual = get_le32(r + 4);
    answer.sense = get_le32(r) >= 14 ? (uint32_t)(r[14] << 16 | r[24] << 8 | r[25]) : get_le32(r);
    return answer;
}

static struct answer run_at(const uint8_t lun[8], const uint8_t cdb[32], unsigned size, bool in)
{
    send(lun, cdb, size, in);
    return wait_for_answer();
}

static const uint8_t unit[8] = {1, 0, 0x40, 0};

static struct answer run(const uint8_t cdb[32], unsigned size, bool in)
{
    return run_at(unit, cdb, size, in);
}

/* With the unit attention of a reset taken. */
static void start(void)
{
    begin();
    assert_int_equal(run(CDB(0), 0, false).sense, 0x62900);
}

static void expect_sense(struct answer answer, uint32_t sense)
{
    assert_int_equal(answer.response, OK);
    assert_int_equal(answer.status, sense ? CHECK : GOOD);
    assert_int_equal(answer.sense, sense);
}

#define FAILS(sense, size, in, ...) expect_sense(run(CDB(__VA_ARGS__), size, in), sense)
#define WORKS(size, in, ...)        expect_sense(run(CDB(__VA_ARGS__), size, in), 0)

/* ---- the adapter ---- */

static void its_configuration_can_be_read(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, f.d.config, 4), 2); /* a queue for each processor */
    assert_int_equal(test_read(f.t, f.d.config + 20, 4), 96);
    assert_int_equal(test_read(f.t, f.d.config + 24, 4), 32);
    assert_int_equal(test_read(f.t, f.d.config + 30, 2), 0);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_COUNT, 2), 4);
    test_write(f.t, f.d.config + 20, 97, 4);
    test_write(f.t, f.d.config + 24, 33, 4);
    assert_int_equal(test_read(f.t, f.d.config + 20, 4), 96);
    assert_int_equal(test_read(f.t, f.d.config + 24, 4), 32);
    f.cdb_bytes = 16;
    f.sense_bytes = 18;
    start();
    FAILS(0x52100, SECTOR, true, 0x28, 0, BE32(SECTORS), 0, 0, 1);
    test_write(f.t, f.d.config + 24, 20, 4); /* not while it runs */
    assert_int_equal(test_read(f.t, f.d.config + 24, 4), 16);
}

static void there_is_one_unit(void **state)
{
    static const uint8_t target1[8] = {1, 1}, lun1[8] = {1, 0, 0x40, 1}, well_known[8] = {0xc1, 1};

    (void)state;
    start();
    assert_int_equal(run_at(target1, CDB(0), 0, false).response, BAD_TARGET);
    assert_int_equal(run_at(well_known, CDB(0), 0, false).response, BAD_TARGET);
    expect_sense(run_at(lun1, CDB(0), 0, false), 0x52500);
    expect_sense(run_at(lun1, CDB(0x12, 0, 0, 0, 36), 36, true), 0);
    assert_int_equal(*ram(f.data), 0x7f);
    expect_sense(run_at(lun1, CDB(3, 0, 0, 0, 18), 18, true), 0);
    assert_int_equal(ram(f.data)[12], 0x25);
    expect_sense(run_at(lun1, CDB(0xa0, [9] = 16), 16, true), 0);
    assert_int_equal(get_be32(ram(f.data)), 8);
    assert_int_equal(get_be64(ram(f.data + 8)), 0);
    WORKS(16, true, 0xa0, 0, 1, [9] = 16);
    assert_int_equal(get_be32(ram(f.data)), 0);
    FAILS(0x52400, 16, true, 0xa0, 0, 3, [9] = 16);
    FAILS(0x52400, 16, true, 0xa0, 0, 0, [9] = 15);
}

static uint8_t manage_task(uint32_t what, const uint8_t lun[8], uint8_t tag)
{
    struct driver_buffer buffers[2] = {{f.head, 24, false}, {f.response, 1, true}};
    uint16_t id;
    uint32_t length;

    memset(ram(f.head), 0, 24);
    put_le32(ram(f.head + 4), what);
    memcpy(ram(f.head + 8), lun, 8);
    *ram(f.head + 16) = tag;
    driver_queue_add(&f.control, buffers, 2);
    driver_queue_kick(&f.control);
    driver_queue_wait(&f.control, &id, &length);
    assert_int_equal(length, 1);
    return *ram(f.response);
}

static uint8_t task_management(uint32_t what, const uint8_t lun[8])
{
    return manage_task(what, lun, 0);
}

static void tasks_are_managed(void **state)
{
    static const uint8_t target1[8] = {1, 1}, lun1[8] = {1, 0, 0x40, 1};
    struct driver_buffer buffers[2] = {{f.head, 16, false}, {f.response, 5, true}};
    uint16_t id;
    uint32_t length;

    (void)state;
    start();
    for (unsigned what = 0; what < 8; what++)
        assert_int_equal(task_management(what, unit), what == 2 ? REJECTED : OK);
    FAILS(0x62903, 0, false, 0); /* a reset was among it */
    WORKS(0, false, 0);
    assert_int_equal(task_management(0, target1), BAD_TARGET);
    assert_int_equal(task_management(5, lun1), NO_LUN);
    assert_int_equal(task_management(77, unit), REJECTED);
    memset(ram(f.head), 0, 24);
    *ram(f.head) = 2; /* subscribe to events */
    memcpy(ram(f.head + 4), unit, 8);
    memset(ram(f.response), 0xee, 8);
    driver_queue_add(&f.control, buffers, 2);
    driver_queue_kick(&f.control);
    driver_queue_wait(&f.control, &id, &length);
    assert_memory_equal(ram(f.response), "\0\0\0\0\0\xee", 6);
    *ram(f.head) = 3;
    driver_queue_add(&f.control, buffers, 2);
    driver_queue_kick(&f.control);
    device_test_loop(f.t);
    assert_int_equal(driver_status(&f.d), 0x0f | VIRTIO_NEEDS_RESET);
}

static void a_task_ends_before_it_is_aborted(void **state)
{
    struct driver_buffer buffers[3] = {
        {f.head, 51, false}, {f.response + 128, 108, true}, {f.data, 128 << 10, true}};
    uint16_t id;
    uint32_t length;

    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 1);
    memset(ram(f.head), 0, 64);
    memcpy(ram(f.head), unit, 8);
    memcpy(ram(f.head + 19), CDB(0x28, 0, BE32(0), 0, 1, 0), 10); /* large: on a worker thread */
    driver_queue_add(&f.requests, buffers, 3);
    driver_queue_kick(&f.requests);
    assert_int_equal(task_management(0, unit), OK);
    assert_true(driver_queue_take(&f.requests, &id, &length));
    assert_int_equal(*ram(f.data + 1), 8);
}

/* A read whose answer is in the data's memory, from (tag << 8) on. */
static void begin_read(uint8_t tag)
{
    uint64_t at = f.data + (tag << 10);
    struct driver_buffer buffers[3] = {
        {at, 51, false}, {at + 128, 108, true}, {at + 512, SECTOR, true}};

    memset(ram(at), 0, 64);
    memset(ram(at + 128), 0xee, 108);
    memcpy(ram(at), unit, 8);
    *ram(at + 8) = tag;
    memcpy(ram(at + 19), CDB(0x28, [8] = 1), 10);
    driver_queue_add(&f.requests, buffers, 3);
    driver_queue_kick(&f.requests);
}

/* 0xee: none yet. */
static uint8_t response_of(uint8_t tag)
{
    return *ram(f.data + (tag << 10) + 128 + 11);
}

static void only_the_task_that_is_meant_is_aborted(void **state)
{
    uint16_t id;
    uint32_t length;

    (void)state;
    start();
    for (uint8_t tag = 1; tag <= 4; tag++)
        begin_read(tag);
    assert_int_equal(response_of(1), OK);
    assert_int_equal(manage_task(6, unit, 3), SUCCEEDED);
    assert_int_equal(manage_task(6, unit, 5), OK);
    assert_int_equal(manage_task(7, unit, 0), SUCCEEDED);
    assert_int_equal(response_of(3), 0xee); /* it was only asked about */
    assert_int_equal(manage_task(0, unit, 3), OK);
    assert_int_equal(response_of(2), 0xee);
    assert_int_equal(response_of(3), ABORTED);
    assert_int_equal(response_of(4), 0xee);
    assert_int_equal(manage_task(6, unit, 3), OK);
    for (unsigned n = 0; n < 3; n++)
        driver_queue_wait(&f.requests, &id, &length);
    assert_int_equal(response_of(2), OK);
    assert_int_equal(manage_task(5, unit, 0), OK);
    assert_int_equal(response_of(4), RESET);
    assert_int_equal(manage_task(7, unit, 0), OK);
}

static void malformed_requests_break_it(void **state)
{
    struct driver_buffer buffers[2] = {{f.head, 50, false}, {f.response, 108, true}};

    (void)state;
    start();
    driver_queue_add(&f.requests, buffers, 2);
    driver_queue_kick(&f.requests);
    assert_int_equal(driver_status(&f.d), 0x0f | VIRTIO_NEEDS_RESET);
    start();
    buffers[0].size_bytes = 51;
    buffers[1].size_bytes = 107;
    driver_queue_add(&f.requests, buffers, 2);
    driver_queue_kick(&f.requests);
    assert_int_equal(driver_status(&f.d), 0x0f | VIRTIO_NEEDS_RESET);
    start();
    WORKS(0, false, 0);
}

/* ---- what the disk says ---- */

static void it_says_what_it_is(void **state)
{
    const uint8_t *d = ram(f.data);
    struct answer answer;

    (void)state;
    begin();
    answer = run(CDB(0x12, 0, 0, 0, 255), 255, true); /* before the unit attention is taken */
    expect_sense(answer, 0);
    assert_int_equal(answer.residual, 255 - 36);
    assert_int_equal(answer.written, 108 + 36);
    assert_memory_equal(d + 8, "TRAPEZE disk            1.0 ", 28);
    assert_int_equal(d[4], 31);
    FAILS(0x62900, 0, false, 0);
    WORKS(5, true, 0x12, 0, 0, 0, 5); /* cut */
    FAILS(0x52400, 36, true, 0x12, 0, 1, 0, 36);
    WORKS(255, true, 0x12, 1, 0x00, 0, 255);
    assert_memory_equal(d, "\0\0\0\x06\0\x80\x83\xb0\xb1\xb2", 10);
    WORKS(255, true, 0x12, 1, 0x80, 0, 255);
    assert_memory_equal(d,
                        "\0\x80\0\x06"
                        "disk-1",
                        10);
    WORKS(255, true, 0x12, 1, 0x83, 0, 255);
    assert_memory_equal(d + 4, "\x02\x01\0\x0eTRAPEZE disk-1\x01\x03\0\x08", 22);
    assert_int_equal(d[26] >> 4, 3);
    WORKS(255, true, 0x12, 1, 0xb0, 0, 255);
    assert_int_equal(get_be32(d + 20), 1u << 22);
    WORKS(255, true, 0x12, 1, 0xb1, 0, 255);
    assert_int_equal(get_be16(d + 4), 1);
    WORKS(255, true, 0x12, 1, 0xb2, 0, 255);
    assert_int_equal(d[5], 0xe0);
    FAILS(0x52400, 255, true, 0x12, 1, 0xc0, 0, 255);
    WORKS(8, true, 0x25);
    assert_int_equal(get_be32(d), SECTORS - 1);
    assert_int_equal(get_be32(d + 4), SECTOR);
    WORKS(32, true, 0x9e, 0x10, [13] = 32);
    assert_int_equal(get_be64(d), SECTORS - 1);
    assert_int_equal(d[14], 0x80);
    FAILS(0x52400, 32, true, 0x9e, 0x12, [13] = 32);
}

static void modes_are_sensed_and_selected(void **state)
{
    uint8_t *d = ram(f.data);

    (void)state;
    start();
    WORKS(64, true, 0x1a, 0, 0x08, 0, 64);
    assert_memory_equal(d, "\x1f\0\x10\x08", 4);
    assert_int_equal(get_be32(d + 4), SECTORS);
    assert_memory_equal(d + 12, "\x08\x12\x04\0", 4);
    WORKS(255, true, 0x5a, 8, 0x3f, [8] = 255);
    assert_int_equal(get_be16(d), 8 + 12 + 20 + 12 - 2);
    WORKS(64, true, 0x1a, 8, 0x48, 0, 64); /* what can be changed */
    assert_memory_equal(d + 4, "\x08\x12\x04\0", 4);
    FAILS(0x53900, 64, true, 0x1a, 8, 0xc8, 0, 64);
    FAILS(0x52400, 64, true, 0x1a, 8, 0x1c, 0, 64);
    FAILS(0x52400, 64, true, 0x1a, 8, 0x08, 1, 64);
    WORKS(64, true, 0x1a, 8, 0x08, 0, 64);
    d[0] = 0;
    d[6] = 0; /* no write cache */
    WORKS(24, false, 0x15, 0x10, 0, 0, 24);
    WORKS(64, true, 0x1a, 8, 0x08, 0, 64);
    assert_int_equal(d[6], 0);
    d[0] = 0;
    d[6] = 4;
    d[7] = 1; /* cannot be changed */
    FAILS(0x52600, 24, false, 0x15, 0x10, 0, 0, 24);
    d[7] = 0;
    FAILS(0x52600, 23, false, 0x15, 0x10, 0, 0, 23);
    FAILS(0x52400, 24, false, 0x15, 0x11, 0, 0, 24);
    FAILS(0x51a00, 3, false, 0x15, 0x10, 0, 0, 3);
    WORKS(0, false, 0x15, 0x10, 0, 0, 0);
    WORKS(64, true, 0x1a, 8, 0x08, 0, 64);
    assert_int_equal(d[6], 0);
    assert_int_equal(run(CDB(0x15, 0x10, 0, 0, 24), 20, false).response, OVERRUN);
}

static void what_it_has_not_is_refused(void **state)
{
    static const uint8_t opcodes[] = {0x04, 0x16, 0x2e, 0x5e, 0x5f, 0x7f, 0xa3, 0xff};

    (void)state;
    start();
    for (unsigned n = 0; n < sizeof(opcodes); n++)
        FAILS(0x52000, 0, false, opcodes[n]);
    FAILS(0x52400, 0, false, 0x1e, 0, 0, 0, 1);
    WORKS(0, false, 0x1e);
    FAILS(0x52400, 0, false, 0x1b, 0, 0, 0, 0x10);
    WORKS(0, false, 0x1b); /* stopped */
    FAILS(0x20402, 0, false, 0);
    FAILS(0x20402, SECTOR, true, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
    WORKS(18, true, 3, 0, 0, 0, 18);
    WORKS(0, false, 0x1b, 0, 0, 0, 1);
    WORKS(0, false, 0);
    FAILS(0x52400, 18, true, 3, 1, 0, 0, 18);
}

/* ---- data ---- */

static void sectors_go_both_ways(void **state)
{
    uint8_t bytes[8 * SECTOR];
    const uint8_t *const reads[] = {
        CDB(0x08, 0, 0, 9, 8),
        CDB(0x28, 0, BE32(9), 0, 0, 8),
        CDB(0xa8, 0, BE32(9), BE32(8)),
        CDB(0x88, 0, BE64(9), BE32(8)),
    };
    const uint8_t *const writes[] = {
        CDB(0x0a, 0, 1, 0, 8),
        CDB(0x2a, 0, BE32(256), 0, 0, 8),
        CDB(0xaa, 0, BE32(256), BE32(8)),
        CDB(0x8a, 8, BE64(256), BE32(8)),
    };

    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 2);
    disk_read_image(f.path, 9 * SECTOR, bytes, sizeof(bytes));
    for (unsigned n = 0; n < 4; n++) {
        struct answer answer;

        memset(ram(f.data), 0, sizeof(bytes));
        answer = run(reads[n], sizeof(bytes) + 100, true);
        expect_sense(answer, 0);
        assert_int_equal(answer.residual, 100);
        assert_memory_equal(ram(f.data), bytes, sizeof(bytes));
        assert_int_equal(run(reads[n], sizeof(bytes) - 1, true).response, OVERRUN);
        assert_int_equal(run(reads[n], sizeof(bytes), false).response, OVERRUN);
    }
    for (unsigned n = 0; n < 4; n++) {
        disk_fill(ram(f.data), sizeof(bytes), 20 + n);
        expect_sense(run(writes[n], sizeof(bytes), false), 0);
        disk_read_image(f.path, 256 * SECTOR, bytes, sizeof(bytes));
        assert_memory_equal(ram(f.data), bytes, sizeof(bytes));
    }
    WORKS(256 * SECTOR, true, 0x08, 0, 0, 0, 0); /* no number: 256 */
    WORKS(0, true, 0x28);                        /* no number: none */
    FAILS(0x52100, SECTOR, true, 0x28, 0, BE32(SECTORS), 0, 0, 1);
    FAILS(0x52100, SECTOR, false, 0x8a, 0, BE64(UINT64_MAX), BE32(2));
    FAILS(0x52100, 0, false, 0x35, 0, BE32(SECTORS + 1), 0, 0, 0);
    FAILS(0x52400, SECTOR, true, 0x28, 0x20, 0, 0, 0, 0, 0, 0, 1); /* protection */
    WORKS(0, false, 0x91);
}

static void contents_are_verified(void **state)
{
    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 3);
    WORKS(8 * SECTOR, true, 0x28, 0, BE32(16), 0, 0, 8);
    WORKS(0, false, 0x2f, 0, BE32(16), 0, 0, 8);
    WORKS(8 * SECTOR, false, 0x2f, 2, BE32(16), 0, 0, 8);
    ram(f.data)[8 * SECTOR - 1] ^= 1;
    FAILS(0xe1d00, 8 * SECTOR, false, 0x8f, 2, BE64(16), BE32(8));
    WORKS(7 * SECTOR, false, 0xaf, 2, BE32(16), BE32(7));
    FAILS(0x52100, 0, false, 0x2f, 0, BE32(SECTORS), 0, 0, 1);
    FAILS(0x52400, 0, false, 0x2f, 4, BE32(16), 0, 0, 8);
}

static void the_same_is_written(void **state)
{
    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 4);
    memset(ram(f.data), 0, SECTOR);
    WORKS(SECTOR, false, 0x41, 0, BE32(8), 0, 0, 16);
    assert_true(disk_image_is(f.path, 8 * SECTOR, 0, 16 * SECTOR));
    assert_false(disk_image_is(f.path, 24 * SECTOR, 0, 1 * SECTOR));
    memset(ram(f.data), 0x5a, SECTOR);
    WORKS(SECTOR, false, 0x93, 0, BE64(100), BE32(300)); /* more than is written at once */
    assert_true(disk_image_is(f.path, 100 * SECTOR, 0x5a, 60 * SECTOR));
    assert_true(disk_image_is(f.path, 340 * SECTOR, 0x5a, 60 * SECTOR));
    assert_false(disk_image_is(f.path, 400 * SECTOR, 0x5a, 1 * SECTOR));
    WORKS(0, false, 0x93, 1, BE64(100), BE32(8)); /* without data */
    assert_true(disk_image_is(f.path, 100 * SECTOR, 0, 8 * SECTOR));
    FAILS(0x52400, SECTOR, false, 0x41, 0, BE32(8), 0, 0, 0);
    FAILS(0x52100, SECTOR, false, 0x41, 0, BE32(SECTORS - 1), 0, 0, 2);
    FAILS(0x52400, SECTOR, false, 0x93, 0x10, BE64(8), BE32(1));
}

static void put_range(unsigned index, uint64_t lba, uint32_t count)
{
    put_be64(ram(f.data + 8 + 16 * index), lba);
    put_be32(ram(f.data + 16 + 16 * index), count);
}

static void ranges_are_unmapped(void **state)
{
    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 5);
    memset(ram(f.data), 0, 64);
    put_be16(ram(f.data), 38);
    put_be16(ram(f.data + 2), 32);
    put_range(0, 64, 16);
    put_range(1, 128, 8);
    WORKS(40, false, 0x42, [8] = 40);
    assert_true(disk_image_is(f.path, 64 * SECTOR, 0, 16 * SECTOR));
    assert_true(disk_image_is(f.path, 128 * SECTOR, 0, 8 * SECTOR));
    put_range(0, 256, 8);
    put_range(1, SECTORS, 1);
    FAILS(0x52100, 40, false, 0x42, [8] = 40);
    assert_false(disk_image_is(f.path, 256 * SECTOR, 0, 8 * SECTOR)); /* none of them */
    FAILS(0x51a00, 7, false, 0x42, [8] = 7);
    FAILS(0x52400, 40, false, 0x42, 1, [8] = 40);
    WORKS(0, false, 0x42);
    assert_int_equal(run(CDB(0x42, [8] = 40), 39, false).response, OVERRUN);
}

static void without_discard_nothing_is_unmapped(void **state)
{
    (void)state;
    start();
    WORKS(32, true, 0x9e, 0x10, [13] = 32);
    assert_int_equal(ram(f.data)[14], 0);
    FAILS(0x52400, 24, false, 0x42, [8] = 24);
}

static void a_read_only_disk_is_not_written(void **state)
{
    (void)state;
    start();
    WORKS(SECTOR, true, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
    FAILS(0x72700, SECTOR, false, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1);
    FAILS(0x72700, SECTOR, false, 0x41, 0, 0, 0, 0, 0, 0, 0, 1);
    FAILS(0x72700, 24, false, 0x42, [8] = 24);
    WORKS(64, true, 0x1a, 8, 0x3f, 0, 64);
    assert_int_equal(ram(f.data)[2], 0x90);
}

static unsigned syncs;

/* Instead of the system's: counted. */
int fdatasync(int fd)
{
    (void)fd;
    __atomic_fetch_add(&syncs, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void a_write_is_durable_when_the_guest_wants_that(void **state)
{
    unsigned before;

    (void)state;
    start();
    before = syncs;
    WORKS(SECTOR, false, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1);
    assert_int_equal(syncs, before);
    WORKS(SECTOR, false, 0x2a, 8, 0, 0, 0, 0, 0, 0, 1); /* FUA */
    assert_int_equal(syncs, before + 1);
    WORKS(0, false, 0x35);
    assert_int_equal(syncs, before + 2);
    memset(ram(f.data), 0, 24);
    memcpy(ram(f.data + 4), "\x08\x12", 2);
    WORKS(24, false, 0x15, 0x10, 0, 0, 24);
    WORKS(SECTOR, false, 0x0a, 0, 0, 0, 1);
    assert_int_equal(syncs, before + 3);
}

static void a_disk_that_is_written_through_has_no_cache(void **state)
{
    uint8_t *d = ram(f.data);
    unsigned before;

    (void)state;
    start();
    for (uint8_t control = 0; control < 3; control++) {
        WORKS(64, true, 0x1a, 8, (uint8_t)(control << 6 | 0x08), 0, 64);
        assert_memory_equal(d + 4, "\x08\x12\0\0", 4);
    }
    d[0] = 0;
    d[6] = 4;
    FAILS(0x52600, 24, false, 0x15, 0x10, 0, 0, 24);
    before = syncs;
    WORKS(SECTOR, false, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1);
    WORKS(0, false, 0x35);
    assert_int_equal(syncs, before + 1); /* once is enough */
}

/* ---- state ---- */

/* At each request to the disk: saved and loaded, and done anew. */
static void commands_that_failed_are_state(void **state)
{
    static const struct {
        const char *fault;
        uint8_t cdb[32];
        unsigned size;
    } rows[] = {
        {"write:1:2", {0x2a, 0, BE32(16), 0, 0, 2}, 2 * SECTOR}, /* WRITE(10) */
        {"flush:1:2", {0x2a, 8, BE32(16), 0, 0, 2}, 2 * SECTOR}, /* FUA */
        {"write:2:2", {0x93, 0, BE64(16), BE32(300)}, SECTOR},   /* WRITE SAME(16) */
        {"read:1:2", {0x2f, 2, BE32(16), 0, 0, 2}, 2 * SECTOR},  /* VERIFY(10) */
        {"discard:2:2", {0x42, [8] = 40}, 40},                   /* UNMAP */
        {"flush:1:2", {0x35}, 0},                                /* SYNCHRONIZE CACHE */
    };
    struct answer answer;
    char options[64];

    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        snprintf(options, sizeof(options), ",werror=pause,rerror=pause,fault=%s", rows[n].fault);
        make_machine(options);
        block_set_pause(f.disk, disk_pause_for, f.t->machine);
        start();
        memset(ram(f.data), 0x5a, 2 * SECTOR);
        if (rows[n].cdb[0] == 0x2f)
            memset(ram(f.data), 0, 2 * SECTOR); /* as the disk is */
        if (rows[n].cdb[0] == 0x42) {
            put_be16(ram(f.data + 2), 32);
            put_range(0, 64, 16);
            put_range(1, 128, 8);
        }
        send(unit, rows[n].cdb, rows[n].size, false);
        for (unsigned turn = 0; turn < 2; turn++) {
            disk_wait_for_pause(f.t);
            assert_int_equal(*ram(f.response), 0xee);
            device_test_round_trip(f.t, f.hba);
            machine_resume(f.t->machine);
        }
        answer = wait_for_answer();
        expect_sense(answer, 0);
        assert_int_equal(answer.residual, 0);
        if (rows[n].size >= SECTOR && rows[n].cdb[0] != 0x2f)
            assert_true(disk_image_is(f.path, 16 * SECTOR, 0x5a,
                                      (rows[n].cdb[0] == 0x93 ? 300 : 2) * SECTOR));
        WORKS(0, false, 0); /* nothing else has ended */
        tear_down(state);
    }
}

static void state_survives_in_the_middle(void **state)
{
    (void)state;
    f.cdb_bytes = 16;
    f.sense_bytes = 20;
    begin();
    device_test_round_trip(f.t, f.hba);
    FAILS(0x62900, 0, false, 0); /* the unit attention was saved */
    memset(ram(f.data), 0, 24);
    memcpy(ram(f.data + 4), "\x08\x12", 2);
    WORKS(24, false, 0x15, 0x10, 0, 0, 24);
    WORKS(0, false, 0x1b);
    for (unsigned n = 0; n < 20; n++) {
        device_test_round_trip(f.t, f.hba);
        FAILS(0x20402, 0, false, 0);
    }
    WORKS(64, true, 0x1a, 8, 0x08, 0, 64);
    assert_int_equal(ram(f.data)[6], 0);
}

static void properties_are_checked(void **state)
{
    (void)state;
    assert_int_equal(
        disk_attach_result(f.t->machine, &virtio_scsi_class, NULL, NULL, NULL, "--disk"), -EINVAL);
    assert_int_equal(
        disk_attach_result(f.t->machine, &virtio_scsi_class, "queues", "32", f.disk, "31"),
        -EINVAL);
    assert_int_equal(disk_attach_result(f.t->machine, &virtio_scsi_class, "serial",
                                        "123456789012345678901", f.disk, "20"),
                     -EINVAL);
    assert_int_equal(
        disk_attach_result(f.t->machine, &virtio_scsi_class, "addr", "3", f.disk, "taken"), -EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(its_configuration_can_be_read),
        TEST(there_is_one_unit),
        TEST(tasks_are_managed),
        TEST(a_task_ends_before_it_is_aborted),
        cmocka_unit_test_setup_teardown(only_the_task_that_is_meant_is_aborted, set_up_throttled,
                                        tear_down),
        TEST(malformed_requests_break_it),
        TEST(it_says_what_it_is),
        TEST(modes_are_sensed_and_selected),
        TEST(what_it_has_not_is_refused),
        TEST(sectors_go_both_ways),
        TEST(contents_are_verified),
        TEST(the_same_is_written),
        TEST(ranges_are_unmapped),
        cmocka_unit_test_setup_teardown(without_discard_nothing_is_unmapped, set_up_without_discard,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_written, set_up_read_only,
                                        tear_down),
        TEST(a_write_is_durable_when_the_guest_wants_that),
        cmocka_unit_test_setup_teardown(a_disk_that_is_written_through_has_no_cache,
                                        set_up_written_through, tear_down),
        cmocka_unit_test(commands_that_failed_are_state),
        TEST(state_survives_in_the_middle),
        TEST(properties_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
