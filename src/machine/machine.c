/*
 * machine.c - lifecycle: build, run, pause, end
 *
 * Theory of operation. The main loop's thread owns the machine's state; other threads ask
 * (machine_request_reset, machine_request_stop, a debug exit) by setting a flag and a
 * hold. A hold is a bit that keeps vCPUs outside run(): whoever sets one raises KICK on all
 * vCPUs; each takes the KICK, moves its registers to vcpu->state, and waits until no
 * hold is left. The main loop, having waited until all are parked, does what was
 * asked for and takes the hold back.
 *
 * Waiting for vCPUs to park releases the machine lock: a vCPU may be waiting for it
 * on its way out of a device access.
 *
 * A halted vCPU sleeps until vcpu_raise() has been called since before the run() that
 * reported the halt: it compares a count, so it neither misses an event nor spins on
 * one that its state masks.
 *
 * Counted mode: the vCPU's thread serves virtual timers between two run()s, whose budget
 * ends at the next deadline; a halt goes to the next deadline at once.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "host/loop.h"
#include "machine/machine_internal.h"

#define DEFAULT_RAM_BYTES (512ull << 20)
#define RAM_UNIT_BYTES    MACHINE_MIN_RAM_BYTES
#define DEFAULT_CPU_MODEL "max"

/* ---- names and simple questions ---- */

const char *machine_state_name(enum machine_state state)
{
    static const char *const names[] = {
        [MACHINE_BUILT] = "built",
        [MACHINE_RUNNING] = "running",
        [MACHINE_PAUSED] = "paused",
        [MACHINE_STOPPED] = "stopped",
    };

    return names[state];
}

const char *stop_reason_name(enum stop_reason reason)
{
    static const char *const names[] = {
        [STOP_NONE] = "none",
        [STOP_GUEST_EXIT] = "guest-exit",
        [STOP_GUEST_POWEROFF] = "guest-poweroff",
        [STOP_GUEST_SHUTDOWN] = "guest-shutdown",
        [STOP_GUEST_RESET] = "guest-reset",
        [STOP_HOST] = "host",
        [STOP_ERROR] = "error",
    };

    return names[reason];
}

enum machine_state machine_get_state(const struct machine *machine)
{
    return (enum machine_state)atomic_load(&machine->state);
}

enum stop_reason machine_stop_reason(const struct machine *machine)
{
    return atomic_load(&machine->stop_requested) ? machine->stop_reason : STOP_NONE;
}

int machine_stop_status(const struct machine *machine)
{
    return atomic_load(&machine->stop_requested) ? machine->stop_status : 0;
}

const struct machine_config *machine_config(const struct machine *machine)
{
    return &machine->config;
}

struct memory *machine_memory(struct machine *machine)
{
    return machine->memory;
}

struct clocks *machine_clocks(struct machine *machine)
{
    return machine->clocks;
}

struct display *machine_display(struct machine *machine)
{
    return &machine->display;
}

struct input *machine_input(struct machine *machine)
{
    return &machine->input;
}

struct clipboard *machine_clipboard(struct machine *machine)
{
    return &machine->clipboard;
}

struct loop *machine_loop(struct machine *machine)
{
    return machine->config.loop;
}

void *machine_engine_data(struct machine *machine)
{
    return machine->engine_data;
}

unsigned machine_vcpu_count(const struct machine *machine)
{
    return machine->vcpu_count;
}

struct vcpu *machine_vcpu(struct machine *machine, unsigned index)
{
    return index < machine->vcpu_count ? &machine->threads[index].vcpu : NULL;
}

void machine_random(void *out, size_t size_bytes)
{
    host_random(out, size_bytes);
}

bool machine_a20(const struct machine *machine)
{
    return atomic_load_explicit(&machine->a20, memory_order_relaxed);
}

const _Atomic bool *machine_a20_gate(const struct machine *machine)
{
    return &machine->a20;
}

void machine_set_a20(struct machine *machine, bool enabled)
{
    if (atomic_exchange(&machine->a20, enabled) != enabled)
        machine_memory_changed(machine); /* translations were made through the gate */
}

void machine_set_pic(struct machine *machine, machine_pic_ack_fn *ack, void *opaque)
{
    machine->pic_ack = ack;
    machine->pic_opaque = opaque;
}

