/*
 * test_nvme.c - the NVMe controller, driven by a guest's driver
 */
#include "cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/devices.h"
#include "devices/nvme/nvme.h"
#include "disk_test.h"
#include "nvme_driver.h"
#include "trapeze/block.h"

#define RAM_BYTES  (8u << 20)
#define DISK_BYTES (4u << 20)
#define SECTOR     512u
#define SECTORS    (DISK_BYTES / SECTOR)

enum { FLUSH = 0, WRITE = 1, READ = 2, COMPARE = 5, ZEROES = 8, DATASET = 9 };
enum {
    IDENTIFY = 6,
    ABORT = 8,
    SET = 9,
    GET = 10,
    LOG = 2,
    EVENT = 12,
    DELETE_SQ = 0,
    DELETE_CQ = 4
};

static struct {
    struct device_test *t;
    struct device *nvme;
    struct test_irq intx;
    struct block *disk;
    char path[64];
    struct nvme_driver d;
    uint64_t data; /* 2 MiB of RAM */
} f;

static void make_machine(const char *disk_options)
{
    char description[128];
    struct error err = {0};
    struct device *host;
    int fd;

    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/test-nvme-XXXXXX");
    f.t = device_test_new_smp(RAM_BYTES, 2);
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    snprintf(description, sizeof(description), "%s%s", f.path, disk_options);
    f.disk = block_open(f.t->loop, description, &err);
    if (!f.disk)
        fail_msg("%s", err.text);
    host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.nvme = device_test_create(f.t, &nvme_class, "addr=3,serial=disk-1,queues=3");
    assert_int_equal(device_set_pointer(f.nvme, "drive", f.disk, &err), 0);
    device_test_attach(f.nvme);
    test_irq_connect(&f.intx, device_output(host, "pirq", pci_pirq(NVME_SLOT, 1)));
    device_test_start(f.t);
    nvme_driver_find(&f.d, f.t);
    f.data = nvme_alloc(&f.d, 2u << 20);
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

/* ---- helpers ---- */

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

static uint16_t run(unsigned queue, struct nvme_test_command c)
{
    return nvme_run(&f.d, queue, &c).status;
}

static uint16_t io(uint8_t opcode, uint64_t lba, unsigned sectors)
{
    return run(1, nvme_transfer(opcode, lba, sectors, f.data, f.data + 4096));
}

static struct nvme_test_command admin(uint8_t opcode, uint32_t nsid, uint32_t ten, uint32_t eleven)
{
    return (struct nvme_test_command){.opcode = opcode,
                                      .nsid = nsid,
                                      .prp1 = f.data,
                                      .prp2 = f.data + 4096,
                                      .dword = {[10] = ten, [11] = eleven}};
}

static uint16_t do_admin(uint8_t opcode, uint32_t nsid, uint32_t ten, uint32_t eleven)
{
    return run(0, admin(opcode, nsid, ten, eleven));
}

static uint32_t feature(uint32_t ten, uint32_t eleven)
{
    struct nvme_test_command c = admin(GET, 0, ten, eleven);
    struct nvme_test_entry entry = nvme_run(&f.d, 0, &c);

    assert_int_equal(entry.status, 0);
    return entry.result;
}

static void start(void)
{
    nvme_driver_start(&f.d, 16);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 1);
    assert_int_equal(nvme_make_queues(&f.d, 1, 16, 1), 0);
}

static uint16_t log_page(unsigned id, unsigned bytes, uint32_t flags)
{
    return do_admin(LOG, 0xffffffff, id | flags | (bytes / 4 - 1) << 16, 0);
}

/* ---- registers ---- */

static void registers_say_what_it_can(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, NVME_BAR, 8), 0x000000300f0100ffull);
    assert_int_equal(nvme_read(&f.d, 8), 0x10400);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CC), 0);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0);
    nvme_write(&f.d, 0x24, 0xffffffff);
    assert_int_equal(nvme_read(&f.d, 0x24), 0x0fff0fff);
    test_write(f.t, NVME_BAR + 0x28, 0x123456789abull, 8);
    assert_int_equal(test_read(f.t, NVME_BAR + 0x28, 8), 0x12345678000ull);
    nvme_write(&f.d, 0x0c, 0x81);
    nvme_write(&f.d, 0x10, 0x01);
    assert_int_equal(nvme_read(&f.d, 0x0c), 0x80);
    assert_int_equal(nvme_read(&f.d, 0x10), 0x80);
    assert_int_equal(nvme_read(&f.d, 0x1000), 0);
    assert_int_equal(test_read(f.t, nvme_config_gpa(8), 4), 0x01080201);
}

static void it_cannot_be_enabled_with_what_it_has_not(void **state)
{
    static const uint32_t wrong[] = {0x80, 0x10, 0x800}; /* page size, command set, arbitration */

    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        nvme_driver_start(&f.d, 16);
        nvme_write(&f.d, NVME_REG_CC, 0);
        nvme_write(&f.d, NVME_REG_CC, NVME_CC_START | wrong[n]);
        assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 2);
    }
    nvme_driver_start(&f.d, 1); /* a queue has two entries at least */
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 2);
    nvme_write(&f.d, NVME_REG_CC, 0);
    test_write(f.t, NVME_BAR + 0x30, RAM_BYTES, 8);
    nvme_write(&f.d, 0x24, 0x000f000f);
    nvme_write(&f.d, NVME_REG_CC, NVME_CC_START);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 2);
    start();
}

static void resets_forget_queues(void **state)
{
    (void)state;
    start();
    assert_int_equal(do_admin(SET, 0, 6, 0), 0);
    nvme_write(&f.d, NVME_REG_CC, NVME_CC_START & ~1u);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0);
    assert_int_not_equal(nvme_read(&f.d, 0x24), 0); /* AQA, ASQ and ACQ stay */
    nvme_write(&f.d, 0x20, 0x12345678);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0);
    start();
    assert_int_equal(feature(6, 0), 1);
    nvme_write(&f.d, 0x20, 0x4e564d65);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0x10);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CC), 0);
    assert_int_equal(nvme_read(&f.d, 0x24), 0);
    nvme_write(&f.d, NVME_REG_CSTS, 0x10);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0);
    start();
    assert_int_equal(io(READ, 0, 1), 0);
    device_test_reset(f.t);
    nvme_driver_find(&f.d, f.t);
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0);
    assert_int_equal(nvme_read(&f.d, 0x24), 0);
}

