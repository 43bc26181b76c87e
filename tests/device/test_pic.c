/*
 * test_pic.c - the 8259 pair: initialisation, priorities, EOI, modes, cascade, spurious
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/pic.h"

#define MASTER 0x20
#define SLAVE  0xa0

struct fixture {
    struct device_test *t;
    struct device *pic;
    struct test_irq intr;
};

static void initialise(struct fixture *f, uint8_t icw4)
{
    test_outb(f->t, MASTER, 0x11);
    test_outb(f->t, MASTER + 1, 0x20);
    test_outb(f->t, MASTER + 1, 0x04);
    test_outb(f->t, MASTER + 1, icw4);
    test_outb(f->t, SLAVE, 0x11);
    test_outb(f->t, SLAVE + 1, 0x28);
    test_outb(f->t, SLAVE + 1, 0x02);
    test_outb(f->t, SLAVE + 1, icw4);
}

static int set_up(void **state)
{
    static struct fixture f;

    f = (struct fixture){.t = device_test_new(0)};
    f.pic = device_test_add(f.t, &pic_class, NULL);
    test_irq_connect(&f.intr, pic_output(f.pic));
    device_test_start(f.t);
    initialise(&f, 0x01);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(((struct fixture *)*state)->t);
    return 0;
}

static void pulse(struct fixture *f, unsigned irq)
{
    pic_sink(f->pic, irq, true);
    pic_sink(f->pic, irq, false);
}

static int acknowledge(struct fixture *f)
{
    return machine_pic_acknowledge(f->t->machine);
}

static uint8_t read_isr(struct fixture *f, uint16_t port)
{
    test_outb(f->t, port, 0x0b);
    return test_inb(f->t, port);
}

static uint8_t read_irr(struct fixture *f, uint16_t port)
{
    test_outb(f->t, port, 0x0a);
    return test_inb(f->t, port);
}

static void an_edge_is_latched_and_acknowledged(void **state)
{
    struct fixture *f = *state;

    pulse(f, 3);
    assert_true(f->intr.level);
    assert_int_equal(read_irr(f, MASTER), 0x08);
    assert_int_equal(acknowledge(f), 0x23);
    assert_false(f->intr.level);
    assert_int_equal(read_irr(f, MASTER), 0x00);
    assert_int_equal(read_isr(f, MASTER), 0x08);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(read_isr(f, MASTER), 0x00);
}

static void a_held_edge_input_interrupts_once(void **state)
{
    struct fixture *f = *state;

    pic_sink(f->pic, 4, true);
    assert_int_equal(acknowledge(f), 0x24);
    test_outb(f->t, MASTER, 0x20);
    assert_false(f->intr.level);
    pic_sink(f->pic, 4, true);
    assert_false(f->intr.level);
}

static void masks_hold_requests_back(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, MASTER + 1, 0x08);
    pulse(f, 3);
    assert_false(f->intr.level);
    assert_int_equal(test_inb(f->t, MASTER + 1), 0x08);
    test_outb(f->t, MASTER + 1, 0x00);
    assert_true(f->intr.level);
    assert_int_equal(acknowledge(f), 0x23);
}

static void lower_priority_waits_for_eoi(void **state)
{
    struct fixture *f = *state;

    pulse(f, 3);
    assert_int_equal(acknowledge(f), 0x23);
    pulse(f, 5);
    assert_false(f->intr.level);
    pulse(f, 1);
    assert_true(f->intr.level);
    assert_int_equal(acknowledge(f), 0x21);
    test_outb(f->t, MASTER, 0x20); /* non-specific: ends 1 */
    assert_int_equal(read_isr(f, MASTER), 0x08);
    assert_false(f->intr.level);
    test_outb(f->t, MASTER, 0x63); /* specific: ends 3 */
    assert_int_equal(acknowledge(f), 0x25);
}

static void the_slave_interrupts_through_the_cascade(void **state)
{
    struct fixture *f = *state;

    pulse(f, 12);
    assert_int_equal(acknowledge(f), 0x2c);
    assert_int_equal(read_isr(f, MASTER), 0x04);
    assert_int_equal(read_isr(f, SLAVE), 0x10);
    pulse(f, 14); /* lower in the slave */
    pulse(f, 3);  /* lower than the cascade in the master */
    assert_false(f->intr.level);
    test_outb(f->t, SLAVE, 0x20);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(acknowledge(f), 0x2e);
    test_outb(f->t, SLAVE, 0x20);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(acknowledge(f), 0x23);
}

