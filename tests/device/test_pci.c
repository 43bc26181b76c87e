/*
 * test_pci.c - configuration space, BARs, INTx, MSI, MSI-X, ECAM, with a device made for it
 */
#include "cmocka_all.h"

#include <stdio.h>
#include <unistd.h>

#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/pci.h"

#define ECAM  0xe0000000ull
#define CF8   0xcf8
#define CFC   0xcfc
#define SLOT  3
#define BAR0  0xc0100000u  /* 4 KiB of memory: registers */
#define BAR2  0xc000u      /* 16 ports */
#define BAR4  0x800000000u /* 64 KiB above 4 GiB: MSI-X tables, RAM-like rest */
#define TABLE 0x8000
#define PBA   0x9000

/* ---- the device ---- */

struct probe {
    struct pci_function pci;
    uint32_t memory_register, port_register;
    uint64_t last_offset;
    unsigned config_reads, config_writes, vector_changes;
};

static struct probe *probe_of(struct device *dev)
{
    return container_of(dev, struct probe, pci.dev);
}

static uint64_t memory_bar_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    probe_of(dev)->last_offset = offset;
    return probe_of(dev)->memory_register;
}

static void memory_bar_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    probe_of(dev)->last_offset = offset;
    probe_of(dev)->memory_register = (uint32_t)value;
}

static uint64_t port_bar_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return probe_of(dev)->port_register;
}

static void port_bar_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    probe_of(dev)->port_register = (uint32_t)(value + offset);
}

static const struct region_ops memory_bar = {
    .name = "probe-memory", .read = memory_bar_read, .write = memory_bar_write};
static const struct region_ops port_bar = {
    .name = "probe-ports", .read = port_bar_read, .write = port_bar_write};

static void config_read(struct pci_function *function, unsigned offset, unsigned size)
{
    (void)offset, (void)size;
    probe_of(&function->dev)->config_reads++;
}

static void config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    (void)offset, (void)size;
    probe_of(&function->dev)->config_writes++;
}

static void vectors_changed(struct pci_function *function)
{
    probe_of(&function->dev)->vector_changes++;
}

static const uint8_t vendor_contents[6] = {8, 0x11, 0x22, 0x33, 0x44, 0x55};
static const uint8_t vendor_writable[6] = {0, 0xff, 0x0f, 0, 0, 0};
static const struct pci_capability_desc vendor_capability = {
    .id = PCI_CAP_VENDOR,
    .size_bytes = 8,
    .contents = vendor_contents,
    .writable = vendor_writable,
};

static const struct pci_function_desc probe_desc = {
    .vendor_id = 0x1234,
    .device_id = 0x5678,
    .subsystem_vendor_id = 0x1111,
    .subsystem_id = 0x2222,
    .class_code = 0x010802,
    .revision = 7,
    .interrupt_pin = 1,
    .bar =
        {
            [0] = {.kind = PCI_BAR_MEMORY32, .size_bytes = 4096, .ops = &memory_bar},
            [2] = {.kind = PCI_BAR_IO, .size_bytes = 16, .ops = &port_bar},
            [4] = {.kind = PCI_BAR_MEMORY64, .size_bytes = 65536, .prefetchable = true},
        },
    .capabilities = &vendor_capability,
    .capability_count = 1,
    .msi_vectors = 4,
    .msix_vectors = 5,
    .msix_bar = 4,
    .msix_table_offset = TABLE,
    .msix_pba_offset = PBA,
    .config_read = config_read,
    .config_written = config_written,
    .vectors_changed = vectors_changed,
};

static int probe_attach(struct device *dev, struct error *err)
{
    return pci_attach(&probe_of(dev)->pci, dev->class->pci, err);
}

static void probe_detach(struct device *dev)
{
    pci_detach(&probe_of(dev)->pci);
}

static int probe_after_load(void *object, struct error *err)
{
    return pci_after_load(object, err);
}

static const struct property probe_properties[] = {PCI_PROPERTIES(struct probe, pci), PROPERTY_END};