static unsigned syncs;

/* Instead of the system's: counted. */
int fdatasync(int fd)
{
    (void)fd;
    __atomic_fetch_add(&syncs, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void a_shutdown_flushes(void **state)
{
    unsigned before;

    (void)state;
    start();
    assert_int_equal(io(WRITE, 0, 1), 0);
    before = syncs;
    nvme_write(&f.d, NVME_REG_CC, NVME_CC_START | 0x4000);
    for (unsigned n = 0; n < 10000 && nvme_read(&f.d, NVME_REG_CSTS) != 0x9; n++) {
        assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0x5);
        device_test_loop(f.t);
        usleep(100);
    }
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0x9);
    assert_int_equal(syncs, before + 1);
    start();
    assert_int_equal(io(READ, 0, 1), 0);
    nvme_write(&f.d, NVME_REG_CC, 0x4000); /* off, and a shutdown */
    start();
    assert_int_equal(io(READ, 0, 1), 0);
}

/* ---- identify ---- */

static void it_says_what_it_is(void **state)
{
    const uint8_t *page = ram(f.data);

    (void)state;
    start();
    assert_int_equal(do_admin(IDENTIFY, 0, 1, 0), 0);
    assert_memory_equal(page + 4, "disk-1              ", 20);
    assert_int_equal(get_le32(page + 80), 0x10400);
    assert_int_equal(page[77], 8);
    assert_int_equal(get_le32(page + 516), 1);
    assert_int_equal(get_le16(page + 520), 0x1d);
    assert_memory_equal(page + 768, "nqn.2014-08.org.nvmexpress:1b361af4disk-1:trapeze", 50);
    assert_int_equal(do_admin(IDENTIFY, 1, 0, 0), 0);
    assert_int_equal(get_le64(page), SECTORS);
    assert_int_equal(page[128 + 2], 9);
    assert_int_equal(page[99], 0);
    assert_int_equal(do_admin(IDENTIFY, 0, 2, 0), 0);
    assert_int_equal(get_le64(page), 1);
    assert_int_equal(do_admin(IDENTIFY, 1, 2, 0), 0);
    assert_int_equal(get_le64(page), 0);
    assert_int_equal(do_admin(IDENTIFY, 1, 3, 0), 0);
    assert_int_equal(get_le32(page), 0x0801);
    assert_int_equal(page[4], 0x52);
    assert_int_equal(get_le32(page + 12), 0);
    assert_int_equal(do_admin(IDENTIFY, 2, 0, 0), 0x0b);
    assert_int_equal(do_admin(IDENTIFY, 0xfffffffe, 2, 0), 0x0b);
    assert_int_equal(do_admin(IDENTIFY, 0, 3, 0), 0x0b);
    assert_int_equal(do_admin(IDENTIFY, 0, 0x10, 0), 0x02);
}

/* ---- data ---- */

static void sectors_go_both_ways(void **state)
{
    uint8_t bytes[8192];

    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 1);
    assert_int_equal(io(READ, 3, 16), 0);
    disk_read_image(f.path, 3 * SECTOR, bytes, sizeof(bytes));
    assert_memory_equal(ram(f.data), bytes, sizeof(bytes));
    disk_fill(ram(f.data), 8192, 9);
    assert_int_equal(io(WRITE, 1000, 16), 0);
    disk_read_image(f.path, 1000 * SECTOR, bytes, sizeof(bytes));
    assert_memory_equal(ram(f.data), bytes, sizeof(bytes));
}

/* Pages in reverse order, a list that begins within its page and goes on in another. */
static void prp_lists_are_followed(void **state)
{
    enum { PAGES = 256 };
    uint64_t lists = nvme_alloc(&f.d, 2 * 4096), list = lists + 4096 - 8 * 100;
    uint64_t pages = f.data, first = pages + PAGES * 4096ull + 1024;
    static uint8_t bytes[PAGES * 4096];
    struct nvme_test_command c = nvme_transfer(READ, 1, PAGES * 8, first, list);

    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 2);
    for (unsigned n = 0; n < 99; n++)
        put_le64(ram(list + 8 * n), pages + (PAGES - 1 - n) * 4096ull);
    put_le64(ram(list + 8 * 99), lists + 4096);
    for (unsigned n = 99; n < PAGES; n++)
        put_le64(ram(lists + 4096 + 8 * (n - 99)), pages + (PAGES - 1 - n) * 4096ull);
    assert_int_equal(run(1, c), 0);
    disk_read_image(f.path, SECTOR, bytes, sizeof(bytes));
    assert_memory_equal(ram(first), bytes, 3072);
    for (unsigned n = 0; n < PAGES - 1; n++)
        assert_memory_equal(ram(pages + (PAGES - 1 - n) * 4096ull), bytes + 3072 + n * 4096, 4096);
    assert_memory_equal(ram(pages), bytes + 3072 + (PAGES - 1) * 4096, 1024);

    c.dword[12]++; /* more than MDTS */
    assert_int_equal(run(1, c), 0x02);
    c.dword[12]--;
    c.prp2 = list + 4;
    assert_int_equal(run(1, c), 0x13);
    c.prp2 = RAM_BYTES;
    assert_int_equal(run(1, c), 0x04);
    c.prp2 = list;
    put_le64(ram(list + 8 * 99), lists + 4096 + 8); /* lists that follow begin their pages */
    assert_int_equal(run(1, c), 0x13);
    put_le64(ram(list + 8 * 99), lists + 4096);
    put_le64(ram(list + 8), pages + 8);
    assert_int_equal(run(1, c), 0x13);
    put_le64(ram(list + 8), UINT64_MAX - 4095);
    assert_int_equal(run(1, c), 0x04);
    assert_int_equal(run(1, nvme_transfer(READ, 0, 16, f.data, f.data + 4100)), 0x13);
    assert_int_equal(run(1, nvme_transfer(READ, 0, 1, NVME_BAR, 0)), 0x04);
}

