/*
 * apic_internal.h - what the files of the local APIC share
 */
#ifndef DEVICES_APIC_INTERNAL_H
#define DEVICES_APIC_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/apic.h"
#include "host/host.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"
#include "x86/features.h"

#define APIC_BASE_GPA        0xfee00000ull
#define APIC_BASE_BSP        (1ull << 8)
#define APIC_BASE_X2APIC     (1ull << 10)
#define APIC_BASE_ENABLE     (1ull << 11)

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

#define ICR_DELIVERY_STATUS  0x1000u
#define ICR_WRITABLE         0xccfffu

#define ICR_LOGICAL          0x800u
#define ICR_ASSERT           0x4000u
#define ICR_LEVEL            0x8000u
#define ICR_SHORTHAND_SHIFT  18

#define FIRST_VECTOR         16u

enum apic_shorthand { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS };

enum apic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct apic {
    struct device dev;
    uint32_t vcpu_index; /* property "vcpu" */

    struct vcpu *vcpu;
    struct host_mutex lock;
    struct timer timer;
    apic_eoi_fn *eoi;
    void *eoi_opaque;
    _Atomic int wanted_eoi; /* vector, or -1: apic_want_eoi() */

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

static inline struct apic *apic_of(struct device *dev)
{
    return container_of(dev, struct apic, dev);
}

static inline uint64_t apic_base_now(struct apic *s)
{
    return atomic_load_explicit(&s->base, memory_order_relaxed);
}

static inline bool apic_is_enabled(struct apic *s)
{
    return apic_base_now(s) & APIC_BASE_ENABLE;
}

static inline bool apic_is_x2apic(struct apic *s)
{
    return apic_base_now(s) & APIC_BASE_X2APIC;
}

static inline bool apic_is_software_enabled(struct apic *s)
{
    return atomic_load_explicit(&s->svr, memory_order_relaxed) & SVR_ENABLE;
}

static inline bool apic_has(const struct apic *s, enum x86_feature feature)
{
    return !s->vcpu->model || cpu_model_has(s->vcpu->model, feature);
}

/* ---- 256-bit maps of vectors ---- */

static inline bool map_test(const uint32_t map[8], uint8_t vector)
{
    return map[vector / 32] >> (vector % 32) & 1;
}

static inline void map_set(uint32_t map[8], uint8_t vector)
{
    map[vector / 32] |= 1u << (vector % 32);
}

static inline void map_clear(uint32_t map[8], uint8_t vector)
{
    map[vector / 32] &= ~(1u << (vector % 32));
}

static inline int map_highest(const uint32_t map[8])
{
    for (int i = 7; i >= 0; i--) {
        if (map[i])
            return i * 32 + 31 - __builtin_clz(map[i]);
    }
    return -1;
}

/* ---- apic.c; lock held ---- */

/* Raise or clear VCPU_EVENT_INTERRUPT: after every change of what there is to take. */
void apic_update_locked(struct apic *s);
void apic_update_ppr_locked(struct apic *s);
/* A fixed interrupt arrives. False if the APIC refuses it. */
bool apic_accept_locked(struct apic *s, uint8_t vector, bool level);
/* Log an error in ESR and raise the error interrupt. */
void apic_error_locked(struct apic *s, uint32_t bit);
/* Registers to their values after power-on or INIT; ID and base stay. */
void apic_reset_locked(struct apic *s);
uint32_t apic_x2_ldr(uint32_t id);
/* The APIC of a vCPU, or NULL. */
struct apic *apic_of_vcpu(struct machine *machine, unsigned index);

/* ---- apic_timer.c; lock held ---- */

bool apic_timer_is(const struct apic *s, uint32_t mode);
/* Current count. */
uint32_t apic_timer_count(const struct apic *s, uint64_t now_ns);
/* Virtual time, after an expiry that is due has been acted upon. */
uint64_t apic_timer_now_locked(struct apic *s);
/* After a change of registers: work out when the timer expires, and arm it. */
void apic_timer_start_locked(struct apic *s, uint64_t now_ns);
/* A timer_fn. */
void apic_timer_fire(void *apic);

/* ---- apic_bus.c ---- */

/* What a write of ICR does. wide: destination has 32 bits. No lock held. */
void apic_send(struct apic *s, uint32_t command, uint32_t destination, bool wide);
/* A pin of an enabled APIC is asserted (rises: just now); act by its LVT entry. */
void apic_pin_locked(struct apic *s, unsigned pin, bool rises);

/* ---- apic_registers.c ---- */

enum apic_access { XR = 1, XW = 2, X2R = 4, X2W = 8, R_ = XR | X2R, RW = XR | XW | X2R | X2W };

struct apic_register {
    uint8_t access;     /* enum apic_access; 0: there is no such register */
    uint32_t writable;  /* bits; others are ignored (xAPIC) or reserved (x2APIC: #GP) */
    uint32_t read_only; /* bits that may be written in x2APIC mode without effect */
    uint32_t (*read)(struct apic *s, unsigned reg);              /* lock held */
    void (*write)(struct apic *s, unsigned reg, uint32_t value); /* takes the lock */
};

extern const struct apic_register apic_registers[REG_COUNT];

void apic_write_tpr(struct apic *s, unsigned reg, uint32_t value);
void apic_write_svr(struct apic *s, unsigned reg, uint32_t value);
void apic_write_lvt(struct apic *s, unsigned reg, uint32_t value);

#endif
