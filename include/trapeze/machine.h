/*
 * machine.h - a whole machine: memory, buses, clocks, devices, vCPUs, loop
 *
 * States: built -> reset -> running ⇄ paused -> stopped. One main loop thread and
 * one thread per vCPU. The machine lock serialises devices: the loop holds it
 * while it calls handlers, a vCPU takes it around port and memory I/O.
 */
#ifndef TRAPEZE_MACHINE_H
#define TRAPEZE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/clock.h"
#include "trapeze/engine.h"
#include "trapeze/error.h"
#include "trapeze/memory.h"

struct device;
struct clipboard;
struct display;
struct input;
struct loop;

#define MACHINE_MAX_VCPUS     16
#define MACHINE_MIN_RAM_BYTES (1ull << 20)

enum machine_state {
    MACHINE_BUILT,
    MACHINE_RUNNING,
    MACHINE_PAUSED,
    MACHINE_STOPPED,
};

enum stop_reason {
    STOP_NONE,
    STOP_GUEST_EXIT,     /* debug-exit port; the status is the guest's */
    STOP_GUEST_POWEROFF, /* ACPI S5 and the like; status 0 */
    STOP_GUEST_SHUTDOWN, /* triple fault with --no-reboot; status 1 */
    STOP_GUEST_RESET,    /* reset asked for with --no-reboot; status 0 */
    STOP_HOST,           /* the user or the monitor asked; status 0 unless given */
    STOP_ERROR,          /* the VMM cannot go on; status 1 */
};

struct machine_config {
    const char *name;    /* NULL: "vm" */
    uint64_t ram_bytes;  /* multiple of 1 MiB; 0 = 512 MiB */
    unsigned vcpu_count; /* 0 = 1 */
    const struct engine_ops *engine;
    const char *cpu_model; /* NULL: "max" */
    bool counted;          /* virtual time = executed instructions; one vCPU */
    bool no_reboot;        /* stop instead of reset */
    bool start_paused; /* machine_start leaves the machine paused before the first instruction */
    uint64_t code_cache_bytes; /* for translated code; 0: by ram_bytes */
    const char *listing;       /* file for what the engine translates; NULL: none */
    bool stats;                /* the engine measures where time goes */
    bool perf_map;             /* names for perf, /tmp/perf-PID.map */
    uint64_t wall_start_ns;    /* 0 = the host's time of day */
    struct loop *loop;         /* borrowed; must outlive the machine */
};

/* Build the empty machine (no board). Threads start with machine_start. */
struct machine *machine_new(const struct machine_config *config, struct error *err);
/* Stops and joins the vCPU threads, detaches and frees all devices. NULL is fine. */
void machine_free(struct machine *machine);

/* Reset all devices and vCPUs, start the vCPU threads and run. */
int machine_start(struct machine *machine, struct error *err);
/* Stop virtual time and park all vCPUs, outside run(). Main loop thread; nests not. */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);
/*
 * Pause a started machine soon; any thread. A vCPU that calls it, in a counted timer, executes
 * nothing more.
 */
void machine_request_pause(struct machine *machine);
/*
 * The same because something outside the guest is wrong, as why says for people: it is logged, and
 * machine_pause_reason() gives it until the machine is resumed (else NULL). Machine lock held.
 */
void machine_pause_for(struct machine *machine, const char *why);
const char *machine_pause_reason(const struct machine *machine);
/*
 * Two-step reset of devices and vCPUs. machine_request_reset may be called by any
 * thread; the reset happens on the main loop with all vCPUs parked.
 */
void machine_request_reset(struct machine *machine);
void machine_reset(struct machine *machine);
/*
 * Suspend to RAM (ACPI 6.4, 16.1.3). From the request to sleep on the processors have no power;
 * devices still run, and power management's sees what shall wake the machine. The request to wake
 * is a reset of devices and processors, whatever no_reboot says, and machine_is_waking() tells
 * devices meanwhile that what a board keeps then is not to be lost. Any thread; the main loop does
 * it.
 */
void machine_request_sleep(struct machine *machine);
void machine_request_wake(struct machine *machine);
bool machine_is_waking(const struct machine *machine); /* machine lock held */
/* End the machine; the first request wins. Any thread. status is the process's exit status. */
void machine_request_stop(struct machine *machine, enum stop_reason reason, int status);

/* Run the main loop until the machine is stopped; returns the exit status. */
int machine_main(struct machine *machine);

