/*
 * fuzz_pci_bridge.c - a hostile guest and a restless operator at bridges and slots
 *
 * A bridge with an NVMe disk behind it, and a port into whose slot another one comes and goes.
 * Steps are configuration cycles on four buses, accesses to registers, cards put in, asked for, and
 * pulled out, and saved states. Claims: a line is up exactly if a function holds it; a card answers
 * only where each bridge above lets it; a card in a slot without power does nothing; a button that
 * was pressed ends once.
 */
#include "devices/devices.h"
#include "devices/pcie_port.h"
#include "fuzz_device.h"
#include "machine/pci_internal.h"

#define ECAM       0xe0000000ull
#define BASE       0xc0000000ull
#define DISK_BYTES (64u << 10)

struct rig {
    struct device_test *t;
    struct device *host, *bridge, *port, *behind, *card;
    struct block *disks[2];
    unsigned ready;
    bool pressed;
};

static void card_is_ready(void *opaque)
{
    struct rig *r = opaque;

    FUZZ_CLAIM(r->pressed);
    r->pressed = false;
    r->ready++;
}

static struct device *new_disk(struct rig *r, unsigned which, const char *properties)
{
    struct device *dev = device_test_create(r->t, &nvme_class, properties);
    struct error err = {0};

    FUZZ_CLAIM(device_set_pointer(dev, "drive", r->disks[which], &err) == 0);
    FUZZ_CLAIM(device_attach(dev, &err) == 0);
    return dev;
}

static void put_in(struct rig *r)
{
    if (r->card)
        return;
    r->card = new_disk(r, 1, "addr=pcie-port/,queues=1");
    FUZZ_LOCKED(r->t, pci_power_on(pci_function_of(r->card)));
}

static void pull_out(struct rig *r)
{
    device_free(r->card);
    r->card = NULL;
    r->pressed = false;
}

static void press(struct rig *r)
{
    struct error err = {0};

    FUZZ_LOCKED(r->t, r->pressed |=
                      r->card && pcie_port_press_button(r->port, card_is_ready, r, &err) == 0);
}

/* What an honest guest writes, with numbers from the input where it matters. */
static void program(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    uint64_t bridge = ECAM + ((how & 1 ? 4u : 5u) << 15), bus = how & 1 ? 1 : 2;
    uint64_t card = ECAM + (bus << 20);

    test_write(r->t, bridge + PCI_PRIMARY_BUS, bus << 8 | bus << 16, 4);
    test_write(r->t, bridge + PCI_MEMORY_BASE, BASE >> 16 | (BASE + (how >> 4 << 20)), 4);
    test_write(r->t, bridge + PCI_COMMAND, 7, 2);
    test_write(r->t, card + PCI_BAR0, BASE + ((uint64_t)(how & 0xe) << 19), 4);
    test_write(r->t, card + PCI_BAR0 + 4, 0, 4);
    test_write(r->t, card + PCI_COMMAND, 6, 2);
}

static void configure(struct rig *r, struct fuzz_input *in)
{
    static const uint8_t slots[4] = {4, 5, 0, 0};
    uint16_t where = (uint16_t)fuzz_take(in, 2);
    unsigned size = 1u << (where >> 8 & 3) % 3, slot = slots[where >> 14], bus = where >> 12 & 3;
    uint64_t gpa = ECAM + (bus << 20) + (slot << 15) + (where & 0xff);

    if (where & 0x400)
        test_read(r->t, gpa, size);
    else
        test_write(r->t, gpa, fuzz_take(in, size), size);
}

static void slot_control(struct rig *r, struct fuzz_input *in)
{
    uint64_t at = test_read(r->t, ECAM + (5 << 15) + PCI_CAPABILITIES, 1);

    test_write(r->t, ECAM + (5 << 15) + at + PCI_EXPRESS_SLOT_CONTROL, fuzz_take(in, 4), 4);
}

static void access_registers(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint64_t gpa = BASE + ((uint64_t)(what & 7) << 20) + fuzz_take(in, 1) * 4;

    if (what & 8)
        test_read(r->t, gpa, 4);
    else
        test_write(r->t, gpa, fuzz_take(in, 4), 4);
}

static void save(struct rig *r, uint8_t what)
{
    bool is_port = what & 0x80;

    device_test_round_trip(r->t, is_port ? r->port : r->bridge);
    r->pressed = r->pressed && !is_port; /* its reset forgets it */
}

/* True: the rest of the input is a saved state. */
static bool step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what % 16) {
    case 0:
    case 1:
        program(r, in);
        break;
    case 2:
        put_in(r);
        break;
    case 3:
        pull_out(r);
        break;
    case 4:
    case 5:
        press(r);
        break;
    case 6:
    case 7:
        slot_control(r, in);
        break;
    case 8:
        FUZZ_LOCKED(r->t,
                    pci_set_intx(pci_function_of(what & 0x40 && r->card ? r->card : r->behind),
                                 what & 0x80));
        break;
    case 9:
    case 10:
        access_registers(r, in);
        break;
    case 11:
        save(r, what);
        break;
    case 12:
        if (what & 0x80) {
            FUZZ_LOCKED(r->t, fuzz_load_state(in, what & 0x40 ? r->bridge : r->port));
            return true;
        }
        break;
    default:
        configure(r, in);
        break;
    }
    return false;
}

static void check_card(struct rig *r, struct device *dev)
{
    struct pci_function *function = pci_function_of(dev);

    if (!function->bars[0].mapped)
        return;
    FUZZ_CLAIM(!function->bus->is_dark);
    FUZZ_CLAIM(pci_bus_forwards(function->bus, false, function->bars[0].gpa, 0x4000));
}

static void check(struct rig *r)
{
    struct device *all[4] = {r->bridge, r->port, r->behind, r->card};
    unsigned held[PCI_PIRQS] = {0};

    for (unsigned n = 0; n < 4; n++)
        if (all[n])
            held[pci_function_pirq(pci_function_of(all[n])) % PCI_PIRQS] +=
                pci_function_of(all[n])->wire_level;
    for (unsigned n = 0; n < PCI_PIRQS; n++)
        FUZZ_CLAIM(device_output(r->host, "pirq", n)->level == (held[n] > 0));
    check_card(r, r->behind);
    if (r->card)
        check_card(r, r->card);
}

static struct rig *rig(void)
{
    static struct rig r;

    if (!r.t) {
        r.t = device_test_new(0);
        for (unsigned n = 0; n < 2; n++)
            r.disks[n] = fuzz_disk(r.t->loop, DISK_BYTES);
        r.host = device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.bridge = device_test_add(r.t, &pci_bridge_class, "addr=4");
        r.port = device_test_add(r.t, &pcie_port_class, "addr=5");
        r.behind = new_disk(&r, 0, "addr=pci-bridge/,queues=1");
        device_test_start(r.t);
    }
    pull_out(&r);
    device_test_reset(r.t);
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left) {
        if (step(r, &in))
            return 0;
        check(r);
    }
    return 0;
}
