/*
 * test_floppy.c - the floppy controller and its drives, driven by a guest's driver
 */
#include "disk_test.h"

#include <stdio.h>

#include "floppy_rig.h"
#include "trapeze/block.h"

#define DOR     0x3f2
#define MSR     0x3f4
#define FIFO    0x3f5
#define DIR     0x3f7

#define SECTOR  BLOCK_SECTOR_BYTES
#define IMAGE   (1440u << 10)
#define MFM     0x40
#define MULTI   0x80
#define READ    (0x06 | MFM)
#define WRITE   (0x05 | MFM)
#define FORMAT  (0x0d | MFM)
#define READ_ID (0x0a | MFM)

static struct {
    struct floppy_rig r;
    struct device_test *t;
    struct block *disks[3];
    char paths[3][32];
    uint8_t result[10];
} f;

/* What byte n of an image holds. */
static uint8_t pattern(uint64_t n, unsigned seed)
{
    return (uint8_t)(n * 7 + n / 256 + n / 65536 + seed);
}

static struct block *make_disk(unsigned number, size_t size, const char *options)
{
    uint8_t *bytes = malloc(size);
    char description[96];
    struct error err = {0};
    int fd;

    strcpy(f.paths[number], "/tmp/test-floppy-XXXXXX");
    fd = mkstemp(f.paths[number]);
    for (size_t n = 0; n < size; n++)
        bytes[n] = pattern(n, number);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
    free(bytes);
    snprintf(description, sizeof(description), "%s%s", f.paths[number], options);
    f.disks[number] = block_open(f.t->loop, description, &err);
    if (!f.disks[number])
        fail_msg("%s", err.text);
    return f.disks[number];
}

/* ---- a driver ---- */

static void wait_for(uint8_t bits)
{
    for (unsigned n = 0; n < 50000; n++) {
        if ((test_inb(f.t, MSR) & 0xc0) == bits)
            return;
        device_test_loop(f.t);
        if (n > 50)
            usleep(100);
    }
    fail_msg("the main status is 0x%02x, not 0x%02x", test_inb(f.t, MSR), bits);
}

static void put(uint8_t value)
{
    wait_for(0x80);
    test_outb(f.t, FIFO, value);
}

static void issue(const uint8_t *bytes, size_t count)
{
    for (size_t n = 0; n < count; n++)
        put(bytes[n]);
}

#define ISSUE(...)                                                                                 \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        issue(bytes_, sizeof(bytes_));                                                             \
    } while (0)

static void take_results(unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        wait_for(0xc0);
        f.result[n] = test_inb(f.t, FIFO);
    }
    assert_int_equal(test_inb(f.t, MSR) & 0xd0, 0x80); /* that was all */
}

#define RESULTS(...)                                                                               \
    do {                                                                                           \
        const uint8_t expected_[] = {__VA_ARGS__};                                                 \
        take_results(sizeof(expected_));                                                           \
        assert_memory_equal(f.result, expected_, sizeof(expected_));                               \
    } while (0)

static void settle(void)
{
    device_test_advance_ns(f.t, 1000000);
}

static void sense(uint8_t st0, uint8_t track)
{
    put(0x08);
    RESULTS(st0, track);
}

static void seek(uint8_t drive, uint8_t track)
{
    ISSUE(0x0f, drive, track);
    settle();
    sense(0x20 | drive, track);
}

static void settle_disk(void)
{
    machine_lock(f.t->machine);
    block_drain(f.disks[0]);
    machine_unlock(f.t->machine);
}

static void start(void)
{
    test_outb(f.t, DOR, 0);
    test_outb(f.t, DOR, 0x1c);
    settle();
    for (uint8_t n = 0; n < 4; n++)
        sense(0xc0 | n, 0);
    test_outb(f.t, DIR, 0);
    ISSUE(0x03, 0xdf, 0x02);
}

static uint8_t *memory(void)
{
    return f.t->ram.hva + FLOPPY_DMA_MEMORY;
}

static void expect_image(unsigned number, uint64_t offset, size_t size)
{
    for (size_t n = 0; n < size; n++)
        if (memory()[n] != pattern(offset + n, number))
            fail_msg("byte %zu is 0x%02x", n, memory()[n]);
}

