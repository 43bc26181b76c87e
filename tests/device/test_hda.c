/*
 * test_hda.c - the HD Audio controller and its codec, driven by a guest's driver
 */
#include "wav_file.h"

#include "hda_rig.h"

#define FORMAT_48K 0x0011 /* 16 bits, stereo */
#define OUT        4u     /* the first output stream */
#define TAG        0x100000u
#define RUN        0x02u
#define IOCE       0x04u
#define MS         1000000u

static struct {
    struct device_test *t;
    struct device *card;
    struct audio *audio;
    char path[32];
    struct test_irq irq;
} f;

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    f.audio = wav_file_make(f.path);
    f.t = device_test_new(1 << 20);
    f.card = hda_rig_add(f.t, f.audio);
    for (unsigned n = 0; n < PCI_PIRQS; n++) {
        static struct test_irq others;

        test_irq_connect(n == pci_pirq(HDA_SLOT, 1) ? &f.irq : &others,
                         device_output(machine_find_device(f.t->machine, "pci-host"), "pirq", n));
    }
    device_test_start(f.t);
    hda_rig_begin(f.t);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    audio_free(f.audio);
    unlink(f.path);
    return 0;
}

static uint32_t reg(unsigned offset, unsigned size)
{
    return (uint32_t)test_read(f.t, HDA_BAR + offset, size);
}

static void set_reg(unsigned offset, uint32_t value, unsigned size)
{
    test_write(f.t, HDA_BAR + offset, value, size);
}

/* By the rings. */
static uint32_t command(unsigned node, uint32_t verb)
{
    unsigned at = (reg(0x48, 2) + 1) & 0xff;

    put_le32(f.t->ram.hva + HDA_RIG_CORB + 4 * at, node << 20 | verb);
    set_reg(0x48, at, 2);
    assert_int_equal(reg(0x4a, 2), at);
    return get_le32(f.t->ram.hva + HDA_RIG_RIRB + 8 * reg(0x58, 2));
}

/* The converter plays stream 1, at the pin. */
static void listen_to_stream(void)
{
    command(2, 0x70610);
    command(3, 0x70740);
    set_reg(0x5d, 1, 1);
}

static void start_stream(unsigned stream, uint32_t more)
{
    test_write(f.t, hda_rig_sd(stream), TAG | RUN | more, 3);
}

/* Samples of the file so far that are not silent. */
static size_t heard(int16_t value)
{
    size_t count = 0;
    int16_t sample;
    FILE *file;

    audio_free(f.audio);
    f.audio = NULL;
    file = fopen(f.path, "rb");
    fseek(file, 44, SEEK_SET);
    while (fread(&sample, sizeof(sample), 1, file))
        count += sample == value;
    fclose(file);
    return count;
}

static void a_reset_shows_the_codec(void **state)
{
    (void)state;
    assert_int_equal(reg(0, 4), 0x01004401);
    assert_int_equal(reg(0x0e, 2), 1);
    set_reg(0x0e, 1, 2);
    assert_int_equal(reg(0x0e, 2), 0);
    set_reg(0x40, 0x12345680, 4);
    set_reg(0x08, 0, 4);
    assert_int_equal(reg(0x40, 4), 0);
    set_reg(0x40, 0x12345680, 4); /* nothing can be written in reset */
    assert_int_equal(reg(0x40, 4), 0);
    set_reg(0x08, 1, 4);
    assert_int_equal(reg(0x0e, 2), 1);
    assert_int_equal(reg(0x92, 2), 0);
}

static void commands_are_answered_in_rings(void **state)
{
    (void)state;
    assert_int_equal(command(0, 0xf0000), 0x12090010);
    assert_int_equal(command(0, 0xf0004), 0x00010001);
    assert_int_equal(command(1, 0xf0005), 1);
    assert_int_equal(reg(0x58, 2), 3);
    assert_int_equal(reg(0x5d, 1) & 1, 1);
    set_reg(0x5d, 1, 1);
    assert_int_equal(reg(0x5d, 1), 0);
    for (unsigned n = 0; n < 300; n++) /* around */
        assert_int_equal(command(2, 0xf0009) >> 20, 0);
    assert_int_equal(reg(0x58, 2), 303 % 256);
    set_reg(0x58, 0x8000, 2);
    assert_int_equal(reg(0x58, 2), 0);
    set_reg(0x4c, 0, 1);
    set_reg(0x4a, 0x8000, 2);
    assert_int_equal(reg(0x4a, 2), 0x8000);
    set_reg(0x4a, 0, 2);
    assert_int_equal(reg(0x4a, 2), 0);
}

static void responses_interrupt(void **state)
{
    (void)state;
    set_reg(0x20, 0xc0000000, 4);
    assert_false(f.irq.level);
    command(0, 0xf0000);
    assert_true(f.irq.level);
    assert_int_equal(reg(0x24, 4), 0xc0000000);
    set_reg(0x5d, 1, 1);
    assert_false(f.irq.level);
}

