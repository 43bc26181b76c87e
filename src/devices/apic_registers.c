/*
 * apic_registers.c - the registers of the local APIC
 *
 * After the Intel SDM vol. 3, tables 11-1 (xAPIC) and 11-6 (x2APIC), and the sections on
 * each register. Reads run with the APIC's lock held; writes take it themselves, because EOI and
 * ICR reach other controllers after they have let it go.
 */
#include "devices/apic_internal.h"

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

void apic_write_tpr(struct apic *s, unsigned reg, uint32_t value)
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
    if (s->eoi && (level ? !(atomic_load(&s->svr) & SVR_SUPPRESS_EOI)
                         : vector >= 0 && vector == atomic_load(&s->wanted_eoi)))
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
void apic_write_svr(struct apic *s, unsigned reg, uint32_t value)
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
    /* The count goes on; a one-shot timer that has run out stays at 0 until it is started again. */
    if (changed & LVT_TIMER_MODE) {
        s->timer_start_count = apic_timer_count(s, now_ns);
        s->timer_start_ns = now_ns;
    }
    if (!apic_is_software_enabled(s))
        value |= LVT_MASKED;
    s->lvt[LVT_TIMER] = value;
    apic_timer_start_locked(s, now_ns);
    host_mutex_unlock(&s->lock);
}

void apic_write_lvt(struct apic *s, unsigned reg, uint32_t value)
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

static void apic_write_self_ipi(struct apic *s, unsigned reg, uint32_t value)
{
    apic_send(s, value | TO_SELF << ICR_SHORTHAND_SHIFT, 0, true);
}

/* ---- the register table ---- */

const struct apic_register apic_registers[REG_COUNT] = {
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
