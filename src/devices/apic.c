/*
 * apic.c - the local APIC of one processor, and the messages between APICs
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
 * Theory of operation. An APIC belongs to one vCPU, whose thread alone reads and writes
 * its registers. Messages come from anywhere: another vCPU's ICR, the I/O APIC, a device's
 * MSI, the timer. Whatever changes what the processor should take ends in
 * apic_update_locked(), which raises or clears VCPU_EVENT_INTERRUPT under the APIC's
 * lock, so the event always tells the truth once the lock is free. Requests
 * of another APIC are made with none locked: a sender works out its message, then locks one
 * receiver after the other. IDs, LDR, DFR, base and PPR are atomics because senders
 * read them to choose the receivers; hardware gives no stronger order either.
 *
 * Time. The timer's clock is the virtual clock in nanoseconds (1 GHz). Counts are computed on
 * demand from timer_start_ns and timer_start_count. timer_due_ns is when the next expiry
 * is acted upon; every access to a timer register first catches up with it, so the guest
 * never sees a count of zero before the interrupt. A masked timer counts but is not armed.
 * Expiries of a periodic timer closer than TIMER_MIN_NS are merged: IRR holds one anyway.
 *
 * Threads: register accesses on the vCPU's thread without the machine lock; everything else from
 * any thread. Lock order: machine, PIC, I/O APIC, local APIC; never two local APICs.
 */
#include "devices/apic.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "host/host.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"
#include "x86/features.h"

#define APIC_BASE_GPA        0xfee00000ull
#define APIC_BASE_BSP        (1ull << 8)
#define APIC_BASE_X2APIC     (1ull << 10)
#define APIC_BASE_ENABLE     (1ull << 11)

#define MSR_APIC_BASE        0x1bu
#define MSR_TSC_DEADLINE     0x6e0u
#define MSR_X2APIC_FIRST     0x800u
#define MSR_X2APIC_LAST      0x8ffu

/* Register numbers: MMIO offset / 16, or MSR - 0x800. */
#define REG_ID               0x02u
#define REG_ICR              0x30u
#define REG_COUNT            0x40u

/* Version 0x14, six LVT entries, EOI broadcast suppression. */
#define APIC_VERSION         0x01050014u

#define SVR_ENABLE           0x100u
#define SVR_SUPPRESS_EOI     0x1000u

#define LVT_MASKED           0x10000u
#define LVT_LEVEL            0x8000u
#define LVT_REMOTE_IRR       0x4000u
#define LVT_DELIVERY_STATUS  0x1000u
#define LVT_TIMER_MODE       0x60000u
#define LVT_TIMER_ONE_SHOT   0x00000u
#define LVT_TIMER_PERIODIC   0x20000u
#define LVT_TIMER_DEADLINE   0x40000u

#define ESR_SEND_ILLEGAL     0x20u
#define ESR_RECEIVE_ILLEGAL  0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

#define ICR_LOGICAL          0x800u
#define ICR_ASSERT           0x4000u
#define ICR_LEVEL            0x8000u
#define ICR_DELIVERY_STATUS  0x1000u
#define ICR_WRITABLE         0xccfffu
#define ICR_SHORTHAND_SHIFT  18

#define FIRST_VECTOR         16u
#define TIMER_MIN_NS         10000u

enum apic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct apic {
    struct device dev;
    uint32_t vcpu_index; /* property "vcpu" */

    struct vcpu *vcpu;
    struct host_mutex lock;
    struct timer timer;
    apic_eoi_fn *eoi;
    void *eoi_opaque;

    /* guest-visible state, changed under the lock */
    _Atomic uint64_t base; /* IA32_APIC_BASE */
    _Atomic uint32_t id;   /* 8 bits in xAPIC mode */
    _Atomic uint32_t ldr, dfr;
    _Atomic uint32_t tpr;
    _Atomic uint32_t svr;
    uint32_t esr, esr_pending;
    uint32_t icr_low, icr_high;
    uint32_t lvt[LVT_COUNT];
    uint32_t isr[8], tmr[8], irr[8];
    uint32_t timer_initial, timer_divide;
    uint32_t timer_start_count; /* the count at timer_start_ns */
    uint64_t timer_start_ns;
    uint64_t timer_due_ns; /* CLOCK_NEVER: not armed */
    uint64_t tsc_deadline;
    bool lint[2];        /* levels of the input pins */
    bool extint_latched; /* an ExtINT message is waiting */
    bool wait_for_sipi;

