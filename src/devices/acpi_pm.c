/*
 * acpi_pm.c - ACPI fixed hardware: power management timer, buttons, RTC alarm, S3 and S5
 *
 * ACPI Specification 6.4, section 4.8: PM1a event and control registers, the PM timer,
 * one GPE block, and the SMI command port with the two values that switch between
 * legacy and ACPI mode (the switch is done here, whatever SMM does). The layout of the
 * ports is that of an Intel ICH9 (PMBASE + 0x00, 0x04, 0x08, 0x20).
 * Sleep after section 16.1.3; what is kept by a wake is what ICH9 has in its RTC and resume wells,
 * and SCI_EN, which firmware would have to set again.
 *
 * Theory of operation. The timer is derived from virtual time. Its status bit is set each
 * time the counter's top bit toggles; carry_count holds the count at which that
 * happens next after the bit was last cleared, so that nothing runs while nobody has
 * asked for the interrupt. The SCI is a level: any enabled status bit in ACPI mode.
 *
 * Asleep, an enabled event (but for the timer's) or a button wakes the machine, also one that is
 * there before it falls asleep.
 *
 * Left out: sleep states other than S3 and S5, the global lock, bus master wake, TCO registers,
 * SMIs but for the command port's. Without SMM SMI_EN shows that port in use. The reset register at
 * 0xcf9 is in pci_host.c, because port 0xcf8 is there.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include "devices/acpi_pm.h"

#include <string.h>

#include "base/log.h"
#include "trapeze/machine.h"

enum pm_offset {
    PM1_STATUS = 0x00,
    PM1_ENABLE = 0x02,
    PM1_CONTROL = 0x04,
    PM_TIMER = 0x08,
    PM_GPE_STATUS = ACPI_GPE0_PORT - ACPI_PM_BASE,
    PM_GPE_ENABLE = PM_GPE_STATUS + ACPI_GPE0_SIZE / 2,
    PM_GPE_END = PM_GPE_STATUS + ACPI_GPE0_SIZE,
    PM_SMI_ENABLE = 0x30,
    PM_SMI_STATUS = 0x34,
};

/* SMI_EN and SMI_STS. Without SMM firmware is to take it that the command port is in use by one
 * that it cannot replace. */
#define SMI_APMC         0x20u
#define SMI_GLOBAL       0x01u

#define PM1_TIMER        0x0001u
#define PM1_GLOBAL_LOCK  0x0020u
#define PM1_POWER_BUTTON 0x0100u
#define PM1_SLEEP_BUTTON 0x0200u
#define PM1_RTC          0x0400u
#define PM1_WAKE         0x8000u
#define PM1_WAKE_EVENTS  (PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC)
#define PM1_ENABLE_MASK  (PM1_TIMER | PM1_GLOBAL_LOCK | PM1_WAKE_EVENTS)
#define PM1_STATUS_MASK  (PM1_ENABLE_MASK | PM1_WAKE)

#define PM1_SCI_ENABLE   0x0001u
#define PM1_BUS_MASTER   0x0002u
#define PM1_SLEEP_TYPE   0x1c00u
#define PM1_SLEEP_SHIFT  10
#define PM1_SLEEP_ENABLE 0x2000u
#define PM1_CONTROL_MASK (PM1_SCI_ENABLE | PM1_BUS_MASTER | PM1_SLEEP_TYPE)

#define APM_PORT_COUNT   2 /* command, status */
#define GPE_BYTES        (ACPI_GPE0_SIZE / 2)

struct acpi_pm {
    struct device dev;

    /* Configuration. */
    bool timer_24_bit;
    acpi_pm_smi_fn *raise_smi; /* NULL: there is no SMM */
    void *smi_opaque;

    bool smi_locked; /* rebuilt on load: the ISA bridge says it */

    /* Guest-visible state. */
    struct irq_line sci;
    uint16_t status; /* without PM1_TIMER, which is derived from carry_count */
    uint16_t enable;
    uint16_t control;
    uint64_t carry_count; /* timer count, not cut to 32 bits, that sets PM1_TIMER */
    uint8_t gpe_status[GPE_BYTES], gpe_enable[GPE_BYTES];
    uint8_t apm_command, apm_status;
    uint8_t smi_enable, smi_status; /* the low bytes, which hold all that is there */
    bool asleep;                    /* in S3 */

    struct timer carry; /* rebuilt on load: armed while the timer's interrupt is enabled */
};

