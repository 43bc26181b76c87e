/*
 * test_pci_ide.c - the IDE controller and its drives, driven by a guest's driver
 */
#include "ata_disk.h"

#define ADDRESS (1u << 3) /* the first free slot */
#define BM(reg) ((uint16_t)(ATA_BM_PORT + (reg)))
#define FAILED  (OK | ATA_ERR)

static void begin(const char *options)
{
    make_machine(&pci_ide_class, options);
    for (unsigned n = 0; n < 2; n++)
        test_irq_connect(&f.irq[n], device_output(f.controller, "ide", n));
    device_test_start(f.t);
    ide_find(f.t, ADDRESS);
}

/* Disk and CD are device 0 and 1 of the first channel. */
static int set_up(void **state)
{
    (void)state;
    begin("");
    return 0;
}

static uint8_t reg(unsigned number)
{
    return test_inb(f.t, (uint16_t)(0x1f0 + number));
}

static void set_reg(unsigned number, uint8_t value)
{
    test_outb(f.t, (uint16_t)(0x1f0 + number), value);
}

static uint8_t run_plain(uint8_t code, uint8_t device, uint64_t lba, uint16_t count)
{
    struct driver_command c = command(code, lba, count, 0, 0);

    c.device = device;
    ide_issue(f.t, 0, &c);
    ide_wait(f.t, 0);
    return reg(7);
}

static void issue(uint8_t code, uint64_t lba, uint16_t count)
{
    struct driver_command c = command(code, lba, count, 0, 0);

    ide_issue(f.t, 0, &c);
}

/* ---- the controller ---- */

static void drives_show_what_they_are(void **state)
{
    (void)state;
    assert_int_equal(reg(7), OK);
    assert_int_equal(reg(2), 1);
    assert_int_equal(reg(4) | reg(5) << 8, 0);
    set_reg(6, 0x10);
    assert_int_equal(reg(7), 0);
    assert_int_equal(reg(4) | reg(5) << 8, 0xeb14);
    assert_int_equal(reg(6), 0xb0);
    for (unsigned n = 1; n < 8; n++) /* the other channel is empty */
        assert_int_equal(test_inb(f.t, (uint16_t)(0x170 + n)), 0x7f);
    assert_int_equal(test_inb(f.t, 0x376), 0x7f);
    assert_int_equal(ata_config_read(f.t, ADDRESS, 0x41, 1), 0x80);
    assert_int_equal(ata_config_read(f.t, ADDRESS, 9, 3), 0x010180);
}

static void registers_are_two_deep(void **state)
{
    (void)state;
    set_reg(2, 0x12);
    set_reg(2, 0x34);
    set_reg(3, 0x56);
    set_reg(3, 0x78);
    assert_int_equal(reg(2), 0x34);
    assert_int_equal(reg(3), 0x78);
    test_outb(f.t, 0x3f6, ATA_HOB);
    assert_int_equal(reg(2), 0x12);
    assert_int_equal(reg(3), 0x56);
    set_reg(1, 0); /* which ends HOB */
    assert_int_equal(reg(2), 0x34);
}

static void soft_reset_shows_signatures(void **state)
{
    (void)state;
    set_reg(6, 0xf0);
    set_reg(2, 0x55);
    test_outb(f.t, 0x3f6, ATA_SRST);
    assert_int_equal(test_inb(f.t, 0x3f6), ATA_BSY);
    issue(ATA_IDENTIFY, 0, 0); /* nobody takes it */
    test_outb(f.t, 0x3f6, 0);
    assert_int_equal(reg(7), OK);
    assert_int_equal(reg(1), 1);
    assert_int_equal(reg(2), 1);
    assert_int_equal(reg(6) & ATA_DEVICE_1, 0);
    set_reg(6, 0x10);
    assert_int_equal(reg(4), 0x14);
}

