/*
 * fuzz_hpet.c - random accesses, input lines and times at the HPET
 *
 * Claims: without legacy replacement the PIT's line passes through; the state survives a
 * round trip.
 */
#include "devices/hpet.h"
#include "fuzz_device.h"

struct rig {
    struct device_test *t;
    struct device *hpet;
    bool isa[16], input;
};

static void isa_sink(void *opaque, unsigned number, bool level)
{
    ((struct rig *)opaque)->isa[number & 15] = level;
}

static void io_sink(void *opaque, unsigned number, bool level)
{
    FUZZ_CLAIM(number == 11 || (number >= 20 && number < 24));
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned size = what & 8 ? 8 : 4;
    /* mostly the timers' registers */
    uint64_t offset = what & 4 ? fuzz_take(in, 2) % 0x400 & ~7ull : 0x100 + (what >> 4) * 8;

    if (size == 4 && (what & 0x10))
        offset |= 4;
    switch (what & 3) {
    case 0:
        test_write(r->t, HPET_GPA + offset, fuzz_take(in, what & 0x20 ? 8 : 2), size);
        break;
    case 1:
        test_read(r->t, HPET_GPA + offset, size);
        break;
    case 2:
        if (what & 0x80)
            test_write(r->t, HPET_GPA + 0x10, what >> 4 & 3, 8);
        r->input = what & 0x40;
        hpet_sink(r->hpet, 0, r->input);
        break;
    default:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 18));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    static struct fuzz_saved saved[2];
    struct fuzz_input in = {data, size};
    bool loaded = false;

    if (!r.t) {
        r.t = device_test_new(0);
        r.hpet = saved[0].dev = device_test_add(r.t, &hpet_class, NULL);
        hpet_connect(r.hpet, isa_sink, &r, io_sink, &r);
    }
    fuzz_begin(r.t, saved);
    r.input = r.isa[0] = false;
    while (in.left) {
        if (*in.data == 0xff) {
            fuzz_take(&in, 1);
            fuzz_load_state(&in, r.hpet);
            loaded = true; /* lines are as the state says, not as they were */
        }
        step(&r, &in);
        if (!loaded && !(test_read(r.t, HPET_GPA + 0x10, 4) & 2))
            FUZZ_CLAIM(r.isa[0] == r.input);
    }
    device_test_round_trip(r.t, r.hpet);
    return 0;
}
