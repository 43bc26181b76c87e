/*
 * apic.c - the local APIC of one processor
 *
 * After the Intel SDM vol. 3, chapter 11 (Advanced Programmable Interrupt Controller) and
 * vol. 4 for IA32_APIC_BASE and IA32_TSC_DEADLINE: xAPIC and x2APIC mode with the transitions
 * of 11.12.5, local vector table, timer (one-shot, periodic, TSC deadline), IPIs of every
 * delivery mode, physical and logical (flat, cluster, x2APIC cluster) destinations,
 * lowest-priority arbitration, task and processor priority, EOI broadcast and its
 * suppression, error status, the spurious vector, message interrupts.
 *
 * Left out: CMCI (LVT entry 6), remote read (obsolete), focus processor checking (P6 only);
 * the thermal and performance counter entries can be programmed, but nothing raises them.
 *
 * In several files: this one has what the engine calls, what the processor is asked to take,
 * and the device class; apic_registers.c the registers, apic_timer.c the timer, apic_bus.c
 * the messages.
 *
 * Theory of operation. An APIC belongs to one vCPU, whose thread alone reads and writes
 * its registers. Messages come from anywhere: another vCPU's ICR, the I/O APIC, a device's
 * MSI, the timer. Whatever changes what the processor should take ends in
 * apic_update_locked(), which raises or clears VCPU_EVENT_INTERRUPT under the APIC's
 * lock, so the event always tells the truth once the lock is free. Requests
 * of another APIC are made with none locked: a sender works out its message, then locks one
 * receiver after the other. IDs, LDR, DFR, base and PPR are atomics because senders
 * read them to choose the receivers; hardware gives no stronger order either.
 *
 * Threads: register accesses on the vCPU's thread without the machine lock; everything else from
 * any thread. Lock order: machine, PIC, I/O APIC, local APIC; never two local APICs.
 */
#include "devices/apic.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "devices/apic_internal.h"

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST  0x8ffu

/* ---- what the processor is asked to take; lock held ---- */

/* Processor priority: SDM vol. 3, 11.8.3.1. */
void apic_update_ppr_locked(struct apic *s)
{
    uint32_t tpr = atomic_load_explicit(&s->tpr, memory_order_relaxed);
    int serving = map_highest(s->isr);
    uint32_t ppr = tpr;

    if (serving >= 0 && ((uint32_t)serving & 0xf0) > (tpr & 0xf0))
        ppr = (uint32_t)serving & 0xf0;
    atomic_store_explicit(&s->ppr, ppr, memory_order_relaxed);
}

/* The vector that is requested and not held back by the priority, or -1. */
static int apic_deliverable_locked(struct apic *s)
{
    int vector = map_highest(s->irr);
    uint32_t ppr = atomic_load_explicit(&s->ppr, memory_order_relaxed);

    return vector >= 0 && ((uint32_t)vector & 0xf0) > (ppr & 0xf0) ? vector : -1;
}

static bool lvt_is_extint(uint32_t entry)
{
    return !(entry & LVT_MASKED) && (entry >> 8 & 7) == APIC_EXTINT;
}

static bool apic_wants_extint_locked(struct apic *s)
{
    if (!apic_is_enabled(s))
        return s->lint[0]; /* LINT0 is INTR of a processor without APIC */
    return s->extint_latched || (s->lint[0] && lvt_is_extint(s->lvt[LVT_LINT0])) ||
           (s->lint[1] && lvt_is_extint(s->lvt[LVT_LINT1]));
}

void apic_update_locked(struct apic *s)
{
    bool raised = atomic_load(&s->vcpu->events) & VCPU_EVENT_INTERRUPT;
    bool wanted = apic_wants_extint_locked(s);

    if (!wanted && apic_is_enabled(s))
        wanted = apic_deliverable_locked(s) >= 0;
    atomic_store_explicit(&s->interrupting, wanted, memory_order_relaxed);
    if (wanted && !raised)
        vcpu_raise(s->vcpu, VCPU_EVENT_INTERRUPT);
    else if (!wanted && raised)
        vcpu_take(s->vcpu, VCPU_EVENT_INTERRUPT);
}

