/*
 * test_audio.c - the mixer with its sound file, and the PC speaker in it
 */
#include "wav_file.h"

#include "base/bytes.h"
#include "device_test.h"
#include "devices/pit.h"

#define HEADER_BYTES 44

static struct {
    char path[32];
    struct audio *audio;
    uint8_t *bytes; /* of the file */
    size_t frames;
} f;

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    f.audio = wav_file_make(f.path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    audio_free(f.audio);
    unlink(f.path);
    free(f.bytes);
    return 0;
}

/* Close the file and read it. */
static void hear(void)
{
    FILE *file;
    long size;

    audio_free(f.audio);
    f.audio = NULL;
    file = fopen(f.path, "rb");
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    f.bytes = malloc((size_t)size);
    assert_int_equal(fread(f.bytes, 1, (size_t)size, file), size);
    fclose(file);
    assert_memory_equal(f.bytes, "RIFF", 4);
    assert_memory_equal(f.bytes + 36, "data", 4);
    assert_int_equal(get_le32(f.bytes + 4), size - 8);
    assert_int_equal(get_le32(f.bytes + 24), AUDIO_HZ);
    assert_int_equal(get_le32(f.bytes + 40), size - HEADER_BYTES);
    f.frames = (size_t)(size - HEADER_BYTES) / 4;
}

static int sample(size_t frame, unsigned channel)
{
    return (int16_t)get_le16(f.bytes + HEADER_BYTES + frame * 4 + channel * 2);
}

static void put_constant(struct audio_voice *voice, int16_t value, size_t frames)
{
    int16_t samples[2] = {value, (int16_t)-value};

    for (size_t n = 0; n < frames; n++)
        audio_put(voice, samples, 1);
}

static void a_voice_is_written_as_it_is(void **state)
{
    static const int16_t samples[6] = {1000, -1000, 2000, -2000, 3000, 32767};
    struct audio_voice voice = {0};

    (void)state;
    audio_put(&voice, samples, 3); /* it does not play yet */
    audio_start(f.audio, &voice, AUDIO_HZ, 2);
    audio_put(&voice, samples, 3);
    audio_put(&voice, samples, 1);
    audio_stop(&voice);
    hear();
    assert_int_equal(f.frames, 4); /* one frame late, because lines end at it */
    assert_int_equal(sample(1, 0), 1000);
    assert_int_equal(sample(2, 1), -2000);
    assert_int_equal(sample(3, 1), 32767);
}

static void voices_are_added_and_clipped(void **state)
{
    struct audio_voice one = {0}, two = {0};

    (void)state;
    audio_start(f.audio, &one, AUDIO_HZ, 2);
    audio_start(f.audio, &two, AUDIO_HZ, 1);
    put_constant(&one, 20000, 1000);
    put_constant(&two, 20000, 900);
    audio_stop(&one);
    audio_stop(&two);
    hear();
    assert_int_equal(f.frames, 1000);
    assert_int_equal(sample(500, 0), 32767);
    assert_int_equal(sample(500, 1), 0);
    assert_int_equal(sample(950, 0), 20000);
}

/* 44100 frames are a second. */
static void rates_are_changed(void **state)
{
    static const unsigned rates[] = {8000, 44100, 96000, 1};
    struct audio_voice voice = {0};

    (void)state;
    for (size_t n = 0; n < sizeof(rates) / sizeof(rates[0]); n++) {
        tear_down(NULL);
        set_up(NULL);
        audio_start(f.audio, &voice, rates[n], 1);
        put_constant(&voice, 100, rates[n]);
        audio_stop(&voice);
        hear();
        assert_in_range(f.frames, AUDIO_HZ - 1, AUDIO_HZ + 1);
        assert_int_equal(sample(AUDIO_HZ - 1, 0), rates[n] > 1 ? 100 : sample(AUDIO_HZ - 1, 0));
    }
}

static void silence_between_sounds_is_short(void **state)
{
    struct audio_voice voice = {0};

    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        audio_start(f.audio, &voice, AUDIO_HZ, 1);
        put_constant(&voice, 100, 100);
        audio_stop(&voice);
    }
    hear();
    assert_int_equal(f.frames, 100 + AUDIO_HZ / 10 + 100);
    assert_int_equal(sample(100 + AUDIO_HZ / 20, 0), 0);
    assert_int_equal(sample(150 + AUDIO_HZ / 10, 0), 100);
}

static void a_voice_that_stands_still_holds_nobody_up(void **state)
{
    struct audio_voice one = {0}, two = {0};

    (void)state;
    audio_start(f.audio, &one, AUDIO_HZ, 1);
    audio_start(f.audio, &two, AUDIO_HZ, 1);
    put_constant(&one, 100, 3 * AUDIO_HZ);
    put_constant(&two, 50, 10);
    audio_stop(&one);
    audio_stop(&two);
    hear();
    assert_int_equal(f.frames, 3 * AUDIO_HZ);
    assert_int_equal(sample(2 * AUDIO_HZ, 0), 100);
}