static void put_sgl(uint64_t at, uint64_t gpa, uint32_t size, uint8_t type)
{
    put_le64(ram(at), gpa);
    put_le64(ram(at + 8), size | (uint64_t)type << 56);
}

static uint16_t run_sgl(uint64_t gpa, uint32_t size, uint8_t type)
{
    struct nvme_test_command c = nvme_transfer(READ, 5, 2, gpa, size | (uint64_t)type << 56);

    c.flags = 0x40;
    return run(1, c);
}

static void sgls_are_followed(void **state)
{
    uint64_t s = nvme_alloc(&f.d, 8192), t = s + 4096;
    uint8_t bytes[1024];

    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 3);
    disk_read_image(f.path, 5 * SECTOR, bytes, sizeof(bytes));
    assert_int_equal(run_sgl(f.data + 1, 1024, 0), 0);
    assert_memory_equal(ram(f.data + 1), bytes, 1024);
    memset(ram(f.data), 0, 8192);
    put_sgl(s, f.data + 7, 1000, 0);
    put_sgl(s + 16, t, 32, 0x30);
    put_sgl(t, f.data + 4000, 4, 0);
    put_sgl(t + 16, f.data + 2000, 20, 0);
    assert_int_equal(run_sgl(s, 32, 0x20), 0);
    assert_memory_equal(ram(f.data + 7), bytes, 1000);
    assert_memory_equal(ram(f.data + 4000), bytes + 1000, 4);
    assert_memory_equal(ram(f.data + 2000), bytes + 1004, 20);
    assert_int_equal(run_sgl(f.data, 1023, 0), 0x0f);
    assert_int_equal(run_sgl(f.data, 1025, 0), 0x0f);
    assert_int_equal(run_sgl(f.data, 1024, 0x50), 0x11);
    assert_int_equal(run_sgl(f.data, 1024, 0x01), 0x11);
    assert_int_equal(run_sgl(RAM_BYTES - 512, 1024, 0), 0x04);
    assert_int_equal(run_sgl(s, 31, 0x20), 0x0d);
    assert_int_equal(run_sgl(s, 0, 0x30), 0x0d);
    assert_int_equal(run_sgl(s, 16, 0x20), 0x0d); /* leads nowhere */
    assert_int_equal(run_sgl(s, 16, 0x30), 0x0f); /* too little */
    put_sgl(s + 16, s, 32, 0x20);                 /* round and round */
    put_sgl(s, f.data, 0, 0);
    assert_int_equal(run_sgl(s, 32, 0x20), 0x0e);
    assert_int_equal(run_sgl(RAM_BYTES, 32, 0x20), 0x04);
    put_sgl(s, f.data, 1024, 0x40);
    assert_int_equal(run_sgl(s, 16, 0x30), 0x11);
}

static void commands_are_checked(void **state)
{
    struct nvme_test_command c = nvme_transfer(READ, 0, 1, f.data, 0);

    (void)state;
    start();
    assert_int_equal(io(READ, SECTORS, 1), 0x80);
    assert_int_equal(io(WRITE, SECTORS - 1, 2), 0x80);
    assert_int_equal(io(READ, UINT64_MAX, 2), 0x80);
    assert_int_equal(io(ZEROES, SECTORS - 1, 2), 0x80);
    assert_int_equal(io(COMPARE, SECTORS, 1), 0x80);
    assert_int_equal(io(0x77, 0, 1), 0x01);
    assert_int_equal(do_admin(0x7f, 0, 0, 0), 0x01);
    c.nsid = 2;
    assert_int_equal(run(1, c), 0x0b);
    c.nsid = 0xffffffff;
    assert_int_equal(run(1, c), 0x0b);
    c.opcode = FLUSH;
    assert_int_equal(run(1, c), 0);
    c = nvme_transfer(READ, 0, 1, f.data, 0);
    c.flags = 1;
    assert_int_equal(run(1, c), 0x02);
    c.flags = 0xc0;
    assert_int_equal(run(1, c), 0x02);
    c = admin(IDENTIFY, 0, 1, 0);
    c.flags = 0x40;
    assert_int_equal(run(0, c), 0x02);
    assert_int_equal(io(READ, SECTORS - 1, 1), 0);
}

static void contents_are_compared(void **state)
{
    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 4);
    assert_int_equal(io(READ, 10, 16), 0);
    assert_int_equal(io(COMPARE, 10, 16), 0);
    ram(f.data)[8191] ^= 1;
    assert_int_equal(io(COMPARE, 10, 16), 0x285);
    assert_int_equal(io(COMPARE, 10, 15), 0);
}

static void put_range(unsigned index, uint64_t lba, uint32_t count)
{
    put_le32(ram(f.data + 16 * index + 4), count);
    put_le64(ram(f.data + 16 * index + 8), lba);
}

static void ranges_are_zeroed_and_deallocated(void **state)
{
    struct nvme_test_command c = admin(DATASET, 1, 2, 4);

    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 5);
    assert_int_equal(io(ZEROES, 8, 16), 0);
    assert_true(disk_image_is(f.path, 8 * SECTOR, 0, 16 * SECTOR));
    assert_false(disk_image_is(f.path, 24 * SECTOR, 0, SECTOR));
    put_range(0, 64, 64);
    put_range(1, 256, 8);
    put_range(2, SECTORS - 8, 8);
    assert_int_equal(run(1, c), 0);
    assert_true(disk_image_is(f.path, 64 * SECTOR, 0, 64 * SECTOR));
    assert_true(disk_image_is(f.path, 256 * SECTOR, 0, 8 * SECTOR));
    assert_true(disk_image_is(f.path, DISK_BYTES - 8 * SECTOR, 0, 8 * SECTOR));
    put_range(0, 512, 8);
    put_range(2, SECTORS - 8, 9);
    assert_int_equal(run(1, c), 0x80);
    assert_false(disk_image_is(f.path, 512 * SECTOR, 0, 8 * SECTOR)); /* none of them */
    c.dword[10] = 0;
    c.dword[11] = 3; /* advice */
    assert_int_equal(run(1, c), 0);
    assert_false(disk_image_is(f.path, 512 * SECTOR, 0, 8 * SECTOR));
}

