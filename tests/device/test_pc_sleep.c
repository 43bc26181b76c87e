/*
 * test_pc_sleep.c - suspend to RAM: how the board falls asleep, what wakes it, and what it finds
 */
#include "pc_rig.h"

#include "base/bytes.h"
#include "device_test.h"
#include "devices/acpi_pm.h"
#include "machine/pc_layout.h"
#include "trapeze/clock.h"
#include "trapeze/device.h"
#include "trapeze/input.h"
#include "x86/bits.h"

#define STATUS          ACPI_PM1_EVENT_PORT
#define ENABLE          (ACPI_PM1_EVENT_PORT + 2)
#define CONTROL         ACPI_PM1_CONTROL_PORT

#define POWER_BUTTON    0x0100u
#define SLEEP_BUTTON    0x0200u
#define RTC_EVENT       0x0400u
#define WAKE            0x8000u
#define SCI_ENABLE      0x0001u
#define SLEEP_ENABLE    0x2000u

#define FACS            (PC_ACPI_GPA + 64)
#define FACS_VECTOR     (FACS + 12)
#define FACS_X_VECTOR   (FACS + 24)

#define SHUTDOWN_STATUS 0x0f
#define KEY_SPACE       0x2c

static void poke(struct pc_rig *f, uint64_t gpa, uint32_t value)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    assert_int_equal(memory_write(machine_memory(f->machine), gpa, bytes, 4), 0);
}

static uint8_t read_cmos(struct pc_rig *f, uint8_t index)
{
    bus_port_write(f->machine, 0x70, index, 1);
    return (uint8_t)bus_port_read(f->machine, 0x71, 1);
}

static void write_cmos(struct pc_rig *f, uint8_t index, uint8_t value)
{
    bus_port_write(f->machine, 0x70, index, 1);
    bus_port_write(f->machine, 0x71, value, 1);
}

static const struct x86_state *cpu(struct pc_rig *f, unsigned index)
{
    return &machine_vcpu(f->machine, index)->state;
}

static bool is_asleep(struct pc_rig *f)
{
    bool asleep;

    machine_lock(f->machine);
    asleep = pc_is_asleep(f->machine);
    machine_unlock(f->machine);
    return asleep;
}

static void request_sleep(struct pc_rig *f)
{
    bus_port_write(f->machine, STATUS, WAKE, 2);
    bus_port_write(f->machine, CONTROL, SCI_ENABLE | ACPI_SLEEP_TYPE_S3 << 10 | SLEEP_ENABLE, 2);
}

static void fall_asleep(struct pc_rig *f)
{
    request_sleep(f);
    loop_once(f->loop, 0);
    assert_true(is_asleep(f));
    for (unsigned i = 0; i < machine_vcpu_count(f->machine); i++)
        assert_int_equal(cpu(f, i)->activity, X86_WAIT_FOR_SIPI);
}

static void press(struct pc_rig *f, void (*button)(struct machine *machine))
{
    machine_lock(f->machine);
    button(f->machine);
    machine_unlock(f->machine);
    loop_once(f->loop, 0);
}

static void start_kernel(struct pc_rig *f, unsigned vcpu_count)
{
    pc_make_kernel(f);
    pc_start(f, 64 * MIB, vcpu_count);
}

static void a_kernel_goes_on_in_real_mode(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 2);
    poke(f, FACS_VECTOR, 0x9a123);
    poke(f, 0x200000, 0x12345678); /* of the kernel */
    fall_asleep(f);
    press(f, pc_wake);
    assert_false(is_asleep(f));
    assert_int_equal(cpu(f, 0)->activity, X86_ACTIVE);
    assert_int_equal(cpu(f, 0)->cr0 & (X86_CR0_PE | X86_CR0_PG), 0);
    assert_int_equal(cpu(f, 0)->seg[X86_CS].selector, 0x9a12);
    assert_int_equal(cpu(f, 0)->seg[X86_CS].base, 0x9a120);
    assert_int_equal(cpu(f, 0)->seg[X86_CS].limit, 0xffff);
    assert_int_equal(cpu(f, 0)->rip, 3);
    assert_int_equal(cpu(f, 0)->msr.mtrr_def_type, 0xc06);
    assert_int_equal(cpu(f, 1)->activity, X86_WAIT_FOR_SIPI);
    assert_int_equal(pc_peek(f, 0x200000, 4), 0x12345678);
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), WAKE);
    assert_int_equal(bus_port_read(f->machine, CONTROL, 2) & SCI_ENABLE, SCI_ENABLE);
}