static const struct state_field probe_state[] = {
    PCI_STATE(struct probe, pci),
    STATE_U32(struct probe, memory_register),
    STATE_END,
};

static const struct device_class probe_class = {
    .name = "pci-probe",
    .summary = "PCI function for tests",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct probe),
    .properties = probe_properties,
    .pci = &probe_desc,
    .attach = probe_attach,
    .detach = probe_detach,
    .state = {.version = 1, .oldest = 1, .fields = probe_state, .after_load = probe_after_load},
};

/* ---- the machine ---- */

struct fixture {
    struct device_test *t;
    struct device *host, *isa;
    struct probe *probe;
    struct test_irq pirq[PCI_PIRQS], irq10;
};

static struct fixture f;

static int set_up(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(0)};
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.isa = device_test_add(f.t, &pci_isa_class, NULL);
    f.probe = probe_of(device_test_add(f.t, &probe_class, "addr=3"));
    for (unsigned i = 0; i < PCI_PIRQS; i++)
        test_irq_connect(&f.pirq[i], device_output(f.host, "pirq", i));
    test_irq_connect(&f.irq10, device_output(f.isa, "isa", 10));
    device_test_start(f.t);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint64_t ecam(unsigned slot, unsigned offset)
{
    return ECAM + (slot << 15) + offset;
}

static uint32_t get(unsigned offset, unsigned size)
{
    return (uint32_t)test_read(f.t, ecam(SLOT, offset), size);
}

static void set(unsigned offset, uint32_t value, unsigned size)
{
    test_write(f.t, ecam(SLOT, offset), value, size);
}

static void select_register(unsigned slot, unsigned offset)
{
    test_outl(f.t, CF8, 0x80000000u | slot << 11 | (offset & 0xfc));
}

static void program_bars(void)
{
    set(PCI_BAR0, BAR0, 4);
    set(PCI_BAR0 + 8, BAR2, 4);
    set(PCI_BAR0 + 16, (uint32_t)BAR4, 4);
    set(PCI_BAR0 + 20, BAR4 >> 32, 4);
}

static void enable(uint16_t command)
{
    set(PCI_COMMAND, command, 2);
}

#define ALL (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

static unsigned capability(uint8_t id)
{
    unsigned offset = get(PCI_CAPABILITIES, 1);

    while (offset && get(offset, 1) != id)
        offset = get(offset + 1, 1);
    assert_true(offset != 0);
    return offset;
}

static void intx(bool level)
{
    machine_lock(f.t->machine);
    pci_set_intx(&f.probe->pci, level);
    machine_unlock(f.t->machine);
}

static void notify(unsigned vector)
{
    machine_lock(f.t->machine);
    pci_notify(&f.probe->pci, vector);
    machine_unlock(f.t->machine);
}

/* ---- configuration mechanism ---- */

static void mechanism_1_reads_in_all_sizes(void **state)
{
    (void)state;
    select_register(SLOT, 0);
    assert_int_equal(test_inl(f.t, CF8), 0x80001800);
    assert_int_equal(test_inl(f.t, CFC), 0x56781234);
    assert_int_equal(test_inw(f.t, CFC + 2), 0x5678);
    assert_int_equal(test_inb(f.t, CFC + 1), 0x12);
    select_register(SLOT, PCI_REVISION);
    assert_int_equal(test_inl(f.t, CFC), 0x01080207);
    select_register(0, 0);
    assert_int_equal(test_inl(f.t, CFC), 0x29c08086);
    select_register(31, 0);
    assert_int_equal(test_inl(f.t, CFC), 0x29188086);
}

static void nothing_answers_elsewhere(void **state)
{
    (void)state;
    select_register(4, 0);
    assert_int_equal(test_inl(f.t, CFC), 0xffffffff);
    test_outl(f.t, CF8, 0x80000000u | 1 << 16); /* bus 1 */
    assert_int_equal(test_inl(f.t, CFC), 0xffffffff);
    test_outl(f.t, CF8, SLOT << 11); /* not enabled */
    assert_int_equal(test_inl(f.t, CFC), 0xffffffff);
    assert_int_equal(test_read(f.t, ecam(4, 0), 4), 0xffffffff);
    assert_int_equal(test_read(f.t, ecam(SLOT, 0x100), 4), 0xffffffff);
    assert_int_equal(test_read(f.t, ECAM + (1 << 20), 4), 0xffffffff);
}

