/*
 * fuzz_debug_ports.c - random accesses, back-pressure and resets at the debug exit, two debug
 * consoles, pc-testdev and port 92h
 *
 * Claims: the first write of an exit status counts, and only one to the first port; a console's
 * bytes come out once, in order, and complete up to its buffer; port 92h and line 20 are as last
 * written, and a reset comes only with a rising bit; pc-testdev's bytes and lines are as last
 * written; the states survive a round trip.
 */
#include "base/log.h"
#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/chardev.h"

#define EXIT_PORT     0xf4
#define CONSOLE       0xe9
#define CONSOLE_FW    0x402
#define CONSOLE_LOGS  0xea /* a second console, without a chardev */
#define A20_PORT      0x92
#define RING_BYTES    16
#define CONSOLE_BYTES 65536u /* that wait in the device */
#define TESTDEV_PORT  0xe0
#define TESTDEV_LINES 0x2000
#define TESTDEV_GPA   0xff000000ull
#define TESTDEV_BYTES 0x10000
#define PORT92_RESET  1u
#define PORT92_A20    2u
#define PORT92_LIGHTS 0xc0u

struct rig {
    struct device_test *t;
    struct device *exit, *console, *port92, *testdev;
    struct chardev *chardev;

    /* Model. */
    uint8_t next_out, next_in; /* what the guest prints counts up */
    uint32_t waiting;          /* bytes between guest and reader */
    bool stopped;
    int status;
    uint32_t exit_value;
    uint8_t scratch[4]; /* pc-testdev's */
    uint16_t lines;
    bool touched;
    uint8_t port92_value;
    bool a20, reset_due, counting; /* counting: the model knows what is in the console */
};

static void print(struct rig *r, uint16_t port, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (r->waiting == RING_BYTES + CONSOLE_BYTES)
            r->counting = false; /* it is dropped, and the count has a hole */
        else
            r->waiting++;
        test_outb(r->t, port, r->next_out++);
    }
}

static void take(struct rig *r, unsigned count)
{
    uint8_t got[256];
    size_t length;

    FUZZ_LOCKED(r->t, length = chardev_ring_take(r->chardev, got, 1 + count % sizeof(got)));
    FUZZ_CLAIM(length <= r->waiting);
    r->waiting -= (uint32_t)length;
    for (size_t i = 0; i < length && r->counting; i++)
        FUZZ_CLAIM(got[i] == r->next_in++);
    FUZZ_CLAIM(length || !r->waiting);
}

static void write_exit(struct rig *r, unsigned offset, uint32_t value, unsigned size)
{
    bus_port_write(r->t->machine, (uint16_t)(EXIT_PORT + offset), value, size);
    if (offset)
        return;
    r->exit_value = value;
    if (!r->stopped)
        r->status = (int)((value & 0x3fffffff) << 1 | 1);
    r->stopped = true;
}

static void check_exit(struct rig *r)
{
    FUZZ_CLAIM(machine_stop_reason(r->t->machine) == (r->stopped ? STOP_GUEST_EXIT : STOP_NONE));
    FUZZ_CLAIM(!r->stopped || machine_stop_status(r->t->machine) == r->status);
    FUZZ_CLAIM(test_inl(r->t, EXIT_PORT) == r->exit_value);
    for (unsigned i = 0; i < 4; i++)
        FUZZ_CLAIM(test_inb(r->t, (uint16_t)(EXIT_PORT + i)) == (uint8_t)(r->exit_value >> 8 * i));
}

static void write_port92(struct rig *r, uint8_t value)
{
    test_outb(r->t, A20_PORT, value);
    r->reset_due |= (value & PORT92_RESET) && !(r->port92_value & PORT92_RESET);
    r->port92_value = value & (PORT92_RESET | PORT92_LIGHTS);
    r->a20 = value & PORT92_A20;
}

static void check_port92(struct rig *r)
{
    FUZZ_CLAIM(machine_a20(r->t->machine) == r->a20);
    FUZZ_CLAIM(test_inb(r->t, A20_PORT) == (r->port92_value | (r->a20 ? PORT92_A20 : 0)));
}

/* A register that is also a piece of the memory, at an offset that follows from it. */
static void write_testdev(struct rig *r, unsigned offset, uint32_t value, unsigned size)
{
    uint64_t gpa = TESTDEV_GPA + (value & 0xffff);

    r->touched = true;
    bus_port_write(r->t->machine, (uint16_t)(TESTDEV_PORT + offset), value, size);
    for (unsigned i = 0; i < size && offset + i < sizeof(r->scratch); i++)
        r->scratch[offset + i] = (uint8_t)(value >> 8 * i);
    test_write(r->t, gpa, value, size);
    if (gpa + size <= TESTDEV_GPA + TESTDEV_BYTES)
        FUZZ_CLAIM(test_read(r->t, gpa, size) == (value & (UINT32_MAX >> (32 - 8 * size))));
}

