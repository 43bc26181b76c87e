/*
 * test_window.c - what a window hears and says, over a pair of sockets
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/display/window.h"
#include "cmocka_all.h"
#include "device_test.h"
#include "host/host.h"
#include "trapeze/input.h"

/* ---- a card of one colour, a keyboard that remembers, and the window's end ---- */

#define WIDTH  100u
#define HEIGHT 40u

static struct device_test *t;
static struct screen screen;
static uint32_t colour;
static struct screen_rect dirty; /* width 0: nothing */
static bool is_watched;
static struct windows windows;
static int fd;
static uint8_t *memory;
static char log_text[256];

static void card_watched(void *opaque, bool on)
{
    (void)opaque;
    is_watched = on;
    dirty = (struct screen_rect){0, 0, on ? WIDTH : 0, HEIGHT};
}

static void card_refresh(void *opaque)
{
    struct screen_rect rect = dirty;

    (void)opaque;
    if (!rect.width || screen_set_size(&screen, WIDTH, HEIGHT))
        return;
    dirty.width = 0;
    for (uint32_t y = rect.y; y < rect.y + rect.height; y++)
        for (uint32_t x = rect.x; x < rect.x + rect.width; x++)
            screen_row(&screen, y)[x] = colour + x;
    screen_changed(&screen, &rect);
}

static void note(const char *text)
{
    snprintf(log_text + strlen(log_text), sizeof(log_text) - strlen(log_text), "%s ", text);
}

static void key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    char text[16];

    (void)opaque;
    snprintf(text, sizeof(text), "%c%02x", pressed ? '+' : '-', usage);
    note(text);
}

static void moved(void *opaque, int32_t right, int32_t down)
{
    char text[32];

    (void)opaque;
    snprintf(text, sizeof(text), "%d,%d", right, down);
    note(text);
}

static void buttons(void *opaque, unsigned down)
{
    (void)opaque;
    note(down ? "press" : "release");
}

static void power_off(void *opaque)
{
    (void)opaque;
    note("power");
}

static void end(void *opaque)
{
    (void)opaque;
    note("end");
}

static const struct screen_source_ops card_ops = {.watched = card_watched, .refresh = card_refresh};
static const struct input_device_ops keyboard_ops = {.key = key_arrived};
static const struct input_device_ops mouse_ops = {.moved = moved, .buttons = buttons};
static struct input_device keyboard, mouse;
static const struct window_calls calls = {.power_off = power_off, .end = end};

static void let_run(void)
{
    for (unsigned n = 0; n < 4; n++)
        loop_once(t->loop, 1000000);
}

static void say_with(uint32_t kind, uint32_t a, uint32_t b, int file)
{
    const struct window_packet packet = {.kind = kind, .values = {a, b}};

    assert_int_equal(host_send(fd, &packet, sizeof(packet), file), sizeof(packet));
    let_run();
}

static void say(uint32_t kind, uint32_t a, uint32_t b)
{
    say_with(kind, a, b, -1);
}

static void expect(uint32_t kind, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t values[] = {a, b, c, d};
    struct window_packet packet = {0};

    for (unsigned n = 0; n < 1000 && recv(fd, &packet, sizeof(packet), MSG_DONTWAIT) < 0; n++)
        loop_once(t->loop, 1000000);
    assert_int_equal(packet.kind, kind);
    assert_memory_equal(packet.values, values, sizeof(values));
}

static void expect_silence(void)
{
    struct window_packet packet;

    for (unsigned n = 0; n < 100; n++)
        loop_once(t->loop, 1000000);
    assert_true(recv(fd, &packet, sizeof(packet), MSG_DONTWAIT) < 0);
}

static void expect_pixels(uint32_t x, uint32_t y, uint32_t value)
{
    uint32_t pixel;

    memcpy(&pixel, memory + WINDOW_CURSOR_BYTES + 4 * (y * WIDTH + x), sizeof(pixel));
    assert_int_equal(pixel, value);
}

static void connect_window(void)
{
    struct error err = {0};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    fd = pair[0];
    machine_lock(t->machine);
    assert_int_equal(windows_add(&windows, pair[1], &err), 0);
    machine_unlock(t->machine);
}

static void say_hello(uint64_t size)
{
    int file = memfd_create("screen", MFD_CLOEXEC);

    assert_int_equal(ftruncate(file, (off_t)size), 0);
    if (size == WINDOW_MEMORY_BYTES)
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    say_with(WINDOW_HELLO, 0, 0, file);
    close(file);
}

static int set_up(void **state)
{
    (void)state;
    t = device_test_new(0);
    screen_init(&screen, t->machine, "card", &card_ops, NULL);
    keyboard = (struct input_device){.ops = &keyboard_ops};
    mouse = (struct input_device){.ops = &mouse_ops};
    input_add(machine_input(t->machine), &keyboard);
    input_add(machine_input(t->machine), &mouse);
    windows = (struct windows){.machine = t->machine, .calls = &calls};
    device_test_start(t);
    colour = 1000;
    log_text[0] = '\0';
    memory = NULL;
    connect_window();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    windows_done(&windows);
    assert_false(is_watched);
    screen_done(&screen);
    device_test_free(t);
    close(fd);
    if (memory)
        munmap(memory, WINDOW_MEMORY_BYTES);
    return 0;
}

/* ---- claims ---- */