    /* caches */
    _Atomic uint32_t ppr;
    _Atomic bool interrupting; /* what pending() answers */
};

static struct apic *apic_of(struct device *dev)
{
    return container_of(dev, struct apic, dev);
}

static uint64_t apic_base_now(struct apic *s)
{
    return atomic_load_explicit(&s->base, memory_order_relaxed);
}

static bool apic_is_enabled(struct apic *s)
{
    return apic_base_now(s) & APIC_BASE_ENABLE;
}

static bool apic_is_x2apic(struct apic *s)
{
    return apic_base_now(s) & APIC_BASE_X2APIC;
}

static bool apic_is_software_enabled(struct apic *s)
{
    return atomic_load_explicit(&s->svr, memory_order_relaxed) & SVR_ENABLE;
}

static bool apic_has(const struct apic *s, enum x86_feature feature)
{
    return !s->vcpu->model || cpu_model_has(s->vcpu->model, feature);
}

/* ---- 256-bit maps of vectors ---- */

static bool map_test(const uint32_t map[8], uint8_t vector)
{
    return map[vector / 32] >> (vector % 32) & 1;
}

static void map_set(uint32_t map[8], uint8_t vector)
{
    map[vector / 32] |= 1u << (vector % 32);
}

static void map_clear(uint32_t map[8], uint8_t vector)
{
    map[vector / 32] &= ~(1u << (vector % 32));
}

static int map_highest(const uint32_t map[8])
{
    for (int i = 7; i >= 0; i--) {
        if (map[i])
            return i * 32 + 31 - __builtin_clz(map[i]);
    }
    return -1;
}

/* ---- what the processor is asked to take; lock held ---- */

/* Processor priority: SDM vol. 3, 11.8.3.1. */
static void apic_update_ppr_locked(struct apic *s)
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

static void apic_update_locked(struct apic *s)
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

static bool apic_accept_locked(struct apic *s, uint8_t vector, bool level);

/* The first error after ESR was written raises the error interrupt: SDM vol. 3, 11.5.3. */
static void apic_error_locked(struct apic *s, uint32_t bit)
{
    uint32_t entry = s->lvt[LVT_ERROR];
    bool first = !s->esr_pending;

    s->esr_pending |= bit;
    if (!first || (entry & LVT_MASKED))
        return;
    apic_accept_locked(s, (uint8_t)entry, false);
}

/* A fixed interrupt arrives. False if the APIC refuses it. */
static bool apic_accept_locked(struct apic *s, uint8_t vector, bool level)
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

static uint32_t apic_x2_ldr(uint32_t id)
{
    return (id & 0xffff0) << 12 | 1u << (id & 15);
}

/* Power-on, INIT, and when the APIC was switched off: SDM vol. 3, 11.4.7. ID and base stay. */
static void apic_reset_locked(struct apic *s)
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

/* ---- timer; lock held ---- */

static bool apic_timer_is(const struct apic *s, uint32_t mode)
{
    return (s->lvt[LVT_TIMER] & LVT_TIMER_MODE) == mode;
}

/* Divide configuration 000-110 divides by 2-128, 111 by 1. */
static unsigned apic_timer_shift(const struct apic *s)
{
    unsigned value = (s->timer_divide & 3) | (s->timer_divide >> 1 & 4);

    return (value + 1) & 7;
}

static uint32_t apic_timer_count(const struct apic *s, uint64_t now_ns)
{
    uint64_t elapsed = (now_ns - s->timer_start_ns) >> apic_timer_shift(s);

    if (apic_timer_is(s, LVT_TIMER_DEADLINE) || !s->timer_initial)
        return 0;
    if (elapsed < s->timer_start_count)
        return s->timer_start_count - (uint32_t)elapsed;
    if (!apic_timer_is(s, LVT_TIMER_PERIODIC))
        return 0;
    return s->timer_initial - (uint32_t)((elapsed - s->timer_start_count) % s->timer_initial);
}