static void a_full_disk_is_no_end(void **state)
{
    struct audio_voice voice = {0};
    struct error err = {0};

    (void)state;
    audio_free(f.audio);
    f.audio = audio_open("wav=/dev/full", -1, &err);
    audio_start(f.audio, &voice, AUDIO_HZ, 1);
    put_constant(&voice, 100, 3 * AUDIO_HZ);
    audio_stop(&voice);
}

static void backends_that_are_none_are_named(void **state)
{
    struct error err = {0}, other = {0};

    (void)state;
    assert_int_equal(audio_check("null", &err), 0);
    assert_int_equal(audio_check("wav=x", &err), 0);
    assert_int_equal(audio_check("wav", &err), -EINVAL);
    assert_int_equal(audio_check("null=1", &err), -EINVAL);
    assert_int_equal(audio_check("wave=x", &err), -EINVAL);
    assert_null(audio_open("wav=/no/such/folder", -1, &other));
    assert_non_null(strstr(other.text, "/no/such/folder"));
}

/* ---- the PC speaker ---- */

static unsigned rises(size_t from, size_t to)
{
    unsigned count = 0;

    for (size_t n = from + 1; n < to; n++)
        count += sample(n, 0) > 0 && sample(n - 1, 0) <= 0;
    return count;
}

static void set_counter(struct device_test *t, uint16_t count)
{
    test_outb(t, 0x43, 0xb6);
    test_outb(t, 0x42, (uint8_t)count);
    test_outb(t, 0x42, (uint8_t)(count >> 8));
}

static struct device_test *make_speaker(void)
{
    struct device_test *t = device_test_new(0);
    struct device *pit = device_test_create(t, &pit_class, NULL);

    device_set_pointer(pit, "audio", f.audio, NULL);
    device_test_attach(pit);
    device_test_start(t);
    return t;
}

static void the_speaker_beeps(void **state)
{
    struct device_test *t = make_speaker();

    (void)state;
    set_counter(t, 1193); /* 1000 Hz */
    device_test_advance_ns(t, 100000000);
    test_outb(t, 0x61, 3);
    device_test_advance_ns(t, 500000000);
    test_outb(t, 0x61, 1); /* the counter goes on */
    device_test_advance_ns(t, 1000000000);
    device_test_free(t);
    hear();
    assert_in_range(f.frames, AUDIO_HZ / 2, AUDIO_HZ / 2 + AUDIO_HZ / 15);
    assert_in_range(rises(0, AUDIO_HZ / 2), 499, 501);
    assert_int_equal(rises(AUDIO_HZ / 2 + 100, f.frames), 0);
    assert_true(sample(24010, 0) < 6000);
}

/* Without the counter: the bit itself, as old games do. */
static void the_speaker_follows_its_bit(void **state)
{
    struct device_test *t = make_speaker();

    (void)state;
    set_counter(t, 1193); /* which stands, and its output is high */
    for (unsigned n = 0; n < 400; n++) {
        test_outb(t, 0x61, n & 1 ? 0 : 2);
        device_test_advance_ns(t, 1250000); /* 400 Hz */
    }
    device_test_advance_ns(t, 1000000000);
    device_test_free(t);
    hear();
    assert_in_range(rises(0, AUDIO_HZ / 2), 198, 201);
}

/* A host that stops for a while makes no sound of what it has missed. */
static void a_late_host_leaves_sound_out(void **state)
{
    struct device_test *t = make_speaker();

    (void)state;
    set_counter(t, 1193);
    test_outb(t, 0x61, 3);
    device_test_starve_ns(t, 2000000000);
    test_outb(t, 0x61, 0);
    device_test_advance_ns(t, 1000000000);
    device_test_free(t);
    hear();
    assert_in_range(f.frames, AUDIO_HZ / 5, AUDIO_HZ / 5 + AUDIO_HZ / 15);
}

static void a_reset_is_silent(void **state)
{
    struct device_test *t = make_speaker();

    (void)state;
    set_counter(t, 1193);
    test_outb(t, 0x61, 3);
    device_test_advance_ns(t, 10000000);
    device_test_reset(t);
    device_test_advance_ns(t, 1000000000);
    device_test_free(t);
    hear();
    assert_in_range(f.frames, AUDIO_HZ / 100 - 48, AUDIO_HZ / 100 + 48);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_voice_is_written_as_it_is),
        TEST(voices_are_added_and_clipped),
        TEST(rates_are_changed),
        TEST(silence_between_sounds_is_short),
        TEST(a_voice_that_stands_still_holds_nobody_up),
        TEST(a_full_disk_is_no_end),
        TEST(backends_that_are_none_are_named),
        TEST(the_speaker_beeps),
        TEST(the_speaker_follows_its_bit),
        TEST(a_late_host_leaves_sound_out),
        TEST(a_reset_is_silent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
