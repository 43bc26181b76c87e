/*
 * test_atapi.c - packet commands of CD-ROM drives, on an AHCI port
 */
#include "ata_disk.h"

#define PORT 1

static int set_up(void **state)
{
    (void)state;
    make_machine(&ahci_class, "");
    device_test_start(f.t);
    ahci_find(f.t);
    ahci_start(f.t, PORT);
    return 0;
}

#define PACKET(...) ((const uint8_t[12]){__VA_ARGS__})

static uint16_t packet(const uint8_t bytes[12], uint32_t size)
{
    memset(ram(DATA), 0xee, 4096);
    return ahci_packet(f.t, PORT, bytes, DATA, size);
}

static uint32_t moved(void)
{
    return get_le32(ram(AHCI_LIST(PORT) + 4));
}

static void expect_sense(uint8_t key, uint8_t code, uint8_t qualifier)
{
    assert_int_equal(packet(PACKET(0x03, 0, 0, 0, 18), 18), OK);
    assert_int_equal(*ram(DATA + 2), key);
    assert_int_equal(*ram(DATA + 12), code);
    assert_int_equal(*ram(DATA + 13), qualifier);
}

static void expect_failure(const uint8_t bytes[12], uint8_t key, uint8_t code, uint8_t qualifier)
{
    assert_int_equal(packet(bytes, 64), key << 12 | ATA_ABRT << 8 | OK | ATA_ERR);
    expect_sense(key, code, qualifier);
    expect_sense(0, 0, 0);
}

static void become_ready(void)
{
    expect_failure(PACKET(0x00), 6, 0x29, 0);
    assert_int_equal(packet(PACKET(0x00), 0), OK);
}

static void attention_comes_first(void **state)
{
    (void)state;
    assert_int_equal(packet(PACKET(0x12, 0, 0, 0, 36), 36), OK); /* but for INQUIRY */
    assert_int_equal(*ram(DATA), 5);
    assert_int_equal(packet(PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 8), 8), OK);
    become_ready();
}

static void sectors_are_read(void **state)
{
    (void)state;
    become_ready();
    assert_int_equal(packet(PACKET(0x25), 8), OK);
    assert_int_equal(get_be32(ram(DATA)), CD_BYTES / 2048 - 1);
    assert_int_equal(get_be32(ram(DATA + 4)), 2048);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 10, 0, 0, 20), 20 * 2048), OK);
    expect_image(DATA, 1, 10 * 2048, 20 * 2048);
    assert_int_equal(moved(), 20 * 2048);
    assert_int_equal(packet(PACKET(0xa8, 0, 0, 0, 0, 11, 0, 0, 0, 20), 20 * 2048), OK);
    expect_image(DATA, 1, 11 * 2048, 20 * 2048);
    assert_int_equal(packet(PACKET(0xbe, 0, 0, 0, 0, 12, 0, 0, 3, 0x10), 3 * 2048), OK);
    expect_image(DATA, 1, 12 * 2048, 3 * 2048);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 10), 0), OK);           /* none */
    expect_failure(PACKET(0xbe, 0, 0, 0, 0, 12, 0, 0, 3, 0xf8), 5, 0x24, 0); /* raw */
    expect_failure(PACKET(0x28, 0, 0, 0, 0, CD_BYTES / 2048, 0, 0, 1), 5, 0x21, 0);
    expect_failure(PACKET(0xa8, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), 5, 0x21, 0);
    expect_failure(PACKET(0x99), 5, 0x20, 0);
}

static void an_error_of_the_host_is_one_of_the_medium(void **state)
{
    (void)state;
    become_ready();
    assert_int_equal(truncate(f.paths[1], 2048), 0);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 40, 0, 0, 1), 2048),
                     3 << 12 | ATA_ABRT << 8 | OK | ATA_ERR);
    expect_sense(3, 0x11, 0);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 2048), OK);
}

static void the_tray_opens_and_closes(void **state)
{
    (void)state;
    become_ready();
    assert_int_equal(packet(PACKET(0x1e, 0, 0, 0, 1), 0), OK);
    expect_failure(PACKET(0x1b, 0, 0, 0, 2), 5, 0x53, 2);
    assert_int_equal(packet(PACKET(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 64), 64), OK);
    assert_int_equal(*ram(DATA + 8 + 6) & 2, 2);
    assert_int_equal(packet(PACKET(0x1e), 0), OK);
    assert_int_equal(packet(PACKET(0x1b, 0, 0, 0, 2), 0), OK);
    expect_failure(PACKET(0x00), 2, 0x3a, 2);
    expect_failure(PACKET(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 2, 0x3a, 2);
    assert_int_equal(packet(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8), OK);
    assert_int_equal(get_be32(ram(DATA + 4)) >> 16, 0x0301); /* removed, open */
    assert_int_equal(packet(PACKET(0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8), 8), OK);
    assert_int_equal(*ram(DATA + 1), 0x10);
    assert_int_equal(packet(PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 8), 8), OK);
    assert_int_equal(get_be16(ram(DATA + 6)), 0);
    device_test_round_trip(f.t, f.cd);
    assert_int_equal(packet(PACKET(0x1b, 0, 0, 0, 3), 0), OK);
    expect_failure(PACKET(0x00), 6, 0x28, 0);
    assert_int_equal(packet(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8), OK);
    assert_int_equal(get_be32(ram(DATA + 4)) >> 16, 0x0202); /* new, there */
    assert_int_equal(packet(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8), OK);
    assert_int_equal(get_be32(ram(DATA + 4)) >> 16, 0x0002);
    expect_failure(PACKET(0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8), 5, 0x24, 0); /* not polled */
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 2048), OK);
}

