/*
 * apic.h - local APICs and the messages between interrupt controllers
 *
 * One device per vCPU; attach all of them before the I/O APIC.
 */
#ifndef DEVICES_APIC_H
#define DEVICES_APIC_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/device.h"

struct machine;

/* Property "vcpu": the index of the vCPU that this APIC belongs to. */
extern const struct device_class apic_class;

/* Delivery modes as they stand in the ICR, LVT, I/O APIC entries and MSI data. */
enum apic_delivery {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7,
};

struct apic_message {
    uint32_t destination;
    bool wide;        /* destination is 32 bits wide (x2APIC ICR); else 8, and 0xff is everybody */
    bool logical;     /* else physical */
    bool level;       /* trigger mode: EOI is broadcast */
    bool redirect;    /* choose one of the destinations, as with APIC_LOWEST */
    uint8_t delivery; /* enum apic_delivery */
    uint8_t vector;
};

/*
 * Send a message to the local APICs it is meant for. Returns how many took it. Any thread;
 * takes the APICs' locks one after the other, so no APIC lock may be held.
 */
unsigned apic_deliver(struct machine *machine, const struct apic_message *message);
/* Would one of its receivers not notice it, because the same vector waits there already? */
bool apic_is_waiting(struct machine *machine, const struct apic_message *message);

/* A msi_sink_fn; opaque is the machine. */
void apic_msi_sink(void *machine, uint64_t address, uint32_t data);

/* irq_sink_fn for the 8259's INTR and for NMI: LINT0 and LINT1 of every local APIC. */
void apic_intr_sink(void *machine, unsigned number, bool level);
void apic_nmi_sink(void *machine, unsigned number, bool level);

/*
 * What firmware does before it starts a system: enable the APIC, LINT0 = ExtINT, LINT1 = NMI
 * ("virtual wire mode", MultiProcessor Specification 3.6.2.2). For a board that loads
 * kernels without firmware: call on vCPU 0's APIC in machine_boot_fn.
 */
void apic_set_virtual_wire(struct device *apic);

/* Who is told about an EOI of a level-triggered vector, on the vCPU's thread without locks. */
typedef void apic_eoi_fn(void *opaque, uint8_t vector);
/* For all APICs of the machine. -ENODEV if a vCPU has none yet. */
int apic_set_eoi_sink(struct machine *machine, apic_eoi_fn *fn, void *opaque, struct error *err);
/* Tell the sink of EOIs of this vector even if it came edge-triggered; -1: of none. Any thread. */
void apic_want_eoi(struct machine *machine, int vector);

#endif
