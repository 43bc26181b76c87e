/*
 * test_vnc.c - what a viewer of VNC says and hears, over a pair of sockets
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/display/layout.h"
#include "trapeze/input.h"
#include "vnc_rig.h"

/* ---- pictures ---- */

static void an_update_has_all_then_what_changed(void **state)
{
    static uint8_t pixels[WIDTH * HEIGHT * 4];
    uint8_t head[16];

    (void)state;
    assert_false(is_watched);
    come_in();
    assert_true(is_watched);
    request(false);
    hear(head, sizeof(head));
    assert_int_equal(get_be16(head + 2), 1);
    assert_int_equal(get_be16(head + 8), WIDTH);
    assert_int_equal(get_be16(head + 10), HEIGHT);
    hear(pixels, sizeof(pixels));
    for (uint32_t n = 0; n < WIDTH * HEIGHT; n++)
        assert_int_equal(get_le32(pixels + 4 * n), colour + n % WIDTH % 3 + n / WIDTH);
    request(true);
    for (unsigned n = 0; n < 60; n++)
        loop_once(t->loop, 1000000);
    assert_int_equal(recv(fd, head, 1, MSG_DONTWAIT), -1); /* nothing changed */
    colour = 0x40;
    is_dirty = true;
    hear(head, sizeof(head));
    hear(pixels, sizeof(pixels));
    assert_int_equal(get_le32(pixels), 0x40);
}

static void zrle_unpacks_to_the_picture(void **state)
{
    static uint8_t packed[65536], plain[65536];
    const uint8_t *at = plain;
    uint8_t head[20];
    z_stream zlib = {.next_out = plain, .avail_out = sizeof(plain)};

    (void)state;
    come_in();
    encodings(VNC_ZRLE, VNC_RAW);
    request(false);
    hear(head, sizeof(head));
    assert_int_equal(get_be32(head + 12), VNC_ZRLE);
    hear(packed, get_be32(head + 16));
    inflateInit(&zlib);
    zlib.next_in = packed;
    zlib.avail_in = get_be32(head + 16);
    inflate(&zlib, Z_SYNC_FLUSH);
    inflateEnd(&zlib);
    /* tiles of 64 and 36 pixels, of more than 16 colours each */
    for (unsigned left = 0; left < WIDTH; left += 64) {
        unsigned columns = WIDTH - left < 64 ? WIDTH - left : 64;

        assert_int_equal(*at++, 0);
        for (unsigned n = 0; n < columns * HEIGHT; n++, at += 3)
            assert_int_equal(at[0] | at[1] << 8 | at[2] << 16,
                             colour + (left + n % columns) % 3 + n / columns);
    }
    assert_ptr_equal(at, zlib.next_out);
}

/* ---- Tight ---- */

static uint8_t hear_byte(void)
{
    uint8_t byte;

    hear(&byte, 1);
    return byte;
}

/* What a stream's next bytes unpack to. */
static void unpack(z_stream *zlib, uint8_t *out, size_t size)
{
    static uint8_t packed[65536];
    size_t length = hear_byte();

    if (length & 0x80)
        length = (length & 0x7f) | (size_t)hear_byte() << 7;
    if (length & 0x4000)
        length = (length & 0x3fff) | (size_t)hear_byte() << 14;
    hear(packed, length);
    if (!zlib->state)
        inflateInit(zlib);
    zlib->next_in = packed;
    zlib->avail_in = (unsigned)length;
    zlib->next_out = out;
    zlib->avail_out = (unsigned)size;
    inflate(zlib, Z_SYNC_FLUSH);
    assert_int_equal(zlib->avail_out, 0);
    assert_int_equal(zlib->avail_in, 0);
}

static uint32_t rgb(const uint8_t *bytes)
{
    return (uint32_t)(bytes[0] << 16 | bytes[1] << 8 | bytes[2]);
}