static void expect_event(uint16_t event)
{
    assert_int_equal(packet(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8), OK);
    assert_int_equal(get_be16(ram(DATA + 4)), event);
}

static void count(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void the_host_changes_the_medium(void **state)
{
    unsigned moves = 0;

    (void)state;
    f.blocks[2] = make_image(2, CD_BYTES / 2, ",readonly=on");
    ata_cd_observe(f.cd, count, &moves);
    become_ready();
    assert_false(change_cd(f.blocks[2], false, f.blocks[1]));
    assert_int_equal(moves, 2); /* it has opened and closed */
    assert_false(ata_cd_is_open(f.cd));
    expect_event(0x0202); /* new, there */
    expect_failure(PACKET(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 6, 0x28, 0);
    assert_int_equal(packet(PACKET(0x25), 8), OK);
    assert_int_equal(get_be32(ram(DATA)), CD_BYTES / 2 / 2048 - 1);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 3, 0, 0, 2), 2 * 2048), OK);
    expect_image(DATA, 2, 3 * 2048, 2 * 2048);
    expect_failure(PACKET(0x28, 0, 0, 0, 0, CD_BYTES / 2 / 2048, 0, 0, 1), 5, 0x21, 0);

    assert_false(change_cd(NULL, false, f.blocks[2]));
    assert_int_equal(moves, 3);
    assert_true(ata_cd_is_open(f.cd));
    expect_event(0x0301); /* removed, open */
    expect_failure(PACKET(0x00), 2, 0x3a, 2);
    assert_false(change_cd(NULL, false, NULL));
    assert_int_equal(moves, 3);
    assert_int_equal(packet(PACKET(0x1b, 0, 0, 0, 3), 0), OK); /* the guest closes it */
    assert_int_equal(moves, 4);
    expect_failure(PACKET(0x00), 2, 0x3a, 1);
    device_test_round_trip(f.t, f.cd);

    assert_false(change_cd(f.blocks[1], false, NULL));
    expect_failure(PACKET(0x00), 6, 0x28, 0);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 40, 0, 0, 1), 2048), OK);
    expect_image(DATA, 1, 40 * 2048, 2048);
}

static void a_locked_tray_is_asked_for(void **state)
{
    (void)state;
    become_ready();
    assert_int_equal(packet(PACKET(0x1e, 0, 0, 0, 1), 0), OK);
    assert_true(change_cd(NULL, false, NULL));
    expect_event(0x0102); /* somebody wants it, there */
    expect_event(0x0002);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 2048), OK);
    assert_int_equal(packet(PACKET(0x1e), 0), OK);
    assert_int_equal(packet(PACKET(0x1b, 0, 0, 0, 2), 0), OK);
    assert_int_equal(packet(PACKET(0x1e, 0, 0, 0, 1), 0), OK); /* which does not matter now */
    assert_false(change_cd(NULL, false, f.blocks[1]));
    assert_false(change_cd(f.blocks[1], false, NULL));
    assert_true(change_cd(NULL, false, NULL));
    assert_false(change_cd(NULL, true, f.blocks[1]));
    expect_event(0x0301);
    expect_failure(PACKET(0x00), 6, 0x28, 0);
    assert_int_equal(packet(PACKET(0x1b, 0, 0, 0, 3), 0), OK);
    assert_false(change_cd(f.blocks[1], false, NULL)); /* there is nothing that it keeps */
}

static void what_is_no_cd_is_refused(void **state)
{
    struct error err = {0};
    struct block *old;
    bool asked;

    (void)state;
    become_ready();
    f.blocks[2] = make_image(2, 1024, ",readonly=on");
    assert_int_equal(ata_cd_change(f.cd, f.blocks[2], false, &asked, &old, &err), -EINVAL);
    assert_null(old);
    assert_int_equal(packet(PACKET(0x28, 0, 0, 0, 0, 3, 0, 0, 1), 2048), OK);
}

static void an_empty_drive_has_no_medium(void **state)
{
    struct device *dev = device_test_create(f.t, &ata_cd_class, "place=2");
    struct error err = {0};

    (void)state;
    assert_int_equal(device_set_pointer(dev, "controller", f.controller, &err), 0);
    device_test_attach(dev);
    device_test_reset(f.t);
    ahci_find(f.t);
    ahci_start(f.t, 2);
    for (unsigned n = 0; n < 2; n++)
        ahci_packet(f.t, 2, PACKET(0x00), DATA, 0);
    assert_int_equal(ahci_packet(f.t, 2, PACKET(0x03, 0, 0, 0, 18), DATA, 18), OK);
    assert_int_equal(get_be16(ram(DATA + 12)), 0x3a01);
}