static void special_fully_nested_lets_the_slave_interrupt_again(void **state)
{
    struct fixture *f = *state;

    initialise(f, 0x11);
    pulse(f, 12);
    assert_int_equal(acknowledge(f), 0x2c);
    pulse(f, 3);
    assert_false(f->intr.level);
    pulse(f, 8);
    assert_true(f->intr.level);
    assert_int_equal(acknowledge(f), 0x28);
    assert_int_equal(read_isr(f, SLAVE), 0x11);
}

static void automatic_eoi_leaves_nothing_in_service(void **state)
{
    struct fixture *f = *state;

    initialise(f, 0x03);
    pulse(f, 12);
    pulse(f, 13);
    pulse(f, 6);
    assert_int_equal(acknowledge(f), 0x2c);
    assert_int_equal(read_isr(f, MASTER), 0);
    assert_int_equal(read_isr(f, SLAVE), 0);
    assert_int_equal(acknowledge(f), 0x2d);
    assert_int_equal(acknowledge(f), 0x26);
    assert_false(f->intr.level);
}

static void rotation_makes_the_served_input_the_lowest(void **state)
{
    struct fixture *f = *state;

    pulse(f, 3);
    assert_int_equal(acknowledge(f), 0x23);
    test_outb(f->t, MASTER, 0xa0); /* rotate on non-specific EOI */
    pulse(f, 3);
    pulse(f, 4);
    pulse(f, 1);
    assert_int_equal(acknowledge(f), 0x24);
    test_outb(f->t, MASTER, 0xe6); /* rotate on specific EOI of 6: 7 is first now */
    test_outb(f->t, MASTER, 0x64);
    pulse(f, 7);
    assert_int_equal(acknowledge(f), 0x27);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(acknowledge(f), 0x21);
}

static void set_priority_names_the_lowest(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, MASTER, 0xc4);
    pulse(f, 4);
    pulse(f, 0);
    pulse(f, 5);
    assert_int_equal(acknowledge(f), 0x25);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(acknowledge(f), 0x20);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(acknowledge(f), 0x24);
}

static void rotation_in_automatic_eoi_mode(void **state)
{
    struct fixture *f = *state;

    initialise(f, 0x03);
    test_outb(f->t, MASTER, 0x80);
    pulse(f, 0);
    assert_int_equal(acknowledge(f), 0x20);
    pulse(f, 0);
    pulse(f, 7);
    assert_int_equal(acknowledge(f), 0x27);
    test_outb(f->t, MASTER, 0x00); /* off: the order stays as it is */
    assert_int_equal(acknowledge(f), 0x20);
}

static void special_mask_mode_lets_lower_levels_through(void **state)
{
    struct fixture *f = *state;

    pulse(f, 3);
    assert_int_equal(acknowledge(f), 0x23);
    pulse(f, 5);
    assert_false(f->intr.level);
    test_outb(f->t, MASTER + 1, 0x08);
    assert_false(f->intr.level);
    test_outb(f->t, MASTER, 0x68);
    assert_true(f->intr.level);
    assert_int_equal(acknowledge(f), 0x25);
    test_outb(f->t, MASTER, 0x20); /* ends 5, not the masked 3 */
    assert_int_equal(read_isr(f, MASTER), 0x08);
    test_outb(f->t, MASTER, 0x48);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(read_isr(f, MASTER), 0x00);
}

static void polling_acknowledges(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, MASTER, 0x0c);
    assert_int_equal(test_inb(f->t, MASTER), 0x00);
    pulse(f, 6);
    test_outb(f->t, MASTER, 0x0c);
    assert_int_equal(test_inb(f->t, MASTER), 0x86);
    assert_false(f->intr.level);
    assert_int_equal(read_isr(f, MASTER), 0x40);
}

static void a_vanished_level_request_is_spurious_irq7(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x4d0, 0xff);
    assert_int_equal(test_inb(f->t, 0x4d0), 0xf8);
    pic_sink(f->pic, 5, true);
    assert_true(f->intr.level);
    pic_sink(f->pic, 5, false);
    assert_false(f->intr.level);
    assert_int_equal(acknowledge(f), 0x27);
    assert_int_equal(read_isr(f, MASTER), 0x00);
}

static void a_vanished_slave_request_is_spurious_irq15(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x4d1, 0xff);
    assert_int_equal(test_inb(f->t, 0x4d1), 0xde);
    pic_sink(f->pic, 11, true);
    pic_sink(f->pic, 11, false);
    assert_true(f->intr.level); /* the master has latched the cascade */
    assert_int_equal(acknowledge(f), 0x2f);
    assert_int_equal(read_isr(f, SLAVE), 0x00);
    assert_int_equal(read_isr(f, MASTER), 0x04);
}

