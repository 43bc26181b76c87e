/*
 * virtio_disk.h - a machine with a virtio disk for the tests of transport, queues and requests
 */
#ifndef TESTS_DEVICE_VIRTIO_DISK_H
#define TESTS_DEVICE_VIRTIO_DISK_H

#include "cmocka_all.h"

#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/transport.h"
#include "disk_test.h"
#include "trapeze/block.h"
#include "virtio_driver.h"

#define SLOT         3
#define RAM_BYTES    (4u << 20)
#define DISK_BYTES   (1u << 20)
#define SECTOR       512u

#define F_RO         (1ull << 5)
#define F_FLUSH      (1ull << 9)
#define F_CONFIG_WCE (1ull << 11)
#define F_MQ         (1ull << 12)
#define F_DISCARD    (1ull << 13)
#define F_ZEROES     (1ull << 14)
#define V1           VIRTIO_F_VERSION_1
#define PACKED       (VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IO_ERROR = 1, UNSUPPORTED = 2, NO_STATUS = 0xaa };

struct fixture {
    struct device_test *t;
    struct device *host, *blk;
    struct test_irq intx;
    struct block *disk;
    char path[64];
    struct virtio_driver d;
    struct driver_queue q;
};

static struct fixture f;

static inline void open_disk(const char *options)
{
    char description[128];
    struct error err = {0};

    snprintf(description, sizeof(description), "%s%s", f.path, options);
    f.disk = block_open(f.t->loop, description, &err);
    if (!f.disk)
        fail_msg("%s", err.text);
}

static inline void make_image(void)
{
    int fd;

    f = (struct fixture){.t = device_test_new_smp(RAM_BYTES, 2), .path = "/tmp/test-virtio-XXXXXX"};
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
}

static inline void open_and_attach(const char *disk_options, const char *properties)
{
    struct error err = {0};

    open_disk(disk_options);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.blk = device_test_create(f.t, &virtio_blk_class, properties);
    assert_int_equal(device_set_pointer(f.blk, "drive", f.disk, &err), 0);
    device_test_attach(f.blk);
    test_irq_connect(&f.intx, device_output(f.host, "pirq", pci_pirq(SLOT, 1)));
    device_test_start(f.t);
}

static inline void make_machine(const char *disk_options, const char *properties)
{
    make_image();
    open_and_attach(disk_options, properties);
    virtio_driver_find(&f.d, f.t, SLOT);
}

static inline int set_up(void **state)
{
    (void)state;
    make_machine("", "addr=3,serial=disk-1");
    return 0;
}

static inline int set_up_read_only(void **state)
{
    (void)state;
    make_machine(",readonly=on", "addr=3");
    return 0;
}

static inline int set_up_written_through(void **state)
{
    (void)state;
    make_machine(",cache=writethrough", "addr=3");
    return 0;
}

static inline int set_up_without_discard(void **state)
{
    (void)state;
    make_machine(",discard=off", "addr=3");
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    unlink(f.path);
    return 0;
}

/* The loop is gone last, so the disk is closed in between. */
static inline int tear_down_disk(void **state)
{
    machine_free(f.t->machine);
    block_free(f.disk);
    f.t->machine = NULL;
    return tear_down(state);
}

static inline void start(uint64_t features, unsigned size)
{
    assert_true(virtio_driver_negotiate(&f.d, features));
    driver_queue_set_up(&f.q, &f.d, 0, size);
    virtio_driver_start(&f.d);
    assert_int_equal(driver_status(&f.d), 0x0f);
}

/* ---- requests ---- */

struct request {
    uint64_t header, status; /* GPAs */
    unsigned count;
    struct driver_buffer buffers[16];
};

static inline struct request header(uint32_t type, uint64_t sector)
{
    struct request r = {.header = virtio_driver_alloc(&f.d, 16, 16),
                        .status = virtio_driver_alloc(&f.d, 1, 1)};

    test_write(f.t, r.header, type, 4);
    test_write(f.t, r.header + 8, sector, 8);
    test_write(f.t, r.status, NO_STATUS, 1);
    r.buffers[r.count++] = (struct driver_buffer){r.header, 16, false};
    return r;
}

static inline void add_data(struct request *r, uint64_t gpa, uint32_t size, bool write)
{
    r->buffers[r->count++] = (struct driver_buffer){gpa, size, write};
}

static inline void add_status(struct request *r)
{
    add_data(r, r->status, 1, true);
}

static inline struct request request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t size)
{
    struct request r = header(type, sector);

    if (size)
        add_data(&r, gpa, size, type == IN || type == GET_ID);
    add_status(&r);
    return r;
}

static inline struct request range_request(uint32_t type, uint64_t sector, uint32_t count,
                                           uint32_t flags)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 16, 8);

    test_write(f.t, gpa, sector, 8);
    test_write(f.t, gpa + 8, count, 4);
    test_write(f.t, gpa + 12, flags, 4);
    return request(type, 0, gpa, 16);
}

static inline uint8_t status_of(const struct request *r)
{
    return (uint8_t)test_read(f.t, r->status, 1);
}

static inline void wait_used(struct driver_queue *q)
{
    uint16_t id;
    uint32_t length;

    driver_queue_wait(q, &id, &length);
}

static inline uint8_t run(const struct request *r)
{
    driver_queue_add(&f.q, r->buffers, r->count);
    driver_queue_kick(&f.q);
    wait_used(&f.q);
    return status_of(r);
}

static inline uint8_t do_request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t size)
{
    struct request r = request(type, sector, gpa, size);

    return run(&r);
}

static inline uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

/* The device stands still, and does its work again after a reset. */
static inline void expect_broken(void)
{
    uint16_t id;
    uint32_t length;

    device_test_loop(f.t);
    assert_int_equal(driver_status(&f.d), 0x0f | VIRTIO_NEEDS_RESET);
    assert_false(driver_queue_take(&f.q, &id, &length));
    start(V1, 16);
    assert_int_equal(do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR), OK);
}

#endif
