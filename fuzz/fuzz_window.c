/*
 * fuzz_window.c - any packets of a window
 *
 * Each packet is a byte of what it is and what follows that; the first has the shared file. Claims:
 * when it has gone, nobody looks at the screen, and no key is down.
 */
#include <sys/mman.h>
#include <sys/socket.h>

#include "backends/display/window.h"
#include "host/host.h"
#include "screen_fuzz.h"

#define MAX_BYTES 32u /* of a packet, behind its kind */

static struct windows windows;
static int memory;

static void nothing(void *opaque)
{
}

static const struct window_calls calls = {nothing, nothing};

static void open_machine(void)
{
    struct error err = {0};

    fuzz_screen_open();
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
    assert(!fuzz_is_watched && !fuzz_any_key());
    return 0;
}
