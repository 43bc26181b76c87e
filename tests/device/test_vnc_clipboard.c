/*
 * test_vnc_clipboard.c - what viewers of VNC and others copy, and sizes that viewers wish
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trapeze/machine.h"
#include "vnc_rig.h"

#define EXTENDED_SIZE -308
#define CLIPBOARD     ((int32_t)0xc0a1e5ceu)
#define TEXT          0x1u
#define REQUEST       0x2000000u
#define NOTIFY        0x8000000u
#define PROVIDE       0x10000000u

/* ---- a peer that is no viewer ---- */

static char heard[64];
static unsigned times;

static void on_changed(void *opaque)
{
    size_t size;
    const char *text = clipboard_text(machine_clipboard(t->machine), &size);

    (void)opaque;
    times++;
    assert_true(size < sizeof(heard));
    memcpy(heard, text, size + 1);
}

static const struct clipboard_ops peer_ops = {.changed = on_changed};
static struct clipboard_peer peer = {.ops = &peer_ops};

static int join(void **state)
{
    int result = set_up(state);

    heard[0] = '\0';
    times = 0;
    clipboard_join(machine_clipboard(t->machine), &peer);
    return result;
}

static void copy(const char *text)
{
    machine_lock(t->machine);
    assert_int_equal(clipboard_copy(machine_clipboard(t->machine), &peer, text, strlen(text)), 0);
    machine_unlock(t->machine);
    let_run();
}

/* ---- the viewer's messages ---- */

static void say_text(int32_t length, const void *bytes, size_t size)
{
    uint8_t head[8] = {6};

    put_be32(head + 4, (uint32_t)length);
    say(head, sizeof(head));
    if (size)
        say(bytes, size);
}

static void say_action(uint32_t action)
{
    uint8_t bytes[4];

    put_be32(bytes, action | TEXT);
    say_text(-4, bytes, sizeof(bytes));
}

static void expect_action(uint32_t action)
{
    uint8_t head[12];

    hear(head, sizeof(head));
    assert_int_equal(head[0], 3);
    assert_int_equal((int32_t)get_be32(head + 4), -4);
    assert_int_equal(get_be32(head + 8), action | TEXT);
}

static void say_provide(const char *text, uint32_t length)
{
    uint8_t plain[64], packed[128];
    uLongf size = sizeof(packed) - 4;

    put_be32(plain, length);
    memcpy(plain + 4, text, strlen(text) + 1);
    put_be32(packed, PROVIDE | TEXT);
    assert_int_equal(compress(packed + 4, &size, plain, 4 + strlen(text) + 1), Z_OK);
    say_text(-(int32_t)(size + 4), packed, size + 4);
}

static void expect_provided(const char *text)
{
    uint8_t head[12], packed[128], plain[128];
    uLongf size = sizeof(plain);
    uint32_t length;

    hear(head, sizeof(head));
    assert_int_equal(get_be32(head + 8), PROVIDE | TEXT);
    length = 0u - get_be32(head + 4) - 4;
    assert_true(length <= sizeof(packed));
    hear(packed, length);
    assert_int_equal(uncompress(plain, &size, packed, length), Z_OK);
    assert_int_equal(get_be32(plain), strlen(text) + 1);
    assert_int_equal(size, 4 + strlen(text) + 1);
    assert_string_equal((char *)plain + 4, text);
}

static void come_in_extended(void)
{
    uint8_t caps[16];

    come_in();
    encodings(VNC_RAW, CLIPBOARD);
    hear(caps, sizeof(caps));
    assert_int_equal((int32_t)get_be32(caps + 4), -8);
    assert_int_equal(get_be32(caps + 8), 0x1f000001);
    assert_int_equal(get_be32(caps + 12), CLIPBOARD_MAX);
}

/* ---- Latin-1 ---- */

static void a_viewer_copies(void **state)
{
    (void)state;
    come_in();
    say_text(8,
             "gr\xfc\xdf"
             "e\n.!",
             8);
    assert_string_equal(heard, "gr\xc3\xbc\xc3\x9f"
                               "e\n.!");
    say_text(0, NULL, 0);
    say_text(1, "x", 1);
    assert_string_equal(heard, "x");
}

static void a_viewer_is_told_what_others_copy(void **state)
{
    (void)state;
    come_in();
    copy("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80.\xc3");
    expect("\3\0\0\0\0\0\0\7\xe4 ? ?.?", 15);
    assert_int_equal(times, 0); /* of its own */
}

static void viewers_share_a_clipboard(void **state)
{
    int first;

    (void)state;
    come_in();
    first = fd;
    fd = connect_viewer();
    expect("RFB 003.008\n", 12);
    say("RFB 003.008\n", 12);
    choose_none();
    say_text(5, "hello", 5);
    close(fd);
    fd = first;
    expect("\3\0\0\0\0\0\0\5hello", 13);
    copy("later"); /* nobody writes to the one that has gone */
    expect("\3\0\0\0\0\0\0\5later", 13);
}

