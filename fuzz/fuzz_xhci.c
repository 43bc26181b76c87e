/*
 * fuzz_xhci.c - a hostile driver of the xHCI controller and of the devices on it
 *
 * Steps are accesses to configuration space and registers, commands, transfers and contexts that
 * are well-formed and malformed, input of people, and saved states. Claims: states survive a round
 * trip; whatever happened, a reset makes the controller one that reads a descriptor.
 */
#include "fuzz_usb.h"
#include "xhci_driver.h"

#define RAM_BYTES  (1u << 20)
#define DISK_BYTES (256u << 10)
#define DEVICES    7
#define HUB_PORT   8u

struct rig {
    struct device_test *t;
    struct device *devices[DEVICES]; /* the controller, a stick, keyboard, tablet, mouse, a hub, a
                                        keyboard on it */
    struct xhci_driver d;
};

/* An address: of data, rings, contexts, the end of RAM, registers, or anywhere. */
static uint64_t take_gpa(struct fuzz_input *in)
{
    uint16_t value = (uint16_t)fuzz_take(in, 2);

    switch (value >> 13) {
    case 0:
        return RAM_BYTES - (value & 0x1fff);
    case 1:
        return value & 0x1000 ? XHCI_BAR + (value & 0xfff) * 4u : fuzz_take(in, 8);
    case 2:
    case 3:
        return XHCI_RINGS + (value & 0x3fff) * 16u;
    case 4:
        return XHCI_DCBAA + (value & 0x1fff) * 16u;
    default:
        return XHCI_DATA_AREA + (value & 0x3fffu) * 16u;
    }
}

static unsigned take_slot(uint8_t what)
{
    return 1 + (what >> 6) % XHCI_DRIVER_SLOTS;
}

static unsigned take_dci(uint8_t what)
{
    static const uint8_t dcis[4] = {1, 3, 4, 31};

    return dcis[what >> 4 & 3];
}

/* The keyboard behind the hub, which was opened. */
static void open_behind_hub(struct rig *r, unsigned hub_slot)
{
    unsigned slot;

    xhci_control(&r->d, hub_slot, usb_driver_setup(0x23, 3, 8, 1, 0), 0); /* power */
    xhci_control(&r->d, hub_slot, usb_driver_setup(0x23, 3, 4, 1, 0), 0); /* reset */
    slot = xhci_address(&r->d, HUB_PORT, 1);
    FUZZ_CLAIM(slot && xhci_choose(&r->d, slot) == XHCI_SUCCESS);
    FUZZ_CLAIM(xhci_configure(&r->d, slot, 3, 7) == XHCI_SUCCESS);
}

/* As an honest driver would, as far as the controller lets it. */
static void open_device(struct rig *r, uint8_t what)
{
    static const uint8_t ports[] = {1, 5, 6, 7, HUB_PORT};
    unsigned n = (what >> 4) % sizeof(ports), slot;
    struct xhci_event event;

    xhci_driver_start(&r->d, r->t);
    slot = xhci_open(&r->d, ports[n]);
    FUZZ_CLAIM(slot != 0);
    FUZZ_CLAIM(xhci_choose(&r->d, slot) == XHCI_SUCCESS);
    FUZZ_CLAIM(xhci_configure(&r->d, slot, 3, n ? 7 : 6) == XHCI_SUCCESS);
    FUZZ_CLAIM(n || xhci_configure(&r->d, slot, 4, 2) == XHCI_SUCCESS);
    if (ports[n] == HUB_PORT)
        open_behind_hub(r, slot);
    while (xhci_take(&r->d, &event))
        ;
}

static void add_command(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint32_t control = (uint32_t)fuzz_take(in, 1) % 26 << 10;

    control |= take_dci(what) << 16 | take_slot(what) << 24 | (uint32_t)(fuzz_take(in, 1) & 2) << 8;
    if (!r->d.commands.gpa)
        return;
    xhci_add(&r->d, &r->d.commands, what & 0x10 ? take_gpa(in) : XHCI_INPUT, 0, control);
    test_write(r->t, XHCI_DOORBELL(0), 0, 4);
}

static void add_transfer(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned slot = take_slot(what), dci = take_dci(what);
    struct xhci_driver_ring *ring = &r->d.endpoints[slot][dci];
    uint8_t flags = (uint8_t)fuzz_take(in, 1), type = (uint8_t)fuzz_take(in, 1) % 10;
    uint32_t control = type << 10 | (flags & 0x7eu) | (flags & 0x80 ? XHCI_TRB_IN : 0);

    if (!ring->gpa)
        return;
    xhci_add(&r->d, ring, type == XHCI_SETUP ? fuzz_take(in, 8) : take_gpa(in),
             (uint32_t)fuzz_take(in, 2) | (flags & 1 ? 0x400000 : 0), control);
    if (!(flags & XHCI_TRB_CHAIN))
        xhci_ring(&r->d, slot, dci);
}