static void or_in_protected_mode(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_X_VECTOR, 0x234567);
    fall_asleep(f);
    press(f, pc_wake);
    assert_int_equal(cpu(f, 0)->cr0 & (X86_CR0_PE | X86_CR0_PG), X86_CR0_PE);
    assert_int_equal(cpu(f, 0)->seg[X86_CS].limit, UINT32_MAX);
    assert_int_equal(cpu(f, 0)->rip, 0x234567);
}

static void without_a_vector_it_starts_anew(void **state)
{
    static const struct {
        uint64_t gpa;
        uint32_t value;
    } rows[] = {
        {FACS_VECTOR, 0},
        {FACS_VECTOR, 0x100000},  /* no real mode there */
        {FACS, 0},                /* no signature */
        {FACS_X_VECTOR + 4, 0x1}, /* above 4 GiB */
    };
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        poke(f, rows[i].gpa, rows[i].value);
        poke(f, 0x200000, 0x12345678);
        fall_asleep(f);
        press(f, pc_wake);
        assert_int_equal(cpu(f, 0)->rip, 0x200020);
        assert_int_equal(pc_peek(f, 0x200000, 4), 0x1badb002);
    }
}

static void firmware_finds_its_shadow_and_the_reason(void **state)
{
    struct pc_rig *f = *state;

    pc_start_rom(f, 64 * MIB);
    pc_write_host(f, 0x90, 0x30, 1); /* 0xf0000: RAM */
    poke(f, 0xf0000, 0x5a5a5a5a);
    write_cmos(f, SHUTDOWN_STATUS, 0);
    fall_asleep(f);
    press(f, pc_wake);
    assert_int_equal(cpu(f, 0)->rip, 0xfff0);
    assert_int_equal(pc_peek(f, 0xf0000, 4), 0x5a5a5a5a);
    assert_int_equal(read_cmos(f, SHUTDOWN_STATUS), 0xfe);
    machine_reset(f->machine);
    assert_int_equal(pc_peek(f, 0xf0000, 4), 0x77777777);
}

static void buttons_wake_it_enabled_or_not(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_VECTOR, 0x9a120);
    fall_asleep(f);
    press(f, pc_press_power_button);
    assert_false(is_asleep(f));
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), WAKE | POWER_BUTTON);
    bus_port_write(f->machine, STATUS, POWER_BUTTON, 2);
    fall_asleep(f);
    press(f, pc_press_sleep_button);
    assert_false(is_asleep(f));
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), WAKE | SLEEP_BUTTON);
}

static void an_event_that_is_there_lets_it_not_sleep(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_VECTOR, 0x9a120);
    press(f, pc_press_power_button);
    bus_port_write(f->machine, ENABLE, POWER_BUTTON, 2);
    request_sleep(f);
    loop_once(f->loop, 0);
    assert_false(is_asleep(f));
    assert_int_equal(cpu(f, 0)->activity, X86_ACTIVE);
    assert_int_equal(cpu(f, 0)->seg[X86_CS].base, 0x9a120); /* which is where it went on */
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), WAKE | POWER_BUTTON);
}

static void advance(struct pc_rig *f, uint64_t ns)
{
    device_test_advance_ns(&(struct device_test){.machine = f->machine}, ns);
    loop_once(f->loop, 0);
}

/* Any second matches. */
static void set_alarm(struct pc_rig *f)
{
    for (uint8_t index = 1; index <= 5; index += 2)
        write_cmos(f, index, 0xff);
    read_cmos(f, 0x0c);
    write_cmos(f, 0x0b, 0x22);
}

static void the_alarm_wakes_it_if_enabled(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_VECTOR, 0x9a120);
    set_alarm(f);
    fall_asleep(f);
    advance(f, 2 * NANOSECONDS_PER_SECOND);
    assert_true(is_asleep(f));
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), RTC_EVENT);
    press(f, pc_wake);
    assert_int_equal(read_cmos(f, 0x0b) & 0x20, 0x20); /* it is still set */
    assert_int_equal(read_cmos(f, 0x0c) & 0xa0, 0xa0);
    bus_port_write(f->machine, STATUS, RTC_EVENT, 2);
    bus_port_write(f->machine, ENABLE, RTC_EVENT, 2);
    fall_asleep(f);
    advance(f, 2 * NANOSECONDS_PER_SECOND);
    assert_false(is_asleep(f));
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), WAKE | RTC_EVENT);
}