int machine_pic_acknowledge(struct machine *machine)
{
    return machine->pic_ack ? machine->pic_ack(machine->pic_opaque) : -1;
}

void machine_set_debugger(struct machine *machine, machine_debug_fn *fn, void *opaque)
{
    machine->debugger = fn;
    machine->debugger_opaque = opaque;
}

void machine_set_boot(struct machine *machine, machine_boot_fn *fn, void *opaque)
{
    machine->boot = fn;
    machine->boot_opaque = opaque;
}

int machine_observe(struct machine *machine, machine_observer_fn *fn, void *opaque)
{
    if (machine->observer_count == MACHINE_OBSERVER_MAX)
        return -ENOSPC;
    machine->observers[machine->observer_count].fn = fn;
    machine->observers[machine->observer_count++].opaque = opaque;
    return 0;
}

/* ---- the machine lock ---- */

bool machine_is_locked_by_me(const struct machine *machine)
{
    return atomic_load_explicit(&machine->lock_owner, memory_order_relaxed) == host_thread_self();
}

void machine_lock(struct machine *machine)
{
    assert(!machine_is_locked_by_me(machine));
    host_mutex_lock(&machine->lock);
    atomic_store_explicit(&machine->lock_owner, host_thread_self(), memory_order_relaxed);
}

void machine_unlock(struct machine *machine)
{
    assert(machine_is_locked_by_me(machine));
    atomic_store_explicit(&machine->lock_owner, 0, memory_order_relaxed);
    host_mutex_unlock(&machine->lock);
}

/* ---- what the memory map tells the engine ---- */

static const struct engine_ops *ops_of(const struct machine *machine)
{
    return machine->config.engine;
}

void machine_memory_changed(struct machine *machine)
{
    if (machine && machine->engine_created && ops_of(machine)->memory_changed)
        ops_of(machine)->memory_changed(machine->engine_data);
}

void machine_memory_written(struct machine *machine, uint64_t ram_offset, uint64_t size_bytes)
{
    if (machine && machine->engine_created && ops_of(machine)->memory_written)
        ops_of(machine)->memory_written(machine->engine_data, ram_offset, size_bytes);
}

void machine_dirty_tracking(struct machine *machine, bool on)
{
    if (machine && machine->engine_created && ops_of(machine)->dirty_tracking)
        ops_of(machine)->dirty_tracking(machine->engine_data, on);
}

void machine_watch_again(struct machine *machine)
{
    if (machine && machine->engine_created && ops_of(machine)->watch_again)
        ops_of(machine)->watch_again(machine->engine_data);
}

bool machine_watch_settled(struct machine *machine)
{
    return !machine || !machine->engine_created || !ops_of(machine)->watch_settled ||
           ops_of(machine)->watch_settled(machine->engine_data);
}

/* ---- events of a vCPU ---- */

static void wake_vcpu(struct vcpu_thread *thread)
{
    /* Pairs with sleep_until_raised: it sets asleep, then looks at raises. */
    atomic_fetch_add(&thread->raises, 1);
    if (!atomic_load(&thread->asleep))
        return;
    /* It waits now, or has not looked yet. It would run into the mutex if it were woken with it. */
    host_mutex_lock(&thread->mutex);
    host_mutex_unlock(&thread->mutex);
    host_cond_broadcast(&thread->wake);
}

void vcpu_raise(struct vcpu *vcpu, uint32_t events)
{
    const struct engine_ops *ops = ops_of(vcpu->machine);

    atomic_fetch_or(&vcpu->events, events);
    if (ops->kick)
        ops->kick(vcpu);
    if (vcpu->thread)
        wake_vcpu(vcpu->thread);
}

void vcpu_raise_nmi(struct vcpu *vcpu)
{
    uint32_t before = atomic_fetch_or(&vcpu->events, VCPU_EVENT_NMI);

    /* If the first is taken meanwhile, the other bit alone is an NMI as well. */
    vcpu_raise(vcpu, before & VCPU_EVENT_NMI ? VCPU_EVENT_NMI_AGAIN : 0);
}

uint32_t vcpu_take(struct vcpu *vcpu, uint32_t events)
{
    return atomic_fetch_and(&vcpu->events, ~events) & events;
}

#define SAVED_EVENTS                                                                               \
    (VCPU_EVENT_NMI | VCPU_EVENT_NMI_AGAIN | VCPU_EVENT_INIT | VCPU_EVENT_SIPI | VCPU_EVENT_SMI)

