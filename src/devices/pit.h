/*
 * pit.h - the 8254 interval timer as the board sees it
 */
#ifndef DEVICES_PIT_H
#define DEVICES_PIT_H

#include "trapeze/device.h"

#define PIT_HZ 1193182u

/* Ports 0x40-0x43 and 0x61. */
extern const struct device_class pit_class;

/* OUT of channel 0: ISA IRQ0, or number 0 of hpet_sink. */
struct irq_line *pit_output(struct device *pit);

#endif
