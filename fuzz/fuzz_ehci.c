/*
 * fuzz_ehci.c - a hostile driver of the EHCI controller, its companions, and the devices on them
 *
 * Steps are accesses to configuration space and registers of the EHCI and of one UHCI controller,
 * queues and transfer descriptors that are well-formed and malformed, ports that change hands,
 * input of people, a stick that comes and goes, and saved states. Claims: states survive a round
 * trip; whatever happened, a reset makes the controller one that opens a device.
 */
#include "fuzz_usb.h"
#define EHCI_FRAMES_AT_MOST 50u
#define UHCI_FRAMES_AT_MOST 50u
#include "ehci_driver.h"
#include "uhci_driver.h"

#define RAM_BYTES  (2u << 20)
#define DISK_BYTES (256u << 10)
#define DEVICES    6
#define QUEUES     8u
#define HUB        1u /* addresses; ports of the hub add to it */
#define STICK_PORT 3u /* of the hub */

/* The controllers, a hub, on it keyboard, mouse and stick. */
enum place { EHCI_PLACE, UHCI_PLACE, HUB_PLACE, KEYBOARD_PLACE, MOUSE_PLACE, STICK_PLACE };

struct rig {
    struct device_test *t;
    struct device *devices[DEVICES];
    struct block *disk;
    struct ehci_driver d;
};

/* A link: to a queue, a descriptor, the end of RAM, or anywhere; with its flags. */
static uint32_t take_link(struct fuzz_input *in)
{
    uint16_t value = (uint16_t)fuzz_take(in, 2);
    uint32_t at = value >> 4 & 0x3ff;

    switch (value >> 14) {
    case 0:
        return (EHCI_HEAD + 64 * (at % QUEUES)) | EHCI_QH | (value & 5);
    case 1:
        return ehci_td(at & 0x1f) | (value & 7);
    case 2:
        return (RAM_BYTES - 32 * at) | (value & 7);
    default:
        return value & 8 ? (uint32_t)fuzz_take(in, 4) : EHCI_DATA + 32 * at;
    }
}

static void put_td(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint8_t *td = ehci_ram(&r->d, ehci_td(what >> 4 & 0xf));
    uint32_t token = (uint32_t)fuzz_take(in, 4);

    put_le32(td, take_link(in));
    put_le32(td + 4, token & 1 ? EHCI_END : take_link(in));
    put_le32(td + 8, (token & ~0x79u) | EHCI_ACTIVE);
    for (unsigned n = 0; n < 5; n++)
        put_le32(td + 12 + 4 * n, token & 2 ? take_link(in) : EHCI_DATA + 0x1000 * n);
}

static void put_queue(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint32_t gpa = EHCI_HEAD + 64 * ((what >> 4) % QUEUES), link = take_link(in);
    uint32_t endpoint = (uint32_t)fuzz_take(in, 4), hub = (uint32_t)fuzz_take(in, 4);

    ehci_put_queue(&r->d, gpa, link, endpoint & ~0x78u, hub & 0xf187ffff, take_link(in));
    put_le32(ehci_ram(&r->d, gpa) + 20, take_link(in));
    if (what & 0x80)
        put_le32(ehci_ram(&r->d, gpa) + 24, (uint32_t)fuzz_take(in, 4));
}

/* As an honest driver would: the hub, and who is on it. */
static bool open_device(struct rig *r, uint8_t what)
{
    unsigned port = 1 + (what >> 4) % STICK_PORT;

    ehci_driver_start(&r->d, r->t);
    if (!ehci_open(&r->d, 1, HUB) ||
        ehci_control(&r->d, HUB, usb_driver_setup(0x23, 3, 8, (uint16_t)port, 0), NULL) ||
        ehci_control(&r->d, HUB, usb_driver_setup(0x23, 3, 4, (uint16_t)port, 0), NULL))
        return false;
    if (port != STICK_PORT)
        ehci_behind(&r->d, HUB, port, EHCI_FULL_SPEED);
    return !ehci_control(&r->d, 0, usb_driver_setup(0, 5, (uint16_t)(HUB + port), 0, 0), NULL) &&
           !ehci_control(&r->d, (uint8_t)(HUB + port), usb_driver_setup(0, 9, 1, 0, 0), NULL);
}

/* A control transfer that is well-formed; what it asks for is not. */
static void control(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint64_t setup = fuzz_take(in, 6) & 0xffff0fffffffull;

    setup |= (fuzz_take(in, 1) & 0x7f) << 48;
    ehci_control(&r->d, HUB + (what >> 4 & 3), setup, NULL);
}