void vcpu_events_to_state(struct vcpu *vcpu)
{
    struct x86_pending *p = &vcpu->state.pending;
    uint32_t events = vcpu_take(vcpu, SAVED_EVENTS);
    unsigned nmis = (unsigned)__builtin_popcount(events & (VCPU_EVENT_NMI | VCPU_EVENT_NMI_AGAIN)) +
                    p->nmi_pending + p->nmi_again;

    p->nmi_pending = nmis > 0;
    p->nmi_again = nmis > 1 && !p->nmi_blocked;
    p->init |= (events & VCPU_EVENT_INIT) != 0;
    p->sipi |= (events & VCPU_EVENT_SIPI) != 0;
    p->smi |= (events & VCPU_EVENT_SMI) != 0;
    if (events & VCPU_EVENT_SIPI)
        p->sipi_vector = (uint8_t)atomic_load(&vcpu->sipi_vector);
}

static void state_to_events(struct vcpu *vcpu)
{
    struct x86_pending *p = &vcpu->state.pending;
    uint32_t events = (p->nmi_again ? VCPU_EVENT_NMI : 0) | (p->init ? VCPU_EVENT_INIT : 0) |
                      (p->sipi ? VCPU_EVENT_SIPI : 0) | (p->smi ? VCPU_EVENT_SMI : 0);

    if (p->sipi)
        atomic_store(&vcpu->sipi_vector, p->sipi_vector);
    p->nmi_again = p->init = p->sipi = p->smi = false;
    if (events)
        vcpu_raise(vcpu, events);
}

static bool must_wait(const struct machine *machine)
{
    return atomic_load(&machine->holds) || atomic_load(&machine->ending);
}

/* seen: the count of raises before the run() that ended with nothing to do. */
static void sleep_until_raised(struct vcpu_thread *thread, uint32_t seen)
{
    host_mutex_lock(&thread->mutex);
    atomic_store(&thread->asleep, true);
    while (atomic_load(&thread->raises) == seen && !must_wait(thread->vcpu.machine))
        host_cond_wait(&thread->wake, &thread->mutex);
    atomic_store(&thread->asleep, false);
    host_mutex_unlock(&thread->mutex);
}

/* ---- holds ---- */

static void kick_all(struct machine *machine)
{
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vcpu_raise(&machine->threads[i].vcpu, VCPU_EVENT_KICK);
}

/* Any thread. */
void machine_hold(struct machine *machine, uint32_t why)
{
    atomic_fetch_or(&machine->holds, why);
    kick_all(machine);
}

void machine_release(struct machine *machine, uint32_t why)
{
    host_mutex_lock(&machine->park_mutex);
    atomic_fetch_and(&machine->holds, ~why);
    host_cond_broadcast(&machine->park_changed);
    host_mutex_unlock(&machine->park_mutex);
}

static bool all_parked(const struct machine *machine)
{
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        if (machine->threads[i].host && !machine->threads[i].parked)
            return false;
    return true;
}

/* Some hold is set. Releases the machine lock meanwhile, if the caller has it. */
void machine_wait_parked(struct machine *machine)
{
    bool locked = machine_is_locked_by_me(machine);

    assert(atomic_load(&machine->holds));
    if (locked)
        machine_unlock(machine);
    host_mutex_lock(&machine->park_mutex);
    while (!all_parked(machine))
        host_cond_wait(&machine->park_changed, &machine->park_mutex);
    host_mutex_unlock(&machine->park_mutex);
    if (locked)
        machine_lock(machine);
}

void machine_load_registers(struct vcpu_thread *thread)
{
    struct machine *machine = thread->vcpu.machine;

    if (ops_of(machine)->set_state)
        ops_of(machine)->set_state(&thread->vcpu);
    if (machine->config.counted)
        clocks_rebase_counted(machine->clocks, thread->vcpu.state.instructions);
    thread->loaded = true;
}

static void store_registers(struct vcpu_thread *thread)
{
    const struct engine_ops *ops = ops_of(thread->vcpu.machine);

    if (thread->loaded && ops->get_state)
        ops->get_state(&thread->vcpu);
    thread->loaded = false;
}

