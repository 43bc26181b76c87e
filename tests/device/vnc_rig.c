/*
 * vnc_rig.c - a server of VNC with a card and a keyboard, and the far end of its sockets
 */
#include "vnc_rig.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "trapeze/input.h"

/* ---- a card of one colour, and a keyboard that remembers ---- */

struct device_test *t;
struct screen screen;
uint32_t width, height, colour;
uint32_t (*picture)(uint32_t x, uint32_t y);
bool is_dirty, is_watched;
struct vnc *vnc;
int fd;
char typed[256];
unsigned leds;
uint32_t wished_width, wished_height;

uint32_t few_colours(uint32_t x, uint32_t y)
{
    return colour + x % 3 + y;
}

uint32_t one_colour(uint32_t x, uint32_t y)
{
    (void)x, (void)y;
    return colour;
}

uint32_t two_colours(uint32_t x, uint32_t y)
{
    return x * y % 3 ? colour : 0xabcdef;
}

uint32_t many_colours(uint32_t x, uint32_t y)
{
    return (x * 0x1234 + y * 0x50607) & 0xffffff;
}

static void card_watched(void *opaque, bool on)
{
    (void)opaque;
    is_watched = is_dirty = on;
}

static void card_refresh(void *opaque)
{
    struct screen_rect all = {0, 0, width, height};

    (void)opaque;
    if (!is_dirty || screen_set_size(&screen, width, height))
        return;
    is_dirty = false;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            screen_row(&screen, y)[x] = picture(x, y);
    screen_changed(&screen, &all);
}

static void card_want_size(void *opaque, uint32_t new_width, uint32_t new_height)
{
    (void)opaque;
    wished_width = new_width;
    wished_height = new_height;
}

static const struct screen_source_ops card_ops = {.watched = card_watched, .refresh = card_refresh};
const struct screen_source_ops free_card_ops = {
    .watched = card_watched, .refresh = card_refresh, .want_size = card_want_size};

static void key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    (void)opaque;
    snprintf(typed + strlen(typed), sizeof(typed) - strlen(typed), "%c%02x", pressed ? '+' : '-',
             usage);
}

static unsigned get_leds(void *opaque)
{
    (void)opaque;
    return leds;
}

static const struct input_device_ops keyboard_ops = {.key = key_arrived, .leds = get_leds};
static struct input_device keyboard = {.ops = &keyboard_ops};

/* ---- the far end ---- */

void let_run(void)
{
    for (unsigned n = 0; n < 4; n++)
        loop_once(t->loop, 1000000);
}

void say(const void *bytes, size_t size)
{
    assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
    let_run();
}

/* So many bytes, which the server takes its time for. */
void hear(void *out, size_t size)
{
    size_t done = 0;

    for (unsigned n = 0; n < 3000 && done < size; n++) {
        ssize_t got = recv(fd, (uint8_t *)out + done, size - done, MSG_DONTWAIT);

        if (got > 0)
            done += (size_t)got;
        else
            loop_once(t->loop, 1000000);
    }
    assert_int_equal(done, size);
}

bool has_hung_up(void)
{
    uint8_t byte;

    let_run();
    while (recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
        ;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

void expect(const void *bytes, size_t size)
{
    uint8_t got[64];

    hear(got, size);
    assert_memory_equal(got, bytes, size);
}

int connect_viewer(void)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    machine_lock(t->machine);
    vnc_connect(vnc, pair[1]);
    machine_unlock(t->machine);
    return pair[0];
}

void open_server(const struct vnc_config *config)
{
    struct error err = {0};

    vnc = vnc_new(t->machine, config, &err);
    assert_non_null(vnc);
    fd = connect_viewer();
    expect("RFB 003.008\n", 12);
    say("RFB 003.008\n", 12);
}

void come_in(void)
{
    open_server(&(struct vnc_config){.address = ""});
    choose_none();
}

void choose_none(void)
{
    uint8_t init[24];

    expect("\1\1", 2);
    say("\1", 1);
    expect("\0\0\0\0", 4);
    say("\1", 1);
    hear(init, sizeof(init));
    assert_true(is_watched);
    assert_int_equal(get_be16(init), width);
    assert_int_equal(get_be16(init + 2), height);
    assert_memory_equal(init + 4, vnc_format_default, VNC_FORMAT_BYTES);
    hear(init, get_be32(init + 20));
}

void encodings(int32_t first, int32_t second)
{
    uint8_t message[12] = {2, 0, 0, 2};

    put_be32(message + 4, (uint32_t)first);
    put_be32(message + 8, (uint32_t)second);
    say(message, sizeof(message));
}

void request(bool incremental)
{
    uint8_t message[10] = {3, incremental};

    put_be16(message + 6, width);
    put_be16(message + 8, height);
    say(message, sizeof(message));
}

void key(uint32_t keysym, bool pressed)
{
    uint8_t message[8] = {4, pressed};

    put_be32(message + 4, keysym);
    say(message, sizeof(message));
}

int set_up(void **state)
{
    (void)state;
    t = device_test_new(0);
    width = WIDTH;
    height = HEIGHT;
    colour = 0x102030;
    picture = few_colours;
    typed[0] = '\0';
    leds = 0;
    screen_init(&screen, t->machine, "card", &card_ops, NULL);
    wished_width = wished_height = 0;
    input_add(machine_input(t->machine), &keyboard);
    device_test_start(t);
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    close(fd);
    let_run();
    machine_lock(t->machine);
    vnc_free(vnc);
    screen_done(&screen);
    input_remove(machine_input(t->machine), &keyboard);
    machine_unlock(t->machine);
    device_test_free(t);
    return 0;
}
