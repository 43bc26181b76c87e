/*
 * fuzz_gdbstub.c - a hostile debugger
 *
 * Each line of the input becomes a packet with a correct sum, since random bytes hardly
 * ever get one right; a line that begins with 0xff is sent as it is, without it.
 */
#include <string.h>

#include "control/gdb_packet.h"
#include "control/gdbstub.h"
#include "control_fuzz.h"

static struct gdbstub *stub;

static void open_machine(void)
{
    struct error err = {0};

    fuzz_machine_open();
    stub = gdbstub_new(fuzz_machine, NULL, &err);
    assert(stub && machine_start(fuzz_machine, &err) == 0);
}

static void close_machine(void)
{
    machine_free(fuzz_machine);
    gdbstub_free(stub);
    loop_free(fuzz_loop);
    fuzz_machine = NULL;
}

static void send_line(const uint8_t *data, size_t size)
{
    static struct gdb_reply packet;
    static uint8_t frame[GDB_FRAME_BYTES];

    if (size && data[0] == 0xff) {
        fuzz_send(data + 1, size - 1);
        return;
    }
    packet.size = 0;
    gdb_put_bytes(&packet, data, size);
    fuzz_send(frame, gdb_frame(&packet, frame));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd;

    if (!fuzz_machine)
        open_machine();
    machine_lock(fuzz_machine);
    fd = fuzz_socket();
    gdbstub_connect(stub, fd);
    machine_unlock(fuzz_machine);
    while (size) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t length = end ? (size_t)(end - data) : size;

        send_line(data, length);
        data += length + (end != NULL);
        size -= length + (end != NULL);
    }
    if (fuzz_hang_up())
        close_machine();
    return 0;
}