static void test_a_window_is_sent_what_changed_when_it_has_time(void **state)
{
    (void)state;
    say_hello(WINDOW_MEMORY_BYTES);
    assert_true(is_watched);
    expect_silence();
    say(WINDOW_READY, 0, 0);
    expect(WINDOW_SIZE, WIDTH, HEIGHT, 0, 0);
    expect(WINDOW_STATE, WINDOW_IS_RUNNING, 0, 0, 0);
    expect(WINDOW_FRAME, 0, 0, WIDTH, HEIGHT);
    expect_pixels(99, 39, 1099);
    say(WINDOW_READY, 0, 0);
    expect_silence();
    colour = 2000;
    dirty = (struct screen_rect){10, 5, 20, 3};
    expect(WINDOW_FRAME, 10, 5, 20, 3);
    expect_pixels(10, 5, 2010);
    expect_pixels(9, 5, 1009);
    dirty = (struct screen_rect){0, 0, 1, 1};
    expect_silence(); /* it has not said that it has time */
    say(WINDOW_READY, 0, 0);
    expect(WINDOW_FRAME, 0, 0, 1, 1);
}

static void test_a_pointer_of_the_card_is_sent(void **state)
{
    static struct screen_cursor cursor = {.width = 2, .height = 1, .hot_x = 1, .pixels = {7, 8}};
    const uint32_t pixels[] = {7, 8};

    (void)state;
    say_hello(WINDOW_MEMORY_BYTES);
    screen_define_cursor(&screen, &cursor);
    say(WINDOW_READY, 0, 0);
    expect(WINDOW_SIZE, WIDTH, HEIGHT, 0, 0);
    expect(WINDOW_CURSOR, 2, 1, 1, 0);
    assert_memory_equal(memory, pixels, sizeof(pixels));
}

static void test_keys_and_pointer_arrive_and_are_let_go_when_it_goes(void **state)
{
    (void)state;
    say_hello(WINDOW_MEMORY_BYTES);
    say(WINDOW_KEY, 0x04, 1);
    say(WINDOW_MOVED, (uint32_t)-3, 4);
    say(WINDOW_BUTTONS, INPUT_BUTTON_LEFT, 0);
    say(WINDOW_AT, WIDTH, 0); /* beside the screen: nothing */
    say(WINDOW_POWER_OFF, 0, 0);
    say(WINDOW_END, 0, 0);
    assert_string_equal(log_text, "+04 -3,4 press power end ");
    shutdown(fd, SHUT_RDWR);
    let_run();
    assert_string_equal(log_text, "+04 -3,4 press power end -04 release ");
    assert_false(is_watched);
    assert_int_equal(windows.count, 0);
}

static void hear_copy(void *opaque)
{
    size_t size;
    const char *text = clipboard_text(machine_clipboard(t->machine), &size);
    char copy[32];

    (void)opaque;
    snprintf(copy, sizeof(copy), "copied:%.*s", (int)size, text);
    note(copy);
}

static void test_the_clipboard_is_shared(void **state)
{
    static const struct clipboard_ops ops = {.changed = hear_copy};
    struct clipboard *clipboard = machine_clipboard(t->machine);
    struct clipboard_peer peer = {.ops = &ops};

    (void)state;
    clipboard_join(clipboard, &peer);
    say_hello(WINDOW_MEMORY_BYTES);
    say(WINDOW_READY, 0, 0);
    expect(WINDOW_SIZE, WIDTH, HEIGHT, 0, 0);
    expect(WINDOW_STATE, WINDOW_IS_RUNNING, 0, 0, 0);
    expect(WINDOW_FRAME, 0, 0, WIDTH, HEIGHT);
    say(WINDOW_READY, 0, 0);
    assert_int_equal(clipboard_copy(clipboard, &peer, "hello", 5), 0);
    expect(WINDOW_TEXT, 5, 0, 0, 0);
    assert_memory_equal(memory + WINDOW_TO_WINDOW, "hello", 5);
    memcpy(memory + WINDOW_FROM_WINDOW, "world", 5);
    say(WINDOW_COPIED, 5, 0);
    assert_string_equal(log_text, "copied:world ");
    clipboard_leave(clipboard, &peer);
    assert_null(clipboard->peers->next); /* the window */
    say(WINDOW_COPIED, UINT32_MAX, 0);
}

static void test_what_no_window_says_ends_it(void **state)
{
    (void)state;
    say(WINDOW_KEY, 0x04, 1); /* before the shared file */
    assert_int_equal(windows.count, 0);
    close(fd);
    connect_window();
    say_hello(WINDOW_MEMORY_BYTES - 1);
    assert_int_equal(windows.count, 0);
    close(fd);
    connect_window();
    say_hello(WINDOW_MEMORY_BYTES);
    say(1234, 0, 0);
    assert_int_equal(windows.count, 0);
    assert_string_equal(log_text, "");
}

static void test_a_window_that_cannot_be_says_why(void **state)
{
    static const char packet[] = "\x41\0\0\0no screen here";
    struct error err = {0};

    (void)state;
    assert_int_equal(packet[0], WINDOW_FAILED);
    assert_int_equal(send(fd, packet, sizeof(packet) - 1, 0), sizeof(packet) - 1);
    assert_int_equal(windows_wait(&windows, &err), -EIO);
    assert_string_equal(err.text, "no screen here");
}

static void test_a_card_goes(void **state)
{
    (void)state;
    say_hello(WINDOW_MEMORY_BYTES);
    screen_done(&screen);
    say(WINDOW_READY, 0, 0);
    assert_int_equal(windows.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_window_is_sent_what_changed_when_it_has_time, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_pointer_of_the_card_is_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keys_and_pointer_arrive_and_are_let_go_when_it_goes,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_clipboard_is_shared, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_no_window_says_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_window_that_cannot_be_says_why, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_card_goes, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
