/*
 * irq.c - interrupt lines and message interrupts
 */
#include "trapeze/irq.h"

#include "base/log.h"
#include "machine/machine_internal.h"

#define MSI_BASE 0xfee00000ull
#define MSI_SIZE 0x00100000ull

void irq_connect(struct irq_line *line, irq_sink_fn *sink, void *opaque, unsigned number)
{
    line->sink = sink;
    line->opaque = opaque;
    line->number = number;
}

void irq_set(struct irq_line *line, bool level)
{
    line->level = level;
    if (line->sink)
        line->sink(line->opaque, line->number, level);
}

void irq_pulse(struct irq_line *line)
{
    irq_set(line, true);
    irq_set(line, false);
}

void machine_set_msi_sink(struct machine *machine, msi_sink_fn *sink, void *opaque)
{
    machine->msi_sink = sink;
    machine->msi_opaque = opaque;
}

void msi_send(struct machine *machine, uint64_t address, uint32_t data)
{
    if (address - MSI_BASE >= MSI_SIZE) {
        log_guest("message interrupt to address 0x%" PRIx64 " ignored", address);
        return;
    }
    if (machine->msi_sink)
        machine->msi_sink(machine->msi_opaque, address, data);
}
