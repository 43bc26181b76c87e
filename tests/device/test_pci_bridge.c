/*
 * test_pci_bridge.c - bridges and root ports: the way through them, interrupts, hot plug
 */
#include "cmocka_all.h"

#include "device_test.h"
#include "devices/devices.h"
#include "devices/pcie_port.h"
#include "trapeze/pci.h"

#define ECAM 0xe0000000ull
#define BASE 0xc0000000ull
#define ALL  (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

/* A function with a BAR of memory and one of I/O; what was written is there to be read. */
struct probe {
    struct pci_function pci;
    uint32_t value;
    unsigned resets;
};

static uint64_t probe_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return container_of(dev, struct probe, pci.dev)->value;
}

static void probe_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)offset, (void)size;
    container_of(dev, struct probe, pci.dev)->value = (uint32_t)value;
}

static const struct region_ops probe_ops = {
    .name = "probe", .read = probe_read, .write = probe_write, .min_size = 4, .max_size = 4};

static int probe_attach(struct device *dev, struct error *err)
{
    const struct pci_function_desc desc = {
        .vendor_id = 0x1234,
        .device_id = 0x5678,
        .class_code = 0x010802,
        .interrupt_pin = 1,
        .msi_vectors = 1,
        .bar = {{.kind = PCI_BAR_MEMORY32, .size_bytes = 4096, .ops = &probe_ops},
                {.kind = PCI_BAR_IO, .size_bytes = 16, .ops = &probe_ops}},
    };

    return pci_attach(pci_function_of(dev), &desc, err);
}

static void probe_reset(struct device *dev)
{
    struct probe *s = container_of(dev, struct probe, pci.dev);

    s->value = 0;
    s->resets++;
}

static void probe_detach(struct device *dev)
{
    pci_detach(pci_function_of(dev));
}

static const struct property probe_properties[] = {PCI_PROPERTIES(struct probe, pci), PROPERTY_END};

static const struct device_class probe_class = {
    .name = "probe",
    .summary = "a function to look at",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct probe),
    .properties = probe_properties,
    .attach = probe_attach,
    .reset = probe_reset,
    .detach = probe_detach,
};

static struct {
    struct device_test *t;
    struct device *host;
    struct test_irq pirq[PCI_PIRQS];
} f;