/* On the vCPU's thread, outside run(). False when the thread is to end. */
static bool wait_while_held(struct vcpu_thread *thread)
{
    struct machine *machine = thread->vcpu.machine;

    if (thread->loaded && !must_wait(machine))
        return true;
    store_registers(thread);
    host_mutex_lock(&machine->park_mutex);
    thread->parked = true;
    host_cond_broadcast(&machine->park_changed);
    while ((atomic_load(&machine->holds) || thread->held || thread->outside_smm) &&
           !atomic_load(&machine->ending))
        host_cond_wait(&machine->park_changed, &machine->park_mutex);
    if (!atomic_load(&machine->ending))
        thread->parked = false;
    host_mutex_unlock(&machine->park_mutex);
    if (atomic_load(&machine->ending))
        return false;
    machine_load_registers(thread);
    return true;
}

/* ---- counted mode ---- */

static void run_counted_timers(struct machine *machine)
{
    if (clocks_next_counted_ns(machine->clocks) > clock_now_ns(machine->clocks, CLOCK_ID_VIRTUAL))
        return;
    machine_lock(machine);
    clocks_run_counted(machine->clocks);
    machine_unlock(machine);
}

/* Instructions until the next deadline; notes its time for deadline_changed. */
static uint64_t counted_budget(struct vcpu_thread *thread)
{
    struct clocks *clocks = thread->vcpu.machine->clocks;
    uint64_t next = clocks_next_counted_ns(clocks), now, noted;

    do { /* a timer that another thread arms meanwhile is seen by one of us */
        noted = next;
        atomic_store(&thread->budget_end_ns, noted);
        next = clocks_next_counted_ns(clocks);
    } while (next != noted);
    now = clock_now_ns(clocks, CLOCK_ID_VIRTUAL);
    if (next == CLOCK_NEVER)
        return UINT64_MAX;
    return next > now ? next - now : 1;
}

static void counted_halt(struct vcpu_thread *thread, uint32_t seen)
{
    struct machine *machine = thread->vcpu.machine;
    uint64_t next = clocks_next_counted_ns(machine->clocks);

    if (next == CLOCK_NEVER) {
        sleep_until_raised(thread, seen);
        return;
    }
    clocks_skip_counted_to(machine->clocks, next);
    run_counted_timers(machine);
}

/* ---- exits ---- */

static void exit_nothing(struct vcpu_thread *thread, uint32_t seen)
{
}

static void exit_kicked(struct vcpu_thread *thread, uint32_t seen)
{
    vcpu_take(&thread->vcpu, VCPU_EVENT_KICK); /* the holds are looked at next */
}

static void exit_halt(struct vcpu_thread *thread, uint32_t seen)
{
    if (thread->vcpu.machine->config.counted)
        counted_halt(thread, seen);
    else
        sleep_until_raised(thread, seen);
}

static void exit_shutdown(struct vcpu_thread *thread, uint32_t seen)
{
    struct machine *machine = thread->vcpu.machine;

    log_message(LOG_GUEST, "vCPU %u: triple fault", thread->vcpu.index);
    if (machine->config.no_reboot)
        machine_request_stop(machine, STOP_GUEST_SHUTDOWN, 1);
    else
        machine_request_reset(machine);
}

static void exit_debug(struct vcpu_thread *thread, uint32_t seen)
{
    struct machine *machine = thread->vcpu.machine;

    host_mutex_lock(&machine->park_mutex);
    thread->debug_stop = true;
    thread->debug_exit = thread->exit;
    host_mutex_unlock(&machine->park_mutex);
    machine_hold(machine, HOLD_DEBUG);
    atomic_store(&machine->debug_requested, true);
    loop_wake(machine->config.loop);
}

static void exit_port(struct vcpu_thread *thread, uint32_t seen)
{
    struct vcpu_exit *exit = &thread->exit;
    struct machine *machine = thread->vcpu.machine;

    if (exit->port.write)
        bus_port_write(machine, exit->port.port, exit->port.value, exit->port.size_bytes);
    else
        exit->port.value = bus_port_read(machine, exit->port.port, exit->port.size_bytes);
}

static void exit_mmio(struct vcpu_thread *thread, uint32_t seen)
{
    struct vcpu_exit *exit = &thread->exit;
    struct machine *machine = thread->vcpu.machine;

    if (exit->mmio.write)
        bus_memory_write(machine, exit->mmio.gpa, exit->mmio.value, exit->mmio.size_bytes);
    else
        exit->mmio.value = bus_memory_read(machine, exit->mmio.gpa, exit->mmio.size_bytes);
}