static uint64_t at(unsigned track, unsigned head, unsigned sector)
{
    return ((track * 2u + head) * 18u + sector - 1) * SECTOR;
}

static void begin(unsigned count, const size_t *sizes, const char *const *options)
{
    memset(&f, 0, sizeof(f));
    f.t = device_test_new(0);
    for (unsigned n = 0; n < count; n++)
        make_disk(n, sizes[n], options[n]);
    floppy_rig_make(&f.r, f.t, f.disks);
    device_test_start(f.t);
    start();
}

static int set_up(void **state)
{
    (void)state;
    begin(2, (size_t[]){IMAGE, 720u << 10}, (const char *[]){"", ",readonly=on"});
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    machine_free(f.t->machine);
    f.t->machine = NULL;
    for (unsigned n = 0; n < 3; n++) {
        block_free(f.disks[n]);
        if (f.paths[n][0])
            unlink(f.paths[n]);
    }
    device_test_free(f.t);
    return 0;
}

/* ---- registers and phases ---- */

static void a_reset_is_sensed_four_times(void **state)
{
    (void)state;
    assert_int_equal(f.r.irq.rises, 1);
    assert_false(f.r.irq.level);
    put(0x08); /* nothing more to say: it is no command then */
    RESULTS(0x80);
    test_outb(f.t, MSR, 0x80); /* the other way to reset */
    settle();
    assert_true(f.r.irq.level);
    sense(0xc0, 0);
    assert_false(f.r.irq.level);
}

static void a_reset_keeps_what_lock_says(void **state)
{
    (void)state;
    ISSUE(0x13, 0, 0x57, 0x09);
    put(0x94);
    RESULTS(0x10);
    test_outb(f.t, MSR, 0x80);
    settle();
    assert_int_equal(f.r.irq.rises, 1); /* 0x10: no polling */
    put(0x0e);
    RESULTS(0, 0, 0, 0, 0xdf, 0x02, 0, 0x80, 0x57, 0x09);
    put(0x14);
    RESULTS(0);
    test_outb(f.t, MSR, 0x80);
    settle();
    put(0x0e);
    RESULTS(0, 0, 0, 0, 0xdf, 0x02, 0, 0, 0, 0);
}

static void commands_that_are_none_say_so(void **state)
{
    static const uint8_t codes[] = {0x00, 0x01, 0x11, 0x18, 0x1d, 0x1f};

    (void)state;
    for (size_t n = 0; n < sizeof(codes); n++) {
        put(codes[n]);
        RESULTS(0x80);
    }
    put(0x10); /* and which controller this is */
    RESULTS(0x90);
}

static void it_tells_about_its_drives(void **state)
{
    (void)state;
    ISSUE(0x04, 0);
    RESULTS(0x38);
    ISSUE(0x04, 5);
    RESULTS(0x7d); /* protected */
    seek(1, 3);
    ISSUE(0x04, 1);
    RESULTS(0x69);
    ISSUE(0x04, 2);
    RESULTS(0x2a); /* none there */
    assert_int_equal(test_inb(f.t, 0x3f0), 0xff);
    assert_int_equal(test_inb(f.t, DOR), 0x1c);
}

static void seeks_end_with_an_interrupt(void **state)
{
    (void)state;
    ISSUE(0x0f, 0, 40);
    assert_false(f.r.irq.level);
    assert_int_equal(test_inb(f.t, MSR), 0x81);
    ISSUE(0x0f, 1, 7); /* the other one meanwhile */
    settle();
    assert_true(f.r.irq.level);
    sense(0x20, 40);
    assert_true(f.r.irq.level);
    assert_int_equal(test_inb(f.t, MSR), 0x82);
    sense(0x21, 7);
    assert_false(f.r.irq.level);
    assert_int_equal(test_inb(f.t, MSR), 0x80);
    ISSUE(0x8f, 0, 5); /* outwards */
    settle();
    sense(0x20, 35);
    ISSUE(0xcf, 0, 9);
    settle();
    sense(0x20, 44);
}

static void recalibrating_takes_79_steps(void **state)
{
    (void)state;
    seek(0, 83);
    ISSUE(0x07, 0);
    settle();
    sense(0x70, 0);
    ISSUE(0x07, 0);
    settle();
    sense(0x20, 0);
    ISSUE(0x07, 3); /* no drive */
    settle();
    sense(0x73, 0);
}