static void narrow_accesses_pass_the_address_register(void **state)
{
    (void)state;
    select_register(SLOT, 0);
    test_outb(f.t, CF8, 0x10);
    test_outw(f.t, CF8, 0x1010);
    assert_int_equal(test_inl(f.t, CF8), 0x80001800);
}

static void reset_control_resets_on_the_rising_cpu_bit(void **state)
{
    (void)state;
    enable(ALL);
    test_outb(f.t, 0xcf9, 0x02);
    device_test_loop(f.t);
    assert_int_equal(test_inb(f.t, 0xcf9), 0x02);
    assert_int_equal(get(PCI_COMMAND, 2), ALL);
    test_outb(f.t, 0xcf9, 0x06);
    device_test_loop(f.t);
    assert_int_equal(test_inb(f.t, 0xcf9), 0);
    assert_int_equal(get(PCI_COMMAND, 2), 0);
}

static void ecam_and_ports_see_the_same(void **state)
{
    (void)state;
    set(PCI_INTERRUPT_LINE, 0x5a, 1);
    select_register(SLOT, PCI_INTERRUPT_LINE);
    assert_int_equal(test_inb(f.t, CFC), 0x5a);
    test_outb(f.t, CFC, 0xa5);
    assert_int_equal(get(PCI_INTERRUPT_LINE, 2), 0x01a5);
    assert_int_equal(get(PCI_VENDOR_ID, 8), 0x56781234);
    assert_int_equal(test_read(f.t, ecam(SLOT, PCI_SUBSYSTEM_VENDOR_ID), 8) >> 32, 0);
}

static void ecam_can_be_moved(void **state)
{
    (void)state;
    test_write(f.t, ecam(0, 0x60), 0xd0000001, 4);
    assert_int_equal(test_read(f.t, 0xd0000000, 4), 0x29c08086);
    assert_int_equal(test_read(f.t, ECAM, 4), 0xffffffff);
    select_register(0, 0x60);
    test_outl(f.t, CFC, 0xe0000005); /* 64 MiB */
    assert_int_equal(test_read(f.t, ECAM, 4), 0x29c08086);
    test_outl(f.t, CFC, 0);
    assert_int_equal(test_read(f.t, ECAM, 4), 0xffffffff);
    device_test_reset(f.t);
    assert_int_equal(test_read(f.t, ECAM, 4), 0x29c08086);
}