static void diagnostics_are_of_both_drives(void **state)
{
    (void)state;
    set_reg(6, 0x10);
    set_reg(7, ATA_DIAGNOSTIC);
    assert_int_equal(f.irq[0].rises, 1);
    assert_int_equal(reg(1), 1);
    assert_int_equal(reg(7), OK);
    set_reg(6, 0x10);
    assert_int_equal(reg(5), 0xeb);
    assert_int_equal(f.irq[0].level, 0);
}

static void the_line_is_the_selected_drives(void **state)
{
    (void)state;
    issue(0xe7, 0, 0);
    ide_wait(f.t, 0);
    assert_true(f.irq[0].level);
    set_reg(6, 0x10);
    assert_false(f.irq[0].level);
    set_reg(6, 0);
    assert_true(f.irq[0].level);
    test_outb(f.t, 0x3f6, ATA_NIEN);
    assert_false(f.irq[0].level);
    test_outb(f.t, 0x3f6, 0);
    assert_true(f.irq[0].level);
    test_inb(f.t, 0x3f6); /* the alternate status leaves it */
    assert_true(f.irq[0].level);
    reg(7);
    assert_false(f.irq[0].level);
    assert_int_equal(f.irq[1].calls, 0);
}

static void a_busy_drive_takes_no_command(void **state)
{
    (void)state;
    issue(0x20, 5, 1);
    ide_wait(f.t, 0);
    issue(0xe7, 0, 0);
    assert_int_equal(test_inb(f.t, 0x3f6), OK | ATA_DRQ);
    assert_int_equal(ide_move(f.t, 0, DATA, SECTOR, SECTOR, false), OK);
    expect_image(DATA, 0, 5 * SECTOR, SECTOR);
}

/* ---- the data register ---- */

static void sectors_are_read(void **state)
{
    static const struct {
        uint8_t code;
        uint32_t block;
    } rows[] = {{0x20, 1}, {0x24, 1}, {0xc4, 8}, {0x29, 8}};

    (void)state;
    assert_int_equal(run_plain(0xc6, ATA_LBA, 0, 8), OK);
    for (unsigned n = 0; n < 4; n++) {
        unsigned rises = f.irq[0].rises, blocks = (37 + rows[n].block - 1) / rows[n].block;

        memset(ram(DATA), 0, 37 * SECTOR);
        issue(rows[n].code, 90 + n, 37);
        for (unsigned b = 0; b < blocks; b++) {
            uint32_t at = b * rows[n].block * SECTOR, left = 37 * SECTOR - at;
            uint32_t part = left < rows[n].block * SECTOR ? left : rows[n].block * SECTOR;

            ide_wait(f.t, 0);
            assert_int_equal(reg(7), OK | ATA_DRQ);
            for (uint32_t k = 0; k < part; k += 4) {
                uint32_t value = test_inl(f.t, 0x1f0);

                put_le32(ram(DATA + at + k), value);
            }
        }
        ide_wait(f.t, 0);
        assert_int_equal(reg(7), OK);
        assert_int_equal(f.irq[0].rises - rises, blocks);
        expect_image(DATA, 0, (90 + n) * SECTOR, 37 * SECTOR);
    }
    assert_int_equal(test_inw(f.t, 0x1f0), 0xffff);
}

