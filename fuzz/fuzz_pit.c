/*
 * fuzz_pit.c - random accesses and times at the 8254 and port 0x61, speaker included
 *
 * Claims: the interrupt line as the sink saw it is the device's; the state survives a round
 * trip.
 */
#include "devices/pit.h"
#include "fuzz_device.h"
#include "trapeze/audio.h"

static void step(struct device_test *t, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    static const uint16_t ports[] = {0x40, 0x41, 0x42, 0x43, 0x61};
    uint16_t port = ports[(what >> 2) % 5];

    switch (what & 3) {
    case 0:
    case 1:
        test_outb(t, port, (uint8_t)fuzz_take(in, 1));
        break;
    case 2:
        test_inb(t, port);
        break;
    default:
        device_test_advance_ns(t, fuzz_take_ns(in, 16));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct device_test *t;
    static struct fuzz_saved saved[2];
    struct fuzz_input in = {data, size};
    struct test_irq irq;

    if (!t) {
        t = device_test_new(0);
        saved[0].dev = device_test_create(t, &pit_class, NULL);
        device_set_pointer(saved[0].dev, "audio", audio_open("null", -1, NULL), NULL);
        device_test_attach(saved[0].dev);
    }
    struct device *dev = saved[0].dev;
    test_irq_connect(&irq, pit_output(dev));
    fuzz_begin(t, saved);
    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            fuzz_load_state(&in, dev);
            irq.level = pit_output(dev)->level;
        }
        step(t, &in);
        FUZZ_CLAIM(irq.level == pit_output(dev)->level);
    }
    device_test_round_trip(t, dev);
    return 0;
}
