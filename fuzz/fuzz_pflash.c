/*
 * fuzz_pflash.c - random commands at the flash, which is all that stands on its contents
 *
 * Claim: the state survives a round trip.
 */
#include "devices/devices.h"
#include "devices/pflash.h"
#include "fuzz_device.h"

#define GPA   0xff000000ull
#define BYTES 0x3000u

/* Often what belongs together: a few places, and values that are commands. */
static const uint8_t commands[16] = {0x10, 0x20, 0x40, 0x50, 0x70, 0x90, 0x98, 0xd0,
                                     0xe8, 0xff, 0x00, 0x01, 0x03, 0x3f, 0x40, 0x55};

static void step(struct device_test *t, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned size = 1u << (what >> 1 & 3);
    uint64_t gpa = GPA + (what & 8 ? fuzz_take(in, 2) % BYTES : (what >> 4) * 0xfffu % BYTES);

    gpa &= ~(uint64_t)(size - 1);
    if (what & 1) {
        test_read(t, gpa, size);
    } else {
        uint8_t value = (uint8_t)fuzz_take(in, 1);

        test_write(t, gpa, value & 0x80 ? commands[value & 15] : value, what & 0x80 ? size : 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t contents[BYTES];
    static struct device_test *t;
    static struct fuzz_saved saved[2];
    struct fuzz_input in = {data, size};
    struct error err = {0};

    if (!t) {
        t = device_test_new(0);
        saved[0].dev = device_test_create(t, &pflash_class, NULL);
        FUZZ_CLAIM(!device_set_u64(saved[0].dev, "gpa", GPA, &err));
        FUZZ_CLAIM(!pflash_set_contents(saved[0].dev, contents, BYTES, &err));
        device_test_attach(saved[0].dev);
    }
    fuzz_begin(t, saved);
    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            fuzz_load_state(&in, saved[0].dev);
        }
        step(t, &in);
    }
    device_test_round_trip(t, saved[0].dev);
    return 0;
}
