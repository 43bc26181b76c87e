/*
 * test_ioapic.c - the I/O APIC: registers, edge and level pins, EOI, ISA wiring
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/apic.h"
#include "devices/ioapic.h"
#include "devices/pic.h"

#define CPUS       2
#define MASKED     0x10000u
#define LEVEL      0x8000u
#define REMOTE_IRR 0x4000u

struct fixture {
    struct device_test *t;
    struct device *ioapic, *pic;
    struct isa_irqs isa;
};

static struct vcpu *cpu(struct fixture *f, unsigned i)
{
    return machine_vcpu(f->t->machine, i);
}

static void write_apic(struct fixture *f, unsigned i, uint32_t offset, uint32_t value)
{
    cpu(f, i)->apic_ops->mmio_write(cpu(f, i)->apic, offset, value, 4);
}

static int take(struct fixture *f, unsigned i)
{
    return cpu(f, i)->apic_ops->acknowledge(cpu(f, i)->apic);
}

static void eoi(struct fixture *f, unsigned i)
{
    write_apic(f, i, 0xb0, 0);
}

static uint32_t get(struct fixture *f, uint8_t reg)
{
    test_write(f->t, IOAPIC_GPA, reg, 4);
    return (uint32_t)test_read(f->t, IOAPIC_GPA + 0x10, 4);
}

static void set(struct fixture *f, uint8_t reg, uint32_t value)
{
    test_write(f->t, IOAPIC_GPA, reg, 4);
    test_write(f->t, IOAPIC_GPA + 0x10, value, 4);
}

static void route(struct fixture *f, unsigned pin, uint8_t destination, uint32_t low)
{
    set(f, (uint8_t)(0x11 + 2 * pin), (uint32_t)destination << 24);
    set(f, (uint8_t)(0x10 + 2 * pin), low);
}

static uint32_t entry(struct fixture *f, unsigned pin)
{
    return get(f, (uint8_t)(0x10 + 2 * pin));
}

static void line(struct fixture *f, unsigned pin, bool level)
{
    ioapic_sink(f->ioapic, pin, level);
}

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.t = device_test_new_smp(0, CPUS)};
    device_test_add(f.t, &apic_class, "vcpu=0");
    device_test_add(f.t, &apic_class, "vcpu=1");
    f.pic = device_test_add(f.t, &pic_class, NULL);
    f.ioapic = device_test_add(f.t, &ioapic_class, "apic-id=5");
    f.isa = (struct isa_irqs){.pic = f.pic, .ioapic = f.ioapic};
    device_test_start(f.t);
    for (unsigned i = 0; i < CPUS; i++)
        write_apic(&f, i, 0xf0, 0x1ff);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(((struct fixture *)*state)->t);
    return 0;
}

static void registers(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, 0), 5u << 24);
    assert_int_equal(get(f, 1), 0x00170020);
    assert_int_equal(get(f, 2), 5u << 24);
    set(f, 0, 0xffffffff);
    assert_int_equal(get(f, 0), 0x0f000000);
    set(f, 1, 0xffffffff);
    assert_int_equal(get(f, 1), 0x00170020);
    assert_int_equal(entry(f, 0), MASKED);
    set(f, 0x10, 0xffffffff);
    assert_int_equal(entry(f, 0), 0x1afff);
    set(f, 0x11, 0xffffffff);
    assert_int_equal(get(f, 0x11), 0xff000000);
    set(f, 0x3f, 0x12345678);
    assert_int_equal(get(f, 0x3f), 0x12000000);
    set(f, 0x40, 0xffffffff); /* no such register */
    assert_int_equal(get(f, 0x40), 0);
    assert_int_equal(test_read(f->t, IOAPIC_GPA, 4), 0x40);
    assert_int_equal(test_read(f->t, IOAPIC_GPA + 0x20, 4), 0);
    /* the index may be written as a byte */
    test_write(f->t, IOAPIC_GPA, 1, 1);
    assert_int_equal(test_read(f->t, IOAPIC_GPA + 0x10, 4), 0x00170020);
}

static void an_edge_is_one_interrupt(void **state)
{
    struct fixture *f = *state;

    route(f, 4, 1, 0x41);
    line(f, 4, true);
    assert_int_equal(take(f, 0), -1);
    assert_int_equal(take(f, 1), 0x41);
    eoi(f, 1);
    line(f, 4, true);
    assert_int_equal(take(f, 1), -1);
    line(f, 4, false);
    line(f, 4, true);
    assert_int_equal(take(f, 1), 0x41);
}

static void tick(struct fixture *f, unsigned pin)
{
    line(f, pin, true);
    line(f, pin, false);
}

