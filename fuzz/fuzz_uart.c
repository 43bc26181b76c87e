/*
 * fuzz_uart.c - random accesses, input, breaks, back-pressure and times at a 16550A
 *
 * Claims: the line is up exactly while IIR has something; what the guest sends while THRE is on
 * comes out in order and complete; the state survives a round trip.
 */
#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/chardev.h"

#define BASE 0x3f8
#define LSR  (BASE + 5)
#define THRE 0x20

struct rig {
    struct device_test *t;
    struct device *dev;
    struct chardev *chardev;
    struct test_irq irq;
    uint8_t next_out, next_in; /* the bytes that the guest sends count up */
    bool lossless;             /* nothing has been done that may lose bytes */
};

static void send_counted(struct rig *r)
{
    if (!r->lossless || !(test_inb(r->t, LSR) & THRE))
        return;
    test_outb(r->t, BASE, r->next_out++);
}

static void drain(struct rig *r, unsigned count)
{
    uint8_t got[16];
    size_t length;

    FUZZ_LOCKED(r->t, length = chardev_ring_take(r->chardev, got, 1 + count % sizeof(got)));

    for (size_t i = 0; i < length && r->lossless; i++)
        FUZZ_CLAIM(got[i] == r->next_in++);
}

static void type(struct rig *r, struct fuzz_input *in)
{
    uint8_t data[20];
    unsigned length = fuzz_take(in, 1) % sizeof(data);

    for (unsigned i = 0; i < length; i++)
        data[i] = (uint8_t)fuzz_take(in, 1);
    FUZZ_LOCKED(r->t, chardev_ring_put(r->chardev, data, length));
}

/* Any write but to the scratch register may send, drop or redirect bytes. */
static void write_register(struct rig *r, unsigned number, uint8_t value)
{
    r->lossless &= number == 7 || number == 1;
    test_outb(r->t, (uint16_t)(BASE + number), value);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned number = what >> 3 & 7;

    switch (what & 7) {
    case 0:
    case 1:
        write_register(r, number, (uint8_t)fuzz_take(in, 1));
        break;
    case 2:
        test_inb(r->t, (uint16_t)(BASE + number));
        break;
    case 3:
        type(r, in);
        break;
    case 4:
        drain(r, what >> 3);
        break;
    case 5:
        if (what & 0x80)
            FUZZ_LOCKED(r->t, chardev_deliver_break(r->chardev));
        else
            FUZZ_LOCKED(r->t, chardev_set_connected(r->chardev, what & 0x40));
        break;
    case 6:
        send_counted(r);
        break;
    default:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 22));
        break;
    }
}

static void check_line(struct rig *r)
{
    FUZZ_CLAIM(r->irq.level == device_output(r->dev, "irq", 0)->level);
    if (!r->irq.level)
        FUZZ_CLAIM(test_inb(r->t, BASE + 2) & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two machines for all inputs, because building one takes longer than an input. */
static struct rig *rig(bool pace)
{
    static struct rig rigs[2];
    struct rig *r = &rigs[pace];

    if (!r->t) {
        r->t = device_test_new(0);
        r->dev = device_test_create(r->t, &uart16550_class, pace ? "pace=on" : NULL);
        r->chardev = chardev_open(r->t->loop, "ring:size=8", NULL);
        device_set_pointer(r->dev, "chardev", r->chardev, NULL);
        device_test_attach(r->dev);
        device_test_start(r->t);
    }
    device_test_reset(r->t);
    FUZZ_LOCKED(r->t, chardev_set_connected(r->chardev, true));
    r->lossless = false;
    drain(r, 15);
    r->lossless = true;
    r->next_in = r->next_out = 0;
    device_test_reset(r->t);
    test_irq_connect(&r->irq, device_output(r->dev, "irq", 0));
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig(fuzz_take(&in, 1) & 1);
    bool loaded = false;

    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            FUZZ_LOCKED(r->t, fuzz_load_state(&in, r->dev));
            r->lossless = false;
            loaded = true;
        }
        step(r, &in);
        if (!loaded)
            check_line(r);
    }
    device_test_round_trip(r->t, r->dev);
    return 0;
}
