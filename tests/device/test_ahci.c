/*
 * test_ahci.c - the AHCI controller and its drives, driven by a guest's driver
 */
#include "ata_disk.h"

#define IS_TFES     (1u << 30)
#define IS_HBFS     (1u << 29)
#define IS_IFS      (1u << 27)
#define IS_OFS      (1u << 24)
#define IS_DHRS     0x1u
#define IS_PSS      0x2u
#define IS_SDBS     0x8u
#define ERROR(bits) ((uint16_t)((bits) << 8 | OK | ATA_ERR))

static void begin(const char *options)
{
    make_machine(&ahci_class, options);
    test_irq_connect(&f.irq[0], device_output(f.host, "pirq", pci_pirq(0x1f, 1)));
    device_test_start(f.t);
    ahci_find(f.t);
    ahci_start(f.t, 0);
    ahci_start(f.t, 1);
}

static int set_up(void **state)
{
    (void)state;
    begin("");
    return 0;
}

static int set_up_read_only(void **state)
{
    (void)state;
    begin(",readonly=on");
    return 0;
}

static int set_up_without_discard(void **state)
{
    (void)state;
    begin(",discard=off");
    return 0;
}

static int set_up_written_through(void **state)
{
    (void)state;
    begin(",cache=writethrough");
    return 0;
}

static uint16_t run(const struct driver_command *c)
{
    return ahci_do(f.t, 0, c);
}

static uint16_t run_plain(uint8_t code, uint64_t lba, uint16_t count)
{
    struct driver_command c = command(code, lba, count, 0, 0);

    return run(&c);
}

static uint16_t read_to_ram(uint8_t code, uint64_t lba, uint16_t count, uint32_t size)
{
    struct driver_command c = command(code, lba, count, DATA, size);

    return run(&c);
}

static void recover(void)
{
    ahci_stop(f.t, 0);
    ahci_start(f.t, 0);
}

static const uint8_t *frame(unsigned port, unsigned offset)
{
    return ram(AHCI_AREA(port) + offset);
}

/* ---- the controller ---- */

static void ports_show_what_is_connected(void **state)
{
    (void)state;
    assert_int_equal(ahci_hba_read(f.t, 0x0c), 0x3f);
    assert_int_equal(ahci_hba_read(f.t, 0x10), 0x00010301);
    assert_int_equal(ahci_hba_read(f.t, 0x00) & 0x1f, 5);
    assert_int_equal(ahci_read(f.t, 0, P_SSTS), 0x123);
    assert_int_equal(ahci_read(f.t, 0, P_SIG), 0x00000101);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), 0x150);
    assert_int_equal(ahci_read(f.t, 1, P_SIG), 0xeb140101);
    assert_int_equal(ahci_read(f.t, 2, P_SSTS), 0);
    assert_int_equal(ahci_read(f.t, 2, P_SIG), 0xffffffff);
    assert_int_equal(ahci_read(f.t, 2, P_TFD), 0x7f);
    assert_int_equal(frame(0, 0x40)[0], 0x34); /* the first frame waited for the area */
    assert_int_equal(frame(1, 0x40)[5], 0x14);
}

static void comreset_shows_the_drive_again(void **state)
{
    (void)state;
    ahci_stop(f.t, 0);
    ahci_write(f.t, 0, P_SCTL, 1);
    assert_int_equal(ahci_read(f.t, 0, P_SSTS), 0);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), 0x7f);
    ahci_write(f.t, 0, P_SCTL, 0);
    assert_int_equal(ahci_read(f.t, 0, P_SSTS), 0x123);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), 0x150);
    assert_int_equal(ahci_read(f.t, 0, P_IS) & 0x40, 0x40);
    ahci_write(f.t, 0, P_SERR, 1u << 26);
    assert_int_equal(ahci_read(f.t, 0, P_IS) & 0x40, 0);
    ahci_write(f.t, 0, P_SCTL, 4); /* off */
    assert_int_equal(ahci_read(f.t, 0, P_SSTS), 4);
}

static void control_frames_reset_the_drive(void **state)
{
    uint8_t *table = ram(AHCI_TABLE(0, 0));
    struct driver_command c = command(0, 0, 0, 0, 0);

    (void)state;
    run_plain(0xc6, 0, 8); /* SET MULTIPLE */
    ahci_put(f.t, 0, 0, &c);
    table[1] = 0;
    table[15] = ATA_SRST;
    ahci_issue(f.t, 0, 1, false);
    ahci_wait(f.t, 0, 1);
    table[15] = 0;
    memset(ram(AHCI_AREA(0)), 0, 256);
    ahci_issue(f.t, 0, 1, false);
    ahci_wait(f.t, 0, 1);
    assert_int_equal(frame(0, 0x40)[0], 0x34);
    assert_int_equal(frame(0, 0x40)[3], 1);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), 0x150);
    read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR);
    assert_int_equal(word(DATA, 59), 0);
}