static void ticks_are_made_up_for(void **state)
{
    struct fixture *f = *state;

    route(f, 2, 1, 0x30);
    for (unsigned n = 0; n < 5; n++)
        tick(f, 2);
    for (unsigned n = 0; n < 5; n++) {
        assert_int_equal(take(f, 1), 0x30);
        assert_int_equal(take(f, 1), -1);
        eoi(f, 1);
    }
    assert_int_equal(take(f, 1), -1);
    /* One that is served does not keep the next from waiting. */
    tick(f, 2);
    assert_int_equal(take(f, 1), 0x30);
    tick(f, 2);
    tick(f, 2);
    eoi(f, 1);
    assert_int_equal(take(f, 1), 0x30);
    eoi(f, 1);
    assert_int_equal(take(f, 1), 0x30);
    eoi(f, 1);
    assert_int_equal(take(f, 1), -1);
    /* Not those of other pins, nor of a pin that was masked */
    route(f, 4, 1, 0x41);
    tick(f, 4);
    tick(f, 4);
    assert_int_equal(take(f, 1), 0x41);
    eoi(f, 1);
    assert_int_equal(take(f, 1), -1);
    tick(f, 2);
    tick(f, 2);
    set(f, 0x14, MASKED | 0x30);
    set(f, 0x14, 0x30);
    assert_int_equal(take(f, 1), 0x30);
    eoi(f, 1);
    assert_int_equal(take(f, 1), -1);
}

static void a_masked_edge_is_lost(void **state)
{
    struct fixture *f = *state;

    route(f, 4, 0, MASKED | 0x41);
    line(f, 4, true);
    set(f, 0x18, 0x41);
    assert_int_equal(take(f, 0), -1);
}

static void a_level_pin_waits_for_eoi(void **state)
{
    struct fixture *f = *state;

    route(f, 16, 0, LEVEL | 0x61);
    line(f, 16, true);
    assert_int_equal(entry(f, 16), LEVEL | REMOTE_IRR | 0x61);
    assert_int_equal(take(f, 0), 0x61);
    line(f, 16, false);
    line(f, 16, true);
    assert_int_equal(take(f, 0), -1); /* remote IRR */
    eoi(f, 0);
    assert_int_equal(take(f, 0), 0x61); /* still asserted */
    line(f, 16, false);
    eoi(f, 0);
    assert_int_equal(entry(f, 16), LEVEL | 0x61);
    assert_int_equal(take(f, 0), -1);
}

static void an_unmasked_level_pin_interrupts(void **state)
{
    struct fixture *f = *state;

    route(f, 16, 0, MASKED | LEVEL | 0x61);
    line(f, 16, true);
    assert_int_equal(take(f, 0), -1);
    set(f, 0x30, LEVEL | 0x61);
    assert_int_equal(take(f, 0), 0x61);
}

static void the_eoi_register_clears_remote_irr(void **state)
{
    struct fixture *f = *state;

    write_apic(f, 0, 0xf0, 0x11ff); /* no broadcast */
    route(f, 16, 0, LEVEL | 0x61);
    line(f, 16, true);
    assert_int_equal(take(f, 0), 0x61);
    line(f, 16, false);
    eoi(f, 0);
    assert_int_equal(entry(f, 16), LEVEL | REMOTE_IRR | 0x61);
    test_write(f->t, IOAPIC_GPA + 0x40, 0x60, 4);
    assert_int_equal(entry(f, 16), LEVEL | REMOTE_IRR | 0x61);
    test_write(f->t, IOAPIC_GPA + 0x40, 0x61, 4);
    assert_int_equal(entry(f, 16), LEVEL | 0x61);
}

static void edge_mode_clears_remote_irr(void **state)
{
    struct fixture *f = *state;

    route(f, 16, 0, LEVEL | 0x61);
    line(f, 16, true);
    assert_int_equal(entry(f, 16), LEVEL | REMOTE_IRR | 0x61);
    set(f, 0x30, MASKED | 0x61);
    set(f, 0x30, MASKED | LEVEL | 0x61);
    assert_int_equal(entry(f, 16), MASKED | LEVEL | 0x61);
}

static void a_refused_level_message_leaves_no_remote_irr(void **state)
{
    struct fixture *f = *state;

    route(f, 16, 7, LEVEL | 0x61); /* nobody there */
    line(f, 16, true);
    assert_int_equal(entry(f, 16), LEVEL | 0x61);
    set(f, 0x31, 1u << 24); /* now there is */
    assert_int_equal(take(f, 1), 0x61);
}