static void exit_failed(struct vcpu_thread *thread, uint32_t seen)
{
    log_error("vCPU %u cannot go on: %s", thread->vcpu.index,
              thread->exit.failure ? thread->exit.failure : "engine failure");
    machine_request_stop(thread->vcpu.machine, STOP_ERROR, 1);
}

typedef void exit_fn(struct vcpu_thread *thread, uint32_t seen);

static exit_fn *const exit_handlers[] = {
    [EXIT_KICKED] = exit_kicked,     [EXIT_HALT] = exit_halt,
    [EXIT_SHUTDOWN] = exit_shutdown, [EXIT_DEBUG] = exit_debug,
    [EXIT_PORT] = exit_port,         [EXIT_MMIO] = exit_mmio,
    [EXIT_HYPERCALL] = exit_nothing, [EXIT_INTERRUPT_WINDOW] = exit_nothing,
    [EXIT_BUDGET] = exit_nothing,    [EXIT_FAILED] = exit_failed,
};

static void vcpu_main(void *opaque)
{
    struct vcpu_thread *thread = opaque;
    struct machine *machine = thread->vcpu.machine;
    bool counted = machine->config.counted;

    while (wait_while_held(thread)) {
        uint32_t seen = atomic_load(&thread->raises);
        uint64_t budget = counted ? counted_budget(thread) : UINT64_MAX;

        ops_of(machine)->run(&thread->vcpu, budget, &thread->exit);
        if (counted) {
            atomic_store(&thread->budget_end_ns, 0);
            run_counted_timers(machine);
        }
        exit_handlers[thread->exit.reason](thread, seen);
    }
}

/* ---- changes of state, on the main loop's thread ---- */

void machine_tell_observers(struct machine *machine)
{
    enum machine_state state = machine_get_state(machine);

    for (unsigned i = 0; i < machine->observer_count; i++)
        machine->observers[i].fn(machine->observers[i].opaque, machine, state);
}

static void set_machine_state(struct machine *machine, enum machine_state state)
{
    atomic_store(&machine->state, (int)state);
    trace(MACHINE_STATE, state, clock_now_ns(machine->clocks, CLOCK_ID_VIRTUAL));
    machine_tell_observers(machine);
}

static void quiesce_devices(struct machine *machine)
{
    for (struct device *dev = machine->devices; dev; dev = dev->next)
        if (dev->attached && dev->class->quiesce)
            dev->class->quiesce(dev);
}

static void resume_devices(struct machine *machine)
{
    for (struct device *dev = machine->devices; dev; dev = dev->next)
        if (dev->attached && dev->class->resume)
            dev->class->resume(dev);
}

/* All vCPUs are parked by a hold. */
static void enter_pause(struct machine *machine)
{
    machine_serve_power(machine); /* what is saved now has it behind it */
    clocks_pause(machine->clocks);
    quiesce_devices(machine);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vcpu_events_to_state(&machine->threads[i].vcpu);
    set_machine_state(machine, MACHINE_PAUSED);
}

void machine_pause(struct machine *machine)
{
    bool locked = machine_lock_if(machine);

    if (machine_get_state(machine) == MACHINE_RUNNING) {
        machine_hold(machine, HOLD_PAUSE);
        machine_wait_parked(machine);
        enter_pause(machine);
    }
    machine_unlock_if(machine, locked);
}

void machine_request_pause(struct machine *machine)
{
    machine_hold(machine, HOLD_PAUSE);
    atomic_store(&machine->pause_requested, true);
    loop_wake(machine->config.loop);
}

void machine_pause_for(struct machine *machine, const char *why)
{
    if (machine->pause_reason[0]) /* the first of several pauses it */
        return;
    snprintf(machine->pause_reason, sizeof(machine->pause_reason), "%s", why);
    log_error("%s; the machine is paused, and tries again when it is resumed", why);
    machine_request_pause(machine);
}

const char *machine_pause_reason(const struct machine *machine)
{
    return machine->pause_reason[0] ? machine->pause_reason : NULL;
}