static void hba_reset_forgets_all(void **state)
{
    (void)state;
    ahci_hba_write(f.t, 0x04, 0x80000001);
    assert_int_equal(ahci_hba_read(f.t, 0x04), 0x80000000);
    assert_int_equal(ahci_read(f.t, 0, P_CLB), 0);
    assert_int_equal(ahci_read(f.t, 0, P_CMD), 6);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), 0x150);
}

static void interrupts_are_a_line_or_messages(void **state)
{
    unsigned msi = ata_config_read(f.t, AHCI_ADDRESS, PCI_CAPABILITIES, 1);

    (void)state;
    assert_false(f.irq[0].level);
    run_plain(0xe7, 0, 0);
    assert_true(f.irq[0].level);
    assert_int_equal(ahci_read(f.t, 0, P_IS), IS_DHRS);
    assert_int_equal(ahci_hba_read(f.t, 0x08), 1);
    ahci_hba_write(f.t, 0x08, 1); /* it is asked for still */
    assert_int_equal(ahci_hba_read(f.t, 0x08), 1);
    ahci_write(f.t, 0, P_IS, IS_DHRS);
    assert_true(f.irq[0].level);
    ahci_hba_write(f.t, 0x08, 1);
    assert_false(f.irq[0].level);

    ata_config_write(f.t, AHCI_ADDRESS, msi + 4, ATA_MSI_GPA, 4);
    ata_config_write(f.t, AHCI_ADDRESS, msi + 12, 0x41, 2);
    ata_config_write(f.t, AHCI_ADDRESS, msi + 2, 1, 2);
    f.t->msi_count = 0;
    run_plain(0xe7, 0, 0);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 0x41);
    ahci_hba_write(f.t, 0x08, 1); /* asked for still: another one */
    assert_int_equal(f.t->msi_count, 2);
    ahci_write(f.t, 0, P_IS, IS_DHRS);
    ahci_hba_write(f.t, 0x08, 1);
    assert_int_equal(f.t->msi_count, 2);
    ahci_hba_write(f.t, 0x04, 0x80000000);
    run_plain(0xe7, 0, 0);
    assert_int_equal(f.t->msi_count, 2);
    ahci_hba_write(f.t, 0x04, 0x80000002);
    assert_int_equal(f.t->msi_count, 3);
    assert_false(f.irq[0].level);
}