/* When the count reaches zero for the first time after a moment; CLOCK_NEVER if it does not. */
static uint64_t apic_timer_zero_after(const struct apic *s, uint64_t after_ns)
{
    unsigned shift = apic_timer_shift(s);
    uint64_t first_ns = s->timer_start_ns + ((uint64_t)s->timer_start_count << shift);
    uint64_t period_ns = (uint64_t)s->timer_initial << shift;

    if (!s->timer_initial)
        return CLOCK_NEVER;
    if (first_ns > after_ns)
        return s->timer_start_count ? first_ns : CLOCK_NEVER;
    if (!apic_timer_is(s, LVT_TIMER_PERIODIC))
        return CLOCK_NEVER;
    return first_ns + ((after_ns - first_ns) / period_ns + 1) * period_ns;
}

/* Guest TSC at a moment of the virtual clock. */
static uint64_t apic_tsc_hz(const struct apic *s)
{
    const struct cpu_model *model = s->vcpu->model;

    return model && model->tsc_hz ? model->tsc_hz : NANOSECONDS_PER_SECOND;
}

static uint64_t apic_guest_tsc(const struct apic *s, uint64_t now_ns)
{
    unsigned __int128 ticks = (unsigned __int128)now_ns * apic_tsc_hz(s) / NANOSECONDS_PER_SECOND;

    return (uint64_t)ticks + atomic_load(&s->vcpu->tsc_offset);
}

static uint64_t apic_deadline_ns(const struct apic *s, uint64_t now_ns)
{
    uint64_t tsc = apic_guest_tsc(s, now_ns), hz = apic_tsc_hz(s);
    unsigned __int128 wait_ns;

    if (!s->tsc_deadline)
        return CLOCK_NEVER;
    if (s->tsc_deadline <= tsc)
        return now_ns;
    wait_ns = ((unsigned __int128)(s->tsc_deadline - tsc) * NANOSECONDS_PER_SECOND + hz - 1) / hz;
    return wait_ns >= CLOCK_NEVER - now_ns ? CLOCK_NEVER - 1 : now_ns + (uint64_t)wait_ns;
}

static void apic_timer_expire_locked(struct apic *s, uint64_t now_ns)
{
    uint64_t merged_ns = s->timer_due_ns + TIMER_MIN_NS - 1;
    uint32_t entry = s->lvt[LVT_TIMER];

    if (apic_timer_is(s, LVT_TIMER_DEADLINE)) {
        s->tsc_deadline = 0;
        s->timer_due_ns = CLOCK_NEVER;
    } else {
        s->timer_due_ns = apic_timer_zero_after(s, now_ns > merged_ns ? now_ns : merged_ns);
    }
    trace(APIC_TIMER, s->vcpu->index, entry & 0xff, now_ns);
    if (!(entry & LVT_MASKED))
        apic_accept_locked(s, (uint8_t)entry, false);
}

/* Act on an expiry that is due. True if there was one. */
static bool apic_timer_catch_up_locked(struct apic *s, uint64_t now_ns)
{
    if (s->timer_due_ns > now_ns)
        return false;
    apic_timer_expire_locked(s, now_ns);
    return true;
}

/* After a change of registers: work out when the timer expires, and arm it. */
static void apic_timer_start_locked(struct apic *s, uint64_t now_ns)
{
    if (apic_timer_is(s, LVT_TIMER_DEADLINE))
        s->timer_due_ns = apic_deadline_ns(s, now_ns);
    else if (s->lvt[LVT_TIMER] & LVT_MASKED)
        s->timer_due_ns = CLOCK_NEVER;
    else
        s->timer_due_ns = apic_timer_zero_after(s, now_ns);
    apic_timer_catch_up_locked(s, now_ns);
    timer_arm(&s->timer, s->timer_due_ns);
}

static void apic_timer_fire(void *opaque)
{
    struct apic *s = opaque;

    host_mutex_lock(&s->lock);
    apic_timer_catch_up_locked(s, device_now_ns(&s->dev));
    timer_arm(&s->timer, s->timer_due_ns);
    host_mutex_unlock(&s->lock);
}

static uint64_t apic_timer_now_locked(struct apic *s)
{
    uint64_t now_ns = device_now_ns(&s->dev);

    if (apic_timer_catch_up_locked(s, now_ns))
        timer_arm(&s->timer, s->timer_due_ns);
    return now_ns;
}