static void the_toc_has_one_track(void **state)
{
    static const uint8_t first[20] = {0, 18, 1, 1,    0,    0x14, 1, 0, 0, 0,
                                      0, 0,  0, 0x14, 0xaa, 0,    0, 0, 0, 64};

    (void)state;
    become_ready();
    assert_int_equal(packet(PACKET(0x43, 0, 0, 0, 0, 0, 0, 0, 64), 64), OK);
    assert_memory_equal(ram(DATA), first, sizeof(first));
    assert_int_equal(moved(), 20);
    assert_int_equal(packet(PACKET(0x43, 2, 0, 0, 0, 0, 0xaa, 0, 64), 64), OK);
    assert_int_equal(moved(), 12);
    assert_int_equal(get_be32(ram(DATA + 8)), (2 << 8) + 64); /* 00:02:64 */
    assert_int_equal(packet(PACKET(0x43, 0, 1, 0, 0, 0, 0, 0, 64), 64), OK);
    assert_int_equal(moved(), 12);
    assert_int_equal(packet(PACKET(0x43, 0, 2, 0, 0, 0, 0, 0, 64), 64), OK);
    assert_int_equal(moved(), 48);
    assert_int_equal(packet(PACKET(0x43, 0, 0, 0, 0, 0, 0, 0, 4), 64), OK); /* only the header */
    assert_int_equal(moved(), 4);
    expect_failure(PACKET(0x43, 0, 5, 0, 0, 0, 0, 0, 64), 5, 0x24, 0);
}

static void answers_have_their_sizes(void **state)
{
    static const struct {
        uint8_t packet[12];
        uint32_t bytes;
    } rows[] = {
        {{0x12, 0, 0, 0, 255}, 36},
        {{0x12, 0, 0, 0, 5}, 5},
        {{0x1a, 0, 0x2a, 0, 255}, 26},
        {{0x1a, 0, 0x3f, 0, 255}, 34},
        {{0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255}, 38},
        {{0x5a, 0, 0x01, 0, 0, 0, 0, 0, 255}, 16},
        {{0x42, 0, 0x40, 1, 0, 0, 0, 0, 255}, 16},
        {{0x42, 0, 0, 0, 0, 0, 0, 0, 255}, 4},
        {{0x46, 0, 0, 0, 0, 0, 0, 0, 255}, 8 + 12 + 12 + 8 + 12 + 8 + 8},
        {{0x46, 1, 0, 0, 0, 0, 0, 0, 255}, 8 + 12 + 12 + 8 + 12 + 8}, /* no DVD is in */
        {{0x46, 2, 0, 3, 0, 0, 0, 0, 255}, 16},
        {{0x51, 0, 0, 0, 0, 0, 0, 0, 255}, 34},
        {{0x4a, 1, 0, 0, 0x40, 0, 0, 0, 255}, 4},
        {{0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 255}, 8},
        {{0xbb}, 0},
        {{0x35}, 0},
        {{0x2b}, 0},
    };

    (void)state;
    become_ready();
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        assert_int_equal(packet(rows[n].packet, 256), OK);
        if (moved() != rows[n].bytes)
            fail_msg("packet 0x%02x gives %u bytes", rows[n].packet[0], moved());
    }
    expect_failure(PACKET(0x1a, 0, 0x0d, 0, 255), 5, 0x24, 0);
    expect_failure(PACKET(0x1a, 0, 0xea, 0, 255), 5, 0x39, 0);
    expect_failure(PACKET(0x12, 1, 0, 0, 255), 5, 0x24, 0);
    expect_failure(PACKET(0x46, 3, 0, 0, 0, 0, 0, 0, 255), 5, 0x24, 0);
    expect_failure(PACKET(0x42, 0, 0x40, 9, 0, 0, 0, 0, 255), 5, 0x24, 0);
}

static void it_is_a_cd(void **state)
{
    struct driver_command c = command(ATA_IDENTIFY_PACKET, 0, 0, DATA, SECTOR);

    (void)state;
    assert_int_equal(ahci_do(f.t, PORT, &c), OK);
    assert_int_equal(word(DATA, 0), 0x85c0);
    assert_memory_equal(ram(DATA + 54), "RTPAZE EDCR-MO", 14);
    c.command = 0x25;
    assert_int_equal(ahci_do(f.t, PORT, &c) & ATA_ERR, ATA_ERR);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(attention_comes_first),
        TEST(sectors_are_read),
        TEST(an_error_of_the_host_is_one_of_the_medium),
        TEST(the_tray_opens_and_closes),
        TEST(the_host_changes_the_medium),
        TEST(a_locked_tray_is_asked_for),
        TEST(what_is_no_cd_is_refused),
        TEST(an_empty_drive_has_no_medium),
        TEST(the_toc_has_one_track),
        TEST(answers_have_their_sizes),
        TEST(it_is_a_cd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