static struct acpi_pm *acpi_pm_of(struct device *dev)
{
    return container_of(dev, struct acpi_pm, dev);
}

/* ---- the timer ---- */

static uint64_t pm_count(uint64_t now_ns)
{
    return (uint64_t)((unsigned __int128)now_ns * ACPI_PM_TIMER_HZ / NANOSECONDS_PER_SECOND);
}

/* First nanosecond at which pm_count() is at least count; CLOCK_NEVER if time ends before. */
static uint64_t pm_deadline_ns(uint64_t count)
{
    unsigned __int128 units = (unsigned __int128)count * NANOSECONDS_PER_SECOND;
    unsigned __int128 ns = (units + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ;

    return ns < CLOCK_NEVER ? (uint64_t)ns : CLOCK_NEVER;
}

static uint64_t pm_count_now(struct acpi_pm *s)
{
    return pm_count(device_now_ns(&s->dev));
}

static uint16_t pm_status(struct acpi_pm *s)
{
    return s->status | (pm_count_now(s) >= s->carry_count ? PM1_TIMER : 0);
}

/* The top bit toggles at every multiple of half the counter's range. */
static void pm_clear_timer_status(struct acpi_pm *s)
{
    unsigned top_bit = s->timer_24_bit ? 23 : 31;

    s->carry_count = ((pm_count_now(s) >> top_bit) + 1) << top_bit;
}

static uint32_t pm_timer_value(struct acpi_pm *s)
{
    uint32_t count = (uint32_t)pm_count_now(s);

    return s->timer_24_bit ? count & 0xffffffu : count;
}

/* ---- events ---- */

static bool pm_gpe_active(const struct acpi_pm *s)
{
    for (unsigned i = 0; i < GPE_BYTES; i++)
        if (s->gpe_status[i] & s->gpe_enable[i])
            return true;
    return false;
}

static bool pm_sci_level(struct acpi_pm *s)
{
    bool event = (pm_status(s) & s->enable) || pm_gpe_active(s);

    return event && (s->control & PM1_SCI_ENABLE);
}

static void pm_wake(struct acpi_pm *s)
{
    if (!s->asleep)
        return;
    s->status |= PM1_WAKE;
    machine_request_wake(s->dev.machine);
}

static void pm_update(struct acpi_pm *s)
{
    uint16_t status = pm_status(s);
    bool level = pm_sci_level(s);

    if (level != s->sci.level)
        irq_set(&s->sci, level);
    if ((status & s->enable & PM1_WAKE_EVENTS) || pm_gpe_active(s))
        pm_wake(s);
    if ((s->enable & PM1_TIMER) && !(status & PM1_TIMER))
        timer_arm(&s->carry, pm_deadline_ns(s->carry_count));
    else
        timer_cancel(&s->carry);
}

static void pm_carry(void *opaque)
{
    pm_update(opaque);
}

/* Buttons wake the machine whether they are enabled or not (4.8.2.2.1). */
static void pm_press(struct acpi_pm *s, uint16_t button)
{
    s->status |= button;
    pm_wake(s);
    pm_update(s);
}

void acpi_pm_press_power_button(struct device *dev)
{
    pm_press(acpi_pm_of(dev), PM1_POWER_BUTTON);
}

void acpi_pm_press_sleep_button(struct device *dev)
{
    pm_press(acpi_pm_of(dev), PM1_SLEEP_BUTTON);
}

bool acpi_pm_is_asleep(struct device *dev)
{
    return acpi_pm_of(dev)->asleep;
}

void acpi_pm_wake(struct device *dev)
{
    pm_wake(acpi_pm_of(dev));
}

void acpi_pm_alarm_sink(void *opaque, unsigned number, bool level)
{
    struct acpi_pm *s = acpi_pm_of(opaque);

    (void)number;
    if (level)
        s->status |= PM1_RTC;
    pm_update(s);
}

void acpi_pm_raise_gpe(struct device *dev, unsigned number)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    if (number >= ACPI_GPE_COUNT)
        return;
    s->gpe_status[number / 8] |= (uint8_t)(1u << number % 8);
    pm_update(s);
}

/* ---- the PM block, byte by byte ---- */