/* ---- messages ---- */

/* xAPIC logical destination: SDM vol. 3, 11.6.2.2. */
static bool apic_matches_logical(uint32_t dfr, uint32_t logical_id, uint32_t destination)
{
    if (destination > 0xff)
        return false;
    if (dfr >> 28 == 0xf) /* flat */
        return destination & logical_id;
    return (destination >> 4 == logical_id >> 4 || destination >> 4 == 0xf) &&
           (destination & logical_id & 0xf);
}

static bool apic_is_addressed(struct apic *s, const struct apic_message *message)
{
    uint32_t destination = message->destination;
    uint32_t ldr = atomic_load_explicit(&s->ldr, memory_order_relaxed);

    if (!apic_is_enabled(s))
        return false;
    if (destination == (message->wide ? UINT32_MAX : 0xff))
        return true;
    if (!message->logical)
        return destination == atomic_load_explicit(&s->id, memory_order_relaxed);
    if (apic_is_x2apic(s))
        return destination >> 16 == ldr >> 16 && (destination & ldr & 0xffff);
    return apic_matches_logical(atomic_load_explicit(&s->dfr, memory_order_relaxed), ldr >> 24,
                                destination);
}

static void apic_take_init_locked(struct apic *s)
{
    apic_reset_locked(s);
    timer_arm(&s->timer, CLOCK_NEVER);
    s->wait_for_sipi = !(apic_base_now(s) & APIC_BASE_BSP);
    apic_update_locked(s);
    vcpu_take(s->vcpu, VCPU_EVENT_SIPI);
    vcpu_raise(s->vcpu, VCPU_EVENT_INIT);
}

static bool apic_take_sipi_locked(struct apic *s, uint8_t vector)
{
    if (!s->wait_for_sipi)
        return false;
    s->wait_for_sipi = false;
    atomic_store(&s->vcpu->sipi_vector, vector);
    vcpu_raise(s->vcpu, VCPU_EVENT_SIPI);
    return true;
}

static bool apic_take_locked(struct apic *s, uint8_t delivery, uint8_t vector, bool level)
{
    switch (delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return apic_accept_locked(s, vector, level);
    case APIC_SMI:
        vcpu_raise(s->vcpu, VCPU_EVENT_SMI);
        return true;
    case APIC_NMI:
        vcpu_raise(s->vcpu, VCPU_EVENT_NMI);
        return true;
    case APIC_INIT:
        apic_take_init_locked(s);
        return true;
    case APIC_SIPI:
        return apic_take_sipi_locked(s, vector);
    case APIC_EXTINT:
        s->extint_latched = true;
        apic_update_locked(s);
        return true;
    default:
        return false;
    }
}

static struct apic *apic_of_vcpu(struct machine *machine, unsigned index);

/* Of the receivers, the one with the lowest priority; between equals the vector decides. */
static uint32_t apic_arbitrate(struct machine *machine, uint32_t receivers, uint8_t vector)
{
    uint32_t lowest = UINT32_MAX, equals = 0;

    for (uint32_t rest = receivers; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctz(rest);
        struct apic *s = apic_of_vcpu(machine, i);
        uint32_t ppr = atomic_load_explicit(&s->ppr, memory_order_relaxed) >> 4;

        if (!apic_is_software_enabled(s) || ppr > lowest)
            continue;
        equals = (ppr < lowest ? 0 : equals) | 1u << i;
        lowest = ppr;
    }
    if (!equals)
        return 0;
    for (unsigned skip = vector % (unsigned)__builtin_popcount(equals); skip; skip--)
        equals &= equals - 1;
    return equals & -equals;
}

static unsigned apic_deliver_to(struct machine *machine, uint32_t receivers,
                                const struct apic_message *message)
{
    unsigned taken = 0;

    if (message->delivery == APIC_LOWEST || message->redirect)
        receivers = apic_arbitrate(machine, receivers, message->vector);
    for (; receivers; receivers &= receivers - 1) {
        struct apic *s = apic_of_vcpu(machine, (unsigned)__builtin_ctz(receivers));

        host_mutex_lock(&s->lock);
        taken += apic_is_enabled(s) &&
                 apic_take_locked(s, message->delivery, message->vector, message->level);
        host_mutex_unlock(&s->lock);
    }
    return taken;
}