static void level_inputs_interrupt_while_they_are_high(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x4d1, 0x08);
    pic_sink(f->pic, 11, true);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(acknowledge(f), 0x2b);
        assert_false(f->intr.level);
        test_outb(f->t, SLAVE, 0x20);
        test_outb(f->t, MASTER, 0x20);
        assert_true(f->intr.level);
    }
    assert_int_equal(acknowledge(f), 0x2b);
    pic_sink(f->pic, 11, false);
    test_outb(f->t, SLAVE, 0x20);
    test_outb(f->t, MASTER, 0x20);
    assert_false(f->intr.level);
}

static void icw1_clears_masks_and_edges(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, MASTER + 1, 0xff);
    pic_sink(f->pic, 3, true);
    initialise(f, 0x01);
    assert_int_equal(test_inb(f->t, MASTER + 1), 0x00);
    assert_false(f->intr.level); /* needs a new edge */
    pic_sink(f->pic, 3, false);
    pic_sink(f->pic, 3, true);
    assert_int_equal(acknowledge(f), 0x23);
}

static void icw4_is_asked_for_by_icw1(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, MASTER, 0x12); /* single, no ICW4 */
    test_outb(f->t, MASTER + 1, 0x48);
    test_outb(f->t, MASTER + 1, 0xfe); /* a mask already */
    assert_int_equal(test_inb(f->t, MASTER + 1), 0xfe);
    pulse(f, 0);
    assert_int_equal(acknowledge(f), 0x48);
}

static void nothing_is_requested_after_reset(void **state)
{
    struct fixture *f = *state;

    pic_sink(f->pic, 3, true);
    device_test_reset(f->t);
    assert_false(f->intr.level);
    pulse(f, 1);
    assert_false(f->intr.level);
    assert_int_equal(test_inb(f->t, MASTER + 1), 0xff);
}

static void the_state_survives_a_round_trip(void **state)
{
    struct fixture *f = *state;

    test_outb(f->t, 0x4d1, 0x08);
    pic_sink(f->pic, 11, true);
    pulse(f, 1);
    acknowledge(f);
    test_outb(f->t, SLAVE, 0x11); /* in the middle of an initialisation */
    device_test_round_trip(f->t, f->pic);
    assert_int_equal(read_isr(f, MASTER), 0x02);
    test_outb(f->t, SLAVE + 1, 0x70);
    test_outb(f->t, SLAVE + 1, 0x02);
    test_outb(f->t, SLAVE + 1, 0x01);
    test_outb(f->t, MASTER, 0x20);
    assert_int_equal(acknowledge(f), 0x73);
}

static void ticks_are_made_up_for(void **state)
{
    struct fixture *f = *state;

    for (unsigned n = 0; n < 5; n++)
        pulse(f, 0);
    for (unsigned n = 0; n < 5; n++) {
        assert_int_equal(acknowledge(f), 0x20);
        assert_false(f->intr.level);
        test_outb(f->t, MASTER, 0x20);
    }
    assert_false(f->intr.level);
    /* Not those of other inputs, nor of a mask, nor of another initialisation */
    pulse(f, 1);
    pulse(f, 1);
    assert_int_equal(acknowledge(f), 0x21);
    test_outb(f->t, MASTER, 0x20);
    assert_false(f->intr.level);
    pulse(f, 0);
    pulse(f, 0);
    test_outb(f->t, MASTER + 1, 0x01);
    test_outb(f->t, MASTER + 1, 0x00);
    assert_int_equal(acknowledge(f), 0x20);
    test_outb(f->t, MASTER, 0x20);
    assert_false(f->intr.level);
    pulse(f, 0);
    pulse(f, 0);
    initialise(f, 0x01);
    assert_false(f->intr.level);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_edge_is_latched_and_acknowledged),
        TEST(a_held_edge_input_interrupts_once),
        TEST(masks_hold_requests_back),
        TEST(ticks_are_made_up_for),
        TEST(lower_priority_waits_for_eoi),
        TEST(the_slave_interrupts_through_the_cascade),
        TEST(special_fully_nested_lets_the_slave_interrupt_again),
        TEST(automatic_eoi_leaves_nothing_in_service),
        TEST(rotation_makes_the_served_input_the_lowest),
        TEST(set_priority_names_the_lowest),
        TEST(rotation_in_automatic_eoi_mode),
        TEST(special_mask_mode_lets_lower_levels_through),
        TEST(polling_acknowledges),
        TEST(a_vanished_level_request_is_spurious_irq7),
        TEST(a_vanished_slave_request_is_spurious_irq15),
        TEST(level_inputs_interrupt_while_they_are_high),
        TEST(icw1_clears_masks_and_edges),
        TEST(icw4_is_asked_for_by_icw1),
        TEST(nothing_is_requested_after_reset),
        TEST(the_state_survives_a_round_trip),
    };

    return cmocka_run_group_tests_name("pic", tests, NULL, NULL);
}
