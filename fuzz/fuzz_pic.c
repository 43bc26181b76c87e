/*
 * fuzz_pic.c - random accesses, lines and acknowledges at the 8259 pair
 *
 * Claims: INTR as the sink saw it is the level of the line; any state survives a round trip.
 */
#include "devices/pic.h"
#include "fuzz_device.h"

static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
#define PORT_COUNT (sizeof(ports) / sizeof(*ports))

static void step(struct device_test *t, struct device *pic, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint16_t port = ports[(what >> 2) % PORT_COUNT];

    switch (what & 3) {
    case 0:
        test_outb(t, port, (uint8_t)fuzz_take(in, 1));
        break;
    case 1:
        test_inb(t, port);
        break;
    case 2:
        pic_sink(pic, what >> 3, what & 4);
        break;
    default:
        FUZZ_CLAIM(machine_pic_acknowledge(t->machine) < 256);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct device_test *t;
    static struct fuzz_saved saved[2];
    struct fuzz_input in = {data, size};
    struct test_irq intr;

    if (!t) {
        t = device_test_new(0);
        saved[0].dev = device_test_add(t, &pic_class, NULL);
    }
    struct device *pic = saved[0].dev;
    test_irq_connect(&intr, pic_output(pic));
    fuzz_begin(t, saved);
    while (in.left) {
        if (*in.data == 0xff) {
            fuzz_take(&in, 1);
            fuzz_load_state(&in, pic);
        }
        step(t, pic, &in);
        FUZZ_CLAIM(intr.level == pic_output(pic)->level);
    }
    device_test_round_trip(t, pic);
    return 0;
}