/* A rectangle of the whole screen, whose first byte was heard. */
static void expect_tight(z_stream streams[4], uint8_t control)
{
    static uint8_t bytes[WIDTH * HEIGHT * 3];
    uint8_t palette[3 * 256], colours = 0;
    size_t stride = (WIDTH + 7) / 8;

    if (control == 0x80) {
        hear(palette, 3);
    } else if (control & 0x40) {
        assert_int_equal(hear_byte(), 1);
        colours = (uint8_t)(hear_byte() + 1);
        hear(palette, 3u * colours);
        unpack(&streams[control >> 4 & 3], bytes, colours == 2 ? stride * HEIGHT : WIDTH * HEIGHT);
    } else {
        unpack(&streams[control >> 4], bytes, WIDTH * HEIGHT * 3);
    }
    for (uint32_t y = 0; y < HEIGHT; y++)
        for (uint32_t x = 0; x < WIDTH; x++) {
            const uint8_t *at = palette;

            if (control == 0)
                at = bytes + 3 * (y * WIDTH + x);
            else if (colours == 2)
                at += 3 * (bytes[y * stride + x / 8] >> (7 - x % 8) & 1);
            else if (colours)
                at += 3 * bytes[y * WIDTH + x];
            assert_int_equal(rgb(at), picture(x, y));
        }
}

static void tight_unpacks_to_the_picture(void **state)
{
    static const struct {
        uint32_t (*picture)(uint32_t x, uint32_t y);
        uint8_t control;
    } kinds[] = {{few_colours, 0x60}, {one_colour, 0x80}, {two_colours, 0x50}, {many_colours, 0},
                 {few_colours, 0x60}, {many_colours, 0},  {two_colours, 0x50}};
    z_stream streams[4] = {0};
    uint8_t head[16];

    (void)state;
    come_in();
    encodings(VNC_TIGHT, VNC_ZRLE);
    for (unsigned n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++) {
        if (n == 5)
            encodings(VNC_TIGHT, -247); /* another level of zlib */
        picture = kinds[n].picture;
        is_dirty = true;
        for (unsigned turn = 0; turn < 40; turn++) /* the screen is looked at again */
            loop_once(t->loop, 1000000);
        machine_lock(t->machine);
        screen_refresh(&screen);
        machine_unlock(t->machine);
        request(n == 0);
        hear(head, sizeof(head));
        assert_int_equal(get_be32(head + 12), VNC_TIGHT);
        assert_int_equal(hear_byte(), kinds[n].control);
        expect_tight(streams, kinds[n].control);
    }
    for (unsigned n = 0; n < 4; n++)
        inflateEnd(&streams[n]);
}

/* ---- sizes and formats ---- */

static void viewers_are_told_of_another_size(void **state)
{
    uint8_t head[16];
    static uint8_t pixels[50 * 20 * 4];

    (void)state;
    come_in();
    encodings(VNC_RAW, -223);
    width = 50;
    height = 20;
    is_dirty = true;
    request(true);
    hear(head, sizeof(head)); /* of the old size, or already the new one */
    if (get_be32(head + 12) == VNC_RAW) {
        static uint8_t old[WIDTH * HEIGHT * 4];

        hear(old, sizeof(old));
        request(true);
        hear(head, sizeof(head));
    }
    assert_int_equal((int32_t)get_be32(head + 12), -223);
    assert_int_equal(get_be16(head + 8), 50);
    assert_int_equal(get_be16(head + 10), 20);
    request(false);
    hear(head, sizeof(head));
    assert_int_equal(get_be16(head + 8), 50);
    hear(pixels, sizeof(pixels));
}

