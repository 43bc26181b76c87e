/*
 * fuzz_window.c - any packets of a window
 *
 * Each packet is a byte of what it is and what follows that; the first has the shared file. Claims:
 * when it has gone, nobody looks at the screen, and no key is down.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "backends/display/window.h"
#include "control_fuzz.h"
#include "host/host.h"
#include "trapeze/input.h"

#define MAX_BYTES 32u /* of a packet, behind its kind */

static struct screen screen;
static bool is_watched, is_dirty;
static bool is_down[256];
static uint32_t size_now = 70;
static struct windows windows;
static int memory;

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
    screen_changed(&screen, &all);
}

static void key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    is_down[usage] = pressed;
    size_now = 1 + (size_now * 7 + usage) % 200;
    is_dirty = true;
}

static void nothing(void *opaque)
{
}

static const struct screen_source_ops card_ops = {.watched = card_watched, .refresh = card_refresh};
static const struct input_device_ops keyboard_ops = {.key = key_arrived};
static struct input_device keyboard = {.ops = &keyboard_ops};
static const struct window_calls calls = {nothing, nothing};

static void open_machine(void)
{
    struct error err = {0};

    fuzz_machine_open();
    screen_init(&screen, fuzz_machine, "card", &card_ops, NULL);
    input_add(machine_input(fuzz_machine), &keyboard);
    windows = (struct windows){.machine = fuzz_machine, .calls = &calls};
    memory = memfd_create("screen", MFD_CLOEXEC);
    assert(ftruncate(memory, (off_t)WINDOW_MEMORY_BYTES) == 0);
    assert(machine_start(fuzz_machine, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union {
        struct window_packet packet;
        uint8_t bytes[4 + MAX_BYTES];
    } out = {.packet.kind = WINDOW_HELLO};
    struct window_packet in;
    struct error err = {0};
    int ends[2];

    if (!fuzz_machine)
        open_machine();
    assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0);
    machine_lock(fuzz_machine);
    assert(windows_add(&windows, ends[1], &err) == 0);
    machine_unlock(fuzz_machine);
    host_send(ends[0], &out.packet, sizeof(out.packet), memory);
    while (size && windows.count) {
        size_t length = data[0] & 0x80 ? data[0] % MAX_BYTES : sizeof(out.packet) - 4;

        length = length < size - 1 ? length : size - 1;
        out.packet.kind = WINDOW_READY + data[0] % 16;
        memcpy(out.bytes + 4, data + 1, length);
        host_send(ends[0], &out, length + 4, -1);
        loop_once(fuzz_loop, 0);
        while (recv(ends[0], &in, sizeof(in), MSG_DONTWAIT) > 0)
            assert(in.kind >= WINDOW_SIZE && in.kind <= WINDOW_FRAME);
        data += length + 1;
        size -= length + 1;
    }
    close(ends[0]);
    while (windows.count)
        loop_once(fuzz_loop, 1000000);
    assert(!is_watched && !memchr(is_down, true, sizeof(is_down)));
    return 0;
}