static int set_up(void **state)
{
    (void)state;
    f.t = device_test_new(1 << 20);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    for (unsigned n = 0; n < PCI_PIRQS; n++)
        test_irq_connect(&f.pirq[n], device_output(f.host, "pirq", n));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint32_t get(unsigned bus, unsigned slot, unsigned offset, unsigned size)
{
    return (uint32_t)test_read(f.t, ECAM + (bus << 20) + (slot << 15) + offset, size);
}

static void set(unsigned bus, unsigned slot, unsigned offset, uint32_t value, unsigned size)
{
    test_write(f.t, ECAM + (bus << 20) + (slot << 15) + offset, value, size);
}

/* A bridge at slot leads to buses first to last, with windows of memory and I/O, and is on. */
static void program_bridge(unsigned bus, unsigned slot, unsigned first, unsigned last)
{
    set(bus, slot, PCI_PRIMARY_BUS, bus | first << 8 | last << 16, 4);
    set(bus, slot, PCI_MEMORY_BASE, (BASE >> 16) | (uint32_t)((BASE + 0xfffff) & 0xfff00000u), 4);
    set(bus, slot, PCI_IO_BASE, 0xe0 | 0xe0 << 8, 2); /* 0xe000-0xefff */
    set(bus, slot, PCI_COMMAND, ALL, 2);
}

static void program_probe(unsigned bus, unsigned slot)
{
    set(bus, slot, PCI_BAR0, BASE + 0x1000 * slot, 4);
    set(bus, slot, PCI_BAR0 + 4, 0xe100 + 16 * slot, 4);
    set(bus, slot, PCI_COMMAND, ALL, 2);
}

static bool answers(unsigned slot)
{
    test_write(f.t, BASE + 0x1000 * slot, 0x1234567 + slot, 4);
    return test_read(f.t, BASE + 0x1000 * slot, 4) == 0x1234567 + slot;
}

/* ---- bridges ---- */

static void add_bridge(void)
{
    device_test_add(f.t, &pci_bridge_class, "addr=4");
}

static struct probe *probe_at(const char *properties)
{
    return container_of(device_test_add(f.t, &probe_class, properties), struct probe, pci.dev);
}

static struct probe *open_probe_behind_a_bridge(void)
{
    struct probe *s;

    add_bridge();
    s = probe_at("addr=pci-bridge/6");
    device_test_start(f.t);
    program_bridge(0, 4, 1, 1);
    program_probe(1, 6);
    return s;
}

static void configuration_cycles_follow_bus_numbers(void **state)
{
    (void)state;
    add_bridge();
    device_test_add(f.t, &pci_bridge_class, "addr=pci-bridge/5");
    device_test_add(f.t, &probe_class, "addr=pci-bridge-2/6.1");
    device_test_start(f.t);
    assert_int_equal(get(0, 4, 0, 4), 0x00011b36);
    assert_int_equal(get(0, 4, PCI_HEADER_TYPE, 1), 1);
    assert_int_equal(get(0, 4, PCI_CLASS, 1), 0);
    assert_int_equal(get(1, 5, 0, 4), 0xffffffff); /* nobody knows the way */
    set(0, 4, PCI_PRIMARY_BUS, 0x00050100, 4);
    assert_int_equal(get(1, 5, 0, 4), 0x00011b36);
    assert_int_equal(get(1, 4, 0, 4), 0xffffffff);
    set(1, 5, PCI_PRIMARY_BUS, 0x00040301, 4);
    assert_int_equal(test_read(f.t, ECAM + (3 << 20) + (6 << 15) + (1 << 12), 4), 0x56781234);
    assert_int_equal(get(2, 6, 0, 4), 0xffffffff);
    assert_int_equal(get(4, 6, 0, 4), 0xffffffff);
    set(0, 4, PCI_SUBORDINATE_BUS, 2, 1); /* the first bridge leads no further */
    assert_int_equal(get(3, 6, 0x1000, 4), 0xffffffff);
    device_test_reset(f.t);
    assert_int_equal(get(1, 5, 0, 4), 0xffffffff);
}

static void windows_let_accesses_through(void **state)
{
    (void)state;
    open_probe_behind_a_bridge();
    assert_true(answers(6));
    test_outl(f.t, 0xe160, 0xabcdef);
    assert_int_equal(test_inl(f.t, 0xe160), 0xabcdef);
    set(0, 4, PCI_IO_LIMIT, 0, 1);
    assert_int_equal(test_inl(f.t, 0xe160), 0xffffffff);
    assert_true(answers(6));
    set(0, 4, PCI_MEMORY_BASE, (BASE >> 16) + 16, 2); /* begins behind it */
    assert_false(answers(6));
    set(0, 4, PCI_PREFETCH_BASE, BASE >> 16, 2);
    set(0, 4, PCI_PREFETCH_LIMIT, BASE >> 16, 2);
    assert_true(answers(6));
    set(0, 4, PCI_PREFETCH_BASE_HIGH, 1, 4);
    assert_false(answers(6));
    set(0, 4, PCI_PREFETCH_BASE_HIGH, 0, 4);
    assert_true(answers(6));
    set(0, 4, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    assert_false(answers(6));
    set(0, 4, PCI_COMMAND, ALL, 2);
    assert_true(answers(6));
}

static void pins_are_rotated_at_each_bridge(void **state)
{
    struct probe *near, *far;

    (void)state;
    add_bridge();
    device_test_add(f.t, &pci_bridge_class, "addr=pci-bridge/5");
    near = probe_at("addr=pci-bridge/6");
    far = probe_at("addr=pci-bridge-2/2");
    device_test_start(f.t);
    machine_lock(f.t->machine);
    pci_set_intx(&near->pci, true);
    machine_unlock(f.t->machine);
    assert_true(f.pirq[(4 + 2) % 8].level); /* INTA of slot 6 is INTC of the bridge in slot 4 */
    machine_lock(f.t->machine);
    pci_set_intx(&far->pci, true);
    machine_unlock(f.t->machine);
    assert_true(f.pirq[(4 + 3) % 8].level); /* slot 2: INTC; slot 5: INTD */
    machine_lock(f.t->machine);
    pci_set_intx(&near->pci, false);
    pci_set_intx(&far->pci, false);
    machine_unlock(f.t->machine);
    for (unsigned n = 0; n < PCI_PIRQS; n++)
        assert_false(f.pirq[n].level);
}

static void a_bridge_that_is_no_master_stops_messages(void **state)
{
    struct probe *s;

    (void)state;
    s = open_probe_behind_a_bridge();
    machine_lock(f.t->machine);
    assert_true(pci_is_master(&s->pci));
    machine_unlock(f.t->machine);
    set(0, 4, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    machine_lock(f.t->machine);
    assert_false(pci_is_master(&s->pci));
    machine_unlock(f.t->machine);
}

static void a_reset_of_the_secondary_bus_resets_what_is_there(void **state)
{
    struct probe *s;
    unsigned resets;

    (void)state;
    s = open_probe_behind_a_bridge();
    assert_true(answers(6));
    resets = s->resets;
    set(0, 4, PCI_BRIDGE_CONTROL, PCI_BRIDGE_RESET, 2);
    set(0, 4, PCI_BRIDGE_CONTROL, 0, 2);
    assert_int_equal(s->resets, resets + 1);
    assert_int_equal(get(1, 6, PCI_COMMAND, 2), 0);
    assert_false(answers(6));
    program_probe(1, 6);
    assert_true(answers(6));
}

static void bridges_survive_saving(void **state)
{
    (void)state;
    open_probe_behind_a_bridge();
    device_test_round_trip(f.t, machine_find_device(f.t->machine, "pci-bridge"));
    assert_true(answers(6));
}

static int attach_error(const char *addr, const char *text)
{
    struct error err = {0};
    struct device *dev = device_new(f.t->machine, &probe_class, NULL, &err);
    int result;

    assert_int_equal(device_set(dev, "addr", addr, &err), 0);
    result = device_attach(dev, &err);
    if (result)
        assert_non_null(strstr(err.text, text));
    return result;
}

static void places_are_checked(void **state)
{
    (void)state;
    add_bridge();
    device_test_add(f.t, &pcie_port_class, "addr=5");
    assert_int_equal(attach_error("nothing/3", "nothing"), -ENOENT);
    assert_int_equal(attach_error("probe/3", "probe"), -ENOENT);
    assert_int_equal(attach_error("pcie-port/1", "1 slot"), -EINVAL);
    assert_int_equal(attach_error("pcie-port/", ""), 0);
    assert_int_equal(attach_error("pcie-port/", "taken"), -ENOSPC);
    assert_int_equal(attach_error("pci-bridge/", ""), 0);
}

/* ---- slots ---- */

#define PORT 5u

static unsigned express(void)
{
    unsigned at = get(0, PORT, PCI_CAPABILITIES, 1);

    assert_int_equal(get(0, PORT, at, 1), PCI_CAP_EXPRESS);
    return at;
}

static unsigned slot_status(void)
{
    return get(0, PORT, express() + PCI_EXPRESS_SLOT_STATUS, 2);
}

static void set_status(unsigned bits)
{
    set(0, PORT, express() + PCI_EXPRESS_SLOT_STATUS, bits, 2);
}

static void set_control(unsigned value)
{
    set(0, PORT, express() + PCI_EXPRESS_SLOT_CONTROL, value, 2);
}

static bool link_is_active(void)
{
    return get(0, PORT, express() + PCI_EXPRESS_LINK_STATUS, 2) & 0x2000;
}

#define EVENTS (0x1000u | 0x20u | 0x8u | 0x1u) /* link, interrupt, presence, button */
#define OFF    (0x400u | 0x3c0u)
#define ON     0x1c0u

static struct device *add_port(void)
{
    return device_test_add(f.t, &pcie_port_class, "addr=5,number=7");
}

static struct device *plug(void)
{
    struct device *dev = device_test_create(f.t, &probe_class, "addr=pcie-port/");
    struct error err = {0};

    machine_lock(f.t->machine);
    assert_int_equal(device_attach(dev, &err), 0);
    pci_power_on(pci_function_of(dev));
    machine_unlock(f.t->machine);
    return dev;
}

static bool port_interrupts(void)
{
    return f.pirq[pci_pirq(PORT, 1)].level;
}

static void a_card_that_comes_is_announced(void **state)
{
    (void)state;
    add_port();
    device_test_start(f.t);
    program_bridge(0, PORT, 1, 1);
    assert_int_equal(get(0, PORT, express() + PCI_EXPRESS_FLAGS, 2), 0x0142);
    assert_int_equal(get(0, PORT, express() + PCI_EXPRESS_SLOT, 4) >> 19, 7);
    assert_int_equal(slot_status(), 0);
    assert_int_equal(get(0, PORT, express() + PCI_EXPRESS_SLOT_CONTROL, 2), OFF);
    set_control(EVENTS | OFF);
    plug();
    assert_int_equal(slot_status(), 0x49); /* the button is pressed, too */
    assert_true(port_interrupts());
    assert_int_equal(get(1, 0, 0, 4), 0xffffffff); /* without power */
    assert_false(link_is_active());
    set_status(0x9);
    assert_int_equal(slot_status(), 0x40);
    assert_false(port_interrupts());
    set_control(EVENTS | ON);
    assert_int_equal(slot_status(), 0x140);
    assert_true(port_interrupts());
    assert_true(link_is_active());
    assert_int_equal(get(1, 0, 0, 4), 0x56781234);
    program_probe(1, 0);
    assert_true(answers(0));
    device_test_reset(f.t); /* a card that is there has power */
    assert_int_equal(slot_status(), 0x40);
    assert_true(link_is_active());
}

static void a_card_has_the_capability_of_an_endpoint(void **state)
{
    unsigned at;

    (void)state;
    add_port();
    device_test_add(f.t, &probe_class, "addr=pcie-port/");
    device_test_start(f.t);
    program_bridge(0, PORT, 1, 1);
    at = get(1, 0, PCI_CAPABILITIES, 1);
    assert_int_equal(get(1, 0, at, 1), PCI_CAP_EXPRESS);
    assert_int_equal(get(1, 0, at + PCI_EXPRESS_FLAGS, 2), 2);
    assert_int_equal(get(1, 0, at + PCI_EXPRESS_LINK_STATUS, 2), 0x11);
}

static void take_out(struct device *dev)
{
    machine_lock(f.t->machine);
    device_free(dev);
    machine_unlock(f.t->machine);
}

/* Linux ignores cards for a second after it has switched power off, but not the button. */
static void a_card_that_comes_at_once_is_announced_later(void **state)
{
    struct device *dev;

    (void)state;
    add_port();
    device_test_start(f.t);
    program_bridge(0, PORT, 1, 1);
    dev = plug();
    for (unsigned is_found = 0; is_found < 2; is_found++) {
        set_control(EVENTS | ON);
        take_out(dev);
        set_control(EVENTS | OFF);
        set_status(0x109);
        dev = plug();
        assert_int_equal(slot_status(), 0x48);
        set_status(0x8);
        if (is_found)
            set_control(EVENTS | ON);
        set_status(0x100);
        device_test_advance_ns(f.t, 2900000000ull);
        assert_int_equal(slot_status(), 0x40);
        device_test_advance_ns(f.t, 200000000ull);
        assert_int_equal(slot_status(), is_found ? 0x40 : 0x41);
        set_status(1);
    }
}

static void count_call(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void a_card_is_let_go_of_before_it_leaves(void **state)
{
    struct device *port, *dev;
    struct error err = {0};
    unsigned ready = 0, resets;

    (void)state;
    port = add_port();
    device_test_start(f.t);
    program_bridge(0, PORT, 1, 1);
    dev = plug();
    machine_lock(f.t->machine);
    assert_ptr_equal(pcie_port_of(pci_function_of(dev)), port);
    assert_null(pcie_port_find_empty(f.t->machine));
    assert_int_equal(pcie_port_press_button(port, count_call, &ready, &err), -ENXIO);
    machine_unlock(f.t->machine);
    set_control(EVENTS | ON);
    set_status(0x109);
    program_probe(1, 0);
    assert_true(answers(0));
    machine_lock(f.t->machine);
    assert_int_equal(pcie_port_press_button(port, count_call, &ready, &err), 0);
    assert_int_equal(pcie_port_press_button(port, count_call, &ready, &err), -EBUSY);
    machine_unlock(f.t->machine);
    assert_int_equal(slot_status(), 0x41);
    assert_true(port_interrupts());
    set_status(1);
    assert_false(port_interrupts());
    assert_int_equal(ready, 0);
    resets = container_of(dev, struct probe, pci.dev)->resets;
    set_control(EVENTS | OFF);
    assert_int_equal(ready, 1);
    assert_int_equal(container_of(dev, struct probe, pci.dev)->resets, resets + 1);
    assert_false(answers(0));
    assert_int_equal(get(1, 0, 0, 4), 0xffffffff);
    set_status(0x100);
    device_free(dev);
    assert_int_equal(slot_status(), 0x08);
    assert_true(port_interrupts());
    machine_lock(f.t->machine);
    assert_ptr_equal(pcie_port_find_empty(f.t->machine), port);
    machine_unlock(f.t->machine);
    set_control(EVENTS | OFF);
    assert_int_equal(ready, 1);
}

static void a_card_that_is_pulled_out_is_missed(void **state)
{
    struct device *dev;

    (void)state;
    add_port();
    device_test_start(f.t);
    program_bridge(0, PORT, 1, 1);
    dev = plug();
    set_control(EVENTS | ON);
    set_status(0x109);
    program_probe(1, 0);
    assert_true(answers(0));
    device_free(dev);
    assert_int_equal(slot_status(), 0x108);
    assert_true(port_interrupts());
    assert_false(answers(0));
    assert_false(link_is_active());
}

static void ports_survive_saving(void **state)
{
    struct device *port;

    (void)state;
    port = add_port();
    device_test_start(f.t);
    program_bridge(0, PORT, 1, 1);
    plug();
    set_control(EVENTS | OFF);
    device_test_round_trip(f.t, port);
    assert_int_equal(slot_status(), 0x48); /* the event is still there */
    assert_true(port_interrupts());
    set_status(0x8);
    set_control(EVENTS | ON);
    program_probe(1, 0);
    device_test_round_trip(f.t, port);
    assert_int_equal(slot_status(), 0x140);
    assert_true(link_is_active());
    assert_true(answers(0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(configuration_cycles_follow_bus_numbers),
        TEST(windows_let_accesses_through),
        TEST(pins_are_rotated_at_each_bridge),
        TEST(a_bridge_that_is_no_master_stops_messages),
        TEST(a_reset_of_the_secondary_bus_resets_what_is_there),
        TEST(bridges_survive_saving),
        TEST(places_are_checked),
        TEST(a_card_that_comes_is_announced),
        TEST(a_card_that_comes_at_once_is_announced_later),
        TEST(a_card_has_the_capability_of_an_endpoint),
        TEST(a_card_is_let_go_of_before_it_leaves),
        TEST(a_card_that_is_pulled_out_is_missed),
        TEST(ports_survive_saving),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
