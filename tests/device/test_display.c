/*
 * test_display.c - screens with several viewers, pictures of them, and where input goes
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/bytes.h"
#include "cmocka_all.h"
#include "device_test.h"
#include "trapeze/display.h"
#include "trapeze/input.h"

/* ---- screens ---- */

/* A card that fills its screen with one colour. */
struct card {
    struct screen screen;
    uint32_t width, height, colour;
    bool is_dirty;
    unsigned watches, refreshes;
};

static void card_watched(void *opaque, bool on)
{
    struct card *card = opaque;

    card->watches += on;
    card->is_dirty = on;
}

static void card_refresh(void *opaque)
{
    struct card *card = opaque;
    struct screen_rect all = {0, 0, card->width, card->height};

    card->refreshes++;
    if (!card->is_dirty || screen_set_size(&card->screen, card->width, card->height))
        return;
    card->is_dirty = false;
    for (uint32_t y = 0; y < card->height; y++)
        for (uint32_t x = 0; x < card->width; x++)
            screen_row(&card->screen, y)[x] = card->colour;
    screen_changed(&card->screen, &all);
}

static const struct screen_source_ops card_ops = {.watched = card_watched, .refresh = card_refresh};

struct viewer {
    struct screen_viewer viewer;
    struct screen_surface surface;
    struct screen_rect rect;
    uint32_t pixel; /* the last of the rectangle that changed */
    unsigned resizes, changes, removals;
    uint32_t cursor_width;
    int32_t cursor_x;
};

static void saw_size(void *opaque, const struct screen_surface *surface)
{
    struct viewer *v = opaque;

    v->surface = *surface;
    v->resizes++;
}

static void saw_change(void *opaque, const struct screen_rect *rect)
{
    struct viewer *v = opaque;

    v->rect = *rect;
    v->pixel =
        v->surface
            .pixels[(rect->y + rect->height - 1) * v->surface.stride + rect->x + rect->width - 1];
    v->changes++;
}

static void saw_cursor(void *opaque, const struct screen_cursor *cursor)
{
    ((struct viewer *)opaque)->cursor_width = cursor->width;
}

static void saw_cursor_move(void *opaque, int32_t x, int32_t y)
{
    (void)y;
    ((struct viewer *)opaque)->cursor_x = x;
}

static void saw_end(void *opaque)
{
    ((struct viewer *)opaque)->removals++;
}

static const struct screen_viewer_ops viewer_ops = {.resized = saw_size,
                                                    .changed = saw_change,
                                                    .cursor_changed = saw_cursor,
                                                    .cursor_moved = saw_cursor_move,
                                                    .removed = saw_end};

static struct device_test *t;
static struct card card;
static struct viewer a, b;

static int set_up(void **state)
{
    (void)state;
    t = device_test_new(0);
    card = (struct card){.width = 4, .height = 3, .colour = 0x123456};
    a = (struct viewer){.viewer = {.ops = &viewer_ops, .opaque = &a}};
    b = (struct viewer){.viewer = {.ops = &viewer_ops, .opaque = &b}};
    screen_init(&card.screen, t->machine, "card", &card_ops, &card);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    screen_done(&card.screen);
    device_test_free(t);
    return 0;
}

static void attach(struct viewer *v)
{
    assert_int_equal(screen_attach(&card.screen, &v->viewer, NULL), 0);
}

static void nothing_is_drawn_while_nobody_looks(void **state)
{
    (void)state;
    assert_ptr_equal(display_screen(machine_display(t->machine), 0), &card.screen);
    assert_null(display_screen(machine_display(t->machine), 1));
    screen_refresh(&card.screen);
    assert_int_equal(card.refreshes, 0);
    assert_null(screen_surface(&card.screen));
    attach(&a);
    assert_int_equal(card.watches, 1);
    assert_int_equal(a.surface.width, 4);
    assert_int_equal(a.surface.pixels[11], 0x123456);
    screen_detach(&card.screen, &a.viewer);
    screen_detach(&card.screen, &a.viewer);
    assert_null(screen_surface(&card.screen));
}

static void each_viewer_hears_of_every_change(void **state)
{
    (void)state;
    attach(&a);
    card.colour = 0xff;
    card.is_dirty = true;
    attach(&b); /* this one sees it at once */
    assert_int_equal(a.changes, 1);
    assert_int_equal(a.pixel, 0xff);
    assert_int_equal(b.changes, 0);
    assert_int_equal(b.surface.pixels[0], 0xff);
    card.colour = 0xee;
    card.is_dirty = true;
    screen_refresh(&card.screen);
    screen_refresh(&card.screen);
    assert_int_equal(a.changes, 2);
    assert_int_equal(b.changes, 1);
    assert_int_equal(b.pixel, 0xee);
    assert_int_equal(card.watches, 1);
}