static void read_only_fields_stay(void **state)
{
    (void)state;
    for (unsigned offset = 0; offset < PCI_HEADER_END; offset += 4)
        set(offset, 0xffffffff, 4);
    assert_int_equal(get(PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(get(PCI_REVISION, 4), 0x01080207);
    assert_int_equal(get(PCI_SUBSYSTEM_VENDOR_ID, 4), 0x22221111);
    assert_int_equal(get(PCI_COMMAND, 2), 0x547);
    assert_int_equal(get(PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(get(PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
}

/* ---- BARs ---- */

static void bars_tell_their_size(void **state)
{
    static const uint32_t expected[6] = {0xfffff000, 0, 0xfffffff1, 0, 0xffff000c, 0xffffffff};

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        set(PCI_BAR0 + 4 * i, 0xffffffff, 4);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(get(PCI_BAR0 + 4 * i, 4), expected[i]);
}

static void bars_decode_when_enabled(void **state)
{
    (void)state;
    program_bars();
    test_write(f.t, BAR0, 0x1234, 4);
    assert_int_equal(f.probe->memory_register, 0);
    enable(PCI_COMMAND_MEMORY);
    test_write(f.t, BAR0 + 8, 0xabcd, 4);
    assert_int_equal(f.probe->memory_register, 0xabcd);
    assert_int_equal(f.probe->last_offset, 8);
    test_outl(f.t, BAR2 + 4, 1);
    assert_int_equal(f.probe->port_register, 0);
    enable(PCI_COMMAND_IO);
    test_outl(f.t, BAR2 + 4, 1);
    assert_int_equal(f.probe->port_register, 5);
    assert_int_equal(test_inl(f.t, BAR2), 5);
    assert_int_equal(test_read(f.t, BAR0, 4), 0xffffffff);
    enable(0);
    assert_int_equal(test_inl(f.t, BAR2), 0xffffffff);
}

static void bars_move(void **state)
{
    (void)state;
    program_bars();
    enable(ALL);
    set(PCI_BAR0, 0xc0200000, 4);
    assert_int_equal(test_read(f.t, BAR0, 4), 0xffffffff);
    assert_int_equal(test_read(f.t, 0xc0200000, 4), 0);
    set(PCI_BAR0 + 8, 0xd000, 4);
    assert_int_equal(test_inl(f.t, BAR2), 0xffffffff);
    assert_int_equal(test_inl(f.t, 0xd000), 0);
    assert_int_equal(test_read(f.t, BAR4, 4), 0); /* a BAR without registers */
    set(PCI_BAR0 + 20, 0x9, 4);
    assert_int_equal(test_read(f.t, BAR4, 4), 0xffffffff);
    assert_int_equal(test_read(f.t, 0x900000000, 4), 0);
}

static void a_bar_does_not_hide_ram_or_other_ports(void **state)
{
    (void)state;
    program_bars();
    test_write(f.t, 0x8000, 0x77, 4);
    enable(ALL);
    set(PCI_BAR0, 0x8000, 4);
    assert_int_equal(test_read(f.t, 0x8000, 4), 0x77);
    set(PCI_BAR0 + 8, 0xcf0, 4); /* where the host bridge is */
    select_register(SLOT, 0);
    assert_int_equal(test_inl(f.t, CFC), 0x56781234);
    set(PCI_BAR0 + 8, BAR2, 4);
    test_outl(f.t, BAR2, 3);
    assert_int_equal(f.probe->port_register, 3);
}

static void reset_unmaps_the_bars(void **state)
{
    (void)state;
    program_bars();
    enable(ALL);
    assert_int_equal(test_read(f.t, BAR0, 4), 0);
    device_test_reset(f.t);
    assert_int_equal(test_read(f.t, BAR0, 4), 0xffffffff);
    assert_int_equal(test_inl(f.t, BAR2), 0xffffffff);
    assert_int_equal(get(PCI_BAR0, 4), 0);
    assert_int_equal(get(PCI_BAR0 + 8, 4), 1);
    assert_int_equal(get(PCI_BAR0 + 16, 4), 0xc);
}

/* ---- capabilities and hooks ---- */

static void capabilities_are_listed_in_order(void **state)
{
    unsigned vendor = get(PCI_CAPABILITIES, 1), msi, msix;

    (void)state;
    assert_int_equal(get(vendor, 1), PCI_CAP_VENDOR);
    assert_int_equal(pci_capability_offset(&f.probe->pci, 0), vendor);
    msi = get(vendor + 1, 1);
    assert_int_equal(get(msi, 1), PCI_CAP_MSI);
    assert_int_equal(get(msi + 2, 2), 0x0184); /* 64 bits, masks, 4 vectors */
    msix = get(msi + 1, 1);
    assert_int_equal(get(msix, 1), PCI_CAP_MSIX);
    assert_int_equal(get(msix + 1, 1), 0);
    assert_int_equal(get(msix + 2, 2), 4);
    assert_int_equal(get(msix + 4, 4), TABLE | 4);
    assert_int_equal(get(msix + 8, 4), PBA | 4);
    set(vendor + 3, 0xff, 1);
    set(vendor + 4, 0xff, 1);
    set(vendor + 5, 0xff, 1);
    assert_int_equal(get(vendor + 2, 4), 0x332fff08);
}

static void hooks_are_called(void **state)
{
    (void)state;
    get(PCI_VENDOR_ID, 4);
    assert_int_equal(f.probe->config_reads, 0);
    get(PCI_HEADER_END, 4);
    assert_int_equal(f.probe->config_reads, 1);
    set(PCI_INTERRUPT_LINE, 1, 1);
    assert_int_equal(f.probe->config_writes, 1);
    set(capability(PCI_CAP_MSIX) + 2, 0x8000, 2);
    assert_int_equal(f.probe->vector_changes, 1);
}

/* ---- INTx ---- */

static void intx_goes_to_the_slots_line(void **state)
{
    unsigned line = pci_pirq(SLOT, 1);

    (void)state;
    intx(true);
    assert_true(f.pirq[line].level);
    assert_int_equal(get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    enable(PCI_COMMAND_NO_INTX);
    assert_false(f.pirq[line].level);
    assert_int_equal(get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    enable(0);
    assert_true(f.pirq[line].level);
    intx(false);
    assert_false(f.pirq[line].level);
    assert_int_equal(get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
}

static void lines_are_shared_by_counting(void **state)
{
    struct probe *other = probe_of(device_test_add(f.t, &probe_class, "addr=b"));
    unsigned line = pci_pirq(SLOT, 1);

    (void)state;
    assert_int_equal(pci_pirq(0xb, 1), line);
    intx(true);
    machine_lock(f.t->machine);
    pci_set_intx(&other->pci, true);
    machine_unlock(f.t->machine);
    intx(false);
    assert_true(f.pirq[line].level);
    machine_lock(f.t->machine);
    pci_set_intx(&other->pci, false);
    machine_unlock(f.t->machine);
    assert_false(f.pirq[line].level);
}

static void messages_take_the_place_of_the_pin(void **state)
{
    unsigned line = pci_pirq(SLOT, 1);

    (void)state;
    intx(true);
    set(capability(PCI_CAP_MSIX) + 2, 0x8000, 2);
    assert_false(f.pirq[line].level);
    set(capability(PCI_CAP_MSIX) + 2, 0, 2);
    assert_true(f.pirq[line].level);
    device_test_reset(f.t);
    assert_false(f.pirq[line].level);
}

static void the_isa_bridge_routes_lines(void **state)
{
    unsigned line = pci_pirq(SLOT, 1); /* PIRQD: register 0x63 */

    (void)state;
    assert_int_equal(line, 3);
    intx(true);
    assert_false(f.irq10.level);
    assert_int_equal(test_read(f.t, ecam(31, 0x63), 1), 0x80);
    test_write(f.t, ecam(31, 0x63), 10, 1);
    assert_true(f.irq10.level);
    intx(false);
    assert_false(f.irq10.level);
    intx(true);
    test_write(f.t, ecam(31, 0x63), 0x8a, 1);
    assert_false(f.irq10.level);
    test_write(f.t, ecam(31, 0x63), 8, 1); /* IRQ 8 is the clock's */
    assert_false(device_output(f.isa, "isa", 8)->level);
}

/* ---- MSI ---- */

static void start_msi(uint16_t control)
{
    unsigned msi = capability(PCI_CAP_MSI);

    enable(ALL);
    set(msi + 4, 0xfee01000, 4);
    set(msi + 8, 0, 4);
    set(msi + 12, 0x4043, 2);
    set(msi + 2, control, 2);
}

static void msi_sends_the_vector_in_the_low_bits(void **state)
{
    (void)state;
    start_msi(0x0021); /* four vectors */
    notify(2);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_address, 0xfee01000);
    assert_int_equal(f.t->msi_data, 0x4042);
    start_msi(0x0001); /* one vector: all share it */
    notify(3);
    assert_int_equal(f.t->msi_data, 0x4043);
    notify(4); /* there is none such */
    assert_int_equal(f.t->msi_count, 2);
}

static void masked_msi_waits(void **state)
{
    unsigned msi = capability(PCI_CAP_MSI);

    (void)state;
    start_msi(0x0021);
    set(msi + 16, 0xffffffff, 4);
    assert_int_equal(get(msi + 16, 4), 0xf);
    notify(1);
    notify(1);
    notify(3);
    assert_int_equal(f.t->msi_count, 0);
    assert_int_equal(get(msi + 20, 4), 0xa);
    set(msi + 16, 0xd, 4);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 0x4041);
    assert_int_equal(get(msi + 20, 4), 0x8);
}

static void messages_need_bus_mastering(void **state)
{
    (void)state;
    start_msi(0x0001);
    enable(PCI_COMMAND_MEMORY);
    notify(0);
    assert_int_equal(f.t->msi_count, 0);
    notify(0);
    enable(ALL);
    notify(0);
    assert_int_equal(f.t->msi_count, 1);
}

static void off_means_off(void **state)
{
    (void)state;
    enable(ALL);
    notify(0);
    assert_int_equal(f.t->msi_count, 0);
    assert_false(pci_uses_messages(&f.probe->pci));
}

/* ---- MSI-X ---- */

static void start_msix(uint16_t control)
{
    program_bars();
    enable(ALL);
    for (unsigned i = 0; i < 5; i++) {
        test_write(f.t, BAR4 + TABLE + 16 * i, 0xfee00000u + (i << 12), 4);
        test_write(f.t, BAR4 + TABLE + 16 * i + 4, 0, 4);
        test_write(f.t, BAR4 + TABLE + 16 * i + 8, 0x30 + i, 4);
        test_write(f.t, BAR4 + TABLE + 16 * i + 12, 0, 4);
    }
    set(capability(PCI_CAP_MSIX) + 2, control, 2);
}

static void msix_sends_each_vectors_message(void **state)
{
    (void)state;
    start_msix(0x8000);
    for (unsigned i = 0; i < 5; i++) {
        notify(i);
        assert_int_equal(f.t->msi_address, 0xfee00000u + (i << 12));
        assert_int_equal(f.t->msi_data, 0x30 + i);
    }
    notify(5);
    notify(UINT32_MAX);
    assert_int_equal(f.t->msi_count, 5);
}

static void masked_msix_waits_in_the_pba(void **state)
{
    (void)state;
    start_msix(0xc000);
    notify(1);
    notify(4);
    assert_int_equal(f.t->msi_count, 0);
    assert_int_equal(test_read(f.t, BAR4 + PBA, 4), 0x12);
    test_write(f.t, BAR4 + TABLE + 16 + 12, 1, 4);
    set(capability(PCI_CAP_MSIX) + 2, 0x8000, 2);
    assert_int_equal(f.t->msi_count, 1);
    assert_int_equal(f.t->msi_data, 0x34);
    assert_int_equal(test_read(f.t, BAR4 + PBA, 8), 0x02);
    test_write(f.t, BAR4 + PBA, 0, 4); /* read-only */
    test_write(f.t, BAR4 + TABLE + 16 + 12, 0, 4);
    assert_int_equal(f.t->msi_count, 2);
    assert_int_equal(f.t->msi_data, 0x31);
    assert_int_equal(test_read(f.t, BAR4 + PBA, 4), 0);
}

static void msix_entries_are_masked_after_reset(void **state)
{
    (void)state;
    start_msix(0x8000);
    device_test_reset(f.t);
    program_bars();
    enable(ALL);
    assert_int_equal(test_read(f.t, BAR4 + TABLE + 12, 4), 1);
    assert_int_equal(test_read(f.t, BAR4 + TABLE + 8, 4), 0);
    test_write(f.t, BAR4 + TABLE + 12, 0xfffffffe, 4); /* other bits are reserved */
    assert_int_equal(test_read(f.t, BAR4 + TABLE + 12, 8), 0);
    set(capability(PCI_CAP_MSIX) + 2, 0x8000, 2);
    notify(1);
    assert_int_equal(f.t->msi_count, 0);
}

/* ---- attaching ---- */

static int attach_as(const char *addr, const struct pci_function_desc *desc, struct error *err)
{
    struct device *dev = device_test_create(f.t, &probe_class, NULL);
    int rc;

    if (addr)
        device_set(dev, "addr", addr, NULL);
    machine_lock(f.t->machine);
    rc = pci_attach(&probe_of(dev)->pci, desc, err);
    pci_detach(&probe_of(dev)->pci);
    machine_unlock(f.t->machine);
    return rc;
}

static void places_are_checked(void **state)
{
    static const char *const wrong[] = {"20", "3.8", "", "x", "3.", "3.1.1", "-1"};
    struct error err = {0};

    (void)state;
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(attach_as(wrong[i], &probe_desc, NULL), -EINVAL);
    assert_int_equal(attach_as("3", &probe_desc, &err), -EBUSY);
    assert_non_null(strstr(err.text, "pci-probe"));
    assert_int_equal(attach_as("3.1", &probe_desc, NULL), 0);
    assert_int_equal(attach_as(NULL, &probe_desc, NULL), 0);
}

static void broken_descriptions_are_refused(void **state)
{
    struct pci_function_desc desc;

    (void)state;
    desc = probe_desc, desc.bar[0].size_bytes = 3000;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.bar[2].size_bytes = 512;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.bar[5].kind = PCI_BAR_IO, desc.bar[5].size_bytes = 4;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.msi_vectors = 3;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.msix_vectors = PCI_MSIX_MAX + 1;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.msix_pba_offset = TABLE + 8;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.msix_bar = 2;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
    desc = probe_desc, desc.interrupt_pin = 5;
    assert_int_equal(attach_as(NULL, &desc, NULL), -EINVAL);
}

static void the_bus_can_be_full(void **state)
{
    struct error err = {0};

    (void)state;
    for (unsigned i = 0; i < 29; i++)
        device_test_add(f.t, &probe_class, NULL);
    assert_int_equal(attach_as(NULL, &probe_desc, &err), -ENOSPC);
}

static void a_machine_without_bus_says_so(void **state)
{
    struct device_test *t = device_test_new(0);
    struct device *dev = device_test_create(t, &probe_class, NULL);
    struct error err = {0};

    (void)state;
    assert_int_equal(device_attach(dev, &err), -ENODEV);
    assert_non_null(strstr(err.text, "no PCI bus"));
    device_test_free(t);
}

/* ---- state ---- */

/* A saved state cannot make another function of it. */
static void what_the_guest_cannot_write_is_not_loaded(void **state)
{
    struct device *dev = &f.probe->pci.dev;
    const struct state_table *table = &dev->class->state;
    struct state_buffer saved = {0};
    struct error err = {0};

    (void)state;
    memset(f.probe->pci.config, 0xff, PCI_CONFIG_BYTES);
    assert_int_equal(state_save(table, dev, &saved, &err), 0);
    machine_lock(f.t->machine);
    assert_int_equal(state_load(table, dev, saved.data, saved.size_bytes, &err), 0);
    machine_unlock(f.t->machine);
    free(saved.data);
    assert_int_equal(get(PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(get(capability(PCI_CAP_VENDOR) + 2, 4), 0x332fff08);
    assert_int_equal(get(capability(PCI_CAP_MSIX) + 2, 2), 0xc004);
}

static void state_round_trip(void **state)
{
    (void)state;
    start_msix(0xc000);
    notify(2);
    intx(true);
    device_test_round_trip(f.t, &f.probe->pci.dev);
    assert_int_equal(test_read(f.t, BAR4 + PBA, 4), 4);
    set(capability(PCI_CAP_MSIX) + 2, 0x8000, 2);
    assert_int_equal(f.t->msi_data, 0x32);
    set(capability(PCI_CAP_MSIX) + 2, 0, 2);
    assert_true(f.pirq[pci_pirq(SLOT, 1)].level);
    device_test_round_trip(f.t, f.host);
    device_test_round_trip(f.t, f.isa);
}

/* ---- expansion ROM ---- */

#define ROM_GPA 0xc0200000u

static void a_rom_shows_its_file_when_enabled(void **state)
{
    char path[] = "/tmp/trapeze-rom-XXXXXX", properties[64];
    int fd = mkstemp(path);
    uint64_t config = ecam(5, PCI_ROM_ADDRESS);
    struct device *dev;

    (void)state;
    assert_int_equal(write(fd, "\x55\xaa rom", 6), 6);
    assert_int_equal(ftruncate(fd, 5000), 0);
    snprintf(properties, sizeof(properties), "addr=5,romfile=%s", path);
    dev = device_test_add(f.t, &probe_class, properties);
    close(fd);
    unlink(path);
    device_test_reset(f.t);
    test_write(f.t, config, UINT32_MAX, 4);
    assert_int_equal(test_read(f.t, config, 4), 0xffffe001); /* 8 KiB */
    test_write(f.t, config, ROM_GPA, 4);
    test_write(f.t, ecam(5, PCI_COMMAND), PCI_COMMAND_MEMORY, 2);
    assert_int_equal(test_read(f.t, ROM_GPA, 2), 0xffff); /* its own bit is off */
    test_write(f.t, config, ROM_GPA | 1, 4);
    assert_int_equal(test_read(f.t, ROM_GPA, 4), 0x7220aa55);
    test_write(f.t, ROM_GPA, 0, 4);
    assert_int_equal(test_read(f.t, ROM_GPA, 4), 0x7220aa55);
    device_test_round_trip(f.t, dev);
    assert_int_equal(test_read(f.t, ROM_GPA, 4), 0x7220aa55);
    test_write(f.t, ecam(5, PCI_COMMAND), 0, 2);
    assert_int_equal(test_read(f.t, ROM_GPA, 2), 0xffff);
    set(PCI_ROM_ADDRESS, UINT32_MAX, 4); /* a function without */
    assert_int_equal(get(PCI_ROM_ADDRESS, 4), 0);
}

static void a_rom_that_is_not_there_is_an_error(void **state)
{
    struct device *dev =
        device_test_create(f.t, &probe_class, "addr=5,romfile=/nowhere/at/all.rom");
    struct error err = {0};

    (void)state;
    machine_lock(f.t->machine);
    assert_int_not_equal(device_attach(dev, &err), 0);
    machine_unlock(f.t->machine);
    assert_non_null(strstr(err.text, "romfile: "));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mechanism_1_reads_in_all_sizes),
        TEST(nothing_answers_elsewhere),
        TEST(narrow_accesses_pass_the_address_register),
        TEST(reset_control_resets_on_the_rising_cpu_bit),
        TEST(ecam_and_ports_see_the_same),
        TEST(ecam_can_be_moved),
        TEST(read_only_fields_stay),
        TEST(bars_tell_their_size),
        TEST(bars_decode_when_enabled),
        TEST(bars_move),
        TEST(a_bar_does_not_hide_ram_or_other_ports),
        TEST(reset_unmaps_the_bars),
        TEST(capabilities_are_listed_in_order),
        TEST(hooks_are_called),
        TEST(intx_goes_to_the_slots_line),
        TEST(lines_are_shared_by_counting),
        TEST(messages_take_the_place_of_the_pin),
        TEST(the_isa_bridge_routes_lines),
        TEST(msi_sends_the_vector_in_the_low_bits),
        TEST(masked_msi_waits),
        TEST(messages_need_bus_mastering),
        TEST(off_means_off),
        TEST(msix_sends_each_vectors_message),
        TEST(masked_msix_waits_in_the_pba),
        TEST(msix_entries_are_masked_after_reset),
        TEST(places_are_checked),
        TEST(broken_descriptions_are_refused),
        TEST(the_bus_can_be_full),
        TEST(what_the_guest_cannot_write_is_not_loaded),
        TEST(state_round_trip),
        TEST(a_rom_shows_its_file_when_enabled),
        TEST(a_rom_that_is_not_there_is_an_error),
        cmocka_unit_test(a_machine_without_bus_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