/* A control transfer that is well-formed. */
static void add_control(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned slot = take_slot(what);
    uint64_t setup = fuzz_take(in, 6) & 0xffff0fffffffull;

    setup |= (fuzz_take(in, 1) & 0x7f) << 48;
    if (!r->d.endpoints[slot][1].gpa)
        return;
    xhci_add(&r->d, &r->d.endpoints[slot][1], setup, 8, XHCI_SETUP << 10 | XHCI_TRB_IDT);
    if (setup >> 48)
        xhci_add(&r->d, &r->d.endpoints[slot][1], XHCI_DATA_AREA, (uint32_t)(setup >> 48),
                 XHCI_DATA << 10 | (setup & USB_IN ? XHCI_TRB_IN : 0));
    xhci_add(&r->d, &r->d.endpoints[slot][1], 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC);
    xhci_ring(&r->d, slot, 1);
}

static void add_scsi(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint8_t opcodes[8] = {0x00, 0x03, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x35};
    uint8_t cdb[16] = {opcodes[what >> 4 & 7]};
    uint32_t length = (uint32_t)fuzz_take(in, 2);
    unsigned slot = take_slot(what);

    for (unsigned n = 1; n < 10; n++)
        cdb[n] = n == 2 || n == 3 || n == 4 ? 0 : (uint8_t)fuzz_take(in, 1);
    if (!r->d.endpoints[slot][4].gpa || !r->d.endpoints[slot][3].gpa)
        return;
    xhci_send_cbw(&r->d, slot, cdb, 10, length, !(what & 0x80));
    if (length)
        xhci_add_normal(&r->d, slot, what & 0x80 ? 4 : 3, XHCI_DATA_AREA + 0x1000, length);
    xhci_add_normal(&r->d, slot, 3, XHCI_DATA_AREA + 0x40, 13);
}

static void change_context(struct rig *r, struct fuzz_input *in)
{
    unsigned at = (unsigned)fuzz_take(in, 1) % 160;

    put_le32(r->t->ram.hva + XHCI_INPUT + 4 * at,
             at < 2 ? (uint32_t)fuzz_take(in, 4) : (uint32_t)fuzz_take(in, 2) << (at % 2 ? 3 : 0));
}

static void access_registers(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint16_t bases[4] = {0x40, 0x440, 0x1020, 0x2000};
    uint64_t gpa = XHCI_BAR + bases[what >> 6] + fuzz_take(in, 1) % 64 * 4;
    unsigned size = what & 0x20 ? 8 : 4;

    if (what & 0x10)
        test_read(r->t, gpa, size);
    else
        test_write(r->t, gpa & ~(uint64_t)(size - 1), fuzz_take(in, size), size);
}

static void take_input(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct input *input = machine_input(r->t->machine);
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    switch (what >> 5) {
    case 0:
    case 1:
        FUZZ_LOCKED(r->t, input_key(input, value, what & 0x20));
        break;
    case 2:
        FUZZ_LOCKED(r->t, input_pointer_at(input, value, value, 256, 200));
        break;
    case 3:
        FUZZ_LOCKED(r->t, input_pointer_moved(input, (int8_t)value * 9, value));
        break;
    case 4:
        FUZZ_LOCKED(r->t, input_buttons(input, value & 0x1f));
        break;
    default:
        FUZZ_LOCKED(r->t, input_wheel(input, (int8_t)value, what));
        break;
    }
}

static void drain(struct rig *r)
{
    fuzz_pause(r->t, r->devices[1]);
}

static void change_state(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct device *dev = r->devices[(what >> 4 & 7) % DEVICES];

    drain(r);
    fuzz_change_state(in, r->t, dev, what & 0x80);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct xhci_event event;

    switch (what % 16) {
    case 0:
        open_device(r, what);
        break;
    case 1:
    case 2:
        add_command(r, in, what);
        break;
    case 3:
    case 4:
        add_transfer(r, in, what);
        break;
    case 5:
        add_control(r, in, what);
        break;
    case 6:
    case 7:
        add_scsi(r, in, what);
        break;
    case 8:
        change_context(r, in);
        break;
    case 9:
        access_registers(r, in, what);
        break;
    case 10:
        test_write(r->t, xhci_config_gpa((unsigned)fuzz_take(in, 1) & ~3u), fuzz_take(in, 4), 4);
        break;
    case 11:
        test_write(r->t, take_gpa(in) & (RAM_BYTES - 4), fuzz_take(in, 4), 4);
        break;
    case 12:
        take_input(r, in, what);
        break;
    case 13:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 16));
        device_test_loop(r->t);
        break;
    case 14:
        drain(r);
        for (unsigned n = 0; n < 64 && xhci_take(&r->d, &event); n++)
            ;
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
        r.devices[0] = device_test_add(r.t, &xhci_class, "addr=3");
        r.devices[1] = fuzz_add_stick(r.t, fuzz_disk(r.t->loop, DISK_BYTES), NULL);
        r.devices[2] = device_test_add(r.t, &usb_kbd_class, NULL);
        r.devices[3] = device_test_add(r.t, &usb_tablet_class, NULL);
        r.devices[4] = device_test_add(r.t, &usb_mouse_class, NULL);
        r.devices[5] = device_test_add(r.t, &usb_hub_class, NULL);
        r.devices[6] = device_test_add(r.t, &usb_kbd_class, "bus=usb-hub");
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    r.d = (struct xhci_driver){.t = r.t};
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left)
        step(r, &in);
    drain(r);
    if (size % 8 == 0) /* which takes as long as many steps */
        for (unsigned n = 0; n < DEVICES; n++)
            device_test_round_trip(r->t, r->devices[n]);
    open_device(r, (uint8_t)(size << 4));
    return 0;
}