static void commands_can_be_immediate(void **state)
{
    (void)state;
    set_reg(0x60, 0xf0002, 4);
    set_reg(0x68, 1, 2);
    assert_int_equal(reg(0x68, 2), 2);
    assert_int_equal(reg(0x64, 4), 0x00100101);
    set_reg(0x68, 2, 2);
    assert_int_equal(reg(0x68, 2), 0);
    set_reg(0x60, 0x100f0002, 4); /* another codec, which is not there */
    set_reg(0x68, 1, 2);
    assert_int_equal(reg(0x68, 2), 0);
}

static void the_codec_remembers(void **state)
{
    (void)state;
    command(2, 0x24011);
    assert_int_equal(command(2, 0xa0000), 0x4011);
    command(2, 0x3b020); /* out, both */
    assert_int_equal(command(2, 0xba000), 0x20);
    assert_int_equal(command(2, 0xb8000), 0x20);
    command(2, 0x390ff); /* out, right: as loud as can be, but muted */
    assert_int_equal(command(2, 0xb8000), 0xca);
    assert_int_equal(command(2, 0xba000), 0x20);
    command(4, 0x37010); /* in */
    assert_int_equal(command(4, 0xb2000), 0x10);
    assert_int_equal(command(4, 0xb8000), 0);
    command(1, 0x70503);
    assert_int_equal(command(1, 0xf0500), 0x33);
    command(1, 0x7ff00);
    assert_int_equal(command(1, 0xf0500), 0);
    assert_int_equal(command(2, 0xba000), 0x4a);
    assert_int_equal(command(3, 0xf0200), 2);
    assert_int_equal(command(4, 0xf0200), 5);
    assert_int_equal(command(3, 0xf1c00), 0x01014010);
}

/* 480 frames an entry: 10 ms. */
static void a_stream_goes_at_its_rate(void **state)
{
    (void)state;
    listen_to_stream();
    for (unsigned n = 0; n < 4 * 480 * 2; n++)
        put_le16(f.t->ram.hva + HDA_RIG_BUFFER + 2 * n, 1234);
    hda_rig_stream(f.t, OUT, 4, 1920, FORMAT_48K);
    set_reg(0x20, 0x80000000 | 1 << OUT, 4);
    start_stream(OUT, IOCE);
    device_test_advance_ns(f.t, 5 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 960);
    assert_int_equal(reg(0x2084 + 0x20 * OUT, 4), 960); /* the alias */
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 5 * MS - 1);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 1);
    assert_true(f.irq.level);
    assert_int_equal(reg(0x24, 4), 0x80000000 | 1 << OUT);
    test_write(f.t, hda_rig_sd(OUT) + 3, 4, 1);
    assert_false(f.irq.level);
    device_test_advance_ns(f.t, 25 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 3 * 1920 + 960);
    device_test_advance_ns(f.t, 5 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 0); /* around */
    device_test_advance_ns(f.t, 960 * MS);
    assert_in_range(f.irq.rises, 2, 3);
    test_write(f.t, hda_rig_sd(OUT), 0, 3);
    device_test_advance_ns(f.t, 1000 * MS);
    assert_in_range(heard(1234), 2 * 47990, 2 * 48000);
}

static void other_rates_and_channels(void **state)
{
    (void)state;
    listen_to_stream();
    for (unsigned n = 0; n < 8192; n++)
        put_le16(f.t->ram.hva + HDA_RIG_BUFFER + 2 * n, n % 6 < 2 ? 500 : 900);
    hda_rig_stream(f.t, OUT, 2, 6 * 1000, 0x4115); /* 22050 Hz, six channels */
    start_stream(OUT, IOCE);
    device_test_advance_ns(f.t, 20 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 22050 / 50 * 12);
    test_write(f.t, hda_rig_sd(OUT), 0, 3);
    assert_in_range(heard(500), 2 * 950, 2 * 960);
}

static void volume_and_switches_are_heeded(void **state)
{
    static const struct {
        uint32_t node, verb;
        int16_t value;
    } rows[] = {
        {2, 0x3b036, 1000}, /* 20 dB less */
        {2, 0x3b0ff, 0},    /* muted */
        {3, 0x70700, 0},    /* the pin is off */
        {2, 0x70620, 0},    /* another stream */
        {2, 0x70503, 0},    /* no power */
    };

    (void)state;
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        tear_down(NULL);
        set_up(NULL);
        listen_to_stream();
        for (unsigned n = 0; n < 1920; n++)
            put_le16(f.t->ram.hva + HDA_RIG_BUFFER + 2 * n, 10000);
        hda_rig_stream(f.t, OUT, 2, 1920, FORMAT_48K);
        command(rows[row].node, rows[row].verb);
        start_stream(OUT, 0);
        device_test_advance_ns(f.t, 100 * MS);
        test_write(f.t, hda_rig_sd(OUT), 0, 3);
        assert_in_range(heard(rows[row].value), 2 * 4790, 2 * 4800);
    }
}

