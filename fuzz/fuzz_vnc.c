/*
 * fuzz_vnc.c - any bytes of a viewer of VNC
 *
 * The first byte says what it has said already (it is let in or not), and whether it reads what it
 * is sent. Claims: nobody is let in without what is asked for; when it has gone, nobody
 * looks at the screen, and no key is down.
 */
#include <string.h>

#include "backends/display/vnc_internal.h"
#include "control_fuzz.h"
#include "trapeze/input.h"

#define IS_IN     1
#define IS_LAZY   2
#define MAX_BYTES 512

static struct screen screen;
static bool is_watched, is_dirty;
static unsigned keys_down;
static uint32_t size_now = 70;
static struct vnc *vnc;

static void card_watched(void *opaque, bool on)
{
    is_watched = is_dirty = on;
}

/* Another size each time that a key was pressed. */
static void card_refresh(void *opaque)
{
    struct screen_rect all = {0, 0, size_now, size_now};

    if (!is_dirty || screen_set_size(&screen, size_now, size_now))
        return;
    is_dirty = false;
    for (uint32_t y = 0; y < size_now; y++)
        for (uint32_t x = 0; x < size_now; x++)
            screen_row(&screen, y)[x] = x * y;
    screen_changed(&screen, &all);
}

static void key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    keys_down += pressed ? 1u : -1u;
    size_now = 1 + (size_now * 7 + usage) % 200;
    is_dirty = true;
}

static void card_want_size(void *opaque, uint32_t width, uint32_t height)
{
    size_now = 1 + (width + height) % 200;
    is_dirty = true;
}

static const struct screen_source_ops card_ops = {
    .watched = card_watched, .refresh = card_refresh, .want_size = card_want_size};
static const struct input_device_ops keyboard_ops = {.key = key_arrived};
static struct input_device keyboard = {.ops = &keyboard_ops};

static void open_machine(void)
{
    const struct vnc_config config = {.address = ""};
    struct error err = {0};

    fuzz_machine_open();
    screen_init(&screen, fuzz_machine, "card", &card_ops, NULL);
    input_add(machine_input(fuzz_machine), &keyboard);
    vnc = vnc_new(fuzz_machine, &config, &err);
    assert(vnc && machine_start(fuzz_machine, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char in[] = "RFB 003.008\n\1\1";
    unsigned how = size ? data[0] : 0;
    int fd;

    if (!fuzz_machine)
        open_machine();
    size = size < MAX_BYTES ? size : MAX_BYTES;
    vnc->has_password = !(how & IS_IN);
    fd = fuzz_socket();
    machine_lock(fuzz_machine);
    vnc_connect(vnc, fd);
    machine_unlock(fuzz_machine);
    fuzz_lazy = false;
    if (how & IS_IN)
        fuzz_send((const uint8_t *)in, sizeof(in) - 1);
    fuzz_lazy = how & IS_LAZY;
    if (size)
        fuzz_send(data + 1, size - 1);
    assert(how & IS_IN || !is_watched);
    close(fuzz_fd);
    while (vnc->clients)
        loop_once(fuzz_loop, 1000000);
    assert(!is_watched && !keys_down);
    return 0;
}