static void sectors_are_written(void **state)
{
    static const struct {
        uint8_t code;
        uint32_t block;
    } rows[] = {{0x30, 1}, {0x34, 1}, {0xc5, 8}, {0x39, 8}, {0xce, 8}};

    (void)state;
    assert_int_equal(run_plain(0xc6, ATA_LBA, 0, 8), OK);
    for (unsigned n = 0; n < 5; n++) {
        unsigned rises = f.irq[0].rises, blocks = (21 + rows[n].block - 1) / rows[n].block;

        fill(DATA, 21 * SECTOR, 3 + n);
        issue(rows[n].code, 500 + 40 * n, 21);
        assert_int_equal(test_inb(f.t, 0x3f6), OK | ATA_DRQ);
        assert_int_equal(f.irq[0].level, 0); /* not for the first block */
        for (unsigned b = 0; b < blocks; b++) {
            uint32_t at = b * rows[n].block * SECTOR, left = 21 * SECTOR - at;
            uint32_t part = left < rows[n].block * SECTOR ? left : rows[n].block * SECTOR;

            ide_wait(f.t, 0);
            assert_int_equal(reg(7), OK | ATA_DRQ);
            for (uint32_t k = 0; k < part; k += 2)
                test_outw(f.t, 0x1f0, get_le16(ram(DATA + at + k)));
        }
        ide_wait(f.t, 0);
        assert_int_equal(reg(7), OK);
        assert_int_equal(f.irq[0].rises - rises, blocks);
        expect_file((500 + 40 * n) * SECTOR, DATA, 21 * SECTOR);
    }
}

static void cylinders_heads_and_sectors(void **state)
{
    struct driver_command c = command(0x20, 1 << 8 | 2, 1, 0, 0);

    (void)state;
    c.device = 0xa0 | 5;
    ide_issue(f.t, 0, &c);
    assert_int_equal(ide_move(f.t, 0, DATA, SECTOR, SECTOR, false), OK);
    expect_image(DATA, 0, ((1 * 16 + 5) * 63 + 1) * SECTOR, SECTOR);
}

static void errors_have_no_data(void **state)
{
    (void)state;
    assert_int_equal(run_plain(0x20, ATA_LBA, DISK_BYTES / SECTOR, 1), FAILED);
    assert_int_equal(reg(1), ATA_IDNF);
    assert_int_equal(run_plain(0x24, 0, 0, 1), FAILED); /* 48-bit, without LBA */
    assert_int_equal(run_plain(0xc4, ATA_LBA, 0, 1), FAILED);
    assert_int_equal(reg(1), ATA_ABRT);
    assert_int_equal(run_plain(0x60, ATA_LBA, 0, 1), FAILED); /* nothing is queued here */
    assert_int_equal(truncate(f.paths[0], 0), 0);
    assert_int_equal(run_plain(0x20, ATA_LBA, 100, 1), FAILED);
    assert_int_equal(reg(1), ATA_UNC);
}

static void identification_has_no_sata(void **state)
{
    (void)state;
    issue(ATA_IDENTIFY, 0, 0);
    assert_int_equal(ide_move(f.t, 0, DATA, SECTOR, SECTOR, false), OK);
    assert_int_equal(word(DATA, 76), 0);
    assert_int_equal(word(DATA, 93), 0x603b); /* 80 wires, and it has seen device 1 */
    assert_int_equal(get_le32(ram(DATA + 120)), DISK_BYTES / SECTOR);
}

/* ---- the bus master ---- */

static void dma_reads_and_writes(void **state)
{
    struct driver_command c = command(0x25, 7, 200, 0, 0);

    (void)state;
    c.pieces = 3;
    c.piece[0] = (struct ata_piece){DATA + 2, 1000};
    c.piece[1] = (struct ata_piece){DATA + 0x10000, 65536};
    c.piece[2] = (struct ata_piece){DATA + 0x40000, 200 * SECTOR - 65536 - 1000};
    assert_int_equal(ide_do_dma(f.t, 0, &c), OK);
    assert_int_equal(test_inb(f.t, BM(2)), 4); /* interrupt, no more active */
    assert_int_equal(f.irq[0].rises, 1);
    expect_image(DATA + 2, 0, 7 * SECTOR, 1000);
    expect_image(DATA + 0x10000, 0, 7 * SECTOR + 1000, 65536);
    expect_image(DATA + 0x40000, 0, 7 * SECTOR + 1000 + 65536, c.piece[2].size_bytes);

    fill(DATA, 64 * SECTOR, 77);
    c = out_command(0xca, 300, 64, DATA, 64 * SECTOR);
    assert_int_equal(ide_do_dma(f.t, 0, &c), OK);
    expect_file(300 * SECTOR, DATA, 64 * SECTOR);
}