/* The first error after ESR was written raises the error interrupt: SDM vol. 3, 11.5.3. */
void apic_error_locked(struct apic *s, uint32_t bit)
{
    uint32_t entry = s->lvt[LVT_ERROR];
    bool first = !s->esr_pending;

    s->esr_pending |= bit;
    if (!first || (entry & LVT_MASKED))
        return;
    apic_accept_locked(s, (uint8_t)entry, false);
}

/* A fixed interrupt arrives. False if the APIC refuses it. */
bool apic_accept_locked(struct apic *s, uint8_t vector, bool level)
{
    if (!apic_is_software_enabled(s))
        return false;
    if (vector < FIRST_VECTOR) {
        apic_error_locked(s, ESR_RECEIVE_ILLEGAL);
        return false;
    }
    map_set(s->irr, vector);
    if (level)
        map_set(s->tmr, vector);
    else
        map_clear(s->tmr, vector);
    apic_update_locked(s);
    return true;
}

/* ---- reset ---- */

uint32_t apic_x2_ldr(uint32_t id)
{
    return (id & 0xffff0) << 12 | 1u << (id & 15);
}

/* Power-on, INIT, and when the APIC was switched off: SDM vol. 3, 11.4.7. ID and base stay. */
void apic_reset_locked(struct apic *s)
{
    uint32_t ldr = apic_is_x2apic(s) ? apic_x2_ldr(atomic_load(&s->id)) : 0;

    atomic_store(&s->ldr, ldr);
    atomic_store(&s->dfr, UINT32_MAX);
    atomic_store(&s->tpr, 0);
    atomic_store(&s->svr, 0xff);
    s->esr = s->esr_pending = 0;
    s->icr_low = s->icr_high = 0;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        s->lvt[i] = LVT_MASKED;
    memset(s->isr, 0, sizeof(s->isr));
    memset(s->tmr, 0, sizeof(s->tmr));
    memset(s->irr, 0, sizeof(s->irr));
    s->timer_initial = s->timer_divide = s->timer_start_count = 0;
    s->timer_start_ns = 0;
    s->timer_due_ns = CLOCK_NEVER;
    s->tsc_deadline = 0;
    s->extint_latched = false;
    apic_update_ppr_locked(s);
}

static uint32_t apic_read_register(struct apic *s, unsigned reg)
{
    uint32_t value;

    host_mutex_lock(&s->lock);
    value = apic_registers[reg].read(s, reg);
    host_mutex_unlock(&s->lock);
    return value;
}

/* An access in xAPIC mode to a register that there is not. */
static void apic_illegal_register(struct apic *s)
{
    host_mutex_lock(&s->lock);
    apic_error_locked(s, ESR_ILLEGAL_REGISTER);
    host_mutex_unlock(&s->lock);
}

/* ---- operations for the engine ---- */

static bool apic_pending(void *opaque)
{
    struct apic *s = opaque;

    return atomic_load_explicit(&s->interrupting, memory_order_relaxed);
}

static int apic_take_vector_locked(struct apic *s)
{
    int vector = apic_is_enabled(s) ? apic_deliverable_locked(s) : -1;

    if (vector < 0)
        return -1;
    map_clear(s->irr, (uint8_t)vector);
    map_set(s->isr, (uint8_t)vector);
    apic_update_ppr_locked(s);
    return vector;
}

static int apic_acknowledge(void *opaque)
{
    struct apic *s = opaque;
    bool external = false;

    host_mutex_lock(&s->lock);
    int vector = apic_take_vector_locked(s);
    if (vector < 0) {
        external = apic_wants_extint_locked(s);
        s->extint_latched = false;
    }
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
    /* The PIC's lock comes before the APIC's: it lowers INTR, which comes back to LINT0. */
    return external ? machine_pic_acknowledge(s->dev.machine) : vector;
}

static uint64_t apic_get_base(void *opaque)
{
    return apic_base_now(opaque);
}

/* Registers are 32 bits wide, 16 bytes apart: SDM vol. 3, 11.4.1. */
static uint64_t apic_mmio_read(void *opaque, uint32_t offset, unsigned size)
{
    struct apic *s = opaque;
    unsigned reg = offset >> 4 & 0xff;
    uint64_t value;

    if (reg >= REG_COUNT || !apic_registers[reg].access) {
        apic_illegal_register(s);
        return 0;
    }
    if (!(apic_registers[reg].access & XR) || (offset & 0xf) >= 4)
        return 0;
    value = apic_read_register(s, reg) >> (offset & 3) * 8;
    return size < 4 ? value & ((1u << size * 8) - 1) : value;
}

