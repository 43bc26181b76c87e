/*
 * pic.h - the 8259A pair as the board sees it
 */
#ifndef DEVICES_PIC_H
#define DEVICES_PIC_H

#include <stdbool.h>

#include "trapeze/device.h"
#include "trapeze/irq.h"

/* Ports 0x20-0x21, 0xa0-0xa1, 0x4d0-0x4d1. Registers itself with machine_set_pic. */
extern const struct device_class pic_class;

/*
 * Interrupt inputs, an irq_sink_fn: pic is the struct device of a PIC, number 0-15; 2 is the
 * cascade and ignored. Any thread.
 */
void pic_sink(void *pic, unsigned number, bool level);

/* INTR of the master, to connect to apic_intr_sink (or to a CPU without APIC) before the reset. */
struct irq_line *pic_output(struct device *pic);

#endif
