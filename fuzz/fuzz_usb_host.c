/*
 * fuzz_usb_host.c - a USB device of the host that lies, and a guest that drives it
 *
 * The input is the device: its descriptors, how its transfers and changes end and when, whether it
 * is pulled out; and a driver's requests, transfers, commands, resets, and pauses of the machine.
 * Claims: what was submitted ends, at the latest when the device is taken out; the controller's
 * state survives a round trip; whatever happened, an honest device on the same port works.
 */
#include "devices/devices.h"
#include "fuzz_device.h"
#include "usb_host_rig.h"
#include "xhci_driver.h"

#define RAM_BYTES        (1u << 20)
#define DATA             (XHCI_DATA_AREA + 0x1000)
#define DESCRIPTOR_BYTES 256u
#define PORT             5u
#define SLOT             1u

struct rig {
    struct device_test *t;
    struct device *xhci, *dev;
    struct fake_host host;
    struct xhci_driver d;
    bool is_paused;
    uint8_t descriptors[DESCRIPTOR_BYTES];
};

/* Those of an honest device, of which some bytes are others. */
static void take_descriptors(struct rig *r, struct fuzz_input *in)
{
    size_t size = sizeof(fake_descriptors);

    memcpy(r->descriptors, fake_descriptors, size);
    for (unsigned n = (unsigned)fuzz_take(in, 1) % 16; n; n--) {
        size_t at = fuzz_take(in, 1) % DESCRIPTOR_BYTES;

        r->descriptors[at] = (uint8_t)fuzz_take(in, 1);
        size = at >= size ? at + 1 : size;
    }
    if (fuzz_take(in, 1) & 1)
        size = fuzz_take(in, 1) % (size + 1);
    fake_init(&r->host, r->t, 480, r->descriptors, size);
    r->host.host.configuration = (uint8_t)fuzz_take(in, 1) % 4;
}

static void set_pause(struct rig *r, bool is_paused)
{
    if (r->is_paused == is_paused)
        return;
    r->is_paused = is_paused;
    FUZZ_LOCKED(r->t, (is_paused ? usb_host_class.quiesce : usb_host_class.resume)(r->dev));
}

static void set_silent(struct rig *r, bool is_silent)
{
    r->host.is_silent = is_silent;
    loop_defer(r->t->loop, fake_work, &r->host);
}

static void drop_events(struct rig *r)
{
    struct xhci_event event;

    for (unsigned n = 0; n < 64 && xhci_take(&r->d, &event); n++)
        ;
}

/* By a driver that begins anew. False: the device did not let it. */
static bool open_device(struct rig *r)
{
    set_pause(r, false);
    set_silent(r, false);
    r->host.submit_code = 0;
    xhci_driver_start(&r->d, r->t);
    return xhci_open(&r->d, PORT) == SLOT && xhci_choose(&r->d, SLOT) == XHCI_SUCCESS &&
           xhci_configure(&r->d, SLOT, 3, 6) == XHCI_SUCCESS &&
           xhci_configure(&r->d, SLOT, 4, 2) == XHCI_SUCCESS &&
           xhci_configure(&r->d, SLOT, 7, 7) == XHCI_SUCCESS;
}

static unsigned take_dci(uint8_t what)
{
    static const uint8_t dcis[] = {1, 3, 4, 7};

    return dcis[what >> 4 & 3];
}

static void add_control(struct rig *r, struct fuzz_input *in)
{
    static const uint8_t types[] = {0x00, 0x01, 0x02, 0x80, 0x40, 0xc0};
    static const uint8_t numbers[] = {1, 3, 5, 6, 8, 9, 11, 48};
    uint8_t type = types[fuzz_take(in, 1) % sizeof(types)];
    uint8_t number = numbers[fuzz_take(in, 1) % sizeof(numbers)];
    uint16_t value = (uint16_t)fuzz_take(in, 2), index = (uint16_t)fuzz_take(in, 2);
    uint16_t length = (uint16_t)(type & USB_IN ? fuzz_take(in, 2) : fuzz_take(in, 1) % 8);
    struct xhci_driver_ring *ring = &r->d.endpoints[SLOT][1];

    if (!ring->gpa)
        return;
    xhci_add(&r->d, ring, usb_driver_setup(type, number, value, index, length), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT);
    if (length)
        xhci_add(&r->d, ring, DATA, length, XHCI_DATA << 10 | (type & USB_IN ? XHCI_TRB_IN : 0));
    xhci_add(&r->d, ring, 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC);
    xhci_ring(&r->d, SLOT, 1);
}

