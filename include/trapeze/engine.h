/*
 * engine.h - a way to run a virtual CPU
 *
 * An engine is a const struct engine_ops in the table of engine_list.c. One
 * thread per vCPU calls run() in a loop; everything else that touches a vCPU from
 * outside goes through events (vcpu_raise) or waits until the vCPU is parked.
 */
#ifndef TRAPEZE_ENGINE_H
#define TRAPEZE_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "trapeze/error.h"
#include "trapeze/memory.h"
#include "trapeze/x86_state.h"

struct machine;
struct cpu_model;

/* Why run() came back. */
enum exit_reason {
    EXIT_KICKED,   /* VCPU_EVENT_KICK was raised */
    EXIT_HALT,     /* HLT or wait-for-SIPI, and nothing is pending: sleep until an event */
    EXIT_SHUTDOWN, /* triple fault */
    EXIT_DEBUG,    /* breakpoint, watchpoint or step asked for by the debugger */
    EXIT_PORT,     /* exit.port; the caller does the access and calls run again */
    EXIT_MMIO,     /* exit.mmio; likewise */
    EXIT_HYPERCALL,
    EXIT_INTERRUPT_WINDOW, /* asked for, and an interrupt can be taken now */
    EXIT_BUDGET,           /* counted mode: the instruction budget is used up */
    EXIT_FAILED,           /* the engine cannot go on; exit.failure says why */
};

enum debug_cause { DEBUG_STEP, DEBUG_BREAKPOINT, DEBUG_WATCH_READ, DEBUG_WATCH_WRITE };

struct vcpu_exit {
    enum exit_reason reason;
    union {
        struct {
            uint16_t port;
            uint8_t size_bytes;
            bool write;
            uint32_t value; /* in and out */
        } port;
        struct {
            uint64_t gpa;
            uint8_t size_bytes;
            bool write;
            uint64_t value;
        } mmio;
        struct {
            enum debug_cause cause;
            uint64_t gva; /* of the watchpoint that was hit */
        } debug;
        const char *failure;
    };
};

/*
 * Events of a vCPU: bits that any thread may raise with vcpu_raise(). The engine
 * looks at them at least at every taken branch. INTERRUPT stays raised while the
 * APIC says so; the others are taken (cleared) by whoever handles them.
 */
enum vcpu_event {
    VCPU_EVENT_KICK = 1u << 0,      /* leave run() */
    VCPU_EVENT_INTERRUPT = 1u << 1, /* the APIC (or PIC) has a maskable interrupt */
    VCPU_EVENT_NMI = 1u << 2,
    VCPU_EVENT_INIT = 1u << 3,
    VCPU_EVENT_SIPI = 1u << 4,   /* vector in vcpu->sipi_vector */
    VCPU_EVENT_SMI = 1u << 5,    /* the engine answers with machine_request_smm */
    VCPU_EVENT_ENGINE = 1u << 6, /* private to the engine: cross-vCPU requests */
    /* A second NMI, before the engine has seen the first: set by vcpu_raise_nmi. */
    VCPU_EVENT_NMI_AGAIN = 1u << 7,
};

/*
 * What the engine needs of the local APIC. The APIC device fills in vcpu->apic
 * and vcpu->apic_ops when it attaches. Called on the vCPU's thread without the
 * machine lock; the APIC locks itself.
 */
struct vcpu_apic_ops {
    bool (*pending)(void *apic);    /* would acknowledge() give a vector now? */
    int (*acknowledge)(void *apic); /* INTA: the vector to deliver, or -1 (spurious or TPR) */
    uint64_t (*base)(void *apic);   /* IA32_APIC_BASE */
    uint64_t (*mmio_read)(void *apic, uint32_t offset, unsigned size);
    void (*mmio_write)(void *apic, uint32_t offset, uint64_t value, unsigned size);
    /* IA32_APIC_BASE, TSC_DEADLINE and x2APIC MSRs; false means #GP(0). */
    bool (*msr_read)(void *apic, uint32_t msr, uint64_t *out_value);
    bool (*msr_write)(void *apic, uint32_t msr, uint64_t value);
    uint8_t (*cr8)(void *apic);
    void (*set_cr8)(void *apic, uint8_t value); /* value 0-15 */
    /* vcpu->tsc_offset was changed: a pending TSC deadline is due at another time. */
    void (*tsc_changed)(void *apic);
};

struct vcpu {
    struct machine *machine;
    unsigned index;
    uint32_t apic_id;
    const struct cpu_model *model;

    /* Where the registers are while the engine does not run; see engine_ops.get_state. */
    struct x86_state state;

    _Atomic uint32_t events; /* enum vcpu_event */
    _Atomic uint32_t sipi_vector;

    /*
     * Live copy of state.msr.tsc_offset for the APIC's TSC-deadline timer. The engine stores it in
     * set_state and whenever the guest writes the TSC or TSC_ADJUST, then calls tsc_changed.
     */
    _Atomic uint64_t tsc_offset;

