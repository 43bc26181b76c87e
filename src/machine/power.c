/*
 * power.c - reset, suspend to RAM and the end, as anybody may request them
 *
 * A request sets a flag and a hold; the main loop, having waited until all vCPUs are parked, does
 * what was asked for. Of a machine that sleeps only the RAM matters: its processors are reset and
 * wait for a start that nobody can send, so nothing has to be known of sleep where they run, are
 * saved and are moved to another engine.
 */
#include "base/log.h"
#include "host/loop.h"
#include "machine/machine_internal.h"

/* ---- requests ---- */

static void request(struct machine *machine, _Atomic bool *flag)
{
    machine_hold(machine, HOLD_RESET);
    atomic_store(flag, true);
    loop_wake(machine->config.loop);
}

void machine_request_reset(struct machine *machine)
{
    if (machine->config.no_reboot)
        machine_request_stop(machine, STOP_GUEST_RESET, 0);
    else
        request(machine, &machine->reset_requested);
}

void machine_request_sleep(struct machine *machine)
{
    request(machine, &machine->sleep_requested);
}

void machine_request_wake(struct machine *machine)
{
    request(machine, &machine->wake_requested);
}

void machine_request_stop(struct machine *machine, enum stop_reason reason, int status)
{
    if (atomic_exchange(&machine->stop_claimed, true))
        return;
    machine->stop_reason = reason;
    machine->stop_status = status;
    machine_hold(machine, HOLD_STOP);
    atomic_store(&machine->stop_requested, true);
    loop_wake(machine->config.loop);
}

/* ---- what is done on the main loop's thread ---- */

void machine_reset_vcpu(struct vcpu_thread *thread)
{
    struct vcpu *vcpu = &thread->vcpu;
    uint64_t instructions = vcpu->state.instructions;

    x86_state_reset(&vcpu->state, false);
    vcpu->state.instructions = instructions;
    if (vcpu->index > 0)
        vcpu->state.activity = X86_WAIT_FOR_SIPI;
    vcpu_take(vcpu, ~(uint32_t)VCPU_EVENT_KICK);
}

static void load_all_registers(struct machine *machine)
{
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        machine_load_registers(&machine->threads[i]);
}

void machine_reset_all(struct machine *machine)
{
    trace(MACHINE_RESET, clock_now_ns(machine->clocks, CLOCK_ID_VIRTUAL));
    machine_set_a20(machine, true);
    for (struct device *dev = machine->devices; dev; dev = dev->next)
        if (dev->attached && dev->class->reset)
            dev->class->reset(dev);
    for (struct device *dev = machine->devices; dev; dev = dev->next)
        if (dev->attached && dev->class->reset_done)
            dev->class->reset_done(dev);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        machine_reset_vcpu(&machine->threads[i]);
    machine_smm_follow(machine);
    if (machine->boot)
        machine->boot(machine->boot_opaque, machine);
    load_all_registers(machine);
}

static void fall_asleep(struct machine *machine)
{
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        machine_reset_vcpu(&machine->threads[i]);
        machine->threads[i].vcpu.state.activity = X86_WAIT_FOR_SIPI;
    }
    machine_smm_follow(machine);
    load_all_registers(machine);
    log_info("the guest is suspended to RAM; its clock, a key on its screen, its power button "
             "(Ctrl-A p) or its monitor's 'wake' ends that");
}

static void wake(struct machine *machine)
{
    machine->is_waking = true;
    machine_reset_all(machine);
    machine->is_waking = false;
}

bool machine_is_waking(const struct machine *machine)
{
    return machine->is_waking;
}

/* What was requested; a reset is more than all else. */
static void serve(struct machine *machine)
{
    bool sleeps = atomic_exchange(&machine->sleep_requested, false);
    bool wakes = atomic_exchange(&machine->wake_requested, false);

    if (atomic_exchange(&machine->reset_requested, false)) {
        machine_reset_all(machine);
        sleeps = wakes = false;
    }
    if (sleeps)
        fall_asleep(machine);
    if (wakes)
        wake(machine);
    machine_tell_observers(machine);
}

bool machine_wants_power(const struct machine *machine)
{
    enum machine_state state = machine_get_state(machine);

    return (state == MACHINE_RUNNING || state == MACHINE_PAUSED) &&
           (atomic_load(&machine->reset_requested) || atomic_load(&machine->sleep_requested) ||
            atomic_load(&machine->wake_requested));
}

void machine_serve_power(struct machine *machine)
{
    if (!machine_wants_power(machine))
        return;
    machine_hold(machine, HOLD_RESET);
    machine_wait_parked(machine);
    serve(machine);
    machine_release(machine, HOLD_RESET);
}

void machine_reset(struct machine *machine)
{
    bool locked = machine_lock_if(machine);

    machine_hold(machine, HOLD_RESET);
    machine_wait_parked(machine);
    atomic_store(&machine->reset_requested, true);
    serve(machine);
    machine_release(machine, HOLD_RESET);
    machine_unlock_if(machine, locked);
}