void machine_resume(struct machine *machine)
{
    bool locked = machine_lock_if(machine);

    if (machine_get_state(machine) == MACHINE_PAUSED) {
        if (machine->pause_reason[0]) { /* perhaps while it was paused already */
            machine->pause_reason[0] = '\0';
            atomic_store(&machine->pause_requested, false);
        }
        for (unsigned i = 0; i < machine->vcpu_count; i++)
            state_to_events(&machine->threads[i].vcpu);
        machine_smm_follow(machine);
        resume_devices(machine);
        clocks_resume(machine->clocks);
        set_machine_state(machine, MACHINE_RUNNING);
        machine_release(machine, HOLD_PAUSE);
    }
    machine_unlock_if(machine, locked);
}

void machine_hold_vcpu(struct machine *machine, unsigned index, bool held)
{
    assert(machine_get_state(machine) != MACHINE_RUNNING);
    host_mutex_lock(&machine->park_mutex);
    machine->threads[index].held = held; /* it is parked, and looks when the pause ends */
    host_mutex_unlock(&machine->park_mutex);
}

static void stop(struct machine *machine)
{
    bool running = machine_get_state(machine) == MACHINE_RUNNING;

    machine_wait_parked(machine);
    clocks_pause(machine->clocks);
    if (running)
        quiesce_devices(machine);
    set_machine_state(machine, MACHINE_STOPPED);
}

/* A vCPU whose debug exit has not been reported; *out_more if there is another one. */
static struct vcpu_thread *take_debug_stop(struct machine *machine, bool *out_more)
{
    struct vcpu_thread *found = NULL;

    *out_more = false;
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        if (!machine->threads[i].debug_stop)
            continue;
        if (found)
            *out_more = true;
        else
            found = &machine->threads[i];
    }
    if (found)
        found->debug_stop = false;
    return found;
}

/* One report for each pause: further vCPUs stay held and are reported after the resume. */
static void report_debug_stop(struct machine *machine)
{
    struct vcpu_thread *thread;
    bool more;

    machine_wait_parked(machine);
    thread = take_debug_stop(machine, &more);
    if (machine->debugger && thread) {
        atomic_fetch_or(&machine->holds, HOLD_PAUSE); /* they are parked */
        enter_pause(machine);
    }
    if (!more) {
        atomic_store(&machine->debug_requested, false);
        machine_release(machine, HOLD_DEBUG);
    }
    if (machine->debugger && thread)
        machine->debugger(machine->debugger_opaque, &thread->vcpu, &thread->debug_exit);
}

static bool wants_stop(const struct machine *machine)
{
    return atomic_load(&machine->stop_requested) && machine_get_state(machine) != MACHINE_STOPPED;
}

static bool wants_debug(const struct machine *machine)
{
    return atomic_load(&machine->debug_requested) && machine_get_state(machine) == MACHINE_RUNNING;
}

static bool wants_pause(const struct machine *machine)
{
    enum machine_state state = machine_get_state(machine);

    return atomic_load(&machine->pause_requested) &&
           (state == MACHINE_RUNNING || state == MACHINE_PAUSED);
}

static void serve_requests(struct machine *machine)
{
    if (wants_stop(machine))
        stop(machine);
    if (wants_pause(machine)) {
        atomic_store(&machine->pause_requested, false);
        machine_pause(machine);
    }
    machine_serve_power(machine);
    if (wants_debug(machine))
        report_debug_stop(machine);
    machine_serve_smm(machine);
}

/* ---- the main loop ---- */

static uint64_t hook_wait_ns(void *opaque)
{
    struct machine *machine = opaque;

    if (wants_stop(machine) || wants_pause(machine) || machine_wants_power(machine) ||
        wants_debug(machine) || machine_wants_smm(machine))
        return 0;
    return clocks_wait_ns(machine->clocks);
}

static void hook_run_timers(void *opaque)
{
    struct machine *machine = opaque;

    clocks_run_loop(machine->clocks);
    serve_requests(machine);
}

static void hook_lock(void *opaque)
{
    machine_lock(opaque);
}

static void hook_unlock(void *opaque)
{
    machine_unlock(opaque);
}

static bool hook_finished(void *opaque)
{
    return machine_get_state(opaque) == MACHINE_STOPPED;
}

int machine_main(struct machine *machine)
{
    loop_run(machine->config.loop);
    return machine_stop_status(machine);
}