static void other_delivery_modes(void **state)
{
    struct fixture *f = *state;

    vcpu_take(cpu(f, 1), ~0u);
    route(f, 3, 1, 0x400);
    line(f, 3, true);
    assert_int_equal(vcpu_take(cpu(f, 1), ~0u), VCPU_EVENT_NMI);
    route(f, 5, 1, 0x200);
    line(f, 5, true);
    assert_int_equal(vcpu_take(cpu(f, 1), ~0u), VCPU_EVENT_SMI);
    route(f, 6, 1, 0x500);
    line(f, 6, true);
    assert_int_equal(vcpu_take(cpu(f, 1), ~0u), VCPU_EVENT_INIT);
}

static void extint_fetches_the_vector_from_the_pic(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x20, 0x13);
    test_outb(f->t, 0x21, 0x30);
    test_outb(f->t, 0x21, 0x01);
    pic_sink(f->pic, 1, true);
    route(f, 0, 1, 0x700);
    line(f, 0, true);
    assert_int_equal(take(f, 1), 0x31);
    assert_int_equal(take(f, 1), -1);
}

static void logical_destinations(void **state)
{
    struct fixture *f = *state;

    write_apic(f, 0, 0xd0, 1u << 24);
    write_apic(f, 1, 0xd0, 2u << 24);
    route(f, 9, 3, 0x841); /* logical, fixed: both */
    line(f, 9, true);
    assert_int_equal(take(f, 0), 0x41);
    assert_int_equal(take(f, 1), 0x41);
    eoi(f, 0);
    eoi(f, 1);
    route(f, 9, 3, 0x951); /* lowest priority: one */
    line(f, 9, false);
    line(f, 9, true);
    int first = take(f, 0), second = take(f, 1);
    assert_int_equal(first + second, 0x51 - 1);
}

static void isa_lines_reach_both_controllers(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x20, 0x11);
    test_outb(f->t, 0x21, 0x30);
    test_outb(f->t, 0x21, 0x04);
    test_outb(f->t, 0x21, 0x01);
    route(f, 2, 0, 0x41);
    route(f, 4, 0, 0x51);
    isa_irq_sink(&f->isa, 0, true); /* the override: pin 2 */
    assert_int_equal(take(f, 0), 0x41);
    assert_int_equal(machine_pic_acknowledge(f->t->machine), 0x30);
    test_outb(f->t, 0x20, 0x20);
    isa_irq_sink(&f->isa, 4, true);
    assert_int_equal(take(f, 0), 0x51);
    assert_int_equal(machine_pic_acknowledge(f->t->machine), 0x34);
    isa_irq_sink(&f->isa, 2, true); /* there is no IRQ2 */
    isa_irq_sink(&f->isa, 16, true);
    assert_int_equal(take(f, 0), -1);
}

static void wrong_pins_are_ignored(void **state)
{
    struct fixture *f = *state;

    line(f, 24, true);
    line(f, ~0u, true);
    assert_int_equal(take(f, 0), -1);
}

static void the_state_survives_a_round_trip(void **state)
{
    struct fixture *f = *state;

    route(f, 16, 0, LEVEL | 0x61);
    line(f, 16, true);
    device_test_round_trip(f->t, f->ioapic);
    assert_int_equal(entry(f, 16), LEVEL | REMOTE_IRR | 0x61);
    assert_int_equal(take(f, 0), 0x61);
    eoi(f, 0);
    assert_int_equal(take(f, 0), 0x61);
}

static void it_needs_local_apics(void **state)
{
    struct device_test *t = device_test_new(0);
    struct device *dev = device_test_create(t, &ioapic_class, NULL);
    struct error err = {0};

    (void)state;
    assert_int_equal(device_attach(dev, &err), -ENODEV);
    assert_non_null(strstr(err.text, "local APIC"));
    device_test_free(t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers),
        TEST(an_edge_is_one_interrupt),
        TEST(ticks_are_made_up_for),
        TEST(a_masked_edge_is_lost),
        TEST(a_level_pin_waits_for_eoi),
        TEST(an_unmasked_level_pin_interrupts),
        TEST(the_eoi_register_clears_remote_irr),
        TEST(edge_mode_clears_remote_irr),
        TEST(a_refused_level_message_leaves_no_remote_irr),
        TEST(other_delivery_modes),
        TEST(extint_fetches_the_vector_from_the_pic),
        TEST(logical_destinations),
        TEST(isa_lines_reach_both_controllers),
        TEST(wrong_pins_are_ignored),
        TEST(the_state_survives_a_round_trip),
        cmocka_unit_test(it_needs_local_apics),
    };

    return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
