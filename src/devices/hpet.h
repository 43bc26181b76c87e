/*
 * hpet.h - the high precision event timer as the board sees it
 */
#ifndef DEVICES_HPET_H
#define DEVICES_HPET_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/device.h"
#include "trapeze/irq.h"

#define HPET_GPA         0xfed00000ull
#define HPET_TIMER_COUNT 3
#define HPET_PERIOD_FS   10000000u /* 100 MHz */
/* Register 0 bits 31:0, for the ACPI table: rev 1, 3 timers, 64 bit, legacy routing, Intel. */
#define HPET_HARDWARE_ID 0x8086a201u

/* Property "gpa". */
extern const struct device_class hpet_class;

/*
 * The lines that pass through the HPET: an irq_sink_fn for the PIT (number 0) and the RTC
 * (number 8), which legacy replacement routing cuts off. opaque is the struct device.
 */
void hpet_sink(void *hpet, unsigned number, bool level);

/*
 * Where interrupts go: isa takes numbers 0 and 8 (isa_irq_sink), io takes I/O APIC pins
 * (ioapic_sink; pins 11 and 20-23 are used). Before the machine is reset for the first time.
 */
void hpet_connect(struct device *hpet, irq_sink_fn *isa, void *isa_opaque, irq_sink_fn *io,
                  void *io_opaque);

#endif