static unsigned syncs_of(uint32_t flags)
{
    struct nvme_test_command c = nvme_transfer(WRITE, 0, 1, f.data, 0);
    unsigned before = syncs;

    c.dword[12] |= flags;
    assert_int_equal(run(1, c), 0);
    return syncs - before;
}

static void a_write_is_durable_when_the_guest_wants_that(void **state)
{
    (void)state;
    start();
    assert_int_equal(syncs_of(0), 0);
    assert_int_equal(syncs_of(0x40000000), 1); /* FUA */
    assert_int_equal(do_admin(SET, 0, 6, 0), 0);
    assert_int_equal(syncs_of(0), 1);
    assert_int_equal(do_admin(SET, 0, 6, 1), 0);
    assert_int_equal(syncs_of(0), 0);
}

static void a_disk_that_is_written_through_has_no_cache(void **state)
{
    (void)state;
    start();
    assert_int_equal(do_admin(IDENTIFY, 0, 1, 0), 0);
    assert_int_equal(ram(f.data)[525], 6);
    assert_int_equal(do_admin(GET, 0, 6, 0), 2);
    assert_int_equal(do_admin(GET, 0, 6 | 1 << 8, 0), 2);
    assert_int_equal(do_admin(SET, 0, 6, 1), 2);
    assert_int_equal(syncs_of(0), 1);
    assert_int_equal(syncs_of(0x40000000), 1);
}

static void a_read_only_disk_is_not_written(void **state)
{
    (void)state;
    start();
    assert_int_equal(do_admin(IDENTIFY, 1, 0, 0), 0);
    assert_int_equal(ram(f.data)[99], 1);
    assert_int_equal(io(READ, 0, 1), 0);
    assert_int_equal(io(WRITE, 0, 1), 0x20);
    assert_int_equal(io(ZEROES, 0, 1), 0x20);
    assert_int_equal(run(1, admin(DATASET, 1, 0, 4)), 0x20);
    assert_int_equal(io(FLUSH, 0, 1), 0);
}

static void written_pages_are_marked_dirty(void **state)
{
    struct memory *memory = machine_memory(f.t->machine);
    uint8_t dirty[RAM_BYTES / 4096 / 8];
    struct error err = {0};

    (void)state;
    start();
    assert_int_equal(memory_dirty_start(memory, &err), 0);
    assert_int_equal(io(READ, 0, 16), 0);
    memory_dirty_fetch(memory, 0, RAM_BYTES / 4096, dirty);
    memory_dirty_stop(memory);
    for (uint64_t gpa = f.data; gpa <= f.data + 4096; gpa += 4096)
        assert_true(dirty[gpa / 4096 / 8] >> gpa / 4096 % 8 & 1);
    assert_true(dirty[f.d.queues[1].cq / 4096 / 8] >> f.d.queues[1].cq / 4096 % 8 & 1);
}

/* ---- queues ---- */

static void queues_turn_many_times(void **state)
{
    (void)state;
    start();
    disk_write_image(f.path, DISK_BYTES, 6);
    for (unsigned round = 0; round < 100; round++) {
        unsigned count = 1 + round % 15;
        struct nvme_test_entry entry;

        for (unsigned n = 0; n < count; n++) {
            struct nvme_test_command c = nvme_transfer(READ, round + n, 1, f.data + n * SECTOR, 0);

            nvme_add(&f.d, 1, &c);
        }
        nvme_ring(&f.d, 1);
        for (unsigned n = 0; n < count; n++) {
            assert_true(nvme_wait(&f.d, 1, &entry));
            assert_int_equal(entry.status, 0);
            assert_int_equal(entry.sq, 1);
        }
        assert_int_equal(entry.sq_head, f.d.queues[1].tail);
        for (unsigned n = 0; n < count; n++)
            assert_int_equal(ram(f.data)[n * SECTOR],
                             (uint8_t)((round + n) * SECTOR * 7 + (round + n) * 2 + 6));
    }
}

/* Two submission queues share one completion queue, which is shorter than what is asked for. */
static void commands_wait_for_room(void **state)
{
    struct nvme_test_command c = admin(1, 0, 2 | 15u << 16, 1 | 1u << 16);
    struct nvme_test_entry entry = {0};
    unsigned taken = 0, from_two = 0;

    (void)state;
    nvme_driver_start(&f.d, 16);
    assert_int_equal(nvme_make_queues(&f.d, 1, 16, 1), 0);
    nvme_init_queue(&f.d, 2, 16);
    c.prp1 = f.d.queues[2].sq;
    assert_int_equal(run(0, c), 0);
    for (unsigned n = 0; n < 12; n++) {
        c = nvme_transfer(READ, n, 1, f.data, 0);
        nvme_add(&f.d, 1, &c);
        nvme_add(&f.d, 2, &c);
    }
    nvme_ring(&f.d, 1);
    nvme_ring(&f.d, 2);
    for (unsigned n = 0; n < 20; n++)
        device_test_loop(f.t);
    while (nvme_take(&f.d, 1, &entry))
        taken++, from_two += entry.sq == 2;
    assert_int_equal(taken, 15);
    nvme_release(&f.d, 1);
    for (unsigned n = 0; n < 9; n++) {
        assert_true(nvme_wait(&f.d, 1, &entry));
        from_two += entry.sq == 2;
    }
    assert_int_equal(from_two, 12);
}