/* Bytes of the registers that reading does not change. */
static uint8_t pm_read_byte(struct acpi_pm *s, unsigned offset)
{
    uint64_t words = pm_status(s) | (uint64_t)s->enable << 16 | (uint64_t)s->control << 32;

    if (offset < PM1_CONTROL + 2)
        return (uint8_t)(words >> (8 * offset));
    if (offset >= PM_GPE_STATUS && offset < PM_GPE_ENABLE)
        return s->gpe_status[offset - PM_GPE_STATUS];
    if (offset >= PM_GPE_ENABLE && offset < PM_GPE_END)
        return s->gpe_enable[offset - PM_GPE_ENABLE];
    if (offset == PM_SMI_ENABLE)
        return s->raise_smi ? s->smi_enable : SMI_APMC;
    return offset == PM_SMI_STATUS ? s->smi_status : 0;
}

/* The timer is sampled once for all bytes of an access. */
static uint64_t pm_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct acpi_pm *s = acpi_pm_of(dev);
    uint64_t value = 0;

    if (offset >= PM_TIMER && offset < PM_TIMER + 4)
        return pm_timer_value(s) >> (8 * (offset - PM_TIMER));
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)pm_read_byte(s, (unsigned)offset + i) << (8 * i);
    return value;
}

static void pm_sleep(struct acpi_pm *s, unsigned type)
{
    if (type == ACPI_SLEEP_TYPE_S5) {
        machine_request_stop(s->dev.machine, STOP_GUEST_POWEROFF, 0);
    } else if (type != ACPI_SLEEP_TYPE_S3) {
        log_guest("acpi-pm: sleep type %u is not there", type);
    } else if (!s->asleep) {
        s->asleep = true;
        machine_request_sleep(s->dev.machine);
    }
}

static void pm_write_status(struct acpi_pm *s, uint16_t ones)
{
    s->status &= (uint16_t) ~(ones & PM1_STATUS_MASK);
    if (ones & PM1_TIMER)
        pm_clear_timer_status(s);
}

/* SCI_EN belongs to the firmware side (the SMI command), but ICH9 lets it be written. */
static void pm_write_control(struct acpi_pm *s, uint16_t value, bool sleep)
{
    s->control = value & PM1_CONTROL_MASK;
    if (sleep)
        pm_sleep(s, (value & PM1_SLEEP_TYPE) >> PM1_SLEEP_SHIFT);
}

static uint16_t pm_replace_byte(uint16_t word, unsigned shift, uint8_t value)
{
    return (uint16_t)((word & ~(0xffu << shift)) | (unsigned)value << shift);
}

static void pm_write_byte(struct acpi_pm *s, unsigned offset, uint8_t value)
{
    unsigned shift = 8 * (offset & 1);

    if (offset < PM1_ENABLE)
        pm_write_status(s, (uint16_t)(value << shift));
    else if (offset < PM1_CONTROL)
        s->enable = pm_replace_byte(s->enable, shift, value) & PM1_ENABLE_MASK;
    else if (offset < PM1_CONTROL + 2)
        pm_write_control(s, pm_replace_byte(s->control, shift, value),
                         shift && (value & PM1_SLEEP_ENABLE >> 8));
    else if (offset >= PM_GPE_STATUS && offset < PM_GPE_ENABLE)
        s->gpe_status[offset - PM_GPE_STATUS] &= (uint8_t)~value;
    else if (offset >= PM_GPE_ENABLE && offset < PM_GPE_END)
        s->gpe_enable[offset - PM_GPE_ENABLE] = value;
    else if (offset == PM_SMI_ENABLE)
        s->smi_enable = (uint8_t)((value & SMI_APMC) | (s->smi_locked ? s->smi_enable & SMI_GLOBAL
                                                                      : value & SMI_GLOBAL));
    else if (offset == PM_SMI_STATUS)
        s->smi_status &= (uint8_t)~value;
}

static void pm_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    for (unsigned i = 0; i < size; i++)
        pm_write_byte(s, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
    pm_update(s);
}

static const struct region_ops pm_ports = {
    .name = "acpi-pm",
    .read = pm_read,
    .write = pm_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- the SMI command port ---- */

static uint64_t apm_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    (void)size;
    return offset ? s->apm_status : s->apm_command;
}