static void the_alarm_raises_the_sci_of_one_that_is_awake(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 1);
    pc_init_pics(f);
    bus_port_write(f->machine, CONTROL, SCI_ENABLE, 2);
    bus_port_write(f->machine, ENABLE, RTC_EVENT, 2);
    set_alarm(f);
    assert_int_equal(pc_pic_requests(f) & 1u << ACPI_SCI_IRQ, 0);
    advance(f, 2 * NANOSECONDS_PER_SECOND);
    assert_int_equal(pc_pic_requests(f) & 1u << ACPI_SCI_IRQ, 1u << ACPI_SCI_IRQ);
    bus_port_write(f->machine, STATUS, RTC_EVENT, 2);
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), 0);
}

static void key(struct pc_rig *f, bool pressed)
{
    machine_lock(f->machine);
    input_key(machine_input(f->machine), KEY_SPACE, pressed);
    machine_unlock(f->machine);
    loop_once(f->loop, 0);
}

static void a_key_wakes_it_and_is_used_up(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_VECTOR, 0x9a120);
    fall_asleep(f);
    key(f, false);
    assert_true(is_asleep(f));
    key(f, true);
    assert_false(is_asleep(f));
    assert_int_equal(bus_port_read(f->machine, 0x64, 1) & 1, 0); /* nothing in the i8042 */
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), WAKE);
}

static void clicks_do(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    fall_asleep(f);
    machine_lock(f->machine);
    input_pointer_moved(machine_input(f->machine), 5, 5);
    assert_true(pc_is_asleep(f->machine));
    input_buttons(machine_input(f->machine), INPUT_BUTTON_LEFT);
    machine_unlock(f->machine);
    loop_once(f->loop, 0);
    assert_false(is_asleep(f));
}

static void a_reset_is_more_than_a_wake(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_VECTOR, 0x9a120);
    fall_asleep(f);
    machine_lock(f->machine);
    pc_wake(f->machine);
    machine_unlock(f->machine);
    machine_request_reset(f->machine);
    loop_once(f->loop, 0);
    assert_false(is_asleep(f));
    assert_int_equal(cpu(f, 0)->rip, 0x200020);
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), 0);
}

/* What is asked for before a pause is done when it begins. */
static void a_pause_finds_it_asleep(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    poke(f, FACS_VECTOR, 0x9a120);
    request_sleep(f);
    machine_pause(f->machine);
    assert_int_equal(cpu(f, 0)->activity, X86_WAIT_FOR_SIPI);
    assert_true(is_asleep(f));
    press(f, pc_wake); /* also of one that is paused */
    assert_int_equal(cpu(f, 0)->seg[X86_CS].base, 0x9a120);
    machine_resume(f->machine);
    assert_false(is_asleep(f));
}

static void awake_it_is_not_woken(void **state)
{
    struct pc_rig *f = *state;

    start_kernel(f, 1);
    press(f, pc_wake);
    key(f, true);
    assert_int_equal(cpu(f, 0)->rip, 0x200020);
    assert_int_equal(bus_port_read(f->machine, STATUS, 2), 0);
    assert_int_equal(bus_port_read(f->machine, 0x64, 1) & 1, 1); /* the key is in the i8042 */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_kernel_goes_on_in_real_mode),   TEST(or_in_protected_mode),
        TEST(without_a_vector_it_starts_anew), TEST(firmware_finds_its_shadow_and_the_reason),
        TEST(buttons_wake_it_enabled_or_not),  TEST(an_event_that_is_there_lets_it_not_sleep),
        TEST(the_alarm_wakes_it_if_enabled),   TEST(the_alarm_raises_the_sci_of_one_that_is_awake),
        TEST(a_key_wakes_it_and_is_used_up),   TEST(clicks_do),
        TEST(a_reset_is_more_than_a_wake),     TEST(a_pause_finds_it_asleep),
        TEST(awake_it_is_not_woken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