static void the_gate_holds_interrupts_back(void **state)
{
    (void)state;
    test_outb(f.t, DOR, 0x14);
    ISSUE(0x0f, 0, 1);
    settle();
    assert_false(f.r.irq.level);
    test_outb(f.t, DOR, 0x1c);
    assert_true(f.r.irq.level);
    sense(0x20, 1);
}

/* ---- data ---- */

static void sectors_are_read(void **state)
{
    (void)state;
    seek(0, 3);
    floppy_rig_dma(f.t, true, 4 * SECTOR);
    ISSUE(READ, 0, 3, 0, 5, 2, 18, 0x1b, 0xff);
    RESULTS(0, 0, 0, 3, 0, 9, 2);
    expect_image(0, at(3, 0, 5), 4 * SECTOR);
    assert_int_equal(memory()[4 * SECTOR], 0);
    assert_int_equal(f.r.irq.rises, 3);
    assert_false(f.r.irq.level);
}

static void both_sides_are_read_with_one_command(void **state)
{
    (void)state;
    seek(0, 79);
    floppy_rig_dma(f.t, true, 36 * SECTOR);
    ISSUE(READ | MULTI, 0, 79, 0, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0, 0, 0, 80, 0, 1, 2);
    expect_image(0, at(79, 0, 1), 36 * SECTOR);
}