static void without_bus_mastering_commands_wait(void **state)
{
    struct driver_command c = command(0x25, 0, 1, DATA, SECTOR);

    (void)state;
    ata_config_write(f.t, AHCI_ADDRESS, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    ahci_put(f.t, 0, 0, &c);
    ahci_issue(f.t, 0, 1, false);
    device_test_loop(f.t);
    assert_int_equal(ahci_read(f.t, 0, P_CI), 1);
    ata_config_write(f.t, AHCI_ADDRESS, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    ahci_wait(f.t, 0, 1);
    expect_image(DATA, 0, 0, SECTOR);
}

static void stopping_forgets_commands(void **state)
{
    struct driver_command c = command(0x25, 0, 1, DATA, SECTOR);

    (void)state;
    ahci_stop(f.t, 0);
    ahci_put(f.t, 0, 0, &c);
    ahci_issue(f.t, 0, 1, false); /* not taken: it does not run */
    assert_int_equal(ahci_read(f.t, 0, P_CI), 0);
    ahci_start(f.t, 0);
    assert_int_equal(run(&c), OK);
}

static void what_is_not_ram_halts_the_port(void **state)
{
    struct driver_command c = command(0x25, 0, 1, 0xfffff000, SECTOR);

    (void)state;
    run(&c);
    assert_int_equal(ahci_read(f.t, 0, P_IS) & IS_HBFS, IS_HBFS);
    assert_int_equal(ahci_read(f.t, 0, P_CI), 1);
    ahci_stop(f.t, 0);
    ahci_write(f.t, 0, P_SCTL, 1);
    ahci_write(f.t, 0, P_SCTL, 0);
    ahci_start(f.t, 0);
    put_le64(ram(AHCI_LIST(0)) + 8, 0x100000000ull); /* the table */
    ahci_issue(f.t, 0, 1, false);
    assert_int_equal(ahci_read(f.t, 0, P_IS) & IS_HBFS, IS_HBFS);
    recover();
    ahci_write(f.t, 0, P_CLB, 0xfffffc00);
    ahci_issue(f.t, 0, 1, false);
    assert_int_equal(ahci_read(f.t, 0, P_IS) & IS_HBFS, IS_HBFS);
    recover();
    assert_int_equal(read_to_ram(0x25, 5, 1, SECTOR), OK);
    expect_image(DATA, 0, 5 * SECTOR, SECTOR);
}

static void frames_that_are_none_halt_the_port(void **state)
{
    struct driver_command c = command(0x25, 0, 1, DATA, SECTOR);

    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        ahci_put(f.t, 0, 0, &c);
        if (n == 0)
            ram(AHCI_TABLE(0, 0))[0] = 0x34;
        else if (n == 1)
            ram(AHCI_TABLE(0, 0))[1] = 0x81; /* behind a port multiplier */
        else
            ram(AHCI_LIST(0))[0] = 2; /* too short */
        ahci_issue(f.t, 0, 1, false);
        ahci_wait(f.t, 0, 1);
        assert_int_equal(ahci_read(f.t, 0, P_IS) & IS_IFS, IS_IFS);
        recover();
    }
}

/* ---- reading and writing ---- */

static void all_read_commands_read(void **state)
{
    static const uint8_t codes[] = {0x20, 0x24, 0x25, 0x29, 0xc4, 0xc8};

    (void)state;
    assert_int_equal(run_plain(0xc6, 0, 16), OK);
    for (unsigned n = 0; n < sizeof(codes); n++) {
        memset(ram(DATA), 0, 40 * SECTOR);
        ahci_write(f.t, 0, P_IS, UINT32_MAX);
        assert_int_equal(read_to_ram(codes[n], 100 + n, 37, 37 * SECTOR), OK);
        expect_image(DATA, 0, (100 + n) * SECTOR, 37 * SECTOR);
        assert_int_equal(get_le32(ram(AHCI_LIST(0) + 4)), 37 * SECTOR);
        assert_int_equal(ahci_read(f.t, 0, P_IS),
                         codes[n] == 0x25 || codes[n] == 0xc8 ? IS_DHRS : IS_PSS);
    }
    assert_int_equal(frame(0, 0x20)[0], 0x5f); /* PIO setup */
    assert_int_equal(frame(0, 0x20)[15], OK);
}

static void all_write_commands_write(void **state)
{
    static const uint8_t codes[] = {0x30, 0x34, 0x35, 0x39, 0x3d, 0xc5, 0xca, 0xce};

    (void)state;
    assert_int_equal(run_plain(0xc6, 0, 16), OK);
    for (unsigned n = 0; n < sizeof(codes); n++) {
        struct driver_command c = out_command(codes[n], 1000 + 50 * n, 21, DATA, 21 * SECTOR);

        fill(DATA, 21 * SECTOR, 9 + n);
        assert_int_equal(run(&c), OK);
        expect_file((1000 + 50 * n) * SECTOR, DATA, 21 * SECTOR);
    }
}

static void pieces_may_be_anywhere(void **state)
{
    struct driver_command c = command(0x25, 3, 4, 0, 0);

    (void)state;
    c.pieces = 4;
    c.piece[0] = (struct ata_piece){DATA + 2, 102};
    c.piece[1] = (struct ata_piece){DATA + 0x10000, 1000};
    c.piece[2] = (struct ata_piece){DATA + 0x20000, 946};
    c.piece[3] = (struct ata_piece){DATA + 0x30000, 4096}; /* is not reached */
    assert_int_equal(run(&c), OK);
    expect_image(DATA + 2, 0, 3 * SECTOR, 102);
    expect_image(DATA + 0x10000, 0, 3 * SECTOR + 102, 1000);
    expect_image(DATA + 0x20000, 0, 3 * SECTOR + 1102, 946);
}

static void a_list_that_is_too_short_is_an_overflow(void **state)
{
    (void)state;
    memset(ram(DATA), 0, 8 * SECTOR);
    assert_int_equal(read_to_ram(0x25, 8, 8, 3 * SECTOR), OK);
    assert_int_equal(ahci_read(f.t, 0, P_IS) & IS_OFS, IS_OFS);
    expect_image(DATA, 0, 8 * SECTOR, 3 * SECTOR);
    assert_int_equal(get_le32(ram(AHCI_LIST(0) + 4)), 3 * SECTOR);
    assert_int_equal(*ram(DATA + 3 * SECTOR), 0);
}

static void count_0_is_the_largest(void **state)
{
    (void)state;
    assert_int_equal(read_to_ram(0xc8, 0, 0, 256 * SECTOR), OK);
    expect_image(DATA, 0, 0, 256 * SECTOR);
    assert_int_equal(read_to_ram(0x25, 0, 0, SECTOR), ERROR(ATA_IDNF)); /* 65536 are too many */
}

static void what_is_beyond_the_disk_is_an_error(void **state)
{
    uint64_t end = DISK_BYTES / SECTOR;

    (void)state;
    assert_int_equal(read_to_ram(0x25, end - 1, 1, SECTOR), OK);
    assert_int_equal(read_to_ram(0x25, end - 1, 2, 2 * SECTOR), ERROR(ATA_IDNF));
    assert_int_equal(ahci_read(f.t, 0, P_IS) & IS_TFES, IS_TFES);
    assert_int_equal(ahci_read(f.t, 0, P_CI), 1); /* halted with it */
    ahci_issue(f.t, 0, 2, false);
    assert_int_equal(ahci_read(f.t, 0, P_CI), 3);
    recover();
    assert_int_equal(ahci_read(f.t, 0, P_CI), 0);
    assert_int_equal(read_to_ram(0x25, 0xffffffffffff, 1, SECTOR), ERROR(ATA_IDNF));
    recover();
    assert_int_equal(run_plain(0x42, end, 1), ERROR(ATA_IDNF)); /* READ VERIFY */
    recover();
    assert_int_equal(run_plain(0x42, 0, (uint16_t)end), OK);
}

static void cylinders_heads_and_sectors(void **state)
{
    struct driver_command c = command(0xc8, 2 << 8 | 5, 2, DATA, 2 * SECTOR);

    (void)state;
    c.device = 3; /* head 3 of cylinder 2, sector 5 */
    assert_int_equal(run(&c), OK);
    expect_image(DATA, 0, ((2 * 16 + 3) * 63 + 4) * SECTOR, 2 * SECTOR);
    c.lba = 2 << 8 | 64;
    assert_int_equal(run(&c), ERROR(ATA_IDNF));
    recover();
    c.lba = 2 << 8;
    assert_int_equal(run(&c), ERROR(ATA_IDNF));
    recover();

    c = command(0x91, 0, 32, 0, 0); /* 4 heads, 32 sectors */
    c.device = 3;
    assert_int_equal(run(&c), OK);
    c = command(0x20, 2 << 8 | 5, 1, DATA, SECTOR);
    c.device = 3;
    assert_int_equal(run(&c), OK);
    expect_image(DATA, 0, ((2 * 4 + 3) * 32 + 4) * SECTOR, SECTOR);
    c.device = 4;
    assert_int_equal(run(&c), ERROR(ATA_IDNF));
    recover();
    read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR);
    assert_int_equal(word(DATA, 55), 4);
    assert_int_equal(word(DATA, 56), 32);
}