static void another_size_is_another_generation(void **state)
{
    uint64_t generation;

    (void)state;
    attach(&a);
    generation = a.surface.generation;
    card.width = 640;
    card.height = 480;
    card.is_dirty = true;
    screen_refresh(&card.screen);
    assert_int_equal(a.resizes, 2);
    assert_int_not_equal(a.surface.generation, generation);
    assert_int_equal(a.rect.height, 480);
    assert_int_equal(screen_set_size(&card.screen, 0, 5), -EINVAL);
    assert_int_equal(screen_set_size(&card.screen, SCREEN_MAX_SIZE, SCREEN_MAX_SIZE), -EINVAL);
    assert_int_equal(screen_surface(&card.screen)->width, 640);
}

static void cursors_reach_old_and_new_viewers(void **state)
{
    static const struct screen_cursor arrow = {.width = 16, .height = 16};

    (void)state;
    attach(&a);
    screen_define_cursor(&card.screen, &arrow);
    screen_move_cursor(&card.screen, -3, 5);
    assert_int_equal(a.cursor_width, 16);
    assert_int_equal(a.cursor_x, -3);
    attach(&b);
    assert_int_equal(b.cursor_width, 16);
    assert_int_equal(b.cursor_x, -3);
    screen_define_cursor(&card.screen, NULL);
    assert_int_equal(b.cursor_width, 0);
}

static void viewers_survive_their_screen(void **state)
{
    (void)state;
    attach(&a);
    attach(&b);
    screen_done(&card.screen);
    assert_int_equal(a.removals, 1);
    assert_int_equal(b.removals, 1);
    assert_null(display_screen(machine_display(t->machine), 0));
}

static void a_picture_is_a_png_file(void **state)
{
    uint8_t *png, rows[3 * (1 + 4 * 3)];
    uLongf size = sizeof(rows);
    size_t png_size;
    uint32_t packed;

    (void)state;
    assert_int_equal(screen_png(&card.screen, &png, &png_size, NULL), 0);
    assert_memory_equal(png, "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\4\0\0\0\3\x08\2\0\0\0", 29);
    assert_int_equal(get_be32(png + 29), crc32(0, png + 12, 17));
    packed = get_be32(png + 33);
    assert_memory_equal(png + 37, "IDAT", 4);
    assert_int_equal(uncompress(rows, &size, png + 41, packed), Z_OK);
    assert_int_equal(size, sizeof(rows));
    for (unsigned n = 0; n < sizeof(rows); n++)
        assert_int_equal(rows[n], n % 13 == 0 ? 0 : "\x12\x34\x56"[(n % 13 - 1) % 3]);
    assert_int_equal(get_be32(png + 41 + packed), crc32(0, png + 37, 4 + packed));
    assert_memory_equal(png + 45 + packed, "\0\0\0\0IEND\xae\x42\x60\x82", 12);
    assert_int_equal(png_size, 57 + packed);
    free(png);
    assert_null(screen_surface(&card.screen));
}

static void codes_of_cells_are_of_code_page_437(void **state)
{
    (void)state;
    assert_int_equal(screen_code_to_unicode('A'), 'A');
    assert_int_equal(screen_code_to_unicode(0), ' ');
    assert_int_equal(screen_code_to_unicode(0x10), 0x25ba);
    assert_int_equal(screen_code_to_unicode(0xc4), 0x2500);
    assert_int_equal(screen_code_to_unicode(0xdb), 0x2588);
    assert_int_equal(screen_code_to_unicode(0xe1), 0x00df);
    assert_int_equal(screen_code_to_unicode(0xff), 0x00a0);
    assert_int_equal(screen_code_to_unicode(0x141), 'A');
}

/* ---- input ---- */

struct receiver {
    struct input_device device;
    bool is_listening;
    unsigned keys_down, buttons;
    int32_t x, y, wheel;
};

static bool receiver_listens(void *opaque)
{
    return ((struct receiver *)opaque)->is_listening;
}

static void receive_key(void *opaque, uint8_t usage, bool pressed)
{
    (void)usage;
    ((struct receiver *)opaque)->keys_down += pressed ? 1u : -1u;
}

static unsigned receiver_leds(void *opaque)
{
    (void)opaque;
    return INPUT_LED_CAPS;
}

static void receive_movement(void *opaque, int32_t right, int32_t down)
{
    ((struct receiver *)opaque)->x += right;
    ((struct receiver *)opaque)->y += down;
}