static void the_end_of_a_track_is_an_error(void **state)
{
    (void)state;
    floppy_rig_dma(f.t, true, 3 * SECTOR);
    ISSUE(READ, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
    RESULTS(0x40, 0x80, 0, 1, 0, 1, 2);
    expect_image(0, at(0, 0, 17), 2 * SECTOR);
}

static void what_is_not_there_is_not_found(void **state)
{
    (void)state;
    floppy_rig_dma(f.t, true, SECTOR);
    ISSUE(READ, 0, 0, 0, 19, 2, 19, 0x1b, 0xff);
    RESULTS(0x40, 0x04, 0, 0, 0, 19, 2);
    ISSUE(READ, 0, 1, 0, 1, 2, 18, 0x1b, 0xff); /* the head is on track 0 */
    RESULTS(0x40, 0x04, 0x10, 1, 0, 1, 2);
    ISSUE(READ, 0, 0, 0, 1, 3, 18, 0x1b, 0xff); /* 1 KiB */
    RESULTS(0x40, 0x04, 0, 0, 0, 1, 3);
    ISSUE(0x06, 0, 0, 0, 1, 2, 18, 0x1b, 0xff); /* FM */
    RESULTS(0x40, 0x01, 0, 0, 0, 1, 2);
    test_outb(f.t, DIR, 2); /* 250 kbit/s */
    ISSUE(READ, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0x40, 0x01, 0, 0, 0, 1, 2);
    ISSUE(READ_ID, 5); /* which is right for the other disk */
    RESULTS(0x05, 0, 0, 0, 1, 1, 2);
    ISSUE(READ_ID, 2);
    RESULTS(0x42, 0x01, 0, 0, 1, 1, 2);
}

static void a_configured_controller_seeks_by_itself(void **state)
{
    (void)state;
    ISSUE(0x13, 0, 0x57, 0);
    floppy_rig_dma(f.t, true, SECTOR);
    ISSUE(READ, 4, 33, 1, 2, 2, 18, 0x1b, 0xff);
    RESULTS(0x04, 0, 0, 33, 1, 3, 2);
    expect_image(0, at(33, 1, 2), SECTOR);
}

static void sectors_are_written(void **state)
{
    uint8_t bytes[3 * SECTOR];

    (void)state;
    disk_fill(memory(), 1000, 9);
    floppy_rig_dma(f.t, false, 1000); /* the rest of the second sector is zeros */
    ISSUE(WRITE, 4, 0, 1, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0x04, 0, 0, 0, 1, 3, 2);
    disk_read_image(f.paths[0], at(0, 1, 1), bytes, sizeof(bytes));
    assert_memory_equal(bytes, memory(), 1000);
    for (unsigned n = 1000; n < 2 * SECTOR; n++)
        assert_int_equal(bytes[n], 0);
    assert_int_equal(bytes[2 * SECTOR], pattern(at(0, 1, 3), 0));
}

static void a_protected_disk_stays_as_it_is(void **state)
{
    (void)state;
    test_outb(f.t, DIR, 2);
    floppy_rig_dma(f.t, false, SECTOR);
    ISSUE(WRITE, 1, 0, 0, 1, 2, 9, 0x1b, 0xff);
    RESULTS(0x41, 0x02, 0, 0, 0, 1, 2);
    ISSUE(FORMAT, 1, 2, 9, 0x54, 0xf6);
    RESULTS(0x41, 0x02, 0, 0, 0, 1, 2);
}

static void a_track_is_formatted(void **state)
{
    (void)state;
    seek(0, 2);
    for (unsigned n = 0; n < 18; n++)
        memcpy(memory() + 4 * n, (uint8_t[]){2, 1, (uint8_t)(n * 7 % 18 + 1), 2}, 4);
    floppy_rig_dma(f.t, false, 72);
    ISSUE(FORMAT, 4, 2, 18, 0x54, 0xf6);
    take_results(7);
    assert_int_equal(f.result[0] | f.result[1] | f.result[2], 0x04);
    assert_true(disk_image_is(f.paths[0], at(2, 1, 1), 0xf6, 18 * SECTOR));
    assert_false(disk_image_is(f.paths[0], at(3, 0, 1), 0xf6, 1));
    memory()[2] = 3; /* a sector twice */
    floppy_rig_dma(f.t, false, 72);
    ISSUE(FORMAT, 4, 2, 18, 0x54, 0x11);
    take_results(7);
    assert_int_equal(f.result[0], 0x44);
    assert_true(disk_image_is(f.paths[0], at(2, 1, 1), 0xf6, 18 * SECTOR));
    ISSUE(FORMAT, 4, 2, 21, 0x54, 0x11); /* another format than the image's */
    take_results(7);
    assert_int_equal(f.result[1], 0x04);
}

static void verifying_moves_nothing(void **state)
{
    (void)state;
    ISSUE(0x16 | MFM, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0, 0, 0, 1, 0, 1, 2);
    ISSUE(0x16 | MFM, 0x80, 0, 0, 1, 2, 18, 0x1b, 18);
    RESULTS(0, 0, 0, 1, 0, 1, 2);
    ISSUE(0x16 | MFM, 0, 0, 0, 1, 2, 20, 0x1b, 0xff);
    RESULTS(0x40, 0x04, 0, 0, 0, 19, 2);
}

static void deleted_data_is_none_here(void **state)
{
    (void)state;
    floppy_rig_dma(f.t, true, 2 * SECTOR);
    ISSUE(0x0c | MFM, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0x40, 0, 0x40, 0, 0, 2, 2);
    expect_image(0, 0, SECTOR);
}

/* Without DMA the bytes come one by one, and the end of the track is the end. */
static void bytes_move_without_dma(void **state)
{
    uint8_t bytes[2 * SECTOR];

    (void)state;
    ISSUE(0x03, 0xdf, 0x03);
    ISSUE(READ, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
    wait_for(0xc0);
    assert_true(f.r.irq.level);
    for (unsigned n = 0; n < 2 * SECTOR; n++) {
        assert_int_equal(test_inb(f.t, MSR), 0xf0);
        assert_int_equal(test_inb(f.t, FIFO), pattern(at(0, 0, 17) + n, 0));
    }
    RESULTS(0x40, 0x80, 0, 1, 0, 1, 2);
    ISSUE(WRITE, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
    for (unsigned n = 0; n < 2 * SECTOR; n++) {
        assert_int_equal(test_inb(f.t, MSR), 0xb0);
        test_outb(f.t, FIFO, (uint8_t)(n / 2));
    }
    RESULTS(0x40, 0x80, 0, 1, 0, 1, 2);
    disk_read_image(f.paths[0], at(0, 0, 17), bytes, sizeof(bytes));
    for (unsigned n = 0; n < 2 * SECTOR; n++)
        assert_int_equal(bytes[n], (uint8_t)(n / 2));
}

static void data_waits_for_the_channel(void **state)
{
    (void)state;
    floppy_rig_dma(f.t, true, SECTOR);
    test_outb(f.t, 0x0a, 6);
    ISSUE(READ, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    settle_disk();
    assert_int_equal(test_inb(f.t, MSR), 0x10);
    device_test_round_trip(f.t, f.r.controller);
    test_outb(f.t, 0x0a, 2);
    RESULTS(0, 0, 0, 0, 0, 2, 2);
    expect_image(0, 0, SECTOR);
}

/* ---- disks ---- */

static void the_change_line_says_so_until_the_head_moves(void **state)
{
    struct error err = {0};
    struct block *old;

    (void)state;
    assert_int_equal(test_inb(f.t, DIR), 0x80);
    seek(0, 0); /* where it is */
    assert_int_equal(test_inb(f.t, DIR), 0x80);
    seek(0, 1);
    assert_int_equal(test_inb(f.t, DIR), 0);
    test_outb(f.t, DOR, 0x1d);
    assert_int_equal(test_inb(f.t, DIR), 0x80); /* the other drive's */
    test_outb(f.t, DOR, 0x1c);
    machine_lock(f.t->machine);
    assert_int_equal(floppy_change(f.r.drives[0], NULL, &old, &err), 0);
    machine_unlock(f.t->machine);
    assert_ptr_equal(old, f.disks[0]);
    assert_int_equal(test_inb(f.t, DIR), 0x80);
    seek(0, 0);
    assert_int_equal(test_inb(f.t, DIR), 0x80); /* nothing is in it */
    floppy_rig_dma(f.t, true, SECTOR);
    ISSUE(READ, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0x40, 0x01, 0, 0, 0, 1, 2);
    machine_lock(f.t->machine);
    assert_int_equal(floppy_change(f.r.drives[0], f.disks[0], &old, &err), 0);
    assert_int_equal(floppy_change(f.r.drives[0], make_disk(2, 2880u << 10, ""), &old, &err),
                     -EINVAL);
    machine_unlock(f.t->machine);
    assert_non_null(strstr(err.text, "1.44M cannot read a disk of 2880 KiB"));
}

static void a_disk_that_goes_ends_its_command(void **state)
{
    struct error err = {0};
    struct block *old;

    (void)state;
    test_outb(f.t, 0x0a, 6);
    ISSUE(READ, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    settle_disk();
    machine_lock(f.t->machine);
    assert_int_equal(floppy_change(f.r.drives[0], NULL, &old, &err), 0);
    machine_unlock(f.t->machine);
    RESULTS(0x40, 0x01, 0, 0, 0, 1, 2);
}

static void bad_sectors_are_found(void **state)
{
    (void)state;
    tear_down(NULL);
    begin(1, (size_t[]){IMAGE}, (const char *[]){",fault=read:1:1"});
    floppy_rig_dma(f.t, true, 5 * SECTOR);
    ISSUE(READ, 0, 0, 0, 1, 2, 18, 0x1b, 0xff); /* not at once, but one by one */
    RESULTS(0, 0, 0, 0, 0, 6, 2);
    expect_image(0, 0, 5 * SECTOR);
    tear_down(NULL);
    begin(1, (size_t[]){IMAGE}, (const char *[]){",fault=read:1:2"});
    floppy_rig_dma(f.t, true, 5 * SECTOR);
    ISSUE(READ, 0, 0, 0, 3, 2, 18, 0x1b, 0xff);
    RESULTS(0x40, 0x20, 0x20, 0, 0, 3, 2);
}

static void errors_in_writing_are_reported(void **state)
{
    (void)state;
    tear_down(NULL);
    begin(1, (size_t[]){IMAGE}, (const char *[]){",fault=write:1:1"});
    floppy_rig_dma(f.t, false, SECTOR);
    ISSUE(WRITE, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    RESULTS(0x40, 0x20, 0x20, 0, 0, 1, 2);
}

/* Formats, at their rates, in the drives that they go into by themselves. */
static void every_size_of_disk_works(void **state)
{
    static const struct {
        unsigned kib, tracks, heads, sectors, rate;
    } rows[] = {
        {160, 40, 1, 8, 2},   {180, 40, 1, 9, 2},   {320, 40, 2, 8, 2},
        {360, 40, 2, 9, 2},   {720, 80, 2, 9, 2},   {1200, 80, 2, 15, 0},
        {1440, 80, 2, 18, 0}, {1680, 80, 2, 21, 0}, {2880, 80, 2, 36, 3},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        uint8_t head = (uint8_t)(rows[n].heads - 1), track = (uint8_t)(rows[n].tracks - 1);
        uint8_t last = (uint8_t)rows[n].sectors;

        tear_down(NULL);
        begin(1, (size_t[]){rows[n].kib << 10}, (const char *[]){""});
        test_outb(f.t, DIR, (uint8_t)rows[n].rate);
        seek(0, track);
        floppy_rig_dma(f.t, true, SECTOR);
        ISSUE(READ, (uint8_t)(head << 2), track, head, last, 2, last, 0x1b, 0xff);
        take_results(7);
        assert_int_equal(f.result[0], head << 2);
        expect_image(0, (rows[n].kib << 10) - SECTOR, SECTOR);
    }
}

static void disks_of_40_tracks_are_stepped_over_twice(void **state)
{
    struct error err = {0};

    (void)state;
    tear_down(NULL);
    memset(&f, 0, sizeof(f));
    f.t = device_test_new(0);
    make_disk(0, 360u << 10, "");
    floppy_rig_make(&f.r, f.t, (struct block *[]){NULL, NULL});
    machine_lock(f.t->machine);
    device_free(f.r.drives[0]);
    machine_unlock(f.t->machine);
    f.r.drives[0] = device_test_create(f.t, &floppy_drive_class, "type=1.2M");
    device_set_pointer(f.r.drives[0], "controller", f.r.controller, &err);
    device_set_pointer(f.r.drives[0], "drive", f.disks[0], &err);
    device_test_attach(f.r.drives[0]);
    device_test_start(f.t);
    start();
    test_outb(f.t, DIR, 1); /* 300 kbit/s: it turns faster */
    seek(0, 20);
    ISSUE(READ_ID, 0);
    RESULTS(0, 0, 0, 10, 0, 1, 2);
    ISSUE(READ_ID, 4);
    RESULTS(4, 0, 0, 10, 1, 1, 2);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct machine *machine = f.t->machine;

    assert_int_equal(disk_attach_result(machine, &floppy_class, NULL, NULL, NULL, "has no DMA"),
                     -EINVAL);
    assert_int_equal(
        disk_attach_result(machine, &floppy_drive_class, NULL, NULL, NULL, "no controller"),
        -EINVAL);
}

static void state_is_kept(void **state)
{
    (void)state;
    seek(0, 5);
    device_test_round_trip(f.t, f.r.drives[0]);
    device_test_round_trip(f.t, f.r.controller);
    put(READ);
    device_test_round_trip(f.t, f.r.controller); /* in the middle of a command */
    ISSUE(0, 5, 0, 1, 2, 18, 0x1b);
    floppy_rig_dma(f.t, true, SECTOR);
    put(0xff);
    RESULTS(0, 0, 0, 5, 0, 2, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_reset_is_sensed_four_times),
        TEST(a_reset_keeps_what_lock_says),
        TEST(commands_that_are_none_say_so),
        TEST(it_tells_about_its_drives),
        TEST(seeks_end_with_an_interrupt),
        TEST(recalibrating_takes_79_steps),
        TEST(the_gate_holds_interrupts_back),
        TEST(sectors_are_read),
        TEST(both_sides_are_read_with_one_command),
        TEST(the_end_of_a_track_is_an_error),
        TEST(what_is_not_there_is_not_found),
        TEST(a_configured_controller_seeks_by_itself),
        TEST(sectors_are_written),
        TEST(a_protected_disk_stays_as_it_is),
        TEST(a_track_is_formatted),
        TEST(verifying_moves_nothing),
        TEST(deleted_data_is_none_here),
        TEST(bytes_move_without_dma),
        TEST(data_waits_for_the_channel),
        TEST(the_change_line_says_so_until_the_head_moves),
        TEST(a_disk_that_goes_ends_its_command),
        TEST(bad_sectors_are_found),
        TEST(errors_in_writing_are_reported),
        TEST(every_size_of_disk_works),
        TEST(disks_of_40_tracks_are_stepped_over_twice),
        TEST(what_cannot_be_is_refused),
        TEST(state_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