static void the_bus_master_may_start_first(void **state)
{
    struct driver_command c = command(0xc8, 9, 1, DATA, SECTOR);

    (void)state;
    ide_put_table(f.t, 0, &c);
    test_outb(f.t, BM(0), 9);
    assert_int_equal(test_inb(f.t, BM(2)), 1);
    ide_issue(f.t, 0, &c);
    ide_wait(f.t, 0);
    expect_image(DATA, 0, 9 * SECTOR, SECTOR);
    assert_int_equal(test_inb(f.t, BM(2)), 4);
    test_outb(f.t, BM(2), 4);
    assert_int_equal(test_inb(f.t, BM(2)), 0);
}

static void a_table_that_is_too_long_stays_active(void **state)
{
    struct driver_command c = command(0xc8, 9, 1, DATA, 2 * SECTOR);

    (void)state;
    ide_put_table(f.t, 0, &c);
    ide_issue(f.t, 0, &c);
    test_outb(f.t, BM(0), 9);
    ide_wait(f.t, 0);
    assert_int_equal(test_inb(f.t, BM(2)), 5);
    test_outb(f.t, BM(0), 8);
    assert_int_equal(test_inb(f.t, BM(2)), 4);
}

static void a_table_that_is_too_short_needs_a_reset(void **state)
{
    struct driver_command c = command(0xc8, 9, 2, DATA, SECTOR);

    (void)state;
    ide_put_table(f.t, 0, &c);
    ide_issue(f.t, 0, &c);
    test_outb(f.t, BM(0), 9);
    assert_int_equal(test_inb(f.t, BM(2)), 0);
    assert_int_equal(test_inb(f.t, 0x3f6) & ATA_BSY, ATA_BSY);
    device_test_round_trip(f.t, f.controller);
    device_test_round_trip(f.t, f.disk);
    test_outb(f.t, 0x3f6, ATA_SRST);
    test_outb(f.t, 0x3f6, 0);
    test_outb(f.t, BM(0), 0);
    c = command(0xc8, 9, 1, DATA, SECTOR);
    assert_int_equal(ide_do_dma(f.t, 0, &c), OK);
}

static void what_is_not_ram_is_an_error(void **state)
{
    struct driver_command c = command(0xc8, 9, 1, 0xfffff000, SECTOR);

    (void)state;
    ide_put_table(f.t, 0, &c);
    ide_issue(f.t, 0, &c);
    test_outb(f.t, BM(0), 9);
    assert_int_equal(test_inb(f.t, BM(2)), 2);
    test_outb(f.t, BM(0), 8);
    test_outl(f.t, BM(4), 0xfffffffc); /* the table */
    test_outb(f.t, BM(2), 2);
    test_outb(f.t, BM(0), 9);
    assert_int_equal(test_inb(f.t, BM(2)), 2);
    assert_int_equal(test_inb(f.t, 0x3f6) & ATA_BSY, ATA_BSY);
}

static void dma_waits_for_bus_mastering_and_direction(void **state)
{
    struct driver_command c = command(0xc8, 9, 1, DATA, SECTOR);

    (void)state;
    ata_config_write(f.t, ADDRESS, PCI_COMMAND, PCI_COMMAND_IO, 2);
    ide_put_table(f.t, 0, &c);
    ide_issue(f.t, 0, &c);
    test_outb(f.t, BM(0), 9);
    assert_int_equal(test_inb(f.t, 0x3f6) & ATA_BSY, ATA_BSY);
    ata_config_write(f.t, ADDRESS, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER, 2);
    ide_wait(f.t, 0);
    expect_image(DATA, 0, 9 * SECTOR, SECTOR);
    test_outb(f.t, BM(0), 0);
    ide_issue(f.t, 0, &c);
    test_outb(f.t, BM(0), 1); /* from memory */
    assert_int_equal(test_inb(f.t, 0x3f6) & ATA_BSY, ATA_BSY);
}