static void recording_gives_silence(void **state)
{
    (void)state;
    memset(f.t->ram.hva + HDA_RIG_BUFFER, 0x55, 8192);
    hda_rig_stream(f.t, 0, 4, 960, FORMAT_48K);
    start_stream(0, IOCE);
    device_test_advance_ns(f.t, 10 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(0) + 4, 4), 1920);
    assert_int_equal(f.t->ram.hva[HDA_RIG_BUFFER + 1919], 0);
    assert_int_equal(f.t->ram.hva[HDA_RIG_BUFFER + 1920], 0x55);
    assert_int_equal(test_read(f.t, hda_rig_sd(0) + 3, 1) & 4, 4);
}

static void positions_are_in_memory(void **state)
{
    (void)state;
    set_reg(0x70, HDA_RIG_POSITION | 1, 4);
    hda_rig_stream(f.t, OUT, 2, 1920, FORMAT_48K);
    start_stream(OUT, 0);
    device_test_advance_ns(f.t, 10 * MS);
    assert_int_equal(get_le32(f.t->ram.hva + HDA_RIG_POSITION + 8 * OUT), 1920);
}

static void the_wall_clock_has_24_mhz(void **state)
{
    uint32_t start = reg(0x30, 4);

    (void)state;
    device_test_advance_ns(f.t, 1000 * MS);
    assert_int_equal(reg(0x30, 4) - start, 24000000);
    assert_int_equal(reg(0x2030, 4) - start, 24000000);
}

/* The stream goes on where it was, and does not race through its buffers. */
static void a_late_host_does_not_skip(void **state)
{
    (void)state;
    hda_rig_stream(f.t, OUT, 16, 1920, FORMAT_48K);
    start_stream(OUT, IOCE);
    device_test_advance_ns(f.t, 10 * MS);
    device_test_starve_ns(f.t, 5000ull * MS);
    assert_in_range(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 5 * 1920, 7 * 1920);
    device_test_advance_ns(f.t, 10 * MS);
    assert_in_range(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 6 * 1920, 8 * 1920);
}

static void lists_of_nothing_end_the_stream(void **state)
{
    (void)state;
    hda_rig_stream(f.t, OUT, 4, 0, FORMAT_48K);
    set_reg(0x20, 0x80000000 | 1 << OUT, 4);
    start_stream(OUT, 0x10); /* descriptor errors interrupt */
    device_test_advance_ns(f.t, 20 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 3, 1) & 0x10, 0x10);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT), 1) & RUN, 0);
    assert_true(f.irq.level);
}

static void streams_are_reset_alone(void **state)
{
    (void)state;
    hda_rig_stream(f.t, OUT, 2, 1920, FORMAT_48K);
    start_stream(OUT, IOCE);
    device_test_advance_ns(f.t, 7 * MS);
    test_write(f.t, hda_rig_sd(OUT), 1, 1);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT), 1), 1);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 0);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 0x18, 4), 0);
    test_write(f.t, hda_rig_sd(OUT), 0, 1);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT), 1), 0);
    assert_int_equal(command(0, 0xf0002), 0x00100101); /* the rest goes on */
}

static void messages_replace_the_line(void **state)
{
    unsigned at = (unsigned)test_read(f.t, hda_config_gpa(PCI_CAPABILITIES), 1);

    (void)state;
    while (test_read(f.t, hda_config_gpa(at), 1) != PCI_CAP_MSI)
        at = (unsigned)test_read(f.t, hda_config_gpa(at + 1), 1);
    test_write(f.t, hda_config_gpa(at + 4), 0xfee00000, 4);
    test_write(f.t, hda_config_gpa(at + 12), 0x41, 2);
    test_write(f.t, hda_config_gpa(at + 2), 1, 2);
    set_reg(0x20, 0xc0000000, 4);
    command(0, 0xf0000);
    command(0, 0xf0000);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 0x41);
    set_reg(0x5d, 1, 1);
    command(0, 0xf0000);
    assert_int_equal(f.t->msi_count, 2);
    assert_false(f.irq.level);
}

static void state_is_kept(void **state)
{
    (void)state;
    listen_to_stream();
    command(2, 0x3b020);
    hda_rig_stream(f.t, OUT, 4, 1920, FORMAT_48K);
    start_stream(OUT, IOCE);
    device_test_advance_ns(f.t, 25 * MS);
    device_test_round_trip(f.t, f.card);
    device_test_advance_ns(f.t, 10 * MS);
    assert_int_equal(test_read(f.t, hda_rig_sd(OUT) + 4, 4), 3 * 1920 + 960);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_reset_shows_the_codec),
        TEST(commands_are_answered_in_rings),
        TEST(responses_interrupt),
        TEST(commands_can_be_immediate),
        TEST(the_codec_remembers),
        TEST(a_stream_goes_at_its_rate),
        TEST(other_rates_and_channels),
        TEST(volume_and_switches_are_heeded),
        TEST(recording_gives_silence),
        TEST(positions_are_in_memory),
        TEST(the_wall_clock_has_24_mhz),
        TEST(a_late_host_does_not_skip),
        TEST(lists_of_nothing_end_the_stream),
        TEST(streams_are_reset_alone),
        TEST(messages_replace_the_line),
        TEST(state_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
