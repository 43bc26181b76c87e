/*
 * test_acpi_pm.c - ACPI fixed hardware: timer, power button, soft off, SMI command, GPE block
 */
#include "cmocka_all.h"
#include "device_test.h"
#include "devices/acpi_pm.h"

#define STATUS       ACPI_PM1_EVENT_PORT
#define ENABLE       (ACPI_PM1_EVENT_PORT + 2)
#define SMI_ENABLE   0x630 /* APMC_EN: firmware leaves the command port alone */
#define CONTROL      ACPI_PM1_CONTROL_PORT
#define TIMER        ACPI_PM_TIMER_PORT

#define TIMER_EVENT  0x0001
#define POWER_BUTTON 0x0100
#define WAKE         0x8000
#define SCI_ENABLE   0x0001
#define SLEEP_ENABLE 0x2000

struct fixture {
    struct device_test *t;
    struct device *pm;
    struct test_irq sci;
};

static struct fixture f;

static int set_up_with(const char *properties)
{
    f = (struct fixture){.t = device_test_new(0)};
    f.pm = device_test_add(f.t, &acpi_pm_class, properties);
    test_irq_connect(&f.sci, device_output(f.pm, "sci", 0));
    device_test_start(f.t);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with(NULL);
}

static int set_up_24_bit(void **state)
{
    (void)state;
    return set_up_with("timer-24-bit=on");
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static void press_power_button(void)
{
    machine_lock(f.t->machine);
    acpi_pm_press_power_button(f.pm);
    machine_unlock(f.t->machine);
}

static void timer_counts_3_579545_mhz(void **state)
{
    uint32_t before;

    (void)state;
    device_test_advance_ns(f.t, 12345);
    before = test_inl(f.t, TIMER);
    device_test_advance_ns(f.t, NANOSECONDS_PER_SECOND);
    assert_int_equal(test_inl(f.t, TIMER) - before, ACPI_PM_TIMER_HZ);
    assert_int_equal(test_inw(f.t, TIMER + 2), test_inl(f.t, TIMER) >> 16);
    test_outl(f.t, TIMER, 0);
    assert_true(test_inl(f.t, TIMER) > ACPI_PM_TIMER_HZ);
}

static void timer_wraps_at_24_bits(void **state)
{
    (void)state;
    device_test_advance_ns(f.t, 5 * NANOSECONDS_PER_SECOND);
    assert_int_equal(test_inl(f.t, TIMER), (5 * ACPI_PM_TIMER_HZ) & 0xffffff);
}

static void acpi_is_enabled_by_the_smi_command(void **state)
{
    (void)state;
    assert_int_equal(test_inw(f.t, CONTROL), 0);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, ACPI_ENABLE_VALUE);
    assert_int_equal(test_inw(f.t, CONTROL), SCI_ENABLE);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, ACPI_DISABLE_VALUE);
    assert_int_equal(test_inw(f.t, CONTROL), 0);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT + 1, 0x55);
    assert_int_equal(test_inw(f.t, ACPI_SMI_COMMAND_PORT), 0x5503);
}

/* 2^23 counts are 2.343 s. */
static void timer_status_is_set_when_the_top_bit_toggles(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, SCI_ENABLE);
    test_outw(f.t, ENABLE, TIMER_EVENT);
    device_test_advance_ns(f.t, 2343000000);
    assert_int_equal(test_inw(f.t, STATUS), 0);
    assert_false(f.sci.level);
    device_test_advance_ns(f.t, 1000000);
    assert_int_equal(test_inw(f.t, STATUS), TIMER_EVENT);
    assert_true(f.sci.level);
    test_outw(f.t, STATUS, TIMER_EVENT);
    assert_int_equal(test_inw(f.t, STATUS), 0);
    assert_false(f.sci.level);
    device_test_advance_ns(f.t, 2342000000);
    assert_false(f.sci.level);
    device_test_advance_ns(f.t, 1000000);
    assert_true(f.sci.level);
}

static void timer_status_needs_no_interrupt(void **state)
{
    (void)state;
    device_test_advance_ns(f.t, 3 * NANOSECONDS_PER_SECOND);
    assert_int_equal(test_inw(f.t, STATUS), TIMER_EVENT);
    test_outw(f.t, CONTROL, SCI_ENABLE);
    assert_false(f.sci.level);
    test_outw(f.t, ENABLE, TIMER_EVENT);
    assert_true(f.sci.level);
}

