/*
 * apic_timer.c - the local APIC's timer: one-shot, periodic, TSC deadline
 *
 * After the Intel SDM vol. 3, 11.5.4. The timer's clock is the virtual clock in nanoseconds
 * (1 GHz). Counts are computed on demand from timer_start_ns and timer_start_count.
 * timer_due_ns is when the next expiry is acted upon; every access to a timer register first
 * catches up with it, so the guest never sees a count of zero before the interrupt. A masked timer
 * counts but is not armed. Expiries of a periodic timer closer than TIMER_MIN_NS are
 * merged: IRR holds one anyway. With a timer_start_count of 0 the timer stands still at 0: so does
 * a one-shot timer that has run out, also if it is made periodic then.
 *
 * Threads: the APIC's lock is held, except in apic_timer_fire, which takes it.
 */
#include "base/log.h"
#include "devices/apic_internal.h"

#define TIMER_MIN_NS 10000u

bool apic_timer_is(const struct apic *s, uint32_t mode)
{
    return (s->lvt[LVT_TIMER] & LVT_TIMER_MODE) == mode;
}

/* Divide configuration 000-110 divides by 2-128, 111 by 1. */
static unsigned apic_timer_shift(const struct apic *s)
{
    unsigned value = (s->timer_divide & 3) | (s->timer_divide >> 1 & 4);

    return (value + 1) & 7;
}

uint32_t apic_timer_count(const struct apic *s, uint64_t now_ns)
{
    uint64_t elapsed = (now_ns - s->timer_start_ns) >> apic_timer_shift(s);

    if (apic_timer_is(s, LVT_TIMER_DEADLINE) || !s->timer_start_count)
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

    if (!s->timer_start_count)
        return CLOCK_NEVER;
    if (first_ns > after_ns)
        return first_ns;
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
void apic_timer_start_locked(struct apic *s, uint64_t now_ns)
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

void apic_timer_fire(void *opaque)
{
    struct apic *s = opaque;

    host_mutex_lock(&s->lock);
    apic_timer_catch_up_locked(s, device_now_ns(&s->dev));
    timer_arm(&s->timer, s->timer_due_ns);
    host_mutex_unlock(&s->lock);
}

uint64_t apic_timer_now_locked(struct apic *s)
{
    uint64_t now_ns = device_now_ns(&s->dev);

    if (apic_timer_catch_up_locked(s, now_ns))
        timer_arm(&s->timer, s->timer_due_ns);
    return now_ns;
}