static void apic_mmio_write(void *opaque, uint32_t offset, uint64_t value, unsigned size)
{
    struct apic *s = opaque;
    unsigned reg = offset >> 4 & 0xff;
    const struct apic_register *r = &apic_registers[reg % REG_COUNT];

    if (reg >= REG_COUNT || !r->access) {
        apic_illegal_register(s);
        return;
    }
    if (!(r->access & XW) || size < 4 || (offset & 0xf))
        return;
    r->write(s, reg, (uint32_t)value & r->writable);
}

static uint64_t apic_base_reserved(const struct apic *s)
{
    const struct cpu_model *model = s->vcpu->model;
    unsigned bits = model && model->physical_bits ? model->physical_bits : 36;

    return (bits < 64 ? ~0ull << bits : 0) | 0x2ff |
           (apic_has(s, X86_FEATURE_X2APIC) ? 0 : APIC_BASE_X2APIC);
}

/* SDM vol. 3, 11.12.5: figure 11-27. */
static bool apic_base_is_legal(const struct apic *s, uint64_t old, uint64_t new)
{
    if (new &apic_base_reserved(s))
        return false;
    switch (new &(APIC_BASE_ENABLE | APIC_BASE_X2APIC)) {
    case APIC_BASE_X2APIC: /* no such mode */
        return false;
    case APIC_BASE_ENABLE: /* from x2APIC only through disabled */
        return !(old & APIC_BASE_X2APIC);
    case APIC_BASE_ENABLE | APIC_BASE_X2APIC: /* from xAPIC only */
        return old & APIC_BASE_ENABLE;
    default:
        return true;
    }
}

static void apic_enter_x2apic_locked(struct apic *s)
{
    uint32_t id = s->vcpu->apic_id;

    atomic_store(&s->id, id);
    atomic_store(&s->ldr, apic_x2_ldr(id));
    atomic_store(&s->dfr, UINT32_MAX);
    s->icr_high = 0;
}

static bool apic_write_base(struct apic *s, uint64_t value)
{
    uint64_t old = apic_base_now(s);
    uint64_t changed = old ^ value;

    if (!apic_base_is_legal(s, old, value))
        return false;
    host_mutex_lock(&s->lock);
    atomic_store(&s->base, value);
    if (changed & APIC_BASE_ENABLE) {
        atomic_store(&s->id, s->vcpu->apic_id & 0xff);
        apic_reset_locked(s);
        timer_arm(&s->timer, CLOCK_NEVER);
    } else if (changed & APIC_BASE_X2APIC) {
        apic_enter_x2apic_locked(s);
    }
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
    return true;
}

/* The x2APIC's ICR is one 64-bit register. */
static bool apic_write_x2_icr(struct apic *s, uint64_t value)
{
    uint32_t command = (uint32_t)value & ~ICR_DELIVERY_STATUS;

    if (command & ~ICR_WRITABLE)
        return false;
    host_mutex_lock(&s->lock);
    s->icr_low = command;
    s->icr_high = value >> 32;
    host_mutex_unlock(&s->lock);
    apic_send(s, command, (uint32_t)(value >> 32), true);
    return true;
}

static bool apic_read_x2apic(struct apic *s, unsigned reg, uint64_t *out_value)
{
    if (reg >= REG_COUNT || !(apic_registers[reg].access & X2R) || !apic_is_x2apic(s))
        return false;
    host_mutex_lock(&s->lock);
    *out_value = apic_registers[reg].read(s, reg);
    if (reg == REG_ICR)
        *out_value |= (uint64_t)s->icr_high << 32;
    host_mutex_unlock(&s->lock);
    return true;
}

static bool apic_write_x2apic(struct apic *s, unsigned reg, uint64_t value)
{
    const struct apic_register *r = &apic_registers[reg % REG_COUNT];

    if (reg >= REG_COUNT || !(r->access & X2W) || !apic_is_x2apic(s))
        return false;
    if (reg == REG_ICR)
        return apic_write_x2_icr(s, value);
    if (value & ~(uint64_t)(r->writable | r->read_only))
        return false;
    r->write(s, reg, (uint32_t)value & r->writable);
    return true;
}