static void queues_are_checked(void **state)
{
    uint64_t gpa = nvme_alloc(&f.d, 16384);
    struct nvme_test_command cq = admin(5, 0, 2 | 15u << 16, 3 | 1u << 16);
    struct nvme_test_command sq = admin(1, 0, 2 | 15u << 16, 1 | 2u << 16);

    (void)state;
    start();
    cq.prp1 = sq.prp1 = gpa;
#define WRONG(command, field, value, expected)                                                     \
    do {                                                                                           \
        struct nvme_test_command c = command;                                                      \
        c.field = value;                                                                           \
        assert_int_equal(run(0, c), expected);                                                     \
    } while (0)
    WRONG(cq, dword[10], 0 | 15u << 16, 0x101);
    WRONG(cq, dword[10], 1 | 15u << 16, 0x101); /* it exists */
    WRONG(cq, dword[10], 4 | 15u << 16, 0x101); /* there are three */
    WRONG(cq, dword[10], 0xffff | 15u << 16, 0x101);
    WRONG(cq, dword[10], 2, 0x102);
    WRONG(cq, dword[10], 2 | 256u << 16, 0x102);
    WRONG(cq, prp1, gpa + 64, 0x13);
    WRONG(cq, prp1, RAM_BYTES, 0x04);
    WRONG(cq, dword[11], 2, 0x02);
    WRONG(cq, dword[11], 3 | 4u << 16, 0x108);
    WRONG(sq, dword[11], 1 | 2u << 16, 0x100);
    assert_int_equal(run(0, cq), 0);
    WRONG(sq, dword[11], 1, 0x101);
    WRONG(sq, dword[11], 1 | 9u << 16, 0x101);
    WRONG(sq, dword[10], 1 | 15u << 16, 0x101);
    WRONG(sq, dword[10], 2 | 256u << 16, 0x102);
    WRONG(sq, prp1, gpa + 8, 0x13);
    WRONG(sq, prp1, RAM_BYTES - 512, 0x13);
    WRONG(sq, prp1, RAM_BYTES, 0x04);
    assert_int_equal(run(0, sq), 0);
    assert_int_equal(do_admin(SET, 0, 7, 0), 0x0c); /* there are queues */
    assert_int_equal(do_admin(DELETE_CQ, 0, 2, 0), 0x10c);
    assert_int_equal(do_admin(DELETE_CQ, 0, 0, 0), 0x101);
    assert_int_equal(do_admin(DELETE_SQ, 0, 0, 0), 0x101);
    assert_int_equal(do_admin(DELETE_SQ, 0, 3, 0), 0x101);
    assert_int_equal(do_admin(DELETE_SQ, 0, 2, 0), 0);
    assert_int_equal(do_admin(DELETE_CQ, 0, 2, 0), 0);
    assert_int_equal(do_admin(DELETE_CQ, 0, 2, 0), 0x101);
    nvme_write(&f.d, NVME_REG_CC, 0x00060001); /* entries of no size */
    assert_int_equal(run(0, cq), 0x102);
    assert_int_equal(io(READ, 0, 1), 0);
}

static void a_deleted_queue_takes_only_its_own_commands_with_it(void **state)
{
    struct nvme_test_command read = nvme_transfer(READ, 0, 1, f.data, 0);
    struct nvme_test_entry entry;

    (void)state;
    start();
    assert_int_equal(nvme_make_queues(&f.d, 2, 16, 2), 0);
    assert_int_equal(io(READ, 0, 1), 0);
    nvme_add(&f.d, 1, &read);
    nvme_ring(&f.d, 1);
    nvme_add(&f.d, 2, &read);
    nvme_ring(&f.d, 2);
    assert_false(nvme_take(&f.d, 1, &entry)); /* both are throttled */
    assert_int_equal(do_admin(DELETE_SQ, 0, 2, 0), 0);
    assert_true(nvme_take(&f.d, 2, &entry));
    assert_int_equal(entry.status, 8); /* aborted for that */
    assert_false(nvme_take(&f.d, 1, &entry));
    assert_true(nvme_wait(&f.d, 1, &entry));
    assert_int_equal(entry.status, 0);
    assert_int_equal(log_page(2, 512, 0), 0);
    assert_int_equal(get_le64(ram(f.data + 160)), 0); /* media errors */
}