/* ---- the CD ---- */

static void packets_move_by_pio(void **state)
{
    static const uint8_t sense[12] = {0x03, 0, 0, 0, 18}, inquiry[12] = {0x12, 0, 0, 0, 36};
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 5}, lost[12] = {0x28, 0, 1};
    static const uint16_t limits[] = {2048, 4096, 0xfffe, 512, 3000};

    (void)state;
    assert_int_equal(ide_packet(f.t, 0, 0x10, read, 2048, DATA), -1); /* it was switched on */
    assert_int_equal(reg(1) >> 4, 6);
    assert_int_equal(ide_packet(f.t, 0, 0x10, sense, 100, DATA), 18);
    assert_int_equal(*ram(DATA + 2), 6);
    assert_int_equal(ide_packet(f.t, 0, 0x10, inquiry, 10, DATA), 36);
    assert_memory_equal(ram(DATA + 8), "TRAPEZE CD-ROM", 14);
    for (unsigned n = 0; n < 5; n++) {
        memset(ram(DATA), 0, 5 * 2048);
        assert_int_equal(ide_packet(f.t, 0, 0x10, read, limits[n], DATA), 5 * 2048);
        expect_image(DATA, 1, 3 * 2048, 5 * 2048);
        assert_int_equal(reg(2) & 3, 3);
    }
    assert_int_equal(ide_packet(f.t, 0, 0x10, lost, 2048, DATA), -1);
    assert_int_equal(reg(1), 0x54);
}

static void packets_move_by_dma(void **state)
{
    static const uint8_t sense[12] = {0x03, 0, 0, 0, 18}, read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 5};
    struct driver_command c = command(ATA_PACKET, 0, 0, DATA, 5 * 2048);

    (void)state;
    ide_packet(f.t, 0, 0x10, sense, 100, DATA);
    c.device = 0x10;
    c.features = 1;
    ide_put_table(f.t, 0, &c);
    ide_issue(f.t, 0, &c);
    for (unsigned n = 0; n < 12; n += 2)
        test_outw(f.t, 0x1f0, get_le16(read + n));
    test_outb(f.t, BM(0), 9);
    ide_wait(f.t, 0);
    assert_int_equal(reg(7), OK);
    expect_image(DATA, 1, 3 * 2048, 5 * 2048);
}

/* As far as there is a block of data, or a bus master has to be started. */
static void begin_packet(bool is_dma)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 9};
    struct driver_command c = command(ATA_PACKET, 2048 << 8, 0, DATA, 9 * 2048);

    c.device = 0x10;
    c.features = is_dma;
    ide_put_table(f.t, 0, &c);
    ide_issue(f.t, 0, &c);
    for (unsigned n = 0; n < 12; n += 2)
        test_outw(f.t, 0x1f0, get_le16(read + n));
    if (!is_dma)
        assert_int_equal(ide_wait(f.t, 0), OK | ATA_DRQ);
}

static void a_cd_goes_in_the_middle_of_a_command(void **state)
{
    static const uint8_t ready[12] = {0}, sense[12] = {0x03, 0, 0, 0, 18};
    struct state_buffer saved = {0};
    struct error err = {0};

    (void)state;
    ide_packet(f.t, 0, 0x10, sense, 100, DATA);
    for (unsigned n = 0; n < 2; n++) {
        begin_packet(n);
        assert_int_equal(state_save(&ata_cd_class.state, f.cd, &saved, &err), 0);
        assert_false(change_cd(NULL, false, f.blocks[1]));
        assert_int_equal(reg(7), FAILED);
        assert_int_equal(reg(1) >> 4, 2);
        test_outb(f.t, BM(0), 9);
        assert_int_equal(reg(7), FAILED);
        test_outb(f.t, BM(0), 0);
        ide_packet(f.t, 0, 0x10, sense, 100, DATA);
        assert_int_equal(*ram(DATA + 12), 0x3a);
        assert_int_equal(state_load(&ata_cd_class.state, f.cd, saved.data, saved.size_bytes, &err),
                         -EINVAL);
        free(saved.data);
        saved = (struct state_buffer){0};
        assert_false(change_cd(f.blocks[1], false, NULL));
        assert_int_equal(ide_packet(f.t, 0, 0x10, ready, 100, DATA), -1);
        assert_int_equal(reg(1) >> 4, 6);
    }
}

