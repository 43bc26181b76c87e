/*
 * fuzz_ps2.c - random commands, keys, mouse movement and times at the i8042
 *
 * Claims: each interrupt line is up exactly while a byte of its origin waits and its interrupt
 * is on; every byte that waits can be read away; the state survives a round trip.
 */
#include "devices/ps2.h"
#include "fuzz_device.h"

#define DATA   0x60
#define STATUS 0x64
#define FULL   0x01
#define MOUSE  0x20

static void step(struct device_test *t, struct device *dev, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    int dx, dy;

    switch (what & 7) {
    case 0:
        test_outb(t, STATUS, (uint8_t)fuzz_take(in, 1));
        break;
    case 1:
        test_outb(t, DATA, (uint8_t)fuzz_take(in, 1));
        break;
    case 2: /* to the mouse */
        test_outb(t, STATUS, 0xd4);
        test_outb(t, DATA, (uint8_t)fuzz_take(in, 1));
        break;
    case 3:
        FUZZ_LOCKED(t, i8042_key(dev, (uint8_t)fuzz_take(in, 1), what & 0x80));
        break;
    case 4:
        dx = (int32_t)fuzz_take(in, what & 0x80 ? 4 : 1);
        dy = (int16_t)fuzz_take(in, 2);
        FUZZ_LOCKED(t, i8042_mouse_move(dev, dx, dy, (what >> 3 & 3) - 1));
        break;
    case 5:
        FUZZ_LOCKED(t, i8042_mouse_buttons(dev, (unsigned)fuzz_take(in, 1)));
        break;
    case 6:
        test_inb(t, what & 0x80 ? DATA : STATUS);
        break;
    default:
        device_test_advance_ns(t, fuzz_take_ns(in, 22));
        break;
    }
}

/* Whatever was said before, reading comes to an end: keys that are held repeat, so let go. */
static void read_empty(struct device_test *t, struct device *dev)
{
    FUZZ_LOCKED(t, i8042_release_keys(dev));
    FUZZ_LOCKED(t, i8042_mouse_buttons(dev, 0));
    for (unsigned i = 0; i < 1000; i++) {
        device_test_advance_ns(t, 100000000);
        if (!(test_inb(t, STATUS) & FULL))
            return;
        test_inb(t, DATA);
    }
    FUZZ_CLAIM(!"the output buffer is always full");
}

static void check_lines(struct device_test *t, struct device *dev)
{
    bool keyboard = device_output(dev, "keyboard_irq", 0)->level;
    bool mouse = device_output(dev, "mouse_irq", 0)->level;
    uint8_t status = test_inb(t, STATUS);

    FUZZ_CLAIM(!(keyboard && mouse));
    FUZZ_CLAIM(!keyboard || (status & (FULL | MOUSE)) == FULL);
    FUZZ_CLAIM(!mouse || (status & (FULL | MOUSE)) == (FULL | MOUSE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static struct device_test *t; /* one for all inputs: building it takes longer than an input */
    static struct device *dev;
    bool loaded = false;

    if (!t) {
        t = device_test_new(0);
        dev = device_test_add(t, &i8042_class, NULL);
        device_test_start(t);
    }
    device_test_reset(t);
    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            FUZZ_LOCKED(t, fuzz_load_state(&in, dev));
            loaded = true;
        }
        step(t, dev, &in);
        if (!loaded)
            check_lines(t, dev);
    }
    read_empty(t, dev);
    device_test_round_trip(t, dev);
    return 0;
}
