/*
 * smm.c - processors that enter and leave System Management Mode
 *
 * An SMI and an RSM are requests, as a reset is: the main loop waits until all vCPUs are parked,
 * takes the SMIs that wait, does the RSMs, and lets the vCPUs go on. There is one memory map for
 * all of them, so while any is in SMM and SMRAM can be seen, those that are not wait until the last
 * one has left, or until an SMI of their own. (On hardware each processor has its own view.)
 */
#include <string.h>

#include "base/log.h"
#include "host/loop.h"
#include "machine/machine_internal.h"
#include "x86/smm.h"

void machine_set_smm(struct machine *machine, machine_smm_fn *fn, void *opaque)
{
    machine->smm = fn;
    machine->smm_opaque = opaque;
}

bool machine_in_smm(const struct machine *machine)
{
    return atomic_load(&machine->in_smm);
}

bool machine_request_smm(struct machine *machine)
{
    if (!machine->smm)
        return false;
    machine_hold(machine, HOLD_SMM);
    atomic_store(&machine->smm_requested, true);
    loop_wake(machine->config.loop);
    return true;
}

void vcpu_raise_smi(struct vcpu *vcpu)
{
    vcpu_raise(vcpu, VCPU_EVENT_SMI);
    machine_request_smm(vcpu->machine); /* it may be parked, and raise nothing itself */
}

/* RAM, seen by processors only or not; NULL where there is none. */
static uint8_t *find_area(struct machine *machine, uint64_t smbase)
{
    const struct flat_view *view = memory_view_get(machine->memory);
    uint64_t gpa = smbase + X86_SMM_AREA_OFFSET;
    const struct flat_range *range = flat_view_find(view, gpa);
    uint8_t *hva = NULL;

    if (range && range->region->kind == REGION_RAM &&
        range->size_bytes - (gpa - range->gpa) >= X86_SMM_AREA_BYTES)
        hva = range->region->hva + range->offset + (gpa - range->gpa);
    memory_view_put(machine->memory, view);
    return hva;
}

static void leave(struct machine *machine, struct vcpu *vcpu)
{
    uint8_t all_ones[X86_SMM_AREA_BYTES];
    uint8_t *area = find_area(machine, vcpu->state.msr.smbase);

    trace(SMM_LEAVE, vcpu->index);
    memset(all_ones, 0xff, sizeof(all_ones));
    x86_smm_leave(&vcpu->state, area ? area : all_ones);
    if (vcpu->state.activity == X86_SHUTDOWN)
        log_guest("vCPU %u: RSM to a state that no processor can be in", vcpu->index);
}

static void enter(struct machine *machine, struct vcpu *vcpu)
{
    uint8_t lost[X86_SMM_AREA_BYTES];
    uint8_t *area = find_area(machine, vcpu->state.msr.smbase);

    trace(SMM_ENTER, vcpu->index, vcpu->state.msr.smbase, vcpu->state.rip);
    vcpu_take(vcpu, VCPU_EVENT_SMI);
    x86_smm_enter(&vcpu->state, area ? area : lost);
    if (area)
        memory_unpin(machine->memory, area, X86_SMM_AREA_BYTES);
}

static bool wants_in(struct vcpu *vcpu)
{
    return (atomic_load(&vcpu->events) & VCPU_EVENT_SMI) && x86_smm_can_enter(&vcpu->state);
}

static bool any(struct machine *machine, bool (*is)(struct vcpu *vcpu))
{
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        if (is(&machine->threads[i].vcpu))
            return true;
    return false;
}

static bool is_inside(struct vcpu *vcpu)
{
    return vcpu->state.smm.active;
}

static void show_smram(struct machine *machine, bool show)
{
    if (atomic_exchange(&machine->in_smm, show) != show && machine->smm)
        machine->smm(machine->smm_opaque, show);
}

/* Who is outside waits while somebody is inside. */
static void choose_who_runs(struct machine *machine)
{
    bool inside = any(machine, is_inside);

    show_smram(machine, inside);
    host_mutex_lock(&machine->park_mutex);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        machine->threads[i].outside_smm = inside && !is_inside(&machine->threads[i].vcpu);
    host_mutex_unlock(&machine->park_mutex);
}

bool machine_wants_smm(const struct machine *machine)
{
    return atomic_load(&machine->smm_requested) && machine_get_state(machine) == MACHINE_RUNNING;
}

void machine_serve_smm(struct machine *machine)
{
    bool locked;

    if (!machine_wants_smm(machine))
        return;
    locked = machine_lock_if(machine);
    machine_wait_parked(machine);
    atomic_store(&machine->smm_requested, false);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        if (machine->threads[i].vcpu.state.activity == X86_RESUMING)
            leave(machine, &machine->threads[i].vcpu);
    if (any(machine, wants_in))
        show_smram(machine, true); /* their registers are saved there */
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        if (wants_in(&machine->threads[i].vcpu))
            enter(machine, &machine->threads[i].vcpu);
    choose_who_runs(machine);
    machine_release(machine, HOLD_SMM);
    machine_unlock_if(machine, locked);
}

static bool has_smi(struct vcpu *vcpu)
{
    return atomic_load(&vcpu->events) & VCPU_EVENT_SMI;
}

static bool is_resuming(struct vcpu *vcpu)
{
    return vcpu->state.activity == X86_RESUMING;
}

void machine_smm_follow(struct machine *machine)
{
    choose_who_runs(machine);
    if (any(machine, has_smi) || any(machine, is_resuming))
        machine_request_smm(machine);
}
