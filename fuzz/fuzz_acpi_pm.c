/*
 * fuzz_acpi_pm.c - random accesses, power button, events and times at the ACPI fixed hardware
 *
 * Claims: the SCI is up exactly while an enabled event is there in ACPI mode; what was woken does
 * not sleep; the state survives a round trip.
 */
#include "devices/acpi_pm.h"
#include "fuzz_device.h"

static void press(struct device *dev, uint8_t what)
{
    if (what & 1)
        acpi_pm_press_power_button(dev);
    if (what & 2)
        acpi_pm_press_sleep_button(dev);
    if (what & 4)
        acpi_pm_alarm_sink(dev, 0, what & 8);
}

static void step(struct device_test *t, struct device *dev, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned size = 1u << (what >> 3) % 3;
    uint16_t port = (uint16_t)(ACPI_PM_BASE + fuzz_take(in, 1) % (ACPI_PM_SIZE - 3));

    if (what & 0x80)
        port = (uint16_t)(ACPI_SMI_COMMAND_PORT + (what >> 6 & 1));
    switch (what & 7) {
    case 0:
    case 1:
        bus_port_write(t->machine, port, (uint32_t)fuzz_take(in, size), size);
        break;
    case 2:
        bus_port_read(t->machine, port, size);
        break;
    case 3:
        FUZZ_LOCKED(t, press(dev, (uint8_t)fuzz_take(in, 1)));
        break;
    case 4:
        FUZZ_LOCKED(t, acpi_pm_raise_gpe(dev, (unsigned)fuzz_take(in, 1)));
        break;
    case 5:
        FUZZ_LOCKED(t, acpi_pm_wake(dev));
        device_test_loop(t);
        FUZZ_CLAIM(!acpi_pm_is_asleep(dev) || machine_stop_reason(t->machine));
        break;
    default:
        device_test_advance_ns(t, fuzz_take_ns(in, 22));
        break;
    }
}

static bool event_is_there(struct device_test *t)
{
    bool event = test_inw(t, ACPI_PM1_EVENT_PORT) & test_inw(t, ACPI_PM1_EVENT_PORT + 2);

    for (uint16_t i = 0; i < ACPI_GPE0_SIZE / 2; i++)
        event |= test_inb(t, ACPI_GPE0_PORT + i) &
                 test_inb(t, (uint16_t)(ACPI_GPE0_PORT + ACPI_GPE0_SIZE / 2 + i));
    return event && (test_inw(t, ACPI_PM1_CONTROL_PORT) & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two machines for all inputs that do not end them: building one takes longer than an input. */
static void rig(bool timer_24_bit, struct device_test **out_t, struct device **out_dev)
{
    static struct device_test *machines[2];
    static struct device *devices[2];

    if (machines[timer_24_bit] && machine_stop_reason(machines[timer_24_bit]->machine)) {
        device_test_free(machines[timer_24_bit]);
        machines[timer_24_bit] = NULL;
    }
    if (!machines[timer_24_bit]) {
        machines[timer_24_bit] = device_test_new(0);
        devices[timer_24_bit] = device_test_add(machines[timer_24_bit], &acpi_pm_class,
                                                timer_24_bit ? "timer-24-bit=on" : NULL);
        device_test_start(machines[timer_24_bit]);
    }
    *out_t = machines[timer_24_bit];
    *out_dev = devices[timer_24_bit];
    device_test_reset(*out_t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct device_test *t;
    struct device *dev;
    bool loaded = false;

    rig(fuzz_take(&in, 1) & 1, &t, &dev);
    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            FUZZ_LOCKED(t, fuzz_load_state(&in, dev));
            loaded = true;
        }
        step(t, dev, &in);
        if (!loaded)
            FUZZ_CLAIM(device_output(dev, "sci", 0)->level == event_is_there(t));
    }
    device_test_round_trip(t, dev);
    return 0;
}