/* A timer became the next one: whoever waits for the old one has to look again. */
static void deadline_changed(void *opaque)
{
    struct machine *machine = opaque;

    if (machine->config.counted && machine->clocks) {
        struct vcpu_thread *thread = &machine->threads[0];

        if (clocks_next_counted_ns(machine->clocks) < atomic_load(&thread->budget_end_ns))
            vcpu_raise(&thread->vcpu, VCPU_EVENT_KICK);
        else
            wake_vcpu(thread); /* it may be about to sleep for want of a deadline */
    }
    loop_wake(machine->config.loop);
}

/* ---- start ---- */

static int start_threads(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        struct vcpu_thread *thread = &machine->threads[i];
        char name[16];

        snprintf(name, sizeof(name), "vcpu %u", i);
        host_mutex_lock(&machine->park_mutex); /* all_parked looks at host */
        thread->host = host_thread_start(name, vcpu_main, thread, err);
        host_mutex_unlock(&machine->park_mutex);
        if (!thread->host)
            return -err->code;
    }
    return 0;
}

int machine_start(struct machine *machine, struct error *err)
{
    struct error why = {0};
    bool locked = machine_lock_if(machine);
    int ret = 0;

    assert(machine_get_state(machine) == MACHINE_BUILT);
    atomic_fetch_or(&machine->holds, HOLD_START);
    machine_reset_all(machine);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        machine->threads[i].loaded = false; /* the thread itself does it */
    if (ops_of(machine)->runs_on_vcpu_thread)
        ret = start_threads(machine, &why);
    if (ret) {
        error_set(err, why.code, "%s", why.text);
    } else if (machine->config.start_paused) {
        atomic_fetch_or(&machine->holds, HOLD_PAUSE);
        enter_pause(machine);
    } else {
        clocks_resume(machine->clocks);
        set_machine_state(machine, MACHINE_RUNNING);
    }
    if (!ret)
        machine_release(machine, HOLD_START);
    machine_unlock_if(machine, locked);
    return ret;
}

/* ---- build and free ---- */

static int check_config(const struct machine_config *config, struct error *err)
{
    if (!config->engine || !config->loop)
        return error_set(err, EINVAL, "a machine needs an engine and a main loop");
    if (config->ram_bytes % RAM_UNIT_BYTES)
        return error_set(err, EINVAL, "RAM must be a multiple of 1 MiB, not %" PRIu64 " bytes",
                         config->ram_bytes);
    if (config->vcpu_count > MACHINE_MAX_VCPUS)
        return error_set(err, EINVAL, "%u vCPUs are more than %u", config->vcpu_count,
                         MACHINE_MAX_VCPUS);
    if (config->counted && config->vcpu_count > 1 && config->engine->runs_on_vcpu_thread)
        return error_set(err, EINVAL, "counted mode works with one vCPU only");
    if (config->counted && !config->engine->counts_instructions)
        return error_set(err, ENOTSUP, "engine '%s' does not count instructions",
                         config->engine->name);
    return 0;
}

/* Copies the strings; fills in the defaults. */
static int take_config(struct machine *machine, const struct machine_config *config,
                       struct error *err)
{
    machine->config = *config;
    machine->name = strdup(config->name ? config->name : "vm");
    machine->cpu_model_text = strdup(config->cpu_model ? config->cpu_model : DEFAULT_CPU_MODEL);
    if (!machine->name || !machine->cpu_model_text)
        return error_set(err, ENOMEM, "out of memory");
    machine->config.name = machine->name;
    machine->config.cpu_model = machine->cpu_model_text;
    if (!machine->config.ram_bytes)
        machine->config.ram_bytes = DEFAULT_RAM_BYTES;
    if (!machine->config.vcpu_count)
        machine->config.vcpu_count = 1;
    return 0;
}

static int build_vcpus(struct machine *machine, struct error *err)
{
    unsigned count = machine->config.vcpu_count;

    machine->threads = aligned_alloc(64, count * sizeof(*machine->threads));
    if (!machine->threads)
        return error_set(err, ENOMEM, "out of memory");
    memset(machine->threads, 0, count * sizeof(*machine->threads));
    for (unsigned i = 0; i < count; i++) {
        struct vcpu_thread *thread = &machine->threads[i];

        host_mutex_init(&thread->mutex);
        host_cond_init(&thread->wake);
        thread->vcpu.machine = machine;
        thread->vcpu.index = i;
        thread->vcpu.apic_id = i;
        thread->vcpu.model = &machine->cpu_model;
        thread->vcpu.thread = thread;
        machine_reset_vcpu(thread);
    }
    machine->vcpu_count = count;
    return 0;
}

