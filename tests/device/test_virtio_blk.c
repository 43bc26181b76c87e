/*
 * test_virtio_blk.c - the virtio disk, driven by a guest's driver: transport, queues, requests
 */
#include "cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/transport_pci.h"
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

static void open_disk(const char *options)
{
    char description[128];
    struct error err = {0};

    snprintf(description, sizeof(description), "%s%s", f.path, options);
    f.disk = block_open(f.t->loop, description, &err);
    if (!f.disk)
        fail_msg("%s", err.text);
}

static void make_machine(const char *disk_options, const char *properties)
{
    struct error err = {0};
    int fd;

    f = (struct fixture){.t = device_test_new_smp(RAM_BYTES, 2), .path = "/tmp/test-virtio-XXXXXX"};
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    open_disk(disk_options);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.blk = device_test_create(f.t, &virtio_blk_class, properties);
    assert_int_equal(device_set_pointer(f.blk, "drive", f.disk, &err), 0);
    device_test_attach(f.blk);
    test_irq_connect(&f.intx, device_output(f.host, "pirq", pci_pirq(SLOT, 1)));
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
}

static int set_up(void **state)
{
    (void)state;
    make_machine("", "addr=3,serial=disk-1");
    return 0;
}

static int set_up_read_only(void **state)
{
    (void)state;
    make_machine(",readonly=on", "addr=3");
    return 0;
}

static int set_up_without_discard(void **state)
{
    (void)state;
    make_machine(",discard=off", "addr=3");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    unlink(f.path);
    return 0;
}

/* The loop is gone last, so the disk is closed in between. */
static int tear_down_disk(void **state)
{
    machine_free(f.t->machine);
    block_free(f.disk);
    f.t->machine = NULL;
    return tear_down(state);
}

static void start(uint64_t features, unsigned size)
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

static struct request header(uint32_t type, uint64_t sector)
{
    struct request r = {.header = virtio_driver_alloc(&f.d, 16, 16),
                        .status = virtio_driver_alloc(&f.d, 1, 1)};

    test_write(f.t, r.header, type, 4);
    test_write(f.t, r.header + 8, sector, 8);
    test_write(f.t, r.status, NO_STATUS, 1);
    r.buffers[r.count++] = (struct driver_buffer){r.header, 16, false};
    return r;
}

static void add_data(struct request *r, uint64_t gpa, uint32_t size, bool write)
{
    r->buffers[r->count++] = (struct driver_buffer){gpa, size, write};
}

static void add_status(struct request *r)
{
    add_data(r, r->status, 1, true);
}

static struct request request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t size)
{
    struct request r = header(type, sector);

    if (size)
        add_data(&r, gpa, size, type == IN || type == GET_ID);
    add_status(&r);
    return r;
}

static struct request range_request(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 16, 8);

    test_write(f.t, gpa, sector, 8);
    test_write(f.t, gpa + 8, count, 4);
    test_write(f.t, gpa + 12, flags, 4);
    return request(type, 0, gpa, 16);
}

static uint8_t status_of(const struct request *r)
{
    return (uint8_t)test_read(f.t, r->status, 1);
}

static void wait_used(struct driver_queue *q)
{
    uint16_t id;
    uint32_t length;

    driver_queue_wait(q, &id, &length);
}

static uint8_t run(const struct request *r)
{
    driver_queue_add(&f.q, r->buffers, r->count);
    driver_queue_kick(&f.q);
    wait_used(&f.q);
    return status_of(r);
}

static uint8_t do_request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t size)
{
    struct request r = request(type, sector, gpa, size);

    return run(&r);
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t n = 0; n < size; n++)
        bytes[n] = (uint8_t)(n * 7 + n / 256 + seed);
}

static void write_image(unsigned seed)
{
    static uint8_t bytes[DISK_BYTES];
    int fd = open(f.path, O_WRONLY);

    fill(bytes, sizeof(bytes), seed);
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), DISK_BYTES);
    close(fd);
}

static void read_image(uint64_t offset, void *out, size_t size)
{
    int fd = open(f.path, O_RDONLY);

    assert_int_equal(pread(fd, out, size, (off_t)offset), size);
    close(fd);
}

/* The device stands still, and does its work again after a reset. */
static void expect_broken(void)
{
    uint16_t id;
    uint32_t length;

    device_test_loop(f.t);
    assert_int_equal(driver_status(&f.d), 0x0f | VIRTIO_NEEDS_RESET);
    assert_false(driver_queue_take(&f.q, &id, &length));
    start(V1, 16);
    assert_int_equal(do_request(IN, 0, virtio_driver_alloc(&f.d, SECTOR, 1), SECTOR), OK);
}

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
    assert_true(driver_status(&f.d) & VIRTIO_NEEDS_RESET);
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
    assert_true(driver_status(&f.d) & VIRTIO_NEEDS_RESET);
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

