/*
 * test_pflash.c - a flash that is programmed, erased and asked, with and without a drive
 */
#include "cmocka_all.h"
#include "device_test.h"

#include <stdio.h>
#include <unistd.h>

#include "devices/devices.h"
#include "devices/pflash.h"
#include "trapeze/block.h"

#define GPA   0xffc00000ull
#define BYTES 0x6000u

struct fixture {
    struct device_test *t;
    struct device *flash;
    struct block *drive;
    char path[32];
};
static struct fixture f;

static int set_up(void **state)
{
    static uint8_t contents[BYTES];
    struct error err = {0};

    (void)state;
    for (unsigned n = 0; n < BYTES; n++)
        contents[n] = (uint8_t)(n % 251);
    memset(&f, 0, sizeof(f));
    f.t = device_test_new(0);
    f.flash = device_test_create(f.t, &pflash_class, NULL);
    assert_int_equal(device_set_u64(f.flash, "gpa", GPA, &err), 0);
    assert_int_equal(pflash_set_contents(f.flash, contents, BYTES, &err), 0);
    device_test_attach(f.flash);
    device_test_start(f.t);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint8_t get(uint32_t offset)
{
    return (uint8_t)test_read(f.t, GPA + offset, 1);
}

static void put(uint32_t offset, uint8_t value)
{
    test_write(f.t, GPA + offset, value, 1);
}

static void reads_as_memory(void **state)
{
    (void)state;
    assert_int_equal(get(300), 300 % 251);
    assert_int_equal(test_read(f.t, GPA + 4, 4), 0x07060504);
    assert_int_equal(test_read(f.t, GPA + BYTES, 1), 0xff); /* beyond the end */
}

/* What OVMF does to find out that there is a flash. */
static void is_found_by_its_status(void **state)
{
    (void)state;
    put(0x100, 0x50);
    assert_int_equal(get(0x100), 0x100 % 251);
    put(0x100, 0x70);
    assert_int_equal(get(0x100), 0);
    put(0x100, 0xff);
    assert_int_equal(get(0x100), 0x100 % 251);
}

static void answers_queries(void **state)
{
    (void)state;
    put(0x55, 0x98);
    assert_int_equal(get(0x10), 'Q');
    assert_int_equal(get(0x11), 'R');
    assert_int_equal(get(0x12), 'Y');
    assert_int_equal(get(0x13), 1);
    assert_int_equal(get(0x27), 15);                     /* 24 KiB fit into 2^15 */
    assert_int_equal(get(0x2d) | get(0x2e) << 8, 6 - 1); /* blocks */
    assert_int_equal((get(0x2f) | get(0x30) << 8) * 256, 4096);
    put(0, 0x90);
    assert_int_equal(get(0), 0x89);
}

static void programming_clears_bits(void **state)
{
    (void)state;
    put(0x1003, 0x20);
    put(0x1003, 0xd0);
    assert_int_equal(get(0x1003) & 0x80, 0x80);
    put(0, 0xff);
    assert_int_equal(get(0x0fff), 0xfff % 251);
    assert_int_equal(get(0x1000), 0xff);
    assert_int_equal(get(0x1fff), 0xff);
    assert_int_equal(get(0x2000), 0x2000 % 251);
    put(0x1000, 0x10);
    put(0x1000, 0xf0);
    put(0x1001, 0x40);
    put(0x1001, 0x3c);
    put(0x1000, 0x40);
    put(0x1000, 0x3f);
    put(0, 0xff);
    assert_int_equal(get(0x1000), 0x30);
    assert_int_equal(get(0x1001), 0x3c);
}

static void a_buffer_is_programmed_as_one(void **state)
{
    (void)state;
    put(0x2000, 0x20);
    put(0x2000, 0xd0);
    put(0x2010, 0xe8);
    assert_int_equal(get(0x2010) & 0x80, 0x80);
    put(0x2010, 3); /* four bytes */
    for (unsigned n = 0; n < 4; n++)
        put(0x2010 + n, (uint8_t)(0x11 * (n + 1)));
    put(0x2010, 0xd0);
    put(0, 0xff);
    assert_int_equal(test_read(f.t, GPA + 0x2010, 4), 0x44332211);
    assert_int_equal(get(0x2014), 0xff);
}

static void smram_shown(void *opaque, bool show)
{
    (void)opaque, (void)show;
}

/* With "secure" commands are taken from SMM only. */
static void others_cannot_write(void **state)
{
    static uint8_t contents[BYTES];
    struct vcpu *vcpu;
    struct error err = {0};

    (void)state;
    f.t = device_test_new(0);
    f.flash = device_test_create(f.t, &pflash_class, NULL);
    vcpu = machine_vcpu(f.t->machine, 0);
    machine_set_smm(f.t->machine, smram_shown, NULL);
    assert_int_equal(device_set_u64(f.flash, "gpa", GPA, &err), 0);
    assert_int_equal(device_set(f.flash, "secure", "on", &err), 0);
    assert_int_equal(pflash_set_contents(f.flash, contents, BYTES, &err), 0);
    device_test_attach(f.flash);
    device_test_start(f.t);
    put(0x1000, 0x20);
    put(0x1000, 0xd0);
    put(0x1000, 0xff);
    assert_int_equal(get(0x1000), 0);
    vcpu_raise_smi(vcpu);
    device_test_loop(f.t);
    assert_true(machine_in_smm(f.t->machine));
    put(0x1000, 0x20);
    put(0x1000, 0xd0);
    put(0x1000, 0xff);
    assert_int_equal(get(0x1000), 0xff);
}

static void wrong_sequences_are_errors(void **state)
{
    (void)state;
    put(0x3000, 0x20); /* erase, not confirmed */
    put(0x3000, 0x00);
    put(0, 0x70);
    assert_int_equal(get(0), 0xb0);
    put(0, 0x50);
    assert_int_equal(get(0x3000), 0x3000 % 251);
    put(0x3000, 0xe8); /* a buffer that leaves its block */
    put(0x3000, 1);
    put(0x3fff, 1);
    put(0, 0x70);
    assert_int_equal(get(0) & 0x30, 0x30);
    put(0, 0x50);
    put(0, 0xe8); /* one that is larger than there is */
    put(0, 0xff);
    put(0, 0x70);
    assert_int_equal(get(0) & 0x30, 0x30);
    device_test_round_trip(f.t, f.flash);
    put(0, 0xff);
    assert_int_equal(get(0x3fff), 0x3fff % 251);
}

/* The last byte of the flash, and a buffer that would run over it. */
static void nothing_is_written_behind_the_end(void **state)
{
    (void)state;
    put(BYTES - 1, 0xe8);
    put(BYTES - 1, 63);
    put(BYTES - 1, 0);
    for (unsigned n = 0; n < 62; n++)
        put(n, 0);
    put(0, 0xd0);
    put(0, 0xff);
    assert_int_equal(get(0), 0);
    assert_int_equal(get(1), 1);
    assert_int_equal(get(BYTES - 1), (BYTES - 1) % 251);
}

static void state_round_trip(void **state)
{
    (void)state;
    put(0x2010, 0xe8);
    put(0x2010, 3);
    put(0x2010, 0);
    device_test_round_trip(f.t, f.flash);
    put(0x2011, 0);
    put(0x2012, 0);
    put(0x2013, 0);
    put(0x2010, 0xd0);
    put(0, 0xff);
    assert_int_equal(test_read(f.t, GPA + 0x2010, 4), 0);
}

static void contents_have_a_size(void **state)
{
    static uint8_t data[4096 + 1];
    struct error err = {0};
    struct device *dev = device_test_create(f.t, &pflash_class, NULL);

    (void)state;
    assert_int_equal(pflash_set_contents(dev, data, 0, &err), -EINVAL);
    error_clear(&err);
    assert_int_equal(pflash_set_contents(dev, data, sizeof(data), &err), -EINVAL);
    error_clear(&err);
    assert_int_equal(device_attach(dev, &err), -EINVAL); /* nothing in it */
}

/* ---- with a drive ---- */

static int set_up_drive(void **state)
{
    struct error err = {0};
    uint8_t page[4096];
    int fd;

    (void)state;
    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/pflash-XXXXXX");
    fd = mkstemp(f.path);
    assert_true(fd >= 0);
    memset(page, 0xff, sizeof(page));
    assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
    assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
    close(fd);
    f.t = device_test_new(0);
    f.drive = block_open(f.t->loop, f.path, &err);
    assert_non_null(f.drive);
    f.flash = device_test_create(f.t, &pflash_class, NULL);
    assert_int_equal(device_set_pointer(f.flash, "drive", f.drive, &err), 0);
    assert_int_equal(device_set_u64(f.flash, "gpa", GPA, &err), 0);
    machine_lock(f.t->machine);
    assert_int_equal(device_attach(f.flash, &err), 0);
    machine_unlock(f.t->machine);
    device_test_start(f.t);
    return 0;
}

static int tear_down_drive(void **state)
{
    (void)state;
    block_free(f.drive);
    device_test_free(f.t);
    unlink(f.path);
    return 0;
}

static void changes_are_on_the_drive(void **state)
{
    uint8_t bytes[2] = {0};
    FILE *file;

    (void)state;
    put(0x1200, 0x40);
    put(0x1200, 0x5a);
    file = fopen(f.path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0x1200, SEEK_SET), 0);
    assert_int_equal(fread(bytes, 1, 2, file), 2);
    assert_int_equal(bytes[0], 0x5a);
    assert_int_equal(bytes[1], 0xff);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_as_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_found_by_its_status, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_queries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(programming_clears_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_buffer_is_programmed_as_one, set_up, tear_down),
        cmocka_unit_test_teardown(others_cannot_write, tear_down),
        cmocka_unit_test_setup_teardown(wrong_sequences_are_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_written_behind_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(state_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(contents_have_a_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(changes_are_on_the_drive, set_up_drive, tear_down_drive),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