static int build_engine(struct machine *machine, struct error *err)
{
    const struct engine_ops *ops = ops_of(machine);
    int ret = ops->create ? ops->create(machine, &machine->engine_data, err) : 0;

    if (ret)
        return ret;
    machine->engine_created = true;
    for (unsigned i = 0; i < machine->vcpu_count && !ret && ops->vcpu_create; i++)
        ret = ops->vcpu_create(machine->engine_data, &machine->threads[i].vcpu, err);
    return ret;
}

static int build_parts(struct machine *machine, struct error *err)
{
    struct clocks_config clocks = {
        .counted = machine->config.counted,
        .wall_start_ns = machine->config.wall_start_ns,
        .deadline_changed = deadline_changed,
        .opaque = machine,
    };
    int ret = cpu_model_parse(machine->cpu_model_text, machine->config.vcpu_count,
                              &machine->cpu_model, err);

    if (ret)
        return ret;
    machine->clocks = clocks_new(&clocks);
    machine->bus = bus_new();
    if (!machine->clocks || !machine->bus)
        return error_set(err, ENOMEM, "out of memory");
    machine->memory = memory_new(machine, machine->config.ram_bytes, err);
    if (!machine->memory)
        return -ENOMEM;
    ret = build_vcpus(machine, err);
    return ret ? ret : build_engine(machine, err);
}

static void init_locks(struct machine *machine)
{
    host_mutex_init(&machine->lock);
    host_mutex_init(&machine->park_mutex);
    host_cond_init(&machine->park_changed);
}

struct machine *machine_new(const struct machine_config *config, struct error *err)
{
    struct loop_hooks hooks = {
        .wait_ns = hook_wait_ns,
        .run_timers = hook_run_timers,
        .lock = hook_lock,
        .unlock = hook_unlock,
        .finished = hook_finished,
    };
    struct machine *machine;

    if (check_config(config, err))
        return NULL;
    machine = calloc(1, sizeof(*machine));
    if (!machine) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    init_locks(machine);
    machine->last_device = &machine->devices;
    atomic_init(&machine->a20, true);
    if (take_config(machine, config, err) || build_parts(machine, err)) {
        machine_free(machine);
        return NULL;
    }
    hooks.opaque = machine;
    loop_set_hooks(config->loop, &hooks);
    return machine;
}

static void end_threads(struct machine *machine)
{
    host_mutex_lock(&machine->park_mutex);
    atomic_store(&machine->ending, true);
    host_cond_broadcast(&machine->park_changed);
    host_mutex_unlock(&machine->park_mutex);
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        struct vcpu_thread *thread = &machine->threads[i];

        if (thread->host)
            vcpu_raise(&thread->vcpu, VCPU_EVENT_KICK);
        host_thread_join(thread->host);
        thread->host = NULL;
    }
}

/* Last created, first freed: a device may lean on older ones. */
static void free_devices(struct machine *machine)
{
    while (machine->devices) {
        struct device *dev = machine->devices;

        while (dev->next)
            dev = dev->next;
        device_free(dev);
    }
}

static void free_engine(struct machine *machine)
{
    const struct engine_ops *ops = ops_of(machine);

    for (unsigned i = 0; i < machine->vcpu_count; i++)
        if (machine->threads[i].vcpu.engine && ops->vcpu_destroy)
            ops->vcpu_destroy(&machine->threads[i].vcpu);
    if (machine->engine_created && ops->destroy)
        ops->destroy(machine->engine_data);
    machine->engine_created = false;
}

void machine_free(struct machine *machine)
{
    if (!machine)
        return;
    assert(!machine_is_locked_by_me(machine));
    end_threads(machine);
    free_devices(machine);
    if (machine->config.loop)
        loop_set_hooks(machine->config.loop, NULL);
    free_engine(machine);
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        host_mutex_done(&machine->threads[i].mutex);
        host_cond_done(&machine->threads[i].wake);
    }
    free(machine->threads);
    memory_free(machine->memory);
    clocks_free(machine->clocks);
    free(machine->bus);
    host_cond_done(&machine->park_changed);
    host_mutex_done(&machine->park_mutex);
    host_mutex_done(&machine->lock);
    free(machine->cpu_model_text);
    free(machine->name);
    clipboard_done(&machine->clipboard);
    free(machine);
}
