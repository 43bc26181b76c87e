/*
 * machine_internal.h - what machine.c, power.c, smm.c, bus.c, device.c and memory_map.c share
 *
 * The board and the devices do not include this.
 */
#ifndef MACHINE_MACHINE_INTERNAL_H
#define MACHINE_MACHINE_INTERNAL_H

#include <stdatomic.h>

#include "host/host.h"
#include "trapeze/clipboard.h"
#include "trapeze/device.h"
#include "trapeze/display.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"
#include "x86/features.h"

#define PORT_COUNT 0x10000u

/* Ports [first, first+count) of a device. */
struct port_claim {
    uint16_t first;
    uint32_t count;
    const struct region_ops *ops;
    struct device *dev;
};

#define UNCLAIMED_LOG_MAX 64 /* addresses of unclaimed memory accesses that are logged */

struct bus {
    struct port_claim *ports[PORT_COUNT];
    uint8_t port_logged[PORT_COUNT / 8];
    uint64_t memory_logged[UNCLAIMED_LOG_MAX];
    unsigned memory_logged_count;
    uint64_t unclaimed_ports, unclaimed_memory; /* accesses */
};

/* Why vCPUs have to wait outside run(); bits, each set and cleared by itself. */
enum hold {
    HOLD_START = 1 << 0, /* machine_start has not finished */
    HOLD_PAUSE = 1 << 1,
    HOLD_RESET = 1 << 2, /* also falls asleep or wakes */
    HOLD_DEBUG = 1 << 3,
    HOLD_STOP = 1 << 4,
    HOLD_SMM = 1 << 5, /* processors enter or leave System Management Mode */
};

struct vcpu_thread {
    struct vcpu vcpu;
    struct host_thread *host; /* NULL: not started, or the engine has no CPU to run */

    /* Sleep of a halted vCPU, see vcpu_raise. */
    struct host_mutex mutex;
    struct host_cond wake;
    _Atomic bool asleep;
    _Atomic uint32_t raises; /* counts vcpu_raise */

    bool loaded;           /* the engine has the registers (set_state since the last get_state) */
    struct vcpu_exit exit; /* of the last run(); goes into the next one with the value read */

    bool parked;      /* under machine->park_mutex */
    bool held;        /* under machine->park_mutex: machine_hold_vcpu */
    bool outside_smm; /* under machine->park_mutex: others are in SMM, this one is not */
    bool debug_stop;  /* under machine->park_mutex: debug_exit waits for the debugger */
    struct vcpu_exit debug_exit;
    _Atomic uint64_t budget_end_ns; /* counted mode: virtual time at which run() returns */
};

#define MACHINE_OBSERVER_MAX 16

struct machine {
    struct machine_config config;
    char *name, *cpu_model_text;
    struct cpu_model cpu_model;
    struct memory *memory;
    struct clocks *clocks;
    void *engine_data;
    bool engine_created;

    struct host_mutex lock;
    _Atomic uint64_t lock_owner; /* host_thread_self() of the holder, 0 = free */

    struct bus *bus;
    struct device *devices, **last_device;
    struct display display;
    struct input input;
    struct clipboard clipboard;
    _Atomic bool a20;

    msi_sink_fn *msi_sink;
    void *msi_opaque;
    machine_pic_ack_fn *pic_ack;
    void *pic_opaque;
    machine_debug_fn *debugger;
    void *debugger_opaque;
    machine_boot_fn *boot;
    void *boot_opaque;
    struct {
        machine_observer_fn *fn;
        void *opaque;
    } observers[MACHINE_OBSERVER_MAX];
    unsigned observer_count;

    _Atomic int state; /* enum machine_state; written on the main loop's thread */
    unsigned vcpu_count;
    struct vcpu_thread *threads; /* vcpu_count of them */

    _Atomic uint32_t holds; /* enum hold */
    struct host_mutex park_mutex;
    struct host_cond park_changed; /* a vCPU parked, or holds changed */
    _Atomic bool reset_requested, sleep_requested, wake_requested;
    bool is_waking;
    _Atomic bool debug_requested, pause_requested;
    char pause_reason[512]; /* empty: none */
    _Atomic bool ending;    /* threads are to end */

    machine_smm_fn *smm; /* NULL: there is no SMM */
    void *smm_opaque;
    _Atomic bool smm_requested;
    _Atomic bool in_smm; /* some processor is; the others are held */

    _Atomic bool stop_claimed; /* by the first request, which then fills in these: */
    enum stop_reason stop_reason;
    int stop_status;
    _Atomic bool stop_requested; /* and publishes them with this */
};

/* Make vCPUs leave run() and wait until it is released. Any thread. */
void machine_hold(struct machine *machine, uint32_t why);
void machine_release(struct machine *machine, uint32_t why);
/* Some hold is set. Releases the machine lock meanwhile, if the caller has it. */
void machine_wait_parked(struct machine *machine);

/* The engine gets the registers in vcpu->state. The thread is parked, or it is the caller. */
void machine_load_registers(struct vcpu_thread *thread);
void machine_tell_observers(struct machine *machine);

/* power.c; on the main loop's thread, machine lock held. */
/* Is there a request that can be served now? Any thread. */
bool machine_wants_power(const struct machine *machine);
/* Reset the machine, let it fall asleep and wake it, as was requested. */
void machine_serve_power(struct machine *machine);
/* All vCPUs are parked or not started yet. */
void machine_reset_all(struct machine *machine);
void machine_reset_vcpu(struct vcpu_thread *thread);

/* smm.c; on the main loop's thread, machine lock held. */
/* Is there a request, and does the machine run? Any thread. */
bool machine_wants_smm(const struct machine *machine);
/* Do what was requested then. */
void machine_serve_smm(struct machine *machine);
/* Processors' registers came from elsewhere: SMRAM and who may run follow. All are parked. */
void machine_smm_follow(struct machine *machine);

/* bus.c */
struct bus *bus_new(void);
int bus_claim_ports(struct machine *machine, struct port_claim *claim, struct error *err);
void bus_release_ports(struct machine *machine, struct port_claim *claim);

/* For memory_map.c; machine may be NULL. */
void machine_memory_changed(struct machine *machine);
void machine_memory_written(struct machine *machine, uint64_t ram_offset, uint64_t size_bytes);
void machine_dirty_tracking(struct machine *machine, bool on);
void machine_watch_again(struct machine *machine);
bool machine_watch_settled(struct machine *machine);

/* Lock unless the caller already holds it; pass the result to machine_unlock_if. */
static inline bool machine_lock_if(struct machine *machine)
{
    if (machine_is_locked_by_me(machine))
        return false;
    machine_lock(machine);
    return true;
}

static inline void machine_unlock_if(struct machine *machine, bool locked)
{
    if (locked)
        machine_unlock(machine);
}

#endif