static void device_reset_is_for_cds(void **state)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 5};
    struct driver_command c = command(ATA_PACKET, 0, 0, 0, 0);

    (void)state;
    c.device = 0x10;
    ide_issue(f.t, 0, &c);
    for (unsigned n = 0; n < 6; n += 2)
        test_outw(f.t, 0x1f0, get_le16(read + n));
    set_reg(7, ATA_DEVICE_RESET); /* in the middle of the packet */
    assert_int_equal(reg(7), 0);
    assert_int_equal(reg(4), 0x14);
    set_reg(6, 0);
    set_reg(7, ATA_DEVICE_RESET);
    assert_int_equal(reg(7), FAILED);
    set_reg(6, 0x10);
    set_reg(7, ATA_IDENTIFY);
    assert_int_equal(reg(7), FAILED);
    assert_int_equal(reg(5), 0xeb);
    set_reg(7, ATA_IDENTIFY_PACKET);
    assert_int_equal(ide_move(f.t, 0, DATA, SECTOR, SECTOR, false), OK);
    assert_int_equal(word(DATA, 0), 0x85c0);
}

/* ---- errors that pause the machine ---- */

static void wait_for_pause_and_resume(void)
{
    disk_wait_for_pause(f.t);
    assert_int_equal(test_inb(f.t, 0x3f6) & (ATA_BSY | ATA_DRQ), ATA_BSY);
    device_test_round_trip(f.t, f.disk);
    device_test_round_trip(f.t, f.controller);
    machine_resume(f.t->machine);
}