static void scsi(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint8_t opcodes[8] = {0x00, 0x03, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x35};
    uint8_t cdb[10] = {opcodes[what >> 4 & 7]};

    for (unsigned n = 5; n < 10; n++)
        cdb[n] = (uint8_t)fuzz_take(in, 1);
    ehci_scsi(&r->d, HUB + STICK_PORT, cdb, 10, (uint32_t)fuzz_take(in, 2) % 1024, !(what & 0x80));
}

static void access_registers(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint8_t offset = (uint8_t)fuzz_take(in, 1);
    uint16_t port = (uint16_t)(UHCI_IO + offset % 0x20);

    switch (what >> 4 & 7) {
    case 0:
    case 1:
    case 2:
        ehci_set(&r->d, 0x20 + offset % 0x60 / 4 * 4, (uint32_t)fuzz_take(in, 4));
        break;
    case 3:
        ehci_set(&r->d, EHCI_REG_PORT + offset % EHCI_PORTS * 4, (uint32_t)fuzz_take(in, 4));
        break;
    case 4:
        test_outw(r->t, port & 0xfffe, (uint16_t)fuzz_take(in, 2));
        break;
    case 5:
        test_inl(r->t, port & 0xfffc);
        break;
    default:
        ehci_reg(&r->d, offset % 0x80 / 4 * 4);
        break;
    }
}

static void access_config(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned offset = (unsigned)fuzz_take(in, 1) & ~3u;

    test_write(r->t, what & 0x10 ? uhci_config_gpa(offset) : ehci_config_gpa(offset),
               fuzz_take(in, 4), 4);
}

static void move_stick(struct rig *r, uint8_t what)
{
    static const char *const places[4] = {"bus=usb-hub,port=3", "bus=ehci,port=2",
                                          "bus=ehci,port=5", "bus=usb-hub,port=3"};

    device_free(r->devices[STICK_PLACE]);
    r->devices[STICK_PLACE] = fuzz_add_stick(r->t, r->disk, places[what >> 4 & 3]);
}

static void change_state(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct device *dev = r->devices[(what >> 4 & 7) % DEVICES];

    fuzz_pause(r->t, r->devices[STICK_PLACE]);
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
        put_td(r, in, what);
        break;
    case 3:
    case 4:
        put_queue(r, in, what);
        break;
    case 5:
        control(r, in, what);
        break;
    case 6:
        scsi(r, in, what);
        break;
    case 7:
    case 8:
        access_registers(r, in, what);
        break;
    case 9:
        access_config(r, in, what);
        break;
    case 10:
        ehci_fill_list(&r->d, take_link(in));
        break;
    case 11:
        fuzz_use_input(in, r->t, what);
        break;
    case 12:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 16));
        device_test_loop(r->t);
        break;
    case 13:
        move_stick(r, what);
        break;
    case 14:
        ehci_wait(&r->d, what >> 4);
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
        r.disk = fuzz_disk(r.t->loop, DISK_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.devices[UHCI_PLACE] = device_test_add(r.t, &uhci_class, "addr=3");
        r.devices[EHCI_PLACE] = device_test_add(r.t, &ehci_class, "addr=3.7");
        r.devices[HUB_PLACE] = device_test_add(r.t, &usb_hub_class, NULL);
        r.devices[KEYBOARD_PLACE] = device_test_add(r.t, &usb_kbd_class, "bus=usb-hub");
        r.devices[MOUSE_PLACE] = device_test_add(r.t, &usb_mouse_class, "bus=usb-hub");
        device_test_start(r.t);
    }
    device_free(r.devices[STICK_PLACE]);
    r.devices[STICK_PLACE] = fuzz_add_stick(r.t, r.disk, "bus=usb-hub,port=3");
    device_test_reset(r.t);
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    ehci_driver_map(&r.d, r.t);
    test_write(r.t, uhci_config_gpa(0x20), UHCI_IO, 4);
    test_write(r.t, uhci_config_gpa(PCI_COMMAND), PCI_COMMAND_IO | PCI_COMMAND_MASTER, 2);
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left)
        step(r, &in);
    fuzz_pause(r->t, r->devices[STICK_PLACE]);
    if (size % 8 == 0)
        for (unsigned n = 0; n < DEVICES; n++)
            device_test_round_trip(r->t, r->devices[n]);
    move_stick(r, 0);
    FUZZ_CLAIM(open_device(r, (uint8_t)(size << 4)));
    return 0;
}