static void receive_place(void *opaque, uint32_t x, uint32_t y)
{
    ((struct receiver *)opaque)->x = (int32_t)x;
    ((struct receiver *)opaque)->y = (int32_t)y;
}

static void receive_buttons(void *opaque, unsigned buttons)
{
    ((struct receiver *)opaque)->buttons = buttons;
}

static void receive_wheel(void *opaque, int32_t up, int32_t right)
{
    (void)right;
    ((struct receiver *)opaque)->wheel += up;
}

static const struct input_device_ops keyboard_ops = {
    .is_listening = receiver_listens, .key = receive_key, .leds = receiver_leds};
static const struct input_device_ops mouse_ops = {.is_listening = receiver_listens,
                                                  .moved = receive_movement,
                                                  .buttons = receive_buttons,
                                                  .wheel = receive_wheel};
static const struct input_device_ops tablet_ops = {
    .is_listening = receiver_listens, .at = receive_place, .buttons = receive_buttons};

static struct receiver receiver(const struct input_device_ops *ops)
{
    return (struct receiver){.device = {.ops = ops}};
}

static void add(struct receiver *r)
{
    r->device.opaque = r;
    input_add(machine_input(t->machine), &r->device);
}

static void keys_go_to_the_keyboard_that_is_listened_to(void **state)
{
    struct input *input = machine_input(t->machine);
    struct receiver old = receiver(&keyboard_ops), new = receiver(&keyboard_ops);

    (void)state;
    input_key(input, 4, true);
    assert_int_equal(input_leds(input), 0);
    add(&old);
    add(&new);
    input_key(input, 4, true);
    assert_int_equal(old.keys_down, 1); /* nobody listens: the first */
    assert_int_equal(input_leds(input), INPUT_LED_CAPS);
    new.is_listening = true;
    input_key(input, 5, true);
    assert_int_equal(old.keys_down, 0);
    assert_int_equal(new.keys_down, 1);
    input_key(input, 6, true);
    input_release(input);
    assert_int_equal(new.keys_down, 0);
    input_key(input, 6, true);
    input_remove(input, &new.device);
    input_key(input, 7, true);
    assert_int_equal(old.keys_down, 1);
    assert_int_equal(new.keys_down, 1);
    input_remove(input, &old.device);
}

static void a_place_is_movement_for_a_mouse(void **state)
{
    struct input *input = machine_input(t->machine);
    struct receiver mouse = receiver(&mouse_ops), tablet = receiver(&tablet_ops);

    (void)state;
    add(&mouse);
    add(&tablet);
    mouse.is_listening = true;
    assert_false(input_has_absolute(input));
    input_pointer_at(input, 100, 50, 640, 480);
    input_pointer_at(input, 110, 45, 640, 480);
    assert_int_equal(mouse.x, 10);
    assert_int_equal(mouse.y, -5);
    input_pointer_at(input, 10, 10, 800, 600); /* another picture: no movement */
    input_pointer_moved(input, 1, 1);
    assert_int_equal(mouse.x, 11);
    input_buttons(input, INPUT_BUTTON_LEFT);
    assert_int_equal(mouse.buttons, INPUT_BUTTON_LEFT);
    input_wheel(input, 2, 0);
    assert_int_equal(mouse.wheel, 2);
    tablet.is_listening = true;
    assert_true(input_has_absolute(input));
    input_pointer_at(input, 799, 0, 800, 600);
    assert_int_equal(mouse.buttons, 0);
    assert_int_equal(tablet.x, INPUT_ABSOLUTE_MAX);
    assert_int_equal(tablet.y, 0);
    input_pointer_at(input, 5000, 300, 800, 600);
    assert_int_equal(tablet.x, INPUT_ABSOLUTE_MAX);
    assert_int_equal(tablet.y, 300u * INPUT_ABSOLUTE_MAX / 599);
    input_pointer_moved(input, 1, 1);
    input_wheel(input, 1, 0);
    input_buttons(input, INPUT_BUTTON_RIGHT);
    assert_int_equal(tablet.buttons, INPUT_BUTTON_RIGHT);
    assert_int_equal(mouse.x, 11);
    input_remove(input, &tablet.device);
    input_remove(input, &mouse.device);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_drawn_while_nobody_looks),
        TEST(each_viewer_hears_of_every_change),
        TEST(another_size_is_another_generation),
        TEST(cursors_reach_old_and_new_viewers),
        TEST(viewers_survive_their_screen),
        TEST(a_picture_is_a_png_file),
        TEST(codes_of_cells_are_of_code_page_437),
        TEST(keys_go_to_the_keyboard_that_is_listened_to),
        TEST(a_place_is_movement_for_a_mouse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