static void formats_are_checked(void **state)
{
    uint8_t text[VNC_FORMAT_BYTES];
    struct vnc_format format;
    uint8_t pixel[4];

    (void)state;
    memcpy(text, vnc_format_default, sizeof(text));
    assert_true(vnc_format_set(&format, text));
    assert_int_equal(format.compact, 3);
    text[10] = 24; /* red above, as some viewers have it */
    text[11] = 16;
    text[12] = 8;
    assert_true(vnc_format_set(&format, text));
    assert_int_equal(format.compact, 3);
    assert_int_equal(format.skip, 1);
    text[10] = 25; /* beyond the pixel */
    assert_false(vnc_format_set(&format, text));
    memset(text + 4, 0, 2); /* no red at all, which is there just as little */
    text[10] = 32;
    assert_false(vnc_format_set(&format, text));
    memcpy(text, vnc_format_default, sizeof(text));
    text[3] = 0; /* a colour map */
    assert_false(vnc_format_set(&format, text));
    text[3] = 1;
    text[0] = 24;
    assert_false(vnc_format_set(&format, text));
    memcpy(text, "\x10\x10\1\1\0\x1f\0\x3f\0\x1f\x0b\5\0\0\0\0", VNC_FORMAT_BYTES);
    assert_true(vnc_format_set(&format, text));
    vnc_put_pixel(&format, pixel, 0xff8000);
    assert_memory_equal(pixel, "\xfc\0", 2);
    open_server(&(struct vnc_config){.address = ""});
}

/* ---- keys ---- */

static void characters_come_out_on_a_us_keyboard(void **state)
{
    (void)state;
    come_in();
    key('a', true);
    key('a', false);
    assert_string_equal(typed, "+04-04");
    typed[0] = '\0'; /* a viewer whose '/' is Shift and 7 */
    key(0xffe1, true);
    key('/', true);
    key('/', false);
    key(0xffe1, false);
    assert_string_equal(typed, "+e1-e1+38+e1-38-e1");
    typed[0] = '\0'; /* one whose '?' needs no Shift */
    key('?', true);
    key('?', false);
    assert_string_equal(typed, "+e1+38-e1-38");
    typed[0] = '\0'; /* AltGr and Q */
    key(0xfe03, true);
    key('@', true);
    key('@', false);
    key(0xfe03, false);
    assert_string_equal(typed, "+e1+1f-e1-1f");
    typed[0] = '\0';
    leds = INPUT_LED_CAPS;
    key('A', true);
    key('A', false);
    assert_string_equal(typed, "+04-04");
    typed[0] = '\0'; /* a shortcut stays as it is, and a held key is pressed once */
    key(0xffe3, true);
    key('C', true);
    key('C', true);
    assert_string_equal(typed, "+e0+06");
    typed[0] = '\0'; /* who goes lets go of all */
    shutdown(fd, SHUT_RDWR);
    let_run();
    assert_string_equal(typed, "-06-e0");
    assert_false(is_watched);
}

#ifdef HAVE_XKBCOMMON
static void characters_come_out_on_the_guests_keyboard(void **state)
{
    struct key_layout *layout;

    (void)state;
    assert_int_equal(key_layout_open("de", &layout, NULL), 0);
    come_in();
    input_set_layout(machine_input(t->machine), layout);
    key('@', true);
    key('@', false);
    assert_string_equal(typed, "+e6+14-e6-14");
    typed[0] = '\0'; /* Shift, AltGr, and a key that needs neither */
    key(0xffe1, true);
    key('@', true);
    key('@', false);
    key('-', true);
    key('-', false);
    key(0xffe1, false);
    assert_string_equal(typed, "+e1-e1+e6+14-e6+e1-14-e1+38+e1-38-e1");
    typed[0] = '\0'; /* a dead key, and the one behind it is held */
    key(0xe9, true);
    assert_string_equal(typed, "+2e-2e+08");
    key(0xe9, false);
    assert_string_equal(typed, "+2e-2e+08-08");
    typed[0] = '\0'; /* a shortcut */
    key(0xffe3, true);
    key('z', true);
    assert_string_equal(typed, "+e0+1c");
    shutdown(fd, SHUT_RDWR);
    let_run();
    input_set_layout(machine_input(t->machine), NULL);
    key_layout_free(layout);
}
#endif

static void scan_codes_are_keys(void **state)
{
    uint8_t message[12] = {255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xc8};

    (void)state;
    come_in();
    say(message, sizeof(message));
    assert_string_equal(typed, "+52");
}

