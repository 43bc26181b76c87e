/*
 * test_layout.c - keys that give characters, on keyboards of other layouts
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

// clang-format off
#include <cmocka.h>
// clang-format on

#include "backends/display/layout.h"

static struct key_layout *layout;

static void use(const char *name)
{
    struct error err = {0};

    key_layout_free(layout);
    if (key_layout_open(name, &layout, &err))
        fail_msg("%s: %s", name, err.text);
}

static int tear_down(void **state)
{
    (void)state;
    key_layout_free(layout);
    layout = NULL;
    return 0;
}

/* Strokes as text: S for Shift, l and u for letters that Caps Lock changes, G for AltGr, the usage.
 */
static const char *strokes_text(const struct key_stroke *strokes, unsigned count)
{
    static const char *const shifts[] = {"", "", "S", "l", "u"};
    static char text[64];
    char *at = text;

    *at = '\0';
    for (unsigned n = 0; n < count; n++)
        at += sprintf(at, "%s%s%s%02x", n ? " " : "", shifts[strokes[n].shift],
                      strokes[n].altgr ? "G" : "", strokes[n].usage);
    return text;
}

static void expect(uint32_t character, const char *wanted)
{
    struct key_stroke strokes[KEYS_MAX_STROKES] = {0};
    unsigned count = keys_of_character(layout, character, strokes);

    assert_string_equal(strokes_text(strokes, count), wanted);
}

static void expect_keysym(uint32_t keysym, const char *wanted)
{
    struct key_stroke strokes[KEYS_MAX_STROKES] = {0};
    unsigned count = keys_of_keysym(layout, keysym, strokes);

    assert_string_equal(strokes_text(strokes, count), wanted);
}

static void expect_chord(const char *text, const char *wanted)
{
    uint8_t usages[KEYS_MAX_CHORD];
    char has[64] = "";
    int count = keys_of_chord(layout, text, strlen(text), usages, NULL);

    for (int n = 0; n < count; n++)
        sprintf(has + 2 * n, "%02x", usages[n]);
    assert_string_equal(has, wanted);
}

static void without_one_it_is_us(void **state)
{
    (void)state;
    use("us");
    assert_null(layout);
    expect('z', "l1d");
    expect('@', "S1f");
    expect(0xe4, "");
    expect_keysym(0xff0d, "28");
    expect_keysym(0x1000041, "u04");
    expect_chord("ctrl-z", "e01d");
}

#ifdef HAVE_XKBCOMMON

static void keys_have_other_places(void **state)
{
    (void)state;
    use("de");
    expect('z', "l1c");
    expect('Y', "u1d");
    expect(0xe4, "l34"); /* a with a diaeresis */
    expect(0xc4, "u34");
    expect(0xdf, "2d"); /* sharp s */
    expect('/', "S24");
    expect('?', "S2d");
    expect('<', "64");
    expect('@', "G14");
    expect('{', "G24");
    expect('\\', "G2d");
    expect(0x20ac, "G08"); /* the euro */
    expect(' ', "2c");
    expect('\n', "28");
    expect(0x430, ""); /* Cyrillic */
    expect_chord("ctrl-z", "e01c");
    expect_chord("ctrl-alt-del", "e0e24c");
    expect_chord("altgr-q", "e614");
    use("fr");
    expect('a', "l14");
    expect('1', "S1e");
    expect('&', "1e");
    expect(0xe9, "1f"); /* Linux does not take it for a letter: Shift gives 2 */
    use("ru");
    expect(0x430, "l09");
    expect_keysym(0x6c1, "l09"); /* the old number of that letter */
    expect('a', "");
    expect_chord("ctrl-c", "e006"); /* by the key's name */
}

static void dead_keys_come_first(void **state)
{
    (void)state;
    use("de");
    expect('^', "35 2c");
    expect('`', "S2e 2c");
    expect(0xe9, "2e l08");      /* e with an acute */
    expect(0xca, "35 u08");      /* E with a circumflex */
    expect_keysym(0xfe52, "35"); /* a viewer's own dead key */
    use("us:intl");
    expect('\'', "G34");
    expect('^', "SG23");     /* AltGr gives it at once */
    expect(0xf5, "S35 l12"); /* o with a tilde */
    use("de:nodeadkeys");
    expect('^', "35");
}

static void names_are_checked(void **state)
{
    static const char *const wrong[] = {"",      "xx",    "de:nonsense",
                                        "../de", "de,us", "no such layout"};

    (void)state;
    for (size_t n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
        struct key_layout *none = (void *)state;
        struct error err = {0};

        assert_int_not_equal(key_layout_open(wrong[n], &none, &err), 0);
        assert_null(none);
        assert_true(err.text[0]);
    }
}

/* Everything on a US keyboard is on these, too. */
static void nothing_is_missing(void **state)
{
    static const char *const names[] = {"gb",    "de", "ch",      "ch:fr",     "fr", "be", "es",
                                        "latam", "it", "pt",      "dk",        "no", "se", "fi",
                                        "nl",    "pl", "us:intl", "us:dvorak", "cz", "hu"};

    (void)state;
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        use(names[n]);
        for (uint32_t c = ' '; c < 0x7f; c++) {
            struct key_stroke strokes[KEYS_MAX_STROKES];

            if (!keys_of_character(layout, c, strokes))
                fail_msg("%s has no '%c'", names[n], (int)c);
        }
    }
}

#endif

#define TEST(name) cmocka_unit_test_teardown(name, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_one_it_is_us),
#ifdef HAVE_XKBCOMMON
        TEST(keys_have_other_places), TEST(dead_keys_come_first),
        TEST(names_are_checked),      TEST(nothing_is_missing),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