static void without_bus_mastering_nothing_is_taken(void **state)
{
    struct nvme_test_command c = nvme_transfer(READ, 0, 1, f.data, 0);
    struct nvme_test_entry entry;

    (void)state;
    start();
    test_write(f.t, nvme_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY, 2);
    nvme_add(&f.d, 1, &c);
    nvme_ring(&f.d, 1);
    device_test_loop(f.t);
    assert_false(nvme_take(&f.d, 1, &entry));
    test_write(f.t, nvme_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    assert_true(nvme_wait(&f.d, 1, &entry));
    assert_int_equal(entry.status, 0);
}

/* ---- interrupts ---- */

static void each_queue_has_its_vector(void **state)
{
    (void)state;
    nvme_use_msix(&f.d, 4);
    start();
    assert_int_equal(f.t->msi_data, 0);
    assert_int_equal(nvme_make_queues(&f.d, 2, 16, 3), 0);
    f.t->msi_count = 0;
    assert_int_equal(io(READ, 0, 1), 0);
    assert_int_equal(f.t->msi_data, 1);
    assert_int_equal(run(2, nvme_transfer(READ, 0, 1, f.data, 0)), 0);
    assert_int_equal(f.t->msi_data, 3);
    assert_int_equal(f.t->msi_count, 2);
    assert_int_equal(f.intx.rises, 0);
}

static void the_pin_is_up_until_entries_are_taken(void **state)
{
    struct nvme_test_command c = nvme_transfer(READ, 0, 1, f.data, 0);
    struct nvme_test_entry entry;

    (void)state;
    start();
    assert_false(f.intx.level);
    nvme_add(&f.d, 1, &c);
    nvme_add(&f.d, 1, &c);
    nvme_ring(&f.d, 1);
    while (!nvme_take(&f.d, 1, &entry))
        device_test_loop(f.t);
    assert_true(f.intx.level);
    nvme_release(&f.d, 1);
    while (!nvme_take(&f.d, 1, &entry))
        device_test_loop(f.t);
    assert_true(f.intx.level);
    nvme_write(&f.d, 0x0c, 1u << 1); /* vector 1 */
    assert_false(f.intx.level);
    nvme_write(&f.d, 0x10, 1u << 1);
    assert_true(f.intx.level);
    nvme_release(&f.d, 1);
    assert_false(f.intx.level);
    nvme_add(&f.d, 1, &c);
    nvme_ring(&f.d, 1);
    while (!nvme_take(&f.d, 1, &entry))
        device_test_loop(f.t);
    nvme_write(&f.d, NVME_REG_CC, 0);
    assert_false(f.intx.level);
}

/* ---- features, logs, events ---- */

static void features_are_kept(void **state)
{
    (void)state;
    start();
    assert_int_equal(feature(7, 0), 0x00020002);
    assert_int_equal(feature(6, 0), 1);
    assert_int_equal(do_admin(SET, 0, 6, 0), 0);
    assert_int_equal(feature(6, 0), 0);
    assert_int_equal(feature(6 | 1 << 8, 0), 1);
    assert_int_equal(feature(6 | 2 << 8, 0), 1);
    assert_int_equal(feature(6 | 3 << 8, 0), 4);
    assert_int_equal(do_admin(GET, 0, 6 | 4 << 8, 0), 2);
    assert_int_equal(do_admin(SET, 0, 6 | 1u << 31, 0), 0x10d);
    assert_int_equal(do_admin(SET, 1, 6, 0), 0x10f);
    assert_int_equal(do_admin(SET, 0, 9, 2 | 1 << 16), 0);
    assert_int_equal(feature(9, 2), 2 | 1 << 16);
    assert_int_equal(do_admin(GET, 0, 9, 4), 2);
    assert_int_equal(do_admin(SET, 0, 8, 0x1234), 0);
    assert_int_equal(feature(8, 0), 0x1234);
    assert_int_equal(do_admin(SET, 0, 2, 1), 2);
    assert_int_equal(do_admin(SET, 0, 4, 400 | 1 << 16), 2);
    assert_int_equal(do_admin(SET, 0, 4, 400), 0);
    assert_int_equal(feature(4, 0), 400);
    assert_int_equal(feature(4, 1 << 20), 0);
    assert_int_equal(do_admin(SET, 1, 5, 77), 0);
    assert_int_equal(do_admin(SET, 1, 5, 1 << 16), 2);
    assert_int_equal(do_admin(GET, 0, 5, 0), 0x0b);
    assert_int_equal(do_admin(GET, 0, 0x70, 0), 2);
    assert_int_equal(do_admin(SET, 0, 0x70, 0), 2);
    nvme_driver_start(&f.d, 16);
    assert_int_equal(do_admin(SET, 0, 7, 0xffff), 2);
    assert_int_equal(do_admin(SET, 0, 7, 0x00070007), 0);
}

static void logs_say_what_happened(void **state)
{
    const uint8_t *page = ram(f.data);

    (void)state;
    start();
    assert_int_equal(io(READ, SECTORS + 5, 1), 0x80);
    assert_int_equal(log_page(1, 128, 0), 0);
    assert_int_equal(get_le64(page), 1);
    assert_int_equal(get_le16(page + 8), 1);
    assert_int_equal(get_le16(page + 12), 0x100);
    assert_int_equal(get_le64(page + 16), SECTORS + 5);
    assert_int_equal(get_le64(page + 64), 0);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(io(WRITE, 8, 8), 0);
    assert_int_equal(io(READ, 0, 8), 0);
    assert_int_equal(log_page(2, 512, 0), 0);
    assert_int_equal(page[0], 0);
    assert_int_equal(get_le16(page + 1), 310);
    assert_int_equal(get_le64(page + 32), 1);
    assert_int_equal(get_le64(page + 64), 1);
    assert_int_equal(get_le64(page + 80), 20);
    assert_int_equal(get_le64(page + 176), 1);
    assert_int_equal(log_page(3, 512, 0), 0);
    assert_memory_equal(page + 8, "1.0     ", 8);
    assert_int_equal(log_page(4, 512, 0), 0x109);
    assert_int_equal(do_admin(LOG, 1, 2 | 127u << 16, 0), 2);
    {
        struct nvme_test_command c = admin(LOG, 0, 3 | 1u << 16, 0);

        c.dword[12] = 8;
        assert_int_equal(run(0, c), 0);
        assert_memory_equal(page, "1.0     ", 8);
        c.dword[12] = 2;
        assert_int_equal(run(0, c), 2);
        c.dword[12] = 516;
        assert_int_equal(run(0, c), 2);
    }
}

static void events_are_told_when_asked_for(void **state)
{
    struct nvme_test_command c = admin(EVENT, 0, 0, 0);
    struct nvme_test_entry entry;
    uint16_t cids[4];

    (void)state;
    start();
    for (unsigned n = 0; n < 4; n++)
        cids[n] = nvme_add(&f.d, 0, &c);
    nvme_ring(&f.d, 0);
    assert_false(nvme_take(&f.d, 0, &entry));
    assert_int_equal(run(0, c), 0x105);
    nvme_write(&f.d, 0x1000 + 8 * 3, 1); /* no such queue */
    assert_true(nvme_wait(&f.d, 0, &entry));
    assert_int_equal(entry.result, 0x010000);
    nvme_write(&f.d, 0x1000 + 8, 16); /* beyond its end */
    assert_false(nvme_take(&f.d, 0, &entry));
    assert_int_equal(log_page(1, 64, 0x8000), 0); /* retained */
    assert_false(nvme_take(&f.d, 0, &entry));
    {
        struct nvme_test_command log = admin(LOG, 0, 1 | 15u << 16, 0);

        nvme_add(&f.d, 0, &log);
        nvme_ring(&f.d, 0);
        assert_true(nvme_wait(&f.d, 0, &entry));
        assert_int_equal(entry.result, 0x010100); /* the one that was pending */
        assert_true(nvme_wait(&f.d, 0, &entry));
        assert_int_equal(entry.cid, f.d.next_cid - 1);
    }
    assert_int_equal(do_admin(SET, 0, 4, 300), 0); /* not wanted */
    assert_false(nvme_take(&f.d, 0, &entry));
    assert_int_equal(do_admin(SET, 0, 4, 400), 0);
    assert_int_equal(do_admin(SET, 0, 11, 2), 0);
    c = admin(SET, 0, 4, 310);
    nvme_add(&f.d, 0, &c);
    nvme_ring(&f.d, 0);
    assert_true(nvme_wait(&f.d, 0, &entry));
    assert_int_equal(entry.result, 0x020101);
    assert_true(nvme_wait(&f.d, 0, &entry));
    assert_int_equal(log_page(2, 512, 0), 0);
    assert_int_equal(ram(f.data)[0], 2);
    c = admin(ABORT, 0, (uint32_t)cids[0] << 16, 0);
    nvme_add(&f.d, 0, &c);
    nvme_ring(&f.d, 0);
    assert_true(nvme_wait(&f.d, 0, &entry));
    assert_int_equal(entry.status, 0x07);
    assert_int_equal(entry.cid, cids[0]);
    assert_true(nvme_wait(&f.d, 0, &entry));
    assert_int_equal(entry.result, 0);
    c = admin(ABORT, 0, 1 | 0x777u << 16, 0);
    assert_int_equal(nvme_run(&f.d, 0, &c).result, 1);
    assert_int_equal(do_admin(ABORT, 0, 3, 0), 2);
}

/* A head that is moved past what was posted would give room that is not there. */
static void a_head_beyond_the_tail_is_refused(void **state)
{
    struct nvme_test_command c = admin(EVENT, 0, 0, 0);
    struct nvme_test_entry entry;

    (void)state;
    start();
    nvme_add(&f.d, 0, &c);
    nvme_ring(&f.d, 0);
    nvme_write(&f.d, 0x1004 + 8, 5);
    assert_true(nvme_wait(&f.d, 0, &entry));
    assert_int_equal(entry.result, 0x010100);
    assert_int_equal(io(READ, 0, 1), 0);
}

/* ---- requests under way ---- */

static void a_reset_waits_for_what_is_under_way(void **state)
{
    static uint8_t before[1 << 20];

    (void)state;
    disk_write_image(f.path, DISK_BYTES, 8);
    for (unsigned how = 0; how < 4; how++) {
        uint64_t list;
        struct nvme_test_entry entry;

        f.d.next_gpa = f.data + (2u << 20);
        start();
        list = nvme_alloc(&f.d, 4096);
        for (unsigned n = 0; n < 255; n++)
            put_le64(ram(list + 8 * n), f.data + 4096 * (n + 1));
        for (unsigned n = 0; n < 4; n++) { /* large: on worker threads */
            struct nvme_test_command c = nvme_transfer(READ, n, 2048, f.data, list);

            nvme_add(&f.d, 1, &c);
        }
        nvme_ring(&f.d, 1);
        if (how == 0)
            nvme_write(&f.d, NVME_REG_CC, 0);
        else if (how == 1)
            device_test_reset(f.t);
        else if (how == 2)
            assert_int_equal(do_admin(DELETE_SQ, 0, 1, 0), 0);
        else
            machine_pause(f.t->machine);
        memcpy(before, ram(f.data), sizeof(before));
        usleep(2000);
        assert_memory_equal(before, ram(f.data), sizeof(before));
        if (how >= 2)
            for (unsigned n = 0; n < 4; n++)
                assert_true(nvme_take(&f.d, 1, &entry));
        else
            assert_false(nvme_take(&f.d, 1, &entry));
        if (how == 1) {
            nvme_driver_find(&f.d, f.t);
            f.data = nvme_alloc(&f.d, 2u << 20);
        }
    }
    machine_resume(f.t->machine);
}

/* Commands of all kinds that fail, in their queue of 16, and one that does not. */
static const uint8_t kept[] = {WRITE, READ, COMPARE, ZEROES, DATASET, FLUSH};
#define KEPT (sizeof(kept) / sizeof(kept[0]))

static uint16_t add_kept(void)
{
    uint16_t first = f.d.next_cid;

    for (unsigned n = 0; n < KEPT; n++) {
        struct nvme_test_command c = nvme_transfer(kept[n], 8 * n, 8, f.data + 4096 * n, 0);

        if (kept[n] == WRITE)
            c.dword[12] |= 1u << 30; /* FUA */
        if (kept[n] == DATASET) {
            put_le32(ram(c.prp1 + 4), 8);
            put_le64(ram(c.prp1 + 8), 100);
            c.dword[10] = 0;
            c.dword[11] = 4;
        }
        nvme_add(&f.d, 1, &c);
    }
    return first;
}

static void make_machine_with_kept_commands(void)
{
    struct nvme_test_command unknown = {.opcode = 0x7f, .nsid = 1}; /* ends at once */

    make_machine(",werror=pause,rerror=pause,fault=write:1:2+read:1:2+zero:1+discard:1+flush:1:2");
    block_set_pause(f.disk, disk_pause_for, f.t->machine);
    start();
    disk_fill(ram(f.data), 4096, 7);
    disk_write_image(f.path, DISK_BYTES, 10);
    disk_read_image(f.path, 16 * SECTOR, ram(f.data + 2 * 4096), 4096); /* to be compared */
    nvme_add(&f.d, 1, &unknown);
}

/* The next that ends; whenever something fails, the machine is saved and loaded. */
static struct nvme_test_entry wait_through_pauses(void)
{
    struct nvme_test_entry entry = {.status = 0xffff};

    for (unsigned n = 0; n < 10000 && !nvme_take(&f.d, 1, &entry); n++) {
        if (machine_get_state(f.t->machine) == MACHINE_PAUSED) {
            device_test_round_trip(f.t, f.nvme);
            machine_resume(f.t->machine);
        }
        device_test_loop(f.t);
        usleep(100);
    }
    return entry;
}

static void commands_that_failed_are_state(void **state)
{
    struct nvme_test_entry entry;
    uint8_t bytes[4096];
    unsigned ended = 0;
    uint16_t first;

    make_machine_with_kept_commands();
    first = add_kept();
    nvme_ring(&f.d, 1);
    disk_wait_for_pause(f.t);
    assert_true(nvme_take(&f.d, 1, &entry));
    assert_int_equal(entry.cid, first - 1);
    assert_false(nvme_take(&f.d, 1, &entry));
    for (unsigned n = 0; n < KEPT; n++) {
        entry = wait_through_pauses();
        assert_int_equal(entry.status, 0);
        ended |= 1u << (entry.cid - first);
    }
    assert_int_equal(ended, (1u << KEPT) - 1);
    nvme_release(&f.d, 1);
    assert_false(nvme_take(&f.d, 1, &entry));
    disk_read_image(f.path, 0, bytes, sizeof(bytes));
    assert_memory_equal(bytes, ram(f.data), sizeof(bytes));
    disk_read_image(f.path, 8 * SECTOR, bytes, sizeof(bytes));
    assert_memory_equal(bytes, ram(f.data + 4096), sizeof(bytes));
    assert_true(disk_image_is(f.path, 24 * SECTOR, 0, 4096));
    for (unsigned n = 0; n < 20; n++) /* none of them takes room any more */
        assert_int_equal(io(READ, 0, 1), 0);
    tear_down(state);
}

static void a_shutdown_that_failed_is_state(void **state)
{
    make_machine(",werror=pause,fault=flush:1:2");
    block_set_pause(f.disk, disk_pause_for, f.t->machine);
    start();
    assert_int_equal(io(WRITE, 0, 1), 0);
    nvme_write(&f.d, NVME_REG_CC, NVME_CC_START | 0x4000);
    for (unsigned turn = 0; turn < 2; turn++) {
        disk_wait_for_pause(f.t);
        assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0x5);
        device_test_round_trip(f.t, f.nvme);
        machine_resume(f.t->machine);
    }
    for (unsigned n = 0; n < 10000 && nvme_read(&f.d, NVME_REG_CSTS) != 0x9; n++) {
        device_test_loop(f.t);
        usleep(100);
    }
    assert_int_equal(nvme_read(&f.d, NVME_REG_CSTS), 0x9);
    tear_down(state);
}