static uint64_t apic_read_deadline(struct apic *s)
{
    uint64_t value;

    host_mutex_lock(&s->lock);
    apic_timer_now_locked(s);
    value = s->tsc_deadline;
    host_mutex_unlock(&s->lock);
    return value;
}

/* Ignored unless the LVT selects TSC-deadline mode; zero disarms. */
static void apic_write_deadline(struct apic *s, uint64_t value)
{
    host_mutex_lock(&s->lock);
    if (apic_timer_is(s, LVT_TIMER_DEADLINE)) {
        uint64_t now_ns = apic_timer_now_locked(s);

        s->tsc_deadline = value;
        apic_timer_start_locked(s, now_ns);
    }
    host_mutex_unlock(&s->lock);
}

static bool apic_msr_read(void *opaque, uint32_t msr, uint64_t *out_value)
{
    struct apic *s = opaque;

    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
        return apic_read_x2apic(s, msr - MSR_X2APIC_FIRST, out_value);
    if (msr == MSR_APIC_BASE)
        *out_value = apic_base_now(s);
    else if (msr == MSR_TSC_DEADLINE)
        *out_value = apic_read_deadline(s);
    else
        return false;
    return true;
}

static bool apic_msr_write(void *opaque, uint32_t msr, uint64_t value)
{
    struct apic *s = opaque;

    if (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST)
        return apic_write_x2apic(s, msr - MSR_X2APIC_FIRST, value);
    if (msr == MSR_APIC_BASE)
        return apic_write_base(s, value);
    if (msr != MSR_TSC_DEADLINE)
        return false;
    apic_write_deadline(s, value);
    return true;
}

static uint8_t apic_cr8(void *opaque)
{
    struct apic *s = opaque;

    return (uint8_t)(atomic_load_explicit(&s->tpr, memory_order_relaxed) >> 4);
}

static void apic_set_cr8(void *opaque, uint8_t value)
{
    apic_write_tpr(opaque, 0, (uint32_t)(value & 0xf) << 4);
}

static void apic_tsc_changed(void *opaque)
{
    struct apic *s = opaque;

    host_mutex_lock(&s->lock);
    if (apic_timer_is(s, LVT_TIMER_DEADLINE) && s->tsc_deadline)
        apic_timer_start_locked(s, device_now_ns(&s->dev));
    host_mutex_unlock(&s->lock);
}

static const struct vcpu_apic_ops apic_ops = {
    .pending = apic_pending,
    .acknowledge = apic_acknowledge,
    .base = apic_get_base,
    .mmio_read = apic_mmio_read,
    .mmio_write = apic_mmio_write,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .cr8 = apic_cr8,
    .set_cr8 = apic_set_cr8,
    .tsc_changed = apic_tsc_changed,
};

struct apic *apic_of_vcpu(struct machine *machine, unsigned index)
{
    struct vcpu *vcpu = machine_vcpu(machine, index);

    return vcpu->apic_ops == &apic_ops ? vcpu->apic : NULL;
}

int apic_set_eoi_sink(struct machine *machine, apic_eoi_fn *fn, void *opaque, struct error *err)
{
    unsigned count = machine_vcpu_count(machine);

    for (unsigned i = 0; i < count; i++) {
        struct apic *s = apic_of_vcpu(machine, i);

        if (!s)
            return error_set(err, ENODEV, "vCPU %u has no local APIC: attach it first", i);
        s->eoi = fn;
        s->eoi_opaque = opaque;
        atomic_store(&s->wanted_eoi, -1);
    }
    return 0;
}

void apic_want_eoi(struct machine *machine, int vector)
{
    for (unsigned i = 0; i < machine_vcpu_count(machine); i++)
        atomic_store(&apic_of_vcpu(machine, i)->wanted_eoi, vector);
}

void apic_set_virtual_wire(struct device *apic)
{
    struct apic *s = apic_of(apic);

    apic_write_svr(s, 0x0f, SVR_ENABLE | 0xff);
    apic_write_lvt(s, 0x35, APIC_EXTINT << 8);
    apic_write_lvt(s, 0x36, APIC_NMI << 8);
}

/* ---- class ---- */