static void writes_to_a_read_only_disk_are_refused(void **state)
{
    struct driver_command c = out_command(0x35, 0, 1, DATA, SECTOR);

    (void)state;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    ahci_put_queued(f.t, 0, 0, true, 0, 1, false, DATA);
    ahci_issue(f.t, 0, 1, true);
    ahci_wait(f.t, 0, 1);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), ERROR(ATA_ABRT));
    recover();
    assert_int_equal(run_plain(0xea, 0, 0), OK);
    assert_int_equal(read_to_ram(0x25, 0, 1, SECTOR), OK);
}

static void an_error_of_the_host_reaches_the_guest(void **state)
{
    (void)state;
    assert_int_equal(truncate(f.paths[0], 8 * SECTOR), 0);
    assert_int_equal(read_to_ram(0x25, 100, 8, 8 * SECTOR), ERROR(ATA_UNC));
    recover();
    ahci_put_queued(f.t, 0, 5, false, 100, 8, false, DATA);
    ahci_issue(f.t, 0, 1 << 5, true);
    ahci_wait(f.t, 0, 1 << 5);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), ERROR(ATA_UNC));
    recover();
    assert_int_equal(read_to_ram(0x2f, 0x10, 1, SECTOR), OK);
    assert_int_equal(*ram(DATA), 5);
    assert_int_equal(*ram(DATA + 3), ATA_UNC);
    assert_int_equal(*ram(DATA + 4), 100);
    assert_int_equal(read_to_ram(0x2f, 0x10, 1, SECTOR), OK);
    assert_int_equal(*ram(DATA), 0x80 | 5); /* it was read */
    assert_int_equal(read_to_ram(0x25, 0, 8, 8 * SECTOR), OK);
}

/* ---- queued commands ---- */

static void queued_commands_overlap(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        memset(ram(DATA), 0, 32 * 16 * SECTOR);
        for (unsigned slot = 0; slot < 32; slot++)
            ahci_put_queued(f.t, 0, slot, false, (round * 7 + slot * 50) % 8000, 16, false,
                            DATA + slot * 16 * SECTOR);
        ahci_issue(f.t, 0, UINT32_MAX, true);
        ahci_wait(f.t, 0, UINT32_MAX);
        assert_int_equal(ahci_read(f.t, 0, P_IS) & ~(uint32_t)IS_SDBS, 0);
        for (unsigned slot = 0; slot < 32; slot++)
            expect_image(DATA + slot * 16 * SECTOR, 0, (round * 7 + slot * 50) % 8000 * SECTOR,
                         16 * SECTOR);
        assert_int_equal(frame(0, 0x58)[0], 0xa1);
        assert_true(get_le32(frame(0, 0x5c)) != 0);
    }
}

static void queued_writes_are_written(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < 32; slot++) {
        fill(DATA + slot * 256 * SECTOR / 8, 32 * SECTOR, slot);
        ahci_put_queued(f.t, 0, slot, true, slot * 100, 32, slot & 1, DATA + slot * 32 * SECTOR);
    }
    ahci_issue(f.t, 0, UINT32_MAX, true);
    ahci_wait(f.t, 0, UINT32_MAX);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), OK);
    for (unsigned slot = 0; slot < 32; slot++)
        expect_file(slot * 100 * SECTOR, DATA + slot * 32 * SECTOR, 32 * SECTOR);
}

