/*
 * ioapic.h - the I/O APIC as the board sees it, and the ISA interrupt lines
 */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H

#include <stdbool.h>

#include "trapeze/device.h"

#define IOAPIC_GPA       0xfec00000ull
#define IOAPIC_PIN_COUNT 24

/*
 * Properties "gpa" and "apic_id". Becomes the machine's MSI sink and the local APICs' EOI
 * sink: attach it after all of them.
 */
extern const struct device_class ioapic_class;

/*
 * Inputs, an irq_sink_fn: ioapic is the struct device, number 0-23. level true means
 * asserted, whatever the pin's polarity bit says. Any thread.
 */
void ioapic_sink(void *ioapic, unsigned number, bool level);

/*
 * The ISA lines IRQ0-15, wired to both controllers; IRQ0 arrives at pin 2 of the I/O APIC
 * (MADT: interrupt source override 0 -> 2). Owned by the board; either may be NULL.
 */
struct isa_irqs {
    struct device *pic, *ioapic;
};
/* An irq_sink_fn; opaque is a struct isa_irqs. */
void isa_irq_sink(void *isa_irqs, unsigned number, bool level);

#endif