/* By DMA or through the data register, at each request to the disk; each fails twice. */
static void commands_that_failed_are_state(void **state)
{
    static const struct {
        const char *fault;
        uint8_t code;
        uint16_t sectors, before; /* before: that move until it fails */
        bool is_out, is_dma;
    } rows[] = {
        {"read:1:2", 0x24, 20, 0, false, false},  /* READ SECTORS EXT */
        {"read:2:2", 0x24, 20, 16, false, false}, /* the rest of it */
        {"write:1:2", 0x34, 20, 16, true, false}, /* WRITE SECTORS EXT */
        {"write:2:2", 0x34, 20, 20, true, false}, /* the rest of it */
        {"flush:1:2", 0xea, 0, 0, false, false},  /* FLUSH CACHE EXT */
        {"flush:1:2", 0xce, 2, 2, true, false},   /* WRITE MULTIPLE FUA EXT */
        {"read:1:2", 0x25, 20, 0, false, true},   /* READ DMA EXT */
        {"write:1:2", 0x35, 20, 0, true, true},   /* WRITE DMA EXT */
        {"flush:1:2", 0x3d, 20, 0, true, true},   /* WRITE DMA FUA EXT */
        {"discard:1:2", 0x06, 1, 0, true, true},  /* DATA SET MANAGEMENT */
    };

    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        uint32_t size = rows[n].sectors * SECTOR, before = rows[n].before * SECTOR;
        struct driver_command c = command(rows[n].code, 40, rows[n].sectors, DATA, size);
        char options[64];
        unsigned rises;

        snprintf(options, sizeof(options), ",werror=pause,rerror=pause,fault=%s", rows[n].fault);
        begin(options);
        block_set_pause(f.blocks[0], disk_pause_for, f.t->machine);
        run_plain(0xc6, ATA_LBA, 0, 2); /* SET MULTIPLE */
        fill(DATA, size, 3);
        if (rows[n].code == 0x06) {
            memset(ram(DATA), 0, SECTOR);
            put_le64(ram(DATA), 8 | 8ull << 48);
            c.features = 1;
        }
        if (rows[n].is_dma) {
            ide_put_table(f.t, 0, &c);
            test_outb(f.t, BM(0), rows[n].is_out ? 0 : 8);
            test_outb(f.t, BM(2), 6);
        }
        ide_issue(f.t, 0, &c);
        if (rows[n].is_dma)
            test_outb(f.t, BM(0), rows[n].is_out ? 1 : 9);
        for (uint32_t at = 0; at < before; at += 2) {
            assert_int_equal(ide_wait(f.t, 0) & ATA_DRQ, ATA_DRQ);
            if (rows[n].is_out)
                test_outw(f.t, 0x1f0, get_le16(ram(DATA + at)));
            else
                put_le16(ram(DATA + at), test_inw(f.t, 0x1f0));
        }
        reg(7); /* no interrupt is left of the blocks before */
        rises = f.irq[0].rises;
        for (unsigned turn = 0; turn < 2; turn++) {
            assert_int_equal(f.irq[0].rises, rises);
            wait_for_pause_and_resume();
        }
        if (!rows[n].is_dma && size > before)
            ide_move(f.t, 0, DATA + before, size - before, SECTOR, rows[n].is_out);
        ide_wait(f.t, 0);
        assert_true(f.irq[0].rises > rises);
        if (rows[n].is_dma)
            assert_int_equal(test_inb(f.t, BM(2)) & 7, 4); /* an interrupt, and not active */
        assert_int_equal(reg(7), OK);
        if (rows[n].is_out && rows[n].code != 0x06)
            expect_file(40 * SECTOR, DATA, size);
        else if (rows[n].code != 0x06)
            expect_image(DATA, 0, 40 * SECTOR, size);
        tear_down(state);
    }
}

static void a_phase_without_a_request_is_refused(void **state)
{
    static const struct {
        const char *field;
        uint64_t value;
    } rows[] = {{"left", 0}, {"is_media", 0}, {"position", SECTOR}, {"phase", ATA_PHASE_EMPTY}};

    begin(",rerror=pause,fault=read:1");
    block_set_pause(f.blocks[0], disk_pause_for, f.t->machine);
    issue(0x24, 40, 1);
    disk_wait_for_pause(f.t);
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct state_buffer saved = {0};
        struct error err = {0};
        uint8_t *at, length;

        assert_int_equal(state_save(&f.disk->class->state, f.disk, &saved, &err), 0);
        at = memmem(saved.data, saved.size_bytes, rows[n].field, strlen(rows[n].field));
        assert_non_null(at);
        length = at[strlen(rows[n].field) + 4];
        memcpy(at + strlen(rows[n].field) + 8, &rows[n].value, length);
        assert_int_equal(
            state_load(&f.disk->class->state, f.disk, saved.data, saved.size_bytes, &err), -EINVAL);
        assert_non_null(
            strstr(err.text, rows[n].value == SECTOR ? "more was moved" : "nothing that the disk"));
        free(saved.data);
    }
    machine_resume(f.t->machine);
    assert_int_equal(ide_move(f.t, 0, DATA, SECTOR, SECTOR, false), OK);
    expect_image(DATA, 0, 40 * SECTOR, SECTOR);
    tear_down(state);
}

/* ---- state ---- */