static void an_error_of_a_queued_command_stops_the_queue(void **state)
{
    (void)state;
    ahci_put_queued(f.t, 0, 3, false, DISK_BYTES / SECTOR, 1, false, DATA);
    ahci_put_queued(f.t, 0, 4, false, 0, 1, false, DATA);
    ahci_issue(f.t, 0, 1 << 3, true);
    ahci_wait(f.t, 0, 1 << 3);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), ERROR(ATA_IDNF));
    assert_int_equal(ahci_read(f.t, 0, P_SACT), 1 << 3);
    ahci_issue(f.t, 0, 1 << 4, true); /* not started any more */
    assert_int_equal(ahci_read(f.t, 0, P_CI), 1 << 4);
    recover();
    ahci_issue(f.t, 0, 1 << 4, true); /* not before the log was read */
    ahci_wait(f.t, 0, 1 << 4);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), ERROR(ATA_ABRT));
    recover();
    assert_int_equal(read_to_ram(0x47, 0x10, 1, SECTOR), OK);
    assert_int_equal(*ram(DATA) & 0x1f, 4);
    ahci_issue(f.t, 0, 1 << 4, true);
    ahci_wait(f.t, 0, 1 << 4);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), OK);
    expect_image(DATA, 0, 0, SECTOR);
}

static void a_queued_command_has_its_slots_tag(void **state)
{
    (void)state;
    ahci_put_queued(f.t, 0, 3, false, 0, 1, false, DATA);
    ram(AHCI_TABLE(0, 3))[12] = 4 << 3;
    ahci_issue(f.t, 0, 1 << 3, true);
    ahci_wait(f.t, 0, 1 << 3);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), ERROR(ATA_ABRT));
}

static void others_wait_for_queued_commands(void **state)
{
    struct driver_command c = command(0x25, 0, 8, DATA, 8 * SECTOR);

    (void)state;
    for (unsigned slot = 0; slot < 31; slot++)
        ahci_put_queued(f.t, 0, slot, false, 1000, 1024, false, DATA + 0x100000);
    ahci_put(f.t, 0, 31, &c);
    ahci_write(f.t, 0, P_SACT, 0x7fffffff);
    ahci_write(f.t, 0, P_CI, UINT32_MAX);
    ahci_wait(f.t, 0, UINT32_MAX);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), OK);
    expect_image(DATA, 0, 0, 8 * SECTOR);
}

/* ---- errors that pause the machine ---- */

static void begin_with_errors(const char *options)
{
    begin(options);
    block_set_pause(f.blocks[0], disk_pause_for, f.t->machine);
}

static int set_up_full_disk(void **state)
{
    (void)state;
    begin_with_errors(",fault=write:1:2:enospc");
    return 0;
}

/* Saved and loaded in between. */
static void wait_for_pause_and_resume(void)
{
    disk_wait_for_pause(f.t);
    device_test_round_trip(f.t, f.disk);
    device_test_round_trip(f.t, f.controller);
    machine_resume(f.t->machine);
}

/* Paused as the machine is, what failed is neither ended nor forgotten. */
static void what_a_full_disk_refuses_is_tried_again(void **state)
{
    (void)state;
    fill(DATA, 64 * SECTOR, 4);
    ahci_put_queued(f.t, 0, 0, true, 100, 32, false, DATA);
    ahci_put_queued(f.t, 0, 1, true, 200, 32, false, DATA + 32 * SECTOR);
    ahci_issue(f.t, 0, 3, true);
    disk_wait_for_pause(f.t);
    assert_true(ahci_read(f.t, 0, P_SACT) != 0);
    wait_for_pause_and_resume();
    ahci_wait(f.t, 0, 3);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), OK);
    expect_file(100 * SECTOR, DATA, 32 * SECTOR);
    expect_file(200 * SECTOR, DATA + 32 * SECTOR, 32 * SECTOR);
}

