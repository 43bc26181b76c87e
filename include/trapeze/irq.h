/*
 * irq.h - interrupt lines and message interrupts
 *
 * A device holds each of its outputs as a struct irq_line by value and calls
 * irq_set(); it does not know what the line leads to. The board connects it.
 * Any thread may call irq_set; sinks do their own locking, and the order is:
 * machine lock, then interrupt controllers, then nothing.
 */
#ifndef TRAPEZE_IRQ_H
#define TRAPEZE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

struct machine;

/* Told about every call of irq_set, also when the level did not change. */
typedef void irq_sink_fn(void *opaque, unsigned number, bool level);

struct irq_line {
    irq_sink_fn *sink; /* NULL: not connected */
    void *opaque;
    unsigned number; /* which input of the sink */
    bool level;      /* last level set; guest-visible state of the driving device */
};

void irq_connect(struct irq_line *line, irq_sink_fn *sink, void *opaque, unsigned number);
void irq_set(struct irq_line *line, bool level);
void irq_pulse(struct irq_line *line); /* up and down: one edge */

/*
 * Message interrupt: a write of data to address as a PCI function would do it
 * (SDM vol. 3, 11.11). Addresses outside 0xfee00000-0xfeefffff are ignored
 * with a guest-level log line.
 */
void msi_send(struct machine *machine, uint64_t address, uint32_t data);

/* How the machine's interrupt controllers receive messages; set by the board. */
typedef void msi_sink_fn(void *opaque, uint64_t address, uint32_t data);
void machine_set_msi_sink(struct machine *machine, msi_sink_fn *sink, void *opaque);

#endif