static bool can_keep(unsigned sq)
{
    struct state_list *list = &container_of(f.nvme, struct nvme, function.dev)->kept;
    struct nvme_kept *first = list->elements;
    struct state_buffer bad = {0};
    struct error err = {0};
    uint16_t before = first->sq;
    int result;

    first->sq = (uint16_t)sq;
    assert_int_equal(state_save(&f.nvme->class->state, f.nvme, &bad, &err), 0);
    first->sq = before;
    result = state_load(&f.nvme->class->state, f.nvme, bad.data, bad.size_bytes, &err);
    free(bad.data);
    if (result)
        assert_true(err.text[0]);
    return !result;
}

static void hostile_kept_commands_are_refused(void **state)
{
    struct state_list *list;

    make_machine_with_kept_commands();
    add_kept();
    nvme_ring(&f.d, 1);
    disk_wait_for_pause(f.t);
    list = &container_of(f.nvme, struct nvme, function.dev)->kept;
    assert_false(can_keep(0)); /* admin commands are never kept */
    assert_false(can_keep(2)); /* no such queue */
    assert_false(can_keep(NVME_MAX_QUEUES));
    while (list->count < 15) {
        struct nvme_kept *more = state_list_add(list, sizeof(*more));

        more->sq = 1;
    }
    assert_false(can_keep(1)); /* one has been posted: there is room for 14 */
    list->count = 14;
    assert_true(can_keep(1));
    tear_down(state);
}