static void add_data(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    if (r->d.endpoints[SLOT][take_dci(what)].gpa)
        xhci_add_normal(&r->d, SLOT, take_dci(what), DATA, (uint32_t)fuzz_take(in, 2));
}

static void unplug(struct rig *r)
{
    if (r->host.host.gone)
        fake_unplug(&r->host);
    r->host.host.gone = NULL;
}

static void end_transfer(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    enum usb_host_result result = (enum usb_host_result)(what >> 4) % (USB_HOST_GONE + 1);
    unsigned n = (unsigned)fuzz_take(in, 1) % FAKE_TRANSFERS;

    while (n < FAKE_TRANSFERS && !r->host.transfers[n])
        n++;
    if (n < FAKE_TRANSFERS)
        fake_end(&r->host, n, result, NULL, (size_t)fuzz_take(in, 2));
    if (result == USB_HOST_GONE)
        unplug(r);
}

static void add_command(struct rig *r, uint8_t what)
{
    static const uint8_t types[] = {XHCI_STOP_ENDPOINT, XHCI_RESET_ENDPOINT, XHCI_SET_DEQUEUE,
                                    XHCI_RESET_DEVICE};
    unsigned type = types[what >> 6], dci = take_dci(what);
    const struct xhci_driver_ring *ring = &r->d.endpoints[SLOT][dci];

    if (!r->d.commands.gpa)
        return;
    xhci_add(&r->d, &r->d.commands,
             type == XHCI_SET_DEQUEUE ? (ring->gpa + 16 * ring->at) | ring->cycle : 0, 0,
             type << 10 | dci << 16 | SLOT << 24);
    test_write(r->t, XHCI_DOORBELL(0), 0, 4);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what % 16) {
    case 0:
        open_device(r);
        break;
    case 1:
    case 2:
        add_control(r, in);
        break;
    case 3:
    case 4:
        add_data(r, in, what);
        break;
    case 5:
    case 6:
        end_transfer(r, in, what);
        break;
    case 7:
        if (r->host.change)
            fake_end_change(&r->host, (enum usb_host_result)(what >> 4) % USB_HOST_CANCELLED);
        break;
    case 8:
        add_command(r, what);
        break;
    case 9:
        test_write(r->t, XHCI_PORTSC(PORT), 0x210, 4);
        break;
    case 10:
        set_silent(r, what & 0x10);
        r->host.answer = (enum usb_host_result)(what >> 5) % USB_HOST_CANCELLED;
        break;
    case 11:
        r->host.change_answer = (enum usb_host_result)(what >> 4) % USB_HOST_CANCELLED;
        break;
    case 12:
        set_pause(r, what & 0x10);
        break;
    case 13:
        r->host.submit_code = what & 0x10 ? -EIO : 0;
        break;
    case 14:
        if (what & 0x10)
            unplug(r);
        break;
    default:
        device_test_loop(r->t);
        drop_events(r);
        break;
    }
}

static void take_out(struct rig *r)
{
    set_pause(r, false);
    FUZZ_LOCKED(r->t, device_free(r->dev));
    FUZZ_CLAIM(r->host.closes == 1);
    for (unsigned n = 0; n < FAKE_TRANSFERS; n++)
        FUZZ_CLAIM(!r->host.transfers[n]);
}

/* What the device did before is not the next one's affair. */
static void claim_that_another_works(struct rig *r)
{
    fake_init(&r->host, r->t, 480, fake_descriptors, sizeof(fake_descriptors));
    FUZZ_LOCKED(r->t, r->dev = fake_add(&r->host));
    FUZZ_CLAIM(open_device(r));
    drop_events(r);
    xhci_add_normal(&r->d, SLOT, 3, DATA, 64);
    FUZZ_CLAIM(fake_end_next(&r->host, 0x81, USB_HOST_DONE, "honest", 6));
    FUZZ_CLAIM(xhci_finish(&r->d, NULL) == XHCI_SHORT_PACKET);
    FUZZ_CLAIM(memcmp(r->t->ram.hva + DATA, "honest", 6) == 0);
    take_out(r);
}

static struct rig *rig(void)
{
    static struct rig r;

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.xhci = device_test_add(r.t, &xhci_class, "addr=3");
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

    take_descriptors(r, &in);
    FUZZ_LOCKED(r->t, r->dev = fake_add(&r->host));
    open_device(r);
    while (in.left)
        step(r, &in);
    if (size % 8 == 0)
        device_test_round_trip(r->t, r->xhci);
    take_out(r);
    claim_that_another_works(r);
    return 0;
}