enum machine_state machine_get_state(const struct machine *machine);
const char *machine_state_name(enum machine_state state);
enum stop_reason machine_stop_reason(const struct machine *machine);
int machine_stop_status(const struct machine *machine);
const char *stop_reason_name(enum stop_reason reason);

/* Called on every change of state, and behind every reset, sleep and wake; machine lock held. */
typedef void machine_observer_fn(void *opaque, struct machine *machine, enum machine_state state);
int machine_observe(struct machine *machine, machine_observer_fn *fn, void *opaque);
/* A vCPU stopped for the debugger: called on the main loop with all vCPUs parked. */
typedef void machine_debug_fn(void *opaque, struct vcpu *vcpu, const struct vcpu_exit *exit);
void machine_set_debugger(struct machine *machine, machine_debug_fn *fn, void *opaque);
/*
 * Keep one vCPU parked when the machine resumes, or not any more: a debugger steps others.
 * The machine is paused.
 */
void machine_hold_vcpu(struct machine *machine, unsigned index, bool held);

/*
 * System Management Mode (SDM vol. 3, chapter 32). fn shows SMRAM to the processors or hides it:
 * called with all vCPUs parked, machine lock held, when the first enters and the last has left.
 * NULL, as at first: there is no SMM, and SMIs are lost. Before machine_start.
 */
typedef void machine_smm_fn(void *opaque, bool show);
void machine_set_smm(struct machine *machine, machine_smm_fn *fn, void *opaque);
/* Is a processor in SMM? Then all that run are. Any thread. */
bool machine_in_smm(const struct machine *machine);
/* For engines: an SMI waits, or RSM was executed (X86_RESUMING). False: there is no SMM. Any
 * thread.
 */
bool machine_request_smm(struct machine *machine);
/* Called in reset after step 2, to put a directly loaded kernel and its registers in place again.
 */
typedef void machine_boot_fn(void *opaque, struct machine *machine);
void machine_set_boot(struct machine *machine, machine_boot_fn *fn, void *opaque);

const struct machine_config *machine_config(const struct machine *machine);
struct memory *machine_memory(struct machine *machine);
struct clocks *machine_clocks(struct machine *machine);
struct loop *machine_loop(struct machine *machine);
struct display *machine_display(struct machine *machine);     /* its screens */
struct input *machine_input(struct machine *machine);         /* where keys and pointers go */
struct clipboard *machine_clipboard(struct machine *machine); /* what people copy */
void *machine_engine_data(struct machine *machine);
unsigned machine_vcpu_count(const struct machine *machine);
struct vcpu *machine_vcpu(struct machine *machine, unsigned index);
struct device *machine_first_device(struct machine *machine);
struct device *machine_find_device(struct machine *machine, const char *id);

void machine_lock(struct machine *machine);
void machine_unlock(struct machine *machine);
bool machine_is_locked_by_me(const struct machine *machine);

/*
 * Port and memory-mapped I/O of a vCPU: split, dispatch, merge. size_bytes is 1-8 for
 * memory and 1, 2, 4 for ports. Takes the machine lock. Unclaimed reads give all
 * ones, unclaimed writes vanish; both are counted and logged once per address.
 */
uint32_t bus_port_read(struct machine *machine, uint16_t port, unsigned size_bytes);
void bus_port_write(struct machine *machine, uint16_t port, uint32_t value, unsigned size_bytes);
uint64_t bus_memory_read(struct machine *machine, uint64_t gpa, unsigned size_bytes);
void bus_memory_write(struct machine *machine, uint64_t gpa, uint64_t value, unsigned size_bytes);

/* The host's random bytes, fit for keys. In counted mode what they lead to does not repeat. */
void machine_random(void *out, size_t size_bytes);

/* Address line 20 (port 92h, i8042): bit 20 of every physical address is masked while off. */
bool machine_a20(const struct machine *machine);
const _Atomic bool *machine_a20_gate(const struct machine *machine); /* what that reads */
void machine_set_a20(struct machine *machine, bool enabled);

/* 8259 INTA for a machine without APIC, and for the APIC's ExtINT; set by the PIC. */
typedef int machine_pic_ack_fn(void *opaque);
void machine_set_pic(struct machine *machine, machine_pic_ack_fn *ack, void *opaque);
int machine_pic_acknowledge(struct machine *machine); /* vector, or -1 without a PIC */

#endif