/* Those that are not queued, too, at each of their requests to the disk. */
static void commands_that_failed_are_state(void **state)
{
    static const struct {
        const char *fault;
        uint8_t code;
        bool is_out, cache;
    } rows[] = {
        {"write:1:2", 0x35, true, true},   /* WRITE DMA EXT */
        {"flush:2:2", 0x35, true, false},  /* the flush behind it */
        {"read:1:2", 0x25, false, true},   /* READ DMA EXT */
        {"read:1:2", 0x24, false, true},   /* READ SECTORS EXT, which has a PIO setup frame */
        {"flush:1:2", 0xea, false, true},  /* FLUSH CACHE EXT */
        {"discard:1:2", 0x06, true, true}, /* DATA SET MANAGEMENT */
    };
    struct driver_command no_cache = command(0xef, 0, 0, 0, 0); /* SET FEATURES, which flushes */

    no_cache.features = 0x82;
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        bool has_data = rows[n].code != 0xea;
        struct driver_command c =
            command(rows[n].code, 40, has_data ? 1 : 0, DATA, has_data ? SECTOR : 0);
        char options[64];
        unsigned rises;

        snprintf(options, sizeof(options), ",werror=pause,rerror=pause,fault=%s", rows[n].fault);
        begin_with_errors(options);
        if (!rows[n].cache)
            assert_int_equal(run(&no_cache), OK);
        fill(DATA, SECTOR, 3);
        if (rows[n].code == 0x06) {
            memset(ram(DATA), 0, SECTOR);
            put_le64(ram(DATA), 8 | 8ull << 48);
            c.features = 1;
        }
        c.is_out = rows[n].is_out;
        ahci_put(f.t, 0, 5, &c);
        rises = f.irq[0].rises;
        ahci_issue(f.t, 0, 1u << 5, false);
        for (unsigned turn = 0; turn < 2; turn++) {
            disk_wait_for_pause(f.t);
            assert_int_equal(ahci_read(f.t, 0, P_CI), 1u << 5);
            assert_int_equal(f.irq[0].rises, rises);
            wait_for_pause_and_resume();
        }
        ahci_wait(f.t, 0, 1u << 5);
        assert_int_equal(ahci_read(f.t, 0, P_TFD), OK);
        if (rows[n].code == 0x35)
            expect_file(40 * SECTOR, DATA, SECTOR);
        if (has_data && !rows[n].is_out)
            expect_image(DATA, 0, 40 * SECTOR, SECTOR);
        assert_int_equal(run_plain(0xea, 0, 0), OK);
        tear_down(state);
    }
}

/* ---- other commands ---- */

static void it_says_what_it_is(void **state)
{
    uint8_t sum = 0;

    (void)state;
    assert_int_equal(read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR), OK);
    assert_memory_equal(ram(DATA + 20), "idks1-              ", 20);
    assert_memory_equal(ram(DATA + 54), "RTPAZE EIDKS", 12);
    assert_int_equal(get_le32(ram(DATA + 120)), DISK_BYTES / SECTOR);
    assert_int_equal(get_le64(ram(DATA + 200)), DISK_BYTES / SECTOR);
    assert_int_equal(word(DATA, 76) & 0x100, 0x100);
    assert_int_equal(word(DATA, 75), 31);
    assert_int_equal(word(DATA, 169), 1);
    for (unsigned n = 0; n < SECTOR; n++)
        sum = (uint8_t)(sum + *ram(DATA + n));
    assert_int_equal(sum, 0);
}

static void features_are_set(void **state)
{
    struct driver_command c = command(0xef, 0, 0x45, 0, 0);

    (void)state;
    c.features = 3;
    assert_int_equal(run(&c), OK);
    read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR);
    assert_int_equal(word(DATA, 88), 0x203f);
    assert_int_equal(word(DATA, 82) & 0x20, 0x20);
    assert_int_equal(word(DATA, 85) & 0x20, 0x20);
    c.count = 0x46;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    c.features = 0x82;
    assert_int_equal(run(&c), OK);
    c.features = 0xaa;
    assert_int_equal(run(&c), OK);
    read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR);
    assert_int_equal(word(DATA, 85) & 0x20, 0);
    c.features = 0x77;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
}

static void a_disk_that_is_written_through_has_no_cache(void **state)
{
    struct driver_command c = command(0xef, 0, 0, 0, 0);

    (void)state;
    c.features = 0x02;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    c.features = 0x82;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR);
    assert_int_equal(word(DATA, 82) & 0x20, 0);
    assert_int_equal(word(DATA, 85) & 0x20, 0);
}

static void power_modes(void **state)
{
    (void)state;
    assert_int_equal(run_plain(0xe5, 0, 0), OK);
    assert_int_equal(frame(0, 0x40)[12], 0xff);
    assert_int_equal(run_plain(0xe0, 0, 0), OK);
    assert_int_equal(run_plain(0xe5, 0, 0), OK);
    assert_int_equal(frame(0, 0x40)[12], 0x00);
    assert_int_equal(read_to_ram(0x25, 0, 1, SECTOR), OK);
    assert_int_equal(run_plain(0xe5, 0, 0), OK);
    assert_int_equal(frame(0, 0x40)[12], 0xff);
}

static void the_largest_address(void **state)
{
    (void)state;
    assert_int_equal(run_plain(0x27, 0, 0), OK);
    assert_int_equal(get_le32(frame(0, 0x44)) & 0xffffff, DISK_BYTES / SECTOR - 1);
    assert_int_equal(run_plain(0xf8, 0, 0), OK);
    assert_int_equal(get_le32(frame(0, 0x44)), DISK_BYTES / SECTOR - 1 + 0x40000000);
}