static void the_middle_of_a_transfer_is_state(void **state)
{
    (void)state;
    issue(0x20, 40, 3);
    ide_wait(f.t, 0);
    for (unsigned n = 0; n < SECTOR + 100; n += 2)
        put_le16(ram(DATA + n), test_inw(f.t, 0x1f0));
    device_test_round_trip(f.t, f.controller);
    device_test_round_trip(f.t, f.disk);
    device_test_round_trip(f.t, f.cd);
    for (unsigned n = SECTOR + 100; n < 3 * SECTOR; n += 2)
        put_le16(ram(DATA + n), test_inw(f.t, 0x1f0));
    expect_image(DATA, 0, 40 * SECTOR, 3 * SECTOR);
    assert_int_equal(reg(7), OK);

    fill(DATA, 3 * SECTOR, 5);
    issue(0x30, 60, 3);
    for (unsigned n = 0; n < 3 * SECTOR; n += 2) {
        if (n == 2 * SECTOR + 300)
            device_test_round_trip(f.t, f.disk);
        test_outw(f.t, 0x1f0, get_le16(ram(DATA + n)));
    }
    ide_wait(f.t, 0);
    expect_file(60 * SECTOR, DATA, 3 * SECTOR);
}

static void expect_refused(const char *field, uint64_t value)
{
    struct state_buffer saved = {0};
    struct error err = {0};
    uint8_t *at;

    assert_int_equal(state_save(&f.disk->class->state, f.disk, &saved, &err), 0);
    at = memmem(saved.data, saved.size_bytes, field, strlen(field));
    assert_non_null(at);
    /* The value is behind its name; its width does not matter, as it is small. */
    for (uint8_t *p = at + strlen(field); p < saved.data + saved.size_bytes - 4; p++)
        if (get_le32(p) == SECTOR) {
            put_le32(p, (uint32_t)value);
            break;
        }
    assert_int_equal(state_load(&f.disk->class->state, f.disk, saved.data, saved.size_bytes, &err),
                     -EINVAL);
    free(saved.data);
}

static void blocks_that_cannot_be_are_refused(void **state)
{
    (void)state;
    issue(0x20, 40, 1);
    ide_wait(f.t, 0);
    expect_refused("block_end", SECTOR + 4); /* beyond what there is */
    expect_refused("block_end", 0);
    expect_refused("filled", ATA_BUFFER_BYTES + 1);
    assert_int_equal(ide_move(f.t, 0, DATA, SECTOR, SECTOR, false), OK);
    expect_image(DATA, 0, 40 * SECTOR, SECTOR);
}

static void firmware_finds_drives_by_their_paths(void **state)
{
    char path[128];

    (void)state;
    f.cd->class->boot_path(f.cd, path, sizeof(path));
    assert_string_equal(path, "/pci@i0cf8/ide@1/drive@0/disk@1");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(drives_show_what_they_are),
        TEST(registers_are_two_deep),
        TEST(soft_reset_shows_signatures),
        TEST(diagnostics_are_of_both_drives),
        TEST(the_line_is_the_selected_drives),
        TEST(a_busy_drive_takes_no_command),
        TEST(sectors_are_read),
        TEST(sectors_are_written),
        TEST(cylinders_heads_and_sectors),
        TEST(errors_have_no_data),
        TEST(identification_has_no_sata),
        TEST(dma_reads_and_writes),
        TEST(the_bus_master_may_start_first),
        TEST(a_table_that_is_too_long_stays_active),
        TEST(a_table_that_is_too_short_needs_a_reset),
        TEST(what_is_not_ram_is_an_error),
        TEST(dma_waits_for_bus_mastering_and_direction),
        TEST(packets_move_by_pio),
        TEST(packets_move_by_dma),
        TEST(a_cd_goes_in_the_middle_of_a_command),
        TEST(device_reset_is_for_cds),
        cmocka_unit_test(commands_that_failed_are_state),
        cmocka_unit_test(a_phase_without_a_request_is_refused),
        TEST(the_middle_of_a_transfer_is_state),
        TEST(blocks_that_cannot_be_are_refused),
        TEST(firmware_finds_drives_by_their_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
