/*
 * fuzz_uhci.c - a hostile driver of the UHCI controller and of the devices on it
 *
 * Steps are accesses to configuration space and registers, queues and transfer descriptors that
 * are well-formed and malformed, input of people, devices that come and go, and saved states.
 * Claims: states survive a round trip; whatever happened, a reset makes the controller one that
 * opens a device.
 */
#include "fuzz_usb.h"
#define UHCI_FRAMES_AT_MOST 50u
#include "uhci_driver.h"

#define RAM_BYTES  (1u << 20)
#define DISK_BYTES (256u << 10)
#define DEVICES    5

struct rig {
    struct device_test *t;
    struct device *devices[DEVICES]; /* the controller, a hub, on it a stick, keyboard and mouse */
    struct uhci_driver d;
};

/* A link: to a queue, a TD, the end of RAM, or anywhere; with its flags. */
static uint32_t take_link(struct fuzz_input *in)
{
    uint16_t value = (uint16_t)fuzz_take(in, 2);
    uint32_t at = value >> 4 & 0x3ff;

    switch (value >> 14) {
    case 0:
        return (UHCI_QUEUE + 16 * (at & 0x1f)) | UHCI_QH | (value & 5);
    case 1:
        return uhci_td(at & 0x1f) | (value & 5);
    case 2:
        return (RAM_BYTES - 16 * at) | (value & 7);
    default:
        return value & 8 ? (uint32_t)fuzz_take(in, 4) : UHCI_DATA + 16 * at;
    }
}

static void put_td(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint8_t pids[4] = {USB_PID_IN, USB_PID_OUT, USB_PID_SETUP, USB_PID_IN};
    uint8_t *td = uhci_ram(&r->d, uhci_td(what >> 4 & 0xf)), flags = (uint8_t)fuzz_take(in, 1);
    uint32_t token = pids[flags & 3] | (uint32_t)fuzz_take(in, 1) % 8 << 8 |
                     (uint32_t)(flags >> 2 & 3) << 15 | (uint32_t)fuzz_take(in, 2) << 21;

    put_le32(td, take_link(in));
    put_le32(td + 4, UHCI_ACTIVE | UHCI_TRIES | (uint32_t)(flags >> 4 & 3) << 24 |
                         (flags & 0x40 ? UHCI_SPD : 0));
    put_le32(td + 8, flags & 0x80 ? token ^ (uint32_t)fuzz_take(in, 1) : token);
    put_le32(td + 12, what & 1 ? UHCI_DATA + (uint32_t)fuzz_take(in, 1) * 16 : take_link(in));
}

static void put_queue(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint32_t link = take_link(in);

    uhci_put_queue(&r->d, UHCI_QUEUE + 16 * (what >> 4), link, take_link(in));
}

/* As an honest driver would: the hub, and who is on it. */
static bool open_device(struct rig *r, uint8_t what)
{
    unsigned port = 1 + (what >> 4) % 3;

    uhci_driver_start(&r->d, r->t);
    return uhci_open(&r->d, 1, 1) &&
           !uhci_control(&r->d, 1, usb_driver_setup(0x23, 3, 8, (uint16_t)port, 0), NULL) &&
           !uhci_control(&r->d, 1, usb_driver_setup(0x23, 3, 4, (uint16_t)port, 0), NULL) &&
           !uhci_control(&r->d, 0, usb_driver_setup(0, 5, (uint16_t)(1 + port), 0, 0), NULL) &&
           !uhci_control(&r->d, (uint8_t)(1 + port), usb_driver_setup(0, 9, 1, 0, 0), NULL);
}

/* A control transfer that is well-formed; what it asks for is not. */
static void control(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint64_t setup = fuzz_take(in, 6) & 0xffff0fffffffull;

    setup |= (fuzz_take(in, 1) & 0x7f) << 48;
    uhci_control(&r->d, 1 + (what >> 4 & 3), setup, NULL);
}

static void scsi(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint8_t opcodes[8] = {0x00, 0x03, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x35};
    uint8_t cdb[10] = {opcodes[what >> 4 & 7]};

    for (unsigned n = 5; n < 10; n++)
        cdb[n] = (uint8_t)fuzz_take(in, 1);
    if (usb_device_of(r->devices[2])->address == 2)
        uhci_scsi(&r->d, 2, cdb, 10, (uint32_t)fuzz_take(in, 2) % 1024, !(what & 0x80));
}

static void access_registers(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint16_t port = (uint16_t)(UHCI_IO + fuzz_take(in, 1) % 0x20);

    switch (what >> 4 & 3) {
    case 0:
        test_outb(r->t, port, (uint8_t)fuzz_take(in, 1));
        break;
    case 1:
        test_outw(r->t, port & 0xfffe, (uint16_t)fuzz_take(in, 2));
        break;
    case 2:
        test_outl(r->t, port & 0xfffc, (uint32_t)fuzz_take(in, 4));
        break;
    default:
        test_inl(r->t, port & 0xfffc);
        break;
    }
}

static void change_state(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct device *dev = r->devices[(what >> 4 & 7) % DEVICES];

    fuzz_pause(r->t, r->devices[2]);
    fuzz_change_state(in, r->t, dev, what & 0x80);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what % 16) {
    case 0:
        open_device(r, what);
        break;
    case 1:
    case 2:
    case 3:
        put_td(r, in, what);
        break;
    case 4:
    case 5:
        put_queue(r, in, what);
        break;
    case 6:
        control(r, in, what);
        break;
    case 7:
        scsi(r, in, what);
        break;
    case 8:
        access_registers(r, in, what);
        break;
    case 9:
        test_write(r->t, uhci_config_gpa((unsigned)fuzz_take(in, 1) & ~3u), fuzz_take(in, 4), 4);
        break;
    case 10:
        uhci_fill_list(&r->d, take_link(in));
        break;
    case 11:
        fuzz_use_input(in, r->t, what);
        break;
    case 12:
    case 13:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 16));
        device_test_loop(r->t);
        break;
    case 14:
        uhci_wait(&r->d, what >> 4);
        break;
    default:
        change_state(r, in, what);
        break;
    }
}

static struct rig *rig(void)
{
    static struct rig r;

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.devices[0] = device_test_add(r.t, &uhci_class, "addr=3");
        r.devices[1] = device_test_add(r.t, &usb_hub_class, NULL);
        r.devices[2] = fuzz_add_stick(r.t, fuzz_disk(r.t->loop, DISK_BYTES), "bus=usb-hub");
        r.devices[3] = device_test_add(r.t, &usb_kbd_class, "bus=usb-hub");
        r.devices[4] = device_test_add(r.t, &usb_mouse_class, "bus=usb-hub");
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    r.d = (struct uhci_driver){.t = r.t};
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left)
        step(r, &in);
    fuzz_pause(r->t, r->devices[2]);
    if (size % 8 == 0)
        for (unsigned n = 0; n < DEVICES; n++)
            device_test_round_trip(r->t, r->devices[n]);
    FUZZ_CLAIM(open_device(r, (uint8_t)(size << 4)));
    return 0;
}