static void smart_says_that_all_is_well(void **state)
{
    struct driver_command c = command(0xb0, 0xc24f00, 1, DATA, SECTOR);
    uint8_t sum = 0;

    (void)state;
    c.features = 0xd0;
    assert_int_equal(run(&c), OK);
    for (unsigned n = 0; n < SECTOR; n++)
        sum = (uint8_t)(sum + *ram(DATA + n));
    assert_int_equal(sum, 0);
    assert_int_equal(*ram(DATA + 2), 5);
    c.features = 0xda;
    assert_int_equal(run(&c), OK);
    assert_int_equal(frame(0, 0x40)[5], 0x4f);
    assert_int_equal(frame(0, 0x40)[6], 0xc2);
    c.features = 0xd5;
    c.lba = 0xc24f06;
    assert_int_equal(run(&c), OK);
    c.features = 0xd9;
    assert_int_equal(run(&c), OK);
    c.features = 0xd0;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    c.features = 0xd8;
    c.lba = 0;
    assert_int_equal(run(&c), ERROR(ATA_ABRT)); /* without the key */
}

static void unknown_commands_are_aborted(void **state)
{
    static const uint8_t codes[] = {0x00, 0x01, 0x08, 0x22, 0x50, 0x92, 0xa0, 0xa1, 0xf1, 0xff};

    (void)state;
    for (unsigned n = 0; n < sizeof(codes); n++) {
        assert_int_equal(run_plain(codes[n], 0, 1), ERROR(ATA_ABRT));
        recover();
    }
    assert_int_equal(run_plain(0xc6, 0, 3), ERROR(ATA_ABRT)); /* sectors of a block */
    recover();
    assert_int_equal(run_plain(0xc6, 0, 32), ERROR(ATA_ABRT));
    recover();
    assert_int_equal(read_to_ram(0xc4, 0, 1, SECTOR), ERROR(ATA_ABRT)); /* none is set */
}

static struct driver_command trim(uint16_t blocks)
{
    struct driver_command c = out_command(0x06, 0, blocks, DATA, blocks * SECTOR);

    c.features = 1;
    return c;
}

static void ranges_are_trimmed(void **state)
{
    struct driver_command c = trim(2);
    static const uint8_t zeros[64 * SECTOR];

    (void)state;
    memset(ram(DATA), 0, 2 * SECTOR);
    put_le64(ram(DATA), 64 | 64ull << 48);
    put_le64(ram(DATA + 8), 1024 | 8ull << 48);
    put_le64(ram(DATA + SECTOR), 4096 | 128ull << 48);
    assert_int_equal(run(&c), OK);
    assert_int_equal(read_to_ram(0x25, 64, 64, 64 * SECTOR), OK);
    assert_memory_equal(ram(DATA), zeros, sizeof(zeros));
    assert_int_equal(read_to_ram(0x25, 4096, 64, 64 * SECTOR), OK);
    assert_memory_equal(ram(DATA), zeros, sizeof(zeros));
    assert_int_equal(read_to_ram(0x25, 128, 8, 8 * SECTOR), OK);
    expect_image(DATA, 0, 128 * SECTOR, 8 * SECTOR);

    c = trim(1);
    memset(ram(DATA), 0, SECTOR);
    put_le64(ram(DATA + 8), (DISK_BYTES / SECTOR - 1) | 2ull << 48);
    put_le64(ram(DATA), 128 | 8ull << 48);
    assert_int_equal(run(&c), ERROR(ATA_IDNF)); /* and nothing is trimmed */
    recover();
    assert_int_equal(read_to_ram(0x25, 128, 8, 8 * SECTOR), OK);
    expect_image(DATA, 0, 128 * SECTOR, 8 * SECTOR);
    c = trim(17);
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    c = trim(1);
    c.features = 0;
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
    recover();
    c = trim(2);
    c.piece[0].size_bytes = SECTOR;
    assert_int_equal(run(&c), ERROR(ATA_ABRT)); /* too little data */
}

static void without_discard_there_is_no_trim(void **state)
{
    struct driver_command c = trim(1);

    (void)state;
    read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR);
    assert_int_equal(word(DATA, 169), 0);
    assert_int_equal(run(&c), ERROR(ATA_ABRT));
}

/* ---- state ---- */

static void states_survive(void **state)
{
    (void)state;
    for (unsigned slot = 0; slot < 32; slot++)
        ahci_put_queued(f.t, 0, slot, false, slot * 64, 64, false, DATA + slot * 64 * SECTOR);
    ahci_issue(f.t, 0, UINT32_MAX, true);
    machine_lock(f.t->machine); /* what is under way ends before it is saved */
    f.disk->class->quiesce(f.disk);
    machine_unlock(f.t->machine);
    assert_int_equal(ahci_read(f.t, 0, P_SACT), 0);
    device_test_round_trip(f.t, f.controller);
    device_test_round_trip(f.t, f.disk);
    device_test_round_trip(f.t, f.cd);
    expect_image(DATA, 0, 0, 32 * 64 * SECTOR);
    assert_int_equal(read_to_ram(0x25, 1, 1, SECTOR), OK);
    expect_image(DATA, 0, SECTOR, SECTOR);
}