    void *apic; /* NULL on a machine without APIC: then pic_acknowledge of the machine is used */
    const struct vcpu_apic_ops *apic_ops;

    void *engine;               /* the engine's own data */
    struct vcpu_thread *thread; /* the machine's own data */
};

/* Debugger requests for one vCPU; owned by the debugger, read by the engine while set. */
struct debug_point {
    enum debug_cause kind; /* DEBUG_BREAKPOINT or DEBUG_WATCH_* */
    uint64_t gva;          /* linear address */
    uint64_t size_bytes;
};
struct debug_request {
    bool step; /* leave after one instruction */
    const struct debug_point *points;
    unsigned point_count;
};

struct engine_ops {
    const char *name;
    const char *summary; /* one line, no full stop */

    bool counts_instructions; /* supports counted mode */
    bool runs_on_vcpu_thread; /* false: null engine, has no CPU to run */

    /* 0, or -errno with one sentence why this engine cannot run on this host. */
    int (*probe)(struct error *err);

    /* Per machine data is returned in *out_engine; NULL is fine if there is none. */
    int (*create)(struct machine *machine, void **out_engine, struct error *err);
    void (*destroy)(void *engine);

    /* vcpu->state holds reset values. Sets vcpu->engine. */
    int (*vcpu_create)(void *engine, struct vcpu *vcpu, struct error *err);
    void (*vcpu_destroy)(struct vcpu *vcpu);

    /*
     * Run until something must be done outside. On the vCPU's thread, without the
     * machine lock. budget is the largest number of instructions to retire (counted
     * mode; UINT64_MAX otherwise). VCPU_EVENT_KICK, once raised, makes this and
     * every later call return EXIT_KICKED until somebody clears it.
     */
    void (*run)(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit);
    /* Make run() notice new events soon. Any thread. May be NULL: polling is enough. */
    void (*kick)(struct vcpu *vcpu);

    /* Move registers to or from vcpu->state. The vCPU is not in run(). */
    void (*get_state)(struct vcpu *vcpu);
    void (*set_state)(struct vcpu *vcpu);

    /* A new flat view was published: drop cached translations. Any thread, machine lock held. */
    void (*memory_changed)(void *engine);
    /*
     * RAM (or, by a loader, ROM) was written by something that is not a vCPU of this engine.
     * ram_offset is the place in the RAM file: one page may be seen at several addresses, or at
     * another one than when it was pinned. Any thread.
     */
    void (*memory_written)(void *engine, uint64_t ram_offset, uint64_t size_bytes);
    /* Dirty tracking goes on or off (vCPUs are parked). */
    void (*dirty_tracking)(void *engine, bool on);
    /*
     * Pages are watched anew: vCPUs have to ask memory_watch_allows() again before they write
     * without memory_dirty_mark(). They do soon, and watch_settled() says when all have: it only
     * looks. Any thread, machine lock held.
     */
    void (*watch_again)(void *engine);
    bool (*watch_settled)(void *engine);

    /* Set or clear (request NULL) the debugger's wishes. The vCPU is not in run(). */
    int (*debug)(struct vcpu *vcpu, const struct debug_request *request, struct error *err);

    /*
     * What the vCPU has counted, one call of put for each: a name in lower case and the count. For
     * people; names may change. The vCPU is not in run(). May be NULL.
     */
    void (*stats)(struct vcpu *vcpu, void (*put)(void *opaque, const char *name, uint64_t count),
                  void *opaque);

    /* Linear to guest-physical without side effects, for debuggers. false if not mapped. */
    bool (*translate)(struct vcpu *vcpu, uint64_t gva, uint64_t *out_gpa);
};

/* Raise events and wake or kick the vCPU. Any thread, any lock. */
void vcpu_raise(struct vcpu *vcpu, uint32_t events);
/*
 * Raise an NMI. A processor takes one at once and keeps another until the first one's IRET
 * (SDM vol. 3, 6.7.1), so of NMIs that the engine has not seen two count. Any thread.
 */
void vcpu_raise_nmi(struct vcpu *vcpu);
/* The machine takes it, outside run(); without SMM the engine drops it. Any thread. */
void vcpu_raise_smi(struct vcpu *vcpu);
/*
 * NMIs, SMIs, INIT and SIPI that wait in events become state.pending, where they are saved;
 * resuming the machine makes them events again. A pause does so; what is raised later is there
 * after another call. The vCPU is parked.
 */
void vcpu_events_to_state(struct vcpu *vcpu);
/* Atomically clear; returns those that were set. */
uint32_t vcpu_take(struct vcpu *vcpu, uint32_t events);

/* The table of engines, ends with NULL; the order is that of --engine auto. */
extern const struct engine_ops *const engines[];
const struct engine_ops *engine_find(const char *name);

#endif