static void power_button_raises_the_sci_only_in_acpi_mode(void **state)
{
    (void)state;
    test_outw(f.t, ENABLE, POWER_BUTTON);
    press_power_button();
    assert_int_equal(test_inw(f.t, STATUS), POWER_BUTTON);
    assert_false(f.sci.level);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, ACPI_ENABLE_VALUE);
    assert_true(f.sci.level);
    test_outw(f.t, STATUS, TIMER_EVENT); /* another bit */
    assert_true(f.sci.level);
    test_outb(f.t, STATUS + 1, POWER_BUTTON >> 8);
    assert_int_equal(test_inw(f.t, STATUS), 0);
    assert_false(f.sci.level);
}

static void a_masked_power_button_is_quiet(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, SCI_ENABLE);
    press_power_button();
    assert_false(f.sci.level);
    test_outw(f.t, ENABLE, POWER_BUTTON);
    assert_true(f.sci.level);
    test_outw(f.t, ENABLE, 0);
    assert_false(f.sci.level);
}

static void s5_powers_off(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, SCI_ENABLE | ACPI_SLEEP_TYPE_S5 << 10);
    assert_int_equal(machine_stop_reason(f.t->machine), STOP_NONE);
    test_outw(f.t, CONTROL, SCI_ENABLE | ACPI_SLEEP_TYPE_S5 << 10 | SLEEP_ENABLE);
    assert_int_equal(machine_stop_reason(f.t->machine), STOP_GUEST_POWEROFF);
    assert_int_equal(machine_stop_status(f.t->machine), 0);
}

static void s3_is_saved_and_ends_with_a_reset(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, SCI_ENABLE | ACPI_SLEEP_TYPE_S3 << 10);
    assert_false(acpi_pm_is_asleep(f.pm));
    test_outw(f.t, CONTROL, SCI_ENABLE | ACPI_SLEEP_TYPE_S3 << 10 | SLEEP_ENABLE);
    assert_true(acpi_pm_is_asleep(f.pm));
    device_test_round_trip(f.t, f.pm);
    assert_true(acpi_pm_is_asleep(f.pm));
    device_test_reset(f.t);
    assert_false(acpi_pm_is_asleep(f.pm));
}

static void the_timer_wakes_nobody(void **state)
{
    (void)state;
    test_outw(f.t, ENABLE, TIMER_EVENT);
    test_outw(f.t, CONTROL, ACPI_SLEEP_TYPE_S3 << 10 | SLEEP_ENABLE);
    device_test_advance_ns(f.t, 3 * NANOSECONDS_PER_SECOND);
    assert_int_equal(test_inw(f.t, STATUS), TIMER_EVENT);
    device_test_loop(f.t);
    assert_true(acpi_pm_is_asleep(f.pm));
    machine_lock(f.t->machine);
    acpi_pm_raise_gpe(f.pm, 3);
    machine_unlock(f.t->machine);
    test_outb(f.t, ACPI_GPE0_PORT + ACPI_GPE0_SIZE / 2, 1 << 3); /* as if it had been enabled */
    device_test_loop(f.t);
    assert_false(acpi_pm_is_asleep(f.pm));
    assert_int_equal(test_inw(f.t, STATUS), TIMER_EVENT | WAKE);
    assert_int_equal(test_inb(f.t, ACPI_GPE0_PORT), 1 << 3);
}

static void other_sleep_states_do_nothing(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, 5 << 10 | SLEEP_ENABLE);
    assert_int_equal(machine_stop_reason(f.t->machine), STOP_NONE);
    assert_int_equal(test_inw(f.t, CONTROL), 5 << 10); /* SLP_EN reads as 0 */
}

