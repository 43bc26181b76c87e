/*
 * fuzz_vnc.c - any bytes of a viewer of VNC
 *
 * The first byte says what it has said already (it is let in or not), and whether it reads what it
 * is sent. Claims: nobody is let in without what is asked for; when it has gone, nobody
 * looks at the screen, and no key is down.
 */
#include "backends/display/vnc_internal.h"
#include "screen_fuzz.h"

#define IS_IN     1
#define IS_LAZY   2
#define MAX_BYTES 512

static struct vnc *vnc;

static void open_machine(void)
{
    const struct vnc_config config = {.address = ""};
    struct error err = {0};

    fuzz_screen_open();
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
    assert(how & IS_IN || !fuzz_is_watched);
    close(fuzz_fd);
    loop_once(fuzz_loop, 0);
    while (vnc->clients) {
        if (timer_is_armed(&vnc->clients->deadline))
            timer_arm(&vnc->clients->deadline, 0); /* a wrong password's second is over */
        loop_once(fuzz_loop, 1000000);
    }
    assert(!fuzz_is_watched && !fuzz_any_key());
    return 0;
}