static int apic_attach(struct device *dev, struct error *err)
{
    struct apic *s = apic_of(dev);

    host_mutex_init(&s->lock);
    timer_init(&s->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, apic_timer_fire, s);
    s->timer_due_ns = CLOCK_NEVER;
    if (s->vcpu_index >= machine_vcpu_count(dev->machine))
        return error_set(err, EINVAL, "vcpu=%u: the machine has %u vCPUs", s->vcpu_index,
                         machine_vcpu_count(dev->machine));
    struct vcpu *vcpu = machine_vcpu(dev->machine, s->vcpu_index);
    if (vcpu->apic)
        return error_set(err, EBUSY, "vCPU %u has a local APIC already", s->vcpu_index);
    s->vcpu = vcpu;
    vcpu->apic = s;
    vcpu->apic_ops = &apic_ops;
    return 0;
}

static void apic_detach(struct device *dev)
{
    struct apic *s = apic_of(dev);

    if (s->vcpu) {
        s->vcpu->apic_ops = NULL;
        s->vcpu->apic = NULL;
        s->vcpu = NULL;
    }
    timer_done(&s->timer);
    host_mutex_done(&s->lock);
}

static void apic_reset(struct device *dev)
{
    struct apic *s = apic_of(dev);
    uint64_t bsp = s->vcpu_index == 0 ? APIC_BASE_BSP : 0;

    host_mutex_lock(&s->lock);
    atomic_store(&s->base, APIC_BASE_GPA | APIC_BASE_ENABLE | bsp);
    atomic_store(&s->id, s->vcpu->apic_id & 0xff);
    apic_reset_locked(s);
    timer_arm(&s->timer, CLOCK_NEVER);
    s->lint[0] = s->lint[1] = false;
    s->wait_for_sipi = !bsp;
    host_mutex_unlock(&s->lock);
}

static void apic_reset_done(struct device *dev)
{
    struct apic *s = apic_of(dev);

    host_mutex_lock(&s->lock);
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static int apic_after_load(void *object, struct error *err)
{
    struct apic *s = object;
    uint64_t base = apic_base_now(s);

    if (!apic_base_is_legal(s, APIC_BASE_ENABLE, base))
        return error_set(err, EINVAL, "local APIC: IA32_APIC_BASE cannot be 0x%" PRIx64, base);
    host_mutex_lock(&s->lock);
    s->isr[0] &= 0xffff0000u;
    s->irr[0] &= 0xffff0000u;
    apic_update_ppr_locked(s);
    apic_update_locked(s);
    timer_arm(&s->timer, s->timer_due_ns);
    host_mutex_unlock(&s->lock);
    return 0;
}

static const struct property apic_properties[] = {
    {.name = "vcpu",
     .type = PROPERTY_TYPE_U32,
     .offset = offsetof(struct apic, vcpu_index),
     .help = "index of the vCPU it belongs to"},
    PROPERTY_END,
};

static const struct state_field apic_state[] = {
    STATE_U64(struct apic, base),
    STATE_U32(struct apic, id),
    STATE_U32(struct apic, ldr),
    STATE_U32(struct apic, dfr),
    STATE_U32_MAX(struct apic, tpr, 0xff),
    STATE_U32_MAX(struct apic, svr, 0x11ff),
    STATE_U32_MAX(struct apic, esr, 0xff),
    STATE_U32_MAX(struct apic, esr_pending, 0xff),
    STATE_U32_MAX(struct apic, icr_low, ICR_WRITABLE),
    STATE_U32(struct apic, icr_high),
    STATE_U32S(struct apic, lvt),
    STATE_U32S(struct apic, isr),
    STATE_U32S(struct apic, tmr),
    STATE_U32S(struct apic, irr),
    STATE_U32(struct apic, timer_initial),
    STATE_U32_MAX(struct apic, timer_divide, 0xb),
    STATE_U32(struct apic, timer_start_count),
    STATE_U64(struct apic, timer_start_ns),
    STATE_U64(struct apic, timer_due_ns),
    STATE_U64(struct apic, tsc_deadline),
    STATE_BOOLS(struct apic, lint),
    STATE_BOOL(struct apic, extint_latched),
    STATE_BOOL(struct apic, wait_for_sipi),
    STATE_END,
};

const struct device_class apic_class = {
    .name = "apic",
    .summary = "local APIC of one processor",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct apic),
    .properties = apic_properties,
    .attach = apic_attach,
    .reset = apic_reset,
    .reset_done = apic_reset_done,
    .detach = apic_detach,
    .state = {.version = 1, .oldest = 1, .fields = apic_state, .after_load = apic_after_load},
};