static void what_is_too_long_is_passed_by(void **state)
{
    size_t size = CLIPBOARD_MAX + 2000;
    char *text = calloc(1, size);

    (void)state;
    assert_non_null(text);
    come_in();
    say_text((int32_t)size, NULL, 0);
    for (size_t at = 0; at < size; at += 1000)
        say(text + at, size - at < 1000 ? size - at : 1000);
    free(text);
    assert_int_equal(times, 0);
    say_text(2, "ok", 2);
    assert_string_equal(heard, "ok");
    assert_int_equal(clipboard_copy(machine_clipboard(t->machine), &peer, heard, CLIPBOARD_MAX + 1),
                     -E2BIG);
}

/* ---- the extension ---- */

static void the_extension_asks_for_what_is_new(void **state)
{
    (void)state;
    come_in_extended();
    copy("\xe2\x82\xac\nx");
    expect_action(NOTIFY);
    say_action(REQUEST);
    expect_provided("\xe2\x82\xac\r\nx");
    say_action(NOTIFY);
    expect_action(REQUEST);
    say_provide("a\r\nb\rc", 7);
    assert_string_equal(heard, "a\nb\rc");
}

static void what_cannot_be_unpacked_is_nothing(void **state)
{
    (void)state;
    come_in_extended();
    say_provide("abc", 5); /* more than there is */
    say_provide("abc", 0);
    say_provide("abc", 0xffffffff);
    say_text(-8, "\x10\0\0\1junk", 8);
    say_text(-2, "\x10\0", 2);
    assert_int_equal(times, 0);
    say_provide("abc", 4);
    assert_string_equal(heard, "abc");
}

/* ---- sizes ---- */

static void ask_for_size(uint16_t new_width, uint16_t new_height)
{
    uint8_t message[24] = {251, [6] = 1};

    put_be16(message + 2, new_width);
    put_be16(message + 4, new_height);
    put_be16(message + 16, new_width);
    put_be16(message + 18, new_height);
    say(message, sizeof(message));
}

/* A rectangle of ExtendedDesktopSize with one screen. */
static void expect_size(unsigned who, unsigned status, uint32_t new_width, uint32_t new_height)
{
    uint8_t rect[12 + 20];

    hear(rect, sizeof(rect));
    assert_int_equal(get_be16(rect), who);
    assert_int_equal(get_be16(rect + 2), status);
    assert_int_equal(get_be16(rect + 4), new_width);
    assert_int_equal(get_be16(rect + 6), new_height);
    assert_int_equal((int32_t)get_be32(rect + 8), EXTENDED_SIZE);
    assert_int_equal(rect[12], 1);
    assert_int_equal(get_be16(rect + 24), new_width);
    assert_int_equal(get_be16(rect + 26), new_height);
}

static void expect_head(unsigned count)
{
    uint8_t head[4];

    hear(head, sizeof(head));
    assert_int_equal(head[0], 0);
    assert_int_equal(get_be16(head + 2), count);
}

/* What is on the screen, in Raw. */
static void pass_pixels(void)
{
    static uint8_t pixels[12 + WIDTH * HEIGHT * 4];

    hear(pixels, 12 + 4 * (size_t)width * height);
    assert_int_equal(get_be32(pixels + 8), VNC_RAW);
}

static void a_viewer_wishes_a_size(void **state)
{
    (void)state;
    screen.source = &free_card_ops;
    come_in();
    encodings(VNC_RAW, EXTENDED_SIZE);
    request(false);
    expect_head(2);
    expect_size(0, 0, WIDTH, HEIGHT);
    pass_pixels();
    request(true);
    ask_for_size(60, 20);
    expect_head(1);
    expect_size(1, 4, WIDTH, HEIGHT);
    assert_int_equal(wished_width, 60);
    assert_int_equal(wished_height, 20);
    width = 60; /* the guest agrees */
    height = 20;
    is_dirty = true;
    request(true);
    expect_head(1);
    expect_size(0, 0, 60, 20);
    request(false);
    expect_head(1);
    pass_pixels();
}

static void a_card_without_wishes_prohibits_them(void **state)
{
    (void)state;
    come_in();
    encodings(VNC_RAW, EXTENDED_SIZE);
    ask_for_size(60, 20);
    request(false);
    expect_head(3);
    expect_size(0, 0, WIDTH, HEIGHT);
    expect_size(1, 1, WIDTH, HEIGHT);
    pass_pixels();
}

#define TEST_JOINED(name) cmocka_unit_test_setup_teardown(name, join, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_JOINED(a_viewer_copies),
        TEST_JOINED(a_viewer_is_told_what_others_copy),
        TEST_JOINED(viewers_share_a_clipboard),
        TEST_JOINED(what_is_too_long_is_passed_by),
        TEST_JOINED(the_extension_asks_for_what_is_new),
        TEST_JOINED(what_cannot_be_unpacked_is_nothing),
        TEST(a_viewer_wishes_a_size),
        TEST(a_card_without_wishes_prohibits_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