static void apm_command(struct acpi_pm *s, uint8_t command)
{
    s->apm_command = command;
    if (command == ACPI_ENABLE_VALUE)
        s->control |= PM1_SCI_ENABLE;
    else if (command == ACPI_DISABLE_VALUE)
        s->control &= (uint16_t)~PM1_SCI_ENABLE;
    pm_update(s);
    if (!s->raise_smi || !(s->smi_enable & SMI_APMC))
        return;
    s->smi_status |= SMI_APMC;
    if (s->smi_enable & SMI_GLOBAL)
        s->raise_smi(s->smi_opaque);
}

static void apm_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    (void)size;
    if (offset)
        s->apm_status = (uint8_t)value;
    else
        apm_command(s, (uint8_t)value);
}

static const struct region_ops apm_ports = {
    .name = "apm",
    .read = apm_read,
    .write = apm_write,
    .min_size = 1,
    .max_size = 1,
};

void acpi_pm_set_smi(struct device *dev, acpi_pm_smi_fn *raise, void *opaque)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    s->raise_smi = raise;
    s->smi_opaque = opaque;
}

void acpi_pm_lock_smi(struct device *dev, bool locked)
{
    acpi_pm_of(dev)->smi_locked = locked;
}

/* ---- lifecycle ---- */

static int pm_attach(struct device *dev, struct error *err)
{
    struct acpi_pm *s = acpi_pm_of(dev);
    int rc;

    timer_init(&s->carry, device_clocks(dev), CLOCK_ID_VIRTUAL, pm_carry, s);
    rc = device_map_ports(dev, ACPI_PM_BASE, ACPI_PM_SIZE, &pm_ports, err);
    if (rc)
        return rc;
    return device_map_ports(dev, ACPI_SMI_COMMAND_PORT, APM_PORT_COUNT, &apm_ports, err);
}

static void pm_detach(struct device *dev)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    if (s->carry.clocks)
        timer_done(&s->carry);
}

static void pm_reset(struct device *dev)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    s->apm_command = s->apm_status = 0;
    s->smi_enable = s->smi_status = 0;
    s->asleep = false;
    if (machine_is_waking(dev->machine))
        return;
    s->status = s->enable = s->control = 0;
    memset(s->gpe_status, 0, sizeof(s->gpe_status));
    memset(s->gpe_enable, 0, sizeof(s->gpe_enable));
    pm_clear_timer_status(s);
    timer_cancel(&s->carry);
}

static void pm_reset_done(struct device *dev)
{
    struct acpi_pm *s = acpi_pm_of(dev);

    irq_set(&s->sci, pm_sci_level(s));
}

/* The line's level came with the state; only the timer is set up again. */
static int pm_after_load(void *object, struct error *err)
{
    struct acpi_pm *s = object;

    (void)err;
    if ((s->enable & PM1_TIMER) && !(pm_status(s) & PM1_TIMER))
        timer_arm(&s->carry, pm_deadline_ns(s->carry_count));
    else
        timer_cancel(&s->carry);
    return 0;
}

static const struct property pm_properties[] = {
    PROPERTY_BOOL(struct acpi_pm, timer_24_bit, false,
                  "the timer has 24 bits instead of 32; the FADT must say so too"),
    PROPERTY_END,
};

static const struct device_output pm_outputs[] = {
    DEVICE_OUTPUT(struct acpi_pm, sci),
    DEVICE_OUTPUT_END,
};

static const struct state_field pm_state[] = {
    STATE_LINE(struct acpi_pm, sci),
    STATE_U16(struct acpi_pm, status),
    STATE_U16(struct acpi_pm, enable),
    STATE_U16(struct acpi_pm, control),
    STATE_U64(struct acpi_pm, carry_count),
    STATE_BYTES(struct acpi_pm, gpe_status),
    STATE_BYTES(struct acpi_pm, gpe_enable),
    STATE_U8(struct acpi_pm, apm_command),
    STATE_U8(struct acpi_pm, apm_status),
    STATE_U8(struct acpi_pm, smi_enable),
    STATE_U8(struct acpi_pm, smi_status),
    STATE_BOOL(struct acpi_pm, asleep),
    STATE_END,
};

const struct device_class acpi_pm_class = {
    .name = "acpi-pm",
    .summary = "ACPI power management: timer, buttons, alarm, sleep, power off",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct acpi_pm),
    .properties = pm_properties,
    .outputs = pm_outputs,
    .attach = pm_attach,
    .reset = pm_reset,
    .reset_done = pm_reset_done,
    .detach = pm_detach,
    .state = {.version = 1, .oldest = 1, .fields = pm_state, .after_load = pm_after_load},
};
