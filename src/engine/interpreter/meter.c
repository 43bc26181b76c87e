/*
 * meter.c - where a vCPU's time goes
 */
#include "engine/interpreter/meter.h"

#include <stdlib.h>

#include "host/host.h"

/* Far cheaper than the host's clock, which says at the end how long they are. */
static uint64_t ticks_now(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return host_monotonic_ns();
#endif
}

struct meter *meter_new(void)
{
    struct meter *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->start_ns = host_monotonic_ns();
    m->start_ticks = m->since = ticks_now();
    return m;
}

enum meter_part meter_change(struct meter *m, enum meter_part part)
{
    enum meter_part before = m->part;
    uint64_t now = ticks_now();

    m->ticks[before] += now - m->since;
    m->since = now;
    m->part = part;
    m->entries[part]++;
    return before;
}

static const char *const part_names[METER_PARTS] = {
    [METER_OUTSIDE] = "us outside: stopped, starting, on the way in and out",
    [METER_HALTED] = "us halted",
    [METER_LOOP] = "us between blocks: events, finding and linking blocks",
    [METER_GENERATED] = "us in generated code",
    [METER_TRANSLATING] = "us translating",
    [METER_STEPS] = "us in instructions that are not translated",
    [METER_SLOW] = "us in memory accesses that miss the TLB, and rare cases",
    [METER_WALKS] = "us in page walks",
    [METER_DEVICES] = "us in devices",
    [METER_INTERPRETED + INTERP_REAL_MODE] = "us interpreting: real or virtual-8086 mode",
    [METER_INTERPRETED + INTERP_16BIT] = "us interpreting: 16-bit code",
    [METER_INTERPRETED + INTERP_NOT_FLAT] = "us interpreting: segments that are not flat",
    [METER_INTERPRETED + INTERP_ALONE] = "us interpreting: one at a time",
    [METER_INTERPRETED + INTERP_OTHER] = "us interpreting: other code",
};

static const char *const count_names[METER_COUNTS] = {
    [METER_FAULTS] = "faults",
    [METER_INTERRUPTS] = "interrupts",
    [METER_TLB_FILLS] = "TLB: fills",
    [METER_TLB_FLUSHES] = "TLB: flushes of everything",
    [METER_TLB_LOCAL_FLUSHES] = "TLB: flushes of all but global pages",
    [METER_TLB_PAGE_FLUSHES] = "TLB: flushes of one page",
    [METER_WRITE_TAGS_DROPPED] = "TLB: pages write-protected because of their code",
    [METER_CROSSING] = "slow access: crosses a page",
    [METER_GUARDED] = "slow access: writes to a page with code",
    [METER_WATCHED] = "slow access: with watchpoints set",
    [METER_DEVICE_ACCESSES] = "slow access: device",
    [METER_APIC_ACCESSES] = "slow access: local APIC",
    [METER_PORT_ACCESSES] = "port accesses",
    [METER_EXITS + EXIT_KICKED] = "exits: kicked",
    [METER_EXITS + EXIT_HALT] = "exits: halt",
    [METER_EXITS + EXIT_SHUTDOWN] = "exits: shutdown",
    [METER_EXITS + EXIT_DEBUG] = "exits: debugger",
    [METER_EXITS + EXIT_BUDGET] = "exits: budget of instructions",
};

void meter_stats(struct icpu *c, void (*put)(void *opaque, const char *name, uint64_t count),
                 void *opaque)
{
    struct meter *m = c->meter;
    double us_per_tick;

    if (!m)
        return;
    meter_change(m, m->part);
    us_per_tick =
        (double)(host_monotonic_ns() - m->start_ns) / 1000 / (double)(m->since - m->start_ticks);
    for (unsigned n = 0; n < METER_PARTS; n++)
        put(opaque, part_names[n], (uint64_t)((double)m->ticks[n] * us_per_tick));
    put(opaque, "page walks", m->entries[METER_WALKS]);
    for (unsigned n = 0; n < METER_COUNTS; n++)
        if (count_names[n])
            put(opaque, count_names[n], m->counts[n]);
}