static void state_survives_in_the_middle(void **state)
{
    struct nvme_test_command event = admin(EVENT, 0, 0, 0);
    struct nvme_test_entry entry;

    (void)state;
    nvme_use_msix(&f.d, 4);
    start();
    disk_write_image(f.path, DISK_BYTES, 10);
    nvme_add(&f.d, 0, &event);
    nvme_ring(&f.d, 0);
    assert_int_equal(do_admin(SET, 0, 6, 0), 0);
    for (unsigned n = 0; n < 40; n++) {
        unsigned sectors = n % 3 ? 1 : 16;
        struct nvme_test_command c =
            nvme_transfer(n % 4 ? READ : WRITE, n, sectors, f.data, f.data + 4096);

        nvme_add(&f.d, 1, &c);
        nvme_ring(&f.d, 1);
        machine_lock(f.t->machine);
        f.nvme->class->quiesce(f.nvme);
        machine_unlock(f.t->machine);
        device_test_round_trip(f.t, f.nvme);
        assert_true(nvme_wait(&f.d, 1, &entry));
        assert_int_equal(entry.status, 0);
    }
    nvme_write(&f.d, 0x1000 + 8 * 3, 1);
    assert_true(nvme_wait(&f.d, 0, &entry)); /* the request for an event was saved */
    assert_int_equal(entry.result, 0x010000);
    assert_int_equal(feature(6, 0), 0);
}

/* ---- properties ---- */

static void properties_are_checked(void **state)
{
    (void)state;
    assert_int_equal(disk_attach_result(f.t->machine, &nvme_class, NULL, NULL, NULL, "--disk"),
                     -EINVAL);
    assert_int_equal(disk_attach_result(f.t->machine, &nvme_class, "queues", "33", f.disk, "32"),
                     -EINVAL);
    assert_int_equal(disk_attach_result(f.t->machine, &nvme_class, "serial",
                                        "123456789012345678901", f.disk, "20"),
                     -EINVAL);
    assert_int_equal(disk_attach_result(f.t->machine, &nvme_class, "addr", "3", f.disk, "taken"),
                     -EBUSY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_say_what_it_can),
        TEST(it_cannot_be_enabled_with_what_it_has_not),
        TEST(resets_forget_queues),
        TEST(a_shutdown_flushes),
        TEST(it_says_what_it_is),
        TEST(sectors_go_both_ways),
        TEST(prp_lists_are_followed),
        TEST(sgls_are_followed),
        TEST(commands_are_checked),
        TEST(contents_are_compared),
        TEST(ranges_are_zeroed_and_deallocated),
        TEST(a_write_is_durable_when_the_guest_wants_that),
        cmocka_unit_test_setup_teardown(a_disk_that_is_written_through_has_no_cache,
                                        set_up_written_through, tear_down),
        cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_written, set_up_read_only,
                                        tear_down),
        TEST(written_pages_are_marked_dirty),
        TEST(queues_turn_many_times),
        TEST(commands_wait_for_room),
        TEST(queues_are_checked),
        cmocka_unit_test_setup_teardown(a_deleted_queue_takes_only_its_own_commands_with_it,
                                        set_up_throttled, tear_down),
        TEST(without_bus_mastering_nothing_is_taken),
        TEST(each_queue_has_its_vector),
        TEST(the_pin_is_up_until_entries_are_taken),
        TEST(features_are_kept),
        TEST(logs_say_what_happened),
        TEST(events_are_told_when_asked_for),
        TEST(a_head_beyond_the_tail_is_refused),
        TEST(a_reset_waits_for_what_is_under_way),
        cmocka_unit_test(commands_that_failed_are_state),
        cmocka_unit_test(a_shutdown_that_failed_is_state),
        cmocka_unit_test(hostile_kept_commands_are_refused),
        TEST(state_survives_in_the_middle),
        TEST(properties_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