static void names_of_keys(void **state)
{
    uint8_t usages[KEYS_MAX_CHORD];
    struct key_stroke stroke;
    struct error err = {0};

    (void)state;
    assert_int_equal(keys_of_chord(NULL, "Ctrl-Alt-Delete", 15, usages, &err), 3);
    assert_memory_equal(usages, "\xe0\xe2\x4c", 3);
    assert_int_equal(keys_of_chord(NULL, "ctrl--", 6, usages, &err), 2);
    assert_int_equal(usages[1], 0x2d);
    assert_int_equal(keys_of_chord(NULL, "entr", 4, usages, &err), -22);
    assert_non_null(strstr(err.text, "did you mean 'enter'"));
    for (unsigned n = 0; key_name(n); n++)
        assert_int_equal(keys_of_chord(NULL, key_name(n), strlen(key_name(n)), usages, NULL), 1);
    for (unsigned c = ' '; c < 0x7f; c++)
        assert_true(key_of_character(c, &stroke));
    assert_false(key_of_character(0xe4, &stroke));
    open_server(&(struct vnc_config){.address = ""});
}

/* ---- who may look ---- */

/* A server that asks for the first line of a file with this text. */
static void open_with_password(const char *text)
{
    char path[] = "/tmp/test-vnc-XXXXXX";
    int file;

    if (!vnc_has_password_support) {
        open_server(&(struct vnc_config){.address = ""});
        skip();
    }
    file = mkstemp(path);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
    open_server(&(struct vnc_config){.address = "", .password_file = path});
    unlink(path);
    expect("\1\2", 2);
}

static void a_password_is_asked_for(void **state)
{
    uint8_t challenge[VNC_CHALLENGE], answer[VNC_CHALLENGE];
    const uint8_t none[VNC_CHALLENGE] = {0};

    (void)state;
    assert_true(vnc_password_answer((const uint8_t *)"password", none, answer) ==
                vnc_has_password_support);
    open_with_password("secret\nmore");
    say("\2", 1);
    hear(challenge, sizeof(challenge));
    vnc_password_answer((const uint8_t *)"secret\0", challenge, answer);
    say(answer, sizeof(answer));
    expect("\0\0\0\0", 4);
}

static void a_wrong_password_waits(void **state)
{
    uint8_t challenge[VNC_CHALLENGE];

    (void)state;
    open_with_password("secret\n");
    say("\2", 1);
    hear(challenge, sizeof(challenge));
    say(challenge, sizeof(challenge));
    assert_int_equal(recv(fd, challenge, 1, MSG_DONTWAIT), -1);
    expect("\0\0\0\1", 4);
    assert_true(has_hung_up());
}

/* "None" when a password is wanted, as a broken server would let pass. */
static void nobody_chooses_no_security(void **state)
{

    (void)state;
    open_with_password("secret\n");
    say("\1", 1);
    assert_true(has_hung_up());
}

static void what_is_no_message_ends_it(void **state)
{
    uint8_t text[40] = {6, 0, 0, 0, 0, 0, 0, 30};

    (void)state;
    come_in();
    say(text, 38);  /* a text for the clipboard, which nobody wants */
    key('a', true); /* and what follows is seen */
    assert_string_equal(typed, "+04");
    say("\x63", 1);
    assert_true(has_hung_up());
    assert_string_equal(typed, "+04-04");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_update_has_all_then_what_changed),
        TEST(zrle_unpacks_to_the_picture),
        TEST(tight_unpacks_to_the_picture),
        TEST(viewers_are_told_of_another_size),
        TEST(formats_are_checked),
        TEST(characters_come_out_on_a_us_keyboard),
#ifdef HAVE_XKBCOMMON
        TEST(characters_come_out_on_the_guests_keyboard),
#endif
        TEST(scan_codes_are_keys),
        TEST(names_of_keys),
        TEST(a_password_is_asked_for),
        TEST(a_wrong_password_waits),
        TEST(nobody_chooses_no_security),
        TEST(what_is_no_message_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
