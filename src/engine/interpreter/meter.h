/*
 * meter.h - where a vCPU's time goes, for --stats
 *
 * A vCPU is in one part at a time; each change of part adds the time since the last one. What
 * unwinds (longjmp) ends in the run loop, which says so. Without --stats there is no meter, and a
 * change is one comparison. Private to the vCPU's thread; read when it is not in run().
 */
#ifndef ENGINE_INTERPRETER_METER_H
#define ENGINE_INTERPRETER_METER_H

#include "engine/interpreter/interpreter.h"

enum meter_part {
    METER_OUTSIDE, /* stopped, or on the way in and out of run() */
    METER_HALTED,
    METER_LOOP, /* between blocks: events, finding and linking blocks */
    METER_GENERATED,
    METER_TRANSLATING,
    METER_STEPS, /* ops called by generated code: not translated */
    METER_SLOW,  /* the same for accesses that the TLB did not answer at once */
    METER_WALKS,
    METER_DEVICES,
    METER_INTERPRETED, /* and one for each further enum interp_reason */
    METER_PARTS = METER_INTERPRETED + INTERP_REASON_COUNT
};

enum meter_count {
    METER_FAULTS,
    METER_INTERRUPTS,
    METER_TLB_FILLS,
    METER_TLB_FLUSHES,
    METER_TLB_LOCAL_FLUSHES,
    METER_TLB_PAGE_FLUSHES,
    METER_WRITE_TAGS_DROPPED,
    METER_CROSSING,
    METER_GUARDED,
    METER_WATCHED,
    METER_DEVICE_ACCESSES,
    METER_APIC_ACCESSES,
    METER_PORT_ACCESSES,
    METER_EXITS, /* and one for each further enum exit_reason */
    METER_COUNTS = METER_EXITS + EXIT_FAILED + 1
};

struct meter {
    enum meter_part part;
    uint64_t since; /* ticks */
    uint64_t ticks[METER_PARTS], entries[METER_PARTS];
    uint64_t counts[METER_COUNTS];
    uint64_t start_ticks, start_ns;
};

/* NULL if there is no memory. Starts in METER_OUTSIDE. */
struct meter *meter_new(void);
/* Say it all, as engine_ops.stats; nothing without a meter. */
void meter_stats(struct icpu *c, void (*put)(void *opaque, const char *name, uint64_t count),
                 void *opaque);
enum meter_part meter_change(struct meter *m, enum meter_part part);

/* What comes is this part; returns the one before. */
static inline enum meter_part meter_to(struct icpu *c, enum meter_part part)
{
    return unlikely(c->meter) ? meter_change(c->meter, part) : METER_OUTSIDE;
}

static inline void meter_count(struct icpu *c, enum meter_count what)
{
    if (unlikely(c->meter))
        c->meter->counts[what]++;
}

#endif