static void write_line(struct rig *r, unsigned line, uint8_t value)
{
    r->touched = true;
    test_outb(r->t, (uint16_t)(TESTDEV_LINES + line), value);
    r->lines = (uint16_t)((r->lines & ~(1u << line)) | (unsigned)(value != 0) << line);
}

static void check_testdev(struct rig *r)
{
    for (unsigned i = 0; i < 16; i++)
        FUZZ_CLAIM(device_output(r->testdev, "isa", i)->level == (r->lines >> i & 1));
    for (unsigned i = 0; i < sizeof(r->scratch); i++)
        FUZZ_CLAIM(test_inb(r->t, (uint16_t)(TESTDEV_PORT + i)) == r->scratch[i]);
}

static void after_reset(struct rig *r)
{
    memset(r->scratch, 0, sizeof(r->scratch));
    r->lines = 0;
    r->port92_value = 0;
    r->a20 = true;
    r->exit_value = 0;
    r->reset_due = false;
}

static void load_state(struct rig *r, struct fuzz_input *in)
{
    if (in->left & 1) {
        FUZZ_LOCKED(r->t, fuzz_load_state(in, r->exit));
        r->exit_value = test_inl(r->t, EXIT_PORT);
    } else {
        FUZZ_LOCKED(r->t, fuzz_load_state(in, r->port92));
        r->port92_value = test_inb(r->t, A20_PORT) & (uint8_t)~PORT92_A20;
    }
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned size = 1u << (what >> 5) % 3;

    switch (what & 7) {
    case 0:
        print(r, what & 0x80 ? CONSOLE : CONSOLE_FW, what >> 3 & 15);
        break;
    case 1:
        print(r, CONSOLE, what == 0xf9 ? CONSOLE_BYTES / 4 : what >> 3);
        break;
    case 2:
        take(r, what);
        break;
    case 3:
        write_exit(r, what >> 3 & 3, (uint32_t)fuzz_take(in, size), size);
        break;
    case 4:
        write_port92(r, (uint8_t)fuzz_take(in, 1));
        break;
    case 5:
        bus_port_write(r->t->machine, CONSOLE_LOGS, (uint32_t)fuzz_take(in, 1), 1);
        FUZZ_CLAIM(test_inb(r->t, CONSOLE_LOGS) == 0xe9);
        if (what & 8)
            write_line(r, what >> 4, (uint8_t)fuzz_take(in, 1));
        else
            write_testdev(r, what >> 6, (uint32_t)fuzz_take(in, size), size);
        break;
    case 6:
        device_test_loop(r->t); /* a reset that was asked for */
        if (r->reset_due && !r->stopped)
            after_reset(r);
        break;
    default:
        load_state(r, in);
        break;
    }
}

static struct device *add_console(struct rig *r, const char *properties, struct chardev *chardev)
{
    struct device *dev = device_test_create(r->t, &debug_console_class, properties);

    device_set_pointer(dev, "chardev", chardev, NULL);
    device_test_attach(dev);
    return dev;
}

static void build(struct rig *r)
{
    log_threshold = LOG_ERROR;
    *r = (struct rig){.counting = true, .a20 = true};
    r->t = device_test_new(0);
    r->chardev = chardev_open(r->t->loop, "ring:size=16", NULL);
    r->exit = device_test_add(r->t, &debug_exit_class, NULL);
    r->port92 = device_test_add(r->t, &port92_class, NULL);
    r->testdev = device_test_add(r->t, &pc_testdev_class, NULL);
    r->console = add_console(r, NULL, r->chardev);
    add_console(r, "port=0xea,firmware-port=0", NULL);
    device_test_start(r->t);
}

static void take_down(struct rig *r)
{
    device_test_free(r->t);
    chardev_free(r->chardev);
    r->t = NULL;
}

/* The console is empty again, everything at its reset values. */
static void clear(struct rig *r)
{
    while (r->waiting)
        take(r, 255);
    r->counting = true;
    r->next_in = r->next_out = 0;
    device_test_reset(r->t);
    after_reset(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fuzz_input in = {data, size};

    if (!r.t)
        build(&r);
    else
        clear(&r);
    while (in.left) {
        step(&r, &in);
        check_exit(&r);
        check_port92(&r);
        check_testdev(&r);
    }
    device_test_round_trip(r.t, r.exit);
    device_test_round_trip(r.t, r.port92);
    if (r.touched) /* 64 KiB, so not for every input */
        device_test_round_trip(r.t, r.testdev);
    r.touched = false;
    if (r.stopped)
        take_down(&r); /* an end is for good */
    return 0;
}
