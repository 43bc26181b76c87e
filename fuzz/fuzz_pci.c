/*
 * fuzz_pci.c - random configuration cycles, BAR placements, interrupts and BAR accesses
 *
 * Two functions with all kinds of BARs, MSI and MSI-X beside the host and ISA bridges. Claims: a
 * line is up exactly while somebody holds it; what a function's BARs show stays inside
 * them; the states survive a round trip.
 */
#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/pci.h"

#define ECAM      0xe0000000ull
#define FUNCTIONS 2

struct probe {
    struct pci_function pci;
};

static void check_access(uint64_t offset, unsigned size, uint64_t limit)
{
    FUZZ_CLAIM(offset < limit && size <= limit - offset && offset % size == 0);
}

static uint64_t page_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)dev;
    check_access(offset, size, 4096);
    return offset;
}

static void page_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)dev, (void)value;
    check_access(offset, size, 4096);
}

static uint64_t ports_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)dev;
    check_access(offset, size, 32);
    return offset;
}

static void ports_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)dev, (void)value;
    check_access(offset, size, 32);
}

static const struct region_ops page_ops = {
    .name = "page", .read = page_read, .write = page_write, .max_size = 8};
static const struct region_ops ports_ops = {
    .name = "ports", .read = ports_read, .write = ports_write};

static const struct pci_function_desc probe_desc = {
    .vendor_id = 0x1234,
    .device_id = 0x5678,
    .class_code = 0xff0000,
    .interrupt_pin = 2,
    .bar = {[0] = {.kind = PCI_BAR_MEMORY32, .size_bytes = 4096, .ops = &page_ops},
            [1] = {.kind = PCI_BAR_IO, .size_bytes = 32, .ops = &ports_ops},
            [2] = {.kind = PCI_BAR_MEMORY64, .size_bytes = 8192},
            [4] = {.kind = PCI_BAR_MEMORY32, .size_bytes = 16}},
    .msi_vectors = 8,
    .msix_vectors = 70,
    .msix_bar = 2,
    .msix_pba_offset = 4096,
};

static int probe_attach(struct device *dev, struct error *err)
{
    return pci_attach(pci_function_of(dev), dev->class->pci, err);
}

static void probe_detach(struct device *dev)
{
    pci_detach(pci_function_of(dev));
}

static int probe_after_load(void *object, struct error *err)
{
    return pci_after_load(object, err);
}

static const struct property probe_properties[] = {PCI_PROPERTIES(struct probe, pci), PROPERTY_END};
static const struct state_field probe_state[] = {PCI_STATE(struct probe, pci), STATE_END};

static const struct device_class probe_class = {
    .name = "pci-probe",
    .summary = "PCI function for fuzzing",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct probe),
    .properties = probe_properties,
    .pci = &probe_desc,
    .attach = probe_attach,
    .detach = probe_detach,
    .state = {.version = 1, .oldest = 1, .fields = probe_state, .after_load = probe_after_load},
};

struct rig {
    struct device_test *t;
    struct device *host, *isa, *probe[FUNCTIONS];
};

static struct pci_function *function(struct rig *r, unsigned which)
{
    return pci_function_of(r->probe[which % FUNCTIONS]);
}

/* A configuration write to one of the four functions, through ECAM or the ports. */
static void configure(struct rig *r, struct fuzz_input *in)
{
    static const uint8_t slots[4] = {0, 1, 2, 31};
    uint16_t where = (uint16_t)fuzz_take(in, 2);
    unsigned size = 1u << (where >> 8 & 3) % 3, slot = slots[where >> 14];
    uint32_t value = (uint32_t)fuzz_take(in, size);

    if (where & 0x1000) {
        test_write(r->t, ECAM + (slot << 15) + (where & 0xff), value, size);
    } else {
        test_outl(r->t, 0xcf8, 0x80000000u | slot << 11 | (where & 0xfc));
        bus_port_write(r->t->machine, (uint16_t)(0xcfc + (where & 3 & ~(size - 1))), value, size);
    }
}

/* Wherever a BAR says it is. */
static void access_bar(struct rig *r, struct fuzz_input *in)
{
    uint16_t what = (uint16_t)fuzz_take(in, 2);
    const struct pci_bar *bar = &function(r, what)->bars[(what >> 1) % (PCI_BARS + 1)];
    uint64_t gpa = bar->gpa + fuzz_take(in, 2);
    unsigned size = 1u << (what >> 4 & 3);

    if (what & 0x100)
        test_write(r->t, gpa, fuzz_take(in, 4), size);
    else if (what & 0x200)
        test_read(r->t, gpa, size);
    else if (what & 0x400)
        bus_port_write(r->t->machine, (uint16_t)gpa, 0, size & 3 ? size : 4);
    else
        bus_port_read(r->t->machine, (uint16_t)gpa, size & 3 ? size : 4);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what & 7) {
    case 0:
    case 1:
    case 2:
        configure(r, in);
        break;
    case 3:
    case 4:
        access_bar(r, in);
        break;
    case 5:
        FUZZ_LOCKED(r->t, pci_set_intx(function(r, what >> 3), what & 0x80));
        break;
    case 6:
        FUZZ_LOCKED(r->t, pci_notify(function(r, what >> 3), (unsigned)fuzz_take(in, 1)));
        break;
    default:
        if (what & 0x80)
            test_outl(r->t, 0xcf8, (uint32_t)fuzz_take(in, 4));
        else
            test_read(r->t, ECAM + fuzz_take(in, 4) % (1u << 28), 4);
        break;
    }
}

static void check_lines(struct rig *r)
{
    unsigned held[PCI_PIRQS] = {0};

    for (unsigned i = 0; i < FUNCTIONS; i++)
        held[pci_pirq(function(r, i)->slot, 2)] += function(r, i)->wire_level;
    for (unsigned i = 0; i < PCI_PIRQS; i++)
        FUZZ_CLAIM(device_output(r->host, "pirq", i)->level == (held[i] > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One machine for all inputs, because building one takes longer than an input. */
static struct rig *rig(void)
{
    static struct rig r;

    if (!r.t) {
        r.t = device_test_new(0);
        r.host = device_test_add(r.t, &pci_host_class, NULL);
        r.isa = device_test_add(r.t, &pci_isa_class, NULL);
        for (unsigned i = 0; i < FUNCTIONS; i++)
            r.probe[i] = device_test_add(r.t, &probe_class, NULL);
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();
    bool loaded = false;
    while (in.left) {
        if (*in.data == 0xfe) {
            struct device *all[4] = {r->host, r->isa, r->probe[0], r->probe[1]};

            fuzz_take(&in, 1);
            FUZZ_LOCKED(r->t, fuzz_load_state(&in, all[in.left % 4]));
            loaded = true;
        }
        step(r, &in);
        if (!loaded)
            check_lines(r);
    }
    device_test_round_trip(r->t, size % 3 == 0 ? r->host : size % 3 == 1 ? r->isa : r->probe[0]);
    return 0;
}
