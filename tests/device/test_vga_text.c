/*
 * test_vga_text.c - text modes
 */
#include "vga_rig.h"

/* ---- text ---- */

static uint32_t text_colour(unsigned n)
{
    return colour(text_80x25.attr[n]);
}

static uint32_t text_expected(uint32_t x, uint32_t y)
{
    unsigned n = y / 16 * 80 + x / 9, dot = x % 9;
    uint8_t code = (uint8_t)(n * 7), attr = n * 5 & 0x77, bits = glyph(code, y % 16);
    bool lit = dot < 8 ? bits >> (7 - dot) & 1 : code >= 0xc0 && code < 0xe0 && (bits & 1);

    return text_colour(lit ? attr & 0xf : attr >> 4);
}

static void text_is_drawn_from_the_font(void **state)
{
    (void)state;
    start_text();
    expect_size(720, 400);
    expect_picture(text_expected);
}

static uint32_t eight_dots_expected(uint32_t x, uint32_t y)
{
    unsigned n = y / 16 * 80 + x / 8;
    uint8_t attr = n * 5 & 0x77, bits = glyph((uint8_t)(n * 7), y % 16);

    return text_colour(bits >> (7 - x % 8) & 1 ? attr & 0xf : attr >> 4);
}

static void characters_may_have_eight_dots(void **state)
{
    (void)state;
    start_text();
    sequencer(1, 1);
    attribute(0x13, 0);
    expect_size(640, 400);
    expect_picture(eight_dots_expected);
}

static uint32_t scrolled_expected(uint32_t x, uint32_t y)
{
    return text_expected(x + 3, y + 5);
}

static void text_scrolls_smoothly(void **state)
{
    (void)state;
    start_text();
    for (unsigned n = 80 * 25; n < 80 * 27; n++) /* what comes into sight */
        put_char(n % 80, n / 80, (uint8_t)(n * 7), (uint8_t)(n * 5 & 0x77));
    crtc(0x08, 5);
    attribute(0x13, 2);
    look();
    for (uint32_t y = 0; y < 395; y++)
        for (uint32_t x = 0; x < 717; x++)
            if (pixel(x, y) != scrolled_expected(x, y))
                fail_msg("pixel %u, %u", x, y);
}

static void bit_3_chooses_the_second_font(void **state)
{
    (void)state;
    start_text();
    load_font(0x4000, 0xff); /* all inverted */
    put_char(0, 0, 'A', 0x0f);
    put_char(1, 0, 'A', 0x07);
    sequencer(3, 0x04); /* map A is 1, map B 0 */
    look();
    for (unsigned row = 0; row < 16; row++) {
        bool lit = glyph('A', row) & 0x80;

        assert_int_equal(pixel(0, row), text_colour(lit ? 0 : 15));
        assert_int_equal(pixel(9, row), text_colour(lit ? 7 : 0));
    }
}

static bool cursor_is_seen(void)
{
    look();
    return pixel(9 * 3, 16 * 2 + 13) == text_colour(7) &&
           pixel(9 * 3 + 8, 16 * 2 + 14) == text_colour(7) &&
           pixel(9 * 3, 16 * 2 + 12) == text_colour(0);
}

static void the_cursor_blinks(void **state)
{
    unsigned seen = 0, changes = 0;
    bool was;

    (void)state;
    start_text();
    for (unsigned column = 2; column < 5; column++)
        put_char(column, 2, 0, 0x07);
    load_font(0, 0);
    sequencer(2, 4);
    sequencer(4, 7);
    graphics(5, 0);
    graphics(6, 4);
    for (unsigned row = 0; row < 16; row++)
        poke(row, 0); /* character 0 is empty */
    sequencer(2, 3);
    sequencer(4, 2);
    graphics(5, 0x10);
    graphics(6, 0x0e);
    crtc(0x0a, 0x0d);
    crtc(0x0b, 0x0e);
    crtc(0x0e, (2 * 80 + 3) >> 8);
    crtc(0x0f, (2 * 80 + 3) & 0xff);
    was = cursor_is_seen();
    f.changes = 0;
    for (unsigned n = 0; n < 64; n++) {
        device_test_advance_ns(f.t, 14268600); /* a frame of 449 lines */
        seen += cursor_is_seen();
        changes += cursor_is_seen() != was;
        was = cursor_is_seen();
    }
    assert_in_range(seen, 31, 33);
    assert_in_range(changes, 7, 8);
    assert_int_equal(f.changes, changes); /* nothing was drawn in between */
    assert_int_equal(f.rect.x, 27);
    assert_int_equal(f.rect.width, 9);
    assert_int_equal(f.rect.height, 2);
}

static void characters_blink(void **state)
{
    unsigned seen = 0;

    (void)state;
    start_text();
    put_char(0, 0, 1, 0x97);
    for (unsigned n = 0; n < 64; n++) {
        device_test_advance_ns(f.t, 14268600);
        look();
        assert_true(pixel(3, 0) == text_colour(7) || pixel(3, 0) == text_colour(1));
        seen += pixel(3, 0) == text_colour(7); /* 29 is 00011101b */
    }
    assert_in_range(seen, 31, 33);
    attribute(0x10, 0x04); /* no: a bright background */
    look();
    assert_int_equal(pixel(0, 0), text_colour(9));
}

static void text_can_be_read(void **state)
{
    struct screen_text text;

    (void)state;
    start_text();
    put_char(4, 24, 'Z', 0x8e);
    crtc(0x0a, 0x0d);
    crtc(0x0e, (24 * 80 + 5) >> 8);
    crtc(0x0f, (24 * 80 + 5) & 0xff);
    assert_true(screen_text(f.screen, &text));
    assert_int_equal(text.columns, 80);
    assert_int_equal(text.rows, 25);
    assert_int_equal(text.cells[81].code, (81 * 7) & 0xff);
    assert_int_equal(text.cells[24 * 80 + 4].code, 'Z');
    assert_int_equal(text.cells[24 * 80 + 4].foreground, 14);
    assert_int_equal(text.cells[24 * 80 + 4].background, 0);
    assert_int_equal(text.cells[24 * 80 + 4].flags, SCREEN_TEXT_BLINK);
    assert_int_equal(text.colours[14], text_colour(14));
    assert_true(text.has_cursor);
    assert_int_equal(text.cursor_column, 5);
    assert_int_equal(text.cursor_row, 24);
    screen_text_done(&text);
    set_mode(&mode_13h);
    assert_false(screen_text(f.screen, &text));
}

static void fonts_have_several_heights(void **state)
{
    struct screen_text text;

    (void)state;
    start_text();
    crtc(0x11, 0x0e); /* unlocked */
    crtc(0x09, 0x47); /* 8 lines: 50 rows */
    assert_true(screen_text(f.screen, &text));
    assert_int_equal(text.rows, 50);
    screen_text_done(&text);
    look();
    assert_int_equal(
        pixel(0, 8),
        text_colour(glyph((uint8_t)(80 * 7), 0) & 0x80 ? (80 * 5) & 7 : (80 * 5) >> 4 & 7));
    sequencer(1, 8); /* half the clock: dots are doubled */
    crtc(0x01, 39);
    expect_size(720, 400);
    assert_int_equal(pixel(0, 0), pixel(1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(text_is_drawn_from_the_font),
        TEST(characters_may_have_eight_dots),
        TEST(text_scrolls_smoothly),
        TEST(bit_3_chooses_the_second_font),
        TEST(the_cursor_blinks),
        TEST(characters_blink),
        TEST(text_can_be_read),
        TEST(fonts_have_several_heights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