static uint32_t apic_receivers(struct machine *machine, const struct apic_message *message)
{
    unsigned count = machine_vcpu_count(machine);
    uint32_t receivers = 0;

    for (unsigned i = 0; i < count; i++) {
        struct apic *s = apic_of_vcpu(machine, i);

        if (s && apic_is_addressed(s, message))
            receivers |= 1u << i;
    }
    return receivers;
}

unsigned apic_deliver(struct machine *machine, const struct apic_message *message)
{
    return apic_deliver_to(machine, apic_receivers(machine, message), message);
}

/* SDM vol. 3, 11.11: the address holds the destination, the data the rest. */
void apic_msi_sink(void *machine, uint64_t address, uint32_t data)
{
    struct apic_message message = {
        .destination = address >> 12 & 0xff,
        .redirect = address & 8,
        .logical = address & 4,
        .delivery = data >> 8 & 7,
        .level = data & 0x8000,
        .vector = (uint8_t)data,
    };

    /* A level-triggered deassert message takes nothing back from an edge-like IRR. */
    if (message.level && !(data & 0x4000))
        return;
    trace(APIC_MSI, address, data);
    apic_deliver(machine, &message);
}

/* ---- local interrupt pins ---- */

/* A pin of an enabled APIC is asserted (rises: just now); act by its LVT entry. */
static void apic_pin_locked(struct apic *s, unsigned pin, bool rises)
{
    uint32_t *entry = &s->lvt[LVT_LINT0 + pin];
    uint8_t delivery = *entry >> 8 & 7;
    bool level = (*entry & LVT_LEVEL) && delivery == APIC_FIXED;

    if ((*entry & LVT_MASKED) || delivery == APIC_EXTINT || delivery == APIC_LOWEST ||
        delivery == APIC_SIPI)
        return;
    if (level ? *entry & LVT_REMOTE_IRR : !rises)
        return;
    if (apic_take_locked(s, delivery, (uint8_t)*entry, level) && level)
        *entry |= LVT_REMOTE_IRR;
}

