/*
 * acpi_pm.h - numbers that the power management hardware and the ACPI tables share
 *
 * The FADT and DSDT describe what acpi_pm.c models; both take the ports from here.
 */
#ifndef DEVICES_ACPI_PM_H
#define DEVICES_ACPI_PM_H

#include "trapeze/device.h"

/* ---- ports ---- */
#define ACPI_PM_BASE          0x600 /* the whole block, as PMBASE of the ISA bridge says */
#define ACPI_PM_SIZE          0x80
#define ACPI_PM1_EVENT_PORT   0x600 /* status word, enable word */
#define ACPI_PM1_EVENT_SIZE   4
#define ACPI_PM1_CONTROL_PORT 0x604
#define ACPI_PM1_CONTROL_SIZE 2
#define ACPI_PM_TIMER_PORT    0x608
#define ACPI_PM_TIMER_SIZE    4
#define ACPI_GPE0_PORT        0x620 /* status bytes, then as many enable bytes */
#define ACPI_GPE0_SIZE        16
#define ACPI_SMI_COMMAND_PORT 0xb2
#define ACPI_RESET_PORT       0xcf9 /* answered by the PCI host bridge, see pci_host.c */

/* ---- values ---- */
#define ACPI_ENABLE_VALUE     0x02 /* written to the SMI command port */
#define ACPI_DISABLE_VALUE    0x03
#define ACPI_RESET_VALUE      0x0e
#define ACPI_SLEEP_TYPE_S5    0 /* SLP_TYP of power off */
#define ACPI_SLEEP_TYPE_S3    1 /* of suspend to RAM; others are ignored */
#define ACPI_SCI_IRQ          9 /* level, active high */
#define ACPI_PM_TIMER_HZ      3579545u
#define ACPI_GPE_COUNT        (ACPI_GPE0_SIZE / 2 * 8)

extern const struct device_class acpi_pm_class;

/*
 * As if somebody pressed the power or the sleep button for a moment, which also wakes a machine
 * that sleeps. Machine lock held.
 */
void acpi_pm_press_power_button(struct device *dev);
void acpi_pm_press_sleep_button(struct device *dev);

/* Suspended to RAM, till the reset that wakes it or any other. Machine lock held. */
bool acpi_pm_is_asleep(struct device *dev);
/* Wake it for a reason that has no bit in PM1; no effect unless it sleeps. Machine lock held. */
void acpi_pm_wake(struct device *dev);

/* The RTC's alarm: its rising edge is what counts. */
void acpi_pm_alarm_sink(void *opaque, unsigned number, bool level);

/*
 * The machine has System Management Mode: raise is called when a write to the command port is an
 * SMI. locked: SMIs cannot be switched off any more. Machine lock held, or before machine_start.
 */
typedef void acpi_pm_smi_fn(void *opaque);
void acpi_pm_set_smi(struct device *dev, acpi_pm_smi_fn *raise, void *opaque);
void acpi_pm_lock_smi(struct device *dev, bool locked);

/* Latch a general-purpose event, number 0 to ACPI_GPE_COUNT - 1. Machine lock held. */
void acpi_pm_raise_gpe(struct device *dev, unsigned number);

#endif