static void gpe_block_latches_and_clears(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, SCI_ENABLE);
    test_outb(f.t, ACPI_GPE0_PORT + ACPI_GPE0_SIZE / 2 + 1, 0x04);
    machine_lock(f.t->machine);
    acpi_pm_raise_gpe(f.pm, 10);
    acpi_pm_raise_gpe(f.pm, ACPI_GPE_COUNT); /* there is none such */
    machine_unlock(f.t->machine);
    assert_true(f.sci.level);
    assert_int_equal(test_inl(f.t, ACPI_GPE0_PORT), 0x400);
    test_outl(f.t, ACPI_GPE0_PORT, 0x400);
    assert_int_equal(test_inl(f.t, ACPI_GPE0_PORT), 0);
    assert_false(f.sci.level);
}

static void count_smi(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void smi_by_the_command_port(void **state)
{
    unsigned smis = 0;

    (void)state;
    acpi_pm_set_smi(f.pm, count_smi, &smis);
    assert_int_equal(test_inl(f.t, SMI_ENABLE), 0);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, 7);
    test_outl(f.t, SMI_ENABLE, 0x20);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, 7);
    assert_int_equal(smis, 0);
    assert_int_equal(test_inl(f.t, SMI_ENABLE + 4), 0x20); /* SMI_STS */
    test_outl(f.t, SMI_ENABLE + 4, 0x20);
    assert_int_equal(test_inl(f.t, SMI_ENABLE + 4), 0);
    test_outl(f.t, SMI_ENABLE, 0x21);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, 7);
    assert_int_equal(smis, 1);
    acpi_pm_lock_smi(f.pm, true);
    test_outl(f.t, SMI_ENABLE, 0x20);
    assert_int_equal(test_inl(f.t, SMI_ENABLE), 0x21);
    test_outb(f.t, ACPI_SMI_COMMAND_PORT, ACPI_ENABLE_VALUE);
    assert_int_equal(smis, 2);
}

static void undefined_registers_read_as_zero(void **state)
{
    (void)state;
    for (unsigned port = ACPI_GPE0_PORT + ACPI_GPE0_SIZE; port < ACPI_PM_BASE + ACPI_PM_SIZE;
         port++) {
        test_outb(f.t, (uint16_t)port, 0xff);
        assert_int_equal(test_inb(f.t, (uint16_t)port), port == SMI_ENABLE ? 0x20 : 0);
    }
}

static void reset_switches_acpi_off(void **state)
{
    (void)state;
    test_outw(f.t, CONTROL, SCI_ENABLE);
    test_outw(f.t, ENABLE, POWER_BUTTON);
    press_power_button();
    device_test_reset(f.t);
    assert_false(f.sci.level);
    assert_int_equal(test_inl(f.t, STATUS), 0);
    assert_int_equal(test_inw(f.t, CONTROL), 0);
}

static void state_round_trip(void **state)
{
    (void)state;
    device_test_advance_ns(f.t, 1000000000);
    test_outw(f.t, CONTROL, SCI_ENABLE);
    test_outw(f.t, ENABLE, POWER_BUTTON | TIMER_EVENT);
    press_power_button();
    test_outb(f.t, ACPI_GPE0_PORT + ACPI_GPE0_SIZE / 2, 0x80);
    device_test_round_trip(f.t, f.pm);
    test_outw(f.t, STATUS, POWER_BUTTON);
    assert_int_equal(test_inw(f.t, STATUS), 0);
    device_test_advance_ns(f.t, 1400000000); /* the timer's interrupt is armed again */
    assert_true(f.sci.level);
}

#define TEST(name)    cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_24(name) cmocka_unit_test_setup_teardown(name, set_up_24_bit, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(timer_counts_3_579545_mhz),
        TEST_24(timer_wraps_at_24_bits),
        TEST(acpi_is_enabled_by_the_smi_command),
        TEST_24(timer_status_is_set_when_the_top_bit_toggles),
        TEST_24(timer_status_needs_no_interrupt),
        TEST(power_button_raises_the_sci_only_in_acpi_mode),
        TEST(a_masked_power_button_is_quiet),
        TEST(s5_powers_off),
        TEST(s3_is_saved_and_ends_with_a_reset),
        TEST_24(the_timer_wakes_nobody),
        TEST(other_sleep_states_do_nothing),
        TEST(gpe_block_latches_and_clears),
        TEST(smi_by_the_command_port),
        TEST(undefined_registers_read_as_zero),
        TEST(reset_switches_acpi_off),
        TEST_24(state_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