/* ---- requests ---- */

static void data_goes_both_ways(uint64_t features)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, 65536 * 2, 4096);
    uint8_t bytes[4096];

    start(features, 16);
    write_image(1);
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
    fill(ram(gpa), 4096, 9);
    assert_int_equal(do_request(OUT, 2000, gpa, 4096), OK);
    read_image(2000 * SECTOR, bytes, sizeof(bytes));
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
    write_image(3);
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
    write_image(4);
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
    write_image(5);
    r = range_request(WRITE_ZEROES, 8, 8, 0);
    assert_int_equal(run(&r), OK);
    read_image(4096, bytes, sizeof(bytes));
    for (unsigned n = 0; n < sizeof(bytes); n++)
        assert_int_equal(bytes[n], 0);
    r = range_request(WRITE_ZEROES, 17, 1, 1); /* not a page of the host */
    assert_int_equal(run(&r), OK);
    read_image(17 * SECTOR, bytes, 2 * SECTOR);
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
    write_image(6);
    assert_int_equal(virtio_driver_offered(&f.d) & (F_DISCARD | F_ZEROES), F_ZEROES);
    assert_int_equal(test_read(f.t, f.d.config + 56, 1), 0); /* write_zeroes_may_unmap */
    start(V1 | F_ZEROES, 16);
    r = range_request(WRITE_ZEROES, 1, 1, 1);
    assert_int_equal(run(&r), OK);
    read_image(SECTOR, bytes, sizeof(bytes));
    for (unsigned n = 0; n < sizeof(bytes); n++)
        assert_int_equal(bytes[n], 0);
}

static void a_read_only_disk_is_not_written(void **state)
{
    uint64_t gpa = virtio_driver_alloc(&f.d, SECTOR, 1);
    uint8_t bytes[SECTOR];
    struct request r;

    (void)state;
    write_image(7);
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
    read_image(0, bytes, sizeof(bytes));
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
    write_image(8);
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
    write_image(10);
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

static int attach_result(const char *name, const char *value, void *drive, const char *text)
{
    struct error err = {0};
    struct device *dev = device_new(f.t->machine, &virtio_blk_class, NULL, &err);
    int result;

    assert_non_null(dev);
    if (name)
        assert_int_equal(device_set(dev, name, value, &err), 0);
    if (drive)
        assert_int_equal(device_set_pointer(dev, "drive", drive, &err), 0);
    result = device_attach(dev, &err);
    if (result)
        assert_non_null(strstr(err.text, text));
    return result;
}

static void properties_are_checked(void **state)
{
    (void)state;
    assert_int_equal(attach_result(NULL, NULL, NULL, "--disk"), -EINVAL);
    assert_int_equal(attach_result("queues", "34", f.disk, "33"), -EINVAL);
    assert_int_equal(attach_result("serial", "123456789012345678901", f.disk, "20"), -EINVAL);
    assert_int_equal(attach_result("addr", "3", f.disk, "taken"), -EBUSY);
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
        TEST(a_split_queue_interrupts_at_the_event),
        TEST(a_packed_queue_interrupts_at_the_event),
        TEST(a_whole_packed_ring_passes_the_event),
        TEST(more_than_a_ring_may_be_used_before_the_guest_is_told),
        TEST(a_split_queue_reads_and_writes),
        TEST(a_packed_queue_reads_and_writes),
        TEST(queues_turn_many_times),
        TEST(indirect_tables_hold_a_request),
        TEST(what_is_beyond_the_disk_is_an_error),
        TEST(its_number_is_the_serial),
        TEST(unknown_requests_are_unsupported),
        TEST(ranges_are_discarded_and_zeroed),
        cmocka_unit_test_setup_teardown(without_discard_zeroes_are_written, set_up_without_discard,
                                        tear_down_disk),
        cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_written, set_up_read_only,
                                        tear_down_disk),
        TEST(a_write_is_durable_when_the_driver_wants_that),
        TEST(loops_and_ends_of_tables_break_it),
        TEST(bad_indirect_tables_break_it),
        TEST(bad_buffers_break_it),
        TEST(bad_packed_chains_break_it),
        TEST(more_than_a_ring_is_not_under_way),
        TEST(a_kick_before_the_driver_is_ready_waits),
        TEST(without_bus_mastering_memory_is_left_alone),
        TEST(a_status_at_the_end_of_a_large_buffer_is_marked_dirty),
        TEST(a_reset_waits_for_what_is_under_way),
        TEST(a_kick_ends_while_the_guest_goes_on),
        TEST(state_survives_in_the_middle),
        TEST(hostile_states_are_refused),
        TEST(properties_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