static void apic_set_pin(struct apic *s, unsigned pin, bool level)
{
    host_mutex_lock(&s->lock);
    bool rises = level && !s->lint[pin];

    s->lint[pin] = level;
    if (apic_is_enabled(s)) {
        if (level)
            apic_pin_locked(s, pin, rises);
    } else if (pin == 1 && rises) {
        vcpu_raise(s->vcpu, VCPU_EVENT_NMI);
    }
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static void apic_set_pins(struct machine *machine, unsigned pin, bool level)
{
    unsigned count = machine_vcpu_count(machine);

    for (unsigned i = 0; i < count; i++) {
        struct apic *s = apic_of_vcpu(machine, i);

        if (s)
            apic_set_pin(s, pin, level);
    }
}

void apic_intr_sink(void *machine, unsigned number, bool level)
{
    apic_set_pins(machine, 0, level);
}

void apic_nmi_sink(void *machine, unsigned number, bool level)
{
    apic_set_pins(machine, 1, level);
}

/* ---- registers: reads, lock held ---- */

static uint32_t apic_read_id(struct apic *s, unsigned reg)
{
    uint32_t id = atomic_load(&s->id);

    return apic_is_x2apic(s) ? id : id << 24;
}

static uint32_t apic_read_version(struct apic *s, unsigned reg)
{
    return APIC_VERSION;
}

static uint32_t apic_read_tpr(struct apic *s, unsigned reg)
{
    return atomic_load(&s->tpr);
}

/* Arbitration priority: SDM vol. 3, 11.6.2.4. */
static uint32_t apic_read_apr(struct apic *s, unsigned reg)
{
    int serving = map_highest(s->isr), requested = map_highest(s->irr);
    uint32_t isrv = serving < 0 ? 0 : (uint32_t)serving & 0xf0;
    uint32_t irrv = requested < 0 ? 0 : (uint32_t)requested & 0xf0;
    uint32_t tpr = atomic_load(&s->tpr);
    uint32_t tprv = tpr & 0xf0;

    if (tprv >= irrv && tprv > isrv)
        return tpr;
    if (irrv < tprv)
        irrv = tprv;
    return irrv > isrv ? irrv : isrv;
}

static uint32_t apic_read_ppr(struct apic *s, unsigned reg)
{
    return atomic_load(&s->ppr);
}

static uint32_t apic_read_zero(struct apic *s, unsigned reg)
{
    return 0;
}

static uint32_t apic_read_ldr(struct apic *s, unsigned reg)
{
    return atomic_load(&s->ldr);
}

static uint32_t apic_read_dfr(struct apic *s, unsigned reg)
{
    return atomic_load(&s->dfr);
}

static uint32_t apic_read_svr(struct apic *s, unsigned reg)
{
    return atomic_load(&s->svr);
}

static uint32_t apic_read_isr(struct apic *s, unsigned reg)
{
    return s->isr[reg & 7];
}

static uint32_t apic_read_tmr(struct apic *s, unsigned reg)
{
    return s->tmr[reg & 7];
}

static uint32_t apic_read_irr(struct apic *s, unsigned reg)
{
    apic_timer_now_locked(s);
    return s->irr[reg & 7];
}

static uint32_t apic_read_esr(struct apic *s, unsigned reg)
{
    return s->esr;
}

static uint32_t apic_read_icr(struct apic *s, unsigned reg)
{
    return reg == REG_ICR ? s->icr_low : s->icr_high;
}

static uint32_t apic_read_lvt(struct apic *s, unsigned reg)
{
    return s->lvt[reg - 0x32];
}

static uint32_t apic_read_initial(struct apic *s, unsigned reg)
{
    return s->timer_initial;
}

static uint32_t apic_read_current(struct apic *s, unsigned reg)
{
    return apic_timer_count(s, apic_timer_now_locked(s));
}

static uint32_t apic_read_divide(struct apic *s, unsigned reg)
{
    return s->timer_divide;
}

/* ---- registers: writes, without the lock ---- */

static void apic_write_id(struct apic *s, unsigned reg, uint32_t value)
{
    atomic_store(&s->id, value >> 24);
}

static void apic_write_tpr(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    atomic_store_explicit(&s->tpr, value, memory_order_relaxed);
    apic_update_ppr_locked(s);
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

/* LINT pins that are level-triggered with this vector may interrupt again. */
static void apic_eoi_pins_locked(struct apic *s, uint8_t vector)
{
    for (unsigned pin = 0; pin < 2; pin++) {
        uint32_t *entry = &s->lvt[LVT_LINT0 + pin];

        if (!(*entry & LVT_REMOTE_IRR) || (uint8_t)*entry != vector)
            continue;
        *entry &= ~LVT_REMOTE_IRR;
        if (s->lint[pin])
            apic_pin_locked(s, pin, false);
    }
}

static void apic_write_eoi(struct apic *s, unsigned reg, uint32_t value)
{
    bool level = false;

    host_mutex_lock(&s->lock);
    int vector = map_highest(s->isr);
    if (vector >= 0) {
        level = map_test(s->tmr, (uint8_t)vector);
        map_clear(s->isr, (uint8_t)vector);
        apic_update_ppr_locked(s);
        if (level)
            apic_eoi_pins_locked(s, (uint8_t)vector);
        apic_update_locked(s);
    }
    host_mutex_unlock(&s->lock);
    if (level && s->eoi && !(atomic_load(&s->svr) & SVR_SUPPRESS_EOI))
        s->eoi(s->eoi_opaque, (uint8_t)vector);
}

static void apic_write_ldr(struct apic *s, unsigned reg, uint32_t value)
{
    atomic_store(&s->ldr, value);
}

static void apic_write_dfr(struct apic *s, unsigned reg, uint32_t value)
{
    atomic_store(&s->dfr, value | 0x0fffffffu);
}

/* A cleared enable bit masks the whole LVT: SDM vol. 3, 11.4.7.2. */
static void apic_write_svr(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    uint64_t now_ns = apic_timer_now_locked(s);
    atomic_store(&s->svr, value);
    if (!(value & SVR_ENABLE)) {
        for (unsigned i = 0; i < LVT_COUNT; i++)
            s->lvt[i] |= LVT_MASKED;
        apic_timer_start_locked(s, now_ns);
    }
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static void apic_write_esr(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    s->esr = s->esr_pending;
    s->esr_pending = 0;
    host_mutex_unlock(&s->lock);
}

static void apic_write_lvt_timer(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    uint64_t now_ns = apic_timer_now_locked(s);
    uint32_t changed;

    if (!apic_has(s, X86_FEATURE_TSC_DEADLINE))
        value &= ~LVT_TIMER_DEADLINE;
    changed = s->lvt[LVT_TIMER] ^ value;

    /* Into or out of TSC-deadline mode disarms the timer: SDM vol. 3, 11.5.4.1. */
    if (changed & LVT_TIMER_DEADLINE) {
        s->timer_initial = s->timer_start_count = 0;
        s->tsc_deadline = 0;
    }
    if (!apic_is_software_enabled(s))
        value |= LVT_MASKED;
    s->lvt[LVT_TIMER] = value;
    apic_timer_start_locked(s, now_ns);
    host_mutex_unlock(&s->lock);
}

static void apic_write_lvt(struct apic *s, unsigned reg, uint32_t value)
{
    unsigned index = reg - 0x32;
    uint32_t *entry = &s->lvt[index];

    host_mutex_lock(&s->lock);
    value |= *entry & LVT_REMOTE_IRR;
    if (!(value & LVT_LEVEL) || (value >> 8 & 7) != APIC_FIXED)
        value &= ~LVT_REMOTE_IRR;
    if (!apic_is_software_enabled(s))
        value |= LVT_MASKED;
    *entry = value;
    if ((index == LVT_LINT0 || index == LVT_LINT1) && s->lint[index - LVT_LINT0])
        apic_pin_locked(s, index - LVT_LINT0, false);
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static void apic_write_initial(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    uint64_t now_ns = apic_timer_now_locked(s);
    if (!apic_timer_is(s, LVT_TIMER_DEADLINE)) {
        s->timer_initial = s->timer_start_count = value;
        s->timer_start_ns = now_ns;
        apic_timer_start_locked(s, now_ns);
    }
    host_mutex_unlock(&s->lock);
}

/* The count goes on from where it is at the new rate. */
static void apic_write_divide(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    uint64_t now_ns = apic_timer_now_locked(s);
    s->timer_start_count = apic_timer_count(s, now_ns);
    s->timer_start_ns = now_ns;
    s->timer_divide = value;
    if (!apic_timer_is(s, LVT_TIMER_DEADLINE))
        apic_timer_start_locked(s, now_ns);
    host_mutex_unlock(&s->lock);
}

/* ---- interprocessor interrupts ---- */

static void apic_send_error(struct apic *s)
{
    host_mutex_lock(&s->lock);
    apic_error_locked(s, ESR_SEND_ILLEGAL);
    host_mutex_unlock(&s->lock);
}

enum apic_shorthand { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

static void apic_send(struct apic *s, uint32_t command, uint32_t destination, bool wide)
{
    struct machine *machine = s->dev.machine;
    uint32_t self = 1u << s->vcpu_index;
    struct apic_message message = {
        .destination = destination,
        .wide = wide,
        .logical = command & ICR_LOGICAL,
        .delivery = command >> 8 & 7,
        .vector = (uint8_t)command,
    };
    enum apic_shorthand shorthand = command >> ICR_SHORTHAND_SHIFT & 3;

    trace(APIC_IPI, s->vcpu->index, command, destination);
    if (message.delivery <= APIC_LOWEST && message.vector < FIRST_VECTOR) {
        apic_send_error(s);
        return;
    }
    /* INIT level deassert only synchronises arbitration IDs, which do not exist any more. */
    if (message.delivery == APIC_INIT && (command & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return;
    if (shorthand != TO_DESTINATION && shorthand != TO_SELF) {
        message.wide = false;
        message.logical = false;
        message.destination = 0xff;
    }
    uint32_t receivers = shorthand == TO_SELF ? self : apic_receivers(machine, &message);
    if (shorthand == TO_OTHERS)
        receivers &= ~self;
    apic_deliver_to(machine, receivers, &message);
}

static void apic_write_icr_low(struct apic *s, unsigned reg, uint32_t value)
{
    uint32_t destination;

    host_mutex_lock(&s->lock);
    s->icr_low = value;
    destination = s->icr_high >> 24;
    host_mutex_unlock(&s->lock);
    apic_send(s, value, destination, false);
}

static void apic_write_icr_high(struct apic *s, unsigned reg, uint32_t value)
{
    host_mutex_lock(&s->lock);
    s->icr_high = value;
    host_mutex_unlock(&s->lock);
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

static void apic_write_self_ipi(struct apic *s, unsigned reg, uint32_t value)
{
    apic_send(s, value | TO_SELF << ICR_SHORTHAND_SHIFT, 0, true);
}

/* ---- the register table ---- */

enum apic_access { XR = 1, XW = 2, X2R = 4, X2W = 8, R_ = XR | X2R, RW = XR | XW | X2R | X2W };

struct apic_register {
    uint8_t access;     /* enum apic_access; 0: there is no such register */
    uint32_t writable;  /* bits; others are ignored (xAPIC) or reserved (x2APIC: #GP) */
    uint32_t read_only; /* bits that may be written in x2APIC mode without effect */
    uint32_t (*read)(struct apic *s, unsigned reg);
    void (*write)(struct apic *s, unsigned reg, uint32_t value);
};

static const struct apic_register apic_registers[REG_COUNT] = {
    [REG_ID] = {R_ | XW, 0xff000000, 0, apic_read_id, apic_write_id},
    [0x03] = {R_, 0, 0, apic_read_version, NULL},
    [0x08] = {RW, 0xff, 0, apic_read_tpr, apic_write_tpr},
    [0x09] = {XR, 0, 0, apic_read_apr, NULL},
    [0x0a] = {R_, 0, 0, apic_read_ppr, NULL},
    [0x0b] = {XR | XW | X2W, 0, 0, apic_read_zero, apic_write_eoi},
    [0x0c] = {XR, 0, 0, apic_read_zero, NULL},
    [0x0d] = {R_ | XW, 0xff000000, 0, apic_read_ldr, apic_write_ldr},
    [0x0e] = {XR | XW, 0xf0000000, 0, apic_read_dfr, apic_write_dfr},
    [0x0f] = {RW, 0x11ff, 0, apic_read_svr, apic_write_svr},
    [0x10 ... 0x17] = {R_, 0, 0, apic_read_isr, NULL},
    [0x18 ... 0x1f] = {R_, 0, 0, apic_read_tmr, NULL},
    [0x20 ... 0x27] = {R_, 0, 0, apic_read_irr, NULL},
    [0x28] = {RW, 0, 0, apic_read_esr, apic_write_esr},
    [REG_ICR] = {RW, ICR_WRITABLE, ICR_DELIVERY_STATUS, apic_read_icr, apic_write_icr_low},
    [0x31] = {XR | XW, 0xff000000, 0, apic_read_icr, apic_write_icr_high},
    [0x32] = {RW, 0x700ff, LVT_DELIVERY_STATUS, apic_read_lvt, apic_write_lvt_timer},
    [0x33] = {RW, 0x107ff, LVT_DELIVERY_STATUS, apic_read_lvt, apic_write_lvt},
    [0x34] = {RW, 0x107ff, LVT_DELIVERY_STATUS, apic_read_lvt, apic_write_lvt},
    [0x35] = {RW, 0x1a7ff, LVT_DELIVERY_STATUS | LVT_REMOTE_IRR, apic_read_lvt, apic_write_lvt},
    [0x36] = {RW, 0x1a7ff, LVT_DELIVERY_STATUS | LVT_REMOTE_IRR, apic_read_lvt, apic_write_lvt},
    [0x37] = {RW, 0x100ff, LVT_DELIVERY_STATUS, apic_read_lvt, apic_write_lvt},
    [0x38] = {RW, UINT32_MAX, 0, apic_read_initial, apic_write_initial},
    [0x39] = {R_, 0, 0, apic_read_current, NULL},
    [0x3e] = {RW, 0xb, 0, apic_read_divide, apic_write_divide},
    [0x3f] = {X2W, 0xff, 0, NULL, apic_write_self_ipi},
};

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

static struct apic *apic_of_vcpu(struct machine *machine, unsigned index)
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
    }
    return 0;
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
