/*
 * fuzz_rtc.c - random accesses and times at the MC146818
 *
 * Claims: the interrupt line as the sink saw it is the device's; the state survives a round
 * trip.
 */
#include "devices/rtc.h"
#include "fuzz_device.h"

static void step(struct device_test *t, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint16_t port = (uint16_t)(0x70 + (what >> 2 & 3));

    switch (what & 3) {
    case 0:
    case 1:
        test_outb(t, port, (uint8_t)fuzz_take(in, 1));
        break;
    case 2:
        test_inb(t, port);
        break;
    default:
        device_test_advance_ns(t, fuzz_take_ns(in, 25));
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
        saved[0].dev = device_test_add(t, &rtc_class, NULL);
    }
    struct device *dev = saved[0].dev;
    test_irq_connect(&irq, rtc_output(dev));
    fuzz_begin(t, saved);
    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            fuzz_load_state(&in, dev);
            irq.level = rtc_output(dev)->level;
        }
        step(t, &in);
        FUZZ_CLAIM(irq.level == rtc_output(dev)->level);
    }
    device_test_round_trip(t, dev);
    return 0;
}