static void a_halted_port_is_state(void **state)
{
    struct driver_command c = command(0x25, DISK_BYTES / SECTOR, 1, DATA, SECTOR);

    (void)state;
    run(&c);
    device_test_round_trip(f.t, f.controller);
    device_test_round_trip(f.t, f.disk);
    assert_int_equal(ahci_read(f.t, 0, P_TFD), ERROR(ATA_IDNF));
    assert_int_equal(ahci_read(f.t, 0, P_CI), 1);
    recover();
    assert_int_equal(read_to_ram(0x25, 1, 1, SECTOR), OK);
}

static void a_reset_of_the_machine_begins_anew(void **state)
{
    (void)state;
    run_plain(0xc6, 0, 8);
    for (unsigned slot = 0; slot < 32; slot++)
        ahci_put_queued(f.t, 0, slot, false, slot * 64, 64, false, DATA + slot * 64 * SECTOR);
    ahci_issue(f.t, 0, UINT32_MAX, true);
    device_test_reset(f.t);
    ahci_find(f.t);
    ahci_start(f.t, 0);
    assert_int_equal(read_to_ram(ATA_IDENTIFY, 0, 0, SECTOR), OK);
    assert_int_equal(word(DATA, 59), 0);
}

/* ---- properties ---- */

static void drives_need_a_place(void **state)
{
    struct device *dev = device_test_create(f.t, &ata_cd_class, "place=1");
    struct error err = {0};

    (void)state;
    assert_int_equal(device_attach(dev, &err), -EINVAL); /* no controller */
    error_clear(&err);
    assert_int_equal(device_set_pointer(dev, "controller", f.controller, &err), 0);
    assert_int_equal(device_attach(dev, &err), -EBUSY);
    assert_non_null(strstr(err.text, "place 1"));
    assert_int_equal(device_set(dev, "place", "6", &err), 0);
    assert_int_equal(device_attach(dev, &err), -EBUSY);
    assert_int_equal(device_set(dev, "serial", "123456789012345678901", &err), 0);
    assert_int_equal(device_attach(dev, &err), -EINVAL);
    dev = device_test_create(f.t, &ata_disk_class, NULL);
    assert_int_equal(device_set_pointer(dev, "controller", f.controller, &err), 0);
    assert_int_equal(device_attach(dev, &err), -EINVAL); /* no disk */
}

static void firmware_finds_drives_by_their_paths(void **state)
{
    char path[128];

    (void)state;
    f.disk->class->boot_path(f.disk, path, sizeof(path));
    assert_string_equal(path, "/pci@i0cf8/pci8086,2922@1f,2/drive@0/disk@0");
    f.cd->class->boot_path(f.cd, path, sizeof(path));
    assert_string_equal(path, "/pci@i0cf8/pci8086,2922@1f,2/drive@1/disk@0");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(ports_show_what_is_connected),
        TEST(comreset_shows_the_drive_again),
        TEST(control_frames_reset_the_drive),
        TEST(hba_reset_forgets_all),
        TEST(interrupts_are_a_line_or_messages),
        TEST(without_bus_mastering_commands_wait),
        TEST(stopping_forgets_commands),
        TEST(what_is_not_ram_halts_the_port),
        TEST(frames_that_are_none_halt_the_port),
        TEST(all_read_commands_read),
        TEST(all_write_commands_write),
        TEST(pieces_may_be_anywhere),
        TEST(a_list_that_is_too_short_is_an_overflow),
        TEST(count_0_is_the_largest),
        TEST(what_is_beyond_the_disk_is_an_error),
        TEST(cylinders_heads_and_sectors),
        cmocka_unit_test_setup_teardown(writes_to_a_read_only_disk_are_refused, set_up_read_only,
                                        tear_down),
        TEST(an_error_of_the_host_reaches_the_guest),
        TEST(queued_commands_overlap),
        TEST(queued_writes_are_written),
        TEST(an_error_of_a_queued_command_stops_the_queue),
        TEST(a_queued_command_has_its_slots_tag),
        TEST(others_wait_for_queued_commands),
        cmocka_unit_test_setup_teardown(what_a_full_disk_refuses_is_tried_again, set_up_full_disk,
                                        tear_down),
        cmocka_unit_test(commands_that_failed_are_state),
        TEST(it_says_what_it_is),
        TEST(features_are_set),
        cmocka_unit_test_setup_teardown(a_disk_that_is_written_through_has_no_cache,
                                        set_up_written_through, tear_down),
        TEST(power_modes),
        TEST(the_largest_address),
        TEST(smart_says_that_all_is_well),
        TEST(unknown_commands_are_aborted),
        TEST(ranges_are_trimmed),
        cmocka_unit_test_setup_teardown(without_discard_there_is_no_trim, set_up_without_discard,
                                        tear_down),
        TEST(states_survive),
        TEST(a_halted_port_is_state),
        TEST(a_reset_of_the_machine_begins_anew),
        TEST(drives_need_a_place),
        TEST(firmware_finds_drives_by_their_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
